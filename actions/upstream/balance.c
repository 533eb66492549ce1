#include "actions/upstream/balance_parts.h"

void ag_balance_init(struct ag_balance *b, enum ag_balance_kind kind, uint64_t seed)
{
    *b = (struct ag_balance){.kind = kind, .random = ag_balance_mix(seed)};
    ag_balance_make_ranks(b, seed != 0);
}

void ag_balance_deinit(struct ag_balance *b)
{
    free(b->table);
    b->table = NULL;
}

void ag_balance_become(struct ag_balance *b, enum ag_balance_kind kind)
{
    ag_balance_forget_set(b);
    b->kind = kind;
    b->stale = true;
    if (kind != AG_BALANCE_HASH) {
        ag_balance_deinit(b);
    }
}

static void set_weight(struct ag_balance *b, uint32_t index, uint32_t weight)
{
    AG_ASSERT(index < AG_BALANCE_SERVERS && weight <= AG_BALANCE_WEIGHT_MAX);
    if (weight > 0) {
        ag_balance_set_add(&b->live, index);
    } else {
        ag_balance_set_remove(&b->live, index);
        b->period[index] = 0;
    }
    b->weight[index] = (int32_t)weight;
    b->per_weight[index] = weight ? 1.0f / (float)weight : 0;
    (void)ag_balance_load(b, index);
    b->stale = true;
}

void ag_balance_put(struct ag_balance *b, uint32_t index, uint32_t weight, uint64_t identity)
{
    AG_ASSERT(index < AG_BALANCE_SERVERS && b->weight[index] == 0);
    b->identity[index] = identity;
    b->latency_us[index] = 0;
    set_weight(b, index, weight);
    b->count = b->count > index ? b->count : index + 1;
}

void ag_balance_remove(struct ag_balance *b, uint32_t index)
{
    set_weight(b, index, 0);
    while (b->count > 0 && !ag_balance_set_has(&b->live, b->count - 1)) {
        b->count--;
    }
}

void ag_balance_weigh(struct ag_balance *b, uint32_t index, uint32_t weight)
{
    set_weight(b, index, weight);
    b->count = b->count > index || weight == 0 ? b->count : index + 1;
}

/* What weights say has changed. */
static AG_COLD void renew(struct ag_balance *b)
{
    switch (b->kind) {
    case AG_BALANCE_ROUND_ROBIN:
    case AG_BALANCE_LEAST_CONN:
        ag_balance_make_turns(b);
        break;
    case AG_BALANCE_RANDOM_TWO:
    case AG_BALANCE_RANDOM_TWO_EWMA:
        ag_balance_make_draws(b);
        break;
    case AG_BALANCE_HASH:
        ag_balance_forget_winners(b);
        break;
    }
    b->stale = false;
}

int ag_balance_pick(struct ag_balance *b, const struct ag_balance_set *among, uint64_t key)
{
    struct ag_balance_set set = ag_balance_set_and(among, &b->live);

    if (ag_unlikely(ag_balance_set_empty(&set))) {
        return -1;
    }
    if (ag_unlikely(b->stale)) {
        renew(b);
    }
    switch (b->kind) {
    case AG_BALANCE_ROUND_ROBIN:
        return ag_balance_in_turn(b, &set);
    case AG_BALANCE_LEAST_CONN:
        return ag_balance_least(b, &set);
    case AG_BALANCE_RANDOM_TWO:
        return ag_balance_two(b, &set, false);
    case AG_BALANCE_RANDOM_TWO_EWMA:
        return ag_balance_two(b, &set, true);
    case AG_BALANCE_HASH:
        return ag_balance_hashed(b, &set, key);
    }
    AG_UNREACHABLE("no such kind");
}
