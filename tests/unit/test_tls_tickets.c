/*
 * Goal: tickets open by the keys and under the context that they were sealed with, and by nothing else; readers of
 * the ring never see half a change.
 * Method: sealed and opened over rotations, each bit changed, each length cut; rotation beside threads.
 */
#include "engine/tls_tickets.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#if AG_WOLFSSL

static const uint8_t ctx_a[16] = "context a", ctx_b[16] = "context b";

static size_t seal(struct ag_tls_tickets *t, const uint8_t *ctx, const char *text,
                   uint8_t room[256])
{
    memcpy(room, text, strlen(text));
    return ag_tls_ticket_seal(t, ctx, room, strlen(text), 256);
}

/* Of a copy; 0 or the text's length. */
static size_t opens(struct ag_tls_tickets *t, const uint8_t *ctx, const uint8_t *ticket, size_t len,
                    const char *text, bool *renew)
{
    uint8_t *copy = malloc(len);
    memcpy(copy, ticket, len);
    size_t n = ag_tls_ticket_open(t, ctx, copy, len, renew);
    if (n) {
        cr_assert_eq(n, strlen(text));
        cr_assert_arr_eq(copy, text, n);
    }
    free(copy);
    return n;
}

Test(tls_tickets, round_trip)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);
    uint8_t ticket[256];
    bool renew = true;
    size_t len = seal(t, ctx_a, "secret state", ticket);

    cr_assert_eq(len, strlen("secret state") + AG_TLS_TICKET_OVERHEAD);
    cr_assert_null(memmem(ticket, len, "secret", 6));
    cr_assert_eq(opens(t, ctx_a, ticket, len, "secret state", &renew), 12);
    cr_assert_not(renew);
    ag_tls_tickets_free(t);
}

Test(tls_tickets, another_context_opens_nothing)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);
    uint8_t ticket[256];
    bool renew;
    size_t len = seal(t, ctx_a, "secret state", ticket);

    cr_assert_eq(opens(t, ctx_b, ticket, len, "", &renew), 0);
    ag_tls_tickets_free(t);
}

Test(tls_tickets, another_ring_opens_nothing)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3), *other = ag_tls_tickets_new(3);
    uint8_t ticket[256];
    bool renew;
    size_t len = seal(t, ctx_a, "secret state", ticket);

    cr_assert_eq(opens(other, ctx_a, ticket, len, "", &renew), 0);
    ag_tls_tickets_free(t);
    ag_tls_tickets_free(other);
}

Test(tls_tickets, no_two_are_alike)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);
    uint8_t one[256], two[256];

    cr_assert_eq(seal(t, ctx_a, "secret state", one), seal(t, ctx_a, "secret state", two));
    cr_assert_arr_eq(one, two, 16);
    cr_assert_arr_neq(one + 32, two + 32, 12);
    ag_tls_tickets_free(t);
}

Test(tls_tickets, every_bit_counts)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);
    uint8_t ticket[256];
    bool renew;
    size_t len = seal(t, ctx_a, "secret state", ticket);

    for (size_t i = 0; i < len * 8; i++) {
        ticket[i / 8] ^= (uint8_t)(1u << i % 8);
        cr_assert_eq(opens(t, ctx_a, ticket, len, "", &renew), 0, "bit %zu", i);
        ticket[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t cut = 0; cut < len; cut++) {
        cr_assert_eq(opens(t, ctx_a, ticket, cut, "", &renew), 0, "cut to %zu", cut);
    }
    ag_tls_tickets_free(t);
}

Test(tls_tickets, no_room)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);
    uint8_t room[64] = {0};

    cr_assert_eq(ag_tls_ticket_seal(t, ctx_a, room, 17, 64), 0);
    cr_assert_eq(ag_tls_ticket_seal(t, ctx_a, room, 0, 40), 0);
    cr_assert_eq(ag_tls_ticket_seal(t, ctx_a, room, 16, 64), 64);
    ag_tls_tickets_free(t);
}

