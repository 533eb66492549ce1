#include "proto/uri.h"
#include "router/explain_text.h"

#define CELL_MAX   512u
#define NEAR_MAX   8u
#define SCORE_PATH 1000u /* of a route whose whole path matches */

/* ---- the tree ---- */

static int compare_hosts(const struct ag_pattern *a, const struct ag_pattern *b)
{
    size_t n = ag_min_size(a->host.len, b->host.len);
    int d = n ? memcmp(a->host.ptr, b->host.ptr, n) : 0;

    if (d == 0 && a->host.len != b->host.len) {
        d = a->host.len < b->host.len ? -1 : 1;
    }
    return d ? d : (int)a->port - (int)b->port;
}

/* In the order in which a request would try them: literal, parameter, splat. */
static int compare_paths(const struct ag_pattern *a, const struct ag_pattern *b)
{
    for (uint16_t i = 0; i < a->count && i < b->count; i++) {
        const struct ag_segment *x = &a->segments[i], *y = &b->segments[i];
        size_t n = ag_min_size(x->text.len, y->text.len);
        int d = (int)x->kind - (int)y->kind;

        if (d == 0 && x->kind == AG_SEG_EXACT) {
            d = n ? memcmp(x->text.ptr, y->text.ptr, n) : 0;
            if (d == 0 && x->text.len != y->text.len) {
                d = x->text.len < y->text.len ? -1 : 1;
            }
        }
        if (d) {
            return d;
        }
    }
    return (int)a->count - (int)b->count;
}

struct row {
    const struct ag_route *route;
};

static int compare_rows(const void *a, const void *b)
{
    const struct ag_route *x = ((const struct row *)a)->route;
    const struct ag_route *y = ((const struct row *)b)->route;
    int d = compare_hosts(&x->pattern, &y->pattern);

    if (d == 0) {
        d = compare_paths(&x->pattern, &y->pattern);
    }
    return d ? d : (x->id < y->id ? -1 : x->id > y->id);
}

/* Widths of the columns, bounded, so that one long line does not push all others apart. */
struct widths {
    size_t methods, pattern, action;
};

static size_t widen(size_t width, size_t len, size_t max)
{
    return len > width ? ag_min_size(len, max) : width;
}

static struct widths measure(const struct ag_snapshot *s)
{
    struct widths w = {3, 4, 4};

    for (uint32_t i = 0; i < s->declared_count; i++) {
        uint8_t room[CELL_MAX];
        struct ag_buf b = ag_buf(room, sizeof(room));

        ag_explain_methods(&b, &s->routes[i]);
        w.methods = widen(w.methods, b.len, 20);
        w.pattern = widen(w.pattern, ag_explain_written(&s->routes[i]).len, 44);
        b.len = 0;
        ag_explain_action(&b, &s->routes[i]);
        w.action = widen(w.action, b.len, 44);
    }
    return w;
}

/* A cell and the spaces up to the next column, at least two. */
static void put_cell(struct ag_buf *out, struct ag_span cell, size_t width)
{
    ag_buf_put(out, cell);
    for (size_t i = cell.len; i < width + 2; i++) {
        ag_buf_putc(out, ' ');
    }
    if (cell.len > width + 2) {
        ag_buf_put(out, AG_SPAN("  "));
    }
}

static void put_text_cell(struct ag_buf *out, void (*put)(struct ag_buf *, const struct ag_route *),
                          const struct ag_route *r, size_t width)
{
    uint8_t room[CELL_MAX];
    struct ag_buf b = ag_buf(room, sizeof(room));

    put(&b, r);
    put_cell(out, ag_buf_span(&b), width);
}

static void trim_end(struct ag_buf *out)
{
    while (out->len && out->ptr[out->len - 1] == ' ') {
        out->len--;
    }
}

static void put_style(struct ag_buf *out, const char *style, bool colour)
{
    if (colour) {
        ag_buf_put(out, ag_span_str(style));
    }
}

