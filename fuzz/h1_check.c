#include "fuzz/h1_answers.h"
#include "fuzz/h1_expect.h"

/* ---- requests ---- */

/* What the action took of the request's content. */
static void check_taken(const struct expected *e, const struct act_seen *seen, const struct acts *a,
                        const struct outcome *o)
{
    struct ag_span want = ag_buf_span(&e->body.body);

    if (e->status == 101) {
        return; /* it took what followed */
    }
    AG_ASSERT(ag_span_starts(want, ag_span(a->bytes.ptr + seen->body, seen->body_len)));
    if (seen->body_ended) {
        AG_ASSERT(e->body.verdict == ORACLE_OK && seen->body_len == want.len);
        AG_ASSERT(o->scarce || ag_span_eq(ag_buf_span(&e->body.passed), seen->trailers));
    }
}

static void check_seen(const struct expected *e, const struct act_seen *seen, const struct acts *a,
                       const struct outcome *o)
{
    const struct oracle_head *h = &e->head;
    bool plain = !h->odd_connection;

    AG_ASSERT(ag_span_eq(h->method, seen->method) && ag_span_eq(h->target, seen->target));
    AG_ASSERT(ag_span_eq(ag_buf_span(&h->path), seen->path) && ag_span_eq(h->query, seen->query));
    AG_ASSERT(ag_span_eq(h->authority, seen->authority));
    AG_ASSERT(ag_span_eq(h->host, seen->host) && h->port == seen->port);
    AG_ASSERT(h->has_query == seen->has_query && h->absolute == seen->absolute);
    AG_ASSERT(ag_span_eq(ag_buf_span(&h->fields), seen->fields));
    AG_ASSERT(h->http10 == (seen->version == AG_HTTP_10));
    AG_ASSERT(h->chunked == (seen->framing == AG_FRAMING_CHUNKED));
    AG_ASSERT(h->has_length == (seen->framing == AG_FRAMING_LENGTH));
    AG_ASSERT(seen->length == (h->has_length ? h->length : AG_LENGTH_UNKNOWN));
    AG_ASSERT(h->expects == seen->expects);
    if (plain) {
        AG_ASSERT(h->keep_alive == seen->keep_alive && h->upgrade == seen->upgrade);
    }
    AG_ASSERT(seen->done);
    check_taken(e, seen, a, o);
}

/* ---- answers ---- */

static bool echoes(enum act act)
{
    return act == ACT_ECHO || act == ACT_CHUNKS || act == ACT_STREAM || act == ACT_FILTER ||
           act == ACT_LIMIT || act == ACT_LAZY;
}

/* The path between its slashes `from` and `to`, counted from 1; `to` 0: to its end. */
static struct ag_span between_slashes(struct ag_span path, unsigned from, unsigned to)
{
    size_t start = path.len, end = path.len;
    unsigned slashes = 0;

    for (size_t i = 0; i < path.len; i++) {
        if (path.ptr[i] == '/') {
            slashes++;
            start = slashes == from ? i + 1 : start;
            end = slashes == to ? i : end;
        }
    }
    return ag_span_sub(path, start, end < start ? start : end);
}

/* ACT_PARAMS: "FIRST REST". */
static bool params_are_right(const struct expected *e, struct ag_span got)
{
    struct ag_span path = ag_buf_span(&e->head.path);
    struct ag_span first = between_slashes(path, 1, 2), rest = between_slashes(path, 4, 0);

    return got.len == first.len + 1 + rest.len && ag_span_starts(got, first) &&
           got.ptr[first.len] == ' ' && ag_span_eq(ag_span_sub(got, first.len + 1, got.len), rest);
}

/* The content that the answer to `e` has, when it is the one expected. */
static bool content_is_right(const struct expectation *x, const struct expected *e,
                             struct ag_span got, bool complete)
{
    struct ag_span want = echoes(e->act) ? ag_buf_span(&e->body.body) : act_fixed_body(e->act);

