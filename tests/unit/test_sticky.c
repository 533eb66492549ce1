/*
 * Goal: a cookie of ours is found and says who was meant until it expires; any other says nothing.
 * Method: what was written is read back, and then changed in each bit, in its age, upstream, key and place.
 */
#include "actions/upstream/sticky.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define UPSTREAM 77u
#define SERVER   UINT64_C(0x0123456789abcdef)
#define NOW      UINT64_C(1800000000)

static struct ag_arena arena;
static struct ag_fields fields;
static struct ag_sticky_options options;

static void setup(void)
{
    ag_arena_init(&arena, NULL, 0);
    fields = (struct ag_fields){0};
    options = (struct ag_sticky_options){
        .name = AG_SPAN("sid"), .path = AG_SPAN("/"), .max_age_s = 3600, .http_only = true};
    ag_siphash_derive(AG_SPAN("a secret of the test"), AG_SPAN("sticky"), options.key);
}

static void teardown(void)
{
    ag_arena_release(&arena);
}

TestSuite(sticky, .init = setup, .fini = teardown);

static const char *written(bool tls)
{
    static char room[AG_STICKY_FIELD_MAX + 1];
    struct ag_buf b = ag_buf(room, AG_STICKY_FIELD_MAX);

    ag_sticky_write(&options, UPSTREAM, SERVER, NOW, tls, &b);
    cr_assert(!b.overflow);
    room[b.len] = 0;
    return room;
}

/* The "sid=..." of it. */
static char *cookie(void)
{
    static char room[64];

    (void)snprintf(room, sizeof(room), "%.*s", (int)strcspn(written(false), ";"), written(false));
    return room;
}

static void add(const char *value)
{
    cr_assert_eq(ag_fields_add_id(&fields, &arena, AG_FIELD_COOKIE,
                                  ag_arena_copy(&arena, ag_span_str(value))),
                 AG_OK);
}

static enum ag_sticky_state read_at(uint64_t now_s)
{
    uint64_t identity = 0;
    enum ag_sticky_state state = ag_sticky_read(&options, &fields, UPSTREAM, now_s, &identity);

    cr_assert_eq(identity, state == AG_STICKY_NONE ? 0 : SERVER);
    return state;
}

static enum ag_sticky_state read_one(const char *value, uint64_t now_s)
{
    fields.count = 0;
    add(value);
    return read_at(now_s);
}

