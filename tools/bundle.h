/*
 * bundle: a configuration as a master hands it to its worker: the answers that its load got from the
 * system (engine/opener.h), and the sockets that are new with it.
 *
 *   memory file:   [ head | sockets: address, descriptors, shared | answers ]     sealed: cannot change
 *   descriptors:   [ directories, as the answers count them | listening sockets, in order ]
 *
 * A directory that is served is passed as a mount of its own, read-only, where the worker is confined to
 * a root of its own (chroot): through a plain descriptor ".." would lead out of there.
 */
#pragma once
#include "engine/opener.h"
#include "tools/channel.h"
#include "tools/sockets.h"

#include <sys/stat.h>

/* ---- the master's side ---- */

/* Makes mounts of their own of the directories, to be read alone but for `writable` (NULL: none is), which is known
 * by its device and inode. False: some could not be (no such right here, or an old kernel), and stay as they are. */
bool ag_bundle_detach(struct ag_opener *answers, const struct stat *writable);
/* Sends what `answers` holds and the fresh ones of `sockets` over `end`. AG_OK, or with the reason
 * appended to `why`: AG_AGAIN (the worker does not read), AG_ENOENT (it is gone), AG_ESYS. */
AG_MUST_USE enum ag_status ag_bundle_send(int end, uint32_t generation, struct ag_opener *answers,
                                          const struct ag_sockets *sockets, struct ag_buf *why);

/* ---- the worker's side ---- */

/* All zero is empty. */
struct ag_bundle {
    uint32_t generation;
    bool begun;
    int memory_fd;
    int *fds; /* malloc */
    uint32_t fd_count, fd_expected;
    /* once opened: the memory file, and which descriptors are sockets */
    const uint8_t *map;
    size_t map_bytes;
    uint32_t first_socket_fd;
};

/* Takes a BUNDLE or DESCRIPTORS message with its descriptors; a new BUNDLE drops what there was. AG_OK:
 * the bundle is whole. AG_AGAIN: more is to come. AG_EPROTO: it makes no sense, and is dropped. */
AG_MUST_USE enum ag_status ag_bundle_take(struct ag_bundle *b, const struct ag_channel_msg *m);
/* Of a whole one: its answers, to be loaded from, which point into it. NULL: not a bundle of this
 * program's. */
AG_MUST_USE struct ag_opener *ag_bundle_open(struct ag_bundle *b);
/* Of an opened one: adds its sockets, not committed, and closes it. */
void ag_bundle_adopt(struct ag_bundle *b, struct ag_sockets *sockets);
/* Gives back what is left of it. */
void ag_bundle_close(struct ag_bundle *b);
