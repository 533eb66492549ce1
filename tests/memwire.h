/*
 * memwire: a stream over memory, on a loop whose clock is the test's: no system call, and the same
 * run every time.
 *
 *   memwire_feed --on_data--> protocol --out--> flush --> sending --window--> out
 *   memwire_eof  --on_eof-->                                 |
 *                                                            `--> ag_stream_sent: on_drain
 *   memloop_turn(loop, ms): the clock goes on by so much, then completions, timers and tasks
 *
 * It behaves as conn.h does: output moves once a turn, no callback is called from inside of a call of
 * the protocol, after finish and abort nothing comes but on_close, and that from the loop.
 */
#pragma once
#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/stream.h"

#include <errno.h>

/* ---- the loop ---- */

struct memloop {
    struct ag_loop loop;
    uint64_t now_ms;
};

static inline void memloop_clock(struct ag_loop *l)
{
    l->now_ms = ag_container_of(l, struct memloop, loop)->now_ms;
    l->wall_s = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT */
}

static inline void memloop_seed(struct ag_loop *l, uint64_t out[static 4])
{
    (void)l;
    memset(out, 1, 4 * sizeof(*out));
}

/* Nobody posts to this loop: its descriptor is never looked at. */
static inline int memloop_wake_open(struct ag_loop *l)
{
    l->wake_fd = 0;
    return 0;
}

static inline void memloop_close(struct ag_loop *l, int fd)
{
    (void)l;
    (void)fd;
}

static inline enum ag_status memloop_start(struct ag_loop *l, const struct ag_loop_config *config,
                                           const char **out_why)
{
    (void)l;
    (void)config;
    (void)out_why;
    return AG_OK;
}

static inline void memloop_nothing(struct ag_loop *l)
{
    (void)l;
}

static inline void memloop_wait(struct ag_loop *l, uint32_t wait_ms)
{
    (void)l;
    (void)wait_ms;
}

static inline void memloop_op(struct ag_loop *l, struct ag_op *op)
{
    AG_ASSERT(op == &l->wake_op);
}

static inline void memloop_cancel(struct ag_loop *l, struct ag_op *op)
{
    ag_loop_complete(l, op, -ECANCELED);
}

static const struct ag_system memloop_system = {
    .clock = memloop_clock,
    .seed = memloop_seed,
    .wake_open = memloop_wake_open,
    .close = memloop_close,
};

static const struct ag_backend memloop_backend = {
    .name = "memory",
    .system = &memloop_system,
    .init = memloop_start,
    .deinit = memloop_nothing,
    .wait = memloop_wait,
    .reap = memloop_nothing,
    .start = memloop_op,
    .cancel = memloop_cancel,
};

/* Panics when there is no memory. */
static inline void memloop_init(struct memloop *m, struct ag_loop_config config)
{
    const char *why = "";

    config.simulated = &memloop_backend;
    m->now_ms = 1000;
    AG_ASSERT(ag_loop_init(&m->loop, &config, &why) == AG_OK);
}

/* Panics when something was not given back. */
static inline void memloop_deinit(struct memloop *m)
{
    ag_loop_deinit(&m->loop);
}

static inline void memloop_turn(struct memloop *m, uint64_t after_ms)
{
    m->now_ms += after_ms;
    ag_loop_turn(&m->loop, 0);
}

/* ---- the stream ---- */

struct memwire {
    struct ag_stream stream; /* first */
    struct ag_chain sending;
    struct ag_task move;       /* takes what the window lets through, and closes */
    struct ag_buf out;         /* what the peer has got; the test's memory */
    size_t window;             /* bytes that the peer takes yet; SIZE_MAX: all */
    uint64_t unseen;           /* what ag_stream_unseen said last; no pipe comes of it */
    const union ag_addr *peer; /* NULL: not known */
    enum ag_buf_group group;
    enum ag_reason why; /* with `aborted` or `closed` */
    unsigned flushes;
    bool starved; /* receiving waits for a buffer */
    bool paused;
    bool shut;     /* the protocol has shut its side */
    bool finished; /* finish was called */
    bool aborted;  /* abort was called, or the peer has gone */
    bool closed;   /* on_close was called */
};

static inline struct memwire *memwire_of(struct ag_stream *s)
{
    return ag_container_of(s, struct memwire, stream);
}

static inline void memwire_end(struct memwire *w, enum ag_reason why)
{
    struct ag_stream *s = &w->stream;

    w->closed = true;
    w->why = why;
    ag_task_cancel(&w->move);
    ag_chain_clear(&w->sending, &s->loop->nodes);
    ag_stream_deinit(s);
    s->user->on_close(s, why);
}

