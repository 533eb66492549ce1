/*
 * proxy_buffer: requests that are here as a whole before their upstream is asked, and answers that are taken from it
 * as fast as it sends them (spool.h).
 *
 *   client --req_body--> spool, a hold --whole--> the first try: claim, call --sending--> upstream
 *                           `--kept: sent again by retries, from disk too; hedged and mirrored from memory alone
 *
 *   upstream --call--> coming --the head came--> spool, a stream --res_body--> client
 *                                  `--not to be buffered--> replay that keeps nothing (proxy_retry.h, relays)
 *
 * Never buffered: tunnels, gRPC and routes that stream (`stream: on`), either way; answers of type
 * text/event-stream, and those whose upstream says X-Accel-Buffering: no. What a client or an upstream has cut short
 * is cut short on the other side, after all that came before.
 */
#pragma once
#include "actions/proxy/proxy_config.h"
#include "actions/proxy/spool.h"
#include "actions/upstream/upstream_group.h"

struct ag_proxy_call;
struct ag_proxy_try;

/* What a process's shards share (context->action_common). */
struct ag_proxy_common {
    struct ag_upstream_groups *groups;
    struct ag_spool_disk disk;
};

/* Of one request; in the exchange's arena, where something of it is buffered. */
struct ag_proxy_buffers {
    struct ag_proxy_call *whole;
    struct ag_spool *request;     /* NULL: it is not buffered */
    struct ag_spool *answer;      /* NULL: it is not buffered, whatever it says */
    struct ag_body sending;       /* of `request`, to the call */
    struct ag_body coming;        /* of the first try's call, where `answer` is set */
    struct ag_spool_settings set; /* of the answer; its folder is held */
    bool passes;                  /* `answer` is at work */
};

/* Before anything else is prepared. False: out of memory. */
AG_MUST_USE bool ag_proxy_buffers_init(struct ag_proxy_call *p);
/* Everything is prepared: takes in what is to be here first, then begins (ag_proxy_begin). */
void ag_proxy_buffers_begin(struct ag_proxy_call *p);
/* The request's content from the first byte on, for a call that is about to begin. */
struct ag_body *ag_proxy_buffers_content(struct ag_proxy_buffers *b);
/* It will not be given again. `goes_on`: a call still takes what it was given; else nobody wants any of it. */
void ag_proxy_buffers_forget(struct ag_proxy_buffers *b, bool goes_on);
/* Whether the request was to be kept and its disk has lost it. */
bool ag_proxy_buffers_lost(const struct ag_proxy_buffers *b);
/* The answer whose head came is to be buffered: its content goes on through the spool. False: it is not. */
AG_MUST_USE bool ag_proxy_buffers_answer(struct ag_proxy_call *p, struct ag_body *from,
                                         const struct ag_response *res);
/* Whether something of the answer is still to be passed on, and its end will be told of (ag_proxy_passed). */
static inline bool ag_proxy_buffers_pass(const struct ag_proxy_buffers *b)
{
    return b && b->passes && b->answer->ended;
}
/* Before the exchange is let go. */
void ag_proxy_buffers_end(struct ag_proxy_call *p);
