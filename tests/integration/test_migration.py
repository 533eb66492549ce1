"""docs/MIGRATION.md: `check` takes the snippet of each row, and its examples do what those of nginx
and HAProxy do, but for what is said to differ.

Traefik is not run: what its example is said to do is asked of ours alone.
"""
import re
import signal
import socket
import ssl
import subprocess
import time

import pytest
from gate import Gate, Reader, ROOT, Upstream, free_port, ok, run
from peers import Nginx

PAGE = (ROOT / "docs/MIGRATION.md").read_text()
PARTS = ["nginx", "HAProxy", "Traefik"]
ROWS_AT_LEAST = 40

# A whole configuration around a snippet, by what its row says of where it stands.
APP = 'proxy: {upstreams: {app: {servers: ["127.0.0.1:3000"]}}}\n'
PLACES = {
    "top": "%s\nroutes: {/x: OK}\n",
    "server": "server: {%s}\nroutes: {/x: OK}\n",
    "listener": 'server: {listen: [{address: ":9443", tls: true}, {%s}]}\n'
                "tls: {certificates: tls/internal.pem}\nroutes: {/x: OK}\n",
    "tls": 'server: {listen: [{address: ":443", tls: true}]}\ntls: {%s}\nroutes: {/x: OK}\n',
    "static": 'static: {%s}\nroutes:\n  "/": "./dist/"\n',
    "upstream": 'proxy: {upstreams: {app: {servers: ["10.0.0.1:80", "10.0.0.2:80"], %s}}}\n'
                'routes:\n  "/*": "SCHEME://app"\n',
    "found": 'server: {resolver: {servers: "127.0.0.1"}}\nproxy: {upstreams: {app: {%s}}}\n'
             'routes: {"/*": "http://app"}\n',
    "servers": 'proxy: {upstreams: {app: {servers: [%s]}}}\nroutes:\n  "/*": "http://app"\n',
    "route": APP + 'routes: {"/api/*": {action: "http://app", %s}}\n',
    "files": 'routes: {"/": {action: "./dist/", %s}}\n',
    "routes": 'server: {listen: [":80", ":9001"]}\n' + APP + "routes:\n  %s\n",
    "group": 'groups: [{match: "/x/*", %s}]\nroutes: {/x/y: OK}\n',
    "plugin": "plugins: {some: {%s}}\ngroups: [{match: /*, filters: [some]}]\n"
              'routes:\n  "/*": "http://127.0.0.1:3000"\n',
    "tcp": "tcp: [{%s}]\nroutes: {/x: OK}\n",
}
FILES = {
    "dist/index.html": "<h1>dist</h1>",
    "var/www/404.html": "<h1>404</h1>",
    "var/www/shop/404.html": "<h1>404</h1>",
    "var/www/shop/index.html": "<h1>shop</h1>",
    "var/www/shop/a.css": "a {}",
    "var/www/shop/.git/config": "[core]",
    "var/www/shop/assets/app.js": "app()",
    "var/www/files/report.pdf": "%PDF",
    "var/www/blog/wp-content/uploads/a.png": "PNG",
    "var/www/blog/wp-content/uploads/evil.php": "<?php",
}
PAGES = [text.encode() for name, text in FILES.items() if name.endswith("404.html")]
SAYS_NO = {"not yet", "not needed"}


def part(name):
    return re.search(rf"(?ms)^## {name}\n(.*?)(?=^## |\Z)", PAGE)[1]


def table(name):
    """The cells of each row of a part's first table."""
    rows = [line for line in part(name).split("\n### ")[1].splitlines() if line.startswith("| ")]
    for row in rows[1:]:
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 4, row
        yield cells


def rows():
    for name in PARTS:
        for number, (theirs, ours, where, _) in enumerate(table(name), 1):
            label = re.sub(r"[^A-Za-z0-9_]+", "-", theirs).strip("-")
            yield pytest.param(theirs, ours, where, id=f"{name}-{number}-{label}")


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_its_rows(name):
    theirs = [cells[0] for cells in table(name)]
    assert len(theirs) >= ROWS_AT_LEAST and len(set(theirs)) == len(theirs)


