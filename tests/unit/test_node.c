/* Goal: values are read as documented, and what is no such value is refused at its place. */
#include "tests/unit/diag_util.h"

static struct ag_node scalar(const char *text, bool quoted)
{
    return (struct ag_node){.kind = AG_NODE_SCALAR, .text = ag_span_str(text), .quoted = quoted};
}

Test(node, u64)
{
    static const struct {
        const char *text;
        bool quoted, ok;
        uint64_t value;
    } rows[] = {{"0", false, false, 0},   {"1", false, true, 1},
                {"99", false, true, 99},  {"100", false, false, 0},
                {"-1", false, false, 0},  {"1.5", false, false, 0},
                {"0x1", false, false, 0}, {"", true, false, 0},
                {"5", true, false, 0},    {"1e3", false, false, 0},
                {"+5", false, false, 0},  {"18446744073709551616", false, false, 0}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct fixture f;
        fixture_init(&f);
        struct ag_node n = scalar(rows[i].text, rows[i].quoted);
        uint64_t value = 7777;
        cr_assert_eq(ag_node_u64(&n, &f.diags, 1, 99, &value), rows[i].ok, "%s", rows[i].text);
        cr_assert_eq(value, rows[i].ok ? rows[i].value : 7777, "%s", rows[i].text);
        cr_assert_eq(f.diags.errors, !rows[i].ok);
        fixture_deinit(&f);
    }
}

/* The text, or NULL where it must be refused. */
struct unit_row {
    const char *text;
    uint64_t value; /* UINT64_MAX: refused */
    const char *hint;
};

static void check_units(bool (*read)(const struct ag_node *, struct ag_diags *, uint64_t *),
                        const struct unit_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct fixture f;
        fixture_init(&f);
        struct ag_node n = scalar(rows[i].text, false);
        uint64_t value = 7777;
        bool ok = rows[i].value != UINT64_MAX;
        cr_assert_eq(read(&n, &f.diags, &value), ok, "%s", rows[i].text);
        cr_assert_eq(value, ok ? rows[i].value : 7777, "%s", rows[i].text);
        cr_assert_eq(f.diags.errors, !ok);
        if (rows[i].hint) {
            cr_assert(strstr(f.diags.first->hint, rows[i].hint), "%s", f.diags.first->hint);
        }
        fixture_deinit(&f);
    }
}

Test(node, duration)
{
    static const struct unit_row rows[] = {
        {"250ms", 250, NULL},
        {"10s", 10000, NULL},
        {"5m", 300000, NULL},
        {"1h", 3600000, NULL},
        {"0", 0, NULL},
        {"0s", 0, NULL},
        {"10", UINT64_MAX, "10s"},
        {"10 s", UINT64_MAX, NULL},
        {"s", UINT64_MAX, NULL},
        {"-1s", UINT64_MAX, NULL},
        {"1.5s", UINT64_MAX, NULL},
        {"1d", 86400000, NULL},
        {"", UINT64_MAX, NULL},
        {"1m30s", UINT64_MAX, NULL},
        {"99999999999999999999s", UINT64_MAX, NULL},
        {"18446744073709551s", UINT64_C(18446744073709551000), NULL},
        {"18446744073709552s", UINT64_MAX, NULL}};

    check_units(ag_node_duration, rows, AG_COUNT(rows));
}

Test(node, size)
{
    static const struct unit_row rows[] = {{"0", 0, NULL},
                                           {"4096", 4096, NULL},
                                           {"64k", 65536, NULL},
                                           {"10m", 10485760, NULL},
                                           {"1g", 1073741824, NULL},
                                           {"1G", 1073741824, NULL},
                                           {"64kb", UINT64_MAX, "64k"},
                                           {"k", UINT64_MAX, NULL},
                                           {"1.5m", UINT64_MAX, NULL},
                                           {"-1", UINT64_MAX, NULL},
                                           {"", UINT64_MAX, NULL},
                                           {"8589934591g", UINT64_C(8589934591) << 30, NULL},
                                           {"8589934592g", UINT64_MAX, NULL},
                                           {"17179869184g", UINT64_MAX, NULL},
                                           {"99999999999999999999k", UINT64_MAX, NULL}};

    check_units(ag_node_size, rows, AG_COUNT(rows));
}

Test(node, rate)
{
    static const struct {
        const char *text;
        uint64_t count, period_ms; /* 0: refused */
    } rows[] = {{"100/s", 100, 1000}, {"5/m", 5, 60000}, {"1000/h", 1000, 3600000},
                {"0/s", 0, 0},        {"100", 0, 0},     {"/s", 0, 0},
                {"100/d", 0, 0},      {"1.5/s", 0, 0},   {"100 /s", 0, 0}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct fixture f;
        fixture_init(&f);
        struct ag_node n = scalar(rows[i].text, false);
        uint64_t count = 0, period_ms = 0;
        cr_assert_eq(ag_node_rate(&n, &f.diags, &count, &period_ms), rows[i].count > 0);
        cr_assert_eq(count, rows[i].count, "%s", rows[i].text);
        cr_assert_eq(period_ms, rows[i].period_ms, "%s", rows[i].text);
        cr_assert_eq(f.diags.errors, rows[i].count == 0);
        fixture_deinit(&f);
    }
}

