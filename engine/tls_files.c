#include "engine/tls_files.h"

#include "engine/tls_chain.h"
#include "engine/tls_pem.h"
#include "engine/tls_x509.h"

#include <errno.h>
#include <time.h>

#define FILE_MAX    (4u << 20)
#define EXPIRY_DAYS 30

void ag_tls_files_init(struct ag_tls_files *f, struct ag_arena *arena, struct ag_opener *opener,
                       struct ag_diags *diags)
{
    *f = (struct ag_tls_files){.arena = arena, .opener = opener, .diags = diags};
    f->last = &f->first;
}

static struct ag_tls_file *find(struct ag_tls_files *f, enum ag_tls_file_kind kind,
                                const char *path, const char *key_path)
{
    for (struct ag_tls_file *file = f->first; file; file = file->next) {
        if (file->kind == kind && strcmp(file->path, path) == 0 &&
            strcmp(file->key_path, key_path) == 0) {
            return file;
        }
    }
    return NULL;
}

static struct ag_tls_file *add(struct ag_tls_files *f, enum ag_tls_file_kind kind,
                               struct ag_pos pos, const char *path, const char *key_path)
{
    struct ag_tls_file *file = ag_arena_zalloc(f->arena, sizeof(*file));

    AG_ASSERT(file);
    file->kind = kind;
    file->path = ag_arena_strdup(f->arena, ag_span_str(path));
    file->key_path = ag_arena_strdup(f->arena, ag_span_str(key_path));
    file->pos = pos;
    *f->last = file;
    f->last = &file->next;
    return file;
}

/* ---- signatures ---- */

