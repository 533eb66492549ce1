#include "proto/h1_server_parts.h"

/* What waits behind the present request: beyond this reading pauses until it is answered. */
#define PIPELINE_BYTES_MAX  (64u * 1024u)
#define PIPELINE_SLICES_MAX 16u
/* Of them in large buffers. */
#define PIPELINE_LARGE_MAX 3u
/* Requests of one connection that are answered before others have their turn. */
#define REQUESTS_AT_ONCE 32u

/* What an idle connection is given to send a request that is on its way, before a drain ends it. */
#define DRAIN_GRACE_MS 100u

static void run(struct ag_h1_server *h);

static uint64_t now_of(const struct ag_h1_server *h)
{
    return h->stream->loop->now_ms;
}

void ag_h1_server_wake(struct ag_h1_server *h)
{
    if (!h->running) {
        ag_task_queue(h->stream->loop, &h->work);
    }
}

static void work_task(struct ag_task *t)
{
    run(ag_container_of(t, struct ag_h1_server, work));
}

void ag_h1_server_body_event(struct ag_body *b, void *owner)
{
    (void)b;
    run(owner);
}

/* How long the client may take to begin with its content, or to go on with it; without a grace that is a stall. */
static uint32_t body_grace_ms(const struct ag_h1_server *h)
{
    const struct ag_route_limits *limits = h->ex->limits;

    return limits->min_rate && limits->body_grace_ms ? limits->body_grace_ms
                                                     : limits->body_timeout_ms;
}

void ag_h1_server_await_body(struct ag_h1_server *h)
{
    ag_pace_start(&ag_h1_progress(h)->body_pace, now_of(h), body_grace_ms(h));
}

void ag_h1_server_pause(struct ag_h1_server *h)
{
    if (!h->paused) {
        h->paused = true;
        ag_stream_pause(h->stream);
    }
}

static void resume_reading(struct ag_h1_server *h)
{
    if (h->paused && !h->eof) {
        h->paused = false;
        if (h->ex) { /* what the client could not send is not held against it */
            ag_pace_extend(&ag_h1_progress(h)->body_pace, now_of(h), body_grace_ms(h));
        }
        ag_stream_resume(h->stream, h->large ? AG_BUF_LARGE : AG_BUF_SMALL);
    }
}

void ag_h1_server_want_group(struct ag_h1_server *h, bool large)
{
    if (h->large != large) {
        h->large = large;
        if (!h->paused && !h->eof) {
            ag_stream_resume(h->stream, large ? AG_BUF_LARGE : AG_BUF_SMALL);
        }
    }
}

/* ---- the end of a connection ---- */

static void drop_exchange(struct ag_h1_server *h, enum ag_reason why)
{
    struct ag_exchange *ex = h->ex;

    h->ex = NULL;
    if (ex && h->blank) {
        ag_exchange_forget(ex);
    } else if (ex) {
        ag_exchange_abort(ex, why);
    }
    h->blank = false;
}

void ag_h1_server_close_now(struct ag_h1_server *h, enum ag_reason why)
{
    if (h->state == AG_H1_CLOSING) {
        return;
    }
    ag_h1_server_set_state(h, AG_H1_CLOSING);
    drop_exchange(h, why);
    ag_stream_abort(h->stream, why);
}

static void close_in_order(struct ag_h1_server *h, enum ag_reason why)
{
    ag_h1_server_set_state(h, AG_H1_CLOSING);
    drop_exchange(h, why);
    ag_chain_clear(&h->in, &h->stream->loop->nodes);
    ag_stream_finish(h->stream);
}

void ag_h1_server_break_off(struct ag_h1_server *h, enum ag_reason why)
{
    enum ag_framing framing = h->ex->res.framing;

    if (framing == AG_FRAMING_LENGTH || framing == AG_FRAMING_CHUNKED) {
        close_in_order(h, why);
    } else {
        ag_h1_server_close_now(h, why);
    }
}

