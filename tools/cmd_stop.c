#include "tools/commands.h"
#include "tools/instance.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

/* For a process to end once nothing holds it. */
#define END_MS 5000u

static int stop(const struct ag_instance *i, bool now)
{
    uint64_t wait_ms = END_MS + (now ? 0 : i->drain_timeout_ms);

    /* A second SIGTERM would be lost while the first one waits to be read. */
    if (!ag_instance_signal(i, SIGTERM) || (now && !ag_instance_signal(i, SIGINT))) {
        return AG_EXIT_ERROR;
    }
    if (ag_instance_wait(i, wait_ms)) {
        (void)printf("stopped\n");
        return AG_EXIT_OK;
    }
    (void)fprintf(stderr, "anygate: error: process %d has not ended within %" PRIu64 " s%s\n",
                  (int)i->pid, wait_ms / 1000,
                  now ? "" : "; hint: anygate stop --now ends its connections");
    return AG_EXIT_ERROR;
}

int ag_cmd_stop(int argc, char **argv)
{
    struct ag_instance i = {.fd = -1};
    size_t operand_count = 0;
    bool now = false;
    const struct ag_option options[] = {
        AG_INSTANCE_OPTIONS(&i),
        {"--now", 0, NULL, "do not wait for requests under way", .out_switch = &now},
    };
    const struct ag_command command = {
        .usage = "anygate stop -c FILE | --pid-file FILE | --pid NUMBER [--now]",
        .about = "Stops a running server and waits until it has ended.",
        .example = "anygate stop -c /etc/anygate/anygate.yml",
        .options = options,
        .option_count = AG_COUNT(options),
        .operand_max = 0,
    };
    enum ag_args_result parsed = ag_args_parse(&command, argc, argv, NULL, &operand_count);
    int rc;

    if (parsed != AG_ARGS_OK) {
        return parsed == AG_ARGS_HELP ? AG_EXIT_OK : AG_EXIT_USAGE;
    }
    rc = ag_instance_find(&i);
    if (rc == AG_EXIT_OK) {
        rc = stop(&i, now);
    }
    ag_instance_release(&i);
    return rc;
}
