/*
 * An origin that swallows bodies: reads each request to its end by Content-Length, then answers 200 "OK".
 * Nothing else is read of a head, for it asks its own clients alone.
 *
 * usage: sink PORT
 */
#include "floor/floor.h"

#include <stdbool.h>
#include <strings.h>
#include <sys/epoll.h>

#define EVENTS    256
#define HEAD_MAX  8192u
#define BUF_BYTES 262144u

struct conn {
    size_t head_len;
    uint64_t left; /* of the body */
    bool in_body;
    char head[HEAD_MAX + 1];
};

static struct conn *conns[CONNS_MAX];
static char buf[BUF_BYTES];
static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

static uint64_t content_length(const char *head)
{
    for (const char *line = head; line; line = strstr(line, "\r\n")) {
        line += line == head ? 0 : 2;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            return strtoull(line + 15, NULL, 10);
        }
    }
    return 0;
}

/* Takes what came; answers each request that is whole. Returns false where the connection is to end. */
static bool take(int fd, struct conn *c, const char *at, size_t len)
{
    while (len > 0 || (c->in_body && c->left == 0)) {
        if (!c->in_body) {
            size_t before = c->head_len, n = len < HEAD_MAX - before ? len : HEAD_MAX - before;
            char *end;

            memcpy(c->head + before, at, n);
            c->head[before + n] = '\0';
            end = strstr(c->head, "\r\n\r\n");
            if (!end) {
                c->head_len = before + n;
                return c->head_len < HEAD_MAX;
            }
            n = (size_t)(end + 4 - c->head) - before;
            at += n;
            len -= n;
            *end = '\0';
            c->left = content_length(c->head);
            c->in_body = true;
            c->head_len = 0;
        }
        size_t n = len < c->left ? len : c->left;

        at += n;
        len -= n;
        c->left -= n;
        if (c->left > 0) {
            return true;
        }
        c->in_body = false;
        if (send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) != sizeof(answer) - 1) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS], ev = {.events = EPOLLIN};
    int listener, loop = epoll_create1(EPOLL_CLOEXEC);

    need(argc == 2, "usage: sink PORT");
    ev.data.fd = listener = listen_on(argv[1], SOCK_NONBLOCK);
    need(loop >= 0 && epoll_ctl(loop, EPOLL_CTL_ADD, listener, &ev) == 0, "epoll");
    for (;;) {
        int n = epoll_wait(loop, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            ssize_t got;

            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    need(fd < CONNS_MAX && (conns[fd] = calloc(1, sizeof(struct conn))),
                         "connection");
                    no_delay(fd);
                    ev = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                    need(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &ev) == 0, "epoll_ctl");
                }
                continue;
            }
            need(conns[fd] != NULL, "connection");
            got = recv(fd, buf, sizeof(buf), 0);
            if (got <= 0 || !take(fd, conns[fd], buf, (size_t)got)) {
                free(conns[fd]);
                close(fd);
            }
        }
    }
}