void ag_h1_server_overload(struct ag_h1_server *h)
{
    struct ag_span answer = AG_SPAN("HTTP/1.1 503 Service Unavailable\r\n"
                                    "Retry-After: 1\r\n"
                                    "Content-Length: 0\r\n"
                                    "Connection: close\r\n\r\n");
    struct ag_slice s = {{.ptr = answer.ptr}, answer.len, NULL};

    AG_ASSERT(h->ex || h->state == AG_H1_IDLE);
    if (h->ex) {
        h->ex->status = 503;
    }
    if (ag_stream_write(h->stream, s) == AG_OK) {
        close_in_order(h, AG_REASON_RESOURCES);
    } else {
        ag_h1_server_close_now(h, AG_REASON_RESOURCES);
    }
}

void ag_h1_server_refuse(struct ag_h1_server *h, unsigned status, enum ag_reason why,
                         const char *what)
{
    struct ag_exchange *ex = h->ex;

    h->keep_alive = false;
    h->body_done = true;
    if (h->state == AG_H1_HEAD) {
        ag_h1_server_set_state(h, AG_H1_EXCHANGE);
    } else {
        /* Whoever works on the request lets go first, so that it cannot answer too. */
        ag_body_abort(&ex->req_body, why);
        ag_exchange_abandon(ex, why);
    }
    ag_exchange_fail(ex, status, why, what);
}

bool ag_h1_server_idle(const struct ag_h1_server *h)
{
    return h->state == AG_H1_IDLE ? h->in.bytes == 0 : h->state == AG_H1_HEAD && h->blank;
}

/* The rest of a head will not come. */
static void cut_head(struct ag_h1_server *h, unsigned status, enum ag_reason why, const char *what)
{
    if (ag_h1_server_idle(h)) {
        close_in_order(h, AG_REASON_ABORTED);
    } else {
        ag_h1_server_refuse(h, status, why, what);
    }
}

/* ---- the machine ---- */

/* Both sides of the exchange are through: on to the next request, or to the end. */
static void finish_exchange(struct ag_h1_server *h)
{
    struct ag_exchange *ex = h->ex;

    h->ex = NULL;
    ag_exchange_complete(ex);
    (void)ag_exchange_reap(ex); /* the next request has its page, which is in the cache */
    if (h->state == AG_H1_TUNNEL || !h->keep_alive) {
        h->stream->hasty = h->last && h->state == AG_H1_EXCHANGE && h->in.bytes == 0;
        close_in_order(h, AG_REASON_ABORTED);
        return;
    }
    ag_h1_server_set_state(h, AG_H1_IDLE);
    /* A drain that began behind the answer's head, which promised more, ends it as it ends idle ones. */
    h->due_ms =
        now_of(h) + (h->draining && !h->yielding ? DRAIN_GRACE_MS : h->limits->idle_timeout_ms);
}

static bool step_exchange(struct ag_h1_server *h)
{
    bool progress;

    /* What is ready leaves before more is read: content that turns out to be malformed must not cost
     * an answer that was there before it. */
    if (ag_h1_server_write_answer(h)) {
        return true;
    }
    if (h->state == AG_H1_CLOSING) {
        return false;
    }
    if (h->res_done && h->state == AG_H1_EXCHANGE && !h->body_done) {
        if (!h->keep_alive || ag_h1_progress(h)->body_bytes > h->limits->discard_max_bytes) {
            h->keep_alive = false;
            finish_exchange(h);
            return false;
        }
        ag_body_discard(&h->ex->req_body);
    }
    progress = ag_h1_server_read_body(h);
    if (h->state == AG_H1_CLOSING) {
        return false;
    }
    if (h->res_done && h->body_done) {
        finish_exchange(h);
        return true;
    }
    return progress;
}

