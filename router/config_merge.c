#include "router/config_impl.h"

#define ENV_PREFIX "ANYGATE_"

/* Two maps to be merged, later. */
struct pair {
    struct pair *next;
    struct ag_node *dst, *src;
};

/* The value of `from` in the place of `to`, which keeps its key and neighbours. */
static void replace_value(struct ag_node *to, const struct ag_node *from)
{
    struct ag_node old = *to;

    *to = *from;
    to->next = old.next;
    to->key = old.key;
}

static void append_children(struct ag_node *dst, struct ag_node *src)
{
    if (!src->first) {
        return;
    }
    if (dst->last) {
        dst->last->next = src->first;
    } else {
        dst->first = src->first;
    }
    dst->last = src->last;
    src->first = src->last = NULL;
}

static void refuse_second(struct ag_diags *diags, const struct ag_node *first,
                          const struct ag_node *second)
{
    const char *hint = NULL;

    if (diags->errors < AG_DIAGS_MAX && first->key_pos.source) {
        hint = ag_arena_printf(diags->arena, "first set at %s:%u:%u", first->key_pos.source->name,
                               first->key_pos.line, first->key_pos.col);
    }
    ag_diag_error(diags, second->key_pos, hint, "\"%.*s\" is set in two files",
                  AG_CONFIG_SHOW(second->key));
}

/* Both have the key. Returns true when they are maps to go on with. */
static bool merge_value(struct ag_node *dst, struct ag_node *src, struct ag_diags *diags,
                        bool at_root)
{
    bool is_routes = at_root && ag_span_eq(dst->key, AG_SPAN("routes"));
    bool is_version = at_root && ag_span_eq(dst->key, AG_SPAN("version"));

    if (src->kind == AG_NODE_NULL || (is_version && ag_span_eq(dst->text, src->text))) {
        return false;
    }
    if (dst->kind == AG_NODE_NULL) {
        replace_value(dst, src);
        return false;
    }
    bool lists = src->kind == AG_NODE_SEQ && dst->kind == AG_NODE_SEQ;
    if (lists || (is_routes && src->kind != AG_NODE_SCALAR && dst->kind != AG_NODE_SCALAR)) {
        append_children(dst, src);
        return false;
    }
    if (src->kind == AG_NODE_MAP && dst->kind == AG_NODE_MAP) {
        return true;
    }
    refuse_second(diags, dst, src);
    return false;
}

void ag_config_merge(struct ag_node *dst, struct ag_node *src, struct ag_diags *diags)
{
    struct ag_node *root = dst;
    struct pair *todo = ag_arena_zalloc(diags->arena, sizeof(*todo));

    *todo = (struct pair){NULL, dst, src};
    while (todo) {
        struct ag_keyset seen = {0};
        struct ag_node *n = todo->src->first;

        dst = todo->dst;
        src = todo->src;
        todo = todo->next;
        src->first = src->last = NULL;
        for (struct ag_node *c = dst->first; c; c = c->next) {
            (void)ag_keyset_add(&seen, dst, c->key, c);
        }
        while (n) {
            struct ag_node *next = n->next;
            struct ag_node *there = ag_keyset_add(&seen, dst, n->key, n);

            n->next = NULL;
            if (!there) {
                ag_node_append(dst, n);
            } else if (merge_value(there, n, diags, dst == root)) {
                struct pair *p = ag_arena_zalloc(diags->arena, sizeof(*p));
                *p = (struct pair){todo, there, n};
                todo = p;
            }
            n = next;
        }
        ag_keyset_deinit(&seen);
    }
}

struct ag_node *ag_config_map_in(struct ag_node *parent, const char *key, struct ag_pos pos,
                                 struct ag_arena *arena)
{
    struct ag_node *n = ag_config_child(parent, key);

    if (!n) {
        n = ag_node_new(arena, AG_NODE_MAP, pos);
        n->key = ag_span_str(key);
        n->key_pos = pos;
        ag_node_append(parent, n);
    } else if (n->kind == AG_NODE_NULL) {
        n->kind = AG_NODE_MAP;
    }
    return n->kind == AG_NODE_MAP ? n : NULL;
}

/* ---- the environment ---- */

struct setting {
    const struct ag_source *src; /* name "<env NAME>", text NAME=value */
    struct ag_diags *diags;
    struct ag_span path;  /* behind the prefix: A__B */
    struct ag_span value; /* in src->text */
};

static struct ag_pos pos_at(const struct setting *s, const uint8_t *ptr)
{
    return (struct ag_pos){s->src, 1, (uint32_t)(ptr - s->src->text.ptr + 1)};
}

static bool is_null(struct ag_span text)
{
    text = ag_span_trim(text);
    return text.len == 0 || ag_span_eq(text, AG_SPAN("null")) || ag_span_eq(text, AG_SPAN("~"));
}

/* 'text', "text" or text, without blanks around. */
static struct ag_node *scalar(const struct setting *s, struct ag_span text)
{
    struct ag_arena *arena = s->diags->arena;
    size_t bad = 0;

    text = ag_span_trim(text);
    struct ag_node *n = ag_node_new(arena, AG_NODE_SCALAR, pos_at(s, text.ptr));
    n->text = text;
    uint8_t quote = text.len >= 2 ? text.ptr[0] : 0;
    if ((quote == '"' || quote == '\'') && text.ptr[text.len - 1] == quote) {
        n->quoted = true;
        n->text = ag_span_sub(text, 1, text.len - 1);
        if (quote == '"' && !ag_config_unescape(arena, n->text, &n->text, &bad)) {
            ag_diag_error(s->diags, ag_pos_at(n->pos, 1 + bad),
                          "JSON escapes: \\\" \\\\ \\n \\uXXXX", "not a valid escape");
        }
    } else if (is_null(text)) {
        n->kind = AG_NODE_NULL;
        n->text = AG_SPAN("");
    }
    return n;
}

