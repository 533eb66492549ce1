/*
 * Goal: without a token only peers of this machine are answered, also on connections that the configuration of today would
 * not have let in; an answer that no memory is left for is a clean failure.
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

static const struct ag_server_ops server_ops = {.send_head = send_head, .remote = remote};

static struct ag_loop loop;
static struct ag_serving serving;
static struct ag_model model;
static struct ag_snapshot snapshot = {.model = &model, .route_count = 7};

static void open_admin(void)
{
    const struct ag_loop_config config = {
        .backend = AG_BACKEND_EPOLL, .buf_count = {32, 4}, .node_count = 64, .page_count = 16};
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

/* An answer at its largest is given to the body as a whole. */
Test(admin, a_large_answer)
{
    struct ag_exchange *ex = ag_exchange_new(&serving.admin.ctx, &server_ops, &serving);
    struct ag_json_out o;
    uint64_t bytes = 0;

    cr_assert(ex);
    ag_json_init(&o, &loop, AG_ADMIN_JSON_MAX);
    for (unsigned i = 0; i < AG_ADMIN_JSON_MAX / 64; i++) {
        ag_json_put(&o,
                    AG_SPAN("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    }
    ag_admin_json(ex, 200, &o);
    cr_expect_eq(ex->res.status, 200);
    cr_expect_eq(ex->res.content_length, AG_ADMIN_JSON_MAX);
    while (ex->res_body.q.bytes > 0) {
        struct ag_slice slice = ag_body_take(&ex->res_body);

        bytes += slice.len;
        ag_slice_release(&slice);
    }
    cr_expect_eq(bytes, AG_ADMIN_JSON_MAX);
    cr_expect(ag_body_at_end(&ex->res_body));
    ag_exchange_complete(ex);
}
