"""TLS on a listener: which certificate, version, cipher and protocol a client gets, and what one is told that
does not speak it."""
import os
import signal
import socket
import ssl
import subprocess
import time

import h2wire
import pytest
from gate import Gate, Reader
from h2wire import E, PREFACE, T, tls_context
from tlswire import (ALERT, DATA, HANDSHAKE, Engine, alert_of, answer_to, fingerprint, get, record, refusal,
                     s_client, shake, tcp)

CONFIG = """
server:
  workers: 2
  listen:
    - {address: "127.0.0.1:$PORT", tls: true}
    - {address: "127.0.0.1:$PORT2", tls: {profile: modern}}
    - {address: "127.0.0.1:$PORT3", tls: {profile: fips-like}}
    - {address: "127.0.0.1:$PORT4", tls: {strict_sni: true, h2: false}}
    - {address: "127.0.0.1:$PORT5", redirect_https: true}
    - "127.0.0.1:$PORT6"
    - {address: "127.0.0.1:$PORT7", tls: {strict_sni: true, h2: false, handshake_timeout: 500ms}}
tls:
  certificates:
    - {cert: "%(a.chain)s", key: "%(a.key)s"}
    - {cert: "%(a-rsa.chain)s", key: "%(a-rsa.key)s"}
    - {cert: "%(wild.chain)s", key: "%(wild.key)s"}
    - {cert: "%(r.chain)s", key: "%(r.key)s"}
  hsts: {max_age: 2h, include_subdomains: true}
routes:
  "/fixed": OK OK
  "/in/*": "*"
"""
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
REQUEST = b"GET /fixed HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.fixture(scope="module")
def leaves(certs):
    return certs.usual()


def filled(text, leaves):
    return text % {f"{n}.{part}": getattr(leaf, part) for n,
                   leaf in leaves.items() for part in ("chain", "key")}


@pytest.fixture(scope="module")
def gate(backend, leaves, tmp_path_factory):
    with Gate(tmp_path_factory.mktemp("gate"), filled(CONFIG, leaves), backend) as gate:
        yield gate


# ---- certificates ----

@pytest.mark.parametrize("name, leaf", [
    ("a.example", "a"), ("b.example", "a"), ("A.Example", "a"), ("x.w.example", "wild"),
    ("y.example.net", "wild"),
    ("r.example", "r"), ("w.example", "a"), ("x.y.w.example", "a"), ("other.example", "a"), (None, "a")])
@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_the_name_chooses(gate, leaves, name, leaf, version):
    with shake(gate.port, name, low=version, high=version) as s:
        assert fingerprint(s) == leaves[leaf].fingerprint()
        assert get(s, host=name or "a.example").body == b"OK"


@pytest.mark.parametrize("args, leaf", [
    (["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "a-rsa"), (["-tls1_3", "-sigalgs", "ECDSA+SHA256"], "a"),
    (["-tls1_3", "-sigalgs", "RSA-PSS+SHA256:ECDSA+SHA256"], "a"),
    (["-tls1_2", "-sigalgs", "RSA-PSS+SHA256"], "a-rsa"), (["-tls1_2", "-sigalgs", "RSA+SHA256"], "a-rsa"),
    (["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "a-rsa"),
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "a")])
def test_the_client_s_keys_choose(gate, leaves, args, leaf):
    """ECDSA where the client can, RSA where it cannot."""
    out, code = s_client(gate.port, *args, "-CAfile", leaves["a"].ca, "-verify_return_error")
    assert code == 0 and "HTTP/1.0 200" in out.replace("HTTP/1.1", "HTTP/1.0"), out
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    shown = out[out.index(begin):out.index(end)].split("\n")[1:-1]
    assert shown == leaves[leaf].cert.read_text().split(begin)[1].split(end)[0].strip().split("\n")


def test_strict_names(gate, leaves):
    with shake(gate.ports[3], "a.example") as s:
        assert fingerprint(s) == leaves["a"].fingerprint()
    assert "unrecognized_name" in refusal(gate.ports[3], "other.example").replace(" ", "_")


def test_the_chain_is_verified_by_a_client(gate, leaves):
    with shake(gate.port, "a.example", ca=leaves["a"].ca) as s:
        assert get(s).status == 200


# ---- versions and ciphers ----

def works(port, *args):
    out, code = s_client(port, *args)
    return code == 0 and "200 OK" in out


@pytest.mark.parametrize("profile, args, good", [
    ("intermediate", ["-tls1_3"], True), ("intermediate", ["-tls1_2"], True),
    ("modern", ["-tls1_3"], True), ("modern", ["-tls1_2"], False),
    ("fips-like", ["-tls1_3", "-groups", "P-256"], True),
    ("fips-like", ["-tls1_2", "-groups", "P-256"], True),
    ("fips-like", ["-tls1_3", "-groups", "X25519"], False),
    ("fips-like", ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], False),
    ("fips-like", ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], True),
    ("fips-like", ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], False),
    ("intermediate", ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], True),
    ("intermediate", ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], True),
    ("intermediate", ["-tls1_3", "-groups", "X25519"], True),
    ("intermediate", ["-tls1_3", "-groups", "P-384"], True),
    ("intermediate", ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], True),
    ("intermediate", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], True),
    ("intermediate", ["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"], True),
    ("intermediate", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], False),
    ("intermediate", ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"], False),
    ("intermediate", ["-tls1_2", "-cipher", "AES128-GCM-SHA256"], False),
    ("intermediate", ["-tls1_2", "-cipher", "AES128-SHA@SECLEVEL=0"], False),
    ("intermediate", ["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"], False),
    ("intermediate", ["-tls1_1", "-cipher", "ALL@SECLEVEL=0"], False),
    ("intermediate", ["-tls1", "-cipher", "ALL@SECLEVEL=0"], False),
    ("intermediate", ["-tls1_2", "-cipher", "aNULL@SECLEVEL=0"], False),
    ("intermediate", ["-tls1_2", "-cipher", "NULL@SECLEVEL=0"], False)],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_profiles(gate, profile, args, good):
    port = gate.ports[["intermediate", "modern", "fips-like"].index(profile)]
    assert works(port, *args) == good


