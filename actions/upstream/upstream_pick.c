#include "actions/upstream/upstream_parts.h"

/* ---- which servers were tried ---- */

/* The server that was chosen last; another one may have its index by now. */
static bool is_there(const struct ag_upstream_claim *c)
{
    const struct ag_upstream_peer *p = c->pool->peers[c->index];

    return p && p->number == c->number;
}

void ag_upstream_avoid(struct ag_upstream_claim *c)
{
    if (is_there(c)) {
        ag_balance_set_add(&c->tried, c->index);
    }
}

void ag_upstream_absolve(struct ag_upstream_claim *c, const struct ag_upstream_claim *of)
{
    if (is_there(of)) {
        ag_balance_set_remove(&c->tried, of->index);
    }
}

/* Those that have come since, with indices of servers that were tried and have gone, were not. */
static void meet_new_ones(struct ag_upstream_claim *c)
{
    const struct ag_upstream_pool *pool = c->pool;

    for (uint32_t i = 0; c->known != pool->made_count && i < pool->count; i++) {
        if (pool->peers[i] && pool->peers[i]->number > c->known) {
            ag_balance_set_remove(&c->tried, i);
        }
    }
    c->known = pool->made_count;
}

static struct ag_balance_set without(const struct ag_balance_set *a, const struct ag_balance_set *b)
{
    struct ag_balance_set s;

    for (unsigned i = 0; i < AG_COUNT(s.w); i++) {
        s.w[i] = a->w[i] & ~b->w[i];
    }
    return s;
}

struct ag_balance_set ag_upstream_untried(const struct ag_upstream_claim *c)
{
    struct ag_balance_set s = {{0}};

    for (unsigned t = 0; t < AG_UPSTREAM_TIERS && ag_balance_set_empty(&s); t++) {
        s = without(&c->pool->tiers[t], &c->tried);
    }
    return s;
}

bool ag_upstream_any_untried(struct ag_upstream_claim *c)
{
    struct ag_balance_set s;

    meet_new_ones(c);
    s = ag_upstream_untried(c);
    return !ag_balance_set_empty(&s);
}

bool ag_upstream_elsewhere(struct ag_upstream_claim *c)
{
    if (c->peer) {
        ag_upstream_avoid(c);
    }
    return ag_upstream_any_untried(c);
}

void ag_upstream_forgive(struct ag_upstream_claim *c)
{
    c->tried = (struct ag_balance_set){{0}};
    if (!ag_upstream_elsewhere(c)) {
        c->tried = (struct ag_balance_set){{0}};
    }
}

void ag_upstream_avoid_same(struct ag_upstream_claim *c, const struct ag_upstream_claim *other)
{
    c->tried = other->tried;
    c->known = other->known;
    c->given = other->given;
}

/* ---- the choice of a server ---- */

bool ag_upstream_is_apart(const struct ag_upstream_claim *c)
{
    return c->raw || c->h1_alone;
}

/* Whether it has a connection that this claim may have, without a new one. */
static bool has_connection(const struct ag_upstream_claim *c, const struct ag_upstream_peer *p)
{
    if (c->pool->options.proxy_protocol != AG_PROXY_PROTOCOL_NONE) {
        return !ag_upstream_is_apart(c) && !c->fresh && ag_upstream_find_own(c, p) != NULL;
    }
    return !ag_upstream_is_apart(c) &&
           (!ag_list_empty(&p->making) ||
            (!c->fresh && !(ag_list_empty(&p->idle) && ag_list_empty(&p->open))));
}

/* The server that the client sticks to, if it may be had; one that is drained still serves its own. */
static struct ag_upstream_peer *find_wanted(const struct ag_upstream_claim *c)
{
    const struct ag_upstream_pool *pool = c->pool;

    for (uint32_t i = 0; i < pool->count; i++) {
        struct ag_upstream_peer *p = pool->peers[i];

        if (p && p->member->identity == c->wanted && !ag_balance_set_has(&c->tried, i)) {
            uint32_t flags = atomic_load_explicit(&p->member->flags, memory_order_relaxed);
            return flags & ~AG_MEMBER_DRAINED ? NULL : p;
        }
    }
    return NULL;
}

/* Whether it could have one there at once: none has to be made, or one may be. `full`: the upstream is. */
static bool has_room(const struct ag_upstream_claim *c, const struct ag_upstream_peer *p, bool full)
{
    return has_connection(c, p) || (!full && ag_upstream_has_slot(p));
}

/* Without those that neither have a connection nor a free slot. */
static void keep_free(const struct ag_upstream_claim *c, bool full, struct ag_balance_set *io)
{
    const struct ag_upstream_pool *pool = c->pool;

    for (uint32_t i = 0; i < pool->count; i++) {
        if (ag_balance_set_has(io, i) && (full || ag_balance_set_has(&pool->bounded, i)) &&
            !has_room(c, pool->peers[i], full)) {
            ag_balance_set_remove(io, i);
        }
    }
}

static struct ag_upstream_peer *pick(struct ag_upstream_claim *c)
{
    struct ag_upstream_pool *pool = c->pool;
    bool full = ag_upstream_is_full(pool);
    struct ag_upstream_peer *wanted;
    struct ag_balance_set among;
    int i;

    meet_new_ones(c);
    wanted = c->wants ? find_wanted(c) : NULL;
    if (wanted && has_room(c, wanted, full)) {
        c->crowded = false;
        return wanted;
    }
    c->crowded = wanted != NULL;
    if (pool->lone && !full && !pool->server_bounds &&
        !ag_balance_set_has(&c->tried, pool->lone->index)) {
        return pool->lone;
    }
    among = ag_upstream_untried(c);
    if (full || pool->server_bounds) {
        keep_free(c, full, &among);
    }
    i = ag_balance_pick(&pool->balance, &among, c->key);
    return i < 0 ? NULL : pool->peers[i];
}

struct ag_upstream_peer *ag_upstream_find_peer(struct ag_upstream_claim *c)
{
    struct ag_upstream_peer *p;

    ag_upstream_trial_ended(c, AG_TRIAL_ABANDONED);
    while ((p = pick(c)) != NULL && !ag_upstream_try(c, p)) {
        ag_balance_set_add(&c->tried, p->index);
    }
    return p;
}
