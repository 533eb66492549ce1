/*
 * YAML by libyaml: only its events; the tree, the checks and the positions are ours (libyaml counts
 * columns in characters, we count bytes).
 *
 *   1. find the key `routes` of the root mapping, by the events before it
 *   2. pre-scan its lines (config_prescan.c)
 *   3. build the tree from the events of the masked text; merge the lines in
 *
 * Refused: anchors and aliases, tags, keys that are not text, a second document.
 */
#include "router/config_impl.h"

#include <yaml.h>

/* Finds offset, line and column (bytes) of libyaml's positions (characters). Going forward is cheap,
 * and events come in order. */
struct place {
    struct ag_span text; /* what libyaml is given */
    size_t index;        /* characters before `at` */
    size_t at, line_at;  /* offsets */
    uint32_t line;
};

struct frame {
    struct ag_node *node;
    struct ag_span key; /* in a map: of the value to come */
    struct ag_pos key_pos;
    bool has_key;
};

struct build {
    const struct ag_source *src;
    struct ag_diags *diags;
    struct ag_prescan pre;
    struct ag_raw_key *raw; /* the next one to come */
    struct place place;
    struct ag_node *root;
    struct frame stack[AG_CONFIG_DEPTH_MAX];
    size_t depth;
    bool has_routes; /* the pre-scan has taken the root's routes */
    bool stopped;    /* after an error that leaves the rest without meaning */
};

static void place_go(struct place *p, size_t index)
{
    if (index < p->index) {
        *p = (struct place){.text = p->text, .line = 1};
    }
    while (p->index < index && p->at < p->text.len) {
        if (p->text.ptr[p->at++] == '\n') {
            p->line++;
            p->line_at = p->at;
        }
        while (p->at < p->text.len && (p->text.ptr[p->at] & 0xc0) == 0x80) {
            p->at++;
        }
        p->index++;
    }
}

static struct ag_pos pos_of(struct build *b, const yaml_mark_t *mark)
{
    place_go(&b->place, mark->index);
    return (struct ag_pos){b->src, b->place.line, (uint32_t)(b->place.at - b->place.line_at + 1)};
}

static void stop(struct build *b, struct ag_pos pos, const char *hint, const char *what)
{
    ag_diag_error(b->diags, pos, hint, "%s", what);
    b->stopped = true;
}

/* ---- libyaml's complaints ---- */

static const struct {
    const char *problem, *hint;
} hints[] = {
    {"mapping values are not allowed", "quote a value that contains \": \", and check the indent"},
    {"could not find expected ':'", "is the space after the colon missing?"},
    {"did not find expected key", "check the indent: entries of one mapping stand in one column"},
    {"did not find expected '-' indicator",
     "check the indent: entries of one list stand in one column"},
    {"did not find expected alphabetic", "quote a value that begins with * or &"},
    {"did not find expected ',' or", "is a comma or a closing bracket missing?"},
    {"found unexpected end of stream", "is a closing quote missing?"},
    {"did not find expected node content", "a value is missing"},
    {"found unknown escape character", "in single quotes backslashes mean nothing special"},
    {"block sequence entries are not allowed", "a list begins on a line of its own"},
    {"found a tab character", "indent with spaces, not tabs"},
};

/* Whether the line before the one at `offset` is KEY:VALUE without the space: YAML takes it for the
 * beginning of a text that goes on in this line. */
static bool follows_glued_colon(struct ag_span text, size_t offset)
{
    size_t to = offset, from, colon;

    while (to > 0 && text.ptr[to - 1] != '\n') {
        to--;
    }
    from = to ? to - 1 : 0;
    while (from > 0 && text.ptr[from - 1] != '\n') {
        from--;
    }
    struct ag_span line = ag_span_sub(text, from, to);
    colon = ag_span_find(line, ':');
    return colon + 1 < line.len && !strchr(" \t\r\n", line.ptr[colon + 1]);
}

static const char *hint_of(struct build *b, const char *problem, size_t offset)
{
    if (strstr(problem, "cannot start any token") && offset < b->place.text.len) {
        return b->place.text.ptr[offset] == '\t' ? "indent with spaces, not tabs"
                                                 : "quote a value that begins with this character";
    }
    if (strstr(problem, "mapping values are not allowed") &&
        follows_glued_colon(b->place.text, offset)) {
        return "is the space after the colon missing on the line before?";
    }
    if (offset > 0 && offset < b->place.text.len && b->place.text.ptr[offset - 1] == '$') {
        return "between braces or brackets, quote a value with ${...}";
    }
    for (size_t i = 0; i < AG_COUNT(hints); i++) {
        if (strstr(problem, hints[i].problem)) {
            return hints[i].hint;
        }
    }
    return NULL;
}

