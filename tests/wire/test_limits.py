"""THREATS.md, resources: slow and large requests end as SPEC says, others are not disturbed."""
import contextlib
import resource
import socket
import threading
import time

import h2wire
import pytest
from gate import Closed, Gate, Reader, Upstream, ok
from waiting import again, await_hangup

CONFIG = """
server:
  listen:
    - "127.0.0.1:$PORT"
    - {address: "127.0.0.1:$PORT2", limits: {header_timeout: 20s, idle_timeout: 20s, body_timeout: 20s,
       body_grace: 20s}}
  workers: 1
  limits: {header_timeout: 400ms, idle_timeout: 400ms, body_timeout: 400ms, body_grace: 200ms,
           min_rate: 100k, max_body: 64k, max_discard: 128k, write_timeout: 700ms}
routes:
  "/fixed": OK OK
  "/echo": "*"
  "/up/*": "http://127.0.0.1:%d"
"""
PROBE = b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n"


def patient(config):
    """The same where new and idle clients have time."""
    return config.replace("header_timeout: 400ms, idle_timeout: 400ms", "header_timeout: 20s, idle_timeout: 20s")


def hold(peer, _head, _rest):
    """An upstream that says nothing more, until the gateway has enough."""
    while peer.sock.recv(65536):
        pass


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    with Upstream(lambda i, head: ok(b"up")) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % up.port, backend) as gate:
            yield gate, up


@contextlib.contextmanager
def trickling(sock, drip, every=0.02):
    """Sends `drip` again and again, as long as the server takes it."""
    stop = threading.Event()

    def trickle():
        while drip and not stop.wait(every):
            try:
                sock.sendall(drip)
            except OSError:
                return
    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def refused(gate, first, status, drip=None, port=None):
    """Sends `first`, then `drip` again and again, until the server has enough."""
    def attempt():
        with gate.connect(port=port) as s:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have enough before that is all
                s.sendall(first)
            with trickling(s, drip):
                reader = Reader(s)
                r = reader.response()
                assert r.status == status and r.get("connection") == "close"
                reader.at_end()
    again(attempt)  # who connects and says nothing for long is not answered


def test_a_head_that_never_ends_is_408(setup):
    refused(setup[0], b"GET /fixed HTTP/1.1\r\nHost: x\r\n", 408)


@pytest.mark.parametrize("first, status", [(b"P", 408), (b"PR", 408), (b"PRI * HTTP/2.0", 408)])
def test_what_may_become_http2_and_does_not_is_late_too(setup, first, status):
    refused(setup[0], first, status)


