#include "engine/log.h"

#include "engine/fault.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Threads that may have a ring of their own; later ones share. */
#define RINGS_MAX 1024u
#define RING_MIN  4096u

#define TEXT_MAX       1024u        /* bytes of a message; a longer one is cut and ends in "..." */
#define LINE_MAX_BYTES (8u * 1024u) /* of a line: a message escaped at its worst, and its frame */
#define NAME_MAX_BYTES 16u

/* After a batch the writer naps, so that a busy shard need not wake it for every line. */
#define NAP_NS 2000000L
/* A reader that takes nothing for this long loses lines once the program wants to stop: all that are left. */
#define STALL_MS 2000
/* One who writes directly waits this long for a reader, and not at all until he has read again. */
#define DIRECT_MS 500

_Static_assert(TEXT_MAX * 6 + 256 < LINE_MAX_BYTES, "an escaped message always fits");

/*
 * Bytes of whole lines from one thread to the writer. Positions only grow; head - tail is what waits.
 *
 *   data:  [ free | tail ... lines ... head | free ]      index = position & (cap - 1)
 */
struct ring {
    _Alignas(AG_CACHE_LINE) _Atomic uint64_t head; /* the producer's: lines are whole up to here */
    uint64_t tail_seen;                            /* the producer's memory of tail */
    _Atomic uint64_t dropped;
    _Alignas(AG_CACHE_LINE) _Atomic uint64_t tail; /* the writer's */
    size_t cap;                                    /* a power of two */
    _Alignas(AG_CACHE_LINE) uint8_t data[];
};

enum writer_state {
    WRITER_AWAKE = 0, /* will look at the rings again by itself  -> NAPPING, ASLEEP */
    WRITER_NAPPING,   /* back within NAP_NS; woken by a half full ring -> AWAKE */
    WRITER_ASLEEP,    /* woken by any line                       -> AWAKE */
};

/* The one log of the process. What changes while it runs is atomic or under `lock`. */
static struct {
    _Atomic int level; /* enum ag_log_level */
    _Atomic bool running;
    _Atomic bool stopping;
    _Atomic uint32_t writer; /* enum writer_state; a futex */
    _Atomic uint32_t ring_count;
    _Atomic uint64_t lost; /* lines that the descriptor refused */
    struct ring *_Atomic rings[RINGS_MAX];
    struct ring *shared;  /* rings[0], written under `lock` */
    pthread_mutex_t lock; /* the shared ring, registration */
    pthread_t thread;
    uint64_t generation; /* of starts: an older thread's ring is gone */
    uint64_t reported;   /* dropped lines told so far; the writer's */
    int64_t reported_s;  /* when */
    size_t ring_bytes;
    int fd;
    enum ag_log_format format;
    bool colour;
    bool may_stall;       /* the descriptor is no regular file */
    bool direct;          /* by ag_log_direct: one thread, and no writer */
    _Atomic bool stalled; /* the reader: no more is waited for him until he takes a direct line */
} ag_log_state = {.level = AG_LOG_INFO, .lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO};

static _Thread_local struct ring *own_ring;
static _Thread_local uint64_t own_generation;
static _Thread_local char own_name[NAME_MAX_BYTES];

/* ---- rings ---- */

static struct ring *ring_new(size_t cap)
{
    size_t bytes = sizeof(struct ring) + cap;
    struct ring *r = AG_SYS_NULL("calloc.log", aligned_alloc(AG_CACHE_LINE, bytes));

    if (r) {
        memset(r, 0, sizeof(*r));
        r->cap = cap;
    }
    return r;
}

static void futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
    /* Every failure (EAGAIN, EINTR, ETIMEDOUT) means: look again, which the callers do. */
    (void)syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, timeout, NULL, 0);
}

static void writer_wake(void)
{
    if (atomic_exchange(&ag_log_state.writer, WRITER_AWAKE) != WRITER_AWAKE) {
        futex(&ag_log_state.writer, FUTEX_WAKE, 1, NULL);
    }
}

/* By the ring's one producer. Never waits: what does not fit is dropped and counted. */
static void ring_push(struct ring *r, struct ag_span line)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

    if (line.len > r->cap - (head - r->tail_seen)) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
    }
    if (line.len > r->cap - (head - r->tail_seen)) {
        (void)atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
        return;
    }
    size_t at = head & (r->cap - 1);
    size_t part = ag_min_size(line.len, r->cap - at);
    memcpy(r->data + at, line.ptr, part);
    if (line.len > part) {
        memcpy(r->data, line.ptr + part, line.len - part);
    }
    /* Sequentially consistent, like the writer's store of its state before its last look at the
     * rings: either it sees this line or this thread sees it asleep. */
    atomic_store(&r->head, head + line.len);
    uint32_t state = atomic_load(&ag_log_state.writer);
    if (state == WRITER_ASLEEP ||
        (state == WRITER_NAPPING && head + line.len - r->tail_seen > r->cap / 2)) {
        writer_wake();
    }
}

