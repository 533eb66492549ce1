#include "actions/proxy/proxy_describe.h"

#include "actions/proxy/relay_config.h"
#include "actions/proxy/rewrite_config.h"
#include "engine/dns_srv.h"

#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdlib.h>

/* Names that one check asks for: each may take seconds where nobody answers. */
#define NAMES_MAX 64u

static void put_server(struct ag_buf *out, const struct ag_upstream_server *server)
{
    bool v6 = server->port && ag_span_find(server->host, ':') < server->host.len;

    ag_buf_put(out, v6 ? AG_SPAN("[") : AG_SPAN(""));
    ag_buf_put(out, server->host);
    ag_buf_put(out, v6 ? AG_SPAN("]") : AG_SPAN(""));
    if (server->port) {
        ag_buf_putc(out, ':');
        ag_buf_put_u64(out, server->port);
    }
    if (server->weight != 1) {
        ag_buf_put(out, AG_SPAN(" weight="));
        ag_buf_put_u64(out, server->weight);
    }
    if (server->max_connections != 0) {
        ag_buf_put(out, AG_SPAN(" max="));
        ag_buf_put_u64(out, server->max_connections);
    }
    if (server->zone.len > 0) {
        ag_buf_put(out, AG_SPAN(" zone="));
        ag_buf_put(out, server->zone);
    }
    ag_buf_put(out, server->backup ? AG_SPAN(" backup") : AG_SPAN(""));
}

/* Where its servers are looked for, and what names may lead to. */
static void put_source(struct ag_buf *out, const struct ag_upstream *u)
{
    const struct ag_upstream_source *s = &u->source;

    if (s->kind != AG_SOURCE_LISTED) {
        ag_buf_put(out, s->kind == AG_SOURCE_SRV ? AG_SPAN(" the targets of ")
                                                 : AG_SPAN(" each address of "));
        ag_buf_put(out, s->like.written);
        if (s->like.zone.len > 0) {
            ag_buf_put(out, AG_SPAN(" zone="));
            ag_buf_put(out, s->like.zone);
        }
        if (s->refresh_ms > 0) {
            ag_buf_printf(out, ", asked for every %ums at least", s->refresh_ms);
        }
    }
    if (u->options.addresses.limited) {
        ag_buf_put(out, AG_SPAN(", names lead to addresses of: "));
        ag_addresses_put(&u->options.addresses, out);
    }
}

/* How one of its servers is chosen, where that is not by turns. */
static void put_choice(const struct ag_balance_options *o, struct ag_buf *out)
{
    if (o->kind != AG_BALANCE_ROUND_ROBIN || o->sticky.name.len > 0) {
        ag_buf_put(out, AG_SPAN("    chosen: "));
        ag_balance_describe(o, out);
        ag_buf_putc(out, '\n');
    }
}

static void put_variant(struct ag_buf *out, const struct ag_proxy_variant *v)
{
    const struct ag_upstream *u = v->upstream;

    if (!u) {
        return;
    }
    ag_buf_printf(out, "    %.*s: ", (int)v->scheme.len, (const char *)v->scheme.ptr);
    if (!u->tls) {
        ag_buf_put(out, AG_SPAN("HTTP/2 without TLS\n"));
        return;
    }
    ag_buf_put(out, u->tls->h2 && u->tls->h1 ? AG_SPAN("HTTP/2 or HTTP/1.1 over TLS")
                    : u->tls->h2             ? AG_SPAN("HTTP/2 over TLS")
                                             : AG_SPAN("HTTP/1.1 over TLS"));
    ag_buf_put(out, !u->tls->verify     ? AG_SPAN(", not verified")
                    : u->options.tls.ca ? AG_SPAN(", verified by ")
                                        : AG_SPAN(", verified by the system's authorities"));
    if (u->tls->verify && u->options.tls.ca) {
        ag_buf_put(out, u->options.tls.ca->text);
    }
    if (u->tls->server_name.len) {
        ag_buf_put(out, AG_SPAN(", as "));
        ag_buf_put(out, u->tls->server_name);
    }
    if (u->tls->identity) {
        ag_buf_put(out, AG_SPAN(", showing "));
        ag_buf_put(out, u->tls->identity->subject);
    }
    ag_buf_putc(out, '\n');
}

