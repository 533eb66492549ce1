/*
 * Goal: every line of the access log is whole, whatever the lengths of what a client has sent and however
 * many bytes it escapes to; long values are cut at a whole character and marked.
 * Method: a made-up exchange whose values take all lengths around each bound, in each format.
 */
#include "actions/json_check.h"
#include "engine/log.h"
#include "router/access_log.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct ag_tls_session session = {.version = "TLSv1.3"};

static const struct ag_tls_session *server_tls(struct ag_exchange *ex)
{
    (void)ex;
    return &session;
}

static const struct ag_server_ops server_ops = {.tls = server_tls};

struct rig {
    struct ag_loop loop;
    struct ag_context ctx;
    struct ag_exchange ex;
    union ag_addr remote;
    struct ag_field fields[2];
    char value[8192];
    uint8_t line[16384];
    int fd;
};

static struct rig *begin(void)
{
    struct rig *r = calloc(1, sizeof(*r));

    cr_assert(r);
    r->fd = memfd_create("log", MFD_CLOEXEC);
    cr_assert_geq(r->fd, 0);
    ag_log_direct(r->fd, AG_LOG_INFO, AG_LOG_HUMAN);
    r->remote.in6.sin6_family = AF_INET6;
    memset(&r->remote.in6.sin6_addr, 0xfe, sizeof(r->remote.in6.sin6_addr));
    r->ctx.loop = &r->loop;
    r->loop.wall_s = 1795233600;
    r->ex = (struct ag_exchange){.context = &r->ctx,
                                 .server = &server_ops,
                                 .server_stream = r,
                                 .remote = &r->remote,
                                 .status = 431,
                                 .upstream_tries = 255,
                                 .sent_bytes = UINT64_MAX};
    r->ex.req.tls = true;
    return r;
}

static void end(struct rig *r)
{
    (void)close(r->fd);
    free(r);
}

enum part { METHOD, HOST, TARGET, REFERER, USER_AGENT, DETAIL, ALL };

/* `unit` again and again, `len` bytes of it after `before` letters. */
static void set(struct rig *r, enum part part, const char *unit, size_t before, size_t len)
{
    struct ag_request *q = &r->ex.req;
    struct ag_span s = ag_span(r->value, before + len);
    struct ag_span none = AG_SPAN("x");

    cr_assert_lt(s.len, sizeof(r->value));
    memset(r->value, 'a', before);
    for (size_t i = 0; i < len; i++) {
        r->value[before + i] = unit[i % strlen(unit)];
    }
    r->value[s.len] = 0;
    q->method_name = part == METHOD || part == ALL ? s : none;
    q->authority = part == HOST || part == ALL ? s : none;
    q->target = part == TARGET || part == ALL ? s : none;
    for (unsigned i = 0; i < 2; i++) {
        enum ag_field_id id = i ? AG_FIELD_USER_AGENT : AG_FIELD_REFERER;
        struct ag_span v = part == REFERER + i || part == ALL ? s : none;

        r->fields[i] =
            (struct ag_field){.value = v.ptr, .value_len = (uint32_t)v.len, .id = (uint8_t)id};
    }
    q->fields.v = r->fields;
    q->fields.count = 2;
    r->ex.reason = part == DETAIL || part == ALL ? AG_REASON_PROTOCOL : AG_REASON_NONE;
    r->ex.detail = r->value;
}

static struct ag_span log_line(struct rig *r, enum ag_access_format format)
{
    cr_assert_eq(ftruncate(r->fd, 0), 0);
    cr_assert_eq(lseek(r->fd, 0, SEEK_SET), 0);
    ag_access_log(&r->ex, format);
    ssize_t n = pread(r->fd, r->line, sizeof(r->line), 0);
    cr_assert_gt(n, 0);
    return ag_span(r->line, (size_t)n);
}

static bool holds(struct ag_span line, const char *text)
{
    return memmem(line.ptr, line.len, text, strlen(text)) != NULL;
}

/* Quotes that no backslash escapes. */
static unsigned quotes(struct ag_span line)
{
    unsigned n = 0;

    for (size_t i = 0; i < line.len; i++) {
        if (line.ptr[i] == '\\') {
            i++;
        } else {
            n += line.ptr[i] == '"';
        }
    }
    return n;
}

