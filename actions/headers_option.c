#include "actions/headers_option.h"

/* Framing, the connection's own (RFC 9110 section 7.6.1), and Date, which the server writes. */
static bool is_refused(enum ag_field_id id)
{
    static const enum ag_field_id refused[] = {
        AG_FIELD_CONNECTION,
        AG_FIELD_CONTENT_LENGTH,
        AG_FIELD_DATE,
        AG_FIELD_HTTP2_SETTINGS,
        AG_FIELD_KEEP_ALIVE,
        AG_FIELD_PROXY_CONNECTION,
        AG_FIELD_TE,
        AG_FIELD_TRAILER,
        AG_FIELD_TRANSFER_ENCODING,
        AG_FIELD_UPGRADE,
        AG_FIELD_PROXY_AUTHENTICATE,
    };

    for (size_t i = 0; i < AG_COUNT(refused); i++) {
        if (refused[i] == id) {
            return true;
        }
    }
    return false;
}

static enum ag_status read_value(struct ag_action_build *b, const struct ag_node *name,
                                 const struct ag_node *value, struct ag_header_option *out)
{
    struct ag_span text, key = ag_span_trim(name->key);

    if (!ag_is_token(key)) {
        ag_diag_error(b->diags, name->key_pos, NULL, "not a valid header name");
        return AG_EINVAL;
    }
    out->id = ag_field_id_from_name(key);
    if (is_refused(out->id)) {
        ag_diag_error(b->diags, name->key_pos, "the server writes what its connection needs",
                      "header %.*s cannot be set here", (int)ag_min_size(key.len, 64),
                      (const char *)key.ptr);
        return AG_EINVAL;
    }
    if (!ag_node_text(value, b->diags, &text)) {
        return AG_EINVAL;
    }
    text = ag_span_trim(text);
    if (!ag_is_field_value(text)) {
        ag_diag_error(b->diags, value->pos, "control characters are not allowed",
                      "not a valid header value");
        return AG_EINVAL;
    }
    out->name = out->id == AG_FIELD_OTHER ? key : ag_field_name(out->id);
    out->value = ag_param_text_compile(b, value->pos, text);
    return out->value ? AG_OK : AG_EINVAL;
}

enum ag_status ag_headers_option_read(struct ag_action_build *b, const struct ag_node *node,
                                      const struct ag_header_option **out_v, uint16_t *out_count)
{
    struct ag_header_option *v;
    uint16_t count = 0;
    enum ag_status st = AG_OK;

    *out_v = NULL;
    *out_count = 0;
    if (!node || node->kind == AG_NODE_NULL) {
        return AG_OK;
    }
    if (node->kind != AG_NODE_MAP) {
        ag_diag_error(b->diags, node->pos, "write headers: {Name: value}",
                      "headers wants a map of names and values");
        return AG_EINVAL;
    }
    v = ag_arena_zalloc(b->arena, sizeof(*v) * AG_HEADER_OPTIONS_MAX);
    for (const struct ag_node *name = node->first; name; name = name->next) {
        bool list = name->kind == AG_NODE_SEQ;
        for (const struct ag_node *value = list ? name->first : name; value;
             value = list ? value->next : NULL) {
            if (count == AG_HEADER_OPTIONS_MAX) {
                ag_diag_error(b->diags, name->key_pos, NULL, "more than %u headers",
                              AG_HEADER_OPTIONS_MAX);
                return AG_EINVAL;
            }
            if (read_value(b, name, value, &v[count]) != AG_OK) {
                st = AG_EINVAL;
            } else {
                count++;
            }
        }
    }
    *out_v = v;
    *out_count = count;
    return st;
}
