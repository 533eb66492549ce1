#include "actions/upstream/proxy_retry_policy.h"

#define DELAY_MAX_MS 60000u

struct ag_retry_policy ag_retry_default_policy(void)
{
    return (struct ag_retry_policy){
        .attempts = 2,
        .causes = 1u << AG_RETRY_CONNECT | 1u << AG_RETRY_RESET,
        .elsewhere = true,
        .percent = 20,
        .after_ms = 50,
        .backoff_ms = 25,
        .max_backoff_ms = 1000,
    };
}

/* ---- the settings ---- */

static const struct ag_node_ms_bounds any_delay = {0, DELAY_MAX_MS, "use 0 to 60s"};
static const struct ag_node_ms_bounds some_delay = {1, DELAY_MAX_MS, "use 1ms to 60s"};

static bool read_count(const struct ag_node *map, const char *key, uint32_t max,
                       struct ag_diags *diags, uint8_t *io)
{
    uint32_t value = *io;
    bool ok = ag_node_number(map, key, 1, max, diags, &value);

    *io = (uint8_t)value;
    return ok;
}

bool ag_retry_read_buffer(const struct ag_node *n, struct ag_diags *diags, const char *hint,
                          uint32_t *io)
{
    uint64_t bytes = *io;

    if (!n) {
        return true;
    }
    if (!ag_node_size(n, diags, &bytes)) {
        return false;
    }
    if (bytes > AG_RETRY_BUFFER_MAX) {
        ag_diag_error(diags, n->pos, hint, "buffer is out of range");
        return false;
    }
    *io = (uint32_t)bytes;
    return true;
}

static bool read_budget(const struct ag_node *n, struct ag_diags *diags, uint8_t *io)
{
    struct ag_span text;
    uint64_t value = 0;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    if (text.len < 2 || text.ptr[text.len - 1] != '%' ||
        ag_span_u64(ag_span_sub(text, 0, text.len - 1), &value) != AG_OK || value > 100) {
        ag_diag_error(diags, n->pos, "use 0% to 100%: so many retries for a hundred requests",
                      "\"%.*s\" is not a budget", (int)text.len, (const char *)text.ptr);
        return false;
    }
    *io = (uint8_t)value;
    return true;
}

static bool read_methods(const struct ag_node *n, struct ag_diags *diags,
                         struct ag_retry_policy *io)
{
    static const char *const names[] = {"idempotent", "all"};
    unsigned index = 0;

    if (n && !ag_node_enum(n, diags, names, AG_COUNT(names), &index)) {
        return false;
    }
    io->all_methods = n ? index == 1 : io->all_methods;
    return true;
}

/* One word of `on`. */
static bool read_cause(const struct ag_node *n, struct ag_diags *diags, struct ag_retry_policy *io)
{
    static const struct {
        const char *name;
        enum ag_retry_cause cause;
    } known[] = {
        {"connect", AG_RETRY_CONNECT}, {"reset", AG_RETRY_RESET}, {"timeout", AG_RETRY_TIMEOUT}};
    struct ag_span text;
    uint64_t status = 0;

    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    for (size_t i = 0; i < AG_COUNT(known); i++) {
        if (ag_span_eq(text, ag_span_str(known[i].name))) {
            io->causes |= (uint8_t)(1u << known[i].cause);
            return true;
        }
    }
    if (ag_span_u64(text, &status) == AG_OK && status >= AG_RETRY_STATUS_FIRST &&
        status <= AG_RETRY_STATUS_LAST) {
        unsigned bit = (unsigned)status - AG_RETRY_STATUS_FIRST;

        io->causes |= 1u << AG_RETRY_STATUS;
        io->statuses[bit / 64] |= UINT64_C(1) << bit % 64;
        return true;
    }
    ag_diag_error(diags, n->pos, "use connect, reset, timeout, and statuses from 400 to 599",
                  "\"%.*s\" is nothing to retry on", (int)text.len, (const char *)text.ptr);
    return false;
}

static bool read_causes(const struct ag_node *n, struct ag_diags *diags, struct ag_retry_policy *io)
{
    bool ok = true;

    if (!n) {
        return true;
    }
    io->causes = 0;
    memset(io->statuses, 0, sizeof(io->statuses));
    if (n->kind != AG_NODE_SEQ) {
        return read_cause(n, diags, io);
    }
    if (!n->first) {
        ag_diag_warn(diags, n->pos, "such as [connect, reset], or retry: off",
                     "on is empty: nothing is made again");
    }
    for (const struct ag_node *it = n->first; it; it = it->next) {
        ok = read_cause(it, diags, io) && ok;
    }
    return ok;
}

/* retry: off | idempotent | all */
static bool read_word(const struct ag_node *n, struct ag_diags *diags, struct ag_retry_policy *io)
{
    static const char *const names[] = {"off", "idempotent", "all"};
    unsigned index;

    if (!ag_node_enum(n, diags, names, AG_COUNT(names), &index)) {
        return false;
    }
    io->attempts = index == 0 ? 1 : io->attempts < 2 ? 2 : io->attempts;
    io->all_methods = index == 2;
    return true;
}

