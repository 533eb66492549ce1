"""THREATS.md over HTTP/2: slow heads, slow content, slow readers, windows held shut; and what drains and idles."""
import contextlib
import signal
import threading
import time

import h2wire
import pytest
from gate import Gate, Reader, Upstream, ok
from h2wire import (PREFACE, E, Reset, S, T, asked, continuation, data, frame, headers, settings,
                    window_update)
from test_h2_floods import attacker, odd
from waiting import again

CONFIG = """
server:
  listen:
    - "127.0.0.1:$PORT"
    - {address: "127.0.0.1:$PORT2", limits: {header_timeout: 400ms}}
    - {address: "127.0.0.1:$PORT3", limits: {header_timeout: 400ms, idle_timeout: 500ms}}
    - {address: "127.0.0.1:$PORT4", limits: {body_timeout: 400ms, body_grace: 200ms, min_rate: 100k}}
    - {address: "127.0.0.1:$PORT5", limits: {write_timeout: 700ms}}
  workers: 1
  limits: {header_timeout: 20s, idle_timeout: 30s, body_timeout: 20s, body_grace: 20s, max_body: 64k,
           max_discard: 128k, write_timeout: 20s}
proxy:
  upstreams:
    up: {servers: ["127.0.0.1:%d"], keepalive: {max_idle: 0}}
routes:
  "/fixed": OK OK
  "/in/*": "*"
  "/calm/*": {action: "*", limits: {min_rate: 0}}
  "/up/*": "http://up"
  "/big": "http://up"
"""
# Which of its listeners has little patience with what.
HEADS, IDLE, CONTENT, READERS = 1, 2, 3, 4
SMALL = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  limits: {min_rate: 0, body_timeout: 60s}
  memory: {small_buffers: 256, large_buffers: 16}
proxy:
  upstreams:
    one: {servers: ["127.0.0.1:%d"], max_connections: 1, timeouts: {connect: 30s}}
routes:
  "/fixed": OK OK
  "/in/*": "*"
  "/one/*": "http://one"
"""


def script(_, head):
    return ok(b"x" * (1 << 20) if b" /big " in head.partition(b"\r\n")[0] else b"up")


@pytest.fixture(scope="module")
def gate(backend, tmp_path_factory):
    with Upstream(script) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % up.port, backend) as gate:
            assert gate.get("/up/x").body == b"up"  # what is opened once is open
            yield gate


@contextlib.contextmanager
def trickling(client, make, every=0.02):
    """Sends make(i) again and again, as long as it is taken."""
    stop = threading.Event()

    def trickle():
        i = 0
        while not stop.wait(every):
            try:
                client.send(make(i))
            except (h2wire.Closed, OSError):
                return
            i += 1
    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def ended(client):
    """The connection's end; the GOAWAY before it, if there was one."""
    client.expect_close()
    return client.goaway


# ---- heads ----

@pytest.mark.parametrize("sent", [PREFACE[:10], PREFACE, PREFACE + settings({S.ENABLE_PUSH: 0})[:5]],
                         ids=["half a preface", "no SETTINGS", "half of SETTINGS"])
def test_a_beginning_that_does_not_go_on(gate, sent):
    with h2wire.connect(gate.ports[HEADS], start=False) as client, contextlib.suppress(ConnectionResetError):
        client.send(sent)
        client.sock.settimeout(10)
        while client.sock.recv(65536):
            pass


def late(client):
    """The rest of what was begun is awaited for header_timeout, which is less than an idle connection has."""
    assert ended(client).code == E.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("sent", [headers(asked(), 3)[:5], headers(asked(), 3)[:20],
                                  headers(asked()[:9], 3, whole=False),
                                  headers(asked(), 3, whole=False) + continuation(b"", 3, whole=False) * 3],
                         ids=["half a frame's head", "half a frame", "half a section", "empty pieces"])
def test_a_head_that_does_not_go_on(gate, sent):
    with attacker(gate, listener=HEADS) as client:
        assert client.get().status == 200
        client.send(sent)
        late(client)


def test_a_section_that_trickles(gate):
    """CVE-2024-27316 in slow motion: the whole section has a deadline, whatever comes of it."""
    with attacker(gate, listener=HEADS) as client:
        assert client.get().status == 200
        client.send(headers(asked(), 3, whole=False))
        with trickling(client, lambda i: continuation(b"", 3, whole=False), every=0.1):
            late(client)


