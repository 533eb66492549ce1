#include "proto/body.h"

static void run_consumer(struct ag_task *t)
{
    struct ag_body *b = ag_container_of(t, struct ag_body, wake_consumer);

    if (b->readable && ag_body_has_news(b)) {
        b->readable(b, b->consumer);
    }
}

static void run_producer(struct ag_task *t)
{
    struct ag_body *b = ag_container_of(t, struct ag_body, wake_producer);

    if (b->writable) {
        b->writable(b, b->producer);
    }
}

void ag_body_init(struct ag_body *b, struct ag_loop *l)
{
    *b = (struct ag_body){.loop = l, .limit_bytes = AG_BODY_BYTES_MAX};
    ag_task_init(&b->wake_consumer, run_consumer);
    ag_task_init(&b->wake_producer, run_producer);
}

void ag_body_deinit(struct ag_body *b)
{
    ag_task_cancel(&b->wake_consumer);
    ag_task_cancel(&b->wake_producer);
    if (b->q.head) {
        ag_chain_clear(&b->q, &b->loop->nodes);
    }
    b->readable = NULL;
    b->writable = NULL;
}

static void wake_consumer(struct ag_body *b)
{
    if (b->readable) {
        ag_task_queue(b->loop, &b->wake_consumer);
    }
}

static void wake_producer(struct ag_body *b)
{
    if (b->writable) {
        ag_task_queue(b->loop, &b->wake_producer);
    }
}

void ag_body_set_consumer(struct ag_body *b, ag_body_fn *readable, void *owner)
{
    b->readable = readable;
    b->consumer = owner;
    if (readable && ag_body_has_news(b)) {
        wake_consumer(b);
    }
}

void ag_body_kick(struct ag_body *b)
{
    wake_producer(b);
}

static bool has_room(const struct ag_body *b)
{
    uint32_t limit = b->loop->tight ? 1 : b->limit_bytes;

    return b->discarding || (b->pinned_bytes < limit && b->q.count < AG_BODY_SLICES_MAX);
}

void ag_body_set_producer(struct ag_body *b, ag_body_fn *writable, void *owner)
{
    b->writable = writable;
    b->producer = owner;
    if (writable && b->starved && has_room(b)) {
        b->starved = false;
        wake_producer(b);
    }
}

bool ag_body_room(struct ag_body *b)
{
    if (has_room(b)) {
        return true;
    }
    ag_body_owe_room(b);
    return false;
}

void ag_body_owe_room(struct ag_body *b)
{
    b->starved = true;
}

/* Neighbouring slices of one block pin it once: the last of a run carries the charge, so that pushing
 * at one end and taking at the other agree. */
static uint32_t charge_of(const struct ag_slice *s)
{
    return s->owner && (!ag_slice_is_file(s) || ag_slice_is_pipe(s)) ? s->owner->size : 0;
}

/* A few bytes that wait behind others must not hold a 64k buffer (THREATS.md, resources). */
static struct ag_slice unpin(struct ag_body *b, struct ag_slice s)
{
    struct ag_block *small;

    if (b->q.count == 0 || s.len > AG_BUF_SMALL_BYTES || s.len * 4 >= charge_of(&s) ||
        charge_of(&s) <= AG_BUF_SMALL_BYTES) {
        return s;
    }
    small = ag_loop_buf(b->loop, AG_BUF_SMALL);
    if (!small) {
        return s;
    }
    memcpy(small->data, s.ptr, s.len);
    ag_slice_release(&(struct ag_slice){{.ptr = s.ptr}, s.len, s.owner});
    return (struct ag_slice){{.ptr = small->data}, s.len, small};
}

enum ag_status ag_body_write(struct ag_body *b, struct ag_slice s)
{
    enum ag_status st;

    AG_ASSERT(!b->ended);
    b->total_bytes += s.len;
    if (b->discarding || b->aborted || s.len == 0) {
        ag_slice_release(&s);
        return AG_OK;
    }
    s = unpin(b, s);
    if (!b->q.head) {
        b->begun_turn = (uint32_t)b->loop->stats.turns;
    }
    if (!b->q.tail || b->q.tail->slice.owner != s.owner) {
        b->pinned_bytes += charge_of(&s);
    }
    st = ag_chain_push(&b->q, &b->loop->nodes, s);
    if (st != AG_OK) {
        ag_body_abort(b, AG_REASON_RESOURCES);
        return st;
    }
    wake_consumer(b);
    return AG_OK;
}

