#include "tools/serving_parts.h"

#include "tools/sockets.h"

#include <stdlib.h>

/* As many as may come at once, where accept is not sparing: what a listener's queue holds. */
#define CROWD ((uint32_t)AG_LISTEN_BACKLOG)

/* Accepted beyond the limit. */
struct ag_serving_waiting {
    int fd;
    struct listener *from;
};

/* One listening descriptor; freed when it is closed and its last connection has gone. */
struct listener {
    struct ag_listener ls;
    struct ag_downstream_origin origin;
    struct ag_serving *serving;
    struct ag_link link;
    uint32_t socket_id;
    uint32_t waiting; /* of its connections, in serving->waiting */
    bool admin;
    bool wanted; /* by the change being applied */
    bool closed;
};

static struct listener *listener_of(struct ag_link *link)
{
    return ag_container_of(link, struct listener, link);
}

/* Whose connections it accepts. */
static struct ag_downstreams *down_of(const struct listener *l)
{
    return l->admin ? &l->serving->admin.down : &l->serving->down;
}

static uint32_t *count_of(const struct listener *l)
{
    return l->admin ? &l->serving->admin_listening : &l->serving->listening;
}

/* Nobody will be accepted any more: connections have what they need of the snapshot. */
static void let_relay_go(struct listener *l)
{
    if (l->closed && l->waiting == 0) {
        ag_block_release(l->origin.relay_owner);
        l->origin.relay_owner = NULL;
    }
}

static void free_if_done(struct listener *l)
{
    let_relay_go(l);
    if (l->closed && l->origin.connections == 0) {
        ag_tls_server_release(l->origin.tls);
        free(l->origin.proxied);
        ag_list_remove(&l->link);
        free(l);
    }
}

static void on_closed(struct ag_listener *ls)
{
    struct listener *l = ls->user;
    struct ag_serving *s = l->serving;

    l->closed = true;
    let_relay_go(l);
    (*count_of(l))--;
    free_if_done(l);
    ag_serving_end_soon(s);
}

/* This shard's of a listener's own limit; one at least, for the kernel gives each shard connections. */
static uint32_t share_of(const struct ag_context *ctx, uint32_t max)
{
    uint32_t share = max / ctx->shard_count + (ctx->shard_index < max % ctx->shard_count);

    return share ? share : 1;
}

/* How many more connections the listener may have: of all, and of this shard's share of its own limit. */
static uint32_t room_of(const struct listener *l)
{
    uint32_t room = ag_downstreams_room(down_of(l)), max = l->origin.limits.max_connections,
             served = l->origin.connections - l->waiting;

    if (max > 0) {
        uint32_t own = share_of(&l->serving->ctx, max);

        room = (uint32_t)ag_min_u64(room, served < own ? own - served : 0);
    }
    return room;
}

/* Accept where there is room, and nowhere else; sparingly where what a listener's queue holds would not go in. */
static void settle_accept(struct ag_serving *s)
{
    ag_list_foreach(it, &s->listeners) {
        struct listener *l = listener_of(it);
        uint32_t room = room_of(l);
        bool pause = room == 0, ample = room >= (l->ls.way == AG_ACCEPT_ALL ? CROWD : 2 * CROWD);

        if (l->closed) {
            continue;
        }
        ag_listener_set_way(&l->ls, ample ? AG_ACCEPT_ALL : AG_ACCEPT_SPARING);
        if (l->ls.paused == pause) {
            continue;
        }
        if (pause) {
            ag_listener_pause(&l->ls);
        } else {
            ag_listener_resume(&l->ls);
        }
    }
}

/* One more connection of `l` is one too many for the way that it, or another one of its shard, accepts. */
static bool has_narrowed(const struct listener *l)
{
    uint32_t room = room_of(l);

    return room == 0 || (l->ls.way == AG_ACCEPT_ALL && room < CROWD) ||
           ag_downstreams_room(down_of(l)) == CROWD - 1;
}

static void close_descriptor(struct ag_serving *s, int fd)
{
    struct ag_fd f;

    ag_fd_init(&f, fd);
    ag_loop_close(s->ctx.loop, &f);
}

static struct ag_serving_waiting take_waiting(struct ag_serving *s, uint32_t at)
{
    struct ag_serving_waiting w = s->waiting[at];

    s->waiting_count--;
    memmove(&s->waiting[at], &s->waiting[at + 1], (s->waiting_count - at) * sizeof(w));
    w.from->origin.connections--;
    w.from->waiting--;
    return w;
}

