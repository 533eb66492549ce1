/* Limits: of the server, of its listeners, of groups and routes; defaults are those of SPEC.md
 * section 10. */
#include "engine/buffers.h"
#include "router/model_impl.h"

/* A head lies in one buffer; the larger kind of receive buffer bounds it. */
#define HEADER_MAX_BYTES 65536u
/* Longest time-out: a day. The timers count in 32 bits of milliseconds. */
#define TIMEOUT_MAX_MS 86400000u

enum unit { UNIT_TIMEOUT, UNIT_TIME, UNIT_BYTES, UNIT_NUMBER };

/* A key and where its value lies. */
struct limit_key {
    const char *name;
    enum unit unit;
    uint16_t offset, width;
    uint64_t min, max;
};

#define KEY(type, member, name, unit, min, max)                                               \
    {                                                                                         \
        (name), (unit), offsetof(struct type, member), sizeof(((struct type *)NULL)->member), \
            (min), (max)                                                                      \
    }
#define OF_LISTENER(member, name, unit, min, max) \
    KEY(ag_server_limits, member, name, unit, min, max)
#define OF_ROUTE(member, name, unit, min, max) KEY(ag_route_limits, member, name, unit, min, max)

static const struct limit_key listener_keys[] = {
    OF_LISTENER(header_timeout_ms, "header_timeout", UNIT_TIMEOUT, 1, TIMEOUT_MAX_MS),
    OF_LISTENER(idle_timeout_ms, "idle_timeout", UNIT_TIMEOUT, 1, TIMEOUT_MAX_MS),
    OF_LISTENER(head.line_max, "max_line", UNIT_BYTES, 128, HEADER_MAX_BYTES),
    OF_LISTENER(head.head_max, "max_header", UNIT_BYTES, 1024, HEADER_MAX_BYTES),
    OF_LISTENER(head.field_max, "max_fields", UNIT_NUMBER, 1, 1000),
    OF_LISTENER(discard_max_bytes, "max_discard", UNIT_BYTES, 0, UINT32_MAX),
    OF_LISTENER(max_requests, "max_requests", UNIT_NUMBER, 0, UINT32_MAX),
    OF_LISTENER(max_connections, "max_connections", UNIT_NUMBER, 0, UINT32_MAX),
};

static const struct limit_key route_keys[] = {
    OF_ROUTE(max_body_bytes, "max_body", UNIT_BYTES, 0, UINT64_MAX >> 1),
    OF_ROUTE(min_rate, "min_rate", UNIT_BYTES, 0, UINT32_MAX),
    OF_ROUTE(body_grace_ms, "body_grace", UNIT_TIME, 0, TIMEOUT_MAX_MS),
    OF_ROUTE(body_timeout_ms, "body_timeout", UNIT_TIMEOUT, 1, TIMEOUT_MAX_MS),
    OF_ROUTE(min_read_rate, "min_read_rate", UNIT_BYTES, 0, UINT32_MAX),
    OF_ROUTE(write_timeout_ms, "write_timeout", UNIT_TIMEOUT, 1, TIMEOUT_MAX_MS),
};

/* Fewer of them serve nobody; more than the engine has numbers for are no use. */
static const struct limit_key memory_keys[] = {
    KEY(ag_memory, small_buffers, "small_buffers", UNIT_NUMBER, 16, AG_BUF_COUNT_MAX),
    KEY(ag_memory, large_buffers, "large_buffers", UNIT_NUMBER, 4, AG_BUF_COUNT_MAX),
    KEY(ag_memory, pages, "pages", UNIT_NUMBER, 4, 1u << 24),
};

#define KEYS_MAX (AG_COUNT(listener_keys) + AG_COUNT(route_keys))

static const struct ag_server_limits defaults = {
    .head = {8192, 32768, 100},
    .header_timeout_ms = 10000,
    .idle_timeout_ms = 75000,
    .discard_max_bytes = 256u << 10,
    .route = AG_ROUTE_LIMITS_DEFAULT,
};

static void complain(const struct limit_key *k, const struct ag_node *n, struct ag_diags *diags)
{
    if (k->unit == UNIT_TIMEOUT) {
        ag_diag_error(diags, n->pos, NULL, "%s must lie between 1ms and 24h", k->name);
    } else if (k->unit == UNIT_TIME) {
        ag_diag_error(diags, n->pos, NULL, "%s must be at most 24h", k->name);
    } else {
        ag_diag_error(diags, n->pos, NULL, "%s must lie between %llu and %llu bytes", k->name,
                      (unsigned long long)k->min, (unsigned long long)k->max);
    }
}

