#include "actions/upstream/upstream_group.h"
#include "engine/resolver.h"

#include <criterion/criterion.h>

static struct ag_upstream_server server(const char *host, uint16_t port, uint32_t weight)
{
    return (struct ag_upstream_server){.host = ag_span_str(host),
                                       .authority = ag_span_str(host),
                                       .written = ag_span_str(host),
                                       .weight = weight,
                                       .port = port};
}

static struct ag_upstream upstream(uint64_t key, struct ag_upstream_server *servers, uint32_t count)
{
    return (struct ag_upstream){
        .key = {key, 1},
        .name = AG_SPAN("up"),
        .servers = servers,
        .server_count = count,
        .options = {.max_pending = 7,
                    .health = {.check = {.on = true}, .breaker = {.consecutive = 1}}}};
}

static struct ag_upstream searching(uint64_t key)
{
    struct ag_upstream up = upstream(key, NULL, 0);

    up.source.kind = AG_SOURCE_NAME;
    up.options.discovered = true;
    return up;
}

/* What a shard sees; lets go of it at once. */
struct seen {
    struct ag_upstream_options options;
    struct ag_upstream_member *members[AG_UPSTREAM_SERVERS_MAX];
    uint32_t count;
    uint32_t version;
};

static struct seen look(struct ag_upstream_group *g)
{
    struct seen s = {0};

    s.version = ag_upstream_group_read(g, &s.options, s.members, &s.count);
    for (uint32_t i = 0; i < s.count; i++) {
        if (s.members[i]) {
            ag_upstream_member_release(s.members[i]);
        }
    }
    return s;
}

static struct ag_upstream_groups *all;

static void setup(void)
{
    all = ag_upstream_groups_new();
    cr_assert_not_null(all);
}

static void teardown(void)
{
    ag_upstream_groups_free(all); /* asserts that nothing is held */
}

TestSuite(upstream_group, .init = setup, .fini = teardown);

Test(upstream_group, is_found_by_its_key_and_has_the_servers)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("b", 80, 3)};
    struct ag_upstream up = upstream(5, v, 2), other = upstream(6, v, 2);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct ag_upstream_group *same = ag_upstream_group_hold(all, &up, 1);
    struct ag_upstream_group *another = ag_upstream_group_hold(all, &other, 1);
    struct seen s = look(g);

    cr_assert_eq(g, same);
    cr_assert_neq(g, another);
    cr_assert_eq(all->count, 2);
    cr_assert_eq(s.count, 2);
    cr_assert_eq(s.options.max_pending, 7);
    cr_assert(ag_span_eq(s.members[1]->server.host, AG_SPAN("b")));
    cr_assert_eq(s.members[1]->weight, 3);
    cr_assert_neq(s.members[0]->identity, s.members[1]->identity);
    ag_upstream_group_release(g);
    ag_upstream_group_release(same);
    cr_assert_eq(all->count, 1);
    ag_upstream_group_release(another);
    cr_assert_eq(all->count, 0);
}

/* A reload: who stays is the same member, at its place; the place of who goes is free again. */
Test(upstream_group, follows_a_newer_configuration_and_no_older_one)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("b", 80, 1), server("c", 80, 1)};
    struct ag_upstream_server w[] = {server("c", 80, 9), server("d", 80, 1), server("e", 80, 1)};
    struct ag_upstream up = upstream(5, v, 3), next = upstream(5, w, 3);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct seen s = look(g), t;
    const struct ag_upstream_member *c = s.members[2];

    next.options.max_pending = 8;
    w[0].max_connections = 4;
    ag_upstream_group_follow(g, &next, 2);
    t = look(g);
    cr_assert_neq(t.version, s.version);
    cr_assert_eq(t.version, ag_upstream_group_version(g));
    cr_assert_eq(t.options.max_pending, 8);
    cr_assert_eq(t.count, 3, "new ones are where old ones were");
    cr_assert_eq(t.members[2], c);
    cr_assert_eq(c->weight, 9);
    cr_assert_eq(c->max_connections, 4);
    cr_assert(ag_span_eq(t.members[0]->server.host, AG_SPAN("d")));
    ag_upstream_group_follow(g, &up, 2);
    ag_upstream_group_follow(g, &up, 1);
    cr_assert_eq(look(g).version, t.version, "an older one changes nothing");
    ag_upstream_group_release(g);
}

