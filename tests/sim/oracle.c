#include "tests/sim/run.h"

#include <inttypes.h>

/* The shortest configured time to an answer's first byte. */
#define FIRST_BYTE_US (2 * SIM_S)
/* The shortest time to a whole head, where tries are bounded. */
#define TRY_US (3 * SIM_S)
/* Less than any configured time for a whole exchange. */
#define TOTAL_US (15 * SIM_S)
/* The shortest time after which an idle tunnel ends. */
#define TUNNEL_US (3 * SIM_S)
/* Bytes that wait to be read: a bound, and what comes behind it before the receive has stopped. */
#define INPUT_MAX (256u * 1024u)

/* ---- what may be ---- */

static uint32_t plan_allows(const struct request *q)
{
    switch ((enum plan)q->plan) {
    case PLAN_LENGTH:
    case PLAN_CHUNKED:
    case PLAN_CLOSE:
    case PLAN_EMPTY:
    case PLAN_INTERIM:
    case PLAN_EXTRA:
        return OUT_RIGHT;
    case PLAN_EARLY: /* what is still being sent meets a closed door */
        return q->body_bytes ? OUT_RIGHT | OUT_CUT : OUT_RIGHT;
    case PLAN_EARLY_CLOSE:
        return OUT_RIGHT | OUT_502 | OUT_CUT;
    case PLAN_NO_ANSWER:
        return OUT_504;
    case PLAN_STALL:
    case PLAN_BAD_CHUNK:
        return OUT_CUT;
    case PLAN_CUT_FIN: /* with content unread its close is a reset, and erases the head */
        return q->body_bytes || q->chunked ? OUT_CUT | OUT_502 : OUT_CUT;
    case PLAN_CUT_RST: /* of a tunnel, behind the switch */
        return OUT_CUT | OUT_502 | (q->kind == REQUEST_TUNNEL ? OUT_RIGHT : 0);
    case PLAN_STORM:
    case PLAN_CUT_HEAD:
    case PLAN_CLOSED:
    case PLAN_RESET:
    case PLAN_GARBAGE:
    case PLAN_TWO_LENGTHS:
    case PLAN_SWITCH:
    case PLAN_LARGE_HEAD:
        return OUT_502;
    case PLANS:
        break;
    }
    AG_UNREACHABLE("no such plan");
}

/* Of a plan over HTTP/2, beside `m`. */
static uint32_t h2_allows(const struct run *r, const struct request *q, uint32_t m)
{
    if (q->plan == PLAN_EXTRA) { /* seen with the content, or behind it */
        m |= OUT_CUT | OUT_502;
    } else if (m & OUT_CUT) {
        m |= OUT_502; /* a reset overtakes a head */
    }
    if (q->plan == PLAN_EARLY_CLOSE) {
        m |= OUT_RIGHT;
    }
    /* After a reload a slow one is told to do without its route's settings, and is not repeated. */
    if (q->refused && q->config_first + 1 < r->config_count) {
        m |= OUT_502;
    }
    if (q->upstream == 'g') { /* others end the connection */
        m |= OUT_502 | OUT_503 | OUT_CUT | OUT_504;
    }
    if (r->weather.flaky) { /* who stalls takes another's place */
        m |= OUT_503 | OUT_504;
    }
    return m;
}

/* Whether the servers of `q` may have been found by a name, which leads to one where nobody is, too. */
static bool has_found_servers(const struct run *r, const struct request *q)
{
    struct site_config config;
    bool found = false;

    for (uint32_t i = q->config_first; i < r->config_count; i++) {
        site_config(r->configs[i], &config);
        found |= site_is_found(&config, q->upstream);
    }
    return found;
}

