#include "actions/location.h"

bool ag_location_begin(struct ag_location *l, struct ag_exchange *ex, size_t bound)
{
    *l = (struct ag_location){0};
    if (bound <= AG_ARENA_ALLOC_MAX / 4) { /* a longer one would waste pages of the arena */
        l->buf = ag_buf(ag_arena_alloc(&ex->arena, bound), bound);
        return l->buf.ptr != NULL;
    }
    if (bound > AG_BUF_LARGE_BYTES) {
        return false;
    }
    l->block =
        ag_loop_buf(ex->context->loop, bound <= AG_BUF_SMALL_BYTES ? AG_BUF_SMALL : AG_BUF_LARGE);
    if (!l->block) {
        return false;
    }
    l->buf = ag_buf(l->block->data, bound);
    return true;
}

void ag_location_put(struct ag_location *l, struct ag_span text)
{
    ag_buf_put(&l->buf, text);
}

/* pchar, "/" and "%" (which begins an escape that was checked). */
static bool is_path_byte(uint8_t ch)
{
    if ((ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z')) {
        return true;
    }
    return ch && strchr("-._~!$&'()*+,;=:@/%", ch);
}

void ag_location_put_path(struct ag_location *l, struct ag_span path)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < path.len; i++) {
        uint8_t ch = path.ptr[i];
        if (is_path_byte(ch)) {
            ag_buf_putc(&l->buf, ch);
        } else {
            uint8_t escape[3] = {'%', (uint8_t)hex[ch >> 4], (uint8_t)hex[ch & 15]};
            ag_buf_put(&l->buf, ag_span(escape, sizeof(escape)));
        }
    }
}

size_t ag_location_path_bound(struct ag_span path)
{
    return path.len * 3;
}

void ag_location_put_query(struct ag_location *l, const struct ag_exchange *ex, uint8_t joint)
{
    if (ex->req.has_query && ex->req.query.len) {
        if (joint) {
            ag_buf_putc(&l->buf, joint);
        }
        ag_buf_put(&l->buf, ex->req.query);
    }
}

void ag_location_respond(struct ag_location *l, struct ag_exchange *ex, unsigned status)
{
    struct ag_span value = ag_buf_span(&l->buf);

    AG_ASSERT(!l->buf.overflow && value.len > 0);
    while (value.len > 1 && value.ptr[0] == '/' && (value.ptr[1] == '/' || value.ptr[1] == '\\')) {
        value = ag_span(value.ptr + 1, value.len - 1);
        if (value.ptr[0] == '\\') {
            l->buf.ptr[l->buf.len - value.len] = '/';
        }
    }
    ex->res.status = status;
    ex->res.framing = AG_FRAMING_LENGTH;
    ex->res.content_length = 0;
    if (ag_exchange_field(ex, AG_FIELD_LOCATION, value) != AG_OK) {
        ag_block_release(l->block);
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "no memory for the answer");
        return;
    }
    if (l->block) { /* the value lies in it */
        ag_block_release(ex->res_owner);
        ex->res_owner = l->block;
    }
    ag_body_end(&ex->res_body, NULL);
    ag_exchange_respond(ex);
}
