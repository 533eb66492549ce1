/*
 * h2_memo: a request's field section that comes again byte for byte, as clients' do that ask for the same thing
 * many times: what it says is not worked out again.
 *
 *   section --same bytes, table and limits--> the request that was kept; its text is copied into the arena
 *       `---- any other: ag_h2_read_request, and kept when it came twice in a row
 *
 * What a section says follows from its bytes, the dynamic table and the limits alone, and one that leaves the
 * table as it was has no other effect. So the request that was kept is what reading would give. What was refused
 * is never kept.
 */
#pragma once
#include "proto/h2_fields.h"

/* What is larger is read each time. */
#define AG_H2_MEMO_BLOCK  128u
#define AG_H2_MEMO_TEXT   640u
#define AG_H2_MEMO_FIELDS 16u

/* All zero is empty. */
struct ag_h2_memo {
    uint64_t changes; /* of the decoder's table, when the section came */
    struct ag_h1_limits limits;
    uint16_t block_len; /* 0: none came yet that may be kept */
    uint16_t text_len;
    bool kept;                 /* it came twice, `request` is what it says */
    struct ag_request request; /* its spans lie in `text`, or are static; its fields are `fields` */
    struct ag_field fields[AG_H2_MEMO_FIELDS];
    uint8_t block[AG_H2_MEMO_BLOCK];
    uint8_t text[AG_H2_MEMO_TEXT];
};
/* It shares a page with the table's entries (hpack_table.c). */
_Static_assert(sizeof(struct ag_h2_memo) + AG_HPACK_ENTRIES_MAX * sizeof(struct ag_hpack_entry) <=
                   AG_ARENA_ALLOC_MAX,
               "a page has room for both");

/* ag_h2_read_request, by way of `m`, which is one decoder's; NULL: without. out->tls stays as it is. */
AG_MUST_USE enum ag_status ag_h2_memo_read(struct ag_h2_memo *m, struct ag_hpack_decoder *d,
                                           struct ag_span block, const struct ag_h1_limits *limits,
                                           struct ag_request *out, struct ag_arena *arena,
                                           struct ag_h2_field_error *out_error);
