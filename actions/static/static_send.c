#include "actions/static/static_send.h"

#include "proto/date.h"

#include <unistd.h>

/*
 * In the exchange's arena.
 *
 * op   submitted here; a helper sees `probe`, `into` or only the file; its done() is the final completion. While
 *      it is in flight (busy) the exchange stays held, aborted or not.
 */
struct send_work {
    struct ag_static_stage stage; /* first */
    struct ag_exchange *ex;
    struct ag_block *file; /* owns the descriptor */
    struct ag_static_content content;
    struct ag_block *into; /* what is read ahead goes there; NULL: nothing is being read */
    struct ag_task wait;   /* for a buffer */
    struct ag_file_op op;
    uint8_t probe;
    /* The next piece is there, and in the page cache; or TLS reads it, and waits where it is not. */
    bool checked;
    bool busy, aborted;
    bool over; /* all is given back */
};

static void pump(struct send_work *w);

static void let_go(struct send_work *w)
{
    struct ag_exchange *ex = w->ex;

    AG_ASSERT(!w->busy);
    if (w->over) {
        return; /* an answer that broke the stream has aborted the action already */
    }
    w->over = true;
    if (ex->action_data == &w->stage) { /* else the exchange waits for an error's page */
        ex->action_data = NULL;
    }
    ag_body_set_producer(&ex->res_body, NULL, NULL);
    ag_task_cancel(&w->wait);
    ag_block_release(w->into);
    ag_block_release(w->file);
    ag_static_content_release(&w->content);
    ag_exchange_release(ex);
}

static void abort_work(struct ag_static_stage *stage)
{
    struct send_work *w = ag_container_of(stage, struct send_work, stage);

    if (w->busy) {
        w->aborted = true;
    } else {
        let_go(w);
    }
}

/* True when the client has gone meanwhile; then all is given back. */
static bool gone(struct send_work *w)
{
    w->busy = false;
    if (w->aborted) {
        let_go(w);
        return true;
    }
    return false;
}

static void break_off(struct send_work *w)
{
    ag_body_abort(&w->ex->res_body, AG_REASON_OTHER);
    let_go(w);
}

static size_t piece_len(const struct send_work *w)
{
    return (size_t)ag_min_u64(w->content.left, AG_STATIC_PIECE_BYTES);
}

static bool is_warm(const struct send_work *w)
{
    return ag_file_is_warm(w->ex->context->loop, w->file->fd, w->content.from, piece_len(w));
}

static void warmed(struct ag_file_op *op)
{
    struct send_work *w = ag_container_of(op, struct send_work, op);

    if (gone(w)) {
        return;
    }
    if (op->status != AG_OK &&
        op->status != AG_ELIMIT) { /* without a helper the disk is waited for */
        break_off(w);
        return;
    }
    w->checked = true;
    pump(w);
}

static void warm(struct send_work *w)
{
    w->busy = true;
    ag_file_warm(w->ex->context->loop, &w->op, w->file->fd, w->content.from, piece_len(w), warmed);
}

/* The last byte of the piece was read. */
static void probed(struct ag_file_op *op)
{
    struct send_work *w = ag_container_of(op, struct send_work, op);

    if (gone(w)) {
        return;
    }
    if (op->status != AG_ELIMIT && (op->status != AG_OK || op->out_len == 0)) {
        break_off(w);
    } else if (!is_warm(w)) {
        warm(w);
    } else {
        w->checked = true;
        pump(w);
    }
}

static void probe(struct send_work *w)
{
    w->busy = true;
    ag_file_read(w->ex->context->loop, &w->op, w->file->fd, &w->probe, 1,
                 w->content.from + piece_len(w) - 1, probed);
}

/* ---- for servers whose content must be in memory ---- */

/* A helper had no time: the disk is waited for, as sendfile would. */
static void read_now(struct ag_file_op *op)
{
    ssize_t n = pread(op->fd, op->buf, op->len, (off_t)op->offset);

    op->status = n < 0 ? AG_ESYS : AG_OK;
    op->out_len = n < 0 ? 0 : (size_t)n;
}

static void read_done(struct ag_file_op *op)
{
    struct send_work *w = ag_container_of(op, struct send_work, op);
    struct ag_slice s = {{.ptr = op->buf}, 0, w->into};

    if (gone(w)) {
        return;
    }
    if (op->status == AG_ELIMIT) {
        read_now(op);
    }
    if (op->status != AG_OK || op->out_len == 0) {
        break_off(w);
        return;
    }
    w->into = NULL;
    s.len = op->out_len;
    w->content.from += s.len;
    w->content.left -= s.len;
    if (ag_body_write(&w->ex->res_body, s) != AG_OK) {
        let_go(w);
        return;
    }
    pump(w);
}

