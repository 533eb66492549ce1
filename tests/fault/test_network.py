"""Clients, gateway and upstream in network namespaces of their own, joined by links that lose, reorder,
double and delay packets, and that part (relay.py). Real TCP in between: every byte must be the right one.
"""
import errno
import hashlib
import random
import threading
import time
from contextlib import suppress

import pytest
from faults import Rig
from gate import Closed
from relay import Net
from test_calls import FULL
from work import BLOB, LARGE, Answers, exchange, get, post

SEED = random.randrange(1 << 32)
CONFIG = """
server:
  listen: ["0.0.0.0:$PORT"]
  workers: 1
  drain_timeout: 5s
  # Short clocks hold where they are what is tested alone: any of the parties may stand still for seconds.
  limits: {header_timeout: 1h, idle_timeout: 1h, body_timeout: 1h, write_timeout: 1h}
static: {cache: {max_file: 64k}}
routes:
  "/fixed": OK fixed
  "/echo": "*"
  "/files/*": "$FILES/*"
  "/up/*":
    action: "http://$HOST:$UP"
    timeouts: {connect: 1m}
  "/hasty/*":
    action: "http://$HOST:$UP"
    timeouts: {connect: 700ms, first_byte: 1s, read: 1s, write: 1s}
  "/begun/*":
    action: "http://$HOST:$UP"
    timeouts: {connect: 1m, first_byte: 1m, read: 1s}
  "/leaving/files/*":
    action: "$FILES/*"
    limits: {write_timeout: 2s}
  "/leaving/up/*":
    action: "http://$HOST:$UP"
    timeouts: {connect: 1m}
    limits: {body_timeout: 2s}
"""
BAD = {"loss": 0.02, "double": 0.02, "reorder": 0.15, "delay_ms": 1}


@pytest.fixture(scope="module")
def net():
    try:
        net = Net("cgu", SEED)
    except OSError as e:
        pytest.skip(f"no network namespaces or TUN devices here: {e}")
    print(f"seed {SEED}")
    yield net
    net.close()


class NetRig(Rig):
    """A rig whose three parties are in three namespaces."""

    def __init__(self, folder, backend, net):
        self.net = net
        with net.inside("u"):
            super().__init__(folder, backend, config=CONFIG.replace("$HOST", net.address("u")), host=net.address("u"),
                             address=net.address("g"),
                             wrap=["ip", "netns", "exec", net.name("g")], wait=False)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.ask((get("/fixed"), b"fixed"))
                self.table.read()
                return
            except (OSError, Closed):
                assert time.monotonic() < deadline, self.gate.stderr()
                time.sleep(0.02)

    def inside(self):
        return self.net.inside("c")


@pytest.fixture(scope="module")
def rig(backend, net, tmp_path_factory):
    for letter in "cgu":
        net.link(letter)
    rig = NetRig(tmp_path_factory.mktemp("net"), backend, net)
    rig.warm()
    yield rig
    rig.close()


@pytest.fixture(autouse=True)
def whole(rig, net):
    """Whatever a test does: on good links all is served, and nothing is left."""
    yield
    for letter in "cgu":
        net.link(letter)
    assert rig.work() == []
    rig.settle()


def at_once(*steps):
    """Runs them in threads of their own; the first that failed tells."""
    failed = []

    def run(step):
        try:
            step()
        except BaseException as e:  # told below
            failed.append(e)

    threads = [threading.Thread(target=run, args=(s,)) for s in steps]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("ends", ["c", "u", "cu"] if FULL else ["cu"])
def test_every_byte_arrives_through_loss_and_reordering(rig, net, ends):
    digest = hashlib.sha256(BLOB).hexdigest().encode()
    for letter in ends:
        net.link(letter, **BAD)
    at_once(lambda: rig.ask((get("/files/large.bin"), LARGE)),
            lambda: rig.ask((get("/up/700000"), BLOB[:700000]), (get("/up/chunked/700000"), BLOB[:700000])),
            lambda: rig.ask((post("/up/a", BLOB), digest), (post("/up/b", BLOB, True), digest)),
            rig.tunnel, rig.tunnel,
            *[rig.pipelined] * 4)


@pytest.mark.parametrize("letter", ["c", "u"])
def test_a_short_partition_is_bridged(rig, net, letter):
    def part():
        time.sleep(0.05)
        net.link(letter, parted=True)
        time.sleep(0.4)
        net.link(letter)

    digest = hashlib.sha256(BLOB).hexdigest().encode()
    rig.ask((get("/up/1"), BLOB[:1]))
    net.link(letter, delay_ms=5)
    at_once(part, lambda: rig.ask((get("/files/large.bin"), LARGE)),
            lambda: rig.ask((get("/up/2000000"), BLOB[:2000000])),
            lambda: rig.ask((post("/up/a", BLOB), digest)))


def slow_start(rig, request, take):
    """A connection whose answer has begun: `take` bytes of it were read."""
    s = rig.connect(slow=True)  # the rest must not fit into sockets
    s.sendall(request)
    r = Answers(s)
    r.until(b"\r\n\r\n")
    r.exactly(take)
    return s, r


def test_an_upstream_behind_a_partition_is_504_or_cut(rig, net):
    """A new connection, one that was in use before, and an answer that has begun."""
    rig.settle()
    s, r = slow_start(rig, get("/begun/2000000"), 1000)
    idle = rig.connect()
    exchange(idle, Answers(idle), get("/up/10"), "GET", BLOB[:10])
    net.link("u", parted=True)
    try:
        idle.sendall(get("/hasty/10"))
        with rig.client() as (fresh, fresh_reader):
            fresh.sendall(get("/hasty/10"))
            assert fresh_reader.response().status == 504
        assert Answers(idle).response().status == 504
        with pytest.raises((Closed, ConnectionError)):
            while True:
                r.exactly(65536)
    finally:
        s.close()
        idle.close()


def test_a_client_behind_a_partition_is_let_go(rig, net, backend):
    """While its answer is written and while its content is read: each by its own clock."""
    if backend == "epoll":  # both ask the same: once without what TCP tells of acknowledged bytes
        rig.table.arm("tcp_info", errno.ENOPROTOOPT, 1, 1 << 30)
    before = rig.table.hits("tcp_info")
    s, _ = slow_start(rig, get("/leaving/files/large.bin"), 1000)
    up = rig.connect()
    with suppress(ConnectionError):  # whoever stands still meanwhile is let go, too
        up.sendall(post("/leaving/up/a", BLOB)[:100000])
    net.link("c", parted=True)
    deadline = time.monotonic() + 30
    # The client's two and the upstream's one; the latter goes with its request.
    while rig.fds() > rig.baseline:
        assert time.monotonic() < deadline, rig.list_fds()
        time.sleep(0.02)
    net.link("c")
    rig.table.disarm("tcp_info")
    assert rig.table.hits("tcp_info") > before
    for sock in (s, up):
        sock.settimeout(60)  # it tries again ever more seldom
        with pytest.raises((Closed, ConnectionError)):
            r = Answers(sock)
            while True:
                sock.sendall(b"x")
                r.exactly(65536)
        sock.close()
