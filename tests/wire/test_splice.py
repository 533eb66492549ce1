"""Content that goes from socket to socket by way of pipes (engine/pipes.h): all of it and nothing else arrives,
whoever is slow, lies or leaves, and no pipe is left behind; and where somebody has to see it there are none."""
import os
import re
import selectors
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress

import h2wire
import pytest
from gate import Closed, Gate, Reader, Upstream, ok
from waiting import await_that

MB = 1 << 20
BLOB = os.urandom(20 * MB)
PIPES = 64  # of a shard (AG_PIPES_MAX); each shows two ends
CONFIG = """
server:
  listen: ["127.0.0.1:$PORT", {address: "127.0.0.1:$PORT2", tls: true}]
  workers: 1
  limits: {max_body: 100m}
tls:
  certificates: [{cert: "%s", key: "%s"}]
proxy: {buffer: {folder: .}}
routes:
  "/*": "http://127.0.0.1:%d"
  "/buffer/*": {action: "http://127.0.0.1:%d", buffer: both}
  "/retry/*": {action: "http://127.0.0.1:%d", retry: all}
"""


def content(at, size):
    return memoryview(BLOB)[at:at + size]


class Server(Upstream):
    """Answers GET .../KIND/AT/SIZE by that part of BLOB, and POST by its own content's part: whether it is that."""

    def __init__(self):
        self.cuts = []  # of uploads that ended too early: the bytes that came
        super().__init__(lambda _index, _head: self.serve)

    def serve(self, peer, head, rest):
        kind, at, size = re.match(rb"\w+ \S*/(\w+)/(\d+)/(\d+) ", head).groups()
        at, size = int(at), int(size)
        if head.startswith(b"GET"):
            return getattr(self, "get_" + kind.decode())(peer, content(at, size), rest)
        return self.post(peer, kind, content(at, size), rest)

    def head(self, peer, size):
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)

    def get_all(self, peer, part, rest):
        self.head(peer, len(part))
        peer.send(part)
        return rest

    def get_cut(self, peer, part, _rest):
        self.head(peer, len(part))
        peer.send(part[:len(part) // 2])

    def get_reset(self, peer, part, rest):
        self.get_cut(peer, part, rest)
        peer.reset()

    def get_more(self, peer, part, rest):
        self.head(peer, len(part))
        peer.send(bytes(part) + ok(b"POISON") * 5000)
        return rest

    def get_chunked(self, peer, part, rest):
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(part), 300_000):
            piece = part[i:i + 300_000]
            peer.send(b"%x\r\n%s\r\n" % (len(piece), bytes(piece)))
        peer.send(b"0\r\n\r\n")
        return rest

    def post(self, peer, kind, part, rest):
        got = bytearray(rest)
        while len(got) < len(part):
            try:
                data = peer.sock.recv(len(part) - len(got))
            except ConnectionResetError:
                data = b""
            if not data:
                self.cuts.append(bytes(got))
                return None
            got += data
            if kind == b"early" and len(got) > MB:
                peer.send(ok(b"early", b"Connection: close\r\n"))
                kind = b"told"
        if kind != b"told":
            peer.send(ok(b"same" if got == part else b"another"))
        return b""


@pytest.fixture(scope="module")
def setup(backend, certs, tmp_path_factory):
    leaf = certs.usual()["a"]
    with Server() as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % (leaf.chain, leaf.key, *[up.port] * 3), backend) as gate:
            yield gate, up


@pytest.fixture
def gate(setup):
    gate, up = setup
    up.cuts.clear()
    yield gate
    await_that(lambda: pipes(gate) == 0, timeout=20)  # whatever the test did


@pytest.fixture
def up(setup):
    return setup[1]


def pipes(gate):
    """Ends of pipes that the process has."""
    folder, n = f"/proc/{gate.process.pid}/fd", 0
    for fd in os.listdir(folder):
        try:
            n += os.readlink(f"{folder}/{fd}").startswith("pipe:")
        except FileNotFoundError:
            pass  # closed since
    return n


def asked(path, method="GET", more=""):
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def head_of(reader):
    """The length that a 200 announces; None: chunked."""
    assert reader.until(b"\r\n") == b"HTTP/1.1 200 OK"
    fields = {n.lower(): v for n, v in reader.fields()}
    return int(fields["content-length"]) if "content-length" in fields else None


