/*
 * Field sections, one after another on one connection: a decoder that keeps little and one that keeps all
 * agree on the table and on what is malformed; the table counts right and within its bound; and what was
 * decoded comes out again of our encoder and a third decoder.
 *
 *   input: [ bytes kept by the one that keeps little | sections: length, bytes ]
 */
#include "proto/hpack.h"
#include "proto/hpack_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECTION_MAX 1024u
#define FIELDS_MAX  SECTION_MAX
#define PAGES       12u

struct side {
    struct ag_arena memory;
    struct ag_hpack_decoder decoder;
};

static struct ag_pool pages;
static struct side all, little, again;
static struct ag_hpack_encoder encoder;
static struct ag_arena encoder_memory;
static uint8_t text[2][SECTION_MAX * AG_HPACK_TABLE_BYTES];

/* Just as much as was asked for; `text` has room for all that can come. */
static enum ag_status more(struct ag_hpack_section *s, size_t bytes)
{
    AG_ASSERT(bytes > 0 && bytes <= s->left_bytes);
    s->text = ag_buf(s->text.ptr + s->text.len, bytes);
    return AG_OK;
}

static void check_table(const struct ag_hpack_table *t)
{
    const struct ag_hpack_entry *e;
    uint32_t bytes = 0, count = 0;

    for (; (e = ag_hpack_table_at(t, count)); count++) {
        bytes += e->name_len + e->value_len + AG_HPACK_ENTRY_BYTES;
    }
    AG_ASSERT(count == t->count && bytes == t->bytes && bytes <= t->max_bytes);
}

static void check_same(const struct ag_hpack_table *a, const struct ag_hpack_table *b)
{
    AG_ASSERT(a->count == b->count && a->bytes == b->bytes && a->max_bytes == b->max_bytes);
    for (uint32_t i = 0; i < a->count; i++) {
        const struct ag_hpack_entry *x = ag_hpack_table_at(a, i), *y = ag_hpack_table_at(b, i);
        uint8_t bytes[AG_HPACK_TEXT_BYTES];
        size_t len;

        AG_ASSERT(x && y && x->name_len == y->name_len && x->value_len == y->value_len);
        len = (size_t)x->name_len + x->value_len;
        ag_hpack_table_copy(a, x, 0, len, bytes);
        AG_ASSERT(ag_hpack_table_is(b, y, 0, ag_span(bytes, len)));
    }
}

/* Its fields go to `fields` as far as they are kept; AG_AGAIN or AG_EPROTO. */
static enum ag_status decode(struct side *side, struct ag_span in, size_t left_bytes, unsigned room,
                             struct ag_field fields[static FIELDS_MAX], size_t *out_count)
{
    struct ag_hpack_section s = {
        .in = in, .text = ag_buf(text[room], 0), .more = more, .left_bytes = left_bytes};
    size_t count = 0, bytes = 0;
    enum ag_status st;

    do {
        struct ag_field f;

        st = ag_hpack_next(&side->decoder, &s, &f);
        if (st == AG_OK) {
            AG_ASSERT(f.id == ag_field_id_from_name(ag_field_key(&f)));
            AG_ASSERT(count < FIELDS_MAX);
            fields[count++] = f;
            bytes += f.name_len + f.value_len + AG_HPACK_ENTRY_BYTES;
        }
    } while (st == AG_OK || st == AG_ELIMIT);
    AG_ASSERT(st == AG_AGAIN || st == AG_EPROTO);
    AG_ASSERT(bytes <= left_bytes);
    check_table(&side->decoder.table);
    *out_count = count;
    return st;
}

static bool is_lower(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != ag_ascii_lower(s.ptr[i])) {
            return false;
        }
    }
    return true;
}

static void encode_again(const struct ag_field *fields, size_t count)
{
    static uint8_t bytes[sizeof(text[0])];
    static struct ag_field back[FIELDS_MAX];
    struct ag_buf out = ag_buf(bytes, sizeof(bytes));
    size_t back_count;

    ag_hpack_begin(&encoder, &out);
    for (size_t i = 0; i < count; i++) {
        struct ag_span name = ag_field_key(&fields[i]), value = ag_field_value(&fields[i]);

        ag_hpack_put(&encoder, &out,
                     is_lower(name) ? (enum ag_field_id)fields[i].id : AG_FIELD_OTHER, name, value,
                     (enum ag_hpack_indexing)((name.len + value.len) % 4));
    }
    AG_ASSERT(!out.overflow);
    AG_ASSERT(decode(&again, ag_buf_span(&out), sizeof(text[1]), 1, back, &back_count) == AG_AGAIN);
    AG_ASSERT(back_count == count);
    for (size_t i = 0; i < count; i++) {
        AG_ASSERT(ag_span_eq(ag_field_key(&back[i]), ag_field_key(&fields[i])));
        AG_ASSERT(ag_span_eq(ag_field_value(&back[i]), ag_field_value(&fields[i])));
    }
    check_same(&encoder.table, &again.decoder.table);
}

static void begin(struct side *side)
{
    ag_arena_init(&side->memory, &pages, PAGES);
    ag_hpack_decoder_init(&side->decoder, &side->memory);
}

static void sections(struct ag_span in, size_t kept)
{
    static struct ag_field fields[FIELDS_MAX], some[FIELDS_MAX];

    while (in.len > 1) {
        size_t len = ag_min_size(in.ptr[0] * 4u, in.len - 1), count, some_count;
        struct ag_span section = ag_span_sub(in, 1, 1 + len);
        enum ag_status st = decode(&all, section, sizeof(text[0]), 0, fields, &count);

        AG_ASSERT(decode(&little, section, kept, 1, some, &some_count) == st);
        check_same(&all.decoder.table, &little.decoder.table);
        if (st == AG_EPROTO) {
            return;
        }
        encode_again(fields, count);
        if (len % 7 == 0) {
            ag_hpack_resize(&encoder, (uint32_t)len * 16);
        }
        in = ag_span_sub(in, 1 + len, in.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    if (!pages.count) {
        AG_ASSERT(ag_pool_init(&pages, "pages", AG_ARENA_PAGE_BYTES, 4 * PAGES) == AG_OK);
    }
    begin(&all);
    begin(&little);
    begin(&again);
    ag_arena_init(&encoder_memory, &pages, PAGES);
    ag_hpack_encoder_init(&encoder, &encoder_memory);
    sections(ag_span(data + 1, size - 1), data[0] * 8u);
    ag_arena_release(&all.memory);
    ag_arena_release(&little.memory);
    ag_arena_release(&again.memory);
    ag_arena_release(&encoder_memory);
    return 0;
}