def test_a_frame_that_trickles(gate):
    sent = headers(asked(b"/fixed", (b"x-a", b"a" * 2000)), 3)
    with attacker(gate, listener=HEADS) as client:
        assert client.get().status == 200
        with trickling(client, lambda i: sent[i:i + 1]):
            late(client)


def test_noise_does_not_keep_an_idle_connection(gate):
    """PING is answered, but it is no request."""
    with attacker(gate, listener=IDLE) as client:
        with trickling(client, lambda i: frame(T.PING, 0, 0, b"12345678"), every=0.05):
            assert ended(client).code == E.NO_ERROR


def test_an_idle_connection_goes_in_order(gate):
    def attempt():  # its first request may come too late
        with attacker(gate, listener=IDLE) as client:
            assert client.get().status == 200
            goaway = ended(client)
            assert goaway.code == E.NO_ERROR and int.from_bytes(goaway.payload[:4], "big") == 1
    again(attempt)


def test_a_stream_that_waits_is_not_idle(gate):
    """Its content has a pace of its own; the connection is not idle meanwhile."""
    def attempt():
        with attacker(gate, listener=IDLE) as client:
            stream = client.ask("/calm/x", method="POST", end=False)
            for _ in range(8):
                client.send(data(b"x" * 8000, stream, end=False))
                time.sleep(0.08)
            client.send(data(b"", stream))
            assert client.response(stream).status == 200
    again(attempt)


def test_https_without_tls(gate):
    """RFC 9110 section 7.4: a target of https that came in the clear is misdirected."""
    with attacker(gate) as client:
        assert client.get(scheme="https").status == 421
        assert client.get().status == 200


# ---- content ----

@pytest.mark.parametrize("path", ["/in/x", "/up/x"])
def test_content_that_stalls(gate, path):
    with attacker(gate, listener=CONTENT) as client:
        stream = client.ask(path, method="POST", fields=[("content-length", "9")], end=False)
        client.send(data(b"abc", stream, end=False))
        with contextlib.suppress(Reset):
            assert client.head(stream).status == 408


@pytest.mark.parametrize("path", ["/in/x", "/up/x"])
def test_content_that_trickles(gate, path):
    with attacker(gate, listener=CONTENT) as client:
        stream = client.ask(path, method="POST", end=False)
        with trickling(client, lambda i: data(b"x", stream, end=False)):
            with contextlib.suppress(Reset):
                assert client.head(stream).status == 408


def test_one_stream_that_stalls_leaves_the_others(gate):
    with attacker(gate, listener=CONTENT) as client:
        slow = client.ask("/in/x", method="POST", end=False)
        try:
            while True:
                assert client.get().status == 200
                client.send(window_update(slow, 1))
                r = client.streams.get(slow)
                if isinstance(r, Reset) or r is not None:
                    break
                time.sleep(0.02)
        except Reset as e:
            assert e.stream == slow
        assert client.get().status == 200


