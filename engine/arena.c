#include "engine/arena.h"

#include "engine/loop.h"
#include "engine/poison.h"

#include <stdarg.h>
#include <stdio.h>

#define ALIGN 8u

/* Of a malloc arena: large enough that a config of 100,000 routes takes few calls. */
#define HEAP_PAGE_BYTES 65536u

/* At the start of each page. */
struct page {
    struct page *next;
    size_t size_bytes; /* of the page, this header included */
};

_Static_assert(sizeof(struct page) == AG_ARENA_PAGE_BYTES - AG_ARENA_ALLOC_MAX,
               "the largest pooled allocation fills a page");
_Static_assert(sizeof(struct page) % ALIGN == 0, "the first allocation is aligned");

/* Never of no bytes, so that each result is distinct from failure. */
static size_t rounded(size_t size_bytes)
{
    return size_bytes ? (size_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1) : ALIGN;
}

void ag_arena_init(struct ag_arena *a, struct ag_pool *pages, uint32_t page_max)
{
    AG_ASSERT(!pages || pages->stride >= AG_ARENA_PAGE_BYTES);
    *a = (struct ag_arena){.pages = pages, .page_max = page_max};
}

void ag_arena_widen(struct ag_arena *a, struct ag_loop *l)
{
    AG_ASSERT(a->pages);
    a->loop = l;
}

static void drop_wide(struct ag_arena *a)
{
    for (unsigned i = 0; i < AG_ARENA_WIDE && a->wide[i]; i++) {
        ag_block_release(a->wide[i]);
        a->wide[i] = NULL;
    }
}

static void drop_pages(struct ag_pool *pages, struct page *p)
{
    while (p) {
        struct page *next = p->next;

        ag_unpoison(p, p->size_bytes);
        if (pages) {
            ag_pool_put(pages, p);
        } else {
            free(p);
        }
        p = next;
    }
}

void ag_arena_release(struct ag_arena *a)
{
    drop_wide(a);
    drop_pages(a->pages, a->first);
    a->first = NULL;
    a->at = a->end = NULL;
    a->page_count = 0;
}

void *ag_arena_begin(struct ag_loop *l, uint32_t page_max, size_t size_bytes, size_t offset)
{
    struct page *p = ag_pool_get(&l->pages);
    uint8_t *object;

    AG_ASSERT(size_bytes <= AG_ARENA_ALLOC_MAX && offset <= size_bytes);
    if (!p) {
        return NULL;
    }
    object = (uint8_t *)(p + 1);
    *p = (struct page){NULL, AG_ARENA_PAGE_BYTES};
    ag_poison(object, AG_ARENA_ALLOC_MAX);
    ag_unpoison(object, size_bytes);
    *(struct ag_arena *)(void *)(object + offset) =
        (struct ag_arena){.pages = &l->pages,
                          .first = p,
                          .at = object + rounded(size_bytes),
                          .end = object + AG_ARENA_ALLOC_MAX,
                          .page_count = 1,
                          .page_max = page_max,
                          .loop = l};
    return object;
}

void ag_arena_end(struct ag_arena *a)
{
    drop_wide(a);
    drop_pages(a->pages, a->first); /* its own is the last of them */
}

static struct page *page_take(struct ag_arena *a, size_t size_bytes)
{
    struct page *p = NULL;

    if (!a->pages) {
        p = malloc(size_bytes);
        if (!p) {
            ag_panic(__FILE__, __LINE__, "out of memory");
        }
    } else if (a->page_count < a->page_max) {
        p = ag_pool_get(a->pages);
    }
    if (p) {
        p->size_bytes = size_bytes;
        a->page_count++;
        ag_poison(p + 1, size_bytes - sizeof(*p));
    }
    return p;
}

/* A heap allocation too large to share a page gets one of its own, behind the newest, whose free
 * bytes stay in use. */
static void *alloc_large(struct ag_arena *a, size_t size_bytes)
{
    struct page *p = page_take(a, sizeof(*p) + size_bytes), *first = a->first;

    if (first) {
        p->next = first->next;
        first->next = p;
    } else {
        p->next = NULL;
        a->first = p;
    }
    ag_unpoison(p + 1, size_bytes);
    return p + 1;
}

