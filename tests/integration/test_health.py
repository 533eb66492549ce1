"""Servers that die, hang, answer wrongly and come back: who is asked meanwhile, and what the log tells."""
import re
import signal
import socket
import threading
import time

import h2wire
import pytest
from gate import Gate, Reader, Upstream, free_port, ok
from peers import Nginx
from waiting import await_that, in_time

CONFIG = """
server: {{listen: ["127.0.0.1:$PORT"], workers: {workers}, drain_timeout: 10s}}
proxy:
  timeouts: {{connect: 20s, first_byte: 20s}}
  upstreams:
    up:
      servers: [{servers}]
      {settings}
routes:
  "/*": "{scheme}://up"
  "/soon": {{action: "{scheme}://up", timeouts: {{first_byte: 200ms}}}}
"""
CHECKS = "health: {path: /healthz, interval: 100ms, timeout: 20s}"


class Server:
    """An upstream whose answers can be changed, and which can go and come back at its port."""

    def __init__(self):
        self.answer = self.health = ok()
        self.delay = 0
        self.port = free_port()
        self.start()

    def start(self):
        self.upstream = Upstream(self.script, port=self.port)

    def script(self, _, head):
        answer = self.health if head.startswith(b"GET /healthz ") else self.answer
        if answer is None:
            return lambda peer, _, buffer: peer.read(1 << 20)  # never
        if self.delay:
            time.sleep(self.delay)
        return answer

    def stop(self):
        self.upstream.close()

    def asked(self):
        """How many requests it has had that are no checks."""
        return sum(b" /healthz " not in head for head in self.upstream.requests)

    def checked(self):
        return len(self.upstream.requests) - self.asked()

    @property
    def name(self):
        return f"server 127.0.0.1:{self.port} "


def status(code, headers=b""):
    return b"HTTP/1.1 %d Other\r\n%sContent-Length: 0\r\n\r\n" % (code, headers)


@pytest.fixture
def servers():
    made = [Server() for _ in range(3)]
    yield made
    for s in made:
        s.stop()


def config(servers, settings, workers=1, scheme="http"):
    return CONFIG.format(workers=workers, settings=settings, scheme=scheme,
                         servers=", ".join(f'"127.0.0.1:{s.port}"' for s in servers))


def until_logged(gate, text, times=1):
    await_that(lambda: gate.stderr().count(text) >= times)


def statuses(gate, n):
    return [gate.get(f"/{i}").status for i in range(n)]


# ---- by what requests meet ----

@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("settings", ["breaker: {consecutive: 3, for: 30s}", CHECKS])
def test_a_dead_server_costs_no_client_an_error(backend, tmp_path, servers, settings, workers):
    clients, stop, wrong, lock = 8, threading.Event(), [], threading.Lock()
    dead = threading.Event()

    def load(gate):
        while not stop.is_set():
            with gate.connect() as s:
                reader = Reader(s)
                for _ in range(20):
                    before = dead.is_set()
                    s.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
                    code = reader.response().status
                    if code != 200:
                        with lock:
                            wrong.append((code, before))

    with Gate(tmp_path, config(servers, settings, workers), backend) as gate:
        threads = [threading.Thread(target=load, args=(gate,)) for _ in range(clients)]
        for t in threads:
            t.start()
        await_that(lambda: servers[1].asked() > 50)
        servers[1].stop()
        until_logged(gate, servers[1].name + ("is down" if "health" in settings else "is left out"))
        dead.set()
        mark = servers[0].asked()
        await_that(lambda: servers[0].asked() > mark + 200)
        stop.set()
        for t in threads:
            t.join()
        assert len([w for w in wrong if not w[1]]) <= clients, "more than were under way"
        assert not [w for w in wrong if w[1]], "after it was noticed"


