/*
 * Goal: whatever lies at the program's path, the old process learns how it went, nothing of it stays
 * behind, and a successor is started as this process was.
 * Method: shell scripts in the successor's place; one speaks the protocol by being this process's child.
 */
#include "tools/upgrade.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ag_upgrade upgrade;
static struct ag_sockets sockets;
static struct ag_handover_ready ready;
static char folder[64], program[128], why_text[512];
static struct ag_buf why;

static void setup(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/anygate-upgrade-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(program, sizeof(program), "%s/program", folder);
    memset(why_text, 0, sizeof(why_text));
    why = ag_buf(why_text, sizeof(why_text) - 1);
    ag_sockets_init(&sockets, 1, 16);
    ag_upgrade_init(&upgrade);
    cr_assert_not_null(upgrade.program);
}

static void teardown(void)
{
    ag_upgrade_deinit(&upgrade);
    ag_sockets_deinit(&sockets);
    (void)unlink(program);
    cr_expect_eq(rmdir(folder), 0);
    cr_expect_eq(waitpid(-1, NULL, WNOHANG), -1, "a child was left");
    cr_expect_eq(errno, ECHILD);
}

TestSuite(upgrade, .init = setup, .fini = teardown, .timeout = 60);

/* The program becomes a shell script. */
static void script(const char *text)
{
    FILE *f = fopen(program, "w");

    cr_assert_not_null(f);
    (void)fprintf(f, "#!/bin/bash\n%s\n", text);
    (void)fclose(f);
    cr_assert_eq(chmod(program, 0755), 0);
    free(upgrade.program);
    upgrade.program = strdup(program);
}

static enum ag_upgrade_event await_event(void)
{
    enum ag_upgrade_event event = AG_UPGRADE_NOTHING;

    while (event == AG_UPGRADE_NOTHING) {
        struct pollfd fds[] = {{.fd = upgrade.channel, .events = POLLIN},
                               {.fd = upgrade.child_fd, .events = POLLIN}};

        cr_assert_gt(poll(fds, AG_COUNT(fds), 20000), 0, "nothing happens");
        event = ag_upgrade_step(&upgrade, &sockets, &ready, &why);
    }
    return event;
}

static void expect_failure(const char *text, const char *want)
{
    script(text);
    why.len = 0;
    memset(why_text, 0, sizeof(why_text));
    cr_assert_eq(ag_upgrade_start(&upgrade, &why), AG_OK, "%s", why_text);
    cr_assert(ag_upgrade_under_way(&upgrade));
    cr_assert_eq(await_event(), AG_UPGRADE_FAILED);
    cr_expect(strstr(why_text, want), "%s: %s", text, why_text);
    cr_expect_not(ag_upgrade_under_way(&upgrade));
    cr_expect_eq(upgrade.channel, -1);
    cr_expect_eq(upgrade.child_fd, -1);
}

Test(upgrade, how_this_process_was_started)
{
    char link[1024] = "";

    cr_assert_gt(readlink("/proc/self/exe", link, sizeof(link) - 1), 0);
    char *real = realpath(upgrade.program, NULL);
    cr_expect_str_eq(real, link);
    free(real);
    cr_expect_eq(upgrade.program[0], '/');
    cr_expect_not_null(upgrade.argv[0]);
}

Test(upgrade, what_fails)
{
    expect_failure("exit 3", "program ended with exit code 3");
    expect_failure("exit 0", "program ended with exit code 0");
    expect_failure("kill -SEGV $$", "program was ended by signal 11 (Segmentation fault)");
    expect_failure("exec 3<&-; sleep 0.1; exit 4", "ended with exit code 4");
}

/* What it leaves unread is a reset to us, which says nothing of how it ended. */
Test(upgrade, one_that_leaves_the_channel_unread)
{
    struct pollfd hung_up = {.events = 0};
    char go[160];

    (void)snprintf(go, sizeof(go), "%s.go", program);
    script("until [ -e $0.go ]; do sleep 0.01; done; exec 3<&-; exec sleep 1000");
    cr_assert_eq(ag_upgrade_start(&upgrade, &why), AG_OK);
    cr_assert_eq(ag_handover_say(upgrade.channel, AG_HANDOVER_NEVER), AG_OK);
    cr_assert_eq(mkfifo(go, 0600), 0);
    hung_up.fd = upgrade.channel;
    cr_assert_eq(poll(&hung_up, 1, 20000), 1);
    cr_expect_eq(ag_upgrade_step(&upgrade, &sockets, &ready, &why), AG_UPGRADE_NOTHING, "%s",
                 why_text);
    cr_assert_eq(kill(upgrade.child, SIGKILL), 0);
    hung_up = (struct pollfd){.fd = upgrade.child_fd, .events = POLLIN};
    cr_assert_eq(poll(&hung_up, 1, 20000), 1);
    cr_expect_eq(ag_upgrade_step(&upgrade, &sockets, &ready, &why), AG_UPGRADE_FAILED);
    cr_expect(strstr(why_text, "was ended by signal 9"), "%s", why_text);
    (void)unlink(go);
}

