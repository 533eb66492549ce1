#include "tools/commands.h"
#include "tools/instance.h"
#include "tools/outcome.h"

#include <signal.h>
#include <stdio.h>

#define WAIT_MS  60000u
#define STEP_MS  20u
#define TEXT_MAX (256u * 1024u)

/* The outcome of a reload that began after `since_ns`. */
static int await_outcome(struct ag_instance *i, uint64_t since_ns, struct ag_buf *text)
{
    for (uint64_t waited = 0; waited < WAIT_MS; waited += STEP_MS) {
        bool applied = false, gone = ag_instance_wait(i, STEP_MS);

        if (ag_outcome_read(i->pid_file, since_ns, &applied, text) == AG_OK) {
            (void)fwrite(text->ptr, 1, text->len, stderr);
            if (applied) {
                (void)printf("reloaded\n");
            }
            return applied ? AG_EXIT_OK : AG_EXIT_ERROR;
        }
        /* Its successor in an upgrade does what was asked of it. */
        if (gone && !ag_instance_follow(i)) {
            (void)fprintf(stderr, "anygate: error: process %d ended before it had reloaded\n",
                          (int)i->pid);
            return AG_EXIT_ERROR;
        }
    }
    (void)fprintf(stderr,
                  "anygate: error: process %d has not reloaded within %u s; hint: its log may tell "
                  "why\n",
                  (int)i->pid, WAIT_MS / 1000);
    return AG_EXIT_ERROR;
}

static int reload(struct ag_instance *i)
{
    uint64_t since_ns = ag_outcome_now_ns();
    uint8_t *room;
    int rc;

    if (!ag_instance_signal(i, SIGHUP)) {
        return AG_EXIT_ERROR;
    }
    if (!i->pid_file[0]) {
        (void)printf("SIGHUP was sent to process %d; its log tells what comes of it\n",
                     (int)i->pid);
        return AG_EXIT_OK;
    }
    room = malloc(TEXT_MAX);
    AG_ASSERT(room);
    struct ag_buf text = ag_buf(room, TEXT_MAX);
    rc = await_outcome(i, since_ns, &text);
    free(room);
    return rc;
}

int ag_cmd_reload(int argc, char **argv)
{
    struct ag_instance i = {.fd = -1};
    const struct ag_option options[] = {AG_INSTANCE_OPTIONS(&i)};
    const struct ag_command command = {
        .usage = "anygate reload -c FILE | --pid-file FILE | --pid NUMBER",
        .about = "Makes a running server load its configuration again, and tells what came of it.",
        .example = "anygate reload -c /etc/anygate/anygate.yml",
        .options = options,
        .option_count = AG_COUNT(options),
        .operand_max = 0,
    };

    return ag_instance_command(&i, &command, argc, argv, reload);
}
