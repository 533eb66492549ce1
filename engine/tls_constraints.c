#include "engine/tls_constraints.h"

/* Forms of a GeneralName, by its tag. */
enum {
    FORM_MAIL = AG_DER_CONTEXT | 1,
    FORM_DNS = AG_DER_CONTEXT | 2,
    FORM_DIRECTORY = AG_DER_CONSTRUCTED | 4,
    FORM_ADDRESS = AG_DER_CONTEXT | 7,
};

enum verdict { NAME_OUTSIDE, NAME_WITHIN, NAME_UNCLEAR };

static enum verdict verdict_of(bool within)
{
    return within ? NAME_WITHIN : NAME_OUTSIDE;
}

/* ---- hosts ---- */

static bool ends_with(struct ag_span name, struct ag_span end)
{
    return name.len >= end.len && ag_span_ieq(ag_span_sub(name, name.len - end.len, name.len), end);
}

/* Below it by whole labels. */
static bool is_below(struct ag_span name, struct ag_span base)
{
    return ends_with(name, base) && name.len > base.len &&
           (base.ptr[0] == '.' || name.ptr[name.len - base.len - 1] == '.');
}

/* "*.corp.test" and "secret.corp.test": it is a name for that, too. */
static bool wildcard_covers(struct ag_span name, struct ag_span base)
{
    size_t dot = ag_span_find(base, '.');

    return ag_span_starts(name, AG_SPAN("*.")) && dot > 0 && dot < base.len &&
           ag_span_ieq(ag_span_sub(name, 1, name.len), ag_span_sub(base, dot, base.len));
}

static enum verdict judge_dns(struct ag_span name, struct ag_span base, bool excluded)
{
    return verdict_of(base.len == 0 || ag_span_ieq(name, base) || is_below(name, base) ||
                      (excluded && wildcard_covers(name, base)));
}

static enum verdict judge_mail(struct ag_span name, struct ag_span base)
{
    size_t at = ag_span_find(name, '@');
    struct ag_span host = ag_span_sub(name, at < name.len ? at + 1 : at, name.len);

    if (at == name.len || ag_span_find(host, '@') < host.len) {
        return NAME_UNCLEAR; /* quoted, or none */
    }
    return verdict_of(base.len == 0 || ag_span_ieq(base, host) || ag_span_ieq(base, name) ||
                      (base.ptr[0] == '.' && is_below(host, base)));
}

/* ---- addresses ---- */

static enum verdict judge_address(struct ag_span name, struct ag_span base)
{
    const uint8_t *mask = base.ptr + base.len / 2;

    if ((base.len != 8 && base.len != 32) || (name.len != 4 && name.len != 16)) {
        return NAME_UNCLEAR;
    }
    if (name.len != base.len / 2) {
        return NAME_OUTSIDE;
    }
    for (size_t i = 0; i < name.len; i++) {
        if ((name.ptr[i] ^ base.ptr[i]) & mask[i]) {
            return NAME_OUTSIDE;
        }
    }
    return NAME_WITHIN;
}

/* ---- names of a directory ---- */

/* A text (UTF8String, PrintableString, IA5String) that is the same in each of these kinds. */
static bool is_plain(const struct ag_der *value)
{
    for (size_t i = 0; i < value->content.len; i++) {
        if (value->content.ptr[i] < ' ' || value->content.ptr[i] >= 0x7f) {
            return false;
        }
    }
    return value->tag == 0x0c || value->tag == 0x13 || value->tag == 0x16;
}

/* The next character as names are compared: no case, no spaces at either end, one for many. 0: the end. */
static uint8_t next_folded(struct ag_span *io, bool first)
{
    bool space = false;
    uint8_t ch;

    while (io->len > 0 && io->ptr[0] == ' ') {
        space = true;
        *io = ag_span_sub(*io, 1, io->len);
    }
    if (io->len == 0) {
        return 0;
    }
    if (space && !first) {
        return ' ';
    }
    ch = ag_ascii_lower(io->ptr[0]);
    *io = ag_span_sub(*io, 1, io->len);
    return ch;
}

static bool same_text(struct ag_span a, struct ag_span b)
{
    bool first = true;
    uint8_t x, y;

    do {
        x = next_folded(&a, first);
        y = next_folded(&b, first);
        first = false;
    } while (x == y && x != 0);
    return x == y;
}

/* One attribute of a relative name each. */
static enum verdict judge_attribute(struct ag_span name, struct ag_span base)
{
    struct ag_der x, y, x_oid, y_oid, x_value, y_value;

    if (ag_span_eq(name, base)) {
        return NAME_WITHIN;
    }
    if (!ag_der_take(&name, AG_DER_SEQUENCE, &x) || !ag_der_take(&base, AG_DER_SEQUENCE, &y) ||
        name.len > 0 || base.len > 0 || !ag_der_take(&x.content, AG_DER_OID, &x_oid) ||
        !ag_der_take(&y.content, AG_DER_OID, &y_oid) || !ag_der_next(&x.content, &x_value) ||
        !ag_der_next(&y.content, &y_value)) {
        return NAME_UNCLEAR; /* several of them in one, too */
    }
    if (!ag_span_eq(x_oid.content, y_oid.content)) {
        return NAME_OUTSIDE;
    }
    if (!is_plain(&x_value) || !is_plain(&y_value)) {
        return NAME_UNCLEAR;
    }
    return verdict_of(same_text(x_value.content, y_value.content));
}