/* The client has shut its side: what it sent has to do. True when that ended the connection. */
static bool settle_eof(struct ag_h1_server *h)
{
    if (!h->eof) {
        return false;
    }
    switch ((enum ag_h1_state)h->state) {
    case AG_H1_IDLE:
        if (h->in.bytes == 0) {
            close_in_order(h, AG_REASON_ABORTED);
        }
        break;
    case AG_H1_HEAD:
        cut_head(h, 400, AG_REASON_EOF, "the request head broke off");
        break;
    case AG_H1_EXCHANGE:
        if (h->body_done || (h->in.bytes > 0 && !h->in_trailers)) {
            break; /* its answer is still due, or room for its content */
        }
        if (h->res_started && !h->res_done && !h->cut) {
            break; /* an answer that came early goes to its end */
        }
        if (h->res_done) {
            h->keep_alive = false;
            finish_exchange(h);
        } else {
            ag_h1_server_close_now(h, AG_REASON_EOF);
        }
        break;
    case AG_H1_TUNNEL:
        if (!h->body_done && h->cut) {
            ag_h1_server_close_now(h, AG_REASON_EOF);
        } else if (!h->body_done && h->in.bytes == 0) {
            ag_h1_server_body_complete(h, NULL);
            ag_task_queue(h->stream->loop, &h->work);
        }
        break;
    case AG_H1_CLOSING:
        break;
    }
    return h->state == AG_H1_CLOSING;
}

/* Size and rate of the request's content count until the answer's head is sent, and again when the
 * rest is only read to be dropped; silence counts always. */
static bool is_body_bounded(const struct ag_h1_server *h)
{
    return h->res_done || (!h->res_started && !h->ex->streams);
}

/* Nothing more comes, or is left to look at. */
static bool is_all_in(const struct ag_h1_server *h)
{
    return h->eof && h->in.bytes == 0;
}

/* Loop time by which the client has to do what it owes now; 0: nothing is awaited of it. */
static uint64_t due_of(const struct ag_h1_server *h)
{
    switch ((enum ag_h1_state)h->state) {
    case AG_H1_IDLE:
    case AG_H1_HEAD:
        return h->due_ms;
    case AG_H1_EXCHANGE:
        if (h->body_done || (h->paused && !is_all_in(h)) || ag_exchange_awaits_page(h->ex) ||
            (h->continue_owed && !h->res_started)) {
            return 0; /* who waits for 100 has to wait for whoever says it */
        }
        return is_body_bounded(h) ? ag_h1_progress(h)->body_pace.due_ms : h->due_ms;
    case AG_H1_TUNNEL: /* the upstream's idle timeout holds */
    case AG_H1_CLOSING:
        return 0;
    }
    AG_UNREACHABLE("a state that is none");
}

/* The timer is left alone when it fires early enough: a kept-alive connection then costs no timer work
 * per request; on_deadline looks at what is due and waits on. */
static void settle_deadline(struct ag_h1_server *h)
{
    struct ag_timer *t = &h->stream->deadline;
    uint64_t now = now_of(h), due = due_of(h);

    /* While idle, a little that is left of an answer can wait for the end of that. */
    if (ag_stream_queued(h->stream) <= (h->state == AG_H1_IDLE ? AG_STREAM_LOW : 0)) {
        h->look_ms = 0;
    } else if (h->look_ms == 0) {
        h->look_ms = now + ag_stream_look_ms(h->stream);
    }
    if (h->look_ms && (due == 0 || h->look_ms < due)) {
        due = h->look_ms;
    }
    if (due && (!ag_timer_armed(t) || t->at_ms > due)) {
        ag_stream_deadline(h->stream, due > now ? due - now : 0);
    }
}

static uint32_t slices_max(const struct ag_h1_server *h)
{
    return h->stream->loop->tight ? 0 : h->large ? PIPELINE_LARGE_MAX : PIPELINE_SLICES_MAX;
}

/* Reads on, unless what is there already has to wait. */
static void settle_reading(struct ag_h1_server *h)
{
    bool much =
        h->in.count > 0 && (h->in.bytes > PIPELINE_BYTES_MAX || h->in.count > slices_max(h));
    bool waits = false;

    switch ((enum ag_h1_state)h->state) {
    case AG_H1_IDLE: /* for answers that pile up unsent */
        waits = much;
        break;
    case AG_H1_HEAD: /* for more of it, up to its limit */
        break;
    case AG_H1_EXCHANGE: /* for the answer; for room for content. Trailers need none */
        waits = h->body_done ? much : h->in.head && !h->in_trailers;
        break;
    case AG_H1_TUNNEL: /* for room */
        waits = h->in.head != NULL;
        break;
    case AG_H1_CLOSING:
        return;
    }
    if (waits) {
        ag_h1_server_pause(h);
    } else {
        resume_reading(h);
    }
}

