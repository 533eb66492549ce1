#include "actions/json_write.h"

#include "engine/utf8.h"

/* Answers of a few buffers stay in small ones; a long one goes on in large ones, so that it does not
 * come to dozens of slices. */
#define SMALL_BUFFERS 4u

void ag_json_init(struct ag_json_out *o, struct ag_loop *l, uint64_t limit_bytes)
{
    *o = (struct ag_json_out){.loop = l, .limit_bytes = limit_bytes};
}

static void fail(struct ag_json_out *o)
{
    ag_json_release(o);
    o->failed = true;
}

static uint32_t block_bytes(const struct ag_json_out *o)
{
    return o->done.count < SMALL_BUFFERS ? AG_BUF_SMALL_BYTES : AG_BUF_LARGE_BYTES;
}

/* Moves the buffer being filled to the end of the chain. */
static void close_block(struct ag_json_out *o)
{
    struct ag_slice s = {{.ptr = o->block->data}, o->used, o->block};

    o->block = NULL;
    o->used = 0;
    if (ag_chain_push(&o->done, &o->loop->nodes, s) != AG_OK) {
        fail(o);
    }
}

/* Makes room for at least one byte. */
static void make_room(struct ag_json_out *o)
{
    if (o->block && o->used == block_bytes(o)) {
        close_block(o);
    }
    if (!o->block && !o->failed) {
        o->block =
            ag_loop_buf(o->loop, o->done.count < SMALL_BUFFERS ? AG_BUF_SMALL : AG_BUF_LARGE);
        if (!o->block) {
            fail(o);
        }
    }
}

void ag_json_put(struct ag_json_out *o, struct ag_span bytes)
{
    if (!o->failed && bytes.len > o->limit_bytes - o->bytes) {
        fail(o);
    }
    while (bytes.len && !o->failed) {
        size_t n;
        make_room(o);
        if (o->failed) {
            return;
        }
        n = ag_min_size(bytes.len, block_bytes(o) - o->used);
        memcpy(o->block->data + o->used, bytes.ptr, n);
        o->used += (uint32_t)n;
        o->bytes += n;
        bytes = ag_span_sub(bytes, n, bytes.len);
    }
}

bool ag_json_finish(struct ag_json_out *o)
{
    if (o->block) {
        close_block(o);
    }
    return !o->failed;
}

void ag_json_release(struct ag_json_out *o)
{
    ag_chain_clear(&o->done, &o->loop->nodes);
    ag_block_release(o->block);
    o->block = NULL;
    o->used = 0;
}

void ag_json_u64(struct ag_json_out *o, uint64_t value)
{
    uint8_t digits[20];
    struct ag_buf b = ag_buf(digits, sizeof(digits));

    ag_buf_put_u64(&b, value);
    ag_json_put(o, ag_buf_span(&b));
}

static size_t escape_code(uint8_t code, uint8_t out[static 6])
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t text[6] = {'\\', 'u', '0', '0', (uint8_t)hex[code >> 4], (uint8_t)hex[code & 15]};

    memcpy(out, text, sizeof(text));
    return sizeof(text);
}

size_t ag_json_escape(struct ag_span text, size_t *at, uint8_t out[static 6])
{
    uint8_t ch = text.ptr[*at];
    uint32_t code_point;
    size_t n = ag_utf8_decode(ag_span_sub(text, *at, text.len), &code_point);
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *known;

    if (n > 1) {
        memcpy(out, text.ptr + *at, n);
        *at += n;
        return n;
    }
    (*at)++;
    known = ch ? strchr(from, ch) : NULL;
    if (known) {
        out[0] = '\\';
        out[1] = (uint8_t)to[known - from];
        return 2;
    }
    /* DEL and the markup characters too: harmless wherever the text ends up. */
    if (n == 0 || ch < 0x20 || ch == 0x7F || ch == '<' || ch == '>' || ch == '&') {
        return escape_code(ch, out);
    }
    out[0] = ch;
    return 1;
}

static bool is_plain(uint8_t ch)
{
    return ch >= 0x20 && ch < 0x7F && ch != '"' && ch != '\\' && ch != '<' && ch != '>' &&
           ch != '&';
}

void ag_json_string(struct ag_json_out *o, struct ag_span text)
{
    size_t at = 0;

    ag_json_put(o, AG_SPAN("\""));
    while (at < text.len && !o->failed) {
        uint8_t piece[6];
        size_t from = at;
        while (at < text.len && is_plain(text.ptr[at])) {
            at++;
        }
        ag_json_put(o, ag_span_sub(text, from, at));
        if (at < text.len) {
            size_t n = ag_json_escape(text, &at, piece);
            ag_json_put(o, ag_span(piece, n));
        }
    }
    ag_json_put(o, AG_SPAN("\""));
}

static void base64_group(const uint8_t *in, size_t n, uint8_t out[static 4])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t v = (uint32_t)in[0] << 16;

    if (n > 1) {
        v |= (uint32_t)in[1] << 8;
    }
    if (n > 2) {
        v |= in[2];
    }
    out[0] = (uint8_t)digits[v >> 18];
    out[1] = (uint8_t)digits[v >> 12 & 63];
    out[2] = (uint8_t)(n > 1 ? digits[v >> 6 & 63] : '=');
    out[3] = (uint8_t)(n > 2 ? digits[v & 63] : '=');
}

void ag_json_base64(struct ag_json_out *o, struct ag_span bytes)
{
    ag_json_put(o, AG_SPAN("\""));
    for (size_t at = 0; at < bytes.len && !o->failed; at += 3) {
        uint8_t out[4];
        base64_group(bytes.ptr + at, ag_min_size(3, bytes.len - at), out);
        ag_json_put(o, ag_span(out, sizeof(out)));
    }
    ag_json_put(o, AG_SPAN("\""));
}
