#include "engine/stream.h"

#include <errno.h>

const char *ag_reason_text(enum ag_reason r)
{
    switch (r) {
    case AG_REASON_NONE:
        return "closed";
    case AG_REASON_EOF:
        return "closed by peer";
    case AG_REASON_RESET:
        return "connection reset";
    case AG_REASON_TIMEOUT:
        return "timeout";
    case AG_REASON_REFUSED:
        return "connection refused";
    case AG_REASON_UNREACHABLE:
        return "unreachable";
    case AG_REASON_NAME:
        return "name not resolved";
    case AG_REASON_RESOURCES:
        return "out of resources";
    case AG_REASON_PROTOCOL:
        return "protocol error";
    case AG_REASON_LIMIT:
        return "limit exceeded";
    case AG_REASON_ABORTED:
        return "aborted";
    case AG_REASON_TLS:
        return "TLS handshake failed";
    case AG_REASON_OTHER:
        return "system error";
    }
    AG_UNREACHABLE("a reason that is none");
}

enum ag_reason ag_reason_from_errno(int negative_errno)
{
    switch (-negative_errno) {
    case 0:
        return AG_REASON_NONE;
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
    case ENOTCONN:
        return AG_REASON_RESET;
    case ETIMEDOUT:
        return AG_REASON_TIMEOUT;
    case ECONNREFUSED:
    case ENOENT: /* no such unix socket */
        return AG_REASON_REFUSED;
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case ENONET:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
        return AG_REASON_UNREACHABLE;
    case ENOBUFS:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EAGAIN: /* no local port, or a unix listener's queue is full */
        return AG_REASON_RESOURCES;
    case EPROTO:
        return AG_REASON_PROTOCOL;
    case ECANCELED:
        return AG_REASON_ABORTED;
    default:
        return AG_REASON_OTHER;
    }
}

static void run_flush(struct ag_task *t)
{
    struct ag_stream *s = ag_container_of(t, struct ag_stream, flush_task);

    s->ops->flush(s);
}

static void on_deadline(struct ag_timer *t)
{
    struct ag_stream *s = ag_container_of(t, struct ag_stream, deadline);

    s->user->on_deadline(s);
}

void ag_stream_init(struct ag_stream *s, struct ag_loop *l, const struct ag_stream_ops *ops,
                    const struct ag_stream_user *user)
{
    *s = (struct ag_stream){.ops = ops,
                            .user = user,
                            .loop = l,
                            .rate = AG_STREAM_RATE,
                            .stall_ms = AG_STREAM_STALL_MS};
    ag_task_init(&s->flush_task, run_flush);
    ag_timer_init(&s->deadline, on_deadline);
}

static void drop_scratch(struct ag_stream *s)
{
    ag_block_release(s->scratch);
    s->scratch = NULL;
    s->scratch_used = 0;
}

void ag_stream_deinit(struct ag_stream *s)
{
    s->closing = true; /* on_close may end others, which answer into this one */
    ag_chain_clear(&s->out, &s->loop->nodes);
    drop_scratch(s);
    ag_task_cancel(&s->flush_task);
    ag_timer_cancel(&s->loop->wheel, &s->deadline);
}

void ag_stream_sent(struct ag_stream *s, uint64_t bytes)
{
    AG_ASSERT(bytes <= s->sending_bytes);
    s->sending_bytes -= bytes;
    s->sent_ms = (uint32_t)s->loop->now_ms;
    /* All is gone: an idle stream holds no buffer. */
    if (ag_stream_queued(s) == 0) {
        drop_scratch(s);
    }
    if (s->above_high && !s->closing && ag_stream_queued(s) <= AG_STREAM_LOW) {
        s->above_high = false;
        s->user->on_drain(s);
    }
}

/* Does the last queued slice end where the scratch goes on? */
static bool tail_grows(const struct ag_stream *s)
{
    const struct ag_slice_node *tail = s->out.tail;

    return tail && s->scratch && tail->slice.owner == s->scratch &&
           tail->slice.ptr + tail->slice.len == s->scratch->data + s->scratch_used;
}

