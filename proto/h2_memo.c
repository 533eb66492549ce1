#include "proto/h2_memo.h"

#include "engine/poison.h"

static bool is_same(const struct ag_h2_memo *m, const struct ag_hpack_decoder *d,
                    struct ag_span block, const struct ag_h1_limits *limits)
{
    return block.len == m->block_len && d->table.changes == m->changes &&
           limits->line_max == m->limits.line_max && limits->head_max == m->limits.head_max &&
           limits->field_max == m->limits.field_max && memcmp(block.ptr, m->block, block.len) == 0;
}

/* False: there is no room. */
static bool recall(const struct ag_h2_memo *m, struct ag_request *out, struct ag_arena *arena)
{
    struct ag_fields fields = {out->fields.v, m->request.fields.count, out->fields.cap};
    bool tls = out->tls;
    uint8_t *text;

    if (fields.count > fields.cap) {
        return false;
    }
    text = ag_arena_alloc(arena, m->text_len);
    if (!text) {
        return false;
    }
    memcpy(text, m->text, m->text_len);
    memcpy(fields.v, m->fields, fields.count * sizeof(fields.v[0]));
    *out = m->request;
    out->fields = fields;
    out->tls = tls;
    ag_request_rebase(out, m->text, m->text_len, text);
    return true;
}

/* What comes next may be the same. */
static void await(struct ag_h2_memo *m, const struct ag_hpack_decoder *d, struct ag_span block,
                  const struct ag_h1_limits *limits)
{
    m->changes = d->table.changes;
    m->limits = *limits;
    m->kept = false;
    m->block_len = (uint16_t)block.len;
    memcpy(m->block, block.ptr, block.len);
}

/* `text` is all that reading took of the arena. */
static void keep(struct ag_h2_memo *m, const struct ag_request *req, struct ag_span text)
{
    m->request = *req;
    m->request.fields.v = m->fields;
    memcpy(m->fields, req->fields.v, req->fields.count * sizeof(m->fields[0]));
    m->text_len = (uint16_t)text.len;
    ag_unpoison((void *)(uintptr_t)text.ptr, text.len); /* what aligns its pieces, too */
    memcpy(m->text, text.ptr, text.len);
    ag_request_rebase(&m->request, text.ptr, text.len, m->text);
    m->kept = true;
}

/* NOLINTNEXTLINE(readability-function-size): those of ag_h2_read_request */
enum ag_status ag_h2_memo_read(struct ag_h2_memo *m, struct ag_hpack_decoder *d,
                               struct ag_span block, const struct ag_h1_limits *limits,
                               struct ag_request *out, struct ag_arena *arena,
                               struct ag_h2_field_error *out_error)
{
    bool same = m && is_same(m, d, block, limits);
    uint64_t changes = d->table.changes;
    const struct ag_field *room = out->fields.v;
    const void *page = arena->first;
    const uint8_t *from = arena->at;
    enum ag_status st;

    if (same && m->kept && recall(m, out, arena)) {
        return AG_OK;
    }
    st = ag_h2_read_request(d, block, limits, out, arena, out_error);
    if (!m || st != AG_OK || d->table.changes != changes || block.len > sizeof(m->block)) {
        return st;
    }
    if (!same) {
        await(m, d, block, limits);
    } else if (arena->first == page && out->fields.v == room && !arena->wide[0] &&
               arena->at > from && (size_t)(arena->at - from) <= sizeof(m->text) &&
               out->fields.count <= AG_H2_MEMO_FIELDS) {
        keep(m, out, ag_span(from, (size_t)(arena->at - from)));
    }
    return st;
}
