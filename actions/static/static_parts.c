#include "actions/static/static_parts.h"

#include "actions/mime.h"
#include "engine/siphash.h"

#define HEAD_MAX \
    (4u + AG_BOUNDARY_LEN + 2u + 14u + AG_MIME_TYPE_MAX + 2u + 15u + AG_CONTENT_RANGE_MAX + 4u)
#define LAST_LINE_LEN (4u + AG_BOUNDARY_LEN + 4u)
_Static_assert(AG_RANGES_MAX *HEAD_MAX + LAST_LINE_LEN <= AG_BUF_SMALL_BYTES,
               "a small buffer takes all heads");

/* Who puts a file there must not know under which boundary it will be sent; and what the loop draws is not told. */
static void put_boundary(struct ag_loop *l, struct ag_buf *out)
{
    const uint64_t key[2] = {ag_loop_random(l), ag_loop_random(l)};
    uint8_t mac[AG_SIPHASH_MAC];
    uint64_t value;

    ag_siphash((const uint8_t *)key, AG_SPAN("boundary"), mac);
    memcpy(&value, mac, sizeof(value));
    ag_buf_put_hex(out, value | UINT64_C(1) << 63); /* so it has all its digits */
}

static void put_head(struct ag_buf *out, struct ag_span boundary, struct ag_span type,
                     const struct ag_range *r, uint64_t size_bytes)
{
    ag_buf_put(out, out->len ? AG_SPAN("\r\n--") : AG_SPAN("--"));
    ag_buf_put(out, boundary);
    ag_buf_put(out, AG_SPAN("\r\nContent-Type: "));
    ag_buf_put(out, type);
    ag_buf_put(out, AG_SPAN("\r\nContent-Range: "));
    ag_range_put_content_range(out, r->from, r->len, size_bytes);
    ag_buf_put(out, AG_SPAN("\r\n\r\n"));
}

enum ag_status ag_static_parts_begin(struct ag_exchange *ex, const struct ag_ranges *ranges,
                                     struct ag_span type, uint64_t size_bytes,
                                     struct ag_static_content *out, struct ag_buf *out_type)
{
    struct ag_static_parts *p = ag_arena_alloc(&ex->arena, sizeof(*p));
    struct ag_block *heads = p ? ag_loop_buf(ex->context->loop, AG_BUF_SMALL) : NULL;
    struct ag_span boundary;
    struct ag_buf b;

    if (!heads) {
        return AG_ENOMEM;
    }
    ag_buf_put(out_type, AG_SPAN("multipart/byteranges; boundary="));
    put_boundary(ex->context->loop, out_type);
    AG_ASSERT(!out_type->overflow && out_type->len == AG_MULTIPART_TYPE_LEN);
    boundary = ag_span_sub(ag_buf_span(out_type), out_type->len - AG_BOUNDARY_LEN, out_type->len);
    *p = (struct ag_static_parts){.ranges = *ranges, .heads = heads};
    b = ag_buf(heads->data, heads->size);
    for (uint32_t i = 0; i < ranges->count; i++) {
        put_head(&b, boundary, type, &ranges->v[i], size_bytes);
        p->ends[i] = (uint16_t)b.len;
        p->bytes += ranges->v[i].len;
    }
    ag_buf_put(&b, AG_SPAN("\r\n--"));
    ag_buf_put(&b, boundary);
    ag_buf_put(&b, AG_SPAN("--\r\n"));
    AG_ASSERT(!b.overflow);
    p->ends[ranges->count] = (uint16_t)b.len;
    p->bytes += b.len;
    *out = (struct ag_static_content){0, 0, p};
    return AG_OK;
}

void ag_static_content_release(struct ag_static_content *c)
{
    if (c->parts) {
        ag_block_release(c->parts->heads);
        c->parts = NULL;
    }
}

struct ag_slice ag_static_content_head(struct ag_static_content *c)
{
    struct ag_static_parts *p = c->parts;
    size_t from = p->at ? p->ends[p->at - 1] : 0;
    struct ag_slice s = {
        {.ptr = p->heads->data + from}, p->ends[p->at] - from, ag_block_hold(p->heads)};

    AG_ASSERT(c->left == 0 && p->at <= p->ranges.count);
    if (p->at < p->ranges.count) {
        c->from = p->ranges.v[p->at].from;
        c->left = p->ranges.v[p->at].len;
    }
    p->at++;
    return s;
}
