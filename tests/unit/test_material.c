/*
 * Goal: ticket keys turn in time, live in their file, are nobody else's to read, and reach a successor; files of
 * certificates that change are told once a change.
 * Method: models made by hand over a folder; the clock of the keeper is turned by its own fields.
 */
#include "engine/tls_tickets.h"
#include "tests/unit/folder.h"
#include "tools/material.h"
#include "tools/upgrade.h"

#include <fcntl.h>
#include <poll.h>

static struct ag_material m;
static struct ag_model model;
static struct ag_tls_server_settings settings;

static void setup(void)
{
    folder_make();
    settings = (struct ag_tls_server_settings){.tickets = true};
    model = (struct ag_model){.listen_count = 1,
                              .tickets = {.on = true, .rotate_ms = 3600000, .keep = 3}};
    model.listens[0].tls = &settings;
    ag_material_init(&m, false);
}

static void teardown(void)
{
    ag_material_deinit(&m);
    folder_remove();
}

TestSuite(material, .init = setup, .fini = teardown);

static const char *keys(const struct ag_tickets *t)
{
    static char texts[4][AG_TLS_TICKETS_TEXT_BYTES + 1];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    struct ag_buf b = ag_buf(text, AG_TLS_TICKETS_TEXT_BYTES);

    ag_tickets_save(t, &b);
    text[b.len] = 0;
    return text;
}

static const char *file_text(const char *name)
{
    static char text[AG_TLS_TICKETS_TEXT_BYTES + 1];
    FILE *f = fopen(folder_at(name), "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    if (f) {
        (void)fclose(f);
    }
    text[n] = 0;
    return text;
}

static bool open_keys(struct ag_tickets *t)
{
    bool good = ag_tickets_prepare(t, &model);

    ag_tickets_apply(t, &model);
    return good;
}

Test(material, no_tickets_no_ring)
{
    settings.tickets = false;
    cr_assert(open_keys(&m.tickets));
    cr_expect_null(m.tickets.ring);
    cr_expect_eq(ag_tickets_wait_ms(&m.tickets), -1);
    cr_expect_not(ag_tickets_turn(&m.tickets));
    cr_expect_str_empty(keys(&m.tickets));
}

Test(material, keys_turn_when_it_is_time)
{
    const char *before;

    cr_assert(open_keys(&m.tickets));
    before = keys(&m.tickets);
    cr_expect_not(ag_tickets_turn(&m.tickets));
    cr_expect_gt(ag_tickets_wait_ms(&m.tickets), 0);
    m.tickets.rotate_at_ms = 1;
    cr_expect_eq(ag_tickets_wait_ms(&m.tickets), 0);
    cr_expect(ag_tickets_turn(&m.tickets));
    cr_expect_str_neq(keys(&m.tickets), before);
    cr_expect_not_null(strstr(keys(&m.tickets), strchr(before, '\n')), "the old one still opens");
    cr_expect_not(ag_tickets_turn(&m.tickets));
}

Test(material, the_file_is_nobody_elses)
{
    struct stat st;

    model.tickets.file = folder_at("keys");
    (void)umask(0);
    cr_assert(open_keys(&m.tickets));
    cr_assert_eq(stat(folder_at("keys"), &st), 0);
    cr_expect_eq(st.st_mode & 07777, 0600);
    cr_expect_str_eq(file_text("keys"), keys(&m.tickets));
    m.tickets.rotate_at_ms = 1;
    cr_expect(ag_tickets_turn(&m.tickets));
    cr_expect_str_eq(file_text("keys"), keys(&m.tickets));
    cr_assert_eq(stat(folder_at("keys"), &st), 0);
    cr_expect_eq(st.st_mode & 07777, 0600);
}

Test(material, the_file_is_taken_up_at_start)
{
    struct ag_tickets first = {0};
    const char *was;

    model.tickets.file = folder_at("keys");
    cr_assert(open_keys(&first));
    was = keys(&first);
    cr_assert(open_keys(&m.tickets));
    cr_expect_str_eq(keys(&m.tickets), was);
    ag_tickets_deinit(&first);
}

