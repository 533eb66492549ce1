#include "proto/hpack_table.h"

#define KNOWN(name, value, id)                                 \
    {                                                          \
        AG_SPAN_INIT(name), AG_SPAN_INIT(value), AG_FIELD_##id \
    }
#define OTHER(name, value)                                      \
    {                                                           \
        AG_SPAN_INIT(name), AG_SPAN_INIT(value), AG_FIELD_OTHER \
    }

/* RFC 7541 appendix A. */
const struct ag_hpack_static ag_hpack_static[AG_HPACK_STATIC + 1] = {
    [1] = OTHER(":authority", ""),
    [2] = OTHER(":method", "GET"),
    [3] = OTHER(":method", "POST"),
    [4] = OTHER(":path", "/"),
    [5] = OTHER(":path", "/index.html"),
    [6] = OTHER(":scheme", "http"),
    [7] = OTHER(":scheme", "https"),
    [8] = OTHER(":status", "200"),
    [9] = OTHER(":status", "204"),
    [10] = OTHER(":status", "206"),
    [11] = OTHER(":status", "304"),
    [12] = OTHER(":status", "400"),
    [13] = OTHER(":status", "404"),
    [14] = OTHER(":status", "500"),
    [15] = OTHER("accept-charset", ""),
    [16] = KNOWN("accept-encoding", "gzip, deflate", ACCEPT_ENCODING),
    [17] = OTHER("accept-language", ""),
    [18] = KNOWN("accept-ranges", "", ACCEPT_RANGES),
    [19] = KNOWN("accept", "", ACCEPT),
    [20] = OTHER("access-control-allow-origin", ""),
    [21] = KNOWN("age", "", AGE),
    [22] = KNOWN("allow", "", ALLOW),
    [23] = KNOWN("authorization", "", AUTHORIZATION),
    [24] = KNOWN("cache-control", "", CACHE_CONTROL),
    [25] = OTHER("content-disposition", ""),
    [26] = KNOWN("content-encoding", "", CONTENT_ENCODING),
    [27] = OTHER("content-language", ""),
    [28] = KNOWN("content-length", "", CONTENT_LENGTH),
    [29] = OTHER("content-location", ""),
    [30] = KNOWN("content-range", "", CONTENT_RANGE),
    [31] = KNOWN("content-type", "", CONTENT_TYPE),
    [32] = KNOWN("cookie", "", COOKIE),
    [33] = KNOWN("date", "", DATE),
    [34] = KNOWN("etag", "", ETAG),
    [35] = KNOWN("expect", "", EXPECT),
    [36] = OTHER("expires", ""),
    [37] = OTHER("from", ""),
    [38] = KNOWN("host", "", HOST),
    [39] = KNOWN("if-match", "", IF_MATCH),
    [40] = KNOWN("if-modified-since", "", IF_MODIFIED_SINCE),
    [41] = KNOWN("if-none-match", "", IF_NONE_MATCH),
    [42] = KNOWN("if-range", "", IF_RANGE),
    [43] = KNOWN("if-unmodified-since", "", IF_UNMODIFIED_SINCE),
    [44] = KNOWN("last-modified", "", LAST_MODIFIED),
    [45] = OTHER("link", ""),
    [46] = KNOWN("location", "", LOCATION),
    [47] = OTHER("max-forwards", ""),
    [48] = KNOWN("proxy-authenticate", "", PROXY_AUTHENTICATE),
    [49] = KNOWN("proxy-authorization", "", PROXY_AUTHORIZATION),
    [50] = KNOWN("range", "", RANGE),
    [51] = KNOWN("referer", "", REFERER),
    [52] = OTHER("refresh", ""),
    [53] = KNOWN("retry-after", "", RETRY_AFTER),
    [54] = KNOWN("server", "", SERVER),
    [55] = KNOWN("set-cookie", "", SET_COOKIE),
    [56] = OTHER("strict-transport-security", ""),
    [57] = KNOWN("transfer-encoding", "", TRANSFER_ENCODING),
    [58] = KNOWN("user-agent", "", USER_AGENT),
    [59] = KNOWN("vary", "", VARY),
    [60] = KNOWN("via", "", VIA),
    [61] = KNOWN("www-authenticate", "", WWW_AUTHENTICATE),
};

void ag_hpack_table_init(struct ag_hpack_table *t, struct ag_arena *memory)
{
    *t = (struct ag_hpack_table){.memory = memory, .max_bytes = AG_HPACK_TABLE_BYTES};
}

