#include "filters/headers.h"

#include "proto/vars.h"

#define CHANGES_MAX 32u

enum change_kind { CHANGE_REMOVE, CHANGE_SET, CHANGE_ADD, CHANGE_KINDS };

static const char *const kind_names[CHANGE_KINDS] = {
    [CHANGE_REMOVE] = "remove", [CHANGE_SET] = "set", [CHANGE_ADD] = "add"};

struct change {
    enum change_kind kind;
    enum ag_field_id id;
    struct ag_span name;
    const struct ag_vars *value; /* not of REMOVE */
    struct ag_span literal;      /* the value when it has no variables */
    bool is_literal;
};

/* Of one direction, in the order in which they are made. */
struct changes {
    const struct change *v;
    uint16_t count;
};

struct settings {
    struct changes request, response;
};

/* ---- load ---- */

static bool is_refused(enum ag_field_id id)
{
    static const enum ag_field_id refused[] = {
        AG_FIELD_CONNECTION, AG_FIELD_CONTENT_LENGTH, AG_FIELD_HOST,
        AG_FIELD_KEEP_ALIVE, AG_FIELD_DATE,           AG_FIELD_PROXY_CONNECTION,
        AG_FIELD_TE,         AG_FIELD_TRAILER,        AG_FIELD_TRANSFER_ENCODING,
        AG_FIELD_UPGRADE,    AG_FIELD_HTTP2_SETTINGS, AG_FIELD_EXPECT,
        AG_FIELD_PROXY,      AG_FIELD_CONTENT_RANGE,
    };

    for (size_t i = 0; i < AG_COUNT(refused); i++) {
        if (refused[i] == id) {
            return true;
        }
    }
    return false;
}

static enum ag_status read_name(struct ag_filter_build *b, struct ag_pos pos, struct ag_span name,
                                struct change *c)
{
    if (!ag_is_token(name) || name.len > UINT8_MAX) {
        ag_diag_error(b->diags, pos, "letters, digits and -", "\"%.*s\" is not a field name",
                      (int)ag_min_size(name.len, 60), (const char *)name.ptr);
        return AG_EINVAL;
    }
    c->id = ag_field_id_from_name(name);
    c->name = c->id == AG_FIELD_OTHER ? name : ag_field_name(c->id);
    if (is_refused(c->id)) {
        ag_diag_error(b->diags, pos, "it belongs to the connection or frames the message",
                      "%.*s cannot be changed", (int)name.len, (const char *)name.ptr);
        return AG_EINVAL;
    }
    return AG_OK;
}

static enum ag_status read_value(struct ag_filter_build *b, const struct ag_node *n,
                                 struct change *c)
{
    struct ag_span text;

    if (!ag_node_text(n, b->diags, &text)) {
        return AG_EINVAL;
    }
    if (!ag_is_field_value(text)) {
        ag_diag_error(b->diags, n->pos, "no controls, no line breaks", "not a field value");
        return AG_EINVAL;
    }
    c->value = ag_vars_compile(b->arena, b->diags, n->pos, text);
    if (!c->value) {
        return AG_EINVAL;
    }
    c->is_literal = ag_vars_literal(c->value, &c->literal);
    return AG_OK;
}

static enum ag_status add_change(struct ag_filter_build *b, const struct ag_node *n,
                                 enum change_kind kind, struct change *v, uint16_t *count)
{
    struct change c = {.kind = kind};
    struct ag_span name = n->key;
    struct ag_pos pos = n->key_pos;

    if (kind == CHANGE_REMOVE) {
        pos = n->pos;
        if (!ag_node_text(n, b->diags, &name)) {
            return AG_EINVAL;
        }
    }
    if (*count == CHANGES_MAX) {
        ag_diag_error(b->diags, pos, NULL, "more than %u changes of headers", CHANGES_MAX);
        return AG_EINVAL;
    }
    if (read_name(b, pos, name, &c) != AG_OK ||
        (kind != CHANGE_REMOVE && read_value(b, n, &c) != AG_OK)) {
        return AG_EINVAL;
    }
    v[(*count)++] = c;
    return AG_OK;
}

