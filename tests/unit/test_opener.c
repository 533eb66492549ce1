/*
 * Goal: a load replayed elsewhere sees what the recorded one saw, whatever the file system says by then.
 * Method: a small tree is asked about directly and by a recorder; the tree is then destroyed and the
 * replay asked the same. Saved bytes are cut and bent at every place.
 */
#include "engine/opener.h"

#include "tests/unit/folder.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct ag_arena arena;

static void begin(void)
{
    ag_arena_init(&arena, NULL, 0);
    folder_make();
    folder_put_text("dir/", "");
    folder_put_text("b.yml", "bee");
    folder_put_text("a.yml", "");
    cr_assert_eq(symlink("dir", folder_at("link")), 0);
    cr_assert_eq(mkfifo(folder_at("fifo"), 0644), 0);
}

static void end(void)
{
    folder_remove();
    ag_arena_release(&arena);
}

TestSuite(opener, .init = begin, .fini = end);

/* All questions, each answer as a line. */
static const char *interview(struct ag_opener *o, int *out_dir)
{
    char *text = ag_arena_alloc(&arena, 4096);
    struct ag_buf b = ag_buf(text, 4096);
    static const char *const files[] = {"b.yml", "a.yml", "dir", "fifo", "missing"};
    struct ag_answer a;

    for (size_t i = 0; i < AG_COUNT(files); i++) {
        ag_opener_file(o, &arena, folder_at(files[i]), 100, &a);
        ag_buf_printf(&b, "file %d %d %d %s\n", a.error, (int)a.kind, a.inode != 0,
                      a.text.ptr ? (const char *)a.text.ptr : "");
        ag_opener_look(o, folder_at(files[i]), &a);
        ag_buf_printf(&b, "look %d %d\n", a.error, (int)a.kind);
    }
    ag_opener_glob(o, &arena, folder_at("*.yml"), &a);
    for (size_t i = 0; i < a.text.len; i++) {
        ag_buf_putc(&b, a.text.ptr[i] ? a.text.ptr[i] : ' ');
    }
    ag_opener_glob(o, &arena, folder_at("*.none"), &a);
    ag_buf_printf(&b, "\nglob %d %zu\n", a.error, a.text.len);
    ag_opener_realpath(o, &arena, folder_at("link"), &a);
    ag_buf_printf(&b, "real %s\n", (const char *)a.text.ptr);
    ag_opener_cwd(o, &arena, &a);
    ag_buf_printf(&b, "cwd %s\n", (const char *)a.text.ptr);
    ag_opener_dir(o, folder_at("missing"), &a);
    ag_buf_printf(&b, "dir %d %d\n", a.error, a.fd);
    ag_opener_dir(o, folder_at("link"), &a);
    ag_buf_printf(&b, "dir %d %d %llu %llu\n", a.error, a.fd >= 0, (unsigned long long)a.device,
                  (unsigned long long)a.inode);
    ag_buf_putc(&b, 0);
    cr_assert(!b.overflow);
    *out_dir = a.fd;
    return text;
}

static ino_t inode_of(int fd)
{
    struct stat st;

    cr_assert_eq(fstat(fd, &st), 0);
    return st.st_ino;
}

Test(opener, replay_equals_the_system)
{
    int dirs[3];
    uint32_t count;
    const char *direct = interview(NULL, &dirs[0]);
    struct ag_opener *recorder = ag_opener_record();
    const char *recorded = interview(recorder, &dirs[1]);

    cr_assert_str_eq(recorded, direct);
    cr_assert(strstr(direct, "file 0 0 1 bee\n"));
    cr_assert(strstr(direct, "/a.yml ") < strstr(direct, "/b.yml "), "sorted");
    cr_assert(strstr(direct, "glob 0 0\n"), "nothing found is no error");
    ino_t inode = inode_of(dirs[0]);

    struct ag_span saved = ag_opener_save(recorder, &arena);
    const int *fds = ag_opener_fds(recorder, &count);
    cr_assert_eq(count, 1);
    int passed = dup(fds[0]);
    ag_opener_free(recorder);
    folder_remove();
    struct ag_opener *replay = ag_opener_replay(saved, &passed, 1);
    cr_assert_not_null(replay);
    cr_assert_str_eq(interview(replay, &dirs[2]), direct);
    cr_assert_eq(inode_of(dirs[2]), inode);
    struct ag_answer a;
    ag_opener_dir(replay, folder_at("link"), &a);
    cr_assert(a.fd >= 0 && !a.pinned);
    cr_assert_eq(close(a.fd), 0);
    ag_opener_pin(replay);
    ag_opener_dir(replay, folder_at("link"), &a);
    cr_assert(a.fd >= 0 && a.pinned);
    cr_assert_eq(close(a.fd), 0);
    ag_opener_free(replay);
    cr_assert_eq(fcntl(passed, F_GETFD), -1, "the replay's descriptor is closed");
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(close(dirs[i]), 0, "what was handed out is the caller's");
    }
}