/* Copies into the last slice's block, behind it, where nobody else uses that block. */
static bool joined(struct ag_body *b, const struct ag_slice *s)
{
    struct ag_slice *tail = b->q.tail ? &b->q.tail->slice : NULL;
    struct ag_block *block = tail ? tail->owner : NULL;
    size_t used;

    if (!block || !block->data || block->refs != 1) {
        return false;
    }
    used = (size_t)(tail->ptr - block->data) + tail->len;
    if (s->len > block->size - used) {
        return false;
    }
    memcpy(block->data + used, s->ptr, s->len);
    tail->len += s->len;
    b->q.bytes += s->len;
    return true;
}

/* A block that holds little else than these bytes. */
static struct ag_slice moved(struct ag_body *b, struct ag_slice s)
{
    struct ag_block *small = ag_loop_buf(b->loop, AG_BUF_SMALL);

    if (!small) {
        return s;
    }
    memcpy(small->data, s.ptr, s.len);
    ag_block_release(s.owner);
    return (struct ag_slice){{.ptr = small->data}, s.len, small};
}

enum ag_status ag_body_append(struct ag_body *b, struct ag_slice s)
{
    uint32_t charge = charge_of(&s);

    if (b->discarding || b->aborted || s.len == 0 || s.len * 4 >= charge) {
        return ag_body_write(b, s);
    }
    AG_ASSERT(!b->ended);
    if (joined(b, &s)) {
        b->total_bytes += s.len;
        ag_slice_release(&s);
        wake_consumer(b);
        return AG_OK;
    }
    /* The first of them may be taken at once, and a small buffer is no burden. */
    if (s.len <= AG_BUF_SMALL_BYTES && (b->q.count > 0 || charge > AG_BUF_SMALL_BYTES)) {
        s = moved(b, s);
    }
    return ag_body_write(b, s);
}

void ag_body_reopen(struct ag_body *b)
{
    AG_ASSERT(b->q.count == 0 && !b->aborted);
    b->ended = false;
    b->discarding = false;
}

void ag_body_end(struct ag_body *b, const struct ag_fields *trailers)
{
    if (b->ended || b->aborted) {
        return;
    }
    b->ended = true;
    b->trailers = trailers;
    wake_consumer(b);
}

void ag_body_abort(struct ag_body *b, enum ag_reason why)
{
    if (b->ended || b->aborted) {
        return;
    }
    b->aborted = true;
    b->reason = (uint8_t)why;
    wake_consumer(b);
}

/* The shard alone writes its counters: no exchange is needed. */
static void count_passed(const struct ag_body *b)
{
    struct ag_loop_stats *stats = &b->loop->stats;
    bool at_once = b->begun_turn == (uint32_t)stats->turns;
    _Atomic uint64_t *n = at_once ? &stats->passed_at_once : &stats->passed_later;

    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Room came back: the producer is woken when there is enough of it. */
static void owe_no_more(struct ag_body *b)
{
    if (b->starved && b->pinned_bytes <= b->limit_bytes / 2 &&
        b->q.count <= AG_BODY_SLICES_MAX / 2) {
        b->starved = false;
        wake_producer(b);
    }
}

struct ag_slice ag_body_take(struct ag_body *b)
{
    struct ag_slice s = {{.ptr = NULL}, 0, NULL};

    if (!b->q.head) {
        return s;
    }
    if (b->counted) {
        count_passed(b);
    }
    s = ag_chain_pop(&b->q, &b->loop->nodes);
    if (!b->q.head) {
        b->pinned_bytes = 0;
    } else if (b->q.head->slice.owner != s.owner) {
        uint32_t charge = charge_of(&s);

        b->pinned_bytes -= charge < b->pinned_bytes ? charge : b->pinned_bytes;
    }
    owe_no_more(b);
    return s;
}

void ag_body_take_all(struct ag_body *b, struct ag_chain *to)
{
    ag_chain_splice(to, &b->q);
    b->pinned_bytes = 0;
    owe_no_more(b);
}

struct ag_slice ag_body_take_most(struct ag_body *b, size_t most)
{
    struct ag_slice s;

    AG_ASSERT(most > 0);
    if (!b->q.head || b->q.head->slice.len <= most) {
        return ag_body_take(b);
    }
    if (b->counted) {
        count_passed(b);
    }
    s = ag_slice_sub(&b->q.head->slice, 0, most);
    ag_slice_advance(&b->q.head->slice, most);
    b->q.bytes -= most;
    return s;
}

void ag_body_discard(struct ag_body *b)
{
    if (b->discarding) {
        return;
    }
    b->discarding = true;
    b->pipes = false;
    b->starved = false;
    b->pinned_bytes = 0;
    ag_chain_clear(&b->q, &b->loop->nodes);
    wake_producer(b);
}
