#include "fuzz/h1_expect.h"

#include "proto/h1_chunk.h"

static const struct oracle_limits limits = {EXPECT_LINE_MAX, EXPECT_HEAD_MAX, EXPECT_FIELD_MAX,
                                            AG_H1_CHUNK_LINE_MAX};

/* ---- what has to be ---- */

static enum manner manner_of(enum act act, bool head_method)
{
    switch (act) {
    case ACT_NONE:
    case ACT_FIXED:
    case ACT_FIXED_LONG:
    case ACT_HINTS:
    case ACT_UNCHANGED:
    case ACT_EMPTY:
    case ACT_HEAD:
    case ACT_FAIL:
    case ACT_UPGRADE:
    case ACT_FIELDS:
    case ACT_PARAMS:
    case ACT_TWICE:
    case ACT_BUSY:
        return EARLY;
    case ACT_BIG:
        return head_method ? EARLY : LATE;
    case ACT_WAIT:
    case ACT_DELAYED:
        return LATE;
    case ACT_CHUNKS:
    case ACT_ECHO:
    case ACT_CLOSE:
    case ACT_FILTER:
    case ACT_LIMIT:
    case ACT_LAZY:
        return READS;
    case ACT_STREAM:
        return head_method ? EARLY : STREAMS;
    case ACT_ABORT:
    case ACT_SHORT:
    case ACT_LONG:
        return head_method ? EARLY : LIES;
    case ACT_RESET:
        return LIES;
    }
    AG_UNREACHABLE("an action that is none");
}

static unsigned status_of(enum act act)
{
    switch ((int)act) {
    case ACT_NONE:
        return 404;
    case ACT_EMPTY:
        return 204;
    case ACT_UNCHANGED:
        return 304;
    case ACT_FAIL:
        return 500;
    case ACT_UPGRADE:
        return 426;
    case ACT_BUSY:
        return 503;
    default:
        return 200;
    }
}

static void refused(struct expected *e, unsigned statuses)
{
    e->status = 0;
    e->statuses = statuses;
    e->answered = e->must_close = e->says_close = true;
}

/* The answer comes before the content: what is left of it is dropped, if it is not too much. */
static void expect_early(struct expected *e, bool late)
{
    bool told = e->head.has_length && e->head.length > EXPECT_DISCARD_MAX;
    bool much = told || (!e->head.has_length && e->body.body.len > EXPECT_DISCARD_MAX);
    bool broken = e->body.verdict != ORACLE_OK;

    e->answered = true;
    if (late) {
        e->may_close = much;
        e->must_close |= broken;
        e->statuses = e->body.verdict == ORACLE_REFUSE ? e->body.statuses : 0;
        e->optional = e->may_abort = broken;
    } else {
        e->must_close |= much || broken;
        e->says_close |= told;
        e->drops_much = much;
    }
    /* Nobody can tell whether content that waits for 100 still comes (RFC 9110 10.1.1). */
    e->in_doubt = e->head.expects;
}

/* Whether the action asks for content, if there is some. */
static bool wants_content(enum act act)
{
    return act == ACT_STREAM || manner_of(act, false) == READS;
}

static void expect_content(struct expected *e)
{
    bool content = e->head.chunked || e->head.length > 0;
    bool many = e->body.trailers + (e->body.verdict == ORACLE_REFUSE) >
                EXPECT_FIELD_MAX; /* those that are dropped do not count */

    switch (e->manner) {
    case EARLY:
        expect_early(e, false);
        break;
    case LATE:
        expect_early(e, true);
        break;
    case READS:
        if (e->body.verdict == ORACLE_REFUSE) {
            refused(e, e->body.statuses);
        } else {
            e->answered = e->body.verdict == ORACLE_OK;
            e->aborts = !e->answered;
        }
        break;
    case STREAMS:
        e->answered = e->body.verdict == ORACLE_OK;
        e->aborts = !e->answered;
        e->says_close = e->head.has_length && e->head.length > EXPECT_DISCARD_MAX;
        e->must_close |= e->says_close;
        break;
    case LIES:
        e->aborts = true;
        break;
    }
    if (many) {
        e->statuses |= ORACLE_431;
        e->may_close = e->may_abort = e->optional = true;
    }
    e->wants = content && wants_content(e->act);
}