P256, P384 = "ECDH, prime256v1, 256 bits", "ECDH, secp384r1, 384 bits"


@pytest.mark.parametrize("profile, groups, key", [
    ("fips-like", "X25519:P-256", P256), ("fips-like", "P-521:X25519:P-384:P-256", P256),
    ("fips-like", "X25519:P-521:P-384", P384), ("fips-like", "X25519:P-521", None),
    ("intermediate", "X25519", "X25519, 253 bits"), ("intermediate", "P-521:P-384", P384),
    ("intermediate", "P-521:X448", None)])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_profile_has_its_own_groups_alone(gate, profile, groups, key, version):
    """By a key of RSA: in TLS 1.2 a client's groups tell of certificates, too (RFC 8422 section 5.1.1)."""
    port = gate.ports[["intermediate", "modern", "fips-like"].index(profile)]
    out, code = s_client(port, version, "-groups", groups, name="r.example")
    if key:
        assert code == 0 and f"Server Temp Key: {key}" in out, out
    else:
        assert "alert handshake failure" in out, out


def test_a_version_that_is_too_old_is_told_so(gate):
    hello = bytearray(Engine(high=V12).hello())
    at = 5 + 4
    hello[at:at + 2] = b"\3\1"  # client_version of TLS 1.0
    assert alert_of(answer_to(gate.port, bytes(hello))) in ("protocol_version", "handshake_failure")


def test_another_hello_is_asked_for(gate):
    """HelloRetryRequest: the client's guess of the group was wrong (RFC 8446 section 4.1.4)."""
    assert works(gate.port, "-tls1_3", "-groups", "X448:P-256")


# ---- ALPN ----

