"""PROXY headers before connections: believed from those on the list, bytes like any others from the rest."""
import contextlib
import re
import signal
import socket
import ssl
import time

import h2wire
import proxyprotocol as pp
import pytest
from gate import Closed, Gate, Reader, Upstream, free_port, ok
from waiting import again, await_listener, await_read, await_that, await_unix_listener

CONFIG = """
server:
  workers: 2
  access_log: json
  trusted_proxies: [127.0.0.1, 198.51.100.0/24]
  listen:
    - {address: "127.0.0.1:$PORT", proxy_protocol: [127.0.0.0/8]}
    - {address: "127.0.0.1:$PORT2", proxy_protocol: [10.0.0.0/8, unix]}
    - {address: "127.0.0.1:$PORT3", proxy_protocol: 127.0.0.1, tls: true}
    - {address: "127.0.0.1:$PORT4", proxy_protocol: 127.0.0.1, limits: {header_timeout: 300ms}}
    - {address: "127.0.0.1:$PORT5", proxy_protocol: 10.0.0.0/8, tls: true}
    - {address: "unix:%s/front", proxy_protocol: unix}
    - {address: "unix:%s/other", proxy_protocol: 127.0.0.1}
tls: {certificates: [{cert: "%s", key: "%s"}]}
routes:
  /who:
    action: OK OK
    filters: [{headers: {response: {set: {X-Client: "{remote.ip} {remote.port}"}}}}]
  "/*": "http://127.0.0.1:%d"
"""
REQUEST = b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
TLVS = (pp.tlv(pp.ALPN, b"h2") + pp.tlv(pp.AUTHORITY, b"a.example") + pp.tlv(pp.NOOP, b"??") +
        pp.tlv(pp.UNIQUE_ID, b"id" * 64) + pp.tlv(pp.SSL, b"\1\0\0\0\0" + pp.tlv(pp.SSL_VERSION, b"TLSv1.3")) +
        pp.tlv(0xea, b"vpce-1"))
HEADERS = {
    "v1": (pp.v1("192.0.2.7", "192.0.2.1"), "192.0.2.7 1111"),
    "v1-6": (pp.v1("2001:db8::7", "2001:db8::1"), "2001:db8::7 1111"),
    "v1-mapped": (pp.v1("::ffff:192.0.2.7", "2001:db8::1"), "192.0.2.7 1111"),
    "v2": (pp.v2("192.0.2.7", "192.0.2.1"), "192.0.2.7 1111"),
    "v2-6": (pp.v2("2001:db8::7", "2001:db8::1", tlvs=TLVS), "2001:db8::7 1111"),
    "v2-crc": (pp.checked("192.0.2.7", "192.0.2.1"), "192.0.2.7 1111"),
    "v2-large": (pp.v2("192.0.2.7", "192.0.2.1", tlvs=pp.tlv(0xe0, bytes(4096 - 31))), "192.0.2.7 1111"),
}
REAL = {
    "unknown": b"PROXY UNKNOWN\r\n",
    "unknown-more": b"PROXY UNKNOWN a b c\r\n",
    "local": pp.v2("192.0.2.7", "192.0.2.1", command=pp.LOCAL),
    "unspec": pp.block(pp.PROXY, 0, b"whatever"),
    "unix": pp.block(pp.PROXY, 0x31, bytes(216)),
    "datagram": pp.block(pp.PROXY, 0x12, bytes(12)),
}
BAD = {
    "none": REQUEST,
    "lower": b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    "address": b"PROXY TCP4 1.2.3.400 1.2.3.4 1 1\r\n",
    "family": b"PROXY TCP4 ::1 ::1 1 1\r\n",
    "long": b"PROXY UNKNOWN " + b"x" * 200,
    "lf": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\nGET / HTTP/1.1\r\n",
    "version": pp.SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
    "command": pp.SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),
    "family-none": pp.block(pp.PROXY, 0x41, bytes(12)),
    "short": pp.block(pp.PROXY, 0x21, bytes(12)),
    "tlv": pp.block(pp.PROXY, 0x11, bytes(12) + b"\1\0\7h2"),
    "crc": pp.checked("192.0.2.7", "192.0.2.1")[:-1] + b"?",
    "huge": pp.SIGNATURE + b"\x21\x11\x10\x00" + bytes(12),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.fixture(scope="module")
def upstream():
    with Upstream(lambda index, head: ok()) as up:
        yield up


@pytest.fixture(scope="module")
def gate(backend, certs, upstream, tmp_path_factory):
    leaf, folder = certs.usual()["a"], tmp_path_factory.mktemp("gate")
    text = CONFIG % (folder, folder, leaf.chain, leaf.key, upstream.port)
    with Gate(folder, text, backend, wait=False) as gate:
        for port in gate.ports:  # a connection that says nothing would be a mistake elsewhere
            await_listener(port)
        for path in "front", "other":
            await_unix_listener(folder / path)
        yield gate


