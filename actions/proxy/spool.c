#include "actions/proxy/spool.h"

#include <sys/resource.h>
#include <unistd.h>

static struct ag_loop *loop_of(const struct ag_spool *sp)
{
    return sp->ex->context->loop;
}

static struct ag_pool *nodes_of(const struct ag_spool *sp)
{
    return &loop_of(sp)->nodes;
}

static void set_state(struct ag_spool *sp, enum ag_spool_state to)
{
    switch ((enum ag_spool_state)sp->state) {
    case AG_SPOOL_TAKING:
        AG_ASSERT(to != AG_SPOOL_TAKING);
        break;
    case AG_SPOOL_WHOLE:
        AG_ASSERT(to == AG_SPOOL_OVER || to == AG_SPOOL_FAILED);
        break;
    case AG_SPOOL_OVER:
        AG_ASSERT(to == AG_SPOOL_WHOLE);
        break;
    case AG_SPOOL_FAILED:
        AG_UNREACHABLE("failed is final");
    }
    sp->state = (uint8_t)to;
}

static void tell_owner(struct ag_spool *sp)
{
    if (sp->ended) {
        ag_task_queue(loop_of(sp), &sp->tell);
    }
}

static void fail(struct ag_spool *sp, enum ag_spool_failure why)
{
    if (sp->state == AG_SPOOL_FAILED) {
        return;
    }
    sp->failure = (uint8_t)why;
    if (sp->open) {
        ag_body_abort(sp->to, why == AG_SPOOL_ABORTED ? (enum ag_reason)sp->from->reason
                                                      : AG_REASON_RESOURCES);
    }
    set_state(sp, AG_SPOOL_FAILED);
    tell_owner(sp);
}

static void pump(struct ag_spool *sp);

/* ---- operations: each holds the exchange ---- */

static void finish_deinit(struct ag_spool *sp);

static void begin(struct ag_spool *sp, bool *flag)
{
    AG_ASSERT(!*flag);
    *flag = true;
    ag_exchange_hold(sp->ex);
}

/* The spool may be gone afterwards. */
static void go_on(struct ag_spool *sp)
{
    struct ag_exchange *ex = sp->ex;

    if (sp->closed) {
        finish_deinit(sp);
    } else {
        pump(sp);
    }
    ag_exchange_release(ex);
}

/* ---- the file ---- */

static void on_made(struct ag_file_op *op)
{
    struct ag_spool *sp = ag_container_of(op, struct ag_spool, op);

    sp->changing = false;
    sp->fd = op->out_fd;
    sp->file = op->status == AG_OK ? AG_SPOOL_MADE : AG_SPOOL_REFUSED;
    if (op->status != AG_OK) {
        atomic_fetch_sub(&sp->set.disk->files, 1);
    }
    go_on(sp);
}

static void make(struct ag_spool *sp)
{
    struct ag_spool_disk *disk = sp->set.disk;

    if (!sp->set.folder || sp->set.disk_bytes == 0) {
        sp->file = AG_SPOOL_REFUSED;
        return;
    }
    if (atomic_fetch_add(&disk->files, 1) >= disk->files_max) {
        atomic_fetch_sub(&disk->files, 1);
        sp->file = AG_SPOOL_REFUSED;
        return;
    }
    sp->file = AG_SPOOL_MAKING;
    begin(sp, &sp->changing);
    ag_file_make(loop_of(sp), &sp->op, sp->set.folder->fd, on_made);
}

static void on_closed(struct ag_file_op *op)
{
    struct ag_spool *sp = ag_container_of(op, struct ag_spool, op);

    sp->changing = false;
    atomic_fetch_sub(&sp->set.disk->bytes, sp->extent);
    atomic_fetch_sub(&sp->set.disk->files, 1);
    sp->extent = 0;
    go_on(sp);
}

static void close_file(struct ag_spool *sp)
{
    int fd = sp->fd;

    sp->fd = -1;
    sp->file = AG_SPOOL_REFUSED;
    begin(sp, &sp->changing);
    ag_file_close(loop_of(sp), &sp->op, fd, on_closed);
}

/* Nothing is to be done any more but what is under way. */
static void finish_deinit(struct ag_spool *sp)
{
    if (sp->reading || sp->changing) {
        return;
    }
    ag_chain_clear(&sp->writing, nodes_of(sp));
    if (sp->fd >= 0) {
        close_file(sp);
        return;
    }
    ag_spool_folder_release(sp->set.folder);
    sp->set.folder = NULL;
}

/* ---- into the file ---- */

/* The bytes of the file that must stay. */
static uint64_t filled(const struct ag_spool *sp)
{
    return sp->written - (sp->keeps ? 0 : sp->read);
}

