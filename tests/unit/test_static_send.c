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

/* ---- several ranges ---- */

/* What the answer must be: `spans` are pairs of from and len. The boundary is the answer's own. */
static void expect_parts(const struct answer *a, const char *type, const uint8_t *content,
                         size_t size, size_t count, const size_t (*spans)[2])
{
    static const char multipart[] = "multipart/byteranges; boundary=";
    const char *kind = fake_field(a, "Content-Type");
    uint8_t *want = malloc(size + 8192);
    char boundary[64], length[32];
    size_t n = 0;

    AG_ASSERT(want);
    cr_assert(a->status == 206 && a->complete && a->heads == 1);
    cr_assert(kind && strncmp(kind, multipart, sizeof(multipart) - 1) == 0);
    (void)snprintf(boundary, sizeof(boundary), "%.60s", kind + sizeof(multipart) - 1);
    cr_expect(strlen(boundary) == AG_BOUNDARY_LEN);
    cr_expect(!fake_field(a, "Content-Range") && fake_field(a, "ETag"));
    for (size_t i = 0; i < count; i++) {
        n += (size_t)sprintf(
            (char *)want + n,
            "%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %zu-%zu/%zu\r\n\r\n",
            i ? "\r\n" : "", boundary, type, spans[i][0], spans[i][0] + spans[i][1] - 1, size);
        memcpy(want + n, content + spans[i][0], spans[i][1]);
        n += spans[i][1];
    }
    n += (size_t)sprintf((char *)want + n, "\r\n--%s--\r\n", boundary);
    (void)snprintf(length, sizeof(length), "%zu", n);
    expect_field(a, "Content-Length", length);
    cr_expect(a->body_len == n && memcmp(a->body, want, n) == 0);
    free(want);
}

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

Test(static, several_ranges)
{
    static const size_t spans[3][2] = {{500, 100}, {990, 10}, {0, 1}};
    char first[64];

    site();
    uint8_t *content = big("some.js", 1000);
    serve("/", "/");
    for (int again = 0; again < 2; again++) {
        const struct answer *a = get("/some.js", "Range: bytes=500-549,-10,0-0,550-599,1000-\n");
        expect_parts(a, "text/javascript; charset=utf-8", content, 1000, 3, spans);
        (void)snprintf(first, sizeof(first), "%.60s", fake_field(a, "Content-Type"));
        a = get("/some.js", "Range: bytes=500-549,-10,0-0,550-599,1000-\n");
        cr_expect_str_neq(fake_field(a, "Content-Type"), first, "nobody can tell the boundary");
        a = get("/some.js", "Range: bytes=0-1,3-4\n"); /* one when all is said */
        cr_expect(a->status == 206 && a->body_len == 5 && memcmp(a->body, content, 5) == 0);
        expect_field(a, "Content-Range", "bytes 0-4/1000");
        expect_field(a, "Content-Type", "text/javascript; charset=utf-8");
        a = get("/some.js", "Range: bytes=99999-,88888-\n");
        cr_expect(a->status == 416);
        a = get("/some.js", "Range: bytes=0-,0-\n");
        cr_expect(a->status == 200 && a->body_len == 1000);
        a = get("/some.js", "Range: bytes=0-1,500-501\nIf-Range: \"other\"\n");
        cr_expect(a->status == 200 && a->body_len == 1000);
        a = fake_ask(f, &r, "HEAD /some.js", "Range: bytes=0-1,500-501\n");
        cr_expect(a->status == 200 && a->body_len == 0);
        expect_field(a, "Content-Length", "1000");
        cr_expect(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL) == 0);
    }
    free(content);
    end();
}

/* All heads of the longest type, at places with many digits, go into one buffer. */
Test(static, many_ranges_of_a_long_type)
{
    size_t len = 3u << 20, spans[AG_RANGES_MAX][2];
    char type[AG_MIME_TYPE_MAX + 1] = "a/", fields[1024] = "Range: bytes=";

    site();
    memset(type + 2, 'x', AG_MIME_TYPE_MAX - 2);
    uint8_t *content = big("many.bin", len);
    f = fake_new(&ag_action_static);
    fake_set(f, f->config, "static.types.bin", type);
    serve("/", "/");
    for (size_t i = 0; i < AG_RANGES_MAX; i++) {
        spans[i][0] = (AG_RANGES_MAX - 1 - i) * 65000 + 2000000;
        spans[i][1] = i * 4000 + 1;
        (void)snprintf(fields + strlen(fields), 32, "%s%zu-%zu", i ? "," : "", spans[i][0],
                       spans[i][0] + spans[i][1] - 1);
    }
    strcat(fields, "\n");
    expect_parts(get("/many.bin", fields), type, content, len, AG_RANGES_MAX, spans);
    free(content);
    end();
}

