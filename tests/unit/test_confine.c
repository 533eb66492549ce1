/*
 * Goal: who has taken a worker over cannot make it do what a worker does not.
 * Method: a child becomes what a worker is (hands bound, root given up, filter on) and then tries one
 * thing that an intruder would; the parent looks how it ended: refused with an errno, or killed by
 * SIGSYS. The things a worker does must still work, or the rest would prove nothing.
 */
#include "engine/poison.h"
#include "tools/privilege.h"
#include "tools/seccomp.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BROKEN 250 /* exit status of a child that could not be confined */

#ifndef IPPROTO_MPTCP
#    define IPPROTO_MPTCP 262
#endif

typedef long attempt_fn(void);

struct confinement {
    enum ag_seccomp_profile profile;
    const char *root;
    bool keep_user;
    bool no_filter;
    bool log_only;
};

/* How a child ended: a signal, or the errno of its attempt (0: it got through). */
struct end {
    int signal, error;
};

static bool landlock;
static char base[64];

static void confine(const struct confinement *c)
{
    char text[200];
    struct ag_buf why = ag_buf(text, sizeof(text));
    struct ag_privilege_report report;
    struct ag_user user;
    const char *reason = "";

    if (ag_user_find("65534:65534", &user, &why) != AG_OK ||
        ag_privilege_bind_hands(-1, &report, &why) != AG_OK ||
        (!c->keep_user && ag_privilege_drop(&user, c->root, &why) != AG_OK) ||
        (!c->no_filter && ag_seccomp_apply(c->profile, c->log_only, &reason) != AG_OK)) {
        (void)dprintf(STDERR_FILENO, "%.*s%s\n", (int)why.len, text, reason);
        _exit(BROKEN);
    }
    landlock = report.landlock;
}

static struct end try_confined(const struct confinement *c, attempt_fn *attempt)
{
    int status;
    pid_t pid = fork();

    cr_assert_neq(pid, -1);
    if (pid == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer would make an exit of it */
        confine(c);
        errno = 0;
        long result = attempt();
        _exit(result < 0 ? errno : 0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    struct end e = {.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                    .error = WIFEXITED(status) ? WEXITSTATUS(status) : 0};
    cr_assert_neq(e.error, BROKEN);
    return e;
}

static void begin(void)
{
    if (geteuid() != 0) {
        cr_skip_test("only root has privileges to give up");
    }
    (void)snprintf(base, sizeof(base), "/tmp/ag-confine-XXXXXX");
    cr_assert(mkdtemp(base));
    cr_assert_eq(chmod(base, 0777), 0);
}

static void end(void)
{
    (void)rmdir(base);
}

TestSuite(confine, .init = begin, .fini = end);

/* ---- what ends the process ---- */

static long run_program(void)
{
    char *argv[] = {(char[]){"true"}, NULL};

    return execve("/bin/true", argv, NULL);
}

static long trace_parent(void)
{
    return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static long read_parent(void)
{
    char byte;
    struct iovec to = {&byte, 1}, from = {&byte, 1};

    return syscall(SYS_process_vm_readv, getppid(), &to, 1, &from, 1, 0);
}

static long mount_something(void)
{
    return mount("none", base, "tmpfs", 0, NULL);
}

static long load_bpf(void)
{
    return syscall(SYS_bpf, 0, NULL, 0);
}

static long read_keys(void)
{
    return syscall(SYS_keyctl, 0, 0, 0, 0, 0);
}

static long become_root(void)
{
    return syscall(SYS_setuid, 0);
}

static long new_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}

static long new_ring(void)
{
    return syscall(SYS_io_uring_setup, 4, NULL);
}

static long leave_by_chroot(void)
{
    return chroot(base);
}

static long trace_events(void)
{
    return syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0);
}

Test(confine, what_only_an_intruder_does_ends_the_process)
{
    static const struct {
        const char *name;
        attempt_fn *attempt;
    } all[] = {
        {"execve", run_program},
        {"process_vm_readv", read_parent},
        {"mount", mount_something},
        {"bpf", load_bpf},
        {"keyctl", read_keys},
        {"setuid", become_root},
        {"unshare", new_namespace},
        {"io_uring_setup", new_ring},
        {"chroot", leave_by_chroot},
        {"perf_event_open", trace_events},
#if !defined(AG_ASAN) /* the leak check's own means */
        {"ptrace", trace_parent}
#endif
    };

    for (unsigned p = AG_SECCOMP_WORKER; p <= AG_SECCOMP_ALONE; p++) {
        const struct confinement c = {.profile = (enum ag_seccomp_profile)p};

        for (size_t i = 0; i < AG_COUNT(all); i++) {
            cr_expect_eq(try_confined(&c, all[i].attempt).signal, SIGSYS, "%s", all[i].name);
        }
    }
    (void)trace_parent;
}

#if defined(__x86_64__)
/* The tables of other calling conventions number the calls otherwise. */
static long by_32_bit_gate(void)
{
    long result = 20; /* getpid */

    __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
    return result;
}

static long by_x32(void)
{
    return syscall(0x40000000L | SYS_getpid);
}

Test(confine, no_other_calling_convention)
{
    const struct confinement c = {.profile = AG_SECCOMP_WORKER};
    int signal = try_confined(&c, by_32_bit_gate).signal;

    cr_expect(signal == SIGSYS || signal == SIGSEGV, "SIGSEGV: the kernel has no such gate");
    cr_expect_eq(try_confined(&c, by_x32).signal, SIGSYS);
}
#endif

/* ---- what is refused ---- */

static const char *below(const char *name)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", base, name);
    return path;
}

