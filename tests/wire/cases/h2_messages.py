"""RFC 9113 section 8: what a request is, and what of it reaches an upstream of HTTP/1.1. Whatever is malformed
here must never be written down there."""
from .h2_frames import spread
from .h2_model import (E, Answered, Interim, Refused, answered, asked, block, case, clause, data, headers,
                       stopped)
from .model import up as up_1

PROTOCOL = E.PROTOCOL_ERROR
UP = b"/up/g"


def up(line=b"GET /up/g", kept=b"", **more):
    """What arrives, see model.up; names count without case."""
    more.setdefault("via", b"2")
    return up_1(line, kept, **more)


def sent_get(*more, path=UP, **pseudo):
    return headers(asked(path, *more, **pseudo))


def sent_post(body=b"hello", *more, path=b"/up/p", trailers=None, **pseudo):
    pseudo.setdefault("method", b"POST")
    end = trailers is None
    return headers(asked(path, *more, **pseudo),
                   end=False) + data(body, end=end) + (b"" if end else headers(trailers))


def malformed(name, send, stream=1):
    """A stream error, and nothing arrives."""
    return stopped(name, PROTOCOL, send, stream=stream, sent=())


def refused(name, send, status=400):
    """A stream error or a status, and nothing arrives."""
    return case(name, send, Refused(status=status), sent=())


def kept(name, *fields, as_sent=None, **more):
    """Fields that arrive as `as_sent`, which is what came unless it is said."""
    if as_sent is None:
        as_sent = b"".join(b"%s: %s\r\n" % f for f in fields)
    return answered(name, sent_get(*fields), sent=(up(kept=as_sent, **more),))


def bad_field(name, *field):
    return malformed(name, sent_get(field))


CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(n):
    return b"Content-Length: %d\r\n" % n


clause("9113 8.1", "HEADERS, then DATA, then trailers at the most",
       answered("no content", sent_get(), sent=(up(),)),
       answered("content", sent_post(), sent=(up(b"POST /up/p", framing=CHUNKED, body=b"hello"),)),
       answered("content of a known length", sent_post(b"hello", (b"content-length", b"5")),
                sent=(up(b"POST /up/p", framing=length(5), body=b"hello"),)),
       answered("empty content", headers(asked(b"/up/p", method=b"POST"), end=False) + data(),
                sent=(up(b"POST /up/p", framing=CHUNKED),)),
       answered("trailers", sent_post(b"hello", trailers=block((b"x-t", b"1"))),
                sent=(up(b"POST /up/p", framing=CHUNKED, body=b"hello", trailers=((b"X-T", b"1"),)),)),
       answered("trailers without content",
                headers(asked(b"/up/p", method=b"POST"), end=False) + headers(block((b"x-t", b"1"))),
                sent=(up(b"POST /up/p", framing=CHUNKED, trailers=((b"X-T", b"1"),)),)),
       stopped("trailers that do not end the stream", PROTOCOL,
               headers(asked(b"/in/p", method=b"POST"), end=False)
               + headers(block((b"x-t", b"1")), end=False)),
       *(stopped(f"{name} in trailers", PROTOCOL, sent_post(b"x", path=b"/in/p", trailers=block(field)))
         for name, field in [("a pseudo-field", (b":path", b"/x")), (":status", (b":status", b"200")),
                             ("an unknown pseudo-field", (b":x", b"1")), ("upper case", (b"X-T", b"1")),
                             ("Connection", (b"connection", b"x")),
                             ("Transfer-Encoding", (b"transfer-encoding", b"x")),
                             ("a line feed", (b"x-t", b"a\nb")), ("an empty name", (b"", b"1"))]),
       answered("framing and sender in trailers are dropped",
                sent_post(b"x", trailers=block((b"content-length", b"9"), (b"host", b"evil"),
                                               (b"authorization", b"e"),
                                               (b"x-forwarded-for", b"6.6.6.6"), (b"x-t", b"1"))),
                sent=(up(b"POST /up/p", framing=CHUNKED, body=b"x", trailers=((b"X-T", b"1"),)),)))

