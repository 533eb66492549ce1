"""HTTP/2 by hand (RFC 9113): frames as bytes, a client and a scripted upstream that send whatever they are
told to, and readers that hold each frame of the other side against the grammar.

    Wire        a socket as frames, read with a deadline
      Client    the side that asks: over cleartext by prior knowledge, or over TLS (connect, connect_tls)
      Server    one connection of an Upstream, in the hands of its script

Nothing here hides a mistake of the peer: a frame that is malformed by itself is an AssertionError.
"""
import enum
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field

import hpack
from acceptor import Acceptor, each_in_a_thread
from waiting import await_that

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW, FRAME_MAX = 65535, 16384  # as they begin (6.9.2, 6.5.2)
DEADLINE_S = 10


class T(enum.IntEnum):
    (DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE,
     CONTINUATION) = range(10)
    PRIORITY_UPDATE = 16  # RFC 9218


class F(enum.IntFlag):
    END_STREAM = ACK = 1
    END_HEADERS = 4
    PADDED = 8
    PRIORITY = 32


class E(enum.IntEnum):
    (NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED,
     FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM,
     INADEQUATE_SECURITY, HTTP_1_1_REQUIRED) = range(14)


class S(enum.IntEnum):
    (HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE,
     MAX_HEADER_LIST_SIZE) = range(1, 7)
    ENABLE_CONNECT_PROTOCOL = 8  # RFC 8441
    NO_RFC7540_PRIORITIES = 9  # RFC 9218


# ---- frames to send ----

