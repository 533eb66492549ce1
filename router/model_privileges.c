/* server.user, server.chroot and server.seccomp: what a worker gives up. */
#include "router/model_impl.h"

#define USER_MAX_BYTES 256u

/* NAME, NAME:GROUP, or numbers in their place; whether they exist is the business of who starts. */
static void read_user(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    struct ag_span text;

    if (!ag_node_text(n, diags, &text)) {
        return;
    }
    size_t colon = ag_span_find(text, ':');
    if (colon == 0 || text.len == 0 || text.len > USER_MAX_BYTES || colon + 1 == text.len ||
        memchr(text.ptr, 0, text.len)) {
        ag_diag_error(diags, n->pos, "such as www-data, www-data:www-data or 33:33",
                      "user: expected a user of this system");
        return;
    }
    m->user = ag_arena_strdup(diags->arena, text);
    m->user_pos = n->pos;
}

void ag_model_read_privileges(struct ag_model *m, const struct ag_node *server,
                              struct ag_diags *diags)
{
    static const char *const seccomps[] = {"auto", "on", "off", "log"};
    const struct ag_node *chroot_node = ag_node_get(server, "chroot");
    unsigned seccomp = AG_CONFINE_AUTO;
    struct ag_span text;

    _Static_assert(AG_CONFINE_AUTO == 0 && AG_CONFINE_LOG == 3, "in the order of the enum");
    read_user(m, ag_node_get(server, "user"), diags);
    if (ag_node_text(chroot_node, diags, &text)) {
        if (text.len == 0 || text.ptr[0] != '/' || memchr(text.ptr, 0, text.len)) {
            ag_diag_error(diags, chroot_node->pos, "such as /var/empty",
                          "chroot: expected an absolute path");
        } else if (!m->user) {
            ag_diag_error(diags, chroot_node->pos, "root can leave it: add server.user",
                          "chroot without user");
        }
        m->chroot = ag_arena_strdup(diags->arena, text);
        m->chroot_pos = chroot_node->pos;
    }
    (void)ag_node_enum(ag_node_get(server, "seccomp"), diags, seccomps, AG_COUNT(seccomps),
                       &seccomp);
    m->seccomp = (enum ag_confine)seccomp;
}