def take(reader, size, look=None):
    """So many bytes. Closed, with what came, when there are less; look() is called at each megabyte."""
    out, seen = bytearray(reader.buffer[:size]), 0
    reader.buffer = reader.buffer[size:]
    while len(out) < size:
        data = reader.sock.recv(min(1 << 18, size - len(out)))
        if not data:
            raise Closed(bytes(out))
        out += data
        if look and len(out) // MB > seen:
            seen = len(out) // MB
            look()
    return out


def whole(reader, part):
    """The next answer is `part`."""
    assert head_of(reader) == len(part)
    assert take(reader, len(part)) == part


@contextmanager
def stalled(gate, path, after=4 * MB):
    """A download whose client has stopped reading: its reader, and what it has of the content."""
    with gate.small_window(asked(path)) as s:
        reader = Reader(s)
        head_of(reader)
        yield reader, take(reader, after)


# ---- answers ----

@pytest.mark.parametrize("size", [65535, 2 * MB + 1, 20 * MB])
def test_downloads(gate, size):
    with gate.connect() as s:
        s.sendall(asked(f"/all/0/{size}"))
        whole(Reader(s), content(0, size))


def test_a_slow_download_is_held_in_few_pipes(gate):
    with stalled(gate, f"/all/0/{20 * MB}") as (reader, first):
        await_that(lambda: pipes(gate) > 0, timeout=20)
        for _ in range(10):  # what one peer does not take is bounded: others get pipes, too
            assert pipes(gate) <= PIPES
            time.sleep(0.02)
        assert first + take(reader, 16 * MB) == BLOB


def test_pipelined_requests_behind_a_large_answer(gate):
    parts = [(0, 6 * MB), (5, 10), (7 * MB, 100_000), (MB, 3 * MB + 7), (1, 1)]
    with gate.connect() as s:
        s.sendall(b"".join(asked(f"/all/{at}/{size}") for at, size in parts))
        reader = Reader(s)
        for at, size in parts:
            whole(reader, content(at, size))
        assert not reader.buffer


def test_the_upstream_s_connection_is_used_again(gate, up):
    with gate.connect() as s:
        reader, before = Reader(s), len(up.received)
        for at, size in [(0, 8 * MB), (11, 100), (3, 5 * MB), (8 * MB, 8 * MB), (0, 5)]:
            s.sendall(asked(f"/all/{at}/{size}"))
            whole(reader, content(at, size))
        assert len(up.received) <= before + 1


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_an_upstream_that_dies_is_a_cut(gate, kind):
    with gate.connect() as s:
        s.sendall(asked(f"/{kind}/0/{12 * MB}"))
        reader = Reader(s)
        assert head_of(reader) == 12 * MB
        with pytest.raises((Closed, ConnectionResetError)):
            take(reader, 12 * MB)


def test_what_an_upstream_sends_behind_its_content_is_nobody_s(gate, up):
    for size in 4 * MB, 3 * MB + 65536 + 9, 8 * MB - 1:
        with gate.connect() as s:
            reader, before = Reader(s), len(up.received)
            s.sendall(asked(f"/all/0/{MB}"))
            whole(reader, content(0, MB))
            s.sendall(asked(f"/more/9/{size}"))
            whole(reader, content(9, size))
            s.sendall(asked("/all/0/7"))
            whole(reader, content(0, 7))
            assert not reader.buffer
            assert len(up.received) >= before + 1, "a connection that lied is not used again"


def test_chunked_answers(gate):
    with gate.connect() as s:
        reader = Reader(s)
        for at in 0, 1:
            s.sendall(asked(f"/chunked/{at}/{2 * MB}"))
            assert reader.response().body == content(at, 2 * MB)


def test_clients_that_leave_amid_a_download(gate):
    for _ in range(5):
        with stalled(gate, f"/all/0/{20 * MB}", 2 * MB):
            pass
    with gate.connect() as s:
        s.sendall(asked(f"/all/0/{5 * MB}"))
        whole(Reader(s), content(0, 5 * MB))


def test_more_slow_downloads_than_pipes(gate):
    size, count = 4 * MB, 100
    with selectors.DefaultSelector() as waiting:
        at = {}
        for i in range(count):
            s = gate.small_window(asked(f"/all/{i * 1000}/{size}"))
            at[s] = (i * 1000, 0)
            waiting.register(s, selectors.EVENT_READ, Reader(s))
        for key in list(waiting.get_map().values()):
            head_of(key.data)
            first = key.data.buffer
            begin, _ = at[key.fileobj]
            assert first == content(begin, len(first))
            at[key.fileobj] = (begin, len(first))
        while at:
            for key, _ in waiting.select(20):
                s = key.fileobj
                begin, got = at[s]
                data = s.recv(1 << 18)
                assert data and data == content(begin + got, len(data))
                at[s] = (begin, got + len(data))
                if got + len(data) == size:
                    waiting.unregister(s)
                    s.close()
                    del at[s]