def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """Any frame; `length` may lie."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values=(), ack=False, stream=0):
    """`values`: a mapping, or pairs where one shall come twice."""
    pairs = values.items() if isinstance(values, dict) else values
    return frame(T.SETTINGS, F.ACK if ack else 0, stream,
                 b"".join(struct.pack(">HI", key, value) for key, value in pairs))


def padded(payload, pad):
    return bytes([pad]) + payload + b"\0" * pad


def priority_fields(depends=0, weight=15, exclusive=False):
    return struct.pack(">IB", depends | (1 << 31 if exclusive else 0), weight)


def headers(block, stream=1, end=True, whole=True, pad=None, priority=None, flags=0):
    """end: END_STREAM; whole: END_HEADERS; priority: 5 bytes of priority_fields."""
    flags |= (F.END_STREAM if end else 0) | (F.END_HEADERS if whole else 0)
    if priority is not None:
        flags, block = flags | F.PRIORITY, priority + block
    if pad is not None:
        flags, block = flags | F.PADDED, padded(block, pad)
    return frame(T.HEADERS, flags, stream, block)


def continuation(block, stream=1, whole=True, flags=0):
    return frame(T.CONTINUATION, flags | (F.END_HEADERS if whole else 0), stream, block)


def data(content=b"", stream=1, end=True, pad=None, flags=0):
    flags |= F.END_STREAM if end else 0
    if pad is not None:
        flags, content = flags | F.PADDED, padded(content, pad)
    return frame(T.DATA, flags, stream, content)


def rst(stream=1, code=E.CANCEL):
    return frame(T.RST_STREAM, 0, stream, struct.pack(">I", code))


def ping(opaque=b"12345678", ack=False):
    return frame(T.PING, F.ACK if ack else 0, 0, opaque)


def goaway(last=0, code=E.NO_ERROR, debug=b"", stream=0):
    return frame(T.GOAWAY, 0, stream, struct.pack(">II", last, code) + debug)


def window_update(stream=0, more=1):
    return frame(T.WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


def priority(stream=1, depends=0, weight=15, exclusive=False):
    return frame(T.PRIORITY, 0, stream, priority_fields(depends, weight, exclusive))


def priority_update(of, value=b"u=1", stream=0):
    return frame(T.PRIORITY_UPDATE, 0, stream, struct.pack(">I", of) + value)


# ---- HPACK by hand (RFC 7541): no table is touched unless asked for ----

def integer(value, bits, first=0):
    """5.1; `first` holds the bits before it."""
    top = (1 << bits) - 1
    if value < top:
        return bytes([first | value])
    out, value = [first | top], value - top
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def string(text):
    """5.2, not Huffman coded."""
    return integer(len(text), 7) + text


def literal(name, value, form=0x00):
    """6.2.2: without indexing; form 0x40: added to the table (6.2.1), 0x10: never indexed (6.2.3). A name
    that is a number is an index."""
    bits = 6 if form == 0x40 else 4
    if isinstance(name, int):
        return integer(name, bits, form) + string(value)
    return bytes([form]) + string(name) + string(value)


def indexed(index):
    return integer(index, 7, 0x80)


def table_size(size):
    return integer(size, 5, 0x20)


def block(*fields, form=0x00):
    """A section of (name, value) pairs and raw pieces of bytes."""
    return b"".join(f if isinstance(f, bytes) else literal(f[0], f[1], form) for f in fields)


def asked(path=b"/fixed", *more, method=b"GET", scheme=b"http", authority=b"x", form=0x00):
    """The section of a request; a pseudo-field of None is left out."""
    pseudo = [(b":method", method), (b":scheme", scheme), (b":path", path), (b":authority", authority)]
    return block(*(f for f in pseudo if f[1] is not None), *more, form=form)


# ---- what comes ----

@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: list = None  # of the section that this frame completes, decoded
    ends: bool = False  # the stream: by END_STREAM of this frame, or of the HEADERS that it completes

    def __repr__(self):
        name = T(self.kind).name if self.kind in T._value2member_map_ else hex(self.kind)
        shown = self.fields if self.fields is not None else self.payload[:40]
        return f"<{name} {self.flags:#x} stream {self.stream} {len(self.payload)}: {shown!r}>"

    @property
    def code(self):
        """Of RST_STREAM and GOAWAY."""
        return struct.unpack(">I", self.payload[4:8] if self.kind == T.GOAWAY else self.payload)[0]

    @property
    def last(self):
        """The highest stream that GOAWAY says was taken."""
        return struct.unpack(">I", self.payload[:4])[0]

    @property
    def ack(self):
        return bool(self.flags & F.ACK)


class Closed(Exception):
    """The connection ended, in order or by a reset, where more was due."""


class Reset(Exception):
    def __init__(self, stream, code):
        super().__init__(f"stream {stream}: {named(code)}")
        self.stream, self.code = stream, code


class GoneAway(Exception):
    def __init__(self, last, code, debug):
        super().__init__(f"{named(code)} after stream {last}: {debug!r}")
        self.last, self.code, self.debug = last, code, debug


def named(code):
    return E(code).name if code in E._value2member_map_ else f"code {code}"


@dataclass
class Response:
    status: int
    fields: list
    body: bytes = b""
    trailers: list = None
    interim: list = field(default_factory=list)  # (status, fields) of each 1xx
    ended: bool = False

    def get(self, name):
        values = [v for n, v in self.fields if n == name]
        assert len(values) <= 1, f"{name} comes {len(values)} times"
        return values[0] if values else None


LEGAL_FLAGS = {T.DATA: 0x9, T.HEADERS: 0x2d, T.SETTINGS: 1, T.PING: 1, T.CONTINUATION: 4}


class Wire:
    """Frames over a socket.

    auto     answers SETTINGS and PING, as a good peer does; a test may set it False and do that itself
    refill   gives back the window of DATA
    goaway   the last GOAWAY that came
    """

    may_be_cut = False  # whether the connection may end inside a frame
    over = None  # how the connection has ended

    def __init__(self, sock, auto=True, refill=True):
        self.sock, self.auto, self.refill = sock, auto, refill
        self.buffer, self.section, self.section_of = b"", None, None
        self.decoder, self.encoder = hpack.Decoder(), hpack.Encoder()
        self.decoder.max_header_list_size = 1 << 24
        self.peer_settings, self.peer_acks, self.goaway = {}, 0, None
        self.frame_max = FRAME_MAX  # what we have announced
        self.windows = {0: WINDOW}  # what we may send
        self.pings, self.lock = 0, threading.Lock()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- sending --

    def send(self, *pieces):
        try:
            with self.lock:
                self.sock.sendall(b"".join(pieces))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError) as e:
            raise Closed(str(e)) from e

    def dribble(self, *pieces):
        """Byte by byte."""
        for byte in b"".join(pieces):
            self.send(bytes([byte]))

    def shut(self):
        """No more is sent (plain sockets alone)."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def content(self, stream, body, end=True, size=FRAME_MAX):
        """Sends content within the windows, reading on while there is no room; less when it is reset."""
        at = 0
        while True:
            room = min(self.windows[0], self.window(stream), size, len(body) - at)
            if room <= 0 and at < len(body):
                if not self._wait(stream):
                    return
                continue
            self.windows[0] -= room
            self.windows[stream] = self.window(stream) - room
            at += room
            self.send(data(body[at - room:at], stream, end=end and at == len(body)))
            if at == len(body):
                return

    def _wait(self, stream):
        """Takes a frame; False when the stream was reset."""
        self.frame()
        return True

    # -- receiving --

    def _exactly(self, n, until):
        while len(self.buffer) < n:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing came; had {self.buffer[:60]!r}")
            self.sock.settimeout(left)
            try:
                got = self.sock.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as e:
                self.over = str(e)
                raise Closed(self.over) from e
            finally:
                if self.sock.fileno() >= 0:
                    self.sock.settimeout(DEADLINE_S)
            if not got:
                assert self.may_be_cut or not self.buffer, f"it ends inside a frame: {self.buffer[:60]!r}"
                self.over = "end"
                raise Closed(self.over)
            self.buffer += got
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def frame(self, timeout=DEADLINE_S):
        """The next frame, checked. TimeoutError, Closed."""
        until = time.monotonic() + timeout
        if self.over:  # bytes may come behind a reset, and are no frame
            raise Closed(self.over)
        head = self._exactly(9, until)
        size, (kind, flags, stream) = int.from_bytes(head[:3], "big"), struct.unpack(">BBI", head[3:])
        assert size <= self.frame_max, f"a frame of {size}"
        try:
            payload = self._exactly(size, until)
        except Closed as e:
            if not self.may_be_cut:
                raise AssertionError(f"it ends inside a frame of type {kind}") from e
            raise
        got = Frame(kind, flags, stream, payload)
        self._check(got)
        try:
            self._take(got)
        except (ConnectionError, ssl.SSLError):  # the frame is here all the same
            if not self.may_be_cut:
                raise
        return got

    def _check(self, f):
        assert f.kind in T._value2member_map_, f"a frame unknown to RFC 9113: {f}"
        assert not f.stream >> 31, f
        assert not f.flags & ~LEGAL_FLAGS.get(f.kind, 0), f"flags: {f}"
        connection = f.kind in (T.SETTINGS, T.PING, T.GOAWAY)
        assert f.kind == T.WINDOW_UPDATE or connection == (f.stream == 0), f
        size = len(f.payload)
        fits = {T.RST_STREAM: size == 4, T.PING: size == 8, T.WINDOW_UPDATE: size == 4, T.GOAWAY: size >= 8,
                T.SETTINGS: size == 0 if f.flags & F.ACK else size % 6 == 0}
        assert fits.get(f.kind, True), f
        if self.section is not None:
            assert f.kind == T.CONTINUATION and f.stream == self.section_of, f"inside a section: {f}"
        else:
            assert f.kind != T.CONTINUATION, f

    def _take(self, f):
        size = len(f.payload)  # with padding: all of it counts (6.1)
        if f.kind in (T.DATA, T.HEADERS) and f.flags & F.PADDED:
            pad = f.payload[0]
            assert pad < len(f.payload), f
            f.payload = f.payload[1:len(f.payload) - pad]
        if f.kind in (T.HEADERS, T.CONTINUATION):
            self.section = f if f.kind == T.HEADERS else self.section
            if f.kind == T.HEADERS and f.flags & F.PRIORITY:
                f.payload = f.payload[5:]
            if f.kind == T.CONTINUATION:
                self.section.payload += f.payload
            self.section_of = f.stream
            if f.flags & F.END_HEADERS:
                f.fields = [(n.decode("latin-1"), v.decode("latin-1"))
                            for n, v in self.decoder.decode(self.section.payload, raw=True)]
                f.ends = bool(self.section.flags & F.END_STREAM)
                self.section = None
        elif f.kind == T.SETTINGS:
            self._settle(f)
        elif f.kind == T.WINDOW_UPDATE:
            more = struct.unpack(">I", f.payload)[0]
            assert 0 < more < 1 << 31, f
            self.windows[f.stream] = self.window(f.stream) + more
            assert self.windows[f.stream] < 1 << 31, f"window of {self.windows[f.stream]}"
        elif f.kind == T.PING and not f.ack and self.auto:
            self.send(ping(f.payload, ack=True))
        elif f.kind == T.GOAWAY:
            self.goaway = f
        elif f.kind == T.DATA:
            f.ends = bool(f.flags & F.END_STREAM)
            if self.refill and size:
                self.send(window_update(0, size), *([] if f.ends else [window_update(f.stream, size)]))

    def _settle(self, f):
        if f.ack:
            self.peer_acks += 1
            return
        for key, value in struct.iter_unpack(">HI", f.payload):
            if key == S.INITIAL_WINDOW_SIZE:
                assert value < 1 << 31
                before = self.peer_settings.get(key, WINDOW)
                for stream in self.windows.keys() - {0}:
                    self.windows[stream] += value - before
            assert key != S.MAX_FRAME_SIZE or FRAME_MAX <= value < 1 << 24
            assert key != S.ENABLE_CONNECT_PROTOCOL or value in (0, 1)
            if key == S.HEADER_TABLE_SIZE:
                self.encoder.header_table_size = min(value, 4096)
            self.peer_settings[key] = value
        if self.auto:
            self.send(settings(ack=True))

    def window(self, stream):
        return self.windows.get(stream, self.peer_settings.get(S.INITIAL_WINDOW_SIZE, WINDOW))

    # -- expecting --

    def until(self, wanted, timeout=DEADLINE_S):
        """Reads frames until wanted(frame); that frame. The others pass."""
        end = time.monotonic() + timeout
        while True:
            got = self.frame(max(0.001, end - time.monotonic()))
            if wanted(got):
                return got

    def expect(self, kind, stream=None, timeout=DEADLINE_S, ack=None):
        """The next frame of this kind. GoneAway or Reset when that comes instead."""
        def wanted(f):
            if f.kind == kind and stream in (None, f.stream) and ack in (None, f.ack):
                return True
            if f.kind == T.GOAWAY and f.code != E.NO_ERROR:
                raise gone(f)
            if f.kind == T.RST_STREAM and stream not in (None, 0) and f.stream == stream:
                raise Reset(stream, f.code)
            return False
        return self.until(wanted, timeout)

    def expect_goaway(self, *codes, timeout=DEADLINE_S):
        """GOAWAY with one of `codes`; the frames before it pass."""
        got = self.until(lambda f: f.kind == T.GOAWAY, timeout)
        assert not codes or got.code in codes, f"GOAWAY {named(got.code)}: {got.payload[8:]!r}"
        return got

    def expect_reset(self, stream, *codes, timeout=DEADLINE_S):
        def wanted(f):
            if f.kind == T.GOAWAY and f.code != E.NO_ERROR:
                raise gone(f)
            return f.kind == T.RST_STREAM and f.stream == stream
        got = self.until(wanted, timeout)
        assert not codes or got.code in codes, f"RST_STREAM {named(got.code)}"
        return got

    def expect_close(self, timeout=DEADLINE_S):
        """The end of the connection; the frames before it are given back."""
        seen, end = [], time.monotonic() + timeout
        try:
            while True:
                seen.append(self.frame(max(0.001, end - time.monotonic())))
        except Closed:
            return seen

    def round_trip(self, timeout=DEADLINE_S):
        """Sends PING and waits for its answer: all that came before it has been seen by the peer. The
        frames on the way are given back; GoneAway when the connection is given up."""
        self.pings += 1
        mark, seen = struct.pack(">Q", 0xa17e000000000000 + self.pings), []
        self.send(ping(mark))
        end = time.monotonic() + timeout
        while True:
            got = self.frame(max(0.001, end - time.monotonic()))
            if got.kind == T.PING and got.ack and got.payload == mark:
                return seen
            if got.kind == T.GOAWAY and got.code != E.NO_ERROR:
                raise gone(got)
            seen.append(got)