/* False: not there, or a mistake that is reported. */
static bool read_value(const struct limit_key *k, const struct ag_node *n, struct ag_diags *diags,
                       uint64_t *out)
{
    bool good = false;

    switch (k->unit) {
    case UNIT_TIMEOUT:
    case UNIT_TIME:
        good = ag_node_duration(n, diags, out);
        break;
    case UNIT_BYTES:
        good = ag_node_size(n, diags, out);
        break;
    case UNIT_NUMBER:
        return ag_node_u64(n, diags, k->min, k->max, out);
    }
    if (good && (*out < k->min || *out > k->max)) {
        complain(k, n, diags);
        good = false;
    }
    return good;
}

static void read_keys(const struct limit_key *keys, size_t count, const struct ag_node *limits,
                      struct ag_diags *diags, void *to)
{
    for (size_t i = 0; i < count; i++) {
        const struct limit_key *k = &keys[i];
        uint8_t *at = (uint8_t *)to + k->offset;
        uint64_t value = 0;

        if (!read_value(k, ag_node_get(limits, k->name), diags, &value)) {
            continue;
        }
        if (k->width == sizeof(uint64_t)) {
            memcpy(at, &value, sizeof(value));
        } else if (k->width == sizeof(uint32_t)) {
            memcpy(at, &(uint32_t){(uint32_t)value}, sizeof(uint32_t));
        } else {
            AG_ASSERT(k->width == sizeof(uint16_t));
            memcpy(at, &(uint16_t){(uint16_t)value}, sizeof(uint16_t));
        }
    }
}

static bool check_keys(const struct ag_node *limits, struct ag_diags *diags, const char *what,
                       bool listener)
{
    const char *names[KEYS_MAX];
    size_t n = 0;

    for (size_t i = 0; i < AG_COUNT(route_keys); i++) {
        names[n++] = route_keys[i].name;
    }
    for (size_t i = 0; listener && i < AG_COUNT(listener_keys); i++) {
        names[n++] = listener_keys[i].name;
    }
    return ag_node_check_keys(limits, diags, what, names, n);
}

/* What a listener, or all of them, may say. */
static void read_listener(const struct ag_node *limits, struct ag_diags *diags, const char *what,
                          struct ag_server_limits *io)
{
    const struct ag_node *line = ag_node_get(limits, "max_line");

    if (!check_keys(limits, diags, what, true)) {
        return;
    }
    read_keys(listener_keys, AG_COUNT(listener_keys), limits, diags, io);
    read_keys(route_keys, AG_COUNT(route_keys), limits, diags, &io->route);
    if (io->head.line_max > io->head.head_max) {
        if (line) {
            ag_diag_error(diags, line->pos, "the header section holds the request line",
                          "max_line is larger than max_header");
        }
        io->head.line_max = io->head.head_max;
    }
}

static void read_stream(const struct ag_node *n, struct ag_diags *diags, enum ag_streaming *out)
{
    bool on = false;

    if (ag_node_bool(n, diags, &on)) {
        *out = on ? AG_STREAMING_ON : AG_STREAMING_OFF;
    }
}

static bool is_same(const struct ag_route_limits *a, const struct ag_route_limits *b)
{
    return a->max_body_bytes == b->max_body_bytes && a->min_rate == b->min_rate &&
           a->body_grace_ms == b->body_grace_ms && a->body_timeout_ms == b->body_timeout_ms &&
           a->min_read_rate == b->min_read_rate && a->write_timeout_ms == b->write_timeout_ms &&
           a->stream == b->stream;
}

static bool is_kind(const struct ag_listen_kind *a, const struct ag_listen_kind *b)
{
    return a->certs_asked == b->certs_asked && a->certs_required == b->certs_required &&
           ag_span_eq(a->client_ca, b->client_ca);
}

uint16_t ag_model_listen_kind(struct ag_model *m, const struct ag_route_limits *limits,
                              const struct ag_listen_kind *kind)
{
    uint16_t i = 0;

    while (i < m->route_limit_count &&
           !(is_same(&m->route_limits[i], limits) && is_kind(&m->listen_kinds[i], kind))) {
        i++;
    }
    AG_ASSERT(i <= m->listen_count && i < AG_COUNT(m->route_limits));
    if (i == m->route_limit_count) {
        m->route_limits[i] = *limits;
        m->listen_kinds[i] = *kind;
        m->route_limit_count++;
    }
    return i;
}

