/*
 * static_send: a file too large for memory, on its way into an answer.
 *
 *   head --> [ piece still there? --> in the page cache? (else a helper reads it) --> file slice ] ...
 *
 *   Of several ranges each has its head before it (static_parts.h), and pieces end with their range.
 *
 *   ... for servers that take memory alone: [ a buffer --> read into it --> memory slice ] ...
 *
 * Pieces go ahead of the socket by at most AG_STATIC_AHEAD_BYTES. A file that has become shorter aborts
 * the content: the client must not take a part for the whole.
 */
#pragma once
#include "actions/static/static_rep.h"

#define AG_STATIC_PIECE_BYTES (512u * 1024u)
#define AG_STATIC_AHEAD_BYTES (1024u * 1024u)
/* Read into memory at a time; no more is read while as much waits. */
#define AG_STATIC_READ_BYTES (64u * 1024u)

/* What the static action does for an exchange at the moment: ex->action_data; NULL: nothing any more. */
struct ag_static_stage {
    void (*abort)(struct ag_static_stage *);
};

struct ag_static_file {
    int fd; /* open for reading; closed by send */
    struct ag_file_stat stat;
    struct ag_span name; /* for type and caching; borrowed for the call */
    bool fallback;
};

/* Answers with the file and lets go of the action's hold of the exchange. */
void ag_static_send(struct ag_exchange *ex, const struct ag_static_file *file);
