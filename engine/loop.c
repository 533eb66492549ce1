#include "engine/loop.h"

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/conn.h"
#include "engine/file.h"
#include "engine/pipes.h"
#include "engine/random.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

/* Passes over tasks and results known at once before the kernel is asked again, so that a connection
 * that is always ready cannot keep the others waiting. */
#define ROUNDS 16u
/* Connections that one accept op takes before the others get their turn. */
#define ACCEPT_BATCH 16u
/* The same of what one piece of input has set going: body, stream, socket, and what that gave back. */
#define PASS_ROUNDS 4u

#define DEFAULT_RING  1024u
#define DEFAULT_SMALL 4096u
#define DEFAULT_LARGE 512u
#define DEFAULT_NODES 32768u
#define DEFAULT_PAGES 16384u

static void on_wake(struct ag_loop *l, struct ag_op *op, const struct ag_result *r);

const char *ag_loop_why(const char *fmt, ...)
{
    static _Thread_local char text[160];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return text;
}

/* ---- completions ---- */

void ag_loop_deliver(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    AG_ASSERT(op->kind != AG_OP_NONE);
    if (!r->more) {
        struct ag_fd *f = op->fd;
        AG_ASSERT(f->rd == op || f->wr == op);
        if (f->rd == op) {
            f->rd = NULL;
        } else {
            f->wr = NULL;
        }
        op->kind = AG_OP_NONE;
        op->fd = NULL;
    }
    l->stats.completions++;
    op->done(l, op, r);
}

void ag_loop_deliver_res(struct ag_loop *l, struct ag_op *op, int32_t res)
{
    ag_loop_deliver(l, op, &(struct ag_result){.res = res});
}

void ag_loop_deliver_piece(struct ag_loop *l, struct ag_op *op, struct ag_block *block,
                           size_t bytes)
{
    ag_loop_deliver(l, op,
                    &(struct ag_result){.res = (int32_t)bytes,
                                        .more = true,
                                        .slice = {{.ptr = block->data}, bytes, block}});
}

void ag_loop_complete(struct ag_loop *l, struct ag_op *op, int32_t res)
{
    op->res = res;
    op->state = AG_OP_DONE;
    ag_list_push(&l->completed, &op->link);
}

void ag_loop_ready(struct ag_loop *l, struct ag_op *op)
{
    op->state = AG_OP_READY;
    ag_list_push(&l->completed, &op->link);
}

static void deliver_received(struct ag_loop *l, struct ag_op *op, struct ag_block *block,
                             int32_t bytes)
{
    op->res = 0;
    op->state = AG_OP_WAITING;
    if (op->cancelled) {
        ag_loop_complete(l, op, -ECANCELED);
    } else if (op->fd->readable) {
        ag_loop_ready(l, op);
    }
    ag_loop_deliver_piece(l, op, block, (size_t)bytes);
}

static struct ag_block *take_received(struct ag_loop *l)
{
    l->received_count--;
    return l->received[l->received_first++ % AG_RECEIVED_MAX];
}

/* Small pieces are received one after the other, and worked on after that: so the code of each is in the
 * cache. Of large ones that is more true of their bytes. */
void ag_loop_received(struct ag_loop *l, struct ag_op *op, struct ag_block *block, int32_t bytes)
{
    if (op->arg == AG_BUF_LARGE || l->received_count == AG_RECEIVED_MAX) {
        deliver_received(l, op, block, bytes);
        return;
    }
    l->received[(l->received_first + l->received_count++) % AG_RECEIVED_MAX] = block;
    op->res = bytes;
    op->state = AG_OP_RECEIVED;
    ag_list_push(&l->completed, &op->link);
}

/* Empties `from` into `to`, which is not initialised: what is queued meanwhile waits for the next
 * round. */
static void take_all(struct ag_link *to, struct ag_link *from)
{
    ag_list_init(to);
    if (!ag_list_empty(from)) {
        *to = *from;
        to->next->prev = to->prev->next = to;
        ag_list_init(from);
    }
}

