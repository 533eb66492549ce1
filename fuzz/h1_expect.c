#include "fuzz/h1_expect.h"

#include "fuzz/h1_answers.h"
#include "proto/h1_chunk.h"

static const struct oracle_limits limits = {EXPECT_LINE_MAX, EXPECT_HEAD_MAX, EXPECT_FIELD_MAX,
                                            AG_H1_CHUNK_LINE_MAX};

/* ---- what has to be ---- */

/* How an action deals with content. */
enum manner {
    EARLY,   /* answers at once, whatever comes */
    LATE,    /* the same, some time later */
    READS,   /* answers when it has all of it */
    STREAMS, /* begins at once, ends with the content */
    LIES,    /* begins at once, and breaks off */
};

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
    default:
        return 200;
    }
}

static void refused(struct expected *e, unsigned statuses)
{
    e->status = 0;
    e->statuses = statuses;
    e->answered = e->must_close = true;
}

/* The answer comes before the content: what is left of it is dropped, if it is not too much. */
static void expect_early(struct expected *e, bool late)
{
    bool much = e->head.has_length ? e->head.length > EXPECT_DISCARD_MAX
                                   : e->body.body.len > EXPECT_DISCARD_MAX;
    bool broken = e->body.verdict != ORACLE_OK;

    e->answered = true;
    if (late) {
        e->may_close = much;
        e->must_close |= broken;
        e->statuses = e->body.verdict == ORACLE_REFUSE ? e->body.statuses : 0;
        e->optional = e->may_abort = broken;
    } else {
        e->must_close |= much || broken;
    }
    /* Nobody can tell whether content that waits for 100 still comes (RFC 9110 10.1.1). */
    e->may_close |= e->head.expects;
}

static void expect_content(struct expected *e)
{
    bool many = e->body.trailers + (e->body.verdict == ORACLE_REFUSE) >
                EXPECT_FIELD_MAX; /* those that are dropped do not count */
    enum manner manner = manner_of(e->act, ag_span_eq(e->head.method, AG_SPAN("HEAD")));

    switch (manner) {
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
        e->must_close |= e->head.has_length && e->head.length > EXPECT_DISCARD_MAX;
        break;
    case LIES:
        e->aborts = true;
        break;
    }
    if (many) {
        e->statuses |= ORACLE_431;
        e->may_close = e->may_abort = e->optional = true;
    }
}

/* What the answer's own form, and its number, make of the connection. */
static void expect_framing(struct expected *e, bool last)
{
    bool until_close = e->act == ACT_CLOSE || ((e->act == ACT_CHUNKS || e->act == ACT_STREAM ||
                                                e->act == ACT_ABORT || e->act == ACT_RESET) &&
                                               e->head.http10);

    if (until_close && e->status == 200 && !ag_span_eq(e->head.method, AG_SPAN("HEAD"))) {
        e->must_close = true;
    }
    if (last) {
        e->must_close = true;
    }
    if (e->head.odd_connection) {
        e->may_close = true;
    } else if (!e->head.keep_alive) {
        e->must_close = true;
    }
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
    if (e->act == ACT_UPGRADE && e->head.upgrade && !content) {
        e->status = 101;
        e->answered = e->must_close = true;
        return;
    }
    if (e->act == ACT_LIMIT && e->head.has_length && e->head.length > ACT_LIMIT_BYTES) {
        e->status = 413;
        e->act = ACT_NONE; /* it never runs */
        expect_early(e, false);
    } else if (e->act == ACT_LIMIT && e->body.body.len > ACT_LIMIT_BYTES) {
        refused(e, ORACLE_413);
    } else {
        expect_content(e);
    }
    expect_framing(e, last);
}

static enum act act_of_target(struct ag_span target)
{
    uint8_t last = target.ptr[target.len - 1];

    return last >= 'a' && last <= 'x' && last != 'h' && last != 'j' && last != 'r' ? (enum act)last
                                                                                   : ACT_NONE;
}

/* What is left of the room; `len` bytes are enough. */
static struct ag_buf room_left(const struct expectation *x, size_t len)
{
    AG_ASSERT(len <= x->room.cap - x->room.len);
    return ag_buf(x->room.ptr + x->room.len, len);
}

