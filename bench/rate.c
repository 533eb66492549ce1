/*
 * GETs at a fixed rate, whatever becomes of them (an open loop), for bench/latency.py and bench/overload.py.
 *
 * usage: rate [OPTION...] RATE PORT PATH
 *
 *   RATE        requests a second, due at even intervals; 0: a closed loop, each connection asks again at once
 *   -c N        connections, or with -n: most requests under way (64)
 *   -d SECONDS  what is measured, fractions too (1)
 *   -w SECONDS  before that, not measured (0.2)
 *   -l MS       a request that has no whole answer so long after it was due is given up: it counts as late (1000)
 *   -n          a new connection for each request, and its making is part of the latency
 *   -x          a request for which no connection is free when it is due is not sent; else it waits for one
 *   -s          waits by asking again and again, which takes the whole core: for when nobody else needs it
 *
 * Latency is from when a request was due until the last byte of its answer was read, so that what waits because the
 * server is behind is not left out (coordinated omission). It is of the answered ones that were due in what is measured;
 * all of these are awaited. stdout is one JSON object:
 *
 *   offered_rate  due a second;  rate: answers a second of the measured time, whenever they were due
 *   answered      with 2xx;  refused: with another status;  late, failed (connection lost or refused, not HTTP);
 *                 unsent: by -x, or nobody was there to send them before they were late
 *   quantiles     [[share, us], ...], empty when nothing was answered;  max_us
 *   refused_p99_us  how soon they were told no
 *   lag_p99_us    how long after they were due requests left, which had a free connection: the generator's own part
 *   busy          the share of its core that it used: near 1 without -s it was what limited the rate
 *
 * A connection:  FREE (open, or to be opened with its next request) --begin--> BUSY --answer, failure, late--> FREE
 */
#include "histogram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define EVENTS     32
#define HEAD_BYTES 1024u
#define CONNS_MAX  16384u
#define SOURCES    64u /* addresses that are connected from: more ports than those of one */
#define SECOND_NS  1000000000ull
#define SHORT_NS   3000u /* not worth a sleep */
#define DRAIN_MOST (1u << 20)

struct conn {
    struct conn *prev, *next; /* of those that are BUSY, by when they were due */
    uint64_t due_ns, free_ns; /* when it became FREE */
    uint64_t left;            /* bytes of content to come */
    int fd;                   /* -1: not open */
    uint32_t got;             /* bytes of the head */
    bool busy, sent, in_content, last, refused;
    char head[HEAD_BYTES];
};

static struct {
    uint64_t rate, conns;
    double seconds, warm_seconds;
    uint64_t limit_ns;
    bool fresh, drop, spin;
    uint16_t port;
    char request[512];
    size_t request_bytes;
} opt = {.conns = 64, .seconds = 1, .warm_seconds = 0.2, .limit_ns = SECOND_NS};

static struct conn *conns;
static struct conn **ring; /* those that are FREE, the one that has been for longest first */
static size_t free_at, free_count;
static struct conn busy = {.prev = &busy, .next = &busy}; /* the head of its list */
static uint64_t start_ns, from_ns, end_ns;                /* of all, of what is measured */
static uint64_t clock_ns;                                 /* as last read */
static uint64_t due_count;                                /* that have been begun, or left out */
static uint64_t opened;
static int epoll_fd;
static uint64_t due_measured, answered, refused, late, failed, unsent, in_time;
static struct histogram latency, refusal, lag;

static void die(const char *what)
{
    perror(what);
    exit(1); /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

static uint64_t now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    clock_ns = (uint64_t)ts.tv_sec * SECOND_NS + (uint64_t)ts.tv_nsec;
    return clock_ns;
}

static bool is_measured(uint64_t due_ns)
{
    return due_ns >= from_ns;
}

/* When the next one is due. */
static uint64_t next_due(void)
{
    return opt.rate ? start_ns + due_count * SECOND_NS / opt.rate : clock_ns;
}