static uint32_t proxy_allows(const struct run *r, const struct request *q)
{
    uint32_t m = plan_allows(q);

    if (q->upstream == 'm') { /* no such name, looked up or looked for */
        m = OUT_502 | OUT_503;
    } else if (q->upstream == 'x') { /* nobody there */
        m = OUT_502;
    } else if (q->upstream == 'b') {
        m |= OUT_502 | OUT_504;
    } else if (q->upstream == 'c') {
        m |= OUT_503;
    } else if (q->upstream == 'h' || q->upstream == 'g') {
        m |= h2_allows(r, q, m);
    }
    if (q->upstream == 'b' || q->upstream == 'h') { /* all may be down, or left out */
        m |= OUT_503;
    }
    /* The connection may just be closing: only what can be repeated is. */
    if (!q->idempotent || q->body_bytes || q->chunked || q->kind == REQUEST_TUNNEL) {
        m |= OUT_502;
    }
    /* Of content that has arrived since the last look nobody knows when it did: its clock began when the
     * system took it. */
    if (q->completed && r->sim->now_us < q->completed_us + FIRST_BYTE_US &&
        r->sim->now_us >= q->sent_us + FIRST_BYTE_US) {
        m |= OUT_504;
    }
    if (r->weather.upstream_storms) {
        m |= OUT_502 | OUT_504 | OUT_CUT;
    }
    /* The last server's trouble is the answer: it may be the one that nobody could connect to. */
    if (m & (OUT_502 | OUT_504) && q->upstream == 'n' && has_found_servers(r, q)) {
        m |= OUT_502 | OUT_504;
    }
    if (r->weather.names && (q->upstream == 'n' || q->upstream == 'm')) {
        m |= OUT_502 | OUT_503 | OUT_504;
    }
    return m;
}

/* By itself, whatever else happens on its connection. */
static uint32_t allows_alone(const struct run *r, const struct request *q)
{
    uint32_t m = OUT_RIGHT;
    bool proxied = request_is_proxied(q);

    if (proxied) {
        m = proxy_allows(r, q);
    }
    if (q->body_bytes > SITE_BODY_MAX) { /* an upstream's own word may come before */
        m = (proxied && q->plan > PLAN_LAST_RIGHT ? m : m & ~(uint32_t)OUT_RIGHT) | OUT_413 |
            OUT_CUT;
    }
    if (proxied && q->sent_us && r->sim->now_us > q->sent_us + TOTAL_US) {
        m |= OUT_CUT | OUT_504; /* some configurations bound the whole of it */
    }
    if (proxied && q->sent_us && r->sim->now_us > q->sent_us + TRY_US) {
        m |= OUT_504; /* and some each try, up to its head */
    }
    if (q->kind == REQUEST_TUNNEL && q->sent_us && r->sim->now_us > q->sent_us + TUNNEL_US) {
        m |= OUT_CUT; /* idle, while its client still read what was answered before */
    }
    if (q->kind == REQUEST_STATIC && r->weather.files) {
        m |= OUT_500 | OUT_503 | OUT_CUT;
    }
    if (r->weather.shortage) {
        m |= OUT_503 | OUT_CUT | (proxied ? OUT_502 | OUT_504 : 0);
    }
    return m;
}

/* Nobody has looked at its target, if its client's certificate is what counts. */
static bool must_be_refused(const struct client *c, const struct request *q)
{
    bool must;

    return (run_tls_refusals(c, &must) & OUT_403) && must && q->kind != REQUEST_BAD;
}

bool oracle_port_went(const struct run *r, const struct client *c)
{
    return c->port_at_risk || !r->listens[c->port - SITE_PORT].open;
}

/* A receive had to wait for a buffer. */
bool oracle_was_starved(const struct run *r)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < r->shard_count; i++) {
        n += r->host.loops[i].loop.stats.starved;
    }
    return n > 0;
}

uint32_t oracle_allows(const struct run *r, const struct client *c, const struct request *q)
{
    bool must;
    uint32_t m = allows_alone(r, q) | run_tls_refusals(c, &must);

    if (q->cancelled) {
        m |= OUT_CUT;
    }
    /* A reset takes along what was answered before and has not left. */
    for (uint32_t i = c->answered; !c->h2 && i <= c->sending && i < c->request_count; i++) {
        m |= allows_alone(r, c->requests[i]) & OUT_CUT;
    }
    /* More content than a server drops behind its answer ends the connection. */
    if (c->discarded || (c->discards_length && r->config_count > 1)) {
        m |= OUT_CUT;
    }
    if (c->probe && !r->draining) { /* what it leaves in a tunnel may meet the drain's end */
        return m & ~(uint32_t)(OUT_CUT | OUT_503) ? m : m | OUT_RIGHT;
    }
    if (c->manners.rude || c->end->conn->faulted || c->end->conn->profile.stall_per_mille) {
        m |= OUT_CUT | OUT_408 | OUT_504; /* 504: all of it took too long */
    }
    /* Content of a stream shares a thin line with that of others, and may come slower than it has to. */
    if (c->h2 && (q->body_bytes || q->chunked) && net_unacked(c->end) > 0) {
        m |= OUT_CUT | OUT_408;
    }
    if (oracle_was_starved(r)) { /* who is not read from looks like one who does not write */
        m |= OUT_408;
    }
    if ((c->drained_under || oracle_port_went(r, c)) && !q->spared) {
        m |= OUT_CUT;
    }
    return m;
}

