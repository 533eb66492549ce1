/*
 * A whole connection: the server's protocol machine over a stream in memory, with actions of all
 * kinds behind it. Each input is run in one piece, in pieces, and by a script of everything that can
 * happen to a connection. In all of them an independent reading of the same bytes (h1_expect.h) has
 * to agree on the requests, their content, who is answered with what and where it ends; no request is
 * forgotten, no client waits for ever, bounds hold, and in the end nothing is left behind.
 *
 * Input:  seed | mode | n | bytes of the client ... | n bytes of script
 */
#include "fuzz/h1_expect.h"
#include "fuzz/pieces.h"
#include "proto/h1_server.h"
#include "tests/memwire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX  8192u
#define SCRIPT_MAX 64u

/* The loop's pools. */
#define NODES 1024u
#define PAGES 64u
#define SMALL 384u
#define LARGE 12u

/* Turns without any progress after which a connection is stuck. */
#define TURNS_MAX 64u

/* What h1_server.c keeps of pipelined input, and what may still come after it has paused. */
#define IN_SLICES_MAX (16u + 3u)
#define BODY_SLICES   (AG_BODY_SLICES_MAX + 2u)

enum mode {
    MODE_LATE_DATA = 1,   /* one slice more comes after each pause */
    MODE_SLOW_READER = 2, /* the client takes nothing until the script says so */
    MODE_TIME = 4,        /* it ends by falling silent, not by closing */
    MODE_SCARCE = 8,      /* little is left of one of the pools: see `scarce` */
    MODE_DRAINING = 64,   /* accepted while the server drains */
    MODE_NAMED = 128,     /* the peer's address is known */
};

static const struct ag_server_limits server_limits = {
    .head = {EXPECT_LINE_MAX, EXPECT_HEAD_MAX, EXPECT_FIELD_MAX},
    .header_timeout_ms = 10000,
    .idle_timeout_ms = 75000,
    .max_requests = EXPECT_REQUESTS,
    .discard_max_bytes = EXPECT_DISCARD_MAX,
    .route = AG_ROUTE_LIMITS_DEFAULT,
};
/* All of them, and more: after so long without input nobody waits any more. */
#define SILENCE_MS 200000u
/* A draining connection without a request does not stay for as long. */
#define DRAIN_MS 1000u

/* The connection under test; one at a time. */
static struct rig {
    bool made;
    struct memloop m;
    struct acts acts;
    struct memwire wire;
    struct ag_h1_server h1;
    struct expectation expectation;
    uint8_t out[2u * 1024u * 1024u], scratch[2u * 1024u * 1024u];
    uint8_t expected_bytes[16u * INPUT_MAX], seen_bytes[16u * INPUT_MAX];
    /* what MODE_SCARCE keeps from the server */
    void *nodes[NODES], *pages[PAGES];
    struct ag_block *blocks[SMALL + LARGE];
    unsigned nodes_held, pages_held, blocks_held;
    /* one run */
    struct ag_span in;
    size_t at; /* bytes of it that were given to the server */
    unsigned mode;
    bool late; /* a slice has come since the pause */
    bool eof;
    bool cut; /* the test has ended it */
} rig;

/* ---- the server's surroundings ---- */

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    (void)s;
    ag_h1_server_data(&rig.h1, slice);
}

static void on_eof(struct ag_stream *s)
{
    (void)s;
    ag_h1_server_eof(&rig.h1);
}

static void on_drain(struct ag_stream *s)
{
    (void)s;
    ag_h1_server_drained(&rig.h1);
}

static void on_deadline(struct ag_stream *s)
{
    (void)s;
    ag_h1_server_deadline(&rig.h1);
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    (void)s;
    ag_h1_server_closed(&rig.h1, why);
}

static const struct ag_stream_user user = {on_data, on_eof, on_drain, on_deadline, on_close};

static void make_rig(void)
{
    const struct ag_loop_config config = {
        .buf_count = {SMALL, LARGE}, .node_count = NODES, .page_count = PAGES};

    memloop_init(&rig.m, config);
    acts_init(&rig.acts, &rig.m.loop, ag_buf(rig.seen_bytes, sizeof(rig.seen_bytes)));
    rig.made = true;
}

/* Bounds that hold at any time, whatever the client does. */
static void check_bounds(void)
{
    const struct ag_h1_server *h = &rig.h1;

    AG_ASSERT(h->in.count <= IN_SLICES_MAX);
    if (h->ex) {
        AG_ASSERT(h->ex->req_body.q.count <= BODY_SLICES && h->ex->res_body.q.count <= BODY_SLICES);
    }
    AG_ASSERT(rig.acts.ctx.exchanges_live <= 2);
}

static void turn(uint64_t after_ms)
{
    memloop_turn(&rig.m, after_ms);
    for (unsigned i = 0; !ag_list_empty(&rig.m.loop.tasks); i++) {
        AG_ASSERT(i < TURNS_MAX);
        memloop_turn(&rig.m, 0);
    }
    check_bounds();
}

