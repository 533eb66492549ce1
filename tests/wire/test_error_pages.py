"""Pages for errors: of the server, groups and routes, from memory, files and upstreams, over both versions."""
import json
import signal
import socket
import subprocess
import threading
import time

import pytest
from gate import Gate, Reader, Upstream, free_port, ok

CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  error_pages:
    404: ./404.html
    4xx: "no"
    default: '{"error": "ours"}'
proxy:
  upstreams:
    sorry: {servers: ["127.0.0.1:%(sorry)d"]}
plugins:
  mark: {headers: {set: {X-Mark: "{status}"}}}
groups:
  - match: "/api/*"
    filters: [mark]
    error_pages: {404: {body: '{"gone": true}', type: application/problem+json}, 500-503: "group"}
routes:
  "/api/up": "http://127.0.0.1:%(dead)d"
  "/api/own":
    action: "http://127.0.0.1:%(dead)d"
    error_pages: {502: "http://sorry/pages/{status}.html?from=gate"}
  "/dead": "http://127.0.0.1:%(dead)d"
  "/site/*": "./site/"
  "POST /small": {action: "*", limits: {max_body: 10}}
  "/up/*": "http://127.0.0.1:%(up)d"
  "/taken/*":
    action: "http://127.0.0.1:%(up)d"
    error_pages: {intercept: true, 401: "who?", 5xx: "http://sorry/{status}"}
  "/fixed": 404 as the config says
  "/asked/*": {action: "./site/", error_pages: {default: "http://sorry/{status}"}}
  "/small/*":
    action: "*"
    limits: {max_body: 1000, body_timeout: 300ms, body_grace: 300ms}
    error_pages: {default: "http://sorry/{status}"}
  "/few/*":
    action: "http://127.0.0.1:%(dead)d"
    limits: {max_body: 1000, body_timeout: 300ms, body_grace: 300ms}
    error_pages: {default: "http://sorry/{status}"}
