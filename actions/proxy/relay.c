#include "actions/proxy/relay.h"

#include "actions/action.h"

#include "engine/resolver.h"

static const struct ag_upstream_claim_ops claim_ops;
static const struct ag_upstream_raw_ops raw_ops;

static void set_state(struct ag_relay *r, enum ag_relay_state next)
{
    static const uint8_t edges[] = {
        [AG_RELAY_HELLO] = 1u << AG_RELAY_CONNECTING | 1u << AG_RELAY_ENDING,
        [AG_RELAY_CONNECTING] = 1u << AG_RELAY_OPEN | 1u << AG_RELAY_ENDING,
        [AG_RELAY_OPEN] = 1u << AG_RELAY_ENDING,
        [AG_RELAY_ENDING] = 0,
    };

    AG_ASSERT(edges[r->state] & 1u << next);
    r->state = (uint8_t)next;
}

static struct ag_loop *loop_of(const struct ag_relay *r)
{
    return r->context->loop;
}

/* ---- the end ---- */

/* What was only needed to choose. */
static void let_go(struct ag_relay *r)
{
    ag_block_release(r->settings_owner);
    r->settings_owner = NULL;
    r->settings = NULL;
    ag_block_release(r->tail);
    r->tail = NULL;
}

/* The first reason stays. False: it was ending already. */
static bool begin_end(struct ag_relay *r, enum ag_reason why, const char *detail)
{
    if (r->state == AG_RELAY_ENDING) {
        return false;
    }
    set_state(r, AG_RELAY_ENDING);
    r->reason = (uint8_t)why;
    r->detail = detail;
    ag_chain_clear(&r->early, &loop_of(r)->nodes);
    let_go(r);
    if (!r->back) {
        ag_upstream_cancel(&r->claim); /* of a claim that waits, or that never was */
    }
    return true;
}

/* What was under way must not look whole to either side. */
static void break_off(struct ag_stream *s, enum ag_reason why)
{
    if (s) {
        s->incomplete = true;
        ag_stream_abort(s, why);
    }
}

static void fail(struct ag_relay *r, enum ag_reason why, const char *detail)
{
    if (begin_end(r, why, detail)) {
        break_off(r->front, why);
        break_off(r->back, why);
    }
}

void ag_relay_abort(struct ag_relay *r, enum ag_reason why)
{
    if (r->state == AG_RELAY_ENDING) { /* what still flushes is cut, too */
        break_off(r->front, why);
        break_off(r->back, why);
    } else {
        fail(r, why, "aborted");
    }
}

/* In order: what is queued is still sent. */
static void finish(struct ag_relay *r)
{
    if (begin_end(r, AG_REASON_NONE, NULL)) {
        ag_stream_finish(r->front);
        ag_stream_finish(r->back);
    }
}

static void look_over(struct ag_relay *r)
{
    if (!r->front && !r->back) {
        r->over(r);
    }
}

/* One side has gone. Where both had said all, that is the end; else the other one learns of it as it was. */
static void side_closed(struct ag_relay *r, enum ag_reason why, const char *detail)
{
    if (r->state != AG_RELAY_ENDING) {
        fail(r, why == AG_REASON_NONE ? AG_REASON_EOF : why, detail);
    } else if (r->reason == AG_REASON_NONE && why != AG_REASON_NONE) {
        r->reason = (uint8_t)why;
        r->detail = detail;
    }
    look_over(r);
}

void ag_relay_closed(struct ag_relay *r, enum ag_reason why)
{
    r->front = NULL;
    side_closed(r, why, "the client's side");
}

/* ---- both ways ---- */

/* Long content comes in large buffers. */
static enum ag_buf_group group_of(size_t len)
{
    return len >= AG_BUF_SMALL_BYTES ? AG_BUF_LARGE : AG_BUF_SMALL;
}

static void pass_on(struct ag_relay *r, struct ag_stream *from, struct ag_stream *to,
                    struct ag_slice slice, bool *full)
{
    enum ag_buf_group group = group_of(slice.len);

    r->active_ms = loop_of(r)->now_ms;
    if (group == AG_BUF_LARGE && ag_stream_takes_pipes(to)) {
        ag_stream_unseen(from, UINT64_MAX); /* only a ClientHello is read here */
    }
    if (ag_stream_write(to, slice) != AG_OK) {
        fail(r, AG_REASON_RESOURCES, "out of memory");
    } else if (ag_stream_full(to)) {
        *full = true;
        ag_stream_pause(from);
    } else if (group == AG_BUF_LARGE) {
        ag_stream_resume(from, group);
    }
}

