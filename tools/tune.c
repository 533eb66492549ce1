#include "tools/tune.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* docs/TUNING.md tells more of each line. */
static const struct ag_tune_check profile[] = {
    {.name = "net.core.somaxconn",
     .want = AG_TUNE_AT_LEAST,
     .low = 4096,
     .why = "connections that wait for a shard; anygate asks for 4096",
     .may_apply = true},
    {.name = "net.ipv4.tcp_max_syn_backlog",
     .want = AG_TUNE_AT_LEAST,
     .low = 8192,
     .why = "handshakes under way; a client beyond it waits a second",
     .may_apply = true},
    {.name = "net.ipv4.tcp_syncookies",
     .want = AG_TUNE_AT_LEAST,
     .low = 1,
     .why = "a flood of SYNs must not lock clients out",
     .may_apply = true},
    {.name = "net.core.netdev_max_backlog",
     .want = AG_TUNE_AT_LEAST,
     .low = 4096,
     .why = "packets that wait for a core; beyond it they are lost",
     .may_apply = true},
    {.name = "net.ipv4.ip_local_port_range",
     .want = AG_TUNE_RANGE,
     .low = 10240,
     .high = 65535,
     .why = "ports for connections to one upstream address",
     .may_apply = true},
    {.name = "net.ipv4.tcp_tw_reuse",
     .want = AG_TUNE_EXACTLY,
     .low = 1,
     .why = "ports of ended connections are free again after a second",
     .may_apply = true},
    {.name = "net.ipv4.tcp_fin_timeout",
     .want = AG_TUNE_AT_MOST,
     .low = 60,
     .why = "seconds that a socket half closed stays behind",
     .may_apply = true},
    {.name = "net.ipv4.tcp_slow_start_after_idle",
     .want = AG_TUNE_EXACTLY,
     .low = 0,
     .why = "kept connections are as fast after a pause as before",
     .may_apply = true},
    {.name = "net.ipv4.tcp_rmem",
     .want = AG_TUNE_MAXIMUM,
     .low = 6291456,
     .why = "uploads over a long way use the line",
     .may_apply = true},
    {.name = "net.ipv4.tcp_wmem",
     .want = AG_TUNE_MAXIMUM,
     .low = 4194304,
     .why = "downloads over a long way use the line",
     .may_apply = true},
    {.name = "net.netfilter.nf_conntrack_max",
     .want = AG_TUNE_AT_LEAST,
     .low = 262144,
     .why = "a full table of tracked connections drops packets",
     .may_apply = true},
    {.name = "fs.file-max",
     .want = AG_TUNE_AT_LEAST,
     .low = 1048576,
     .why = "open files of the whole system",
     .may_apply = true},
    {.name = "fs.nr_open",
     .want = AG_TUNE_AT_LEAST,
     .low = 1048576,
     .why = "bounds every process's limit of open files",
     .may_apply = true},
    {.name = "vm.overcommit_memory",
     .want = AG_TUNE_AT_MOST,
     .low = 1,
     .how = "a policy: not set by --apply",
     .why = "pools are mapped whole and touched as needed"},
    {.name = "kernel.io_uring_disabled",
     .want = AG_TUNE_EXACTLY,
     .low = 0,
     .how = "a policy: not set by --apply",
     .why = "else epoll serves, with more system calls"},
    {.name = "kernel.release",
     .want = AG_TUNE_WORDS,
     .words = "at least 6.1",
     .how = "older ones are served by epoll; at least 5.15",
     .why = "io_uring as anygate uses it",
     .look = ag_tune_look_release},
    {.name = "kernel.backend",
     .want = AG_TUNE_WORDS,
     .words = "io_uring",
     .how = "anygate version tells why it is epoll",
     .why = "fewer system calls than epoll",
     .look = ag_tune_look_backend},
    {.name = "limit.nofile",
     .want = AG_TUNE_AT_LEAST,
     .low = 65536,
     .how = "LimitNOFILE= of the unit, ulimit -Hn, docker --ulimit",
     .why = "a proxied connection takes two; anygate raises soft to hard",
     .look = ag_tune_look_nofile},
    {.name = "limit.memlock",
     .want = AG_TUNE_AT_LEAST,
     .low = 8388608,
     .how = "LimitMEMLOCK= of the unit, ulimit -Hl, docker --ulimit",
     .why = "bytes that io_uring may pin; too few: epoll",
     .look = ag_tune_look_memlock},
    {.name = "cpu.affinity",
     .want = AG_TUNE_WORDS,
     .words = "every core online",
     .how = "CPUAffinity= of the unit, taskset, cpuset",
     .why = "a shard for each core that it may use",
     .look = ag_tune_look_affinity},
    {.name = "cpu.quota",
     .want = AG_TUNE_WORDS,
     .words = "none, or every core",
     .how = "CPUQuota= of the unit, limits.cpu, or fewer server.workers",
     .why = "a shard without time stalls all its connections",
     .look = ag_tune_look_quota},
    {.name = "cpu.governor",
     .want = AG_TUNE_WORDS,
     .words = "performance",
     .how = "cpupower frequency-set -g performance",
     .why = "a core that sleeps slows the first requests after a pause",
     .look = ag_tune_look_governor},
    {.name = "memory.thp",
     .want = AG_TUNE_WORDS,
     .words = "madvise or never",
     .how = "/sys/kernel/mm/transparent_hugepage/enabled",
     .why = "pools touched here and there must not take 2 MB each time",
     .look = ag_tune_look_thp},
    {.name = "memory.thp_defrag",
     .want = AG_TUNE_WORDS,
     .words = "not always",
     .how = "/sys/kernel/mm/transparent_hugepage/defrag",
     .why = "no shard may wait while memory is moved",
     .look = ag_tune_look_thp_defrag},
    {.name = "nic.*.interrupts",
     .want = AG_TUNE_WORDS,
     .words = "a core for each queue",
     .how = "irqbalance, or /proc/irq/N/smp_affinity_list",
     .why = "one core that takes all interrupts bounds the rest",
     .look = ag_tune_look_interrupts},
    {.name = "nic.*.steering",
     .want = AG_TUNE_WORDS,
     .words = "a queue or rps for each core",
     .how = "ethtool -L NIC combined N, or queues/rx-*/rps_cpus",
     .why = "packets are worked on where their shard is",
     .look = ag_tune_look_steering},
};

