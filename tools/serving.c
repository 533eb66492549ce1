#include "tools/serving.h"

#include "actions/action.h"
#include "engine/helper.h"
#include "engine/resolver.h"
#include "tools/sockets.h"

#include <stdlib.h>
#include <unistd.h>

#define CLOSE_TURNS_MAX 200   /* of 10 ms: for cancelled operations to come home */
#define ADMIN_GRACE_MS  1000u /* for who has just asked when all else has ended */
#define RETIRE_AGAIN_MS 5000u /* for exchanges that could not do without their snapshot yet */

/* As many as may come at once, where accept is not sparing: what a listener's queue holds. */
#define CROWD ((uint32_t)AG_LISTEN_BACKLOG)

/* Accepted beyond the limit. */
struct waiting {
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

/* This shard's counted handle of a snapshot. */
struct ag_serving_use {
    struct ag_block block; /* context->snapshot_ref */
    struct ag_serving *serving;
    struct ag_snapshot *snapshot;
    struct ag_timer retire; /* after the swap to another one */
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

/* What others may read of this shard. */
static void tell_board(const struct ag_serving *s)
{
    struct ag_board_shard *b = s->board ? &s->board->each[s->ctx.shard_index] : NULL;

    if (b) {
        atomic_store_explicit(&b->connections, s->down.count, memory_order_relaxed);
        atomic_store_explicit(&b->serves, s->use && !s->draining, memory_order_relaxed);
    }
}

/* ---- snapshots ---- */

static void use_released(struct ag_block *b)
{
    struct ag_serving_use *use = ag_container_of(b, struct ag_serving_use, block);
    struct ag_serving *s = use->serving;
    struct ag_snapshot *snapshot = use->snapshot;

    if (ag_timer_armed(&use->retire)) {
        ag_timer_cancel(&s->ctx.loop->wheel, &use->retire);
    }
    free(use);
    s->let_go(s, snapshot);
}

/* What still runs by a snapshot of long ago is to do without it: tunnels and long transfers would keep
 * every snapshot of a config that is reloaded often. */
static void on_retire(struct ag_timer *t)
{
    struct ag_serving_use *use = ag_container_of(t, struct ag_serving_use, retire);
    struct ag_context *ctx = &use->serving->ctx;

    (void)ag_block_hold(&use->block);
    if (ag_context_retire(ctx, &use->block) > 0) {
        ag_loop_arm(ctx->loop, &use->retire, RETIRE_AGAIN_MS);
    }
    ag_block_release(&use->block);
}

struct ag_serving_change *ag_serving_change_new(struct ag_serving *s, struct ag_snapshot *snapshot,
                                                uint32_t listen_max)
{
    struct ag_serving_change *c =
        calloc(1, sizeof(*c) + listen_max * sizeof(struct ag_serving_listen));
    struct ag_serving_use *use = calloc(1, sizeof(*use));

    AG_ASSERT(c && use); /* small, and on the control thread */
    use->block = (struct ag_block){.refs = 1, .free = use_released, .fd = -1};
    use->serving = s;
    use->snapshot = snapshot;
    ag_timer_init(&use->retire, on_retire);
    c->serving = s;
    c->snapshot = snapshot;
    c->use = use;
    return c;
}

void ag_serving_change_drop(struct ag_serving_change *c)
{
    for (uint32_t i = 0; i < c->listen_count; i++) {
        if (c->listens[i].fd >= 0) {
            (void)close(c->listens[i].fd);
        }
    }
    ag_block_release(&c->use->block);
    free(c);
}

static void swap_snapshot(struct ag_serving *s, struct ag_serving_change *c)
{
    struct ag_serving_use *old = s->use;

    if (ag_resolver_configure(s->ctx.loop, &c->snapshot->model->resolver) != AG_OK) {
        ag_log(AG_LOG_ERROR, "server.resolver takes effect at a restart: it cannot be set up here");
    }
    s->use = c->use;
    s->ctx.snapshot = c->snapshot;
    s->ctx.snapshot_ref = &s->use->block;
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)kind);

        if (ops->shard_use) {
            ops->shard_use(&s->ctx, s->ctx.action_state[kind], c->snapshot->shared[kind]);
        }
    }
    s->admin.ctx.snapshot = c->snapshot;
    if (old) {
        ag_loop_arm(s->ctx.loop, &old->retire, s->drain_timeout_ms);
        ag_block_release(&old->block);
    }
    s->drain_timeout_ms = c->snapshot->model->drain_timeout_ms;
}

