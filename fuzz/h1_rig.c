#include "fuzz/h1_rig.h"

#include "fuzz/pieces.h"

/* Turns without any progress after which a connection is stuck. */
#define TURNS_MAX 64u

/* What h1_server.c keeps of pipelined input, and what may still come after it has paused. */
#define IN_SLICES_MAX (16u + 3u)
#define BODY_SLICES   (AG_BODY_SLICES_MAX + 2u)
/* What one turn may queue beyond AG_STREAM_HIGH: a large slice, or a long head. */
#define QUEUED_MAX (AG_STREAM_HIGH + 32768u)

static const struct ag_server_limits server_limits = {
    .head = {EXPECT_LINE_MAX, EXPECT_HEAD_MAX, EXPECT_FIELD_MAX},
    .header_timeout_ms = EXPECT_HEADER_MS,
    .idle_timeout_ms = EXPECT_IDLE_MS,
    .max_requests = EXPECT_REQUESTS,
    .discard_max_bytes = EXPECT_DISCARD_MAX,
    .route = AG_ROUTE_LIMITS_DEFAULT,
};

struct rig rig;

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
    rig.incomplete = s->incomplete;
    ag_h1_server_closed(&rig.h1, why);
}

static const struct ag_stream_user user = {.on_data = on_data,
                                           .on_eof = on_eof,
                                           .on_drain = on_drain,
                                           .on_deadline = on_deadline,
                                           .on_close = on_close};

void rig_make(void)
{
    const struct ag_loop_config config = {
        .buf_count = {RIG_SMALL, RIG_LARGE}, .node_count = RIG_NODES, .page_count = RIG_PAGES};

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
    AG_ASSERT(ag_stream_queued(&rig.wire.stream) <= QUEUED_MAX);
    /* Large buffers are for content alone, and for whoever has just sent such. */
    AG_ASSERT(h->state != AG_H1_IDLE || rig.wire.paused || rig.wire.group == AG_BUF_SMALL ||
              h->large);
}

void rig_turn(uint64_t after_ms)
{
    memloop_turn(&rig.m, after_ms);
    for (unsigned i = 0; !ag_list_empty(&rig.m.loop.tasks); i++) {
        AG_ASSERT(i < TURNS_MAX);
        memloop_turn(&rig.m, 0);
    }
    check_bounds();
}

void rig_begin(struct ag_span in, unsigned mode)
{
    static const union ag_addr peers[] = {
        {.in = {.sin_family = AF_INET, .sin_port = 0x3930, .sin_addr = {0x04030201}}},
        {.in6 = {.sin6_family = AF_INET6,
                 .sin6_port = 0x3930,
                 .sin6_addr = {{{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}}}},
    };

    rig.in = in;
    rig.at = 0;
    rig.mode = mode;
    rig.late = rig.eof = rig.odd = rig.whole = false;
    rig.m.loop.tight = false;
    acts_reset(&rig.acts);
    memwire_init(&rig.wire, &rig.m, &user, ag_buf(rig.out, sizeof(rig.out)));
    rig.wire.window = mode & MODE_SLOW_READER ? 0 : SIZE_MAX;
    rig.wire.peer = mode & MODE_NAMED ? &peers[in.len % AG_COUNT(peers)] : NULL;
    rig.acts.peer = rig.wire.peer;
    rig.acts.scarce = mode & MODE_SCARCE;
    rig.acts.port = (uint16_t)(80 + in.len);
    ag_h1_server_init(&rig.h1, &rig.wire.stream, &rig.acts.ctx, &server_limits, rig.acts.port);
    rig.h1.draining = mode & MODE_DRAINING;
}

/* Gives the server the next `len` bytes, as far as it reads. False: it does not, or there are none. */
bool rig_feed(size_t len)
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

void rig_end_input(void)
{
    /* One that is under way may come behind a pause. */
    bool may_come = !rig.wire.paused || (rig.mode & MODE_LATE_DATA && !rig.late);

    if (memwire_open(&rig.wire) && may_come && !rig.eof) {
        rig.eof = true;
        rig.odd |= rig.at < rig.in.len;
        memwire_eof(&rig.wire);
    }
}

/* ---- the end of a run ---- */

void rig_free_held(void)
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
    for (size_t i = 0; i < AG_COUNT(rig.acts.snapshots); i++) {
        AG_ASSERT(rig.acts.snapshots[i].refs == 1);
    }
    AG_ASSERT(rig.acts.done_count == rig.acts.seen_count);
    AG_ASSERT(ag_list_empty(&l->tasks) && l->wheel.armed == 0);
}

