/* certs: certificates made by the openssl command in a folder of the test's own (folder.h). */
#pragma once
#include "engine/arena.h"
#include "tests/unit/folder.h"

#include <stdarg.h>
#include <stdlib.h>

/* Runs a command in the folder; it must work. */
AG_PRINTF(1, 2) static inline void certs_run(const char *fmt, ...)
{
    char command[2048];
    va_list args;
    int len = snprintf(command, sizeof(command), "cd %s && (", folder);

    va_start(args, fmt);
    len += vsnprintf(command + len, sizeof(command) - (size_t)len, fmt, args);
    va_end(args);
    (void)snprintf(command + len, sizeof(command) - (size_t)len, ") >/dev/null 2>log");
    cr_assert_eq(system(command), 0, "%s", command); // NOLINT
}

/* `key`: what follows -newkey: "rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256", "ed25519". Makes NAME.crt,
 * self-signed, and NAME.key. `more`: further options. */
static inline void certs_self(const char *name, const char *key, const char *subject,
                              const char *more)
{
    certs_run(
        "openssl req -x509 -newkey %s -nodes -keyout %s.key -out %s.crt -subj '%s' -days 90 %s",
        key, name, name, subject, more);
}

/* NAME.crt and NAME.key, signed by SIGNER.crt; `ext`: its extensions, a line each. */
static inline void certs_signed(const char *name, const char *key, const char *subject,
                                const char *signer, const char *ext)
{
    char file[80];

    (void)snprintf(file, sizeof(file), "%s.ext", name);
    folder_put_text(file, ext);
    certs_run("openssl req -newkey %s -nodes -keyout %s.key -out %s.csr -subj '%s' && openssl x509 "
              "-req -in %s.csr -CA %s.crt -CAkey %s.key -CAcreateserial -days 90 -extfile %s.ext "
              "-out %s.crt",
              key, name, name, subject, name, signer, signer, name, name);
}

/* A file of the folder, in `arena`. */
static inline struct ag_span certs_read(struct ag_arena *arena, const char *name)
{
    FILE *f = fopen(folder_at(name), "re");
    struct ag_buf b = ag_buf(ag_arena_alloc(arena, 65536), 65536);

    cr_assert(f && b.ptr, "%s", name);
    b.len = fread(b.ptr, 1, b.cap, f);
    (void)fclose(f);
    return ag_buf_span(&b);
}

/* NAME.crt and NAME.key, self-signed, an authority, valid between two days as `date` understands them. */
static inline void certs_authority_between(const char *name, const char *from, const char *to)
{
    certs_run("printf 'basicConstraints=critical,CA:TRUE\\n' >%s.ext && : >index.txt && "
              "echo 01 >serial && printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index.txt\\n"
              "serial=serial\\nnew_certs_dir=.\\ndefault_md=sha256\\npolicy=p\\n[p]\\n"
              "commonName=supplied\\n' >ca.cnf && openssl req -newkey ec -pkeyopt "
              "ec_paramgen_curve:P-256 -nodes -keyout %s.key -out %s.csr -subj /CN=%s && "
              "openssl ca -batch -notext -config ca.cnf -selfsign -keyfile %s.key -in %s.csr -out "
              "%s.crt -extfile %s.ext -startdate $(date -u -d '%s' +%%Y%%m%%d%%H%%M%%SZ) "
              "-enddate $(date -u -d '%s' +%%Y%%m%%d%%H%%M%%SZ)",
              name, name, name, name, name, name, name, name, from, to);
}

#define CERTS_P256 "ec -pkeyopt ec_paramgen_curve:P-256"
