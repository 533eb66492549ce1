#include "actions/upstream/upstream_group.h"

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
    struct ag_upstream_server v[] = {server("a", 80, 1)};
    struct ag_upstream_server b = server("b", 80, 1),
                              found[] = {server("c", 1, 1), server("d", 1, 1)};
    struct ag_upstream up = upstream(5, v, 1);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct seen s;

    cr_assert_eq(ag_upstream_group_add(g, &b, AG_MEMBER_ORDERED), AG_OK);
    cr_assert_eq(ag_upstream_group_add(g, &b, AG_MEMBER_ORDERED), AG_EINVAL, "it is there");
    cr_assert_eq(ag_upstream_group_found(g, found, 2), AG_OK);
    cr_assert_eq(look(g).count, 4);
    ag_upstream_group_follow(g, &up, 2);
    cr_assert_eq(look(g).count, 4);
    cr_assert_eq(ag_upstream_group_found(g, found + 1, 1), AG_OK);
    s = look(g);
    cr_assert_null(s.members[2]);
    cr_assert(ag_span_eq(s.members[3]->server.host, AG_SPAN("d")));
    cr_assert_eq(ag_upstream_group_remove(g, AG_SPAN("b")), AG_OK);
    cr_assert_eq(ag_upstream_group_remove(g, AG_SPAN("b")), AG_ENOENT);
    cr_assert_null(look(g).members[1]);
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

Test(upstream_group, is_kept_until_a_configuration_is_without_it)
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
    cr_assert_eq(all->count, 0);
}

/* ---- what keeps members away ---- */

Test(upstream_group, no_more_are_ejected_than_the_bound_says)
{
    struct ag_upstream_server v[] = {server("a", 80, 1), server("b", 80, 1), server("c", 80, 1),
                                     server("d", 80, 1), server("e", 80, 1)};
    struct ag_upstream up = upstream(5, v, 5);
    struct ag_upstream_group *g = ag_upstream_group_hold(all, &up, 1);
    struct seen s = look(g);

    cr_assert(ag_upstream_member_eject(s.members[0], 50));
    cr_assert_neq(look(g).version, s.version);
    cr_assert_not(ag_upstream_member_eject(s.members[0], 50), "it is");
    cr_assert(ag_upstream_member_eject(s.members[1], 50));
    cr_assert_not(ag_upstream_member_eject(s.members[2], 50), "three of five are more than half");
    cr_assert(ag_upstream_member_is_up(s.members[2]));
    (void)ag_upstream_member_mark(s.members[4], AG_MEMBER_DRAINED, 0, 1);
    (void)ag_upstream_member_mark(s.members[0], 0, AG_MEMBER_EJECTED, 1);
    cr_assert(ag_upstream_member_eject(s.members[2], 50), "two of four");
    cr_assert_not(ag_upstream_member_eject(s.members[3], 50));
    cr_assert(ag_upstream_member_eject(s.members[3], 75));
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
    cr_assert_not(ag_upstream_member_eject(b, 50));
    cr_assert_not(ag_upstream_member_eject(b, 99));
    cr_assert(ag_upstream_member_eject(b, 100));
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
