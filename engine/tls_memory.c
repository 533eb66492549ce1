#include "engine/tls_memory.h"

#include "engine/poison.h"
#include "engine/tls_context.h"

#include <stdatomic.h>

#define STEP_BYTES  16u
#define STEPS       32u /* classes of 16, 32 .. 512 bytes */
#define CLASSES     (STEPS + 32u)
#define CLASS_LARGE 254u /* beyond all classes: straight from the system */
#define CLASS_LENT  255u
#define LARGEST     ((size_t)128 * 1024)

/* Before each piece. */
struct head {
    union {
        struct ag_block *block; /* of a lent one */
        struct head *next;      /* of one that is kept */
        uint64_t bytes;         /* of one in use */
    };
    uint32_t size; /* what was asked for */
    uint32_t class;
};

_Static_assert(sizeof(struct head) == 16, "it keeps the alignment");
_Static_assert(AG_TLS_LENT_HEAD >= sizeof(struct head) + 15, "head and alignment");

/* A thread's part; never freed, for others read its count. */
struct account {
    _Atomic int64_t bytes; /* written by its thread alone */
    uint64_t refusals;
    struct account *next;
    size_t kept_bytes;
    struct head *kept[CLASSES];
    struct ag_block *lent;
    uint32_t lent_from;
};

static _Atomic(struct account *) accounts;
static _Atomic uint64_t bound = AG_TLS_MEMORY_MAX;
static _Thread_local struct account *mine;

static struct account *account(void)
{
    struct account *a = mine;

    if (ag_likely(a != NULL)) {
        return a;
    }
    a = calloc(1, sizeof(*a));
    if (a) {
        a->next = atomic_load(&accounts);
        while (!atomic_compare_exchange_weak(&accounts, &a->next, a)) {
        }
        mine = a;
    }
    return a;
}

static void count(struct account *a, int64_t bytes)
{
    atomic_store_explicit(&a->bytes, atomic_load_explicit(&a->bytes, memory_order_relaxed) + bytes,
                          memory_order_relaxed);
}

/* ---- classes ---- */

/* Up to 512 bytes in steps of 16, then four classes to each doubling. */
static uint32_t class_of(size_t n)
{
    uint32_t log;

    if (n <= (size_t)STEP_BYTES * STEPS) {
        return n == 0 ? 0 : (uint32_t)((n - 1) / STEP_BYTES);
    }
    log = 63u - (uint32_t)__builtin_clzll(n - 1); /* 9 for 513 .. 1024 */
    return STEPS + (log - 9) * 4 + (uint32_t)(((n - 1) >> (log - 2)) & 3);
}

static size_t class_bytes(uint32_t class)
{
    uint32_t log;

    if (class < STEPS) {
        return (size_t)STEP_BYTES * (class + 1);
    }
    log = 9 + (class - STEPS) / 4;
    return ((size_t)4 + (class - STEPS) % 4 + 1) << (log - 2);
}

/* ---- pieces ---- */

static struct head *head_of(void *p)
{
    return (struct head *)p - 1;
}

static void *take_lent(struct account *a, size_t n)
{
    struct ag_block *b = a->lent;
    uintptr_t at = (uintptr_t)b->data + a->lent_from + sizeof(struct head);
    size_t from;
    struct head *h;

    at = (at + 15) & ~(uintptr_t)15;
    from = at - (uintptr_t)b->data;
    if (from > b->size || n > b->size - from) {
        return NULL;
    }
    h = head_of(b->data + from);
    *h = (struct head){{.block = ag_block_hold(b)}, (uint32_t)n, CLASS_LENT};
    a->lent = NULL;
    return h + 1;
}

static struct head *take_kept(struct account *a, uint32_t class)
{
    struct head *h = a->kept[class];

    if (h) {
        ag_unpoison(h + 1, class_bytes(class));
        a->kept[class] = h->next;
        a->kept_bytes -= class_bytes(class) + sizeof(*h);
    }
    return h;
}

