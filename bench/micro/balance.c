/*
 * A choice by each kind of balancing among 100 servers, with its begin and end: of weights 1 and of 1 to 10, with as many
 * requests under way as servers; all of them, or nine in ten, to be chosen among. Of hash without its table every
 * choice is what only the first of a key's slot after a change is with it.
 */
#include "actions/upstream/balance.h"

#include "bench/micro/micro.h"

#define SERVERS 100u
#define BATCH   512u
#define KEYS    4096u /* clients: hash finds each one's race once */

struct of {
    enum ag_balance_kind kind;
    bool weighted, fewer, unsettled;
};

static struct ag_balance balance;
static struct ag_balance_set among;
static int held[SERVERS]; /* servers of the requests under way, oldest first from `next` */
static uint32_t next, client;

/* One request ends, another begins. */
static inline void turn(void)
{
    int *slot = &held[next];

    next = next + 1 < SERVERS ? next + 1 : 0;
    if (*slot >= 0) {
        ag_balance_end(&balance, (uint32_t)*slot);
    }
    client = (client + 1) % KEYS;
    *slot = ag_balance_pick(&balance, &among, client * UINT64_C(0x9e3779b97f4a7c15));
    ag_balance_begin(&balance, (uint32_t)*slot);
}

static void set_up(const struct micro *m)
{
    const struct of *of = m->of;

    ag_balance_init(&balance, of->kind, 7);
    among = (struct ag_balance_set){0};
    next = 0;
    for (uint32_t i = 0; i < SERVERS; i++) {
        ag_balance_put(&balance, i, of->weighted ? 1 + i % 10 : 1,
                       (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
        if (!of->fewer || i % 10 != 0) {
            ag_balance_set_add(&among, i);
        }
        ag_balance_observe(&balance, i, 1000 + i, 1);
        held[i] = -1;
    }
    AG_ASSERT(of->unsettled || ag_balance_settle(&balance) == AG_OK);
    for (uint32_t i = 0; i < KEYS; i++) {
        turn();
    }
}

static void run(const struct micro *m)
{
    (void)m;
    for (uint32_t i = 0; i < BATCH; i++) {
        turn();
    }
}

static void tear_down(const struct micro *m)
{
    (void)m;
    ag_balance_deinit(&balance);
}

#define CHOICE(name, ...)                                                             \
    {                                                                                 \
        "balance, " name, BATCH, 50, set_up, NULL, run, tear_down, &(const struct of) \
        {                                                                             \
            __VA_ARGS__                                                               \
        }                                                                             \
    }
#define CHOICES(name, kind)                                         \
    CHOICE(name, kind, false, false, false),                        \
        CHOICE(name ", weights 1 to 10", kind, true, false, false), \
        CHOICE(name ", 9 of 10 servers", kind, false, true, false), \
        CHOICE(name ", weights 1 to 10, 9 of 10 servers", kind, true, true, false)
static const struct micro all[] = {
    CHOICES("round_robin", AG_BALANCE_ROUND_ROBIN),
    CHOICES("least_conn", AG_BALANCE_LEAST_CONN),
    CHOICES("random_two", AG_BALANCE_RANDOM_TWO),
    CHOICES("random_two ewma", AG_BALANCE_RANDOM_TWO_EWMA),
    CHOICES("hash", AG_BALANCE_HASH),
    {"balance, hash, first after a change", BATCH, 0, set_up, NULL, run, tear_down,
     &(const struct of){AG_BALANCE_HASH, false, false, true}},
};
const struct micro_list micro_balance = {all, AG_COUNT(all)};
