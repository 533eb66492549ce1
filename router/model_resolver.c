/* server.resolver: which name servers are asked, and how patiently. */
#include "router/model_impl.h"

#define DNS_PORT       53u
#define TIMEOUT_MIN_MS 10u
#define TIMEOUT_MAX_MS 60000u
#define ATTEMPTS_MAX   10u

/* ADDRESS, ADDRESS:PORT, [ADDRESS] or [ADDRESS]:PORT, of either family. */
static bool parse_server(struct ag_span text, union ag_addr *out)
{
    size_t close = ag_span_find(text, ']');
    struct ag_span host, port;
    uint64_t number = DNS_PORT;

    if (ag_addr_parse(text, DNS_PORT, out) == AG_OK) {
        return out->sa.sa_family != AF_UNIX;
    }
    if (text.len && text.ptr[0] == '[' && close < text.len) {
        host = ag_span_sub(text, 1, close);
        port = ag_span_sub(text, close + 1, text.len);
    } else {
        host = ag_span_sub(text, 0, ag_span_find(text, ':'));
        port = ag_span_sub(text, host.len, text.len);
    }
    if (port.len &&
        (port.ptr[0] != ':' || ag_span_u64(ag_span_sub(port, 1, port.len), &number) != AG_OK ||
         number == 0 || number > UINT16_MAX)) {
        return false;
    }
    return ag_addr_parse(host, (uint16_t)number, out) == AG_OK && out->sa.sa_family != AF_UNIX;
}

static void read_server(const struct ag_node *n, struct ag_diags *diags, struct ag_buf *out)
{
    union ag_addr addr;

    if (n->kind != AG_NODE_SCALAR || !parse_server(n->text, &addr)) {
        ag_diag_error(diags, n->pos, "such as \"10.0.0.53\", \"127.0.0.1:5353\" or \"[::1]:53\"",
                      "resolver: expected a name server's address");
        return;
    }
    if (out->len) {
        ag_buf_putc(out, ',');
    }
    ag_addr_format(&addr, true, out);
}

/* One, or a list of them. */
static void read_servers(const struct ag_node *n, struct ag_diags *diags,
                         struct ag_resolver_settings *to)
{
    struct ag_buf out = ag_buf((uint8_t *)to->servers, sizeof(to->servers) - 1);
    uint32_t count = 0;

    if (!n) {
        return;
    }
    if (n->kind != AG_NODE_SEQ) {
        read_server(n, diags, &out);
    } else if (!n->first) {
        ag_diag_error(diags, n->pos, "leave it out to ask those of /etc/resolv.conf",
                      "resolver: servers is empty");
    }
    for (const struct ag_node *c = n->kind == AG_NODE_SEQ ? n->first : NULL; c; c = c->next) {
        if (++count > AG_RESOLVER_SERVERS) {
            ag_diag_error(diags, c->pos, NULL, "resolver: at most %u servers", AG_RESOLVER_SERVERS);
            return;
        }
        read_server(c, diags, &out);
    }
    AG_ASSERT(!out.overflow);
}

void ag_model_read_resolver(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    static const char *const keys[] = {"servers", "timeout", "attempts"};
    static const struct ag_resolver_settings defaults = AG_RESOLVER_SETTINGS_DEFAULT;
    const struct ag_node *timeout = ag_node_get(n, "timeout");
    uint64_t value = 0;

    m->resolver = defaults;
    if (!ag_node_check_keys(n, diags, "server.resolver", keys, AG_COUNT(keys))) {
        return;
    }
    read_servers(ag_node_get(n, "servers"), diags, &m->resolver);
    if (ag_node_duration(timeout, diags, &value)) {
        if (value < TIMEOUT_MIN_MS || value > TIMEOUT_MAX_MS) {
            ag_diag_error(diags, timeout->pos, NULL, "timeout must lie between 10ms and 60s");
        } else {
            m->resolver.timeout_ms = (uint32_t)value;
        }
    }
    if (ag_node_u64(ag_node_get(n, "attempts"), diags, 1, ATTEMPTS_MAX, &value)) {
        m->resolver.attempts = (uint32_t)value;
    }
}