def test_by_default_a_server_that_refuses_is_left_out(backend, tmp_path, servers):
    servers[2].stop()
    with Gate(tmp_path, config(servers, "host: keep"), backend) as gate:
        assert statuses(gate, 40) == [200] * 40
        until_logged(gate, servers[2].name + "is left out for 10000 ms: 5 errors in a row")
        assert "connect: connection refused" in gate.stderr()
        assert gate.stderr().count("left out") == 1


def test_by_default_answers_are_no_errors(backend, tmp_path, servers):
    servers[0].answer = status(503)
    with Gate(tmp_path, config(servers, "host: keep"), backend) as gate:
        assert statuses(gate, 60).count(503) == 20
        assert "left out" not in gate.stderr()


def test_a_breaker_opens_tries_and_closes(backend, tmp_path, servers):
    s = servers[0]
    s.answer = status(503)
    with Gate(tmp_path, config(servers, "breaker: {consecutive: 2, for: 300ms, max_for: 1s}"), backend) as gate:
        until_logged_while_asking(gate, s.name + "is left out for 300 ms: 2 errors in a row")
        assert "the last one: status 503" in gate.stderr()
        until_logged_while_asking(gate, s.name + "is left out for 600 ms: a trial failed")
        until_logged_while_asking(gate, s.name + "is left out for 1000 ms: a trial failed")
        s.answer = ok()
        until_logged_while_asking(gate, s.name + "takes requests again: trials passed")
        before = s.asked()
        statuses(gate, 30)
        assert s.asked() - before == 10


def until_logged_while_asking(gate, text):
    await_that(lambda: gate.get("/").status and text in gate.stderr())


@pytest.mark.parametrize("code,counts", [
    (h2wire.E.INTERNAL_ERROR, True), (h2wire.E.ENHANCE_YOUR_CALM, True), (h2wire.E.NO_ERROR, False),
    (h2wire.E.CANCEL, False), (h2wire.E.REFUSED_STREAM, False), (h2wire.E.HTTP_1_1_REQUIRED, False)])
def test_a_stream_that_its_server_resets_is_an_error_as_its_code_says(backend, tmp_path, code, counts):
    bad = h2wire.Upstream(lambda server, request: server.send(h2wire.rst(request.stream, code)))
    with bad, h2wire.Upstream(lambda server, request: server.answer(request, body=b"ok")) as good:
        text = config([bad, good], "breaker: {consecutive: 2, for: 1m}\n      retry: off", scheme="h2c")
        with Gate(tmp_path, text, backend) as gate:
            statuses(gate, 8)
            if counts:
                until_logged(gate, "is left out for 60000 ms: 2 errors in a row")
                assert "the last one: stream reset by the server" in gate.stderr()
                assert len(bad.requests) == 2
            else:
                assert "left out" not in gate.stderr()
                assert len(bad.requests) >= 4


def test_a_share_of_errors_opens_it_too(backend, tmp_path, servers):
    settings = "breaker: {consecutive: 0, errors: 40%, minimum: 10, for: 1m, statuses: [500]}"
    count = iter(range(1000000))
    servers[1].script = servers[1].upstream.script = \
        lambda *_: status(500) if next(count) % 2 else ok()
    with Gate(tmp_path, config(servers, settings), backend) as gate:
        statuses(gate, 27)
        assert "left out" not in gate.stderr(), "nine are too few"
        statuses(gate, 9)
        until_logged(gate, servers[1].name + "is left out")
        before = servers[1].asked()
        assert statuses(gate, 20) == [200] * 20
        assert servers[1].asked() == before


def test_no_more_than_half_are_left_out(backend, tmp_path, servers):
    for s in servers:
        s.answer = status(502)
    with Gate(tmp_path, config(servers, "breaker: {consecutive: 2, for: 1m}"), backend) as gate:
        assert statuses(gate, 60) == [502] * 60
        until_logged(gate, "is left out")
        until_logged(gate, "stays, for no more than 50% may be left out")
        assert gate.stderr().count("is left out") == 1