/* One of several processes turns the keys; the others take them from the file, and turn them no second time. */
Test(material, the_file_is_shared)
{
    struct ag_tickets other = {0};

    model.tickets.file = folder_at("keys");
    cr_assert(open_keys(&m.tickets));
    cr_assert(open_keys(&other));
    other.rotate_at_ms = 1;
    cr_expect(ag_tickets_turn(&other));
    m.tickets.rotate_at_ms = 1;
    cr_expect(ag_tickets_turn(&m.tickets));
    cr_expect_str_eq(keys(&m.tickets), keys(&other));
    other.rotate_at_ms = 1;
    cr_expect(ag_tickets_turn(&other));
    m.tickets.look_at_ms = 1;
    cr_expect(ag_tickets_turn(&m.tickets));
    cr_expect_str_eq(keys(&m.tickets), keys(&other));
    ag_tickets_deinit(&other);
}

Test(material, a_file_of_something_else_stays)
{
    folder_put_text("keys", "precious\n");
    model.tickets.file = folder_at("keys");
    cr_assert(open_keys(&m.tickets));
    cr_expect_str_eq(file_text("keys"), "precious\n");
    cr_expect_str_not_empty(keys(&m.tickets));
    m.tickets.rotate_at_ms = 1;
    cr_expect(ag_tickets_turn(&m.tickets));
    cr_expect_str_eq(file_text("keys"), "precious\n");
    cr_assert_eq(unlink(folder_at("keys")), 0);
    m.tickets.rotate_at_ms = 1;
    cr_expect(ag_tickets_turn(&m.tickets));
    cr_expect_str_eq(file_text("keys"), keys(&m.tickets));
}

/* Neither what it leads to nor the link itself is anything of ours. */
Test(material, a_link_is_not_followed_and_stays)
{
    struct ag_tickets other = {0};
    struct stat st;

    model.tickets.file = folder_at("keys");
    cr_assert(open_keys(&other));
    cr_assert_eq(symlink("keys", folder_at("link")), 0);
    model.tickets.file = folder_at("link");
    cr_assert(open_keys(&m.tickets));
    cr_expect_str_neq(keys(&m.tickets), keys(&other));
    m.tickets.rotate_at_ms = 1;
    cr_expect(ag_tickets_turn(&m.tickets));
    cr_assert_eq(lstat(folder_at("link"), &st), 0);
    cr_expect(S_ISLNK(st.st_mode));
    cr_expect_str_eq(file_text("keys"), keys(&other));
    ag_tickets_deinit(&other);
}

Test(material, a_file_that_cannot_be_written)
{
    model.tickets.file = folder_at("none/keys");
    cr_assert(open_keys(&m.tickets));
    m.tickets.rotate_at_ms = 1;
    cr_expect(ag_tickets_turn(&m.tickets), "the keys turn all the same");
}

Test(material, a_successor_gets_the_keys)
{
    struct ag_upgrade u;
    struct ag_tickets heir;
    uint8_t text[AG_TLS_TICKETS_TEXT_BYTES];
    struct ag_buf b = ag_buf(text, sizeof(text));
    char number[16];
    const char *was;

    cr_assert(open_keys(&m.tickets));
    was = keys(&m.tickets);
    ag_upgrade_init(&u);
    ag_upgrade_give_tickets(&u, ag_span_str(was));
    cr_assert_geq(u.tickets_fd, 0);
    (void)snprintf(number, sizeof(number), "%d", fcntl(u.tickets_fd, F_DUPFD, 10));
    cr_assert_eq(setenv("ANYGATE_TICKETS", number, 1), 0);
    ag_upgrade_inherit_tickets(&b);
    cr_expect_null(getenv("ANYGATE_TICKETS"));
    ag_tickets_init(&heir, ag_buf_span(&b));
    ag_tickets_apply(&heir, &model);
    cr_expect_str_eq(keys(&heir), was);
    ag_tickets_deinit(&heir);
    ag_upgrade_deinit(&u);
}

