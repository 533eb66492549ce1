"""Upstreams of HTTP/2 that lie, die, or do odd but lawful things: what a client of HTTP/1.1 sees, and what the
upstream is told: nothing, RST_STREAM, or GOAWAY and the connection's end."""
from dataclasses import dataclass, field, replace

from h2wire import (E, F, S, T, block, continuation, data, frame, goaway, headers, indexed, integer, ping,
                    priority, priority_fields, rst, settings, table_size, window_update)

GIVEN_UP = (502, 503)
CUT = 0  # an answer that visibly breaks off
PROTOCOL, SIZE, FLOW, HPACK, CALM = (E.PROTOCOL_ERROR, E.FRAME_SIZE_ERROR, E.FLOW_CONTROL_ERROR,
                                     E.COMPRESSION_ERROR,
                                     E.ENHANCE_YOUR_CALM)
GET = b"GET /h2/l HTTP/1.1\r\nHost: x\r\n\r\n"
TRAILERS = b"GET /h2/l HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
HEAD = b"HEAD /h2/l HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /h2/l HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
OPEN = b"POST /h2/l HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc"  # more is never sent


@dataclass(frozen=True)
class Answer:
    """`send` holds frames of stream 1; the runner puts the request's number in place of it."""
    name: str
    send: bytes
    status: int  # what the client gets, or several of which it gets one; CUT
    body: bytes = None
    fields: dict = field(default_factory=dict)
    trailers: tuple = ()
    interim: tuple = ()
    ask: bytes = GET
    stopped: tuple = None  # codes of RST_STREAM that the upstream gets, or
    gone: tuple = None  # those of GOAWAY; None: neither
    again: bool = False  # the request is made once more, elsewhere, and answered by 200
    then: str = "wait"  # or "close"
    rfc: str = ""
    clause: str = ""


H2_ANSWERS = []


def clause(rfc, text, *answers):
    H2_ANSWERS.extend(replace(a, rfc=rfc, clause=text) for a in answers)


def head(*fields, status=b"200", end=False, **more):
    return headers(block((b":status", status), *fields), 1, end=end, **more)


HELLO = head() + data(b"hello")


def good(name, send, body=b"hello", status=200, **more):
    return Answer(name, send, status, body, **more)


def malformed(name, send, status=502, **more):
    """A stream error: the request has failed, the connection goes on."""
    return Answer(name, send, status, stopped=(PROTOCOL,), **more)


def fatal(name, code, send, status=502, **more):
    """An error of the connection. Of a POST: another method may be made again."""
    more.setdefault("ask", POST)
    return Answer(name, send, status, gone=code if isinstance(code, tuple) else (code,), **more)


def bad_field(name, *one):
    return malformed(name, head(one, end=True))


clause("9113 8.1", "a final answer, perhaps 1xx before, perhaps trailers behind",
       good("content", HELLO),
       good("content of a known length", head((b"content-length", b"5")) + data(b"hello"),
            fields={"content-length": "5"}),
       good("no content", head(end=True), b""),
       good("no content, by a frame of DATA", head() + data(b""), b""),
       good("content in pieces", head() + data(b"he", end=False) + data(b"", end=False)
            + data(b"llo", pad=20)),
       good("trailers", head() + data(b"hello", end=False) + headers(block((b"x-t", b"1"))),
            trailers=(("x-t", "1"),)),
       good("trailers without content", head() + headers(block((b"x-t", b"1"))), b"",
            trailers=(("x-t", "1"),)),
       good("trailers behind a length of 0", head((b"content-length", b"0")) + headers(block((b"grpc-status", b"5"))),
            b"", trailers=(("grpc-status", "5"),), ask=TRAILERS),
       good("trailers behind a length of 0 that nobody asked for",
            head((b"content-length", b"0")) + headers(block((b"grpc-status", b"5"))), b"",
            fields={"content-length": "0"}),
       good("a length of 0, and the end", head((b"content-length", b"0")) + data(b""), b"",
            fields={"content-length": "0"}),
       good("early hints", head((b"link", b"</a>"), status=b"103") + HELLO, interim=(103,)),
       good("several interim answers", head(status=b"103") + head(status=b"110") + HELLO, interim=(103, 110)),
       good("the head in pieces", headers(b"", 1, end=False, whole=False) + continuation(b"\x88")
            + data(b"hello")),
       good("padding and priority", head(pad=50, priority=priority_fields(0, 7)) + data(b"hello", pad=3)),
       good("204", head(status=b"204", end=True), b"", status=204),
       good("304 with a length", head((b"content-length", b"5"), status=b"304", end=True), b"", status=304),
       good("HEAD with a length", head((b"content-length", b"5"), end=True), b"", ask=HEAD,
            fields={"content-length": "5"}),
       good("an answer before the content of the request, then RST_STREAM of NO_ERROR",
            head() + data(b"hello") + rst(1, E.NO_ERROR), ask=OPEN, stopped=()),
       malformed("an interim answer that ends the stream", head(status=b"103", end=True)),
       malformed("content before the head", data(b"hello"), ask=POST),
       malformed("content behind an interim answer", head(status=b"103") + data(b"hello")),
       malformed("trailers that do not end the stream", head() + headers(block((b"x-t", b"1")), end=False),
                 status=CUT),
       malformed("a pseudo-field in trailers", head() + headers(block((b":status", b"200"))), status=CUT),
       malformed("upper case in trailers", head() + headers(block((b"X-T", b"1"))), status=CUT))

