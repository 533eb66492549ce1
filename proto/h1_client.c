#include "proto/h1_client_parts.h"

/* So many small buffers filled in a row mean bulk, whatever the head said. */
#define LARGE_RUN 2u
/* So many small answers in a row end it: a change of buffers costs two system calls. */
#define SMALL_RUN 8u
/* Field tables of one head; most heads need none, see h1_client_answer.c. */
#define ARENA_PAGES 4u

static void set_state(struct ag_h1_client *c, enum ag_h1_client_state to)
{
    switch ((enum ag_h1_client_state)c->state) {
    case AG_H1_CLIENT_READY:
        AG_ASSERT(to == AG_H1_CLIENT_CALL || to == AG_H1_CLIENT_DEAD);
        break;
    case AG_H1_CLIENT_CALL:
        AG_ASSERT(to != AG_H1_CLIENT_CALL);
        break;
    case AG_H1_CLIENT_TUNNEL:
        AG_ASSERT(to == AG_H1_CLIENT_DEAD);
        break;
    case AG_H1_CLIENT_DEAD:
        AG_UNREACHABLE("dead is final");
    }
    c->state = (uint8_t)to;
}

/* ---- the end of a call ---- */

void ag_h1_client_drop_head(struct ag_h1_client *c)
{
    if (c->arena.first) { /* else the head was here in one piece, and short */
        ag_block_release(c->head);
        c->head = NULL;
        c->partial = NULL;
        ag_arena_release(&c->arena);
    }
}

/* Lets go of the call and all that it borrowed. */
static struct ag_call *release_call(struct ag_h1_client *c)
{
    struct ag_call *call = c->call;

    ag_task_cancel(&c->work);
    if (call->req_body) {
        ag_body_set_consumer(call->req_body, NULL, NULL);
    }
    ag_body_set_producer(call->res_body, NULL, NULL);
    call->head_owner = NULL;
    call->ops = NULL;
    c->call = NULL;
    if (c->now.len) {
        ag_slice_release(&c->now);
        ag_chain_clear(&c->in, ag_h1_client_nodes(c));
    }
    ag_h1_client_drop_head(c);
    return call;
}

/* No complete answer will come. */
static void end_badly(struct ag_h1_client *c, enum ag_reason why, const char *detail)
{
    struct ag_call *call;

    if (c->head_done) {
        ag_body_abort(c->call->res_body, why);
    }
    call = release_call(c);
    set_state(c, AG_H1_CLIENT_DEAD);
    call->events->failed(call, why, detail);
}

/* Nothing has left while the whole head lies in the queue. */
static bool has_left(const struct ag_h1_client *c)
{
    return c->call->sent || c->stream->sending_bytes > 0 ||
           ag_stream_queued(c->stream) != c->written;
}

void ag_h1_client_fail(struct ag_h1_client *c, enum ag_reason why, const char *detail)
{
    c->call->sent = has_left(c); /* if not, the call may be made elsewhere */
    ag_stream_abort(c->stream, why);
    end_badly(c, why, detail);
}

void ag_h1_client_set_large(struct ag_h1_client *c, bool large)
{
    c->large = large;
    c->full_run = c->small_run = 0;
    if (!c->paused) {
        ag_stream_resume(c->stream, large ? AG_BUF_LARGE : AG_BUF_SMALL);
    }
}

void ag_h1_client_resume(struct ag_h1_client *c)
{
    if (c->paused) {
        c->paused = false;
        if (c->call) {
            c->call->progress_ms = c->stream->loop->now_ms;
        }
        ag_stream_resume(c->stream, c->large ? AG_BUF_LARGE : AG_BUF_SMALL);
    }
}

/* The next call's answer will probably be like the last ones. */
static void become_ready(struct ag_h1_client *c, uint64_t answer_bytes)
{
    set_state(c, AG_H1_CLIENT_READY);
    c->repeated = true;
    ag_h1_client_resume(c);
    c->full_run = 0;
    if (c->large) {
        c->small_run = answer_bytes < AG_H1_CLIENT_LARGE ? (uint8_t)(c->small_run + 1) : 0;
        if (c->small_run >= SMALL_RUN) {
            ag_h1_client_set_large(c, false);
        }
    }
}

