/* websocket: the opening handshake's proof (RFC 6455 section 4.2.2); SHA-1 is used for nothing else. */
#pragma once
#include "engine/span.h"

#define AG_WEBSOCKET_ACCEPT_LEN 28u
#define AG_WEBSOCKET_KEY_BYTES  16u
#define AG_WEBSOCKET_KEY_LEN    24u

/* The Sec-WebSocket-Key of a client's: base64 of a nonce. */
void ag_websocket_key(const uint8_t nonce[static AG_WEBSOCKET_KEY_BYTES],
                      uint8_t out[static AG_WEBSOCKET_KEY_LEN]);

/* Base64(SHA-1(key + GUID)). `key` is the Sec-WebSocket-Key as received, trimmed. */
void ag_websocket_accept(struct ag_span key, uint8_t out[static AG_WEBSOCKET_ACCEPT_LEN]);
/* Base64 of 16 bytes, as RFC 6455 4.1 wants it. */
bool ag_websocket_key_is_valid(struct ag_span key);
