#include "engine/pipes.h"

#include "engine/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct ag_pipe {
    struct ag_block block; /* its fd is where bytes are read */
    struct ag_pipes *pipes;
    struct ag_pipe *next; /* in `idle` or `unmade` */
    int in;               /* where they are written */
};

struct ag_pipes {
    struct ag_loop *loop;
    struct ag_pipe *idle;   /* open and empty, the last used first */
    struct ag_pipe *unmade; /* not open */
    uint32_t open, used;
    uint64_t barred_ms;   /* loop time until which the system is not asked for another */
    struct ag_timer trim; /* armed while there are idle ones */
    struct ag_pipe all[AG_PIPES_MAX];
};

static struct ag_pipe *pop(struct ag_pipe **list)
{
    struct ag_pipe *p = *list;

    if (p) {
        *list = p->next;
    }
    return p;
}

static void push(struct ag_pipe **list, struct ag_pipe *p)
{
    p->next = *list;
    *list = p;
}

static void close_ends(struct ag_pipe *p)
{
    (void)close(p->block.fd);
    (void)close(p->in);
    p->pipes->open--;
    push(&p->pipes->unmade, p);
}

static void trim(struct ag_timer *t)
{
    struct ag_pipes *ps = ag_container_of(t, struct ag_pipes, trim);
    struct ag_pipe *p;

    while ((p = pop(&ps->idle))) {
        close_ends(p);
    }
}

static void keep(struct ag_pipe *p)
{
    struct ag_pipes *ps = p->pipes;

    push(&ps->idle, p);
    if (!ag_timer_armed(&ps->trim)) {
        ag_loop_arm(ps->loop, &ps->trim, AG_PIPES_KEEP_MS);
    }
}

static void give_back(struct ag_block *b)
{
    struct ag_pipe *p = ag_container_of(b, struct ag_pipe, block);

    p->pipes->used--;
    if (b->size > 0) { /* the next one to use it would send these bytes */
        close_ends(p);
    } else {
        keep(p);
    }
}

struct ag_pipes *ag_pipes_new(struct ag_loop *l, uint32_t count)
{
    struct ag_pipes *ps = AG_SYS_NULL("calloc.pipes", calloc(1, sizeof(*ps)));

    AG_ASSERT(count > 0 && count <= AG_PIPES_MAX);
    if (!ps) {
        return NULL;
    }
    ps->loop = l;
    ag_timer_init(&ps->trim, trim);
    for (uint32_t i = count; i-- > 0;) {
        ps->all[i].pipes = ps;
        push(&ps->unmade, &ps->all[i]);
    }
    return ps;
}

void ag_pipes_free(struct ag_pipes *ps)
{
    AG_ASSERT(ps->used == 0);
    ag_timer_cancel(&ps->loop->wheel, &ps->trim);
    trim(&ps->trim);
    free(ps);
}

/* False: no descriptors, or the system would give a small one, by which less goes than through memory. */
static bool open_ends(int ends[static 2])
{
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) {
        return false;
    }
    if (fcntl(ends[1], F_SETPIPE_SZ, (int)AG_PIPE_BYTES) < 0) {
        (void)close(ends[0]);
        (void)close(ends[1]);
        return false;
    }
    return true;
}

/* An open one without bytes. NULL: all are in use, or the system gives none. */
static struct ag_pipe *take(struct ag_pipes *ps)
{
    struct ag_pipe *p;
    int ends[2];

    if (AG_FAULT("pipe")) {
        return NULL;
    }
    p = pop(&ps->idle);
    if (p) {
        return p;
    }
    p = ps->loop->now_ms < ps->barred_ms ? NULL : pop(&ps->unmade);
    if (!p) {
        return NULL;
    }
    if (!open_ends(ends)) {
        ps->barred_ms = ps->loop->now_ms + AG_PIPES_KEEP_MS;
        push(&ps->unmade, p);
        return NULL;
    }
    p->block = (struct ag_block){.free = give_back, .fd = ends[0], .pipe = true};
    p->in = ends[1];
    ps->open++;
    return p;
}

/* The system does not move bytes of this socket, or lets nobody do that: receiving them works all the same. */
static bool is_refusal(int error)
{
    return error == EINVAL || error == ENOSYS || error == EPERM;
}

int32_t ag_pipes_recv(struct ag_pipes *ps, int socket, size_t most, struct ag_block **out)
{
    struct ag_pipe *p = take(ps);
    ssize_t n;

    *out = NULL;
    if (!p) {
        return -ENOBUFS;
    }
    most = AG_FAULT("splice.in.short") ? 1 : ag_min_size(most, AG_PIPE_BYTES);
    do {
        n = AG_SYS("splice.in", splice(socket, NULL, p->in, NULL, most, SPLICE_F_NONBLOCK));
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        int error = n < 0 ? errno : 0;

        keep(p);
        return is_refusal(error) ? -ENOBUFS : -error;
    }
    ps->used++;
    p->block.refs = 1;
    p->block.size = (uint32_t)n;
    *out = &p->block;
    return (int32_t)n;
}

void ag_pipe_sent(struct ag_block *pipe, size_t bytes)
{
    AG_ASSERT(pipe->pipe && bytes <= pipe->size);
    pipe->size -= (uint32_t)bytes;
}

uint32_t ag_pipes_open(const struct ag_pipes *ps)
{
    return ps->open;
}

uint32_t ag_pipes_used(const struct ag_pipes *ps)
{
    return ps->used;
}
