/*
 * TLS 1.3 handshakes with one GET each, for bench/run.py: connects, shakes hands, asks, reads the answer,
 * closes with close_notify, and again, on so many connections at a time.
 *
 * usage: handshakes full|resumed PORT CONNECTIONS SECONDS PATH
 *
 *   full     each handshake has key exchange and certificate
 *   resumed  each resumes by a ticket of the connection before in the same place (psk_dhe_ke); those that
 *            only fetch the first tickets are not counted
 *   stdout   "REQUESTS FAILURES"; a handshake that is not of the kind asked for is a failure
 *   stderr   the first failure's kind
 *
 * The client's certificate check is off (the signature is verified all the same); suites and groups are those
 * of OPENSSL_CONF.
 *
 *   CONNECTING --connected--> SHAKING --finished--> READING --whole answer--> closed, and CONNECTING again
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENTS     64
#define CONNS_MAX  256u
#define HEAD_BYTES 4096u
#define SOURCES    64u /* addresses that are connected from: more ports than those of one */

enum state { CONNECTING = 0, SHAKING, READING };

struct conn {
    int fd;
    enum state state;
    bool counted; /* not one that only fetches the first ticket */
    SSL *ssl;
    SSL_SESSION *ticket; /* the newest; what the next connection resumes */
    size_t got;
    char answer[HEAD_BYTES];
};

static struct conn conns[CONNS_MAX];
static uint64_t requests, failures;
static uint32_t opened;
static SSL_CTX *context;
static int epoll_fd;
static bool resuming;
static uint16_t port;
static char request[512];
static int request_bytes;

static uint64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

static void die(const char *what)
{
    perror(what);
    exit(1); /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

static int on_ticket(SSL *ssl, SSL_SESSION *ticket)
{
    struct conn *c = SSL_get_app_data(ssl);

    SSL_SESSION_free(c->ticket);
    c->ticket = ticket;
    return 1; /* it is ours now */
}

static void open_conn(struct conn *c)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr = {htonl(INADDR_LOOPBACK + opened++ % SOURCES)}};
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.ptr = c}};
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0 ||
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) != 0 ||
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        bind(c->fd, (struct sockaddr *)&from, sizeof(from)) != 0 ||
        (connect(c->fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
        die("connect");
    }
    c->ssl = SSL_new(context);
    if (!c->ssl || SSL_set_fd(c->ssl, c->fd) != 1 || SSL_set_app_data(c->ssl, c) != 1) {
        die("SSL_new");
    }
    SSL_set_connect_state(c->ssl);
    if (resuming && c->ticket && SSL_set_session(c->ssl, c->ticket) != 1) {
        die("SSL_set_session");
    }
    c->counted = !resuming || c->ticket;
    c->state = CONNECTING;
    c->got = 0;
}

static void reopen(struct conn *c, const char *failure)
{
    if (failure) {
        if (failures++ == 0) {
            (void)fprintf(stderr, "%s\n", failure);
        }
        SSL_set_quiet_shutdown(c->ssl, 1);
    } else if (c->counted) {
        requests++;
    }
    (void)SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    (void)close(c->fd);
    open_conn(c);
}

/* True when `c` can go on only after another event. */
static bool waits(const struct conn *c, int result)
{
    int error = SSL_get_error(c->ssl, result);

    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static void shake(struct conn *c)
{
    int result = SSL_do_handshake(c->ssl);

    if (result != 1) {
        if (!waits(c, result)) {
            reopen(c, "handshake failed");
        }
        return;
    }
    if ((SSL_session_reused(c->ssl) == 1) != (resuming && c->counted)) {
        reopen(c, "not the kind of handshake that was asked for");
    } else if (SSL_write(c->ssl, request, request_bytes) != request_bytes) {
        reopen(c, "request not taken");
    } else {
        c->state = READING;
    }
}

/* Whether the answer is whole; *out_bad when it is none that was expected. */
static bool whole(struct conn *c, bool *out_bad)
{
    const char *end, *length;

    c->answer[c->got] = '\0';
    end = strstr(c->answer, "\r\n\r\n");
    if (!end) {
        return false;
    }
    length = strcasestr(c->answer, "\r\nContent-Length: ");
    *out_bad = strncmp(c->answer, "HTTP/1.1 200 ", 13) != 0 || !length || length > end;
    return *out_bad || c->got - (size_t)(end + 4 - c->answer) >= strtoull(length + 18, NULL, 10);
}

static void read_answer(struct conn *c)
{
    bool bad = false;

    for (;;) {
        int n = SSL_read(c->ssl, c->answer + c->got, (int)(HEAD_BYTES - 1 - c->got));

        if (n <= 0) {
            if (!waits(c, n)) {
                reopen(c, "no answer");
            }
            return;
        }
        c->got += (size_t)n;
        if (whole(c, &bad)) {
            reopen(c, bad ? "not the answer expected" : NULL);
            return;
        }
        if (c->got == HEAD_BYTES - 1) {
            reopen(c, "too long an answer");
            return;
        }
    }
}

static void on_event(struct conn *c, uint32_t events)
{
    if (c->state == CONNECTING) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            reopen(c, "not connected");
            return;
        }
        c->state = SHAKING;
    }
    if (c->state == SHAKING) {
        shake(c);
    }
    if (c->state == READING) {
        read_answer(c);
    }
}

static void run(uint64_t until_ms)
{
    struct epoll_event events[EVENTS];

    while (now_ms() < until_ms) {
        int n = epoll_wait(epoll_fd, events, EVENTS, 100);

        for (int i = 0; i < n; i++) {
            on_event(events[i].data.ptr, events[i].events);
        }
    }
}

int main(int argc, char **argv)
{
    size_t count;

    if (argc != 6 || (strcmp(argv[1], "full") != 0 && strcmp(argv[1], "resumed") != 0)) {
        (void)fprintf(stderr, "usage: handshakes full|resumed PORT CONNECTIONS SECONDS PATH\n");
        return 2;
    }
    resuming = strcmp(argv[1], "resumed") == 0;
    port = (uint16_t)strtoul(argv[2], NULL, 10);
    count = strtoul(argv[3], NULL, 10);
    request_bytes =
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", argv[5]);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    context = SSL_CTX_new(TLS_client_method());
    if (count > CONNS_MAX || request_bytes >= (int)sizeof(request) || epoll_fd < 0 || !context ||
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1) {
        die("handshakes");
    }
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_ticket);
    for (size_t i = 0; i < count; i++) {
        open_conn(&conns[i]);
    }
    run(now_ms() + (uint64_t)(strtod(argv[4], NULL) * 1000));
    (void)printf("%llu %llu\n", (unsigned long long)requests, (unsigned long long)failures);
    return 0;
}
