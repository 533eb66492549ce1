/*
 * balance: in turn, and the least loaded.
 *
 * Turns: each server's are a period apart, which is the inverse of its weight's share, in virtual time that goes on
 * by `unit` with each choice among all:
 *
 *      start            due = start + period
 *   -----|----------------|-----|----------------|----> time
 *        '---- a turn ----'     '---- the next --'
 *
 * Of those whose turn may begin it is the one whose turn is due first. So none is served before its turn begins,
 * and, as all periods together leave room for all turns, none after it is due (Tijdeman 1980): each is within one
 * choice of its share. Of turns that are due at the same time that of the lower rank comes first, and ranks are by
 * chance, so that shards begin with different servers.
 *
 * Every server is looked at for each choice, four at a time, in vectors of 16 bytes that gcc and clang make of plain
 * operators (SSE2, NEON). Four of them are compared side by side, for each comparison waits for the one before; and
 * who is not in the set is left out by what stands in the arrays that are looked at, not by one more of them.
 */
#include "actions/upstream/balance_parts.h"

#ifdef __SSE2__
#    include <emmintrin.h>
#endif

#define UNIT_MAX   (1 << 10)
#define PERIOD_MAX (1 << 19)
#define NOW_MAX    (1 << 19) /* then all times are set back */
/* Loads that differ by so little, in units of the last place, do so by rounding. */
#define SAME_LOAD 4
/* Servers that are looked at together. */
#define STRIDE 16u
/* Added to what is compared, and what is not to be found: see lesser. */
#define NORMAL (1 << 23)
#define NONE   (-1)
/* The bits of what is greater than all numbers. */
#define INFINITE 0x7f800000

typedef int32_t lanes __attribute__((vector_size(16)));
#ifndef __SSE2__
typedef uint32_t lanes_unsigned __attribute__((vector_size(16)));
#endif

_Static_assert(AG_BALANCE_SERVERS % STRIDE == 0, "four vectors at a time");
/* `now` goes beyond its bound by a step at most, which is no longer than a period. */
_Static_assert((NOW_MAX + 3 * (int64_t)PERIOD_MAX) * AG_BALANCE_SERVERS < INFINITE - 2 * NORMAL,
               "a due fits, and is no infinity");
_Static_assert((int64_t)AG_BALANCE_SERVERS *AG_BALANCE_WEIGHT_MAX <= PERIOD_MAX,
               "a period is long enough for every share");
_Static_assert(AG_BALANCE_WEIGHT_MAX <= UINT16_MAX / 2, "rest and carry");

static void set_start(struct ag_balance *b, uint32_t i, int32_t start)
{
    b->start[i] = start;
    b->due[i] =
        (NORMAL + (start + b->period[i]) * (int32_t)AG_BALANCE_SERVERS + b->rank[i]) | b->out[i];
}

void ag_balance_make_ranks(struct ag_balance *b, bool by_chance)
{
    for (uint32_t i = 0; i < AG_BALANCE_SERVERS; i++) {
        uint32_t other = by_chance ? (uint32_t)(ag_balance_random(b) % (i + 1)) : i;

        b->by_rank[i] = b->by_rank[other];
        b->by_rank[other] = (uint8_t)i;
    }
    for (uint32_t i = 0; i < AG_BALANCE_SERVERS; i++) {
        b->rank[b->by_rank[i]] = (uint8_t)i;
    }
}

/* For who was not in the set no time has passed: it is owed what it was before. */
static void pass_by(struct ag_balance *b)
{
    int32_t passed = b->now - b->since;

    for (uint32_t i = 0; i < b->count; i++) {
        if (b->out[i]) {
            set_start(b, i, b->start[i] + passed);
        }
    }
    b->since = b->now;
}

/* Who is in `last`; `due` and `load` follow. */
static void set_out(struct ag_balance *b, uint32_t i, int32_t out)
{
    b->out[i] = out;
    set_start(b, i, b->start[i]);
    (void)ag_balance_load(b, i);
}

void ag_balance_forget_set(struct ag_balance *b)
{
    pass_by(b);
    for (uint32_t i = 0; i < AG_BALANCE_SERVERS; i++) {
        set_out(b, i, 0);
    }
    b->last = (struct ag_balance_set){0};
}

