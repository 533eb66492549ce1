/*
 * Heads of HTTP/1, as curl, a browser and nginx send them, in one piece and in pieces; and chunks of content.
 * What an exchange does beside (its arena, a request that is all zero) is counted along.
 */
#include "proto/h1_chunk.h"
#include "proto/h1_parse.h"

#include "bench/micro/micro.h"

#define BATCH    64u
#define CHUNKS   64u /* of a message */
#define MESSAGES 8u

struct of {
    struct ag_span text;
    size_t piece; /* bytes that come at once */
};

#define CURL                      \
    "GET /fixed HTTP/1.1\r\n"     \
    "Host: 127.0.0.1:8080\r\n"    \
    "User-Agent: curl/7.88.1\r\n" \
    "Accept: */*\r\n"             \
    "\r\n"
#define BROWSER                                                                           \
    "GET /articles/2026/11/title.avif?width=640 HTTP/1.1\r\n"                             \
    "Host: www.example.com\r\n"                                                           \
    "Connection: keep-alive\r\n"                                                          \
    "sec-ch-ua: \"Chromium\";v=\"120\", \"Not?A_Brand\";v=\"8\"\r\n"                      \
    "sec-ch-ua-mobile: ?0\r\n"                                                            \
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) " \
    "Chrome/120.0.0.0 Safari/537.36\r\n"                                                  \
    "sec-ch-ua-platform: \"Linux\"\r\n"                                                   \
    "Accept: image/avif,image/webp,image/apng,image/*,*/*;q=0.8\r\n"                      \
    "Sec-Fetch-Site: same-origin\r\n"                                                     \
    "Sec-Fetch-Mode: no-cors\r\n"                                                         \
    "Sec-Fetch-Dest: image\r\n"                                                           \
    "Referer: https://www.example.com/articles/2026/11\r\n"                               \
    "Accept-Encoding: gzip, deflate, br\r\n"                                              \
    "Accept-Language: en-GB,en;q=0.9\r\n"                                                 \
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"                    \
    "\r\n"
#define NGINX                                          \
    "HTTP/1.1 200 OK\r\n"                              \
    "Server: nginx/1.22.1\r\n"                         \
    "Date: Sun, 29 Nov 2026 13:28:46 GMT\r\n"          \
    "Content-Type: text/html; charset=utf-8\r\n"       \
    "Content-Length: 5120\r\n"                         \
    "Last-Modified: Sat, 28 Nov 2026 08:00:00 GMT\r\n" \
    "Connection: keep-alive\r\n"                       \
    "ETag: \"6748219c-1400\"\r\n"                      \
    "Accept-Ranges: bytes\r\n"                         \
    "\r\n"

static struct ag_pool pages;
static const struct ag_h1_limits limits = {8192, 32768, 100};
static struct ag_field fields[32];
static uint8_t content[CHUNKS * 4200];
static size_t content_len;

static void set_up(const struct micro *m)
{
    (void)m;
    AG_ASSERT(ag_pool_init(&pages, "pages", AG_ARENA_PAGE_BYTES, 8) == AG_OK);
}

static void tear_down(const struct micro *m)
{
    (void)m;
    ag_pool_deinit(&pages);
}

static void requests(const struct micro *m)
{
    const struct of *of = m->of;

    for (uint32_t i = 0; i < BATCH; i++) {
        struct ag_h1_parser parser = {0};
        struct ag_request out = {.fields = {.v = fields, .cap = AG_COUNT(fields)}};
        struct ag_span in = ag_span(of->text.ptr, 0);
        struct ag_arena arena;
        enum ag_status st;

        ag_arena_init(&arena, &pages, 8);
        do {
            in.len += ag_min_size(of->piece, of->text.len - in.len);
            st = ag_h1_parse_request(&parser, in, &limits, &out, &arena);
        } while (st == AG_AGAIN);
        AG_ASSERT(st == AG_OK && in.len == of->text.len);
        ag_arena_release(&arena);
    }
}

