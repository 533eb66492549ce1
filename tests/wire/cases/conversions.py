"""What becomes of a request and its answer between HTTP/1.1 and HTTP/2, in all four pairings of client and
upstream: one table of data; the runner is test_conversions.py. Nothing that is invalid in one version comes
out valid in the other, and what is valid means the same in both.

    ask     what a client sends: an Ask, which is put into either version, or a dict of raw bytes by version
    gets    what the upstream must receive: a Got; UNFINISHED: no whole request; NOTHING: not even a part of one
    answer  what the upstream says: an Answer, or a dict of raw bytes by version
    sees    what the client must receive: a Seen; Refused: an error of ours, or the end of the stream

Raw bytes of HTTP/2 are the frames of stream 1; a Cut ends behind them. A case whose dict lacks a version runs
for the other alone.
"""
from dataclasses import dataclass, field

from h2wire import asked, block, data, headers, literal, rst

PATH = "/c"


@dataclass
class Ask:
    method: str = "GET"
    path: str = PATH
    fields: tuple = ()
    body: bytes = None
    length: bool = False  # Content-Length is told; else chunks, or DATA until its end
    trailers: tuple = ()
    authority: str = "x.example"


@dataclass
class Got:
    """Fields are all there are, names in lower case, but for Host, Via, forwarding and framing."""
    method: str = "GET"
    path: str = PATH
    fields: tuple = ()
    body: bytes = b""
    trailers: tuple = ()
    length: int = None  # Content-Length, when it has to be told
    host: str = "x.example"
    te: bool = None  # whether "te: trailers" comes; None: it may


@dataclass
class Answer:
    status: int = 200
    fields: tuple = ()
    body: bytes = None
    length: bool = False  # as in Ask
    close: bool = False  # of HTTP/1.1: the connection's end is the content's
    trailers: tuple = ()
    interim: tuple = ()  # (status, fields) of each


@dataclass
class Seen:
    """Fields are all there are, names in lower case, but for Date, Via and framing."""
    status: int = 200
    fields: tuple = ()
    body: bytes = b""
    trailers: tuple = ()
    interim: tuple = ()
    length: int = None


@dataclass
class Refused:
    """`statuses`: an answer of ours; or the stream (in HTTP/1.1 the connection) ends without a whole one."""
    statuses: tuple = ()
    ends: bool = True


@dataclass
class Cut:
    """These bytes, and the end: of the connection in HTTP/1.1, by RST_STREAM in HTTP/2."""
    sent: bytes


UNFINISHED, NOTHING = "unfinished", "nothing"
# What a client sees that has left.
LEFT = "left"


@dataclass
class Case:
    name: str
    ask: object = field(default_factory=Ask)
    gets: object = field(default_factory=Got)
    answer: object = field(default_factory=Answer)
    sees: object = field(default_factory=Seen)


TABLE = []


def case(name, ask=None, gets=None, answer=None, sees=None):
    """What is not told is a GET and an empty 200."""
    TABLE.append(Case(name, ask or Ask(), gets or Got(), answer or Answer(), sees or Seen()))


def asks(name, ask, gets):
    case(f"request: {name}", ask=ask, gets=gets)


def answers(name, answer, sees, ask=None, gets=None):
    case(f"answer: {name}", ask=ask, gets=gets, answer=answer, sees=sees)


def head(line, *lines):
    return b"\r\n".join([line, b"Host: x.example", *lines, b"", b""])


def get(*lines):
    return head(b"GET /c HTTP/1.1", *lines)


def post(*lines):
    return head(b"POST /c HTTP/1.1", *lines)


def section(*fields, **more):
    more.setdefault("authority", b"x.example")
    return asked(b"/c", *fields, **more)


def bad_ask(name, h1=None, h2=None, statuses=(400,), gets=NOTHING):
    raw = {version: sent for version, sent in (("h1", h1), ("h2", h2)) if sent is not None}
    case(f"bad request: {name}", ask=raw, gets=gets, sees=Refused(statuses))


def bad_field(name, h1_line=None, h2_field=None, statuses=(400,)):
    bad_ask(name, get(h1_line) if h1_line is not None else None,
            headers(section(h2_field)) if h2_field is not None else None, statuses)


def bad_answer(name, h1=None, h2=None, ends=False):
    """502, or when `ends` an answer that does not come to its end."""
    raw = {version: sent for version, sent in (("h1", h1), ("h2", h2)) if sent is not None}
    case(f"bad answer: {name}", answer=raw, sees=Refused((502,), ends))


