/*
 * Goal: JSON exactly as RFC 8259 has it, with positions; each mistake named where it is.
 * Method: tables of good and bad texts; every prefix of a good text is refused; random mutations.
 */
#include "tests/unit/config_util.h"

static struct ag_node *parse(struct fixture *f, const char *text)
{
    struct ag_source *src = ag_config_source(&f->arena, "t", ag_span_str(text));

    return ag_config_parse_json(src, &f->diags);
}

static const char good[] =
    "{\n"
    "  \"server\": {\"workers\": 4, \"listen\": [\":80\", \":81\"]},\n"
    "  \"x\": [-0.5e+3, true, false, null, {}, [], \"\"],\n"
    "  \"\\u00fc\\ud83d\\ude00\\n\\/\": \"a\\\\b\\\"c\",\n"
    "  \"routes\": [\"GET /x: OK\", {\"/y\": \"*\", \"/z\": {\"action\": \"OK\"}}]\n"
    "}\n";

Test(config_json, values_and_positions)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_node *r = parse(&f, good);

    cr_assert_not_null(r, "%s", f.diags.first ? f.diags.first->what : "");
    const struct ag_node *server = must_get(r, "server");
    const struct ag_node *workers = must_get(server, "workers");
    cr_assert(text_is(workers->text, "4") && !workers->quoted);
    cr_assert(workers->pos.line == 2 && workers->pos.col == 25);
    cr_assert(workers->key_pos.line == 2 && workers->key_pos.col == 14);
    cr_assert_eq(child_count(must_get(server, "listen")), 2);
    const struct ag_node *x = must_get(r, "x");
    cr_assert(text_is(child_at(x, 0)->text, "-0.5e+3") && !child_at(x, 0)->quoted);
    cr_assert(text_is(child_at(x, 1)->text, "true") && !child_at(x, 1)->quoted);
    cr_assert_eq(child_at(x, 3)->kind, AG_NODE_NULL);
    cr_assert_eq(child_at(x, 4)->kind, AG_NODE_MAP);
    cr_assert_eq(child_at(x, 5)->kind, AG_NODE_SEQ);
    cr_assert(child_at(x, 6)->kind == AG_NODE_SCALAR && child_at(x, 6)->quoted);
    const struct ag_node *e = must_get(r, "\xc3\xbc\xf0\x9f\x98\x80\n/");
    cr_assert_not_null(e);
    cr_assert(text_is(e->text, "a\\b\"c"));
    const struct ag_node *routes = must_get(r, "routes");
    cr_assert_eq(child_count(routes), 3);
    const struct ag_node *line = child_at(routes, 0);
    cr_assert(line->dsl && text_is(line->text, "GET /x: OK"));
    cr_assert(line->pos.line == 5 && line->pos.col == 15);
    cr_assert(text_is(child_at(routes, 1)->key, "/y") && !child_at(routes, 1)->dsl);
    cr_assert(text_is(child_at(routes, 2)->key, "/z"));
    fixture_deinit(&f);
}