def test_what_begins_late_as_http2_does_has_its_time(setup):
    def attempt():
        with setup[0].connect() as s:
            for piece in b"P", b"O":
                time.sleep(0.25)  # header_timeout is 0.4 s
                s.sendall(piece)
            time.sleep(0.05)
            s.sendall(b"ST /fixed HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert Reader(s).response().status == 200
    again(attempt)


def test_a_head_that_trickles_is_408(setup):
    refused(setup[0], b"GET /fixed HTTP/1.1\r\nHost: x\r\nX-A: ", 408, drip=b"a")


def test_trickling_fields_are_408(setup):
    refused(setup[0], b"GET /fixed HTTP/1.1\r\nHost: x\r\n", 408, drip=b"X-A: b\r\n")


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_that_stalls_is_408(setup, path):
    refused(setup[0], b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc" % path.encode(),
            408)


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_that_trickles_is_408(setup, path):
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" % path.encode()
    refused(setup[0], head, 408, drip=b"x")


def test_an_idle_connection_is_closed(setup):
    def attempt():
        with setup[0].connect() as s:
            s.sendall(PROBE)
            reader = Reader(s)
            assert reader.response().body == b"OK"
            assert reader.at_end()
    again(attempt)


def test_a_connection_that_says_nothing_is_closed(setup):
    with setup[0].connect() as s:
        assert Reader(s).at_end()


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_too_large_by_its_length_is_413_at_once(setup, path):
    gate, up = setup
    refused(gate, b"POST /%s?long HTTP/1.1\r\nHost: x\r\nContent-Length: 131073\r\n\r\n" % path.encode(), 413)
    assert not asked_for(up, b"/%s?long" % path.encode())


def asked_for(up, path):
    """The upstream's requests for it: those of other tests may still come."""
    return [head for head in up.requests if head.split()[1] == path]


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_a_little_too_large_is_dropped_and_the_connection_lives(setup, path):
    gate, up = setup
    with gate.connect(port=gate.ports[1]) as s:
        s.sendall(b"POST /%s?little HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n" % path.encode()
                  + b"x" * 65537)
        reader = Reader(s)
        assert reader.response().status == 413
        s.sendall(PROBE)
        assert reader.response().body == b"OK"
    assert not asked_for(up, b"/%s?little" % path.encode())


@pytest.mark.parametrize("path", ["echo", "up/p"])
def test_content_too_large_in_chunks_is_413(setup, path):
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
    refused(setup[0], head + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 3, 413, port=setup[0].ports[1])


def test_content_of_the_limit_passes(setup):
    r = setup[0].get("/up/p", "Content-Length: 65536\r\n", method="POST", body=b"x" * 65536, port=setup[0].ports[1])
    assert r.status == 200


def test_unwanted_content_is_dropped_and_the_connection_lives(setup):
    with setup[0].connect(port=setup[0].ports[1]) as s:
        s.sendall(b"POST /fixed HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000)
        reader = Reader(s)
        assert reader.response().body == b"OK"
        s.sendall(PROBE)
        assert reader.response().body == b"OK"


def test_an_expectation_that_nobody_wants_closes(setup):
    with setup[0].connect(port=setup[0].ports[1]) as s:
        s.sendall(b"POST /fixed HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        reader = Reader(s)
        r = reader.response()
        assert r.body == b"OK" and not r.interim and r.get("connection") == "close"


def test_an_expectation_of_the_echo_is_met(setup):
    with setup[0].connect(port=setup[0].ports[1]) as s:
        s.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        reader = Reader(s)
        assert reader.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        s.sendall(b"hello")
        assert b'"body":"hello"' in reader.response().body


@pytest.mark.parametrize("upstream", ["http", "h2c"])
@pytest.mark.parametrize("client", ["1", "2"])
def test_an_upstream_that_says_nothing_to_an_expectation_is_late(backend, tmp_path, upstream, client):
    """The client waits for it, and owes nothing: the upstream's timeout holds, not that of content."""
    up = h2wire.Upstream(lambda server, request: None) if upstream == "h2c" else \
        Upstream(lambda i, head: hold)
    config = patient(CONFIG).replace("http:", f"{upstream}:") % up.port + "    timeouts: {first_byte: 1s}\n"
    with up, Gate(tmp_path, config.replace('"/up/*":', '"/up/*":\n    action:'), backend) as gate:
        begin = time.monotonic()
        if client == "1":
            r = gate.get("/up/p", "Expect: 100-continue\r\nContent-Length: 5\r\n", method="PUT")
        else:
            with h2wire.connect(gate.port) as s:
                s.ask("/up/p", [("expect", "100-continue"), ("content-length", "5")], "PUT", end=False)
                r = s.response(1)
        assert r.status == 504 and 0.9 < time.monotonic() - begin, r.body


@pytest.mark.parametrize("upstream", ["http", "h2c"])
@pytest.mark.parametrize("sends", [b"", b"h"])
def test_a_client_that_was_told_to_go_on_and_does_not_is_late(backend, tmp_path, upstream, sends):
    def go_on(peer, head, rest):
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        hold(peer, head, rest)
    up = h2wire.Upstream(lambda server, request: server.send(h2wire.headers(
        h2wire.block((b":status", b"100")), request.stream, end=False))) if upstream == "h2c" else \
        Upstream(lambda i, head: go_on)
    config = patient(CONFIG).replace("http:", f"{upstream}:") % up.port + "    timeouts: {first_byte: 200ms}\n"

    def told(s):
        s.sendall(b"PUT /up/p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        reader = Reader(s)
        assert reader.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        return s, reader

    with up, Gate(tmp_path, config.replace('"/up/*":', '"/up/*":\n    action:'), backend) as gate:
        s, reader = again(lambda: told(gate.connect()))  # before the upstream is late
        with s:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(sends)
            assert reader.response().status == 408


def test_a_reader_that_stalls_is_cut(backend, tmp_path):
    size = 30_000_000
    with Upstream(lambda i, head: ok(b"x" * size)) as up:
        with Gate(tmp_path, patient(CONFIG) % up.port, backend) as gate:
            with gate.small_window(b"GET /up/g HTTP/1.1\r\nHost: x\r\n\r\n") as s:
                assert await_hangup(s)
                got = 0
                try:
                    while data := s.recv(1 << 20):
                        got += len(data)
                except ConnectionResetError:
                    pass
                assert got < size
            assert gate.get("/fixed").body == b"OK"


def read_slowly(s, pause, pieces, size=2048):
    """Bytes read before the server cut it, or after so many pieces."""
    got = 0
    try:
        for _ in range(pieces):
            data = s.recv(size)
            if not data:
                return got, True
            got += len(data)
            time.sleep(pause)
    except ConnectionResetError:
        return got, True
    return got, False


SLOW = """
server:
  listen:
    - "127.0.0.1:$PORT"
    - {address: "127.0.0.1:$PORT2", limits: {min_read_rate: 1k}}
  workers: 1
  limits: {min_read_rate: 1m, write_timeout: 600ms, idle_timeout: 500ms}
routes:
  "/up/*": "http://127.0.0.1:%d"
  "/patient/*": {action: "http://127.0.0.1:%d", limits: {min_read_rate: 0}}
  "/www/": "./www/"
"""
BIG = 30_000_000


@pytest.fixture(scope="module")
def slow(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    (folder / "www").mkdir()
    with open(folder / "www/big.bin", "wb") as f:
        f.truncate(BIG)
    switch = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")

    def script(index, head):
        return switch + b"x" * BIG if b"/tunnel" in head else ok(b"x" * BIG)
    with Upstream(script) as up:
        with Gate(folder, SLOW % (up.port, up.port), backend) as gate:
            yield gate


@pytest.mark.parametrize("request_head", [
    b"GET /up/g HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /up/g HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /www/big.bin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /www/big.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /up/tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
], ids=["proxied", "proxied-last", "file", "file-last", "tunnel"])
def test_a_reader_that_trickles_is_cut(slow, request_head):
    with slow.small_window(request_head) as s:
        got, cut = read_slowly(s, 0.02, 1000)
        assert cut and got < BIG


def test_requests_do_not_make_up_for_a_reader_that_stalls(slow):
    request = b"GET /up/g HTTP/1.1\r\nHost: x\r\n\r\n"
    with slow.small_window(request) as s, trickling(s, request):
        assert await_hangup(s)
        got, cut = read_slowly(s, 0, 1_000_000, 1 << 20)
        assert cut and got < BIG


@pytest.mark.parametrize("path, other", [("/patient/g", False), ("/up/g", True)],
                         ids=["by-route", "by-listener"])
def test_a_reader_that_keeps_the_rate_is_served(slow, path, other):
    port = slow.ports[1] if other else None

    def attempt():  # a pause of 0.6 s would end it
        with slow.small_window(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode(), port) as s:
            got, cut = read_slowly(s, 0.02, 100)
            assert not cut
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            while got < BIG and (data := s.recv(1 << 20)):
                got += len(data)
            assert got > BIG
    again(attempt)


LISTENERS = """
server:
  listen:
    - "127.0.0.1:$PORT"
    - {address: "127.0.0.1:$PORT2", limits: {max_line: 200, max_header: 1k, max_fields: 4,
       max_requests: 3, max_body: 100}}
    - {address: "127.0.0.1:$PORT3", limits: {max_body: 100, min_rate: 100k, body_grace: 300ms,
       body_timeout: 400ms}, stream: true}
    - {address: "127.0.0.1:$PORT4", limits: {max_connections: 2, idle_timeout: 20s}}
    - {address: "127.0.0.1:$PORT5", limits: {header_timeout: 300ms}}
    - {address: "127.0.0.1:$PORT6", limits: {max_body: 100, min_rate: 100k, body_grace: 300ms,
       body_timeout: 400ms, idle_timeout: 1500ms}, stream: true}
  workers: 1
  limits: {max_body: 50k, idle_timeout: 20s}
groups:
  - {match: "/group/*", limits: {max_body: 200}}
  - {match: "/flow/*", limits: {max_body: 200, min_rate: 100k, body_grace: 300ms,
     body_timeout: 400ms}, stream: true}
routes:
  "/fixed": OK OK
  "/echo": "*"
  "/group/echo": "*"
  "/group/own": {action: "*", limits: {max_body: 300}}
  "/flow/echo": "*"
  "/flow/strict": {action: "*", stream: false}
  "/flow/up": "http://127.0.0.1:%d"
  "/rpc": {action: "http://127.0.0.1:%d", limits: {max_body: 200, min_rate: 100k, body_grace: 300ms,
           body_timeout: 400ms}}
  "/strict-rpc": {action: "http://127.0.0.1:%d", limits: {max_body: 200}, stream: false}
"""


def answer_at_once(peer, head, buffer):
    """The head of the answer before the content has come, the content back as it comes."""
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not buffer.endswith(b"\r\n0\r\n\r\n"):
        buffer += peer.read(1)
    peer.send(b"4\r\nlast\r\n0\r\n\r\n")
    return b""


@pytest.fixture(scope="module")
def listeners(backend, tmp_path_factory):
    with Upstream(lambda i, head: answer_at_once if b"X-Early" in head else ok(b"up")) as up:
        with Gate(tmp_path_factory.mktemp("listeners"), LISTENERS % ((up.port,) * 3), backend) as gate:
            yield gate


def test_line_header_and_fields_are_bounded_by_listener(listeners):
    for request, status in [(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 200), 414),
                            (b"GET /fixed HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n" % (b"x" * 1000), 431),
                            (b"GET /fixed HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 4 + b"\r\n", 431)]:
        refused(listeners, request, status, port=listeners.ports[1])
        assert listeners.ask(request).status in (200, 404)


def test_a_head_is_timed_by_its_listener(listeners):
    refused(listeners, b"GET /fixed HTTP/1.1\r\n", 408, port=listeners.ports[4])


def test_requests_of_a_connection_are_bounded(listeners):
    with listeners.connect(port=listeners.ports[1]) as s:
        reader = Reader(s)
        s.sendall(PROBE * 5)
        assert [reader.response().get("connection") for _ in range(3)] == [None, None, "close"]
        assert reader.at_end()
    with listeners.connect() as s:
        reader = Reader(s)
        s.sendall(PROBE * 20)
        assert all(reader.response().get("connection") is None for _ in range(20))


@pytest.mark.parametrize("path, port, size, status", [
    ("/echo", 0, 51200, 200), ("/echo", 0, 51201, 413), ("/none", 0, 50, 404),
    ("/echo", 1, 100, 200), ("/echo", 1, 101, 413),
    ("/group/echo", 0, 200, 200), ("/group/echo", 0, 201, 413), ("/group/echo", 1, 200, 200),
    ("/group/own", 0, 300, 200), ("/group/own", 0, 301, 413),
    ("/echo", 2, 101, 200), ("/echo", 2, 200_000, 200),  # the listener streams
    ("/flow/echo", 0, 60_000, 200), ("/flow/strict", 0, 201, 413), ("/flow/strict", 2, 201, 413),
])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_size_of_content(listeners, path, port, size, status, chunked):
    body = b"x" * size
    fields = f"Content-Length: {size}\r\n"
    if chunked:
        fields, body = "Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
    r = listeners.get(path, fields, method="POST", body=body, port=listeners.ports[port])
    assert r.status == status


def post(path, size, fields=b""):
    framing = b"Transfer-Encoding: chunked" if size is None else b"Content-Length: %d" % size
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%s%s\r\n\r\n" % (path, fields, framing)


def posted(gate, port, request, answered):
    """The connection of a request that was sent; when its upstream has answered, if it does, which may be too late."""
    s = gate.connect(port=gate.ports[port])
    s.sendall(request)
    assert not answered or s.recv(15) == b"HTTP/1.1 200 OK"
    return s


@pytest.mark.parametrize("path, port, fields", [
    (b"/echo", 2, b""), (b"/flow/echo", 0, b""), (b"/flow/up", 0, b""),
    (b"/rpc", 0, b"Content-Type: application/grpc+proto\r\n"),
    (b"/rpc", 0, b"X-Early: 1\r\n"),
], ids=["listener", "group", "group-proxy", "grpc", "answered"])
def test_content_that_streams_may_take_its_time(listeners, path, port, fields):
    """Three times the time, and more than the size, that others get; one that answered is bounded no more."""
    with again(lambda: posted(listeners, port, post(path, None, fields), b"Early" in fields)) as s:
        for _ in range(11):
            time.sleep(0.1)
            s.sendall(b"64\r\n%s\r\n" % (b"x" * 100))
        s.sendall(b"0\r\n\r\n")
        data = b""
        while not data.endswith((b"up", b"0\r\n\r\n", b"}\n", b"}")):
            data += s.recv(65536) or pytest.fail(f"cut after {data}")


@pytest.mark.parametrize("path, fields", [(b"/rpc", b""), (b"/rpc", b"Content-Type: application/grpcx\r\n"),
                                          (b"/echo", b"Content-Type: application/grpc\r\n"),
                                          (b"/strict-rpc", b"Content-Type: application/grpc\r\n")],
                         ids=["plain", "name", "echo", "strict"])
def test_what_is_no_grpc_is_bounded(listeners, path, fields):
    assert listeners.ask(post(path, 60_000, fields), port=listeners.ports[0]).status == 413


@pytest.mark.parametrize("fields", [b"", b"X-Early: 1\r\n"], ids=["unanswered", "answered"])
def test_a_stream_that_goes_silent_ends(listeners, fields):
    path = b"/flow/up" if fields else b"/echo"
    with again(lambda: posted(listeners, 5, post(path, None, fields) + b"1\r\nx\r\n", fields)) as s:
        if fields:
            with pytest.raises((ConnectionResetError, Closed)):
                Reader(s).until(b"last")
        else:
            assert Reader(s).response().status == 408


def test_content_after_the_answer_is_held_to_the_rate(listeners):
    with listeners.connect(port=listeners.ports[2]) as s:
        s.sendall(post(b"/fixed", 100_000))
        with trickling(s, b"x"):
            reader = Reader(s)
            assert reader.response().status == 200
            reader.at_end()  # else this waits for 100,000 drips


def test_connections_of_a_listener_are_bounded(listeners):
    port = listeners.ports[3]
    held = [listeners.connect(port=port) for _ in range(2)]
    for s in held:
        s.sendall(PROBE)
        assert Reader(s).response().body == b"OK"
    waiting = [listeners.connect(port=port) for _ in range(4)]
    for s in waiting:
        s.sendall(PROBE)
    assert listeners.get("/fixed").body == b"OK"  # others have room
    waiting[0].settimeout(0.3)
    with pytest.raises(TimeoutError):
        waiting[0].recv(1)
    for s in held:
        s.close()
    for s in waiting:
        s.settimeout(10)
        assert Reader(s).response().body == b"OK"
        s.close()


def test_connections_beyond_the_limit_wait_their_turn(backend, tmp_path):
    config = patient(CONFIG).replace("  workers: 1", "  workers: 1\n  max_connections: 4") % 1
    with Gate(tmp_path, config, backend) as gate:
        held = [gate.connect() for _ in range(4)]
        for s in held:
            s.sendall(PROBE)
            assert Reader(s).response().body == b"OK"
        waiting = [gate.connect() for _ in range(6)]  # accepted by the kernel alone
        for s in waiting:
            s.sendall(PROBE)
        for s in held:
            s.close()
        for s in waiting:
            assert Reader(s).response().body == b"OK"
            s.close()


def test_a_crowd_beyond_the_limit_waits_its_turn(backend, tmp_path):
    """More of them than a shard would let wait itself (AG_SERVING_WAITING) stay in the kernel's queue."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    config = patient(CONFIG).replace("  workers: 1", "  workers: 1\n  max_connections: 4") % 1
    try:
        with Gate(tmp_path, config, backend) as gate:
            held = [gate.connect() for _ in range(4)]
            for s in held:
                s.sendall(PROBE)
                assert Reader(s).response().body == b"OK"
            waiting = [gate.connect() for _ in range(1500)]
            for s in waiting:
                s.sendall(PROBE)
            for s in held:
                s.close()
            for i, s in enumerate(waiting):
                assert Reader(s).response().body == b"OK", i
                s.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_broken_clients_leave_the_others_alone(setup):
    gate, _ = setup
    port = gate.ports[1]
    for i in range(60):
        s = gate.connect(port=port)
        s.sendall([b"GET /fixed HT", b"POST /up/p HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nab",
                   b"\x80\x81\r\n\r\n", b"GET /up/g HTTP/1.1\r\nHost: x\r\n\r\n"][i % 4])
        if i % 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        if i % 10 == 0:
            assert gate.get("/fixed", port=port).body == b"OK"
    try:
        assert gate.get("/up/g", port=port).status == 200
    except Closed:
        pytest.fail("a good client was cut")
