/*
 * proxying.h: for tests of the proxy: clients on raw sockets, the real server side, the proxy action,
 * and scripted upstreams on raw sockets; all in one thread, on one loop. Everything must be back at
 * the end.
 */
#pragma once
#include "actions/proxy/proxy.h"
#include "actions/proxy/proxy_config.h"
#include "actions/upstream/upstream_pool.h"
#include "engine/conn.h"
#include "engine/resolver.h"
#include "proto/h1_server.h"
#include "tests/unit/loops.h"

#include <errno.h>
#include <linux/tcp.h>
#include <stdio.h>

#define CLIENTS_MAX    16u
#define FAKE_CONNS_MAX 32u
#define FAKE_IN_MAX    16384u
#define WIRE_MAX       (256u * 1024u)

/* ---- scripted upstreams ---- */

struct fake;

struct fake_conn {
    int fd; /* -1: none */
    uint8_t in[FAKE_IN_MAX];
    size_t len;
    unsigned requests; /* complete heads on it */
    bool eof;
};

struct fake {
    int ls;
    uint16_t port;
    struct fake_conn conns[FAKE_CONNS_MAX];
    unsigned accepted, requests;
    const char *wire; /* the answer to each request; NULL: none */
    /* Instead of it; called for each complete head. */
    void (*script)(struct fake *, struct fake_conn *);
    char head[8192]; /* the last request's */
};

static inline void fake_listen(struct fake *f, const struct sockaddr *addr, socklen_t len)
{
    memset(f, 0, sizeof(*f));
    f->ls = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert(f->ls >= 0);
    cr_assert_eq(bind(f->ls, addr, len), 0);
    cr_assert_eq(listen(f->ls, 64), 0);
    for (unsigned i = 0; i < FAKE_CONNS_MAX; i++) {
        f->conns[i].fd = -1;
    }
}

static inline void fake_open(struct fake *f, const char *wire)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(in);

    fake_listen(f, (struct sockaddr *)&in, sizeof(in));
    cr_assert_eq(getsockname(f->ls, (struct sockaddr *)&in, &len), 0);
    f->port = ntohs(in.sin_port);
    f->wire = wire;
}

static inline void fake_hang_up(struct fake_conn *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
        c->fd = -1;
        c->len = 0;
    }
}

static inline void fake_close(struct fake *f)
{
    for (unsigned i = 0; i < FAKE_CONNS_MAX; i++) {
        fake_hang_up(&f->conns[i]);
    }
    if (f->ls >= 0) {
        (void)close(f->ls);
        f->ls = -1;
    }
}

/* Short enough for the socket's buffer. */
static inline void fake_send(const struct fake_conn *c, const char *text)
{
    cr_assert_eq(write(c->fd, text, strlen(text)), (ssize_t)strlen(text));
}

static inline unsigned fake_open_count(const struct fake *f)
{
    unsigned n = 0;

    for (unsigned i = 0; i < FAKE_CONNS_MAX; i++) {
        n += f->conns[i].fd >= 0 && !f->conns[i].eof;
    }
    return n;
}

