"""What happens when descriptors, buffers or pages run out: accept waits and goes on, nobody spins, every
request that was let in is answered, and all is well afterwards."""
import re
import select
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from gate import Closed, Gate, Reader, Upstream, ok
from waiting import await_that, in_time

PROBE = b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n"
CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  %s
  limits: {header_timeout: %s, body_timeout: 60s, min_rate: 0, write_timeout: %s, idle_timeout: 60s}
routes:
  "/fixed": OK OK
  "/echo": "*"
  "/up/*": "http://127.0.0.1:%d"
  "/www/": "./www/"
"""


def gate_of(folder, backend, port, more="", nofile=None, header_timeout="60s", write_timeout="60s"):
    wrap = ["bash", "-c", 'ulimit -n %d; exec "$@"' % nofile, "-"] if nofile else []
    return Gate(folder, CONFIG % (more, header_timeout, write_timeout, port), backend, wrap=wrap)


def waits(gate):
    """How often its threads have gone to sleep: a loop that spins, on work or on errors, does it often."""
    total = 0
    for status in Path(f"/proc/{gate.process.pid}/task").glob("*/status"):
        total += int(re.search(r"voluntary_ctxt_switches:\s+(\d+)", status.read_text())[1])
    return total


def assert_rests(gate, seconds=1.0):
    """No spin: a few turns for timers, and next to no processor time, as soon as it has done what was to be done."""
    def ticks():
        return sum(int(n) for n in Path(f"/proc/{gate.process.pid}/stat").read_text().split()[13:15])
    deadline = time.monotonic() + 10
    while True:
        turns, cpu = waits(gate), ticks()
        time.sleep(seconds)
        turns, cpu = waits(gate) - turns, ticks() - cpu
        if turns < 100 * seconds and cpu < 30 * seconds:  # hundredths of a second
            return
        assert time.monotonic() < deadline, (turns, cpu)


def ask(gate, request, results, at):
    try:
        with gate.connect(30) as s:
            s.sendall(request)
            results[at] = Reader(s).response()
    except (OSError, Closed) as e:
        results[at] = e


def ask_all(gate, requests):
    """Each on a connection and thread of its own; the answers, or what came instead."""
    results = [None] * len(requests)
    threads = [threading.Thread(target=ask, args=(gate, r, results, i)) for i, r in enumerate(requests)]
    for t in threads:
        t.start()
    return results, threads


def fetch(gate, *request, **more):
    """The answer; by another try when this process stood still for so long that it was cut (write_timeout)."""
    while True:
        begun = time.monotonic()
        try:
            return gate.get(*request, **more)
        except (Closed, ConnectionError):
            assert time.monotonic() - begun >= 2, "it was cut, though it was taken at once"


class Gateway:
    """An upstream that keeps its answers back until `let_go`."""

    def __init__(self, body=b"up"):
        self.free = threading.Event()
        self.body = body
        self.upstream = Upstream(self.script)

    def script(self, index, head):
        if b"/now" not in head:
            self.free.wait(30)
        return ok(self.body)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.free.set()
        self.upstream.close()


# ---- descriptors ----

@pytest.mark.parametrize("nofile, more, told", [
    (64, "", True), (1024, "", True), (4096, "", False), (1024, "max_connections: 100", False)])
def test_few_descriptors_are_warned_of(tmp_path, nofile, more, told):
    with gate_of(tmp_path, "epoll", 1, more, nofile=nofile) as gate:
        line = f"connections at once: RLIMIT_NOFILE is {nofile}; hint: LimitNOFILE= "
        await_that(lambda: "each shard takes" in gate.stderr(), gate.stderr)
        assert (line in gate.stderr()) == told, gate.stderr()


@pytest.mark.parametrize("asked, left", [(300, None), (700, r"\d{2,3}"), (2000, "0")])
def test_descriptors_that_clients_take_from_upstreams_are_warned_of(tmp_path, asked, left):
    with gate_of(tmp_path, "epoll", 1, f"max_connections: {asked}", nofile=1024) as gate:
        await_that(lambda: "each shard takes" in gate.stderr(), gate.stderr)
        told = re.search(r"(\d+) connections of clients leave (\d+) descriptors for those to upstreams", gate.stderr())
        assert bool(told) == bool(left), gate.stderr()
        assert not told or (int(told[1]) <= asked and re.fullmatch(left, told[2]))


@pytest.mark.parametrize("nofile", [64, 128])
def test_clients_beyond_the_descriptors_wait_and_are_served(backend, tmp_path, nofile):
    with gate_of(tmp_path, backend, 1, nofile=nofile) as gate:
        held = []
        for _ in range(nofile * 2):
            s = gate.connect(30)
            s.sendall(PROBE)
            held.append(s)
        served = 0
        for s in held:
            s.settimeout(0.3 if served else 30)
            try:
                assert Reader(s).response().body == b"OK"
                served += 1
            except TimeoutError:
                break
        assert 0 < served < nofile
        assert_rests(gate)
        for s in held[:served]:
            s.close()
        for s in held[served:]:  # each end lets the next one in
            s.settimeout(30)
            assert Reader(s).response().body == b"OK"
            s.close()
        assert gate.get("/fixed").body == b"OK"


def test_no_descriptor_for_an_upstream_is_503_and_passes(backend, tmp_path):
    with Gateway() as up, gate_of(tmp_path, backend, up.upstream.port, "max_connections: 32",
                                  nofile=64) as gate:
        clients = [gate.connect(30) for _ in range(32)]
        readers = [Reader(s) for s in clients]
        for s, reader in zip(clients, readers):  # all are in
            s.sendall(PROBE)
            assert reader.response().body == b"OK"
        for i, s in enumerate(clients):
            s.sendall(b"GET /up/%d HTTP/1.1\r\nHost: x\r\n\r\n" % i)
        refused, _, _ = select.select(clients, [], [], 30)
        assert refused
        assert_rests(gate)
        up.free.set()
        answers = [reader.response() for reader in readers]
        assert {r.status for r in answers} == {200, 503}
        assert all(r.get("retry-after") for r in answers if r.status == 503)
        for s in clients:
            s.close()
        for _ in range(20):
            assert gate.get("/up/now").status == 200


def test_no_descriptor_for_a_file_is_503_and_passes(backend, tmp_path):
    (tmp_path / "www").mkdir()
    (tmp_path / "www/big.bin").write_bytes(b"x" * 3_000_000)
    with gate_of(tmp_path, backend, 1, "max_connections: 32", nofile=64, write_timeout="2s") as gate:
        def attempt(_):
            begun = time.monotonic()
            slow = [gate.small_window(b"GET /www/big.bin HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(32)]
            asked_in = time.monotonic() - begun
            heads = [s.recv(12) for s in slow]
            for s in slow:
                s.close()
            # Else the first ones may have been cut before the last ones came.
            return heads if asked_in < 1 or len(set(heads)) == 2 else None

        heads = in_time(attempt, 5)
        assert {h[9:12] for h in heads} == {b"200", b"503"}
        r = fetch(gate, "/www/big.bin")
        assert r.status == 200 and len(r.body) == 3_000_000


# ---- buffers and pages ----

SMALL = "memory: {small_buffers: 16, large_buffers: 4, pages: 64}"


def begin_heads(gate, count):
    """Connections that have sent a part of a head, and a buffer each, as far as there are any."""
    slow = [gate.connect(30) for _ in range(count)]
    for s in slow:
        with suppress(ConnectionError):  # it has said nothing for a second already
            s.sendall(b"GET /fixed HTTP/1.1\r\nHost: x\r\nX-A: ")
    return slow


def end_heads(slow):
    """Each was told why it ends (by the 503 that needs no buffer, when there was none)."""
    for s in slow:
        assert Reader(s).response().status in (408, 503)
        s.close()


def test_heads_that_hold_all_buffers_make_others_wait_not_fail(backend, tmp_path):
    with gate_of(tmp_path, backend, 1, SMALL, header_timeout="1s") as gate:
        def attempt(_):
            begun = time.monotonic()
            slow = begin_heads(gate, 20)
            results, threads = ask_all(gate, [PROBE] * 20)
            for t in threads:
                t.join()
            took = time.monotonic() - begun
            end_heads(slow)
            # Else the time for a head may have been over.
            return results if took < 2 or all(r.status == 200 for r in results) else None

        results = in_time(attempt)
        assert [r.body for r in results] == [b"OK"] * 20
        assert_rests(gate, 0.5)
        assert gate.get("/fixed").body == b"OK"


def test_nobody_waits_for_ever_for_a_buffer(backend, tmp_path):
    """More heads than can have one in two times of a head, and each goes on: 503 for who has none."""
    with gate_of(tmp_path, backend, 1, SMALL, header_timeout="1s") as gate:
        slow = begin_heads(gate, 100)
        for s in slow:
            with suppress(ConnectionError):  # it has waited a second already
                s.sendall(b"a")
        results, threads = ask_all(gate, [PROBE] * 20)
        for t in threads:
            t.join()
        assert {r.status for r in results} <= {200, 503}, results
        assert all(r.get("retry-after") for r in results if r.status == 503)
        end_heads(slow)
        assert_rests(gate, 0.5)
        assert gate.get("/fixed").body == b"OK"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_page_is_503_with_retry_after(backend, tmp_path, method):
    memory = "memory: {small_buffers: 64, large_buffers: 4, pages: 4}"
    with gate_of(tmp_path, backend, 1, memory) as gate:
        slow = [gate.connect(30) for _ in range(4)]
        for s in slow:
            s.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        for _ in range(50):  # until the last of them has its page
            with gate.connect() as s:
                s.sendall(b"%s /fixed HTTP/1.1\r\nHost: x\r\n\r\n" % method.encode())
                reader = Reader(s)
                r = reader.response(method)
                if r.status == 503:
                    assert r.get("retry-after") == "1" and r.get("connection") == "close"
                    assert reader.at_end()
                    break
        else:
            pytest.fail("there were pages enough")
        for s in slow:
            s.sendall(b"llo")
            assert Reader(s).response().status in (200, 503)  # the echo may want a page more
            s.close()
        assert gate.get("/fixed").body == b"OK"


def test_slow_readers_leave_buffers_for_others(backend, tmp_path):
    """Many times the buffers there are would be wanted; everyone else is served meanwhile."""
    size = 3_000_000
    memory = "memory: {small_buffers: 320, large_buffers: 8, pages: 256}"
    with Gateway(b"x" * size) as up, gate_of(tmp_path, backend, up.upstream.port, memory, write_timeout="2s") as gate:
        up.free.set()
        slow = [gate.small_window(b"GET /up/slow HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(40)]
        for s in slow:
            assert s.recv(12) == b"HTTP/1.1 200"
        for _ in range(5):
            assert gate.get("/fixed").body == b"OK"
            assert len(fetch(gate, "/up/fast").body) == size
            r = fetch(gate, "/echo", "Content-Length: 50000\r\n", method="POST", body=b"x" * 50000)
            assert r.status == 200
        for s in slow:
            s.close()
        assert len(fetch(gate, "/up/fast").body) == size


def test_uploads_that_nobody_takes_leave_buffers_for_others(backend, tmp_path):
    memory = "memory: {small_buffers: 320, large_buffers: 8, pages: 256}"

    def sink(peer, head, buffer):
        time.sleep(3)
        return None

    with Upstream(lambda i, head: sink if b"/sink" in head else ok(b"up")) as up:
        with gate_of(tmp_path, backend, up.port, memory) as gate:
            slow = []
            for _ in range(40):
                s = gate.connect(30)
                s.sendall(b"POST /up/sink HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
                s.setblocking(False)
                with suppress(BlockingIOError, ConnectionError):  # it takes no more, or the upstream has left
                    while True:
                        s.send(b"u" * 65536)
                slow.append(s)
            for _ in range(5):
                assert gate.get("/fixed").body == b"OK"
                r = gate.get("/up/take", "Content-Length: 500000\r\n", method="POST", body=b"x" * 500000)
                assert r.body == b"up"
            for s in slow:
                s.close()
            assert gate.get("/up/x").body == b"up"


def test_pipelined_requests_behind_a_slow_one_leave_buffers_for_others(backend, tmp_path):
    with Gateway() as up, gate_of(tmp_path, backend, up.upstream.port,
                                  "memory: {small_buffers: 512, large_buffers: 4, pages: 256}") as gate:
        slow = [gate.connect(30) for _ in range(40)]
        for s in slow:
            s.sendall(b"GET /up/wait HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(30):  # each in a segment, and a buffer, of its own
            for s in slow:
                s.sendall(PROBE)
        for _ in range(5):
            assert gate.get("/fixed").body == b"OK"
        up.free.set()
        for s in slow:
            reader = Reader(s)
            assert reader.response().body == b"up"
            assert all(reader.response().body == b"OK" for _ in range(30))
            s.close()
