#include "engine/siphash.h"

#include <sys/auxv.h>

struct state {
    uint64_t v[4];
};

static uint64_t rotl(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

static uint64_t load_le(const uint8_t *from, size_t len)
{
    uint64_t x = 0;

    for (size_t i = 0; i < len; i++) {
        x |= (uint64_t)from[i] << 8 * i;
    }
    return x;
}

static void store_le(uint64_t x, uint8_t out[static 8])
{
    for (unsigned i = 0; i < 8; i++) {
        out[i] = (uint8_t)(x >> 8 * i);
    }
}

static void rounds(struct state *s, unsigned count)
{
    uint64_t *v = s->v;

    for (unsigned i = 0; i < count; i++) {
        v[0] += v[1];
        v[1] = rotl(v[1], 13) ^ v[0];
        v[0] = rotl(v[0], 32);
        v[2] += v[3];
        v[3] = rotl(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotl(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotl(v[1], 17) ^ v[2];
        v[2] = rotl(v[2], 32);
    }
}

static void take_word(struct state *s, uint64_t word)
{
    s->v[3] ^= word;
    rounds(s, 2);
    s->v[0] ^= word;
}

void ag_siphash(const uint8_t key[static AG_SIPHASH_KEY], struct ag_span text,
                uint8_t out[static AG_SIPHASH_MAC])
{
    const uint64_t k0 = load_le(key, 8), k1 = load_le(key + 8, 8);
    struct state s = {{k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d) ^ 0xee,
                       k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)}};
    size_t at = 0;

    for (; text.len - at >= 8; at += 8) {
        take_word(&s, load_le(text.ptr + at, 8));
    }
    take_word(&s, (uint64_t)text.len << 56 | load_le(text.ptr + at, text.len - at));
    s.v[2] ^= 0xee;
    rounds(&s, 4);
    store_le(s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3], out);
    s.v[1] ^= 0xdd;
    rounds(&s, 4);
    store_le(s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3], out + 8);
}

void ag_siphash_derive(struct ag_span secret, struct ag_span purpose,
                       uint8_t out_derived[static AG_SIPHASH_KEY])
{
    static const uint8_t known[AG_SIPHASH_KEY] = "anygate secrets";
    uint8_t first[AG_SIPHASH_MAC], master[AG_SIPHASH_MAC];

    /* What is made under a known key could be computed backwards; what is made under that could not. */
    ag_siphash(known, secret, first);
    ag_siphash(first, secret, master);
    ag_siphash(master, purpose, out_derived);
}

void ag_siphash_process_key(struct ag_span purpose, uint8_t out_derived[static AG_SIPHASH_KEY])
{
    uintptr_t address = getauxval(AT_RANDOM);
    const uint8_t *random = (const uint8_t *)address; // NOLINT(performance-no-int-to-ptr)

    AG_ASSERT(random);
    ag_siphash_derive(ag_span(random, 16), purpose, out_derived);
}

bool ag_mac_same(const uint8_t a[static AG_SIPHASH_MAC], const uint8_t b[static AG_SIPHASH_MAC])
{
    volatile uint8_t differs = 0; /* so that no compiler leaves the loop early */

    for (unsigned i = 0; i < AG_SIPHASH_MAC; i++) {
        differs |= (uint8_t)(a[i] ^ b[i]);
    }
    return differs == 0;
}
