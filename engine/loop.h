/*
 * loop: one shard's event loop: a single completion API over io_uring or epoll.
 *
 * All that reaches a shard from outside comes through its loop: clock, randomness, network, names
 * (resolver.h) and files (file.h). So a deterministic backend can stand in for the kernel.
 *
 * A turn:
 *
 *   wait for events --> completions: op->done --> messages of the inbox --> timers
 *        ^                                                                    |
 *        +--- submit all, one system call <--- tasks, until none is left <----+
 *
 * Rules, the same for every backend:
 *  - An op belongs to its owner and is in flight from its submission to its final completion (the one
 *    with `more` false). It must not move, be submitted again or be freed meanwhile.
 *  - done() is called from the loop, never from inside the submitting call. It may submit again.
 *  - Cancelling asks for an early final completion (res -ECANCELED, or the true result when it was
 *    faster); it is never the completion itself.
 *  - A descriptor is closed by ag_loop_close, when no op on it is in flight.
 */
#pragma once
#include "engine/list.h"
#include "engine/slice.h"
#include "engine/timer.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

struct ag_loop;
struct ag_op;

/* What a completion brings. */
struct ag_result {
    int32_t res;           /* >= 0: bytes, descriptor or poll events; < 0: -errno */
    bool more;             /* a multishot op stays in flight */
    struct ag_slice slice; /* recv with res > 0: the bytes; the callback owns the reference */
};

typedef void ag_op_fn(struct ag_loop *, struct ag_op *, const struct ag_result *);

enum ag_op_kind {
    AG_OP_NONE = 0, /* not in flight */
    AG_OP_ACCEPT,
    AG_OP_RECV,
    AG_OP_SEND,
    AG_OP_SENDFILE,
    AG_OP_CONNECT,
    AG_OP_POLL,
};

/* Where an op in flight is; the backend's. */
enum ag_op_state {
    AG_OP_WAITING =
        0, /* the kernel has it, or an event is awaited      -> READY, RECEIVED, DONE, STARVED */
    AG_OP_READY,    /* in `completed`: its system call can be tried   -> WAITING, RECEIVED, DONE */
    AG_OP_RECEIVED, /* in `completed`: a receive's res bytes          -> WAITING, READY, DONE */
    AG_OP_DONE,     /* in `completed`: res is its final result        -> delivered */
    AG_OP_STARVED,  /* a receive that waits for a buffer              -> READY, DONE */
};

struct ag_op {
    ag_op_fn *done;
    struct ag_link link; /* the backend's queues */
    struct ag_fd *fd;    /* while in flight */
    int32_t res;         /* the backend's: progress, then a result that waits to be delivered */
    uint8_t kind;        /* enum ag_op_kind */
    uint8_t arg;   /* recv: enum ag_buf_group; accept: enum ag_accept_way; poll: events; send: see
                            backend.h */
    uint8_t state; /* enum ag_op_state */
    bool cancelled;
};

/* A send or sendfile: what it must remember until the socket has room, the submitter's arguments. */
struct ag_write {
    struct ag_op op; /* first */
    union {
        struct {
            const uint8_t *ptr; /* NULL: `msg` */
            union {
                const struct msghdr *msg;
                size_t len;
            };
        } send;
        struct {
            uint64_t offset;
            int32_t fd;
            uint32_t len;
        } file;
    };
};

/* A descriptor known to the loop. At most one op that reads (accept, recv, poll for input) and one
 * that writes (send, sendfile, connect, poll for output) at a time. */
struct ag_fd {
    int fd;        /* -1: closed */
    bool readable; /* epoll: an edge was seen and not yet used up */
    bool writable;
    bool hangup      : 1;  /* epoll: the peer has closed, or sent urgent data; read to the end */
    bool registered  : 1;  /* epoll: in the set */
    bool shared      : 1;  /* with other processes: it stays open when it is closed here */
    bool polled      : 1;  /* io_uring: a receive waits for readiness */
    uint8_t bulk_run : 4;  /* not 0: it gives much at a time (bulk.h) */
    uint8_t unseen;        /* 64 KiB pieces that the next receive may leave in a pipe (pipes.h) */
    struct ag_op *rd, *wr; /* in flight */
};

