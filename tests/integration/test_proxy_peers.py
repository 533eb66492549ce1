"""The proxy between real peers: curl, nginx on either side, python's clients, WebSockets."""
import asyncio
import hashlib
import http.client
import re
import socket
import subprocess
import threading
import time
from collections import Counter

import pytest
import websockets
from gate import Gate, Reader, Upstream, free_port, ok, without_sanitizers
from peers import Nginx, peak_bytes

BIG = 100 << 20

SERVER = """
server {{
    listen 127.0.0.1:{port};
    location /count {{ return 200 "$connection $connection_requests"; }}
    location /file/ {{ root {folder}; }}
    location /dav/ {{ root {folder}; dav_methods PUT DELETE; create_full_put_path on; }}
    location /field {{ return 200 "$http_host|$http_x_forwarded_for|$http_connection"; }}
}}
"""

CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  limits: {max_body: 0, min_rate: 0}
routes:
  "/*": "http://127.0.0.1:%d"
"""


def write_big(path):
    """BIG bytes of no simple pattern; their digest."""
    block, digest = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest()
                             for i in range(32768)), hashlib.sha256()
    with open(path, "wb") as f:
        for _ in range(BIG // len(block)):
            f.write(block)
            digest.update(block)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "file").mkdir()
    (folder / "dav").mkdir()
    (folder / "file/small.txt").write_text("small")
    return folder, write_big(folder / "file/big.bin")


@pytest.fixture(scope="module")
def nginx(files, tmp_path_factory):
    port = free_port()
    text = SERVER.format(port=port, folder=files[0])
    with Nginx(tmp_path_factory.mktemp("nginx"), text, port) as running:
        yield running


@pytest.fixture(scope="module")
def gate(nginx, backend, tmp_path_factory):
    with Gate(tmp_path_factory.mktemp("gate"), CONFIG % nginx.port, backend) as running:
        yield running


def curl(url, *options, data=None):
    return subprocess.run(["curl", "-sS", "--max-time", "120", *map(str, options), url],
                          input=data, capture_output=True, check=True).stdout


def url_of(gate, path):
    return f"http://127.0.0.1:{gate.port}{path}"


# ---- nginx behind

def test_upstream_connections_are_kept(gate):
    # Each client connection is a new one; the upstream's is the same, and counts.
    got = [gate.get("/count").body.split() for _ in range(20)]
    assert len({connection for connection, _ in got}) == 1
    counts = [int(n) for _, n in got]
    assert counts == list(range(counts[0], counts[0] + 20))


def test_what_the_upstream_sees(gate):
    host, forwarded, connection = gate.get("/field", host="site.example").body.decode().split("|")
    assert (host, forwarded) == ("site.example", "127.0.0.1")
    assert connection in ("", "keep-alive")


def test_keep_alive_by_python(gate):
    client = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=20)
    client.connect()
    socket_then = client.sock
    for path, status in [("/file/small.txt", 200), ("/file/gone", 404), ("/count", 200)] * 3:
        client.request("GET", path)
        r = client.getresponse()
        assert r.status == status
        assert r.read() == b"small" or path != "/file/small.txt"
    client.request("HEAD", "/file/small.txt")
    r = client.getresponse()
    assert (r.read(), r.headers["Content-Length"]) == (b"", "5")
    assert client.sock is socket_then
    client.close()


def test_pipelining_through_the_proxy(gate):
    with gate.connect() as s:
        s.sendall(b"".join(b"GET /file/%s HTTP/1.1\r\nHost: x\r\n\r\n" % p
                           for p in [b"small.txt", b"gone"] * 16))
        reader = Reader(s)
        assert [reader.response().status for _ in range(32)] == [200, 404] * 16


def test_curl_with_http_1_0(gate):
    out = curl(url_of(gate, "/file/small.txt"), "--http1.0", "-i").decode()
    assert out.startswith("HTTP/1.1 200 ") or out.startswith("HTTP/1.0 200 ")
    assert "transfer-encoding" not in out.lower()
    assert out.endswith("\r\n\r\nsmall")


def test_conditional_and_range_by_the_upstream(gate):
    r = gate.get("/file/small.txt", "Range: bytes=1-2\r\n")
    assert (r.status, r.body) == (206, b"ma")
    tag = gate.get("/file/small.txt").get("ETag")
    r = gate.get("/file/small.txt", f"If-None-Match: {tag}\r\n")
    assert (r.status, r.body) == (304, b"")


# ---- large bodies, with bounded memory

@pytest.fixture(scope="module")
def plain_gate(nginx, backend, tmp_path_factory):
    """A server whose memory means something."""
    with Gate(tmp_path_factory.mktemp("plain"), CONFIG % nginx.port, backend,
              binary=without_sanitizers()) as running:
        assert running.get("/file/small.txt").status == 200
        yield running


def test_a_large_download(plain_gate, files):
    before = peak_bytes(plain_gate.process.pid)
    digest = hashlib.sha256(curl(url_of(plain_gate, "/file/big.bin"))).hexdigest()
    assert digest == files[1]
    assert peak_bytes(plain_gate.process.pid) - before < 64 << 20


def test_a_large_download_to_a_reader_that_waits(plain_gate):
    """The upstream is ready to send it all; what the client does not take must not pile up."""
    before = peak_bytes(plain_gate.process.pid)
    with plain_gate.connect(timeout=30) as s:
        s.sendall(b"GET /file/big.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        reader = Reader(s)
        reader.until(b"\r\n")
        reader.fields()
        time.sleep(1)
        assert peak_bytes(plain_gate.process.pid) - before < 64 << 20
        size = len(reader.buffer)
        while size < BIG:
            part = s.recv(1 << 20)
            assert part
            size += len(part)


def test_a_large_upload(plain_gate, files):
    folder, digest = files
    before = peak_bytes(plain_gate.process.pid)
    # curl asks by Expect first; nginx's 100 is passed on.
    status = curl(url_of(plain_gate, "/dav/up.bin"), "-T", folder / "file/big.bin", "-o",
                  "/dev/null", "-w", "%{http_code}")
    assert status in (b"201", b"204")
    assert hashlib.sha256((folder / "dav/up.bin").read_bytes()).hexdigest() == digest
    assert peak_bytes(plain_gate.process.pid) - before < 64 << 20
    (folder / "dav/up.bin").unlink()


def test_a_chunked_upload(gate, files):
    content = (files[0] / "file/big.bin").read_bytes()[:3 << 20]
    status = curl(url_of(gate, "/dav/chunked.bin"), "-T", "-", "-H", "Transfer-Encoding: chunked",
                  "-o", "/dev/null", "-w", "%{http_code}", data=content)
    assert status in (b"201", b"204")
    assert (files[0] / "dav/chunked.bin").read_bytes() == content
    (files[0] / "dav/chunked.bin").unlink()


def test_expect_is_answered_by_the_upstream(gate):
    done = subprocess.run(
        ["curl", "-sSv", "--max-time", "30", "--expect100-timeout", "25", "-T", "-", "-H",
         "Expect: 100-continue", url_of(gate, "/dav/expect.bin")],
        input=b"x" * 2000000, capture_output=True, check=True)
    assert re.search(rb"< HTTP/1\.1 100 ", done.stderr)
    assert re.search(rb"< HTTP/1\.1 20[14] ", done.stderr)


# ---- nginx in front

def test_nginx_as_the_client(gate, tmp_path):
    port = free_port()
    http_block = f"""
        upstream gate {{ server 127.0.0.1:{gate.port}; keepalive 4; }}
        server {{
            listen 127.0.0.1:{port};
            location / {{ proxy_pass http://gate; proxy_http_version 1.1;
                          proxy_set_header Connection ""; }}
        }}"""
    with Nginx(tmp_path / "front", http_block, port):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(50):
            client.request("GET", "/file/small.txt")
            r = client.getresponse()
            assert (r.status, r.read()) == (200, b"small")
        client.request("POST", "/file/small.txt", body=b"y" * 200000)
        r = client.getresponse()
        r.read()
        assert r.status == 405  # nginx behind says so
        client.request("GET", "/file/big.bin", headers={"Range": "bytes=0-4999999"})
        r = client.getresponse()
        assert (r.status, len(r.read())) == (206, 5000000)
        client.close()


# ---- WebSockets and events

def test_websockets(backend, tmp_path):
    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async def talk():
        async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
            port = server.sockets[0].getsockname()[1]
            with Gate(tmp_path, CONFIG % port, backend) as gate:
                async def one(n):
                    async with websockets.connect(f"ws://127.0.0.1:{gate.port}/chat?n={n}",
                                                  max_size=None, ping_interval=None) as client:
                        for message in [f"hello {n}", b"\0\xff" * 10, "x" * 300000, b"y" * 70000]:
                            await client.send(message)
                            assert await asyncio.wait_for(client.recv(), 20) == message
                        await asyncio.wait_for(await client.ping(), 20)
                await asyncio.gather(*(one(n) for n in range(8)))
                # The connection is HTTP's no more, and others still are.
                status = await asyncio.to_thread(
                    lambda: gate.get("/plain", "Accept: text/plain\r\n").status)
                assert status == 426  # what this server says to plain HTTP

    asyncio.run(asyncio.wait_for(talk(), 90))


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_events_arrive_one_by_one(backend, tmp_path, framing):
    seen = [threading.Event() for _ in range(5)]

    def script(peer, head, rest):
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" +
                  (b"Transfer-Encoding: chunked\r\n\r\n" if framing == "chunked"
                   else b"Connection: close\r\n\r\n"))
        for i, event in enumerate(seen):
            data = b"data: %d\n\n" % i
            peer.send(b"%x\r\n%s\r\n" % (len(data), data) if framing == "chunked" else data)
            if not event.wait(20):  # the next one only when this one has arrived
                return None
        if framing == "chunked":
            peer.send(b"0\r\n\r\n")
            return rest
        return None

    with Upstream(lambda i, head: script) as up, Gate(tmp_path, CONFIG % up.port, backend) as gate:
        with gate.connect() as s:
            s.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            reader = Reader(s)
            assert b" 200 " in reader.until(b"\r\n")
            reader.fields()
            for i, event in enumerate(seen):
                while b"data: %d\n\n" % i not in reader.buffer:
                    reader.more()
                event.set()


# ---- several servers

BALANCED = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy:
  upstreams:
    api: {servers: [%s]}
routes:
  "/*": "http://api"
"""


