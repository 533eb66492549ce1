/*
 * retrying.h: for tests of retries: policies, requests with content, and how upstreams fail.
 */
#pragma once
#include "actions/proxy/proxy_retry.h"
#include "tests/unit/proxying.h"

#include <stdlib.h>

#define OK2    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define NOT_OK "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy"
#define GET    "GET /p HTTP/1.1\r\nHost: x\r\n\r\n"
#define POST0  "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
#define OK     "\r\n\r\nok"

static inline struct ag_proxy_settings *route_to_both(struct world *w, const struct fake *a,
                                                      const struct fake *b)
{
    char authority[128];

    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u,127.0.0.1:%u", a->port, b->port);
    return route_to(w, authority);
}

/* As `retry: {attempts: N, backoff: 1ms, on: ...}` would have it. */
static inline struct ag_retry_policy *retry_of(struct ag_proxy_settings *s, uint8_t attempts)
{
    s->retry.elsewhere = false;
    s->retry.attempts = attempts;
    s->retry.backoff_ms = s->retry.max_backoff_ms = 1;
    s->retry.buffer_bytes = 65536;
    return &s->retry;
}

static inline void on_status(struct ag_retry_policy *p, unsigned status)
{
    p->causes |= 1u << AG_RETRY_STATUS;
    p->statuses[(status - 400) / 64] |= UINT64_C(1) << (status - 400) % 64;
}

static inline const struct ag_retry_budget *budget_of(struct world *w)
{
    struct ag_upstreams *u = upstreams_of(w);

    for (unsigned i = 0; i < AG_UPSTREAM_BUCKETS; i++) {
        if (!ag_list_empty(&u->buckets[i])) {
            return &ag_container_of(u->buckets[i].next, struct ag_upstream_pool, link)->retries;
        }
    }
    cr_assert(false, "no upstream");
    return NULL;
}

static inline void close_always(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_hang_up(c);
}

static inline void half_a_head(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_send(c, "HTTP/1.1 200 OK\r\nContent-");
    fake_hang_up(c);
}

static inline void garbage(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_send(c, "SSH-2.0-x\r\n\r\n");
}

static inline void silent(struct fake *f, struct fake_conn *c)
{
    (void)f;
    (void)c;
}

/* The first two requests fail. */
static inline void third_time_lucky(struct fake *f, struct fake_conn *c)
{
    if (f->requests < 3) {
        fake_hang_up(c);
    } else {
        fake_send(c, OK2);
    }
}

/* A PUT with `len` bytes of content; free it. */
static inline char *put_of(size_t len, bool chunked)
{
    char *text = malloc(len + 256);
    int n;

    cr_assert(text);
    n = chunked
            ? snprintf(text, 256,
                       "PUT /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n",
                       len)
            : snprintf(text, 256, "PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", len);
    for (size_t i = 0; i < len; i++) {
        text[(size_t)n + i] = (char)('a' + i * 7 / 3 % 26);
    }
    (void)snprintf(text + n + len, 16, "%s", chunked ? "\r\n0\r\n\r\n" : "");
    return text;
}

static inline bool has_content(const struct fake *f, unsigned conn, const char *request, size_t len)
{
    const char *content = strstr(request, "\r\n\r\n") + 4;
    const struct fake_conn *c = &f->conns[conn];

    return c->len == len && memcmp(c->in, content, len) == 0;
}

static inline struct ag_retry_policy *hedge_of(struct ag_proxy_settings *s)
{
    s->retry.hedges = 1;
    s->retry.after_ms = 10;
    return &s->retry;
}
