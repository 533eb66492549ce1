/*
 * The origin of bench/ws.c: sends each message of WebSocket (RFC 6455) back, whatever path was asked for.
 *
 * usage: ws_echo PORT
 *
 * Its sockets block when they are written to: whoever awaits an echo before it sends more reads.
 */
#include "ws_frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS    64
#define CONNS_MAX 20000 /* descriptors: they index a table */
#define BUF_BYTES (2 * WS_FRAME_MAX)

struct conn {
    bool upgraded;
    size_t got;
    uint8_t *in;
};

static struct conn conns[CONNS_MAX];
static int epoll_fd, listen_fd;

static void die(const char *what)
{
    perror(what);
    exit(1); /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

static void end_conn(int fd)
{
    free(conns[fd].in);
    conns[fd] = (struct conn){0};
    (void)close(fd);
}

static bool send_all(int fd, const void *bytes, size_t len)
{
    return send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* The request's head is whole; 4.2.2: base64 of SHA-1 of the key and the protocol's own name. */
static bool upgrade(int fd, const char *head)
{
    static const char name[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const char *key = strcasestr(head, "\r\nSec-WebSocket-Key:");
    char text[128], answer[256];
    unsigned char digest[EVP_MAX_MD_SIZE], accepted[2 * EVP_MAX_MD_SIZE];
    unsigned digest_len;
    int n;

    if (!key) {
        return false;
    }
    key += 20;
    key += strspn(key, " ");
    n = snprintf(text, sizeof(text), "%.*s%s", (int)strcspn(key, " \r"), key, name);
    if (n >= (int)sizeof(text) ||
        EVP_Digest(text, (size_t)n, digest, &digest_len, EVP_sha1(), NULL) != 1) {
        return false;
    }
    (void)EVP_EncodeBlock(accepted, digest, (int)digest_len);
    n = snprintf(answer, sizeof(answer),
                 "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 "Sec-WebSocket-Accept: %s\r\n\r\n",
                 (const char *)accepted);
    return send_all(fd, answer, (size_t)n);
}

/* All messages that are whole, each back in the place where it came; false: the connection is to end. */
static bool echo(int fd, struct conn *c)
{
    uint8_t *at = c->in, *end = c->in + c->got;
    struct ws_frame f;
    int is;

    while ((is = ws_read(at, (size_t)(end - at), &f)) == 1 && f.opcode != WS_CLOSE) {
        size_t head = f.len < 126 ? 2 : 4;

        ws_mask(f.content, f.len, f.mask);
        (void)ws_put_head(f.content - head, f.len, false);
        if (!f.masked || !send_all(fd, f.content - head, head + f.len)) {
            return false;
        }
        at += f.whole_len;
    }
    c->got = (size_t)(end - at);
    memmove(c->in, at, c->got);
    return is == 0;
}

static void on_readable(int fd)
{
    struct conn *c = &conns[fd];
    ssize_t n = recv(fd, c->in + c->got, BUF_BYTES - 1 - c->got, MSG_DONTWAIT);
    bool good = n > 0;

    if (n < 0 && errno == EAGAIN) {
        return;
    }
    c->got += good ? (size_t)n : 0;
    c->in[c->got] = '\0';
    if (good && c->upgraded) {
        good = echo(fd, c);
    } else if (good && strstr((char *)c->in, "\r\n\r\n")) {
        good = upgrade(fd, (char *)c->in);
        c->upgraded = true;
        c->got = 0;
    }
    if (!good) {
        end_conn(fd);
    }
}

static void on_connection(void)
{
    struct epoll_event ev = {.events = EPOLLIN};

    ev.data.fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (ev.data.fd < 0) {
        return;
    }
    if (ev.data.fd >= CONNS_MAX) {
        die("descriptors");
    }
    conns[ev.data.fd].in = malloc(BUF_BYTES);
    if (!conns[ev.data.fd].in || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ev.data.fd, &ev) != 0) {
        die("accept");
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct epoll_event ev = {.events = EPOLLIN}, events[EVENTS];
    int on = 1;

    if (argc != 2) {
        (void)fprintf(stderr, "usage: ws_echo PORT\n");
        return 2;
    }
    at.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ev.data.fd = listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (epoll_fd < 0 || listen_fd < 0 ||
        setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(listen_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        bind(listen_fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listen_fd, 4096) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev) != 0) {
        die("listen");
    }
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listen_fd) {
                on_connection();
            } else {
                on_readable(events[i].data.fd);
            }
        }
    }
}
