#include "actions/upstream/balance_config.h"

#include <xxhash.h>

#define SECRET_MIN     16u
#define NAME_MAX_BYTES 256u

/* ---- balance ---- */

/* The only key of a map; NULL after a diagnosis. `what` is a sentence's beginning. */
static const struct ag_node *only_key(const struct ag_node *map, const char *what, const char *hint,
                                      struct ag_diags *diags)
{
    const struct ag_node *n = map->first;

    if (!n || n->next || n->kind == AG_NODE_NULL) {
        ag_diag_error(diags,
                      !n        ? map->pos
                      : n->next ? n->next->key_pos
                                : n->key_pos,
                      hint, "%s takes one key and its value", what);
        return NULL;
    }
    return n;
}

static bool refuse_name(const struct ag_node *n, const char *hint, struct ag_diags *diags)
{
    ag_diag_error(diags, n->pos, hint, "\"%.*s\" is not the name of a %.*s", (int)n->text.len,
                  (const char *)n->text.ptr, (int)n->key.len, (const char *)n->key.ptr);
    return false;
}

static bool is_query_name(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~' || strchr("&=#%+", s.ptr[i])) {
            return false;
        }
    }
    return s.len > 0;
}

/* {header: X-User} */
static bool read_hash_by_name(const struct ag_node *node, struct ag_diags *diags,
                              struct ag_balance_options *o)
{
    static const char *const keys[] = {"header", "cookie", "query"};
    static const enum ag_balance_by by[] = {AG_BALANCE_BY_HEADER, AG_BALANCE_BY_COOKIE,
                                            AG_BALANCE_BY_QUERY};
    uint32_t errors = diags->errors;
    const struct ag_node *n;
    struct ag_span name;
    size_t i = 0;

    if (!ag_node_check_keys(node, diags, "hash", keys, AG_COUNT(keys)) || diags->errors > errors) {
        return false;
    }
    n = only_key(node, "hash", "hash: {header: NAME}, {cookie: NAME} or {query: NAME}", diags);
    if (!n || !ag_node_text(n, diags, &name)) {
        return false;
    }
    while (i + 1 < AG_COUNT(keys) && !ag_span_eq(n->key, ag_span_str(keys[i]))) {
        i++;
    }
    o->by = by[i];
    o->by_name = name;
    if (o->by == AG_BALANCE_BY_QUERY) {
        return is_query_name(name) ||
               refuse_name(n, "as it stands in the query, before the =", diags);
    }
    o->by_field = o->by == AG_BALANCE_BY_HEADER ? ag_field_id_from_name(name) : AG_FIELD_OTHER;
    return (ag_is_token(name) && name.len <= NAME_MAX_BYTES) ||
           refuse_name(n, "letters, digits and -", diags);
}

static bool read_hash(const struct ag_node *n, struct ag_diags *diags, struct ag_balance_options *o)
{
    static const char *const names[] = {"ip", "uri", "path"};
    static const char *const maps[] = {"header", "cookie", "query"};
    unsigned index;

    if (n->kind == AG_NODE_MAP) {
        return read_hash_by_name(n, diags, o);
    }
    for (unsigned i = 0; n->kind == AG_NODE_SCALAR && i < AG_COUNT(maps); i++) {
        if (ag_span_eq(n->text, ag_span_str(maps[i]))) {
            ag_diag_error(diags, n->pos, ag_arena_printf(diags->arena, "hash: {%s: NAME}", maps[i]),
                          "hash: a %s has a name", maps[i]);
            return false;
        }
    }
    if (!ag_node_enum(n, diags, names, AG_COUNT(names), &index)) {
        return false;
    }
    o->by = index == 0 ? AG_BALANCE_BY_IP : index == 1 ? AG_BALANCE_BY_URI : AG_BALANCE_BY_PATH;
    return true;
}

static bool read_kind(const struct ag_node *n, struct ag_diags *diags, enum ag_balance_kind *out)
{
    static const char *const names[] = {"round_robin", "least_conn", "random_two"};
    static const enum ag_balance_kind kinds[] = {AG_BALANCE_ROUND_ROBIN, AG_BALANCE_LEAST_CONN,
                                                 AG_BALANCE_RANDOM_TWO};
    unsigned index;

    if (n->kind == AG_NODE_SCALAR && ag_span_eq(n->text, AG_SPAN("hash"))) {
        ag_diag_error(diags, n->pos,
                      "balance: {hash: ip}, uri, path, {header: NAME}, {cookie: NAME} "
                      "or {query: NAME}",
                      "hash by what?");
        return false;
    }
    if (n->kind == AG_NODE_SCALAR && ag_span_eq(n->text, AG_SPAN("sticky"))) {
        ag_diag_error(diags, n->pos, "sticky: NAME, beside balance", "sticky is a key of its own");
        return false;
    }
    if (!ag_node_enum(n, diags, names, AG_COUNT(names), &index)) {
        return false;
    }
    *out = kinds[index];
    return true;
}