Test(tls_tickets, rotation_keeps_as_many_as_asked)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);
    uint8_t ticket[256];
    bool renew = false;
    size_t len = seal(t, ctx_a, "x", ticket);

    for (unsigned i = 0; i < 2; i++) {
        ag_tls_tickets_rotate(t);
        cr_assert_eq(opens(t, ctx_a, ticket, len, "x", &renew), 1);
        cr_assert(renew);
    }
    ag_tls_tickets_rotate(t);
    cr_assert_eq(opens(t, ctx_a, ticket, len, "x", &renew), 0);
    len = seal(t, ctx_a, "x", ticket);
    ag_tls_tickets_rotate(t);
    ag_tls_tickets_keep(t, 1);
    cr_assert_eq(opens(t, ctx_a, ticket, len, "x", &renew), 0);
    ag_tls_tickets_free(t);
}

Test(tls_tickets, as_text_and_back)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(AG_TLS_TICKETS_KEEP_MAX);
    struct ag_tls_tickets *other = ag_tls_tickets_new(2);
    uint8_t text[AG_TLS_TICKETS_TEXT_BYTES], oldest[256], ticket[256];
    struct ag_buf b = ag_buf(text, sizeof(text));
    bool renew = true;

    size_t old_len = seal(t, ctx_a, "x", oldest);
    for (unsigned i = 0; i < 2 * AG_TLS_TICKETS_KEEP_MAX; i++) {
        ag_tls_tickets_rotate(t);
    }
    size_t len = seal(t, ctx_a, "y", ticket);
    ag_tls_tickets_save(t, &b);
    cr_assert_not(b.overflow);
    cr_assert_eq(ag_tls_tickets_load(other, ag_buf_span(&b)), AG_OK);
    cr_assert_eq(opens(other, ctx_a, ticket, len, "y", &renew), 1);
    cr_assert_not(renew);
    cr_assert_eq(opens(other, ctx_a, oldest, old_len, "x", &renew), 0);
    ag_tls_tickets_free(t);
    ag_tls_tickets_free(other);
}

Test(tls_tickets, texts_that_are_not)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);
    uint8_t text[AG_TLS_TICKETS_TEXT_BYTES], ticket[256];
    struct ag_buf b = ag_buf(text, sizeof(text));
    bool renew;
    size_t len = seal(t, ctx_a, "x", ticket);

    ag_tls_tickets_save(t, &b);
    for (size_t cut = 0; cut < b.len; cut++) {
        cr_assert_eq(ag_tls_tickets_load(t, ag_span(text, cut)), AG_EINVAL, "cut to %zu", cut);
    }
    text[b.len - 2] = 'g';
    cr_assert_eq(ag_tls_tickets_load(t, ag_buf_span(&b)), AG_EINVAL);
    cr_assert_eq(opens(t, ctx_a, ticket, len, "x", &renew), 1, "nothing has changed");
    ag_tls_tickets_free(t);
}

/* ---- beside threads ---- */

struct race {
    struct ag_tls_tickets *t;
    _Atomic bool done;
};

static void *use(void *arg)
{
    struct race *r = arg;

    while (!atomic_load(&r->done)) {
        uint8_t ticket[256];
        bool renew;
        size_t len = seal(r->t, ctx_a, "x", ticket);

        /* All keys that there are at any time are whole, and the newest is never gone by the next. */
        cr_assert_eq(len, 1 + AG_TLS_TICKET_OVERHEAD);
        (void)opens(r->t, ctx_a, ticket, len, "x", &renew);
    }
    return NULL;
}

Test(tls_tickets, readers_beside_rotation)
{
    struct race r = {.t = ag_tls_tickets_new(AG_TLS_TICKETS_KEEP_MAX)};
    pthread_t threads[2];

    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, use, &r), 0);
    }
    for (unsigned i = 0; i < 2000; i++) {
        ag_tls_tickets_rotate(r.t);
    }
    atomic_store(&r.done, true);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    ag_tls_tickets_free(r.t);
}

#else

Test(tls_tickets, built_without)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);
    uint8_t room[64] = {0};

    cr_assert_eq(ag_tls_ticket_seal(t, room, room, 0, 64), 0);
    ag_tls_tickets_free(t);
}

#endif
