/*
 * proxy_protocol_parts: what reading and writing headers share; nobody else includes it.
 */
#pragma once
#include "engine/span.h"

#define AG_PP_HEAD       16u /* signature, command, family, length */
#define AG_PP_TLV_HEAD   3u
#define AG_PP_SSL_HEAD   5u /* client, verify */
#define AG_PP_V4_BYTES   12u
#define AG_PP_V6_BYTES   36u
#define AG_PP_UNIX_BYTES 216u

/* Version and command; family and transport. */
enum { AG_PP_LOCAL = 0x20, AG_PP_PROXY = 0x21 };
enum { AG_PP_UNSPEC = 0x00, AG_PP_TCP4 = 0x11, AG_PP_TCP6 = 0x21 };

/* Types of parts, and of parts of SSL. */
enum {
    AG_PP_ALPN = 0x01,
    AG_PP_AUTHORITY = 0x02,
    AG_PP_CRC32C = 0x03,
    AG_PP_UNIQUE_ID = 0x05,
    AG_PP_SSL = 0x20,
    AG_PP_SSL_VERSION = 0x21,
    AG_PP_SSL_CIPHER = 0x23,
};
/* Bits of SSL's `client`. */
enum { AG_PP_CLIENT_SSL = 1, AG_PP_CLIENT_CERT = 2 };

#define AG_PP_SIGNATURE AG_SPAN("\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A")

#define AG_PP_CRC_BEGIN UINT32_MAX
/* Goes on with CRC-32C (RFC 4960 appendix B) over `bytes`; the complement of the last result is the sum. */
uint32_t ag_pp_crc32c(uint32_t crc, struct ag_span bytes);
