#include "tools/crash.h"

#include "engine/span.h"
#include "tools/commands.h"

#include <signal.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SANITIZED 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define SANITIZED 1
#    endif
#endif
#ifndef SANITIZED
#    define SANITIZED 0
#endif

/* The kernel's frame with AVX-512 and AMX state takes up to 12k. */
#define STACK_BYTES 32768u

/* The linker's: where this program's code lies in memory. */
extern const char __executable_start[], etext[]; /* NOLINT(readability-identifier-naming) */

static const struct {
    int number;
    const char *name;
} signals[] = {
    {SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"}, {SIGILL, "SIGILL"},
    {SIGABRT, "SIGABRT"}, {SIGTRAP, "SIGTRAP"}, {SIGSYS, "SIGSYS"},
};

static const char *name_of(int number)
{
    for (size_t i = 0; i < AG_COUNT(signals); i++) {
        if (signals[i].number == number) {
            return signals[i].name;
        }
    }
    return "signal";
}

/* 0: not known on this kind of processor. */
static uintptr_t program_counter(const ucontext_t *context)
{
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.pc;
#else
    (void)context;
    return 0;
#endif
}

/* In this program as addr2line wants it, in a library as it is. */
static void put_place(struct ag_buf *b, uintptr_t pc)
{
    uintptr_t start = (uintptr_t)__executable_start;
    bool ours = pc >= start && pc < (uintptr_t)etext;

    ag_buf_put(b, ours ? AG_SPAN(", pc anygate+0x") : AG_SPAN(", pc 0x"));
    ag_buf_put_hex(b, ours ? pc - start : pc);
}

/* Only what may be called in a signal handler: plain computing, prctl, write, raise. */
static void report(int number, siginfo_t *info, void *context)
{
    char text[256], thread[16] = "";
    struct ag_buf b = ag_buf(text, sizeof(text));
    bool sent = info->si_code <= 0; /* by a process, not by a fault */

    (void)prctl(PR_GET_NAME, thread);
    ag_buf_put(&b, AG_SPAN("anygate: crash: "));
    ag_buf_put(&b, ag_span_str(name_of(number)));
    if (!sent) {
        ag_buf_put(&b, AG_SPAN(" at 0x"));
        ag_buf_put_hex(&b, (uintptr_t)info->si_addr);
    }
    ag_buf_put(&b, AG_SPAN(" in thread "));
    ag_buf_put(&b, ag_span(thread, strnlen(thread, sizeof(thread))));
    put_place(&b, program_counter(context));
    ag_buf_put(&b, AG_SPAN(", version " AG_VERSION ", pid "));
    ag_buf_put_u64(&b, (uint64_t)getpid());
    ag_buf_put(&b, AG_SPAN("\n"));
    (void)!write(STDERR_FILENO, b.ptr, b.len);
    /* The handler is gone (SA_RESETHAND). A fault comes again with the instruction; what was sent must
     * be sent again, and arrives when this returns. */
    if (sent) {
        (void)raise(number);
    }
}

void ag_crash_thread(void)
{
    static _Thread_local uint8_t stack[STACK_BYTES];
    const stack_t alternative = {.ss_sp = stack, .ss_size = sizeof(stack)};

    if (!SANITIZED) {
        (void)sigaltstack(&alternative, NULL); /* without it only an overflow goes untold */
    }
}

void ag_crash_install(void)
{
    struct sigaction action = {.sa_sigaction = report,
                               .sa_flags = (int)(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND)};

    if (SANITIZED) {
        return;
    }
    ag_crash_thread();
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < AG_COUNT(signals); i++) {
        (void)sigaction(signals[i].number, &action, NULL);
    }
}
