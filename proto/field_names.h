/*
 * field_names: the names that are known by number, for those who read many. Internal to proto/.
 *
 * A perfect hash: no two of them share length, first and last letter, and a mix of the three gives each its own slot.
 */
#pragma once
#include "proto/h1_scan.h"
#include "proto/http.h"

/* The longest is within; so two vectors compare any of them. */
#define AG_FIELD_NAME_BYTES 31u

struct ag_known_name {
    uint8_t len;
    uint8_t text[AG_FIELD_NAME_BYTES + 1]; /* the canonical spelling, then zeros */
};
/* By enum ag_field_id. */
extern const struct ag_known_name ag_known_names[AG_FIELDS];

#define AG_FIELD_SLOT(len, first, last) (((len) + (first)*3u + (last)*58u) & 255u)
/* enum ag_field_id of the only known name that may be there. */
extern const uint8_t ag_field_slots[256];

/* The one that a name of `len` > 0 bytes may be. */
static inline enum ag_field_id ag_field_candidate(const uint8_t *name, size_t len)
{
    uint32_t first = name[0] | 0x20u, last = name[len - 1] | 0x20u;
    unsigned id = ag_field_slots[AG_FIELD_SLOT((uint32_t)len, first, last)];

    return ag_known_names[id].len == len ? (enum ag_field_id)id : AG_FIELD_OTHER;
}
