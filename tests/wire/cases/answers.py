"""Answers of upstreams that lie, die, or do odd but lawful things: what the client sees, and whether the
connection that they came on may carry another request."""
from dataclasses import dataclass, replace

CUT = 0  # no complete answer: 502, or one that visibly breaks off

OK, CL, TE = b"HTTP/1.1 200 OK\r\n", b"Content-Length: ", b"Transfer-Encoding: "
CHUNKED = TE + b"chunked\r\n"
EMPTY = b"0\r\n\r\n"
GET = b"GET /up/l HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD /up/l HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /up/l HTTP/1.1\r\nHost: x\r\n\r\n"  # nobody may repeat it
GET10 = b"GET /up/l HTTP/1.0\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    name: str
    send: bytes  # by the upstream
    status: int  # what the client gets
    body: bytes = b""
    trailers: tuple = ()
    interim: tuple = ()  # statuses of the 1xx before it
    fields: tuple = ()  # (name, value or None) that the final answer has, or has not
    reused: bool = False  # another request goes over the upstream's connection
    then: str = "wait"  # what the upstream does next: wait, close, reset
    late: bytes = b""  # sent when the client has its answer
    ask: bytes = GET  # the client's request
    closes: bool = False  # the client's connection ends with the answer
    rfc: str = ""
    clause: str = ""


ANSWERS = []


def clause(rfc, text, *answers):
    ANSWERS.extend(replace(a, rfc=rfc, clause=text) for a in answers)


def good(name, send, body=b"hello", status=200, reused=True, **more):
    return Answer(name, send, status, body, reused=reused, **more)


def bad(name, send, status=502, **more):
    return Answer(name, send, status, None, **more)


def cut(name, send, then="close", **more):
    return Answer(name, send, CUT, then=then, **more)


def sized(value, body=b"hello", start=OK):
    return start + CL + value + b"\r\n\r\n" + body


def coded(value, body=EMPTY, start=OK):
    return start + TE + value + b"\r\n\r\n" + body


def chunks(body):
    return OK + CHUNKED + b"\r\n" + body


def started(line):
    return sized(b"5", start=line + b"\r\n")


def with_field(raw):
    return sized(b"5", start=OK + raw + b"\r\n")


