/*
 * h2_fake.h: an upstream that speaks HTTP/2 on raw sockets, for tests of the proxy. What it does about a
 * request is its script's; without one each is answered with 200 and "ok".
 */
#pragma once
#include "proto/h2_fields.h"
#include "proto/h2_frame.h"
#include "tests/unit/proxying.h"

#define H2_FAKE_CONNS   16u
#define H2_FAKE_IN      (256u * 1024u)
#define H2_FAKE_STREAMS 64u

struct h2_fake;

struct h2_fake_conn {
    struct h2_fake *fake;
    int fd; /* -1: none */
    struct ag_arena tables;
    struct ag_hpack_decoder decoder;
    uint8_t in[H2_FAKE_IN];
    size_t len;
    bool magic; /* was read */
    bool eof;
    uint32_t last_id;
    unsigned requests, open, most_open;
    unsigned resets; /* that came */
    uint32_t reset_code, reset_id;
    unsigned goaways, pings;
    uint64_t content; /* bytes of DATA */
    unsigned ends;    /* END_STREAM that came in DATA */
};

struct h2_fake {
    int ls;
    uint16_t port;
    struct ag_h2_pair settings[4];
    unsigned setting_count;
    struct h2_fake_conn conns[H2_FAKE_CONNS];
    unsigned accepted, requests;
    /* A request's head; the answer is up to it. NULL: h2_answer(c, id). */
    void (*script)(struct h2_fake_conn *, uint32_t id, const struct ag_request *);
    void (*on_data)(struct h2_fake_conn *, uint32_t id, struct ag_span data, bool end);
    bool mute;       /* no SETTINGS */
    bool no_windows; /* what came is not given back */
    char head[4096]; /* the last request: "METHOD path protocol\nname: value\n..." */
};

static inline void h2_send(struct h2_fake_conn *c, enum ag_h2_type type, unsigned flags,
                           uint32_t id, struct ag_span payload)
{
    uint8_t frame[AG_H2_HEADER_BYTES + AG_H2_FRAME_DEFAULT];

    cr_assert_leq(payload.len, AG_H2_FRAME_DEFAULT);
    (void)ag_h2_put_header(frame, payload.len, type, flags, id);
    memcpy(frame + AG_H2_HEADER_BYTES, payload.ptr, payload.len);
    if (c->fd >= 0) {
        (void)!write(c->fd, frame, AG_H2_HEADER_BYTES + payload.len);
    }
}

static inline void h2_send_u32(struct h2_fake_conn *c, enum ag_h2_type type, uint32_t id,
                               uint32_t value)
{
    uint8_t payload[4];

    (void)ag_h2_put_u32(payload, value);
    h2_send(c, type, 0, id, ag_span(payload, 4));
}

/* "name: value\n" lines as literals. */
static inline void h2_send_fields(struct h2_fake_conn *c, uint32_t id, const char *text, bool end)
{
    uint8_t block[4096];
    size_t n = 0;

    while (*text) {
        const char *stop = strchr(text, '\n'), *colon = strchr(text + 1, ':');
        size_t name = (size_t)(colon - text), value = (size_t)(stop - colon - 2);

        cr_assert(name < 127 && value < 127 && n + name + value + 3 < sizeof(block));
        block[n++] = 0;
        block[n++] = (uint8_t)name;
        memcpy(block + n, text, name);
        n += name;
        block[n++] = (uint8_t)value;
        memcpy(block + n, colon + 2, value);
        n += value;
        text = stop + 1;
    }
    c->open -= end;
    h2_send(c, AG_H2_HEADERS, AG_H2_END_HEADERS | (end ? AG_H2_END_STREAM : 0), id,
            ag_span(block, n));
}

static inline void h2_send_data(struct h2_fake_conn *c, uint32_t id, const char *text, bool end)
{
    c->open -= end;
    h2_send(c, AG_H2_DATA, end ? AG_H2_END_STREAM : 0, id, ag_span_str(text));
}

static inline void h2_answer(struct h2_fake_conn *c, uint32_t id)
{
    h2_send_fields(c, id, ":status: 200\ncontent-length: 2\n", false);
    h2_send_data(c, id, "ok", true);
}

static inline void h2_refuse(struct h2_fake_conn *c, uint32_t id, enum ag_h2_error code)
{
    c->open--;
    h2_send_u32(c, AG_H2_RST_STREAM, id, code);
}

