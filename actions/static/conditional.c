#include "actions/static/conditional.h"

#include "proto/date.h"

_Static_assert(AG_FIELDS <= 64, "field ids are bits of a word here");

#define BIT(id) ((uint64_t)1 << (id))

bool ag_conditional_asked(const struct ag_fields *fields)
{
    const uint64_t asked = BIT(AG_FIELD_IF_MATCH) | BIT(AG_FIELD_IF_NONE_MATCH) |
                           BIT(AG_FIELD_IF_MODIFIED_SINCE) | BIT(AG_FIELD_IF_UNMODIFIED_SINCE) |
                           BIT(AG_FIELD_RANGE);
    uint64_t seen = 0;

    for (uint16_t i = 0; i < fields->count; i++) {
        seen |= fields->v[i].removed ? 0 : BIT(fields->v[i].id);
    }
    return (seen & asked) != 0;
}

static bool is_weak(struct ag_span tag)
{
    return ag_span_starts(tag, AG_SPAN("W/"));
}

static struct ag_span opaque(struct ag_span tag)
{
    return is_weak(tag) ? ag_span_sub(tag, 2, tag.len) : tag;
}

/* Section 8.8.3.2. */
static bool tags_match(struct ag_span a, struct ag_span b, bool strong)
{
    if (a.len == 0 || b.len == 0 || (strong && (is_weak(a) || is_weak(b)))) {
        return false;
    }
    return ag_span_eq(opaque(a), opaque(b));
}

/* The next entity-tag of a list; not ag_list_next, for a backslash in an entity-tag escapes nothing
 * (section 8.8.3). False at the end, or where the list stops being one. */
static bool next_tag(struct ag_span list, size_t *at, struct ag_span *out_tag)
{
    size_t from, i = *at;

    while (i < list.len && (list.ptr[i] == ' ' || list.ptr[i] == '\t' || list.ptr[i] == ',')) {
        i++;
    }
    from = i;
    if (ag_span_starts(ag_span_sub(list, i, list.len), AG_SPAN("W/"))) {
        i += 2;
    }
    if (i >= list.len || list.ptr[i] != '"') {
        return false;
    }
    i += 1 + ag_span_find(ag_span_sub(list, i + 1, list.len), '"');
    if (i >= list.len) {
        return false;
    }
    *at = i + 1;
    *out_tag = ag_span_sub(list, from, i + 1);
    return true;
}

/* Whether any field `id` lists the tag, or is "*". */
static bool listed(const struct ag_fields *fields, enum ag_field_id id, struct ag_span tag,
                   bool strong)
{
    for (const struct ag_field *f = ag_fields_find(fields, id, NULL); f;
         f = ag_fields_find(fields, id, f)) {
        struct ag_span value = ag_span_trim(ag_field_value(f)), one;
        size_t at = 0;
        if (ag_span_eq(value, AG_SPAN("*"))) {
            return true;
        }
        while (next_tag(value, &at, &one)) {
            if (tags_match(one, tag, strong)) {
                return true;
            }
        }
    }
    return false;
}

/* The date of a field that stands once and is valid; others are ignored (sections 13.1.3, 13.1.4). */
static bool date_of(const struct ag_fields *fields, enum ag_field_id id, int64_t *out_s)
{
    const struct ag_field *f = ag_fields_find(fields, id, NULL);

    return f && !ag_fields_find(fields, id, f) &&
           ag_date_parse(ag_span_trim(ag_field_value(f)), out_s) == AG_OK;
}

enum ag_precondition ag_conditional_check(const struct ag_request *req,
                                          const struct ag_validators *v)
{
    const struct ag_fields *fields = &req->fields;
    bool reads = req->method == AG_METHOD_GET || req->method == AG_METHOD_HEAD;
    int64_t date_s;

    if (ag_fields_find(fields, AG_FIELD_IF_MATCH, NULL)) {
        if (!listed(fields, AG_FIELD_IF_MATCH, v->etag, true)) {
            return AG_PRECONDITION_FAILED;
        }
    } else if (v->has_last_modified && date_of(fields, AG_FIELD_IF_UNMODIFIED_SINCE, &date_s)) {
        if (v->last_modified_s > date_s) {
            return AG_PRECONDITION_FAILED;
        }
    }
    if (ag_fields_find(fields, AG_FIELD_IF_NONE_MATCH, NULL)) {
        if (listed(fields, AG_FIELD_IF_NONE_MATCH, v->etag, false)) {
            return reads ? AG_PRECONDITION_NOT_MODIFIED : AG_PRECONDITION_FAILED;
        }
    } else if (reads && v->has_last_modified &&
               date_of(fields, AG_FIELD_IF_MODIFIED_SINCE, &date_s)) {
        if (v->last_modified_s <= date_s) {
            return AG_PRECONDITION_NOT_MODIFIED;
        }
    }
    return AG_PRECONDITION_HOLDS;
}

static bool if_range_holds(struct ag_span value, const struct ag_validators *v, int64_t now_s)
{
    int64_t date_s;
    size_t at = 0;
    struct ag_span tag;

    if (next_tag(value, &at, &tag)) {
        return at == value.len && tags_match(tag, v->etag, true);
    }
    /* An exact match is asked for, and the file must not be able to change again within the second that
     * the date names (sections 13.1.5 and 8.8.2.2). */
    return v->has_last_modified && ag_date_parse(value, &date_s) == AG_OK &&
           date_s == v->last_modified_s && date_s < now_s;
}

struct ag_span ag_conditional_range(const struct ag_request *req, const struct ag_validators *v,
                                    int64_t now_s)
{
    const struct ag_field *range = ag_fields_find(&req->fields, AG_FIELD_RANGE, NULL);
    const struct ag_field *if_range = ag_fields_find(&req->fields, AG_FIELD_IF_RANGE, NULL);

    /* Ranges are defined for GET alone (section 14.2). */
    if (!range || req->method != AG_METHOD_GET ||
        ag_fields_find(&req->fields, AG_FIELD_RANGE, range)) {
        return ag_span(NULL, 0);
    }
    if (if_range && (ag_fields_find(&req->fields, AG_FIELD_IF_RANGE, if_range) ||
                     !if_range_holds(ag_span_trim(ag_field_value(if_range)), v, now_s))) {
        return ag_span(NULL, 0);
    }
    return ag_span_trim(ag_field_value(range));
}