# ---- requests ----

def upload(path, part):
    return asked(path, "POST", f"Content-Length: {len(part)}\r\n") + bytes(part)


def test_uploads(gate, up):
    with gate.connect() as s:
        reader = Reader(s)
        for at, size in [(0, 20 * MB), (1, 10), (7, 2 * MB + 1), (3, 65536)]:
            s.sendall(upload(f"/all/{at}/{size}", content(at, size)))
            assert reader.response().body == b"same"


def test_pipelined_requests_behind_an_upload(gate):
    with gate.connect() as s:
        reader = Reader(s)
        sent = b"".join([upload(f"/all/0/{8 * MB}", content(0, 8 * MB)), asked("/all/3/5"),
                         upload(f"/all/9/{3 * MB}", content(9, 3 * MB)), asked(f"/all/1/{MB}")])
        sender = threading.Thread(target=s.sendall, args=(sent,))
        sender.start()
        assert reader.response().body == b"same"
        whole(reader, content(3, 5))
        assert reader.response().body == b"same"
        whole(reader, content(1, MB))
        sender.join()


def test_an_upload_with_urgent_data(gate):
    """No byte behind the mark goes into a pipe (tcp(7)): it is read as if there were no mark."""
    for size in MB, 8 * MB:
        with gate.connect() as s:
            data = upload(f"/all/0/{size}", content(0, size))
            s.sendall(data[:size // 2])
            s.send(b"!", socket.MSG_OOB)
            s.sendall(data[size // 2:])
            assert Reader(s).response().body == b"same"


def test_clients_that_leave_amid_an_upload(gate, up):
    with gate.connect() as s:
        s.sendall(upload(f"/all/0/{12 * MB}", content(0, 12 * MB))[:9 * MB])
    await_that(lambda: up.cuts, timeout=20)
    assert BLOB.startswith(up.cuts[0]) and len(up.cuts[0]) < 12 * MB


def test_an_early_answer(gate):
    with gate.connect() as s:
        def send():
            with suppress(OSError):  # nobody wants it any more
                s.sendall(upload(f"/early/0/{16 * MB}", content(0, 16 * MB)))
        sender = threading.Thread(target=send)
        sender.start()
        assert Reader(s).response().body == b"early"
        with suppress(OSError):  # it may have had enough of the rest
            s.shutdown(socket.SHUT_RDWR)
        sender.join()


# ---- where somebody has to see it ----

def no_pipes(gate):
    return lambda: None if pipes(gate) == 0 else pytest.fail("a pipe")


@pytest.fixture
def unpiped(gate):
    await_that(lambda: pipes(gate) == 0, timeout=20)  # of the test before
    return gate


def test_tls(unpiped):
    gate = unpiped
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(gate.connect(port=gate.ports[1]), server_hostname="a.example") as s:
        reader = Reader(s)
        s.sendall(asked(f"/all/0/{12 * MB}"))
        assert head_of(reader) == 12 * MB
        assert take(reader, 12 * MB, no_pipes(gate)) == content(0, 12 * MB)
        s.sendall(upload(f"/all/1/{6 * MB}", content(1, 6 * MB)))
        assert reader.response().body == b"same"
        s.sendall(asked("/all/3/9"))
        whole(reader, content(3, 9))
    assert pipes(gate) == 0


@pytest.mark.parametrize("tls", [False, True])
def test_http2(unpiped, tls):
    gate = unpiped
    with (h2wire.connect_tls(gate.ports[1]) if tls else h2wire.connect(gate.port)) as client:
        assert client.get(f"/all/0/{3 * MB}").body == content(0, 3 * MB)
        posted = client.ask(f"/all/1/{2 * MB}", [("content-length", str(2 * MB))], "POST", bytes(content(1, 2 * MB)))
        assert client.response(posted).body == b"same"
    assert pipes(gate) == 0


@pytest.mark.parametrize("route", ["buffer", "retry"])
def test_content_that_is_kept(unpiped, route):
    gate = unpiped
    with gate.connect() as s:
        reader = Reader(s)
        for at, size in [(0, 12 * MB), (3, 5000), (1, 3 * MB)]:
            s.sendall(upload(f"/{route}/all/{at}/{size}", content(at, size)))
            assert reader.response().body == b"same"
            s.sendall(asked(f"/{route}/all/{at}/{size}"))
            whole(reader, content(at, size))
