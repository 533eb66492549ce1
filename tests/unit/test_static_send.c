/* Goal: answers by condition and range, from memory and from large files, to clients that may go away. */
#include "tests/unit/static_util.h"

/* ---- conditions and ranges ---- */

Test(static, conditions)
{
    char fields[128], etag[64], date[64];

    site();
    serve("/", "/");
    for (int again = 0; again < 2; again++) {
        const struct answer *a = get("/app.js", NULL);
        (void)snprintf(etag, sizeof(etag), "%.60s", fake_field(a, "ETag"));
        (void)snprintf(date, sizeof(date), "%.60s", fake_field(a, "Last-Modified"));
        (void)snprintf(fields, sizeof(fields), "If-None-Match: \"x\", W/%s\n", etag);
        a = get("/app.js", fields);
        cr_expect(a->status == 304 && a->body_len == 0);
        expect_field(a, "ETag", etag);
        expect_field(a, "Last-Modified", date);
        cr_expect(!fake_field(a, "Content-Length") && !fake_field(a, "Content-Type"));
        (void)snprintf(fields, sizeof(fields), "If-Modified-Since: %s\n", date);
        cr_expect(get("/app.js", fields)->status == 304);
        a = get("/app.js", "If-Match: \"x\"\n");
        cr_expect(a->status == 412 && a->heads == 1);
        expect_body(a, "412 Precondition Failed: the file is not as the request has it\n");
        expect_field(a, "Content-Type", "text/plain; charset=utf-8");
    }
    /* equal content, equal tag; other content, another tag */
    folder_put_text("copy.js", "alert(1)");
    expect_field(get("/copy.js", NULL), "ETag", etag);
    cr_expect_str_neq(fake_field(get("/a%20b.txt", NULL), "ETag"), etag);
    end();
}

Test(static, ranges)
{
    site();
    serve("/", "/");
    for (int again = 0; again < 2; again++) {
        const struct answer *a = get("/app.js", "Range: bytes=1-3\n");
        cr_expect(a->status == 206);
        expect_body(a, "ler");
        expect_field(a, "Content-Range", "bytes 1-3/8");
        expect_field(a, "Content-Length", "3");
        cr_expect(fake_field(a, "ETag") && fake_field(a, "Content-Type"));
        a = get("/app.js", "Range: bytes=8-\n");
        cr_expect(a->status == 416 && a->heads == 1);
        expect_body(a, "416 Range Not Satisfiable: the file ends before the range\n");
        expect_field(a, "Content-Range",
                     "bytes *"
                     "/8");
        a = get("/app.js", "Range: bytes=1-3\nIf-Range: \"other\"\n");
        cr_expect(a->status == 200);
        expect_body(a, "alert(1)");
        a = fake_ask(f, &r, "HEAD /app.js", "Range: bytes=1-3\n");
        cr_expect(a->status == 200);
        expect_field(a, "Content-Length", "8");
    }
    end();
}

/* ---- large files ---- */

static uint8_t *big(const char *name, size_t len)
{
    uint8_t *content = malloc(len);

    AG_ASSERT(content);
    for (size_t i = 0; i < len; i++) {
        content[i] = (uint8_t)(i * 31 >> 3);
    }
    folder_put(name, content, len);
    return content;
}

Test(static, large_files)
{
    size_t len = 3 * AG_STATIC_PIECE_BYTES + 17;
    char fields[128];

    site();
    uint8_t *content = big("big.bin", len);
    serve("/", "/");
    const struct answer *a = get("/big.bin", NULL);
    cr_expect(a->status == 200 && !a->prepared && a->body_len == len);
    cr_expect(memcmp(a->body, content, len) == 0);
    cr_expect(strncmp(fake_field(a, "ETag"), "W/\"", 3) == 0);
    (void)snprintf(fields, sizeof(fields), "If-None-Match: %.60s\n", fake_field(a, "ETag"));
    cr_expect(get("/big.bin", fields)->status == 304);
    a = get("/big.bin", "Range: bytes=524280-1600000\n");
    cr_expect(a->status == 206 && a->body_len == len - 524280);
    cr_expect(memcmp(a->body, content + 524280, a->body_len) == 0);
    a = fake_ask(f, &r, "HEAD /big.bin", NULL);
    cr_expect(a->status == 200 && a->body_len == 0);
    (void)snprintf(fields, sizeof(fields), "%zu", len);
    expect_field(a, "Content-Length", fields);
    cr_expect(cache()->count == 0);
    free(content);
    end();
}