/* The parts that groups cut out of a route: what differs there. */
static void put_splits(const struct ag_snapshot *s, const struct ag_route *r, struct ag_buf *out,
                       const struct widths *w, bool colour)
{
    for (uint32_t i = 0; i < r->split_count; i++) {
        const struct ag_route *part = &s->routes[r->splits[i].route];
        uint8_t room[CELL_MAX];
        struct ag_buf b = ag_buf(room, sizeof(room));

        if (i && r->splits[i - 1].route == r->splits[i].route) {
            continue;
        }
        ag_buf_put(&b, AG_SPAN("  in "));
        ag_explain_pattern(&b, &part->match);
        ag_buf_put(out, AG_SPAN("  "));
        put_cell(out, AG_SPAN(""), w->methods);
        put_style(out, AG_EXPLAIN_DIM, colour);
        put_cell(out, ag_buf_span(&b), w->pattern + w->action + 2);
        ag_explain_filters(out, part);
        trim_end(out);
        put_style(out, AG_EXPLAIN_RESET, colour);
        ag_buf_putc(out, '\n');
    }
}

static void put_route(const struct ag_snapshot *s, const struct ag_route *r, struct ag_buf *out,
                      const struct widths *w, bool colour)
{
    ag_buf_put(out, AG_SPAN("  "));
    put_text_cell(out, ag_explain_methods, r, w->methods);
    put_style(out, AG_EXPLAIN_BOLD, colour);
    ag_buf_put(out, ag_explain_written(r));
    put_style(out, AG_EXPLAIN_RESET, colour);
    for (size_t i = ag_explain_written(r).len; i < w->pattern; i++) {
        ag_buf_putc(out, ' ');
    }
    ag_buf_put(out, AG_SPAN("  "));
    put_text_cell(out, ag_explain_action, r, w->action);
    ag_explain_filters(out, r);
    trim_end(out);
    ag_buf_putc(out, '\n');
    put_splits(s, r, out, w, colour);
}

static void put_host(struct ag_buf *out, const struct ag_pattern *p, bool colour)
{
    put_style(out, AG_EXPLAIN_GREEN, colour);
    ag_buf_put(out, p->host.len ? p->host : AG_SPAN("any host"));
    if (p->port) {
        ag_buf_printf(out, ", port %u", p->port);
    }
    put_style(out, AG_EXPLAIN_RESET, colour);
    ag_buf_putc(out, '\n');
}

void ag_explain_tree(const struct ag_snapshot *s, struct ag_buf *out, bool colour)
{
    struct row *sorted = calloc(s->declared_count + 1u, sizeof(*sorted));
    struct widths w = measure(s);

    AG_ASSERT(sorted);
    for (uint32_t i = 0; i < s->declared_count; i++) {
        sorted[i].route = &s->routes[i];
    }
    qsort(sorted, s->declared_count, sizeof(*sorted), compare_rows);
    for (uint32_t i = 0; i < s->declared_count; i++) {
        if (i == 0 ||
            compare_hosts(&sorted[i - 1].route->pattern, &sorted[i].route->pattern) != 0) {
            put_host(out, &sorted[i].route->pattern, colour);
        }
        put_route(s, sorted[i].route, out, &w, colour);
    }
    free(sorted);
}

/* ---- one request ---- */

struct near {
    const struct ag_route *route;
    uint32_t score;
};

/* How close a loser came: matched but for the order or the method, then by segments. */
static uint32_t score_of(const struct ag_route *r, const struct ag_trie_query *q)
{
    struct ag_fit fit = ag_explain_fit(r, q);
    bool literal = r->match.segments[0].kind == AG_SEG_EXACT;

    if (fit.path) {
        return SCORE_PATH + (fit.method ? 100u : 0u) + (fit.host ? 20u : 0u) +
               (fit.port ? 10u : 0u);
    }
    /* One segment that fits is a hint only when it is a literal. */
    return fit.segments && (literal || fit.segments > 1) ? fit.segments * 10u + fit.method : 0;
}

