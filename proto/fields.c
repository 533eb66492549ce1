#include "proto/field_names.h"

/* Entries of the first table that the arena gives. */
#define FIRST_CAP 16u
/* Entries that fit a page of a pooled arena: doubling stops there. */
#define PAGE_CAP ((unsigned)(AG_ARENA_ALLOC_MAX / sizeof(struct ag_field)))

/* The canonical spellings, a line for each of enum ag_field_id. */
#define KNOWN(name)            \
    {                          \
        sizeof(name) - 1, name \
    }
const struct ag_known_name ag_known_names[AG_FIELDS] = {
    [AG_FIELD_ACCEPT] = KNOWN("Accept"),
    [AG_FIELD_ACCEPT_ENCODING] = KNOWN("Accept-Encoding"),
    [AG_FIELD_ACCEPT_RANGES] = KNOWN("Accept-Ranges"),
    [AG_FIELD_ACCESS_CONTROL_REQUEST_METHOD] = KNOWN("Access-Control-Request-Method"),
    [AG_FIELD_AGE] = KNOWN("Age"),
    [AG_FIELD_ALLOW] = KNOWN("Allow"),
    [AG_FIELD_AUTHORIZATION] = KNOWN("Authorization"),
    [AG_FIELD_CACHE_CONTROL] = KNOWN("Cache-Control"),
    [AG_FIELD_CDN_LOOP] = KNOWN("CDN-Loop"),
    [AG_FIELD_CONNECTION] = KNOWN("Connection"),
    [AG_FIELD_CONTENT_ENCODING] = KNOWN("Content-Encoding"),
    [AG_FIELD_CONTENT_LENGTH] = KNOWN("Content-Length"),
    [AG_FIELD_CONTENT_RANGE] = KNOWN("Content-Range"),
    [AG_FIELD_CONTENT_TYPE] = KNOWN("Content-Type"),
    [AG_FIELD_COOKIE] = KNOWN("Cookie"),
    [AG_FIELD_DATE] = KNOWN("Date"),
    [AG_FIELD_ETAG] = KNOWN("ETag"),
    [AG_FIELD_EXPECT] = KNOWN("Expect"),
    [AG_FIELD_FORWARDED] = KNOWN("Forwarded"),
    [AG_FIELD_HOST] = KNOWN("Host"),
    [AG_FIELD_HTTP2_SETTINGS] = KNOWN("HTTP2-Settings"),
    [AG_FIELD_IF_MATCH] = KNOWN("If-Match"),
    [AG_FIELD_IF_MODIFIED_SINCE] = KNOWN("If-Modified-Since"),
    [AG_FIELD_IF_NONE_MATCH] = KNOWN("If-None-Match"),
    [AG_FIELD_IF_RANGE] = KNOWN("If-Range"),
    [AG_FIELD_IF_UNMODIFIED_SINCE] = KNOWN("If-Unmodified-Since"),
    [AG_FIELD_KEEP_ALIVE] = KNOWN("Keep-Alive"),
    [AG_FIELD_LAST_MODIFIED] = KNOWN("Last-Modified"),
    [AG_FIELD_LOCATION] = KNOWN("Location"),
    [AG_FIELD_ORIGIN] = KNOWN("Origin"),
    [AG_FIELD_PRIORITY] = KNOWN("Priority"),
    [AG_FIELD_PROXY] = KNOWN("Proxy"),
    [AG_FIELD_PROXY_AUTHENTICATE] = KNOWN("Proxy-Authenticate"),
    [AG_FIELD_PROXY_AUTHORIZATION] = KNOWN("Proxy-Authorization"),
    [AG_FIELD_PROXY_CONNECTION] = KNOWN("Proxy-Connection"),
    [AG_FIELD_RANGE] = KNOWN("Range"),
    [AG_FIELD_REFERER] = KNOWN("Referer"),
    [AG_FIELD_RETRY_AFTER] = KNOWN("Retry-After"),
    [AG_FIELD_SEC_WEBSOCKET_ACCEPT] = KNOWN("Sec-WebSocket-Accept"),
    [AG_FIELD_SEC_WEBSOCKET_KEY] = KNOWN("Sec-WebSocket-Key"),
    [AG_FIELD_SEC_WEBSOCKET_VERSION] = KNOWN("Sec-WebSocket-Version"),
    [AG_FIELD_SERVER] = KNOWN("Server"),
    [AG_FIELD_SET_COOKIE] = KNOWN("Set-Cookie"),
    [AG_FIELD_TE] = KNOWN("TE"),
    [AG_FIELD_TRAILER] = KNOWN("Trailer"),
    [AG_FIELD_TRANSFER_ENCODING] = KNOWN("Transfer-Encoding"),
    [AG_FIELD_UPGRADE] = KNOWN("Upgrade"),
    [AG_FIELD_USER_AGENT] = KNOWN("User-Agent"),
    [AG_FIELD_VARY] = KNOWN("Vary"),
    [AG_FIELD_VIA] = KNOWN("Via"),
    [AG_FIELD_WWW_AUTHENTICATE] = KNOWN("WWW-Authenticate"),
    [AG_FIELD_X_FORWARDED_FOR] = KNOWN("X-Forwarded-For"),
    [AG_FIELD_X_FORWARDED_HOST] = KNOWN("X-Forwarded-Host"),
    [AG_FIELD_X_FORWARDED_PROTO] = KNOWN("X-Forwarded-Proto"),
};

