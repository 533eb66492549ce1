/*
 * base.h: what every file may assume: types, assertions, outcomes. Includes nothing of ours.
 *
 * A program error stops the process (AG_ASSERT, in every build); what a peer, a file or the kernel
 * did is a value (enum ag_status). Negative errno values never leave engine/.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define AG_MUST_USE        __attribute__((warn_unused_result))
#define AG_PRINTF(fmt, at) __attribute__((format(printf, fmt, at)))
#define AG_COLD            __attribute__((cold, noinline))
#define AG_NOINLINE        __attribute__((noinline))
#define AG_FLATTEN         __attribute__((flatten)) /* takes in all that it calls */
#define AG_CACHE_LINE      64u

#define ag_likely(x)   __builtin_expect(!!(x), 1)
#define ag_unlikely(x) __builtin_expect(!!(x), 0)

/* Stops on a programming error, in every build; never for input or resource errors. */
#define AG_ASSERT(cond)     (ag_likely(cond) ? (void)0 : ag_panic(__FILE__, __LINE__, #cond))
#define AG_UNREACHABLE(why) ag_panic(__FILE__, __LINE__, why)

#define AG_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The struct that holds `member` at `ptr`. The caller vouches for the type. */
#define ag_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

_Noreturn AG_COLD void ag_panic(const char *file, int line, const char *what);

/* Outcome of a call that can fail for a reason outside the program. */
enum ag_status {
    AG_OK = 0,
    AG_AGAIN,  /* needs more input, more room or more time; nothing is wrong */
    AG_EPROTO, /* the peer broke the protocol */
    AG_ELIMIT, /* a configured bound was hit */
    AG_ENOMEM, /* a pool is empty */
    AG_EINVAL, /* a setting or argument from outside is not valid */
    AG_ENOENT, /* no such file, name or entry */
    AG_EACCES, /* the system refused permission */
    AG_ESYS,   /* another system error; the call says where its text is */
};

static inline size_t ag_min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline uint64_t ag_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
