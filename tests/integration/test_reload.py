"""Reload by SIGHUP: nothing is lost, nothing is cut, what a mistake would break stays as it is."""
import hashlib
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import h2wire
import pytest
from gate import Closed, Gate, Reader, Upstream, free_port, freeze, ok, refused, without_sanitizers
from ports import is_free
from tcptable import LISTEN, rows
from waiting import await_read, await_that

UPGRADE = (b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
SWITCHING = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
PATIENCE = 60  # seconds, for what must come


class Reloading(Gate):
    """A gate whose configuration is written anew; $PORT and its like are as at the start."""

    def write(self, config):
        text = re.sub(r"\$PORT(\d?)", self._port, config)
        (self.folder / "next.yml").write_text(text)
        os.replace(self.folder / "next.yml", self.folder / "anygate.yml")

    def outcomes(self):
        return re.findall(r"reloaded: \d+ route|reload refused: ", self.stderr())

    def hang_up(self, config=None):
        """Asks for a reload and waits for what the log says of it."""
        before = len(self.outcomes())
        if config is not None:
            self.write(config)
        self.process.send_signal(signal.SIGHUP)
        await_that(lambda: len(self.outcomes()) > before, self.stderr)
        return self.outcomes()[-1].split(":")[0]

    def reload(self, config=None):
        assert self.hang_up(config) == "reloaded", self.stderr()

    def refuse(self, config=None):
        assert self.hang_up(config) == "reload refused", self.stderr()
        return self.stderr().rsplit("reload refused: ", 1)[1].splitlines()[0]

    def await_answer(self, path, body, port=None):
        """Shards swap at the top of their next turn: the log may be earlier."""
        await_that(lambda: self.get(path, port=port).body == body, lambda: (path, body))

    def descriptors(self):
        """Those that are there; some may go while they are listed."""
        found = []
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                found.append(os.readlink(entry))
            except FileNotFoundError:
                pass
        return sorted(found)

    def listening(self, *ports):
        """The sockets (inodes) of this process that listen on these ports."""
        own = set(self.descriptors())
        return sorted(row.inode for row in rows()
                      if row.state == LISTEN and row.here in ports and row.link in own)


# ---- nothing is lost

def echoing(peer, head, rest):
    """An upstream's side of a tunnel."""
    peer.send(SWITCHING)
    while True:
        data = rest or peer.sock.recv(65536)
        rest = b""
        if not data:
            return None
        peer.send(data)


class Origin:
    """Echoes tunnels, counts uploads, and streams until it is told to end."""

    def __init__(self):
        self.end = threading.Event()
        self.upstream = Upstream(self._script)
        self.port = self.upstream.port

    def _script(self, index, head):
        if b"/ws " in head:
            return echoing
        if b"/stream " in head:
            return self._stream
        if b"/up " in head:
            return self._upload
        return ok(b"proxied")

    def _stream(self, peer, head, rest):
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(1 << 20):
            peer.send(b"8\r\n%08d\r\n" % i)
            if self.end.wait(0.01):
                break
        peer.send(b"0\r\n\r\n")
        return rest

    def _upload(self, peer, head, rest):
        """Chunked content; its digest is the answer."""
        data = rest
        while not data.endswith(b"0\r\n\r\n"):
            more = peer.sock.recv(65536)
            if not more:
                return None
            data += more
        digest, at = hashlib.sha256(), 0
        while True:
            end = data.index(b"\r\n", at)
            size = int(data[at:end], 16)
            if size == 0:
                break
            digest.update(data[end + 2:end + 2 + size])
            at = end + 4 + size
        peer.send(ok(digest.hexdigest().encode()))
        return b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end.set()
        self.upstream.close()


class Clients:
    """Threads that go on until they are told to end; the first complaint of each is kept."""

    def __init__(self, gate):
        self.gate, self.ending = gate, threading.Event()
        self.counts, self.complaints, self.threads = {}, [], []

    def add(self, name, body):
        def run():
            try:
                for _ in body(self):
                    self.counts[name] = self.counts.get(name, 0) + 1
            except Exception as e:  # noqa: BLE001 what it was is told
                self.complaints.append(f"{name}: {type(e).__name__}: {e}")

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(2 * PATIENCE)  # what is left of a file comes slowly through a window that was full
            assert not thread.is_alive()
        assert not self.complaints, self.complaints


def keep_alive(path, want):
    """Requests on one connection, which never ends."""
    def body(clients):
        with clients.gate.connect(PATIENCE) as s:
            reader = Reader(s)
            while not clients.ending.is_set():
                s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                r = reader.response()
                assert r.status == 200 and re.fullmatch(want, r.body), (r.status, r.body[:80])
                assert r.get("Connection") is None
                yield
    return body


def new_connections(clients):
    while not clients.ending.is_set():
        r = clients.gate.get("/gen")
        assert r.status == 200 and re.fullmatch(rb"generation \d+", r.body)
        yield


def uploads(clients):
    """One after the other on one connection."""
    with clients.gate.connect(PATIENCE) as s:
        reader = Reader(s)
        part = os.urandom(3000)
        digest = hashlib.sha256(part * 20).hexdigest()
        while not clients.ending.is_set():
            s.sendall(b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                s.sendall(b"%x\r\n%s\r\n" % (len(part), part))
                time.sleep(0.002)
            s.sendall(b"0\r\n\r\n")
            r = reader.response()
            assert r.status == 200 and r.body.decode() == digest, (r.status, r.body)
            yield


def one_upload(clients):
    """One that lasts from the first reload to the last."""
    digest = hashlib.sha256()
    with clients.gate.connect(PATIENCE) as s:
        s.sendall(b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not clients.ending.is_set():
            part = os.urandom(500)
            digest.update(part)
            s.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(0.01)
        s.sendall(b"0\r\n\r\n")
        r = Reader(s).response()
        assert r.status == 200 and r.body.decode() == digest.hexdigest(), (r.status, r.body)
        yield


def one_stream(end):
    """One proxied download that lasts from the first reload to the last."""
    def body(clients):
        with clients.gate.connect(PATIENCE) as s:
            s.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            reader = Reader(s)
            threading.Thread(target=lambda: (clients.ending.wait(), end.set()), daemon=True).start()
            r = reader.response()
            count = len(r.body) // 8
            assert r.body == b"".join(b"%08d" % i for i in range(count)) and count > 10
            yield
    return body


def one_file(content):
    """One large file, read so slowly that it lasts from the first reload to the last."""
    def body(clients):
        with clients.gate.connect(PATIENCE) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            s.sendall(b"GET /files/big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            got = b""
            while not clients.ending.is_set():
                got += s.recv(1024)
                time.sleep(0.01)
            reader = Reader(s)
            reader.buffer = got
            assert reader.response().body == content
            yield
    return body


def tunnel(clients):
    with clients.gate.connect(PATIENCE) as s:
        s.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")
        reader = Reader(s)
        assert reader.response().status == 101
        i = 0
        while not clients.ending.is_set():
            s.sendall(b"message %d" % i)
            assert reader.exactly(len(b"message %d" % i)) == b"message %d" % i
            i += 1
            time.sleep(0.005)
            yield


BUSY = """
server: {listen: ["127.0.0.1:$PORT"], workers: 2, drain_timeout: 100ms, limits: {max_body: 100m}}
routes:
  GET /gen: OK generation @GEN@
  "/files/": "./files/"
  "/up": "http://127.0.0.1:@UP@"
  "/*": "http://127.0.0.1:@UP@/*"
@MORE@
"""


def test_nothing_is_lost(backend, tmp_path):
    """Requests, uploads, downloads and tunnels, old and new connections, through 60 reloads."""
    def config(generation):
        more = "".join(f"  GET /r{i}: OK {generation}\n" for i in range(generation * 5))
        return BUSY.replace("@GEN@", str(generation)).replace("@UP@", str(origin.port)).replace(
            "@MORE@", more)

    content = os.urandom(12 << 20)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/big.bin").write_bytes(content)
    (tmp_path / "files/small.txt").write_bytes(b"small")
    with Origin() as origin, Reloading(tmp_path, config(0), backend) as gate:
        sockets = gate.listening(gate.port)
        assert len(sockets) == 2
        clients = Clients(gate)
        clients.add("fixed", keep_alive(b"/gen", rb"generation \d+"))
        clients.add("file", keep_alive(b"/files/small.txt", rb"small"))
        clients.add("proxied", keep_alive(b"/p", rb"proxied"))
        clients.add("new", new_connections)
        clients.add("uploads", uploads)
        clients.add("upload", one_upload)
        clients.add("stream", one_stream(origin.end))
        clients.add("download", one_file(content))
        for i in range(4):
            clients.add(f"tunnel{i}", tunnel)
        await_that(lambda: len(clients.counts) >= 9, lambda: (clients.counts, clients.complaints))
        for generation in range(1, 61):
            gate.reload(config(generation))
            gate.await_answer("/gen", b"generation %d" % generation)
            time.sleep(0.02)
            assert not clients.complaints, clients.complaints
        clients.end()
        assert gate.listening(gate.port) == sockets, "a kept listener keeps its descriptors"
        assert set(clients.counts) == {"fixed", "file", "proxied", "new", "uploads", "upload",
                                       "stream", "download", *(f"tunnel{i}" for i in range(4))}
        gate.await_alone()


def test_what_waits_in_the_queue_is_answered(backend, tmp_path):
    """Connections that the kernel has accepted and the process has not, when a reload comes."""
    config = ('server: {listen: ["127.0.0.1:$PORT", "127.0.0.1:$PORT2"], workers: 2}\n'
              "routes:\n  GET /gen: OK generation @\n")
    gone = config.replace(', "127.0.0.1:$PORT2"', "")
    with Reloading(tmp_path, config.replace("@", "1"), backend) as gate:
        kept, removed = gate.ports
        gate.write(gone.replace("@", "2"))
        freeze(gate.process.pid)
        waiting = []
        for i in range(40):
            s = gate.connect(PATIENCE, port=(kept, removed)[i % 2])
            s.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\n\r\n")
            waiting.append(s)
        gate.process.send_signal(signal.SIGHUP)
        os.kill(gate.process.pid, signal.SIGCONT)
        for s in waiting:
            r = Reader(s).response()
            assert r.status == 200 and r.body in (b"generation 1", b"generation 2")
            s.close()
        await_that(lambda: refused(removed), gate.stderr)


# ---- mistakes

MISTAKES = [
    ("routes:\n  GET /gen: OKK\n", r"anygate\.yml:2:13: error: ", "1 error;"),
    ("server: {workrs: 2}\nroutes:\n  GET /gen: OK\n  /x: NOPE\n",
     r"anygate\.yml:1:10: error: unknown key \"workrs\"", "2 errors;"),
    ("server: [\n", r"anygate\.yml:2:1: error: ", "1 error;"),
    ("include: other.yml\nroutes:\n  GET /gen: OK\n", r"anygate\.yml:1:10: error: ", "1 error;"),
    ("routes:\n  GET /gen: http://nobody/\nproxy: {upstreams: {nobody: {}}}\n",
     r"anygate\.yml:3:\d+: error: ", "1 error;"),
    ("", r"anygate\.yml is empty", "1 error;"),
    ("routes:\n  GET /gen: OK ${ANYGATE_TEST_UNSET}\n", r"anygate\.yml:2:\d+: error: ", "1 error;"),
]


@pytest.mark.parametrize("text, place, count", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_changes_nothing(backend, tmp_path, text, place, count):
    good = 'server: {listen: ["127.0.0.1:$PORT"]}\nroutes:\n  GET /gen: OK good\n'
    with Reloading(tmp_path, good, backend) as gate:
        with gate.connect() as s:
            reader = Reader(s)
            for _ in range(2):
                why = gate.refuse(text)
                assert why.startswith(count) and "stays" in why
                assert re.search(place, gate.stderr()), gate.stderr()
                s.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\n\r\n")
                assert reader.response().body == b"good"
        gate.reload(good.replace("good", "better"))
        gate.await_answer("/gen", b"better")


def test_a_file_that_is_gone(backend, tmp_path):
    with Reloading(tmp_path, 'server: {listen: ["127.0.0.1:$PORT"]}\nroutes:\n  /gen: OK 1\n',
                   backend) as gate:
        (tmp_path / "anygate.yml").rename(tmp_path / "away")
        gate.refuse()
        assert "anygate.yml" in gate.stderr() and gate.get("/gen").body == b"1"
        (tmp_path / "away").rename(tmp_path / "anygate.yml")
        gate.reload()


def test_a_port_that_is_taken(backend, tmp_path):
    """Nothing of the change holds: not the listener before it in the list, nor the routes."""
    config = 'server: {listen: ["127.0.0.1:$PORT"@], workers: 2}\nroutes:\n  /gen: OK 1\n'
    with Reloading(tmp_path, config.replace("@", ""), backend) as gate:
        gate.reload()  # comes after every shard has opened what it has
        before = gate.descriptors()
        free = free_port()
        taken = free_port()
        with socket.create_server(("127.0.0.1", taken)):
            why = gate.refuse(config.replace(
                "@", f', "127.0.0.1:{free}", "127.0.0.1:{taken}"').replace("OK 1", "OK 2"))
            assert f"cannot bind 127.0.0.1:{taken}: Address already in use; hint: " in why
        assert refused(free) and gate.get("/gen").body == b"1"
        await_that(lambda: set(gate.descriptors()) <= set(before), gate.descriptors)
        gate.reload(config.replace("@", f', "127.0.0.1:{free}", "127.0.0.1:{taken}"'))
        for port in (gate.port, free, taken):
            gate.await_answer("/gen", b"1", port=port)


@pytest.mark.parametrize("server", ["", "user: nobody, "], ids=["alone", "master"])
def test_refused_reloads_lose_nothing(backend, tmp_path, server):
    """They bind what is new, up to what cannot be, and give it back: what is served is not touched."""
    if server and os.geteuid() != 0:
        pytest.skip("only root has rights to give up")
    config = (f'server: {{{server}listen: ["127.0.0.1:$PORT"@], workers: 2}}\n'
              "routes:\n  /gen: OK generation 1\n")
    with Reloading(tmp_path, config.replace("@", ""), backend) as gate, \
            socket.create_server(("127.0.0.1", 0)) as other:
        gate.reload()
        before = gate.listening(gate.port)
        clients = Clients(gate)
        clients.add("kept", keep_alive(b"/gen", rb"generation 1"))
        clients.add("new", new_connections)
        taken = other.getsockname()[1]
        wrong = (f"127.0.0.1:{taken}", f"0.0.0.0:{taken}", "192.0.2.1:80")
        for i in range(21):
            counts = dict(clients.counts)
            more = f', "127.0.0.1:{free_port()}", "{wrong[i % 3]}"'
            assert "cannot bind" in gate.refuse(config.replace("@", more))
            await_that(lambda: all(clients.counts.get(n, 0) > counts.get(n, 0) for n in
                                   ("kept", "new")), lambda: (clients.counts, clients.complaints))
        clients.end()
        assert gate.listening(gate.port) == before and len(before) == 2


# ---- listeners

TWO = 'server: {listen: [@], workers: 2, drain_timeout: 20s}\nroutes:\n  /gen: OK 1\n@MORE@'


def listens(*ports, more=""):
    return TWO.replace("@MORE@", more).replace(
        "@", ", ".join(f'"127.0.0.1:{port}"' for port in ports))


def test_listeners_come_and_go(backend, tmp_path):
    with Reloading(tmp_path, listens("$PORT"), backend) as gate:
        first, second, third = gate.port, free_port(), free_port()
        kept = gate.listening(first)
        gate.reload(listens(third, first, second))
        for port in (first, second, third):
            gate.await_answer("/gen", b"1", port=port)
        assert gate.listening(first) == kept and len(gate.listening(second)) == 2
        seconds = gate.listening(second)
        gate.reload(listens(second, first))
        await_that(lambda: refused(third), gate.stderr)
        assert gate.listening(first) == kept and gate.listening(second) == seconds
        await_that(lambda: is_free(third), gate.stderr)
        gate.reload(listens(second))
        await_that(lambda: refused(first), gate.stderr)
        assert gate.get("/gen", port=second).body == b"1"
        gate.reload(listens(first, second))
        gate.await_answer("/gen", b"1", port=first)
        gate.ports = [first]


def test_a_removed_listener_serves_what_it_has(backend, tmp_path):
    """Requests under way are finished, idle connections end, tunnels stay."""
    go, arrived = threading.Event(), threading.Event()

    def slow(peer, head, rest):
        arrived.set()
        go.wait(PATIENCE)
        peer.send(ok(b"late"))
        return rest

    def script(index, head):
        return echoing if b"/ws" in head else slow

    with Upstream(script) as upstream:
        more = f'  /slow: "http://127.0.0.1:{upstream.port}"\n  /ws: "http://127.0.0.1:{upstream.port}"\n'
        with Reloading(tmp_path, listens("$PORT", "$PORT2", more=more), backend) as gate:
            kept, removed = gate.ports
            with (gate.connect(PATIENCE, removed) as idle, gate.connect(PATIENCE, removed) as busy,
                  gate.connect(PATIENCE, removed) as tunnelled, gate.connect(PATIENCE, removed) as new,
                  gate.connect(PATIENCE, kept) as other):
                for s in (idle, other):
                    s.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\n\r\n")
                readers = Reader(idle), Reader(other)
                assert [r.response().status for r in readers] == [200, 200]
                tunnelled.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")
                tunnel_reader = Reader(tunnelled)
                assert tunnel_reader.response().status == 101
                busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
                assert arrived.wait(PATIENCE)
                gate.reload(listens(kept, more=more))
                assert readers[0].at_end()
                await_that(lambda: refused(removed), gate.stderr)
                go.set()
                reader = Reader(busy)
                r = reader.response()
                assert (r.status, r.body, r.get("Connection")) == (200, b"late", "close")
                assert reader.at_end() and Reader(new).at_end()
                tunnelled.sendall(b"still here")
                assert tunnel_reader.exactly(10) == b"still here"
                other.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\n\r\n")
                r = readers[1].response()
                assert r.status == 200 and r.get("Connection") is None
            gate.ports = [kept]


def test_a_removed_listener_redirects_to_the_last(backend, tmp_path):
    """What was never to be had in the clear is not because its listener goes."""
    config = 'server: {listen: ["127.0.0.1:$PORT2"%s]}\nroutes: {"/gen": OK 1}\n'
    there = ', {address: "127.0.0.1:$PORT", redirect_https: 8443}'
    with Reloading(tmp_path, config % there, backend) as gate:
        with gate.connect(PATIENCE, gate.ports[0]) as s:
            s.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\n")
            await_read(s)
            await_that(lambda: gate.get("/gen", port=gate.ports[0]).status == 308, gate.stderr)
            gate.reload(config % "")
            await_that(lambda: refused(gate.ports[0]), gate.stderr)
            s.sendall(b"\r\n")
            r = Reader(s).response()
            assert (r.status, r.get("Location")) == (308, "https://x:8443/gen")


RULES = """server:
  listen: [%s{address: "127.0.0.1:$PORT2", redirect_https: 443}, {address: "127.0.0.1:$PORT3", limits: {max_body: 1k}},
           {address: "127.0.0.1:$PORT4", limits: {max_body: 1}, stream: true}]
routes: {"/gen": OK 1}
"""


def test_a_removed_listener_is_held_to_no_others_rules(backend, tmp_path):
    """Whichever listener has its number now; but for content, of which the least is allowed that any allows."""
    with Reloading(tmp_path, RULES % '"127.0.0.1:$PORT", ', backend) as gate:
        with gate.connect(PATIENCE, gate.ports[0]) as s, gate.connect(PATIENCE, gate.ports[0]) as large:
            s.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\n")
            large.sendall(b"POST /gen HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n")
            await_read(s)
            await_read(large)
            await_that(lambda: gate.get("/gen", port=gate.ports[0]).status == 200, gate.stderr)
            gate.reload(RULES % "")
            await_that(lambda: refused(gate.ports[0]), gate.stderr)
            s.sendall(b"\r\n")
            large.sendall(b"\r\n")
            r = Reader(s).response()
            assert (r.status, r.body, r.get("Connection")) == (200, b"1", "close")
            assert Reader(large).response().status == 413
        gate.ports = gate.ports[1:]


def test_unix_sockets_come_and_go(backend, tmp_path):
    path = tmp_path / "gate.sock"

    def ask():
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(PATIENCE)
            s.connect(str(path))
            s.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return Reader(s).response().body

    def is_gone():
        try:
            ask()
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except (Closed, ConnectionError):
            pass  # it was half in
        return False

    both = TWO.replace("@MORE@", "").replace("@", f'"127.0.0.1:$PORT", "unix:{path}"')
    with Reloading(tmp_path, listens("$PORT"), backend) as gate:
        assert not path.exists()
        for _ in range(3):
            gate.reload(both)
            await_that(path.exists, gate.stderr)
            assert [ask() for _ in range(8)] == [b"1"] * 8
            gate.reload(both)
            assert [ask() for _ in range(8)] == [b"1"] * 8
            gate.reload(listens("$PORT"))
            for _ in range(4):
                gate.get("/gen")
            await_that(is_gone, gate.stderr)


# ---- what lives on

def test_upstream_connections_are_carried_over(backend, tmp_path):
    def config(upstream, keep=8, routes=""):
        return ('server: {listen: ["127.0.0.1:$PORT"], workers: 1}\n'
                "proxy:\n  upstreams:\n    up:\n"
                f'      servers: ["127.0.0.1:{upstream.port}"]\n'
                f"      keepalive: {{max_idle: {keep}}}\n"
                f'routes:\n  /p: "http://up"\n  /q: "http://127.0.0.1:{upstream.port}"\n{routes}')

    with Upstream(lambda i, head: ok()) as upstream:
        with Reloading(tmp_path, config(upstream), backend) as gate:
            gate.get("/p"), gate.get("/q")
            assert len(upstream.received) == 2  # two definitions, a pool each
            for i in range(5):
                gate.reload(config(upstream, routes=f"  /gen: OK {i}\n"))
                gate.await_answer("/gen", b"%d" % i)
                assert gate.get("/p").status == gate.get("/q").status == 200
            assert len(upstream.received) == 2, "a reload opens no connections"
            gate.reload(config(upstream, keep=9, routes="  /gen: OK changed\n"))
            gate.await_answer("/gen", b"changed")
            gate.get("/p"), gate.get("/q")
            assert len(upstream.received) == 2, "nor do other options: what is connected stays"


def test_cached_files_are_carried_over(backend, tmp_path):
    """The directory's descriptor is the snapshot's, the file the shard's: neither adds up."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.txt").write_text("a")
    config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, drain_timeout: 50ms}\n'
              'routes:\n  "/f/": "./files/"\n  /gen: OK @\n')
    with Reloading(tmp_path, config.replace("@", "0"), backend) as gate:
        assert gate.get("/f/a.txt").body == b"a"
        before = len(gate.descriptors())
        for i in range(1, 20):
            gate.reload(config.replace("@", str(i)))
            gate.await_answer("/gen", b"%d" % i)
            assert gate.get("/f/a.txt").body == b"a"
        await_that(lambda: len(gate.descriptors()) <= before, gate.descriptors)


# ---- what changes

def test_limits_change(backend, tmp_path):
    config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, limits: {@}}\n'
              "routes:\n  /gen: OK @GEN@\n  /e: *\n")
    long = b"GET /gen HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"y" * 3000)
    with Reloading(tmp_path, config.replace("@GEN@", "1").replace("@", "max_body: 10"),
                   backend) as gate:
        with gate.connect(PATIENCE) as s:
            reader = Reader(s)
            assert gate.get("/e", "Content-Length: 11\r\n", method="POST", body=b"y" * 11).status == 413
            s.sendall(long)
            assert reader.response().status == 200
            gate.reload(config.replace("@GEN@", "2").replace("@", "max_header: 2k, max_line: 1k"))
            gate.await_answer("/gen", b"2")
            assert gate.get("/e", "Content-Length: 11\r\n", method="POST", body=b"y" * 11).status == 200
            assert gate.ask(long).status == 431
            s.sendall(long)  # on a connection of before
            assert reader.response().status == 431


def test_an_idle_timeout_that_shrinks(backend, tmp_path):
    config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, limits: {idle_timeout: @}}\n'
              "routes:\n  /gen: OK @GEN@\n")
    with Reloading(tmp_path, config.replace("@GEN@", "1").replace("@", "1h"), backend) as gate:
        gate.reload(config.replace("@GEN@", "2").replace("@", "200ms"))
        gate.await_answer("/gen", b"2")
        with gate.connect(PATIENCE) as s:
            s.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\n\r\n")
            reader = Reader(s)
            assert reader.response().status == 200
            assert reader.at_end()


def test_a_timeout_that_shrinks_under_a_wait(backend, tmp_path):
    """Idle or with a part of a head, over HTTP/1 and HTTP/2; who has said nothing yet has the time of a head."""
    config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, limits: {idle_timeout: @, header_timeout: ^}}\n'
              "routes:\n  /gen: OK @GEN@\n")
    with Reloading(tmp_path, config.replace("@GEN@", "1").replace("@", "1h").replace("^", "1h"), backend) as gate:
        with (gate.connect(PATIENCE) as idle, gate.connect(PATIENCE) as part, gate.connect(PATIENCE) as fresh,
              h2wire.connect(gate.port) as h2):
            idle.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\n\r\n")
            reader = Reader(idle)
            assert reader.response().status == 200
            assert h2.get("/gen").status == 200
            part.sendall(b"GET /gen HTTP/1.1\r\n")
            gate.reload(config.replace("@GEN@", "2").replace("@", "300ms").replace("^", "1h"))
            assert reader.at_end()
            h2.expect(h2wire.T.GOAWAY)
            fresh.sendall(b"GET /gen HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert Reader(fresh).response().status == 200
            gate.reload(config.replace("@GEN@", "3").replace("@", "300ms").replace("^", "300ms"))
            assert Reader(part).response().status == 408


def test_the_log_changes(backend, tmp_path):
    config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, access_log: @}\n'
              "routes:\n  /gen: OK @GEN@\n")
    with Reloading(tmp_path, config.replace("@GEN@", "1").replace("@", "off"), backend) as gate:
        gate.get("/gen?off")
        gate.reload(config.replace("@GEN@", "2").replace("@", "human"))
        gate.await_answer("/gen", b"2")
        gate.get("/gen?human")
        await_that(lambda: "/gen?human 200" in gate.stderr(), gate.stderr)
        gate.reload(config.replace("@GEN@", "3").replace("@", "off"))
        gate.await_answer("/gen", b"3")
        gate.get("/gen?quiet")
    text = (tmp_path / "stderr.log").read_text()
    assert "?off" not in text and "?quiet" not in text


def test_what_needs_a_restart_is_told(backend, tmp_path):
    config = 'server: {listen: ["127.0.0.1:$PORT"], workers: @}\nroutes:\n  /gen: OK 1\n'
    with Reloading(tmp_path, config.replace("@", "1"), backend) as gate:
        gate.reload(config.replace("@", "2"))
        told = "server.workers has changed, which takes effect at a restart"
        assert gate.stderr().count(told) == 1
        gate.reload(config.replace("@", "2"))  # the same again: one still runs
        assert gate.stderr().count(told) == 2
        gate.reload(config.replace("@", "1"))
        assert gate.stderr().count(told) == 2


def test_a_configuration_from_flags(backend, tmp_path):
    """There is no file to read again; included ones are not there, the rest stays as it is."""
    gate = Reloading(tmp_path, None, backend, args=["-l", "127.0.0.1:$PORT", "-r", "/gen: OK 1"])
    with gate:
        gate.reload()
        assert gate.get("/gen").body == b"1"


# ---- signals in odd moments

def test_many_at_once(backend, tmp_path):
    config = 'server: {listen: ["127.0.0.1:$PORT"], workers: 2}\nroutes:\n  /gen: OK @\n'
    with Reloading(tmp_path, config.replace("@", "1"), backend) as gate:
        for i in range(200):
            gate.process.send_signal(signal.SIGHUP)
        gate.write(config.replace("@", "2"))
        gate.process.send_signal(signal.SIGHUP)
        gate.await_answer("/gen", b"2")


def test_while_draining(backend, tmp_path):
    go, arrived = threading.Event(), threading.Event()

    def slow(peer, head, rest):
        arrived.set()
        go.wait(PATIENCE)
        peer.send(ok(b"late"))
        return rest

    with Upstream(lambda i, head: slow) as upstream:
        gate = Reloading(tmp_path, 'server: {listen: ["127.0.0.1:$PORT"], workers: 2}\nroutes:\n'
                         f'  /slow: "http://127.0.0.1:{upstream.port}"\n', backend)
        with gate.connect(PATIENCE) as s:
            s.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            assert arrived.wait(PATIENCE)
            for _ in range(20):
                gate.process.send_signal(signal.SIGHUP)
            gate.process.send_signal(signal.SIGTERM)
            for _ in range(20):
                gate.process.send_signal(signal.SIGHUP)
            await_that(lambda: "draining" in gate.stderr(), gate.stderr)
            go.set()
            assert Reader(s).response().body == b"late"
        assert gate.process.wait(PATIENCE) == 0
        gate.stop()


# ---- memory

def resident(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Rss")


def test_memory_is_flat(backend, tmp_path):
    """200 reloads of a configuration of half a megabyte with tunnels open throughout: were their
    snapshots kept, they would come to more than fifty."""
    def config(generation):
        routes = "".join(f"  GET /route/number/{i}: OK {generation} {'x' * 40}\n" for i in range(1000))
        return ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, drain_timeout: 20ms}\n'
                f'routes:\n  /gen: OK {generation}\n  /ws: "http://127.0.0.1:{upstream.port}"\n{routes}')

    with Upstream(lambda i, head: echoing) as upstream:
        gate = Reloading(tmp_path, config(0), backend, binary=without_sanitizers())
        with gate:
            tunnels = []
            for generation in range(1, 201):
                if generation <= 100 and generation % 2:
                    s = gate.connect(PATIENCE)
                    s.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")
                    reader = Reader(s)
                    assert reader.response().status == 101
                    tunnels.append((s, reader))
                gate.reload(config(generation))
                if generation % 50 == 0:
                    gate.await_answer("/gen", b"%d" % generation)
                if generation == 100:
                    time.sleep(0.2)
                    before, descriptors = resident(gate.process.pid), len(gate.descriptors())
            assert len(tunnels) == 50
            for s, reader in tunnels:
                s.sendall(b"still")
                assert reader.exactly(5) == b"still"
            await_that(lambda: len(gate.descriptors()) <= descriptors, gate.descriptors)
            await_that(lambda: resident(gate.process.pid) - before < 5 << 20,
                       lambda: f"{resident(gate.process.pid) - before} bytes more after 100 reloads")
            for s, _ in tunnels:
                s.close()
            gate.await_alone()
