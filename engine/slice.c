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

struct ag_slice ag_chain_pop(struct ag_chain *c, struct ag_pool *nodes)
{
    struct ag_slice_node *n = c->head;

    AG_ASSERT(n && c->count > 0);
    struct ag_slice s = n->slice;
    c->head = n->next;
    if (!c->head) {
        c->tail = NULL;
    }
    AG_ASSERT(c->bytes >= s.len);
    c->bytes -= s.len;
    c->count--;
    ag_pool_put(nodes, n);
    return s;
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
        struct ag_slice s = ag_chain_pop(c, nodes);
        ag_slice_release(&s);
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
    struct ag_slice_node *next = c->head;

    if (!next) {
        return;
    }
    *c = (struct ag_chain){0};
    while (next) {
        struct ag_slice_node *n = next;

        next = n->next;
        ag_block_release(n->slice.owner);
        ag_pool_put(nodes, n);
    }
}
