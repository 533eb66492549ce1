/*
 * Status codes: the IANA registry of HTTP status codes (RFC 9110 section 16.2.1), and 418 as people
 * use it (RFC 2324). A word of the DSL is the phrase in capitals, "_" for a space or a hyphen.
 */
#include "proto/http.h"

#define STATUS_TABLE(X)                                                          \
    X(100, "Continue", "CONTINUE")                                               \
    X(101, "Switching Protocols", "SWITCHING_PROTOCOLS")                         \
    X(102, "Processing", "PROCESSING")                                           \
    X(103, "Early Hints", "EARLY_HINTS")                                         \
    X(200, "OK", "OK")                                                           \
    X(201, "Created", "CREATED")                                                 \
    X(202, "Accepted", "ACCEPTED")                                               \
    X(203, "Non-Authoritative Information", "NON_AUTHORITATIVE_INFORMATION")     \
    X(204, "No Content", "NO_CONTENT")                                           \
    X(205, "Reset Content", "RESET_CONTENT")                                     \
    X(206, "Partial Content", "PARTIAL_CONTENT")                                 \
    X(207, "Multi-Status", "MULTI_STATUS")                                       \
    X(208, "Already Reported", "ALREADY_REPORTED")                               \
    X(226, "IM Used", "IM_USED")                                                 \
    X(300, "Multiple Choices", "MULTIPLE_CHOICES")                               \
    X(301, "Moved Permanently", "MOVED_PERMANENTLY")                             \
    X(302, "Found", "FOUND")                                                     \
    X(303, "See Other", "SEE_OTHER")                                             \
    X(304, "Not Modified", "NOT_MODIFIED")                                       \
    X(305, "Use Proxy", "USE_PROXY")                                             \
    X(307, "Temporary Redirect", "TEMPORARY_REDIRECT")                           \
    X(308, "Permanent Redirect", "PERMANENT_REDIRECT")                           \
    X(400, "Bad Request", "BAD_REQUEST")                                         \
    X(401, "Unauthorized", "UNAUTHORIZED")                                       \
    X(402, "Payment Required", "PAYMENT_REQUIRED")                               \
    X(403, "Forbidden", "FORBIDDEN")                                             \
    X(404, "Not Found", "NOT_FOUND")                                             \
    X(405, "Method Not Allowed", "METHOD_NOT_ALLOWED")                           \
    X(406, "Not Acceptable", "NOT_ACCEPTABLE")                                   \
    X(407, "Proxy Authentication Required", "PROXY_AUTHENTICATION_REQUIRED")     \
    X(408, "Request Timeout", "REQUEST_TIMEOUT")                                 \
    X(409, "Conflict", "CONFLICT")                                               \
    X(410, "Gone", "GONE")                                                       \
    X(411, "Length Required", "LENGTH_REQUIRED")                                 \
    X(412, "Precondition Failed", "PRECONDITION_FAILED")                         \
    X(413, "Content Too Large", "CONTENT_TOO_LARGE")                             \
    X(414, "URI Too Long", "URI_TOO_LONG")                                       \
    X(415, "Unsupported Media Type", "UNSUPPORTED_MEDIA_TYPE")                   \
    X(416, "Range Not Satisfiable", "RANGE_NOT_SATISFIABLE")                     \
    X(417, "Expectation Failed", "EXPECTATION_FAILED")                           \
    X(418, "I'm a Teapot", "IM_A_TEAPOT")                                        \
    X(421, "Misdirected Request", "MISDIRECTED_REQUEST")                         \
    X(422, "Unprocessable Content", "UNPROCESSABLE_CONTENT")                     \
    X(423, "Locked", "LOCKED")                                                   \
    X(424, "Failed Dependency", "FAILED_DEPENDENCY")                             \
    X(425, "Too Early", "TOO_EARLY")                                             \
    X(426, "Upgrade Required", "UPGRADE_REQUIRED")                               \
    X(428, "Precondition Required", "PRECONDITION_REQUIRED")                     \
    X(429, "Too Many Requests", "TOO_MANY_REQUESTS")                             \
    X(431, "Request Header Fields Too Large", "REQUEST_HEADER_FIELDS_TOO_LARGE") \
    X(451, "Unavailable For Legal Reasons", "UNAVAILABLE_FOR_LEGAL_REASONS")     \
    X(500, "Internal Server Error", "INTERNAL_SERVER_ERROR")                     \
    X(501, "Not Implemented", "NOT_IMPLEMENTED")                                 \
    X(502, "Bad Gateway", "BAD_GATEWAY")                                         \
    X(503, "Service Unavailable", "SERVICE_UNAVAILABLE")                         \
    X(504, "Gateway Timeout", "GATEWAY_TIMEOUT")                                 \
    X(505, "HTTP Version Not Supported", "HTTP_VERSION_NOT_SUPPORTED")           \
    X(506, "Variant Also Negotiates", "VARIANT_ALSO_NEGOTIATES")                 \
    X(507, "Insufficient Storage", "INSUFFICIENT_STORAGE")                       \
    X(508, "Loop Detected", "LOOP_DETECTED")                                     \
    X(510, "Not Extended", "NOT_EXTENDED")                                       \
    X(511, "Network Authentication Required", "NETWORK_AUTHENTICATION_REQUIRED")

/* Words that are no longer, or never were, in the registry, but that people write. */
#define ALIAS_TABLE(X)                        \
    X(302, "MOVED_TEMPORARILY")               \
    X(413, "PAYLOAD_TOO_LARGE")               \
    X(413, "REQUEST_ENTITY_TOO_LARGE")        \
    X(414, "REQUEST_URI_TOO_LONG")            \
    X(416, "REQUESTED_RANGE_NOT_SATISFIABLE") \
    X(418, "TEAPOT")                          \
    X(422, "UNPROCESSABLE_ENTITY")

struct word {
    unsigned status;
    struct ag_span text;
};

#define WORD_ROW(code, phrase, word) {code, AG_SPAN_INIT(word)},
#define ALIAS_ROW(code, word)        {code, AG_SPAN_INIT(word)},
static const struct word words[] = {STATUS_TABLE(WORD_ROW) ALIAS_TABLE(ALIAS_ROW)};

struct ag_span ag_status_phrase(unsigned status)
{
#define PHRASE_CASE(code, phrase, word) \
    case code:                          \
        return AG_SPAN(phrase);

    switch (status) {
        STATUS_TABLE(PHRASE_CASE)
    default:
        return (struct ag_span){NULL, 0};
    }
}

unsigned ag_status_from_word(struct ag_span word)
{
    for (size_t i = 0; i < AG_COUNT(words); i++) {
        if (ag_span_eq(words[i].text, word)) {
            return words[i].status;
        }
    }
    return 0;
}

struct ag_span ag_status_nearest_word(struct ag_span word, unsigned *out_distance)
{
    struct ag_span nearest = words[0].text;
    unsigned best = UINT32_MAX;

    for (size_t i = 0; i < AG_COUNT(words); i++) {
        /* The cap only bounds the work: a word at `best` or beyond cannot win. */
        unsigned d = ag_span_distance(word, words[i].text, best);
        if (d < best) {
            best = d;
            nearest = words[i].text;
        }
    }
    *out_distance = best;
    return nearest;
}