static bool read_balance(const struct ag_node *node, struct ag_diags *diags,
                         struct ag_balance_options *o)
{
    static const char *const keys[] = {"random_two", "hash"};
    static const char *const costs[] = {"ewma"};
    uint32_t errors = diags->errors;
    const struct ag_node *n;
    unsigned index;

    if (node->kind != AG_NODE_MAP) {
        return read_kind(node, diags, &o->kind);
    }
    if (!ag_node_check_keys(node, diags, "balance", keys, AG_COUNT(keys)) ||
        diags->errors > errors) {
        return false;
    }
    n = only_key(node, "balance", "{random_two: ewma} or {hash: ip}", diags);
    if (!n) {
        return false;
    }
    if (ag_span_eq(n->key, AG_SPAN("hash"))) {
        o->kind = AG_BALANCE_HASH;
        return read_hash(n, diags, o);
    }
    o->kind = AG_BALANCE_RANDOM_TWO_EWMA;
    return ag_node_enum(n, diags, costs, AG_COUNT(costs), &index);
}

/* ---- sticky ---- */

static bool read_name(const struct ag_node *n, struct ag_diags *diags, struct ag_sticky_options *o)
{
    if (!ag_node_text(n, diags, &o->name)) {
        return false;
    }
    if (!ag_is_token(o->name) || o->name.len > AG_STICKY_NAME_MAX) {
        ag_diag_error(diags, n->pos, "letters, digits, - and _; 64 at most",
                      "\"%.*s\" is not the name of a cookie", (int)o->name.len,
                      (const char *)o->name.ptr);
        return false;
    }
    return true;
}

static bool read_secret(const struct ag_node *n, struct ag_diags *diags,
                        struct ag_sticky_options *o)
{
    struct ag_span secret;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &secret)) {
        return false;
    }
    if (secret.len < SECRET_MIN) {
        /* Not shown: it may be part of another one. */
        ag_diag_error(diags, n->pos, "openssl rand -base64 24 makes one",
                      "the secret has %zu bytes, and 16 at least are needed", secret.len);
        return false;
    }
    ag_siphash_derive(secret, AG_SPAN("sticky"), o->key);
    o->lasting = true;
    return true;
}

static bool read_max_age(const struct ag_node *n, struct ag_diags *diags,
                         struct ag_sticky_options *o)
{
    uint64_t ms = 0;

    if (!n) {
        return true;
    }
    if (!ag_node_duration(n, diags, &ms)) {
        return false;
    }
    if (ms % 1000 != 0 || ms / 1000 > 400 * UINT64_C(86400)) {
        ag_diag_error(diags, n->pos, "1s to 400d, or 0: until the browser ends",
                      "max_age is out of range");
        return false;
    }
    o->max_age_s = (uint32_t)(ms / 1000);
    return true;
}

static bool read_path(const struct ag_node *n, struct ag_diags *diags, struct ag_sticky_options *o)
{
    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &o->path)) {
        return false;
    }
    if (o->path.len == 0 || o->path.ptr[0] != '/' || o->path.len > AG_STICKY_PATH_MAX ||
        !ag_is_field_value(o->path) || ag_span_find(o->path, ';') < o->path.len) {
        ag_diag_error(diags, n->pos, "path: /", "\"%.*s\" is not the path of a cookie",
                      (int)o->path.len, (const char *)o->path.ptr);
        return false;
    }
    return true;
}

/* auto, true, false */
static bool read_secure(const struct ag_node *n, struct ag_diags *diags,
                        struct ag_sticky_options *o)
{
    static const char *const names[] = {"auto", "true", "false"};
    unsigned index = o->secure;

    if (n && !ag_node_enum(n, diags, names, AG_COUNT(names), &index)) {
        return false;
    }
    o->secure = index == 0   ? AG_STICKY_SECURE_AUTO
                : index == 1 ? AG_STICKY_SECURE_ON
                             : AG_STICKY_SECURE_OFF;
    return true;
}

static bool read_same_site(const struct ag_node *n, struct ag_diags *diags,
                           struct ag_sticky_options *o)
{
    static const char *const names[] = {"lax", "strict", "none"};
    unsigned index = o->same_site;

    if (n && !ag_node_enum(n, diags, names, AG_COUNT(names), &index)) {
        return false;
    }
    o->same_site = index == 0   ? AG_STICKY_SAME_SITE_LAX
                   : index == 1 ? AG_STICKY_SAME_SITE_STRICT
                                : AG_STICKY_SAME_SITE_NONE;
    return true;
}

