/*
 * Goal: exchanges that live on after a reload let the old snapshot go and go on as if nothing had
 * happened; those that still need it keep it and are told apart.
 * Method: real snapshots, dispatch, server and actions, raw sockets on both outer ends, both backends;
 * the old snapshot is freed under the exchange, so that any use of it is seen by AddressSanitizer.
 */
#include "actions/static/static.h"
#include "engine/backend.h"
#include "engine/log.h"
#include "filters/filter.h"
#include "router/snapshot.h"
#include "tests/unit/folder.h"
#include "tests/unit/proxying.h"

#include <sys/stat.h>

#define UPGRADE                                       \
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"   \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" \
    "Sec-WebSocket-Version: 13\r\n"
#define SWITCHING                                                 \
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" \
    "Upgrade: websocket\r\n"                                      \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
#define FILE_BYTES (24u << 20)

/* ---- filters that count ---- */

static unsigned dones;

static enum ag_status configure_none(struct ag_filter_build *b, const struct ag_node *n,
                                     const void **out_settings)
{
    (void)n;
    *out_settings = ag_arena_zalloc(b->arena, 1);
    return AG_OK;
}

static void count_done(struct ag_exchange *ex, const void *settings, void *state)
{
    (void)state;
    cr_expect_eq(*(const uint8_t *)settings, 0);
    cr_expect_leq(ex->param_count, 1);
    dones++;
}

static enum ag_verdict wait_pre(struct ag_exchange *ex, const void *settings, void *state)
{
    (void)ex, (void)settings, (void)state;
    return AG_WAIT;
}

static void wait_cancel(struct ag_exchange *ex, const void *settings, void *state)
{
    (void)settings, (void)state;
    ag_exchange_release(ex);
}

static enum ag_verdict go_on(struct ag_exchange *ex, const void *settings, void *state)
{
    (void)ex, (void)settings, (void)state;
    return AG_CONTINUE;
}

static const struct ag_filter_ops count_ops = {
    .name = "count", .configure = configure_none, .on_done = count_done};
static const struct ag_filter_ops wait_ops = {
    .name = "wait", .configure = configure_none, .pre = wait_pre, .cancel = wait_cancel};
static const struct ag_filter_ops pass_ops = {
    .name = "pass", .configure = configure_none, .pre = go_on};
static const struct ag_filter_ops *const test_filters[] = {&count_ops, &wait_ops, &pass_ops};

/* ---- snapshots that come and go ---- */

struct generation {
    struct ag_block ref; /* first */
    struct ag_snapshot *snapshot;
    bool *freed; /* NULL: nobody asks */
};

static void generation_free(struct ag_block *b)
{
    struct generation *g = ag_container_of(b, struct generation, ref);

    if (g->freed) {
        *g->freed = true;
    }
    ag_snapshot_free(g->snapshot);
}

static struct generation generations[16];
static unsigned generation_count;
static char config[4096];

/* Makes the config current; the one before is returned, no longer held by the context. */
static struct ag_block *swap(struct world *w)
{
    struct generation *g = &generations[generation_count++];
    struct ag_block *before = w->ctx.snapshot_ref;
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_source source;

    cr_assert_leq(generation_count, AG_COUNT(generations));
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    /* Spans of the settings lie in the text: it has to go with the rest. */
    source = (struct ag_source){"t.yml", ag_span_str(ag_arena_strdup(&arena, ag_span_str(config)))};
    g->ref = (struct ag_block){.refs = 1, .free = generation_free, .fd = -1};
    g->snapshot =
        ag_snapshot_compile(&arena, ag_config_parse_yaml(&source, &diags), "/", NULL, &diags);
    cr_assert(g->snapshot, "%s", diags.first ? diags.first->what : "?");
    w->ctx.snapshot = g->snapshot;
    w->ctx.snapshot_ref = &g->ref;
    ag_arena_release(&arena);
    return before;
}

