/*
 * list: an intrusive, circular, doubly linked list. The head is a link that points at itself when
 * empty; a link that is in no list points at itself too, so removing it twice is harmless.
 */
#pragma once
#include "engine/base.h"

struct ag_link {
    struct ag_link *next, *prev;
};

static inline void ag_list_init(struct ag_link *head)
{
    head->next = head->prev = head;
}

static inline bool ag_list_empty(const struct ag_link *head)
{
    return head->next == head;
}

/* Appends `l`, which must be in no list. */
static inline void ag_list_push(struct ag_link *head, struct ag_link *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

/* Prepends `l`, which must be in no list. */
static inline void ag_list_push_front(struct ag_link *head, struct ag_link *l)
{
    ag_list_push(head->next, l);
}

static inline void ag_list_remove(struct ag_link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    ag_list_init(l);
}

/* Takes the first link out, or returns NULL. */
static inline struct ag_link *ag_list_pop(struct ag_link *head)
{
    struct ag_link *l = head->next;

    if (l == head) {
        return NULL;
    }
    ag_list_remove(l);
    return l;
}

#define ag_list_foreach(it, head) \
    for (struct ag_link *it = (head)->next; it != (head); it = it->next)
