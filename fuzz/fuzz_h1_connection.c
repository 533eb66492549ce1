/*
 * A whole connection: the server's protocol machine over a stream in memory, with actions of all
 * kinds behind it. Each input is run in one piece, in pieces, by a script of everything that can happen
 * to a connection, by a client that waits for each answer and then falls silent, and by one that takes
 * nothing. In all of them an independent reading of the same bytes (h1_expect.h) has
 * to agree on the requests, their content, who is answered with what and where it ends; no request is
 * forgotten, no client waits for ever, bounds hold, and in the end nothing is left behind.
 *
 * Input:  seed | mode | n | bytes of the client ... | n bytes of script
 */
#include "fuzz/h1_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SCRIPT_MAX 64u

/* All timeouts, and more: after so long without input nobody waits any more. */
#define SILENCE_MS 200000u
/* A draining connection without a request does not stay for as long. */
#define DRAIN_MS 1000u

/* ---- in one piece, and in pieces ---- */

static void run_pieces(struct ag_span in, size_t most)
{
    bool open;

    rig_begin(in, 0);
    rig.whole = most == SIZE_MAX && in.len <= AG_BUF_SMALL_BYTES;
    rig_feed_rest(most);
    rig_settle();
    open = memwire_open(&rig.wire);
    rig_end();
    AG_ASSERT(rig.wire.closed);
    rig_finish(true, &open);
}

/* ---- by script ---- */

static void feed_line(void)
{
    struct ag_span rest = ag_span_sub(rig.in, rig.at, rig.in.len);

    (void)rig_feed(ag_min_size(ag_span_find(rest, '\n') + 1, rest.len));
}

static void happen(unsigned what, bool other)
{
    switch (what) {
    case 0:
        rig_end_input();
        break;
    case 1: /* buffers run short; the bounds are tight, but everything goes on */
        rig.m.loop.tight = true;
        break;
    case 2:
        acts_reload(&rig.acts);
        break;
    case 3:
        rig_drain(other);
        break;
    case 4:
        memwire_abort(&rig.wire.stream, AG_REASON_RESET);
        rig.odd = true;
        break;
    case 5:
        if (memwire_open(&rig.wire)) {
            ag_h1_server_deadline(&rig.h1); /* for nothing: it has to see that */
        }
        break;
    case 6:
        rig_free_held();
        break;
    default:
        memwire_open_window(&rig.wire, SIZE_MAX);
    }
}

/* One byte of script: three bits of what, five of how much. */
static void step(uint8_t op)
{
    unsigned much = op >> 3;

    switch (op & 7) {
    case 0:
        (void)rig_feed((much + 1) * 4); /* and more in the same turn */
        break;
    case 1:
        for (unsigned i = 0; i <= much; i++) {
            (void)rig_feed(1 + much / 8); /* in the same turn */
        }
        rig_turn(0);
        break;
    case 2:
        feed_line();
        rig_turn(0);
        break;
    case 3:
        memwire_open_window(&rig.wire, (much + 1) * (much + 1) * 8);
        rig_turn(0);
        break;
    case 4:
        rig.odd |= much > 0;
        rig_turn((uint64_t)much * much * 100);
        break;
    case 5:
        if (acts_waits(&rig.acts, true)) {
            acts_resume(&rig.acts);
        }
        rig_turn(0);
        break;
    case 6:
        happen(much & 7, much & 8);
        rig_turn(0);
        break;
    default:
        (void)rig_feed(SIZE_MAX);
        rig_turn(0);
    }
}

/* A connection that drains ends soon after its exchange, and one that falls silent in time. */
static void check_ends(void)
{
    bool answered = rig.acts.seen_count > 0 || !(rig.mode & MODE_DRAINING);
    /* A request that has come, and waits for memory, is not idle. */
    bool idle = rig.h1.state == AG_H1_IDLE && rig.h1.in.bytes == 0;

    if (rig.h1.draining && !rig.h1.yielding && answered && idle) {
        rig_turn(DRAIN_MS);
        AG_ASSERT(!memwire_open(&rig.wire));
    }
    if (rig.mode & MODE_TIME && memwire_open(&rig.wire) && rig.h1.state != AG_H1_TUNNEL) {
        for (unsigned i = 0; i < 4 && memwire_open(&rig.wire); i++) {
            rig_turn(SILENCE_MS);
        }
        AG_ASSERT(!memwire_open(&rig.wire));
    }
}

static void run_script(struct ag_span in, unsigned seed, unsigned mode, struct ag_span script)
{
    rig_begin(in, mode);
    rig.odd = mode & (MODE_TIME | MODE_SCARCE | MODE_DRAINING);
    if (mode & MODE_SCARCE) {
        rig_make_scarce(seed & 15);
    }
    for (size_t i = 0; i < script.len && !rig.wire.closed; i++) {
        step(script.ptr[i]);
    }
    if (!rig.wire.closed && !(mode & MODE_TIME)) {
        rig_feed_rest(SIZE_MAX);
    }
    rig_settle();
    if (!rig.wire.closed) {
        check_ends();
        rig_free_held();
        rig_settle();
        rig_end();
    }
    AG_ASSERT(rig.wire.closed);
    rig_finish(!rig.odd, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 || size > RIG_INPUT_MAX || data[2] > SCRIPT_MAX || size < 3u + data[2]) {
        return 0;
    }
    if (!rig.made) {
        rig_make();
    }
    struct ag_span in = ag_span(data + 3, size - 3 - data[2]);
    if (!expect_all(&rig.expectation, in, ag_buf(rig.expected_bytes, sizeof(rig.expected_bytes)))) {
        return 0;
    }
    run_pieces(in, SIZE_MAX);
    /* Bytes one by one cost a turn each, so long inputs come in longer pieces. */
    run_pieces(in, 1 + data[0] % 64 + in.len / 64);
    run_script(in, data[0], data[1], ag_span(data + 3 + in.len, data[2]));
    stalled_run(in);
    polite_run(in, data[0], data[1]); /* last: it shortens what is expected */
    return 0;
}
