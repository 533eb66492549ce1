/* Goal: words and variables of other servers are known by themselves alone, wherever they stand. */
#include "engine/foreign.h"

#include "tests/unit/diag_util.h"

Test(foreign, words)
{
    cr_assert_str_eq(ag_foreign_hint(AG_SPAN("client_max_body_size")), "limits: {max_body: 10m}");
    cr_assert_str_eq(ag_foreign_hint(AG_SPAN("inter")), "interval: 2s");
    cr_assert_null(ag_foreign_hint(AG_SPAN("inte")));
    cr_assert_null(ag_foreign_hint(AG_SPAN("interv")));
    cr_assert_null(ag_foreign_hint(AG_SPAN("INTER")));
    cr_assert_null(ag_foreign_hint(AG_SPAN("")));
}

/* Column of the warning (0: none), and its hint. */
static const struct {
    const char *text, *hint;
    uint32_t col;
} rows[] = {
    {"$host", "{host}", 1},
    {"a/$host", "{host}", 3},
    {"$http_host", "{host}", 1},
    {"$http_x_a", "{header.NAME}", 1},
    {"x%[src]", "{remote.ip}", 2},
    {"$remote_addr, $host", "{remote.ip}", 1},
    {"$hos", NULL, 0},
    {"$", NULL, 0},
    {"%[sr", NULL, 0},
    {"5 $ and 10 %", NULL, 0},
    {"host remote_addr", NULL, 0},
    {"", NULL, 0},
};

Test(foreign, variables)
{
    static const struct ag_source source = {"x.yml", AG_SPAN_INIT("")};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct fixture f;
        fixture_init(&f);
        ag_foreign_warn(&f.diags, (struct ag_pos){&source, 1, 1}, ag_span_str(rows[i].text), NULL);
        cr_assert_eq(f.diags.warnings, rows[i].col ? 1 : 0, "%s", rows[i].text);
        if (rows[i].col) {
            cr_assert_eq(f.diags.first->pos.col, rows[i].col, "%s", rows[i].text);
            cr_assert_str_eq(f.diags.first->hint, rows[i].hint);
        }
        fixture_deinit(&f);
    }
}

Test(foreign, another_hint)
{
    struct fixture f;

    fixture_init(&f);
    ag_foreign_warn(&f.diags, (struct ag_pos){0}, AG_SPAN("/$1"), "none here");
    cr_assert_str_eq(f.diags.first->hint, "none here");
    fixture_deinit(&f);
}