clause("9112 4", "status-line = HTTP-version SP 3DIGIT SP [ reason-phrase ] CRLF, else 502",
       good("an answer", sized(b"5"), fields=(("content-length", "5"), ("via", "1.1 anygate"))),
       good("no reason", started(b"HTTP/1.1 200 ")),
       good("no reason, and no space either", started(b"HTTP/1.1 200")),
       good("a reason of many words, 8-bit too", started(b"HTTP/1.1 200 Tr\xe8s bien, merci")),
       good("a code that nobody knows", started(b"HTTP/1.1 299 Odd"), status=299),
       good("a higher minor version", started(b"HTTP/1.2 200 OK")),
       *(bad(name, started(line)) for name, line in [
           ("HTTP/9.9", b"HTTP/9.9 200 OK"), ("HTTP/2", b"HTTP/2 200 OK"),
           ("HTTP/2.0", b"HTTP/2.0 200 OK"), ("HTTP/0.9", b"HTTP/0.9 200 OK"),
           ("lower case", b"http/1.1 200 OK"), ("another protocol", b"ICY 200 OK"),
           ("two digits in the version", b"HTTP/1.10 200 OK"), ("version without dot", b"HTTP/11 200 OK"),
           ("two spaces", b"HTTP/1.1  200 OK"), ("tab", b"HTTP/1.1\t200 OK"),
           ("space first", b" HTTP/1.1 200 OK"), ("two digits", b"HTTP/1.1 20 OK"),
           ("four digits", b"HTTP/1.1 2000 OK"), ("letters", b"HTTP/1.1 abc OK"),
           ("a letter first", b"HTTP/1.1 x00 OK"),
           ("a letter", b"HTTP/1.1 2O0 OK"), ("a letter last", b"HTTP/1.1 20O OK"),
           ("a letter in the version", b"HTTP/1.x 200 OK"), ("code 099", b"HTTP/1.1 099 OK"),
           ("code 000", b"HTTP/1.1 000 OK"), ("signed code", b"HTTP/1.1 +20 OK"),
           ("code and reason in one", b"HTTP/1.1 200OK"), ("no code", b"HTTP/1.1 OK"),
           ("version alone", b"HTTP/1.1"), ("a request", b"GET / HTTP/1.1"),
           ("NUL in the reason", b"HTTP/1.1 200 O\0K"), ("control in the reason", b"HTTP/1.1 200 O\x1bK"),
           ("bare CR in the reason", b"HTTP/1.1 200 O\rK"), ("CR CR LF", b"HTTP/1.1 200 OK\r"),
           ("an empty line first", b"\r\nHTTP/1.1 200 OK"), ("an error page alone", b"<html>no</html>"),
           ("endless reason", b"HTTP/1.1 200 " + b"a" * 20000)]),
       bad("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
       bad("bare LF after the status line", b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello"),
       bad("garbage", b"\x00\x01\x02 hello\r\n\r\n"),
       bad("a TLS alert", b"\x15\x03\x03\x00\x02\x02\x28\r\n\r\n"))

clause("9112 5", "field lines are read as strictly as those of requests: 502",
       good("odd but lawful", with_field(b"X-A:\tb \xe9 \r\nX-B:"), fields=(("x-a", "b \xe9"), ("x-b", ""))),
       *(bad(name, with_field(raw)) for name, raw in [
           ("no colon", b"XYZ"), ("space before colon", b"X : 1"), ("tab before colon", b"X\t: 1"),
           ("empty name", b": 1"), ("name with space", b"X Y: 1"), ("name with 8-bit", b"X\xe9: 1"),
           ("name with NUL", b"X\0: 1"), ("fold", b"X: 1\r\n 2"), ("fold with tab", b"X: 1\r\n\t2"),
           ("fold as first line", b" X: 1"), ("NUL in a value", b"X: \0"), ("control in a value", b"X: \x08"),
           ("DEL in a value", b"X: \x7f"), ("bare CR in a value", b"X: 1\rSet-Cookie: a=b"),
           ("bare LF in a value", b"X: 1\nSet-Cookie: a=b")]),
       good("a hundred fields", with_field(b"\r\n".join(b"X-%d: 1" % i for i in range(99)))),
       bad("too many fields", with_field(b"\r\n".join(b"X-%d: 1" % i for i in range(100)))),
       bad("a field without end", OK + b"X-A: " + b"a" * 70000),
       bad("fields without end", OK + b"X-A: 1\r\n" * 500))

clause("9112 6.3", "content ends where one framing says: 502 for two, or for what is none",
       good("length 0", sized(b"0", b""), b""),
       good("length with zeros", sized(b"005"), fields=(("content-length", "5"),)),
       good("until the close", OK + b"\r\nhello", then="close", reused=False,
            fields=(("transfer-encoding", "chunked"), ("content-length", None))),
       good("until the close, empty", OK + b"\r\n", b"", then="close", reused=False),
       bad("two equal lengths", OK + (CL + b"5\r\n") * 2 + b"\r\nhello"),
       bad("two lengths", OK + CL + b"5\r\n" + CL + b"6\r\n\r\nhello!"),
       bad("two lengths far apart", OK + CL + b"5\r\nX: y\r\n" + CL + b"6\r\n\r\nhello!"),
       *(bad(f"length {value.decode('latin-1')!r}", sized(value)) for value in [
           b"5, 5", b"5,5", b"-5", b"+5", b"0x5", b"", b"5a", b"5 5", b"5;", b'"5"', b"5.0",
           b"9223372036854775808", b"18446744073709551621"]),
       bad("length and chunked", OK + CL + b"5\r\n" + CHUNKED + b"\r\n" + EMPTY),
       bad("chunked and length", OK + CHUNKED + CL + b"5\r\n\r\n" + EMPTY),
       bad("chunked and length 0", OK + CHUNKED + CL + b"0\r\n\r\n" + EMPTY),
       bad("length folded", OK + CL + b"\r\n 5\r\n\r\nhello"),
       bad("length with space before the colon", OK + b"Content-Length : 5\r\n\r\nhello"))

clause("9112 6.1", "Transfer-Encoding is \"chunked\", once, not in HTTP/1.0: else 502",
       good("chunked", chunks(b"5\r\nhello\r\n" + EMPTY), fields=(("transfer-encoding", "chunked"),)),
       good("chunked in capitals", coded(b"CHUNKED", b"5\r\nhello\r\n" + EMPTY)),
       *(bad(f"coding {value.decode()!r}", coded(value)) for value in [
           b"xchunked", b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked",
           b"chunked;q=1", b'"chunked"', b"", b",chunked", b"chunked,"]),
       bad("coding twice", OK + CHUNKED + CHUNKED + b"\r\n" + EMPTY),
       bad("coding in HTTP/1.0", coded(b"chunked", start=b"HTTP/1.0 200 OK\r\n")),
       bad("coding with space before the colon", OK + b"Transfer-Encoding : chunked\r\n\r\n" + EMPTY))

clause("9112 7.1", "malformed chunks: the answer breaks off, and is never taken for whole",
       good("size with zeros and an extension", chunks(b"005;a=b\r\nhello\r\n00\r\n\r\n")),
       good("large and small chunks", chunks(b"7d0\r\n" + b"a" * 2000 + b"\r\n1\r\nb\r\n" + EMPTY),
            b"a" * 2000 + b"b"),
       *(cut(name, chunks(b"5\r\nhello\r\n" + raw), "wait") for name, raw in [
           ("size of letters", b"zz\r\n"), ("empty size", b"\r\n"), ("size with sign", b"+5\r\nhello\r\n"),
           ("size with minus", b"-5\r\nhello\r\n"), ("size with 0x", b"0x5\r\nhello\r\n"),
           ("size with space", b"5 \r\nhello\r\n"), ("size with space before", b" 5\r\nhello\r\n"),
           ("size that overflows", b"10000000000000005\r\nhello\r\n"),
           ("bare LF after size", b"5\nhello\r\n0\r\n\r\n"), ("bare LF after the last size", b"0\n\r\n"),
           ("bare LF at the end", b"0\r\n\n"), ("bare CR after size", b"5\rhello\r\n0\r\n\r\n"),
           ("too much data", b"4\r\nhello\r\n0\r\n\r\n"), ("bare LF after data", b"5\r\nhello\n0\r\n\r\n"),
           ("no line end after data", b"5\r\nhello0\r\n\r\n"), ("NUL in an extension", b"5;\0\r\nhello\r\n"),
           ("LF in an extension", b"5;a\nb\r\nhello\r\n"), ("endless extension", b"5;" + b"a" * 5000),
           ("endless size", b"0" * 5000), ("trailer without colon", b"0\r\nXYZ\r\n\r\n"),
           ("trailer folded", b"0\r\nX: 1\r\n 2\r\n\r\n"), ("trailer with NUL", b"0\r\nX: \0\r\n\r\n"),
           ("trailer with bare LF", b"0\r\nX: 1\n\r\n"),
           ("trailer with space before the colon", b"0\r\nX : 1\r\n\r\n"),
           ("too many trailers", b"0\r\n" + b"X: 1\r\n" * 101 + b"\r\n"),
           ("an answer instead of a size", b"HTTP/1.1 200 OK\r\n\r\n")]))

clause("9110 6.5.1", "trailers are passed on, but for what frames, routes, authenticates or describes",
       good("trailers", chunks(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX_Odd: 2\r\n\r\n"),
            trailers=(("X-Sum", "1"), ("X_Odd", "2"))),
       *(good(f"trailer {name.decode()}",
              chunks(b"5\r\nhello\r\n0\r\n%s: 5\r\nX-Sum: 1\r\n\r\n" % name), trailers=(("X-Sum", "1"),))
         for name in [b"Content-Length", b"Transfer-Encoding", b"Set-Cookie", b"Location",
                      b"Content-Type", b"Content-Encoding", b"Cache-Control", b"Connection", b"Vary",
                      b"Content_Length", b"Set_Cookie", b"WWW-Authenticate", b"Date", b"Age"]))

clause("9112 8", "an answer cut short is incomplete, however it ends",
       cut("no answer at all", b"", ask=POST),
       cut("no answer at all, but a reset", b"", "reset", ask=POST),
       cut("within the status line", b"HTTP/1.1 20"),
       cut("within the head", OK + b"Content-Le"),
       cut("before the empty line", OK + CL + b"5\r\n"),
       cut("within the length", sized(b"10")),
       cut("before all of the length", sized(b"5", b"")),
       cut("reset within the length", sized(b"10"), "reset"),
       cut("within a chunk", chunks(b"a\r\nhello")),
       cut("within a size", chunks(b"5\r\nhello\r\n1")),
       cut("within an extension", chunks(b"5\r\nhello\r\n5;a")),
       cut("before a chunk's end", chunks(b"5\r\nhello")),
       cut("before the last chunk", chunks(b"5\r\nhello\r\n")),
       cut("within the last chunk's size", chunks(b"5\r\nhello\r\n0")),
       cut("within the last line", chunks(b"5\r\nhello\r\n0\r\n\r")),
       cut("before the trailer's end", chunks(b"5\r\nhello\r\n0\r\n")),
       cut("within a trailer", chunks(b"5\r\nhello\r\n0\r\nX: 1\r\n")),
       cut("reset within chunks", chunks(b"5\r\nhello\r\n"), "reset"),
       cut("reset before a close", OK + b"\r\nhello", "reset"),
       cut("chunks cut for HTTP/1.0", chunks(b"5\r\nhello\r\n"), ask=GET10),
       cut("bad chunks for HTTP/1.0", chunks(b"5\r\nhello\r\nzz\r\n"), "wait", ask=GET10))

clause("9112 9.2", "bytes that no request asked for are never another client's answer",
       good("bytes behind the length", sized(b"5", b"helloPOISON"), reused=False),
       good("an answer behind the length", sized(b"5") + sized(b"6", b"POISON"), reused=False),
       good("an answer behind the chunks", chunks(b"5\r\nhello\r\n" + EMPTY) + sized(b"6", b"POISON"),
            reused=False),
       good("one byte behind the chunks", chunks(b"5\r\nhello\r\n" + EMPTY) + b"\n", reused=False),
       good("an empty line behind the length", sized(b"5", b"hello\r\n"), reused=False),
       good("an interim answer behind the length", sized(b"5") + b"HTTP/1.1 100 Continue\r\n\r\n",
            reused=False),
       good("an answer later", sized(b"5"), late=sized(b"6", b"POISON"), reused=False),
       good("one byte later", sized(b"5"), late=b"\0", reused=False),
       good("a close later", sized(b"5"), then="close", reused=False))

NO_CONTENT, NOT_MODIFIED = b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 304 Not Modified\r\n"
clause("9110 15.3.5", "204 has no content, whatever it says, and one that says so is not trusted further",
       good("204", NO_CONTENT + b"\r\n", b"", 204),
       good("204 with length 0", sized(b"0", b"", NO_CONTENT), b"", 204,
            fields=(("content-length", None),)),
       good("204 with a length", sized(b"5", b"", NO_CONTENT), b"", 204, reused=False,
            fields=(("content-length", None),)),
       good("204 with content", sized(b"5", b"hello", NO_CONTENT), b"", 204, reused=False),
       good("204 with content later", sized(b"20", b"", NO_CONTENT), b"", 204,
            late=sized(b"6", b"POISON"), reused=False),
       good("204 that is chunked", coded(b"chunked", b"", NO_CONTENT), b"", 204, reused=False,
            fields=(("transfer-encoding", None),)),
       good("204 with chunks", coded(b"chunked", b"5\r\nhello\r\n" + EMPTY, NO_CONTENT), b"", 204,
            reused=False),
       bad("204 with two framings", NO_CONTENT + CL + b"5\r\n" + CHUNKED + b"\r\n"))

clause("9110 15.4.5", "304 has no content; a length tells of what a 200 would have",
       good("304", NOT_MODIFIED + b'ETag: "a"\r\n\r\n', b"", 304),
       good("304 with a length", sized(b"5", b"", NOT_MODIFIED), b"", 304,
            fields=(("content-length", "5"),)),
       good("304 that would be chunked", coded(b"chunked", b"", NOT_MODIFIED), b"", 304,
            fields=(("transfer-encoding", None),)),
       good("304 with content", sized(b"5", b"hello", NOT_MODIFIED), b"", 304, reused=False),
       bad("304 with two lengths", NOT_MODIFIED + CL + b"5\r\n" + CL + b"6\r\n\r\n"))

clause("9110 9.3.2", "an answer to HEAD has no content",
       good("HEAD", sized(b"5", b""), b"", ask=HEAD, fields=(("content-length", "5"),)),
       good("HEAD of chunks", coded(b"chunked", b""), b"", ask=HEAD),
       good("HEAD without framing", OK + b"\r\n", b"", ask=HEAD),
       good("HEAD with content", sized(b"5"), b"", ask=HEAD, reused=False),
       good("HEAD with chunks", chunks(b"5\r\nhello\r\n" + EMPTY), b"", ask=HEAD, reused=False),
       bad("HEAD with two lengths", OK + CL + b"5\r\n" + CL + b"6\r\n\r\n", ask=HEAD),
       cut("HEAD within the head", OK + CL, ask=HEAD))

clause("9110 15.3.6", "205 ends as its framing says",
       good("205 with length 0", sized(b"0", b"", b"HTTP/1.1 205 Reset Content\r\n"), b"", 205),
       good("205 that is chunked", coded(b"chunked", EMPTY, b"HTTP/1.1 205 Reset Content\r\n"), b"", 205))

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
clause("9110 15.2", "interim answers are relayed, bounded in number, and only one final answer ends them",
       good("103", HINT + sized(b"5"), interim=(103,)),
       good("102", b"HTTP/1.1 102 Processing\r\n\r\n" + sized(b"5"), interim=(102,)),
       good("a code that nobody knows", b"HTTP/1.1 199 Odd\r\n\r\n" + sized(b"5"), interim=(199,)),
       good("several", HINT * 3 + sized(b"5"), interim=(103,) * 3),
       good("as many as may be", HINT * 16 + sized(b"5"), interim=(103,) * 16),
       bad("one more", HINT * 17 + sized(b"5"), interim=(103,) * 16),
       bad("a storm", HINT * 500, interim=(103,) * 16),
       bad("a storm of continues", CONTINUE * 500),
       good("never for HTTP/1.0", HINT + sized(b"5"), ask=GET10, closes=True),
       good("100 that nobody waits for", CONTINUE + sized(b"5")),
       cut("nothing behind it", HINT),
       cut("nothing behind it but a reset", HINT, "reset"),
       bad("content behind it", sized(b"5", b"hello", b"HTTP/1.1 103 Early Hints\r\n") + sized(b"5"),
           interim=(103,)),
       bad("malformed", b"HTTP/1.1 103 Early Hints\r\nX : y\r\n\r\n" + sized(b"5")),
       bad("malformed behind a good one", HINT + b"HTTP/1.1 2x0\r\n\r\n", interim=(103,)))

KEY = b"MDEyMzQ1Njc4OWFiY2RlZg=="
UPGRADE = (b"GET /up/l HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n")
OTHER = b"GET /up/l HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo/1\r\n\r\n"
ACCEPT = b"Sec-WebSocket-Accept: BACScCJPNqyz+UBoqMH89VmURoA=\r\n"


def switch(fields, upgrade=b"websocket"):
    return (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s\r\n"
            % (upgrade, fields))


clause("6455 4.1", "a tunnel opens behind the very 101 that was asked for; everything else stays HTTP",
       bad("101 unasked", switch(ACCEPT)),
       bad("101 unasked, without Upgrade", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
       bad("101 without Accept", switch(b""), ask=UPGRADE),
       bad("101 with a wrong Accept", switch(b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"),
           ask=UPGRADE),
       bad("101 with Accept in another case", switch(ACCEPT.replace(b"BACS", b"bacs")), ask=UPGRADE),
       bad("101 with Accept cut short", switch(ACCEPT.replace(b"oA=", b"")), ask=UPGRADE),
       bad("101 with the key as Accept", switch(b"Sec-WebSocket-Accept: %s\r\n" % KEY), ask=UPGRADE),
       bad("101 to another protocol", switch(ACCEPT, b"foo/1"), ask=UPGRADE),
       bad("101 to two protocols", switch(ACCEPT, b"websocket, foo/1"), ask=UPGRADE),
       bad("101 without Upgrade", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
           + ACCEPT + b"\r\n", ask=UPGRADE),
       bad("101 without Connection", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
           + ACCEPT + b"\r\n", ask=UPGRADE),
       bad("101 in HTTP/1.0", switch(ACCEPT).replace(b"HTTP/1.1", b"HTTP/1.0"), ask=UPGRADE),
       bad("101 to websocket where another was asked for", switch(ACCEPT), ask=OTHER),
       good("200 instead", sized(b"5"), ask=UPGRADE),
       good("426 instead", sized(b"5", start=b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"),
            status=426, ask=UPGRADE, fields=(("upgrade", None),)))

UPLOAD = b"POST /up/l HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 1000
SMALL = b"POST /up/l HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n0123456789"
CHUNKING = b"POST /up/l HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"\r\n5\r\nhello\r\n"
clause("9112 9.5", "an answer that comes before the request's end is relayed; both connections then end",
       good("413 to a large upload", sized(b"5", start=b"HTTP/1.1 413 Content Too Large\r\n"), status=413,
            ask=UPLOAD, reused=False, closes=True),
       good("200 to a large upload", sized(b"5"), ask=UPLOAD, reused=False, closes=True),
       good("chunks for a large upload", chunks(b"5\r\nhello\r\n" + EMPTY), ask=UPLOAD, reused=False,
            closes=True),
       good("until the close for a large upload", OK + b"\r\nhello", ask=UPLOAD, then="close",
            reused=False, closes=True),
       bad("a bad answer to a large upload", sized(b"+5"), ask=UPLOAD, closes=True),
       cut("a cut answer to a large upload", sized(b"10"), ask=UPLOAD),
       cut("a reset instead of an answer", b"", "reset", ask=UPLOAD),
       good("to a small upload", sized(b"5"), ask=SMALL, reused=False, closes=None),
       good("to chunks", sized(b"5"), ask=CHUNKING, reused=False, closes=None),
       good("204 to chunks", NO_CONTENT + b"\r\n", b"", 204, ask=CHUNKING, reused=False, closes=None))

clause("9112 9.3", "the upstream's connection is used again only when both sides want it",
       good("close", sized(b"5", start=OK + b"Connection: close\r\n"), reused=False),
       good("close among others", sized(b"5", start=OK + b"Connection: x, CLOSE\r\n"), reused=False),
       good("HTTP/1.0", sized(b"5", start=b"HTTP/1.0 200 OK\r\n"), reused=False),
       good("HTTP/1.0 keep-alive",
            sized(b"5", start=b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n")),
       good("chunks that close", OK + b"Connection: close\r\n" + CHUNKED + b"\r\n5\r\nhello\r\n" + EMPTY,
            reused=False),
       good("chunks for HTTP/1.0", chunks(b"5\r\nhello\r\n" + EMPTY), ask=GET10, closes=True,
            fields=(("transfer-encoding", None),)))

clause("9110 7.6.1", "fields of the upstream's connection end here, and only those",
       *(good(f"{raw.split(b':')[0].decode()} goes", with_field(raw),
              fields=((raw.split(b":")[0].decode(), None),)) for raw in [
           b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Proxy-Authenticate: Basic",
           b"Upgrade: h2c", b"TE: trailers", b"Trailer: X-T"]),
       good("a named field goes", with_field(b"Connection: X-Secret\r\nX-Secret: evil"),
            fields=(("x-secret", None), ("connection", None))),
       *(good(f"{name} cannot be named away", with_field(f"Connection: {name}\r\n{name}: {value}".encode()),
              fields=((name, value),)) for name, value in [
           ("Set-Cookie", "a=b"), ("Cache-Control", "no-store"), ("Vary", "Cookie"),
           ("Content-Type", "text/plain"), ("WWW-Authenticate", "Basic"), ("Content-Encoding", "x")]),
       bad("more names than anyone needs",
           with_field(b"Connection: " + b", ".join(b"X-%d" % i for i in range(17)))))