def test_the_only_server_stays_unless_all_may_go(backend, tmp_path, servers):
    s = servers[0]
    s.answer = status(503)
    with Gate(tmp_path / "1", config([s], "breaker: {consecutive: 2}"), backend) as gate:
        assert statuses(gate, 10) == [503] * 10
        assert s.asked() == 10
    with Gate(tmp_path / "2", config([s], "breaker: {consecutive: 2, for: 1m, max: 100%}"), backend) as gate:
        assert statuses(gate, 10) == [503] * 10
        assert s.asked() == 12
        assert b"no server of the upstream takes requests" in gate.get("/", "Accept: text/plain\r\n").body


def test_a_server_that_hangs_is_left_out(backend, tmp_path, servers):
    servers[0].answer = None
    with Gate(tmp_path, config(servers, "breaker: {consecutive: 1, for: 1m}"), backend) as gate:
        assert gate.get("/soon").status == 504, "who is asked first"
        until_logged(gate, servers[0].name + "is left out")
        assert statuses(gate, 10) == [200] * 10


def test_a_trial_that_hangs_keeps_the_next_one_out_for_its_time_alone(backend, tmp_path, servers):
    """As that of a client does that has gone: its end of input looks as if it would still read."""
    s = servers[0]
    s.answer = status(503)
    settings = "breaker: {consecutive: 1, for: 300ms, max: 100%}\n      timeouts: {first_byte: 1m}"
    with Gate(tmp_path, config([s], settings), backend) as gate:
        assert gate.get("/").status == 503
        until_logged(gate, s.name + "is left out")
        s.answer = None
        time.sleep(0.4)
        with gate.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until_logged(gate, s.name + "is tried by a request")
            s.answer = ok()
            until_logged_while_asking(gate, s.name + "takes requests again: trials passed")
            assert gate.get("/").status == 200
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # gives it up


def test_shards_share_what_they_know(backend, tmp_path, servers):
    s = servers[0]
    s.answer = status(503)
    with Gate(tmp_path, config(servers, "breaker: {consecutive: 5, for: 1m}", workers=2), backend) as gate:
        until_logged_while_asking(gate, s.name + "is left out")
        before = s.asked()
        assert statuses(gate, 60) == [200] * 60  # connections of their own: both shards have some
        assert s.asked() == before


def test_one_that_is_far_slower_is_left_out(backend, tmp_path, servers):
    servers[1].delay = 0.05
    settings = "ejection: {latency: 3x, minimum: 3, window: 1s}\n      breaker: {consecutive: 0, errors: 0%, for: 1m}"

    def attempt(number):  # another one may stand still for a moment, and be the slower one
        with Gate(tmp_path / str(number), config(servers, settings), backend) as gate:
            until_logged_while_asking(gate, "is left out for 60000 ms: ")
            assert "us to the first byte in the mean of" in gate.stderr()
            assert gate.stderr().count("is left out") == 1
            return servers[1].name + "is left out" in gate.stderr()
    in_time(attempt)


# ---- by checks ----

def test_checks_take_servers_down_and_up(backend, tmp_path, servers):
    s = servers[1]
    with Gate(tmp_path, config(servers, CHECKS, workers=2), backend) as gate:
        await_that(lambda: s.checked() > 0)
        s.health = status(503)
        until_logged(gate, s.name + "is down, was up: GET /healthz: 503 instead of 200-399 (3 in a row)")
        before = s.asked()
        assert statuses(gate, 30) == [200] * 30
        assert s.asked() == before
        s.health = ok()
        until_logged(gate, s.name + "is up, was down: GET /healthz passed (2 in a row)")
        before = s.asked()
        statuses(gate, 60)
        assert s.asked() - before >= 18
        s.stop()
        until_logged(gate, s.name + "is down, was up: GET /healthz: connection refused (3 in a row)")
        assert gate.stderr().count("is down") == 2, "the others were well all the time"


