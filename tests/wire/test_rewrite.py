"""What a proxy route rewrites: the bytes that the upstream gets, and those that come back."""
import itertools
import signal
import threading
import time

import pytest
from gate import Gate, Reader, Upstream, ok

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy:
  upstreams:
    up: {servers: ["127.0.0.1:%(port)d"]}
    own: {servers: ["127.0.0.1:%(port)d"], host: upstream}
routes:
  "/plain/*": "http://up"
  "/app/*": "http://up/two/*"
  "/users/:id/*": "http://up/tenants/:id/*"
  "/off/*": {action: "http://up/two/*", rewrite_redirects: off}
  "/named/*": "http://own"
  "/api/*": {action: "http://up", strip_prefix: /api, add_prefix: /v1}
  "/bare/*": {action: "http://up", strip_prefix: /bare/}
  "/set/*":
    action: "http://up"
    strip_prefix: /set
    filters: [{headers: {request: {set: {X-Forwarded-Prefix: /mine}}}}]
  "/query/*":
    action: "http://up"
    query: {set: {by: "gate {method}"}, add: {tag: new}, remove: [debug, "a b"]}
  "/t/*": "http://up/*"
  "/tq/*": {action: "http://up/*", query: {remove: fixed}}
  "/query-target/*": {action: "http://up/q/*", query: {remove: fixed}}
  "/rules/*":
    action: "http://up"
    rewrite_redirects:
      - {from: "http://old.example/", to: /rules/}
      - {from: "http://port.example", to: "https://{host}:8443"}
      - auto
  "/cookies/*":
    action: "http://up"
    cookies: {domain: {app.internal: "{host}", "*": ""}, path: {/: /cookies/}, secure: true, http_only: false,
              same_site: strict}
