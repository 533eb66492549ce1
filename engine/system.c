/* system: what the kernel answers at once, the same for io_uring and epoll. */
#include "engine/backend.h"
#include "engine/fault.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* ---- clock and chance ---- */

static void kernel_clock(struct ag_loop *l)
{
    struct timespec ts;

    AG_ASSERT(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    l->now_ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
    AG_ASSERT(clock_gettime(CLOCK_REALTIME_COARSE, &ts) == 0);
    l->wall_s = ts.tv_sec;
}

static uint64_t kernel_now_ns(struct ag_loop *l)
{
    struct timespec ts;

    (void)l;
    AG_ASSERT(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void kernel_seed(struct ag_loop *l, uint64_t out[static 4])
{
    const size_t len = 4 * sizeof(*out);

    (void)l;
    AG_ASSERT(getrandom(out, len, 0) == (ssize_t)len);
}

/* ---- waking ---- */

static int kernel_wake_open(struct ag_loop *l)
{
    l->wake_fd = AG_SYS("eventfd", eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    return l->wake_fd < 0 ? -errno : 0;
}

static void kernel_wake(struct ag_loop *l)
{
    const uint64_t one = 1;
    ssize_t n = write(l->wake_fd, &one, sizeof(one));

    AG_ASSERT(n == (ssize_t)sizeof(one) || errno == EAGAIN);
}

static void kernel_wake_clear(struct ag_loop *l)
{
    uint64_t count;
    ssize_t n = read(l->wake_fd, &count, sizeof(count));

    AG_ASSERT(n == (ssize_t)sizeof(count) || errno == EAGAIN);
}

/* ---- descriptors ---- */

static int kernel_socket(struct ag_loop *l, int family, int type)
{
    int fd = AG_SYS("socket", socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));

    (void)l;
    return fd < 0 ? -errno : fd;
}

static int kernel_accept(struct ag_loop *l, int fd)
{
    (void)l;
    return ag_sockio_accept(fd);
}

static void kernel_close(struct ag_loop *l, int fd)
{
    (void)l;
    (void)close(fd); /* Linux frees the descriptor whatever close says */
}

static void kernel_shut(struct ag_loop *l, int fd)
{
    (void)l;
    (void)AG_SYS("shutdown",
                 shutdown(fd, SHUT_WR)); /* ENOTCONN: the peer is gone; its receive op says so */
}

static void kernel_nodelay(struct ag_loop *l, int fd)
{
    const int one = 1, unsent = AG_UNSENT_MAX;

    (void)l;
    (void)AG_SYS("tcp_nodelay", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
    (void)AG_SYS("tcp_lowat",
                 setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent)));
}

static void kernel_reset_on_close(struct ag_loop *l, int fd)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    (void)l;
    (void)AG_SYS("so_linger", setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)));
}

static uint32_t kernel_unsent(struct ag_loop *l, int fd)
{
    int left = 0;

    (void)l;
    return AG_SYS("siocoutq", ioctl(fd, SIOCOUTQ, &left)) == 0 ? (uint32_t)left : 0;
}

static uint32_t kernel_progress(struct ag_loop *l, int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (AG_SYS("tcp_info", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len)) == 0 &&
        len >= offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked)) {
        return (uint32_t)info.tcpi_bytes_acked;
    }
    return kernel_unsent(l, fd);
}

static bool kernel_peer(struct ag_loop *l, int fd, union ag_addr *out)
{
    socklen_t len = sizeof(*out);

    (void)l;
    return AG_SYS("getpeername", getpeername(fd, &out->sa, &len)) == 0;
}

static bool kernel_local(struct ag_loop *l, int fd, union ag_addr *out)
{
    socklen_t len = sizeof(*out);

    (void)l;
    return AG_SYS("getsockname", getsockname(fd, &out->sa, &len)) == 0;
}

const struct ag_system ag_system_kernel = {
    .clock = kernel_clock,
    .now_ns = kernel_now_ns,
    .seed = kernel_seed,
    .wake_open = kernel_wake_open,
    .wake = kernel_wake,
    .wake_clear = kernel_wake_clear,
    .socket = kernel_socket,
    .accept = kernel_accept,
    .close = kernel_close,
    .shut = kernel_shut,
    .nodelay = kernel_nodelay,
    .reset_on_close = kernel_reset_on_close,
    .unsent = kernel_unsent,
    .progress = kernel_progress,
    .peer = kernel_peer,
    .local = kernel_local,
};
