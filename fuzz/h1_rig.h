/*
 * h1_rig: one connection of h1_server over a stream in memory, the actions behind it and what is expected
 * of it, for the runs of fuzz_h1_connection.
 *
 *   rig_begin --> rig_feed*, rig_turn, rig_settle, rig_drain ... --> rig_end --> rig_finish
 */
#pragma once
#include "fuzz/h1_expect.h"
#include "proto/h1_server.h"
#include "tests/memwire.h"

#define RIG_INPUT_MAX 8192u

/* The loop's pools. */
#define RIG_NODES 1024u
#define RIG_PAGES 64u
#define RIG_SMALL 384u
#define RIG_LARGE 12u

enum mode {
    MODE_LATE_DATA = 1,   /* one slice more comes after each pause */
    MODE_SLOW_READER = 2, /* the client takes nothing until the script says so */
    MODE_TIME = 4,        /* it ends by falling silent, not by closing */
    MODE_SCARCE = 8,      /* little is left of one of the pools: see `scarce` */
    MODE_DRAINING = 64,   /* accepted while the server drains */
    MODE_NAMED = 128,     /* the peer's address is known */
};

/* The connection under test; one at a time. */
struct rig {
    bool made;
    struct memloop m;
    struct acts acts;
    struct memwire wire;
    struct ag_h1_server h1;
    struct expectation expectation;
    uint8_t out[2u * 1024u * 1024u], scratch[2u * 1024u * 1024u];
    uint8_t expected_bytes[EXPECT_ROOM * RIG_INPUT_MAX], seen_bytes[16u * RIG_INPUT_MAX];
    /* what MODE_SCARCE keeps from the server */
    void *nodes[RIG_NODES], *pages[RIG_PAGES];
    struct ag_block *blocks[RIG_SMALL + RIG_LARGE];
    unsigned nodes_held, pages_held, blocks_held;
    /* one run */
    struct ag_span in;
    size_t at; /* bytes of it that were given to the server */
    unsigned mode;
    bool late; /* a slice has come since the pause */
    bool eof;
    bool whole;      /* all of it at once */
    bool incomplete; /* it was marked so when it closed */
    bool odd;        /* something else happened than input coming, and being read */
};
extern struct rig rig;

/* Once. */
void rig_make(void);
/* A new connection, whose client will send `in`. */
void rig_begin(struct ag_span in, unsigned mode);
/* Takes all of the pool that rig.mode names but a little. */
void rig_make_scarce(unsigned left);
void rig_free_held(void);

/* Time passes, and all that is to be done is done; bounds that always hold are checked. */
void rig_turn(uint64_t after_ms);
/* Gives the server the next `len` bytes, as far as it reads. False: it does not, or there are none. */
bool rig_feed(size_t len);
/* Up to `end`, as far as it is read, a turn for each slice. */
void rig_feed_to(size_t end);
/* What is left, in pieces of `most` at most; what waits is let go on when the server has to read. */
void rig_feed_rest(size_t most);
/* Lets all that waits go on, and gives the client what it is owed. */
void rig_settle(void);
/* A drain, or a yield. */
void rig_drain(bool yield);
/* The client shuts its side, if that can come now. */
void rig_end_input(void);
/* The same, and all that follows: an answer that has begun, and waits for the rest of its content, has the time of
 * idling. */
void rig_end(void);

/* The connection is closed: checks that nothing is left behind, and all that came of it.
 *   strict  all of the input came, and nothing else happened
 *   open    when it is known: whether it was open before its end came */
void rig_finish(bool strict, const bool *open);

/* By a client that waits for each answer, and then closes or falls silent: the connection ends in its
 * time, not before. Changes what is expected. */
void polite_run(struct ag_span in, unsigned seed, unsigned mode);
/* By a client that takes nothing: it is cut. */
void stalled_run(struct ag_span in);