def test_checks_that_get_no_answer_take_a_server_down(backend, tmp_path, servers):
    s = servers[0]
    s.health = None
    with Gate(tmp_path, config([s], CHECKS.replace("20s", "500ms")), backend) as gate:
        until_logged(gate, s.name + "is down, was up: GET /healthz: timeout (3 in a row)")
        s.stop()
        s.health = ok()
        s.start()
        until_logged(gate, s.name + "is up")


def test_a_server_that_checks_find_well_is_asked_at_once(backend, tmp_path, servers):
    s = servers[0]
    settings = CHECKS + "\n      breaker: {consecutive: 1, for: 1h, max_for: 1h}"
    with Gate(tmp_path, config(servers, settings), backend) as gate:
        s.answer = status(503)
        until_logged_while_asking(gate, s.name + "is left out")
        s.health = status(503)
        until_logged(gate, s.name + "is down")
        s.answer = s.health = ok()
        until_logged(gate, s.name + "is up")
        before = s.asked()
        statuses(gate, 9)
        assert s.asked() > before


def test_checks_look_at_what_they_are_told_to(backend, tmp_path, servers):
    settings = """health: {path: "/healthz?x", method: GET, host: h.example, headers: {X-A: b, User-Agent: c},
                   status: [418, 2xx], body: "all is well", interval: 100ms, timeout: 20s, rise: 1, fall: 1}"""
    for s in servers:
        s.script = s.upstream.script = lambda _, head, s=s: s.health
        s.health = ok(b"yes, all is well here " + b"x" * 100000)
    with Gate(tmp_path, config(servers, settings), backend) as gate:
        await_that(lambda: all(len(s.upstream.requests) > 1 for s in servers))
        head = servers[0].upstream.requests[0]
        assert head.startswith(b"GET /healthz?x HTTP/1.1\r\n")
        for line in (b"\r\nHost: h.example\r\n", b"\r\nX-A: b\r\n", b"\r\nUser-Agent: c\r\n"):
            assert line in head
        assert "is down" not in gate.stderr()
        servers[0].health = ok(b"all is wel")
        servers[1].health = status(404)
        until_logged(gate, servers[0].name + "is down, was up: GET /healthz?x: 200, but the text")
        until_logged(gate, servers[1].name + "is down, was up: GET /healthz?x: 404 instead of 200-299, 418 ")


@pytest.mark.parametrize("retry", ["", "\n      retry: {attempts: 3, on: [connect], backoff: 2ms}"],
                         ids=["once", "asked again"])
def test_when_all_are_down_it_is_503(backend, tmp_path, servers, retry):
    for s in servers:
        s.health = status(500)
    with Gate(tmp_path, config(servers, CHECKS + retry), backend) as gate:
        until_logged(gate, "is down", times=3)
        assert statuses(gate, 3) == [503] * 3
        assert b"no server of the upstream takes requests" in gate.get("/", "Accept: text/plain\r\n").body


def test_in_a_panic_all_are_asked(backend, tmp_path, servers):
    for s in servers[1:]:
        s.health = status(500)
    with Gate(tmp_path, config(servers, CHECKS + "\n      panic: 50%"), backend) as gate:
        until_logged(gate, "is down", times=2)
        assert statuses(gate, 30) == [200] * 30
        assert [s.asked() for s in servers] == [10, 10, 10]
        until_logged(gate, "fewer than 50% of 3 servers are usable: all are asked")
        servers[1].health = ok()
        until_logged(gate, "is up")
        statuses(gate, 30)
        assert servers[2].asked() == 10
        until_logged(gate, "no fewer than 50% of 3 servers are usable again")


def test_new_servers_may_begin_down(backend, tmp_path, servers):
    settings = "health: {path: /healthz, interval: 100ms, timeout: 20s, start: down}"
    servers[0].health = status(500)
    with Gate(tmp_path, config(servers, settings), backend) as gate:
        until_logged(gate, "is up, was down: GET /healthz passed (1 in a row)", times=2)
        assert statuses(gate, 20) == [200] * 20
        assert servers[0].asked() == 0
        assert "is down" not in gate.stderr()


