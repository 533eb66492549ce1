#include "tools/upgrade.h"

#include "tools/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLE         "ANYGATE_UPGRADE"
#define CHILD_FD         3 /* of the channel, in the successor */
#define TICKETS_VARIABLE "ANYGATE_TICKETS"
#define TICKETS_FD       4 /* of its memory file there */
#define ARGUMENTS_MAX    (1u << 20)
#define PROGRAM_BYTES    1024u

/* ---- how it was started ---- */

static bool is_own_binary(const char *path)
{
    struct stat own, other;

    return stat("/proc/self/exe", &own) == 0 && stat(path, &other) == 0 &&
           own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

/* `dir` "/" `name`, when that is what runs. An empty directory is the working one. */
static char *own_binary_in(struct ag_span dir, const char *name)
{
    char path[PROGRAM_BYTES], cwd[PROGRAM_BYTES] = "";
    int n;

    if ((dir.len == 0 || dir.ptr[0] != '/') && !getcwd(cwd, sizeof(cwd))) {
        return NULL;
    }
    n = snprintf(path, sizeof(path), "%s%s%.*s%s%s", cwd, cwd[0] ? "/" : "", (int)dir.len,
                 (const char *)dir.ptr, dir.len ? "/" : "", name);
    return n > 0 && (size_t)n < sizeof(path) && is_own_binary(path) ? strdup(path) : NULL;
}

/* As a shell finds it. */
static char *own_binary_on_path(const char *name)
{
    const char *path = getenv("PATH"); /* NOLINT(concurrency-mt-unsafe): before any thread */
    char *found = NULL;

    while (path && !found) {
        size_t len = strcspn(path, ":");

        found = own_binary_in(ag_span(path, len), name);
        path = path[len] ? path + len + 1 : NULL;
    }
    return found;
}

/* The kernel's name of the file: links are resolved, so a link that an installer moves to another
 * release is not followed. The last resort. */
static char *binary_by_kernel(void)
{
    static const char deleted[] = " (deleted)";
    char path[PROGRAM_BYTES];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    if (n <= 0) {
        return NULL;
    }
    path[n] = '\0';
    size_t tail = sizeof(deleted) - 1;
    if ((size_t)n > tail && strcmp(path + n - tail, deleted) == 0) {
        path[(size_t)n - tail] = '\0';
    }
    return strdup(path);
}

static char *find_program(const char *name)
{
    char *found;

    if (name[0] == '/') {
        found = is_own_binary(name) ? strdup(name) : NULL;
    } else if (strchr(name, '/')) {
        found = own_binary_in(AG_SPAN(""), strncmp(name, "./", 2) == 0 ? name + 2 : name);
    } else {
        found = own_binary_on_path(name);
    }
    return found ? found : binary_by_kernel();
}

/* All of /proc/self/cmdline: arguments, each with its NUL. */
static char *read_arguments(size_t *out_len)
{
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    char *text = malloc(ARGUMENTS_MAX);
    size_t len = 0;
    ssize_t n = 1;

    AG_ASSERT(text);
    while (fd >= 0 && n > 0 && len < ARGUMENTS_MAX) {
        n = read(fd, text + len, ARGUMENTS_MAX - len);
        len += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (len == 0 || len == ARGUMENTS_MAX || text[len - 1] != '\0') {
        free(text);
        return NULL;
    }
    *out_len = len;
    return text;
}

static char **split_arguments(char *text, size_t len)
{
    size_t count = 0;
    char **argv;

    for (size_t i = 0; i < len; i++) {
        count += text[i] == '\0';
    }
    argv = calloc(count + 1, sizeof(*argv));
    AG_ASSERT(argv);
    for (size_t i = 0, at = 0; i < count; i++) {
        argv[i] = text + at;
        at += strlen(text + at) + 1;
    }
    return argv;
}

/* What a successor must not see: it has another number, and gets its sockets in another way. */
static bool is_private(const char *variable)
{
    static const char *const names[] = {VARIABLE,         "LISTEN_PID",     "LISTEN_FDS",
                                        TICKETS_VARIABLE, "LISTEN_FDNAMES", "WATCHDOG_PID"};
    size_t len = strcspn(variable, "=");

    for (size_t i = 0; i < AG_COUNT(names); i++) {
        if (strlen(names[i]) == len && strncmp(variable, names[i], len) == 0) {
            return true;
        }
    }
    return false;
}

static char **copy_environment(char ***out_tickets)
{
    static char channel[] = VARIABLE "=3";
    size_t count = 0, kept = 0;
    char **env;

    _Static_assert(CHILD_FD == 3, "as the variable says");
    while (environ[count]) {
        count++;
    }
    env = calloc(count + 3, sizeof(*env));
    AG_ASSERT(env);
    for (size_t i = 0; i < count; i++) {
        if (!is_private(environ[i])) {
            env[kept++] = environ[i];
        }
    }
    env[kept++] = channel;
    *out_tickets = &env[kept]; /* set for a successor that gets some */
    return env;
}

void ag_upgrade_init(struct ag_upgrade *u)
{
    size_t len = 0;

    *u = (struct ag_upgrade){.child_fd = -1, .channel = -1, .tickets_fd = -1};
    (void)pthread_sigmask(SIG_SETMASK, NULL, &u->mask);
    u->env = copy_environment(&u->tickets_env);
    u->arguments = read_arguments(&len);
    if (u->arguments) {
        u->argv = split_arguments(u->arguments, len);
        u->program = find_program(u->arguments);
    }
}

static void close_tickets(struct ag_upgrade *u)
{
    if (u->tickets_fd >= 0) {
        (void)close(u->tickets_fd);
    }
    u->tickets_fd = -1;
}

void ag_upgrade_deinit(struct ag_upgrade *u)
{
    ag_upgrade_abort(u);
    free(u->program);
    free(u->argv);
    free(u->arguments);
    free(u->env);
    close_tickets(u);
    *u = (struct ag_upgrade){.child_fd = -1, .channel = -1, .tickets_fd = -1};
}

/* ---- the successor ---- */

static void let_go(struct ag_upgrade *u)
{
    if (u->channel >= 0) {
        (void)close(u->channel);
    }
    if (u->child_fd >= 0) {
        (void)close(u->child_fd);
    }
    u->channel = u->child_fd = -1;
    u->child = 0;
}

/* errno values, 0: started. The channel's end becomes CHILD_FD; all else of ours is close-on-exec. */
static int spawn(struct ag_upgrade *u, int channel)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    int error;

    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGPIPE);
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return ENOMEM;
    }
    if (posix_spawnattr_init(&attributes) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return ENOMEM;
    }
    static char tickets[] = TICKETS_VARIABLE "=4";

    _Static_assert(TICKETS_FD == 4, "as the variable says");
    error = posix_spawn_file_actions_adddup2(&actions, channel, CHILD_FD);
    if (error == 0 && u->tickets_fd >= 0) {
        error = posix_spawn_file_actions_adddup2(&actions, u->tickets_fd, TICKETS_FD);
    }
    if (error == 0) {
        *u->tickets_env = u->tickets_fd >= 0 ? tickets : NULL;
        (void)posix_spawnattr_setsigmask(&attributes, &u->mask);
        (void)posix_spawnattr_setsigdefault(&attributes, &defaults);
        (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        error = posix_spawn(&u->child, u->program, &actions, &attributes, u->argv, u->env);
    }
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return error;
}