/* Hands the peer what it takes. */
static inline void memwire_move(struct ag_task *t)
{
    struct memwire *w = ag_container_of(t, struct memwire, move);
    struct ag_stream *s = &w->stream;

    if (w->aborted) {
        memwire_end(w, w->why);
        return;
    }
    while (w->window > 0 && w->sending.count > 0) {
        const struct ag_slice *first = &w->sending.head->slice;
        size_t take = ag_min_size(w->window, first->len);

        ag_buf_put(&w->out, ag_span(first->ptr, take));
        AG_ASSERT(!w->out.overflow);
        w->window -= w->window == SIZE_MAX ? 0 : take;
        ag_chain_consume(&w->sending, &s->loop->nodes, take);
        ag_stream_sent(s, take);
        if (w->aborted) {
            return; /* on_drain has ended it; the task is queued again */
        }
    }
    if (w->finished && ag_stream_queued(s) == 0) {
        memwire_end(w, AG_REASON_NONE);
    }
}

static inline void memwire_flush(struct ag_stream *s)
{
    struct memwire *w = memwire_of(s);

    w->flushes++;
    s->sending_bytes += s->out.bytes;
    ag_chain_splice(&w->sending, &s->out);
    ag_task_queue(s->loop, &w->move);
}

static inline void memwire_pause(struct ag_stream *s)
{
    memwire_of(s)->paused = true;
}

static inline void memwire_resume(struct ag_stream *s, enum ag_buf_group group)
{
    memwire_of(s)->paused = false;
    memwire_of(s)->group = group;
}

static inline void memwire_unseen(struct ag_stream *s, uint64_t bytes)
{
    memwire_of(s)->unseen = bytes;
}

static inline void memwire_shut(struct ag_stream *s)
{
    memwire_of(s)->shut = true;
}

static inline void memwire_finish(struct ag_stream *s)
{
    memwire_of(s)->finished = true;
    ag_task_queue(s->loop, &s->flush_task);
}

/* Also the peer's reset. */
static inline void memwire_abort(struct ag_stream *s, enum ag_reason why)
{
    struct memwire *w = memwire_of(s);

    if (!w->closed && !w->aborted) {
        w->aborted = true;
        w->why = why;
        s->closing = true;
        ag_timer_cancel(&s->loop->wheel, &s->deadline);
        ag_task_queue(s->loop, &w->move);
    }
}

static inline void memwire_peer(struct ag_stream *s, union ag_addr *out_addr)
{
    if (memwire_of(s)->peer) {
        *out_addr = *memwire_of(s)->peer;
    }
}

static inline uint32_t memwire_progress(struct ag_stream *s, uint32_t *out_unsent)
{
    *out_unsent = 0; /* what is taken from the queue is the peer's at once */
    return (uint32_t)memwire_of(s)->out.len;
}

static inline bool memwire_starved(struct ag_stream *s)
{
    return memwire_of(s)->starved;
}

static const struct ag_stream_ops memwire_ops = {
    .flush = memwire_flush,
    .pause = memwire_pause,
    .resume = memwire_resume,
    .unseen = memwire_unseen,
    .shut = memwire_shut,
    .finish = memwire_finish,
    .abort = memwire_abort,
    .peer = memwire_peer,
    .progress = memwire_progress,
    .starved = memwire_starved,
};

/* `out` holds what the peer gets; it must be large enough for all of it. */
static inline void memwire_init(struct memwire *w, struct memloop *m,
                                const struct ag_stream_user *user, struct ag_buf out)
{
    *w = (struct memwire){.out = out, .window = SIZE_MAX};
    ag_stream_init(&w->stream, &m->loop, &memwire_ops, user);
    ag_task_init(&w->move, memwire_move);
}

/* Whether the protocol is to hear of the peer at all. */
static inline bool memwire_open(const struct memwire *w)
{
    return !w->finished && !w->aborted && !w->closed;
}

/*
 * As much of `bytes` as fits one receive buffer, given to the protocol. Returns what was; 0 when no
 * buffer is left. An odd number of bytes lies at the buffer's end, where ASan sees any read past it, and
 * what is joined to it has to move; an even one at the start, before bytes that look as if they came.
 */
static inline size_t memwire_feed(struct memwire *w, struct ag_span bytes)
{
    static const uint8_t behind[] = "\r\n\r\n0\r\n\r\n";
    struct ag_block *b = ag_loop_buf(w->stream.loop, w->group);
    uint8_t *at;
    size_t n;

    if (!b || bytes.len == 0) {
        ag_block_release(b);
        return 0;
    }
    n = ag_min_size(bytes.len, b->size);
    at = n % 2 ? b->data + b->size - n : b->data;
    memcpy(at, bytes.ptr, n);
    memcpy(at + n, behind, ag_min_size(sizeof(behind), (size_t)(b->data + b->size - at) - n));
    w->stream.user->on_data(&w->stream, (struct ag_slice){{.ptr = at}, n, b});
    return n;
}

static inline void memwire_eof(struct memwire *w)
{
    w->stream.user->on_eof(&w->stream);
}

/* The peer takes `bytes` more; SIZE_MAX: all that comes. */
static inline void memwire_open_window(struct memwire *w, size_t bytes)
{
    w->window = bytes < SIZE_MAX - w->window ? w->window + bytes : SIZE_MAX;
    if (!w->closed) {
        ag_task_queue(w->stream.loop, &w->move);
    }
}
