/*
 * What field sections of HTTP/2 cost on a connection that has been in use for a while, so that its tables hold
 * what repeats: requests read and written, answers read and written, and what a browser sends. Prints
 * nanoseconds and bytes of a section.
 *
 * usage: micro_fields [CASE TIMES]      without arguments all, and the time of each
 *
 * With arguments one case is run so many times, for callgrind:
 *   valgrind --tool=callgrind --toggle-collect=run_once build/micro_fields "read request" 10000
 *
 * Build:
 *   make build/gcc-release/libanygate.a
 *   gcc -O2 -flto=auto -std=gnu17 -D_GNU_SOURCE -I. bench/micro_fields.c build/gcc-release/libanygate.a
 *       -lxxhash -luring -o build/micro_fields
 */
#include "proto/h2_fields.h"

#include <stdio.h>
#include <time.h>

#define TIMES 200000u

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

struct state {
    struct ag_pool pages;
    struct ag_arena memory; /* of the tables */
    struct ag_hpack_encoder encoder;
    struct ag_hpack_decoder decoder;
    struct ag_request request;
    struct ag_response response;
    uint8_t room[4096];
    struct ag_buf section;
};

static struct state state;
static struct ag_field fields[32];

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

static void write_request(struct state *s)
{
    s->section = ag_buf(s->room, sizeof(s->room));
    ag_h2_put_request(&s->encoder, &s->section, &s->request, AG_SPAN("http"), AG_SPAN("/fixed"),
                      AG_SPAN("127.0.0.1:8080"), false);
}

static void write_answer(struct state *s)
{
    s->section = ag_buf(s->room, sizeof(s->room));
    ag_h2_put_response(&s->encoder, &s->section, &s->response, AG_SPAN(""));
}

static void read_request(struct state *s)
{
    struct ag_field room[32];
    struct ag_request out = {.fields = {.v = room, .cap = AG_COUNT(room)}};
    struct ag_h2_field_error error;
    struct ag_arena arena;

    ag_arena_init(&arena, &s->pages, 8);
    AG_ASSERT(ag_h2_read_request(&s->decoder, ag_buf_span(&s->section), &AG_H1_LIMITS_DEFAULT, &out,
                                 &arena, &error) == AG_OK);
    ag_arena_release(&arena);
}

static void read_answer(struct state *s)
{
    struct ag_field room[32];
    struct ag_response out = {.fields = {.v = room, .cap = AG_COUNT(room)}};
    struct ag_h2_field_error error;
    struct ag_arena arena;

    ag_arena_init(&arena, &s->pages, 8);
    AG_ASSERT(ag_h2_read_response(&s->decoder, ag_buf_span(&s->section), &AG_H1_LIMITS_DEFAULT,
                                  AG_METHOD_GET, &out, &arena, &error) == AG_OK);
    ag_arena_release(&arena);
}

struct a_case {
    const char *name;
    const struct line *lines;
    size_t count;
    bool answers, reads;
};

static const struct a_case cases[] = {
    {"read request", tool, AG_COUNT(tool), false, true},
    {"write request", tool, AG_COUNT(tool), false, false},
    {"read browser's", browser, AG_COUNT(browser), false, true},
    {"write browser's", browser, AG_COUNT(browser), false, false},
    {"read answer", answer, AG_COUNT(answer), true, true},
    {"write answer", answer, AG_COUNT(answer), true, false},
};

/* As callgrind is to see it: by this name. */
__attribute__((noinline, used)) static void run_once(struct state *s, const struct a_case *c)
{
    if (c->answers) {
        (c->reads ? read_answer : write_answer)(s);
    } else {
        (c->reads ? read_request : write_request)(s);
    }
}

static void set_up(struct state *s, const struct a_case *c)
{
    AG_ASSERT(ag_pool_init(&s->pages, "pages", AG_ARENA_PAGE_BYTES, 32) == AG_OK);
    ag_arena_init(&s->memory, &s->pages, 8);
    ag_hpack_encoder_init(&s->encoder, &s->memory);
    ag_hpack_decoder_init(&s->decoder, &s->memory);
    s->request = (struct ag_request){.method = AG_METHOD_GET, .method_name = AG_SPAN("GET")};
    s->response =
        (struct ag_response){.status = 200, .framing = AG_FRAMING_LENGTH, .content_length = 2};
    set_fields(c->answers ? &s->response.fields : &s->request.fields, c->lines, c->count);
    for (int i = 0; i < 3; i++) { /* what repeats is in the tables then */
        struct a_case other = *c;

        other.reads = false;
        run_once(s, &other);
        other.reads = true;
        run_once(s, &other);
    }
}

static void tear_down(struct state *s)
{
    ag_arena_release(&s->memory);
    ag_pool_deinit(&s->pages);
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        unsigned long times = argc == 3 ? strtoul(argv[2], NULL, 10) : TIMES;
        uint64_t start;

        if (argc == 3 && strcmp(argv[1], cases[i].name) != 0) {
            continue;
        }
        set_up(&state, &cases[i]);
        start = now_ns();
        for (unsigned long n = 0; n < times; n++) {
            run_once(&state, &cases[i]);
        }
        printf("%-16s %8.1f ns %5zu bytes\n", cases[i].name,
               (double)(now_ns() - start) / (double)times, state.section.len);
        tear_down(&state);
    }
    return 0;
}
