#include "router/compile.h"
#include "router/explain_text.h"

/* Routes with parameters that are compared pairwise; beyond that the check would take too long. */
#define CROSS_MAX 1500u

static uint32_t methods_of(const struct ag_route *r)
{
    bool named = r->pattern.methods || r->pattern.other_count;
    uint32_t methods = named ? r->pattern.methods : r->action.ops->default_methods;

    if (!named && !methods) {
        return UINT32_MAX;
    }
    return methods & 1u << AG_METHOD_GET ? methods | 1u << AG_METHOD_HEAD : methods;
}

static bool is_named(const struct ag_route *r)
{
    return r->pattern.methods || r->pattern.other_count;
}

/* The methods for which `a` goes before `b` where both are at one pattern. */
static uint32_t goes_first(const struct ag_route *a, const struct ag_route *b)
{
    const uint32_t head = 1u << AG_METHOD_HEAD;
    bool first = is_named(a) != is_named(b) ? is_named(a) : a->id < b->id;
    uint32_t methods = first ? UINT32_MAX : 0;

    /* Who names HEAD has it before whom GET implies it. */
    if ((a->pattern.methods & head) != (b->pattern.methods & head)) {
        methods = a->pattern.methods & head ? methods | head : methods & ~head;
    }
    return methods;
}

static void warn_ports(const struct ag_snapshot *s, const struct ag_route *r,
                       struct ag_diags *diags)
{
    if (r->pattern.port == 0) {
        return;
    }
    for (uint16_t i = 0; i < s->model->listen_count; i++) {
        if (!s->model->listens[i].admin && s->model->listens[i].port == r->pattern.port) {
            return;
        }
    }
    ag_diag_warn(diags, r->pattern.pos, "add it to server.listen",
                 "no listener has port %u: the route cannot be reached", r->pattern.port);
}

/* A request that is built from a pattern: each parameter a value that no literal has. */
static struct ag_trie_query sample(struct ag_arena *arena, const struct ag_route *r)
{
    const struct ag_pattern *p = &r->match;
    struct ag_trie_query q = {.host = p->host, .port = p->port, .method = AG_METHOD_GET};
    size_t cap = 1;
    struct ag_buf b;

    for (uint16_t i = 0; i < p->count; i++) {
        cap += p->segments[i].text.len + 4;
    }
    b = ag_buf(ag_arena_alloc(arena, cap), cap);
    for (uint16_t i = 0; i < p->count; i++) {
        ag_buf_putc(&b, '/');
        ag_buf_put(&b, p->segments[i].kind == AG_SEG_EXACT ? p->segments[i].text : AG_SPAN("\x01"));
    }
    if (p->host.len && p->host.ptr[0] == '*') {
        uint8_t *host = ag_arena_alloc(arena, p->host.len);

        memcpy(host, p->host.ptr, p->host.len);
        host[0] = 'w';
        q.host = ag_span(host, p->host.len);
    }
    q.path = ag_buf_span(&b);
    return q;
}

/* Looks for routes at the very same pattern that take all that `route` takes. */
struct shadow {
    const struct ag_snapshot *s;
    const struct ag_route *route, *by;
    uint32_t left;
};

static void cover(void *arg, uint32_t id, uint32_t methods)
{
    struct shadow *sh = arg;
    const struct ag_route *r = &sh->s->routes[id];
    uint32_t taken = methods_of(r) & goes_first(r, sh->route);

    (void)methods;
    if (r == sh->route || r->split_of == sh->route->id ||
        !ag_pattern_same(&r->match, &sh->route->match)) {
        return;
    }
    if (sh->left & taken) {
        sh->by = r;
    }
    sh->left &= ~taken;
}

static void warn_shadow(const struct ag_snapshot *s, const struct ag_route *r,
                        struct ag_diags *diags)
{
    struct ag_arena arena;
    struct shadow sh = {s, r, NULL, methods_of(r)};
    struct ag_trie_query q;