static void run_tasks(struct ag_loop *l)
{
    struct ag_link batch, *link;

    take_all(&batch, &l->tasks);
    while ((link = ag_list_pop(&batch))) {
        struct ag_task *t = ag_container_of(link, struct ag_task, link);
        t->run(t);
    }
}

/* Delivers what is done; what is ready stays queued. */
static void run_done(struct ag_loop *l)
{
    struct ag_link batch, *link;

    take_all(&batch, &l->completed);
    while ((link = ag_list_pop(&batch))) {
        struct ag_op *op = ag_container_of(link, struct ag_op, link);
        if (op->state == AG_OP_DONE) {
            ag_loop_deliver_res(l, op, op->res);
        } else {
            ag_list_push(&l->completed, link);
        }
    }
}

void ag_loop_pass_on(struct ag_loop *l)
{
    for (unsigned i = 0; i < PASS_ROUNDS && !ag_list_empty(&l->tasks); i++) {
        run_tasks(l);
        run_done(l);
    }
}

static void run_completed(struct ag_loop *l)
{
    struct ag_link batch, *link;

    take_all(&batch, &l->completed);
    while ((link = ag_list_pop(&batch))) {
        struct ag_op *op = ag_container_of(link, struct ag_op, link);
        if (op->state == AG_OP_RECEIVED) {
            deliver_received(l, op, take_received(l), op->res);
        } else if (op->state == AG_OP_DONE) {
            ag_loop_deliver_res(l, op, op->res);
        } else {
            AG_ASSERT(op->state == AG_OP_READY);
            op->state = AG_OP_WAITING;
            l->backend->perform(l, op);
        }
    }
}

/* ---- messages ---- */

void ag_loop_post(struct ag_loop *target, struct ag_msg *m)
{
    struct ag_msg *head = atomic_load_explicit(&target->inbox, memory_order_relaxed);

    do {
        m->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&target->inbox, &head, m, memory_order_release,
                                                    memory_order_relaxed));
    /* The one who finds it empty wakes the loop; later ones ride along until it is drained. */
    if (!head) {
        target->backend->system->wake(target);
    }
}

static void run_inbox(struct ag_loop *l)
{
    struct ag_msg *m, *first = NULL;

    if (!atomic_load_explicit(&l->inbox, memory_order_relaxed)) {
        return;
    }
    m = atomic_exchange_explicit(&l->inbox, NULL, memory_order_acquire);
    while (m) { /* newest first: turn it round */
        struct ag_msg *next = m->next;
        m->next = first;
        first = m;
        m = next;
    }
    while (first) {
        m = first;
        first = m->next;
        m->run(l, m);
    }
}

static void on_wake(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    if (r->res == -ECANCELED || op->cancelled) { /* deinit, which a message may overtake */
        return;
    }
    /* Without memory for the poll: the inbox is looked at each turn anyway, so ask again. */
    if (r->res > 0) {
        l->backend->system->wake_clear(l);
    }
    ag_loop_poll(l, &l->wake, op, POLLIN);
}

/* ---- turns ---- */

static bool work_left(const struct ag_loop *l)
{
    return !ag_list_empty(&l->tasks) || !ag_list_empty(&l->completed);
}

void ag_loop_turn(struct ag_loop *l, uint32_t wait_ms)
{
    uint32_t timers_ms = ag_wheel_wait_ms(&l->wheel, l->now_ms);

    if (work_left(l)) {
        wait_ms = 0;
    } else if (timers_ms < wait_ms) {
        wait_ms = timers_ms;
    }
    l->stats.turns++;
    l->backend->wait(l, wait_ms);
    l->backend->system->clock(l);
    l->backend->reap(l);
    run_completed(l);
    run_inbox(l);
    ag_wheel_run(&l->wheel, l->now_ms);
    for (unsigned i = 0; i < ROUNDS && work_left(l); i++) {
        run_tasks(l);
        run_completed(l);
    }
}

void ag_loop_run(struct ag_loop *l)
{
    while (!l->stopping) {
        ag_loop_turn(l, UINT32_MAX);
    }
}

void ag_loop_stop(struct ag_loop *l)
{
    l->stopping = true;
}

