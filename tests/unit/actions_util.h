/*
 * actions_util: one action on a real loop, between a pipeline that runs nothing else and a server that
 * writes down what it is given.
 */
#pragma once
#include "actions/action.h"
#include "proto/h2_fields.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define ANSWER_BODY_MAX (4u << 20)

struct answer {
    unsigned status;
    char head[8192]; /* "Name: value\n" ... of fields; framing as Content-Length */
    uint8_t *body;
    size_t body_len;
    int heads;      /* final heads given; must be 1 */
    bool prepared;  /* came by send_prepared */
    bool complete;  /* the content ended */
    bool broken;    /* the content was aborted, or the stream reset */
    bool wanted;    /* want_body was called */
    uint8_t reason; /* of the abort */
    bool hold_back; /* the test takes no content for now */
    bool is_head;   /* the request's method is HEAD */
};

struct fake {
    struct ag_loop loop;
    struct ag_context ctx;
    struct ag_arena arena; /* malloc: the "snapshot" */
    struct ag_diags diags;
    struct ag_node *config;
    struct ag_action_build build;
    struct answer answer;
    const struct ag_action_ops *ops;
    int fds; /* open before the test */
};

struct fake_route {
    struct ag_action action;
    struct ag_param_spec params[AG_PARAMS_MAX];
    uint16_t param_count;
    struct ag_action_decl decl;
};

/* ---- the server ---- */

static inline void fake_take(struct ag_body *b, void *owner)
{
    struct ag_exchange *ex = owner;
    struct answer *a = ex->server_stream;

    while (!a->hold_back && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);
        cr_assert(a->body_len + s.len <= ANSWER_BODY_MAX);
        if (ag_slice_is_file(&s)) {
            ssize_t n = pread(s.owner->fd, a->body + a->body_len, s.len, (off_t)s.offset);
            cr_assert(n == (ssize_t)s.len);
        } else {
            memcpy(a->body + a->body_len, s.ptr, s.len);
        }
        a->body_len += s.len;
        ag_slice_release(&s);
    }
    if (b->q.bytes == 0 && b->aborted) {
        a->broken = true;
        a->reason = b->reason;
    }
    if (b->q.bytes == 0 && ag_body_at_end(b)) {
        a->complete = true;
    }
}

static inline bool fake_has_content(const struct answer *a)
{
    return !a->is_head && a->status != 204 && a->status != 304;
}

static inline void fake_send_head(struct ag_exchange *ex)
{
    struct answer *a = ex->server_stream;
    size_t n = 0;

    ex->head_sent = true;
    a->heads++;
    a->status = ex->res.status;
    a->is_head = ex->req.method == AG_METHOD_HEAD;
    for (uint16_t i = 0; i < ex->res.fields.count; i++) {
        const struct ag_field *f = &ex->res.fields.v[i];
        if (!f->removed) {
            n += (size_t)snprintf(a->head + n, sizeof(a->head) - n, "%.*s: %.*s\n", f->name_len,
                                  (const char *)f->name, (int)f->value_len, (const char *)f->value);
            cr_assert(n < sizeof(a->head));
        }
    }
    if (ex->res.framing == AG_FRAMING_LENGTH) {
        (void)snprintf(a->head + n, sizeof(a->head) - n, "Content-Length: %llu\n",
                       (unsigned long long)ex->res.content_length);
    }
    if (!fake_has_content(a)) {
        ag_body_discard(ex->res_source);
        a->complete = true;
        return;
    }
    ag_body_set_consumer(ex->res_source, fake_take, ex);
}

/* The form for HTTP/2 says what `head` does, on a connection where nothing was said before. */
static inline void fake_check_h2(const struct ag_prepared *p, const char *head)
{
    const struct ag_h1_limits limits = AG_H1_LIMITS_DEFAULT;
    struct ag_h2_field_error e = {0};
    struct ag_hpack_decoder d;
    struct ag_response res = {0};
    struct ag_arena arena;

    ag_arena_init(&arena, NULL, 0);
    ag_hpack_decoder_init(&d, &arena);
    cr_assert(ag_h2_read_response(&d, p->h2, &limits, AG_METHOD_GET, &res, &arena, &e) == AG_OK,
              "%s", e.why);
    cr_assert(res.status == p->status && d.table.count == 0);
    for (uint16_t i = 0; i < res.fields.count; i++) {
        struct ag_span line = ag_span(head, strcspn(head, "\n"));
        struct ag_span name = ag_field_key(&res.fields.v[i]);

        cr_assert(line.len > name.len + 2 && ag_span_ieq(ag_span_sub(line, 0, name.len), name) &&
                      ag_span_eq(ag_span_sub(line, name.len + 2, line.len),
                                 ag_field_value(&res.fields.v[i])),
                  "%s", head);
        head += line.len + 1;
    }
    cr_assert(*head == 0, "%s", head);
    ag_arena_release(&arena);
}

