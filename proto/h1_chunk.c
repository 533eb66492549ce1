#include "proto/h1_chunk.h"

#include "proto/h1_scan.h"

/* One digit of chunk-size. Refusing to shift into the top nibble makes overflow impossible. */
static enum ag_status size_digit(struct ag_h1_chunk *c, int digit)
{
    if (c->left >> 60) {
        return AG_EPROTO;
    }
    c->left = c->left << 4 | (uint64_t)digit;
    return AG_AGAIN;
}

static enum ag_status size_byte(struct ag_h1_chunk *c, uint8_t ch)
{
    int digit = ag_hex_value(ch);

    if (digit >= 0) {
        return size_digit(c, digit);
    }
    if (c->line_len == 1) { /* no digit at all */
        return AG_EPROTO;
    }
    /* Why no bare LF: the leniency of RFC 9112 2.2 covers the start-line and fields only, and two
     * parsers that disagree on where a chunk line ends are how requests get smuggled (11.2). Why no
     * white space: it is "bad" where the grammar has it (7.1.1), and peers differ on the rest. */
    if (ch == '\r') {
        c->state = AG_H1_CHUNK_SIZE_LF;
    } else if (ch == ';') {
        c->state = AG_H1_CHUNK_EXT;
    } else {
        return AG_EPROTO;
    }
    return AG_AGAIN;
}

/* Extensions mean nothing to us (7.1.1), but no control may hide in them. */
static enum ag_status ext_byte(struct ag_h1_chunk *c, uint8_t ch)
{
    if (ch == '\r') {
        c->state = AG_H1_CHUNK_SIZE_LF;
        return AG_AGAIN;
    }
    return ag_scan_is_ctl(ch) ? AG_EPROTO : AG_AGAIN;
}

static enum ag_status expect(struct ag_h1_chunk *c, uint8_t ch, uint8_t want,
                             enum ag_h1_chunk_state next)
{
    if (ch != want) {
        return AG_EPROTO;
    }
    c->state = next;
    return next == AG_H1_CHUNK_TRAILERS ? AG_OK : AG_AGAIN;
}

/* Steps over one framing byte. */
static enum ag_status frame_byte(struct ag_h1_chunk *c, uint8_t ch)
{
    switch (c->state) {
    case AG_H1_CHUNK_SIZE:
        return ++c->line_len > AG_H1_CHUNK_LINE_MAX ? AG_ELIMIT : size_byte(c, ch);
    case AG_H1_CHUNK_EXT:
        return ++c->line_len > AG_H1_CHUNK_LINE_MAX ? AG_ELIMIT : ext_byte(c, ch);
    case AG_H1_CHUNK_SIZE_LF:
        if (++c->line_len > AG_H1_CHUNK_LINE_MAX) {
            return AG_ELIMIT;
        }
        c->line_len = 0;
        return expect(c, ch, '\n', c->left ? AG_H1_CHUNK_DATA : AG_H1_CHUNK_TRAILERS);
    case AG_H1_CHUNK_DATA_CR:
        return expect(c, ch, '\r', AG_H1_CHUNK_DATA_LF);
    case AG_H1_CHUNK_DATA_LF:
        return expect(c, ch, '\n', AG_H1_CHUNK_SIZE);
    case AG_H1_CHUNK_DATA:
    case AG_H1_CHUNK_TRAILERS:
        break;
    }
    AG_UNREACHABLE("no framing byte in this state");
}

enum ag_status ag_h1_chunk_decode(struct ag_h1_chunk *c, struct ag_span in, size_t *out_used,
                                  struct ag_span *out_body)
{
    enum ag_status st = AG_AGAIN;
    size_t i = 0;

    AG_ASSERT(c->state < AG_H1_CHUNK_TRAILERS);
    *out_body = (struct ag_span){in.ptr, 0};

    while (i < in.len && st == AG_AGAIN && out_body->len == 0) {
        if (c->state != AG_H1_CHUNK_DATA) {
            st = frame_byte(c, in.ptr[i++]);
            continue;
        }
        size_t take = (size_t)ag_min_u64(in.len - i, c->left);
        *out_body = ag_span_sub(in, i, i + take);
        i += take;
        c->left -= take;
        if (c->left == 0) {
            c->state = AG_H1_CHUNK_DATA_CR;
        }
    }

    *out_used = i;
    AG_ASSERT(i <= in.len);
    AG_ASSERT((st == AG_OK) == (c->state == AG_H1_CHUNK_TRAILERS));
    return st;
}

size_t ag_h1_chunk_header(uint64_t len, uint8_t out[static AG_H1_CHUNK_HEADER_MAX])
{
    struct ag_buf b = ag_buf(out, AG_H1_CHUNK_HEADER_MAX);

    AG_ASSERT(len > 0); /* a chunk of 0 would end the body */
    ag_buf_put_hex(&b, len);
    ag_buf_put(&b, AG_SPAN("\r\n"));
    AG_ASSERT(!b.overflow);
    return b.len;
}
