#include "actions/proxy/mirror.h"
#include "actions/upstream/proxy_retry_policy.h"

#define BUFFER_DEFAULT (64u * 1024u)

/* "10", "0.5", "10%": of a hundred requests, down to one of ten thousand. False: it is none. */
static bool parse_percent(struct ag_span text, uint32_t *out_parts)
{
    uint64_t whole = 0, part = 0;
    struct ag_span rest;
    size_t dot;

    if (text.len > 0 && text.ptr[text.len - 1] == '%') {
        text.len--;
    }
    dot = ag_span_find(text, '.');
    if (ag_span_u64(ag_span_sub(text, 0, dot), &whole) != AG_OK || whole > 100) {
        return false;
    }
    if (dot < text.len) {
        rest = ag_span_sub(text, dot + 1, text.len);
        if (rest.len > 2 || ag_span_u64(rest, &part) != AG_OK) {
            return false;
        }
        part *= rest.len == 1 ? 10 : 1;
    }
    *out_parts = (uint32_t)(whole * 100 + part);
    return *out_parts > 0 && *out_parts <= AG_MIRROR_PARTS;
}

static bool read_percent(const struct ag_node *n, struct ag_diags *diags, uint32_t *io)
{
    struct ag_span text;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    if (!parse_percent(text, io)) {
        ag_diag_error(diags, n->pos, "use 0.01 to 100", "\"%.*s\" is not a percentage",
                      (int)text.len, (const char *)text.ptr);
        return false;
    }
    return true;
}

bool ag_mirror_read(const struct ag_node *n, struct ag_diags *diags, struct ag_mirror_settings *out,
                    const struct ag_node **out_to)
{
    static const char *const keys[] = {"to", "percent", "buffer"};
    bool ok;

    out->parts = AG_MIRROR_PARTS;
    out->buffer_bytes = BUFFER_DEFAULT;
    *out_to = n;
    if (n->kind == AG_NODE_SCALAR) {
        return true;
    }
    if (!ag_node_check_keys(n, diags, "mirror", keys, AG_COUNT(keys))) {
        return false;
    }
    ok = read_percent(ag_node_get(n, "percent"), diags, &out->parts);
    ok = ag_retry_read_buffer(ag_node_get(n, "buffer"), diags,
                              "use 0 to 1m: each request that is mirrored may hold so much",
                              &out->buffer_bytes) &&
         ok;
    *out_to = ag_node_get(n, "to");
    if (!*out_to) {
        ag_diag_error(diags, n->pos, "mirror: {to: NAME, percent: 10}",
                      "a mirror needs an upstream: to");
        return false;
    }
    return ok;
}
