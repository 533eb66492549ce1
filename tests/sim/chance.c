#define OPENSSL_API_COMPAT 10101 /* RAND_METHOD: newer ways ask for a provider of its own */
#include "tests/sim/chance.h"

#include <openssl/rand.h>
#include <sys/random.h>
#include <sys/time.h>

static struct sim *sim;
static int64_t wall_s = INT64_C(1790000000);
static uint64_t drawn;

static void fill(uint8_t *to, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = sim_hash(sim ? sim->seed : 0, UINT64_C(1) << 40 | drawn++);

        memcpy(to + i, &word, ag_min_size(8, len - i));
    }
}

/* ---- the C library's ---- */

/* Its names of parameters are reserved ones. */
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)

time_t time(time_t *out)
{
    time_t now = wall_s + (sim ? (time_t)(sim->now_us / SIM_S) : 0);

    if (out) {
        *out = now;
    }
    return now;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    (void)zone;
    *out = (struct timeval){.tv_sec = time(NULL),
                            .tv_usec = sim ? (suseconds_t)(sim->now_us % SIM_S) : 0};
    return 0;
}

ssize_t getrandom(void *to, size_t len, unsigned flags)
{
    (void)flags;
    fill(to, len);
    return (ssize_t)len;
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)

/* ---- OpenSSL's ---- */

static int on_bytes(unsigned char *to, int len)
{
    fill(to, (size_t)len);
    return 1;
}

static int on_seed(const void *from, int len)
{
    (void)from;
    (void)len;
    return 1;
}

static int on_add(const void *from, int len, double entropy)
{
    (void)entropy;
    return on_seed(from, len);
}

static int on_status(void)
{
    return 1;
}

void chance_init(void)
{
    static const RAND_METHOD method = {.seed = on_seed,
                                       .bytes = on_bytes,
                                       .add = on_add,
                                       .pseudorand = on_bytes,
                                       .status = on_status};

    AG_ASSERT(RAND_set_rand_method(&method) == 1);
}

void chance_begin(struct sim *s, int64_t start_s)
{
    sim = s;
    wall_s = start_s;
    drawn = 0;
}