/* ---- tasks, clock, chance ---- */

void ag_task_init(struct ag_task *t, void (*run)(struct ag_task *))
{
    ag_list_init(&t->link);
    t->run = run;
}

void ag_task_queue(struct ag_loop *l, struct ag_task *t)
{
    if (!ag_task_queued(t)) {
        ag_list_push(&l->tasks, &t->link);
    }
}

void ag_task_cancel(struct ag_task *t)
{
    ag_list_remove(&t->link);
}

uint64_t ag_loop_now_ns(struct ag_loop *l)
{
    return l->backend->system->now_ns(l);
}

uint64_t ag_loop_random(struct ag_loop *l)
{
    return ag_random_next(l->random);
}

/* ---- descriptors ---- */

int ag_loop_socket(struct ag_loop *l, int family, int type)
{
    return l->backend->system->socket(l, family, type);
}

void ag_fd_init(struct ag_fd *f, int fd)
{
    *f = (struct ag_fd){.fd = fd, .writable = true};
}

void ag_loop_close(struct ag_loop *l, struct ag_fd *f)
{
    AG_ASSERT(!f->rd && !f->wr);
    if (f->fd >= 0) {
        if (l->backend->forget) {
            l->backend->forget(l, f);
        }
        l->backend->system->close(l, f->fd);
        f->fd = -1;
    }
}

void ag_loop_shut(struct ag_loop *l, struct ag_fd *f)
{
    l->backend->system->shut(l, f->fd);
}

void ag_loop_nodelay(struct ag_loop *l, struct ag_fd *f)
{
    l->backend->system->nodelay(l, f->fd);
}

void ag_loop_reset_on_close(struct ag_loop *l, struct ag_fd *f)
{
    l->backend->system->reset_on_close(l, f->fd);
}

uint32_t ag_loop_unsent(struct ag_loop *l, const struct ag_fd *f)
{
    return l->backend->system->unsent(l, f->fd);
}

uint32_t ag_loop_progress(struct ag_loop *l, const struct ag_fd *f)
{
    return l->backend->system->progress(l, f->fd);
}

void ag_loop_peer(struct ag_loop *l, const struct ag_fd *f, union ag_addr *out_addr)
{
    *out_addr = (union ag_addr){0};
    if (!l->backend->system->peer(l, f->fd, out_addr)) {
        out_addr->sa.sa_family = AF_UNSPEC;
    }
}

void ag_loop_local(struct ag_loop *l, const struct ag_fd *f, union ag_addr *out_addr)
{
    *out_addr = (union ag_addr){0};
    if (!l->backend->system->local(l, f->fd, out_addr)) {
        out_addr->sa.sa_family = AF_UNSPEC;
    }
}

int ag_loop_accept_now(struct ag_loop *l, struct ag_fd *f)
{
    AG_ASSERT(!f->rd);
    return l->backend->system->accept(l, f->fd);
}

bool ag_loop_accept_some(struct ag_loop *l, struct ag_op *op)
{
    int fd = op->fd->fd;

    op->state = AG_OP_READY; /* in no queue: a cancel by its owner ends it at once */
    for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
        int32_t res = ag_sockio_accept(fd);

        if (res == -EAGAIN) {
            op->state = AG_OP_WAITING;
            return true;
        }
        if (res >= 0) {
            ag_loop_deliver(l, op, &(struct ag_result){.res = res, .more = true});
            if (op->state != AG_OP_READY) {
                return false;
            }
        } else if (!ag_sockio_accept_again(res)) {
            ag_loop_deliver_res(l, op, res);
            return false;
        }
    }
    ag_loop_ready(l, op);
    return false;
}

static void begin(struct ag_fd *f, struct ag_op *op, enum ag_op_kind kind, struct ag_op **slot)
{
    AG_ASSERT(op->kind == AG_OP_NONE && !*slot && f->fd >= 0);
    *slot = op;
    op->fd = f;
    op->kind = (uint8_t)kind;
    op->state = AG_OP_WAITING;
    op->cancelled = false;
    op->res = 0;
    op->arg = 0;
}

