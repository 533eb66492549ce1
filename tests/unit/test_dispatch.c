/*
 * Goal: the pipeline runs a request through route, filters and action in the order that
 * filters/filter.h and proto/exchange.h promise, whatever a filter decides and whenever the client
 * leaves; and answers by itself what no route takes.
 * Method: a real loop and real exchanges, a server that writes down what it is told, filters that write
 * down when they are called and do what their label says.
 */
#include "filters/filter.h"
#include "router/snapshot.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

static char trace[512]; /* what was called, in order */

static void note(const char *what, struct ag_span who)
{
    size_t n = strlen(trace);

    (void)snprintf(trace + n, sizeof(trace) - n, "%s%s%.*s", n ? " " : "", what, (int)who.len,
                   (const char *)who.ptr);
}

/* ---- filters ---- */

struct label {
    struct ag_span text;
};

static enum ag_status label_configure(struct ag_filter_build *b, const struct ag_node *n,
                                      const void **out_settings)
{
    struct label *l = ag_arena_zalloc(b->arena, sizeof(*l));

    l->text = n->text;
    *out_settings = l;
    return AG_OK;
}

/* "answer", "wait", "fail" or any other text: goes on. */
static enum ag_verdict label_pre(struct ag_exchange *ex, const void *settings, void *state)
{
    const struct label *l = settings;

    note("pre:", l->text);
    cr_assert_eq(*(uint64_t *)state, 0, "state begins as zero");
    *(uint64_t *)state = 0x5a5a5a5a;
    if (ag_span_eq(l->text, AG_SPAN("answer"))) {
        ag_exchange_fail(ex, 403, AG_REASON_NONE, "refused by the test");
        return AG_ANSWERED;
    }
    if (ag_span_eq(l->text, AG_SPAN("wait"))) {
        return AG_WAIT;
    }
    return ag_span_eq(l->text, AG_SPAN("fail")) ? AG_FAIL : AG_CONTINUE;
}

static void label_cancel(struct ag_exchange *ex, const void *settings, void *state)
{
    (void)state;
    note("cancel:", ((const struct label *)settings)->text);
    ag_exchange_release(ex);
}

static void label_on_head(struct ag_exchange *ex, const void *settings, void *state)
{
    note("head:", ((const struct label *)settings)->text);
    cr_assert_eq(*(uint64_t *)state, 0x5a5a5a5a);
    cr_assert_not(ex->head_sent);
}

static struct ag_body *label_wrap(struct ag_exchange *ex, const void *settings, void *state,
                                  struct ag_body *source)
{
    (void)ex, (void)state, (void)source;
    note("wrap:", ((const struct label *)settings)->text);
    return NULL;
}

static void label_done(struct ag_exchange *ex, const void *settings, void *state)
{
    (void)ex;
    note("done:", ((const struct label *)settings)->text);
    cr_assert_eq(*(uint64_t *)state, 0x5a5a5a5a);
}

static const struct ag_filter_ops label_ops = {.name = "label",
                                               .state_bytes = 8,
                                               .configure = label_configure,
                                               .pre = label_pre,
                                               .cancel = label_cancel,
                                               .on_head = label_on_head,
                                               .wrap_body = label_wrap,
                                               .on_done = label_done};
static const struct ag_filter_ops *const test_filters[] = {&label_ops};

/* ---- server ---- */

static void send_head(struct ag_exchange *ex)
{
    ex->head_sent = true;
    note("sent", AG_SPAN(""));
}

static void send_prepared(struct ag_exchange *ex, const struct ag_prepared *p)
{
    (void)ex, (void)p;
    note("prepared", AG_SPAN(""));
}

static void server_remote(struct ag_exchange *ex, union ag_addr *out_addr)
{
    (void)ex;
    out_addr->in.sin_family = AF_INET;
    out_addr->in.sin_port = htons(4321);
    out_addr->in.sin_addr.s_addr = htonl(0x0a010203);
}

