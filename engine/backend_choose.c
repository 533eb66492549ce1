/* backend_choose: a self-test decides, not a version number: kernels are patched and forbidden. */
#include "engine/backend.h"
#include "engine/fault.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* Turns that the test may take, and what each may wait: a machine under load is slow, not broken. */
#define TEST_TURNS   100u
#define TEST_WAIT_MS 50u

static const char ping[] = "ping";

struct test {
    struct ag_loop loop;
    struct ag_fd rd_fd, wr_fd;
    struct ag_op rd;
    struct ag_write wr;
    unsigned pieces; /* received right and with the multishot still armed */
    bool bad;
    bool stuck; /* an op never ended */
};

static void on_recv(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct test *t = ag_container_of(op, struct test, rd);
    struct ag_slice slice = r->slice;

    (void)l;
    if (!r->more) {
        t->bad |= r->res != -ECANCELED;
        return;
    }
    t->bad |= slice.len != sizeof(ping) || memcmp(slice.ptr, ping, sizeof(ping)) != 0;
    t->pieces++;
    ag_slice_release(&slice);
}

static void on_send(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct test *t = ag_container_of(op, struct test, wr.op);

    (void)l;
    t->bad |= r->res != (int32_t)sizeof(ping);
}

static bool in_flight(const struct test *t)
{
    return ag_op_in_flight(&t->rd) || ag_op_in_flight(&t->wr.op);
}

/* Two pieces through one multishot receive. */
static bool round_trips(struct test *t)
{
    ag_loop_recv(&t->loop, &t->rd_fd, &t->rd, AG_BUF_SMALL);
    for (unsigned round = 1; round <= 2; round++) {
        ag_loop_send_one(&t->loop, &t->wr_fd, &t->wr, ping, sizeof(ping));
        for (unsigned i = 0; t->pieces < round || ag_op_in_flight(&t->wr.op); i++) {
            if (t->bad || i == TEST_TURNS) {
                return false;
            }
            ag_loop_turn(&t->loop, TEST_WAIT_MS);
        }
    }
    return true;
}

/* Everything that was started must end when it is asked to. */
static bool cancels(struct test *t)
{
    ag_loop_cancel(&t->loop, &t->rd);
    ag_loop_cancel(&t->loop, &t->wr.op);
    for (unsigned i = 0; in_flight(t) && i < TEST_TURNS; i++) {
        ag_loop_turn(&t->loop, TEST_WAIT_MS);
    }
    return !in_flight(t);
}

static const char *test_uring(struct test *t)
{
    const struct ag_loop_config config = {.backend = AG_BACKEND_URING,
                                          .ring_entries = 64,
                                          .buf_count = {8, 2},
                                          .node_count = 8,
                                          .page_count = 1};
    const char *why = NULL;
    int pair[2];

    if (AG_SYS("socketpair",
               socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair)) != 0) {
        return ag_loop_why("socketpair: %s", strerrordesc_np(errno));
    }
    if (ag_loop_init(&t->loop, &config, &why) != AG_OK) {
        (void)close(pair[0]);
        (void)close(pair[1]);
        return why;
    }
    ag_fd_init(&t->rd_fd, pair[0]);
    ag_fd_init(&t->wr_fd, pair[1]);
    ag_op_init(&t->rd, on_recv);
    ag_write_init(&t->wr, on_send);
    t->bad |= !round_trips(t);
    if (!cancels(t)) { /* the kernel may still write to it: it must stay */
        t->stuck = true;
        return "io_uring's self-test failed: a cancelled request did not end";
    }
    ag_loop_close(&t->loop, &t->rd_fd);
    ag_loop_close(&t->loop, &t->wr_fd);
    ag_loop_deinit(&t->loop);
    return !t->bad ? NULL : "io_uring's self-test failed (no multishot receive before Linux 6.0)";
}

enum ag_status ag_backend_choose(enum ag_backend_kind want, enum ag_backend_kind *out_kind,
                                 const char **out_why)
{
    const char *why;

    if (want == AG_BACKEND_EPOLL) {
        *out_kind = AG_BACKEND_EPOLL;
        *out_why = "asked for";
        return AG_OK;
    }
    struct test *t = AG_SYS_NULL("calloc.choose", calloc(1, sizeof(*t)));
    if (!t) {
        why = "no memory for io_uring's self-test";
    } else {
        why = test_uring(t);
        if (!t->stuck) {
            free(t);
        }
    }
    if (!why) {
        *out_kind = AG_BACKEND_URING;
        *out_why = "io_uring passed its self-test";
        return AG_OK;
    }
    *out_why = why;
    if (want == AG_BACKEND_URING) {
        return AG_ESYS;
    }
    *out_kind = AG_BACKEND_EPOLL;
    return AG_OK;
}

const char *ag_backend_name(enum ag_backend_kind kind)
{
    switch (kind) {
    case AG_BACKEND_AUTO:
        return "auto";
    case AG_BACKEND_URING:
        return ag_backend_uring.name;
    case AG_BACKEND_EPOLL:
        return ag_backend_epoll.name;
    }
    AG_UNREACHABLE("a backend kind that is none");
}