Test(config_json, mistakes)
{
    static const struct bad rows[] = {
        {"", 1, 1, "expected a value, found the end of the file", NULL},
        {"[1]", 1, 1, "object of sections", NULL},
        {"1", 1, 1, "object of sections", NULL},
        {"{\"a\": 1,}", 1, 8, "trailing comma", "remove"},
        {"{\"a\": [1,\n]}", 1, 9, "trailing comma", "remove"},
        {"{\"a\" 1}", 1, 6, "expected ':', found '1'", NULL},
        {"{\"a\": 1 \"b\": 2}", 1, 9, "expected ',' or '}', found '\"'", "comma"},
        {"{\"a\": [1 2]}", 1, 10, "expected ',' or ']', found '2'", "comma"},
        {"{\"a\": 1", 1, 8, "found the end of the file", "*"},
        {"{\n\"a\": 1}}", 2, 8, "expected the end of the file", NULL},
        {"{\"a\": 1, \"b\": 2,\n \"a\": 3}", 2, 2, "duplicate key \"a\"", "line 1"},
        {"{\"a\": {\"x\": 1, \"x\": 1}}", 1, 16, "duplicate key \"x\"", "line 1"},
        {"{a: 1}", 1, 2, "expected a key, found 'a'", "double quotes"},
        {"{'a': 1}", 1, 2, "found a single quote", "double quotes"},
        {"{\"a\": 'x'}", 1, 7, "found a single quote", "double quotes"},
        {"{\"a\": 1 // x\n}", 1, 9, "found '/'", "no comments"},
        {"# x\n{}", 1, 1, "found '#'", "no comments"},
        {"{\"a\": tru}", 1, 7, "\"tru\" is not", "did you mean true?"},
        {"{\"a\": NaN}", 1, 7, "\"NaN\" is not", "*"},
        {"{\"a\": 01}", 1, 7, "leading zero", "*"},
        {"{\"a\": -}", 1, 8, "expected a digit", NULL},
        {"{\"a\": 1.}", 1, 9, "expected a digit", NULL},
        {"{\"a\": 1e}", 1, 9, "expected a digit", NULL},
        {"{\"a\": .5}", 1, 7, "expected a value, found '.'", NULL},
        {"{\"a\": +5}", 1, 7, "expected a value, found '+'", NULL},
        {"{\"a\": \"x}\n", 1, 7, "not closed", "*"},
        {"{\"a\": \"x\n\"}", 1, 7, "not closed", "*"},
        {"{\"a\": \"x\\", 1, 7, "not closed", "*"},
        {"{\"a\": \"x\\\n\"}", 1, 7, "not closed", "*"},
        {"{\"a\": \"\\x\"}", 1, 8, "not a valid escape", "*"},
        {"{\"a\": \"\\u12\"}", 1, 8, "not a valid escape", "*"},
        {"{\"a\": \"\\ud800\"}", 1, 8, "not a valid escape", "*"},
        {"{\"a\": \"\\udc00\\ud800\"}", 1, 8, "not a valid escape", "*"},
        {"{\"a\": \"\\udc00\\udc00\"}", 1, 8, "not a valid escape", "*"},
        {"{\"a\": \"\\ud800\\u0041\"}", 1, 8, "not a valid escape", "*"},
        {"{\"a\": \"b\tc\"}", 1, 9, "control", "\\t"},
        {"{\"a\": \"b\xff\"}", 1, 9, "UTF-8", "UTF-8"},
        {"{\"a\": \"\xc0\x80\"}", 1, 8, "UTF-8", "UTF-8"},
        {"{\"a\": \"\xed\xa0\x80\"}", 1, 8, "UTF-8", "UTF-8"},
        {"{\"a\": \x01}", 1, 7, "found byte 0x01", NULL},
        {"{\"a\": \xc2\xa0 1}", 1, 7, "found byte 0xc2", NULL},
        {"{\"a\":}", 1, 6, "expected a value, found '}'", NULL},
        {"{\"a\":1,,}", 1, 8, "expected a key, found ','", "*"},
        {"{\"a\":[,1]}", 1, 7, "expected a value, found ','", NULL},
        {"{\"routes\": \"/x: OK\"}", 1, 12, "routes must be", "*"},
        {"{\"routes\": [1, [2]]}", 1, 16, "a route is expected", "*"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct fixture f;
        fixture_init(&f);
        struct ag_source *src = source_of(&f, ag_span_str(rows[i].text));
        (void)ag_config_parse_json(src, &f.diags);
        check_bad(&rows[i], &f.diags);
        cr_assert_eq(f.diags.errors, 1, "%s", rows[i].text);
        source_free(src);
        fixture_deinit(&f);
    }
}

Test(config_json, every_prefix_is_refused)
{
    for (size_t len = 0; len < sizeof(good) - 3; len++) {
        struct fixture f;
        fixture_init(&f);
        struct ag_source *src = source_of(&f, ag_span(good, len));
        cr_assert_null(ag_config_parse_json(src, &f.diags), "%zu", len);
        cr_assert_eq(f.diags.errors, 1);
        source_free(src);
        fixture_deinit(&f);
    }
}

Test(config_json, depth_is_bounded)
{
    char text[256] = "{\"a\":";
    struct fixture f;
    fixture_init(&f);

    memset(text + 5, '[', AG_CONFIG_DEPTH_MAX);
    cr_assert_null(parse(&f, text));
    cr_assert(strstr(f.diags.first->what, "nested too deeply"));
    cr_assert_eq(f.diags.first->pos.col, 5 + AG_CONFIG_DEPTH_MAX);
    memset(text + 5, '[', AG_CONFIG_DEPTH_MAX - 1);
    memset(text + 4 + AG_CONFIG_DEPTH_MAX, ']', AG_CONFIG_DEPTH_MAX - 1);
    text[3 + 2 * AG_CONFIG_DEPTH_MAX] = '}';
    cr_assert_not_null(parse(&f, text));
    fixture_deinit(&f);
}

Test(config_json, mutations_never_crash)
{
    static const char bytes[] = "{}[],:\"\\u019e.-+tfn \n\x80\xff";
    uint64_t x = 1234567891011u;
    unsigned parsed = 0;

    for (unsigned round = 0; round < 50000; round++) {
        struct fixture f;
        fixture_init(&f);
        char text[sizeof(good)];
        size_t len = sizeof(good) - 1;
        memcpy(text, good, sizeof(text));
        for (unsigned i = 0; i < 1 + round % 3; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            text[(x >> 8) % len] = bytes[(x >> 32) % (sizeof(bytes) - 1)];
        }
        struct ag_source *src = source_of(&f, ag_span(text, len));
        struct ag_node *root = ag_config_parse_json(src, &f.diags);
        cr_assert(root || f.diags.errors > 0);
        parsed += root != NULL;
        source_free(src);
        fixture_deinit(&f);
    }
    cr_assert_gt(parsed, 500);
}