/* ---- answers ---- */

static enum outcome outcome_of(unsigned status)
{
    switch (status) {
    case 403:
        return OUT_403;
    case 421:
        return OUT_421;
    case 408:
        return OUT_408;
    case 413:
        return OUT_413;
    case 500:
        return OUT_500;
    case 502:
        return OUT_502;
    case 503:
        return OUT_503;
    case 504:
        return OUT_504;
    default:
        return OUT_RIGHT;
    }
}

static void check_proxied(struct run *r, const struct client *c, const struct request *q,
                          const struct arrival *a)
{
    unsigned count;
    uint64_t id = message_number(message_field(&a->message, "x-id", &count));

    if (count != 1 || id != q->id) {
        sim_fail(r->sim, "client %u: request %u got the answer to %" PRIu64, c->index, q->id, id);
    }
    (void)message_field(&a->message, "x-hop", &count);
    if (count) {
        sim_fail(r->sim, "client %u: request %u got a field of the upstream's connection", c->index,
                 q->id);
    }
}

/* For its client's certificate, not by an upstream. */
static bool is_refusal(const struct client *c, struct arrival *a)
{
    unsigned count;
    bool must;

    (void)message_field(&a->message, "x-id", &count);
    return count == 0 && a->message.status == 403 && (run_tls_refusals(c, &must) & OUT_403);
}

void oracle_head(struct run *r, struct client *c, struct request *q, struct arrival *a)
{
    unsigned status = a->message.status;
    uint32_t allowed = oracle_allows(r, c, q);
    /* An answer may be given before anybody saw what is wrong. */
    bool right = (status == q->status && !is_refusal(c, a)) ||
                 (q->bad_h2 && request_bad_h2_is_longer(q) && status == 200);

    sim_note(r->sim, "client: answer", q->id, status);
    if (c->greeting && c->greeting->bad) {
        sim_fail(r->sim, "client %u: an answer behind a bad PROXY header", c->index);
    }
    a->kind_of_answer = (uint16_t)(right ? OUT_RIGHT
                                   : status == 400 && c->ways.harm == TLS_SILENCE
                                       ? OUT_408 /* it has shut within a head */
                                       : outcome_of(status));
    if (!right && (a->kind_of_answer == OUT_RIGHT || !(allowed & a->kind_of_answer))) {
        sim_fail(r->sim, "client %u: request %u (kind %u, plan %u, %s) got %u; allowed %x",
                 c->index, q->id, q->kind, q->plan, q->target, status, allowed);
    }
    if (right && !(allowed & (OUT_RIGHT | OUT_CUT))) {
        sim_fail(r->sim, "client %u: request %u (kind %u, plan %u) got a right answer", c->index,
                 q->id, q->kind, q->plan);
    }
    if (right && must_be_refused(c, q)) {
        sim_fail(r->sim, "client %u: request %u is answered without a certificate", c->index,
                 q->id);
    }
    a->text_wanted = true;
    a->text_len = 0;
    a->content_len = 0;
    if (!right) {
        return;
    }
    if (q->kind == REQUEST_STATIC && status != 416) {
        a->text_wanted = false;
        a->content_key = SITE_FILE_KEY + q->file;
        a->content_from = q->range_to ? q->range_from : 0;
        a->content_len = q->range_to ? q->range_to - q->range_from + 1 : q->answer_bytes;
        a->content_len = status == 304 ? 0 : a->content_len;
    } else if (q->kind == REQUEST_PROXY || q->kind == REQUEST_TUNNEL) {
        check_proxied(r, c, q, a);
        a->text_wanted = false;
        a->content_key = answer_key(q);
        a->content_from = 0;
        a->content_len = q->plan == PLAN_EMPTY || status == 101 ? 0 : q->answer_bytes;
        if (q->kind == REQUEST_TUNNEL && status == 200) { /* over HTTP/2 */
            a->content_len = q->tunnel_down;
        }
    }
    if (q->head) {
        a->content_len = 0;
    }
}