Test(opener, the_first_answer_stands)
{
    struct ag_opener *o = ag_opener_record();
    struct ag_answer a;

    ag_opener_file(o, &arena, folder_at("b.yml"), 100, &a);
    folder_put_text("b.yml", "changed");
    ag_opener_file(o, &arena, folder_at("b.yml"), 100, &a);
    cr_assert_str_eq((const char *)a.text.ptr, "bee");
    ag_opener_free(o);
    ag_opener_file(NULL, &arena, folder_at("b.yml"), 100, &a);
    cr_assert_str_eq((const char *)a.text.ptr, "changed");
}

Test(opener, too_large_is_an_error)
{
    struct ag_answer a;

    ag_opener_file(NULL, &arena, folder_at("b.yml"), 2, &a);
    cr_assert_eq(a.error, EFBIG);
    ag_opener_file(NULL, &arena, folder_at("b.yml"), 3, &a);
    cr_assert_eq(a.error, 0);
}

Test(opener, a_replay_never_asks_the_system)
{
    struct ag_opener *o = ag_opener_replay(AG_SPAN(""), NULL, 0);
    struct ag_answer a;

    cr_assert_not_null(o);
    ag_opener_file(o, &arena, folder_at("b.yml"), 100, &a);
    cr_assert_eq(a.error, ENODATA);
    ag_opener_dir(o, folder_at("dir"), &a);
    cr_assert_eq(a.error, ENODATA);
    cr_assert_eq(a.fd, -1);
    ag_opener_cwd(o, &arena, &a);
    cr_assert_eq(a.error, ENODATA);
    ag_opener_free(o);
}

/* A copy of exactly `len` bytes, so that ASan sees a read behind it. */
static uint8_t *copy_of(struct ag_span s, size_t len)
{
    uint8_t *copy = malloc(len);

    cr_assert_not_null(copy);
    memcpy(copy, s.ptr, len);
    return copy;
}

/* Bytes come from a process of ours, but a bug there must not be one here. */
Test(opener, bent_bytes_are_refused)
{
    struct ag_opener *recorder = ag_opener_record();
    int dir, fds[1] = {-1};
    uint32_t refused = 0;

    (void)interview(recorder, &dir);
    struct ag_span saved = ag_opener_save(recorder, &arena);
    for (size_t cut = 1; cut < saved.len; cut++) {
        uint8_t *copy = copy_of(saved, cut);
        struct ag_opener *o = ag_opener_replay(ag_span(copy, cut), NULL, 0);
        refused += !o;
        ag_opener_free(o);
        free(copy);
    }
    /* Whole only between two answers, and before the one that has a descriptor. */
    cr_assert_gt(refused, saved.len - 20);
    cr_assert_null(ag_opener_replay(saved, fds, 0), "a descriptor is missing");
    for (size_t i = 0; i < 48; i++) { /* the first head: each byte at its largest */
        uint8_t *copy = copy_of(saved, saved.len);
        copy[i] = 0xff;
        struct ag_opener *o = ag_opener_replay(ag_span(copy, saved.len), fds, 1);
        cr_assert(i < 16 || i >= 40 || !o, "byte %zu", i);
        ag_opener_free(o);
        free(copy);
    }
    ag_opener_free(recorder);
    cr_assert_eq(close(dir), 0);
}
