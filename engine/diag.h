/*
 * diag: what is wrong in a text, where, and what to do; collected, then printed with the source line.
 *
 *   anygate.yml:12:18: error: unknown status "FORBIDEN"; hint: did you mean FORBIDDEN?
 *      12 | GET /x: FORBIDEN {"a":1}
 *         |         ^
 */
#pragma once
#include "engine/arena.h"

struct ag_source {
    const char *name;    /* as the user wrote it: a path, "<flag -r 1>", "<env NAME>" */
    struct ag_span text; /* whole; for printing lines */
};

struct ag_pos {
    const struct ag_source *source; /* NULL: no position */
    uint32_t line, col;             /* from 1; columns count bytes */
};

enum ag_severity { AG_SEV_ERROR, AG_SEV_WARNING };

struct ag_diag {
    struct ag_diag *next;
    struct ag_pos pos;
    enum ag_severity severity;
    const char *what, *hint; /* in the arena; hint may be NULL */
};

#define AG_DIAGS_MAX 64u

struct ag_diags {
    struct ag_arena *arena; /* malloc arena */
    struct ag_diag *first, **last;
    uint32_t errors, warnings; /* counted beyond AG_DIAGS_MAX too */
};

void ag_diags_init(struct ag_diags *d, struct ag_arena *arena);
/* `hint` may be NULL; both are copied. */
void ag_diag_error(struct ag_diags *d, struct ag_pos pos, const char *hint, const char *fmt, ...)
    AG_PRINTF(4, 5);
void ag_diag_warn(struct ag_diags *d, struct ag_pos pos, const char *hint, const char *fmt, ...)
    AG_PRINTF(4, 5);
/* A hint "did you mean X?" for the nearest of `names`, or NULL when none is near. In the arena. */
const char *ag_diag_nearest(struct ag_diags *d, struct ag_span word, const char *const *names,
                            size_t count);
/* The position `bytes` further on the same line. */
static inline struct ag_pos ag_pos_at(struct ag_pos p, size_t bytes)
{
    p.col += (uint32_t)bytes;
    return p;
}

enum ag_diag_format { AG_DIAG_HUMAN, AG_DIAG_JSON };
/* Prints all to `fd` sorted by position; human: with source lines and carets, coloured when asked. */
void ag_diags_print(const struct ag_diags *d, int fd, enum ag_diag_format format, bool colour);
/* For people, to the log (engine/log.h): who does not read it does not hold up the caller. */
void ag_diags_log(const struct ag_diags *d, bool colour);