static void put_rewriting(struct ag_buf *out, const struct ag_proxy_rewriting *first)
{
    ag_buf_put(out, first ? AG_SPAN("rewriting\n") : AG_SPAN(""));
    for (const struct ag_proxy_rewriting *r = first; r; r = r->next) {
        ag_buf_printf(out, "  %.*s: ", (int)r->pattern.len, (const char *)r->pattern.ptr);
        ag_rewrite_describe(r->rewrite, out);
        ag_buf_putc(out, '\n');
    }
}

/* "  /pattern\n" and what is its own below. */
static void put_route(struct ag_buf *out, const struct ag_proxy_route *r)
{
    const struct ag_mirror_settings *m = r->settings->mirror;

    ag_buf_printf(out, "  %.*s\n", (int)r->pattern.len, (const char *)r->pattern.ptr);
    if (r->retry) {
        ag_retry_describe(&r->settings->retry, out);
    }
    if (r->buffer) {
        ag_buffer_describe(&r->settings->buffer, out);
    }
    if (m) {
        ag_buf_printf(out, "    mirrored to %.*s: %u.%02u%%, content up to %uk\n",
                      (int)m->upstream->name.len, (const char *)m->upstream->name.ptr,
                      m->parts / 100, m->parts % 100, m->buffer_bytes / 1024);
    }
}

void ag_proxy_describe(const void *section, struct ag_buf *out)
{
    const struct ag_proxy_section *s = section;

    ag_relay_describe(s, out);
    if (!s->first) {
        return;
    }
    ag_buf_put(out, AG_SPAN("upstreams\n"));
    for (const struct ag_proxy_name *n = s->first; n; n = n->following) {
        ag_buf_printf(out, "  %.*s ", (int)n->name.len, (const char *)n->name.ptr);
        for (size_t pad = n->name.len; pad < 15; pad++) {
            ag_buf_putc(out, ' ');
        }
        for (uint32_t i = 0; n->upstream && i < n->upstream->server_count; i++) {
            ag_buf_put(out, i ? AG_SPAN(", ") : AG_SPAN(" "));
            put_server(out, &n->upstream->servers[i]);
        }
        if (n->upstream) {
            put_source(out, n->upstream);
        }
        if (n->upstream && n->upstream->options.proxy_protocol != AG_PROXY_PROTOCOL_NONE) {
            ag_buf_printf(out, ", told whose by PROXY v%u", n->upstream->options.proxy_protocol);
        }
        ag_buf_putc(out, '\n');
        if (n->upstream) {
            put_choice(&n->upstream->options.balance, out);
            ag_health_describe(&n->upstream->options.health, out);
            ag_retry_describe(&n->upstream->options.retry, out);
            ag_buffer_describe(&n->upstream->options.buffer, out);
        }
        for (const struct ag_proxy_variant *v = n->variants; v; v = v->next) {
            put_variant(out, v);
        }
    }
    if (s->folder_path) {
        ag_buf_printf(out, "buffers on disk\n  %s, %lluk in all\n", s->folder_path,
                      (unsigned long long)(s->place.total_bytes / 1024));
    }
    put_rewriting(out, s->first_rewriting);
    ag_buf_put(out, s->first_route ? AG_SPAN("routes to them with settings of their own\n")
                                   : AG_SPAN(""));
    for (const struct ag_proxy_route *r = s->first_route; r; r = r->next) {
        put_route(out, r);
    }
}

static void warn_unresolved(const struct ag_proxy_name *n, const char *name, const char *why,
                            struct ag_diags *diags)
{
    const char *near =
        n->listed ? NULL : ag_proxy_nearest(n->upstream->config, diags, ag_span_str(name));

    ag_diag_warn(diags, n->pos,
                 near ? near
                 : n->upstream->source.kind == AG_SOURCE_LISTED
                     ? "it is asked for again while serving; until then: 502"
                     : "it is asked for again while serving; until then: 503",
                 "the name %s does not resolve: %s", name, why);
}

static void resolve(const struct ag_proxy_name *n, const struct ag_upstream_server *server,
                    struct ag_diags *diags)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char name[256];
    int err;

    if (server->host.len >= sizeof(name)) {
        return;
    }
    memcpy(name, server->host.ptr, server->host.len);
    name[server->host.len] = '\0';
    err = getaddrinfo(name, NULL, &hints, &found);
    if (err) {
        warn_unresolved(n, name, gai_strerror(err), diags);
        return;
    }
    freeaddrinfo(found);
}

