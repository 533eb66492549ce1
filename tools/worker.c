#include "tools/worker.h"

#include "actions/proxy/proxy_config.h"
#include "engine/file.h"
#include "router/snapshot.h"
#include "tools/commands.h"
#include "tools/seccomp.h"
#include "tools/server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

/* ---- the channel ---- */

static enum ag_worker_order order_of(struct ag_worker *w)
{
    switch (w->msg.type) {
    case AG_CHANNEL_BUNDLE:
    case AG_CHANNEL_DESCRIPTORS:
        /* What makes no sense is dropped; then the master waits for nothing, and its next one counts. */
        return ag_bundle_take(&w->bundle, &w->msg) == AG_OK ? AG_ORDER_LOAD : AG_ORDER_NONE;
    case AG_CHANNEL_COMMIT:
        return AG_ORDER_COMMIT;
    case AG_CHANNEL_CANCEL:
        return AG_ORDER_CANCEL;
    case AG_CHANNEL_YIELD:
        return AG_ORDER_YIELD;
    case AG_CHANNEL_DRAIN:
        return AG_ORDER_DRAIN;
    case AG_CHANNEL_ABORT:
        return AG_ORDER_ABORT;
    case AG_CHANNEL_PING:
        return AG_ORDER_PING;
    case AG_CHANNEL_TICKETS:
        return AG_ORDER_TICKETS;
    case AG_CHANNEL_READY:
    case AG_CHANNEL_LOADED:
    case AG_CHANNEL_REFUSED:
    case AG_CHANNEL_APPLIED:
    case AG_CHANNEL_ALIVE:
    case AG_CHANNEL_TYPES:
        break;
    }
    AG_UNREACHABLE("a master says what only workers say");
}

enum ag_worker_order ag_worker_read(struct ag_worker *w)
{
    enum ag_status st = ag_channel_receive(w->channel, true, &w->msg);

    if (st == AG_OK) {
        return order_of(w);
    }
    if (st == AG_AGAIN) {
        return AG_ORDER_NONE;
    }
    if (st == AG_ELIMIT) {
        ag_bundle_close(&w->bundle);
        if (w->refused != w->msg.generation) { /* it comes in many messages, and is refused once */
            w->refused = w->msg.generation;
            ag_worker_tell(w, AG_CHANNEL_REFUSED, w->refused,
                           AG_SPAN("the worker has no descriptors left for it; hint: raise "
                                   "RLIMIT_NOFILE"));
        }
        return AG_ORDER_NONE;
    }
    (void)close(w->channel);
    w->channel = -1;
    return AG_ORDER_GONE;
}

void ag_worker_tell(struct ag_worker *w, enum ag_channel_type type, uint32_t generation,
                    struct ag_span text)
{
    struct ag_channel_msg *m = &w->msg;

    if (w->channel < 0) {
        return;
    }
    m->type = type;
    m->generation = generation;
    m->count = m->fd_count = 0;
    m->text_len = (uint32_t)ag_min_size(text.len, sizeof(m->text));
    if (m->text_len) {
        memmove(m->text, text.ptr, m->text_len);
    }
    (void)!ag_channel_send(w->channel, m);
}

/* ---- loading ---- */

void ag_worker_load(struct ag_worker *w, const struct ag_config_input *input, struct ag_load *out,
                    struct ag_buf *why)
{
    struct ag_config_input in = *input;

    *out = (struct ag_load){0};
    in.opener = ag_bundle_open(&w->bundle);
    if (!in.opener) {
        ag_buf_printf(why, "what the master sent is not whole");
        ag_bundle_close(&w->bundle);
        return;
    }
    if (w->chroot) {
        ag_opener_pin(in.opener);
    }
    ag_load_config(out, &in);
    ag_opener_free(in.opener);
    if (!out->snapshot) {
        ag_bundle_close(&w->bundle);
    }
}

/* ---- privileges ---- */

