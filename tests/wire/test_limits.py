"""THREATS.md, resources: slow and large requests end as SPEC says, others are not disturbed."""
import socket
import threading
import time

import pytest
from gate import Closed, Gate, Reader, Upstream, ok

CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  limits: {header_timeout: 400ms, idle_timeout: 400ms, body_timeout: 400ms, body_grace: 200ms,
           min_rate: 100k, max_body: 64k, max_discard: 128k, write_timeout: 700ms}
routes:
  "/fixed": OK OK
  "/echo": "*"
  "/up/*": "http://127.0.0.1:%d"
"""
PROBE = b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    with Upstream(lambda i, head: ok(b"up")) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % up.port, backend) as gate:
            yield gate, up


def refused(gate, first, status, drip=None):
    """Sends `first`, then `drip` again and again, until the server has enough."""
    with gate.connect() as s:
        s.sendall(first)
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.02):
                try:
                    s.sendall(drip)
                except OSError:
                    return
        if drip:
            threading.Thread(target=trickle, daemon=True).start()
        reader = Reader(s)
        try:
            r = reader.response()
            assert r.status == status and r.get("connection") == "close"
            reader.at_end()
        finally:
            stop.set()


def test_a_head_that_never_ends_is_408(setup):
    refused(setup[0], b"GET /fixed HTTP/1.1\r\nHost: x\r\n", 408)


def test_a_head_that_trickles_is_408(setup):
    refused(setup[0], b"GET /fixed HTTP/1.1\r\nHost: x\r\nX-A: ", 408, drip=b"a")


def test_trickling_fields_are_408(setup):
    refused(setup[0], b"GET /fixed HTTP/1.1\r\nHost: x\r\n", 408, drip=b"X-A: b\r\n")


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_that_stalls_is_408(setup, path):
    refused(setup[0], b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc" % path.encode(),
            408)


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_that_trickles_is_408(setup, path):
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" % path.encode()
    refused(setup[0], head, 408, drip=b"x")


def test_an_idle_connection_is_closed(setup):
    with setup[0].connect() as s:
        s.sendall(PROBE)
        reader = Reader(s)
        assert reader.response().body == b"OK"
        assert reader.at_end()


def test_a_connection_that_says_nothing_is_closed(setup):
    with setup[0].connect() as s:
        assert Reader(s).at_end()


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_too_large_by_its_length_is_413_at_once(setup, path):
    gate, up = setup
    before = len(up.requests)
    refused(gate, b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 131073\r\n\r\n" % path.encode(), 413)
    assert len(up.requests) == before


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_a_little_too_large_is_dropped_and_the_connection_lives(setup, path):
    gate, up = setup
    before = len(up.requests)
    with gate.connect() as s:
        s.sendall(b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n" % path.encode()
                  + b"x" * 65537)
        reader = Reader(s)
        assert reader.response().status == 413
        s.sendall(PROBE)
        assert reader.response().body == b"OK"
    assert len(up.requests) == before


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_too_large_in_chunks_is_413(setup, path):
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
    refused(setup[0], head + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 3, 413)


def test_content_of_the_limit_passes(setup):
    r = setup[0].get("/up/p", "Content-Length: 65536\r\n", method="POST", body=b"x" * 65536)
    assert r.status == 200


def test_unwanted_content_is_dropped_and_the_connection_lives(setup):
    with setup[0].connect() as s:
        s.sendall(b"POST /fixed HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000)
        reader = Reader(s)
        assert reader.response().body == b"OK"
        s.sendall(PROBE)
        assert reader.response().body == b"OK"


def test_an_expectation_that_nobody_wants_closes(setup):
    with setup[0].connect() as s:
        s.sendall(b"POST /fixed HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        reader = Reader(s)
        r = reader.response()
        assert r.body == b"OK" and not r.interim and r.get("connection") == "close"


def test_an_expectation_of_the_echo_is_met(setup):
    with setup[0].connect() as s:
        s.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        reader = Reader(s)
        assert reader.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        s.sendall(b"hello")
        assert b'"body":"hello"' in reader.response().body


def test_a_reader_that_stalls_is_cut(backend, tmp_path):
    size = 30_000_000
    with Upstream(lambda i, head: ok(b"x" * size)) as up:
        with Gate(tmp_path, CONFIG % up.port, backend) as gate:
            with gate.connect(30) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.sendall(b"GET /up/g HTTP/1.1\r\nHost: x\r\n\r\n")
                time.sleep(2.5)
                got = 0
                try:
                    while data := s.recv(1 << 20):
                        got += len(data)
                except ConnectionResetError:
                    pass
                assert got < size
            assert gate.get("/fixed").body == b"OK"


def test_connections_beyond_the_limit_wait_their_turn(backend, tmp_path):
    config = CONFIG.replace("  workers: 1", "  workers: 1\n  max_connections: 4") % 1
    with Gate(tmp_path, config.replace("idle_timeout: 400ms", "idle_timeout: 20s"), backend) as gate:
        held = [gate.connect() for _ in range(4)]
        for s in held:
            s.sendall(PROBE)
            assert Reader(s).response().body == b"OK"
        waiting = [gate.connect() for _ in range(6)]  # accepted by the kernel alone
        for s in waiting:
            s.sendall(PROBE)
        for s in held:
            s.close()
        for s in waiting:
            assert Reader(s).response().body == b"OK"
            s.close()


def test_many_broken_clients_leave_the_others_alone(setup):
    gate, _ = setup
    for i in range(60):
        s = gate.connect()
        s.sendall([b"GET /fixed HT", b"POST /up/p HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nab",
                   b"\x80\x81\r\n\r\n", b"GET /up/g HTTP/1.1\r\nHost: x\r\n\r\n"][i % 4])
        if i % 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        if i % 10 == 0:
            assert gate.get("/fixed").body == b"OK"
    try:
        assert gate.get("/up/g").status == 200
    except Closed:
        pytest.fail("a good client was cut")
