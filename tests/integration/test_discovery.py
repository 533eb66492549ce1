"""Servers that name servers know: SRV records and all addresses of a name, which come and go, and everything that a name
server may say instead."""
import re
import socket
import ssl
import threading
from contextlib import ExitStack

import dnswire
import h2wire
import pytest
from dnswire import Name, NameServer
from gate import Reader, Upstream, ok, run
from test_reload import Reloading
from test_upstream_sets import Named, names, peers_of
from waiting import await_that

SERVICE = "_http._tcp.app.test"
LONG = 3600


class At(Named):
    """A server of that name at that address."""

    def __init__(self, name, host="127.0.0.1", port=0):
        self.name = name.encode()
        self.go_on = threading.Event()
        Upstream.__init__(self, self._answer, host, port)


@pytest.fixture
def four():
    """At ports of their own: what SRV is about."""
    with ExitStack() as stack:
        yield [stack.enter_context(At(name)) for name in "abcd"]


@pytest.fixture
def three():
    """At addresses of their own, 127.0.0.1 to 3, and one port."""
    with ExitStack() as stack:
        first = stack.enter_context(At("a"))
        yield [first, *(stack.enter_context(At(name, f"127.0.0.{i}", first.port))
                        for i, name in ((2, "b"), (3, "c")))]


@pytest.fixture
def dns():
    with NameServer({"home.test": Name(a=["127.0.0.1"], ttl=LONG)}) as server:
        yield server


def srv(*servers, ttl=1, **more):
    """Records of (server, priority, weight); a server alone is (server, 0, 1)."""
    full = [s if isinstance(s, tuple) else (s, 0, 1) for s in servers]
    return Name(srv=[(priority, weight, s.port, "home.test") for s, priority, weight in full],
                ttl=ttl, **more)


def config(dns, servers, extra="", workers=1, resolver="timeout: 20s", more="", target="http://up"):
    return (f'server:\n  listen: ["127.0.0.1:$PORT"]\n  workers: {workers}\n'
            f'  resolver: {{servers: "127.0.0.1:{dns.port}", {resolver}}}\n'
            f'proxy:\n  timeouts: {{connect: 5s}}\n  upstreams: {{up: {{servers: {servers}{extra}}}}}\n{more}'
            f'routes: {{"/*": "{target}"}}\n')


def by_srv(more=""):
    return f"{{srv: {SERVICE}{more}}}"


def found(gate, want, count=None):
    """Requests get to these servers and no others, from now on."""
    count = count or 4 * len(want)
    await_that(lambda: set(names(gate, count)) == set(want), lambda: (want, gate.stderr()))


def said(gate, text):
    """The log is written by a thread of its own."""
    await_that(lambda: text in gate.stderr(), gate.stderr)


# ---- records that come and go ----

def test_records_come_and_go(backend, tmp_path, dns, four):
    a, b, c, _ = four
    dns.names[SERVICE] = srv(a, b)
    with Reloading(tmp_path, config(dns, by_srv()), backend) as gate:
        assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]
        dns.names[SERVICE] = srv(b, c)
        found(gate, "bc")
        assert b.connections == 1, "the connection to who stayed is the same"
        await_that(lambda: f":{a.port}" not in peers_of(gate), lambda: peers_of(gate))
        dns.names[SERVICE] = srv(c)
        found(gate, "c", 4)
        dns.names[SERVICE] = srv(a, b, c)
        found(gate, "abc")
        said(gate, "3 servers found by " + SERVICE)


def test_weights_and_priorities_change(backend, tmp_path, dns, four):
    a, b, c, _ = four
    dns.names[SERVICE] = srv((a, 5, 1), (b, 5, 3), (c, 9, 1))
    with Reloading(tmp_path, config(dns, by_srv()), backend) as gate:
        assert sorted(names(gate, 8)) == ["a"] * 2 + ["b"] * 6
        dns.names[SERVICE] = srv((a, 5, 60000), (b, 5, 20000), (c, 9, 1))
        await_that(lambda: sorted(names(gate, 8)) == ["a"] * 6 + ["b"] * 2, gate.stderr)
        assert (a.connections, b.connections, c.connections) == (1, 1, 0)
        dns.names[SERVICE] = srv((a, 5, 0), (b, 9, 0), (c, 9, 0))
        found(gate, "a", 4)
        dns.names[SERVICE] = srv((a, 6, 0), (b, 5, 0))
        found(gate, "b", 4)
        assert (a.connections, b.connections) == (1, 1), "whoever stands by now keeps its connections"
        b.close()
        found(gate, "a", 4)


