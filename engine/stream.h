/*
 * stream: a two-way byte stream as a protocol sees it. Plain sockets implement it (conn.h), TLS will
 * over another stream, and a fuzz target over memory.
 *
 *   protocol (struct ag_stream_user)
 *      | reserve/commit, write, pause, finish, abort      ^ on_data, on_eof, on_drain, on_close
 *      v                                                  |
 *   struct ag_stream:  out chain, one flush a turn
 *      | flush, pause, resume, finish, abort              ^
 *      v                                                  |
 *   transport (struct ag_stream_ops)
 *
 * Life:  OPEN --finish--> FLUSHING --all sent--> LINGERING --peer closed, 256k or 2 s--> closed
 *        any state --abort or error--> closed
 * on_close is called once, from the loop, as the very last call; the owner may free the stream in it.
 * After finish or abort no other callback comes.
 */
#pragma once
#include "engine/loop.h"
#include "engine/pace.h"
#include "engine/tls_session.h"

struct ag_stream;

/* Why a stream ended; the text is for logs and metrics. */
enum ag_reason {
    AG_REASON_NONE = 0,    /* closed in order */
    AG_REASON_EOF,         /* the peer closed while something was under way */
    AG_REASON_RESET,       /* ECONNRESET, EPIPE */
    AG_REASON_TIMEOUT,     /* a deadline passed */
    AG_REASON_REFUSED,     /* connect: ECONNREFUSED */
    AG_REASON_UNREACHABLE, /* connect: no route, host or network down */
    AG_REASON_NAME,        /* connect: the name did not resolve */
    AG_REASON_RESOURCES,   /* a pool is empty, ENOBUFS, EMFILE, ENOMEM */
    AG_REASON_PROTOCOL,    /* the peer broke its protocol */
    AG_REASON_LIMIT,       /* a configured limit was hit */
    AG_REASON_ABORTED,     /* this side gave up: client gone, drain */
    AG_REASON_TLS,         /* the TLS handshake failed; ag_tls_detail says why */
    AG_REASON_OTHER,       /* any other system error */
};
/* A short lower-case phrase: "connection refused". */
const char *ag_reason_text(enum ag_reason r);
/* Maps -errno of a failed operation. */
enum ag_reason ag_reason_from_errno(int negative_errno);

/* The protocol's callbacks, all from the loop. None may free the stream but on_close. */
struct ag_stream_user {
    /* Bytes arrived; the callee owns the slice's reference. May still come once after pause. */
    void (*on_data)(struct ag_stream *, struct ag_slice);
    /* The peer has shut its writing side. Sending is still possible. */
    void (*on_eof)(struct ag_stream *);
    /* Queued bytes fell to AG_STREAM_LOW after having been above AG_STREAM_HIGH. */
    void (*on_drain)(struct ag_stream *);
    /* The deadline set by ag_stream_deadline passed. */
    void (*on_deadline)(struct ag_stream *);
    /* The last call. */
    void (*on_close)(struct ag_stream *, enum ag_reason);
    /* As on_eof, but the peer has not said so (TLS without close_notify): whoever cut it may have cut content short.
     * NULL: the stream ends by that. */
    void (*on_cut)(struct ag_stream *);
};

struct ag_stream_ops {
    void (*flush)(struct ag_stream *);
    void (*pause)(struct ag_stream *);
    void (*resume)(struct ag_stream *, enum ag_buf_group);
    void (*shut)(struct ag_stream *);
    void (*finish)(struct ag_stream *);
    void (*abort)(struct ag_stream *, enum ag_reason);
    /* May be NULL: then the peer is not known. */
    void (*peer)(struct ag_stream *, union ag_addr *out_addr);
    /* Ours. May be NULL: then it is not known. */
    void (*local)(struct ag_stream *, union ag_addr *out_addr);
    /* ag_loop_progress, and ag_loop_unsent into *out_unsent. May be NULL: then nobody is too slow. */
    uint32_t (*progress)(struct ag_stream *, uint32_t *out_unsent);
    /* ag_stream_starved. May be NULL: never. */
    bool (*starved)(struct ag_stream *);
    /* ag_stream_unseen. May be NULL: all that comes is seen, and no pipe can be sent. */
    void (*unseen)(struct ag_stream *, uint64_t bytes);
    /* ag_stream_tls. May be NULL: plain. */
    const struct ag_tls_session *(*tls)(struct ag_stream *);
};

