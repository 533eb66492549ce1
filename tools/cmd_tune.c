#include "engine/log.h"
#include "tools/args.h"
#include "tools/commands.h"
#include "tools/load.h"
#include "tools/tune.h"

#include <stdio.h>
#include <unistd.h>

#define REPORT_BYTES (64u * 1024u)

static void put(struct ag_buf *b, const char *text)
{
    ag_buf_put(b, ag_span_str(text));
}

/* `text` and spaces up to `width` columns, and two more. */
static void put_cell(struct ag_buf *b, const char *text, size_t width)
{
    size_t len = strlen(text);

    put(b, text);
    for (width += 2; len < width; len++) {
        ag_buf_putc(b, ' ');
    }
}

/* ---- for people ---- */

struct widths {
    size_t name, now, wanted;
};

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static struct widths measure(const struct ag_tune *t)
{
    struct widths w = {strlen("NAME"), strlen("NOW"), strlen("WANTED")};

    for (size_t i = 0; i < t->count; i++) {
        const struct ag_tune_result *r = &t->results[i];

        w.name = max_size(w.name, strlen(r->name));
        w.now = max_size(w.now, strlen(r->now));
        w.wanted = max_size(w.wanted, strlen(r->wanted));
    }
    return w;
}

static void put_state(struct ag_buf *b, enum ag_tune_state s, bool colour)
{
    static const char *const colours[] = {
        [AG_TUNE_GOOD] = "32",   [AG_TUNE_DIFFERS] = "1;33", [AG_TUNE_ABSENT] = "2",
        [AG_TUNE_UNKNOWN] = "2", [AG_TUNE_SET] = "1;32",     [AG_TUNE_FAILED] = "1;31",
    };

    if (colour) {
        ag_buf_printf(b, "\033[%sm", colours[s]);
    }
    put_cell(b, ag_tune_state_name(s), strlen("differs"));
    if (colour) {
        put(b, "\033[0m");
    }
}

static void put_table(struct ag_buf *b, const struct ag_tune *t, bool colour)
{
    struct widths w = measure(t);

    put_cell(b, "", strlen("differs"));
    put_cell(b, "NAME", w.name);
    put_cell(b, "NOW", w.now);
    put_cell(b, "WANTED", w.wanted);
    put(b, "WHY\n");
    for (size_t i = 0; i < t->count; i++) {
        const struct ag_tune_result *r = &t->results[i];

        put_state(b, r->state, colour);
        put_cell(b, r->name, w.name);
        put_cell(b, r->now, w.now);
        put_cell(b, r->wanted, w.wanted);
        put(b, r->check->why);
        if (r->note[0]) {
            ag_buf_printf(b, " (%s)", r->note);
        }
        ag_buf_putc(b, '\n');
    }
}

/* What is left to do by hand. */
static void put_hints(struct ag_buf *b, const struct ag_tune *t)
{
    size_t can = 0;
    bool any = false;

    for (size_t i = 0; i < t->count; i++) {
        const struct ag_tune_result *r = &t->results[i];

        if (r->state == AG_TUNE_DIFFERS && r->check->how) {
            put(b, any ? "" : "\nby hand:\n");
            ag_buf_printf(b, "  %s: %s\n", r->name, r->check->how);
            any = true;
        }
        can += r->state == AG_TUNE_DIFFERS && r->check->may_apply;
    }
    if (can) {
        ag_buf_printf(b, "\nanygate tune --apply sets %zu of them\n", can);
    }
}

/* The lines that make it last. */
static void put_sysctl_lines(struct ag_buf *b, const struct ag_tune *t)
{
    bool any = false;

    for (size_t i = 0; i < t->count; i++) {
        const struct ag_tune_result *r = &t->results[i];

        if (r->line[0]) {
            put(b, any ? "" : "\nto make it last, in /etc/sysctl.d/60-anygate.conf:\n\n");
            ag_buf_printf(b, "%s\n", r->line);
            any = true;
        }
    }
}

