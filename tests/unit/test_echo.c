/* Goal: the request comes back as JSON, whatever is in it; content is drained and bounded. */
#include "actions/echo.h"
#include "actions/json_check.h"
#include "tests/unit/actions_util.h"

#include <arpa/inet.h>

static void make(struct fake *f, struct fake_route *r, const char *pattern, unsigned status)
{
    cr_assert(fake_section(f) == AG_OK);
    memset(r, 0, sizeof(*r));
    fake_pattern(f, r, pattern);
    r->decl.status = status;
    cr_assert(fake_configure(f, r) == AG_OK);
}

static void check_json(const struct answer *a)
{
    char length[24];

    cr_expect(ag_json_is_valid(ag_span(a->body, a->body_len)), "%.*s", (int)a->body_len, a->body);
    (void)snprintf(length, sizeof(length), "%zu", a->body_len);
    expect_field(a, "Content-Length", length);
    expect_field(a, "Content-Type", "application/json");
}

static bool has(const struct answer *a, const char *text)
{
    return memmem(a->body, a->body_len, text, strlen(text)) != NULL;
}

Test(echo, whole_answer)
{
    struct fake *f = fake_new(&ag_action_echo);
    struct fake_route r;

    make(f, &r, "/a/:id/*", 403);
    const struct answer *a =
        fake_ask(f, &r, "GET /a/7/x/y?q=1", "Host: h.example\nx-a: 1\nX-A: \"2\"\n");
    cr_expect(a->status == 403 && !a->wanted);
    check_json(a);
    expect_body(a, "{\"method\":\"GET\",\"path\":\"/a/7/x/y\",\"query\":\"q=1\","
                   "\"params\":{\"id\":\"7\",\"*\":\"x/y\"},\"protocol\":\"HTTP/1.1\","
                   "\"remote\":\"192.0.2.1:4711\",\"headers\":[[\"Host\",\"h.example\"],"
                   "[\"x-a\",\"1\"],[\"X-A\",\"\\\"2\\\"\"]],\"body\":\"\",\"base64\":false,"
                   "\"truncated\":false,\"body_length\":0}\n");
    fake_free(f);
}

Test(echo, head_and_no_content)
{
    struct fake *f = fake_new(&ag_action_echo);
    struct fake_route r;

    make(f, &r, "/a", 200);
    const struct answer *a = fake_ask(f, &r, "HEAD /a", NULL);
    cr_expect(a->body_len == 0 && strlen(fake_field(a, "Content-Length")) == 3);
    make(f, &r, "/a", 204);
    cr_expect(f->diags.warnings == 1);
    a = fake_ask(f, &r, "GET /a", NULL);
    cr_expect(a->status == 204 && a->body_len == 0 && !fake_field(a, "Content-Length"));
    fake_free(f);
}

Test(echo, headers_that_are_not_utf8)
{
    struct fake *f = fake_new(&ag_action_echo);
    struct fake_route r;

    make(f, &r, "/a", 200);
    const struct answer *a = fake_ask(f, &r, "GET /a", "X-A: \xE9\xFF\nX-B: \xC3\xA9\t\\\n");
    check_json(a);
    cr_expect(has(a, "[\"X-A\",\"\\u00e9\\u00ff\"],[\"X-B\",\"\xC3\xA9\\t\\\\\"]"));
    fake_free(f);
}

/* Sends `n` bytes of content made by `byte_at` in pieces of `step`. */
static const struct answer *post(struct fake *f, struct fake_route *r, const uint8_t *content,
                                 size_t n, size_t step)
{
    struct ag_exchange *ex = fake_begin(f, r, "POST /a", NULL);

    ex->req.framing = AG_FRAMING_CHUNKED;
    fake_start(ex);
    cr_expect(f->answer.wanted);
    for (size_t at = 0; at < n;) {
        size_t part = step < n - at ? step : n - at;
        if (ag_body_room(&ex->req_body)) {
            cr_expect(f->answer.heads == 0, "answered before the content had come");
            cr_assert(ag_body_write(&ex->req_body, ag_slice_static(ag_span(content + at, part))) ==
                      AG_OK);
            at += part;
        } else {
            ag_loop_turn(&f->loop, 0);
        }
    }
    ag_loop_turn(&f->loop, 0);
    cr_expect(f->answer.heads == 0, "answered before the content had ended");
    ag_body_end(&ex->req_body, NULL);
    fake_run(f);
    fake_end(f, ex);
    check_json(&f->answer);
    return &f->answer;
}

Test(echo, content)
{
    struct fake *f = fake_new(&ag_action_echo);
    struct fake_route r;
    static uint8_t content[200000];

    fake_set(f, f->config, "echo.max_body", "16");
    make(f, &r, "/a", 200);
    const struct answer *a = post(f, &r, (const uint8_t *)"hello\n", 6, 2);
    cr_expect(
        has(a, "\"body\":\"hello\\n\",\"base64\":false,\"truncated\":false,\"body_length\":6}"));
    a = post(f, &r, (const uint8_t *)"\0\1\2\3", 4, 3);
    cr_expect(
        has(a, "\"body\":\"AAECAw==\",\"base64\":true,\"truncated\":false,\"body_length\":4}"));
    a = post(f, &r, (const uint8_t *)"0123456789abcdef!", 17, 5);
    cr_expect(has(a, "\"body\":\"0123456789abcdef\",\"base64\":false,\"truncated\":true,"
                     "\"body_length\":17}"));
    /* the bound cuts a character */
    a = post(f, &r, (const uint8_t *)"0123456789abcde\xC3\xA9", 17, 17);
    cr_expect(has(a, "\"body\":\"0123456789abcde\",\"base64\":false,\"truncated\":true"));
    memset(content, 'x', sizeof(content));
    a = post(f, &r, content, sizeof(content), 7001);
    cr_expect(has(a, "\"body\":\"xxxxxxxxxxxxxxxx\",") && has(a, "\"body_length\":200000}"));
    fake_free(f);
}

