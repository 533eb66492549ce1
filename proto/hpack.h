/*
 * hpack: field compression for HTTP/2 (RFC 7541).
 *
 *   field section   fields, each one byte or more: an index into what both sides know, or a literal that
 *                   may be added to it
 *   index           1 .. 61 static (appendix A) | 62 .. dynamic, the newest first
 *   dynamic table   in each direction one, of AG_HPACK_TABLE_BYTES at most, a ring of text and one of
 *                   entries; its memory is taken when something is first added
 *
 * A decoder reads a whole field section at a time: whoever collects its frames bounds it. What it gives
 * out lies in the caller's arena or in static memory, for an entry may be evicted by the next field.
 */
#pragma once
#include "proto/http.h"

/* What SETTINGS_HEADER_TABLE_SIZE is by default (RFC 9113 section 6.5.2), and what we use at most. */
#define AG_HPACK_TABLE_BYTES 4096u
/* What an entry counts beside its text (RFC 7541 section 4.1). */
#define AG_HPACK_ENTRY_BYTES 32u
#define AG_HPACK_ENTRIES_MAX (AG_HPACK_TABLE_BYTES / AG_HPACK_ENTRY_BYTES)
#define AG_HPACK_TEXT_BYTES  (AG_HPACK_TABLE_BYTES - AG_HPACK_ENTRY_BYTES)

struct ag_hpack_entry {
    uint16_t at; /* in the ring of text; name, then value; may wrap */
    uint16_t name_len, value_len;
    uint8_t id; /* decoder: enum ag_field_id; encoder: what tells the name, 0: its text alone */
    union {
        uint8_t mark; /* decoder: what its user has found out about it; 0: nothing yet */
        uint8_t
            older; /* encoder: the place of the one before with the same last bits of the hash */
    };
    uint32_t hash; /* encoder: of name and value */
};

struct ag_hpack_table {
    struct ag_arena *memory;        /* of the connection */
    struct ag_hpack_entry *entries; /* AG_HPACK_ENTRIES_MAX; NULL: nothing was added yet */
    uint8_t *text;                  /* AG_HPACK_TEXT_BYTES */
    uint64_t changes;               /* of what indices mean, so far; never goes back */
    uint16_t next;                  /* the place of the next entry; the newest is before it */
    uint16_t count;
    uint16_t text_end;  /* where the next entry's text goes */
    uint16_t bytes;     /* as RFC 7541 section 4.1 counts */
    uint16_t max_bytes; /* <= AG_HPACK_TABLE_BYTES */
};

/* ---- decoding ---- */

struct ag_hpack_decoder {
    struct ag_hpack_table table;
    uint8_t *scratch; /* AG_HPACK_TEXT_BYTES, once a field was beyond its section's limit */
};

/* `memory` stays as long as the decoder, and is the connection's. */
void ag_hpack_decoder_init(struct ag_hpack_decoder *d, struct ag_arena *memory);

/* A field section that is being read. */
struct ag_hpack_section {
    struct ag_span in; /* what is left of it */
    /* Where the text of fields goes, that lies nowhere for good. `more` makes it a place with room for
     * `bytes` (never 0, at most left_bytes); what was written to the one before stays there. AG_ELIMIT: there
     * is no room, and the field is not kept unless it needs less. AG_ENOMEM ends the section. */
    struct ag_buf text;
    enum ag_status (*more)(struct ag_hpack_section *, size_t bytes);
    size_t
        left_bytes; /* of fields, each counted with AG_HPACK_ENTRY_BYTES (RFC 9113 section 6.5.2) */
    bool begun;     /* a field was read: no table size update any more */
    /* Of the field that was given out, as long as the next was not asked for: */
    uint8_t known; /* its static index, when that tells name and value; 0: it does not */
    uint8_t named; /* the static index that tells its name, its value being literal; 0: none does */
    struct ag_hpack_entry *entry; /* what it is a copy of, in the dynamic table; NULL: of none */
};

/*
 * The next field; the name as sent, the id by it (a pseudo-field is AG_FIELD_OTHER).
 *   AG_OK      *out; its text is static, or in the section's
 *   AG_AGAIN   the section is at its end
 *   AG_ELIMIT  the field is beyond left_bytes or `more`, and is not kept. The section has to be read to its end all the
 *              same, or both sides no longer agree on the table.
 *   AG_ENOMEM  `more`, the table or the scratch found no memory; the section cannot be read on
 *   AG_EPROTO  a COMPRESSION_ERROR of the connection (RFC 9113 section 4.3)
 */
AG_MUST_USE enum ag_status ag_hpack_next(struct ag_hpack_decoder *d, struct ag_hpack_section *s,
                                         struct ag_field *out);

/* ---- encoding ---- */

/* Hashes of fields that the encoder remembers, to know what comes again: so many pairs. */
#define AG_HPACK_SEEN 16u
/* Lists of entries, by the last bits of their hashes. */
#define AG_HPACK_LISTS 64u
/* Names that are known by a number: those of the static table, and struct ag_field's. */
#define AG_HPACK_KEYS (62u + AG_FIELDS)

struct ag_hpack_encoder {
    struct ag_hpack_table table;
    uint32_t seen[AG_HPACK_SEEN][2]; /* by the hash's last bits: told lately, and not added */
    uint8_t newest[AG_HPACK_LISTS];  /* places in the table; may be stale, see hpack_encode.c */
    uint8_t last[AG_HPACK_KEYS];     /* of each known name: the place of its last value; the same */
    uint16_t least_bytes; /* of the sizes since the last section; to be told when below max_bytes */
    bool size_owed;       /* the next section begins with a table size update */
};

void ag_hpack_encoder_init(struct ag_hpack_encoder *e, struct ag_arena *memory);

/* The peer's SETTINGS_HEADER_TABLE_SIZE: a new bound from the next section on (section 4.2). */
void ag_hpack_resize(struct ag_hpack_encoder *e, uint32_t max_bytes);

/* How a field is told. */
enum ag_hpack_indexing {
    AG_HPACK_INDEX,    /* added to the table when it is not there: what will come again */
    AG_HPACK_REPEATED, /* added when it is told for the second time in a while */
    AG_HPACK_PLAIN,    /* not added, nor looked for: what is another one each time */
    AG_HPACK_SECRET,   /* not added by anybody on the way either (section 7.1.3) */
};

/* Pseudo-fields, by the first of their static entries. */
enum ag_hpack_pseudo {
    AG_HPACK_AUTHORITY = 1,
    AG_HPACK_METHOD = 2,
    AG_HPACK_PATH = 4,
    AG_HPACK_SCHEME = 6,
    AG_HPACK_STATUS = 8,
};

/* To be called at the start of each section. What follows sets out->overflow when there is no room, and the
 * table then no longer is the peer's: make sure of ag_hpack_field_max. */
void ag_hpack_begin(struct ag_hpack_encoder *e, struct ag_buf *out);
void ag_hpack_put_pseudo(struct ag_hpack_encoder *e, struct ag_buf *out, enum ag_hpack_pseudo name,
                         struct ag_span value, enum ag_hpack_indexing how);
/* A field by its id; AG_FIELD_OTHER: by `name`, which is in lower case. */
void ag_hpack_put(struct ag_hpack_encoder *e, struct ag_buf *out, enum ag_field_id id,
                  struct ag_span name, struct ag_span value, enum ag_hpack_indexing how);

static inline size_t ag_hpack_field_max(size_t name_len, size_t value_len)
{
    return name_len + value_len + 15; /* a prefix, and two lengths of five bytes at most */
}