static void put_human(struct ag_buf *b, const struct ag_tune *t, bool colour)
{
    size_t counts[AG_TUNE_FAILED + 1] = {0};
    bool first = true;

    put_table(b, t, colour);
    put_sysctl_lines(b, t);
    put_hints(b, t);
    for (size_t i = 0; i < t->count; i++) {
        counts[t->results[i].state]++;
    }
    ag_buf_putc(b, '\n');
    for (unsigned s = 0; s < AG_COUNT(counts); s++) {
        if (counts[s]) {
            ag_buf_printf(b, "%s%zu %s", first ? "" : ", ", counts[s],
                          s == AG_TUNE_DIFFERS ? "differ" : ag_tune_state_name(s));
            first = false;
        }
    }
    ag_buf_putc(b, '\n');
}

/* ---- for programs ---- */

static void put_member(struct ag_buf *b, const char *name, const char *value)
{
    ag_buf_printf(b, "\"%s\":\"", name);
    ag_log_escape(b, ag_span_str(value));
    put(b, "\",");
}

static void put_json(struct ag_buf *b, const struct ag_tune *t)
{
    ag_buf_printf(b, "{\"good\":%s,\"checks\":[", ag_tune_is_good(t) ? "true" : "false");
    for (size_t i = 0; i < t->count; i++) {
        const struct ag_tune_result *r = &t->results[i];

        put(b, i ? ",\n{" : "\n{");
        put_member(b, "check", r->check->name);
        put_member(b, "name", r->name);
        put_member(b, "state", ag_tune_state_name(r->state));
        put_member(b, "now", r->now);
        put_member(b, "wanted", r->wanted);
        put_member(b, "why", r->check->why);
        put_member(b, "note", r->note);
        put_member(b, "how", r->check->how ? r->check->how : "");
        put_member(b, "sysctl", r->line);
        ag_buf_printf(b, "\"may_apply\":%s}", r->check->may_apply ? "true" : "false");
    }
    put(b, "\n]}\n");
}

/* ---- the command ---- */

static int report(const char *root, bool apply, bool json)
{
    struct ag_tune *t = calloc(1, sizeof(*t));
    uint8_t *room = malloc(REPORT_BYTES);
    struct ag_buf b = ag_buf(room, REPORT_BYTES);
    int rc;

    AG_ASSERT(t && room);
    ag_tune_run(t, root);
    if (apply) {
        ag_tune_apply(t);
    }
    if (json) {
        put_json(&b, t);
    } else {
        put_human(&b, t, ag_colour_wanted(STDOUT_FILENO));
    }
    AG_ASSERT(!b.overflow);
    (void)fwrite(b.ptr, 1, b.len, stdout);
    rc = fflush(stdout) == 0 && ag_tune_is_good(t) ? AG_EXIT_OK : AG_EXIT_ERROR;
    free(room);
    free(t);
    return rc;
}

int ag_cmd_tune(int argc, char **argv)
{
    const char *operands[1], *root = "";
    size_t operand_count = 0;
    bool apply = false, json = false;
    const struct ag_option options[] = {
        {"--apply", 0, NULL, "set the sysctls that differ; print the lines that make them last",
         .out_switch = &apply},
        {"--format", 0, "FORMAT", "human (default) or json", .out_json = &json},
        {"--root", 0, "DIR", "a host's root that is mounted here; default: this system",
         .out_value = &root},
    };
    const struct ag_command command = {
        .usage = "anygate tune [--apply] [--format human|json] [--root DIR]",
        .about = "Compares kernel, limits, cores, memory and network interfaces with what a busy\n"
                 "gateway wants: now, wanted, why. Exit 0: as wanted; 1: something differs.",
        .example = "anygate tune --apply",
        .options = options,
        .option_count = AG_COUNT(options),
        .operand_max = 0,
    };
    enum ag_args_result parsed = ag_args_parse(&command, argc, argv, operands, &operand_count);

    if (parsed != AG_ARGS_OK) {
        return parsed == AG_ARGS_HELP ? AG_EXIT_OK : AG_EXIT_USAGE;
    }
    if (root[0] && access(root, R_OK | X_OK) != 0) {
        (void)fprintf(stderr, "anygate: error: %s cannot be read\n", root);
        return AG_EXIT_USAGE;
    }
    return report(strcmp(root, "/") == 0 ? "" : root, apply, json);
}
