#include "engine/tls_info.h"

#if AG_WOLFSSL

#    include <wolfssl/options.h>
#    include <wolfssl/ssl.h>

/* options.h records how the library was configured; wolfSSL picks its code by the same macros. */
#    if defined(WOLFSSL_AESNI)
#        define BUILT_FOR_AES true

static bool cpu_has_aes(void)
{
    /* wolfSSL reads the same CPUID bit when its first AES key is set. */
    return __builtin_cpu_supports("aes") != 0;
}

#    elif defined(WOLFSSL_ARMASM)
#        include <asm/hwcap.h>
#        include <sys/auxv.h>
#        define BUILT_FOR_AES true

static bool cpu_has_aes(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
}

#    else
#        define BUILT_FOR_AES false

static bool cpu_has_aes(void)
{
    return false; /* of no interest: the library would not use it */
}

#    endif

/* By what only our build sets (tools/deps.sh). */
bool ag_tls_info_is_ours(void)
{
#    ifdef WOLFSSL_NO_DEF_TICKET_ENC_CB
    return true;
#    else
    return false;
#    endif
}

struct ag_tls_info ag_tls_info_get(void)
{
    struct ag_tls_info info = {
        .library = "wolfSSL",
        .version = wolfSSL_lib_version(),
        .accelerated = BUILT_FOR_AES && cpu_has_aes(),
        .detail = "AES instructions in use",
    };

    if (!BUILT_FOR_AES) {
        info.detail = "library built without AES instructions; build with WOLFSSL=source";
    } else if (!info.accelerated) {
        info.detail = "this processor has no AES instructions";
    }
    return info;
}

#else

bool ag_tls_info_is_ours(void)
{
    return true;
}

struct ag_tls_info ag_tls_info_get(void)
{
    return (struct ag_tls_info){.library = "none", .version = "", .detail = "built without TLS"};
}

#endif