    if (r->pattern.other_count) {
        return;
    }
    ag_arena_init(&arena, NULL, 0);
    q = sample(&arena, r);
    ag_trie_each(s->trie, &q, cover, &sh);
    if (sh.by && sh.left == 0) {
        ag_diag_warn(diags, r->pattern.pos, "remove it, or give it methods of its own",
                     "the route \"%.*s\" is never used: \"%.*s\" at line %u takes all it would",
                     (int)r->pattern.text.len, (const char *)r->pattern.text.ptr,
                     (int)sh.by->pattern.text.len, (const char *)sh.by->pattern.text.ptr,
                     sh.by->pattern.pos.line);
    } else if (sh.by && !is_named(sh.by)) {
        ag_diag_warn(diags, r->pattern.pos, "name methods to make it clear",
                     "the route \"%.*s\" serves only what \"%.*s\" at line %u leaves",
                     (int)r->pattern.text.len, (const char *)r->pattern.text.ptr,
                     (int)sh.by->pattern.text.len, (const char *)sh.by->pattern.text.ptr,
                     sh.by->pattern.pos.line);
    }
    ag_arena_release(&arena);
}

/* Neither lies within the other, so people may be surprised by which one wins: "/:a/x" and "/y/:b". */
static bool crosses(const struct ag_route *a, const struct ag_route *b)
{
    struct ag_segment segments[AG_SEGMENTS_MAX];
    struct ag_pattern both;

    return (methods_of(a) & methods_of(b)) != 0 &&
           ag_pattern_meet(&a->match, &b->match, segments, &both) &&
           !ag_pattern_same(&both, &a->match) && !ag_pattern_same(&both, &b->match) &&
           ag_span_eq(a->match.host, b->match.host) && a->match.port == b->match.port;
}

static void warn_crossing(const struct ag_route *a, const struct ag_route *b,
                          struct ag_diags *diags)
{
    const struct ag_route *first = a;

    for (uint16_t i = 0; i < a->match.count && i < b->match.count; i++) {
        if (a->match.segments[i].kind != b->match.segments[i].kind) {
            first = a->match.segments[i].kind < b->match.segments[i].kind ? a : b;
            break;
        }
    }
    ag_diag_warn(diags, b->pattern.pos, "add a route for what they share to make it clear",
                 "\"%.*s\" and \"%.*s\" at line %u overlap: \"%.*s\" goes first",
                 (int)b->pattern.text.len, (const char *)b->pattern.text.ptr,
                 (int)a->pattern.text.len, (const char *)a->pattern.text.ptr, a->pattern.pos.line,
                 (int)first->pattern.text.len, (const char *)first->pattern.text.ptr);
}

static void warn_crossings(const struct ag_snapshot *s, struct ag_diags *diags)
{
    uint32_t *v = calloc(CROSS_MAX, sizeof(*v));
    uint32_t count = 0;

    AG_ASSERT(v);
    for (uint32_t i = 0; i < s->declared_count && count < CROSS_MAX; i++) {
        if (s->routes[i].match.param_count) {
            v[count++] = i;
        }
    }
    for (uint32_t i = 0; i < count && count < CROSS_MAX; i++) {
        for (uint32_t k = 0; k < i; k++) {
            const struct ag_route *a = &s->routes[v[k]], *b = &s->routes[v[i]];

            if (crosses(a, b)) {
                warn_crossing(a, b, diags);
            }
        }
    }
    free(v);
}

static void examine_sections(const struct ag_snapshot *s, struct ag_diags *diags)
{
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)kind);

        if (ops->examine) {
            ops->examine(s->shared[kind], diags);
        }
    }
}

void ag_explain_warnings(const struct ag_snapshot *s, struct ag_diags *diags)
{
    examine_sections(s, diags);
    ag_explain_tls_warnings(s, diags);
    for (uint32_t i = 0; i < s->declared_count; i++) {
        warn_ports(s, &s->routes[i], diags);
        warn_shadow(s, &s->routes[i], diags);
    }
    warn_crossings(s, diags);
}