_Static_assert(AG_COUNT(profile) < AG_TUNE_RESULTS_MAX, "room for several interfaces");

/* ---- files ---- */

static enum ag_status status_of(int error)
{
    return error == ENOENT || error == ENOTDIR ? AG_ENOENT
           : error == EACCES || error == EPERM ? AG_EACCES
                                               : AG_ESYS;
}

bool ag_tune_path(const struct ag_tune *t, const char *path, char out[static AG_TUNE_PATH_MAX])
{
    int n = snprintf(out, AG_TUNE_PATH_MAX, "%s%s", t->root, path);

    return n > 0 && n < (int)AG_TUNE_PATH_MAX;
}

enum ag_status ag_tune_read(const struct ag_tune *t, const char *path,
                            char out[static AG_TUNE_VALUE_MAX])
{
    char whole[AG_TUNE_PATH_MAX];
    ssize_t n;
    int fd;

    if (!ag_tune_path(t, path, whole)) {
        return AG_ENOENT;
    }
    fd = open(whole, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return status_of(errno);
    }
    n = read(fd, out, AG_TUNE_VALUE_MAX - 1);
    if (n < 0) {
        enum ag_status st = status_of(errno);

        (void)close(fd);
        return st;
    }
    (void)close(fd);
    while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == ' ')) {
        n--;
    }
    out[n] = '\0';
    return AG_OK;
}

/* ---- results ---- */

static void put_wanted(const struct ag_tune_check *c, char *out, size_t size)
{
    unsigned long long low = c->low, high = c->high;

    switch (c->want) {
    case AG_TUNE_AT_LEAST:
        (void)snprintf(out, size, "at least %llu", low);
        return;
    case AG_TUNE_AT_MOST:
        (void)snprintf(out, size, "at most %llu", low);
        return;
    case AG_TUNE_EXACTLY:
        (void)snprintf(out, size, "%llu", low);
        return;
    case AG_TUNE_RANGE:
        (void)snprintf(out, size, "%llu to %llu", low, high);
        return;
    case AG_TUNE_MAXIMUM:
        (void)snprintf(out, size, "maximum at least %llu", low);
        return;
    case AG_TUNE_WORDS:
        (void)snprintf(out, size, "%s", c->words);
        return;
    }
    AG_UNREACHABLE("a kind that is none");
}