static void server_reset(struct ag_exchange *ex, enum ag_reason why)
{
    (void)ex, (void)why;
    note("reset", AG_SPAN(""));
}

static void want_body(struct ag_exchange *ex)
{
    (void)ex;
}

static const struct ag_server_ops server_ops = {.send_head = send_head,
                                                .send_prepared = send_prepared,
                                                .want_body = want_body,
                                                .remote = server_remote,
                                                .reset = server_reset};

/* ---- a shard with a snapshot ---- */

struct bench {
    struct ag_loop loop;
    struct ag_context ctx;
    struct ag_block ref;
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_source source;
    struct ag_exchange *ex;
    bool ref_freed;
};

static void free_ref(struct ag_block *b)
{
    ag_container_of(b, struct bench, ref)->ref_freed = true;
}

static struct bench *open_bench(const char *yaml)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct ag_loop_config config = {
        .backend = AG_BACKEND_EPOLL, .buf_count = {8, 8}, .node_count = 64, .page_count = 64};
    const char *why = "";
    const struct ag_node *root;

    AG_ASSERT(b);
    trace[0] = 0;
    ag_filter_register_tests(test_filters, AG_COUNT(test_filters));
    cr_assert_eq(ag_loop_init(&b->loop, &config, &why), AG_OK, "%s", why);
    ag_arena_init(&b->arena, NULL, 0);
    ag_diags_init(&b->diags, &b->arena);
    b->source = (struct ag_source){"t.yml", ag_span_str(yaml)};
    root = ag_config_parse_yaml(&b->source, &b->diags);
    b->ref = (struct ag_block){.refs = 1, .free = free_ref, .fd = -1};
    b->ctx =
        (struct ag_context){.loop = &b->loop, .pipeline = &ag_dispatch, .snapshot_ref = &b->ref};
    b->ctx.snapshot = ag_snapshot_compile(&b->arena, root, "/", NULL, &b->diags);
    cr_assert(b->ctx.snapshot, "%s", b->diags.first ? b->diags.first->what : "?");
    return b;
}

static void close_bench(struct bench *b)
{
    ag_loop_turn(&b->loop, 0);
    cr_expect_eq(b->ctx.exchanges_live, 0, "every hold was let go");
    ag_block_release(&b->ref);
    cr_expect(b->ref_freed, "the snapshot's handle is free");
    ag_snapshot_free(b->ctx.snapshot);
    ag_arena_release(&b->arena);
    ag_loop_deinit(&b->loop);
    free(b);
}

static struct ag_exchange *prepare(struct bench *b, const char *method, const char *path)
{
    struct ag_exchange *ex = ag_exchange_new(&b->ctx, &server_ops, b);

    cr_assert(ex);
    ex->req.method_name = ag_span_str(method);
    ex->req.method = (uint8_t)ag_method_from_name(ex->req.method_name);
    ex->req.path = ag_span_str(path);
    ex->req.target = ex->req.path;
    ex->req.host = AG_SPAN("h.test");
    ex->req.version = AG_HTTP_11;
    ex->listener_port = 8080;
    b->ex = ex;
    return ex;
}

static struct ag_exchange *ask(struct bench *b, const char *method, const char *path)
{
    struct ag_exchange *ex = prepare(b, method, path);

    b->ctx.pipeline->start(ex);
    return ex;
}

static void finish(struct bench *b)
{
    if (b->ex->head_sent) {
        ag_exchange_complete(b->ex);
    } else {
        ag_exchange_abort(b->ex, AG_REASON_RESET);
    }
    b->ex = NULL;
}

static const char *field(const struct ag_exchange *ex, const char *name)
{
    static char text[256];
    const struct ag_field *f = ag_fields_find_name(&ex->res.fields, ag_span_str(name), NULL);

    (void)snprintf(text, sizeof(text), "%.*s", f ? (int)f->value_len : 4,
                   f ? (const char *)f->value : "none");
    return text;
}

