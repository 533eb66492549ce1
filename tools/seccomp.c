#include "tools/seccomp.h"

#include "engine/poison.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(AG_ASAN)
#    define SANITIZED true
#else
#    define SANITIZED false
#endif

/* The kernel reads these arguments as 32 bits, whatever the register's upper half holds. */
#define LOW 0xffffffffu

/* The flag that makes O_TMPFILE more than O_DIRECTORY. */
#define TMPFILE_ONLY (O_TMPFILE & ~O_DIRECTORY)

/* Names, for libseccomp knows which of them this processor and this kernel's headers have. */
static const char *const always[] = {
    /* memory and threads */
    "brk", "munmap", "mremap", "madvise", "set_robust_list", "rseq", "gettid", "sched_yield",
    "sched_getaffinity", "exit", "exit_group",
    /* signals and time */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "nanosleep",
    "clock_nanosleep", "clock_gettime", "gettimeofday", "time",
    /* descriptors */
    "read", "readv", "pread64", "preadv2", "write", "writev", "pwritev", "close", "lseek", "poll",
    "ppoll", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "io_uring_enter", "sendfile",
    "splice", "pipe2",
    /* files, for reading */
    "openat2", "fstat", "newfstatat", "stat", "lstat", "statx", "readahead",
    /* sockets */
    "accept4", "connect", "shutdown", "sendto", "sendmsg", "recvfrom", "recvmsg", "getsockopt",
    "getsockname", "getpeername",
    /* what the process may know of itself and the machine */
    "getpid", "getuid", "geteuid", "getgid", "getegid", "getrlimit", "uname", "sysinfo",
    "getrandom"};

static const char *const when_alone[] = {
    "bind",       "listen",     "unlink",   "unlinkat",  "getcwd",        "readlink",
    "readlinkat", "getdents64", "pwrite64", "ftruncate", "inotify_init1", "inotify_add_watch"};

/* No code of this program nor of its libraries comes here. */
static const char *const never[] = {
    /* other programs and processes */
    "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd",
    /* another view of the system */
    "mount", "umount2", "pivot_root", "chroot", "fsopen", "fsmount", "move_mount", "open_tree",
    "mount_setattr", "unshare", "setns", "open_by_handle_at", "quotactl",
    /* another identity */
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid",
    "setfsgid", "capset", "keyctl", "add_key", "request_key",
    /* code in the kernel, and what watches it */
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "init_module", "finit_module",
    "delete_module", "kexec_load", "kexec_file_load", "fanotify_init", "lookup_dcookie",
    "memfd_secret",
    /* the machine */
    "reboot", "swapon", "swapoff", "acct", "iopl", "ioperm", "modify_ldt", "syslog", "settimeofday",
    "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "vhangup",
    "mknod", "mknodat"};

/* A leak check stops the threads from a process beside it. */
static const char *const when_sanitized[] = {
    /* that process */
    "clone", "wait4", "getppid", "prctl", "ptrace", "kill", "tgkill",
    /* what it looks at */
    "getdents", "getdents64", "readlink", "readlinkat", "mprotect"};

static const int options[][2] = {
    {SOL_SOCKET, SO_LINGER},     {SOL_SOCKET, SO_REUSEADDR},     {SOL_SOCKET, SO_REUSEPORT},
    {SOL_SOCKET, SO_KEEPALIVE},  {SOL_SOCKET, SO_SNDTIMEO},      {SOL_SOCKET, SO_RCVTIMEO},
    {SOL_SOCKET, SO_SNDBUF},     {SOL_SOCKET, SO_RCVBUF},        {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_CORK},     {IPPROTO_TCP, TCP_QUICKACK},    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_IPV6, IPV6_V6ONLY}, {IPPROTO_TCP, TCP_DEFER_ACCEPT}};

static const int futexes[] = {FUTEX_WAIT,        FUTEX_WAKE,    FUTEX_WAIT_BITSET,
                              FUTEX_WAKE_BITSET, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE};

/* ---- rules ---- */

/* The first failure stays; the callers go on. */
struct filter {
    scmp_filter_ctx ctx;
    int error;
};

static struct scmp_arg_cmp masked(unsigned arg, uint64_t mask, uint64_t value)
{
    return (struct scmp_arg_cmp){
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value & mask};
}

static void rule(struct filter *f, uint32_t action, const char *name, unsigned count,
                 const struct scmp_arg_cmp *args)
{
    int number = seccomp_syscall_resolve_name(name);
    int rc = number == __NR_SCMP_ERROR
                 ? 0 /* newer than libseccomp: not allowed, by default */
                 : seccomp_rule_add_array(f->ctx, action, number, count, args);

    if (rc != 0 && rc != -EEXIST && f->error == 0) {
        f->error = -rc;
    }
}

static void allow_all(struct filter *f, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        rule(f, SCMP_ACT_ALLOW, names[i], 0, NULL);
    }
}

/* Allowed when the int argument `arg` is `value`, compared below `mask`. */
static void allow_if(struct filter *f, const char *name, unsigned arg, uint64_t mask,
                     uint64_t value)
{
    const struct scmp_arg_cmp cmp = masked(arg, mask, value);

    rule(f, SCMP_ACT_ALLOW, name, 1, &cmp);
}

static void allow_socket(struct filter *f, int family, int type, int protocol)
{
    const struct scmp_arg_cmp args[] = {
        masked(0, LOW, (unsigned)family),
        masked(1, LOW & ~(unsigned)(SOCK_NONBLOCK | SOCK_CLOEXEC), (unsigned)type),
        masked(2, LOW, (unsigned)protocol)};

    rule(f, SCMP_ACT_ALLOW, "socket", AG_COUNT(args), args);
}