def test_a_server_that_goes_ends_what_it_has_begun(backend, tmp_path, dns, four):
    a, b, _, _ = four
    dns.names[SERVICE] = srv(a)
    with Reloading(tmp_path, config(dns, by_srv()), backend) as gate:
        with gate.connect() as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await_that(lambda: any(b"/slow" in r for r in a.requests), lambda: a.requests)
            dns.names[SERVICE] = srv(b)
            found(gate, "b", 4)
            a.go_on.set()
            answer = b""
            while piece := slow.recv(65536):
                answer += piece
        assert answer.endswith(b"late a")
        await_that(lambda: f":{a.port}" not in peers_of(gate), lambda: peers_of(gate))


@pytest.mark.parametrize("workers", [1, 2])
def test_each_address_of_a_name_is_a_server(backend, tmp_path, dns, three, workers):
    a, b, c = three
    dns.names["app.test"] = Name(a=["127.0.0.1", "127.0.0.2"], ttl=1)
    text = config(dns, f'{{dns: "app.test:{a.port}"}}', ", host: upstream", workers)
    with Reloading(tmp_path, text, backend) as gate:
        found(gate, "ab", 16)
        dns.names["app.test"] = Name(a=["127.0.0.2", "127.0.0.3"], ttl=1)
        found(gate, "bc", 16)
        assert b.connections <= workers
    for head in a.requests + b.requests + c.requests:
        assert f"\r\nHost: app.test:{a.port}\r\n".encode() in head


def test_aliases_and_long_answers(backend, tmp_path, dns, four):
    a, b, _, _ = four
    dns.names[SERVICE] = Name(cname="_second._tcp.test", cut=True)
    dns.names["_second._tcp.test"] = srv(a, b, ttl=LONG)
    with Reloading(tmp_path, config(dns, by_srv()), backend) as gate:
        assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]
    assert dns.asked(SERVICE, by="tcp") == 1


# ---- how often ----

def test_one_look_up_for_all_shards(backend, tmp_path, dns, four):
    dns.names[SERVICE] = srv(*four[:2], ttl=LONG)
    with Reloading(tmp_path, config(dns, by_srv(), workers=2), backend) as gate:
        assert set(names(gate, 40)) == {"a", "b"}
        assert dns.asked(SERVICE) == 1


def test_it_is_asked_for_again_by_its_time_to_live(backend, tmp_path, dns, four):
    dns.names[SERVICE] = srv(four[0], ttl=1)
    with Reloading(tmp_path, config(dns, by_srv()), backend) as gate:
        dns.await_asked(SERVICE, 4)
        assert names(gate, 1) == ["a"]
        assert gate.stderr().count("servers found") == 1, "nothing has changed"


def test_it_is_asked_for_as_often_as_is_configured(backend, tmp_path, dns, four):
    dns.names[SERVICE] = srv(four[0], ttl=LONG)
    dns.names["app.test"] = Name(a=["127.0.0.1"], ttl=LONG)
    with Reloading(tmp_path / "srv", config(dns, by_srv(", refresh: 1s")), backend):
        dns.await_asked(SERVICE, 4)
    with Reloading(tmp_path / "dns", config(dns, "{dns: app.test, refresh: 1s}"), backend):
        dns.await_asked("app.test", 8)


# ---- before anything is known ----

def test_first_requests_wait_for_the_first_answer(backend, tmp_path, dns, four):
    dns.names[SERVICE] = srv(*four[:2], ttl=LONG, delay=1)
    patient = config(dns, by_srv(), workers=2).replace("connect: 5s", "connect: 60s")
    with Reloading(tmp_path, patient, backend) as gate:
        with ExitStack() as stack:
            clients = [stack.enter_context(gate.connect(60)) for _ in range(16)]
            for s in clients:
                s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answers = [s.makefile("rb").read() for s in clients]
        assert all(b" 200 OK\r\n" in one[:20] for one in answers), answers
    assert dns.asked(SERVICE) == 1