static enum ag_status read_kind(struct ag_filter_build *b, const struct ag_node *n,
                                enum change_kind kind, struct change *v, uint16_t *count)
{
    enum ag_status st = AG_OK;

    if (!n || n->kind == AG_NODE_NULL) {
        return AG_OK;
    }
    if (kind == CHANGE_REMOVE && n->kind == AG_NODE_SCALAR) {
        return add_change(b, n, kind, v, count);
    }
    if (n->kind != (kind == CHANGE_REMOVE ? AG_NODE_SEQ : AG_NODE_MAP)) {
        ag_diag_error(
            b->diags, n->pos, kind == CHANGE_REMOVE ? "remove: [Name, Name]" : "set: {Name: value}",
            "%s must be a %s", kind_names[kind], kind == CHANGE_REMOVE ? "list" : "mapping");
        return AG_EINVAL;
    }
    for (const struct ag_node *c = n->first; c; c = c->next) {
        if (add_change(b, c, kind, v, count) != AG_OK) {
            st = AG_EINVAL;
        }
    }
    return st;
}

/* {set, add, remove}; NULL: none. */
static enum ag_status read_changes(struct ag_filter_build *b, const struct ag_node *n,
                                   struct changes *out)
{
    enum ag_status st = AG_OK;
    struct change *v;
    uint16_t count = 0;

    if (!n || n->kind == AG_NODE_NULL) {
        return AG_OK;
    }
    if (!ag_node_check_keys(n, b->diags, "headers", kind_names, AG_COUNT(kind_names))) {
        return AG_EINVAL;
    }
    v = ag_arena_alloc(b->arena, CHANGES_MAX * sizeof(*v));
    for (unsigned k = 0; k < CHANGE_KINDS; k++) {
        if (read_kind(b, ag_node_get(n, kind_names[k]), (enum change_kind)k, v, &count) != AG_OK) {
            st = AG_EINVAL;
        }
    }
    *out = (struct changes){v, count};
    return st;
}

/* set, add and remove beside request and response: whose would they be? */
static bool is_mixed(struct ag_filter_build *b, const struct ag_node *n)
{
    for (unsigned k = 0; k < CHANGE_KINDS; k++) {
        const struct ag_node *c = ag_node_get(n, kind_names[k]);

        if (c) {
            ag_diag_error(b->diags, c->key_pos, "put it into request: {...} or response: {...}",
                          "%s cannot stand beside request and response", kind_names[k]);
            return true;
        }
    }
    return false;
}

static enum ag_status configure(struct ag_filter_build *b, const struct ag_node *n,
                                const void **out_settings)
{
    static const char *const keys[] = {"request", "response"};
    struct settings *s = ag_arena_zalloc(b->arena, sizeof(*s));
    uint32_t errors = b->diags->errors;
    bool is_long = ag_node_get(n, "request") || ag_node_get(n, "response");

    *out_settings = s;
    if (n->kind == AG_NODE_NULL) {
        ag_diag_error(b->diags, n->pos, "{headers: {set: {X-Name: value}}}",
                      "the headers filter needs settings");
        return AG_EINVAL;
    }
    if (!is_long) {
        return read_changes(b, n, &s->response) == AG_OK && b->diags->errors == errors ? AG_OK
                                                                                       : AG_EINVAL;
    }
    if (is_mixed(b, n) || !ag_node_check_keys(n, b->diags, "headers", keys, AG_COUNT(keys)) ||
        read_changes(b, ag_node_get(n, "request"), &s->request) != AG_OK ||
        read_changes(b, ag_node_get(n, "response"), &s->response) != AG_OK) {
        return AG_EINVAL;
    }
    return b->diags->errors == errors ? AG_OK : AG_EINVAL;
}

/* ---- requests ---- */

/* What a client can make long, its target above all, is rarely longer than this. */
#define VALUE_USUAL_BYTES 1024u

/* A value that outgrows the stack; never a part of it, which may mean another. */
static enum ag_status expand_long(struct ag_exchange *ex, const struct change *c,
                                  struct ag_span *out)
{
    struct ag_block *room = ag_loop_buf(ex->context->loop, AG_BUF_LARGE);
    struct ag_buf b;

