"""server.admin: who may ask and who may not, what is told, and how long it is there."""
import json
import os
import re
import signal
import socket
import threading
import time

import h2wire
import pytest
from gate import Gate, Reader, Upstream, ok, refused, run
from waiting import await_read, await_that, await_unix_listener

TOKEN = "0123456789abcdef0123456789abcdef"
CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  admin: {admin}
  workers: {workers}
  max_connections: {most}
  drain_timeout: 20s
routes:
  "/status": OK a route
  "/slow": "http://127.0.0.1:{slow}"
"""


def config(admin='"127.0.0.1:$PORT2"', workers=1, most=40, slow=9):
    return CONFIG.format(admin=admin, workers=workers, most=most, slow=slow)


def with_token(token=TOKEN, address="127.0.0.1:$PORT2"):
    return f'{{address: "{address}", token: "{token}"}}'


class Admin:
    """Asks the admin listener of a gate."""

    def __init__(self, gate, port=None):
        self.gate, self.port = gate, port or gate.ports[1]

    def get(self, path, headers="", host="127.0.0.1", method="GET"):
        return self.gate.get(path, headers, host, method, port=self.port)

    def status(self, headers=""):
        answer = self.get("/status", headers)
        assert answer.status == 200, answer
        return json.loads(answer.body)


@pytest.fixture(scope="module")
def admin(backend, tmp_path_factory):
    with Gate(tmp_path_factory.mktemp("admin"), config(), backend) as gate:
        yield Admin(gate)


@pytest.fixture(scope="module")
def guarded(backend, tmp_path_factory):
    with Gate(tmp_path_factory.mktemp("guarded"), config(with_token()), backend) as gate:
        yield Admin(gate)


# ---- what is told ----

def test_alive_and_ready(admin):
    assert (admin.get("/healthz").status, admin.get("/healthz").body) == (200, b"alive\n")
    assert (admin.get("/readyz").status, admin.get("/readyz").body) == (200, b"ready\n")
    head = admin.get("/readyz", method="HEAD")
    assert head.status == 200 and head.body == b"" and head.get("content-length") == "6"


def test_status(admin, backend):
    told = admin.status()
    assert told["state"] == "ready" and told["backend"] == backend
    assert told["shards"] == 1 and told["routes"] == 2 and told["pid"] == admin.gate.process.pid
    assert told["version"] == run("version").stdout.split()[1]
    assert 0 <= told["uptime_s"] < 600 and told["max_connections"] == 40
    answer = admin.get("/status")
    assert answer.get("content-type") == "application/json"
    assert answer.get("cache-control") == "no-store"


def test_routes_are_elsewhere(admin):
    assert admin.gate.get("/status").body == b"a route"
    assert admin.gate.get("/healthz").status == 404
    assert admin.get("/slow").status == 404
    assert admin.get("/").status == 404
    answer = admin.get("/status", method="POST")
    assert answer.status == 405 and answer.get("allow") == "GET, HEAD"


def test_by_http2(admin):
    with h2wire.Client(admin_connection(admin.port)) as client:
        assert client.get("/readyz", authority="127.0.0.1").status == 200
        assert client.get("/readyz", authority="example.com").status == 403


def await_connections(admin, count):
    deadline = time.monotonic() + 20
    while (told := admin.status()["connections"]) != count:
        assert time.monotonic() < deadline, told
        time.sleep(0.02)


def test_clients_are_counted_and_cannot_shut_it_out(backend, tmp_path):
    with Gate(tmp_path, config(most=8), backend) as gate:
        held = [gate.connect() for _ in range(12)]
        await_connections(Admin(gate), 8)
        for s in held:
            s.close()
        await_connections(Admin(gate), 0)


def test_clients_of_all_shards_are_counted(backend, tmp_path):
    with Gate(tmp_path, config(workers=3, most=400), backend) as gate:
        held = [gate.connect() for _ in range(30)]
        await_connections(Admin(gate), 30)
        for s in held:
            s.close()
        await_connections(Admin(gate), 0)


# ---- who may ask ----

@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1", "[::1]", "[::1]:80", "10.0.0.1:80"])
def test_hosts_that_are_here(admin, host):
    assert admin.get("/healthz", host=host).status == 200


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "127.0.0.1.example.com", "a.localhost"])
def test_a_name_that_leads_here(admin, host):
    """DNS rebinding: a page of that name asks what is behind its own address."""
    answer = admin.get("/status", host=host)
    assert answer.status == 403 and b"version" not in answer.body


@pytest.mark.parametrize("origin", ["http://example.com", "null", "http://127.0.0.1"])
def test_no_page_of_a_browser(admin, guarded, origin):
    assert admin.get("/healthz", f"Origin: {origin}\r\n").status == 403
    assert guarded.get("/healthz", f"Authorization: Bearer {TOKEN}\r\nOrigin: {origin}\r\n").status == 403


WRONG = {
    "none": "",
    "empty": "Authorization: Bearer\r\n",
    "blank": "Authorization: Bearer \r\n",
    "shorter": f"Authorization: Bearer {TOKEN[:-1]}\r\n",
    "longer": f"Authorization: Bearer {TOKEN}0\r\n",
    "twice as long": f"Authorization: Bearer {TOKEN}{TOKEN}\r\n",
    "first differs": f"Authorization: Bearer x{TOKEN[1:]}\r\n",
    "last differs": f"Authorization: Bearer {TOKEN[:-1]}x\r\n",
    "other case": f"Authorization: Bearer {TOKEN.upper()}\r\n",
    "another scheme": f"Authorization: Basic {TOKEN}\r\n",
    "no scheme": f"Authorization: {TOKEN}\r\n",
    "two": f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n",
    "another field": f"Proxy-Authorization: Bearer {TOKEN}\r\n",
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("path", ["/healthz", "/status", "/nothing"])
def test_a_wrong_token(guarded, headers, path):
    answer = guarded.get(path, headers)
    assert answer.status == 401 and answer.get("www-authenticate") == 'Bearer realm="anygate"'
    assert b"version" not in answer.body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token(guarded, scheme):
    headers = f"Authorization: {scheme} {TOKEN}\r\n"
    assert guarded.get("/readyz", headers).status == 200
    assert guarded.get("/readyz", headers, host="gate.example.com").status == 200, "any host"


def test_a_wrong_token_by_http2(guarded):
    with h2wire.Client(admin_connection(guarded.port)) as client:
        assert client.get("/status", authority="127.0.0.1").status == 401
        assert client.get("/status", [("authorization", f"Bearer {TOKEN}")]).status == 200


def test_a_unix_socket(backend, tmp_path):
    path = tmp_path / "admin.sock"
    with Gate(tmp_path, config(f'"unix:{path}"'), backend):
        await_unix_listener(path)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(path))
            s.sendall(b"GET /readyz HTTP/1.1\r\nHost: anything\r\n\r\n")
            assert Reader(s).response().status == 200


@pytest.mark.parametrize("address", [":9901", "0.0.0.0:9901", "[::]:9901", "192.0.2.7:9901", "[2001:db8::1]:9901"])
def test_others_than_this_machine_need_a_token(tmp_path, address):
    (tmp_path / "a.yml").write_text(f'server: {{admin: "{address}"}}\nroutes:\n  /: OK\n')
    done = run("check", "-c", tmp_path / "a.yml")
    assert done.returncode == 1 and "it needs a token" in done.stderr, done.stderr
    (tmp_path / "a.yml").write_text(
        f'server: {{admin: {{address: "{address}", token: "{TOKEN}"}}}}\nroutes:\n  /: OK\n')
    done = run("check", "-c", tmp_path / "a.yml")
    assert done.returncode == 0 and TOKEN not in done.stdout + done.stderr, done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:9901", "127.9.9.9:9901", "[::1]:9901", "unix:/tmp/x"])
def test_this_machine_needs_none(tmp_path, address):
    (tmp_path / "a.yml").write_text(f'server: {{admin: "{address}"}}\nroutes:\n  /: OK\n')
    done = run("check", "-c", tmp_path / "a.yml")
    assert done.returncode == 0 and "for this machine alone" in done.stdout, done.stderr


# ---- how long it is there ----

def reload(gate, text):
    text = re.sub(r"\$PORT(\d?)", lambda m: str(gate.ports[int(m[1] or 1) - 1]), text)
    (gate.folder / "anygate.yml").write_text(text)
    count = gate.stderr().count("reloaded")
    gate.process.send_signal(signal.SIGHUP)
    await_that(lambda: gate.stderr().count("reloaded") != count, gate.stderr, 20)


def test_a_reload_changes_it(backend, tmp_path):
    other = "z" * 40
    with Gate(tmp_path, config(), backend) as gate:
        admin, here = Admin(gate), admin_connection(gate.ports[1])
        assert ask(here, "/readyz").status == 200
        reload(gate, config(with_token()))
        assert ask(here, "/readyz").status == 401, "connections that are open, too"
        assert admin.get("/readyz", f"Authorization: Bearer {TOKEN}\r\n").status == 200
        reload(gate, config(with_token(other)))
        assert admin.get("/readyz", f"Authorization: Bearer {TOKEN}\r\n").status == 401
        assert admin.get("/readyz", f"Authorization: Bearer {other}\r\n").status == 200
        reload(gate, config("null"))
        await_that(lambda: refused(admin.port), timeout=20)
        reload(gate, config())
        assert admin.get("/readyz").status == 200
        here.close()


def admin_connection(port):
    return socket.create_connection(("127.0.0.1", port), 10)


def ask(sock, path):
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return Reader(sock).response()


def test_listeners_change_places(backend, tmp_path):
    """What was a listener for all is admin's after a reload, and the reverse; nobody is left on the other side."""
    with Gate(tmp_path, config(), backend) as gate:
        was_admin, was_public = admin_connection(gate.ports[1]), admin_connection(gate.port)
        assert ask(was_admin, "/healthz").status == 200
        assert ask(was_public, "/status").body == b"a route"
        reload(gate, config('"127.0.0.1:$PORT"').replace('listen: ["127.0.0.1:$PORT"]',
                                                         'listen: ["127.0.0.1:$PORT2"]'))
        assert was_admin.recv(1) == b"" and was_public.recv(1) == b"", "idle ones end"
        assert Admin(gate, gate.port).get("/healthz").status == 200
        assert gate.get("/healthz", port=gate.ports[1]).status == 404
        assert gate.get("/status", port=gate.ports[1]).body == b"a route"
        was_admin.close()
        was_public.close()