static long create_file(void)
{
    return open(below("new"), O_WRONLY | O_CREAT, 0600);
}

static long open_to_write(void)
{
    return open("/proc/self/mem", O_RDWR);
}

static long make_directory(void)
{
    return mkdir(below("dir"), 0700);
}

static long remove_file(void)
{
    return unlink(below("x"));
}

static long start_process(void)
{
    return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static long start_process_by_clone3(void)
{
    return syscall(SYS_clone3, NULL, 0);
}

static long raw_socket(void)
{
    return socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
}

static long packet_socket(void)
{
    return socket(AF_PACKET, SOCK_DGRAM, 0);
}

static long netlink_socket(void)
{
    return socket(AF_NETLINK, SOCK_RAW, 0);
}

static long crypto_socket(void)
{
    return socket(AF_ALG, SOCK_SEQPACKET, 0);
}

static long mptcp_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
}

static long listen_somewhere(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return fd < 0 ? 0 : listen(fd, 1); /* binds by itself */
}

static long bind_somewhere(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return fd < 0 ? 0 : bind(fd, (struct sockaddr *)&any, sizeof(any));
}

static long filter_packets(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sock_filter code = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {1, &code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static long new_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
               ? -1
               : 0;
}

static long kill_parent(void)
{
    return syscall(SYS_tgkill, getppid(), getppid(), 0);
}

static long type_into_terminal(void)
{
    return ioctl(0, TIOCSTI, "x");
}

static long more_descriptors(void)
{
    const uint64_t limit[2] = {100, 100};

    return syscall(SYS_prlimit64, 0, 7, limit, NULL);
}

Test(confine, the_rest_is_refused_as_unknown)
{
    static const struct {
        const char *name;
        attempt_fn *attempt;
        bool worker_only;
    } all[] = {
        {"create a file", create_file, false},
        {"open for writing", open_to_write, false},
        {"mkdir", make_directory, false},
        {"unlink", remove_file, true},
        {"clone3", start_process_by_clone3, false},
        {"raw socket", raw_socket, false},
        {"packet socket", packet_socket, false},
        {"netlink", netlink_socket, false},
        {"crypto socket", crypto_socket, false},
        {"mptcp", mptcp_socket, false},
        {"listen", listen_somewhere, true},
        {"bind", bind_somewhere, true},
        {"socket filter", filter_packets, false},
        {"executable memory", new_code, false},
        {"terminal", type_into_terminal, false},
        {"limits", more_descriptors, false},
#if !defined(AG_ASAN) /* the leak check's own means */
        {"fork", start_process, false},
        {"kill", kill_parent, false},
#endif
    };

    for (size_t i = 0; i < AG_COUNT(all); i++) {
        const struct confinement worker = {.profile = AG_SECCOMP_WORKER};
        const struct confinement alone = {.profile = AG_SECCOMP_ALONE};
        struct end e = try_confined(&worker, all[i].attempt);

        cr_expect(e.signal == 0 && e.error == ENOSYS, "%s: %d, %d", all[i].name, e.signal, e.error);
        e = try_confined(&alone, all[i].attempt);
        cr_expect_eq(e.error == ENOSYS, !all[i].worker_only, "%s: %d", all[i].name, e.error);
    }
    (void)start_process;
    (void)kill_parent;
}

/* openat2's flags lie in memory, where the filter does not see them. */
static long write_by_openat2(void)
{
    struct open_how how = {.flags = O_WRONLY | O_CREAT, .mode = 0600};

    errno = EACCES;
    return landlock ? syscall(SYS_openat2, AT_FDCWD, below("new"), &how, sizeof(how)) : -1;
}

static long read_shadow(void)
{
    return open("/etc/shadow", O_RDONLY);
}

static long read_passwd(void)
{
    return open("/etc/passwd", O_RDONLY);
}

static long climb(void)
{
    return open("../../../../etc/passwd", O_RDONLY);
}

Test(confine, files)
{
    const struct confinement worker = {.profile = AG_SECCOMP_WORKER};
    const struct confinement jailed = {.profile = AG_SECCOMP_WORKER, .root = base};
    const struct confinement root = {.no_filter = true, .keep_user = true};

    cr_expect_eq(try_confined(&worker, write_by_openat2).error, EACCES);
    cr_expect_eq(try_confined(&root, write_by_openat2).error, EACCES, "not even as root");
    cr_expect_eq(try_confined(&worker, read_shadow).error, EACCES);
    cr_expect_eq(try_confined(&worker, read_passwd).error, 0, "what its user may read, it may");
    cr_expect_eq(try_confined(&jailed, read_passwd).error, ENOENT);
    cr_expect_eq(try_confined(&jailed, climb).error, ENOENT);
}

/* ---- privileges ---- */

static long bind_low_port(void)
{
    struct sockaddr_in low = {
        .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return fd < 0 ? 0 : bind(fd, (struct sockaddr *)&low, sizeof(low));
}

static long root_by_setuid(void)
{
    return setresuid(0, 0, 0);
}

/* Lines of /proc/self/task/TID/status that tell of privileges; *bad: of those, ones that have some. */
static unsigned look_at_status(const char *tid, unsigned *bad)
{
    char path[320], line[256];
    unsigned lines = 0;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", tid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f)) {
        bool id = strncmp(line, "Uid:", 4) == 0 || strncmp(line, "Gid:", 4) == 0;
        bool cap = strncmp(line, "Cap", 3) == 0, nnp = strncmp(line, "NoNewPrivs:", 11) == 0;
        bool groups = strncmp(line, "Groups:", 7) == 0;

        lines += id || cap || nnp || groups;
        *bad += groups && strcmp(line, "Groups:\t65534 \n") != 0;
        *bad += id && !strstr(line, "65534\t65534\t65534\t65534");
        *bad += cap && !strstr(line, "0000000000000000");
        *bad += nnp && !strstr(line, "1");
    }
    if (f) {
        (void)fclose(f);
    }
    return lines;
}

/* 0 when each thread (two, and sanitizers may have their own) is the user, has no capability in any set, and may gain none. */
static int look_at_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    const struct dirent *e;
    unsigned lines = 0, bad = 0;

    while (d && (e = readdir(d))) { // NOLINT(concurrency-mt-unsafe)
        lines += e->d_name[0] == '.' ? 0 : look_at_status(e->d_name, &bad);
    }
    return d && bad == 0 && lines >= 2 * 9 ? 0 : 1;
}

