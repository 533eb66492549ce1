#include "actions/upstream/upstream_discover.h"

#include "actions/upstream/upstream_parts.h"
#include "engine/log.h"
#include "engine/random.h"

#include <stdlib.h>

/* After a failure: so long, then twice that, and so on. */
#define RETRY_MS     1000u
#define RETRY_MAX_MS 10000u

#define NAME(s) (int)(s).len, (const char *)(s).ptr

/* What the log has said last. */
enum news {
    NEWS_NONE = 0,
    NEWS_FOUND,
    NEWS_FAILED,  /* nobody could tell */
    NEWS_EMPTY,   /* there is no such name, or nothing there */
    NEWS_REFUSED, /* no address of it is allowed */
};

/* An upstream in use whose servers are looked for. */
struct watch {
    struct ag_discover *discover;
    const struct ag_upstream *up; /* of the present configuration */
    struct ag_upstream_group *group;
    uint64_t key[2];
    struct ag_timer timer;              /* for the next look-up */
    uint32_t failures;                  /* in a row */
    uint32_t refused;                   /* addresses of the last answer, as the log has said */
    enum ag_upstream_source_kind asked; /* what is under way; LISTED: nothing */
    enum news news;
    bool cut;  /* the log has said that there are too many */
    bool anew; /* the next look-up is to come before what is known has expired */
    bool seen; /* in the configuration that comes */
    union {
        struct ag_resolve_srv srv;
        struct {
            struct ag_resolve hosts;
            union ag_addr all[AG_RESOLVE_ALL];
        };
    };
};

struct ag_discover {
    struct ag_upstreams *all;
    struct watch *watches[AG_UPSTREAM_POOLS]; /* the first `count` of them */
    uint32_t count;
    struct ag_discovered found;
};

static struct ag_loop *loop_of(const struct watch *w)
{
    return w->discover->all->loop;
}

/* ---- when ---- */

/* A tenth more at most, so that not all who know a name ask at once. */
static void look_in(struct watch *w, uint64_t delay_ms)
{
    struct ag_loop *l = loop_of(w);

    ag_loop_arm(l, &w->timer, delay_ms + ag_random_next(l->random) % (delay_ms / 10 + 1));
}

static void look_after_success(struct watch *w, uint64_t expires_ms)
{
    uint64_t now_ms = loop_of(w)->now_ms;
    uint64_t left_ms = expires_ms > now_ms ? expires_ms - now_ms : RETRY_MS;
    uint32_t refresh_ms = w->up->source.refresh_ms;

    w->failures = 0;
    w->anew = refresh_ms > 0 && refresh_ms < left_ms;
    look_in(w, w->anew ? refresh_ms : left_ms);
}

static void look_after_failure(struct watch *w)
{
    uint64_t delay_ms = (uint64_t)RETRY_MS << (w->failures < 4 ? w->failures : 4);

    w->failures++;
    w->anew = false;
    look_in(w, ag_min_u64(delay_ms, RETRY_MAX_MS));
}

/* ---- what came of it ---- */

static void say_what_is_left_out(struct watch *w, bool cut, uint32_t refused)
{
    struct ag_span name = w->up->source.like.host;

    if (cut && !w->cut) {
        ag_log(AG_LOG_WARN, "upstream %.*s: %.*s has more than %u servers: the others are left out",
               NAME(w->up->name), NAME(name), AG_UPSTREAM_SERVERS_MAX);
    }
    if (refused > 0 && refused != w->refused) {
        ag_log(AG_LOG_WARN,
               "upstream %.*s: %u addresses of %.*s are left out: they are not allowed",
               NAME(w->up->name), refused, NAME(name));
    }
    w->cut = cut;
    w->refused = refused;
}

static void fail(struct watch *w, enum news news, const char *why)
{
    bool none = ag_upstream_group_not_found(w->group, news == NEWS_REFUSED ? AG_SERVERS_REFUSED
                                                                           : AG_SERVERS_UNKNOWN);

    if (news != w->news) {
        w->news = news;
        ag_log(AG_LOG_WARN, "upstream %.*s: no servers found by %.*s: %s; %s", NAME(w->up->name),
               NAME(w->up->source.like.host), why,
               none ? "none is known yet" : "those that were known stay");
    }
    if (none) {
        ag_upstream_tell(w->group, NULL);
    }
    look_after_failure(w);
}

/* `discover->found` is what there is now. */
static void settle(struct watch *w, bool cut, uint64_t expires_ms)
{
    const struct ag_discovered *d = &w->discover->found;
    bool changed;

    if (d->count == 0) {
        say_what_is_left_out(w, cut, d->refused);
        fail(w, NEWS_REFUSED, "its addresses are not allowed");
        return;
    }
    if (ag_upstream_group_found(w->group, d->servers, d->count, &changed) != AG_OK) {
        cut = true;
    }
    ag_upstream_group_keep(w->group); /* for shards that end later than this one */
    say_what_is_left_out(w, cut, d->refused);
    if (changed || w->news != NEWS_FOUND) {
        w->news = NEWS_FOUND;
        ag_log(AG_LOG_INFO, "upstream %.*s: %u servers found by %.*s", NAME(w->up->name), d->count,
               NAME(w->up->source.like.host));
    }
    if (changed) {
        ag_upstream_tell(w->group, NULL);
    }
    look_after_success(w, expires_ms);
}