def slow_upstream(release):
    def script(_, head):
        release.wait(30)
        return ok(b"late")
    return Upstream(script)


def test_it_tells_of_a_drain_and_goes_last(backend, tmp_path):
    release = threading.Event()
    with slow_upstream(release) as slow, \
            Gate(tmp_path, config(workers=2, slow=slow.port), backend) as gate:
        admin, client = Admin(gate), gate.connect()
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        while not slow.requests:
            time.sleep(0.01)
        gate.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while admin.get("/readyz").status != 503:
            assert time.monotonic() < deadline
        assert admin.get("/healthz").status == 200
        assert admin.status()["state"] == "not ready"
        while not refused(gate.port):  # the other shard's may be closed a little later
            assert time.monotonic() < deadline
        idle = admin_connection(admin.port)
        release.set()
        assert Reader(client).response().body == b"late"
        assert gate.process.wait(20) == 0, "idle ones of admin do not keep it"
        idle.close()
        client.close()


@pytest.mark.parametrize("begun", ["PROXY", "HTTP/2"])
def test_who_has_hardly_come_goes_when_an_address_becomes_admin_s(backend, tmp_path, begun):
    text = config().replace('"127.0.0.1:$PORT"', '{address: "127.0.0.1:$PORT", proxy_protocol: %s}' % (
        "127.0.0.1" if begun == "PROXY" else "10.0.0.1"))
    with Gate(tmp_path, text, backend) as gate:
        with gate.connect() as s:
            s.sendall(b"PROXY TCP4 10.1.1.1 10.1" if begun == "PROXY" else h2wire.PREFACE[:8])
            await_read(s)
            swapped = config().replace("$PORT2", "@").replace("$PORT", str(gate.ports[1]))
            (tmp_path / "anygate.yml").write_text(swapped.replace("@", str(gate.port)))
            gate.process.send_signal(signal.SIGHUP)
            assert gate.logs("reloaded") and gate.get("/healthz", host="127.0.0.1").status == 200
            if begun == "PROXY":
                s.sendall(b".1.1 1 2\r\nGET /status HTTP/1.1\r\nHost: x\r\n\r\n")
                reader = Reader(s)
                r = reader.response()
                assert r.body == b"a route" and r.get("connection") == "close" and reader.at_end()
            else:
                time.sleep(0.3)  # more than idle ones are given
                s.sendall(h2wire.PREFACE[8:])
                client = h2wire.Client(s, start=False)
                client.send(h2wire.settings())
                assert client.get("/status").body == b"a route"
                client.expect_close()
                assert client.goaway