static void report(struct build *b, const yaml_parser_t *y)
{
    const char *problem = y->problem ? y->problem : "not valid YAML";
    const char *context = y->context ? y->context : "";
    const yaml_mark_t *mark = &y->problem_mark;

    if (y->error == YAML_MEMORY_ERROR) {
        ag_panic(__FILE__, __LINE__, "out of memory");
    }
    /* The problem of a key without its colon is noticed lines later: the key is what is wrong. So it is
     * with the * of an alias that is none. */
    if ((strstr(problem, "could not find expected ':'") && strstr(context, "simple key")) ||
        strstr(context, "scanning an alias") || strstr(context, "scanning an anchor")) {
        mark = &y->context_mark;
    }
    struct ag_pos pos = pos_of(b, mark);
    ag_diag_error(b->diags, pos, hint_of(b, problem, b->place.at), "%s%s%s", problem,
                  *context ? " " : "", context);
    b->stopped = true;
}

/* ---- building ---- */

static struct frame *top(struct build *b)
{
    return b->depth ? &b->stack[b->depth - 1] : NULL;
}

/* Whether `f` is the mapping whose lines the pre-scan has taken. */
static bool is_routes(const struct build *b, const struct frame *f)
{
    return b->has_routes && f == &b->stack[1] && ag_span_eq(b->stack[0].key, AG_SPAN("routes")) &&
           b->stack[0].has_key;
}

static void attach(struct build *b, struct ag_node *n)
{
    struct frame *f = top(b);

    if (!f) {
        b->root = n;
        return;
    }
    if (f->node->kind == AG_NODE_SEQ) {
        ag_node_append(f->node, n);
        return;
    }
    n->key = f->key;
    n->key_pos = f->key_pos;
    /* The keys of routes share a set with the lines between them. */
    const void *map = is_routes(b, f) ? (const void *)&b->pre.lines : f->node;
    if (ag_config_key_is_new(&b->pre.seen, b->diags, map, n->key, n)) {
        ag_node_append(f->node, n);
    }
}

/* A value is complete: its map waits for the next key. */
static void value_done(struct build *b)
{
    struct frame *f = top(b);

    if (f) {
        f->has_key = false;
    }
}

static void refuse_extras(struct build *b, struct ag_pos pos, const yaml_char_t *anchor,
                          const yaml_char_t *tag)
{
    if (anchor) {
        ag_diag_error(b->diags, pos, "write the value out where it is needed",
                      "anchors and aliases are not supported");
    }
    if (tag) {
        ag_diag_error(b->diags, pos, "quote a value that begins with !", "tags are not supported");
    }
}

static void take_key(struct build *b, struct frame *f, struct ag_pos pos, struct ag_span text)
{
    f->key = text;
    f->key_pos = pos;
    f->has_key = true;
    while (b->raw && b->raw->offset < b->place.at) {
        b->raw = b->raw->next;
    }
    if (b->raw && b->raw->offset == b->place.at) {
        f->key = b->raw->key;
        f->key_pos = b->raw->pos;
        b->raw = b->raw->next;
    }
    /* Its lines were not pre-scanned: what libyaml would say of them only confuses. */
    if (b->has_routes && f == &b->stack[0] && ag_span_eq(text, AG_SPAN("routes")) &&
        ag_config_child(f->node, "routes")) {
        ag_config_key_is_new(&b->pre.seen, b->diags, f->node, text,
                             &(struct ag_node){.key_pos = pos});
        b->stopped = true;
    }
}

static bool is_null(struct ag_span text)
{
    return text.len == 0 || ag_span_eq(text, AG_SPAN("~")) || ag_span_eq(text, AG_SPAN("null")) ||
           ag_span_eq(text, AG_SPAN("Null")) || ag_span_eq(text, AG_SPAN("NULL"));
}

