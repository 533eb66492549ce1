/*
 * Goal: a shard's ring is no way around a seccomp filter: it takes what the backend asks for, no more.
 * Method: the ring of a running loop is handed what an intruder would (files, processes, other sockets);
 * the kernel must answer EACCES, and the loop must still work.
 */
#include "tests/unit/loops.h"

#include <errno.h>
#include <liburing.h>
#include <sys/syscall.h>

/* engine/uring.c asserts that the ring comes first. */
static struct io_uring *ring_of(const struct fixture *f)
{
    return (struct io_uring *)(void *)f->loop.uring;
}

static struct io_uring_sqe *sqe_of(const struct fixture *f)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring_of(f));

    if (!sqe) {
        abort();
    }
    return sqe;
}

static int32_t result_of(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    int32_t res;

    cr_assert_geq(io_uring_submit_and_wait(ring, 1), 0);
    cr_assert_eq(io_uring_peek_cqe(ring, &cqe), 0);
    res = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return res;
}

Test(uring, other_requests_are_refused)
{
    static const uint8_t refused[] = {IORING_OP_NOP,       IORING_OP_READ,      IORING_OP_WRITE,
                                      IORING_OP_OPENAT,    IORING_OP_OPENAT2,   IORING_OP_CLOSE,
                                      IORING_OP_UNLINKAT,  IORING_OP_RENAMEAT,  IORING_OP_MKDIRAT,
                                      IORING_OP_STATX,     IORING_OP_SPLICE,    IORING_OP_EPOLL_CTL,
                                      IORING_OP_SOCKET,    IORING_OP_LINKAT,    IORING_OP_SYMLINKAT,
                                      IORING_OP_FALLOCATE, IORING_OP_URING_CMD, IORING_OP_MSG_RING};
    struct fixture *f;
    int32_t fd;

    skip_without_uring();
    f = fixture_new(AG_BACKEND_URING, 4, 4);
    for (size_t i = 0; i < AG_COUNT(refused); i++) {
        struct io_uring_sqe *sqe = sqe_of(f);

        io_uring_prep_rw(refused[i], sqe, AT_FDCWD, "/etc/passwd", 0, 0);
        cr_expect_eq(result_of(ring_of(f)), -EACCES, "op %u", refused[i]);
    }
    struct io_uring_sqe *sqe = sqe_of(f);
    io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
    fd = result_of(ring_of(f));
    cr_expect_eq(fd, -EACCES);
    /* An allowed one with a flag that is not: out of the calling thread. */
    sqe = sqe_of(f);
    io_uring_prep_poll_add(sqe, 0, 0);
    sqe->flags |= IOSQE_ASYNC;
    cr_expect_eq(result_of(ring_of(f)), -EACCES);
    fixture_free(f);
}

Test(uring, other_registrations_are_refused)
{
    struct fixture *f;
    int fds[1] = {0};
    struct io_uring_restriction none = {0};

    skip_without_uring();
    f = fixture_new(AG_BACKEND_URING, 4, 4);
    cr_expect_eq(io_uring_register_files(ring_of(f), fds, 1), -EACCES);
    cr_expect_eq(io_uring_register_personality(ring_of(f)), -EACCES);
    cr_expect_lt(
        syscall(SYS_io_uring_register, ring_of(f)->ring_fd, IORING_REGISTER_RESTRICTIONS, &none, 1),
        0, "they cannot be lifted");
    fixture_free(f);
}
