/* Where servers are looked for, as the config says it. */
#include "actions/upstream/upstream_config.h"
#include "engine/dns_srv.h"

#define REFRESH_MIN_MS 1000u
#define REFRESH_MAX_MS 3600000u

static bool is_label_byte(uint8_t ch)
{
    return ag_ascii_lower(ch) != ch || (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') ||
           ch == '-' || ch == '_';
}

/* _service._proto.name (RFC 2782). */
static bool is_service(struct ag_span name)
{
    uint32_t labels = 0;

    if (name.len > AG_DNS_NAME_MAX) {
        return false;
    }
    for (size_t at = 0; at <= name.len; labels++) {
        struct ag_span rest = ag_span_sub(name, at, name.len);
        struct ag_span label = ag_span_sub(rest, 0, ag_span_find(rest, '.'));

        if (label.len == 0 || label.len > 63 || (labels < 2 && label.ptr[0] != '_') ||
            (labels < 2 && label.len < 2)) {
            return false;
        }
        for (size_t i = 0; i < label.len; i++) {
            if (!is_label_byte(label.ptr[i])) {
                return false;
            }
        }
        at += label.len + 1;
    }
    return labels > 2;
}

static bool read_service(const struct ag_node *n, struct ag_diags *diags,
                         struct ag_upstream_server *like)
{
    struct ag_span text;

    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    if (!is_service(text)) {
        ag_diag_error(diags, n->pos, "srv: _http._tcp.api.example.com",
                      "\"%.*s\" is not the name of a service", (int)text.len,
                      (const char *)text.ptr);
        return false;
    }
    like->host = like->authority = like->written = text;
    return true;
}

static bool read_name(const struct ag_node *n, struct ag_diags *diags,
                      struct ag_upstream_server *like)
{
    struct ag_span text;

    if (!ag_node_text(n, diags, &text) ||
        !ag_upstream_set_address(like, n->pos, text, AG_UPSTREAM_PLAIN_PORT, diags)) {
        return false;
    }
    if (!like->named) {
        ag_diag_error(diags, n->pos, "servers: [ADDRESS]", "\"%.*s\" is an address, not a name",
                      (int)text.len, (const char *)text.ptr);
        return false;
    }
    return true;
}

bool ag_upstream_read_source(struct ag_action_build *build, const struct ag_node *map,
                             struct ag_upstream_source *out)
{
    const struct ag_node *srv = ag_node_get(map, "srv"), *dns = ag_node_get(map, "dns");
    const struct ag_node *zone = ag_node_get(map, "zone");
    const struct ag_node_ms_bounds refresh = {REFRESH_MIN_MS, REFRESH_MAX_MS, "use 1s to 1h"};
    struct ag_upstream_source s = {.like = {.weight = 1}};
    bool ok;

    if (srv && dns) {
        ag_diag_error(build->diags, dns->key_pos, "leave out one of them",
                      "servers has both srv and dns");
        return false;
    }
    s.pos = (srv ? srv : dns)->pos;
    s.kind = srv ? AG_SOURCE_SRV : AG_SOURCE_NAME;
    ok = srv ? read_service(srv, build->diags, &s.like) : read_name(dns, build->diags, &s.like);
    ok = ag_node_ms(map, "refresh", refresh, build->diags, &s.refresh_ms) && ok;
    ok = (!zone || ag_node_text(zone, build->diags, &s.like.zone)) && ok;
    *out = s;
    return ok;
}
