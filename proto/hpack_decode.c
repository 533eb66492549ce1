#include "proto/hpack_huffman.h"
#include "proto/hpack_table.h"

/* Integers are lengths and indices: what is larger than this means nothing. */
#define INTEGER_MAX (1u << 24)
#define NO_INTEGER  UINT32_MAX

void ag_hpack_decoder_init(struct ag_hpack_decoder *d, struct ag_arena *memory)
{
    d->scratch = NULL;
    ag_hpack_table_init(&d->table, memory);
}

/* ---- primitives (section 5) ---- */

/* What follows a first byte that says no more than `value`; it is at in->ptr[0]. */
static AG_NOINLINE uint32_t take_long_integer(struct ag_span *in, uint32_t value)
{
    size_t at = 1;
    unsigned shift = 0;
    uint8_t byte;

    do {
        if (at == in->len || shift > 21) {
            return NO_INTEGER;
        }
        byte = in->ptr[at++];
        value += (uint32_t)(byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    *in = ag_span_sub(*in, at, in->len);
    return value > INTEGER_MAX ? NO_INTEGER : value;
}

/* The integer whose first byte has `bits` bits of it, at the start of `in`; NO_INTEGER: there is none. */
static inline uint32_t take_integer(struct ag_span *in, unsigned bits)
{
    uint32_t max = (1u << bits) - 1, value;

    if (ag_unlikely(in->len == 0)) {
        return NO_INTEGER;
    }
    value = in->ptr[0] & max;
    if (ag_unlikely(value == max)) {
        return take_long_integer(in, value);
    }
    *in = ag_span(in->ptr + 1, in->len - 1);
    return value;
}

/* A string as it was sent. */
struct literal {
    struct ag_span raw;
    bool huffman;
};

static enum ag_status take_literal(struct ag_span *in, struct literal *out)
{
    bool huffman = in->len > 0 && in->ptr[0] & 0x80;
    uint32_t len = take_integer(in, 7);

    if (len > in->len) { /* or there was none */
        return AG_EPROTO;
    }
    *out = (struct literal){ag_span(in->ptr, len), huffman};
    *in = ag_span(in->ptr + len, in->len - len);
    return AG_OK;
}

static size_t literal_max(const struct literal *l)
{
    return l->huffman ? ag_huffman_decoded_max(l->raw.len) : l->raw.len;
}

/* AG_ELIMIT: no room. */
static enum ag_status put_literal(struct ag_buf *out, const struct literal *l)
{
    if (l->huffman) {
        return ag_huffman_decode(out, l->raw);
    }
    if (l->raw.len > out->cap - out->len) {
        return AG_ELIMIT;
    }
    ag_buf_put(out, l->raw);
    return AG_OK;
}

/* ---- a field (section 6) ---- */

/* One with a literal value, as it stands in the section; what else is not literal is an index. */
struct source {
    const struct ag_hpack_static *known;  /* or */
    const struct ag_hpack_entry *dynamic; /* or NULL: the name is literal */
    bool add;                             /* to the dynamic table */
    struct literal name, value;
};

static enum ag_status take_index(const struct ag_hpack_table *t, struct ag_span *in, unsigned bits,
                                 struct source *out)
{
    uint32_t index = take_integer(in, bits);

    if (index > AG_HPACK_STATIC) { /* or there was none */
        out->dynamic = ag_hpack_table_at(t, index - AG_HPACK_STATIC - 1);
        return out->dynamic ? AG_OK : AG_EPROTO;
    }
    out->known = index ? &ag_hpack_static[index] : NULL;
    return AG_OK;
}

static enum ag_status take_field(const struct ag_hpack_table *t, struct ag_span *in,
                                 struct source *out)
{
    *out = (struct source){.add = (in->ptr[0] & 0xc0) == 0x40};
    if (take_index(t, in, out->add ? 6 : 4, out) != AG_OK) {
        return AG_EPROTO;
    }
    if (!out->known && !out->dynamic && take_literal(in, &out->name) != AG_OK) {
        return AG_EPROTO;
    }
    return take_literal(in, &out->value);
}

/* The bytes of text that it may come to. */
static size_t text_max(const struct source *s)
{
    size_t name = s->known ? 0 : s->dynamic ? s->dynamic->name_len : literal_max(&s->name);

    return name + literal_max(&s->value);
}

/* Name and value; what is not static lies in `text` then. AG_ELIMIT: no room. */
static enum ag_status read_field(const struct ag_hpack_table *t, const struct source *s,
                                 struct ag_buf *text, struct ag_span *out_name,
                                 struct ag_span *out_value)
{
    size_t from = text->len, name_len;
    enum ag_status st = AG_OK;

    if (s->dynamic) {
        size_t len = s->dynamic->name_len;

        if (len > text->cap - text->len) {
            return AG_ELIMIT;
        }
        ag_hpack_table_copy(t, s->dynamic, 0, len, text->ptr + text->len);
        text->len += len;
    } else if (!s->known) {
        st = put_literal(text, &s->name);
    }
    name_len = s->dynamic ? s->dynamic->name_len : text->len - from;
    if (st == AG_OK) {
        st = put_literal(text, &s->value);
    }
    if (st != AG_OK) {
        text->len = from;
        return st;
    }
    *out_name = s->known ? s->known->name : ag_span(text->ptr + from, name_len);
    *out_value = ag_span(text->ptr + from + name_len, text->len - from - name_len);
    return AG_OK;
}

static enum ag_status check_literal(uint8_t *scratch, const struct literal *l)
{
    struct ag_buf text = ag_buf(scratch, AG_HPACK_TEXT_BYTES);
    enum ag_status st = put_literal(&text, l);

    return st == AG_ELIMIT ? AG_OK : st; /* more is not looked at */
}

/* A field that is not kept still has to be well-formed, and may change the table. What does not is not
 * copied: a few bytes may stand for a whole table's text. */
static enum ag_status pass_over(struct ag_hpack_decoder *d, const struct source *s)
{
    struct ag_span name, value;
    struct ag_buf text;
    enum ag_status st = AG_OK;

    d->scratch = d->scratch ? d->scratch : ag_arena_alloc(d->table.memory, AG_HPACK_TEXT_BYTES);
    if (!d->scratch) {
        return AG_ENOMEM;
    }
    if (!s->add) {
        st = s->known || s->dynamic ? AG_OK : check_literal(d->scratch, &s->name);
        return st == AG_OK ? check_literal(d->scratch, &s->value) : st;
    }
    text = ag_buf(d->scratch, AG_HPACK_TEXT_BYTES);
    st = read_field(&d->table, s, &text, &name, &value);
    if (st == AG_ELIMIT) { /* larger than any table */
        ag_hpack_table_clear(&d->table);
        return AG_OK;
    }
    return st == AG_OK
               ? ag_hpack_table_add(&d->table, name, value, (uint8_t)ag_field_id_from_name(name), 0)
               : st;
}

/* ---- sections ---- */

/* A dynamic table size update (section 6.3): only at the start, and no more than was allowed. */
static enum ag_status update_size(struct ag_hpack_decoder *d, struct ag_hpack_section *s)
{
    uint32_t size = take_integer(&s->in, 5);

    if (s->begun || size > AG_HPACK_TABLE_BYTES) { /* or there was none */
        return AG_EPROTO;
    }
    ag_hpack_table_resize(&d->table, size);
    return AG_OK;
}

/* Room for that much; less when there is none. AG_ENOMEM. */
static inline enum ag_status make_room(struct ag_hpack_section *s, size_t bytes)
{
    enum ag_status st = AG_OK;

    if (bytes > s->text.cap - s->text.len) {
        st = s->more(s, bytes);
    }
    return st == AG_ELIMIT ? AG_OK : st;
}

/* Counts a field that has so many bytes of text. False: it is beyond the limit. */
static inline bool count_field(struct ag_hpack_section *s, size_t len)
{
    if (ag_unlikely(len + AG_HPACK_ENTRY_BYTES > s->left_bytes)) {
        return false;
    }
    s->left_bytes -= len + AG_HPACK_ENTRY_BYTES;
    return true;
}

/* A field that is an index (section 6.1): most of those that come. */
static inline enum ag_status next_static(struct ag_hpack_section *s, uint32_t index,
                                         struct ag_field *out)
{
    const struct ag_hpack_static *k = &ag_hpack_static[index];

    s->in = ag_span(s->in.ptr + 1, s->in.len - 1);
    s->known = (uint8_t)index;
    *out = (struct ag_field){.name = k->name.ptr,
                             .value = k->value.ptr,
                             .value_len = (uint32_t)k->value.len,
                             .name_len = (uint16_t)k->name.len,
                             .id = k->id};
    return count_field(s, k->name.len + k->value.len) ? AG_OK : AG_ELIMIT;
}

/* The same of the dynamic table. */
static AG_NOINLINE enum ag_status next_dynamic(struct ag_hpack_table *t, struct ag_hpack_section *s,
                                               struct ag_field *out)
{
    uint32_t index = take_integer(&s->in, 7); /* NO_INTEGER: of no entry */
    struct ag_hpack_entry *e =
        index > AG_HPACK_STATIC ? ag_hpack_table_at(t, index - AG_HPACK_STATIC - 1) : NULL;
    uint8_t *text;
    size_t len;

    if (!e) {
        return AG_EPROTO;
    }
    len = (size_t)e->name_len + e->value_len;
    if (len + AG_HPACK_ENTRY_BYTES > s->left_bytes) {
        return AG_ELIMIT;
    }
    if (make_room(s, len) != AG_OK) {
        return AG_ENOMEM;
    }
    if (len > s->text.cap - s->text.len) {
        return AG_ELIMIT;
    }
    s->entry = e;
    text = s->text.ptr + s->text.len;
    s->text.len += len;
    ag_hpack_table_copy(t, e, 0, len, text);
    *out = (struct ag_field){.name = text,
                             .value = text + e->name_len,
                             .value_len = e->value_len,
                             .name_len = e->name_len,
                             .id = e->id};
    s->left_bytes -= len + AG_HPACK_ENTRY_BYTES;
    return AG_OK;
}

/* A field whose value, at least, is literal (section 6.2). Apart, so that what most fields take stays small. */
static AG_NOINLINE enum ag_status next_literal(struct ag_hpack_decoder *d,
                                               struct ag_hpack_section *s, struct ag_field *out)
{
    struct ag_hpack_table *t = &d->table;
    struct ag_span name, value;
    struct source source;
    enum ag_field_id id;
    enum ag_status st;
    size_t from;

    if (take_field(t, &s->in, &source) != AG_OK) {
        return AG_EPROTO;
    }
    if (make_room(s, ag_min_size(text_max(&source), s->left_bytes)) != AG_OK) {
        return AG_ENOMEM;
    }
    from = s->text.len;
    st = read_field(t, &source, &s->text, &name, &value);
    if (st == AG_ELIMIT) {
        st = pass_over(d, &source);
        return st == AG_OK ? AG_ELIMIT : st;
    }
    if (st != AG_OK) {
        return st;
    }
    id = source.known     ? (enum ag_field_id)source.known->id
         : source.dynamic ? (enum ag_field_id)source.dynamic->id
                          : ag_field_id_from_name(name);
    s->named = source.known ? (uint8_t)(source.known - ag_hpack_static) : 0;
    if (source.add) {
        st = ag_hpack_table_add(t, name, value, (uint8_t)id, 0);
        if (st != AG_OK) {
            return st;
        }
    }
    if (name.len > UINT16_MAX || !count_field(s, name.len + value.len)) {
        s->text.len = from;
        return AG_ELIMIT;
    }
    *out = (struct ag_field){.name = name.ptr,
                             .value = value.ptr,
                             .value_len = (uint32_t)value.len,
                             .name_len = (uint16_t)name.len,
                             .id = (uint8_t)id};
    return AG_OK;
}

/* There is one, and it is no update of the table's size. */
static inline enum ag_status next_field(struct ag_hpack_decoder *d, struct ag_hpack_section *s,
                                        struct ag_field *out)
{
    uint32_t first = s->in.ptr[0];

    s->begun = true;
    s->known = s->named = 0;
    s->entry = NULL;
    if (first - 0x81 < AG_HPACK_STATIC) {
        return next_static(s, first & 0x7f, out);
    }
    if (ag_unlikely(!s->text.ptr)) {
        s->text = ag_buf(s, 0); /* there is no arithmetic on NULL */
    }
    return first & 0x80 ? next_dynamic(&d->table, s, out) : next_literal(d, s, out);
}

static inline bool is_update(const struct ag_hpack_section *s)
{
    return (s->in.ptr[0] & 0xe0) == 0x20;
}

/* Behind updates of the table's size. */
static AG_NOINLINE enum ag_status next_resized(struct ag_hpack_decoder *d,
                                               struct ag_hpack_section *s, struct ag_field *out)
{
    while (s->in.len && is_update(s)) {
        if (update_size(d, s) != AG_OK) {
            return AG_EPROTO;
        }
    }
    return s->in.len ? next_field(d, s, out) : AG_AGAIN;
}

enum ag_status ag_hpack_next(struct ag_hpack_decoder *d, struct ag_hpack_section *s,
                             struct ag_field *out)
{
    if (s->in.len == 0) {
        return AG_AGAIN;
    }
    return ag_unlikely(is_update(s)) ? next_resized(d, s, out) : next_field(d, s, out);
}
