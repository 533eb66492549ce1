"""Tunnels to upstreams whose version ALPN settles: where their HTTP/2 does not take them (RFC 8441), they go over
HTTP/1.1, and everything else stays where it is."""
import base64
import hashlib
import re
import ssl
import threading
import time

import h2wire
import pytest
from gate import Gate, Reader
from h2wire import S, block, data, headers, server_context
from waiting import await_that

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy:
  upstreams:
    up: {servers: [%s], tls: {verify: false}%s}
routes:
  "/*": "https://up"
  "/h2/*": "h2://up"
"""
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
WEBSOCKET = (b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
FOO = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"


def switching(head):
    """Agrees to whatever is asked for."""
    key = re.search(rb"(?i)\r\nsec-websocket-key: ?(\S+)\r\n", head)
    proof = b"Sec-WebSocket-Accept: %s\r\n" % base64.b64encode(hashlib.sha1(key[1] + GUID).digest()) if key else b""
    protocol = re.search(rb"(?i)\r\nupgrade: ?(\S+)\r\n", head)[1]
    return b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s\r\n" % (protocol, proof)


class Both:
    """An upstream of both versions, whose tunnels echo. /slow of HTTP/2 is answered when `go` is set. One that is
    `closed` lets no handshake through."""

    def __init__(self, leaf, values=()):
        self.values, self.seen, self.go, self.closed = values, [], threading.Event(), False
        context = server_context(leaf, alpn=("h2", "http/1.1"))
        context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE if self.closed else None
        self.up = h2wire.Upstream(raw=self.serve, context=context)
        self.port = self.up.port

    def serve(self, server):
        if server.sock.selected_alpn_protocol() == "h2":
            server.begin(self.values)
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
            self.seen.append(("1.1", head.split(b" ")[1].decode()))
            if b"refused" in head or b"pgrade:" not in head:
                server.sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
                continue
            server.sock.sendall(switching(head + b"\r\n"))
            while got := server.sock.recv(65536):
                server.sock.sendall(got)
            return

    def answer(self, server, request):
        self.seen.append(("2", request.path))
        if request.get(":method") != "CONNECT":
            if request.path == "/slow":
                threading.Thread(target=self.answer_later, args=(server, request)).start()
            else:
                server.answer(request, body=b"two")
            return
        server.send(headers(server.encoder.encode([(":status", "200")]), request.stream, end=False))
        while not request.body:
            server.step()
        server.content(request.stream, request.body)

    def answer_later(self, server, request):
        self.go.wait(10)
        server.send(headers(block((b":status", b"204")), request.stream))


@pytest.fixture
def gateway(backend, certs, tmp_path):
    """gateway(more, **how) a Gate and the upstreams behind it."""
    held = []

    def make(more="", count=1, **how):
        ups = [Both(certs.usual()["a"], **how) for _ in range(count)]
        servers = ", ".join(f'"127.0.0.1:{u.port}"' for u in ups)
        gate = Gate(tmp_path, CONFIG % (servers, more), backend)
        held.extend([*[u.up for u in ups], gate])
        for h in held:
            h.__enter__()
        return gate, *ups

    yield make
    for h in reversed(held):
        h.__exit__(None, None, None)


def by_http1(gate, path, ask=WEBSOCKET):
    """The status of what is asked for; a tunnel is held to its echo."""
    with gate.connect() as s:
        s.sendall(ask % path.encode())
        reader = Reader(s)
        head = reader.until(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        if status == 101:
            s.sendall(b"hello")
            assert reader.exactly(5) == b"hello"
        return status


def by_http2(gate, path):
    with h2wire.connect(gate.port) as client:
        client.send(headers(block((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"),
                                  (b":path", path.encode()), (b":authority", b"x"),
                                  (b"sec-websocket-version", b"13")), 1, end=False))
        status = client.head(1).status
        if status == 200:
            client.send(data(b"hello", 1, end=False))
            while client.streams[1].body != b"hello":
                client.gather(client.frame())
            return 101
        return status


CLIENTS = pytest.mark.parametrize("ask", [by_http1, by_http2])


@CLIENTS
def test_a_websocket_goes_over_http1(gateway, ask):
    gate, up = gateway()
    assert ask(gate, "/a") == 101
    assert gate.get("/b").body == b"two"
    assert ask(gate, "/c") == 101
    assert gate.get("/d").body == b"two"
    assert up.seen == [("1.1", "/a"), ("2", "/b"), ("1.1", "/c"), ("2", "/d")]
    assert len(up.up.connections) == 3  # one of HTTP/2


@CLIENTS
def test_http2_that_takes_it_is_asked(gateway, ask):
    gate, up = gateway(values={S.ENABLE_CONNECT_PROTOCOL: 1})
    assert ask(gate, "/a") == 101
    assert up.seen == [("2", "/a")]


def test_another_upgrade_goes_over_http1(gateway):
    gate, up = gateway(values={S.ENABLE_CONNECT_PROTOCOL: 1})
    assert by_http1(gate, "/a", FOO) == 101
    assert up.seen == [("1.1", "/a")]


@CLIENTS
def test_a_refusal_is_passed_on(gateway, ask):
    gate, up = gateway()
    for _ in range(2):
        assert ask(gate, "/refused") == 403
    assert up.seen == 2 * [("1.1", "/refused")]


@CLIENTS
def test_h2_means_h2(gateway, ask):
    gate, up = gateway()
    assert ask(gate, "/h2/a") == 502
    assert up.seen == []
    assert b"RFC 8441" in gate.get("/h2/a", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n").body


@CLIENTS
def test_a_server_of_http2_alone_is_not_left_out_for_it(gateway, ask):
    """Whoever asks for tunnels that it does not take has them refused, and nobody else anything."""
    gate, up = gateway(", panic: 0%, breaker: {consecutive: 2, max: 100%}")
    assert gate.get("/a").body == b"two"
    up.closed = True
    for _ in range(6):
        assert ask(gate, "/b") == 502
    assert gate.get("/c").body == b"two"
    assert up.seen == [("2", "/a"), ("2", "/c")]


@CLIENTS
def test_each_server_has_its_share(gateway, ask):
    gate, one, two = gateway(count=2)
    for _ in range(6):
        assert ask(gate, "/a") == 101
    assert one.seen == two.seen == 3 * [("1.1", "/a")]


@CLIENTS
def test_within_the_bound_of_connections(gateway, ask):
    """An idle connection of HTTP/2 makes room for a tunnel, and a tunnel that waits holds nobody else up."""
    gate, up = gateway(", max_connections: 1, pending_timeout: 20s")
    assert gate.get("/a").body == b"two"
    assert ask(gate, "/b") == 101
    assert gate.get("/c").body == b"two"
    slow = threading.Thread(target=gate.get, args=("/slow",))
    slow.start()
    await_that(lambda: ("2", "/slow") in up.seen, timeout=10)
    got = []
    tunnel = threading.Thread(target=lambda: got.append(ask(gate, "/d")))
    tunnel.start()
    time.sleep(0.2)
    assert gate.get("/e").body == b"two" and got == []
    up.go.set()
    slow.join(20)
    tunnel.join(20)
    assert got == [101]