static void allow_sockets(struct filter *f, enum ag_seccomp_profile profile)
{
    static const int families[] = {AF_INET, AF_INET6};

    for (size_t i = 0; i < AG_COUNT(families); i++) {
        allow_socket(f, families[i], SOCK_STREAM, 0);
        allow_socket(f, families[i], SOCK_STREAM, IPPROTO_TCP);
        allow_socket(f, families[i], SOCK_DGRAM, 0); /* name servers */
        allow_socket(f, families[i], SOCK_DGRAM, IPPROTO_UDP);
    }
    allow_socket(f, AF_UNIX, SOCK_STREAM, 0);
    if (profile == AG_SECCOMP_ALONE) {
        allow_socket(f, AF_UNIX, SOCK_DGRAM, 0); /* the service manager */
    }
    for (size_t i = 0; i < AG_COUNT(options); i++) {
        const struct scmp_arg_cmp args[] = {masked(1, LOW, (unsigned)options[i][0]),
                                            masked(2, LOW, (unsigned)options[i][1])};

        rule(f, SCMP_ACT_ALLOW, "setsockopt", AG_COUNT(args), args);
    }
}

static void allow_files(struct filter *f)
{
    const unsigned write_flags =
        (unsigned)(O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | TMPFILE_ONLY);
    static const int commands[] = {F_DUPFD_CLOEXEC, F_GETFD, F_SETFD,
                                   F_GETFL,         F_SETFL, F_SETPIPE_SZ};
    static const unsigned long controls[] = {FIONBIO, FIONREAD, SIOCOUTQ, TCGETS};

    allow_if(f, "openat", 2, write_flags, O_RDONLY);
    allow_if(f, "open", 1, write_flags, O_RDONLY);
    for (size_t i = 0; i < AG_COUNT(commands); i++) {
        allow_if(f, "fcntl", 1, LOW, (unsigned)commands[i]);
    }
    for (size_t i = 0; i < AG_COUNT(controls); i++) {
        allow_if(f, "ioctl", 1, LOW, controls[i]);
    }
}

static void allow_memory_and_threads(struct filter *f)
{
    const unsigned thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

    /* No new code; a thread, but no process. clone3 is not seen through: libc falls back to clone. */
    allow_if(f, "mmap", 2, PROT_EXEC, 0);
    allow_if(f, "mprotect", 2, PROT_EXEC, 0);
    allow_if(f, "clone", 0, thread | CLONE_NEWUSER, thread);
    for (size_t i = 0; i < AG_COUNT(futexes); i++) {
        allow_if(f, "futex", 1, LOW & (unsigned)FUTEX_CMD_MASK, (unsigned)futexes[i]);
    }
    allow_if(f, "tgkill", 0, LOW, (unsigned)getpid()); /* abort, and the crash report */
    allow_if(f, "prctl", 0, LOW, PR_SET_NAME);
    allow_if(f, "prctl", 0, LOW, PR_GET_NAME);
    allow_if(f, "prlimit64", 2, UINT64_MAX, 0); /* asking, not setting */
    allow_if(f, "io_uring_register", 1, LOW, IORING_UNREGISTER_PBUF_RING);
    allow_if(f, "io_uring_register", 1, LOW, IORING_UNREGISTER_RING_FDS);
}

static void set(struct filter *f, enum scmp_filter_attr attr, uint32_t value)
{
    int rc = seccomp_attr_set(f->ctx, attr, value);

    if (rc != 0 && f->error == 0) {
        f->error = -rc;
    }
}

static void fill(struct filter *f, enum ag_seccomp_profile profile, bool log_only)
{
    /* On all threads or on none. */
    set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    set(f, SCMP_FLTATR_CTL_LOG, 1);
    /* A binary tree: a filter is run for each call whose arguments it looks at. */
    set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    /* Not the mitigation that older kernels turn on with a filter: nobody's code runs here but ours. */
    set(f, SCMP_FLTATR_CTL_SSB, 1);
    set(f, SCMP_FLTATR_ACT_BADARCH, log_only ? SCMP_ACT_LOG : SCMP_ACT_KILL_PROCESS);
    allow_all(f, always, AG_COUNT(always));
    allow_memory_and_threads(f);
    allow_files(f);
    allow_sockets(f, profile);
    if (profile == AG_SECCOMP_ALONE) {
        allow_all(f, when_alone, AG_COUNT(when_alone));
    }
    if (SANITIZED) {
        allow_all(f, when_sanitized, AG_COUNT(when_sanitized));
    }
    for (size_t i = 0; i < AG_COUNT(never) && !log_only; i++) {
        if (!SANITIZED || strcmp(never[i], "ptrace") != 0) {
            rule(f, SCMP_ACT_KILL_PROCESS, never[i], 0, NULL);
        }
    }
}

enum ag_status ag_seccomp_apply(enum ag_seccomp_profile profile, bool log_only,
                                const char **out_why)
{
    static _Thread_local char why[120];
    struct filter f = {.ctx = seccomp_init(log_only ? SCMP_ACT_LOG : SCMP_ACT_ERRNO(ENOSYS))};

    if (!f.ctx) {
        *out_why = "seccomp: no memory, or libseccomp does not know this processor";
        return AG_ESYS;
    }
    fill(&f, profile, log_only);
    if (f.error == 0) {
        f.error = -seccomp_load(f.ctx);
    }
    seccomp_release(f.ctx);
    if (f.error != 0) {
        (void)snprintf(why, sizeof(why), "seccomp: %s", strerrordesc_np(f.error));
        *out_why = why;
        return AG_ESYS;
    }
    return AG_OK;
}
