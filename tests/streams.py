"""One exchange through a proxy, piece by piece, whichever version is spoken at either end: both ends send and
read content as it goes, and a tunnel's bytes after it. Plain or over TLS.

    client        gate        upstream
    Client1 --\\           /-- Side1 (of gate.Upstream)
    Client2 ---+-- ... --+--- Side2 (of h2wire.Upstream)

Either end has send, end, read(n), at_end(). The client has ask, status, interim; the upstream's script is given a
side, which has path, fields, hint, respond, accept.
"""
import base64
import hashlib
import json
import socket
import ssl

import h2wire
from gate import Closed, Gate, Reader, Upstream

KEY = base64.b64encode(b"0123456789abcdef").decode()
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSIONS = ["h1", "h2"]
ALPN = {"h1": "http/1.1", "h2": "h2"}
SCHEMES = {("h1", False): "http", ("h2", False): "h2c", ("h1", True): "https", ("h2", True): "h2"}

CONFIG = """
server:
  listen: [{listen}]
  admin: "127.0.0.1:$PORT2"
  workers: 1
  limits: {{max_body: 0, min_rate: 0}}
{tls}
routes:
  "/*": "{scheme}://127.0.0.1:{port}"
  "/brief":
    action: "{scheme}://127.0.0.1:{port}"
    timeouts: {{idle: 1s}}
"""
TLS = """
tls: {{certificates: {{cert: "{leaf.chain}", key: "{leaf.key}"}}}}
proxy: {{tls: {{ca: "{leaf.ca}", server_name: both.example}}}}
"""


def end_of_tls(sock):
    """close_notify, without waiting for the peer's as unwrap would. Nothing can be read any more."""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        sock._sslobj.shutdown()
    except ssl.SSLWantReadError:
        pass
    sock.settimeout(timeout)


class Wire1:
    """Content in chunks; as it is in a tunnel, whose end is the socket's."""

    def __init__(self, sock, rest=b""):
        self.sock, self.reader = sock, Reader(sock)
        self.reader.buffer = rest
        self.had, self.raw, self.ended = b"", False, False

    def send(self, data):
        self.sock.sendall(data if self.raw else b"%x\r\n%s\r\n" % (len(data), data))

    def end(self):
        if self.raw and isinstance(self.sock, ssl.SSLSocket):
            end_of_tls(self.sock)
        elif self.raw:
            self.sock.shutdown(socket.SHUT_WR)
        else:
            self.sock.sendall(b"0\r\n\r\n")

    def _more(self):
        if not self.raw:
            size = int(self.reader.until(b"\r\n"), 16)
            self.had += self.reader.exactly(size)
            self.ended = size == 0
            assert self.reader.until(b"\r\n") == b""
            return
        try:
            if not self.reader.buffer:
                self.reader.more()
        except Closed:
            self.ended = True
        self.had, self.reader.buffer = self.had + self.reader.buffer, b""

    def read(self, n):
        while len(self.had) < n:
            assert not self.ended, f"it ends with {self.had!r}"
            self._more()
        data, self.had = self.had[:n], self.had[n:]
        return data

    def at_end(self):
        """Waits for it; False when something comes before."""
        while not self.ended and not self.had:
            self._more()
        return not self.had


class Client1(Wire1):
    def __init__(self, sock):
        super().__init__(sock)
        self.interim, self.answer = [], None

    def ask(self, method="GET", path="/", fields=(), content=False):
        fields = [("Host", "x"), *fields] + [("Transfer-Encoding", "chunked")] * content
        self.sock.sendall("".join([f"{method} {path} HTTP/1.1\r\n", *(f"{n}: {v}\r\n" for n, v in fields),
                                   "\r\n"]).encode())

    def tunnel(self, path="/"):
        self.ask("GET", path, [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
                               ("Sec-WebSocket-Key", KEY)])
        assert self.status() == 101
        self.raw = True

    def _head(self):
        status = int(self.reader.until(b"\r\n").split()[1])
        return status, [(n.lower(), v) for n, v in self.reader.fields()]

    def hint(self):
        """Waits for one; its status."""
        self.interim.append(self._head())
        return self.interim[-1][0]

    def status(self):
        status, self.fields = self._head()
        return status

    def at_loss(self):
        """Waits for the connection's end."""
        try:
            while True:
                self.reader.more()
        except (Closed, ConnectionError, ssl.SSLError):
            return True

    def close(self):
        self.sock.close()


class Wire2:
    """One stream."""

    def send(self, data):
        self.wire.content(self.stream, data, end=False)

    def end(self):
        self.wire.send(h2wire.data(b"", self.stream))

    def read(self, n):
        while len(self._had()) - self.taken < n:
            assert not self._is_over(), f"it ends with {self._had()[self.taken:]!r}"
            self._step()
        self.taken += n
        return self._had()[self.taken - n:self.taken]

    def at_end(self):
        while not self._is_over() and len(self._had()) == self.taken:
            self._step()
        return len(self._had()) == self.taken


