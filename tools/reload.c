/*
 * The old snapshot serves until the new one is whole: loaded without a mistake, its sockets bound. A
 * shard swaps between two turns of its loop.
 */
#include "actions/proxy/relay_config.h"
#include "tools/server_parts.h"

#include <stdio.h>

/* ---- freeing ---- */

/* Freeing a large snapshot takes a while: the control thread does it. */
void ag_server_let_go(struct ag_serving *serving, struct ag_snapshot *snapshot)
{
    struct ag_server_shard *shard = serving->owner;
    struct ag_server *s = shard->server;

    if (atomic_fetch_sub(&snapshot->users, 1) != 1) {
        return;
    }
    struct ag_server_dead *d = malloc(sizeof(*d)), *head = atomic_load(&s->dead);
    AG_ASSERT(d); /* 16 bytes, once a reload */
    d->snapshot = snapshot;
    do {
        d->next = head;
    } while (!atomic_compare_exchange_weak(&s->dead, &head, d));
    ag_server_wake(s);
}

void ag_server_reclaim(struct ag_server *s)
{
    struct ag_server_dead *d = atomic_exchange(&s->dead, NULL);

    while (d) {
        struct ag_server_dead *next = d->next;

        ag_snapshot_free(d->snapshot);
        free(d);
        d = next;
    }
}

/* ---- publishing ---- */

static void apply(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_serving_change *c = ag_container_of(m, struct ag_serving_change, msg);
    struct ag_server_shard *shard = c->serving->owner;

    (void)l;
    ag_serving_apply(c->serving, c);
    if (atomic_fetch_sub(&shard->server->changing, 1) == 1) {
        ag_server_wake(shard->server);
    }
}

/* The snapshot's listener `index`, by one descriptor of its socket. */
static void add_listen(struct ag_serving_change *c, const struct ag_socket *k, uint16_t index,
                       int fd)
{
    const struct ag_listen *from = &c->snapshot->model->listens[index];
    const struct ag_relay_settings *relay =
        from->tcp ? ag_relay_settings_of(c->snapshot->shared[AG_ACTION_PROXY], from->tcp - 1)
                  : NULL;

    c->listens[c->listen_count++] = (struct ag_serving_listen){.socket_id = k->id,
                                                               .fd = fd,
                                                               .port = from->port,
                                                               .admin = from->admin,
                                                               .deferred = from->deferred,
                                                               .limits = from->limits,
                                                               .relay = relay,
                                                               .proxied = ag_listen_proxied(from),
                                                               .tls = c->snapshot->tls[index]};
}

/* What shard `index` is to listen on: of a new socket every shard_count'th descriptor. */
static struct ag_serving_change *make_change(struct ag_server *s, uint32_t index)
{
    const struct ag_model *m = s->snapshot->model;
    uint32_t room = m->listen_count;

    for (uint32_t i = 0; i < s->sockets.count; i++) {
        room += s->sockets.items[i].fd_count / s->sizing.shards + 1;
    }
    struct ag_serving_change *c = ag_serving_change_new(&s->each[index].serving, s->snapshot, room);
    c->msg.run = apply;
    for (uint16_t i = 0; i < m->listen_count; i++) {
        const struct ag_socket *k = ag_sockets_find(&s->sockets, &m->listens[i].addr);

        AG_ASSERT(k); /* the plan has it */
        if (!k->fresh) {
            add_listen(c, k, i, -1);
            continue;
        }
        for (uint32_t f = index; f < k->fd_count; f += s->sizing.shards) {
            add_listen(c, k, i, k->fds[f]);
        }
    }
    return c;
}

void ag_server_publish(struct ag_server *s)
{
    ag_stapling_follow(&s->stapling, s->snapshot);
    atomic_store(&s->snapshot->users, s->sizing.shards);
    atomic_store(&s->changing, s->sizing.shards);
    for (uint32_t i = 0; i < s->sizing.shards; i++) {
        struct ag_serving_change *c = make_change(s, i);

        if (!ag_server_post(s, i, &c->msg)) {
            ag_serving_change_drop(c); /* it has ended */
            atomic_fetch_sub(&s->changing, 1);
        }
    }
    ag_sockets_commit(&s->sockets);
}

/* ---- reload ---- */

bool ag_server_bind(struct ag_server *s)
{
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (ag_sockets_plan(&s->sockets, s->snapshot->model, &why) == AG_OK) {
        return true;
    }
    (void)fprintf(stderr, "anygate: error: %.*s\n", (int)why.len, text);
    return false;
}

/* What is set up once a process, as it was then. */
struct ag_server_fixed {
    uint32_t workers;
    enum ag_backend_kind backend;
    uint64_t max_connections;
    struct ag_memory memory;
    enum ag_log_format log_format;
    enum ag_confine seccomp;
    char *user, *chroot, *pid_file; /* NULL: none */
};

