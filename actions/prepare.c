#include "actions/prepare.h"

#include "proto/h2_fields.h"

/* Of what a static file's head comes to at most, but for odd types. */
#define H2_ROOM_BYTES 1024u

bool ag_status_has_no_content(unsigned status)
{
    return status == 204 || status == 205 || status == 304;
}

static const struct ag_span colon = AG_SPAN_INIT(": "), line_end = AG_SPAN_INIT("\r\n"),
                            length_name = AG_SPAN_INIT("Content-Length: ");

static struct ag_span digits_of(uint64_t value, uint8_t room[static 20])
{
    struct ag_buf b = ag_buf(room, 20);

    ag_buf_put_u64(&b, value);
    return ag_buf_span(&b);
}

size_t ag_prepare_measure(const struct ag_response *res)
{
    uint8_t digits[20];
    size_t n = strlen("HTTP/1.1 200 ") + ag_status_phrase(res->status).len + line_end.len;

    for (uint16_t i = 0; i < res->fields.count; i++) {
        const struct ag_field *f = &res->fields.v[i];
        n += f->name_len + colon.len + f->value_len + line_end.len;
    }
    if (res->framing == AG_FRAMING_LENGTH) {
        n += length_name.len + digits_of(res->content_length, digits).len + line_end.len;
    }
    return n;
}

void ag_prepare_write(const struct ag_response *res, struct ag_buf *out)
{
    uint8_t digits[20];

    AG_ASSERT(res->framing == AG_FRAMING_NONE || res->framing == AG_FRAMING_LENGTH);
    AG_ASSERT(res->status >= 200 && res->status <= 999);
    ag_buf_put(out, AG_SPAN("HTTP/1.1 "));
    ag_buf_put_u64(out, res->status);
    ag_buf_putc(out, ' ');
    ag_buf_put(out, ag_status_phrase(res->status));
    ag_buf_put(out, line_end);
    for (uint16_t i = 0; i < res->fields.count; i++) {
        const struct ag_field *f = &res->fields.v[i];
        ag_buf_put(out, ag_field_key(f));
        ag_buf_put(out, colon);
        ag_buf_put(out, ag_field_value(f));
        ag_buf_put(out, line_end);
    }
    if (res->framing == AG_FRAMING_LENGTH) {
        ag_buf_put(out, length_name);
        ag_buf_put(out, digits_of(res->content_length, digits));
        ag_buf_put(out, line_end);
    }
}

struct ag_span ag_prepare_write_h2(const struct ag_response *res, struct ag_buf *out)
{
    uint8_t room[H2_ROOM_BYTES];
    struct ag_buf b = ag_buf(room, sizeof(room));
    size_t from = out->len;

    if (ag_h2_response_max(res) > sizeof(room)) {
        return (struct ag_span){NULL, 0};
    }
    ag_h2_prepare(&b, res);
    AG_ASSERT(!b.overflow);
    ag_buf_put(out, ag_buf_span(&b));
    return ag_span_sub(ag_buf_span(out), from, out->len);
}

void ag_prepare(struct ag_arena *arena, const struct ag_response *res, struct ag_span body,
                struct ag_prepared *out)
{
    size_t len = ag_prepare_measure(res);

    *out = (struct ag_prepared){.status = res->status, .body = body, .response = *res};
    if (len <= AG_PREPARED_HEAD_MAX) {
        struct ag_buf b = ag_buf(ag_arena_alloc(arena, len), len);
        ag_prepare_write(res, &b);
        AG_ASSERT(!b.overflow && b.len == len);
        out->h1 = ag_buf_span(&b);
        len = ag_h2_response_max(res);
        b = ag_buf(ag_arena_alloc(arena, len), len);
        ag_h2_prepare(&b, res);
        AG_ASSERT(!b.overflow);
        ag_arena_trim(arena, b.ptr, len, b.len);
        out->h2 = ag_buf_span(&b);
    }
}

static void respond_long(struct ag_exchange *ex, const struct ag_prepared *p)
{
    struct ag_slice body = {{.ptr = p->body.ptr}, p->body.len, ag_block_hold(ex->snapshot_ref)};

    ex->res = p->response;
    for (uint16_t i = 0; i < p->response.fields.count; i++) {
        const struct ag_field *f = &p->response.fields.v[i];
        if (i == 0) {
            ex->res.fields = (struct ag_fields){0}; /* a table of its own: filters may add to it */
        }
        if (ag_fields_add(&ex->res.fields, &ex->arena, f->id, ag_field_key(f), ag_field_value(f)) !=
            AG_OK) {
            ag_slice_release(&body);
            ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory for the answer");
            return;
        }
    }
    if (ag_body_write(&ex->res_body, body) == AG_OK) {
        ag_body_end(&ex->res_body, NULL);
    }
    ag_exchange_respond(ex);
}

void ag_prepared_respond(struct ag_exchange *ex, const struct ag_prepared *p)
{
    if (p->h1.len) {
        ag_exchange_respond_prepared(ex, p);
    } else {
        respond_long(ex, p);
    }
}
