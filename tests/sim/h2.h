/*
 * h2: one end of an HTTP/2 connection, for the clients and upstreams of the simulation, written from RFC
 * 9113 and strict: whatever the server under test sends that a peer may not send fails the run. HPACK
 * alone is the project's.
 *
 *   h2_put_*  --> out --h2_write--> net_end          what a mistake needs is put by hand: h2_put_frame
 *   net_read --> h2_feed --> head | data | end | reset | goaway
 *
 * Acknowledgements go out by themselves; windows are given back by the owner (h2_grant), as slowly as it
 * likes, and the peer is held to them.
 */
#pragma once
#include "tests/sim/message.h"
#include "tests/sim/net.h"

#include "proto/hpack.h"

#define H2_PREFACE     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define H2_FRAME_MIN   16384u /* what everybody takes */
#define H2_WINDOW      65535
#define H2_WINDOW_MAX  INT64_C(0x7fffffff)
#define H2_ID_MAX      0x7fffffffu
#define H2_PENDING_MAX 16u /* SETTINGS that wait for their ACK */

enum h2_type {
    H2_DATA = 0,
    H2_HEADERS,
    H2_PRIORITY,
    H2_RST_STREAM,
    H2_SETTINGS,
    H2_PUSH_PROMISE,
    H2_PING,
    H2_GOAWAY,
    H2_WINDOW_UPDATE,
    H2_CONTINUATION,
    H2_PRIORITY_UPDATE = 16,
};

#define H2_END_STREAM  1u
#define H2_ACK         1u
#define H2_END_HEADERS 4u
#define H2_PADDED      8u
#define H2_PRIORITISED 32u

enum h2_code {
    H2_NO_ERROR = 0,
    H2_PROTOCOL_ERROR,
    H2_INTERNAL_ERROR,
    H2_FLOW_CONTROL_ERROR,
    H2_SETTINGS_TIMEOUT,
    H2_STREAM_CLOSED,
    H2_FRAME_SIZE_ERROR,
    H2_REFUSED_STREAM,
    H2_CANCEL,
    H2_COMPRESSION_ERROR,
    H2_CONNECT_ERROR,
    H2_CALM,
};

enum h2_setting {
    H2_TABLE_SIZE = 1,
    H2_ENABLE_PUSH,
    H2_MAX_STREAMS,
    H2_INITIAL_WINDOW,
    H2_MAX_FRAME,
    H2_MAX_FIELDS,
    H2_CONNECT_PROTOCOL = 8,
    H2_NO_PRIORITIES = 9,
};

struct h2_pair {
    uint16_t id;
    uint32_t value;
};

struct h2;

struct h2_stream {
    uint32_t id;
    struct request *q;
    struct message *message; /* the owner's: takes heads, and counts content */
    int64_t send_window;
    int64_t recv_window; /* the most that the peer may believe */
    uint64_t owed;       /* bytes that came, and were not granted again */
    bool end_sent, end_got, reset_sent, reset_got;
    bool headed; /* the final head came */
    bool trailed;
    void *owner;
    struct h2_stream *next;
};

/* To the owner, from h2_feed. */
struct h2_events {
    /* The peer has opened a stream (of a server): the stream, with its message; NULL: it is not looked at. */
    struct h2_stream *(*opened)(struct h2 *, uint32_t id);
    /* A head is in st->message: an interim one, the final one, or a request's. */
    void (*head)(struct h2 *, struct h2_stream *);
    void (*data)(struct h2 *, struct h2_stream *, struct ag_span);
    /* Behind its last head, content or trailers. */
    void (*end)(struct h2 *, struct h2_stream *);
    void (*reset)(struct h2 *, struct h2_stream *, uint32_t code);
    void (*goaway)(struct h2 *, uint32_t last, uint32_t code);
    void (*ponged)(struct h2 *, uint64_t opaque);
};

