#include "proto/h2_conn_parts.h"

static struct ag_h2_stream **bucket_of(struct ag_h2_conn *c, uint32_t id)
{
    return &c->buckets[(id >> 1) % AG_H2_BUCKETS];
}

struct ag_h2_stream *ag_h2_conn_find(const struct ag_h2_conn *c, uint32_t id)
{
    struct ag_h2_stream *s = c->buckets[(id >> 1) % AG_H2_BUCKETS];

    while (s && s->id != id) {
        s = s->next;
    }
    return s;
}

bool ag_h2_is_idle(const struct ag_h2_conn *c, uint32_t id)
{
    /* Nobody pushes: a server has no streams of its own. */
    return !(id & 1) || (c->role->server ? id > c->last_id : id >= c->next_id);
}

/* Marks an id in reset_ids; ids have 31 bits. */
#define BY_PEER 0x80000000u

enum ag_h2_closed ag_h2_closed_by(const struct ag_h2_conn *c, uint32_t id)
{
    enum ag_h2_closed by = AG_H2_CLOSED_BY_END;

    if ((c->role->server && id > c->goaway_id) || id <= c->forgotten_id) {
        return AG_H2_CLOSED_BY_US;
    }
    for (size_t i = 0; i < AG_H2_RESET_IDS; i++) {
        if (c->reset_ids[i] == id) {
            return AG_H2_CLOSED_BY_US;
        }
        if (c->reset_ids[i] == (id | BY_PEER)) {
            by = AG_H2_CLOSED_BY_PEER;
        }
    }
    return by;
}

static void remember(struct ag_h2_conn *c, uint32_t entry)
{
    uint32_t *at = &c->reset_ids[c->reset_next++ % AG_H2_RESET_IDS];

    if (!(*at & BY_PEER) && *at > c->forgotten_id) {
        c->forgotten_id = *at;
    }
    *at = entry;
}

void ag_h2_remember_reset(struct ag_h2_conn *c, uint32_t id)
{
    remember(c, id | BY_PEER);
}

/* ---- begin and end ---- */

static void begin(struct ag_h2_stream *s, struct ag_h2_conn *c, uint32_t id)
{
    struct ag_h2_stream **bucket = bucket_of(c, id);

    *s = (struct ag_h2_stream){
        .conn = c,
        .next = *bucket,
        .moved_ms = c->loop->now_ms,
        .id = id,
        .source_left = AG_LENGTH_UNKNOWN,
        .sink_left = AG_LENGTH_UNKNOWN,
        .send_window = c->peer_window,
        .recv_window = AG_H2_WINDOW_DEFAULT,
        .urgency = AG_H2_PRIORITY_DEFAULT.urgency,
        .incremental = true,
        .live = true,
    };
    ag_list_init(&s->link);
    *bucket = s;
    c->streams++;
    c->receiving++;
}

/* A priority that came before it. */
static void take_early(struct ag_h2_stream *s)
{
    for (size_t i = 0; i < AG_H2_EARLY_IDS; i++) {
        struct ag_h2_early *e = &s->conn->early[i];

        if (e->id == s->id) {
            e->id = 0;
            s->prioritised = true;
            ag_h2_stream_set_priority(s, e->priority);
        }
    }
}

void ag_h2_stream_accept(struct ag_h2_stream *s, struct ag_h2_conn *c, uint32_t id, bool ended)
{
    AG_ASSERT(!ag_h2_conn_is_closing(c));
    begin(s, c, id);
    if (ended) {
        s->ended = true;
        c->receiving--;
    }
    if (c->early_next > 0) {
        take_early(s);
    }
}

enum ag_status ag_h2_stream_open(struct ag_h2_stream *s, struct ag_h2_conn *c)
{
    if (ag_h2_conn_is_closing(c) || c->goaway_seen || c->next_id > AG_H2_ID_MAX) {
        return AG_ELIMIT;
    }
    if (c->streams >= c->peer_streams_max) {
        return AG_AGAIN;
    }
    begin(s, c, c->next_id);
    c->next_id += 2;
    return AG_OK;
}

/* What the sink holds is no concern of the connection's any more. */
static void forget_held(struct ag_h2_stream *s)
{
    AG_ASSERT(s->conn->held >= s->held);
    s->conn->held -= s->held;
    s->held = 0;
}

