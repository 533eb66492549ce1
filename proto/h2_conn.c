#include "proto/h2_conn_parts.h"

/* Pages of the tables: text and entries of each direction, and the decoder's scratch. */
#define TABLE_PAGES_MAX 8u
/* What a useful frame earns: window updates for it, a ping. */
#define EARNED_NOISE 4
/* And one of content that was sent, in all cases: its stream's and its connection's. */
#define EARNED_UPDATES 2u
/* Debug data of GOAWAY (RFC 9113 section 6.8). */
#define DEBUG_BYTES_MAX 128u

static void run(struct ag_h2_conn *c);

static void work_task(struct ag_task *t)
{
    run(ag_container_of(t, struct ag_h2_conn, work));
}

void ag_h2_conn_wake(struct ag_h2_conn *c)
{
    if (!c->running && !ag_h2_conn_is_closing(c)) {
        ag_task_queue(c->loop, &c->work);
    }
}

/* ---- beginning ---- */

void ag_h2_conn_init(struct ag_h2_conn *c, struct ag_stream *s, const struct ag_h2_role *role,
                     uint32_t part_timeout_ms)
{
    *c = (struct ag_h2_conn){
        .stream = s,
        .loop = s->loop,
        .role = role,
        .send_window = AG_H2_WINDOW_DEFAULT,
        .recv_window = AG_H2_WINDOW_DEFAULT,
        .recv_target = AG_H2_CONN_WINDOW,
        .stream_target = AG_H2_WINDOW_DEFAULT,
        .noise = (int32_t)AG_H2_NOISE_MAX,
        .budget_ms = s->loop->now_ms,
        .part_timeout_ms = part_timeout_ms,
        .next_id = 1,
        .goaway_id = AG_H2_ID_MAX,
        .state = role->server ? AG_H2_PREFACE : AG_H2_SETTLING,
        .peer_window = AG_H2_WINDOW_DEFAULT,
        .peer_frame_max = AG_H2_FRAME_DEFAULT,
        .peer_streams_max = AG_H2_STREAMS_GUESS,
    };
    ag_task_init(&c->work, work_task);
    ag_list_init(&c->waiting);
    for (size_t i = 0; i < AG_H2_URGENCIES; i++) {
        ag_list_init(&c->queues[i]);
    }
    ag_arena_init(&c->memory, &s->loop->pages, TABLE_PAGES_MAX);
    ag_hpack_decoder_init(&c->decoder, &c->memory);
    ag_hpack_encoder_init(&c->encoder, &c->memory);
}

bool ag_h2_conn_start(struct ag_h2_conn *c, const struct ag_h2_pair *settings, size_t count)
{
    uint8_t payload[16 * AG_H2_SETTING_BYTES], *at = payload, window[4];

    AG_ASSERT(count * AG_H2_SETTING_BYTES <= sizeof(payload));
    if (!c->role->server && ag_stream_put(c->stream, AG_H2_MAGIC) != AG_OK) {
        ag_h2_conn_abort(c, AG_REASON_RESOURCES);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        at = ag_h2_put_setting(at, settings[i].id, settings[i].value);
    }
    (void)ag_h2_put_u32(window, (uint32_t)(c->recv_target - c->recv_window));
    if (!ag_h2_put_frame(c, AG_H2_SETTINGS, 0, 0, ag_span(payload, (size_t)(at - payload))) ||
        !ag_h2_put_frame(c, AG_H2_WINDOW_UPDATE, 0, 0, ag_span(window, sizeof(window)))) {
        return false;
    }
    c->recv_window = c->recv_target;
    return true;
}

/* ---- budgets ---- */

/* Both fill up evenly, to what AG_H2_BUDGET_MS allow. */
static void refill(struct ag_h2_conn *c)
{
    uint64_t passed_ms = ag_min_u64(c->loop->now_ms - c->budget_ms, AG_H2_BUDGET_MS);
    int32_t noise = (int32_t)(passed_ms * AG_H2_NOISE_MAX / AG_H2_BUDGET_MS);
    int32_t resets = (int32_t)(passed_ms * c->resets_max / AG_H2_BUDGET_MS);

    if (noise == 0 || (c->resets_max && resets == 0)) {
        return; /* what is not whole yet is not lost */
    }
    c->budget_ms = c->loop->now_ms;
    c->noise =
        c->noise + noise < (int32_t)AG_H2_NOISE_MAX ? c->noise + noise : (int32_t)AG_H2_NOISE_MAX;
    c->resets = c->resets > resets ? c->resets - resets : 0;
}

void ag_h2_conn_earn(struct ag_h2_conn *c)
{
    if (c->noise < (int32_t)AG_H2_NOISE_MAX) {
        c->noise += EARNED_NOISE;
    }
}

