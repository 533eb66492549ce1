"""Choice by latency, where it comes from the network: servers in namespaces of their own, behind links that delay and
lose (relay.py stands in for netem, which not every kernel has). Shares have wide bounds; no time is asserted. A
server that stands still for a while is the far one meanwhile and for long after: shares are counted again until they
are right.
"""
import collections
import random
import socket
import threading
import time

import pytest
from gate import Closed, Gate, Reader, Upstream, ok
from relay import Net

SEED = random.randrange(1 << 32)
NEAR, FAR, LOSSY = {"delay_ms": 0.5}, {"delay_ms": 15}, {"delay_ms": 0.5, "loss": 0.15}
CONFIG = """
server: {listen: ["0.0.0.0:$PORT"], workers: 1}
proxy:
  upstreams:
    up:
      servers: ["%s:%d", "%s:%d"]
      balance: {random_two: ewma}
      timeouts: {connect: 20s, first_byte: 20s}
routes: {"/*": "http://up"}
"""
ROUNDS = 120


@pytest.fixture(scope="module")
def net():
    try:
        net = Net("cgab", SEED)
    except OSError as e:
        pytest.skip(f"no network namespaces or TUN devices here: {e}")
    print(f"seed {SEED}")
    yield net
    net.close()


@pytest.fixture
def gate(backend, net, tmp_path):
    servers = []
    for letter in "ab":
        net.link(letter)
        with net.inside(letter):
            servers.append(Upstream(lambda i, head, letter=letter: ok(letter.encode()), host=net.address(letter)))
    addresses = [part for letter, s in zip("ab", servers) for part in (net.address(letter), s.port)]
    with Gate(tmp_path, CONFIG % tuple(addresses), backend, wait=False,
              wrap=["ip", "netns", "exec", net.name("g")]) as gate:
        gate.address = net.address("g")
        await_gate(net, gate)
        yield gate
    for s in servers:
        s.close()


def connect(net, gate):
    with net.inside("c"):
        return socket.create_connection((gate.address, gate.port), 30)


def await_gate(net, gate):
    deadline = time.monotonic() + 20
    while True:
        try:
            connect(net, gate).close()
            return
        except OSError:
            assert time.monotonic() < deadline, gate.stderr()
            time.sleep(0.02)


def shares(net, gate, rounds=ROUNDS):
    """How many of three clients' requests each server has answered."""
    got, failed = collections.Counter(), []

    def client():
        try:
            with connect(net, gate) as sock:
                reader = Reader(sock)
                for _ in range(rounds):
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    r = reader.response()
                    assert r.status == 200, r
                    got[r.body.decode()] += 1
        except (AssertionError, Closed, OSError) as e:
            failed.append(e)

    threads = [threading.Thread(target=client) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed
    return got


def await_shares(net, gate, right, rounds=ROUNDS):
    deadline = time.monotonic() + 60
    while not right(got := shares(net, gate, rounds)):
        assert time.monotonic() < deadline, got


def test_the_nearer_server_gets_most_and_changes_are_followed(net, gate):
    net.link("a", **NEAR)
    net.link("b", **FAR)
    await_shares(net, gate, lambda got: got["a"] > 3 * got["b"])
    net.link("a", **FAR)
    net.link("b", **NEAR)
    # Each knows the other as it was: what was far has to be tried again, when its peak has faded.
    await_shares(net, gate, lambda got: got["b"] > 3 * got["a"], 40)


def test_a_server_behind_losses_gets_less(net, gate):
    net.link("a", **NEAR)
    net.link("b", **LOSSY)
    await_shares(net, gate, lambda got: got["a"] > 2 * got["b"])


def test_where_servers_are_alike_both_serve(net, gate):
    """What the others are held against."""
    net.link("a", **NEAR)
    net.link("b", **NEAR)
    await_shares(net, gate, lambda got: min(got["a"], got["b"]) * 8 > sum(got.values()))
