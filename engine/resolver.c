#include "engine/resolver_impl.h"

#include "engine/fault.h"

#include <stdlib.h>

#define REFUSED_MS 1000u /* before a name that was refused unasked is worth another try */

/* ---- who is told ---- */

static void set_addr(union ag_addr *out, const struct ag_resolver_host *h, in_port_t port)
{
    *out = (union ag_addr){0};
    if (h->family == AF_INET) {
        out->in.sin_family = AF_INET;
        out->in.sin_port = port;
        out->in.sin_addr = h->in;
    } else {
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = port;
        out->in6.sin6_addr = h->in6;
    }
}

/* Gives the answer of `e` to `r`, whose first address holds the port meanwhile. */
static void tell_hosts(struct ag_resolve *r, struct ag_resolver_entry *e)
{
    const struct ag_resolver_name *n = ag_container_of(e, struct ag_resolver_name, entry);
    in_port_t port = r->addr[0].in.sin_port;

    r->status = e->status;
    r->error = e->error;
    r->count = e->count < AG_RESOLVE_MAX ? e->count : AG_RESOLVE_MAX;
    r->all_count = r->all ? e->count : 0;
    r->cut = n->cut && e->count > 0;
    r->expires_ms = e->expires_ms;
    for (uint32_t i = 0; i < r->count; i++) {
        set_addr(&r->addr[i], &n->hosts[i], port);
    }
    for (uint32_t i = 0; i < r->all_count; i++) {
        set_addr(&r->all[i], &n->hosts[i], port);
    }
    ag_task_queue(r->loop, &r->task);
}

static void tell_srv(struct ag_resolve_srv *r, struct ag_resolver_entry *e)
{
    const struct ag_resolver_srv *s = ag_container_of(e, struct ag_resolver_srv, entry);

    r->status = e->status;
    r->error = e->error;
    r->count = e->count;
    r->cut = e->count > 0 && s->answer.cut;
    r->expires_ms = e->expires_ms;
    memcpy(r->targets, s->answer.targets, e->count * sizeof(r->targets[0]));
    ag_srv_order(r->targets, r->count, r->loop->random);
    ag_task_queue(r->loop, &r->task);
}

static void tell(struct ag_link *waiter, struct ag_resolver_entry *e)
{
    if (e->kind == AG_LOOKUP_SRV) {
        tell_srv(ag_container_of(waiter, struct ag_resolve_srv, link), e);
    } else {
        tell_hosts(ag_container_of(waiter, struct ag_resolve, link), e);
    }
}

void ag_resolver_tell(struct ag_resolver_entry *e)
{
    for (struct ag_link *l = ag_list_pop(&e->waiters); l; l = ag_list_pop(&e->waiters)) {
        tell(l, e);
    }
}

/* ---- the resolver ---- */

static bool simulated(const struct ag_loop *l)
{
    return l->backend->system->look_up != NULL;
}

enum ag_status ag_resolver_init(struct ag_loop *l)
{
    static const struct ag_resolver_settings settings = AG_RESOLVER_SETTINGS_DEFAULT;
    struct ag_resolver *v = AG_SYS_NULL("calloc.resolver", calloc(1, sizeof(*v)));
    enum ag_status st;

    AG_ASSERT(!l->resolver);
    if (!v) {
        return AG_ENOMEM;
    }
    v->loop = l;
    v->settings = settings;
    st = simulated(l) ? AG_OK : ag_resolver_open_channel(v, &settings);
    if (st != AG_OK) {
        free(v);
        return st;
    }
    l->resolver = v;
    return AG_OK;
}

void ag_resolver_deinit(struct ag_loop *l)
{
    struct ag_resolver *v = l->resolver;
    struct ag_resolver_entry *e;

    if (!v) {
        return;
    }
    for (size_t i = 0; (e = ag_resolver_entry_at(v, i)) != NULL; i++) {
        AG_ASSERT(!e->pending || ag_list_empty(&e->waiters));
    }
    if (v->channel) {
        ag_resolver_close_channel(v);
    }
    l->resolver = NULL;
    free(v);
}

static bool is_same(const struct ag_resolver_settings *a, const struct ag_resolver_settings *b)
{
    return a->timeout_ms == b->timeout_ms && a->attempts == b->attempts &&
           strcmp(a->servers, b->servers) == 0;
}

enum ag_status ag_resolver_configure(struct ag_loop *l, const struct ag_resolver_settings *settings)
{
    struct ag_resolver *v = l->resolver;
    struct ag_resolver_entry *e;
    enum ag_status st;

    if (simulated(l) || is_same(&v->settings, settings)) {
        return AG_OK;
    }
    st = ag_resolver_open_channel(v, settings);
    if (st != AG_OK) {
        return st;
    }
    v->settings = *settings;
    for (size_t i = 0; (e = ag_resolver_entry_at(v, i)) != NULL; i++) {
        if (!e->pending) {
            e->expires_ms = 0; /* it is others' word */
        }
    }
    return AG_OK;
}

/* ---- look-ups ---- */

/* The entry to answer from or to wait at. NULL: the failure that *out_status and *out_error tell. */
static struct ag_resolver_entry *entry_for(struct ag_resolver *v, enum ag_lookup_kind kind,
                                           struct ag_span host, enum ag_status *out_status,
                                           const char **out_error)
{
    char name[AG_DNS_NAME_MAX + 1];
    struct ag_resolver_entry *e;

    AG_ASSERT(v);
    if (!ag_resolver_normalise(host, name)) {
        *out_status = AG_ENOENT;
        *out_error = "not a host name";
        return NULL;
    }
    e = ag_resolver_find(v, kind, name, host.len);
    if (!e) {
        e = ag_resolver_take(v, kind, name, host.len);
    }
    if (!e) {
        *out_status = AG_AGAIN;
        *out_error = "too many lookups at once";
        return NULL;
    }
    e->used_at = ++v->uses;
    return e;
}

