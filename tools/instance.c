#include "tools/instance.h"

#include "router/model.h"
#include "tools/commands.h"
#include "tools/load.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DRAIN_TIMEOUT_MS 30000u

static AG_PRINTF(1, 2) int complain(const char *fmt, ...)
{
    va_list args;

    (void)fprintf(stderr, "anygate: error: ");
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fprintf(stderr, "\n");
    return AG_EXIT_ERROR;
}

static int set_pid_file(struct ag_instance *i, const char *path)
{
    int n = snprintf(i->pid_file, sizeof(i->pid_file), "%s", path);

    return n > 0 && (size_t)n < sizeof(i->pid_file) - 32
               ? AG_EXIT_OK
               : complain("the path of the pid file is empty or too long: %.60s", path);
}

/* Mistakes elsewhere in the file are no obstacle: the server is to say what it makes of them. */
static int read_config(struct ag_instance *i)
{
    struct ag_config_input in = {.file = i->config, .env = (const char *const *)environ};
    struct ag_load load = {0};
    const struct ag_model *m = NULL;
    const char *base_dir = "";
    struct ag_node *root;
    int rc;

    ag_arena_init(&load.arena, NULL, 0);
    ag_diags_init(&load.diags, &load.arena);
    root = ag_config_load(&in, &load.diags, &base_dir);
    if (root) {
        m = ag_model_read(root, &load.diags);
    }
    if (m && m->pid_file) {
        i->drain_timeout_ms = m->drain_timeout_ms;
        rc = set_pid_file(i, m->pid_file);
    } else {
        ag_load_print(&load, AG_DIAG_HUMAN);
        rc = !m ? AG_EXIT_ERROR
                : complain("%s does not tell server.pid_file; hint: add it, or name the server by "
                           "--pid-file or --pid",
                           i->config);
    }
    ag_load_release(&load);
    return rc;
}

/* Whoever has the number now: the descriptor is opened first, so that it cannot become another's
 * between the look and the signal. */
static int take(struct ag_instance *i, pid_t pid)
{
    i->pid = pid;
    i->fd = ag_pidfile_watch(pid);
    if (i->fd < 0) {
        return errno == ESRCH ? complain("no process %d runs%s%s", (int)pid,
                                         i->pid_file[0] ? "; it has left " : "", i->pid_file)
                              : complain("process %d: %s", (int)pid, strerrordesc_np(errno));
    }
    return ag_pidfile_is_anygate(pid)
               ? AG_EXIT_OK
               : complain("process %d is not an anygate%s%s", (int)pid,
                          i->pid_file[0] ? "; a dead one has left " : "", i->pid_file);
}

static int read_pid_file(struct ag_instance *i)
{
    pid_t pid = 0;
    enum ag_status st = ag_pidfile_read(i->pid_file, &pid);

    if (st == AG_ENOENT) {
        return complain("no server runs: there is no %s%s", i->pid_file,
                        i->pid_file_option ? ""
                                           : "; hint: when pid_file has changed since it started, "
                                             "name the server by --pid-file or --pid");
    }
    if (st == AG_EINVAL) {
        return complain("%s does not hold the number of a process", i->pid_file);
    }
    if (st != AG_OK) {
        return complain("cannot read %s: %s", i->pid_file, strerrordesc_np(errno));
    }
    return take(i, pid);
}

/* Finds it and makes sure that it is an anygate. AG_EXIT_OK, or the exit code after an error was printed. */
static int find(struct ag_instance *i)
{
    uint64_t pid = 0;
    int rc = AG_EXIT_OK;

    i->fd = -1;
    i->pid_file[0] = '\0';
    i->drain_timeout_ms = DRAIN_TIMEOUT_MS;
    if (!i->config && !i->pid_option && !i->pid_file_option) {
        (void)complain("which server? hint: name it by -c FILE, --pid-file FILE or --pid NUMBER");
        return AG_EXIT_USAGE;
    }
    if (i->pid_option &&
        (ag_span_u64(ag_span_str(i->pid_option), &pid) != AG_OK || pid == 0 || pid > INT_MAX)) {
        (void)complain("--pid %.40s is not the number of a process", i->pid_option);
        return AG_EXIT_USAGE;
    }
    if (i->pid_file_option) {
        rc = set_pid_file(i, i->pid_file_option);
    } else if (i->config) {
        rc = read_config(i);
    }
    if (rc != AG_EXIT_OK) {
        return rc;
    }
    return i->pid_option ? take(i, (pid_t)pid) : read_pid_file(i);
}

int ag_instance_command(struct ag_instance *i, const struct ag_command *command, int argc,
                        char **argv, int (*run)(struct ag_instance *))
{
    size_t operand_count = 0;
    enum ag_args_result parsed = ag_args_parse(command, argc, argv, NULL, &operand_count);
    int rc;

    if (parsed != AG_ARGS_OK) {
        return parsed == AG_ARGS_HELP ? AG_EXIT_OK : AG_EXIT_USAGE;
    }
    rc = find(i);
    if (rc == AG_EXIT_OK) {
        rc = run(i);
    }
    ag_instance_release(i);
    return rc;
}

bool ag_instance_follow(struct ag_instance *i)
{
    pid_t pid = 0;
    int fd;

    if (!i->pid_file[0] || ag_pidfile_read(i->pid_file, &pid) != AG_OK || pid == i->pid) {
        return false;
    }
    fd = ag_pidfile_watch(pid);
    if (fd < 0) {
        return false;
    }
    ag_instance_release(i);
    i->fd = fd;
    i->pid = pid;
    return ag_pidfile_is_anygate(pid);
}

bool ag_instance_signal(const struct ag_instance *i, int signal)
{
    if (syscall(SYS_pidfd_send_signal, i->fd, signal, NULL, 0) == 0) {
        return true;
    }
    (void)complain("cannot signal process %d: %s%s", (int)i->pid, strerrordesc_np(errno),
                   errno == EPERM ? "; hint: it is another user's" : "");
    return false;
}

bool ag_instance_wait(const struct ag_instance *i, uint64_t timeout_ms)
{
    struct pollfd p = {.fd = i->fd, .events = POLLIN};

    return poll(&p, 1, (int)ag_min_u64(timeout_ms, INT_MAX)) == 1;
}

void ag_instance_release(struct ag_instance *i)
{
    if (i->fd >= 0) {
        (void)close(i->fd);
    }
    i->fd = -1;
}
