/*
 * http: messages as all protocol versions share them (RFC 9110): methods, fields, requests,
 * responses. Spans point into receive buffers or the exchange's arena; nothing here owns memory.
 */
#pragma once
#include "engine/arena.h"
#include "engine/span.h"

/* Methods known by number (RFC 9110 section 9, RFC 5789); any other token is AG_METHOD_OTHER. */
enum ag_method {
    AG_METHOD_OTHER = 0,
    AG_METHOD_GET,
    AG_METHOD_HEAD,
    AG_METHOD_POST,
    AG_METHOD_PUT,
    AG_METHOD_DELETE,
    AG_METHOD_CONNECT,
    AG_METHOD_OPTIONS,
    AG_METHOD_TRACE,
    AG_METHOD_PATCH,
    AG_METHODS,
};
enum ag_method ag_method_from_name(struct ag_span name); /* case-sensitive */
struct ag_span ag_method_name(enum ag_method m);         /* not for OTHER */
/* RFC 9110 section 9.2.2: may be sent again without harm. */
bool ag_method_is_idempotent(enum ag_method m);

/* The IANA phrase of a status code ("Not Found"), or an empty span. */
struct ag_span ag_status_phrase(unsigned status);
/* The code of a phrase in the DSL's form ("NOT_FOUND"), or 0. */
unsigned ag_status_from_word(struct ag_span word);
/* Walks the table for hints: the nearest known word and its distance. */
struct ag_span ag_status_nearest_word(struct ag_span word, unsigned *out_distance);

/* Field names that the code asks for by number; all others are AG_FIELD_OTHER. The table in fields.c
 * has one line for each, in this order. */
enum ag_field_id {
    AG_FIELD_OTHER = 0,
    AG_FIELD_ACCEPT,
    AG_FIELD_ACCEPT_ENCODING,
    AG_FIELD_ACCEPT_RANGES,
    AG_FIELD_ACCESS_CONTROL_REQUEST_METHOD,
    AG_FIELD_AGE,
    AG_FIELD_ALLOW,
    AG_FIELD_AUTHORIZATION,
    AG_FIELD_CACHE_CONTROL,
    AG_FIELD_CDN_LOOP,
    AG_FIELD_CONNECTION,
    AG_FIELD_CONTENT_ENCODING,
    AG_FIELD_CONTENT_LENGTH,
    AG_FIELD_CONTENT_RANGE,
    AG_FIELD_CONTENT_TYPE,
    AG_FIELD_COOKIE,
    AG_FIELD_DATE,
    AG_FIELD_ETAG,
    AG_FIELD_EXPECT,
    AG_FIELD_FORWARDED,
    AG_FIELD_HOST,
    AG_FIELD_HTTP2_SETTINGS,
    AG_FIELD_IF_MATCH,
    AG_FIELD_IF_MODIFIED_SINCE,
    AG_FIELD_IF_NONE_MATCH,
    AG_FIELD_IF_RANGE,
    AG_FIELD_IF_UNMODIFIED_SINCE,
    AG_FIELD_KEEP_ALIVE,
    AG_FIELD_LAST_MODIFIED,
    AG_FIELD_LOCATION,
    AG_FIELD_ORIGIN,
    AG_FIELD_PRIORITY,
    AG_FIELD_PROXY,
    AG_FIELD_PROXY_AUTHENTICATE,
    AG_FIELD_PROXY_AUTHORIZATION,
    AG_FIELD_PROXY_CONNECTION,
    AG_FIELD_RANGE,
    AG_FIELD_REFERER,
    AG_FIELD_RETRY_AFTER,
    AG_FIELD_SEC_WEBSOCKET_ACCEPT,
    AG_FIELD_SEC_WEBSOCKET_KEY,
    AG_FIELD_SEC_WEBSOCKET_VERSION,
    AG_FIELD_SERVER,
    AG_FIELD_SET_COOKIE,
    AG_FIELD_TE,
    AG_FIELD_TRAILER,
    AG_FIELD_TRANSFER_ENCODING,
    AG_FIELD_UPGRADE,
    AG_FIELD_USER_AGENT,
    AG_FIELD_VARY,
    AG_FIELD_VIA,
    AG_FIELD_WWW_AUTHENTICATE,
    AG_FIELD_X_FORWARDED_FOR,
    AG_FIELD_X_FORWARDED_HOST,
    AG_FIELD_X_FORWARDED_PROTO,
    AG_FIELDS,
};
/* Any case. */
enum ag_field_id ag_field_id_from_name(struct ag_span name);
/* The canonical spelling ("Content-Type"); not for OTHER. */
struct ag_span ag_field_name(enum ag_field_id id);

struct ag_field {
    const uint8_t *name; /* as received or written, h1 keeps the sender's case */
    const uint8_t *value;
    uint32_t value_len;
    uint16_t name_len;
    uint8_t id;       /* enum ag_field_id */
    bool removed : 1; /* not to be forwarded or found any more; keeps its place */
    /* The name lies as in a head of HTTP/1: CRLF before it, ": " and a value behind it. So a value that begins there is
     * one line with it, and a name behind that and CRLF is the next. Whoever copies the name alone clears this. */
    bool line : 1;
};
_Static_assert(sizeof(struct ag_field) == 24, "fields are copied and scanned a lot");