/* ---- content, and whole answers ---- */

void oracle_content(struct run *r, struct client *c, struct request *q, struct arrival *a,
                    struct ag_span piece)
{
    uint64_t at = a->message.body_bytes - piece.len;

    if (a->text_wanted) {
        if (piece.len > RUN_TEXT_MAX - a->text_len) {
            sim_fail(r->sim, "client %u: the answer to request %u is too long", c->index, q->id);
        }
        memcpy(a->text + a->text_len, piece.ptr, piece.len);
        a->text_len += piece.len;
    } else if (piece.len > a->content_len - ag_min_u64(at, a->content_len) ||
               !content_is(a->content_key, a->content_from + at, piece)) {
        sim_fail(r->sim, "client %u: request %u (%s): wrong bytes at %" PRIu64, c->index, q->id,
                 q->target, at);
    }
}

static bool text_is(const struct arrival *a, const char *want)
{
    return a->text_len == strlen(want) && memcmp(a->text, want, a->text_len) == 0;
}

static bool text_has(const struct arrival *a, const char *want)
{
    return memmem(a->text, a->text_len, want, strlen(want)) != NULL;
}

/* The body of one of the configurations that were current while it was under way. */
static bool is_fixed_body(const struct run *r, const struct request *q, const struct arrival *a)
{
    char want[16384];

    for (uint32_t i = q->config_first; i < r->config_count; i++) {
        (void)site_fixed_body(r->configs[i], q->kind == REQUEST_FIXED_LARGE, want, sizeof(want));
        if (text_is(a, want)) {
            return true;
        }
    }
    return false;
}

static bool is_echo(const struct client *c, const struct request *q, const struct arrival *a)
{
    char want[SITE_ECHO_MAX + 64];
    const struct greeting_ends ends = greeting_ends(c->end, c->greeting);
    size_t shown = ag_min_u64(q->body_bytes, SITE_ECHO_MAX);
    int n;

    (void)snprintf(want, sizeof(want),
                   "{\"method\":\"%s\",\"path\":\"/echo/%u\",\"query\":\"e=%u\",\"params\":{\"*\":"
                   "\"%u\"},\"protocol\":\"HTTP/%s\",\"remote\":\"%u.%u.%u.%u:%u\"",
                   q->method, q->id, q->id * 3, q->id,
                   q->h2           ? "2"
                   : q->version_10 ? "1.0"
                                   : "1.1",
                   ends.from_ip >> 24, ends.from_ip >> 16 & 255, ends.from_ip >> 8 & 255,
                   ends.from_ip & 255, ends.from_port);
    if (a->text_len < strlen(want) || memcmp(a->text, want, strlen(want)) != 0) {
        return false;
    }
    (void)snprintf(want, sizeof(want), q->h2 ? "[\"x-id\",\"%u\"]" : "[\"X-Id\",\"%u\"]", q->id);
    if (!text_has(a, want)) {
        return false;
    }
    n = snprintf(want, sizeof(want), "\"body\":\"");
    content_fill(request_key(q), 0, (uint8_t *)want + n, shown);
    for (size_t i = 0; i < shown; i++) {
        want[(size_t)n + i] = (char)('a' + (uint8_t)want[(size_t)n + i] % 16);
    }
    want[(size_t)n + shown] = '"';
    want[(size_t)n + shown + 1] = '\0';
    if (!text_has(a, want)) {
        return false;
    }
    (void)snprintf(want, sizeof(want), ",\"base64\":false,\"truncated\":%s,\"body_length\":%u}\n",
                   q->body_bytes > shown ? "true" : "false", q->body_bytes);
    return text_has(a, want);
}

