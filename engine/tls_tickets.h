/*
 * tls_tickets: the keys of session tickets, one ring for all shards of the process (RFC 8446 section 4.6.1,
 * RFC 5077 section 4).
 *
 *   newest key seals; it and those before it open, until they are too old
 *   rotation by the control thread; shards read without a lock (an immutable ring behind an atomic pointer,
 *   freed when no shard can look at it any more, or a fixed number of slots)
 *   a file of keys, when there is one, is shared with other processes (an upgrade's, other machines)
 *
 * A ticket of one configuration never opens under another: the key is derived with the settings' identity
 * (ag_tls_server_settings.key; CVE-2025-23419).
 */
#pragma once
#include "engine/span.h"

struct ag_tls_tickets;

/* Keys that a ring has at most, and bytes of such a one as text. */
#define AG_TLS_TICKETS_KEEP_MAX   16u
#define AG_TLS_TICKETS_TEXT_BYTES 2048u

/* Bytes that sealing adds: key name, nonce, tag. */
#define AG_TLS_TICKET_OVERHEAD 48u

/* A ring with one random key that will hold `keep` of them (1 .. AG_TLS_TICKETS_KEEP_MAX, else the nearest).
 * NULL: no memory, or no randomness. */
AG_MUST_USE struct ag_tls_tickets *ag_tls_tickets_new(uint32_t keep);
void ag_tls_tickets_free(struct ag_tls_tickets *t);
/* The control thread: holds that many from now on. */
void ag_tls_tickets_keep(struct ag_tls_tickets *t, uint32_t keep);
/* The control thread: a new key becomes the newest, the oldest beyond `keep` goes. */
void ag_tls_tickets_rotate(struct ag_tls_tickets *t);
/* The keys as text to be kept in a file (and handed to an upgrade), and back; newest first: a line of title,
 * then for each its name and secret in hex. Those of a text take the place of all that there were.
 * AG_EINVAL: not such a text, and nothing has changed. */
void ag_tls_tickets_save(const struct ag_tls_tickets *t, struct ag_buf *out);
AG_MUST_USE enum ag_status ag_tls_tickets_load(struct ag_tls_tickets *t, struct ag_span text);

/* Any shard. In place: `text` has `len` bytes and AG_TLS_TICKET_OVERHEAD room behind. Returns the sealed
 * length; 0: it failed. */
size_t ag_tls_ticket_seal(struct ag_tls_tickets *t, const uint8_t context[static 16], uint8_t *text,
                          size_t len, size_t room);
/* In place; returns the opened length, 0: not ours, too old, or of another context.
 *   out_renew  it was sealed by a key that is no longer the newest: send a new one */
size_t ag_tls_ticket_open(struct ag_tls_tickets *t, const uint8_t context[static 16], uint8_t *text,
                          size_t len, bool *out_renew);