static void responses(const struct micro *m)
{
    const struct of *of = m->of;

    for (uint32_t i = 0; i < BATCH; i++) {
        struct ag_h1_parser parser = {0};
        struct ag_response out = {.fields = {.v = fields, .cap = AG_COUNT(fields)}};
        struct ag_span in = ag_span(of->text.ptr, 0);
        struct ag_arena arena;
        enum ag_status st;

        ag_arena_init(&arena, &pages, 8);
        do {
            in.len += ag_min_size(of->piece, of->text.len - in.len);
            st = ag_h1_parse_response(&parser, in, &limits, AG_METHOD_GET, &out, &arena);
        } while (st == AG_AGAIN);
        AG_ASSERT(st == AG_OK && in.len == of->text.len);
        ag_arena_release(&arena);
    }
}

/* A message whose chunks have as many bytes as the text tells. */
static void write_chunks(const struct micro *m)
{
    const struct of *of = m->of;
    uint8_t head[AG_H1_CHUNK_HEADER_MAX];
    struct ag_buf out = ag_buf(content, sizeof(content));

    for (uint32_t i = 0; i < CHUNKS; i++) {
        ag_buf_put(&out, ag_span(head, ag_h1_chunk_header(of->text.len, head)));
        ag_buf_put(&out, of->text);
        ag_buf_put(&out, AG_SPAN("\r\n"));
    }
    ag_buf_put(&out, AG_SPAN("0\r\n\r\n"));
    AG_ASSERT(!out.overflow);
    content_len = out.len;
}

static void chunks(const struct micro *m)
{
    const struct of *of = m->of;

    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct ag_h1_chunk chunk = {0};
        size_t at = 0, end = 0, bytes = 0, used;
        enum ag_status st;

        do {
            struct ag_span body;

            end += at == end ? ag_min_size(of->piece, content_len - end) : 0;
            st = ag_h1_chunk_decode(&chunk, ag_span(content + at, end - at), &used, &body);
            at += used;
            bytes += body.len;
        } while (st == AG_AGAIN);
        AG_ASSERT(st == AG_OK && bytes == CHUNKS * of->text.len);
    }
}

static const uint8_t letters[4096];

#define OF(...)        \
    &(const struct of) \
    {                  \
        __VA_ARGS__    \
    }
static const struct micro all[] = {
    {"h1, curl's request", BATCH, 0, set_up, NULL, requests, tear_down,
     OF(AG_SPAN_INIT(CURL), SIZE_MAX)},
    {"h1, curl's request, by 16 bytes", BATCH, 0, set_up, NULL, requests, tear_down,
     OF(AG_SPAN_INIT(CURL), 16)},
    {"h1, browser's request", BATCH, 0, set_up, NULL, requests, tear_down,
     OF(AG_SPAN_INIT(BROWSER), SIZE_MAX)},
    {"h1, browser's request, by 64 bytes", BATCH, 0, set_up, NULL, requests, tear_down,
     OF(AG_SPAN_INIT(BROWSER), 64)},
    {"h1, nginx's response", BATCH, 0, set_up, NULL, responses, tear_down,
     OF(AG_SPAN_INIT(NGINX), SIZE_MAX)},
    {"h1, nginx's response, by 64 bytes", BATCH, 0, set_up, NULL, responses, tear_down,
     OF(AG_SPAN_INIT(NGINX), 64)},
    {"h1, chunk of 16 bytes", CHUNKS *MESSAGES, 0, write_chunks, NULL, chunks, NULL,
     OF({letters, 16}, SIZE_MAX)},
    {"h1, chunk of 16 bytes, by 7 bytes", CHUNKS *MESSAGES, 0, write_chunks, NULL, chunks, NULL,
     OF({letters, 16}, 7)},
    {"h1, chunk of 4 KiB", CHUNKS *MESSAGES, 0, write_chunks, NULL, chunks, NULL,
     OF({letters, 4096}, SIZE_MAX)},
};
const struct micro_list micro_h1 = {all, AG_COUNT(all)};
