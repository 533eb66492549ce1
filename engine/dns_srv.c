#include "engine/dns_srv.h"

#include "engine/random.h"

#include <string.h>

enum { TYPE_CNAME = 5, TYPE_SRV = 33, CLASS_IN = 1 };

#define HEAD_BYTES  12u
#define LABEL_MAX   63u
#define POINTER     0xc0u
#define SRV_HEAD    6u  /* priority, weight, port */
#define RECORD_HEAD 10u /* type, class, time to live, length */
#define TTL_MAX_S   0x7fffffffu

struct name {
    size_t len;
    char text[AG_DNS_NAME_MAX + 1]; /* lower case; labels may hold any byte but a dot */
};

struct record {
    struct name owner;
    uint16_t type, class;
    uint32_t ttl_s;
    size_t data, end; /* offsets in the message */
};

static uint16_t get16(struct ag_span m, size_t at)
{
    return (uint16_t)(m.ptr[at] << 8 | m.ptr[at + 1]);
}

static bool has(struct ag_span m, size_t at, size_t bytes)
{
    return at <= m.len && m.len - at >= bytes;
}

/* ---- names ---- */

static bool put_label(struct name *n, const uint8_t *label, size_t len)
{
    if (n->len + len + (n->len > 0) > AG_DNS_NAME_MAX) {
        return false;
    }
    if (n->len > 0) {
        n->text[n->len++] = '.';
    }
    for (size_t i = 0; i < len; i++) {
        if (label[i] == '.') {
            return false; /* would be read as two labels */
        }
        n->text[n->len++] = (char)ag_ascii_lower(label[i]);
    }
    return true;
}

/* RFC 1035 section 4.1.4. Each pointer must lead to before where this part of the name began, so they end. *io_at moves
 * behind the name. */
static bool read_name(struct ag_span m, size_t *io_at, struct name *out)
{
    size_t at = *io_at, began = at;
    bool jumped = false;

    out->len = 0;
    while (has(m, at, 1)) {
        uint8_t len = m.ptr[at];

        if (len == 0) {
            out->text[out->len] = '\0';
            *io_at = jumped ? *io_at : at + 1;
            return true;
        }
        if ((len & POINTER) == POINTER) {
            size_t to;

            if (!has(m, at, 2)) {
                return false;
            }
            to = get16(m, at) & 0x3fffu;
            *io_at = jumped ? *io_at : at + 2;
            if (to >= began) {
                return false;
            }
            jumped = true;
            at = began = to;
        } else {
            if (len > LABEL_MAX || !has(m, at + 1, len) || !put_label(out, &m.ptr[at + 1], len)) {
                return false;
            }
            at += 1u + len;
        }
    }
    return false;
}

static bool same_name(const struct name *a, const struct name *b)
{
    return a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
}

/* One that may be looked up. Addresses are not: a last label of digits is no domain. */
static bool is_host(const struct name *n)
{
    bool digits = true;

    for (size_t i = 0; i < n->len; i++) {
        char ch = n->text[i];

        if (!(ch >= 'a' && ch <= 'z') && !(ch >= '0' && ch <= '9') && ch != '-' && ch != '_' &&
            ch != '.') {
            return false;
        }
        digits = ch == '.' || (digits && ch >= '0' && ch <= '9');
    }
    return n->len > 0 && !digits;
}

/* ---- records ---- */

static bool read_record(struct ag_span m, size_t *io_at, struct record *out)
{
    size_t at = *io_at, len;

    if (!read_name(m, &at, &out->owner) || !has(m, at, RECORD_HEAD)) {
        return false;
    }
    out->type = get16(m, at);
    out->class = get16(m, at + 2);
    out->ttl_s = (uint32_t)get16(m, at + 4) << 16 | get16(m, at + 6);
    if (out->ttl_s > TTL_MAX_S) {
        out->ttl_s = 0; /* RFC 2181 section 8 */
    }
    len = get16(m, at + 8);
    if (!has(m, at + RECORD_HEAD, len)) {
        return false;
    }
    out->data = at + RECORD_HEAD;
    out->end = out->data + len;
    *io_at = out->end;
    return true;
}

static int compare(const struct ag_srv_target *a, const struct ag_srv_target *b)
{
    int by_host;

    if (a->priority != b->priority) {
        return a->priority < b->priority ? -1 : 1;
    }
    by_host = strcmp(a->host, b->host);
    return by_host ? by_host : (int)a->port - (int)b->port;
}

