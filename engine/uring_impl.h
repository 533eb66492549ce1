/* uring_impl: what the files of the io_uring backend share. The only one that includes liburing.h. */
#pragma once
#include "engine/backend.h"

#include <liburing.h>

/* Addresses of connects queued in one turn; the kernel reads them when it is entered. */
#define AG_URING_ADDRS 64u

struct ag_uring {
    struct io_uring ring; /* first: tests look for it there */
    struct io_uring_buf_ring *buf_rings[AG_BUF_GROUPS];
    size_t buf_ring_bytes[AG_BUF_GROUPS];
    struct ag_link to_cancel; /* ops whose cancel found no submission entry */
    unsigned addr_count;
    union ag_addr addrs[AG_URING_ADDRS];
};

/* As in struct ag_backend. */
AG_MUST_USE enum ag_status ag_uring_init(struct ag_loop *l, const struct ag_loop_config *config,
                                         const char **out_why);
void ag_uring_deinit(struct ag_loop *l);
