#include "engine/node.h"

#include "engine/foreign.h"

struct ag_node *ag_node_new(struct ag_arena *a, enum ag_node_kind kind, struct ag_pos pos)
{
    struct ag_node *n = ag_arena_zalloc(a, sizeof(*n));

    n->kind = kind;
    n->pos = pos;
    return n;
}

void ag_node_append(struct ag_node *parent, struct ag_node *child)
{
    AG_ASSERT(!child->next);
    if (parent->last) {
        parent->last->next = child;
    } else {
        parent->first = child;
    }
    parent->last = child;
}

const struct ag_node *ag_node_get(const struct ag_node *n, const char *key)
{
    struct ag_span want = ag_span_str(key);

    if (!n || n->kind != AG_NODE_MAP) {
        return NULL;
    }
    for (const struct ag_node *c = n->first; c; c = c->next) {
        if (!c->dsl && ag_span_eq(c->key, want)) {
            return c;
        }
    }
    return NULL;
}

static const char *kind_name(enum ag_node_kind kind)
{
    switch (kind) {
    case AG_NODE_NULL:
        return "nothing";
    case AG_NODE_SCALAR:
        return "a single value";
    case AG_NODE_MAP:
        return "a mapping";
    case AG_NODE_SEQ:
        return "a list";
    }
    AG_UNREACHABLE("node kind");
}

/* Nothing to read, and nothing to say of it: the key is not there, or what is wrong with it was told. */
static bool is_silent(const struct ag_node *n)
{
    return !n || n->told;
}

/* "known: a, b, c" */
static const char *known_names(struct ag_diags *d, const char *const *names, size_t count)
{
    uint8_t room[256];
    struct ag_buf b = ag_buf(room, sizeof(room));

    ag_buf_put(&b, AG_SPAN("known: "));
    for (size_t i = 0; i < count; i++) {
        ag_buf_printf(&b, "%s%s", i ? ", " : "", names[i]);
    }
    /* A list that does not fit helps nobody. */
    return b.overflow ? NULL : ag_arena_strdup(d->arena, ag_buf_span(&b));
}

static const char *hint_for(struct ag_diags *d, struct ag_span word, const char *const *names,
                            size_t count)
{
    const char *hint = ag_foreign_hint(word);

    hint = hint ? hint : ag_diag_nearest(d, word, names, count);
    return hint ? hint : known_names(d, names, count);
}

static bool is_among(struct ag_span key, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ag_span_eq(key, ag_span_str(keys[i]))) {
            return true;
        }
    }
    return false;
}

bool ag_node_check_keys(const struct ag_node *n, struct ag_diags *d, const char *what,
                        const char *const *keys, size_t count)
{
    if (is_silent(n)) {
        return false;
    }
    if (n->kind != AG_NODE_MAP && n->kind != AG_NODE_NULL) {
        ag_diag_error(d, n->pos, known_names(d, keys, count), "%s must be a mapping, not %s", what,
                      kind_name(n->kind));
        return false;
    }
    for (const struct ag_node *c = n->first; c; c = c->next) {
        if (!is_among(c->key, keys, count)) {
            ag_diag_error(d, c->key_pos, hint_for(d, c->key, keys, count),
                          "unknown key \"%.*s\" in %s", (int)c->key.len, (const char *)c->key.ptr,
                          what);
        }
    }
    return true;
}

/* Complains that `n` is not `wanted` ("a number"), naming its key where it has one. */
static bool refuse(const struct ag_node *n, struct ag_diags *d, const char *hint,
                   const char *wanted)
{
    const char *colon = n->key.len ? ": " : "";

    if (n->kind == AG_NODE_SCALAR) {
        ag_diag_error(d, n->pos, hint, "%.*s%sexpected %s, found \"%.*s\"", (int)n->key.len,
                      (const char *)n->key.ptr, colon, wanted, (int)n->text.len,
                      (const char *)n->text.ptr);
    } else {
        ag_diag_error(d, n->pos, hint, "%.*s%sexpected %s, found %s", (int)n->key.len,
                      (const char *)n->key.ptr, colon, wanted, kind_name(n->kind));
    }
    return false;
}