uint8_t *ag_stream_reserve(struct ag_stream *s, size_t n)
{
    AG_ASSERT(n <= AG_BUF_SMALL_BYTES);
    if (s->scratch && n > s->scratch->size - s->scratch_used) {
        drop_scratch(s); /* what is queued of it holds it */
    }
    if (!s->scratch) {
        s->scratch = ag_loop_buf(s->loop, AG_BUF_SMALL);
        if (!s->scratch) {
            return NULL;
        }
    }
    /* commit cannot fail: the node that it may need must be there. (It drops what comes after the end.) */
    if (!s->closing && s->loop->nodes.used == s->loop->nodes.count && !tail_grows(s)) {
        return NULL;
    }
    return s->scratch->data + s->scratch_used;
}

void ag_stream_commit(struct ag_stream *s, size_t n)
{
    AG_ASSERT(s->scratch && n <= s->scratch->size - s->scratch_used);
    if (s->closing || n == 0) {
        if (s->closing || ag_stream_queued(s) == 0) {
            drop_scratch(s);
        }
        return;
    }
    if (tail_grows(s)) {
        s->out.tail->slice.len += n;
        s->out.bytes += n;
    } else {
        struct ag_slice slice = {
            {.ptr = s->scratch->data + s->scratch_used}, n, ag_block_hold(s->scratch)};
        if (ag_chain_push(&s->out, &s->loop->nodes, slice) != AG_OK) {
            /* Other streams took the last nodes since reserve: a gap would corrupt the message. */
            ag_stream_abort(s, AG_REASON_RESOURCES);
            return;
        }
    }
    s->scratch_used = (uint16_t)(s->scratch_used + n);
    ag_task_queue(s->loop, &s->flush_task);
}

enum ag_status ag_stream_put(struct ag_stream *s, struct ag_span bytes)
{
    if (s->closing) {
        return AG_OK;
    }
    while (bytes.len > 0) {
        size_t room = s->scratch ? s->scratch->size - s->scratch_used : 0;
        size_t take = ag_min_size(bytes.len, room ? room : AG_BUF_SMALL_BYTES);
        uint8_t *to = ag_stream_reserve(s, take);
        if (!to) {
            return AG_ENOMEM;
        }
        memcpy(to, bytes.ptr, take);
        ag_stream_commit(s, take);
        bytes = ag_span_sub(bytes, take, bytes.len);
    }
    return AG_OK;
}

/* Few bytes that wait must not hold much memory: a peer that takes nothing would, a piece at a time, pin
 * every buffer of the shard, for the queue is bounded by its bytes. They are copied behind each other. */
static bool copied(struct ag_stream *s, const struct ag_slice *slice)
{
    const struct ag_block *owner = slice->owner;
    uint8_t *to;

    if (ag_stream_queued(s) == 0 || !owner || ag_slice_is_file(slice) ||
        slice->len >= owner->size / 4 || slice->len > AG_BUF_SMALL_BYTES) {
        return false;
    }
    to = ag_stream_reserve(s, slice->len);
    if (!to) {
        return false;
    }
    memcpy(to, slice->ptr, slice->len);
    ag_stream_commit(s, slice->len);
    return true;
}

enum ag_status ag_stream_write(struct ag_stream *s, struct ag_slice slice)
{
    enum ag_status st;

    if (s->closing || copied(s, &slice)) {
        ag_slice_release(&slice);
        return AG_OK;
    }
    st = ag_chain_push(&s->out, &s->loop->nodes, slice);
    if (st == AG_OK) {
        ag_task_queue(s->loop, &s->flush_task);
    }
    return st;
}

void ag_stream_pause(struct ag_stream *s)
{
    if (!s->closing) {
        s->ops->pause(s);
    }
}

void ag_stream_resume(struct ag_stream *s, enum ag_buf_group group)
{
    if (!s->closing) {
        s->ops->resume(s, group);
    }
}