/* ---- the writer ---- */

static uint32_t count_lines(const uint8_t *ptr, size_t len)
{
    uint32_t lines = 0;

    for (size_t i = 0; i < len; i++) {
        lines += ptr[i] == '\n';
    }
    return lines;
}

/* Whether the descriptor takes bytes within that time; an error shows itself in write. */
static bool poll_writable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int n = poll(&p, 1, ms);

    return n > 0 || (n < 0 && errno != EINTR);
}

/* Waits until the descriptor takes bytes. False: it has stalled and the program wants to stop. */
static bool wait_writable(int fd)
{
    for (int waited_ms = 0;;) {
        bool stalled = atomic_load(&ag_log_state.stalled);

        if (poll_writable(fd, stalled ? 0 : 100)) {
            return true;
        }
        waited_ms = atomic_load(&ag_log_state.stopping) ? waited_ms + 100 : 0;
        if (stalled || waited_ms >= STALL_MS) {
            atomic_store(&ag_log_state.stalled, true);
            return false;
        }
    }
}

/* The bytes written; the rest was given up: the reader is gone or has stalled, or the disk is full. */
static size_t write_all(const uint8_t *ptr, size_t len)
{
    int fd = ag_log_state.fd;
    size_t done = 0;

    while (done < len) {
        /* A writable pipe takes PIPE_BUF bytes without blocking, so a stop is never stuck here. */
        size_t part = ag_log_state.may_stall ? ag_min_size(len - done, PIPE_BUF) : len - done;
        ssize_t n = -1;

        if (!ag_log_state.may_stall || wait_writable(fd)) {
            n = AG_SYS("log.write", write(fd, ptr + done, part));
            if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
                continue;
            }
        }
        if (n <= 0) {
            break;
        }
        done += (size_t)n;
    }
    return done;
}

static void write_lines(const uint8_t *ptr, size_t len)
{
    size_t done = write_all(ptr, len);

    if (done < len) {
        (void)atomic_fetch_add(&ag_log_state.lost, count_lines(ptr + done, len - done));
    }
}

static bool ring_drain(struct ring *r)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    uint64_t head = atomic_load(&r->head);

    if (head == tail) {
        return false;
    }
    size_t at = tail & (r->cap - 1), len = (size_t)(head - tail);
    size_t part = ag_min_size(len, r->cap - at);
    write_lines(r->data + at, part);
    write_lines(r->data, len - part);
    atomic_store_explicit(&r->tail, head, memory_order_release);
    return true;
}

static bool drain(void)
{
    uint32_t count = atomic_load(&ag_log_state.ring_count);
    bool any = false;

    for (uint32_t i = 0; i < count; i++) {
        any |= ring_drain(atomic_load(&ag_log_state.rings[i]));
    }
    return any;
}

static struct ag_span format_line(enum ag_log_level level, const char *text);

/* At most once a second: a flood of lines must not become a flood of reports. */
static void report_drops(bool last)
{
    uint64_t dropped = ag_log_dropped();
    struct timespec now;
    char text[80];

    if (dropped == ag_log_state.reported) {
        return;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec == ag_log_state.reported_s && !last) {
        return;
    }
    (void)snprintf(text, sizeof(text), "%lu log lines dropped: the reader is too slow",
                   (unsigned long)(dropped - ag_log_state.reported));
    ag_log_state.reported = dropped;
    ag_log_state.reported_s = now.tv_sec;
    struct ag_span line = format_line(AG_LOG_WARN, text);
    (void)write_all(line.ptr, line.len);
}

static void *writer_main(void *arg)
{
    static const struct timespec nap = {.tv_nsec = NAP_NS};
    bool busy = false;

    (void)pthread_setname_np(pthread_self(), "log");
    while (!atomic_load(&ag_log_state.stopping)) {
        enum writer_state rest = busy ? WRITER_NAPPING : WRITER_ASLEEP;

        atomic_store(&ag_log_state.writer, rest);
        busy = drain();
        if ((rest == WRITER_NAPPING || !busy) && !atomic_load(&ag_log_state.stopping)) {
            futex(&ag_log_state.writer, FUTEX_WAIT, rest, rest == WRITER_NAPPING ? &nap : NULL);
            busy |= drain();
        }
        atomic_store(&ag_log_state.writer, WRITER_AWAKE);
        report_drops(false);
    }
    while (drain()) {
    }
    report_drops(true);
    return arg;
}

