/*
 * upstream_h2: a connection to an upstream that speaks HTTP/2; each request is a call.
 */
#pragma once
#include "tests/sim/h2.h"
#include "tests/sim/upstream.h"

#define UPSTREAM_PIECE_MAX 16384u

/* One connection. */
struct up_h2 {
    struct server *server;
    struct net_end *end;
    struct h2 h;
    struct call *calls; /* the newest first */
    uint32_t serial;    /* of the last call */
    uint32_t go_after;  /* so many calls it says GOAWAY */
    uint64_t grant_us;  /* windows are given back after at most this */
    bool granting, reading, writing, going;
    struct up_h2 *next;
};

/* How far an answer is. */
enum call_state {
    CALL_WAITING = 0,
    CALL_ANSWERING,
    CALL_BODY,
    CALL_PAUSED, /* a slow one, between two pieces */
    CALL_DONE,   /* or given up */
};

struct call {
    struct up_h2 *u;
    struct request *q;
    struct h2_stream *st;
    struct message message;
    uint8_t state;
    uint32_t sent, told; /* bytes of content; of them so many will be */
    struct call *next;
};

/* ---- upstream_h2.c ---- */

void upstream_h2_write_soon(struct up_h2 *u, uint64_t max_us);
void upstream_h2_close(struct up_h2 *u, bool reset);
/* A call is through: it may have been the last one. */
void upstream_h2_look_for_end(struct up_h2 *u);

/* ---- upstream_h2_answer.c ---- */

/* The head, or what stands in its place (ANSWERING); a piece of content (BODY). */
void upstream_h2_begin(struct call *c);
void upstream_h2_put_body(struct call *c);