static void begin(struct ag_span in, unsigned mode)
{
    static const union ag_addr peer = {.in = {.sin_family = AF_INET, .sin_port = 0x3930}};

    rig.in = in;
    rig.at = 0;
    rig.mode = mode;
    rig.late = rig.eof = rig.cut = false;
    acts_reset(&rig.acts);
    memwire_init(&rig.wire, &rig.m, &user, ag_buf(rig.out, sizeof(rig.out)));
    rig.wire.window = mode & MODE_SLOW_READER ? 0 : SIZE_MAX;
    rig.wire.peer = mode & MODE_NAMED ? &peer : NULL;
    ag_h1_server_init(&rig.h1, &rig.wire.stream, &rig.acts.ctx, &server_limits, 80);
    rig.h1.draining = mode & MODE_DRAINING;
}

/* Gives the server the next `len` bytes, as far as it reads. False: it does not, or there are none. */
static bool feed(size_t len)
{
    struct ag_span rest = ag_span_sub(rig.in, rig.at, rig.in.len);
    size_t fed;

    rig.late = rig.late && rig.wire.paused;
    if (!memwire_open(&rig.wire) || rig.eof ||
        (rig.wire.paused && (rig.late || !(rig.mode & MODE_LATE_DATA)))) {
        return false;
    }
    rig.late = rig.wire.paused;
    fed = memwire_feed(&rig.wire, ag_span_sub(rest, 0, ag_min_size(len, rest.len)));
    rig.at += fed;
    return fed > 0;
}

static void end_input(void)
{
    if (memwire_open(&rig.wire) && !rig.wire.paused && !rig.eof) {
        rig.eof = true;
        memwire_eof(&rig.wire);
    }
}

/* ---- the end of a run ---- */

static void free_held(void)
{
    while (rig.nodes_held > 0) {
        ag_pool_put(&rig.m.loop.nodes, rig.nodes[--rig.nodes_held]);
    }
    while (rig.pages_held > 0) {
        ag_pool_put(&rig.m.loop.pages, rig.pages[--rig.pages_held]);
    }
    while (rig.blocks_held > 0) {
        ag_block_release(rig.blocks[--rig.blocks_held]);
    }
}

/* Everything is back, and the connection is gone. */
static void check_clean(void)
{
    const struct ag_loop *l = &rig.m.loop;

    AG_ASSERT(rig.wire.closed && !rig.acts.work);
    AG_ASSERT(l->nodes.used == 0 && l->pages.used == 0);
    AG_ASSERT(ag_loop_bufs_used(l, AG_BUF_SMALL) == 0 && ag_loop_bufs_used(l, AG_BUF_LARGE) == 0);
    AG_ASSERT(rig.acts.ctx.exchanges_live == 0);
    AG_ASSERT(rig.acts.snapshots[0].refs == 1 && rig.acts.snapshots[1].refs == 1);
    AG_ASSERT(rig.acts.done_count == rig.acts.seen_count);
    AG_ASSERT(ag_list_empty(&l->tasks) && l->wheel.armed == 0);
}

static void finish(bool strict)
{
    const struct outcome o = {.out = ag_buf_span(&rig.wire.out),
                              .scratch = rig.scratch,
                              .aborted = rig.wire.aborted,
                              .strict = strict};

    free_held();
    check_clean();
    AG_ASSERT(o.aborted || o.strict || rig.wire.finished);
    expect_check(&rig.expectation, &rig.acts, &o);
}

/* Lets all that waits go on, and gives the client what it is owed. */
static void settle(void)
{
    memwire_open_window(&rig.wire, SIZE_MAX);
    turn(0);
    while (acts_waits(&rig.acts, true)) {
        acts_resume(&rig.acts);
        turn(0);
    }
}

/* Gives the server what is left, in pieces, and ends the connection. */
static void feed_rest(size_t most)
{
    struct pieces p = pieces_of(rig.in.len - rig.at, most);

    for (size_t piece; (piece = pieces_next(&p)) > 0;) {
        while (piece > 0 && memwire_open(&rig.wire)) {
            size_t before = rig.at;

            if (!feed(piece)) {
                settle();
                /* What waits is through, so it reads on, unless memory is short. */
                AG_ASSERT(feed(piece) || !memwire_open(&rig.wire) || (rig.mode & MODE_SCARCE));
                if (rig.at == before) {
                    return;
                }
            }
            piece -= rig.at - before;
            turn(0);
            if (acts_waits(&rig.acts, false)) {
                acts_resume(&rig.acts);
                turn(0);
            }
        }
    }
}

/* ---- in one piece, and in pieces ---- */

static void run_pieces(struct ag_span in, size_t most)
{
    begin(in, 0);
    feed_rest(most);
    settle();
    end_input();
    settle();
    AG_ASSERT(rig.wire.closed);
    finish(true);
}

/* ---- by script ---- */

