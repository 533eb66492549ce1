#include "engine/buffers.h"

#include "engine/backend.h"
#include "engine/fault.h"
#include "engine/poison.h"

#include <sys/mman.h>

/* Bytes between blocks: without them the first lines of all blocks share a few cache sets. */
#define STRIDE_GAP 64u
/* Those who wait that one round starts again, so that a crowd of them does not hold up the turn. */
#define FEED_MAX 64u

_Static_assert((AG_BUF_RING_SMALL & (AG_BUF_RING_SMALL - 1)) == 0, "the kernel masks by it");
_Static_assert((AG_BUF_RING_LARGE & (AG_BUF_RING_LARGE - 1)) == 0, "the kernel masks by it");
_Static_assert(AG_BUF_COUNT_MAX <= UINT16_MAX + 1u, "an id is 16 bits");

static void feed(struct ag_task *t);
static void slot_free(struct ag_block *block);

/* May a receive find a block? */
static bool pool_feeds(const struct ag_buf_pool *p)
{
    return p->ring_max ? p->ring_count > 0 : p->free_count > p->reserve;
}

static bool has_waiting(const struct ag_bufs *b, const struct ag_buf_pool *p)
{
    return !ag_list_empty(&p->starved) || !ag_list_empty(&b->writers);
}

static void weigh(struct ag_buf_pool *p)
{
    const struct ag_buf_pool *all = p->bufs->pools;

    p->bufs->loop->tight = all[AG_BUF_SMALL].used >= all[AG_BUF_SMALL].tight_from ||
                           all[AG_BUF_LARGE].used >= all[AG_BUF_LARGE].tight_from;
}

static uint32_t pop_free(struct ag_buf_pool *p)
{
    AG_ASSERT(p->free_count > 0);
    p->free_count--;
    uint32_t stacked = p->free_count + 1 - (p->count - p->untouched);

    /* Blocks that were in use come first: those never touched cost no memory yet. */
    if (stacked > 0) {
        return p->free[stacked - 1];
    }
    uint32_t id = p->untouched++;
    ag_poison_next(p->base, p->stride, p->untouched, p->count);
    return id;
}

static void push_free(struct ag_buf_pool *p, uint32_t id)
{
    p->free[p->free_count - (p->count - p->untouched)] = id;
    p->free_count++;
}

static struct ag_block *hand_out(struct ag_buf_pool *p, uint32_t id)
{
    struct ag_block *block = &p->slots[id].block;

    AG_ASSERT(block->refs == 0);
    block->refs = 1;
    if (++p->used == p->tight_from) {
        weigh(p);
    }
    ag_unpoison(block->data, p->size);
    return block;
}

static void publish(struct ag_buf_pool *p, uint32_t id)
{
    p->ring_count++;
    p->bufs->publish(p->bufs->loop, p, id);
}

static void slot_free(struct ag_block *block)
{
    struct ag_buf_slot *slot = ag_container_of(block, struct ag_buf_slot, block);
    struct ag_buf_pool *p = slot->pool;
    uint32_t id = (uint32_t)(slot - p->slots);

    AG_ASSERT(p->used > 0 && id < p->count);
    ag_poison(block->data, p->size);
    if (p->used-- == p->tight_from) {
        weigh(p);
    }
    if (p->ring_count < p->ring_max && p->free_count >= p->reserve) {
        publish(p, id);
    } else {
        push_free(p, id);
    }
    if (ag_unlikely(has_waiting(p->bufs, p))) {
        ag_task_queue(p->bufs->loop, &p->bufs->feed);
    }
}

/* Starts those who wait again. All of them must come to it, not one for each block: a receive that has
 * no input takes no block, and those behind it would wait for ever. */