    if (e->status == 101) {
        want = ag_span_sub(x->in, e->at, x->in.len);
    } else if (e->status != 200 || e->is_head) {
        return !e->is_head || got.len == 0;
    } else if (e->act == ACT_PARAMS && complete) {
        return params_are_right(e, got);
    } else if (e->act == ACT_PARAMS) {
        return true;
    }
    return complete ? ag_span_eq(want, got) : ag_span_starts(want, got);
}

/* Content-Length of an answer that has one, also to HEAD. */
static void check_length(const struct expected *e, const struct answer *got)
{
    size_t want = act_fixed_body(e->act).len;

    switch ((int)e->act) {
    case ACT_CHUNKS:
    case ACT_STREAM:
    case ACT_CLOSE:
    case ACT_ABORT:
    case ACT_RESET:
    case ACT_EMPTY:
    case ACT_UPGRADE:
    case ACT_PARAMS:
        return;
    case ACT_UNCHANGED:
    case ACT_SHORT:
        want = 10;
        break;
    case ACT_LONG:
        want = 5;
        break;
    default:
        want = echoes(e->act) ? e->body.body.len : want;
    }
    if (e->status == 200 || e->status == 304) {
        AG_ASSERT(got->has_length && got->length == want);
    }
}

static bool holds(struct ag_span in, struct ag_span what)
{
    for (size_t i = 0; i + what.len <= in.len; i++) {
        if (ag_span_starts(ag_span_sub(in, i, in.len), what)) {
            return true;
        }
    }
    return false;
}

/* A few words for people or programs, as they asked. */
static void check_problem(const struct expected *e, const struct answer *got, struct ag_span type)
{
    bool json = ag_span_eq(type, AG_SPAN("application/problem+json"));
    struct ag_span status = ag_span_sub(got->head, 9, 12), text = got->body;

    AG_ASSERT(json || ag_span_eq(type, AG_SPAN("text/plain; charset=utf-8")));
    AG_ASSERT(!e->seen || !json || e->head.json);
    AG_ASSERT(got->has_length && got->length > 8);
    if (text.len == 0) {
        return; /* HEAD */
    }
    if (json) {
        AG_ASSERT(ag_span_starts(text, AG_SPAN("{\"type\":\"about:blank\",\"title\":\"")));
        AG_ASSERT(holds(text, AG_SPAN("\"status\":")) && holds(text, status));
        AG_ASSERT(ag_span_starts(ag_span_sub(text, text.len - 3, text.len), AG_SPAN("\"}\n")));
    } else {
        AG_ASSERT(ag_span_starts(text, status) && text.ptr[3] == ' ' && holds(text, AG_SPAN(": ")));
        AG_ASSERT(text.ptr[text.len - 1] == '\n');
    }
}

/* Those that belong to a failure, and none that belong to what it took the place of. */
static void check_failure_fields(const struct expected *e, const struct answer *got)
{
    bool busy = e->act == ACT_BUSY && got->status == e->status;
    bool again = busy && e->head.target.len > ag_span_find(e->head.target, '?');
    struct ag_span value;

    AG_ASSERT(answer_field(got->head, "retry-after", &value) == (got->status == 503));
    AG_ASSERT(got->status != 503 || ag_span_eq(value, again ? AG_SPAN("120") : AG_SPAN("1")));
    AG_ASSERT(answer_field(got->head, "allow", &value) == busy);
    AG_ASSERT(answer_field(got->head, "etag", &value) == 0);
}