static inline void fake_accept(struct fake *f)
{
    int fd;

    while (f->ls >= 0 && (fd = accept4(f->ls, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct fake_conn *c = f->conns;
        while (c->fd >= 0) {
            c++;
            cr_assert(c < f->conns + FAKE_CONNS_MAX);
        }
        c->fd = fd;
        c->len = 0;
        c->requests = 0;
        c->eof = false;
        f->accepted++;
    }
}

/* Heads without content follow each other; a script that wants content takes it from c->in. */
static inline void fake_serve(struct fake *f, struct fake_conn *c)
{
    uint8_t *end;

    while (c->fd >= 0 && c->len > 0 && (end = memmem(c->in, c->len, "\r\n\r\n", 4)) != NULL) {
        size_t head = (size_t)(end - c->in) + 4;

        (void)snprintf(f->head, sizeof(f->head), "%.*s", (int)head, (const char *)c->in);
        memmove(c->in, c->in + head, c->len - head);
        c->len -= head;
        c->requests++;
        f->requests++;
        if (f->script) {
            f->script(f, c);
        } else if (f->wire) {
            fake_send(c, f->wire);
        }
    }
}

static inline void fake_pump(struct fake *f)
{
    fake_accept(f);
    for (unsigned i = 0; i < FAKE_CONNS_MAX; i++) {
        struct fake_conn *c = &f->conns[i];
        ssize_t n = 0;

        while (c->fd >= 0 && !c->eof && c->len < FAKE_IN_MAX) {
            n = read(c->fd, c->in + c->len, FAKE_IN_MAX - c->len);
            if (n <= 0) {
                c->eof = n == 0 || errno != EAGAIN;
                break;
            }
            c->len += (size_t)n;
        }
        fake_serve(f, c);
    }
}

/* ---- the gateway ---- */

struct down {
    struct ag_conn conn; /* first */
    struct ag_h1_server h;
    bool open;
};

struct client {
    int fd; /* -1: closed */
    uint8_t *got;
    size_t len;
    bool eof, reset;
};

struct world {
    struct ag_loop loop;
    struct ag_context ctx;
    unsigned fds;
    struct ag_arena arena; /* settings */
    struct ag_diags diags;
    struct ag_action action;
    struct ag_exchange *ex; /* the last one started; may be gone */
    struct down downs[CLIENTS_MAX];
    struct client clients[CLIENTS_MAX];
    struct fake *fakes[8];
    unsigned fake_count;
};

static struct world *the_world; /* for callbacks that know only an exchange */

static inline struct down *down_of(struct ag_stream *s)
{
    return ag_container_of(ag_conn_of(s), struct down, conn);
}

static inline void down_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h1_server_data(&down_of(s)->h, slice);
}

static inline void down_eof(struct ag_stream *s)
{
    ag_h1_server_eof(&down_of(s)->h);
}

static inline void down_drain(struct ag_stream *s)
{
    ag_h1_server_drained(&down_of(s)->h);
}

static inline void down_deadline(struct ag_stream *s)
{
    ag_h1_server_deadline(&down_of(s)->h);
}

static inline void down_close(struct ag_stream *s, enum ag_reason why)
{
    ag_h1_server_closed(&down_of(s)->h, why);
    down_of(s)->open = false;
}

static const struct ag_stream_user down_user = {.on_data = down_data,
                                                .on_eof = down_eof,
                                                .on_drain = down_drain,
                                                .on_deadline = down_deadline,
                                                .on_close = down_close};

static inline void pipe_start(struct ag_exchange *ex)
{
    the_world->ex = ex;
    ex->action = &the_world->action;
    ag_exchange_hold(ex);
    ex->action->ops->start(ex);
}

static inline void pipe_resume(struct ag_exchange *ex, int verdict)
{
    (void)ex;
    (void)verdict;
}

static inline void pipe_respond(struct ag_exchange *ex)
{
    ex->head_sent = true;
    ex->server->send_head(ex);
}

static inline void pipe_abort(struct ag_exchange *ex, enum ag_reason why)
{
    const struct ag_action *action = ex->action;

    ex->action = NULL;
    if (action) {
        action->ops->abort(ex, why);
    }
}

static inline void pipe_done(struct ag_exchange *ex)
{
    (void)ex;
}

static const struct ag_pipeline_ops pipe_ops = {.start = pipe_start,
                                                .resume = pipe_resume,
                                                .respond = pipe_respond,
                                                .abort = pipe_abort,
                                                .done = pipe_done};

static const struct ag_server_limits server_limits = {
    .head = {8192, 32768, 100},
    .header_timeout_ms = 30000,
    .idle_timeout_ms = 30000,
    .discard_max_bytes = 65536,
    .route = AG_ROUTE_LIMITS_DEFAULT,
};

static inline struct world *world_new(enum ag_backend_kind kind)
{
    const struct ag_loop_config config = {.backend = kind,
                                          .ring_entries = 256,
                                          .buf_count = {512, 64},
                                          .node_count = 8192,
                                          .page_count = 256};
    struct world *w = calloc(1, sizeof(*w));
    const char *why = "";

    cr_assert(w);
    the_world = w;
    w->fds = count_fds();
    cr_assert(ag_loop_init(&w->loop, &config, &why) == AG_OK, "%s", why);
    cr_assert_eq(ag_resolver_init(&w->loop), AG_OK);
    w->ctx.loop = &w->loop;
    w->ctx.pipeline = &pipe_ops;
    ag_arena_init(&w->arena, NULL, 0);
    ag_diags_init(&w->diags, &w->arena);
    cr_assert_eq(ag_action_proxy.shard_open(&w->ctx, &w->ctx.action_state[AG_ACTION_PROXY]), AG_OK);
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        w->clients[i].fd = -1;
    }
    return w;
}

/* Settings of one route to `authority`; the caller may change them before the first request. */
static inline struct ag_proxy_settings *route_to(struct world *w, const char *authority)
{
    struct ag_action_build build = {.arena = &w->arena, .diags = &w->diags};
    const struct ag_action_decl decl = {
        .kind = AG_ACTION_PROXY,
        .scheme = AG_SPAN("http"),
        .authority = ag_span_str(ag_arena_strdup(&w->arena, ag_span_str(authority)))};
    const void *settings = NULL;

    cr_assert_eq(ag_action_proxy.configure_section(&build), AG_OK);
    cr_assert_eq(ag_action_proxy.configure(&build, &decl, &settings), AG_OK);
    w->action = (struct ag_action){&ag_action_proxy, settings, build.shared[AG_ACTION_PROXY]};
    return (struct ag_proxy_settings *)(uintptr_t)settings;
}

