#include "proto/h1_client_parts.h"

/* Fields of a head that need no table from the arena. */
#define FIELD_ROOM 32u

static const struct ag_h1_limits limits = AG_H1_LIMITS_DEFAULT;
_Static_assert(AG_BUF_LARGE_BYTES > 32768u,
               "the parser's limit ends a head before its buffer does");

/* ---- the input ---- */

/* The present slice is used. */
static void next(struct ag_h1_client *c)
{
    c->now = c->in.head ? ag_chain_pop(&c->in, ag_h1_client_nodes(c))
                        : (struct ag_slice){{NULL}, 0, NULL};
}

/* Drops `n` bytes of it. */
static void use(struct ag_h1_client *c, size_t n)
{
    ag_slice_advance(&c->now, n);
    if (c->now.len == 0) {
        ag_slice_release(&c->now);
        next(c);
    }
}

/* ---- heads ---- */

/* Adds the present slice to the gathered bytes, in a larger buffer when it must. */
static enum ag_status gather(struct ag_h1_client *c, size_t *out_added)
{
    struct ag_span in = ag_slice_span(&c->now);
    uint32_t left = c->head ? c->head->size - c->head_len : 0;

    if (in.len > left && (!c->head || c->head->size < AG_BUF_LARGE_BYTES)) {
        uint64_t need = (uint64_t)(c->head ? c->head_len : 0) + in.len;
        enum ag_buf_group group = need > AG_BUF_SMALL_BYTES ? AG_BUF_LARGE : AG_BUF_SMALL;
        struct ag_block *b = ag_loop_buf(c->stream->loop, group);
        if (!b) {
            return AG_ENOMEM;
        }
        if (c->head) {
            memcpy(b->data, c->head->data, c->head_len);
            ag_response_rebase(c->partial, c->head->data, c->head_len, b->data);
            ag_block_release(c->head);
        } else {
            c->head_len = 0;
        }
        c->head = b;
        left = b->size - c->head_len;
    }
    *out_added = ag_min_size(in.len, left);
    AG_ASSERT(c->head && *out_added > 0); /* the parser's limit comes first */
    memcpy(c->head->data + c->head_len, in.ptr, *out_added);
    c->head_len += (uint32_t)*out_added;
    return AG_OK;
}

static enum ag_status parse(struct ag_h1_client *c, struct ag_span in, struct ag_response *out)
{
    if (c->in_trailers) {
        return ag_h1_parse_trailers(&c->parser, in, &limits, &out->fields, &c->arena);
    }
    return ag_h1_parse_response(&c->parser, in, &limits, (enum ag_method)c->method, out, &c->arena);
}

static void parse_failed(struct ag_h1_client *c, enum ag_status st)
{
    if (st == AG_EPROTO) {
        ag_h1_client_fail(c, AG_REASON_PROTOCOL, c->parser.error);
    } else {
        ag_h1_client_fail(c, AG_REASON_RESOURCES, "out of memory for the upstream's answer");
    }
}

/*
 * Parses the head (or trailer section) at the start of the input: in place when the present slice has
 * all of it, else from gathered bytes.
 *   out        for the first case: zeroed, with a table of fields
 *   out_res    `out`, or what was gathered
 *   out_owner  what keeps its bytes
 *   out_used   its bytes in the present slice
 * AG_AGAIN: all input is used, and more is needed.
 */
static enum ag_status parse_section(struct ag_h1_client *c, struct ag_response *out,
                                    struct ag_response **out_res, struct ag_block **out_owner,
                                    size_t *out_used)
{
    enum ag_status st;

    if (!c->head) {
        c->parser = (struct ag_h1_parser){0};
        st = parse(c, ag_slice_span(&c->now), out);
        if (st != AG_AGAIN) {
            *out_res = out;
            *out_owner = c->now.owner;
            *out_used = c->parser.at;
            return st;
        }
        c->parser = (struct ag_h1_parser){0};
        c->partial = ag_arena_zalloc(&c->arena, sizeof(*c->partial));
        if (!c->partial) {
            return AG_ENOMEM;
        }
    }
    do {
        uint32_t before = c->head ? c->head_len : 0;
        size_t added;

        st = gather(c, &added);
        if (st != AG_OK) {
            return st;
        }
        st = parse(c, ag_span(c->head->data, c->head_len), c->partial);
        if (st == AG_OK) {
            *out_res = c->partial;
            *out_owner = c->head;
            *out_used = c->parser.at - before;
        } else {
            use(c, added);
        }
    } while (st == AG_AGAIN && c->now.len);
    return st;
}