/* The fields of an answer. */
static void check_fields(const struct expected *e, const struct answer *got)
{
    struct ag_span type, value;
    unsigned types = answer_field(got->head, "content-type", &type);
    bool as_fixed =
        e->act == ACT_FIXED || e->act == ACT_HINTS || e->act == ACT_FIELDS || e->act == ACT_TWICE;

    if (got->status >= 400) {
        AG_ASSERT(types == 1);
        check_problem(e, got, type);
    } else {
        AG_ASSERT(types == as_fixed);
        AG_ASSERT(!as_fixed || ag_span_eq(type, AG_SPAN("text/plain")));
    }
    if (got->status >= 200) {
        (void)answer_field(got->head, "date", &value);
        AG_ASSERT(ag_span_eq(value, AG_SPAN("Sun, 06 Nov 1994 08:49:37 GMT")));
    }
    AG_ASSERT(answer_field(got->head, "x-long", &value) == (e->act == ACT_HEAD && e->seen));
    AG_ASSERT(!value.len || value.len == 5000);
    check_failure_fields(e, got);
}

/* Interim answers: to whom, and how many. */
static void check_interim(const struct expected *e, const struct answer *got,
                          const struct outcome *o)
{
    unsigned hints = e->act == ACT_HINTS && !e->head.http10;
    struct ag_span link;

    AG_ASSERT(got->interim - got->continues <= hints);
    AG_ASSERT(got->continues <= 1 && (got->continues == 0 || (e->head.expects && e->wants)));
    /* Nobody is told to send what is there. */
    AG_ASSERT(!o->whole || e->body.len == 0 || got->continues == 0);
    if (o->strict && got->status == e->status) {
        AG_ASSERT(got->interim - got->continues == hints);
        AG_ASSERT(!hints || (answer_field(got->hints, "link", &link) == 1 &&
                             ag_span_eq(link, AG_SPAN("</a>"))));
    }
}