static inline void fake_send_prepared(struct ag_exchange *ex, const struct ag_prepared *p)
{
    struct answer *a = ex->server_stream;
    size_t n = 0, from = ag_span_find(p->h1, '\n') + 1;

    a->heads++;
    a->prepared = true;
    a->status = p->status;
    a->is_head = ex->req.method == AG_METHOD_HEAD;
    cr_assert(p->h1.len > 2 && memcmp(p->h1.ptr + p->h1.len - 2, "\r\n", 2) == 0);
    cr_assert(strncmp((const char *)p->h1.ptr, "HTTP/1.1 ", 9) == 0);
    cr_assert(strtoul((const char *)p->h1.ptr + 9, NULL, 10) == p->status);
    for (size_t i = from; i < p->h1.len; i++) {
        if (p->h1.ptr[i] != '\r') {
            a->head[n++] = (char)p->h1.ptr[i];
        }
    }
    a->head[n] = 0;
    fake_check_h2(p, a->head);
    if (fake_has_content(a) && p->body.len) {
        memcpy(a->body, p->body.ptr, p->body.len);
        a->body_len = p->body.len;
    }
    a->complete = true;
}

static inline void fake_want_body(struct ag_exchange *ex)
{
    ((struct answer *)ex->server_stream)->wanted = true;
}

static inline void fake_remote(struct ag_exchange *ex, union ag_addr *out)
{
    (void)ex;
    memset(out, 0, sizeof(*out));
    out->sa.sa_family = AF_INET;
    out->in.sin_port = htons(4711);
    out->in.sin_addr.s_addr = htonl(0xC0000201); /* 192.0.2.1 */
}

static inline void fake_reset(struct ag_exchange *ex, enum ag_reason why)
{
    struct answer *a = ex->server_stream;

    a->broken = true;
    a->reason = (uint8_t)why;
}

static const struct ag_server_ops fake_server = {
    .send_head = fake_send_head,
    .send_prepared = fake_send_prepared,
    .want_body = fake_want_body,
    .remote = fake_remote,
    .reset = fake_reset,
};

/* ---- the pipeline ---- */

static inline void fake_respond(struct ag_exchange *ex)
{
    ex->server->send_head(ex);
}

static inline void fake_abort(struct ag_exchange *ex, enum ag_reason why)
{
    ex->action->ops->abort(ex, why);
}

static inline void fake_done(struct ag_exchange *ex)
{
    (void)ex;
}

static const struct ag_pipeline_ops fake_pipeline = {
    .respond = fake_respond, .abort = fake_abort, .done = fake_done};

/* ---- set up ---- */

/* Sets "a.b" to a scalar; "a.b[]" appends to a list. */
static inline void fake_set(struct fake *f, struct ag_node *at, const char *key, const char *value)
{
    size_t len = strcspn(key, ".[");
    char name[64];
    struct ag_node *node;
    enum ag_node_kind kind = key[len] == '.'   ? AG_NODE_MAP
                             : key[len] == '[' ? AG_NODE_SEQ
                                               : AG_NODE_SCALAR;

    memcpy(name, key, len);
    name[len] = 0;
    node = (struct ag_node *)(uintptr_t)ag_node_get(at, name);
    if (!node) {
        node = ag_node_new(&f->arena, kind, (struct ag_pos){0});
        node->key = ag_arena_copy(&f->arena, ag_span_str(name));
        ag_node_append(at, node);
    }
    if (kind == AG_NODE_MAP) {
        fake_set(f, node, key + len + 1, value);
    } else if (kind == AG_NODE_SEQ) {
        struct ag_node *element = ag_node_new(&f->arena, AG_NODE_SCALAR, (struct ag_pos){0});
        element->text = ag_arena_copy(&f->arena, ag_span_str(value));
        ag_node_append(node, element);
    } else {
        node->text = ag_arena_copy(&f->arena, ag_span_str(value));
    }
}

