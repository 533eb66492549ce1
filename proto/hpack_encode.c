#include "proto/hpack_huffman.h"
#include "proto/hpack_table.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

void ag_hpack_encoder_init(struct ag_hpack_encoder *e, struct ag_arena *memory)
{
    *e = (struct ag_hpack_encoder){.least_bytes = AG_HPACK_TABLE_BYTES};
    ag_hpack_table_init(&e->table, memory);
}

/* ---- primitives (section 5) ---- */

/* What is left of it behind a first byte that is full. */
static AG_NOINLINE void put_long_integer(struct ag_buf *out, uint8_t first, uint32_t value)
{
    ag_buf_putc(out, first);
    for (; value >= 0x80; value >>= 7) {
        ag_buf_putc(out, (uint8_t)(value | 0x80));
    }
    ag_buf_putc(out, (uint8_t)value);
}

static inline void put_integer(struct ag_buf *out, uint8_t pattern, unsigned bits, uint32_t value)
{
    uint32_t max = (1u << bits) - 1;

    if (value < max) {
        ag_buf_putc(out, (uint8_t)(pattern | value));
    } else {
        put_long_integer(out, (uint8_t)(pattern | max), value - max);
    }
}

/* The shorter of its two forms. */
static void put_literal(struct ag_buf *out, struct ag_span s)
{
    size_t len = ag_huffman_length(s);

    if (len < s.len) {
        put_integer(out, 0x80, 7, (uint32_t)len);
        ag_huffman_encode_known(out, s, len);
    } else {
        put_integer(out, 0, 7, (uint32_t)s.len);
        ag_buf_put(out, s);
    }
}

/* ---- the table ---- */

void ag_hpack_resize(struct ag_hpack_encoder *e, uint32_t max_bytes)
{
    max_bytes = (uint32_t)ag_min_size(max_bytes, AG_HPACK_TABLE_BYTES);
    if (max_bytes != e->table.max_bytes) {
        ag_hpack_table_resize(&e->table, max_bytes);
        e->least_bytes = (uint16_t)ag_min_size(e->least_bytes, max_bytes);
        e->size_owed = true;
    }
}

void ag_hpack_begin(struct ag_hpack_encoder *e, struct ag_buf *out)
{
    if (ag_likely(!e->size_owed)) {
        return;
    }
    /* Smaller for a while: that evicted (section 4.2). */
    if (e->least_bytes < e->table.max_bytes) {
        put_integer(out, 0x20, 5, e->least_bytes);
    }
    put_integer(out, 0x20, 5, e->table.max_bytes);
    e->least_bytes = e->table.max_bytes;
    e->size_owed = false;
}

/* The first static entry of each name that has one. */
static const uint8_t static_of[AG_FIELDS] = {
    [AG_FIELD_ACCEPT] = 19,
    [AG_FIELD_ACCEPT_ENCODING] = 16,
    [AG_FIELD_ACCEPT_RANGES] = 18,
    [AG_FIELD_AGE] = 21,
    [AG_FIELD_ALLOW] = 22,
    [AG_FIELD_AUTHORIZATION] = 23,
    [AG_FIELD_CACHE_CONTROL] = 24,
    [AG_FIELD_CONTENT_ENCODING] = 26,
    [AG_FIELD_CONTENT_LENGTH] = 28,
    [AG_FIELD_CONTENT_RANGE] = 30,
    [AG_FIELD_CONTENT_TYPE] = 31,
    [AG_FIELD_COOKIE] = 32,
    [AG_FIELD_DATE] = 33,
    [AG_FIELD_ETAG] = 34,
    [AG_FIELD_EXPECT] = 35,
    [AG_FIELD_HOST] = 38,
    [AG_FIELD_IF_MATCH] = 39,
    [AG_FIELD_IF_MODIFIED_SINCE] = 40,
    [AG_FIELD_IF_NONE_MATCH] = 41,
    [AG_FIELD_IF_RANGE] = 42,
    [AG_FIELD_IF_UNMODIFIED_SINCE] = 43,
    [AG_FIELD_LAST_MODIFIED] = 44,
    [AG_FIELD_LOCATION] = 46,
    [AG_FIELD_PROXY_AUTHENTICATE] = 48,
    [AG_FIELD_PROXY_AUTHORIZATION] = 49,
    [AG_FIELD_RANGE] = 50,
    [AG_FIELD_REFERER] = 51,
    [AG_FIELD_RETRY_AFTER] = 53,
    [AG_FIELD_SERVER] = 54,
    [AG_FIELD_SET_COOKIE] = 55,
    [AG_FIELD_TRANSFER_ENCODING] = 57,
    [AG_FIELD_USER_AGENT] = 58,
    [AG_FIELD_VARY] = 59,
    [AG_FIELD_VIA] = 60,
    [AG_FIELD_WWW_AUTHENTICATE] = 61,
};

