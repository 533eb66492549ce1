#include "tests/sim/greeting.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define SIGNATURE     "\r\n\r\n\0\r\nQUIT\n"
#define SIGNATURE_LEN 12u
#define HEAD_LEN      16u  /* of version 2, with version, family and length */
#define LINE_MAX_LEN  107u /* of version 1 */

/* ---- sent ---- */

static void put(struct greeting *g, const void *bytes, size_t len)
{
    AG_ASSERT(len <= sizeof(g->bytes) - g->len);
    memcpy(g->bytes + g->len, bytes, len);
    g->len += (uint32_t)len;
}

static void put_number(struct greeting *g, uint32_t n, unsigned bytes)
{
    for (unsigned i = bytes; i-- > 0;) {
        const uint8_t byte = (uint8_t)(n >> 8 * i);

        put(g, &byte, 1);
    }
}

static void make_line(struct sim *s, struct greeting *g)
{
    const struct greeting_ends *e = &g->ends;
    int n;

    if (e->told) {
        n = snprintf((char *)g->bytes, sizeof(g->bytes),
                     "PROXY TCP4 %u.%u.%u.%u %u.%u.%u.%u %u %u\r\n", e->from_ip >> 24,
                     e->from_ip >> 16 & 255, e->from_ip >> 8 & 255, e->from_ip & 255,
                     e->to_ip >> 24, e->to_ip >> 16 & 255, e->to_ip >> 8 & 255, e->to_ip & 255,
                     e->from_port, e->to_port);
    } else {
        n = snprintf((char *)g->bytes, sizeof(g->bytes), "PROXY UNKNOWN%s\r\n",
                     sim_chance(s, 500) ? " ffff:f::1 nothing 1 x" : "");
    }
    g->len = (uint32_t)n;
}

/* LOCAL, or over IPv4; with a part behind the addresses that nobody knows. */
static void make_binary(struct sim *s, struct greeting *g)
{
    const struct greeting_ends *e = &g->ends;
    uint32_t more = sim_chance(s, 500) ? (uint32_t)sim_between(s, 3, 200) : 0;

    put(g, SIGNATURE, SIGNATURE_LEN);
    put_number(g, e->told ? 0x2111 : 0x2000, 2);
    put_number(g, (e->told ? 12 : 0) + more, 2);
    if (e->told) {
        put_number(g, e->from_ip, 4);
        put_number(g, e->to_ip, 4);
        put_number(g, e->from_port, 2);
        put_number(g, e->to_port, 2);
    }
    if (more) {
        put_number(g, 0xe0, 1);
        put_number(g, more - 3, 2);
        for (uint32_t i = 3; i < more; i++) {
            put_number(g, (uint32_t)sim_below(s, 256), 1);
        }
    }
}

struct greeting *greeting_make(struct sim *s, bool bad)
{
    struct greeting *g = sim_alloc(s, sizeof(*g));

    if (sim_chance(s, 800)) {
        g->ends = (struct greeting_ends){true, NET_IP(192, 168, 0, sim_between(s, 1, 250)),
                                         GREETING_TO_IP, (uint16_t)sim_between(s, 1, 65535),
                                         GREETING_TO_PORT};
    }
    g->bad = bad;
    if (sim_chance(s, 500)) {
        make_line(s, g);
    } else {
        make_binary(s, g);
    }
    if (bad) { /* in what both begin with */
        g->bytes[sim_below(s, 5)] ^= (uint8_t)sim_between(s, 1, 255);
    }
    return g;
}

void greeting_send(struct net_end *e, const struct greeting *g)
{
    if (g) {
        e->before = ag_span(g->bytes, g->len);
    }
}

/* ---- received ---- */

static uint32_t number_at(const uint8_t *p, unsigned bytes)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < bytes; i++) {
        n = n << 8 | p[i];
    }
    return n;
}

static bool is_line(const struct greeting_seen *g)
{
    return g->bytes[0] == 'P';
}

/* How many bytes it has, as far as can be told by now: the next one is to be read when there are more. */
static uint32_t whole_len(struct net_end *e, const struct greeting_seen *g)
{
    if (g->len > 0 && is_line(g)) {
        if (g->len > LINE_MAX_LEN) {
            sim_fail(e->conn->sim, "conn %u: a PROXY line without an end", e->conn->id);
        }
        return g->bytes[g->len - 1] == '\n' ? g->len : g->len + 1;
    }
    if (memcmp(g->bytes, SIGNATURE, ag_min_size(g->len, SIGNATURE_LEN)) != 0) {
        sim_fail(e->conn->sim, "conn %u: no PROXY header", e->conn->id);
    }
    return g->len < HEAD_LEN ? HEAD_LEN : HEAD_LEN + number_at(g->bytes + 14, 2);
}