Test(upgrade, what_cannot_be_started)
{
    free(upgrade.program);
    upgrade.program = strdup(program);
    cr_expect_eq(ag_upgrade_start(&upgrade, &why), AG_ESYS);
    cr_expect(strstr(why_text, "cannot start /tmp/") && strstr(why_text, ": No such file"), "%s",
              why_text);
    cr_expect_not(ag_upgrade_under_way(&upgrade));

    script("exit 0");
    cr_assert_eq(chmod(program, 0644), 0);
    cr_expect_eq(ag_upgrade_start(&upgrade, &why), AG_ESYS);
    cr_expect(strstr(why_text, "Permission denied"), "%s", why_text);
    free(upgrade.program);
    upgrade.program = NULL;
    cr_expect_eq(ag_upgrade_start(&upgrade, &why), AG_ESYS);
    cr_expect(strstr(why_text, "not known"), "%s", why_text);
    cr_expect_eq(upgrade.channel, -1);
}

Test(upgrade, one_that_hangs_is_ended)
{
    pid_t child;

    script("exec sleep 1000");
    cr_assert_eq(ag_upgrade_start(&upgrade, &why), AG_OK);
    child = upgrade.child;
    cr_expect_eq(ag_upgrade_step(&upgrade, &sockets, &ready, &why), AG_UPGRADE_NOTHING);
    ag_upgrade_abort(&upgrade);
    cr_expect_not(ag_upgrade_under_way(&upgrade));
    cr_expect_eq(kill(child, 0), -1);
    ag_upgrade_abort(&upgrade); /* harmless */
    script("exec sleep 1000");
    cr_assert_eq(ag_upgrade_start(&upgrade, &why), AG_OK);
    /* teardown ends it */
}

/* What the new process sees: its arguments, its environment, its descriptors, its signals. */
Test(upgrade, started_as_this_one_was)
{
    char out[160], text[4096] = "";

    (void)snprintf(out, sizeof(out), "%s/out", folder);
    ag_upgrade_deinit(&upgrade);
    (void)setenv("KEPT", "yes", 1);
    (void)setenv("NOTIFY_SOCKET", "/n", 1);
    (void)setenv("WATCHDOG_PID", "1", 1);
    (void)setenv("LISTEN_PID", "1", 1);
    (void)setenv("LISTEN_FDS", "1", 1);
    (void)setenv("LISTEN_FDNAMES", "x", 1);
    (void)setenv("ANYGATE_UPGRADE", "77", 1);
    ag_upgrade_init(&upgrade);
    (void)unsetenv("NOTIFY_SOCKET"); /* as the program does */
    char command[512];
    (void)snprintf(command, sizeof(command),
                   /* By bash itself: dash unblocks all, and a shell that waits blocks some. */
                   "{ env; ls /proc/$$/fd | tr '\\n' ' '; "
                   "while read line; do case $line in SigBlk*) echo \"$line\";; esac; done "
                   "</proc/$$/status; "
                   "cat /proc/$$/cmdline | tr '\\0' ' '; } >%s; exit 9",
                   out);
    sigset_t all;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, NULL);
    expect_failure(command, "exit code 9");

    FILE *f = fopen(out, "r");
    cr_assert_not_null(f);
    size_t len = fread(text, 1, sizeof(text) - 1, f);
    (void)fclose(f);
    (void)unlink(out);
    text[len] = '\0';
    cr_expect(strstr(text, "KEPT=yes\n"));
    cr_expect(strstr(text, "NOTIFY_SOCKET=/n\n"));
    cr_expect(strstr(text, "ANYGATE_UPGRADE=3\n"));
    cr_expect_null(strstr(text, "WATCHDOG_PID"));
    cr_expect_null(strstr(text, "LISTEN_"));
    cr_expect_null(strstr(text, "=77"));
    cr_expect(strstr(text, "SigBlk:\t0000000000000000\n"), "%s", text);
    for (size_t i = 1; upgrade.argv[i]; i++) {
        cr_expect(strstr(text, upgrade.argv[i]), "%s", upgrade.argv[i]);
    }
}

/* A channel whose other end is the test's. */
static int channel_of_ours(void)
{
    int ends[2];

    cr_assert_eq(ag_handover_pair(ends), AG_OK);
    (void)close(upgrade.channel);
    upgrade.channel = ends[0];
    return ends[1];
}

