"""Work that touches all a gateway does, and the upstream that it needs.

The work is right or it fails cleanly, whatever becomes of the gateway's calls and peers: an answer that is
whole is the right one, one that is cut is a prefix of it, an error is a 5xx, and nothing hangs.
"""
import base64
import hashlib
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager, nullcontext

import h2wire
from gate import Closed, Reader, ok

BLOB = hashlib.shake_256(b"anygate").digest(2 << 20)
LARGE = BLOB * 3  # more than a socket holds
ANSWER_S = 30  # a client that waits longer has been forgotten


def answer(index, head):
    """The upstream: sizes as the path asks, uploads acknowledged by their hash, WebSockets echoed."""
    path = head.split(b" ")[1].decode()
    if b"upgrade: websocket" in head.lower():
        return websocket
    if head.startswith(b"POST"):
        return acknowledge
    if path == "/up/held":
        return held
    size = int(path.rsplit("/", 1)[1])
    if path.startswith("/up/chunked/"):
        chunks = [BLOB[i:min(i + 50000, size)] for i in range(0, size, 50000)]
        return (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n")
    return ok(BLOB[:size])


def held(peer, head, rest):
    """An answer that does not end before the gateway leaves."""
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1")
    try:
        while peer.sock.recv(65536):
            pass
    except ConnectionError:
        pass
    peer.upstream.left.release()
    return None


def acknowledge(peer, head, rest):
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if length:
        body = rest + peer.read(int(length[1]) - len(rest))
    else:
        body = b""
        while True:
            while b"\r\n" not in rest:
                rest += peer.read(1)
            line, rest = rest.split(b"\r\n", 1)
            size = int(line, 16)
            if len(rest) < size + 2:
                rest += peer.read(size + 2 - len(rest))
            body, rest = body + rest[:size], rest[size + 2:]
            if size == 0:
                break
    peer.send(ok(hashlib.sha256(body).hexdigest().encode()))
    return b""


def websocket(peer, head, rest):
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
              b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + rest)
    while data := peer.sock.recv(65536):
        peer.send(data)
    return None


def chunked(body, piece=30000):
    pieces = [body[i:i + piece] for i in range(0, len(body), piece)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


class Answers(Reader):
    """A reader that does not copy long bodies again and again, and keeps what it has of one that is cut."""

    def __init__(self, sock):
        super().__init__(sock)
        self.pieces = []

    def response(self, method="GET"):
        self.pieces = []
        return super().response(method)

    def so_far(self):
        """The content, without what may be a chunk's first line."""
        rest = b"" if re.fullmatch(rb"(\r\n)?[0-9a-f]{0,6}\r?", self.buffer) else self.buffer
        return b"".join(self.pieces) + rest

    def exactly(self, n):
        pieces, have = [self.buffer], len(self.buffer)
        try:
            while have < n:
                pieces.append(self.sock.recv(1 << 20))
                have += len(pieces[-1])
                if not pieces[-1]:
                    raise Closed(have)
        finally:
            self.buffer = b"".join(pieces)
        data = super().exactly(n)
        if n != 2:  # the line end behind a chunk
            self.pieces.append(data)
        return data


class Wrong(AssertionError):
    """Something that no fault excuses."""


def exchange(sock, reader, request, method, expect):
    """Sends a request; `expect` is the body of a 200, or a function that checks it."""
    try:
        sock.sendall(request)
    except (ConnectionError, BrokenPipeError, ssl.SSLError):
        pass  # an early answer may be there all the same
    try:
        r = reader.response(method)
    except (Closed, ConnectionError, ssl.SSLError):
        if isinstance(expect, bytes) and not b"HTTP/1.1".startswith(reader.buffer[:8]):
            if not expect.startswith(reader.so_far()):
                raise Wrong(f"{request[:60]}: a cut body that is not a part of the right one")
        raise
    if r.status in (403, 500, 502, 503, 504):
        raise Closed(r.status)
    if r.status != 200:
        raise Wrong(f"{request[:60]}: status {r.status}")
    if expect != r.body if isinstance(expect, bytes) else not expect(r.body):
        raise Wrong(f"{request[:60]}: {len(r.body)} bytes that are not the right ones")


def get(path, more=""):
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def post(path, body, chunk=False):
    framing = "Transfer-Encoding: chunked" if chunk else f"Content-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + (
        chunked(body) if chunk else body)


def echoed(body):
    return lambda got: b'"body_length": %d' % len(body) in got or b'"body_length":%d' % len(body) in got


