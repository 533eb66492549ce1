/* The section `server`: listeners, limits and the rest; defaults are those of SPEC.md section 10. */
#include "engine/resolver.h"
#include "router/model_impl.h"

#define WORKERS_MAX  1024u
#define DRAIN_MAX_MS 86400000u

/* ---- listen ---- */

static void refuse_listen(struct ag_diags *diags, const struct ag_node *n, const char *hint,
                          const char *what)
{
    ag_diag_error(diags, n->pos, hint, "listen \"%.*s\": %s", (int)ag_min_size(n->text.len, 80),
                  (const char *)n->text.ptr, what);
}

/* False after a diagnosis. */
static bool add_listen(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags,
                       struct ag_span host, uint16_t port)
{
    struct ag_listen l = {.pos = n->pos, .text = n->text, .port = port};

    if (ag_addr_parse(host, port, &l.addr) != AG_OK) {
        refuse_listen(diags, n, "forms: \":8080\", \"127.0.0.1:80\", \"[::1]:80\", \"unix:/path\"",
                      port ? "not an IP address" : "not a path for a socket (at most 107 bytes)");
        return false;
    }
    for (uint16_t i = 0; i < m->listen_count; i++) {
        const union ag_addr *other = &m->listens[i].addr;

        if (ag_addr_overlaps(other, &l.addr)) {
            struct ag_pos first = m->listens[i].pos;
            refuse_listen(diags, n,
                          first.source ? ag_arena_printf(diags->arena, "the first is at %s:%u:%u",
                                                         first.source->name, first.line, first.col)
                                       : NULL,
                          ag_addr_same(other, &l.addr) ? "the address is taken by another listener"
                          : ag_addr_is_any(other)
                              ? "another listener has the port on every address"
                              : "on one of its addresses another listener has the port");
            return false;
        }
    }
    if (m->listen_count == AG_LISTEN_MAX) {
        refuse_listen(diags, n, NULL, "too many listeners");
        return false;
    }
    m->listens[m->listen_count++] = l;
    return true;
}

/* The last colon outside of brackets, or len. */
static size_t port_colon(struct ag_span s)
{
    size_t at = s.len;

    while (at > 0) {
        at--;
        if (s.ptr[at] == ':') {
            return at;
        }
        if (s.ptr[at] == ']') {
            break;
        }
    }
    return s.len;
}

static void refuse_scheme(struct ag_diags *diags, const struct ag_node *n, struct ag_span rest)
{
    int end = (int)ag_min_size(ag_span_find(rest, '/'), 80);

    refuse_listen(diags, n,
                  end ? ag_arena_printf(diags->arena,
                                        "did you mean \"%.*s\"? TLS comes by the listener's tls",
                                        end, (const char *)rest.ptr)
                      : NULL,
                  "an address has no scheme here");
}

void ag_model_read_address(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    struct ag_span text = n->text;
    size_t colon = port_colon(text), scheme = ag_span_find(text, ':');
    uint64_t port = 0;

    if (ag_span_starts(ag_span_sub(text, scheme, text.len), AG_SPAN("://"))) {
        refuse_scheme(diags, n, ag_span_sub(text, scheme + 3, text.len));
        return;
    }
    if (ag_span_starts(text, AG_SPAN("unix:"))) {
        (void)add_listen(m, n, diags, text, 0);
        return;
    }
    if (colon == text.len) {
        const char *hint = "forms: \":8080\", \"127.0.0.1:80\", \"[::1]:80\", \"unix:/path\"";
        if (ag_span_u64(text, &port) == AG_OK && port <= UINT16_MAX) {
            hint = ag_arena_printf(diags->arena, "did you mean \":%u\"?", (unsigned)port);
        }
        refuse_listen(diags, n, hint, "no port");
        return;
    }
    struct ag_span host = ag_span_sub(text, 0, colon);
    struct ag_span digits = ag_span_sub(text, colon + 1, text.len);
    if (ag_span_u64(digits, &port) != AG_OK || port == 0 || port > UINT16_MAX) {
        refuse_listen(diags, n, NULL, "the port must be a number from 1 to 65535");
        return;
    }
    if (host.len == 0) {
        /* Two sockets, one for each family: does not hang on the system's IPV6_V6ONLY. */
        (void)(add_listen(m, n, diags, AG_SPAN("0.0.0.0"), (uint16_t)port) &&
               add_listen(m, n, diags, AG_SPAN("::"), (uint16_t)port));
        return;
    }
    if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']') {
        host = ag_span_sub(host, 1, host.len - 1);
    } else if (ag_span_find(host, ':') < host.len) {
        refuse_listen(diags, n, "write it as [ADDRESS]:PORT", "an IPv6 address needs brackets");
        return;
    }
    (void)add_listen(m, n, diags, host, (uint16_t)port);
}

