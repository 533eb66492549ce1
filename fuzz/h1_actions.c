#include "fuzz/h1_actions_parts.h"

/* ---- what is answered ---- */

#define LONG_BODY_BYTES 3000u
static uint8_t long_body[LONG_BODY_BYTES], big_body[ACT_BIG_BYTES], long_value[5000];

static struct ag_prepared fixed = {
    .status = 200,
    .h1 = AG_SPAN_INIT("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n"),
    .body = AG_SPAN_INIT("fixed\n"),
};
static struct ag_field fixed_type = {.name = (const uint8_t *)"Content-Type",
                                     .value = (const uint8_t *)"text/plain",
                                     .name_len = 12,
                                     .value_len = 10,
                                     .id = AG_FIELD_CONTENT_TYPE};
static struct ag_prepared fixed_fields = {
    .status = 200,
    .body = AG_SPAN_INIT("fixed\n"),
    .response = {.status = 200,
                 .fields = {&fixed_type, 1, 1},
                 .content_length = 6,
                 .framing = AG_FRAMING_LENGTH},
};
static struct ag_prepared fixed_long = {
    .status = 200,
    .h1 = AG_SPAN_INIT("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n"),
    .body = {long_body, LONG_BODY_BYTES},
};

uint8_t act_big_byte(size_t i)
{
    return (uint8_t)(i * 131 + (i >> 8) * 7);
}

struct ag_span act_fixed_body(enum act act)
{
    return act == ACT_FIXED || act == ACT_HINTS || act == ACT_FIELDS || act == ACT_TWICE
               ? fixed.body
           : act == ACT_FIXED_LONG                 ? fixed_long.body
           : act == ACT_BIG                        ? ag_span(big_body, sizeof(big_body))
           : act == ACT_CLOSE                      ? AG_SPAN("until the end")
           : act == ACT_WAIT || act == ACT_DELAYED ? AG_SPAN("waited")
                                                   : AG_SPAN("");
}

/* ---- the end of a request ---- */

void act_let_go(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (w->over) {
        return;
    }
    w->over = true;
    w->all->work = NULL;
    ag_block_release(w->kept);
    ag_body_set_consumer(&ex->req_body, NULL, NULL);
    ag_body_set_producer(&ex->res_body, NULL, NULL);
    ag_exchange_release(ex);
}

static void fail(struct act_work *w, unsigned status)
{
    ag_exchange_fail(w->ex, status, AG_REASON_OTHER, "the test's action has failed");
    act_let_go(w);
}

/* The head; true when the exchange has outlived it. */
static bool respond(struct act_work *w, unsigned status, enum ag_framing framing, uint64_t length)
{
    struct ag_response *res = &w->ex->res;

    res->status = status;
    res->framing = (uint8_t)framing;
    res->content_length = length;
    ag_exchange_respond(w->ex);
    return !w->over;
}

/* False: the exchange is over. */
static bool write(struct act_work *w, struct ag_slice s)
{
    if (ag_body_write(&w->ex->res_body, s) != AG_OK) {
        act_let_go(w);
    }
    return !w->over;
}

/* Head and content, and nothing more to do. */
static void answer(struct act_work *w, unsigned status, enum ag_framing framing,
                   struct ag_span body)
{
    if (respond(w, status, framing, body.len) && write(w, ag_slice_static(body))) {
        ag_body_end(&w->ex->res_body, NULL);
        act_let_go(w);
    }
}

/* ---- content there and back ---- */

/* Sends `from` on as far as there is room: in pieces of `most`; the rest when there is room again. */
static void send_rest(struct act_work *w, struct ag_span from, struct ag_block *owner, size_t most)
{
    struct ag_body *to = &w->ex->res_body;

    while (w->sent < from.len && ag_body_room(to)) {
        size_t n = ag_min_size(most, from.len - w->sent);
        struct ag_slice s = {{.ptr = from.ptr + w->sent}, n, ag_block_hold(owner)};

        w->sent += n;
        if (!write(w, s)) {
            return;
        }
    }
    if (w->sent == from.len) {
        ag_body_end(to, NULL);
        act_let_go(w);
    }
}

static void on_room(struct ag_body *b, void *owner)
{
    struct act_work *w = owner;

    (void)b;
    if (w->seen->act == ACT_BIG) {
        send_rest(w, ag_span(big_body, sizeof(big_body)), NULL, 16384);
    } else {
        send_rest(w, ag_span(w->kept ? w->kept->data : NULL, w->kept_len), w->kept,
                  w->seen->act == ACT_CHUNKS ? 7 : SIZE_MAX);
    }
}

