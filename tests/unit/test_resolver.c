/*
 * Goal: each lookup is answered exactly once or cancelled; answers are shared, kept for their time to
 * live, and bounded.
 * Method: a name server of our own on loopback (UDP, and TCP for cut answers) that counts what it is
 * asked; both backends.
 */
#include "name_server.h"

TestSuite(resolver, .init = setup, .fini = teardown);

static void on_done(struct ag_resolve *r)
{
    (void)r;
    done_count++;
}

static void begin(struct ag_resolve *r, const char *name)
{
    unsigned before = done_count;

    ag_resolve_start(&loop, r, ag_span_str(name), 8080, on_done);
    cr_assert_eq(done_count, before, "done comes from the loop, not from the call");
}

static void resolve(struct ag_resolve *r, const char *name)
{
    begin(r, name);
    await(done_count + 1);
}

static bool has(const struct ag_resolve *r, const char *want)
{
    for (uint32_t i = 0; i < r->count; i++) {
        uint8_t text[128];
        struct ag_buf b = ag_buf(text, sizeof(text));

        ag_addr_format(&r->addr[i], true, &b);
        if (ag_span_eq(ag_buf_span(&b), ag_span_str(want))) {
            return true;
        }
    }
    return false;
}

static void check_kinds(void)
{
    struct ag_resolve r = {0};

    resolve(&r, "one.test");
    cr_expect_eq(r.status, AG_OK);
    cr_expect(r.count == 1 && has(&r, "10.0.0.1:8080"));
    resolve(&r, "both.test");
    cr_expect(r.count == 2 && has(&r, "10.0.0.1:8080") && has(&r, "[fd00::1]:8080"));
    resolve(&r, "six.test");
    cr_expect(r.count == 2 && has(&r, "[fd00::1]:8080") && has(&r, "[fd00::2]:8080"));
    resolve(&r, "many.test");
    cr_expect_eq(r.count, AG_RESOLVE_MAX);
    resolve(&r, "cut.test");
    cr_expect_eq(r.status, AG_OK, "%s", r.error);
    cr_expect(r.count == 3 && has(&r, "10.0.0.3:8080"));
    cr_expect_geq(atomic_load(&zone("cut.test")->asked), 2, "asked by UDP, then by TCP");
    resolve(&r, "missing.test");
    cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error);
    resolve(&r, "empty.test");
    cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error);
    resolve(&r, "broken.test");
    cr_expect(r.status == AG_AGAIN && r.count == 0 && r.error);
}

Test(resolver, answers_of_every_kind)
{
    check_kinds();
}

Test(resolver, answers_of_every_kind_by_io_uring)
{
    enum ag_backend_kind kind;
    const char *why;

    if (ag_backend_choose(AG_BACKEND_URING, &kind, &why) != AG_OK) {
        cr_skip_test("no io_uring here");
    }
    stop();
    start_on(AG_BACKEND_URING);
    check_kinds();
}

Test(resolver, literals_and_garbage_ask_nobody)
{
    static const char *const garbage[] = {"",      "a b",  "a/b",          "1.2.3.4:80",
                                          "[::1]", "a\nb", "\xc3\xa4.test"};
    char longest[300];
    struct ag_resolve r = {0};

    resolve(&r, "192.0.2.7");
    cr_expect(r.status == AG_OK && r.count == 1 && has(&r, "192.0.2.7:8080"));
    cr_expect_eq(r.expires_ms, UINT64_MAX);
    resolve(&r, "2001:db8::7");
    cr_expect(r.status == AG_OK && has(&r, "[2001:db8::7]:8080"));
    resolve(&r, "unix:/run/app.sock");
    cr_expect(r.status == AG_OK && has(&r, "unix:/run/app.sock"));
    for (size_t i = 0; i < AG_COUNT(garbage); i++) {
        resolve(&r, garbage[i]);
        cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error, "%s", garbage[i]);
    }
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    resolve(&r, longest);
    cr_expect_eq(r.status, AG_ENOENT);
}

Test(resolver, the_hosts_file_comes_first)
{
    struct ag_resolve r = {0};

    resolve(&r, "LocalHost");
    cr_expect_eq(r.status, AG_OK);
    cr_expect(has(&r, "127.0.0.1:8080") || has(&r, "[::1]:8080"));
}