    if (!room) {
        return AG_ENOMEM;
    }
    b = ag_buf(room->data, room->size);
    ag_vars_expand(c->value, ex, &b);
    *out = ag_span(NULL, 0);
    if (!b.overflow) {
        *out = ag_arena_copy(&ex->arena, ag_buf_span(&b));
    }
    ag_block_release(room);
    if (out->ptr) {
        return AG_OK;
    }
    /* An arena has room for so many long ones and no more, however much memory there is. */
    return b.overflow || !ex->context->loop->tight ? AG_ELIMIT : AG_ENOMEM;
}

/* The value for this exchange, in its arena. AG_ELIMIT: no head has room for it; AG_ENOMEM. */
static enum ag_status expand(struct ag_exchange *ex, const struct change *c, struct ag_span *out)
{
    uint8_t room[VALUE_USUAL_BYTES];
    struct ag_buf b = ag_buf(room, sizeof(room));

    if (c->is_literal) {
        *out = c->literal;
        return AG_OK;
    }
    ag_vars_expand(c->value, ex, &b);
    if (b.overflow) {
        return expand_long(ex, c, out);
    }
    *out = ag_arena_copy(&ex->arena, ag_buf_span(&b));
    return out->ptr ? AG_OK : AG_ENOMEM;
}

static enum ag_status apply_one(struct ag_exchange *ex, const struct change *c,
                                struct ag_fields *fields)
{
    struct ag_span value = {NULL, 0};
    enum ag_status st = AG_OK;

    if (c->kind != CHANGE_REMOVE) {
        /* Before anything is removed: the value may be made of the field's old one. */
        st = expand(ex, c, &value);
    }
    if (c->kind != CHANGE_ADD) {
        if (c->id == AG_FIELD_OTHER) {
            ag_fields_remove_name(fields, c->name);
        } else {
            ag_fields_remove(fields, c->id);
        }
    }
    if (c->kind == CHANGE_REMOVE || st != AG_OK) {
        return st;
    }
    return ag_fields_add(fields, &ex->arena, c->id, c->name, value);
}

/* All that can be; the first failure. */
static enum ag_status apply(struct ag_exchange *ex, const struct changes *changes,
                            struct ag_fields *fields)
{
    enum ag_status st = AG_OK;

    for (uint16_t i = 0; i < changes->count; i++) {
        enum ag_status one = apply_one(ex, &changes->v[i], fields);

        st = st == AG_OK ? one : st;
    }
    return st;
}

static enum ag_verdict pre(struct ag_exchange *ex, const void *settings, void *state)
{
    const struct settings *s = settings;
    enum ag_status st = apply(ex, &s->request, &ex->req.fields);

    (void)state;
    if (st == AG_ELIMIT) {
        ag_exchange_fail(ex, 431, AG_REASON_LIMIT,
                         "header fields that are made of the request are too long");
        return AG_ANSWERED;
    }
    return st == AG_OK ? AG_CONTINUE : AG_FAIL;
}

static void on_head(struct ag_exchange *ex, const void *settings, void *state)
{
    const struct settings *s = settings;

    (void)state;
    /* Without memory, and with a value that is too long, the answer goes out with what could be changed. */
    (void)!apply(ex, &s->response, &ex->res.fields);
}

/* Without the field, and with one that is made of a request, it may be any. */
static void media(const void *settings, struct ag_media_change *change)
{
    const struct settings *s = settings;

    for (uint16_t i = 0; i < s->response.count; i++) {
        const struct change *c = &s->response.v[i];

        if (c->id == AG_FIELD_CONTENT_TYPE) {
            if (c->kind != CHANGE_ADD) {
                *change = (struct ag_media_change){.replaced = true};
            }
            change->added |= c->is_literal ? ag_media_of(c->literal) : AG_MEDIA_ANY;
        }
    }
}

const struct ag_filter_ops ag_filter_headers = {
    .name = "headers",
    .configure = configure,
    .pre = pre,
    .on_head = on_head,
    .media = media,
};
