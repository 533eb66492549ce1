/*
 * buffer_policy: which way content is taken in before it goes on, and how much of it is kept where.
 *
 *   buffer: off | request | response | both
 *   buffer: [request, response]
 *   buffer: {request: true, response: true, memory: 64k, disk: 1g}
 *
 * of `proxy` (with folder and total, which are the process's), an upstream or a route; a map changes what it names,
 * a word or a list says both ways.
 */
#pragma once
#include "engine/node.h"

#define AG_BUFFER_MEMORY_MAX (1u << 20)
#define AG_BUFFER_DISK_MAX   (UINT64_C(1) << 40)

struct ag_buffer_policy {
    bool request, response;
    uint32_t memory_bytes; /* of one message */
    uint64_t disk_bytes;   /* beyond that; 0: none */
};

/* The process's. */
struct ag_buffer_place {
    const struct ag_node *node; /* what says so; NULL: nothing does */
    struct ag_span folder;      /* empty: the system's for such files */
    uint64_t total_bytes;       /* on the disk at once */
};

struct ag_buffer_policy ag_buffer_default_policy(void);
/* Changes of the key `buffer` of the map `owner` (or NULL) over what `io` holds; `place`: of `proxy`, which says
 * where too, else NULL. False after a diagnosis. */
bool ag_buffer_read(const struct ag_node *owner, struct ag_diags *diags,
                    struct ag_buffer_policy *io, struct ag_buffer_place *place);
/* For `check`: one line, or nothing when nothing is buffered. */
void ag_buffer_describe(const struct ag_buffer_policy *p, struct ag_buf *out);