Test(upstream_group, two_of_the_same_address_are_two)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("a", 80, 2)};
    struct ag_upstream up = upstream(5, v, 2), one = upstream(5, v, 1);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);

    cr_assert_eq(look(g).count, 2);
    ag_upstream_group_follow(g, &up, 2);
    cr_assert_eq(look(g).count, 2);
    ag_upstream_group_follow(g, &one, 3);
    cr_assert_eq(look(g).count, 1);
    ag_upstream_group_release(g);
}

Test(upstream_group, servers_come_and_go_and_outlive_a_reload)
{
    struct ag_upstream_server b = server("b", 80, 1),
                              found[] = {server("c", 1, 1), server("d", 1, 1)};
    struct ag_upstream up = searching(5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    bool changed;
    struct seen s;

    cr_assert_eq(ag_upstream_group_add(g, &b, AG_MEMBER_ORDERED), AG_OK);
    cr_assert_eq(ag_upstream_group_add(g, &b, AG_MEMBER_ORDERED), AG_EINVAL, "it is there");
    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_assert(changed);
    cr_assert_eq(look(g).count, 3);
    ag_upstream_group_follow(g, &up, 2);
    cr_assert_eq(look(g).count, 3);
    cr_assert_eq(ag_upstream_group_found(g, found + 1, 1, &changed), AG_OK);
    s = look(g);
    cr_assert_null(s.members[1]);
    cr_assert(ag_span_eq(s.members[2]->server.host, AG_SPAN("d")));
    cr_assert_eq(ag_upstream_group_remove(g, &b), AG_OK);
    cr_assert_eq(ag_upstream_group_remove(g, &b), AG_ENOENT);
    cr_assert_null(look(g).members[0]);
    ag_upstream_group_release(g);
}

Test(upstream_group, what_is_found_again_is_no_news)
{
    struct ag_upstream_server found[] = {server("c", 1, 1), server("d", 1, 1)};
    struct ag_upstream_server other[] = {server("d", 1, 1), server("c", 1, 1)};
    struct ag_upstream up = searching(5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    uint32_t version;
    bool changed;

    cr_assert_eq(ag_upstream_group_servers(g), AG_SERVERS_AWAITED);
    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_assert_eq(ag_upstream_group_servers(g), AG_SERVERS_KNOWN);
    version = ag_upstream_group_version(g);
    cr_assert_eq(ag_upstream_group_found(g, other, 2, &changed), AG_OK);
    cr_expect(!changed && ag_upstream_group_version(g) == version, "the same in another order");
    other[0].weight = 2;
    cr_assert_eq(ag_upstream_group_found(g, other, 2, &changed), AG_OK);
    cr_expect(changed && ag_upstream_group_version(g) != version);
    ag_upstream_group_release(g);
}

/* A priority that changes is no other server: its connections, and what is known of it, stay. */
Test(upstream_group, who_stands_by_may_change)
{
    struct ag_upstream_server found[] = {server("c", 1, 1)};
    struct ag_upstream up = searching(5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    const struct ag_upstream_member *m;
    bool changed;

    cr_assert_eq(ag_upstream_group_found(g, found, 1, &changed), AG_OK);
    m = look(g).members[0];
    cr_expect_not(m->backup);
    found[0].backup = true;
    cr_assert_eq(ag_upstream_group_found(g, found, 1, &changed), AG_OK);
    cr_expect(changed && look(g).members[0] == m && m->backup);
    ag_upstream_group_release(g);
}

Test(upstream_group, nothing_found_takes_nothing_away)
{
    struct ag_upstream_server found[] = {server("c", 1, 1)};
    struct ag_upstream up = searching(5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    bool changed;

    cr_expect(ag_upstream_group_not_found(g, AG_SERVERS_REFUSED));
    cr_expect_eq(ag_upstream_group_servers(g), AG_SERVERS_REFUSED);
    cr_expect(ag_upstream_group_not_found(g, AG_SERVERS_UNKNOWN));
    cr_expect_eq(ag_upstream_group_servers(g), AG_SERVERS_UNKNOWN);
    cr_assert_eq(ag_upstream_group_found(g, found, 1, &changed), AG_OK);
    cr_expect_not(ag_upstream_group_not_found(g, AG_SERVERS_UNKNOWN));
    cr_expect_eq(ag_upstream_group_servers(g), AG_SERVERS_KNOWN);
    cr_expect_eq(look(g).count, 1);
    ag_upstream_group_release(g);
}

/* From a list to a name: the list serves until something is found, what stays is the same member; and back. */
Test(upstream_group, a_list_becomes_a_name_and_a_list_again)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("b", 80, 1)};
    struct ag_upstream_server found[] = {server("b", 80, 1), server("c", 80, 1)};
    struct ag_upstream list = upstream(5, v, 2), name = searching(5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &list, 1);
    const struct ag_upstream_member *b = look(g).members[1];
    bool changed;

    ag_upstream_group_follow(g, &name, 2);
    cr_expect_eq(look(g).count, 2);
    cr_expect_eq(ag_upstream_group_servers(g), AG_SERVERS_KNOWN);
    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_expect(look(g).count == 2 && look(g).members[1] == b && b->origin == AG_MEMBER_FOUND);
    cr_expect(ag_span_eq(look(g).members[0]->server.host, AG_SPAN("c")));
    ag_upstream_group_follow(g, &list, 3);
    cr_expect(look(g).count == 2 && look(g).members[1] == b && b->origin == AG_MEMBER_CONFIGURED);
    cr_expect(ag_span_eq(look(g).members[0]->server.host, AG_SPAN("a")));
    /* The shard that looks may still be at the configuration before. */
    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_expect(!changed && look(g).members[1] == b && b->origin == AG_MEMBER_CONFIGURED);
    cr_expect_not(ag_upstream_group_not_found(g, AG_SERVERS_UNKNOWN));
    ag_upstream_group_release(g);
}

static struct ag_upstream_server one_of(const char *name, const char *address)
{
    struct ag_upstream_server s = server(name, 80, 1);

    s.one_of = true;
    cr_assert_eq(ag_addr_parse(ag_span_str(address), 80, &s.addr), AG_OK);
    return s;
}

/* Its addresses tell apart the servers of one name, as if they were listed. */
Test(upstream_group, addresses_of_a_name_are_servers_of_their_own)
{
    struct ag_upstream_server found[] = {one_of("api", "10.0.0.1"), one_of("api", "10.0.0.2")};
    struct ag_upstream_server v[] = {server("10.0.0.1", 80, 1)};
    struct ag_upstream up = searching(5), list = upstream(6, v, 1);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct ag_upstream_group *listed = ag_upstream_group_hold(all, &list, 1);
    const struct ag_upstream_member *second;
    bool changed;

    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_assert_eq(look(g).count, 2);
    second = look(g).members[1];
    cr_expect_neq(look(g).members[0]->identity, second->identity);
    cr_expect_eq(look(g).members[0]->identity, look(listed).members[0]->identity);
    cr_assert_eq(ag_upstream_group_found(g, found + 1, 1, &changed), AG_OK);
    cr_expect(look(g).members[1] == second && !look(g).members[0]);
    ag_upstream_group_release(listed);
    ag_upstream_group_release(g);
}

/* A configuration that allows less holds at once, whatever name servers say. */
Test(upstream_group, addresses_that_are_no_longer_allowed_go)
{
    struct ag_upstream_server found[] = {one_of("api", "10.0.0.1"), one_of("api", "8.8.8.8")};
    struct ag_upstream up = searching(5), less = searching(5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    bool changed;

    less.options.addresses = (struct ag_addresses){.limited = true, .public_ones = true};
    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    ag_upstream_group_follow(g, &less, 2);
    cr_expect(!look(g).members[0] && look(g).members[1]);
    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_expect(!look(g).members[0] && look(g).members[1], "what was found before it held");
    cr_expect_eq(ag_upstream_group_servers(g), AG_SERVERS_KNOWN);
    cr_assert_eq(ag_upstream_group_found(g, found, 1, &changed), AG_OK);
    cr_expect_eq(look(g).count, 0);
    cr_expect_eq(ag_upstream_group_servers(g), AG_SERVERS_REFUSED);
    ag_upstream_group_release(g);
}

Test(upstream_group, what_an_operator_removed_stays_away)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("a", 80, 2), server("b", 80, 1)};
    struct ag_upstream_server a = server("A", 80, 4), other = server("d", 1, 1);
    struct ag_upstream up = upstream(5, v, 3), without = upstream(5, v + 2, 1);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);

    cr_assert_eq(ag_upstream_group_remove(g, &a), AG_OK, "both, and names have no case");
    ag_upstream_group_follow(g, &up, 2);
    cr_assert_null(look(g).members[0]);
    cr_assert_eq(look(g).count, 3, "the configuration does not bring them back");

    cr_assert_eq(ag_upstream_group_add(g, &a, AG_MEMBER_ORDERED), AG_OK);
    cr_assert_null(g->removed);
    cr_assert_eq(look(g).members[0]->origin, AG_MEMBER_CONFIGURED);
    cr_assert_eq(look(g).members[0]->weight, 4);
    cr_assert_eq(ag_upstream_group_remove(g, &a), AG_OK);
    ag_upstream_group_follow(g, &up, 3);
    cr_assert_eq(ag_upstream_group_remove(g, &a), AG_ENOENT, "it was removed once more");
    ag_upstream_group_follow(g, &without, 4);
    cr_assert_null(g->removed, "it was gone");
    ag_upstream_group_follow(g, &up, 5);
    cr_assert_eq(ag_upstream_group_remove(g, &a), AG_OK, "and is new");
    cr_assert_eq(ag_upstream_group_add(g, v, AG_MEMBER_ORDERED), AG_OK);
    cr_assert_eq(ag_upstream_group_remove(g, v), AG_OK);
    cr_assert_eq(ag_upstream_group_add(g, &other, AG_MEMBER_ORDERED), AG_OK);
    cr_assert_eq(ag_upstream_group_remove(g, &other), AG_OK);
    cr_assert_null(g->removed->next_removed, "nobody would bring back who was ordered");
    ag_upstream_group_release(g);
}