/* A fake upstream, pumped with the rest; `wire` as in struct fake. */
static inline struct fake *fake_new(struct world *w, const char *wire)
{
    struct fake *f = calloc(1, sizeof(*f));

    cr_assert(f && w->fake_count < AG_COUNT(w->fakes));
    fake_open(f, wire);
    w->fakes[w->fake_count++] = f;
    return f;
}

static inline struct ag_proxy_settings *route_to_fake(struct world *w, const struct fake *f)
{
    char authority[64];

    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u", f->port);
    return route_to(w, authority);
}

/* Options of the route's upstream, for the test to change. */
static inline struct ag_upstream_options *options_of(struct ag_proxy_settings *s)
{
    return (struct ag_upstream_options *)(uintptr_t)&s->upstream->options;
}

static inline struct client *client_new(struct world *w)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (w->clients[i].fd < 0 && !w->downs[i].open) {
            struct client *c = &w->clients[i];
            int pair[2];

            make_tcp_pair(pair);
            free(c->got);
            *c = (struct client){.fd = pair[0], .got = malloc(WIRE_MAX)};
            cr_assert(c->got);
            w->downs[i].open = true;
            ag_conn_accept(&w->downs[i].conn, &w->loop, pair[1], &down_user);
            ag_h1_server_init(&w->downs[i].h, &w->downs[i].conn.stream, &w->ctx, &server_limits,
                              8080);
            return c;
        }
    }
    cr_assert(false, "too many clients");
    return NULL;
}

static inline void client_close(struct client *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
        c->fd = -1;
    }
}

static inline void client_send(struct client *c, const char *text)
{
    cr_assert_eq(write(c->fd, text, strlen(text)), (ssize_t)strlen(text));
}

static inline void client_pull(struct client *c)
{
    while (c->fd >= 0 && !c->eof && !c->reset && c->len < WIRE_MAX) {
        ssize_t n = read(c->fd, c->got + c->len, WIRE_MAX - c->len);
        if (n > 0) {
            c->len += (size_t)n;
        } else {
            c->eof = n == 0;
            c->reset = n < 0 && errno == ECONNRESET;
            return;
        }
    }
}

/* One turn of everything. */
static inline void world_turn(struct world *w)
{
    ag_loop_turn(&w->loop, 1);
    for (unsigned i = 0; i < w->fake_count; i++) {
        fake_pump(w->fakes[i]);
    }
}

#define world_until(w, cond)                                                 \
    do {                                                                     \
        for (unsigned turns_ = 0; !(cond) && turns_ < TURNS_MAX; turns_++) { \
            world_turn(w);                                                   \
        }                                                                    \
        cr_assert(cond, "never came: %s", #cond);                            \
    } while (0)

static inline void world_settle(struct world *w)
{
    for (unsigned i = 0; i < 30; i++) {
        world_turn(w);
    }
}

static inline bool client_has(struct client *c, const char *text)
{
    client_pull(c);
    return c->len > 0 && memmem(c->got, c->len, text, strlen(text)) != NULL;
}

static inline bool client_over(struct client *c)
{
    client_pull(c);
    return c->eof || c->reset;
}

/* Sends and waits until the answer ends in `end`. */
static inline void ask(struct world *w, struct client *c, const char *request, const char *end)
{
    c->len = 0;
    client_send(c, request);
    world_until(w, client_has(c, end) || client_over(c));
    cr_assert(client_has(c, end), "%.*s", (int)c->len, (const char *)c->got);
}

static inline struct ag_upstreams *upstreams_of(struct world *w)
{
    return w->ctx.action_state[AG_ACTION_PROXY];
}

static inline bool downs_closed(const struct world *w)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (w->downs[i].open) {
            return false;
        }
    }
    return true;
}

/* Nothing may be left but idle upstream connections, which the shard's end closes. */
static inline void world_free(struct world *w)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        client_close(&w->clients[i]);
        free(w->clients[i].got);
    }
    world_until(w, downs_closed(w));
    world_settle(w);
    cr_expect_eq(w->ctx.exchanges_live, 0);
    ag_action_proxy.shard_close(&w->ctx, upstreams_of(w));
    for (unsigned i = 0; i < w->fake_count; i++) {
        fake_close(w->fakes[i]);
        free(w->fakes[i]);
    }
    ag_resolver_deinit(&w->loop);
    cr_expect_eq(ag_loop_bufs_used(&w->loop, AG_BUF_SMALL), 0);
    cr_expect_eq(ag_loop_bufs_used(&w->loop, AG_BUF_LARGE), 0);
    cr_expect_eq(w->loop.nodes.used, 0);
    cr_expect_eq(w->loop.pages.used, 0);
    ag_loop_deinit(&w->loop);
    ag_arena_release(&w->arena);
    cr_expect_eq(count_fds(), w->fds);
    free(w);
}