static int go[2];

static void *wait_for_end(void *arg)
{
    char byte;

    (void)!read(go[0], &byte, 1);
    return arg;
}

/* Two threads: one is there when the user changes. */
static void drop_with_a_thread(void)
{
    char text[200];
    struct ag_buf why = ag_buf(text, sizeof(text));
    struct ag_privilege_report report;
    struct ag_user user;
    pthread_t thread;

    if (pipe(go) != 0 || ag_user_find("65534:65534", &user, &why) != AG_OK ||
        ag_privilege_bind_hands(-1, &report, &why) != AG_OK ||
        pthread_create(&thread, NULL, wait_for_end, NULL) != 0 ||
        ag_privilege_drop(&user, NULL, &why) != AG_OK) {
        _exit(BROKEN);
    }
}

Test(confine, every_thread_gives_its_privileges_up)
{
#if defined(__SANITIZE_THREAD__)
    cr_skip_test("libc does not know the sanitizer's own thread, which stays root");
#endif
    int status;
    pid_t pid = fork();

    cr_assert_neq(pid, -1);
    if (pid == 0) {
        drop_with_a_thread();
        _exit(look_at_threads());
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
}

Test(confine, privileges_do_not_come_back)
{
    const struct confinement c = {.no_filter = true};

    cr_expect_eq(try_confined(&c, bind_low_port).error, EACCES);
    cr_expect_eq(try_confined(&c, root_by_setuid).error, EPERM);
    cr_expect_eq(try_confined(&c, mount_something).error, EPERM);
}

Test(confine, users)
{
    static const struct {
        const char *text;
        enum ag_status status;
        const char *why;
    } all[] = {{"nobody", AG_OK, ""},
               {"nobody:nogroup", AG_OK, ""},
               {"nobody:33", AG_OK, ""},
               {"12345:54321", AG_OK, ""},
               {"12345", AG_OK, ""},
               {"root", AG_ENOENT, "is root"},
               {"0", AG_ENOENT, "is root"},
               {"0:33", AG_ENOENT, "is root"},
               {"4294967295", AG_ENOENT, "no user"},
               {"no-such-user", AG_ENOENT, "no user no-such-user"},
               {"nobody:no-such-group", AG_ENOENT, "no group no-such-group"}};

    for (size_t i = 0; i < AG_COUNT(all); i++) {
        char text[200] = "";
        struct ag_buf why = ag_buf(text, sizeof(text) - 1);
        struct ag_user u;

        cr_expect_eq(ag_user_find(all[i].text, &u, &why), all[i].status, "%s", all[i].text);
        cr_expect(strstr(text, all[i].why), "%s: %s", all[i].text, text);
        cr_expect(all[i].status != AG_OK || (u.uid != 0 && u.group_count >= 1));
    }
    struct ag_user u;
    struct ag_buf none = ag_buf(NULL, 0);
    cr_assert_eq(ag_user_find("12345:54321", &u, &none), AG_OK);
    cr_assert(u.uid == 12345 && u.gid == 54321 && u.group_count == 1 && u.groups[0] == 54321);
}

/* ---- what must still work ---- */

static void *return_arg(void *arg)
{
    return arg;
}

/* Made before the filter, as loops are. */
static int ep, ev, pair[2];

static long serve_a_little(void)
{
    struct sockaddr_in nobody = {
        .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN};
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};
    pthread_t thread;
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int udp = socket(AF_INET6, SOCK_DGRAM, 0), local = socket(AF_UNIX, SOCK_STREAM, 0);
    int file = (int)syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof(how));
    off_t at = 0;
    const int one = 1;
    struct stat st;
    void *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    bool good = tcp >= 0 && (udp >= 0 || errno == EAFNOSUPPORT) && local >= 0 && file >= 0 &&
                memory != MAP_FAILED;
    good = good && epoll_ctl(ep, EPOLL_CTL_ADD, ev, &event) == 0;
    good = good && epoll_wait(ep, &event, 1, 0) == 1 && fstat(file, &st) == 0;
    good = good && setsockopt(tcp, IPPROTO_TCP, 1, &one, sizeof(one)) == 0;
    good = good && sendfile(pair[1], file, &at, 10) == 10;
    good = good && fcntl(file, F_DUPFD_CLOEXEC, 0) > file;
    good = good && pthread_create(&thread, NULL, return_arg, NULL) == 0 &&
           pthread_join(thread, NULL) == 0;
    (void)connect(tcp, (struct sockaddr *)&nobody, sizeof(nobody));
    good = good && (errno == EINPROGRESS || errno == ECONNREFUSED);
    return good ? 0 : -1;
}

static long give_up(void)
{
    abort();
}

Test(confine, serving_goes_on)
{
    for (unsigned p = AG_SECCOMP_WORKER; p <= AG_SECCOMP_ALONE; p++) {
        const struct confinement c = {.profile = (enum ag_seccomp_profile)p};

        ep = epoll_create1(EPOLL_CLOEXEC);
        ev = eventfd(1, EFD_NONBLOCK);
        cr_assert(ep >= 0 && ev >= 0 && pipe2(pair, O_CLOEXEC) == 0);
        struct end e = try_confined(&c, serve_a_little);
        cr_expect(e.signal == 0 && e.error == 0, "signal %d, %s", e.signal, strerror(e.error));
        cr_expect_eq(try_confined(&c, give_up).signal, SIGABRT, "an assertion is told as one");
    }
}

Test(confine, log_refuses_nothing)
{
    const struct confinement c = {.log_only = true};

    cr_expect_eq(try_confined(&c, become_root).error, EPERM, "by the kernel, not by the filter");
    cr_expect_eq(try_confined(&c, listen_somewhere).error, 0);
}
