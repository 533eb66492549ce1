#include "tools/privilege.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of Linux 6.2; Debian 12's headers are those of 6.1. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#    define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

static enum ag_status fail(struct ag_buf *why, const char *what, int error)
{
    ag_buf_printf(why, "%s: %s", what, strerrordesc_np(error));
    return AG_ESYS;
}

/* ---- who ---- */

static bool number_of(struct ag_span text, uint32_t *out)
{
    uint64_t n;

    if (ag_span_u64(text, &n) != AG_OK || n >= UINT32_MAX) {
        return false; /* (uid_t)-1 means "as it was" to the kernel */
    }
    *out = (uint32_t)n;
    return true;
}

/* NOLINTBEGIN(concurrency-mt-unsafe): by the master, which has one thread, and check */

/* Fills uid, gid and the groups of a user. */
static bool find_user(struct ag_span text, struct ag_user *out)
{
    char name[256];
    uint32_t id = 0;
    int count = AG_USER_GROUPS;
    const struct passwd *p;

    if (text.len >= sizeof(name)) {
        return false;
    }
    memcpy(name, text.ptr, text.len);
    name[text.len] = '\0';
    bool is_number = number_of(text, &id);
    p = is_number ? getpwuid(id) : getpwnam(name);
    if (!p && !is_number) {
        return false;
    }
    out->uid = p ? p->pw_uid : id;
    out->gid = p ? p->pw_gid : id;
    if (!p || getgrouplist(p->pw_name, p->pw_gid, out->groups, &count) < 0) {
        out->groups[0] = out->gid;
        count = 1;
    }
    out->group_count = (uint32_t)count;
    return true;
}

static bool find_group(struct ag_span text, gid_t *out)
{
    char name[256];
    const struct group *g;

    if (number_of(text, out)) {
        return true;
    }
    if (text.len >= sizeof(name)) {
        return false;
    }
    memcpy(name, text.ptr, text.len);
    name[text.len] = '\0';
    g = getgrnam(name);
    if (g) {
        *out = g->gr_gid;
    }
    return g != NULL;
}

/* NOLINTEND(concurrency-mt-unsafe) */

enum ag_status ag_user_find(const char *text, struct ag_user *out, struct ag_buf *why)
{
    struct ag_span all = ag_span_str(text), user, group = AG_SPAN("");
    size_t colon = ag_span_find(all, ':');
    struct ag_user found = {0};

    user = ag_span_sub(all, 0, colon);
    if (colon < all.len) {
        group = ag_span_sub(all, colon + 1, all.len);
    }
    if (!find_user(user, &found)) {
        ag_buf_printf(why, "this system has no user %.*s", (int)user.len, (const char *)user.ptr);
        return AG_ENOENT;
    }
    if (group.len && !find_group(group, &found.gid)) {
        ag_buf_printf(why, "this system has no group %.*s", (int)group.len,
                      (const char *)group.ptr);
        return AG_ENOENT;
    }
    if (group.len) {
        found.groups[0] = found.gid;
        found.group_count = 1;
    }
    if (found.uid == 0) {
        ag_buf_printf(why, "user %s is root, who keeps all privileges; leave server.user out",
                      text);
        return AG_ENOENT;
    }
    *out = found;
    return AG_OK;
}

/* ---- capabilities ---- */

static int capset_none_inheritable(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &head, caps) != 0) {
        return errno;
    }
    for (size_t i = 0; i < AG_COUNT(caps); i++) {
        caps[i].inheritable = 0;
    }
    return syscall(SYS_capset, &head, caps) == 0 ? 0 : errno;
}

static bool any_capability(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
    uint32_t any = 0;

    if (syscall(SYS_capget, &head, caps) != 0) {
        return true;
    }
    for (size_t i = 0; i < AG_COUNT(caps); i++) {
        any |= caps[i].effective | caps[i].permitted | caps[i].inheritable;
    }
    return any != 0;
}

/* A container may have taken CAP_SETPCAP away: then the bounding set stays, which says only what an exec
 * could gain, and no_new_privs has settled that. */
static int drop_bounding(void)
{
    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EPERM) {
            return errno;
        }
    }
    return 0;
}

/* ---- Landlock ---- */

/* Nothing is made there that has a name, nor removed. */
static bool allow_writing(long ruleset, int folder)
{
    const struct landlock_path_beneath_attr attr = {.allowed_access = LANDLOCK_ACCESS_FS_WRITE_FILE,
                                                    .parent_fd = folder};

    return folder < 0 ||
           syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0) == 0;
}

/* All that changes a file system, and running programs; no rule allows any of it anywhere, but for `folder`.
 * Descriptors that are open already (the log) are not concerned. */
static bool forbid_writing(int folder)
{
    struct landlock_ruleset_attr attr = {
        .handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                             LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                             LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
                             LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                             LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                             LANDLOCK_ACCESS_FS_MAKE_SYM};
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    bool done = false;

    if (abi < 1) {
        return false;
    }
    attr.handled_access_fs |= abi >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0;
    attr.handled_access_fs |= abi >= 3 ? LANDLOCK_ACCESS_FS_TRUNCATE : 0;
    long fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (fd >= 0) {
        done = allow_writing(fd, folder) && syscall(SYS_landlock_restrict_self, fd, 0) == 0;
        (void)close((int)fd);
    }
    return done;
}

/* ---- the two steps ---- */

enum ag_status ag_privilege_bind_hands(int folder, struct ag_privilege_report *out,
                                       struct ag_buf *why)
{
    int error;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return fail(why, "no_new_privs", errno);
    }
    error = drop_bounding();
    if (error == 0) {
        error = capset_none_inheritable();
    }
    if (error == 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
        error = errno;
    }
    if (error != 0) {
        return fail(why, "capabilities", error);
    }
    out->landlock = forbid_writing(folder);
    return AG_OK;
}

static bool is_user(const struct ag_user *user)
{
    uid_t r, e, s;
    gid_t rg, eg, sg;

    return getresuid(&r, &e, &s) == 0 && r == user->uid && e == user->uid && s == user->uid &&
           getresgid(&rg, &eg, &sg) == 0 && rg == user->gid && eg == user->gid && sg == user->gid;
}

enum ag_status ag_privilege_drop(const struct ag_user *user, const char *root, struct ag_buf *why)
{
    AG_ASSERT(user->uid != 0);
    if (root && (chroot(root) != 0 || chdir("/") != 0)) {
        return fail(why, "chroot", errno);
    }
    /* libc does these for every thread, or ends the process. */
    if (setgroups(user->group_count, user->groups) != 0) {
        return fail(why, "setgroups", errno);
    }
    if (setresgid(user->gid, user->gid, user->gid) != 0) {
        return fail(why, "setgid", errno);
    }
    if (setresuid(user->uid, user->uid, user->uid) != 0) {
        return fail(why, "setuid", errno);
    }
    if (!is_user(user) || any_capability() || setresuid(0, 0, 0) == 0) {
        ag_buf_printf(why, "privileges did not go, though the system said so");
        return AG_ESYS;
    }
    return AG_OK;
}
