/*
 * Goal: without a token only peers of this machine are answered, also on connections that the configuration of today would
 * not have let in; an answer that no memory is left for is a clean failure; content is bounded, and a client that leaves
 * in the middle of it, or of an answer, leaves nothing behind.
 * Method: exchanges of the admin pipeline over a server that says who asks.
 */
#include "tools/serving.h"

#include <criterion/criterion.h>

static union ag_addr peer;
static bool sent;

static void send_head(struct ag_exchange *ex)
{
    (void)ex;
    sent = true;
}

static void remote(struct ag_exchange *ex, union ag_addr *out_addr)
{
    (void)ex;
    *out_addr = peer;
}

static void want_body(struct ag_exchange *ex)
{
    (void)ex;
}

static const struct ag_server_ops server_ops = {
    .send_head = send_head, .remote = remote, .want_body = want_body};

static struct ag_loop loop;
static struct ag_serving serving;
static struct ag_model model;
static struct ag_snapshot snapshot = {.model = &model, .route_count = 7};

static void open_admin(void)
{
    const struct ag_loop_config config = {
        .backend = AG_BACKEND_EPOLL, .buf_count = {32, 16}, .node_count = 64, .page_count = 16};
    const char *why = "";

    cr_assert_eq(ag_loop_init(&loop, &config, &why), AG_OK, "%s", why);
    serving.ctx = (struct ag_context){.loop = &loop, .shard_count = 2};
    cr_assert_eq(ag_admin_init(&serving.admin, &serving, NULL), AG_OK);
    serving.admin.ctx.snapshot = &snapshot;
}

static void close_admin(void)
{
    ag_loop_turn(&loop, 0);
    cr_expect_eq(serving.admin.ctx.exchanges_live, 0);
    ag_admin_deinit(&serving.admin);
    ag_loop_deinit(&loop);
}

TestSuite(admin, .init = open_admin, .fini = close_admin);

static struct ag_exchange *ask(const char *path)
{
    struct ag_exchange *ex = ag_exchange_new(&serving.admin.ctx, &server_ops, &serving);

    cr_assert(ex);
    sent = false;
    ex->req.method_name = AG_SPAN("GET");
    ex->req.method = AG_METHOD_GET;
    ex->req.path = ag_span_str(path);
    ex->req.host = AG_SPAN("127.0.0.1");
    ex->req.version = AG_HTTP_11;
    serving.admin.ctx.pipeline->start(ex);
    cr_assert(sent);
    return ex;
}

static unsigned status_of(const char *path)
{
    struct ag_exchange *ex = ask(path);
    unsigned status = ex->res.status;

    while (ex->res_body.q.bytes > 0) {
        struct ag_slice s = ag_body_take(&ex->res_body);

        ag_slice_release(&s);
    }
    ag_exchange_complete(ex);
    ag_loop_turn(&loop, 0);
    return status;
}

Test(admin, peers_without_a_token)
{
    static const struct {
        const char *host;
        unsigned status;
    } rows[] = {{"127.0.0.1", 200},   {"127.255.0.9", 200}, {"::1", 200}, {"::ffff:127.0.0.1", 200},
                {"unix:/run/a", 200}, {"128.0.0.1", 403},   {"::2", 403}, {"::ffff:10.0.0.1", 403},
                {"10.0.0.1", 403},    {"0.0.0.0", 403},     {"::", 403}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        cr_assert_eq(ag_addr_parse(ag_span_str(rows[i].host), 80, &peer), AG_OK);
        cr_expect_eq(status_of("/healthz"), rows[i].status, "%s", rows[i].host);
    }
    peer = (union ag_addr){0};
    cr_expect_eq(status_of("/healthz"), 403, "the system does not say");
}

Test(admin, no_buffer_for_the_answer)
{
    struct ag_block *held[64] = {0};
    size_t count = 0;

    cr_assert_eq(ag_addr_parse(AG_SPAN("::1"), 80, &peer), AG_OK);
    cr_expect_eq(status_of("/status"), 200);
    for (unsigned group = 0; group < AG_BUF_GROUPS; group++) {
        while (count < AG_COUNT(held) &&
               (held[count] = ag_loop_buf(&loop, (enum ag_buf_group)group))) {
            count++;
        }
    }
    cr_expect_eq(status_of("/status"), 503);
    while (count > 0) {
        ag_block_release(held[--count]);
    }
    cr_expect_eq(status_of("/status"), 200);
}

/* ---- large answers ---- */

#define LARGE_BYTES (512u << 10) /* more than a body holds */

static struct ag_exchange *large_answer(void)
{
    struct ag_exchange *ex = ag_exchange_new(&serving.admin.ctx, &server_ops, &serving);
    struct ag_json_out o;