# ---- requests: what passes ----

asks("no content", Ask(), Got())
asks("another method", Ask("PROPFIND"), Got("PROPFIND"))
asks("a query", Ask(path="/c?a=b&c=%zz|{}"), Got(path="/c?a=b&c=%zz|{}"))
asks("a path that is not in normal form", Ask(path="/x/../c/%7e/./%2f"), Got(path="/c/~/%2F"))
asks("two slashes", Ask(path="//c//d"), Got(path="//c//d"))
asks("an authority with a port", Ask(authority="x.example:8080"), Got(host="x.example:8080"))
asks("an address as authority", Ask(authority="[::1]:81"), Got(host="[::1]:81"))
asks("content of a known length", Ask("POST", body=b"hello", length=True), Got("POST", body=b"hello", length=5))
asks("content of an unknown length", Ask("POST", body=b"hello"), Got("POST", body=b"hello"))
asks("no content, of a known length", Ask("POST", body=b"", length=True), Got("POST", length=0))
asks("no content, of an unknown length", Ask("POST", body=b""), Got("POST"))
asks("content of a GET", Ask(body=b"x", length=True), Got(body=b"x", length=1))
asks("content that looks like a request", Ask("POST", body=b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"),
     Got("POST", body=b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"))
asks("content that looks like chunks", Ask("POST", body=b"0\r\n\r\n", length=True),
     Got("POST", body=b"0\r\n\r\n", length=5))
asks("large content", Ask("POST", body=b"0123456789" * 30000), Got("POST", body=b"0123456789" * 30000))
asks("large content of a known length", Ask("POST", body=b"0123456789" * 30000, length=True),
     Got("POST", body=b"0123456789" * 30000, length=300000))
asks("trailers", Ask("POST", body=b"hello", trailers=(("X-T", "1"), ("x-u", "a b"))),
     Got("POST", body=b"hello", trailers=(("x-t", "1"), ("x-u", "a b"))))
asks("trailers without content", Ask("POST", body=b"", trailers=(("X-T", "1"),)),
     Got("POST", trailers=(("x-t", "1"),)))
asks("trailers that frame, route or vouch",
     Ask("POST", body=b"x", trailers=(("Content-Length", "9"), ("Host", "evil"), ("Authorization", "e"),
                                      ("X-Forwarded-For", "6.6.6.6"), ("X_Real_IP", "6.6.6.6"),
                                      ("Cookie", "a"), ("X-T", "1"))),
     Got("POST", body=b"x", trailers=(("x-t", "1"),)))
asks("names in any case", Ask(fields=(("X-UPPER", "A"), ("x-lower", "b"), ("X!#$%&'*+-.^`|~9", "c"))),
     Got(fields=(("x-upper", "A"), ("x-lower", "b"), ("x!#$%&'*+-.^`|~9", "c"))))
asks("a name with _", Ask(fields=(("x_own", "1"),)), Got(fields=(("x_own", "1"),)))
asks("order and repetition", Ask(fields=(("x-b", "1"), ("x-a", "2"), ("x-b", "3"))),
     Got(fields=(("x-b", "1"), ("x-a", "2"), ("x-b", "3"))))
asks("an empty value", Ask(fields=(("x-a", ""),)), Got(fields=(("x-a", ""),)))
asks("tabs and 8-bit in a value", Ask(fields=(("x-a", "a\tb \xe9\xff c"),)),
     Got(fields=(("x-a", "a\tb \xe9\xff c"),)))
asks("a long value", Ask(fields=(("x-a", "v" * 9000),)), Got(fields=(("x-a", "v" * 9000),)))
asks("many fields", Ask(fields=tuple((f"x-{i}", str(i)) for i in range(80))),
     Got(fields=tuple((f"x-{i}", str(i)) for i in range(80))))
asks("a cookie", Ask(fields=(("Cookie", "a=b; c=d"),)), Got(fields=(("cookie", "a=b; c=d"),)))
asks("Authorization", Ask(fields=(("Authorization", "Bearer x"),)), Got(fields=(("authorization", "Bearer x"),)))
asks("Expect", Ask("POST", fields=(("Expect", "100-continue"),), body=b"x", length=True),
     Got("POST", fields=(("expect", "100-continue"),), body=b"x", length=1))
asks("HEAD", Ask("HEAD"), Got("HEAD"))
asks("crumbs of a cookie are one", {"h2": headers(section((b"cookie", b"a=b"), (b"x-a", b"1"), (b"cookie", b""),
                                                          (b"cookie", b"c=d")))},
     Got(fields=(("cookie", "a=b; c=d"), ("x-a", "1"))))
asks("the target's authority wins", {"h1": b"GET http://y.example/c HTTP/1.1\r\nHost: x.example\r\n\r\n"},
     Got(host="y.example"))
asks("Host alone", {"h2": headers(section((b"host", b"x.example"), authority=None))}, Got())
asks("Host as :authority says", {"h2": headers(section((b"host", b"X.Example:80")))}, Got())
asks("spaces around values", {"h1": get(b"X-A:\t a b \t")}, Got(fields=(("x-a", "a b"),)))
asks("fields of the connection stay on it",
     {"h1": get(b"Connection: keep-alive, X-Mine, TE", b"X-Mine: 1", b"Keep-Alive: timeout=5",
                b"Proxy-Connection: keep-alive", b"TE: gzip", b"X-A: 1")}, Got(fields=(("x-a", "1"),)))
asks("an upgrade to HTTP/2 is not passed on",
     {"h1": get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")}, Got())
asks("HTTP2-Settings is not passed on", {"h2": headers(section((b"http2-settings", b"AAMAAABkAAQAAP__")))}, Got())
asks("who takes trailers is asked for them",
     {"h1": get(b"TE: trailers", b"Connection: TE"), "h2": headers(section((b"te", b"trailers")))}, Got(te=True))
asks("Priority is for whoever answers", Ask(fields=(("Priority", "u=1, i"),)), Got(fields=(("priority", "u=1, i"),)))
asks("chunk extensions are dropped",
     {"h1": post(b"Transfer-Encoding: chunked") + b"5;a=b\r\nhello\r\n0\r\n\r\n"}, Got("POST", body=b"hello"))
asks("HTTP/1.0 is told as the version of this hop", {"h1": b"GET /c HTTP/1.0\r\nHost: x.example\r\n\r\n"}, Got())

# ---- requests: what does not pass ----

for byte in b"\0\r\n\x01\x7f":
    bad_field(f"{byte:#04x} in a value", b"X-A: a%cb" % byte if byte != 10 else None, (b"x-a", b"a%cb" % byte))
    bad_field(f"{byte:#04x} in a name", b"X-%cA: b" % byte if byte != 10 else None, (b"x-%ca" % byte, b"b"))
bad_field("a field hidden in a value", None, (b"x-a", b"a\r\nx-evil: 1"))
bad_field("a request hidden in a value", None, (b"x-a", b"a\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n"))
bad_field("a field hidden in a name", None, (b"x-a: 1\r\nx-evil", b"1"))
bad_field("a space in a name", b"X A: b", (b"x a", b"b"))
bad_field("a space behind a name", b"X-A : b", (b"x-a ", b"b"))
bad_field("an empty name", b": b", (b"", b"b"))
bad_field("a folded line", b"X-A: a\r\n b", None)
bad_field("upper case in HTTP/2", None, (b"X-A", b"b"))
bad_field("a space before a value in HTTP/2", None, (b"x-a", b" b"))
bad_field("a space behind a value in HTTP/2", None, (b"x-a", b"b "))
for name, value in ((b"connection", b"close"), (b"keep-alive", b"5"), (b"proxy-connection", b"x"),
                    (b"transfer-encoding", b"chunked"), (b"upgrade", b"websocket"), (b"te", b"gzip")):
    bad_field(f"{name.decode()} in HTTP/2", None, (name, value))
bad_field("a pseudo-field in HTTP/1.1", b":path: /evil", None)
bad_field("two Hosts", b"Host: y.example", None)
bad_field("Host that differs from :authority", None, (b"host", b"y.example"))
bad_field("an unknown expectation", b"Expect: x", (b"expect", b"x"), (417,))
for value in (b"", b"+1", b"0x1", b"1, 1", b"1 1", b"99999999999999999999"):
    bad_field(f"a length of {value!r}", b"Content-Length: " + value, (b"content-length", value))
bad_ask("two lengths", post(b"Content-Length: 1", b"Content-Length: 1") + b"x",
        headers(section((b"content-length", b"1"), (b"content-length", b"1"), method=b"POST"), end=False) + data(b"x"))
bad_ask("length and chunks", post(b"Content-Length: 1", b"Transfer-Encoding: chunked") + b"0\r\n\r\n")
bad_ask("a coding that is not known", post(b"Transfer-Encoding: gzip"), statuses=(501,))
bad_ask("chunked in HTTP/1.0", b"POST /c HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
bad_ask("no authority", b"GET /c HTTP/1.1\r\n\r\n", headers(section(authority=None)))
for authority in (b"u@x", b"x:0", b"x:", b"x/y", b"[::1", b""):
    bad_ask(f"an authority of {authority!r}", b"GET /c HTTP/1.1\r\nHost: %s\r\n\r\n" % authority,
            headers(section(authority=authority)))
for path in (b"/c d", b"/c#d", b"/c\\d", b"/%00", b"/%", b"/\xe9", b"c", b"*"):
    bad_ask(f"a target of {path!r}", head(b"GET %s HTTP/1.1" % path),
            headers(asked(path, authority=b"x.example")))
bad_ask("an empty target", None, headers(asked(b"", authority=b"x.example")))
bad_ask("a target with a line in it", None, headers(asked(b"/c HTTP/1.1\r\nX-Evil: 1", authority=b"x.example")))
bad_ask("a method with a space", b"GE T /c HTTP/1.1\r\nHost: x\r\n\r\n", headers(section(method=b"GE T")))
bad_ask("a method with a line in it", None, headers(section(method=b"GET / HTTP/1.1\r\nX: ")))
bad_ask("a scheme with a line in it", None, headers(section(scheme=b"http\r\nx")))
bad_ask("an authority with a line in it", None, headers(section(authority=b"x\r\nx-evil: 1")))
bad_ask("CONNECT without a tunnel", b"CONNECT x.example:80 HTTP/1.1\r\nHost: x.example:80\r\n\r\n",
        headers(block((b":method", b"CONNECT"), (b":authority", b"x.example:80"))), statuses=(404, 405, 501))
bad_ask("a line feed in a chunk's size", post(b"Transfer-Encoding: chunked") + b"1\nx\r\n0\r\n\r\n", gets=UNFINISHED)
bad_ask("a chunk longer than it says", post(b"Transfer-Encoding: chunked") + b"1\r\nxyz\r\n0\r\n\r\n", gets=UNFINISHED)
bad_ask("a size that is none", post(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n-1\r\n\r\n", gets=UNFINISHED)
bad_ask("a trailer that is no field", post(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nX T: 1\r\n\r\n",
        headers(section(method=b"POST"), end=False) + data(b"x", end=False) + headers(block((b"x t", b"1"))),
        gets=UNFINISHED)
bad_ask("a line in a trailer", None,
        headers(section(method=b"POST"), end=False) + data(b"x", end=False) + headers(block((b"x-t", b"1\r\nx: y"))),
        gets=UNFINISHED)
bad_ask("a pseudo-field in trailers", post(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n:path: /\r\n\r\n",
        headers(section(method=b"POST"), end=False) + data(b"x", end=False) + headers(block((b":path", b"/"))),
        gets=UNFINISHED)
bad_ask("less content than told", None,
        headers(section((b"content-length", b"5"), method=b"POST"), end=False) + data(b"hell"), gets=UNFINISHED)
bad_ask("more content than told", None,
        headers(section((b"content-length", b"5"), method=b"POST"), end=False) + data(b"hello!"), gets=UNFINISHED)
bad_ask("a length and no content", None, headers(section((b"content-length", b"5"), method=b"POST")), gets=UNFINISHED)
case("left within the head", ask={"h1": Cut(b"GET /c HTTP/1.1\r\nHost: x.example\r\nX-A: ")}, gets=NOTHING, sees=LEFT)
case("left within content", gets=UNFINISHED, sees=LEFT, ask={
    "h1": Cut(post(b"Content-Length: 5") + b"hel"),
    "h2": Cut(headers(section((b"content-length", b"5"), method=b"POST"), end=False) + data(b"hel", end=False))})
case("left within content of unknown length", gets=UNFINISHED, sees=LEFT, ask={
    "h1": Cut(post(b"Transfer-Encoding: chunked") + b"3\r\nhel\r\n"),
    "h2": Cut(headers(section(method=b"POST"), end=False) + data(b"hel", end=False))})
case("left within trailers", gets=UNFINISHED, sees=LEFT, ask={
    "h1": Cut(post(b"Transfer-Encoding: chunked") + b"3\r\nhel\r\n0\r\nX-T: 1\r\n"),
    "h2": Cut(headers(section(method=b"POST"), end=False) + data(b"hel", end=False))})

# ---- answers: what passes ----

answers("content of a known length", Answer(body=b"hello", length=True), Seen(body=b"hello", length=5))
answers("content of an unknown length", Answer(body=b"hello"), Seen(body=b"hello"))
answers("no content, of an unknown length", Answer(body=b""), Seen())
answers("large content", Answer(body=b"0123456789" * 30000), Seen(body=b"0123456789" * 30000))
answers("large content of a known length", Answer(body=b"0123456789" * 30000, length=True),
        Seen(body=b"0123456789" * 30000, length=300000))
answers("content until the connection's end", Answer(body=b"hello", close=True), Seen(body=b"hello"))
answers("trailers", Answer(body=b"hello", trailers=(("X-T", "1"),)), Seen(body=b"hello", trailers=(("x-t", "1"),)))
answers("trailers without content", Answer(body=b"", trailers=(("grpc-status", "0"),)),
        Seen(trailers=(("grpc-status", "0"),)))
answers("trailers that frame", Answer(body=b"x", trailers=(("Content-Length", "9"), ("Set-Cookie", "a"), ("X-T", "1"))),
        Seen(body=b"x", trailers=(("x-t", "1"),)))
answers("of HEAD, with the length that GET has", Answer(fields=(("content-length", "77"),)), Seen(length=77),
        ask=Ask("HEAD"), gets=Got("HEAD"))
answers("204", Answer(204), Seen(204))
answers("304 with a validator", Answer(304, (("etag", '"x"'),)), Seen(304, (("etag", '"x"'),)))
answers("an error", Answer(503, (("Retry-After", "5"),), b"busy", True), Seen(503, (("retry-after", "5"),), b"busy"))
answers("a status that nobody knows", Answer(599, body=b"x"), Seen(599, body=b"x"))
answers("hints before it", Answer(body=b"x", interim=((103, (("link", "</a>"),)), (103, (("link", "</b>"),)))),
        Seen(body=b"x", interim=((103, (("link", "</a>"),)), (103, (("link", "</b>"),)))))
answers("names in any case", Answer(fields=(("X-UPPER", "A"), ("x!#$%&'*+-.^_`|~9", "c"))),
        Seen(fields=(("x-upper", "A"), ("x!#$%&'*+-.^_`|~9", "c"))))
answers("cookies stay apart", Answer(fields=(("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"))),
        Seen(fields=(("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2"))))
answers("tabs, 8-bit and nothing in values", Answer(fields=(("x-a", "a\tb \xe9\xff c"), ("x-b", ""))),
        Seen(fields=(("x-a", "a\tb \xe9\xff c"), ("x-b", ""))))
answers("a long value", Answer(fields=(("x-a", "v" * 9000),)), Seen(fields=(("x-a", "v" * 9000),)))
answers("fields of the connection stay on it",
        {"h1": b"HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n"
               b"Proxy-Connection: x\r\nUpgrade: h2c\r\nContent-Length: 1\r\nX-A: 1\r\n\r\nx"},
        Seen(fields=(("x-a", "1"),), body=b"x"))
answers("a reason is nobody's business", {"h1": b"HTTP/1.1 200 Fine \xe9\r\nContent-Length: 0\r\n\r\n"}, Seen())
answers("an empty DATA at the end",
        {"h2": headers(block((b":status", b"200")), end=False) + data(b"hello", end=False) + data()},
        Seen(body=b"hello"))
answers("padding is no content",
        {"h2": headers(block((b":status", b"200")), end=False, pad=9) + data(b"hello", pad=200)}, Seen(body=b"hello"))

# ---- answers: what does not pass ----

for byte in b"\0\r\x01\x7f":
    bad_answer(f"{byte:#04x} in a value", b"HTTP/1.1 200 OK\r\nX-A: a%cb\r\nContent-Length: 0\r\n\r\n" % byte,
               headers(block((b":status", b"200"), (b"x-a", b"a%cb" % byte))))
bad_answer("a field hidden in a value", None, headers(block((b":status", b"200"), (b"x-a", b"a\r\nset-cookie: evil"))))
bad_answer("a bare line feed", b"HTTP/1.1 200 OK\r\nX-A: a\nSet-Cookie: evil\r\nContent-Length: 0\r\n\r\n")
bad_answer("a folded line", b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n")
bad_answer("a space behind a name", b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
           headers(block((b":status", b"200"), (b"x-a ", b"b"))))
bad_answer("an empty name", b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
           headers(block((b":status", b"200"), (b"", b"b"))))
bad_answer("upper case in HTTP/2", None, headers(block((b":status", b"200"), (b"X-A", b"b"))))
for name, value in ((b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"upgrade", b"x"),
                    (b"keep-alive", b"5"), (b"proxy-connection", b"x")):
    bad_answer(f"{name.decode()} in HTTP/2", None, headers(block((b":status", b"200"), (name, value))))
bad_answer("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
           headers(block((b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"1")), end=False)
           + data(b"x"))
bad_answer("a length that is none", b"HTTP/1.1 200 OK\r\nContent-Length: 1,1\r\n\r\nx",
           headers(block((b":status", b"200"), (b"content-length", b"1,1")), end=False) + data(b"x"))
bad_answer("length and chunks",
           b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
bad_answer("no status", b"HTTP/1.1 OK\r\n\r\n", headers(block((b"x-a", b"b"))))
for status in (b"", b"20", b"2000", b"099", b"2x0"):
    bad_answer(f"a status of {status!r}", b"HTTP/1.1 %s OK\r\nContent-Length: 0\r\n\r\n" % status,
               headers(block((b":status", status))))
bad_answer("a status twice", None, headers(block((b":status", b"200"), (b":status", b"200"))))
bad_answer("a request's pseudo-field", None, headers(block((b":status", b"200"), (b":path", b"/"))))
bad_answer("a late pseudo-field", None, headers(block((b"x-a", b"b"), (b":status", b"200"))))
bad_answer("101 that nobody asked for",
           b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
           headers(block((b":status", b"101"))))
bad_answer("content before the head", None, data(b"x"))
bad_answer("the stream is reset", None, rst())
bad_answer("an interim answer that ends", None, headers(block((b":status", b"103"))))
bad_answer("a broken section", None, headers(literal(b":status", b"200") + b"\xbf"))
for name, h1, h2 in (
        ("a bad chunk", b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n", None),
        ("a bad trailer", b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX T: 1\r\n\r\n",
         data(b"x", end=False) + headers(block((b"x t", b"1")))),
        ("a pseudo-field in trailers", None, data(b"x", end=False) + headers(block((b":status", b"200")))),
        ("trailers that do not end", None, data(b"x", end=False) + headers(block((b"x-t", b"1")), end=False)),
        ("the stream is reset within content", None, data(b"x", end=False) + rst())):
    bad_answer(name, h1 and b"HTTP/1.1 200 OK\r\n" + h1,
               h2 and headers(block((b":status", b"200")), end=False) + h2, ends=True)
bad_answer("less content than told", None,
           headers(block((b":status", b"200"), (b"content-length", b"5")), end=False) + data(b"hell"), ends=True)
bad_answer("more content than told", None,
           headers(block((b":status", b"200"), (b"content-length", b"5")), end=False) + data(b"hello!"), ends=True)
bad_answer("cut within its head", Cut(b"HTTP/1.1 200 OK\r\nX-A: "))
bad_answer("cut before its head", Cut(b""), Cut(b""))
bad_answer("cut within content", Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"),
           Cut(headers(block((b":status", b"200"), (b"content-length", b"5")), end=False) + data(b"hel", end=False)),
           ends=True)
bad_answer("cut within chunks", Cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"),
           Cut(headers(block((b":status", b"200")), end=False) + data(b"hel", end=False)), ends=True)
bad_answer("cut before the last chunk's end",
           Cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\nX-T: 1\r\n"), None, ends=True)

# ---- tunnels: a WebSocket as RFC 6455 asks for it, or as RFC 8441 ----

@dataclass
class Tunnel:
    """upstream: "agrees"; "refuses" (403); "lies": 101 with another key's proof; "ignores": 200 without a
    tunnel; "knows none": HTTP/2 without SETTINGS_ENABLE_CONNECT_PROTOCOL.
    sees: by the client's version, the status; 0: the tunnel."""
    name: str
    upstream: str
    version: tuple
    sees: dict


TUNNELS = [
    Tunnel("agreed to", "agrees", ("h1", "h2"), {"h1": 0, "h2": 0}),
    Tunnel("refused", "refuses", ("h1", "h2"), {"h1": 403, "h2": 403}),
    Tunnel("the proof of another key", "lies", ("h1",), {"h1": 502, "h2": 502}),
    Tunnel("an ordinary answer", "ignores", ("h1",), {"h1": 200, "h2": 502}),
    Tunnel("not known there", "knows none", ("h2",), {"h1": 502, "h2": 502}),
]