static uint32_t cost_of(size_t name_len, size_t value_len)
{
    return (uint32_t)(name_len + value_len) + AG_HPACK_ENTRY_BYTES;
}

/* Evicts the oldest entries until the rest counts no more than that. */
static void shrink_to(struct ag_hpack_table *t, uint32_t bytes)
{
    while (t->bytes > bytes) {
        const struct ag_hpack_entry *oldest = ag_hpack_table_at(t, t->count - 1u);

        AG_ASSERT(oldest);
        t->bytes = (uint16_t)(t->bytes - cost_of(oldest->name_len, oldest->value_len));
        t->count--;
    }
}

void ag_hpack_table_resize(struct ag_hpack_table *t, uint32_t max_bytes)
{
    AG_ASSERT(max_bytes <= AG_HPACK_TABLE_BYTES);
    t->changes++;
    t->max_bytes = (uint16_t)max_bytes;
    shrink_to(t, max_bytes);
}

void ag_hpack_table_clear(struct ag_hpack_table *t)
{
    t->changes++;
    shrink_to(t, 0);
}

static void append_text(struct ag_hpack_table *t, struct ag_span s)
{
    size_t first = ag_min_size(s.len, AG_HPACK_TEXT_BYTES - t->text_end);

    if (s.len) {
        memcpy(t->text + t->text_end, s.ptr, first);
        memcpy(t->text, s.ptr + first, s.len - first);
        t->text_end = (uint16_t)((t->text_end + s.len) % AG_HPACK_TEXT_BYTES);
    }
}

enum ag_status ag_hpack_table_add(struct ag_hpack_table *t, struct ag_span name,
                                  struct ag_span value, uint8_t id, uint32_t hash)
{
    t->changes++;
    if (name.len > t->max_bytes || value.len > t->max_bytes ||
        cost_of(name.len, value.len) > t->max_bytes) {
        shrink_to(t, 0);
        return AG_OK;
    }
    if (!t->entries) {
        /* The text first: it fills a page of its own, what lies behind the entries has the rest of theirs. */
        t->text = ag_arena_alloc(t->memory, AG_HPACK_TEXT_BYTES);
        t->entries =
            t->text ? ag_arena_alloc(t->memory, AG_HPACK_ENTRIES_MAX * sizeof(*t->entries)) : NULL;
        if (!t->entries) {
            return AG_ENOMEM;
        }
    }
    shrink_to(t, t->max_bytes - cost_of(name.len, value.len));
    t->entries[t->next] = (struct ag_hpack_entry){.at = t->text_end,
                                                  .name_len = (uint16_t)name.len,
                                                  .value_len = (uint16_t)value.len,
                                                  .id = id,
                                                  .hash = hash};
    append_text(t, name);
    append_text(t, value);
    t->next = (uint16_t)((t->next + 1u) % AG_HPACK_ENTRIES_MAX);
    t->count++;
    t->bytes = (uint16_t)(t->bytes + cost_of(name.len, value.len));
    return AG_OK;
}

void ag_hpack_table_copy(const struct ag_hpack_table *t, const struct ag_hpack_entry *e,
                         size_t from, size_t len, uint8_t *to)
{
    size_t at = e->at + from, first;

    at -= at < AG_HPACK_TEXT_BYTES ? 0 : AG_HPACK_TEXT_BYTES;
    first = AG_HPACK_TEXT_BYTES - at;
    if (ag_likely(len <= first)) {
        first = len;
    } else {
        memcpy(to + first, t->text, len - first);
    }
    if (len) { /* `to` may be NULL else */
        memcpy(to, t->text + at, first);
    }
}

bool ag_hpack_table_is(const struct ag_hpack_table *t, const struct ag_hpack_entry *e, size_t from,
                       struct ag_span s)
{
    size_t at = e->at + from, first;

    at -= at < AG_HPACK_TEXT_BYTES ? 0 : AG_HPACK_TEXT_BYTES;
    first = AG_HPACK_TEXT_BYTES - at;
    if (ag_likely(s.len <= first)) {
        return ag_span_eq(ag_span(t->text + at, s.len), s);
    }
    return ag_span_eq(ag_span(t->text + at, first), ag_span_sub(s, 0, first)) &&
           ag_span_eq(ag_span(t->text, s.len - first), ag_span_sub(s, first, s.len));
}
