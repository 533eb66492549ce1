#include "tools/stapling.h"

#include "actions/upstream/client.h"
#include "engine/log.h"
#include "engine/tls_ocsp.h"

#include <stdatomic.h>
#include <time.h>

/* An answer's time, and how soon one that was not good is asked for again; doubled each time. */
#define ANSWER_MS     15000u
#define AGAIN_FIRST_S 60
#define AGAIN_MOST_S  3600

/* A response that is stapled, or one to be had. */
struct ag_stapling_entry {
    uint8_t sha256[32]; /* of the certificate */
    uint8_t *der;       /* malloc; NULL: none */
    size_t der_len;
    int64_t ends_s, due_s; /* wall clock */
    int64_t again_s;       /* what the next failure waits; 0: none yet */
};

enum { POSTED = 0, ASKING, ANSWERED };

struct ag_stapling_question {
    struct ag_msg msg;
    struct ag_stapling *all;
    struct ag_arena arena; /* of the target */
    struct ag_client_request request;
    uint8_t sha256[32];
    uint8_t der[AG_OCSP_REQUEST_MAX];
    _Atomic int state; /* ANSWERED: the control thread's again */
    unsigned status;
    const char *detail;
    size_t answer_len;
    uint8_t answer[AG_CLIENT_ANSWER_MAX];
};

_Static_assert(AG_OCSP_RESPONSE_MAX >= AG_CLIENT_ANSWER_MAX, "whatever comes can be checked");

static int64_t now_s(void)
{
    return (int64_t)time(NULL);
}

/* ---- the certificates of the present configuration ---- */

static const struct ag_tls_server_settings *settings_at(const struct ag_snapshot *s, uint16_t i)
{
    const struct ag_tls_server_settings *t = s->model->listens[i].tls;

    return s->tls[i] && t->stapling ? t : NULL;
}

static const struct ag_tls_identity *find_identity(const struct ag_snapshot *s,
                                                   const uint8_t sha256[static 32])
{
    for (uint16_t i = 0; i < s->model->listen_count; i++) {
        const struct ag_tls_server_settings *t = settings_at(s, i);

        for (uint32_t k = 0; t && k < t->identity_count; k++) {
            if (memcmp(t->identities[k]->sha256, sha256, 32) == 0) {
                return t->identities[k];
            }
        }
    }
    return NULL;
}

/* On every listener that serves it. False: one of them does not take it. */
static bool staple(const struct ag_snapshot *s, const struct ag_stapling_entry *e)
{
    bool taken = true;

    for (uint16_t i = 0; i < s->model->listen_count; i++) {
        const struct ag_tls_server_settings *t = settings_at(s, i);

        for (uint32_t k = 0; t && k < t->identity_count; k++) {
            if (memcmp(t->identities[k]->sha256, e->sha256, sizeof(e->sha256)) == 0) {
                taken &= ag_tls_server_staple(s->tls[i], t->identities[k],
                                              ag_span(e->der, e->der_len), e->ends_s) == AG_OK;
            }
        }
    }
    return taken;
}

static struct ag_stapling_entry *find_entry(const struct ag_stapling *s,
                                            const uint8_t sha256[static 32])
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (memcmp(s->entries[i].sha256, sha256, 32) == 0) {
            return &s->entries[i];
        }
    }
    return NULL;
}

static void drop(struct ag_stapling_entry *e)
{
    free(e->der);
    e->der = NULL;
    e->der_len = 0;
}

static void forget_unserved(struct ag_stapling *s)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < s->count; i++) {
        if (find_identity(s->snapshot, s->entries[i].sha256)) {
            s->entries[kept++] = s->entries[i];
        } else {
            drop(&s->entries[i]);
        }
    }
    s->count = kept;
}

static void add(struct ag_stapling *s, const struct ag_tls_identity *id)
{
    struct ag_stapling_entry *e;

    if (!ag_ocsp_askable(id) || find_entry(s, id->sha256)) {
        return;
    }
    s->entries = realloc(s->entries, (s->count + 1) * sizeof(*s->entries));
    AG_ASSERT(s->entries); /* a few bytes a certificate, at a reload */
    e = &s->entries[s->count++];
    *e = (struct ag_stapling_entry){.due_s = now_s()};
    memcpy(e->sha256, id->sha256, sizeof(e->sha256));
}