/* ---- connections ---- */

static void watch(struct conn *c, int how, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data = {.ptr = c}};

    if (epoll_ctl(epoll_fd, how, c->fd, &ev) != 0) {
        die("epoll_ctl");
    }
}

static void close_conn(struct conn *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
        c->fd = -1;
    }
}

/* Its handshake is under way, or done, when this returns; false: refused. */
static bool open_conn(struct conn *c)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(opt.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr = {htonl(INADDR_LOOPBACK + opened++ % SOURCES)}};
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0 ||
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) != 0 ||
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        bind(c->fd, (struct sockaddr *)&from, sizeof(from)) != 0) {
        die("socket");
    }
    if (connect(c->fd, (struct sockaddr *)&to, sizeof(to)) == 0 || errno == EINPROGRESS) {
        return true;
    }
    close_conn(c);
    return false;
}

static void set_free(struct conn *c)
{
    if (opt.fresh || c->last) {
        close_conn(c);
    }
    c->free_ns = clock_ns;
    ring[(free_at + free_count++) % opt.conns] = c;
}

static void set_busy(struct conn *c, uint64_t due_ns)
{
    c->due_ns = due_ns;
    c->busy = true;
    c->sent = c->in_content = c->last = false;
    c->got = 0;
    c->prev = busy.prev;
    c->next = &busy;
    c->prev->next = c->next->prev = c;
}

/* How a request has ended: one more of `*count`, if it is measured. */
static void finish(struct conn *c, uint64_t *count, struct histogram *h)
{
    c->busy = false;
    c->prev->next = c->next;
    c->next->prev = c->prev;
    if (is_measured(c->due_ns)) {
        (*count)++;
        if (h) {
            histogram_add(h, clock_ns - c->due_ns);
        }
    }
    set_free(c);
}

static void fail(struct conn *c)
{
    close_conn(c);
    (void)now();
    finish(c, &failed, NULL);
}

static void whole(struct conn *c)
{
    (void)now();
    if (c->refused) {
        finish(c, &refused, &refusal);
        return;
    }
    in_time += clock_ns >= from_ns && clock_ns < end_ns;
    finish(c, &answered, &latency);
}

/* ---- requests ---- */

static void send_request(struct conn *c)
{
    ssize_t n = send(c->fd, opt.request, opt.request_bytes, MSG_NOSIGNAL);

    if (n == (ssize_t)opt.request_bytes) {
        c->sent = true;
    } else if (n >= 0 || errno != EAGAIN) {
        fail(c);
    }
}

static void begin(struct conn *c, uint64_t due_ns)
{
    bool is_new = c->fd < 0;

    if (opt.rate && is_measured(due_ns) && c->free_ns <= due_ns) {
        histogram_add(&lag, now() - due_ns);
    }
    set_busy(c, due_ns);
    if (is_new && !open_conn(c)) {
        fail(c);
        return;
    }
    send_request(c);
    if (is_new && c->fd >= 0) {
        watch(c, EPOLL_CTL_ADD, c->sent ? EPOLLIN : EPOLLOUT);
    }
}

/* What is due, as far as connections are free. */
static void begin_due(void)
{
    for (uint64_t due; (due = next_due()) <= clock_ns && due < end_ns; due_count++) {
        if (free_count > 0) {
            struct conn *c = ring[free_at];

            free_at = (free_at + 1) % opt.conns;
            free_count--;
            begin(c, due);
        } else if (opt.rate && (opt.drop || due + opt.limit_ns < clock_ns)) {
            unsent += is_measured(due);
        } else {
            return;
        }
        due_measured += is_measured(due);
    }
}

static void give_up_late(void)
{
    for (struct conn *c = busy.next; c != &busy && c->due_ns + opt.limit_ns <= clock_ns;
         c = busy.next) {
        close_conn(c);
        finish(c, &late, NULL);
    }
}

/* ---- answers ---- */

