/*
 * h2_client: HTTP/2 towards an upstream (RFC 9113): many calls at a time on one connection, each of them a
 * stream of h2_conn.h's.
 *
 *   SETTLING --the upstream's SETTINGS--> OPEN --GOAWAY, ids used up--> CLOSING --its last call--> owner ends
 *      \_________ refused, silent, no HTTP/2 ________________________________\--> the stream's on_close
 *
 *   call:  HEADERS out -> interim* -> head -> content -> trailers -> done
 *          RST_STREAM, GOAWAY below its id, a broken rule, the connection's end: failed
 *
 * Calls wait for the upstream's first SETTINGS, so that none is lost to a server of another protocol, and
 * none is sent that the upstream does not take. What an answer's fields say lies in call->keep, and so does
 * what is needed to carry the call: nothing is allocated here.
 *
 * While calls are open and nothing comes, the upstream is asked by PING whether it still lives. One that takes
 * what is sent does, however long its answer stands behind that.
 */
#pragma once
#include "proto/call.h"
#include "proto/h2_conn.h"
#include "proto/h2_memo.h"

/* Calls at a time on one connection, if the upstream allows as many. */
#define AG_H2_CLIENT_CALLS_MAX 128u

/* Silence after which a ping is sent, what it may take, and the silence before the next one: servers end a
 * connection that pings more often than every five minutes without a reason. */
#define AG_H2_CLIENT_SILENCE_MS    20000u
#define AG_H2_CLIENT_PONG_MS       10000u
#define AG_H2_CLIENT_PING_AGAIN_MS 310000u

struct ag_h2_client;

/* To the owner of the connection; from the loop. */
struct ag_h2_client_ops {
    /* The upstream's SETTINGS came, the first or other ones: see ag_h2_client_room. */
    void (*settled)(struct ag_h2_client *);
    /* It takes no new calls any more; those that it has may go on. */
    void (*closing)(struct ag_h2_client *);
};

struct ag_h2_client {
    struct ag_h2_conn conn; /* first */
    const struct ag_h2_client_ops *ops;
    struct ag_h2_memo *memo; /* of responses; in the connection's memory; NULL: none (yet) */
    uint64_t heard_ms;   /* loop time of the last bytes received, or of the first call after none */
    uint32_t silence_ms; /* before the next ping */
    struct ag_stream_look taken; /* what it had taken at the last look */
    uint32_t calls_max;          /* as many as it took; less than it allows after REFUSED_STREAM */
    bool settled;
};

/* Sets up `c` on an open stream and sends the preface. False: out of buffers, the stream was aborted. */
bool ag_h2_client_open(struct ag_h2_client *c, struct ag_stream *s,
                       const struct ag_h2_client_ops *ops);
/* How many more calls may be started now; 0 before `settled` and after `closing`. */
uint32_t ag_h2_client_room(const struct ag_h2_client *c);
/* Whether the upstream takes extended CONNECT (RFC 8441 section 3). */
static inline bool ag_h2_client_tunnels(const struct ag_h2_client *c)
{
    return c->conn.peer_connect;
}

/*
 * Starts a call; there is room. A request with a protocol of its own is an extended CONNECT: its content
 * is what the tunnel will carry.
 * AG_ENOMEM: nothing was started; the connection is aborted if that was for want of buffers.
 * AG_ELIMIT: the head is larger than any.
 */
AG_MUST_USE enum ag_status ag_h2_client_start(struct ag_h2_client *c, struct ag_call *call);

/* Ends in order: GOAWAY, then the stream ends. No call may be open. */
void ag_h2_client_finish(struct ag_h2_client *c);

/* The stream's callbacks, for the owner's table to call. */
void ag_h2_client_data(struct ag_h2_client *c, struct ag_slice s);
void ag_h2_client_eof(struct ag_h2_client *c);
void ag_h2_client_drained(struct ag_h2_client *c);
void ag_h2_client_deadline(struct ag_h2_client *c);
/* The stream is gone: live calls fail. */
void ag_h2_client_closed(struct ag_h2_client *c, enum ag_reason why);
