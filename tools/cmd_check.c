#include "router/explain.h"
#include "tools/args.h"
#include "tools/commands.h"
#include "tools/load.h"
#include "tools/pidfile.h"
#include "tools/privilege.h"
#include "tools/sizing.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPORT_BYTES (16u << 20)

/* No warning: whose rights it will have is not the configuration's to say alone. */
static void print_notes(const struct ag_model *m)
{
    if (geteuid() == 0 && !m->user) {
        (void)printf(
            "note: started by this user, it runs as root; hint: server.user names who serves "
            "once files and ports are open\n");
    }
}

/* What a start as root would refuse; another user's would not look at it. */
static AG_NOINLINE void look_at_privileges(const struct ag_model *m, struct ag_diags *diags)
{
    void (*tell)(struct ag_diags *, struct ag_pos, const char *, const char *, ...) =
        geteuid() == 0 ? ag_diag_error : ag_diag_warn;
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));
    struct ag_user user;
    struct stat st;

    if (m->user && ag_user_find(m->user, &user, &why) != AG_OK) {
        tell(diags, m->user_pos, NULL, "%.*s", (int)why.len, text);
    }
    if (m->chroot && (stat(m->chroot, &st) != 0 || !S_ISDIR(st.st_mode))) {
        tell(diags, m->chroot_pos, "an empty one will do, unless names of upstreams are looked up",
             "chroot: no directory %s", m->chroot);
    }
}

/* Its hint is a part of it. */
static AG_NOINLINE void look_at_memory(const struct ag_snapshot *snapshot, struct ag_diags *diags)
{
    char text[400];
    struct ag_buf why = ag_buf(text, sizeof(text));
    struct ag_sizing sizing;

    ag_sizing_compute(snapshot, &sizing);
    if (ag_sizing_excess(&sizing, &why)) {
        ag_diag_warn(diags, (struct ag_pos){0}, NULL, "%.*s", (int)why.len, text);
    }
}

/* A share of less than one connection is one. */
static AG_NOINLINE void look_at_shares(const struct ag_snapshot *snapshot, struct ag_diags *diags)
{
    const struct ag_model *m = snapshot->model;
    struct ag_sizing sizing;

    ag_sizing_compute(snapshot, &sizing);
    for (uint32_t i = 0; i < m->listen_count; i++) {
        const struct ag_listen *l = &m->listens[i];
        bool again = i > 0 && l->pos.source == l[-1].pos.source && l->pos.line == l[-1].pos.line &&
                     l->pos.col == l[-1].pos.col;

        if (l->limits.max_connections > 0 && l->limits.max_connections < sizing.shards && !again) {
            ag_diag_warn(
                diags, l->pos, "a larger one, or fewer server.workers",
                "max_connections: %u is fewer than there are shards: each of the %u lets one in",
                l->limits.max_connections, sizing.shards);
        }
    }
}

/* What a start would refuse in this system. */
static AG_NOINLINE void look_at_system(const struct ag_model *m, struct ag_diags *diags)
{
    char text[2 * AG_PIDFILE_PATH];
    struct ag_buf why = ag_buf(text, sizeof(text));

    look_at_privileges(m, diags);
    if (m->pid_file && ag_pidfile_look(m->pid_file, &why) != AG_OK) {
        ag_diag_error(diags, m->pid_file_pos, NULL, "pid_file: %.*s", (int)why.len, text);
    }
}

static void print_tree(const struct ag_load *load)
{
    struct ag_sizing sizing;
    uint8_t *room = malloc(REPORT_BYTES);
    struct ag_buf b = ag_buf(room, REPORT_BYTES);

    AG_ASSERT(room);
    ag_explain_tree(load->snapshot, &b, ag_colour_wanted(STDOUT_FILENO));
    ag_explain_tls(load->snapshot, &b);
    ag_explain_sections(load->snapshot, &b);
    ag_explain_limits(load->snapshot, &b);
    ag_sizing_compute(load->snapshot, &sizing);
    ag_sizing_describe(&sizing, &b);
    (void)fwrite(b.ptr, 1, b.len, stdout);
    free(room);
}

int ag_cmd_check(int argc, char **argv)
{
    struct ag_config_input in = {.env = (const char *const *)environ};
    const char *operands[1];
    const char *routes[AG_ARGS_REPEAT_MAX];
    size_t operand_count = 0;
    bool strict = false, json = false;
    struct ag_load load;
    int rc;
    const struct ag_option options[] = {
        {"--config", 'c', "FILE", "configuration: .yml .yaml .json or .gate",
         .out_value = &in.file},
        {"--route", 'r', "ROUTE", "one route; may be repeated", .out_values = routes,
         .out_count = &in.route_count},
        {"--format", 0, "FORMAT", "human (default) or json: one object per diagnosis",
         .out_json = &json},
        {"--strict", 0, NULL, "warnings are errors", .out_switch = &strict},
    };
    const struct ag_command command = {
        .usage = "anygate check -c FILE [--format human|json] [--strict]",
        .about = "Loads and validates a configuration without binding.",
        .example = "anygate check -c anygate.yml --strict",
        .options = options,
        .option_count = AG_COUNT(options),
        .operand_max = 0,
    };
    enum ag_args_result parsed = ag_args_parse(&command, argc, argv, operands, &operand_count);

    if (parsed != AG_ARGS_OK) {
        return parsed == AG_ARGS_HELP ? AG_EXIT_OK : AG_EXIT_USAGE;
    }
    if (!in.file && in.route_count == 0) {
        (void)fprintf(stderr, "anygate: error: no configuration\nusage: %s\n", command.usage);
        return AG_EXIT_USAGE;
    }
    in.routes = routes;
    ag_load_config(&load, &in);
    ag_load_open_tls(&load, 1, NULL);
    if (load.snapshot) {
        ag_explain_warnings(load.snapshot, &load.diags);
        look_at_system(load.snapshot->model, &load.diags);
        look_at_memory(load.snapshot, &load.diags);
        look_at_shares(load.snapshot, &load.diags);
        if (!json) {
            print_tree(&load);
            print_notes(load.snapshot->model);
        }
    }
    (void)fflush(stdout);
    ag_load_print(&load, json ? AG_DIAG_JSON : AG_DIAG_HUMAN);
    if (!json) {
        (void)printf("%u error%s, %u warning%s\n", load.diags.errors,
                     load.diags.errors == 1 ? "" : "s", load.diags.warnings,
                     load.diags.warnings == 1 ? "" : "s");
    }
    rc = !load.snapshot || load.diags.errors || (strict && load.diags.warnings) ? AG_EXIT_ERROR
                                                                                : AG_EXIT_OK;
    ag_load_release(&load);
    return rc;
}