static void read_listen_map(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    static const char *const keys[] = {"address", "tls",    "redirect_https", "proxy_protocol",
                                       "limits",  "stream", "deferred"};

    (void)ag_node_check_keys(n, diags, "a listener", keys, AG_COUNT(keys));
    const struct ag_node *address = ag_node_get(n, "address");
    if (!address || address->kind == AG_NODE_NULL) {
        ag_diag_error(diags, n->pos, "such as {address: \":8443\"}", "a listener needs an address");
    } else if (address->kind != AG_NODE_SCALAR) {
        ag_diag_error(diags, address->pos, NULL, "address: expected text");
    } else {
        ag_model_read_address(m, address, diags);
    }
}

/* Whoever is on the list says whose a connection is: there is no short form for everybody. */
static void read_proxied(const struct ag_node *n, struct ag_diags *diags, struct ag_networks *out)
{
    *out = (struct ag_networks){0};
    if (!n || n->kind == AG_NODE_NULL) {
        return;
    }
    if (n->kind == AG_NODE_SCALAR && !n->quoted && ag_span_eq(n->text, AG_SPAN("false"))) {
        return;
    }
    if (n->kind == AG_NODE_SCALAR && !n->quoted && ag_span_eq(n->text, AG_SPAN("true"))) {
        ag_diag_error(diags, n->pos, "such as [10.0.0.0/8]; everybody is [0.0.0.0/0, \"::/0\"]",
                      "proxy_protocol: from whom?");
        return;
    }
    (void)ag_networks_read(diags->arena, n, diags, "proxy_protocol", out);
}

static void read_listen(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    struct ag_server_limits limits;
    struct ag_networks proxied;
    bool deferred = false;
    uint16_t first = m->listen_count;

    if (n->kind == AG_NODE_SCALAR) {
        ag_model_read_address(m, n, diags);
    } else if (n->kind == AG_NODE_MAP) {
        read_listen_map(m, n, diags);
    } else {
        ag_diag_error(diags, n->pos, "such as \":8080\" or {address: \":8443\"}",
                      "expected a listener");
        return;
    }
    ag_model_listener_limits(m, n, diags, &limits);
    read_proxied(ag_node_get(n, "proxy_protocol"), diags, &proxied);
    (void)ag_node_bool(ag_node_get(n, "deferred"), diags, &deferred);
    while (first < m->listen_count) { /* one address may be two listeners */
        m->listens[first].node = n->kind == AG_NODE_MAP ? n : NULL;
        m->listens[first].proxied = proxied;
        m->listens[first].deferred = deferred;
        m->listens[first++].limits = limits;
    }
}

void ag_model_read_listens(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    static const struct ag_node fallback = {.kind = AG_NODE_SCALAR, .text = AG_SPAN_INIT(":8080")};

    if (!n) {
        read_listen(m, &fallback, diags);
        return;
    }
    if (n->kind == AG_NODE_SCALAR || n->kind == AG_NODE_MAP) {
        read_listen(m, n, diags);
        return;
    }
    if (!n->first &&
        !n->told) { /* or no value, as "${UNSET:-}" has none: never all addresses by accident */
        ag_diag_error(diags, n->pos, "leave it out to listen on :8080", "listen is empty");
    }
    for (const struct ag_node *c = n->first; c; c = c->next) {
        read_listen(m, c, diags);
    }
}

/* ---- the rest ---- */

static void read_workers(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    uint64_t count = 0;

    if (n && n->kind == AG_NODE_SCALAR && ag_span_eq(n->text, AG_SPAN("auto"))) {
        return;
    }
    if (n && n->kind == AG_NODE_SCALAR && ag_span_u64(n->text, &count) != AG_OK) {
        ag_diag_error(diags, n->pos, "auto, or how many", "workers: expected a number or auto");
        return;
    }
    if (ag_node_u64(n, diags, 1, WORKERS_MAX, &count)) {
        m->workers = (uint32_t)count;
    }
}

