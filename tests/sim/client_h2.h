/*
 * client_h2: clients that speak HTTP/2 by prior knowledge: each request is a stream, several at once.
 *
 *   lane   WAITING -> OPEN --answer, reset, GOAWAY, own cancel--> SETTLED
 *
 * An antic is what a rude one does in the midst of it: a mistake that costs the connection (a PING behind it
 * must not be answered), or a flood that may.
 */
#pragma once
#include "tests/sim/h2.h"
#include "tests/sim/run.h"

#define LANES 16u

struct lane {
    struct client *client;
    struct request *q;
    struct h2_stream *st; /* NULL: not opened */
    struct arrival arrival;
    uint32_t sent; /* bytes of content, or of the tunnel */
    bool waits_for_100, settled;
    bool tunnel; /* it was taken */
};

enum grant {
    GRANT_EAGER = 0,
    GRANT_HALF,
    GRANT_LATE, /* after a while */
    GRANT_DRIBBLE,
    GRANT_NEVER, /* rude */
};

struct antic;

struct client_h2 {
    struct h2 h;
    struct client *client;
    struct lane lanes[LANES];
    uint32_t opened, settled;
    uint8_t grant;
    uint64_t grant_us;
    uint32_t cancel_per_mille;
    uint32_t first_window, second_window; /* of streams: at first, and after a while */
    const struct antic *antic;
    uint32_t antic_at; /* before so many things were sent */
    uint32_t things;
    bool antic_done, granting, opens_on, told;
    bool lingers; /* a reset at its end would take a tunnel's last bytes along */
    bool ended;   /* all is settled, and the end is under way */
};

/* ---- client_h2.c ---- */

void client_h2_write_soon(struct client *c, uint64_t max_us);
/* Nothing more is expected of it. */
void client_h2_settle(struct lane *l);
/* All that the client has to say in it is on its way. */
void client_h2_sent(struct lane *l);

/* ---- client_h2_tunnel.c: extended CONNECT (RFC 8441) ---- */

bool client_h2_can_tunnel(const struct client_h2 *v, const struct lane *l);
/* Sends some bytes, or the end. */
void client_h2_tunnel(struct client_h2 *v, struct lane *l);
/* The server has ended its side. */
void client_h2_end_tunnel(struct lane *l);

/* ---- client_h2_window.c ---- */

void client_h2_choose_windows(struct client_h2 *v);
/* With its first SETTINGS. */
void client_h2_open_windows(struct client *c);
/* Something was read: windows are given back, now or later. */
void client_h2_grant(struct client *c);

/* ---- client_h2_antic.c ---- */

/* Bits of the codes with which GOAWAY may come of it; 0: none has to. */
uint32_t antic_codes(const struct antic *a);
/* It may do no harm. */
bool antic_is_flood(const struct antic *a);
/* Whoever has said which stream was the last one does not look at it. */
bool antic_is_unseen(const struct antic *a);
const struct antic *antic_choose(struct sim *s);
void antic_do(struct client_h2 *v);
/* The answer to this PING says that a mistake was not seen. */
#define ANTIC_PING UINT64_C(0x6d697374616b6500)

/* ---- request_h2.c ---- */

/* What is wrong with a request: see request_h2.c. */
void request_choose_bad_h2(struct run *r, struct request *q);
/* Opens the stream of `q`: HEADERS, with END_STREAM when nothing follows. */
struct h2_stream *request_put_h2(struct h2 *h, struct request *q, struct message *m);
/* A piece of its content, of at most `max` bytes from `from` on, and what ends it. */
void request_put_content_h2(struct h2 *h, struct h2_stream *st, const struct request *q,
                            uint32_t from, uint32_t len);
