/*
 * tls_info: which TLS library is linked and whether it uses the processor's AES instructions.
 *
 * For `anygate version`, the start log and metrics: a distribution's wolfSSL is often built for
 * the oldest processor there is and then encrypts some thirty times slower, which nothing else
 * would tell. Safe from any thread; engine/tls_info.c alone includes wolfSSL for this.
 */
#pragma once
#include "engine/base.h"

struct ag_tls_info {
    const char *library; /* "wolfSSL", or "none" where the build has no TLS */
    const char *version; /* of the library that is loaded now, "5.5.4"; "" where there is none */
    bool accelerated;    /* the library has AES instructions compiled in and this processor runs
                            them */
    const char *detail;  /* one phrase that says why, for people; never NULL */
};

/* The strings are constants. Cannot fail. */
struct ag_tls_info ag_tls_info_get(void);

/* False: the library is a distribution's, which loses memory with each response that it staples, and keeps tables that it
 * has made. Without TLS: true, for nothing of it can be asked for. */
bool ag_tls_info_is_ours(void);