/* In its place; the last one goes when there are too many. A second one for the same place is left out. */
static void insert(struct ag_srv_answer *to, const struct ag_srv_target *t)
{
    uint32_t at = to->count, tail;

    for (; at > 0; at--) {
        int c = compare(t, &to->targets[at - 1]);

        if (c == 0) {
            return;
        }
        if (c > 0) {
            break;
        }
    }
    to->cut |= to->count == AG_SRV_MAX;
    if (at == AG_SRV_MAX) {
        return;
    }
    to->count += to->count < AG_SRV_MAX;
    tail = to->count - at - 1;
    memmove(&to->targets[at + 1], &to->targets[at], tail * sizeof(*t));
    to->targets[at] = *t;
}

static bool take_srv(struct ag_span m, const struct record *r, struct ag_srv_answer *to)
{
    struct ag_srv_target t = {0};
    size_t at = r->data + SRV_HEAD;
    struct name host;

    if (r->end - r->data <= SRV_HEAD || !read_name(m, &at, &host) || at != r->end) {
        return false;
    }
    t.priority = get16(m, r->data);
    t.weight = get16(m, r->data + 2);
    t.port = get16(m, r->data + 4);
    if (is_host(&host) && t.port != 0) {
        t.host_len = (uint8_t)host.len;
        memcpy(t.host, host.text, host.len + 1);
        insert(to, &t);
    }
    return true;
}

static bool take_alias(struct ag_span m, const struct record *r, struct name *to)
{
    size_t at = r->data;

    return read_name(m, &at, to) && at == r->end;
}

/* ---- public ---- */

enum ag_status ag_dns_srv_parse(struct ag_span message, struct ag_srv_answer *out)
{
    size_t at = HEAD_BYTES;
    struct name wanted;
    uint32_t records;

    if (message.len < HEAD_BYTES || get16(message, 4) != 1 || !read_name(message, &at, &wanted) ||
        !has(message, at, 4)) {
        return AG_EINVAL;
    }
    at += 4;
    records = get16(message, 6);
    out->count = 0;
    out->ttl_s = TTL_MAX_S;
    out->cut = records > AG_DNS_RECORDS_MAX;
    for (uint32_t i = 0; i < records && i < AG_DNS_RECORDS_MAX; i++) {
        struct record r;

        if (!read_record(message, &at, &r)) {
            return AG_EINVAL;
        }
        if (r.class != CLASS_IN || !same_name(&r.owner, &wanted) ||
            (r.type != TYPE_CNAME && r.type != TYPE_SRV)) {
            continue;
        }
        if (r.type == TYPE_CNAME ? !take_alias(message, &r, &wanted)
                                 : !take_srv(message, &r, out)) {
            return AG_EINVAL;
        }
        out->ttl_s = r.ttl_s < out->ttl_s ? r.ttl_s : out->ttl_s;
    }
    return out->count ? AG_OK : AG_ENOENT;
}

static void swap(struct ag_srv_target *a, struct ag_srv_target *b)
{
    struct ag_srv_target kept = *a;

    *a = *b;
    *b = kept;
}

/* The index that a number from 0 to the sum of the weights falls on. Those without weight are drawn only by a 0, as the
 * RFC has them at the front of the list; where nobody has any, all are the same. */
static uint32_t draw(const struct ag_srv_target *v, uint32_t count, uint64_t sum, uint64_t random)
{
    uint64_t number = random % (sum + 1);

    if (sum == 0) {
        return (uint32_t)(random % count);
    }
    sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (number == 0 && v[i].weight == 0) {
            return i;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        sum += v[i].weight;
        if (v[i].weight > 0 && sum >= number) {
            return i;
        }
    }
    return 0;
}

void ag_srv_order(struct ag_srv_target *targets, uint32_t count, uint64_t random[static 4])
{
    for (uint32_t first = 0; first < count; first++) {
        uint64_t sum = targets[first].weight;
        uint32_t n = 1;

        while (first + n < count && targets[first + n].priority == targets[first].priority) {
            sum += targets[first + n++].weight;
        }
        swap(&targets[first],
             &targets[first + draw(&targets[first], n, sum, ag_random_next(random))]);
    }
}