/* The next piece, into a buffer. */
static void read_ahead(struct send_work *w)
{
    struct ag_loop *l = w->ex->context->loop;

    if (w->content.left > AG_BUF_SMALL_BYTES) {
        w->into = ag_loop_buf(l, AG_BUF_LARGE);
    }
    if (!w->into) {
        w->into = ag_loop_buf(l, AG_BUF_SMALL);
    }
    if (!w->into) {
        (void)!ag_loop_buf_or_wait(l, &w->wait);
        return;
    }
    w->busy = true;
    ag_file_read(l, &w->op, w->file->fd, w->into->data,
                 ag_min_u64(w->content.left, ag_min_size(w->into->size, AG_STATIC_READ_BYTES)),
                 w->content.from, read_done);
}

static void buffer_came(struct ag_task *t)
{
    struct send_work *w = ag_container_of(t, struct send_work, wait);

    if (!w->busy) {
        pump(w);
    }
}

/* ---- pieces, one after the other ---- */

static struct ag_slice next_piece(struct send_work *w)
{
    struct ag_slice s = {{.offset = w->content.from}, piece_len(w), ag_block_hold(w->file)};

    w->checked = w->ex->req.tls;
    w->content.from += s.len;
    w->content.left -= s.len;
    return s;
}

static void pump(struct send_work *w)
{
    struct ag_body *body = &w->ex->res_body;
    bool in_memory = w->ex->server->memory_only;
    uint64_t ahead = in_memory ? AG_STATIC_READ_BYTES : AG_STATIC_AHEAD_BYTES;

    while (ag_static_content_goes_on(&w->content)) {
        struct ag_slice s;
        if (body->discarding || body->aborted) {
            let_go(w);
            return;
        }
        if (!ag_body_room(body)) {
            return;
        }
        if (body->q.bytes >= ahead) {
            ag_body_owe_room(body); /* there is room, but the page cache has to last until then */
            return;
        }
        if (w->content.left == 0) {
            s = ag_static_content_head(&w->content);
        } else if (in_memory) {
            read_ahead(w);
            return;
        } else if (!w->checked) {
            probe(w);
            return;
        } else {
            s = next_piece(w);
        }
        if (ag_body_write(body, s) != AG_OK) {
            let_go(w);
            return;
        }
    }
    ag_body_end(body, NULL);
    let_go(w);
}

static void on_writable(struct ag_body *body, void *owner)
{
    struct ag_exchange *ex = owner;
    struct ag_static_stage *stage = ex->action_data;

    (void)body;
    if (stage) {
        struct send_work *w = ag_container_of(stage, struct send_work, stage);
        if (!w->busy) {
            pump(w);
        }
    }
}

/* False: the arena is at its end. */
static bool describe(struct ag_exchange *ex, const struct ag_static_file *file,
                     struct ag_static_rep *out)
{
    const struct ag_static_settings *s = ex->action->settings;
    struct ag_buf etag = ag_buf(ag_arena_alloc(&ex->arena, AG_ETAG_WEAK_MAX), AG_ETAG_WEAK_MAX);
    uint8_t *date = ag_arena_alloc(&ex->arena, AG_DATE_LEN);
    int64_t now_s = ex->context->loop->wall_s;
    /* Never later than now (RFC 9110 section 8.8.2.1). */
    int64_t mtime_s = file->stat.mtime_s < now_s ? file->stat.mtime_s : now_s;

    if (!etag.ptr || !date) {
        return false;
    }
    ag_static_etag_of_stat(&etag, &file->stat);
    AG_ASSERT(!etag.overflow);
    ag_date_format(mtime_s, date);
    *out = (struct ag_static_rep){
        .type = ag_mime_type(file->name, &s->section->types),
        .last_modified = ag_span(date, AG_DATE_LEN),
        .cache_control = ag_static_cache_control(s, file->name, file->fallback),
        .validators = {ag_buf_span(&etag), mtime_s, true},
        .size_bytes = file->stat.size_bytes,
    };
    return true;
}

void ag_static_send(struct ag_exchange *ex, const struct ag_static_file *file)
{
    struct send_work *w = ag_arena_zalloc(&ex->arena, sizeof(*w));
    struct ag_static_rep rep;

    if (w) {
        w->file = ag_file_block(ex->context->loop, file->fd);
    }
    if (!w || !w->file) {
        (void)close(file->fd);
    }
    if (!w || !w->file || !describe(ex, file, &rep)) {
        ag_block_release(w ? w->file : NULL);
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "no memory for the file");
        ag_exchange_release(ex);
        return;
    }
    w->ex = ex;
    ag_task_init(&w->wait, buffer_came);
    w->stage.abort = abort_work;
    ex->action_data = &w->stage;
    if (!ag_static_respond(ex, &rep, &w->content)) {
        let_go(w);
        return;
    }
    if (ex->action_data) { /* else the stream broke in respond, and abort has let go */
        /* The first piece leaves with the head; the file was looked at a moment ago. */
        w->checked =
            !ex->server->memory_only && (ex->req.tls || (w->content.left > 0 && is_warm(w)));
        ag_body_set_producer(&ex->res_body, on_writable, ex);
        pump(w);
    }
}
