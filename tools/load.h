/* load: from command line to snapshot, with every mistake printed; shared by serve, check, routes. */
#pragma once
#include "router/snapshot.h"

struct ag_load {
    struct ag_arena arena; /* moves into the snapshot when there is one */
    struct ag_diags diags;
    struct ag_snapshot *snapshot; /* NULL after errors */
    struct ag_snapshot
        *refused; /* by ag_load_open_tls: what it was told of lies there; NULL: none */
};

/* Loads and compiles; prints nothing. */
void ag_load_config(struct ag_load *l, const struct ag_config_input *in);
/* Has the TLS library make what the snapshot needs of it (ag_snapshot_open_tls). When it refuses, that is diagnosed
 * and there is no snapshot any more. */
void ag_load_open_tls(struct ag_load *l, uint32_t shard_count, struct ag_tls_tickets *tickets);
/* Diagnoses to stderr, coloured on a terminal unless NO_COLOR is set. */
void ag_load_print(const struct ag_load *l, enum ag_diag_format format);
/* The same for people, to the log: by who serves meanwhile. */
void ag_load_log(const struct ag_load *l);
void ag_load_release(struct ag_load *l);

/* Whether `fd` is a terminal that may be coloured. */
bool ag_colour_wanted(int fd);