static inline int fake_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static inline struct fake *fake_new(const struct ag_action_ops *ops)
{
    struct fake *f = calloc(1, sizeof(*f));
    struct ag_loop_config config = {.backend = AG_BACKEND_EPOLL,
                                    .ring_entries = 64,
                                    .buf_count = {64, 16},
                                    .node_count = 1024,
                                    .page_count = 256};
    const char *why = NULL;

    cr_assert(f != NULL);
    f->fds = fake_fds();
    cr_assert(ag_loop_init(&f->loop, &config, &why) == AG_OK, "%s", why);
    ag_loop_turn(&f->loop, 0);
    ag_arena_init(&f->arena, NULL, 0);
    ag_diags_init(&f->diags, &f->arena);
    f->config = ag_node_new(&f->arena, AG_NODE_MAP, (struct ag_pos){0});
    f->ctx.loop = &f->loop;
    f->ctx.pipeline = &fake_pipeline;
    f->ops = ops;
    f->answer.body = malloc(ANSWER_BODY_MAX);
    f->build = (struct ag_action_build){
        .arena = &f->arena, .diags = &f->diags, .config = f->config, .base_dir = "."};
    return f;
}

/* After all of the config was set. */
static inline enum ag_status fake_section(struct fake *f)
{
    f->build.config = f->config;
    if (f->ops->shard_open && !f->ctx.action_state[f->ops->kind]) {
        cr_assert(f->ops->shard_open(&f->ctx, &f->ctx.action_state[f->ops->kind]) == AG_OK);
    }
    return f->ops->configure_section ? f->ops->configure_section(&f->build) : AG_OK;
}

static inline void fake_free(struct fake *f)
{
    for (int i = 0; i < 3; i++) {
        ag_loop_turn(&f->loop, 0);
    }
    cr_expect(f->ctx.exchanges_live == 0, "an exchange is still held");
    if (f->ops->shard_close) {
        f->ops->shard_close(&f->ctx, f->ctx.action_state[f->ops->kind]);
    }
    if (f->ops->release_section && f->build.shared[f->ops->kind]) {
        f->ops->release_section(f->build.shared[f->ops->kind]);
    }
    cr_expect(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL) == 0, "a small buffer is still held");
    cr_expect(ag_loop_bufs_used(&f->loop, AG_BUF_LARGE) == 0, "a large buffer is still held");
    cr_expect(f->loop.nodes.used == 0 && f->loop.files.used == 0, "a slice or file is still held");
    ag_loop_deinit(&f->loop);
    cr_expect(fake_fds() == f->fds, "%d descriptors are left open", fake_fds() - f->fds);
    ag_arena_release(&f->arena);
    free(f->answer.body);
    free(f);
}

/* ---- routes ---- */

/* Parameters of a pattern such as "/a/:id". */
static inline void fake_pattern(struct fake *f, struct fake_route *r, const char *pattern)
{
    const char *at = pattern + strcspn(pattern, "/");
    uint16_t segment = 0;

    r->param_count = 0;
    while (*at == '/') {
        size_t len = strcspn(++at, "/");
        if (*at == ':' || *at == '*') {
            r->params[r->param_count++] =
                (struct ag_param_spec){ag_span(at + 1, len - 1), segment, *at == '*'};
        }
        at += len;
        segment++;
    }
    f->build.params = r->params;
    f->build.param_count = r->param_count;
    f->build.pattern = ag_span_str(pattern);
    f->build.pattern_has_splat = strchr(pattern, '*') != NULL;
}

/* Splits a target such as "/x/:id" into parts against the route's parameters. */
static inline void fake_target(struct fake *f, struct fake_route *r, const char *text)
{
    struct ag_template_part *parts = ag_arena_zalloc(&f->arena, sizeof(*parts) * 32);
    uint16_t n = 0;
    const char *from = text;

    for (const char *at = text; *at; at++) {
        if ((*at == ':' || *at == '*') && at > text && at[-1] == '/') {
            size_t len = strcspn(at, "/?#");
            parts[n++] = (struct ag_template_part){ag_span(from, (size_t)(at - from)), -1};
            for (uint16_t i = 0; i < r->param_count; i++) {
                if (*at == '*' ? r->params[i].splat
                               : ag_span_eq(r->params[i].name, ag_span(at + 1, len - 1))) {
                    parts[n++] = (struct ag_template_part){.param = (int16_t)i};
                }
            }
            r->decl.has_params = true;
            from = at + len;
            at = from - 1;
        }
    }
    if (*from) {
        parts[n++] = (struct ag_template_part){ag_span_str(from), -1};
    }
    r->decl.path = ag_span_str(text);
    r->decl.has_path = true;
    r->decl.target = (struct ag_template){parts, n};
}

static inline enum ag_status fake_configure(struct fake *f, struct fake_route *r)
{
    r->decl.kind = f->ops->kind;
    r->action.ops = f->ops;
    r->action.shared = f->build.shared[f->ops->kind];
    return f->ops->configure(&f->build, &r->decl, &r->action.settings);
}