NO_SERVERS = "no servers of the upstream are known yet"


def why(gate):
    answer = gate.get("/", "Accept: text/plain\r\n")
    return answer.status, answer.body.decode().partition(": ")[2].strip()


HOSTILE = {
    "missing": Name(rcode=dnswire.NXDOMAIN),
    "broken": Name(rcode=dnswire.SERVFAIL),
    "refused": Name(rcode=dnswire.REFUSED),
    "empty": Name(),
    "silent": Name(silent=True),
    "garbage": Name(srv=[(0, 1, 80, "home.test")], lie=dnswire.garbage),
    "loop": Name(srv=[(0, 1, 80, "home.test")], lie=dnswire.loop_of_names),
    "pointers": Name(srv=[(0, 1, 80, "home.test")], lie=dnswire.pointer_loop),
    "more-than-there-is": Name(srv=[(0, 1, 80, "home.test")], lie=dnswire.more_than_there_is),
    "not-there": Name(srv=[(0, 0, 0, ".")]),
    "an-address": Name(srv=[(0, 0, 80, "127.0.0.1")]),
    "no-port": Name(srv=[(0, 0, 0, "home.test")]),
}
FEW = "timeout: 200ms, attempts: 1"


@pytest.mark.parametrize("what", HOSTILE)
def test_without_any_server_the_answer_is_503(backend, tmp_path, dns, what):
    dns.names[SERVICE] = HOSTILE[what]
    with Reloading(tmp_path, config(dns, by_srv(), resolver=FEW), backend) as gate:
        assert why(gate) == (503, NO_SERVERS)
        assert why(gate) == (503, NO_SERVERS)
        said(gate, f"no servers found by {SERVICE}: ")
        said(gate, "none is known yet")


def test_what_waits_does_not_wait_for_ever(backend, tmp_path, dns):
    dns.names[SERVICE] = Name(silent=True)
    text = config(dns, by_srv()).replace("connect: 5s", "connect: 100ms")
    with Reloading(tmp_path, text, backend) as gate:
        assert why(gate) == (503, NO_SERVERS)


# ---- when there is nothing new to be had ----

@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_known_stays(backend, tmp_path, dns, four, what):
    a, b, _, _ = four
    dns.names[SERVICE] = srv(a, b)
    with Reloading(tmp_path, config(dns, by_srv(), resolver=FEW), backend) as gate:
        found(gate, "ab")  # the first answer may have come too late
        dns.names[SERVICE] = HOSTILE[what]
        said(gate, "those that were known stay")
        dns.await_asked(SERVICE, dns.asked(SERVICE) + 1)
        assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]
        assert (a.connections, b.connections) == (1, 1)


def test_a_failure_is_said_once_and_passes(backend, tmp_path, dns, four):
    a, b, c, _ = four
    dns.names[SERVICE] = srv(a, b)
    with Reloading(tmp_path, config(dns, by_srv(), resolver="timeout: 10s, attempts: 1"), backend) as gate:
        found(gate, "ab")
        dns.names[SERVICE] = Name(rcode=dnswire.NXDOMAIN)
        said(gate, "those that were known stay")
        dns.await_asked(SERVICE, dns.asked(SERVICE) + 2)
        dns.names[SERVICE] = srv(b, c)
        found(gate, "bc")
        assert gate.stderr().count("those that were known stay") == 1


def test_a_name_server_that_is_gone(backend, tmp_path, four):
    a, b, _, _ = four
    names_known = {"home.test": Name(a=["127.0.0.1"], ttl=LONG), SERVICE: srv(a, b)}
    with NameServer(names_known) as dns:
        gate = Reloading(tmp_path, config(dns, by_srv(), resolver=FEW), backend)
        with gate:
            found(gate, "ab")  # the first answer may have come too late
            dns.close()
            said(gate, "those that were known stay")
            assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]