/* Those that wait and whose listener has room go on, in order. */
static void serve_waiting(struct ag_serving *s)
{
    uint32_t i = 0;

    while (i < s->waiting_count && ag_downstreams_room(&s->down) > 0) {
        if (room_of(s->waiting[i].from) > 0) {
            struct ag_serving_waiting w = take_waiting(s, i);

            AG_ASSERT(ag_downstream_accept(&s->down, w.fd, &w.from->origin));
            let_relay_go(w.from);
        } else {
            i++;
        }
    }
}

/* A connection has gone: room for one that waits, or for accept. */
void ag_serving_changed(struct ag_downstreams *d, struct ag_downstream_origin *origin)
{
    struct ag_serving *s = ag_container_of(d, struct ag_serving, down);

    ag_serving_tell_board(s);
    free_if_done(ag_container_of(origin, struct listener, origin));
    serve_waiting(s);
    if (s->draining) {
        ag_serving_end_soon(s);
    } else {
        settle_accept(s);
    }
}

void ag_serving_admin_changed(struct ag_downstreams *d, struct ag_downstream_origin *origin)
{
    struct ag_serving *s = ag_container_of(d, struct ag_serving, admin.down);

    free_if_done(ag_container_of(origin, struct listener, origin));
    if (s->draining) {
        ag_serving_end_soon(s);
    } else {
        settle_accept(s);
    }
}

/* False: there is no room for it. */
static bool admit(struct listener *l, int fd)
{
    struct ag_serving *s = l->serving;

    if (room_of(l) == 0 || !ag_downstream_accept(down_of(l), fd, &l->origin)) {
        return false;
    }
    ag_serving_tell_board(s);
    if (!s->draining && has_narrowed(l)) {
        settle_accept(s);
    }
    return true;
}

/* Accept stops at the limit, but what the kernel had accepted by then may still come, and what is in the queue of a
 * listener that closes: it waits here for the next free slot, so that no client that was let in is turned away. */
static void accept_here(struct listener *l, int fd)
{
    struct ag_serving *s = l->serving;

    if (s->over && !l->admin) {
        s->cut = true;
        close_descriptor(s, fd);
        return;
    }
    if (admit(l, fd)) {
        return;
    }
    if (!l->admin && s->waiting_count < AG_SERVING_WAITING) {
        s->waiting[s->waiting_count++] = (struct ag_serving_waiting){fd, l};
        l->origin.connections++;
        l->waiting++;
    } else {
        close_descriptor(s, fd);
    }
}

static void on_accepted(struct ag_listener *ls, int fd)
{
    struct listener *l = ls->user;
    struct ag_serving *s = l->serving;

    if (!l->admin && !ls->closing &&
        ag_spread_pass(&s->spread, s->down.count, l->socket_id, l, fd)) {
        l->origin.connections++; /* until it is home */
        l->waiting++;
    } else {
        accept_here(l, fd);
    }
}

/* Of another shard, accepted by its listener of the same socket. */
bool ag_serving_take_passed(struct ag_spread *sp, uint32_t socket_id, int fd)
{
    struct ag_serving *s = ag_container_of(sp, struct ag_serving, spread);

    ag_list_foreach(it, &s->listeners) {
        struct listener *l = listener_of(it);

        if (l->socket_id == socket_id && !l->admin && !l->ls.closing) {
            return admit(l, fd);
        }
    }
    return false;
}

void ag_serving_home(struct ag_spread *sp, void *origin, int fd)
{
    struct listener *l = origin;

    l->origin.connections--;
    l->waiting--;
    if (fd >= 0) {
        accept_here(l, fd);
    }
    free_if_done(l);
    ag_serving_end_soon(ag_container_of(sp, struct ag_serving, spread));
}

/* A listener outlives snapshots. */
static struct ag_networks *own_networks(const struct ag_networks *n)
{
    struct ag_networks *copy = n ? ag_networks_copy(n) : NULL;

    AG_ASSERT(copy || !n); /* a few hundred bytes, at a reload */
    return copy;
}

/* Its settings are the snapshot's that is in use now. */
static void set_relay(struct listener *l, const struct ag_serving_listen *from)
{
    ag_block_release(l->origin.relay_owner);
    l->origin.relay_owner = NULL;
    l->origin.relay = from->relay;
    if (from->relay) {
        l->origin.relay_owner = ag_block_hold(l->serving->ctx.snapshot_ref);
    }
}