void ag_h2_stream_leave(struct ag_h2_stream *s)
{
    struct ag_h2_conn *c = s->conn;
    struct ag_h2_stream **at;

    if (!s->live) {
        return;
    }
    if (s->held > 0) {
        ag_h2_conn_wake(c); /* the connection's window may open for it */
    }
    for (at = bucket_of(c, s->id); *at != s; at = &(*at)->next) {
    }
    *at = s->next;
    s->live = false;
    c->streams--;
    c->receiving -= !s->ended;
    ag_h2_stream_unqueue(s);
    if (s->source) {
        ag_body_set_consumer(s->source, NULL, NULL);
        s->source = NULL;
    }
    if (s->sink) {
        ag_body_set_producer(s->sink, NULL, NULL);
        s->sink = NULL;
        forget_held(s);
    }
}

void ag_h2_put_reset(struct ag_h2_conn *c, uint32_t id, enum ag_h2_error code)
{
    uint8_t payload[4];

    remember(c, id);
    ag_h2_put_u32(payload, code);
    (void)ag_h2_put_frame(c, AG_H2_RST_STREAM, 0, id, ag_span(payload, sizeof(payload)));
}

void ag_h2_stream_reset(struct ag_h2_stream *s, enum ag_h2_error code)
{
    struct ag_h2_conn *c = s->conn;

    if (s->live) {
        ag_h2_conn_wake(c); /* its window, and what waits for it */
        ag_h2_stream_leave(s);
        ag_h2_put_reset(c, s->id, code);
    }
}

void ag_h2_stream_lose(struct ag_h2_stream *s, enum ag_h2_error code, enum ag_reason why,
                       const char *what)
{
    ag_h2_stream_leave(s);
    s->conn->role->lost(s, code, why, what);
}

void ag_h2_conn_lose_above(struct ag_h2_conn *c, uint32_t last, enum ag_h2_error code,
                           enum ag_reason why, const char *what)
{
    for (size_t i = 0; i < AG_H2_BUCKETS; i++) {
        struct ag_h2_stream *s = c->buckets[i];

        while (s) {
            if (s->id > last) {
                ag_h2_stream_lose(s, code, why, what);
                s = c->buckets[i]; /* whoever heard of it may have ended others */
            } else {
                s = s->next;
            }
        }
    }
}

void ag_h2_stream_error(struct ag_h2_stream *s, enum ag_h2_error code, const char *what)
{
    struct ag_h2_conn *c = s->conn;

    if (s->live && ag_h2_conn_count_reset(c)) {
        ag_h2_put_reset(c, s->id, code);
        if (s->live) { /* else the connection ended for want of a buffer */
            ag_h2_stream_lose(s, code, AG_REASON_PROTOCOL, what);
        }
    }
}

void ag_h2_conn_refuse(struct ag_h2_conn *c, uint32_t id, enum ag_h2_error code, bool provoked)
{
    if (!provoked || ag_h2_conn_count_reset(c)) {
        ag_h2_put_reset(c, id, code);
    }
}

void ag_h2_stream_ended(struct ag_h2_stream *s)
{
    if (s->sink_left != AG_LENGTH_UNKNOWN && s->sink_left > 0) {
        ag_h2_stream_error(s, AG_H2_PROTOCOL_ERROR, "less content than content-length tells");
        return;
    }
    s->ended = true;
    s->conn->receiving--;
    s->conn->role->ended(s);
}

void ag_h2_stream_set_priority(struct ag_h2_stream *s, struct ag_h2_priority p)
{
    bool queued = s->queued;

    AG_ASSERT(p.urgency < AG_H2_URGENCIES);
    if (s->live && queued) {
        ag_h2_stream_unqueue(s);
    }
    s->urgency = p.urgency;
    s->incremental = p.incremental;
    if (s->live && queued) {
        ag_h2_stream_queue(s);
    }
}

/* ---- windows of what comes ---- */

void ag_h2_flow_count(struct ag_h2_conn *c, struct ag_h2_stream *s, size_t n)
{
    c->recv_window -= (int64_t)n;
    c->measured += n;
    if (s) {
        s->recv_window -= (int32_t)n;
    }
}

static bool put_window_update(struct ag_h2_conn *c, uint32_t id, int64_t more)
{
    uint8_t payload[4];

    ag_h2_put_u32(payload, (uint32_t)more);
    return ag_h2_put_frame(c, AG_H2_WINDOW_UPDATE, 0, id, ag_span(payload, sizeof(payload)));
}