Test(upstream_group, nor_does_discovery_bring_back_what_an_operator_removed)
{
    struct ag_upstream_server found[] = {server("c", 1, 1), server("d", 1, 1)};
    struct ag_upstream up = searching(5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    bool changed;

    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_assert_eq(ag_upstream_group_remove(g, found), AG_OK);
    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_expect(!changed && !look(g).members[0]);
    cr_assert_eq(ag_upstream_group_add(g, found, AG_MEMBER_ORDERED), AG_OK);
    cr_assert_null(g->removed);
    cr_assert_eq(look(g).members[0]->origin, AG_MEMBER_FOUND);
    cr_assert_eq(ag_upstream_group_remove(g, found), AG_OK);
    cr_assert_eq(ag_upstream_group_found(g, found + 1, 1, &changed), AG_OK);
    cr_assert_null(g->removed, "it was gone");
    cr_assert_eq(ag_upstream_group_found(g, found, 2, &changed), AG_OK);
    cr_expect(changed && look(g).members[0], "and is new");
    ag_upstream_group_release(g);
}

Test(upstream_group, finds_servers_by_their_place)
{
    struct ag_upstream_server v[] = {server("h", 80, 1), server("h", 81, 2), server("h", 80, 3),
                                     server("::1", 80, 1)};
    struct ag_upstream_server place = server("H", 80, 1), literal = server("0::1", 80, 1);
    struct ag_upstream_member *members[AG_UPSTREAM_SERVERS_MAX];
    struct ag_upstream_group *g;
    struct ag_upstream up = upstream(5, v, 4);

    for (size_t i = 0; i < 3; i++) {
        v[i].named = true;
        v[i].zone = AG_SPAN("z");
    }
    place.named = true;
    cr_assert_eq(ag_addr_parse(AG_SPAN("::1"), 80, &v[3].addr), AG_OK);
    cr_assert_eq(ag_addr_parse(AG_SPAN("0::1"), 80, &literal.addr), AG_OK);
    g = ag_upstream_group_hold(all, &up, 1);
    cr_assert_eq(ag_upstream_group_at(g, &place, members), 2);
    cr_assert_eq(members[1]->weight, 3);
    cr_assert(ag_span_eq(members[1]->server.zone, AG_SPAN("z")));
    cr_assert_neq(members[1]->server.zone.ptr, v[2].zone.ptr, "a copy");
    ag_upstream_member_release(members[0]);
    ag_upstream_member_release(members[1]);
    cr_assert_eq(ag_upstream_group_at(g, &literal, members), 1);
    ag_upstream_member_release(members[0]);
    place.port = 82;
    cr_assert_eq(ag_upstream_group_at(g, &place, members), 0);
    cr_assert_eq(ag_upstream_group_add(g, &literal, AG_MEMBER_ORDERED), AG_EINVAL);
    ag_upstream_group_release(g);
}

Test(upstream_group, has_no_more_than_so_many)
{
    struct ag_upstream_server v[AG_UPSTREAM_SERVERS_MAX], more = server("more", 1, 1);
    struct ag_upstream up = upstream(5, v, AG_UPSTREAM_SERVERS_MAX);
    struct ag_upstream_group *g;

    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        v[i] = server("a", (uint16_t)(1 + i), 1);
    }
    g = ag_upstream_group_hold(all, &up, 1);
    cr_assert_eq(look(g).count, AG_UPSTREAM_SERVERS_MAX);
    cr_assert_eq(ag_upstream_group_add(g, &more, AG_MEMBER_ORDERED), AG_ENOMEM);
    ag_upstream_group_release(g);
}

