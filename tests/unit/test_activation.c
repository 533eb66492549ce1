/*
 * Goal: what a service manager opened serves the listener of its address and nothing else; what cannot
 * be served is refused with its name.
 * Method: real sockets at descriptors of the test's choice; models with hand-made listeners.
 */
#include "tools/activation.h"

#include "engine/listener.h"
#include "engine/resolver.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#define FIRST 200 /* beyond what the test runner has open */

static struct ag_activation act;
static struct ag_sockets sockets;
static struct ag_model model;
static char why_text[512];
static struct ag_buf why;

static void setup(void)
{
    ag_sockets_init(&sockets, 2, 16);
    memset(&model, 0, sizeof(model));
    memset(why_text, 0, sizeof(why_text));
    why = ag_buf(why_text, sizeof(why_text) - 1);
}

static void teardown(void)
{
    ag_sockets_deinit(&sockets);
}

TestSuite(activation, .init = setup, .fini = teardown);

static union ag_addr address(const char *host, uint16_t port)
{
    union ag_addr a;

    cr_assert_eq(ag_addr_parse(ag_span_str(host), port, &a), AG_OK);
    return a;
}

/* A blocking, inheritable listening socket at descriptor FIRST + at, as a manager hands it over; its
 * port. */
static uint16_t given(int at, const char *host, uint16_t port, bool dual, bool reuse)
{
    union ag_addr a = address(host, port);
    socklen_t len = sizeof(a);
    const int one = 1, only = !dual;
    int fd = socket(a.sa.sa_family, SOCK_STREAM, 0);

    if (a.sa.sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
    }
    if (reuse) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    }
    cr_assert_eq(bind(fd, &a.sa, ag_addr_len(&a)), 0, "%s", strerror(errno));
    cr_assert_eq(listen(fd, 16), 0);
    cr_assert_eq(getsockname(fd, &a.sa, &len), 0);
    cr_assert_eq(dup2(fd, FIRST + at), FIRST + at);
    close(fd);
    return a.sa.sa_family == AF_UNIX ? 0 : ntohs(a.in.sin_port);
}

static void announce(long pid, const char *count, const char *names)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%ld", pid);
    (void)setenv("LISTEN_PID", text, 1);
    (void)setenv("LISTEN_FDS", count, 1);
    if (names) {
        (void)setenv("LISTEN_FDNAMES", names, 1);
    } else {
        (void)unsetenv("LISTEN_FDNAMES");
    }
}

static enum ag_status reading(const char *count, const char *names)
{
    enum ag_status st;

    announce(getpid(), count, names);
    st = ag_activation_read(&act, FIRST, &why);
    cr_expect_null(getenv("LISTEN_PID"));
    cr_expect_null(getenv("LISTEN_FDS"));
    cr_expect_null(getenv("LISTEN_FDNAMES"));
    return st;
}

static void listen_on(const char *host, uint16_t port)
{
    model.listens[model.listen_count++] =
        (struct ag_listen){.addr = address(host, port), .port = port};
}

static const struct ag_socket *socket_at(const char *host, uint16_t port)
{
    union ag_addr a = address(host, port);

    return ag_sockets_find(&sockets, &a);
}

Test(activation, not_for_us)
{
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    cr_assert_eq(ag_activation_read(&act, FIRST, &why), AG_OK);
    cr_assert_eq(act.count, 0);
    announce(getppid(), "1", NULL);
    cr_assert_eq(ag_activation_read(&act, FIRST, &why), AG_OK);
    cr_assert_eq(act.count, 0);
    cr_expect_null(getenv("LISTEN_FDS"), "its own children are not meant either");
    (void)setenv("LISTEN_PID", "me", 1);
    cr_assert_eq(ag_activation_read(&act, FIRST, &why), AG_OK);
    cr_assert_eq(reading("0", NULL), AG_OK);
    cr_assert_eq(act.count, 0);
}

Test(activation, names_and_preparation)
{
    socklen_t len = sizeof(int);
    int nodelay = 0;

    given(0, "127.0.0.1", 0, false, false);
    given(1, "127.0.0.1", 0, false, false);
    given(2, "127.0.0.1", 0, false, false);
    cr_assert_eq(reading("3", "web::x"), AG_OK, "%s", why_text);
    cr_assert_eq(act.count, 3);
    cr_expect_str_eq(act.items[0].name, "web");
    cr_expect_str_eq(act.items[1].name, "");
    cr_expect_str_eq(act.items[2].name, "x");
    for (int i = 0; i < 3; i++) {
        cr_expect(fcntl(FIRST + i, F_GETFL) & O_NONBLOCK);
        cr_expect(fcntl(FIRST + i, F_GETFD) & FD_CLOEXEC);
        cr_expect_eq(getsockopt(FIRST + i, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len), 0);
        cr_expect(nodelay);
        close(FIRST + i);
    }
}