/* A reload and the time after it: `want_kept` exchanges cannot do without the old snapshot. */
static bool reload(struct world *w, uint32_t want_kept)
{
    struct ag_block *old = swap(w);
    bool freed = false;

    ag_container_of(old, struct generation, ref)->freed = &freed;
    ag_block_release(old);
    if (!freed) { /* else nobody held it */
        cr_expect_eq(ag_context_retire(&w->ctx, old), want_kept);
    }
    if (!freed) {
        ag_container_of(old, struct generation, ref)->freed = NULL;
    }
    return freed;
}

static struct world *begin(enum ag_backend_kind kind)
{
    struct world *w = world_new(kind);

    ag_filter_register_tests(test_filters, AG_COUNT(test_filters));
    w->ctx.pipeline = &ag_dispatch;
    cr_assert_eq(ag_action_static.shard_open(&w->ctx, &w->ctx.action_state[AG_ACTION_STATIC]),
                 AG_OK);
    return w;
}

/* With a reset: a client's end alone is not noticed while it is not read from. */
static void leave(struct client *c)
{
    const struct linger now = {.l_onoff = 1};

    if (c->fd >= 0) {
        cr_assert_eq(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
        client_close(c);
    }
}

static void end(struct world *w)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        leave(&w->clients[i]);
    }
    world_until(w, downs_closed(w));
    world_settle(w);
    ag_action_static.shard_close(&w->ctx, w->ctx.action_state[AG_ACTION_STATIC]);
    ag_block_release(w->ctx.snapshot_ref);
    world_free(w);
}

/* The first snapshot; "@" in the text stands for the port of `f`. */
static void load(struct world *w, const struct fake *f, const char *text)
{
    size_t len = strcspn(text, "@");

    (void)snprintf(config, sizeof(config), "%s", text);
    if (text[len]) {
        (void)snprintf(config + len, sizeof(config) - len, "%u%s", f ? f->port : 0, text + len + 1);
    }
    cr_assert_null(swap(w));
}

static bool upstream_has(const struct fake *f, const char *text)
{
    return f->conns[0].len > 0 && memmem(f->conns[0].in, f->conns[0].len, text, strlen(text));
}

/* ---- those that let go ---- */

BOTH(outlive, a_tunnel)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, SWITCHING);
    struct client *c;
    char line[512] = "";
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    load(w, f,
         "server: {access_log: json}\n"
         "routes:\n"
         "  /ws/:id:\n"
         "    action: http://127.0.0.1:@/to/:id\n"
         "    filters:\n"
         "      - count\n"
         "      - headers: {request: {set: {User-Agent: filtered, X-Other: more}},\n"
         "                  response: {set: {X-In: literal}}}\n");
    c = client_new(w);
    ask(w, c, "GET /ws/7 HTTP/1.1\r\nHost: h\r\nUser-Agent: own\r\n" UPGRADE "\r\n", "\r\n\r\n");
    cr_expect(client_has(c, "X-In: literal"));
    cr_expect(strstr(f->head, "GET /to/7 ") && strstr(f->head, "User-Agent: filtered"));
    cr_expect(reload(w, 0), "nobody holds the old snapshot any more");
    cr_expect_eq(dones, 1, "what filters have to do at the end is done");
    for (unsigned i = 0; i < 3; i++) {
        char text[16];

        (void)snprintf(text, sizeof(text), "up%u;", i);
        client_send(c, text);
        world_until(w, upstream_has(f, text));
        (void)snprintf(text, sizeof(text), "down%u;", i);
        fake_send(&f->conns[0], text);
        world_until(w, client_has(c, text));
        cr_expect(reload(w, 0), "later ones were never held");
    }
    cr_assert_eq(ag_log_start(fds[1], AG_LOG_INFO, AG_LOG_HUMAN, 4096), AG_OK);
    client_close(c);
    fake_hang_up(&f->conns[0]);
    world_until(w, downs_closed(w));
    ag_log_stop();
    cr_assert_gt(read(fds[0], line, sizeof(line) - 1), 0);
    cr_expect(strstr(line, "\"target\":\"/ws/7\",\"status\":101"), "%s", line);
    cr_expect(strstr(line, "\"user_agent\":\"filtered\""), "%s", line);
    cr_expect_eq(dones, 1);
    (void)close(fds[0]);
    (void)close(fds[1]);
    end(w);
}

