/* Which limits hold where. */
#include "router/explain_text.h"

static void put_listener(const struct ag_listen *l, struct ag_buf *out)
{
    ag_buf_put(out, AG_SPAN("limits of "));
    ag_buf_put(out, l->text);
    if (!ag_networks_are_empty(&l->proxied)) {
        ag_buf_put(out, AG_SPAN("\n  begins with a PROXY header from "));
        ag_networks_put(&l->proxied, out);
    }
    if (l->deferred) {
        ag_buf_put(out, AG_SPAN("\n  lets connections in when their first bytes have come"));
    }
    ag_buf_put(out, AG_SPAN("\n  "));
    ag_model_put_limits(&l->limits, out);
    ag_buf_put(out, AG_SPAN("\n  "));
    ag_model_put_route_limits(&l->limits.route, NULL, out);
    ag_buf_putc(out, '\n');
}

/* One line for a route, or the part of it in a group, when it says something else than the listener; by
 * the first kind of listener that it differs from. */
static void put_route(const struct ag_model *m, const struct ag_route *r, bool part,
                      struct ag_buf *out)
{
    for (uint16_t i = 0; i < m->route_limit_count; i++) {
        uint8_t room[512];
        struct ag_buf b = ag_buf(room, sizeof(room));

        ag_model_put_route_limits(&r->limits[i], &m->route_limits[i], &b);
        if (b.len == 0) {
            continue;
        }
        ag_buf_put(out, AG_SPAN("limits of "));
        if (part) {
            ag_explain_pattern(out, &r->match);
            ag_buf_put(out, AG_SPAN(" in "));
        }
        ag_explain_methods(out, r);
        ag_buf_putc(out, ' ');
        ag_buf_put(out, ag_explain_written(r));
        ag_buf_put(out, AG_SPAN("\n  "));
        ag_buf_put(out, ag_buf_span(&b));
        ag_buf_putc(out, '\n');
        return;
    }
}

void ag_explain_limits(const struct ag_snapshot *s, struct ag_buf *out)
{
    const struct ag_model *m = s->model;

    for (uint16_t i = 0; i < m->listen_count; i++) {
        /* ":8080" is two listeners, and one to people. */
        if (m->listens[i].tcp) {
            continue;
        }
        if (!m->listens[i].admin &&
            (i == 0 || !ag_span_eq(m->listens[i].text, m->listens[i - 1].text))) {
            put_listener(&m->listens[i], out);
        }
    }
    for (uint32_t i = 0; i < s->declared_count; i++) {
        const struct ag_route *r = &s->routes[i];

        put_route(m, r, false, out);
        for (uint32_t k = 0; k < r->split_count; k++) {
            if (k == 0 || r->splits[k - 1].route != r->splits[k].route) {
                put_route(m, &s->routes[r->splits[k].route], true, out);
            }
        }
    }
}
