/* What tune looks at that is no sysctl: limits, kernel, cores, memory, network interfaces. */
#include "engine/loop.h"
#include "tools/tune.h"

#include <dirent.h>
#include <stdio.h>

#define CORES_MAX 1024u
#define NICS_MAX  16u

/* A set of cores. */
struct cores {
    uint64_t bits[CORES_MAX / 64];
};

static void core_add(struct cores *c, unsigned long core)
{
    if (core < CORES_MAX) {
        c->bits[core / 64] |= UINT64_C(1) << core % 64;
    }
}

static unsigned cores_count(const struct cores *c)
{
    unsigned n = 0;

    for (size_t i = 0; i < AG_COUNT(c->bits); i++) {
        n += (unsigned)__builtin_popcountll(c->bits[i]);
    }
    return n;
}

/* Adds "0-3,8". */
static void cores_add_list(struct cores *c, const char *list)
{
    while (*list >= '0' && *list <= '9') {
        char *end;
        unsigned long from = strtoul(list, &end, 10), to = from;

        if (*end == '-') {
            to = strtoul(end + 1, &end, 10);
        }
        for (unsigned long core = from; core <= to && core < CORES_MAX; core++) {
            core_add(c, core);
        }
        list = *end == ',' ? end + 1 : end;
    }
}

