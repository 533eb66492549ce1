#include "actions/action.h"

void ag_template_expand(const struct ag_template *t, const struct ag_exchange *ex,
                        struct ag_buf *out)
{
    for (uint16_t i = 0; i < t->count; i++) {
        const struct ag_template_part *part = &t->parts[i];

        ag_buf_put(out,
                   part->param < 0 ? part->literal : ag_exchange_param(ex, (unsigned)part->param));
    }
}
