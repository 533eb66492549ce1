/*
 * h1_oracle_text: characters, words and lines, as the parts of h1_oracle read them; nobody else includes
 * it.
 *
 *   h1_oracle.c          heads
 *   h1_oracle_target.c   request targets, and Host
 *   h1_oracle_content.c  content and trailers
 */
#pragma once
#include "fuzz/h1_oracle.h"

/* ---- characters ---- */

static inline bool one_of(uint8_t ch, const char *set)
{
    return ch && strchr(set, ch);
}

static inline bool is_digit(uint8_t ch)
{
    return ch >= '0' && ch <= '9';
}

static inline bool is_alpha(uint8_t ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
}

static inline int hex(uint8_t ch)
{
    static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
    const char *at = ch ? strchr(lower, ch) : NULL;

    if (at) {
        return (int)(at - lower);
    }
    at = ch ? strchr(upper, ch) : NULL;
    return at ? (int)(at - upper) : -1;
}

/* RFC 9110 5.6.2 */
static inline bool is_tchar(uint8_t ch)
{
    return is_digit(ch) || is_alpha(ch) || one_of(ch, "!#$%&'*+-.^_`|~");
}

static inline bool is_token(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!is_tchar(s.ptr[i])) {
            return false;
        }
    }
    return s.len > 0;
}

/* RFC 3986 2.3 */
static inline bool is_unreserved(uint8_t ch)
{
    return is_digit(ch) || is_alpha(ch) || one_of(ch, "-._~");
}

/* RFC 3986 3.3, and what browsers send raw. */
static inline bool is_path_char(uint8_t ch)
{
    return is_unreserved(ch) || one_of(ch, "!$&'()*+,;=:@/") || one_of(ch, "\"<>[]^`{|}");
}

static inline bool same(struct ag_span a, const char *b)
{
    size_t i = 0;

    for (; i < a.len && b[i]; i++) {
        uint8_t x = a.ptr[i], y = (uint8_t)b[i];
        if (x != y && !(is_alpha(x) && is_alpha(y) && (x ^ y) == 0x20)) {
            return false;
        }
    }
    return i == a.len && !b[i];
}

static inline struct ag_span cut(struct ag_span s, size_t from, size_t to)
{
    return (struct ag_span){s.ptr + from, to - from};
}

static inline size_t find(struct ag_span s, uint8_t ch)
{
    size_t i = 0;

    while (i < s.len && s.ptr[i] != ch) {
        i++;
    }
    return i;
}

static inline struct ag_span strip(struct ag_span s)
{
    while (s.len && one_of(s.ptr[0], " \t")) {
        s = cut(s, 1, s.len);
    }
    while (s.len && one_of(s.ptr[s.len - 1], " \t")) {
        s.len--;
    }
    return s;
}

/* ---- lines (RFC 9112 2.2) ---- */

enum line { LINE_OK, LINE_MORE, LINE_BAD, LINE_LONG };

/* The line at `at`, which has to end, CRLF included, within `room` bytes. */
static inline enum line read_line(struct ag_span in, size_t at, size_t room, struct ag_span *out)
{
    for (size_t i = at; i < in.len && i - at < room; i++) {
        uint8_t ch = in.ptr[i];

        if (ch == '\r') {
            if (i + 1 - at >= room) {
                return LINE_LONG;
            }
            if (i + 1 == in.len) {
                return LINE_MORE;
            }
            *out = cut(in, at, i);
            return in.ptr[i + 1] == '\n' ? LINE_OK : LINE_BAD;
        }
        if ((ch < ' ' && ch != '\t') || ch == 0x7f) {
            return LINE_BAD;
        }
    }
    return in.len - at >= room ? LINE_LONG : LINE_MORE;
}

struct field {
    struct ag_span name, value;
};

/* RFC 9112 5: no fold, no space before the colon, a name that is a token. */
static inline bool read_field(struct ag_span line, struct field *out)
{
    size_t colon = find(line, ':');

    if (colon == line.len || !is_token(cut(line, 0, colon))) {
        return false;
    }
    *out = (struct field){cut(line, 0, colon), strip(cut(line, colon + 1, line.len))};
    return true;
}

/* Host, and a port if there is one; RFC 3986 3.2 without user info and escapes. */
bool oracle_read_authority(struct ag_span s, bool *out_has_port);
/* h->target, for h->method, into path, query, authority and secured; false: it is none. */
bool oracle_read_target(struct oracle_head *h);
/* Appends "name: value\n". */
static inline void put_line(struct ag_buf *to, struct ag_span name, struct ag_span value)
{
    ag_buf_put(to, name);
    ag_buf_put(to, AG_SPAN(": "));
    ag_buf_put(to, value);
    ag_buf_putc(to, '\n');
}
