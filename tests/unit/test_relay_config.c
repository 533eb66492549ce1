/*
 * Goal: a name goes where the section says, exact ones first, then the longest ending; mistakes have a place.
 * Method: the section as text, through the proxy's own reading.
 */
#include "actions/proxy/proxy.h"
#include "actions/proxy/proxy_config.h"
#include "actions/proxy/relay_config.h"
#include "tests/unit/config_util.h"

static struct fixture f;

static void setup(void)
{
    fixture_init(&f);
}

static void teardown(void)
{
    fixture_deinit(&f);
}

TestSuite(relay_config, .init = setup, .fini = teardown);

/* NULL after mistakes. */
static const struct ag_proxy_section *section_of(const char *text)
{
    struct ag_source *src = ag_config_source(&f.arena, "t", ag_span_str(text));
    struct ag_node *root = ag_config_parse_yaml(src, &f.diags);
    struct ag_action_build build = {.arena = &f.arena, .diags = &f.diags, .config = root};

    cr_assert_not_null(root, "%s", text);
    return ag_proxy_configure_section(&build) == AG_OK ? build.shared[AG_ACTION_PROXY] : NULL;
}

static void expect_choice(const struct ag_relay_settings *s, const char *name, const char *to)
{
    const struct ag_upstream *up = ag_relay_choose(s, ag_span_str(name));

    cr_expect(up ? to && ag_span_eq(up->name, ag_span_str(to)) : !to, "%s goes to %.*s", name,
              up ? (int)up->name.len : 0, up ? (const char *)up->name.ptr : "");
}

Test(relay_config, names)
{
    const struct ag_proxy_section *section = section_of(
        "proxy: {upstreams: {one: {servers: ['10.0.0.1']}, two: {servers: ['10.0.0.2']}}}\n"
        "tcp:\n"
        "  - {listen: ':1', sni: {A.example: one, '*.example': two, '*.w.example': one,\n"
        "                        x.w.example: 'h:9', '*.v.w.example': two}}\n"
        "  - {listen: ':2', sni: {a: one}, default: 'h:9,i:9'}\n"
        "  - {listen: ':3', to: one, timeouts: {connect: 1s, idle: 0, hello: 2s}}\n");
    const struct ag_relay_settings *s;

    cr_assert(section);
    cr_assert_eq(section->relay_count, 3);
    s = ag_relay_settings_of(section, 0);
    expect_choice(s, "a.example", "one");
    expect_choice(s, "b.example", "two");
    expect_choice(s, "b.a.example", "two");
    expect_choice(s, "b.w.example", "one");
    expect_choice(s, "x.w.example", "h:9");
    expect_choice(s, "y.x.w.example", "one");
    expect_choice(s, "y.v.w.example", "two");
    expect_choice(s, "w.example", "two");
    expect_choice(s, "example", NULL);
    expect_choice(s, ".example", NULL);
    expect_choice(s, "aexample", NULL);
    expect_choice(s, "a.example.net", NULL);
    expect_choice(s, "", NULL);
    cr_expect_eq(s->timeouts.connect_ms, 3000);
    cr_expect_eq(s->idle_ms, 3600000);
    cr_expect_eq(s->hello_ms, 10000);
    s = ag_relay_settings_of(section, 1);
    expect_choice(s, "a", "one");
    expect_choice(s, "b", "h:9,i:9");
    expect_choice(s, "", "h:9,i:9");
    s = ag_relay_settings_of(section, 2);
    expect_choice(s, "whatever", "one");
    cr_expect_eq(s->name_count, 0);
    cr_expect_eq(s->timeouts.connect_ms, 1000);
    cr_expect_eq(s->idle_ms, 0);
    cr_expect_eq(s->hello_ms, 2000);
    cr_expect_null(ag_relay_settings_of(section, 3));
}

Test(relay_config, mistakes)
{
    static const struct {
        const char *text, *what;
        uint32_t col;
    } cases[] = {
        {"tcp: [{listen: ':1'}]", "connections go nowhere", 7},
        {"tcp: [{listen: ':1', to: 'a:1', sni: {b: 'a:1'}}]", "exclude each other", 7},
        {"tcp: [{listen: ':1', to: 'a:1', default: 'b:1'}]", "default is for names", 33},
        {"tcp: [{listen: ':1', to: 'http://a'}]", "no upstream", 27},
        {"tcp: [{listen: ':1', to: ''}]", "no upstream", 27},
        {"tcp: [{listen: ':1', to: 'a:99999'}]", "not a server", 27},
        {"tcp: [{listen: ':1', sni: a}]", "must be a mapping", 27},
        {"tcp: [{listen: ':1', sni: {}}]", "must be a mapping", 27},
        {"tcp: [{listen: ':1', sni: {'*': 'a:1'}}]", "not a server name", 28},
        {"tcp: [{listen: ':1', sni: {'a.*.b': 'a:1'}}]", "not a server name", 28},
        {"tcp: [{listen: ':1', sni: {'*.': 'a:1'}}]", "not a server name", 28},
        {"tcp: [{listen: ':1', sni: {'a:443': 'a:1'}}]", "not a server name", 28},
        {"tcp: [{listen: ':1', too: 'a:1'}]", "too", 22},
        {"tcp: [{listen: ':1', to: 'a:1', timeouts: {connect: 0s}}]", "out of range", 53},
        {"tcp: [{listen: ':1', to: 'a:1', timeouts: {red: 1s}}]", "red", 44},
    };

    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        (void)section_of(cases[i].text);
        cr_assert(f.diags.first, "%s", cases[i].text);
        cr_expect(strstr(f.diags.first->what, cases[i].what), "%s: %s", cases[i].text,
                  f.diags.first->what);
        cr_expect_eq(f.diags.first->pos.col, cases[i].col, "%s: %u", cases[i].text,
                     f.diags.first->pos.col);
        fixture_deinit(&f);
        fixture_init(&f);
    }
}

Test(relay_config, described)
{
    const struct ag_proxy_section *section = section_of(
        "tcp: [{listen: ':1', sni: {'*.a': 'x:1', b: 'y:1'}}, {listen: ':2', to: 'z:1'}]");
    char room[300];
    struct ag_buf b = ag_buf(room, sizeof(room));

    cr_assert(section);
    ag_relay_describe(section, &b);
    cr_expect(ag_span_eq(ag_buf_span(&b),
                         AG_SPAN("tcp 1\n  *.a to x:1\n  b to y:1\n  others are refused\n"
                                 "tcp 2\n  to z:1\n")),
              "%.*s", (int)b.len, room);
}