/* From the newest large buffer, or another one. */
static void *alloc_wide(struct ag_arena *a, size_t size_bytes)
{
    unsigned taken = 0;
    struct ag_block *b;

    if (!a->loop || size_bytes > AG_BUF_LARGE_BYTES) {
        return NULL;
    }
    size_bytes = rounded(size_bytes);
    while (taken < AG_ARENA_WIDE && a->wide[taken]) {
        taken++;
    }
    b = taken ? a->wide[taken - 1] : NULL;
    if (!b || size_bytes > b->size - a->wide_used) {
        /* It is held as long as the arena, so it is not the last ones that go there. */
        b = taken < AG_ARENA_WIDE && !a->loop->tight ? ag_loop_buf(a->loop, AG_BUF_LARGE) : NULL;
        if (!b) {
            return NULL;
        }
        a->wide[taken] = b;
        a->wide_used = 0;
    }
    a->wide_used += (uint32_t)size_bytes;
    return b->data + a->wide_used - size_bytes;
}

/* What the newest page has no room for, and no bytes at all. */
static void *alloc_beyond(struct ag_arena *a, size_t size_bytes)
{
    size_t page_bytes = a->pages ? AG_ARENA_PAGE_BYTES : HEAP_PAGE_BYTES;

    if (size_bytes > PTRDIFF_MAX || (a->pages && size_bytes > AG_ARENA_ALLOC_MAX)) {
        if (a->pages) {
            return alloc_wide(a, size_bytes);
        }
        ag_panic(__FILE__, __LINE__, "out of memory");
    }
    size_bytes = rounded(size_bytes);
    if (size_bytes > (size_t)(a->end - a->at)) {
        if (size_bytes > page_bytes / 4 && !a->pages) {
            return alloc_large(a, size_bytes);
        }
        struct page *p = page_take(a, page_bytes);
        if (!p) {
            return NULL;
        }
        p->next = a->first;
        a->first = p;
        a->at = (uint8_t *)(p + 1);
        a->end = (uint8_t *)p + page_bytes;
    }
    void *ptr = a->at;
    a->at += size_bytes;
    ag_unpoison(ptr, size_bytes);
    return ptr;
}

void *ag_arena_alloc(struct ag_arena *a, size_t size_bytes)
{
    uint8_t *ptr = a->at;

    /* What is left is a multiple of ALIGN; no bytes at all wrap around. */
    if (ag_unlikely(size_bytes - 1 >= (size_t)(a->end - ptr))) {
        return alloc_beyond(a, size_bytes);
    }
    a->at += (size_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    ag_unpoison(ptr, size_bytes);
    return ptr;
}

void ag_arena_trim(struct ag_arena *a, void *ptr, size_t size_bytes, size_t used_bytes)
{
    uint8_t *from = ptr;

    AG_ASSERT(used_bytes <= size_bytes);
    if (a->at == from + rounded(size_bytes)) {
        a->at = from + rounded(used_bytes);
        ag_poison(a->at, rounded(size_bytes) - rounded(used_bytes));
    }
}

void *ag_arena_zalloc(struct ag_arena *a, size_t size_bytes)
{
    void *ptr = ag_arena_alloc(a, size_bytes);

    return ptr ? memset(ptr, 0, size_bytes) : NULL;
}

struct ag_span ag_arena_copy(struct ag_arena *a, struct ag_span s)
{
    if (s.len == 0) {
        return AG_SPAN("");
    }
    uint8_t *ptr = ag_arena_alloc(a, s.len);
    if (!ptr) {
        return (struct ag_span){NULL, 0};
    }
    memcpy(ptr, s.ptr, s.len);
    return (struct ag_span){ptr, s.len};
}

char *ag_arena_strdup(struct ag_arena *a, struct ag_span s)
{
    char *text = ag_arena_alloc(a, s.len + 1);

    if (text) {
        if (s.len) {
            memcpy(text, s.ptr, s.len);
        }
        text[s.len] = '\0';
    }
    return text;
}

char *ag_arena_printf(struct ag_arena *a, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    AG_ASSERT(n >= 0);
    char *text = ag_arena_alloc(a, (size_t)n + 1);
    if (text) {
        va_start(args, fmt);
        n = vsnprintf(text, (size_t)n + 1, fmt, args);
        va_end(args);
        AG_ASSERT(n >= 0);
    }
    return text;
}
