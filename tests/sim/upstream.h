/*
 * upstream: the servers behind the server under test. They read strictly what they are sent, check it
 * against the request it must be, and do what the request's plan says.
 *
 *   a  two sound ones        b  two that cannot always be reached    c  a sound one, few connections
 *   n  a sound one by name   m  a name that does not exist           x  an address where nobody listens
 *
 * Every one of them closes connections that are idle, at a time of its own.
 */
#pragma once
#include "tests/sim/run.h"

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
