/*
 * uring_setup: how a loop's ring is made and ended.
 *
 * A ring takes only the requests that uring.c makes: it would else be a way around a seccomp filter, which does
 * not see them.
 */
#include "engine/fault.h"
#include "engine/uring_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The smallest ring tried when memory is short. */
#define ENTRIES_MIN 64u
/* Completions come from multishot ops too: room for several of each submission. */
#define CQ_FACTOR 4u

_Static_assert(offsetof(struct ag_uring, ring) == 0, "a loop's uring is its ring");

static void publish(struct ag_loop *l, struct ag_buf_pool *p, uint32_t id)
{
    struct io_uring_buf_ring *br = l->uring->buf_rings[p->group];

    io_uring_buf_ring_add(br, ag_buf_data(p, id), p->size, (unsigned short)id,
                          io_uring_buf_ring_mask(p->ring_max), 0);
    io_uring_buf_ring_advance(br, 1);
}

static int map_buf_ring(struct ag_loop *l, enum ag_buf_group group)
{
    struct ag_uring *u = l->uring;
    uint32_t entries = ag_bufs_ring_size(l->bufs, group);
    size_t bytes = entries * sizeof(struct io_uring_buf);
    void *mem = AG_SYS("mmap.uring", mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)mem, .ring_entries = entries, .bgid = (uint16_t)group};

    if (mem == MAP_FAILED) {
        return -ENOMEM;
    }
    u->buf_rings[group] = mem;
    u->buf_ring_bytes[group] = bytes;
    io_uring_buf_ring_init(u->buf_rings[group]);
    return AG_SYS_NEG("uring.register", io_uring_register_buf_ring(&u->ring, &reg, 0));
}

/* Why io_uring_setup failed, for people. */
static const char *setup_why(int err)
{
    char value[8] = "";
    int fd;

    switch (-err) {
    case EPERM:
    case EACCES:
        fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            ssize_t n = read(fd, value, sizeof(value) - 1);
            (void)close(fd);
            if (n > 0 && value[0] != '0') {
                return ag_loop_why("io_uring is switched off: sysctl kernel.io_uring_disabled is "
                                   "%c",
                                   value[0]);
            }
        }
        return "io_uring is forbidden here (seccomp or a container's policy)";
    case ENOSYS:
        return "this kernel has no io_uring (or seccomp hides it)";
    case ENOMEM:
        return "too little locked memory for io_uring: raise the memlock limit";
    case EMFILE:
    case ENFILE:
        return "no descriptor is free for io_uring";
    default:
        return ag_loop_why("io_uring_setup: %s", strerrordesc_np(-err));
    }
}

/* From the best set-up to what 5.19 takes: a kernel answers EINVAL to a flag it does not know. The ring
 * is not yet enabled. */
static int setup_ring(struct ag_uring *u, uint32_t entries)
{
    static const unsigned ladder[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        0,
    };
    int err = -EINVAL;

    for (size_t i = 0; i < AG_COUNT(ladder) && err == -EINVAL; i++) {
        for (uint32_t n = entries; n >= ENTRIES_MIN; n /= 2) {
            struct io_uring_params p = {
                .flags =
                    ladder[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED,
                .cq_entries = n * CQ_FACTOR,
            };
            err = AG_SYS_NEG("uring.setup", io_uring_queue_init_params(n, &u->ring, &p));
            if (err != -ENOMEM) {
                break;
            }
        }
    }
    return err;
}

/* From here on the kernel refuses every other request with EACCES. -errno, or 0. By system calls:
 * Debian 12's liburing declares these two and has neither. */
static int restrict_and_enable(struct io_uring *ring)
{
    static const uint8_t requests[] = {IORING_OP_ACCEPT,      IORING_OP_RECV,    IORING_OP_SEND,
                                       IORING_OP_SENDMSG,     IORING_OP_CONNECT, IORING_OP_POLL_ADD,
                                       IORING_OP_ASYNC_CANCEL};
    static const uint8_t calls[] = {IORING_UNREGISTER_PBUF_RING, IORING_UNREGISTER_RING_FDS};
    struct io_uring_restriction r[AG_COUNT(requests) + AG_COUNT(calls) + 1] = {0};
    unsigned n = 0;

    for (size_t i = 0; i < AG_COUNT(requests); i++) {
        r[n].opcode = IORING_RESTRICTION_SQE_OP;
        r[n++].sqe_op = requests[i];
    }
    for (size_t i = 0; i < AG_COUNT(calls); i++) {
        r[n].opcode = IORING_RESTRICTION_REGISTER_OP;
        r[n++].register_op = calls[i];
    }
    r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    r[n++].sqe_flags = IOSQE_BUFFER_SELECT;
    return AG_SYS("uring.restrict", syscall(SYS_io_uring_register, ring->ring_fd,
                                            IORING_REGISTER_RESTRICTIONS, r, n)) < 0 ||
                   syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
                           0) < 0
               ? -errno
               : 0;
}

void ag_uring_deinit(struct ag_loop *l)
{
    struct ag_uring *u = l->uring;

    for (unsigned g = 0; g < AG_BUF_GROUPS; g++) {
        if (u->buf_rings[g]) {
            (void)io_uring_unregister_buf_ring(&u->ring, (int)g); /* never registered: no harm */
            AG_ASSERT(munmap(u->buf_rings[g], u->buf_ring_bytes[g]) == 0);
        }
    }
    io_uring_queue_exit(&u->ring);
    free(u);
    l->uring = NULL;
}

enum ag_status ag_uring_init(struct ag_loop *l, const struct ag_loop_config *config,
                             const char **out_why)
{
    const unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_FAST_POLL |
                            IORING_FEAT_EXT_ARG;
    struct ag_uring *u = AG_SYS_NULL("calloc.uring", calloc(1, sizeof(*u)));
    uint32_t entries = config->ring_entries > ENTRIES_MIN ? config->ring_entries : ENTRIES_MIN;
    int err;

    if (!u) {
        *out_why = "no memory for io_uring";
        return AG_ENOMEM;
    }
    ag_list_init(&u->to_cancel);
    err = setup_ring(u, entries);
    if (err) {
        *out_why = setup_why(err);
        free(u);
        return AG_ESYS;
    }
    l->uring = u;
    if ((u->ring.features & needed) != needed) {
        *out_why = "this kernel's io_uring is too old (features)";
        goto fail;
    }
    for (unsigned g = 0; g < AG_BUF_GROUPS; g++) {
        err = map_buf_ring(l, (enum ag_buf_group)g);
        if (err) {
            *out_why = err == -EINVAL
                           ? "this kernel's io_uring is too old (no buffer rings)"
                           : ag_loop_why("io_uring buffer ring: %s", strerrordesc_np(-err));
            goto fail;
        }
    }
    (void)io_uring_register_ring_fd(&u->ring); /* saves a lookup a turn where the kernel can */
    err = restrict_and_enable(&u->ring);
    if (err) {
        *out_why = ag_loop_why("io_uring restrictions: %s", strerrordesc_np(-err));
        goto fail;
    }
    ag_bufs_start_rings(l->bufs, publish);
    return AG_OK;

fail:
    ag_uring_deinit(l);
    return AG_ESYS;
}