/* Those of the request, for who streams. */
static void check_trailers(const struct expected *e, const struct answer *got)
{
    struct ag_span want = ag_buf_span(&e->body.passed), lines = got->trailers_at;
    size_t at = 0;

    if (e->act != ACT_STREAM || e->head.http10 || e->is_head) {
        AG_ASSERT(got->trailers == 0);
        return;
    }
    for (size_t i = 0; i < lines.len; i++) {
        if (lines.ptr[i] != '\r') {
            AG_ASSERT(at < want.len && lines.ptr[i] == want.ptr[at]);
            at++;
        }
    }
    AG_ASSERT(at == want.len);
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

/* What is known of an answer that came as it was to come, and to its end. */
static void check_whole(const struct expected *e, const struct answer *got,
                        const struct act_seen *seen, const struct outcome *o)
{
    check_fields(e, got);
    if (got->status == e->status) {
        check_length(e, got);
        check_trailers(e, got);
    }
    if (seen) {
        AG_ASSERT(seen->status == got->status && seen->sent == got->body.len);
    }
    if (got->status == 101 || got->status != e->status) {
        return;
    }
    AG_ASSERT(got->close || !e->says_close);
    AG_ASSERT(!got->close || e->must_close || e->may_close ||
              (e->in_doubt && !(o->whole && e->body.len > 0)));
}

static void check_answer(const struct expectation *x, const struct expected *e,
                         const struct answer *got, const struct act_seen *seen,
                         const struct outcome *o)
{
    bool liar = e->manner == LIES;
    bool refusal = (oracle_status_bit(got->status) & e->statuses) != 0;

    check_interim(e, got, o);
    check_connection(e, got);
    if (!e->status || got->status != e->status) {
        AG_ASSERT(refusal || (!o->strict && is_trouble(got->status)));
        AG_ASSERT(got->close || !got->complete || !o->strict);
    } else if (liar) {
        AG_ASSERT(!got->complete || e->is_head);
    } else {
        bool whole = got->complete && (o->strict || !got->tunnel);
        AG_ASSERT(content_is_right(x, e, got->body, whole));
    }
    if (o->strict && got->complete && !liar) {
        check_whole(e, got, seen, o);
    }
}

/* Reads the answer to `e` at the start of `rest`. When bytes are late the server may have refused the
 * request, and the connection, before it knew that it is HEAD. */
static size_t read_answer(const struct expected *e, struct ag_span rest, const struct outcome *o,
                          struct answer *out)
{
    size_t len = answer_read(rest, e->is_head, !o->aborted, o->scratch, out);

    if (e->is_head && !o->strict && len < rest.len && is_trouble(out->status) && out->close) {
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

/* Its answer may be cut short: by a reset, or by the end of the connection behind what there is of it, where its framing
 * tells. */
static bool may_break_off(const struct expected *e)
{
    return e->aborts || e->may_abort;
}

/* Whether the run may have come to its end with message `e`, the last that got as far as it did. */
static bool may_end_with(const struct expected *e, bool aborted)
{
    return may_break_off(e) ||
           (!aborted && (e->must_close || e->may_close || e->in_doubt || e->optional));
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
    check_seen(e, &w->a->seen[w->seen++], w->a, w->o);
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
        check_answer(w->x, e, &got, e->seen ? &w->a->seen[w->seen - 1] : NULL, o);
        AG_ASSERT(got.complete ||
                  (w->at == o->out.len && (o->aborted || o->scarce || may_break_off(e))));
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

/* Whether the connection stays open for more behind message `e`. */
enum stays { STAYS, CLOSES, EITHER };

static enum stays stays_open(const struct expected *e)
{
    bool many = e->body.trailers >= EXPECT_FIELD_MAX, either = e->may_close || e->in_doubt;

    if (e->head.verdict != ORACLE_OK) {
        return e->head.verdict == ORACLE_MORE ? STAYS : CLOSES;
    }
    if (e->manner == LIES) {
        return CLOSES;
    }
    if (e->status == 101 || many) {
        return many ? EITHER : STAYS;
    }
    if (e->body.verdict != ORACLE_MORE) {
        return e->must_close || e->aborts ? CLOSES : either ? EITHER : STAYS;
    }
    if (e->manner == READS || e->manner == STREAMS) {
        return e->must_close && e->answered ? CLOSES : STAYS; /* too much of it is refused */
    }
    return e->says_close || e->drops_much ? CLOSES : either ? EITHER : STAYS;
}

/* An answer whose content ends with the connection, and was broken off: its end must not look right. */
static bool is_incomplete(const struct expected *e)
{
    return e->manner == LIES && e->head.http10 && !e->is_head &&
           (e->act == ACT_ABORT || e->act == ACT_RESET);
}

/* The end of a connection on which `i` messages were dealt with. */
static void check_end(const struct expectation *x, unsigned i, const struct outcome *o)
{
    if (!o->strict) {
        return;
    }
    AG_ASSERT(o->incomplete || !(i > 0 && is_incomplete(&x->v[i - 1])));
    if (!o->knows_open) {
        return;
    }
    if (i < x->count) {
        AG_ASSERT(!o->open);
    } else {
        enum stays stays = i > 0 ? stays_open(&x->v[i - 1]) : STAYS;

        AG_ASSERT(stays == EITHER || o->open == (stays == STAYS));
    }
}

/* Bytes that are no message yet waited for memory, and not for ever. */
static void check_overload(struct walk *w)
{
    struct ag_span rest = ag_span_sub(w->o->out, w->at, w->o->out.len);
    struct answer got;

    w->at += answer_read(rest, false, true, w->o->scratch, &got);
    AG_ASSERT(got.status == 503 && got.complete && got.close);
}

void expect_check(const struct expectation *x, const struct acts *a, const struct outcome *o)
{
    struct walk w = {x, a, o, 0, 0, false};
    unsigned i = 0;

    while (i < x->count && !w.over && walk_message(&w, i)) {
        i++;
    }
    if (o->scarce && i == x->count && !w.over && w.at < o->out.len) {
        check_overload(&w);
    }
    /* Nothing came that was not to come. */
    AG_ASSERT(w.at == o->out.len && w.seen == a->seen_count);
    if (o->strict && (i < x->count || (i > 0 && o->aborted))) {
        AG_ASSERT(i > 0 && may_end_with(&x->v[i - 1], o->aborted));
    }
    check_end(x, i, o);
}
