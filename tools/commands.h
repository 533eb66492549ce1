/* commands: one file each (cmd_*.c); argv[0] is the command's name. They return the exit status:
 * 0 good, 1 errors (bad config, busy port), 2 usage. */
#pragma once

#define AG_EXIT_OK    0
#define AG_EXIT_ERROR 1
#define AG_EXIT_USAGE 2

#define AG_VERSION "0.1.0"

int ag_cmd_serve(int argc, char **argv);
int ag_cmd_check(int argc, char **argv);
int ag_cmd_routes(int argc, char **argv);
int ag_cmd_tune(int argc, char **argv);
int ag_cmd_reload(int argc, char **argv);
int ag_cmd_stop(int argc, char **argv);
int ag_cmd_version(int argc, char **argv);
