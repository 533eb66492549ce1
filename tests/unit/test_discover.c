/*
 * Goal: what name servers say becomes the servers that it means: weights in proportion and within bounds, the lowest
 * priority serves, names stay names, addresses that are not allowed are left out.
 * Method: records and servers spelt out as text, a row each.
 */
#include "actions/upstream/upstream_discover.h"

#include "actions/upstream/upstream_group.h"
#include "engine/resolver.h"
#include "tests/unit/loops.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct ag_discovered *found;

static void setup(void)
{
    found = malloc(sizeof(*found));
    cr_assert(found);
}

static void teardown(void)
{
    free(found);
}

TestSuite(discover, .init = setup, .fini = teardown);

/* "priority weight port host, ..." */
static uint32_t read_targets(const char *text, struct ag_srv_target out[static 8])
{
    uint32_t count = 0;

    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 2 : NULL) {
        struct ag_srv_target *t = &out[count++];
        size_t len;
        char *end;

        *t = (struct ag_srv_target){0};
        t->priority = (uint16_t)strtoul(at, &end, 10);
        t->weight = (uint16_t)strtoul(end, &end, 10);
        t->port = (uint16_t)strtoul(end, &end, 10);
        len = strcspn(end + 1, ",");
        memcpy(t->host, end + 1, len);
        t->host_len = (uint8_t)len;
    }
    return count;
}

/* "authority=weight, ..."; those that stand by in brackets. */
static void check_found(const char *given, const char *want)
{
    char text[512] = "";
    size_t n = 0;

    for (uint32_t i = 0; i < found->count; i++) {
        const struct ag_upstream_server *s = &found->servers[i];

        n += (size_t)snprintf(text + n, sizeof(text) - n, s->backup ? "%s[%.*s=%u]" : "%s%.*s=%u",
                              i ? ", " : "", (int)s->authority.len, (const char *)s->authority.ptr,
                              s->weight);
    }
    cr_expect_str_eq(text, want, "%s: %s, not %s", given, text, want);
}

Test(discover, records_to_servers)
{
    static const struct {
        const char *targets, *servers;
    } rows[] = {
        {"0 1 80 a.test", "a.test=1"},
        {"0 0 8080 a.test", "a.test:8080=1"},
        {"0 1 443 a.test", "a.test:443=1"},
        /* Those of one priority share in proportion. */
        {"0 1 81 a, 0 3 82 b", "a:81=1, b:82=3"},
        {"7 0 81 a, 7 0 82 b", "a:81=1, b:82=1"},
        {"0 0 81 a, 0 10 82 b", "a:81=1, b:82=10"},
        {"0 1000 81 a, 0 500 82 b", "a:81=1000, b:82=500"},
        {"0 1001 81 a, 0 1001 82 b", "a:81=1000, b:82=1000"},
        {"0 65535 81 a, 0 32768 82 b, 0 1 83 c, 0 0 84 d", "a:81=1000, b:82=500, c:83=1, d:84=1"},
        {"0 60000 81 a, 0 20000 82 b", "a:81=1000, b:82=333"},
        /* All but the lowest number stand by, and are measured by themselves. */
        {"1 5 81 a, 2 9 82 b, 3 7 83 c", "a:81=5, [b:82=9], [c:83=7]"},
        {"10 2000 81 a, 10 1000 82 b, 20 3 83 c, 30 6 84 d",
         "a:81=1000, b:82=500, [c:83=3], [d:84=6]"},
        {"0 1 81 a, 65535 65535 82 b, 65535 0 83 c", "a:81=1, [b:82=1000], [c:83=1]"},
        /* The same host at two ports is two servers. */
        {"0 1 81 a, 0 1 82 a", "a:81=1, a:82=1"},
    };
    const struct ag_upstream up = {.source = {.kind = AG_SOURCE_SRV, .like = {.weight = 1}}};
    struct ag_srv_target targets[8];

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        ag_discover_places(&up, targets, read_targets(rows[i].targets, targets), found);
        check_found(rows[i].targets, rows[i].servers);
    }
}

Test(discover, the_usual_port_of_tls_is_not_said)
{
    const struct ag_tls_client_settings tls = {0};
    const struct ag_upstream up = {.tls = &tls};
    struct ag_srv_target targets[8];

    ag_discover_places(&up, targets, read_targets("0 1 443 a, 0 1 80 b", targets), found);
    check_found("443", "a=1, b:80=1");
}

Test(discover, a_target_is_a_name_like_the_source)
{
    const struct ag_upstream up = {.source = {.like = {.host = AG_SPAN_INIT("_x._tcp.a"),
                                                       .zone = AG_SPAN_INIT("z"),
                                                       .remote = true}}};
    struct ag_srv_target targets[8];
    const struct ag_upstream_server *s = &found->servers[0];

    ag_discover_places(&up, targets, read_targets("0 1 81 a.test", targets), found);
    cr_assert_eq(found->count, 1);
    cr_expect(s->named && !s->one_of && s->remote && s->port == 81);
    cr_expect(ag_span_eq(s->host, AG_SPAN("a.test")) && ag_span_eq(s->zone, AG_SPAN("z")));
    cr_expect(ag_span_eq(s->written, AG_SPAN("a.test:81")));
}

