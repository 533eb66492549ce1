/*
 * Goal: no line is torn, lost without being counted, or able to forge another; a stuck reader never
 * stops the program.
 * Method: real descriptors (file, pipe, terminal); producers with and without rings of their own; all
 * lines accounted for: read + dropped = sent.
 */
#include "engine/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static char text[1 << 20];

/* What was written to `fd`, NUL-terminated. */
static const char *slurp(int fd)
{
    size_t len = 0;
    ssize_t n;

    cr_assert_neq(lseek(fd, 0, SEEK_SET), -1);
    while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0) {
        len += (size_t)n;
    }
    text[len] = '\0';
    return text;
}

static int temp(void)
{
    int fd = memfd_create("log", MFD_CLOEXEC);

    cr_assert_neq(fd, -1);
    return fd;
}

Test(log, escape)
{
    static const struct {
        struct ag_span in;
        const char *want;
    } rows[] = {
        {AG_SPAN_INIT(""), ""},
        {AG_SPAN_INIT("plain text"), "plain text"},
        {AG_SPAN_INIT("a\"b\\c"), "a\\\"b\\\\c"},
        {AG_SPAN_INIT("\b\f\n\r\t"), "\\b\\f\\n\\r\\t"},
        {AG_SPAN_INIT("\x00\x01\x1b[31m\x7f"), "\\u0000\\u0001\\u001b[31m\\u007f"},
        {AG_SPAN_INIT("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"),
         "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"},
        /* C1 controls, as characters and as stray bytes */
        {AG_SPAN_INIT("\xc2\x9b"
                      "31m"),
         "\\u009b31m"},
        {AG_SPAN_INIT("\xc2\xa0"), "\xc2\xa0"},
        {AG_SPAN_INIT("\x9b"), "\\u009b"},
        /* cut short, overlong, surrogate, beyond U+10FFFF, never bytes */
        {AG_SPAN_INIT("\xc3"), "\\u00c3"},
        {AG_SPAN_INIT("\xe2\x82"), "\\u00e2\\u0082"},
        {AG_SPAN_INIT("\xf0\x9f\x98"), "\\u00f0\\u009f\\u0098"},
        {AG_SPAN_INIT("\xc3("), "\\u00c3("},
        {AG_SPAN_INIT("\xc0\xaf\xc1\xbf"), "\\u00c0\\u00af\\u00c1\\u00bf"},
        {AG_SPAN_INIT("\xe0\x80\xaf"), "\\u00e0\\u0080\\u00af"},
        {AG_SPAN_INIT("\xe0\xa0\x80"), "\xe0\xa0\x80"},
        {AG_SPAN_INIT("\xed\xa0\x80"), "\\u00ed\\u00a0\\u0080"},
        {AG_SPAN_INIT("\xed\x9f\xbf"), "\xed\x9f\xbf"},
        {AG_SPAN_INIT("\xf0\x80\x80\x80"), "\\u00f0\\u0080\\u0080\\u0080"},
        {AG_SPAN_INIT("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf"},
        {AG_SPAN_INIT("\xf4\x90\x80\x80"), "\\u00f4\\u0090\\u0080\\u0080"},
        {AG_SPAN_INIT("\xf5\xff\xfe"), "\\u00f5\\u00ff\\u00fe"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        uint8_t *in = malloc(rows[i].in.len + 1), out[64];
        struct ag_buf b = ag_buf(out, sizeof(out));

        cr_assert(in);
        memcpy(in + 1, rows[i].in.ptr, rows[i].in.len); /* ends where the block ends */
        ag_log_escape(&b, ag_span(in + 1, rows[i].in.len));
        cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(rows[i].want)), "row %zu: %.*s", i,
                  (int)b.len, out);
        free(in);
    }
}

Test(log, escape_stops_where_the_buffer_ends)
{
    static const size_t lens[] = {0, 1, 2, 2, 2, 2, 2, 2, 8, 8, 10, 10, 10, 10, 14};

    for (size_t cap = 0; cap < AG_COUNT(lens); cap++) {
        uint8_t *out = malloc(cap ? cap : 1);
        struct ag_buf b = ag_buf(out, cap);

        cr_assert(out);
        ag_log_escape(&b, AG_SPAN("ab\x01\xc3\xa9\xf0\x9f\x98\x80z"));
        cr_expect(b.overflow);
        cr_expect_eq(b.len, lens[cap], "%zu: whole characters and escapes only, nothing after",
                     cap);
        free(out);
    }
}