/* ---- start and stop ---- */

static size_t power_of_two(size_t n)
{
    size_t p = RING_MIN;

    while (p < n && p <= SIZE_MAX / 4) {
        p *= 2;
    }
    return p;
}

/* Rings outlive a stop, for a thread may be in the middle of a line; they go at the next start. */
static void rings_free(void)
{
    uint32_t count = atomic_exchange(&ag_log_state.ring_count, 0);

    for (uint32_t i = 0; i < count; i++) {
        free(atomic_exchange(&ag_log_state.rings[i], NULL));
    }
    ag_log_state.shared = NULL;
}

static bool wants_colour(int fd)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nothing changes the environment */
    const char *no = getenv("NO_COLOR");

    return !(no && *no) && isatty(fd) == 1;
}

void ag_log_direct(int fd, enum ag_log_level level, enum ag_log_format format)
{
    AG_ASSERT(!atomic_load(&ag_log_state.running));
    ag_log_state.fd = fd;
    ag_log_state.format = format;
    ag_log_state.colour = wants_colour(fd);
    ag_log_state.direct = true;
    atomic_store(&ag_log_state.level, (int)level);
}

enum ag_status ag_log_start(int fd, enum ag_log_level level, enum ag_log_format format,
                            size_t ring_bytes)
{
    struct stat st;
    sigset_t all, old;

    AG_ASSERT(!atomic_load(&ag_log_state.running));
    rings_free();
    ag_log_state.generation++;
    ag_log_state.ring_bytes = power_of_two(ring_bytes);
    ag_log_state.shared = ring_new(ag_log_state.ring_bytes);
    if (!ag_log_state.shared) {
        return AG_ENOMEM;
    }
    atomic_store(&ag_log_state.rings[0], ag_log_state.shared);
    atomic_store(&ag_log_state.ring_count, 1);
    ag_log_state.fd = fd;
    ag_log_state.format = format;
    ag_log_state.colour = wants_colour(fd);
    ag_log_state.may_stall = fstat(fd, &st) != 0 || !S_ISREG(st.st_mode);
    ag_log_state.direct = false;
    ag_log_state.reported = 0;
    ag_log_state.reported_s = 0;
    atomic_store(&ag_log_state.stalled, false);
    atomic_store(&ag_log_state.lost, 0);
    atomic_store(&ag_log_state.level, (int)level);
    atomic_store(&ag_log_state.stopping, false);
    atomic_store(&ag_log_state.writer, WRITER_AWAKE);
    /* Signals are the control thread's; and a SIGPIPE of ours stays pending, write tells EPIPE. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = AG_FAULT("thread.log") ? EAGAIN
                                    : pthread_create(&ag_log_state.thread, NULL, writer_main, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        return AG_ESYS;
    }
    atomic_store(&ag_log_state.running, true);
    return AG_OK;
}

void ag_log_stop(void)
{
    /* Under the lock, so that no line slips into the shared ring behind the last drain. */
    (void)pthread_mutex_lock(&ag_log_state.lock);
    bool was = atomic_exchange(&ag_log_state.running, false);
    (void)pthread_mutex_unlock(&ag_log_state.lock);
    if (!was) {
        return;
    }
    atomic_store(&ag_log_state.stopping, true);
    writer_wake();
    int rc = pthread_join(ag_log_state.thread, NULL);
    AG_ASSERT(rc == 0);
}

void ag_log_thread(const char *name)
{
    (void)snprintf(own_name, sizeof(own_name), "%s", name);
    (void)pthread_mutex_lock(&ag_log_state.lock);
    uint32_t count = atomic_load(&ag_log_state.ring_count);
    if (atomic_load(&ag_log_state.running) && count < RINGS_MAX &&
        own_generation != ag_log_state.generation) {
        struct ring *r = ring_new(ag_log_state.ring_bytes);

        if (r) { /* else it shares */
            own_ring = r;
            own_generation = ag_log_state.generation;
            atomic_store(&ag_log_state.rings[count], r);
            atomic_store(&ag_log_state.ring_count, count + 1);
        }
    }
    (void)pthread_mutex_unlock(&ag_log_state.lock);
}

void ag_log_set_level(enum ag_log_level level)
{
    atomic_store_explicit(&ag_log_state.level, (int)level, memory_order_relaxed);
}