/* Charges the process for `len` more bytes; only what makes the file longer counts. */
static bool charge(struct ag_spool *sp, uint64_t len)
{
    struct ag_spool_disk *disk = sp->set.disk;
    uint64_t end = ag_min_u64(sp->written + len, sp->set.disk_bytes), more;

    if (end <= sp->extent) {
        return true;
    }
    more = end - sp->extent;
    if (atomic_fetch_add(&disk->bytes, more) + more > sp->set.total_bytes) {
        atomic_fetch_sub(&disk->bytes, more);
        return false;
    }
    sp->extent = end;
    return true;
}

static void on_written(struct ag_file_op *op)
{
    struct ag_spool *sp = ag_container_of(op, struct ag_spool, op);

    sp->changing = false;
    sp->written += op->out_len;
    ag_chain_consume(&sp->writing, nodes_of(sp), op->out_len);
    if (op->status != AG_OK) {
        sp->file = AG_SPOOL_REFUSED;
    }
    go_on(sp);
}

/* Begins to write, as far as it lies in one piece of the ring; the rest is for another time. */
static void write_on(struct ag_spool *sp)
{
    uint64_t at = sp->written % sp->set.disk_bytes, most = sp->set.disk_bytes - at;
    uint32_t count = 0;

    for (struct ag_slice_node *n = sp->writing.head; n && most > 0; n = n->next) {
        size_t len = (size_t)ag_min_u64(n->slice.len, most);

        AG_ASSERT(count < AG_COUNT(sp->iov));
        sp->iov[count++] = (struct iovec){(void *)(uintptr_t)n->slice.ptr, len};
        most -= len;
    }
    begin(sp, &sp->changing);
    ag_file_write(loop_of(sp), &sp->op, sp->fd, sp->iov, count, at, on_written);
}

/* What is in memory goes to the disk. False: not now, or never. */
static bool spill(struct ag_spool *sp)
{
    uint64_t len = sp->memory.q.bytes;

    if (sp->file == AG_SPOOL_NONE) {
        make(sp);
    }
    if (sp->file != AG_SPOOL_MADE || sp->changing) {
        return false;
    }
    if (sp->writing.bytes == 0) {
        if (len > sp->set.disk_bytes - filled(sp) || !charge(sp, len)) {
            return false;
        }
        ag_body_take_all(&sp->memory, &sp->writing);
    }
    write_on(sp);
    return true;
}

/* ---- taking ---- */

static bool gives(const struct ag_spool *sp)
{
    return sp->open && !sp->to->discarding && !sp->to->aborted;
}

static bool is_empty(const struct ag_spool *sp)
{
    return sp->read == sp->written && sp->writing.bytes == 0 && sp->memory.q.bytes == 0;
}

/* A hold that memory and disk have no room for. */
static void refuse(struct ag_spool *sp)
{
    if (sp->changing) {
        return; /* the disk is at it */
    }
    fail(sp, sp->file == AG_SPOOL_MADE && sp->memory.q.bytes > sp->set.disk_bytes - filled(sp)
                 ? AG_SPOOL_TOO_LARGE
             : sp->set.disk_bytes == 0 ? AG_SPOOL_TOO_LARGE
                                       : AG_SPOOL_NO_ROOM);
}

static bool has_room(struct ag_spool *sp)
{
    while (!ag_body_room(&sp->memory)) {
        if (!spill(sp)) {
            return false;
        }
    }
    return true;
}

static void keep(struct ag_spool *sp)
{
    /* Nothing else frees nodes that are short; the content would have a hole. */
    if (ag_body_append(&sp->memory, ag_body_take(sp->from)) != AG_OK) {
        fail(sp, AG_SPOOL_NO_ROOM);
    }
}

static void take(struct ag_spool *sp)
{
    while (sp->state == AG_SPOOL_TAKING && sp->from->q.bytes > 0) {
        if (!sp->set.hold && !gives(sp)) {
            struct ag_slice s = ag_body_take(sp->from); /* nobody wants it */

            ag_slice_release(&s);
        } else if (!sp->set.hold && is_empty(sp) && ag_body_room(sp->to)) {
            (void)!ag_body_write(sp->to, ag_body_take(sp->from));
        } else if (has_room(sp)) {
            keep(sp);
        } else {
            if (sp->set.hold) {
                refuse(sp);
            }
            return;
        }
    }
}

/* ---- giving ---- */

static void on_read(struct ag_file_op *op)
{
    struct ag_spool *sp = ag_container_of(op, struct ag_spool, read_op);
    struct ag_slice s = {{.ptr = op->buf}, op->out_len, sp->into};

    sp->reading = false;
    sp->into = NULL;
    if (sp->closed || sp->stale) {
        sp->stale = false;
        ag_slice_release(&s);
    } else if (op->status != AG_OK || op->out_len < op->len) {
        ag_slice_release(&s);
        fail(sp, AG_SPOOL_NO_ROOM);
    } else {
        sp->read += s.len;
        (void)!ag_body_write(sp->to, s);
    }
    go_on(sp);
}

