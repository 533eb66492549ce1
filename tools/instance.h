/*
 * instance: the running server that a command means: by its configuration's pid_file, by a pid file, or
 * by its number.
 */
#pragma once
#include "tools/args.h"
#include "tools/pidfile.h"

#include <sys/types.h>

struct ag_instance {
    /* What the command line says; NULL: not given. */
    const char *config, *pid_option, *pid_file_option;
    /* What was found. */
    pid_t pid;
    int fd;                         /* readable when it has ended */
    char pid_file[AG_PIDFILE_PATH]; /* "": known by its number alone */
    uint64_t drain_timeout_ms;      /* as configured, or the default */
};

#define AG_INSTANCE_OPTIONS(i)                                                            \
    {"--config", 'c', "FILE", "of the server: the configuration that names its pid_file", \
     .out_value = &(i)->config},                                                          \
        {"--pid-file", 0, "FILE", "where the server wrote its number",                    \
         .out_value = &(i)->pid_file_option},                                             \
    {                                                                                     \
        "--pid", 0, "NUMBER", "of the server's process", .out_value = &(i)->pid_option    \
    }

/* A command about one, whole: parses its arguments, finds the instance, runs `run` on it and lets go of it. Its exit
 * code. */
int ag_instance_command(struct ag_instance *i, const struct ag_command *command, int argc,
                        char **argv, int (*run)(struct ag_instance *));
/* Follows the pid file to a successor, when the process has ended in favour of one. */
bool ag_instance_follow(struct ag_instance *i);
/* False after an error was printed. */
bool ag_instance_signal(const struct ag_instance *i, int signal);
/* Waits until it ends, at most so long; true: it has. */
bool ag_instance_wait(const struct ag_instance *i, uint64_t timeout_ms);
void ag_instance_release(struct ag_instance *i);
