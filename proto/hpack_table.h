/*
 * hpack_table: what an index means (RFC 7541 section 2.3): the static table, and the dynamic table of one
 * direction. For hpack_*.c alone.
 *
 *   entries   a ring; next - 1 is the newest, next - count the oldest
 *   text      a ring; each entry's name, and its value behind it, in the order of the entries
 *
 * An entry counts 32 bytes beside its text, so text that counts as no more than the table's bound fits
 * into a ring that is one entry's 32 bytes smaller.
 */
#pragma once
#include "proto/hpack.h"

#define AG_HPACK_STATIC 61u

struct ag_hpack_static {
    struct ag_span name, value;
    uint8_t id; /* enum ag_field_id */
};
extern const struct ag_hpack_static ag_hpack_static[AG_HPACK_STATIC + 1]; /* [0] is none */

void ag_hpack_table_init(struct ag_hpack_table *t, struct ag_arena *memory);

/* Entries are evicted until they fit into `max_bytes` (at most AG_HPACK_TABLE_BYTES). */
void ag_hpack_table_resize(struct ag_hpack_table *t, uint32_t max_bytes);

/* Evicts all. */
void ag_hpack_table_clear(struct ag_hpack_table *t);

/* Adds what is not in the table's own text, and evicts for it; what is larger than the table empties it
 * (section 4.4). AG_ENOMEM: the first entry found no memory. */
AG_MUST_USE enum ag_status ag_hpack_table_add(struct ag_hpack_table *t, struct ag_span name,
                                              struct ag_span value, uint8_t id, uint32_t hash);

/* Copies the text of `e`, from its byte `from` on. */
void ag_hpack_table_copy(const struct ag_hpack_table *t, const struct ag_hpack_entry *e,
                         size_t from, size_t len, uint8_t *to);
/* Whether the text of `e` is `s` there. */
bool ag_hpack_table_is(const struct ag_hpack_table *t, const struct ag_hpack_entry *e, size_t from,
                       struct ag_span s);

/* The entry of that age, 0 is the newest; NULL: there is none. */
static inline struct ag_hpack_entry *ag_hpack_table_at(const struct ag_hpack_table *t, uint64_t age)
{
    return age < t->count
               ? &t->entries[(t->next + AG_HPACK_ENTRIES_MAX - 1 - age) % AG_HPACK_ENTRIES_MAX]
               : NULL;
}