clause("9113 8.1.1", "Content-Length is what the DATA comes to",
       stopped("less content", PROTOCOL, sent_post(b"hell", (b"content-length", b"5"), path=b"/in/p")),
       stopped("more content", PROTOCOL, sent_post(b"hello!", (b"content-length", b"5"), path=b"/in/p")),
       stopped("less content in many frames", PROTOCOL,
               headers(asked(b"/in/p", (b"content-length", b"5"), method=b"POST"), end=False)
               + data(b"ab", end=False) + data(b"", end=False) + data(b"cd")),
       stopped("more content, seen before its end", PROTOCOL,
               headers(asked(b"/in/p", (b"content-length", b"5"), method=b"POST"), end=False)
               + data(b"abc", end=False) + data(b"def", end=False)),
       stopped("less content, then trailers", PROTOCOL,
               sent_post(b"hell", (b"content-length", b"5"), path=b"/in/p", trailers=block((b"x-t", b"1")))),
       malformed("a length without content", sent_get((b"content-length", b"5"))),
       answered("a length of 0 without content", sent_get((b"content-length", b"0"), method=b"POST"),
                sent=(up(b"POST /up/g", framing=length(0)),)),
       answered("padding is no content",
                headers(asked(b"/in/p", (b"content-length", b"5"), method=b"POST"), end=False)
                + data(b"hello", pad=50)),
       *(malformed(f"a length of {value!r}", sent_post(b"hello", (b"content-length", value), path=b"/up/p"))
         for value in [b"", b"+5", b"-5", b"0x5", b"5,5", b"5 5", b"5a", b"99999999999999999999"]),
       malformed("two lengths that differ",
                 sent_post(b"hello", (b"content-length", b"5"), (b"content-length", b"6"))),
       malformed("a length twice", sent_post(b"hello", (b"content-length", b"5"), (b"content-length", b"5"))))

clause("9113 8.2", "names are in lower case",
       bad_field("upper case", b"X-A", b"1"), bad_field("one capital at the end", b"x-A", b"1"),
       malformed("a pseudo-field in upper case", headers(block((b":method", b"GET"), (b":scheme", b"http"),
                                                               (b":Path", UP), (b":authority", b"x")))))