static void run(struct ag_h1_server *h)
{
    bool progress = true, moved = false;
    uint32_t until = h->requests + REQUESTS_AT_ONCE;

    if (h->state == AG_H1_CLOSING) {
        return;
    }
    h->running = true;
    while (progress) {
        progress = false;
        switch ((enum ag_h1_state)h->state) {
        case AG_H1_IDLE:
            if (h->requests ==
                until) { /* the rest after others; the pages of these are free then */
                ag_task_queue(h->stream->loop, &h->work);
                break;
            }
            /* Answers that pile up unsent hold back the next request, not only the next bytes. */
            progress = !ag_stream_full(h->stream) && ag_h1_server_begin_head(h);
            break;
        case AG_H1_HEAD:
            progress = ag_h1_server_read_head(h);
            break;
        case AG_H1_EXCHANGE:
        case AG_H1_TUNNEL:
            progress = step_exchange(h);
            moved = moved || progress;
            break;
        case AG_H1_CLOSING:
            break;
        }
    }
    h->running = false;
    if (moved && h->state == AG_H1_EXCHANGE) {
        h->due_ms = now_of(h) + h->limits->idle_timeout_ms;
    }
    if (h->state != AG_H1_CLOSING && !settle_eof(h)) {
        settle_reading(h); /* first: who is not read is not waited for */
        settle_deadline(h);
    }
}

/* ---- the stream's callbacks ---- */

void ag_h1_server_init(struct ag_h1_server *h, struct ag_stream *s, struct ag_context *ctx,
                       const struct ag_server_limits *limits, uint16_t listener_port)
{
    *h = (struct ag_h1_server){
        .stream = s, .context = ctx, .limits = limits, .listener_port = listener_port};
    h->tls = ag_stream_tls(s) != NULL;
    ag_task_init(&h->work, work_task);
    h->due_ms = now_of(h) + limits->header_timeout_ms;
    settle_deadline(h);
}

/* What is no content may have to wait, for the rest of a head or behind other requests: a few bytes of it must
 * not hold a large buffer meanwhile. */
static struct ag_slice unpin(struct ag_h1_server *h, struct ag_slice s)
{
    bool content = h->state == AG_H1_TUNNEL || (h->state == AG_H1_EXCHANGE && !h->body_done);
    struct ag_block *small;

    if (content || !s.owner || s.len > AG_BUF_SMALL_BYTES || s.owner->size <= AG_BUF_SMALL_BYTES) {
        return s;
    }
    small = ag_loop_buf(h->stream->loop, AG_BUF_SMALL);
    if (!small) {
        return s;
    }
    memcpy(small->data, s.ptr, s.len);
    ag_slice_release(&(struct ag_slice){{.ptr = s.ptr}, s.len, s.owner});
    return (struct ag_slice){{.ptr = small->data}, s.len, small};
}

void ag_h1_server_data(struct ag_h1_server *h, struct ag_slice s)
{
    if (h->state == AG_H1_CLOSING) {
        ag_slice_release(&s);
        return;
    }
    h->granted = false;
    if (ag_unlikely(h->large)) {
        s = unpin(h, s);
    }
    if (ag_chain_push(&h->in, &h->stream->loop->nodes, s) != AG_OK) {
        ag_h1_server_close_now(h, AG_REASON_RESOURCES);
        return;
    }
    run(h);
}

void ag_h1_server_eof(struct ag_h1_server *h)
{
    h->eof = true;
    run(h);
}

void ag_h1_server_cut(struct ag_h1_server *h)
{
    h->cut = true;
    ag_h1_server_eof(h);
}

void ag_h1_server_drained(struct ag_h1_server *h)
{
    run(h);
}

