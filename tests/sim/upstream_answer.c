#include "tests/sim/upstream.h"

#include "proto/websocket.h"

#include <stdarg.h>

/* Bytes of an answer that surely arrive in one piece, with what is put behind it. */
#define WHOLE_BYTES 200u
/* More than any limit of a head. */
#define LARGE_HEAD 70000u

struct out {
    struct sim *sim;
    uint8_t *bytes;
    size_t len, max;
};

static void put(struct out *o, const char *fmt, ...) AG_PRINTF(2, 3);

static void put(struct out *o, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf((char *)o->bytes + o->len, o->max - o->len, fmt, args);
    va_end(args);
    AG_ASSERT(n >= 0 && (size_t)n < o->max - o->len);
    o->len += (size_t)n;
}

static void put_content(struct out *o, const struct request *q, uint64_t from, size_t len)
{
    AG_ASSERT(len <= o->max - o->len);
    content_fill(answer_key(q), from, o->bytes + o->len, len);
    o->len += len;
}

static void put_status(struct out *o, const struct request *q, unsigned status, bool close)
{
    put(o, "HTTP/1.1 %u Whatever\r\nX-Id: %u\r\nX-Hop: secret\r\n", status, q->id);
    put(o, "Connection: X-Hop%s\r\n", close ? ", close" : "");
    if (q->plan != PLAN_EXTRA && sim_chance(o->sim, 50)) {
        put(o, "X-Long: %0*d\r\n", (int)sim_between(o->sim, 100, 5000), 0);
    }
}

static void put_interims(struct out *o, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        put(o, "HTTP/1.1 %u Early\r\nLink: </%u>\r\n\r\n", i % 2 ? 102u : 103u, i);
    }
}

static void put_chunks(struct out *o, const struct request *q)
{
    uint32_t at = 0;

    while (at < q->answer_bytes) {
        uint32_t left = q->answer_bytes - at;
        uint32_t n = (uint32_t)sim_between(o->sim, 1, ag_min_u64(left, 1 + left / 2 + 100));

        put(o, sim_chance(o->sim, 50) ? "%x;a=b\r\n" : "%x\r\n", n);
        put_content(o, q, at, n);
        put(o, "\r\n");
        at += n;
    }
}

static void put_chunked(struct out *o, const struct request *q, bool close)
{
    put_status(o, q, 200, close);
    put(o, "Transfer-Encoding: chunked\r\n\r\n");
    put_chunks(o, q);
    if (q->plan == PLAN_BAD_CHUNK) {
        put(o, "5zz\r\nxxxxx\r\n");
    } else {
        put(o, "0\r\n%s\r\n", sim_chance(o->sim, 200) ? "X-Trailer: t\r\n" : "");
    }
}

static void put_length(struct out *o, const struct request *q, bool close)
{
    put_status(o, q, q->refused_upgrade ? 403 : 200, close);
    put(o, "Content-Length: %u\r\n\r\n", q->answer_bytes);
    if (!q->head) {
        put_content(o, q, 0, q->answer_bytes);
    }
}

static void put_switch(struct out *o, const struct request *q)
{
    uint8_t accept[AG_WEBSOCKET_ACCEPT_LEN];

    ag_websocket_accept(ag_span_str(q->websocket_key), accept);
    put(o,
        "HTTP/1.1 101 Switching Protocols\r\nX-Id: %u\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Accept: %.*s\r\n\r\n",
        q->id, (int)sizeof(accept), (const char *)accept);
}