static enum ag_status filter(const struct ag_worker *w, const char **out_state,
                             const char **out_why)
{
    enum ag_status st;

    *out_state = "off";
    if (w->seccomp == AG_CONFINE_OFF) {
        return AG_OK;
    }
    st = ag_seccomp_apply(AG_SECCOMP_WORKER, w->seccomp == AG_CONFINE_LOG, out_why);
    if (st == AG_OK) {
        *out_state = w->seccomp == AG_CONFINE_LOG ? "log" : "on";
    } else if (w->seccomp == AG_CONFINE_AUTO) {
        ag_log(AG_LOG_WARN, "system calls are not filtered: %s", *out_why);
        st = AG_OK;
    }
    return st;
}

/* Whether the user may make files to buffer in. */
static bool may_buffer(const struct ag_worker *w, struct ag_buf *why)
{
    int fd, error = ag_file_make_now(w->folder, &fd);

    if (error == 0) {
        (void)close(fd);
        return true;
    }
    ag_buf_printf(why, "user %u can make no file in the folder of proxy.buffer: %s", w->user->uid,
                  strerrordesc_np(error));
    return false;
}

enum ag_status ag_worker_drop(struct ag_worker *w, const char **out_why)
{
    const char *seccomp;
    static char text[200]; /* the caller is the one control thread */
    struct ag_buf why = ag_buf(text, sizeof(text) - 1);

    if (ag_privilege_drop(w->user, w->chroot, &why) != AG_OK) {
        text[why.len] = '\0';
        *out_why = text;
        return AG_ESYS;
    }
    /* Root could, at the start of the configuration. */
    if (w->folder >= 0 && !may_buffer(w, &why)) {
        text[why.len] = '\0';
        *out_why = text;
        return AG_ESYS;
    }
    enum ag_status st = filter(w, &seccomp, out_why);
    if (st == AG_OK) {
        ag_log(AG_LOG_INFO, "runs as %u:%u, chroot %s, seccomp %s, Landlock %s", w->user->uid,
               w->user->gid, w->chroot ? w->chroot : "none", seccomp,
               w->landlock ? "on" : "not to be had");
    }
    return st;
}

/* ---- life ---- */

/* The first configuration; false: the master is gone, or has thought better of it. */
static bool await_bundle(struct ag_worker *w)
{
    struct pollfd fd = {.fd = w->channel, .events = POLLIN};

    for (;;) {
        enum ag_worker_order order = ag_worker_read(w);

        if (order == AG_ORDER_LOAD) {
            return true;
        }
        if (order != AG_ORDER_NONE) {
            return false;
        }
        (void)poll(&fd, 1, -1);
    }
}

int ag_worker_run(struct ag_worker *w, const struct ag_config_input *input)
{
    char text[256];
    struct ag_buf why = ag_buf(text, sizeof(text));
    struct ag_privilege_report report = {0};
    struct ag_load load;

    (void)pthread_setname_np(pthread_self(), "anygate-worker");
    if (!await_bundle(w)) {
        ag_bundle_close(&w->bundle);
        return AG_EXIT_ERROR;
    }
    ag_worker_load(w, input, &load, &why);
    if (!load.snapshot) {
        ag_load_print(&load, AG_DIAG_HUMAN);
        (void)fprintf(stderr, "anygate: error: the worker cannot load what the master has: %.*s\n",
                      (int)why.len, text);
        ag_load_release(&load);
        return AG_EXIT_ERROR;
    }
    w->folder = ag_proxy_folder_fd(load.snapshot->shared[AG_ACTION_PROXY]);
    if (ag_privilege_bind_hands(w->folder, &report, &why) != AG_OK) {
        (void)fprintf(stderr, "anygate: error: %.*s\n", (int)why.len, text);
        ag_load_release(&load);
        return AG_EXIT_ERROR;
    }
    w->landlock = report.landlock;
    return ag_server_run(input, load.snapshot, w);
}
