#include "tools/args.h"
#include "tools/commands.h"
#include "tools/load.h"
#include "tools/master.h"
#include "tools/server.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Only root can become another user. True when that is no reason not to start. */
static bool may_stay(const struct ag_model *m)
{
    if (m->chroot) {
        (void)fprintf(stderr, "anygate: error: server.chroot needs root; hint: start as root, who "
                              "becomes server.user, or leave chroot out\n");
        return false;
    }
    if (m->user) {
        (void)fprintf(stderr, "anygate: warning: server.user is of no effect: only root can "
                              "become another user\n");
    }
    return true;
}

static int start(struct ag_config_input *in)
{
    struct ag_load load;

    /* A master hands on what its load has read. */
    in->opener = geteuid() == 0 ? ag_opener_record() : NULL;
    ag_load_config(&load, in);
    if (load.snapshot && ag_master_wanted(load.snapshot->model)) {
        ag_load_open_tls(&load, 1, NULL); /* what the worker's library would refuse */
    }
    ag_load_print(&load, AG_DIAG_HUMAN);
    if (load.snapshot && ag_master_wanted(load.snapshot->model)) {
        return ag_master_run(in, load.snapshot);
    }
    ag_opener_free(in->opener);
    in->opener = NULL;
    if (load.snapshot && may_stay(load.snapshot->model)) {
        return ag_server_run(in, load.snapshot, NULL);
    }
    ag_load_release(&load);
    return AG_EXIT_ERROR;
}

int ag_cmd_serve(int argc, char **argv)
{
    struct ag_config_input in = {.env = (const char *const *)environ};
    const char *routes[AG_ARGS_REPEAT_MAX], *listens[AG_ARGS_REPEAT_MAX], *operands[1];
    size_t operand_count = 0;
    const struct ag_option options[] = {
        {"--config", 'c', "FILE", "configuration: .yml .yaml .json or .gate",
         .out_value = &in.file},
        {"--route", 'r', "ROUTE", "one route, e.g. 'GET /ping: OK'; may be repeated",
         .out_values = routes, .out_count = &in.route_count},
        {"--listen", 'l', "ADDRESS", "e.g. :8080, 127.0.0.1:80, unix:/run/a.sock; may be repeated",
         .out_values = listens, .out_count = &in.listen_count},
        {"--pid-file", 0, "FILE", "where this process writes its number",
         .out_value = &in.pid_file},
    };
    const struct ag_command command = {
        .usage = "anygate serve -c FILE | DIR | -l ADDRESS... -r ROUTE...",
        .about = "Runs the server.",
        .example = "anygate serve -l :8080 -r '/: ./dist/' -r '/api/*: http://127.0.0.1:3000/*'",
        .options = options,
        .option_count = AG_COUNT(options),
        .operand_max = 1,
    };
    enum ag_args_result parsed = ag_args_parse(&command, argc, argv, operands, &operand_count);

    if (parsed != AG_ARGS_OK) {
        return parsed == AG_ARGS_HELP ? AG_EXIT_OK : AG_EXIT_USAGE;
    }
    if (operand_count == 1) {
        struct stat st;

        if (stat(operands[0], &st) != 0 || !S_ISDIR(st.st_mode)) {
            (void)fprintf(stderr,
                          "anygate: error: %s is not a directory; hint: a configuration file is "
                          "given with -c\n",
                          operands[0]);
            return AG_EXIT_USAGE;
        }
        in.dir = operands[0];
    }
    if (!in.file && !in.dir && in.route_count == 0) {
        (void)fprintf(stderr, "anygate: error: nothing to serve\nusage: %s\n", command.usage);
        return AG_EXIT_USAGE;
    }
    in.routes = routes;
    in.listens = listens;
    return start(&in);
}
