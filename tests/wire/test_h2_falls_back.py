"""Upstreams that speak HTTP/2 and then want a request over HTTP/1.1 (HTTP_1_1_REQUIRED, RFC 9113 section 7)."""
import threading

import h2wire
import pytest
from gate import Closed, Gate, Reader, ok
from h2wire import E, goaway, rst, server_context
from waiting import await_that

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy:
  upstreams:
    up: {servers: ["127.0.0.1:%d"], tls: {verify: false}}
routes:
  "/auto": "https://up"
  "/h2": "h2://up"
"""


class Picky:
    """An upstream of both versions, which may have something against requests over HTTP/2: `refusal`."""

    def __init__(self, leaf):
        self.up = h2wire.Upstream(raw=self.serve, context=server_context(leaf, alpn=("h2", "http/1.1")))
        self.port, self.lock = self.up.port, threading.Lock()
        self.refusal, self.versions, self.asked = None, [], []

    def note(self, version, what):
        with self.lock:
            self.asked.append((version, what))

    def serve(self, server):
        version = server.sock.selected_alpn_protocol()
        self.versions.append(version)
        if version == "h2":
            server.begin(())
            while True:
                while server.waiting:
                    self.answer(server, server.waiting.pop(0))
                server.step()
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                more = server.sock.recv(65536)
                if not more:
                    return
                buffer += more
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            while head.startswith(b"POST") and b"0123456789" not in buffer:
                more = server.sock.recv(65536)
                if not more:
                    return
                buffer += more
            buffer = buffer.replace(b"0123456789", b"")
            self.note("1.1", head.split(b" ")[0].decode())
            if self.refusal == "deaf":
                return
            server.sock.sendall(ok(b"one"))

    def answer(self, server, request):
        self.note("2", request.get(":method"))
        if self.refusal is None:
            server.answer(request, body=b"two")
        elif self.refusal == "goaway":
            server.send(goaway(request.stream - 2 if request.stream > 1 else 0, E.HTTP_1_1_REQUIRED))
        elif self.refusal == "late":
            server.answer(request, body=b"half", end=False)
            server.send(rst(request.stream, E.HTTP_1_1_REQUIRED))
        else:
            if self.refusal == "taken":
                server.step()  # some content
            server.send(rst(request.stream, E.HTTP_1_1_REQUIRED))


@pytest.fixture
def setup(backend, certs, tmp_path):
    picky = Picky(certs.usual()["a"])
    with picky.up, Gate(tmp_path, CONFIG % picky.port, backend) as gate:
        yield gate, picky


@pytest.mark.parametrize("refusal", ["reset", "goaway"])
def test_the_request_is_made_again_and_the_server_remembered(setup, refusal):
    gate, picky = setup
    assert gate.get("/auto").body == b"two"
    picky.refusal = refusal
    assert gate.get("/auto").body == b"one"
    for _ in range(3):
        assert gate.get("/auto").body == b"one"
    assert picky.asked == [("2", "GET"), ("2", "GET")] + 4 * [("1.1", "GET")]
    assert picky.versions[:2] == ["h2", "http/1.1"] and "h2" not in picky.versions[2:]


def test_a_post_is_made_again_too(setup):
    """What the server has not done cannot happen twice; its content had not left yet."""
    gate, picky = setup
    picky.refusal = "reset"
    with gate.connect() as s:
        s.sendall(b"POST /auto HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        await_that(lambda: len(picky.versions) >= 2, timeout=10)
        s.sendall(b"0123456789")
        assert Reader(s).response("POST").body == b"one"


def test_a_post_that_http1_then_takes_is_not(setup):
    """It may have been done, whatever HTTP/2 said of the one before."""
    gate, picky = setup
    picky.refusal = "deaf"
    with gate.connect() as s:
        s.sendall(b"POST /auto HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789")
        assert Reader(s).response("POST").status == 502
    assert picky.asked == [("2", "POST"), ("1.1", "POST")]


def test_content_that_was_taken_is_sent_again(setup):
    gate, picky = setup
    picky.refusal = "taken"
    with gate.connect() as s:
        s.sendall(b"POST /auto HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789")
        assert Reader(s).response("POST").body == b"one"
    assert picky.asked == [("2", "POST"), ("1.1", "POST")]


def test_long_content_that_was_taken_is_not_sent_again(setup):
    gate, picky = setup
    picky.refusal = "taken"
    with gate.connect() as s:
        s.sendall(b"POST /auto HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n0123456789")
        assert Reader(s).response("POST").status == 502
    assert gate.get("/auto").body == b"one"  # the server is known by now


def test_an_answer_that_has_begun_is_not_begun_again(setup):
    gate, picky = setup
    picky.refusal = "late"
    with pytest.raises((Closed, ConnectionResetError)):
        gate.get("/auto")
    assert picky.asked == [("2", "GET")]


def test_h2_means_h2(setup):
    gate, picky = setup
    picky.refusal = "reset"
    for _ in range(2):
        assert gate.get("/h2").status == 502
    assert set(picky.versions) == {"h2"}
