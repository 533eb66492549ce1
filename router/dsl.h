/*
 * dsl: one line, one route (SPEC.md section 4).
 *
 *   GET POST api.example.com/users/:id : http://auth/users/:id
^ *   methods  host            pattern   action
 *
 * Works on bytes, allocates nothing per token, survives any garbage; mistakes are reported with their
 * column, the reason and a hint.
 */
#pragma once
#include "actions/action.h"

enum ag_segment_kind { AG_SEG_EXACT, AG_SEG_PARAM, AG_SEG_SPLAT };

struct ag_segment {
    enum ag_segment_kind kind;
    struct ag_span text; /* exact: normalised as in uri.h; param, splat: the name (may be empty) */
};

#define AG_SEGMENTS_MAX     64u
#define AG_METHOD_NAMES_MAX 8u

struct ag_pattern {
    struct ag_pos pos;
    struct ag_span text; /* as written, for messages */
    struct ag_span host; /* lower case; empty: any; "*.example.com" a suffix */
    uint16_t port;       /* of the local listener; 0: any */
    uint16_t count;      /* segments; "/" is one empty exact segment */
    const struct ag_segment *segments;
    uint32_t methods; /* bits by enum ag_method; 0 and no other_methods: none named */
    uint16_t other_count;
    uint16_t param_count;
    const struct ag_span *other_methods; /* tokens without a number, at most AG_METHOD_NAMES_MAX */
    const struct ag_param_spec *params;  /* at most AG_PARAMS_MAX */
    bool has_splat;
};

/* A whole line; its comment is cut, blank lines and comments give AG_ENOENT. AG_EINVAL after at least
 * one diagnosis. */
AG_MUST_USE enum ag_status ag_dsl_parse_line(struct ag_arena *arena, struct ag_diags *diags,
                                             struct ag_pos pos, struct ag_span line,
                                             struct ag_pattern *out_pattern,
                                             struct ag_action_decl *out_action);
/* "GET POST host/pattern": a mapping's key. */
AG_MUST_USE enum ag_status ag_dsl_parse_pattern(struct ag_arena *arena, struct ag_diags *diags,
                                                struct ag_pos pos, struct ag_span text,
                                                struct ag_pattern *out_pattern);
/* An action's text alone (the long form's `action:`); parameters are those of `pattern`. */
AG_MUST_USE enum ag_status ag_dsl_parse_action(struct ag_arena *arena, struct ag_diags *diags,
                                               struct ag_pos pos, struct ag_span text,
                                               const struct ag_pattern *pattern,
                                               struct ag_action_decl *out_action);
/* One method's name (the long form's `methods:`), added to those of `p`. */
AG_MUST_USE enum ag_status ag_dsl_parse_method(struct ag_arena *arena, struct ag_diags *diags,
                                               struct ag_pos pos, struct ag_span name,
                                               struct ag_pattern *p);
/* Where the line's `:` between pattern and action stands, or line.len: for the YAML pre-scan. */
size_t ag_dsl_find_colon(struct ag_span line);