def test_more_than_there_is_room_for(backend, tmp_path, dns, four):
    """The lowest priority is among those that are kept."""
    dns.names[SERVICE] = srv((four[0], 0, 1))
    dns.names[SERVICE].srv += [(1, 1, 1 + i, "home.test") for i in range(600)]
    dns.names[SERVICE].ttl = LONG
    with Reloading(tmp_path, config(dns, by_srv()), backend) as gate:
        assert names(gate, 4) == ["a"] * 4
        said(gate, f"{SERVICE} has more than 256 servers")
        said(gate, "256 servers found")


def test_many_addresses_of_a_name(backend, tmp_path, dns, three):
    known = [f"127.0.0.{i}" for i in range(1, 4)] + [f"127.1.{i // 200}.{i % 200}" for i in range(400)]
    dns.names["app.test"] = Name(a=known, ttl=LONG)
    text = config(dns, f'{{dns: "app.test:{three[0].port}"}}')
    with Reloading(tmp_path, text, backend) as gate:
        assert gate.get("/").status == 200
        said(gate, "app.test has more than 256 servers")


# ---- with all else that upstreams have ----

def test_checks_take_a_dead_server_out(backend, tmp_path, dns, four):
    a, b, _, _ = four
    dns.names[SERVICE] = srv(a, b)
    extra = ", retry: off, health: {path: /, interval: 100ms, timeout: 20s, fall: 2}"
    with Reloading(tmp_path, config(dns, by_srv(), extra), backend) as gate:
        found(gate, "ab")
        b.close()
        said(gate, f"server home.test:{b.port} is down")
        asked = dns.asked(SERVICE)
        dns.await_asked(SERVICE, asked + 2)
        assert names(gate, 6) == ["a"] * 6, "what is known of it outlives a look-up"
        dns.names[SERVICE] = srv((a, 0, 1), (b, 1, 1))
        dns.await_asked(SERVICE, asked + 4)
        assert names(gate, 4) == ["a"] * 4


def cookie_of(answer):
    return answer.get("set-cookie").partition(";")[0]


def test_clients_stick_to_addresses(backend, tmp_path, dns, three):
    dns.names["app.test"] = Name(a=["127.0.0.1", "127.0.0.2", "127.0.0.3"], ttl=1)
    text = config(dns, f'{{dns: "app.test:{three[0].port}"}}', ", sticky: srv")
    with Reloading(tmp_path, text, backend) as gate:
        found(gate, "abc")
        cookies = {}
        while len(cookies) < 3:
            answer = gate.get("/")
            cookies[answer.body] = cookie_of(answer)
        for body, cookie in cookies.items():
            for _ in range(3):
                assert gate.get("/", f"Cookie: {cookie}\r\n").body == body
        dns.names["app.test"] = Name(a=["127.0.0.3", "127.0.0.1"], ttl=1)
        found(gate, "ac")
        assert gate.get("/", f"Cookie: {cookies[b'a']}\r\n").body == b"a"
        moved = gate.get("/", f"Cookie: {cookies[b'b']}\r\n")
        assert moved.body in (b"a", b"c") and cookie_of(moved) == cookies[moved.body]
        # An address that is listed is the same server.
        gate.reload(config(dns, f'["127.0.0.1:{three[0].port}", "127.0.0.3:{three[0].port}"]', ", sticky: srv"))
        for _ in range(3):
            assert gate.get("/", f"Cookie: {cookies[b'c']}\r\n").body == b"c"


def test_keys_stay_at_their_servers(backend, tmp_path, dns, three):
    dns.names["app.test"] = Name(a=["127.0.0.1", "127.0.0.2", "127.0.0.3"], ttl=1)
    text = config(dns, f'{{dns: "app.test:{three[0].port}"}}', ", balance: {hash: {header: X-Key}}")
    with Reloading(tmp_path, text, backend) as gate:
        def places():
            return {i: gate.get("/", f"X-Key: {i}\r\n").body for i in range(30)}
        before = places()
        assert set(before.values()) == {b"a", b"b", b"c"}
        dns.names["app.test"] = Name(a=["127.0.0.2", "127.0.0.1"], ttl=1)
        await_that(lambda: b"c" not in places().values(), gate.stderr)
        after = places()
        assert all(after[i] == before[i] for i in before if before[i] != b"c")