"""


class Scripts:
    """What the upstream, and the one that has the pages, answer."""
    up = sorry = ok()


@pytest.fixture(scope="module")
def gate(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    (folder / "404.html").write_text("<h1>not here</h1>\n")
    (folder / "site").mkdir()
    (folder / "site/ten.txt").write_text("0123456789")
    with open(folder / "site/large.bin", "wb") as f:
        f.truncate(3 << 20)
    with Upstream(lambda i, head: Scripts.up) as up, Upstream(lambda i, head: Scripts.sorry) as sorry:
        ports = {"up": up.port, "sorry": sorry.port, "dead": free_port()}
        with Gate(folder, CONFIG % ports, backend) as running:
            running.up, running.sorry = up, sorry
            yield running


def page(r):
    return r.status, r.get("content-type"), r.body


def error(status, fields=b"", body=b"theirs"):
    return b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s" % (status, fields, len(body), body)


# ---- which page

HTML = (404, "text/html; charset=utf-8", b"<h1>not here</h1>\n")
OURS = "application/json", b'{"error": "ours"}'
PLAIN = "text/plain; charset=utf-8"


@pytest.mark.parametrize("path,want", [
    ("/none", HTML),
    ("/site/none", HTML),
    ("/api/none", (404, "application/problem+json", b'{"gone": true}')),
    ("/dead", (502, *OURS)),
    ("/api/up", (502, PLAIN, b"group")),
    ("/small", (405, PLAIN, b"no")),
    ("/fixed", (404, PLAIN, b"as the config says")),
])
def test_the_closest_page_stands(gate, path, want):
    r = gate.get(path)
    assert page(r) == want
    assert r.get("x-mark") == ("502" if path == "/api/up" else None)  # filters run for routes
    head = gate.get(path, method="HEAD")
    assert head.status == want[0] and head.body == b""
    assert head.get("content-length") == str(len(want[2]))


def test_what_belongs_to_an_error_stays(gate):
    assert gate.get("/small").get("allow") == "POST, OPTIONS"


@pytest.mark.parametrize("request_, status", [
    ("POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n", 413),
    ("POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n", 413),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET /x HTTP/1.1\r\nHost: x\r\nA: " + "a" * 70000 + "\r\n\r\n", 431),
    ("BAD\r\n\r\n", 400),
])
def test_refused_requests(gate, request_, status):
    assert page(gate.ask(request_)) == (status, PLAIN, b"no")


def test_over_http_2(gate):
    def curl(path):
        done = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_code} %{content_type}",
                               f"http://127.0.0.1:{gate.port}{path}"], capture_output=True, check=True)
        return done.stdout
    assert curl("/none") == b"<h1>not here</h1>\n404 text/html; charset=utf-8"
    assert curl("/dead") == b'{"error": "ours"}502 application/json'
    Scripts.sorry = ok(b"sorry", b"Content-Type: text/x\r\n")
    assert curl("/api/own") == b"sorry502 text/x"


def test_keep_alive_goes_on(gate):
    with gate.connect() as s:
        reader = Reader(s)
        for _ in range(3):
            s.sendall(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\nGET /dead HTTP/1.1\r\nHost: x\r\n\r\n")
            assert page(reader.response()) == HTML
            assert page(reader.response()) == (502, *OURS)


# ---- upstreams that have the page

def test_an_upstream_is_asked(gate):
    Scripts.sorry = ok(b"sorry", b"Content-Type: text/x\r\nCache-Control: no-store\r\nX-Not: 1\r\n")
    gate.sorry.requests.clear()
    r = gate.get("/api/own", "Cookie: secret\r\n")
    assert page(r) == (502, "text/x", b"sorry")
    assert (r.get("cache-control"), r.get("x-not"), r.get("x-mark")) == ("no-store", None, "502")
    assert gate.sorry.requests.pop() == (
        b"GET /pages/502.html?from=gate HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\n"
        b"CDN-Loop: anygate;error-page\r\n\r\n" % gate.sorry.port)
    assert page(gate.get("/api/own", method="HEAD"))[::2] == (502, b"")


def test_a_missing_file_asks_for_its_page(gate):
    """And gives back what it had opened; the end of the server tells."""
    Scripts.sorry = ok(b"sorry")
    for _ in range(3):
        assert page(gate.get("/asked/none"))[::2] == (404, b"sorry")


# ---- content that comes while a page is asked for

def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
def asked():
    """(set when the page is asked for, to be set when all is sent): it comes then, when that was long due, too."""
    event, sent = threading.Event(), threading.Event()

    def answer(peer, head, rest):
        due = time.monotonic() + 0.7
        event.set()
        assert sent.wait(20)
        time.sleep(max(0, due - time.monotonic()))
        peer.send(ok(b"sorry"))
        return b""
    Scripts.sorry = answer
    return event, sent


@pytest.mark.parametrize("path,framing,before,after", [
    ("/small/x", "Content-Length: 5000", b"", b"x" * 5000),
    ("/small/x", "Content-Length: 5000", b"x" * 4000, b"x" * 1000),
    ("/few/x", "Content-Length: 900", b"x", b"x" * 899),
    ("/few/x", "Transfer-Encoding: chunked", chunk(b"x" * 900), chunk(b"x" * 900) + b"0\r\n\r\n"),
], ids=["none", "most", "slow", "chunked"])
@pytest.mark.parametrize("late", [0, 0.4])
def test_content_does_not_stop_it(gate, asked, late, path, framing, before, after):
    with gate.connect() as s:
        s.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + before)
        assert asked[0].wait(20)
        time.sleep(late)
        s.sendall(after)
        asked[1].set()
        reader = Reader(s)
        assert page(reader.response())[::2] == (413 if path == "/small/x" else 502, b"sorry")
        s.sendall(b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n")
        assert page(reader.response())[::2] == (404, b"as the config says")


@pytest.mark.parametrize("path,length", [("/small/x", "Content-Length: 5000"), ("/few/x", "X-A: b")])
@pytest.mark.parametrize("late", [0, 0.4])
def test_nor_over_http_2(gate, asked, late, path, length):
    with subprocess.Popen(["curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_code}", "-H", length,
                           "-X", "POST", "-T", "-", f"http://127.0.0.1:{gate.port}{path}"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as curl:
        curl.stdin.write(b"x" * 900)
        assert asked[0].wait(20)
        time.sleep(late)
        curl.stdin.write(b"x" * 4100)
        curl.stdin.close()
        asked[1].set()
        assert curl.stdout.read() == (b"sorry413" if path == "/small/x" else b"sorry502")


# ---- files that are there

FAILS = [('If-Match: "x"', 412, None), ("Range: bytes=4000000-", 416, "bytes */")]


@pytest.mark.parametrize("file,size", [("ten.txt", "10"), ("large.bin", str(3 << 20))])
@pytest.mark.parametrize("fields,status,told", FAILS)
def test_conditions_and_ranges_that_fail(gate, file, size, fields, status, told):
    told = told and told + size
    Scripts.sorry = ok(b"sorry")
    for _ in range(3):
        r = gate.get("/site/" + file, fields + "\r\n")
        assert page(r) == (status, PLAIN, b"no") and r.get("content-range") == told
        r = gate.get("/asked/" + file, fields + "\r\n")
        assert (r.status, r.body, r.get("content-range")) == (status, b"sorry", told)
        assert r.get("etag") is None and r.get("accept-ranges") is None
    head = gate.get("/site/" + file, 'If-Match: "x"\r\n', method="HEAD")
    assert (head.status, head.body, head.get("content-length")) == (412, b"", "2")
    assert gate.get("/site/" + file).status == 200
    curl = ["curl", "-sS", "--http2-prior-knowledge", "-H", fields, "-w", "%{http_code} %header{content-range}",
            f"http://127.0.0.1:{gate.port}/site/{file}"]
    assert subprocess.run(curl, capture_output=True, check=True).stdout.decode() == f"no{status} {told or ''}"


def test_without_a_page_they_have_a_text(backend, tmp_path):
    (tmp_path / "ten.txt").write_text("0123456789")
    config = 'server: {listen: ["127.0.0.1:$PORT"], workers: 1}\nroutes: {"/*": "./"}\n'
    with Gate(tmp_path, config, backend) as gate:
        for fields, status, _ in FAILS:
            r = gate.get("/ten.txt", fields + "\r\n")
            assert r.get("content-type") == PLAIN and r.body.startswith(b"%d " % status)
            r = gate.get("/ten.txt", fields + "\r\nAccept: application/json\r\n")
            assert r.get("content-type") == "application/problem+json" and json.loads(r.body)["status"] == status


def test_an_upstreams_416_keeps_what_it_tells(gate):
    Scripts.up = error(416, b"Content-Range: bytes */7\r\n")
    r = gate.get("/taken/x")
    assert (r.status, r.body, r.get("content-range")) == (416, b"no", "bytes */7")
    Scripts.up = error(404, b"Content-Range: bytes */7\r\n")
    assert gate.get("/taken/x").get("content-range") is None


# ---- upstreams that fail, or are left

@pytest.mark.parametrize("answer", [
    error(404), error(500), b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", b"rubbish\r\n\r\n",
    ok(b"x" * 70000), lambda peer, head, rest: None,
    lambda peer, head, rest: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
], ids=["404", "500", "302", "rubbish", "large", "closed", "cut"])
def test_a_failing_one_leaves_our_own_text(gate, answer):
    Scripts.sorry = answer
    r = gate.get("/api/own")
    assert r.status == 502 and r.body.startswith(b"502 Bad Gateway: ") and r.get("x-mark") == "502"


def test_an_empty_page(gate):
    Scripts.sorry = ok(b"")
    assert page(gate.get("/api/own")) == (502, None, b"")


def test_no_loops(backend, tmp_path):
    config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, access_log: combined}\n'
              'routes: {"/loop": {action: OK, methods: PUT,\n'
              '                   error_pages: {default: "http://127.0.0.1:$PORT/loop?{status}"}}}\n'
              'groups: [{match: /loop, error_pages: {default: "http://127.0.0.1:$PORT/loop?{status}"}}]\n')
    with Gate(tmp_path, config, backend) as gate:
        r = gate.get("/loop")
        assert r.status == 405 and r.body.startswith(b"405 Method Not Allowed: ")
    log = (tmp_path / "stderr.log").read_text()
    assert log.count('"GET /loop') == 2, log  # the client's, and the one for its page


def test_a_client_that_leaves_while_the_page_is_asked_for(gate):
    asked, left = threading.Event(), threading.Event()

    def answer(peer, head, rest):
        asked.set()
        assert left.wait(20)
        peer.send(ok(b"late"))
        return b""
    Scripts.sorry = answer
    s = gate.connect()
    s.sendall(b"GET /api/own HTTP/1.1\r\nHost: x\r\n\r\n")
    assert asked.wait(20)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()
    time.sleep(0.05)
    left.set()
    Scripts.sorry = ok(b"sorry")
    assert gate.get("/api/own").body == b"sorry"


# ---- upstreams' own errors

def test_upstreams_errors_are_theirs(gate):
    Scripts.up = error(404)
    assert gate.get("/up/x").body == b"theirs"


def test_unless_they_are_taken(gate):
    Scripts.up = error(401, b'WWW-Authenticate: Basic realm="r"\r\nX-Secret: 1\r\n')
    r = gate.get("/taken/x")
    assert page(r) == (401, PLAIN, b"who?")
    assert (r.get("www-authenticate"), r.get("x-secret")) == ('Basic realm="r"', None)
    Scripts.up = error(503, b"Retry-After: 7\r\n")
    Scripts.sorry = ok(b"sorry")
    r = gate.get("/taken/x")
    assert (r.status, r.body, r.get("retry-after")) == (503, b"sorry", "7")
    Scripts.up = error(404)
    assert page(gate.get("/taken/x")) == HTML
    assert gate.get("/taken/x", method="HEAD").status == 404
    for status in 200, 204, 304, 302:
        Scripts.up = b"HTTP/1.1 %d X\r\nX-Theirs: 1\r\n%s\r\n" % (
            status, b"" if status in (204, 304) else b"Content-Length: 0\r\n")
        r = gate.get("/taken/x")
        assert (r.status, r.get("x-theirs")) == (status, "1")


def test_the_next_request_is_not_answered_by_what_was_taken(gate):
    Scripts.up = error(500, b"", b"x" * 100000)
    Scripts.sorry = ok(b"sorry")
    for _ in range(5):
        assert gate.get("/taken/x").body == b"sorry"
    Scripts.up = ok(b"fine")
    assert gate.get("/taken/x").body == b"fine"


# ---- reloads

def test_a_page_follows_a_reload(backend, tmp_path):
    (tmp_path / "e.txt").write_text("old")
    config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, error_pages: {404: ./e.txt}}\n'
              'routes: {"/x": OK}\n')
    with Gate(tmp_path, config, backend) as gate:
        assert gate.get("/").body == b"old"
        (tmp_path / "e.txt").write_text("new")
        assert gate.get("/").body == b"old"
        gate.process.send_signal(signal.SIGHUP)
        while gate.get("/").body != b"new":
            time.sleep(0.01)


def test_a_page_asked_for_outlasts_a_reload(backend, tmp_path):
    asked, go_on = threading.Event(), threading.Event()

    def answer(peer, head, rest):
        asked.set()
        assert go_on.wait(20)
        peer.send(ok(b"sorry"))
        return b""
    with Upstream(lambda i, head: answer) as up:
        config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1,\n'
                  '         error_pages: {404: "http://127.0.0.1:%d/{status}"}}\n'
                  'routes: {"/which": OK old}\n' % up.port)
        with Gate(tmp_path, config, backend) as gate, gate.connect() as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert asked.wait(20)
            file = tmp_path / "anygate.yml"
            file.write_text(file.read_text().replace("old", "new").replace("{status}", ""))
            gate.process.send_signal(signal.SIGHUP)
            while gate.get("/which").body != b"new":
                time.sleep(0.01)
            go_on.set()
            r = Reader(s).response()
            assert (r.status, r.body) == (404, b"sorry")