static void read_log(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    static const char *const keys[] = {"level", "format"};
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    static const char *const formats[] = {"human", "json"};
    unsigned index = 0;

    _Static_assert(AG_LOG_ERROR == 0 && AG_LOG_DEBUG == 3, "levels in the order of the enum");
    _Static_assert(AG_LOG_HUMAN == 0 && AG_LOG_JSON == 1, "formats in the order of the enum");
    if (!ag_node_check_keys(n, diags, "server.log", keys, AG_COUNT(keys))) {
        return;
    }
    if (ag_node_enum(ag_node_get(n, "level"), diags, levels, AG_COUNT(levels), &index)) {
        m->log_level = (enum ag_log_level)index;
    }
    if (ag_node_enum(ag_node_get(n, "format"), diags, formats, AG_COUNT(formats), &index)) {
        m->log_format = (enum ag_log_format)index;
    }
}

static void read_trusted(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    const struct ag_node *bad = n && n->kind == AG_NODE_MAP ? n : NULL;

    for (const struct ag_node *c = n ? n->first : NULL; c && !bad; c = c->next) {
        bad = c->kind == AG_NODE_SCALAR ? NULL : c;
    }
    if (bad) {
        ag_diag_error(diags, bad->pos, "such as [10.0.0.0/8, \"::1\"]",
                      "trusted_proxies: expected addresses or networks");
    } else if (n && n->kind != AG_NODE_NULL) {
        m->trusted_proxies = n;
    }
}

static void read_pid_file(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    struct ag_span text;

    if (!n || !ag_node_text(n, diags, &text)) {
        return;
    }
    if (text.len == 0 || text.ptr[text.len - 1] == '/' || memchr(text.ptr, 0, text.len)) {
        ag_diag_error(diags, n->pos, "such as /run/anygate.pid",
                      "pid_file: expected a file's path");
        return;
    }
    m->pid_file = ag_node_path(diags->arena, n, text);
    m->pid_file_pos = n->pos;
}

void ag_model_read_server(struct ag_model *m, const struct ag_node *server, struct ag_diags *diags)
{
    static const char *const keys[] = {
        "listen",          "workers",  "backend", "admin",    "user",       "limits",
        "trusted_proxies", "log",      "chroot",  "seccomp",  "access_log", "drain_timeout",
        "max_connections", "pid_file", "memory",  "resolver", "error_pages"};
    static const char *const backends[] = {"auto", "io_uring", "epoll"};
    static const char *const accesses[] = {"off", "human", "combined", "json"};
    static const struct ag_node_ms_bounds drain = {0, DRAIN_MAX_MS, "use 0 to 24h"};
    unsigned backend = AG_BACKEND_AUTO, access = AG_ACCESS_OFF;

    _Static_assert(AG_BACKEND_AUTO == 0 && AG_BACKEND_URING == 1 && AG_BACKEND_EPOLL == 2,
                   "backends in the order of the enum");
    m->drain_timeout_ms = 30000;
    m->log_level = AG_LOG_INFO;
    m->log_format = AG_LOG_HUMAN;
    (void)ag_node_check_keys(server, diags, "server", keys, AG_COUNT(keys));
    ag_model_read_limits(m, ag_node_get(server, "limits"), diags);
    ag_model_read_listens(m, ag_node_get(server, "listen"), diags);
    read_workers(m, ag_node_get(server, "workers"), diags);
    (void)ag_node_enum(ag_node_get(server, "backend"), diags, backends, AG_COUNT(backends),
                       &backend);
    m->backend = (enum ag_backend_kind)backend;
    ag_model_read_admin(m, ag_node_get(server, "admin"), diags);
    ag_model_read_privileges(m, server, diags);
    read_trusted(m, ag_node_get(server, "trusted_proxies"), diags);
    read_log(m, ag_node_get(server, "log"), diags);
    (void)ag_node_enum(ag_node_get(server, "access_log"), diags, accesses, AG_COUNT(accesses),
                       &access);
    m->access_log = (enum ag_access_format)access;
    (void)ag_node_ms(server, "drain_timeout", drain, diags, &m->drain_timeout_ms);
    read_pid_file(m, ag_node_get(server, "pid_file"), diags);
    (void)ag_node_u64(ag_node_get(server, "max_connections"), diags, 1, UINT32_MAX,
                      &m->max_connections);
    ag_model_read_memory(m, ag_node_get(server, "memory"), diags);
    ag_model_read_resolver(m, ag_node_get(server, "resolver"), diags);
}
