/*
 * GETs on connections that are kept as long as the server keeps them, each request's time and latency
 * written down, for bench/reload.py and bench/upgrade.py. Whatever is not a whole 200 is a failure.
 *
 * usage: load RATE PORT CONNECTIONS SECONDS FILE PATH...      connection i asks for path i % paths
 *
 *   RATE   requests a second, due at even intervals; one that no connection was free for counts from when
 *          it was due. 0: a closed loop, in which each connection asks again at once.
 *   FILE   one struct sample a request, in order of their ends
 *   stdin  its end stops the run early
 *   stdout "REQUESTS FAILURES" at the end; each failure's kind on stderr
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS     64
#define HEAD_BYTES 4096u
#define CONNS_MAX  1024u
#define SAMPLES    8192u
#define TICK_NS    250000 /* between looks at what is due */

struct sample {
    uint64_t end_us; /* CLOCK_MONOTONIC */
    uint32_t latency_us;
    uint32_t failed;
};

struct conn {
    int fd;
    const char *path;
    uint64_t begun_us;
    size_t got;    /* bytes of the answer in `head` */
    uint64_t left; /* of its content */
    bool in_content;
    bool last; /* the answer says that it closes: another connection then */
    char head[HEAD_BYTES];
};

static struct conn conns[CONNS_MAX];
static struct sample samples[SAMPLES];
static size_t sample_count;
static uint64_t requests, failures;
static uint64_t rate, start_us, asked;
static struct conn *idle[CONNS_MAX]; /* a ring: the one that has waited longest asks first */
static size_t idle_at, idle_count;
static uint16_t port;
static int epoll_fd, out_fd;

static uint64_t now_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void die(const char *what)
{
    perror(what);
    exit(1); /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

static void flush_samples(void)
{
    size_t bytes = sample_count * sizeof(samples[0]);

    if (write(out_fd, samples, bytes) != (ssize_t)bytes) {
        die("write");
    }
    sample_count = 0;
}

static void note(const struct conn *c, bool failed)
{
    uint64_t now = now_us();

    samples[sample_count++] = (struct sample){now, (uint32_t)(now - c->begun_us), failed ? 1u : 0u};
    requests++;
    failures += failed;
    if (sample_count == SAMPLES) {
        flush_samples();
    }
}

static void ask(struct conn *c, uint64_t begun_us)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", c->path);

    c->begun_us = begun_us;
    c->got = 0;
    c->in_content = false;
    /* A socket that is broken tells so when it is read from. */
    (void)!send(c->fd, text, (size_t)n, MSG_NOSIGNAL);
}

/* What is due, as far as connections are free. */
static void ask_due(void)
{
    uint64_t due = (now_us() - start_us) * rate / 1000000u;

    for (; asked < due && idle_count > 0; asked++, idle_count--) {
        struct conn *c = idle[idle_at++ % CONNS_MAX];

        ask(c, start_us + asked * 1000000u / rate);
    }
}

/* `c` is free for another request. */
static void ask_again(struct conn *c)
{
    if (rate == 0) {
        ask(c, now_us());
        return;
    }
    idle[(idle_at + idle_count++) % CONNS_MAX] = c;
    ask_due();
}

static void open_conn(struct conn *c)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct epoll_event ev = {.events = EPOLLIN, .data = {.ptr = c}};
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0 ||
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
        die("connect");
    }
    ask_again(c);
}

static void reopen(struct conn *c)
{
    (void)close(c->fd);
    open_conn(c);
}

static void fail(struct conn *c, const char *what)
{
    (void)fprintf(stderr, "%s: %s\n", c->path, what);
    note(c, true);
    reopen(c);
}

static void answered(struct conn *c)
{
    note(c, false);
    if (c->last) {
        reopen(c);
    } else {
        ask_again(c);
    }
}

/* The head is complete at `end`; what is behind it is content. */
static void read_head(struct conn *c, const char *end)
{
    size_t behind = c->got - (size_t)(end - c->head);
    const char *length = strcasestr(c->head, "\r\nContent-Length: ");

    if (strncmp(c->head, "HTTP/1.1 200 ", 13) != 0) {
        fail(c, "not a 200");
        return;
    }
    c->left = length ? strtoull(length + 18, NULL, 10) : 0;
    c->in_content = true;
    c->last = strcasestr(c->head, "\r\nConnection: close\r\n") != NULL;
    if (!length || behind > c->left) {
        fail(c, "not framed as expected");
        return;
    }
    c->left -= behind;
    if (c->left == 0) {
        answered(c);
    }
}

static void on_readable(struct conn *c)
{
    static char sink[65536];
    ssize_t n = c->in_content ? read(c->fd, sink, sizeof(sink))
                              : read(c->fd, c->head + c->got, HEAD_BYTES - 1 - c->got);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        fail(c, n == 0 ? "closed" : "reset");
    } else if (!c->in_content) {
        c->got += (size_t)n;
        c->head[c->got] = '\0';
        char *end = strstr(c->head, "\r\n\r\n");

        if (end) {
            read_head(c, end + 4);
        } else if (c->got == HEAD_BYTES - 1) {
            fail(c, "a head without an end");
        }
    } else if ((uint64_t)n > c->left) {
        fail(c, "more than was announced");
    } else {
        c->left -= (uint64_t)n;
        if (c->left == 0) {
            answered(c);
        }
    }
}

/* A descriptor that is readable at each tick. */
static int tick_fd(void)
{
    const struct itimerspec each = {{0, TICK_NS}, {0, TICK_NS}};
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data = {.ptr = idle}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    if (fd < 0 || timerfd_settime(fd, 0, &each, NULL) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
        die("timerfd");
    }
    return fd;
}

static void run(uint64_t until_us)
{
    struct epoll_event events[EVENTS];
    bool stopped = false;
    uint64_t ticks;
    int ticker = rate ? tick_fd() : -1;

    while (!stopped && now_us() < until_us) {
        int n = epoll_wait(epoll_fd, events, EVENTS, 100);

        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == idle) {
                (void)!read(ticker, &ticks, sizeof(ticks));
                ask_due();
            } else if (events[i].data.ptr) {
                on_readable(events[i].data.ptr);
            } else {
                stopped = true;
            }
        }
    }
}

int main(int argc, char **argv)
{
    struct epoll_event ev = {.events = EPOLLIN};
    size_t count, paths = (size_t)(argc > 6 ? argc - 6 : 0);

    if (paths == 0) {
        (void)fprintf(stderr, "usage: load RATE PORT CONNECTIONS SECONDS FILE PATH...\n");
        return 2;
    }
    rate = strtoull(argv[1], NULL, 10);
    port = (uint16_t)strtoul(argv[2], NULL, 10);
    count = strtoul(argv[3], NULL, 10);
    out_fd = open(argv[5], O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (count > CONNS_MAX || out_fd < 0 || epoll_fd < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &ev) != 0) {
        die("load");
    }
    start_us = now_us();
    for (size_t i = 0; i < count; i++) {
        conns[i].path = argv[6 + i % paths];
        open_conn(&conns[i]);
    }
    run(now_us() + strtoull(argv[4], NULL, 10) * 1000000u);
    flush_samples();
    (void)printf("%llu %llu\n", (unsigned long long)requests, (unsigned long long)failures);
    return 0;
}
