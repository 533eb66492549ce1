/* Records of name servers to servers of an upstream. */
#include "actions/upstream/upstream_config.h"
#include "actions/upstream/upstream_discover.h"

_Static_assert(AG_SRV_MAX <= AG_UPSTREAM_SERVERS_MAX && AG_RESOLVE_ALL <= AG_UPSTREAM_SERVERS_MAX,
               "all that an answer holds has room");

/* Room for a text of the next server. */
static struct ag_buf text_of(struct ag_discovered *d)
{
    return ag_buf(&d->text[d->count * AG_DISCOVER_TEXT], AG_DISCOVER_TEXT);
}

/* Keeps proportions: the heaviest one of them is what all are measured by. */
static uint32_t weight_of(uint16_t weight, uint32_t heaviest)
{
    uint64_t w = weight;

    if (heaviest > AG_UPSTREAM_WEIGHT_MAX) {
        w = (w * AG_UPSTREAM_WEIGHT_MAX + heaviest / 2) / heaviest;
    }
    return w ? (uint32_t)w : 1;
}

/* Among those that serve together with the ones of `backup`. */
static uint32_t heaviest_of(const struct ag_srv_target *targets, uint32_t count, bool backup)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < count; i++) {
        if ((targets[i].priority != targets[0].priority) == backup && targets[i].weight > most) {
            most = targets[i].weight;
        }
    }
    return most;
}

void ag_discover_places(const struct ag_upstream *up, const struct ag_srv_target *targets,
                        uint32_t count, struct ag_discovered *out)
{
    const uint32_t heaviest[] = {heaviest_of(targets, count, false),
                                 heaviest_of(targets, count, true)};
    uint16_t usual = up->tls ? AG_UPSTREAM_TLS_PORT : AG_UPSTREAM_PLAIN_PORT;

    out->count = out->refused = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct ag_srv_target *t = &targets[i];
        struct ag_upstream_server *s = &out->servers[out->count];
        struct ag_buf text = text_of(out);

        *s = up->source.like;
        s->port = t->port;
        s->backup = t->priority != targets[0].priority;
        s->weight = weight_of(t->weight, heaviest[s->backup]);
        s->named = true;
        ag_buf_printf(&text, "%s:%u", t->host, t->port);
        s->written = ag_buf_span(&text);
        s->host = ag_span_sub(s->written, 0, t->host_len);
        s->authority = t->port == usual ? s->host : s->written;
        out->count++;
    }
}

void ag_discover_addresses(const struct ag_upstream *up, const union ag_addr *addrs, uint32_t count,
                           struct ag_discovered *out)
{
    out->count = out->refused = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct ag_upstream_server *s = &out->servers[out->count];
        struct ag_buf text = text_of(out);

        if (!ag_addresses_allow(&up->options.addresses, &addrs[i])) {
            out->refused++;
            continue;
        }
        *s = up->source.like;
        s->named = false;
        s->one_of = true;
        s->addr = addrs[i];
        ag_addr_format(&addrs[i], true, &text);
        s->written = ag_buf_span(&text);
        out->count++;
    }
}
