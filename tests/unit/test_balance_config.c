/*
 * Goal: what the config says of balancing arrives as said, mistakes are met with their position and a hint.
 * Method: YAML texts; a table of mistakes.
 */
#include "actions/upstream/balance_config.h"
#include "router/config.h"
#include "tests/unit/config_util.h"

static struct fixture f;
static struct ag_source *source;

static void setup(void)
{
    fixture_init(&f);
    source = NULL;
}

static void teardown(void)
{
    if (source) {
        source_free(source);
    }
    fixture_deinit(&f);
}

TestSuite(balance_config, .init = setup, .fini = teardown);

static bool read_text(const char *text, struct ag_balance_options *io)
{
    const struct ag_node *root;

    teardown();
    setup();
    source = source_of(&f, ag_span_str(text));
    root = ag_config_parse_yaml(source, &f.diags);
    cr_assert(root && f.diags.errors == 0, "%s", text);
    return ag_balance_read(ag_node_get(root, "balance"), ag_node_get(root, "sticky"), &f.diags, io);
}

static struct ag_balance_options must_read(const char *text)
{
    struct ag_balance_options o = {0};

    cr_assert(read_text(text, &o) && f.diags.errors == 0, "%s: %s", text,
              f.diags.first ? f.diags.first->what : "silently refused");
    return o;
}

static void describes(const char *text, const char *want)
{
    struct ag_balance_options o = must_read(text);
    uint8_t room[256];
    struct ag_buf buf = ag_buf(room, sizeof(room));

    ag_balance_describe(&o, &buf);
    cr_assert(text_is(ag_buf_span(&buf), want), "%s: \"%.*s\"", text, (int)buf.len,
              (const char *)room);
}

Test(balance_config, every_way)
{
    describes("x: 1", "in turn");
    describes("balance: round_robin", "in turn");
    describes("balance: least_conn", "least requests under way");
    describes("balance: random_two", "better of two");
    describes("balance: {random_two: ewma}", "better of two by latency");
    describes("balance: {hash: ip}", "hash by address");
    describes("balance: {hash: uri}", "hash by uri");
    describes("balance: {hash: path}", "hash by path");
    describes("balance: {hash: {header: X-User}}", "hash by header X-User");
    describes("balance: {hash: {cookie: sid}}", "hash by cookie sid");
    describes("balance: {hash: {query: \"user[id]\"}}", "hash by query user[id]");
    describes("{balance: least_conn, sticky: {cookie: sid, secret: 0123456789abcdef}}",
              "least requests under way, sticky by cookie sid");
    describes("sticky: sid",
              "in turn, sticky by cookie sid (without a secret: until this process ends)");
}

Test(balance_config, headers_known_by_number)
{
    cr_assert_eq(must_read("balance: {hash: {header: authorization}}").by_field,
                 AG_FIELD_AUTHORIZATION);
    cr_assert_eq(must_read("balance: {hash: {header: X-User}}").by_field, AG_FIELD_OTHER);
    cr_assert_eq(must_read("balance: {hash: {cookie: host}}").by_field, AG_FIELD_OTHER);
}