clause("9113 8.1.1", "Content-Length is what the DATA comes to",
       malformed("less content", head((b"content-length", b"9")) + data(b"hello"), status=CUT),
       malformed("more content", head((b"content-length", b"3")) + data(b"hello"), status=CUT),
       malformed("a length and none at all", head((b"content-length", b"9"), end=True)),
       malformed("no content, then trailers", head((b"content-length", b"9"))
                 + headers(block((b"x-t", b"1"))),
                 status=CUT),
       malformed("a length that is no number", head((b"content-length", b"5x")) + data(b"hello")),
       malformed("two lengths", head((b"content-length", b"5"), (b"content-length", b"6")) + data(b"hello")),
       malformed("content of HEAD", HELLO, status=200, ask=HEAD),
       malformed("content of 204", head(status=b"204") + data(b"hello"), status=204))

clause("9113 8.2", "fields as strict as in requests",
       bad_field("upper case", b"X-A", b"1"), bad_field("an empty name", b"", b"1"),
       bad_field("a space in a name", b"x a", b"1"), bad_field("a colon in a name", b"x:a", b"1"),
       bad_field("NUL in a value", b"x-a", b"a\0b"), bad_field("LF in a value", b"x-a", b"a\nb"),
       bad_field("an answer hidden in a value", b"x-a", b"a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
       bad_field("a field hidden in a name", b"x-a: 1\r\nset-cookie", b"evil=1"),
       bad_field("a space around a value", b"x-a", b" a"),
       bad_field("connection", b"connection", b"x-a"), bad_field("keep-alive", b"keep-alive", b"timeout=5"),
       bad_field("transfer-encoding", b"transfer-encoding", b"chunked"),
       bad_field("upgrade", b"upgrade", b"h2c"),
       bad_field("proxy-connection", b"proxy-connection", b"close"))

clause("9113 8.3.2", "one :status, of three digits, before all fields",
       malformed("none", headers(block((b"x-a", b"1")), 1)),
       malformed("none, and no fields", headers(b"", 1)),
       malformed("two", headers(block((b":status", b"200"), (b":status", b"200")), 1)),
       malformed("behind a field", headers(block((b"x-a", b"1"), (b":status", b"200")), 1)),
       *(malformed(f"of {value!r}", head(status=value, end=True)) for value in [b"", b"20", b"2000", b"2x0",
                                                                                b" 200",
                                                                               b"000", b"099"]),
       malformed("of 101", head(status=b"101")),
       malformed("a pseudo-field of requests", headers(block((b":status", b"200"), (b":path", b"/")), 1)),
       malformed("an unknown pseudo-field", headers(block((b":status", b"200"), (b":x", b"1")), 1)))

clause("9113 7", "RST_STREAM",
       Answer("REFUSED_STREAM: it is made again", rst(1, E.REFUSED_STREAM), 200, again=True),
       Answer("REFUSED_STREAM of a POST: nothing was done of it, either", rst(1, E.REFUSED_STREAM), 200,
              again=True,
              ask=POST),
       Answer("INTERNAL_ERROR of a POST", rst(1, E.INTERNAL_ERROR), 502, ask=POST),
       Answer("an unknown code of a POST", rst(1, 0xdeadbeef), 502, ask=POST),
       Answer("in the middle of an answer", head() + data(b"he", end=False) + rst(1, E.INTERNAL_ERROR), CUT))

clause("9113 6.8", "GOAWAY",
       Answer("without the request: it is made again", goaway(0), 200, again=True, ask=POST, then="close"),
       good("with the request: it is finished", goaway(1) + HELLO, then="close"),
       Answer("with the request, which is not finished", goaway(1), 502, ask=POST, then="close"),
       good("first with the largest number, then the last", goaway((1 << 31) - 1) + goaway(1) + HELLO,
            then="close"))

clause("9113 5.4", "the connection ends",
       Answer("before an answer", b"", 502, ask=POST, then="close"),
       Answer("in the middle of an answer", head() + data(b"he", end=False), CUT, then="close"),
       Answer("in the middle of a frame", head() + data(b"hello")[:12], CUT, then="close"),
       Answer("in the middle of a head", head()[:11], 502, ask=POST, then="close"))

clause("9113 6", "frames that a server may not send, or not so",
       good("PING and SETTINGS between", ping() + settings({S.INITIAL_WINDOW_SIZE: 70000}) + HELLO),
       good("unknown frames between", frame(0xbe, 255, 0, b"x") + head() + frame(0xbe, 0, 1, b"x")
            + data(b"hello")),
       good("PRIORITY between", priority(1, 0) + HELLO),
       good("a smaller table", settings({S.HEADER_TABLE_SIZE: 0}) + HELLO),
       fatal("PUSH_PROMISE", PROTOCOL, frame(T.PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82\x86\x84")),
       fatal("ENABLE_PUSH of 1", PROTOCOL, settings({S.ENABLE_PUSH: 1})),
       fatal("HEADERS of an even stream", PROTOCOL, headers(block((b":status", b"200")), 2)),
       fatal("HEADERS of a stream that we never began", PROTOCOL,
             headers(block((b":status", b"200")), 0x3fffffff)),
       fatal("DATA of stream 0", PROTOCOL, data(b"x", 0)),
       fatal("DATA of an idle stream", PROTOCOL, data(b"x", 0x3fffffff)),
       fatal("RST_STREAM of an idle stream", PROTOCOL, rst(0x3fffffff)),
       fatal("PRIORITY_UPDATE", PROTOCOL, frame(T.PRIORITY_UPDATE, 0, 0, b"\0\0\0\1u=1")),
       fatal("CONTINUATION out of place", PROTOCOL, continuation(b"\x88")),
       fatal("PING inside a section", PROTOCOL, headers(b"", 1, end=False, whole=False) + ping()),
       fatal("padding longer than the payload", PROTOCOL, head() + frame(T.DATA, F.PADDED, 1, b"\x20abc"),
             status=CUT),
       fatal("a frame larger than we take", SIZE, frame(T.DATA, 0, 1, b"x" * 16385)),
       fatal("PING of 7 bytes", SIZE, frame(T.PING, 0, 0, b"1234567")),
       fatal("SETTINGS of 7 bytes", SIZE, frame(T.SETTINGS, 0, 0, b"1234567")),
       fatal("MAX_FRAME_SIZE of 1", PROTOCOL, settings({S.MAX_FRAME_SIZE: 1})),
       fatal("INITIAL_WINDOW_SIZE of 2^31", FLOW, settings({S.INITIAL_WINDOW_SIZE: 1 << 31})),
       fatal("a window beyond 2^31-1", FLOW, window_update(0, (1 << 31) - 1)),
       fatal("a window update of nothing", PROTOCOL, window_update(0, 0)),
       fatal("fields behind the end, of another stream number", (PROTOCOL, E.STREAM_CLOSED),
             headers(block((b":status", b"200")), 4)))

clause("7541", "HPACK",
       good("from the static table", headers(indexed(8), 1, end=False) + data(b"hello")),
       fatal("an index of nothing", HPACK, headers(indexed(70), 1)),
       fatal("index 0", HPACK, headers(b"\x80", 1)),
       fatal("a table larger than we allow", HPACK, headers(table_size(4097) + indexed(8), 1)),
       fatal("a string that is cut", HPACK, headers(indexed(8) + b"\0\x05abc", 1)),
       fatal("an integer without end", HPACK, headers(indexed(8) + b"\xff" + b"\xff" * 10, 1)),
       fatal("Huffman code of EOS", HPACK,
             headers(indexed(8) + b"\0\x01a" + integer(4, 7, 0x80) + b"\xff" * 4, 1)))

clause("THREATS", "floods of an upstream",
       fatal("PING", CALM, ping() * 5000, GIVEN_UP),
       fatal("SETTINGS", CALM, settings() * 5000, GIVEN_UP),
       fatal("empty DATA", CALM, head() + data(b"", end=False) * 5000, CUT),
       fatal("CONTINUATION", CALM, headers(b"", 1, end=False, whole=False)
             + continuation(b"\0\1a\1b", whole=False) * 20000, GIVEN_UP),
       Answer("interim answers without end", head(status=b"103") * 5000, GIVEN_UP, ask=POST,
              stopped=(PROTOCOL, CALM, E.CANCEL)),
       Answer("a head of 50 kB", headers(indexed(8), 1, whole=False)
              + b"".join(continuation(block((b"a", b"x" * 16000)), whole=i == 2) for i in range(3)), 502, ask=POST,
              stopped=(E.CANCEL,)),
       fatal("a head of 100 kB", (CALM, HPACK), headers(indexed(8), 1, whole=False)
             + b"".join(continuation(block((b"a", b"x" * 16000)), whole=i == 6) for i in range(7)), GIVEN_UP))