void *ag_tls_alloc(size_t n)
{
    struct account *a = account();
    uint32_t class = n <= LARGEST ? class_of(n) : CLASS_LARGE;
    size_t bytes = class == CLASS_LARGE ? n : class_bytes(class);
    struct head *h = NULL;

    if (!a || n > UINT32_MAX) {
        return NULL;
    }
    if (a->lent && n >= AG_TLS_LENT_MIN) {
        void *p = take_lent(a, n);
        if (p) {
            return p;
        }
    }
    bytes += sizeof(*h);
    if (atomic_load_explicit(&a->bytes, memory_order_relaxed) + (int64_t)bytes >
        (int64_t)atomic_load_explicit(&bound, memory_order_relaxed)) {
        a->refusals++;
        return NULL;
    }
    if (class != CLASS_LARGE) {
        h = take_kept(a, class);
    }
    h = h ? h : malloc(bytes);
    if (!h) {
        a->refusals++;
        return NULL;
    }
    *h = (struct head){{.bytes = bytes}, (uint32_t)n, class};
    count(a, (int64_t)bytes);
    return h + 1;
}

void ag_tls_free(void *p)
{
    struct account *a = account();
    struct head *h;
    size_t bytes;

    if (!p) {
        return;
    }
    h = head_of(p);
    if (h->class == CLASS_LENT) {
        ag_block_release(h->block);
        return;
    }
    bytes = h->bytes;
    if (a) {
        count(a, -(int64_t)bytes);
    }
    if (!a || h->class == CLASS_LARGE || a->kept_bytes + bytes > AG_TLS_MEMORY_CACHE) {
        free(h);
        return;
    }
    h->next = a->kept[h->class];
    a->kept[h->class] = h;
    a->kept_bytes += bytes;
    ag_poison(h + 1, bytes - sizeof(*h)); /* not the head: a leak checker follows the list */
}

void *ag_tls_realloc(void *p, size_t n)
{
    void *to;
    struct head *h;

    if (!p) {
        return ag_tls_alloc(n);
    }
    h = head_of(p);
    if (h->class < CLASSES && n <= class_bytes(h->class)) {
        h->size = (uint32_t)n;
        return p;
    }
    to = ag_tls_alloc(n);
    if (to) {
        memcpy(to, p, ag_min_size(h->size, n));
        ag_tls_free(p);
    }
    return to;
}

/* ---- bounds ---- */

void ag_tls_memory_bound(uint64_t thread_bytes)
{
    AG_ASSERT(thread_bytes <= INT64_MAX);
    atomic_store(&bound, thread_bytes);
}

bool ag_tls_memory_is_short(void)
{
    uint64_t most = atomic_load_explicit(&bound, memory_order_relaxed);

    return ag_tls_memory_thread_bytes() > (int64_t)(most - most / 8);
}

uint64_t ag_tls_memory_refusals(void)
{
    struct account *a = account();

    return a ? a->refusals : 0;
}

void ag_tls_memory_trim(void)
{
    struct account *a = account();

    for (uint32_t i = 0; a && i < CLASSES; i++) {
        for (struct head *h = take_kept(a, i); h; h = take_kept(a, i)) {
            free(h);
        }
    }
}

int64_t ag_tls_memory_thread_bytes(void)
{
    struct account *a = account();

    return a ? atomic_load_explicit(&a->bytes, memory_order_relaxed) : 0;
}

uint64_t ag_tls_memory_bytes(void)
{
    int64_t sum = 0;

    for (struct account *a = atomic_load(&accounts); a; a = a->next) {
        sum += atomic_load_explicit(&a->bytes, memory_order_relaxed);
    }
    return sum > 0 ? (uint64_t)sum : 0;
}

/* ---- lending ---- */

void ag_tls_memory_lend(struct ag_block *b, uint32_t from)
{
    struct account *a = account();

    AG_ASSERT(from <= b->size);
    if (a) {
        a->lent = b;
        a->lent_from = from;
    }
}

void ag_tls_memory_unlend(void)
{
    struct account *a = account();

    if (a) {
        a->lent = NULL;
    }
}
