/*
 * Goal: of what a name server sends only sound records of the name that was asked for are taken, at most AG_SRV_MAX of
 * them; nothing is read beyond the message; the order is that of RFC 2782.
 * Method: messages built by hand, at an unmapped page; each of them cut at every byte and with every byte changed.
 */
#include "engine/dns_srv.h"
#include "guarded.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

struct message {
    uint8_t bytes[65536];
    size_t len;
};

static void put16(struct message *m, unsigned value)
{
    m->bytes[m->len++] = (uint8_t)(value >> 8);
    m->bytes[m->len++] = (uint8_t)value;
}

/* "a.b": labels and the end; "": the root. */
static void put_name(struct message *m, const char *name)
{
    while (*name) {
        size_t len = strcspn(name, ".");

        m->bytes[m->len++] = (uint8_t)len;
        memcpy(&m->bytes[m->len], name, len);
        m->len += len;
        name += len + (name[len] == '.');
    }
    m->bytes[m->len++] = 0;
}

static void begin(struct message *m, const char *question)
{
    memset(m->bytes, 0, 12);
    m->len = 2;
    put16(m, 0x8180);
    put16(m, 1);
    m->len = 12;
    put_name(m, question);
    put16(m, 33);
    put16(m, 1);
}

static void count_record(struct message *m)
{
    unsigned count = m->bytes[6] * 256u + m->bytes[7] + 1;

    m->bytes[6] = (uint8_t)(count >> 8);
    m->bytes[7] = (uint8_t)count;
}

static size_t begin_record(struct message *m, const char *owner, unsigned type, uint32_t ttl)
{
    count_record(m);
    put_name(m, owner);
    put16(m, type);
    put16(m, 1);
    put16(m, ttl >> 16);
    put16(m, ttl & 0xffff);
    put16(m, 0);
    return m->len;
}

static void end_record(struct message *m, size_t data)
{
    m->bytes[data - 2] = (uint8_t)((m->len - data) >> 8);
    m->bytes[data - 1] = (uint8_t)(m->len - data);
}

static void put_srv(struct message *m, const char *owner, uint32_t ttl, unsigned priority,
                    unsigned weight, unsigned port, const char *host)
{
    size_t data = begin_record(m, owner, 33, ttl);

    put16(m, priority);
    put16(m, weight);
    put16(m, port);
    put_name(m, host);
    end_record(m, data);
}

static void put_alias(struct message *m, const char *owner, uint32_t ttl, const char *to)
{
    size_t data = begin_record(m, owner, 5, ttl);

    put_name(m, to);
    end_record(m, data);
}

static struct message m;
static struct ag_srv_answer a;

static enum ag_status parse(void)
{
    return ag_dns_srv_parse(ag_span(m.bytes, m.len), &a);
}

Test(dns_srv, targets_sorted_each_once)
{
    begin(&m, "_X._tcp.a");
    put_srv(&m, "_x._tcp.A", 60, 20, 1, 80, "b.a");
    put_srv(&m, "_x._tcp.a", 50, 10, 2, 81, "C.a");
    put_srv(&m, "_x._tcp.a", 70, 10, 3, 80, "b.a");
    put_srv(&m, "_x._tcp.a", 70, 10, 9, 80, "b.a");
    put_srv(&m, "_x._tcp.a", 70, 10, 4, 79, "b.a");
    cr_assert_eq(parse(), AG_OK);
    cr_assert_eq(a.count, 4);
    cr_expect_eq(a.ttl_s, 50);
    cr_expect(a.targets[0].port == 79 && a.targets[0].weight == 4);
    cr_expect(a.targets[1].port == 80 && a.targets[1].weight == 3, "the first of two counts");
    cr_expect_str_eq(a.targets[2].host, "c.a");
    cr_expect_eq(a.targets[2].host_len, 3);
    cr_expect_eq(a.targets[3].priority, 20);
}

Test(dns_srv, records_of_others_are_not_looked_at)
{
    begin(&m, "x.a");
    put_srv(&m, "y.a", 1, 0, 0, 1, "evil.b");
    put_alias(&m, "x.a", 40, "z.b");
    put_srv(&m, "x.a", 1, 0, 0, 1, "evil.b");
    put_srv(&m, "z.b", 60, 0, 0, 80, "good.b");
    cr_assert_eq(parse(), AG_OK);
    cr_assert_eq(a.count, 1);
    cr_expect_str_eq(a.targets[0].host, "good.b");
    cr_expect_eq(a.ttl_s, 40, "the alias's counts, too");
}

Test(dns_srv, hosts_that_cannot_be_looked_up)
{
    static const char *const hosts[] = {"", "a b.c", "1.2.3.4", "x/y", "7", "\xe4.de", "a:1"};

    begin(&m, "x.a");
    for (size_t i = 0; i < AG_COUNT(hosts); i++) {
        put_srv(&m, "x.a", 60, 0, 0, 80, hosts[i]);
    }
    put_srv(&m, "x.a", 60, 0, 0, 0, "port.zero");
    cr_expect_eq(parse(), AG_ENOENT);
    put_srv(&m, "x.a", 0x80000001, 0, 0, 80, "_ok-1.4x");
    cr_assert_eq(parse(), AG_OK);
    cr_expect_eq(a.count, 1);
    cr_expect_eq(a.ttl_s, 0, "RFC 2181 section 8");
}

