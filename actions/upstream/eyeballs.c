#include "actions/upstream/eyeballs.h"

static struct ag_eyeballs_failure *find(struct ag_eyeballs *e, const union ag_addr *addr)
{
    for (uint32_t i = 0; i < AG_COUNT(e->failures); i++) {
        if (e->failures[i].at_ms && ag_addr_same(&e->failures[i].addr, addr)) {
            return &e->failures[i];
        }
    }
    return NULL;
}

static bool has_failed(const struct ag_eyeballs *e, const union ag_addr *addr, uint64_t now_ms)
{
    for (uint32_t i = 0; i < AG_COUNT(e->failures); i++) {
        const struct ag_eyeballs_failure *f = &e->failures[i];

        if (f->at_ms && now_ms - f->at_ms < AG_EYEBALLS_FORGIVE_MS &&
            ag_addr_same(&f->addr, addr)) {
            return true;
        }
    }
    return false;
}

/* Of the addresses that are left (bits), the first one of the family from index `from` on, round about; where there is
 * none of it, the first of the other. */
static uint32_t first_of(const union ag_addr *addrs, uint32_t count, uint32_t left,
                         sa_family_t family, uint32_t from)
{
    uint32_t other = count;

    for (uint32_t n = 0; n < count; n++) {
        uint32_t i = (from + n) % count;

        if (left & 1u << i && addrs[i].sa.sa_family == family) {
            return i;
        }
        other = left & 1u << i && other == count ? i : other;
    }
    return other;
}

/* Where the plan begins: at the address of the family whose turn it is. */
static uint32_t begin_at(const union ag_addr *addrs, uint32_t count, uint32_t left,
                         sa_family_t family, uint32_t turn)
{
    uint32_t of_family = 0, nth, i = 0;

    for (uint32_t n = 0; n < count; n++) {
        of_family += left & 1u << n && addrs[n].sa.sa_family == family;
    }
    nth = of_family ? turn % of_family : 0;
    while (nth > 0) {
        nth -= left & 1u << i && addrs[i].sa.sa_family == family;
        i++;
    }
    return i;
}

/* Appends those of the bits, the families in turn as far as there are two of them. */
static void append(const struct ag_eyeballs *e, const union ag_addr *addrs, uint32_t count,
                   uint32_t left, uint32_t turn, struct ag_eyeballs_plan *out)
{
    sa_family_t family;
    uint32_t from, at;

    if (!left) {
        return;
    }
    at = first_of(addrs, count, left, e->worked, 0);
    family = addrs[at].sa.sa_family;
    from = begin_at(addrs, count, left, family, turn);
    for (; left; left &= ~(1u << at)) {
        at = first_of(addrs, count, left, family, from);
        out->order[out->count++] = (uint8_t)at;
        family = addrs[at].sa.sa_family == AF_INET6 ? AF_INET : AF_INET6;
    }
}

void ag_eyeballs_plan(const struct ag_eyeballs *e, const union ag_addr *addrs, uint32_t count,
                      uint32_t turn, uint64_t now_ms, struct ag_eyeballs_plan *out)
{
    uint32_t failed = 0, sound;

    _Static_assert(AG_RESOLVE_MAX < 32, "bits of a word");
    AG_ASSERT(count <= AG_RESOLVE_MAX);
    for (uint32_t i = 0; i < count; i++) {
        failed |= has_failed(e, &addrs[i], now_ms) ? 1u << i : 0;
    }
    sound = ((1u << count) - 1) & ~failed;
    out->count = 0;
    append(e, addrs, count, sound, turn, out);
    append(e, addrs, count, failed, 0, out);
}

uint64_t ag_eyeballs_next_ms(const struct ag_eyeballs_plan *p, uint32_t begun, uint64_t last_ms)
{
    AG_ASSERT(begun <= p->count);
    return begun == p->count ? UINT64_MAX : last_ms + AG_EYEBALLS_DELAY_MS;
}

void ag_eyeballs_worked(struct ag_eyeballs *e, const union ag_addr *addr)
{
    struct ag_eyeballs_failure *f = find(e, addr);

    e->worked = addr->sa.sa_family;
    if (f) {
        f->at_ms = 0;
    }
}

void ag_eyeballs_failed(struct ag_eyeballs *e, const union ag_addr *addr, uint64_t now_ms)
{
    struct ag_eyeballs_failure *f = find(e, addr);

    if (!f) {
        f = &e->failures[0];
        for (uint32_t i = 1; i < AG_COUNT(e->failures); i++) {
            f = e->failures[i].at_ms < f->at_ms ? &e->failures[i]
                                                : f; /* the oldest, or a free one */
        }
    }
    f->addr = *addr;
    f->at_ms = now_ms ? now_ms : 1;
}