static uint32_t find_near(const struct ag_snapshot *s, const struct ag_route *winner,
                          const struct ag_trie_query *q, struct near *v)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < s->declared_count; i++) {
        struct near n = {&s->routes[i], score_of(&s->routes[i], q)};
        uint32_t at = count;

        if (n.score == 0 || (winner && winner->split_of == i)) {
            continue;
        }
        for (; at > 0 && v[at - 1].score < n.score; at--) {
            if (at < NEAR_MAX) {
                v[at] = v[at - 1];
            }
        }
        if (at < NEAR_MAX) {
            v[at] = n;
            count += count < NEAR_MAX;
        }
    }
    return count;
}

static void put_where(struct ag_buf *out, const struct ag_route *r)
{
    if (r->pattern.pos.source) {
        ag_buf_printf(out, "   %s:%u", r->pattern.pos.source->name, r->pattern.pos.line);
    }
}

static void put_winner(const struct ag_route *r, const struct ag_trie_query *q, struct ag_buf *out,
                       bool colour)
{
    put_style(out, AG_EXPLAIN_GREEN, colour);
    ag_buf_put(out, AG_SPAN("wins  "));
    put_style(out, AG_EXPLAIN_RESET, colour);
    ag_explain_methods(out, r);
    ag_buf_putc(out, ' ');
    ag_buf_put(out, ag_explain_written(r));
    ag_buf_put(out, AG_SPAN("   "));
    ag_explain_action(out, r);
    put_where(out, r);
    ag_buf_putc(out, '\n');
    for (uint16_t i = 0; i < r->match.param_count; i++) {
        const struct ag_param_spec *p = &r->match.params[i];
        struct ag_span value = ag_path_segment(q->path, p->segment, p->splat);

        ag_buf_put(out, AG_SPAN("      "));
        ag_buf_put(out, p->splat ? AG_SPAN("*") : AG_SPAN(":"));
        ag_buf_put(out, p->name);
        ag_buf_put(out, AG_SPAN(" = \""));
        ag_buf_put(out, value);
        ag_buf_put(out, AG_SPAN("\"\n"));
    }
    if (r->group) {
        ag_buf_printf(out, "      group %s\n", r->group);
    }
    if (r->filters.count || r->client_cert >= AG_CLIENT_CERT_OPTIONAL) {
        ag_buf_put(out, AG_SPAN("      filters "));
        ag_explain_filters(out, r);
        ag_buf_putc(out, '\n');
    }
}

static void add_allowed(void *arg, uint32_t id, uint32_t methods)
{
    (void)id;
    *(uint32_t *)arg |= methods;
}

static void put_loss(const struct ag_snapshot *s, const struct ag_trie_query *q, struct ag_buf *out)
{
    uint32_t allowed = 0;

    ag_trie_each(s->trie, q, add_allowed, &allowed);
    if (allowed == 0) {
        ag_buf_put(out, AG_SPAN("404   no route takes this path\n"));
    } else if (q->method == AG_METHOD_OPTIONS) {
        ag_buf_put(out, AG_SPAN("204   OPTIONS is answered with Allow: no route takes it\n"));
    } else {
        ag_buf_put(out, AG_SPAN("405   no route of this path takes the method\n"));
    }
}

static void put_losers(const struct ag_snapshot *s, const struct ag_route *winner,
                       const struct ag_trie_query *q, struct ag_buf *out, bool colour)
{
    struct near near[NEAR_MAX];
    uint32_t count = find_near(s, winner, q, near);

    for (uint32_t i = 0; i < count; i++) {
        put_style(out, AG_EXPLAIN_DIM, colour);
        ag_buf_put(out, near[i].score >= SCORE_PATH ? AG_SPAN("lost  ") : AG_SPAN("near  "));
        put_style(out, AG_EXPLAIN_RESET, colour);
        ag_explain_methods(out, near[i].route);
        ag_buf_putc(out, ' ');
        ag_buf_put(out, ag_explain_written(near[i].route));
        ag_buf_put(out, AG_SPAN(": "));
        ag_explain_reason(out, near[i].route, winner, q);
        put_where(out, near[i].route);
        ag_buf_putc(out, '\n');
    }
}

