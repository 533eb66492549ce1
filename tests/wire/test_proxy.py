"""The proxy beyond the tables of cases/: both directions at once, deadlines, tunnels, dead upstreams."""
import base64
import hashlib
import queue
import signal
import socket
import threading
import time

import pytest
from gate import Gate, Reader, Upstream, freeze, free_port, ok

HEAD = b"HTTP/1.1 200 OK\r\n"
CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy: {upstreams: {up: {servers: ["127.0.0.1:%d"]}}}
routes:
  "/*": "http://up"
  "/late": {action: "http://up", timeouts: {first_byte: 700ms}}
  "/fixed": OK OK
"""


def fields_of(head):
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return [(n.lower(), v.strip()) for n, v in (line.split(":", 1) for line in lines)]


def value_of(head, name):
    values = [v for n, v in fields_of(head) if n == name]
    assert len(values) <= 1, values
    return values[0] if values else None


@pytest.fixture(scope="module")
def liar(backend, tmp_path_factory):
    def script(index, head):
        return script.answer
    with Upstream(script) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % up.port, backend) as gate:
            yield gate, up, script


def test_a_closed_idle_connection_is_no_error(liar):
    gate, _, script = liar
    for _ in range(5):
        def answer(peer, head, rest):
            peer.send(ok(b"bye"))
            return None  # closes without saying so
        script.answer = answer
        assert gate.get("/l").body == b"bye"


def test_a_stalled_upstream_is_504(liar):
    gate, _, script = liar
    script.answer = lambda peer, head, rest: peer.sock.recv(1) and None  # until the gateway has enough
    assert gate.get("/late").status == 504


def test_a_dead_upstream_is_502(backend, tmp_path):
    with Gate(tmp_path, CONFIG % free_port(), backend) as gate:
        r = gate.get("/l", "Accept: application/json\r\n")
        assert r.status == 502 and r.get("content-type") == "application/problem+json"
        assert b"refused" in r.body


def test_what_a_filter_sets_has_no_alias(backend, tmp_path):
    config = CONFIG.replace('"/fixed": OK OK', 'GET /set/user:\n    action: "http://up"\n'
                            '    filters: [{headers: {request: {set: {X-User: gate}}}}]')
    with Upstream(lambda i, head: ok()) as up:
        with Gate(tmp_path, config % up.port, backend) as gate:
            for name in "X-User", "X_User", "x_uSER":
                assert gate.get("/set/user", f"{name}: evil\r\nX_Other: fine\r\n").status == 200
                fields = fields_of(up.requests.pop())
                assert ("x-user", "gate") in fields and ("x_other", "fine") in fields
                assert not [v for _, v in fields if v == "evil"]


def test_an_answer_before_its_request_is_nobodys(liar):
    """Both wait in the kernel when the gateway looks: the request, then what the upstream says unasked."""
    gate, up, script = liar
    script.answer = ok(b"one")
    with gate.connect() as s:
        reader = Reader(s)
        s.sendall(b"GET /l HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.response().body == b"one"
        script.answer = ok(b"two")
        idle = up.open[-1]
        freeze(gate.process.pid)
        try:
            s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            time.sleep(0.05)
            idle.sendall(ok(b"POISON"))
            time.sleep(0.05)
        finally:
            gate.process.send_signal(signal.SIGCONT)
        assert reader.response().body == b"two"


def test_requests_behind_one_that_waits_are_not_all_read(backend, tmp_path):
    go_on = threading.Event()

    def script(index, head):
        go_on.wait(20)
        return ok()
    with Upstream(script) as up:
        with Gate(tmp_path, CONFIG % up.port, backend) as gate, gate.connect() as s:
            s.settimeout(0.5)
            request, sent = b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n" * 1000, 0
            s.sendall(b"GET /l HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                while sent < 64_000_000:
                    sent += s.send(request)
            except TimeoutError:
                pass  # what the kernel holds, and little more
            assert sent < 64_000_000
            s.settimeout(10)
            go_on.set()
            assert Reader(s).response().body == b"OK"


# ---- both directions ----

def test_an_early_answer_outlives_a_client_that_shuts_its_side(liar):
    gate, _, script = liar
    shut = threading.Event()

    def answer(peer, head, rest):
        peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 400000\r\n\r\n" + b"x" * 200000)
        assert shut.wait(10)
        time.sleep(0.1)
        peer.send(b"x" * 200000)
        return None
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\nabc")
        reader = Reader(s)
        assert reader.until(b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
        s.shutdown(socket.SHUT_WR)
        shut.set()
        assert reader.exactly(400000) == b"x" * 400000 and reader.at_end()


def test_continue_is_relayed(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        assert b"\r\nexpect: 100-continue\r\n" in head.lower()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        got = peer.read(5 - len(rest))
        peer.send(ok(rest + got))
        return b""
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        reader = Reader(s)
        assert reader.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        s.sendall(b"hello")
        assert reader.response().body == b"hello"


def test_refusal_instead_of_continue_is_relayed(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        peer.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        return None
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        r = Reader(s).response()
        assert r.status == 401 and not r.interim


def test_large_bodies_both_ways_at_once(liar):
    gate, _, script = liar
    size = 3_000_000
    digests = queue.Queue()

    def answer(peer, head, rest):
        def pump():
            peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % size)
            for i in range(0, size - 10000, 10000):
                peer.send(bytes([i // 10000 % 251]) * 10000)
        thread = threading.Thread(target=pump)
        thread.start()
        digests.put(hashlib.sha256(rest + peer.read(size - len(rest))).hexdigest())
        thread.join()
        # An answer that ends before the request has would end both.
        peer.send(bytes([(size // 10000 - 1) % 251]) * 10000)
        return b""
    script.answer = answer
    payload = hashlib.shake_128(b"seed").digest(size)
    with gate.connect(30) as s:
        s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        sender = threading.Thread(target=s.sendall, args=(payload,))
        sender.start()
        body = Reader(s).response().body
        sender.join()
    assert body == b"".join(bytes([i % 251]) * 10000 for i in range(size // 10000))
    assert digests.get(timeout=10) == hashlib.sha256(payload).hexdigest()


# ---- upgrade ----

def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


KEY = base64.b64encode(b"0123456789abcdef")
UPGRADE = (b"GET /l HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % KEY)


def switch(accept):
    return (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)


def test_upgrade_opens_a_tunnel(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        assert value_of(head, "upgrade").lower() == "websocket"
        assert value_of(head, "connection").lower() == "upgrade"
        peer.send(switch(accept_of(KEY)) + b"early")
        while True:
            data = peer.sock.recv(1000)
            if not data:
                peer.send(b"last")
                return None
            peer.send(data[::-1])
    script.answer = answer
    with gate.connect() as s:
        s.sendall(UPGRADE)
        reader = Reader(s)
        r = reader.response()
        assert r.status == 101 and r.get("upgrade") == "websocket"
        assert reader.exactly(5) == b"early"
        s.sendall(b"GET / HTTP/1.1\r\n\r\n\0\xff")
        assert reader.exactly(20) == b"GET / HTTP/1.1\r\n\r\n\0\xff"[::-1]
        s.shutdown(1)
        assert reader.exactly(4) == b"last"
        assert reader.at_end()


def test_a_refused_upgrade_stays_http(liar):
    gate, _, script = liar
    script.answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"
    with gate.connect() as s:
        reader = Reader(s)
        s.sendall(UPGRADE + b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.response().status == 400
        assert reader.response().body == b"OK"
