"""Requests and answers between HTTP/1.1 and HTTP/2 by the table (cases/conversions.py), for each pairing of
client and upstream. Both ends read strictly, whatever the case is about: an upstream of HTTP/1.1 by
strict.py, one of HTTP/2 by h2wire.py and the rules of RFC 9113 section 8 below."""
import base64
import hashlib
import re
import selectors
import socket
import threading
import time

import h2wire
import pytest
import strict
from cases.conversions import LEFT, NOTHING, TABLE, TUNNELS, UNFINISHED, Answer, Ask, Cut, Got, Refused, Seen
from gate import Closed, Gate, Reader
from gate import Upstream as Scripted

VERSIONS = ["h1", "h2"]
SCHEMES = {"h1": "http", "h2": "h2c"}
CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes:
  "/*": "%s://127.0.0.1:%d"
"""
MARK = "/mark"
# What a hop adds, or writes from what its connection does.
OF_THE_HOP = {"host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip",
              "content-length", "transfer-encoding", "connection", "te", "trailer", "date", "server"}
OF_A_CONNECTION = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"}
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
VALUE = re.compile("(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")


def lower(fields):
    return [(n.lower(), v) for n, v in fields]


def of_the_end(fields):
    return tuple((n, v) for n, v in lower(fields) if n not in OF_THE_HOP)


def length_of(fields):
    values = [v for n, v in lower(fields) if n == "content-length"]
    assert len(values) <= 1, fields
    return int(values[0]) if values else None


def check_section(fields, pseudo):
    """RFC 9113 section 8: what any receiver may refuse must not be sent."""
    names = [n for n, _ in fields]
    first = [n for n in names if n.startswith(":")]
    assert names[:len(first)] == first and sorted(first) == sorted(pseudo), fields
    for name, value in fields:
        assert name.startswith(":") or TOKEN.fullmatch(name), fields
        assert VALUE.fullmatch(value), fields
        assert name not in OF_A_CONNECTION and (name != "te" or value == "trailers"), fields
    assert names.count("content-length") <= 1


# ---- upstreams ----

class Upstream1:
    """HTTP/1.1. One thread reads whatever has come before it answers anything, see recorder.py."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.wake, woken = socket.socketpair()
        for one in (self.listener, woken):
            self.selector.register(one, selectors.EVENT_READ)
        self.changed = threading.Condition()
        self.got, self.faults, self.data, self.continued = [], [], {}, set()
        self.answer = Answer()
        self.thread = threading.Thread(target=self._run, args=(woken,))
        self.thread.start()

    def _run(self, woken):
        while True:
            ready = [key.fileobj for key, _ in self.selector.select()]
            if woken in ready:
                return
            with self.changed:
                for one in ready:
                    self._accept() if one is self.listener else self._read(one)
                for one in list(self.data):
                    self._answer(one)
                self.changed.notify_all()

    def _accept(self):
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data[sock] = b""
        self.selector.register(sock, selectors.EVENT_READ)

    def _read(self, sock):
        try:
            data = sock.recv(1 << 20)
        except OSError:
            data = b""
        self.data[sock] += data
        if not data:
            self._drop(sock)

    def _drop(self, sock):
        self.selector.unregister(sock)
        if self.data.pop(sock):
            self.got.append(UNFINISHED)
        sock.close()

    def _answer(self, sock):
        try:
            while sock in self.data and (whole := strict.read(self.data[sock])):
                message, used = whole
                self.data[sock] = self.data[sock][used:]
                self.continued.discard(sock)
                self._tell(sock, message)
            if sock in self.data and sock not in self.continued and strict.expects(self.data[sock]):
                self.continued.add(sock)
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        except strict.Malformed as e:
            self.faults.append(f"{e}: {self.data[sock]!r}")
            self.data[sock] = b""
            self._drop(sock)
        except OSError:
            self._drop(sock)

    def _tell(self, sock, message):
        fields = [(n.decode("latin-1").lower(), v.decode("latin-1"))
                  for n, v in strict.fields_of(message.head.split(b"\r\n")[1:-2])]
        got = Got(message.method.decode(), message.target.decode(), of_the_end(fields), message.body,
                  tuple((n.decode().lower(), v.decode("latin-1")) for n, v in message.trailers),
                  length_of(fields), dict(fields)["host"], ("te", "trailers") in fields)
        if got.path == MARK:
            sock.sendall(written_1(Answer(body=b"mark", length=True), got.method))
            return
        self.got.append(got)
        cut = isinstance(self.answer, Cut)
        raw = self.answer.sent if cut else self.answer
        sock.sendall(raw if isinstance(raw, bytes) else written_1(raw, got.method))
        if cut or isinstance(raw, Answer) and raw.close:
            self._drop(sock)

    def take(self):
        """What came since the last call; what was begun has come to an end by then."""
        deadline = time.monotonic() + 10
        with self.changed:
            while any(self.data.values()):
                assert time.monotonic() < deadline, f"left unfinished: {list(self.data.values())}"
                self.changed.wait(1)
            got, self.got = self.got, []
            assert not self.faults, self.faults
            return got

    def close(self):
        self.wake.send(b"x")
        self.thread.join()
        for sock in (self.listener, self.wake, *self.data):
            sock.close()


