"""No allocation per request; and no more memory in all than the ceiling that is told.

What is measured: calls of malloc, calloc, realloc and their kin by the whole process (every thread,
and every library in it) between two moments, in which REQUESTS requests were answered on one
kept-alive connection after WARM_UP others. Pools, arenas and caches are filled before.
"""
import re
import struct
import subprocess
import time
from pathlib import Path

import pytest
from gate import Gate, Reader, Upstream, ok, run, without_sanitizers

WARM_UP, REQUESTS = 100, 1000

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
static: {root: .}
routes:
  GET /fixed: OK {"a":1}
  /echo/:id: *
  "/static/": "/www/"
  "/proxy": "http://127.0.0.1:%d/up"
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    out = tmp_path_factory.mktemp("shim") / "malloc_counter.so"
    source = Path(__file__).with_name("malloc_counter.c")
    subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", out, source],
                   check=True)
    return out


class Counter:
    def __init__(self, folder):
        self.path = folder / "count"
        self.path.write_bytes(bytes(8))

    def read(self):
        return struct.unpack("=Q", self.path.read_bytes())[0]


@pytest.fixture(scope="module")
def setup(shim, backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    (folder / "www").mkdir()
    (folder / "www/page.html").write_bytes(b"<p>" * 300)
    counter = Counter(folder)
    env = {"LD_PRELOAD": str(shim), "MALLOC_COUNT": str(counter.path)}
    with Upstream(lambda i, head: ok(b"up")) as up:
        with Gate(folder, CONFIG % up.port, backend, env=env,
                  binary=without_sanitizers()) as gate:
            yield gate, counter


def test_the_counter_counts(setup):
    # Reading a config takes memory; a counter that shows none would prove nothing.
    assert setup[1].read() > 100


def ask(s, reader, request, want, times):
    for _ in range(times):
        s.sendall(request)
        r = reader.response()
        assert r.status == 200 and r.body.startswith(want)


@pytest.mark.parametrize("head, body, want", [
    (b"GET /fixed HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\n\r\n", b"", b'{"a":1}'),
    (b"GET /echo/7?a=b HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\n\r\n", b"", b'{"method":"GET"'),
    (b"POST /echo/7 HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n", b"z" * 3000,
     b'{"method":"POST"'),
    (b"GET /static/page.html HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n", b"", b"<p>"),
    (b"GET /proxy HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n", b"", b"up"),
], ids=["fixed", "echo", "echo-of-a-body", "static", "proxy"])
def test_no_allocation_per_request(setup, head, body, want):
    gate, counter = setup
    with gate.connect() as s:
        reader = Reader(s)
        ask(s, reader, head + body, want, WARM_UP)
        before = counter.read()
        ask(s, reader, head + body, want, REQUESTS)
        assert counter.read() - before == 0


def test_no_allocation_per_connection(setup):
    gate, counter = setup
    for times in (WARM_UP, 200):
        before = counter.read()
        for _ in range(times):
            assert gate.get("/fixed").status == 200
    assert counter.read() - before == 0


# ---- the ceiling ----

FULL = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  memory: {small_buffers: 1024, large_buffers: 64, pages: 1024}
static: {cache: {max_bytes: 1m}}
routes:
  "/echo": "*"
  "/up/*": "http://127.0.0.1:%d"
"""


def test_memory_stays_under_the_ceiling(backend, tmp_path):
    """Heads, uploads and downloads that want many times what the pools have."""
    binary = without_sanitizers()

    def sink(peer, head, buffer):
        time.sleep(2)

    with Upstream(lambda i, head: sink if b"/sink" in head else ok(b"x" * 3_000_000)) as up:
        with Gate(tmp_path, FULL % up.port, backend, binary=binary) as gate:
            told = run("check", "-c", str(tmp_path / "anygate.yml"), binary=binary).stdout
            each, base = re.search(r"(\d+) MiB of memory:.*beside the shards (\d+) MiB", told, re.S).groups()
            open_ones = []
            for i in range(600):
                s = gate.connect()
                s.setblocking(False)
                open_ones.append(s)
                try:
                    if i % 3 == 0:
                        s.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nX-A: ")
                        s.send(b"a" * 20000)
                    elif i % 3 == 1:
                        s.send(b"POST /up/sink HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
                        s.send(b"u" * 300000)
                    else:
                        s.send(b"GET /up/big HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
                except BlockingIOError:
                    pass
            time.sleep(1)
            status = Path(f"/proc/{gate.process.pid}/status").read_text()
            most = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
            assert most < int(each) + int(base), told
            for s in open_ones:
                s.close()
            deadline = time.monotonic() + 20
            while gate.get("/echo").status == 503 and time.monotonic() < deadline:
                time.sleep(0.02)  # it has not yet seen that they have left
            assert gate.get("/echo").status == 200
            print(f"{most:.0f} MiB of {each} and {base}")
