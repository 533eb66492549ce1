/*
 * Goal: a service manager gets each message whole, from no process that it did not ask, and cannot hold
 * the process up.
 * Method: real datagram sockets, at a path and abstract.
 */
#include "tools/notify.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static char path[64];

/* The manager's socket at `name`, which may begin with '@'. */
static int manager(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    cr_assert(len < sizeof(addr.sun_path));
    memcpy(addr.sun_path, name, len);
    if (name[0] == '@') {
        addr.sun_path[0] = '\0';
    } else {
        (void)unlink(name);
        len++;
    }
    cr_assert_eq(bind(fd, (struct sockaddr *)&addr,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                 0, "%s: %s", name, strerror(errno));
    return fd;
}

static const char *received(int fd)
{
    static char text[1024];
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

    text[n < 0 ? 0 : n] = '\0';
    return text;
}

static void set_env(const char *socket, const char *usec, const char *pid)
{
    const char *const pairs[][2] = {
        {"NOTIFY_SOCKET", socket}, {"WATCHDOG_USEC", usec}, {"WATCHDOG_PID", pid}};

    for (size_t i = 0; i < AG_COUNT(pairs); i++) {
        if (pairs[i][1]) {
            (void)setenv(pairs[i][0], pairs[i][1], 1);
        } else {
            (void)unsetenv(pairs[i][0]);
        }
    }
}

static void name_path(void)
{
    (void)snprintf(path, sizeof(path), "/tmp/anygate-notify-%d", (int)getpid());
}

static void remove_path(void)
{
    (void)unlink(path);
}

TestSuite(notify, .init = name_path, .fini = remove_path);

Test(notify, path_and_abstract)
{
    char abstract[64];
    const char *const names[] = {path, abstract};

    (void)snprintf(abstract, sizeof(abstract), "@anygate-notify-%d", (int)getpid());
    for (size_t i = 0; i < AG_COUNT(names); i++) {
        int fd = manager(names[i]);
        struct ag_notify n;

        set_env(names[i], NULL, NULL);
        cr_assert_eq(ag_notify_open(&n), AG_OK);
        cr_assert(ag_notify_on(&n));
        cr_assert_null(getenv("NOTIFY_SOCKET"));
        ag_notify_send(&n, "READY=1\nSTATUS=%u routes", 7u);
        cr_assert_str_eq(received(fd), "READY=1\nSTATUS=7 routes");
        cr_assert_str_eq(received(fd), "");
        ag_notify_close(&n);
        close(fd);
    }
}

Test(notify, nobody)
{
    struct ag_notify n;

    set_env(NULL, "1000000", NULL);
    cr_assert_eq(ag_notify_open(&n), AG_OK);
    cr_assert_not(ag_notify_on(&n));
    cr_assert_eq(n.watchdog_ms, 0);
    ag_notify_send(&n, "READY=1");
    ag_notify_reloading(&n);
    ag_notify_close(&n);

    set_env("", NULL, NULL);
    cr_assert_eq(ag_notify_open(&n), AG_OK);
    cr_assert_not(ag_notify_on(&n));
}

Test(notify, addresses_that_are_none)
{
    char longest[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
    const char *const names[] = {"relative", "vsock:2:1234", "/", "@", longest};
    struct ag_notify n;

    memset(longest, 'x', sizeof(longest) - 1);
    longest[0] = '/';
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < AG_COUNT(names); i++) {
        set_env(names[i], NULL, NULL);
        cr_assert_eq(ag_notify_open(&n), AG_EINVAL, "%s", names[i]);
        cr_assert_not(ag_notify_on(&n));
        cr_assert_null(getenv("NOTIFY_SOCKET"));
        ag_notify_send(&n, "READY=1");
    }
}

Test(notify, watchdog_is_ours_alone)
{
    char mine[24], other[24];
    int fd = manager(path);

    (void)snprintf(mine, sizeof(mine), "%d", (int)getpid());
    (void)snprintf(other, sizeof(other), "%d", (int)getppid());
    const struct {
        const char *usec, *pid;
        uint64_t want_ms;
    } rows[] = {
        {"20000000", NULL, 10000}, {"20000000", mine, 10000}, {"20000000", other, 0},
        {NULL, mine, 0},           {"soon", mine, 0},         {"-5", mine, 0},
        {"20000000", "x", 0},      {"1000", mine, 0},         {"3000", mine, 1},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_notify n;

        set_env(path, rows[i].usec, rows[i].pid);
        cr_assert_eq(ag_notify_open(&n), AG_OK);
        cr_assert_eq(n.watchdog_ms, rows[i].want_ms, "row %zu: %lu", i,
                     (unsigned long)n.watchdog_ms);
        cr_assert_null(getenv("WATCHDOG_USEC"));
        cr_assert_null(getenv("WATCHDOG_PID"));
        ag_notify_close(&n);
    }
    close(fd);
}

Test(notify, reloading_tells_the_clock)
{
    static const char lines[] = "RELOADING=1\nMONOTONIC_USEC=";
    int fd = manager(path);
    struct timespec before, after;
    struct ag_notify n;

    set_env(path, NULL, NULL);
    cr_assert_eq(ag_notify_open(&n), AG_OK);
    clock_gettime(CLOCK_MONOTONIC, &before);
    ag_notify_reloading(&n);
    clock_gettime(CLOCK_MONOTONIC, &after);
    const char *text = received(fd);
    cr_assert_eq(strncmp(text, lines, sizeof(lines) - 1), 0, "%s", text);
    unsigned long long usec = strtoull(text + sizeof(lines) - 1, NULL, 10);
    cr_assert_geq(usec, (unsigned long long)before.tv_sec * 1000000 +
                            (unsigned long long)before.tv_nsec / 1000);
    cr_assert_leq(usec, (unsigned long long)after.tv_sec * 1000000 +
                            (unsigned long long)after.tv_nsec / 1000);
    ag_notify_close(&n);
    close(fd);
}

Test(notify, a_manager_that_comes_back)
{
    int fd = manager(path);
    struct ag_notify n;

    set_env(path, NULL, NULL);
    cr_assert_eq(ag_notify_open(&n), AG_OK);
    close(fd);
    ag_notify_send(&n, "READY=1"); /* nobody hears it */
    fd = manager(path);
    ag_notify_send(&n, "WATCHDOG=1");
    cr_assert_str_eq(received(fd), "WATCHDOG=1");
    cr_assert_str_eq(received(fd), "");
    ag_notify_close(&n);
    close(fd);
}

Test(notify, a_manager_that_reads_nothing, .timeout = 60)
{
    int fd = manager(path);
    struct ag_notify n;
    unsigned sent = 0;

    set_env(path, NULL, NULL);
    cr_assert_eq(ag_notify_open(&n), AG_OK);
    /* Until its queue is full; each further one is given up in bounded time. */
    while (send(n.fd, "x", 1, MSG_DONTWAIT) == 1) {
        sent++;
    }
    ag_notify_send(&n, "READY=1");
    for (; sent > 0; sent--) {
        cr_assert_str_eq(received(fd), "x");
    }
    cr_assert_str_eq(received(fd), "");
    ag_notify_close(&n);
    close(fd);
}

Test(notify, a_long_message_is_cut)
{
    char status[2000];
    int fd = manager(path);
    struct ag_notify n;

    memset(status, 'a', sizeof(status) - 1);
    status[sizeof(status) - 1] = '\0';
    set_env(path, NULL, NULL);
    cr_assert_eq(ag_notify_open(&n), AG_OK);
    ag_notify_send(&n, "STATUS=%s", status);
    cr_assert_eq(strlen(received(fd)), 511);
    ag_notify_close(&n);
    close(fd);
}
