/*
 * h2_fields: field sections of HTTP/2 (RFC 9113 section 8) to and from requests, responses and trailers.
 *
 *   received   HPACK --decode--> pseudo-fields first, names in lower case, no field of a connection,
 *              Cookie joined, authority, path and lengths as strict as HTTP/1's --> struct ag_request
 *   sent       struct ag_response --> names in lower case, fields of a connection left out --> HPACK
 *
 * What is malformed here never reaches an action or an upstream, of whichever version (THREATS.md, HTTP/2).
 * A section is always decoded to its end, or both sides would no longer agree on the table; only the
 * connection's end excuses from that.
 */
#pragma once
#include "proto/h1_parse.h"
#include "proto/hpack.h"

/* What is wrong with a section that was received. */
struct ag_h2_field_error {
    /* Of a request that may be answered: 400, 414, 417, 431, 503. 0: the stream is malformed. */
    uint16_t status;
    /* It ends, too. AG_EPROTO: COMPRESSION_ERROR. AG_ELIMIT: so many fields are beyond the limits that it is
     * a flood. AG_ENOMEM: of the tables, which now disagree. */
    bool connection;
    const char *why; /* static, for the log and the answer */
};

/*
 * Reads a request's section.
 *   block   the whole section (HEADERS and CONTINUATION without padding and priority)
 *   limits  line_max bounds method and path, head_max the fields (each its size + 32), field_max their number
 *   out     zeroed but for fields.v and fields.cap, which may have room
 *   arena   the exchange's: all text that is not static goes there. What is larger than one of its pages
 *           needs one that may take large buffers (ag_arena_widen)
 *
 * Sets version AG_HTTP_2, framing AG_FRAMING_H2 (the caller makes it NONE when the stream ends here),
 * content_length, protocol, received_count; host, authority, port, path and query as h1_parse does;
 * https_target by :scheme. keep_alive is true. expect_continue as for HTTP/1. The fields have one Host in
 * any case, which says the authority, and one Cookie at most.
 *
 * AG_OK, AG_EPROTO, AG_ELIMIT or AG_ENOMEM with *out_error set; method and method_name are set then, too, if
 * they were read: an answer to HEAD has no content.
 */
AG_MUST_USE enum ag_status ag_h2_read_request(struct ag_hpack_decoder *d, struct ag_span block,
                                              const struct ag_h1_limits *limits,
                                              struct ag_request *out, struct ag_arena *arena,
                                              struct ag_h2_field_error *out_error);

/* The same for a response's, final or interim (101 is malformed, RFC 9113 section 8.6). Sets framing: TUNNEL
 * for 2xx to CONNECT, NONE where `request_method` or the status have no content, else H2; and
 * content_length as told. */
AG_MUST_USE enum ag_status ag_h2_read_response(struct ag_hpack_decoder *d, struct ag_span block,
                                               const struct ag_h1_limits *limits,
                                               enum ag_method request_method,
                                               struct ag_response *out, struct ag_arena *arena,
                                               struct ag_h2_field_error *out_error);

/* Trailers: no pseudo-field; those that h1_parse leaves out of trailers are left out. */
AG_MUST_USE enum ag_status ag_h2_read_trailers(struct ag_hpack_decoder *d, struct ag_span block,
                                               const struct ag_h1_limits *limits,
                                               struct ag_fields *out, struct ag_arena *arena,
                                               struct ag_h2_field_error *out_error);

/* Decodes a section for its effect on the table alone (refused streams). AG_EPROTO, AG_ELIMIT or
 * AG_ENOMEM end the connection, as above. */
AG_MUST_USE enum ag_status ag_h2_skip_section(struct ag_hpack_decoder *d, struct ag_span block,
                                              const struct ag_h1_limits *limits);

/* ---- sending ---- */

/* An upper bound of what the ag_h2_put_* below write for it. */
size_t ag_h2_response_max(const struct ag_response *res);
size_t ag_h2_request_max(const struct ag_request *req, struct ag_span target, struct ag_span host);
size_t ag_h2_fields_max(const struct ag_fields *fields);

/* Append a whole section. `out` has room for the bound; names are written in lower case, values without
 * space around them. Fields that belong to a connection (RFC 9113 section 8.2.2), Host, and removed ones
 * are left out; `te_trailers` adds "te: trailers". Content-Length goes by framing: LENGTH as told, H2 and
 * NONE when it is known, as in HTTP/1. An ordinary CONNECT has neither scheme nor path.
 *   date  "date"'s value; empty: none is added (interim answers, or the fields hold one) */
void ag_h2_put_response(struct ag_hpack_encoder *e, struct ag_buf *out,
                        const struct ag_response *res, struct ag_span date);
void ag_h2_put_request(struct ag_hpack_encoder *e, struct ag_buf *out, const struct ag_request *req,
                       struct ag_span scheme, struct ag_span target, struct ag_span host,
                       bool te_trailers);
void ag_h2_put_trailers(struct ag_hpack_encoder *e, struct ag_buf *out,
                        const struct ag_fields *trailers);

/* ---- answers made at load ---- */

/* A section that changes no table and uses none but the static one: valid on every connection at any time.
 * Without date. `out` has room for ag_h2_response_max. */
void ag_h2_prepare(struct ag_buf *out, const struct ag_response *res);
/* The field "date" in the same form; AG_H2_DATE_BYTES at most. */
#define AG_H2_DATE_BYTES 32u
void ag_h2_prepare_date(struct ag_buf *out, struct ag_span date);

/* ---- priorities (RFC 9218) ---- */

struct ag_h2_priority {
    uint8_t urgency;  /* 0 the most urgent .. 7, default 3 */
    bool incremental; /* default false */
};
#define AG_H2_PRIORITY_DEFAULT ((struct ag_h2_priority){3, false})
/* Reads a Priority field's value, or that of a PRIORITY_UPDATE frame; what it does not tell keeps the value
 * in `p`. A malformed one changes nothing (RFC 9218 section 5; RFC 8941 dictionaries). */
void ag_h2_priority_read(struct ag_span value, struct ag_h2_priority *p);
