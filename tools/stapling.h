/*
 * stapling: OCSP responses for the certificates that are served, fetched ahead and kept fresh (RFC 6960, RFC 6066
 * section 8). The control thread's, but for the asking, which a shard does over its upstream pools.
 *
 *   follow --> an entry a certificate --due: asked--> response --good--> stapled; due again half way to its end
 *                                           \-- none, or not good --> told; due again later; what is stapled
 *                                                                     stays until its own end
 *
 * One certificate is asked about at a time. Responses outlive a reload that keeps the certificate.
 */
#pragma once
#include "proto/client.h"
#include "router/snapshot.h"

struct ag_stapling_entry;
struct ag_stapling_question;

/* What it needs of who runs it. */
struct ag_stapling_ops {
    /* To the asking shard's loop; false: it has ended. */
    bool (*post)(void *owner, struct ag_msg *);
    /* Any thread: ag_stapling_turn is to be called. */
    void (*wake)(void *owner);
};

struct ag_stapling {
    const struct ag_stapling_ops *ops;
    void *owner;
    struct ag_context *context; /* the asking shard's */
    const struct ag_snapshot *snapshot;
    struct ag_stapling_entry *entries; /* malloc */
    uint32_t count;
    _Atomic(struct ag_stapling_question *) question; /* the one that is asked; NULL: none is */
};

void ag_stapling_init(struct ag_stapling *s, const struct ag_stapling_ops *ops, void *owner,
                      struct ag_context *context);
/* After the shards have ended. */
void ag_stapling_deinit(struct ag_stapling *s);
/* `snapshot` is about to be served, its TLS objects made; responses that are here are stapled at once. */
void ag_stapling_follow(struct ag_stapling *s, const struct ag_snapshot *snapshot);
/* The sooner of `wait_ms` and what there is to do here; -1: for ever. */
int ag_stapling_wait_ms(const struct ag_stapling *s, int wait_ms);
/* After each poll: takes an answer, asks what is due, drops what has ended. */
void ag_stapling_turn(struct ag_stapling *s);
/* On the asking shard's thread, before its actions close: whatever it asks is given up. */
void ag_stapling_leave(struct ag_stapling *s);
