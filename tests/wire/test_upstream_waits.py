"""Requests that wait for their upstream before anything is sent: each as long as its own timeouts say, whoever waits
beside it."""
import contextlib
import socket
import threading
import time

import pytest
from gate import Gate, Reader
from h2wire import Upstream
from waiting import await_read, in_time

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
    """The answer is 504 because of that, and comes before a timeout of 20 s: the socket's is half of that."""
    answer = Reader(s).response()
    assert answer.status == 504 and words in answer.body, answer


@pytest.mark.parametrize("first", ["/long", "/short"])
def test_who_shares_a_connection_in_the_making_waits_its_own_time(rig, first):
    def attempt(_):
        before, start = len(rig.up.connections), time.monotonic()
        a = begun(rig, first)
        await_read(a)
        b = begun(rig, "/short" if first == "/long" else "/long")
        await_read(b)
        if time.monotonic() - start < 0.25:
            return before, a, b
        reset(a)
        reset(b)
        gone(rig.up.connection(before).sock)
        return None

    before, a, b = in_time(attempt, 8)  # both wait, for sure
    with a, b:
        long, short = (a, b) if first == "/long" else (b, a)
        refused(short, b"connect to upstream: timeout")
        rig.go_on.set()
        assert Reader(long).response().body == b"late"
    assert len(rig.up.connections) == before + 1


def gone(sock):
    """What came on it, to its end."""
    sock.settimeout(20)
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65536):
            got += more
    return got


def test_one_that_nobody_waits_for_any_more_is_closed(rig):
    with begun(rig, "/long") as a:
        await_read(a)
        with begun(rig, "/short") as b:
            await_read(b)
            reset(a)
            refused(b, b"connect to upstream: timeout")
            assert gone(rig.up.connection().sock).startswith(b"PRI")


@pytest.mark.parametrize("path", ["/total", "/full/total", "/named/total"])
def test_all_of_it_is_bounded_before_it_begins(rig, path):
    with begun(rig, path) as s:
        refused(s, b"upstream: total timeout")


def test_and_while_it_waits_for_a_connection_of_others(rig):
    with begun(rig, "/one/long") as a:
        await_read(a)
        with begun(rig, "/one/total") as b:
            refused(b, b"upstream: total timeout")
        reset(a)
