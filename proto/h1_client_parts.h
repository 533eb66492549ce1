/*
 * h1_client_parts: what the two files of h1_client share; nobody else includes it.
 *
 *   h1_client.c          the machine: states, answers, the stream's callbacks, the end
 *   h1_client_request.c  the request's content, as bytes
 */
#pragma once
#include "proto/h1_client.h"

static inline bool ag_h1_client_is_live(const struct ag_h1_client *c)
{
    return c->state == AG_H1_CLIENT_CALL || c->state == AG_H1_CLIENT_TUNNEL;
}

/* Ends the call, and the connection with it. */
void ag_h1_client_fail(struct ag_h1_client *c, enum ag_reason why, const char *detail);
/* The answer is complete in res_body; in a tunnel both sides have ended. */
void ag_h1_client_complete(struct ag_h1_client *c);

/* Moves content to the stream while that takes it. */
void ag_h1_client_send_content(struct ag_h1_client *c);
/* The same, as the body's callback and as a task. */
void ag_h1_client_req_readable(struct ag_body *b, void *owner);
void ag_h1_client_work(struct ag_task *t);
