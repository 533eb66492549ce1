#include "engine/tls_impl.h"

#if AG_WOLFSSL

#    include "engine/fault.h"
#    include "engine/tls_memory.h"

#    include <wolfssl/options.h>
#    include <wolfssl/ssl.h>

/* Content of a record at first: with what a record adds it is three segments, and fits a small buffer. */
#    define RECORD_FIRST 4032u
/* And after so many bytes: as much as a record may have. */
#    define RECORD_MAX  16384u
#    define GROWN_BYTES 32768u
/* Of a file, with what stands before it: whole records. */
#    define READ_AHEAD (4 * RECORD_MAX)
/* A pause after which the peer's window may have shrunk again. */
#    define PAUSE_MS 1000u
/* What a record may have beside its content, and what the library's buffer has on top of it. */
#    define RECORD_EXTRA 128u

_Static_assert(RECORD_MAX + RECORD_EXTRA + AG_TLS_LENT_HEAD <= AG_BUF_LARGE_BYTES, "a record fits");
_Static_assert(READ_AHEAD <= AG_BUF_LARGE_BYTES && AG_BUF_SMALL_BYTES < READ_AHEAD, "it fits");
_Static_assert(RECORD_FIRST >= AG_TLS_LENT_MIN, "all that is larger is lent its room");

/* ---- records ---- */

/* The library has a record to send: where it was made, or copied. It never waits: what the connection below
 * cannot take for want of memory ends it. */
int ag_tls_on_send(WOLFSSL *ssl, char *from, int len, void *ctx)
{
    struct ag_tls *t = ctx;
    struct ag_tls_sink *sink = t->sink;
    struct ag_stream *below = &t->conn.stream;
    const uint8_t *at = (const uint8_t *)from;
    enum ag_status st;

    (void)ssl;
    if (!sink && t->shut_done) {
        return len; /* an answer to a key update, behind our end: there is nobody to hear it */
    }
    if (sink && sink->block && at >= sink->block->data &&
        at < sink->block->data + sink->block->size) {
        struct ag_slice slice = {{.ptr = at}, (size_t)len, ag_block_hold(sink->block)};

        sink->used = (uint32_t)(at - sink->block->data) + (uint32_t)len;
        st = ag_stream_write(below, slice);
    } else {
        st = ag_stream_put(below, ag_span(from, (size_t)len));
    }
    t->starved |= st != AG_OK;
    t->replied_bytes += sink ? 0 : (uint32_t)len;
    return len;
}

/* Room for a large record in the sink. False: there is none, records stay small. */
static bool make_room(struct ag_tls *t, struct ag_tls_sink *sink)
{
    uint32_t need = RECORD_MAX + RECORD_EXTRA + AG_TLS_LENT_HEAD;

    if (sink->block && need > sink->block->size - sink->used) {
        ag_block_release(sink->block);
        sink->block = NULL;
    }
    if (!sink->block && !t->stream.loop->tight) {
        sink->block = ag_loop_buf(t->stream.loop, AG_BUF_LARGE);
        sink->used = 0;
    }
    return sink->block != NULL;
}

/* Content that the next record is to have. */
static size_t record_bytes(struct ag_tls *t)
{
    if (t->stream.loop->now_ms - t->wrote_ms > PAUSE_MS) {
        t->written_bytes = 0;
    }
    return t->written_bytes < GROWN_BYTES ? RECORD_FIRST : RECORD_MAX;
}

/* One record of the queue's first `n` bytes, which lie at `from`. False: the stream has failed. */
static bool seal_record(struct ag_tls *t, const uint8_t *from, size_t n)
{
    struct ag_stream *s = &t->stream;
    int rc;

    AG_ASSERT(n > 0 && n <= RECORD_MAX && n <= s->out.bytes);
    if (n > RECORD_FIRST) {
        ag_tls_memory_lend(t->sink->block, t->sink->used);
    }
    rc = wolfSSL_write(t->ssl, from, (int)n);
    ag_tls_memory_unlend();
    if (rc != (int)n) {
        ag_tls_break(t, AG_REASON_OTHER, ag_tls_why(t->ssl, wolfSSL_get_error(t->ssl, rc)));
        return false;
    }
    if (t->starved) {
        ag_tls_break(t, AG_REASON_RESOURCES, NULL);
        return false;
    }
    t->wrote_ms = s->loop->now_ms;
    t->written_bytes += (uint32_t)ag_min_size(n, UINT32_MAX - t->written_bytes);
    s->sending_bytes += n;
    ag_chain_consume(&s->out, &s->loop->nodes, n);
    return true;
}

