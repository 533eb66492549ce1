#include "actions/proxy/proxy_steer.h"

#include "actions/upstream/balance_key.h"

#include <xxhash.h>

/* Of its name alone, so that cookies hold over reloads, schemes and processes. */
static uint64_t mark_of(const struct ag_upstream *up)
{
    return XXH3_64bits(up->name.ptr, up->name.len);
}

void ag_proxy_steer(struct ag_exchange *ex, const struct ag_upstream *up,
                    const struct ag_networks *trust, struct ag_upstream_claim *claim)
{
    const struct ag_balance_options *o = &up->options.balance;
    enum ag_sticky_state state;

    if (o->kind == AG_BALANCE_HASH) {
        claim->key = ag_balance_key(ex, o, trust);
    }
    if (o->sticky.name.len > 0) {
        state = ag_sticky_read(&o->sticky, &ex->req.fields, mark_of(up),
                               (uint64_t)ex->context->loop->wall_s, &claim->wanted);
        claim->wants = state != AG_STICKY_NONE;
        claim->ageing = state == AG_STICKY_AGEING;
    }
}

enum ag_status ag_proxy_stick(struct ag_exchange *ex, const struct ag_upstream *up,
                              const struct ag_upstream_claim *claim)
{
    const struct ag_sticky_options *o = &up->options.balance.sticky;
    uint64_t identity = claim->peer->member->identity;
    struct ag_buf value;
    uint8_t *room;

    if (o->name.len == 0 || claim->crowded ||
        (claim->wants && claim->wanted == identity && !claim->ageing)) {
        return AG_OK;
    }
    room = ag_arena_alloc(&ex->arena, AG_STICKY_FIELD_MAX);
    if (!room) {
        return AG_ENOMEM;
    }
    value = ag_buf(room, AG_STICKY_FIELD_MAX);
    ag_sticky_write(o, mark_of(up), identity, (uint64_t)ex->context->loop->wall_s, ex->req.tls,
                    &value);
    return ag_exchange_field(ex, AG_FIELD_SET_COOKIE, ag_buf_span(&value));
}