/* Whole Names. */
static enum verdict judge_directory(struct ag_span name, struct ag_span base)
{
    struct ag_der names, bases, x, y;

    if (!ag_der_take(&name, AG_DER_SEQUENCE, &names) ||
        !ag_der_take(&base, AG_DER_SEQUENCE, &bases)) {
        return NAME_UNCLEAR;
    }
    while (bases.content.len > 0) {
        enum verdict v;

        if (names.content.len == 0) {
            return NAME_OUTSIDE;
        }
        if (!ag_der_take(&names.content, AG_DER_SET, &x) ||
            !ag_der_take(&bases.content, AG_DER_SET, &y)) {
            return NAME_UNCLEAR;
        }
        v = judge_attribute(x.content, y.content);
        if (v != NAME_WITHIN) {
            return v;
        }
    }
    return NAME_WITHIN;
}

/* ---- subtrees ---- */

struct name {
    uint8_t form;
    struct ag_span content;
};

static enum verdict judge_base(const struct name *n, struct ag_span base, bool excluded)
{
    switch (n->form) {
    case FORM_MAIL:
        return judge_mail(n->content, base);
    case FORM_DNS:
        return judge_dns(n->content, base, excluded);
    case FORM_DIRECTORY:
        return judge_directory(n->content, base);
    case FORM_ADDRESS:
        return judge_address(n->content, base);
    default:
        return NAME_UNCLEAR;
    }
}

/* Whether some subtree of the name's form has it.
 *   out_some  there are some of that form */
static enum verdict judge_trees(const struct name *n, struct ag_span trees, bool excluded,
                                bool *out_some)
{
    enum verdict v = NAME_OUTSIDE;
    struct ag_der tree, base;

    *out_some = false;
    while (v != NAME_WITHIN && trees.len > 0) {
        if (!ag_der_take(&trees, AG_DER_SEQUENCE, &tree) || !ag_der_next(&tree.content, &base)) {
            return NAME_UNCLEAR;
        }
        if (base.tag == n->form) {
            /* A minimum and a maximum are used by nobody, and not to be. */
            enum verdict one =
                tree.content.len > 0 ? NAME_UNCLEAR : judge_base(n, base.content, excluded);

            v = one == NAME_OUTSIDE ? v : one;
            *out_some = true;
        }
    }
    return v;
}

static const char *judge_name(const struct name *n, struct ag_span constraints)
{
    struct ag_span permitted = AG_SPAN(""), excluded = AG_SPAN("");
    enum verdict in, out;
    struct ag_der d;
    bool some, any;

    if (ag_der_take(&constraints, AG_DER_CONSTRUCTED | 0, &d)) {
        permitted = d.content;
    }
    if (ag_der_take(&constraints, AG_DER_CONSTRUCTED | 1, &d)) {
        excluded = d.content;
    }
    out = judge_trees(n, excluded, true, &any);
    in = judge_trees(n, permitted, false, &some);
    if (constraints.len > 0 || out == NAME_UNCLEAR || in == NAME_UNCLEAR) {
        return "name constraint of its authority not understood";
    }
    return out == NAME_WITHIN || (some && in == NAME_OUTSIDE)
               ? "name not permitted by its authority"
               : NULL;
}

/* Mailboxes stand in subjects, too (emailAddress). */
static const char *judge_mails(struct ag_span subject, struct ag_span constraints)
{
    struct ag_der names, set, pair, oid, value;
    const char *why = NULL;

    if (!ag_der_take(&subject, AG_DER_SEQUENCE, &names)) {
        return NULL;
    }
    while (!why && ag_der_take(&names.content, AG_DER_SET, &set)) {
        while (!why && ag_der_take(&set.content, AG_DER_SEQUENCE, &pair)) {
            if (ag_der_take(&pair.content, AG_DER_OID, &oid) &&
                ag_span_eq(oid.content, AG_SPAN("\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01")) &&
                ag_der_next(&pair.content, &value)) {
                why = judge_name(&(struct name){FORM_MAIL, value.content}, constraints);
            }
        }
    }
    return why;
}

static bool has_attributes(struct ag_span subject)
{
    struct ag_der names;

    return ag_der_take(&subject, AG_DER_SEQUENCE, &names) && names.content.len > 0;
}

const char *ag_tls_constraints_judge(struct ag_span constraints, const struct ag_x509 *c)
{
    struct ag_span names = c->names;
    const char *why = NULL;
    struct ag_der d;

    if (constraints.len == 0) {
        return NULL;
    }
    if (has_attributes(c->subject)) {
        why = judge_name(&(struct name){FORM_DIRECTORY, c->subject}, constraints);
        why = why ? why : judge_mails(c->subject, constraints);
    }
    while (!why && names.len > 0) {
        if (!ag_der_next(&names, &d)) {
            return "malformed certificate";
        }
        why = judge_name(&(struct name){d.tag, d.content}, constraints);
    }
    return why;
}
