/*
 * What the four floors share: a floor is the smallest program that makes the system calls of a server,
 * with no parser, no router, no time-outs and no errors handled but by the end of the connection.
 * No server can be faster on the same kernel by the same calls; how near one comes is its quality.
 *
 * Frozen: what is measured against them counts only while they stay as they are.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNS_MAX 4096 /* descriptors of a process, too: they index its tables */

static inline void need(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static inline struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(port)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Of a socket: small writes leave at once. */
static inline int no_delay(int fd)
{
    int on = 1;

    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* kind: SOCK_NONBLOCK for epoll; io_uring waits by itself, but only where descriptors block. */
static inline int listen_on(const char *port, int kind)
{
    struct sockaddr_in at = loopback(port);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | kind, 0);

    need(fd >= 0, "socket");
    need(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0, "SO_REUSEADDR");
    need(bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0, "bind");
    need(listen(fd, CONNS_MAX) == 0, "listen");
    return fd;
}

/* A connection to the origin; it may still be in the making. */
static inline int connect_to(const char *port, int kind)
{
    struct sockaddr_in to = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | kind, 0);

    need(fd >= 0, "socket");
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        need(errno == EINPROGRESS, "connect");
    }
    no_delay(fd);
    return fd;
}

/* The answer to every request: `bytes` of content. Returns its length. */
static inline size_t make_answer(char **answer, size_t bytes)
{
    char head[128];
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
                     bytes);

    *answer = malloc((size_t)n + bytes);
    need(*answer != NULL, "malloc");
    memcpy(*answer, head, (size_t)n);
    memset(*answer + n, 'x', bytes);
    return (size_t)n + bytes;
}

#endif