static const char config[] = "plugins:\n"
                             "  a: {label: a}\n"
                             "  b: {label: b}\n"
                             "  answer: {label: answer}\n"
                             "  wait: {label: wait}\n"
                             "  fail: {label: fail}\n"
                             "routes:\n"
                             "  GET /ok: OK\n"
                             "  GET POST /two: OK\n"
                             "  PURGE LOCK /two: OK\n"
                             "  GET /u/:id: OK\n"
                             "  PUT /u/*: OK\n"
                             "  /any: OK\n"
                             "  OPTIONS /opt: OK mine\n"
                             "  /chain: {action: OK x, filters: [a, b]}\n"
                             "  /answer: {action: OK x, filters: [a, answer, b]}\n"
                             "  /wait: {action: OK x, filters: [a, wait, b]}\n"
                             "  /fail: {action: OK x, filters: [a, fail, b]}\n";

Test(dispatch, a_route_without_filters_allocates_nothing)
{
    struct bench *b = open_bench(config);
    struct ag_exchange *ex = prepare(b, "GET", "/ok");
    const uint8_t *at = ex->arena.at;

    ag_dispatch.start(ex);
    cr_expect_str_eq(trace, "prepared");
    cr_expect_eq(ex->arena.at, at);
    cr_expect_eq(ex->status, 200);
    cr_expect_eq(ex->holders, 1, "the action has let go");
    cr_expect_eq(ex->limits, ex->route->limits);
    finish(b);
    close_bench(b);
}

Test(dispatch, parameters_are_known_to_the_action)
{
    struct bench *b = open_bench(config);
    struct ag_exchange *ex = ask(b, "GET", "/u/7%2F");

    cr_assert_eq(ex->param_count, 1);
    cr_expect(ag_span_eq(ag_exchange_param(ex, 0), AG_SPAN("7%2F")));
    finish(b);
    close_bench(b);
}

Test(dispatch, filters_see_the_answer_in_reverse)
{
    struct bench *b = open_bench(config);

    (void)ask(b, "GET", "/chain");
    cr_expect_str_eq(trace, "pre:a pre:b head:b wrap:b head:a wrap:a sent");
    cr_expect_eq(b->ex->res.status, 200);
    finish(b);
    cr_expect(strstr(trace, "sent done:b done:a"), "%s", trace);
    close_bench(b);
}

Test(dispatch, no_transform_without_content)
{
    struct bench *b = open_bench(config);

    (void)ask(b, "HEAD", "/chain");
    cr_expect_str_eq(trace, "pre:a pre:b head:b head:a sent");
    finish(b);
    close_bench(b);
}

Test(dispatch, an_answer_skips_what_follows)
{
    struct bench *b = open_bench(config);

    (void)ask(b, "GET", "/answer");
    cr_expect_str_eq(trace, "pre:a pre:answer head:answer wrap:answer head:a wrap:a sent");
    cr_expect_eq(b->ex->status, 403);
    cr_expect_eq(b->ex->holders, 1);
    finish(b);
    cr_expect(strstr(trace, "done:answer done:a"), "%s", trace);
    close_bench(b);
}

Test(dispatch, a_failure_is_500)
{
    struct bench *b = open_bench(config);

    (void)ask(b, "GET", "/fail");
    cr_expect_eq(b->ex->status, 500);
    cr_expect_str_eq(trace, "pre:a pre:fail head:fail wrap:fail head:a wrap:a sent");
    finish(b);
    close_bench(b);
}

Test(dispatch, waits_and_goes_on)
{
    struct bench *b = open_bench(config);
    struct ag_exchange *ex = ask(b, "GET", "/wait");

    cr_expect_str_eq(trace, "pre:a pre:wait");
    cr_expect_eq(ex->holders, 2);
    ag_dispatch.resume(ex, AG_CONTINUE);
    cr_expect_eq(ex->holders, 1);
    cr_expect(strstr(trace, "pre:wait pre:b head:b"), "%s", trace);
    cr_expect_eq(ex->status, 200);
    finish(b);
    close_bench(b);
}