/* Takes all of one pool but a little. */
static void make_scarce(unsigned mode, unsigned left)
{
    struct ag_loop *l = &rig.m.loop;

    switch (mode >> 4 & 3) {
    case 0:
        while (rig.nodes_held < NODES - left) {
            rig.nodes[rig.nodes_held++] = ag_pool_get(&l->nodes);
        }
        break;
    case 1:
        while (rig.pages_held < PAGES - left % 8) {
            rig.pages[rig.pages_held++] = ag_pool_get(&l->pages);
        }
        break;
    case 2:
        while (rig.blocks_held < SMALL - left) {
            rig.blocks[rig.blocks_held++] = ag_loop_buf(l, AG_BUF_SMALL);
        }
        break;
    default:
        while (rig.blocks_held < LARGE - left % 4) {
            rig.blocks[rig.blocks_held++] = ag_loop_buf(l, AG_BUF_LARGE);
        }
    }
}

static void feed_line(void)
{
    struct ag_span rest = ag_span_sub(rig.in, rig.at, rig.in.len);

    (void)feed(ag_min_size(ag_span_find(rest, '\n') + 1, rest.len));
}

static void happen(unsigned what)
{
    switch (what) {
    case 0:
    case 1:
        end_input();
        break;
    case 2:
        acts_reload(&rig.acts);
        break;
    case 3:
        if (memwire_open(&rig.wire)) {
            ag_h1_server_drain(&rig.h1);
        }
        break;
    case 4:
        memwire_abort(&rig.wire.stream, AG_REASON_RESET);
        rig.cut = true;
        break;
    case 5:
        if (memwire_open(&rig.wire)) {
            ag_h1_server_deadline(&rig.h1); /* for nothing: it has to see that */
        }
        break;
    case 6:
        free_held();
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
        (void)feed((much + 1) * 4); /* and more in the same turn */
        break;
    case 1:
        for (unsigned i = 0; i <= much; i++) {
            (void)feed(1 + much / 8); /* in the same turn */
        }
        turn(0);
        break;
    case 2:
        feed_line();
        turn(0);
        break;
    case 3:
        memwire_open_window(&rig.wire, (much + 1) * (much + 1) * 8);
        turn(0);
        break;
    case 4:
        turn((uint64_t)much * much * 100);
        break;
    case 5:
        if (acts_waits(&rig.acts, true)) {
            acts_resume(&rig.acts);
        }
        turn(0);
        break;
    case 6:
        happen(much & 7);
        turn(0);
        break;
    default:
        (void)feed(SIZE_MAX);
        turn(0);
    }
}

/* A connection that drains ends soon after its exchange, and one that falls silent in time. */
static void check_ends(void)
{
    bool answered = rig.acts.seen_count > 0 || !(rig.mode & MODE_DRAINING);

    if (rig.h1.draining && answered && rig.h1.state == AG_H1_IDLE) {
        turn(DRAIN_MS);
        AG_ASSERT(!memwire_open(&rig.wire));
    }
    if (rig.mode & MODE_TIME && memwire_open(&rig.wire) && rig.h1.state != AG_H1_TUNNEL) {
        for (unsigned i = 0; i < 4 && memwire_open(&rig.wire); i++) {
            turn(SILENCE_MS);
        }
        AG_ASSERT(!memwire_open(&rig.wire));
        rig.cut = true;
    }
}

static void run_script(struct ag_span in, unsigned seed, unsigned mode, struct ag_span script)
{
    begin(in, mode);
    if (mode & MODE_SCARCE) {
        make_scarce(mode, seed & 15);
    }
    for (size_t i = 0; i < script.len && !rig.wire.closed; i++) {
        step(script.ptr[i]);
    }
    if (!rig.wire.closed && !(mode & MODE_TIME)) {
        feed_rest(SIZE_MAX);
    }
    settle();
    if (!rig.wire.closed) {
        check_ends();
        free_held();
        settle();
        end_input();
        settle();
    }
    if (!rig.wire.closed && mode & MODE_SCARCE) {
        memwire_abort(&rig.wire.stream, AG_REASON_RESET);
        turn(0);
    }
    AG_ASSERT(rig.wire.closed);
    finish(false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 || size > INPUT_MAX || data[2] > SCRIPT_MAX || size < 3u + data[2]) {
        return 0;
    }
    if (!rig.made) {
        make_rig();
    }
    struct ag_span in = ag_span(data + 3, size - 3 - data[2]);
    if (!expect_all(&rig.expectation, in, ag_buf(rig.expected_bytes, sizeof(rig.expected_bytes)))) {
        return 0;
    }
    run_pieces(in, SIZE_MAX);
    /* Bytes one by one cost a turn each, so long inputs come in longer pieces. */
    run_pieces(in, 1 + data[0] % 64 + in.len / 64);
    run_script(in, data[0], data[1], ag_span(data + 3 + in.len, data[2]));
    return 0;
}
