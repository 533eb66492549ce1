#include "tests/sim/client_h2.h"

#include <stdarg.h>

#define HEAD_MAX 8192u
/* Bytes of requests to the upstream with few connections, and of their answers, where all is well. */
#define FEW_BYTES 200u
/* What is longer is as long as may be: a good part of it may be left in pipes. */
#define LONG_BYTES 40000u
/* Bytes each way of a tunnel over HTTP/2. */
#define H2_TUNNEL_BYTES 20000u

/* ---- what is asked for ---- */

static uint32_t size_of_body(struct sim *s, uint32_t max)
{
    static const uint32_t tops[] = {10, 300, 5000, 20000, 70000, 120000};
    uint32_t top = tops[sim_below(s, sim_chance(s, 300) ? AG_COUNT(tops) : 3)];
    uint32_t bytes = (uint32_t)sim_below(s, ag_min_u64(top, max) + 1);

    return bytes > LONG_BYTES ? (uint32_t)sim_between(s, max / 2, max) : bytes;
}

static void choose_plan(struct run *r, struct request *q)
{
    struct sim *s = r->sim;

    q->plan = (uint8_t)sim_below(s, PLAN_LAST_RIGHT + 1);
    if (r->weather.flaky && !r->probing && sim_chance(s, 350)) {
        q->plan = (uint8_t)sim_below(s, PLANS);
    }
    if (q->head || q->kind == REQUEST_TUNNEL) {
        q->plan = q->plan <= PLAN_LAST_RIGHT ? PLAN_LENGTH : q->plan;
        q->plan =
            q->head && q->plan != PLAN_CLOSED && q->plan != PLAN_RESET ? PLAN_LENGTH : q->plan;
        q->plan = q->kind == REQUEST_TUNNEL && q->plan != PLAN_GARBAGE ? PLAN_LENGTH : q->plan;
    }
    q->answer_bytes = size_of_body(s, 400000);
    if (q->kind == REQUEST_TUNNEL && r->weather.flaky && !r->probing && sim_chance(s, 150)) {
        q->plan = PLAN_CUT_RST;
    }
    q->slow = q->plan <= PLAN_LAST_RIGHT && q->answer_bytes < 5000 &&
              sim_chance(s, q->version_10 ? 300 : 60);
    if (q->plan >= PLAN_STALL && q->answer_bytes < 2) {
        q->answer_bytes = 2; /* something to be cut */
    }
}

static void choose_method(struct run *r, struct request *q)
{
    static const char *const methods[] = {"GET", "GET", "POST", "PUT", "HEAD", "DELETE", "PATCH"};
    struct sim *s = r->sim;

    q->method = methods[sim_below(s, AG_COUNT(methods))];
    q->head = strcmp(q->method, "HEAD") == 0;
    q->idempotent = strcmp(q->method, "POST") != 0 && strcmp(q->method, "PATCH") != 0;
    if (strcmp(q->method, "POST") == 0 || strcmp(q->method, "PUT") == 0 ||
        strcmp(q->method, "PATCH") == 0) {
        bool taken = q->kind == REQUEST_PROXY || q->kind == REQUEST_ECHO;

        q->body_bytes = size_of_body(s, taken ? SITE_BODY_MAX : 8000);
        q->chunked = sim_chance(s, 400);
        q->trailers = q->chunked && sim_chance(s, 200);
        q->expect = !q->version_10 && q->body_bytes > 0 && sim_chance(s, 100);
        if (taken && !r->probing && sim_chance(s, 30)) {
            q->body_bytes = SITE_BODY_MAX + 1 + (uint32_t)sim_below(s, 20000);
        }
    }
}

static void choose_static(struct sim *s, struct request *q)
{
    static const char *const names[] = {"small.bin", "middle.bin", "large.bin", "empty.bin"};
    static const uint32_t sizes[] = {SITE_SMALL, SITE_MIDDLE, SITE_LARGE, 0};

    q->method = sim_chance(s, 100) ? "HEAD" : "GET";
    q->head = q->method[0] == 'H';
    q->file = (uint32_t)sim_below(s, 4);
    q->answer_bytes = sizes[q->file];
    if (!q->head && q->answer_bytes > 10 && sim_chance(s, 300)) {
        q->range_from = (uint32_t)sim_below(s, q->answer_bytes - 1);
        q->range_to = (uint32_t)sim_between(s, q->range_from + 1, q->answer_bytes - 1);
        q->status = 206;
    } else if (!q->head && sim_chance(s, 50)) {
        q->range_from = 2 * SITE_LARGE;
        q->range_to = 3 * SITE_LARGE;
        q->status = 416;
    } else if (sim_chance(s, 200)) {
        q->unmodified = true;
        q->status = 304;
    }
    (void)snprintf(q->target, sizeof(q->target), "/s/%s", names[q->file]);
}