static void read_on(struct ag_spool *sp)
{
    struct ag_loop *l = loop_of(sp);
    uint64_t at = sp->read % sp->set.disk_bytes;
    uint64_t len = ag_min_u64(sp->written - sp->read, sp->set.disk_bytes - at);

    if (sp->reading) {
        return;
    }
    sp->into = l->tight || len <= AG_BUF_SMALL_BYTES ? NULL : ag_loop_buf(l, AG_BUF_LARGE);
    sp->into = sp->into ? sp->into : ag_loop_buf(l, AG_BUF_SMALL);
    if (!sp->into) {
        (void)!ag_loop_buf_or_wait(l, &sp->wait);
        return;
    }
    begin(sp, &sp->reading);
    ag_file_read(l, &sp->read_op, sp->fd, sp->into->data, ag_min_u64(len, sp->into->size), at,
                 on_read);
}

static void buffer_came(struct ag_task *t)
{
    pump(ag_container_of(t, struct ag_spool, wait));
}

/* The next slice of what is in memory. An empty one: all was given. */
static struct ag_slice next_of(struct ag_spool *sp)
{
    struct ag_slice_node *n = sp->next;

    if (!sp->keeps) {
        return sp->writing.bytes > 0 ? ag_chain_pop(&sp->writing, nodes_of(sp))
                                     : ag_body_take(&sp->memory);
    }
    if (!n) {
        return (struct ag_slice){{.ptr = NULL}, 0, NULL};
    }
    sp->next = n->next;
    return ag_slice_sub(&n->slice, 0, n->slice.len);
}

/* False: the next bytes cannot be given now, or there are none. */
static bool give_one(struct ag_spool *sp)
{
    struct ag_slice s;

    if (sp->read < sp->written) {
        if (ag_body_room(sp->to)) {
            read_on(sp);
        }
        return false;
    }
    if (sp->reading || (sp->changing && sp->writing.bytes > 0) ||
        (sp->keeps ? !sp->next : is_empty(sp)) || !ag_body_room(sp->to)) {
        return false;
    }
    s = next_of(sp);
    (void)!ag_body_write(sp->to, s);
    return true;
}

static void give(struct ag_spool *sp)
{
    while (gives(sp) && give_one(sp)) {
    }
    if (sp->read == sp->written && !sp->keeps && !sp->changing && !sp->reading) {
        sp->read = sp->written = 0; /* a short file is one that is soon in memory again */
    }
}

/* ---- all of it ---- */

static bool took_all(const struct ag_spool *sp)
{
    return sp->from->q.bytes == 0 && (sp->from->ended || sp->from->aborted);
}

/* Whether nothing of it is left to be given, or nobody wants it. */
static bool gave_all(const struct ag_spool *sp)
{
    if (!gives(sp)) {
        return sp->open;
    }
    return !sp->reading && sp->read == sp->written && (sp->keeps ? !sp->next : is_empty(sp));
}

static void end_stream(struct ag_spool *sp)
{
    if (!took_all(sp) || !gave_all(sp)) {
        return;
    }
    if (sp->from->aborted) {
        fail(sp, AG_SPOOL_ABORTED);
    } else {
        ag_body_end(sp->to, sp->from->trailers);
        set_state(sp, AG_SPOOL_OVER);
        tell_owner(sp);
    }
}

static void end_hold(struct ag_spool *sp)
{
    if (sp->state == AG_SPOOL_TAKING && took_all(sp) && !sp->changing) {
        if (sp->from->aborted) {
            fail(sp, AG_SPOOL_ABORTED);
        } else if (sp->writing.bytes > 0) { /* the file has a part of it alone */
            fail(sp, AG_SPOOL_NO_ROOM);
        } else {
            set_state(sp, AG_SPOOL_WHOLE);
            tell_owner(sp);
        }
    } else if (sp->state == AG_SPOOL_WHOLE && gave_all(sp)) {
        ag_body_end(sp->to, sp->from->trailers);
        set_state(sp, AG_SPOOL_OVER);
    }
    if (sp->state == AG_SPOOL_OVER && !sp->keeps && sp->fd >= 0 && !sp->changing && !sp->reading) {
        close_file(sp); /* the answer may be long in coming */
    }
}

static void pump(struct ag_spool *sp)
{
    if (sp->state == AG_SPOOL_FAILED) {
        return;
    }
    give(sp);
    if (sp->state == AG_SPOOL_TAKING) {
        take(sp);
    }
    if (sp->set.hold) {
        end_hold(sp);
    } else if (sp->state == AG_SPOOL_TAKING) {
        end_stream(sp);
    }
}