BOTH(outlive, a_long_proxied_download)
{
    struct world *w = begin(kind);
    struct fake *f =
        fake_new(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    struct client *c;

    load(w, f, "routes:\n  /d: {action: 'http://127.0.0.1:@', timeouts: {total: 1h}}\n");
    c = client_new(w);
    ask(w, c, "GET /d HTTP/1.1\r\nHost: h\r\n\r\n", "one\r\n");
    cr_expect(reload(w, 0));
    fake_send(&f->conns[0], "3\r\ntwo\r\n");
    world_until(w, client_has(c, "two"));
    fake_send(&f->conns[0], "0\r\nX-End: 1\r\n\r\n");
    world_until(w, client_has(c, "\r\n0\r\nX-End: 1\r\n\r\n"));
    ask(w, c, "GET /d HTTP/1.1\r\nHost: h\r\n\r\n", "one\r\n");
    cr_expect_eq(f->accepted, 1, "the upstream's connection is used again after the reload");
    end(w);
}

BOTH(outlive, timeouts_hold)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart");
    struct client *c;

    load(w, f, "routes:\n  /d: {action: 'http://127.0.0.1:@', timeouts: {read: 1s}}\n");
    c = client_new(w);
    ask(w, c, "GET /d HTTP/1.1\r\nHost: h\r\n\r\n", "part");
    cr_expect(reload(w, 0));
    world_until(w, client_over(c));
    cr_expect_eq(f->requests, 1);
    end(w);
}

