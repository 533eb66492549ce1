/*
 * Any bytes as the answer of a name server: no read beyond them; what is taken of them are places that can be looked up,
 * sorted, each once and not too many; putting them into an order loses none.
 */
#include "engine/dns_srv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_host(const struct ag_srv_target *t)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";

    return t->host_len > 0 && t->host_len <= AG_DNS_NAME_MAX && strlen(t->host) == t->host_len &&
           strspn(t->host, chars) == t->host_len;
}

/* Of two in a row: the first one goes first, and is not the second. */
static bool is_before(const struct ag_srv_target *a, const struct ag_srv_target *b)
{
    int by_host = strcmp(a->host, b->host);

    if (a->priority != b->priority) {
        return a->priority < b->priority;
    }
    return by_host < 0 || (by_host == 0 && a->port < b->port);
}

static void check(const struct ag_srv_answer *a)
{
    AG_ASSERT(a->count > 0 && a->count <= AG_SRV_MAX && a->ttl_s <= INT32_MAX);
    for (uint32_t i = 0; i < a->count; i++) {
        AG_ASSERT(is_host(&a->targets[i]) && a->targets[i].port != 0);
        AG_ASSERT(i == 0 || is_before(&a->targets[i - 1], &a->targets[i]));
    }
}

static uint32_t times(const struct ag_srv_answer *a, const struct ag_srv_target *t)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < a->count; i++) {
        n += a->targets[i].port == t->port && a->targets[i].priority == t->priority &&
             strcmp(a->targets[i].host, t->host) == 0;
    }
    return n;
}

static void check_order(const struct ag_srv_answer *sorted, const struct ag_srv_answer *drawn)
{
    for (uint32_t i = 0; i < sorted->count; i++) {
        AG_ASSERT(drawn->targets[i].priority == sorted->targets[i].priority);
        AG_ASSERT(times(drawn, &sorted->targets[i]) == 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ag_srv_answer sorted, drawn;
    uint64_t random[4] = {1, 2, 3, size};
    uint8_t *copy = malloc(size ? size : 1); /* cut to size: ASan sees a read beyond it */
    enum ag_status st;

    AG_ASSERT(copy);
    if (size) {
        memcpy(copy, data, size);
    }
    st = ag_dns_srv_parse(ag_span(copy, size), &sorted);
    free(copy);
    AG_ASSERT(st == AG_OK || st == AG_ENOENT || st == AG_EINVAL);
    if (st == AG_OK) {
        check(&sorted);
        drawn = sorted;
        ag_srv_order(drawn.targets, drawn.count, random);
        check_order(&sorted, &drawn);
    }
    return 0;
}
