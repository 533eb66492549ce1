#include "fuzz/h1_answers.h"
#include "fuzz/h1_rig.h"

/* A timer's ticks: it is never early, and no more than that late. */
#define TICKS_MS 24u
/* What a drain leaves an idle connection. */
#define GRACE_MS 100u

/* ---- by a client that waits for its answers ---- */

static struct ag_span told_since(size_t before)
{
    return ag_span_sub(ag_buf_span(&rig.wire.out), before, rig.wire.out.len);
}

/* Content, some of it long before the filter lets it through: what waits with us is not late. */
static void feed_past_filter(const struct expected *e)
{
    size_t before = rig.wire.out.len;

    rig_feed_to(e->at + 1);
    AG_ASSERT(rig.wire.paused);
    rig_turn(40000);
    AG_ASSERT(memwire_open(&rig.wire) && rig.wire.out.len == before);
    acts_resume(&rig.acts);
    rig_turn(0);
    rig_turn(4000);
    AG_ASSERT(memwire_open(&rig.wire));
}

/* The head has come, and nothing waits: those who are to send content hear of it. */
static void check_continue(const struct expected *e, size_t before)
{
    bool told = ag_span_starts(told_since(before), AG_SPAN("HTTP/1.1 100 Continue\r\n\r\n"));

    AG_ASSERT(told == (e->head.expects && e->wants));
}

/* The answer to a message that came whole: it is there, and the connection goes on or not. */
static void check_prompt(const struct expected *e, size_t before)
{
    struct ag_span out = told_since(before);
    struct answer got;
    size_t len = answer_read(out, e->is_head, !memwire_open(&rig.wire), rig.scratch, &got);
    bool content = e->head.chunked || e->head.length > 0;

    AG_ASSERT(len == out.len && got.status && (got.complete || got.tunnel));
    if (got.tunnel) {
        return;
    }
    AG_ASSERT(!got.close || !memwire_open(&rig.wire));
    /* Nobody can tell whether content that waits for 100 still comes. */
    AG_ASSERT(got.close || !e->head.expects || !content || e->wants);
}

/* Whether its answer has begun when its head has come, and goes on with its content. */
static bool is_under_way(const struct expected *e)
{
    return e->manner == STREAMS && e->body.verdict == ORACLE_OK && e->body.len > 1;
}

/* Feeds one message; false: the connection has ended. */
static bool say(struct expected *e, bool last, unsigned how)
{
    size_t before = rig.wire.out.len;
    bool whole = e->head.verdict == ORACLE_OK;
    bool waiting = e->act == ACT_WAIT || e->act == ACT_DELAYED || e->act == ACT_LAZY;

    if (last && !waiting && !is_under_way(e)) {
        rig_drain(how & 8);
    }
    rig_feed_to(whole ? e->at : rig.in.len);
    if (last && waiting) {
        rig_drain(how & 8);
    }
    if (whole && e->act == ACT_FILTER && e->body.verdict == ORACLE_OK && e->body.len > 1 &&
        how & 16 && acts_waits(&rig.acts, false)) {
        feed_past_filter(e);
    } else {
        rig_settle();
        if (whole && memwire_open(&rig.wire)) {
            check_continue(e, before);
        }
    }
    if (whole && memwire_open(&rig.wire)) {
        rig_feed_to(e->at + e->body.len / 2);
        rig_settle();
        if (last && is_under_way(e)) {
            rig_drain(how & 8);
        }
        /* What is refused, or not whole, lies behind what was read of it. */
        rig_feed_to(e->body.verdict == ORACLE_OK ? e->at + e->body.len : rig.in.len);
        rig_settle();
    }
    if (e->answered && !e->optional && e->head.verdict != ORACLE_MORE &&
        e->body.verdict == ORACLE_OK && !rig.wire.aborted) {
        check_prompt(e, before);
    }
    return memwire_open(&rig.wire);
}