/* When receive buffers run short a peer gets no more ahead than it must. */
static int64_t target_of(const struct ag_h2_conn *c, int64_t wanted)
{
    return c->loop->tight && wanted > AG_H2_WINDOW_DEFAULT ? AG_H2_WINDOW_DEFAULT : wanted;
}

/* Towards upstreams who takes nothing must not stop others, who have no part in it: the windows of streams
 * alone bound what bodies hold. */
static void open_conn(struct ag_h2_conn *c)
{
    int64_t target = target_of(c, c->recv_target);
    int64_t more = target - c->recv_window - (c->role->server ? (int64_t)c->held : 0);

    if (more >= target / 2 && put_window_update(c, 0, more)) {
        c->recv_window += more;
    }
}

/* The more streams there are, the less each may get ahead: see AG_H2_CONN_WINDOW_MAX. */
static int64_t stream_target_of(const struct ag_h2_conn *c)
{
    int64_t share = AG_H2_CONN_WINDOW_MAX / (int64_t)c->streams;

    if (c->role->server || c->stream_target <= share) {
        return c->stream_target;
    }
    return share > AG_H2_WINDOW_DEFAULT ? share : AG_H2_WINDOW_DEFAULT;
}

static void open_stream(struct ag_h2_conn *c, struct ag_h2_stream *s)
{
    int64_t target = target_of(c, stream_target_of(c));
    int64_t more = target - s->recv_window - s->held;

    if (s->ended || more < target / 2 || (s->sink && s->sink->aborted) ||
        (s->sink_left != AG_LENGTH_UNKNOWN && s->sink_left <= (uint64_t)s->recv_window)) {
        return;
    }
    if (put_window_update(c, s->id, more)) {
        s->recv_window += (int32_t)more;
        /* Half a window was used: is it what keeps the peer back? */
        if (c->stream_target < AG_H2_STREAM_WINDOW_MAX && !c->loop->tight &&
            !c->ping_sent_ms[AG_H2_PING_BDP]) {
            c->measured = 0;
            ag_h2_conn_ping(c, AG_H2_PING_BDP);
        }
    }
}

void ag_h2_stream_let(struct ag_h2_stream *s, uint64_t bytes)
{
    int64_t more = (int64_t)ag_min_u64(bytes, AG_H2_WINDOW_MAX) - s->recv_window;

    if (more > 0 && put_window_update(s->conn, s->id, more)) {
        s->recv_window += (int32_t)more;
    }
}

void ag_h2_flow_open(struct ag_h2_conn *c, struct ag_h2_stream *s)
{
    if (ag_h2_conn_is_closing(c)) {
        return;
    }
    open_conn(c);
    if (s && s->live && !ag_h2_conn_is_closing(c)) {
        open_stream(c, s);
    }
}

/* What came within one round trip is the path's bandwidth times its delay, if windows let it through. */
void ag_h2_flow_measured(struct ag_h2_conn *c)
{
    if (c->loop->tight || c->measured < (uint64_t)c->stream_target * 2 / 3) {
        return;
    }
    c->stream_target *= 2;
    if (c->stream_target > AG_H2_STREAM_WINDOW_MAX) {
        c->stream_target = AG_H2_STREAM_WINDOW_MAX;
    }
    if (c->recv_target < (int64_t)c->stream_target * 4) {
        c->recv_target = (int64_t)c->stream_target * 4;
    }
    _Static_assert(AG_H2_STREAM_WINDOW_MAX * 4 <= AG_H2_CONN_WINDOW_MAX, "the growth's end");
}

/* The sink's consumer has taken something, or left. */
static void on_taken(struct ag_body *sink, void *owner)
{
    struct ag_h2_stream *s = owner;
    struct ag_h2_conn *c = s->conn;
    uint64_t holds = sink->q.bytes;

    AG_ASSERT(holds <= s->held);
    c->held -= s->held - holds;
    s->held = (uint32_t)holds;
    if (holds > 0) {
        ag_body_owe_room(sink);
    }
    ag_h2_flow_open(c, s);
}

void ag_h2_stream_set_sink(struct ag_h2_stream *s, struct ag_body *sink, uint64_t length)
{
    s->sink = sink;
    s->sink_left = length;
    ag_body_set_producer(sink, on_taken, s);
}