void ag_loop_accept(struct ag_loop *l, struct ag_fd *f, struct ag_op *op, enum ag_accept_way way)
{
    begin(f, op, AG_OP_ACCEPT, &f->rd);
    op->arg = (uint8_t)way;
    l->backend->start(l, op);
}

void ag_loop_recv(struct ag_loop *l, struct ag_fd *f, struct ag_op *op, enum ag_buf_group group)
{
    AG_ASSERT(group < AG_BUF_GROUPS);
    begin(f, op, AG_OP_RECV, &f->rd);
    op->arg = (uint8_t)group;
    l->backend->start(l, op);
}

void ag_loop_send(struct ag_loop *l, struct ag_fd *f, struct ag_write *w, const struct msghdr *msg)
{
    begin(f, &w->op, AG_OP_SEND, &f->wr);
    w->send.ptr = NULL;
    w->send.msg = msg;
    l->backend->start(l, &w->op);
}

void ag_loop_send_one(struct ag_loop *l, struct ag_fd *f, struct ag_write *w, const void *ptr,
                      size_t len)
{
    AG_ASSERT(ptr && len > 0 && len <= INT32_MAX);
    begin(f, &w->op, AG_OP_SEND, &f->wr);
    w->send.ptr = ptr;
    w->send.len = len;
    l->backend->start(l, &w->op);
}

int32_t ag_loop_send_now(struct ag_loop *l, struct ag_fd *f, const void *ptr, size_t len)
{
    AG_ASSERT(!f->wr && f->fd >= 0 && len > 0 && len <= INT32_MAX);
    return l->backend->send_now ? l->backend->send_now(f, ptr, len) : 0;
}

void ag_loop_sendfile(struct ag_loop *l, struct ag_fd *f, struct ag_write *w, int file_fd,
                      uint64_t offset, size_t len)
{
    AG_ASSERT(len > 0 && (offset <= INT64_MAX || offset == AG_OFFSET_PIPE));
    begin(f, &w->op, AG_OP_SENDFILE, &f->wr);
    w->file.fd = file_fd;
    w->file.offset = offset;
    w->file.len = (uint32_t)ag_min_size(len, AG_SENDFILE_MAX);
    l->backend->start(l, &w->op);
}

void ag_loop_connect(struct ag_loop *l, struct ag_fd *f, struct ag_op *op,
                     const union ag_addr *addr, socklen_t addr_len)
{
    AG_ASSERT(addr_len <= sizeof(*addr));
    begin(f, op, AG_OP_CONNECT, &f->wr);
    l->backend->connect(l, op, addr, addr_len);
}

void ag_loop_poll(struct ag_loop *l, struct ag_fd *f, struct ag_op *op, short events)
{
    AG_ASSERT(events == POLLIN || events == POLLOUT);
    begin(f, op, AG_OP_POLL, events == POLLIN ? &f->rd : &f->wr);
    op->arg = (uint8_t)events;
    l->backend->start(l, op);
}

void ag_loop_cancel(struct ag_loop *l, struct ag_op *op)
{
    if (op->kind == AG_OP_NONE || op->cancelled) {
        return;
    }
    op->cancelled = true;
    switch ((enum ag_op_state)op->state) {
    case AG_OP_WAITING:
        l->backend->cancel(l, op);
        break;
    case AG_OP_READY:
    case AG_OP_STARVED:
        ag_list_remove(&op->link);
        ag_loop_complete(l, op, -ECANCELED);
        break;
    case AG_OP_RECEIVED: /* is delivered first */
    case AG_OP_DONE:     /* its true result was faster */
        break;
    }
}

/* ---- start and stop ---- */

static uint32_t or_default(uint32_t value, uint32_t dflt)
{
    return value ? value : dflt;
}

static void deinit_memory(struct ag_loop *l)
{
    struct ag_pool *const pools[] = {&l->files, &l->pages, &l->sends, &l->nodes};

    ag_bufs_free(l->bufs);
    if (l->pipes) {
        ag_pipes_free(l->pipes);
    }
    for (size_t i = 0; i < AG_COUNT(pools); i++) {
        if (pools[i]->base) {
            ag_pool_deinit(pools[i]);
        }
    }
}