BOTH(outlive, a_long_static_download)
{
    struct world *w = begin(kind);
    char dir[] = "/tmp/ag-outlive-XXXXXX", path[64];
    uint64_t got = 0;
    struct client *c;
    int fd;

    cr_assert(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/big.bin", dir);
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    cr_assert(fd >= 0 && ftruncate(fd, FILE_BYTES) == 0);
    (void)snprintf(config, sizeof(config), "routes:\n  /f: %s/\n", dir);
    cr_assert_null(swap(w));
    c = client_new(w);
    client_send(c, "GET /f/big.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    world_settle(w);
    cr_expect(reload(w, 0));
    for (unsigned i = 0; got < FILE_BYTES && i < TURNS_MAX; i++) {
        world_turn(w);
        client_pull(c);
        if (got == 0 && c->len) {
            uint8_t *body = memmem(c->got, c->len, "\r\n\r\n", 4);

            cr_assert(body);
            got = c->len - (size_t)(body + 4 - c->got);
        } else {
            got += c->len;
        }
        c->len = 0;
        cr_assert_not(c->eof || c->reset);
    }
    cr_expect_eq(got, FILE_BYTES);
    (void)close(fd);
    (void)unlink(path);
    (void)rmdir(dir);
    end(w);
}

/* ---- files that open slowly ---- */

static struct ag_system slow_system;
static struct ag_backend slow_backend;
static struct ag_file_op *slow_op; /* taken, to be performed when the test says so */

static bool take_file(struct ag_loop *l, struct ag_file_op *op)
{
    (void)l;
    slow_op = op;
    return true;
}

/* A client that asks for /f/x.txt, which is being opened; the rest of the head is `more`. */
static struct client *ask_slowly(struct world *w, const char *more)
{
    struct client *c;

    folder_make();
    folder_put_text("x.txt", "text");
    slow_backend = *w->loop.backend;
    slow_system = *slow_backend.system;
    slow_system.file = take_file;
    slow_backend.system = &slow_system;
    w->loop.backend = &slow_backend;
    slow_op = NULL;
    (void)snprintf(config, sizeof(config), "routes:\n  /f: {action: %s/, limits: {max_body: 4}}\n",
                   folder);
    cr_assert_null(swap(w));
    c = client_new(w);
    client_send(c, "GET /f/x.txt HTTP/1.1\r\nHost: h\r\n");
    client_send(c, more);
    for (unsigned i = 0; i < 2; i++) { /* the directory, the file */
        world_until(w, slow_op);
        if (i == 0) {
            struct ag_file_op *op = slow_op;

            slow_op = NULL;
            ag_file_perform(op, 0);
        }
    }
    return c;
}

static void end_slowly(struct world *w)
{
    ag_file_perform(slow_op, 0);
    world_settle(w);
    cr_expect_eq(w->ctx.exchanges_live, 0);
    end(w);
    folder_remove();
}

/* The client and so the server have gone: who waits for the file still needs the settings. */
BOTH(outlive, a_file_for_a_client_that_has_gone)
{
    struct world *w = begin(kind);
    struct client *c = ask_slowly(w, "\r\n");

    leave(c);
    world_until(w, downs_closed(w));
    cr_expect_eq(w->ctx.exchanges_live, 1);
    cr_expect_not(reload(w, 1));
    end_slowly(w);
}

/* The server has answered by itself: the settings may go before the file is there. */
BOTH(outlive, a_file_for_a_request_that_was_refused)
{
    struct world *w = begin(kind);
    struct client *c = ask_slowly(w, "Transfer-Encoding: chunked\r\n\r\n");

    client_send(c, "5\r\nlarge\r\n");
    world_until(w, client_has(c, "HTTP/1.1 413 "));
    leave(c);
    (void)!reload(w, 0);
    end_slowly(w);
}

BOTH(outlive, an_upload)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c;

    load(w, f,
         "routes:\n  /up/:id: {action: 'http://127.0.0.1:@/to/:id', host: api.test,"
         " filters: [pass]}\n");
    c = client_new(w);
    client_send(c, "POST /up/9 HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\npart");
    world_until(w, upstream_has(f, "part"));
    cr_expect(strstr(f->head, "POST /to/9 HTTP/1.1\r\nHost: api.test\r\n"), "%s", f->head);
    cr_expect(reload(w, 0));
    client_send(c, "rest");
    world_until(w, upstream_has(f, "partrest"));
    fake_send(&f->conns[0], "HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndone");
    world_until(w, client_has(c, "HTTP/1.1 201 Created"));
    world_until(w, client_has(c, "\r\n\r\ndone"));
    end(w);
}

/* A pooled connection that breaks is not tried again: the settings for it are gone. */
BOTH(outlive, a_broken_upload_is_answered)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    struct client *c;

    load(w, f, "routes:\n  /up: {action: 'http://127.0.0.1:@', host: api.test}\n");
    c = client_new(w);
    ask(w, c, "GET /up HTTP/1.1\r\nHost: h\r\n\r\n", "ok");
    f->wire = NULL;
    client_send(c, "PUT /up HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n");
    world_until(w, f->requests == 2);
    cr_expect(reload(w, 0));
    fake_hang_up(&f->conns[0]);
    world_until(w, client_has(c, "HTTP/1.1 502 "));
    cr_expect_eq(f->requests, 2);
    end(w);
}

/* What an answer is rewritten by lay in the snapshot. */
BOTH(outlive, a_redirect_and_a_cookie)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c;

    load(w, f,
         "routes:\n  /up/*:\n    action: http://127.0.0.1:@/to/*\n"
         "    rewrite_redirects: [{from: 'http://old.test', to: 'https://{host}'}, auto]\n"
         "    cookies: {domain: {a.test: '{header.x-d}'}, path: {/to: /up}, same_site: lax}\n");
    c = client_new(w);
    client_send(c, "GET /up/9 HTTP/1.1\r\nHost: h\r\nX-D: d.test\r\n\r\n");
    world_until(w, f->requests == 1);
    cr_expect(reload(w, 0));
    fake_send(&f->conns[0], "HTTP/1.1 302 Found\r\nLocation: /to/8\r\nContent-Length: 0\r\n"
                            "Content-Location: http://old.test/x\r\n"
                            "Set-Cookie: a=b; Path=/to/x; Domain=a.test\r\n\r\n");
    world_until(w, client_has(c, "\r\n\r\n"));
    cr_expect(client_has(c, "\r\nLocation: /up/8\r\n"), "%.*s", (int)c->len, (char *)c->got);
    cr_expect(client_has(c, "\r\nContent-Location: https://h/x\r\n"));
    cr_expect(client_has(c, "\r\nSet-Cookie: a=b; Path=/up/x; Domain=d.test; SameSite=Lax\r\n"));
    end(w);
}