/* The time that content has by its limits (SPEC.md section 10). */
static unsigned content_ms(const struct expected *e)
{
    bool tight = e->act == ACT_LIMIT;
    unsigned bought = (unsigned)(e->body.body.len * 1000 / (tight ? 100 : 240));

    unsigned ms = tight ? 2000 + bought : 5000 + bought, most = tight ? 10000 : 30000;

    return ms < most ? ms : most;
}

/* An open connection falls silent behind `e`, or at once: it ends when its time has come, not before. */
static void check_silence(const struct expected *e, unsigned idle_ms)
{
    size_t before = rig.wire.out.len;
    unsigned due = idle_ms;
    bool told = false;
    struct answer got;

    if (e && e->head.verdict == ORACLE_MORE) {
        due = EXPECT_HEADER_MS;
        told = true;
    } else if (e && e->body.verdict == ORACLE_MORE) {
        due = e->manner == STREAMS ? EXPECT_IDLE_MS : content_ms(e);
        told = e->manner == READS;
    }
    rig_turn(due - 1);
    AG_ASSERT(memwire_open(&rig.wire) && rig.wire.out.len == before);
    rig_turn(TICKS_MS);
    AG_ASSERT(!memwire_open(&rig.wire));
    AG_ASSERT(told == (rig.wire.out.len > before));
    if (told) {
        size_t len = answer_read(told_since(before), e->is_head, true, rig.scratch, &got);

        AG_ASSERT(before + len == rig.wire.out.len);
        AG_ASSERT(got.status == 408 && got.complete && got.close);
    }
}

/* The time that an idle connection has left, with an empty line or without. */
static unsigned idle_ms_of(const struct expected *e, bool drained)
{
    return drained ? GRACE_MS : e ? EXPECT_IDLE_MS : EXPECT_HEADER_MS;
}

#define NEVER 255u

void polite_run(struct ag_span in, unsigned seed, unsigned mode)
{
    struct expectation *x = &rig.expectation;
    unsigned last = mode & MODE_DRAINING ? seed % 8 : NEVER;
    struct expected *e = NULL;
    bool open = true, drained = false;

    rig_begin(in, mode & MODE_NAMED);
    for (unsigned i = 0; open && i < x->count; i++) {
        e = &x->v[i];
        if (i == last) {
            e->must_close = e->says_close = e->must_close || !is_under_way(e);
            x->count = i + 1;
        }
        open = say(e, i == last, seed);
    }
    if (last == NEVER || x->count <= last || rig.h1.state == AG_H1_TUNNEL) {
        rig_feed_to(in.len);
    }
    open = memwire_open(&rig.wire);
    if (open && last != NEVER) {
        rig_drain(seed & 8); /* also of one that drains already, which changes nothing */
        drained = !(seed & 8);
    }
    if (open && mode & MODE_TIME && rig.h1.state != AG_H1_TUNNEL) {
        check_silence(e, idle_ms_of(e, drained));
        rig_finish(false, NULL);
        return;
    }
    rig_end();
    AG_ASSERT(rig.wire.closed);
    rig_finish(true, &open);
}

/* ---- by a client that takes nothing ---- */

#define STALL_STEP_MS 5000u
#define STALL_STEPS   80u

void stalled_run(struct ag_span in)
{
    rig_begin(in, MODE_SLOW_READER);
    rig_feed_to(in.len);
    for (unsigned i = 0; i < STALL_STEPS && memwire_open(&rig.wire); i++) {
        if (acts_waits(&rig.acts, true)) {
            acts_resume(&rig.acts);
        }
        rig_turn(STALL_STEP_MS);
        rig_feed_to(in.len);
    }
    AG_ASSERT(!memwire_open(&rig.wire) || rig.h1.state == AG_H1_TUNNEL);
    memwire_abort(&rig.wire.stream, AG_REASON_RESET);
    rig_settle();
    rig_finish(false, NULL);
}