static void feed(struct ag_task *t)
{
    struct ag_bufs *b = ag_container_of(t, struct ag_bufs, feed);
    uint32_t left = FEED_MAX;

    for (; left > 0 && b->pools[AG_BUF_SMALL].free_count > 0 && !ag_list_empty(&b->writers);
         left--) {
        ag_list_push(&b->loop->tasks, ag_list_pop(&b->writers));
    }
    for (size_t g = 0; g < AG_BUF_GROUPS; g++) {
        struct ag_buf_pool *p = &b->pools[g];
        while (left > 0 && pool_feeds(p) && !ag_list_empty(&p->starved)) {
            ag_loop_ready(b->loop, ag_container_of(ag_list_pop(&p->starved), struct ag_op, link));
            left--;
        }
    }
    if (left == 0) {
        ag_task_queue(b->loop, t);
    }
}

static enum ag_status pool_init(struct ag_buf_pool *p, struct ag_bufs *b, uint32_t size,
                                uint32_t count)
{
    size_t stride = (size_t)size + STRIDE_GAP;
    void *base;

    base = AG_SYS("mmap.buffers", mmap(NULL, stride * count, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) {
        return AG_ENOMEM;
    }
    p->bufs = b;
    p->base = base;
    p->stride = stride;
    p->size = size;
    p->count = p->free_count = count;
    p->reserve = count / AG_BUF_RESERVE;
    p->tight_from =
        count / (p->group == AG_BUF_SMALL ? AG_BUF_TIGHT_SMALL : AG_BUF_TIGHT_LARGE) + 1;
    p->free = AG_SYS_NULL("calloc.buffers", calloc(count, sizeof(*p->free)));
    p->slots = AG_SYS_NULL("calloc.buffers", calloc(count, sizeof(*p->slots)));
    if (!p->free || !p->slots) {
        return AG_ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        p->slots[i] = (struct ag_buf_slot){
            .block = {.size = size, .free = slot_free, .data = ag_buf_data(p, i), .fd = -1},
            .pool = p,
        };
    }
    ag_poison_next(p->base, p->stride, p->untouched, p->count);
    return AG_OK;
}

static const uint32_t sizes[AG_BUF_GROUPS] = {AG_BUF_SMALL_BYTES, AG_BUF_LARGE_BYTES};

uint64_t ag_bufs_bytes(const uint32_t count[AG_BUF_GROUPS])
{
    uint64_t sum = 0;

    for (size_t g = 0; g < AG_BUF_GROUPS; g++) {
        sum += (uint64_t)count[g] *
               (sizes[g] + STRIDE_GAP + sizeof(struct ag_buf_slot) + sizeof(uint32_t));
    }
    return sum;
}

struct ag_bufs *ag_bufs_new(struct ag_loop *l, const uint32_t count[AG_BUF_GROUPS])
{
    struct ag_bufs *b = AG_SYS_NULL("calloc.buffers", calloc(1, sizeof(*b)));

    if (!b) {
        return NULL;
    }
    b->loop = l;
    ag_task_init(&b->feed, feed);
    ag_list_init(&b->writers);
    for (uint32_t g = 0; g < AG_BUF_GROUPS; g++) { /* all, for ag_bufs_free looks at all */
        ag_list_init(&b->pools[g].starved);
    }
    for (uint32_t g = 0; g < AG_BUF_GROUPS; g++) {
        uint32_t n = count[g] < AG_BUF_COUNT_MAX ? count[g] : AG_BUF_COUNT_MAX;
        b->pools[g].group = (uint16_t)g;
        if (pool_init(&b->pools[g], b, sizes[g], n < 2 ? 2 : n) != AG_OK) {
            ag_bufs_free(b);
            return NULL;
        }
    }
    return b;
}

void ag_bufs_free(struct ag_bufs *b)
{
    if (!b) {
        return;
    }
    ag_task_cancel(&b->feed);
    AG_ASSERT(ag_list_empty(&b->writers));
    for (size_t g = 0; g < AG_BUF_GROUPS; g++) {
        struct ag_buf_pool *p = &b->pools[g];
        AG_ASSERT(p->used == 0);
        AG_ASSERT(p->free_count + p->ring_count == p->count);
        AG_ASSERT(ag_list_empty(&p->starved));
        if (p->base) {
            ag_unpoison_slab(p->base, p->stride, p->untouched, p->count);
            AG_ASSERT(munmap(p->base, p->stride * p->count) == 0);
        }
        free(p->free);
        free(p->slots);
    }
    free(b);
}

uint32_t ag_bufs_ring_size(const struct ag_bufs *b, enum ag_buf_group group)
{
    uint32_t size = group == AG_BUF_SMALL ? AG_BUF_RING_SMALL : AG_BUF_RING_LARGE;

    while (size > 1 && size > b->pools[group].count / AG_BUF_RING_PART) {
        size /= 2;
    }
    return size;
}

void ag_bufs_start_rings(struct ag_bufs *b, ag_buf_publish_fn *fn)
{
    b->publish = fn;
    for (size_t g = 0; g < AG_BUF_GROUPS; g++) {
        struct ag_buf_pool *p = &b->pools[g];
        p->ring_max = ag_bufs_ring_size(b, (enum ag_buf_group)g);
        while (p->ring_count < p->ring_max) {
            publish(p, pop_free(p));
        }
    }
}

struct ag_block *ag_bufs_from_ring(struct ag_bufs *b, enum ag_buf_group group, uint32_t id)
{
    struct ag_buf_pool *p = &b->pools[group];

    AG_ASSERT(id < p->count && p->ring_count > 0);
    p->ring_count--;
    if (p->free_count > p->reserve) {
        publish(p, pop_free(p));
    }
    return hand_out(p, id);
}

struct ag_block *ag_bufs_for_recv(struct ag_bufs *b, enum ag_buf_group group)
{
    struct ag_buf_pool *p = &b->pools[b->loop->tight ? AG_BUF_SMALL : group];

    if (AG_FAULT("buffer.recv")) {
        return NULL;
    }
    /* Who waits is fed by its own group, so that one has to do, too. */
    if (p->free_count <= p->reserve) {
        p = &b->pools[group];
    }
    return p->free_count > p->reserve ? hand_out(p, pop_free(p)) : NULL;
}

uint32_t ag_bufs_for_bulk(struct ag_bufs *b, struct ag_block *out[static AG_RECV_BLOCKS])
{
    struct ag_buf_pool *p = &b->pools[AG_BUF_LARGE];
    uint32_t count = 0;

    while (count < AG_RECV_BLOCKS && !b->loop->tight && p->free_count > p->reserve) {
        out[count++] = hand_out(p, pop_free(p));
    }
    return count;
}

void ag_bufs_give_back(struct ag_block *const blocks[], uint32_t count)
{
    while (count > 0) {
        ag_block_release(blocks[--count]);
    }
}

void ag_bufs_starve(struct ag_bufs *b, struct ag_op *op)
{
    struct ag_buf_pool *p = &b->pools[op->arg];

    AG_ASSERT(op->kind == AG_OP_RECV);
    b->loop->stats.starved++;
    if (op->arg == AG_BUF_LARGE && pool_feeds(&b->pools[AG_BUF_SMALL])) {
        op->arg = AG_BUF_SMALL;
        ag_loop_ready(b->loop, op);
        return;
    }
    op->state = AG_OP_STARVED;
    ag_list_push(&p->starved, &op->link);
    if (pool_feeds(p)) { /* one came back after the kernel had looked */
        ag_task_queue(b->loop, &b->feed);
    }
}

struct ag_block *ag_loop_buf(struct ag_loop *l, enum ag_buf_group group)
{
    struct ag_buf_pool *p = &l->bufs->pools[group];

    if (AG_FAULT("buffer")) {
        return NULL;
    }
    return p->free_count > 0 ? hand_out(p, pop_free(p)) : NULL;
}

bool ag_loop_buf_or_wait(struct ag_loop *l, struct ag_task *t)
{
    struct ag_bufs *b = l->bufs;

    if (ag_likely(b->pools[AG_BUF_SMALL].free_count > 0)) {
        return true;
    }
    ag_task_cancel(t);
    ag_list_push(&b->writers, &t->link);
    return false;
}

uint32_t ag_loop_bufs_used(const struct ag_loop *l, enum ag_buf_group group)
{
    return l->bufs->pools[group].used;
}