/* ---- memory ---- */

/* Bytes of memory at the head of the queue, as far as `most`. */
static size_t leading_memory(const struct ag_stream *s, size_t most)
{
    size_t n = 0;

    for (const struct ag_slice_node *it = s->out.head; it && n < most; it = it->next) {
        if (ag_slice_is_file(&it->slice)) {
            break;
        }
        n += ag_min_size(it->slice.len, most - n);
    }
    return n;
}

static void copy_leading(const struct ag_stream *s, uint8_t *to, size_t n)
{
    for (const struct ag_slice_node *it = s->out.head; n > 0; it = it->next) {
        size_t take = ag_min_size(it->slice.len, n);

        memcpy(to, it->slice.ptr, take);
        to += take;
        n -= take;
    }
}

/* Small pieces that follow each other go into one record: a head and its content. */
static bool write_gathered(struct ag_tls *t, size_t n)
{
    struct ag_block *b = ag_loop_buf(t->stream.loop, AG_BUF_SMALL);
    bool good;

    if (!b) {
        return seal_record(t, t->stream.out.head->slice.ptr, t->stream.out.head->slice.len);
    }
    copy_leading(&t->stream, b->data, n);
    good = seal_record(t, b->data, n);
    ag_block_release(b);
    return good;
}

static bool write_memory(struct ag_tls *t)
{
    const struct ag_slice *first = &t->stream.out.head->slice;
    size_t most = record_bytes(t), n = ag_min_size(first->len, most);

    if (n > RECORD_FIRST && !make_room(t, t->sink)) {
        n = RECORD_FIRST;
    }
    if (n < RECORD_FIRST) {
        size_t all = leading_memory(&t->stream, RECORD_FIRST);

        if (all > n) {
            return write_gathered(t, all);
        }
    }
    return seal_record(t, first->ptr, n);
}

/* ---- files ---- */

static void drop_block(struct ag_tls_file *f)
{
    ag_block_release(f->block);
    f->block = NULL;
    f->from = f->to = 0;
}

static void on_read(struct ag_file_op *op)
{
    struct ag_tls_file *f = ag_container_of(op, struct ag_tls_file, op);
    struct ag_tls *t = f->tls;

    f->reading = false;
    ag_block_release(f->owner);
    f->owner = NULL;
    if (!t) {
        drop_block(f);
        ag_tls_free(f);
        return;
    }
    if (op->status != AG_OK || op->out_len < op->len) {
        /* Shorter than was promised, or unreadable: only a reset says so. */
        ag_tls_break(t, op->status == AG_ELIMIT ? AG_REASON_RESOURCES : AG_REASON_OTHER,
                     "a file could not be read");
        return;
    }
    copy_leading(&t->stream, f->block->data, f->head);
    f->from = 0;
    f->to = f->head + (uint32_t)op->len;
    ag_tls_write_go_on(t);
}

/* Reads ahead of the file at the head of the queue, or right behind `head` bytes of memory. */
static void read_ahead(struct ag_tls *t, const struct ag_slice *file, uint32_t head)
{
    struct ag_loop *l = t->stream.loop;
    struct ag_tls_file *f = t->file;
    struct ag_block *b = l->tight ? NULL : ag_loop_buf(l, AG_BUF_LARGE);
    size_t room = READ_AHEAD - head;

    if (!b) {
        b = ag_loop_buf(l, AG_BUF_SMALL);
        room = AG_BUF_SMALL_BYTES - head;
    }
    if (!b) {
        if (ag_loop_buf_or_wait(l, &t->stream.flush_task)) {
            ag_task_queue(l, &t->stream.flush_task);
        }
        return;
    }
    f->block = b;
    f->head = head;
    f->owner = ag_block_hold(file->owner);
    f->reading = true;
    ag_file_read(l, &f->op, file->owner->fd, b->data + head, ag_min_size(file->len, room),
                 file->offset, on_read);
}

