"""THREATS.md through the proxy: fields it must keep, drop or set, and upstreams that lie or die."""
import base64
import hashlib
import queue
import re
import threading
import time

import pytest
from gate import Closed, Gate, Reader, Upstream, ok

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1%s}
routes:
  "/*":
    action: "http://127.0.0.1:%d"
    timeouts: {first_byte: 700ms, read: 700ms}
  "/fixed": OK OK
"""


def fields_of(head):
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return [(n.lower(), v.strip()) for n, v in (line.split(":", 1) for line in lines)]


def value_of(head, name):
    values = [v for n, v in fields_of(head) if n == name]
    assert len(values) <= 1, values
    return values[0] if values else None


@pytest.fixture(scope="module")
def plain(backend, tmp_path_factory):
    with Upstream(lambda i, head: ok(b"up", b"X-Up: 1\r\nConnection: keep-alive\r\n")) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % ("", up.port), backend) as gate:
            yield gate, up


def forwarded(setup, headers, **kwargs):
    gate, up = setup
    before = len(up.requests)
    assert gate.get("/f", headers, **kwargs).status == 200
    return up.requests[before]


def test_forwarding_fields_are_set(plain):
    head = forwarded(plain, "")
    assert value_of(head, "x-forwarded-for") == "127.0.0.1"
    assert value_of(head, "x-forwarded-proto") == "http"
    assert value_of(head, "x-forwarded-host") == "x"
    assert re.fullmatch(r"for=127\.0\.0\.1;.*proto=http.*", value_of(head, "forwarded"))
    assert "anygate" in value_of(head, "via")


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host",
                                  "Forwarded"])
def test_spoofed_forwarding_fields_are_replaced(plain, name):
    head = forwarded(plain, f"{name}: evil\r\n")
    assert "evil" not in value_of(head, name.lower())


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X-Forwarded_For", "Proxy", "X_Forwarded_Proto",
                                  "X_Forwarded_Host"])
def test_aliases_are_dropped(plain, name):
    assert b"evil" not in forwarded(plain, f"{name}: evil\r\n")


@pytest.mark.parametrize("name", ["Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE",
                                  "Trailer", "Upgrade"])
def test_hop_by_hop_fields_are_dropped(plain, name):
    head = forwarded(plain, f"{name}: evil\r\n")
    assert b"evil" not in head


def test_nominated_fields_are_dropped(plain):
    gate, up = plain
    before = len(up.requests)
    gate.ask("GET /f HTTP/1.1\r\nHost: x\r\nConnection: close, X-Secret\r\nX-Secret: evil\r\n\r\n")
    assert b"evil" not in up.requests[before]


@pytest.mark.parametrize("name", ["Host", "X-Forwarded-For", "Forwarded", "Authorization", "Cookie",
                                  "Content-Length", "X-Forwarded-Proto", "X-Forwarded-Host"])
def test_what_matters_cannot_be_nominated_away(plain, name):
    gate, up = plain
    before = len(up.requests)
    r = gate.ask(f"POST /f HTTP/1.1\r\nHost: x\r\nConnection: close, {name}\r\nAuthorization: a\r\n"
                 "Cookie: c=d\r\nContent-Length: 2\r\n\r\nhi")
    assert r.status == 200
    assert value_of(up.requests[before], name.lower()) is not None


def test_end_to_end_fields_are_kept_in_order(plain):
    head = forwarded(plain, "X-B: 1\r\nX-A: 2\r\nX-B: 3\r\nAccept: */*\r\n")
    assert [f for f in fields_of(head) if f[0] in ("x-a", "x-b")] == \
        [("x-b", "1"), ("x-a", "2"), ("x-b", "3")]


def test_response_hop_by_hop_fields_are_dropped(plain):
    gate, _ = plain
    with gate.connect() as s:
        s.sendall(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
        r = Reader(s).response()
        assert r.get("x-up") == "1" and r.get("connection") is None and "anygate" in r.get("via")


def test_loops_end(plain):
    gate, up = plain
    before = len(up.requests)
    via = ", ".join(["1.1 anygate"] * 6)
    assert gate.get("/f", f"Via: {via}\r\n").status == 508
    assert len(up.requests) == before


def test_trusted_peers_are_believed(backend, tmp_path):
    with Upstream(lambda i, head: ok()) as up:
        trusted = ", trusted_proxies: [127.0.0.0/8]"
        with Gate(tmp_path, CONFIG % (trusted, up.port), backend) as gate:
            assert gate.get("/f", "X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\n").status == 200
            head = up.requests[0]
            assert value_of(head, "x-forwarded-for") == "10.1.2.3, 127.0.0.1"
            assert value_of(head, "x-forwarded-proto") == "https"


# ---- upstreams that lie ----

HEAD = b"HTTP/1.1 200 OK\r\n"
BAD_HEADS = {
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
    "length and chunked": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length list": HEAD + b"Content-Length: 2, 2\r\n\r\nhi",
    "negative length": HEAD + b"Content-Length: -2\r\n\r\nhi",
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "fold": HEAD + b"X-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nhi",
    "no colon": HEAD + b"XYZ\r\nContent-Length: 2\r\n\r\nhi",
    "space before colon": HEAD + b"X : 1\r\nContent-Length: 2\r\n\r\nhi",
    "NUL": HEAD + b"X-A: \0\r\nContent-Length: 2\r\n\r\nhi",
    "bad version": b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "bad status": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nhi",
    "garbage": b"\x00\x01\x02 hello\r\n\r\n",
    "endless head": HEAD + b"X-A: " + b"a" * 70000,
    "many fields": HEAD + b"".join(b"X-%d: 1\r\n" % i for i in range(500)) + b"\r\n",
    "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "1xx storm": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100,
}


@pytest.fixture(scope="module")
def liar(backend, tmp_path_factory):
    def script(index, head):
        return script.answer
    with Upstream(script) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % ("", up.port), backend) as gate:
            yield gate, up, script


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_malformed_answer_is_502(liar, name):
    gate, up, script = liar

    used = []

    def answer(peer, head, rest):
        used.append(peer.index)
        peer.send(BAD_HEADS[name])
        return rest
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"GET /l HTTP/1.1\r\nHost: x\r\n\r\n")
        reader = Reader(s)
        assert reader.response().status == 502
        s.sendall(b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.response().body == b"OK"
    # The connection it came on is never used again.
    for _ in range(3):
        script.answer = lambda peer, head, rest: peer.send(ok(b"%d" % peer.index)) or rest
        assert int(gate.get("/l").body) != used[0]


CUT = {
    "cut length": HEAD + b"Content-Length: 10\r\n\r\n12345",
    "cut chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nA\r\n12345",
    "cut before last chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    "cut in trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\nX: ",
    "bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nzz\r\n",
    "chunk too long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n123456\r\n0\r\n\r\n",
    "bare LF chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\n12345\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", CUT)
def test_a_cut_answer_is_never_taken_for_whole(liar, name):
    gate, _, script = liar

    def answer(peer, head, rest):
        peer.send(CUT[name])
        time.sleep(0.05)
        return None
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"GET /l HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert Reader(s).response().status == 502
        except (Closed, ConnectionResetError):
            pass


def test_a_close_delimited_answer_is_whole(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        peer.send(HEAD + b"\r\nall of it")
        return None
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"GET /l HTTP/1.1\r\nHost: x\r\n\r\n")
        r = Reader(s).response()
        assert r.body == b"all of it" and r.get("transfer-encoding") == "chunked"


def test_a_close_delimited_answer_for_http10(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        peer.send(HEAD + b"\r\nall of it")
        return None
    script.answer = answer
    r = gate.ask("GET /l HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert r.body == b"all of it" and r.get("transfer-encoding") is None


def test_extra_bytes_are_not_the_next_answer(liar):
    gate, _, script = liar
    script.answer = ok(b"one") + ok(b"POISON")
    with gate.connect() as s:
        reader = Reader(s)
        s.sendall(b"GET /l HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.response().body == b"one"
        time.sleep(0.05)
        script.answer = ok(b"two")
        s.sendall(b"GET /l HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.response().body == b"two"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_no_content_where_there_is_none(liar, method):
    gate, _, script = liar
    script.answer = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n" \
        if method == "GET" else b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    with gate.connect() as s:
        reader = Reader(s)
        for _ in range(2):
            s.sendall(f"{method} /l HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert reader.response(method).body == b""


def test_a_closed_idle_connection_is_no_error(liar):
    gate, _, script = liar
    for _ in range(5):
        def answer(peer, head, rest):
            peer.send(ok(b"bye"))
            return None  # closes without saying so
        script.answer = answer
        assert gate.get("/l").body == b"bye"


def test_a_reset_before_the_answer_is_502(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        peer.reset()
        return None
    script.answer = answer
    assert gate.get("/l", method="POST", headers="Content-Length: 0\r\n").status == 502


def test_a_stalled_upstream_is_504(liar):
    gate, _, script = liar
    script.answer = lambda peer, head, rest: time.sleep(3)
    assert gate.get("/l").status == 504


def test_a_dead_upstream_is_502(backend, tmp_path):
    up = Upstream(lambda i, head: ok())
    up.close()
    time.sleep(0.05)
    with Gate(tmp_path, CONFIG % ("", up.port), backend) as gate:
        r = gate.get("/l", "Accept: application/json\r\n")
        assert r.status == 502 and r.get("content-type") == "application/problem+json"
        assert b"refused" in r.body


# ---- both directions ----

def test_early_answer_to_an_unfinished_upload(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nstop")
        return None
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 1000)
        r = Reader(s).response()
        assert (r.status, r.body, r.get("connection")) == (413, b"stop", "close")


def test_continue_is_relayed(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        assert b"\r\nexpect: 100-continue\r\n" in head.lower()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        got = peer.read(5 - len(rest))
        peer.send(ok(rest + got))
        return b""
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        reader = Reader(s)
        assert reader.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        s.sendall(b"hello")
        assert reader.response().body == b"hello"


def test_refusal_instead_of_continue_is_relayed(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        peer.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        return None
    script.answer = answer
    with gate.connect() as s:
        s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        r = Reader(s).response()
        assert r.status == 401 and not r.interim


def test_early_hints_are_relayed(liar):
    gate, _, script = liar
    script.answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + ok(b"fin")
    r = gate.get("/l")
    assert r.body == b"fin" and [i.status for i in r.interim] == [103]
    assert r.interim[0].get("link") == "</a.css>"


def test_trailers_are_relayed_without_framing_and_auth(liar):
    gate, _, script = liar
    script.answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n" \
        b"Content-Length: 5\r\nAuthorization: a\r\nHost: y\r\n\r\n"
    with gate.connect() as s:
        s.sendall(b"GET /l HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n")
        assert Reader(s).response().trailers == [("X-Sum", "1")]


def test_request_trailers_and_chunks_arrive(liar):
    gate, up, script = liar
    before = len(up.received)
    script.answer = ok(b"got")
    r = gate.ask("POST /l HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nHost: evil\r\n\r\n")
    assert r.body == b"got"
    data = b"".join(up.received[before - 1:] if before else up.received)
    body = data.split(b"\r\n\r\n", 1)[1] if b"hello" in data else b""
    assert b"ext" not in body and b"evil" not in body


def test_large_bodies_both_ways_at_once(liar):
    gate, _, script = liar
    size = 3_000_000
    digests = queue.Queue()

    def answer(peer, head, rest):
        def pump():
            peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % size)
            for i in range(0, size - 10000, 10000):
                peer.send(bytes([i // 10000 % 251]) * 10000)
        thread = threading.Thread(target=pump)
        thread.start()
        digests.put(hashlib.sha256(rest + peer.read(size - len(rest))).hexdigest())
        thread.join()
        # An answer that ends before the request has would end both.
        peer.send(bytes([(size // 10000 - 1) % 251]) * 10000)
        return b""
    script.answer = answer
    payload = hashlib.shake_128(b"seed").digest(size)
    with gate.connect(30) as s:
        s.sendall(b"POST /l HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        sender = threading.Thread(target=s.sendall, args=(payload,))
        sender.start()
        body = Reader(s).response().body
        sender.join()
    assert body == b"".join(bytes([i % 251]) * 10000 for i in range(size // 10000))
    assert digests.get(timeout=10) == hashlib.sha256(payload).hexdigest()


# ---- upgrade ----

def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


KEY = base64.b64encode(b"0123456789abcdef")
UPGRADE = (b"GET /l HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % KEY)


def switch(accept):
    return (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)


def test_upgrade_opens_a_tunnel(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        assert value_of(head, "upgrade").lower() == "websocket"
        assert value_of(head, "connection").lower() == "upgrade"
        peer.send(switch(accept_of(KEY)) + b"early")
        while True:
            data = peer.sock.recv(1000)
            if not data:
                peer.send(b"last")
                return None
            peer.send(data[::-1])
    script.answer = answer
    with gate.connect() as s:
        s.sendall(UPGRADE)
        reader = Reader(s)
        r = reader.response()
        assert r.status == 101 and r.get("upgrade") == "websocket"
        assert reader.exactly(5) == b"early"
        s.sendall(b"GET / HTTP/1.1\r\n\r\n\0\xff")
        assert reader.exactly(20) == b"GET / HTTP/1.1\r\n\r\n\0\xff"[::-1]
        s.shutdown(1)
        assert reader.exactly(4) == b"last"
        assert reader.at_end()


def test_a_wrong_accept_is_no_tunnel(liar):
    gate, _, script = liar

    def answer(peer, head, rest):
        peer.send(switch(b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="))
        return None
    script.answer = answer
    with gate.connect() as s:
        s.sendall(UPGRADE)
        assert Reader(s).response().status == 502


def test_a_refused_upgrade_stays_http(liar):
    gate, _, script = liar
    script.answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"
    with gate.connect() as s:
        reader = Reader(s)
        s.sendall(UPGRADE + b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.response().status == 400
        assert reader.response().body == b"OK"
