/*
 * uri: request targets and path normalisation (RFC 3986 sections 5.2.4 and 6.2.2, RFC 9112 3.2).
 *
 *   "/a/./b/../%7Ec%2Fd//e"  ->  "/a/~c%2Fd//e"
 *
 * Unreserved characters are decoded, dot segments removed (also when written %2e), the hex digits
 * of what stays encoded are upper-cased; "//" is kept; "%2F" and "%5C" stay as they are; NUL
 * ("%00"), broken escapes and raw bytes outside of VCHAR are refused. 8-bit bytes in a target are
 * refused (they must be percent-encoded), and so are "#", "?" and a raw "\" in a path: some servers
 * take a backslash for a slash. ".." above the root stops at the root.
 */
#pragma once
#include "engine/span.h"

/* True when `path` is its own normal form: no copy is needed. */
bool ag_path_is_normal(struct ag_span path);
/* Appends the normal form, never longer than the input, for which there must be room. AG_EPROTO:
 * not a valid path; nothing is appended then. */
AG_MUST_USE enum ag_status ag_path_normalise(struct ag_span path, struct ag_buf *out);
/* Appends the path with all escapes decoded once, for the file system; there must be room for as
 * many bytes as the input has. AG_EPROTO: NUL or "%2F" (no such file can exist), or a broken
 * escape. */
AG_MUST_USE enum ag_status ag_path_decode(struct ag_span path, struct ag_buf *out);
/* Checks a query: pchar, "/", "?", and the bytes browsers send raw ([]{}|^`"<>\ and a "%" that
 * begins no escape), no "#", CTL or 8-bit. */
bool ag_query_is_valid(struct ag_span query);

/* host [":" port] of RFC 3986 3.2 without user info: reg-name, IPv4, or bracketed IPv6. The port,
 * when given, is 1..65535. AG_EPROTO else. Empty hosts are refused, and so are a ":" without a
 * port, escapes in a name (no name in use has them, and they would give one host two spellings),
 * IPv6 zones and IPvFuture. */
AG_MUST_USE enum ag_status ag_authority_parse(struct ag_span authority, struct ag_span *out_host,
                                              uint16_t *out_port);
