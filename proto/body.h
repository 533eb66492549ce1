/*
 * body: the content of one message on its way through the process: a push queue with credit.
 *
 *   producer --write--> [ slices ... ] --peek/consume--> consumer
 *      ^  writable (task)                     readable (task)  ^
 *
 * Bounded in bytes and slices: `room` says how much may come; a write within it does not fail for want
 * of room. consume gives room back and wakes the producer, once the queue is half empty. Both sides
 * are woken by tasks in the same turn, never by direct calls, so nothing recurses and many writes make
 * one wake-up. End, trailers and abort travel in the queue: they are seen after the bytes before them.
 *
 * The same body serves fixed, static, echo and upstream content, of either protocol version; a
 * transform (compression) is the consumer of one body and the producer of the next.
 */
#pragma once
#include "engine/stream.h"
#include "proto/http.h"

#define AG_BODY_BYTES_MAX  (256u * 1024u) /* memory pinned: whole blocks are charged */
#define AG_BODY_SLICES_MAX 64u

struct ag_body;
typedef void ag_body_fn(struct ag_body *, void *owner);

struct ag_body {
    struct ag_loop *loop;
    struct ag_chain q;
    const struct ag_fields *trailers; /* with `ended`; NULL: none. Lives in the exchange's arena */
    ag_body_fn *readable;             /* to the consumer: bytes, end or abort came */
    void *consumer;
    ag_body_fn *writable; /* to the producer: room came back, or the consumer has left */
    void *producer;
    struct ag_task wake_consumer, wake_producer;
    uint64_t total_bytes;  /* written so far */
    uint32_t pinned_bytes; /* memory held by queued slices' blocks */
    uint32_t limit_bytes;  /* bound of pinned_bytes; when the loop is tight one block is */
    uint32_t begun_turn;   /* of the loop, its low bits: when the queue was last begun */
    uint8_t reason;        /* enum ag_reason of the abort */
    bool ended;            /* no more writes */
    bool aborted;          /* no more writes, and the end is not the true one */
    bool discarding;       /* the consumer has left: what comes is dropped and counts as consumed */
    bool pipes;            /* the consumer's: it sends on a stream that takes slices of pipes */
    bool starved;          /* the producer was told there is no room: writable is owed */
    bool counted; /* a stream's: what is taken is counted in the loop's passed_at_once when the
                              queue was begun in the same turn, else in its passed_later */
};

void ag_body_init(struct ag_body *b, struct ag_loop *l);
/* Releases what is queued and cancels the wake-ups. */
void ag_body_deinit(struct ag_body *b);

/* Who is woken; either side may be set late: a wake-up that was missed comes then. */
void ag_body_set_consumer(struct ag_body *b, ag_body_fn *readable, void *owner);
void ag_body_set_producer(struct ag_body *b, ag_body_fn *writable, void *owner);

/* Wakes the producer once, for news that the queue cannot see (a filter has stopped waiting). */
void ag_body_kick(struct ag_body *b);

/* ---- producer ---- */

/* True when a slice of any receive buffer's size may be written. False owes a `writable`. */
bool ag_body_room(struct ag_body *b);
/* The producer writes no more for now, though there may be room: it is owed a `writable`, as after a
 * room that was false. */
void ag_body_owe_room(struct ag_body *b);
/* Takes the slice's reference, also on failure. The bytes may leave long after the exchange ended: never
 * bytes of its arena; no owner means static memory. A slice that pins more than four times its size is
 * copied into a small buffer when one is to be had. AG_ENOMEM: the body is aborted. */
AG_MUST_USE enum ag_status ag_body_write(struct ag_body *b, struct ag_slice s);
/* The same, for a producer that writes nothing but receive buffers, in pieces of whatever size the peer
 * chose: a small one is copied behind the last, so that none of them pins a buffer of its own. */
AG_MUST_USE enum ag_status ag_body_append(struct ag_body *b, struct ag_slice s);
/* After an end that was the message's, not the connection's: bytes of a tunnel follow (RFC 9110 7.8). */
void ag_body_reopen(struct ag_body *b);
/* Idempotent after an end or abort. */
void ag_body_end(struct ag_body *b, const struct ag_fields *trailers);
void ag_body_abort(struct ag_body *b, enum ag_reason why);

/* ---- consumer ---- */

/* Bytes are queued, or the end or abort is due: there is something to do. */
static inline bool ag_body_has_news(const struct ag_body *b)
{
    return b->q.bytes > 0 || b->ended || b->aborted;
}

/* All bytes were consumed and the end is known. */
static inline bool ag_body_at_end(const struct ag_body *b)
{
    return b->ended && !b->aborted && b->q.bytes == 0;
}

/* Takes the next slice out of the queue, with its reference; room comes back when it is taken.
 * Nothing queued: an empty slice. */
struct ag_slice ag_body_take(struct ag_body *b);
/* The same, of its first `most` (> 0) bytes. */
struct ag_slice ag_body_take_most(struct ag_body *b, size_t most);
/* All that is queued, at the end of `to`. */
void ag_body_take_all(struct ag_body *b, struct ag_chain *to);
/* The consumer wants no more: queued and later bytes are dropped. */
void ag_body_discard(struct ag_body *b);
