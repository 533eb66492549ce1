#include "proto/h2_memo.h"

#include "engine/poison.h"

/* What a message is read from, and what with. */
struct source {
    struct ag_hpack_decoder *d;
    struct ag_span block;
    const struct ag_h1_limits *limits;
    struct ag_arena *arena;
    struct ag_h2_field_error *out_error;
    enum ag_method method; /* a response's request's */
    bool again;            /* it is the section that came last */
};

/* Whether it is the section that came last. */
static inline bool has(const struct ag_h2_memo *m, const struct source *s)
{
    return m && s->block.len == m->block_len && s->d->table.changes == m->changes &&
           s->method == m->method && s->limits->line_max == m->limits.line_max &&
           s->limits->head_max == m->limits.head_max &&
           s->limits->field_max == m->limits.field_max &&
           memcmp(s->block.ptr, m->block, s->block.len) == 0;
}

/* ---- out of it ---- */

/* The text's copy, with `count` fields in *out, whose spans are the memo's yet. NULL: there is no room. */
static uint8_t *recall(const struct ag_h2_memo *m, uint16_t count, struct ag_fields *out,
                       struct ag_arena *arena)
{
    uint8_t *text = count <= out->cap ? ag_arena_alloc(arena, m->text_len) : NULL;

    if (text) {
        memcpy(text, m->text, m->text_len);
        memcpy(out->v, m->fields, count * sizeof(out->v[0]));
        out->count = count;
    }
    return text;
}

static bool recall_request(const struct ag_h2_memo *m, struct ag_request *out,
                           struct ag_arena *arena)
{
    struct ag_fields fields = out->fields;
    uint8_t *text = recall(m, m->request.fields.count, &fields, arena);
    bool tls = out->tls;

    if (!text) {
        return false;
    }
    *out = m->request;
    out->fields = fields;
    out->tls = tls;
    ag_request_rebase(out, m->text, m->text_len, text);
    return true;
}

static bool recall_response(const struct ag_h2_memo *m, struct ag_response *out,
                            struct ag_arena *arena)
{
    struct ag_fields fields = out->fields;
    uint8_t *text = recall(m, m->response.fields.count, &fields, arena);

    if (!text) {
        return false;
    }
    *out = m->response;
    out->fields = fields;
    ag_response_rebase(out, m->text, m->text_len, text);
    return true;
}

/* ---- into it ---- */

/* What there was before a section was read. */
struct before {
    uint64_t changes;
    const void *page;
    const uint8_t *at;
    const struct ag_field *room;
};

static struct before look(const struct source *s, const struct ag_fields *fields)
{
    return (struct before){s->d->table.changes, s->arena->first, s->arena->at, fields->v};
}

/* What comes next may be the same. */
static void await(struct ag_h2_memo *m, const struct source *s)
{
    m->changes = s->d->table.changes;
    m->limits = *s->limits;
    m->method = (uint8_t)s->method;
    m->kept = false;
    m->block_len = (uint16_t)s->block.len;
    memcpy(m->block, s->block.ptr, s->block.len);
}

/* A section was read. The second time its text and `fields` are copied, when all that reading took of the arena
 * lies in one piece: true, the message is to follow. */
static bool keep(struct ag_h2_memo *m, const struct source *s, const struct before *b,
                 const struct ag_fields *fields)
{
    const struct ag_arena *arena = s->arena;
    size_t len = (size_t)(arena->at - b->at);

    if (!m || s->d->table.changes != b->changes || s->block.len > sizeof(m->block)) {
        return false;
    }
    if (!s->again) {
        await(m, s);
        return false;
    }
    if (arena->first != b->page || fields->v != b->room || arena->wide[0] ||
        len - 1 >= sizeof(m->text) || fields->count > AG_H2_MEMO_FIELDS) {
        return false;
    }
    ag_unpoison((void *)(uintptr_t)b->at, len); /* what aligns its pieces, too */
    memcpy(m->text, b->at, len);
    m->text_len = (uint16_t)len;
    if (fields->count) {
        memcpy(m->fields, fields->v, fields->count * sizeof(m->fields[0]));
    }
    m->kept = true;
    return true;
}

static AG_NOINLINE enum ag_status read_request(struct ag_h2_memo *m, struct source s,
                                               struct ag_request *out)
{
    struct before b = look(&s, &out->fields);
    enum ag_status st = ag_h2_read_request(s.d, s.block, s.limits, out, s.arena, s.out_error);

    if (st == AG_OK && keep(m, &s, &b, &out->fields)) {
        m->request = *out;
        m->request.fields.v = m->fields;
        ag_request_rebase(&m->request, b.at, m->text_len, m->text);
    }
    return st;
}

static AG_NOINLINE enum ag_status read_response(struct ag_h2_memo *m, struct source s,
                                                struct ag_response *out)
{
    struct before b = look(&s, &out->fields);
    enum ag_status st =
        ag_h2_read_response(s.d, s.block, s.limits, s.method, out, s.arena, s.out_error);

    if (st == AG_OK && keep(m, &s, &b, &out->fields)) {
        m->response = *out;
        m->response.fields.v = m->fields;
        ag_response_rebase(&m->response, b.at, m->text_len, m->text);
    }
    return st;
}

/* ---- messages ---- */

/* NOLINTNEXTLINE(readability-function-size): those of ag_h2_read_request */
enum ag_status ag_h2_memo_request(struct ag_h2_memo *m, struct ag_hpack_decoder *d,
                                  struct ag_span block, const struct ag_h1_limits *limits,
                                  struct ag_request *out, struct ag_arena *arena,
                                  struct ag_h2_field_error *out_error)
{
    struct source s = {d, block, limits, arena, out_error, AG_METHOD_OTHER, false};

    s.again = has(m, &s);
    return s.again && m->kept && recall_request(m, out, arena) ? AG_OK : read_request(m, s, out);
}

/* NOLINTNEXTLINE(readability-function-size): those of ag_h2_read_response */
enum ag_status ag_h2_memo_response(struct ag_h2_memo *m, struct ag_hpack_decoder *d,
                                   struct ag_span block, const struct ag_h1_limits *limits,
                                   enum ag_method request_method, struct ag_response *out,
                                   struct ag_arena *arena, struct ag_h2_field_error *out_error)
{
    struct source s = {d, block, limits, arena, out_error, request_method, false};

    s.again = has(m, &s);
    return s.again && m->kept && recall_response(m, out, arena) ? AG_OK : read_response(m, s, out);
}
