#include "tools/spread.h"

#define LOOKED_AT 4u /* other shards: to ask all of many would cost more than it brings */

/* What a shard may have more than another: few are kept even, many are even enough, and connections that come and go
 * are not worth a message each. */
static uint32_t bound(uint32_t least)
{
    return least + 2 + least / 16;
}

void ag_spread_open(struct ag_spread *s)
{
    s->free = NULL;
    s->out = 0;
    for (uint32_t i = 0; i < AG_SPREAD_PASSES; i++) {
        s->passes[i].from = s;
        s->passes[i].next = s->free;
        s->free = &s->passes[i];
    }
}

/* Connections of a shard and those on their way to it from here. */
static uint32_t load_of(const struct ag_spread *s, uint32_t shard)
{
    uint32_t load = atomic_load_explicit(&s->board->each[shard].connections, memory_order_relaxed);

    for (uint32_t i = 0; s->out > 0 && i < AG_SPREAD_PASSES; i++) {
        load += s->passes[i].out && s->passes[i].shard == shard;
    }
    return load;
}

/* The one with the least of some others, the first of which changes from time to time; own index: none is better. */
static uint32_t choose(const struct ag_spread *s, uint32_t own, uint32_t first)
{
    uint32_t count = s->board->shard_count, found = s->index, least = own;

    for (uint32_t i = 0; i < LOOKED_AT && i + 1 < count; i++) {
        uint32_t shard = (s->index + 1 + (first + i) % (count - 1)) % count;

        if (atomic_load_explicit(&s->board->each[shard].serves, memory_order_relaxed)) {
            uint32_t load = load_of(s, shard);

            if (own > bound(load) && load < least) {
                least = load;
                found = shard;
            }
        }
    }
    return found;
}

static void put_back(struct ag_spread *s, struct ag_spread_pass *p)
{
    p->out = false;
    p->next = s->free;
    s->free = p;
    s->out--;
}

static void on_home(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_spread_pass *p = ag_container_of(m, struct ag_spread_pass, msg);
    struct ag_spread *s = p->from;
    void *origin = p->origin;
    int fd = p->fd;

    (void)l;
    put_back(s, p);
    s->home(s, origin, fd);
}

static void on_passed(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_spread_pass *p = ag_container_of(m, struct ag_spread_pass, msg);
    bool there;

    (void)l;
    if (p->to->take(p->to, p->socket_id, p->fd)) {
        p->fd = -1;
    }
    p->msg.run = on_home;
    there = p->to->post(p->to->owner, p->from->index, &p->msg);
    AG_ASSERT(there); /* it waits for this */
}

bool ag_spread_pass(struct ag_spread *s, uint32_t own, uint32_t socket_id, void *origin, int fd)
{
    struct ag_spread_pass *p = s->free;
    uint32_t shard;

    if (!s->board || !s->post || !p) {
        return false;
    }
    shard = choose(s, own, (uint32_t)fd);
    if (shard == s->index) {
        return false;
    }
    p->to = atomic_load_explicit(&s->board->each[shard].spread, memory_order_acquire);
    p->origin = origin;
    p->socket_id = socket_id;
    p->fd = fd;
    p->msg.run = on_passed;
    p->shard = shard;
    p->out = true;
    s->free = p->next;
    s->out++;
    if (!s->post(s->owner, shard, &p->msg)) {
        put_back(s, p);
        return false;
    }
    return true;
}
