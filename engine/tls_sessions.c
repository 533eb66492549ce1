#include "engine/tls_sessions.h"

#include <pthread.h>

struct entry {
    struct ag_tls_session_key key;
    int64_t made_s;
    uint64_t turn; /* order of coming; 0: free */
    uint16_t len;
    uint8_t bytes[AG_TLS_SESSION_BYTES];
};

struct ag_tls_sessions {
    pthread_mutex_t lock;
    uint64_t turns;
    uint32_t rows;
    struct entry entries[];
};

struct ag_tls_sessions *ag_tls_sessions_new(uint32_t count)
{
    uint32_t rows = count / AG_TLS_SESSIONS_WAYS + (count % AG_TLS_SESSIONS_WAYS > 0);
    struct ag_tls_sessions *t =
        rows > 0
            ? calloc(1, sizeof(*t) + (size_t)rows * AG_TLS_SESSIONS_WAYS * sizeof(struct entry))
            : NULL;

    if (t) {
        pthread_mutex_init(&t->lock, NULL);
        t->rows = rows;
    }
    return t;
}

void ag_tls_sessions_free(struct ag_tls_sessions *t)
{
    if (t) {
        pthread_mutex_destroy(&t->lock);
        explicit_bzero(t->entries, (size_t)t->rows * AG_TLS_SESSIONS_WAYS * sizeof(struct entry));
        free(t);
    }
}

/* Ids are random: their first bytes are as good as a hash. */
static struct entry *row_of(struct ag_tls_sessions *t, const struct ag_tls_session_key *key)
{
    uint32_t at;

    memcpy(&at, key->id, sizeof(at));
    return &t->entries[(size_t)(at % t->rows) * AG_TLS_SESSIONS_WAYS];
}

static bool same_id(const struct entry *e, const struct ag_tls_session_key *key)
{
    return e->turn > 0 && memcmp(e->key.id, key->id, sizeof(key->id)) == 0;
}

void ag_tls_sessions_put(struct ag_tls_sessions *t, const struct ag_tls_session_key *key,
                         const uint8_t *bytes, size_t len, int64_t now_s)
{
    struct entry *row = row_of(t, key), *e = row;

    if (len > AG_TLS_SESSION_BYTES) {
        return;
    }
    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < AG_TLS_SESSIONS_WAYS; i++) {
        if (same_id(&row[i], key)) {
            e = &row[i];
            break;
        }
        e = row[i].turn < e->turn ? &row[i] : e;
    }
    e->key = *key;
    e->made_s = now_s;
    e->turn = ++t->turns;
    e->len = (uint16_t)len;
    memcpy(e->bytes, bytes, len);
    pthread_mutex_unlock(&t->lock);
}

size_t ag_tls_sessions_get(struct ag_tls_sessions *t, const struct ag_tls_session_key *key,
                           int64_t now_s, int64_t age_s, uint8_t out[static AG_TLS_SESSION_BYTES])
{
    const struct entry *row = row_of(t, key);
    size_t len = 0;

    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < AG_TLS_SESSIONS_WAYS; i++) {
        const struct entry *e = &row[i];
        if (same_id(e, key) && now_s >= e->made_s && now_s - e->made_s < age_s &&
            memcmp(e->key.binding, key->binding, sizeof(key->binding)) == 0) {
            len = e->len;
            memcpy(out, e->bytes, len);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return len;
}