def gone(f):
    return GoneAway(struct.unpack(">I", f.payload[:4])[0], f.code, f.payload[8:])


class Client(Wire):
    """The asking side. `start` sends preface and SETTINGS and waits for the server's."""

    def __init__(self, sock, values=(), auto=True, refill=True, start=True):
        super().__init__(sock, auto, refill)
        self.next_stream = 1
        self.streams = {}  # Response in the making, by stream
        self.announced = dict(values)
        self.frame_max = self.announced.get(S.MAX_FRAME_SIZE, FRAME_MAX)
        if S.HEADER_TABLE_SIZE in self.announced:
            self.decoder.max_allowed_table_size = self.announced[S.HEADER_TABLE_SIZE]
        if start:
            self.send(PREFACE, settings(values))
            self.expect(T.SETTINGS, ack=False)
            self.expect(T.SETTINGS, ack=True)

    def ask(self, path="/fixed", fields=(), method="GET", body=None, end=True, scheme="http", authority="x",
            stream=None):
        """Sends a request by the python encoder, with its table; its stream. Without `body` and `end` content
        is sent later."""
        stream = stream or self.next_stream
        self.next_stream = stream + 2
        pseudo = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
        section = self.encoder.encode([f for f in pseudo if f[1] is not None] + list(fields))
        self.send(headers(section, stream, end=end and body is None))
        if body is not None:
            self.content(stream, body, end)
        return stream

    def _wait(self, stream):
        self.gather(self.frame())
        return not isinstance(self.streams.get(stream), Reset)

    def gather(self, f):
        """Puts a frame to the answers."""
        if f.kind == T.GOAWAY and f.code != E.NO_ERROR:
            raise gone(f)
        if f.kind == T.RST_STREAM:
            self.streams[f.stream] = Reset(f.stream, f.code)
        elif f.fields is not None:
            self._head(f)
        elif f.kind == T.DATA:
            r = self.streams[f.stream]
            if not isinstance(r, Reset):
                assert r.status >= 200 and r.trailers is None and not r.ended
                r.body += f.payload
                r.ended = f.ends

    def _head(self, f):
        r = self.streams.get(f.stream)
        if isinstance(r, Reset):
            return
        assert all(n == n.lower() for n, _ in f.fields), f.fields
        if r is not None and r.status >= 200:
            assert f.ends and not r.ended and not any(n.startswith(":") for n, _ in f.fields), f
            r.trailers, r.ended = f.fields, True
            return
        assert f.fields[0][0] == ":status" and not any(n.startswith(":") for n, _ in f.fields[1:]), f.fields
        status = int(f.fields[0][1])
        assert 100 <= status <= 599 and status != 101
        before = [] if r is None else r.interim + [(r.status, r.fields)]
        assert status >= 200 or not f.ends
        r = self.streams[f.stream] = Response(status, f.fields[1:], interim=before)
        r.ended = f.ends

    def _await(self, stream, enough, timeout):
        end = time.monotonic() + timeout
        while True:
            r = self.streams.get(stream)
            if isinstance(r, Reset):
                raise r
            if r is not None and enough(r):
                return r
            self.gather(self.frame(max(0.001, end - time.monotonic())))

    def response(self, stream, timeout=DEADLINE_S):
        """The whole answer to `stream`; others' frames are kept for their turn. Reset, GoneAway, Closed,
        TimeoutError."""
        return self._await(stream, lambda r: r.ended, timeout)

    def head(self, stream, timeout=DEADLINE_S):
        """The same, but as soon as the final head is there."""
        return self._await(stream, lambda r: r.status >= 200, timeout)

    def get(self, path="/fixed", fields=(), **more):
        return self.response(self.ask(path, fields, **more))


