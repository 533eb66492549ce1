/*
 * Goal: files of certificates are read once and through the opener, and every change of what they hold shows in their
 * signatures, however they are put in their place.
 * Method: a folder whose files are replaced in each of the ways that tools do it; a recorded load replayed.
 */
#include "engine/tls_files.h"

#include "tests/unit/certs.h"

#include <time.h>

#if AG_WOLFSSL

static struct ag_arena arena;
static struct ag_diags diags;
static struct ag_tls_files files;

static void setup(void)
{
    folder_make();
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    ag_tls_files_init(&files, &arena, NULL, &diags);
    certs_self("a", CERTS_P256, "/CN=a", "-addext subjectAltName=DNS:a");
    certs_self("b", CERTS_P256, "/CN=b", "-addext subjectAltName=DNS:b");
}

static void teardown(void)
{
    ag_arena_release(&arena);
    folder_remove();
}

TestSuite(tls_files, .init = setup, .fini = teardown);

static const struct ag_pos nowhere;

Test(tls_files, each_is_read_once)
{
    const struct ag_tls_file *a =
        ag_tls_files_identity(&files, nowhere, folder_at("a.crt"), folder_at("a.key"));

    cr_assert(a && a->identity);
    certs_run("rm a.crt");
    cr_expect(a == ag_tls_files_identity(&files, nowhere, folder_at("a.crt"), folder_at("a.key")));
    cr_expect_null(ag_tls_files_identity(&files, nowhere, folder_at("a.crt"), NULL));
    cr_expect_eq(diags.errors, 1);
    cr_expect_null(ag_tls_files_identity(&files, nowhere, folder_at("a.crt"), NULL));
    cr_expect_eq(diags.errors, 1, "told once");
}

Test(tls_files, keys_that_everybody_may_read)
{
    certs_run("chmod 640 a.key; chmod 644 b.key");
    cr_expect_not(ag_tls_files_identity(&files, nowhere, folder_at("a.crt"), folder_at("a.key"))
                      ->key_is_public);
    cr_expect(ag_tls_files_identity(&files, nowhere, folder_at("b.crt"), folder_at("b.key"))
                  ->key_is_public);
}

Test(tls_files, key_beside)
{
    char path[256];

    (void)snprintf(path, sizeof(path), "%s", folder_at("a.crt"));
    cr_expect_str_eq(ag_tls_files_key_beside(&files, path), folder_at("a.key"));
    certs_run("mv a.crt x.pem");
    cr_expect_str_eq(ag_tls_files_key_beside(&files, folder_at("x.pem")), folder_at("x.pem"));
    cr_expect_str_eq(ag_tls_files_key_beside(&files, folder_at("b.key")), folder_at("b.key"));
}

static uint32_t listed(const char *pattern)
{
    struct ag_span paths;
    uint32_t count = 0;

    if (!ag_tls_files_list(&files, nowhere, folder_at(pattern), &paths)) {
        return 0;
    }
    for (size_t i = 0; i < paths.len; i++) {
        count += paths.ptr[i] == 0;
    }
    return count;
}

Test(tls_files, lists)
{
    folder_put_text("d/one.pem", "");
    folder_put_text("d/two.crt", "");
    folder_put_text("d/two.key", "");
    folder_put_text("d/README", "");
    folder_put_text("e/", "");
    cr_expect(ag_tls_files_is_list(&files, folder_at("d")));
    cr_expect(ag_tls_files_is_list(&files, folder_at("d/*")));
    cr_expect_not(ag_tls_files_is_list(&files, folder_at("a.crt")));
    cr_expect_eq(listed("d"), 2);
    cr_expect_eq(listed("d/*"), 3);
    cr_expect_eq(listed("d/*.pem"), 1);
    cr_expect_eq(listed("e"), 0);
    cr_expect_eq(diags.errors, 1);
}

/* ---- signatures ---- */

static bool changed(const struct ag_tls_file *f)
{
    return ag_tls_file_signature(f) != f->signature;
}

Test(tls_files, signatures_follow_replacement)
{
    static const char *const ways[] = {
        "cp b.crt a.crt.tmp && mv a.crt.tmp a.crt", /* by renaming */
        "sleep 0.02; cat b.crt >a.crt",             /* in place */
        "rm a.crt",
        "cp b.key k && mv k a.key",
        "ln -sf b.crt l && mv l a.crt", /* by a link */
    };

    for (size_t i = 0; i < AG_COUNT(ways); i++) {
        certs_run("openssl req -x509 -newkey %s -nodes -keyout a.key -out a.crt -subj /CN=a",
                  CERTS_P256);
        ag_tls_files_init(&files, &arena, NULL, &diags);
        const struct ag_tls_file *f =
            ag_tls_files_identity(&files, nowhere, folder_at("a.crt"), folder_at("a.key"));
        cr_assert(f);
        cr_expect_not(changed(f), "%s", ways[i]);
        certs_run("%s", ways[i]);
        cr_expect(changed(f), "%s", ways[i]);
    }
}

