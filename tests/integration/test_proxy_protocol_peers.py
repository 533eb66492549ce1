"""PROXY headers that HAProxy writes and nginx and HAProxy read."""
import signal
import socket
import subprocess
import time

import proxyprotocol as pp
import pytest
from gate import Gate, Reader, free_port
from peers import Nginx

HAPROXY = """
global
    stats socket {folder}/haproxy.sock
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    timeout check 5s
listen one
    bind 127.0.0.1:{one}
    server s 127.0.0.1:{gate} send-proxy
listen two
    bind 127.0.0.1:{two}
    server s 127.0.0.1:{gate} send-proxy-v2 check inter 100ms
listen tls
    bind 127.0.0.1:{tls} ssl crt {pem} alpn http/1.1
    server s 127.0.0.1:{gate} send-proxy-v2-ssl-cn proxy-v2-options authority,crc32c,unique-id
frontend back
    mode http
    bind 127.0.0.1:{back} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%ci %cp %fi %fp %[fc_pp_authority]"
"""

CONFIG = """
server:
  workers: 2
  listen: [{address: "127.0.0.1:$PORT", proxy_protocol: 127.0.0.1}]
proxy:
  upstreams:
    nginx1: {servers: ["127.0.0.1:%(nginx)d"], proxy_protocol: v1}
    nginx2: {servers: ["127.0.0.1:%(nginx)d"], proxy_protocol: v2}
    haproxy1: {servers: ["127.0.0.1:%(back)d"], proxy_protocol: v1}
    haproxy2: {servers: ["127.0.0.1:%(back)d"], proxy_protocol: v2}
routes:
  /who:
    action: OK OK
    filters: [{headers: {response: {set: {X-Client: "{remote.ip} {remote.port}"}}}}]
  "/nginx1": "http://nginx1/"
  "/nginx2": "http://nginx2/"
  "/haproxy1": "http://haproxy1/"
  "/haproxy2": "http://haproxy2/"
"""

SERVER = """
server {{
    listen 127.0.0.1:{port} proxy_protocol;
    location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port "; }}
}}
"""


def await_port(port):
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture(scope="module")
def world(backend, certs, tmp_path_factory):
    folder, leaf = tmp_path_factory.mktemp("peers"), certs.usual()["a"]
    (folder / "both.pem").write_text(leaf.chain.read_text() + leaf.key.read_text())
    ports = {name: free_port() for name in ("one", "two", "tls", "back", "gate", "nginx")}
    (folder / "haproxy.cfg").write_text(HAPROXY.format(folder=folder, pem=folder / "both.pem", **ports))
    with Nginx(folder / "nginx", SERVER.format(port=ports["nginx"]), ports["nginx"]), \
            Gate(folder / "gate", CONFIG % ports, backend, wait=False, ports=[ports["gate"]]) as gate:
        await_port(gate.port)
        haproxy = subprocess.Popen(["haproxy", "-f", str(folder / "haproxy.cfg")],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for name in ("one", "two", "tls", "back"):
                await_port(ports[name])
            yield gate, ports
        finally:
            haproxy.send_signal(signal.SIGTERM)
            haproxy.wait(20)


REQUEST = b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("name", ["one", "two"])
def test_haproxy_names_its_client(world, name):
    gate, ports = world
    with gate.connect(port=ports[name]) as s:
        mine = s.getsockname()
        s.sendall(REQUEST)
        assert Reader(s).response().get("x-client") == f"127.0.0.1 {mine[1]}"
    assert "PROXY protocol" not in gate.stderr(), "its checks (LOCAL) are fine"


def test_haproxy_with_all_parts(world):
    from tlswire import shake
    _, ports = world
    with shake(ports["tls"], "a.example") as s:
        mine = s.getsockname()
        s.sendall(REQUEST)
        assert Reader(s).response().get("x-client") == f"127.0.0.1 {mine[1]}"


@pytest.mark.parametrize("name", ["nginx1", "nginx2", "haproxy1", "haproxy2"])
@pytest.mark.parametrize("source, destination", [("192.0.2.7", "192.0.2.1"), ("2001:db8::7", "2001:db8::1")])
def test_they_are_told_the_client(world, name, source, destination):
    gate, _ = world
    with gate.connect() as s:
        s.sendall(pp.v1(source, destination, 77, 443) + REQUEST.replace(b"who", name.encode()))
        r = Reader(s).response()
    words = r.body.decode().split()
    assert r.status == 200 and words[:4] == [source, "77", destination, "443"], r.body