bool ag_log_enabled(enum ag_log_level level)
{
    return (int)level <= atomic_load_explicit(&ag_log_state.level, memory_order_relaxed);
}

uint64_t ag_log_dropped(void)
{
    uint32_t count = atomic_load(&ag_log_state.ring_count);
    uint64_t sum = atomic_load(&ag_log_state.lost);

    for (uint32_t i = 0; i < count; i++) {
        sum += atomic_load_explicit(&atomic_load(&ag_log_state.rings[i])->dropped,
                                    memory_order_relaxed);
    }
    return sum;
}

/* ---- lines ---- */

/* By threads that have something else to do, too: a reader who stalls costs them DIRECT_MS once. */
static void write_direct(struct ag_span line)
{
    int fd = ag_log_state.fd;

    while (line.len) {
        bool good = poll_writable(fd, atomic_load(&ag_log_state.stalled) ? 0 : DIRECT_MS);
        /* A writable pipe takes PIPE_BUF bytes without blocking. */
        ssize_t n =
            good ? AG_SYS("log.direct", write(fd, line.ptr, ag_min_size(line.len, PIPE_BUF))) : 0;

        if (n < 0 && errno == EINTR) {
            continue;
        }
        atomic_store(&ag_log_state.stalled, !good);
        if (n <= 0) {
            (void)atomic_fetch_add(&ag_log_state.lost, 1);
            return;
        }
        line = ag_span_sub(line, (size_t)n, line.len);
    }
    if (ag_log_state.direct && poll_writable(fd, 0)) {
        report_drops(false);
    }
}

void ag_log_raw(struct ag_span line)
{
    if (line.len == 0) {
        return;
    }
    if (!atomic_load_explicit(&ag_log_state.running, memory_order_acquire)) {
        write_direct(line);
        return;
    }
    if (own_ring && own_generation == ag_log_state.generation) {
        ring_push(own_ring, line);
        return;
    }
    (void)pthread_mutex_lock(&ag_log_state.lock);
    bool running = atomic_load(&ag_log_state.running);
    if (running) {
        ring_push(ag_log_state.shared, line);
    }
    (void)pthread_mutex_unlock(&ag_log_state.lock);
    if (!running) {
        write_direct(line);
    }
}

/* RFC 3339, UTC, milliseconds. By hand (Howard Hinnant, chrono-compatible low-level date algorithms):
 * gmtime_r takes a lock of the C library. */
static void put_time(struct ag_buf *b)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    uint64_t s = ts.tv_sec > 0 ? (uint64_t)ts.tv_sec : 0;
    uint64_t z = s / 86400 + 719468; /* days since 0000-03-01 */
    uint64_t era = z / 146097, doe = z % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    uint64_t mp = (5 * doy + 2) / 153; /* months from March */
    uint64_t day = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 3 : mp - 9;
    uint64_t year = yoe + era * 400 + (month <= 2);

    ag_buf_printf(b, "%04lu-%02lu-%02luT%02lu:%02lu:%02lu.%03luZ", year, month, day, s / 3600 % 24,
                  s / 60 % 60, s % 60, (uint64_t)ts.tv_nsec / 1000000);
}

/* Bytes of the well-formed UTF-8 sequence at the start of `s` (RFC 3629 section 4), 0 when there is
 * none: overlong forms, surrogates and what lies beyond U+10FFFF are not. */
