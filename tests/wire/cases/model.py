"""What a case is, and short ways to write one down.

A case has bytes, a verdict, the section that demands it, and the clause in a few words. Cases that
stand under one clause are the inputs by which peers are known to differ on it.

Paths begin with /up/, which is proxied to the recording upstream; the runner also sends every case with
/in/ instead, which the server answers itself (echo).
"""
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sent:
    """A request as it must arrive at the upstream, byte for byte. $UP is the upstream's port."""
    head: bytes
    body: bytes = b""
    trailers: tuple = ()  # (name, value)


# The upstream may have seen the request begin, but never end: its content turned out malformed.
PART = "part"


@dataclass(frozen=True)
class Case:
    name: str
    send: bytes
    want: tuple  # statuses, in order
    closes: bool  # the server ends the connection behind the last answer
    sent: object = ()  # of Sent, in order; or PART
    methods: tuple = ("GET",)  # of the requests, where they decide how an answer is read
    gate: str = "plain"  # or "trusting": it believes the clients' forwarding fields
    proxy: bool = False  # a verdict of the proxy alone: who answers itself serves it
    rfc: str = ""
    clause: str = ""


TABLE = []


def clause(rfc, text, *cases):
    TABLE.extend(replace(case, rfc=rfc, clause=text) for case in cases)


def forwarding(host=b"x", for_=b"127.0.0.1", proto=b"http", via=b"1.1", earlier=b""):
    """The fields that the proxy adds, in its order."""
    named = b"X-Forwarded-Host: %s\r\n" % host if host else b""
    told = b';host="%s"' % host if host else b""
    return (b"X-Forwarded-For: %s\r\n%sX-Forwarded-Proto: %s\r\nForwarded: %sfor=127.0.0.1%s;"
            b"proto=http\r\nVia: %s anygate\r\n" % (for_, named, proto, earlier, told, via))


def up(line=b"GET /up/g", kept=b"", framing=b"", host=b"x", added=None, connection=b"", body=b"",
       trailers=(), via=b"1.1"):
    """What reaches the upstream: request line and Host, fields that are passed on, fields that are
    added, framing, Connection."""
    added = forwarding(host, via=via) if added is None else added
    return Sent(b"%s HTTP/1.1\r\nHost: %s\r\n%s%s%s%s\r\n"
                % (line, host, kept, added, framing, connection), body, tuple(trailers))


def good(name, send, *want, sent=None, methods=None, closes=False, gate="plain", proxy=False):
    """Accepted; by default one GET of /up/g that arrives as such."""
    want = want or (200,)
    sent = (up(),) * len(want) if sent is None else sent if isinstance(sent, tuple) else (sent,)
    methods = methods or ("GET",) * len(want)
    return Case(name, send, want, closes, sent, methods, gate, proxy)


def bad(name, send, want=400, sent=(), method="GET"):
    """Refused with `want` and a closed connection; nothing of it arrives."""
    return Case(name, send, (want,), True, sent, (method,))


def get(headers=b"", target=b"/up/g", host=b"Host: x\r\n", version=b"HTTP/1.1", method=b"GET"):
    return b"%s %s %s\r\n%s%s\r\n" % (method, target, version, host, headers)


def post(headers=b"", body=b"", version=b"1.1", target=b"/up/p"):
    return b"POST %s HTTP/%s\r\nHost: x\r\n%s\r\n%s" % (target, version, headers, body)


CL, TE = b"Content-Length: ", b"Transfer-Encoding: "
CHUNKED = TE + b"chunked\r\n"


def posted(body=b"hello", framing=None, **more):
    """A post of /up/p as it arrives, with its length unless `framing` says otherwise."""
    framing = CL + b"%d\r\n" % len(body) if framing is None else framing
    return up(b"POST /up/p", framing=framing, body=body, **more)
