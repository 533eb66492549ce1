/*
 * dsl_lex: what the parts of the DSL's parser share: quotes, names, literal segments. Private to
 * router/dsl*.c.
 */
#pragma once
#include "router/dsl.h"

#define AG_DSL_LINE_MAX    (1u << 20) /* bytes of a line; longer bodies belong in a file */
#define AG_DSL_PATTERN_MAX 4096u      /* bytes; a longer path would not fit the request line's 8k */
#define AG_DSL_NAME_MAX    64u        /* bytes of a parameter's name */

/* A span as the two arguments of "%.*s", cut to what a message can bear. */
#define AG_DSL_SHOW(s) (int)ag_min_size((s).len, 60), (const char *)(s).ptr

/* YAML's other quotes, which a line has not. */
#define AG_DSL_SINGLE "single quotes are text in a route: use double quotes, or none"

struct ag_dsl {
    struct ag_arena *arena;
    struct ag_diags *diags;
};

static inline bool ag_dsl_is_space(uint8_t ch)
{
    return ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n';
}

/* Without white space at either end; *pos moves along. */
struct ag_span ag_dsl_trim(struct ag_span s, struct ag_pos *pos);
/* `s` begins with a double quote: the index after the closing one, or 0 when there is none. */
size_t ag_dsl_quote_end(struct ag_span s);
/* `s` begins with a double quote; after the closing one nothing may follow. The text with its JSON
 * escapes undone lies in the arena, or in `s` when there are none. */
AG_MUST_USE enum ag_status ag_dsl_unquote(struct ag_dsl *d, struct ag_pos pos, struct ag_span s,
                                          struct ag_span *out_text);
/* Refuses control bytes that are not among `but`, which JSON and escapes can bring. */
AG_MUST_USE enum ag_status ag_dsl_no_controls(struct ag_dsl *d, struct ag_pos pos, struct ag_span s,
                                              const char *but);
/* [A-Za-z_] then [A-Za-z0-9_-]*, at most AG_DSL_NAME_MAX. */
bool ag_dsl_is_name(struct ag_span s);
/* A literal segment in the form that requests have after normalisation. Bytes above 127 and spaces are
 * percent-encoded, as a client would. */
AG_MUST_USE enum ag_status ag_dsl_literal(struct ag_dsl *d, struct ag_pos pos, struct ag_span s,
                                          struct ag_span *out_text);
/* The two halves. `plain`: the text stands in a line, where a space ends a path; else it is a value of
 * its own, whose quotes the config's format has undone. */
AG_MUST_USE enum ag_status ag_dsl_pattern(struct ag_dsl *d, struct ag_pos pos, struct ag_span text,
                                          bool plain, struct ag_pattern *out_pattern);
AG_MUST_USE enum ag_status ag_dsl_action(struct ag_dsl *d, struct ag_pos pos, struct ag_span text,
                                         bool plain, const struct ag_pattern *pattern,
                                         struct ag_action_decl *out_action);
/* The name in capitals, in the arena. */
struct ag_span ag_dsl_upper(struct ag_arena *arena, struct ag_span s);
