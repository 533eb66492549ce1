/*
 * statuses: a set of HTTP statuses, as the config writes it: 503, "5xx", "200-399", or a list of such.
 */
#pragma once
#include "engine/node.h"

#define AG_STATUS_FIRST 100u
#define AG_STATUS_LAST  599u

/* Bit n: AG_STATUS_FIRST + n. */
struct ag_statuses {
    uint64_t w[(AG_STATUS_LAST - AG_STATUS_FIRST) / 64 + 1];
};

static inline bool ag_statuses_has(const struct ag_statuses *s, unsigned status)
{
    unsigned bit = status - AG_STATUS_FIRST;

    return status >= AG_STATUS_FIRST && status <= AG_STATUS_LAST &&
           (s->w[bit / 64] >> bit % 64 & 1);
}
/* All from `first` to `last`, both in range. */
void ag_statuses_add(struct ag_statuses *s, unsigned first, unsigned last);
/* What `node` says becomes the set; an empty list is the empty set. False after a diagnosis; NULL: no change. */
bool ag_statuses_read(const struct ag_node *node, struct ag_diags *diags, struct ag_statuses *io);
/* "200-399, 404"; of the empty set nothing. */
void ag_statuses_print(const struct ag_statuses *s, struct ag_buf *out);