def right(c, stream, path, expect):
    """The answer on this stream is right, or has failed cleanly: how."""
    try:
        r = c.response(stream, ANSWER_S)
    except (h2wire.Reset, h2wire.GoneAway, h2wire.Closed, ConnectionError) as e:
        r = c.streams.get(stream)
        if isinstance(r, h2wire.Response) and r.status == 200 and isinstance(expect, bytes):
            if not expect.startswith(r.body):
                raise Wrong(f"{path}: a cut body that is not a part of the right one")
        return e if isinstance(e, ConnectionError) else Closed(str(e))
    if r.status in (403, 500, 502, 503, 504):
        return Closed(r.status)
    if r.status != 200:
        raise Wrong(f"{path}: status {r.status}")
    if expect != r.body if isinstance(expect, bytes) else not expect(r.body):
        raise Wrong(f"{path}: {len(r.body)} bytes that are not the right ones")
    return None


UPLOAD = BLOB[:300000], hashlib.sha256(BLOB[:300000]).hexdigest().encode()
# Asked at once: path, content, answer.
STREAMS = (("/fixed", None, b"fixed"), ("/files/small.txt", None, BLOB[:3000]), ("/up/400000", None, BLOB[:400000]),
           ("/echo", b"x" * 3000, echoed(b"x" * 3000)), ("/up/a", *UPLOAD), ("/up/chunked/300000", None, BLOB[:300000]))


