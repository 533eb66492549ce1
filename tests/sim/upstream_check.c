#include "tests/sim/upstream.h"

#include <inttypes.h>

/* What upstreams of either version hold a request against. */

static void check_forwarded(struct run *r, const struct request *q, struct message *m)
{
    char ip[48];
    unsigned count;
    uint32_t from = greeting_ends(q->client->end, q->client->greeting).from_ip;
    struct ag_span value = message_field(m, "x-forwarded-for", &count);

    /* Some clients are proxies that are believed. */
    (void)snprintf(ip, sizeof(ip), "%s%u.%u.%u.%u",
                   q->hops && (from & 255) <= SITE_TRUSTED ? "192.0.2.66, " : "", from >> 24,
                   from >> 16 & 255, from >> 8 & 255, from & 255);
    /* A client that has been reset has no address any more. */
    if (count != 1 ||
        !(ag_span_eq(value, ag_span_str(ip)) ||
          (q->client->end->conn->end[1].dead && ag_span_eq(value, AG_SPAN("unknown"))))) {
        sim_fail(r->sim, "upstream: request %u of %s is forwarded for %.*s", q->id, ip,
                 (int)value.len, (const char *)value.ptr);
    }
    value = message_field(m, "x-forwarded-proto", &count);
    if (count != 1 || !ag_span_eq(value, ag_span_str(q->client->tls ? "https" : "http"))) {
        sim_fail(r->sim, "upstream: request %u is forwarded as %.*s", q->id, (int)value.len,
                 (const char *)value.ptr);
    }
    value = message_field(m, m->h2 ? ":authority" : "host", &count);
    if (count != 1 || !ag_span_eq(value, AG_SPAN("sim.test"))) {
        sim_fail(r->sim, "upstream: request %u has another Host", q->id);
    }
    (void)message_field(m, "x-hop", &count);
    if (count) {
        sim_fail(r->sim, "upstream: request %u has a field of the client's connection", q->id);
    }
    (void)message_field(m, "x_forwarded_for", &count);
    if (count) {
        sim_fail(r->sim, "upstream: request %u has a field that looks like the proxy's", q->id);
    }
    value = message_field(m, "x-pad", &count);
    if (value.len != q->pad_bytes) {
        sim_fail(r->sim, "upstream: request %u: a field of %zu bytes for %u", q->id, value.len,
                 q->pad_bytes);
    }
}

static void check_framing(struct run *r, struct request *q, struct message *m)
{
    unsigned count;
    uint64_t length = message_number(message_field(m, "content-length", &count));

    if (!m->chunked && (count ? length : 0) != q->body_bytes) {
        sim_fail(r->sim, "upstream: request %u has content of %" PRIu64 " bytes for %u", q->id,
                 count ? length : 0, q->body_bytes);
    }
    if (q->kind == REQUEST_TUNNEL) {
        struct ag_span value = message_field(m, "upgrade", &count);

        if (count != 1 || !ag_span_ieq(value, AG_SPAN("websocket"))) {
            sim_fail(r->sim, "upstream: request %u lost its Upgrade", q->id);
        }
        value = message_field(m, "sec-websocket-key", &count);
        if (count != 1 || value.len >= sizeof(q->websocket_key)) {
            sim_fail(r->sim, "upstream: request %u has no key", q->id);
        }
        memcpy(q->websocket_key, value.ptr, value.len);
        q->websocket_key[value.len] = '\0';
    }
}

struct request *upstream_identify(struct server *v, struct message *m)
{
    struct run *r = v->run;
    unsigned count;
    uint64_t id = message_number(message_field(m, "x-id", &count));
    struct request *q;

    if (v->group == 'x') {
        sim_fail(r->sim, "upstream: a stranger is sent a request");
    }
    if (count != 1 || id >= r->request_count) {
        sim_fail(r->sim, "upstream: a request of nobody: %.*s", (int)ag_min_size(m->head_len, 200),
                 (const char *)m->head);
    }
    q = r->requests[id];
    if (q->upstream != v->group || !ag_span_eq(m->method, ag_span_str(q->method)) ||
        !ag_span_eq(m->target, ag_span_str(q->forwarded))) {
        sim_fail(r->sim, "upstream %c: request %u came as %.*s %.*s", v->group, q->id,
                 (int)m->method.len, (const char *)m->method.ptr, (int)m->target.len,
                 (const char *)m->target.ptr);
    }
    check_forwarded(r, q, m);
    check_framing(r, q, m);
    q->seen++;
    if (q->seen > (q->idempotent ? SITE_SEEN_MAX : 1u) + (v->group == 'a' ? SITE_COPIES_MAX : 0)) {
        sim_fail(r->sim, "upstream: request %u (%s) came %u times", q->id, q->method, q->seen);
    }
    return q;
}

bool upstream_is_early(const struct request *q)
{
    return q->plan == PLAN_EARLY || q->plan == PLAN_EARLY_CLOSE ||
           (q->plan > PLAN_EARLY_CLOSE && q->plan != PLAN_EXTRA && q->id % 3 == 0);
}

void upstream_complete(struct run *r, struct request *q, const struct message *m)
{
    bool bad = q->bad || (q->bad_h2 && !request_bad_h2_is_longer(q));

    if (m->body_bytes != q->body_bytes || bad) {
        sim_fail(r->sim, "upstream: request %u looks complete with %" PRIu64 " of %u bytes", q->id,
                 m->body_bytes, q->body_bytes);
    }
    q->completed++;
    q->completed_us = r->sim->now_us;
}

/* Proxied content is bytes; of a malformed request's nothing but its sound beginning may come. */
void upstream_check_content(struct run *r, const struct request *q, const struct message *m,
                            struct ag_span body)
{
    uint64_t at = m->body_bytes - body.len;

    if (q->bad || q->bad_h2 ? body.len > 8 - ag_min_u64(at, 8)
                            : !content_is(request_key(q), at, body)) {
        sim_fail(r->sim, "upstream: request %u: wrong bytes at %" PRIu64, q->id, at);
    }
}
