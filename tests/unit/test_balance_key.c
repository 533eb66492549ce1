/*
 * Goal: requests that belong together have one key, others another; nobody chooses his server by a field that he may
 * make up.
 * Method: exchanges with the fields in question, from 192.0.2.1; the keys are compared with each other.
 */
#include "actions/upstream/balance_key.h"
#include "tests/unit/actions_util.h"

static struct fake *f;
static const struct fake_route no_route;
static struct ag_networks nobody, somebody;

static void setup(void)
{
    /* 192.0.2.0/24 and 10.0.0.0/8 are trusted. */
    static const struct ag_network blocks[] = {{{[10] = 0xff, [11] = 0xff, 192, 0, 2}, 96 + 24},
                                               {{[10] = 0xff, [11] = 0xff, 10}, 96 + 8}};

    f = fake_new(ag_action_ops_of(AG_ACTION_FIXED));
    nobody = (struct ag_networks){0};
    somebody = (struct ag_networks){blocks, AG_COUNT(blocks), false};
}

static void teardown(void)
{
    fake_free(f);
}

TestSuite(balance_key, .init = setup, .fini = teardown);

static uint64_t key_of(const struct ag_balance_options *o, const struct ag_networks *trust,
                       const char *line, const char *fields)
{
    struct ag_exchange *ex = fake_begin(f, &no_route, line, fields);
    uint64_t key = ag_balance_key(ex, o, trust);

    ex->abandoned = true; /* nobody works on it */
    ex->head_sent = true;
    ag_exchange_complete(ex);
    ag_loop_turn(&f->loop, 0);
    return key;
}

static uint64_t by_ip(const struct ag_networks *trust, const char *fields)
{
    const struct ag_balance_options o = {.kind = AG_BALANCE_HASH};

    return key_of(&o, trust, "GET /", fields);
}

/* The key of a client with that address, known to be right. */
static uint64_t of_client(const char *address)
{
    char fields[128];

    (void)snprintf(fields, sizeof(fields), "X-Forwarded-For: %s", address);
    return by_ip(&somebody, fields);
}

Test(balance_key, not_by_hash)
{
    const struct ag_balance_options o = {.kind = AG_BALANCE_LEAST_CONN};

    cr_assert_eq(key_of(&o, &nobody, "GET /", ""), 0);
}

Test(balance_key, the_peer_unless_it_is_trusted)
{
    uint64_t peer = by_ip(&nobody, "");

    cr_assert_neq(peer, 0);
    cr_assert_eq(by_ip(&nobody, "X-Forwarded-For: 203.0.113.9"), peer);
    cr_assert_eq(by_ip(&somebody, ""), peer);
    cr_assert_eq(by_ip(&somebody, "X-Forwarded-For: 192.0.2.1"), peer,
                 "the same address has the same key");
    cr_assert_neq(by_ip(&somebody, "X-Forwarded-For: 203.0.113.9"), peer);
    somebody.blocks++; /* 10.0.0.0/8 alone */
    somebody.count--;
    cr_assert_eq(by_ip(&somebody, "X-Forwarded-For: 203.0.113.9"), peer);
}

Test(balance_key, addresses_count_and_not_how_they_are_written)
{
    cr_assert_neq(of_client("203.0.113.9"), of_client("203.0.113.8"));
    cr_assert_eq(of_client("203.0.113.9"), of_client("203.0.113.9:1234"));
    cr_assert_eq(of_client("203.0.113.9"), of_client("::ffff:203.0.113.9"));
    cr_assert_eq(of_client("203.0.113.9"), of_client("[::ffff:203.0.113.9]:80"));
    cr_assert_eq(of_client("2001:db8::1"), of_client("[2001:DB8:0::1]:443"));
    cr_assert_neq(of_client("2001:db8::1"), of_client("2001:db8::2"));
}

Test(balance_key, the_last_that_is_not_trusted)
{
    uint64_t client = of_client("203.0.113.9"), peer = by_ip(&nobody, "");

    cr_assert_eq(of_client("203.0.113.9, 10.1.1.1"), client);
    cr_assert_eq(of_client("1.1.1.1, 203.0.113.9"), client, "made up by the client");
    cr_assert_eq(of_client("10.9.9.9, 203.0.113.9, 10.1.1.1, 10.2.2.2"), client);
    cr_assert_eq(of_client("10.9.9.9, 10.1.1.1"), of_client("10.9.9.9"),
                 "all are trusted: the first");
    cr_assert_eq(of_client("203.0.113.9, unknown, 10.1.1.1"), of_client("10.1.1.1"));
    cr_assert_eq(of_client("203.0.113.9, unknown"), peer);
    cr_assert_eq(of_client("unix:/run/x"), peer);
    cr_assert_eq(of_client("[::1"), of_client("::1"));
    cr_assert_eq(of_client(""), peer);
    cr_assert_eq(
        by_ip(&somebody, "X-Forwarded-For: 1.1.1.1\nX-Forwarded-For: 203.0.113.9, 10.1.1.1"),
        client, "several lines are one list");
}