/* Pieces do not run far ahead of the socket. */
Test(static, large_files_wait_for_the_client)
{
    size_t len = 3u << 20;

    site();
    uint8_t *content = big("big.bin", len);
    serve("/", "/");
    f->answer.hold_back = true;
    struct ag_exchange *ex = fake_begin(f, &r, "GET /big.bin", NULL);
    ag_body_end(&ex->req_body, NULL);
    fake_start(ex);
    for (int i = 0; i < 50; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    cr_expect(ex->res_body.q.bytes == AG_STATIC_AHEAD_BYTES);
    f->answer.hold_back = false;
    fake_take(&ex->res_body, ex);
    fake_run(f);
    cr_expect(f->answer.body_len == len && memcmp(f->answer.body, content, len) == 0);
    fake_end(f, ex);
    free(content);
    end();
}

Test(static, a_file_that_shrinks)
{
    char path[128];

    site();
    free(big("big.bin", 3u << 20));
    serve("/", "/");
    f->answer.hold_back = true;
    struct ag_exchange *ex = fake_begin(f, &r, "GET /big.bin", NULL);
    ag_body_end(&ex->req_body, NULL);
    fake_start(ex);
    for (int i = 0; i < 50; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    (void)snprintf(path, sizeof(path), "%s/big.bin", folder);
    cr_assert(truncate(path, AG_STATIC_AHEAD_BYTES) == 0);
    f->answer.hold_back = false;
    fake_take(&ex->res_body, ex);
    fake_run(f);
    cr_expect(f->answer.broken && !f->answer.complete && f->answer.reason == AG_REASON_OTHER);
    cr_expect(f->answer.body_len == AG_STATIC_AHEAD_BYTES);
    fake_end(f, ex);
    end();
}

/* ---- servers that take memory alone ---- */

/* Holds back; the caller lets turns pass. */
static struct ag_exchange *begin_in_memory(const char *line)
{
    static struct ag_server_ops server;
    struct ag_exchange *ex;

    server = fake_server;
    server.memory_only = true;
    f->answer.hold_back = true;
    ex = fake_begin(f, &r, line, NULL);
    ex->server = &server;
    ag_body_end(&ex->req_body, NULL);
    fake_start(ex);
    return ex;
}

static void take_all(struct ag_exchange *ex)
{
    f->answer.hold_back = false;
    fake_take(&ex->res_body, ex);
    fake_run(f);
}

Test(static, large_files_in_memory)
{
    size_t len = (3u << 20) + 17;

    site();
    uint8_t *content = big("big.bin", len);
    serve("/", "/");
    struct ag_exchange *ex = begin_in_memory("GET /big.bin");
    for (int i = 0; i < 50; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    cr_expect(ex->res_body.q.bytes == AG_STATIC_READ_BYTES);
    cr_expect(!ag_slice_is_file(&ex->res_body.q.head->slice));
    take_all(ex);
    cr_expect(f->answer.body_len == len && memcmp(f->answer.body, content, len) == 0);
    cr_expect(f->answer.complete);
    fake_end(f, ex);
    free(content);
    end();
}

Test(static, a_file_in_memory_that_shrinks)
{
    char path[128];

    site();
    free(big("big.bin", 3u << 20));
    serve("/", "/");
    struct ag_exchange *ex = begin_in_memory("GET /big.bin");
    for (int i = 0; i < 50; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    (void)snprintf(path, sizeof(path), "%s/big.bin", folder);
    cr_assert(truncate(path, 100000) == 0);
    take_all(ex);
    cr_expect(f->answer.broken && !f->answer.complete && f->answer.reason == AG_REASON_OTHER);
    cr_expect(f->answer.body_len == 100000);
    fake_end(f, ex);
    end();
}

Test(static, files_in_memory_wait_for_buffers)
{
    struct ag_block *all[8192];
    size_t n = 0, len = 1u << 20;

    site();
    uint8_t *content = big("big.bin", len);
    serve("/", "/");
    struct ag_exchange *ex = begin_in_memory("GET /big.bin");
    for (int g = AG_BUF_LARGE; g >= AG_BUF_SMALL; g--) {
        while (n < AG_COUNT(all) && (all[n] = ag_loop_buf(&f->loop, (enum ag_buf_group)g))) {
            n++;
        }
    }
    cr_assert_lt(n, AG_COUNT(all));
    for (int i = 0; i < 20; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    f->answer.hold_back = false;
    fake_take(&ex->res_body, ex);
    for (int i = 0; i < 20; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    cr_expect(!f->answer.complete);
    while (n > 0) {
        ag_block_release(all[--n]);
    }
    fake_run(f);
    cr_expect(f->answer.body_len == len && memcmp(f->answer.body, content, len) == 0);
    fake_end(f, ex);
    free(content);
    end();
}

Test(static, client_of_a_file_in_memory_gone)
{
    site();
    free(big("big.bin", 3u << 20));
    serve("/", "/");
    for (int turns = 0; turns < 12; turns++) {
        struct ag_exchange *ex = begin_in_memory("GET /big.bin");

        for (int t = 0; t < turns; t++) {
            ag_loop_turn(&f->loop, 0);
        }
        f->answer.complete = false;
        fake_end(f, ex); /* aborts */
    }
    end();
}

/* ---- clients that go away ---- */

/* Aborts after each number of turns, so that every wait is met. */
Test(static, client_gone)
{
    static const char *const lines[] = {"GET /app.js", "GET /users/7", "GET /docs", "GET /big.bin",
                                        "GET /docs/"};

    site();
    free(big("big.bin", 3u << 20));
    serve("/", "/");
    for (size_t i = 0; i < AG_COUNT(lines); i++) {
        for (int turns = 0; turns < 8; turns++) {
            f->answer.hold_back = true;
            struct ag_exchange *ex = fake_begin(f, &r, lines[i], NULL);
            ag_body_end(&ex->req_body, NULL);
            f->loop.now_ms += (uint64_t)turns * 500; /* some looks at what is cached as well */
            fake_start(ex);
            for (int t = 0; t < turns; t++) {
                ag_loop_turn(&f->loop, 0);
            }
            f->answer.complete = false;
            fake_end(f, ex); /* aborts */
        }
    }
    end();
}