void ag_h1_client_complete(struct ag_h1_client *c)
{
    bool tunnel = c->state == AG_H1_CLIENT_TUNNEL;
    /* Bytes beyond the answer, or an upstream that has not taken the whole request, would be mixed
     * up with the next call (RFC 9112 section 9.3). */
    bool reusable = !tunnel && c->keep_alive && c->req_done && !c->eof && c->now.len == 0 &&
                    ag_stream_queued(c->stream) == 0;
    uint64_t answer_bytes = c->call->res_body->total_bytes;
    struct ag_call *call;

    if (c->call->req_body && !c->req_done) {
        ag_body_discard(c->call->req_body);
    }
    call = release_call(c);
    if (reusable) {
        become_ready(c, answer_bytes);
    } else {
        set_state(c, AG_H1_CLIENT_DEAD);
        if (tunnel) {
            ag_stream_finish(c->stream); /* its last bytes may be queued */
        } else {
            ag_stream_abort(c->stream, AG_REASON_NONE);
        }
    }
    call->events->done(call);
}

static void on_res_writable(struct ag_body *b, void *owner)
{
    (void)b;
    ag_h1_client_receive(owner);
}

/* ---- calls ---- */

static void cancel_call(struct ag_call *call)
{
    struct ag_h1_client *c = call->carrier;

    AG_ASSERT(c->call == call);
    release_call(c);
    set_state(c, AG_H1_CLIENT_DEAD);
    ag_stream_abort(c->stream, AG_REASON_ABORTED);
}

static void fail_call(struct ag_call *call, enum ag_reason why, const char *detail)
{
    struct ag_h1_client *c = call->carrier;

    AG_ASSERT(c->call == call);
    ag_h1_client_fail(c, why, detail);
}

static void accept_tunnel(struct ag_call *call)
{
    struct ag_h1_client *c = call->carrier;

    AG_ASSERT(c->head_done && c->res_framing == AG_FRAMING_TUNNEL && call->req_body);
    set_state(c, AG_H1_CLIENT_TUNNEL);
    c->req_framing = AG_FRAMING_TUNNEL;
    c->req_done = false;
    ag_body_set_consumer(call->req_body, ag_h1_client_req_readable, c);
}

/* When anything moved last, either way. */
static uint64_t moved_ms(const struct ag_h1_client *c)
{
    uint64_t now = c->stream->loop->now_ms;
    uint64_t sent = now - (uint32_t)((uint32_t)now - c->stream->sent_ms);

    return c->call->progress_ms > sent ? c->call->progress_ms : sent;
}

/* The caller waits with its content until it is told to go on. */
static bool is_to_continue(const struct ag_h1_client *c)
{
    return c->expects && c->call->req_body->total_bytes == 0;
}

static enum ag_call_phase phase_of(struct ag_call *call, uint64_t *out_since_ms)
{
    const struct ag_h1_client *c = call->carrier;

    *out_since_ms = moved_ms(c);
    if (c->state == AG_H1_CLIENT_TUNNEL) { /* or its client takes what is there, slowly */
        return c->paused ? AG_CALL_CALLER : AG_CALL_TUNNEL;
    }
    if (ag_stream_queued(c->stream) > 0 && !(c->req_done && c->head_done)) {
        return AG_CALL_WRITE;
    }
    if (c->paused || (!c->req_done && !c->head_done && !is_to_continue(c))) {
        return AG_CALL_CALLER; /* its own limits hold */
    }
    if (!c->head_done) {
        return AG_CALL_FIRST_BYTE;
    }
    *out_since_ms = call->progress_ms;
    return AG_CALL_READ;
}

static const struct ag_call_ops call_ops = {
    .cancel = cancel_call,
    .fail = fail_call,
    .accept_tunnel = accept_tunnel,
    .phase = phase_of,
};

void ag_h1_client_init(struct ag_h1_client *c, struct ag_stream *s)
{
    *c = (struct ag_h1_client){.stream = s, .ahead_bytes = (uint32_t)ag_stream_queued(s)};
    ag_arena_init(&c->arena, &s->loop->pages, ARENA_PAGES);
    ag_task_init(&c->work, ag_h1_client_work);
}

enum ag_status ag_h1_client_start(struct ag_h1_client *c, struct ag_call *call)
{
    const struct ag_request *req = call->req;
    const struct ag_h1_request_opts *opts = call->opts;
    bool content = req->framing == AG_FRAMING_LENGTH || req->framing == AG_FRAMING_CHUNKED;