bool expect_all(struct expectation *x, struct ag_span in, struct ag_buf room)
{
    size_t at = 0;
    unsigned bigs = 0;

    *x = (struct expectation){.in = in, .room = room};
    while (at < in.len) {
        struct ag_span rest = ag_span_sub(in, at, in.len);
        struct expected *e = &x->v[x->count];

        if (x->count == EXPECT_MAX) {
            return false;
        }
        x->count++;
        *e = (struct expected){0};
        oracle_read_head(rest, &limits, room_left(x, rest.len + 1), &e->head);
        x->room.len += e->head.path.len;
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
        e->act = act_of_target(e->head.target);
        oracle_read_body(ag_span_sub(rest, e->head.head_len, rest.len), &e->head, &limits,
                         room_left(x, rest.len), &e->body);
        x->room.len += e->body.body.len;
        expect_request(e, &bigs, x->count == EXPECT_REQUESTS);
        if (e->must_close || e->aborts) {
            return true;
        }
        at += e->head.head_len + e->body.len;
    }
    return true;
}

/* ---- what is ---- */

/* What the action took of the request's content. */
static void check_taken(const struct expected *e, const struct act_seen *seen, const struct acts *a)
{
    struct ag_span want = ag_buf_span(&e->body.body);

    if (e->status == 101) {
        return; /* it took what followed */
    }
    AG_ASSERT(ag_span_starts(want, ag_span(a->bytes.ptr + seen->body, seen->body_len)));
    AG_ASSERT(!seen->body_ended || (e->body.verdict == ORACLE_OK && seen->body_len == want.len));
}

static void check_seen(const struct expected *e, const struct act_seen *seen, const struct acts *a)
{
    const struct oracle_head *h = &e->head;
    bool plain = !h->odd_connection;

    AG_ASSERT(ag_span_eq(h->method, seen->method) && ag_span_eq(h->target, seen->target));
    AG_ASSERT(ag_span_eq(ag_buf_span(&h->path), seen->path) && ag_span_eq(h->query, seen->query));
    AG_ASSERT(ag_span_eq(h->authority, seen->authority));
    AG_ASSERT(h->http10 == (seen->version == AG_HTTP_10));
    AG_ASSERT(h->chunked == (seen->framing == AG_FRAMING_CHUNKED));
    AG_ASSERT(h->has_length == (seen->framing == AG_FRAMING_LENGTH));
    AG_ASSERT(seen->length == (h->has_length ? h->length : AG_LENGTH_UNKNOWN));
    AG_ASSERT(h->expects == seen->expects);
    if (plain) {
        AG_ASSERT(h->keep_alive == seen->keep_alive && h->upgrade == seen->upgrade);
    }
    AG_ASSERT(seen->done);
    check_taken(e, seen, a);
}

/* The content that the answer to `e` has, when it is the one expected. */
static bool content_is_right(const struct expectation *x, const struct expected *e,
                             struct ag_span got, bool complete)
{
    bool head = ag_span_eq(e->head.method, AG_SPAN("HEAD"));
    struct ag_span want = act_fixed_body(e->act);

    if (e->status == 101) {
        want = ag_span_sub(x->in, e->at, x->in.len);
        return complete ? ag_span_eq(want, got) : ag_span_starts(want, got);
    }
    if (e->status != 200 || head) {
        return !head || got.len == 0;
    }
    if (e->act == ACT_ECHO || e->act == ACT_CHUNKS || e->act == ACT_STREAM ||
        e->act == ACT_FILTER || e->act == ACT_LIMIT) {
        want = ag_buf_span(&e->body.body);
    }
    return complete ? ag_span_eq(want, got) : ag_span_starts(want, got);
}

/* What the server answers when time or memory is out, beside what it would have answered. */
static bool is_trouble(unsigned status)
{
    return status == 408 || status == 503 || status == 400;
}

/* What the answer says of the connection. */
static void check_connection(const struct expected *e, const struct answer *got)
{
    const struct oracle_head *h = &e->head;
    bool may_stay = h->verdict != ORACLE_OK || h->keep_alive || h->odd_connection;

    if (got->status == 101) {
        return;
    }
    AG_ASSERT(may_stay || got->close);
    /* A client of HTTP/1.0 that is not told closes. */
    AG_ASSERT(h->http10 ? got->close || got->keep_alive : !got->keep_alive);
}

