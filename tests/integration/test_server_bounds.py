"""Bounds of connections to one server (max=N), of all shards together."""
import selectors
import socket
import threading
import time

import pytest
from gate import Gate, Reader, Upstream, free_port, ok
from test_balancing import cookie_of
from test_reload import Reloading
from test_upstream_sets import Named, names, peers_of
from test_upstream_slots import clients, held_clients
from waiting import await_that


class Doorman:
    """Counts connections as the kernel had them: each time one comes, those whose end has come before it are gone.
    Answers each request after `hold_s`, or when it is let go (None), by `how`: keep, close (after the answer), reset
    (instead of it)."""

    def __init__(self, hold_s=0.002, how="keep", port=0):
        self.hold_s, self.how = hold_s, how
        self.free = hold_s is not None
        self.most = self.accepted = self.answered = 0
        self.conns = {}  # each one's answers' times
        self.sock = socket.create_server(("127.0.0.1", port), backlog=256)
        self.sock.setblocking(False)
        self.port = self.sock.getsockname()[1]
        self.poll = selectors.DefaultSelector()
        self.poll.register(self.sock, selectors.EVENT_READ)
        self.ends = self.counts_anew = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ends:
            due = [t for times in self.conns.values() for t in times] if self.free else []
            wait = max(0, min(due) - time.monotonic()) if due else 0.02
            ready = {key.fileobj for key, _ in self.poll.select(wait)}
            if self.sock in ready:
                self._accept()
                ready = set(self.conns)  # whoever has ended by now did so before that one came, or since
            for conn in ready - {self.sock}:
                self._read(conn)
            if self.counts_anew:
                self.most, self.counts_anew = 0, False
            self.most = max(self.most, len(self.conns))
            self._answer()

    def _accept(self):
        try:
            conn, _ = self.sock.accept()
        except BlockingIOError:
            return
        conn.setblocking(False)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.conns[conn] = []
        self.accepted += 1
        self.poll.register(conn, selectors.EVENT_READ)

    def _drop(self, conn, reset=False):
        if reset:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.poll.unregister(conn)
        del self.conns[conn]
        conn.close()

    def _read(self, conn):
        try:
            data = conn.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(conn)
        else:
            self.conns[conn] += [time.monotonic() + (self.hold_s or 0)] * data.count(b"\r\n\r\n")

    def _answer(self):
        now = time.monotonic()
        for conn, times in list(self.conns.items()):
            if not times or times[0] > now or not self.free:
                continue
            times.pop(0)
            self.answered += 1
            try:
                if self.how != "reset":
                    conn.send(ok(b"ok", b"Connection: close\r\n" if self.how == "close" else b""))
            except OSError:
                pass
            if self.how != "keep":
                self._drop(conn, self.how == "reset")

    def let_go(self):
        self.free = True

    def close(self):
        self.ends = True
        self.thread.join()
        for conn in self.conns:
            conn.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def config(servers, options="", workers=2, target="http"):
    listed = ", ".join(f'"127.0.0.1:{port}{more}"' for port, more in servers)
    return (f'server: {{listen: ["127.0.0.1:$PORT"], workers: {workers}}}\n'
            f'proxy: {{upstreams: {{up: {{servers: [{listed}], pending_timeout: 60s{options}}}}}}}\n'
            f'routes: {{"/*": "{target}://up"}}\n')


@pytest.mark.parametrize("how", ["keep", "close"])
def test_a_server_never_has_more_than_its_bound_and_none_starves(backend, tmp_path, how):
    with Doorman(how=how) as up, Gate(tmp_path, config([(up.port, " max=3")]), backend) as gate:
        assert clients(gate, 50, 10) == [200] * 500
        assert 1 < up.most <= 3 and up.answered == 500


@pytest.mark.parametrize("balance", ["round_robin", "least_conn", "random_two", "{hash: uri}"])
def test_each_server_has_its_own_bound(backend, tmp_path, balance):
    with Doorman(0.01) as few, Doorman(0.01) as more, Gate(
            tmp_path, config([(few.port, " max=1"), (more.port, " max=4")], f", balance: {balance}"),
            backend) as gate:
        deadline = time.monotonic() + 20
        while True:  # one of the threads that answer may stand still, and all goes to the other
            assert clients(gate, 30, 10) == [200] * 300
            if min(few.answered, more.answered) > 20 or time.monotonic() >= deadline:
                break
        assert few.most == 1 and 1 < more.most <= 4
        assert min(few.answered, more.answered) > 20


def test_the_bound_of_the_upstream_holds_beside_that_of_servers(backend, tmp_path):
    with Doorman(0.005) as a, Doorman(0.005) as b, Gate(
            tmp_path, config([(a.port, " max=3"), (b.port, " max=3")], ", max_connections: 4"),
            backend) as gate:
        assert clients(gate, 30, 10) == [200] * 300
        assert max(a.most, b.most) <= 3 and a.answered and b.answered


