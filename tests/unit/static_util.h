/* static_util: a small site in a directory of its own, and requests to it. */
#pragma once
#include "actions/static.h"
#include "actions/static_cache.h"
#include "actions/static_send.h"
#include "tests/unit/actions_util.h"

#include <fcntl.h>
#include <sys/stat.h>

static char dir[64]; /* of the test; each test is a process of its own */

static inline void put(const char *name, const void *data, size_t len)
{
    char path[256];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    for (char *at = path + strlen(dir) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = 0;
        (void)mkdir(path, 0755);
        *at = '/';
    }
    if (len == 0 && name[strlen(name) - 1] == '/') {
        return;
    }
    file = fopen(path, "w");
    cr_assert(file && fwrite(data, 1, len, file) == len && fclose(file) == 0);
}

static inline void put_text(const char *name, const char *text)
{
    put(name, text, strlen(text));
}

static inline void remove_all(void)
{
    char command[256];

    (void)snprintf(command, sizeof(command), "rm -rf %s %s.new", dir, dir);
    cr_assert(system(command) == 0);
}

/* A site with the usual things. */
static inline void site(void)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/ag-static-XXXXXX");
    cr_assert(mkdtemp(dir) != NULL);
    put_text("index.html", "<home>");
    put_text("app.js", "alert(1)");
    put_text("assets/app.3f2a9c1b.js", "hashed");
    put_text("a b.txt", "space");
    put_text("docs/index.html", "<docs>");
    put_text("empty/", "");
    put_text(".env", "SECRET");
    put_text(".git/config", "SECRET");
    put_text(".well-known/security.txt", "Contact");
    put_text("nothing.txt", "");
}

static struct fake *f;
static struct fake_route r;

static inline enum ag_status configure(const char *pattern, const char *path)
{
    memset(&r, 0, sizeof(r));
    fake_pattern(f, &r, pattern);
    fake_target(f, &r, path);
    return fake_configure(f, &r);
}

/* "/" served from the site's directory. */
static inline void serve(const char *pattern, const char *path)
{
    f = f ? f : fake_new(&ag_action_static);
    if (!f->build.shared[AG_ACTION_STATIC]) {
        fake_set(f, f->config, "static.root", dir);
        cr_assert(fake_section(f) == AG_OK);
    }
    cr_assert(configure(pattern, path) == AG_OK);
}

static inline void end(void)
{
    fake_free(f);
    f = NULL;
    remove_all();
}

static inline const struct answer *get(const char *target, const char *fields)
{
    static char line[8192];

    (void)snprintf(line, sizeof(line), "GET %s", target);
    return fake_ask(f, &r, line, fields);
}

static inline struct ag_static_cache *cache(void)
{
    return f->ctx.action_state[AG_ACTION_STATIC];
}