void ag_h2_conn_earn_updates(struct ag_h2_conn *c)
{
    ag_h2_conn_earn(c);
    if (c->updates < AG_H2_UPDATES_MAX) {
        c->updates += EARNED_UPDATES;
    }
}

bool ag_h2_conn_noise(struct ag_h2_conn *c, const char *what)
{
    if (c->noise == 0) {
        refill(c);
    }
    if (c->noise > 0) {
        c->noise--;
        return true;
    }
    ag_h2_conn_fail(c, AG_H2_ENHANCE_YOUR_CALM, AG_REASON_LIMIT, what);
    return false;
}

bool ag_h2_conn_count_reset(struct ag_h2_conn *c)
{
    if (c->resets_max == 0) {
        return true;
    }
    if ((uint32_t)c->resets >= c->resets_max) {
        refill(c);
    }
    if ((uint32_t)c->resets < c->resets_max) {
        c->resets++;
        return true;
    }
    ag_h2_conn_fail(c, AG_H2_ENHANCE_YOUR_CALM, AG_REASON_LIMIT, "too many streams reset");
    return false;
}

/* ---- the end ---- */

void ag_h2_conn_goaway(struct ag_h2_conn *c, uint32_t last, enum ag_h2_error code,
                       struct ag_span debug)
{
    uint8_t payload[8 + DEBUG_BYTES_MAX];
    size_t n = ag_min_size(debug.len, DEBUG_BYTES_MAX);

    (void)ag_h2_put_u32(payload, last);
    (void)ag_h2_put_u32(payload + 4, code);
    if (n) {
        memcpy(payload + 8, debug.ptr, n);
    }
    c->goaway_sent = true;
    c->goaway_id = last;
    (void)ag_h2_put_frame(c, AG_H2_GOAWAY, 0, 0, ag_span(payload, 8 + n));
}

/* Nothing is called from now on but `lost`. False: it is so already. */
static bool begin_end(struct ag_h2_conn *c, enum ag_reason why, const char *what)
{
    if (ag_h2_conn_is_closing(c)) {
        return false;
    }
    c->state = AG_H2_CLOSING;
    c->reason = (uint8_t)why;
    c->what = what;
    ag_task_cancel(&c->work);
    return true;
}

static void end_all(struct ag_h2_conn *c, enum ag_h2_error code)
{
    ag_h2_conn_lose_above(c, 0, code, (enum ag_reason)c->reason, c->what);
    AG_ASSERT(c->streams == 0);
    ag_h2_input_clear(c);
}

static uint32_t last_taken(const struct ag_h2_conn *c)
{
    return c->last_id < c->goaway_id ? c->last_id : c->goaway_id;
}

void ag_h2_conn_fail(struct ag_h2_conn *c, enum ag_h2_error code, enum ag_reason why,
                     const char *what)
{
    if (ag_h2_conn_is_closing(c)) {
        return;
    }
    ag_h2_conn_goaway(c, last_taken(c), code, ag_span_str(what));
    if (begin_end(c, why, what)) { /* else there was no buffer for that */
        end_all(c, code);
        ag_stream_finish(c->stream);
    }
}

void ag_h2_conn_finish(struct ag_h2_conn *c, enum ag_reason why)
{
    if (ag_h2_conn_is_closing(c)) {
        return;
    }
    if (!c->goaway_sent || c->goaway_id == AG_H2_ID_MAX) {
        ag_h2_conn_goaway(c, last_taken(c), AG_H2_NO_ERROR, AG_SPAN(""));
    }
    if (begin_end(c, why, NULL)) {
        end_all(c, AG_H2_CANCEL);
        ag_stream_finish(c->stream);
    }
}

void ag_h2_conn_abort(struct ag_h2_conn *c, enum ag_reason why)
{
    if (begin_end(c, why, NULL)) {
        end_all(c, AG_H2_CANCEL);
        ag_stream_abort(c->stream, why);
    }
}

void ag_h2_conn_closed(struct ag_h2_conn *c, enum ag_reason why)
{
    if (begin_end(c, why == AG_REASON_NONE ? AG_REASON_EOF : why, NULL)) {
        end_all(c, AG_H2_CANCEL);
    }
    ag_arena_release(&c->memory);
}

/* ---- pings ---- */

void ag_h2_conn_ping(struct ag_h2_conn *c, enum ag_h2_ping kind)
{
    uint8_t payload[8] = {'a', 'n', 'y', 'g', 'a', 't', 'e', (uint8_t)kind};

    if (!ag_h2_conn_is_closing(c) && !c->ping_sent_ms[kind] &&
        ag_h2_put_frame(c, AG_H2_PING, 0, 0, ag_span(payload, sizeof(payload)))) {
        c->ping_sent_ms[kind] = c->loop->now_ms;
    }
}

