#include "engine/tls_impl.h"

#if AG_WOLFSSL

#    include <wolfssl/options.h>
#    include <wolfssl/ssl.h>

/* The last bytes of what has come so far. */
static void remember(struct ag_tls_shake *k, const uint8_t *bytes, size_t n)
{
    size_t kept = n < sizeof(k->last) ? sizeof(k->last) - n : 0;

    memmove(k->last, k->last + sizeof(k->last) - kept, kept);
    memcpy(k->last + kept, bytes + n - (sizeof(k->last) - kept), sizeof(k->last) - kept);
}

/* The library asks for received bytes: copied, for it decrypts in place. */
int ag_tls_on_recv(WOLFSSL *ssl, char *to, int room, void *ctx)
{
    struct ag_tls *t = ctx;
    size_t done = 0;

    (void)ssl;
    while (done < (size_t)room && t->in.head) {
        const struct ag_slice *first = &t->in.head->slice;
        size_t n = ag_min_size((size_t)room - done, first->len);

        memcpy(to + done, first->ptr, n);
        done += n;
        ag_chain_consume(&t->in, &t->stream.loop->nodes, n);
    }
    if (t->shake) {
        remember(t->shake, (const uint8_t *)to, done);
    }
    return done > 0 ? (int)done : WOLFSSL_CBIO_ERR_WANT_READ;
}

/* Fills `b` with what can be decrypted. Returns bytes.
 *   out_rc  of the library's last call: <= 0, or `b` is full */
static size_t decrypt(struct ag_tls *t, struct ag_block *b, int *out_rc)
{
    size_t used = 0;

    do {
        *out_rc = wolfSSL_read(t->ssl, b->data + used, (int)(b->size - used));
        used += *out_rc > 0 ? (size_t)*out_rc : 0;
    } while (*out_rc > 0 && used < b->size);
    return used;
}

/* All that has come is read. */
static void wait_for_more(struct ag_tls *t)
{
    struct ag_conn *c = &t->conn;

    if (t->fin && t->stream.user->on_cut) {
        t->eof = true;
        t->stream.user->on_cut(&t->stream);
    } else if (t->fin) {
        /* Whoever cut the connection may have cut the content short. */
        ag_tls_break(t, AG_REASON_EOF, "closed without close_notify");
    } else if (!c->reading || c->group != t->group) {
        ag_stream_resume(&c->stream, (enum ag_buf_group)t->group);
    }
}

/* The library's last read ended so. */
static void end_read(struct ag_tls *t, int error)
{
    if (t->notified) {
        t->eof = true;
        ag_chain_clear(&t->in, &t->stream.loop->nodes);
        t->stream.user->on_eof(&t->stream);
    } else if (error == WOLFSSL_ERROR_WANT_READ) {
        wait_for_more(t);
    } else {
        /* The library has queued its alert, if there was one to send. */
        ag_tls_fail(t, AG_REASON_PROTOCOL, ag_tls_why(t->ssl, error));
    }
}

/* What the library answers by itself, to key updates that ask for one: a peer that takes none of it must not
 * have it pile up. */
#    define REPLIES_MAX 65536u

static bool is_flooded(struct ag_tls *t)
{
    if (t->starved || t->replied_bytes > REPLIES_MAX) {
        ag_tls_break(t, t->starved ? AG_REASON_RESOURCES : AG_REASON_LIMIT, "too many key updates");
        return true;
    }
    return false;
}

static bool wants_data(const struct ag_tls *t)
{
    return t->state == AG_TLS_OPEN && t->reading && !t->eof;
}

void ag_tls_read_go_on(struct ag_tls *t)
{
    struct ag_stream *s = &t->stream;
    struct ag_loop *l = s->loop;
    int rc = 1;

    while (rc > 0 && wants_data(t)) {
        /* A large one only for what would not fit a small one: little must not pin much. */
        bool large = t->group == AG_BUF_LARGE && !l->tight &&
                     t->in.bytes + (uint64_t)wolfSSL_pending(t->ssl) > AG_BUF_SMALL_BYTES;
        struct ag_block *b = large ? ag_loop_buf(l, AG_BUF_LARGE) : NULL;

        b = b ? b : ag_loop_buf(l, AG_BUF_SMALL);
        if (!b) {
            if (ag_loop_buf_or_wait(l, &t->input)) {
                ag_task_queue(l, &t->input);
            }
            return;
        }
        size_t n = decrypt(t, b, &rc);
        if (n > 0) {
            s->user->on_data(s, (struct ag_slice){{.ptr = b->data}, n, b});
        } else {
            ag_block_release(b);
        }
    }
    if (rc > 0) {
        return;
    }
    int error = wolfSSL_get_error(t->ssl, rc);

    /* Kept, for whoever has paused meanwhile: the library knows it no more once something was written. */
    t->notified = t->notified || error == WOLFSSL_ERROR_ZERO_RETURN;
    if (wants_data(t) && !is_flooded(t)) {
        end_read(t, error);
    }
}

#endif
