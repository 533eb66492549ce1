/*
 * tls_settings: what TLS on a listener or towards an upstream is to be, as configured. Plain immutable data in
 * a snapshot's arena; contexts of the library are made of it (tls_context.h).
 */
#pragma once
#include "engine/tls_cert.h"

enum ag_tls_profile {
    AG_TLS_INTERMEDIATE = 0, /* 1.2 with ECDHE and AEAD, 1.3 */
    AG_TLS_MODERN,           /* 1.3 alone */
    AG_TLS_FIPS_LIKE,        /* 1.2 and 1.3 with AES-GCM on P-256 and P-384 alone */
};

/* Which clients are asked for a certificate in the handshake. */
enum ag_tls_client_auth {
    AG_TLS_CLIENTS_UNASKED = 0,
    AG_TLS_CLIENTS_BY_NAME,  /* where the SNI is one of ask_names: some route there wants it */
    AG_TLS_CLIENTS_ASKED,    /* all; a route decides what a missing or bad one means */
    AG_TLS_CLIENTS_REQUIRED, /* all; each request without a good one is 403 */
};

/* A listener's. */
struct ag_tls_server_settings {
    enum ag_tls_profile profile;
    /* In order of preference at equal names; the first one of each key type is what a client without SNI,
     * or with an unknown one, gets. */
    const struct ag_tls_identity *const *identities;
    uint32_t identity_count;  /* >= 1 */
    bool strict_sni;          /* an unknown name is refused (unrecognized_name) */
    bool h2;                  /* offers "h2" before "http/1.1" */
    bool tickets;             /* RFC 8446 section 4.6.1, RFC 5077 */
    bool stapling;            /* OCSP responses are stapled when there are some (tls_ocsp.h) */
    uint8_t client_auth;      /* enum ag_tls_client_auth */
    struct ag_span client_ca; /* PEM; its authorities alone are trusted; empty: nobody is asked */
    uint8_t client_depth;     /* certificates between a client's and its authority */
    const struct ag_span
        *ask_names; /* BY_NAME: "a.example"; "*.example" and all below; an empty one: all */
    uint32_t ask_name_count;
    uint32_t handshake_ms;  /* a whole handshake; then the connection is closed */
    uint32_t session_cache; /* sessions of TLS 1.2 kept for resumption by id; 0: none */
    uint8_t key[16]; /* hash of all above: equal settings share tickets and sessions, others not */
};

/* An upstream's. */
struct ag_tls_client_settings {
    struct ag_span
        server_name;   /* SNI and the name that is verified; empty: the server's own host */
    bool verify;       /* false only by an explicit word in the configuration */
    struct ag_span ca; /* PEM of trusted authorities (a file's, or the system's store) */
    const struct ag_tls_identity *identity; /* what is shown when the server asks; or NULL */
    bool h2, h1;                            /* ALPN, in this order */
    uint32_t handshake_ms;
    uint8_t key[16]; /* hash of all above: upstreams with equal ones share pools */
};
