/*
 * chance: where TLS libraries take time and randomness from: the run. They ask the system by themselves, past every
 * interface of the loop; so the functions of the C library that they call are the simulation's own in this
 * program: time, gettimeofday, getrandom; and OpenSSL has a hook.
 *
 * Between runs chance follows from nothing: what is made then (certificates) is the same in each process.
 */
#pragma once
#include "tests/sim/world.h"

/* Once for each process, before OpenSSL is asked for anything. */
void chance_init(void);
/* From now on they are those of `s`, whose time began at `start_s` (since the epoch). */
void chance_begin(struct sim *s, int64_t start_s);