def place(folder):
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path, certificates):
    """What snippets and examples name."""
    (place(tmp_path) / "tls").symlink_to(certificates)
    for name in ("conf.d", "var/lib/anygate"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def in_place(folder, where, snippet):
    """A configuration of the snippet."""
    if where == "listener" and not snippet.startswith("address:"):
        snippet = 'address: ":80", ' + snippet
    if where == "tls" and not snippet.startswith("certificates:"):
        snippet = "certificates: tls/internal.pem, " + snippet
    if where == "upstream" and snippet.startswith("servers:"):
        where = "found"  # and looked up by nobody here
    place_of = PLACES[where].replace(APP, "") if where == "routes" and "://app" not in snippet else PLACES[where]
    text = (place_of % snippet).replace("SCHEME", "https" if "tls:" in snippet else "http")
    return text.replace("/var/", f"{folder}/var/")


@pytest.mark.parametrize("theirs, ours, where", rows())
def test_a_row(folder, theirs, ours, where):
    snippets = re.findall(r"`([^`]+)`", ours)
    if where in SAYS_NO:
        assert not ours
        return
    assert snippets and re.sub(r"`[^`]+`", "", ours).strip() == "", ours
    if where == "routes":  # lines of one file
        snippets = ["\n  ".join(snippets)]
    for snippet in snippets:
        (folder / "anygate.yml").write_text(in_place(folder, where, snippet))
        done = run("check", "-c", "anygate.yml", cwd=folder)
        assert (done.returncode, done.stderr) == (0, ""), in_place(folder, where, snippet)


# ---- the examples, side by side

SHOP = "shop.example.com"


def example(name, at=0):
    """Their text and ours."""
    blocks = re.findall(r"(?ms)^```([^\n]*)\n(.*?)^```$", part(name).split("### An example")[1])
    (_, theirs), (kind, ours) = blocks[at:at + 2]
    assert kind == "yaml"
    return theirs, ours


def upstream(index, head):
    """Answers by its path; one that ends with /broken ends the connection instead."""
    path = head.split()[1].split(b"?")[0]
    if path.endswith(b"/broken"):
        return lambda peer, head, rest: None
    if path.endswith(b"/moved"):
        return b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
    return ok(b"" if head.startswith(b"HEAD") else b"up", b"X-Powered-By: PHP\r\n")


class Side:
    """A server of one of the two configurations, before upstreams of its own.

    ports   what stands for the ports of the configuration; `listen` are those that it opens
    """

    def __init__(self, folder, text, listen, upstreams):
        self.upstreams = {str(port): Upstream(upstream) for port in upstreams}
        self.ports = {str(port): str(free_port()) for port in listen}
        self.ports.update({port: str(up.port) for port, up in self.upstreams.items()})
        text = re.sub(r"(?<=:)\d+\b|(?<=listen )\d+", lambda m: self.ports.get(m[0], m[0]), text)
        self.text = text.replace("/var/", f"{folder}/var/")
        self.listen = [int(self.ports[str(port)]) for port in listen]

    def ask(self, case):
        """What a request gives, by names; what upstreams saw of it begins with "up"."""
        before = {port: len(up.requests) for port, up in self.upstreams.items()}
        with socket.create_connection(("127.0.0.1", self.listen[0]), 20) as s:
            s.sendall(case.request())
            r = Reader(s).response(case.method)
        seen = {"status": r.status}
        if r.status == 200 or r.body in PAGES:
            seen["body"] = r.body
            seen["content-type"] = (r.get("content-type") or "").split(";")[0]
        for name in ("location", "cache-control", "x-frame-options", "x-powered-by", "via"):
            seen[name] = r.get(name)
        seen["location"] = re.sub(rf":{self.listen[0]}(?=/)", "", seen["location"] or "")
        heads = [(port, head) for port, up in self.upstreams.items()
                 for head in up.requests[before[port]:] if b"X-Case: " in head.title()]
        seen["expires"] = "set" if r.get("expires") else None
        seen["up"] = " ".join(port for port, _ in heads)
        for _, head in heads[-1:]:
            line, *lines = head.decode().rstrip("\r\n").split("\r\n")
            seen["up method"], seen["up target"], seen["up version"] = line.split()
            for name, value in (one.split(": ", 1) for one in lines):
                name = "up " + name.lower()
                seen[name] = f"{seen[name]}; {value}" if name in seen else value
        return {name: value for name, value in seen.items() if value not in (None, "")}

    def close(self):
        for up in self.upstreams.values():
            up.close()


class Case:
    """A request, the status of ours, and what differs: name to (theirs, ours), None for nothing.

    warm   both have a connection to the upstream that they keep
    """

    def __init__(self, method, target, status, differs=None, host=SHOP, fields="", body=b"",
                 warm=False, connection="close"):
        self.method, self.target, self.host, self.body = method, target, host, body
        self.status, self.fields, self.differs = status, fields, differs or {}
        self.warm, self.connection = warm, connection

    def request(self):
        told = not self.body or "Transfer-Encoding" in self.fields
        length = "" if told else f"Content-Length: {len(self.body)}\r\n"
        return (f"{self.method} {self.target} HTTP/1.1\r\nHost: {self.host}\r\nX-Case: 1\r\n"
                f"Connection: {self.connection}\r\n{length}{self.fields}\r\n").encode() + self.body

    def __repr__(self):
        return f"{self.method}-{self.host}{self.target}"


def always(case):
    """What ours says besides to an upstream, and to the client of it."""
    return {"via": (None, "1.1 anygate"), "up via": (None, "1.1 anygate"),
            "up x-forwarded-host": (None, case.host),
            "up forwarded": (None, f'for=127.0.0.1;host="{case.host}";proto=http')}


def compare(theirs, ours, case):
    if case.warm:
        for side in (theirs, ours):
            side.ask(Case("GET", case.target.rpartition("/")[0] + "/warm", 200, host=case.host))
    got = theirs.ask(case), ours.ask(case)
    assert got[1]["status"] == case.status
    differs = {**(always(case) if "up" in got[1] else {}), **case.differs}
    names = set(got[0]) | set(got[1])
    if ("up" in got[0]) != ("up" in got[1]):  # what one of them has sent on is not looked into
        names = {n for n in names if not n.startswith("up ")}
    found = {n: (got[0].get(n), got[1].get(n)) for n in names if got[0].get(n) != got[1].get(n)}
    want = {n: pair for n, pair in differs.items() if pair[0] != pair[1]}
    wrong = {n: found.get(n) for n in set(found) | set(want) if found.get(n) != want.get(n)}
    assert not wrong, "differs, (theirs, ours): " + str(wrong)


class OurSide(Side):
    """One shard, as the others have one thread: a kept connection is then there for the next one."""

    def __init__(self, folder, text, listen, upstreams, backend):
        super().__init__(folder, text, listen, upstreams)
        self.gate = Gate(folder / "ours", self.text, backend, ports=self.listen,
                         env={"ANYGATE_SERVER__WORKERS": "1"})

    def close(self):
        super().close()
        self.gate.stop()


class NginxSide(Side):
    def __init__(self, folder, text):
        super().__init__(folder, text, [80], [3000, 3001])
        (folder / "nginx").mkdir()
        # The test's own settings allow any body; the example says what it allows.
        self.nginx = Nginx(folder / "nginx", "include /etc/nginx/mime.types;\n" + self.text,
                           self.listen[0])

    def close(self):
        super().close()
        self.nginx.stop()


class HaproxySide(Side):
    def __init__(self, folder, text):
        super().__init__(folder, text, [80, 8443], [3000, 3001, 4000, 4001])
        (folder / "haproxy.cfg").write_text("global\n    nbthread 1\n" + self.text)
        self.process = subprocess.Popen(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        for port in self.listen:
            self.await_port(port)

    def await_port(self, port):
        for _ in range(400):
            assert self.process.poll() is None, "haproxy has ended"
            try:
                return socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.025)
        raise AssertionError("haproxy does not listen")

    def close(self):
        super().close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def nginx_and_ours(at, backend, tmp_path_factory):
    theirs_text, ours_text = example("nginx", at)
    theirs = NginxSide(place(tmp_path_factory.mktemp("theirs")), theirs_text)
    ours = OurSide(place(tmp_path_factory.mktemp("ours")), ours_text, [80], [3000, 3001], backend)
    yield theirs, ours
    theirs.close()
    ours.close()


@pytest.fixture(scope="module")
def nginx(backend, tmp_path_factory):
    yield from nginx_and_ours(0, backend, tmp_path_factory)


@pytest.fixture(scope="module")
def blog(backend, tmp_path_factory):
    yield from nginx_and_ours(2, backend, tmp_path_factory)


INDEX = FILES["var/www/shop/index.html"].encode()
# Its page for 404 is served by `location /`, with what that adds.
FRAME = {"x-frame-options": ("DENY", None)}
UNANSWERED = {"via": (None, None)}
NGINX_CASES = [
    Case("GET", "/", 200),
    Case("HEAD", "/", 200),
    Case("GET", "/", 200, host="SHOP.example.com:8000"),
    Case("GET", "/a.css", 200),
    Case("GET", "/deep/link", 200, {"cache-control": (None, "no-cache")}),
    Case("GET", "/gone.js", 404, {"status": (200, 404), "body": (INDEX, b"<h1>404</h1>")}),
    Case("POST", "/", 405, FRAME),
    Case("OPTIONS", "/", 204, {"status": (405, 204), **FRAME}),
    Case("GET", "/.git/config", 404),
    Case("GET", "/assets/app.js", 200,
         {"content-type": ("application/javascript", "text/javascript"), "expires": ("set", None)}),
    Case("GET", "/assets/gone.js", 404, FRAME),
    Case("GET", "/dl/report.pdf", 200),
    Case("GET", "/dl/gone.pdf", 404, FRAME),
    Case("GET", "/dl", 301,
         {"status": (200, 301), "location": (None, "/dl/"), "body": (INDEX, None),
          "content-type": ("text/html", None), **FRAME}),
    Case("GET", "/healthz", 200),
    Case("GET", "/old/a/b?c=d", 301),
    Case("GET", "/", 404, host="other.example.com"),
    Case("GET", "/api", 301),
    Case("GET", "/api/items?id=1", 200),
    Case("HEAD", "/api/items", 200),
    Case("POST", "/api/items", 200, body=b"x" * 100),
    Case("PUT", "/api/items", 200, body=b"x" * 100),
    Case("POST", "/api/items", 413, fields=f"Content-Length: {2 << 20}\r\n"),
    Case("GET", "/api/a%20b", 200),
    Case("GET", "/api/a/../b", 200),
    Case("GET", "/api/a%2Fb", 200, {"up target": ("/a/b", "/a%2Fb")}),
    Case("GET", "/api/a//b", 200, {"up target": ("/a/b", "/a//b")}),
    Case("GET", "/api/moved", 302, {"location": ("/login", "/api/login")}),
    Case("GET", "/api/x", 200, {"up x-forwarded-for": ("192.0.2.1, 127.0.0.1", "127.0.0.1")},
         fields="X-Forwarded-For: 192.0.2.1\r\n"),
    Case("GET", "/api/x", 200, {"up x_under": (None, "1")}, fields="X_Under: 1\r\n"),
    Case("GET", "/api/broken", 502, {"up": ("3000 3001", "3000 3000 3001"), **UNANSWERED},
         warm=True),
    Case("POST", "/api/broken", 502, UNANSWERED, body=b"x", warm=True),
    Case("POST", "/api/c", 200,
         {"up content-length": ("3", None), "up transfer-encoding": (None, "chunked")},
         fields="Transfer-Encoding: chunked\r\n", body=b"3\r\nabc\r\n0\r\n\r\n"),
    Case("GET", "/api/chat", 200,
         {"up upgrade": (None, "websocket"), "up connection": (None, "Upgrade")},
         fields="Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", connection="Upgrade"),
    Case("GET", "/api/chat", 200, fields="Upgrade: websocket\r\n", connection="Upgrade"),
    Case("GET", "/api/te", 200, {"up te": (None, "trailers"), "up connection": (None, "TE")},
         fields="TE: trailers\r\n", connection="close, TE"),
    Case("GET", "/reports/x", 200,
         {"up version": ("HTTP/1.0", "HTTP/1.1"), "up connection": ("close", None)}),
]


@pytest.mark.parametrize("case", NGINX_CASES, ids=repr)
def test_nginx(nginx, case):
    compare(*nginx, case)


BLOG = "blog.example.com"
UPLOADS = "/wp-content/uploads"


@pytest.mark.parametrize("case", [
    Case("GET", "/", 200, host=BLOG),
    Case("GET", "/?p=1", 200, host=BLOG),
    Case("POST", "/wp-login.php", 200, host=BLOG, body=b"log=a&pwd=b"),
    Case("GET", "/wp-admin/", 200, host=BLOG, fields="Cookie: a=b\r\n"),
    Case("GET", "/a%2Fb//c", 200, host=BLOG),
    Case("GET", "/a/../b", 200, {"up target": ("/a/../b", "/b")}, host=BLOG),
    Case("GET", "/moved", 302, host=BLOG),
    Case("POST", "/xmlrpc.php", 403, host=BLOG, body=b"<x/>"),
    Case("GET", UPLOADS + "/a.png", 200, {"expires": ("set", None)}, host=BLOG),
    Case("GET", UPLOADS + "/gone.png", 404, host=BLOG),
    Case("GET", UPLOADS + "/evil.php", 200,
         {"status": (403, 200), "body": (None, b"<?php"), "cache-control": (None, "max-age=2592000"),
          "content-type": (None, "application/octet-stream")}, host=BLOG),
    Case("POST", "/async-upload.php", 413, host=BLOG,
         fields=f"Content-Length: {(64 << 20) + 1}\r\n"),
], ids=repr)
def test_a_blog(blog, case):
    compare(*blog, case)


@pytest.fixture(scope="module")
def haproxy(backend, tmp_path_factory):
    theirs_text, ours_text = example("HAProxy")
    theirs = HaproxySide(tmp_path_factory.mktemp("theirs"), theirs_text)
    ours = OurSide(tmp_path_factory.mktemp("ours"), ours_text, [80, 8443],
                   [3000, 3001, 4000, 4001], backend)
    yield theirs, ours
    theirs.close()
    ours.close()


SITE = "site.example"
ERROR = {"cache-control": ("no-cache", None)}
HAPROXY_CASES = [
    Case("GET", "/", 200, host=SITE),
    Case("HEAD", "/a?b=c", 200, host=SITE),
    Case("POST", "/a", 200, host=SITE, body=b"x" * 100),
    Case("GET", "/healthz", 200, host=SITE),
    Case("GET", "/healthz", 200),
    Case("GET", "/internal/a", 403, ERROR, host=SITE),
    Case("GET", "/internal/a", 403, ERROR),
    Case("GET", "/api/../internal/a", 403,
         {"status": (200, 403), "up": ("3000", None), "body": (b"up", None)}, host=SITE),
    Case("GET", "/a/b?c=d", 301, host="example.com"),
    Case("GET", "/x", 301, host="EXAMPLE.com"),
    Case("GET", "/x", 301,
         {"status": (200, 301), "up": ("3001", None), "body": (b"up", None),
          "location": (None, "https://www.example.com/x"), "x-powered-by": ("PHP", None)},
         host="example.com:80"),
    Case("GET", "/api/items?id=1", 200),
    Case("GET", "/api/items", 200, host=SITE),
    Case("POST", "/api/items", 200, body=b"x" * 100),
    Case("GET", "/api", 200, host=SITE),
    Case("GET", "/api/a%2Fb", 200),
    Case("GET", "/api/a//b", 200),
    Case("GET", "/api/moved", 302, {"location": ("/login", "/api/login")}),
    Case("GET", "/x", 200, {"up x-forwarded-for": ("192.0.2.1; 127.0.0.1", "127.0.0.1")},
         host=SITE, fields="X-Forwarded-For: 192.0.2.1\r\n"),
    Case("GET", "/x", 200, host=SITE, fields="X-Forwarded-Proto: https\r\n"),
    Case("GET", "/broken", 502, {"up": ("3001", "3001 3001"), **ERROR, **UNANSWERED}, host=SITE,
         warm=True),
    Case("POST", "/broken", 502, {**ERROR, **UNANSWERED}, host=SITE, body=b"x", warm=True),
]


@pytest.mark.parametrize("case", HAPROXY_CASES, ids=repr)
def test_haproxy(haproxy, case):
    compare(*haproxy, case)


def test_haproxy_sticky(haproxy):
    """A client that brings its cookie stays; its next requests without one go elsewhere too."""
    for side in haproxy:
        with socket.create_connection(("127.0.0.1", side.listen[0]), 20) as s:
            s.sendall(Case("GET", "/cart", 200).request())
            cookie = Reader(s).response().get("set-cookie").split(";")[0]
        assert cookie.startswith("SRV=")
        kept = {side.ask(Case("GET", "/cart", 200, fields=f"Cookie: {cookie}\r\n"))["up"]
                for _ in range(6)}
        free = {side.ask(Case("GET", "/cart", 200))["up"] for _ in range(20)}
        assert len(kept) == 1 and free == {"3000", "3001"}


def test_haproxy_refused(tmp_path, backend):
    """What cannot be connected to is 503 there and 502 here."""
    theirs_text, ours_text = example("HAProxy")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    theirs = HaproxySide(tmp_path / "theirs", theirs_text)
    ours = OurSide(tmp_path / "ours", ours_text, [80, 8443], [3000, 3001, 4000, 4001], backend)
    for side, status in [(theirs, 503), (ours, 502)]:
        side.upstreams["3001"].close()
        assert side.ask(Case("GET", "/x", status, host=SITE))["status"] == status
        side.close()


def hello(name):
    """A ClientHello that asks for `name`, as it is on the wire."""
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


@pytest.mark.parametrize("name, server", [("a.example.com", "4000"), ("A.Example.com", "4000"),
                                          ("b.example.com", "4001"), ("a.example.com.x", "4001")])
def test_haproxy_sni(haproxy, name, server):
    for side in haproxy:
        sent, got = hello(name), None
        with socket.create_connection(("127.0.0.1", side.listen[1]), 20) as s:
            s.sendall(sent)
            deadline = time.monotonic() + 20
            while not got and time.monotonic() < deadline:
                got = [port for port in ("4000", "4001") if sent in side.upstreams[port].received]
                time.sleep(0.01)
        assert got == [server]


def test_what_is_no_tls_goes_to_the_default(haproxy):
    """At once, while HAProxy waits for its inspect-delay."""
    ours = haproxy[1]
    with socket.create_connection(("127.0.0.1", ours.listen[1]), 20) as s:
        s.sendall(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        assert Reader(s).response().body == b"up"
    assert b"GET /plain" in ours.upstreams["4001"].requests[-1]


# ---- Traefik's: what it is known to do, asked of ours

@pytest.fixture(scope="module")
def traefik(backend, tmp_path_factory):
    ours = OurSide(tmp_path_factory.mktemp("ours"), example("Traefik")[1], [80], [3000, 3001],
                   backend)
    yield ours
    ours.close()


@pytest.fixture(scope="module")
def labels(backend, tmp_path_factory):
    text = 'server: {listen: [":80"]}\n' + example("Traefik", 2)[1]
    ours = OurSide(tmp_path_factory.mktemp("ours"), text, [80], [3000], backend)
    yield ours
    ours.close()


API = {"up": "3001", "up host": "127.0.0.1:3001"}


@pytest.mark.parametrize("case, want", [
    (Case("GET", "/x?a=b", 200, fields="X-Shop: 2\r\nX-Debug: 1\r\n"),
     {"up target": "/x?a=b", "up x-shop": "1", "up x-debug": None, "up host": SHOP,
      "x-frame-options": "DENY", "x-powered-by": None, "up x-forwarded-prefix": None}),
    (Case("GET", "/apix", 200), {"up target": "/apix", "up host": SHOP}),
    (Case("GET", "/api", 200), {**API, "up target": "/", "up x-forwarded-prefix": "/api"}),
    (Case("GET", "/api/", 200), {**API, "up target": "/"}),
    (Case("GET", "/api/a%2Fb?c", 200),
     {**API, "up target": "/a%2Fb?c", "up x-forwarded-prefix": "/api", "x-powered-by": "PHP"}),
    (Case("POST", "/api/a", 413, fields=f"Content-Length: {(1 << 20) + 1}\r\n"), {"up": None}),
    (Case("POST", "/a", 200, body=b"x"), {"up method": "POST"}),
    (Case("GET", "/a/b?c=d", 301, host="www.example.com"),
     {"location": "http://shop.example.com/a/b?c=d"}),
    (Case("GET", "/", 404, host="other.example"), {"up": None}),
], ids=repr)
def test_traefik(traefik, case, want):
    seen = traefik.ask(case)
    host = seen.get("up host", "").replace(traefik.ports["3001"], "3001")
    if host:
        seen["up host"] = host
    assert seen["status"] == case.status
    assert {name: seen.get(name) for name in want} == want


@pytest.mark.parametrize("target, status, sent", [
    ("/cart", 200, "/"), ("/cart/a", 200, "/a"), ("/carts", 404, None), ("/", 404, None)])
def test_traefik_labels(labels, target, status, sent):
    seen = labels.ask(Case("GET", target, status))
    assert (seen["status"], seen.get("up target")) == (status, sent)
