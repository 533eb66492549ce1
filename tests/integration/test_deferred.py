"""listen: {deferred: true}: who has connected and says nothing waits in the kernel, and is let in later."""
import json
import socket
import time

import pytest
from gate import Gate, Reader
from tcptable import ESTABLISHED, SYN_RECV, rows
from waiting import await_that

CONFIG = """
server: {listen: {address: "127.0.0.1:$PORT", deferred: %s}, workers: 1, admin: "127.0.0.1:$PORT2"}
routes: {"/": OK}
"""


def connections(gate):
    return json.loads(gate.get("/status", host="127.0.0.1", port=gate.ports[1]).body)["connections"]


def state_of(gate, sock):
    """The server's side, as the kernel tells it."""
    ports = gate.port, sock.getsockname()[1]
    return next((row.state for row in rows() if (row.here, row.there) == ports), None)


def connect(gate, state=SYN_RECV):
    """A connection that is in that state, at a time when one that says nothing cannot have been let in yet."""
    deadline = time.monotonic() + 20
    while True:
        began = time.monotonic()
        s = socket.create_connection(("127.0.0.1", gate.port), 10)
        seen = None
        while time.monotonic() - began < 0.5:
            seen = state_of(gate, s)
            if seen == state and time.monotonic() - began < 0.5:
                return s
            time.sleep(0.005)
        s.close()
        assert time.monotonic() < deadline, seen


def answered(sock):
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return Reader(sock).response().status == 200


@pytest.fixture
def gate(backend, tmp_path):
    with Gate(tmp_path, CONFIG % "true", backend) as gate:
        await_that(lambda: connections(gate) == 0, lambda: "whoever looked whether it is up has gone", 30)
        yield gate


def test_a_request_is_answered(gate):
    with connect(gate) as s:
        assert answered(s) and answered(s)
        assert state_of(gate, s) == ESTABLISHED


def test_who_says_nothing_is_let_in_later(gate):
    with connect(gate) as s:
        counted = connections(gate)
        assert counted == 0 or state_of(gate, s) == ESTABLISHED  # it was let in meanwhile
        await_that(lambda: connections(gate) == 1, lambda: "it is let in", 30)
        assert answered(s)


def test_a_reload_changes_it(gate):
    for word, state in (("false", ESTABLISHED), ("true", SYN_RECV)):
        (gate.folder / "anygate.yml").write_text(CONFIG.replace("$PORT2", str(gate.ports[1]))
                                                 .replace("$PORT", str(gate.port)) % word)
        before = gate.stderr().count("reloaded: ")
        gate.process.send_signal(1)
        await_that(lambda: gate.stderr().count("reloaded: ") > before, lambda: "it is reloaded", 30)
        with connect(gate, state) as s:
            assert answered(s)
