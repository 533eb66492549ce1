#include "fuzz/h1_seen.h"

static struct ag_span copy(struct ag_buf *b, struct ag_span s)
{
    size_t at = b->len;

    ag_buf_put(b, s);
    AG_ASSERT(!b->overflow);
    return ag_span(b->ptr + at, s.len);
}

static struct ag_span list(struct ag_buf *b, const struct ag_fields *fields)
{
    size_t at = b->len;

    for (uint16_t i = 0; i < fields->count; i++) {
        const struct ag_field *f = &fields->v[i];

        if (!f->removed) {
            ag_buf_put(b, ag_field_key(f));
            ag_buf_put(b, AG_SPAN(": "));
            ag_buf_put(b, ag_field_value(f));
            ag_buf_putc(b, '\n');
        }
    }
    AG_ASSERT(!b->overflow);
    return ag_span(b->ptr + at, b->len - at);
}

void seen_request(struct act_seen *seen, const struct ag_request *req, struct ag_buf *bytes)
{
    *seen = (struct act_seen){.method = copy(bytes, req->method_name),
                              .target = copy(bytes, req->target),
                              .path = copy(bytes, req->path),
                              .query = copy(bytes, req->query),
                              .authority = copy(bytes, req->authority),
                              .host = copy(bytes, req->host),
                              .fields = list(bytes, &req->fields),
                              .length = req->content_length,
                              .framing = req->framing,
                              .version = req->version,
                              .keep_alive = req->keep_alive,
                              .expects = req->expect_continue,
                              .upgrade = req->upgrade,
                              .port = req->port,
                              .has_query = req->has_query,
                              .absolute = req->absolute_form};
}

void seen_content(struct act_seen *seen, struct ag_span piece, struct ag_buf *bytes)
{
    if (seen->body_len == 0) {
        seen->body = bytes->len;
    }
    (void)copy(bytes, piece);
    seen->body_len += piece.len;
}

void seen_end(struct act_seen *seen, const struct ag_body *body, struct ag_buf *bytes)
{
    AG_ASSERT(!seen->body_ended && body->total_bytes == seen->body_len);
    seen->body_ended = true;
    seen->trailers = body->trailers ? list(bytes, body->trailers) : AG_SPAN("");
}

void seen_done(struct act_seen *seen, const struct ag_exchange *ex, struct ag_buf *bytes)
{
    const struct ag_request *req = &ex->req;
    size_t len = bytes->len;

    AG_ASSERT(!seen->done);
    seen->done = true;
    seen->status = ex->status;
    seen->sent = ex->sent_bytes;
    /* Buffers come and go under a request, which moves: it has to stay the same. */
    AG_ASSERT(ag_span_eq(seen->method, req->method_name) && ag_span_eq(seen->target, req->target));
    AG_ASSERT(ag_span_eq(seen->path, req->path) && ag_span_eq(seen->query, req->query));
    AG_ASSERT(ag_span_eq(seen->authority, req->authority));
    AG_ASSERT(ag_span_eq(seen->fields, list(bytes, &req->fields)));
    bytes->len = len;
}