def connect(port, values=(), host="127.0.0.1", **more):
    """A client by prior knowledge."""
    s = socket.create_connection((host, port), DEADLINE_S)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Client(s, values, **more)


def tls_context(ca=None, alpn=("h2",), cert=None, low=None, high=None):
    """A client's context; without `ca` it believes everyone. `cert`: one of certs.py."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = ca is not None
    context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    if ca:
        context.load_verify_locations(str(ca))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if cert:
        context.load_cert_chain(str(cert.chain), str(cert.key))
    context.minimum_version = low or ssl.TLSVersion.TLSv1_2
    context.maximum_version = high or ssl.TLSVersion.MAXIMUM_SUPPORTED
    return context


def connect_tls(port, values=(), context=None, name="a.example", **more):
    """A client over TLS, which must agree on h2."""
    s = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tls = (context or tls_context()).wrap_socket(s, server_hostname=name)
    assert tls.selected_alpn_protocol() == "h2", tls.selected_alpn_protocol()
    return Client(tls, values, **more)


# ---- upstreams ----

class Request:
    """What came on one stream of an Upstream; trailers are None until some come."""

    def __init__(self, stream, fields, ended):
        self.stream, self.fields, self.ended = stream, fields, ended
        self.body, self.trailers, self.reset = b"", None, None

    def get(self, name):
        return dict(self.fields).get(name)

    @property
    def path(self):
        return self.get(":path")


class Server(Wire):
    """One connection that was accepted. The script may use all of Wire, and what stands here."""

    def __init__(self, sock, upstream, index):
        super().__init__(sock)
        self.upstream, self.index = upstream, index
        self.requests, self.waiting = {}, []

    def begin(self, values):
        assert self._exactly(len(PREFACE), time.monotonic() + DEADLINE_S) == PREFACE
        self.frame_max = dict(values).get(S.MAX_FRAME_SIZE, FRAME_MAX)
        self.send(settings(values))

    def step(self, timeout=3600):
        """Reads a frame into the requests."""
        f = self.frame(timeout)
        known = self.requests.get(f.stream)
        if f.fields is not None and known is None:
            request = self.requests[f.stream] = Request(f.stream, f.fields, f.ends)
            self.waiting.append(request)
            with self.upstream.lock:
                self.upstream.requests.append(request)
        elif f.fields is not None:
            known.trailers, known.ended = f.fields, True
        elif f.kind == T.DATA and known:
            known.body += f.payload
            known.ended = known.ended or f.ends
        elif f.kind == T.RST_STREAM and known:
            known.reset = f.code
        return f

    def body(self, request):
        """Waits for the end of the request; its content. Other streams' frames are kept."""
        while not request.ended and request.reset is None:
            self.step()
        return request.body

    def answer(self, request, status=200, fields=(), body=b"", trailers=None, end=True):
        """Sends an answer within the windows."""
        stream = request.stream
        head = self.encoder.encode([(":status", str(status)), *fields])
        self.send(headers(head, stream, end=end and not body and trailers is None))
        if body:
            self.content(stream, body, end=end and trailers is None)
        if trailers is not None:
            self.send(headers(self.encoder.encode(list(trailers)), stream, end=True))

    def _wait(self, stream):
        self.step()
        return self.requests[stream].reset is None