Test(upstream_group, flags_and_weights_are_news)
{
    struct ag_upstream_server v[] = {server("a", 80, 1)};
    struct ag_upstream up = upstream(5, v, 1);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct ag_upstream_member *m = look(g).members[0];
    uint32_t version = look(g).version;

    ag_upstream_member_mark(m, 0, AG_MEMBER_DOWN, 5);
    cr_assert_eq(look(g).version, version, "nothing has changed");
    ag_upstream_member_mark(m, AG_MEMBER_DOWN | AG_MEMBER_EJECTED, 0, 5);
    cr_assert(!ag_upstream_member_is_up(m));
    cr_assert_neq(look(g).version, version);
    ag_upstream_member_mark(m, 0, AG_MEMBER_DOWN, 6);
    cr_assert_eq(m->up_ms, 0, "it is still kept away");
    ag_upstream_member_mark(m, 0, AG_MEMBER_EJECTED, 7);
    cr_assert(ag_upstream_member_is_up(m));
    cr_assert_eq(m->up_ms, 7);
    version = look(g).version;
    ag_upstream_member_weigh(m, 4);
    cr_assert_eq(m->weight, 4);
    cr_assert_neq(look(g).version, version);
    /* An ordered weight outlives a reload that does not change the configured one. */
    ag_upstream_group_follow(g, &up, 2);
    cr_assert_eq(m->weight, 4);
    ag_upstream_group_release(g);
}

