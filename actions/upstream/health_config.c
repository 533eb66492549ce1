#include "actions/upstream/upstream_config.h"
#include "proto/uri.h"

#define CHECKS_MAX  100u
#define ERRORS_MAX  1000000u
#define WINDOW_MIN  1000u
#define INTERVAL_MS 100u

void ag_health_defaults(struct ag_health_options *out)
{
    *out = (struct ag_health_options){
        .check = {.type = AG_HEALTH_HTTP,
                  .method = AG_METHOD_GET,
                  .interval_ms = 2000,
                  .timeout_ms = 1000,
                  .jitter_percent = 10,
                  .rise = 2,
                  .fall = 3},
        .breaker = {.consecutive = 5,
                    .error_percent = 50,
                    .minimum = 20,
                    .window_ms = 10000,
                    .for_ms = 10000,
                    .max_for_ms = 300000,
                    .trials = 1,
                    .max_percent = 50},
        .ejection = {.minimum = 50, .window_ms = 10000},
    };
    ag_statuses_add(&out->check.statuses, 200, 399);
}

/* ---- values ---- */

static bool is_off(const struct ag_node *n)
{
    return n->kind == AG_NODE_SCALAR && !n->quoted && ag_span_eq(n->text, AG_SPAN("off"));
}

/* "50%" */
static bool read_percent(const struct ag_node *n, uint32_t min, struct ag_diags *diags,
                         uint32_t *io)
{
    uint64_t value;

    if (!n) {
        return true;
    }
    if (n->kind != AG_NODE_SCALAR || n->text.len < 2 || n->text.ptr[n->text.len - 1] != '%' ||
        ag_span_u64(ag_span_sub(n->text, 0, n->text.len - 1), &value) != AG_OK || value < min ||
        value > 100) {
        ag_diag_error(diags, n->pos, min ? "use 1% to 100%" : "use 0% to 100%",
                      "%.*s: not a share of a whole", (int)n->key.len, (const char *)n->key.ptr);
        return false;
    }
    *io = (uint32_t)value;
    return true;
}

/* "3x", "2.5x": in hundredths. */
static bool read_times(const struct ag_node *n, struct ag_diags *diags, uint32_t *io)
{
    struct ag_span text = n ? n->text : AG_SPAN("");
    uint64_t ones = 0, tenths = 0;
    size_t dot;

    if (!n) {
        return true;
    }
    if (text.len > 1 && text.ptr[text.len - 1] == 'x') {
        text.len--;
        dot = ag_span_find(text, '.');
        if (ag_span_u64(ag_span_sub(text, 0, dot), &ones) != AG_OK || ones > 100 ||
            (dot < text.len &&
             (text.len - dot != 2 ||
              ag_span_u64(ag_span_sub(text, dot + 1, text.len), &tenths) != AG_OK))) {
            ones = 0;
        }
    }
    if (ones == 0 || (ones == 1 && tenths == 0)) {
        ag_diag_error(diags, n->pos, "use 1.1x to 100x: 3x",
                      "%.*s: not how many times the others' latency", (int)n->key.len,
                      (const char *)n->key.ptr);
        return false;
    }
    *io = (uint32_t)(ones * 100 + tenths * 10);
    return true;
}

/* ---- health ---- */

static bool read_path(const struct ag_node *n, struct ag_diags *diags, struct ag_health_check *io)
{
    struct ag_span text;
    bool ok;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    ok = text.len > 0 && text.ptr[0] == '/';
    for (size_t i = 0; i < text.len; i++) {
        ok = ok && text.ptr[i] > ' ' && text.ptr[i] < 0x7f && text.ptr[i] != '#';
    }
    if (!ok) {
        ag_diag_error(diags, n->pos, "health: /healthz", "\"%.*s\" is not a path", (int)text.len,
                      (const char *)text.ptr);
        return false;
    }
    io->path = text;
    return true;
}

static bool read_method(const struct ag_node *n, struct ag_diags *diags, struct ag_health_check *io)
{
    static const char *const names[] = {"GET", "HEAD", "OPTIONS", "POST"};
    static const enum ag_method methods[] = {AG_METHOD_GET, AG_METHOD_HEAD, AG_METHOD_OPTIONS,
                                             AG_METHOD_POST};
    unsigned index = 0;

    if (!n) {
        return true;
    }
    if (!ag_node_enum(n, diags, names, AG_COUNT(names), &index)) {
        return false;
    }
    io->method = methods[index];
    return true;
}