static inline void h2_send_goaway(struct h2_fake_conn *c, uint32_t last)
{
    uint8_t payload[8];

    (void)ag_h2_put_u32(ag_h2_put_u32(payload, last), AG_H2_NO_ERROR);
    h2_send(c, AG_H2_GOAWAY, 0, 0, ag_span(payload, 8));
}

static inline void h2_fake_hang_up(struct h2_fake_conn *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
        c->fd = -1;
        ag_arena_release(&c->tables);
    }
}

static inline struct h2_fake *h2_fake_new(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(in);
    struct h2_fake *f = calloc(1, sizeof(*f));

    cr_assert(f);
    f->ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(f->ls, (struct sockaddr *)&in, len), 0);
    cr_assert_eq(listen(f->ls, 64), 0);
    cr_assert_eq(getsockname(f->ls, (struct sockaddr *)&in, &len), 0);
    f->port = ntohs(in.sin_port);
    for (unsigned i = 0; i < H2_FAKE_CONNS; i++) {
        f->conns[i].fd = -1;
    }
    return f;
}

static inline void h2_fake_free(struct h2_fake *f)
{
    for (unsigned i = 0; i < H2_FAKE_CONNS; i++) {
        h2_fake_hang_up(&f->conns[i]);
    }
    (void)close(f->ls);
    free(f);
}

static inline unsigned h2_fake_open(const struct h2_fake *f)
{
    unsigned n = 0;

    for (unsigned i = 0; i < H2_FAKE_CONNS; i++) {
        n += f->conns[i].fd >= 0 && !f->conns[i].eof;
    }
    return n;
}