static void open_listener(struct ag_serving *s, const struct ag_serving_listen *from)
{
    struct listener *l = calloc(1, sizeof(*l));

    AG_ASSERT(l); /* a few hundred bytes, at a reload */
    l->serving = s;
    l->socket_id = from->socket_id;
    l->origin.limits = from->limits;
    l->origin.port = from->port;
    l->origin.tls = ag_tls_server_hold(from->tls);
    l->admin = from->admin;
    l->origin.proxied = own_networks(from->proxied);
    set_relay(l, from);
    l->wanted = true;
    l->ls.user = l;
    ag_list_init(&l->link);
    ag_list_push(&s->listeners, &l->link);
    (*count_of(l))++;
    ag_listener_open(&l->ls, s->ctx.loop, from->fd, on_accepted);
    ag_listener_set_deferred(&l->ls, from->deferred);
    if (room_of(l) == 0) {
        ag_listener_pause(&l->ls);
    }
}

static void close_listener(struct listener *l)
{
    if (!l->ls.closing) {
        l->origin.draining = true;
        ag_listener_close(&l->ls, on_closed);
    }
}

/* Those who came to it and were not let in yet. */
static void drop_waiting(const struct listener *l)
{
    struct ag_serving *s = l->serving;

    for (uint32_t i = s->waiting_count; i-- > 0;) {
        if (s->waiting[i].from == l) {
            close_descriptor(s, take_waiting(s, i).fd);
        }
    }
}

/* An address that was a listener for all and is admin's now, or the reverse: who came before goes. */
static void set_admin(struct listener *l, bool admin)
{
    if (l->admin != admin) {
        drop_waiting(l); /* for another kind of service */
        ag_downstreams_drain(down_of(l), &l->origin);
        (*count_of(l))--;
        l->admin = admin;
        (*count_of(l))++;
    }
}

static void set_proxied(struct listener *l, const struct ag_networks *from)
{
    struct ag_networks *old = l->origin.proxied;

    l->origin.proxied = own_networks(from);
    free(old);
}

static void set_limits(struct listener *l, const struct ag_server_limits *from)
{
    bool shorter = from->idle_timeout_ms < l->origin.limits.idle_timeout_ms ||
                   from->header_timeout_ms < l->origin.limits.header_timeout_ms;

    l->origin.limits = *from;
    if (shorter) {
        ag_downstreams_hasten(down_of(l), &l->origin);
    }
}

/* All descriptors of a socket that the shard has already (there may be several) stay. */
static void keep_listeners(struct ag_serving *s, const struct ag_serving_listen *from)
{
    ag_list_foreach(it, &s->listeners) {
        struct listener *l = listener_of(it);

        if (l->socket_id == from->socket_id) {
            l->wanted = true;
            set_admin(l, from->admin);
            ag_listener_set_deferred(&l->ls, from->deferred);
            set_limits(l, &from->limits);
            l->origin.port = from->port;
            ag_tls_server_release(l->origin.tls);
            l->origin.tls = ag_tls_server_hold(from->tls);
            set_proxied(l, from->proxied);
            set_relay(l, from);
        }
    }
}

void ag_serving_listen_change(struct ag_serving *s, const struct ag_serving_change *c)
{
    struct ag_link *next;

    ag_list_foreach(it, &s->listeners) {
        listener_of(it)->wanted = false;
    }
    for (uint32_t i = 0; i < c->listen_count; i++) {
        if (c->listens[i].fd >= 0) {
            open_listener(s, &c->listens[i]);
        } else {
            keep_listeners(s, &c->listens[i]);
        }
    }
    for (struct ag_link *it = s->listeners.next; it != &s->listeners; it = next) {
        struct listener *l = listener_of(it);

        next = it->next;
        if (!l->wanted && !l->ls.closing) {
            l->origin.limits.index = AG_LIMITS_OF_NOBODY; /* another's now, or none's */
            close_listener(l);
            ag_downstreams_drain(down_of(l), &l->origin);
        }
    }
    serve_waiting(s); /* there may be more room now */
    settle_accept(s);
}

void ag_serving_listen_close(struct ag_serving *s, bool admin)
{
    struct ag_link *next;

    for (struct ag_link *it = s->listeners.next; it != &s->listeners; it = next) {
        next = it->next;
        if (listener_of(it)->admin == admin) {
            close_listener(listener_of(it));
        }
    }
}

bool ag_serving_waiting_cut(struct ag_serving *s)
{
    bool any = s->waiting_count > 0;

    while (s->waiting_count > 0) {
        struct ag_serving_waiting w = take_waiting(s, s->waiting_count - 1);

        close_descriptor(s, w.fd);
        free_if_done(w.from);
    }
    return any;
}

enum ag_status ag_serving_listen_open(struct ag_serving *s)
{
    ag_list_init(&s->listeners);
    s->waiting = calloc(AG_SERVING_WAITING, sizeof(*s->waiting));
    return s->waiting ? AG_OK : AG_ENOMEM;
}

void ag_serving_listen_drop(struct ag_serving *s)
{
    AG_ASSERT(ag_list_empty(&s->listeners));
    free(s->waiting);
}
