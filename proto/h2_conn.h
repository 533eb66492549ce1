/*
 * h2_conn: what both ends of an HTTP/2 connection share (RFC 9113): frames in and out, SETTINGS, PING,
 * GOAWAY, streams by id, flow control, who sends next. h2_server and h2_client are roles on top of it.
 *
 *   role (struct ag_h2_role)
 *      | streams, sections, sources and sinks        ^ open, section, content, ended, sent, lost
 *      v                                             |
 *   struct ag_h2_conn    in: slices -> frames        out: sections at once, DATA by priority, one flush
 *      v                                             ^                                       a turn
 *   struct ag_stream
 *
 *   PREFACE --its magic--> SETTINGS --the first frame--> OPEN --goes, fails--> CLOSING
 *   (server)               (a client begins here)
 *
 * A stream, as this side sees it; it lies in memory of the role's, and is in the table while it lives:
 *
 *            .-- ended: END_STREAM came ---.
 *   OPEN ---<                               >--> both: the role lets it leave
 *            '-- sent: END_STREAM is out --'
 *   any: RST_STREAM of either side, an error, the connection's end --> left, and `lost` unless the role
 *   did it itself
 *
 * Callbacks come from ag_h2_conn_data and the like, or from a task of the loop, and not out of a call that
 * the role makes, but for `lost` of the streams that ag_h2_conn_fail, _finish, _abort and ag_h2_stream_error
 * end. The calls here may be made in any of them. After the end all streams have left, and nothing is called
 * any more.
 */
#pragma once
#include "proto/body.h"
#include "proto/h2_fields.h"
#include "proto/h2_frame.h"

struct ag_h2_conn;
struct ag_h2_stream;

struct ag_h2_role {
    bool server;
    /* HEADERS of a stream that is new. The role makes one, or has the section decoded all the same
     * (ag_h2_skip_section) and refuses by ag_h2_conn_refuse. Clients: NULL. */
    void (*open)(struct ag_h2_conn *, uint32_t id, struct ag_span section, bool end);
    /* HEADERS of a live stream whose peer had not ended: a response or trailers. To be decoded. */
    void (*section)(struct ag_h2_stream *, struct ag_span section, bool end);
    /* `len` bytes of content are about to go to the sink, if the stream still is live then: limits, paces. */
    void (*content)(struct ag_h2_stream *, size_t len);
    /* The peer's side has ended, behind the section or the content that said so; the sink has not been
     * ended yet (trailers are the role's). */
    void (*ended)(struct ag_h2_stream *);
    /* The source was sent to its end, END_STREAM is written. */
    void (*sent)(struct ag_h2_stream *);
    /* The source was aborted, or holds another length than was told: the role resets the stream. */
    void (*broken)(struct ag_h2_stream *, enum ag_reason);
    /* It has left: the peer reset it, it broke the protocol, or the connection ended. `what` is static. */
    void (*lost)(struct ag_h2_stream *, enum ag_h2_error, enum ag_reason, const char *what);
    /* The peer's SETTINGS came (again): peer_* may have changed. NULL: not asked for. */
    void (*settled)(struct ag_h2_conn *);
    /* The peer takes no streams above `last` any more. NULL: not asked for. */
    void (*goaway)(struct ag_h2_conn *, uint32_t last, uint32_t code);
    /* The answer to ag_h2_conn_ping. */
    void (*pong)(struct ag_h2_conn *, uint8_t kind);
    /* The peer has shut its side, and all that came before was read. */
    void (*eof)(struct ag_h2_conn *);
    /* At the end of each round, before deadlines are set: what could not be done inside of a call. */
    void (*settle)(struct ag_h2_conn *);
    /* c->due_ms has passed: the role does what is due and sets the next. */
    void (*late)(struct ag_h2_conn *);
};

/* What a peer may do that is of no use, so that it cannot keep this side busy (THREATS.md, HTTP/2). */
#define AG_H2_STREAMS_MAX 128u
#define AG_H2_RESETS_MAX \
    200u /* of streams, in AG_H2_BUDGET_MS, its own and those that it provokes */
#define AG_H2_NOISE_MAX \
    1000u /* frames without content, in AG_H2_BUDGET_MS, but for what use earns. Of what a client had on
             its way when its stream was reset one is, its end */
#define AG_H2_BUDGET_MS 10000u
/* Window updates that content earns, two a frame, and that may come in one burst: what a peer gives back
 * frame by frame when it has been away for a while. */
#define AG_H2_UPDATES_MAX 65536u
/* A piece of content that a nearly shut window cuts off waits that long for the peer to give more back. */
#define AG_H2_HOLD_MS 500u
/* CONTINUATION frames of one section, and its bytes as received. What is read to its end costs its stream alone,
 * however much larger than the role's limits it is; beyond that is the end of the connection. */