class Upstream2:
    """HTTP/2 by prior knowledge."""

    def __init__(self):
        self.upstream = h2wire.Upstream(self._script)
        self.port = self.upstream.port
        self.lock = threading.Lock()
        self.got, self.begun, self.answer = [], 0, Answer()

    def _script(self, server, request):
        fields = request.fields
        connect = request.get(":method") == "CONNECT"
        check_section(fields, {":method", ":authority"} | (set() if connect else {":scheme", ":path"}))
        mark = request.path == MARK
        with self.lock:
            self.begun += not mark
        body = server.body(request)
        plain = [f for f in fields if not f[0].startswith(":")]
        if request.trailers is not None:
            check_section(request.trailers, ())
        got = UNFINISHED if request.reset is not None else Got(
            request.get(":method"), request.path, of_the_end(plain), body, tuple(request.trailers or ()),
            length_of(plain), request.get(":authority"), ("te", "trailers") in plain)
        with self.lock:
            self.begun -= not mark
            if not mark:
                self.got.append(got)
        if got is UNFINISHED:
            return
        assert got.length in (None, len(body)), got
        answer = Answer(body=b"mark", length=True) if mark else self.answer
        if isinstance(answer, Cut):
            server.send(of_stream(answer.sent + h2wire.rst(), request.stream))
        elif isinstance(answer, bytes):
            server.send(of_stream(answer, request.stream))
        else:
            tell_2(server, request.stream, answer, got.method)

    def take(self):
        deadline = time.monotonic() + 10
        while True:
            with self.lock:
                if self.begun == 0:
                    got, self.got = self.got, []
                    break
            assert time.monotonic() < deadline, "left unfinished"
            time.sleep(0.005)
        assert not self.upstream.faults, self.upstream.faults
        return got

    def close(self):
        self.upstream.close()


def of_stream(frames, stream):
    """The same frames of another stream."""
    out = b""
    while frames:
        size = 9 + int.from_bytes(frames[:3], "big")
        out += frames[:5] + stream.to_bytes(4, "big") + frames[9:size]
        frames = frames[size:]
    return out


# ---- both ways of saying the same ----

def latin(fields):
    return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields]


def lines(fields):
    return b"".join(b"%s: %s\r\n" % f for f in latin(fields))


def content_1(message):
    """(framing, content) of an Ask or Answer."""
    body = message.body
    if body is None:
        return b"", b""
    if message.length and not message.trailers:
        return b"Content-Length: %d\r\n" % len(body), body
    if getattr(message, "close", False):
        return b"Connection: close\r\n", body
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (body[:1], body[1:]) if c)
    return b"Transfer-Encoding: chunked\r\n", chunks + b"0\r\n" + lines(message.trailers) + b"\r\n"


def written_1(message, method=None):
    """An Ask, or the Answer to `method`, as HTTP/1.1."""
    framing, content = content_1(message)
    if isinstance(message, Ask):
        first = f"{message.method} {message.path} HTTP/1.1\r\nHost: {message.authority}\r\n".encode("latin-1")
    else:
        interim = b"".join(b"HTTP/1.1 %d X\r\n%s\r\n" % (s, lines(f)) for s, f in message.interim)
        first = interim + b"HTTP/1.1 %d X\r\n" % message.status
        if message.body is None and method != "HEAD" and message.status not in (204, 304):
            framing = b"Content-Length: 0\r\n"
    return first + lines(message.fields) + framing + b"\r\n" + content


def tell_2(wire, stream, message, method=None):
    """The same on a stream of HTTP/2."""
    fields = latin(lower(message.fields))
    if message.body is not None and message.length:
        fields.append((b"content-length", b"%d" % len(message.body)))
    if isinstance(message, Ask):
        pseudo = [(":method", message.method), (":scheme", "http"), (":path", message.path),
                  (":authority", message.authority)]
    else:
        pseudo = [(":status", str(message.status))]
        for status, more in message.interim:
            wire.send(h2wire.headers(wire.encoder.encode([(":status", str(status)), *latin(more)]), stream, end=False))
    content = message.body is not None and method != "HEAD"
    wire.send(h2wire.headers(wire.encoder.encode(pseudo + fields), stream, end=not content and not message.trailers))
    if content:
        wire.content(stream, message.body, end=not message.trailers)
    if message.trailers:
        wire.send(h2wire.headers(wire.encoder.encode(latin(lower(message.trailers))), stream))