/* Receive buffers come in two sizes: small for heads and idle connections, large for bodies. */
enum ag_buf_group { AG_BUF_SMALL, AG_BUF_LARGE, AG_BUF_GROUPS };
#define AG_BUF_SMALL_BYTES 4096u
/* 64k of content and the head before it: what comes in one piece leaves in one. */
#define AG_BUF_LARGE_BYTES (65536u + AG_BUF_SMALL_BYTES)

/* Work for later in this turn; queued at most once. Embedded in its owner. */
struct ag_task {
    struct ag_link link;
    void (*run)(struct ag_task *);
};

/* A message to another shard's loop; the sender's until run() is called on the target's thread. */
struct ag_msg {
    struct ag_msg *next;
    void (*run)(struct ag_loop *, struct ag_msg *);
};

union ag_addr {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

enum ag_backend_kind { AG_BACKEND_AUTO, AG_BACKEND_URING, AG_BACKEND_EPOLL };

/* Sizes of what a loop maps at start; 0 takes the default. */
struct ag_loop_config {
    enum ag_backend_kind backend;       /* never AUTO: see ag_backend_choose */
    const struct ag_backend *simulated; /* tests: stands in for `backend`; else NULL */
    void *simulation;                   /* its own, becomes ag_loop.simulation */
    uint32_t ring_entries;              /* submission queue, default 1024; halved on ENOMEM */
    uint32_t buf_count[AG_BUF_GROUPS];  /* receive and send buffers, default 4096 and 512 */
    uint32_t node_count;                /* slice nodes, default 32768 */
    uint32_t page_count;                /* arena pages, default 16384 */
    uint32_t pipe_count;                /* at most, default and no more than AG_PIPES_MAX */
    struct ag_helpers *helpers; /* helper.h; may be NULL: then files block the loop (tests) */
};

/* Counters, plain increments by the shard, read by others with relaxed loads. */
struct ag_loop_stats {
    uint64_t turns;       /* waits entered */
    uint64_t completions; /* done() calls */
    uint64_t starved;     /* receive ended for want of buffers (ENOBUFS), then armed again */
    uint64_t overflows;   /* completion queue overflows drained */
    /* Pieces of streams that were passed on (body.h): in the turn in which they came, or later. */
    _Atomic uint64_t passed_at_once, passed_later;
};

struct ag_backend; /* the table of functions, engine/backend.h */

#define AG_RECEIVED_MAX 256u /* small pieces that wait until all are received; a power of two */

struct ag_loop {
    /* public, read only */
    uint64_t now_ms;      /* monotonic, read once a turn */
    int64_t wall_s;       /* seconds since the epoch, read once a turn */
    struct ag_pool nodes; /* struct ag_slice_node */
    struct ag_pool sends; /* struct ag_conn_send (conn.h), as many as there are nodes */
    struct ag_pool pages; /* AG_ARENA_PAGE_BYTES */
    struct ag_pool files; /* struct ag_file_block (file.h), as many as there are nodes */
    struct ag_wheel wheel;
    struct ag_loop_stats stats;
    bool tight; /* receive buffers run short: nobody may hoard (buffers.h) */
    struct ag_helpers *helpers;
    struct ag_resolver *resolver; /* NULL until ag_resolver_init */
    void *user;                   /* the owner's, e.g. the shard */

