"""Connections are shared out among shards, whatever listener the kernel chooses, and whenever a shard cannot take one."""
import contextlib
import json
import socket
import time

import pytest
from gate import Gate, Reader

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 3, admin: "127.0.0.1:$PORT2"%s}
routes: {"/": OK}
"""


@pytest.fixture
def gate(backend, tmp_path, request):
    with Gate(tmp_path, CONFIG % getattr(request, "param", ""), backend) as gate:
        deadline = time.monotonic() + 20
        while sum(shards(gate)) > 0:  # whoever looked whether it is up
            assert time.monotonic() < deadline
        yield gate


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
