/*
 * proxy_retry: one request on its way to its upstream, in tries: the first, those that make up for one that
 * failed, and hedges beside one that is slow.
 *
 *   start --> TRY --head--> ANSWERED                          the head goes to the client: nothing is repeated
 *              |  \--failed, or a status that is asked again--> WAITS --back-off--> TRY of another server
 *              |   \--failed, nothing left to try--> the answer is ours (502, 503, 504)
 *              `-- after hedge.after: a second TRY beside it; the first head wins, the other is cancelled
 *
 * What is repeated silently, as it always was: a pooled connection that was dead (once), and what the upstream
 * says it has not looked at (REFUSED_STREAM, GOAWAY; three times), for which content that an upstream of HTTP/2
 * gets is kept. All else is up to the policy and its budget (proxy_retry_policy.h).
 */
#pragma once
#include "actions/proxy/mirror.h"
#include "actions/proxy/proxy_buffer.h"
#include "actions/proxy/proxy_config.h"
#include "actions/proxy/proxy_tunnel.h"
#include "actions/proxy/replay.h"
#include "actions/upstream/upstream_pool.h"

struct ag_proxy_call;

/* A claim, and the call on what it gives. */
struct ag_proxy_try {
    struct ag_proxy_call *whole;
    struct ag_upstream_claim claim;
    struct ag_call call;
};

/* A try beside the first. Its answer cannot be written where the first one's goes before it has won. */
struct ag_proxy_hedge {
    struct ag_proxy_try one;
    struct ag_body req_body; /* all of the content, which is kept */
    struct ag_body res_body;
};

/* What only requests need that are repeated, hedged or mirrored; in the exchange's arena. */
struct ag_proxy_more {
    struct ag_proxy_call *whole;
    struct ag_timer pause;    /* the back-off */
    struct ag_timer patience; /* until a try has taken too long */
    struct ag_timer hedging;  /* until the next hedge */
    struct ag_replay content; /* of the request */
    struct ag_body sending;   /* where `content` goes, and the call takes it */
    struct ag_replay
        answer; /* into res_body: of a hedge that won, or one that was to be buffered and is not */
    struct ag_proxy_hedge *hedges[AG_RETRY_HEDGES_MAX];
    struct ag_proxy_try
        *draining;       /* its answer, which nobody wants, is taken until `pause` fires */
    uint32_t per_try_ms; /* of `patience`; 0: it is not bounded */
    uint8_t hedge_count;
    bool sends_late; /* the client's content was still to come when `patience` was looked at last */
    bool replays;    /* content goes through `content` */
    bool relays;     /* the answer comes through `answer` */
};

/* One request; in the exchange's arena. */
struct ag_proxy_call {
    struct ag_exchange *ex;
    const struct ag_proxy_settings *settings; /* NULL: gone with the snapshot */
    const struct ag_rewrite_kept *kept;       /* of them, then; NULL: nothing is rewritten */
    struct ag_upstream_timeouts timeouts;     /* of the settings */
    struct ag_proxy_try first;
    struct ag_h1_request_opts opts;
    struct ag_proxy_tunneling tunnel;
    struct ag_proxy_more *more;       /* NULL: nothing of it */
    struct ag_proxy_buffers *buffers; /* NULL: nothing is buffered */
    uint8_t replays;                  /* after the upstream had refused it unseen */
    uint8_t retries;                  /* by the policy */
    bool answered;                    /* the head was given to the exchange */
    bool retried;                     /* a dead pooled connection was made up for */
    bool fresh;                       /* the next try wants a connection of its own */
    bool mirrored;                    /* a copy is still to be sent */
    bool over;                        /* the hold on the exchange is gone */
    /* As it goes to the upstream; last, for it needs no zeros before it is set. */
    struct ag_request req;
};

/* ---- proxy.c ---- */

/* `t`, which is all zero, writes its answer to `res_body`. */
void ag_proxy_try_init(struct ag_proxy_try *t, struct ag_proxy_call *p, struct ag_body *res_body);
/* What became of a claim: the call begins, or the try has failed. */
void ag_proxy_go_on(struct ag_proxy_try *t, enum ag_status st);
/* Everything is over upstream. */
void ag_proxy_let_go(struct ag_proxy_call *p);
/* The answer is ours then, or what was begun ends in a reset. Nothing may be under way upstream. */
void ag_proxy_fail(struct ag_proxy_call *p, unsigned status, enum ag_reason why,
                   const char *detail);

/* ---- proxy_retry.c, proxy_retry_more.c ---- */

/* Before the first try: what retries, hedges and mirrors of this request need. False: out of memory. */
AG_MUST_USE bool ag_proxy_prepare_more(struct ag_proxy_call *p);
/* The request is ready: the first try, and a copy for the mirror. */
void ag_proxy_begin(struct ag_proxy_call *p, struct ag_upstreams *u);
/* The try's call is about to begin: its content, from the first byte on. NULL: it has none. */
struct ag_body *ag_proxy_content(struct ag_proxy_try *t);
/* The call failed, or there is no connection for it (of which the claim says why). True: the request goes on
 * without it: another try is under way, or will be. */
AG_MUST_USE bool ag_proxy_retry_failed(struct ag_proxy_try *t, enum ag_reason why);
AG_MUST_USE bool ag_proxy_retry_unconnected(struct ag_proxy_try *t);
/* The head of an answer came. True: nobody wants it, and the request goes on without it. */
AG_MUST_USE bool ag_proxy_retry_answer(struct ag_proxy_try *t, const struct ag_response *res);
/* This try's answer goes to the client: the others are given up. */
void ag_proxy_won(struct ag_proxy_try *t);
/* Its content is about to come: lays its way to the client, where it does not go there by itself. */
void ag_proxy_pass_on(struct ag_proxy_try *t, const struct ag_response *res);
/* The answer has been passed on to its end. */
void ag_proxy_passed(struct ag_proxy_call *p);
/* The call has failed after its head. True: what came of it is still to be passed on, and then its abort. */
AG_MUST_USE bool ag_proxy_breaks_off(struct ag_proxy_call *p, enum ag_reason why,
                                     const char *detail);
/* The call is over, in order. True: there is more to come all the same, a retry or what is left of a relayed
 * answer. */
AG_MUST_USE bool ag_proxy_goes_on(struct ag_proxy_try *t);
/* Gives up every try. */
void ag_proxy_cancel_tries(struct ag_proxy_call *p);
/* Before the exchange is let go; no try is under way. */
void ag_proxy_end_more(struct ag_proxy_call *p);
/* Whether its settings have done their part but for another try. */
AG_MUST_USE bool ag_proxy_may_outlive(const struct ag_proxy_call *p);
/* Does without the settings from here on, and so without another try: it may. */
void ag_proxy_outlive(struct ag_proxy_call *p);
