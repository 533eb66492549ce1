/*
 * args: command lines, from a table. Unknown options get a suggestion; `-h` and `--help` print the
 * table with an example.
 */
#pragma once
#include "engine/base.h"

#define AG_ARGS_REPEAT_MAX 128u

struct ag_option {
    const char *name;       /* "--config" */
    char letter;            /* 'c', or 0 */
    const char *value_name; /* "FILE"; NULL: a switch */
    const char *help;
    /* Where it goes; exactly one is set. Values are borrowed from argv. */
    bool *out_switch;
    const char **out_value;
    bool *out_json;          /* "human" or "json" */
    const char **out_values; /* repeatable: room for AG_ARGS_REPEAT_MAX */
    size_t *out_count;       /* with out_values */
};

struct ag_command {
    const char *usage;   /* "anygate check -c FILE [--strict]" */
    const char *about;   /* one line */
    const char *example; /* a line that works */
    const struct ag_option *options;
    size_t option_count;
    size_t operand_max;
};

enum ag_args_result { AG_ARGS_OK, AG_ARGS_HELP, AG_ARGS_USAGE };

/* Reads argv[1..]; what is no option goes into `operands` (room for operand_max). AG_ARGS_HELP: help
 * went to stdout; exit 0. AG_ARGS_USAGE: the mistake went to stderr; exit 2. */
enum ag_args_result ag_args_parse(const struct ag_command *command, int argc, char **argv,
                                  const char **operands, size_t *out_operand_count);
