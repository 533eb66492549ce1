#include "engine/tls_pem.h"

/* Index of `needle` in `s`, or s.len. */
static size_t find(struct ag_span s, struct ag_span needle)
{
    const void *at = s.len ? memmem(s.ptr, s.len, needle.ptr, needle.len) : NULL;

    return at ? (size_t)((const uint8_t *)at - s.ptr) : s.len;
}

enum ag_status ag_pem_next(struct ag_span *io, struct ag_pem *out)
{
    struct ag_span begin = AG_SPAN("-----BEGIN "), end = AG_SPAN("-----END "),
                   dashes = AG_SPAN("-----");
    size_t at = find(*io, begin), label, after, stop, close;
    struct ag_span rest, tail;

    if (at == io->len) {
        return AG_ENOENT;
    }
    rest = ag_span_sub(*io, at, io->len);
    label = find(ag_span_sub(rest, begin.len, rest.len), dashes);
    after = begin.len + label + dashes.len;
    if (after > rest.len || label > 60) {
        return AG_EINVAL;
    }
    out->label = ag_span_sub(rest, begin.len, begin.len + label);
    stop = find(ag_span_sub(rest, after, rest.len), end);
    if (after + stop == rest.len) {
        return AG_EINVAL;
    }
    out->body = ag_span_sub(rest, after, after + stop);
    tail = ag_span_sub(rest, after + stop + end.len, rest.len);
    if (!ag_span_starts(tail, out->label) ||
        !ag_span_starts(ag_span_sub(tail, out->label.len, tail.len), dashes)) {
        return AG_EINVAL;
    }
    close = after + stop + end.len + out->label.len + dashes.len;
    out->text = ag_span_sub(rest, 0, close);
    out->encrypted = ag_span_eq(out->label, AG_SPAN("ENCRYPTED PRIVATE KEY")) ||
                     find(out->body, AG_SPAN("Proc-Type: 4,ENCRYPTED")) < out->body.len;
    *io = ag_span_sub(rest, close, rest.len);
    return AG_OK;
}

static int digit_of(uint8_t ch)
{
    if (ch >= 'A' && ch <= 'Z') {
        return ch - 'A';
    }
    if (ch >= 'a' && ch <= 'z') {
        return ch - 'a' + 26;
    }
    if (ch >= '0' && ch <= '9') {
        return ch - '0' + 52;
    }
    return ch == '+' ? 62 : ch == '/' ? 63 : -1;
}

enum ag_status ag_pem_decode(const struct ag_pem *p, struct ag_arena *arena, struct ag_span *out)
{
    size_t cap = p->body.len / 4 * 3 + 3, padding = 0, digits = 0;
    struct ag_buf bytes = ag_buf(ag_arena_alloc(arena, cap), cap);
    uint32_t bits = 0;

    if (!bytes.ptr) {
        return AG_ENOMEM;
    }
    for (size_t i = 0; i < p->body.len; i++) {
        uint8_t ch = p->body.ptr[i];
        int digit = digit_of(ch);

        if (ch == '\n' || ch == '\r' || ch == ' ' || ch == '\t') {
            continue;
        }
        padding += ch == '=';
        if (ch != '=' && (digit < 0 || padding > 0)) {
            return AG_EINVAL;
        }
        bits = bits << 6 | (digit > 0 ? (uint32_t)digit : 0);
        if (++digits % 4 == 0) {
            const uint8_t three[] = {(uint8_t)(bits >> 16), (uint8_t)(bits >> 8), (uint8_t)bits};
            ag_buf_put(&bytes, ag_span(three, 3 - ag_min_size(padding, 3)));
        }
    }
    if (digits == 0 || digits % 4 != 0 || padding > 2) {
        return AG_EINVAL;
    }
    *out = ag_buf_span(&bytes);
    return AG_OK;
}

bool ag_pem_is_key(const struct ag_pem *p)
{
    struct ag_span end = AG_SPAN("PRIVATE KEY");

    return p->label.len >= end.len &&
           ag_span_eq(ag_span_sub(p->label, p->label.len - end.len, p->label.len), end);
}