static void choose_proxy(struct run *r, struct request *q)
{
    static const char groups[] = "aaaabbcnmxhhgg";
    struct sim *s = r->sim;

    q->upstream = 'a';
    if (!r->probing && r->weather.flaky) {
        q->upstream = groups[sim_below(s, sizeof(groups) - 1)];
    } else if (q->kind == REQUEST_PROXY && sim_chance(s, 300)) {
        q->upstream = 'h';
    } else if (!r->probing && sim_chance(s, 250)) {
        bool few = q->kind == REQUEST_PROXY && r->few_left > 0 && sim_chance(s, 500);

        q->upstream = few ? 'c' : 'n';
        r->few_left -= q->upstream == 'c';
    }
    if (r->weather.more && !r->probing && sim_chance(s, 250)) {
        q->upstream = 'p';
    }
    if (q->kind == REQUEST_TUNNEL && (q->upstream == 'h' || q->upstream == 'g')) {
        q->upstream = 'a';
    }
    (void)snprintf(q->forwarded, sizeof(q->forwarded), "/%c/%u?q=%u", q->upstream, q->id,
                   q->id * 7);
    memcpy(q->target, q->forwarded, sizeof(q->target));
    if (q->upstream == 'a' && sim_chance(s, 150)) { /* by a route that writes another target */
        (void)snprintf(q->target, sizeof(q->target), "/w/%u?q=%u", q->id, q->id * 7);
    }
    choose_plan(r, q);
    if (q->kind == REQUEST_TUNNEL) {
        q->status = q->refused_upgrade ? 403 : q->h2 ? 200 : 101;
    } else if (q->plan == PLAN_EMPTY) {
        q->status = 204;
    }
    if (q->upstream == 'c' && !r->weather.flaky) { /* none keeps the others waiting for long */
        q->answer_bytes %= FEW_BYTES;
        q->body_bytes %= FEW_BYTES;
        q->slow = q->expect = false;
    }
}

static enum request_kind choose_kind(struct sim *s, bool probe)
{
    static const uint8_t kinds[] = {
        REQUEST_FIXED,  REQUEST_FIXED_LARGE, REQUEST_PARAM,  REQUEST_FILTERED, REQUEST_ECHO,
        REQUEST_ECHO,   REQUEST_STATIC,      REQUEST_STATIC, REQUEST_PROXY,    REQUEST_PROXY,
        REQUEST_PROXY,  REQUEST_PROXY,       REQUEST_PROXY,  REQUEST_PROXY,    REQUEST_REDIRECT,
        REQUEST_TUNNEL, REQUEST_MISSING,     REQUEST_METHOD, REQUEST_BAD};

    return (enum request_kind)kinds[sim_below(s, AG_COUNT(kinds) - (probe ? 2 : 0))];
}

/* What is wrong with a request: fields, or content; 414 and 431 come of `repeat` bytes or fields. */
struct bad {
    const char *fields;  /* beside the others */
    const char *content; /* chunked; it goes to an upstream, which must never see its end */
    const char *version;
    uint32_t long_target, long_field, many_fields;
    bool no_host;
    unsigned status;
};

