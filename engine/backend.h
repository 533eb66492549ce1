/*
 * backend: what a kernel interface must do for the loop. Private to the loop and its backends.
 *
 * Two tables. struct ag_backend starts ops and brings their completions. struct ag_system is the rest of
 * what a shard asks the world, at once: clock, chance, descriptors; and who looks names and files up.
 * io_uring and epoll share one, ag_system_kernel (system.c); a simulation brings both of its own.
 *
 *   ag_loop_recv, send ... (loop.c: checks, fills the op)
 *        |  start / connect                       ^ ag_loop_deliver: op->done
 *        v                                        |
 *   backend: the kernel has the op  --> reap      +-- l->completed <-- results found at once
 *
 * l->completed holds ops of state READY (the loop calls `perform`), RECEIVED and DONE (the loop delivers).
 * Nothing is delivered from inside start, connect or cancel.
 */
#pragma once
#include "engine/buffers.h"
#include "engine/loop.h"

/* Bytes one sendfile may move, so that one big file does not hold up the shard. */
#define AG_SENDFILE_MAX ((size_t)512 * 1024)

/* Input of so many bytes is passed on before more is received. */
#define AG_HEAVY_BYTES ((size_t)16 * 1024)

struct ag_file_op;
struct ag_srv_target;

/* What is asked of a name. */
enum ag_lookup_kind { AG_LOOKUP_ADDRESSES, AG_LOOKUP_SRV, AG_LOOKUP_KINDS };

struct ag_system {
    /* Sets now_ms and wall_s; once a turn. */
    void (*clock)(struct ag_loop *);
    /* ag_loop_now_ns. */
    uint64_t (*now_ns)(struct ag_loop *);
    /* Where the loop's random numbers begin. */
    void (*seed)(struct ag_loop *, uint64_t out[static 4]);

    /* Makes l->wake_fd, which polls readable from `wake` to `wake_clear`; 0 or -errno. It is closed like
     * any descriptor. `wake` is called by any thread. */
    int (*wake_open)(struct ag_loop *);
    void (*wake)(struct ag_loop *);
    void (*wake_clear)(struct ag_loop *);

    /* What the functions of loop.h of these names say. -errno on failure. */
    int (*socket)(struct ag_loop *, int family, int type);
    int (*accept)(struct ag_loop *, int fd);
    void (*close)(struct ag_loop *, int fd);
    void (*shut)(struct ag_loop *, int fd);
    void (*nodelay)(struct ag_loop *, int fd);
    void (*reset_on_close)(struct ag_loop *, int fd);
    uint32_t (*unsent)(struct ag_loop *, int fd);
    uint32_t (*progress)(struct ag_loop *, int fd);
    /* False: the system does not say. */
    bool (*peer)(struct ag_loop *, int fd, union ag_addr *out);
    bool (*local)(struct ag_loop *, int fd, union ag_addr *out);

    /* Looks `name` up (lower case, no address) and calls ag_resolver_answer, or for SRV
     * ag_resolver_answer_srv, never from inside. NULL: the resolver asks by c-ares. */
    void (*look_up)(struct ag_loop *, const char *name, enum ag_lookup_kind kind);
    /* Takes a file operation over, to call ag_file_perform later; false: it goes its usual way. May be
     * NULL. */
    bool (*file)(struct ag_loop *, struct ag_file_op *);
    /* ag_file_is_warm. NULL: the kernel is asked. */
    bool (*file_is_warm)(struct ag_loop *, int fd, uint64_t offset, size_t len);
};

struct ag_backend {
    const char *name;
    const struct ag_system *system;
    enum ag_status (*init)(struct ag_loop *, const struct ag_loop_config *, const char **out_why);
    void (*deinit)(struct ag_loop *);
    /* Submits what is queued and waits at most wait_ms (UINT32_MAX: without end). No callbacks. */
    void (*wait)(struct ag_loop *, uint32_t wait_ms);
    /* Delivers, or puts in l->completed, what the wait brought. */
    void (*reap)(struct ag_loop *);
    /* Starts an op; kind, fd and arguments are set. */
    void (*start)(struct ag_loop *, struct ag_op *);
    void (*connect)(struct ag_loop *, struct ag_op *, const union ag_addr *, socklen_t addr_len);
    /* ag_loop_send_now. NULL: writes go by ops alone. */
    int32_t (*send_now)(struct ag_fd *, const void *ptr, size_t len);
    /* The op was READY: try now. May deliver. */
    void (*perform)(struct ag_loop *, struct ag_op *);
    /* The op is WAITING. */
    void (*cancel)(struct ag_loop *, struct ag_op *);
    /* The descriptor is about to be closed. May be NULL. */
    void (*forget)(struct ag_loop *, struct ag_fd *);
};

