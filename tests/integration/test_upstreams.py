"""Upstreams of every kind, TLS towards them, and WebSockets through every pairing of versions; real peers on
both sides."""
import asyncio
import hashlib
import socket
import ssl
import subprocess
import threading

import pytest
import websockets
from gate import Gate, Upstream, free_port, ok
from peers import Nginx

BIG = 20 << 20

SERVER = """
server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{h2c} http2;
    listen 127.0.0.1:{tls} ssl http2;
    listen 127.0.0.1:{tls1} ssl;
    ssl_certificate {leaf.chain};
    ssl_certificate_key {leaf.key};
    client_max_body_size 0;
    location /version {{ return 200 "$server_protocol $connection_requests $ssl_server_name"; }}
    location /file/ {{ root {folder}; }}
    location /dav/ {{ root {folder}; dav_methods PUT DELETE; create_full_put_path on; }}
}}
"""

CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  limits: {{max_body: 0, min_rate: 0}}
proxy:
  tls: {{ca: "{ca}", server_name: up.example}}
  upstreams:
    none: {{servers: ["127.0.0.1:{tls}"], tls: {{ca: "{other}", server_name: up.example}}}}
    name: {{servers: ["127.0.0.1:{tls}"], tls: {{ca: "{ca}", server_name: down.example}}}}
    blind: {{servers: ["127.0.0.1:{tls}"], tls: {{verify: false}}}}
    h1only: {{servers: ["127.0.0.1:{tls}"], tls: {{ca: "{ca}", server_name: up.example, h2: false}}}}
routes:
  "/http/*": "http://127.0.0.1:{plain}/*"
  "/h2c/*": "h2c://127.0.0.1:{h2c}/*"
  "/https/*": "https://127.0.0.1:{tls}/*"
  "/https1/*": "https://127.0.0.1:{tls1}/*"
  "/h2/*": "h2://127.0.0.1:{tls}/*"
  "/wss/*": "wss://127.0.0.1:{tls}/*"
  "/none/*": "https://none/*"
  "/name/*": "https://name/*"
  "/blind/*": "https://blind/*"
  "/h1only/*": "https://h1only/*"
  "/noh2/*": "h2://127.0.0.1:{tls1}/*"
  "/plain/*": "https://127.0.0.1:{plain}/*"
  "/closed/*": "h2c://127.0.0.1:{closed}/*"