Test(dispatch, waits_and_fails_or_answers)
{
    struct bench *b = open_bench(config);
    struct ag_exchange *ex = ask(b, "GET", "/wait");

    ag_dispatch.resume(ex, AG_FAIL);
    cr_expect_eq(ex->status, 500);
    cr_expect_null(strstr(trace, "pre:b"));
    finish(b);
    ag_loop_turn(&b->loop, 0);
    ex = ask(b, "GET", "/wait");
    ag_exchange_fail(ex, 429, AG_REASON_LIMIT, "too many");
    ag_dispatch.resume(ex, AG_ANSWERED);
    cr_expect_eq(ex->status, 429);
    finish(b);
    close_bench(b);
}

Test(dispatch, the_client_leaves_while_a_filter_waits)
{
    struct bench *b = open_bench(config);

    (void)ask(b, "GET", "/wait");
    finish(b);
    cr_expect_str_eq(trace, "pre:a pre:wait cancel:wait done:wait done:a");
    close_bench(b);
}

Test(dispatch, head_is_served_by_get)
{
    struct bench *b = open_bench(config);

    (void)ask(b, "HEAD", "/ok");
    cr_expect_eq(b->ex->status, 200);
    finish(b);
    close_bench(b);
}

static const struct {
    const char *method, *path;
    unsigned status;
    const char *allow;
} unrouted[] = {
    {"GET", "/nothing", 404, "none"},
    {"OPTIONS", "/nothing", 404, "none"},
    {"POST", "/ok", 405, "GET, HEAD, OPTIONS"},
    {"X", "/ok", 405, "GET, HEAD, OPTIONS"},
    {"OPTIONS", "/ok", 204, "GET, HEAD, OPTIONS"},
    {"DELETE", "/two", 405, "PURGE, LOCK, GET, HEAD, POST, OPTIONS"},
    {"POST", "/u/7", 405, "GET, HEAD, PUT, OPTIONS"},
    {"POST", "/u/7/8", 405, "PUT, OPTIONS"},
    {"TRACE", "/any", 405, "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"},
    {"CONNECT", "/any", 405, "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"},
    {"CONNECT", "", 405, "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"},
    {"TRACE", "/ok", 405, "GET, HEAD, OPTIONS"},
    {"TRACE", "/nothing", 405, "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"},
    {"OPTIONS", "*", 204, "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"},
};

Test(dispatch, answers_what_no_route_takes)
{
    struct bench *b = open_bench(config);

    for (size_t i = 0; i < AG_COUNT(unrouted); i++) {
        struct ag_exchange *ex = ask(b, unrouted[i].method, unrouted[i].path);

        cr_expect_eq(ex->status, unrouted[i].status, "%s %s: %u", unrouted[i].method,
                     unrouted[i].path, ex->status);
        cr_expect_str_eq(field(ex, "Allow"), unrouted[i].allow, "%s %s: %s", unrouted[i].method,
                         unrouted[i].path, field(ex, "Allow"));
        finish(b);
        ag_loop_turn(&b->loop, 0);
    }
    close_bench(b);
}

/* It is routed as the GET that it stands for (RFC 8441), but only an upstream can be at its other end. */
Test(dispatch, an_extended_connect_goes_to_upstreams_alone)
{
    struct bench *b = open_bench(config);
    struct ag_exchange *ex = prepare(b, "CONNECT", "/ok");

    ex->req.protocol = AG_SPAN("websocket");
    ag_dispatch.start(ex);
    cr_expect_eq(ex->status, 405);
    cr_expect_str_eq(field(ex, "Allow"), "GET, HEAD, OPTIONS");
    finish(b);
    ag_loop_turn(&b->loop, 0);
    ex = prepare(b, "CONNECT", "/nothing");
    ex->req.protocol = AG_SPAN("websocket");
    ag_dispatch.start(ex);
    cr_expect_eq(ex->status, 404);
    finish(b);
    close_bench(b);
}