extern const struct ag_backend ag_backend_uring;
extern const struct ag_backend ag_backend_epoll;
extern const struct ag_system ag_system_kernel;

/* Calls op->done; without `more` the op is its owner's again first. */
void ag_loop_deliver(struct ag_loop *l, struct ag_op *op, const struct ag_result *r);
/* The final delivery of a plain result. */
void ag_loop_deliver_res(struct ag_loop *l, struct ag_op *op, int32_t res);
/* For a backend, behind the delivery of much input, when nothing of the op is needed any more: what that has set going is
 * done before the next receive. So it leaves while the cache still has it, and its buffer goes round: 64
 * connections with one each are more than a cache holds. */
void ag_loop_pass_on(struct ag_loop *l);
/* Delivers a piece of a multishot receive: `bytes` of `block`, whose reference goes along. */
void ag_loop_deliver_piece(struct ag_loop *l, struct ag_op *op, struct ag_block *block,
                           size_t bytes);
/* Queues the final result `res`, to be delivered from the loop. `op` must be in no queue. */
void ag_loop_complete(struct ag_loop *l, struct ag_op *op, int32_t res);
/* Queues `op` to be performed from the loop. It must be in no queue. */
void ag_loop_ready(struct ag_loop *l, struct ag_op *op);
/* Delivers what a receive brought, now or later in the turn, and goes on with the op: READY where its
 * descriptor is still readable. `op` must be in no queue; takes the block's reference. */
void ag_loop_received(struct ag_loop *l, struct ag_op *op, struct ag_block *block, int32_t bytes);
/* Takes one connection without waiting: a descriptor or -errno (-EAGAIN: none). For the last ones of
 * a listener that closes; no accept may be in flight. */
int ag_loop_accept_now(struct ag_loop *l, struct ag_fd *f);
/* Performs an accept op: takes a few connections, fewer when its owner cancels it meanwhile. True: no more
 * are there, and it is WAITING for the listener to be readable; else it is queued or has ended. */
bool ag_loop_accept_some(struct ag_loop *l, struct ag_op *op);
/* What look_up was asked for (resolver.c): `count` addresses, whose ports do not matter, for `ttl_ms`, or
 * a failure (AG_ENOENT, AG_AGAIN). Ignored when nobody waits for `name`. */
void ag_resolver_answer(struct ag_loop *l, const char *name, enum ag_status st,
                        const union ag_addr *addrs, uint32_t count, uint64_t ttl_ms);
/* The same for SRV: at most AG_SRV_MAX targets, sorted by priority. */
void ag_resolver_answer_srv(struct ag_loop *l, const char *name, enum ag_status st,
                            const struct ag_srv_target *targets, uint32_t count, uint32_t ttl_s);
/* Does a file operation that was taken over, or fails it with errno `error`; done() comes by task. */
void ag_file_perform(struct ag_file_op *op, int error);
/* Text of this thread, for *out_why. */
const char *ag_loop_why(const char *fmt, ...) AG_PRINTF(1, 2);

/* ---- sockio.c: system calls tried at once, the same for every backend ---- */

/* Goes on with a send or sendfile: its final result, or -EAGAIN when the socket has no room (progress
 * is kept in op->res). */
int32_t ag_sockio_write(struct ag_op *op);
/* Receives what is there: bytes, 0 at the end, or -errno. */
int32_t ag_sockio_recv(int fd, void *ptr, size_t len);
/* Sends what the socket has room for: bytes, or -errno. */
int32_t ag_sockio_send(int fd, const void *ptr, size_t len);
/* Bytes that a send is to send in all. */
size_t ag_sockio_send_len(const struct ag_write *w);
/* accept4 with the flags that every descriptor gets: a descriptor or -errno. */
int32_t ag_sockio_accept(int fd);
/* True for errors of accept that concern the one connection, not the listener (accept(2)). */
bool ag_sockio_accept_again(int32_t res);
