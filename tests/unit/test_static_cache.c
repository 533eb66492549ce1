/*
 * Goal: what is held in memory is what lies on disk, within its bound; directories may be swapped.
 * Method: the loop's clock is set forward where age matters.
 */
#include "engine/backend.h"
#include "tests/unit/static_util.h"

#include <errno.h>

/* ---- cache ---- */

Test(static, a_hit_allocates_nothing)
{
    site();
    serve("/", "/");
    (void)get("/app.js", NULL);
    uint64_t bytes = cache()->used_bytes;
    struct ag_exchange *ex = fake_begin(f, &r, "GET /app.js", "Accept: */*\n");
    uint32_t pages = f->loop.pages.used;
    const uint8_t *at = ex->arena.at;
    ag_body_end(&ex->req_body, NULL);
    fake_start(ex);
    cr_expect(f->answer.complete && f->answer.prepared, "not answered at once");
    cr_expect(f->loop.pages.used == pages && ex->arena.at == at);
    cr_expect(cache()->used_bytes == bytes && cache()->hits == 1);
    fake_end(f, ex);
    end();
}

Test(static, changed_files)
{
    site();
    serve("/", "/");
    expect_body(get("/app.js", NULL), "alert(1)");
    folder_put_text("app.js", "alert(22)");
    /* within a second: as it was */
    expect_body(get("/app.js", NULL), "alert(1)");
    /* after it: once more from memory, but looked at meanwhile */
    f->loop.now_ms += AG_STATIC_CHECK_MS;
    expect_body(get("/app.js", NULL), "alert(1)");
    for (int i = 0; i < 100 && cache()->ops; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    expect_body(get("/app.js", NULL), "alert(22)");
    /* long after: never without a look */
    folder_put_text("app.js", "alert(333)");
    f->loop.now_ms += AG_STATIC_STALE_MS;
    expect_body(get("/app.js", NULL), "alert(333)");
    /* gone */
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/app.js", folder);
    cr_assert(unlink(path) == 0);
    f->loop.now_ms += AG_STATIC_STALE_MS;
    cr_expect(get("/app.js", NULL)->status == 404);
    cr_expect(cache()->count == 0);
    end();
}

/* The same length: the time tells, down to the nanosecond. */
Test(static, changed_time)
{
    struct timespec times[2] = {{1700000000, 5}, {1700000000, 5}};
    char path[128];

    site();
    (void)snprintf(path, sizeof(path), "%s/app.js", folder);
    cr_assert(utimensat(AT_FDCWD, path, times, 0) == 0);
    serve("/", "/");
    expect_field(get("/app.js", NULL), "Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT");
    for (int i = 0; i < 2; i++) {
        folder_put_text("app.js", i ? "alert(3)" : "alert(2)");
        times[1].tv_nsec += i == 0;
        times[1].tv_sec += i == 1;
        cr_assert(utimensat(AT_FDCWD, path, times, 0) == 0);
        f->loop.now_ms += AG_STATIC_STALE_MS;
        expect_body(get("/app.js", NULL), i ? "alert(3)" : "alert(2)");
        ag_loop_turn(&f->loop, 0);
    }
    end();
}

/* A clock that runs ahead must not make dates in the future (RFC 9110 section 8.8.2.1). */
Test(static, time_in_the_future)
{
    struct timespec times[2] = {{4000000000, 0}, {4000000000, 0}};
    char path[128], fields[128];

    site();
    (void)snprintf(path, sizeof(path), "%s/app.js", folder);
    cr_assert(utimensat(AT_FDCWD, path, times, 0) == 0);
    serve("/", "/");
    (void)snprintf(fields, sizeof(fields), "If-Modified-Since: %.60s\n",
                   fake_field(get("/app.js", NULL), "Last-Modified"));
    cr_expect(!strstr(fields, "2096"));
    cr_expect(get("/app.js", fields)->status == 304);
    end();
}

Test(static, unchanged_files_stay)
{
    site();
    serve("/", "/");
    (void)get("/app.js", NULL);
    uint64_t misses = cache()->misses;
    f->loop.now_ms += AG_STATIC_STALE_MS;
    expect_body(get("/app.js", NULL), "alert(1)");
    cr_expect(cache()->misses == misses && cache()->count == 1);
    end();
}

/* An index that is there for want of a better one makes way for that. */
Test(static, a_better_index)
{
    site();
    f = fake_new(&ag_action_static);
    fake_set(f, f->config, "static.index[]", "first.html");
    fake_set(f, f->config, "static.index[]", "index.html");
    fake_set(f, f->config, "static.root", folder);
    cr_assert(fake_section(f) == AG_OK);
    serve("/", "/");
    expect_body(get("/", NULL), "<home>");
    expect_body(get("/", NULL), "<home>");
    cr_expect_eq(cache()->hits, 1);
    folder_put_text("first.html", "<first>");
    f->loop.now_ms += AG_STATIC_STALE_MS;
    expect_body(get("/", NULL), "<first>");
    uint64_t misses = cache()->misses;
    f->loop.now_ms += AG_STATIC_STALE_MS;
    expect_body(get("/", NULL), "<first>");
    cr_expect_eq(cache()->misses, misses, "there is none better");
    end();
}

/* ---- helpers that are all busy ---- */

static bool refuse_file(struct ag_loop *l, struct ag_file_op *op)
{
    op->error = EAGAIN;
    op->status = AG_ELIMIT;
    ag_task_queue(l, &op->task);
    return true;
}

static void helpers_are_busy(bool busy)
{
    static const struct ag_backend *usual;
    static struct ag_backend backend;
    static struct ag_system system;

    if (busy) {
        usual = f->loop.backend;
        backend = *usual;
        system = *usual->system;
        system.file = refuse_file;
        backend.system = &system;
    }
    f->loop.backend = busy ? &backend : usual;
}

/* What nobody could look at is not taken for looked at: it is served for a while, no longer. */
Test(static, nobody_can_look)
{
    site();
    serve("/", "/");
    expect_body(get("/app.js", NULL), "alert(1)");
    folder_put_text("app.js", "alert(22)");
    helpers_are_busy(true);
    struct ag_static_entry *e = ag_container_of(cache()->clock.next, struct ag_static_entry, clock);
    for (unsigned age_ms = 500; age_ms < AG_STATIC_UNKNOWN_MS; age_ms += 500) {
        e->checked_ms -= 500; /* the loop's own clock would be set anew */
        expect_body(get("/app.js", NULL), "alert(1)");
    }
    e->checked_ms -= 500;
    const struct answer *a = get("/app.js", NULL);
    cr_expect_eq(a->status, 503);
    cr_expect(memmem(a->body, a->body_len, "too many files", 14));
    cr_expect_eq(cache()->count, 1);
    helpers_are_busy(false);
    expect_body(get("/app.js", NULL), "alert(22)");
    end();
}

Test(static, nobody_can_open)
{
    const struct answer *a;

    site();
    serve("/", "/");
    expect_body(get("/app.js", NULL), "alert(1)"); /* the directory is open from here on */
    helpers_are_busy(true);
    a = get("/index.html", NULL);
    cr_expect_eq(a->status, 503);
    cr_expect(memmem(a->body, a->body_len, "too many files", 14));
    helpers_are_busy(false);
    cr_expect_eq(get("/index.html", NULL)->status, 200);
    end();
}

Test(static, settings_of_a_new_snapshot)
{
    site();
    serve("/", "/");
    (void)get("/app.js", NULL);
    uint64_t misses = cache()->misses;
    serve("/", "/"); /* the same route, loaded again */
    (void)get("/app.js", NULL);
    cr_expect(cache()->misses == misses, "a reload without a change empties the cache");
    serve("/", "/docs/"); /* another meaning of the same path */
    cr_expect(get("/app.js", NULL)->status == 404);
    end();
}

Test(static, eviction_by_bytes)
{
    static char content[3000];
    char name[32], target[32];

    site();
    f = fake_new(&ag_action_static);
    fake_set(f, f->config, "static.root", folder);
    fake_set(f, f->config, "static.cache.max_bytes", "64k");
    fake_set(f, f->config, "static.cache.max_file", "4k");
    cr_assert(fake_section(f) == AG_OK);
    serve("/", "/");
    for (int i = 0; i < 60; i++) {
        (void)snprintf(name, sizeof(name), "f%d.bin", i);
        memset(content, i, sizeof(content));
        folder_put(name, content, sizeof(content));
    }
    for (int i = 0; i < 600; i++) {
        (void)snprintf(target, sizeof(target), "/f%d.bin", i * 7 % 60);
        const struct answer *a = get(target, NULL);
        cr_assert(a->body_len == sizeof(content) && a->body[0] == i * 7 % 60 &&
                  a->body[2999] == a->body[0]);
        cr_assert(cache()->used_bytes <= 64 * 1024);
    }
    cr_expect(cache()->evictions > 0 && cache()->count > 10);
    end();
}

/* An answer in flight keeps its entry; its memory counts until then. */
Test(static, evicted_in_flight)
{
    static char content[3000];
    static struct answer held;

    site();
    f = fake_new(&ag_action_static);
    fake_set(f, f->config, "static.root", folder);
    fake_set(f, f->config, "static.cache.max_bytes", "5k");
    cr_assert(fake_section(f) == AG_OK);
    serve("/", "/");
    memset(content, 'a', sizeof(content));
    folder_put("a.bin", content, sizeof(content));
    memset(content, 'b', sizeof(content));
    folder_put("b.bin", content, sizeof(content));
    f->answer.hold_back = true;
    struct ag_exchange *ex = fake_begin(f, &r, "GET /a.bin", "Range: bytes=0-2000\n");
    held.body = malloc(ANSWER_BODY_MAX);
    held.hold_back = true;
    ex->server_stream = &held;
    ag_body_end(&ex->req_body, NULL);
    fake_start(ex);
    for (int i = 0; i < 100 && held.heads == 0; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    cr_assert(held.heads == 1 && cache()->count == 1);
    f->answer.hold_back = false;
    const struct answer *b = get("/b.bin", NULL); /* no room beside what is held: from the file */
    cr_expect(b->status == 200 && b->body_len == 3000 && b->body[2999] == 'b' && !b->prepared);
    cr_expect(cache()->count == 0 && cache()->used_bytes > 3000);
    held.hold_back = false;
    fake_take(&ex->res_body, ex);
    cr_expect(held.complete && held.body_len == 2001 && held.body[2000] == 'a');
    cr_expect(cache()->used_bytes == 0);
    ag_exchange_complete(ex);
    free(held.body);
    end();
}

Test(static, concurrent_first_requests)
{
    struct ag_exchange *ex[8];
    static struct answer answers[8];

    site();
    serve("/", "/");
    for (int i = 0; i < 8; i++) {
        ex[i] = fake_begin(f, &r, "GET /app.js", NULL);
        answers[i].body = malloc(ANSWER_BODY_MAX);
        ex[i]->server_stream = &answers[i];
        ag_body_end(&ex[i]->req_body, NULL);
        fake_start(ex[i]);
    }
    for (int i = 0; i < 50; i++) {
        ag_loop_turn(&f->loop, 1);
    }
    for (int i = 0; i < 8; i++) {
        cr_expect(answers[i].heads == 1 && answers[i].complete);
        expect_body(&answers[i], "alert(1)");
        ex[i]->head_sent = true;
        ag_exchange_complete(ex[i]);
        free(answers[i].body);
    }
    cr_expect(cache()->count == 1);
    end();
}

/* ---- directories that come and go ---- */

Test(static, missing_at_load)
{
    site();
    serve("/", "/later/");
    cr_expect(f->diags.warnings == 1 && f->diags.errors == 0);
    cr_expect(get("/", NULL)->status == 404);
    folder_put_text("later/index.html", "late");
    f->loop.now_ms += AG_STATIC_CHECK_MS;
    expect_body(get("/", NULL), "late");
    end();
}

/* Who cannot open the directory does not know that it is missing. */
Test(static, no_block_for_the_directory)
{
    struct ag_pool *files;
    void *held[8192];
    unsigned count = 0;

    site();
    folder_put_text("later/index.html", "late");
    serve("/", "/later/");
    files = &f->loop.files;
    while (files->used < files->count) {
        cr_assert(count < AG_COUNT(held));
        held[count++] = ag_pool_get(files);
    }
    cr_expect_eq(get("/", NULL)->status, 503);
    while (count > 0) {
        ag_pool_put(files, held[--count]);
    }
    f->loop.now_ms += AG_STATIC_CHECK_MS;
    cr_expect_eq(get("/", NULL)->status, 200);
    end();
}

Test(static, another_directory_in_its_place)
{
    char from[128], to[128], next[128];

    site();
    folder_put_text("site/index.html", "old");
    folder_put_text("next/index.html", "new");
    serve("/", "/site/");
    expect_body(get("/", NULL), "old");
    (void)snprintf(from, sizeof(from), "%s/site", folder);
    (void)snprintf(to, sizeof(to), "%s/was", folder);
    (void)snprintf(next, sizeof(next), "%s/next", folder);
    cr_assert(rename(from, to) == 0);
    /* between the two renames nothing is lost */
    f->loop.now_ms += AG_STATIC_STALE_MS;
    expect_body(get("/", NULL), "old");
    cr_assert(rename(next, from) == 0);
    ag_loop_turn(&f->loop, 0);
    f->loop.now_ms += AG_STATIC_STALE_MS;
    expect_body(get("/", NULL), "new");
    end();
}
