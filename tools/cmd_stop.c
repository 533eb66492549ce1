#include "tools/commands.h"
#include "tools/instance.h"
#include "tools/master.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

/* For a process to end once nothing holds it; a master may have to kill its worker first. */
#define END_MS (AG_MASTER_PATIENCE_MS + 5000u)

struct stop {
    struct ag_instance instance;
    bool now;
};

static int stop(struct ag_instance *i)
{
    bool now = ag_container_of(i, struct stop, instance)->now;
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
    struct stop it = {.instance.fd = -1};
    const struct ag_option options[] = {
        AG_INSTANCE_OPTIONS(&it.instance),
        {"--now", 0, NULL, "do not wait for requests under way", .out_switch = &it.now},
    };
    const struct ag_command command = {
        .usage = "anygate stop -c FILE | --pid-file FILE | --pid NUMBER [--now]",
        .about = "Stops a running server and waits until it has ended.",
        .example = "anygate stop -c /etc/anygate/anygate.yml",
        .options = options,
        .option_count = AG_COUNT(options),
        .operand_max = 0,
    };

    return ag_instance_command(&it.instance, &command, argc, argv, stop);
}