static bool read_check_host(const struct ag_node *n, struct ag_diags *diags,
                            struct ag_health_check *io)
{
    struct ag_span text, host;
    uint16_t port;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    if (ag_authority_parse(text, &host, &port) != AG_OK) {
        ag_diag_error(diags, n->pos, "use a host with an optional port", "\"%.*s\" is not a host",
                      (int)text.len, (const char *)text.ptr);
        return false;
    }
    io->host = text;
    return true;
}

static bool read_body(const struct ag_node *n, struct ag_diags *diags, struct ag_health_check *io)
{
    struct ag_span text;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    if (text.len > AG_HEALTH_BODY_MAX) {
        ag_diag_error(diags, n->pos, "a part of it is enough", "body: more than %u bytes",
                      AG_HEALTH_BODY_MAX);
        return false;
    }
    io->body = text;
    return true;
}

static bool check_header(const struct ag_node *n, struct ag_diags *diags)
{
    enum ag_field_id id = ag_field_id_from_name(n->key);
    struct ag_span text;

    if (!ag_is_token(n->key)) {
        ag_diag_error(diags, n->key_pos, NULL, "not a valid header name");
        return false;
    }
    if (id == AG_FIELD_HOST || id == AG_FIELD_CONTENT_LENGTH || id == AG_FIELD_TRANSFER_ENCODING ||
        id == AG_FIELD_CONNECTION || id == AG_FIELD_UPGRADE || id == AG_FIELD_TE) {
        ag_diag_error(diags, n->key_pos, id == AG_FIELD_HOST ? "health: {host: NAME}" : NULL,
                      "header %.*s cannot be set here", (int)n->key.len, (const char *)n->key.ptr);
        return false;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    if (!ag_is_field_value(text)) {
        ag_diag_error(diags, n->pos, "control characters are not allowed",
                      "not a valid header value");
        return false;
    }
    return true;
}

static bool read_headers(const struct ag_node *map, struct ag_diags *diags,
                         struct ag_health_check *io)
{
    bool ok = true;

    if (!map || map->kind == AG_NODE_NULL) {
        return true;
    }
    if (map->kind != AG_NODE_MAP) {
        ag_diag_error(diags, map->pos, "headers: {Name: value}", "headers is not a map");
        return false;
    }
    for (const struct ag_node *n = map->first; n; n = n->next) {
        ok = check_header(n, diags) && ok;
    }
    io->headers = map;
    return ok;
}

/* What has no effect is a mistake. */
static bool check_type(const struct ag_node *map, const struct ag_health_check *c,
                       struct ag_diags *diags)
{
    static const char *const of_http[] = {"path", "status", "body", "method", "host", "headers"};
    const struct ag_node *n;

    for (size_t i = 0; c->type != AG_HEALTH_HTTP && i < AG_COUNT(of_http); i++) {
        n = ag_node_get(map, of_http[i]);
        if (n) {
            ag_diag_error(diags, n->key_pos, "type: http", "%s is of checks by HTTP alone",
                          of_http[i]);
            return false;
        }
    }
    n = ag_node_get(map, "body");
    if (n && c->method == AG_METHOD_HEAD) {
        ag_diag_error(diags, n->pos, "method: GET", "an answer to HEAD has no body");
        return false;
    }
    return true;
}

static bool read_check(const struct ag_node *node, struct ag_diags *diags,
                       struct ag_health_check *io)
{
    static const char *const keys[] = {"path",    "interval", "timeout", "jitter", "rise",
                                       "fall",    "status",   "body",    "method", "host",
                                       "headers", "port",     "type",    "start"};
    static const char *const types[] = {"http", "tcp", "tls"};
    static const char *const starts[] = {"up", "down"};
    const struct ag_node *type = ag_node_get(node, "type"), *start = ag_node_get(node, "start");
    unsigned index = io->type, down = io->starts_down;
    uint32_t port = io->port;
    bool ok = true;

    if (node->kind == AG_NODE_SCALAR) {
        return read_path(node, diags, io);
    }
    ok = ag_node_check_keys(node, diags, "health", keys, AG_COUNT(keys));
    ok = read_path(ag_node_get(node, "path"), diags, io) && ok;
    ok = ag_upstream_read_ms(node, "interval", INTERVAL_MS, diags, &io->interval_ms) && ok;
    ok = ag_upstream_read_ms(node, "timeout", 1, diags, &io->timeout_ms) && ok;
    ok = read_percent(ag_node_get(node, "jitter"), 0, diags, &io->jitter_percent) && ok;
    ok = ag_node_number(node, "rise", 1, CHECKS_MAX, diags, &io->rise) && ok;
    ok = ag_node_number(node, "fall", 1, CHECKS_MAX, diags, &io->fall) && ok;
    ok = ag_statuses_read(ag_node_get(node, "status"), diags, &io->statuses) && ok;
    ok = read_body(ag_node_get(node, "body"), diags, io) && ok;
    ok = read_method(ag_node_get(node, "method"), diags, io) && ok;
    ok = read_check_host(ag_node_get(node, "host"), diags, io) && ok;
    ok = read_headers(ag_node_get(node, "headers"), diags, io) && ok;
    ok = ag_node_number(node, "port", 1, UINT16_MAX, diags, &port) && ok;
    ok = (!type || ag_node_enum(type, diags, types, AG_COUNT(types), &index)) && ok;
    ok = (!start || ag_node_enum(start, diags, starts, AG_COUNT(starts), &down)) && ok;
    io->port = (uint16_t)port;
    io->type = (enum ag_health_type)index;
    io->starts_down = down != 0;
    return ok && check_type(node, io, diags);
}

static bool read_health(const struct ag_node *node, struct ag_diags *diags,
                        struct ag_health_check *io)
{
    if (!node) {
        return true;
    }
    io->on = !is_off(node);
    return !io->on || read_check(node, diags, io);
}

/* ---- breaker, ejection ---- */

static bool read_breaker(const struct ag_node *node, struct ag_diags *diags,
                         struct ag_breaker_options *io)
{
    static const char *const keys[] = {"consecutive", "errors", "minimum",  "window", "for",
                                       "max_for",     "trials", "statuses", "max"};
    const struct ag_node *max_for = ag_node_get(node, "max_for");
    bool ok;

    if (!node) {
        return true;
    }
    if (is_off(node)) {
        io->consecutive = io->error_percent = 0;
        io->written = true;
        return true;
    }
    if (!ag_node_check_keys(node, diags, "breaker", keys, AG_COUNT(keys))) {
        return false;
    }
    if (!io->written) {
        ag_statuses_add(&io->statuses, 502, 504);
        io->written = true;
    }
    ok = ag_node_number(node, "consecutive", 0, ERRORS_MAX, diags, &io->consecutive);
    ok = read_percent(ag_node_get(node, "errors"), 0, diags, &io->error_percent) && ok;
    ok = ag_node_number(node, "minimum", 1, ERRORS_MAX, diags, &io->minimum) && ok;
    ok = ag_upstream_read_ms(node, "window", WINDOW_MIN, diags, &io->window_ms) && ok;
    ok = ag_upstream_read_ms(node, "for", 1, diags, &io->for_ms) && ok;
    ok = ag_upstream_read_ms(node, "max_for", 1, diags, &io->max_for_ms) && ok;
    ok = ag_node_number(node, "trials", 1, AG_BREAKER_TRIALS_MAX, diags, &io->trials) && ok;
    ok = ag_statuses_read(ag_node_get(node, "statuses"), diags, &io->statuses) && ok;
    ok = read_percent(ag_node_get(node, "max"), 1, diags, &io->max_percent) && ok;
    if (ok && max_for && io->max_for_ms < io->for_ms) {
        ag_diag_error(diags, max_for->pos, NULL, "max_for is shorter than for");
        return false;
    }
    io->max_for_ms = io->max_for_ms < io->for_ms ? io->for_ms : io->max_for_ms;
    return ok;
}

static bool read_ejection(const struct ag_node *node, struct ag_diags *diags,
                          struct ag_ejection_options *io)
{
    static const char *const keys[] = {"latency", "minimum", "window"};
    bool ok;

    if (!node) {
        return true;
    }
    if (is_off(node)) {
        io->latency_percent = 0;
        return true;
    }
    if (!ag_node_check_keys(node, diags, "ejection", keys, AG_COUNT(keys))) {
        return false;
    }
    io->latency_percent = io->latency_percent ? io->latency_percent : 300;
    ok = read_times(ag_node_get(node, "latency"), diags, &io->latency_percent);
    ok = ag_node_number(node, "minimum", 1, ERRORS_MAX, diags, &io->minimum) && ok;
    return ag_upstream_read_ms(node, "window", WINDOW_MIN, diags, &io->window_ms) && ok;
}

bool ag_health_read(const struct ag_node *node, struct ag_diags *diags,
                    struct ag_health_options *io)
{
    const struct ag_node *ejection = ag_node_get(node, "ejection");
    bool ok = read_health(ag_node_get(node, "health"), diags, &io->check);

    ok = read_breaker(ag_node_get(node, "breaker"), diags, &io->breaker) && ok;
    ok = read_ejection(ejection, diags, &io->ejection) && ok;
    ok = ag_upstream_read_ms(node, "slow_start", 0, diags, &io->slow_start_ms) && ok;
    return read_percent(ag_node_get(node, "panic"), 0, diags, &io->panic_percent) && ok;
}
