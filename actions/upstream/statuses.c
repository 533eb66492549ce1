#include "actions/upstream/statuses.h"

void ag_statuses_add(struct ag_statuses *s, unsigned first, unsigned last)
{
    AG_ASSERT(first >= AG_STATUS_FIRST && last <= AG_STATUS_LAST);
    for (unsigned status = first; status <= last; status++) {
        unsigned bit = status - AG_STATUS_FIRST;

        s->w[bit / 64] |= UINT64_C(1) << bit % 64;
    }
}

static bool number(struct ag_span text, unsigned *out)
{
    uint64_t value;

    if (ag_span_u64(text, &value) != AG_OK || value < AG_STATUS_FIRST || value > AG_STATUS_LAST) {
        return false;
    }
    *out = (unsigned)value;
    return true;
}

/* "200", "2xx" or "200-399". */
static bool add_text(struct ag_statuses *s, struct ag_span text)
{
    size_t dash = ag_span_find(text, '-');
    unsigned first, last;

    if (text.len == 3 && ag_span_ieq(ag_span_sub(text, 1, 3), AG_SPAN("xx")) &&
        text.ptr[0] >= '1' && text.ptr[0] <= '5') {
        first = (unsigned)(text.ptr[0] - '0') * 100;
        ag_statuses_add(s, first, first + 99);
        return true;
    }
    if (!number(ag_span_sub(text, 0, dash), &first)) {
        return false;
    }
    last = first;
    if (dash < text.len && !number(ag_span_sub(text, dash + 1, text.len), &last)) {
        return false;
    }
    if (last < first) {
        return false;
    }
    ag_statuses_add(s, first, last);
    return true;
}

static bool add_node(struct ag_statuses *s, const struct ag_node *n, struct ag_diags *diags)
{
    if (n->kind == AG_NODE_SCALAR && add_text(s, n->text)) {
        return true;
    }
    ag_diag_error(diags, n->pos, "use 503, \"5xx\" or \"200-399\", from 100 to 599",
                  n->kind == AG_NODE_SCALAR ? "\"%.*s\" is not a status" : "not a status",
                  (int)n->text.len, (const char *)n->text.ptr);
    return false;
}

bool ag_statuses_read(const struct ag_node *node, struct ag_diags *diags, struct ag_statuses *io)
{
    struct ag_statuses s = {{0}};
    bool ok = true;

    if (!node) {
        return true;
    }
    if (node->kind == AG_NODE_SEQ) {
        for (const struct ag_node *n = node->first; n; n = n->next) {
            ok = add_node(&s, n, diags) && ok;
        }
    } else {
        ok = add_node(&s, node, diags);
    }
    if (ok) {
        *io = s;
    }
    return ok;
}

void ag_statuses_print(const struct ag_statuses *s, struct ag_buf *out)
{
    bool any = false;

    for (unsigned first = AG_STATUS_FIRST; first <= AG_STATUS_LAST; first++) {
        unsigned last = first;

        if (!ag_statuses_has(s, first)) {
            continue;
        }
        while (ag_statuses_has(s, last + 1)) {
            last++;
        }
        ag_buf_put(out, any ? AG_SPAN(", ") : AG_SPAN(""));
        ag_buf_put_u64(out, first);
        if (last > first) {
            ag_buf_putc(out, '-');
            ag_buf_put_u64(out, last);
        }
        any = true;
        first = last;
    }
}