class Work:
    """A client of the gateway at `address`, `port`. `left`: a semaphore that the upstream releases.
    kind: "h1", "h2", or "tls" at `tls_port`: what the work is done by."""

    def __init__(self, address, port, left=None, kind="h1", tls_port=None):
        self.address, self.port, self.kind, self.tls_port = address, port, kind, tls_port
        self.left = left or threading.Semaphore(0)

    def check_alive(self, step):
        """Raises when the server has ended; `step` was the last one."""

    def inside(self):
        """Where clients' sockets are made."""
        return nullcontext()

    def connect(self, slow=False, timeout=ANSWER_S, port=None):
        """A client's socket; a slow one takes little before it is read from."""
        with self.inside():
            s = socket.socket()
        s.settimeout(timeout)
        if slow:  # before it connects: later the kernel only makes it worse
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        s.connect((self.address, port or self.port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    @contextmanager
    def client(self, slow=False):
        s = self.connect(slow)
        try:
            yield s, Answers(s)
        finally:
            s.close()

    def ask(self, *requests):
        """Requests on one connection, one after another."""
        with self.client() as (s, r):
            for request, expect in requests:
                exchange(s, r, request, "GET", expect)

    def slow(self):
        """The gateway must wait for room in the socket."""
        with self.client(slow=True) as (s, r):
            s.sendall(get("/files/large.bin"))
            time.sleep(0.02)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            exchange(s, r, b"", "GET", LARGE)

    def vanish(self):
        """A client that is gone when its answer has begun: the upstream is left, too."""
        for path in ("/up/1000000", "/up/held"):
            with self.client(slow=True) as (s, r):
                s.sendall(get(path))
                if b" 200 " not in r.until(b"\r\n\r\n"):
                    raise Closed("refused")
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if not self.left.acquire(timeout=ANSWER_S):
            raise Wrong("the upstream was not left when its client had gone")

    def pipelined(self):
        with self.client() as (s, r):
            s.sendall(get("/fixed") * 3 + get("/files/small.txt") * 2)
            for expect in [b"fixed"] * 3 + [BLOB[:3000]] * 2:
                exchange(s, r, b"", "GET", expect)

    def tunnel(self):
        with self.client() as (s, r):
            s.sendall(get("/up/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"))
            answered = r.response()
            if answered.status in (502, 503, 504):
                raise Closed(answered.status)
            if answered.status != 101:
                raise Wrong(f"WebSocket: status {answered.status}")
            for size in (5, 100000):
                s.sendall(BLOB[:size])
                try:
                    if r.exactly(size) != BLOB[:size]:
                        raise Wrong("WebSocket: other bytes")
                except (Closed, ConnectionError):
                    if not BLOB.startswith(r.buffer):
                        raise Wrong("WebSocket: a cut echo that is not a part of the right one")
                    raise

    # ---- HTTP/2

    def h2(self, slow=False, tls=False):
        """A client that speaks HTTP/2."""
        s = self.secure(slow, alpn=("h2",)) if tls else self.connect(slow)
        client = h2wire.Client(s, {h2wire.S.INITIAL_WINDOW_SIZE: 1 << 20}, start=False)
        client.may_be_cut = True  # by a send that fails
        return client

    def streams(self, *asked, slow=False, tls=False):
        """Requests at once on one connection; (path, content or None, expect) each. A slow client reads
        nothing for a while: the gateway must wait for room in the socket, and for the stream's window."""
        with self.h2(slow, tls) as c:
            c.send(h2wire.PREFACE, h2wire.settings(c.announced), h2wire.window_update(0, 1 << 24))
            streams = []
            for path, content, expect in asked:
                streams.append(c.ask(path, method="GET" if content is None else "POST", end=content is None))
                if content is not None:
                    c.content(streams[-1], content)
            if slow:
                time.sleep(0.02)
                c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            failure = None
            for stream, (path, _, expect) in zip(streams, asked):
                failure = right(c, stream, path, expect) or failure
            if failure:
                raise failure

    def h2_tunnel(self):
        """A WebSocket by extended CONNECT (RFC 8441)."""
        with self.h2() as c:
            c.send(h2wire.PREFACE, h2wire.settings(c.announced), h2wire.window_update(0, 1 << 24))
            stream = c.next_stream
            section = h2wire.block((b":method", b"CONNECT"), (b":protocol", b"websocket"),
                                   (b":scheme", b"http"), (b":path", b"/up/ws"), (b":authority", b"x"),
                                   (b"sec-websocket-version", b"13"))
            c.expect(h2wire.T.SETTINGS, ack=False)
            c.send(h2wire.headers(section, stream, end=False))
            r = c.head(stream, ANSWER_S)
            if r.status in (502, 503, 504):
                raise Closed(r.status)
            if r.status != 200:
                raise Wrong(f"WebSocket over HTTP/2: status {r.status}")
            for size in (5, 100000):
                until = len(r.body) + size
                c.content(stream, BLOB[:size], end=False)
                while len(r.body) < until:
                    if isinstance(c.streams[stream], Exception):
                        raise c.streams[stream]
                    c.gather(c.frame(ANSWER_S))
                if r.body[until - size:] != BLOB[:size]:
                    raise Wrong("WebSocket over HTTP/2: other bytes")

    # ---- TLS

    def secure(self, slow=False, **more):
        """A connection over TLS, after its handshake."""
        s = self.connect(slow, port=self.tls_port)
        try:
            return h2wire.tls_context(**{"alpn": (), **more}).wrap_socket(
                s, server_hostname="a.example", suppress_ragged_eofs=False)
        except BaseException:
            s.close()
            raise

    def ask_tls(self, *requests, slow=False, **more):
        """As ask."""
        with self.secure(slow, **more) as s:
            if slow:
                s.sendall(requests[0][0])
                time.sleep(0.02)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            for request, expect in requests:
                exchange(s, Answers(s), b"" if slow else request, "GET", expect)

    def h1_steps(self):
        upload, digest = UPLOAD
        yield "pipelined", self.pipelined
        yield "echo", lambda: self.ask((post("/echo", b"x" * 3000), echoed(b"x" * 3000)),
                                       (post("/echo", b"x" * 70000, True), echoed(b"x" * 70000)))
        yield "large", self.slow
        yield "proxied", lambda: self.ask((get("/up/3"), BLOB[:3]), (get("/up/400000"), BLOB[:400000]),
                                          (get(f"/up/{len(BLOB)}"), BLOB), (get("/up/chunked/300000"), BLOB[:300000]))
        yield "uploads", lambda: self.ask((post("/up/a", upload), digest),
                                          (post("/up/b", upload, True), digest))
        yield "tunnel", self.tunnel
        yield "vanish", self.vanish

    def h2_steps(self):
        yield "streams", lambda: self.streams(*STREAMS)
        yield "large", lambda: self.streams(("/files/medium.bin", None, BLOB), slow=True)
        yield "tunnel", self.h2_tunnel

    def tls_steps(self):
        upload, digest = UPLOAD
        v12 = ssl.TLSVersion.TLSv1_2
        yield "1.3", lambda: self.ask_tls((get("/fixed"), b"fixed"), (get("/files/small.txt"), BLOB[:3000]),
                                          (get("/up/400000"), BLOB[:400000]), (post("/up/a", upload), digest))
        yield "1.2", lambda: self.ask_tls((get("/fixed"), b"fixed"), (post("/up/b", upload, True), digest), high=v12)
        yield "large", lambda: self.ask_tls((get("/files/medium.bin"), BLOB), slow=True)
        yield "h2", lambda: self.streams(*STREAMS, tls=True)

    def steps(self):
        return getattr(self, f"{self.kind}_steps")()

    def work(self):
        """All of it once; the names of the steps that failed cleanly."""
        failed = []
        for name, step in self.steps():
            try:
                step()
            except TimeoutError:
                raise Wrong(f"{name}: no answer")
            except (Closed, ConnectionError, ssl.SSLError, h2wire.Closed, h2wire.Reset, h2wire.GoneAway) as e:
                failed.append(f"{name}: {e!r}")
            self.check_alive(name)
        return failed