enum ag_status ag_upgrade_start(struct ag_upgrade *u, struct ag_buf *why)
{
    int ends[2], error;

    AG_ASSERT(u->child == 0);
    if (!u->program) {
        ag_buf_printf(why, "how this process was started is not known (no /proc)");
        return AG_ESYS;
    }
    if (ag_handover_pair(ends) != AG_OK) {
        ag_buf_printf(why, "no channel to a new process: %s", strerrordesc_np(errno));
        return AG_ESYS;
    }
    u->cursor = (struct ag_handover_cursor){0};
    u->offered = false;
    error = spawn(u, ends[1]);
    (void)close(ends[1]);
    close_tickets(u);
    u->channel = ends[0];
    if (error != 0) {
        u->child = 0;
        let_go(u);
        ag_buf_printf(why, "cannot start %s: %s", u->program, strerrordesc_np(error));
        return AG_ESYS;
    }
    u->child_fd = ag_pidfile_watch(u->child);
    if (u->child_fd < 0) {
        error = errno;
        ag_upgrade_abort(u);
        ag_buf_printf(why, "cannot watch the new process: %s", strerrordesc_np(error));
        return AG_ESYS;
    }
    return AG_OK;
}

static void say_never(const struct ag_upgrade *u)
{
    if (u->channel >= 0) {
        (void)!ag_handover_say(u->channel, AG_HANDOVER_NEVER);
    }
}

void ag_upgrade_abort(struct ag_upgrade *u)
{
    if (u->child == 0) {
        return;
    }
    say_never(u); /* to what the new process has started in its turn */
    (void)kill(u->child, SIGKILL);
    (void)waitpid(u->child, NULL, 0);
    let_go(u);
}

static enum ag_upgrade_event give_up(struct ag_upgrade *u, const char *what, struct ag_buf *why)
{
    ag_buf_printf(why, "%s %s", u->program, what);
    ag_upgrade_abort(u);
    return AG_UPGRADE_FAILED;
}

/* True when it has: then it is forgotten, and `why` says how. */
static bool has_ended(struct ag_upgrade *u, struct ag_buf *why)
{
    int status = 0;

    if (waitpid(u->child, &status, WNOHANG) != u->child) {
        return false;
    }
    if (WIFEXITED(status)) {
        ag_buf_printf(why, "%s ended with exit code %d", u->program, WEXITSTATUS(status));
    } else {
        ag_buf_printf(why, "%s was ended by signal %d (%s)", u->program, WTERMSIG(status),
                      sigdescr_np(WTERMSIG(status)));
    }
    say_never(u);
    let_go(u);
    return true;
}