static void on_scalar(struct build *b, const yaml_event_t *e)
{
    struct ag_pos pos = pos_of(b, &e->start_mark);
    struct ag_span text =
        ag_arena_copy(b->diags->arena, ag_span(e->data.scalar.value, e->data.scalar.length));
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    struct frame *f = top(b);

    refuse_extras(b, pos, e->data.scalar.anchor, e->data.scalar.tag);
    if (f && f->node->kind == AG_NODE_MAP && !f->has_key) {
        take_key(b, f, pos, text);
        return;
    }
    struct ag_node *n = ag_node_new(b->diags->arena, AG_NODE_SCALAR, pos);
    n->text = text;
    n->quoted = !plain;
    if (plain && is_null(text)) {
        n->kind = AG_NODE_NULL;
        n->text = AG_SPAN("");
    }
    /* A route's action in a block scalar: the line end is YAML's, not the body's. */
    if (e->data.scalar.style == YAML_LITERAL_SCALAR_STYLE && f && is_routes(b, f) && n->text.len &&
        n->text.ptr[n->text.len - 1] == '\n') {
        n->text.len--;
    }
    attach(b, n);
    value_done(b);
}

static void on_open(struct build *b, const yaml_event_t *e, enum ag_node_kind kind)
{
    struct ag_pos pos = pos_of(b, &e->start_mark);
    struct frame *f = top(b);

    if (kind == AG_NODE_MAP) {
        refuse_extras(b, pos, e->data.mapping_start.anchor, e->data.mapping_start.tag);
    } else {
        refuse_extras(b, pos, e->data.sequence_start.anchor, e->data.sequence_start.tag);
    }
    if (f && f->node->kind == AG_NODE_MAP && !f->has_key) {
        stop(b, pos, NULL, "a key must be plain text");
        return;
    }
    if (b->depth == AG_CONFIG_DEPTH_MAX) {
        stop(b, pos, NULL, "nested too deeply");
        return;
    }
    struct ag_node *n = ag_node_new(b->diags->arena, kind, pos);
    attach(b, n);
    b->stack[b->depth++] = (struct frame){.node = n};
}

static void on_alias(struct build *b, const yaml_event_t *e)
{
    struct ag_pos pos = pos_of(b, &e->start_mark);
    struct frame *f = top(b);

    ag_diag_error(b->diags, pos, "quote a value that begins with *",
                  "anchors and aliases are not supported");
    if (f && f->node->kind == AG_NODE_MAP && !f->has_key) {
        take_key(b, f, pos, AG_SPAN("*"));
        return;
    }
    attach(b, ag_node_new(b->diags->arena, AG_NODE_NULL, pos));
    value_done(b);
}

static void on_event(struct build *b, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        on_scalar(b, e);
        break;
    case YAML_ALIAS_EVENT:
        on_alias(b, e);
        break;
    case YAML_MAPPING_START_EVENT:
        on_open(b, e, AG_NODE_MAP);
        break;
    case YAML_SEQUENCE_START_EVENT:
        on_open(b, e, AG_NODE_SEQ);
        break;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        AG_ASSERT(b->depth > 0);
        b->depth--;
        value_done(b);
        break;
    case YAML_DOCUMENT_START_EVENT:
        if (b->root) {
            stop(b, pos_of(b, &e->start_mark), "put it into a file of its own and include it",
                 "a second document in one file");
        }
        break;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
}

/* Reads events until the end, an error, or `on` returns false. False after a syntax error, which is
 * reported unless `quiet`. */
static bool each_event(struct build *b, struct ag_span text, bool quiet,
                       bool (*on)(struct build *, const yaml_event_t *))
{
    yaml_parser_t y;
    bool ok = true, more = true;

    if (!yaml_parser_initialize(&y)) {
        ag_panic(__FILE__, __LINE__, "out of memory");
    }
    b->place = (struct place){.text = text, .line = 1};
    yaml_parser_set_encoding(&y, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&y, text.len ? text.ptr : (const uint8_t *)"", text.len);
    while (ok && more) {
        yaml_event_t e;

        if (yaml_parser_parse(&y, &e)) {
            more = on(b, &e) && e.type != YAML_STREAM_END_EVENT;
            yaml_event_delete(&e);
        } else {
            ok = false;
            if (!quiet) {
                report(b, &y);
            }
        }
    }
    yaml_parser_delete(&y);
    return ok;
}

/* ---- the key `routes` ---- */