static void choose_bad(struct run *r, struct request *q)
{
    static const struct bad all[] = {
        {.fields = "Bad Field: x\r\n", .status = 400},
        {.fields = "Content-Length: 1, 2\r\n", .status = 400},
        {.fields = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", .status = 400},
        {.fields = "X: a\rb\r\n", .status = 400},
        {.fields = "Host: other\r\n", .status = 400},
        {.fields = "no colon\r\n", .status = 400},
        {.fields = "X: folded\r\n line\r\n", .status = 400},
        {.fields = "", .no_host = true, .status = 400},
        {.fields = "", .version = "HTTP/2.0", .status = 505},
        {.fields = "", .long_target = 9000, .status = 414},
        {.fields = "", .long_field = 33000, .status = 431},
        {.fields = "", .many_fields = 101, .status = 431},
        {.fields = "", .content = "3\r\nabc\r\nzz\r\n", .status = 400},
        {.fields = "", .content = "3\r\nabc\n0\r\n\r\n", .status = 400},
        {.fields = "", .content = "fffffffffffffffff\r\nabc", .status = 400},
        {.fields = "", .content = "3\r\nabc\r\n0\r\nBad Trailer: x\r\n\r\n", .status = 400},
    };

    q->bad = &all[sim_below(r->sim, AG_COUNT(all))];
    q->status = q->bad->status;
    (void)snprintf(q->target, sizeof(q->target), "/fixed/small");
    if (q->bad->content) {
        q->method = "POST";
        q->idempotent = false;
        q->chunked = true;
        q->upstream = sim_chance(r->sim, 700) ? 'a' : 0;
        (void)snprintf(q->target, sizeof(q->target), q->upstream ? "/a/%u" : "/echo/%u", q->id);
        memcpy(q->forwarded, q->target, sizeof(q->forwarded));
    }
}

static void choose_target(struct run *r, struct request *q)
{
    struct sim *s = r->sim;

    q->status = 200;
    switch ((enum request_kind)q->kind) {
    case REQUEST_BAD:
        if (q->h2) {
            request_choose_bad_h2(r, q);
        } else {
            choose_bad(r, q);
        }
        break;
    case REQUEST_FIXED:
        (void)snprintf(q->target, sizeof(q->target), "/fixed/small");
        break;
    case REQUEST_FIXED_LARGE:
        (void)snprintf(q->target, sizeof(q->target), "/fixed/large");
        break;
    case REQUEST_PARAM:
        (void)snprintf(q->target, sizeof(q->target), "/fixed/p/%u", q->id);
        break;
    case REQUEST_FILTERED:
        (void)snprintf(q->target, sizeof(q->target), "/filtered");
        break;
    case REQUEST_ECHO:
        (void)snprintf(q->target, sizeof(q->target), "/echo/%u?e=%u", q->id, q->id * 3);
        break;
    case REQUEST_STATIC:
        choose_static(s, q);
        break;
    case REQUEST_REDIRECT:
        (void)snprintf(q->target, sizeof(q->target), "/r/p/%u", q->id);
        q->status = 302;
        break;
    case REQUEST_MISSING:
        (void)snprintf(q->target, sizeof(q->target), "/missing/%u", q->id);
        q->status = 404;
        break;
    case REQUEST_METHOD:
        (void)snprintf(q->target, sizeof(q->target), "/get");
        q->status = 405;
        break;
    case REQUEST_PROXY:
    case REQUEST_TUNNEL:
        choose_proxy(r, q);
        break;
    case REQUEST_KINDS:
        break;
    }
}

/* ---- how it is written ---- */

struct wire {
    struct sim *sim;
    uint8_t *bytes;
    size_t len, max;
};

static void put(struct wire *w, const char *fmt, ...) AG_PRINTF(2, 3);

static void put(struct wire *w, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf((char *)w->bytes + w->len, w->max - w->len, fmt, args);
    va_end(args);
    AG_ASSERT(n >= 0 && (size_t)n < w->max - w->len);
    w->len += (size_t)n;
}

static void put_content(struct wire *w, uint64_t key, uint64_t from, size_t len)
{
    AG_ASSERT(len <= w->max - w->len);
    content_fill(key, from, w->bytes + w->len, len);
    w->len += len;
}

/* Text, so that echo shows it as it is. */
static void put_text(struct wire *w, uint64_t key, uint64_t from, size_t len)
{
    put_content(w, key, from, len);
    for (size_t i = w->len - len; i < w->len; i++) {
        w->bytes[i] = (uint8_t)('a' + w->bytes[i] % 16);
    }
}

static void put_body(struct wire *w, const struct request *q)
{
    void (*put_piece)(struct wire *, uint64_t, uint64_t, size_t) =
        q->kind == REQUEST_ECHO ? put_text : put_content;
    uint32_t at = 0;

    if (!q->chunked) {
        put_piece(w, request_key(q), 0, q->body_bytes);
        return;
    }
    while (at < q->body_bytes) {
        uint32_t left = q->body_bytes - at;
        uint32_t n = (uint32_t)sim_between(w->sim, 1, ag_min_u64(left, 1 + left / 2 + 100));

        put(w, sim_chance(w->sim, 100) ? "%X" : "%x", n);
        put(w, sim_chance(w->sim, 50) ? ";name=\"a value\"\r\n" : "\r\n");
        put_piece(w, request_key(q), at, n);
        put(w, "\r\n");
        at += n;
    }
    put(w, "0\r\n%s\r\n", q->trailers ? "X-Trailer: t\r\n" : "");
}

static void put_fields(struct wire *w, const struct request *q)
{
    put(w, "X-Id: %u\r\n", q->id);
    if (q->pad_bytes) {
        put(w, "X-Pad: ");
        put_text(w, request_key(q), 0, q->pad_bytes);
        put(w, "\r\n");
    }
    if (q->chunked) {
        put(w, "Transfer-Encoding: chunked\r\n");
    } else if (q->body_bytes || q->method[0] == 'P') {
        put(w, "Content-Length: %u\r\n", q->body_bytes);
    }
    if (q->hops) {
        put(w, "X-Forwarded-For: 192.0.2.66\r\nX_Forwarded_For: 192.0.2.67\r\nVia: 1.0 fred\r\n"
               "Forwarded: for=192.0.2.66\r\n");
    }
    if (q->id % 6 == 0) {
        put(w, "Accept: application/json\r\n");
    }
    if (q->unmodified) {
        put(w, "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n");
    }
    if (q->expect) {
        put(w, "Expect: 100-continue\r\n");
    }
    if (q->range_to) {
        put(w, "Range: bytes=%u-%u\r\n", q->range_from, q->range_to);
    }
    if (q->kind == REQUEST_TUNNEL) {
        put(w, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    } else if (q->close) {
        put(w, "Connection: close\r\n");
    } else if (q->version_10) {
        put(w, "Connection: keep-alive\r\n");
    } else if (q->id % 5 == 0) {
        put(w, "Connection: X-Hop\r\nX-Hop: private\r\n");
    }
}

static void put_bad(struct wire *w, const struct request *q)
{
    put(w, "%s", q->bad->fields);
    if (q->bad->long_field) {
        put(w, "X-Long: ");
        put_text(w, request_key(q), 0, q->bad->long_field);
        put(w, "\r\n");
    }
    for (uint32_t i = 0; i < q->bad->many_fields; i++) {
        put(w, "X-%u: x\r\n", i);
    }
}

static void put_line(struct wire *w, const struct request *q)
{
    put(w, "%s%s %s", q->id % 11 == 0 ? "\r\n" : "", q->method, q->target);
    if (q->bad && q->bad->long_target) {
        put_text(w, request_key(q), 0, q->bad->long_target);
    }
    put(w, " %s\r\n",
        q->bad && q->bad->version ? q->bad->version
        : q->version_10           ? "HTTP/1.0"
                                  : "HTTP/1.1");
    if (!q->bad || !q->bad->no_host) {
        put(w, "Host: sim.test\r\n");
    }
}

void request_write(struct run *r, struct request *q)
{
    struct wire w = {.sim = r->sim, .max = HEAD_MAX + q->pad_bytes + 2 * (size_t)q->body_bytes};

    if (q->chunked) {
        w.max += 12 * (size_t)q->body_bytes / 10 + 4096;
    }
    if (q->bad) {
        w.max += q->bad->long_target + q->bad->long_field;
    }
    w.bytes = sim_alloc_raw(r->sim, w.max);
    put_line(&w, q);
    put_fields(&w, q);
    if (q->bad) {
        put_bad(&w, q);
    }
    put(&w, "\r\n");
    q->wire_head = w.len;
    if (q->bad && q->bad->content) {
        put(&w, "%s", q->bad->content);
    } else if (q->body_bytes || q->chunked) {
        put_body(&w, q);
    }
    q->wire = w.bytes;
    q->wire_len = w.len;
}

struct request *request_make(struct run *r, struct client *c, bool probe, bool h2)
{
    struct sim *s = r->sim;
    struct request *q = sim_alloc(s, sizeof(*q));

    AG_ASSERT(r->request_count < RUN_REQUESTS);
    q->id = r->request_count;
    r->requests[r->request_count++] = q;
    q->client = c;
    q->h2 = h2;
    q->kind = (uint8_t)choose_kind(s, probe);
    q->version_10 = !h2 && q->kind <= REQUEST_PROXY && q->kind != REQUEST_BAD && sim_chance(s, 80);
    q->hops = sim_chance(s, 150);
    q->refused_upgrade = q->kind == REQUEST_TUNNEL && sim_chance(s, 150);
    q->method = "GET";
    q->idempotent = true;
    q->pad_bytes = sim_chance(s, 150) ? (uint32_t)sim_below(s, 6000) : 0;
    if (q->kind == REQUEST_METHOD) {
        q->method = "DELETE";
    } else if (q->kind != REQUEST_STATIC && q->kind != REQUEST_BAD && q->kind != REQUEST_TUNNEL) {
        choose_method(r, q);
    }
    choose_target(r, q);
    if (q->version_10 && q->chunked) {
        q->chunked = q->trailers = false;
    }
    if (q->kind == REQUEST_TUNNEL) {
        q->tunnel_up = size_of_body(s, 100000);
        q->tunnel_down = size_of_body(s, 100000);
        if (h2) { /* by small windows, a buffer must not take longer than its tunnel may be idle */
            q->tunnel_down %= H2_TUNNEL_BYTES;
            q->tunnel_up %= H2_TUNNEL_BYTES;
        }
        q->slow = sim_chance(s, 200);
    }
    q->close = !h2 && (q->kind == REQUEST_BAD || sim_chance(s, 40));
    return q;
}
