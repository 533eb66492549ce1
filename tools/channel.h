/*
 * channel: what a master and its worker say to each other, over a pair of SOCK_SEQPACKET sockets.
 *
 *   master -> worker   BUNDLE, then DESCRIPTORS until all are there      a configuration (bundle.h)
 *                      COMMIT or CANCEL                                  serve it, or forget it
 *                      YIELD                                             another process serves on
 *                      DRAIN, then maybe ABORT                           stop
 *                      PING                                              have every shard answer
 *                      TICKETS with a text                               the keys of session tickets
 *   worker -> master   READY                                             serves the first bundle
 *                      LOADED or REFUSED with a text                     what became of a later one
 *                      APPLIED with a text                               every shard serves by it, but for these keys
 *                      ALIVE                                             every shard has answered
 *
 * The worker may be in somebody else's hands: the master takes no descriptor from it, reads only what
 * has the form below, and never waits for it. Nothing is queued here: a peer that lets the socket fill
 * up (hundreds of messages) does not work any more.
 */
#pragma once
#include "engine/span.h"

enum ag_channel_type {
    AG_CHANNEL_BUNDLE = 1,  /* count: descriptors to come; carries the memory file */
    AG_CHANNEL_DESCRIPTORS, /* count: carried here */
    AG_CHANNEL_COMMIT,
    AG_CHANNEL_CANCEL,
    AG_CHANNEL_YIELD,
    AG_CHANNEL_DRAIN,
    AG_CHANNEL_ABORT,
    AG_CHANNEL_PING,
    AG_CHANNEL_TICKETS,
    AG_CHANNEL_READY,
    AG_CHANNEL_LOADED,
    AG_CHANNEL_REFUSED,
    AG_CHANNEL_APPLIED,
    AG_CHANNEL_ALIVE,
    AG_CHANNEL_TYPES,
};

#define AG_CHANNEL_FDS  250u /* in one message; the kernel takes 253 */
#define AG_CHANNEL_TEXT 2048u

struct ag_channel_msg {
    enum ag_channel_type type;
    uint32_t generation; /* of the configuration it speaks of */
    uint32_t count;
    uint32_t fd_count; /* carried by this message */
    int fds[AG_CHANNEL_FDS];
    uint32_t text_len;
    char text[AG_CHANNEL_TEXT];
};

/* Two ends, non-blocking and close-on-exec. AG_ESYS with errno. */
AG_MUST_USE enum ag_status ag_channel_pair(int out_ends[static 2]);

/* Sends one message; descriptors are copied. AG_AGAIN: the peer does not read. AG_ENOENT: it is gone.
 * AG_ESYS: no memory or too many descriptors under way. */
AG_MUST_USE enum ag_status ag_channel_send(int end, const struct ag_channel_msg *m);
/* A message of a type alone. */
AG_MUST_USE enum ag_status ag_channel_tell(int end, enum ag_channel_type type, uint32_t generation);

/* Takes the next message; its descriptors are the caller's. With `take_fds` false there are none,
 * whatever was sent. AG_AGAIN: nothing there. AG_ENOENT: the peer is gone. AG_EPROTO: not a message.
 * AG_ELIMIT: not all descriptors could be taken (RLIMIT_NOFILE); none was, and the rest is there. */
AG_MUST_USE enum ag_status ag_channel_receive(int end, bool take_fds, struct ag_channel_msg *out);