/* Times begin anew at 0; servers keep the part of a turn that they are ahead or behind, new ones begin. */
void ag_balance_make_turns(struct ag_balance *b)
{
    int64_t total = ag_balance_weight_of(b, &b->live), least = AG_BALANCE_WEIGHT_MAX,
            unit = UNIT_MAX;

    ag_balance_forget_set(b);
    for (uint32_t i = 0; i < b->count; i++) {
        least = b->weight[i] > 0 && b->weight[i] < least ? b->weight[i] : least;
    }
    while (unit * total > PERIOD_MAX * least) {
        unit /= 2;
    }
    b->unit = (int32_t)unit;
    for (uint32_t i = 0; i < b->count; i++) {
        int64_t before = b->period[i], ahead = b->start[i] - b->now, period;

        if (b->weight[i] == 0) {
            set_start(b, i, 0);
            continue;
        }
        period = unit * total / b->weight[i];
        ahead = before == 0 ? 0 : ahead * period / before;
        ahead = ahead > period ? period : ahead < -period ? -period : ahead;
        b->period[i] = (int32_t)period;
        b->rest[i] = (uint16_t)(unit * total % b->weight[i]);
        b->carry[i] = 0;
        set_start(b, i, (int32_t)ahead);
    }
    b->now = b->since = 0;
}

static AG_COLD void set_back(struct ag_balance *b)
{
    pass_by(b);
    for (uint32_t i = 0; i < b->count; i++) {
        int32_t start = b->start[i] - b->now;
        set_start(b, i, start < -b->period[i] ? -b->period[i] : start);
    }
    b->now = b->since = 0;
}

/* Another set than the last time. */
static AG_NOINLINE void choose_among(struct ag_balance *b, const struct ag_balance_set *among)
{
    int64_t total = 0, chosen = 0;

    pass_by(b);
    for (uint32_t i = 0; i < b->count; i++) {
        bool in = ag_balance_set_has(among, i);

        total += b->weight[i];
        chosen += in ? b->weight[i] : 0;
        set_out(b, i, in ? 0 : NONE);
    }
    for (uint32_t i = b->count; i % STRIDE != 0; i++) {
        set_out(b, i, NONE);
    }
    AG_ASSERT(chosen > 0);
    b->step = (int32_t)(b->unit * total / chosen);
    b->step_rest = (uint32_t)(b->unit * total % chosen);
    b->step_carry = 0;
    b->last_weight = (uint32_t)chosen;
    b->last = *among;
}

/* ---- vectors ---- */

static inline lanes load_int(const int32_t *from)
{
    lanes v;

    memcpy(&v, __builtin_assume_aligned(from, sizeof(v)), sizeof(v));
    return v;
}

static inline lanes load_float(const float *from)
{
    lanes v;

    memcpy(&v, __builtin_assume_aligned(from, sizeof(v)), sizeof(v));
    return v;
}

static inline lanes all(int32_t x)
{
    return (lanes){x, x, x, x};
}

/* What is not negative, and no denormal (which some processors are slow with), is in the same order as a float and
 * as an integer; and for floats there has always been an instruction. NONE in `x` is greater than all, as an unsigned
 * integer and as what is no number. */
static inline lanes lesser(lanes x, lanes y)
{
#ifdef __SSE2__
    return (lanes)_mm_min_ps((__m128)x, (__m128)y); /* y, if x is no number */
#else
    lanes less = (lanes_unsigned)x < (lanes_unsigned)y;

    return (x & less) | (y & ~less);
#endif
}

/* Of all lanes, in each. Without branches, which nobody could predict. */
static inline lanes least_of(lanes v)
{
    v = lesser(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));
    return lesser(v, __builtin_shufflevector(v, v, 1, 0, 3, 2));
}

/* ---- choices ---- */

/* When the turns of four servers are due, if they may begin. */
static inline lanes due_of(const struct ag_balance *b, uint32_t at, lanes now)
{
    return (load_int(b->start + at) > now) | load_int(b->due + at);
}

/* The same, whether they may begin or not. */
static inline lanes any_due_of(const struct ag_balance *b, uint32_t at, lanes none)
{
    (void)none;
    return load_int(b->due + at);
}

