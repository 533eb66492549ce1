"""Every system call of the engine fails in turn, in the middle of work.

Run by `make fault` (FAULT_FULL=1) each call of each site fails, in a process for each site, so that what
is left over at its end is that site's; `make test` takes some of the calls, in one process.
"""
import errno
import os

import pytest
from faults import Rig

FULL = bool(os.environ.get("FAULT_FULL"))

MEMORY = ("ENOMEM", "ENOBUFS")
GONE = ("ECONNRESET", "EPIPE", "ETIMEDOUT")
DESCRIPTORS = ("EMFILE", "ENFILE")
SHORT = ("EIO",)  # whatever the errno, such a site is a short count

# What a call may say, and of which calls of it `make test` tries each (all that there are in full).
BOTH = {
    "buffer": (MEMORY[:1], (1, 2, 3, 5, 8, 13, 21, 34)),
    "pool_get": (MEMORY[:1], (1, 2, 3, 5, 8, 12, 17, 25, 40, 70, 120, 200)),
    "preadv": (("EINTR", "EAGAIN", "EIO", "EOPNOTSUPP"), (1, 3)),
    "preadv.short": (SHORT, (1, 3)),
    "preadv.touch": (("EINTR", "EAGAIN", "EIO", "EOPNOTSUPP"), (1, 7)),
    "openat2": ((*DESCRIPTORS, "ENOMEM", "EINTR", "EAGAIN", "EIO", "ENOSYS", "EACCES"), (1,)),
    "openat": ((*DESCRIPTORS, "ENOMEM", "EINTR", "EIO", "EACCES"), (1, 2)),
    "file.cold": (("EAGAIN",), (1, 2)),
    "fstat": (("EIO", "ENOMEM"), (1,)),
    "sendfile": (("EINTR", "EIO", "ENOMEM", *GONE), (1, 3)),
    "sendfile.short": (SHORT, (1, 2)),
    "pipe": ((*DESCRIPTORS, "ENOMEM"), (1, 2)),
    "splice.in": (("EINTR", "EINVAL", "EPERM", "ENOMEM", *GONE), (1, 3)),
    "splice.in.short": (SHORT, (1, 2)),
    "splice.out": (("EINTR", "ENOMEM", *GONE), (1, 3)),
    "splice.out.short": (SHORT, (1, 2)),
    "getpeername": (("ENOTCONN", "ENOBUFS"), (1,)),
    "siocoutq": (("EINVAL",), (1,)),
    "tcp_nodelay": (("ENOBUFS",), (1,)),
    "tcp_lowat": (("ENOBUFS",), (1,)),
    "shutdown": (("ENOTCONN",), (1,)),
    "socket": ((*DESCRIPTORS, *MEMORY), (1,)),
    "log.write": (("EAGAIN", "EINTR", "ENOSPC", "EPIPE", "EIO"), (1,)),
}
SITES = {
    "epoll": {
        **BOTH,
        "buffer.recv": (MEMORY[1:], (1, 2, 5, 20)),
        "accept": ((*DESCRIPTORS, *MEMORY, "ECONNABORTED", "EINTR", "EPERM"), (1, 3)),
        "recv": (("EINTR", *GONE, *MEMORY), (1, 12, 40)),
        "recv.short": (SHORT, (1, 2, 30)),
        "send": (("EINTR", *GONE, *MEMORY), (1, 20)),
        "send.short": (SHORT, (1, 6, 20)),
        "sendmsg": (("EINTR", *GONE, *MEMORY), (1, 10)),
        "sendmsg.short": (SHORT, (1, 5, 15)),
        "connect": (("ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT", "EADDRNOTAVAIL", *MEMORY), (1,)),
        "so_error": (("ENOBUFS",), (1,)),
        "epoll_ctl": (("ENOMEM", "ENOSPC"), (1, 2, 3, 4, 5, 6)),
        "epoll_wait": (("EINTR",), (1, 2, 9, 20)),
    },
    "io_uring": {
        **BOTH,
        "uring.enter": (("EINTR", "EAGAIN", "EBUSY", "ENOMEM"), (1, 2, 9, 20)),
        "uring.get_sqe": (("ENOMEM",), (1, 2, 3, 5, 8, 13, 21, 34, 45)),
        "uring.cancel": (("ENOMEM",), (1, 3, 8, 9)),
        "uring.addrs": (("ENOMEM",), (1,)),
        "send": (("EINTR", *GONE, *MEMORY), (3,)),
        "sendmsg": (("EINTR", *GONE, *MEMORY), (5,)),
        "uring.send.short": (SHORT, (1, 4)),
        "uring.sendmsg.short": (SHORT, (1, 5, 15)),
        "uring.cqe.accept": ((*DESCRIPTORS, *MEMORY, "ECONNABORTED", "EINTR"), (1, 3)),
        "uring.cqe.recv": (("EINTR", *GONE, *MEMORY), (1, 12, 40)),
        "uring.cqe.send": (("EINTR", *GONE, *MEMORY), (1, 6, 20)),
        "uring.cqe.sendfile": (("ENOMEM",), (1,)),
        "uring.cqe.connect": (("ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT", *MEMORY), (1,)),
    },
}
# What nobody may notice: the call is made again, or something else takes its place.
HARMLESS = {
    # But a send that has sent all cannot be said to be interrupted, and is only made to look so.
    "EINTR": set(SITES["epoll"]) | set(SITES["io_uring"]) - {"uring.cqe.send"},
    "EAGAIN": {"preadv", "preadv.touch", "file.cold", "log.write", "uring.enter"},
    "EBUSY": {"uring.enter"},
    "ENOMEM": {"uring.enter", "uring.cancel", "uring.addrs", "accept", "pipe"},
    "ENOBUFS": {"buffer.recv", "uring.cqe.recv", "accept", "uring.cqe.accept", "getpeername", "tcp_nodelay",
                "tcp_lowat"},
    "EMFILE": {"accept", "uring.cqe.accept", "pipe"},
    "ENFILE": {"accept", "uring.cqe.accept", "pipe"},
    "ECONNABORTED": {"accept", "uring.cqe.accept"},
    "EPERM": {"accept", "splice.in"},
    "EOPNOTSUPP": {"preadv", "preadv.touch"},
    "ENOSYS": {"openat2"},
    "EINVAL": {"siocoutq", "splice.in"},
    "ENOTCONN": {"getpeername", "shutdown"},
    "EIO": {"log.write", *(s for sites in SITES.values() for s in sites if s.endswith(".short"))},
    "ENOSPC": {"log.write"},
    "EPIPE": {"log.write"},
}
# What must fail all the time for a site to be come to.
WITH = {
    ("epoll", "openat"): ("openat2", errno.ENOSYS),  # an old kernel: the path is walked
    ("io_uring", "openat"): ("openat2", errno.ENOSYS),
    ("io_uring", "send"): ("uring.send.short", errno.EIO),  # what is left goes by tries
    ("io_uring", "sendmsg"): ("uring.sendmsg.short", errno.EIO),
}
CASES = [(backend, site) for backend, sites in SITES.items() for site in sites]


