#include "engine/tls_tickets.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/random.h>

/*
 * A ticket: [ name of the key | nonce | sealed text | tag ]. Its own key is derived from the ring's by
 * HKDF-Expand (RFC 5869 section 2.3) with the context and the nonce as info, so that no two tickets share one,
 * and the IV of AES-256-GCM is zero.
 *
 * Readers copy under a sequence that is odd while the control thread writes: all words are atomic, and read again
 * when they have changed meanwhile.
 */
#define NAME_BYTES   16u
#define NONCE_BYTES  16u
#define TAG_BYTES    16u
#define SECRET_BYTES 32u
#define HEAD_BYTES   (NAME_BYTES + NONCE_BYTES)
#define WORDS        ((NAME_BYTES + SECRET_BYTES) / 8)

_Static_assert(HEAD_BYTES + TAG_BYTES == AG_TLS_TICKET_OVERHEAD, "what the header promises");

struct key {
    uint8_t name[NAME_BYTES];
    uint8_t secret[SECRET_BYTES];
};

_Static_assert(sizeof(struct key) == WORDS * 8, "no padding");

struct ag_tls_tickets {
    _Atomic uint32_t sequence;
    _Atomic uint32_t count;
    uint32_t keep; /* the control thread's */
    _Atomic uint64_t words[AG_TLS_TICKETS_KEEP_MAX][WORDS];
};

