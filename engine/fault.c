#include "engine/fault.h"

#if AG_FAULTS
#    include <fcntl.h>
#    include <stdio.h>
#    include <sys/mman.h>
#    include <sys/socket.h>
#    include <unistd.h>

#    define SITES_MAX 256u
#    define ERRNO_MAX 140

/* Made by the linker: the bounds of the section of AG_FAULT's entries. */
extern struct ag_fault_site *const sites_begin[] __asm__("__start_ag_fault_sites");
extern struct ag_fault_site *const sites_end[] __asm__("__stop_ag_fault_sites");

_Static_assert(sizeof(struct ag_fault_record) == 64, "tests/fault/table.py reads it");

int ag_fault_hit(const struct ag_fault_site *site)
{
    struct ag_fault_record *r = site->record;
    int error = atomic_load(&r->error);

    (void)atomic_fetch_add(&r->hits, 1);
    if (error == 0) {
        return 0;
    }
    uint32_t at = atomic_fetch_add(&r->passed, 1), skip = atomic_load(&r->skip);
    if (at < skip || at - skip >= atomic_load(&r->count)) {
        return 0;
    }
    (void)atomic_fetch_add(&r->failed, 1);
    return error;
}

intptr_t ag_fault_hang_up(int fd, int error)
{
    if (error == ECONNRESET || error == EPIPE) {
        (void)shutdown(fd, SHUT_RDWR);
    }
    return -1;
}

static _Noreturn void misuse(const char *what, const char *text)
{
    (void)fprintf(stderr, "ANYGATE_FAULT: %s: %s\n", what, text);
    _exit(2);
}

/* The record of `name`, or the free one that it can have. */
static struct ag_fault_record *find(struct ag_fault_record *table, const char *name, size_t len)
{
    if (len >= AG_FAULT_NAME_MAX) {
        misuse("name too long", name);
    }
    for (size_t i = 0; i < SITES_MAX; i++) {
        if (table[i].name[0] == '\0' ||
            (strncmp(table[i].name, name, len) == 0 && table[i].name[len] == '\0')) {
            return &table[i];
        }
    }
    misuse("too many sites", name);
}

static struct ag_fault_record *map_table(const char *path)
{
    const size_t bytes = SITES_MAX * sizeof(struct ag_fault_record);
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (path && (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)) {
        misuse("cannot open", path);
    }
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
    if (table == MAP_FAILED) {
        misuse("cannot map", path ? path : "");
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return table;
}

static int errno_of(const char *name, size_t len)
{
    for (int e = 1; e < ERRNO_MAX; e++) {
        const char *known = strerrorname_np(e);

        if (known && strlen(known) == len && memcmp(known, name, len) == 0) {
            return e;
        }
    }
    misuse("no such errno", name);
}

/* A number behind `mark`, when that comes next. */
static uint32_t number(const char **at, char mark)
{
    char *end = NULL;

    if (**at != mark) {
        return 1;
    }
    unsigned long n = strtoul(*at + 1, &end, 10);
    if (n == 0 || n > UINT32_MAX) {
        misuse("a number is wanted", *at);
    }
    *at = end;
    return (uint32_t)n;
}

/* site=ERRNO[@nth][+count],... */
static void arm(struct ag_fault_record *table, const char *at)
{
    while (*at) {
        size_t len = strcspn(at, "=");
        struct ag_fault_record *r = find(table, at, len);

        if (at[len] != '=' || r->name[0] == '\0') {
            misuse("no such site", at);
        }
        at += len + 1;
        len = strcspn(at, "@+,");
        int error = errno_of(at, len);
        at += len;
        atomic_store(&r->skip, number(&at, '@') - 1);
        atomic_store(&r->count, number(&at, '+'));
        atomic_store(&r->error, error);
        if (*at != ',' && *at != '\0') {
            misuse("site=ERRNO[@nth][+count] is wanted", at);
        }
        at += *at == ',';
    }
}

/* Before main, so that no call is missed and no lock is needed. */
__attribute__((constructor)) static void start(void)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): there is no other thread yet */
    const char *spec = getenv("ANYGATE_FAULT"), *path = getenv("ANYGATE_FAULT_TABLE");

    if (!spec && !path) {
        return;
    }
    struct ag_fault_record *table = map_table(path);
    for (struct ag_fault_site *const *it = sites_begin; it < sites_end; it++) {
        struct ag_fault_record *r = find(table, (*it)->name, strlen((*it)->name));

        (void)snprintf(r->name, sizeof(r->name), "%s", (*it)->name);
        (*it)->record = r;
    }
    arm(table, spec ? spec : "");
}
#endif