void ag_model_read_limits(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    m->limits = defaults;
    if (n && n->kind != AG_NODE_NULL) {
        read_listener(n, diags, "server.limits", &m->limits);
    }
}

void ag_model_read_memory(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    const char *names[AG_COUNT(memory_keys)];

    if (!n || n->kind == AG_NODE_NULL) {
        return;
    }
    for (size_t i = 0; i < AG_COUNT(memory_keys); i++) {
        names[i] = memory_keys[i].name;
    }
    if (ag_node_check_keys(n, diags, "server.memory", names, AG_COUNT(names))) {
        read_keys(memory_keys, AG_COUNT(memory_keys), n, diags, &m->memory);
    }
}

void ag_model_listener_limits(const struct ag_model *m, const struct ag_node *owner,
                              struct ag_diags *diags, struct ag_server_limits *out)
{
    const struct ag_node *limits = ag_node_get(owner, "limits");

    *out = m->limits;
    if (limits && limits->kind != AG_NODE_NULL) {
        read_listener(limits, diags, "a listener's limits", out);
    }
    read_stream(ag_node_get(owner, "stream"), diags, &out->route.stream);
}

enum ag_status ag_model_route_limits(const struct ag_node *owner, struct ag_diags *diags,
                                     struct ag_route_limits *io)
{
    const struct ag_node *limits = ag_node_get(owner, "limits");
    struct ag_route_limits to = *io;
    uint32_t errors = diags->errors;

    if (limits && limits->kind != AG_NODE_NULL && check_keys(limits, diags, "limits", false)) {
        read_keys(route_keys, AG_COUNT(route_keys), limits, diags, &to);
    }
    read_stream(ag_node_get(owner, "stream"), diags, &to.stream);
    if (diags->errors != errors) {
        return AG_EINVAL;
    }
    *io = to;
    return AG_OK;
}

/* ---- as text ---- */

static uint64_t value_of(const struct limit_key *k, const void *from)
{
    const uint8_t *at = (const uint8_t *)from + k->offset;
    uint64_t wide = 0;
    uint32_t word = 0;
    uint16_t half = 0;

    if (k->width == sizeof(wide)) {
        memcpy(&wide, at, sizeof(wide));
        return wide;
    }
    if (k->width == sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        return word;
    }
    memcpy(&half, at, sizeof(half));
    return half;
}

/* In the largest unit that tells it exactly, as the config has it. */
static void put_value(const struct limit_key *k, uint64_t value, struct ag_buf *out)
{
    static const char *const sizes[] = {"", "k", "m", "g"}, *const times[] = {"ms", "s", "m", "h"};
    static const uint32_t steps[] = {1000, 60, 60};
    bool bytes = k->unit == UNIT_BYTES, time = k->unit == UNIT_TIME || k->unit == UNIT_TIMEOUT;
    unsigned i = 0;

    while ((bytes || time) && i < 3 && value && value % (bytes ? 1024 : steps[i]) == 0) {
        value /= bytes ? 1024 : steps[i];
        i++;
    }
    ag_buf_printf(out, "%llu%s", (unsigned long long)value,
                  bytes  ? sizes[i]
                  : time ? times[i]
                         : "");
}

static void put_name(const char *name, struct ag_buf *out)
{
    ag_buf_printf(out, "%s%s: ", out->len && out->ptr[out->len - 1] != ' ' ? ", " : "", name);
}

/* Keys whose value is not that of `base` (NULL: all). */
static void put_keys(const struct limit_key *keys, size_t count, const void *from, const void *base,
                     struct ag_buf *out)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = value_of(&keys[i], from);

        if (!base || value != value_of(&keys[i], base)) {
            put_name(keys[i].name, out);
            put_value(&keys[i], value, out);
        }
    }
}

void ag_model_put_limits(const struct ag_server_limits *l, struct ag_buf *out)
{
    put_keys(listener_keys, AG_COUNT(listener_keys), l, NULL, out);
}

void ag_model_put_route_limits(const struct ag_route_limits *l, const struct ag_route_limits *base,
                               struct ag_buf *out)
{
    static const char *const streams[] = {
        [AG_STREAMING_AUTO] = "grpc", [AG_STREAMING_ON] = "true", [AG_STREAMING_OFF] = "false"};

    put_keys(route_keys, AG_COUNT(route_keys), l, base, out);
    if (!base || l->stream != base->stream) {
        put_name("stream", out);
        ag_buf_put(out, ag_span_str(streams[l->stream]));
    }
}