Test(material, a_successor_takes_no_other_descriptor)
{
    uint8_t text[64];
    struct ag_buf b = ag_buf(text, sizeof(text));
    char number[16];

    folder_put_text("x", "secret");
    (void)snprintf(number, sizeof(number), "%d", open(folder_at("x"), O_RDONLY));
    static const char *const others[] = {"0", "-1", "x", "99999"};
    for (size_t i = 0; i <= AG_COUNT(others); i++) {
        cr_assert_eq(setenv("ANYGATE_TICKETS", i ? others[i - 1] : number, 1), 0);
        ag_upgrade_inherit_tickets(&b);
        cr_expect_eq(b.len, 0);
        cr_expect_null(getenv("ANYGATE_TICKETS"));
    }
}

/* ---- files ---- */

static struct ag_arena arena;
static struct ag_tls_files files;

static void watch_files(void)
{
    static struct ag_tls_file one;

    ag_arena_init(&arena, NULL, 0);
    ag_tls_files_init(&files, &arena, NULL, NULL);
    folder_put_text("a.pem", "one");
    one = (struct ag_tls_file){.kind = AG_TLS_FILE_IDENTITY};
    one.path = one.key_path = ag_arena_strdup(&arena, ag_span_str(folder_at("a.pem")));
    one.signature = ag_tls_file_signature(&one);
    files.first = &one;
    ag_watch_set(&m.watch, &files);
}

/* Until the watch says so, or a minute that is not waited for would be. */
static bool told(void)
{
    for (unsigned turns = 0; turns < 50; turns++) {
        struct pollfd p = {.fd = m.watch.fd, .events = POLLIN};
        int wait = ag_watch_wait_ms(&m.watch);

        if (wait > 2 * (int)AG_WATCH_QUIET_MS) {
            return ag_watch_turn(&m.watch);
        }
        (void)poll(&p, 1, wait);
        if (ag_watch_turn(&m.watch)) {
            return true;
        }
    }
    return false;
}

Test(material, nothing_to_watch)
{
    struct ag_tls_files none = {0};

    ag_watch_set(&m.watch, &none);
    cr_expect_eq(ag_watch_wait_ms(&m.watch), -1);
    cr_expect_not(ag_watch_turn(&m.watch));
}

Test(material, a_change_is_told_once)
{
    watch_files();
    cr_expect_not(told());
    folder_put_text("b.pem", "two");
    cr_assert_eq(rename(folder_at("b.pem"), folder_at("a.pem")), 0);
    cr_expect_not(ag_watch_turn(&m.watch), "a moment of quiet first");
    cr_expect(told());
    cr_expect_not(told());
    folder_put_text("c.pem", "of no interest");
    cr_expect_not(ag_watch_turn(&m.watch));
    cr_expect_not(told());
    ag_arena_release(&arena);
}

Test(material, a_folder_that_knows_no_quiet)
{
    watch_files();
    cr_expect_not(told());
    folder_put_text("b.pem", "two");
    cr_assert_eq(rename(folder_at("b.pem"), folder_at("a.pem")), 0);
    cr_expect_not(ag_watch_turn(&m.watch));
    cr_expect_gt(m.watch.event_ms, 1);
    m.watch.event_ms = 1; /* long ago */
    folder_put_text("c.pem", "of no interest");
    cr_expect(ag_watch_turn(&m.watch));
    folder_put_text("c.pem", "nor this");
    cr_expect_not(ag_watch_turn(&m.watch));
    cr_expect_not(told());
    ag_arena_release(&arena);
}

Test(material, without_inotify_by_the_minute)
{
    watch_files();
    (void)close(m.watch.fd);
    m.watch.fd = -1;
    folder_put_text("b.pem", "two");
    cr_assert_eq(rename(folder_at("b.pem"), folder_at("a.pem")), 0);
    cr_expect_not(ag_watch_turn(&m.watch));
    m.watch.due_ms = 1;
    cr_expect(ag_watch_turn(&m.watch));
    m.watch.due_ms = 1;
    cr_expect_not(ag_watch_turn(&m.watch));
    ag_arena_release(&arena);
}