@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("offered, got", [
    (("h2",), "h2"), (("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), "h2"),
    ((), None),
    (("spdy/3", "http/1.1"), "http/1.1"), (("spdy/3", "h2"), "h2")])
def test_protocols(gate, offered, got, version):
    with shake(gate.port, alpn=offered, low=version, high=version) as s:
        assert s.selected_alpn_protocol() == got
        if got == "h2":
            assert h2wire.Client(s).get(scheme="https").body == b"OK"
        else:
            assert get(s).body == b"OK"


@pytest.mark.parametrize("index, offered", [(0, ("spdy/3",)), (3, ("h2",)), (0, ("h2c", "http/1.0"))])
def test_no_protocol_in_common(gate, index, offered):
    assert "no_application_protocol" in refusal(gate.ports[index], alpn=offered).replace(" ", "_")


def test_h2_switched_off(gate):
    with shake(gate.ports[3], alpn=("h2", "http/1.1")) as s:
        assert s.selected_alpn_protocol() == "http/1.1"


def test_http_1_where_h2_was_agreed_on(gate):
    with shake(gate.port, alpn=("h2",)) as s:
        s.sendall(REQUEST)
        wire = h2wire.Wire(s)
        assert wire.expect_goaway(E.PROTOCOL_ERROR).kind == T.GOAWAY
        wire.expect_close()


@pytest.mark.parametrize("offered", [("http/1.1",), ()])
def test_h2_where_it_was_not_agreed_on(gate, offered):
    """RFC 9113 section 3.3: over TLS it is chosen by ALPN alone."""
    with shake(gate.port, alpn=offered) as s:
        s.sendall(PREFACE + h2wire.settings())
        assert Reader(s).response().status in (400, 505)


# ---- what is no TLS ----

@pytest.mark.parametrize("sent", [REQUEST, b"GET / HTTP/1.0\r\n\r\n", b"POST /x HTTP/1.1\r\nHost: x\r\n",
                                  b"OPTIONS * HT"],
                         ids=["GET", "1.0", "POST", "half"])
def test_plain_http(gate, sent):
    out = answer_to(gate.port, sent)
    assert out.startswith(b"HTTP/1.1 400 ") and b"TLS" in out.upper().replace(b"HTTPS", b"TLS")
    assert b"connection: close" in out.lower()


def test_plain_http_byte_by_byte(gate):
    with tcp(gate.port) as s:
        for byte in REQUEST[:20]:
            try:
                s.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.002)
        assert Reader(s).response().status == 400


SSLV2 = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + b"\x01\x00\x80" * 7 + b"c" * 16
HELLO = Engine().hello()


@pytest.mark.parametrize("sent", [
    SSLV2, b"\x00" * 100, b"\xff" * 100, os.urandom(300).replace(b"\x16", b"\x17", 1), b"SSH-2.0-x\r\n",
    b"\x05\x01\x00", record(b"", HANDSHAKE) * 50, record(b"\2\x28", ALERT), record(b"x" * 100, DATA),
    record(b"\1", 20), record(HELLO[5:], version=0x0505), record(b"\1\xff\xff\xff" + b"a" * 1000),
    record(b"a" * 10, length=0xffff), record(b"", length=0x4001 + 2048), record(b"\2\0\0\4abcd"),
    record(b"\x14\0\0\4abcd"),
    record(b"\1\0\0\0"), record(b"\1\0\0\x26" + b"\3\3" + b"r" * 32 + b"\x21\0\0\0"),
    record(HELLO[5:60]) + record(b"x" * 30, DATA), HELLO[:5] + b"\1\0\0\x10" + HELLO[9:]],
    ids=lambda sent: sent[:10].hex())
def test_garbage(gate, sent):
    """It ends at once or by an alert, and nobody else notices."""
    with shake(gate.port) as other:
        out = answer_to(gate.ports[6], sent + b"\0" * 20)
        assert out == b"" or alert_of(out) or out.startswith(b"HTTP/1.1 400"), out
        assert get(other).status == 200


def test_an_extension_that_lies_about_its_length(gate):
    hello = HELLO
    for at in range(48, len(hello) - 1, 61):
        out = answer_to(gate.ports[6], hello[:at] + b"\xff" + hello[at + 1:])
        assert out == b"" or alert_of(out) or out[0] == HANDSHAKE
    with shake(gate.port) as s:
        assert get(s).status == 200


@pytest.mark.parametrize("sent", [b"", HELLO[:1], HELLO[:5], HELLO[:100], HELLO],
                         ids=["nothing", "a byte", "a head", "half", "whole"])
def test_a_handshake_that_does_not_go_on(gate, sent):
    """The deadline is half a second here."""
    answer_to(gate.ports[6], sent)


def test_a_handshake_that_trickles(gate):
    with tcp(gate.ports[6]) as s:
        for byte in HELLO:
            try:
                s.sendall(bytes([byte]))
            except OSError:
                return
            time.sleep(0.02)
        s.settimeout(10)
        try:
            while s.recv(65536):
                pass
        except ConnectionResetError:
            pass


# ---- pieces ----

def split_records(hello, size):
    """The message in records of `size` bytes."""
    message = hello[5:]
    return b"".join(record(message[i:i + size]) for i in range(0, len(message), size))


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("size", [4, 5, 100, None])
@pytest.mark.parametrize("dribble", [False, True], ids=["at once", "bytes"])
def test_a_hello_in_pieces(gate, size, dribble, version):
    engine, first = Engine(low=version, high=version), [True]

    def send(data):
        if first[0] and size:
            data = split_records(data, size)
        first[0] = False
        for i in range(0, len(data), 1 if dribble else len(data)):
            sock.sendall(data[i:i + (1 if dribble else len(data))])
    with tcp(gate.port) as sock:
        engine.finish(sock, send)
        assert engine.ask(sock, REQUEST).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [1, 3])