/* One value, or a list where commas stand outside quotes. */
static struct ag_node *value_node(const struct setting *s, bool as_list)
{
    struct ag_node *list = ag_node_new(s->diags->arena, AG_NODE_SEQ, pos_at(s, s->value.ptr));
    uint8_t quote = 0;
    size_t from = 0;

    for (size_t i = 0; i < s->value.len; i++) {
        uint8_t ch = s->value.ptr[i];

        if (quote) {
            quote = ch == quote ? 0 : quote;
        } else if (ch == '"' || ch == '\'') {
            quote = ch;
        } else if (ch == ',') {
            ag_node_append(list, scalar(s, ag_span_sub(s->value, from, i)));
            from = i + 1;
            as_list = true;
        }
    }
    struct ag_node *rest = scalar(s, ag_span_sub(s->value, from, s->value.len));
    if (!as_list || (from == 0 && rest->kind == AG_NODE_NULL)) {
        return rest;
    }
    ag_node_append(list, rest);
    return list;
}

static void remove_child(struct ag_node *parent, const struct ag_node *child)
{
    struct ag_node *before = NULL, *n = parent->first;

    for (; n != child; n = n->next) {
        before = n;
    }
    *(before ? &before->next : &parent->first) = n->next;
    parent->last = n->next ? parent->last : before;
}

/* It is never left open by accident: there null stays, and is told. */
static bool is_where_to_listen(const struct setting *s)
{
    return ag_span_ieq(s->path, AG_SPAN("server__listen"));
}

/* Sets the key of `parent`; null takes it away, so that the default holds. */
static void set_key(const struct setting *s, struct ag_node *parent, const char *key,
                    struct ag_pos pos)
{
    struct ag_node *old = ag_config_child(parent, key);
    struct ag_node *n = value_node(s, old && old->kind == AG_NODE_SEQ);

    n->key = ag_span_str(key);
    n->key_pos = pos;
    if (n->kind == AG_NODE_NULL && !is_where_to_listen(s)) {
        if (old) {
            remove_child(parent, old);
        }
    } else if (old) {
        replace_value(old, n);
    } else {
        ag_node_append(parent, n);
    }
}

/* Length of the first component of a path, up to "__". */
static size_t component(struct ag_span path)
{
    for (size_t i = 0; i + 1 < path.len; i++) {
        if (path.ptr[i] == '_' && path.ptr[i + 1] == '_') {
            return i;
        }
    }
    return path.len;
}

static const char *lower_key(struct ag_arena *arena, struct ag_span s)
{
    char *key = ag_arena_strdup(arena, s);

    for (char *c = key; *c; c++) {
        *c = (char)ag_ascii_lower((uint8_t)*c);
    }
    return key;
}

static void apply(const struct setting *s, struct ag_node *root)
{
    bool takes_away = is_null(s->value) && !is_where_to_listen(s);
    struct ag_node *parent = root;
    struct ag_span path = s->path;

    for (size_t depth = 1;; depth++) {
        size_t len = component(path);
        struct ag_pos pos = pos_at(s, path.ptr);
        const char *key = lower_key(s->diags->arena, ag_span_sub(path, 0, len));

        if (len == 0 || depth == AG_CONFIG_DEPTH_MAX) {
            ag_diag_error(s->diags, pos, "ANYGATE_SERVER__WORKERS sets server.workers",
                          "not the path of a setting");
            return;
        }
        if (depth == 1 && strcmp(key, "routes") == 0) {
            ag_diag_error(s->diags, pos, "use ${NAME} inside a route",
                          "routes cannot be set by the environment");
            return;
        }
        if (len == path.len) {
            set_key(s, parent, key, pos);
            return;
        }
        if (takes_away && !ag_config_child(parent, key)) {
            return; /* there is nothing to take away: no section comes about by it */
        }
        parent = ag_config_map_in(parent, key, pos, s->diags->arena);
        if (!parent) {
            ag_diag_error(s->diags, pos, NULL, "\"%s\" has no settings below it", key);
            return;
        }
        path = ag_span_sub(path, len + 2, path.len);
    }
}

void ag_config_set_env(struct ag_node *root, const struct ag_config_env *env,
                       struct ag_diags *diags)
{
    for (size_t i = 0; i < env->count; i++) {
        struct ag_span text = ag_span_str(env->v[i]);
        struct ag_span name = ag_span_sub(text, 0, ag_span_find(text, '='));
        struct setting s = {.diags = diags};

        if (!ag_span_starts(name, AG_SPAN(ENV_PREFIX)) || name.len == text.len) {
            continue;
        }
        s.path = ag_span_sub(name, sizeof(ENV_PREFIX) - 1, name.len);
        if (component(s.path) == s.path.len) {
            continue; /* an orchestrator's: ANYGATE_SERVICE_HOST and the like */
        }
        s.value = ag_span_sub(text, name.len + 1, text.len);
        s.src = ag_config_source(
            diags->arena,
            ag_arena_printf(diags->arena, "<env %.*s>", (int)name.len, (const char *)name.ptr),
            text);
        if (ag_span_trim(s.value).len == 0) {
            /* Most often another variable, which was to fill it, is not set. */
            ag_diag_error(diags, pos_at(&s, s.value.ptr), "give it a value, or unset it",
                          "%.*s is empty", AG_CONFIG_SHOW(name));
            continue;
        }
        apply(&s, root);
    }
}