#define AG_H2_CONTINUATIONS_MAX 32u
#define AG_H2_SECTION_MAX       AG_BUF_LARGE_BYTES

/* What the peer may send ahead of who takes it: of a stream, and of all of a connection. They grow as
 * far as the path needs (its bandwidth times its delay), unless buffers run short.
 * What the streams of a client hold counts against its connection: a few that nobody takes stop all of its
 * others. Calls to an upstream are of many clients: there a stream's window alone is shut, and grows to its
 * share of AG_H2_CONN_WINDOW_MAX among the streams that live, or what each begins with. So what bodies hold is
 * 4 MiB for four streams and less than 20 MiB for 128, where none takes anything. */
#define AG_H2_STREAM_WINDOW_MAX (1024 * 1024)
#define AG_H2_CONN_WINDOW       (1024 * 1024)
#define AG_H2_CONN_WINDOW_MAX   (4 * 1024 * 1024)

/* Streams that a client opens before it knows how many it may. */
#define AG_H2_STREAMS_GUESS 100u

#define AG_H2_URGENCIES 8u
#define AG_H2_BUCKETS   32u
/* Streams reset lately that are remembered: as many as may live at a time. */
#define AG_H2_RESET_IDS 128u
#define AG_H2_EARLY_IDS 4u

enum ag_h2_state {
    AG_H2_PREFACE = 0, /* a server waits for the client's magic   -> SETTLING, CLOSING */
    AG_H2_SETTLING,    /* the peer's first SETTINGS are awaited   -> OPEN, CLOSING */
    AG_H2_OPEN,        /*                                         -> CLOSING */
    AG_H2_CLOSING,     /* finish or abort was called */
};

/* Pings of ours; see ag_h2_conn_ping. */
enum ag_h2_ping { AG_H2_PING_BDP = 0, AG_H2_PING_DRAIN, AG_H2_PING_ALIVE, AG_H2_PINGS };

/* How long a peer may keep a window shut while content waits for it. What was sent may still be on its way to
 * the peer, which can give nothing back for it: then it has its time from when it has acknowledged that. */
struct ag_h2_stall {
    struct ag_pace pace; /* due_ms 0: nothing waits */
    uint32_t mark;       /* progress of the stream that it is to make first */
    uint8_t step;        /* 0: not late yet; 1: `mark` is awaited; 2: it was reached */
};

struct ag_h2_stream {
    struct ag_h2_conn *conn;
    struct ag_h2_stream *next; /* in its bucket */
    struct ag_link link; /* among those that can send or that wait; when it has left: the role's */
    struct ag_body *source;   /* content to send; NULL: none yet */
    struct ag_body *sink;     /* where content goes; NULL: it is dropped */
    uint64_t source_left;     /* of a length that was told; AG_LENGTH_UNKNOWN */
    uint64_t sink_left;       /* the same of what comes: content-length against DATA */
    struct ag_h2_stall stall; /* by its window */
    uint64_t sent_bytes;      /* of content */
    uint64_t owed;            /* of them, those that no window update has given back */
    uint64_t moved_ms;        /* loop time of the last content, either way, or of its beginning */
    uint32_t id;
    uint32_t held;       /* bytes in the sink that were not taken at the last look */
    int32_t send_window; /* may be below 0 (RFC 9113 section 6.9.2) */
    int32_t recv_window; /* what the peer may still send */
    uint8_t urgency;     /* RFC 9218 */
    bool incremental;    /* shares with others of its urgency; those that say nothing do */
    bool prioritised;    /* by PRIORITY_UPDATE: the request's field holds no more */
    bool live;           /* in the table */
    bool ended;          /* END_STREAM came */
    bool sent;           /* END_STREAM was written */
    bool queued;         /* in a queue of those that can send */
    bool waiting;        /* content waits for the stream's window */
};

/* A priority that came before its stream (RFC 9218 section 7.1). */
struct ag_h2_early {
    uint32_t id; /* 0: none */
    struct ag_h2_priority priority;
};

/* A frame that is being read. */
struct ag_h2_input {
    struct ag_chain q;     /* received, not yet used */
    struct ag_block *part; /* a frame or section that did not come in one piece; NULL: none */
    uint32_t part_len;     /* bytes in it */
    uint32_t left;         /* of a frame whose header was read: bytes to come, padding included */
    struct ag_h2_frame frame;
    uint8_t header[AG_H2_HEADER_BYTES]; /* of one that did not come in one piece */
    uint8_t header_len;
    uint32_t section_id;  /* a section whose END_HEADERS is awaited; 0: none */
    uint32_t section_len; /* bytes of it in `part` */
    uint8_t section_frames;
    bool section_end; /* its HEADERS had END_STREAM */
    uint8_t padding;  /* DATA: bytes at its end that are none */
    bool in_frame;
    bool in_data; /* DATA whose padding is known */
};