/* A label with a dot in it would be another name as text. */
Test(dns_srv, a_dot_within_a_label)
{
    size_t data;

    begin(&m, "x.a");
    data = begin_record(&m, "x.a", 33, 60);
    m.len += 6;
    memcpy(&m.bytes[m.len], "\3a.b\0", 5);
    m.len += 5;
    end_record(&m, data);
    cr_expect_eq(parse(), AG_EINVAL);
}

Test(dns_srv, as_many_as_are_bounded)
{
    char host[16];

    begin(&m, "x.a");
    for (unsigned i = 0; i < 1500; i++) {
        (void)snprintf(host, sizeof(host), "h%u.a", i);
        put_srv(&m, "x.a", 60, 2000 - i, 0, 80, host);
    }
    cr_assert_eq(parse(), AG_OK);
    cr_expect(a.count == AG_SRV_MAX && a.cut);
    cr_expect_eq(a.targets[0].priority, 2000 - (AG_DNS_RECORDS_MAX - 1), "the best of those read");
    cr_expect_eq(a.targets[AG_SRV_MAX - 1].priority, a.targets[0].priority + AG_SRV_MAX - 1);
}

/* Pointers (RFC 1035 section 4.1.4) lead back only. */
Test(dns_srv, pointers)
{
    static const struct {
        unsigned to;
        enum ag_status st;
    } rows[] = {{12, AG_OK}, {14, AG_OK}, {46, AG_EINVAL}, {0x3fff, AG_EINVAL}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        size_t data;

        begin(&m, "x.aaa");
        data = begin_record(&m, "x.aaa", 33, 60);
        m.len += 4;
        put16(&m, 80);
        put16(&m, 0xc000u | rows[i].to);
        end_record(&m, data);
        cr_expect_eq(parse(), rows[i].st, "%u", rows[i].to);
    }
    begin(&m, "x.a");
    m.bytes[12] = 0xc0; /* to itself */
    m.bytes[13] = 12;
    cr_expect_eq(parse(), AG_EINVAL);
}

Test(dns_srv, names_at_their_longest)
{
    char label[64] = "", name[256] = "";

    memset(label, 'x', 63);
    (void)snprintf(name, sizeof(name), "%s.%s.%s.%.61s", label, label, label, label);
    begin(&m, "q.a");
    put_srv(&m, "q.a", 60, 0, 0, 80, name);
    cr_assert_eq(parse(), AG_OK);
    cr_expect_eq(a.targets[0].host_len, AG_DNS_NAME_MAX);
    (void)snprintf(name, sizeof(name), "%s.%s.%s.%.62s", label, label, label, label);
    put_srv(&m, "q.a", 60, 0, 0, 80, name);
    cr_expect_eq(parse(), AG_EINVAL);
}

Test(dns_srv, broken_anywhere)
{
    struct guarded g;
    size_t len;

    guarded_open(&g);
    begin(&m, "x.a");
    put_alias(&m, "x.a", 40, "z.b");
    put_srv(&m, "z.b", 60, 0, 0, 80, "good.b");
    len = m.len;
    for (size_t cut = 0; cut < len; cut++) {
        struct ag_span s = guarded_copy(&g, ag_span(m.bytes, cut));

        cr_expect_neq(ag_dns_srv_parse(s, &a), AG_OK, "%zu", cut);
    }
    for (size_t at = 0; at < len; at++) {
        uint8_t kept = m.bytes[at];

        for (unsigned value = 0; value < 256; value++) {
            enum ag_status st;

            m.bytes[at] = (uint8_t)value;
            st = ag_dns_srv_parse(guarded_copy(&g, ag_span(m.bytes, len)), &a);
            cr_assert(st != AG_OK || (a.count >= 1 && a.count <= AG_SRV_MAX));
        }
        m.bytes[at] = kept;
    }
    guarded_close(&g);
}

Test(dns_srv, order_by_weight)
{
    static const unsigned weights[] = {0, 10, 30, 60};
    uint64_t random[4] = {1, 2, 3, 4};
    unsigned first[4] = {0};

    for (unsigned round = 0; round < 10000; round++) {
        struct ag_srv_target v[5] = {
            {.priority = 1}, {.priority = 1}, {.priority = 1}, {.priority = 1}, {.priority = 2}};

        for (unsigned i = 0; i < 4; i++) {
            v[i].weight = (uint16_t)weights[i];
            v[i].port = (uint16_t)i;
        }
        v[4].weight = 65535;
        v[4].port = 4;
        ag_srv_order(v, 5, random);
        cr_assert(v[0].port < 4 && v[4].port == 4);
        first[v[0].port]++;
    }
    cr_expect(first[0] > 30 && first[0] < 250, "%u: one in 101", first[0]);
    cr_expect(first[1] > 800 && first[1] < 1200, "%u", first[1]);
    cr_expect(first[3] > 5600 && first[3] < 6300, "%u", first[3]);
}

Test(dns_srv, order_without_weights)
{
    uint64_t random[4] = {1, 2, 3, 4};
    unsigned first[4] = {0};

    for (unsigned round = 0; round < 4000; round++) {
        struct ag_srv_target v[4] = {{.port = 0}, {.port = 1}, {.port = 2}, {.port = 3}};

        ag_srv_order(v, 4, random);
        first[v[0].port]++;
    }
    for (unsigned i = 0; i < 4; i++) {
        cr_expect(first[i] > 800 && first[i] < 1200, "%u", first[i]);
    }
    ag_srv_order(NULL, 0, random);
}
