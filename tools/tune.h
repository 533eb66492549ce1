/*
 * tune: how the system should be set for a busy gateway, and how it is set.
 *
 *   profile --ag_tune_run--> results: now, wanted, why --ag_tune_apply--> what may be set is set
 *
 * The profile is one table (tune.c), the same as in docs/TUNING.md, which a test compares. Everything is
 * read below a root: "" but for tests, and for a host's root mounted into a container. What is better
 * than wanted is left alone, and so is what is somebody's policy (io_uring_disabled, overcommit).
 */
#pragma once
#include "engine/span.h"

#define AG_TUNE_RESULTS_MAX 64u
#define AG_TUNE_NAME_MAX    64u
#define AG_TUNE_TEXT_MAX    96u
#define AG_TUNE_VALUE_MAX   256u /* of a file that is read */
#define AG_TUNE_PATH_MAX    1024u

enum ag_tune_want {
    AG_TUNE_AT_LEAST, /* low */
    AG_TUNE_AT_MOST,  /* low */
    AG_TUNE_EXACTLY,  /* low */
    AG_TUNE_RANGE,    /* two numbers; from low or less to high or more */
    AG_TUNE_MAXIMUM,  /* three numbers; the last is at least low */
    AG_TUNE_WORDS,    /* as `words` says; `look` decides */
};

struct ag_tune;
struct ag_tune_result;

struct ag_tune_check {
    const char *name; /* of the sysctl; "nic.*.steering": one result for each interface */
    enum ag_tune_want want;
    uint64_t low, high;
    const char *words; /* what is wanted, where no number says it */
    const char *why;
    const char *how; /* to set it by hand; NULL: by sysctl */
    /* Adds the results; NULL: the file of the sysctl of that name is read. */
    void (*look)(struct ag_tune *, const struct ag_tune_check *);
    bool may_apply; /* a sysctl that --apply sets */
};

enum ag_tune_state {
    AG_TUNE_GOOD,
    AG_TUNE_DIFFERS,
    AG_TUNE_ABSENT,  /* this system does not have it, or does not show it here */
    AG_TUNE_UNKNOWN, /* it is there and cannot be read */
    AG_TUNE_SET,     /* differed until --apply */
    AG_TUNE_FAILED,  /* --apply could not set it */
};

struct ag_tune_result {
    const struct ag_tune_check *check;
    enum ag_tune_state state;
    char name[AG_TUNE_NAME_MAX];
    char now[AG_TUNE_TEXT_MAX];
    char wanted[AG_TUNE_TEXT_MAX];
    char note[AG_TUNE_TEXT_MAX]; /* why it could not be set or read; what it was; may be empty */
    char line[AG_TUNE_TEXT_MAX]; /* of /etc/sysctl.d; empty: none is needed */
};

struct ag_tune {
    const char *root; /* without a trailing slash: "" is the system's own */
    struct ag_tune_result results[AG_TUNE_RESULTS_MAX];
    size_t count;
};

void ag_tune_run(struct ag_tune *t, const char *root);
/* Sets what differs and may be set; after ag_tune_run. */
void ag_tune_apply(struct ag_tune *t);
/* Nothing is left that differs, failed or is unknown. */
bool ag_tune_is_good(const struct ag_tune *t);
const char *ag_tune_state_name(enum ag_tune_state s);

/* ---- for the files of tune ---- */

/* `path` below the root. False: too long. */
bool ag_tune_path(const struct ag_tune *t, const char *path, char out[static AG_TUNE_PATH_MAX]);
/* Reads the start of a file below the root, NUL-terminated, without the newline at its end.
 * AG_ENOENT, AG_EACCES, AG_ESYS. */
AG_MUST_USE enum ag_status ag_tune_read(const struct ag_tune *t, const char *path,
                                        char out[static AG_TUNE_VALUE_MAX]);
/* Adds a result; what is beyond AG_TUNE_RESULTS_MAX is dropped. `st` is of the reading;
 * `now` is used when that is AG_OK. */
void ag_tune_add(struct ag_tune *t, const struct ag_tune_check *check, const char *name,
                 enum ag_status st, const char *now, bool good);

/* tune_host.c: what is no sysctl. */
void ag_tune_look_nofile(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_memlock(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_release(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_backend(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_affinity(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_quota(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_governor(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_thp(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_thp_defrag(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_interrupts(struct ag_tune *t, const struct ag_tune_check *check);
void ag_tune_look_steering(struct ag_tune *t, const struct ag_tune_check *check);