def test_connections_are_bounded_and_made_ahead(backend, tmp_path, dns, four):
    dns.names[SERVICE] = srv(four[0], ttl=LONG, delay=0.3)
    extra = ", max_connections: 1, keepalive: {min_idle: 1}"
    with Reloading(tmp_path, config(dns, by_srv(), extra), backend) as gate:
        await_that(lambda: four[0].connections == 1, gate.stderr)
        assert names(gate, 4) == ["a"] * 4
        assert four[0].connections == 1


class Secure:
    """A server of HTTP over TLS, which keeps the names that it was asked for."""

    def __init__(self, leaf):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(leaf.chain, leaf.key)
        self.context.sni_callback = lambda _, name, __: self.names.append(name)
        self.names, self.hosts = [], []
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                conn, _ = self.sock.accept()
                with conn, self.context.wrap_socket(conn, server_side=True) as tls:
                    head = tls.recv(65536)
                    self.hosts += re.findall(rb"(?i)\r\nhost: ([^\r]*)", head)
                    tls.sendall(ok(b"safe", b"Connection: close\r\n"))
            except (ssl.SSLError, ConnectionError):
                pass  # of one connection
            except OSError:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


@pytest.mark.parametrize("source", ["srv", "dns"])
@pytest.mark.parametrize("name, status", [("app.test", 200), ("other.test", 502)])
def test_certificates_are_of_the_name(backend, tmp_path, dns, certs, source, name, status):
    leaf = certs.leaf("app", ["app.test"])
    with Secure(leaf) as server:
        dns.names[name] = Name(a=["127.0.0.1"], ttl=LONG)
        dns.names[SERVICE] = Name(srv=[(0, 1, server.port, name)], ttl=LONG)
        servers = by_srv() if source == "srv" else f'{{dns: "{name}:{server.port}"}}'
        text = config(dns, servers, f', host: upstream, tls: {{ca: "{leaf.authority}"}}', target="https://up")
        with Reloading(tmp_path, text, backend) as gate:
            assert gate.get("/").status == status
        assert set(server.names) == {name}
        assert server.hosts == ([f"{name}:{server.port}".encode()] if status == 200 else [])


# ---- reloads ----

def test_from_a_list_to_a_name_and_back(backend, tmp_path, dns, four):
    a, b, c, _ = four
    dns.names[SERVICE] = srv(b, c)

    def listed(*servers):
        return config(dns, "[" + ", ".join(f'"home.test:{s.port}"' for s in servers) + "]")

    with Reloading(tmp_path, listed(a, b), backend) as gate:
        assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]
        with gate.connect() as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await_that(lambda: any(b"/slow" in r for s in (a, b) for r in s.requests), gate.stderr)
            gate.reload(config(dns, by_srv()))
            found(gate, "bc")
            connections = b.connections
            gate.reload(listed(a, c))
            found(gate, "ac")
            gate.reload(config(dns, by_srv()))
            found(gate, "bc")
            assert b.connections <= connections + 1
            for s in (a, b):
                s.go_on.set()
            answer = slow.makefile("rb").read()
        assert b"\r\n\r\nlate " in answer


def test_a_list_serves_until_servers_are_found(backend, tmp_path, dns, four):
    a, b, _, _ = four
    with Reloading(tmp_path, config(dns, f'["127.0.0.1:{a.port}"]', resolver=FEW), backend) as gate:
        assert names(gate, 1) == ["a"]
        gate.reload(config(dns, by_srv(), resolver=FEW))
        said(gate, "those that were known stay")
        assert names(gate, 4) == ["a"] * 4
        dns.names[SERVICE] = srv(b)
        found(gate, "b", 4)