/* Returns false when it waits, or has failed. */
static bool write_file(struct ag_tls *t, const struct ag_slice *file, uint32_t head)
{
    struct ag_tls_file *f = t->file;
    size_t n;

    if (!f) {
        f = t->file = AG_SYS_NULL("tls.file", ag_tls_alloc(sizeof(*f)));
        if (!f) {
            ag_tls_break(t, AG_REASON_RESOURCES, NULL);
            return false;
        }
        *f = (struct ag_tls_file){.tls = t};
    }
    if (f->reading) {
        return false;
    }
    if (!f->block) {
        read_ahead(t, file, head);
        return false;
    }
    n = ag_min_size(f->to - f->from, record_bytes(t));
    if (n > RECORD_FIRST && !make_room(t, t->sink)) {
        n = RECORD_FIRST;
    }
    if (!seal_record(t, f->block->data + f->from, n)) {
        return false;
    }
    f->from += (uint32_t)n;
    if (f->from == f->to) {
        drop_block(f);
    }
    return true;
}

/* ---- the queue ---- */

/* One record, or the beginning of a read. Returns false when it waits, or has failed. */
static bool write_next(struct ag_tls *t)
{
    const struct ag_slice_node *it = t->stream.out.head;
    size_t head = 0;

    AG_ASSERT(it);
    if (t->file && (t->file->reading || t->file->block)) {
        return write_file(t, NULL, 0);
    }
    /* What stands before a file goes out with its first bytes. */
    while (it && !ag_slice_is_file(&it->slice) && head + it->slice.len < AG_BUF_SMALL_BYTES) {
        head += it->slice.len;
        it = it->next;
    }
    return it && ag_slice_is_file(&it->slice) ? write_file(t, &it->slice, (uint32_t)head)
                                              : write_memory(t);
}

/* All output is encrypted. */
static void written(struct ag_tls *t)
{
    struct ag_stream *below = &t->conn.stream;
    bool flushing = t->state == AG_TLS_FLUSHING;

    if (t->file) {
        ag_tls_free(t->file);
        t->file = NULL;
    }
    if ((flushing || t->shut) && !t->shut_done) {
        t->shut_done = true;
        (void)wolfSSL_shutdown(t->ssl);
        if (t->starved) {
            ag_tls_break(t, AG_REASON_RESOURCES, NULL);
            return;
        }
    }
    if (flushing) {
        ag_tls_fail(t, AG_REASON_NONE, NULL);
    } else if (t->shut) {
        ag_stream_shut(below);
    }
}

void ag_tls_write_go_on(struct ag_tls *t)
{
    struct ag_tls_sink sink = {0};
    struct ag_stream *s = &t->stream;
    bool going = t->state == AG_TLS_OPEN || t->state == AG_TLS_FLUSHING;

    t->sink = &sink;
    while (going && s->out.head) {
        going = !ag_stream_full(&t->conn.stream) && write_next(t);
    }
    if (going) {
        written(t);
    }
    t->sink = NULL;
    ag_block_release(sink.block);
    /* So on_drain comes with each send from AG_STREAM_LOW on, and what was sent is known. */
    t->conn.stream.above_high |= s->sending_bytes > 0;
}

void ag_tls_write_sent(struct ag_tls *t)
{
    struct ag_stream *s = &t->stream;
    uint64_t left = ag_stream_queued(&t->conn.stream);

    if (left == 0) {
        t->replied_bytes = 0;
    }
    /* Ciphertext is longer than what it has in it: no more than is true is told, and all of it in the end. */
    if (t->state < AG_TLS_ENDING && s->sending_bytes > left) {
        ag_stream_sent(s, s->sending_bytes - left);
    }
}

void ag_tls_write_end(struct ag_tls *t)
{
    struct ag_tls_file *f = t->file;

    t->file = NULL;
    t->stream.sending_bytes = 0;
    if (f && f->reading) {
        f->tls = NULL; /* its completion frees it */
    } else if (f) {
        drop_block(f);
        ag_tls_free(f);
    }
}

#endif
