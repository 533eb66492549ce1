/*
 * head: what the heads of every version of HTTP mean: target, authority, lengths, trailers.
 *
 *   h1_parse*.c      lines and field lines --\
 *                                             > the parts --> here --> struct ag_request, ag_response
 *   h2_fields*.c     a field section --------/
 *
 * Both find the parts and ask here what they say, so that neither is laxer than the other. For h1_*.c and
 * h2_fields*.c alone.
 */
#pragma once
#include "proto/http.h"

#define AG_FIELD_BIT(id) (UINT64_C(1) << (id))
_Static_assert(AG_FIELDS <= 64, "sets of fields are 64 bits");

/* Fields that belong to one connection (RFC 9110 section 7.6.1) or say how the message is framed:
 * they are written from what a connection does, never copied. */
#define AG_CONNECTION_FIELDS                                                     \
    (AG_FIELD_BIT(AG_FIELD_CONNECTION) | AG_FIELD_BIT(AG_FIELD_KEEP_ALIVE) |     \
     AG_FIELD_BIT(AG_FIELD_PROXY_CONNECTION) | AG_FIELD_BIT(AG_FIELD_TE) |       \
     AG_FIELD_BIT(AG_FIELD_TRANSFER_ENCODING) | AG_FIELD_BIT(AG_FIELD_UPGRADE) | \
     AG_FIELD_BIT(AG_FIELD_CONTENT_LENGTH) | AG_FIELD_BIT(AG_FIELD_HTTP2_SETTINGS))

/* The answer to what is wrong. */
struct ag_head_error {
    uint16_t status;
    const char *why; /* static */
};

/* Splits path and query; the path is normalised into `arena` when it has to be.
 *   s  begins with "/"
 * AG_EPROTO: *out_error (400, 414). AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_head_set_path(struct ag_request *r, struct ag_span s,
                                            struct ag_arena *arena,
                                            struct ag_head_error *out_error);

/* Sets authority, host and port. AG_EPROTO leaves them. */
AG_MUST_USE enum ag_status ag_head_set_authority(struct ag_request *r, struct ag_span authority);

/* A Content-Length. Stricter than RFC 9112 section 6.3, which lets a list of equal numbers pass: 1*DIGIT,
 * bounded, and within what file offsets can say. False leaves *out_length. */
AG_MUST_USE bool ag_head_read_length(struct ag_span value, uint64_t *out_length);

/* Whether a field may come after the content (RFC 9110 section 6.5.1): none that frames, routes,
 * authenticates, controls the request or describes the content. The name in any case. */
bool ag_head_may_trail(struct ag_span name);

/* RFC 9110 section 6.4.1. */
static inline bool ag_head_has_no_content(enum ag_method request_method, unsigned status)
{
    return request_method == AG_METHOD_HEAD || status < 200 || status == 204 || status == 304;
}

/* Whether Content-Length is written with an answer that is framed so. */
bool ag_head_tells_length(const struct ag_response *r);

static inline bool ag_is_digit(uint8_t ch)
{
    return ch >= '0' && ch <= '9';
}

/* Appends as ag_fields_add does, without a call when there is room. */
static inline enum ag_status ag_head_add_field(struct ag_fields *f, struct ag_arena *arena,
                                               const struct ag_field *field)
{
    if (ag_unlikely(f->count == f->cap)) {
        return ag_fields_add(f, arena, (enum ag_field_id)field->id, ag_field_key(field),
                             ag_field_value(field));
    }
    f->v[f->count++] = *field;
    return AG_OK;
}
