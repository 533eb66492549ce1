/*
 * The floor of fixed and static answers by epoll: whatever comes is one request, and is answered by
 * BYTES of content in one send.
 *
 * usage: respond_epoll PORT BYTES
 */
#include "floor.h"

#include <sys/epoll.h>

#define EVENTS 256

static char buf[16384];

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS], ev = {.events = EPOLLIN};
    int listener, loop = epoll_create1(EPOLL_CLOEXEC);
    size_t len;
    char *answer;

    need(argc == 3, "usage: respond_epoll PORT BYTES");
    len = make_answer(&answer, strtoul(argv[2], NULL, 10));
    ev.data.fd = listener = listen_on(argv[1], SOCK_NONBLOCK);
    need(loop >= 0 && epoll_ctl(loop, EPOLL_CTL_ADD, listener, &ev) == 0, "epoll");
    for (;;) {
        int n = epoll_wait(loop, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    no_delay(fd);
                    ev = (struct epoll_event){.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
                    need(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &ev) == 0, "epoll_ctl");
                }
            } else if (recv(fd, buf, sizeof(buf), 0) <= 0 ||
                       send(fd, answer, len, MSG_NOSIGNAL) != (ssize_t)len) {
                close(fd);
            }
        }
    }
}