# ---- clients ----

def seen_of(r):
    return Seen(r.status, of_the_end(r.fields), r.body, of_the_end(r.trailers or ()),
                tuple((status, of_the_end(fields)) for status, fields in r.interim if status != 100),
                length_of(r.fields))


def ask_1(port, ask):
    """What the client sees, or the Exception that it meets."""
    if isinstance(ask, Cut):
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(ask.sent)
        return LEFT
    method = ask.method if isinstance(ask, Ask) else ask.split(b" ", 1)[0].decode()
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        try:
            sock.sendall(written_1(ask) if isinstance(ask, Ask) else ask)
            r = Reader(sock).response(method)
        except (Closed, ConnectionResetError, BrokenPipeError) as e:
            return e
    r.interim = [(i.status, i.fields) for i in r.interim]
    return seen_of(r)


def ask_2(port, ask):
    with h2wire.connect(port) as client:
        if isinstance(ask, Cut):
            client.send(ask.sent)
            client.round_trip()
            client.send(h2wire.rst())
            client.round_trip()
            return LEFT
        if isinstance(ask, Ask):
            tell_2(client, 1, ask)
        else:
            client.send(ask)
        try:
            r = client.response(1)
        except h2wire.Reset as e:
            return e
    for fields in [r.fields, r.trailers or (), *(f for _, f in r.interim)]:
        check_section(fields, ())
    return seen_of(r)


# ---- the table ----

@pytest.fixture(scope="module", params=VERSIONS)
def behind(request, backend, tmp_path_factory):
    """(the upstream's version, it, a gate before it)."""
    up = {"h1": Upstream1, "h2": Upstream2}[request.param]()
    try:
        config = CONFIG % (SCHEMES[request.param], up.port)
        with Gate(tmp_path_factory.mktemp("gate"), config, backend) as gate:
            yield request.param, up, gate
    finally:
        up.close()


CASES = [pytest.param(version, case, id=f"{version}: {case.name}") for case in TABLE for version in VERSIONS
         if not isinstance(case.ask, dict) or version in case.ask]


@pytest.mark.parametrize("client, case", CASES)
def test_case(behind, client, case):
    version, up, gate = behind
    if isinstance(case.answer, dict) and version not in case.answer:
        return  # it has no such answer
    up.answer = case.answer[version] if isinstance(case.answer, dict) else case.answer
    ask = case.ask[client] if isinstance(case.ask, dict) else case.ask
    seen = {"h1": ask_1, "h2": ask_2}[client](gate.port, ask)
    assert ask_1(gate.port, Ask(path=MARK)).body == b"mark"
    got = up.take()
    check_seen(seen, case.sees)
    check_got(got, case)


def check_seen(seen, want):
    if want == LEFT:
        assert seen == LEFT
        return
    if isinstance(want, Refused):
        if isinstance(seen, Seen):
            assert seen.status in want.statuses, seen
            assert not seen.fields or all(n != "x-evil" and n != "set-cookie" for n, _ in seen.fields), seen
        else:
            assert want.ends, repr(seen)
        return
    assert isinstance(seen, Seen), repr(seen)
    assert seen.length == want.length or want.length is None, seen
    seen.length = want.length
    assert seen == want


def check_got(got, case):
    if case.gets == NOTHING:
        assert got == []
    elif case.gets == UNFINISHED:
        assert all(g == UNFINISHED for g in got), got
    else:
        assert got, "nothing has come"
        for one in got if isinstance(case.sees, Refused) else got[:1]:
            assert isinstance(one, Got), one
            assert one.length == case.gets.length or case.gets.length is None, one
            assert case.gets.te in (None, one.te), one
            one.length, one.te = case.gets.length, case.gets.te
            assert one == case.gets
        assert len(got) == 1 or isinstance(case.sees, Refused), got


def test_the_table_is_large_and_unambiguous():
    assert len({case.name for case in TABLE}) == len(TABLE)
    assert len(TABLE) >= 180