    /* private */
    const struct ag_backend *backend;
    struct ag_bufs *bufs;     /* buffers.h */
    struct ag_pipes *pipes;   /* pipes.h */
    struct ag_link tasks;     /* struct ag_task, in order */
    struct ag_link completed; /* struct ag_op: results found without the kernel's queue */
    /* Of the ops in `completed` that are RECEIVED, in their order: a ring. */
    struct ag_block *received[AG_RECEIVED_MAX];
    uint32_t received_first, received_count;
    _Atomic(struct ag_msg *) inbox;
    int wake_fd; /* eventfd that the inbox's senders write */
    struct ag_fd wake;
    struct ag_op wake_op;
    uint64_t random[4];
    bool stopping;
    union {
        struct ag_uring *uring;
        struct ag_epoll *epoll;
        void *simulation;
    };
};

/* ---- start and stop ---- */

/* Which backend this kernel gets. `want` AUTO probes io_uring by a self-test (a socketpair round trip
 * with multishot receive and a buffer ring) and falls back to epoll; URING fails when the test does.
 *   out_why  static or thread-lifetime text for the log: why this one
 * AG_ESYS: the backend asked for is not to be had. */
AG_MUST_USE enum ag_status ag_backend_choose(enum ag_backend_kind want,
                                             enum ag_backend_kind *out_kind, const char **out_why);
const char *ag_backend_name(enum ag_backend_kind kind);

/* Sets up everything, on the thread that will run the loop (it blocks SIGPIPE for that thread, which
 * sendfile could raise); `config` is copied. AG_ENOMEM, or AG_ESYS, with *out_why telling what failed
 * (valid until the thread's next such call). */
AG_MUST_USE enum ag_status ag_loop_init(struct ag_loop *l, const struct ag_loop_config *config,
                                        const char **out_why);
/* No op may be in flight and no timer armed by others than the loop itself. */
void ag_loop_deinit(struct ag_loop *l);

/* Turns until ag_loop_stop. Must be called, like all else but ag_loop_post, on one thread. */
void ag_loop_run(struct ag_loop *l);
/* One turn, waiting at most wait_ms (UINT32_MAX: until something happens). For tests and run(). */
void ag_loop_turn(struct ag_loop *l, uint32_t wait_ms);
void ag_loop_stop(struct ag_loop *l);

/* ---- work inside the shard ---- */

void ag_task_init(struct ag_task *t, void (*run)(struct ag_task *));
/* Queues `t` for this turn; harmless when queued already. Runs before the loop waits again. */
void ag_task_queue(struct ag_loop *l, struct ag_task *t);
/* Harmless when not queued. */
void ag_task_cancel(struct ag_task *t);
static inline bool ag_task_queued(const struct ag_task *t)
{
    return t->link.next != &t->link;
}

static inline void ag_loop_arm(struct ag_loop *l, struct ag_timer *t, uint64_t after_ms)
{
    ag_timer_arm(&l->wheel, t, l->now_ms + after_ms);
}

/* Nanoseconds of the monotonic clock, read now: for latency figures, not for deadlines. */
uint64_t ag_loop_now_ns(struct ag_loop *l);
/* Uniform random bits, seeded once from the system; not for keys. */
uint64_t ag_loop_random(struct ag_loop *l);

/* ---- work from other threads ---- */

/* The only call allowed from any thread. Messages of one sender arrive in order. */
void ag_loop_post(struct ag_loop *target, struct ag_msg *m);

/* ---- descriptors ---- */

/* A non-blocking, close-on-exec socket. -errno on failure. */
int ag_loop_socket(struct ag_loop *l, int family, int type);
void ag_fd_init(struct ag_fd *f, int fd);
/* Closes and sets f->fd to -1. No op on it may be in flight. */
void ag_loop_close(struct ag_loop *l, struct ag_fd *f);
/* Shuts the writing side (SHUT_WR). */
void ag_loop_shut(struct ag_loop *l, struct ag_fd *f);
/* What the system holds unsent for one TCP peer at most, bytes (TCP_NOTSENT_LOWAT). Otherwise it takes
 * megabytes for a peer that takes none, and thousands of those take the memory that all sockets share
 * (net.ipv4.tcp_mem). What is on its way, unacknowledged, does not count. */
#define AG_UNSENT_MAX (32 * 1024)
/* Sends small pieces at once (TCP_NODELAY), and lets the system hold AG_UNSENT_MAX. */
void ag_loop_nodelay(struct ag_loop *l, struct ag_fd *f);
/* The coming close drops what is unsent and resets the connection (SO_LINGER of 0). */
void ag_loop_reset_on_close(struct ag_loop *l, struct ag_fd *f);
/* Bytes taken by the kernel that the peer's has not acknowledged yet (SIOCOUTQ); 0: it does not say. */
uint32_t ag_loop_unsent(struct ag_loop *l, const struct ag_fd *f);
/* A count that changes as the peer takes output: bytes acknowledged (TCP_INFO, modulo 2^32), for other
 * sockets the unsent ones. Two are compared by their difference, either way. */
uint32_t ag_loop_progress(struct ag_loop *l, const struct ag_fd *f);
/* The peer's address (getpeername) and ours (getsockname); the family is AF_UNSPEC when the system does
 * not say. */
void ag_loop_peer(struct ag_loop *l, const struct ag_fd *f, union ag_addr *out_addr);
void ag_loop_local(struct ag_loop *l, const struct ag_fd *f, union ag_addr *out_addr);

/* How connections are taken: as many at once as wait (io_uring; the cheaper way), which come even behind a cancel;
 * or few at a time, each of which its owner may make the last. */
enum ag_accept_way { AG_ACCEPT_ALL, AG_ACCEPT_SPARING };
/* Multishot: a completion per connection, res being the new descriptor (non-blocking, close-on-exec).
 * EMFILE, ENFILE, ENOBUFS and ENOMEM end it (res is the error, `more` false): the owner arms it again
 * when descriptors are free. ECONNABORTED and its like are swallowed. */
void ag_loop_accept(struct ag_loop *l, struct ag_fd *f, struct ag_op *op, enum ag_accept_way way);
/* Multishot: a completion per received piece, in buffers of `group`. Ends with res 0 (end of input),
 * an error, or -ECANCELED. Want of buffers is handled inside: receive resumes when one is returned. */
void ag_loop_recv(struct ag_loop *l, struct ag_fd *f, struct ag_op *op, enum ag_buf_group group);
/* One completion when all bytes are taken by the kernel (res: all of them, at most INT32_MAX), or an
 * error. `msg`, its iovec and the bytes must stay until then. msg_flags may hold MSG_MORE. */
void ag_loop_send(struct ag_loop *l, struct ag_fd *f, struct ag_write *w, const struct msghdr *msg);
/* The same for one piece. */
void ag_loop_send_one(struct ag_loop *l, struct ag_fd *f, struct ag_write *w, const void *ptr,
                      size_t len);
/* Sends what there is room for of one piece without an op, where the backend can: bytes (> 0), -errno, or 0:
 * none, an op is to send it. No op that writes may be in flight. */
AG_MUST_USE int32_t ag_loop_send_now(struct ag_loop *l, struct ag_fd *f, const void *ptr,
                                     size_t len);
/* The offset of what is next in a pipe. */
#define AG_OFFSET_PIPE UINT64_MAX
/* One completion with the bytes sent (at least 1, at most len and 512k), or an error; res 0: the file
 * is shorter than offset. Waits for room in the socket, not for the disk; a pipe has to hold `len` bytes. */
void ag_loop_sendfile(struct ag_loop *l, struct ag_fd *f, struct ag_write *w, int file_fd,
                      uint64_t offset, size_t len);
/* res 0: connected. `addr` is copied or used at once. */
void ag_loop_connect(struct ag_loop *l, struct ag_fd *f, struct ag_op *op,
                     const union ag_addr *addr, socklen_t addr_len);
/* One-shot: res is the poll(2) events that came; `events` is POLLIN or POLLOUT, not both. */
void ag_loop_poll(struct ag_loop *l, struct ag_fd *f, struct ag_op *op, short events);
/* Asks for the final completion of `op`; harmless when it is not in flight. */
void ag_loop_cancel(struct ag_loop *l, struct ag_op *op);

static inline void ag_op_init(struct ag_op *op, ag_op_fn *done)
{
    *op = (struct ag_op){.done = done};
    ag_list_init(&op->link);
}

/* The write that `op` is part of. */
static inline struct ag_write *ag_write_of(struct ag_op *op)
{
    return ag_container_of(op, struct ag_write, op);
}

static inline void ag_write_init(struct ag_write *w, ag_op_fn *done)
{
    *w = (struct ag_write){.op.done = done};
    ag_list_init(&w->op.link);
}

static inline bool ag_op_in_flight(const struct ag_op *op)
{
    return op->kind != AG_OP_NONE;
}

/* ---- buffers ---- */

/* A block of AG_BUF_SMALL_BYTES or AG_BUF_LARGE_BYTES to write into, refs 1; NULL when none is left.
 * Released like any block; it goes back to the shard's receive ring or free list. */
AG_MUST_USE struct ag_block *ag_loop_buf(struct ag_loop *l, enum ag_buf_group group);
/* Whether a small one is left. If not, `t` runs once when that may have changed, unless it is cancelled. */
AG_MUST_USE bool ag_loop_buf_or_wait(struct ag_loop *l, struct ag_task *t);
/* Buffers handed out now, for metrics and leak checks. */
uint32_t ag_loop_bufs_used(const struct ag_loop *l, enum ag_buf_group group);