def forwarded_for(upstream, path):
    """What the upstream has been told of who asked for it."""
    deadline = time.monotonic() + 10
    while not (heads := [head for head in upstream.requests if head.startswith(b"GET %s " % path)]):
        assert time.monotonic() < deadline, upstream.requests
        time.sleep(0.01)
    lines = heads[-1].decode().lower().split("\r\n")
    return [line.split(": ")[1] for line in lines if line.startswith("x-forwarded-for")]


def who(s):
    s.sendall(REQUEST)
    r = Reader(s).response()
    assert r.status == 200
    return r.get("x-client")


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("cut", ["whole", "alone", "bytes"])
def test_a_believed_header_names_the_client(gate, name, cut):
    header, client = HEADERS[name]
    if cut == "whole":
        assert gate.ask(header + REQUEST).get("x-client") == client
        return
    with gate.connect() as s:
        if cut == "alone":
            s.sendall(header)
        else:
            for i in range(len(header) if len(header) < 300 else 40):
                s.sendall(header[i:i + 1])
            s.sendall(header[i + 1:])
        assert who(s) == client


@pytest.mark.parametrize("name", REAL)
def test_what_names_nobody_leaves_the_peer(gate, name):
    with gate.connect() as s:
        mine = s.getsockname()
        s.sendall(REAL[name])
        assert who(s) == f"127.0.0.1 {mine[1]}"


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("port", [0, 2], ids=["plain", "tls"])
def test_a_bad_header_ends_the_connection(gate, name, port):
    """Without an answer: it is the balancer's mistake, and nobody knows whose the request was."""
    with gate.connect(port=gate.ports[port]) as s:
        try:
            s.sendall(BAD[name])
            if name == "none":
                s.sendall(REQUEST)
            assert s.recv(100) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass


@pytest.mark.parametrize("header", [HEADERS["v1"][0], HEADERS["v2"][0]], ids=["v1", "v2"])
def test_a_stranger_s_header_is_no_header(gate, header):
    """Neither is what it says believed, nor is it skipped."""
    r = gate.ask(header + REQUEST, port=gate.ports[1])
    assert r.status == 400 and r.get("x-client") is None
    with gate.connect(port=gate.ports[1]) as s:
        assert who(s) == f"127.0.0.1 {s.getsockname()[1]}"


def test_a_stranger_s_header_is_no_handshake(gate):
    with gate.connect(port=gate.ports[4]) as s:
        s.sendall(HEADERS["v1"][0] + REQUEST)
        got = b""
        try:
            while data := s.recv(1000):
                got += data
        except ConnectionResetError:
            pass
        assert b"200 OK" not in got and got


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
@pytest.mark.parametrize("together", [True, False])
def test_over_tls(gate, upstream, alpn, together):
    """The header is in clear, the handshake follows, in the same packet or not."""
    context = h2wire.tls_context(alpn=(alpn,))
    header, client = HEADERS["v2-6"]
    with gate.connect(port=gate.ports[2]) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
        first = header if together else b""
        if not together:
            for i in range(len(header)):
                raw.sendall(header[i:i + 1])

        def pump(step):
            nonlocal first
            while True:
                try:
                    result = step()
                    break
                except ssl.SSLWantReadError:
                    raw.sendall(first + outgoing.read())
                    first = b""
                    data = raw.recv(65536)
                    assert data, "ended"
                    incoming.write(data)
            raw.sendall(outgoing.read())
            return result
        pump(tls.do_handshake)
        assert tls.selected_alpn_protocol() == alpn
        if alpn == "http/1.1":
            pump(lambda: tls.write(REQUEST))
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += pump(lambda: tls.read(65536))
            assert b"X-Client: " + client.encode() in answer
        else:
            path = b"/over-h2/%d" % together
            pump(lambda: tls.write(h2wire.PREFACE + h2wire.settings() + h2wire.headers(
                h2wire.asked(path, scheme=b"https", authority=b"a.example"))))
            assert forwarded_for(upstream, path) == [client.split()[0]]


def test_prior_knowledge_of_http_2(gate, upstream):
    with gate.connect() as s:
        s.sendall(HEADERS["v1"][0] + h2wire.PREFACE + h2wire.settings() +
                  h2wire.headers(h2wire.asked(b"/h2")))
        assert forwarded_for(upstream, b"/h2") == ["192.0.2.7"]


@pytest.mark.parametrize("path, header, client", [
    ("front", HEADERS["v1"][0], "192.0.2.7 1111"), ("front", b"", None), ("other", b"", "unknown")])
def test_over_a_unix_socket(gate, path, header, client):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(gate.folder / path))
        if client is None:
            s.sendall(REQUEST)
            with pytest.raises((Closed, ConnectionResetError, BrokenPipeError)):
                Reader(s).response()
            return
        s.sendall(header)
        name = who(s)
        assert name == client or path == "other"


