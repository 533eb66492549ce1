/*
 * Goal: which names an authority's constraints let pass is what RFC 5280 section 4.2.1.10 says, and what cannot be
 * told is refused.
 * Method: a table of constraints and names as the openssl command writes them; broken bytes at every place.
 */
#include "engine/tls_constraints.h"

#include "engine/tls_pem.h"
#include "tests/unit/certs.h"

#define DENIED  "name not permitted by its authority"
#define UNCLEAR "name constraint of its authority not understood"

static struct ag_arena arena;

static void setup(void)
{
    folder_make();
    ag_arena_init(&arena, NULL, 0);
    certs_run("openssl ecparam -name prime256v1 -genkey -noout -out key");
}

static void teardown(void)
{
    ag_arena_release(&arena);
    folder_remove();
}

TestSuite(tls_constraints, .init = setup, .fini = teardown);

/* A certificate with that subject and, unless it is "", that extension. */
static struct ag_x509 made(const char *subject, const char *ext)
{
    struct ag_span text, der = {0};
    struct ag_pem pem;
    struct ag_x509 x;

    folder_put_text("cnf", ag_arena_printf(&arena,
                                           "[req]\ndistinguished_name=d\n[d]\n[x]\n%s\n"
                                           "[dir]\nO=Org\n[dir2]\nO=Other\n",
                                           ext));
    certs_run("openssl req -x509 -config cnf -extensions x -key key -utf8 -subj '%s' -out crt",
              subject);
    text = certs_read(&arena, "crt");
    cr_assert_eq(ag_pem_next(&text, &pem), AG_OK);
    cr_assert_eq(ag_pem_decode(&pem, &arena, &der), AG_OK);
    cr_assert(ag_x509_parse(der, &x));
    return x;
}

static struct ag_x509 authority(const char *constraints)
{
    return made("/CN=ca",
                ag_arena_printf(&arena, "basicConstraints=critical,CA:TRUE\n%s%s",
                                *constraints ? "nameConstraints=critical," : "", constraints));
}

static struct ag_x509 leaf(const char *subject, const char *names)
{
    return made(subject, ag_arena_printf(&arena, "%s%s", *names ? "subjectAltName=" : "", names));
}

static void expect(const struct ag_x509 *ca, const char *subject, const char *names,
                   const char *want)
{
    struct ag_x509 x = leaf(subject, names);
    const char *why = ag_tls_constraints_judge(ca->constraints, &x);

    cr_expect((!why && !want) || (why && want && strcmp(why, want) == 0), "%s %s: %s, not %s",
              subject, names, why ? why : "good", want ? want : "good");
}

struct row {
    const char *subject, *names, *want;
};

#define EXPECT_ALL(constraints, ...)                                   \
    do {                                                               \
        static const struct row rows[] = {__VA_ARGS__};                \
        struct ag_x509 ca = authority(constraints);                    \
        for (size_t i = 0; i < AG_COUNT(rows); i++) {                  \
            expect(&ca, rows[i].subject, rows[i].names, rows[i].want); \
        }                                                              \
    } while (0)

Test(tls_constraints, none)
{
    EXPECT_ALL("", {"/CN=a", "DNS:a.test,URI:http://a/", NULL});
}

Test(tls_constraints, hosts)
{
    EXPECT_ALL("permitted;DNS:corp.test,permitted;DNS:.sub.test,excluded;DNS:secret.corp.test",
               {"/CN=a", "DNS:corp.test", NULL}, {"/CN=a", "DNS:A.Corp.Test", NULL},
               {"/CN=a", "DNS:a.b.corp.test", NULL}, {"/CN=a", "DNS:evilcorp.test", DENIED},
               {"/CN=a", "DNS:test", DENIED}, {"/CN=a", "DNS:corp.test.evil", DENIED},
               {"/CN=a", "DNS:a.corp.test,DNS:evil.test", DENIED},
               {"/CN=a", "DNS:secret.corp.test", DENIED},
               {"/CN=a", "DNS:a.Secret.corp.test", DENIED},
               {"/CN=a", "DNS:topsecret.corp.test", NULL}, {"/CN=a", "DNS:*.corp.test", DENIED},
               {"/CN=a", "DNS:*.a.corp.test", NULL}, {"/CN=a", "DNS:*.test", DENIED},
               {"/CN=a", "DNS:a.sub.test", NULL}, {"/CN=a", "DNS:sub.test", DENIED},
               {"/CN=a", "DNS:asub.test", DENIED}, {"/CN=a", "IP:1.2.3.4,URI:http://a/", NULL},
               {"/CN=evil.test", "", NULL}, {"/CN=evil.test", "DNS:corp.test", NULL});
}

Test(tls_constraints, addresses)
{
    EXPECT_ALL("permitted;IP:10.0.0.0/255.0.0.0,excluded;IP:10.1.0.0/255.255.0.0",
               {"/CN=a", "IP:10.2.3.4", NULL}, {"/CN=a", "IP:11.2.3.4", DENIED},
               {"/CN=a", "IP:10.1.3.4", DENIED}, {"/CN=a", "IP:::1", DENIED},
               {"/CN=a", "DNS:11.2.3.4", NULL});
    EXPECT_ALL("permitted;IP:2001:db8:0:0:0:0:0:0/ffff:ffff:0:0:0:0:0:0",
               {"/CN=a", "IP:2001:db8:1::1", NULL}, {"/CN=a", "IP:2001:db9::1", DENIED},
               {"/CN=a", "IP:10.2.3.4", DENIED});
}