"""
KINDS = {"http": "1.1", "h2c": "2.0", "https": "2.0", "https1": "1.1", "h2": "2.0", "wss": "1.1",
         "h1only": "1.1", "blind": "2.0"}


@pytest.fixture(scope="module")
def peers(certs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "file").mkdir()
    (folder / "dav").mkdir()
    (folder / "file/big.bin").write_bytes(bytes(range(256)) * (BIG // 256))
    ports = {name: free_port() for name in ("plain", "h2c", "tls", "tls1", "closed")}
    leaf = certs.leaf("up", ["up.example"])
    text = SERVER.format(folder=folder, leaf=leaf, **ports)
    with Nginx(tmp_path_factory.mktemp("conf"), text, ports["plain"]):
        yield dict(ports, ca=leaf.ca, other=certs.ca("other") / "ca.pem")


@pytest.fixture(scope="module")
def gate(peers, backend, tmp_path_factory):
    with Gate(tmp_path_factory.mktemp("gate"), CONFIG.format(**peers), backend) as running:
        yield running


def curl(gate, path, *options, data=None, version="--http1.1"):
    done = subprocess.run(["curl", "-sS", "--max-time", "60", version, *map(str, options),
                           f"http://127.0.0.1:{gate.port}{path}"],
                          input=data, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


VERSIONS = ["--http1.1", "--http2-prior-knowledge"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_spoken_to_as_its_scheme_says(gate, kind, version):
    for _ in range(3):
        words = curl(gate, f"/{kind}/version", version=version).split()
        assert words[0] == b"HTTP/" + KINDS[kind].encode()
    assert int(words[1]) >= 3, "the connection was not used again"


@pytest.mark.parametrize("kind", ["https", "wss"])
def test_the_name_is_told(gate, kind):
    assert curl(gate, f"/{kind}/version").split()[2] == b"up.example"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["h2c", "https", "h2", "wss"])
def test_large_content_both_ways(gate, peers, kind, version):
    got = curl(gate, f"/{kind}/file/big.bin", version=version)
    assert hashlib.sha256(got).digest() == \
        hashlib.sha256(bytes(range(256)) * (BIG // 256)).digest()
    curl(gate, f"/{kind}/dav/{kind}.bin", "-T", "-", data=got, version=version)
    assert curl(gate, f"/http/dav/{kind}.bin") == got


def answer_of(gate, path):
    head, _, body = curl(gate, path, "-i", "-H", "Accept: text/plain").partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("path, why", [
    ("/none/version", "TLS handshake with upstream: "),
    ("/name/version", "TLS handshake with upstream: "),
    ("/plain/version", "TLS handshake with upstream: the server answers without TLS"),
    ("/noh2/version", "TLS handshake with upstream: "),
    ("/closed/version", "connect to upstream: connection refused"),
])
def test_what_cannot_be_spoken_to_is_502_with_its_cause(gate, path, why):
    status, body = answer_of(gate, path)
    assert status == 502
    assert why in body.decode() or gate.logs(why)


def test_an_expired_certificate_is_named(certs, backend, tmp_path):
    leaf = certs.leaf("up-old", ["up.example"], days=(-30, -1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.chain, leaf.key)
    config = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy: {tls: {ca: "%s", server_name: up.example}}
routes: {"/*": "https://127.0.0.1:%d"}
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            while True:
                try:
                    conn, _ = listener.accept()
                    context.wrap_socket(conn, server_side=True).close()
                except ssl.SSLError:
                    pass
                except OSError:
                    return
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Gate(tmp_path, config % (leaf.ca, listener.getsockname()[1]), backend) as gate:
            status, body = answer_of(gate, "/")
            assert status == 502
            assert "expired" in body.decode() or gate.logs("expired")


def test_a_handshake_that_stalls_is_504(certs, backend, tmp_path):
    config = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy: {tls: {ca: "%s"}, timeouts: {connect: 300ms}}
routes: {"/*": "https://127.0.0.1:%d"}
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with Gate(tmp_path, config % (certs.root, listener.getsockname()[1]), backend) as gate:
            assert answer_of(gate, "/")[0] == 504


# ---- WebSockets ----

def chain_config(target):
    return """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes: {"/*": "%s"}
""" % target


@pytest.mark.parametrize("hops", [["http"], ["h2c", "http"], ["h2c", "h2c", "http"],
                                  ["http", "h2c", "http"]])
def test_websockets_through_every_pairing(hops, backend, tmp_path):
    """A client of HTTP/1.1, a server of HTTP/1.1, and gates that speak to each other as `hops` say."""
    async def echo(peer):
        async for message in peer:
            await peer.send(message)

    async def run():
        async with websockets.serve(echo, "127.0.0.1", 0, max_size=None,
                                    subprotocols=["chat"]) as server:
            port, gates = server.sockets[0].getsockname()[1], []
            try:
                for i, scheme in enumerate(reversed(hops)):
                    gates.append(Gate(tmp_path / str(i),
                                      chain_config(f"{scheme}://127.0.0.1:{port}"), backend))
                    port = gates[-1].port
                await talk(port)
            finally:
                for g in gates:
                    g.stop()

    async def talk(port):
        async with websockets.connect(f"ws://127.0.0.1:{port}/chat?n=1", max_size=None,
                                      subprotocols=["chat"]) as peer:
            assert peer.subprotocol == "chat"
            for size in (0, 1, 125, 126, 70000, 3 << 20):
                await peer.send(b"x" * size)
                assert await peer.recv() == b"x" * size
            await peer.send("text")
            assert await peer.recv() == "text"
        peers = [await websockets.connect(f"ws://127.0.0.1:{port}/{i}") for i in range(20)]
        for i, peer in enumerate(peers):
            await peer.send(str(i))
        for i, peer in enumerate(peers):
            assert await peer.recv() == str(i)
            await peer.close()
            assert peer.close_code == 1000

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_upstream_that_is_no_websocket_server(backend, tmp_path):
    """It answers as to any request; through HTTP/2 a success would be a tunnel, so it is an error there."""
    up = Upstream(lambda i, head: ok(b"page"))
    with up, Gate(tmp_path / "a", chain_config(f"http://127.0.0.1:{up.port}"), backend) as far, \
            Gate(tmp_path / "b", chain_config(f"h2c://127.0.0.1:{far.port}"), backend) as near:
        fields = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
        assert far.get("/", fields).status == 200
        assert near.get("/", fields).status == 502
