/*
 * content: the bytes of a message's content, a function of its key and the place. A wrong byte, a piece
 * twice, left out or of another message does not go unseen.
 */
#pragma once
#include "tests/sim/world.h"

#define CONTENT_PERIOD 65521u

/* Up to `max` bytes from `offset` on, in one piece; at least 1. */
struct ag_span content_at(uint64_t key, uint64_t offset, size_t max);
/* True when `s` is what lies at `offset`. */
bool content_is(uint64_t key, uint64_t offset, struct ag_span s);
void content_fill(uint64_t key, uint64_t offset, uint8_t *to, size_t len);
