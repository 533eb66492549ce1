/* Peers that give windows back piece by piece: no crumbs for those that do so early, no wait for those that do not,
 * and no end of the budget against floods for what was earned (RFC 1122 section 4.2.3.4, THREATS: HTTP/2). */
#include "tests/unit/h2_rig.h"

static uint8_t plenty[256 * 1024];

struct seen {
    unsigned frames, tiny; /* of DATA, and below 256 bytes where more had waited */
    size_t bytes;
};

/* An answer that is never short of bytes, in pieces that are no multiples of each other. */
static void keep_writing(struct work *w)
{
    while (w->ex && w->ex->res_body.q.bytes < 100000) {
        write_answer(w, ag_slice_static(ag_span(plenty, 20011)));
    }
}

/* DATA that came since, and the same given back frame by frame, each update in a turn of its own. */
static struct seen give_back(struct rig *r, uint32_t id)
{
    const char *text = told(r);
    struct seen seen = {0};
    size_t sizes[64];

    r->w.out.len = r->seen = 0; /* the rig's room is not for ever */
    for (const char *at = text; (at = strstr(at, "DATA "));) {
        cr_assert_lt(seen.frames, AG_COUNT(sizes));
        const char *size = strchr(at, '[');
        at = strchr(at, '\n');
        sizes[seen.frames] = size && size < at ? strtoul(size + 1, NULL, 10) : 1;
        seen.tiny += sizes[seen.frames] < 256;
        seen.bytes += sizes[seen.frames++];
    }
    for (unsigned i = 0; i < seen.frames; i++) {
        say_u32(r, AG_H2_WINDOW_UPDATE, 0, (uint32_t)sizes[i]);
        say_u32(r, AG_H2_WINDOW_UPDATE, id, (uint32_t)sizes[i]);
    }
    return seen;
}

static unsigned rounds(const struct rig *r)
{
    return r->bytewise ? 60 : 1500;
}

H2_TEST(h2_crumbs, none_for_ever_for_a_peer_that_gives_back_each_frame)
{
    struct work *w = &r->works[0];
    struct seen all = {0};

    ask(r, 1, "/open", END);
    for (unsigned i = 0; i < rounds(r); i++) {
        keep_writing(w);
        tick(r, 0);
        struct seen seen = give_back(r, 1);
        all.frames += seen.frames;
        all.tiny += seen.tiny;
        all.bytes += seen.bytes;
    }
    cr_expect(memwire_open(&r->w));
    cr_expect_leq(all.tiny, 3);
    cr_expect_geq(all.bytes, (size_t)all.frames * 4000);
}

/* A long answer that has used up its stream's window, of which the peer gives back so much. */
static struct work *use_up(struct rig *r, uint32_t give)
{
    struct work *w = &r->works[0];

    ask(r, 1, "/open", END);
    keep_writing(w);
    tick(r, 0);
    (void)told(r);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1000000);
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, give);
    return w;
}

/* It may be one that gives back nothing else: each window is used up to its last byte. */
H2_TEST(h2_crumbs, a_peer_that_gives_all_back_gets_all)
{
    struct work *w = use_up(r, 65535);

    for (int i = 0; i < 10; i++) {
        keep_writing(w);
        tick(r, 0);
        (void)told(r);
        cr_expect_eq(r->h.conn.buckets[0]->send_window, 0);
        cr_expect_eq(r->h.conn.hold_ms, 0);
        say_u32(r, AG_H2_WINDOW_UPDATE, 0, 65535);
        say_u32(r, AG_H2_WINDOW_UPDATE, 1, 65535);
    }
}

H2_TEST(h2_crumbs, what_is_held_back_goes_in_the_end)
{
    (void)use_up(r, 1000);
    expect_told(r, "");
    tick(r, AG_H2_HOLD_MS - 50);
    expect_told(r, "");
    tick(r, 50 + LATE_MS);
    expect_told(r, "DATA 1 [1000]\n");
}

H2_TEST(h2_crumbs, what_is_held_back_goes_with_more)
{
    (void)use_up(r, 1000);
    expect_told(r, "");
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 3000);
    expect_told(r, "");
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 96);
    expect_told(r, "DATA 1 [4096]\n");
}

H2_TEST(h2_crumbs, of_the_connections_window_too)
{
    struct work *w = &r->works[0];

    ask(r, 1, "/open", END);
    keep_writing(w);
    tick(r, 0);
    (void)told(r);
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 1000000);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1000);
    expect_told(r, "");
    ask(r, 3, "/wait", END);
    answer(r, 1, AG_SPAN("all of it, so no crumb"));
    tick(r, 0);
    cr_expect(strstr(told(r), "DATA 3 \"all of it, so no crumb\" END"));
    tick(r, AG_H2_HOLD_MS + LATE_MS);
    expect_told(r, "DATA 1 [978]\n");
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 100000);
    cr_expect(strstr(told(r), "DATA 1 [16384]"));
}

/* ---- budgets ---- */

/* All that went in some thousand small frames may be given back at once. */
H2_TEST(h2_crumbs, updates_for_what_was_sent_are_no_flood)
{
    unsigned count = r->bytewise ? 1000 : 3000;

    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1000000);
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 1000000);
    ask(r, 1, "/open", END);
    for (unsigned i = 0; i < count; i++) {
        write_answer(&r->works[0], ag_slice_static(ag_span(plenty, 300)));
        tick(r, 0);
    }
    cr_expect_eq(times(told(r), "DATA 1 [300]"), count);
    for (unsigned i = 0; i < count; i++) {
        say_u32(r, AG_H2_WINDOW_UPDATE, 0, 300);
        say_u32(r, AG_H2_WINDOW_UPDATE, 1, 300);
    }
    expect_told(r, "");
}

/* More of them than that are. */
H2_TEST(h2_crumbs, updates_for_nothing_are_a_flood_all_the_same)
{
    unsigned n = 0;

    ask(r, 1, "/wait", END);
    answer(r, 0, AG_SPAN("x"));
    tick(r, 0);
    (void)told(r);
    while (memwire_open(&r->w) && n < 3 * AG_H2_NOISE_MAX) {
        say_u32(r, AG_H2_WINDOW_UPDATE, n % 2, 1);
        n++;
    }
    expect_begins(r, "GOAWAY 1 ENHANCE_YOUR_CALM");
    cr_expect_geq(n, AG_H2_NOISE_MAX - 20);
    cr_expect_leq(n, AG_H2_NOISE_MAX + 20);
}

/* And a byte at a time buys nothing: neither at once nor held back. */
static void byte_by_byte(struct rig *r)
{
    unsigned n = 0;

    while (memwire_open(&r->w) && n < 4 * AG_H2_NOISE_MAX) {
        say_u32(r, AG_H2_WINDOW_UPDATE, 1, 1);
        n++;
        (void)told(r);
    }
    cr_expect(strstr(r->text, "ENHANCE_YOUR_CALM"));
    cr_expect_leq(n, AG_H2_NOISE_MAX + 100, "%u", n);
}

H2_TEST(h2_crumbs, bytes_of_a_window_at_zero)
{
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 0);
    ask(r, 1, "/open", END);
    keep_writing(&r->works[0]);
    tick(r, 0);
    byte_by_byte(r);
}

H2_TEST(h2_crumbs, bytes_of_a_window_that_was_used_up)
{
    (void)use_up(r, 1);
    byte_by_byte(r);
}