static void check(struct rig *r, const char *what)
{
    struct ag_span line = log_line(r, AG_ACCESS_JSON);

    cr_assert_eq(memchr(line.ptr, '\n', line.len), line.ptr + line.len - 1, "%s", what);
    cr_assert(ag_json_is_valid(line), "%s: %.*s", what, (int)line.len, line.ptr);
    cr_assert(holds(line, ",\"status\":431,\"bytes\":18446744073709551615,\"duration_us\":"));
    cr_assert(holds(line, ",\"upstream_tries\":255,\"protocol\":\"HTTP/1.1\",\"tls\":\"TLSv1.3\""));
    cr_assert(holds(line, ",\"user_agent\":\""));

    line = log_line(r, AG_ACCESS_COMBINED);
    cr_assert_eq(memchr(line.ptr, '\n', line.len), line.ptr + line.len - 1, "%s", what);
    cr_assert_eq(quotes(line), 6, "%s: %.*s", what, (int)line.len, line.ptr);
    cr_assert(holds(line, " HTTP/1.1\" 431 18446744073709551615 \""), "%s", what);
    cr_assert_eq(line.ptr[line.len - 2], '"');

    line = log_line(r, AG_ACCESS_HUMAN);
    cr_assert_eq(memchr(line.ptr, '\n', line.len), line.ptr + line.len - 1, "%s", what);
    cr_assert_eq(quotes(line), 2, "%s: %.*s", what, (int)line.len, line.ptr);
    cr_assert(holds(line, " 431 18446744073709551615 0.000ms \""), "%s", what);
}

Test(access_log, lines_are_whole_at_all_lengths)
{
    /* One byte as it is; two, of a quote; six, of a control and of what is no UTF-8; characters of two and
     * four bytes, which may not be cut. */
    static const char *const units[] = {"a",
                                        "\"",
                                        "\x01",
                                        "\xff",
                                        "\xc3\xa9",
                                        "\xf0\x9f\x98\x80",
                                        "\\\"a\x7f\xc3\xa9\xc2\x9b\xe2\x82\xac"};
    static const size_t bounds[] = {128, 512, 1024, 4096, 8000};
    struct rig *r = begin();
    char what[64];

    for (int part = METHOD; part <= ALL; part++) {
        for (size_t u = 0; u < AG_COUNT(units); u++) {
            for (size_t k = 0; k < AG_COUNT(bounds); k++) {
                for (size_t before = 0; before < 8; before++) {
                    for (size_t more = 0; more < 8; more++) {
                        set(r, (enum part)part, units[u], bounds[k] - 12 + before, 2 + more);
                        (void)snprintf(what, sizeof(what), "part %d, unit %zu, %zu+%zu, +%zu", part,
                                       u, bounds[k], before, more);
                        check(r, what);
                    }
                    set(r, (enum part)part, units[u], before, bounds[k] / 6 + 4);
                    check(r, "escapes alone");
                    set(r, (enum part)part, units[u], before, bounds[k]);
                    check(r, "many escapes");
                }
            }
        }
    }
    end(r);
}

Test(access_log, long_values_are_cut_and_marked)
{
    static const char *const begins[] = {"\"method\":\"", "\"host\":\"", "\"target\":\""};
    static const size_t bounds[] = {128, 512, 4096};
    struct rig *r = begin();

    for (int part = METHOD; part <= TARGET; part++) {
        for (size_t len = bounds[part]; len <= bounds[part] + 1; len++) {
            struct ag_span line;
            const uint8_t *at;

            set(r, (enum part)part, "b", 0, len);
            line = log_line(r, AG_ACCESS_JSON);
            at = memmem(line.ptr, line.len, begins[part], strlen(begins[part]));
            cr_assert(at);
            at += strlen(begins[part]);
            cr_expect_eq(at[bounds[part]], '"', "as long as may be");
            cr_expect_eq(memcmp(at + bounds[part] - 3, len > bounds[part] ? "..." : "bbb", 3), 0);
            cr_expect_eq(at[bounds[part] - 4], 'b');
        }
    }
    end(r);
}