static bool fill_random(void *out, size_t len)
{
    uint8_t *p = out;
    size_t done = 0;

    while (done < len) {
        ssize_t n = getrandom(p + done, len - done, 0);

        if (n < 0 && errno != EINTR) {
            return false;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* ---- the ring ---- */

static void load_key(const struct ag_tls_tickets *t, uint32_t i, struct key *out)
{
    uint64_t words[WORDS];

    for (uint32_t w = 0; w < WORDS; w++) {
        words[w] = atomic_load_explicit(&t->words[i][w], memory_order_acquire);
    }
    memcpy(out, words, sizeof(*out));
    explicit_bzero(words, sizeof(words));
}

static uint32_t ring_read(const struct ag_tls_tickets *t, struct key out[AG_TLS_TICKETS_KEEP_MAX])
{
    for (;;) {
        uint32_t before = atomic_load_explicit(&t->sequence, memory_order_acquire);
        uint32_t count = atomic_load_explicit(&t->count, memory_order_acquire);

        for (uint32_t i = 0; i < count; i++) {
            load_key(t, i, &out[i]);
        }
        if (before % 2 == 0 && atomic_load_explicit(&t->sequence, memory_order_relaxed) == before) {
            return count;
        }
    }
}

static void ring_write(struct ag_tls_tickets *t, const struct key *keys, uint32_t count)
{
    uint32_t sequence = atomic_load_explicit(&t->sequence, memory_order_relaxed);

    AG_ASSERT(count >= 1 && count <= AG_TLS_TICKETS_KEEP_MAX);
    atomic_store_explicit(&t->sequence, sequence + 1, memory_order_relaxed);
    for (uint32_t i = 0; i < AG_TLS_TICKETS_KEEP_MAX; i++) {
        uint64_t words[WORDS] = {0};

        if (i < count) {
            memcpy(words, &keys[i], sizeof(words));
        }
        for (uint32_t w = 0; w < WORDS; w++) {
            atomic_store_explicit(&t->words[i][w], words[w], memory_order_release);
        }
        explicit_bzero(words, sizeof(words));
    }
    atomic_store_explicit(&t->count, count, memory_order_release);
    atomic_store_explicit(&t->sequence, sequence + 2, memory_order_release);
}

static uint32_t clamp_keep(uint32_t keep)
{
    return keep < 1 ? 1 : keep > AG_TLS_TICKETS_KEEP_MAX ? AG_TLS_TICKETS_KEEP_MAX : keep;
}

struct ag_tls_tickets *ag_tls_tickets_new(uint32_t keep)
{
    struct ag_tls_tickets *t = calloc(1, sizeof(*t));
    struct key key;

    if (!t || !fill_random(&key, sizeof(key))) {
        free(t);
        return NULL;
    }
    t->keep = clamp_keep(keep);
    ring_write(t, &key, 1);
    explicit_bzero(&key, sizeof(key));
    return t;
}

void ag_tls_tickets_free(struct ag_tls_tickets *t)
{
    if (t) {
        explicit_bzero(t, sizeof(*t));
        free(t);
    }
}

void ag_tls_tickets_keep(struct ag_tls_tickets *t, uint32_t keep)
{
    struct key keys[AG_TLS_TICKETS_KEEP_MAX];
    uint32_t count = ring_read(t, keys);

    t->keep = clamp_keep(keep);
    if (count > t->keep) {
        ring_write(t, keys, t->keep);
    }
    explicit_bzero(keys, sizeof(keys));
}

void ag_tls_tickets_rotate(struct ag_tls_tickets *t)
{
    struct key keys[AG_TLS_TICKETS_KEEP_MAX + 1];
    uint32_t count = ring_read(t, keys + 1) + 1;

    /* Without randomness the old key is better than one that can be guessed. */
    if (fill_random(&keys[0], sizeof(keys[0]))) {
        ring_write(t, keys, count < t->keep ? count : t->keep);
    }
    explicit_bzero(keys, sizeof(keys));
}

/* ---- as text ---- */

#define TITLE "anygate-ticket-keys 1\n"

static void put_hex(struct ag_buf *out, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        ag_buf_putc(out, (uint8_t)digits[bytes[i] >> 4]);
        ag_buf_putc(out, (uint8_t)digits[bytes[i] & 15]);
    }
}

void ag_tls_tickets_save(const struct ag_tls_tickets *t, struct ag_buf *out)
{
    struct key keys[AG_TLS_TICKETS_KEEP_MAX];
    uint32_t count = ring_read(t, keys);

    ag_buf_put(out, AG_SPAN(TITLE));
    for (uint32_t i = 0; i < count; i++) {
        put_hex(out, keys[i].name, sizeof(keys[i].name));
        ag_buf_putc(out, ' ');
        put_hex(out, keys[i].secret, sizeof(keys[i].secret));
        ag_buf_putc(out, '\n');
    }
    explicit_bzero(keys, sizeof(keys));
}

static int hex_digit(uint8_t ch)
{
    return ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

static bool take_hex(struct ag_span *io, uint8_t *out, size_t len, uint8_t end)
{
    if (io->len < 2 * len + 1 || io->ptr[2 * len] != end) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(io->ptr[2 * i]), low = hex_digit(io->ptr[2 * i + 1]);

        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    *io = ag_span_sub(*io, 2 * len + 1, io->len);
    return true;
}

enum ag_status ag_tls_tickets_load(struct ag_tls_tickets *t, struct ag_span text)
{
    struct key keys[AG_TLS_TICKETS_KEEP_MAX];
    struct ag_span title = AG_SPAN(TITLE);
    uint32_t count = 0;
    bool good = ag_span_starts(text, title);

    text = good ? ag_span_sub(text, title.len, text.len) : text;
    while (good && text.len > 0 && count < AG_TLS_TICKETS_KEEP_MAX) {
        good = take_hex(&text, keys[count].name, NAME_BYTES, ' ') &&
               take_hex(&text, keys[count].secret, SECRET_BYTES, '\n');
        count++;
    }
    good = good && text.len == 0 && count > 0;
    if (good) {
        ring_write(t, keys, count < t->keep ? count : t->keep);
    }
    explicit_bzero(keys, sizeof(keys));
    return good ? AG_OK : AG_EINVAL;
}

/* ---- tickets ---- */

#if AG_WOLFSSL

#    include <wolfssl/options.h>
#    include <wolfssl/wolfcrypt/aes.h>
#    include <wolfssl/wolfcrypt/hmac.h>

#    define LABEL "anygate ticket 1"

/* A schedule of AES for one ticket. */
static bool derive(const struct key *key, const uint8_t context[static 16], const uint8_t *nonce,
                   Aes *out)
{
    uint8_t info[sizeof(LABEL) - 1 + 16 + NONCE_BYTES], derived[32];
    bool good;

    memcpy(info, LABEL, sizeof(LABEL) - 1);
    memcpy(info + sizeof(LABEL) - 1, context, 16);
    memcpy(info + sizeof(LABEL) - 1 + 16, nonce, NONCE_BYTES);
    if (wc_AesInit(out, NULL, INVALID_DEVID) != 0) {
        return false;
    }
    good = wc_HKDF_Expand(WC_SHA256, key->secret, SECRET_BYTES, info, sizeof(info), derived,
                          sizeof(derived)) == 0 &&
           wc_AesGcmSetKey(out, derived, sizeof(derived)) == 0;
    explicit_bzero(derived, sizeof(derived));
    if (!good) {
        wc_AesFree(out);
    }
    return good;
}

static const uint8_t zero_iv[12];

size_t ag_tls_ticket_seal(struct ag_tls_tickets *t, const uint8_t context[static 16], uint8_t *text,
                          size_t len, size_t room)
{
    struct key keys[AG_TLS_TICKETS_KEEP_MAX];
    uint8_t head[HEAD_BYTES];
    size_t sealed = 0;
    Aes aes;

    if (room < AG_TLS_TICKET_OVERHEAD || len > room - AG_TLS_TICKET_OVERHEAD ||
        ring_read(t, keys) == 0) {
        return 0;
    }
    memcpy(head, keys[0].name, NAME_BYTES);
    if (fill_random(head + NAME_BYTES, NONCE_BYTES) &&
        derive(&keys[0], context, head + NAME_BYTES, &aes)) {
        memmove(text + HEAD_BYTES, text, len);
        memcpy(text, head, HEAD_BYTES);
        if (wc_AesGcmEncrypt(&aes, text + HEAD_BYTES, text + HEAD_BYTES, (word32)len, zero_iv,
                             sizeof(zero_iv), text + HEAD_BYTES + len, TAG_BYTES, head,
                             HEAD_BYTES) == 0) {
            sealed = len + AG_TLS_TICKET_OVERHEAD;
        }
        wc_AesFree(&aes);
    }
    explicit_bzero(keys, sizeof(keys));
    return sealed;
}

static size_t open_with(const struct key *key, const uint8_t context[static 16], uint8_t *text,
                        size_t len)
{
    size_t inner = len - AG_TLS_TICKET_OVERHEAD;
    bool good;
    Aes aes;

    if (!derive(key, context, text + NAME_BYTES, &aes)) {
        return 0;
    }
    good = wc_AesGcmDecrypt(&aes, text + HEAD_BYTES, text + HEAD_BYTES, (word32)inner, zero_iv,
                            sizeof(zero_iv), text + HEAD_BYTES + inner, TAG_BYTES, text,
                            HEAD_BYTES) == 0;
    wc_AesFree(&aes);
    if (!good) {
        return 0;
    }
    memmove(text, text + HEAD_BYTES, inner);
    return inner;
}

size_t ag_tls_ticket_open(struct ag_tls_tickets *t, const uint8_t context[static 16], uint8_t *text,
                          size_t len, bool *out_renew)
{
    struct key keys[AG_TLS_TICKETS_KEEP_MAX];
    uint32_t count = ring_read(t, keys);
    size_t opened = 0;

    for (uint32_t i = 0; i < count && len > AG_TLS_TICKET_OVERHEAD; i++) {
        if (memcmp(keys[i].name, text, NAME_BYTES) == 0) {
            opened = open_with(&keys[i], context, text, len);
            *out_renew = i > 0;
            break;
        }
    }
    explicit_bzero(keys, sizeof(keys));
    return opened;
}

#else

size_t ag_tls_ticket_seal(struct ag_tls_tickets *t, const uint8_t context[static 16], uint8_t *text,
                          size_t len, size_t room)
{
    (void)t;
    (void)context;
    (void)text;
    (void)len;
    (void)room;
    return 0;
}

size_t ag_tls_ticket_open(struct ag_tls_tickets *t, const uint8_t context[static 16], uint8_t *text,
                          size_t len, bool *out_renew)
{
    (void)t;
    (void)context;
    (void)text;
    (void)len;
    (void)out_renew;
    return 0;
}

#endif