static void on_srv(struct ag_resolve_srv *r)
{
    struct watch *w = ag_container_of(r, struct watch, srv);

    w->asked = AG_SOURCE_LISTED;
    if (r->status != AG_OK) {
        fail(w, r->status == AG_ENOENT ? NEWS_EMPTY : NEWS_FAILED, r->error);
        return;
    }
    ag_discover_places(w->up, r->targets, r->count, &w->discover->found);
    settle(w, r->cut, r->expires_ms);
}

static void on_hosts(struct ag_resolve *r)
{
    struct watch *w = ag_container_of(r, struct watch, hosts);

    w->asked = AG_SOURCE_LISTED;
    if (r->status != AG_OK) {
        fail(w, r->status == AG_ENOENT ? NEWS_EMPTY : NEWS_FAILED, r->error);
        return;
    }
    ag_discover_addresses(w->up, r->all, r->all_count, &w->discover->found);
    settle(w, r->cut, r->expires_ms);
}

/* ---- asking ---- */

static void on_timer(struct ag_timer *t)
{
    struct watch *w = ag_container_of(t, struct watch, timer);
    const struct ag_upstream_source *source = &w->up->source;

    AG_ASSERT(w->asked == AG_SOURCE_LISTED);
    w->asked = source->kind;
    if (source->kind == AG_SOURCE_SRV) {
        memset(&w->srv, 0, sizeof(w->srv));
        w->srv.anew = w->anew;
        ag_resolve_srv_start(loop_of(w), &w->srv, source->like.host, on_srv);
    } else {
        memset(&w->hosts, 0, sizeof(w->hosts));
        w->hosts.anew = w->anew;
        w->hosts.all = w->all;
        ag_resolve_start(loop_of(w), &w->hosts, source->like.host, source->like.port, on_hosts);
    }
}

static void give_up(struct watch *w)
{
    ag_timer_cancel(&loop_of(w)->wheel, &w->timer);
    if (w->asked == AG_SOURCE_SRV) {
        ag_resolve_srv_cancel(&w->srv);
    } else if (w->asked == AG_SOURCE_NAME) {
        ag_resolve_cancel(&w->hosts);
    }
    w->asked = AG_SOURCE_LISTED;
}

/* ---- the upstreams in use ---- */

static void drop(struct watch *w)
{
    give_up(w);
    ag_upstream_group_release(w->group);
    free(w);
}

static struct watch *find(struct ag_discover *d, const struct ag_upstream *up)
{
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->watches[i]->key[0] == up->key[0] && d->watches[i]->key[1] == up->key[1]) {
            return d->watches[i];
        }
    }
    return NULL;
}

/* NULL: no memory, or no room: it has no servers. */
static struct watch *make(struct ag_discover *d, const struct ag_upstream *up)
{
    struct watch *w = d->count < AG_UPSTREAM_POOLS ? calloc(1, sizeof(*w)) : NULL;

    if (!w) {
        return NULL;
    }
    w->group = ag_upstream_group_hold(d->all->groups, up, d->all->order);
    if (!w->group) {
        free(w);
        return NULL;
    }
    w->discover = d;
    w->key[0] = up->key[0];
    w->key[1] = up->key[1];
    ag_timer_init(&w->timer, on_timer);
    d->watches[d->count++] = w;
    return w;
}

/* Whatever has changed, the source or who is asked: what is known of it has not expired, or it is asked for. */
static void use(struct watch *w, const struct ag_upstream *up)
{
    w->up = up;
    w->seen = true;
    w->failures = 0;
    w->anew = false;
    give_up(w);
    ag_loop_arm(loop_of(w), &w->timer, 0);
}

static void look_for(struct ag_discover *d, const struct ag_upstream *up)
{
    struct watch *w = find(d, up);

    w = w ? w : make(d, up);
    if (w) {
        use(w, up);
    }
}

void ag_discover_use(struct ag_discover *d, const struct ag_upstream *const *upstreams,
                     uint32_t count)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < d->count; i++) {
        d->watches[i]->seen = false;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (upstreams[i]->source.kind != AG_SOURCE_LISTED) {
            look_for(d, upstreams[i]);
        }
    }
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->watches[i]->seen) {
            d->watches[kept++] = d->watches[i];
        } else {
            drop(d->watches[i]);
        }
    }
    d->count = kept;
}

struct ag_discover *ag_discover_new(struct ag_upstreams *all)
{
    struct ag_discover *d = calloc(1, sizeof(*d));

    if (d) {
        d->all = all;
    }
    return d;
}

void ag_discover_free(struct ag_discover *d)
{
    if (!d) {
        return;
    }
    for (uint32_t i = 0; i < d->count; i++) {
        drop(d->watches[i]);
    }
    free(d);
}
