/* host_pipe: pipes, by which content goes from one socket to another unseen. */
#include "engine/bulk.h"
#include "engine/pipes.h"
#include "tests/sim/host_parts.h"

#include <errno.h>

/* Far from descriptors of sockets, and never the same twice: one used after it was given back is found out. */
#define FD_BASE 2000000
/* Of 1000 so many do less than they could. */
#define SHORT 300u

struct host_pipe {
    struct ag_block block;
    struct host_loop *loop;
    struct host_pipe *next; /* among those in use, or those that were */
    uint8_t *bytes;         /* AG_PIPE_BYTES */
    uint32_t at, end;       /* what is in it: [at, end) */
};

static void give_back(struct ag_block *b)
{
    struct host_pipe *p = ag_container_of(b, struct host_pipe, block), **it;
    struct host_loop *l = p->loop;

    if (b->size != p->end - p->at) {
        sim_fail(l->host->sim, "a pipe comes back with %u bytes, and is said to hold %u",
                 p->end - p->at, b->size);
    }
    for (it = &l->pipes; *it != p; it = &(*it)->next) {
    }
    *it = p->next;
    l->pipe_count--;
    p->next = l->old_pipes;
    l->old_pipes = p;
}

static struct host_pipe *take(struct host_loop *l)
{
    struct sim *s = l->host->sim;
    struct host_pipe *p = sim_alloc(s, sizeof(*p)), *old = l->old_pipes;

    if (old) {
        l->old_pipes = old->next;
    }
    p->bytes = old ? old->bytes : sim_alloc_raw(s, AG_PIPE_BYTES);
    p->loop = l;
    p->next = l->pipes;
    l->pipes = p;
    l->pipe_count++;
    p->block = (struct ag_block){
        .refs = 1, .free = give_back, .fd = FD_BASE + (int)l->host->pipes_made++, .pipe = true};
    return p;
}

/* As many bytes as there may be, or fewer. */
static size_t some(struct sim *s, size_t most)
{
    return sim_chance(s, SHORT) ? sim_between(s, 1, most) : most;
}

bool host_pipe_is_due(const struct ag_op *op)
{
    return op->arg == AG_BUF_LARGE && op->fd->unseen > 0;
}

struct ag_block *host_pipe_recv(struct host_sock *s, const struct ag_op *op)
{
    struct host_loop *l = s->loop;
    struct host_pipe *p;
    size_t most;

    if (!host_pipe_is_due(op) || net_readable(s->end) == 0 || l->pipe_count == AG_PIPES_MAX) {
        return NULL;
    }
    p = take(l);
    most = ag_min_size((size_t)op->fd->unseen * AG_BULK_UNSEEN_BYTES, AG_PIPE_BYTES);
    most = some(l->host->sim, most);
    do {
        int64_t n = host_receive(s, p->bytes + p->end, most - p->end);

        AG_ASSERT(n > 0);
        p->end += (uint32_t)n;
    } while (p->end < most && net_readable(s->end) > 0);
    p->block.size = p->end;
    sim_note(l->host->sim, "host: read into a pipe", (uint64_t)s->fd, p->end);
    return &p->block;
}

int32_t host_pipe_send(struct host_sock *s, const struct ag_write *w)
{
    struct sim *sim = s->loop->host->sim;
    struct host_pipe *p = s->loop->pipes;
    int64_t n;

    while (p && p->block.fd != w->file.fd) {
        p = p->next;
    }
    if (!p || w->file.len > p->end - p->at) {
        sim_fail(sim, "%u bytes are to be sent of a pipe of %u", w->file.len,
                 p ? p->end - p->at : 0);
    }
    n = net_write(s->end, p->bytes + p->at, some(sim, w->file.len));
    p->at += n > 0 ? (uint32_t)n : 0;
    return (int32_t)n;
}

void host_pipes_check(const struct host_loop *l)
{
    if (l->pipes) {
        sim_fail(l->host->sim, "loop %u: %u pipes are left", l->index, l->pipe_count);
    }
}
