/*
 * h1_expect: what a server with the actions of h1_actions.h has to make of what a client sends, by the
 * independent reading of h1_oracle.h, and whether it did.
 *
 * Some things depend on when bytes come, not on which: a request that waits may be answered before or
 * after its content turns out to be malformed. Such messages are marked, not left out.
 */
#pragma once
#include "fuzz/h1_actions.h"
#include "fuzz/h1_oracle.h"

#define EXPECT_MAX 256u

/* How the server of the test is set up. */
#define EXPECT_LINE_MAX    256u
#define EXPECT_HEAD_MAX    1024u
#define EXPECT_FIELD_MAX   30u
#define EXPECT_DISCARD_MAX 64u
#define EXPECT_REQUESTS    40u /* on one connection */
#define EXPECT_HEADER_MS   10000u
#define EXPECT_IDLE_MS     75000u

#define EXPECT_ROOM (7u * EXPECT_REQUESTS)

/* How an action deals with content. */
enum manner {
    EARLY,   /* answers at once, whatever comes */
    LATE,    /* the same, some time later */
    READS,   /* answers when it has all of it */
    STREAMS, /* begins at once, ends with the content */
    LIES,    /* begins at once, and breaks off */
};

struct expected {
    struct oracle_head head;
    struct oracle_body body;
    size_t start, at; /* where it starts in the input, and its content */
    enum act act;
    enum manner manner;
    bool is_head;
    bool wants;        /* its action asks for content, and there is some */
    bool seen;         /* the pipeline gets it */
    unsigned status;   /* of the answer; 0: see `statuses` */
    unsigned statuses; /* oracle's bits: one of these will do too */
    bool answered;     /* its answer is sent to the end */
    bool optional;     /* may stay without answer */
    bool aborts;       /* the connection does not end in order */
    bool may_abort;
    bool must_close; /* it is the last one */
    bool may_close;
    bool says_close; /* and is known to be when its answer begins */
    bool in_doubt;   /* whether its content comes, unless it is there: it expects 100 */
    bool drops_much; /* more content than is read to be dropped */
};

struct expectation {
    struct ag_span in;
    struct expected v[EXPECT_MAX];
    unsigned count;
    struct ag_buf room; /* paths, fields and content */
};

/* Reads all of `in`, which ends the connection. False: more messages than are kept.
 *   room  memory for what is read: EXPECT_ROOM times as long as `in` */
bool expect_all(struct expectation *x, struct ag_span in, struct ag_buf room);

/* What became of a connection. */
struct outcome {
    struct ag_span out; /* what the client got */
    uint8_t *scratch;   /* memory as long as it */
    bool aborted;       /* it did not end in order */
    bool strict;        /* all of the input came, and nothing else happened */
    bool scarce;        /* memory was short */
    bool whole;         /* the input came in one piece */
    bool knows_open;    /* with `strict`: `open` says whether it was open before the input ended */
    bool open;
    bool incomplete; /* the stream was marked as one whose end is not the content's */
};
/* Panics when that is not what was to be. */
void expect_check(const struct expectation *x, const struct acts *a, const struct outcome *o);
