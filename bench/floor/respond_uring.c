/*
 * The floor of fixed and static answers by io_uring: whatever comes is one request, and is answered by
 * BYTES of content in one send. Accepts and receives are multishot, by provided buffers; one entry into
 * the kernel a turn submits and waits.
 *
 * usage: respond_uring PORT BYTES
 */
#include "floor.h"

#include <liburing.h>

#define ENTRIES   1024u
#define BUFFERS   512u /* a power of two */
#define BUF_BYTES 2048u

enum kind { ACCEPT, RECV, SEND };

static struct io_uring ring;
static struct io_uring_buf_ring *pool;
static char bufs[BUFFERS][BUF_BYTES];

static struct io_uring_sqe *entry(enum kind kind, uint8_t op, int fd, const void *addr,
                                  uint32_t len)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

    while (!sqe) {
        io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
    }
    io_uring_prep_rw(op, sqe, fd, addr, len, 0);
    sqe->user_data = (uint64_t)fd << 2 | kind;
    return sqe;
}

static void receive(int fd)
{
    struct io_uring_sqe *sqe = entry(RECV, IORING_OP_RECV, fd, NULL, 0);

    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->flags = IOSQE_BUFFER_SELECT;
}

static void accept_all(int fd)
{
    struct io_uring_sqe *sqe = entry(ACCEPT, IORING_OP_ACCEPT, fd, NULL, 0);

    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->accept_flags = SOCK_CLOEXEC;
}

static void give_back(unsigned id)
{
    io_uring_buf_ring_add(pool, bufs[id], BUF_BYTES, (unsigned short)id,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(pool, 1);
}

int main(int argc, char **argv)
{
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                         IORING_SETUP_CQSIZE,
                                .cq_entries = ENTRIES * 4};
    struct io_uring_buf_reg reg = {.ring_entries = BUFFERS};
    size_t len;
    char *answer;

    need(argc == 3, "usage: respond_uring PORT BYTES");
    len = make_answer(&answer, strtoul(argv[2], NULL, 10));
    need(io_uring_queue_init_params(ENTRIES, &ring, &p) == 0, "io_uring");
    pool = aligned_alloc(4096, BUFFERS * sizeof(struct io_uring_buf));
    need(pool != NULL, "malloc");
    reg.ring_addr = (uint64_t)(uintptr_t)pool;
    io_uring_buf_ring_init(pool);
    need(io_uring_register_buf_ring(&ring, &reg, 0) == 0, "buffers");
    for (unsigned i = 0; i < BUFFERS; i++) {
        give_back(i);
    }
    accept_all(listen_on(argv[1], 0));
    for (;;) {
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;

        io_uring_submit_and_wait(&ring, 1);
        io_uring_for_each_cqe(&ring, head, cqe)
        {
            int fd = (int)(cqe->user_data >> 2);
            enum kind kind = cqe->user_data & 3;

            seen++;
            if (kind == ACCEPT && cqe->res >= 0) {
                no_delay(cqe->res);
                receive(cqe->res);
            } else if (kind == RECV && cqe->res > 0) {
                give_back(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
                entry(SEND, IORING_OP_SEND, fd, answer, (uint32_t)len)->msg_flags =
                    MSG_NOSIGNAL | MSG_WAITALL;
                if (!(cqe->flags & IORING_CQE_F_MORE)) {
                    receive(fd);
                }
            } else if (kind == RECV && cqe->res == -ENOBUFS) {
                receive(fd);
            } else if (kind == RECV) {
                close(fd);
            }
        }
        io_uring_cq_advance(&ring, seen);
    }
}