struct h2 {
    struct sim *sim;
    struct net_end *end;
    const struct h2_events *events;
    void *owner;
    bool server; /* this end is */
    struct h2_stream *streams;
    uint32_t next_id; /* a client's own */
    uint32_t top_id;  /* the highest that was opened */
    uint32_t open;    /* streams that are not through on both sides */
    /* output */
    uint8_t *out;
    size_t out_at, out_len, out_max;
    /* input */
    uint8_t *in;
    size_t in_len, preface_got;
    uint8_t *block; /* of the field section that is coming */
    size_t block_len;
    uint32_t block_id; /* 0: none is */
    bool block_ends;
    struct message *ignored; /* for sections that nobody wants */
    struct ag_arena memory;
    struct ag_hpack_decoder decoder;
    struct ag_hpack_encoder encoder;
    struct ag_buf head; /* that is being written */
    /* what the peer has said */
    bool settled; /* its SETTINGS came */
    bool other;   /* it answers in HTTP/1 (408): the preface did not come in time */
    uint32_t peer_frame_max, peer_streams_max;
    int64_t peer_window;
    bool peer_connect; /* extended CONNECT (RFC 8441) */
    bool going;        /* GOAWAY came */
    uint32_t going_last, going_code;
    int64_t send_window;
    /* what this end has said */
    uint32_t frame_max, table_max, streams_max;
    int64_t window; /* initial, of streams, as the peer has acknowledged it */
    int64_t recv_window;
    uint64_t owed;
    struct {
        bool tables, windows;
        uint32_t table, streams;
        int64_t window;
    } pending[H2_PENDING_MAX];
    uint32_t pending_count;
    uint64_t pings_sent, pings_got;
    uint32_t went_last; /* the last GOAWAY that was sent */
    bool went;
};

void h2_init(struct h2 *h, struct sim *s, struct net_end *end, bool server,
             const struct h2_events *events, void *owner);

/* ---- input ---- */

/* All of `in`; the owner may close the end in the midst of it, and nothing more is told then. */
void h2_feed(struct h2 *h, struct ag_span in);
/* Whether the input ends between frames. */
bool h2_is_between(const struct h2 *h);
struct h2_stream *h2_stream_of(const struct h2 *h, uint32_t id);
/* Gives `bytes` back to the peer, of the connection (st NULL) or a stream; at most what it owes, unless
 * `more`. */
void h2_grant(struct h2 *h, struct h2_stream *st, uint32_t bytes);

/* ---- output ---- */

/* Written and not yet taken by the network. */
static inline size_t h2_unwritten(const struct h2 *h)
{
    return h->out_len - h->out_at;
}
/* Up to `max` bytes: how many were taken, or -errno. */
int64_t h2_write(struct h2 *h, size_t max);

void h2_put_raw(struct h2 *h, const void *bytes, size_t len);
void h2_put_frame(struct h2 *h, unsigned type, unsigned flags, uint32_t id, const void *payload,
                  size_t len);
/* Preface (of a client) and SETTINGS, or SETTINGS alone. */
void h2_put_settings(struct h2 *h, const struct h2_pair *pairs, unsigned count);
void h2_put_u32(struct h2 *h, unsigned type, uint32_t id, uint32_t value);
void h2_put_ping(struct h2 *h, uint64_t opaque);
void h2_put_goaway(struct h2 *h, uint32_t last, uint32_t code);
void h2_put_reset(struct h2 *h, struct h2_stream *st, uint32_t code);
/* A new stream, which counts as open, and of which nobody was told. */
struct h2_stream *h2_open(struct h2 *h, uint32_t id, struct message *m);
/* A field section: begin, fields in order, end. Names in lower case. */
void h2_head_begin(struct h2 *h);
void h2_head_put(struct h2 *h, const char *name, struct ag_span value);
void h2_head_printf(struct h2 *h, const char *name, const char *fmt, ...) AG_PRINTF(3, 4);
/* A literal of whatever bytes there are. */
void h2_head_raw(struct h2 *h, struct ag_span name, struct ag_span value);
void h2_head_end(struct h2 *h, struct h2_stream *st, bool end_stream);
/* The most content that may go now. */
size_t h2_room(const struct h2 *h, const struct h2_stream *st);
void h2_put_data(struct h2 *h, struct h2_stream *st, struct ag_span content, bool end_stream);

static inline bool h2_is_over(const struct h2_stream *st)
{
    return (st->end_sent && st->end_got) || st->reset_sent || st->reset_got;
}