bool ag_node_bool(const struct ag_node *n, struct ag_diags *d, bool *out)
{
    /* YAML 1.1 took these for booleans, YAML 1.2 does not: say so instead of guessing. */
    static const char *const yes[] = {"yes", "on", "y", "1"}, *const no[] = {"no", "off", "n", "0"};
    const char *hint = NULL;

    if (is_silent(n)) {
        return false;
    }
    if (n->kind != AG_NODE_SCALAR) {
        return refuse(n, d, NULL, "true or false");
    }
    bool is_true = ag_span_eq(n->text, AG_SPAN("true"));
    if (!n->quoted && (is_true || ag_span_eq(n->text, AG_SPAN("false")))) {
        *out = is_true;
        return true;
    }
    if (n->quoted) {
        hint = "write it without quotes";
    } else if (is_among(n->text, yes, AG_COUNT(yes))) {
        hint = "did you mean true?";
    } else if (is_among(n->text, no, AG_COUNT(no))) {
        hint = "did you mean false?";
    }
    return refuse(n, d, hint, "true or false");
}

bool ag_node_u64(const struct ag_node *n, struct ag_diags *d, uint64_t min, uint64_t max,
                 uint64_t *out)
{
    uint64_t value = 0;

    if (is_silent(n)) {
        return false;
    }
    if (n->kind != AG_NODE_SCALAR || ag_span_u64(n->text, &value) != AG_OK) {
        return refuse(n, d, NULL, "a whole number");
    }
    if (n->quoted) {
        return refuse(n, d, "write it without quotes", "a whole number");
    }
    if (value < min || value > max) {
        return refuse(n, d, NULL,
                      ag_arena_printf(d->arena, "a number from %llu to %llu",
                                      (unsigned long long)min, (unsigned long long)max));
    }
    *out = value;
    return true;
}

bool ag_node_number(const struct ag_node *map, const char *key, uint32_t min, uint32_t max,
                    struct ag_diags *d, uint32_t *io)
{
    const struct ag_node *n = ag_node_get(map, key);
    uint64_t value = *io;