/* `open`, when it is known: whether the connection was open before its end came. */
void rig_finish(bool strict, const bool *open)
{
    const struct outcome o = {.out = ag_buf_span(&rig.wire.out),
                              .scratch = rig.scratch,
                              .aborted = rig.wire.aborted,
                              .strict = strict,
                              .scarce = rig.mode & MODE_SCARCE,
                              .whole = rig.whole,
                              .knows_open = open != NULL,
                              .open = open && *open,
                              .incomplete = rig.incomplete};

    rig_free_held();
    check_clean();
    AG_ASSERT(o.aborted || o.strict || rig.wire.finished);
    expect_check(&rig.expectation, &rig.acts, &o);
}

/* Lets all that waits go on, and gives the client what it is owed. */
void rig_settle(void)
{
    memwire_open_window(&rig.wire, SIZE_MAX);
    rig_turn(0);
    while (acts_waits(&rig.acts, true)) {
        acts_resume(&rig.acts);
        rig_turn(0);
    }
}

void rig_end(void)
{
    rig_end_input();
    rig_settle();
    if (rig.h1.state == AG_H1_EXCHANGE && rig.h1.res_started && !rig.h1.res_done) {
        rig_turn(EXPECT_IDLE_MS + 3 * AG_TIMER_TICK_MS);
    }
}

/* Gives the server what is left, in pieces, and ends the connection. */
void rig_feed_rest(size_t most)
{
    struct pieces p = pieces_of(rig.in.len - rig.at, most);

    for (size_t piece; (piece = pieces_next(&p)) > 0;) {
        while (piece > 0 && memwire_open(&rig.wire)) {
            size_t before = rig.at;

            if (!rig_feed(piece)) {
                rig_settle();
                /* What waits is through, so it reads on, unless memory is short. */
                AG_ASSERT(rig_feed(piece) || !memwire_open(&rig.wire) || (rig.mode & MODE_SCARCE));
                if (rig.at == before) {
                    return;
                }
            }
            piece -= rig.at - before;
            rig_turn(0);
            if (acts_waits(&rig.acts, false)) {
                acts_resume(&rig.acts);
                rig_turn(0);
            }
        }
    }
}

/* The input up to `end`, as far as it is read. */
void rig_feed_to(size_t end)
{
    while (rig.at < end && rig_feed(end - rig.at)) {
        rig_turn(0);
    }
}

/* Takes all of one pool but a little. */
void rig_make_scarce(unsigned left)
{
    struct ag_loop *l = &rig.m.loop;

    switch (rig.mode >> 4 & 3) {
    case 0:
        while (rig.nodes_held < RIG_NODES - left) {
            rig.nodes[rig.nodes_held++] = ag_pool_get(&l->nodes);
        }
        break;
    case 1:
        while (rig.pages_held < RIG_PAGES - left % 8) {
            rig.pages[rig.pages_held++] = ag_pool_get(&l->pages);
        }
        break;
    case 2:
        while (rig.blocks_held < RIG_SMALL - left) {
            rig.blocks[rig.blocks_held++] = ag_loop_buf(l, AG_BUF_SMALL);
        }
        break;
    default:
        while (rig.blocks_held < RIG_LARGE - left % 4) {
            rig.blocks[rig.blocks_held++] = ag_loop_buf(l, AG_BUF_LARGE);
        }
    }
}

void rig_drain(bool yield)
{
    if (!memwire_open(&rig.wire)) {
        return;
    }
    rig.odd = true;
    if (yield) {
        ag_h1_server_yield(&rig.h1);
    } else {
        ag_h1_server_drain(&rig.h1);
    }
}