Test(resolver, answers_are_shared_and_kept)
{
    static struct ag_resolve r[20];

    for (unsigned i = 0; i < 20; i++) {
        begin(&r[i], i % 2 ? "one.test" : "ONE.Test");
    }
    await(20);
    for (unsigned i = 0; i < 20; i++) {
        cr_expect(r[i].status == AG_OK && has(&r[i], "10.0.0.1:8080"));
    }
    cr_expect_eq(atomic_load(&zone("one.test")->asked), 2, "one A, one AAAA");
    ag_resolve_start(&loop, &r[0], AG_SPAN("one.test"), 443, on_done);
    await(21);
    cr_expect(has(&r[0], "10.0.0.1:443"), "the port is the caller's");
    cr_expect_eq(atomic_load(&zone("one.test")->asked), 2);
}

/* Failures and a TTL of 0 are kept for a second. */
static void kept_while_fresh(const char *name)
{
    struct ag_resolve r = {0};

    resolve(&r, name);
    unsigned asked = atomic_load(&zone(name)->asked);
    cr_expect(r.expires_ms <= loop.now_ms + 1000);
    bool fresh = r.expires_ms > loop.now_ms;
    resolve(&r, name);
    cr_expect(!fresh || atomic_load(&zone(name)->asked) == asked, "%s", name);
}

Test(resolver, time_to_live)
{
    struct ag_resolve r = {0};

    resolve(&r, "one.test");
    cr_expect(r.expires_ms > loop.now_ms + 290000 && r.expires_ms <= loop.now_ms + 300000);
    resolve(&r, "eternal.test");
    cr_expect(r.expires_ms > loop.now_ms + 3590000 && r.expires_ms <= loop.now_ms + 3600000);
    kept_while_fresh("missing.test");
    kept_while_fresh("brief.test");
    unsigned missing = atomic_load(&zone("missing.test")->asked);
    unsigned brief = atomic_load(&zone("brief.test")->asked);
    resolve(&r, "brief.test"); /* the one that expires last */
    while (loop.now_ms < r.expires_ms) {
        ag_loop_turn(&loop, 50);
    }
    resolve(&r, "brief.test");
    cr_expect_gt(atomic_load(&zone("brief.test")->asked), brief);
    resolve(&r, "missing.test");
    cr_expect_gt(atomic_load(&zone("missing.test")->asked), missing);
}

Test(resolver, cancel_at_any_time)
{
    static struct ag_resolve r[4];

    ag_resolve_cancel(&r[3]); /* never begun */
    begin(&r[0], "one.test");
    ag_resolve_cancel(&r[0]);
    begin(&r[0], "one.test"); /* may be used again at once */
    begin(&r[1], "one.test");
    begin(&r[2], "127.0.0.1");
    ag_resolve_cancel(&r[1]);
    ag_resolve_cancel(&r[2]); /* its answer waits in a task */
    await(1);
    cr_expect(r[0].status == AG_OK && has(&r[0], "10.0.0.1:8080"));
    ag_resolve_cancel(&r[0]);
    begin(&r[0], "one.test"); /* from the cache, by task */
    ag_resolve_cancel(&r[0]);
    for (int i = 0; i < 5; i++) {
        ag_loop_turn(&loop, 1);
    }
    cr_expect_eq(done_count, 1);
    cr_expect_eq(atomic_load(&zone("one.test")->asked), 2);
}

/* Silent servers: the end comes with lookups still under way (teardown). */
Test(resolver, many_names_are_bounded)
{
    static struct ag_resolve r[300];
    unsigned refused = 0;
    char name[32];

    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof(name), "n%u.one.test", i);
        resolve(&r[i], name);
        cr_assert(r[i].status == AG_OK && has(&r[i], "10.0.0.1:8080"));
    }
    unsigned asked = atomic_load(&zone("one.test")->asked);
    resolve(&r[0], "n299.one.test");
    cr_expect_eq(atomic_load(&zone("one.test")->asked), asked, "the latest are kept");
    resolve(&r[0], "n0.one.test");
    cr_expect_gt(atomic_load(&zone("one.test")->asked), asked, "the oldest went");

    done_count = 0;
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof(name), "n%u.silent.test", i);
        begin(&r[i], name);
    }
    for (int i = 0; i < 5; i++) {
        ag_loop_turn(&loop, 1);
    }
    for (unsigned i = 0; i < 300; i++) {
        if (ag_list_empty(&r[i].link)) {
            cr_expect_eq(r[i].status, AG_AGAIN);
            refused++;
        }
        ag_resolve_cancel(&r[i]);
    }
    cr_expect_eq(refused, 300 - 256);
    cr_expect_eq(done_count, refused);
}