/* The head, which ends at `end`; false when it is none that is known here. */
static bool read_head(struct conn *c, const char *end)
{
    bool has_length = false;
    char status = c->head[9];

    c->refused = status != '2';
    c->left = 0;
    if (memcmp(c->head, "HTTP/1.", 7) != 0) {
        return false;
    }
    for (const char *line = strchr(c->head, '\n') + 1; line < end - 2;
         line = strchr(line, '\n') + 1) {
        if (strncasecmp(line, "Content-Length:", 15) == 0) {
            c->left = strtoull(line + 15, NULL, 10);
            has_length = true;
        } else if (strncasecmp(line, "Connection: close", 17) == 0) {
            c->last = true;
        }
    }
    c->in_content = true;
    return has_length;
}

/* Content is let go in the kernel, without a copy. */
static bool read_content(struct conn *c)
{
    while (c->left > 0) {
        size_t most = c->left < DRAIN_MOST ? c->left : DRAIN_MOST;
        ssize_t n = recv(c->fd, NULL, most, MSG_TRUNC);

        if (n <= 0) {
            return n < 0 && errno == EAGAIN;
        }
        c->left -= (uint64_t)n;
    }
    return true;
}

static void read_answer(struct conn *c)
{
    if (!c->in_content) {
        ssize_t n = recv(c->fd, c->head + c->got, HEAD_BYTES - 1 - c->got, 0);
        const char *end;

        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            fail(c);
            return;
        }
        c->got += (uint32_t)n;
        c->head[c->got] = '\0';
        end = strstr(c->head, "\r\n\r\n");
        if (!end && c->got < HEAD_BYTES - 1) {
            return;
        }
        if (!end || !read_head(c, end + 4) || (size_t)(c->head + c->got - end - 4) > c->left) {
            fail(c);
            return;
        }
        c->left -= (uint64_t)(c->head + c->got - end - 4);
    }
    if (!read_content(c)) {
        fail(c);
    } else if (c->left == 0) {
        whole(c);
    }
}

static void on_event(struct conn *c)
{
    if (!c->busy) { /* the server has ended it; or an event of one that is closed */
        char byte;

        if (c->fd >= 0 && recv(c->fd, &byte, 1, 0) >= 0) {
            close_conn(c);
        }
    } else if (c->sent) {
        read_answer(c);
    } else {
        send_request(c);
        if (c->busy && c->sent) {
            watch(c, EPOLL_CTL_MOD, EPOLLIN);
        }
    }
}

/* ---- the run ---- */

static struct timespec time_to_wait(void)
{
    uint64_t until = busy.next != &busy ? busy.next->due_ns + opt.limit_ns : end_ns, ns;

    if (clock_ns < end_ns && free_count > 0) {
        until = next_due() < until ? next_due() : until;
    }
    ns = until > clock_ns ? until - clock_ns : 0;
    ns = opt.spin || ns < SHORT_NS ? 0 : ns;
    return (struct timespec){(time_t)(ns / SECOND_NS), (long)(ns % SECOND_NS)};
}

static void run(void)
{
    struct epoll_event events[EVENTS];

    while (now() < end_ns || busy.next != &busy || next_due() < end_ns) {
        begin_due();
        give_up_late();
        struct timespec wait = time_to_wait();
        int n = epoll_pwait2(epoll_fd, events, EVENTS, &wait, NULL);

        for (int i = 0; i < n; i++) {
            on_event(events[i].data.ptr);
            begin_due();
        }
    }
}

/* All are open before the first request. */
static void open_all(void)
{
    for (size_t i = 0; i < opt.conns; i++) {
        struct conn *c = &conns[i];

        c->fd = -1;
        if (!opt.fresh) {
            if (!open_conn(c)) {
                die("connect");
            }
            watch(c, EPOLL_CTL_ADD, EPOLLIN);
        }
        set_free(c);
    }
}

