#include "tools/serving_parts.h"

#include "actions/action.h"
#include "engine/helper.h"
#include "engine/resolver.h"

#include <stdlib.h>
#include <unistd.h>

#define CLOSE_TURNS_MAX 200   /* of 10 ms: for cancelled operations to come home */
#define ADMIN_GRACE_MS  1000u /* for who has just asked when all else has ended */
#define RETIRE_AGAIN_MS 5000u /* for exchanges that could not do without their snapshot yet */

/* This shard's counted handle of a snapshot. */
struct ag_serving_use {
    struct ag_block block; /* context->snapshot_ref */
    struct ag_serving *serving;
    struct ag_snapshot *snapshot;
    struct ag_timer retire; /* after the swap to another one */
};

void ag_serving_tell_board(const struct ag_serving *s)
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

void ag_serving_end_soon(struct ag_serving *s)
{
    if (s->draining) {
        ag_task_queue(s->ctx.loop, &s->end_task);
    }
}

void ag_serving_apply(struct ag_serving *s, struct ag_serving_change *c)
{
    if (s->draining) { /* too late for it */
        ag_serving_change_drop(c);
        return;
    }
    swap_snapshot(s, c);
    ag_serving_listen_change(s, c);
    ag_serving_tell_board(s);
    free(c);
}

/* ---- drain ---- */

static void cut_all(struct ag_serving *s)
{
    s->over = true;
    s->cut = ag_serving_waiting_cut(s) || s->cut;
    s->cut = !ag_downstreams_abort(&s->down) || s->cut;
    (void)ag_downstreams_abort(&s->admin.down);
}

static void on_drain_timeout(struct ag_timer *t)
{
    cut_all(ag_container_of(t, struct ag_serving, drain_timer));
}

/* Who is in the queue of a listener is still answered; who says nothing does not keep the process. */
static void close_admin(struct ag_serving *s)
{
    if (s->admin_closing) {
        return;
    }
    s->admin_closing = true;
    ag_serving_listen_close(s, true);
    ag_downstreams_drain(&s->admin.down, NULL);
    ag_loop_arm(s->ctx.loop, &s->drain_timer, ADMIN_GRACE_MS);
}

static void begin_drain(struct ag_serving *s)
{
    if (s->draining) {
        return;
    }
    s->draining = true;
    ag_serving_tell_board(s);
    ag_serving_listen_close(s, false);
    ag_loop_arm(s->ctx.loop, &s->drain_timer, s->drain_timeout_ms);
    ag_serving_end_soon(s);
}

void ag_serving_drain(struct ag_serving *s)
{
    begin_drain(s);
    ag_downstreams_drain(&s->down, NULL);
}

void ag_serving_yield(struct ag_serving *s)
{
    begin_drain(s);
    ag_serving_listen_close(s, true);
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
    ag_timer_init(&s->drain_timer, on_drain_timeout);
    ag_task_init(&s->end_task, end_if_idle);
    st = ag_serving_listen_open(s);
    if (st != AG_OK) {
        return st;
    }
    st = ag_downstreams_init(&s->down, &s->ctx, connection_max);
    if (st != AG_OK) {
        goto close_listen;
    }
    s->down.changed = ag_serving_changed;
    s->spread.index = index;
    s->spread.board = s->board;
    s->spread.take = ag_serving_take_passed;
    s->spread.home = ag_serving_home;
    ag_spread_open(&s->spread);
    if (s->board) {
        atomic_store_explicit(&s->board->each[index].spread, &s->spread, memory_order_release);
    }
    st = ag_admin_init(&s->admin, s, ag_serving_admin_changed);
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
close_listen:
    ag_serving_listen_drop(s);
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
    ag_serving_listen_drop(s);
    if (s->use) {
        ag_block_release(&s->use->block);
    }
}