def test_a_hello_whose_head_is_split(gate, size):
    """Nobody sends less than a message's head of four bytes in a record; the library does not take it.
    It ends in order."""
    out = answer_to(gate.ports[6], split_records(HELLO, size))
    assert out == b"" or alert_of(out) or out[0] == HANDSHAKE


def test_a_hello_split_anywhere(gate):
    for at in range(4, 60, 3):
        engine = Engine()
        with tcp(gate.port) as sock:
            hello = engine.hello()
            sock.sendall(record(hello[5:5 + at]) + record(hello[5 + at:]))
            engine.finish(sock)
            assert engine.ask(sock, REQUEST).startswith(b"HTTP/1.1 200")


def test_a_request_behind_the_handshake_s_last_message(gate):
    """It comes in the same packet."""
    engine = Engine()
    with tcp(gate.port) as sock:
        sock.sendall(engine.hello())
        while True:
            engine.incoming.write(sock.recv(65536))
            data, done = engine.step()
            if done:
                engine.tls.write(REQUEST)
                sock.sendall(data + engine.outgoing.read())
                break
        assert engine.ask(sock, REQUEST).startswith(b"HTTP/1.1 200")


def test_records_that_come_byte_by_byte(gate):
    engine = Engine()
    with tcp(gate.port) as sock:
        engine.finish(sock)
        engine.tls.write(REQUEST)
        for byte in engine.outgoing.read():
            sock.sendall(bytes([byte]))
        assert engine.ask(sock, b"").startswith(b"HTTP/1.1 200")


def test_a_record_that_was_changed(gate):
    engine = Engine()
    with tcp(gate.port) as sock:
        engine.finish(sock)
        engine.tls.write(REQUEST)
        data = bytearray(engine.outgoing.read())
        data[-1] ^= 1
        sock.sendall(bytes(data))
        with pytest.raises(ssl.SSLError, match="(?i)bad.record.mac|decrypt"):
            assert engine.ask(sock, b"") == b""
            raise AssertionError("no alert")


def test_large_content_both_ways(gate):
    body = os.urandom(1 << 20)
    with shake(gate.port) as s:
        s.sendall(b"POST /in/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert b'"body_length":1048576' in Reader(s).response().body.replace(b" ", b"")
    with h2wire.connect_tls(gate.port) as client:
        r = client.get("/in/x", method="POST", body=body, scheme="https")
        assert b'"body_length":1048576' in r.body.replace(b" ", b"")


# ---- the end ----

def test_the_server_says_that_it_ends(gate):
    """close_notify behind the last answer: it is not a truncation."""
    for version in V12, V13:
        context = tls_context(alpn=(), low=version, high=version)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # an end without close_notify raises
        with shake(gate.port, context=context) as s:
            assert get(s, close=True).status == 200
            assert s.recv(1) == b""


def test_the_client_says_that_it_ends(gate):
    with shake(gate.port, high=V12) as s:
        assert get(s).status == 200
        s.unwrap().close()  # waits for the server's close_notify


def test_a_client_that_only_closes(gate):
    """A truncation: the request that was under way is none."""
    with tcp(gate.port) as sock:
        engine = Engine()
        engine.finish(sock)
        engine.tls.write(b"POST /in/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        sock.sendall(engine.outgoing.read())
    with shake(gate.port) as s:
        assert get(s).status == 200


@pytest.mark.parametrize("told", [True, False], ids=["told", "cut"])
def test_a_request_that_is_whole_is_answered(gate, told):
    """Whether the client says that it ends or its FIN comes alone (RFC 8446 section 6.1): it has an end of its own."""
    with tcp(gate.port) as sock:
        engine = Engine()
        engine.finish(sock)
        engine.tls.write(b"GET /fixed HTTP/1.1\r\nHost: a.example\r\n\r\n")
        if told:
            try:
                engine.tls.unwrap()
            except ssl.SSLWantReadError:
                pass
        sock.sendall(engine.outgoing.read())
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10)
        answer = b""
        while more := sock.recv(65536):
            engine.incoming.write(more)
        while True:
            try:
                answer += (more := engine.tls.read(65536))
            except ssl.SSLError:
                break
            if not more:
                break
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_of_http2_that_is_whole_is_answered(gate):
    with h2wire.connect_tls(gate.port, refill=False) as client:
        whole = client.ask("/fixed", scheme="https")
        cut = client.ask("/in/x", method="POST", scheme="https", end=False)
        with socket.socket(fileno=os.dup(client.sock.fileno())) as below:
            below.shutdown(socket.SHUT_WR)
        assert client.response(whole).body == b"OK"
        with pytest.raises((h2wire.Reset, h2wire.Closed)):
            client.response(cut)


def test_content_that_was_cut_is_none(gate):
    with tcp(gate.port) as sock:
        engine = Engine()
        engine.finish(sock)
        engine.tls.write(b"POST /in/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nabc")
        sock.sendall(engine.outgoing.read())
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10)
        answer = b""
        try:
            while more := sock.recv(65536):
                answer += more
        except ConnectionResetError:
            pass
        engine.incoming.write(answer)
        try:
            assert engine.tls.read(65536) == b""
        except ssl.SSLError:
            pass