Test(log, escape_cut_keeps_within_its_bound)
{
    /* Escaped: two bytes, six, two, four, one. */
    static const struct ag_span in = AG_SPAN_INIT("\"\x01\xc3\xa9\xf0\x9f\x98\x80z");
    static const char whole[] = "\\\"\\u0001\xc3\xa9\xf0\x9f\x98\x80z";
    static const uint8_t cuts[] = {0, 0, 2, 2, 2, 2, 2, 2, 8, 8, 10, 10, 10};

    for (size_t max = 3; max < 24; max++) {
        for (size_t cap = 3; cap < 24; cap++) {
            size_t room = ag_min_size(max, cap), cut = room < 15 ? cuts[room - 3] : 15;
            uint8_t *out = malloc(cap + 1);
            struct ag_buf b = ag_buf(out, cap + 1);

            cr_assert(out);
            ag_buf_putc(&b, '>');
            ag_log_escape_cut(&b, in, max);
            cr_expect_not(b.overflow);
            cr_expect_eq(b.len, 1 + (room < 15 ? cut + 3 : 15), "%zu, %zu: %zu", max, cap, b.len);
            cr_expect_eq(memcmp(out + 1, whole, cut), 0);
            cr_expect(room >= 15 || memcmp(out + 1 + cut, "...", 3) == 0);
            free(out);
        }
    }
}

/* 2024-01-02T03:04:05.678Z */
static bool is_time(const char *s)
{
    struct tm tm;
    char *end = strptime(s, "%Y-%m-%dT%H:%M:%S.", &tm);
    time_t now = time(NULL);

    if (!end || strspn(end, "0123456789") != 3 || end[3] != 'Z') {
        return false;
    }
    time_t got = timegm(&tm);
    /* The right day and hour, for no date is hard-wired; time() may be a tick behind. */
    return got >= now - 3600 && got <= now + 1;
}

Test(log, human_lines)
{
    int fd = temp();

    cr_assert_eq(ag_log_start(fd, AG_LOG_INFO, AG_LOG_HUMAN, 1), AG_OK);
    ag_log(AG_LOG_INFO, "one %d", 1);
    ag_log(AG_LOG_DEBUG, "too fine");
    ag_log_thread("main");
    ag_log(AG_LOG_ERROR, "two\nforged \"line\" \x1b[2J");
    ag_log_set_level(AG_LOG_DEBUG);
    ag_log(AG_LOG_DEBUG, "three");
    ag_log_raw(AG_SPAN("raw\n"));
    ag_log_stop();
    const char *got = slurp(fd);
    cr_expect(is_time(got), "%s", got);
    cr_expect(strstr(got, "Z info  one 1\n"), "%s", got);
    cr_expect(strstr(got, "Z error [main] two\\nforged \"line\" \\u001b[2J\n"), "%s", got);
    cr_expect(strstr(got, "Z debug [main] three\nraw\n"), "%s", got);
    cr_expect_null(strstr(got, "too fine"));
    cr_expect_null(strchr(got, '\x1b'), "a file gets no colour");
    cr_expect_eq(ag_log_dropped(), 0);
}

Test(log, json_lines)
{
    int fd = temp();

    cr_assert_eq(ag_log_start(fd, AG_LOG_WARN, AG_LOG_JSON, 1), AG_OK);
    cr_expect(ag_log_enabled(AG_LOG_WARN));
    cr_expect_not(ag_log_enabled(AG_LOG_INFO));
    ag_log(AG_LOG_WARN, "say \"hi\"\n\\");
    ag_log_thread("sh\"0");
    ag_log(AG_LOG_WARN, "x");
    ag_log_stop();
    const char *got = slurp(fd);
    cr_expect(strncmp(got, "{\"time\":\"", 9) == 0 && is_time(got + 9), "%s", got);
    cr_expect(strstr(got, "Z\",\"level\":\"warn\",\"msg\":\"say \\\"hi\\\"\\n\\\\\"}\n"), "%s",
              got);
    cr_expect(strstr(got, "\"thread\":\"sh\\\"0\",\"msg\":\"x\"}\n"), "%s", got);
}

Test(log, a_long_message_is_cut)
{
    static char longest[5000];
    int fd = temp();

    memset(longest, 1, sizeof(longest) - 1); /* six bytes each when escaped */
    cr_assert_eq(ag_log_start(fd, AG_LOG_INFO, AG_LOG_JSON, 1 << 16), AG_OK);
    ag_log(AG_LOG_INFO, "%s", longest);
    ag_log_stop();
    const char *got = slurp(fd);
    cr_expect(strstr(got, "\\u0001...\"}\n"));
    cr_expect_gt(strlen(got), 6000);
}

