/*
 * listener: a listening socket of one shard (SO_REUSEPORT for TCP; unix sockets are shared by
 * descriptor), its multishot accept, and the pause at the limit. Accept begins sparing: whoever has room for a
 * whole queue of connections says so.
 */
#pragma once
#include "engine/loop.h"

struct ag_listener;

struct ag_listener {
    struct ag_loop *loop;
    struct ag_fd fd;
    struct ag_op op;
    struct ag_timer retry; /* arms accept again after EMFILE and the like */
    void (*accepted)(struct ag_listener *, int fd);
    void (*closed)(struct ag_listener *); /* after ag_listener_close; may free */
    void *user;
    union ag_addr addr; /* the bound address, real port */
    enum ag_accept_way way;
    bool paused, closing, deferred;
};

/* Opens, binds and listens; blocking, for start-up.
 *   backlog     0: it is bound alone, and takes nothing before listen(2)
 *   reuse_port  several shards bind the same TCP address; a unix path is unlinked first when it is a
 *               dead socket
 *   out_error   errno of the failing step;  out_step: "socket", "bind", "listen" (static)
 * AG_ESYS, AG_EACCES. */
AG_MUST_USE enum ag_status ag_listener_bind(const union ag_addr *addr, bool reuse_port, int backlog,
                                            int *out_fd, int *out_error, const char **out_step);
/* Starts accepting on `fd` (taken over). TCP_NODELAY is set on what is accepted. */
void ag_listener_open(struct ag_listener *ls, struct ag_loop *l, int fd,
                      void (*accepted)(struct ag_listener *, int fd));
/* At the connection limit; resume when there is room. Where not sparing, those that were accepted by then still
 * come. */
void ag_listener_pause(struct ag_listener *ls);
void ag_listener_resume(struct ag_listener *ls);
/* From now on, as soon as what is under way has come. */
void ag_listener_set_way(struct ag_listener *ls, enum ag_accept_way way);
/* TCP: whether connections are let in when their first bytes have come, or have not for a second (TCP_DEFER_ACCEPT). Not
 * for what speaks first. */
void ag_listener_set_deferred(struct ag_listener *ls, bool deferred);
/* Cancels accept, serves its last completions, closes, calls `closed`. */
void ag_listener_close(struct ag_listener *ls, void (*closed)(struct ag_listener *));
