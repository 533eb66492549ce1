/*
 * h1_client_parts: what the three files of h1_client share; nobody else includes it.
 *
 *   h1_client.c          the machine: states, calls, the stream's callbacks, the end
 *   h1_client_request.c  output: the request's content, as bytes
 *   h1_client_answer.c   input: heads, content, trailers
 */
#pragma once
#include "proto/h1_client.h"

/* Content from here on is received in large buffers: less fits a few small ones as well. */
#define AG_H1_CLIENT_LARGE (16u * 1024u)

static inline bool ag_h1_client_is_live(const struct ag_h1_client *c)
{
    return c->state == AG_H1_CLIENT_CALL || c->state == AG_H1_CLIENT_TUNNEL;
}

static inline struct ag_pool *ag_h1_client_nodes(struct ag_h1_client *c)
{
    return &c->stream->loop->nodes;
}

/* Ends the call, and the connection with it. */
void ag_h1_client_fail(struct ag_h1_client *c, enum ag_reason why, const char *detail);
/* The answer is complete in res_body; in a tunnel both sides have ended. */
void ag_h1_client_complete(struct ag_h1_client *c);

/* Uses the input as far as res_body has room. Every callback may end the call, and `done` may have
 * begun another one: then that one's own events go on. */
void ag_h1_client_receive(struct ag_h1_client *c);
/* Lets go of a head, or a trailer section, that had to be gathered. */
void ag_h1_client_drop_head(struct ag_h1_client *c);
/* Receive in large or small buffers from now on. */
void ag_h1_client_set_large(struct ag_h1_client *c, bool large);
/* Reads on, if it was paused for want of room in res_body. */
void ag_h1_client_resume(struct ag_h1_client *c);

/* Moves content to the stream while that takes it. */
void ag_h1_client_send_content(struct ag_h1_client *c);
/* The same, as the body's callback and as a task. */
void ag_h1_client_req_readable(struct ag_body *b, void *owner);
void ag_h1_client_work(struct ag_task *t);
