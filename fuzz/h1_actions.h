/*
 * h1_actions: a pipeline whose actions are as different as actions can be, chosen by the last byte of
 * the request's target, and a record (h1_seen.h) of what they were given.
 *
 *   server --start--> pipeline --> one of: answers at once, answers after the content, streams, waits
 *   for the test, lies about its length, breaks off, resets, fails, switches protocols
 */
#pragma once
#include "fuzz/h1_seen.h"

/* What an action does; the letter, or digit, is the target's last byte. Any other: 404. */
enum act {
    ACT_NONE = 0,
    ACT_ABORT = 'a',   /* chunked, broken off */
    ACT_BIG = 'b',     /* ACT_BIG_BYTES of content; the third and later ones of a connection: 404 */
    ACT_CHUNKS = 'c',  /* reads all, answers the same in chunks of 7 */
    ACT_DELAYED = 'd', /* waits for the test, which may be long in coming; then as 'w' */
    ACT_ECHO = 'e',    /* reads all, answers the same with its length */
    ACT_FIXED = 'f',   /* prepared, short */
    ACT_FIXED_LONG = 'g', /* prepared, more than is copied behind its head */
    ACT_HINTS = 'i',      /* 103, then as 'f' */
    ACT_CLOSE = 'k',      /* reads all; content until the connection's end */
    ACT_SHORT = 'l',      /* less content than its length says */
    ACT_UNCHANGED = 'm',  /* 304 */
    ACT_EMPTY = 'n',      /* 204 */
    ACT_LONG = 'o',       /* more content than its length says, in pieces as the test lets it */
    ACT_HEAD = 'p',       /* a head beyond a small buffer */
    ACT_FAIL = 'q',       /* 500 */
    ACT_STREAM = 's',     /* chunked; the content as it comes, with its trailers */
    ACT_FILTER = 't',     /* a filter that waits for the test, then as 'e' */
    ACT_UPGRADE = 'u',    /* 101 where it was asked for, else 426; then what comes goes back */
    ACT_RESET = 'v',      /* a head, then a reset */
    ACT_WAIT = 'w',       /* waits for the test, then answers without having read the content */
    ACT_LIMIT = 'x',      /* as 'e', ACT_LIMIT_BYTES of content at most */
    ACT_FIELDS = 'h',     /* as 'f', behind a filter: by way of its fields */
    ACT_PARAMS = 'j', /* content: the first segment of the path, and what comes after the third */
    ACT_TWICE = 'r',  /* as 'f', and tries to answer again */
    ACT_LAZY = 'z',   /* waits for the test, which may be long in coming; then as 'e' */
    ACT_BUSY = 'y',   /* 503 with Allow, and a Retry-After of its own when there is a query */
};
#define ACT_BIG_BYTES   (140u * 1024u) /* more than AG_STREAM_HIGH */
#define ACT_BIG_MAX     2u
#define ACT_LIMIT_BYTES 16u

#define ACT_SEEN_MAX 256u

struct acts {
    struct ag_context ctx;
    struct ag_block snapshots[3]; /* one of them is the current one */
    struct act_work *work;        /* the action that runs; NULL: none */
    struct act_seen seen[ACT_SEEN_MAX];
    unsigned seen_count, done_count, big_count;
    struct ag_buf bytes;       /* what was seen */
    const union ag_addr *peer; /* who asks; NULL: the system does not say */
    uint16_t port;             /* of the listener */
    bool scarce;               /* memory is short */
};

/* Once; `bytes` is memory for what is seen, sixteen times what a connection may send. */
void acts_init(struct acts *a, struct ag_loop *l, struct ag_buf bytes);
/* Forgets what was seen. Nothing may be live. */
void acts_reset(struct acts *a);
/* Whether an action or filter waits for the test; `long_ones`: DELAYED too. */
bool acts_waits(const struct acts *a, bool long_ones);
/* The wait is over. Panics when the one who waited held a receive buffer. */
void acts_resume(struct acts *a);

/* A reload: the next snapshot is the current one from here on, and whoever can lets older ones go. */
void acts_reload(struct acts *a);

/* What an answer of `act` holds when it does not depend on the request. */
struct ag_span act_fixed_body(enum act act);
uint8_t act_big_byte(size_t i);
/* ACT_NONE for a letter that is none. */
enum act act_of_letter(uint8_t letter);