static enum ag_status init_memory(struct ag_loop *l, const struct ag_loop_config *c)
{
    const uint32_t nodes = or_default(c->node_count, DEFAULT_NODES);
    const uint32_t pages = or_default(c->page_count, DEFAULT_PAGES);
    const uint32_t counts[AG_BUF_GROUPS] = {
        [AG_BUF_SMALL] = or_default(c->buf_count[AG_BUF_SMALL], DEFAULT_SMALL),
        [AG_BUF_LARGE] = or_default(c->buf_count[AG_BUF_LARGE], DEFAULT_LARGE),
    };

    if (ag_pool_init(&l->nodes, "slice nodes", sizeof(struct ag_slice_node), nodes) == AG_OK &&
        ag_pool_init(&l->sends, "sends", sizeof(struct ag_conn_send), nodes) == AG_OK &&
        ag_pool_init(&l->pages, "arena pages", AG_ARENA_STRIDE_BYTES, pages) == AG_OK &&
        ag_pool_init(&l->files, "open files", sizeof(struct ag_file_block), nodes) == AG_OK) {
        l->bufs = ag_bufs_new(l, counts);
        l->pipes = ag_pipes_new(l, or_default(c->pipe_count, AG_PIPES_MAX));
    }
    if (!l->bufs || !l->pipes) {
        deinit_memory(l);
        return AG_ENOMEM;
    }
    return AG_OK;
}

static const struct ag_backend *backend_of(const struct ag_loop_config *c)
{
    if (c->simulated) {
        return c->simulated;
    }
    AG_ASSERT(c->backend == AG_BACKEND_URING || c->backend == AG_BACKEND_EPOLL);
    return c->backend == AG_BACKEND_URING ? &ag_backend_uring : &ag_backend_epoll;
}

static void block_sigpipe(void)
{
    sigset_t set;

    AG_ASSERT(sigemptyset(&set) == 0 && sigaddset(&set, SIGPIPE) == 0);
    AG_ASSERT(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
}

enum ag_status ag_loop_init(struct ag_loop *l, const struct ag_loop_config *config,
                            const char **out_why)
{
    struct ag_loop_config c = *config;
    enum ag_status st;

    c.ring_entries = or_default(c.ring_entries, DEFAULT_RING);
    *l = (struct ag_loop){
        .helpers = c.helpers, .backend = backend_of(&c), .simulation = c.simulation};
    ag_list_init(&l->tasks);
    ag_list_init(&l->completed);
    l->backend->system->clock(l);
    ag_wheel_init(&l->wheel, l->now_ms);
    l->backend->system->seed(l, l->random);
    l->random[0] |= 1; /* all zero would stay zero */
    block_sigpipe();

    int err = l->backend->system->wake_open(l);
    if (err < 0) {
        *out_why = ag_loop_why("eventfd: %s", strerrordesc_np(-err));
        return AG_ESYS;
    }
    st = init_memory(l, &c);
    if (st != AG_OK) {
        *out_why = "no memory for the loop's pools";
        goto close_wake;
    }
    st = l->backend->init(l, &c, out_why);
    if (st != AG_OK) {
        deinit_memory(l);
        goto close_wake;
    }
    ag_fd_init(&l->wake, l->wake_fd);
    ag_op_init(&l->wake_op, on_wake);
    ag_loop_poll(l, &l->wake, &l->wake_op, POLLIN);
    return AG_OK;

close_wake:
    l->backend->system->close(l, l->wake_fd);
    return st;
}

void ag_loop_deinit(struct ag_loop *l)
{
    ag_loop_cancel(l, &l->wake_op);
    while (ag_op_in_flight(&l->wake_op) || work_left(l)) {
        ag_loop_turn(l, UINT32_MAX);
    }
    ag_loop_close(l, &l->wake);
    l->backend->deinit(l);
    deinit_memory(l);
    l->bufs = NULL;
}
