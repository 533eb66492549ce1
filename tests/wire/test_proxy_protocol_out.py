"""PROXY headers towards upstreams: first on each connection, before its handshake, and each of one client alone."""
import socket
import threading
import time

import h2wire
import proxyprotocol as pp
import pytest
from acceptor import Acceptor, each_in_a_thread
from gate import Gate, Reader, free_port
from tlswire import shake
from waiting import await_that, await_unix_listener

CONFIG = """
server:
  workers: 1
  listen:
    - "127.0.0.1:$PORT"
    - {address: "127.0.0.1:$PORT2", tls: true}
    - {address: "127.0.0.1:%(front)d", proxy_protocol: 127.0.0.1}
    - {address: "unix:%(folder)s/front"}
    - {address: "127.0.0.1:$PORT3"}
    - {address: "127.0.0.1:$PORT4", tls: true}
tls: {certificates: [{cert: "%(chain)s", key: "%(key)s"}]}
proxy:
  timeouts: {connect: 30s}
  tls: {ca: "%(ca)s", server_name: a.example, handshake_timeout: 30s}
  upstreams:
    one: {servers: ["127.0.0.1:%(plain)d"], proxy_protocol: v1}
    two: {servers: ["127.0.0.1:%(plain)d"], proxy_protocol: v2}
    safe: {servers: ["127.0.0.1:%(tls)d"], proxy_protocol: v2}
    both: {servers: ["127.0.0.1:%(dead)d", "127.0.0.1:%(plain)d"], proxy_protocol: v1}
    none: {servers: ["127.0.0.1:$PORT3"], proxy_protocol: off}
    brief: {servers: ["127.0.0.1:%(plain)d"], proxy_protocol: v1, keepalive: {idle_timeout: 100ms}}
    tight: {servers: ["127.0.0.1:%(plain)d"], proxy_protocol: v1, max_connections: 1}
    never: {servers: ["127.0.0.1:%(plain)d"], proxy_protocol: v1, keepalive: {max_idle: 0}}
routes:
  "/one": "http://one/ok"
  "/two": "http://two/ok"
  "/h2c": "h2c://two/ok"
  "/https": "https://safe/ok"
  "/h2": "h2://safe/ok"
  "/both": "http://both/ok"
  "/none": "http://none/ok"
  "/one/in": "http://one/in"
  "/brief": "http://brief/ok"
  "/tight": "http://tight/ok"
  "/never": "http://never/ok"
  "/ok": OK OK
  "/in": "*"
"""
PATHS = ["/one", "/two", "/h2c", "/https", "/h2"]