/* A member lives as long as a shard holds it. */
Test(upstream_group, a_removed_member_is_still_there_for_who_holds_it)
{
    struct ag_upstream_server v[] = {server("a", 80, 1)};
    struct ag_upstream up = upstream(5, v, 1), none = upstream(5, v, 0);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct seen s = {0};

    s.version = ag_upstream_group_read(g, &s.options, s.members, &s.count);
    ag_upstream_group_follow(g, &none, 2);
    cr_assert(s.members[0]->flags & AG_MEMBER_REMOVED);
    cr_assert(ag_span_eq(s.members[0]->server.host, AG_SPAN("a")));
    ag_upstream_member_release(s.members[0]);
    ag_upstream_group_release(g);
}

static void count_one(void *arg, struct ag_upstream_group *g)
{
    (void)g;
    ++*(int *)arg;
}

Test(upstream_group, is_kept_until_two_configurations_are_without_it)
{
    struct ag_upstream_server v[] = {server("a", 80, 1)};
    struct ag_upstream up = upstream(5, v, 1);
    const struct ag_upstream *list[] = {&up};
    struct ag_upstream_group *g;
    int n = 0;

    ag_upstream_groups_configure(all, list, 1, 1);
    g = ag_upstream_group_hold(all, &up, 1);
    ag_upstream_group_keep(g);
    ag_upstream_group_keep(g);
    ag_upstream_group_release(g);
    ag_upstream_groups_each(all, count_one, &n);
    cr_assert_eq(n, 1);
    ag_upstream_groups_configure(all, list, 1, 2);
    ag_upstream_groups_configure(all, NULL, 0, 2);
    cr_assert_eq(all->count, 1, "that was no newer one");
    ag_upstream_groups_configure(all, NULL, 0, 3);
    cr_expect_eq(all->count, 1, "shards that come to it later still use the one before");
    ag_upstream_groups_configure(all, NULL, 0, 4);
    cr_assert_eq(all->count, 0);
}

/* ---- what keeps members away ---- */

static const struct ag_breaker_options strict = {.consecutive = 1, .for_ms = 5, .max_for_ms = 5};

static bool eject(struct ag_upstream_member *m, uint32_t max_percent)
{
    (void)!ag_breaker_open(&m->breaker, &strict, 5);
    return ag_upstream_member_eject(m, max_percent);
}