static void resolve_service(const struct ag_proxy_name *n, struct ag_diags *diags)
{
    struct asked {
        struct ag_srv_answer answer;
        uint8_t message[NS_MAXMSG];
    } *asked = malloc(sizeof(*asked));
    struct ag_span host = n->upstream->source.like.host;
    char name[AG_DNS_NAME_MAX + 1];
    int len;

    AG_ASSERT(asked && host.len < sizeof(name)); /* it was checked when it was read */
    memcpy(name, host.ptr, host.len);
    name[host.len] = '\0';
    len = res_query(name, ns_c_in, ns_t_srv, asked->message, NS_MAXMSG);
    if (len < 0) {
        warn_unresolved(n, name, hstrerror(h_errno), diags);
    } else if (ag_dns_srv_parse(ag_span(asked->message, ag_min_size((size_t)len, NS_MAXMSG)),
                                &asked->answer) != AG_OK) {
        warn_unresolved(n, name, "no server is named there", diags);
    }
    free(asked);
}

/* The name that its servers are looked for by. */
static void resolve_source(const struct ag_proxy_name *n, struct ag_diags *diags)
{
    switch (n->upstream->source.kind) {
    case AG_SOURCE_LISTED:
        break;
    case AG_SOURCE_SRV:
        resolve_service(n, diags);
        break;
    case AG_SOURCE_NAME:
        resolve(n, &n->upstream->source.like, diags);
        break;
    }
}

static void examine_tls(const struct ag_proxy_name *n, struct ag_diags *diags)
{
    bool used = false, unverified = false, has_ca = false;

    for (const struct ag_proxy_variant *v = n->variants; v; v = v->next) {
        used |= v->upstream && v->upstream->tls;
        unverified |= v->upstream && v->upstream->tls && !v->upstream->tls->verify;
        has_ca |= v->upstream && v->upstream->options.tls.ca;
    }
    if (unverified) {
        ag_diag_warn(diags, n->pos,
                     has_ca ? "remove verify: false" : "name its authority by ca: FILE",
                     "servers of %.*s are not verified: whoever is on the way can read and change "
                     "everything",
                     (int)n->name.len, (const char *)n->name.ptr);
    }
    if (!used && n->has_tls_settings) {
        ag_diag_warn(diags, n->pos, "https://, h2:// and wss:// speak TLS",
                     "tls of %.*s has no effect: no route reaches it by TLS", (int)n->name.len,
                     (const char *)n->name.ptr);
    }
}

/* What no target can be written with, and a name of `mirror` or `tcp` alone could. */
static bool fits_a_target(struct ag_span name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] <= ' ' || name.ptr[i] == 0x7F || strchr("/?#\"{}*", name.ptr[i])) {
            return false;
        }
    }
    return name.len > 0;
}

static void examine_use(const struct ag_proxy_name *n, struct ag_diags *diags)
{
    if (n->listed && !n->used && !n->variants) {
        ag_diag_warn(
            diags, n->pos,
            fits_a_target(n->name) ? ag_arena_printf(diags->arena, "a target names it: http://%.*s",
                                                     (int)n->name.len, (const char *)n->name.ptr)
                                   : "no target can have that name: use letters, digits, "
                                     "\"-\", \".\" and \"_\"",
            "nothing leads to the upstream \"%.*s\"", (int)n->name.len, (const char *)n->name.ptr);
    }
}

void ag_proxy_examine(const void *section, struct ag_diags *diags)
{
    const struct ag_proxy_section *s = section;
    unsigned asked = 0;

    for (const struct ag_proxy_name *n = s->first; n; n = n->following) {
        examine_use(n, diags);
        examine_tls(n, diags);
        if (n->upstream && n->upstream->source.kind != AG_SOURCE_LISTED && !s->own_resolver &&
            asked++ < NAMES_MAX) {
            resolve_source(n, diags);
        }
        for (uint32_t i = 0; n->upstream && i < n->upstream->server_count; i++) {
            /* What the system's name servers say of others' names says nothing. */
            if (n->upstream->servers[i].named && !s->own_resolver && asked++ < NAMES_MAX) {
                resolve(n, &n->upstream->servers[i], diags);
            }
        }
    }
}