void ag_stream_shut(struct ag_stream *s)
{
    if (!s->closing) {
        s->ops->shut(s);
    }
}

void ag_stream_finish(struct ag_stream *s)
{
    if (!s->closing) {
        s->closing = true;
        ag_timer_cancel(&s->loop->wheel, &s->deadline);
        s->ops->finish(s);
    }
}

void ag_stream_abort(struct ag_stream *s, enum ag_reason why)
{
    s->closing = true;
    ag_timer_cancel(&s->loop->wheel, &s->deadline);
    s->ops->abort(s, why);
}

void ag_stream_deadline(struct ag_stream *s, uint64_t after_ms)
{
    if (s->closing) {
        return;
    }
    if (after_ms == UINT64_MAX) {
        ag_timer_cancel(&s->loop->wheel, &s->deadline);
    } else {
        ag_loop_arm(s->loop, &s->deadline, after_ms);
    }
}

/* Bytes of progress since the last look. */
static uint32_t take_progress(struct ag_stream *s, struct ag_stream_look *io)
{
    uint32_t unsent = 0, mark = s->ops->progress(s, &unsent);
    uint32_t moved = mark > io->mark ? mark - io->mark : io->mark - mark;

    io->mark = mark;
    io->owed_bytes = (uint32_t)ag_min_u64(ag_stream_queued(s) + unsent, UINT32_MAX);
    return moved;
}

bool ag_stream_has_moved(struct ag_stream *s, struct ag_stream_look *io)
{
    uint32_t owed = io->owed_bytes;

    return s->ops->progress && take_progress(s, io) > 0 && (owed > 0 || io->owed_bytes > 0);
}

bool ag_stream_is_out(struct ag_stream *s, uint32_t *out_mark)
{
    uint32_t unsent = 0;

    if (!s->ops->progress) {
        return false;
    }
    *out_mark = s->ops->progress(s, &unsent) + unsent + (uint32_t)ag_stream_queued(s);
    return unsent > 0 || ag_stream_queued(s) > 0;
}

bool ag_stream_has_reached(struct ag_stream *s, uint32_t mark)
{
    uint32_t unsent = 0, at = s->ops->progress(s, &unsent);

    return (unsent == 0 && ag_stream_queued(s) == 0) || (int32_t)(at - mark) >= 0;
}

bool ag_stream_too_slow(struct ag_stream *s)
{
    uint64_t now = s->loop->now_ms;
    uint32_t owed = s->look.owed_bytes, moved;

    if (!s->ops->progress) {
        return false;
    }
    moved = take_progress(s, &s->look);
    if (s->pace.due_ms == 0 || moved >= owed) {
        /* It began to wait up to a look ago. */
        ag_pace_start(&s->pace, now, s->stall_ms - s->stall_ms / 3);
        return false;
    }
    ag_pace_moved(&s->pace, now, moved, s->rate, s->stall_ms);
    return ag_pace_is_late(&s->pace, now);
}

void ag_stream_peer(struct ag_stream *s, union ag_addr *out_addr)
{
    memset(out_addr, 0, sizeof(*out_addr));
    if (s->ops->peer) {
        s->ops->peer(s, out_addr);
    }
}

void ag_stream_local(struct ag_stream *s, union ag_addr *out_addr)
{
    memset(out_addr, 0, sizeof(*out_addr));
    if (s->ops->local) {
        s->ops->local(s, out_addr);
    }
}

static void on_flush_look(struct ag_timer *t)
{
    struct ag_stream *s = ag_container_of(t, struct ag_stream, deadline);

    if (ag_stream_too_slow(s)) {
        ag_stream_abort(s, AG_REASON_TIMEOUT);
    } else {
        ag_loop_arm(s->loop, t, ag_stream_look_ms(s));
    }
}

void ag_stream_watch_flush(struct ag_stream *s)
{
    s->deadline.fire = on_flush_look;
    ag_loop_arm(s->loop, &s->deadline, ag_stream_look_ms(s));
}