Test(sticky, the_field_as_browsers_want_it)
{
    const char *w = written(false);

    cr_assert(strncmp(w, "sid=", 4) == 0 && strcspn(w, ";") == 4 + 43, "%s", w);
    cr_assert_str_eq(strchr(w, ';'), "; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
    w = written(true);
    cr_assert_str_eq(strchr(w, ';'), "; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax");
    options.secure = AG_STICKY_SECURE_OFF;
    options.http_only = false;
    options.max_age_s = 0;
    options.same_site = AG_STICKY_SAME_SITE_STRICT;
    w = written(true);
    cr_assert_str_eq(strchr(w, ';'), "; Path=/; SameSite=Strict");
    options.secure = AG_STICKY_SECURE_ON;
    options.same_site = AG_STICKY_SAME_SITE_NONE;
    w = written(false);
    cr_assert_str_eq(strchr(w, ';'), "; Path=/; Secure; SameSite=None");
}

/* Cookies outlive upgrades. */
Test(sticky, the_same_in_all_versions)
{
    cr_assert_str_eq(cookie(), "sid=ASNFZ4mrze8AAAAAa0ngED-ZFtehXKkuvvN0RP5l6ug");
}

Test(sticky, the_longest_fits)
{
    static char name[AG_STICKY_NAME_MAX + 1], path[AG_STICKY_PATH_MAX + 1];

    memset(name, 'n', AG_STICKY_NAME_MAX);
    memset(path, '/', AG_STICKY_PATH_MAX);
    options.name = ag_span_str(name);
    options.path = ag_span_str(path);
    options.max_age_s = UINT32_MAX;
    options.same_site = AG_STICKY_SAME_SITE_STRICT;
    cr_assert(strstr(written(true), "SameSite=Strict"));
}

Test(sticky, what_was_written_is_read)
{
    cr_assert_eq(read_at(NOW), AG_STICKY_NONE);
    cr_assert_eq(read_one(cookie(), NOW), AG_STICKY_KNOWN);
    cr_assert_eq(read_one(cookie(), NOW + 1800), AG_STICKY_KNOWN);
    cr_assert_eq(read_one(cookie(), NOW + 1801), AG_STICKY_AGEING);
}

Test(sticky, an_expired_one_says_nothing)
{
    cr_assert_eq(read_one(cookie(), NOW + 3599), AG_STICKY_AGEING);
    cr_assert_eq(read_one(cookie(), NOW + 3600), AG_STICKY_NONE);
    cr_assert_eq(read_one(cookie(), NOW + 1000000), AG_STICKY_NONE);
}

Test(sticky, one_without_an_age_holds)
{
    options.max_age_s = 0;
    cr_assert_eq(read_one(cookie(), NOW + 100000000), AG_STICKY_KNOWN);
    options.max_age_s = 60;
    cr_assert_eq(read_at(NOW), AG_STICKY_AGEING, "it gets an age");
}

Test(sticky, a_forged_one_says_nothing)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char *c = cookie();

    for (size_t at = 4; c[at]; at++) {
        char was = c[at];

        for (size_t i = 0; alphabet[i]; i++) {
            c[at] = alphabet[i];
            cr_assert_eq(read_one(c, NOW), alphabet[i] == was ? AG_STICKY_KNOWN : AG_STICKY_NONE,
                         "%s", c);
        }
        c[at] = was;
    }
}

Test(sticky, what_is_none_at_all)
{
    static const char *const others[] = {
        "sid=",
        "sid",
        "sid=a",
        "sid=\"\"",
        "",
        ";;;",
        "=; =",
        "sid=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", /* 32 bytes of zeros */
        "sid=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "sid=!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"};
    char longer[72], *c = cookie();

    for (size_t i = 0; i < AG_COUNT(others); i++) {
        cr_assert_eq(read_one(others[i], NOW), AG_STICKY_NONE, "%s", others[i]);
    }
    (void)snprintf(longer, sizeof(longer), "%sA", c);
    cr_assert_eq(read_one(longer, NOW), AG_STICKY_NONE);
    c[strlen(c) - 1] = 0;
    cr_assert_eq(read_one(c, NOW), AG_STICKY_NONE);
}

Test(sticky, one_of_another_upstream_or_key_says_nothing)
{
    uint64_t identity = 0;

    add(cookie());
    cr_assert_eq(ag_sticky_read(&options, &fields, UPSTREAM + 1, NOW, &identity), AG_STICKY_NONE);
    options.key[0] ^= 1;
    cr_assert_eq(ag_sticky_read(&options, &fields, UPSTREAM, NOW, &identity), AG_STICKY_NONE);
    cr_assert_eq(identity, 0);
}

Test(sticky, it_is_found_among_others)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "a=1; %s; b=2", cookie());
    cr_assert_eq(read_one(text, NOW), AG_STICKY_KNOWN);
    (void)snprintf(text, sizeof(text), "sid=old; sid=older;%s", cookie());
    cr_assert_eq(read_one(text, NOW), AG_STICKY_KNOWN);
    fields.count = 0;
    add("a=1");
    add("sid=other");
    add(cookie());
    add("b=2");
    cr_assert_eq(read_at(NOW), AG_STICKY_KNOWN, "a field for each, as HTTP/2 may have it");
    (void)snprintf(text, sizeof(text), "sid=1; sid=2; sid=3; sid=4; %s", cookie());
    cr_assert_eq(read_one(text, NOW), AG_STICKY_NONE, "not all of a crowd are checked");
    (void)snprintf(text, sizeof(text), "Sid%s; xsid%s", cookie() + 3, cookie() + 3);
    cr_assert_eq(read_one(text, NOW), AG_STICKY_NONE);
}
