/*
 * handover: the listening sockets of a process for its successor, over a pair of SOCK_SEQPACKET sockets.
 *
 *   predecessor                                    successor
 *   "socket shared 127.0.0.1:80" + descriptors -->             one or more for each address
 *   "end 1" -->                                                how many addresses there were
 *                                              <-- "ready 4711 /run/x.pid"   it serves; its pid file
 *   "yours" -->                                                it is the main process
 *                                              <-- "taken"     the predecessor accepts no more
 *   or "never" -->                                             it was given up: end
 *
 * Messages are text, so that releases understand each other: a word, and what follows it.
 */
#pragma once
#include "tools/sockets.h"

#include <sys/types.h>

#define AG_HANDOVER_TEXT 1200u /* bytes of a message: a word, a number, a path */

/* How far sending has come. */
struct ag_handover_cursor {
    uint32_t socket, fd;
    bool ended;
};

/* The two ends; both close-on-exec. AG_ESYS, errno tells. */
AG_MUST_USE enum ag_status ag_handover_pair(int out_ends[2]);

/* Sends what is left of `s`, without waiting. AG_AGAIN: go on when the channel is writable. AG_ESYS:
 * errno tells. */
AG_MUST_USE enum ag_status ag_handover_send(int channel, const struct ag_sockets *s,
                                            struct ag_handover_cursor *cursor);
/* Receives everything up to the end and adopts it into `s`, which is empty; waits at most `timeout_ms`
 * for each message. AG_EPROTO: the reason is appended to `why`, and nothing stays open. */
AG_MUST_USE enum ag_status ag_handover_receive(int channel, int timeout_ms, struct ag_sockets *s,
                                               struct ag_buf *why);

enum ag_handover_word {
    AG_HANDOVER_READY,
    AG_HANDOVER_YOURS,
    AG_HANDOVER_TAKEN,
    AG_HANDOVER_NEVER,
};

/* What "ready" tells. */
struct ag_handover_ready {
    pid_t pid;
    char pid_file[AG_HANDOVER_TEXT]; /* "": it writes none */
};

/* "ready" of this process. AG_ESYS: the other side is gone. */
AG_MUST_USE enum ag_status ag_handover_say_ready(int channel, const char *pid_file);
/* Any other word. AG_ESYS. */
AG_MUST_USE enum ag_status ag_handover_say(int channel, enum ag_handover_word word);
/* The next word, without waiting. AG_AGAIN: none yet; AG_ENOENT: the other side is gone; AG_EPROTO: it
 * is no word of these. `out_ready` is set with AG_HANDOVER_READY. */
AG_MUST_USE enum ag_status ag_handover_hear(int channel, enum ag_handover_word *out_word,
                                            struct ag_handover_ready *out_ready);
