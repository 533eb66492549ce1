/*
 * WebSocket messages (RFC 6455), a closed loop: each connection sends a text, masked, awaits its echo, and sends again.
 *
 * usage: ws PORT PATH CONNECTIONS SECONDS [BYTES]      SECONDS with fractions, from when all have shaken hands
 *
 *   stdout  "MESSAGES FAILURES": echoes that came, and connections that were lost or were echoed something else
 *   stderr  the first failure's kind
 */
#include "ws_frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENTS     64
#define CONNS_MAX  1024u
#define HEAD_BYTES 2048u

struct conn {
    int fd;
    size_t got, sent;
    uint8_t in[WS_FRAME_MAX];
};

static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
static struct conn conns[CONNS_MAX];
static uint8_t frame[WS_FRAME_MAX], text[WS_MESSAGE_MAX];
static size_t frame_len, text_len = 32;
static uint64_t messages, failures;
static size_t alive;
static int epoll_fd;

static void die(const char *what)
{
    perror(what);
    exit(1); /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

static uint64_t now_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void make_frame(void)
{
    size_t head = ws_put_head(frame, text_len, true);

    memset(text, 'x', text_len);
    memcpy(frame + head, mask, sizeof(mask));
    memcpy(frame + head + sizeof(mask), text, text_len);
    ws_mask(frame + head + sizeof(mask), text_len, mask);
    frame_len = head + sizeof(mask) + text_len;
}

static void fail(struct conn *c, const char *what)
{
    if (failures++ == 0) {
        (void)fprintf(stderr, "%s\n", what);
    }
    (void)close(c->fd);
    alive--;
}

static void watch(struct conn *c, int how, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data = {.ptr = c}};

    if (epoll_ctl(epoll_fd, how, c->fd, &ev) != 0) {
        die("epoll_ctl");
    }
}

/* What is left of the frame; true when it did not all go. */
static bool send_on(struct conn *c)
{
    ssize_t n = send(c->fd, frame + c->sent, frame_len - c->sent, MSG_NOSIGNAL);

    c->sent += n > 0 ? (size_t)n : 0; /* a socket that is broken tells so when it is read from */
    return c->sent < frame_len;
}

static void send_message(struct conn *c)
{
    c->sent = 0;
    if (send_on(c)) {
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
}

static void on_readable(struct conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->got, WS_FRAME_MAX - c->got, 0);
    struct ws_frame f;
    int is;

    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        fail(c, "closed");
        return;
    }
    c->got += (size_t)n;
    is = ws_read(c->in, c->got, &f);
    if (is == 0) {
        return;
    }
    if (is < 0 || f.opcode != WS_TEXT || f.masked || f.len != text_len || f.whole_len != c->got ||
        memcmp(f.content, text, text_len) != 0) {
        fail(c, "not the echo");
        return;
    }
    c->got = 0;
    messages++;
    send_message(c);
}

/* Waits for the answer: a run begins when all are there. */
static void shake(struct conn *c, uint16_t port, const char *path)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char head[HEAD_BYTES];
    size_t got = 0;
    int one = 1, n;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0) {
        die("connect");
    }
    n = snprintf(head, sizeof(head),
                 "GET %s HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                 path);
    (void)!send(c->fd, head, (size_t)n, MSG_NOSIGNAL);
    head[0] = '\0';
    while (!strstr(head, "\r\n\r\n")) {
        ssize_t more = recv(c->fd, head + got, sizeof(head) - 1 - got, 0);

        if (more <= 0) {
            errno = more < 0 ? errno : EPROTO;
            die("no answer to the upgrade");
        }
        got += (size_t)more;
        head[got] = '\0';
    }
    /* RFC 6455 section 1.3: what that key must be answered with. */
    if (strncmp(head, "HTTP/1.1 101 ", 13) != 0 || !strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) {
        errno = EPROTO;
        die("no upgrade");
    }
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0) {
        die("fcntl");
    }
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

static void run(uint64_t until_us)
{
    struct epoll_event events[EVENTS];

    while (alive > 0 && now_us() < until_us) {
        int n = epoll_wait(epoll_fd, events, EVENTS, 100);

        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;

            if (events[i].events & EPOLLOUT && !send_on(c)) {
                watch(c, EPOLL_CTL_MOD, EPOLLIN);
            }
            if (events[i].events & ~(uint32_t)EPOLLOUT) {
                on_readable(c);
            }
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc > 6) {
        (void)fprintf(stderr, "usage: ws PORT PATH CONNECTIONS SECONDS [BYTES]\n");
        return 2;
    }
    alive = strtoul(argv[3], NULL, 10);
    text_len = argc == 6 ? strtoul(argv[5], NULL, 10) : text_len;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (alive > CONNS_MAX || text_len == 0 || text_len > WS_MESSAGE_MAX || epoll_fd < 0) {
        (void)fprintf(stderr, "ws: at most %u connections, 1 to %u bytes\n", CONNS_MAX,
                      WS_MESSAGE_MAX);
        return 2;
    }
    make_frame();
    size_t count = alive;
    for (size_t i = 0; i < count; i++) {
        shake(&conns[i], (uint16_t)strtoul(argv[1], NULL, 10), argv[2]);
    }
    uint64_t until_us = now_us() + (uint64_t)(strtod(argv[4], NULL) * 1e6);
    for (size_t i = 0; i < count; i++) {
        send_message(&conns[i]);
    }
    run(until_us);
    (void)printf("%llu %llu\n", (unsigned long long)messages, (unsigned long long)failures);
    return 0;
}