/* What a file holds is shown on terminals: no controls. */
static void put_plain(char *out, size_t size, const char *text)
{
    size_t n = 0;

    for (; text[n] && n + 1 < size; n++) {
        out[n] = (char)(text[n] == '\t' ? ' ' : text[n] < ' ' || text[n] > '~' ? '?' : text[n]);
    }
    out[n] = '\0';
}

void ag_tune_add(struct ag_tune *t, const struct ag_tune_check *check, const char *name,
                 enum ag_status st, const char *now, bool good)
{
    struct ag_tune_result *r = &t->results[t->count];

    if (t->count == AG_TUNE_RESULTS_MAX) {
        return;
    }
    t->count++;
    *r = (struct ag_tune_result){.check = check};
    (void)snprintf(r->name, sizeof(r->name), "%s", name);
    put_wanted(check, r->wanted, sizeof(r->wanted));
    if (st == AG_OK) {
        r->state = good ? AG_TUNE_GOOD : AG_TUNE_DIFFERS;
        put_plain(r->now, sizeof(r->now), now);
    } else if (st == AG_ENOENT) {
        r->state = AG_TUNE_ABSENT;
        (void)snprintf(r->now, sizeof(r->now), "not here");
    } else {
        r->state = AG_TUNE_UNKNOWN;
        (void)snprintf(r->now, sizeof(r->now), "?");
        (void)snprintf(r->note, sizeof(r->note), "it cannot be %s",
                       st == AG_EACCES ? "read: permission denied" : "understood");
    }
}

/* ---- sysctls ---- */

/* "net.ipv4.tcp_rmem" is /proc/sys/net/ipv4/tcp_rmem. */
static void sysctl_path(const char *name, char out[static AG_TUNE_VALUE_MAX])
{
    char *at = out + snprintf(out, AG_TUNE_VALUE_MAX, "/proc/sys/");

    (void)snprintf(at, AG_TUNE_VALUE_MAX - (size_t)(at - out), "%s", name);
    for (; *at; at++) {
        if (*at == '.') {
            *at = '/';
        }
    }
}

/* The numbers of a value; how many there are; 0: it is something else, or more than three. */
static size_t numbers_of(const char *text, uint64_t out[static 3])
{
    size_t n = 0;

    while (*text) {
        size_t len = strcspn(text, " \t");

        if (len > 0 && (n == 3 || ag_span_u64(ag_span(text, len), &out[n++]) != AG_OK)) {
            return 0;
        }
        text += len + (text[len] != '\0');
    }
    return n;
}

/* Whether `v` is as wanted; else `v` is what it should be. */
static bool compare(const struct ag_tune_check *c, uint64_t v[static 3])
{
    bool good = false;

    switch (c->want) {
    case AG_TUNE_AT_LEAST:
        good = v[0] >= c->low;
        v[0] = c->low;
        break;
    case AG_TUNE_AT_MOST:
        good = v[0] <= c->low;
        v[0] = c->low;
        break;
    case AG_TUNE_EXACTLY:
        good = v[0] == c->low;
        v[0] = c->low;
        break;
    case AG_TUNE_RANGE:
        good = v[0] <= c->low && v[1] >= c->high;
        v[0] = ag_min_u64(v[0], c->low);
        v[1] = v[1] > c->high ? v[1] : c->high;
        break;
    case AG_TUNE_MAXIMUM:
        good = v[2] >= c->low;
        v[2] = c->low;
        break;
    case AG_TUNE_WORDS:
        AG_UNREACHABLE("no sysctl has words");
    }
    return good;
}

static size_t numbers_wanted(const struct ag_tune_check *c)
{
    return c->want == AG_TUNE_RANGE ? 2 : c->want == AG_TUNE_MAXIMUM ? 3 : 1;
}

/* Reads it; `v` becomes what it should be, `text` what it is. */
static enum ag_status read_sysctl(const struct ag_tune *t, const struct ag_tune_check *c,
                                  uint64_t v[static 3], char text[static AG_TUNE_VALUE_MAX],
                                  bool *out_good)
{
    char path[AG_TUNE_VALUE_MAX];
    enum ag_status st;

    sysctl_path(c->name, path);
    st = ag_tune_read(t, path, text);
    if (st == AG_OK && numbers_of(text, v) != numbers_wanted(c)) {
        st = AG_ESYS;
    }
    if (st == AG_OK) {
        *out_good = compare(c, v);
    }
    return st;
}