Test(resolver, a_bad_server_list_is_refused)
{
    struct ag_resolver_settings settings = {"not an address", 1000, 1};
    struct ag_resolve r = {0};

    cr_expect_eq(ag_resolver_configure(&loop, &settings), AG_EINVAL);
    resolve(&r, "one.test");
    cr_expect(r.status == AG_OK && has(&r, "10.0.0.1:8080"), "the ones before are asked");
}

/* Nobody listens at the first ones; what is under way goes to the next, and what is known is asked for anew. */
Test(resolver, other_servers_take_over)
{
    struct ag_resolver_settings none = {"127.0.0.1:9,[::1]:9", 60000, 1}, known = none;
    struct ag_resolve r[2] = {0};

    resolve(&r[0], "one.test");
    (void)snprintf(known.servers, sizeof(known.servers), "127.0.0.1:%u", server_port);
    begin(&r[0], "silent.test");
    begin(&r[1], "both.test");
    cr_assert_eq(ag_resolver_configure(&loop, &known), AG_OK);
    await(done_count + 1);
    cr_expect(r[1].status == AG_OK && r[1].count == 2, "was under way");
    ag_resolve_cancel(&r[0]);
    unsigned asked = atomic_load(&zone("one.test")->asked);
    resolve(&r[0], "one.test");
    cr_expect_gt(atomic_load(&zone("one.test")->asked), asked);
    asked = atomic_load(&zone("one.test")->asked);
    cr_assert_eq(ag_resolver_configure(&loop, &known), AG_OK);
    resolve(&r[0], "one.test");
    cr_expect_eq(atomic_load(&zone("one.test")->asked), asked, "the same servers: nothing changes");
    cr_assert_eq(ag_resolver_configure(&loop, &none), AG_OK);
    resolve(&r[0], "one.test");
    cr_expect_eq(r[0].status, AG_AGAIN);
}

Test(resolver, families_take_turns)
{
    struct ag_resolve r = {0};
    sa_family_t first;

    resolve(&r, "mixed.test");
    cr_assert_eq(r.count, AG_RESOLVE_MAX);
    first = r.addr[0].sa.sa_family;
    for (uint32_t i = 0; i < 6; i++) {
        cr_expect_eq(r.addr[i].sa.sa_family == first, i % 2 == 0, "%u", i);
    }
    for (uint32_t i = 6; i < r.count; i++) {
        cr_expect_eq(r.addr[i].sa.sa_family, AF_INET, "%u: there are three of the other", i);
    }
}

/* For those to whom each address is a server. */
Test(resolver, all_addresses_of_an_answer)
{
    static union ag_addr all[AG_RESOLVE_ALL];
    struct ag_resolve r = {.all = all};

    resolve(&r, "mixed.test");
    cr_assert(r.count == AG_RESOLVE_MAX && r.all_count == 23 && !r.cut);
    for (uint32_t i = 0; i < r.all_count; i++) {
        cr_expect_eq(ntohs(all[i].in.sin_port), 8080);
        cr_expect(i >= r.count || ag_addr_same(&all[i], &r.addr[i]), "%u", i);
    }
    resolve(&r, "vast.test");
    cr_assert(r.count == AG_RESOLVE_MAX && r.all_count == AG_RESOLVE_ALL && r.cut);
    resolve(&r, "127.0.0.1");
    cr_assert(r.count == 1 && r.all_count == 1 && !r.cut);
    resolve(&r, "missing.test");
    cr_assert(r.count == 0 && r.all_count == 0 && !r.cut);
}

Test(resolver, anew_is_not_from_what_is_known)
{
    struct ag_resolve r = {0};

    resolve(&r, "one.test");
    resolve(&r, "one.test");
    unsigned asked = atomic_load(&zone("one.test")->asked);
    r.anew = true;
    resolve(&r, "one.test");
    cr_expect_gt(atomic_load(&zone("one.test")->asked), asked);
}

/* ---- addresses ---- */

