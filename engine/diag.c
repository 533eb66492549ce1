#include "engine/diag.h"

#include "engine/log.h"
#include "engine/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* Bytes of one message or hint; a longer one (it quotes the user's text) is cut. */
#define TEXT_MAX 400u
/* Columns of a source line that are shown; a longer line is windowed around the caret. */
#define EXCERPT_COLUMNS 120u
#define TAB_COLUMNS     4u
/* A hint further away than this is noise. */
#define NEAR_MAX 3u

void ag_diags_init(struct ag_diags *d, struct ag_arena *arena)
{
    *d = (struct ag_diags){.arena = arena, .last = &d->first};
}

/* A copy of at most TEXT_MAX bytes, cut between code points. */
static const char *copy_text(struct ag_arena *arena, const char *text)
{
    struct ag_span s = ag_span_str(text);

    if (s.len <= TEXT_MAX) {
        return ag_arena_strdup(arena, s);
    }
    s.len = TEXT_MAX;
    while (s.len && (s.ptr[s.len] & 0xc0) == 0x80) {
        s.len--;
    }
    return ag_arena_printf(arena, "%.*s...", (int)s.len, (const char *)s.ptr);
}

static void add(struct ag_diags *d, struct ag_pos pos, enum ag_severity severity, const char *hint,
                const char *what)
{
    struct ag_diag *g = ag_arena_zalloc(d->arena, sizeof(*g));

    g->pos = pos;
    g->severity = severity;
    g->what = copy_text(d->arena, what);
    g->hint = hint ? copy_text(d->arena, hint) : NULL;
    *d->last = g;
    d->last = &g->next;
}

/* Each severity has a bound of its own, so that many warnings never hide the first error. */
void ag_diag_error(struct ag_diags *d, struct ag_pos pos, const char *hint, const char *fmt, ...)
{
    char what[TEXT_MAX + 2]; /* one more than is kept, so that the cut shows */
    va_list args;

    if (d->errors++ >= AG_DIAGS_MAX) {
        return;
    }
    va_start(args, fmt);
    int n = vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    AG_ASSERT(n >= 0);
    add(d, pos, AG_SEV_ERROR, hint, what);
}

void ag_diag_warn(struct ag_diags *d, struct ag_pos pos, const char *hint, const char *fmt, ...)
{
    char what[TEXT_MAX + 2];
    va_list args;

    if (d->warnings++ >= AG_DIAGS_MAX) {
        return;
    }
    va_start(args, fmt);
    int n = vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    AG_ASSERT(n >= 0);
    add(d, pos, AG_SEV_WARNING, hint, what);
}

const char *ag_diag_nearest(struct ag_diags *d, struct ag_span word, const char *const *names,
                            size_t count)
{
    uint8_t lower[64];
    const char *best = NULL;
    /* A third of the word may differ: "x" is not near "user", "usr" is. */
    unsigned cap = (unsigned)ag_min_size(NEAR_MAX, 1 + word.len / 3) + 1;

    if (word.len > sizeof(lower)) {
        return NULL;
    }
    for (size_t i = 0; i < word.len; i++) {
        lower[i] = ag_ascii_lower(word.ptr[i]);
    }
    for (size_t i = 0; i < count; i++) {
        struct ag_span name = ag_span_str(names[i]);
        unsigned far = ag_span_distance(ag_span(lower, word.len), name, cap);

        /* Nothing in common is no likeness, however short the words are. */
        if (far < cap && far < name.len && far < word.len + 1) {
            cap = far;
            best = names[i];
        }
        if (cap == 0) {
            break;
        }
    }
    return best ? ag_arena_printf(d->arena, "did you mean %s?", best) : NULL;
}

/* ---- output ---- */

struct writer {
    int fd; /* -1: the log, line by line */
    bool colour;
    bool failed; /* nobody reads: the rest is dropped */
    struct ag_buf buf;
    uint8_t bytes[1024];
};

