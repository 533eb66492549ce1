/*
 * h2_sections.h: field sections of HTTP/2 out of text, one field a line ("name: value"), whatever it says.
 *
 * With the memory of a connection's side and of one exchange.
 *
 *   plain    literals without Huffman and table, whatever the names are
 *   coded    by our encoder, as `how` tells; the second time most of it is indices
 */
#pragma once
#include "proto/h2_fields.h"
#include "proto/hpack_table.h"
#include "tests/memwire.h"

#include <criterion/criterion.h>

/* ---- one side of a connection ---- */

static struct memloop memory;
static struct ag_arena connection, arena;
static struct ag_hpack_decoder decoder;
static struct ag_hpack_encoder encoder;

static inline void setup(void)
{
    memloop_init(&memory, (struct ag_loop_config){.buf_count = {8, 8}, .page_count = 64});
    ag_arena_init(&connection, &memory.loop.pages, 16);
    ag_arena_init(&arena, &memory.loop.pages, 16);
    ag_arena_widen(&arena, &memory.loop);
    ag_hpack_decoder_init(&decoder, &connection);
    ag_hpack_encoder_init(&encoder, &connection);
}

static inline void teardown(void)
{
    ag_arena_release(&connection);
    ag_arena_release(&arena);
    memloop_deinit(&memory);
}

static inline void empty_arena(void)
{
    ag_arena_release(&arena);
    ag_arena_widen(&arena, &memory.loop);
}

/* ---- sections ---- */

static inline void put_length(struct ag_buf *out, size_t len)
{
    cr_assert_lt(len, 127 + (1u << 21));
    if (len < 127) {
        ag_buf_putc(out, (uint8_t)len);
        return;
    }
    ag_buf_putc(out, 127);
    for (len -= 127; len >= 128; len >>= 7) {
        ag_buf_putc(out, (uint8_t)(len | 128));
    }
    ag_buf_putc(out, (uint8_t)len);
}

static inline void put_plain(struct ag_buf *out, struct ag_span name, struct ag_span value)
{
    ag_buf_putc(out, 0);
    put_length(out, name.len);
    ag_buf_put(out, name);
    put_length(out, value.len);
    ag_buf_put(out, value);
}

/* The next line of `text`; a name ends at the first colon behind its first character. */
static inline bool next_line(struct ag_span *text, struct ag_span *name, struct ag_span *value)
{
    size_t end = ag_span_find(*text, '\n'), colon;
    struct ag_span line = ag_span_sub(*text, 0, end);

    if (text->len == 0) {
        return false;
    }
    colon = line.len ? 1 + ag_span_find(ag_span_sub(line, 1, line.len), ':') : 0;
    if (line.len && line.ptr[0] == ':' && colon >= line.len) {
        colon = 0; /* ": value", an empty name */
    }
    cr_assert(colon + 2 <= line.len && line.ptr[colon + 1] == ' ', "%.*s", (int)line.len,
              (const char *)line.ptr);
    *name = ag_span_sub(line, 0, colon);
    *value = ag_span_sub(line, colon + 2, line.len);
    *text = ag_span_sub(*text, end < text->len ? end + 1 : end, text->len);
    return true;
}

static inline void put_plain_lines(struct ag_buf *out, struct ag_span lines)
{
    struct ag_span name, value;

    while (next_line(&lines, &name, &value)) {
        put_plain(out, name, value);
    }
}

static inline void put_coded(struct ag_hpack_encoder *e, struct ag_buf *out, struct ag_span name,
                             struct ag_span value, enum ag_hpack_indexing how)
{
    static const enum ag_hpack_pseudo all[] = {AG_HPACK_AUTHORITY, AG_HPACK_METHOD, AG_HPACK_PATH,
                                               AG_HPACK_SCHEME, AG_HPACK_STATUS};
    enum ag_field_id id = ag_field_id_from_name(name);

    for (size_t i = 0; i < AG_COUNT(all); i++) {
        if (ag_span_eq(name, ag_hpack_static[all[i]].name)) {
            ag_hpack_put_pseudo(e, out, all[i], value, how);
            return;
        }
    }
    for (size_t i = 0; i < name.len; i++) {
        if (ag_ascii_lower(name.ptr[i]) != name.ptr[i]) {
            id = AG_FIELD_OTHER; /* else the encoder knows better */
        }
    }
    ag_hpack_put(e, out, id, name, value, how);
}

static inline void put_coded_lines(struct ag_hpack_encoder *e, struct ag_buf *out,
                                   struct ag_span lines, enum ag_hpack_indexing how)
{
    struct ag_span name, value;

    ag_hpack_begin(e, out);
    while (next_line(&lines, &name, &value)) {
        put_coded(e, out, name, value, how);
    }
}

/* "name: value" of each field of a section, by a decoder that keeps everything. */
static uint8_t section_text[1 << 20];

static inline enum ag_status section_more(struct ag_hpack_section *s, size_t bytes)
{
    cr_assert_leq(bytes, sizeof(section_text));
    s->text = ag_buf(section_text, sizeof(section_text));
    return AG_OK;
}

static inline void put_lines_of(struct ag_hpack_decoder *d, struct ag_span block,
                                struct ag_buf *lines)
{
    struct ag_hpack_section s = {
        .in = block, .more = section_more, .left_bytes = sizeof(section_text)};
    struct ag_field f;
    enum ag_status st;

    while ((st = ag_hpack_next(d, &s, &f)) == AG_OK) {
        ag_buf_put(lines, ag_field_key(&f));
        ag_buf_put(lines, AG_SPAN(": "));
        ag_buf_put(lines, ag_field_value(&f));
        ag_buf_put(lines, AG_SPAN("\n"));
    }
    cr_assert_eq(st, AG_AGAIN);
    cr_assert_not(lines->overflow);
}