def test_who_comes_back_starts_slowly(backend, tmp_path, servers):
    with Gate(tmp_path, config(servers, CHECKS + "\n      slow_start: 1h"), backend) as gate:
        statuses(gate, 30)
        assert [s.asked() for s in servers] == [10, 10, 10]
        servers[2].health = status(500)
        until_logged(gate, "is down")
        servers[2].health = ok()
        until_logged(gate, "is up")
        before = servers[2].asked()
        statuses(gate, 210)
        assert 5 <= servers[2].asked() - before <= 15, "a tenth of its share, or twice that"


@pytest.mark.parametrize("kind", ["tcp", "port"])
def test_checks_by_connection_and_elsewhere(backend, tmp_path, servers, kind):
    other = Server()
    settings = "health: {type: tcp, interval: 100ms, timeout: 20s}" if kind == "tcp" else \
        f"health: {{path: /healthz, port: {other.port}, interval: 100ms, timeout: 20s}}"
    with Gate(tmp_path, config(servers[:1], settings), backend) as gate:
        await_that(lambda: len((servers[0] if kind == "tcp" else other).upstream.received) > 2)
        assert gate.get("/").status == 200
        assert servers[0].checked() == 0
        (servers[0] if kind == "tcp" else other).stop()
        until_logged(gate, ("connect" if kind == "tcp" else "GET /healthz") + ": connection refused (3 in a row)")
        assert gate.get("/").status == 503
    other.stop()


NGINX = """
server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{h2c} http2;
    listen 127.0.0.1:{tls} ssl http2; listen 127.0.0.1:{tls1} ssl;
    ssl_certificate {leaf.chain}; ssl_certificate_key {leaf.key};
    location /healthz {{ if (-f {flag}) {{ return 500; }} return 200 "$server_protocol"; }}
    location / {{ return 200; }}
}}
"""


@pytest.mark.parametrize("scheme, port, body", [
    ("http", "plain", "HTTP/1.1"), ("h2c", "h2c", "HTTP/2.0"), ("https", "tls", "HTTP/2.0"),
    ("h2", "tls", "HTTP/2.0"), ("wss", "tls", "HTTP/1.1"), ("https", "tls1", "HTTP/1.1")])
def test_checks_speak_what_requests_speak(backend, tmp_path, certs, scheme, port, body):
    ports = {name: free_port() for name in ("plain", "h2c", "tls", "tls1")}
    leaf, flag = certs.leaf("up-health", ["up.example"]), tmp_path / "flag"
    settings = f"""health: {{path: /healthz, body: "{body}", interval: 100ms, timeout: 20s, fall: 2}}
      tls: {{ca: "{leaf.ca}", server_name: up.example}}"""
    text = CONFIG.format(workers=1, settings=settings, scheme=scheme,
                         servers=f'"127.0.0.1:{ports[port]}"')
    with Nginx(tmp_path / "nginx", NGINX.format(leaf=leaf, flag=flag, **ports), ports["plain"]) as nginx, \
            Gate(tmp_path / "gate", text, backend) as gate:
        assert gate.get("/").status == 200
        flag.touch()
        until_logged(gate, "is down, was up: GET /healthz: 500 instead of 200-399 (2 in a row)")
        assert gate.get("/").status == 503
        flag.unlink()
        until_logged(gate, "is up")
        assert gate.get("/").status == 200
        nginx.stop()
        until_logged(gate, "GET /healthz: connection refused (2 in a row)")
        nginx.start()
        until_logged(gate, "is up", times=2)