/* Content that was kept goes back. */
static void answer_kept(struct act_work *w)
{
    enum act act = w->seen->act;

    if (act == ACT_CLOSE) {
        answer(w, 200, AG_FRAMING_CLOSE, act_fixed_body(act));
    } else if (respond(w, 200, act == ACT_CHUNKS ? AG_FRAMING_CHUNKED : AG_FRAMING_LENGTH,
                       w->kept_len)) {
        ag_body_set_producer(&w->ex->res_body, on_room, w);
        on_room(&w->ex->res_body, w);
    }
}

static bool keep(struct act_work *w, struct ag_span s)
{
    if (!w->kept) {
        w->kept = ag_loop_buf(w->ex->context->loop, AG_BUF_SMALL);
    }
    if (w->kept && s.len > w->kept->size - w->kept_len && w->kept->size == AG_BUF_SMALL_BYTES) {
        struct ag_block *large = ag_loop_buf(w->ex->context->loop, AG_BUF_LARGE);

        if (large) {
            memcpy(large->data, w->kept->data, w->kept_len);
        }
        ag_block_release(w->kept);
        w->kept = large;
    }
    if (!w->kept || s.len > w->kept->size - w->kept_len) {
        return false;
    }
    memcpy(w->kept->data + w->kept_len, s.ptr, s.len);
    w->kept_len += s.len;
    return true;
}

static void on_content(struct ag_body *b, void *owner)
{
    struct act_work *w = owner;

    while (!w->over && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);
        bool kept = keep(w, ag_slice_span(&s));

        seen_content(w->seen, ag_slice_span(&s), &w->all->bytes);
        ag_slice_release(&s);
        if (!kept) {
            fail(w, 503);
        }
    }
    if (w->over) {
        return;
    }
    if (b->aborted) {
        fail(w, 400);
    } else if (ag_body_at_end(b)) {
        seen_end(w->seen, b, &w->all->bytes);
        ag_body_set_consumer(b, NULL, NULL);
        answer_kept(w);
    }
}

/* STREAM and UPGRADE: slices go through as a proxy's do. */
static void pump(struct act_work *w)
{
    struct ag_body *from = &w->ex->req_body, *to = &w->ex->res_body;

    while (!w->over && from->q.bytes > 0 && ag_body_room(to)) {
        struct ag_slice s = ag_body_take(from);

        seen_content(w->seen, ag_slice_span(&s), &w->all->bytes);
        (void)write(w, s);
    }
    if (w->over || from->q.bytes > 0) {
        return;
    }
    if (from->aborted) {
        ag_body_abort(to, (enum ag_reason)from->reason);
        act_let_go(w);
    } else if (ag_body_at_end(from)) {
        seen_end(w->seen, from, &w->all->bytes);
        ag_body_end(to, from->trailers);
        act_let_go(w);
    }
}

static void on_either(struct ag_body *b, void *owner)
{
    (void)b;
    pump(owner);
}

static void start_pump(struct act_work *w)
{
    ag_body_set_consumer(&w->ex->req_body, on_either, w);
    ag_body_set_producer(&w->ex->res_body, on_either, w);
    pump(w);
}

static void start_reading(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (ag_body_at_end(&ex->req_body)) {
        seen_end(w->seen, &ex->req_body, &w->all->bytes);
        answer_kept(w);
        return;
    }
    ex->server->want_body(ex);
    if (!w->over) {
        ag_body_set_consumer(&ex->req_body, on_content, w);
    }
}

/* ---- odd answers ---- */

static void start_long_head(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (ag_fields_add(&ex->res.fields, &ex->arena, AG_FIELD_OTHER, AG_SPAN("X-Long"),
                      ag_span(long_value, sizeof(long_value))) != AG_OK) {
        fail(w, 503);
    } else {
        answer(w, 200, AG_FRAMING_LENGTH, AG_SPAN(""));
    }
}

static void start_upgrade(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (!ex->req.upgrade || !ag_body_at_end(&ex->req_body)) {
        fail(w, 426);
        return;
    }
    if (ag_exchange_field(ex, AG_FIELD_UPGRADE, AG_SPAN("test")) != AG_OK) {
        fail(w, 503);
    } else if (respond(w, 101, AG_FRAMING_NONE, 0)) {
        start_pump(w);
    }
}