Test(node, boolean)
{
    static const struct {
        const char *text;
        bool quoted, ok, value;
        const char *hint;
    } rows[] = {{"true", false, true, true, NULL},
                {"false", false, true, false, NULL},
                {"true", true, false, false, "without quotes"},
                {"yes", false, false, false, "true"},
                {"off", false, false, false, "false"},
                {"True", false, false, false, NULL}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct fixture f;
        fixture_init(&f);
        struct ag_node n = scalar(rows[i].text, rows[i].quoted);
        bool value = !rows[i].value;
        cr_assert_eq(ag_node_bool(&n, &f.diags, &value), rows[i].ok, "%s", rows[i].text);
        cr_assert_eq(value, rows[i].ok ? rows[i].value : !rows[i].value);
        if (rows[i].hint) {
            cr_assert(strstr(f.diags.first->hint, rows[i].hint));
        }
        fixture_deinit(&f);
    }
}

Test(node, words)
{
    static const char *const names[] = {"auto", "io_uring", "epoll"};
    struct fixture f;
    fixture_init(&f);
    struct ag_node good = scalar("epoll", true), bad = scalar("epol", false);
    unsigned index = 9;

    cr_assert(ag_node_enum(&good, &f.diags, names, 3, &index));
    cr_assert_eq(index, 2);
    cr_assert_not(ag_node_enum(&bad, &f.diags, names, 3, &index));
    cr_assert_str_eq(f.diags.first->hint, "did you mean epoll?");
    fixture_deinit(&f);
}

static const struct ag_diag *last_of(const struct ag_diags *diags)
{
    const struct ag_diag *d = diags->first;

    while (d->next) {
        d = d->next;
    }
    return d;
}

Test(node, absent_and_told_are_silent_and_other_shapes_are_not)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_node told = {.kind = AG_NODE_NULL, .told = true}, map = {.kind = AG_NODE_MAP};
    struct ag_node nothing = {.kind = AG_NODE_NULL, .key = AG_SPAN("max_body")};
    const struct ag_node *silent[] = {NULL, &told}, *other[] = {&map, &nothing};
    uint64_t u = 7, p = 7;
    bool b = true;
    struct ag_span s = AG_SPAN("x");
    unsigned e = 7;

    for (size_t i = 0; i < 2; i++) {
        cr_assert_not(ag_node_u64(silent[i], &f.diags, 0, 9, &u));
        cr_assert_not(ag_node_duration(silent[i], &f.diags, &u));
        cr_assert_not(ag_node_size(silent[i], &f.diags, &u));
        cr_assert_not(ag_node_rate(silent[i], &f.diags, &u, &p));
        cr_assert_not(ag_node_bool(silent[i], &f.diags, &b));
        cr_assert_not(ag_node_text(silent[i], &f.diags, &s));
        cr_assert_not(ag_node_enum(silent[i], &f.diags, NULL, 0, &e));
        cr_assert_not(ag_node_check_keys(silent[i], &f.diags, "x", NULL, 0));
    }
    cr_assert(u == 7 && p == 7 && b && text_is(s, "x") && e == 7);
    cr_assert_eq(f.diags.errors, 0);
    for (size_t i = 0; i < 2; i++) {
        cr_assert_not(ag_node_u64(other[i], &f.diags, 0, 9, &u));
        cr_assert_not(ag_node_duration(other[i], &f.diags, &u));
        cr_assert_not(ag_node_size(other[i], &f.diags, &u));
        cr_assert_not(ag_node_rate(other[i], &f.diags, &u, &p));
        cr_assert_not(ag_node_bool(other[i], &f.diags, &b));
        cr_assert_not(ag_node_text(other[i], &f.diags, &s));
        cr_assert_not(ag_node_enum(other[i], &f.diags, NULL, 0, &e));
        cr_assert_eq(f.diags.errors, 7 * (i + 1));
    }
    cr_assert(u == 7 && p == 7 && b && text_is(s, "x") && e == 7);
    cr_assert_str_eq(last_of(&f.diags)->what, "max_body: expected one word, found nothing");
    cr_assert(ag_node_check_keys(&nothing, &f.diags, "x", NULL, 0), "a map without keys");
    cr_assert_eq(f.diags.errors, 14);
    fixture_deinit(&f);
}

Test(node, keys)
{
    static const char *const keys[] = {"alpha", "beta"};
    struct fixture f;
    fixture_init(&f);
    struct ag_node *map = ag_node_new(&f.arena, AG_NODE_MAP, (struct ag_pos){0});
    static const char *const names[] = {"alpha", "betta", "gamma_delta"};
    struct ag_node text = scalar("x", false);

    for (size_t i = 0; i < 3; i++) {
        struct ag_node *c = ag_node_new(&f.arena, AG_NODE_NULL, (struct ag_pos){0});
        c->key = ag_span_str(names[i]);
        c->key_pos = (struct ag_pos){NULL, 1, (uint32_t)i};
        ag_node_append(map, c);
    }
    cr_assert(ag_node_check_keys(map, &f.diags, "server.limits", keys, 2));
    cr_assert_eq(f.diags.errors, 2);
    cr_assert_str_eq(f.diags.first->what, "unknown key \"betta\" in server.limits");
    cr_assert_str_eq(f.diags.first->hint, "did you mean beta?");
    cr_assert_eq(f.diags.first->pos.col, 1);
    cr_assert_str_eq(f.diags.first->next->hint, "known: alpha, beta");
    cr_assert_not(ag_node_check_keys(&text, &f.diags, "server", keys, 2));
    cr_assert_eq(f.diags.errors, 3);
    cr_assert_eq(ag_node_get(map, "betta"), map->first->next);
    cr_assert_null(ag_node_get(map, "beta"));
    cr_assert_null(ag_node_get(NULL, "beta"));
    cr_assert_null(ag_node_get(&text, "beta"));
    fixture_deinit(&f);
}