/* What stands behind `key` in the first line that begins with it, e.g. in /proc/self/status. */
static enum ag_status line_of(const struct ag_tune *t, const char *path, const char *key,
                              char out[static AG_TUNE_VALUE_MAX])
{
    char whole[AG_TUNE_PATH_MAX], line[AG_TUNE_VALUE_MAX];
    enum ag_status st = AG_ENOENT;
    FILE *file;

    if (!ag_tune_path(t, path, whole)) {
        return st;
    }
    file = fopen(whole, "re");
    while (file && st != AG_OK && fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            const char *rest = line + strlen(key);

            rest += strspn(rest, " \t");
            (void)snprintf(out, AG_TUNE_VALUE_MAX, "%.*s", (int)strcspn(rest, "\n"), rest);
            st = AG_OK;
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return st;
}

/* ---- limits ---- */

static void look_at_limit(struct ag_tune *t, const struct ag_tune_check *check, const char *key)
{
    char text[AG_TUNE_VALUE_MAX], now[AG_TUNE_TEXT_MAX];
    enum ag_status st = line_of(t, "/proc/self/limits", key, text);
    uint64_t hard = 0;

    if (st == AG_OK) {
        const char *at = text + strcspn(text, " ");

        at += strspn(at, " ");
        (void)snprintf(now, sizeof(now), "%.*s", (int)ag_min_u64(strcspn(at, " "), 20), at);
        if (strcmp(now, "unlimited") == 0) {
            hard = UINT64_MAX;
        } else if (ag_span_u64(ag_span_str(now), &hard) != AG_OK) {
            st = AG_ESYS;
        }
    }
    ag_tune_add(t, check, check->name, st, now, hard >= check->low);
}

void ag_tune_look_nofile(struct ag_tune *t, const struct ag_tune_check *check)
{
    look_at_limit(t, check, "Max open files");
}

void ag_tune_look_memlock(struct ag_tune *t, const struct ag_tune_check *check)
{
    look_at_limit(t, check, "Max locked memory");
}

/* ---- kernel ---- */

void ag_tune_look_release(struct ag_tune *t, const struct ag_tune_check *check)
{
    char text[AG_TUNE_VALUE_MAX];
    enum ag_status st = ag_tune_read(t, "/proc/sys/kernel/osrelease", text);
    unsigned long major = 0, minor = 0;
    char *end;

    if (st == AG_OK) {
        major = strtoul(text, &end, 10);
        minor = *end == '.' ? strtoul(end + 1, &end, 10) : 0;
        text[strcspn(text, "-")] = '\0';
    }
    ag_tune_add(t, check, check->name, st, text, major > 6 || (major == 6 && minor >= 1));
}

void ag_tune_look_backend(struct ag_tune *t, const struct ag_tune_check *check)
{
    enum ag_backend_kind kind = AG_BACKEND_EPOLL;
    const char *why = "";
    /* Below another root it is another kernel's. */
    enum ag_status st = t->root[0] ? AG_ENOENT : ag_backend_choose(AG_BACKEND_AUTO, &kind, &why);

    ag_tune_add(t, check, check->name, st, ag_backend_name(kind), kind == AG_BACKEND_URING);
}

/* ---- cores ---- */

/* Those that this process may use. */
static enum ag_status cores_allowed(const struct ag_tune *t, struct cores *out)
{
    char list[AG_TUNE_VALUE_MAX];
    enum ag_status st = line_of(t, "/proc/self/status", "Cpus_allowed_list:", list);

    *out = (struct cores){0};
    if (st == AG_OK) {
        cores_add_list(out, list);
    }
    return st;
}

void ag_tune_look_affinity(struct ag_tune *t, const struct ag_tune_check *check)
{
    char list[AG_TUNE_VALUE_MAX], now[AG_TUNE_TEXT_MAX] = "";
    struct cores allowed, online = {0};
    enum ag_status st = cores_allowed(t, &allowed);

    if (st == AG_OK) {
        st = ag_tune_read(t, "/sys/devices/system/cpu/online", list);
    }
    if (st == AG_OK) {
        cores_add_list(&online, list);
        (void)snprintf(now, sizeof(now), "%u of %u", cores_count(&allowed), cores_count(&online));
    }
    ag_tune_add(t, check, check->name, st, now, cores_count(&allowed) >= cores_count(&online));
}

/* The process's group in the unified hierarchy, e.g. "/system.slice/anygate.service". */
static void quota_path(const struct ag_tune *t, char out[static AG_TUNE_VALUE_MAX])
{
    char group[AG_TUNE_VALUE_MAX];

    if (line_of(t, "/proc/self/cgroup", "0::", group) != AG_OK || strcmp(group, "/") == 0) {
        group[0] = '\0';
    }
    (void)snprintf(out, AG_TUNE_VALUE_MAX, "/sys/fs/cgroup%.200s/cpu.max", group);
}

/* cpu.max is "QUOTA PERIOD", QUOTA being "max" for none. */
void ag_tune_look_quota(struct ag_tune *t, const struct ag_tune_check *check)
{
    char path[AG_TUNE_VALUE_MAX], text[AG_TUNE_VALUE_MAX], now[AG_TUNE_TEXT_MAX] = "none";
    struct cores allowed;
    enum ag_status st;
    bool good = true;

    quota_path(t, path);
    st = ag_tune_read(t, path, text);
    (void)cores_allowed(t, &allowed);
    if (st == AG_OK && strncmp(text, "max", 3) != 0) {
        char *end;
        unsigned long quota = strtoul(text, &end, 10), period = strtoul(end, NULL, 10);

        st = quota && period ? AG_OK : AG_ESYS;
        good = st == AG_OK && quota / period >= cores_count(&allowed);
        (void)snprintf(now, sizeof(now), "%lu.%02lu cores", period ? quota / period : 0,
                       period ? quota % period * 100 / period : 0);
    }
    ag_tune_add(t, check, check->name, st, now, good);
}

/* The first core that is set otherwise speaks for all. */
void ag_tune_look_governor(struct ag_tune *t, const struct ag_tune_check *check)
{
    char path[AG_TUNE_VALUE_MAX], text[AG_TUNE_VALUE_MAX], now[AG_TUNE_VALUE_MAX] = "";
    enum ag_status st = AG_ENOENT;

    for (unsigned core = 0; core < CORES_MAX; core++) {
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/cpufreq/scaling_governor",
                       core);
        if (ag_tune_read(t, path, text) != AG_OK) {
            continue;
        }
        st = AG_OK;
        if (!now[0] || strcmp(text, "performance") != 0) {
            memcpy(now, text, sizeof(now));
        }
        if (strcmp(text, "performance") != 0) {
            break;
        }
    }
    ag_tune_add(t, check, check->name, st, now, strcmp(now, "performance") == 0);
}

