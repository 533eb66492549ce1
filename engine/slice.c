#include "engine/slice.h"

enum ag_status ag_chain_push(struct ag_chain *c, struct ag_pool *nodes, struct ag_slice s)
{
    if (s.len == 0) {
        ag_slice_release(&s);
        return AG_OK;
    }
    struct ag_slice_node *n = ag_pool_get(nodes);
    if (!n) {
        ag_slice_release(&s);
        return AG_ENOMEM;
    }
    *n = (struct ag_slice_node){s, NULL};
    if (c->tail) {
        c->tail->next = n;
    } else {
        c->head = n;
    }
    c->tail = n;
    c->bytes += s.len;
    c->count++;
    return AG_OK;
}

/* Takes the first node out of a chain that has one. */
static inline struct ag_slice_node *take_node(struct ag_chain *c)
{
    struct ag_slice_node *n = c->head;

    AG_ASSERT(n && c->bytes >= n->slice.len);
    c->head = n->next;
    if (!c->head) {
        c->tail = NULL;
    }
    c->bytes -= n->slice.len;
    c->count--;
    return n;
}

struct ag_slice ag_chain_pop(struct ag_chain *c, struct ag_pool *nodes)
{
    struct ag_slice_node *n = take_node(c);
    struct ag_slice s = n->slice;

    ag_pool_put(nodes, n);
    return s;
}

static void drop_first(struct ag_chain *c, struct ag_pool *nodes)
{
    struct ag_slice_node *n = take_node(c);
    struct ag_block *owner = n->slice.owner;

    ag_pool_put(nodes, n);
    ag_block_release(owner);
}

void ag_chain_consume(struct ag_chain *c, struct ag_pool *nodes, uint64_t n)
{
    AG_ASSERT(n <= c->bytes);
    while (n > 0) {
        struct ag_slice *first = &c->head->slice;

        if (n < first->len) {
            ag_slice_advance(first, (size_t)n);
            c->bytes -= n;
            return;
        }
        n -= first->len;
        drop_first(c, nodes);
    }
}

void ag_chain_splice(struct ag_chain *to, struct ag_chain *from)
{
    AG_ASSERT(to != from);
    if (!from->head) {
        return;
    }
    if (to->tail) {
        to->tail->next = from->head;
    } else {
        to->head = from->head;
    }
    to->tail = from->tail;
    to->bytes += from->bytes;
    to->count += from->count;
    *from = (struct ag_chain){0};
}

void ag_chain_clear(struct ag_chain *c, struct ag_pool *nodes)
{
    while (c->head) {
        drop_first(c, nodes);
    }
}