"""


@pytest.fixture(scope="module")
def gate(backend, tmp_path_factory):
    def script(index, head):
        return script.answer
    with Upstream(script) as up:
        folder = tmp_path_factory.mktemp("gate")
        with Gate(folder, CONFIG % {"port": up.port}, backend) as running:
            running.up, running.script = up, script
            script.answer = ok()
            yield running


def asked(gate, path, headers=""):
    """The head that the upstream gets, as text."""
    gate.script.answer = ok()
    assert gate.get(path, headers, host="gate.example").status == 200
    return gate.up.requests.pop().decode("latin-1")


def answered(gate, path, fields, status="302 Found", host="gate.example"):
    gate.script.answer = (f"HTTP/1.1 {status}\r\n{fields}Content-Length: 0\r\n\r\n"
                          .replace("$UP", f"127.0.0.1:{gate.up.port}").encode("latin-1"))
    return gate.get(path, host=host)


# ---- requests

HEAD = ("GET {} HTTP/1.1\r\nHost: gate.example\r\nX-Forwarded-For: 127.0.0.1\r\n"
        "X-Forwarded-Host: gate.example\r\nX-Forwarded-Proto: http\r\n"
        "Forwarded: for=127.0.0.1;host=\"gate.example\";proto=http\r\nVia: 1.1 anygate\r\n{}\r\n")


@pytest.mark.parametrize("path,target,prefix", [
    ("/api/users?q=1", "/v1/users?q=1", "/api"),
    ("/api/", "/v1/", "/api"),
    ("/api/../api/%7Ex/./y", "/v1/~x/y", "/api"),
    ("/bare/", "/", "/bare"),
    ("/bare/?", "/?", "/bare"),
    ("/bare//evil.example/x", "/evil.example/x", "/bare"),
    ("/bare/%2e%2e/bare/x", "/x", "/bare"),
    ("/bare/a%2Fb", "/a%2Fb", "/bare"),
    ("/plain/x?q", "/plain/x?q", None),
    ("/app/x?q", "/two/x?q", None),
    ("/users/7/x", "/tenants/7/x", None),
])
def test_the_head_that_the_upstream_gets(gate, path, target, prefix):
    more = f"X-Forwarded-Prefix: {prefix}\r\n" if prefix else ""
    assert asked(gate, path) == HEAD.format(target, more)


def test_a_prefix_that_a_client_claims_is_not_told(gate):
    head = asked(gate, "/bare/x", "X-Forwarded-Prefix: /evil\r\n")
    assert head == HEAD.format("/x", "X-Forwarded-Prefix: /bare\r\n")


def test_a_prefix_that_a_filter_sets_stands(gate):
    head = asked(gate, "/set/x")
    assert head.count("X-Forwarded-Prefix: ") == 1 and "X-Forwarded-Prefix: /mine\r\n" in head


@pytest.mark.parametrize("path,target", [
    ("/query/x", "/query/x?by=gate%20GET&tag=new"),
    ("/query/x?a=1&debug=1&tag=old", "/query/x?a=1&tag=old&by=gate%20GET&tag=new"),
    ("/query/x?%64ebug&b%79=evil&a+b&a%20b", "/query/x?by=gate%20GET&tag=new"),
    ("/query-target/x?a", "/q/x?a"),
    ("/query-target/x?fixed=2", "/q/x"),
    ("/t//evil.example/x", "/evil.example/x"),
    ("/t///evil.example?q", "/evil.example?q"),
    ("/t/x//y", "/x//y"),
    ("/t/", "/"),
    ("/t//", "/"),
    ("/tq//evil.example?fixed=1&a", "/evil.example?a"),
    ("/app//x", "/two//x"),
])
def test_queries(gate, path, target):
    assert asked(gate, path).split(" ")[1] == target


# ---- redirects

@pytest.mark.parametrize("path,came,goes", [
    ("/app/x", "http://$UP/two/y?q#f", "/app/y?q#f"),
    ("/app/x", "http://up/two/y", "/app/y"),
    ("/app/x", "http://up/two//evil.example", "/app//evil.example"),
    ("/app/x", "/two/y", "/app/y"),
    ("/app/x", "/app/y", "/app/y"),
    ("/app/x", "http://gate.example/two/y", "http://gate.example/app/y"),
    ("/app/x", "http://evil.example/two/y", "http://evil.example/two/y"),
    ("/app/x", "y", "y"),
    ("/off/x", "/two/y", "/two/y"),
    ("/off/x", "http://up/two/y", "http://up/two/y"),
    ("/users/7/x", "/tenants/7/y", "/users/7/y"),
    ("/plain/x", "http://$UP/plain/y", "http://127.0.0.1:{up}/plain/y"),
    ("/named/x", "http://$UP/named/y", "/named/y"),
    ("/named/x", "http://$UP//evil.example", "/evil.example"),
    ("/named/x", "/\\evil.example", "/\\evil.example"),
    ("/api/x", "/v1/y", "/api/y"),
    ("/api/x", "/api/y", "/api/y"),
    ("/api/x", "http://$UP/login", "/login"),
    ("/bare/x", "/y", "/bare/y"),
    ("/bare/x", "http://up", "/bare/"),
    ("/rules/x", "http://old.example/y", "/rules/y"),
    ("/rules/x", "http://old.example//evil", "/rules//evil"),
    ("/rules/x", "http://port.example/y", "https://gate.example:8443/y"),
    ("/rules/x", "http://port.example.evil/y", "http://port.example.evil/y"),
    ("/rules/x", "http://$UP/y", "/y"),
])
def test_locations(gate, path, came, goes):
    r = answered(gate, path, f"Location: {came}\r\n")
    assert r.status == 302 and r.get("location") == goes.format(up=gate.up.port)


def test_content_location_and_refresh(gate):
    r = answered(gate, "/app/x", "Content-Location: /two/y\r\nRefresh: 5; url=/two/z\r\n", "200 OK")
    assert (r.get("content-location"), r.get("refresh")) == ("/app/y", "5; url=/app/z")


def test_a_redirect_needs_no_host(gate):
    """A client that names none must not get a Location without one."""
    gate.script.answer = b"HTTP/1.1 302 Found\r\nLocation: http://port.example/y\r\nContent-Length: 0\r\n\r\n"
    r = gate.ask("GET /rules/x HTTP/1.0\r\n\r\n")
    assert r.get("location") == "http://port.example/y"


def test_long_redirects(gate):
    long = "y" * 20000
    r = answered(gate, "/app/x", f"Location: /two/{long}\r\n")
    assert r.get("location") == f"/app/{long}"


# ---- cookies

@pytest.mark.parametrize("came,goes", [
    ("a=b", "a=b; Secure; SameSite=Strict"),
    ("a=b; Path=/; HttpOnly; Domain=app.internal",
     "a=b; Path=/cookies/; Domain=gate.example; Secure; SameSite=Strict"),
    ("a=b; Domain=.else.example; Path=/x; SameSite=None; Secure",
     "a=b; Path=/cookies/x; Secure; SameSite=Strict"),
    ("__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure; SameSite=Strict"),
])
def test_cookies(gate, came, goes):
    r = answered(gate, "/cookies/x", f"Set-Cookie: {came}\r\nSet-Cookie: z=1\r\n", "200 OK")
    assert r.all("set-cookie") == [goes, "z=1; Secure; SameSite=Strict"]
    r = answered(gate, "/app/x", f"Set-Cookie: {came}\r\n", "200 OK")
    assert r.all("set-cookie") == [came]


RELOADED = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy: {upstreams: {shop: {servers: ["127.0.0.1:%d"]}}}
routes:
  "/app/*":
    action: "http://shop/two/*"
    rewrite_redirects: [{from: "http://old.example", to: "https://{host}"}, auto]
    cookies: {domain: {a.internal: "{header.x-domain}"}, path: {/two: /app}, same_site: lax}
  "/which": OK old
"""


