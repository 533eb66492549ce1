#include "actions/action.h"
#include "actions/echo.h"
#include "actions/fixed.h"
#include "actions/proxy/proxy.h"
#include "actions/redirect.h"
#include "actions/static/static.h"

/* Keys of a route's long form, by kind; a new action adds a line here and one below. */
static const char *const fixed_keys[] = {"headers"};
static const char *const static_keys[] = {"index", "follow", "dotfiles", "spa", "cache_control"};
static const char *const proxy_keys[] = {
    "timeouts", "host",  "strip_prefix", "add_prefix", "query", "rewrite_redirects",
    "cookies",  "retry", "hedge",        "mirror",     "buffer"};

static const struct row {
    const struct ag_action_ops *ops;
    const char *const *keys;
    size_t key_count;
} rows[AG_ACTION_KINDS] = {
    [AG_ACTION_FIXED] = {&ag_action_fixed, fixed_keys, AG_COUNT(fixed_keys)},
    [AG_ACTION_ECHO] = {&ag_action_echo, NULL, 0},
    [AG_ACTION_REDIRECT] = {&ag_action_redirect, NULL, 0},
    [AG_ACTION_STATIC] = {&ag_action_static, static_keys, AG_COUNT(static_keys)},
    [AG_ACTION_PROXY] = {&ag_action_proxy, proxy_keys, AG_COUNT(proxy_keys)},
};

const struct ag_action_ops *ag_action_ops_of(enum ag_action_kind kind)
{
    AG_ASSERT(kind < AG_ACTION_KINDS && rows[kind].ops->kind == kind);
    return rows[kind].ops;
}

const char *const *ag_action_option_keys(enum ag_action_kind kind, size_t *out_count)
{
    AG_ASSERT(kind < AG_ACTION_KINDS);
    *out_count = rows[kind].key_count;
    return rows[kind].keys;
}

enum ag_status ag_action_commons_open(struct ag_action_commons *out_commons)
{
    *out_commons = (struct ag_action_commons){{NULL}};
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = rows[kind].ops;

        if (ops->common_open && ops->common_open(&out_commons->v[kind]) != AG_OK) {
            ag_action_commons_close(out_commons);
            return AG_ENOMEM;
        }
    }
    return AG_OK;
}

void ag_action_commons_close(struct ag_action_commons *commons)
{
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = rows[kind].ops;

        if (ops->common_close && commons->v[kind]) {
            ops->common_close(commons->v[kind]);
            commons->v[kind] = NULL;
        }
    }
}