/* "192.0.2.1 192.0.2.2 56324 443\r\n": the numbers of it, which these signs end. */
static bool read_numbers(const char *at, uint32_t out[static 10])
{
    static const char ends[] = "... ...  \r";

    for (unsigned i = 0; i < 10; i++) {
        char *end;

        out[i] = (uint32_t)strtoul(at, &end, 10);
        if (end == at || *end != ends[i]) {
            return false;
        }
        at = end + 1;
    }
    return strcmp(at, "\n") == 0;
}

static void read_line(struct net_end *e, struct greeting_seen *g)
{
    static const char begin[] = "PROXY TCP4 ";
    char text[LINE_MAX_LEN + 1];
    uint32_t n[10];

    memcpy(text, g->bytes, g->len);
    text[g->len] = '\0';
    if (strcmp(text, "PROXY UNKNOWN\r\n") == 0) {
        return;
    }
    if (strncmp(text, begin, sizeof(begin) - 1) != 0 ||
        !read_numbers(text + sizeof(begin) - 1, n)) {
        sim_fail(e->conn->sim, "conn %u: malformed: %s", e->conn->id, text);
    }
    g->ends =
        (struct greeting_ends){true, NET_IP(n[0], n[1], n[2], n[3]), NET_IP(n[4], n[5], n[6], n[7]),
                               (uint16_t)n[8], (uint16_t)n[9]};
}

static void read_binary(struct net_end *e, struct greeting_seen *g)
{
    const uint8_t *p = g->bytes + HEAD_LEN;
    uint32_t kind = number_at(g->bytes + 12, 2);

    if (kind == 0x2111 && g->len >= HEAD_LEN + 12) {
        g->ends =
            (struct greeting_ends){true, number_at(p, 4), number_at(p + 4, 4),
                                   (uint16_t)number_at(p + 8, 2), (uint16_t)number_at(p + 10, 2)};
    } else if (kind != 0x2000 && kind != 0x2100) {
        sim_fail(e->conn->sim, "conn %u: a PROXY header of kind %x", e->conn->id, kind);
    }
}

int64_t greeting_read(struct net_end *e, struct greeting_seen *g)
{
    uint32_t want;

    while ((want = whole_len(e, g)) > g->len) {
        int64_t n;

        if (want > sizeof(g->bytes)) {
            sim_fail(e->conn->sim, "conn %u: a PROXY header of %u bytes", e->conn->id, want);
        }
        n = net_raw_read(e, g->bytes + g->len, g->len > 0 ? want - g->len : 1);
        if (n <= 0) {
            return n;
        }
        g->len += (uint32_t)n;
    }
    if (is_line(g)) {
        read_line(e, g);
    } else {
        read_binary(e, g);
    }
    return 1;
}

/* ---- what is to come ---- */

struct greeting_ends greeting_ends(const struct net_end *e, const struct greeting *g)
{
    const struct net_conn *c = e->conn;

    return g && g->ends.told ? g->ends
                             : (struct greeting_ends){true, c->client_ip, c->server_ip,
                                                      c->client_port, c->server_port};
}

void greeting_check(const struct net_end *upstream, const struct greeting_seen *g,
                    const struct net_end *client, const struct greeting *sent)
{
    struct greeting_ends is = g->ends, want = greeting_ends(client, sent);

    /* A client that has been reset has no address any more. */
    if (!is.told && client->conn->end[1].dead && !(sent && sent->ends.told)) {
        return;
    }
    if (!is.told || is.from_ip != want.from_ip || is.from_port != want.from_port ||
        is.to_ip != want.to_ip || is.to_port != want.to_port) {
        sim_fail(
            upstream->conn->sim,
            "conn %u: the header tells %08x:%u to %08x:%u, of a client from %08x:%u to %08x:%u",
            upstream->conn->id, is.from_ip, is.from_port, is.to_ip, is.to_port, want.from_ip,
            want.from_port, want.to_ip, want.to_port);
    }
}
