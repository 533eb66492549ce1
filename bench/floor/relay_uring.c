/*
 * The floor of a proxy by io_uring: whatever a client sends goes to a connection to the origin of its own,
 * and what that sends comes back, by receives and sends of up to BUF bytes. Receives take provided buffers;
 * one entry into the kernel a turn submits and waits.
 *
 * usage: relay_uring PORT ORIGIN_PORT BUF
 */
#include "floor.h"

#include <liburing.h>

#define ENTRIES    1024u
#define BUFFERS    64u /* a power of two */
#define POOL_BYTES (16u << 20)

enum kind { ACCEPT, RECV, SEND };

struct end {
    int peer;            /* what it reads goes there; -1: not in use */
    unsigned held;       /* the buffer of the send to the peer */
    uint32_t at, len;    /* of it */
    int pending, ending; /* operations under way; closed when there are none */
};

static struct io_uring ring;
static struct io_uring_buf_ring *pool;
static struct end ends[CONNS_MAX];
static int hungry[CONNS_MAX]; /* found no buffer */
static size_t hungry_count;
static char *bufs;
static uint32_t most;

static struct io_uring_sqe *entry(enum kind kind, uint8_t op, int fd, const void *addr,
                                  uint32_t len, int owner)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

    while (!sqe) {
        io_uring_submit(&ring);
        sqe = io_uring_get_sqe(&ring);
    }
    io_uring_prep_rw(op, sqe, fd, addr, len, 0);
    sqe->user_data = (uint64_t)owner << 2 | kind;
    return sqe;
}

static void receive(int fd)
{
    entry(RECV, IORING_OP_RECV, fd, NULL, most, fd)->flags = IOSQE_BUFFER_SELECT;
    ends[fd].pending++;
}

static void send_on(int fd)
{
    struct end *e = &ends[fd];

    entry(SEND, IORING_OP_SEND, e->peer, bufs + (size_t)e->held * most + e->at, e->len - e->at, fd)
        ->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    e->pending++;
}

static void accept_all(int fd)
{
    struct io_uring_sqe *sqe = entry(ACCEPT, IORING_OP_ACCEPT, fd, NULL, 0, fd);

    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->accept_flags = SOCK_CLOEXEC;
}

static void give_back(unsigned id)
{
    io_uring_buf_ring_add(pool, bufs + (size_t)id * most, most, (unsigned short)id,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(pool, 1);
}

static void begin(int client, int origin)
{
    need(client < CONNS_MAX && origin < CONNS_MAX, "descriptors");
    no_delay(client);
    ends[client] = (struct end){.peer = origin};
    ends[origin] = (struct end){.peer = client};
    receive(client);
    receive(origin);
}

static void end(int fd)
{
    int peer = ends[fd].peer;

    if (!ends[fd].ending) {
        ends[fd].ending = ends[peer].ending = 1;
        shutdown(fd, SHUT_RDWR);
        shutdown(peer, SHUT_RDWR);
    }
    if (ends[fd].pending + ends[peer].pending == 0) {
        ends[fd].peer = ends[peer].peer = -1;
        close(fd);
        close(peer);
    }
}

static void received(int fd, const struct io_uring_cqe *cqe)
{
    struct end *e = &ends[fd];

    if (cqe->res > 0) {
        e->held = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        e->at = 0;
        e->len = (uint32_t)cqe->res;
        if (e->ending) {
            give_back(e->held);
            end(fd);
        } else {
            send_on(fd);
        }
    } else if (cqe->res == -ENOBUFS && !e->ending) {
        hungry[hungry_count++] = fd;
    } else {
        if (cqe->flags & IORING_CQE_F_BUFFER) {
            give_back(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        }
        end(fd);
    }
}

static void sent(int fd, int res)
{
    struct end *e = &ends[fd];

    e->at += res > 0 ? (uint32_t)res : 0;
    if (res > 0 && e->at < e->len && !e->ending) {
        send_on(fd);
        return;
    }
    give_back(e->held);
    if (res <= 0 || e->ending) {
        end(fd);
        return;
    }
    receive(fd);
    while (hungry_count > 0) {
        receive(hungry[--hungry_count]);
    }
}

int main(int argc, char **argv)
{
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                         IORING_SETUP_CQSIZE,
                                .cq_entries = ENTRIES * 4};
    struct io_uring_buf_reg reg = {.ring_entries = BUFFERS};

    need(argc == 4, "usage: relay_uring PORT ORIGIN_PORT BUF");
    most = (uint32_t)strtoul(argv[3], NULL, 10);
    need(most > 0 && most <= POOL_BYTES / BUFFERS, "BUF");
    need(io_uring_queue_init_params(ENTRIES, &ring, &p) == 0, "io_uring");
    pool = aligned_alloc(4096, 4096);
    bufs = aligned_alloc(4096, POOL_BYTES);
    need(pool != NULL && bufs != NULL, "malloc");
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
                begin(cqe->res, connect_to(argv[2], 0));
            } else if (kind == RECV) {
                ends[fd].pending--;
                received(fd, cqe);
            } else if (kind == SEND) {
                ends[fd].pending--;
                sent(fd, cqe->res);
            }
        }
        io_uring_cq_advance(&ring, seen);
    }
}
