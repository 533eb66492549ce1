#include "tools/args.h"

#include "engine/span.h"

#include <stdio.h>

static void print_help(const struct ag_command_help *help, const struct ag_option *options,
                       size_t count)
{
    (void)printf("%s\n\nusage: %s\n", help->about, help->usage);
    if (count) {
        (void)printf("\noptions:\n");
    }
    for (size_t i = 0; i < count; i++) {
        const struct ag_option *o = &options[i];
        char left[64];

        (void)snprintf(left, sizeof(left), "%c%c%s %s %s", o->letter ? '-' : ' ',
                       o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name,
                       o->value_name ? o->value_name : "");
        (void)printf("  %-26s %s\n", left, o->help);
    }
    (void)printf("  %-26s %s\n\nexample:\n  %s\n", "-h, --help", "this text", help->example);
}

static const struct ag_option *find(const struct ag_option *options, size_t count, const char *arg,
                                    size_t name_len)
{
    for (size_t i = 0; i < count; i++) {
        const struct ag_option *o = &options[i];

        if (strlen(o->name) == name_len && strncmp(o->name, arg, name_len) == 0) {
            return o;
        }
        if (o->letter && arg[0] == '-' && arg[1] == o->letter && arg[2] == '\0') {
            return o;
        }
    }
    return NULL;
}

static void complain_unknown(const char *arg, size_t name_len, const struct ag_option *options,
                             size_t count)
{
    const char *near = NULL;
    unsigned best = 4;

    for (size_t i = 0; i < count; i++) {
        unsigned d = ag_span_distance(ag_span(arg, name_len), ag_span_str(options[i].name), best);

        if (d < best) {
            best = d;
            near = options[i].name;
        }
    }
    (void)fprintf(stderr, "anygate: error: unknown option %.*s", (int)name_len, arg);
    if (near) {
        (void)fprintf(stderr, "; hint: did you mean %s?", near);
    }
    (void)fprintf(stderr, "\n");
}

/* Stores one option; false when its value is missing or there are too many. */
static bool store(const struct ag_option *o, const char *value)
{
    if (o->out_switch) {
        *o->out_switch = true;
        return true;
    }
    if (!value) {
        (void)fprintf(stderr, "anygate: error: option %s needs a value: %s %s\n", o->name, o->name,
                      o->value_name);
        return false;
    }
    if (o->out_value) {
        *o->out_value = value;
        return true;
    }
    if (*o->out_count == AG_ARGS_REPEAT_MAX) {
        (void)fprintf(stderr, "anygate: error: more than %u times %s; hint: use a config file\n",
                      AG_ARGS_REPEAT_MAX, o->name);
        return false;
    }
    o->out_values[(*o->out_count)++] = value;
    return true;
}

enum ag_args_result ag_args_parse(int argc, char **argv, const struct ag_command_help *help,
                                  const struct ag_option *options, size_t option_count,
                                  const char **operands, size_t operand_max,
                                  size_t *out_operand_count)
{
    bool only_operands = false;

    *out_operand_count = 0;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *equals;
        const struct ag_option *o;
        size_t name_len;

        if (only_operands || arg[0] != '-' || arg[1] == '\0') {
            if (*out_operand_count == operand_max) {
                (void)fprintf(stderr, "anygate: error: unexpected argument %s\nusage: %s\n", arg,
                              help->usage);
                return AG_ARGS_USAGE;
            }
            operands[(*out_operand_count)++] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_operands = true;
            continue;
        }
        if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) {
            print_help(help, options, option_count);
            return AG_ARGS_HELP;
        }
        equals = arg[1] == '-' ? strchr(arg, '=') : NULL;
        name_len = equals ? (size_t)(equals - arg) : strlen(arg);
        o = find(options, option_count, arg, name_len);
        if (!o) {
            complain_unknown(arg, name_len, options, option_count);
            (void)fprintf(stderr, "usage: %s\n", help->usage);
            return AG_ARGS_USAGE;
        }
        if (equals && o->out_switch) {
            (void)fprintf(stderr, "anygate: error: option %s takes no value\n", o->name);
            return AG_ARGS_USAGE;
        }
        const char *value = equals ? equals + 1 : NULL;
        if (!value && !o->out_switch && i + 1 < argc) {
            value = argv[++i];
        }
        if (!store(o, value)) {
            return AG_ARGS_USAGE;
        }
    }
    return AG_ARGS_OK;
}
