/*
 * balance: which of an upstream's servers takes a request. Pure: no sockets, no clock, no names; one shard's,
 * as part of its pool. What is known of a server lies in arrays by its index, so that a choice among a hundred
 * reads few lines of memory.
 *
 *   put, remove ... settle          the servers change (rare; settle may allocate)
 *   weigh                           a weight changes (slow start, an order of an operator)
 *   pick --> begin ... [observe] ... end
 *
 * Who may be picked is the caller's to say, by a set: untried, healthy, with room, of the right tier.
 *
 *   ROUND_ROBIN   smooth weighted round robin, as nginx has it: over any stretch each server's share is
 *                 its weight's, within one, and the heavy ones come in no bursts
 *   LEAST_CONN    the least requests under way for its weight; in turn among equals
 *   RANDOM_TWO    the better of two random ones (Mitzenmacher 2001), by requests under way for the weight;
 *                 with `ewma` by peak EWMA of the latency times requests under way (Finagle)
 *   HASH          consistent hashing with bounded loads (Mirrokni et al. 2016): a key keeps its server while
 *                 that one is in the set and not beyond 1.25 times its share of what is under way
 */
#pragma once
#include "engine/base.h"

#define AG_BALANCE_SERVERS 256u

/* A set of servers by index. */
struct ag_balance_set {
    uint64_t w[AG_BALANCE_SERVERS / 64];
};

enum ag_balance_kind {
    AG_BALANCE_ROUND_ROBIN = 0,
    AG_BALANCE_LEAST_CONN,
    AG_BALANCE_RANDOM_TWO,
    AG_BALANCE_RANDOM_TWO_EWMA,
    AG_BALANCE_HASH,
};

struct ag_balance_ring; /* of HASH: where keys fall */

struct ag_balance {
    enum ag_balance_kind kind;
    uint32_t count;                          /* one more than the highest index in use */
    uint64_t random;                         /* state of its generator, never 0 */
    uint32_t turn;                           /* where the next search among equals begins */
    uint32_t under_way;                      /* sum of `active` */
    struct ag_balance_ring *ring;            /* malloc; NULL: not HASH, or none was to be had */
    int32_t weight[AG_BALANCE_SERVERS];      /* 0: no server, or one that takes nothing */
    int32_t credit[AG_BALANCE_SERVERS];      /* of ROUND_ROBIN */
    uint32_t active[AG_BALANCE_SERVERS];     /* requests under way, of this shard */
    uint32_t latency_us[AG_BALANCE_SERVERS]; /* peak EWMA; 0: not known */
    uint64_t latency_at_ms[AG_BALANCE_SERVERS];
    uint64_t
        identity[AG_BALANCE_SERVERS]; /* hash of what the server is, the same in every process */
};

/* `seed`: what makes shards begin at different servers. Everything of `b` is overwritten. */
void ag_balance_init(struct ag_balance *b, enum ag_balance_kind kind, uint64_t seed);
void ag_balance_deinit(struct ag_balance *b);
/* Another way from now on; the servers stay. Settle afterwards. */
void ag_balance_become(struct ag_balance *b, enum ag_balance_kind kind);

/* A server at an index that has none. Weight 1 to 1000, or 0: none for now. */
void ag_balance_put(struct ag_balance *b, uint32_t index, uint32_t weight, uint64_t identity);
/* Requests under way end later, and are counted until then. */
void ag_balance_remove(struct ag_balance *b, uint32_t index);
void ag_balance_weigh(struct ag_balance *b, uint32_t index, uint32_t weight);
/* After changes. AG_ENOMEM: keys are hashed by rendezvous meanwhile, which is slower and as right. */
AG_MUST_USE enum ag_status ag_balance_settle(struct ag_balance *b);

/* One of `among` whose weight is not 0; -1: there is none. `key`: of HASH, else ignored. */
AG_MUST_USE int ag_balance_pick(struct ag_balance *b, const struct ag_balance_set *among,
                                uint64_t key);

/* A request begins and ends at a server. */
static inline void ag_balance_begin(struct ag_balance *b, uint32_t index)
{
    b->active[index]++;
    b->under_way++;
}
static inline void ag_balance_end(struct ag_balance *b, uint32_t index)
{
    AG_ASSERT(b->active[index] > 0 && b->under_way > 0);
    b->active[index]--;
    b->under_way--;
}
/* It took so long to the answer's first byte. */
void ag_balance_observe(struct ag_balance *b, uint32_t index, uint32_t latency_us, uint64_t now_ms);

static inline bool ag_balance_set_has(const struct ag_balance_set *s, uint32_t index)
{
    return s->w[index / 64] >> index % 64 & 1;
}
static inline void ag_balance_set_add(struct ag_balance_set *s, uint32_t index)
{
    s->w[index / 64] |= UINT64_C(1) << index % 64;
}
static inline void ag_balance_set_remove(struct ag_balance_set *s, uint32_t index)
{
    s->w[index / 64] &= ~(UINT64_C(1) << index % 64);
}
static inline bool ag_balance_set_empty(const struct ag_balance_set *s)
{
    uint64_t any = 0;

    for (unsigned i = 0; i < AG_COUNT(s->w); i++) {
        any |= s->w[i];
    }
    return any == 0;
}
