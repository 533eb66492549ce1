/*
 * Goal: names lead to no address that is not allowed, whatever it is dressed up as.
 * Method: addresses by row, first and last ones of each block; the config as nodes.
 */
#include "actions/upstream/upstream_addresses.h"
#include "engine/resolver.h"

#include <criterion/criterion.h>

static union ag_addr addr(const char *text)
{
    union ag_addr a;

    cr_assert_eq(ag_addr_parse(ag_span_str(text), 80, &a), AG_OK, "%s", text);
    return a;
}

Test(upstream_addresses, public_ones)
{
    static const struct ag_addresses public_ones = {.limited = true, .public_ones = true};
    static const char *const inside[] = {
        "1.1.1.1",         "8.8.8.8",         "9.255.255.255", "11.0.0.0",        "100.63.255.255",
        "100.128.0.0",     "126.255.255.255", "128.0.0.0",     "169.253.255.255", "169.255.0.0",
        "172.15.255.255",  "172.32.0.0",      "192.0.1.0",     "192.0.3.0",       "192.167.255.255",
        "192.169.0.0",     "198.17.255.255",  "198.20.0.0",    "223.255.255.255", "2606:4700::1",
        "2a00::1",         "2001:200::1",     "2003::1",       "3ffe::1",         "::ffff:8.8.8.8",
        "64:ff9b::808:808"};
    static const char *const outside[] = {
        /* this host, this machine */
        "0.0.0.0", "0.255.255.255", "127.0.0.1", "127.255.255.255", "::", "::1",
        /* private, carriers, links; metadata of clouds */
        "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0",
        "192.168.255.255", "100.64.0.0", "100.127.255.255", "169.254.169.254", "169.254.0.0",
        "169.254.255.255", "fe80::1", "febf::1", "fc00::1", "fd00:ec2::254", "fdff::1", "fec0::1",
        /* special ones */
        "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.0", "198.19.255.255", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "ff02::1",
        "2001:db8::1", "3fff::1", "100::1", "5f00::1",
        /* IPv4 inside of IPv6 */
        "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::ffff:169.254.169.254",
        "::127.0.0.1", "::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b::", "64:ff9b:1::808:808", "64:ff9b::1:808:808", "2002:7f00:1::1", "2002:a00:1::1",
        "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"};

    for (size_t i = 0; i < AG_COUNT(inside); i++) {
        union ag_addr a = addr(inside[i]);

        cr_expect(ag_addresses_allow(&public_ones, &a), "%s", inside[i]);
    }
    for (size_t i = 0; i < AG_COUNT(outside); i++) {
        union ag_addr a = addr(outside[i]);

        cr_expect_not(ag_addresses_allow(&public_ones, &a), "%s", outside[i]);
    }
}

/* ---- as configured ---- */

static struct ag_arena arena;
static struct ag_diags diags;

static void setup(void)
{
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
}

static void teardown(void)
{
    ag_arena_release(&arena);
}

TestSuite(upstream_addresses_read, .init = setup, .fini = teardown);

/* A word, or a list: "[a b c]". */
static struct ag_node *node_of(const char *text)
{
    bool list = text[0] == '[';
    struct ag_node *n =
        ag_node_new(&arena, list ? AG_NODE_SEQ : AG_NODE_SCALAR, (struct ag_pos){0});

    cr_assert(n);
    if (!list) {
        n->text = ag_span_str(text);
        return n;
    }
    for (const char *at = text + 1; *at && *at != ']';) {
        size_t len = strcspn(at, " ]");
        struct ag_node *child = ag_node_new(&arena, AG_NODE_SCALAR, (struct ag_pos){0});

        cr_assert(child);
        child->text = ag_span(at, len);
        ag_node_append(n, child);
        at += len + (at[len] == ' ');
    }
    return n;
}

Test(upstream_addresses_read, words_and_lists)
{
    static const struct {
        const char *text, *said, *inside, *outside;
    } rows[] = {
        {"any", "any", "10.0.0.1", NULL},
        {"public", "public", "8.8.8.8", "10.0.0.1"},
        {"10.0.0.0/8", "10.0.0.0/8", "10.1.2.3", "11.0.0.1"},
        {"[10.0.0.0/8 fd00::/8]", "10.0.0.0/8, fd00::/8", "fd12::1", "127.0.0.1"},
        {"[10.0.0.0/8]", "10.0.0.0/8", "::ffff:10.1.2.3", "64:ff9b::a01:203"},
        {"[public 10.0.0.0/8]", "public, 10.0.0.0/8", "10.1.2.3", "192.168.0.1"},
        {"[192.0.2.7]", "192.0.2.7", "192.0.2.7", "192.0.2.8"},
        {"[::1]", "::1", "::1", "127.0.0.1"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_addresses a = {.limited = true};
        uint8_t room[128];
        struct ag_buf said = ag_buf(room, sizeof(room));
        union ag_addr in = addr(rows[i].inside),
                      out = addr(rows[i].outside ? rows[i].outside : "::");

        cr_assert(ag_addresses_read(node_of(rows[i].text), &diags, &a), "%s", rows[i].text);
        ag_addresses_put(&a, &said);
        cr_expect(ag_span_eq(ag_buf_span(&said), ag_span_str(rows[i].said)), "%s", rows[i].text);
        cr_expect(ag_addresses_allow(&a, &in), "%s", rows[i].text);
        cr_expect_eq(ag_addresses_allow(&a, &out), !rows[i].outside, "%s", rows[i].text);
    }
}

Test(upstream_addresses_read, mistakes_change_nothing)
{
    static const char *const rows[] = {"none",  "[]",   "[10.0.0.0/33]",
                                       "[any]", "unix", "[public x]"};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_addresses a = {.limited = true, .count = 3};
        unsigned before = diags.errors;

        cr_expect_not(ag_addresses_read(node_of(rows[i]), &diags, &a), "%s", rows[i]);
        cr_expect(a.limited && a.count == 3 && diags.errors > before, "%s", rows[i]);
    }
}

Test(upstream_addresses_read, what_is_kept_keeps_its_order)
{
    struct ag_addresses a = {0};
    union ag_addr v[] = {addr("127.0.0.1"), addr("10.0.0.2"), addr("8.8.8.8"), addr("10.0.0.1")};

    cr_assert(ag_addresses_read(node_of("[10.0.0.0/8]"), &diags, &a));
    cr_assert_eq(ag_addresses_keep(&a, v, 4), 2);
    cr_expect_eq(ntohl(v[0].in.sin_addr.s_addr), 0x0a000002);
    cr_expect_eq(ntohl(v[1].in.sin_addr.s_addr), 0x0a000001);
}