static void flush(struct writer *w)
{
    size_t at = 0;

    if (w->fd < 0) {
        ag_log_raw(ag_buf_span(&w->buf));
        w->buf.len = 0;
        return;
    }
    while (at < w->buf.len && !w->failed) {
        ssize_t n = write(w->fd, w->bytes + at, w->buf.len - at);
        if (n > 0) {
            at += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            w->failed = true;
        }
    }
    w->buf.len = 0;
}

static void emit(struct writer *w, struct ag_span s)
{
    while (s.len) {
        size_t part = ag_min_size(s.len, w->buf.cap - w->buf.len);

        ag_buf_put(&w->buf, ag_span_sub(s, 0, part));
        s = ag_span_sub(s, part, s.len);
        if (w->buf.len == w->buf.cap || (w->fd < 0 && w->bytes[w->buf.len - 1] == '\n')) {
            flush(w);
        }
    }
}

static void emit_str(struct writer *w, const char *s)
{
    emit(w, ag_span_str(s));
}

static void emit_u32(struct writer *w, uint32_t value)
{
    uint8_t digits[20];
    struct ag_buf b = ag_buf(digits, sizeof(digits));

    ag_buf_put_u64(&b, value);
    emit(w, ag_buf_span(&b));
}

static void emit_spaces(struct writer *w, size_t count)
{
    while (count--) {
        emit_str(w, " ");
    }
}

static void emit_colour(struct writer *w, const char *sequence)
{
    if (w->colour) {
        emit_str(w, sequence);
    }
}

/* The code point at the front of `s`; its length in *out_len. What a terminal should not get
 * (controls, malformed bytes) comes as '?'. */
static uint32_t printable(struct ag_span s, size_t *out_len)
{
    uint32_t cp = '?';
    size_t n = ag_utf8_decode(s, &cp);

    *out_len = n ? n : 1;
    if (n == 0 || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
        return '?';
    }
    return cp;
}

static void emit_text(struct writer *w, struct ag_span s)
{
    while (s.len) {
        size_t n = 0;
        uint32_t cp = printable(s, &n);

        emit(w, cp == '?' ? AG_SPAN("?") : ag_span_sub(s, 0, n));
        s = ag_span_sub(s, n, s.len);
    }
}

static struct ag_span line_text(const struct ag_source *src, uint32_t line)
{
    struct ag_span rest = src->text;

    for (uint32_t i = 1; i < line && rest.len; i++) {
        size_t end = ag_span_find(rest, '\n');
        rest = ag_span_sub(rest, ag_min_size(end + 1, rest.len), rest.len);
    }
    rest.len = ag_span_find(rest, '\n');
    if (rest.len && rest.ptr[rest.len - 1] == '\r') {
        rest.len--;
    }
    return rest;
}

/* Columns that a terminal gives to a code point: none to combining marks, two to the wide scripts of
 * East Asia and emoji (the blocks of UAX #11 that matter in practice). */
static size_t columns_of(uint32_t cp)
{
    static const uint32_t wide[][2] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf},   {0xac00, 0xd7a3},
                                       {0xf900, 0xfaff}, {0xfe30, 0xfe6f},   {0xff00, 0xff60},
                                       {0xffe0, 0xffe6}, {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};

    if ((cp >= 0x300 && cp <= 0x36f) || cp == 0x200d || (cp >= 0xfe00 && cp <= 0xfe0f)) {
        return 0;
    }
    for (size_t i = 0; i < AG_COUNT(wide); i++) {
        if (cp >= wide[i][0] && cp <= wide[i][1]) {
            return 2;
        }
    }
    return 1;
}

/* Walks a source line in display columns. */
struct cells {
    struct ag_span line;
    size_t at, len;       /* bytes of the present code point */
    size_t column, width; /* where it stands, and how wide it is */
    uint32_t cp;
};

static bool cells_next(struct cells *c)
{
    c->at += c->len;
    c->column += c->width;
    c->len = c->width = 0;
    if (c->at == c->line.len) {
        return false;
    }
    c->cp = printable(ag_span_sub(c->line, c->at, c->line.len), &c->len);
    if (c->line.ptr[c->at] == '\t') {
        c->cp = '\t';
        c->width = TAB_COLUMNS - c->column % TAB_COLUMNS;
    } else {
        c->width = columns_of(c->cp);
    }
    return true;
}