/* An idle connection ends, unless its last answer is still on its way. */
static void end_idle(struct ag_h1_server *h)
{
    if (ag_stream_queued(h->stream) == 0) {
        close_in_order(h, AG_REASON_ABORTED);
    } else if (ag_stream_too_slow(h->stream)) {
        ag_h1_server_close_now(h, AG_REASON_TIMEOUT);
    } else {
        h->due_ms = now_of(h) + ag_stream_look_ms(h->stream);
    }
}

/* The client has not done what it owed, or what it did could not be received. */
static void on_late(struct ag_h1_server *h)
{
    bool starved = ag_stream_starved(h->stream) || (h->state == AG_H1_IDLE && h->in.head);
    unsigned status = starved ? 503 : 408;
    enum ag_reason why = starved ? AG_REASON_RESOURCES : AG_REASON_TIMEOUT;

    if (h->state == AG_H1_IDLE && starved && ag_stream_queued(h->stream) == 0) {
        ag_h1_server_overload(h);
    } else if (h->state == AG_H1_IDLE) {
        end_idle(h);
    } else if (h->state == AG_H1_HEAD) {
        cut_head(h, status, why, "request head took too long");
        run(h);
    } else if (!h->res_started) {
        ag_h1_server_refuse(h, status, why, "request content took too long");
        run(h);
    } else if (h->res_done) { /* answered: what is left to read was to be dropped */
        h->keep_alive = false;
        finish_exchange(h);
    } else {
        ag_h1_server_close_now(h, why);
    }
}

/* Who waits for a buffer at the end of its time gets more of it, once: those who have buffers are through
 * by then. Part of a head has one. */
static bool grant_more_time(struct ag_h1_server *h)
{
    uint64_t now = now_of(h);

    if (h->granted || h->state == AG_H1_HEAD || !ag_stream_starved(h->stream)) {
        return false;
    }
    h->granted = true;
    h->due_ms = now + h->limits->header_timeout_ms;
    if (h->ex) {
        ag_pace_extend(&ag_h1_progress(h)->body_pace, now, h->limits->header_timeout_ms);
    }
    return true;
}

void ag_h1_server_deadline(struct ag_h1_server *h)
{
    uint64_t now = now_of(h), due = due_of(h);

    if (h->state == AG_H1_CLOSING) {
        return;
    }
    if (h->look_ms && now >= h->look_ms) {
        h->look_ms = 0;
        if (ag_stream_queued(h->stream) > 0 && ag_stream_too_slow(h->stream)) {
            ag_h1_server_close_now(h, AG_REASON_TIMEOUT);
            return;
        }
    }
    if (due && now >= due && !grant_more_time(h)) {
        on_late(h);
    }
    if (h->state != AG_H1_CLOSING) {
        settle_deadline(h);
    }
}

void ag_h1_server_closed(struct ag_h1_server *h, enum ag_reason why)
{
    if (h->state != AG_H1_CLOSING) {
        ag_h1_server_set_state(h, AG_H1_CLOSING);
    }
    ag_task_cancel(&h->work);
    drop_exchange(h, why == AG_REASON_NONE ? AG_REASON_EOF : why);
    ag_chain_clear(&h->in, &h->stream->loop->nodes);
}

void ag_h1_server_yield(struct ag_h1_server *h)
{
    h->draining = h->yielding = true;
}

void ag_h1_server_drain(struct ag_h1_server *h)
{
    h->draining = true;
    h->yielding = false;
    /* A request may be on its way, or received and not seen yet: closing now would lose it. */
    if (ag_h1_server_idle(h)) {
        h->due_ms = ag_min_u64(h->due_ms, now_of(h) + DRAIN_GRACE_MS);
        settle_deadline(h);
    }
}

void ag_h1_server_hasten(struct ag_h1_server *h)
{
    bool idle = (h->state == AG_H1_IDLE || h->blank) && h->requests > 0;

    if (h->state == AG_H1_IDLE || h->state == AG_H1_HEAD) {
        h->due_ms = ag_min_u64(h->due_ms, now_of(h) + (idle ? h->limits->idle_timeout_ms
                                                            : h->limits->header_timeout_ms));
        settle_deadline(h);
    }
}