Test(balance_key, paths_and_queries)
{
    struct ag_balance_options uri = {.kind = AG_BALANCE_HASH, .by = AG_BALANCE_BY_URI};
    struct ag_balance_options path = {.kind = AG_BALANCE_HASH, .by = AG_BALANCE_BY_PATH};

    cr_assert_eq(key_of(&path, &nobody, "GET /a?x", ""), key_of(&path, &nobody, "GET /a?y", ""));
    cr_assert_neq(key_of(&path, &nobody, "GET /a", ""), key_of(&path, &nobody, "GET /b", ""));
    cr_assert_eq(key_of(&uri, &nobody, "GET /a?x", ""),
                 key_of(&uri, &nobody, "POST /a?x", "Host: b"));
    cr_assert_neq(key_of(&uri, &nobody, "GET /a?x", ""), key_of(&uri, &nobody, "GET /a?y", ""));
    cr_assert_neq(key_of(&uri, &nobody, "GET /a?", ""), key_of(&uri, &nobody, "GET /a", ""));
    cr_assert_neq(key_of(&uri, &nobody, "GET /ab?c", ""), key_of(&uri, &nobody, "GET /a?bc", ""));
}

Test(balance_key, headers)
{
    struct ag_balance_options known = {.kind = AG_BALANCE_HASH,
                                       .by = AG_BALANCE_BY_HEADER,
                                       .by_name = AG_SPAN("authorization"),
                                       .by_field = AG_FIELD_AUTHORIZATION};
    struct ag_balance_options other = {
        .kind = AG_BALANCE_HASH, .by = AG_BALANCE_BY_HEADER, .by_name = AG_SPAN("X-User")};
    uint64_t peer = by_ip(&nobody, "");

    cr_assert_eq(key_of(&other, &nobody, "GET /", "X-User: a"),
                 key_of(&other, &nobody, "GET /b", "x-user: a"));
    cr_assert_neq(key_of(&other, &nobody, "GET /", "X-User: a"),
                  key_of(&other, &nobody, "GET /", "X-User: b"));
    cr_assert_eq(key_of(&other, &nobody, "GET /", "X-Usr: a"), peer, "without it: by address");
    cr_assert_eq(key_of(&other, &nobody, "GET /", "X-User:"), peer);
    cr_assert_neq(key_of(&known, &nobody, "GET /", "Authorization: a"), peer);
    cr_assert_eq(key_of(&known, &nobody, "GET /", ""), peer);
}

Test(balance_key, cookies)
{
    struct ag_balance_options o = {
        .kind = AG_BALANCE_HASH, .by = AG_BALANCE_BY_COOKIE, .by_name = AG_SPAN("sid")};
    uint64_t a = key_of(&o, &nobody, "GET /", "Cookie: sid=a"), peer = by_ip(&nobody, "");

    cr_assert_neq(a, peer);
    cr_assert_eq(key_of(&o, &nobody, "GET /", "Cookie: x=1; sid=a; y=2"), a);
    cr_assert_eq(key_of(&o, &nobody, "GET /", "Cookie: x=1\nCookie: sid=\"a\""), a);
    cr_assert_eq(key_of(&o, &nobody, "GET /", "Cookie: xsid=b;sid = a ;sid=c"), a);
    cr_assert_neq(key_of(&o, &nobody, "GET /", "Cookie: sid=b"), a);
    cr_assert_eq(key_of(&o, &nobody, "GET /", "Cookie: SID=a; sid; side=a; =a"), peer);
    cr_assert_eq(key_of(&o, &nobody, "GET /", "Cookie: sid="), peer);
}

Test(balance_key, query_parameters)
{
    struct ag_balance_options o = {
        .kind = AG_BALANCE_HASH, .by = AG_BALANCE_BY_QUERY, .by_name = AG_SPAN("user")};
    uint64_t a = key_of(&o, &nobody, "GET /?user=a", ""), peer = by_ip(&nobody, "");

    cr_assert_neq(a, peer);
    cr_assert_eq(key_of(&o, &nobody, "GET /b?x=1&user=a&user=b", ""), a);
    cr_assert_neq(key_of(&o, &nobody, "GET /?user=b", ""), a);
    cr_assert_eq(key_of(&o, &nobody, "GET /?users=a&user&xuser=a&user=", ""), peer);
    cr_assert_eq(key_of(&o, &nobody, "GET /", ""), peer);
}