Test(activation, what_cannot_be_served)
{
    int pipe_fds[2], dgram = socket(AF_INET, SOCK_DGRAM, 0);
    int stream = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert_eq(pipe(pipe_fds), 0);
    const struct {
        int fd;
        const char *count, *names, *want;
    } rows[] = {
        {pipe_fds[0], "1", "fifo", "descriptor 200 (fifo) from the service manager is not a"},
        {dgram, "1", NULL, "descriptor 200 from the service manager is not a"},
        {stream, "1", "idle", "ListenStream= with Accept=no"},
        {-1, "1", NULL, "is not a listening"},
        {-1, "65", NULL, "LISTEN_FDS=65"},
        {-1, "many", NULL, "LISTEN_FDS=many"},
        {-1, "99999999999999999999", NULL, "LISTEN_FDS=99999999999999999999"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        if (rows[i].fd >= 0) {
            cr_assert_eq(dup2(rows[i].fd, FIRST), FIRST);
        } else {
            close(FIRST);
        }
        teardown();
        setup();
        cr_assert_eq(reading(rows[i].count, rows[i].names), AG_EINVAL, "row %zu", i);
        cr_expect(strstr(why_text, rows[i].want), "row %zu: %s", i, why_text);
        cr_expect_eq(act.count, 0);
    }
}

Test(activation, by_address)
{
    char path[64], host[80];

    (void)snprintf(path, sizeof(path), "/tmp/anygate-activation-%d", (int)getpid());
    (void)snprintf(host, sizeof(host), "unix:%s", path);
    (void)unlink(path);
    uint16_t port = given(0, "127.0.0.1", 0, false, false);
    given(1, host, 0, false, false);
    listen_on(host, 0);
    listen_on("127.0.0.1", port);
    cr_assert_eq(reading("2", NULL), AG_OK, "%s", why_text);
    cr_assert_eq(ag_activation_give(&act, &model, &sockets, &why), AG_OK, "%s", why_text);
    cr_assert_eq(sockets.count, 2);
    cr_assert_eq(socket_at("127.0.0.1", port)->fds[0], FIRST);
    cr_assert_eq(socket_at(host, 0)->fds[0], FIRST + 1);

    /* Nothing is bound: each shard gets a duplicate of the one socket. */
    cr_assert_eq(ag_sockets_plan(&sockets, &model, &why), AG_OK, "%s", why_text);
    cr_assert_eq(sockets.count, 2);
    cr_assert_eq(socket_at("127.0.0.1", port)->fd_count, 2);
    (void)unlink(path);
}

Test(activation, nobody_wants_it)
{
    uint16_t port = given(0, "127.0.0.1", 0, false, false);
    char want[200];

    listen_on("127.0.0.2", port);
    cr_assert_eq(reading("1", "web"), AG_OK);
    cr_assert_eq(ag_activation_give(&act, &model, &sockets, &why), AG_EINVAL);
    (void)snprintf(
        want, sizeof(want),
        "descriptor 200 (web) from the service manager is bound to 127.0.0.1:%u, where no "
        "listener is configured; hint: add \"127.0.0.1:%u\" to server.listen",
        port, port);
    cr_expect_eq(strncmp(why_text, want, strlen(want)), 0, "%s", why_text);
    cr_expect_eq(sockets.count, 0);
    close(FIRST);
}

/* ":8080" is two listeners; the manager has one socket for both. */
Test(activation, one_socket_for_both_families)
{
    uint16_t port = given(0, "::", 0, true, false);

    listen_on("::", port);
    listen_on("0.0.0.0", port);
    cr_assert_eq(reading("1", NULL), AG_OK, "%s", why_text);
    cr_assert_eq(ag_activation_give(&act, &model, &sockets, &why), AG_OK, "%s", why_text);
    cr_assert_eq(ag_sockets_plan(&sockets, &model, &why), AG_OK, "%s", why_text);
    cr_expect_eq(socket_at("::", port)->fd_count, 2);
    cr_expect_eq(socket_at("0.0.0.0", port)->fd_count, 0);
}

Test(activation, a_socket_for_both_families_for_ipv4_alone)
{
    uint16_t port = given(0, "::", 0, true, false);

    listen_on("0.0.0.0", port);
    cr_assert_eq(reading("1", NULL), AG_OK, "%s", why_text);
    cr_assert_eq(ag_activation_give(&act, &model, &sockets, &why), AG_OK, "%s", why_text);
    cr_expect_eq(sockets.count, 1);
    cr_expect_eq(socket_at("0.0.0.0", port)->fds[0], FIRST);
}

Test(activation, a_socket_for_each_family)
{
    uint16_t port = given(0, "0.0.0.0", 0, false, false);

    given(1, "::", port, false, false);
    listen_on("::", port);
    listen_on("0.0.0.0", port);
    cr_assert_eq(reading("2", NULL), AG_OK, "%s", why_text);
    cr_assert_eq(ag_activation_give(&act, &model, &sockets, &why), AG_OK, "%s", why_text);
    cr_expect_eq(socket_at("0.0.0.0", port)->fds[0], FIRST);
    cr_expect_eq(socket_at("::", port)->fds[0], FIRST + 1);
    /* One of IPv6 alone does not stand for IPv4. */
    teardown();
    setup();
    port = given(0, "::", 0, false, false);
    listen_on("0.0.0.0", port);
    cr_assert_eq(reading("1", NULL), AG_OK, "%s", why_text);
    cr_assert_eq(ag_activation_give(&act, &model, &sockets, &why), AG_EINVAL);
    close(FIRST);
}

Test(activation, several_of_one_address)
{
    uint16_t port = given(0, "127.0.0.1", 0, false, true);

    given(1, "127.0.0.1", port, false, true);
    given(2, "127.0.0.1", port, false, true);
    listen_on("127.0.0.1", port);
    cr_assert_eq(reading("3", NULL), AG_OK, "%s", why_text);
    cr_assert_eq(ag_activation_give(&act, &model, &sockets, &why), AG_OK, "%s", why_text);
    cr_assert_eq(sockets.count, 1);
    cr_assert_eq(sockets.items[0].fd_count, 3);
    cr_assert_eq(ag_sockets_plan(&sockets, &model, &why), AG_OK, "%s", why_text);
    cr_assert_eq(sockets.items[0].fd_count, 3, "with two shards one serves two");
}