def test_who_waits_is_served_by_the_list_of_a_reload(backend, tmp_path, dns, four):
    dns.names[SERVICE] = Name(silent=True)
    slow = config(dns, by_srv(), resolver="timeout: 60s").replace("connect: 5s", "connect: 60s")
    with Reloading(tmp_path, slow, backend) as gate:
        with gate.connect(60) as waits:
            waits.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            dns.await_asked(SERVICE)
            gate.reload(config(dns, f'["127.0.0.1:{four[0].port}"]'))
            assert waits.makefile("rb").read().endswith(b"\r\n\r\na")


def test_a_reload_that_asks_others(backend, tmp_path, dns, four):
    a, b, _, _ = four
    dns.names[SERVICE] = srv(a, ttl=LONG)
    with NameServer({**dns.names, SERVICE: srv(b, ttl=LONG)}) as other:
        with Reloading(tmp_path, config(dns, by_srv()), backend) as gate:
            assert names(gate, 2) == ["a", "a"]
            gate.reload(config(other, by_srv()))
            found(gate, "b", 4)


def test_many_changes_leave_nothing_behind(backend, tmp_path, dns, four):
    dns.names[SERVICE] = srv(*four)
    with Reloading(tmp_path, config(dns, by_srv()), backend) as gate:
        found(gate, "abcd")
        before = len(gate.descriptors())
        for i in range(4):
            dns.names[SERVICE] = srv(*four[i % 3:i % 3 + 2])
            found(gate, "abcd"[i % 3:i % 3 + 2])
            gate.reload()
        dns.names[SERVICE] = srv(*four)
        found(gate, "abcd")
        await_that(lambda: len(gate.descriptors()) <= before + 1, gate.descriptors)


# ---- which addresses ----

def test_names_lead_nowhere_else(backend, tmp_path, dns, three):
    """127.0.0.2 is allowed: what else a name leads to is as if it had not been said, now and later."""
    port = three[0].port
    dns.names["app.test"] = Name(a=["127.0.0.1", "127.0.0.2"], aaaa=["::ffff:127.0.0.3"], ttl=1)
    dns.names[SERVICE] = Name(srv=[(0, 1, port, "app.test")], ttl=1)
    for i, servers in enumerate([f'["app.test:{port}"]', f'{{dns: "app.test:{port}"}}', by_srv()]):
        dns.names["app.test"].a = ["127.0.0.1", "127.0.0.2"]
        text = config(dns, servers, ", addresses: [127.0.0.2/32], keepalive: {max_idle: 0}")
        with Reloading(tmp_path / str(i), text, backend) as gate:
            assert names(gate, 6) == ["b"] * 6
            asked = dns.asked("app.test")
            dns.names["app.test"].a = ["127.0.0.3", "0.0.0.0"]
            await_that(lambda: gate.get("/").body == b"b" and dns.asked("app.test") > asked + 4,
                       gate.stderr)
            assert names(gate, 6) == ["b"] * 6, "an answer without any that is allowed changes nothing"
            said(gate, "addresses of app.test are left out" if "dns" in servers else "app.test leads to no address that is allowed")


@pytest.mark.parametrize("servers", ['["app.test:{port}"]', '{{dns: "app.test:{port}"}}', by_srv().replace("{", "{{").replace("}", "}}")])
@pytest.mark.parametrize("known", [
    {"a": ["127.0.0.1"]}, {"aaaa": ["::ffff:127.0.0.1"]}, {"a": ["0.0.0.0"]}, {"aaaa": ["::1"]},
    {"aaaa": ["64:ff9b::7f00:1"]}, {"a": ["169.254.169.254"]}], ids=lambda k: str(*k.values()))
def test_public_is_none_of_this_machine(backend, tmp_path, dns, three, servers, known):
    port = three[0].port
    dns.names["app.test"] = Name(**known, ttl=LONG)
    dns.names[SERVICE] = Name(srv=[(0, 1, port, "app.test")], ttl=LONG)
    text = config(dns, servers.format(port=port), ", addresses: public")
    with Reloading(tmp_path, text, backend) as gate:
        assert why(gate) == (502, "resolve upstream: its name leads to no address that is allowed")
    assert three[0].connections == 0