def test_an_idle_connection_of_one_shard_does_not_keep_another_waiting(backend, tmp_path):
    with Doorman(0) as up, Gate(tmp_path, config([(up.port, " max=1")]), backend) as gate:
        for _ in range(40):  # each on a connection of its own: sooner or later on either shard
            assert gate.get("/").status == 200


def test_those_who_wait_are_bounded(backend, tmp_path):
    options = ", max_pending: 2"
    with Doorman(None) as up, Gate(tmp_path, config([(up.port, " max=1")], options), backend) as gate:
        found = held_clients(gate, up, 10, 7)
        assert found.count(200) == 3 and found.count(503) == 7, found


def test_who_waits_too_long_is_told_so(backend, tmp_path):
    text = config([(0, " max=1")]).replace("60s", "100ms")
    with Doorman(None) as up, Gate(tmp_path, text.replace("127.0.0.1:0 ", f"127.0.0.1:{up.port} "),
                                   backend) as gate:
        assert sorted(held_clients(gate, up, 3, 2)) == [200, 503, 503]


class Busy:
    """A request to /slow that `server` holds back."""

    def __init__(self, gate, headers=b""):
        self.sock = gate.connect(timeout=60)
        self.sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")

    def answer(self):
        with self.sock:
            return Reader(self.sock).response()


def holder(servers):
    """The one of them that has begun with /slow."""
    def found():
        return [s for s in servers if any(b" /slow" in r for r in s.requests)]

    await_that(found, lambda: [s.requests for s in servers])
    return found()[0]


@pytest.fixture
def two():
    with Named("a") as a, Named("b") as b:
        yield a, b


def bounded(servers, options="", workers=1, bound=1):
    return config([(s.port, f" max={bound}") for s in servers], options, workers)


def test_one_that_is_full_is_passed_over(backend, tmp_path, two):
    with Gate(tmp_path, bounded(two), backend) as gate:
        slow = Busy(gate)
        held = holder(two)
        other = next(s for s in two if s is not held)
        assert set(names(gate, 10)) == {other.name.decode()}
        held.go_on.set()
        assert slow.answer().body == b"late " + held.name
        assert len(set(names(gate, 4))) == 2


def test_a_full_server_hands_its_keys_on_and_gets_them_back(backend, tmp_path, two):
    with Gate(tmp_path, bounded(two, ", balance: {hash: {header: X-User}}"), backend) as gate:
        def where():
            return [gate.get("/", f"X-User: {i}\r\n").body for i in range(20)]

        before = where()
        slow = Busy(gate, b"X-User: 1\r\n")
        held = holder(two)
        other = next(s for s in two if s is not held)
        assert held.name == before[1]
        assert where() == [other.name] * 20
        held.go_on.set()
        slow.answer()
        assert where() == before


def test_a_client_whose_server_is_full_goes_elsewhere_and_keeps_its_cookie(backend, tmp_path, two):
    with Gate(tmp_path, bounded(two, ", sticky: {cookie: srv, secret: 0123456789abcdef}"),
              backend) as gate:
        first = gate.get("/")
        cookie = cookie_of(first)
        slow = Busy(gate, f"Cookie: {cookie}\r\n".encode())
        held = holder(two)
        assert held.name == first.body
        moved = gate.get("/", f"Cookie: {cookie}\r\n")
        assert moved.status == 200 and moved.body != first.body
        assert moved.get("set-cookie") is None
        assert cookie_of(gate.get("/")), "who has none gets one"
        held.go_on.set()
        slow.answer()
        assert gate.get("/", f"Cookie: {cookie}\r\n").body == first.body


def test_backups_are_for_servers_that_are_out_not_for_those_that_are_full(backend, tmp_path, two):
    a, b = two
    with Gate(tmp_path, config([(a.port, " max=1"), (b.port, " backup")], workers=1), backend) as gate:
        slow = Busy(gate)
        assert holder([a]) is a
        with gate.connect(timeout=60) as waits:
            waits.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)
            assert not b.requests
            a.go_on.set()
            assert Reader(waits).response().body == b"a"
        slow.answer()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_lowers_and_raises_the_bound_under_load(backend, tmp_path, workers):
    def bounded_by(bound):
        return config([(up.port, f" max={bound}")], workers=workers)

    with Doorman(0.005) as up, Reloading(tmp_path, bounded_by(5), backend) as gate:
        found, ends = [], threading.Event()

        def load():
            while not ends.is_set():
                found.extend(clients(gate, 16, 5))

        thread = threading.Thread(target=load)
        thread.start()
        try:
            await_that(lambda: up.most >= 3, lambda: up.most)
            for bound in (1, 4, 2):
                before = up.most
                gate.reload(bounded_by(bound))
                await_that(lambda: len(up.conns) <= bound, lambda: len(up.conns))
                done = len(found)
                up.counts_anew = True
                await_that(lambda: len(found) > done + 160 and not up.counts_anew, lambda: len(found))
                assert 1 <= up.most <= bound, (before, bound)
        finally:
            ends.set()
            thread.join()
        assert set(found) == {200}