Test(dispatch, options_that_are_routed)
{
    struct bench *b = open_bench(config);

    (void)ask(b, "OPTIONS", "/opt");
    cr_expect_eq(b->ex->status, 200);
    finish(b);
    ag_loop_turn(&b->loop, 0);
    (void)ask(b, "OPTIONS", "/any");
    cr_expect_eq(b->ex->status, 200);
    finish(b);
    close_bench(b);
}

/* A reload between the head's first byte and its last: the request runs on the new snapshot, and holds
 * that one. */
Test(dispatch, holds_the_snapshot_that_it_uses)
{
    struct bench *b = open_bench(config);
    struct bench *other = calloc(1, sizeof(*other));
    struct ag_exchange *ex;

    AG_ASSERT(other);
    other->ref = (struct ag_block){.refs = 1, .free = free_ref, .fd = -1};
    b->ctx.snapshot_ref = &other->ref;
    ex = prepare(b, "GET", "/ok");
    b->ctx.snapshot_ref = &b->ref;
    ag_block_release(&other->ref);
    cr_expect(other->ref_freed, "a head on its way needs no snapshot");
    ag_dispatch.start(ex);
    cr_expect_eq(ex->snapshot_ref, &b->ref);
    finish(b);
    close_bench(b);
    free(other);
}

Test(dispatch, headers_filter)
{
    struct bench *b = open_bench(
        "routes:\n"
        "  /h/:id:\n"
        "    action: OK x\n"
        "    filters:\n"
        "      - headers:\n"
        "          request: {set: {X-In: 'v{param.id}'}, remove: [Cookie]}\n"
        "          response: {set: {X-Ip: '{remote.ip}:{remote.port}', Server: mine},\n"
        "                     add: {Vary: Origin}, remove: [Content-Type]}\n"
        "      - headers: {set: {X-Both: '{header.x-in}/{response.server}/{status}'}}\n");
    struct ag_exchange *ex = prepare(b, "GET", "/h/7");
    const struct ag_field *f;

    cr_assert_eq(ag_fields_add_id(&ex->req.fields, &ex->arena, AG_FIELD_COOKIE, AG_SPAN("a=b")),
                 AG_OK);
    ag_dispatch.start(ex);
    cr_expect_null(ag_fields_find(&ex->req.fields, AG_FIELD_COOKIE, NULL));
    f = ag_fields_find_name(&ex->req.fields, AG_SPAN("X-In"), NULL);
    cr_assert(f);
    cr_expect(ag_span_eq(ag_field_value(f), AG_SPAN("v7")));
    cr_expect_str_eq(field(ex, "X-Ip"), "10.1.2.3:4321");
    cr_expect_str_eq(field(ex, "Vary"), "Origin");
    cr_expect_str_eq(field(ex, "Content-Type"), "none");
    cr_expect_str_eq(field(ex, "Server"), "mine");
    cr_expect_str_eq(field(ex, "X-Both"), "v7//200", "the inner filter comes first");
    finish(b);
    close_bench(b);
}

Test(dispatch, access_log)
{
    struct bench *b = open_bench("server: {access_log: human}\nroutes:\n  GET /ok: OK\n");
    char line[256] = "";
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(ag_log_start(fds[1], AG_LOG_INFO, AG_LOG_HUMAN, 4096), AG_OK);
    cr_expect_gt(ask(b, "GET", "/ok")->started_ns, 0);
    finish(b);
    (void)prepare(b, "GET", "/bad"); /* refused by the server, never started */
    ag_exchange_fail(b->ex, 400, AG_REASON_PROTOCOL, "bad");
    finish(b);
    ag_log_stop();
    cr_assert_gt(read(fds[0], line, sizeof(line) - 1), 0);
    cr_expect(strstr(line, "GET /ok 200"), "%s", line);
    cr_expect(strstr(line, "GET /bad 400"), "%s", line);
    close_bench(b);
}
