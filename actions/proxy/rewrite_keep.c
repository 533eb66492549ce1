/* Requests that live on without their snapshot (exchange.h): what their answers need is copied. */
#include "actions/proxy/rewrite_answer.h"

static bool keep(struct ag_arena *arena, struct ag_span *io)
{
    *io = ag_arena_copy(arena, *io);
    return io->ptr != NULL;
}

static bool keep_maps(struct ag_arena *arena, struct ag_rewrite_maps *io)
{
    struct ag_rewrite_map *v;

    if (io->count == 0) {
        return true;
    }
    v = ag_arena_alloc(arena, io->count * sizeof(*v));
    if (!v) {
        return false;
    }
    for (uint16_t i = 0; i < io->count; i++) {
        v[i] = io->v[i];
        v[i].to = io->v[i].to ? ag_vars_copy(arena, io->v[i].to) : NULL;
        if (!keep(arena, &v[i].from) || (io->v[i].to && !v[i].to)) {
            return false;
        }
    }
    io->v = v;
    return true;
}

static bool keep_redirects(struct ag_arena *arena, const struct ag_rewrite_redirects **io)
{
    struct ag_rewrite_redirects *copy;

    if (!*io) {
        return true;
    }
    copy = ag_arena_alloc(arena, sizeof(*copy));
    if (!copy) {
        return false;
    }
    *copy = **io;
    *io = copy;
    return keep_maps(arena, &copy->maps);
}

static bool keep_cookies(struct ag_arena *arena, const struct ag_rewrite_cookies **io)
{
    struct ag_rewrite_cookies *copy;

    if (!*io) {
        return true;
    }
    copy = ag_arena_alloc(arena, sizeof(*copy));
    if (!copy) {
        return false;
    }
    *copy = **io;
    *io = copy;
    return keep_maps(arena, &copy->domains) && keep_maps(arena, &copy->paths) &&
           keep(arena, &copy->same_site_value);
}

const struct ag_rewrite_kept *ag_rewrite_keep(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                              const struct ag_rewrite_peer *peer)
{
    struct ag_rewrite_kept *k = ag_arena_alloc(&ex->arena, sizeof(*k));

    if (!k || ag_rewrite_find_paths(rw, ex, peer->target, &k->paths) != AG_OK) {
        return NULL;
    }
    k->rw = (struct ag_rewrite){.redirects = rw->redirects, .cookies = rw->cookies};
    k->peer = *peer;
    k->peer.target = NULL;
    k->peer.paths = &k->paths;
    for (unsigned i = 0; i < AG_COUNT(k->peer.own); i++) {
        if (!keep(&ex->arena, &k->peer.own[i])) {
            return NULL;
        }
    }
    return keep(&ex->arena, &k->paths.outer) && keep(&ex->arena, &k->paths.inner) &&
                   keep_redirects(&ex->arena, &k->rw.redirects) &&
                   keep_cookies(&ex->arena, &k->rw.cookies)
               ? k
               : NULL;
}