static void start_hints(struct act_work *w)
{
    struct ag_field link = {.name = (const uint8_t *)"Link",
                            .name_len = 4,
                            .value = (const uint8_t *)"</a>",
                            .value_len = 4};
    const struct ag_fields fields = {&link, 1, 1};

    w->ex->server->send_interim(w->ex, 103, &fields);
    if (!w->over) {
        ag_exchange_respond_prepared(w->ex, &fixed);
        act_let_go(w);
    }
}

/* By way of fields, as an answer with filters goes. */
static void start_fields(struct act_work *w)
{
    w->ex->filter_at = 1;
    ag_exchange_respond_prepared(w->ex, &fixed_fields);
    act_let_go(w);
}

/* The first answer counts; what comes after it is nothing. */
static void start_twice(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    ag_exchange_hold(ex); /* also when the first one has ended it */
    ag_exchange_respond_prepared(ex, &fixed);
    ag_exchange_respond_prepared(ex, &fixed_long);
    ag_exchange_respond(ex);
    if (ex->ended) {
        ag_exchange_fail(ex, 500, AG_REASON_OTHER, "after the end");
    }
    act_let_go(w);
    ag_exchange_release(ex);
}

static void start_params(struct act_work *w)
{
    static const struct ag_param_spec specs[] = {{.segment = 0}, {.segment = 3, .splat = true}};
    struct ag_exchange *ex = w->ex;
    struct ag_block *b = ag_loop_buf(ex->context->loop, AG_BUF_SMALL);
    struct ag_buf text;

    if (!b) {
        fail(w, 503);
        return;
    }
    ex->params = specs;
    ex->param_count = AG_COUNT(specs);
    text = ag_buf(b->data, b->size);
    ag_buf_put(&text, ag_exchange_param(ex, 0));
    ag_buf_putc(&text, ' ');
    ag_buf_put(&text, ag_exchange_param(ex, 1));
    AG_ASSERT(!text.overflow);
    if (respond(w, 200, AG_FRAMING_LENGTH, text.len)) {
        if (write(w, (struct ag_slice){{.ptr = b->data}, text.len, b})) {
            ag_body_end(&ex->res_body, NULL);
            act_let_go(w);
        }
    } else {
        ag_block_release(b);
    }
}

static void start_busy(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (ag_exchange_field(ex, AG_FIELD_ALLOW, AG_SPAN("PUT")) != AG_OK ||
        ag_exchange_field(ex, AG_FIELD_ETAG, AG_SPAN("\"dropped\"")) != AG_OK ||
        (ex->req.has_query &&
         ag_exchange_field(ex, AG_FIELD_RETRY_AFTER, AG_SPAN("120")) != AG_OK)) {
        fail(w, 500);
        return;
    }
    fail(w, 503);
}

/* More content than the length says, in pieces that leave one by one: the first is within it. */
static void go_on_lying(struct act_work *w)
{
    static const struct ag_span pieces[] = {AG_SPAN_INIT("012"), AG_SPAN_INIT("3456789")};

    if (w->sent == AG_COUNT(pieces)) {
        ag_body_end(&w->ex->res_body, NULL);
        act_let_go(w);
    } else if (write(w, ag_slice_static(pieces[w->sent]))) {
        w->sent++;
        w->waits = true;
    }
}

/* Answers whose content is not what their head says, or does not come to its end. */
static void start_liar(struct act_work *w)
{
    unsigned act = w->seen->act;
    bool chunked = act == ACT_ABORT || act == ACT_RESET;
    struct ag_exchange *ex = w->ex;

    if (!respond(w, 200, chunked ? AG_FRAMING_CHUNKED : AG_FRAMING_LENGTH,
                 act == ACT_LONG ? 5 : 10)) {
        return;
    }
    if (act == ACT_LONG) {
        go_on_lying(w);
        return;
    }
    if (!write(w, ag_slice_static(AG_SPAN("01234")))) {
        return;
    }
    if (act == ACT_ABORT) {
        ag_body_abort(&ex->res_body, AG_REASON_RESET);
    } else if (act == ACT_RESET) {
        ag_exchange_fail(ex, 502, AG_REASON_OTHER, "after the head");
    } else {
        ag_body_end(&ex->res_body, NULL);
    }
    act_let_go(w);
}

/* ---- what runs ---- */

