/*
 * fault: makes system calls fail on purpose, at a named site and at the nth call, so that tests can walk
 * through every error path. In debug, ASan and TSan builds alone (AG_FAULTS is 1 there): in a release
 * build AG_SYS(name, call) is the call, and AG_FAULT(name) the constant 0.
 *
 *   fd = AG_SYS("socket", socket(family, type, 0));          fails with -1 and errno
 *   n  = AG_SYS_ON(fd, "send", send(fd, ...));               also shuts `fd` when it is said to be reset
 *   rc = AG_SYS_NEG("io_uring_setup", io_uring_queue...);    fails with -errno
 *   p  = AG_SYS_NULL("calloc.shards", calloc(1, bytes));     fails with NULL and errno
 *   len = AG_FAULT("send.short") ? 1 : len;                  whatever else can go wrong
 *
 * A call that is made to fail is not made. Sites of one name are one site.
 *
 * Two environment variables, read when the process starts:
 *   ANYGATE_FAULT=site=ERRNO[@nth][+count],...   from the nth call on (1), `count` calls (1) fail
 *   ANYGATE_FAULT_TABLE=FILE   a table of all sites, struct ag_fault_record by the hundred, is mapped
 *        from FILE and shared with whoever maps it too: to count hits, and to arm sites at any time
 */
#pragma once
#include "engine/base.h"

#include <errno.h>

#ifndef AG_FAULTS
#    define AG_FAULTS 0
#endif

#if AG_FAULTS
#    include <stdatomic.h>

#    define AG_FAULT_NAME_MAX 40

/* A site as a test sees it; in the order of first registration. To arm: write skip, count and passed = 0,
 * then error. */
struct ag_fault_record {
    char name[AG_FAULT_NAME_MAX]; /* NUL-terminated; empty: the end of the table */
    _Atomic uint32_t hits;        /* calls so far */
    _Atomic int32_t error;        /* errno to fail with; 0: not armed */
    _Atomic uint32_t skip;        /* calls that still go well */
    _Atomic uint32_t count;       /* calls after them that fail */
    _Atomic uint32_t passed;      /* calls since it was armed */
    _Atomic uint32_t failed;      /* calls that were made to fail so far */
};

/* One in the code. All are found by their section. */
struct ag_fault_site {
    const char *name;
    struct ag_fault_record *record; /* set before main, then read only; NULL: faults are off */
};

/* Counts a call; the errno it is to fail with, or 0. */
int ag_fault_hit(const struct ag_fault_site *site);
/* After ECONNRESET or EPIPE the socket `fd` must be as if its peer had gone. Returns -1. */
intptr_t ag_fault_hang_up(int fd, int error);

#    define AG_FAULT(site_name)                                                  \
        ({                                                                       \
            static struct ag_fault_site fault_site_ = {.name = (site_name)};     \
            static struct ag_fault_site *const fault_entry_                      \
                __attribute__((used, section("ag_fault_sites"))) = &fault_site_; \
            fault_site_.record ? ag_fault_hit(&fault_site_) : 0;                 \
        })
#    define AG_SYS_OR(site_name, failure, call)                  \
        ({                                                       \
            int fault_error_ = AG_FAULT(site_name);              \
            if (fault_error_) {                                  \
                errno = fault_error_;                            \
            }                                                    \
            fault_error_ ? (__typeof__(call))(failure) : (call); \
        })
#    define AG_SYS(site_name, call) AG_SYS_OR(site_name, (intptr_t)-1, call)
#    define AG_SYS_ON(fd, site_name, call) \
        AG_SYS_OR(site_name, ag_fault_hang_up(fd, fault_error_), call)
#    define AG_SYS_NULL(site_name, call) AG_SYS_OR(site_name, (intptr_t)0, call)
#    define AG_SYS_NEG(site_name, call)  AG_SYS_OR(site_name, -fault_error_, call)
#else
static inline void ag_fault_hang_up(int fd, int error)
{
    (void)fd;
    (void)error;
}

#    define AG_FAULT(site_name)            0
#    define AG_SYS(site_name, call)        (call)
#    define AG_SYS_ON(fd, site_name, call) (call)
#    define AG_SYS_NULL(site_name, call)   (call)
#    define AG_SYS_NEG(site_name, call)    (call)
#endif
