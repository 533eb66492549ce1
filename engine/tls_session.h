/*
 * tls_session: what a handshake has settled, for whoever works on the stream above it. Plain data; knows no
 * library. ag_stream_tls (stream.h) gives it; it lives as long as the stream, but in on_close the version, the cipher
 * and whether it was resumed are all that is left of it.
 */
#pragma once
#include "engine/span.h"

/* The client's certificate (RFC 8446 section 4.4.2), as far as it was asked for. */
enum ag_tls_client_cert {
    AG_TLS_CLIENT_NONE = 0, /* not asked for, or none was sent */
    AG_TLS_CLIENT_VALID,    /* its chain leads to one of the listener's authorities */
    AG_TLS_CLIENT_INVALID,  /* it does not, or not now: see client_error */
};

/* Application protocols (RFC 7301). */
enum ag_alpn { AG_ALPN_NONE = 0, AG_ALPN_HTTP_11, AG_ALPN_H2, AG_ALPN_ACME };

struct ag_tls_session {
    struct ag_span server_name; /* SNI in lower case (RFC 6066 section 3); empty: none was sent */
    const char *version;        /* "TLSv1.3"; static */
    const char *cipher;         /* "TLS_AES_128_GCM_SHA256"; static */
    uint8_t alpn;               /* enum ag_alpn */
    uint8_t client_cert;        /* enum ag_tls_client_cert */
    bool client_cert_asked;
    bool client_cert_required; /* the listener serves nobody without a good one */
    bool resumed;
    const char *client_error;      /* of INVALID: a static phrase */
    struct ag_span client_subject; /* "CN=name,O=org" (RFC 4514); empty without a certificate */
    struct ag_span client_sha256;  /* its fingerprint: 64 digits in lower-case hex */
    const uint8_t *client_mark;    /* of VALID: which authority has vouched for it (tls_chain.h) */
};
