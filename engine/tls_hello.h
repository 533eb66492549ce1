/*
 * tls_hello: reads a ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2) before the library sees
 * it, to choose a certificate and a protocol by it. Nothing is kept of the bytes; the library gets them after.
 *
 *   record:    [ 22 | version 2 | length 2 ][ piece of the message ] ...       any number, any split
 *   message:   [ 1 | length 3 ][ version 2 | random 32 | session id | suites | compression | extensions ]
 *   extension: [ type 2 | length 2 | data ]    server_name, ALPN, supported_groups, signature_algorithms,
 *              supported_versions are read; of others the lengths alone
 *
 *   MESSAGE --head read--> FIELDS --all read--> DONE      with a record's head before each piece
 *   any --malformed, not TLS, too large--> FAILED
 *
 * Incremental: bytes may come one at a time. Bounded: the message has at most AG_TLS_HELLO_MAX bytes.
 */
#pragma once
#include "engine/span.h"

/* Of the message with its head. Real ones have 200 to 2,000 bytes. */
#define AG_TLS_HELLO_MAX 16384u

/* What the client can check of a server's signature. */
enum {
    AG_TLS_SIGNS_RSA = 1u << 0,
    AG_TLS_SIGNS_P256 = 1u << 1,
    AG_TLS_SIGNS_P384 = 1u << 2,
    AG_TLS_SIGNS_P521 = 1u << 3,
    AG_TLS_SIGNS_ED25519 = 1u << 4,
};

/* What the client can agree on a secret on (RFC 8422 section 5.1.1). */
enum {
    AG_TLS_ON_P256 = 1u << 0,
    AG_TLS_ON_P384 = 1u << 1,
    AG_TLS_ON_X25519 = 1u << 2,
    AG_TLS_ON_P521 = 1u << 3, /* for certificates alone */
};

/* Alerts (RFC 8446 section 6.2) that a refusal is told with. */
enum ag_tls_alert {
    AG_TLS_ALERT_NONE = 0,
    AG_TLS_ALERT_UNEXPECTED_MESSAGE = 10,
    AG_TLS_ALERT_HANDSHAKE_FAILURE = 40,
    AG_TLS_ALERT_ILLEGAL_PARAMETER = 47,
    AG_TLS_ALERT_DECODE_ERROR = 50,
    AG_TLS_ALERT_PROTOCOL_VERSION = 70,
    AG_TLS_ALERT_INTERNAL_ERROR = 80,
    AG_TLS_ALERT_UNRECOGNIZED_NAME = 112,
    AG_TLS_ALERT_NO_APPLICATION_PROTOCOL = 120,
};

struct ag_tls_hello {
    /* What was read; whole after AG_OK. */
    uint8_t name[255]; /* server_name in lower case, without a trailing dot */
    uint8_t name_len;  /* 0: none was sent */
    bool alpn;         /* the extension was there */
    bool h2, http_11, acme;
    bool tls_12, tls_13; /* versions offered */
    bool groups;         /* supported_groups was there */
    uint8_t on;          /* AG_TLS_ON_*: of what it names */
    bool signatures;     /* signature_algorithms was there */
    uint8_t signs;       /* AG_TLS_SIGNS_* */
    bool suites_rsa;     /* of TLS 1.2: ECDHE_RSA with an AEAD */
    bool suites_ecdsa;   /* of TLS 1.2: ECDHE_ECDSA with an AEAD */
    bool prefers_chacha; /* its first suite is one: it has no AES instructions */
    bool plain_http;     /* of AG_EPROTO: it begins like a request in plain text */
    uint8_t alert;       /* of AG_EPROTO: enum ag_tls_alert; 0: none would be understood */
    const char *why;     /* of AG_EPROTO, AG_ELIMIT: a static phrase */

    /* private */
    uint8_t state;
    uint8_t record_got;    /* bytes of the record's head */
    uint8_t field;         /* what the next bytes of the message are */
    uint8_t seen;          /* extensions that were there */
    uint8_t head_got;      /* bytes of the message's head */
    uint8_t want, got;     /* bytes of the number being read */
    uint8_t text_len;      /* of an ALPN name, in `text` */
    uint8_t text[10];      /* as long as the names that are known */
    uint16_t extension;    /* type */
    uint32_t number;       /* big-endian, `got` bytes of it */
    uint32_t record_left;  /* bytes of the record */
    uint32_t message_left; /* of the message */
    uint32_t block_left;   /* of the vector in the message that is being read */
    uint32_t data_left;    /* of the extension */
    uint32_t list_left;    /* of the list in the extension */
    uint32_t skip;         /* bytes of no interest */
    bool first_suite;
    bool null_compression;
};

void ag_tls_hello_init(struct ag_tls_hello *h);

/* Reads on. AG_OK: the message is whole; AG_AGAIN: more is needed; AG_EPROTO: malformed, or no TLS (alert, why,
 * plain_http); AG_ELIMIT: larger than is allowed. Not to be called again after any but AG_AGAIN. */
AG_MUST_USE enum ag_status ag_tls_hello_read(struct ag_tls_hello *h, struct ag_span bytes);

static inline struct ag_span ag_tls_hello_name(const struct ag_tls_hello *h)
{
    return ag_span(h->name, h->name_len);
}