/* ---- memory ---- */

/* "always [madvise] never" means madvise. */
static void look_at_choice(struct ag_tune *t, const struct ag_tune_check *check, const char *path)
{
    char text[AG_TUNE_VALUE_MAX];
    enum ag_status st = ag_tune_read(t, path, text);
    char *chosen = text;

    if (st == AG_OK) {
        chosen = strchr(text, '[');
        st = chosen ? AG_OK : AG_ESYS;
    }
    if (st == AG_OK) {
        chosen++;
        chosen[strcspn(chosen, "]")] = '\0';
    }
    ag_tune_add(t, check, check->name, st, chosen, st == AG_OK && strcmp(chosen, "always") != 0);
}

void ag_tune_look_thp(struct ag_tune *t, const struct ag_tune_check *check)
{
    look_at_choice(t, check, "/sys/kernel/mm/transparent_hugepage/enabled");
}

void ag_tune_look_thp_defrag(struct ag_tune *t, const struct ag_tune_check *check)
{
    look_at_choice(t, check, "/sys/kernel/mm/transparent_hugepage/defrag");
}

/* ---- network interfaces ---- */

static DIR *open_folder(const struct ag_tune *t, const char *path)
{
    char whole[AG_TUNE_PATH_MAX];

    return ag_tune_path(t, path, whole) ? opendir(whole) : NULL;
}