Test(log, without_a_writer_lines_go_out_directly)
{
    int fd = temp();

    cr_assert_neq(dup2(fd, STDERR_FILENO), -1);
    ag_log(AG_LOG_WARN, "before");
    cr_expect(strstr(slurp(fd), " warn  before\n"));
    int other = temp();
    cr_assert_eq(ag_log_start(other, AG_LOG_INFO, AG_LOG_HUMAN, 1), AG_OK);
    ag_log_stop();
    ag_log_stop();
    ag_log(AG_LOG_WARN, "after");
    cr_expect(strstr(slurp(other), " warn  after\n"));
}

enum { LINES = 3000 };

struct producer {
    pthread_t thread;
    int id;
    bool own;
};

static void *produce(void *arg)
{
    struct producer *p = arg;
    uint8_t line[128];

    if (p->own) {
        ag_log_thread("producer");
    }
    for (int i = 0; i < LINES; i++) {
        struct ag_buf b = ag_buf(line, sizeof(line));

        ag_buf_printf(&b, "%d %d %.*s|\n", p->id, i, i % 60,
                      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        ag_log_raw(ag_buf_span(&b));
    }
    return NULL;
}

/* Every line whole, in its thread's order; what is missing was counted. */
static void check_lines(const char *got, uint64_t sent)
{
    int last[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    uint64_t seen = 0;

    for (const char *at = got; *at; at = strchr(at, '\n') + 1) {
        char *rest;
        long id, i;
        int x;

        cr_assert(strchr(at, '\n'));
        if (strstr(at, "log lines dropped") && strstr(at, "log lines dropped") < strchr(at, '\n')) {
            continue;
        }
        id = strtol(at, &rest, 10);
        cr_assert(rest > at && *rest == ' ', "%.80s", at);
        i = strtol(rest, &rest, 10);
        cr_assert(id >= 0 && id < 8 && i > last[id] && *rest == ' ', "%.80s", at);
        last[id] = (int)i;
        rest++;
        x = (int)strspn(rest, "x");
        cr_assert(x == i % 60 && rest[x] == '|' && rest[x + 1] == '\n', "%.80s", at);
        seen++;
    }
    cr_expect_eq(seen + ag_log_dropped(), sent, "%lu + %lu", seen, ag_log_dropped());
}

static void run_producers(size_t ring_bytes)
{
    struct producer all[4];
    int fd = temp();

    cr_assert_eq(ag_log_start(fd, AG_LOG_INFO, AG_LOG_HUMAN, ring_bytes), AG_OK);
    for (int i = 0; i < 4; i++) {
        all[i] = (struct producer){.id = i, .own = i < 2};
        cr_assert_eq(pthread_create(&all[i].thread, NULL, produce, &all[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(all[i].thread, NULL), 0);
    }
    ag_log_stop();
    check_lines(slurp(fd), 4 * LINES);
}

Test(log, many_threads_no_line_torn)
{
    run_producers(1 << 20);
    cr_expect_eq(ag_log_dropped(), 0, "rings that hold everything drop nothing");
    run_producers(4096); /* started again, and wrapping all the time */
}

static _Atomic size_t text_len; /* read so far */

static void *read_pipe(void *arg)
{
    int fd = *(int *)arg;
    size_t len = 0;
    ssize_t n;

    while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0) {
        len += (size_t)n;
        atomic_store(&text_len, len);
    }
    text[len] = '\0';
    return NULL;
}

/* Until each of the lines was read, or dropped: the end does not wait for long for one who reads slowly. */
static void await_lines(uint64_t sent)
{
    uint64_t seen = 0;

    for (size_t at = 0; seen + ag_log_dropped() < sent; (void)usleep(1000)) {
        for (size_t len = atomic_load(&text_len); at < len; at++) {
            seen += text[at] == '|';
        }
    }
}

Test(log, a_full_ring_drops_counts_and_reports, .timeout = 120)
{
    struct producer p = {.id = 1, .own = true};
    pthread_t reader;
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(fcntl(fds[1], F_SETPIPE_SZ, 4096), 4096);
    cr_assert_eq(ag_log_start(fds[1], AG_LOG_INFO, AG_LOG_HUMAN, 8192), AG_OK);
    (void)produce(&p); /* comes back although nobody reads */
    cr_expect_gt(ag_log_dropped(), 1000);
    cr_assert_eq(pthread_create(&reader, NULL, read_pipe, &fds[0]), 0);
    await_lines(LINES);
    ag_log_stop();
    cr_assert_eq(close(fds[1]), 0);
    cr_assert_eq(pthread_join(reader, NULL), 0);
    cr_expect(strstr(text, "log lines dropped"));
    check_lines(text, LINES);
}

Test(log, a_reader_that_never_reads_does_not_hold_up_the_end)
{
    struct producer p = {.id = 1, .own = true};
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(ag_log_start(fds[1], AG_LOG_INFO, AG_LOG_HUMAN, 1 << 20), AG_OK);
    (void)produce(&p);
    ag_log_stop();
    cr_expect_gt(ag_log_dropped(), 0);
    cr_assert_eq(close(fds[1]), 0);
    (void)read_pipe(&fds[0]);
    cr_assert(strrchr(text, '\n'));
    strrchr(text, '\n')[1] = '\0'; /* the line in which the pipe filled up is lost, and counted */
    check_lines(text, LINES);
}

static double now(void)
{
    struct timespec ts;

    cr_assert_eq(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A pipe into which nothing more goes. */
static void full_pipe(int fds[static 2])
{
    static const char page[4096];
    int flags;

    cr_assert_eq(pipe(fds), 0);
    flags = fcntl(fds[1], F_GETFL);
    cr_assert_eq(fcntl(fds[1], F_SETFL, flags | O_NONBLOCK), 0);
    while (write(fds[1], page, sizeof(page)) > 0) {
    }
    cr_assert_eq(errno, EAGAIN);
    cr_assert_eq(fcntl(fds[1], F_SETFL, flags), 0);
}

Test(log, a_reader_that_never_reads_holds_up_direct_lines_once, .timeout = 90)
{
    int fds[2];
    ssize_t n;

    full_pipe(fds);
    ag_log_direct(fds[1], AG_LOG_INFO, AG_LOG_HUMAN);
    double begun = now();
    for (int i = 0; i < 100; i++) {
        ag_log(AG_LOG_INFO, "lost");
    }
    cr_expect_lt(now() - begun, 25, "one wait for all of them");
    cr_expect_eq(ag_log_dropped(), 100);
    while ((n = read(fds[0], text, sizeof(text))) == sizeof(text)) {
    }
    cr_assert_gt(n, 0);
    ag_log(AG_LOG_INFO, "read again");
    n = read(fds[0], text, sizeof(text) - 1);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    cr_expect(strstr(text, "read again\n"), "%s", text);
    cr_expect(strstr(text, "100 log lines dropped"), "%s", text);
}

Test(log, a_reader_that_never_reads_holds_up_the_end_once, .timeout = 120)
{
    struct producer all[8];
    int fds[2];

    full_pipe(fds);
    cr_assert_eq(ag_log_start(fds[1], AG_LOG_INFO, AG_LOG_HUMAN, 1 << 20), AG_OK);
    for (int i = 0; i < 8; i++) {
        all[i] = (struct producer){.id = i, .own = true};
        cr_assert_eq(pthread_create(&all[i].thread, NULL, produce, &all[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(pthread_join(all[i].thread, NULL), 0);
    }
    double begun = now();
    ag_log_stop();
    ag_log(AG_LOG_INFO, "nobody reads this either");
    cr_expect_lt(now() - begun, 12, "not for each ring");
    cr_expect_eq(ag_log_dropped(), 8 * LINES + 1);
}

Test(log, a_closed_reader_kills_nobody)
{
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(close(fds[0]), 0);
    cr_assert_eq(ag_log_start(fds[1], AG_LOG_INFO, AG_LOG_HUMAN, 4096), AG_OK);
    for (int i = 0; i < 10; i++) {
        ag_log(AG_LOG_INFO, "nobody reads this");
    }
    ag_log_stop();
    cr_expect_eq(ag_log_dropped(), 10);
}

/* The bytes that a terminal gets. */
static const char *on_terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    size_t len = 0;

    if (master < 0 || grantpt(master) || unlockpt(master)) {
        return NULL;
    }
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    if (slave < 0) {
        return NULL;
    }
    cr_assert_eq(ag_log_start(slave, AG_LOG_INFO, AG_LOG_HUMAN, 4096), AG_OK);
    ag_log(AG_LOG_WARN, "end");
    ag_log_stop();
    while (len < sizeof(text) - 1 && (len == 0 || text[len - 1] != '\n')) {
        ssize_t n = read(master, text + len, 1);

        cr_assert_eq(n, 1);
        len++;
    }
    text[len] = '\0';
    close(slave);
    close(master);
    return text;
}

Test(log, colour_on_a_terminal_unless_refused)
{
    cr_assert_eq(unsetenv("NO_COLOR"), 0);
    const char *got = on_terminal();
    if (!got) {
        cr_skip_test("no pseudo terminal here");
    }
    cr_expect(strstr(got, "\x1b[33mwarn \x1b[0m end"), "%s", got);
    cr_assert_eq(setenv("NO_COLOR", "1", 1), 0);
    got = on_terminal();
    cr_assert(got);
    cr_expect(strstr(got, " warn  end"), "%s", got);
    cr_assert_eq(setenv("NO_COLOR", "", 1), 0);
    got = on_terminal();
    cr_assert(got);
    cr_expect(strstr(got, "\x1b[33m"), "an empty NO_COLOR says nothing");
}
