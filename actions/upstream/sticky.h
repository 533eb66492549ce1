/*
 * sticky: a signed cookie that says which server a client belongs to.
 *
 *   value   base64url of   identity 8 | expiry 8 | MAC 16      (43 characters)
 *   MAC     SipHash-2-4-128 of   upstream 8 | identity 8 | expiry 8
 *
 * Numbers are big-endian; the expiry is in seconds since the epoch, 0: none. So nobody can make one up to find out
 * how many servers there are, or to send a crowd to one of them; and one of another upstream counts for nothing. It
 * is no secret which server it is. What is forged, has expired, or belongs elsewhere is as if it were not there.
 */
#pragma once
#include "engine/siphash.h"
#include "proto/http.h"

#define AG_STICKY_NAME_MAX 64u
#define AG_STICKY_PATH_MAX 255u
/* The longest value of a Set-Cookie field. */
#define AG_STICKY_FIELD_MAX 512u

enum ag_sticky_secure {
    AG_STICKY_SECURE_AUTO = 0, /* where the client came by TLS */
    AG_STICKY_SECURE_ON,
    AG_STICKY_SECURE_OFF,
};

enum ag_sticky_same_site {
    AG_STICKY_SAME_SITE_LAX = 0,
    AG_STICKY_SAME_SITE_STRICT,
    AG_STICKY_SAME_SITE_NONE,
};

struct ag_sticky_options {
    struct ag_span name; /* of the cookie; empty: servers do not stick */
    struct ag_span path;
    uint32_t max_age_s; /* 0: until the browser ends */
    enum ag_sticky_secure secure;
    enum ag_sticky_same_site same_site;
    bool http_only;
    bool lasting; /* the key is of a configured secret; else of the process, and ends with it */
    uint8_t key[AG_SIPHASH_KEY];
};

enum ag_sticky_state {
    AG_STICKY_NONE = 0, /* a cookie is to be set */
    AG_STICKY_KNOWN,    /* it holds */
    AG_STICKY_AGEING,   /* it holds; less than half of its time is left: it should be set again */
};

/* What the request's cookie says. `upstream`: a hash of the upstream's name, the same in every process. */
AG_MUST_USE enum ag_sticky_state ag_sticky_read(const struct ag_sticky_options *o,
                                                const struct ag_fields *request, uint64_t upstream,
                                                uint64_t now_s, uint64_t *out_identity);
/* Appends the value of a Set-Cookie field, AG_STICKY_FIELD_MAX bytes at most. */
void ag_sticky_write(const struct ag_sticky_options *o, uint64_t upstream, uint64_t identity,
                     uint64_t now_s, bool tls, struct ag_buf *out);
