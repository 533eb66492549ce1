#include "filters/filter.h"
#include "filters/headers.h"

static const struct ag_filter_ops *const filters[] = {&ag_filter_headers};
static const char *const names[] = {"headers"};
_Static_assert(AG_COUNT(filters) == AG_COUNT(names), "each filter has its name for hints");

/* Set by tests before any load, read only afterwards. */
static const struct ag_filter_ops *const *test_filters;
static size_t test_count;

static const struct ag_filter_ops *find_in(const struct ag_filter_ops *const *table, size_t count,
                                           struct ag_span name)
{
    for (size_t i = 0; i < count; i++) {
        if (ag_span_eq(ag_span_str(table[i]->name), name)) {
            return table[i];
        }
    }
    return NULL;
}

const struct ag_filter_ops *ag_filter_find(struct ag_span name)
{
    const struct ag_filter_ops *found = find_in(filters, AG_COUNT(filters), name);

    return found ? found : find_in(test_filters, test_count, name);
}

const char *const *ag_filter_names(size_t *out_count)
{
    *out_count = AG_COUNT(names);
    return names;
}

void ag_filter_register_tests(const struct ag_filter_ops *const *table, size_t count)
{
    test_filters = table;
    test_count = count;
}