/* Fields that have values in the static table (section 2.3.1), too: their last entries. */
static const uint8_t last_of[] = {
    [AG_HPACK_METHOD] = 3,  [AG_HPACK_PATH] = 5, [AG_HPACK_SCHEME] = 7,
    [AG_HPACK_STATUS] = 14, [16] = 16,
};

/* A field with what is known of it. */
struct known {
    struct ag_span name; /* of one that nobody knows by its id: as it was given */
    struct ag_span value;
    uint32_t hash;
    uint8_t name_static; /* its static index, 0: none */
    uint8_t key;         /* what tells the name, 0: its text alone does */
    uint32_t whole;      /* the index of name and value, 0: none */
    uint32_t name_index; /* of the name alone, 0: none */
};

/* Names that are in the static table, and behind them those that we know else. */
#define KEY_OF(id) (AG_HPACK_STATIC + (id))
_Static_assert(KEY_OF(AG_FIELDS) < AG_HPACK_KEYS && AG_HPACK_KEYS <= UINT8_MAX, "a key is a byte");

static uint32_t hash_of(const struct known *k)
{
    uint64_t seed = k->key ? k->key : XXH3_64bits(k->name.ptr, k->name.len);

    return (uint32_t)XXH3_64bits_withSeed(k->value.ptr, k->value.len, seed);
}

static bool is_name(const struct ag_hpack_table *t, const struct ag_hpack_entry *e,
                    const struct known *k)
{
    return e->id == k->key &&
           (e->id || (e->name_len == k->name.len && ag_hpack_table_is(t, e, 0, k->name)));
}

/* In the static table. */
static void look_up_known(struct known *k)
{
    if (k->name_static < sizeof(last_of)) {
        for (unsigned i = k->name_static; i && i <= last_of[k->name_static]; i++) {
            if (ag_span_eq(ag_hpack_static[i].value, k->value)) {
                k->whole = i;
                return;
            }
        }
    }
}

static uint32_t age_of(const struct ag_hpack_table *t, uint32_t place)
{
    return (t->next + AG_HPACK_ENTRIES_MAX - 1 - place) % AG_HPACK_ENTRIES_MAX;
}

/* Where the last value of a known name was in the dynamic table: its index if it is this one, else 0. Most come again
 * so, and need no hash. */
static inline uint32_t look_up_last(const struct ag_hpack_encoder *e, uint8_t key,
                                    struct ag_span value)
{
    const struct ag_hpack_table *t = &e->table;
    uint32_t place = e->last[key], age = age_of(t, place);
    const struct ag_hpack_entry *entry;

    if (age >= t->count) {
        return 0; /* it was evicted */
    }
    entry = &t->entries[place];
    return entry->id == key && entry->value_len == value.len &&
                   ag_hpack_table_is(t, entry, entry->name_len, value)
               ? AG_HPACK_STATIC + 1 + age
               : 0;
}

/* In the dynamic table. A list goes from newer entries to older ones; nobody mends it when they are
 * evicted, which the oldest are first: it ends at a place that is free, or that a newer entry has taken. */
static void look_up(struct ag_hpack_encoder *e, struct known *k)
{
    const struct ag_hpack_table *t = &e->table;
    uint32_t place = e->newest[k->hash % AG_HPACK_LISTS], age = age_of(t, place), before = 0;

    while (age < t->count && age >= before) {
        const struct ag_hpack_entry *entry = &t->entries[place];

        if (entry->hash == k->hash && entry->value_len == k->value.len && is_name(t, entry, k) &&
            ag_hpack_table_is(t, entry, entry->name_len, k->value)) {
            k->whole = AG_HPACK_STATIC + 1 + age;
            e->last[k->key] = (uint8_t)place;
            return;
        }
        before = age + 1;
        place = entry->older;
        age = age_of(t, place);
    }
}

/* One that is not in the static table, with whatever value. */
static void look_up_name(const struct ag_hpack_table *t, struct known *k)
{
    const struct ag_hpack_entry *e;

    for (uint32_t age = 0; (e = ag_hpack_table_at(t, age)); age++) {
        if (is_name(t, e, k)) {
            k->name_index = AG_HPACK_STATIC + 1 + age;
            return;
        }
    }
}

/* ---- fields ---- */

/* A value that would evict most of what is there is not worth it. */
static bool is_worth_adding(const struct ag_hpack_table *t, size_t name_len, size_t value_len)
{
    return name_len + value_len + AG_HPACK_ENTRY_BYTES <= t->max_bytes / 2u;
}

