#include "actions/redirect.h"

#include "actions/location.h"
#include "actions/prepare.h"

struct redirect_settings {
    unsigned status;
    struct ag_template target; /* without the fragment */
    struct ag_span fragment;   /* "#..." or empty: stands behind the query */
    uint8_t joint;             /* before the request's query: '?', '&', or 0: none is needed */
    bool fixed;                /* no parameters: `prepared` serves requests without a query */
    struct ag_prepared prepared;
};

/* ---- load time ---- */

/* Length of "scheme:" (RFC 3986 section 3.1), 0 when the text does not begin with one. */
static size_t scheme_len(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i], lower = ag_ascii_lower(ch);
        bool letter = lower >= 'a' && lower <= 'z';
        if (ch == ':' && i > 0) {
            return i + 1;
        }
        if (!letter &&
            (i == 0 || !((ch >= '0' && ch <= '9') || ch == '+' || ch == '-' || ch == '.'))) {
            return 0;
        }
    }
    return 0;
}

static const char *mistake_in_bytes(const struct ag_template *t)
{
    for (uint16_t i = 0; i < t->count; i++) {
        struct ag_span s = t->parts[i].literal;
        for (size_t at = 0; t->parts[i].param < 0 && at < s.len; at++) {
            if (s.ptr[at] <= ' ' || s.ptr[at] >= 0x7F || strchr("\\\"<>^`{|}", s.ptr[at])) {
                return "write this byte percent-encoded";
            }
        }
    }
    return NULL;
}

/* Where the target may lead; a parameter must never choose the host. */
static const char *mistake_in_form(const struct ag_template *t)
{
    struct ag_span first =
        t->count && t->parts[0].param < 0 ? t->parts[0].literal : ag_span(NULL, 0);
    size_t scheme = scheme_len(first);

    if (ag_span_starts(first, AG_SPAN("//"))) {
        return "write the scheme: https://host/";
    }
    if (ag_span_starts(first, AG_SPAN("/"))) {
        return NULL;
    }
    if (scheme == 0) {
        return "a target begins with / or with a scheme, as in https://host/";
    }
    struct ag_span rest = ag_span_sub(first, scheme, first.len);
    if (t->count > 1) {
        if (!ag_span_starts(rest, AG_SPAN("//")) ||
            ag_span_find(ag_span_sub(rest, 2, rest.len), '/') == rest.len - 2) {
            return "parameters are allowed in the path only";
        }
    }
    return rest.len ? NULL : "nothing follows the scheme";
}

/* Cuts the fragment off; false when a parameter stands in it. */
static bool split_fragment(struct ag_action_build *b, struct redirect_settings *s,
                           const struct ag_template *t)
{
    struct ag_template_part *parts = ag_arena_alloc(b->arena, sizeof(*parts) * (t->count + 1u));
    uint16_t count = 0;

    for (uint16_t i = 0; i < t->count; i++) {
        struct ag_span literal = t->parts[i].literal;
        size_t hash = t->parts[i].param < 0 ? ag_span_find(literal, '#') : literal.len;
        parts[count] = t->parts[i];
        if (hash < literal.len) {
            parts[count++].literal = ag_span_sub(literal, 0, hash);
            s->fragment = ag_span_sub(literal, hash, literal.len);
            s->target = (struct ag_template){parts, count};
            return i + 1 == t->count;
        }
        count++;
    }
    s->target = (struct ag_template){parts, count};
    return true;
}

static uint8_t joint_of(const struct ag_template *t)
{
    uint8_t joint = '?';

    for (uint16_t i = 0; i < t->count; i++) {
        struct ag_span s = t->parts[i].literal;
        if (t->parts[i].param < 0 && ag_span_find(s, '?') < s.len) {
            joint = '&';
        }
    }
    if (joint == '&' && t->parts[t->count - 1].param < 0) {
        struct ag_span last = t->parts[t->count - 1].literal;
        if (last.len && (last.ptr[last.len - 1] == '?' || last.ptr[last.len - 1] == '&')) {
            joint = 0;
        }
    }
    return joint;
}

static void prepare(struct ag_action_build *b, struct redirect_settings *s, struct ag_span target)
{
    struct ag_response res = {.status = s->status, .framing = AG_FRAMING_LENGTH};

    AG_ASSERT(ag_fields_add_id(&res.fields, b->arena, AG_FIELD_LOCATION, target) == AG_OK);
    ag_prepare(b->arena, &res, ag_span(NULL, 0), &s->prepared);
    s->fixed = true;
}

static enum ag_status configure(struct ag_action_build *b, const struct ag_action_decl *decl,
                                const void **out_settings)
{
    struct redirect_settings *s = ag_arena_zalloc(b->arena, sizeof(*s));
    const char *hint = mistake_in_bytes(&decl->target);

    s->status = decl->status;
    if (s->status != 301 && s->status != 302 && s->status != 303 && s->status != 307 &&
        s->status != 308) {
        ag_diag_error(b->diags, decl->pos, "301, 302, 303, 307 or 308",
                      "status %u does not redirect", decl->status);
        return AG_EINVAL;
    }
    hint = hint ? hint : mistake_in_form(&decl->target);
    if (!hint && !split_fragment(b, s, &decl->target)) {
        hint = "parameters are allowed in the path only";
    }
    if (hint) {
        ag_diag_error(b->diags, decl->path_pos, hint, "not a valid redirect target");
        return AG_EINVAL;
    }
    s->joint = joint_of(&s->target);
    if (!decl->has_params) {
        prepare(b, s, decl->target.parts[0].literal);
    }
    *out_settings = s;
    return AG_OK;
}

/* ---- requests ---- */

static void respond_built(struct ag_exchange *ex, const struct redirect_settings *s)
{
    size_t bound = s->fragment.len + ex->req.query.len + 1;
    struct ag_location l;

    for (uint16_t i = 0; i < s->target.count; i++) {
        const struct ag_template_part *p = &s->target.parts[i];
        bound += p->param < 0 ? p->literal.len
                              : ag_location_path_bound(ag_exchange_param(ex, (unsigned)p->param));
    }
    if (!ag_location_begin(&l, ex, bound)) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "no memory for the answer");
        return;
    }
    for (uint16_t i = 0; i < s->target.count; i++) {
        const struct ag_template_part *p = &s->target.parts[i];
        if (p->param < 0) {
            ag_location_put(&l, p->literal);
        } else {
            ag_location_put_path(&l, ag_exchange_param(ex, (unsigned)p->param));
        }
    }
    ag_location_put_query(&l, ex, s->joint);
    ag_location_put(&l, s->fragment);
    ag_location_respond(&l, ex, s->status);
}

static void start(struct ag_exchange *ex)
{
    const struct redirect_settings *s = ex->action->settings;

    if (s->fixed && ex->req.query.len == 0) {
        ag_prepared_respond(ex, &s->prepared);
    } else {
        respond_built(ex, s);
    }
    ag_exchange_release(ex);
}

/* The action has let go when start returns. */
static void on_abort(struct ag_exchange *ex, enum ag_reason why)
{
    (void)ex;
    (void)why;
}

const struct ag_action_ops ag_action_redirect = {
    .name = "redirect",
    .kind = AG_ACTION_REDIRECT,
    .configure = configure,
    .start = start,
    .abort = on_abort,
};
