/*
 * tls_ocsp: certificate status (RFC 6960) for stapling: what to ask an authority about a certificate, and whether
 * what comes back is good to be stapled. Bytes alone: somebody else fetches.
 *
 *   identity --request--> DER, POSTed to its ocsp_url --> DER --check--> staple it, ask again at next_ask_s
 *
 *   OCSPResponse: [ status | BasicOCSPResponse: [ data | algorithm | signature | certificates ] ]
 *     data: responder, produced at, one entry a certificate: [ id | good, revoked, unknown | this, next update ]
 */
#pragma once
#include "engine/tls_cert.h"

#define AG_OCSP_REQUEST_MAX  256u     /* bytes of a request */
#define AG_OCSP_RESPONSE_MAX 0x10000u /* of a response; larger ones are refused */

/* Whether there is anybody to ask and its certificate's issuer is known. */
static inline bool ag_ocsp_askable(const struct ag_tls_identity *id)
{
    return id->ocsp_url.len > 0 && id->issuer_pem.len > 0;
}

/* Appends the request for the leaf (RFC 6960 section 4.1.1): SHA-1 in its id, as RFC 5019 section 2.1.1 has it, and
 * no nonce: answers are made ahead. AG_EINVAL: not askable. */
AG_MUST_USE enum ag_status ag_ocsp_request(const struct ag_tls_identity *id, struct ag_buf *out);

enum ag_ocsp_status { AG_OCSP_GOOD = 0, AG_OCSP_REVOKED, AG_OCSP_UNKNOWN };

struct ag_ocsp_answer {
    enum ag_ocsp_status status;
    int64_t this_update_s, next_update_s; /* since the epoch */
    int64_t next_ask_s; /* half way, or half of what is left: before this one ends */
};

/*
 * Checks a response for the leaf: signed by its issuer, or by whom that has appointed for this (RFC 6960 section
 * 4.2.2.2), for this very certificate, and not before its time (a few minutes of slack for clocks) or beyond it.
 *   now_s    since the epoch
 *   out_why  static: the cause
 * AG_EINVAL: it is nothing to be stapled; so is a revoked or unknown one, with *out filled in then (out_why says
 * so), and zeroed otherwise.
 */
AG_MUST_USE enum ag_status ag_ocsp_check(const struct ag_tls_identity *id, struct ag_span response,
                                         int64_t now_s, struct ag_ocsp_answer *out,
                                         const char **out_why);