# ---- tunnels ----

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = [("origin", "http://x.example"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")]


def proof(key):
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode()


class Tunnels1:
    """An upstream of RFC 6455; the tunnel gives back what comes in capitals, until its end."""

    def __init__(self, how):
        self.how, self.seen = how, []
        self.upstream = Scripted(self._script)
        self.port = self.upstream.port

    def _script(self, _, head):
        _, method, _, fields = strict.head_of(head)
        fields = {n.decode(): v.decode("latin-1") for n, v in fields}
        self.seen.append((method.decode(), fields))
        if self.how == "refuses":
            return b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"
        if self.how == "ignores":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"
        return self._tunnel

    def _tunnel(self, peer, head, rest):
        key = self.seen[-1][1]["sec-websocket-key"]
        answer = proof(key if self.how == "agrees" else KEY[::-1])
        peer.send(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: chat\r\n"
                  b"Sec-WebSocket-Accept: %s\r\n\r\n" % answer.encode())
        while rest or (rest := peer.sock.recv(65536)):
            peer.send(rest.upper())
            rest = b""

    def check(self):
        method, fields = self.seen[-1]
        assert method == "GET" and fields["upgrade"] == "websocket"
        assert len(base64.b64decode(fields["sec-websocket-key"], validate=True)) == 16
        assert "upgrade" in fields["connection"].lower() and "transfer-encoding" not in fields
        return fields


class Tunnels2:
    """One of RFC 8441."""

    def __init__(self, how):
        self.how, self.seen = how, []
        values = {} if how == "knows none" else {h2wire.S.ENABLE_CONNECT_PROTOCOL: 1}
        self.upstream = h2wire.Upstream(self._script, values=values)
        self.port = self.upstream.port

    def _script(self, server, request):
        self.seen.append(dict(request.fields))
        pseudo = [n for n, _ in request.fields if n.startswith(":")]
        check_section(request.fields, pseudo)
        if self.how != "agrees":
            status = 403 if self.how == "refuses" else 200
            server.answer(request, status, [("content-length", "2")], b"no")
            return
        server.answer(request, 200, [("sec-websocket-protocol", "chat")], end=False)
        told = 0
        while True:
            if told < len(request.body):
                server.content(request.stream, request.body[told:].upper(), end=False)
                told = len(request.body)
            if request.ended:
                server.send(h2wire.data(b"", request.stream))
                return
            if request.reset is not None:
                return
            server.step()

    def check(self):
        fields = self.seen[-1]
        assert fields[":method"] == "CONNECT" and fields[":protocol"] == "websocket"
        assert fields[":path"] == "/ws" and fields[":authority"] == "x.example" and ":scheme" in fields
        assert "sec-websocket-key" not in fields and "content-length" not in fields
        return fields


def tunnel_1(port):
    """(status, fields, what goes through)."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        lines_of = "".join(f"{n}: {v}\r\n" for n, v in HANDSHAKE)
        sock.sendall(f"GET /ws HTTP/1.1\r\nHost: x.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     f"Sec-WebSocket-Key: {KEY}\r\n{lines_of}\r\n".encode())
        reader = Reader(sock)
        r = reader.response()
        if r.status != 101:
            return r.status, r.fields, r.body
        assert r.get("upgrade").lower() == "websocket" and r.get("connection").lower() == "upgrade"
        assert r.get("sec-websocket-accept") == proof(KEY)
        sock.sendall(b"through ")
        assert reader.exactly(8) == b"THROUGH "
        sock.sendall(b"and through")
        assert reader.exactly(11) == b"AND THROUGH"
        sock.shutdown(socket.SHUT_WR)
        assert reader.at_end()
        return 0, r.fields, b""


def tunnel_2(port):
    with h2wire.connect(port) as client:
        assert client.peer_settings.get(h2wire.S.ENABLE_CONNECT_PROTOCOL) == 1
        section = client.encoder.encode([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                                         (":path", "/ws"), (":authority", "x.example"), *HANDSHAKE])
        client.send(h2wire.headers(section, 1, end=False))
        r = client.head(1)
        if r.status != 200:
            r = client.response(1)
            return r.status, r.fields, r.body
        check_section(r.fields, ())
        assert r.get("sec-websocket-accept") is None
        for text in (b"through ", b"and through"):
            had = len(r.body)
            client.send(h2wire.data(text, 1, end=False))
            while len(r.body) < had + len(text):
                client.gather(client.frame())
            assert r.body[had:] == text.upper()
        client.send(h2wire.data(b"", 1))
        client.response(1)
        return 0, r.fields, b""


@pytest.mark.parametrize("client", VERSIONS)
@pytest.mark.parametrize("case, version", [pytest.param(c, v, id=f"{c.name} by {v}") for c in TUNNELS
                                           for v in c.version])
def test_tunnel(backend, tmp_path, case, version, client):
    up = {"h1": Tunnels1, "h2": Tunnels2}[version](case.upstream)
    with up.upstream, Gate(tmp_path, CONFIG % (SCHEMES[version], up.port), backend) as gate:
        status, fields, body = {"h1": tunnel_1, "h2": tunnel_2}[client](gate.port)
        assert status == case.sees[client]
        if status == 0:
            assert dict(lower(fields))["sec-websocket-protocol"] == "chat"
        elif status in (200, 403):
            assert body == b"no"
        if case.upstream != "knows none":
            got = up.check()
            assert all(got[n] == v for n, v in HANDSHAKE)
        else:
            assert up.seen == []