/* From what is known unless it is to be asked for anew, or when it is; always by task. */
static void wait_at(struct ag_resolver_entry *e, struct ag_link *waiter, bool anew)
{
    struct ag_resolver *v = e->owner;
    struct ag_loop *l = v->loop;

    if (!e->pending && !anew && e->expires_ms > l->now_ms) {
        tell(waiter, e);
        return;
    }
    ag_list_push(&e->waiters, waiter);
    if (e->pending) {
        return;
    }
    e->pending = true;
    if (simulated(l)) {
        l->backend->system->look_up(l, e->name, e->kind);
    } else {
        ag_resolver_ask(e);
    }
}

static void on_task(struct ag_task *t)
{
    struct ag_resolve *r = ag_container_of(t, struct ag_resolve, task);

    r->done(r);
}

static void fail(struct ag_resolve *r, enum ag_status status, const char *error)
{
    r->status = status;
    r->error = error;
    r->expires_ms = r->loop->now_ms + REFUSED_MS;
    ag_task_queue(r->loop, &r->task);
}

void ag_resolve_start(struct ag_loop *l, struct ag_resolve *r, struct ag_span host, uint16_t port,
                      ag_resolve_fn *done)
{
    enum ag_status st = AG_OK;
    const char *error = NULL;

    r->done = done;
    r->loop = l;
    r->count = r->all_count = 0;
    r->cut = false;
    ag_list_init(&r->link);
    ag_task_init(&r->task, on_task);
    if (ag_addr_parse(host, port, &r->addr[0]) == AG_OK) {
        r->status = AG_OK;
        r->error = NULL;
        r->count = 1;
        if (r->all) {
            r->all[0] = r->addr[0];
            r->all_count = 1;
        }
        r->expires_ms = UINT64_MAX;
        ag_task_queue(l, &r->task);
        return;
    }
    struct ag_resolver_entry *e = entry_for(l->resolver, AG_LOOKUP_ADDRESSES, host, &st, &error);
    if (!e) {
        fail(r, st, error);
        return;
    }
    r->addr[0].in.sin_port = htons(port);
    wait_at(e, &r->link, r->anew);
}

void ag_resolve_cancel(struct ag_resolve *r)
{
    if (r->loop) {
        ag_list_remove(&r->link);
        ag_task_cancel(&r->task);
    }
}

static void on_srv_task(struct ag_task *t)
{
    struct ag_resolve_srv *r = ag_container_of(t, struct ag_resolve_srv, task);

    r->done(r);
}

void ag_resolve_srv_start(struct ag_loop *l, struct ag_resolve_srv *r, struct ag_span name,
                          ag_resolve_srv_fn *done)
{
    struct ag_resolver_entry *e;

    r->done = done;
    r->loop = l;
    r->count = 0;
    r->cut = false;
    ag_list_init(&r->link);
    ag_task_init(&r->task, on_srv_task);
    e = entry_for(l->resolver, AG_LOOKUP_SRV, name, &r->status, &r->error);
    if (e) {
        wait_at(e, &r->link, r->anew);
        return;
    }
    r->expires_ms = l->now_ms + REFUSED_MS;
    ag_task_queue(l, &r->task);
}

void ag_resolve_srv_cancel(struct ag_resolve_srv *r)
{
    if (r->loop) {
        ag_list_remove(&r->link);
        ag_task_cancel(&r->task);
    }
}

/* ---- for a system that looks names up itself ---- */

static struct ag_resolver_entry *pending(struct ag_loop *l, enum ag_lookup_kind kind,
                                         const char *name)
{
    struct ag_resolver_entry *e =
        l->resolver ? ag_resolver_find(l->resolver, kind, name, strlen(name)) : NULL;

    return e && e->pending ? e : NULL;
}

void ag_resolver_answer(struct ag_loop *l, const char *name, enum ag_status st,
                        const union ag_addr *addrs, uint32_t count, uint64_t ttl_ms)
{
    struct ag_resolver_entry *e = pending(l, AG_LOOKUP_ADDRESSES, name);
    struct ag_resolver_gather *g;

    if (!e) {
        return;
    }
    if (st != AG_OK) {
        ag_resolver_settle_failed(e, st, "the look-up failed");
        return;
    }
    g = ag_resolver_gather_begin(e->owner);
    for (uint32_t i = 0; i < count; i++) {
        ag_resolver_gather_add(g, &addrs[i]);
    }
    ag_resolver_settle_hosts(e, g, ttl_ms);
}

void ag_resolver_answer_srv(struct ag_loop *l, const char *name, enum ag_status st,
                            const struct ag_srv_target *targets, uint32_t count, uint32_t ttl_s)
{
    struct ag_resolver_entry *e = pending(l, AG_LOOKUP_SRV, name);

    if (e && st == AG_OK) {
        struct ag_resolver_srv *s = ag_container_of(e, struct ag_resolver_srv, entry);

        AG_ASSERT(count <= AG_SRV_MAX);
        s->answer.count = count;
        s->answer.ttl_s = ttl_s;
        s->answer.cut = false;
        memcpy(s->answer.targets, targets, count * sizeof(*targets));
        ag_resolver_settle_srv(s);
    } else if (e) {
        ag_resolver_settle_failed(e, st, "the look-up failed");
    }
}