static void go_on(struct ag_relay *r, struct ag_stream *from, bool *full)
{
    r->active_ms = loop_of(r)->now_ms;
    if (r->state == AG_RELAY_OPEN && *full) {
        *full = false;
        ag_stream_resume(from, AG_BUF_LARGE);
    }
}

static void end_of_input(struct ag_relay *r, struct ag_stream *to, bool *eof)
{
    *eof = true;
    if (r->front_eof && r->back_eof) {
        finish(r);
    } else {
        ag_stream_shut(to);
    }
}

/* ---- the server's side ---- */

static struct ag_relay *of(struct ag_upstream_claim *claim)
{
    return ag_container_of(claim, struct ag_relay, claim);
}

static void back_data(struct ag_upstream_claim *claim, struct ag_slice slice)
{
    struct ag_relay *r = of(claim);

    if (r->state != AG_RELAY_OPEN) {
        ag_slice_release(&slice);
        return;
    }
    r->down_bytes += slice.len;
    pass_on(r, r->back, r->front, slice, &r->front_full);
}

static void back_eof(struct ag_upstream_claim *claim)
{
    struct ag_relay *r = of(claim);

    if (r->state == AG_RELAY_OPEN) {
        end_of_input(r, r->front, &r->back_eof);
    }
}

static void back_drained(struct ag_upstream_claim *claim)
{
    struct ag_relay *r = of(claim);

    go_on(r, r->front, &r->back_full);
}

static void back_closed(struct ag_upstream_claim *claim, enum ag_reason why)
{
    struct ag_relay *r = of(claim);

    r->back = NULL;
    side_closed(r, why, "the server's side");
}

static const struct ag_upstream_raw_ops raw_ops = {
    .data = back_data, .eof = back_eof, .drained = back_drained, .closed = back_closed};

/* ---- the choice of a server ---- */

const struct ag_upstream *ag_relay_choose(const struct ag_relay_settings *s, struct ag_span name)
{
    const struct ag_relay_name *best = NULL;

    for (uint32_t i = 0; i < s->name_count; i++) {
        const struct ag_relay_name *n = &s->names[i];

        bool wild = n->name.ptr[0] == '.';

        if (!wild && ag_span_eq(n->name, name)) {
            return n->to;
        }
        if (wild && name.len > n->name.len &&
            ag_span_eq(ag_span_sub(name, name.len - n->name.len, name.len), n->name) &&
            (!best || n->name.len > best->name.len)) {
            best = n;
        }
    }
    return best ? best->to : s->fallback;
}

static void note_server(struct ag_relay *r)
{
    struct ag_buf b = ag_buf(r->server, sizeof(r->server));

    ag_buf_put(&b, r->claim.peer->authority);
    if (b.overflow) {
        ag_buf_put(&b, AG_SPAN("?"));
    }
    r->server_len = (uint8_t)b.len;
}

bool ag_relay_leads_back(const struct ag_addr_list *listens, const union ag_addr *to,
                         const union ag_addr *from)
{
    for (uint32_t i = 0; listens && i < listens->count; i++) {
        if (ag_addr_leads_to(to, from, &listens->each[i])) {
            return true;
        }
    }
    return false;
}

/* Nothing in its bytes would ever stop a connection that comes back: each turn makes two more. */
static bool comes_back(const struct ag_relay *r)
{
    union ag_addr to, from;

    ag_conn_peer(&r->claim.conn->plain, &to);
    ag_conn_local(&r->claim.conn->plain, &from);
    return ag_relay_leads_back(r->settings->listens, &to, &from);
}

/* The server is here: what has come meanwhile goes first. */
static void open_up(struct ag_relay *r)
{
    set_state(r, AG_RELAY_OPEN);
    r->back = &r->claim.conn->stream;
    note_server(r);
    r->leads_back = comes_back(r);
    ag_block_release(r->settings_owner);
    r->settings_owner = NULL;
    r->settings = NULL;
    if (r->leads_back) {
        fail(r, AG_REASON_ABORTED, "the server is a tcp listener of this process itself");
        return;
    }
    while (r->early.count > 0) {
        struct ag_slice slice = ag_chain_pop(&r->early, &loop_of(r)->nodes);

        if (ag_stream_write(r->back, slice) != AG_OK) {
            fail(r, AG_REASON_RESOURCES, "out of memory");
            return;
        }
    }
    ag_block_release(r->tail);
    r->tail = NULL;
    r->active_ms = loop_of(r)->now_ms;
    ag_stream_deadline(r->front, r->idle_ms ? r->idle_ms : UINT64_MAX);
    ag_stream_resume(r->front, AG_BUF_SMALL);
    if (r->front_eof) {
        ag_stream_shut(r->back);
    }
}