/* Whether it was told lately; from now on it was. */
static bool comes_again(struct ag_hpack_encoder *e, uint32_t hash)
{
    uint32_t *pair = e->seen[hash % AG_HPACK_SEEN];

    if (pair[0] == hash || pair[1] == hash) {
        return true;
    }
    pair[1] = pair[0];
    pair[0] = hash;
    return false;
}

/* Whether it was added. */
static bool add(struct ag_hpack_encoder *e, const struct known *k, enum ag_hpack_indexing how)
{
    struct ag_hpack_table *t = &e->table;
    uint8_t *newest = &e->newest[k->hash % AG_HPACK_LISTS];
    uint32_t place;

    if (!is_worth_adding(t, k->name.len, k->value.len) ||
        (how != AG_HPACK_INDEX && !comes_again(e, k->hash)) ||
        ag_hpack_table_add(t, k->name, k->value, k->key, k->hash) != AG_OK) {
        return false;
    }
    place = (t->next + AG_HPACK_ENTRIES_MAX - 1) % AG_HPACK_ENTRIES_MAX;
    t->entries[place].older = *newest;
    *newest = (uint8_t)place;
    e->last[k->key] = (uint8_t)place;
    return true;
}

/* The name of a known field, as HTTP/2 has it. */
#define KNOWN_NAME_MAX 32u

static struct ag_span lower_name(enum ag_field_id id, uint8_t room[static KNOWN_NAME_MAX])
{
    struct ag_span name = ag_field_name(id);

    AG_ASSERT(name.len <= KNOWN_NAME_MAX);
    for (size_t i = 0; i < name.len; i++) {
        room[i] = ag_ascii_lower(name.ptr[i]);
    }
    return ag_span(room, name.len);
}

/* What is not in a table as a whole. */
static void put_new(struct ag_hpack_encoder *e, struct ag_buf *out, struct known k,
                    enum ag_hpack_indexing how)
{
    uint8_t room[KNOWN_NAME_MAX];

    if (k.key > AG_HPACK_STATIC) {
        k.name = lower_name((enum ag_field_id)(k.key - AG_HPACK_STATIC), room);
    }
    k.name_index = k.name_static;
    if (how <= AG_HPACK_REPEATED && k.name_index == 0) {
        look_up_name(&e->table, &k);
    }
    if (how <= AG_HPACK_REPEATED && add(e, &k, how)) {
        put_integer(out, 0x40, 6, k.name_index);
    } else {
        put_integer(out, how == AG_HPACK_SECRET ? 0x10 : 0, 4, k.name_index);
    }
    if (k.name_index == 0) {
        put_literal(out, k.name);
    }
    put_literal(out, k.value);
}

/* Any field; apart, so that what most fields take stays small. */
static AG_NOINLINE void put(struct ag_hpack_encoder *e, struct ag_buf *out, struct known k,
                            enum ag_hpack_indexing how)
{
    if (how != AG_HPACK_SECRET) {
        look_up_known(&k);
    }
    if (!k.whole && how <= AG_HPACK_REPEATED) {
        k.hash = hash_of(&k);
        look_up(e, &k);
    }
    if (ag_likely(k.whole)) {
        put_integer(out, 0x80, 7, k.whole);
    } else {
        put_new(e, out, k, how);
    }
}

/* What is where its name's last value was. */
static inline bool put_last(struct ag_hpack_encoder *e, struct ag_buf *out, uint8_t key,
                            struct ag_span value, enum ag_hpack_indexing how)
{
    uint32_t whole = how <= AG_HPACK_REPEATED && key ? look_up_last(e, key, value) : 0;

    if (whole) {
        put_integer(out, 0x80, 7, whole);
    }
    return whole != 0;
}

void ag_hpack_put_pseudo(struct ag_hpack_encoder *e, struct ag_buf *out, enum ag_hpack_pseudo name,
                         struct ag_span value, enum ag_hpack_indexing how)
{
    if (!put_last(e, out, (uint8_t)name, value, how)) {
        put(e, out,
            (struct known){.name = ag_hpack_static[name].name,
                           .value = value,
                           .name_static = (uint8_t)name,
                           .key = (uint8_t)name},
            how);
    }
}

void ag_hpack_put(struct ag_hpack_encoder *e, struct ag_buf *out, enum ag_field_id id,
                  struct ag_span name, struct ag_span value, enum ag_hpack_indexing how)
{
    uint8_t index = static_of[id], key = (uint8_t)(index                  ? index
                                                   : id != AG_FIELD_OTHER ? KEY_OF(id)
                                                                          : 0);

    if (!put_last(e, out, key, value, how)) {
        put(e, out,
            (struct known){.name = index ? ag_hpack_static[index].name : name,
                           .value = value,
                           .name_static = index,
                           .key = key},
            how);
    }
}
