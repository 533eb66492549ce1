"""A server that cannot have what it needs at its start says so and ends, or does without."""
import errno
import os
import re
import signal
import time

import pytest
from faults import SITES_MAX, Rig, Table
from gate import BINARY, Closed, Gate, free_port, run
from test_calls import SITES, TLS_SITES

FULL = bool(os.environ.get("FAULT_FULL"))
CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes: {"/fixed": OK fixed}
"""

# site: backend asked for, errno, calls to fail in turn, what becomes of it
ENDS, SERVES = "ends", "serves"
START = {
    "calloc.shards": ("epoll", "ENOMEM", (1,), ENDS),
    "thread.shard": ("epoll", "EAGAIN", (1,), ENDS),
    "thread.log": ("epoll", "EAGAIN", (1,), ENDS),
    "calloc.log": ("epoll", "ENOMEM", (1, 2), (ENDS, SERVES)),  # the second: a shard shares the first
    "thread.helper": ("epoll", "EAGAIN", (1, 3), SERVES),  # files are read by the shard itself
    "calloc.helpers": ("epoll", "ENOMEM", (1,), SERVES),
    "calloc.resolver": ("epoll", "ENOMEM", (1,), ENDS),
    "calloc.pipes": ("epoll", "ENOMEM", (1,), ENDS),
    "calloc.buffers": ("epoll", "ENOMEM", (1, 2, 3, 4, 5), ENDS),
    "mmap.buffers": ("epoll", "ENOMEM", (1, 2), ENDS),
    "mmap.pool": ("epoll", "ENOMEM", (1, 2, 3, 4, 5, 6, 7), ENDS),
    "eventfd": ("epoll", "EMFILE", (1,), ENDS),
    "calloc.epoll": ("epoll", "ENOMEM", (1,), ENDS),
    "mmap.epoll": ("epoll", "ENOMEM", (1,), ENDS),
    "epoll_create": ("epoll", "EMFILE", (1,), ENDS),
    "listen.socket": ("epoll", "EMFILE", (1,), ENDS),
    "listen.setsockopt": ("epoll", "ENOBUFS", (1, 2), ENDS),
    "bind": ("epoll", "EADDRNOTAVAIL", (1,), ENDS),
    "listen": ("epoll", "ENOBUFS", (1,), ENDS),
    "getsockname": ("epoll", "ENOBUFS", (1,), SERVES),
    # the self-test and the shard's ring
    "calloc.choose": ("io_uring", "ENOMEM", (1,), ENDS),
    "socketpair": ("io_uring", "EMFILE", (1,), ENDS),
    "calloc.uring": ("io_uring", "ENOMEM", (1, 2), ENDS),
    "uring.setup": ("io_uring", "EPERM", (1, 2), ENDS),
    "uring.register": ("io_uring", "EINVAL", (1, 2, 3, 4), ENDS),
    "mmap.uring": ("io_uring", "ENOMEM", (1, 2, 3, 4), ENDS),
    "uring.restrict": ("io_uring", "ENOMEM", (1, 2), ENDS),
}
# site: errnos, calls to fail in turn, at a reload that adds a listener and a folder
RELOAD = {
    "load.open": (("EMFILE", "ENFILE", "ENOMEM", "EACCES"), (1,)),
    "load.fstat": (("EIO", "ENOMEM"), (1, 2, 3)),
    "load.read": (("EIO", "EINTR"), (1,)),
    "load.dir": (("EMFILE", "ENFILE", "ENOMEM"), (1, 2)),
    "listen.socket": (("EMFILE", "ENFILE", "ENOBUFS"), (1,)),
    "listen.setsockopt": (("ENOBUFS",), (1, 2)),
    "bind": (("ENOBUFS", "ENOMEM"), (1,)),
    "listen": (("ENOBUFS",), (1,)),
}
# What another test makes fail.
ELSEWHERE = {"tcp_info", "so_linger", "load.stat", "load.dup", "log.direct", "dns.connect", "dns.recvfrom", "dns.sendmsg", "poll", "uring.cqe.poll",
             "openat2.make", "pwritev", "pwritev.short"}


def outcome(gate):
    """ENDS or SERVES."""
    deadline = time.monotonic() + 20
    while gate.process.poll() is None:
        try:
            assert gate.get("/fixed").body == b"fixed"
            return SERVES
        except (OSError, Closed):  # it binds before all else is there
            assert time.monotonic() < deadline, gate.stderr()
            time.sleep(0.01)
    return ENDS


def check(folder, backend, fault, expected):
    gate = Gate(folder, CONFIG, backend, env={"ANYGATE_FAULT": fault}, wait=False)
    try:
        got = outcome(gate)
        gate.stop(expect=0 if got == SERVES else 1)
    finally:
        if gate.process.poll() is None:
            gate.process.kill()
            gate.process.wait()
    text = (folder / "stderr.log").read_text()
    assert got == expected, text
    assert got == SERVES or re.search(r"(?i)\berror\b|cannot", text), text


CASES = [(site, nth, expected if isinstance(expected, str) else expected[i])
         for site, (_, _, calls, expected) in START.items() for i, nth in enumerate(calls)]


@pytest.mark.parametrize("site, nth, expected", CASES)
def test_a_start_that_fails_is_explained(tmp_path, site, nth, expected):
    backend, name, _, _ = START[site]
    check(tmp_path, backend, f"{site}={name}@{nth}", expected)


@pytest.mark.parametrize("fault, expected", [("bind=EADDRINUSE+9", SERVES), ("listen=EADDRINUSE+9", SERVES),
                                             ("bind=EADDRINUSE+999", ENDS)])
def test_an_address_that_is_let_go_of_is_waited_for(tmp_path, fault, expected):
    check(tmp_path, "epoll", fault, expected)


@pytest.mark.parametrize("fault", ["calloc.choose=ENOMEM", "uring.setup=ENOSYS", "uring.setup=EPERM",
                                   "uring.register=EINVAL", "mmap.uring=ENOMEM", "socketpair=EMFILE",
                                   "uring.cqe.recv=EINVAL", "uring.cqe.send=EINVAL",
                                   "uring.get_sqe=ENOMEM+3"])
def test_without_io_uring_epoll_serves(tmp_path, fault):
    check(tmp_path, "auto", fault, SERVES)
    text = (tmp_path / "stderr.log").read_text()
    assert "with epoll (" in text, text


def test_little_locked_memory_makes_a_smaller_ring(tmp_path):
    check(tmp_path, "io_uring", "uring.setup=ENOMEM@2", SERVES)


def reload(rig, text):
    """What the log says of it."""
    config = rig.gate.folder / "anygate.yml"
    before = len(rig.gate.stderr())
    config.write_text(text)
    rig.gate.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while not (said := re.search(r"reloaded: |reload refused: .*", rig.gate.stderr()[before:])):
        assert time.monotonic() < deadline and rig.gate.process.poll() is None, rig.gate.stderr()
        time.sleep(0.005)
    return said[0]


def test_a_reload_that_fails_leaves_all_as_it_was(tmp_path):
    rig = Rig(tmp_path, "epoll")
    rig.warm()
    (tmp_path / "more").mkdir()
    old = (tmp_path / "anygate.yml").read_text()
    new = old.replace("listen: [", f'listen: ["127.0.0.1:{free_port()}", ') + f'  "/more": {tmp_path}/more/\n'
    for site, (names, calls) in RELOAD.items():
        for name in names:
            for nth in calls:
                before = rig.table.failed(site)
                rig.table.arm(site, getattr(errno, name), nth)
                said = reload(rig, new)
                rig.table.disarm(site)
                assert rig.table.failed(site) == before + 1, (site, nth)
                # A folder that is not to be had is none that is missing for ever.
                assert site in ("load.dir", "load.fstat") or name == "EINTR" or "refused" in said, (site, name)
                rig.pipelined()
                if "refused" not in said:
                    assert "reloaded" in reload(rig, old)
                rig.pipelined()
                rig.settle()
    assert "reloaded" in reload(rig, new) and "reloaded" in reload(rig, old)
    rig.warm()
    rig.close()


def test_every_site_is_made_to_fail(tmp_path):
    table = Table(tmp_path / "table")
    assert run("version", env={"ANYGATE_FAULT_TABLE": str(table.path)}).returncode == 0
    table.read()
    known = set(START) | set(RELOAD) | ELSEWHERE | set(SITES["epoll"]) | set(SITES["io_uring"]) | set(TLS_SITES)
    assert set(table.at) == known
    assert len(table.at) < SITES_MAX


def test_a_mistake_in_the_variable_is_told(tmp_path):
    for spec in ("nothing=EIO", "bind", "bind=ENONSENSE", "bind=EIO@0", "bind=EIO@1x"):
        done = run("version", env={"ANYGATE_FAULT": spec})
        assert done.returncode == 2 and "ANYGATE_FAULT" in done.stderr, spec


def test_the_release_binary_has_none_of_it():
    """No test of a release build is run by `make test`; so it is looked at where there is one."""
    release = os.path.join(os.path.dirname(os.path.dirname(BINARY)), "anygate")
    if not os.path.exists(release):
        pytest.skip("no release build here")
    with open(release, "rb") as f:
        assert b"ANYGATE_FAULT" not in f.read()


assert {getattr(errno, s[1]) for s in START.values()}  # all of them are real
