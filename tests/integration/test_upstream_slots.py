"""Bounds of upstream connections: of all shards together, of those who wait, and those kept ready."""
import threading
import time
from types import SimpleNamespace

import pytest
from gate import Gate, Reader, Upstream, free_port, ok
from test_reload import Reloading
from test_upstream_sets import peers_of
from waiting import await_that


class Counted(Upstream):
    """Answers after `hold_s`, or when it is let go (None); knows the most requests that were there at once. (Of
    connections it would see the end of one later than the begin of the next.)"""

    def __init__(self, hold_s=0.0):
        self.hold_s = hold_s
        self.free = threading.Event()
        self.now = self.most = 0
        self.counting = threading.Lock()
        super().__init__(lambda _index, _head: self._answer)

    def _answer(self, peer, _head, rest):
        with self.counting:
            self.now += 1
            self.most = max(self.most, self.now)
        if self.hold_s is None:
            self.free.wait(60)
        else:
            time.sleep(self.hold_s)
        with self.counting:
            self.now -= 1
        peer.send(ok(b"ok"))
        return rest

    def let_go(self):
        self.free.set()


def config(upstream, options, workers=2):
    return (f'server: {{listen: ["127.0.0.1:$PORT"], workers: {workers}}}\n'
            f'proxy: {{upstreams: {{up: {{servers: ["127.0.0.1:{upstream.port}"], {options}}}}}}}\n'
            'routes: {"/*": "http://up"}\n')


def clients(gate, count, requests, found=None):
    """So many connections, hence on every shard, each with so many requests; the statuses."""
    found = [] if found is None else found

    def one():
        with gate.connect(timeout=60) as sock:
            reader = Reader(sock)
            for _ in range(requests):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                found.append(reader.response().status)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


def held_clients(gate, up, count, refused):
    """So many clients of one request each, of whom so many get a 503 before `up` lets an answer go; the statuses."""
    found = []
    asking = threading.Thread(target=clients, args=(gate, count, 1, found))
    asking.start()
    try:
        await_that(lambda: found.count(503) == refused, lambda: found)
    finally:
        up.let_go()
        asking.join()
    return found


@pytest.mark.parametrize("bound", [1, 3])
def test_connections_of_all_shards_are_bounded_and_none_starves(backend, tmp_path, bound):
    with Counted(0.002) as up, Gate(
            tmp_path, config(up, f"max_connections: {bound}, pending_timeout: 60s"), backend) as gate:
        assert clients(gate, 24, 20) == [200] * 480
        assert up.most <= bound


def test_an_idle_connection_of_one_shard_does_not_keep_another_waiting(backend, tmp_path):
    with Counted() as up, Gate(tmp_path, config(up, "max_connections: 1, pending_timeout: 60s"),
                               backend) as gate:
        for _ in range(40):  # each on a connection of its own: sooner or later on either shard
            assert gate.get("/").status == 200


def test_those_who_wait_are_bounded(backend, tmp_path):
    with Counted(None) as up, Gate(
            tmp_path, config(up, "max_connections: 1, max_pending: 2, pending_timeout: 60s"),
            backend) as gate:
        found = held_clients(gate, up, 10, 7)
        assert found.count(200) == 3 and found.count(503) == 7, found


def test_who_waits_too_long_is_told_so(backend, tmp_path):
    with Counted(None) as up, Gate(
            tmp_path, config(up, "max_connections: 1, pending_timeout: 100ms"), backend) as gate:
        found = held_clients(gate, up, 3, 2)
        assert sorted(found) == [200, 503, 503]


def test_connections_are_ready_before_anyone_asks(backend, tmp_path):
    with Counted() as up, Reloading(
            tmp_path, config(up, "keepalive: {min_idle: 3}", workers=1), backend) as gate:
        def ready(count):
            return peers_of(gate).count(f":{up.port}") == count

        await_that(lambda: ready(3), lambda: peers_of(gate))
        assert clients(gate, 1, 3) == [200] * 3
        await_that(lambda: len(up.received) >= 3, lambda: up.received)  # its thread has taken what its system has
        assert len(up.received) == 3, "no other was made for them"
        gate.reload(config(up, "keepalive: {min_idle: 5, max_requests: 1}", workers=1))
        await_that(lambda: ready(5), lambda: peers_of(gate))
        assert clients(gate, 1, 4) == [200] * 4
        await_that(lambda: ready(5), lambda: peers_of(gate))


def test_a_server_that_is_down_is_asked_for_ready_connections_in_peace(backend, tmp_path):
    text = config(SimpleNamespace(port=free_port()), "keepalive: {min_idle: 3}", workers=1)
    with Gate(tmp_path, text, backend) as gate:
        time.sleep(1)
        assert gate.get("/").status == 502
