"""Extended CONNECT (RFC 8441): a WebSocket of a client of HTTP/2, to an upstream of HTTP/1.1 and of HTTP/2."""
import base64
import hashlib
import re
import threading

import h2wire
import pytest
from gate import Gate, Upstream
from h2wire import E, Reset, S, block, data, headers, rst

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes:
  "/fixed": OK OK
  "/in/*": "*"
  "/ws/*": "http://127.0.0.1:%d"
  "/h2/*": "h2c://127.0.0.1:%d"
  "/old/*": "h2c://127.0.0.1:%d"
"""
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def switching(head, key=None):
    """The right 101 to a request, or one for another key."""
    key = key or re.search(rb"(?i)\r\nsec-websocket-key: ?(\S+)\r\n", head)[1]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)


class OldUpstream:
    """Speaks HTTP/1.1: answers as the path says, and echoes what comes through a tunnel."""

    def __call__(self, index, head):
        path = head.split(b" ")[1]
        self.head, self.ended = head, threading.Event()
        answers = {b"/ws/refused": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
                   b"/ws/200": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                   b"/ws/wrong": switching(head, b"another") if b"ey:" in head else b""}
        return answers.get(path) or self.tunnel

    def tunnel(self, peer, head, rest):
        peer.send(switching(head))
        try:
            while got := peer.sock.recv(65536):
                peer.send(got)
                if b"bye" in got:
                    return None
        finally:
            self.ended.set()
        return None


def connect_script(server, request):
    """An upstream of HTTP/2: a tunnel that echoes."""
    assert (request.get(":method"), request.get(":protocol")) == ("CONNECT", "websocket")
    server.send(headers(server.encoder.encode([(":status", "200")]), request.stream, end=False))
    seen = 0
    while not request.ended and request.reset is None:
        server.step()
        if got := request.body[seen:]:
            seen += len(got)
            server.content(request.stream, got, end=False)
    if request.reset is None:
        server.send(data(b"", request.stream))


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    old = OldUpstream()
    with Upstream(old) as up, h2wire.Upstream(connect_script, values={S.ENABLE_CONNECT_PROTOCOL: 1}) as new, \
            h2wire.Upstream(lambda server, request: server.answer(request)) as plain:
        config = CONFIG % (up.port, new.port, plain.port)
        with Gate(tmp_path_factory.mktemp("gate"), config, backend) as gate:
            yield gate, old


def asked(path, protocol=b"websocket", *more):
    return block((b":method", b"CONNECT"), (b":protocol", protocol), (b":scheme", b"http"),
                 (b":path", path), (b":authority", b"x"), (b"sec-websocket-version", b"13"), *more)


def begin(client, path, stream=1, **more):
    client.send(headers(asked(path), stream, end=False))
    client.next_stream = stream + 2
    return client.head(stream, **more)


def received(client, stream, count):
    while True:
        r = client.streams[stream]
        if isinstance(r, Reset):
            raise r
        if len(r.body) >= count:
            return r.body
        client.gather(client.frame())


def test_it_is_announced(setup):
    with h2wire.connect(setup[0].port) as client:
        assert client.peer_settings[S.ENABLE_CONNECT_PROTOCOL] == 1


@pytest.mark.parametrize("path", [b"/ws/a?q=1", b"/h2/a"])
def test_a_tunnel(setup, path):
    gate, old = setup
    with h2wire.connect(gate.port) as client:
        r = begin(client, path)
        assert r.status == 200 and r.get("sec-websocket-accept") is None and r.get("upgrade") is None
        client.content(1, b"hello", end=False)
        assert received(client, 1, 5) == b"hello"
        assert client.get().body == b"OK"  # others go on beside it
        client.content(1, b"x" * 200000, end=False)
        assert len(received(client, 1, 200005)) == 200005
        client.send(data(b""))
        client.response(1)
        if path.startswith(b"/ws"):
            assert old.head.startswith(b"GET /ws/a?q=1 HTTP/1.1\r\n")
            assert re.search(rb"(?i)\r\nupgrade: websocket\r\n", old.head)
            assert re.search(rb"(?i)\r\nsec-websocket-version: 13\r\n", old.head)
            assert b":protocol" not in old.head


def test_the_upstream_ends(setup):
    with h2wire.connect(setup[0].port) as client:
        assert begin(client, b"/ws/a").status == 200
        client.send(data(b"bye", end=False))
        assert client.response(1).body == b"bye"


def test_the_client_resets(setup):
    gate, old = setup
    with h2wire.connect(gate.port) as client:
        assert begin(client, b"/ws/a").status == 200
        client.send(rst(1))
        assert old.ended.wait(10)
        assert client.get(stream=3).status == 200


def test_the_connection_goes(setup):
    gate, old = setup
    with h2wire.connect(gate.port) as client:
        assert begin(client, b"/ws/a").status == 200
        client.reset()
    assert old.ended.wait(10)


@pytest.mark.parametrize("path, status", [(b"/ws/refused", 403), (b"/ws/200", 502), (b"/ws/wrong", 502),
                                          (b"/old/a", 502)])
def test_refused_by_the_upstream(setup, path, status):
    """A tunnel begins after a verified 101 alone; nothing else may look like one."""
    with h2wire.connect(setup[0].port) as client:
        assert begin(client, path).status == status
        assert client.get(stream=3).status == 200


@pytest.mark.parametrize("path", [b"/fixed", b"/in/a", b"/none"])
def test_no_tunnel_here(setup, path):
    with h2wire.connect(setup[0].port) as client:
        assert 400 <= begin(client, path).status < 600
        assert client.get(stream=3).status == 200


@pytest.mark.parametrize("protocol", [b"connect-udp", b"h2c"])
def test_another_protocol(setup, protocol):
    with h2wire.connect(setup[0].port) as client:
        client.send(headers(asked(b"/ws/a", protocol), end=False))
        assert 400 <= client.head(1).status < 600


def test_frames_of_a_tunnel_are_checked(setup):
    """It is a stream like others: its windows are kept to, and nothing comes behind its end."""
    with h2wire.connect(setup[0].port) as client:
        assert begin(client, b"/ws/a").status == 200
        client.send(data(b"x"))
        client.response(1)
        del client.streams[1]
        client.send(data(b"y"))
        try:
            client.expect_reset(1, E.STREAM_CLOSED)
        except h2wire.GoneAway as e:
            assert e.code == E.STREAM_CLOSED
