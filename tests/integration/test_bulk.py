"""Much content in bounded memory: both ways at once, and towards peers that do not take it.

BULK_FULL=1: a gigabyte each way in place of a quarter, which takes python minutes.
"""
import os
import re
import time
from pathlib import Path

import bulk
import h2wire
import pytest
from gate import BINARY, Gate, without_sanitizers
from streams import ALPN, CONFIG, SCHEMES, TLS

GIGABYTE = 1075 * len(bulk.BLOCK)
QUARTER = GIGABYTE // 4 // bulk.PIECE * bulk.PIECE
RESIDENT_MAX = 64 << 20
STALLED = 64 * len(bulk.BLOCK)
# What may lie between one peer and another that takes nothing: the gate's own, and the kernel's on its behalf.
ACCEPTED_MAX = 16 << 20


def memory(pid, name):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) << 10


def ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def ended(*ends):
    for end in ends:
        end.join(180)
        assert not end.fault, [repr(e.fault) for e in ends]
        assert end.is_done(), f"sent {end.sent} of {end.total}, received {end.received} of {end.expected}"


def move(folder, backend, certs, of_client, of_upstream, tls, total, binary):
    """`total` bytes up and as many down in one exchange: the memory that the gate had before and had at most."""
    leaf = certs.leaf("both", ["both.example"]) if tls else None
    context = h2wire.server_context(leaf, alpn=(ALPN[of_upstream],)) if tls else None
    server = bulk.Server(of_upstream, total, total, context)
    listen = '{address: "127.0.0.1:$PORT", tls: true}' if tls else '"127.0.0.1:$PORT"'
    config = CONFIG.format(listen=listen, tls=TLS.format(leaf=leaf) if tls else "",
                           scheme=SCHEMES[of_upstream, tls], port=server.port)
    with Gate(folder, config, backend, binary=binary) as gate:
        assert gate.get("/status", host="127.0.0.1", port=gate.ports[1]).status == 200
        before = memory(gate.process.pid, "VmHWM")
        sock = gate.connect()
        if tls:
            sock = h2wire.tls_context(alpn=(ALPN[of_client],)).wrap_socket(sock)
        client = bulk.client(of_client, sock, total, total)
        client.start()
        assert server.come.acquire(timeout=20)
        ended(client, *server.ends)
        peak = memory(gate.process.pid, "VmHWM")
        sock.close()
    server.close()
    print(f"{peak >> 20} MiB resident, {before >> 20} before")
    return before, peak


WAYS = pytest.mark.parametrize("of_client, of_upstream, tls", [
    ("h1", "h1", False), ("h2", "h1", False), ("h1", "h2", False), ("h1", "h1", True), ("h2", "h2", True)])


@WAYS
def test_more_each_way_at_once_than_memory_may_hold(backend, tmp_path, certs, of_client, of_upstream, tls):
    """Over TLS with HTTP/2 at both ends, where python is slow, never more than a quarter of a gigabyte."""
    total = GIGABYTE if os.environ.get("BULK_FULL") and (of_client, tls) != ("h2", True) else QUARTER
    _, peak = move(tmp_path, backend, certs, of_client, of_upstream, tls, total, without_sanitizers())
    assert peak < RESIDENT_MAX


@WAYS
def test_every_byte_each_way_at_once(backend, tmp_path, certs, of_client, of_upstream, tls):
    """Less of it, by the binary under test, which may watch each access and take more memory for that."""
    before, peak = move(tmp_path, backend, certs, of_client, of_upstream, tls, STALLED, BINARY)
    assert peak - before < RESIDENT_MAX


PAIRS = [(c, u) for c in ("h1", "h2") for u in ("h1", "h2")]
STALL_CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  limits: {max_body: 0, min_rate: 0, min_read_rate: 0, write_timeout: 5m}
proxy: {timeouts: {write: 5m}}
routes:
  "0.x/*": "http://127.0.0.1:%d"
  "1.x/*": "h2c://127.0.0.1:%d"
  "2.x/*": "http://127.0.0.1:%d"
  "3.x/*": "h2c://127.0.0.1:%d"
"""


@pytest.mark.parametrize("slow", ["client", "upstream"])
def test_who_takes_nothing_holds_the_other_back(backend, tmp_path, slow):
    """All pairings of versions at once. What comes meanwhile is bounded, nothing spins, and all arrives in the end."""
    up, down = (0, STALLED) if slow == "client" else (STALLED, 0)
    servers = [bulk.Server(v, up, down, reads=slow == "client", sndbuf=65536) for _, v in PAIRS]
    with Gate(tmp_path, STALL_CONFIG % tuple(s.port for s in servers), backend) as gate:
        pid = gate.process.pid
        assert gate.get("/", host="none").status == 404
        before = memory(pid, "VmRSS")
        clients = [bulk.client(v, gate.small_window(b""), up, down, host=f"{i}.x") for i, (v, _) in enumerate(PAIRS)]
        for client in clients:
            if slow == "client":
                client.reads.clear()
            client.start()
        for s in servers:
            assert s.come.acquire(timeout=20)
        givers, takers = [s.ends[0] for s in servers], clients
        if slow == "upstream":
            givers, takers = takers, givers
        await_stall(givers)
        assert all(0 < e.sent < ACCEPTED_MAX for e in givers), [e.sent for e in givers]
        await_rest(pid)
        assert memory(pid, "VmRSS") - before < ACCEPTED_MAX
        for e in takers:
            e.reads.set()
        ended(*givers, *takers)
        for client in clients:
            client.sock.close()
    for s in servers:
        s.close()


def await_rest(pid):
    """Until a second passes in which it does next to nothing; one that had stood still may have had some left."""
    deadline = time.monotonic() + 15
    while True:
        spent = ticks(pid)
        time.sleep(1)
        if ticks(pid) - spent < 15:
            return
        assert time.monotonic() < deadline, "it spins"


def await_stall(ends):
    """Until none of them can send more."""
    deadline, sums = time.monotonic() + 60, []
    while len(sums) < 6 or len(set(sums[-6:])) > 1 or not all(e.sent for e in ends):
        assert time.monotonic() < deadline, [e.sent for e in ends]
        sums.append(sum(e.sent for e in ends))
        time.sleep(0.1)