enum ag_upgrade_event ag_upgrade_step(struct ag_upgrade *u, const struct ag_sockets *s,
                                      struct ag_handover_ready *out_ready, struct ag_buf *why)
{
    enum ag_handover_word word = AG_HANDOVER_NEVER;
    enum ag_status st;

    AG_ASSERT(u->child != 0);
    if (has_ended(u, why)) {
        return AG_UPGRADE_FAILED;
    }
    if (u->channel < 0) {
        return AG_UPGRADE_NOTHING;
    }
    /* One that has ended is gone, or leaves unread what was sent: how it ended is to be seen. */
    if (!u->cursor.ended && ag_handover_send(u->channel, s, &u->cursor) == AG_ESYS &&
        errno != EPIPE && errno != ECONNRESET) {
        return give_up(u, strerrordesc_np(errno), why);
    }
    st = ag_handover_hear(u->channel, &word, out_ready);
    if (st == AG_ENOENT) {
        /* It ends, and how is to be seen; or it does nothing until time is up. */
        (void)close(u->channel);
        u->channel = -1;
    }
    if (st == AG_AGAIN || st == AG_ENOENT) {
        return AG_UPGRADE_NOTHING;
    }
    if (st == AG_OK && word == AG_HANDOVER_READY && !u->offered) {
        return AG_UPGRADE_READY;
    }
    if (st == AG_OK && word == AG_HANDOVER_TAKEN && u->offered) {
        let_go(u);
        return AG_UPGRADE_TAKEN;
    }
    return give_up(u, "says what this release does not understand", why);
}

void ag_upgrade_offer(struct ag_upgrade *u)
{
    u->offered = true;
    (void)!ag_handover_say(u->channel, AG_HANDOVER_YOURS);
}

bool ag_upgrade_await_taken(struct ag_upgrade *u, int timeout_ms)
{
    struct pollfd fd = {.fd = u->channel, .events = POLLIN};
    enum ag_handover_word word = AG_HANDOVER_NEVER;
    struct ag_handover_ready unused;

    /* Signals are read from a descriptor: nothing interrupts it. */
    if (!u->offered || u->channel < 0 || poll(&fd, 1, timeout_ms) <= 0 ||
        ag_handover_hear(u->channel, &word, &unused) != AG_OK || word != AG_HANDOVER_TAKEN) {
        return false;
    }
    let_go(u);
    return true;
}

enum ag_status ag_upgrade_inherit(int *out_channel)
{
    const char *text = getenv(VARIABLE); /* NOLINT(concurrency-mt-unsafe): before any thread */
    socklen_t len = sizeof(int);
    uint64_t fd = 0;
    int type = 0;

    if (!text) {
        *out_channel = -1;
        return AG_OK;
    }
    if (ag_span_u64(ag_span_str(text), &fd) != AG_OK || fd > INT_MAX ||
        getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_SEQPACKET ||
        fcntl((int)fd, F_SETFD, FD_CLOEXEC) != 0) {
        return AG_EINVAL;
    }
    (void)unsetenv(VARIABLE); /* NOLINT(concurrency-mt-unsafe): before any thread */
    *out_channel = (int)fd;
    return AG_OK;
}

/* ---- ticket keys ---- */

void ag_upgrade_give_tickets(struct ag_upgrade *u, struct ag_span text)
{
    int fd;

    close_tickets(u);
    if (text.len == 0) {
        return;
    }
    fd = memfd_create("anygate-tickets", MFD_CLOEXEC);
    if (fd >= 0 && write(fd, text.ptr, text.len) == (ssize_t)text.len) {
        /* Out of the way of what a child's descriptors are to be. */
        u->tickets_fd = fcntl(fd, F_DUPFD_CLOEXEC, TICKETS_FD + 1);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
}

void ag_upgrade_inherit_tickets(struct ag_buf *out)
{
    const char *text =
        getenv(TICKETS_VARIABLE); /* NOLINT(concurrency-mt-unsafe): before any thread */
    uint64_t fd = 0;
    ssize_t n;

    if (!text) {
        return;
    }
    if (ag_span_u64(ag_span_str(text), &fd) == AG_OK && fd > STDERR_FILENO && fd <= INT_MAX &&
        fcntl((int)fd, F_GET_SEALS) >= 0) { /* a memory file, and nobody's own descriptor */
        n = pread((int)fd, out->ptr + out->len, out->cap - out->len, 0);
        out->len += n > 0 ? (size_t)n : 0;
        (void)close((int)fd);
    }
    (void)unsetenv(TICKETS_VARIABLE); /* NOLINT(concurrency-mt-unsafe): before any thread */
}