Test(tls_constraints, mailboxes)
{
    EXPECT_ALL("permitted;email:a@one.test,permitted;email:two.test,permitted;email:.three.test",
               {"/CN=a", "email:a@one.test", NULL}, {"/CN=a", "email:b@one.test", DENIED},
               {"/CN=a", "email:x@two.test", NULL}, {"/CN=a", "email:x@a.two.test", DENIED},
               {"/CN=a", "email:x@a.three.test", NULL}, {"/CN=a", "email:x@three.test", DENIED},
               {"/CN=a", "email:x@evil@two.test", UNCLEAR},
               {"/CN=a/emailAddress=x@two.test", "", NULL},
               {"/CN=a/emailAddress=x@evil.test", "email:x@two.test", DENIED});
}

Test(tls_constraints, directories)
{
    EXPECT_ALL("permitted;dirName:dir", {"/O=Org", "", NULL}, {"/O=ORG/CN=a", "DNS:any.test", NULL},
               {"/O= o R g /CN=a", "", DENIED}, {"/O=  org /CN=a", "", NULL},
               {"/CN=a/O=Org", "", DENIED}, {"/CN=a", "", DENIED}, {"/", "DNS:a.test", NULL},
               {"/O=Orga", "", DENIED}, {"/O=Örg", "", UNCLEAR}, {"/O=Org+CN=a", "", UNCLEAR},
               {"/O=Org/CN=a", "dirName:dir2", DENIED}, {"/O=Org/CN=a", "dirName:dir", NULL});
    EXPECT_ALL("excluded;dirName:dir", {"/O=org/CN=a", "", DENIED}, {"/CN=a", "", NULL},
               {"/O=Org+CN=a", "", UNCLEAR}, {"/O=Other", "dirName:dir", DENIED});
    EXPECT_ALL("permitted;dirName:dir,permitted;dirName:dir2", {"/O=Other/CN=a", "", NULL},
               {"/O=Org/CN=a", "", NULL}, {"/O=More/CN=a", "", DENIED});
}

/* Only where there is a name of that form. */
Test(tls_constraints, forms_that_are_not_known)
{
    EXPECT_ALL("permitted;URI:corp.test", {"/CN=a", "DNS:a.test", NULL},
               {"/CN=a", "DNS:a.test,URI:http://corp.test/", UNCLEAR});
    EXPECT_ALL("excluded;RID:1.2.3.4", {"/CN=a", "RID:1.2.3.5", UNCLEAR});
}

/* Made by hand, for no tool writes them. */
Test(tls_constraints, odd_ones)
{
    static const struct {
        struct ag_span constraints;
        const char *want;
    } rows[] = {
        {AG_SPAN_INIT("\xa0\x04\x30\x02\x82\x00"), NULL}, /* every name, or none */
        {AG_SPAN_INIT("\xa1\x04\x30\x02\x82\x00"), DENIED},
        {AG_SPAN_INIT("\xa0\x07\x30\x05\x82\x00\x80\x01\x01"), UNCLEAR}, /* a minimum */
        {AG_SPAN_INIT("\xa0\x04\x30\x02\x87\x00"), NULL},                /* no name has its form */
        {AG_SPAN_INIT("\xa0\x02\x30\x00"), UNCLEAR},
        {AG_SPAN_INIT("\xa0\x01\x30"), UNCLEAR},
        {AG_SPAN_INIT("\xa2\x00"), UNCLEAR},
    };
    struct ag_x509 x = leaf("/", "DNS:a.test");

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const char *why = ag_tls_constraints_judge(rows[i].constraints, &x);
        cr_expect((!why && !rows[i].want) || (why && rows[i].want && !strcmp(why, rows[i].want)),
                  "%zu: %s", i, why ? why : "good");
    }
}

/* Each byte changed, of either certificate: never more than an answer. */
Test(tls_constraints, broken_bytes_are_survived)
{
    struct ag_x509 ca = authority("permitted;DNS:corp.test,permitted;dirName:dir,"
                                  "permitted;email:a@b.test,excluded;IP:1.2.3.4/255.255.255.0");
    struct ag_x509 x = leaf("/O=Org/CN=a/emailAddress=a@b.test",
                            "DNS:corp.test,email:a@b.test,IP:1.2.4.4,dirName:dir");
    struct ag_x509 *both[] = {&ca, &x};

    cr_expect_null(ag_tls_constraints_judge(ca.constraints, &x));
    for (size_t i = 0; i < 2; i++) {
        for (size_t at = 0; at < both[i]->der.len; at++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                uint8_t *copy = malloc(both[i]->der.len);
                struct ag_x509 broken;

                memcpy(copy, both[i]->der.ptr, both[i]->der.len);
                copy[at] ^= (uint8_t)(1u << bit);
                if (ag_x509_parse(ag_span(copy, both[i]->der.len), &broken)) {
                    (void)!ag_tls_constraints_judge(i == 0 ? broken.constraints : ca.constraints,
                                                    i == 0 ? &x : &broken);
                }
                free(copy);
            }
        }
    }
}