static bool is_right_text(const struct run *r, const struct client *c, const struct request *q,
                          const struct arrival *a)
{
    char want[256];
    unsigned count;

    switch ((enum request_kind)q->kind) {
    case REQUEST_FIXED:
    case REQUEST_FIXED_LARGE:
        return is_fixed_body(r, q, a);
    case REQUEST_PARAM:
        (void)snprintf(want, sizeof(want), "id %u", q->id);
        return text_is(a, want);
    case REQUEST_FILTERED:
        return text_is(a, "filtered") &&
               ag_span_eq(message_field(&a->message, "x-tell", &count), AG_SPAN("/filtered")) &&
               count == 1 &&
               (!r->weather.more ||
                run_tls_is_client(c, message_field(&a->message, "x-client", &count)));
    case REQUEST_ECHO:
        return is_echo(c, q, a);
    case REQUEST_REDIRECT:
        (void)snprintf(want, sizeof(want), "/fixed/p/%u", q->id);
        return ag_span_eq(message_field(&a->message, "location", &count), ag_span_str(want)) &&
               count == 1;
    case REQUEST_MISSING:
        return a->text_len == 0 || text_has(a, "404");
    case REQUEST_METHOD:
        return a->text_len == 0 || text_has(a, "405");
    case REQUEST_BAD: /* its text takes a buffer */
        if (q->bad_h2 && request_bad_h2_is_longer(q)) {
            return true;
        }
        (void)snprintf(want, sizeof(want), "%u", q->status);
        return text_has(a, want) || (r->weather.shortage && a->text_len == 0);
    case REQUEST_STATIC:
        (void)snprintf(want, sizeof(want), "bytes */%u", q->answer_bytes);
        return ag_span_eq(message_field(&a->message, "content-range", &count), ag_span_str(want));
    case REQUEST_PROXY:
    case REQUEST_TUNNEL:
    case REQUEST_KINDS:
        break;
    }
    return false;
}

/* Nothing but chance is against anybody. */
static bool is_fine(const struct weather *w)
{
    return !w->flaky && !w->rude && !w->shortage && !w->storms && !w->upstream_storms;
}

void oracle_answer(struct run *r, struct client *c, struct request *q, struct arrival *a)
{
    if (a->kind_of_answer == OUT_503 && q->upstream == 'c' && !q->head && is_fine(&r->weather) &&
        !text_has(a, "too many requests wait")) {
        sim_fail(r->sim, "client %u: request %u waited in vain: %.*s", c->index, q->id,
                 (int)a->text_len, (const char *)a->text);
    }
    if (a->kind_of_answer == OUT_503 && q->upstream == 'b' && !q->head && is_fine(&r->weather) &&
        !text_has(a, "no server of the upstream takes requests")) {
        sim_fail(r->sim, "client %u: request %u found nobody: %.*s", c->index, q->id,
                 (int)a->text_len, (const char *)a->text);
    }
    if (a->kind_of_answer != OUT_RIGHT) {
        return; /* an error of the server's, as allowed */
    }
    if (!(oracle_allows(r, c, q) & OUT_RIGHT)) {
        sim_fail(r->sim, "client %u: request %u (plan %u) looks complete and cannot be", c->index,
                 q->id, q->plan);
    }
    if (!a->text_wanted) {
        if (a->message.body_bytes != a->content_len) {
            sim_fail(r->sim, "client %u: request %u: %" PRIu64 " bytes of %" PRIu64, c->index,
                     q->id, a->message.body_bytes, a->content_len);
        }
    } else if (!(q->head ? a->text_len == 0 : is_right_text(r, c, q, a))) {
        sim_fail(r->sim, "client %u: request %u (%s): wrong answer: %.*s", c->index, q->id,
                 q->target, (int)a->text_len, (const char *)a->text);
    }
}

void oracle_gone(struct run *r, struct client *c, bool by_error)
{
    const struct request *q;

    sim_note(r->sim, "client: gone", c->index, by_error);
    if (c->told_close || c->answered == c->request_count) {
        return;
    }
    q = c->requests[c->answered];
    if (!(oracle_allows(r, c, q) & OUT_CUT)) {
        sim_fail(r->sim, "client %u: no answer to request %u (kind %u, plan %u, %s): %s", c->index,
                 q->id, q->kind, q->plan, q->target, by_error ? "reset" : "closed");
    }
}