/* ---- requests ---- */

/* Fields: "Name: value\n" ... */
static inline void fake_fields(struct ag_exchange *ex, const char *fields)
{
    while (fields && *fields) {
        size_t len = strcspn(fields, "\n"), colon = strcspn(fields, ":");
        struct ag_span name = ag_span(fields, colon);
        struct ag_span value = ag_span_trim(ag_span(fields + colon + 1, len - colon - 1));
        cr_assert(ag_fields_add(&ex->req.fields, &ex->arena, ag_field_id_from_name(name), name,
                                value) == AG_OK);
        fields += len + (fields[len] == '\n');
    }
}

/* Begins a request "GET /path?query"; the exchange is the server's to complete. */
static inline struct ag_exchange *fake_begin(struct fake *f, const struct fake_route *r,
                                             const char *line, const char *fields)
{
    struct ag_exchange *ex;
    const char *target = strchr(line, ' ') + 1;
    size_t path_len = strcspn(target, "?");
    uint8_t *body = f->answer.body;
    bool hold_back = f->answer.hold_back;

    f->answer = (struct answer){.body = body, .hold_back = hold_back};
    ex = ag_exchange_new(&f->ctx, &fake_server, &f->answer);
    cr_assert(ex != NULL);
    ex->req.method_name = ag_span(line, strcspn(line, " "));
    ex->req.method = (uint8_t)ag_method_from_name(ex->req.method_name);
    ex->req.path = ag_span(target, path_len);
    ex->req.has_query = target[path_len] == '?';
    if (ex->req.has_query) {
        ex->req.query = ag_span_str(target + path_len + 1);
    }
    ex->req.version = AG_HTTP_11;
    fake_fields(ex, fields);
    ex->action = &r->action;
    ex->params = r->params;
    ex->param_count = r->param_count;
    return ex;
}

static inline void fake_start(struct ag_exchange *ex)
{
    ag_exchange_hold(ex);
    ex->action->ops->start(ex);
}

/* Turns until the answer is through; a turn waits for helper threads only. */
static inline void fake_run(struct fake *f)
{
    for (int i = 0; i < 2000 && !f->answer.complete && !f->answer.broken; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    cr_assert(f->answer.complete || f->answer.broken, "no answer came");
}

static inline void fake_end(struct fake *f, struct ag_exchange *ex)
{
    uint64_t others = f->ctx.exchanges_live - 1;

    if (f->answer.complete) {
        if (!ex->head_sent) {
            ex->head_sent = true;
        }
        ag_exchange_complete(ex);
    } else {
        ag_exchange_abort(ex, AG_REASON_RESET);
    }
    for (int i = 0; i < 100 && f->ctx.exchanges_live > others; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    cr_assert(f->ctx.exchanges_live == others, "the exchange is still held");
}

/* A whole request without content; the answer is in f->answer. */
static inline const struct answer *fake_ask(struct fake *f, const struct fake_route *r,
                                            const char *line, const char *fields)
{
    struct ag_exchange *ex = fake_begin(f, r, line, fields);

    ag_body_end(&ex->req_body, NULL);
    fake_start(ex);
    fake_run(f);
    cr_assert(f->answer.heads == 1, "%d heads", f->answer.heads);
    fake_end(f, ex);
    return &f->answer;
}

/* The value of a field of the answer, or NULL. */
static inline const char *fake_field(const struct answer *a, const char *name)
{
    static char value[8192];
    size_t len = strlen(name);

    for (const char *at = a->head; *at; at += strcspn(at, "\n") + 1) {
        if (strncasecmp(at, name, len) == 0 && at[len] == ':') {
            size_t n = strcspn(at + len + 2, "\n");
            memcpy(value, at + len + 2, n);
            value[n] = 0;
            return value;
        }
    }
    return NULL;
}

static inline void expect_field_at(const struct answer *a, const char *name, const char *want,
                                   int line)
{
    const char *got = fake_field(a, name);

    cr_expect(got && strcmp(got, want) == 0, "line %d: %s: %s", line, name, got ? got : "none");
}

static inline void expect_body_at(const struct answer *a, const char *want, int line)
{
    cr_expect(a->body_len == strlen(want) && memcmp(a->body, want, a->body_len) == 0,
              "line %d: %.*s", line, (int)a->body_len, (const char *)a->body);
}

#define expect_field(a, name, want) expect_field_at(a, name, want, __LINE__)
#define expect_body(a, want)        expect_body_at(a, want, __LINE__)
