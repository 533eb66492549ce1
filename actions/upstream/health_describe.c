#include "actions/upstream/health_options.h"

/* "250ms", "10s", "5m" */
static void put_ms(struct ag_buf *out, uint32_t ms)
{
    bool minutes = ms >= 60000 && ms % 60000 == 0, seconds = ms >= 1000 && ms % 1000 == 0;

    ag_buf_put_u64(out, minutes ? ms / 60000 : seconds ? ms / 1000 : ms);
    ag_buf_put(out, minutes ? AG_SPAN("m") : seconds ? AG_SPAN("s") : AG_SPAN("ms"));
}

static void put_pair(struct ag_buf *out, struct ag_span what, uint64_t number)
{
    ag_buf_put(out, what);
    ag_buf_put_u64(out, number);
}

static void put_check(struct ag_buf *out, const struct ag_health_check *c)
{
    static const struct ag_span names[] = {AG_SPAN_INIT(""), AG_SPAN_INIT("a connection"),
                                           AG_SPAN_INIT("a TLS handshake")};

    ag_buf_put(out, AG_SPAN("    health: "));
    if (c->type == AG_HEALTH_HTTP) {
        ag_buf_put(out, ag_method_name(c->method));
        ag_buf_putc(out, ' ');
        ag_buf_put(out, c->path.len ? c->path : AG_SPAN("/"));
    } else {
        ag_buf_put(out, names[c->type]);
    }
    if (c->port) {
        put_pair(out, AG_SPAN(" at port "), c->port);
    }
    ag_buf_put(out, AG_SPAN(" every "));
    put_ms(out, c->interval_ms);
    ag_buf_put(out, AG_SPAN(" within "));
    put_ms(out, c->timeout_ms);
    if (c->type == AG_HEALTH_HTTP) {
        ag_buf_put(out, AG_SPAN(", expects "));
        ag_statuses_print(&c->statuses, out);
        ag_buf_put(out, c->body.len ? AG_SPAN(" and a text") : AG_SPAN(""));
    }
    put_pair(out, AG_SPAN("; down after "), c->fall);
    put_pair(out, AG_SPAN(", up after "), c->rise);
    ag_buf_put(out, c->starts_down ? AG_SPAN("; new servers are down\n") : AG_SPAN("\n"));
}

static void put_breaker(struct ag_buf *out, const struct ag_breaker_options *b)
{
    ag_buf_put(out, AG_SPAN("    breaker: "));
    if (!ag_breaker_is_on(b)) {
        ag_buf_put(out, AG_SPAN("off\n"));
        return;
    }
    if (b->consecutive) {
        put_pair(out, AG_SPAN(""), b->consecutive);
        ag_buf_put(out, AG_SPAN(" errors in a row"));
    }
    if (b->error_percent) {
        put_pair(out, b->consecutive ? AG_SPAN(", or ") : AG_SPAN(""), b->error_percent);
        put_pair(out, AG_SPAN("% of at least "), b->minimum);
        ag_buf_put(out, AG_SPAN(" in "));
        put_ms(out, b->window_ms);
    }
    ag_buf_put(out, AG_SPAN("; for "));
    put_ms(out, b->for_ms);
    ag_buf_put(out, AG_SPAN(" to "));
    put_ms(out, b->max_for_ms);
    put_pair(out, AG_SPAN("; "), b->trials);
    ag_buf_put(out, b->trials == 1 ? AG_SPAN(" trial") : AG_SPAN(" trials"));
    put_pair(out, AG_SPAN("; at most "), b->max_percent);
    ag_buf_put(out, AG_SPAN("% of the servers; errors are failures and "));
    ag_statuses_print(&b->statuses, out);
    ag_buf_putc(out, '\n');
}

static void put_ejection(struct ag_buf *out, const struct ag_ejection_options *e)
{
    put_pair(out, AG_SPAN("    ejection: latency beyond "), e->latency_percent / 100);
    if (e->latency_percent % 100) {
        put_pair(out, AG_SPAN("."), e->latency_percent % 100 / 10);
    }
    put_pair(out, AG_SPAN(" times the others', of at least "), e->minimum);
    ag_buf_put(out, AG_SPAN(" in "));
    put_ms(out, e->window_ms);
    ag_buf_putc(out, '\n');
}

void ag_health_describe(const struct ag_health_options *o, struct ag_buf *out)
{
    if (o->check.on) {
        put_check(out, &o->check);
    }
    if (o->breaker.written) {
        put_breaker(out, &o->breaker);
    }
    if (o->ejection.latency_percent) {
        put_ejection(out, &o->ejection);
    }
    if (o->slow_start_ms) {
        ag_buf_put(out, AG_SPAN("    slow start: "));
        put_ms(out, o->slow_start_ms);
        ag_buf_putc(out, '\n');
    }
    if (o->panic_percent) {
        put_pair(out, AG_SPAN("    panic: below "), o->panic_percent);
        ag_buf_put(out, AG_SPAN("% of the servers\n"));
    }
}
