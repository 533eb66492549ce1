"""Many clients share one connection to an upstream of HTTP/2: those that do not take their answers stop no other."""
import socket

import pytest
from gate import Gate

CLIENTS, BIG = 24, 8 << 20

SITE = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes: {"/*": "./"}
"""
FRONT = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes: {"/*": "h2c://127.0.0.1:%d"}
"""


@pytest.fixture(scope="module")
def gate(backend, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    (site / "big").write_bytes(b"x" * BIG)
    (site / "small").write_bytes(b"small")
    with (Gate(site, SITE, backend) as up,
          Gate(tmp_path_factory.mktemp("front"), FRONT % up.port, backend) as front):
        yield front


def slow_client(gate):
    """Asks for much, and reads the first byte of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", gate.port))
    sock.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    assert sock.recv(1) == b"H"
    return sock


def test_clients_that_take_nothing_stop_no_other(gate):
    assert len(gate.get("/big").body) == BIG  # windows have grown
    slow = []
    for _ in range(CLIENTS):
        slow.append(slow_client(gate))
        assert gate.get("/small").body == b"small"
    assert len(gate.get("/big").body) == BIG
    for sock in slow:
        sock.close()
    assert gate.get("/small").body == b"small"