/* Looks on while the events go by; depth counts open maps and lists. */
static bool look_for_routes(struct build *b, const yaml_event_t *e)
{
    bool is_open = e->type == YAML_MAPPING_START_EVENT || e->type == YAML_SEQUENCE_START_EVENT;
    bool is_close = e->type == YAML_MAPPING_END_EVENT || e->type == YAML_SEQUENCE_END_EVENT;
    bool is_leaf = e->type == YAML_SCALAR_EVENT || e->type == YAML_ALIAS_EVENT;
    struct frame *root = &b->stack[0];

    if (is_open && b->depth == 0 &&
        (e->type != YAML_MAPPING_START_EVENT ||
         e->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE)) {
        return false; /* brackets: all of it is YAML's alone */
    }
    if (is_leaf && b->depth == 1 && !root->has_key && e->type == YAML_SCALAR_EVENT &&
        ag_span_eq(ag_span(e->data.scalar.value, e->data.scalar.length), AG_SPAN("routes"))) {
        struct ag_pos pos = pos_of(b, &e->start_mark);
        size_t key_at = b->place.at;
        place_go(&b->place, e->end_mark.index);
        ag_config_prescan(&b->pre, key_at, b->place.at, pos.line);
        b->has_routes = true;
        return false;
    }
    if (is_close) {
        b->depth--;
    }
    if ((is_leaf || is_close) && b->depth == 1) {
        root->has_key = !root->has_key;
    }
    if (is_open) {
        b->depth++;
    }
    return true;
}

static bool build_event(struct build *b, const yaml_event_t *e)
{
    on_event(b, e);
    return !b->stopped;
}

/* A text where a mapping should be: nginx's blocks and HAProxy's sections are one to YAML. */
static const char *hint_of_root(const struct ag_node *root)
{
    static const char *const begins[] = {"server ", "http ",     "events ",  "upstream ",
                                         "worker_", "frontend ", "backend ", "listen ",
                                         "global ", "defaults ", "user ",    "location "};

    if (root->kind != AG_NODE_SCALAR) {
        return NULL;
    }
    for (size_t i = 0; i < AG_COUNT(begins); i++) {
        if (ag_span_starts(root->text, ag_span_str(begins[i]))) {
            return "is it nginx's or HAProxy's? docs/MIGRATION.md has what stands for what";
        }
    }
    return "is the space after the colon missing?";
}

static struct ag_node *finish(struct build *b)
{
    struct ag_pos start = {b->src, 1, 1};

    if (!b->root || b->root->kind == AG_NODE_NULL) { /* an empty file, or comments alone */
        return ag_node_new(b->diags->arena, AG_NODE_MAP, start);
    }
    if (b->root->kind != AG_NODE_MAP) {
        ag_diag_error(b->diags, b->root->pos, hint_of_root(b->root),
                      "a config is a mapping of sections: server, proxy, routes, ...");
        return NULL;
    }
    struct ag_node *routes = ag_config_child(b->root, "routes");
    if (routes && b->has_routes) {
        ag_config_prescan_merge(&b->pre, routes);
    }
    ag_config_routes_normalise(b->root, b->diags);
    return b->root;
}

struct ag_node *ag_config_parse_yaml(const struct ag_source *src, struct ag_diags *diags)
{
    struct ag_node *root = NULL;

    if (!ag_config_check_text(src, diags)) {
        return NULL;
    }
    struct build *b = ag_arena_zalloc(diags->arena, sizeof(*b));
    b->src = src;
    b->diags = diags;
    b->pre.src = src;
    b->pre.diags = diags;
    b->pre.mask = malloc(src->text.len + 1); /* as large as the file: not for the arena to keep */
    if (!b->pre.mask) {
        ag_panic(__FILE__, __LINE__, "out of memory");
    }
    if (src->text.len) {
        memcpy(b->pre.mask, src->text.ptr, src->text.len);
    }
    /* A syntax error before `routes` comes again below, and is reported there. */
    (void)each_event(b, src->text, true, look_for_routes);
    b->raw = b->pre.keys;
    b->depth = 0;
    b->stack[0] = (struct frame){0};
    if (each_event(b, ag_span(b->pre.mask, src->text.len), false, build_event) && !b->stopped) {
        root = finish(b);
    }
    ag_keyset_deinit(&b->pre.seen);
    free(b->pre.mask);
    return root;
}