static uint64_t mix(uint64_t h, uint64_t value)
{
    h = (h ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static uint64_t mix_answer(uint64_t h, const struct ag_answer *a)
{
    if (a->error) {
        return mix(h, UINT64_MAX); /* why it cannot be had makes no difference */
    }
    return mix(mix(mix(h, a->device), a->inode), (uint64_t)a->mtime_ns);
}

static uint64_t mix_list(const struct ag_answer *a)
{
    uint64_t h = 1;

    for (size_t i = 0; i < a->text.len; i++) {
        h = mix(h, a->text.ptr[i]);
    }
    return h;
}

uint64_t ag_tls_file_signature(const struct ag_tls_file *file)
{
    struct ag_answer a;
    struct ag_arena arena;
    uint64_t h;

    if (file->kind == AG_TLS_FILE_FOLDER) {
        ag_arena_init(&arena, NULL, 0);
        ag_opener_glob(NULL, &arena, file->key_path, &a);
        h = mix_list(&a);
        ag_arena_release(&arena);
        return h;
    }
    ag_opener_look(NULL, file->path, &a);
    h = mix_answer(0, &a);
    if (file->kind == AG_TLS_FILE_IDENTITY) {
        ag_opener_look(NULL, file->key_path, &a);
        h = mix_answer(h, &a);
    }
    return h;
}

void ag_tls_files_copy(const struct ag_tls_files *f, struct ag_arena *arena,
                       struct ag_tls_files *out)
{
    ag_tls_files_init(out, arena, NULL, NULL);
    for (const struct ag_tls_file *file = f->first; file; file = file->next) {
        add(out, file->kind, (struct ag_pos){0}, file->path, file->key_path)->signature =
            file->signature;
    }
}

/* ---- one file ---- */

static bool read_file(struct ag_tls_files *f, struct ag_pos pos, const char *path,
                      struct ag_answer *out)
{
    ag_opener_file(f->opener, f->arena, path, FILE_MAX, out);
    if (out->error) {
        ag_diag_error(f->diags, pos,
                      out->error == EACCES ? "who starts the server must be able to read it" : NULL,
                      "cannot read %s: %s", path, strerrordesc_np(out->error));
        return false;
    }
    if (out->kind != AG_FILE_REGULAR) {
        ag_diag_error(f->diags, pos, NULL, "%s is not a file", path);
        return false;
    }
    return true;
}

/* What to do about a cause, or NULL. */
static const char *hint_for(const char *why)
{
    static const struct {
        const char *part, *hint;
    } known[] = {
        {"encrypted", "openssl pkey -in KEY -out PLAIN removes the password"},
        {"not the certificate's", "cert and key must be of one pair"},
        {"no private key", "name its file by key:"},
        {"no certificate", "a PEM file has a line -----BEGIN CERTIFICATE-----"},
        {"takes no authority", "keys of RSA from 2048 to 4096 bits, P-256, P-384, P-521, Ed25519"},
        {"out of order", "the server's own certificate goes first, then each one's issuer"},
        {"without TLS", "make WOLFSSL=source builds one with it"},
    };

    for (size_t i = 0; i < AG_COUNT(known); i++) {
        if (strstr(why, known[i].part)) {
            return known[i].hint;
        }
    }
    return NULL;
}

/* What is kept of a key is in its identity alone. */
static void wipe(struct ag_span text)
{
    explicit_bzero((void *)(uintptr_t)text.ptr, text.len);
}

static void read_identity(struct ag_tls_files *f, struct ag_tls_file *file, struct ag_pos key_pos)
{
    struct ag_answer chain, key;
    struct ag_tls_identity *id;
    const char *why = "";

    bool have_chain = read_file(f, file->pos, file->path, &chain);

    if (!have_chain || !read_file(f, key_pos, file->key_path, &key)) {
        return;
    }
    file->signature = mix_answer(mix_answer(0, &chain), &key);
    file->key_is_public = key.mode & 04;
    enum ag_status st = ag_tls_identity_read(f->arena, chain.text, key.text, &id, &why);

    wipe(chain.text);
    wipe(key.text);
    if (st != AG_OK) {
        bool one = strcmp(file->path, file->key_path) == 0;

        ag_diag_error(f->diags, file->pos, hint_for(why), "%s%s%s: %s", file->path,
                      one ? "" : " with ", one ? "" : file->key_path, why);
        return;
    }
    file->identity = id;
}

const struct ag_tls_file *ag_tls_files_pair(struct ag_tls_files *f, struct ag_pos pos,
                                            const char *path, struct ag_pos key_pos,
                                            const char *key_path)
{
    struct ag_tls_file *file = find(f, AG_TLS_FILE_IDENTITY, path, key_path);

    if (!file) {
        file = add(f, AG_TLS_FILE_IDENTITY, pos, path, key_path);
        read_identity(f, file, key_pos);
    }
    return file->identity ? file : NULL;
}

const struct ag_tls_file *ag_tls_files_identity(struct ag_tls_files *f, struct ag_pos pos,
                                                const char *path, const char *key_path)
{
    return ag_tls_files_pair(f, pos, path, pos, key_path ? key_path : path);
}

static const struct ag_tls_file *read_authorities(struct ag_tls_files *f, struct ag_pos pos,
                                                  const char *path, bool is_system)
{
    struct ag_tls_file *file = find(f, AG_TLS_FILE_CA, path, "");
    const char *why = "";
    struct ag_answer a;

    if (!file) {
        file = add(f, AG_TLS_FILE_CA, pos, path, "");
        file->is_system = is_system;
        if (!read_file(f, pos, path, &a)) {
            return NULL;
        }
        file->signature = mix_answer(0, &a);
        if (ag_tls_authorities_check(f->arena, a.text, &file->authority_count, &why) != AG_OK) {
            ag_diag_error(f->diags, pos, hint_for(why), "%s: %s", path, why);
        } else {
            file->ca = a.text;
        }
    }
    return file->ca.len ? file : NULL;
}

const struct ag_tls_file *ag_tls_files_ca(struct ag_tls_files *f, struct ag_pos pos,
                                          const char *path)
{
    return read_authorities(f, pos, path, false);
}

const struct ag_tls_file *ag_tls_files_system_ca(struct ag_tls_files *f, struct ag_pos pos)
{
    /* Debian and those after it, Fedora and those after it, openSUSE, Alpine. */
    static const char *const places[] = {"/etc/ssl/certs/ca-certificates.crt",
                                         "/etc/pki/tls/certs/ca-bundle.crt",
                                         "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
                                         "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};
    struct ag_answer a;

    for (size_t i = 0; i < AG_COUNT(places); i++) {
        ag_opener_look(f->opener, places[i], &a);
        if (a.error == 0 && a.kind == AG_FILE_REGULAR) {
            return read_authorities(f, pos, places[i], true);
        }
    }
    ag_diag_error(f->diags, pos, "install ca-certificates, or name a file by tls: {ca: FILE}",
                  "the system has no store of authorities to verify servers by");
    return NULL;
}

bool ag_tls_files_text(struct ag_tls_files *f, struct ag_pos pos, const char *path,
                       struct ag_span *out_text)
{
    struct ag_tls_file *file = add(f, AG_TLS_FILE_TEXT, pos, path, "");
    struct ag_answer a;

    if (!read_file(f, pos, path, &a)) {
        return false;
    }
    file->signature = mix_answer(0, &a);
    *out_text = a.text;
    return true;
}

/* ---- several ---- */

static bool is_pattern(const char *path)
{
    return path[strcspn(path, "*?[")] != '\0';
}

bool ag_tls_files_is_list(struct ag_tls_files *f, const char *path)
{
    struct ag_answer a;

    if (is_pattern(path)) {
        return true;
    }
    ag_opener_look(f->opener, path, &a);
    return a.error == 0 && a.kind == AG_FILE_DIR;
}

static bool ends_with(struct ag_span s, const char *end)
{
    size_t len = strlen(end);

    return s.len > len && memcmp(s.ptr + s.len - len, end, len) == 0;
}

static bool is_wanted(struct ag_span path, bool all)
{
    if (ends_with(path, ".key")) {
        return false;
    }
    return all || ends_with(path, ".pem") || ends_with(path, ".crt");
}

/* The part of a pattern before its first special character's name: what is to be watched. */
static const char *folder_of(struct ag_tls_files *f, const char *pattern)
{
    size_t len = strcspn(pattern, "*?[");

    while (len > 0 && pattern[len - 1] != '/') {
        len--;
    }
    return len > 0 ? ag_arena_strdup(f->arena, ag_span(pattern, len)) : ".";
}

bool ag_tls_files_list(struct ag_tls_files *f, struct ag_pos pos, const char *pattern,
                       struct ag_span *out_paths)
{
    bool all = is_pattern(pattern);
    const char *folder = all ? folder_of(f, pattern) : pattern;
    const char *glob = all ? pattern : ag_arena_printf(f->arena, "%s/*", pattern);
    struct ag_answer a;
    struct ag_buf b;

    ag_opener_glob(f->opener, f->arena, glob, &a);
    if (!find(f, AG_TLS_FILE_FOLDER, folder, glob)) {
        add(f, AG_TLS_FILE_FOLDER, pos, folder, glob)->signature = mix_list(&a);
    }
    if (a.error) {
        ag_diag_error(f->diags, pos, NULL, "cannot look for %s: %s", pattern,
                      strerrordesc_np(a.error));
        return false;
    }
    b = ag_buf(ag_arena_alloc(f->arena, a.text.len + 1), a.text.len);
    for (size_t at = 0; at < a.text.len;) {
        struct ag_span path = ag_span_str((const char *)a.text.ptr + at);

        if (is_wanted(path, all)) {
            ag_buf_put(&b, ag_span(path.ptr, path.len + 1));
        }
        at += path.len + 1;
    }
    if (b.len == 0) {
        ag_diag_error(f->diags, pos, "in a folder they end in .pem or .crt",
                      "there is no certificate at %s", pattern);
        return false;
    }
    *out_paths = ag_buf_span(&b);
    return true;
}

const char *ag_tls_files_key_beside(struct ag_tls_files *f, const char *path)
{
    struct ag_span s = ag_span_str(path);
    const char *key;
    struct ag_answer a;

    if (!ends_with(s, ".crt") && !ends_with(s, ".pem")) {
        return path;
    }
    key = ag_arena_printf(f->arena, "%.*s.key", (int)s.len - 4, path);
    ag_opener_look(f->opener, key, &a);
    return a.error == 0 ? key : path;
}

void ag_tls_files_wipe(struct ag_tls_files *f)
{
    for (const struct ag_tls_file *file = f->first; file; file = file->next) {
        if (file->identity) {
            wipe(file->identity->key_pem);
        }
    }
}

/* ---- warnings ---- */

void ag_tls_put_date(int64_t s, struct ag_buf *out)
{
    time_t at = (time_t)s;
    struct tm tm;
    char text[16];

    if (gmtime_r(&at, &tm) && strftime(text, sizeof(text), "%Y-%m-%d", &tm) > 0) {
        ag_buf_put(out, ag_span_str(text));
    }
}

struct period {
    const char *what; /* "certificate" */
    int64_t from_s, to_s;
    const char *over; /* what to do once it is over */
};

static void warn_dates(const struct ag_tls_files *f, const struct ag_tls_file *file,
                       const struct period *p, int64_t now_s)
{
    char text[16];
    struct ag_buf date = ag_buf(text, sizeof(text));

    if (p->to_s <= now_s) {
        ag_tls_put_date(p->to_s, &date);
        ag_diag_warn(f->diags, file->pos, p->over, "%s: the %s expired on %.*s", file->path,
                     p->what, (int)date.len, text);
    } else if (p->from_s > now_s) {
        ag_tls_put_date(p->from_s, &date);
        ag_diag_warn(f->diags, file->pos, "is this machine's clock right?",
                     "%s: the %s is not valid before %.*s", file->path, p->what, (int)date.len,
                     text);
    } else if (p->to_s - now_s < (int64_t)EXPIRY_DAYS * 86400) {
        unsigned days = (unsigned)((p->to_s - now_s) / 86400);
        const char *when = days == 0   ? "within a day"
                           : days == 1 ? "in 1 day"
                                       : ag_arena_printf(f->arena, "in %u days", days);

        ag_tls_put_date(p->to_s, &date);
        ag_diag_warn(f->diags, file->pos, "renew it", "%s: the %s expires %s, on %.*s", file->path,
                     p->what, when, (int)date.len, text);
    }
}

static void warn_authority(const struct ag_tls_files *f, const struct ag_tls_file *file,
                           struct ag_span der, int64_t now_s)
{
    uint8_t room[256];
    struct ag_buf name = ag_buf(room, sizeof(room));
    struct ag_x509 x;
    const char *what;

    if (!ag_x509_parse(der, &x)) {
        return; /* was told */
    }
    ag_x509_put_name(x.subject, &name);
    what = ag_arena_printf(f->arena, "%s %.*s", x.is_ca ? "authority" : "certificate",
                           (int)name.len, (const char *)room);
    warn_dates(f, file,
               &(struct period){what, x.not_before_s, x.not_after_s,
                                "replace it: nobody is believed by its word"},
               now_s);
    if (!ag_tls_authority_is_usable(der)) {
        ag_diag_warn(f->diags, file->pos, "take it out: nobody is believed by its word",
                     "%s: the TLS library does not take the %s", file->path, what);
    }
}

static void warn_authorities(const struct ag_tls_files *f, const struct ag_tls_file *file,
                             int64_t now_s)
{
    struct ag_span text = file->ca, der;
    struct ag_pem block;

    while (ag_pem_next(&text, &block) == AG_OK) {
        if (ag_span_eq(block.label, AG_SPAN("CERTIFICATE")) &&
            ag_pem_decode(&block, f->arena, &der) == AG_OK) {
            warn_authority(f, file, der, now_s);
        }
    }
}

void ag_tls_files_warn(const struct ag_tls_files *f, int64_t now_s)
{
    for (const struct ag_tls_file *file = f->first; file; file = file->next) {
        const struct ag_tls_identity *id = file->identity;

        if (file->kind == AG_TLS_FILE_CA && !file->is_system) {
            warn_authorities(f, file, now_s);
        }
        if (!id) {
            continue;
        }
        warn_dates(f, file,
                   &(struct period){"certificate", id->not_before_s, id->not_after_s,
                                    "renew it: clients refuse it"},
                   now_s);
        if (file->key_is_public) {
            const char *hint = ag_arena_printf(f->arena, "chmod o-rwx %s", file->key_path);

            ag_diag_warn(f->diags, file->pos, hint,
                         "everybody on this machine can read the private key %s", file->key_path);
        }
    }
}
