#include "actions/upstream/upstream_parts.h"

#include <xxhash.h>

/*
 * Where an upstream is told whose a connection is (PROXY headers), it takes all that comes on it for that client's. So
 * such a connection is its first claim's client's: of the connection of that client, as long as that is open. It carries
 * one call at a time, of HTTP/2 too, and between two of them it is idle like others, but found by its client alone.
 * A client has one idle connection to a server at most.
 */

static struct ag_link *kins_of(struct ag_upstreams *u, const struct ag_stream *client)
{
    uintptr_t at = (uintptr_t)client;

    return &u->kins[XXH3_64bits(&at, sizeof(at)) % AG_UPSTREAM_BUCKETS];
}

static uint64_t hash_of(const struct ag_upstream_claim *claim)
{
    return XXH3_64bits(claim->greeting.ptr, claim->greeting.len);
}

/* That it is another client's must not happen, whatever else goes wrong: what it was greeted with is looked at, too. */
static bool is_claims(const struct ag_upstream_conn *c, const struct ag_upstream_claim *claim)
{
    return c->client == claim->client && c->greeted == hash_of(claim);
}

void ag_upstream_own(struct ag_upstream_conn *c, const struct ag_upstream_claim *claim)
{
    struct ag_upstreams *u = claim->pool->all;

    if (c->client) {
        AG_ASSERT(is_claims(c, claim));
    } else if (claim->client && !c->own) {
        AG_ASSERT(c->calls == 0 && claim->greeting.len > 0);
        c->client = claim->client;
        c->greeted = hash_of(claim);
        ag_list_push_front(kins_of(u, c->client), &c->kin);
        u->kin_count++;
    }
}

void ag_upstream_disown(struct ag_upstream_conn *c)
{
    if (c->client) {
        c->client = NULL;
        ag_list_remove(&c->kin);
        c->peer->pool->all->kin_count--;
    }
}

static struct ag_upstream_conn *find_idle(struct ag_link *kins, const struct ag_upstream_peer *p,
                                          const struct ag_stream *client)
{
    ag_list_foreach(it, kins) {
        struct ag_upstream_conn *c = ag_container_of(it, struct ag_upstream_conn, kin);

        if (c->client == client && c->peer == p && c->state == AG_UPSTREAM_IDLE) {
            return c;
        }
    }
    return NULL;
}

struct ag_upstream_conn *ag_upstream_find_own(const struct ag_upstream_claim *claim,
                                              const struct ag_upstream_peer *p)
{
    struct ag_upstream_conn *c;

    if (!claim->client) {
        return NULL;
    }
    c = find_idle(kins_of(claim->pool->all, claim->client), p, claim->client);
    return c && is_claims(c, claim) && ag_upstream_conn_takes(c) ? c : NULL;
}

bool ag_upstream_keep_own(const struct ag_upstream_conn *c)
{
    struct ag_upstream_pool *pool = c->peer->pool;

    return c->client && pool->pending_count == 0 &&
           !find_idle(kins_of(pool->all, c->client), c->peer, c->client);
}

void ag_upstreams_client_gone(struct ag_upstreams *u, const struct ag_stream *client)
{
    struct ag_link *kins, *next;

    if (!u || u->kin_count == 0) {
        return;
    }
    kins = kins_of(u, client);
    for (struct ag_link *it = kins->next; it != kins; it = next) {
        struct ag_upstream_conn *c = ag_container_of(it, struct ag_upstream_conn, kin);

        next = it->next;
        if (c->client == client) {
            ag_upstream_disown(c);
            if (c->state == AG_UPSTREAM_IDLE) {
                ag_upstream_conn_finish(c);
            }
        }
    }
}