/* ---- large files ---- */

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
    static const size_t spans[3][2] = {{1000000, 10}, {0, AG_STATIC_PIECE_BYTES + 7}, {900000, 1}};
    a = get("/big.bin", "Range: bytes=1000000-1000009,0-524294,900000-900000\n");
    expect_parts(a, "application/octet-stream", content, len, 3, spans);
    a = fake_ask(f, &r, "HEAD /big.bin", NULL);
    cr_expect(a->status == 200 && a->body_len == 0);
    (void)snprintf(fields, sizeof(fields), "%zu", len);
    expect_field(a, "Content-Length", fields);
    cr_expect(cache()->count == 0);
    free(content);
    end();
}

/* Without a buffer for the heads of the parts. */
Test(static, several_ranges_without_a_buffer)
{
    struct ag_block *all[8192];
    size_t n = 0;

    site();
    free(big("big.bin", 3u << 20));
    free(big("some.js", 1000));
    serve("/", "/");
    cr_expect(get("/some.js", NULL)->status == 200);
    while (n < AG_COUNT(all) && (all[n] = ag_loop_buf(&f->loop, AG_BUF_SMALL))) {
        n++;
    }
    cr_assert_lt(n, AG_COUNT(all));
    cr_expect(get("/big.bin", "Range: bytes=0-1,500-501\n")->status == 503);
    cr_expect(get("/some.js", "Range: bytes=0-1,500-501\n")->status == 503);
    while (n > 0) {
        ag_block_release(all[--n]);
    }
    cr_expect(get("/big.bin", "Range: bytes=0-1,500-501\n")->status == 206);
    cr_expect(get("/some.js", "Range: bytes=0-1,500-501\n")->status == 206);
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
static struct ag_exchange *begin_in_memory(const char *line, const char *fields)
{
    static struct ag_server_ops server;
    struct ag_exchange *ex;

    server = fake_server;
    server.memory_only = true;
    f->answer.hold_back = true;
    ex = fake_begin(f, &r, line, fields);
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
    struct ag_exchange *ex = begin_in_memory("GET /big.bin", NULL);
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

Test(static, several_ranges_in_memory)
{
    static const size_t spans[3][2] = {{2000000, 100000}, {0, 1}, {500, AG_BUF_SMALL_BYTES}};
    size_t len = 3u << 20;

    site();
    uint8_t *content = big("big.bin", len);
    serve("/", "/");
    struct ag_exchange *ex =
        begin_in_memory("GET /big.bin", "Range: bytes=2000000-2099999,0-0,500-4595\n");
    for (int i = 0; i < 50; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    cr_expect(ex->res_body.q.bytes < 2 * AG_STATIC_READ_BYTES);
    take_all(ex);
    expect_parts(&f->answer, "application/octet-stream", content, len, 3, spans);
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
    struct ag_exchange *ex = begin_in_memory("GET /big.bin", NULL);
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
    struct ag_exchange *ex = begin_in_memory("GET /big.bin", NULL);
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
    for (int turns = 0; turns < 24; turns++) {
        struct ag_exchange *ex =
            begin_in_memory("GET /big.bin", turns % 2 ? "Range: bytes=0-9,100-109,200-\n" : NULL);

        for (int t = 0; t < turns / 2; t++) {
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
    static const char *const fields[] = {NULL, "Range: bytes=0-1,200-201,400-401,600-\n"};

    site();
    free(big("big.bin", 3u << 20));
    serve("/", "/");
    for (size_t i = 0; i < AG_COUNT(lines); i++) {
        for (int turns = 0; turns < 16; turns++) {
            f->answer.hold_back = true;
            struct ag_exchange *ex = fake_begin(f, &r, lines[i], fields[turns % 2]);
            ag_body_end(&ex->req_body, NULL);
            f->loop.now_ms += (uint64_t)turns / 2 * 500; /* some looks at what is cached as well */
            fake_start(ex);
            for (int t = 0; t < turns / 2; t++) {
                ag_loop_turn(&f->loop, 0);
            }
            f->answer.complete = false;
            fake_end(f, ex); /* aborts */
        }
    }
    end();
}