void ag_stapling_follow(struct ag_stapling *s, const struct ag_snapshot *snapshot)
{
    s->snapshot = snapshot;
    forget_unserved(s);
    for (uint16_t i = 0; i < snapshot->model->listen_count; i++) {
        const struct ag_tls_server_settings *t = settings_at(snapshot, i);

        for (uint32_t k = 0; t && k < t->identity_count; k++) {
            add(s, t->identities[k]);
        }
    }
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->entries[i].der) {
            (void)staple(snapshot, &s->entries[i]);
        }
    }
}

/* ---- on the shard ---- */

static void on_done(struct ag_client_request *r)
{
    struct ag_stapling_question *q = ag_container_of(r, struct ag_stapling_question, request);
    struct ag_stapling *all = q->all;

    q->status = r->status;
    q->detail = r->detail;
    q->answer_len = ag_min_size(r->answer.len, sizeof(q->answer));
    if (q->answer_len) {
        memcpy(q->answer, r->answer.ptr, q->answer_len);
    }
    atomic_store(&q->state, ANSWERED);
    all->ops->wake(all->owner);
}

static void ask(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_stapling_question *q = ag_container_of(m, struct ag_stapling_question, msg);
    struct ag_stapling *all = q->all;

    (void)l;
    atomic_store(&q->state, ASKING);
    if (!ag_client_ops.request(ag_client_of(all->context), &q->request)) {
        q->status = 0;
        q->detail = "out of memory";
        atomic_store(&q->state, ANSWERED);
        all->ops->wake(all->owner);
    }
}

void ag_stapling_leave(struct ag_stapling *s)
{
    struct ag_stapling_question *q = atomic_load(&s->question);

    if (q && atomic_load(&q->state) == ASKING) {
        ag_client_ops.cancel(&q->request);
    }
}

/* ---- asking ---- */

/* NULL: it cannot be asked for at all. */
static struct ag_stapling_question *make_question(struct ag_stapling *s,
                                                  const struct ag_tls_identity *id)
{
    struct ag_stapling_question *q = calloc(1, sizeof(*q));
    struct ag_buf der;

    if (!q) {
        return NULL;
    }
    q->msg.run = ask;
    q->all = s;
    memcpy(q->sha256, id->sha256, sizeof(q->sha256));
    ag_arena_init(&q->arena, NULL, 0);
    der = ag_buf(q->der, sizeof(q->der));
    q->request = (struct ag_client_request){
        .target =
            ag_client_target_new(&q->arena, ag_arena_copy(&q->arena, id->ocsp_url), ANSWER_MS),
        .method = AG_METHOD_POST,
        .content_type = AG_SPAN("application/ocsp-request"),
        .accept = AG_SPAN("application/ocsp-response"),
        .done = on_done};
    if (!q->request.target || ag_ocsp_request(id, &der) != AG_OK) {
        ag_arena_release(&q->arena);
        free(q);
        return NULL;
    }
    q->request.content = ag_buf_span(&der);
    return q;
}

static void free_question(struct ag_stapling *s)
{
    struct ag_stapling_question *q = atomic_exchange(&s->question, NULL);

    if (q) {
        ag_arena_release(&q->arena);
        free(q);
    }
}

static void failed(struct ag_stapling_entry *e, const struct ag_tls_identity *id, const char *why)
{
    e->again_s = e->again_s ? e->again_s * 2 : AGAIN_FIRST_S;
    if (e->again_s > AGAIN_MOST_S) {
        e->again_s = AGAIN_MOST_S;
    }
    e->due_s = now_s() + e->again_s;
    ag_log(AG_LOG_WARN, "no OCSP response for %.*s from %.*s: %s; again in %lld s",
           (int)ag_min_size(id->subject.len, 200), (const char *)id->subject.ptr,
           (int)ag_min_size(id->ocsp_url.len, 200), (const char *)id->ocsp_url.ptr, why,
           (long long)e->again_s);
}

