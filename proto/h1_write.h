/*
 * h1_write: heads onto a stream (RFC 9112). A head that fits one small buffer is measured first and
 * written into one reservation; a longer one goes in pieces. Removed fields are left out. Field names
 * and values were validated when they came in: nothing here can write CR or LF from them.
 */
#pragma once
#include "engine/stream.h"
#include "proto/http.h"

/* Date, formatted once a second for each form and kept by the shard. May begin as zeros. */
struct ag_date_cache {
    int64_t second;
    uint8_t line[37]; /* "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" */
    uint8_t h2_len;
    uint8_t h2[32]; /* the same as a field of HTTP/2 (ag_h2_prepare_date) */
    int64_t h2_second;
};
/* Formats the line anew. */
void ag_date_renew(struct ag_date_cache *d, int64_t wall_s);
/* Each for now, and valid until the next call: the line; its value alone; the field of HTTP/2. */
static inline struct ag_span ag_date_line(struct ag_date_cache *d, int64_t wall_s)
{
    if (ag_unlikely(d->second != wall_s || d->line[0] == 0)) {
        ag_date_renew(d, wall_s);
    }
    return ag_span(d->line, sizeof(d->line));
}
struct ag_span ag_date_value(struct ag_date_cache *d, int64_t wall_s);
struct ag_span ag_date_h2(struct ag_date_cache *d, int64_t wall_s);

/* What the connection adds to a response head. */
struct ag_h1_response_opts {
    struct ag_span date_line; /* empty: none (the fields hold one) */
    bool close;               /* "Connection: close" */
    bool keep_alive_10;       /* "Connection: keep-alive" for HTTP/1.0 clients */
    bool upgrade; /* 101: "Connection: Upgrade"; the Upgrade field is among the fields */
};

/* Writes the status line, the fields that are neither removed nor framing or connection-specific, then
 * Content-Length or Transfer-Encoding as res->framing says, the options' lines and the empty line.
 * Status 1xx and 204 get no framing field (RFC 9110 8.6). AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_h1_write_response(struct ag_stream *s, const struct ag_response *res,
                                                const struct ag_h1_response_opts *opts);

/* Writes "METHOD target HTTP/1.1", Host first, the fields (framing and connection-specific ones left
 * out), framing by req->framing, then Connection as told.
 *   target  origin-form, with the query
 *   host    the Host value */
struct ag_h1_request_opts {
    struct ag_span target;
    struct ag_span host;
    bool close;       /* "Connection: close" */
    bool upgrade;     /* "Connection: Upgrade" and the Upgrade field kept */
    bool te_trailers; /* "TE: trailers" */
};
AG_MUST_USE enum ag_status ag_h1_write_request(struct ag_stream *s, const struct ag_request *req,
                                               const struct ag_h1_request_opts *opts);

/* "0\r\n", trailers, "\r\n". `trailers` may be NULL. */
AG_MUST_USE enum ag_status ag_h1_write_last_chunk(struct ag_stream *s,
                                                  const struct ag_fields *trailers);
