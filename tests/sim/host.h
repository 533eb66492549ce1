/*
 * host: the system under the server: struct ag_backend and struct ag_system over the simulated network,
 * for one process of several loops.
 *
 *   op --start--> submitted --enter--> armed --an event of its end--> completion --reap--> done()
 *                                        ^ cancel: its own completion, later; results may be faster
 *
 * It behaves like io_uring (results lie in a queue while the op is being cancelled, receives take
 * buffers from a ring when bytes arrive) or like epoll (writes are tried at once, receives when the loop
 * comes to them), as the run decides for each loop. Everything an owner may rely on is checked: an op
 * whose completion comes must still be the one that was started.
 */
#pragma once
#include "tests/sim/net.h"

#include "engine/backend.h"
#include "engine/dns_srv.h"
#include "engine/file.h"

#define HOST_FD_BASE  1000000 /* far from real descriptors: a stray system call fails */
#define HOST_FDS      1024u
#define HOST_LOOPS    3u
#define HOST_RING_MAX 256u

struct host_loop;
struct host_pipe;

enum host_kind { HOST_SOCKET, HOST_LISTENER, HOST_WAKE };

/* A descriptor. */
struct host_sock {
    struct host_loop *loop; /* the one whose ops it has */
    int fd;
    uint8_t kind;
    struct net_end *end; /* SOCKET: NULL before connect */
    struct net_listener *listener;
    struct ag_op *rd, *wr;   /* in flight, its final completion not delivered */
    uint32_t rd_run, wr_run; /* count of ops so far: a late cancel knows its own */
    bool rd_armed, wr_armed; /* submitted */
    bool rd_over, wr_over;   /* the final completion is in the queue */
    bool ready;              /* like epoll: an edge is in the queue */
    bool signalled;          /* WAKE */
    bool look_asked;         /* a delayed look is under way */
};

struct host_completion {
    struct host_sock *sock;
    struct ag_op *op; /* NULL: an edge */
    int32_t res;
    uint32_t buffer;
    bool write, more, has_buffer;
    bool polled; /* of a receive: there is input, which may go into a pipe */
};

struct host_entry {
    struct host_sock *sock;
    struct ag_op *op;
    uint32_t run;
    bool write, cancel;
};

struct host_loop {
    struct ag_loop loop;
    struct host *host;
    uint32_t index;
    bool live; /* between init and deinit */
    bool like_epoll;
    bool entering;                /* an enter is scheduled */
    struct host_completion *done; /* a queue: [done_at, done_count) */
    uint32_t done_at, done_count, done_cap;
    struct host_entry *asked; /* submissions */
    uint32_t asked_count, asked_cap;
    uint32_t ring[AG_BUF_GROUPS][HOST_RING_MAX]; /* buffer ids, a queue */
    uint32_t ring_at[AG_BUF_GROUPS], ring_count[AG_BUF_GROUPS];
    struct host_pipe *pipes, *old_pipes; /* in use; given back: their memory is used again */
    uint32_t pipe_count;                 /* in use */
    uint32_t pending_files;
};

/* Per mille; what goes wrong inside the host. */
struct host_faults {
    uint32_t socket, send, recv; /* the call fails; accept as socket */
    uint32_t file, file_slow;
    uint32_t name, name_slow;
    uint32_t lag; /* completions and submissions that take their time */
};

struct host {
    struct sim *sim;
    struct host_faults faults;
    uint32_t fd_limit;
    uint32_t fd_count;
    uint32_t fd_most;                /* at a time */
    uint32_t ip;                     /* connections go out from here */
    struct host_sock *fds[HOST_FDS]; /* by number from HOST_FD_BASE */
    struct host_loop loops[HOST_LOOPS];
    uint32_t pending_files, pending_names;
    uint32_t pipes_made;
    uint64_t shortages; /* faults injected that are not one connection's */
    /* The run's: addresses of a name; 0: there is no such name. */
    uint32_t (*resolve)(struct sim *, const char *name, uint32_t ips[static 4]);
    /* The same: where a service is, by priority. */
    uint32_t (*places)(struct sim *, const char *name, struct ag_srv_target targets[static 4]);
};

/* Forgets the last run. */
void host_begin(struct host *h, struct sim *s);
/* Loop `index`, with pools of these sizes. */
void host_loop_init(struct host *h, uint32_t index, bool like_epoll,
                    const struct ag_loop_config *c);
void host_loop_deinit(struct host *h, uint32_t index);
/* A listening descriptor. */
int host_listen(struct host *h, uint16_t port, uint32_t backlog);
/* Closes a descriptor that no loop has. */
void host_close(struct host *h, int fd);
bool host_is_open(const struct host *h, int fd);

/* The loop has something to do now. */
bool host_runnable(const struct host_loop *l);
/* When it wants to be woken at the latest; UINT64_MAX: never. */
uint64_t host_wakes_us(const struct host_loop *l);
/* After a turn: what was submitted is on its way. */
void host_after_turn(struct host_loop *l);