@pytest.mark.parametrize("source", ["list", "dns"])
def test_a_reload_that_allows_less(backend, tmp_path, dns, three, source):
    port = three[0].port
    dns.names["app.test"] = Name(a=["127.0.0.1"], ttl=LONG)
    servers = {"list": f'["app.test:{port}"]', "dns": f'{{dns: "app.test:{port}"}}'}[source]
    with Reloading(tmp_path, config(dns, servers), backend) as gate:
        assert names(gate, 2) == ["a", "a"]
        gate.reload(config(dns, servers, ", addresses: public"))
        await_that(lambda: gate.get("/").status == 502, gate.stderr)
        gate.reload(config(dns, servers, ", addresses: [127.0.0.0/8]"))
        await_that(lambda: gate.get("/").status == 200, gate.stderr)


def test_what_is_in_use_by_then_is_not_used_again(backend, tmp_path, dns, three):
    port = three[0].port
    dns.names["app.test"] = Name(a=["127.0.0.1"], ttl=LONG)
    servers = f'["app.test:{port}"]'
    with Reloading(tmp_path, config(dns, servers), backend) as gate, gate.connect() as slow:
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await_that(lambda: three[0].requests, gate.stderr)
        gate.reload(config(dns, servers, ", addresses: public"))
        await_that(lambda: gate.get("/").status == 502, gate.stderr)
        three[0].go_on.set()
        assert Reader(slow).response().body == b"late a"
        assert [gate.get("/").status for _ in range(3)] == [502] * 3
    assert three[0].connections == 1


@pytest.mark.parametrize("settled", [True, False], ids=["shared", "in-the-making"])
def test_nor_is_what_others_share(backend, tmp_path, dns, settled):
    go_on = threading.Event()

    def raw(server):
        if not settled:
            assert go_on.wait(20)
        server.begin(())
        while True:
            server.step()
            while server.waiting:
                assert go_on.wait(20)
                server.answer(server.waiting.pop(0), body=b"late")

    dns.names["app.test"] = Name(a=["127.0.0.1"], ttl=LONG)
    with h2wire.Upstream(raw=raw) as up:
        servers = f'["app.test:{up.port}"]'
        patient = config(dns, servers, target="h2c://up").replace("connect: 5s", "connect: 60s")
        with Reloading(tmp_path, patient, backend) as gate, gate.connect() as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await_that(lambda: up.requests if settled else up.connections, gate.stderr)
            gate.reload(config(dns, servers, ", addresses: public", target="h2c://up"))
            assert [gate.get("/").status for _ in range(3)] == [502] * 3
            go_on.set()
            assert Reader(slow).response().body == b"late"
            assert gate.get("/").status == 502


# ---- what check tells ----

def test_check_tells_where_servers_are_looked_for(tmp_path):
    (tmp_path / "c.yml").write_text("""
server: {resolver: {servers: "127.0.0.1:53"}}
proxy:
  upstreams:
    a: {servers: {srv: _http._tcp.app.test, refresh: 30s, zone: x}}
    b: {servers: {dns: "app.test:8080"}, addresses: [public, 10.0.0.0/8]}
routes: {"/a": "http://a", "/b": "https://b"}
""")
    done = run("check", "-c", tmp_path / "c.yml")
    assert done.returncode == 0, done.stderr
    assert re.search(r"a +the targets of _http._tcp.app.test zone=x, asked for every 30000ms at least\n",
                     done.stdout), done.stdout
    assert re.search(r"b +each address of app.test:8080, names lead to addresses of: public, 10.0.0.0/8\n",
                     done.stdout), done.stdout


def test_check_warns_of_names_that_are_not_there(tmp_path):
    (tmp_path / "c.yml").write_text("""
proxy: {upstreams: {a: {servers: {srv: _http._tcp.nowhere.invalid}}, b: {servers: {dns: nowhere.invalid}}}}
routes: {"/a": "http://a", "/b": "http://b"}
""")
    done = run("check", "-c", tmp_path / "c.yml")
    assert done.returncode == 0, done.stderr
    assert "the name _http._tcp.nowhere.invalid does not resolve" in done.stderr, done.stderr
    assert "the name nowhere.invalid does not resolve" in done.stderr, done.stderr