    cr_assert(ex);
    ag_json_init(&o, &loop, AG_ADMIN_JSON_MAX);
    for (unsigned i = 0; i < LARGE_BYTES / 64; i++) {
        ag_json_put(&o,
                    AG_SPAN("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    }
    ag_admin_json(ex, 200, &o);
    cr_expect_eq(ex->res.status, 200);
    cr_expect_eq(ex->res.content_length, LARGE_BYTES);
    cr_expect_lt(ex->res_body.q.bytes, LARGE_BYTES);
    return ex;
}

static uint64_t take_all(struct ag_exchange *ex)
{
    uint64_t bytes = 0;

    while (ex->res_body.q.bytes > 0) {
        struct ag_slice slice = ag_body_take(&ex->res_body);

        bytes += slice.len;
        ag_slice_release(&slice);
        ag_loop_turn(&loop, 0);
    }
    return bytes;
}

Test(admin, a_large_answer_comes_as_it_is_taken)
{
    struct ag_exchange *ex = large_answer();

    cr_expect_eq(take_all(ex), LARGE_BYTES);
    cr_expect(ag_body_at_end(&ex->res_body));
    cr_expect_null(ex->action_data);
    ag_exchange_complete(ex);
}

Test(admin, a_client_that_leaves_in_a_large_answer)
{
    struct ag_exchange *ex = large_answer();

    cr_expect_not_null(ex->action_data);
    ag_exchange_abort(ex, AG_REASON_ABORTED);
    ag_loop_turn(&loop,
                 0); /* close_admin sees that it has gone, the loop that its buffers are back */
}

/* ---- paths ---- */

Test(admin, segments)
{
    static const struct {
        const char *path;
        unsigned index;
        const char *segment; /* NULL: there is none */
    } rows[] = {{"/a/b/c", 1, "b"},
                {"/a/b%2Fc/d", 1, "b/c"},
                {"/a/%2F", 1, "/"},
                {"/a/%2F%2Fx%2F/y", 1, "//x/"},
                {"/a/%20%5B::1%5D:80", 1, " [::1]:80"},
                {"/a/%252F", 1, "%2F"},
                {"/a/x%FF", 1, "x\xff"},
                {"/a", 1, ""},
                {"/a/", 1, ""},
                {"/a/x%00y", 1, NULL},
                {"/a/%2", 1, NULL}};
    struct ag_exchange *ex = ag_exchange_new(&serving.admin.ctx, &server_ops, &serving);
    static char path[2 * AG_ADMIN_SEGMENT_MAX] = "/a/";

    cr_assert(ex);
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_span s;

        ex->req.path = ag_span_str(rows[i].path);
        s = ag_admin_segment(ex, rows[i].index);
        cr_expect_eq(s.ptr == NULL, rows[i].segment == NULL, "%s", rows[i].path);
        cr_expect(!rows[i].segment || ag_span_eq(s, ag_span_str(rows[i].segment)), "%s",
                  rows[i].path);
    }
    memset(path + 3, 'x', sizeof(path) - 3);
    ex->req.path = ag_span(path, 3 + AG_ADMIN_SEGMENT_MAX);
    cr_expect_eq(ag_admin_segment(ex, 1).len, AG_ADMIN_SEGMENT_MAX);
    ex->req.path.len++;
    cr_expect_null(ag_admin_segment(ex, 1).ptr, "longer than any name");
    ex->req.path = AG_SPAN("/healthz");
    sent = false;
    serving.admin.ctx.pipeline->start(ex);
    cr_expect(sent);
    (void)take_all(ex);
    ag_exchange_complete(ex);
}

/* ---- content ---- */

static unsigned calls;
static size_t keys;

static void then(struct ag_admin *a, struct ag_exchange *ex, const struct ag_node *root,
                 struct ag_diags *diags)
{
    cr_expect_eq(a, &serving.admin);
    cr_expect_eq(diags->errors, 0);
    calls++;
    keys = 0;
    for (const struct ag_node *n = root->first; n; n = n->next) {
        keys++;
    }
    ag_admin_nothing(ex);
}

static struct ag_exchange *begin_content(void)
{
    struct ag_exchange *ex = ag_exchange_new(&serving.admin.ctx, &server_ops, &serving);

    cr_assert(ex);
    calls = 0;
    sent = false;
    ex->req.content_length = AG_LENGTH_UNKNOWN;
    cr_assert_eq(ag_fields_add_id(&ex->req.fields, &ex->arena, AG_FIELD_CONTENT_TYPE,
                                  AG_SPAN("application/json")),
                 AG_OK);
    ag_admin_read(ex, then);
    return ex;
}

static void write_spaces(struct ag_exchange *ex, size_t count)
{
    static const char spaces[1000] = {[0 ... 999] = ' '};

    while (count > 0) {
        size_t part = count < sizeof(spaces) ? count : sizeof(spaces);

        cr_assert_eq(ag_body_write(&ex->req_body, ag_slice_static(ag_span(spaces, part))), AG_OK);
        ag_loop_turn(&loop, 0);
        count -= part;
    }
}

static unsigned end_content(struct ag_exchange *ex)
{
    unsigned status;

    ag_body_end(&ex->req_body, NULL);
    ag_loop_turn(&loop, 0);
    cr_expect(sent);
    status = ex->res.status;
    (void)take_all(ex);
    ag_exchange_complete(ex);
    ag_loop_turn(&loop, 0);
    return status;
}

Test(admin, content_in_pieces_up_to_its_bound)
{
    struct ag_span object = AG_SPAN("{\"a\": 1, \"b\": [2]}");
    struct ag_exchange *ex;

    for (size_t over = 0; over < 2; over++) {
        ex = begin_content();
        write_spaces(ex, AG_ADMIN_CONTENT_MAX - object.len + over);
        cr_expect_not(sent);
        cr_assert_eq(ag_body_write(&ex->req_body, ag_slice_static(object)), AG_OK);
        cr_expect_eq(end_content(ex), over ? 413 : 204);
        cr_expect_eq(calls, over ? 0 : 1);
    }
    cr_expect_eq(keys, 2);
}

Test(admin, content_that_breaks_off)
{
    struct ag_exchange *ex = begin_content();

    write_spaces(ex, 5000);
    ag_body_abort(&ex->req_body, AG_REASON_ABORTED);
    ag_loop_turn(&loop, 0);
    cr_expect_eq(ex->res.status, 400);
    (void)take_all(ex);
    ag_exchange_complete(ex);
    ag_loop_turn(&loop, 0);

    ex = begin_content();
    write_spaces(ex, 5000);
    ag_exchange_abort(ex, AG_REASON_ABORTED);
    ag_loop_turn(&loop, 0);
    cr_expect_eq(calls, 0);
    cr_expect_not(sent);
}
