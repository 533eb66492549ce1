"""THREATS.md, HTTP/1 framing: one table of bytes in and verdicts, on both backends, whole and byte by
byte; and what of it reaches an upstream: nothing that is malformed, nothing framed in two ways."""
from dataclasses import dataclass

import pytest
from gate import Gate, Reader, Upstream, ok

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], limits: {idle_timeout: 20s}}
routes:
  "/fixed": OK OK
  "/echo": "*"
  "/up/*": "http://127.0.0.1:%d/*"
"""
PROBE = b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Case:
    name: str
    rfc: str
    send: bytes
    want: list  # statuses, in order
    closes: bool
    method: str = "GET"


def good(name, rfc, send, *want, method="GET"):
    return Case(name, rfc, send, list(want or [200]), False, method)


def bad(name, rfc, send, want=400):
    return Case(name, rfc, send, [want], True)


def post(headers, body=b"", path=b"/up/p", version=b"1.1"):
    return b"POST %s HTTP/%s\r\nHost: x\r\n%s\r\n%s" % (path, version, headers, body)


def get(headers=b"", target=b"/up/g", host=b"Host: x\r\n", version=b"HTTP/1.1"):
    return b"GET %s %s\r\n%s%s\r\n" % (target, version, host, headers)


CL, TE = b"Content-Length: ", b"Transfer-Encoding: "
CHUNKED = TE + b"chunked\r\n"

CASES = [
    # ---- plain good ones, so that a refusal of everything is seen ----
    good("get", "9112 2.1", get()),
    good("get, many fields", "9112 5", get(b"".join(b"X-%d: v\r\n" % i for i in range(90)))),
    good("post with length", "9112 6.2", post(CL + b"5\r\n", b"hello")),
    good("post with length 0", "9112 6.2", post(CL + b"0\r\n")),
    good("post with leading zeros", "9110 8.6", post(CL + b"0005\r\n", b"hello")),
    good("post chunked", "9112 7.1", post(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n")),
    good("chunked, any case", "9110 2.1", post(TE + b"Chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")),
    good("chunk extension", "9112 7.1.1", post(CHUNKED, b"5;a=b\r\nhello\r\n0\r\n\r\n")),
    good("trailer", "9112 7.1.2", post(CHUNKED, b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")),
    good("chunk size in capitals and zeros", "9112 7.1",
         post(CHUNKED, b"000A\r\n0123456789\r\n0\r\n\r\n")),
    good("one empty line before", "9112 2.2", b"\r\n" + get()),
    good("two pipelined", "9112 9.3", get() + get(), 200, 200),
    good("three pipelined with content", "9112 9.3",
         post(CL + b"5\r\n", b"hello") + post(CHUNKED, b"1\r\nx\r\n0\r\n\r\n") + get(), 200, 200, 200),
    good("absolute-form", "9112 3.2.2", get(target=b"http://other.example/up/g")),
    good("value with tabs and obs-text", "9110 5.5", get(b"X-A: \t a\tb \xe9 \r\n")),
    good("empty value", "9110 5.5", get(b"X-A:\r\n")),
    good("OWS around the value", "9112 5.1", get(b"X-A:v\r\nX-B:   v   \r\n")),
    good("escaped 8-bit in the target", "3986 2.1", get(target=b"/up/%C3%A9")),
    good("HTTP/1.2 is read as 1.1", "9110 2.5", get(version=b"HTTP/1.2")),
    good("OPTIONS *", "9110 9.3.7", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 204, method="OPTIONS"),
    Case("HTTP/1.0 closes", "9112 9.3", b"GET /up/g HTTP/1.0\r\n\r\n", [200], True),
    good("HTTP/1.0 keep-alive", "9112 C.2.2", b"GET /up/g HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    Case("close is honoured", "9112 9.6", get(b"Connection: close\r\n"), [200], True),
    Case("close among others", "9110 7.6.1", get(b"Connection: foo, CLOSE\r\n"), [200], True),
    # ---- Content-Length ----
    bad("two equal lengths", "9112 6.3", post(CL + b"5\r\n" + CL + b"5\r\n", b"hello")),
    bad("two differing lengths", "9112 6.3", post(CL + b"5\r\n" + CL + b"6\r\n", b"hello!")),
    bad("length list", "9112 6.3", post(CL + b"5, 5\r\n", b"hello")),
    bad("length with plus", "9112 6.3", post(CL + b"+5\r\n", b"hello")),
    bad("length with minus", "9112 6.3", post(CL + b"-5\r\n", b"hello")),
    bad("length in hex", "9112 6.3", post(CL + b"0x5\r\n", b"hello")),
    bad("empty length", "9112 6.3", post(CL + b"\r\n", b"hello")),
    bad("length with space inside", "9112 6.3", post(CL + b"1 0\r\n", b"0123456789")),
    bad("length overflows 64 bits", "9112 6.3", post(CL + b"18446744073709551621\r\n", b"hello")),
    bad("length overflows 20 digits", "9112 6.3", post(CL + b"99999999999999999999\r\n", b"hello")),
    bad("length with letter", "9112 6.3", post(CL + b"5a\r\n", b"hello")),
    bad("length with comma", "9112 6.3", post(CL + b"5,\r\n", b"hello")),
    bad("length in quotes", "9112 6.3", post(CL + b'"5"\r\n', b"hello")),
    bad("length as float", "9112 6.3", post(CL + b"5.0\r\n", b"hello")),
    bad("length with vertical tab", "9112 6.3", post(CL + b"\x0b5\r\n", b"hello")),
    # ---- Transfer-Encoding ----
    bad("length and chunked", "9112 6.3", post(CL + b"5\r\n" + CHUNKED, b"0\r\n\r\n")),
    bad("chunked and length", "9112 6.3", post(CHUNKED + CL + b"5\r\n", b"0\r\n\r\n")),
    bad("xchunked", "9112 6.1", post(TE + b"xchunked\r\n", b"0\r\n\r\n"), 501),
    bad("gzip", "9112 6.1", post(TE + b"gzip\r\n", b"0\r\n\r\n"), 501),
    bad("identity", "9112 6.1", post(TE + b"identity\r\n", b"0\r\n\r\n"), 501),
    bad("chunked twice in a list", "9112 6.1", post(TE + b"chunked, chunked\r\n", b"0\r\n\r\n")),
    bad("chunked in two fields", "9112 6.1", post(CHUNKED + CHUNKED, b"0\r\n\r\n")),
    bad("chunked not last", "9112 6.1", post(TE + b"chunked, identity\r\n", b"0\r\n\r\n")),
    bad("gzip, chunked", "9112 6.1", post(TE + b"gzip, chunked\r\n", b"0\r\n\r\n"), None),
    bad("quoted", "9112 6.1", post(TE + b'"chunked"\r\n', b"0\r\n\r\n"), None),
    bad("chunked with parameter", "9112 6.1", post(TE + b"chunked;q=1\r\n", b"0\r\n\r\n"), None),
    bad("empty coding", "9112 6.1", post(TE + b"\r\n", b"0\r\n\r\n")),
    bad("leading comma", "9112 6.1", post(TE + b", chunked\r\n", b"0\r\n\r\n")),
    bad("vertical tab before", "9112 6.1", post(TE + b"\x0bchunked\r\n", b"0\r\n\r\n")),
    bad("NUL after", "9112 6.1", post(TE + b"chunked\0\r\n", b"0\r\n\r\n")),
    bad("coding in HTTP/1.0", "9112 6.1", post(CHUNKED, b"0\r\n\r\n", version=b"1.0")),
    bad("space before the colon", "9112 5.1", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n")),
    bad("folded coding", "9112 5.2", post(TE + b"\r\n chunked\r\n", b"0\r\n\r\n")),
    # ---- chunks ----
    bad("bare LF after size", "9112 7.1", post(CHUNKED, b"5\nhello\r\n0\r\n\r\n")),
    bad("bare LF after data", "9112 7.1", post(CHUNKED, b"5\r\nhello\n0\r\n\r\n")),
    bad("bare LF at the end", "9112 7.1", post(CHUNKED, b"0\r\n\n")),
    bad("bare CR after size", "9112 7.1", post(CHUNKED, b"5\rhello\r\n0\r\n\r\n")),
    bad("empty size", "9112 7.1", post(CHUNKED, b"\r\nhello\r\n0\r\n\r\n")),
    bad("size with sign", "9112 7.1", post(CHUNKED, b"+5\r\nhello\r\n0\r\n\r\n")),
    bad("size with minus", "9112 7.1", post(CHUNKED, b"-5\r\nhello\r\n0\r\n\r\n")),
    bad("size with 0x", "9112 7.1", post(CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n")),
    bad("size with space before", "9112 7.1", post(CHUNKED, b" 5\r\nhello\r\n0\r\n\r\n")),
    bad("size overflows", "9112 7.1", post(CHUNKED, b"10000000000000005\r\nhello\r\n0\r\n\r\n")),
    bad("size of letters", "9112 7.1", post(CHUNKED, b"xyz\r\nhello\r\n0\r\n\r\n")),
    bad("too much data", "9112 7.1", post(CHUNKED, b"4\r\nhello\r\n0\r\n\r\n")),
    bad("extension with LF", "9112 7.1.1", post(CHUNKED, b"5;a\nb\r\nhello\r\n0\r\n\r\n")),
    bad("extension with NUL", "9112 7.1.1", post(CHUNKED, b"5;a\0b\r\nhello\r\n0\r\n\r\n")),
    bad("extension with bare CR", "9112 7.1.1", post(CHUNKED, b"5;a\rb\r\nhello\r\n0\r\n\r\n")),
    bad("extension without end", "9112 7.1.1", post(CHUNKED, b"5;" + b"a" * 5000 + b"\r\nhello\r\n")),
    bad("trailer with bare LF", "9112 7.1.2", post(CHUNKED, b"0\r\nX: 1\n\r\n")),
    bad("trailer without colon", "9112 7.1.2", post(CHUNKED, b"0\r\nXYZ\r\n\r\n")),
    bad("trailer folded", "9112 5.2", post(CHUNKED, b"0\r\nX: 1\r\n y\r\n\r\n")),
    # ---- lines and fields ----
    bad("bare LF after the request line", "9112 2.2", b"GET /up/g HTTP/1.1\nHost: x\r\n\r\n"),
    bad("bare LF after a field", "9112 2.2", b"GET /up/g HTTP/1.1\r\nHost: x\n\r\n"),
    bad("bare LF at the end", "9112 2.2", b"GET /up/g HTTP/1.1\r\nHost: x\r\n\n"),
    bad("bare CR in a value", "9112 2.2", get(b"X-A: a\rb\r\n")),
    bad("bare CR in the request line", "9112 2.2", b"GET /up/g\r HTTP/1.1\r\nHost: x\r\n\r\n"),
    bad("fold", "9112 5.2", get(b"X-A: a\r\n b\r\n")),
    bad("fold with tab", "9112 5.2", get(b"X-A: a\r\n\tb\r\n")),
    bad("fold as first field", "9112 2.2", b"GET /up/g HTTP/1.1\r\n Host: x\r\n\r\n"),
    bad("space before colon", "9112 5.1", get(b"X-A : a\r\n")),
    bad("tab before colon", "9112 5.1", get(b"X-A\t: a\r\n")),
    bad("no colon", "9112 5", get(b"X-A\r\n")),
    bad("empty name", "9112 5", get(b": a\r\n")),
    bad("name with space", "9110 5.1", get(b"X A: a\r\n")),
    bad("name with parenthesis", "9110 5.1", get(b"X(A): a\r\n")),
    bad("name with slash", "9110 5.1", get(b"X/A: a\r\n")),
    bad("8-bit name", "9110 5.1", get(b"X-\xe9: a\r\n")),
    bad("NUL in name", "9110 5.1", get(b"X\0A: a\r\n")),
    bad("NUL in value", "9110 5.5", get(b"X-A: a\0b\r\n")),
    bad("control in value", "9110 5.5", get(b"X-A: a\x01b\r\n")),
    bad("DEL in value", "9110 5.5", get(b"X-A: a\x7fb\r\n")),
    bad("too many fields", "6585 5", get(b"".join(b"X-%d: v\r\n" % i for i in range(120))), 431),
    bad("fields too large", "6585 5", get(b"".join(b"X-%d: %s\r\n" % (i, b"v" * 1000)
                                                   for i in range(40))), 431),
    bad("one field too large", "6585 5", get(b"X-A: " + b"v" * 40000 + b"\r\n"), 431),
    bad("target too long", "9110 15.5.15", get(target=b"/up/" + b"a" * 9000), 414),
    bad("target without end", "9110 15.5.15", b"GET /" + b"a" * 20000, 414),
    # ---- request line ----
    bad("two empty lines before", "9112 2.2", b"\r\n\r\n" + get()),
    bad("LF before", "9112 2.2", b"\n" + get()),
    bad("space before", "9112 2.2", b" " + get()),
    bad("garbage", "9112 3", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    bad("method with control", "9110 9.1", b"G\x01T /up/g HTTP/1.1\r\nHost: x\r\n\r\n"),
    bad("method with colon", "9110 9.1", b"G:T /up/g HTTP/1.1\r\nHost: x\r\n\r\n"),
    bad("no target", "9112 3", b"GET HTTP/1.1\r\nHost: x\r\n\r\n"),
    bad("two spaces before target", "9112 3", b"GET  /up/g HTTP/1.1\r\nHost: x\r\n\r\n"),
    bad("two spaces before version", "9112 3", b"GET /up/g  HTTP/1.1\r\nHost: x\r\n\r\n"),
    bad("tab as separator", "9112 3", b"GET\t/up/g HTTP/1.1\r\nHost: x\r\n\r\n"),
    bad("space in target", "9112 3.2", b"GET /up/g h HTTP/1.1\r\nHost: x\r\n\r\n"),
    bad("space after version", "9112 3", b"GET /up/g HTTP/1.1 \r\nHost: x\r\n\r\n"),
    bad("no version (HTTP/0.9)", "9112 3", b"GET /up/g\r\n\r\n"),
    bad("lower-case version", "9112 2.3", get(version=b"http/1.1")),
    bad("version with two digits", "9112 2.3", get(version=b"HTTP/1.10")),
    bad("version without dot", "9112 2.3", get(version=b"HTTP/11")),
    bad("version with letter", "9112 2.3", get(version=b"HTTP/1.x")),
    bad("HTTP/2.0", "9110 15.6.6", get(version=b"HTTP/2.0"), 505),
    bad("HTTP/3.0", "9110 15.6.6", get(version=b"HTTP/3.0"), 505),
    bad("HTTP/0.9 spelled out", "9110 15.6.6", get(version=b"HTTP/0.9"), None),
    bad("8-bit in target", "3986 2", get(target=b"/up/\xc3\xa9")),
    bad("NUL in target", "3986 2", get(target=b"/up/a\0b")),
    bad("control in target", "3986 2", get(target=b"/up/a\x01b")),
    bad("DEL in target", "3986 2", get(target=b"/up/a\x7fb")),
    bad("escaped NUL", "3986 2.1", get(target=b"/up/a%00b")),
    bad("broken escape", "3986 2.1", get(target=b"/up/a%2")),
    bad("escape of non-hex", "3986 2.1", get(target=b"/up/a%zz")),
    bad("fragment", "9112 3.2", get(target=b"/up/a#b")),
    bad("relative target", "9112 3.2", get(target=b"up/a")),
    bad("asterisk for GET", "9112 3.2.4", get(target=b"*")),
    bad("authority for GET", "9112 3.2.3", get(target=b"x:80")),
    bad("absolute with other scheme", "9112 3.2.2", get(target=b"ftp://x/up/a")),
    bad("absolute without host", "9110 4.2.1", get(target=b"http:///up/a")),
    bad("absolute with user info", "9110 4.2.4", get(target=b"http://u:p@x/up/a")),
    # ---- Host ----
    bad("no Host", "9112 3.2", get(host=b"")),
    bad("two Hosts", "9112 3.2", get(host=b"Host: x\r\nHost: x\r\n")),
    bad("two Hosts that differ", "9112 3.2", get(host=b"Host: x\r\nHost: y\r\n")),
    bad("Host list", "9112 3.2", get(host=b"Host: x, y\r\n")),
    bad("Host with user info", "9110 7.2", get(host=b"Host: u@x\r\n")),
    bad("Host with bad port", "9110 7.2", get(host=b"Host: x:port\r\n")),
    bad("Host with port too high", "9110 7.2", get(host=b"Host: x:65536\r\n")),
    bad("Host with two ports", "9110 7.2", get(host=b"Host: x:80:80\r\n")),
    bad("Host with open bracket", "3986 3.2.2", get(host=b"Host: [::1\r\n")),
    bad("Host with bad address", "3986 3.2.2", get(host=b"Host: [::g]\r\n")),
    bad("Host with text after bracket", "3986 3.2.2", get(host=b"Host: [::1]x\r\n")),
    bad("Host with space", "9110 7.2", get(host=b"Host: x y\r\n")),
    bad("Host with slash", "9110 7.2", get(host=b"Host: x/y\r\n")),
    bad("Host with question mark", "9110 7.2", get(host=b"Host: x?y\r\n")),
    bad("Host with backslash", "9110 7.2", get(host=b"Host: x\\y\r\n")),
    bad("Host with hash", "9110 7.2", get(host=b"Host: x#y\r\n")),
    good("Host with port", "9110 7.2", get(host=b"Host: x:8080\r\n")),
    good("Host as IPv6", "9110 7.2", get(host=b"Host: [::1]:8080\r\n")),
    # ---- Expect, methods ----
    bad("other expectation", "9110 10.1.1", post(b"Expect: 200-ok\r\n" + CL + b"5\r\n"), 417),
    good("TRACE", "9110 9.3.8", b"TRACE /up/g HTTP/1.1\r\nHost: x\r\n\r\n", 405, method="TRACE"),
    Case("CONNECT", "9110 9.3.6", b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", [405], None,
         "CONNECT"),
]


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    with Upstream(lambda i, head: ok(b"up", b"X-Up: 1\r\n")) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % up.port, backend) as gate:
            yield gate, up


def run(gate, case, pieces):
    with gate.connect() as s:
        reader = Reader(s)
        try:
            for piece in pieces:
                s.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent
        got = [reader.response(case.method) for _ in case.want]
        for r, want in zip(got, case.want):
            assert want is None and r.status in (400, 501, 505) or r.status == want, r
        if case.closes is None:
            return
        if case.closes:
            assert got[-1].get("connection") == "close", got[-1]
            assert reader.at_end()
        else:
            s.sendall(PROBE)
            assert reader.response().body == b"OK"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_verdict(setup, case):
    gate, up = setup
    before = len(up.requests)
    run(gate, case, [case.send])
    seen = up.requests[before:]
    if case.closes and case.want[0] != 200:
        # A request refused for its head never arrives. One whose content turns out malformed may have
        # begun to, but never ends: the upstream must not take it for complete.
        if b"\r\n\r\n" not in case.send or case.send.index(b"\r\n\r\n") + 4 == len(case.send):
            assert seen == []
    for head in seen:
        fields = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]]
        framing = [f for f in fields if f in (b"content-length", b"transfer-encoding")]
        assert len(framing) <= 1 and fields.count(b"host") == 1, head


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_verdict_byte_by_byte(setup, case):
    gate, _ = setup
    if len(case.send) > 3000:
        pieces = [case.send[i:i + 997] for i in range(0, len(case.send), 997)]
    else:
        pieces = [case.send[i:i + 1] for i in range(len(case.send))]
    run(gate, case, pieces)


def test_table_is_large_and_unambiguous():
    names = [c.name for c in CASES]
    assert len(CASES) >= 130
    assert len({(c.name, c.send) for c in CASES}) == len(names)
