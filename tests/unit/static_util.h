/* static_util: a small site in a directory of its own, and requests to it. */
#pragma once
#include "actions/static/static.h"
#include "actions/static/static_cache.h"
#include "actions/static/static_send.h"
#include "engine/backend.h"
#include "tests/unit/actions_util.h"
#include "tests/unit/folder.h"

#include <fcntl.h>
#include <sys/stat.h>

/* A site with the usual things. */
static inline void site(void)
{
    folder_make();
    folder_put_text("index.html", "<home>");
    folder_put_text("app.js", "alert(1)");
    folder_put_text("assets/app.3f2a9c1b.js", "hashed");
    folder_put_text("a b.txt", "space");
    folder_put_text("docs/index.html", "<docs>");
    folder_put_text("empty/", "");
    folder_put_text(".env", "SECRET");
    folder_put_text(".git/config", "SECRET");
    folder_put_text(".well-known/security.txt", "Contact");
    folder_put_text("nothing.txt", "");
}

static struct fake *f;
static struct fake_route r;

static void keep_time(struct ag_loop *l)
{
    (void)l;
}

/* The clock goes on by what a test adds to now_ms, and however long a turn takes by nothing else: what was looked at is
 * as old as the test says. */
static inline void stop_clock(struct ag_loop *l)
{
    static struct ag_backend backend;
    static struct ag_system system;

    system = *l->backend->system;
    system.clock = keep_time;
    backend = *l->backend;
    backend.system = &system;
    l->backend = &backend;
}

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
    if (!f) {
        f = fake_new(&ag_action_static);
        stop_clock(&f->loop);
    }
    if (!f->build.shared[AG_ACTION_STATIC]) {
        fake_set(f, f->config, "static.root", folder);
        cr_assert(fake_section(f) == AG_OK);
    }
    cr_assert(configure(pattern, path) == AG_OK);
}

static inline void end(void)
{
    fake_free(f);
    f = NULL;
    folder_remove();
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
