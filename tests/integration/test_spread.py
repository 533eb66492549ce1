"""Connections are shared out among shards, whatever listener the kernel chooses, and whenever a shard cannot take one."""
import contextlib
import json
import signal
import socket
import time

import pytest
from gate import Gate, Reader
from tcptable import LISTEN, TIME_WAIT, rows
from waiting import await_that

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 3, admin: "127.0.0.1:$PORT2"%s}
routes: {"/": OK}
"""


@pytest.fixture
def gate(backend, tmp_path, request):
    with Gate(tmp_path, CONFIG % getattr(request, "param", ""), backend) as gate:
        await_nobody(gate)
        yield gate


def await_nobody(gate):
    """Whoever looked whether it is up has been taken in, and is gone."""
    await_that(lambda: not any(serving(port) for port in gate.ports), gate.stderr)
    await_that(lambda: sum(shards(gate)) == 0, gate.stderr)


def serving(port):
    """This system's connections from the port, which wait to be accepted or are not closed yet."""
    return [row for row in rows() if row.here == port and row.state not in (LISTEN, TIME_WAIT)]


def shards(gate):
    return json.loads(gate.get("/status", host="127.0.0.1", port=gate.ports[1]).body)["shard_connections"]


def ask(s):
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert Reader(s).response().status == 200


def test_no_shard_has_clearly_more_than_another(gate):
    with contextlib.ExitStack() as held:
        for count in range(1, 121):
            ask(held.enter_context(socket.create_connection(("127.0.0.1", gate.port), 10)))
            each = shards(gate)
            assert sum(each) == count
            assert max(each) <= min(each) + 3 + min(each) // 16, each
    # What was passed on ends like any other.
    ask(gate.connect())


def test_a_reload_that_raises_the_bound_lets_in_who_waits(backend, tmp_path):
    """One shard has so many others that it passes on all that come; they are not taken, and wait with it."""
    config = CONFIG.replace('["127.0.0.1:$PORT"]', '["127.0.0.1:$PORT3", {address: "127.0.0.1:$PORT", limits: '
                            '{max_connections: 9}}]') % ""
    with Gate(tmp_path, config, backend) as gate, contextlib.ExitStack() as held:
        await_nobody(gate)
        others = []
        for _ in range(60):
            before = shards(gate)
            s = held.enter_context(socket.create_connection(("127.0.0.1", gate.ports[2]), 10))
            ask(s)
            if before[0] == shards(gate)[0]:
                others.append(s)
        for s in others:
            s.close()
        await_that(lambda: sum(shards(gate)[1:]) == 0, lambda: shards(gate))
        socks = [held.enter_context(socket.create_connection(("127.0.0.1", gate.port), 10)) for _ in range(40)]
        for s in socks:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        text = (tmp_path / "anygate.yml").read_text()
        (tmp_path / "anygate.yml").write_text(text.replace("max_connections: 9", "max_connections: 300"))
        gate.process.send_signal(signal.SIGHUP)
        for s in socks:
            assert Reader(s).response().status == 200


@pytest.mark.parametrize("gate, most", [(f", limits: {{max_connections: {n}}}", max(n, 3)) for n in (1, 3, 5, 7)],
                         indirect=["gate"])
def test_the_bound_is_shared_out_whole(gate, most):
    with contextlib.ExitStack() as held:
        for _ in range(80):
            s = held.enter_context(socket.create_connection(("127.0.0.1", gate.port), 10))
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await_that(lambda: sum(shards(gate)) == most, lambda: shards(gate))
        time.sleep(0.2)
        await_that(lambda: sum(shards(gate)) == most, lambda: shards(gate))


@pytest.mark.parametrize("gate", [", limits: {max_connections: 9}"], indirect=True)
def test_none_is_lost_at_the_bound(gate):
    """Three of nine for each shard; the others wait, some of them on their way back, until there is room."""
    socks = [socket.create_connection(("127.0.0.1", gate.port), 10) for _ in range(40)]
    for s in socks:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    served = 0
    while socks:
        for s in socks:
            s.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                assert s.recv(4096).startswith(b"HTTP/1.1 200 ")
                served += 1
                s.close()
        socks = [s for s in socks if s.fileno() >= 0]
    assert served == 40
