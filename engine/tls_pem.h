/*
 * tls_pem: textual encodings (RFC 7468): finds the blocks of a file.
 *
 *   anything  -----BEGIN CERTIFICATE-----  base64  -----END CERTIFICATE-----  anything  -----BEGIN ...
 */
#pragma once
#include "engine/arena.h"

struct ag_pem {
    struct ag_span label; /* "CERTIFICATE" */
    struct ag_span text;  /* from -----BEGIN to the END line's last dash */
    struct ag_span body;  /* between these lines */
    bool encrypted;       /* a key that needs a password, in either form */
};

/* Takes the next block off *io. AG_ENOENT: there is none. AG_EINVAL: it has no end. */
AG_MUST_USE enum ag_status ag_pem_next(struct ag_span *io, struct ag_pem *out);
/* Its bytes, in `arena`. AG_EINVAL: not base64. */
AG_MUST_USE enum ag_status ag_pem_decode(const struct ag_pem *p, struct ag_arena *arena,
                                         struct ag_span *out);
/* A private key, of whichever form. */
AG_MUST_USE bool ag_pem_is_key(const struct ag_pem *p);
