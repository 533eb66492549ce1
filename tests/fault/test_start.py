"""A server that cannot have what it needs at its start says so and ends, or does without."""
import errno
import os
import re
import time

import pytest
from faults import SITES_MAX, Table
from gate import BINARY, Closed, Gate, run
from test_calls import SITES

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
    "listen": ("epoll", "EADDRINUSE", (1,), ENDS),
    "getsockname": ("epoll", "ENOBUFS", (1,), SERVES),
    # the self-test and the shard's ring
    "calloc.choose": ("io_uring", "ENOMEM", (1,), ENDS),
    "socketpair": ("io_uring", "EMFILE", (1,), ENDS),
    "calloc.uring": ("io_uring", "ENOMEM", (1, 2), ENDS),
    "uring.setup": ("io_uring", "EPERM", (1, 2), ENDS),
    "uring.register": ("io_uring", "EINVAL", (1, 2, 3, 4), ENDS),
    "mmap.uring": ("io_uring", "ENOMEM", (1, 2, 3, 4), ENDS),
}
# What another test makes fail.
ELSEWHERE = {"tcp_info", "dns.connect", "dns.recvfrom", "dns.sendmsg", "poll", "uring.cqe.poll"}


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


def test_every_site_is_made_to_fail(tmp_path):
    table = Table(tmp_path / "table")
    assert run("version", env={"ANYGATE_FAULT_TABLE": str(table.path)}).returncode == 0
    table.read()
    known = set(START) | ELSEWHERE | set(SITES["epoll"]) | set(SITES["io_uring"])
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
