/*
 * siphash: SipHash-2-4 with 128 bits of output (Aumasson, Bernstein: SipHash: a fast short-input PRF, 2012): a
 * message authentication code for short texts. Who does not know the key learns nothing about the code of a text
 * that he has not seen.
 */
#pragma once
#include "engine/span.h"

#define AG_SIPHASH_KEY 16u
#define AG_SIPHASH_MAC 16u

void ag_siphash(const uint8_t key[static AG_SIPHASH_KEY], struct ag_span text,
                uint8_t out[static AG_SIPHASH_MAC]);

/* The key that a secret (which people choose: any text of enough bytes) stands for, for one `purpose`: another
 * purpose's key tells nothing about it. */
void ag_siphash_derive(struct ag_span secret, struct ag_span purpose,
                       uint8_t out_derived[static AG_SIPHASH_KEY]);
/* A random key that is the same all the life of the process (and of those that it forks), and nobody else's: what
 * the kernel has put there when it began. */
void ag_siphash_process_key(struct ag_span purpose, uint8_t out_derived[static AG_SIPHASH_KEY]);

/* In a time that does not tell where they differ. */
AG_MUST_USE bool ag_mac_same(const uint8_t a[static AG_SIPHASH_MAC],
                             const uint8_t b[static AG_SIPHASH_MAC]);