/* What the answer's own form, and its number, make of the connection. */
static void expect_framing(struct expected *e, bool last)
{
    bool until_close = e->act == ACT_CLOSE || ((e->act == ACT_CHUNKS || e->act == ACT_STREAM ||
                                                e->act == ACT_ABORT || e->act == ACT_RESET) &&
                                               e->head.http10);

    bool ends = until_close && e->status == 200 && !e->is_head;

    if (ends || last || (!e->head.odd_connection && !e->head.keep_alive)) {
        e->must_close = e->says_close = true;
    }
    e->may_close |= e->head.odd_connection;
}

/* A request with a good head. */
static void expect_request(struct expected *e, unsigned *bigs, bool last)
{
    bool content = e->head.chunked || e->head.length > 0;

    e->seen = true;
    e->status = status_of(e->act);
    if (e->act == ACT_BIG && (*bigs)++ >= ACT_BIG_MAX) {
        e->act = ACT_NONE;
        e->status = 404;
    }
    e->manner = manner_of(e->act, e->is_head);
    if (e->act == ACT_UPGRADE && e->head.upgrade && !content) {
        e->status = 101;
        e->answered = e->must_close = true;
        return;
    }
    if (e->act == ACT_LIMIT && e->head.has_length && e->head.length > ACT_LIMIT_BYTES) {
        e->status = 413;
        e->act = ACT_NONE; /* it never runs */
        e->manner = EARLY;
        expect_early(e, false);
    } else if (e->act == ACT_LIMIT && e->body.body.len > ACT_LIMIT_BYTES) {
        refused(e, ORACLE_413);
        e->wants = true;
    } else {
        expect_content(e);
    }
    expect_framing(e, last);
}

/* The next `len` bytes of the room. */
static struct ag_buf room_left(struct expectation *x, size_t len)
{
    AG_ASSERT(len <= x->room.cap - x->room.len);
    x->room.len += len;
    return ag_buf(x->room.ptr + x->room.len - len, len);
}

bool expect_all(struct expectation *x, struct ag_span in, struct ag_buf room)
{
    size_t at = 0;
    unsigned bigs = 0;

    x->in = in;
    x->room = room;
    x->count = 0;
    while (at < in.len) {
        struct ag_span rest = ag_span_sub(in, at, in.len);
        struct expected *e = &x->v[x->count];

        if (x->count == EXPECT_MAX) {
            return false;
        }
        x->count++;
        *e = (struct expected){.start = at};
        oracle_read_head(rest, &limits, room_left(x, rest.len + 1), room_left(x, 3 * rest.len + 1),
                         &e->head);
        e->is_head = ag_span_eq(e->head.method, AG_SPAN("HEAD"));
        if (e->head.verdict != ORACLE_OK) {
            /* Nothing but an empty line is no request. */
            if (e->head.verdict == ORACLE_MORE && ag_span_starts(AG_SPAN("\r\n"), rest)) {
                x->count--;
            } else {
                refused(e, e->head.statuses ? e->head.statuses : ORACLE_400);
            }
            return true;
        }
        e->at = at + e->head.head_len;
        e->act = act_of_letter(e->head.target.ptr[e->head.target.len - 1]);
        oracle_read_body(ag_span_sub(rest, e->head.head_len, rest.len), &e->head, &limits,
                         room_left(x, rest.len), room_left(x, rest.len), &e->body);
        expect_request(e, &bigs, x->count == EXPECT_REQUESTS);
        if (e->must_close || e->aborts) {
            return true;
        }
        at += e->head.head_len + e->body.len;
    }
    return true;
}
