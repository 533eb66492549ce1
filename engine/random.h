#pragma once

/* Numbers by chance that one seed repeats: for the loop, and for simulated runs. Not for keys. */

#include <stdint.h>

static inline uint64_t ag_random_rotl(uint64_t x, unsigned k)
{
    return x << k | x >> (64 - k);
}

/* xoshiro256** (Blackman, Vigna: Scrambled linear pseudorandom number generators, 2018). A state of
 * nothing but zeros stays so. */
static inline uint64_t ag_random_next(uint64_t state[static 4])
{
    uint64_t result = ag_random_rotl(state[1] * 5, 7) * 9;
    uint64_t t = state[1] << 17;

    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = ag_random_rotl(state[3], 45);
    return result;
}