    AG_ASSERT(c->state == AG_H1_CLIENT_READY && ag_stream_queued(c->stream) <= c->ahead_bytes);
    c->ahead_bytes = 0;
    AG_ASSERT(call->req_body || !(content || opts->upgrade));
    /* Queued before the stream's flush: content that comes in this turn leaves with the head. */
    if (content) {
        ag_task_queue(c->stream->loop, &c->work);
    }
    if (ag_h1_write_request(c->stream, req, opts) != AG_OK) {
        ag_task_cancel(&c->work);
        set_state(c, AG_H1_CLIENT_DEAD);
        ag_stream_abort(c->stream, AG_REASON_RESOURCES);
        return AG_ENOMEM;
    }
    set_state(c, AG_H1_CLIENT_CALL);
    c->call = call;
    call->ops = &call_ops;
    call->carrier = c;
    call->progress_ms = c->stream->loop->now_ms;
    call->sent = call->received = false;
    call->replayable = call->h1_required = call->given_up = false;
    c->chunk = (struct ag_h1_chunk){0};
    c->req_left = req->framing == AG_FRAMING_LENGTH ? req->content_length : 0;
    c->req_framing = req->framing;
    c->method = req->method;
    c->expects = content && req->expect_continue;
    c->written = ag_stream_queued(c->stream);
    c->interim_count = 0;
    c->head_done = c->res_done = c->in_trailers = false;
    c->req_done = !content;
    c->keep_alive = !opts->close;
    c->upgrade = opts->upgrade;
    if (content) {
        ag_body_set_consumer(call->req_body, ag_h1_client_req_readable, c);
    }
    ag_body_set_producer(call->res_body, on_res_writable, c);
    return AG_OK;
}

/* ---- the stream's callbacks ---- */

void ag_h1_client_data(struct ag_h1_client *c, struct ag_slice s)
{
    if (!ag_h1_client_is_live(c)) {
        ag_slice_release(&s);
        if (c->state == AG_H1_CLIENT_READY) { /* an answer to no request */
            set_state(c, AG_H1_CLIENT_DEAD);
            ag_stream_abort(c->stream, AG_REASON_PROTOCOL);
        }
        return;
    }
    if (c->repeated && !c->call->received && !has_left(c)) {
        /* It lay there before the request was made: what is left of another's answer. */
        ag_slice_release(&s);
        ag_h1_client_fail(c, AG_REASON_PROTOCOL, "an answer to no request");
        return;
    }
    c->call->received = true;
    c->call->progress_ms = c->stream->loop->now_ms;
    if (!c->large) {
        c->full_run = s.len >= AG_BUF_SMALL_BYTES ? (uint8_t)(c->full_run + 1) : 0;
        if (c->full_run >= LARGE_RUN) {
            ag_h1_client_set_large(c, true);
        }
    }
    if (c->now.len == 0) {
        c->now = s;
    } else if (ag_chain_push(&c->in, ag_h1_client_nodes(c), s) != AG_OK) {
        ag_h1_client_fail(c, AG_REASON_RESOURCES, "out of buffers for the upstream's answer");
        return;
    }
    ag_h1_client_receive(c);
}

void ag_h1_client_eof(struct ag_h1_client *c)
{
    c->eof = true;
    if (c->state == AG_H1_CLIENT_READY) {
        set_state(c, AG_H1_CLIENT_DEAD);
        ag_stream_abort(c->stream, AG_REASON_EOF);
    } else {
        ag_h1_client_receive(c);
    }
}

void ag_h1_client_drained(struct ag_h1_client *c)
{
    ag_h1_client_send_content(c);
}

void ag_h1_client_closed(struct ag_h1_client *c, enum ag_reason why)
{
    if (ag_h1_client_is_live(c)) {
        c->call->sent = true; /* nobody can tell any more */
        end_badly(c, why == AG_REASON_NONE ? AG_REASON_EOF : why,
                  why == AG_REASON_TIMEOUT ? "upstream: timeout" : ag_reason_text(why));
    } else if (c->state == AG_H1_CLIENT_READY) {
        set_state(c, AG_H1_CLIENT_DEAD);
    }
}
