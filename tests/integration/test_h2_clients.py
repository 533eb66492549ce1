"""HTTP/2 with real clients: curl, nghttp, h2load, python's h2 and httpx, a browser; in the clear and over TLS."""
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from gate import ROOT, Gate, Upstream, ok

CONFIG = """
server:
  workers: 2
  listen: ["127.0.0.1:$PORT", {address: "127.0.0.1:$PORT2", tls: true}]
tls:
  certificates: [{cert: "%s", key: "%s"}]
routes:
  "/fixed": OK OK
  "/echo/*": "*"
  "/page/*": ./page/
  "/big": ./big
  "/hold/*": "http://127.0.0.1:%d"
  "/up/*": "http://127.0.0.1:%d"
"""
BIG = bytes(range(256)) * 8192


def script(_, head):
    if head.startswith(b"GET /up/trailers"):
        return (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
                b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")
    if head.startswith(b"GET /up/early"):
        return b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" + ok(b"late")
    if b" /hold/" in head.partition(b"\r\n")[0]:
        def hold(peer, head, buffer):
            while peer.sock.recv(65536):
                pass
        return hold
    return ok(head)


@pytest.fixture(scope="module")
def gate(backend, certs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    (folder / "page").mkdir()
    (folder / "page/index.html").write_text("<!doctype html><title>t</title><h1>A page</h1>")
    (folder / "big").write_bytes(BIG)
    leaf = certs.leaf("localhost", ["localhost", "a.example", "127.0.0.1"])
    with Upstream(script) as up:
        with Gate(folder, CONFIG % (leaf.chain, leaf.key, up.port, up.port), backend) as gate:
            gate.ca = leaf.ca
            yield gate


TLS = pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])


def url(gate, tls, path):
    return f"{'https' if tls else 'http'}://localhost:{gate.ports[tls]}{path}"


def run(*command, stdin=None, timeout=60, check=True):
    done = subprocess.run(list(map(str, command)), input=stdin, capture_output=True, timeout=timeout)
    assert not check or done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


# ---- curl ----

def curl(gate, tls, path, *args, stdin=None):
    """(what -w tells, content)"""
    version = ["--http2"] if tls else ["--http2-prior-knowledge"]
    out = run("curl", "-sS", "--cacert", gate.ca, *version, "-w", "\n%{http_version} %{http_code}", *args,
              url(gate, tls, path), stdin=stdin)
    body, _, told = out.rpartition(b"\n")
    return told.decode(), body


@TLS
def test_curl(gate, tls, tmp_path):
    assert curl(gate, tls, "/fixed") == ("2 200", b"OK")
    assert curl(gate, tls, "/none")[0] == "2 404"
    assert curl(gate, tls, "/fixed", "-I")[0] == "2 200"
    assert curl(gate, tls, "/big")[1] == BIG
    told, body = curl(gate, tls, "/echo/x?q=1", "--data-binary", "@-", "-H", "Cookie: a=1", stdin=BIG)
    assert told == "2 200" and json.loads(body)["body_length"] == len(BIG)
    told, body = curl(gate, tls, "/up/x", "-H", "X-Mixed-Case: V")
    assert told == "2 200" and b"\r\nx-mixed-case: V\r\n" in body.replace(b"X-Mixed-Case", b"x-mixed-case")
    assert (b"proto=https" if tls else b"proto=http") in body
    assert curl(gate, tls, "/big", "-r", "1000-1009")[1] == BIG[1000:1010]


@TLS
def test_curl_sees_trailers_and_hints(gate, tls):
    told, body = curl(gate, tls, "/up/trailers", "-i")
    assert told == "2 200" and b"hello" in body and b"x-t: 1" in body.lower()
    assert b"HTTP/2 103" in curl(gate, tls, "/up/early", "-i")[1]


def test_curl_does_not_upgrade(gate):
    """h2c by Upgrade is obsolete (RFC 9113 section 3.1): it stays HTTP/1.1."""
    out = run("curl", "-sS", "--http2", "-w", " %{http_version}", url(gate, False, "/fixed"))
    assert out == b"OK 1.1"