@pytest.mark.parametrize("came,goes", [
    ("/two/y", "/app/y"), ("http://shop/two/y", "/app/y"), ("http://$UP/two", "/app"),
    ("http://old.example/y", "https://gate.example/y"), ("/login", "/login")])
def test_after_a_reload_the_answer_is_rewritten_by_the_old_settings(backend, tmp_path, came, goes):
    go_on = threading.Event()

    def answer(peer, head, rest):
        assert go_on.wait(20)
        location = came.replace("$UP", f"127.0.0.1:{up.port}")
        peer.send((f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n"
                   "Set-Cookie: a=b; Path=/two; Domain=a.internal\r\n\r\n").encode())
        return b""
    with Upstream(lambda i, head: answer) as up, \
            Gate(tmp_path, RELOADED % up.port, backend) as gate, gate.connect() as s:
        s.sendall(b"GET /app/x HTTP/1.1\r\nHost: gate.example\r\nX-Domain: d.example\r\n\r\n")
        while not up.requests:
            time.sleep(0.01)
        file = tmp_path / "anygate.yml"
        file.write_text(file.read_text().replace("two", "else").replace("OK old", "OK new"))
        gate.process.send_signal(signal.SIGHUP)
        while gate.get("/which").body != b"new":
            time.sleep(0.01)
        go_on.set()
        r = Reader(s).response()
        assert r.get("location") == goes
        assert r.get("set-cookie") == "a=b; Path=/app; Domain=d.example; SameSite=Lax"


def test_a_redirect_is_read_by_the_server_that_sends_it_not_by_its_hedge(backend, tmp_path):
    """The first one that is asked answers when the hedge has begun beside it, and points to the hedge's server."""
    hedged, answered, servers, turn = threading.Event(), threading.Event(), [], itertools.count()

    def script(index, head):
        if next(turn) == 0:
            assert hedged.wait(10)
            other, = (s for s in servers if not s.requests[0] == head)
            return b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/x\r\nContent-Length: 0\r\n\r\n" % other.port
        hedged.set()
        answered.wait(20)
        return ok()

    with Upstream(script) as a, Upstream(script) as b:
        servers += [a, b]
        config = (f'server: {{listen: ["127.0.0.1:$PORT"], workers: 1}}\n'
                  f'proxy: {{upstreams: {{two: {{servers: ["127.0.0.1:{a.port}", "127.0.0.1:{b.port}"], '
                  f'host: upstream, hedge: {{after: 20ms}}}}}}}}\nroutes: {{"/*": "http://two"}}\n')
        with Gate(tmp_path, config, backend) as gate:
            location = gate.get("/").get("location")
            answered.set()
            assert location in (f"http://127.0.0.1:{a.port}/x", f"http://127.0.0.1:{b.port}/x")