def test_what_a_check_s_own_port_speaks_tells_nothing_of_requests(backend, tmp_path, certs):
    """Requests share the connection that is being made, for nothing says that the server speaks HTTP/1.1 alone."""
    leaf, go_on = certs.leaf("up-health", ["up.example"]), threading.Event()

    def raw(server):
        assert go_on.wait(20)
        server.begin(())
        while True:
            server.step()
            while server.waiting:
                server.answer(server.waiting.pop(0), body=b"h2")

    checked = Upstream(lambda index, head: ok(), context=h2wire.server_context(leaf, alpn=("http/1.1",)))
    with checked, h2wire.Upstream(raw=raw, context=h2wire.server_context(leaf)) as up:
        settings = f"""health: {{path: /healthz, port: {checked.port}, interval: 100ms, timeout: 20s}}
      tls: {{ca: "{leaf.ca}", server_name: up.example}}"""
        with Gate(tmp_path, config([up], settings, scheme="https"), backend) as gate:
            await_that(lambda: len(checked.received) > 2)  # of the first one the server knows how it went
            clients = [gate.connect() for _ in range(3)]
            for s in clients:
                s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                time.sleep(0.2)
            go_on.set()
            assert [Reader(s).response().body for s in clients] == [b"h2"] * 3
            assert len(up.connections) == 1


def test_a_check_by_handshake_finds_bad_certificates(backend, tmp_path, certs):
    ports = {name: free_port() for name in ("plain", "h2c", "tls", "tls1")}
    leaf = certs.leaf("up-health", ["up.example"])
    settings = f"""health: {{type: tls, interval: 100ms, timeout: 20s}}
      tls: {{ca: "{leaf.ca}", server_name: other.example}}"""
    text = CONFIG.format(workers=1, settings=settings, scheme="https",
                         servers=f'"127.0.0.1:{ports["tls"]}"')
    with Nginx(tmp_path / "nginx", NGINX.format(leaf=leaf, flag="/none", **ports), ports["plain"]), \
            Gate(tmp_path / "gate", text, backend) as gate:
        until_logged(gate, "is down, was up: TLS handshake: ")
        assert re.search(r"TLS handshake: .*other\.example|TLS handshake: .*name", gate.stderr())


# ---- reloads ----

def reload(gate, text):
    (gate.folder / "anygate.yml").write_text(re.sub(r"\$PORT", str(gate.port), text))
    before = gate.stderr().count("reloaded: ")
    gate.process.send_signal(signal.SIGHUP)
    until_logged(gate, "reloaded: ", before + 1)


def test_what_is_known_outlives_a_reload(backend, tmp_path, servers):
    a, b, c = servers
    with Gate(tmp_path, config([a, b], CHECKS, workers=2), backend) as gate:
        b.health = status(500)
        until_logged(gate, b.name + "is down")
        for _ in range(5):
            reload(gate, config([a, b, c], CHECKS.replace("20s", "21s"), workers=2))
        await_that(lambda: c.checked() > 0)
        assert statuses(gate, 20) == [200] * 20
        assert b.asked() == 0
        assert gate.stderr().count("is down") == 1 and "is up" not in gate.stderr()
        reload(gate, config([a, b], CHECKS, workers=2))
        await_that(lambda: not gate.get("/").status == 0)
        gone = c.checked()
        seen = a.checked()
        await_that(lambda: a.checked() > seen + 5)
        assert c.checked() <= gone + 1, "one may have been on its way"
        reload(gate, config([a, b], "host: keep", workers=2))
        await_that(lambda: statuses(gate, 4) and b.asked() > 0)  # nobody says any more that it is down
        seen = a.checked()
        statuses(gate, 20)
        assert a.checked() <= seen + 1


def test_reloads_while_checks_hang(backend, tmp_path, servers):
    for s in servers:
        s.health = None
    settings = "health: {path: /healthz, interval: 100ms, timeout: 5m}"
    with Gate(tmp_path, config(servers, settings), backend) as gate:
        for made in range(10):
            await_that(lambda: servers[0].checked() > made)  # each is given up, and made again
            reload(gate, config(servers, settings))
        assert statuses(gate, 9) == [200] * 9
        assert "is down" not in gate.stderr()