static void on_interim(struct ag_h1_client *c, const struct ag_response *res)
{
    if (++c->interim_count > AG_CALL_INTERIM_MAX) {
        ag_h1_client_fail(c, AG_REASON_PROTOCOL, "too many interim answers");
        return;
    }
    c->expects = c->expects && res->status != 100;
    c->call->events->interim(c->call, res);
}

static void on_final(struct ag_h1_client *c, const struct ag_response *res)
{
    bool switching = res->status == 101;

    if (res->framing == AG_FRAMING_TUNNEL && !(switching && c->upgrade)) {
        ag_h1_client_fail(c, AG_REASON_PROTOCOL, "switched protocols unasked");
        return;
    }
    c->head_done = true;
    c->res_framing = res->framing;
    c->res_left = res->framing == AG_FRAMING_LENGTH ? res->content_length : 0;
    c->keep_alive = c->keep_alive && res->keep_alive;
    if (!c->large && c->res_left >= AG_H1_CLIENT_LARGE) {
        ag_h1_client_set_large(c, true);
    }
    c->call->events->head(c->call, res);
    if (switching && c->state == AG_H1_CLIENT_CALL) {
        ag_h1_client_fail(c, AG_REASON_PROTOCOL, "the new protocol is not the one asked for");
    }
}

static void read_head(struct ag_h1_client *c)
{
    struct ag_field room[FIELD_ROOM];
    struct ag_response in_place = {.fields = {room, 0, FIELD_ROOM}}, *res;
    struct ag_block *owner;
    size_t used;
    enum ag_status st = parse_section(c, &in_place, &res, &owner, &used);

    if (st == AG_AGAIN) {
        return;
    }
    if (st != AG_OK) {
        parse_failed(c, st);
        return;
    }
    ag_block_hold(owner);
    use(c, used);
    c->call->head_owner = owner;
    if (res->status < 200 && res->status != 101) {
        on_interim(c, res);
    } else {
        on_final(c, res);
    }
    if (ag_h1_client_is_live(c)) {
        c->call->head_owner = NULL;
        ag_h1_client_drop_head(c);
    }
    ag_block_release(owner);
}

/* ---- the answer's content ---- */

/* All of it was given. The call may be over afterwards. */
static void end_content(struct ag_h1_client *c, const struct ag_fields *trailers)
{
    c->res_done = true;
    ag_body_end(c->call->res_body, trailers);
    if (c->state == AG_H1_CLIENT_CALL || c->req_done) {
        ag_h1_client_complete(c);
    }
}

/* Gives [skip, skip + len) of the present slice to the body, and drops `used` bytes of the input. */
static void give(struct ag_h1_client *c, size_t skip, size_t len, size_t used)
{
    struct ag_slice part;

    if (skip == 0 && len == c->now.len) {
        part = c->now;
        next(c);
    } else {
        part = ag_slice_sub(&c->now, skip, len);
        use(c, used);
    }
    if (ag_body_write(c->call->res_body, part) != AG_OK) {
        ag_h1_client_fail(c, AG_REASON_RESOURCES, "out of buffers for the upstream's answer");
    }
}

static void read_chunked(struct ag_h1_client *c)
{
    struct ag_span in = ag_slice_span(&c->now), body;
    size_t used;
    enum ag_status st = ag_h1_chunk_decode(&c->chunk, in, &used, &body);

    if (st != AG_OK && st != AG_AGAIN) {
        ag_h1_client_fail(c, AG_REASON_PROTOCOL, "malformed chunked content");
        return;
    }
    c->in_trailers = st == AG_OK;
    if (body.len) {
        give(c, (size_t)(body.ptr - in.ptr), body.len, used);
    } else {
        use(c, used);
    }
}

/* Copies the trailers to where they live as long as the body. NULL: no room. */
static struct ag_fields *keep_trailers(struct ag_h1_client *c, const struct ag_fields *from)
{
    struct ag_fields *kept = ag_arena_zalloc(c->call->keep, sizeof(*kept));

