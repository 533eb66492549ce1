/*
 * proxy_retry_policy: when a request is asked of an upstream once more, and how often all of them together
 * may be.
 *
 *   retry: {attempts: 2, on: [connect, reset, timeout, 503], methods: idempotent, backoff: 25ms,
 *           max_backoff: 1s, per_try: 0, buffer: 64k, budget: 20%}
 *   retry: off | idempotent | all
 *   hedge: {after: 50ms, max: 1}
 *
 * Without `retry`: a second time, of another server alone (as nginx does it), when a request that may happen
 * twice met a broken connection. The key says more, and then the same server is asked where there is no other.
 *
 * The budget is one of tokens (Finagle, Linkerd): each request saves `budget` percent of one, each retry and
 * each hedge costs one, and AG_RETRY_SPARE a second are for free, so that quiet upstreams have some too. Of an
 * upstream that is down a shard makes that much worse, and no more:
 *
 *   retries <= requests * budget + AG_RETRY_SPARE * (seconds + 1)
 */
#pragma once
#include "engine/node.h"

/* What went wrong, before the answer's head. */
enum ag_retry_cause {
    AG_RETRY_CONNECT = 0, /* no server could be reached */
    AG_RETRY_RESET,       /* the connection broke, or what came was no answer */
    AG_RETRY_TIMEOUT,     /* the answer, or the try, took too long */
    AG_RETRY_STATUS,      /* an answer whose status is asked again */
};

#define AG_RETRY_ATTEMPTS_MAX   10u
#define AG_RETRY_BUFFER_MAX     (1u << 20)
#define AG_RETRY_BUFFER_DEFAULT (64u * 1024u)
#define AG_RETRY_HEDGES_MAX     3u
#define AG_RETRY_STATUS_FIRST   400u
#define AG_RETRY_STATUS_LAST    599u
/* Retries a second that need no requests to pay for them, a shard's of one upstream. */
#define AG_RETRY_SPARE 10u
/* Retries that can be saved up for. */
#define AG_RETRY_SAVED 100u

struct ag_retry_policy {
    uint8_t attempts;  /* times that a request is asked at most; 1: no retry */
    uint8_t causes;    /* bits by enum ag_retry_cause; AG_RETRY_STATUS: `statuses` has some */
    bool all_methods;  /* else idempotent ones, and what the upstream has not seen */
    bool elsewhere;    /* of another server alone */
    uint8_t percent;   /* the budget: of requests */
    uint8_t hedges;    /* calls beside the first one at most; 0: none */
    uint32_t after_ms; /* until the first of them, and between two */
    uint32_t backoff_ms, max_backoff_ms;
    uint32_t per_try_ms;   /* until the answer's head, of each try; 0: no bound */
    uint32_t buffer_bytes; /* of content that is kept, to be sent again */
    uint64_t statuses[4];  /* bits from AG_RETRY_STATUS_FIRST on */
};

struct ag_retry_policy ag_retry_default_policy(void);
/* How much of a request's content is kept: `n` (or NULL), at most AG_RETRY_BUFFER_MAX; beyond it `hint` says what to
 * do. False after a diagnosis. */
bool ag_retry_read_buffer(const struct ag_node *n, struct ag_diags *diags, const char *hint,
                          uint32_t *io);
/* Changes of the keys `retry` and `hedge` of the map `node` (or NULL) over what `io` holds. False after a
 * diagnosis. */
bool ag_retry_read(const struct ag_node *node, struct ag_diags *diags, struct ag_retry_policy *io);
/* For `check`: what differs from the default, on a line of its own; nothing when nothing does. */
void ag_retry_describe(const struct ag_retry_policy *p, struct ag_buf *out);

static inline bool ag_retry_has_cause(const struct ag_retry_policy *p, enum ag_retry_cause cause)
{
    return p->causes >> cause & 1u;
}

static inline bool ag_retry_has_status(const struct ag_retry_policy *p, unsigned status)
{
    unsigned bit = status - AG_RETRY_STATUS_FIRST;

    return ag_retry_has_cause(p, AG_RETRY_STATUS) && status >= AG_RETRY_STATUS_FIRST &&
           status <= AG_RETRY_STATUS_LAST && (p->statuses[bit / 64] >> bit % 64 & 1u);
}

/* How long to wait before retry number `retry` (1: the first): anything from 0 to
 * min(max_backoff, backoff * 2^(retry - 1)), all of it equally likely ("full jitter": Brooker, Exponential
 * Backoff And Jitter, AWS 2015). */
uint32_t ag_retry_delay_ms(const struct ag_retry_policy *p, unsigned retry, uint64_t random);

/* One upstream's on one shard. All zero is a good beginning. */
struct ag_retry_budget {
    uint64_t spare_ms;         /* loop time up to which the free ones are used */
    uint32_t saved_hundredths; /* of a retry */
    uint64_t taken, refused;   /* retries and hedges so far: made; not made for want of budget */
};

/* A request that may be retried is made. */
static inline void ag_retry_save(struct ag_retry_budget *b, const struct ag_retry_policy *p)
{
    uint32_t sum = b->saved_hundredths + p->percent;

    b->saved_hundredths = sum < AG_RETRY_SAVED * 100u ? sum : AG_RETRY_SAVED * 100u;
}
/* Pays for one retry. False: there is nothing to pay it with. */
AG_MUST_USE bool ag_retry_take(struct ag_retry_budget *b, uint64_t now_ms);