struct ag_h2_conn {
    struct ag_stream *stream;
    struct ag_loop *loop;
    const struct ag_h2_role *role;
    struct ag_task work;
    struct ag_arena memory; /* of the tables, and what the role keeps with them */
    struct ag_hpack_decoder decoder;
    struct ag_hpack_encoder encoder;
    struct ag_h2_input in;
    struct ag_h2_stream *buckets[AG_H2_BUCKETS]; /* by id */
    struct ag_link queues[AG_H2_URGENCIES];      /* streams that can send */
    struct ag_link waiting;                      /* streams whose window is used up */
    struct ag_h2_stall stall;                    /* by the connection's window */
    uint64_t due_ms;      /* loop time of what the role waits for; 0: nothing */
    uint64_t part_due_ms; /* of the rest of a frame or section; 0: none is awaited */
    uint64_t look_ms;     /* of the next look at a peer that takes output; 0: none */
    uint64_t hold_ms;     /* when what is held back goes all the same; 0: nothing is */
    uint64_t ping_sent_ms[AG_H2_PINGS]; /* 0: none is out */
    uint64_t budget_ms;                 /* when budgets were last filled up */
    int64_t send_window;
    uint64_t owed; /* bytes sent that no window update has given back */
    int64_t recv_window;
    int64_t recv_target;   /* what recv_window and (of a server) held come to */
    uint64_t held;         /* bytes in all sinks */
    uint64_t measured;     /* content that came since AG_H2_PING_BDP */
    int32_t stream_target; /* the same for each stream */
    int32_t noise, resets; /* budgets that are left; earned ones come on top */
    uint32_t updates;      /* window updates that are no noise: what was sent has earned them */
    uint32_t resets_max;
    uint32_t part_timeout_ms; /* for the rest of a frame or section */
    uint32_t streams;         /* in the table */
    uint32_t queued;          /* of them, those that can send */
    uint32_t receiving;       /* of them, those whose peer has not ended */
    uint32_t last_id;         /* the highest one of the peer's streams that was begun */
    uint32_t next_id;         /* of our next stream (client) */
    uint32_t goaway_id;       /* told by GOAWAY: what is above is not looked at; AG_H2_ID_MAX */
    /* Reset by us lately: what comes for them is nothing. With the top bit: by the peer. */
    uint32_t reset_ids[AG_H2_RESET_IDS];
    uint32_t forgotten_id; /* the highest one of ours that left there: any below may have, too */
    struct ag_h2_early early[AG_H2_EARLY_IDS];
    uint8_t early_next;
    uint8_t reset_next;
    uint8_t state;  /* enum ag_h2_state */
    uint8_t reason; /* enum ag_reason of the end */
    bool goaway_sent;
    bool goaway_seen;
    bool eof, paused, running;
    bool blocked; /* input waits until the peer takes more output */
    bool
        gives_early; /* the peer gave back a part of what it had got, not waiting for all of a window */
    bool large;      /* receive in large buffers: the role's to say, before the round ends */
    /* The peer's settings. */
    bool peer_connect;   /* ENABLE_CONNECT_PROTOCOL */
    int32_t peer_window; /* of a new stream */
    uint32_t peer_frame_max;
    uint32_t peer_streams_max;
    const char *what; /* why it ended, static; NULL: in order */
};

/* ---- connections ---- */

/*
 * Sets up `c` on an open stream; nothing is sent yet.
 *   part_timeout_ms  for the rest of a frame or section that has begun to come
 */
void ag_h2_conn_init(struct ag_h2_conn *c, struct ag_stream *s, const struct ag_h2_role *role,
                     uint32_t part_timeout_ms);
/* Sends the preface: a client's magic, `settings`, and the connection's window. False: out of buffers, the
 * connection was aborted. */
bool ag_h2_conn_start(struct ag_h2_conn *c, const struct ag_h2_pair *settings, size_t count);

/* The stream's callbacks. */
void ag_h2_conn_data(struct ag_h2_conn *c, struct ag_slice s);
void ag_h2_conn_eof(struct ag_h2_conn *c);
void ag_h2_conn_drained(struct ag_h2_conn *c);
void ag_h2_conn_deadline(struct ag_h2_conn *c);
/* The stream is gone: all that live are lost. */
void ag_h2_conn_closed(struct ag_h2_conn *c, enum ag_reason why);

/* Goes round soon (input, DATA, deadlines): now when it is running, else by a task of this turn. To be
 * called before what it is about is written, so that all leaves in one flush. */
void ag_h2_conn_wake(struct ag_h2_conn *c);