static void on_readable(struct ag_body *b, void *owner)
{
    (void)b;
    pump(owner);
}

static void on_writable(struct ag_body *b, void *owner)
{
    (void)b;
    pump(owner);
}

static void tell(struct ag_task *t)
{
    struct ag_spool *sp = ag_container_of(t, struct ag_spool, tell);
    ag_spool_fn *ended = sp->ended;

    sp->ended = NULL;
    if (ended) {
        ended(sp, sp->owner);
    }
}

void ag_spool_init(struct ag_spool *sp, struct ag_exchange *ex, struct ag_body *from,
                   struct ag_body *to, const struct ag_spool_settings *set)
{
    *sp = (struct ag_spool){.ex = ex, .from = from, .set = *set, .fd = -1, .keeps = set->hold};
    AG_ASSERT(set->hold == !to);
    (void)ag_spool_folder_hold(set->folder);
    ag_body_init(&sp->memory, loop_of(sp));
    sp->memory.limit_bytes = set->memory_bytes ? set->memory_bytes : 1;
    ag_task_init(&sp->tell, tell);
    ag_task_init(&sp->wait, buffer_came);
    if (to) {
        sp->to = to;
        sp->open = true;
        ag_body_set_producer(to, on_writable, sp);
    }
    ag_body_set_consumer(from, on_readable, sp);
}

void ag_spool_open(struct ag_spool *sp, struct ag_body *to)
{
    AG_ASSERT(ag_spool_is_whole(sp) && !sp->open);
    if (sp->state == AG_SPOOL_OVER) {
        set_state(sp, AG_SPOOL_WHOLE);
    }
    sp->to = to;
    sp->open = true;
    sp->read = 0;
    sp->next = sp->memory.q.head;
    ag_body_set_producer(to, on_writable, sp);
    pump(sp);
}

void ag_spool_close(struct ag_spool *sp)
{
    if (sp->open) {
        sp->open = false;
        sp->stale = sp->reading;
        ag_task_cancel(&sp->wait);
        ag_body_set_producer(sp->to, NULL, NULL);
    }
}

const struct ag_chain *ag_spool_in_memory(const struct ag_spool *sp)
{
    return ag_spool_is_whole(sp) && sp->written == 0 ? &sp->memory.q : NULL;
}

void ag_spool_forget(struct ag_spool *sp)
{
    if (!sp->keeps) {
        return;
    }
    if (!sp->open) {
        sp->next = NULL;
    }
    while (sp->state != AG_SPOOL_TAKING && sp->memory.q.head && sp->memory.q.head != sp->next) {
        struct ag_slice s = ag_body_take(&sp->memory);

        ag_slice_release(&s);
    }
    sp->keeps = false;
    if (sp->state == AG_SPOOL_WHOLE && !sp->open) {
        set_state(sp, AG_SPOOL_OVER);
    }
    pump(sp);
}

void ag_spool_deinit(struct ag_spool *sp)
{
    ag_spool_close(sp);
    sp->closed = true;
    sp->ended = NULL;
    ag_task_cancel(&sp->tell);
    ag_body_set_consumer(sp->from, NULL, NULL);
    ag_body_deinit(&sp->memory);
    finish_deinit(sp);
}

/* ---- folders ---- */

struct ag_spool_folder *ag_spool_folder_new(int fd)
{
    struct ag_spool_folder *folder = malloc(sizeof(*folder));

    AG_ASSERT(folder && fd >= 0); /* a configuration is loaded */
    *folder = (struct ag_spool_folder){.refs = 1, .fd = fd};
    return folder;
}

int ag_spool_folder_try(const struct ag_spool_folder *folder)
{
    int fd, error = ag_file_make_now(folder->fd, &fd);

    if (error == 0) {
        (void)close(fd);
    }
    return error;
}

struct ag_spool_folder *ag_spool_folder_hold(struct ag_spool_folder *folder)
{
    if (folder) {
        atomic_fetch_add(&folder->refs, 1);
    }
    return folder;
}

void ag_spool_folder_release(struct ag_spool_folder *folder)
{
    if (folder && atomic_fetch_sub(&folder->refs, 1) == 1) {
        (void)close(folder->fd);
        free(folder);
    }
}

void ag_spool_disk_init(struct ag_spool_disk *disk)
{
    struct rlimit rl;
    uint64_t most =
        getrlimit(RLIMIT_NOFILE, &rl) == 0 ? rl.rlim_cur / AG_SPOOL_FILES_PART : AG_SPOOL_FILES_MAX;

    *disk = (struct ag_spool_disk){.files_max = (uint32_t)ag_min_u64(most, AG_SPOOL_FILES_MAX)};
}
