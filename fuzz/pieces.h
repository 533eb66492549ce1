/*
 * pieces: one input in one piece or in many, for targets that say that splits do not matter.
 *
 *   pieces_next         the lengths of the pieces, pseudo-random
 *   pieces_grow         feeds a head as a connection does: all bytes so far, which move about
 *   pieces_same_fields  what such targets compare
 */
#pragma once
#include "proto/http.h"

struct pieces {
    size_t left; /* bytes of the input yet to come */
    size_t most; /* bytes of a piece at most; SIZE_MAX: all in one */
    uint32_t random;
};

struct pieces pieces_of(size_t len, size_t most);
/* The next piece's length: 1 to `most`; 0 at the end. */
size_t pieces_next(struct pieces *p);

/* How a head is fed. */
struct pieces_parser {
    /* What points into [old, old + len) is to point to the same place in `to`. */
    void (*moved)(void *run, const uint8_t *old, size_t len, const uint8_t *to);
    enum ag_status (*parse)(void *run, struct ag_span so_far);
};

/*
 * Calls `parse` with the input so far until it says something else than AG_AGAIN, or at the input's
 * end. Each call sees a block cut to size, so that ASan sees any read past its end or into the block
 * before. *out_bytes is the last block, for the caller to free: what the run's spans point into.
 */
enum ag_status pieces_grow(struct ag_span in, size_t most, const struct pieces_parser *parser,
                           void *run, uint8_t **out_bytes);

/* Panics unless both lists hold the same fields in the same order. */
void pieces_same_fields(const struct ag_fields *x, const struct ag_fields *y);