/* A new name that collides does not compile (-Woverride-init, -Winitializer-overrides): then look for
 * other factors. */
#define SLOT AG_FIELD_SLOT
const uint8_t ag_field_slots[256] = {
    [SLOT(6, 'a', 't')] = AG_FIELD_ACCEPT,
    [SLOT(15, 'a', 'g')] = AG_FIELD_ACCEPT_ENCODING,
    [SLOT(13, 'a', 's')] = AG_FIELD_ACCEPT_RANGES,
    [SLOT(29, 'a', 'd')] = AG_FIELD_ACCESS_CONTROL_REQUEST_METHOD,
    [SLOT(3, 'a', 'e')] = AG_FIELD_AGE,
    [SLOT(5, 'a', 'w')] = AG_FIELD_ALLOW,
    [SLOT(13, 'a', 'n')] = AG_FIELD_AUTHORIZATION,
    [SLOT(13, 'c', 'l')] = AG_FIELD_CACHE_CONTROL,
    [SLOT(8, 'c', 'p')] = AG_FIELD_CDN_LOOP,
    [SLOT(10, 'c', 'n')] = AG_FIELD_CONNECTION,
    [SLOT(16, 'c', 'g')] = AG_FIELD_CONTENT_ENCODING,
    [SLOT(14, 'c', 'h')] = AG_FIELD_CONTENT_LENGTH,
    [SLOT(13, 'c', 'e')] = AG_FIELD_CONTENT_RANGE,
    [SLOT(12, 'c', 'e')] = AG_FIELD_CONTENT_TYPE,
    [SLOT(6, 'c', 'e')] = AG_FIELD_COOKIE,
    [SLOT(4, 'd', 'e')] = AG_FIELD_DATE,
    [SLOT(4, 'e', 'g')] = AG_FIELD_ETAG,
    [SLOT(6, 'e', 't')] = AG_FIELD_EXPECT,
    [SLOT(9, 'f', 'd')] = AG_FIELD_FORWARDED,
    [SLOT(4, 'h', 't')] = AG_FIELD_HOST,
    [SLOT(14, 'h', 's')] = AG_FIELD_HTTP2_SETTINGS,
    [SLOT(8, 'i', 'h')] = AG_FIELD_IF_MATCH,
    [SLOT(17, 'i', 'e')] = AG_FIELD_IF_MODIFIED_SINCE,
    [SLOT(13, 'i', 'h')] = AG_FIELD_IF_NONE_MATCH,
    [SLOT(8, 'i', 'e')] = AG_FIELD_IF_RANGE,
    [SLOT(19, 'i', 'e')] = AG_FIELD_IF_UNMODIFIED_SINCE,
    [SLOT(10, 'k', 'e')] = AG_FIELD_KEEP_ALIVE,
    [SLOT(13, 'l', 'd')] = AG_FIELD_LAST_MODIFIED,
    [SLOT(8, 'l', 'n')] = AG_FIELD_LOCATION,
    [SLOT(6, 'o', 'n')] = AG_FIELD_ORIGIN,
    [SLOT(8, 'p', 'y')] = AG_FIELD_PRIORITY,
    [SLOT(5, 'p', 'y')] = AG_FIELD_PROXY,
    [SLOT(18, 'p', 'e')] = AG_FIELD_PROXY_AUTHENTICATE,
    [SLOT(19, 'p', 'n')] = AG_FIELD_PROXY_AUTHORIZATION,
    [SLOT(16, 'p', 'n')] = AG_FIELD_PROXY_CONNECTION,
    [SLOT(5, 'r', 'e')] = AG_FIELD_RANGE,
    [SLOT(7, 'r', 'r')] = AG_FIELD_REFERER,
    [SLOT(11, 'r', 'r')] = AG_FIELD_RETRY_AFTER,
    [SLOT(20, 's', 't')] = AG_FIELD_SEC_WEBSOCKET_ACCEPT,
    [SLOT(17, 's', 'y')] = AG_FIELD_SEC_WEBSOCKET_KEY,
    [SLOT(21, 's', 'n')] = AG_FIELD_SEC_WEBSOCKET_VERSION,
    [SLOT(6, 's', 'r')] = AG_FIELD_SERVER,
    [SLOT(10, 's', 'e')] = AG_FIELD_SET_COOKIE,
    [SLOT(2, 't', 'e')] = AG_FIELD_TE,
    [SLOT(7, 't', 'r')] = AG_FIELD_TRAILER,
    [SLOT(17, 't', 'g')] = AG_FIELD_TRANSFER_ENCODING,
    [SLOT(7, 'u', 'e')] = AG_FIELD_UPGRADE,
    [SLOT(10, 'u', 't')] = AG_FIELD_USER_AGENT,
    [SLOT(4, 'v', 'y')] = AG_FIELD_VARY,
    [SLOT(3, 'v', 'a')] = AG_FIELD_VIA,
    [SLOT(16, 'w', 'e')] = AG_FIELD_WWW_AUTHENTICATE,
    [SLOT(15, 'x', 'r')] = AG_FIELD_X_FORWARDED_FOR,
    [SLOT(16, 'x', 't')] = AG_FIELD_X_FORWARDED_HOST,
    [SLOT(17, 'x', 'o')] = AG_FIELD_X_FORWARDED_PROTO,
};