    for (uint16_t i = 0; kept && i < from->count; i++) {
        struct ag_span name = ag_arena_copy(c->call->keep, ag_field_key(&from->v[i]));
        struct ag_span value = ag_arena_copy(c->call->keep, ag_field_value(&from->v[i]));
        if (from->v[i].removed) {
            continue;
        }
        if (!name.ptr || (from->v[i].value_len && !value.ptr) ||
            ag_fields_add(kept, c->call->keep, (enum ag_field_id)from->v[i].id, name, value) !=
                AG_OK) {
            return NULL;
        }
    }
    return kept;
}

static void read_trailers(struct ag_h1_client *c)
{
    struct ag_field room[FIELD_ROOM];
    struct ag_response in_place = {.fields = {room, 0, FIELD_ROOM}}, *res;
    struct ag_fields *kept = NULL;
    struct ag_block *owner;
    size_t used;
    enum ag_status st = parse_section(c, &in_place, &res, &owner, &used);

    if (st == AG_AGAIN) {
        return;
    }
    if (st == AG_OK && res->fields.count > 0) {
        kept = keep_trailers(c, &res->fields);
        st = kept ? AG_OK : AG_ENOMEM;
    }
    if (st != AG_OK) {
        parse_failed(c, st);
        return;
    }
    use(c, used);
    end_content(c, kept);
}

/* What is still to come, beside what is here and not used: behind the next `used` bytes of it. */
static void expect_unseen(struct ag_h1_client *c, size_t used)
{
    uint64_t here = c->now.len - used + c->in.bytes;

    ag_stream_unseen(c->stream, c->res_left > here ? c->res_left - here : 0);
}

/* One step of content; the input is not empty unless the content is. */
static void read_content(struct ag_h1_client *c)
{
    switch ((enum ag_framing)c->res_framing) {
    case AG_FRAMING_NONE:
        end_content(c, NULL);
        return;
    case AG_FRAMING_LENGTH: {
        size_t len = (size_t)ag_min_u64(c->now.len, c->res_left);

        c->res_left -= len;
        if (c->call->res_body->pipes) {
            expect_unseen(c, len);
        }
        if (len) {
            give(c, 0, len, len);
        }
        if (ag_h1_client_is_live(c) && c->res_left == 0) {
            end_content(c, NULL);
        }
        return;
    }
    case AG_FRAMING_CHUNKED:
        if (c->in_trailers) {
            read_trailers(c);
        } else {
            read_chunked(c);
        }
        return;
    case AG_FRAMING_CLOSE:
    case AG_FRAMING_TUNNEL:
        give(c, 0, c->now.len, c->now.len);
        return;
    case AG_FRAMING_H2:
        break;
    }
    AG_UNREACHABLE("no such framing on HTTP/1");
}

/* What an answer without content needs no input for. */
static bool is_empty_answer(const struct ag_h1_client *c)
{
    return c->head_done && (c->res_framing == AG_FRAMING_NONE ||
                            (c->res_framing == AG_FRAMING_LENGTH && c->res_left == 0));
}

/* All input was used, and no more will come. */
static void input_ended(struct ag_h1_client *c)
{
    if (c->res_done) {
        return;
    }
    if (!c->head_done) {
        ag_h1_client_fail(c, AG_REASON_EOF,
                          c->call->received ? "closed within the answer's head"
                                            : "closed before an answer");
    } else if (c->res_framing == AG_FRAMING_CLOSE || c->res_framing == AG_FRAMING_TUNNEL) {
        end_content(c, NULL);
    } else {
        ag_h1_client_fail(c, AG_REASON_EOF, "closed within the answer's content");
    }
}

void ag_h1_client_receive(struct ag_h1_client *c)
{
    while (ag_h1_client_is_live(c) && !c->res_done && (c->now.len || is_empty_answer(c))) {
        if (!c->head_done) {
            read_head(c);
        } else if (c->now.len && !c->in_trailers && !ag_body_room(c->call->res_body)) {
            break;
        } else {
            read_content(c);
        }
    }
    if (!ag_h1_client_is_live(c)) {
        return;
    }
    if (c->now.len && !c->res_done) {
        if (!c->paused) {
            c->paused = true;
            ag_stream_pause(c->stream);
        }
    } else if (c->eof) {
        input_ended(c);
    } else {
        ag_h1_client_resume(c);
    }
}