static void look_at_sysctl(struct ag_tune *t, const struct ag_tune_check *c)
{
    char text[AG_TUNE_VALUE_MAX] = "";
    uint64_t v[3] = {0};
    bool good = false;
    enum ag_status st = read_sysctl(t, c, v, text, &good);

    ag_tune_add(t, c, c->name, st, text, good);
}

void ag_tune_run(struct ag_tune *t, const char *root)
{
    *t = (struct ag_tune){.root = root};
    for (size_t i = 0; i < AG_COUNT(profile); i++) {
        (profile[i].look ? profile[i].look : look_at_sysctl)(t, &profile[i]);
    }
}

/* ---- setting them ---- */

static const char *reason_of(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
        return "permission denied: it takes root, and a container's host";
    case EROFS:
        return "read-only here: set it on the container's host";
    case EINVAL:
        return "the kernel refuses the value";
    default:
        return "it cannot be written";
    }
}

/* 0, or errno. */
static int write_file(const struct ag_tune *t, const char *path, const char *text)
{
    char whole[AG_TUNE_PATH_MAX];
    int fd, error = 0;
    ssize_t n;

    if (!ag_tune_path(t, path, whole)) {
        return ENAMETOOLONG;
    }
    fd = open(whole, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    n = write(fd, text, strlen(text));
    if (n != (ssize_t)strlen(text)) {
        error = n < 0 ? errno : EIO;
    }
    (void)close(fd);
    return error;
}

static void set(struct ag_tune *t, struct ag_tune_result *r)
{
    char path[AG_TUNE_VALUE_MAX], text[AG_TUNE_VALUE_MAX], value[AG_TUNE_TEXT_MAX] = "";
    size_t count = numbers_wanted(r->check), len = 0;
    uint64_t v[3] = {0};
    bool good = false;
    int error;

    if (read_sysctl(t, r->check, v, text, &good) != AG_OK || good) {
        return; /* somebody else was faster */
    }
    for (size_t i = 0; i < count; i++) {
        len += (size_t)snprintf(value + len, sizeof(value) - len, "%s%llu", i ? " " : "",
                                (unsigned long long)v[i]);
    }
    (void)snprintf(r->line, sizeof(r->line), "%.40s = %.50s", r->name, value);
    sysctl_path(r->check->name, path);
    error = write_file(t, path, value);
    if (error == 0 && (read_sysctl(t, r->check, v, text, &good) != AG_OK || !good)) {
        error = EINVAL;
    }
    r->state = error ? AG_TUNE_FAILED : AG_TUNE_SET;
    if (error) {
        (void)snprintf(r->note, sizeof(r->note), "%s", reason_of(error));
    } else {
        (void)snprintf(r->note, sizeof(r->note), "it was %.80s", r->now);
        put_plain(r->now, sizeof(r->now), text);
    }
}

void ag_tune_apply(struct ag_tune *t)
{
    for (size_t i = 0; i < t->count; i++) {
        struct ag_tune_result *r = &t->results[i];

        if (r->state == AG_TUNE_DIFFERS && r->check->may_apply) {
            set(t, r);
        }
    }
}

/* ---- the outcome ---- */

bool ag_tune_is_good(const struct ag_tune *t)
{
    for (size_t i = 0; i < t->count; i++) {
        enum ag_tune_state s = t->results[i].state;

        if (s == AG_TUNE_DIFFERS || s == AG_TUNE_UNKNOWN || s == AG_TUNE_FAILED) {
            return false;
        }
    }
    return true;
}

const char *ag_tune_state_name(enum ag_tune_state s)
{
    static const char *const names[] = {
        [AG_TUNE_GOOD] = "good",       [AG_TUNE_DIFFERS] = "differs", [AG_TUNE_ABSENT] = "absent",
        [AG_TUNE_UNKNOWN] = "unknown", [AG_TUNE_SET] = "set",         [AG_TUNE_FAILED] = "failed",
    };

    return names[s];
}