/* When their turns are due, if their load is not more than `most`. Whether they may begin yet does not count: to look
 * at that, too, would take a third longer, and only smooth the order of lone requests. */
static inline lanes due_of_idle(const struct ag_balance *b, uint32_t at, lanes most)
{
    return (load_float(b->load + at) > most) | load_int(b->due + at);
}

/* The least of what `of` says of all servers; INFINITE, if that is nothing; in each lane. */
static inline __attribute__((always_inline)) lanes
find_least(const struct ag_balance *b, lanes (*of)(const struct ag_balance *, uint32_t, lanes),
           lanes bound)
{
    lanes one = all(INFINITE), two = one, three = one, four = one;

    for (uint32_t at = 0; at < b->count; at += STRIDE) {
        one = lesser(of(b, at, bound), one);
        two = lesser(of(b, at + 4, bound), two);
        three = lesser(of(b, at + 8, bound), three);
        four = lesser(of(b, at + 12, bound), four);
    }
    return least_of(lesser(lesser(one, two), lesser(three, four)));
}

/* Its turn is taken, and time goes on. Where sets change, nobody's turn may have begun, or some may wait for long: no
 * more than one turn is owed or saved. */
static inline int take_turn(struct ag_balance *b, uint32_t i)
{
    int32_t start = b->start[i], earliest = b->now - b->period[i];
    uint32_t carry = (uint32_t)b->carry[i] + b->rest[i];
    bool whole = carry >= (uint32_t)b->weight[i];

    start = start > b->now ? b->now : start < earliest ? earliest : start;
    b->carry[i] = (uint16_t)(carry - (whole ? (uint32_t)b->weight[i] : 0));
    set_start(b, i, start + b->period[i] + whole);
    b->step_carry += b->step_rest;
    whole = b->step_carry >= b->last_weight;
    b->step_carry -= whole ? b->last_weight : 0;
    b->now += b->step + whole;
    if (ag_unlikely(b->now > NOW_MAX)) {
        set_back(b);
    }
    return (int)i;
}

static inline uint32_t server_due(const struct ag_balance *b, int32_t due)
{
    return b->by_rank[(uint32_t)due % AG_BALANCE_SERVERS];
}

int ag_balance_in_turn(struct ag_balance *b, const struct ag_balance_set *among)
{
    int32_t due;

    if (!ag_balance_set_same(among, &b->last)) {
        choose_among(b, among);
    }
    due = find_least(b, due_of, all(b->now))[0];
    if (ag_unlikely(due == INFINITE)) {
        due = find_least(b, any_due_of, all(0))[0];
    }
    return take_turn(b, server_due(b, due));
}

/* What find_least and due_of_idle say for `most`, and the least load, in one go. */
static inline lanes find_idle(const struct ag_balance *b, lanes most, lanes *out_least)
{
    lanes one = all(INFINITE), two = one, three = one, four = one;
    lanes first = one, second = one, third = one, fourth = one;

    for (uint32_t at = 0; at < b->count; at += STRIDE) {
        one = lesser(due_of_idle(b, at, most), one);
        first = lesser(load_float(b->load + at), first);
        two = lesser(due_of_idle(b, at + 4, most), two);
        second = lesser(load_float(b->load + at + 4), second);
        three = lesser(due_of_idle(b, at + 8, most), three);
        third = lesser(load_float(b->load + at + 8), third);
        four = lesser(due_of_idle(b, at + 12, most), four);
        fourth = lesser(load_float(b->load + at + 12), fourth);
    }
    *out_least = least_of(lesser(lesser(first, second), lesser(third, fourth)));
    return least_of(lesser(lesser(one, two), lesser(three, four)));
}

/* Turns are among equals, but time goes on for all. The least load is mostly what it was, or what a request that has
 * ended has left since: whoever is due first among those that have it is found while it is looked for. */
int ag_balance_least(struct ag_balance *b, const struct ag_balance_set *among)
{
    lanes due, least;

    if (!ag_balance_set_same(among, &b->last)) {
        choose_among(b, among);
    }
    due = find_idle(b, all(b->least + SAME_LOAD), &least);
    if (least[0] != b->least) {
        b->least = least[0];
        due = find_least(b, due_of_idle, least + all(SAME_LOAD));
    }
    return take_turn(b, server_due(b, due[0]));
}
