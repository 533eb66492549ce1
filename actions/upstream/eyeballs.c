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

/* Appends those that have failed, or have not, the families in turn as far as there are two of them. */
static void append(const struct ag_eyeballs *e, const union ag_addr *addrs, uint32_t count,
                   uint64_t now_ms, bool failed, struct ag_eyeballs_plan *out)
{
    sa_family_t turn = e->worked;
    uint32_t taken = 0; /* bits: indices that are in the plan, or of the other kind */

    for (uint32_t i = 0; i < count; i++) {
        taken |= has_failed(e, &addrs[i], now_ms) != failed ? 1u << i : 0;
    }
    for (;;) {
        uint32_t at = count;

        /* The first one whose turn it is, else the first one. */
        for (uint32_t i = count; i-- > 0;) {
            bool fits = turn == AF_UNSPEC || addrs[i].sa.sa_family == turn;

            if (!(taken & 1u << i) && (fits || at == count || addrs[at].sa.sa_family != turn)) {
                at = i;
            }
        }
        if (at == count) {
            return;
        }
        taken |= 1u << at;
        out->order[out->count++] = (uint8_t)at;
        turn = addrs[at].sa.sa_family == AF_INET6 ? AF_INET : AF_INET6;
    }
}

void ag_eyeballs_plan(const struct ag_eyeballs *e, const union ag_addr *addrs, uint32_t count,
                      uint64_t now_ms, struct ag_eyeballs_plan *out)
{
    _Static_assert(AG_RESOLVE_MAX <= 32, "bits of a word");
    AG_ASSERT(count <= AG_RESOLVE_MAX);
    out->count = 0;
    append(e, addrs, count, now_ms, false, out);
    append(e, addrs, count, now_ms, true, out);
}

uint64_t ag_eyeballs_next_ms(const struct ag_eyeballs_plan *p, uint32_t begun, uint32_t under_way,
                             uint64_t last_ms)
{
    AG_ASSERT(under_way <= begun && begun <= p->count);
    if (begun == p->count) {
        return UINT64_MAX;
    }
    return under_way ? last_ms + AG_EYEBALLS_DELAY_MS : last_ms;
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
