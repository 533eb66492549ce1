#include "router/compile.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- groups and routes ---- */

void ag_compile_tls_keys(struct ag_compile *c, const struct ag_node *owner,
                         struct ag_compile_tls *out)
{
    *out = (struct ag_compile_tls){.client_cert = AG_CLIENT_CERT_UNSAID};
    (void)ag_model_client_cert(owner, c->diags, &out->client_cert);
    out->has_hsts = ag_model_hsts(owner, c->diags, &out->hsts);
}

static void apply(const struct ag_compile_tls *tls, struct ag_route *r)
{
    if (tls->client_cert != AG_CLIENT_CERT_UNSAID) {
        r->client_cert = tls->client_cert;
    }
    if (tls->has_hsts) {
        r->hsts = tls->hsts;
    }
}

void ag_compile_tls_route(const struct ag_compile *c, const struct ag_compile_set *set,
                          const struct ag_compile_own *own, struct ag_route *r)
{
    r->client_cert = AG_CLIENT_CERT_UNSAID;
    r->hsts = c->model->hsts;
    for (uint32_t i = 0; i < set->count; i++) {
        apply(&c->groups[set->groups[i]].tls, r);
    }
    apply(&own->tls, r);
}

/* ---- hosts ---- */

struct hosts {
    struct ag_span *v;
    uint32_t count, cap;
};

static bool wants_cert(const struct ag_route *r)
{
    return r->client_cert >= AG_CLIENT_CERT_OPTIONAL;
}

static bool reaches(const struct ag_route *r, const struct ag_listen *l)
{
    return r->match.port == 0 || r->match.port == l->port;
}

static void add_host(struct hosts *h, struct ag_span host)
{
    for (uint32_t i = 0; i < h->count; i++) {
        if (ag_span_eq(h->v[i], host)) {
            return;
        }
    }
    h->v = ag_compile_grow(h->v, h->count, &h->cap, sizeof(*h->v));
    h->v[h->count++] = host;
}

/* Into the arena. */
static struct ag_tls_hosts keep_hosts(struct ag_compile *c, struct hosts *h)
{
    struct ag_span *v = ag_arena_alloc(c->arena, (h->count + 1u) * sizeof(*v));

    if (h->count) {
        memcpy(v, h->v, h->count * sizeof(*v));
    }
    free(h->v);
    return (struct ag_tls_hosts){v, h->count};
}

/* Of the routes that `l` reaches (NULL: any listener). */
static struct ag_tls_hosts cert_hosts(struct ag_compile *c, const struct ag_listen *l)
{
    struct hosts h = {0};

    for (uint32_t i = 0; i < c->route_count; i++) {
        if (wants_cert(&c->routes[i]) && (!l || reaches(&c->routes[i], l))) {
            add_host(&h, c->routes[i].match.host);
        }
    }
    return keep_hosts(c, &h);
}

/* ---- the key of settings ---- */

static void hash_bytes(XXH3_state_t *state, const void *bytes, size_t len)
{
    uint64_t wide = len;

    /* The length goes in too, so that neighbouring texts cannot trade bytes. */
    (void)XXH3_128bits_update(state, &wide, sizeof(wide));
    (void)XXH3_128bits_update(state, bytes, len);
}

static void set_key(struct ag_tls_server_settings *s)
{
    const uint32_t numbers[] = {
        s->profile,      s->identity_count, s->strict_sni,    s->h2,
        s->tickets,      s->stapling,       s->client_auth,   s->client_depth,
        s->handshake_ms, s->session_cache,  s->ask_name_count};
    XXH3_state_t *state = XXH3_createState();
    XXH128_canonical_t canonical;

    _Static_assert(sizeof(canonical) == sizeof(s->key), "one fills the other");
    AG_ASSERT(state);
    (void)XXH3_128bits_reset(state);
    hash_bytes(state, numbers, sizeof(numbers));
    for (uint32_t i = 0; i < s->identity_count; i++) {
        hash_bytes(state, s->identities[i]->sha256, sizeof(s->identities[i]->sha256));
        hash_bytes(state, s->identities[i]->chain_pem.ptr, s->identities[i]->chain_pem.len);
    }
    hash_bytes(state, s->client_ca.ptr, s->client_ca.len);
    for (uint32_t i = 0; i < s->ask_name_count; i++) {
        hash_bytes(state, s->ask_names[i].ptr, s->ask_names[i].len);
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    memcpy(s->key, &canonical, sizeof(s->key));
    (void)XXH3_freeState(state);
}

/* ---- listeners ---- */

static bool can_ask(const struct ag_compile *c, const struct ag_route *r)
{
    for (uint16_t i = 0; i < c->model->listen_count; i++) {
        const struct ag_listen *l = &c->model->listens[i];

        if (l->tls && l->tls->client_auth != AG_TLS_CLIENTS_UNASKED && reaches(r, l)) {
            return true;
        }
    }
    return false;
}

/* Nobody could ever show one there: better told than refused one by one. The first such route is told. */
static void check_askable(struct ag_compile *c)
{
    for (uint32_t i = 0; i < c->route_count; i++) {
        const struct ag_route *r = &c->routes[i];

        if (wants_cert(r) && !can_ask(c, r)) {
            ag_diag_error(c->diags, r->pattern.pos,
                          "tls: {client_auth: {ca: FILE, mode: routes}}, there or at the listener",
                          "the route \"%.*s\" wants client certificates, but no listener of it "
                          "with TLS asks for any",
                          (int)ag_min_size(r->pattern.text.len, 80),
                          (const char *)r->pattern.text.ptr);
            return;
        }
    }
}

void ag_compile_tls_listeners(struct ag_compile *c, struct ag_tls_hosts *out)
{
    *out = cert_hosts(c, NULL);
    check_askable(c);
    for (uint16_t i = 0; i < c->model->listen_count; i++) {
        struct ag_listen *l = &c->model->listens[i];

        if (!l->tls || (i > 0 && l->tls == c->model->listens[i - 1].tls)) {
            continue;
        }
        if (l->tls->client_auth == AG_TLS_CLIENTS_BY_NAME) {
            struct ag_tls_hosts names = cert_hosts(c, l);

            l->tls->ask_names = names.v;
            l->tls->ask_name_count = names.count;
        }
        set_key(l->tls);
    }
}
