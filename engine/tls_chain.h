/*
 * tls_chain: whether a peer's certificates lead to one of some authorities (RFC 5280 section 6), and name it.
 *
 *   [ leaf ] [ issuer of leaf ] ... [ issued by an authority ]      put into this order
 *      0            1                        k <= depth
 *
 * The library checks signatures, dates and extensions of each step; which steps are taken is decided here. What
 * a peer sends is never kept: neither good intermediates nor bad ones change what is believed of others.
 */
#pragma once
#include "engine/span.h"

struct ag_tls_authorities;

/* Of a PEM bundle; those that are no authorities (self-signed leaves) are believed as themselves alone. Authorities
 * that have expired, or not begun, are left out. NULL: none of it could be used at any time, or no memory. */
AG_MUST_USE struct ag_tls_authorities *ag_tls_authorities_new(struct ag_span pem);
void ag_tls_authorities_free(struct ag_tls_authorities *a); /* NULL is allowed */

/* Whether one of a bundle (DER) can be used, now or at another time. */
AG_MUST_USE bool ag_tls_authority_is_usable(struct ag_span der);

/* What one of them is known by, whichever bundle it lies in: its name and key; one believed as itself: its SHA-256. */
#define AG_TLS_MARK_BYTES 32u

/* Of a certificate (DER). False: it is none, or no memory. */
AG_MUST_USE bool ag_tls_authority_mark(struct ag_span der, uint8_t out[static AG_TLS_MARK_BYTES]);
AG_MUST_USE bool ag_tls_authorities_have(const struct ag_tls_authorities *a,
                                         const uint8_t mark[static AG_TLS_MARK_BYTES]);

struct ag_tls_chain {
    const struct ag_span *certs; /* DER, the leaf first */
    uint32_t count;
    uint32_t depth; /* certificates allowed between the leaf and its authority */
    bool of_client; /* else of a server */
    uint8_t *mark;  /* where that of the authority it leads to is put, when it is good; or NULL */
};

/* NULL: the chain is good now. Else why not, a static phrase: "unknown authority". Any thread. */
AG_MUST_USE const char *ag_tls_chain_judge(const struct ag_tls_authorities *a,
                                           const struct ag_tls_chain *sent);

/* Whether a leaf (DER) is a server's of that name or address (RFC 9525): its subjectAltName alone counts. */
AG_MUST_USE bool ag_tls_chain_names(struct ag_span leaf, struct ag_span host);