def test_an_alert_in_plain_text_ends_nobody_else(gate):
    with shake(gate.port) as other, tcp(gate.port) as sock:
        engine = Engine(high=V12)
        engine.finish(sock)
        sock.sendall(record(b"\2\x28", ALERT, 0x0303))
        sock.settimeout(10)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        assert get(other).status == 200


def test_renegotiation_is_refused(gate):
    """CVE-2009-3555 and its cost: a second handshake never begins."""
    client = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{gate.port}", "-tls1_2",
                               "-servername",
                               "a.example", "-msg"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
    lines = []
    for line in client.stdout:
        lines.append(line)
        if "Verify return code" in line:
            break
    client.stdin.write("R\n")
    client.stdin.flush()
    time.sleep(0.5)
    rest = client.communicate("Q\n", timeout=20)[0]
    assert "RENEGOTIATING" in rest
    assert ">>> TLS 1.2, Handshake" in rest and "ClientHello" in rest, rest  # it did ask
    assert "ServerHello" not in rest, rest


def test_keys_are_updated(gate):
    """RFC 8446 section 4.6.3: on request, and as often as some lines ask for."""
    client = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{gate.port}", "-tls1_3",
                               "-servername", "a.example"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def until(text):
        assert any(text in line for line in client.stdout), text
    try:
        until(b"Verify return code")
        for _ in range(5):
            client.stdin.write(b"K\n")
            client.stdin.flush()
            until(b"KEYUPDATE")
        client.stdin.write(REQUEST)
        client.stdin.flush()
        until(b"200 OK")
    finally:
        client.kill()
        client.communicate()


# ---- beside it ----

def test_hsts(gate):
    with shake(gate.port) as s:
        assert get(s).get("strict-transport-security") == "max-age=7200; includeSubDomains"
        assert get(s, "/none").get("strict-transport-security") in ("max-age=7200; includeSubDomains", None)
    with h2wire.connect_tls(gate.port) as client:
        assert client.get(scheme="https").get("strict-transport-security") == "max-age=7200; includeSubDomains"
    assert gate.get("/fixed", port=gate.ports[5]).get("strict-transport-security") is None


def test_redirect_to_https(gate):
    port = gate.ports[4]
    r = gate.get("/x/y?q=1", host="a.example:%d" % port, port=port)
    assert (r.status, r.get("location")) == (308, f"https://a.example:{gate.port}/x/y?q=1")
    assert r.get("strict-transport-security") is None
    assert gate.get("//evil.example/x", host="a.example", port=port).get("location").startswith(
        f"https://a.example:{gate.port}/")
    assert gate.get("/.well-known/acme-challenge/x", port=port).status == 404
    with h2wire.connect(port) as client:
        assert client.get("/z", authority="a.example").status == 308


def test_https_in_the_scheme_of_a_plain_connection(gate):
    """RFC 9110 section 7.4: a target of https that came without TLS is misdirected."""
    with h2wire.connect(gate.ports[5]) as client:
        assert client.get(scheme="https").status == 421


def test_a_drain_ends_tls_in_order(backend, leaves, tmp_path):
    with Gate(tmp_path / "gate", filled(CONFIG, leaves), backend) as gate:
        with shake(gate.port) as idle, h2wire.connect_tls(gate.port, context=tls_context()) as client:
            assert get(idle).status == 200
            assert client.get(scheme="https").status == 200
            gate.process.send_signal(signal.SIGTERM)
            assert client.expect_goaway(E.NO_ERROR)
            client.expect_close()
            assert idle.recv(1) == b""
        gate.process.wait(20)
        gate.stop()