static void on_ready(struct ag_upstream_claim *claim)
{
    open_up(of(claim));
}

static void on_failed(struct ag_upstream_claim *claim)
{
    struct ag_relay *r = of(claim);

    fail(r, (enum ag_reason)claim->reason, claim->detail);
}

static const struct ag_upstream_claim_ops claim_ops = {.ready = on_ready, .failed = on_failed};

static void greet(struct ag_relay *r, enum ag_proxy_protocol version)
{
    struct ag_buf b = ag_buf(r->greeting, sizeof(r->greeting));
    union ag_addr source, destination;

    ag_peer_address(&r->peer, r->front, &source);
    ag_proxied_local(r->proxied, r->front, &destination);
    ag_proxy_protocol_put(&b, version, &source, &destination, NULL);
    AG_ASSERT(!b.overflow);
    r->claim.greeting = ag_buf_span(&b);
}

static void connect_to(struct ag_relay *r, const struct ag_upstream *up)
{
    struct ag_upstreams *all = r->context->action_state[AG_ACTION_PROXY];
    enum ag_status st;

    set_state(r, AG_RELAY_CONNECTING);
    ag_stream_deadline(r->front, UINT64_MAX);
    if (up->options.proxy_protocol != AG_PROXY_PROTOCOL_NONE) {
        greet(r, up->options.proxy_protocol);
    }
    r->claim.ops = &claim_ops;
    r->claim.raw = &raw_ops;
    r->claim.timeouts = &r->timeouts;
    st = ag_upstream_claim(all, up, &r->claim);
    if (st == AG_OK) {
        open_up(r);
    } else if (st != AG_AGAIN) {
        on_failed(&r->claim);
    }
}

/* An alert of level fatal, in a record of its own (RFC 8446 section 6); then the end. */
static void refuse(struct ag_relay *r, uint8_t alert, const char *why)
{
    const uint8_t record[] = {21, 3, 3, 0, 2, 2, alert};

    if (begin_end(r, AG_REASON_PROTOCOL, why)) {
        if (alert != AG_TLS_ALERT_NONE &&
            ag_stream_put(r->front, ag_span(record, sizeof(record))) != AG_OK) {
            break_off(r->front, AG_REASON_RESOURCES);
        }
        ag_stream_finish(r->front);
    }
}

static void read_hello(struct ag_relay *r, struct ag_span bytes)
{
    enum ag_status st = ag_tls_hello_read(&r->hello, bytes);
    const struct ag_upstream *up;

    if (st == AG_AGAIN) {
        return;
    }
    up = st == AG_OK ? ag_relay_choose(r->settings, ag_tls_hello_name(&r->hello))
                     : r->settings->fallback; /* which may speak something else */
    if (up) {
        connect_to(r, up);
    } else if (st == AG_OK) {
        refuse(r, AG_TLS_ALERT_UNRECOGNIZED_NAME,
               r->hello.name_len ? "a name that goes nowhere" : "no name");
    } else {
        refuse(r, r->hello.alert, r->hello.why);
    }
}

/* ---- the client's side ---- */

/* A piece that pins much more than it has is copied behind the others. */
static bool gather(struct ag_relay *r, struct ag_slice slice)
{
    struct ag_loop *l = loop_of(r);
    struct ag_slice_node *last = r->early.tail;
    size_t len = slice.len;
    uint8_t *to;

    if (len >= AG_BUF_SMALL_BYTES / 4) {
        return ag_chain_push(&r->early, &l->nodes, slice) == AG_OK;
    }
    if (!r->tail || len > r->tail->size - r->tail_used) {
        ag_block_release(r->tail);
        r->tail = ag_loop_buf(l, AG_BUF_SMALL);
        r->tail_used = 0;
    }
    if (!r->tail) {
        ag_slice_release(&slice);
        return false;
    }
    to = r->tail->data + r->tail_used;
    memcpy(to, slice.ptr, len);
    r->tail_used += (uint32_t)len;
    ag_slice_release(&slice);
    if (last && last->slice.owner == r->tail && last->slice.ptr + last->slice.len == to) {
        last->slice.len += len;
        r->early.bytes += len;
        return true;
    }
    return ag_chain_push(&r->early, &l->nodes,
                         (struct ag_slice){{.ptr = to}, len, ag_block_hold(r->tail)}) == AG_OK;
}