/* ---- the end ---- */

static void close_admin(struct ag_serving *s);

/* Admin is the last to go. */
static void end_if_idle(struct ag_task *t)
{
    struct ag_serving *s = ag_container_of(t, struct ag_serving, end_task);

    if (!s->draining || s->listening > 0 || s->spread.out > 0 || !ag_list_empty(&s->down.open)) {
        return;
    }
    if (s->admin_listening > 0 || !ag_list_empty(&s->admin.down.open)) {
        close_admin(s); /* and back here */
        return;
    }
    ag_timer_cancel(&s->ctx.loop->wheel, &s->drain_timer);
    s->ended(s);
}

static void end_soon(struct ag_serving *s)
{
    if (s->draining) {
        ag_task_queue(s->ctx.loop, &s->end_task);
    }
}

/* ---- listeners ---- */

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
    end_soon(s);
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

static struct waiting take_waiting(struct ag_serving *s, uint32_t at)
{
    struct waiting w = s->waiting[at];

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
            struct waiting w = take_waiting(s, i);

            AG_ASSERT(ag_downstream_accept(&s->down, w.fd, &w.from->origin));
            let_relay_go(w.from);
        } else {
            i++;
        }
    }
}

/* A connection has gone: room for one that waits, or for accept. */
static void on_changed(struct ag_downstreams *d, struct ag_downstream_origin *origin)
{
    struct ag_serving *s = ag_container_of(d, struct ag_serving, down);

    tell_board(s);
    free_if_done(ag_container_of(origin, struct listener, origin));
    serve_waiting(s);
    if (s->draining) {
        end_soon(s);
    } else {
        settle_accept(s);
    }
}

static void on_admin_changed(struct ag_downstreams *d, struct ag_downstream_origin *origin)
{
    struct ag_serving *s = ag_container_of(d, struct ag_serving, admin.down);

    free_if_done(ag_container_of(origin, struct listener, origin));
    if (s->draining) {
        end_soon(s);
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
    tell_board(s);
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
        s->waiting[s->waiting_count++] = (struct waiting){fd, l};
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
static bool take_passed(struct ag_spread *sp, uint32_t socket_id, int fd)
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

static void on_home(struct ag_spread *sp, void *origin, int fd)
{
    struct listener *l = origin;

    l->origin.connections--;
    l->waiting--;
    if (fd >= 0) {
        accept_here(l, fd);
    }
    free_if_done(l);
    end_soon(ag_container_of(sp, struct ag_serving, spread));
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

/* An address that was a listener for all and is admin's now, or the reverse: who came before goes. */
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

static void change_listeners(struct ag_serving *s, const struct ag_serving_change *c)
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
}

void ag_serving_apply(struct ag_serving *s, struct ag_serving_change *c)
{
    if (s->draining) { /* too late for it */
        ag_serving_change_drop(c);
        return;
    }
    swap_snapshot(s, c);
    change_listeners(s, c);
    serve_waiting(s); /* there may be more room now */
    settle_accept(s);
    tell_board(s);
    free(c);
}

/* ---- drain ---- */

static void cut_all(struct ag_serving *s)
{
    s->over = true;
    s->cut = s->cut || s->waiting_count > 0;
    while (s->waiting_count > 0) {
        struct waiting w = take_waiting(s, s->waiting_count - 1);

        close_descriptor(s, w.fd);
        free_if_done(w.from);
    }
    s->cut = !ag_downstreams_abort(&s->down) || s->cut;
    (void)ag_downstreams_abort(&s->admin.down);
}

static void on_drain_timeout(struct ag_timer *t)
{
    cut_all(ag_container_of(t, struct ag_serving, drain_timer));
}

static void close_listeners(struct ag_serving *s, bool admin)
{
    struct ag_link *next;

    for (struct ag_link *it = s->listeners.next; it != &s->listeners; it = next) {
        next = it->next;
        if (listener_of(it)->admin == admin) {
            close_listener(listener_of(it));
        }
    }
}

/* Who is in the queue of a listener is still answered; who says nothing does not keep the process. */
static void close_admin(struct ag_serving *s)
{
    if (s->admin_closing) {
        return;
    }
    s->admin_closing = true;
    close_listeners(s, true);
    ag_downstreams_drain(&s->admin.down, NULL);
    ag_loop_arm(s->ctx.loop, &s->drain_timer, ADMIN_GRACE_MS);
}

static void begin_drain(struct ag_serving *s)
{
    if (s->draining) {
        return;
    }
    s->draining = true;
    tell_board(s);
    close_listeners(s, false);
    ag_loop_arm(s->ctx.loop, &s->drain_timer, s->drain_timeout_ms);
    end_soon(s);
}

void ag_serving_drain(struct ag_serving *s)
{
    begin_drain(s);
    ag_downstreams_drain(&s->down, NULL);
}

void ag_serving_yield(struct ag_serving *s)
{
    begin_drain(s);
    close_listeners(s, true);
    ag_downstreams_yield(&s->down);
    ag_downstreams_yield(&s->admin.down);
}

void ag_serving_abort(struct ag_serving *s)
{
    ag_serving_drain(s);
    cut_all(s);
}

/* ---- open and close ---- */

static enum ag_status open_actions(struct ag_serving *s)
{
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)kind);

        s->ctx.action_common[kind] = s->commons->v[kind];
        if (ops->shard_open) {
            enum ag_status st = ops->shard_open(&s->ctx, &s->ctx.action_state[kind]);

            if (st != AG_OK) {
                return st;
            }
        }
    }
    return AG_OK;
}