class Stripper:
    """Takes the header of each connection, and relays the rest."""

    def __init__(self, port):
        self.to, self.headers, self.broken = port, [], []
        self.live, self.lock = 0, threading.Lock()
        self.go_on = threading.Event()
        self.go_on.set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.acceptor = Acceptor(self.listener, each_in_a_thread(self._serve))

    def _serve(self, s):
        data, got = b"", None
        try:
            while (got := pp.read(data)) is None:
                if not (more := s.recv(65536)):
                    return
                data += more
            header, rest = got
            self.headers.append(header)
            self._count(1)
            assert self.go_on.wait(20)
            with socket.create_connection(("127.0.0.1", self.to)) as to:
                to.sendall(rest)
                back = threading.Thread(target=self._pump, args=(to, s), daemon=True)
                back.start()
                self._pump(s, to)
                back.join()
        except (AssertionError, KeyError) as error:
            self.broken.append(f"{error!r}: {data!r}")
        except OSError:
            pass
        finally:
            s.close()
            if got:
                self._count(-1)

    def _count(self, more):
        with self.lock:
            self.live += more

    @staticmethod
    def _pump(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def await_live(self, count):
        """Until so many connections are open."""
        await_that(lambda: self.live == count, lambda: self.live, 20)

    def take(self):
        assert not self.broken, self.broken
        out, self.headers = self.headers, []
        return out


@pytest.fixture(scope="module")
def gate(backend, certs, tmp_path_factory):
    leaf, folder = certs.usual()["a"], tmp_path_factory.mktemp("gate")
    ports = [free_port() for _ in range(4)]
    plain, tls, front = Stripper(ports[2]), Stripper(ports[3]), free_port()
    text = CONFIG % {"folder": folder, "chain": leaf.chain, "key": leaf.key, "ca": leaf.ca, "front": front,
                     "plain": plain.port, "tls": tls.port, "dead": free_port()}
    with Gate(folder, text, backend, ports=ports) as gate:
        gate.front, gate.plain, gate.tls = front, plain, tls
        await_unix_listener(folder / "front")
        yield gate


def upstream_of(gate, path):
    return gate.tls if path in ("/https", "/h2") else gate.plain


def headers_of(gate, path):
    return upstream_of(gate, path).take()


def get(s, path):
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    r = Reader(s).response()
    assert (r.status, r.body) == (200, b"OK"), r
    return r


@pytest.mark.parametrize("path", PATHS)
def test_a_plain_client(gate, path):
    with gate.connect() as s:
        for _ in range(3):
            get(s, path)
        mine = s.getsockname()
    [h] = headers_of(gate, path)  # one connection for all of its requests
    assert h.version == (1 if path == "/one" else 2) and not h.local
    assert h.source == mine and h.destination == ("127.0.0.1", gate.port)
    assert not h.tlvs


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_takes_its_connections_along(gate, path):
    upstream = upstream_of(gate, path)
    upstream.await_live(0)
    with gate.connect() as s, gate.connect() as other:
        get(s, path)
        get(other, path)
        upstream.await_live(2)
        s.close()
        upstream.await_live(1)
        get(other, path)
        assert len(upstream.take()) == 2
    upstream.await_live(0)


@pytest.mark.parametrize("path,headers", [("/brief", 2), ("/never", 2), ("/tight", 1)])
def test_a_connection_s_time_is_over(gate, path, headers):
    gate.plain.await_live(0)
    with gate.connect() as s:
        get(s, path)
        if headers > 1:
            gate.plain.await_live(0)
        get(s, path)
        assert len(gate.plain.take()) == headers


def test_who_waits_for_a_place_has_that_of_an_idle_one(gate):
    with gate.connect() as a, gate.connect() as b:
        for s in (a, b, b, a, b):
            get(s, "/tight")
        assert [h.source for h in gate.plain.take()] == [c.getsockname() for c in (a, b, a, b)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("alpn", [(), ("http/1.1",)], ids=["none", "http/1.1"])
def test_a_client_over_tls(gate, path, alpn):
    with shake(gate.ports[1], "a.example", alpn=alpn) as s:
        get(s, path)
        mine, version, cipher = s.getsockname(), s.version(), s.cipher()[0]
    [h] = headers_of(gate, path)
    assert h.source == mine and h.destination == ("127.0.0.1", gate.ports[1])
    if path == "/one":
        return
    client = h.tlvs.pop(pp.SSL)
    assert h.tlvs == {pp.AUTHORITY: b"a.example", **({pp.ALPN: alpn[0].encode()} if alpn else {})}
    assert client[:5] == b"\1\0\0\0\1"  # TLS; no certificate
    assert pp.tlvs_of(client[5:]) == {pp.SSL_VERSION: version.encode(), pp.SSL_CIPHER: cipher.encode()}


def test_a_client_of_http_2_and_its_streams(gate):
    """Requests at once have connections of their own, none is shared; one is kept, and used again."""
    gate.tls.await_live(0)
    gate.tls.go_on.clear()
    try:
        with h2wire.connect_tls(gate.ports[1]) as client:
            asked = [client.ask("/h2", scheme="https", authority="a.example") for _ in range(10)]
            gate.tls.await_live(10)
            gate.tls.go_on.set()
            for stream in asked:
                assert client.response(stream).status == 200
            gate.tls.await_live(1)
            assert client.get("/h2", scheme="https", authority="a.example").status == 200
            headers = headers_of(gate, "/h2")
            assert len(headers) == 10
            assert {h.source for h in headers} == {client.sock.getsockname()}
            assert {h.tlvs[pp.ALPN] for h in headers} == {b"h2"}
    finally:
        gate.tls.go_on.set()


def test_two_clients_share_nothing(gate):
    with gate.connect() as a, gate.connect() as b:
        for path in PATHS:
            for s in (a, b, b, a):
                get(s, path)
            assert [h.source for h in headers_of(gate, path)] == [a.getsockname(), b.getsockname()]


def test_who_waits_gets_no_other_s_connection(gate):
    """A client leaves while its connection is made: whoever asks for the same is not given that one."""
    gate.tls.go_on.clear()
    try:
        with gate.connect() as b:
            a = gate.connect()
            a.sendall(b"GET /h2 HTTP/1.1\r\nHost: x\r\n\r\n")
            await_that(lambda: gate.tls.headers, timeout=10)
            b.sendall(b"GET /h2 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)
            a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            a.close()
            time.sleep(0.1)
            gate.tls.go_on.set()
            assert Reader(b).response().status == 200
            assert b.getsockname() in [h.source for h in gate.tls.take()]
    finally:
        gate.tls.go_on.set()


@pytest.mark.parametrize("path", ["/one", "/two"])
def test_a_header_that_came_is_handed_on(gate, path):
    """Not the forwarding fields, which anybody may write."""
    with gate.connect(port=gate.front) as s:
        s.sendall(pp.v2("2001:db8::7", "2001:db8::1", 77, 443))
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n".encode())
        assert Reader(s).response().status == 200
    [h] = headers_of(gate, path)
    assert (h.source, h.destination) == (("2001:db8::7", 77), ("2001:db8::1", 443))


def test_two_families_are_told_as_one(gate):
    with gate.connect(port=gate.front) as s:
        s.sendall(b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 5 6\r\n")
        get(s, "/one")
        get(s, "/two")
    for h in gate.plain.take():
        assert (h.source, h.destination) == (("::ffff:192.0.2.1", 5), ("2001:db8::1", 6))


@pytest.mark.parametrize("path", ["/one", "/two", "/h2"])
def test_a_client_on_a_unix_socket_is_not_told(gate, path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(gate.folder / "front"))
        get(s, path)
    [h] = headers_of(gate, path)
    assert h.source is None and not h.local


def test_the_next_server_is_told_too(gate):
    for _ in range(4):
        with gate.connect() as s:
            get(s, "/both")
            [h] = gate.plain.take()
            assert h.source == s.getsockname()


def test_an_upload_follows_its_header(gate):
    body = b"0123456789" * 100000
    with gate.connect() as s:
        s.sendall(b"POST /one/in HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert Reader(s).response().status == 200
    assert len(gate.plain.take()) == 1


def test_off_is_off(gate):
    with gate.connect() as s:
        get(s, "/none")
    assert not gate.plain.take()
