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
 *   ROUND_ROBIN   smooth weighted round robin: earliest eligible deadline first (Tijdeman 1980, Stoica 1995).
 *                 While servers, weights and set stay as at first, each has had its share of all choices to
 *                 within one (so less than two over any stretch; about two after a change), and the heavy ones
 *                 come in no bursts
 *   LEAST_CONN    the least requests under way for its weight; in turn, by weight, among equals
 *   RANDOM_TWO    the better of two random ones (Mitzenmacher 2001), drawn by weight, by requests under way for
 *                 the weight; with `ewma` by peak EWMA of the latency times requests under way (Finagle)
 *   HASH          rendezvous hashing (Thaler, Ravishankar 1998) with bounded loads (Mirrokni et al. 2016): a key
 *                 keeps its server while that one is in the set and not beyond 1.25 times its share of what is
 *                 under way. Below AG_BALANCE_BOUND_FREE requests a server is never beyond it: what bounds
 *                 there would do is part a client's few requests
 *
 * Memory: the struct itself (16 KiB); HASH has a table besides, 256 KiB whatever the number of servers.
 */
#pragma once
#include "engine/base.h"

#define AG_BALANCE_SERVERS    256u
#define AG_BALANCE_WEIGHT_MAX 1000u
#define AG_BALANCE_BOUND_FREE 16u

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

struct ag_balance_table; /* of HASH: where keys fall */

struct ag_balance {
    enum ag_balance_kind kind;
    uint32_t count;             /* one more than the highest index in use */
    uint32_t under_way;         /* sum of `active` */
    bool uniform;               /* of HASH: all weights are equal */
    bool stale;                 /* weights changed: what follows from them is made anew */
    uint64_t random;            /* state of its generator */
    uint64_t now_ms;            /* of the last observation */
    struct ag_balance_set live; /* servers whose weight is not 0 */

    /* Of ROUND_ROBIN and LEAST_CONN, whose turn it is: times are virtual, see balance_turn.c. */
    struct ag_balance_set last; /* what was chosen among last */
    int32_t unit;               /* how long a choice among all takes, */
    int32_t step;               /* and one among `last`, */
    uint32_t step_rest;         /* beyond whole units: by last_weight, */
    uint32_t step_carry;        /* which come together here */
    uint32_t last_weight;       /* of all in `last` */
    int32_t now, since;         /* since when it is `last` */
    int32_t least;              /* of LEAST_CONN: the bits of what the least load probably is */

    struct ag_balance_table *table; /* of HASH; malloc; NULL: no memory was to be had */

    _Alignas(16) int32_t weight[AG_BALANCE_SERVERS]; /* 0: no server, or one that takes nothing */
    int32_t start[AG_BALANCE_SERVERS];               /* when its next turn may be, */
    int32_t due[AG_BALANCE_SERVERS];    /* and when at the latest; times 256, and its rank */
    int32_t period[AG_BALANCE_SERVERS]; /* from one to the next; 0: its turns are yet to begin */
    int32_t out[AG_BALANCE_SERVERS];   /* 0: it is in `last`; -1: `due` and `load` are no numbers */
    uint16_t rest[AG_BALANCE_SERVERS]; /* of the period beyond whole units: by weight */
    uint16_t carry[AG_BALANCE_SERVERS]; /* those that have come together */
    uint8_t rank[AG_BALANCE_SERVERS];   /* by chance: who is first where two are due */
    uint8_t by_rank[AG_BALANCE_SERVERS];
    float load[AG_BALANCE_SERVERS];          /* active / weight */
    float per_weight[AG_BALANCE_SERVERS];    /* 1 / weight; 0 for none */
    uint32_t active[AG_BALANCE_SERVERS];     /* requests under way, of this shard */
    uint32_t draw_below[AG_BALANCE_SERVERS]; /* of RANDOM_TWO: alias table (Vose 1991) */
    uint8_t draw_else[AG_BALANCE_SERVERS];
    uint32_t
        latency_us[AG_BALANCE_SERVERS]; /* peak EWMA, when it was last observed; 0: not known */
    uint64_t latency_at_ms[AG_BALANCE_SERVERS];
    uint64_t
        identity[AG_BALANCE_SERVERS]; /* hash of what the server is, the same in all processes */
};

/* `seed`: what makes shards begin at different servers, 0: at the first. Everything of `b` is overwritten. */
void ag_balance_init(struct ag_balance *b, enum ag_balance_kind kind, uint64_t seed);
void ag_balance_deinit(struct ag_balance *b);
/* Another way from now on; the servers stay. Settle afterwards. */
void ag_balance_become(struct ag_balance *b, enum ag_balance_kind kind);

/* A server at an index that has none. Weight 1 to 1000, or 0: none for now. `identity` should be no other
 * server's: of two that have the same, HASH uses one. It is owed nothing, and its latency is not known. */
void ag_balance_put(struct ag_balance *b, uint32_t index, uint32_t weight, uint64_t identity);
/* Requests under way end later, and are counted until then. */
void ag_balance_remove(struct ag_balance *b, uint32_t index);
/* What it is owed changes in proportion; from 0 it begins as a new one does. */
void ag_balance_weigh(struct ag_balance *b, uint32_t index, uint32_t weight);
/* After changes: makes the table of HASH, if there is none yet. Who wins a key's race is found when it is first
 * asked for after a change (300 to 600 ns at 100 servers), so that nothing stalls. AG_ENOMEM: it is found each
 * time, with the same result. */
AG_MUST_USE enum ag_status ag_balance_settle(struct ag_balance *b);

/* One of `among` whose weight is not 0; -1: there is none. `key`: of HASH, else ignored. */
AG_MUST_USE int ag_balance_pick(struct ag_balance *b, const struct ag_balance_set *among,
                                uint64_t key);

/* What is under way there has changed; the bits of its load. */
static inline int32_t ag_balance_load(struct ag_balance *b, uint32_t index)
{
    union {
        float load;
        int32_t bits;
    } u = {.load = (float)b->active[index] * b->per_weight[index]};

    u.bits |= b->out[index];
    b->load[index] = u.load;
    return u.bits;
}
/* A request begins and ends at a server. */
static inline void ag_balance_begin(struct ag_balance *b, uint32_t index)
{
    b->active[index]++;
    b->under_way++;
    (void)ag_balance_load(b, index);
}
static inline void ag_balance_end(struct ag_balance *b, uint32_t index)
{
    int32_t load;

    AG_ASSERT(b->active[index] > 0 && b->under_way > 0);
    b->active[index]--;
    b->under_way--;
    load = ag_balance_load(b, index);
    b->least = (uint32_t)load < (uint32_t)b->least ? load : b->least;
}
/* It took so long to the answer's first byte. A failure is no observation: fast errors would attract more. */
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
