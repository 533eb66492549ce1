/*
 * The floor of a proxy by epoll: whatever a client sends goes to a connection to the origin of its own,
 * and what that sends comes back, by receives and sends of up to BUF bytes.
 *
 * usage: relay_epoll PORT ORIGIN_PORT BUF
 */
#include "floor.h"

#include <sys/epoll.h>

#define EVENTS  256
#define BUF_MAX (1u << 20)

struct end {
    int peer;   /* what it reads goes there */
    char *left; /* of what was to go to the peer, when that took less; NULL: none */
    size_t at, len;
};

static struct end ends[CONNS_MAX];
static char buf[BUF_MAX];
static int loop;

static void watch(int op, int fd, uint32_t for_what)
{
    struct epoll_event ev = {.events = for_what, .data.fd = fd};

    need(epoll_ctl(loop, op, fd, &ev) == 0, "epoll_ctl");
}

static void end(int fd)
{
    int pair[] = {fd, ends[fd].peer};

    for (int i = 0; i < 2; i++) {
        free(ends[pair[i]].left);
        ends[pair[i]] = (struct end){.peer = -1};
        close(pair[i]);
    }
}

static void begin(int client, int origin)
{
    need(client < CONNS_MAX && origin < CONNS_MAX, "descriptors");
    no_delay(client);
    ends[client] = (struct end){.peer = origin};
    ends[origin] = (struct end){.peer = client};
    watch(EPOLL_CTL_ADD, client, EPOLLIN);
    watch(EPOLL_CTL_ADD, origin, EPOLLIN);
}

/* Returns whether both are still there. */
static int read_from(int fd, size_t most)
{
    struct end *e = &ends[fd];
    ssize_t got = recv(fd, buf, most, 0), sent;

    if (got <= 0) {
        return got < 0 && errno == EAGAIN;
    }
    sent = send(e->peer, buf, (size_t)got, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        return 0;
    }
    sent = sent < 0 ? 0 : sent;
    if (sent < got) {
        e->len = (size_t)(got - sent);
        e->at = 0;
        e->left = malloc(e->len);
        need(e->left != NULL, "malloc");
        memcpy(e->left, buf + sent, e->len);
        watch(EPOLL_CTL_MOD, fd, 0);
        watch(EPOLL_CTL_MOD, e->peer, ends[e->peer].left ? EPOLLOUT : EPOLLIN | EPOLLOUT);
    }
    return 1;
}

/* The peer of `fd` wrote less than there was: `fd` takes more now. */
static int write_to(int fd)
{
    struct end *from = &ends[ends[fd].peer];
    ssize_t sent = send(fd, from->left + from->at, from->len - from->at, MSG_NOSIGNAL);

    if (sent < 0) {
        return errno == EAGAIN;
    }
    from->at += (size_t)sent;
    if (from->at == from->len) {
        free(from->left);
        from->left = NULL;
        watch(EPOLL_CTL_MOD, ends[fd].peer, ends[fd].left ? EPOLLOUT : EPOLLIN);
        watch(EPOLL_CTL_MOD, fd, ends[fd].left ? 0 : EPOLLIN);
    }
    return 1;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    size_t most;
    int listener;

    need(argc == 4, "usage: relay_epoll PORT ORIGIN_PORT BUF");
    most = strtoul(argv[3], NULL, 10);
    need(most > 0 && most <= BUF_MAX, "BUF");
    loop = epoll_create1(EPOLL_CLOEXEC);
    listener = listen_on(argv[1], SOCK_NONBLOCK);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        int n = epoll_wait(loop, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd, client;

            if (fd == listener) {
                while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >=
                       0) {
                    begin(client, connect_to(argv[2], SOCK_NONBLOCK));
                }
            } else if (ends[fd].peer < 0) {
                continue; /* ended in this turn */
            } else if ((events[i].events & EPOLLOUT && !write_to(fd)) ||
                       (events[i].events & ~(uint32_t)EPOLLOUT && !ends[fd].left &&
                        !read_from(fd, most))) {
                end(fd);
            }
        }
    }
}