static bool read_retry(const struct ag_node *n, struct ag_diags *diags, struct ag_retry_policy *io)
{
    static const char *const keys[] = {"attempts",    "on",      "methods", "backoff",
                                       "max_backoff", "per_try", "buffer",  "budget"};
    bool ok;

    if (!n) {
        return true;
    }
    if (io->elsewhere) { /* the first that says anything */
        io->elsewhere = false;
        io->buffer_bytes = AG_RETRY_BUFFER_DEFAULT;
    }
    if (n->kind == AG_NODE_SCALAR) {
        return read_word(n, diags, io);
    }
    if (!ag_node_check_keys(n, diags, "retry", keys, AG_COUNT(keys))) {
        return false;
    }
    ok = read_count(n, "attempts", AG_RETRY_ATTEMPTS_MAX, diags, &io->attempts);
    ok = read_causes(ag_node_get(n, "on"), diags, io) && ok;
    ok = read_methods(ag_node_get(n, "methods"), diags, io) && ok;
    ok = ag_node_ms(n, "backoff", any_delay, diags, &io->backoff_ms) && ok;
    ok = ag_node_ms(n, "max_backoff", any_delay, diags, &io->max_backoff_ms) && ok;
    ok = ag_node_ms(n, "per_try", any_delay, diags, &io->per_try_ms) && ok;
    ok = ag_retry_read_buffer(ag_node_get(n, "buffer"), diags,
                              "use 0 to 1m: each request that is under way may hold so much",
                              &io->buffer_bytes) &&
         ok;
    ok = read_budget(ag_node_get(n, "budget"), diags, &io->percent) && ok;
    if (ok && io->backoff_ms > io->max_backoff_ms) {
        ag_diag_error(diags, n->pos, "backoff is the longest first wait, max_backoff that of all",
                      "backoff is longer than max_backoff");
        ok = false;
    }
    return ok;
}

static bool read_hedge(const struct ag_node *n, struct ag_diags *diags, struct ag_retry_policy *io)
{
    static const char *const keys[] = {"after", "max"};
    static const char *const off[] = {"off"};
    unsigned index;

    if (!n) {
        return true;
    }
    if (n->kind == AG_NODE_SCALAR) {
        io->hedges = 0;
        return ag_node_enum(n, diags, off, AG_COUNT(off), &index);
    }
    if (!ag_node_check_keys(n, diags, "hedge", keys, AG_COUNT(keys))) {
        return false;
    }
    io->hedges = io->hedges ? io->hedges : 1;
    return ag_node_ms(n, "after", some_delay, diags, &io->after_ms) &&
           read_count(n, "max", AG_RETRY_HEDGES_MAX, diags, &io->hedges);
}

bool ag_retry_read(const struct ag_node *node, struct ag_diags *diags, struct ag_retry_policy *io)
{
    bool ok = read_retry(ag_node_get(node, "retry"), diags, io);

    return read_hedge(ag_node_get(node, "hedge"), diags, io) && ok;
}

/* ---- what check shows ---- */

static void put_causes(const struct ag_retry_policy *p, struct ag_buf *out)
{
    static const char *const names[] = {"connect", "reset", "timeout"};
    const char *comma = " on ";

    for (unsigned i = 0; i < AG_COUNT(names); i++) {
        if (p->causes >> i & 1u) {
            ag_buf_printf(out, "%s%s", comma, names[i]);
            comma = ", ";
        }
    }
    for (unsigned status = AG_RETRY_STATUS_FIRST; status <= AG_RETRY_STATUS_LAST; status++) {
        if (ag_retry_has_status(p, status)) {
            ag_buf_printf(out, "%s%u", comma, status);
            comma = ", ";
        }
    }
}

void ag_retry_describe(const struct ag_retry_policy *p, struct ag_buf *out)
{
    if (!p->elsewhere && p->attempts == 1) {
        ag_buf_put(out, AG_SPAN("    no retries\n"));
    } else if (!p->elsewhere) {
        ag_buf_printf(out, "    asked up to %u times", p->attempts);
        put_causes(p, out);
        ag_buf_printf(out, "; %s; content up to %uk; budget %u%%",
                      p->all_methods ? "all methods" : "idempotent methods", p->buffer_bytes / 1024,
                      p->percent);
        if (p->per_try_ms) {
            ag_buf_printf(out, "; %u ms a try", p->per_try_ms);
        }
        ag_buf_putc(out, '\n');
    }
    if (p->hedges) {
        ag_buf_printf(out, "    hedged after %u ms, %u more at most\n", p->after_ms, p->hedges);
    }
}

/* ---- at work ---- */

uint32_t ag_retry_delay_ms(const struct ag_retry_policy *p, unsigned retry, uint64_t random)
{
    uint64_t most = (uint64_t)p->backoff_ms << (retry - 1);

    AG_ASSERT(retry >= 1 && retry <= AG_RETRY_ATTEMPTS_MAX);
    most = most < p->max_backoff_ms ? most : p->max_backoff_ms;
    return (uint32_t)(random % (most + 1));
}

bool ag_retry_take(struct ag_retry_budget *b, uint64_t now_ms)
{
    const uint64_t one_ms = 1000 / AG_RETRY_SPARE;
    uint64_t from = now_ms > 1000 ? now_ms - 1000 : 0;

    if (b->saved_hundredths >= 100) {
        b->saved_hundredths -= 100;
    } else {
        /* What was not used within a second is lost. */
        from = b->spare_ms > from ? b->spare_ms : from;
        if (from + one_ms > now_ms) {
            b->refused++;
            return false;
        }
        b->spare_ms = from + one_ms;
    }
    b->taken++;
    return true;
}