Test(balance_config, cookies_as_said)
{
    struct ag_balance_options o = must_read("sticky: sid");
    uint8_t key[AG_SIPHASH_KEY];

    cr_assert(text_is(o.sticky.path, "/") && o.sticky.http_only && o.sticky.max_age_s == 0);
    cr_assert(o.sticky.secure == AG_STICKY_SECURE_AUTO &&
              o.sticky.same_site == AG_STICKY_SAME_SITE_LAX);
    memcpy(key, o.sticky.key, sizeof(key));
    o = must_read("sticky: sid");
    cr_assert(ag_mac_same(key, o.sticky.key), "a reload keeps the key of the process");
    o = must_read(
        "sticky: {cookie: a, secret: 0123456789abcdef, max_age: 1h, secure: true, same_site: strict,"
        " http_only: false, path: /app}");
    cr_assert(text_is(o.sticky.name, "a") && text_is(o.sticky.path, "/app") && !o.sticky.http_only);
    cr_assert(o.sticky.max_age_s == 3600 && o.sticky.secure == AG_STICKY_SECURE_ON &&
              o.sticky.lasting);
    cr_assert_eq(o.sticky.same_site, AG_STICKY_SAME_SITE_STRICT);
    cr_assert(!ag_mac_same(key, o.sticky.key));
    o = must_read("sticky: {cookie: a, secure: false, same_site: lax, max_age: 0}");
    cr_assert(o.sticky.secure == AG_STICKY_SECURE_OFF && !o.sticky.lasting &&
              o.sticky.max_age_s == 0);
    o = must_read("sticky: {cookie: a, secure: auto}");
    cr_assert(o.sticky.secure == AG_STICKY_SECURE_AUTO && text_is(o.sticky.path, "/"));
    o = must_read("sticky: {cookie: __Host-a, secure: true, same_site: none}");
    cr_assert_eq(o.sticky.same_site, AG_STICKY_SAME_SITE_NONE);
}

Test(balance_config, what_is_not_said_stays)
{
    struct ag_balance_options o = must_read("{balance: {hash: {cookie: c}}, sticky: s}"), was = o;

    cr_assert(read_text("x: 1", &o));
    cr_assert_eq(ag_balance_options_hash(&o, 1), ag_balance_options_hash(&was, 1));
    cr_assert(read_text("balance: random_two", &o));
    cr_assert(o.kind == AG_BALANCE_RANDOM_TWO && o.by_name.len == 0 && o.sticky.name.len == 1);
}

Test(balance_config, equal_options_have_equal_hashes)
{
    static const char *const texts[] = {"balance: least_conn",
                                        "balance: {hash: ip}",
                                        "balance: {hash: {cookie: a}}",
                                        "balance: {hash: {cookie: b}}",
                                        "balance: {hash: {query: a}}",
                                        "sticky: a",
                                        "sticky: b",
                                        "sticky: {cookie: a, secret: 0123456789abcdef}",
                                        "sticky: {cookie: a, secret: 0123456789abcdeg}",
                                        "sticky: {cookie: a, path: /b}",
                                        "sticky: {cookie: a, http_only: false}"};
    uint64_t hashes[AG_COUNT(texts)];

    for (size_t i = 0; i < AG_COUNT(texts); i++) {
        struct ag_balance_options o = must_read(texts[i]), again;

        hashes[i] = ag_balance_options_hash(&o, 7);
        again = must_read(texts[i]);
        cr_assert_eq(hashes[i], ag_balance_options_hash(&again, 7));
        cr_assert_neq(hashes[i], ag_balance_options_hash(&again, 8));
        for (size_t j = 0; j < i; j++) {
            cr_assert_neq(hashes[i], hashes[j], "%s, %s", texts[i], texts[j]);
        }
    }
}