#define PCHAR (AG_CHAR_PATH | AG_CHAR_TARGET)
#define DELIM (PCHAR | AG_CHAR_HOST) /* sub-delims of RFC 3986 */
#define TOKEN (AG_CHAR_TOKEN | AG_CHAR_LOWER)
#define ALPHA (DELIM | AG_CHAR_TOKEN | AG_CHAR_PLAIN)
#define ALNUM (ALPHA | AG_CHAR_LOWER)
#define RAW   (AG_CHAR_RAW | AG_CHAR_TARGET)
const uint8_t ag_char_table[256] = {
    ['0' ... '9'] = ALNUM,
    ['A' ... 'Z'] = ALPHA,
    ['a' ... 'z'] = ALNUM,
    ['-'] = ALNUM,
    ['.'] = ALNUM,
    ['_'] = ALNUM,
    ['~'] = ALNUM,
    ['!'] = TOKEN | DELIM,
    ['$'] = TOKEN | DELIM,
    ['&'] = TOKEN | DELIM,
    ['\''] = TOKEN | DELIM,
    ['*'] = TOKEN | DELIM,
    ['+'] = TOKEN | DELIM,
    ['('] = DELIM,
    [')'] = DELIM,
    [','] = DELIM,
    [';'] = DELIM,
    ['='] = DELIM,
    ['/'] = PCHAR,
    [':'] = PCHAR,
    ['@'] = PCHAR,
    ['#'] = TOKEN,
    ['%'] = TOKEN | AG_CHAR_TARGET,
    ['?'] = AG_CHAR_TARGET,
    ['\\'] = AG_CHAR_TARGET,
    ['^'] = TOKEN | RAW,
    ['`'] = TOKEN | RAW,
    ['|'] = TOKEN | RAW,
    ['"'] = RAW,
    ['<'] = RAW,
    ['>'] = RAW,
    ['['] = RAW,
    [']'] = RAW,
    ['{'] = RAW,
    ['}'] = RAW,
};

