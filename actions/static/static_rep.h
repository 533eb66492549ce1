/*
 * static_rep: a file as it is represented in answers: validators, fields, status by the request.
 *
 *   stat, settings --> struct ag_static_rep --respond--> 200, 206, 304, 412 or 416, and which bytes follow
 */
#pragma once
#include "actions/static/conditional.h"
#include "actions/static/static_config.h"
#include "actions/static/static_parts.h"

#define AG_ETAG_STRONG_LEN 34u /* 32 hex digits in quotes */
#define AG_ETAG_WEAK_MAX   55u /* W/"mtime-size-inode" */

struct ag_static_rep {
    struct ag_span type;
    struct ag_span last_modified; /* IMF-fixdate */
    struct ag_span cache_control; /* empty: none */
    struct ag_validators validators;
    uint64_t size_bytes;
};

/* Cache-Control by name and settings; a span of the snapshot or static. `fallback`: the file stands in
 * for a path of a single-page application. */
struct ag_span ag_static_cache_control(const struct ag_static_settings *s, struct ag_span path,
                                       bool fallback);
/* True for names that bundlers give content hashes to: "app.3f2a9c1b.js", "index-Bx7_Kd2Q.css". */
bool ag_static_name_is_hashed(struct ag_span name);

/* Writes a strong entity-tag: XXH3-128 of the content. */
void ag_static_etag_of_content(struct ag_buf *out, struct ag_span content);
/* Writes a weak entity-tag from time, size and inode. */
void ag_static_etag_of_stat(struct ag_buf *out, const struct ag_file_stat *st);

/* Fields of a 200, in order, into `v`; returns how many. Content-Length comes by the framing. */
#define AG_STATIC_FIELDS 5u
uint16_t ag_static_fields(const struct ag_static_rep *rep,
                          struct ag_field v[static AG_STATIC_FIELDS]);

/*
 * Answers with the head that the request's conditions and ranges ask for. Values of `rep` are copied.
 * True: *out must now be written to ex->res_body, which is then ended, and released; false: there is nothing to
 * release, and the answer is complete, or an error that fails the exchange: 412, or 416 with Content-Range.
 */
AG_MUST_USE bool ag_static_respond(struct ag_exchange *ex, const struct ag_static_rep *rep,
                                   struct ag_static_content *out);
