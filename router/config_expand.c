#include "router/config_impl.h"

/* Bytes of one value after expansion. */
#define EXPANDED_MAX (1u << 20)

static struct ag_span name_of(const char *entry)
{
    return ag_span(entry, strcspn(entry, "="));
}

static int compare(struct ag_span a, struct ag_span b)
{
    size_t common = ag_min_size(a.len, b.len);
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_name(const void *a, const void *b)
{
    return compare(name_of(*(const char *const *)a), name_of(*(const char *const *)b));
}

void ag_config_env_init(struct ag_config_env *e, struct ag_arena *arena, const char *const *environ)
{
    size_t count = 0;

    *e = (struct ag_config_env){0};
    while (environ && environ[count]) {
        count++;
    }
    if (count == 0) {
        return;
    }
    e->v = ag_arena_alloc(arena, count * sizeof(*e->v));
    memcpy(e->v, environ, count * sizeof(*e->v));
    e->count = count;
    qsort(e->v, count, sizeof(*e->v), by_name);
}

/* The value of `name`, or NULL. */
static const char *env_find(const struct ag_config_env *e, struct ag_span name)
{
    size_t low = 0, high = e->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = compare(name_of(e->v[mid]), name);

        if (order == 0) {
            return e->v[mid][name.len] == '=' ? e->v[mid] + name.len + 1 : NULL;
        }
        if (order < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

/* ---- ${...} ---- */

struct expand {
    const struct ag_config_env *env;
    struct ag_diags *diags;
    const struct ag_node *node;
    struct ag_span text;
    size_t at;         /* in text */
    size_t comment;    /* where a line's comment begins, or text.len */
    struct ag_buf out; /* on the heap */
    bool substituted;  /* a variable went in */
};

/* Where the comment of a route line begins. A quote is taken to open a string wherever it stands: then
 * a comment may be overlooked (and a variable in it be asked for), but nothing else taken for one. */
static size_t find_comment(struct ag_span line)
{
    bool in_string = false;

    for (size_t i = 0; i < line.len; i++) {
        uint8_t ch = line.ptr[i];

        if (in_string && ch == '\\') {
            i++;
        } else if (ch == '"') {
            in_string = !in_string;
        } else if (!in_string && ch == '#' &&
                   (i == 0 || line.ptr[i - 1] == ' ' || line.ptr[i - 1] == '\t')) {
            return i;
        }
    }
    return line.len;
}

/* The position of text[offset]. A value of several lines or with escapes is not in the file byte for
 * byte: then where it begins is near enough. */
static struct ag_pos pos_in(const struct expand *x, size_t offset)
{
    const struct ag_node *n = x->node;

    if (ag_span_find(n->text, '\n') < n->text.len) {
        return n->pos;
    }
    return ag_pos_at(n->pos, offset + (n->quoted && !n->dsl ? 1 : 0));
}

static void reserve(struct expand *x, size_t cap)
{
    uint8_t *ptr = realloc(x->out.ptr, cap);

    if (!ptr) {
        ag_panic(__FILE__, __LINE__, "out of memory");
    }
    x->out.ptr = ptr;
    x->out.cap = cap;
}

static void put(struct expand *x, struct ag_span s)
{
    if (s.len > x->out.cap - x->out.len) {
        reserve(x, (x->out.len + s.len) * 2);
    }
    ag_buf_put(&x->out, s);
}

static bool is_name_byte(uint8_t ch, bool first)
{
    uint8_t low = ch | 0x20;

    return (low >= 'a' && low <= 'z') || ch == '_' || (!first && ch >= '0' && ch <= '9');
}

static size_t name_length(struct ag_span s)
{
    size_t n = 0;

    while (n < s.len && is_name_byte(s.ptr[n], n == 0)) {
        n++;
    }
    return n;
}

/* "${" at x->at. False after a diagnosis. */
static bool variable(struct expand *x)
{
    struct ag_span rest = ag_span_sub(x->text, x->at + 2, x->text.len);
    struct ag_span name = ag_span_sub(rest, 0, name_length(rest));
    struct ag_span after = ag_span_sub(rest, name.len, rest.len);
    size_t close = ag_span_find(after, '}');
    struct ag_pos pos = pos_in(x, x->at);

    if (name.len == 0 || close == after.len ||
        (close > 0 && !ag_span_starts(after, AG_SPAN(":-")))) {
        ag_diag_error(x->diags, pos, "write ${NAME} or ${NAME:-default}; $${ stands for a plain ${",
                      "not a variable");
        return false;
    }
    struct ag_span preset = ag_span_sub(after, ag_min_size(2, close), close);
    if (ag_span_find(preset, '{') < preset.len) {
        ag_diag_error(x->diags, pos, "set the variable, or give a plain default",
                      "the default of ${%.*s} cannot hold braces", AG_CONFIG_SHOW(name));
        return false;
    }
    const char *value = env_find(x->env, name);
    if (!value && close == 0) {
        const char *hint = NULL;
        if (x->diags->errors < AG_DIAGS_MAX) {
            hint = ag_arena_printf(x->diags->arena, "set it, or write ${%.*s:-default}",
                                   AG_CONFIG_SHOW(name));
        }
        ag_diag_error(x->diags, pos, hint, "the environment has no %.*s", AG_CONFIG_SHOW(name));
        return false;
    }
    put(x, close > 0 && (!value || !*value) ? preset : ag_span_str(value));
    x->substituted = true;
    x->at += 2 + name.len + close + 1;
    return true;
}

/* Up to and including the next "${" or "$${". False when the value is to stay as it is. */
static bool step(struct expand *x)
{
    size_t dollar = x->at + ag_span_find(ag_span_sub(x->text, x->at, x->comment), '$');
    struct ag_span rest = ag_span_sub(x->text, dollar, x->comment);

    put(x, ag_span_sub(x->text, x->at, dollar));
    x->at = dollar;
    if (ag_span_starts(rest, AG_SPAN("$${"))) {
        put(x, AG_SPAN("${"));
        x->at += 3;
        return true;
    }
    if (ag_span_starts(rest, AG_SPAN("${"))) {
        return variable(x);
    }
    if (rest.len) {
        put(x, AG_SPAN("$"));
        x->at++;
    }
    return true;
}

static void expand_scalar(struct ag_node *n, const struct ag_config_env *env,
                          struct ag_diags *diags)
{
    struct expand x = {.env = env, .diags = diags, .node = n, .text = n->text};
    size_t dollar = ag_span_find(n->text, '$');
    bool ok = true;

    if (dollar == n->text.len) {
        return;
    }
    reserve(&x, n->text.len + 64);
    x.comment = n->dsl ? find_comment(n->text) : n->text.len;
    while (ok && x.at < x.comment) {
        ok = step(&x);
        if (ok && x.out.len > EXPANDED_MAX) {
            ag_diag_error(diags, n->pos, NULL, "longer than 1m after its variables are filled in");
            ok = false;
        }
    }
    if (ok) {
        put(&x, ag_span_sub(x.text, x.comment, x.text.len));
        n->text = ag_arena_copy(diags->arena, ag_buf_span(&x.out));
        /* What comes from outside has no quotes of its own: "${N}" may be a number. */
        n->quoted = n->quoted && !x.substituted;
        if (!n->quoted && !n->dsl && n->text.len == 0) {
            n->kind = AG_NODE_NULL;
        }
    } else { /* what is left of it would only be told again as a mistake */
        n->kind = AG_NODE_NULL;
        n->text = AG_SPAN("");
        n->told = true;
    }
    free(x.out.ptr);
}

void ag_config_expand(struct ag_node *root, const struct ag_config_env *env, struct ag_diags *diags)
{
    struct ag_node *stack[AG_CONFIG_DEPTH_MAX + 1] = {root};
    size_t depth = 1;

    /* The stack holds the next sibling to visit at each level. */
    while (depth > 0) {
        struct ag_node *n = stack[depth - 1];

        if (!n) {
            depth--;
            continue;
        }
        stack[depth - 1] = n->next;
        if (n->kind == AG_NODE_SCALAR) {
            expand_scalar(n, env, diags);
        } else if (n->first) {
            AG_ASSERT(depth < AG_COUNT(stack));
            stack[depth++] = n->first;
        }
    }
}