static double cpu_seconds(void)
{
    struct rusage use;

    (void)getrusage(RUSAGE_SELF, &use);
    return (double)use.ru_utime.tv_sec + (double)use.ru_stime.tv_sec +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void print(double busy_share)
{
    static const double shares[] = {0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999};

    (void)printf("{\"offered_rate\": %.1f, \"rate\": %.1f, \"sent\": %llu, \"answered\": %llu, "
                 "\"refused\": %llu, \"late\": %llu, \"failed\": %llu, \"unsent\": %llu, "
                 "\"quantiles\": [",
                 (double)due_measured / opt.seconds, (double)in_time / opt.seconds,
                 (unsigned long long)(due_measured - unsent), (unsigned long long)answered,
                 (unsigned long long)refused, (unsigned long long)late, (unsigned long long)failed,
                 (unsigned long long)unsent);
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]) && latency.count > 0; i++) {
        (void)printf("%s[%g, %.2f]", i ? ", " : "", shares[i],
                     histogram_quantile(&latency, shares[i]) / 1e3);
    }
    (void)printf("], \"max_us\": %.2f, \"refused_p99_us\": %.2f, \"lag_p99_us\": %.2f, "
                 "\"busy\": %.3f}\n",
                 (double)latency.max_ns / 1e3, histogram_quantile(&refusal, 0.99) / 1e3,
                 histogram_quantile(&lag, 0.99) / 1e3, busy_share);
}

static bool read_options(int argc, char **argv)
{
    int n;

    for (int o;
         (o = getopt(argc, argv, "c:d:w:l:nxs")) != -1;) { /* NOLINT(concurrency-mt-unsafe) */
        switch (o) {
        case 'c':
            opt.conns = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            opt.seconds = strtod(optarg, NULL);
            break;
        case 'w':
            opt.warm_seconds = strtod(optarg, NULL);
            break;
        case 'l':
            opt.limit_ns = strtoull(optarg, NULL, 10) * 1000000u;
            break;
        case 'n':
            opt.fresh = true;
            break;
        case 'x':
            opt.drop = true;
            break;
        case 's':
            opt.spin = true;
            break;
        default:
            return false;
        }
    }
    if (argc - optind != 3 || opt.conns == 0 || opt.conns > CONNS_MAX || opt.seconds <= 0) {
        return false;
    }
    opt.rate = strtoull(argv[optind], NULL, 10);
    opt.port = (uint16_t)strtoul(argv[optind + 1], NULL, 10);
    n = snprintf(opt.request, sizeof(opt.request), "GET %s HTTP/1.1\r\nHost: bench\r\n%s\r\n",
                 argv[optind + 2], opt.fresh ? "Connection: close\r\n" : "");
    opt.request_bytes = (size_t)n;
    return opt.request_bytes < sizeof(opt.request);
}

int main(int argc, char **argv)
{
    struct rlimit files;

    if (!read_options(argc, argv)) {
        (void)fprintf(stderr, "usage: rate [-c CONNECTIONS] [-d SECONDS] [-w SECONDS] [-l MS] [-n] "
                              "[-x] [-s] RATE PORT PATH\n");
        return 2;
    }
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc(opt.conns, sizeof(conns[0]));
    ring = calloc(opt.conns, sizeof(struct conn *));
    /* A sleep ends when it should, not up to 50 us later. */
    if (epoll_fd < 0 || !conns || !ring || setrlimit(RLIMIT_NOFILE, &files) != 0 ||
        prctl(PR_SET_TIMERSLACK, 1) != 0) {
        die("rate");
    }
    open_all();
    start_ns = now() + 1000000u;
    from_ns = start_ns + (uint64_t)(opt.warm_seconds * 1e9);
    end_ns = from_ns + (uint64_t)(opt.seconds * 1e9);
    double cpu = cpu_seconds();
    run();
    cpu = (cpu_seconds() - cpu) * 1e9 / (double)(now() - start_ns);
    print(cpu);
    return 0;
}