static size_t utf8_len(struct ag_span s)
{
    uint8_t lead = s.ptr[0], low = 0x80, high = 0xbf;
    size_t len = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;

    if (lead < 0x80) {
        return 1;
    }
    if (lead < 0xc2 || lead > 0xf4 || s.len < len) {
        return 0;
    }
    if (lead == 0xe0) {
        low = 0xa0;
    } else if (lead == 0xed) {
        high = 0x9f;
    } else if (lead == 0xf0) {
        low = 0x90;
    } else if (lead == 0xf4) {
        high = 0x8f;
    }
    for (size_t i = 1; i < len; i++) {
        if (s.ptr[i] < low || s.ptr[i] > high) {
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return len;
}

static void put_escape(struct ag_buf *out, uint8_t ch)
{
    static const char hex[] = "0123456789abcdef";
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = ch ? strchr(from, ch) : NULL;

    if (at) {
        uint8_t two[] = {'\\', (uint8_t)to[at - from]};

        ag_buf_put(out, ag_span(two, sizeof(two)));
        return;
    }
    uint8_t six[] = {'\\', 'u', '0', '0', (uint8_t)hex[ch >> 4], (uint8_t)hex[ch & 15]};
    ag_buf_put(out, ag_span(six, sizeof(six)));
}

/* What stands as it is; cut at a character where the buffer ends. */
static void put_plain(struct ag_buf *out, struct ag_span s)
{
    size_t room = out->cap - out->len;

    if (ag_unlikely(s.len > room)) {
        while (room > 0 && (s.ptr[room] & 0xc0) == 0x80) {
            room--;
        }
        ag_buf_put(out, ag_span_sub(s, 0, room));
        out->overflow = true;
        return;
    }
    ag_buf_put(out, s);
}

/* `quotes`: also escape what JSON needs escaped inside a string. */
static void escape(struct ag_buf *out, struct ag_span s, bool quotes)
{
    size_t run = 0;

    for (size_t at = 0; at < s.len && !out->overflow;) {
        struct ag_span rest = ag_span_sub(s, at, s.len);
        size_t len = utf8_len(rest);
        uint8_t ch = rest.ptr[0];
        /* U+0080 .. U+009F are controls too, and terminals obey them (CSI is U+009B). */
        bool c1 = len == 2 && ch == 0xc2 && rest.ptr[1] < 0xa0;

        if (len > 0 && !c1 && ch >= 0x20 && ch != 0x7f && !(quotes && (ch == '"' || ch == '\\'))) {
            at += len;
            continue;
        }
        put_plain(out, ag_span_sub(s, run, at));
        if (!out->overflow) {
            put_escape(out, c1 ? rest.ptr[1] : ch);
        }
        at += len ? len : 1;
        run = at;
    }
    if (!out->overflow) {
        put_plain(out, ag_span_sub(s, run, s.len));
    }
}

void ag_log_escape(struct ag_buf *out, struct ag_span s)
{
    escape(out, s, true);
}

void ag_log_escape_cut(struct ag_buf *out, struct ag_span s, size_t max_bytes)
{
    const struct ag_span mark = AG_SPAN("...");
    size_t room = ag_min_size(max_bytes, out->cap - out->len);
    struct ag_buf part = ag_buf(out->ptr + out->len, room);

    if (s.len <= room) {
        escape(&part, s, true);
    }
    if (s.len > room || part.overflow) {
        /* Again, with room for the mark; what is longer than the room cannot come out shorter. */
        part = ag_buf(out->ptr + out->len, room > mark.len ? room - mark.len : 0);
        escape(&part, ag_span_sub(s, 0, ag_min_size(s.len, room)), true);
        part.cap = room;
        ag_buf_put(&part, mark);
    }
    out->len += part.len;
}

/* The line, in a buffer of the thread's own. */
static struct ag_span format_line(enum ag_log_level level, const char *text)
{
    static _Thread_local uint8_t line[LINE_MAX_BYTES];
    static const char *const names[] = {"error", "warn", "info", "debug"};
    static const char *const colours[] = {"\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[36m"};
    struct ag_buf b = ag_buf(line, sizeof(line));
    struct ag_span s = ag_span_str(text);

    if (ag_log_state.format == AG_LOG_JSON) {
        ag_buf_put(&b, AG_SPAN("{\"time\":\""));
        put_time(&b);
        ag_buf_printf(&b, "\",\"level\":\"%s\",", names[level]);
        if (own_name[0]) {
            ag_buf_put(&b, AG_SPAN("\"thread\":\""));
            escape(&b, ag_span_str(own_name), true);
            ag_buf_put(&b, AG_SPAN("\","));
        }
        ag_buf_put(&b, AG_SPAN("\"msg\":\""));
        escape(&b, s, true);
        ag_buf_put(&b, AG_SPAN("\"}\n"));
    } else {
        bool colour = ag_log_state.colour;

        put_time(&b);
        ag_buf_printf(&b, " %s%-5s%s ", colour ? colours[level] : "", names[level],
                      colour ? "\x1b[0m" : "");
        if (own_name[0]) {
            ag_buf_putc(&b, '[');
            escape(&b, ag_span_str(own_name), false);
            ag_buf_put(&b, AG_SPAN("] "));
        }
        escape(&b, s, false);
        ag_buf_putc(&b, '\n');
    }
    AG_ASSERT(!b.overflow);
    return ag_buf_span(&b);
}

void ag_log(enum ag_log_level level, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list args;

    if (!ag_log_enabled(level)) {
        return;
    }
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    AG_ASSERT(n >= 0);
    if ((size_t)n >= sizeof(text)) {
        memcpy(text + sizeof(text) - 4, "...", 4);
    }
    ag_log_raw(format_line(level, text));
}
