#include "tools/args.h"

#include "engine/span.h"

#include <stdio.h>

static void print_help(const struct ag_command *command)
{
    (void)printf("%s\n\nusage: %s\n\noptions:\n", command->about, command->usage);
    for (size_t i = 0; i < command->option_count; i++) {
        const struct ag_option *o = &command->options[i];
        char left[64];

        (void)snprintf(left, sizeof(left), "%c%c%s %s %s", o->letter ? '-' : ' ',
                       o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name,
                       o->value_name ? o->value_name : "");
        (void)printf("  %-26s %s\n", left, o->help);
    }
    (void)printf("  %-26s %s\n\nexample:\n  %s\n", "-h, --help", "this text", command->example);
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

static bool store_format(const char *value, bool *out_json)
{
    *out_json = strcmp(value, "json") == 0;
    if (!*out_json && strcmp(value, "human") != 0) {
        (void)fprintf(stderr, "anygate: error: unknown format %s; hint: human or json\n", value);
        return false;
    }
    return true;
}

/* Stores one option; false when its value is missing or wrong, or there are too many. */
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
    if (o->out_value && *o->out_value && (*o->out_value)[0]) { /* a preset is NULL or empty */
        (void)fprintf(stderr, "anygate: error: option %s is there twice: %s and %s\n", o->name,
                      *o->out_value, value);
        return false;
    }
    if (o->out_value) {
        *o->out_value = value;
        return true;
    }
    if (o->out_json) {
        return store_format(value, o->out_json);
    }
    if (*o->out_count == AG_ARGS_REPEAT_MAX) {
        (void)fprintf(stderr, "anygate: error: more than %u times %s; hint: use a config file\n",
                      AG_ARGS_REPEAT_MAX, o->name);
        return false;
    }
    o->out_values[(*o->out_count)++] = value;
    return true;
}

/* argv[*at] is an option; its value may be the next argument. False after a complaint. */
static bool take_option(const struct ag_command *command, int argc, char **argv, int *at)
{
    const char *arg = argv[*at];
    const char *equals = arg[1] == '-' ? strchr(arg, '=') : NULL;
    const char *value = equals ? equals + 1 : NULL;
    size_t name_len = equals ? (size_t)(equals - arg) : strlen(arg);
    const struct ag_option *o = find(command->options, command->option_count, arg, name_len);

    if (!o) {
        complain_unknown(arg, name_len, command->options, command->option_count);
        (void)fprintf(stderr, "usage: %s\n", command->usage);
        return false;
    }
    if (equals && o->out_switch) {
        (void)fprintf(stderr, "anygate: error: option %s takes no value\n", o->name);
        return false;
    }
    if (!value && !o->out_switch && *at + 1 < argc) {
        value = argv[++*at];
    }
    return store(o, value);
}

enum ag_args_result ag_args_parse(const struct ag_command *command, int argc, char **argv,
                                  const char **operands, size_t *out_operand_count)
{
    bool only_operands = false;
    size_t count = 0;

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];

        if (only_operands || arg[0] != '-' || arg[1] == '\0') {
            if (count == command->operand_max) {
                (void)fprintf(stderr, "anygate: error: unexpected argument %s\nusage: %s\n", arg,
                              command->usage);
                return AG_ARGS_USAGE;
            }
            operands[count++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            only_operands = true;
        } else if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) {
            print_help(command);
            return AG_ARGS_HELP;
        } else if (!take_option(command, argc, argv, &i)) {
            return AG_ARGS_USAGE;
        }
    }
    *out_operand_count = count;
    return AG_ARGS_OK;
}