/* Longer than a body's bound: it goes in turns, as room comes back. */
Test(echo, large_answers)
{
    struct fake *f = fake_new(&ag_action_echo);
    struct fake_route r;
    static uint8_t content[65536];

    fake_set(f, f->config, "echo.max_body", "64k");
    make(f, &r, "/a", 200);
    memset(content, '"', sizeof(content));
    const struct answer *a = post(f, &r, content, sizeof(content), sizeof(content));
    cr_expect(a->body_len > 2 * sizeof(content) && has(a, "\"body_length\":65536}"));
    memset(content, 0xFE, sizeof(content));
    a = post(f, &r, content, sizeof(content), 10000);
    cr_expect(has(a, "\"base64\":true") && has(a, "/v7+/v7+"));
    fake_free(f);
}

/* An answer that is not taken does not fill memory: it waits outside of the body. */
Test(echo, answers_wait_for_room)
{
    static char fields[60000];
    struct fake *f = fake_new(&ag_action_echo);
    struct fake_route r;

    for (size_t i = 0; i < sizeof(fields) - 1; i++) {
        const char *name = "X-A: ";
        fields[i] = (char)(i % 10000 < 5 ? name[i % 10000] : i % 10000 == 9999 ? '\n' : '\xE9');
    }
    make(f, &r, "/a", 200);
    f->answer.hold_back = true;
    struct ag_exchange *ex = fake_begin(f, &r, "GET /a", fields);
    ag_body_end(&ex->req_body, NULL);
    fake_start(ex);
    ag_loop_turn(&f->loop, 0);
    cr_expect(ex->res.content_length > 350000);
    cr_expect(ex->res_body.pinned_bytes <= AG_BODY_BYTES_MAX + AG_BUF_LARGE_BYTES);
    cr_expect(ex->action_data != NULL);
    f->answer.hold_back = false;
    fake_take(&ex->res_body, ex);
    fake_run(f);
    check_json(&f->answer);
    fake_end(f, ex);
    fake_free(f);
}

Test(echo, client_gone)
{
    struct fake *f = fake_new(&ag_action_echo);
    struct fake_route r;

    make(f, &r, "/a", 200);
    struct ag_exchange *ex = fake_begin(f, &r, "POST /a", NULL);
    fake_start(ex);
    cr_assert(ag_body_write(&ex->req_body, ag_slice_static(AG_SPAN("part"))) == AG_OK);
    ag_loop_turn(&f->loop, 0);
    fake_end(f, ex); /* aborts */
    cr_expect(f->answer.heads == 0);
    /* and while the answer waits for room */
    f->answer.hold_back = true;
    ex = fake_begin(f, &r, "GET /a", NULL);
    ag_body_end(&ex->req_body, NULL);
    fake_start(ex);
    ag_loop_turn(&f->loop, 0);
    fake_end(f, ex);
    fake_free(f);
}

static void page_abort(struct ag_exchange *ex, enum ag_reason why)
{
    (void)why;
    ag_exchange_release(ex);
}

static const struct ag_action_ops page_ops = {.name = "error page", .abort = page_abort};
static const struct ag_action page_action = {.ops = &page_ops};

/* As when an upstream is asked for the page: another action takes the exchange over. */
static bool page_later(struct ag_exchange *ex, unsigned status)
{
    static uint8_t not_echo[256];

    (void)status;
    memset(not_echo, 0xa5, sizeof(not_echo));
    ex->action = &page_action;
    ex->action_data = not_echo;
    ag_exchange_hold(ex);
    return true;
}

Test(echo, lets_go_before_an_error_waits_for_its_page)
{
    struct fake *f = fake_new(&ag_action_echo);
    struct fake_route r = {0};
    struct ag_pipeline_ops pipeline = fake_pipeline;

    pipeline.error_page = page_later;
    make(f, &r, "/a", 200);
    f->ctx.pipeline = &pipeline;
    struct ag_exchange *ex = fake_begin(f, &r, "POST /a", NULL);
    fake_start(ex);
    cr_assert(ag_body_write(&ex->req_body, ag_slice_static(AG_SPAN("part"))) == AG_OK);
    ag_loop_turn(&f->loop, 0);
    ag_body_abort(&ex->req_body, AG_REASON_EOF);
    ag_loop_turn(&f->loop, 0);
    cr_expect(ex->action == &page_action);
    fake_end(f, ex);
    f->ctx.pipeline = &fake_pipeline;
    fake_free(f);
}

Test(echo, section)
{
    struct fake *f = fake_new(&ag_action_echo);

    fake_set(f, f->config, "echo.max_body", "65k");
    cr_expect(fake_section(f) == AG_EINVAL && f->diags.errors == 1);
    fake_free(f);
    f = fake_new(&ag_action_echo);
    fake_set(f, f->config, "echo.maxbody", "1k");
    cr_expect(fake_section(f) == AG_EINVAL && f->diags.errors == 1);
    fake_free(f);
}