static void take_answer(struct ag_stapling *s, const struct ag_stapling_question *q)
{
    const struct ag_tls_identity *id = find_identity(s->snapshot, q->sha256);
    struct ag_stapling_entry *e = find_entry(s, q->sha256);
    int64_t soonest = now_s() + AGAIN_FIRST_S;
    struct ag_stapling_entry fresh;
    struct ag_ocsp_answer answer;
    const char *why = NULL;
    uint8_t *der;

    if (!id || !e) {
        return; /* a reload took the certificate away */
    }
    if (q->status != 200) {
        failed(e, id, q->status ? "it answers with an error" : q->detail ? q->detail : "no answer");
        return;
    }
    if (ag_ocsp_check(id, ag_span(q->answer, q->answer_len), now_s(), &answer, &why) != AG_OK) {
        if (answer.status == AG_OCSP_REVOKED) { /* what is stapled says otherwise */
            drop(e);
            (void)staple(s->snapshot, e);
        }
        failed(e, id, why);
        return;
    }
    der = malloc(q->answer_len);
    if (!der) {
        failed(e, id, "out of memory");
        return;
    }
    memcpy(der, q->answer, q->answer_len);
    fresh = *e;
    fresh.der = der;
    fresh.der_len = q->answer_len;
    fresh.ends_s = answer.next_update_s;
    fresh.due_s = answer.next_ask_s > soonest ? answer.next_ask_s : soonest;
    fresh.again_s = 0;
    if (!staple(s->snapshot, &fresh)) {
        drop(&fresh);
        failed(e, id, "the TLS library does not take it");
        return;
    }
    drop(e);
    *e = fresh;
    ag_log(AG_LOG_DEBUG, "OCSP response for %.*s is stapled",
           (int)ag_min_size(id->subject.len, 200), (const char *)id->subject.ptr);
}

/* The one that has been due for longest; NULL: none is. */
static struct ag_stapling_entry *find_due(const struct ag_stapling *s, int64_t now)
{
    struct ag_stapling_entry *found = NULL;

    for (uint32_t i = 0; i < s->count; i++) {
        struct ag_stapling_entry *e = &s->entries[i];

        if (e->due_s <= now && (!found || e->due_s < found->due_s)) {
            found = e;
        }
    }
    return found;
}

static void ask_next(struct ag_stapling *s)
{
    int64_t now = now_s();
    struct ag_stapling_entry *e;

    while ((e = find_due(s, now))) {
        const struct ag_tls_identity *id = find_identity(s->snapshot, e->sha256);
        struct ag_stapling_question *q;

        AG_ASSERT(id); /* or it was forgotten */
        q = make_question(s, id);
        if (!q) {
            failed(e, id, "this address cannot be asked");
            continue;
        }
        atomic_store(&s->question, q);
        if (!s->ops->post(s->owner, &q->msg)) {
            free_question(s);
            e->due_s = now + AGAIN_MOST_S; /* it ends */
        }
        return;
    }
}

static void drop_ended(struct ag_stapling *s)
{
    int64_t now = now_s();

    for (uint32_t i = 0; i < s->count; i++) {
        struct ag_stapling_entry *e = &s->entries[i];

        if (e->der && e->ends_s <= now) {
            drop(e);
            (void)staple(s->snapshot, e);
        }
    }
}

void ag_stapling_turn(struct ag_stapling *s)
{
    struct ag_stapling_question *q = atomic_load(&s->question);

    if (!s->snapshot) {
        return;
    }
    drop_ended(s);
    if (q && atomic_load(&q->state) == ANSWERED) {
        take_answer(s, q);
        free_question(s);
        q = NULL;
    }
    if (!q) {
        ask_next(s);
    }
}

int ag_stapling_wait_ms(const struct ag_stapling *s, int wait_ms)
{
    int64_t next = INT64_MAX, now = now_s(), ms;

    for (uint32_t i = 0; i < s->count; i++) {
        const struct ag_stapling_entry *e = &s->entries[i];

        if (e->der && e->ends_s < next) {
            next = e->ends_s;
        }
        if (!atomic_load(&s->question) && e->due_s < next) {
            next = e->due_s;
        }
    }
    if (next == INT64_MAX) {
        return wait_ms;
    }
    ms = next <= now ? 0 : next - now > AGAIN_MOST_S ? AGAIN_MOST_S * 1000 : (next - now) * 1000;
    return wait_ms < 0 || ms < wait_ms ? (int)ms : wait_ms;
}

/* ---- start and end ---- */

void ag_stapling_init(struct ag_stapling *s, const struct ag_stapling_ops *ops, void *owner,
                      struct ag_context *context)
{
    *s = (struct ag_stapling){.ops = ops, .owner = owner, .context = context};
}

void ag_stapling_deinit(struct ag_stapling *s)
{
    free_question(s);
    for (uint32_t i = 0; i < s->count; i++) {
        drop(&s->entries[i]);
    }
    free(s->entries);
}
