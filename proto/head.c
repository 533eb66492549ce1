#include "proto/head.h"

#include "proto/h1_scan.h"
#include "proto/uri.h"

/* Digits of Content-Length: 19 nines fit 64 bits, so their sum cannot overflow. */
#define LENGTH_DIGITS_MAX 19u

/* Longer names than all that are known by number or refused in trailers. */
#define TRAILER_NAME_MAX 64u

/* Known fields that may come after the content. */
#define TRAILER_FIELDS (AG_FIELD_BIT(AG_FIELD_OTHER) | AG_FIELD_BIT(AG_FIELD_ETAG))

static AG_COLD enum ag_status fail(struct ag_head_error *out, uint16_t status, const char *why)
{
    *out = (struct ag_head_error){status, why};
    return AG_EPROTO;
}

enum ag_status ag_head_set_path(struct ag_request *r, struct ag_span s, struct ag_arena *arena,
                                struct ag_head_error *out_error)
{
    size_t plain = ag_scan_path(s);
    const uint8_t *end = s.ptr + s.len;
    const uint8_t *mark = ag_scan_byte(s.ptr + plain, end, '?');

    if (mark < end) {
        r->has_query = true;
        r->query = ag_span(mark + 1, (size_t)(end - mark - 1));
        if (!ag_query_is_valid(r->query)) {
            return fail(out_error, 400, "invalid query");
        }
    }
    r->path = ag_span(s.ptr, (size_t)(mark - s.ptr));
    if (ag_likely(plain == r->path.len || ag_path_is_normal(r->path))) {
        return AG_OK;
    }
    uint8_t *copy = ag_arena_alloc(arena, r->path.len);
    if (!copy) {
        /* A path beyond an arena's page can be served only as it came, where there is no more room. */
        return r->path.len > AG_ARENA_ALLOC_MAX
                   ? fail(out_error, 414, "path too long to be normalised")
                   : AG_ENOMEM;
    }
    struct ag_buf normal = ag_buf(copy, r->path.len);
    if (ag_path_normalise(r->path, &normal) != AG_OK) {
        return fail(out_error, 400, "invalid path");
    }
    r->path = ag_buf_span(&normal);
    return AG_OK;
}

enum ag_status ag_head_set_authority(struct ag_request *r, struct ag_span authority)
{
    enum ag_status st = ag_authority_parse(authority, &r->host, &r->port);

    if (st == AG_OK) {
        r->authority = authority;
    }
    return st;
}

bool ag_head_read_length(struct ag_span value, uint64_t *out_length)
{
    uint64_t length = 0;

    if (value.len > LENGTH_DIGITS_MAX || ag_span_u64(value, &length) != AG_OK ||
        length > INT64_MAX) {
        return false;
    }
    *out_length = length;
    return true;
}

/* A name is looked at as CGI and its like would merge it into the header section, where "_" and "-" are
 * one. */
bool ag_head_may_trail(struct ag_span name)
{
    static const struct ag_span refused[] = {
        AG_SPAN_INIT("authentication-info"),
        AG_SPAN_INIT("expires"),
        AG_SPAN_INIT("max-forwards"),
        AG_SPAN_INIT("pragma"),
        AG_SPAN_INIT("proxy-authentication-info"),
        AG_SPAN_INIT("x-real-ip"),
    };
    static const struct ag_span families[] = {
        AG_SPAN_INIT("content-"),
        AG_SPAN_INIT("sec-"),
        AG_SPAN_INIT("x-forwarded-"),
    };
    uint8_t text[TRAILER_NAME_MAX];
    struct ag_span plain = ag_span(text, ag_min_size(name.len, sizeof(text)));

    for (size_t i = 0; i < plain.len; i++) {
        text[i] = name.ptr[i] == '_' ? '-' : name.ptr[i];
    }
    if (name.len == plain.len && !(AG_FIELD_BIT(ag_field_id_from_name(plain)) & TRAILER_FIELDS)) {
        return false;
    }
    for (size_t i = 0; i < AG_COUNT(refused); i++) {
        if (name.len == plain.len && ag_span_ieq(plain, refused[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < AG_COUNT(families); i++) {
        size_t len = families[i].len;
        if (plain.len > len && ag_span_ieq(ag_span_sub(plain, 0, len), families[i])) {
            return false;
        }
    }
    return true;
}

bool ag_head_tells_length(const struct ag_response *r)
{
    if (r->status < 200 || r->status == 204 || r->content_length == AG_LENGTH_UNKNOWN) {
        return false; /* RFC 9110 section 8.6, RFC 9112 section 6.1 */
    }
    /* Without content the length is still told: of HEAD what GET would have, of others 0. Only a
     * 304 of 0 bytes says nothing, for 0 there rather means that nobody filled it in. */
    return r->framing == AG_FRAMING_LENGTH || r->framing == AG_FRAMING_H2 ||
           (r->framing == AG_FRAMING_NONE && (r->status != 304 || r->content_length));
}
