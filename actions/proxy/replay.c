#include "actions/proxy/replay.h"

static struct ag_pool *nodes_of(struct ag_replay *r)
{
    return &r->loop->nodes;
}

/* ---- what is kept ---- */

void ag_replay_forget(struct ag_replay *r)
{
    r->keeping = false;
    ag_chain_clear(&r->kept, nodes_of(r));
    ag_block_release(r->small);
    r->small = NULL;
}

/* Appends a piece of `small` to what is kept; neighbours become one slice. False: out of nodes. */
static bool keep_small(struct ag_replay *r, const struct ag_slice *piece)
{
    struct ag_slice *tail = r->kept.tail ? &r->kept.tail->slice : NULL;

    if (tail && tail->owner == piece->owner && tail->ptr + tail->len == piece->ptr) {
        tail->len += piece->len;
        r->kept.bytes += piece->len;
        return true;
    }
    return ag_chain_push(&r->kept, nodes_of(r), ag_slice_sub(piece, 0, piece->len)) == AG_OK;
}

/* Copies what goes into one small buffer. An empty slice: there is none. */
static struct ag_slice copy(struct ag_replay *r, struct ag_span from)
{
    struct ag_slice to = {{.ptr = NULL}, 0, NULL};

    if (!r->small || r->small_used == r->small->size) {
        ag_block_release(r->small);
        r->small = ag_loop_buf(r->loop, AG_BUF_SMALL);
        r->small_used = 0;
    }
    if (!r->small) {
        return to;
    }
    to.ptr = r->small->data + r->small_used;
    to.len = ag_min_size(from.len, r->small->size - r->small_used);
    to.owner = ag_block_hold(r->small);
    memcpy(r->small->data + r->small_used, from.ptr, to.len);
    r->small_used += (uint32_t)to.len;
    return to;
}

static void write_on(struct ag_replay *r, struct ag_slice s)
{
    (void)!ag_body_write(r->to, s); /* what fails aborts it, and so the call */
}

/* Passes `s` on in small buffers, of which a copy is kept, as far as there are any. */
static void pass_copied(struct ag_replay *r, struct ag_slice *s)
{
    while (s->len > 0) {
        struct ag_slice piece = copy(r, ag_slice_span(s));

        if (piece.len == 0 || !keep_small(r, &piece)) {
            ag_slice_release(&piece);
            ag_replay_forget(r);
            return;
        }
        ag_slice_advance(s, piece.len);
        write_on(r, piece);
    }
}

/* Takes the slice's reference. */
static void pass(struct ag_replay *r, struct ag_slice s)
{
    if (r->keeping &&
        (r->loop->tight || ag_slice_is_file(&s) || s.len > r->limit_bytes - r->kept.bytes)) {
        ag_replay_forget(r);
    }
    if (r->keeping && s.owner && s.len * 2 < s.owner->size) {
        pass_copied(r, &s);
        if (s.len == 0) {
            ag_slice_release(&s);
            return;
        }
    } else if (r->keeping &&
               ag_chain_push(&r->kept, nodes_of(r), ag_slice_sub(&s, 0, s.len)) != AG_OK) {
        ag_replay_forget(r);
    }
    write_on(r, s);
}

/* ---- the way through ---- */

static void end(struct ag_replay *r)
{
    r->over = true;
    if (r->from->aborted) {
        ag_body_abort(r->to, (enum ag_reason)r->from->reason);
    } else {
        ag_body_end(r->to, r->from->trailers);
    }
    if (r->ended) {
        ag_task_queue(r->loop, &r->tell);
    }
}

static void pump(struct ag_replay *r)
{
    while (r->open && !r->over && r->from->q.bytes > 0 && ag_body_room(r->to)) {
        pass(r, ag_body_take(r->from));
    }
    if (r->open && !r->over && r->from->q.bytes == 0 && (r->from->ended || r->from->aborted)) {
        end(r);
    }
}

static void on_readable(struct ag_body *b, void *owner)
{
    (void)b;
    pump(owner);
}

static void on_writable(struct ag_body *b, void *owner)
{
    (void)b;
    pump(owner);
}

static void tell(struct ag_task *t)
{
    struct ag_replay *r = ag_container_of(t, struct ag_replay, tell);
    ag_replay_fn *ended = r->ended;

    r->ended = NULL;
    if (ended) {
        ended(r, r->owner);
    }
}

void ag_replay_init(struct ag_replay *r, struct ag_body *from, struct ag_body *to,
                    uint32_t limit_bytes)
{
    AG_ASSERT(from->total_bytes == from->q.bytes);
    *r = (struct ag_replay){.loop = from->loop,
                            .from = from,
                            .to = to,
                            .limit_bytes = limit_bytes,
                            .keeping = limit_bytes > 0};
    ag_task_init(&r->tell, tell);
}

void ag_replay_open(struct ag_replay *r)
{
    AG_ASSERT(!r->open);
    r->open = true;
    r->over = false;
    for (struct ag_slice_node *n = r->kept.head; n; n = n->next) {
        write_on(r, ag_slice_sub(&n->slice, 0, n->slice.len));
    }
    ag_body_set_consumer(r->from, on_readable, r);
    ag_body_set_producer(r->to, on_writable, r);
    pump(r);
}

void ag_replay_stop(struct ag_replay *r)
{
    r->open = false;
}

void ag_replay_close(struct ag_replay *r)
{
    ag_replay_stop(r);
    ag_body_deinit(r->to);
    ag_body_init(r->to, r->loop);
}

bool ag_replay_is_whole(const struct ag_replay *r)
{
    return r->keeping && !r->from->aborted && !r->from->discarding;
}

bool ag_replay_is_complete(const struct ag_replay *r)
{
    return ag_replay_is_whole(r) && r->from->ended && r->from->q.bytes == 0;
}

void ag_replay_deinit(struct ag_replay *r)
{
    r->open = false;
    r->ended = NULL;
    ag_task_cancel(&r->tell);
    ag_replay_forget(r);
    ag_body_set_consumer(r->from, NULL, NULL);
    ag_body_set_producer(r->to, NULL, NULL);
}
