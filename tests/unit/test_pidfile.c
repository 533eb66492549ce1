/*
 * Goal: the pid file names the living server or nobody, whatever crashed before and whatever lies at its
 * path.
 * Method: a folder of its own; children that live, sleep under other names, and are dead.
 */
#include "tools/pidfile.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], path[128], why_text[512];
static struct ag_buf why;

static void setup(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/anygate-pidfile-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/x.pid", folder);
    memset(why_text, 0, sizeof(why_text));
    why = ag_buf(why_text, sizeof(why_text) - 1);
}

static void teardown(void)
{
    (void)unlink(path);
    cr_expect_eq(rmdir(folder), 0, "something is left in %s", folder);
}

TestSuite(pidfile, .init = setup, .fini = teardown);

static void put(const char *text, size_t len)
{
    FILE *f = fopen(path, "w");

    cr_assert_not_null(f);
    cr_assert_eq(fwrite(text, 1, len, f), len);
    (void)fclose(f);
}

static void put_pid(pid_t pid)
{
    char text[32];

    put(text, (size_t)snprintf(text, sizeof(text), "%d\n", (int)pid));
}

/* A child that waits to be killed; with a name of its own, or running another binary. */
static pid_t child(const char *name, const char *binary)
{
    int ready[2];
    char byte;

    cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (binary) {
            execl(binary, binary, "60", NULL); /* closes the pipe */
            _exit(127);
        }
        if (name) {
            (void)prctl(PR_SET_NAME, name);
        }
        (void)close(ready[0]);
        (void)close(ready[1]);
        for (;;) {
            pause();
        }
    }
    (void)close(ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 0);
    (void)close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(pidfile, write_read_remove)
{
    pid_t pid = 0;
    struct stat st;

    cr_assert_eq(ag_pidfile_read(path, &pid), AG_ENOENT);
    cr_assert_eq(ag_pidfile_check(path, &why), AG_OK, "%s", why_text);
    cr_assert_eq(ag_pidfile_read(path, &pid), AG_ENOENT, "checking leaves nothing");
    cr_assert_eq(ag_pidfile_write(path, getpid(), &why), AG_OK, "%s", why_text);
    cr_assert_eq(ag_pidfile_read(path, &pid), AG_OK);
    cr_expect_eq(pid, getpid());
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0644);
    cr_expect_eq(ag_pidfile_check(path, &why), AG_OK, "it is ours");
    ag_pidfile_remove(path);
    cr_expect_eq(ag_pidfile_read(path, &pid), AG_ENOENT);
}

/* What lies at `path` is not replaced. */
static void expect_kept(const char *reason)
{
    struct stat before, after;

    cr_assert_eq(lstat(path, &before), 0);
    cr_expect_eq(ag_pidfile_look(path, &why), AG_EINVAL);
    cr_expect(strstr(why_text, reason), "%s", why_text);
    cr_expect_eq(ag_pidfile_check(path, &why), AG_EINVAL);
    cr_expect_eq(ag_pidfile_write(path, getpid(), &why), AG_EINVAL);
    ag_pidfile_remove(path);
    cr_assert_eq(lstat(path, &after), 0);
    cr_expect_eq(after.st_ino, before.st_ino);
    memset(why_text, 0, sizeof(why_text));
    why.len = 0;
}

Test(pidfile, what_is_no_number)
{
    static const struct ag_span texts[] = {
        AG_SPAN_INIT(""),
        AG_SPAN_INIT("\n"),
        AG_SPAN_INIT("x\n"),
        AG_SPAN_INIT("-5\n"),
        AG_SPAN_INIT("0\n"),
        AG_SPAN_INIT("1 2\n"),
        AG_SPAN_INIT("12\n\n"),
        AG_SPAN_INIT(" 12"),
        AG_SPAN_INIT("2147483648\n"),
        AG_SPAN_INIT("1\0\n"),
        AG_SPAN_INIT("0x10"),
        AG_SPAN_INIT("99999999999999999999999\n"),
        AG_SPAN_INIT("1111111111111111111111111111111111111111111111\n"),
    };
    pid_t pid = 7;

    for (size_t i = 0; i < AG_COUNT(texts); i++) {
        put((const char *)texts[i].ptr, texts[i].len);
        cr_expect_eq(ag_pidfile_read(path, &pid), AG_EINVAL, "row %zu", i);
        cr_expect_eq(pid, 7);
        why.len = 0;
        if (i == 0) {
            cr_expect_eq(ag_pidfile_check(path, &why), AG_OK, "empty: nobody's");
        } else {
            expect_kept("holds something else than the number of a process, and a pid file would "
                        "replace it; hint: ");
        }
        ag_pidfile_remove(path);
        cr_expect_eq(access(path, F_OK), 0, "row %zu: not ours to remove", i);
    }
    put("12", 2);
    cr_expect_eq(ag_pidfile_read(path, &pid), AG_OK, "written by hand, without a newline");
    cr_expect_eq(pid, 12);
}