@pytest.mark.parametrize("path", ["/in/x", "/up/x"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_content_that_is_too_large(gate, path, told):
    with attacker(gate) as client:
        fields = [("content-length", str(70000))] if told else []
        stream = client.ask(path, method="POST", fields=fields, end=False)
        with contextlib.suppress(Reset):
            if not told:
                client.content(stream, b"x" * 70000, end=False)
            assert client.head(stream).status == 413
        client.next_stream = stream + 2
        assert client.get().status == 200


# ---- readers ----

def test_a_window_that_stays_shut(gate):
    """CVE-2019-9517: the answer is given up, not kept."""
    with attacker(gate, {S.INITIAL_WINDOW_SIZE: 0}, listener=READERS) as client:
        stream = client.ask("/big")
        assert client.head(stream).status == 200
        with contextlib.suppress(Reset, h2wire.GoneAway, h2wire.Closed):
            client.response(stream)
            raise AssertionError("it is complete")


def test_a_window_opened_byte_by_byte(gate):
    with attacker(gate, {S.INITIAL_WINDOW_SIZE: 0}, listener=READERS) as client:
        stream = client.ask("/big")
        assert client.head(stream).status == 200
        with trickling(client, lambda i: window_update(stream, 1), every=0.05):
            with contextlib.suppress(Reset, h2wire.GoneAway, h2wire.Closed):
                client.response(stream)
                raise AssertionError("it is complete")


def test_the_connection_s_window_that_stays_shut(gate):
    with attacker(gate, {S.INITIAL_WINDOW_SIZE: 1 << 20}, listener=READERS, refill=False) as client:
        stream = client.ask("/big")
        with contextlib.suppress(Reset, h2wire.GoneAway, h2wire.Closed):
            client.response(stream)
            raise AssertionError("it is complete")


# ---- buffers ----

@pytest.fixture
def small(backend, tmp_path):
    """A server with few buffers; its upstream takes one connection and keeps it."""
    def hold(peer, head, buffer):
        while peer.sock.recv(65536):
            pass
    with Upstream(lambda i, head: hold) as up:
        with Gate(tmp_path / "gate", SMALL % up.port, backend) as gate:
            yield gate


def test_ten_bytes_do_not_pin_a_buffer(small):
    """Streams wait for an upstream; each has a frame of a few bytes that came in a buffer of its own."""
    with h2wire.connect(small.port) as holder, h2wire.connect(small.port) as client:
        holder.ask("/one/first")
        holder.round_trip()
        for i in range(100):
            client.send(headers(asked(b"/one/x", method=b"POST"), odd(i), end=False))
            client.send(data(b"0123456789", odd(i), end=False))
            if i % 10 == 9:
                client.round_trip()
        for i in range(100):
            client.send(data(b"0123456789", odd(i), end=False))
            client.round_trip()
        with h2wire.connect(small.port) as other:
            assert other.get().status == 200
            assert other.get("/in/x", method="POST", body=b"y" * 300000).status == 200
        with small.connect() as s:
            s.sendall(b"POST /in/x HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"y" * 300000)
            assert Reader(s).response().status == 200


# ---- our windows ----

@pytest.fixture
def waiting(backend, tmp_path):
    """A client whose requests to /one/* all wait, and hold what they have sent."""
    def hold(peer, head, buffer):
        while peer.sock.recv(65536):
            pass
    text = SMALL.replace("  memory: {small_buffers: 256, large_buffers: 16}\n", "")
    with Upstream(lambda i, head: hold) as up, Gate(tmp_path / "gate", text % up.port, backend) as gate:
        with h2wire.connect(gate.port) as holder, h2wire.connect(gate.port) as client:
            holder.ask("/one/first")
            holder.round_trip()
            yield client
            client.reset()
            holder.reset()


def fill(client, stream):
    """Sends as much as there is room for."""
    while (room := min(client.windows[0], client.window(stream), 16384)) > 0:
        client.content(stream, b"x" * room, end=False)
        for got in client.round_trip():
            client.gather(got)


def test_more_than_a_stream_s_window(waiting):
    stream = waiting.ask("/one/x", method="POST", end=False)
    fill(waiting, stream)
    waiting.send(data(b"x", stream, end=False))
    with pytest.raises(Reset) as e:
        waiting.response(stream)
    assert e.value.code == E.FLOW_CONTROL_ERROR
    assert waiting.get().status == 200


def test_more_than_the_connection_s_window(waiting):
    while waiting.windows[0] > 0:
        fill(waiting, waiting.ask("/one/x", method="POST", end=False))
    stream = waiting.ask("/one/x", method="POST", end=False)
    waiting.send(data(b"x", stream, end=False))
    waiting.expect_goaway(E.FLOW_CONTROL_ERROR)
    waiting.expect_close()


# ---- drain ----

def test_a_drain_says_goodbye_twice(backend, tmp_path):
    """RFC 9113 section 6.8: first with the largest number, then with the last stream that is served."""
    release = threading.Event()

    def slow(peer, head, buffer):
        release.wait(10)
        peer.send(ok(b"late"))
        return buffer
    with Upstream(lambda i, head: slow) as up:
        with Gate(tmp_path / "gate", CONFIG % up.port, backend) as gate:
            with h2wire.connect(gate.port) as client:
                assert client.get().status == 200
                waiting = client.ask("/up/x")
                client.round_trip()
                gate.process.send_signal(signal.SIGTERM)
                first = client.expect_goaway(E.NO_ERROR)
                last = int.from_bytes(first.payload[:4], "big")
                assert last in ((1 << 31) - 1, waiting)
                if last != waiting:
                    last = int.from_bytes(client.expect_goaway(E.NO_ERROR).payload[:4], "big")
                assert last == waiting
                release.set()
                assert client.response(waiting).body == b"late"
                client.expect_close()
            gate.process.wait(20)
            gate.stop()
