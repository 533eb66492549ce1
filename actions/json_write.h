/*
 * json_write: JSON text into pooled buffers, for answers made per request. Nothing is malloc'ed.
 *
 *   put, string, base64 --> chain of slices: small buffers first, then large ones
 *
 * A failure (no buffer, or more than the limit) is remembered and later calls do nothing, so a long
 * sequence of puts is checked once.
 */
#pragma once
#include "engine/loop.h"

struct ag_json_out {
    struct ag_loop *loop;
    struct ag_chain done;   /* full buffers, and the last one after finish */
    struct ag_block *block; /* being filled, or NULL */
    uint32_t used;          /* bytes of it */
    uint64_t bytes;         /* written in all */
    uint64_t limit_bytes;
    bool failed;
};

void ag_json_init(struct ag_json_out *o, struct ag_loop *l, uint64_t limit_bytes);
/* Moves the last buffer into `done`. False: something failed; nothing is left in `done`. */
AG_MUST_USE bool ag_json_finish(struct ag_json_out *o);
/* Gives all buffers back. */
void ag_json_release(struct ag_json_out *o);

/* As they are. */
void ag_json_put(struct ag_json_out *o, struct ag_span bytes);
void ag_json_u64(struct ag_json_out *o, uint64_t value);
/* A string in quotes. Bytes that are not UTF-8 are written as U+0080 to U+00FF (ISO 8859-1), which is
 * how HTTP fields read them (RFC 9110 section 5.5). */
void ag_json_string(struct ag_json_out *o, struct ag_span text);
/* A string in quotes: base64 with padding (RFC 4648 section 4). */
void ag_json_base64(struct ag_json_out *o, struct ag_span bytes);

/* One character of `text` at *at in the form a JSON string wants, into `out` (6 bytes of room); *at
 * moves on. Returns the bytes written. */
size_t ag_json_escape(struct ag_span text, size_t *at, uint8_t out[static 6]);
