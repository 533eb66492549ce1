#include "fuzz/scarce.h"

static void take_pages(struct scarce *s, struct ag_loop *l, unsigned left)
{
    void *page;

    while (l->pages.used + left < SCARCE_PAGES && s->page_count < SCARCE_PAGES &&
           (page = ag_pool_get(&l->pages))) {
        s->pages[s->page_count++] = page;
    }
}

static void take_buffers(struct scarce *s, struct ag_loop *l, unsigned left)
{
    struct ag_block *b;

    while (ag_loop_bufs_used(l, AG_BUF_SMALL) + left < SCARCE_SMALL &&
           s->buffer_count < SCARCE_SMALL && (b = ag_loop_buf(l, AG_BUF_SMALL))) {
        s->buffers[s->buffer_count++] = b;
    }
}

void scarce_make(struct scarce *s, struct ag_loop *l, unsigned what, unsigned left)
{
    if (what % 3 == 0) {
        take_pages(s, l, left);
    } else if (what % 3 == 1) {
        take_buffers(s, l, left);
    } else {
        while (s->buffer_count > 0) {
            ag_block_release(s->buffers[--s->buffer_count]);
        }
        while (s->page_count > 0) {
            ag_pool_put(&l->pages, s->pages[--s->page_count]);
        }
        l->tight = false;
    }
}
