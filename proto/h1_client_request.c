#include "proto/h1_client_parts.h"

static enum ag_status send_chunk(struct ag_stream *s, struct ag_slice slice)
{
    uint8_t *room = ag_stream_reserve(s, AG_H1_CHUNK_HEADER_MAX);

    if (!room) {
        ag_slice_release(&slice);
        return AG_ENOMEM;
    }
    ag_stream_commit(s, ag_h1_chunk_header(slice.len, room));
    enum ag_status st = ag_stream_write(s, slice);
    return st == AG_OK ? ag_stream_put(s, AG_SPAN("\r\n")) : st;
}

/* False when the call has failed. */
static bool send_slice(struct ag_h1_client *c)
{
    struct ag_slice s = ag_body_take(c->call->req_body);
    enum ag_status st;

    c->call->sent = true;
    c->call->progress_ms = c->stream->loop->now_ms;
    if (c->req_framing == AG_FRAMING_LENGTH) {
        if (s.len > c->req_left) {
            ag_slice_release(&s);
            ag_h1_client_fail(c, AG_REASON_ABORTED, "request content beyond its length");
            return false;
        }
        c->req_left -= s.len;
        /* Not before: until something has left, the call may be made anew on whatever connection. */
        c->call->req_body->pipes = ag_stream_takes_pipes(c->stream);
    }
    st = c->req_framing == AG_FRAMING_CHUNKED ? send_chunk(c->stream, s)
                                              : ag_stream_write(c->stream, s);
    if (st != AG_OK) {
        ag_h1_client_fail(c, AG_REASON_RESOURCES, "out of buffers towards the upstream");
        return false;
    }
    return true;
}

static void end_request(struct ag_h1_client *c)
{
    if (c->call->req_body->aborted || (c->req_framing == AG_FRAMING_LENGTH && c->req_left > 0)) {
        /* Never a clean end: the upstream must not take a part for the whole. */
        ag_h1_client_fail(c, AG_REASON_ABORTED, "request content was cut short");
        return;
    }
    c->req_done = true;
    c->call->progress_ms = c->stream->loop->now_ms;
    if (c->req_framing == AG_FRAMING_CHUNKED &&
        ag_h1_write_last_chunk(c->stream, c->call->req_body->trailers) != AG_OK) {
        ag_h1_client_fail(c, AG_REASON_RESOURCES, "out of buffers towards the upstream");
    } else if (c->state == AG_H1_CLIENT_TUNNEL) {
        ag_stream_shut(c->stream);
        if (c->res_done) {
            ag_h1_client_complete(c);
        }
    }
}

/* Moves content to the stream while that takes it. */
void ag_h1_client_send_content(struct ag_h1_client *c)
{
    while (ag_h1_client_is_live(c) && !c->req_done && !ag_stream_full(c->stream)) {
        if (c->call->req_body->q.bytes > 0) {
            if (!send_slice(c)) {
                return;
            }
        } else {
            if (ag_body_has_news(c->call->req_body)) {
                end_request(c);
            }
            return;
        }
    }
}

void ag_h1_client_req_readable(struct ag_body *b, void *owner)
{
    (void)b;
    ag_h1_client_send_content(owner);
}

void ag_h1_client_work(struct ag_task *t)
{
    ag_h1_client_send_content(ag_container_of(t, struct ag_h1_client, work));
}