def named(name):
    return Upstream(lambda i, head: ok(name))


def test_round_robin(backend, tmp_path):
    with named(b"a") as a, named(b"b") as b, named(b"c") as c:
        servers = f'"127.0.0.1:{a.port} weight=2", "127.0.0.1:{b.port}", "127.0.0.1:{c.port}"'
        with Gate(tmp_path, BALANCED % servers, backend) as gate:
            got = Counter(gate.get("/").body for _ in range(40))
            assert got == {b"a": 20, b"b": 10, b"c": 10}


def test_a_dead_server_among_three(backend, tmp_path):
    with named(b"a") as a, named(b"b") as b:
        servers = ", ".join(f'"127.0.0.1:{p}"' for p in (a.port, free_port(), b.port))
        with Gate(tmp_path, BALANCED % servers, backend) as gate:
            got = Counter((r.status, r.body) for r in (gate.get("/") for _ in range(30)))
            assert set(got) == {(200, b"a"), (200, b"b")}
            assert min(got.values()) >= 10


def test_all_servers_dead(backend, tmp_path):
    servers = f'"127.0.0.1:{free_port()}", "127.0.0.1:{free_port()}"'
    with Gate(tmp_path, BALANCED % servers, backend) as gate:
        for _ in range(3):
            r = gate.get("/")
            assert r.status in (502, 503) and r.body


