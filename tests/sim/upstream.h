/*
 * upstream: the servers behind the server under test. They read strictly what they are sent, check it
 * against the request it must be, and do what the request's plan says.
 *
 *   a  two sound ones        b  two that cannot always be reached    c  a sound one, few connections
 *   n  a sound one by name   m  a name that does not exist           x  an address where nobody listens, or
 *      somebody whose certificate is nobody's
 *   h  two that speak HTTP/2, of which a plan ends a stream at most
 *   g  two of which it ends the connection
 *   p  a sound one whose connections begin with a PROXY header, and have one request each
 *
 * Each listens with TLS, too. Every one of them closes connections that are idle, at a time of its own.
 */
#pragma once
#include "tests/sim/run.h"

struct server {
    struct run *run;
    char group;
    uint32_t ip;
    struct net_listener *listener, *tls; /* NULL: it has died */
    bool h2;
    bool kills;        /* its plans end connections */
    uint64_t idle_us;  /* closes idle connections after at most this */
    uint64_t delay_us; /* before an answer, at most */
    uint32_t piece_max;
    uint64_t pause_us; /* between two writes, two reads */
};

/* What an upstream sends for a request, and what it does then. */
enum answer_end { ANSWER_KEEP, ANSWER_FIN, ANSWER_RST, ANSWER_STALL };

struct answer {
    const uint8_t *bytes;
    size_t len;
    uint8_t end;
    bool early; /* begins before the request's content was read */
};

/* upstream_answer.c: the bytes by the request's plan. `close`: the request asked for it; `whole`: what is
 * written at once arrives at once. */
void answer_make(struct sim *s, const struct request *q, bool close, bool whole,
                 struct answer *out);

/* Its listeners, from now on. */
void upstream_listen(struct server *v);
/* An end that was accepted by `l`, with its layer. */
struct net_end *upstream_take(struct net_listener *l);

/* ---- upstream_check.c ---- */

/* The request whose head is in `m`, which is as it must be. */
struct request *upstream_identify(struct server *v, struct message *m);
/* It is to be answered before its content was read. */
bool upstream_is_early(const struct request *q);
/* A piece of its content came, the last one that `m` counts; and all of it. */
void upstream_check_content(struct run *r, const struct request *q, const struct message *m,
                            struct ag_span body);
void upstream_complete(struct run *r, struct request *q, const struct message *m);

/* ---- upstream_h2.c ---- */

void upstream_h2_accept(struct net_listener *l);
void upstream_h2_kill(struct server *v);
uint32_t upstream_h2_open(const struct run *r);