clause("9113 8.2.1", "names are tokens, values have no controls and no white space around",
       bad_field("an empty name", b"", b"1"),
       bad_field("a space in a name", b"x a", b"1"), bad_field("a space behind a name", b"x-a ", b"1"),
       bad_field("a colon behind a name", b"x-a:", b"1"), bad_field("a colon in a name", b"x:a", b"1"),
       *(bad_field(f"{c:#04x} in a name", b"x-%ca" % c, b"1") for c in [0, 1, 9, 10, 13, 0x7f, 0x80, 0xff]),
       *(bad_field(f"{chr(c)} in a name", b"x-%ca" % c, b"1") for c in b'"(),/;<=>?@[\\]{}'),
       bad_field("NUL in a value", b"x-a", b"a\0b"), bad_field("CR in a value", b"x-a", b"a\rb"),
       bad_field("LF in a value", b"x-a", b"a\nb"),
       bad_field("a field hidden in a value", b"x-a", b"a\r\nx-evil: 1"),
       bad_field("a request hidden in a value", b"x-a", b"a\r\n\r\nGET /up/evil HTTP/1.1\r\nHost: x\r\n\r\n"),
       bad_field("a field hidden in a name", b"x-a: 1\r\nx-evil", b"1"),
       bad_field("a space before a value", b"x-a", b" a"), bad_field("a space behind a value", b"x-a", b"a "),
       bad_field("a tab before a value", b"x-a", b"\ta"), bad_field("a tab behind a value", b"x-a", b"a\t"),
       bad_field("a value of a space", b"x-a", b" "),
       *(bad_field(f"{c:#04x} in a value", b"x-a", b"a%cb" % c) for c in [1, 8, 0x0b, 0x1b, 0x1f, 0x7f]),
       kept("a tab and 8-bit inside a value", (b"x-a", b"a\tb \xe9 c")),
       kept("an empty value", (b"x-a", b"")),
       kept("order and repetition", (b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3")))

clause("9113 8.2.2", "fields of a connection have no place",
       *(bad_field(name.decode(), name, value) for name, value in [
           (b"connection", b"close"), (b"keep-alive", b"timeout=5"), (b"proxy-connection", b"keep-alive"),
           (b"transfer-encoding", b"chunked"), (b"upgrade", b"websocket")]),
       bad_field("connection of nothing", b"connection", b""),
       malformed("transfer-encoding with content",
                 sent_post(b"0\r\n\r\n", (b"transfer-encoding", b"chunked"))),
       bad_field("te of gzip", b"te", b"gzip"),
       bad_field("te of trailers and more", b"te", b"trailers, gzip"),
       answered("te of trailers", sent_get((b"te", b"trailers"))))

clause("9113 8.2.3", "crumbs of Cookie are put together",
       kept("one", (b"cookie", b"a=1"), as_sent=b"Cookie: a=1\r\n"),
       kept("three", (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"cookie", b"c=3"),
            as_sent=b"Cookie: a=1; b=2; c=3\r\n"),
       kept("with others between", (b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2"),
            as_sent=b"Cookie: a=1; b=2\r\nX-A: 1\r\n"))

FOUR = {b":method": b"GET", b":scheme": b"http", b":path": UP, b":authority": b"x"}


def pseudo(*fields):
    return headers(block(*fields))


def without(name):
    return pseudo(*((n, v) for n, v in FOUR.items() if n != name))


clause("9113 8.3", "pseudo-fields: known ones, once, before all others",
       *(malformed(f"{name.decode()} twice", pseudo(*FOUR.items(), (name, value))) for name,
         value in FOUR.items()),
       *(malformed(f"{name.decode()} behind a field",
                   pseudo(*((n, v) for n, v in FOUR.items() if n != name), (b"x-a", b"1"), (name, value)))
         for name, value in FOUR.items()),
       malformed("an unknown one", pseudo(*FOUR.items(), (b":x", b"1"))),
       malformed("an empty one", pseudo(*FOUR.items(), (b":", b"1"))),
       malformed("one of an answer", pseudo(*FOUR.items(), (b":status", b"200"))),
       malformed("one of an extension not asked for", pseudo(*FOUR.items(), (b":protocol", b"websocket"))))

clause("9113 8.3.1", "method, scheme and path are all there",
       *(malformed(f"no {name.decode()}", without(name)) for name in (b":method", b":scheme", b":path")),
       malformed("pseudo-fields all missing", pseudo((b"x-a", b"1"))),
       malformed("an empty path", sent_get(path=b"")),
       malformed("an empty method", sent_get(method=b"")),
       refused("an empty scheme", sent_get(scheme=b"")),
       malformed("a method that is no token", sent_get(method=b"GE T")),
       malformed("a line in a method", sent_get(method=b"GET /up/evil HTTP/1.1\r\nx:")),
       malformed("a path without a slash", sent_get(path=b"up/g")),
       malformed("a URL for a path", sent_get(path=b"http://x/up/g")),
       refused("a space in a path", sent_get(path=b"/up/g HTTP/1.1")),
       malformed("a line in a path", sent_get(path=b"/up/g HTTP/1.1\r\nx-evil: 1")),
       malformed("a control in a path", sent_get(path=b"/up/\x01")),
       malformed("NUL in a path", sent_get(path=b"/up/\0")),
       refused("a fragment in a path", sent_get(path=b"/up/g#x")),
       refused("%00 in a path", sent_get(path=b"/up/%00")),
       malformed("* of GET", sent_get(path=b"*")),
       malformed("a line in a scheme", sent_get(scheme=b"http\r\nx: y")),
       answered("dots in a path are resolved", sent_get(path=b"/up/x/../g?q=%2e"),
                sent=(up(b"GET /up/g?q=%2e"),)),
       answered("another method", sent_get(method=b"PURGE"), sent=(up(b"PURGE /up/g"),)),
       case("HEAD", sent_get(method=b"HEAD"), Answered(body=b""), sent=(up(b"HEAD /up/g"),)))

clause("9113 8.3.1", ":authority is the host; Host says the same or nothing",
       answered("Host alone",
                pseudo((b":method", b"GET"), (b":scheme", b"http"), (b":path", UP), (b"host", b"x")),
                sent=(up(),)),
       answered("both, equal", sent_get((b"host", b"x")), sent=(up(),)),
       answered("with a port", sent_get(authority=b"x:8080"), sent=(up(host=b"x:8080"),)),
       answered("an address in brackets", sent_get(authority=b"[::1]:80"), sent=(up(host=b"[::1]:80"),)),
       malformed("both, differing", sent_get((b"host", b"evil"))),
       malformed("Host twice",
                 pseudo((b":method", b"GET"), (b":scheme", b"http"), (b":path", UP), (b"host", b"x"),
                                      (b"host", b"x"))),
       malformed("neither", without(b":authority")),
       *(malformed(f"an authority of {value!r}", sent_get(authority=value)) for value in [
           b"", b"user@x", b"x:", b"x:port", b"x:99999", b"x/y", b"x y", b"[::1", b"x\r\nx-evil: 1", b"x\0"]))

clause("9113 8.5", "CONNECT has a method and an authority, and is for tunnels alone",
       case("no route for it", pseudo((b":method", b"CONNECT"), (b":authority", b"x:80")), Answered(405),
            sent=()),
       malformed("with a path", pseudo((b":method", b"CONNECT"), (b":path", b"/"), (b":authority", b"x:80"))),
       malformed("with a scheme",
                 pseudo((b":method", b"CONNECT"), (b":scheme", b"http"), (b":authority", b"x:80"))),
       malformed("without an authority", pseudo((b":method", b"CONNECT"))))

clause("8441 4", "extended CONNECT has a scheme and a path",
       malformed("without a path",
                 pseudo((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"),
                                          (b":authority", b"x"))),
       malformed("without a scheme",
                 pseudo((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":path", UP),
                                            (b":authority", b"x"))),
       malformed(":protocol twice",
                 pseudo((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"),
                                           (b":path", UP), (b":authority", b"x"),
                                           (b":protocol", b"websocket"))))

clause("9110 9.3", "methods that name nothing to be served",
       case("TRACE", sent_get(method=b"TRACE"), Answered(405), sent=()),
       answered("OPTIONS of *", headers(asked(b"*", method=b"OPTIONS")), status=None))

clause("9110 10.1.1", "Expect",
       case("100-continue", headers(asked(b"/in/p", (b"expect", b"100-continue"), method=b"POST"), end=False),
            Interim(100), data(b"x"), Answered()),
       answered("something else", sent_post(b"x", (b"expect", b"200-ok")), status=417, sent=()))

clause("9110 15.5", "limits are answered",
       answered("a long path", sent_get(path=b"/up/" + b"a" * 9000), status=414, sent=()),
       answered("101 fields", sent_get(*((b"x-%d" % i, b"v") for i in range(101))), status=431, sent=()),
       answered("fields of 33000 bytes in few",
                spread(asked(UP, (b"x-a", b"a" * 16000), (b"x-b", b"b" * 17000)), 16384),
                status=431, sent=()),
       answered("a hundred fields", sent_get(*((b"x-%d" % i, b"v") for i in range(99)))))

clause("9110 7.6.1", "what the proxy adds and drops",
       answered("forwarding fields of others are replaced",
                sent_get((b"x-forwarded-for", b"6.6.6.6"), (b"forwarded", b"for=6.6.6.6"),
                         (b"x-forwarded-proto", b"https"),
                         (b"proxy", b"evil")), sent=(up(),)),
       answered("Via goes on", sent_get((b"via", b"1.0 fred")),
                sent=(up(kept=b"Via: 1.0 fred\r\n"),)))