    if (n && !ag_node_u64(n, d, min, max, &value)) {
        return false;
    }
    *io = (uint32_t)value;
    return true;
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* Digits and one of `units`. False when it is not of that form; UINT64_MAX for what is larger. */
static bool read_unit(struct ag_span text, const struct unit *units, size_t count,
                      uint64_t *out_value)
{
    uint64_t value = 0;
    size_t digits = 0;

    while (digits < text.len && text.ptr[digits] >= '0' && text.ptr[digits] <= '9') {
        digits++;
    }
    if (digits == 0) {
        return false;
    }
    if (ag_span_u64(ag_span_sub(text, 0, digits), &value) != AG_OK) {
        value = UINT64_MAX;
    }
    for (size_t i = 0; i < count; i++) {
        if (ag_span_ieq(ag_span_sub(text, digits, text.len), ag_span_str(units[i].name))) {
            if (__builtin_mul_overflow(value, units[i].factor, out_value)) {
                *out_value = UINT64_MAX;
            }
            return true;
        }
    }
    return false;
}

static bool all_digits(struct ag_span s)
{
    uint64_t ignored;

    return ag_span_u64(s, &ignored) == AG_OK;
}

bool ag_node_duration(const struct ag_node *n, struct ag_diags *d, uint64_t *out_ms)
{
    static const struct unit units[] = {
        {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    const char *hint = "a number with ms, s, m, h or d, such as 250ms or 10s";

    if (is_silent(n)) {
        return false;
    }
    if (n->kind == AG_NODE_SCALAR) {
        uint64_t value = 0;
        if (read_unit(n->text, units, AG_COUNT(units), &value)) {
            if (value == UINT64_MAX) {
                return refuse(n, d, NULL, "a duration up to 213503982334d");
            }
            *out_ms = value;
            return true;
        }
        if (ag_span_eq(n->text, AG_SPAN("0"))) {
            *out_ms = 0;
            return true;
        }
        if (all_digits(n->text)) {
            /* HAProxy's are milliseconds, nginx's seconds. */
            int len = (int)ag_min_size(n->text.len, 20);
            const char *text = (const char *)n->text.ptr;

            hint = len < 4 ? ag_arena_printf(d->arena, "a unit is missing: did you mean %.*ss?",
                                             len, text)
                           : ag_arena_printf(d->arena, "a unit is missing: %.*sms or %.*ss?", len,
                                             text, len, text);
        }
    }
    return refuse(n, d, hint, "a duration");
}

bool ag_node_ms(const struct ag_node *map, const char *key, struct ag_node_ms_bounds bounds,
                struct ag_diags *d, uint32_t *io_ms)
{
    const struct ag_node *n = ag_node_get(map, key);
    uint64_t ms = *io_ms;

    if (!n) {
        return true;
    }
    if (!ag_node_duration(n, d, &ms)) {
        return false;
    }
    if (ms < bounds.min || ms > bounds.max) {
        ag_diag_error(d, n->pos, bounds.hint, "%s is out of range", key);
        return false;
    }
    *io_ms = (uint32_t)ms;
    return true;
}

bool ag_node_size(const struct ag_node *n, struct ag_diags *d, uint64_t *out_bytes)
{
    static const struct unit units[] = {
        {"", 1}, {"k", UINT64_C(1) << 10}, {"m", UINT64_C(1) << 20}, {"g", UINT64_C(1) << 30}};
    uint64_t value = 0;

    if (is_silent(n)) {
        return false;
    }
    if (n->kind == AG_NODE_SCALAR && read_unit(n->text, units, AG_COUNT(units), &value)) {
        if (value > INT64_MAX) {
            return refuse(n, d, NULL, "a size up to 8589934591g");
        }
        *out_bytes = value;
        return true;
    }
    return refuse(n, d, "bytes, or a number with k, m or g, such as 64k or 10m", "a size");
}

bool ag_node_rate(const struct ag_node *n, struct ag_diags *d, uint64_t *out_count,
                  uint64_t *out_period_ms)
{
    static const struct unit periods[] = {{"/s", 1000}, {"/m", 60000}, {"/h", 3600000}};
    uint64_t count = 0;

    if (is_silent(n)) {
        return false;
    }
    for (size_t i = 0; n->kind == AG_NODE_SCALAR && i < AG_COUNT(periods); i++) {
        if (read_unit(n->text, &(struct unit){periods[i].name, 1}, 1, &count) && count > 0 &&
            count < UINT64_MAX) {
            *out_count = count;
            *out_period_ms = periods[i].factor;
            return true;
        }
    }
    return refuse(n, d, "a number per s, m or h, such as 100/s", "a rate");
}

bool ag_node_text(const struct ag_node *n, struct ag_diags *d, struct ag_span *out)
{
    if (is_silent(n)) {
        return false;
    }
    if (n->kind != AG_NODE_SCALAR) {
        return refuse(n, d, NULL, "text");
    }
    *out = n->text;
    return true;
}

bool ag_node_enum(const struct ag_node *n, struct ag_diags *d, const char *const *names,
                  size_t count, unsigned *out_index)
{
    if (is_silent(n)) {
        return false;
    }
    if (n->kind != AG_NODE_SCALAR) {
        return refuse(n, d, known_names(d, names, count), "one word");
    }
    for (unsigned i = 0; i < count; i++) {
        if (ag_span_eq(n->text, ag_span_str(names[i]))) {
            *out_index = i;
            return true;
        }
    }
    return refuse(n, d, hint_for(d, n->text, names, count), "one of the known words");
}

const char *ag_node_path(struct ag_arena *arena, const struct ag_node *n, struct ag_span text)
{
    const char *file = n->pos.source ? n->pos.source->name : "";
    const char *slash = file[0] == '<' ? NULL : strrchr(file, '/');
    int dir_len = slash ? (int)(slash - file) + 1 : 0;

    return ag_arena_printf(arena, "%.*s%.*s", text.len > 0 && text.ptr[0] == '/' ? 0 : dir_len,
                           file, (int)text.len, (const char *)text.ptr);
}