/* ---- rounds ---- */

static void settle_reading(struct ag_h2_conn *c, bool was_large)
{
    enum ag_buf_group group = c->large ? AG_BUF_LARGE : AG_BUF_SMALL;

    if (c->eof) {
        return;
    }
    if (c->blocked && !c->paused) {
        c->paused = true;
        ag_stream_pause(c->stream);
    } else if ((!c->blocked && c->paused) || (!c->paused && was_large != c->large)) {
        c->paused = false;
        ag_stream_resume(c->stream, group);
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return b && (!a || b < a) ? b : a;
}

/* The timer is left alone when it fires early enough: ag_h2_conn_deadline looks at what is due. */
static void settle_deadline(struct ag_h2_conn *c)
{
    struct ag_timer *t = &c->stream->deadline;
    uint64_t now = c->loop->now_ms, due = c->due_ms;

    if (ag_h2_input_is_partial(c) && !c->blocked) {
        c->part_due_ms = c->part_due_ms ? c->part_due_ms : now + c->part_timeout_ms;
    } else {
        c->part_due_ms = 0;
    }
    /* While idle, a little that is left of an answer can wait for the end of that. */
    if (ag_stream_queued(c->stream) <= (c->streams == 0 ? AG_STREAM_LOW : 0) &&
        !ag_h2_send_is_stalled(c)) {
        c->look_ms = 0;
    } else if (c->look_ms == 0) {
        c->look_ms = now + ag_stream_look_ms(c->stream);
    }
    due = sooner(sooner(sooner(due, c->part_due_ms), c->look_ms), c->hold_ms);
    if (due && (!ag_timer_armed(t) || t->at_ms > due)) {
        ag_stream_deadline(c->stream, due > now ? due - now : 0);
    }
}

static void end_round(struct ag_h2_conn *c, bool was_large)
{
    if (!ag_h2_conn_is_closing(c)) {
        c->role->settle(c);
    }
    if (c->eof && !c->blocked && !ag_h2_conn_is_closing(c)) {
        c->role->eof(c);
    }
    if (!ag_h2_conn_is_closing(c)) {
        settle_reading(c, was_large); /* first: who is not read is not waited for */
        settle_deadline(c);
    }
}

static void run(struct ag_h2_conn *c)
{
    bool was_large = c->large;

    if (ag_h2_conn_is_closing(c)) {
        return;
    }
    ag_task_cancel(&c->work);
    c->running = true;
    ag_h2_read_frames(c);
    ag_h2_send_data(c);
    ag_h2_flow_open(c, NULL); /* for what streams held that have left */
    c->running = false;
    end_round(c, was_large);
}

/* ---- the stream's callbacks ---- */

void ag_h2_conn_data(struct ag_h2_conn *c, struct ag_slice s)
{
    if (ag_h2_conn_is_closing(c)) {
        ag_slice_release(&s);
        return;
    }
    if (ag_chain_push(&c->in.q, &c->loop->nodes, s) != AG_OK) {
        ag_h2_conn_abort(c, AG_REASON_RESOURCES);
        return;
    }
    run(c);
}

void ag_h2_conn_eof(struct ag_h2_conn *c)
{
    c->eof = true;
    run(c);
}

void ag_h2_conn_drained(struct ag_h2_conn *c)
{
    run(c);
}

void ag_h2_conn_deadline(struct ag_h2_conn *c)
{
    uint64_t now = c->loop->now_ms;

    if (ag_h2_conn_is_closing(c)) {
        return;
    }
    c->running = true;
    if (c->look_ms && now >= c->look_ms) {
        c->look_ms = 0;
        if (ag_stream_queued(c->stream) > 0 && ag_stream_too_slow(c->stream)) {
            ag_h2_conn_abort(c, AG_REASON_TIMEOUT);
        } else {
            ag_h2_send_look(c);
        }
    }
    if (!ag_h2_conn_is_closing(c) && c->part_due_ms && now >= c->part_due_ms) {
        ag_h2_conn_fail(c, AG_H2_ENHANCE_YOUR_CALM, AG_REASON_TIMEOUT,
                        "the rest of a frame or field section took too long");
    }
    if (!ag_h2_conn_is_closing(c) && c->due_ms && now >= c->due_ms) {
        c->due_ms = 0;
        c->role->late(c);
    }
    if (!ag_h2_conn_is_closing(c)) {
        ag_h2_send_held(c);
        ag_h2_send_data(c);
        ag_h2_flow_open(c, NULL);
    }
    c->running = false;
    end_round(c, c->large);
}