Test(pidfile, who_is_an_anygate)
{
    const struct {
        const char *name, *binary;
        bool want;
    } rows[] = {
        {"anygate", NULL, true},
        {"other", NULL, true}, /* this test's binary */
        {NULL, "/bin/sleep", false},
        {NULL, NULL, true},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        pid_t pid = child(rows[i].name, rows[i].binary);

        cr_expect_eq(ag_pidfile_is_anygate(pid), rows[i].want, "row %zu", i);
        (void)kill(pid, SIGKILL);
        cr_assert_eq(waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT), 0);
        cr_expect_not(ag_pidfile_is_anygate(pid), "row %zu: a zombie", i);
        end(pid);
        cr_expect_not(ag_pidfile_is_anygate(pid), "row %zu: gone", i);
    }
}

Test(pidfile, another_binary_by_its_name)
{
    char binary[128], command[256];

    (void)snprintf(binary, sizeof(binary), "%s/anygate-2", folder);
    (void)snprintf(command, sizeof(command), "cp /bin/sleep %s", binary);
    cr_assert_eq(system(command), 0);
    pid_t pid = child(NULL, binary);
    cr_expect(ag_pidfile_is_anygate(pid));
    (void)unlink(binary); /* replaced while it runs, as in an upgrade */
    cr_expect(ag_pidfile_is_anygate(pid));
    end(pid);
}

Test(pidfile, a_living_one_is_respected)
{
    pid_t pid = child("anygate", NULL);
    char want[200];

    put_pid(pid);
    cr_expect_eq(ag_pidfile_check(path, &why), AG_ELIMIT);
    (void)snprintf(want, sizeof(want), "pid file of another anygate, process %d; hint: ", (int)pid);
    cr_expect(strstr(why_text, want), "%s", why_text);
    ag_pidfile_remove(path);
    cr_expect_eq(access(path, F_OK), 0);
    end(pid);
    cr_expect_eq(ag_pidfile_check(path, &why), AG_OK, "stale");

    pid = child(NULL, "/bin/sleep"); /* its number is another program's by now */
    put_pid(pid);
    cr_expect_eq(ag_pidfile_check(path, &why), AG_OK);
    end(pid);
}

Test(pidfile, a_successor_keeps_its_own)
{
    cr_assert_eq(ag_pidfile_write(path, getpid(), &why), AG_OK);
    put_pid(getppid());
    ag_pidfile_remove(path);
    cr_expect_eq(access(path, F_OK), 0);
}

Test(pidfile, what_is_no_file)
{
    char target[128];

    (void)snprintf(target, sizeof(target), "%s/precious", folder);
    cr_assert_eq(symlink(target, path), 0);
    expect_kept("is a symbolic link, and a pid file would replace it; hint: ");
    cr_expect_neq(access(target, F_OK), 0);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_kept("is no regular file, ");
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkdir(path, 0700), 0);
    expect_kept("is a directory, ");
    cr_assert_eq(rmdir(path), 0);
}

Test(pidfile, places_where_no_file_can_be)
{
    char missing[128];

    (void)snprintf(missing, sizeof(missing), "%s/no/x.pid", folder);
    cr_expect_eq(ag_pidfile_check(missing, &why), AG_ESYS);
    cr_expect(strstr(why_text, "No such file or directory; hint: its directory does not exist"),
              "%s", why_text);
    cr_expect_eq(ag_pidfile_write(missing, getpid(), &why), AG_ESYS);
    cr_expect_eq(ag_pidfile_look("/x.pid", &why), AG_OK);
    cr_expect_eq(ag_pidfile_look("x.pid", &why), AG_OK);
    cr_expect_eq(ag_pidfile_check("/proc/x.pid", &why), AG_ESYS);
    why.len = 0;
    cr_expect_eq(ag_pidfile_look(missing, &why), AG_ESYS, "asked alone");
    put("", 0);
    (void)snprintf(missing, sizeof(missing), "%s/x.pid/x.pid", folder);
    cr_expect_eq(ag_pidfile_look(missing, &why), AG_ESYS, "below a file");
}