static bool explain_query(const struct ag_snapshot *s, const struct ag_trie_query *q,
                          struct ag_buf *out, bool colour)
{
    const struct ag_route *r = NULL;

    if (q->method != AG_METHOD_TRACE && q->method != AG_METHOD_CONNECT) {
        r = ag_snapshot_find(s, q);
    }
    if (r) {
        put_winner(r, q, out, colour);
    } else {
        put_loss(s, q, out);
    }
    put_losers(s, r, q, out, colour);
    return r != NULL;
}

/* NOLINTNEXTLINE(readability-function-size): a request has that many parts */
bool ag_explain_request(const struct ag_snapshot *s, struct ag_span method, struct ag_span target,
                        struct ag_span host, uint16_t port, struct ag_buf *out, bool colour)
{
    struct ag_span raw = ag_span_sub(target, 0, ag_span_find(target, '?'));
    struct ag_buf path = ag_buf(malloc(raw.len + 1), raw.len + 1);
    struct ag_trie_query q = {
        .host = host, .port = port, .method = ag_method_from_name(method), .method_name = method};
    bool won = false;

    AG_ASSERT(path.ptr);
    if (port == 0 && s->model->listen_count) {
        q.port = s->model->listens[0].port;
    }
    if (ag_path_normalise(raw, &path) == AG_OK) {
        q.path = ag_buf_span(&path);
        won = explain_query(s, &q, out, colour);
    } else {
        ag_buf_put(out, raw.len && raw.ptr[0] == '/'
                            ? AG_SPAN("400   not a valid path\n")
                            : AG_SPAN("400   not a valid path: it begins with /, and a host goes "
                                      "behind it, as in GET /path example.com\n"));
    }
    free(path.ptr);
    return won;
}

static void put_privileges(const struct ag_model *m, struct ag_buf *out)
{
    static const char *const seccomps[] = {"auto", "on", "off", "log"};

    if (m->user) {
        ag_buf_printf(out, "process\n  user %s, chroot %s, seccomp %s\n", m->user,
                      m->chroot ? m->chroot : "none", seccomps[m->seccomp]);
    } else if (m->seccomp != AG_CONFINE_AUTO) {
        ag_buf_printf(out, "process\n  seccomp %s\n", seccomps[m->seccomp]);
    }
}

static void put_resolver(const struct ag_model *m, struct ag_buf *out)
{
    const struct ag_resolver_settings *r = &m->resolver;

    if (r->servers[0]) {
        ag_buf_printf(out, "name servers\n  %s, timeout %ums, attempts %u\n", r->servers,
                      r->timeout_ms, r->attempts);
    }
}

static void put_admin(const struct ag_model *m, struct ag_buf *out)
{
    for (uint16_t i = 0; i < m->listen_count; i++) {
        if (m->listens[i].admin) { /* one, or the last two of one text */
            ag_buf_printf(out, "admin\n  %.*s, for %s\n", (int)m->listens[i].text.len,
                          (const char *)m->listens[i].text.ptr,
                          m->admin_token.len ? "those who show the token" : "this machine alone");
            return;
        }
    }
}

static void put_errors(const struct ag_snapshot *s, struct ag_buf *out)
{
    ag_buf_put(out, s->error_places ? AG_SPAN("error pages\n") : AG_SPAN(""));
    for (const struct ag_error_place *p = s->error_places; p; p = p->next) {
        ag_buf_printf(out, "  %.*s: ", (int)p->name.len, (const char *)p->name.ptr);
        ag_error_level_describe(p->level, out);
        ag_buf_putc(out, '\n');
    }
}

void ag_explain_sections(const struct ag_snapshot *s, struct ag_buf *out)
{
    put_privileges(s->model, out);
    put_resolver(s->model, out);
    put_admin(s->model, out);
    put_errors(s, out);
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)kind);

        if (ops->describe) {
            ops->describe(s->shared[kind], out);
        }
    }
}
