/* mime: a media type from a file name's extension. */
#pragma once
#include "engine/span.h"

/* A type of the administrator's, before the built-in table. */
struct ag_mime_override {
    struct ag_span extension; /* lower case, without the dot */
    struct ag_span type;
};

struct ag_mime_table {
    const struct ag_mime_override *v;
    size_t count;
};

/* Longest extension that is looked up, bytes. */
#define AG_MIME_EXTENSION_MAX 16u

/* Longest value, bytes. */
#define AG_MIME_TYPE_MAX 128u

/* The value of Content-Type for a file of this name (last path segment, or a whole path); text types
 * come with charset=utf-8. Unknown: application/octet-stream. `overrides` may be NULL. */
struct ag_span ag_mime_type(struct ag_span name, const struct ag_mime_table *overrides);
/* What follows the last dot of the last segment, as written; empty when there is none, or when the dot
 * is the segment's first byte (".profile"). */
struct ag_span ag_mime_extension(struct ag_span name);
