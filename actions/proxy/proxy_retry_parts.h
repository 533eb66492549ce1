/*
 * proxy_retry_parts: what the files of proxy_retry share; nobody else includes it.
 *
 *   proxy_retry.c        what becomes of a try: repeated, hedged, won
 *   proxy_retry_more.c   what a request needs beside its call: kept content, copies, where it begins and ends
 */
#pragma once
#include "actions/proxy/proxy_retry.h"

static inline struct ag_loop *ag_proxy_loop(const struct ag_proxy_call *p)
{
    return p->ex->context->loop;
}

static inline struct ag_upstreams *ag_proxy_upstreams(const struct ag_proxy_call *p)
{
    return p->ex->context->action_state[AG_ACTION_PROXY];
}

static inline bool ag_proxy_has_tunnel(const struct ag_proxy_call *p)
{
    return p->tunnel.asked != AG_PROXY_NO_TUNNEL;
}

static inline bool ag_proxy_has_content(const struct ag_proxy_call *p)
{
    return p->req.framing != AG_FRAMING_NONE && !ag_proxy_has_tunnel(p);
}

/* All of the content was taken in before the first try. */
static inline bool ag_proxy_holds(const struct ag_proxy_call *p)
{
    return p->buffers && p->buffers->request;
}

static inline bool ag_proxy_is_idempotent(const struct ag_proxy_call *p)
{
    return ag_method_is_idempotent((enum ag_method)p->req.method);
}

static inline void ag_proxy_stop_timers(struct ag_proxy_call *p)
{
    struct ag_wheel *wheel = &ag_proxy_loop(p)->wheel;

    ag_timer_cancel(wheel, &p->more->pause);
    ag_upstream_unpause(&p->first.claim);
    ag_timer_cancel(wheel, &p->more->patience);
    ag_timer_cancel(wheel, &p->more->hedging);
}

/* ---- proxy_retry.c ---- */

void ag_proxy_init_timers(struct ag_proxy_more *more);
/* A try begins: where it is bounded, its time runs from here, or from the end of the content. */
void ag_proxy_begin_patience(struct ag_proxy_call *p);
/* Requests that may happen twice, whose content is kept. */
bool ag_proxy_may_hedge(const struct ag_proxy_call *p);

/* ---- proxy_retry_more.c ---- */

/* The bytes of content that are to be kept for tries and copies; 0: none. */
uint32_t ag_proxy_kept_bytes(const struct ag_proxy_call *p);

/* The call's; made when it is not there. NULL: out of memory. */
AG_MUST_USE struct ag_proxy_more *ag_proxy_more_of(struct ag_proxy_call *p);