Test(balance_config, mistakes)
{
    static const struct bad table[] = {
        {"balance: least_con", 1, 10, "least_con", "least_conn"},
        {"balance: fastest", 1, 10, "fastest", "round_robin, least_conn, random_two"},
        {"balance: hash", 1, 10, "hash by what?", "{hash: ip}"},
        {"balance: sticky", 1, 10, "a key of its own", "sticky: NAME"},
        {"balance: [round_robin]", 1, 10, "one word", "round_robin"},
        {"balance: {hahs: ip}", 1, 11, "unknown key \"hahs\"", "hash"},
        {"balance: {}", 1, 10, "takes one key", "{hash: ip}"},
        {"balance: {hash: ip, random_two: ewma}", 1, 21, "takes one key", "{hash: ip}"},
        {"balance: {hash: }", 1, 11, "takes one key and its value", "{hash: ip}"},
        {"balance: {random_two: ewmma}", 1, 23, "ewmma", "ewma"},
        {"balance: {hash: url}", 1, 17, "url", "uri"},
        {"balance: {hash: cookie}", 1, 17, "a cookie has a name", "hash: {cookie: NAME}"},
        {"balance: {hash: {}}", 1, 17, "hash takes one key", "{header: NAME}"},
        {"balance: {hash: {heeder: a}}", 1, 18, "unknown key \"heeder\"", "header"},
        {"balance: {hash: {header: a, cookie: b}}", 1, 29, "hash takes one key", "*"},
        {"balance: {hash: {header: }}", 1, 18, "hash takes one key and its value", "*"},
        {"balance: {hash: {header: \"a b\"}}", 1, 26, "\"a b\" is not the name of a header",
         "letters"},
        {"balance: {hash: {cookie: \"a;b\"}}", 1, 26, "\"a;b\" is not the name of a cookie",
         "letters"},
        {"balance: {hash: {query: \"a=b\"}}", 1, 25, "\"a=b\" is not the name of a query",
         "before the ="},
        {"balance: {hash: {header: [a]}}", 1, 26, "expected text", NULL},
        {"sticky: \"a b\"", 1, 9, "not the name of a cookie", "letters"},
        {"sticky: \"\"", 1, 9, "not the name of a cookie", "letters"},
        {"sticky: [a]", 1, 9, "must be a mapping", "cookie"},
        {"sticky: {}", 1, 9, "needs the name of a cookie", "{cookie: NAME}"},
        {"sticky:", 1, 8, "needs the name of a cookie", "{cookie: NAME}"},
        {"sticky: {cookie: }", 1, 18, "cookie: expected text, found nothing", "*"},
        {"sticky: {cookie: a, secret: }", 1, 29, "secret: expected text, found nothing", "*"},
        {"sticky: {cookie: a, path: ~}", 1, 27, "path: expected text, found nothing", "*"},
        {"balance:", 1, 9, "balance: expected one word, found nothing", "*"},
        {"sticky: {cookie: a, secrte: b}", 1, 21, "unknown key \"secrte\"", "secret"},
        {"sticky: {cookie: a, secret: short}", 1, 29, "has 5 bytes, and 16 at least",
         "openssl rand"},
        {"sticky: {cookie: a, max_age: 500d}", 1, 30, "max_age is out of range", "400d"},
        {"sticky: {cookie: a, max_age: 10ms}", 1, 30, "max_age is out of range", "1s"},
        {"sticky: {cookie: a, max_age: 10}", 1, 30, "a duration", "10s"},
        {"sticky: {cookie: a, secure: yes}", 1, 29, "yes", "auto, true, false"},
        {"sticky: {cookie: a, same_site: laxx}", 1, 32, "laxx", "lax"},
        {"sticky: {cookie: a, same_site: none}", 1, 32, "refuse same_site: none", "secure: true"},
        {"sticky: {cookie: a, http_only: 1}", 1, 32, "true or false", "true"},
        {"sticky: {cookie: a, path: app}", 1, 27, "\"app\" is not the path", "path: /"},
        {"sticky: {cookie: a, path: \"/;b\"}", 1, 27, "is not the path", "path: /"},
        {"sticky: __Secure-a", 1, 9, "refuse __Secure-a without secure", "secure: true"},
        {"sticky: {cookie: __Host-a, secure: true, path: /b}", 1, 48, "with another path",
         "path: /"},
    };

    for (size_t i = 0; i < AG_COUNT(table); i++) {
        struct ag_balance_options o = {0};

        cr_assert(!read_text(table[i].text, &o), "%s", table[i].text);
        check_bad(&table[i], &f.diags);
    }
}

/* Whatever is printed of a mistake, a secret is not. */
Test(balance_config, secrets_are_not_shown)
{
    struct ag_balance_options o = {0};

    cr_assert(!read_text("sticky:\n  cookie: a\n  secret: hunter2\n", &o));
    cr_assert_null(strstr(f.diags.first->what, "hunter2"));
}