static void check_remote(struct act_work *w)
{
    static const union ag_addr unknown = {.sa = {.sa_family = AF_UNSPEC}};
    const union ag_addr *want = w->all->peer ? w->all->peer : &unknown;
    const union ag_addr *got = ag_exchange_remote(w->ex);

    if (!got) {
        AG_ASSERT(w->all->scarce);
        return;
    }
    AG_ASSERT(got->sa.sa_family == want->sa.sa_family);
    if (want->sa.sa_family == AF_INET) {
        AG_ASSERT(got->in.sin_port == want->in.sin_port);
        AG_ASSERT(got->in.sin_addr.s_addr == want->in.sin_addr.s_addr);
    } else if (want->sa.sa_family == AF_INET6) {
        AG_ASSERT(got->in6.sin6_port == want->in6.sin6_port);
        AG_ASSERT(memcmp(&got->in6.sin6_addr, &want->in6.sin6_addr, 16) == 0);
    }
}

static void start_fixed(struct act_work *w)
{
    bool lengthy = w->seen->act == ACT_FIXED_LONG;

    check_remote(w);
    ag_exchange_respond_prepared(w->ex, lengthy ? &fixed_long : &fixed);
    act_let_go(w);
}

static void start_empty(struct act_work *w)
{
    answer(w, 204, AG_FRAMING_NONE, AG_SPAN(""));
}

static void start_unchanged(struct act_work *w)
{
    if (respond(w, 304, AG_FRAMING_LENGTH, 10)) { /* what GET would have had */
        ag_body_end(&w->ex->res_body, NULL);
        act_let_go(w);
    }
}

static void start_big(struct act_work *w)
{
    if (respond(w, 200, AG_FRAMING_LENGTH, ACT_BIG_BYTES)) {
        ag_body_set_producer(&w->ex->res_body, on_room, w);
        on_room(&w->ex->res_body, w);
    }
}

static void start_stream(struct act_work *w)
{
    w->ex->streams = true;
    w->ex->server->want_body(w->ex);
    if (!w->over && respond(w, 200, AG_FRAMING_CHUNKED, AG_LENGTH_UNKNOWN)) {
        start_pump(w);
    }
}

static void start_waiting(struct act_work *w)
{
    w->waits = true;
}

static void start_failing(struct act_work *w)
{
    fail(w, w->seen->act == ACT_FAIL ? 500 : 404);
}

void act_run(struct act_work *w)
{
    static void (*const start[])(struct act_work *) = {
        [ACT_NONE] = start_failing,    [ACT_ABORT] = start_liar,
        [ACT_BIG] = start_big,         [ACT_CHUNKS] = start_reading,
        [ACT_DELAYED] = start_waiting, [ACT_ECHO] = start_reading,
        [ACT_FIXED] = start_fixed,     [ACT_FIXED_LONG] = start_fixed,
        [ACT_FIELDS] = start_fields,   [ACT_HINTS] = start_hints,
        [ACT_PARAMS] = start_params,   [ACT_CLOSE] = start_reading,
        [ACT_SHORT] = start_liar,      [ACT_UNCHANGED] = start_unchanged,
        [ACT_EMPTY] = start_empty,     [ACT_LONG] = start_liar,
        [ACT_HEAD] = start_long_head,  [ACT_FAIL] = start_failing,
        [ACT_TWICE] = start_twice,     [ACT_STREAM] = start_stream,
        [ACT_FILTER] = start_reading,  [ACT_UPGRADE] = start_upgrade,
        [ACT_RESET] = start_liar,      [ACT_WAIT] = start_waiting,
        [ACT_LIMIT] = start_reading,   [ACT_BUSY] = start_busy,
        [ACT_LAZY] = start_waiting,
    };

    AG_ASSERT(w->seen->act < AG_COUNT(start) && start[w->seen->act]);
    start[w->seen->act](w);
}

void acts_resume(struct acts *a)
{
    struct act_work *w = a->work;

    AG_ASSERT(!w->ex->head_owner || w->all->scarce);
    w->waits = false;
    if (w->filter) {
        w->filter = false;
        w->ex->filter_waits = false;
        ag_body_kick(&w->ex->req_body); /* the server had stopped reading content */
        act_run(w);
    } else if (w->seen->act == ACT_LAZY) {
        start_reading(w);
    } else if (w->seen->act == ACT_LONG) {
        go_on_lying(w);
    } else {
        answer(w, 200, AG_FRAMING_LENGTH, act_fixed_body(w->seen->act));
    }
}

void act_init(void)
{
    memset(long_value, 'v', sizeof(long_value));
    for (size_t i = 0; i < sizeof(big_body); i++) {
        big_body[i] = act_big_byte(i);
    }
    memcpy(long_body, big_body, sizeof(long_body));
}