Test(addr, leads_to)
{
    static const struct {
        const char *to, *from, *listen; /* from: NULL: not connected yet */
        bool want;
    } rows[] = {
        {"10.0.0.1", NULL, "10.0.0.1", true},
        {"10.0.0.1", NULL, "10.0.0.2", false},
        {"127.0.0.1", NULL, "0.0.0.0", true},
        {"127.9.9.9", NULL, "0.0.0.0", true},
        {"127.9.9.9", NULL, "127.0.0.1", false},
        {"0.0.0.0", NULL, "127.0.0.1", true},
        {"::", NULL, "::1", true},
        {"::1", NULL, "::", true},
        {"::ffff:127.0.0.1", NULL, "0.0.0.0", true},
        {"::1", NULL, "0.0.0.0", false},
        {"10.0.0.1", NULL, "0.0.0.0", false},
        {"10.0.0.1", "10.0.0.1", "0.0.0.0", true},
        {"10.0.0.1", "10.0.0.2", "0.0.0.0", false},
        {"2001:db8::1", "2001:db8::1", "::", true},
        {"2001:db8::1", "2001:db8::2", "::", false},
        {"2001:db8::1", "2001:db8::2", "2001:db8::1", true},
        {"unix:/a", NULL, "unix:/a", true},
        {"unix:/a", NULL, "unix:/b", false},
        {"unix:/a", NULL, "0.0.0.0", false},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        union ag_addr to, from, listen, other;
        const union ag_addr *source = rows[i].from ? &from : NULL;

        cr_assert_eq(ag_addr_parse(ag_span_str(rows[i].to), 80, &to), AG_OK);
        cr_assert_eq(ag_addr_parse(ag_span_str(rows[i].listen), 80, &listen), AG_OK);
        cr_assert_eq(ag_addr_parse(ag_span_str(rows[i].listen), 81, &other), AG_OK);
        if (rows[i].from) {
            cr_assert_eq(ag_addr_parse(ag_span_str(rows[i].from), 5000, &from), AG_OK);
        }
        cr_expect_eq(ag_addr_leads_to(&to, source, &listen), rows[i].want, "%s to %s", rows[i].to,
                     rows[i].listen);
        cr_expect(other.sa.sa_family == AF_UNIX || !ag_addr_leads_to(&to, source, &other),
                  "%s to %s", rows[i].to, rows[i].listen);
    }
}

Test(addr, parse_and_format)
{
    static const struct {
        const char *text, *with_port, *without;
        size_t len; /* of the sockaddr */
    } rows[] = {
        {"1.2.3.4", "1.2.3.4:80", "1.2.3.4", sizeof(struct sockaddr_in)},
        {"0.0.0.0", "0.0.0.0:80", "0.0.0.0", sizeof(struct sockaddr_in)},
        {"255.255.255.255", "255.255.255.255:80", "255.255.255.255", sizeof(struct sockaddr_in)},
        {"::1", "[::1]:80", "::1", sizeof(struct sockaddr_in6)},
        {"2001:DB8:0:0::5", "[2001:db8::5]:80", "2001:db8::5", sizeof(struct sockaddr_in6)},
        {"unix:/a b", "unix:/a b", "unix:/a b", offsetof(struct sockaddr_un, sun_path) + 5},
        {"", NULL, NULL, 0},
        {"1.2.3", NULL, NULL, 0},
        {"1.2.3.256", NULL, NULL, 0},
        {"01.2.3.4.5", NULL, NULL, 0},
        {" 1.2.3.4", NULL, NULL, 0},
        {"1.2.3.4 ", NULL, NULL, 0},
        {"[::1]", NULL, NULL, 0},
        {":::", NULL, NULL, 0},
        {"unix:", NULL, NULL, 0},
        {"localhost", NULL, NULL, 0},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        union ag_addr a;
        enum ag_status st = ag_addr_parse(ag_span_str(rows[i].text), 80, &a);

        cr_assert_eq(st, rows[i].len ? AG_OK : AG_EINVAL, "%s", rows[i].text);
        if (st == AG_OK) {
            uint8_t text[128];
            struct ag_buf b = ag_buf(text, sizeof(text));

            ag_addr_format(&a, true, &b);
            cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(rows[i].with_port)), "%s",
                      rows[i].text);
            b = ag_buf(text, sizeof(text));
            ag_addr_format(&a, false, &b);
            cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(rows[i].without)), "%s",
                      rows[i].text);
            cr_expect_eq(ag_addr_len(&a), rows[i].len);
        }
    }
}