/* Pages for errors are those of the route that would serve the request now. */
BOTH(outlive, an_error_that_is_taken)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c;

    load(
        w, f,
        "routes:\n  /up: {action: 'http://127.0.0.1:@', error_pages: {500: old, intercept: true}}\n");
    c = client_new(w);
    client_send(c, "GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
    world_until(w, f->requests == 1);
    memcpy(strstr(config, "old"), "new", 3);
    cr_expect(reload(w, 0));
    fake_send(&f->conns[0], "HTTP/1.1 500 X\r\nContent-Length: 6\r\n\r\ntheirs");
    world_until(w, client_has(c, "\r\n\r\nnew"));
    cr_expect(client_has(c, "HTTP/1.1 500 "));
    end(w);
}

BOTH(outlive, limits_hold)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c;

    load(w, f, "routes:\n  /up: {action: 'http://127.0.0.1:@', limits: {max_body: 10}}\n");
    c = client_new(w);
    client_send(c,
                "POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
    world_until(w, upstream_has(f, "part"));
    cr_expect(reload(w, 0));
    client_send(c, "7\r\ntoomuch\r\n");
    world_until(w, client_has(c, "HTTP/1.1 413 "));
    end(w);
}

BOTH(outlive, an_upload_to_the_echo)
{
    struct world *w = begin(kind);
    struct client *c;

    load(w, NULL, "echo: {max_body: 6}\nroutes:\n  /e/:name/*rest: CREATED *\n");
    c = client_new(w);
    client_send(c, "POST /e/joe/a/b HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\npart");
    world_settle(w);
    cr_expect(reload(w, 0));
    client_send(c, "rest");
    world_until(w, client_has(c, "}\n"));
    cr_expect(client_has(c, "HTTP/1.1 201 "), "%.*s", (int)c->len, (char *)c->got);
    cr_expect(client_has(c, "\"params\":{\"name\":\"joe\",\"rest\":\"a/b\"}"), "%.*s", (int)c->len,
              (char *)c->got);
    cr_expect(client_has(c, "\"body\":\"partre\""));
    end(w);
}

/* Content that nobody takes: the answer was sent, no action runs, the limits still hold. */
BOTH(outlive, an_upload_that_is_dropped)
{
    struct world *w = begin(kind);
    struct client *c;

    load(w, NULL, "routes:\n  /ok: OK fine\n");
    c = client_new(w);
    client_send(c, "POST /ok HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\npart");
    world_until(w, client_has(c, "fine"));
    cr_expect(reload(w, 0));
    client_send(c, "restGET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    c->len = 0;
    world_until(w, client_has(c, "fine"));
    end(w);
}

/* ---- those that cannot, yet ---- */

BOTH(outlive, while_filters_are_to_see_the_answer)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, NULL);
    struct ag_block *old;
    struct client *c;

    load(w, f,
         "routes:\n  /up: {action: 'http://127.0.0.1:@', filters: [count, {headers: {set: {X-In: "
         "literal}}}]}\n");
    c = client_new(w);
    client_send(c, "GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
    world_until(w, f->requests == 1);
    old = w->ctx.snapshot_ref;
    cr_expect_not(reload(w, 1));
    cr_expect_eq(dones, 0);
    fake_send(&f->conns[0], "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npart");
    world_until(w, client_has(c, "part"));
    cr_expect(client_has(c, "X-In: literal"));
    cr_expect_eq(ag_context_retire(&w->ctx, old), 0, "once the head is sent it can");
    cr_expect_eq(dones, 1);
    fake_send(&f->conns[0], "rest");
    world_until(w, client_has(c, "partrest"));
    end(w);
}

BOTH(outlive, while_a_filter_waits)
{
    struct world *w = begin(kind);
    struct client *c;

    load(w, NULL, "routes:\n  /w: {action: OK, filters: [wait]}\n");
    c = client_new(w);
    client_send(c, "GET /w HTTP/1.1\r\nHost: h\r\n\r\n");
    world_settle(w);
    cr_expect_not(reload(w, 1));
    leave(c);
    world_until(w, downs_closed(w));
    world_settle(w);
    end(w);
}

