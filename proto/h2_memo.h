/*
 * h2_memo: a field section that comes again byte for byte, as that of a client does which asks for the same thing many
 * times, and that of an upstream which answers alike: what it says is not worked out again.
 *
 *   section --same bytes, table and limits--> the message that was kept; its text is copied into the arena
 *       `---- any other: ag_h2_read_request or _response, and kept when it came twice in a row
 *
 * What a section says follows from its bytes, the dynamic table, the limits and, of a response, the request's method
 * alone, and one that leaves the table as it was has no other effect. So the message that was kept is what reading
 * would give. What was refused is never kept.
 */
#pragma once
#include "proto/h2_fields.h"

/* What is larger is read each time. */
#define AG_H2_MEMO_BLOCK  128u
#define AG_H2_MEMO_TEXT   640u
#define AG_H2_MEMO_FIELDS 16u

/* Of requests or of responses to one side of a connection. All zero is empty. */
struct ag_h2_memo {
    uint64_t changes; /* of the decoder's table, when the section came */
    struct ag_h1_limits limits;
    uint16_t block_len; /* 0: none came yet that may be kept */
    uint16_t text_len;
    uint8_t method; /* a response's request's; AG_METHOD_OTHER */
    bool kept;      /* it came twice, and this is what it says: */
    union {         /* spans lie in `text`, or are static; fields are `fields` */
        struct ag_request request;
        struct ag_response response;
    };
    struct ag_field fields[AG_H2_MEMO_FIELDS];
    uint8_t block[AG_H2_MEMO_BLOCK];
    uint8_t text[AG_H2_MEMO_TEXT];
};
/* It shares a page with the table's entries (hpack_table.c). */
_Static_assert(sizeof(struct ag_h2_memo) + AG_HPACK_ENTRIES_MAX * sizeof(struct ag_hpack_entry) <=
                   AG_ARENA_ALLOC_MAX,
               "a page has room for both");

/* ag_h2_read_request, by way of `m`, which is one decoder's; NULL: without. out->tls stays as it is. */
AG_MUST_USE enum ag_status ag_h2_memo_request(struct ag_h2_memo *m, struct ag_hpack_decoder *d,
                                              struct ag_span block,
                                              const struct ag_h1_limits *limits,
                                              struct ag_request *out, struct ag_arena *arena,
                                              struct ag_h2_field_error *out_error);

/* ag_h2_read_response, the same way. */
AG_MUST_USE enum ag_status ag_h2_memo_response(struct ag_h2_memo *m, struct ag_hpack_decoder *d,
                                               struct ag_span block,
                                               const struct ag_h1_limits *limits,
                                               enum ag_method request_method,
                                               struct ag_response *out, struct ag_arena *arena,
                                               struct ag_h2_field_error *out_error);