/* As certbot and Kubernetes do it: the name stays, what it leads to is another. */
Test(tls_files, signatures_see_through_links)
{
    certs_run(
        "mkdir 1 2 && cp a.* 1 && cp b.crt 2/a.crt && cp b.key 2/a.key && ln -s 1 data && ln -s "
        "data/a.crt l.crt && ln -s data/a.key l.key");
    const struct ag_tls_file *f =
        ag_tls_files_identity(&files, nowhere, folder_at("l.crt"), folder_at("l.key"));
    cr_assert(f);
    cr_expect_not(changed(f));
    certs_run("ln -s 2 new && mv -T new data");
    cr_expect(changed(f));
}

Test(tls_files, signatures_of_folders)
{
    struct ag_span paths;
    const struct ag_tls_file *f;

    folder_put_text("d/one.pem", "");
    cr_assert(ag_tls_files_list(&files, nowhere, folder_at("d"), &paths));
    f = files.first;
    cr_assert_eq(f->kind, AG_TLS_FILE_FOLDER);
    cr_expect_not(changed(f));
    folder_put_text("d/two.pem", "");
    cr_expect(changed(f));
}

/* ---- replayed ---- */

Test(tls_files, a_recording_holds_all)
{
    struct ag_opener *recording = ag_opener_record(), *replaying;
    struct ag_tls_files again;
    struct ag_span saved;
    char cert[256], key[256];

    (void)snprintf(cert, sizeof(cert), "%s", folder_at("a.crt"));
    (void)snprintf(key, sizeof(key), "%s", folder_at("a.key"));
    certs_run("chmod 644 a.key");
    ag_tls_files_init(&files, &arena, recording, &diags);
    const struct ag_tls_file *f = ag_tls_files_identity(&files, nowhere, cert, NULL);
    cr_expect_null(f, "no key in it");
    f = ag_tls_files_identity(&files, nowhere, cert, ag_tls_files_key_beside(&files, cert));
    cr_assert(f);
    saved = ag_opener_save(recording, &arena);
    certs_run("rm a.crt a.key");
    replaying = ag_opener_replay(saved, NULL, 0);
    cr_assert(replaying);
    ag_tls_files_init(&again, &arena, replaying, &diags);
    const struct ag_tls_file *g =
        ag_tls_files_identity(&again, nowhere, cert, ag_tls_files_key_beside(&again, cert));
    cr_assert(g && g->key_is_public && g->signature == f->signature);
    cr_expect_arr_eq(g->identity->sha256, f->identity->sha256, 32);
    ag_opener_free(recording);
    ag_opener_free(replaying);
}

Test(tls_files, warnings_of_dates)
{
    const struct ag_tls_file *f =
        ag_tls_files_identity(&files, nowhere, folder_at("a.crt"), folder_at("a.key"));
    static const struct {
        int64_t from_end;
        const char *what;
    } rows[] = {{-31 * 86400, NULL},
                {-29 * 86400, "expires in 29 days"},
                {-86400, "expires in 1 day,"},
                {-5, "expires within a day"},
                {0, "expired on"},
                {-91 * 86400, "not valid before"}};

    certs_run("chmod 600 a.key");
    cr_assert(f);
    ((struct ag_tls_file *)(uintptr_t)f)->key_is_public = false;
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        ag_diags_init(&diags, &arena);
        ag_tls_files_warn(&files, f->identity->not_after_s + rows[i].from_end);
        cr_expect_eq(diags.warnings, rows[i].what != NULL, "%zu", i);
        cr_expect(!rows[i].what || strstr(diags.first->what, rows[i].what), "%zu: %s", i,
                  diags.first ? diags.first->what : "");
    }
}

/* Both in one bundle, and a third that is good. */
Test(tls_files, warnings_of_authorities)
{
    static const char *const whats[] = {"the authority CN=old expired on ",
                                        "the authority CN=young is not valid before ",
                                        "the TLS library does not take the authority CN=k1"};
    const struct ag_diag *d;

    certs_authority_between("old", "40 days ago", "2 days ago");
    certs_authority_between("young", "2 days", "90 days");
    certs_self("k1", "ec -pkeyopt ec_paramgen_curve:secp256k1", "/CN=k1", "");
    certs_self("good", CERTS_P256, "/CN=good", "");
    certs_run("cat old.crt young.crt k1.crt good.crt >all.crt");
    cr_assert(ag_tls_files_ca(&files, nowhere, folder_at("all.crt")));
    ag_tls_files_warn(&files, time(NULL));
    cr_expect_eq(diags.errors, 0);
    cr_assert_eq(diags.warnings, AG_COUNT(whats));
    d = diags.first;
    for (size_t i = 0; i < AG_COUNT(whats); i++, d = d->next) {
        cr_expect(strstr(d->what, whats[i]) && strstr(d->what, "all.crt") && d->hint, "%s",
                  d->what);
    }
}

Test(tls_files, authorities_of_no_use)
{
    certs_authority_between("old", "40 days ago", "2 days ago");
    certs_self("k1", "ec -pkeyopt ec_paramgen_curve:secp256k1", "/CN=k1", "");
    cr_expect(ag_tls_files_ca(&files, nowhere, folder_at("old.crt")));
    cr_expect_null(ag_tls_files_ca(&files, nowhere, folder_at("k1.crt")));
    cr_assert_eq(diags.errors, 1);
    cr_expect(strstr(diags.first->what, "takes no authority of it") && diags.first->hint);
}

#endif