/* The display column of byte column `col` (from 1), and the width of the whole line. */
static size_t caret_column(struct ag_span line, uint32_t col, size_t *out_width)
{
    struct cells c = {.line = line};
    size_t caret = SIZE_MAX;

    while (cells_next(&c)) {
        if (caret == SIZE_MAX && col >= 1 && col - 1 < c.at + c.len) {
            caret = c.column;
        }
    }
    *out_width = c.column;
    return caret == SIZE_MAX ? c.column : caret;
}

/* Shows columns [from, from + EXCERPT_COLUMNS); returns the column of the first one shown. */
static size_t emit_window(struct writer *w, struct ag_span line, size_t from)
{
    struct cells c = {.line = line};
    size_t first = SIZE_MAX;

    while (cells_next(&c)) {
        if (c.column < from || c.column + c.width > from + EXCERPT_COLUMNS) {
            continue;
        }
        if (first == SIZE_MAX) {
            first = c.column;
        }
        if (c.cp == '\t') {
            emit_spaces(w, c.width);
        } else {
            emit(w, c.cp == '?' ? AG_SPAN("?") : ag_span_sub(line, c.at, c.at + c.len));
        }
    }
    return first == SIZE_MAX ? from : first;
}

static void emit_excerpt(struct writer *w, struct ag_pos pos)
{
    struct ag_span line = line_text(pos.source, pos.line);
    char number[16];
    size_t width = 0, caret = caret_column(line, pos.col, &width);
    size_t from =
        width > EXCERPT_COLUMNS && caret > EXCERPT_COLUMNS / 2 ? caret - EXCERPT_COLUMNS / 2 : 0;
    int gutter = snprintf(number, sizeof(number), "%5u", pos.line);

    AG_ASSERT(gutter > 0 && (size_t)gutter < sizeof(number));
    emit_str(w, number);
    emit_str(w, " | ");
    emit_str(w, from ? "..." : "");
    size_t first = emit_window(w, line, from);
    emit_str(w, width > from + EXCERPT_COLUMNS ? "..." : "");
    emit_str(w, "\n");
    emit_spaces(w, (size_t)gutter);
    emit_str(w, " | ");
    emit_spaces(w, (from ? 3 : 0) + caret - first);
    emit_colour(w, "\033[1;32m");
    emit_str(w, "^");
    emit_colour(w, "\033[0m");
    emit_str(w, "\n");
}

static const char *severity_name(enum ag_severity severity)
{
    return severity == AG_SEV_ERROR ? "error" : "warning";
}

static void print_human(struct writer *w, const struct ag_diag *g)
{
    if (g->pos.source) {
        emit_colour(w, "\033[1m");
        emit_text(w, ag_span_str(g->pos.source->name));
        emit_str(w, ":");
        emit_u32(w, g->pos.line);
        emit_str(w, ":");
        emit_u32(w, g->pos.col);
        emit_str(w, ":");
        emit_colour(w, "\033[0m");
        emit_str(w, " ");
    }
    emit_colour(w, g->severity == AG_SEV_ERROR ? "\033[1;31m" : "\033[1;35m");
    emit_str(w, severity_name(g->severity));
    emit_str(w, ":");
    emit_colour(w, "\033[0m");
    emit_str(w, " ");
    emit_text(w, ag_span_str(g->what));
    if (g->hint) {
        emit_colour(w, "\033[36m");
        emit_str(w, "; hint: ");
        emit_text(w, ag_span_str(g->hint));
        emit_colour(w, "\033[0m");
    }
    emit_str(w, "\n");
    if (g->pos.source) {
        emit_excerpt(w, g->pos);
    }
}

/* A JSON string, or null. */
static void emit_json(struct writer *w, const char *text)
{
    struct ag_span s = ag_span_str(text ? text : "");

    if (!text) {
        emit_str(w, "null");
        return;
    }
    emit_str(w, "\"");
    while (s.len) {
        uint8_t room[16];
        uint32_t cp = 0;
        struct ag_buf b = ag_buf(room, sizeof(room));
        size_t n = ag_utf8_decode(s, &cp);

        n = n ? n : 1;
        ag_log_escape(&b, ag_span_sub(s, 0, n));
        emit(w, ag_buf_span(&b));
        s = ag_span_sub(s, n, s.len);
    }
    emit_str(w, "\"");
}

