"""Servers of an upstream that come and go by reload, while connections and requests live."""
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from gate import Upstream, free_port, ok
from test_eyeballs import Hole, trying
from tcptable import ESTABLISHED, rows
from test_reload import Reloading
from waiting import await_that


class Named(Upstream):
    """Answers with its own name; /slow holds its answer back until told."""

    def __init__(self, name):
        self.name = name.encode()
        self.go_on = threading.Event()
        super().__init__(self._answer)

    def _answer(self, _index, head):
        return self._slow if b" /slow" in head else ok(self.name)

    def _slow(self, peer, _head, rest):
        self.go_on.wait(30)
        peer.send(ok(b"late " + self.name))
        return rest

    @property
    def connections(self):
        return len(self.received)


@pytest.fixture
def four():
    with ExitStack() as stack:
        yield [stack.enter_context(Named(name)) for name in "abcd"]


def config(*servers, extra=""):
    listed = ", ".join(f'"127.0.0.1:{s.port}{more}"' for s, more in
                       ((s, "") if isinstance(s, Upstream) else s for s in servers))
    return (f'server: {{listen: ["127.0.0.1:$PORT"], workers: 1}}\n'
            f'proxy: {{upstreams: {{up: {{servers: [{listed}]{extra}}}}}}}\n'
            'routes: {"/*": "http://up"}\n')


def names(gate, count):
    return [gate.get("/").body.decode() for _ in range(count)]


def test_servers_that_stay_keep_their_connections(backend, tmp_path, four):
    a, b, c, _ = four
    with Reloading(tmp_path, config(a, b), backend) as gate:
        assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]
        assert (a.connections, b.connections) == (1, 1)
        gate.reload(config(b, c))
        assert sorted(names(gate, 4)) == ["b", "b", "c", "c"]
        assert (a.connections, b.connections, c.connections) == (1, 1, 1)
        gate.reload(config((b, " weight=3"), c))
        assert sorted(names(gate, 8)) == ["b"] * 6 + ["c"] * 2
        assert (a.connections, b.connections, c.connections) == (1, 1, 1)


def test_options_change_with_a_reload(backend, tmp_path, four):
    a = four[0]
    with Reloading(tmp_path, config(a), backend) as gate:
        assert names(gate, 2) == ["a", "a"]
        gate.reload(config(a, extra=", keepalive: {max_idle: 0}"))
        assert names(gate, 3) == ["a"] * 3
        assert a.connections == 3, "the one that was there served once more, and no other was kept"
        gate.reload(config(a))
        assert names(gate, 3) == ["a"] * 3
        assert a.connections == 4


def test_a_removed_server_ends_what_it_has_begun(backend, tmp_path, four):
    a, b, _, _ = four
    with Reloading(tmp_path, config(a), backend) as gate:
        assert names(gate, 1) == ["a"]
        with gate.connect() as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await_that(lambda: any(b"/slow" in r for r in a.requests), lambda: a.requests)
            gate.reload(config(b))
            assert names(gate, 4) == ["b"] * 4
            a.go_on.set()
            answer = b""
            while piece := slow.recv(65536):
                answer += piece
        assert answer.endswith(b"late a")
        # Nothing of it is left: its connection is closed, and it is asked no more.
        await_that(lambda: not any(f":{a.port}" in line for line in peers_of(gate)),
                   lambda: peers_of(gate))
        assert names(gate, 2) == ["b"] * 2
        gate.reload(config(a, b))
        assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]


def peers_of(gate):
    """Ends of this process's established connections: "127.0.0.1:80"."""
    own = set(gate.descriptors())
    return [f":{row.there}" for row in rows() if row.link in own and row.state == ESTABLISHED]


def test_an_idle_connection_to_a_removed_server_is_closed(backend, tmp_path, four):
    a, b, _, _ = four
    with Reloading(tmp_path, config(a, b), backend) as gate:
        names(gate, 2)
        assert f":{a.port}" in peers_of(gate)
        gate.reload(config(b))
        names(gate, 1)
        await_that(lambda: f":{a.port}" not in peers_of(gate), lambda: peers_of(gate))
        assert f":{b.port}" in peers_of(gate)


def test_backup_servers_are_asked_when_no_other_can_be(backend, tmp_path, four):
    a, b, c, _ = four
    with Reloading(tmp_path, config(a, b, (c, " backup")), backend) as gate:
        assert sorted(names(gate, 6)) == ["a"] * 3 + ["b"] * 3
        a.close()
        assert names(gate, 4) == ["b"] * 4
        b.close()
        assert names(gate, 4) == ["c"] * 4


def test_many_changes_leave_nothing_behind(backend, tmp_path, four):
    with Reloading(tmp_path, config(*four), backend) as gate:
        names(gate, 8)
        before = len(gate.descriptors())
        for i in range(12):
            gate.reload(config(*four[i % 3:i % 3 + 2]))
            assert len(set(names(gate, 4))) == 2
        gate.reload(config(*four))
        names(gate, 8)
        await_that(lambda: len(gate.descriptors()) <= before, gate.descriptors)


def test_who_tried_a_removed_server_is_served_by_the_one_in_its_place(backend, tmp_path, four):
    port = free_port()
    with Hole("127.0.0.1", port) as hole, \
            Reloading(tmp_path, config((SimpleNamespace(port=port), "")), backend) as gate:
        with gate.connect(60) as waits:
            waits.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await_that(lambda: trying(port) == (0, 1), lambda: trying(port))
            gate.reload(config(four[0]))
            hole.sock.close()  # the next packet is refused
            assert waits.makefile("rb").read().endswith(b"\r\n\r\na")