void oracle_refused(struct run *r, struct client *c)
{
    const struct weather *w = &r->weather;

    if (c->probe || !(c->drained_under || r->draining || r->yielding || oracle_port_went(r, c) ||
                      w->few_slots || w->shortage || w->storms)) {
        sim_fail(r->sim, "client %u: cannot connect: error %d", c->index, -c->end->error);
    }
}

/* ---- bounds ---- */

static void check_h1(const struct run *r, const struct ag_h1_server *h)
{
    if (h->in.bytes > INPUT_MAX || h->in.count > 128) {
        sim_fail(r->sim, "%" PRIu64 " bytes in %u slices wait as input", h->in.bytes, h->in.count);
    }
    if (ag_stream_queued(h->stream) > AG_STREAM_HIGH + AG_BODY_BYTES_MAX) {
        sim_fail(r->sim, "%" PRIu64 " bytes wait to be sent", ag_stream_queued(h->stream));
    }
    if (h->ex && (oracle_holds_too_much(h->ex->context, &h->ex->req_body) ||
                  oracle_holds_too_much(h->ex->context, &h->ex->res_body))) {
        sim_fail(r->sim, "a body holds too much");
    }
}

/* Input is records of a handshake, and what the socket gives at once. */
static void check_handshake(const struct run *r, const struct ag_tls *t)
{
    if (t->in.bytes > (uint64_t)2 * AG_BUF_LARGE_BYTES || t->in.count > 128) {
        sim_fail(r->sim, "%" PRIu64 " bytes in %u slices wait in a handshake", t->in.bytes,
                 t->in.count);
    }
}

/* Before there is a server; afterwards what one side does not take stays with the other. */
static void check_relay(const struct run *r, const struct ag_relay *relay)
{
    if (relay->early.bytes > INPUT_MAX ||
        (relay->front && ag_stream_queued(relay->front) > AG_STREAM_HIGH + AG_BODY_BYTES_MAX) ||
        (relay->back && ag_stream_queued(relay->back) > AG_STREAM_HIGH + AG_BODY_BYTES_MAX)) {
        sim_fail(r->sim,
                 "a relay holds too much: %" PRIu64 " before its server, %" PRIu64 " and %" PRIu64
                 " to be sent",
                 relay->early.bytes, relay->front ? ag_stream_queued(relay->front) : 0,
                 relay->back ? ag_stream_queued(relay->back) : 0);
    }
}

/* A receive that waits for a buffer while there are some has been forgotten. */
static void check_starved(const struct run *r, const struct ag_loop *l)
{
    if (!ag_list_empty(&l->tasks)) {
        return;
    }
    for (unsigned g = 0; g < AG_BUF_GROUPS; g++) {
        const struct ag_buf_pool *p = &l->bufs->pools[g];
        bool feeds = p->ring_max ? p->ring_count > 0 : p->free_count > p->reserve;

        if (feeds && !ag_list_empty(&p->starved)) {
            sim_fail(r->sim, "a receive starves, and %u buffers are free", p->free_count);
        }
    }
}

void oracle_bounds(struct run *r)
{
    for (uint32_t i = 0; i < r->shard_count; i++) {
        const struct ag_downstreams *d = &r->shards[i].serving.down;

        if (r->host.loops[i].live && !r->shards[i].ended) {
            check_starved(r, &r->host.loops[i].loop);
            ag_list_foreach(it, &d->open) {
                const struct ag_downstream *ds = ag_container_of(it, struct ag_downstream, link);

                if (ds->relayed) {
                    check_relay(r, &ds->relay->relay);
                } else if (ds->greeting) {
                    continue; /* one buffer, below the header's bound */
                } else if (ds->handshaking) {
                    check_handshake(r, &ds->tls);
                } else if (ds->is_h2) {
                    oracle_bounds_h2(r, ds->h2);
                } else {
                    check_h1(r, &ds->h1);
                }
            }
        }
    }
}