def test_an_upgrade_hands_it_over(backend, tmp_path):
    pid_file = tmp_path / "pid"
    text = config().replace("server:\n", f"server:\n  pid_file: {pid_file}\n")
    gate = Gate(tmp_path / "run", text, backend)
    admin, old = Admin(gate), gate.process.pid
    assert admin.status()["pid"] == old
    gate.process.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + 40
    while (new := admin.status()["pid"]) == old or pid_file.read_text().strip() == str(old):
        assert time.monotonic() < deadline, gate.stderr()
        time.sleep(0.05)
    assert gate.process.wait(30) == 0, gate.stderr()
    for _ in range(5):
        assert admin.status()["pid"] == new
    os.kill(new, signal.SIGTERM)
    while not refused(admin.port):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_a_worker_has_it_too(backend, tmp_path):
    tmp_path.chmod(0o755)
    jail = tmp_path / "jail"
    jail.mkdir()
    text = config(workers=2).replace("server:\n", f"server:\n  user: nobody\n  chroot: {jail}\n")
    with Gate(tmp_path / "run", text, backend, env={"ASAN_OPTIONS": "detect_leaks=0"}) as gate:
        admin = Admin(gate)
        told = admin.status()
        assert told["shards"] == 2 and told["pid"] != gate.process.pid, "the worker's"
        reload(gate, text.replace('admin: "127.0.0.1:$PORT2"', f"admin: {with_token()}"))
        assert admin.get("/readyz").status == 401
        assert admin.get("/readyz", f"Authorization: Bearer {TOKEN}\r\n").status == 200


def test_it_has_bounds_of_its_own(backend, tmp_path):
    """Those beyond wait in the kernel's queue, clients are served all the same."""
    with Gate(tmp_path, config(), backend) as gate:
        held = [admin_connection(gate.ports[1]) for _ in range(40)]
        assert gate.get("/status").body == b"a route"
        for s in held[:20]:
            s.close()
        assert Admin(gate).get("/readyz").status == 200
        for s in held[20:]:
            s.close()