/* Lowers the letters among 8 bytes. It changes a few other bytes from 0x40 on too, but none of them
 * into a letter, a digit or "-", so a comparison with a known name stays exact. */
static uint64_t fold(uint64_t x)
{
    return x | ((x & 0x4040404040404040u) >> 1);
}

/* `known` is one of those names; both are `len` > 0 bytes. Words overlap at the end instead of a
 * tail. */
static bool same_name(const uint8_t *a, const uint8_t *known, size_t len)
{
    if (len >= 8) {
        uint64_t diff = fold(ag_load64(a + len - 8)) ^ fold(ag_load64(known + len - 8));
        for (size_t i = 0; i + 8 < len; i += 8) {
            diff |= fold(ag_load64(a + i)) ^ fold(ag_load64(known + i));
        }
        return diff == 0;
    }
    if (len >= 4) {
        uint64_t x = (uint64_t)ag_load32(a) << 32 | ag_load32(a + len - 4);
        uint64_t y = (uint64_t)ag_load32(known) << 32 | ag_load32(known + len - 4);
        return fold(x) == fold(y);
    }
    return ag_span_ieq(ag_span(a, len), ag_span(known, len));
}

enum ag_field_id ag_field_id_from_name(struct ag_span name)
{
    if (name.len == 0) {
        return AG_FIELD_OTHER;
    }
    enum ag_field_id id = ag_field_candidate(name.ptr, name.len);

    return id != AG_FIELD_OTHER && same_name(name.ptr, ag_known_names[id].text, name.len)
               ? id
               : AG_FIELD_OTHER;
}

struct ag_span ag_field_name(enum ag_field_id id)
{
    AG_ASSERT(id > AG_FIELD_OTHER && id < AG_FIELDS);
    return ag_span(ag_known_names[id].text, ag_known_names[id].len);
}

static AG_NOINLINE enum ag_status grow(struct ag_fields *f, struct ag_arena *arena)
{
    unsigned cap = f->cap ? 2u * f->cap : FIRST_CAP;

    if (f->cap < PAGE_CAP && cap > PAGE_CAP) {
        cap = PAGE_CAP;
    }
    if (cap > UINT16_MAX) {
        return AG_ENOMEM;
    }
    struct ag_field *v = ag_arena_alloc(arena, cap * sizeof(*v));
    if (!v) {
        return AG_ENOMEM;
    }
    if (f->count) {
        memcpy(v, f->v, f->count * sizeof(*v));
    }
    f->v = v;
    f->cap = (uint16_t)cap;
    return AG_OK;
}

enum ag_status ag_fields_add(struct ag_fields *f, struct ag_arena *arena, enum ag_field_id id,
                             struct ag_span name, struct ag_span value)
{
    AG_ASSERT(name.len <= UINT16_MAX && value.len <= UINT32_MAX);
    if (ag_unlikely(f->count == f->cap)) {
        enum ag_status st = grow(f, arena);
        if (st != AG_OK) {
            return st;
        }
    }
    f->v[f->count++] = (struct ag_field){
        .name = name.ptr,
        .value = value.ptr,
        .value_len = (uint32_t)value.len,
        .name_len = (uint16_t)name.len,
        .id = (uint8_t)id,
    };
    return AG_OK;
}

