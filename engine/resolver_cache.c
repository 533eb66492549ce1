/* Names that were looked up, their answers, and who waits for them. */
#include "engine/resolver_impl.h"

#define TTL_MIN_MS  1000u
#define TTL_MAX_MS  3600000u
#define TTL_FAIL_MS 1000u

/* ---- entries ---- */

struct ag_resolver_entry *ag_resolver_entry_at(struct ag_resolver *v, size_t at)
{
    if (at < AG_RESOLVER_NAMES) {
        return &v->names[at].entry;
    }
    at -= AG_RESOLVER_NAMES;
    return at < AG_RESOLVER_SRVS ? &v->srvs[at].entry : NULL;
}

/* The range of one kind in the numbering above. */
static size_t first_of(enum ag_lookup_kind kind)
{
    return kind == AG_LOOKUP_SRV ? AG_RESOLVER_NAMES : 0;
}

static size_t end_of(enum ag_lookup_kind kind)
{
    return kind == AG_LOOKUP_SRV ? AG_RESOLVER_NAMES + AG_RESOLVER_SRVS : AG_RESOLVER_NAMES;
}

struct ag_resolver_entry *ag_resolver_find(struct ag_resolver *v, enum ag_lookup_kind kind,
                                           const char *name, size_t len)
{
    for (size_t i = first_of(kind); i < end_of(kind); i++) {
        struct ag_resolver_entry *e = ag_resolver_entry_at(v, i);

        if (e->used && e->name_len == len && memcmp(e->name, name, len) == 0) {
            return e;
        }
    }
    return NULL;
}

struct ag_resolver_entry *ag_resolver_take(struct ag_resolver *v, enum ag_lookup_kind kind,
                                           const char *name, size_t len)
{
    struct ag_resolver_entry *best = NULL;

    for (size_t i = first_of(kind); i < end_of(kind); i++) {
        struct ag_resolver_entry *e = ag_resolver_entry_at(v, i);

        if (!e->used) {
            best = e;
            break;
        }
        if (!e->pending && (!best || e->used_at < best->used_at)) {
            best = e;
        }
    }
    if (best) {
        best->owner = v;
        best->kind = kind;
        best->used = true;
        best->pending = false;
        best->expires_ms = 0;
        best->name_len = (uint8_t)len;
        memcpy(best->name, name, len);
        best->name[len] = '\0';
        ag_list_init(&best->waiters);
    }
    return best;
}

bool ag_resolver_normalise(struct ag_span host, char out[static AG_DNS_NAME_MAX + 1])
{
    if (host.len == 0 || host.len > AG_DNS_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < host.len; i++) {
        uint8_t ch = ag_ascii_lower(host.ptr[i]);

        if (!(ch >= 'a' && ch <= 'z') && !(ch >= '0' && ch <= '9') && ch != '-' && ch != '_' &&
            ch != '.') {
            return false;
        }
        out[i] = (char)ch;
    }
    return true;
}

/* ---- answers ---- */

/* A shard asks for no name more often than once a second, and believes nothing for longer than an hour. */
static void settle(struct ag_resolver_entry *e, enum ag_status status, const char *error,
                   uint64_t ttl_ms)
{
    AG_ASSERT(e->pending);
    ttl_ms = ttl_ms < TTL_MIN_MS ? TTL_MIN_MS : ag_min_u64(ttl_ms, TTL_MAX_MS);
    e->pending = false;
    e->status = status;
    e->error = error;
    e->expires_ms = e->owner->loop->now_ms + ttl_ms;
    ag_resolver_tell(e);
}

void ag_resolver_settle_failed(struct ag_resolver_entry *e, enum ag_status status,
                               const char *error)
{
    e->count = 0;
    settle(e, status, error, TTL_FAIL_MS);
}

struct ag_resolver_gather *ag_resolver_gather_begin(struct ag_resolver *v)
{
    v->gather.count[0] = v->gather.count[1] = 0;
    v->gather.first = 0;
    v->gather.cut = false;
    return &v->gather;
}

void ag_resolver_gather_add(struct ag_resolver_gather *g, const union ag_addr *a)
{
    unsigned six = a->sa.sa_family == AF_INET6;
    struct ag_resolver_host h;

    if (a->sa.sa_family != AF_INET && !six) {
        return;
    }
    memset(&h, 0, sizeof(h)); /* all of it is compared */
    h.family = a->sa.sa_family;
    if (six) {
        h.in6 = a->in6.sin6_addr;
    } else {
        h.in = a->in.sin_addr;
    }
    for (uint32_t i = 0; i < g->count[six]; i++) {
        if (memcmp(&g->hosts[six][i].in6, &h.in6, sizeof(h.in6)) == 0) {
            return;
        }
    }
    if (g->count[0] + g->count[1] == 0) {
        g->first = six;
    }
    if (g->count[six] < AG_RESOLVE_ALL) {
        g->hosts[six][g->count[six]++] = h;
    } else {
        g->cut = true;
    }
}

void ag_resolver_settle_hosts(struct ag_resolver_entry *e, const struct ag_resolver_gather *g,
                              uint64_t ttl_ms)
{
    struct ag_resolver_name *n = ag_container_of(e, struct ag_resolver_name, entry);

    e->count = 0;
    n->cut = g->cut || g->count[0] + g->count[1] > AG_RESOLVE_ALL;
    for (uint32_t i = 0; i < AG_RESOLVE_ALL; i++) {
        for (unsigned turn = 0; turn < 2; turn++) {
            unsigned family = g->first ^ turn;

            if (i < g->count[family] && e->count < AG_RESOLVE_ALL) {
                n->hosts[e->count++] = g->hosts[family][i];
            }
        }
    }
    settle(e, AG_OK, NULL, ttl_ms);
}

void ag_resolver_settle_srv(struct ag_resolver_srv *s)
{
    AG_ASSERT(s->answer.count <= AG_SRV_MAX);
    s->entry.count = s->answer.count;
    settle(&s->entry, AG_OK, NULL, (uint64_t)s->answer.ttl_s * 1000);
}