def test_who_waits_has_the_slots_that_a_reload_brings(backend, tmp_path, two):
    a, b = two
    with Reloading(tmp_path, bounded([a]), backend) as gate:
        slow = Busy(gate)
        holder([a])
        with gate.connect(timeout=60) as one, gate.connect(timeout=60) as other:
            one.sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.1)
            gate.reload(bounded([a], bound=2))
            assert Reader(one).response().body == b"a"
            other.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await_that(lambda: sum(b" /slow" in r for r in a.requests) == 2, lambda: a.requests)
            one.sendall(b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.1)
            gate.reload(bounded([a, b], bound=2))
            assert Reader(one).response().body == b"b", "a server that comes takes who waits"
            a.go_on.set()
            assert Reader(other).response().body == b"late a"
        slow.answer()


@pytest.mark.parametrize("broken", ["refused", "reset"])
def test_what_fails_gives_its_slots_back(backend, tmp_path, broken):
    port = free_port()
    with Gate(tmp_path, config([(port, " max=2")], ", max_pending: 50, retry: {attempts: 1}"),
              backend) as gate:
        if broken == "reset":
            with Doorman(how="reset", port=port):
                found = clients(gate, 8, 10)
        else:
            found = clients(gate, 8, 10)
        assert set(found) == {502}
        with Doorman(port=port) as up:
            assert clients(gate, 8, 10) == [200] * 80
            assert up.most <= 2


def test_clients_that_leave_give_their_slots_back(backend, tmp_path):
    with Doorman(0.05) as up, Gate(tmp_path, config([(up.port, " max=2")]), backend) as gate:
        for _ in range(10):
            socks = [gate.connect() for _ in range(6)]
            for sock in socks:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            for sock in socks:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
        assert clients(gate, 8, 5) == [200] * 40
        assert up.most <= 2


def test_checks_and_ready_connections(backend, tmp_path):
    """Checks are beside the bound; connections that are kept ready are within it."""
    options = (", health: {path: /healthz, interval: 100ms, timeout: 30s, fall: 1, rise: 1}, "
               "keepalive: {min_idle: 5}")
    with Upstream(lambda _i, _h: ok(b"ok")) as up, Gate(
            tmp_path, config([(up.port, " max=2")], options, workers=1), backend) as gate:
        await_that(lambda: sum(b"/healthz" in r for r in up.requests) > 5, lambda: up.requests)
        # Of a check that begins just now nothing has been read either.
        await_that(lambda: sum(r == b"" for r in up.received) == 2, lambda: up.received)
        assert names(gate, 10) == ["ok"] * 10


def test_a_file_and_its_bounds(backend, tmp_path):
    with Doorman() as up:
        (tmp_path / "servers.txt").write_text(f"127.0.0.1:{up.port} max=2 # no more\n")
        text = (f'server: {{listen: ["127.0.0.1:$PORT"], workers: 2}}\n'
                f'proxy: {{upstreams: {{up: {{servers: {{file: servers.txt}}, pending_timeout: 60s}}}}}}\n'
                'routes: {"/*": "http://up"}\n')
        with Gate(tmp_path, text, backend) as gate:
            assert clients(gate, 20, 5) == [200] * 100
            assert up.most <= 2


def test_over_http2_connections_are_bounded_and_requests_share_them(backend, tmp_path):
    fixed = 'server: {listen: ["127.0.0.1:$PORT"]}\nroutes: {"/": 200 ok}\n'
    (tmp_path / "up").mkdir()
    (tmp_path / "front").mkdir()
    with Gate(tmp_path / "up", fixed, backend) as up, Reloading(
            tmp_path / "front", config([(up.port, " max=1")], target="h2c"), backend) as gate:
        def there():
            return peers_of(gate).count(f":{up.port}")

        most, ends = [0], threading.Event()

        def look():
            while not ends.is_set():
                most.append(there())
                time.sleep(0.002)

        watch = threading.Thread(target=look)
        watch.start()
        found = clients(gate, 20, 20)
        ends.set()
        watch.join()
        assert found == [200] * 400 and max(most) <= 1
        assert there() <= 1, "without the bound each shard would have one still"


def test_connections_that_are_passed_on_count(backend, tmp_path):
    with Doorman(0) as up:
        text = (f'server: {{listen: ["127.0.0.1:$PORT"], workers: 2}}\n'
                f'proxy: {{upstreams: {{db: {{servers: ["127.0.0.1:{up.port} max=2"], pending_timeout: 60s}}}}}}\n'
                'tcp: [{listen: "127.0.0.1:$PORT2", to: db}]\nroutes: {"/": OK}\n')
        with Gate(tmp_path, text, backend) as gate:
            def begin():
                sock = gate.connect(timeout=60, port=gate.ports[1])
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return sock

            first, second = begin(), begin()
            for sock in (first, second):
                assert Reader(sock).response().body == b"ok"
            third = begin()
            time.sleep(0.2)
            assert len(up.conns) == 2 and up.answered == 2
            first.close()
            assert Reader(third).response().body == b"ok"
            assert up.most == 2
            second.close()
            third.close()