def test_curl_many_at_once(gate):
    out = run("curl", "-sS", "--cacert", gate.ca, "--parallel", "--parallel-max", 50,
              url(gate, True, "/echo/[1-200]"))
    assert out.count(b'"path"') == 200


# ---- nghttp, h2load ----

@TLS
def test_nghttp(gate, tls):
    out = run("nghttp", "-nv", "--no-verify-peer",
              *[url(gate, tls, p) for p in ("/fixed", "/big", "/up/trailers")],
              "-H", "priority: u=1, i").decode()
    assert out.count(":status: 200") == 3 and "x-t: 1" in out
    assert "error_code=NO_ERROR" in out and "PROTOCOL_ERROR" not in out
    assert re.search(r"SETTINGS_MAX_CONCURRENT_STREAMS\(0x03\):\d+", out)


def test_nghttp_with_content_and_padding(gate, tmp_path):
    (tmp_path / "body").write_bytes(BIG)
    out = run("nghttp", "-b", 100, "-d", tmp_path / "body", "--no-verify-peer", url(gate, True, "/echo/x"))
    assert json.loads(out)["body_length"] == len(BIG)


@TLS
@pytest.mark.parametrize("path", ["/fixed", "/big", "/up/x"])
def test_h2load(gate, tls, path):
    n = 2000 if path == "/fixed" else 100
    out = run("h2load", "-n", n, "-c", 4, "-m", 16, url(gate, tls, path)).decode()
    assert f"{n} done, {n} succeeded, 0 failed, 0 errored, 0 timeout" in out


# ---- python ----

def test_python_h2(gate):
    import h2.connection
    import h2.events
    connection, events = h2.connection.H2Connection(), []
    with socket.create_connection(("127.0.0.1", gate.port), 10) as s:
        connection.initiate_connection()
        for i in range(20):
            connection.send_headers(2 * i + 1, [(":method", "POST"), (":scheme", "http"),
                                                (":path", "/echo/x"),
                                                (":authority", "x"), ("x-n", str(i))])
            connection.send_data(2 * i + 1, b"x" * 1000, end_stream=True)
        s.sendall(connection.data_to_send())
        while sum(isinstance(e, h2.events.StreamEnded) for e in events) < 20:
            data = s.recv(65536)
            assert data
            for event in connection.receive_data(data):
                events.append(event)
                if isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            s.sendall(connection.data_to_send())
        connection.close_connection()
        s.sendall(connection.data_to_send())
    statuses = [dict(e.headers)[b":status"] for e in events if isinstance(e, h2.events.ResponseReceived)]
    assert statuses == [b"200"] * 20


def test_httpx(gate):
    httpx = pytest.importorskip("httpx")
    with httpx.Client(http2=True, verify=str(gate.ca)) as client:
        r = client.get(url(gate, True, "/fixed"))
        assert (r.http_version, r.status_code, r.text) == ("HTTP/2", 200, "OK")
        r = client.post(url(gate, True, "/echo/x"), content=BIG)
        assert r.json()["body_length"] == len(BIG)
        assert client.get(url(gate, True, "/big")).content == BIG


# ---- a browser ----

def test_in_a_browser(gate, tmp_path):
    modules = os.environ.get("NODE_PATH", str(ROOT / "build/npm/node_modules"))
    chromium = shutil.which("chromium")
    if not chromium or not Path(modules, "playwright-core").is_dir():
        pytest.skip("chromium or playwright-core is missing: tools/deps.sh test")
    done = subprocess.run(
        ["node", Path(__file__).with_name("browser_h2.js"), url(gate, True, ""), chromium,
         tmp_path / "profile"],
        env={**os.environ, "NODE_PATH": modules}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["text"] == "A page" and seen["page"] == "h2" and seen["protocols"] == ["h2"]
    assert seen["protocol"] == "TLS 1.3"
    assert seen["gets"] == [f"/echo/{i}" for i in range(100)]
    assert seen["length"] == 300000 and seen["missing"] == 404 and seen["after"] == "OK"
    assert seen["aborted"] == ["AbortError"] * 20
