#include "engine/loop.h"
#include "engine/tls_info.h"
#include "tools/args.h"
#include "tools/commands.h"

#include <stdio.h>

int ag_cmd_version(int argc, char **argv)
{
    const char *operands[1], *why = "";
    size_t operand_count = 0;
    enum ag_backend_kind backend;
    struct ag_tls_info tls = ag_tls_info_get();
    const struct ag_command command = {
        .usage = "anygate version",
        .about = "Prints build, libraries, crypto acceleration and the backend this kernel gets.",
        .example = "anygate version",
        .operand_max = 0,
    };
    enum ag_args_result parsed = ag_args_parse(&command, argc, argv, operands, &operand_count);

    if (parsed != AG_ARGS_OK) {
        return parsed == AG_ARGS_HELP ? AG_EXIT_OK : AG_EXIT_USAGE;
    }
    (void)printf("anygate %s\n", AG_VERSION);
    (void)printf("  build     %s, compiler %s\n", AG_BUILD, __VERSION__);
    (void)printf("  libraries %s\n", AG_LIBRARIES);
    (void)printf("  tls       %s %s: %s\n", tls.library, tls.version, tls.detail);
    if (ag_backend_choose(AG_BACKEND_AUTO, &backend, &why) != AG_OK) {
        (void)printf("  backend   none: %s\n", why);
        return AG_EXIT_ERROR;
    }
    (void)printf("  backend   %s: %s\n", ag_backend_name(backend), why);
    if (!tls.accelerated) {
        (void)fprintf(stderr, "anygate: warning: TLS without hardware acceleration: %s\n",
                      tls.detail);
    }
    return AG_EXIT_OK;
}
