/*
 * h2_frame: HTTP/2 frames as bytes (RFC 9113 sections 4, 6 and 7; RFC 8441, 9218). No state.
 *
 *   0        3      4       5                9
 *   | length | type | flags | R | stream id | payload ... length bytes
 */
#pragma once
#include "engine/span.h"

#define AG_H2_HEADER_BYTES 9u
#define AG_H2_ID_MAX       0x7fffffffu
#define AG_H2_WINDOW_MAX   0x7fffffff
/* What holds before SETTINGS say otherwise (section 6.5.2). */
#define AG_H2_WINDOW_DEFAULT 65535
#define AG_H2_FRAME_DEFAULT  16384u
#define AG_H2_FRAME_MAX      0xffffffu

/* What a client sends first (section 3.4). */
#define AG_H2_MAGIC AG_SPAN("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

enum ag_h2_type {
    AG_H2_DATA = 0,
    AG_H2_HEADERS,
    AG_H2_PRIORITY,
    AG_H2_RST_STREAM,
    AG_H2_SETTINGS,
    AG_H2_PUSH_PROMISE,
    AG_H2_PING,
    AG_H2_GOAWAY,
    AG_H2_WINDOW_UPDATE,
    AG_H2_CONTINUATION,
    AG_H2_PRIORITY_UPDATE = 16, /* RFC 9218 section 7.1 */
};

/* Flags; which frames have them: section 6. */
#define AG_H2_END_STREAM  0x01u /* DATA, HEADERS */
#define AG_H2_ACK         0x01u /* SETTINGS, PING */
#define AG_H2_END_HEADERS 0x04u /* HEADERS, CONTINUATION */
#define AG_H2_PADDED      0x08u /* DATA, HEADERS */
#define AG_H2_PRIORITISED 0x20u /* HEADERS */

enum ag_h2_error {
    AG_H2_NO_ERROR = 0,
    AG_H2_PROTOCOL_ERROR,
    AG_H2_INTERNAL_ERROR,
    AG_H2_FLOW_CONTROL_ERROR,
    AG_H2_SETTINGS_TIMEOUT,
    AG_H2_STREAM_CLOSED,
    AG_H2_FRAME_SIZE_ERROR,
    AG_H2_REFUSED_STREAM,
    AG_H2_CANCEL,
    AG_H2_COMPRESSION_ERROR,
    AG_H2_CONNECT_ERROR,
    AG_H2_ENHANCE_YOUR_CALM,
    AG_H2_INADEQUATE_SECURITY,
    AG_H2_HTTP_1_1_REQUIRED,
};

enum ag_h2_setting {
    AG_H2_HEADER_TABLE_SIZE = 1,
    AG_H2_ENABLE_PUSH,
    AG_H2_MAX_CONCURRENT_STREAMS,
    AG_H2_INITIAL_WINDOW_SIZE,
    AG_H2_MAX_FRAME_SIZE,
    AG_H2_MAX_HEADER_LIST_SIZE,
    AG_H2_ENABLE_CONNECT_PROTOCOL = 8, /* RFC 8441 section 3 */
    AG_H2_NO_RFC7540_PRIORITIES = 9,   /* RFC 9218 section 2.1 */
};
#define AG_H2_SETTING_BYTES 6u

struct ag_h2_frame {
    uint32_t len; /* of the payload */
    uint32_t id;  /* 0: of the connection */
    uint8_t type; /* enum ag_h2_type, or one that is not known */
    uint8_t flags;
};

struct ag_h2_pair {
    uint16_t id; /* enum ag_h2_setting, or one that is not known */
    uint32_t value;
};

/* ---- reading ---- */

static inline uint32_t ag_h2_u16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t ag_h2_u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return __builtin_bswap32(v);
}

/* Ids and increments are of 31 bits; the reserved one is ignored. */
static inline uint32_t ag_h2_u31(const uint8_t *p)
{
    return ag_h2_u32(p) & AG_H2_ID_MAX;
}

/* `p`: AG_H2_HEADER_BYTES. */
static inline struct ag_h2_frame ag_h2_read_header(const uint8_t *p)
{
    return (struct ag_h2_frame){
        .len = ag_h2_u32(p) >> 8, .type = p[3], .flags = p[4], .id = ag_h2_u31(p + 5)};
}

static inline struct ag_h2_pair ag_h2_read_setting(const uint8_t *p)
{
    return (struct ag_h2_pair){.id = (uint16_t)ag_h2_u16(p), .value = ag_h2_u32(p + 2)};
}

/* ---- writing: each returns where the next byte goes ---- */

static inline uint8_t *ag_h2_put_u32(uint8_t *p, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(p, &value, sizeof(value));
    return p + sizeof(value);
}

static inline uint8_t *ag_h2_put_header(uint8_t *p, size_t len, enum ag_h2_type type,
                                        unsigned flags, uint32_t id)
{
    ag_h2_put_u32(p, (uint32_t)len << 8 | (uint32_t)type);
    p[4] = (uint8_t)flags;
    return ag_h2_put_u32(p + 5, id);
}

static inline uint8_t *ag_h2_put_setting(uint8_t *p, enum ag_h2_setting id, uint32_t value)
{
    p[0] = 0;
    p[1] = (uint8_t)id;
    return ag_h2_put_u32(p + 2, value);
}

/* "PROTOCOL_ERROR"; "an unknown code". */
const char *ag_h2_error_name(uint32_t code);
