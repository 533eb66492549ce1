/*
 * An origin of bounded capacity, for bench/overload.py: so many workers, each of which takes so long for a request that
 * capacity is WORKERS / MS thousands a second, at next to no cost of CPU. Requests beyond wait in order of arrival;
 * those whose connection has gone are worked on all the same, as behind a real origin.
 *
 * usage: slow_origin PORT WORKERS MS
 *
 *   request --> waiting --a worker is free--> at work, MS long --> answered
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define EVENTS     64
#define CONNS_MAX  20000 /* descriptors: they index a table */
#define JOBS_MAX   65536u
#define HEAD_BYTES 4096u

struct conn {
    uint32_t generation; /* of the descriptor's number */
    uint32_t got;
    char *head; /* of a request that is not whole */
};

struct job {
    uint64_t done_ns; /* once it is worked on */
    int fd;
    uint32_t generation;
};

static const char answer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nOK";
static struct conn conns[CONNS_MAX];
/* A ring: first those at work, then those that wait. All take equally long, so they end in order. */
static struct job jobs[JOBS_MAX];
static uint64_t ended, taken, arrived;
static uint64_t workers, work_ns;
static int epoll_fd, listen_fd;

static void die(const char *what)
{
    perror(what);
    exit(1); /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void end_conn(int fd)
{
    free(conns[fd].head);
    conns[fd].head = NULL;
    conns[fd].generation++;
    (void)close(fd);
}

static void take_jobs(uint64_t now)
{
    for (; taken < arrived && taken - ended < workers; taken++) {
        jobs[taken % JOBS_MAX].done_ns = now + work_ns;
    }
}

static void end_jobs(uint64_t now)
{
    for (; ended < taken && jobs[ended % JOBS_MAX].done_ns <= now; ended++) {
        const struct job *j = &jobs[ended % JOBS_MAX];

        if (conns[j->fd].generation == j->generation) {
            (void)!send(j->fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
        }
    }
    take_jobs(now);
}

static void on_readable(int fd)
{
    struct conn *c = &conns[fd];
    ssize_t n = recv(fd, c->head + c->got, HEAD_BYTES - 1 - c->got, 0);

    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0 || arrived - ended == JOBS_MAX) {
        end_conn(fd);
        return;
    }
    c->got += (uint32_t)n;
    c->head[c->got] = '\0';
    if (strstr(c->head, "\r\n\r\n")) {
        c->got = 0;
        jobs[arrived++ % JOBS_MAX] = (struct job){.fd = fd, .generation = c->generation};
        take_jobs(now_ns());
    }
}

static void on_connection(void)
{
    struct epoll_event ev = {.events = EPOLLIN};

    while ((ev.data.fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (ev.data.fd >= CONNS_MAX) {
            die("descriptors");
        }
        conns[ev.data.fd].got = 0;
        conns[ev.data.fd].head = malloc(HEAD_BYTES);
        if (!conns[ev.data.fd].head || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ev.data.fd, &ev) != 0) {
            die("accept");
        }
    }
}

static void listen_on(uint16_t port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct epoll_event ev = {.events = EPOLLIN};
    int on = 1;

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ev.data.fd = listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (epoll_fd < 0 || listen_fd < 0 ||
        setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(listen_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        bind(listen_fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listen_fd, 4096) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev) != 0) {
        die("listen");
    }
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];

    if (argc != 4) {
        (void)fprintf(stderr, "usage: slow_origin PORT WORKERS MS\n");
        return 2;
    }
    workers = strtoull(argv[2], NULL, 10);
    work_ns = (uint64_t)(strtod(argv[3], NULL) * 1e6);
    (void)prctl(PR_SET_TIMERSLACK, 1); /* a sleep ends when it should */
    listen_on((uint16_t)strtoul(argv[1], NULL, 10));
    for (;;) {
        uint64_t now = now_ns(), next = taken > ended ? jobs[ended % JOBS_MAX].done_ns : 0;
        uint64_t ns = next > now ? next - now : 0;
        struct timespec wait = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        int n = epoll_pwait2(epoll_fd, events, EVENTS, taken > ended ? &wait : NULL, NULL);

        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listen_fd) {
                on_connection();
            } else {
                on_readable(events[i].data.fd);
            }
        }
        end_jobs(now_ns());
    }
}
