/*
 * Both sides of HPACK, driven by test_hpack_stories.py: requests on standard input, one answer each on
 * standard output, numbers in the machine's order.
 *
 *   'D' u32 length, section            -->  u32 count, of each field: u32 name, u32 value, bytes; or UINT32_MAX
 *   'S' u32 size                       -->  (nothing) a new bound of the encoder's table
 *   'E' u32 count, of each field: u8 how, u32 name, u32 value, bytes  -->  u32 length, section
 */
#include "proto/hpack.h"

#include <stdio.h>

#define SECTION_BYTES (1u << 20)
#define FIELDS_MAX    1000u

static struct ag_hpack_decoder decoder;
static struct ag_hpack_encoder encoder;
static uint8_t in[SECTION_BYTES], out[SECTION_BYTES], text[SECTION_BYTES];

static void need(bool good, const char *what)
{
    if (!good) {
        (void)fprintf(stderr, "hpack_stories: %s\n", what);
        exit(1);
    }
}

static void take(void *to, size_t len)
{
    need(fread(to, 1, len, stdin) == len, "input ends");
}

static uint32_t take_u32(void)
{
    uint32_t n = 0;

    take(&n, sizeof(n));
    return n;
}

static void give(const void *from, size_t len)
{
    need(fwrite(from, 1, len, stdout) == len, "cannot write");
}

static void give_u32(uint32_t n)
{
    give(&n, sizeof(n));
}

static enum ag_status more(struct ag_hpack_section *s, size_t bytes)
{
    need(s->text.cap == 0 && bytes <= sizeof(text), "too much text");
    s->text = ag_buf(text, sizeof(text));
    return AG_OK;
}

static void decode(void)
{
    static struct ag_field fields[FIELDS_MAX];
    uint32_t len = take_u32(), count = 0;
    struct ag_hpack_section s = {.in = {in, len}, .more = more, .left_bytes = sizeof(text)};
    enum ag_status st;

    need(len <= sizeof(in), "a section too long");
    take(in, len);
    while ((st = ag_hpack_next(&decoder, &s, &fields[count])) == AG_OK) {
        need(++count < FIELDS_MAX, "too many fields");
    }
    give_u32(st == AG_AGAIN ? count : UINT32_MAX);
    for (uint32_t i = 0; st == AG_AGAIN && i < count; i++) {
        give_u32(fields[i].name_len);
        give_u32(fields[i].value_len);
        give(fields[i].name, fields[i].name_len);
        give(fields[i].value, fields[i].value_len);
    }
}

static void put(struct ag_buf *b, struct ag_span name, struct ag_span value, uint8_t how)
{
    static const enum ag_hpack_pseudo pseudo[] = {AG_HPACK_AUTHORITY, AG_HPACK_METHOD,
                                                  AG_HPACK_PATH, AG_HPACK_SCHEME, AG_HPACK_STATUS};
    static const struct ag_span names[] = {AG_SPAN_INIT(":authority"), AG_SPAN_INIT(":method"),
                                           AG_SPAN_INIT(":path"), AG_SPAN_INIT(":scheme"),
                                           AG_SPAN_INIT(":status")};

    for (size_t i = 0; i < AG_COUNT(names); i++) {
        if (ag_span_eq(name, names[i])) {
            ag_hpack_put_pseudo(&encoder, b, pseudo[i], value, (enum ag_hpack_indexing)how);
            return;
        }
    }
    ag_hpack_put(&encoder, b, ag_field_id_from_name(name), name, value,
                 (enum ag_hpack_indexing)how);
}

static void encode(void)
{
    struct ag_buf b = ag_buf(out, sizeof(out));

    ag_hpack_begin(&encoder, &b);
    for (uint32_t count = take_u32(); count > 0; count--) {
        uint32_t name_len, value_len;
        uint8_t how = 0;

        take(&how, 1);
        name_len = take_u32();
        value_len = take_u32();
        need(name_len <= sizeof(in) && value_len <= sizeof(in) - name_len, "a field too long");
        take(in, (size_t)name_len + value_len);
        put(&b, ag_span(in, name_len), ag_span(in + name_len, value_len), how);
    }
    need(!b.overflow, "a section too long");
    give_u32((uint32_t)b.len);
    give(out, b.len);
}

int main(void)
{
    struct ag_arena memory;
    int ch;

    ag_arena_init(&memory, NULL, 0);
    ag_hpack_decoder_init(&decoder, &memory);
    ag_hpack_encoder_init(&encoder, &memory);
    while ((ch = getchar()) != EOF) {
        need(ch == 'D' || ch == 'S' || ch == 'E', "no such request");
        if (ch == 'D') {
            decode();
        } else if (ch == 'S') {
            ag_hpack_resize(&encoder, take_u32());
        } else {
            encode();
        }
    }
    ag_arena_release(&memory);
    return fflush(stdout) == 0 ? 0 : 1;
}