static void put_bad(struct out *o, const struct request *q)
{
    if (q->plan == PLAN_SWITCH) {
        put(o, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    } else if (q->plan == PLAN_LARGE_HEAD) {
        put(o, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
        for (uint32_t i = 0; i < LARGE_HEAD; i += 1000) {
            put(o, "X-Fill-%u: %0999d\r\n", i, 0);
        }
        put(o, "\r\n");
    } else if (q->plan == PLAN_GARBAGE) {
        put(o, q->id % 2 ? "HTTP/1.1 2x0 OK\r\n\r\n" : "SSH-2.0-OpenSSH_9.2\r\n\r\n");
    } else if (q->plan == PLAN_TWO_LENGTHS) {
        put(o, "HTTP/1.1 200 OK\r\nX-Id: %u\r\nContent-Length: 3\r\n%s\r\n\r\nabc", q->id,
            q->id % 2 ? "Content-Length: 4" : "Transfer-Encoding: chunked");
    } else {
        put(o, "HTTP/1.1 200 OK\r\nX-Id: %u\r\nContent-Le", q->id);
    }
}

/* Where an answer is cut: within its content. */
static size_t cut_in(struct sim *s, const struct request *q, size_t len)
{
    return len - (size_t)sim_between(s, 1, q->answer_bytes);
}

void answer_make(struct sim *s, const struct request *q, bool close, bool whole, struct answer *out)
{
    struct out o = {.sim = s, .max = 20000 + 2 * LARGE_HEAD + 2 * (size_t)q->answer_bytes};

    o.max += 12 * (size_t)q->answer_bytes / 10;
    o.bytes = sim_alloc_raw(s, o.max);
    out->end = close ? ANSWER_FIN : ANSWER_KEEP;
    out->early = false;
    switch ((enum plan)q->plan) {
    case PLAN_INTERIM:
        put_interims(&o, (unsigned)sim_between(s, 1, 16));
        put_length(&o, q, close);
        break;
    case PLAN_STORM:
        put_interims(&o, 20);
        put_length(&o, q, close);
        break;
    case PLAN_LENGTH:
        if (q->kind == REQUEST_TUNNEL && !q->refused_upgrade) {
            put_switch(&o, q);
            break;
        }
        put_length(&o, q, close);
        break;
    case PLAN_CHUNKED:
        put_chunked(&o, q, close);
        break;
    case PLAN_CLOSE:
        put_status(&o, q, 200, true);
        put(&o, "\r\n");
        put_content(&o, q, 0, q->answer_bytes);
        out->end = ANSWER_FIN;
        break;
    case PLAN_EMPTY:
        put_status(&o, q, 204, close);
        put(&o, "\r\n");
        break;
    case PLAN_EARLY:
    case PLAN_EARLY_CLOSE:
        put_length(&o, q, q->plan == PLAN_EARLY_CLOSE);
        out->early = true;
        out->end = q->plan == PLAN_EARLY_CLOSE ? ANSWER_FIN : out->end;
        break;
    case PLAN_NO_ANSWER:
        out->end = ANSWER_STALL;
        break;
    case PLAN_STALL:
    case PLAN_CUT_FIN:
    case PLAN_CUT_RST:
        if (q->kind == REQUEST_TUNNEL && !q->refused_upgrade) {
            put_switch(&o, q);
            out->end = ANSWER_RST;
            break;
        }
        put_length(&o, q, close);
        o.len = cut_in(s, q, o.len);
        out->end = q->plan == PLAN_STALL     ? ANSWER_STALL
                   : q->plan == PLAN_CUT_FIN ? ANSWER_FIN
                                             : ANSWER_RST;
        break;
    case PLAN_CLOSED:
        out->end = ANSWER_FIN;
        break;
    case PLAN_RESET:
        out->end = ANSWER_RST;
        break;
    case PLAN_EXTRA:
        /* What comes later, when the next request was sent, nobody can tell from its answer. */
        close = close || !whole || q->answer_bytes > WHOLE_BYTES;
        put_length(&o, q, close);
        out->end = close ? ANSWER_FIN : ANSWER_KEEP;
        put(&o, "HTTP/1.1 200 OK\r\nX-Id: 999999\r\nContent-Length: 5\r\n\r\nextra");
        break;
    case PLAN_BAD_CHUNK:
        put_chunked(&o, q, close);
        break;
    case PLAN_CUT_HEAD:
    case PLAN_GARBAGE:
    case PLAN_TWO_LENGTHS:
    case PLAN_SWITCH:
    case PLAN_LARGE_HEAD:
        put_bad(&o, q);
        out->end = ANSWER_FIN;
        break;
    case PLANS:
        AG_UNREACHABLE("no such plan");
    }
    out->bytes = o.bytes;
    out->len = o.len;
}