# What HTTP/2 and TLS do with the same calls: the first errno of each site, at some of its calls.
OTHERS = [(kind, backend, site) for kind in ("h2", "tls") for backend, site in CASES]
TLS_SITES = ("tls.shake", "tls.session", "tls.names", "tls.file")  # memory of its own, each ENOMEM
OTHERS += [("tls", backend, site) for backend in SITES for site in TLS_SITES]


@pytest.fixture(scope="module")
def rigs(tmp_path_factory):
    rigs = {}
    yield rigs
    for rig in rigs.values():
        rig.close(check=False)


def rig_of(rigs, backend, folder, kind="h1", leaf=None):
    key = kind, backend
    if key in rigs and (FULL or rigs[key].gate.process.poll() is not None):
        rigs.pop(key).close(check=False)
    if key not in rigs:
        rigs[key] = Rig(folder, backend, kind=kind, leaf=leaf)
        rigs[key].warm()
    return rigs[key]


@pytest.mark.parametrize("backend, site", CASES)
def test_a_failing_call_harms_no_other(rigs, tmp_path, backend, site):
    rig = rig_of(rigs, backend, tmp_path)
    always, error = WITH.get((backend, site), (None, 0))
    if always:
        rig.table.arm(always, error, 1, 1 << 30)
    try:
        fail_all(rig, backend, site)
    finally:
        if always:
            rig.table.disarm(always)
    if FULL:
        rig.gate.stop()


def fail_all(rig, backend, site):
    before = rig.table.hits(site)
    rig.warm()
    names, some = SITES[backend][site]
    per_work = rig.table.hits(site) - before
    assert per_work > 0, f"the work does not come to {site}"
    calls = [n for n in (range(1, per_work + 1) if FULL else some) if n <= per_work]
    missed = 0
    for name in names:
        for nth in calls:
            harmless = site in HARMLESS.get(name, ())
            missed += not rig.inject(site, getattr(errno, name), nth, harmless=harmless)
    # How many calls a piece of work makes depends on how the kernel cuts its bytes, so the last ones may
    # not be reached.
    assert missed <= len(names) * len(calls) // 2
    assert rig.inject(site, getattr(errno, names[0]), 1, 3), f"{site} was never made to fail"


@pytest.mark.parametrize("kind, backend, site", OTHERS)
def test_nor_over_others(rigs, tmp_path, certs, kind, backend, site):
    """The same over HTTP/2, and over TLS."""
    rig = rig_of(rigs, backend, tmp_path, kind, certs.leaf("fault", ["a.example"]))
    always, error = WITH.get((backend, site), (None, 0))
    if always:
        rig.table.arm(always, error, 1, 1 << 30)
    try:
        before = rig.table.hits(site)
        rig.warm()
        per_work = rig.table.hits(site) - before
        if per_work == 0:
            return  # it does without
        names = SITES[backend].get(site, (MEMORY[:1],))[0]
        for name in names if FULL else names[:1]:
            for nth in range(1, per_work + 1) if FULL else sorted({1, per_work // 3 + 1, per_work * 3 // 4 + 1}):
                rig.inject(site, getattr(errno, name), nth, harmless=site in HARMLESS.get(name, ()))
    finally:
        if always:
            rig.table.disarm(always)
    if FULL:
        rig.gate.stop()


def test_a_cancel_that_finds_no_room_is_tried_again(tmp_path):
    """With nothing else to wake the shard for it: who drains has only cancels left."""
    rig = Rig(tmp_path, "io_uring")
    try:
        rig.warm()
        rig.table.arm("uring.cancel", errno.ENOMEM, 1, 40)
        rig.gate.stop()
        assert rig.table.failed("uring.cancel") > 1
    finally:
        rig.close(check=False)


@pytest.mark.parametrize("kind", ["h1", "h2", "tls"])
@pytest.mark.parametrize("backend", SITES)
def test_nothing_is_left_of_all_this(rigs, tmp_path, certs, backend, kind):
    """Each pool asserts at its end that all it gave is back."""
    rig_of(rigs, backend, tmp_path, kind, certs.leaf("fault", ["a.example"]))
    rigs.pop((kind, backend)).close()