/* The next entry that is no dot file; NULL at the end. One thread runs. */
static const char *next_name(DIR *folder)
{
    const struct dirent *e = NULL;

    while (folder && (e = readdir(folder)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        if (e->d_name[0] != '.' && strlen(e->d_name) < 32) {
            return e->d_name;
        }
    }
    return NULL;
}

struct nic {
    const char *name;
    struct cores interrupted; /* by its queues */
    struct cores steered;     /* to by rps */
    unsigned queues;          /* that receive */
    bool interrupts_known;
};

static void read_interrupts(const struct ag_tune *t, struct nic *nic)
{
    static const char *const places[] = {"device/msi_irqs", "device/../msi_irqs"};
    char path[AG_TUNE_VALUE_MAX], list[AG_TUNE_VALUE_MAX];

    for (size_t i = 0; i < AG_COUNT(places) && !nic->interrupts_known; i++) {
        const char *irq;
        DIR *folder;

        (void)snprintf(path, sizeof(path), "/sys/class/net/%s/%s", nic->name, places[i]);
        folder = open_folder(t, path);
        while ((irq = next_name(folder)) != NULL) {
            (void)snprintf(path, sizeof(path), "/proc/irq/%s/effective_affinity_list", irq);
            if (ag_tune_read(t, path, list) != AG_OK) {
                (void)snprintf(path, sizeof(path), "/proc/irq/%s/smp_affinity_list", irq);
                if (ag_tune_read(t, path, list) != AG_OK) {
                    continue;
                }
            }
            nic->interrupts_known = true;
            cores_add_list(&nic->interrupted, list);
        }
        if (folder) {
            (void)closedir(folder);
        }
    }
}

/* A mask of cores, "ff" or "1,00000000", lowest at the end. */
static void cores_add_mask(struct cores *c, const char *mask)
{
    unsigned long core = 0;

    for (size_t i = strlen(mask); i > 0; i--) {
        char ch = mask[i - 1];
        unsigned digit = ch >= '0' && ch <= '9'   ? (unsigned)(ch - '0')
                         : ch >= 'a' && ch <= 'f' ? (unsigned)(ch - 'a' + 10)
                                                  : 0;

        for (unsigned bit = 0; bit < 4 && ch != ','; bit++, core++) {
            if (digit & 1u << bit) {
                core_add(c, core);
            }
        }
    }
}

static void read_queues(const struct ag_tune *t, struct nic *nic)
{
    char path[AG_TUNE_VALUE_MAX], mask[AG_TUNE_VALUE_MAX];
    const char *queue;
    DIR *folder;

    (void)snprintf(path, sizeof(path), "/sys/class/net/%s/queues", nic->name);
    folder = open_folder(t, path);
    while ((queue = next_name(folder)) != NULL) {
        if (strncmp(queue, "rx-", 3) != 0) {
            continue;
        }
        nic->queues++;
        (void)snprintf(path, sizeof(path), "/sys/class/net/%s/queues/%s/rps_cpus", nic->name,
                       queue);
        if (ag_tune_read(t, path, mask) == AG_OK) {
            cores_add_mask(&nic->steered, mask);
        }
    }
    if (folder) {
        (void)closedir(folder);
    }
}

/* Of "nic.*.steering" the star is the interface. */
static void add_nic(struct ag_tune *t, const struct ag_tune_check *check, enum ag_status st,
                    const char *nic, const char *now, bool good)
{
    int star = (int)strcspn(check->name, "*");
    char name[AG_TUNE_NAME_MAX];

    (void)snprintf(name, sizeof(name), "%.*s%s%s", star, check->name, nic, check->name + star + 1);
    ag_tune_add(t, check, name, st, now, good);
}

static void look_at_interrupts(struct ag_tune *t, const struct ag_tune_check *check,
                               struct nic *nic, unsigned cores)
{
    char now[AG_TUNE_TEXT_MAX];
    unsigned on, wanted = nic->queues < cores ? nic->queues : cores;

    read_interrupts(t, nic);
    on = cores_count(&nic->interrupted);
    (void)snprintf(now, sizeof(now), "%u queue%s on %u core%s", nic->queues,
                   nic->queues == 1 ? "" : "s", on, on == 1 ? "" : "s");
    add_nic(t, check, nic->interrupts_known ? AG_OK : AG_ENOENT, nic->name, now, on >= wanted);
}

static void look_at_steering(struct ag_tune *t, const struct ag_tune_check *check, struct nic *nic,
                             unsigned cores)
{
    char now[AG_TUNE_TEXT_MAX];
    unsigned steered = cores_count(&nic->steered);

    (void)snprintf(now, sizeof(now), "%u queue%s, rps %u, %u core%s", nic->queues,
                   nic->queues == 1 ? "" : "s", steered, cores, cores == 1 ? "" : "s");
    add_nic(t, check, nic->queues ? AG_OK : AG_ENOENT, nic->name, now,
            nic->queues >= cores || steered >= cores);
}

/* Interfaces with hardware behind them; virtual ones have no `device`. */
static void each_nic(struct ag_tune *t, const struct ag_tune_check *check,
                     void (*look)(struct ag_tune *, const struct ag_tune_check *, struct nic *,
                                  unsigned cores))
{
    char path[AG_TUNE_VALUE_MAX], name[32];
    unsigned found = 0;
    struct cores allowed;
    const char *entry;
    DIR *folder = open_folder(t, "/sys/class/net");

    (void)cores_allowed(t, &allowed);
    while (found < NICS_MAX && (entry = next_name(folder)) != NULL) {
        struct nic nic = {.name = name};
        DIR *device;

        (void)snprintf(name, sizeof(name), "%s", entry);
        (void)snprintf(path, sizeof(path), "/sys/class/net/%s/device", name);
        device = open_folder(t, path);
        if (!device) {
            continue;
        }
        (void)closedir(device);
        found++;
        read_queues(t, &nic);
        look(t, check, &nic, cores_count(&allowed));
    }
    if (folder) {
        (void)closedir(folder);
    }
    if (found == 0) {
        ag_tune_add(t, check, check->name, AG_ENOENT, "", false);
    }
}

void ag_tune_look_interrupts(struct ag_tune *t, const struct ag_tune_check *check)
{
    each_nic(t, check, look_at_interrupts);
}

void ag_tune_look_steering(struct ag_tune *t, const struct ag_tune_check *check)
{
    each_nic(t, check, look_at_steering);
}
