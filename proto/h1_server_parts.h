/*
 * h1_server_parts: what the three files of h1_server share; nobody else includes it.
 *
 *   h1_server.c          the machine: states, deadlines, the stream's callbacks, the end
 *   h1_server_request.c  input: heads and content
 *   h1_server_answer.c   output: what actions answer, as bytes
 */
#pragma once
#include "proto/h1_server.h"

static inline struct ag_h1_progress *ag_h1_progress(const struct ag_h1_server *h)
{
    return ag_exchange_room(h->ex);
}

/* Each returns true when it got something done, so that the machine goes round again. */
bool ag_h1_server_begin_head(struct ag_h1_server *h);
bool ag_h1_server_read_head(struct ag_h1_server *h);
bool ag_h1_server_read_body(struct ag_h1_server *h);
bool ag_h1_server_write_answer(struct ag_h1_server *h);

/* The request's content is complete; `trailers` (or NULL) live in the exchange. */
void ag_h1_server_body_complete(struct ag_h1_server *h, const struct ag_fields *trailers);

/* An answer to what was not understood or not allowed; the connection ends after it. */
void ag_h1_server_refuse(struct ag_h1_server *h, unsigned status, enum ag_reason why,
                         const char *what);
/* Answers 503 from static memory, for want of any other, and ends the connection. Nothing of another
 * answer to this request may be written. */
void ag_h1_server_overload(struct ag_h1_server *h);
/* No more of the answer comes. What did is the client's all the same (the last of a stream of events), where the
 * framing says that the rest is missing; where its end is the connection's, only a reset does. */
void ag_h1_server_break_off(struct ag_h1_server *h, enum ag_reason why);
/* Ends the connection at once. */
void ag_h1_server_close_now(struct ag_h1_server *h, enum ag_reason why);

/* The client is to send its request's content, or more of it, from now on. */
void ag_h1_server_await_body(struct ag_h1_server *h);

static inline void ag_h1_server_set_state(struct ag_h1_server *h, enum ag_h1_state to)
{
    static const uint8_t edges[] = {
        [AG_H1_IDLE] = 1u << AG_H1_HEAD | 1u << AG_H1_CLOSING,
        [AG_H1_HEAD] = 1u << AG_H1_EXCHANGE | 1u << AG_H1_CLOSING,
        [AG_H1_EXCHANGE] = 1u << AG_H1_IDLE | 1u << AG_H1_TUNNEL | 1u << AG_H1_CLOSING,
        [AG_H1_TUNNEL] = 1u << AG_H1_CLOSING,
        [AG_H1_CLOSING] = 0, /* final */
    };

    AG_ASSERT(edges[h->state] & 1u << to);
    h->state = (uint8_t)to;
}

void ag_h1_server_pause(struct ag_h1_server *h);
/* Receive in large or small buffers from now on. */
void ag_h1_server_want_group(struct ag_h1_server *h, bool large);
/* Goes round soon: now when the machine is running, else by a task of this turn. */
void ag_h1_server_wake(struct ag_h1_server *h);
/* A body has news: goes round. */
void ag_h1_server_body_event(struct ag_body *b, void *owner);

/* The functions that exchanges see. */
extern const struct ag_server_ops ag_h1_server_ops;