/* Hysteresis of the queue towards the peer, bytes. When the loop is tight any byte makes it full. */
#define AG_STREAM_HIGH ((size_t)256 * 1024)
#define AG_STREAM_LOW  ((size_t)64 * 1024)

/* What a peer must take of the output, unless the protocol says otherwise (SPEC.md section 10). */
#define AG_STREAM_RATE     240u
#define AG_STREAM_STALL_MS 30000u

/* How far the peer was in taking output when somebody last looked; all zero: nobody has. */
struct ag_stream_look {
    uint32_t mark; /* its progress */
    uint32_t
        owed_bytes; /* what it had not acknowledged, here and in the kernel; the most: or more */
};

struct ag_stream {
    const struct ag_stream_ops *ops;
    const struct ag_stream_user *user;
    struct ag_loop *loop;
    struct ag_chain out;      /* accepted, not yet taken by flush */
    uint64_t sending_bytes;   /* taken by flush, not yet by the kernel */
    struct ag_block *scratch; /* where reserve writes; NULL when none is open */
    uint16_t scratch_used;    /* bytes of it that are written */
    bool above_high : 1;      /* on_drain is owed */
    bool closing    : 1;      /* finish or abort was called: writes are dropped */
    bool incomplete : 1;      /* the user's: what is sent ends by the close, which would now make a
                                 part look whole; whoever aborts, the peer gets a reset */
    bool
        hasty : 1; /* the user's: the peer sends no more, or nobody minds if it does: a finish closes
                       when all has gone to the system, and waits for no FIN */
    uint32_t rate, stall_ms; /* of the peer taking output, see ag_stream_too_slow */
    struct ag_stream_look
        look;            /* ag_stream_too_slow's, or of whoever else is the only one to ask */
    uint32_t sent_ms;    /* loop time, its low bits, when bytes last left the queue */
    struct ag_pace pace; /* due_ms 0: not looked yet */
    struct ag_task flush_task;
    struct ag_timer deadline;
};

/* For transports: sets up the shared part; ops and user are static tables. */
void ag_stream_init(struct ag_stream *s, struct ag_loop *l, const struct ag_stream_ops *ops,
                    const struct ag_stream_user *user);
/* For transports: gives back all that is queued and cancels task and timer. */
void ag_stream_deinit(struct ag_stream *s);
/* For transports: bytes left the queue; calls on_drain when it is owed. */
void ag_stream_sent(struct ag_stream *s, uint64_t bytes);

/* Queued and not yet in the kernel, bytes. */
static inline uint64_t ag_stream_queued(const struct ag_stream *s)
{
    return s->out.bytes + s->sending_bytes;
}

/* True when the writer should stop until on_drain; what is written all the same is still sent. */
static inline bool ag_stream_full(struct ag_stream *s)
{
    if (ag_stream_queued(s) < (s->loop->tight ? 1 : AG_STREAM_HIGH)) {
        return false;
    }
    s->above_high = true;
    return true;
}

/* Room for up to `n` (<= AG_BUF_SMALL_BYTES) bytes that the caller writes and then commits before any
 * other call on the stream. NULL when no buffer is left: abort with AG_REASON_RESOURCES. */