Test(addr, unix_paths_at_their_longest)
{
    char text[5 + 109] = "unix:";
    union ag_addr a;
    struct ag_buf b;
    uint8_t out[128];

    memset(text + 5, 'p', 108);
    cr_expect_eq(ag_addr_parse(ag_span(text, 5 + 107), 0, &a), AG_OK);
    cr_expect_eq(ag_addr_len(&a), sizeof(struct sockaddr_un));
    cr_expect_eq(ag_addr_parse(ag_span(text, 5 + 108), 0, &a), AG_EINVAL);
    cr_expect_eq(ag_addr_parse(ag_span("unix:/a\0b", 9), 0, &a), AG_EINVAL);
    cr_expect_eq(ag_addr_parse(ag_span("1.2.3.4\0x", 9), 0, &a), AG_EINVAL);

    /* From the kernel: a path that fills the field has no NUL, a client has no path at all. */
    a = (union ag_addr){.un.sun_family = AF_UNIX};
    memset(a.un.sun_path, 'p', sizeof(a.un.sun_path));
    b = ag_buf(out, sizeof(out));
    ag_addr_format(&a, true, &b);
    cr_expect_eq(b.len, 5 + sizeof(a.un.sun_path));
    cr_expect_eq(ag_addr_len(&a), sizeof(struct sockaddr_un));
    a = (union ag_addr){.un.sun_family = AF_UNIX};
    b = ag_buf(out, sizeof(out));
    ag_addr_format(&a, true, &b);
    cr_expect(ag_span_eq(ag_buf_span(&b), AG_SPAN("unix:")));
}

static union ag_addr parsed(const char *text, uint16_t port)
{
    union ag_addr a;

    cr_assert_eq(ag_addr_parse(ag_span_str(text), port, &a), AG_OK, "%s", text);
    return a;
}

Test(addr, overlaps)
{
    static const struct {
        const char *a, *b;
        uint16_t port_a, port_b;
        bool want;
    } rows[] = {
        {"1.2.3.4", "0.0.0.0", 80, 80, true}, {"1.2.3.4", "0.0.0.0", 80, 81, false},
        {"1.2.3.4", "1.2.3.4", 80, 80, true}, {"1.2.3.4", "1.2.3.5", 80, 80, false},
        {"::1", "::", 80, 80, true},          {"::1", "::", 80, 81, false},
        {"::1", "0.0.0.0", 80, 80, false},    {"::", "0.0.0.0", 80, 80, false},
        {"1.2.3.4", "::", 80, 80, false},     {"unix:/a", "0.0.0.0", 0, 80, false},
        {"unix:/a", "unix:/a", 0, 0, true},   {"unix:/a", "unix:/b", 0, 0, false},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        union ag_addr a = parsed(rows[i].a, rows[i].port_a), b = parsed(rows[i].b, rows[i].port_b);

        cr_expect_eq(ag_addr_overlaps(&a, &b), rows[i].want, "row %zu", i);
        cr_expect_eq(ag_addr_overlaps(&b, &a), rows[i].want, "row %zu", i);
    }
}

Test(addr, same)
{
    static const struct {
        const char *text;
        uint16_t port;
    } all[] = {{"1.2.3.4", 80}, {"1.2.3.4", 81}, {"1.2.3.5", 80},        {"::1", 80},
               {"::1", 81},     {"::2", 80},     {"::ffff:1.2.3.4", 80}, {"unix:/a", 0},
               {"unix:/ab", 0}};
    union ag_addr none = {0};

    for (size_t i = 0; i < AG_COUNT(all); i++) {
        for (size_t j = 0; j < AG_COUNT(all); j++) {
            union ag_addr a = parsed(all[i].text, all[i].port),
                          b = parsed(all[j].text, all[j].port);

            cr_expect_eq(ag_addr_same(&a, &b), i == j, "%s %s", all[i].text, all[j].text);
        }
    }
    cr_expect_not(ag_addr_same(&none, &none));
    union ag_addr here = parsed("fe80::1", 80), there = here;
    there.in6.sin6_scope_id = 2;
    cr_expect_not(ag_addr_same(&here, &there));
    there = here;
    there.in6.sin6_flowinfo = 7; /* of packets, not of a place */
    cr_expect(ag_addr_same(&here, &there));
}

Test(addr, unmap)
{
    static const char *const rows[][2] = {{"::ffff:1.2.3.4", "1.2.3.4"},
                                          {"::1", "::1"},
                                          {"::1.2.3.4", "::1.2.3.4"},
                                          {"9.8.7.6", "9.8.7.6"},
                                          {"unix:/a", "unix:/a"}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        union ag_addr a = parsed(rows[i][0], 443), want = parsed(rows[i][1], 443);

        ag_addr_unmap(&a);
        cr_expect(ag_addr_same(&a, &want), "%s", rows[i][0]);
    }
}
