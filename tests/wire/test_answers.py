"""Answers by the table (cases/answers.py), whole and byte by byte: what the client sees of an upstream
that lies, and that nothing of it is left for the next client."""
import threading
import time

import pytest
from cases.answers import ANSWERS, CUT
from gate import Closed, Gate, Reader, Upstream, ok
from waiting import again

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes:
  "/probe": OK OK
  "/up/*":
    action: "http://127.0.0.1:%d"
    timeouts: {first_byte: 20s, read: 20s}
"""
PROBE = b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n"


class Liar:
    """Gives the case's answer to one request, and to all others the number of their connection."""

    def __init__(self):
        self.answer = self.used = None
        self.told, self.done = threading.Event(), threading.Event()

    def arm(self, answer, pieces):
        self.answer, self.pieces, self.used = answer, pieces, None
        self.told.clear()
        self.done.clear()

    def __call__(self, index, head):
        answer, self.answer = self.answer, None
        if answer is None:
            return ok(b"%d" % index)
        self.used = index
        return lambda peer, head, rest: self.lie(answer, peer, rest)

    def lie(self, answer, peer, rest):
        try:
            for piece in self.pieces:
                peer.send(piece)
            if answer.late:
                self.told.wait(10)
                peer.send(answer.late)
            if answer.then == "reset":
                self.told.wait(0.05)  # or what was sent before it may be lost with it
                peer.reset()
            elif answer.then != "wait":
                peer.sock.close()  # before anyone is told that all is done
        finally:
            self.done.set()
        return rest if answer.then == "wait" else None


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    liar = Liar()
    with Upstream(liar) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % up.port, backend) as gate:
            yield gate, liar


def seen(gate, answer):
    """What the client gets: a Response, or None when it broke off."""
    with gate.connect() as s:
        s.sendall(answer.ask)
        reader = Reader(s)
        try:
            r = reader.response(answer.ask.split(b" ")[0].decode())
            if answer.status == CUT:
                return r
            if answer.closes:
                assert r.get("connection") == "close" and reader.at_end()
            elif answer.closes is False and r.get("connection") != "close":
                s.sendall(PROBE)
                assert reader.response().body == b"OK"
            else:
                assert answer.closes is None, r
            return r
        except (Closed, ConnectionResetError):
            return None


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.rfc}: {a.name}")
def test_answer(setup, answer, pieces):
    gate, liar = setup
    size = len(answer.send) or 1
    if pieces == "bytes":
        size = 1 if size <= 3000 else 997
    assert gate.get("/up/first").status == 200  # a connection waits in the pool
    liar.arm(answer, [answer.send[i:i + size] for i in range(0, len(answer.send), size)])
    r = seen(gate, answer)
    liar.told.set()
    if answer.status == CUT:
        assert r is None or r.status == 502, r
    else:
        assert r is not None, "the answer broke off"
        assert r.status == answer.status, r
        if answer.body is not None:
            assert r.body == answer.body
        assert tuple(r.trailers) == answer.trailers
        assert tuple(i.status for i in r.interim) == answer.interim
        for name, value in answer.fields:
            assert r.get(name) == value
    assert liar.done.wait(20)
    # Nobody may repeat a POST: one that went over a connection that is no good would fail.
    index = int(gate.get("/up/next", method="POST", headers="Content-Length: 0\r\n").body)
    assert (index == liar.used) == answer.reused, "the upstream's connection"


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%s\r\n\r\n"
ROUTES = {
    "plain": "",
    "that is not buffered": ", buffer: response",
    "of a hedge": ", hedge: {after: 50ms}",
}


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("route", ROUTES)
def test_what_came_before_the_break_arrives(backend, tmp_path, route, framing):
    """The last of a stream of events, which comes with the end of its upstream."""
    asked, rounds = [], 8

    def script(_index, head):
        asked.append(head)
        if "hedge" in route and len(asked) % 2:
            return lambda peer, _head, _rest: peer.read(1) and None  # until it is cancelled
        return lambda peer, _head, _rest: answer(peer)

    def answer(peer):
        chunked = framing == "chunks"
        peer.send(EVENTS % (b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 100"))
        peer.send(b"6\r\nfirst\n\r\n" if chunked else b"first\n")
        time.sleep(0.02)
        peer.send(b"5\r\nlast\n\r\n" if chunked else b"last\n")
        return None

    with Upstream(script) as up, Upstream(script) as other:
        config = f"""
server: {{listen: ["127.0.0.1:$PORT"], workers: 1}}
routes:
  "/": {{action: "http://127.0.0.1:{up.port},127.0.0.1:{other.port}"{ROUTES[route]}}}
"""
        with Gate(tmp_path, config, backend) as gate:
            for _ in range(rounds):
                with gate.connect() as s:
                    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    data = b""
                    while more := s.recv(65536):
                        data += more
                assert data.endswith((b"\r\nlast\n\r\n", b"\nlast\n")), data


def test_a_tunnel_that_is_read_slowly_is_not_idle(backend, tmp_path):
    """All has been sent on, and the client takes it bit by bit out of the kernel."""
    size = 400_000

    def switch(peer, _head, _rest):
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + bytes(size))
        while peer.sock.recv(65536):
            pass

    with Upstream(lambda _index, _head: switch) as up:
        config = f"""
server: {{listen: ["127.0.0.1:$PORT"], workers: 1}}
routes:
  "/": {{action: "http://127.0.0.1:{up.port}", timeouts: {{idle: 400ms}}}}
"""
        with Gate(tmp_path, config, backend) as gate:
            ask = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n"

            def attempt():  # one who takes nothing for 400 ms ends it
                with gate.small_window(ask) as s:
                    data = b""
                    while not data.endswith(bytes(1000)) or len(data.partition(b"\r\n\r\n")[2]) < size:
                        more = s.recv(16_000)
                        assert more, len(data)
                        data += more
                        time.sleep(0.05)
                    assert not s.recv(1), "now it is"
            again(attempt)


def test_the_table_is_large_and_unambiguous():
    for answer in ANSWERS:
        assert answer.rfc and answer.clause and answer.name
    assert len(ANSWERS) >= 150
    assert len({(a.rfc, a.clause, a.name) for a in ANSWERS}) == len(ANSWERS)
    assert len({(a.send, a.then, a.late, a.ask) for a in ANSWERS}) == len(ANSWERS)
