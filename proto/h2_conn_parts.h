/*
 * h2_conn_parts: what the files of h2_conn share; nobody else includes it.
 *
 *   h2_conn.c     the connection: its beginning and end, the stream's callbacks, deadlines, budgets
 *   h2_input.c    frames in: their headers, their pieces, DATA
 *   h2_control.c  what each type but DATA means
 *   h2_streams.c  the table, the windows of what comes
 *   h2_send.c     sections and DATA out, the windows of what goes
 */
#pragma once
#include "proto/h2_conn.h"

/* Reads what there is, as far as the output lets it. */
void ag_h2_read_frames(struct ag_h2_conn *c);
/* The rest of a frame or section that has begun is awaited; content is not meant, it has its own pace. */
bool ag_h2_input_is_partial(const struct ag_h2_conn *c);
void ag_h2_input_clear(struct ag_h2_conn *c);
/* Adds bytes to `part`. False: the connection has failed. */
bool ag_h2_input_keep(struct ag_h2_conn *c, struct ag_span bytes);
/* The frame c->in.frame, whose payload lies in one piece; of types but sections it may have been cut. */
void ag_h2_dispatch(struct ag_h2_conn *c, struct ag_span payload);

/* Sends what windows and the stream's queue let through. */
void ag_h2_send_data(struct ag_h2_conn *c);
/* A window update of `more` came, for the connection or (else NULL) for a stream. */
void ag_h2_send_given(struct ag_h2_conn *c, struct ag_h2_stream *s, uint32_t more);
/* What is held back may go if its time has come. */
void ag_h2_send_held(struct ag_h2_conn *c);
/* Its source has something to send: queues it. */
void ag_h2_stream_queue(struct ag_h2_stream *s);
/* Out of queue or waiting list. */
void ag_h2_stream_unqueue(struct ag_h2_stream *s);
/* Content waits for a window of the peer's. */
bool ag_h2_send_is_stalled(const struct ag_h2_conn *c);
/* Ends those whose peer keeps its windows shut for too long. */
void ag_h2_send_look(struct ag_h2_conn *c);

/* One whole frame of a few bytes. False: the connection was aborted for want of a buffer. */
bool ag_h2_put_frame(struct ag_h2_conn *c, enum ag_h2_type type, unsigned flags, uint32_t id,
                     struct ag_span payload);

/* The id is of a stream that nobody has begun. */
bool ag_h2_is_idle(const struct ag_h2_conn *c, uint32_t id);
/* What becomes of frames for a stream that is not live, nor idle. */
enum ag_h2_closed {
    AG_H2_CLOSED_BY_END,  /* an error of the connection (RFC 9113 section 5.1) */
    AG_H2_CLOSED_BY_PEER, /* it reset it itself: an error of the stream */
    AG_H2_CLOSED_BY_US,   /* it may not have known: passed over in silence */
};
enum ag_h2_closed ag_h2_closed_by(const struct ag_h2_conn *c, uint32_t id);
/* For ag_h2_closed_by: the peer has reset it. */
void ag_h2_remember_reset(struct ag_h2_conn *c, uint32_t id);
/* RST_STREAM for an id; what still comes for it is passed over. */
void ag_h2_put_reset(struct ag_h2_conn *c, uint32_t id, enum ag_h2_error code);
/* END_STREAM came, behind all that was before it. */
void ag_h2_stream_ended(struct ag_h2_stream *s);
/* Leaves, and tells the role. */
void ag_h2_stream_lose(struct ag_h2_stream *s, enum ag_h2_error code, enum ag_reason why,
                       const char *what);
/* All with higher ids. */
void ag_h2_conn_lose_above(struct ag_h2_conn *c, uint32_t last, enum ag_h2_error code,
                           enum ag_reason why, const char *what);

/* `n` bytes of DATA have come: out of the windows; `s` may be NULL. */
void ag_h2_flow_count(struct ag_h2_conn *c, struct ag_h2_stream *s, size_t n);
/* Opens windows again as far as that is worth a frame. */
void ag_h2_flow_open(struct ag_h2_conn *c, struct ag_h2_stream *s);
/* The answer to a ping of AG_H2_PING_BDP. */
void ag_h2_flow_measured(struct ag_h2_conn *c);
