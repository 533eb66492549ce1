"""Servers whose names have several addresses, some of which lead nowhere (RFC 8305): what is asked, and what is left.

An address that leads nowhere is a socket that listens and whose queue is full: the kernel drops what would connect."""
import os
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import h2wire
import pytest
from dnswire import Name, NameServer
from gate import Gate, Reader, Upstream, free_port, ok
from tcptable import LISTEN, SYN_SENT, TIME_WAIT, rows
from waiting import await_that

CLOSE = b"Connection: close\r\n"
SIX, FOUR = "::1", "127.0.0.1"
DUAL = Name(a=[FOUR], aaaa=[SIX])
# Far beyond what a client of these tests waits: what is answered was not answered by waiting for a time-out.
CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  resolver: {{servers: "127.0.0.1:{dns}"}}
proxy:
  timeouts: {{connect: {connect}}}
  upstreams:
    dual: {{servers: ["dual.test:{port}"]{more}}}
routes:
  "/here": OK
  "/known": {{action: "http://dual.test:1", timeouts: {{connect: 20s}}}}
  "/*": "{scheme}://dual"
"""


# Two errors, and the server is asked no more.
TWO_ERRORS = ", panic: 0%, breaker: {consecutive: 2, errors: 0%, max: 100%}"


class Hole:
    """An address that leads nowhere."""

    def __init__(self, host, port):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.create_server((host, port), family=family, backlog=0)
        self.filler = socket.create_connection((host, port))

    def open(self):
        """It leads to somebody now; whoever tries still gets through."""
        self.sock.listen(64)
        return serve(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.filler.close()
        self.sock.close()


def serve(sock=None, host=None, port=0):
    """Says which family it was asked by, on connections for one request each."""
    body = b"six" if (host or sock.getsockname()[0]) == SIX else b"four"
    return Upstream(lambda _, head: ok(body, CLOSE), host=host or "", port=port, sock=sock)


def trying(port):
    """How many attempts to connect to the port are under way, of each family."""
    four, six = (sum(row.there == port and row.state == SYN_SENT for row in rows(table))
                 for table in ("tcp", "tcp6"))  # what begins later is looked at first
    return six, four


def eventually(what, wanted):
    await_that(lambda: what() == wanted, lambda: (what(), wanted), 20)


def clients(gate):
    return sum(row.here == gate.port and row.state not in (LISTEN, TIME_WAIT) for row in rows())


def descriptors(gate):
    """But for those of name look-ups, which stay a while."""
    folder = Path(f"/proc/{gate.process.pid}/fd")
    names = {row.link for row in rows("udp", "udp6")}
    count = 0
    for fd in folder.iterdir():
        try:
            count += os.readlink(fd) not in names
        except FileNotFoundError:
            pass  # it was closed meanwhile
    return count


@pytest.fixture
def rig(backend, tmp_path):
    """rig(port, ...): a gate whose upstream is dual.test at that port."""
    with ExitStack() as stack:
        def make(port, known=DUAL, connect="60s", more="", scheme="http", text=CONFIG):
            dns = stack.enter_context(NameServer({"dual.test": known}))
            text = text.format(dns=dns.port, connect=connect, port=port, more=more, scheme=scheme)
            gate = stack.enter_context(Gate(tmp_path, text, backend))
            assert gate.get("/here").status == 200  # its shard is at work, with all that it opens
            if connect != "60s":  # which is for looking the name up, too
                assert gate.get("/known").status == 502
            eventually(lambda: clients(gate), 0)
            return gate
        yield make


def test_one_that_leads_nowhere_is_passed_by(rig):
    with Hole(SIX, port := free_port()) as hole, serve(host=FOUR, port=port) as four:
        gate = rig(port)
        before = descriptors(gate)
        assert gate.get("/").body == b"four"
        eventually(lambda: trying(port), (0, 0))
        eventually(lambda: descriptors(gate), before)
        # The family that has worked goes first, though the other one would, too, now.
        with hole.open() as six:
            assert [gate.get("/").body for _ in range(3)] == [b"four"] * 3
            assert six.requests == [] and len(four.requests) == 4


def test_one_that_refuses_is_passed_by(rig):
    with serve(host=FOUR, port=free_port()) as four:
        gate = rig(four.port)
        assert gate.get("/").body == b"four"
        with serve(host=SIX, port=four.port) as six:
            assert gate.get("/").body == b"four"
            assert six.requests == []


def test_the_first_of_the_resolver_s_goes_first(rig):
    with serve(host=SIX, port=free_port()) as six, serve(host=FOUR, port=six.port) as four:
        gate = rig(six.port)
        assert [gate.get("/").body for _ in range(4)] == [b"six"] * 4
        assert four.received == []


def test_a_family_that_works_no_more_is_left(rig):
    with serve(host=FOUR, port=free_port()) as four:
        with serve(host=SIX, port=four.port):
            gate = rig(four.port)
            assert gate.get("/").body == b"six"
        with Hole(SIX, four.port):
            assert gate.get("/").body == b"four"


def test_addresses_of_a_family_take_turns(rig):
    hosts = [f"127.0.0.{i}" for i in (2, 3, 4)]
    port = free_port()
    with ExitStack() as stack:
        ups = [stack.enter_context(serve(host=h, port=port)) for h in hosts]
        gate = rig(port, Name(a=hosts, aaaa=[]))
        for _ in range(6):
            assert gate.get("/").status == 200
        assert [len(u.requests) for u in ups] == [2, 2, 2]


@pytest.mark.parametrize("addresses", [DUAL, Name(a=["127.0.0.2", "127.0.0.3", FOUR], aaaa=[SIX])],
                         ids=["two", "four"])
def test_nothing_leads_anywhere(rig, addresses):
    """A server counts as failed once, however many addresses it has; and nothing of the attempts stays."""
    port = free_port()
    with ExitStack() as stack:
        for host in addresses.a + addresses.aaaa:
            stack.enter_context(Hole(host, port))
        gate = rig(port, addresses, connect="600ms", more=TWO_ERRORS)
        before = descriptors(gate)
        answer = gate.get("/")
        assert answer.status == 504 and b"connect to upstream: timeout" in answer.body, answer
        eventually(lambda: trying(port), (0, 0))
        eventually(lambda: descriptors(gate), before)
        assert [gate.get("/").status for _ in range(2)] == [504, 503], "left out after two"


def test_nothing_listens_anywhere(rig):
    gate = rig(free_port(), more=TWO_ERRORS)
    answer = gate.get("/")
    assert answer.status == 502 and b"connect to upstream: connection refused" in answer.body, answer
    assert [gate.get("/").status for _ in range(2)] == [502, 503], "left out after two"


def ask(gate, answers):
    """In a thread of its own."""
    def run():
        with gate.connect(60) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answers.append(Reader(s).response())

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_whoever_comes_late_is_sent_away(rig):
    """Both get through after a while, all but at once: one request, and no connection more."""
    port, answers = free_port(), []
    with Hole(SIX, port) as one, Hole(FOUR, port) as other:
        gate = rig(port)
        before = descriptors(gate)
        thread = ask(gate, answers)
        eventually(lambda: trying(port), (1, 1))
        with one.open() as six, other.open() as four:
            thread.join()
            assert answers[0].status == 200
            eventually(lambda: trying(port), (0, 0))
            eventually(lambda: descriptors(gate), before)
            assert len(six.requests) + len(four.requests) == 1


def test_a_client_that_leaves_takes_all_attempts_along(rig):
    port = free_port()
    with Hole(SIX, port), Hole(FOUR, port):
        gate = rig(port)
        before = descriptors(gate)
        with gate.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: trying(port), (1, 1))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        eventually(lambda: trying(port), (0, 0))
        eventually(lambda: descriptors(gate), before)


def test_one_beside_is_a_connection(rig):
    """With one connection allowed the next attempt waits until the first has ended, and then has its place."""
    with Hole(SIX, port := free_port()), serve(host=FOUR, port=port) as four:
        gate = rig(port, connect="1500ms", more=", max_connections: 1")
        began = time.monotonic()
        assert gate.get("/").body == b"four"
        assert time.monotonic() - began > 1.4, "beside the first one it takes a quarter of a second"
        assert gate.get("/").body == b"four"  # the place is free again
        assert len(four.received) == 2


@pytest.mark.parametrize("scheme", ["h2c", "h2", "https", "wss"])
def test_whatever_is_spoken(rig, certs, scheme):
    """Requests that wait for one connection get it, whichever address it comes from."""
    leaf = certs.leaf("dual", ["dual.test"])
    alpn = {"wss": ("http/1.1",), "https": ("h2", "http/1.1")}.get(scheme, ("h2",))
    tls = scheme != "h2c"
    more = f", tls: {{ca: {certs.root}}}" if tls else ""
    context = h2wire.server_context(leaf, alpn=alpn) if tls else None
    with ExitStack() as stack:
        if scheme == "wss":
            sock = context.wrap_socket(socket.create_server((FOUR, 0)), server_side=True)
            up = stack.enter_context(Upstream(lambda _, head: ok(b"four", CLOSE), sock=sock))
        else:
            up = stack.enter_context(h2wire.Upstream(lambda server, request: server.answer(request),
                                                     context=context))
        stack.enter_context(Hole(SIX, up.port))
        gate, answers = rig(up.port, more=more, scheme=scheme), []
        threads = [ask(gate, answers) for _ in range(5)]
        for thread in threads:
            thread.join()
        assert [a.status for a in answers] == [200] * 5
        assert scheme == "wss" or len(up.connections) == 1
        eventually(lambda: trying(up.port), (0, 0))


class Secure(Upstream):
    """Shakes hands when `ready` is set, which it is at first."""

    def __init__(self, certs, host, port, name):
        self.shakes = h2wire.server_context(certs.leaf(name, [f"{name}.test"]), alpn=("http/1.1",))
        self.ready, self.reached = threading.Event(), threading.Event()
        self.ready.set()
        body = b"six" if host == SIX else b"four"
        super().__init__(lambda _, head: ok(body, CLOSE), host, port)

    def _serve(self, conn, index):
        self.reached.set()
        self.ready.wait()
        try:
            super()._serve(self.shakes.wrap_socket(conn, server_side=True), index)
        except OSError:
            conn.close()


def test_a_handshake_that_fails_is_a_failure(rig, certs):
    with Secure(certs, SIX, free_port(), "other") as six, Secure(certs, FOUR, six.port, "dual") as four:
        gate = rig(six.port, scheme="wss", more=f", tls: {{ca: {certs.root}}}")
        assert gate.get("/").body == b"four"
        assert six.requests == [] and len(four.requests) == 1


def test_a_handshake_that_takes_its_time_is_not_doubled(rig, certs):
    """Whoever has been reached may be slow. It has its time, and then the next one has."""
    with Secure(certs, SIX, free_port(), "dual") as six, Secure(certs, FOUR, six.port, "dual") as four:
        gate, answers = rig(six.port, scheme="wss", more=f", tls: {{ca: {certs.root}}}"), []
        six.ready.clear()
        thread = ask(gate, answers)
        assert six.reached.wait(20)
        time.sleep(1)  # long enough for others to begin, if any would
        six.ready.set()
        thread.join()
        assert answers[0].body == b"six" and four.received == []


def test_a_handshake_that_does_not_end_is_a_failure(rig, certs):
    with Secure(certs, SIX, free_port(), "dual") as six, Secure(certs, FOUR, six.port, "dual") as four:
        gate = rig(six.port, scheme="wss", connect="3s", more=f", tls: {{ca: {certs.root}}}")
        six.ready.clear()
        assert gate.get("/").body == b"four" and len(four.requests) == 1
        six.ready.set()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_each_attempt_tells_whose_it_is(rig, version):
    with Hole(SIX, port := free_port()), serve(host=FOUR, port=port) as four:
        gate = rig(port, more=f", proxy_protocol: {version}")
        heads = []
        four.script = lambda index, head: heads.append(head) or ok(b"four", CLOSE)
        assert gate.get("/").body == b"four"
        start = {"v1": b"PROXY TCP4 127.0.0.1 ", "v2": b"\r\n\r\n\0\r\nQUIT\n"}[version]
        assert four.received[0].startswith(start)


RELAY = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  resolver: {{servers: "127.0.0.1:{dns}"}}
tcp:
  - listen: ["127.0.0.1:$PORT2"]
    to: "dual.test:{port}"
    timeouts: {{connect: {connect}}}
routes:
  "/here": OK
"""


def test_connections_that_are_passed_on(rig):
    with Hole(SIX, port := free_port()), serve(host=FOUR, port=port) as four:
        gate = rig(port, text=RELAY)
        with gate.connect(port=gate.ports[1]) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert Reader(s).response().body == b"four"
        assert len(four.requests) == 1
        eventually(lambda: trying(port), (0, 0))


def test_a_check_goes_where_requests_go(rig):
    """One that stops at the first address would never pass: its own time is up long before that of the attempt."""
    health = ", health: {path: /well, interval: 1s, timeout: 5s, rise: 1, start: down}"
    with Hole(SIX, port := free_port()), serve(host=FOUR, port=port) as four:
        gate = rig(port, more=health)
        eventually(lambda: gate.get("/").status, 200)
        assert any(b"/well" in head for head in four.requests)


def test_connections_that_are_ready(rig):
    with Hole(SIX, port := free_port()), \
            Upstream(lambda _, head: ok(b"four"), host=FOUR, port=port) as four:
        rig(port, more=", keepalive: {min_idle: 2}")
        eventually(lambda: len(four.received), 2)
        eventually(lambda: trying(port), (0, 0))