/* Between the two halves of its ejection: it would never be asked again, for a breaker that is closed has no trials. */
Test(upstream_group, who_was_taken_up_meanwhile_stays)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("b", 80, 1)};
    struct ag_upstream up = upstream(5, v, 2);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct ag_upstream_member *m = look(g).members[0];

    cr_assert(ag_upstream_member_mark(m, AG_MEMBER_DOWN, 0, 5));
    cr_assert(ag_breaker_open(&m->breaker, &strict, 5));
    cr_assert(ag_upstream_member_take_up(m, 6));
    cr_assert_not(ag_upstream_member_eject(m, 100));
    cr_assert(ag_upstream_member_is_up(m));
    cr_assert(eject(m, 50));
    cr_assert(ag_upstream_member_take_up(m, 7));
    cr_assert_eq(ag_breaker_state(&m->breaker), AG_BREAKER_CLOSED);
    cr_assert_not(ag_upstream_member_take_up(m, 8));
    ag_upstream_group_release(g);
}

Test(upstream_group, no_more_are_ejected_than_the_bound_says)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("b", 80, 1), server("c", 80, 1),
                                     server("d", 80, 1), server("e", 80, 1)};
    struct ag_upstream up = upstream(5, v, 5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct seen s = look(g);

    cr_assert(eject(s.members[0], 50));
    cr_assert_neq(look(g).version, s.version);
    cr_assert_not(eject(s.members[0], 50), "it is");
    cr_assert(eject(s.members[1], 50));
    cr_assert_not(eject(s.members[2], 50), "three of five are more than half");
    cr_assert(ag_upstream_member_is_up(s.members[2]));
    (void)ag_upstream_member_mark(s.members[4], AG_MEMBER_DRAINED, 0, 1);
    (void)ag_upstream_member_mark(s.members[0], 0, AG_MEMBER_EJECTED, 1);
    cr_assert(eject(s.members[2], 50), "two of four");
    cr_assert_not(eject(s.members[3], 50));
    cr_assert(eject(s.members[3], 75));
    ag_upstream_group_release(g);
}

/* Members that are gone, and their places, are none that count. */
Test(upstream_group, the_only_one_stays)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("b", 80, 1)};
    struct ag_upstream up = upstream(5, v, 2), one = upstream(5, v + 1, 1);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct ag_upstream_member *b = look(g).members[1];

    ag_upstream_group_follow(g, &one, 2);
    cr_assert_not(eject(b, 50));
    cr_assert_not(eject(b, 99));
    cr_assert(eject(b, 100));
    ag_upstream_group_release(g);
}

Test(upstream_group, what_is_switched_off_keeps_nobody_away)
{
    struct ag_upstream_server v[] = {server("a", 80, 1)};
    struct ag_upstream up = upstream(5, v, 1), off = upstream(5, v, 1);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct ag_upstream_member *m = look(g).members[0];
    const struct ag_breaker_options o = {.consecutive = 1, .for_ms = 5, .max_for_ms = 5};

    off.options.health = (struct ag_health_options){0};
    cr_assert(ag_breaker_open(&m->breaker, &o, 5));
    cr_assert(
        ag_upstream_member_mark(m, AG_MEMBER_DOWN | AG_MEMBER_EJECTED | AG_MEMBER_DRAINED, 0, 5));
    ag_upstream_group_follow(g, &up, 2);
    cr_assert_eq(m->flags, AG_MEMBER_DOWN | AG_MEMBER_EJECTED | AG_MEMBER_DRAINED,
                 "it stays known");
    ag_upstream_group_follow(g, &off, 3);
    cr_assert_eq(m->flags, AG_MEMBER_DRAINED);
    cr_assert_eq(ag_breaker_state(&m->breaker), AG_BREAKER_CLOSED);
    cr_assert_not(ag_upstream_member_mark(m, AG_MEMBER_DOWN, 0, 6), "a check that ended too late");
    ag_upstream_group_release(g);
}

Test(upstream_group, new_members_may_begin_down)
{
    struct ag_upstream_server v[] = {server("a", 80, 1)}, b = server("b", 80, 1);
    struct ag_upstream up = upstream(5, v, 1);
    struct ag_upstream_group *g;

    up.options.health.check.starts_down = true;
    g = ag_upstream_group_hold(all, &up, 1);
    cr_assert_eq(ag_upstream_group_add(g, &b, AG_MEMBER_ORDERED), AG_OK);
    cr_assert_eq(look(g).members[0]->flags, AG_MEMBER_DOWN);
    cr_assert_eq(look(g).members[1]->flags, AG_MEMBER_DOWN);
    ag_upstream_group_release(g);
}
