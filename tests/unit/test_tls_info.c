/*
 * Goal: what is reported of the TLS library is true of this build and this processor.
 * Method: /proc/cpuinfo is the second witness for the processor, the library's own record of its
 * configuration for the build.
 */
#include "engine/tls_info.h"

#include <criterion/criterion.h>
#include <stdio.h>
#if AG_WOLFSSL
#    include <wolfssl/options.h>
#endif

#if defined(WOLFSSL_AESNI) || defined(WOLFSSL_ARMASM)
#    define BUILT_FOR_AES true
#else
#    define BUILT_FOR_AES false
#endif

/* Whether the first "flags" (x86) or "Features" (arm64) line holds the word "aes". */
static bool cpuinfo_has_aes(void)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    static char line[8192];
    bool found = false;

    cr_assert_not_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, "flags", 5) == 0 || strncmp(line, "Features", 8) == 0) {
            found = strstr(line, " aes ") != NULL || strstr(line, " aes\n") != NULL;
            break;
        }
    }
    (void)fclose(f);
    return found;
}

Test(tls_info, accelerated_only_where_build_and_processor_can)
{
    struct ag_tls_info info = ag_tls_info_get();

    cr_assert_eq(info.accelerated, BUILT_FOR_AES && cpuinfo_has_aes());
}

Test(tls_info, names_the_library)
{
    struct ag_tls_info info = ag_tls_info_get();

    if (AG_WOLFSSL) {
        cr_assert_str_eq(info.library, "wolfSSL");
        cr_assert_geq(strtoul(info.version, NULL, 10), 5UL, "%s", info.version);
        cr_assert_not_null(strchr(info.version, '.'));
    } else {
        cr_assert_str_eq(info.library, "none");
        cr_assert_str_empty(info.version);
        cr_assert_not(info.accelerated);
    }
}

Test(tls_info, says_why)
{
    struct ag_tls_info info = ag_tls_info_get();

    if (info.accelerated) {
        cr_assert_str_eq(info.detail, "AES instructions in use");
    } else {
        cr_assert_not_null(strstr(info.detail, AG_WOLFSSL ? "AES" : "without TLS"));
    }
}