static inline void h2_fake_accept(struct h2_fake *f)
{
    int fd;

    while ((fd = accept4(f->ls, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct h2_fake_conn *c = f->conns;
        uint8_t payload[4 * AG_H2_SETTING_BYTES], *at = payload;
        int on = 1;

        while (c->fd >= 0) {
            c++;
            cr_assert(c < f->conns + H2_FAKE_CONNS);
        }
        memset(c, 0, offsetof(struct h2_fake_conn, in));
        memset(&c->len, 0, sizeof(*c) - offsetof(struct h2_fake_conn, len));
        cr_assert_eq(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
        c->fake = f;
        c->fd = fd;
        ag_arena_init(&c->tables, NULL, 0);
        ag_hpack_decoder_init(&c->decoder, &c->tables);
        f->accepted++;
        for (unsigned i = 0; i < f->setting_count; i++) {
            at = ag_h2_put_setting(at, f->settings[i].id, f->settings[i].value);
        }
        if (!f->mute) {
            h2_send(c, AG_H2_SETTINGS, 0, 0, ag_span(payload, (size_t)(at - payload)));
        }
    }
}

static inline void h2_fake_request(struct h2_fake_conn *c, const struct ag_h2_frame *frame,
                                   struct ag_span section)
{
    struct h2_fake *f = c->fake;
    struct ag_request req = {0};
    struct ag_h2_field_error error = {0};
    size_t n;

    if (frame->id <= c->last_id) { /* trailers */
        c->ends++;
        return;
    }
    cr_assert_eq(
        ag_h2_read_request(&c->decoder, section, &AG_H1_LIMITS_DEFAULT, &req, &c->tables, &error),
        AG_OK, "%s", error.why);
    c->last_id = frame->id;
    c->requests++;
    f->requests++;
    c->open++;
    c->most_open = c->open > c->most_open ? c->open : c->most_open;
    n = (size_t)snprintf(f->head, sizeof(f->head), "%.*s %.*s %.*s\n", (int)req.method_name.len,
                         (const char *)req.method_name.ptr, (int)req.target.len,
                         (const char *)req.target.ptr, (int)req.protocol.len,
                         (const char *)req.protocol.ptr);
    for (uint16_t i = 0; i < req.fields.count && n < sizeof(f->head); i++) {
        const struct ag_field *x = &req.fields.v[i];
        n += (size_t)snprintf(f->head + n, sizeof(f->head) - n, "%.*s: %.*s\n", (int)x->name_len,
                              (const char *)x->name, (int)x->value_len, (const char *)x->value);
    }
    if (f->script) {
        f->script(c, frame->id, &req);
    } else {
        h2_answer(c, frame->id);
    }
}

static inline void h2_fake_frame(struct h2_fake_conn *c, const struct ag_h2_frame *frame,
                                 struct ag_span payload)
{
    switch (frame->type) {
    case AG_H2_HEADERS:
        h2_fake_request(c, frame, payload);
        break;
    case AG_H2_DATA:
        c->content += payload.len;
        c->ends += frame->flags & AG_H2_END_STREAM;
        if (payload.len > 0 && !c->fake->no_windows) {
            h2_send_u32(c, AG_H2_WINDOW_UPDATE, 0, (uint32_t)payload.len);
            h2_send_u32(c, AG_H2_WINDOW_UPDATE, frame->id, (uint32_t)payload.len);
        }
        if (c->fake->on_data) {
            c->fake->on_data(c, frame->id, payload, frame->flags & AG_H2_END_STREAM);
        }
        break;
    case AG_H2_RST_STREAM:
        c->resets++;
        c->reset_code = ag_h2_u32(payload.ptr);
        c->reset_id = frame->id;
        c->open -= c->open > 0;
        break;
    case AG_H2_GOAWAY:
        c->goaways++;
        break;
    case AG_H2_PING:
        c->pings += !(frame->flags & AG_H2_ACK);
        if (!(frame->flags & AG_H2_ACK)) {
            h2_send(c, AG_H2_PING, AG_H2_ACK, 0, payload);
        }
        break;
    case AG_H2_SETTINGS:
        if (!(frame->flags & AG_H2_ACK) && !c->fake->mute) {
            h2_send(c, AG_H2_SETTINGS, AG_H2_ACK, 0, AG_SPAN(""));
        }
        break;
    default:
        break;
    }
}

static inline void h2_fake_read(struct h2_fake_conn *c)
{
    size_t at = 0;

    while (c->fd >= 0 && !c->eof && c->len < H2_FAKE_IN) {
        ssize_t n = read(c->fd, c->in + c->len, H2_FAKE_IN - c->len);
        if (n <= 0) {
            c->eof = n == 0 || errno != EAGAIN;
            break;
        }
        c->len += (size_t)n;
    }
    if (!c->magic && c->len >= AG_H2_MAGIC.len) {
        cr_assert(ag_span_eq(ag_span(c->in, AG_H2_MAGIC.len), AG_H2_MAGIC));
        c->magic = true;
        at = AG_H2_MAGIC.len;
    }
    while (c->fd >= 0 && c->magic && c->len - at >= AG_H2_HEADER_BYTES) {
        struct ag_h2_frame f = ag_h2_read_header(c->in + at);

        if (f.len > c->len - at - AG_H2_HEADER_BYTES) {
            break;
        }
        at += AG_H2_HEADER_BYTES + f.len;
        h2_fake_frame(c, &f, ag_span(c->in + at - f.len, f.len));
    }
    if (c->fd >= 0) {
        memmove(c->in, c->in + at, c->len - at);
        c->len -= at;
    }
}

static inline void h2_fake_pump(struct h2_fake *f)
{
    h2_fake_accept(f);
    for (unsigned i = 0; i < H2_FAKE_CONNS; i++) {
        h2_fake_read(&f->conns[i]);
    }
}

/* ---- with a gateway ---- */

static inline struct ag_proxy_settings *route_to_h2(struct world *w, const struct h2_fake *f)
{
    char authority[64];
    struct ag_proxy_settings *s;
    struct ag_upstream *up;

    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u", f->port);
    s = route_to(w, authority);
    up = (struct ag_upstream *)(uintptr_t)s->upstream;
    up->protocol = AG_UPSTREAM_H2C;
    return s;
}

/* One turn of all; `until` with a fake of HTTP/2 beside. */
#define h2_until(w, f, cond)                                                 \
    do {                                                                     \
        for (unsigned turns_ = 0; !(cond) && turns_ < TURNS_MAX; turns_++) { \
            world_turn(w);                                                   \
            h2_fake_pump(f);                                                 \
        }                                                                    \
        cr_assert(cond, "never came: %s", #cond);                            \
    } while (0)

static inline void h2_settle(struct world *w, struct h2_fake *f)
{
    for (unsigned i = 0; i < 30; i++) {
        world_turn(w);
        h2_fake_pump(f);
    }
}

/* Sends and waits until the answer ends in `end`. */
static inline void h2_ask(struct world *w, struct h2_fake *f, struct client *c, const char *request,
                          const char *end)
{
    c->len = 0;
    client_send(c, request);
    h2_until(w, f, client_has(c, end) || client_over(c));
    cr_assert(client_has(c, end), "%.*s", (int)c->len, (const char *)c->got);
}

static inline void h2_world_free(struct world *w, struct h2_fake *f)
{
    h2_fake_free(f);
    world_free(w);
}