static inline struct ag_span ag_field_key(const struct ag_field *f)
{
    return ag_span(f->name, f->name_len);
}

static inline struct ag_span ag_field_value(const struct ag_field *f)
{
    return ag_span(f->value, f->value_len);
}

/* A list in order of arrival. */
struct ag_fields {
    struct ag_field *v;
    uint16_t count; /* entries in use, removed ones included */
    uint16_t cap;   /* entries at v */
};

/* Appends; grows in `arena` (the old table is left to the arena). AG_ENOMEM. The spans are kept, not
 * copied; the name must be a token and the value free of CTLs: the caller has checked that. */
AG_MUST_USE enum ag_status ag_fields_add(struct ag_fields *f, struct ag_arena *arena,
                                         enum ag_field_id id, struct ag_span name,
                                         struct ag_span value);
/* The same with the canonical name of `id`. */
AG_MUST_USE enum ag_status ag_fields_add_id(struct ag_fields *f, struct ag_arena *arena,
                                            enum ag_field_id id, struct ag_span value);
/* The first, or the next after `after` (NULL: from the start); NULL when there is none. */
struct ag_field *ag_fields_find(const struct ag_fields *f, enum ag_field_id id,
                                const struct ag_field *after);
struct ag_field *ag_fields_find_name(const struct ag_fields *f, struct ag_span name,
                                     const struct ag_field *after);
void ag_fields_remove(struct ag_fields *f, enum ag_field_id id);
void ag_fields_remove_name(struct ag_fields *f, struct ag_span name);
/* Walks a comma-separated list value (RFC 9110 section 5.6.1), quoted strings respected: the next
 * element, trimmed; false at the end. `at` starts at 0. Empty elements are skipped. */
bool ag_list_next(struct ag_span value, size_t *at, struct ag_span *out_element);
/* Whether the list has `token`, letters compared without case. */
bool ag_list_has(struct ag_span value, struct ag_span token);
/* Whether any field `id` lists `token`. */
bool ag_fields_list_has(const struct ag_fields *f, enum ag_field_id id, struct ag_span token);

/* RFC 9110 section 5.6.2. */
bool ag_is_token(struct ag_span s);
/* Field values: VCHAR, obs-text, SP, HTAB; no other controls (section 5.5). */
bool ag_is_field_value(struct ag_span s);

/* How a message's content ends. */
enum ag_framing {
    AG_FRAMING_NONE = 0, /* no content */
    AG_FRAMING_LENGTH,   /* content_length bytes */
    AG_FRAMING_CHUNKED,
    AG_FRAMING_CLOSE,  /* until the connection closes (responses only) */
    AG_FRAMING_TUNNEL, /* bytes both ways after 101 or CONNECT */
    AG_FRAMING_H2,     /* delimited by frames; content_length may be known besides */
};

#define AG_LENGTH_UNKNOWN UINT64_MAX

enum ag_http_version { AG_HTTP_10 = 10, AG_HTTP_11 = 11, AG_HTTP_2 = 20 };

struct ag_request {
    struct ag_span method_name; /* as received */
    struct ag_span target;      /* as received */
    struct ag_span host; /* of the target or Host, without port; IPv6 in brackets; as received */
    struct ag_span authority; /* host and port as received */
    struct ag_span path;      /* normalised (uri.h); "*" for OPTIONS * */
    struct ag_span query;     /* without "?"; see has_query */
    struct ag_span protocol; /* of an extended CONNECT ("websocket", RFC 8441); empty: it is none */
    struct ag_fields fields;
    uint64_t content_length; /* AG_LENGTH_UNKNOWN when not told */
    uint16_t
        received_count; /* so many of fields.v, the first ones, are the sender's; filters add behind */
    uint16_t port;      /* of the authority, 0 when absent */
    uint8_t method;     /* enum ag_method */
    uint8_t version;    /* enum ag_http_version */
    uint8_t framing;    /* enum ag_framing */
    bool has_query;
    bool absolute_form;
    bool https_target;    /* the target is of the "https" scheme */
    bool keep_alive;      /* the sender wants to go on */
    bool expect_continue; /* Expect: 100-continue, HTTP/1.1 */
    bool upgrade;         /* Connection: upgrade with an Upgrade field */
    bool tls;             /* came over TLS */
};

struct ag_response {
    unsigned status;
    struct ag_span reason; /* empty: the IANA phrase */
    struct ag_fields fields;
    uint64_t content_length;
    uint8_t version;
    uint8_t framing;
    bool keep_alive;
    bool upgrade;
};

/* Moves every span that lies in [from, from + len) to the same place in `to`. */
void ag_request_rebase(struct ag_request *r, const uint8_t *from, size_t len, const uint8_t *to);
void ag_response_rebase(struct ag_response *r, const uint8_t *from, size_t len, const uint8_t *to);
void ag_fields_rebase(struct ag_fields *f, const uint8_t *from, size_t len, const uint8_t *to);
