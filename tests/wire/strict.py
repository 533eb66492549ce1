"""A strict reading of HTTP/1.1 requests (RFC 9112) that shares nothing with the server: what a recording
upstream holds what it got against. Every byte must fit the grammar, in the one form that a careful
sender writes: CRLF, one framing, chunk sizes without zeros in front or extensions."""
import re
from dataclasses import dataclass

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
LINE = re.compile(rb"(%s) (/[!\"$-~]*|\*) HTTP/1\.1" % TOKEN)
FIELD = re.compile(rb"(%s): ?((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)" % TOKEN)
HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=-]+)(:[1-9][0-9]{0,4})?")
SIZE = re.compile(rb"(0|[1-9A-Fa-f][0-9A-Fa-f]*)")
# Fields of which two, or a trailer, could be read as another framing, host or sender.
SINGLE = {b"host", b"content-length", b"transfer-encoding", b"x-forwarded-for", b"x-forwarded-host",
          b"x-forwarded-proto", b"forwarded"}
NO_TRAILER = SINGLE | {b"authorization", b"cookie", b"content-type", b"content-encoding", b"te",
                       b"connection", b"trailer", b"expect", b"upgrade", b"via", b"x-real-ip"}


class Malformed(Exception):
    """No careful sender writes this."""


@dataclass
class Message:
    head: bytes
    method: bytes
    target: bytes
    body: bytes
    trailers: tuple
    expects: bool  # 100-continue


def fields_of(lines):
    out = []
    for line in lines:
        match = FIELD.fullmatch(line)
        if not match:
            raise Malformed(f"field line {line!r}")
        out.append((match[1], match[2]))
    return out


def head_of(data):
    """(head's length, method, target, fields), or None when it is not there yet."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *rest = data[:end].split(b"\r\n")
    match = LINE.fullmatch(first)
    if not match:
        raise Malformed(f"request line {first!r}")
    fields = fields_of(rest)
    names = [name.lower() for name, _ in fields]
    for name in SINGLE:
        if names.count(name) > 1:
            raise Malformed(f"{name!r} twice")
    if names.count(b"host") != 1 or not HOST.fullmatch(dict(zip(names, (v for _, v in fields)))[b"host"]):
        raise Malformed("Host")
    return end + 4, match[1], match[2], [(name.lower(), value) for name, value in fields]


def chunks_of(data):
    """(bytes used, content, trailers), or None when they are not all there."""
    at, body = 0, b""
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = SIZE.fullmatch(data[at:end])
        if not size:
            raise Malformed(f"chunk size {data[at:end]!r}")
        size, at = int(size[1], 16), end + 2
        if size == 0:
            break
        if len(data) < at + size + 2:
            return None
        if data[at + size:at + size + 2] != b"\r\n":
            raise Malformed("chunk without its end")
        body += data[at:at + size]
        at += size + 2
    if data[at:at + 2] == b"\r\n":
        return at + 2, body, ()
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        return None
    trailers = fields_of(data[at:end].split(b"\r\n"))
    for name, _ in trailers:
        if name.lower().replace(b"_", b"-") in NO_TRAILER:
            raise Malformed(f"trailer {name!r}")
    return end + 4, body, tuple(trailers)


def read(data):
    """(message, bytes used), or None when it is not complete. Raises Malformed."""
    head = head_of(data)
    if not head:
        return None
    used, method, target, fields = head
    lengths = [v for n, v in fields if n == b"content-length"]
    codings = [v for n, v in fields if n == b"transfer-encoding"]
    body, trailers, after = b"", (), used
    if lengths and codings:
        raise Malformed("framed in two ways")
    if codings:
        if codings != [b"chunked"]:
            raise Malformed(f"coding {codings!r}")
        content = chunks_of(data[used:])
        if not content:
            return None
        body, trailers, after = content[1], content[2], used + content[0]
    elif lengths:
        if not re.fullmatch(rb"0|[1-9][0-9]*", lengths[0]):
            raise Malformed(f"length {lengths[0]!r}")
        after = used + int(lengths[0])
        if len(data) < after:
            return None
        body = data[used:after]
    expects = any(n == b"expect" for n, _ in fields)
    return Message(data[:used], method, target, body, trailers, expects), after


def expects(data):
    """Whether the head that is there asks for 100 before its content."""
    head = head_of(data)
    return bool(head) and any(n == b"expect" for n, _ in head[3])