static void check_answer(const struct expectation *x, const struct expected *e,
                         const struct answer *got, bool strict)
{
    unsigned hints = e->act == ACT_HINTS && !e->head.http10;
    bool liar =
        e->act == ACT_LONG || e->act == ACT_SHORT || e->act == ACT_ABORT || e->act == ACT_RESET;
    bool refusal = (oracle_status_bit(got->status) & e->statuses) != 0;

    AG_ASSERT(got->interim <= hints + e->head.expects);
    check_connection(e, got);
    if (!e->status || got->status != e->status) {
        AG_ASSERT(refusal || (!strict && is_trouble(got->status)));
        AG_ASSERT(got->close || !got->complete || !strict);
    } else if (liar) {
        AG_ASSERT(!got->complete || ag_span_eq(e->head.method, AG_SPAN("HEAD")));
    } else {
        bool whole = got->complete && (strict || !got->tunnel);
        AG_ASSERT(content_is_right(x, e, got->body, whole));
    }
}

/* Reads the answer to `e` at the start of `rest`. When bytes are late the server may have refused the
 * request before it knew that it is HEAD. */
static size_t read_answer(const struct expected *e, struct ag_span rest, const struct outcome *o,
                          struct answer *out)
{
    bool head = ag_span_eq(e->head.method, AG_SPAN("HEAD"));
    size_t len = answer_read(rest, head, !o->aborted, o->scratch, out);

    if (head && !o->strict && len < rest.len && is_trouble(out->status)) {
        len = answer_read(rest, false, !o->aborted, o->scratch, out);
    }
    return len;
}

/* `rest` is the last answer of a connection, to a request that never got as far as the pipeline. */
static void check_trouble(const struct expected *e, struct ag_span rest, const struct outcome *o)
{
    struct answer got;
    size_t len = read_answer(e, rest, o, &got);

    AG_ASSERT(!o->strict && len == rest.len && (o->aborted || got.complete));
    AG_ASSERT(!got.complete || (is_trouble(got.status) && got.close));
}

/* Whether the run may have come to its end with message `e`, the last that got as far as it did. */
static bool may_end_with(const struct expected *e, bool aborted)
{
    return aborted ? e->aborts || e->may_abort : e->must_close || e->may_close || e->optional;
}

/* How far a check has come. */
struct walk {
    const struct expectation *x;
    const struct acts *a;
    const struct outcome *o;
    size_t at;     /* bytes of the output */
    unsigned seen; /* requests of the pipeline */
    bool over;     /* nothing may follow */
};

/* The request itself. False: the pipeline never got it. */
static bool walk_request(struct walk *w, const struct expected *e)
{
    if (!e->seen) {
        return true;
    }
    if (w->seen == w->a->seen_count) {
        if (w->at < w->o->out.len) {
            check_trouble(e, ag_span_sub(w->o->out, w->at, w->o->out.len), w->o);
            w->at = w->o->out.len;
        }
        return false;
    }
    check_seen(e, &w->a->seen[w->seen++], w->a);
    return true;
}

/* Message `i`. False: the connection ended before it. */
static bool walk_message(struct walk *w, unsigned i)
{
    const struct expected *e = &w->x->v[i];
    const struct outcome *o = w->o;
    struct answer got;
    size_t len;

    if (!walk_request(w, e)) {
        return false;
    }
    len = read_answer(e, ag_span_sub(o->out, w->at, o->out.len), o, &got);
    w->at += len;
    if (got.status) {
        check_answer(w->x, e, &got, o->strict);
        AG_ASSERT(got.complete || (o->aborted && w->at == o->out.len));
        w->over = got.close || got.until_close || got.tunnel;
        return true;
    }
    if (!e->seen && len == 0 && i > 0 && may_end_with(&w->x->v[i - 1], o->aborted)) {
        return false;
    }
    AG_ASSERT(o->aborted || (w->at == o->out.len && (!o->strict || !e->answered || e->optional)));
    w->at = o->out.len;
    w->over = !e->seen; /* else others may have been seen, and their answers lost */
    return true;
}

void expect_check(const struct expectation *x, const struct acts *a, const struct outcome *o)
{
    struct walk w = {x, a, o, 0, 0, false};
    unsigned i = 0;

    while (i < x->count && !w.over && walk_message(&w, i)) {
        i++;
    }
    /* Nothing came that was not to come. */
    AG_ASSERT(w.at == o->out.len && w.seen == a->seen_count);
    if (o->strict && (i < x->count || (i > 0 && o->aborted))) {
        AG_ASSERT(i > 0 && may_end_with(&x->v[i - 1], o->aborted));
    }
}
