/*
 * tls_files: files of certificates, keys and authorities as a configuration names them: each read once a load,
 * and remembered, so that who watches over them knows which ones there are.
 *
 *   path(s) --opener--> text --tls_cert--> identity | authorities
 *
 * Mistakes are diagnoses at the place that names the file.
 */
#pragma once
#include "engine/node.h"
#include "engine/opener.h"
#include "engine/tls_cert.h"

enum ag_tls_file_kind {
    AG_TLS_FILE_IDENTITY, /* a certificate and its key */
    AG_TLS_FILE_CA,       /* authorities */
    AG_TLS_FILE_FOLDER,   /* where certificates are looked for */
    AG_TLS_FILE_TEXT, /* something else that a configuration is made of, and a change of which is one of it */
};

/* One that was asked for; the same question has the same answer. */
struct ag_tls_file {
    struct ag_tls_file *next; /* in the order of asking */
    enum ag_tls_file_kind kind;
    const char *path;
    const char *
        key_path; /* of an identity; `path` itself where one file holds both. Of FOLDER: the pattern */
    uint64_t signature; /* tells its states apart: inodes and times, of FOLDER the list */
    struct ag_pos pos;  /* where it was named first */
    bool key_is_public; /* anybody on this machine may read the key */
    /* Of IDENTITY and CA; NULL and empty: it has mistakes, which were told. */
    const struct ag_tls_identity *identity;
    struct ag_span ca;
    uint32_t authority_count; /* of CA: among its certificates */
    bool is_system; /* of CA: it is the system's; nobody is told what is wrong with one of it */
};

/* All of one configuration; in its arena. */
struct ag_tls_files {
    struct ag_arena *arena;
    struct ag_opener *opener;
    struct ag_diags *diags;
    struct ag_tls_file *first, **last;
};

void ag_tls_files_init(struct ag_tls_files *f, struct ag_arena *arena, struct ag_opener *opener,
                       struct ag_diags *diags);

/* Overwrites the keys: the configuration is given up. */
void ag_tls_files_wipe(struct ag_tls_files *f);
/* Of what was read: certificates and authorities that are over, not begun, or over within 30 days, authorities that
 * cannot be used, and keys that anybody may read.
 * Warnings all: a reload or a restart must not take a site down that clients still may reach.
 *   now_s  since the epoch */
void ag_tls_files_warn(const struct ag_tls_files *f, int64_t now_s);
/* "2027-02-01" (UTC). */
void ag_tls_put_date(int64_t s, struct ag_buf *out);

/* Paths, kinds and signatures, in `arena`. */
void ag_tls_files_copy(const struct ag_tls_files *f, struct ag_arena *arena,
                       struct ag_tls_files *out);
/* The signature as it is now, by the system. */
uint64_t ag_tls_file_signature(const struct ag_tls_file *file);

/* The certificate of `path` and the key of `key_path` (NULL: of the same file). NULL after a diagnosis. */
const struct ag_tls_file *ag_tls_files_identity(struct ag_tls_files *f, struct ag_pos pos,
                                                const char *path, const char *key_path);
/* The same, with the place where the key's file is named: what is wrong with that file alone is told there. */
const struct ag_tls_file *ag_tls_files_pair(struct ag_tls_files *f, struct ag_pos pos,
                                            const char *path, struct ag_pos key_pos,
                                            const char *key_path);
/* A bundle of authorities. NULL after a diagnosis. */
const struct ag_tls_file *ag_tls_files_ca(struct ag_tls_files *f, struct ag_pos pos,
                                          const char *path);
/* The system's authorities: the first of the places where distributions keep them. NULL after a diagnosis. */
const struct ag_tls_file *ag_tls_files_system_ca(struct ag_tls_files *f, struct ag_pos pos);
/* Another file's text. False after a diagnosis. */
AG_MUST_USE bool ag_tls_files_text(struct ag_tls_files *f, struct ag_pos pos, const char *path,
                                   struct ag_span *out_text);
/* A folder, or a pattern of glob(3): what ends in .pem or .crt in a folder, all that matches of a pattern; .key
 * files are left out. The paths sorted, each with its NUL, in `arena`; none is a mistake. False after a
 * diagnosis. */
AG_MUST_USE bool ag_tls_files_list(struct ag_tls_files *f, struct ag_pos pos, const char *pattern,
                                   struct ag_span *out_paths);
/* Whether a path is a pattern or names a folder: ag_tls_files_list is for it. */
AG_MUST_USE bool ag_tls_files_is_list(struct ag_tls_files *f, const char *path);
/* "x.key" beside "x.crt" or "x.pem" when it is there, else `path` itself. */
const char *ag_tls_files_key_beside(struct ag_tls_files *f, const char *path);
