"""Requests that wait for their upstream before anything is sent: each as long as its own timeouts say, whoever waits
beside it."""
import socket
import threading
import time

import pytest
from gate import Gate, Reader
from h2wire import Upstream

SOON = 5  # seconds; what takes no longer was not bounded by a timeout of LONG
CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1, resolver: {servers: "127.0.0.1:%(mute)d", timeout: 20s}}
proxy:
  upstreams:
    h2: {servers: ["127.0.0.1:%(port)d"], retry: off, breaker: off}
    one: {servers: ["127.0.0.1:%(port)d"], retry: off, max_connections: 1}
    full: {servers: ["127.0.0.1:%(full)d"], retry: off}
    named: {servers: ["name.test:80"], retry: off}
routes:
  "/long": {action: "h2c://h2", timeouts: {connect: 20s}}
  "/short": {action: "h2c://h2", timeouts: {connect: 300ms}}
  "/total": {action: "h2c://h2", timeouts: {connect: 20s, total: 300ms}}
  "/one/long": {action: "http://one", timeouts: {connect: 20s}}
  "/one/total": {action: "http://one", timeouts: {connect: 20s, total: 300ms}}
  "/full/total": {action: "http://full", timeouts: {connect: 20s, total: 300ms}}
  "/named/total": {action: "http://named", timeouts: {connect: 20s, total: 300ms}}
"""


@pytest.fixture
def rig(backend, tmp_path):
    """An upstream that says nothing before `go_on` is set, one whose backlog is full, and a mute name server."""
    go_on, over = threading.Event(), threading.Event()

    def raw(server):
        assert go_on.wait(20)
        if over.is_set():
            return
        server.begin(())
        while True:
            server.step()
            while server.waiting:
                server.answer(server.waiting.pop(0), body=b"late")

    with Upstream(raw=raw) as up, socket.socket(type=socket.SOCK_DGRAM) as mute, \
            socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        mute.bind(("127.0.0.1", 0))
        kept = [socket.socket() for _ in range(4)]
        for s in kept:
            s.setblocking(False)
            s.connect_ex(full.getsockname())
        ports = {"port": up.port, "full": full.getsockname()[1], "mute": mute.getsockname()[1]}
        with Gate(tmp_path, CONFIG % ports, backend) as gate:
            gate.up, gate.go_on = up, go_on
            yield gate
        over.set()
        go_on.set()
        for s in kept:
            s.close()


def begun(gate, path):
    s = gate.connect()
    s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode())
    return s


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()


def refused(s, words):
    """The answer is 504 because of that, and comes soon."""
    start = time.monotonic()
    answer = Reader(s).response()
    assert answer.status == 504 and words in answer.body, answer
    assert time.monotonic() - start < SOON


@pytest.mark.parametrize("first", ["/long", "/short"])
def test_who_shares_a_connection_in_the_making_waits_its_own_time(rig, first):
    with begun(rig, first) as a:
        time.sleep(0.1)
        with begun(rig, "/short" if first == "/long" else "/long") as b:
            long, short = (a, b) if first == "/long" else (b, a)
            refused(short, b"connect to upstream: timeout")
            rig.go_on.set()
            assert Reader(long).response().body == b"late"
    assert len(rig.up.connections) == 1


def test_one_that_nobody_waits_for_any_more_is_closed(rig):
    with begun(rig, "/long") as a:
        time.sleep(0.1)
        with begun(rig, "/short") as b:
            time.sleep(0.1)
            reset(a)
            refused(b, b"connect to upstream: timeout")
            sock = rig.up.connection().sock
            assert sock.recv(1000).startswith(b"PRI")
            assert sock.recv(1) == b""


@pytest.mark.parametrize("path", ["/total", "/full/total", "/named/total"])
def test_all_of_it_is_bounded_before_it_begins(rig, path):
    with begun(rig, path) as s:
        refused(s, b"upstream: total timeout")


def test_and_while_it_waits_for_a_connection_of_others(rig):
    with begun(rig, "/one/long") as a:
        time.sleep(0.1)
        with begun(rig, "/one/total") as b:
            refused(b, b"upstream: total timeout")
        reset(a)
