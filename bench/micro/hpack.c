/*
 * Field sections of HTTP/2, to and from requests and responses: on a connection that has been in use for a while, so
 * that its tables hold what repeats, and the first of a connection, whose text is literal; and the Huffman code.
 */
#include "proto/h2_fields.h"
#include "proto/hpack_huffman.h"

#include "bench/micro/micro.h"

#define BATCH 64u

#define FIELD(which, name, value)                      \
    {                                                  \
        which, AG_SPAN_INIT(name), AG_SPAN_INIT(value) \
    }

struct line {
    enum ag_field_id id;
    struct ag_span name, value;
};

/* What h2load sends, what a browser does, what nginx answers. */
static const struct line tool[] = {
    FIELD(AG_FIELD_USER_AGENT, "user-agent", "h2load nghttp2/1.52.0")};
static const struct line browser[] = {
    FIELD(AG_FIELD_OTHER, "sec-ch-ua", "\"Chromium\";v=\"120\", \"Not?A_Brand\";v=\"8\""),
    FIELD(AG_FIELD_OTHER, "sec-ch-ua-mobile", "?0"),
    FIELD(AG_FIELD_USER_AGENT, "user-agent",
          "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 "
          "Safari/537.36"),
    FIELD(AG_FIELD_OTHER, "sec-ch-ua-platform", "\"Linux\""),
    FIELD(AG_FIELD_ACCEPT, "accept", "image/avif,image/webp,image/apng,image/*,*/*;q=0.8"),
    FIELD(AG_FIELD_OTHER, "sec-fetch-site", "same-origin"),
    FIELD(AG_FIELD_OTHER, "sec-fetch-mode", "no-cors"),
    FIELD(AG_FIELD_OTHER, "sec-fetch-dest", "image"),
    FIELD(AG_FIELD_REFERER, "referer", "https://www.example.com/articles/2026/11"),
    FIELD(AG_FIELD_ACCEPT_ENCODING, "accept-encoding", "gzip, deflate, br"),
    FIELD(AG_FIELD_OTHER, "accept-language", "en-GB,en;q=0.9"),
    FIELD(AG_FIELD_COOKIE, "cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
};
static const struct line answer[] = {
    FIELD(AG_FIELD_SERVER, "Server", "nginx/1.22.1"),
    FIELD(AG_FIELD_DATE, "Date", "Sun, 29 Nov 2026 13:28:46 GMT"),
    FIELD(AG_FIELD_CONTENT_TYPE, "Content-Type", "text/plain"),
};

struct of {
    const struct line *lines;
    size_t count;
    bool answers, reads;
    bool first; /* of a connection */
};

static struct ag_pool pages;
static struct ag_arena memory; /* of the tables */
static struct ag_hpack_encoder encoder;
static struct ag_hpack_decoder decoder;
static struct ag_request request;
static struct ag_response response;
static uint8_t room[4096];
static struct ag_buf section;
static struct ag_field fields[32], received[32];
static const struct ag_h1_limits limits = {8192, 32768, 100};

static void set_fields(struct ag_fields *out, const struct line *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fields[i] = (struct ag_field){.name = lines[i].name.ptr,
                                      .value = lines[i].value.ptr,
                                      .value_len = (uint32_t)lines[i].value.len,
                                      .name_len = (uint16_t)lines[i].name.len,
                                      .id = (uint8_t)lines[i].id};
    }
    *out = (struct ag_fields){fields, (uint16_t)count, AG_COUNT(fields)};
}

static void write_request(void)
{
    section = ag_buf(room, sizeof(room));
    ag_h2_put_request(&encoder, &section, &request, AG_SPAN("http"), AG_SPAN("/fixed"),
                      AG_SPAN("127.0.0.1:8080"), false);
}

static void write_answer(void)
{
    section = ag_buf(room, sizeof(room));
    ag_h2_put_response(&encoder, &section, &response, AG_SPAN(""));
}

static void read_request(void)
{
    struct ag_request out = {.fields = {.v = received, .cap = AG_COUNT(received)}};
    struct ag_h2_field_error error;
    struct ag_arena arena;

    ag_arena_init(&arena, &pages, 8);
    AG_ASSERT(ag_h2_read_request(&decoder, ag_buf_span(&section), &limits, &out, &arena, &error) ==
              AG_OK);
    ag_arena_release(&arena);
}