class Client2(Wire2):
    def __init__(self, sock):
        self.wire, self.stream, self.taken = h2wire.Client(sock), 0, 0

    def ask(self, method="GET", path="/", fields=(), content=False):
        self.stream = self.wire.ask(path, [(n.lower(), v) for n, v in fields], method, end=not content)

    def tunnel(self, path="/"):
        section = self.wire.encoder.encode([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                                            (":path", path), (":authority", "x"), ("sec-websocket-version", "13")])
        self.stream = 1
        self.wire.send(h2wire.headers(section, 1, end=False))
        assert self.status() == 200

    @property
    def answer(self):
        return self.wire.streams.get(self.stream)

    def _step(self):
        self.wire.gather(self.wire.frame())

    def _had(self):
        return self.answer.body

    def _is_over(self):
        return isinstance(self.answer, h2wire.Reset) or self.answer.ended

    def hint(self):
        while self.answer is None:
            self._step()
        return self.answer.status

    def status(self):
        return self.wire.head(self.stream).status

    def at_loss(self):
        """Waits for the stream's reset."""
        while not isinstance(self.answer, h2wire.Reset):
            self._step()
        return True

    def close(self):
        self.wire.close()


class Side1(Wire1):
    def __init__(self, peer, head, rest):
        super().__init__(peer.sock, rest)
        line, *fields = head.decode("latin-1").split("\r\n")[:-2]
        self.path = line.split(" ")[1]
        self.fields = {n.lower(): v.strip() for n, v in (f.split(":", 1) for f in fields)}
        self.connection = peer.index

    def _head(self, status, fields):
        lines = "".join(f"{n}: {v}\r\n" for n, v in fields)
        self.sock.sendall(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode())

    def hint(self, status, fields=()):
        self._head(status, fields)

    def respond(self, status=200, fields=()):
        self._head(status, [*fields, ("Transfer-Encoding", "chunked")])

    def accept(self):
        digest = hashlib.sha1((self.fields["sec-websocket-key"] + GUID).encode()).digest()
        self._head(101, [("Connection", "Upgrade"), ("Upgrade", "websocket"),
                         ("Sec-WebSocket-Accept", base64.b64encode(digest).decode())])
        self.raw = True


class Side2(Wire2):
    def __init__(self, server, request):
        self.wire, self.request, self.stream, self.taken = server, request, request.stream, 0
        self.path, self.fields, self.connection = request.path, dict(request.fields), server.index

    def _step(self):
        self.wire.step()

    def _had(self):
        return self.request.body

    def _is_over(self):
        return self.request.ended or self.request.reset is not None

    def hint(self, status, fields=()):
        self.wire.answer(self.request, status, fields, end=False)

    def respond(self, status=200, fields=()):
        self.wire.answer(self.request, status, fields, end=False)

    def accept(self):
        self.respond()


class Between:
    """A gate before one upstream: `script(side)` serves each request; what it raises is told at the end."""

    def __init__(self, folder, backend, version, leaf=None):
        """With a certificate everybody speaks TLS."""
        self.version, self.tls, self.faults, self.script = version, leaf is not None, [], None
        context = h2wire.server_context(leaf, alpn=(ALPN[version],)) if leaf else None
        if version == "h1":
            self.upstream = Upstream(lambda index, head: self._serve1, context=context)
        else:
            self.upstream = h2wire.Upstream(self._serve2, context=context,
                                            values={h2wire.S.ENABLE_CONNECT_PROTOCOL: 1})
        listen = '{address: "127.0.0.1:$PORT", tls: true}' if leaf else '"127.0.0.1:$PORT"'
        self.gate = Gate(folder, CONFIG.format(listen=listen, tls=TLS.format(leaf=leaf) if leaf else "",
                                               scheme=SCHEMES[version, self.tls], port=self.upstream.port), backend)

    def _serve1(self, peer, head, rest):
        side = Side1(peer, head, rest)
        self._run(side)
        return None if side.raw else side.reader.buffer

    def _serve2(self, server, request):
        self._run(Side2(server, request))

    def _run(self, side):
        try:
            self.script(side)
        except Exception as e:  # told by the test; the connection ends
            self.faults.append(e)
            raise OSError from e

    def client(self, version):
        sock = self.gate.connect()
        if self.tls:
            context = h2wire.tls_context(alpn=(ALPN[version],))
            sock = context.wrap_socket(sock, server_hostname="both.example")
        return {"h1": Client1, "h2": Client2}[version](sock)

    def passed(self):
        """Pieces of streams that were passed on (in the turn in which they came, later)."""
        status = self.gate.get("/status", host="127.0.0.1", port=self.gate.ports[1]).body
        told = json.loads(status)
        return told["passed_at_once"], told["passed_later"]

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        self.gate.__exit__(kind, *rest)
        self.upstream.close()