static void print_json(struct writer *w, const struct ag_diag *g)
{
    const struct ag_source *src = g->pos.source;

    emit_str(w, "{\"file\":");
    emit_json(w, src ? src->name : NULL);
    emit_str(w, ",\"line\":");
    emit_u32(w, src ? g->pos.line : 0);
    emit_str(w, ",\"col\":");
    emit_u32(w, src ? g->pos.col : 0);
    emit_str(w, ",\"severity\":");
    emit_json(w, severity_name(g->severity));
    emit_str(w, ",\"what\":");
    emit_json(w, g->what);
    emit_str(w, ",\"hint\":");
    emit_json(w, g->hint);
    emit_str(w, "}\n");
}

/* The order in which sources were first complained about; what has no source comes first. */
static uint32_t rank_of(const struct ag_diags *d, const struct ag_source *src)
{
    uint32_t rank = 1;

    if (!src) {
        return 0;
    }
    for (const struct ag_diag *g = d->first; g->pos.source != src; g = g->next) {
        rank++;
    }
    return rank;
}

struct ranked {
    const struct ag_diag *diag;
    uint32_t rank;
};

static bool comes_before(const struct ranked *a, const struct ranked *b)
{
    if (a->rank != b->rank) {
        return a->rank < b->rank;
    }
    if (a->diag->pos.line != b->diag->pos.line) {
        return a->diag->pos.line < b->diag->pos.line;
    }
    return a->diag->pos.col < b->diag->pos.col;
}

/* Insertion keeps the order of those at one place; there are few. */
static size_t sort(const struct ag_diags *d, struct ranked sorted[static 2 * AG_DIAGS_MAX])
{
    size_t count = 0;

    for (const struct ag_diag *g = d->first; g; g = g->next) {
        struct ranked r = {g, rank_of(d, g->pos.source)};
        size_t at = count++;

        AG_ASSERT(count <= (size_t)2 * AG_DIAGS_MAX);
        while (at > 0 && comes_before(&r, &sorted[at - 1])) {
            sorted[at] = sorted[at - 1];
            at--;
        }
        sorted[at] = r;
    }
    return count;
}

static void print(struct writer *w, enum ag_diag_format format, const struct ag_diag *g)
{
    switch (format) {
    case AG_DIAG_HUMAN:
        print_human(w, g);
        break;
    case AG_DIAG_JSON:
        print_json(w, g);
        break;
    }
}

static void print_more(struct writer *w, enum ag_diag_format format, enum ag_severity severity,
                       uint32_t count)
{
    char what[64];

    if (count <= AG_DIAGS_MAX) {
        return;
    }
    struct ag_buf b = ag_buf(what, sizeof(what));
    ag_buf_printf(&b, "%u more %ss are not shown", count - AG_DIAGS_MAX, severity_name(severity));
    print(w, format, &(struct ag_diag){.severity = severity, .what = what});
}

static void print_all(const struct ag_diags *d, int fd, enum ag_diag_format format, bool colour)
{
    struct ranked sorted[2 * AG_DIAGS_MAX];
    struct writer w = {.fd = fd, .colour = colour && format == AG_DIAG_HUMAN};
    size_t count = sort(d, sorted);

    w.buf = ag_buf(w.bytes, sizeof(w.bytes));
    for (size_t i = 0; i < count; i++) {
        print(&w, format, sorted[i].diag);
    }
    print_more(&w, format, AG_SEV_ERROR, d->errors);
    print_more(&w, format, AG_SEV_WARNING, d->warnings);
    flush(&w);
}

void ag_diags_print(const struct ag_diags *d, int fd, enum ag_diag_format format, bool colour)
{
    AG_ASSERT(fd >= 0);
    print_all(d, fd, format, colour);
}

void ag_diags_log(const struct ag_diags *d, bool colour)
{
    print_all(d, -1, AG_DIAG_HUMAN, colour);
}
