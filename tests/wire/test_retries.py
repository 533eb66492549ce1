"""An upstream that fails in each way at each moment before its answer's head, and one beside it that is sound:
what may be asked again is, whole, and its client sees the sound one's answer; what may not is not."""
import json
import re
import socket
import struct
import threading
import time

import pytest
from acceptor import Acceptor
from gate import Closed, Gate, Reader, free_port
from waiting import again

CONTENT = bytes(i * 7 % 251 for i in range(30000))

CONFIG = """
server: {{listen: ["127.0.0.1:$PORT"], workers: 1, access_log: json}}
proxy:
  upstreams:
    two:
      servers: ["127.0.0.1:{bad}", "127.0.0.1:{good}"]
      retry: {{attempts: 2, on: [connect, reset, timeout, 502, 503], backoff: 2ms, per_try: {per_try},
               budget: 100%}}
    plain: {{servers: ["127.0.0.1:{bad}", "127.0.0.1:{good}"]}}
routes:
  "/two/*": http://two
  "/plain/*": http://plain
  "/all/*": {{action: "http://two", retry: all}}
  "/off/*": {{action: "http://two", retry: off}}
  "/long/*": {{action: "http://two", retry: {{buffer: 1k}}}}
"""


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def content_of(reader, head):
    """The content behind a head, whole."""
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if length:
        return reader.exactly(int(length[1]))
    out = b""
    while b"chunked" in head.lower():
        size = int(reader.until(b"\r\n"), 16)
        out += reader.exactly(size)
        assert reader.exactly(2) == b"\r\n"
        if size == 0:
            return out
    return out


class Server:
    """Hands each connection's reader and socket to `serve` until that ends."""

    def __init__(self, serve):
        self.serve, self.sock = serve, socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.sock.getsockname()[1]
        self.seen = []  # (head, content) of each request that was read whole
        self.lock = threading.Lock()
        self.open = set()
        self.acceptor = Acceptor(self.sock, self._take)

    def _take(self, conn):
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.open.add(conn)
        threading.Thread(target=self._run, args=(conn,), daemon=True).start()

    def _run(self, conn):
        try:
            self.serve(self, conn, Reader(conn))
        except (OSError, Closed):
            pass
        finally:
            with self.lock:
                self.open.discard(conn)
            conn.close()

    def request(self, reader):
        head = reader.until(b"\r\n\r\n")
        content = content_of(reader, head)
        with self.lock:
            self.seen.append((head, content))
        return head, content

    def stop_listening(self):
        self.acceptor.close()

    def die(self):
        """At once, with all that is open."""
        self.stop_listening()
        with self.lock:
            conns = list(self.open)
        for conn in conns:
            try:
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def sound(server, conn, reader):
    while True:
        _, content = server.request(reader)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
                     % (len(content) + 5, b"good:" + content))


def after(words, then=lambda conn: conn.close(), whole=True):
    """Reads a request (`whole`) or its head alone, says `words`, and does `then`."""
    def serve(server, conn, reader):
        while True:
            if whole:
                server.request(reader)
            else:
                reader.until(b"\r\n\r\n")
            conn.sendall(words)
            then(conn)
    return serve


def at_once(server, conn, reader):
    conn.close()


def amid_content(server, conn, reader):
    reader.until(b"\r\n\r\n")
    reader.exactly(1000)
    reset(conn)