static char *copy_of(const char *text)
{
    char *copy;

    if (!text) {
        return NULL;
    }
    copy = strdup(text);
    AG_ASSERT(copy); /* a start */
    return copy;
}

struct ag_server_fixed *ag_server_fixed_new(const struct ag_model *m)
{
    struct ag_server_fixed *f = malloc(sizeof(*f));

    AG_ASSERT(f); /* a start */
    *f = (struct ag_server_fixed){.workers = m->workers,
                                  .backend = m->backend,
                                  .max_connections = m->max_connections,
                                  .memory = m->memory,
                                  .log_format = m->log_format,
                                  .seccomp = m->seccomp,
                                  .user = copy_of(m->user),
                                  .chroot = copy_of(m->chroot),
                                  .pid_file = copy_of(m->pid_file)};
    return f;
}

void ag_server_fixed_free(struct ag_server_fixed *f)
{
    free(f->user);
    free(f->chroot);
    free(f->pid_file);
    free(f);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* A reload cannot change what is set up once, and says so as long as it differs. Their keys, kept where what has
 * changed them is. */
static struct ag_span note_fixed(const struct ag_server_fixed *was, struct ag_snapshot *changed)
{
    const struct ag_model *is = changed->model;
    const struct {
        const char *key;
        bool differs;
    } fixed[] = {
        {"server.workers", was->workers != is->workers},
        {"server.backend", was->backend != is->backend},
        {"server.max_connections", was->max_connections != is->max_connections},
        {"server.memory", was->memory.small_buffers != is->memory.small_buffers ||
                              was->memory.large_buffers != is->memory.large_buffers ||
                              was->memory.pages != is->memory.pages},
        {"server.log.format", was->log_format != is->log_format},
        {"server.user", !same_text(was->user, is->user)},
        {"server.chroot", !same_text(was->chroot, is->chroot)},
        {"server.seccomp", was->seccomp != is->seccomp},
        {"server.pid_file", !same_text(was->pid_file, is->pid_file)},
    };
    char text[192];
    struct ag_buf keys = ag_buf(text, sizeof(text));

    for (size_t i = 0; i < AG_COUNT(fixed); i++) {
        if (fixed[i].differs) {
            ag_log(AG_LOG_WARN, "reload: %s has changed, which takes effect at a restart",
                   fixed[i].key);
            ag_buf_printf(&keys, "%s%s", keys.len ? ", " : "", fixed[i].key);
        }
    }
    AG_ASSERT(!keys.overflow);
    return ag_arena_copy(&changed->arena, ag_span(text, keys.len));
}

void ag_server_open_tls(struct ag_server *s, struct ag_load *load)
{
    struct ag_tickets *t = &s->material.tickets;

    /* Without a ring nothing is resumed, which ag_material_follow tells. */
    ag_load_open_tls(load, s->sizing.shards,
                     load->snapshot && ag_tickets_prepare(t, load->snapshot->model) ? t->ring
                                                                                    : NULL);
}

void ag_server_switch(struct ag_server *s, struct ag_load *load)
{
    s->fixed = note_fixed(s->began, load->snapshot);
    ag_lifecycle_reload_lacks(&s->life, s->fixed);
    ag_log_set_level(load->snapshot->model->log_level);
    s->snapshot = load->snapshot;
    load->snapshot = NULL;
    ag_load_release(load);
    if (!s->worker) { /* whose master does that */
        ag_material_follow(&s->material, s->snapshot);
    }
    ag_server_publish(s);
}

void ag_server_tell_reloaded(const struct ag_server *s)
{
    ag_log(AG_LOG_INFO, "reloaded: %u route%s", s->snapshot->route_count,
           s->snapshot->route_count == 1 ? "" : "s");
}

void ag_server_reload(struct ag_server *s)
{
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));
    struct ag_load load;

    /* Not by the shards alone: that the first configuration is served, or the one before, has to be told
     * before the next is begun, or it is taken for that. */
    if (atomic_load(&s->changing) > 0 || !s->life.is_up || s->life.reloading) {
        s->reload_asked = true; /* settle comes back to it */
        return;
    }
    s->reload_asked = false;
    if (!ag_lifecycle_reload_begins(&s->life)) {
        return;
    }
    ag_load_config(&load, s->input);
    ag_server_open_tls(s, &load);
    ag_lifecycle_print(&s->life, &load);
    if (!load.snapshot) {
        ag_buf_printf(&why, "%u error%s", load.diags.errors, load.diags.errors == 1 ? "" : "s");
        ag_lifecycle_reload_refused(&s->life, ag_buf_span(&why));
        ag_load_release(&load);
        return;
    }
    if (ag_sockets_plan(&s->sockets, load.snapshot->model, &why) != AG_OK) {
        ag_lifecycle_reload_refused(&s->life, ag_buf_span(&why));
        ag_load_release(&load);
        return;
    }
    ag_server_switch(s, &load);
}