static void close_actions(struct ag_serving *s)
{
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)kind);

        if (ops->shard_close && s->ctx.action_state[kind]) {
            ops->shard_close(&s->ctx, s->ctx.action_state[kind]);
            s->ctx.action_state[kind] = NULL;
        }
    }
}

enum ag_status ag_serving_open(struct ag_serving *s, struct ag_loop *l, uint32_t index,
                               uint32_t shard_count, uint32_t connection_max)
{
    enum ag_status st;

    s->ctx = (struct ag_context){
        .loop = l, .pipeline = &ag_dispatch, .shard_count = shard_count, .shard_index = index};
    ag_list_init(&s->listeners);
    ag_timer_init(&s->drain_timer, on_drain_timeout);
    ag_task_init(&s->end_task, end_if_idle);
    s->waiting = calloc(AG_SERVING_WAITING, sizeof(*s->waiting));
    if (!s->waiting) {
        return AG_ENOMEM;
    }
    st = ag_downstreams_init(&s->down, &s->ctx, connection_max);
    if (st != AG_OK) {
        goto free_waiting;
    }
    s->down.changed = on_changed;
    s->spread.index = index;
    s->spread.board = s->board;
    s->spread.take = take_passed;
    s->spread.home = on_home;
    ag_spread_open(&s->spread);
    if (s->board) {
        atomic_store_explicit(&s->board->each[index].spread, &s->spread, memory_order_release);
    }
    st = ag_admin_init(&s->admin, s, on_admin_changed);
    if (st != AG_OK) {
        goto free_downstreams;
    }
    st = ag_resolver_init(l);
    if (st != AG_OK) {
        goto free_admin;
    }
    if (s->resolver) {
        st = ag_resolver_configure(l, s->resolver);
        if (st != AG_OK) {
            goto close_resolver;
        }
    }
    st = open_actions(s);
    if (st == AG_OK) {
        return AG_OK;
    }
    close_actions(s);
close_resolver:
    ag_resolver_deinit(l);
free_admin:
    ag_admin_deinit(&s->admin);
free_downstreams:
    ag_downstreams_deinit(&s->down);
free_waiting:
    free(s->waiting);
    return st;
}

void ag_serving_close(struct ag_serving *s)
{
    struct ag_loop *l = s->ctx.loop;

    close_actions(s);
    for (int i = 0; i < CLOSE_TURNS_MAX && s->ctx.exchanges_live + s->admin.ctx.exchanges_live > 0;
         i++) {
        /* What a helper is at takes its time (a slow disk), and holds its exchange until it is done. */
        if (l->helpers) {
            ag_helpers_settle(l->helpers);
        }
        ag_loop_turn(l, 10);
    }
    ag_admin_deinit(&s->admin);
    ag_downstreams_deinit(&s->down);
    ag_resolver_deinit(l);
    AG_ASSERT(ag_list_empty(&s->listeners));
    free(s->waiting);
    if (s->use) {
        ag_block_release(&s->use->block);
    }
}