enum ag_status ag_fields_add_id(struct ag_fields *f, struct ag_arena *arena, enum ag_field_id id,
                                struct ag_span value)
{
    return ag_fields_add(f, arena, id, ag_field_name(id), value);
}

struct ag_field *ag_fields_find(const struct ag_fields *f, enum ag_field_id id,
                                const struct ag_field *after)
{
    for (size_t i = after ? (size_t)(after - f->v) + 1 : 0; i < f->count; i++) {
        if (f->v[i].id == id && !f->v[i].removed) {
            return &f->v[i];
        }
    }
    return NULL;
}

struct ag_field *ag_fields_find_name(const struct ag_fields *f, struct ag_span name,
                                     const struct ag_field *after)
{
    for (size_t i = after ? (size_t)(after - f->v) + 1 : 0; i < f->count; i++) {
        if (!f->v[i].removed && ag_span_ieq(ag_field_key(&f->v[i]), name)) {
            return &f->v[i];
        }
    }
    return NULL;
}

void ag_fields_remove(struct ag_fields *f, enum ag_field_id id)
{
    for (size_t i = 0; i < f->count; i++) {
        f->v[i].removed |= f->v[i].id == id;
    }
}

void ag_fields_remove_name(struct ag_fields *f, struct ag_span name)
{
    for (size_t i = 0; i < f->count; i++) {
        struct ag_field *one = &f->v[i];

        /* What is removed may have lost its name. */
        one->removed = one->removed || ag_span_ieq(ag_field_key(one), name);
    }
}

/* The end of the element that starts at `at`: a comma outside of quotes, or the value's end. */
static size_t element_end(struct ag_span value, size_t at)
{
    bool quoted = false;

    for (; at < value.len; at++) {
        uint8_t ch = value.ptr[at];
        if (ch == '"') {
            quoted = !quoted;
        } else if (ch == '\\' && quoted) {
            /* quoted-pair: the next byte, if any, is not a quote */
            if (at + 1 < value.len) {
                at++;
            }
        } else if (ch == ',' && !quoted) {
            break;
        }
    }
    return at;
}

/* Whether a byte of the word is zero; it may be taken for one when a lower one is. */
static uint64_t zero_bytes(uint64_t x)
{
    return (x - 0x0101010101010101u) & ~x & 0x8080808080808080u;
}

/* Past words that have neither a quote nor a comma. */
static size_t skip_plain(struct ag_span value, size_t at)
{
    const uint64_t each = 0x0101010101010101u;

    while (value.len - at >= 8) {
        uint64_t w = ag_load64(value.ptr + at);
        if (zero_bytes(w ^ ',' * each) | zero_bytes(w ^ '"' * each)) {
            break;
        }
        at += 8;
    }
    return at;
}

bool ag_list_next(struct ag_span value, size_t *at, struct ag_span *out_element)
{
    while (*at < value.len) {
        size_t end = element_end(value, skip_plain(value, *at));
        struct ag_span element = ag_span_trim(ag_span_sub(value, *at, end));

        *at = end < value.len ? end + 1 : end;
        if (element.len) {
            *out_element = element;
            return true;
        }
    }
    return false;
}

bool ag_list_has(struct ag_span value, struct ag_span token)
{
    struct ag_span element;
    size_t at = 0;

    while (ag_list_next(value, &at, &element)) {
        if (ag_span_ieq(element, token)) {
            return true;
        }
    }
    return false;
}

bool ag_fields_list_has(const struct ag_fields *f, enum ag_field_id id, struct ag_span token)
{
    const struct ag_field *field = NULL;

    while ((field = ag_fields_find(f, id, field))) {
        if (ag_list_has(ag_field_value(field), token)) {
            return true;
        }
    }
    return false;
}

bool ag_is_token(struct ag_span s)
{
    return ag_scan_is_token(s.ptr, s.len, s.ptr + s.len);
}

bool ag_is_field_value(struct ag_span s)
{
    return s.len == 0 || ag_scan_ctl(s.ptr, s.ptr, s.ptr + s.len) == s.ptr + s.len;
}
