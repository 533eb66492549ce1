/*
 * Goal: files, includes, environment and flags come together as documented, and each mistake names the
 * file, variable or flag it stands in.
 * Method: each test runs in a directory of its own (Criterion gives it a process of its own).
 */
#include "tests/unit/config_util.h"

#include <ftw.h>
#include <sys/stat.h>

static char dir[] = P_tmpdir "/anygate-test-XXXXXX";
static struct fixture f;

static void enter(void)
{
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(chdir(dir), 0);
    fixture_init(&f);
}

static int delete_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void leave(void)
{
    fixture_deinit(&f);
    cr_assert_eq(chdir("/"), 0);
    cr_assert_eq(nftw(dir, delete_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

TestSuite(config, .init = enter, .fini = leave);

static void put(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");

    cr_assert_not_null(out);
    cr_assert_geq(fputs(text, out), 0);
    cr_assert_eq(fclose(out), 0);
}

static struct ag_node *load(const struct ag_config_input *in)
{
    const char *base = NULL;
    struct ag_node *root = ag_config_load(in, &f.diags, &base);

    cr_assert(!root || base);
    return root;
}

static struct ag_node *load_file(const char *path, const char *const *env)
{
    return load(&(struct ag_config_input){.file = path, .env = env});
}

/* The node at "a.b.c", which must be there. */
static const struct ag_node *at(const struct ag_node *n, const char *path)
{
    char copy[128], *rest = copy, *key;

    (void)snprintf(copy, sizeof(copy), "%s", path);
    while ((key = strsep(&rest, "."))) {
        n = must_get(n, key);
    }
    AG_ASSERT(n);
    return n;
}

static void check_text(const struct ag_node *root, const char *path, const char *want)
{
    const struct ag_node *n = at(root, path);

    cr_assert(n->kind == AG_NODE_SCALAR && text_is(n->text, want), "%s is not %s", path, want);
}

static void check_diag(const struct ag_diag *g, const char *file, uint32_t line, uint32_t col,
                       const char *what)
{
    cr_assert(g, "no diagnosis: %s", what);
    cr_assert(strstr(g->what, what), "\"%s\" is not \"%s\"", g->what, what);
    cr_assert_eq(g->pos.source != NULL, file != NULL, "%s", what);
    if (file) {
        cr_assert_str_eq(g->pos.source->name, file);
        cr_assert(g->pos.line == line && g->pos.col == col, "%s: at %u:%u", g->what, g->pos.line,
                  g->pos.col);
    }
}

static void no_errors(void)
{
    cr_assert_eq(f.diags.errors, 0, "%s", f.diags.first ? f.diags.first->what : "");
}

/* ---- files ---- */

Test(config, formats_by_extension)
{
    static const struct {
        const char *path, *text;
    } rows[] = {
        {"a.yml", "routes:\n  GET /x: OK {\"a\": \"b\"}\n"},
        {"a.yaml", "routes:\n- GET /x: OK {\"a\": \"b\"}\n"},
        {"a.json", "{\"routes\": [\"GET /x: OK {\\\"a\\\": \\\"b\\\"}\"]}"},
        {"a.gate", "# c\n\nGET /x: OK {\"a\": \"b\"}\r\n"},
        {"bom.gate", "\xef\xbb\xbfGET /x: OK {\"a\": \"b\"}"},
        {"bom.yml", "\xef\xbb\xbfroutes:\n  GET /x: OK {\"a\": \"b\"}"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        put(rows[i].path, rows[i].text);
        const struct ag_node *routes = at(load_file(rows[i].path, NULL), "routes");
        no_errors();
        cr_assert_eq(child_count(routes), 1);
        cr_assert(routes->first->dsl);
        cr_assert(text_is(routes->first->text, "GET /x: OK {\"a\": \"b\"}"), "%s", rows[i].path);
        cr_assert_str_eq(routes->first->pos.source->name, rows[i].path);
    }
}

Test(config, gate_lines)
{
    put("a.gate", "# first\n\n/a: *\n   # deeper comment\n\"/b\": \"/dist/\" # c\n/a: *\n  more\n");
    const struct ag_node *routes = at(load_file("a.gate", NULL), "routes");
    check_diag(f.diags.first, "a.gate", 7, 3, "continued");
    cr_assert_eq(f.diags.errors, 1);
    cr_assert_eq(child_count(routes), 3);
    cr_assert(text_is(child_at(routes, 1)->text, "\"/b\": \"/dist/\" # c"));
    cr_assert(child_at(routes, 1)->pos.line == 5 && child_at(routes, 1)->pos.col == 1);
}

Test(config, files_that_cannot_be_read)
{
    cr_assert_null(load_file("none.yml", NULL));
    check_diag(f.diags.first, NULL, 0, 0, "cannot read none.yml: No such file or directory");
    put("a.toml", "");
    cr_assert_null(load_file("a.toml", NULL));
    check_diag(f.diags.first->next, NULL, 0, 0, "extension");
    cr_assert(strstr(f.diags.first->next->hint, ".yml, .yaml, .json, .gate"));
    cr_assert_eq(mkdir("d.yml", 0700), 0);
    cr_assert_null(load_file("d.yml", NULL));
    check_diag(f.diags.first->next->next, NULL, 0, 0, "not a regular file");
    cr_assert_eq(mkfifo("p.yml", 0600), 0);
    cr_assert_null(load_file("p.yml", NULL));
    cr_assert_eq(f.diags.errors, 4);
}

Test(config, base_directory)
{
    const char *base = NULL;

    cr_assert_eq(mkdir("sub", 0700), 0);
    put("sub/a.yml", "server: {}\n");
    cr_assert_not_null(
        ag_config_load(&(struct ag_config_input){.file = "sub/a.yml"}, &f.diags, &base));
    cr_assert_str_eq(base, "sub");
    cr_assert_not_null(ag_config_load(&(struct ag_config_input){0}, &f.diags, &base));
    cr_assert_str_eq(base, ".");
    no_errors();
}

/* ---- include ---- */

Test(config, includes_merge)
{
    cr_assert_eq(mkdir("conf [d]", 0700), 0);
    cr_assert_eq(mkdir("conf [d]/sub", 0700), 0);
    put("conf [d]/main.yml", "version: 1\n"
                             "include: [sub/*.yml, sub/z.gate, none/*.yml]\n"
                             "server: {workers: 2, listen: [\":1\"], log: {level: info}}\n"
                             "routes:\n  /main: OK\n");
    put("conf [d]/sub/b.yml", "version: 1\nroutes:\n  - /b: OK\nserver: {log: {format: json}}\n");
    put("conf [d]/sub/a.yml", "include: ../c.json\nserver: {listen: [\":2\"]}\n"
                              "routes: |\n  /a: OK\nproxy: {x: {y: 1}}\n");
    put("conf [d]/c.json", "{\"routes\": {\"/c\": \"OK\"}, \"server\": {\"listen\": [\":3\"]}}");
    put("conf [d]/sub/z.gate", "/z: OK\n/z2: OK\n");
    struct ag_node *root = load_file("conf [d]/main.yml", NULL);
    no_errors();
    cr_assert_null(ag_node_get(root, "include"));
    check_text(root, "version", "1");
    check_text(root, "server.workers", "2");
    check_text(root, "server.log.level", "info");
    check_text(root, "server.log.format", "json");
    check_text(root, "proxy.x.y", "1");
    static const char *const ports[] = {":1", ":2", ":3"};
    cr_assert_eq(child_count(at(root, "server.listen")), 3);
    for (size_t i = 0; i < 3; i++) {
        cr_assert(text_is(child_at(at(root, "server.listen"), i)->text, ports[i]));
    }
    static const char *const order[] = {"/main: OK", "/a: OK", "", "/b: OK", "/z: OK", "/z2: OK"};
    const struct ag_node *routes = at(root, "routes");
    cr_assert_eq(child_count(routes), AG_COUNT(order));
    for (size_t i = 0; i < AG_COUNT(order); i++) {
        const struct ag_node *n = child_at(routes, i);
        cr_assert(*order[i] ? text_is(n->text, order[i]) : text_is(n->key, "/c"), "%zu", i);
    }
    cr_assert_str_eq(child_at(routes, 1)->pos.source->name, "conf [d]/sub/a.yml");
}

Test(config, include_conflicts)
{
    put("a.yml", "include: b.yml\nserver:\n  workers: 2\n  log: {level: info}\nversion: 1\n");
    put("b.yml", "server: {workers: 2,\n log: 5, listen: ':1'}\nversion: 2\n");
    struct ag_node *root = load_file("a.yml", NULL);
    cr_assert_not_null(root);
    cr_assert_eq(f.diags.errors, 3);
    check_diag(f.diags.first, "b.yml", 3, 1, "\"version\" is set in two files");
    const struct ag_diag *workers = NULL, *log = NULL;
    for (const struct ag_diag *g = f.diags.first; g; g = g->next) {
        workers = strstr(g->what, "\"workers\"") ? g : workers;
        log = strstr(g->what, "\"log\"") ? g : log;
    }
    AG_ASSERT(workers);
    check_diag(workers, "b.yml", 1, 10, "\"workers\" is set in two files");
    cr_assert_str_eq(workers->hint, "first set at a.yml:3:3");
    check_diag(log, "b.yml", 2, 2, "\"log\" is set in two files");
    check_text(root, "server.listen", ":1");
}

Test(config, include_mistakes)
{
    put("a.yml", "include: b.yml\n");
    put("b.yml", "include: ./a.yml\n");
    (void)load_file("a.yml", NULL);
    cr_assert_eq(f.diags.errors, 1);
    check_diag(f.diags.first, "b.yml", 1, 10,
               "include cycle: a.yml includes itself by way of b.yml");
    fixture_deinit(&f);
    fixture_init(&f);
    put("self.yml", "include: '*.yml'\nserver: {}\n");
    cr_assert_eq(remove("a.yml") | remove("b.yml"), 0);
    (void)load_file("self.yml", NULL);
    check_diag(f.diags.first, "self.yml", 1, 10, "include cycle");
    fixture_deinit(&f);
    fixture_init(&f);
    put("c.yml", "include: [d.yml, ./d.yml, none.yml, [x], '', bad.yml, x.toml]\nserver: {}\n");
    put("d.yml", "server: {workers: 1}\n");
    put("bad.yml", "a: *\n");
    put("x.toml", "");
    struct ag_node *root = load_file("c.yml", NULL);
    check_text(root, "server.workers", "1");
    cr_assert_eq(f.diags.errors, 6);
    const struct ag_diag *g = f.diags.first; /* in order of discovery */
    check_diag(g, "c.yml", 1, 27, "cannot read none.yml: no such file");
    check_diag(g = g->next, "c.yml", 1, 37, "include: expected a file pattern");
    check_diag(g = g->next, "c.yml", 1, 42, "include: expected a file pattern");
    check_diag(g = g->next, "c.yml", 1, 18, "./d.yml is included twice");
    check_diag(g = g->next, "bad.yml", 1, 4, "alias");
    check_diag(g->next, "c.yml", 1, 55, "extension");
}

Test(config, includes_are_bounded)
{
    char path[32], text[64];

    for (unsigned i = 0; i < AG_CONFIG_INCLUDE_MAX + 5; i++) {
        (void)snprintf(path, sizeof(path), "d%u.yml", i);
        (void)snprintf(text, sizeof(text), "include: d%u.yml\n", i + 1);
        put(path, text);
    }
    (void)load_file("d0.yml", NULL);
    cr_assert_eq(f.diags.errors, 1);
    check_diag(f.diags.first, "d16.yml", 1, 10, "more than 16 files deep");
    fixture_deinit(&f);
    fixture_init(&f);
    for (unsigned i = 0; i < AG_CONFIG_FILES_MAX + 10; i++) {
        (void)snprintf(path, sizeof(path), "m%u.gate", i);
        put(path, "/x: OK\n");
    }
    put("m.yml", "include: m*.gate\n");
    (void)load_file("m.yml", NULL);
    cr_assert_eq(f.diags.errors, 1);
    check_diag(f.diags.first, "m.yml", 1, 10, "more than 256 files");
}

/* ---- ${...} ---- */

Test(config, variables)
{
    static const char *const env[] = {"PORT=8080", "EMPTY=", "HOST=h", "HOST2=h2", "A=1", NULL};

    put("a.yml", "server:\n"
                 "  a: ${PORT}\n"
                 "  b: \"x${HOST}y${HOST2}z\"\n"
                 "  c: ${NONE:-dflt}\n"
                 "  d: ${EMPTY:-dflt}\n"
                 "  e: ${EMPTY}\n"
                 "  f: $${PORT} $PORT $$ $\n"
                 "  g: \"${NONE:-}\"\n"
                 "  h: \"${PORT}\"\n"
                 "  i: 'plain'\n"
                 "  j: [\"${HOST}\"]\n"
                 "routes:\n"
                 "  /x: http://${HOST}:${PORT}/ # ${COMMENT}\n"
                 "  /y: OK {\"a\":\"#${HOST}\"}\n"
                 "  \"/z\": {action: \"${HOST}\"}\n");
    struct ag_node *root = load_file("a.yml", env);
    no_errors();
    check_text(root, "server.a", "8080");
    check_text(root, "server.b", "xhyh2z");
    check_text(root, "server.c", "dflt");
    check_text(root, "server.d", "dflt");
    cr_assert_eq(at(root, "server.e")->kind, AG_NODE_NULL);
    check_text(root, "server.f", "${PORT} $PORT $$ $");
    cr_assert_eq(at(root, "server.g")->kind, AG_NODE_NULL);
    check_text(root, "server.h", "8080");
    cr_assert_not(at(root, "server.h")->quoted);
    cr_assert(at(root, "server.i")->quoted);
    cr_assert(text_is(at(root, "server.j")->first->text, "h"));
    const struct ag_node *r = at(root, "routes");
    cr_assert(text_is(child_at(r, 0)->text, "/x: http://h:8080/ # ${COMMENT}"));
    cr_assert(child_at(r, 0)->pos.line == 13 && child_at(r, 0)->pos.col == 3);
    cr_assert(text_is(child_at(r, 1)->text, "/y: OK {\"a\":\"#h\"}"));
    cr_assert(text_is(must_get(child_at(r, 2), "action")->text, "h"));
}

Test(config, variable_mistakes)
{
    static const struct {
        const char *text;
        uint32_t line, col;
        const char *what;
    } rows[] = {
        {"a: x${NOPE}\n", 1, 5, "the environment has no NOPE"},
        {"a: \"x${NOPE}\"\n", 1, 6, "the environment has no NOPE"},
        {"routes:\n  /x: OK ${NOPE}\n", 2, 10, "the environment has no NOPE"},
        {"routes:\n  /x: OK {\"a\":\" # ${NOPE}\"}\n", 2, 19, "the environment has no NOPE"},
        {"a: |\n  x\n  ${NOPE}\n", 1, 4, "the environment has no NOPE"},
        {"a: ${}\n", 1, 4, "not a variable"},
        {"a: x ${A\n", 1, 6, "not a variable"},
        {"a: ${A-b}\n", 1, 4, "not a variable"},
        {"a: ${1A}\n", 1, 4, "not a variable"},
        {"a: ${A:+b}\n", 1, 4, "not a variable"},
        {"a: ${A:-${B}}\n", 1, 4, "braces"},
        {"a: ${PORTS}\n", 1, 4, "no PORTS"},
        {"a: ${POR}\n", 1, 4, "no POR"},
    };
    static const char *const env[] = {"PORT=1", "bad entry", "A=2", NULL};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        fixture_deinit(&f);
        fixture_init(&f);
        put("a.yml", rows[i].text);
        (void)load_file("a.yml", env);
        cr_assert_eq(f.diags.errors, 1, "%s", rows[i].text);
        check_diag(f.diags.first, "a.yml", rows[i].line, rows[i].col, rows[i].what);
    }
}

/* ---- environment ---- */

Test(config, environment_overrides_the_file)
{
    static const char *const env[] = {
        "ANYGATE_SERVER__WORKERS=4",
        "ANYGATE_SERVER__LISTEN=:80, [::1]:81",
        "ANYGATE_SERVER__TRUSTED_PROXIES=10.0.0.0/8",
        "ANYGATE_SERVER__LOG__LEVEL=\"de\\u0062ug\"",
        "ANYGATE_SERVER__USER='a,b'",
        "ANYGATE_SERVER__BACKEND=null",
        "ANYGATE_SERVER__CHROOT=null",
        "ANYGATE_SERVER__PID_FILE=~",
        "ANYGATE_SERVER__ERROR_PAGES=null",
        "ANYGATE_SERVER__ADMIN__TOKEN=null",
        "ANYGATE_PROXY__X__HEALTH__RISE=~",
        "ANYGATE_PROXY__X__Y= z ",
        "ANYGATE_SERVICE_HOST=1.2.3.4",
        "ANYGATE_PORT=tcp://1.2.3.4",
        "OTHER__X=1",
        "ANYGATE_NOVALUE__X",
        NULL,
    };

    put("a.yml", "server:\n  workers: 2\n  listen: [':1', ':2', ':3']\n  trusted_proxies: [a, b]\n"
                 "  backend: epoll\n  drain_timeout: 5s\n  pid_file: a.pid\n"
                 "  error_pages: [a, b]\n");
    struct ag_node *root = load_file("a.yml", env);
    no_errors();
    check_text(root, "server.workers", "4");
    cr_assert_str_eq(at(root, "server.workers")->pos.source->name, "<env ANYGATE_SERVER__WORKERS>");
    cr_assert_eq(at(root, "server.workers")->pos.col, 25);
    cr_assert_eq(at(root, "server.workers")->key_pos.col, 17);
    const struct ag_node *listen = at(root, "server.listen");
    cr_assert_eq(child_count(listen), 2);
    cr_assert(text_is(child_at(listen, 1)->text, "[::1]:81"));
    cr_assert_eq(child_at(listen, 1)->pos.col, 29);
    cr_assert_eq(at(root, "server.trusted_proxies")->kind, AG_NODE_SEQ);
    cr_assert_eq(child_count(at(root, "server.trusted_proxies")), 1);
    check_text(root, "server.log.level", "debug");
    check_text(root, "server.user", "a,b");
    cr_assert_null(ag_node_get(at(root, "server"), "backend"), "taken away");
    cr_assert_null(ag_node_get(at(root, "server"), "chroot"));
    cr_assert_null(ag_node_get(at(root, "server"), "pid_file"));
    cr_assert_null(ag_node_get(at(root, "server"), "error_pages"), "a list, too");
    cr_assert_null(ag_node_get(at(root, "server"), "admin"), "no section comes about by null");
    cr_assert_null(ag_node_get(at(root, "proxy.x"), "health"));
    check_text(root, "server.drain_timeout", "5s");
    check_text(root, "proxy.x.y", "z");
    cr_assert_eq(child_count(root), 2);
}

Test(config, environment_mistakes)
{
    static const struct {
        const char *entry;
        uint32_t col;
        const char *what;
    } rows[] = {
        {"ANYGATE_ROUTES__X=1", 9, "routes cannot be set"},
        {"ANYGATE_SERVER__WORKERS__X=1", 17, "\"workers\" has no settings below it"},
        {"ANYGATE___X=1", 9, "not the path of a setting"},
        {"ANYGATE_SERVER__=1", 17, "not the path of a setting"},
        {"ANYGATE_SERVER__A=\"\\x\"", 20, "not a valid escape"},
        {"ANYGATE_SERVER__LISTEN=", 24, "ANYGATE_SERVER__LISTEN is empty"},
        {"ANYGATE_SERVER__TRUSTED_PROXIES= \t", 33, "ANYGATE_SERVER__TRUSTED_PROXIES is empty"},
    };

    put("a.yml", "server: {workers: 1}\n");
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const char *env[] = {rows[i].entry, NULL};
        char name[64];
        fixture_deinit(&f);
        fixture_init(&f);
        (void)load_file("a.yml", env);
        (void)snprintf(name, sizeof(name), "<env %.*s>", (int)strcspn(rows[i].entry, "="),
                       rows[i].entry);
        cr_assert_eq(f.diags.errors, 1, "%s", rows[i].entry);
        check_diag(f.diags.first, name, 1, rows[i].col, rows[i].what);
    }
}

/* ---- flags ---- */

Test(config, flags_win)
{
    static const char *const routes[] = {"/r1: OK", "GET /r2: ${V}"}, *const listens[] = {":7"};
    static const char *const env[] = {"ANYGATE_SERVER__LISTEN=:6", "V=NOT_FOUND", NULL};

    put("a.yml", "server: {listen: [':1', ':2']}\nroutes:\n  /file: OK\n");
    struct ag_node *root = load(&(struct ag_config_input){.file = "a.yml",
                                                          .routes = routes,
                                                          .route_count = 2,
                                                          .listens = listens,
                                                          .listen_count = 1,
                                                          .env = env});
    no_errors();
    const struct ag_node *listen = at(root, "server.listen"), *r = at(root, "routes");
    cr_assert_eq(child_count(listen), 1);
    cr_assert(text_is(listen->first->text, ":7"));
    cr_assert_str_eq(listen->first->pos.source->name, "<flag -l 1>");
    cr_assert_eq(child_count(r), 3);
    cr_assert(child_at(r, 0)->dsl && text_is(child_at(r, 0)->text, "/r1: OK"));
    cr_assert(text_is(child_at(r, 1)->text, "GET /r2: NOT_FOUND"));
    cr_assert_str_eq(child_at(r, 1)->pos.source->name, "<flag -r 2>");
    cr_assert(child_at(r, 1)->pos.line == 1 && child_at(r, 1)->pos.col == 1);
    cr_assert(text_is(child_at(r, 2)->text, "/file: OK"));
}

Test(config, flags_without_a_file)
{
    static const char *const routes[] = {"/r: OK"}, *const listens[] = {":7", ":8"};
    struct ag_node *root = load(&(struct ag_config_input){.routes = routes,
                                                          .route_count = 1,
                                                          .listens = listens,
                                                          .listen_count = 2,
                                                          .dir = "./dist"});
    no_errors();
    cr_assert_eq(child_count(at(root, "server.listen")), 2);
    cr_assert(text_is(child_at(at(root, "routes"), 0)->text, "/r: OK"));
    cr_assert(text_is(child_at(at(root, "routes"), 1)->text, "\"/\": \"./dist/\""));
    cr_assert_eq(child_count(at(root, "routes")), 2);
}

Test(config, directory_to_serve)
{
    static const char *const rows[][2] = {{"dist", "./dist/"},
                                          {"../x/", "../x/"},
                                          {"/srv/www", "/srv/www/"},
                                          {".", "././"},
                                          {"a\"b\\c", "./a\\\"b\\\\c/"}};
    char want[256];

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_node *root = load(&(struct ag_config_input){.dir = rows[i][0]});
        (void)snprintf(want, sizeof(want), "\"/\": \"%s\"", rows[i][1]);
        const struct ag_node *n = at(root, "routes")->first;
        cr_assert(n->dsl && text_is(n->text, want), "%.*s", (int)n->text.len,
                  (const char *)n->text.ptr);
    }
    /* Beside a file elsewhere, the directory is still the one of the command line. */
    cr_assert_eq(mkdir("sub", 0700), 0);
    put("sub/a.yml", "server: {}\n");
    struct ag_node *root = load(&(struct ag_config_input){.file = "sub/a.yml", .dir = "./dist"});
    char *cwd = getcwd(NULL, 0);
    (void)snprintf(want, sizeof(want), "\"/\": \"%s/./dist/\"", cwd);
    cr_assert(text_is(at(root, "routes")->first->text, want));
    free(cwd);
    no_errors();
}