static void read_answer(void)
{
    struct ag_response out = {.fields = {.v = received, .cap = AG_COUNT(received)}};
    struct ag_h2_field_error error;
    struct ag_arena arena;

    ag_arena_init(&arena, &pages, 8);
    AG_ASSERT(ag_h2_read_response(&decoder, ag_buf_span(&section), &limits, AG_METHOD_GET, &out,
                                  &arena, &error) == AG_OK);
    ag_arena_release(&arena);
}

/* A connection begins. */
static void begin(void)
{
    ag_arena_init(&memory, &pages, 8);
    ag_hpack_encoder_init(&encoder, &memory);
    ag_hpack_decoder_init(&decoder, &memory);
}

static void once(const struct of *of, bool reads)
{
    if (of->answers) {
        (reads ? read_answer : write_answer)();
    } else {
        (reads ? read_request : write_request)();
    }
}

static void set_up(const struct micro *m)
{
    const struct of *of = m->of;

    AG_ASSERT(ag_pool_init(&pages, "pages", AG_ARENA_PAGE_BYTES, 32) == AG_OK);
    begin();
    request = (struct ag_request){.method = AG_METHOD_GET, .method_name = AG_SPAN("GET")};
    response =
        (struct ag_response){.status = 200, .framing = AG_FRAMING_LENGTH, .content_length = 2};
    set_fields(of->answers ? &response.fields : &request.fields, of->lines, of->count);
    for (int i = 0; i < (of->first ? 1 : 3); i++) { /* what repeats is in the tables then */
        once(of, false);
        once(of, true);
    }
}

static void run(const struct micro *m)
{
    const struct of *of = m->of;

    for (uint32_t i = 0; i < BATCH; i++) {
        if (of->first) {
            ag_arena_release(&memory);
            begin();
        }
        once(of, of->reads);
    }
}

static void tear_down(const struct micro *m)
{
    (void)m;
    ag_arena_release(&memory);
    ag_pool_deinit(&pages);
}

/* What a user agent says of itself, 101 bytes. */
static struct ag_span user_agent(void)
{
    struct ag_span text = browser[2].value;

    MICRO_HIDE(text.ptr);
    return text;
}

static void huffman_encode(const struct micro *m)
{
    (void)m;
    for (uint32_t i = 0; i < BATCH; i++) {
        section = ag_buf(room, sizeof(room));
        ag_huffman_encode(&section, user_agent());
    }
}

static void huffman_decode(const struct micro *m)
{
    static uint8_t text[256];

    (void)m;
    for (uint32_t i = 0; i < BATCH; i++) {
        struct ag_buf out = ag_buf(text, sizeof(text));

        AG_ASSERT(ag_huffman_decode(&out, ag_buf_span(&section)) == AG_OK);
    }
}

#define SECTION(name, lines, ...)                                                  \
    {                                                                              \
        "hpack, " name, BATCH, 0, set_up, NULL, run, tear_down, &(const struct of) \
        {                                                                          \
            lines, AG_COUNT(lines), __VA_ARGS__                                    \
        }                                                                          \
    }
static const struct micro all[] = {
    SECTION("tool's request read", tool, false, true, false),
    SECTION("tool's request written", tool, false, false, false),
    SECTION("browser's request read", browser, false, true, false),
    SECTION("browser's request written", browser, false, false, false),
    SECTION("response read", answer, true, true, false),
    SECTION("response written", answer, true, false, false),
    SECTION("browser's first request read", browser, false, true, true),
    SECTION("browser's first request written", browser, false, false, true),
    SECTION("first response read", answer, true, true, true),
    SECTION("first response written", answer, true, false, true),
    {"huffman, 101 bytes encoded", BATCH, 0, huffman_encode, NULL, huffman_encode, NULL, NULL},
    {"huffman, 101 bytes decoded", BATCH, 0, huffman_encode, NULL, huffman_decode, NULL, NULL},
};
const struct micro_list micro_hpack = {all, AG_COUNT(all)};