/* The longest name and the longest port fit, for as many as there are. */
Test(discover, as_many_and_as_long_as_may_be)
{
    struct ag_srv_target *targets = calloc(AG_SRV_MAX, sizeof(*targets));
    const struct ag_upstream up = {0};

    cr_assert(targets);
    for (uint32_t i = 0; i < AG_SRV_MAX; i++) {
        memset(targets[i].host, 'a', AG_DNS_NAME_MAX);
        targets[i].host_len = AG_DNS_NAME_MAX;
        targets[i].port = (uint16_t)(65535 - i);
        targets[i].weight = 65535;
    }
    ag_discover_places(&up, targets, AG_SRV_MAX, found);
    cr_assert_eq(found->count, AG_SRV_MAX);
    for (uint32_t i = 0; i < AG_SRV_MAX; i++) {
        const struct ag_upstream_server *s = &found->servers[i];

        cr_assert(s->host.len == AG_DNS_NAME_MAX && s->authority.len == AG_DNS_NAME_MAX + 6);
    }
    free(targets);
}

static union ag_addr addr(const char *text)
{
    union ag_addr a;

    cr_assert_eq(ag_addr_parse(ag_span_str(text), 8080, &a), AG_OK, "%s", text);
    return a;
}

Test(discover, addresses_to_servers)
{
    struct ag_upstream up = {.source = {.kind = AG_SOURCE_NAME,
                                        .like = {.host = AG_SPAN_INIT("api.test"),
                                                 .authority = AG_SPAN_INIT("api.test:8080"),
                                                 .written = AG_SPAN_INIT("api.test:8080"),
                                                 .weight = 1,
                                                 .port = 8080,
                                                 .named = true}}};
    const union ag_addr addrs[] = {addr("10.0.0.1"), addr("8.8.8.8"), addr("2600::1")};
    const struct ag_upstream_server *s = found->servers;

    ag_discover_addresses(&up, addrs, 3, found);
    cr_assert(found->count == 3 && found->refused == 0);
    for (uint32_t i = 0; i < 3; i++) {
        cr_expect(ag_addr_same(&s[i].addr, &addrs[i]) && s[i].one_of && !s[i].named);
        cr_expect(ag_span_eq(s[i].host, AG_SPAN("api.test")),
                  "what Host and certificates are about");
    }
    cr_expect(ag_span_eq(s[2].written, AG_SPAN("[2600::1]:8080")));

    up.options.addresses = (struct ag_addresses){.limited = true, .public_ones = true};
    ag_discover_addresses(&up, addrs, 3, found);
    cr_assert(found->count == 2 && found->refused == 1);
    cr_expect(ag_addr_same(&s[0].addr, &addrs[1]) && ag_addr_same(&s[1].addr, &addrs[2]));
}

/* The shard that looks for servers may end before others, one of which asks for the first time then. */
BOTH(discover, what_is_known_outlives_who_looks)
{
    struct ag_upstream up = {.key = {1, 1},
                             .name = AG_SPAN_INIT("up"),
                             .options = {.discovered = true},
                             .source = {.kind = AG_SOURCE_NAME,
                                        .like = {.host = AG_SPAN_INIT("localhost"),
                                                 .authority = AG_SPAN_INIT("localhost"),
                                                 .written = AG_SPAN_INIT("localhost"),
                                                 .weight = 1,
                                                 .port = 80,
                                                 .named = true}}};
    const struct ag_upstream *ups[] = {&up};
    struct ag_upstream_groups *groups = ag_upstream_groups_new();
    struct fixture *f = fixture_new(kind, 4, 4);
    struct ag_upstreams *u = ag_upstreams_new(&f->loop, 2, groups);
    struct ag_upstream_group *g;

    cr_assert(groups && u && ag_resolver_init(&f->loop) == AG_OK);
    u->discover = ag_discover_new(u);
    cr_assert(u->discover);
    ag_upstreams_use(u, NULL, ups, 1);
    g = ag_upstream_group_hold(groups, &up, u->order);
    turn_until(&f->loop, ag_upstream_group_servers(g) != AG_SERVERS_AWAITED);
    ag_upstream_group_release(g);
    ag_upstreams_use(u, NULL, NULL, 0); /* a shard that is not there yet goes by the one before */
    ag_upstreams_free(u);

    g = ag_upstream_group_hold(groups, &up, 1);
    cr_expect_eq(ag_upstream_group_servers(g), AG_SERVERS_KNOWN);
    ag_upstream_group_release(g);
    ag_upstream_groups_free(groups);
    ag_resolver_deinit(&f->loop);
    fixture_free(f);
}