def test_an_upstream_that_restarts(backend, tmp_path):
    port = free_port()
    text = SERVER.format(port=port, folder=tmp_path)
    with Nginx(tmp_path / "nginx", text, port) as nginx, \
            Gate(tmp_path / "gate", CONFIG % port, backend) as gate:
        assert gate.get("/count").status == 200
        nginx.stop()
        assert gate.get("/count").status in (502, 503)
        nginx.start()
        # The pooled connection died with the old one: nobody may see that.
        for _ in range(5):
            assert gate.get("/count").status == 200
        nginx.stop()
        nginx.start()
        assert gate.get("/count").status == 200


def test_an_upstream_on_a_unix_socket(backend, tmp_path):
    path = tmp_path / "up.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)

    def serve():
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            with conn:
                conn.recv(65536)
                conn.sendall(ok(b"by unix", b"Connection: close\r\n"))

    threading.Thread(target=serve, daemon=True).start()
    config = BALANCED % f'"unix:{path}"'
    try:
        with Gate(tmp_path / "gate", config, backend) as gate:
            assert [gate.get("/").body for _ in range(3)] == [b"by unix"] * 3
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_an_upstream_by_name(backend, tmp_path):
    with named(b"by name") as up:
        config = BALANCED % f'"localhost:{up.port}"'
        with Gate(tmp_path, config, backend) as gate:
            assert gate.get("/").body == b"by name"


def test_a_name_that_is_none(backend, tmp_path):
    with Gate(tmp_path, BALANCED % '"no-such-host.invalid:80"', backend) as gate:
        r = gate.get("/")
        assert r.status in (502, 503, 504) and r.body