def test_forwarding_fields_follow_who_speaks(gate, upstream):
    """A balancer that is trusted with addresses does not vouch for what its clients say: 127.0.0.1 is a trusted
    proxy, 192.0.2.7 is not, 198.51.100.9 is."""
    def forwarded(source):
        spoofed = REQUEST.replace(b"/who", b"/up").replace(b"Host", b"X-Forwarded-For: 203.0.113.5\r\nHost")
        assert gate.ask(pp.v1(source, "192.0.2.1") + spoofed).status == 200
        return forwarded_for(upstream, b"/up")
    assert forwarded("192.0.2.7") == ["192.0.2.7"]
    assert forwarded("198.51.100.9") == ["203.0.113.5, 198.51.100.9"]


def test_the_log_names_the_client(gate):
    assert gate.ask(pp.v1("192.0.2.99", "192.0.2.1") + REQUEST).status == 200
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
    await_that(lambda: all(text in gate.stderr() for text in ('"remote":"192.0.2.99"', "PROXY protocol: no header")),
               gate.stderr, 10)


def test_without_an_access_log_some_are_told(backend, tmp_path):
    """One a second, with how many there were; a scan of ports must not fill a disk."""
    config = ('server: {workers: 1, listen: [{address: "127.0.0.1:$PORT", proxy_protocol: 127.0.0.1, '
              'limits: {header_timeout: 500ms}}]}\nroutes: {/: OK}\n')
    with Gate(tmp_path, config, backend) as gate:
        def bad(sent):
            with gate.connect() as s, contextlib.suppress(ConnectionResetError):
                s.sendall(sent)
                assert s.recv(100) == b""
        begun = time.monotonic()
        for _ in range(20):
            bad(REQUEST)
        assert gate.logs("PROXY protocol: ")
        assert gate.stderr().count("PROXY protocol: ") <= 3 + time.monotonic() - begun
        time.sleep(1.1)
        bad(b"")
        assert gate.logs("no header in time")
        lines = [line for line in gate.stderr().splitlines() if "PROXY protocol: " in line]
        assert "127.0.0.1 on port" in lines[0] and "no header" in lines[0]
        assert "no header in time" in lines[-1]
        # Each is told or counted. (The last of those that come slowly enough for it is told by itself.)
        counted = [int(more) for more in re.findall(r"; (\d+) more since the last warning", "\n".join(lines))]
        assert len(lines) + sum(counted) == 21 and (counted or len(lines) == 21), lines


@pytest.mark.parametrize("sent", [b"", b"PROXY TCP4 1.2.3", pp.SIGNATURE[:9]])
def test_a_header_has_a_deadline(gate, sent):
    with gate.connect(port=gate.ports[3]) as s:
        s.sendall(sent)
        try:
            assert s.recv(100) == b""
        except ConnectionResetError:
            pass


def test_keep_alive_keeps_the_address(gate):
    with gate.connect() as s:
        s.sendall(HEADERS["v1"][0])
        reader = Reader(s)
        for _ in range(3):
            s.sendall(REQUEST.replace(b"Connection: close\r\n", b""))
            assert reader.response().get("x-client") == HEADERS["v1"][1]


def test_a_second_header_is_none(gate):
    assert gate.ask(HEADERS["v1"][0] * 2 + REQUEST).status == 400


def test_a_drain_waits_for_no_header(backend, tmp_path):
    config = ('server: {listen: [{address: "127.0.0.1:$PORT", proxy_protocol: 127.0.0.1}], workers: 1, '
              'drain_timeout: 500ms}\nroutes: {"/who": OK OK}\n')

    def attempt():  # within the half second
        with Gate(tmp_path, config, backend) as gate:
            with gate.connect() as late, gate.connect() as silent:
                late.sendall(b"PROXY TCP4 1.2.3.4 ")
                await_read(late, silent)
                gate.process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
                late.sendall(b"5.6.7.8 1 2\r\n" + REQUEST)  # it had come before the end
                assert Reader(late).response().status == 200
                late.close()
                try:
                    assert silent.recv(10) == b""
                except ConnectionResetError:
                    pass
                gate.process.wait(20)
            gate.stop()
    again(attempt)


def test_a_reload_changes_who_is_believed(backend, tmp_path):
    config = ('server: {listen: [{address: "127.0.0.1:%d", proxy_protocol: %s}], workers: 2}\n'
              'routes: {"/who": {action: OK OK, filters: [{headers: {response: {set: {X-Client: '
              '"{remote.ip}"}}}}]}}\n')
    with Gate(tmp_path, config % (port := free_port(), "127.0.0.1"), backend, wait=False) as gate:
        gate.ports = [port]
        gate._await_ports()
        with gate.connect() as held:
            await_read(held)
            (tmp_path / "anygate.yml").write_text(config % (port, "false"))
            gate.process.send_signal(signal.SIGHUP)
            await_that(lambda: "reloaded" in gate.stderr(), timeout=10)
            time.sleep(0.1)
            assert gate.ask(HEADERS["v1"][0] + REQUEST).status == 400
            assert gate.get("/who").get("x-client") == "127.0.0.1"
            held.sendall(HEADERS["v1"][0] + REQUEST)  # as it was accepted
            assert Reader(held).response().get("x-client") == "192.0.2.7"