Test(upgrade, ready_and_yours)
{
    enum ag_handover_word word = AG_HANDOVER_READY;

    script("exec sleep 1000");
    cr_assert_eq(ag_upgrade_start(&upgrade, &why), AG_OK);
    pid_t child = upgrade.child;
    int other = channel_of_ours();
    cr_assert_eq(ag_handover_say_ready(other, "/x"), AG_OK);
    cr_assert_eq(await_event(), AG_UPGRADE_READY);
    cr_expect_eq(ready.pid, getpid());
    cr_expect_str_eq(ready.pid_file, "/x");
    cr_assert_eq(ag_handover_receive(other, 1000, &sockets, &why), AG_OK, "%s", why_text);
    cr_expect_eq(ag_handover_hear(other, &word, &ready), AG_AGAIN, "not before it is offered");
    ag_upgrade_offer(&upgrade);
    cr_expect(ag_upgrade_under_way(&upgrade));
    cr_expect_eq(ag_handover_hear(other, &word, &ready), AG_OK);
    cr_expect_eq(word, AG_HANDOVER_YOURS);
    cr_assert_eq(ag_handover_say(other, AG_HANDOVER_TAKEN), AG_OK);
    cr_expect_eq(await_event(), AG_UPGRADE_TAKEN);
    cr_expect_not(ag_upgrade_under_way(&upgrade));
    cr_expect_eq(kill(child, 0), 0, "it lives on");
    (void)close(other);
    (void)kill(child, SIGKILL);
    cr_assert_eq(waitpid(child, NULL, 0), child);
}

Test(upgrade, gone_after_ready)
{
    script("exec sleep 1000");
    cr_assert_eq(ag_upgrade_start(&upgrade, &why), AG_OK);
    int other = channel_of_ours();
    cr_assert_eq(ag_handover_say_ready(other, NULL), AG_OK);
    cr_assert_eq(await_event(), AG_UPGRADE_READY);
    (void)close(other);
    (void)kill(upgrade.child, SIGKILL);
    ag_upgrade_offer(&upgrade);
    cr_expect_eq(await_event(), AG_UPGRADE_FAILED);
    cr_expect(strstr(why_text, "was ended by signal 9"), "%s", why_text);
}

/* Each word at its time alone. */
Test(upgrade, words_out_of_turn)
{
    for (int i = 0; i < 2; i++) {
        script("exec sleep 1000");
        cr_assert_eq(ag_upgrade_start(&upgrade, &why), AG_OK);
        int other = channel_of_ours();
        if (i == 0) {
            cr_assert_eq(ag_handover_say(other, AG_HANDOVER_TAKEN), AG_OK);
        } else {
            cr_assert_eq(ag_handover_say_ready(other, NULL), AG_OK);
            cr_assert_eq(await_event(), AG_UPGRADE_READY);
            ag_upgrade_offer(&upgrade);
            cr_assert_eq(ag_handover_say_ready(other, NULL), AG_OK);
        }
        cr_expect_eq(await_event(), AG_UPGRADE_FAILED);
        (void)close(other);
    }
}

Test(upgrade, one_that_speaks_another_language)
{
    static const char *const words[] = {"hello", "yours", "ready"};

    for (size_t i = 0; i < AG_COUNT(words); i++) {
        script("exec sleep 1000");
        cr_assert_eq(ag_upgrade_start(&upgrade, &why), AG_OK);
        int other = channel_of_ours();
        cr_assert_gt(send(other, words[i], strlen(words[i]), 0), 0);
        why.len = 0;
        cr_expect_eq(await_event(), AG_UPGRADE_FAILED, "%s", words[i]);
        cr_expect(strstr(why_text, "does not understand"), "%s", why_text);
        (void)close(other);
    }
}

Test(upgrade, inherit)
{
    static const char *const bad[] = {"", "x", "-1", "0", "99999", "99999999999999999999"};
    char text[16];
    int ends[2], channel = 7;

    (void)unsetenv("ANYGATE_UPGRADE");
    cr_assert_eq(ag_upgrade_inherit(&channel), AG_OK);
    cr_assert_eq(channel, -1);
    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        (void)setenv("ANYGATE_UPGRADE", bad[i], 1);
        cr_expect_eq(ag_upgrade_inherit(&channel), AG_EINVAL, "%s", bad[i]);
    }
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    (void)snprintf(text, sizeof(text), "%d", ends[0]);
    (void)setenv("ANYGATE_UPGRADE", text, 1);
    cr_assert_eq(ag_upgrade_inherit(&channel), AG_OK);
    cr_expect_eq(channel, ends[0]);
    cr_expect(fcntl(channel, F_GETFD) & FD_CLOEXEC);
    cr_expect_null(getenv("ANYGATE_UPGRADE"));
    (void)close(ends[0]);
    (void)close(ends[1]);
}
