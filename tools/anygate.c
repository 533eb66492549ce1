#include "engine/span.h"
#include "engine/tls_context.h"
#include "tools/commands.h"

#include <signal.h>
#include <stdio.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"serve", ag_cmd_serve, "run: from a config file, a directory, or -l and -r flags"},
    {"check", ag_cmd_check, "validate a config without binding; print routes and warnings"},
    {"routes", ag_cmd_routes, "print the route tree, or which route a request takes and why"},
    {"tune", ag_cmd_tune, "compare this system with what a busy gateway wants; --apply sets it"},
    {"reload", ag_cmd_reload, "make a running server load its configuration again"},
    {"stop", ag_cmd_stop, "stop a running server and wait until it has ended"},
    {"version", ag_cmd_version, "print build, libraries, crypto acceleration and backend"},
};

static void usage(FILE *to)
{
    (void)fprintf(to,
                  "AnyGate %s: reverse proxy, static and SPA server, fixed and echo answers.\n\n"
                  "usage: anygate COMMAND [options]\n\ncommands:\n",
                  AG_VERSION);
    for (size_t i = 0; i < AG_COUNT(commands); i++) {
        (void)fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    }
    (void)fprintf(to, "\nanygate COMMAND --help tells more.\n\nexample:\n"
                      "  anygate serve -l :8080 -r '/: ./dist/' -r 'GET /ping: OK'\n");
}

int main(int argc, char **argv)
{
    const char *near = NULL;
    unsigned best;

    /* A peer that closes must be an error of the write, never the end of the process. */
    (void)signal(SIGPIPE, SIG_IGN);
    /* Before any thread; who needs it asks again, and is told why there is none. */
    (void)!ag_tls_library_init();
    if (argc < 2) {
        usage(stderr);
        return AG_EXIT_USAGE;
    }
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return AG_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-v") == 0) {
        return ag_cmd_version(1, argv + 1);
    }
    /* A third of the word may differ, as among a config's keys. */
    best = (unsigned)ag_min_size(4, 2 + strlen(argv[1]) / 3);
    for (size_t i = 0; i < AG_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
        unsigned d = ag_span_distance(ag_span_str(argv[1]), ag_span_str(commands[i].name), best);
        if (d < best) {
            best = d;
            near = commands[i].name;
        }
    }
    (void)fprintf(stderr, "anygate: error: unknown command %s", argv[1]);
    if (near) {
        (void)fprintf(stderr, "; hint: did you mean %s?", near);
    }
    (void)fprintf(stderr,
                  "\nusage: anygate COMMAND [options]; anygate --help lists the commands\n");
    return AG_EXIT_USAGE;
}