BOTH(outlive, while_it_waits_for_a_connection)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c, *second;

    load(w, f,
         "proxy: {upstreams: {u: {servers: ['127.0.0.1:@'], max_connections: 1}}}\n"
         "routes:\n  /p/:id: http://u/to/:id\n");
    c = client_new(w);
    client_send(c, "GET /p/1 HTTP/1.1\r\nHost: h\r\n\r\n");
    world_until(w, f->requests == 1);
    second = client_new(w);
    client_send(second, "GET /p/2 HTTP/1.1\r\nHost: h\r\n\r\n");
    world_settle(w);
    cr_expect_not(reload(w, 1), "the second has no connection yet");
    f->wire = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    fake_send(&f->conns[0], f->wire);
    world_until(w, client_has(c, "ok"));
    world_until(w, client_has(second, "ok"));
    cr_expect(strstr(f->head, "GET /to/2 "));
    cr_expect_eq(f->accepted, 1);
    end(w);
}

/* However often it is asked whether it can now: each time takes nothing of the exchange's memory. */
BOTH(outlive, while_a_copy_is_to_be_sent)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, NULL);
    struct ag_block *old;
    struct client *c;

    load(w, f,
         "proxy: {upstreams: {u: {servers: ['127.0.0.1:@']}}}\n"
         "routes:\n  /up/*: {action: 'http://u/to/*', mirror: 'http://u', stream: true}\n");
    c = client_new(w);
    client_send(c, "POST /up/9 HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\npart");
    world_until(w, upstream_has(f, "part"));
    old = w->ctx.snapshot_ref;
    cr_expect_not(reload(w, 1));
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert_eq(ag_context_retire(&w->ctx, old), 1);
    }
    client_send(c, "rest");
    world_until(w, upstream_has(f, "partrest"));
    fake_send(&f->conns[0], "HTTP/1.1 302 Found\r\nLocation: /to/8\r\nContent-Length: 0\r\n\r\n");
    world_until(w, client_has(c, "\r\n\r\n"));
    cr_expect(client_has(c, "HTTP/1.1 302 "), "%.*s", (int)c->len, (char *)c->got);
    cr_expect(client_has(c, "\r\nLocation: /up/8\r\n"));
    end(w);
}

/* ---- many ---- */

/* Each let go of its own, in any order, and those of today are left alone. */
BOTH(outlive, generations)
{
    struct world *w = begin(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npart");
    struct client *clients[6];
    struct ag_block *refs[6];
    bool freed[6] = {false};

    load(w, f, "routes:\n  /d/:id: http://127.0.0.1:@\n");
    for (unsigned i = 0; i < AG_COUNT(clients); i++) {
        clients[i] = client_new(w);
        ask(w, clients[i], "GET /d/1 HTTP/1.1\r\nHost: h\r\n\r\n", "part");
        refs[i] = w->ctx.snapshot_ref;
        ag_container_of(refs[i], struct generation, ref)->freed = &freed[i];
        if (i + 1 < AG_COUNT(clients)) {
            ag_block_release(swap(w));
        }
    }
    for (unsigned i = 0; i < 5; i++) {
        unsigned which = (i * 2) % 5; /* 0 2 4 1 3 */

        cr_expect_not(freed[which]);
        cr_expect_eq(ag_context_retire(&w->ctx, refs[which]), 0);
        cr_expect(freed[which]);
    }
    cr_expect_not(freed[5]);
    cr_expect_eq(w->ctx.exchanges_live, 6);
    for (unsigned i = 0; i < AG_COUNT(clients); i++) {
        fake_send(&f->conns[i], "rest");
        world_until(w, client_has(clients[i], "partrest"));
    }
    ag_container_of(refs[5], struct generation, ref)->freed = NULL;
    end(w);
}

Test(outlive, nothing_to_retire)
{
    struct ag_context ctx = {0};
    struct ag_block old = {.refs = 1};

    cr_expect_eq(ag_context_retire(&ctx, &old), 0);
}