class Upstream:
    """An HTTP/2 upstream by prior knowledge, or over TLS with `context` (a server's ssl.SSLContext).

    script(server, request)   called for each request, in the connection's own thread, when its head is there
    raw(server)               instead: called with the fresh connection, before anything was read or sent
    values                    its SETTINGS
    """

    def __init__(self, script=None, raw=None, values=(), context=None, port=0):
        self.script, self.raw, self.values, self.context = script, raw, values, context
        self.sock = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port = self.sock.getsockname()[1]
        self.connections, self.requests, self.faults = [], [], []
        self.lock = threading.Lock()
        self.acceptor = Acceptor(self.sock, each_in_a_thread(self._serve))

    def _serve(self, sock):
        server = None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            with self.lock:
                server = Server(sock, self, len(self.connections))
                self.connections.append(server)
            if self.raw:
                self.raw(server)
                return
            server.begin(self.values)
            while True:
                while server.waiting:
                    self.script(server, server.waiting.pop(0))
                server.step()
        except (Closed, OSError):
            pass
        except AssertionError as e:
            with self.lock:
                self.faults.append(e)
        finally:
            sock.close()

    def wait(self, count, timeout=DEADLINE_S):
        """Until so many requests have come."""
        await_that(lambda: len(self.requests) >= count, lambda: f"{count} requests; {len(self.requests)} came", timeout)
        return self.requests

    def connection(self, n=0):
        """The n-th connection that came; waits for it."""
        await_that(lambda: len(self.connections) > n, lambda: f"connection {n}; {len(self.connections)} came",
                   DEADLINE_S)
        return self.connections[n]

    def close(self):
        self.acceptor.close()
        for server in self.connections:
            try:
                server.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close()
        assert kind or not self.faults, self.faults


def server_context(*certs, alpn=("h2",), ca=None):
    """A TLS server's context with certificates of certs.py; `ca`: asks clients for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for cert in certs:
        context.load_cert_chain(str(cert.chain), str(cert.key))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(str(ca))
    return context
