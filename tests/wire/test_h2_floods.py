"""THREATS.md, HTTP/2: what costs a client little and a server much. Each ends in GOAWAY with ENHANCE_YOUR_CALM,
or as the row says; another connection is served all the while, and nothing of the attacker is left."""
import contextlib
import os
import select
import threading
import time

import h2wire
import pytest
from gate import Gate, Upstream, ok
from h2wire import (E, S, T, Closed, F, GoneAway, Reset, asked, continuation, data, frame, headers,
                    indexed, literal, ping, priority, priority_update, rst, settings, string, table_size,
                    window_update)
from waiting import again, await_that

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1, limits: {header_timeout: 60s, idle_timeout: 60s}}
proxy:
  upstreams:
    up: {servers: ["127.0.0.1:%d"], keepalive: {max_idle: 0}, timeouts: {connect: 30s}}
routes:
  "/fixed": OK OK
  "/in/*": "*"
  "/hold/*": "http://up"
  "/big": "http://up"
"""
CALM, PROTOCOL = E.ENHANCE_YOUR_CALM, E.PROTOCOL_ERROR
BIG = 1 << 20


def script(_, head):
    if b" /big " in head.partition(b"\r\n")[0]:
        return ok(b"x" * BIG)

    def hold(peer, head, buffer):
        while peer.sock.recv(65536):
            pass
    return hold


@pytest.fixture(scope="module")
def gate(backend, tmp_path_factory):
    with Upstream(script) as up:
        folder = tmp_path_factory.mktemp("gate")
        with Gate(folder, CONFIG % up.port, backend) as gate:
            assert len(gate.get("/big").body) == BIG  # what is opened once is open
            yield gate


def descriptors(gate):
    return len(os.listdir(f"/proc/{gate.process.pid}/fd"))


def resident(gate):
    with open(f"/proc/{gate.process.pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Bystander:
    """A client that goes on asking while another one attacks, and must be served. On a busy machine it may be
    late: when its connection has been idle for too long meanwhile, it asks again on a new one."""

    def __init__(self, gate):
        self.port, self.client = gate.port, h2wire.connect(gate.port)
        self.stop, self.served, self.failed = threading.Event(), 0, None
        self.once()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def once(self):
        assert self.asked(b"/fixed", b"").body == b"OK"
        assert self.asked(b"/in/x", b"y" * 1000).status == 200
        self.served += 1

    def asked(self, path, body):
        try:
            return self.exchange(path, body)
        except Closed:
            with contextlib.suppress(Closed):
                self.client.expect_close()
            goaway = self.client.goaway
            if not goaway or goaway.code != E.NO_ERROR or goaway.last >= self.client.next_stream:
                raise
        self.client.close()
        self.client = h2wire.connect(self.port)
        return self.exchange(path, body)

    def exchange(self, path, body):
        """In one piece: head and content must not be apart for long."""
        stream = self.client.next_stream
        self.client.send(headers(asked(path, method=b"POST" if body else b"GET"), stream, end=not body),
                         data(body, stream) if body else b"")
        got = self.client.response(stream)
        self.client.next_stream += 2
        return got

    def _run(self):
        try:
            while not self.stop.wait(0.05):
                self.once()
        except BaseException as e:  # told by `end`
            self.failed = e

    def end(self):
        self.stop.set()
        self.thread.join()
        if self.failed:
            raise AssertionError("a bystander was not served") from self.failed
        self.once()
        self.client.close()


@contextlib.contextmanager
def attacker(gate, values=(), listener=0, **more):
    """A client to attack that listener with; another one is served meanwhile, and of the first nothing stays."""
    before, other = descriptors(gate), Bystander(gate)
    try:
        # Who is slow with its first word may find the connection closed.
        client = again(lambda: h2wire.connect(gate.ports[listener], values, **more))
        try:
            yield client
        finally:
            client.reset()
    finally:
        other.end()
    await_that(lambda: descriptors(gate) <= before, lambda: f"{descriptors(gate)} descriptors, {before} before", 20)


def flood(client, make, count=20000, batch=50):
    """Sends make(i) again and again, until something comes that must be the end."""
    for start in range(0, count, batch):
        try:
            client.send(*(make(i) for i in range(start, start + batch)))
            while select.select([client.sock], [], [], 0)[0]:
                got = client.frame()
                if got.kind == T.GOAWAY and got.code != E.NO_ERROR:
                    return got, start + batch
        except Closed:
            break
    return client.expect_goaway(timeout=20), count


def calmed(client, make, at_least=0, codes=(CALM,), **more):
    got, sent = flood(client, make, **more)
    assert got.code in codes, f"{h2wire.named(got.code)}: {got.payload[8:]!r}"
    assert sent >= at_least, f"after {sent} already"
    client.expect_close()


def odd(i):
    return 2 * i + 1


def held(i):
    return headers(asked(b"/hold/x"), odd(i))


# ---- resets ----

@pytest.mark.parametrize("path", ["/hold/x", "/in/x"])
def test_rapid_reset(gate, path):
    """CVE-2023-44487. (What is answered at once was a request like others.)"""
    with attacker(gate) as client:
        calmed(client, lambda i: headers(asked(path.encode(), method=b"POST"), odd(i), end=False)
               + rst(odd(i)),
               at_least=100)


def test_some_resets_are_lawful(gate):
    with attacker(gate) as client:
        for i in range(60):
            client.send(held(i), rst(odd(i)))
        client.next_stream = odd(60)
        assert client.get().status == 200


@pytest.mark.parametrize("name, make", [
    ("a malformed request", lambda i: headers(asked(None), odd(i))),
    ("a window opened by nothing", lambda i: held(i) + window_update(odd(i), 0)),
    ("a window opened too far", lambda i: held(i) + window_update(odd(i), (1 << 31) - 1)),
    ("content behind the end", lambda i: held(i) + data(b"x", odd(i))),
    ("another length",
     lambda i: headers(asked(b"/in/x", (b"content-length", b"9"), method=b"POST"), odd(i), end=False)
     + data(b"x", odd(i))),
    ("a second head", lambda i: held(i) + headers(asked(), odd(i))),
    ("PRIORITY of 4 bytes", lambda i: held(i) + frame(T.PRIORITY, 0, odd(i), b"\0\0\0\0")),
    ("a dependency on itself", lambda i: held(i) + priority(odd(i), odd(i))),
], ids=lambda v: v if isinstance(v, str) else "")
def test_made_you_reset(gate, name, make):
    """CVE-2025-8671: the client makes us do it. What is an error of the connection here ends it at once."""
    with attacker(gate) as client:
        calmed(client, make,
               codes=(CALM, PROTOCOL, E.STREAM_CLOSED, E.FLOW_CONTROL_ERROR, E.FRAME_SIZE_ERROR))


@pytest.mark.parametrize("make", [
    lambda i: headers(asked(None), odd(i)),
    lambda i: held(i) + window_update(odd(i), 0)], ids=["malformed", "window"])
def test_resets_that_we_make_count(gate, make):
    with attacker(gate) as client:
        calmed(client, make, at_least=100)


def test_streams_that_are_refused(gate):
    """Beyond MAX_CONCURRENT_STREAMS each is refused, and nothing runs for it; who goes on so has enough."""
    with attacker(gate) as client:
        most = client.peer_settings[S.MAX_CONCURRENT_STREAMS]
        assert 100 <= most <= 256
        client.send(*(held(i) for i in range(most)))
        client.round_trip()
        client.send(held(most))
        with pytest.raises(Reset) as e:
            client.response(odd(most))
        assert e.value.code == E.REFUSED_STREAM
        client.send(rst(1))
        assert served_at_last(client, odd(most + 1)).status == 200
        calmed(client, lambda i: held(2 * most + i))


def served_at_last(client, stream, section=asked()):
    """Asks until a place is free: that of a stream that was reset is when its work has ended."""
    deadline = time.monotonic() + 20
    while True:
        try:
            client.send(headers(section, stream))
            return client.response(stream)
        except Reset as e:
            assert e.code == E.REFUSED_STREAM and time.monotonic() < deadline
            time.sleep(0.05)
            stream += 2


# ---- sections without end ----

@pytest.mark.parametrize("piece", [b"", b"a", b"a" * 1000], ids=["empty", "a byte", "long"])
def test_continuation_flood(gate, piece):
    """CVE-2024-27316: frames and bytes are bounded."""
    before = resident(gate)
    with attacker(gate) as client:
        client.send(headers(asked() + b"\0\x03x-a\x7f\x80\x80\x80\x01", whole=False))
        calmed(client, lambda i: continuation(piece, whole=False), codes=(CALM, E.COMPRESSION_ERROR))
    assert resident(gate) - before < 32 << 20


def test_a_section_of_as_much_as_there_can_be(gate):
    with attacker(gate) as client:
        client.send(headers(asked(), whole=False))
        calmed(client, lambda i: continuation(literal(b"x-a", b"a" * 16000), whole=False), batch=1,
               codes=(CALM,))


# ---- frames that say nothing ----

FLOODS = {
    "PING": lambda i: ping(b"12345678"),
    "answers to no PING": lambda i: ping(b"12345678", ack=True),
    "SETTINGS": lambda i: settings({S.ENABLE_PUSH: 0}),
    "empty SETTINGS": lambda i: settings(),
    "SETTINGS that change windows": lambda i: settings({S.INITIAL_WINDOW_SIZE: 65535 + i % 2}),
    "SETTINGS that change the table": lambda i: settings({S.HEADER_TABLE_SIZE: 4096 * (i % 2)}),
    "acknowledgements": lambda i: settings(ack=True),
    "PRIORITY": lambda i: priority(odd(i % 1000), 0, i % 256),
    "PRIORITY_UPDATE": lambda i: priority_update(odd(i % 1000), b"u=%d" % (i % 8)),
    "WINDOW_UPDATE": lambda i: window_update(0, 1),
    "unknown frames": lambda i: frame(0xbe),
    "RST_STREAM of a closed stream": lambda i: rst(1),
    "WINDOW_UPDATE of a closed stream": lambda i: window_update(1, 1),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood(gate, name):
    """CVE-2019-9512, 9513, 9515, 9518 and the like."""
    with attacker(gate) as client:
        assert client.get().status == 200
        calmed(client, FLOODS[name], at_least=100)


@pytest.mark.parametrize("make", [
    lambda i: data(b"", end=False), lambda i: data(b"", end=False, pad=0),
    lambda i: data(b"", end=False, pad=20),
    lambda i: window_update(1, 1)], ids=["empty", "padded by nothing", "padding alone", "its window"])
@pytest.mark.parametrize("path", [b"/in/x", b"/hold/x"])
def test_flood_of_a_stream(gate, path, make):
    """CVE-2019-9518: DATA without content."""
    with attacker(gate) as client:
        client.send(headers(asked(path, method=b"POST"), end=False))
        calmed(client, make, at_least=100)


@pytest.mark.parametrize("make", [
    lambda i: data(b"", 1), lambda i: headers(literal(b"x", b"y"), 1)], ids=["ends", "trailers"])
def test_flood_of_a_stream_that_we_have_reset(gate, make):
    """It is passed over, as it may have been on its way: once a stream, not for ever."""
    with attacker(gate) as client:
        client.send(headers(asked(None), 1, end=False))
        assert client.expect(T.RST_STREAM).stream == 1
        calmed(client, make, at_least=100)


def test_a_window_opened_byte_by_byte(gate):
    """Each byte makes a frame of its own, and that is no use that earns anything."""
    with attacker(gate, {S.INITIAL_WINDOW_SIZE: 0}, refill=False) as client:
        client.send(headers(asked(b"/big")))
        for sent in range(10000):
            client.send(window_update(1, 1))
            got = client.until(lambda f: f.kind in (T.DATA, T.GOAWAY))
            if got.kind == T.GOAWAY:
                break
            assert len(got.payload) == 1
        assert got.kind == T.GOAWAY and got.code == CALM and sent >= 100
        client.expect_close()


def test_a_used_up_window_opened_byte_by_byte(gate):
    """Then not even frames are made of them."""
    with attacker(gate, refill=False) as client:
        client.send(headers(asked(b"/big")), window_update(0, BIG))
        left = h2wire.WINDOW
        while left > 0:
            left -= len(client.expect(T.DATA).payload)
        calmed(client, lambda i: window_update(1, 1), at_least=100)


def test_pings_that_nobody_reads(gate):
    """CVE-2019-9512: answers are not queued without bound."""
    before = resident(gate)
    with attacker(gate) as client:
        client.sock.settimeout(3)
        with contextlib.suppress(Closed, TimeoutError):
            for _ in range(200):
                client.send(ping() * 1000)
        client.expect_goaway(CALM)
    assert resident(gate) - before < 32 << 20


def test_use_earns_noise(gate):
    """A client that works may also say much: some thousand PINGs among its requests."""
    with attacker(gate) as client:
        for i in range(400):
            client.send(ping(), ping(), ping())
            assert client.get().status == 200


# ---- HPACK ----

def too_much(client, stream):
    """The request is answered by 431; or the connection is given up, for what is far beyond."""
    try:
        assert client.response(stream).status == 431
        return False
    except GoneAway as e:
        assert e.code == CALM
        return True


@pytest.mark.parametrize("value", [b"a" * 64000, b"a" * 33000, b"a" * 8000], ids=["twice", "over", "in parts"])
def test_a_section_beyond_the_limit(gate, value):
    """As long as it can be read to its end the request alone is refused, and the tables stay the same."""
    before = resident(gate)
    with attacker(gate) as client:
        section = asked() + literal(b"x-a", b"first", form=0x40) + literal(b"x-b", value) * (64000 // len(value))
        section += literal(b"x-c", b"last", form=0x40)
        assert client.get().status == 200
        first = client.next_stream
        for stream in range(first, first + 20, 2):
            client.send(headers(section[:16000], stream, whole=False),
                        *(continuation(section[at:at + 16000], stream, whole=at + 16000 >= len(section))
                          for at in range(16000, len(section), 16000)))
            assert client.response(stream).status == 431
        client.send(headers(asked(b"/in/x") + indexed(62) + indexed(63), first + 20))
        assert b'[["x-c","last"],["x-a","first"]' in client.response(first + 20).body.lower()
    assert resident(gate) - before < 32 << 20


def test_hpack_bomb(gate):
    """CVE-2016-6581: an entry of 4000 bytes, 16000 times; each is charged before it is copied."""
    before = resident(gate)
    with attacker(gate) as client:
        client.send(headers(asked() + literal(b"x-a", b"a" * 4000, form=0x40)))
        assert client.response(1).status == 200
        client.send(headers(asked() + indexed(62) * 9, 3))
        assert client.response(3).status == 431
        client.send(headers(asked(), 5))
        assert client.response(5).status == 200
        client.send(headers(asked() + indexed(62) * 16000, 7))
        too_much(client, 7)
    assert resident(gate) - before < 32 << 20


def test_many_small_fields(gate):
    """Each is charged its size and 32, and their number is bounded."""
    with attacker(gate) as client:
        client.send(headers(asked() + literal(b"a", b"", form=0x40) + indexed(62) * 100))
        assert client.response(1).status == 431
        assert client.get(stream=3).status == 200
        client.send(headers(asked() + indexed(62) * 16000, 5))
        too_much(client, 5)


@pytest.mark.parametrize("crumb", [b"a=1", b""], ids=["full", "empty"])
def test_cookie_crumbs(gate, crumb):
    """CVE-2026-49975: they are charged as fields, before they are put together."""
    before = resident(gate)
    with attacker(gate) as client:
        client.send(headers(asked() + literal(32, crumb, form=0x40) + indexed(62) * 20))
        assert client.response(1).status == 200
        client.send(headers(asked() + indexed(62) * 1000, 3))
        if not too_much(client, 3):
            client.send(headers(asked() + indexed(62) * 16000, 5))
            too_much(client, 5)
    assert resident(gate) - before < 32 << 20


def test_the_table_s_size_changed_again_and_again(gate):
    with attacker(gate) as client:
        client.send(headers(table_size(0) * 16000 + asked()))
        with contextlib.suppress(GoneAway, Reset):
            assert client.response(1).status in (200, 431)


def test_the_table_filled_and_emptied(gate):
    with attacker(gate) as client:
        for i in range(100):
            client.send(headers(table_size(0) + table_size(4096) + asked()
                                + b"".join(literal(b"x-a", b"%d" % n, form=0x40) for n in range(90)), odd(i)))
            assert client.response(odd(i)).status == 200


def test_an_index_of_any_size(gate):
    for piece in [indexed((1 << 32) + 62), indexed(1 << 70), literal((1 << 32) + 1, b"x"), b"\0"
                  + string(b"x") + b"\x7f"
                  + b"\xff" * 4 + b"\x7f"]:
        with attacker(gate) as client:
            client.send(headers(asked() + piece))
            client.expect_goaway(E.COMPRESSION_ERROR)
            client.expect_close()


# ---- many at once ----

def test_large_answers_that_nobody_takes(gate):
    """CVE-2019-9511, 9517: a hundred answers of a megabyte, windows wide open but nothing read, are not
    gathered here."""
    before = resident(gate)
    with attacker(gate, {S.INITIAL_WINDOW_SIZE: (1 << 31) - 1}) as client:
        client.send(window_update(0, (1 << 31) - 1 - 65535))
        client.send(*(headers(asked(b"/big"), odd(i)) for i in range(100)))
        time.sleep(0.5)
        assert resident(gate) - before < 64 << 20


def test_a_hundred_answers_behind_a_shut_window(gate):
    before = resident(gate)
    with attacker(gate, {S.INITIAL_WINDOW_SIZE: 0}) as client:
        client.send(*(headers(asked(b"/big"), odd(i)) for i in range(100)))
        for i in range(100):
            assert client.head(odd(i)).status == 200
        assert resident(gate) - before < 64 << 20
        client.send(settings({S.INITIAL_WINDOW_SIZE: 1 << 20}), window_update(0, 1 << 20))
        assert len(client.response(1, timeout=60).body) == BIG  # the others share the way


def test_an_endless_head_in_a_frame_that_lies(gate):
    """A frame that never comes whole is its own connection's matter alone."""
    with attacker(gate) as client:
        client.send(frame(T.HEADERS, F.END_HEADERS, 1, asked()[:10], length=16384))
        with contextlib.suppress(TimeoutError):
            raise AssertionError(client.frame(0.3))


def test_fields_of_a_refused_stream_are_still_read(gate):
    """Both tables stay the same, or later requests would be other ones than were sent."""
    with attacker(gate) as client:
        most = client.peer_settings[S.MAX_CONCURRENT_STREAMS]
        client.send(*(held(i) for i in range(most)))
        client.send(headers(asked(b"/hold/x") + literal(b"x-kept", b"1", form=0x40), odd(most)))
        with pytest.raises(Reset):
            client.response(odd(most))
        client.send(rst(1))
        section = asked(b"/in/x") + indexed(62)
        assert b"x-kept" in served_at_last(client, odd(most + 1), section).body.lower()