WAYS = {
    "closes before it reads": at_once,
    "closes after the request": after(b""),
    "resets after the request": after(b"", reset),
    "closes after the head": after(b"", whole=False),
    "says half a status line": after(b"HTTP/1.1 2"),
    "says half a head": after(b"HTTP/1.1 200 OK\r\nContent-Le", reset),
    "says 103 alone": after(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "speaks something else": after(b"\x16\x03\x01\x00\x01"),
    "says two lengths": after(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
}
STATUSES = {
    "502 with a length": after(b"HTTP/1.1 502 No\r\nContent-Length: 3\r\n\r\nbad", lambda _: None),
    "503 in chunks": after(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n",
                           lambda _: None),
    "503 until the end": after(b"HTTP/1.1 503 No\r\n\r\nbad"),
    "503 that does not end": after(b"HTTP/1.1 503 No\r\nContent-Length: 99\r\n\r\nbad",
                                   lambda _: None),
    "503 before the content": after(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", whole=False),
}
SILENCE = {"says nothing": after(b"", lambda _: None)}


class Pair:
    """A try may take long, unless one that says nothing has to end: then the sound one must be quicker, too."""

    def __init__(self, folder, backend, bad, per_try="20s"):
        self.bad, self.good = Server(bad), Server(sound)
        self.gate = Gate(folder, CONFIG.format(bad=self.bad.port, good=self.good.port, per_try=per_try), backend)

    def __enter__(self):
        self.gate.__enter__()
        return self

    def __exit__(self, *what):
        for server in (self.bad, self.good):
            server.die()
        self.gate.__exit__(*what)

    def ask(self, path, method="GET", content=b""):
        length = f"Content-Length: {len(content)}\r\n" if content or method == "POST" else ""
        return self.gate.get(path, length, method=method, body=content)


def twice_at_most(pair):
    with pair:
        for method, content in [("GET", b""), ("PUT", CONTENT)] * 2:
            r = pair.ask("/two/x", method, content)
            assert (r.status, r.body) == (200, b"good:" + content), (method, r)
        assert [content for _, content in pair.good.seen] == [b"", CONTENT] * 2


@pytest.mark.parametrize("way", [*WAYS, *STATUSES])
def test_what_may_happen_twice_is_answered(tmp_path, backend, way):
    twice_at_most(Pair(tmp_path, backend, {**WAYS, **STATUSES}[way]))


@pytest.mark.parametrize("way", SILENCE)
def test_who_is_late_is_not_waited_for(tmp_path, backend, way):
    again(lambda: twice_at_most(Pair(tmp_path, backend, SILENCE[way], per_try="300ms")))


@pytest.mark.parametrize("way", list(WAYS))
def test_by_default_another_server_is_asked_once_more(tmp_path, backend, way):
    with Pair(tmp_path, backend, WAYS[way]) as pair:
        for _ in range(4):
            assert pair.ask("/plain/x").body == b"good:"


@pytest.mark.parametrize("way", ["closes after the request", "resets after the request",
                                 "503 in chunks"])
def test_what_may_not_happen_twice_does_not(tmp_path, backend, way):
    with Pair(tmp_path, backend, {**WAYS, **STATUSES}[way]) as pair:
        answers = [pair.ask(path, "POST", b"once") for path in ("/two/x", "/off/x") * 2]
        assert sorted(r.status for r in answers)[:2] == [200, 200]
        assert {r.status for r in answers} <= {200, 502, 503}
        assert len(pair.bad.seen) + len(pair.good.seen) == 4
        for _ in range(2):
            assert pair.ask("/all/x", "POST", b"twice").body == b"good:twice"


def test_a_request_that_is_cut_in_its_content(tmp_path, backend):
    with Pair(tmp_path, backend, amid_content) as pair:
        for _ in range(2):
            assert pair.ask("/two/x", "PUT", CONTENT).body == b"good:" + CONTENT
        statuses = sorted(pair.ask("/long/x", "PUT", CONTENT).status for _ in range(2))
        assert statuses == [200, 502]


def test_content_that_comes_slowly_is_sent_again(tmp_path, backend):
    """The first server fails amid content, the rest of which comes later, in chunks."""
    with Pair(tmp_path, backend, amid_content) as pair:
        for _ in range(2):
            with pair.gate.connect() as s:
                s.sendall(b"PUT /two/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n")
                for at in range(0, len(CONTENT), 3000):
                    piece = CONTENT[at:at + 3000]
                    s.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                    time.sleep(0.01)
                s.sendall(b"0\r\n\r\n")
                assert Reader(s).response("PUT").body == b"good:" + CONTENT


def test_100_continue_is_passed_on_once_and_content_again(tmp_path, backend):
    def expects(server, conn, reader):
        head = reader.until(b"\r\n\r\n")
        assert b"100-continue" in head.lower()
        conn.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        content_of(reader, head)
        reset(conn)

    with Pair(tmp_path, backend, expects) as pair:
        for _ in range(2):
            with pair.gate.connect() as s:
                s.sendall(b"PUT /two/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                          b"Expect: 100-continue\r\nContent-Length: 30000\r\n\r\n")
                time.sleep(0.05)
                s.sendall(CONTENT)
                r = Reader(s).response("PUT")
                assert r.body == b"good:" + CONTENT
                assert [i.status for i in r.interim] in ([], [100])


def test_the_log_tells_of_tries(tmp_path, backend):
    with Pair(tmp_path, backend, WAYS["closes after the request"]) as pair:
        for _ in range(2):
            pair.ask("/two/x")
        deadline = time.monotonic() + 10
        lines = []
        while len(lines) < 2 and time.monotonic() < deadline:
            lines = [json.loads(line) for line in pair.gate.stderr().splitlines()
                     if line.startswith('{"time"') and '"target":"/two/x"' in line]
            time.sleep(0.02)
        assert sorted(line.get("upstream_tries", 1) for line in lines) == [1, 2]


THREE = """
server: {{listen: ["127.0.0.1:$PORT"], workers: 1}}
proxy:
  upstreams:
    three: {{servers: ["127.0.0.1:{0}", "127.0.0.1:{1}", "127.0.0.1:{2}"]}}
routes:
  "/*": http://three
"""


def test_one_of_three_that_is_dead_costs_no_client_anything(tmp_path, backend):
    servers = [Server(sound) for _ in range(2)]
    config = THREE.format(free_port(), *(s.port for s in servers))
    with Gate(tmp_path, config, backend) as gate:
        for i in range(60):
            method = ["GET", "POST", "PUT"][i % 3]
            body = b"" if method == "GET" else b"x"
            r = gate.get("/", "" if method == "GET" else "Content-Length: 1\r\n", method=method,
                         body=body)
            assert (r.status, r.body) == (200, b"good:" + body)
        for server in servers:
            server.die()


def test_one_of_three_that_dies_at_work_costs_no_get_an_error(tmp_path, backend):
    def slow(server, conn, reader):
        while True:
            server.request(reader)
            time.sleep(0.005)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")

    servers = [Server(slow) for _ in range(3)]
    seen, lock = [], threading.Lock()
    with Gate(tmp_path, THREE.format(*(s.port for s in servers)), backend) as gate:
        def work():
            with gate.connect() as s:
                reader = Reader(s)
                for _ in range(60):
                    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    r = reader.response()
                    with lock:
                        seen.append((r.status, r.body))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for t in threads:
            t.start()
        while True:
            with lock:
                if len(seen) > 100:
                    break
            time.sleep(0.005)
        servers[0].die()
        for t in threads:
            t.join(60)
        assert len(seen) == 360 and set(seen) == {(200, b"good")}, set(seen)
        for server in servers[1:]:
            server.die()


HEDGE = """
server: {{listen: ["127.0.0.1:$PORT"], workers: 1}}
proxy:
  upstreams:
    three:
      servers: ["127.0.0.1:{0}", "127.0.0.1:{1}", "127.0.0.1:{2}"]
      hedge: {{after: 10ms, max: 2}}
      retry: {{attempts: 3, budget: 100%}}
routes:
  "/*": http://three
"""


def test_hedges_leave_each_client_one_whole_answer(tmp_path, backend):
    """Servers that are slow and quick by turns, with long content, under load."""
    turn, lock = [0], threading.Lock()

    def moody(server, conn, reader):
        while True:
            head, _ = server.request(reader)
            with lock:
                turn[0] += 1
                mood = turn[0] % 5
            if mood == 1:
                time.sleep(0.05)
            elif mood == 3:
                time.sleep(0.015)
            body = head.split()[1] * 20000
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            for at in range(0, len(body), 30000):
                conn.sendall(body[at:at + 30000])

    servers = [Server(moody) for _ in range(3)]
    wrong = []
    with Gate(tmp_path, HEDGE.format(*(s.port for s in servers)), backend) as gate:
        def work(number):
            with gate.connect() as s:
                reader = Reader(s)
                for i in range(25):
                    path = b"/%d/%d" % (number, i)
                    s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                    r = reader.response()
                    if (r.status, r.body) != (200, path * 20000):
                        wrong.append((path, r.status, len(r.body)))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
        assert not any(t.is_alive() for t in threads) and not wrong, wrong
        asked = sum(len(s.seen) for s in servers)
        assert asked > 100, "no request was hedged"
        for server in servers:
            server.die()


MIRROR = """
server: {{listen: ["127.0.0.1:$PORT"], workers: 1}}
proxy:
  upstreams:
    shadow: {{servers: ["127.0.0.1:{shadow}"], timeouts: {{first_byte: 1s}}}}
routes:
  "/*": {{action: "http://127.0.0.1:{good}", mirror: shadow}}
"""


@pytest.mark.parametrize("way", ["sound", "says nothing", "closes after the request", "dead"])
def test_a_mirror_gets_what_the_upstream_gets(tmp_path, backend, way):
    good = Server(sound)
    shadow = Server({**WAYS, **SILENCE, "sound": sound, "dead": sound}[way])
    if way == "dead":
        shadow.stop_listening()
    with Gate(tmp_path, MIRROR.format(good=good.port, shadow=shadow.port), backend) as gate:
        for method, content in [("GET", b""), ("POST", CONTENT)] * 3:
            length = f"Content-Length: {len(content)}\r\n" if content else ""
            r = gate.get("/a?b", length, method=method, body=content)
            assert (r.status, r.body) == (200, b"good:" + content)
        deadline = time.monotonic() + 10
        while way != "dead" and len(shadow.seen) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        if way != "dead":
            assert sorted(shadow.seen) == sorted(good.seen)
    for server in (good, shadow):
        server.die()