static void early_data(struct ag_relay *r, struct ag_slice slice)
{
    struct ag_slice kept = ag_slice_sub(&slice, 0, slice.len);

    if (!gather(r, slice)) {
        fail(r, AG_REASON_RESOURCES, "out of memory");
    } else if (r->state == AG_RELAY_HELLO) {
        read_hello(r, ag_slice_span(&kept));
    }
    ag_slice_release(&kept);
    if (r->state <= AG_RELAY_CONNECTING && r->early.bytes >= AG_RELAY_EARLY_MAX) {
        if (r->state == AG_RELAY_HELLO) {
            fail(r, AG_REASON_LIMIT, "a ClientHello in too many pieces");
        } else {
            ag_stream_pause(r->front);
        }
    }
}

void ag_relay_data(struct ag_relay *r, struct ag_slice slice)
{
    if (r->state == AG_RELAY_ENDING) {
        ag_slice_release(&slice);
        return;
    }
    r->up_bytes += slice.len;
    if (r->state == AG_RELAY_OPEN) {
        pass_on(r, r->front, r->back, slice, &r->back_full);
    } else {
        early_data(r, slice);
    }
}

void ag_relay_eof(struct ag_relay *r)
{
    switch ((enum ag_relay_state)r->state) {
    case AG_RELAY_HELLO:
        fail(r, AG_REASON_EOF, r->up_bytes ? "closed within the ClientHello" : NULL);
        return;
    case AG_RELAY_CONNECTING:
        r->front_eof = true; /* passed on when there is somebody */
        return;
    case AG_RELAY_OPEN:
        end_of_input(r, r->back, &r->front_eof);
        return;
    case AG_RELAY_ENDING:
        return;
    }
    AG_UNREACHABLE("a state that is none");
}

void ag_relay_drained(struct ag_relay *r)
{
    go_on(r, r->back, &r->front_full);
}

static void look_whether_idle(struct ag_relay *r)
{
    uint64_t now = loop_of(r)->now_ms;
    bool front_moved = ag_stream_has_moved(r->front, &r->front->look);
    bool back_moved = ag_stream_has_moved(r->back, &r->back->look);

    if (now - r->active_ms >= r->idle_ms) {
        if (!front_moved && !back_moved) {
            fail(r, AG_REASON_TIMEOUT, "idle");
            return;
        }
        r->active_ms = now; /* of what the kernel holds, somebody still takes */
    }
    ag_stream_deadline(r->front, r->idle_ms - (now - r->active_ms));
}

void ag_relay_deadline(struct ag_relay *r)
{
    if (r->state == AG_RELAY_HELLO) {
        fail(r, AG_REASON_TIMEOUT, "no ClientHello in time");
    } else if (r->state == AG_RELAY_OPEN) {
        look_whether_idle(r);
    }
}

// NOLINTNEXTLINE(readability-function-size): the interface is wider than the body is long
void ag_relay_begin(struct ag_relay *r, struct ag_context *ctx, struct ag_stream *front,
                    const struct ag_relay_settings *settings, struct ag_block *settings_owner,
                    const struct ag_proxied *proxied, ag_relay_over_fn *over)
{
    *r = (struct ag_relay){.front = front,
                           .context = ctx,
                           .settings = settings,
                           .settings_owner = ag_block_hold(settings_owner),
                           .proxied = proxied,
                           .over = over,
                           .timeouts = settings->timeouts,
                           .idle_ms = settings->idle_ms,
                           .started_ms = ctx->loop->now_ms,
                           .active_ms = ctx->loop->now_ms};
    if (proxied) {
        r->peer = proxied->source;
    }
    ag_peer_look(&r->peer, front); /* for the log: when it is over nobody knows any more */
    if (settings->name_count > 0) {
        ag_tls_hello_init(&r->hello);
        ag_stream_deadline(front, settings->hello_ms);
    } else {
        connect_to(r, settings->fallback);
    }
}