AG_MUST_USE uint8_t *ag_stream_reserve(struct ag_stream *s, size_t n);
void ag_stream_commit(struct ag_stream *s, size_t n);
/* Copies `bytes` of any length into reserved room. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_stream_put(struct ag_stream *s, struct ag_span bytes);
/* Queues the slice by reference (memory or file), taking its reference also on failure; a small part of a
 * block that has to wait is copied instead. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_stream_write(struct ag_stream *s, struct ag_slice slice);

/* Stops on_data; at most what was under way still comes. Idempotent. */
void ag_stream_pause(struct ag_stream *s);
/* Starts on_data again, in buffers of `group`; also changes the group while reading. Idempotent. */
void ag_stream_resume(struct ag_stream *s, enum ag_buf_group group);
/* Of what comes behind what was delivered, `bytes` are content that goes on to a stream that takes pipes: they may
 * come as slices of pipes (pipes.h), which nobody can read. The next delivery takes it back. */
static inline void ag_stream_unseen(struct ag_stream *s, uint64_t bytes)
{
    if (s->ops->unseen) {
        s->ops->unseen(s, bytes);
    }
}
/* Whether slices of pipes may be written to it. */
static inline bool ag_stream_takes_pipes(const struct ag_stream *s)
{
    return s->ops->unseen;
}
/* After what is queued, shuts the writing side; reading goes on (tunnels, client side). */
void ag_stream_shut(struct ag_stream *s);
/* After what is queued, ends in order: shut, discard input, close. */
void ag_stream_finish(struct ag_stream *s);
/* Ends now; what is queued is lost. Callable at any time but inside on_close. */
void ag_stream_abort(struct ag_stream *s, enum ag_reason why);

/* The peer's address, a system call each time; AF_UNSPEC when it is not known. */
void ag_stream_peer(struct ag_stream *s, union ag_addr *out_addr);
/* Ours, where the peer has connected to. The same. */
void ag_stream_local(struct ag_stream *s, union ag_addr *out_addr);

/* What its handshake has settled; NULL: it is plain. */
static inline const struct ag_tls_session *ag_stream_tls(struct ag_stream *s)
{
    return s->ops->tls ? s->ops->tls(s) : NULL;
}

/* Receiving waits for a buffer: what the peer may have sent cannot be seen. */
static inline bool ag_stream_starved(struct ag_stream *s)
{
    return s->ops->starved && s->ops->starved(s);
}

/* ---- slow readers ---- */

/* The peer must take `rate` bytes a second and stall for less than `stall_ms` while output is queued. */
static inline void ag_stream_set_pace(struct ag_stream *s, uint32_t rate, uint32_t stall_ms)
{
    s->rate = rate;
    s->stall_ms = stall_ms;
}
/* How often to look. */
static inline uint32_t ag_stream_look_ms(const struct ag_stream *s)
{
    return s->stall_ms / 3 + 1;
}
/* To be called every look_ms while output is queued: true when the peer takes too little of it, by what
 * it has acknowledged. The watch begins with the first call, and anew with one that finds acknowledged
 * all that the one before saw waiting. */
bool ag_stream_too_slow(struct ag_stream *s);
/* For transports: from here on it is looked at by the stream itself, which aborts a peer that is too slow:
 * while the last output leaves nobody else watches. Takes the deadline. */
void ag_stream_watch_flush(struct ag_stream *s);
/* The same question without a rate: whether the peer has acknowledged anything since the look `io`, of output
 * that was or is on its way, here or in the kernel. Who asks beside others remembers a look of its own. */
bool ag_stream_has_moved(struct ag_stream *s, struct ag_stream_look *io);
/* Whether the peer may have bytes yet to come that were written before now, here or in the kernel: then
 * *out_mark is the progress that it will have made when it has acknowledged all of them. */
bool ag_stream_is_out(struct ag_stream *s, uint32_t *out_mark);
/* Whether it has made that progress. */
bool ag_stream_has_reached(struct ag_stream *s, uint32_t mark);
/* What is sent from now on is another matter than what the last look saw. */
static inline void ag_stream_look_anew(struct ag_stream *s)
{
    s->look.owed_bytes = 0;
}

/* One deadline a stream: on_deadline in after_ms; a new one replaces it; UINT64_MAX cancels. */
void ag_stream_deadline(struct ag_stream *s, uint64_t after_ms);