/* An error of the connection (section 5.4.1): GOAWAY with `what` (static) as debug data, all streams are lost,
 * then the stream ends in order. */
void ag_h2_conn_fail(struct ag_h2_conn *c, enum ag_h2_error code, enum ag_reason why,
                     const char *what);
/* Ends in order, with GOAWAY if none was sent; streams that live are lost. */
void ag_h2_conn_finish(struct ag_h2_conn *c, enum ag_reason why);
/* Ends at once. */
void ag_h2_conn_abort(struct ag_h2_conn *c, enum ag_reason why);
/* Tells the peer that of its streams none above `last` is looked at; the connection goes on. */
void ag_h2_conn_goaway(struct ag_h2_conn *c, uint32_t last, enum ag_h2_error code,
                       struct ag_span debug);
/* Sends a ping unless one of this kind is out; `pong` when it comes back (BDP is our own matter). */
void ag_h2_conn_ping(struct ag_h2_conn *c, enum ag_h2_ping kind);

/* Budgets: useful work earns some noise, content that was sent window updates, too; false: the connection has
 * failed, the peer overdid it. */
void ag_h2_conn_earn(struct ag_h2_conn *c);
void ag_h2_conn_earn_updates(struct ag_h2_conn *c);
bool ag_h2_conn_noise(struct ag_h2_conn *c, const char *what);
bool ag_h2_conn_count_reset(struct ag_h2_conn *c);

/* Resets a stream that was never made. `provoked`: counted against the peer. */
void ag_h2_conn_refuse(struct ag_h2_conn *c, uint32_t id, enum ag_h2_error code, bool provoked);

static inline bool ag_h2_conn_is_closing(const struct ag_h2_conn *c)
{
    return c->state == AG_H2_CLOSING;
}

/* ---- streams ---- */

/* A stream of the peer's, from `open`. The struct is zeroed here. */
void ag_h2_stream_accept(struct ag_h2_stream *s, struct ag_h2_conn *c, uint32_t id, bool ended);
/* One of ours (client): the next id. AG_AGAIN: the peer allows no more now (AG_H2_STREAMS_GUESS until it has
 * told how many).
 * AG_ELIMIT: never again (ids are used up, GOAWAY). */
AG_MUST_USE enum ag_status ag_h2_stream_open(struct ag_h2_stream *s, struct ag_h2_conn *c);
struct ag_h2_stream *ag_h2_conn_find(const struct ag_h2_conn *c, uint32_t id);
/* Out of the table, without a word to anybody; idempotent. What its sink still holds is counted as taken:
 * the connection's window opens for it at the end of the round. */
void ag_h2_stream_leave(struct ag_h2_stream *s);
/* RST_STREAM, and leaves. Idempotent. */
void ag_h2_stream_reset(struct ag_h2_stream *s, enum ag_h2_error code);
/* The peer broke a rule on this stream: counted, reset, and `lost` is called. */
void ag_h2_stream_error(struct ag_h2_stream *s, enum ag_h2_error code, const char *what);

/* Content that comes goes there from now on; windows follow what is taken out of it. `length`: of what is
 * told, AG_LENGTH_UNKNOWN. The body's producer is the stream until it leaves. */
void ag_h2_stream_set_sink(struct ag_h2_stream *s, struct ag_body *sink, uint64_t length);
/* Opens the window of a live stream to `bytes` at least, for content that nobody takes. */
void ag_h2_stream_let(struct ag_h2_stream *s, uint64_t bytes);
/* Sends the body's content as DATA, then its trailers or END_STREAM. The body's consumer is the stream until
 * it leaves or has sent all. */
void ag_h2_stream_set_source(struct ag_h2_stream *s, struct ag_body *source, uint64_t length);
void ag_h2_stream_set_priority(struct ag_h2_stream *s, struct ag_h2_priority p);

/* ---- sections to be sent ---- */

struct ag_h2_section {
    struct ag_buf buf;      /* where ag_h2_put_* write */
    struct ag_block *block; /* of a large one; NULL: it is written in place */
    uint8_t *at;            /* in place: the frame's header */
};
/* Room for a section of at most `max` bytes. AG_ENOMEM: no buffer, nothing has happened. AG_ELIMIT: larger
 * than any (AG_BUF_LARGE_BYTES). What was begun must be ended, with no other write in between. */
AG_MUST_USE enum ag_status ag_h2_section_begin(struct ag_h2_conn *c, size_t max,
                                               struct ag_h2_section *out);
/* Sends it as HEADERS and CONTINUATION. With `end` the stream is `sent` (no callback). False: the connection
 * was aborted for want of buffers. */
bool ag_h2_section_send(struct ag_h2_stream *s, struct ag_h2_section *w, bool end);