/* What browsers refuse, so that nobody would ever see the cookie again. */
static bool check_sticky(const struct ag_node *node, struct ag_diags *diags,
                         const struct ag_sticky_options *o)
{
    bool host = ag_span_starts(o->name, AG_SPAN("__Host-"));
    bool prefixed = host || ag_span_starts(o->name, AG_SPAN("__Secure-"));
    const struct ag_node *same_site = ag_node_get(node, "same_site");

    if (o->same_site == AG_STICKY_SAME_SITE_NONE && o->secure != AG_STICKY_SECURE_ON) {
        ag_diag_error(diags, same_site->pos, "secure: true",
                      "browsers refuse same_site: none without secure");
        return false;
    }
    if (prefixed && o->secure != AG_STICKY_SECURE_ON) {
        ag_diag_error(diags, node->pos, "secure: true", "browsers refuse %.*s without secure",
                      (int)o->name.len, (const char *)o->name.ptr);
        return false;
    }
    if (host && !ag_span_eq(o->path, AG_SPAN("/"))) {
        ag_diag_error(diags, ag_node_get(node, "path")->pos, "path: /",
                      "browsers refuse %.*s with another path", (int)o->name.len,
                      (const char *)o->name.ptr);
        return false;
    }
    return true;
}

static bool read_sticky(const struct ag_node *node, struct ag_diags *diags,
                        struct ag_sticky_options *o)
{
    static const char *const keys[] = {"cookie",    "secret",    "max_age", "secure",
                                       "same_site", "http_only", "path"};
    uint32_t errors = diags->errors;
    const struct ag_node *name = ag_node_get(node, "cookie"),
                         *http_only = ag_node_get(node, "http_only");
    bool ok = true;

    *o = (struct ag_sticky_options){.path = AG_SPAN("/"), .http_only = true};
    ag_siphash_process_key(AG_SPAN("sticky"), o->key);
    if (node->kind == AG_NODE_SCALAR) {
        return read_name(node, diags, o) && check_sticky(node, diags, o);
    }
    if (!ag_node_check_keys(node, diags, "sticky", keys, AG_COUNT(keys))) {
        return false;
    }
    if (!name) {
        ag_diag_error(diags, node->pos, "sticky: {cookie: NAME}",
                      "sticky needs the name of a cookie");
        return false;
    }
    ok = read_name(name, diags, o) && ok;
    ok = read_secret(ag_node_get(node, "secret"), diags, o) && ok;
    ok = read_max_age(ag_node_get(node, "max_age"), diags, o) && ok;
    ok = read_secure(ag_node_get(node, "secure"), diags, o) && ok;
    ok = read_same_site(ag_node_get(node, "same_site"), diags, o) && ok;
    ok = (!http_only || ag_node_bool(http_only, diags, &o->http_only)) && ok;
    ok = read_path(ag_node_get(node, "path"), diags, o) && ok;
    return ok && diags->errors == errors && check_sticky(node, diags, o);
}

bool ag_balance_read(const struct ag_node *balance, const struct ag_node *sticky,
                     struct ag_diags *diags, struct ag_balance_options *io)
{
    struct ag_sticky_options own = io->sticky;
    bool ok = true;

    if (balance) {
        *io = (struct ag_balance_options){.sticky = own};
        ok = read_balance(balance, diags, io);
    }
    return (!sticky || read_sticky(sticky, diags, &io->sticky)) && ok;
}

/* ---- what was read ---- */

static uint64_t hash(struct ag_span s, uint64_t seed)
{
    return XXH3_64bits_withSeed(s.ptr, s.len, seed + s.len);
}

uint64_t ag_balance_options_hash(const struct ag_balance_options *o, uint64_t seed)
{
    const struct ag_sticky_options *s = &o->sticky;
    const uint32_t numbers[] = {o->kind,   o->by,        s->max_age_s,
                                s->secure, s->same_site, s->http_only};

    seed = hash(ag_span(numbers, sizeof(numbers)), seed);
    seed = hash(o->by_name, seed);
    seed = hash(s->name, seed);
    seed = hash(s->path, seed);
    return hash(ag_span(s->key, sizeof(s->key)), seed);
}

void ag_balance_describe(const struct ag_balance_options *o, struct ag_buf *out)
{
    static const char *const kinds[] = {"in turn", "least requests under way", "better of two",
                                        "better of two by latency", "hash by "};
    static const char *const by[] = {"address", "uri", "path", "header ", "cookie ", "query "};

    ag_buf_put(out, ag_span_str(kinds[o->kind]));
    if (o->kind == AG_BALANCE_HASH) {
        ag_buf_put(out, ag_span_str(by[o->by]));
        ag_buf_put(out, o->by_name);
    }
    if (o->sticky.name.len > 0) {
        ag_buf_put(out, AG_SPAN(", sticky by cookie "));
        ag_buf_put(out, o->sticky.name);
        ag_buf_put(out, o->sticky.lasting
                            ? AG_SPAN("")
                            : AG_SPAN(" (without a secret: until this process ends)"));
    }
}
