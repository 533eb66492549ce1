/* diag_util: what tests of diagnoses and trees share. */
#pragma once
#include "engine/node.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

struct fixture {
    struct ag_arena arena;
    struct ag_diags diags;
};

static inline void fixture_init(struct fixture *f)
{
    ag_arena_init(&f->arena, NULL, 0);
    ag_diags_init(&f->diags, &f->arena);
}

static inline void fixture_deinit(struct fixture *f)
{
    ag_arena_release(&f->arena);
}

static inline bool text_is(struct ag_span s, const char *want)
{
    return ag_span_eq(s, ag_span_str(want));
}

/* What a table of bad inputs expects of the first diagnosis. */
struct bad {
    const char *text;
    uint32_t line, col;
    const char *what, *hint; /* parts of the texts; hint NULL: none must be there, "*": any */
};

static inline void check_bad(const struct bad *b, const struct ag_diags *d)
{
    const struct ag_diag *g = d->first;

    cr_assert_not_null(g, "no diagnosis of: %s", b->text);
    cr_assert(strstr(g->what, b->what), "%s\n  said \"%s\", not \"%s\"", b->text, g->what, b->what);
    cr_assert(g->pos.line == b->line && g->pos.col == b->col, "%s\n  %s: at %u:%u, not %u:%u",
              b->text, g->what, g->pos.line, g->pos.col, b->line, b->col);
    if (!b->hint) {
        cr_assert_null(g->hint, "%s\n  hint \"%s\"", b->text, g->hint);
    } else if (strcmp(b->hint, "*") != 0) {
        cr_assert(g->hint && strstr(g->hint, b->hint), "%s\n  hint \"%s\", not \"%s\"", b->text,
                  g->hint ? g->hint : "(none)", b->hint);
    }
}

/* What ag_diags_print writes; free it. */
static inline char *printed(const struct ag_diags *d, enum ag_diag_format format, bool colour)
{
    int fd = memfd_create("diags", MFD_CLOEXEC);

    cr_assert_geq(fd, 0);
    ag_diags_print(d, fd, format, colour);
    off_t size = lseek(fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)size + 1);
    cr_assert_not_null(text);
    cr_assert_eq(pread(fd, text, (size_t)size, 0), size);
    close(fd);
    return text;
}

/* The child named `key`, which must be there. */
static inline const struct ag_node *must_get(const struct ag_node *n, const char *key)
{
    const struct ag_node *c = ag_node_get(n, key);

    AG_ASSERT(c);
    return c;
}

/* The `index`-th child, which must be there. */
static inline const struct ag_node *child_at(const struct ag_node *n, size_t index)
{
    const struct ag_node *c = n ? n->first : NULL;

    while (c && index--) {
        c = c->next;
    }
    AG_ASSERT(c);
    return c;
}

static inline size_t child_count(const struct ag_node *n)
{
    size_t count = 0;

    for (const struct ag_node *c = n->first; c; c = c->next) {
        count++;
    }
    return count;
}
