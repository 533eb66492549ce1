"""Both ends of exchanges that move much: content at the speed of the socket, in both directions at once, each byte
checked. An end is one thread around a socket that does not block (a TLS object must not be used by two).

Content repeats BLOCK. HTTP/2 opens all of its windows, so that nothing but the peer bounds what it is sent.
"""
import random
import select
import socket
import ssl
import struct
import threading

from acceptor import Acceptor
from h2wire import PREFACE, F, S, T, asked, block, data, frame, headers, settings, window_update

PIECE = 16384
BLOCK = random.Random(1).randbytes(61 * PIECE)  # no power of two: what is shifted is seen
FRAMED = b"".join(data(BLOCK[i:i + PIECE], 1, end=False) for i in range(0, len(BLOCK), PIECE))
TWICE = BLOCK * 2
WINDOW = (1 << 31) - 1
WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class End(threading.Thread):
    """Sends `total` bytes of content (a multiple of PIECE) and receives as many as `expected`.

    waits            it is an upstream: for a request
    sent, received   content so far
    reads            an event: while it is not set nothing is read
    fault            what went wrong
    """

    def __init__(self, sock, waits, total, expected):
        super().__init__(daemon=True)
        self.sock, self.waits, self.total, self.expected = sock, waits, total, expected
        self.sent = self.received = 0
        self.reads, self.fault, self.ended = threading.Event(), None, False
        self.reads.set()
        self.pending = memoryview(b"")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)

    def run(self):
        try:
            into = memoryview(bytearray(1 << 20))
            while not self.is_done():
                wrote, wants = self._write()
                if not self._read(into) and not wrote:
                    select.select([self.sock] if self.reads.is_set() else [], [self.sock] if wants else [], [], 0.05)
        except Exception as e:
            self.fault = e

    def has_read(self):
        return self.ended and self.received == self.expected

    def is_done(self):
        return self.has_read() and self.sent == self.total and not self.pending

    def _write(self):
        """(something was, more is there)."""
        self.pending = self.pending or memoryview(self.next())
        if not self.pending:
            return False, False
        try:
            n = self.sock.send(self.pending)
        except WAITS:
            return False, True
        self.pending = self.pending[n:]
        return True, True

    def _read(self, into):
        if not self.reads.is_set() or self.has_read():
            return False
        try:
            n = self.sock.recv_into(into)
        except WAITS:
            return False
        assert n > 0, f"it ends with {self.received} of {self.expected} bytes"
        self.take(into[:n].tobytes())
        return True

    # An answer that is whole before its request would end both.

    def is_early(self):
        return self.waits and not End.has_read(self)

    def may_answer(self):
        return self.total > 0 or not self.is_early()

    def may_send(self):
        """What content may be sent now."""
        return max(0, self.total - self.sent - (PIECE if self.is_early() else 0))

    def check(self, content):
        at = self.received % len(BLOCK)
        for i in range(0, len(content), len(BLOCK)):
            part = content[i:i + len(BLOCK)]
            assert part == TWICE[at:at + len(part)], f"wrong content behind {self.received + i} bytes"
        self.received += len(content)


class End1(End):
    def __init__(self, sock, head, waits, total, expected):
        super().__init__(sock, waits, total, expected)
        self.head, self.had = head, b""

    def is_done(self):
        return super().is_done() and not self.head

    def next(self):
        if self.waits and not self.ended or not self.may_answer():
            return b""
        if self.head:
            head, self.head = self.head, b""
            return head
        at = self.sent % len(BLOCK)
        piece = memoryview(BLOCK)[at:at + min(len(BLOCK) - at, self.may_send())]
        self.sent += len(piece)
        return piece

    def take(self, got):
        if not self.ended:  # the head, whose end is that of what we do not count
            self.had += got
            head, mark, got = self.had.partition(b"\r\n\r\n")
            if not mark:
                return
            assert self.waits or head.startswith(b"HTTP/1.1 200 "), head
            self.ended = True
        self.check(got)


class End2(End):
    """Stream 1 of a connection of its own."""

    def __init__(self, sock, section, waits, total, expected):
        super().__init__(sock, waits, total, expected)
        self.control = (b"" if waits else PREFACE) + settings([(S.INITIAL_WINDOW_SIZE, WINDOW)])
        self.control += window_update(0, WINDOW - 65535)
        self.section = headers(section, 1, end=total == 0)
        self.asked, self.finished = not waits, total == 0
        self.skip = len(PREFACE) if waits else 0
        self.windows = {0: 65535, 1: 65535}
        self.first, self.head, self.left, self.payload = 65535, b"", 0, b""

    def next(self):
        if self.control:
            control, self.control = self.control, b""
            return control
        if self.section:
            if not self.asked or not self.may_answer():
                return b""
            section, self.section = self.section, b""
            return section
        at, room = self.sent % len(BLOCK) // PIECE, min(self.windows.values()) // PIECE
        count = min(room, (len(BLOCK) // PIECE) - at, self.may_send() // PIECE)
        if count == 0 and self.sent == self.total and not self.finished:
            self.finished = True
            return data(b"", 1)
        for stream in self.windows:
            self.windows[stream] -= count * PIECE
        self.sent += count * PIECE
        return memoryview(FRAMED)[at * (PIECE + 9):(at + count) * (PIECE + 9)]

    def take(self, got):
        at = min(self.skip, len(got))
        self.skip -= at
        while at < len(got):
            if self.left == 0:
                need = 9 - len(self.head)
                self.head += got[at:at + need]
                at += need
                if len(self.head) < 9:
                    return
                self.left, self.kind = int.from_bytes(self.head[:3], "big"), self.head[3]
                self.payload = b""
            part = got[at:at + self.left]
            at += len(part)
            self.left -= len(part)
            if self.kind == T.DATA:
                self.check(part)
            else:
                self.payload += part
            if self.left == 0:
                self._frame(self.head[4], int.from_bytes(self.head[5:], "big"))
                self.head = b""

    def _frame(self, flags, stream):
        if self.kind == T.WINDOW_UPDATE:
            self.windows[stream] += int.from_bytes(self.payload, "big")
        elif self.kind == T.SETTINGS and not flags & F.ACK:
            for name, value in struct.iter_unpack(">HI", self.payload):
                if name == S.INITIAL_WINDOW_SIZE:
                    self.windows[1] += value - self.first
                    self.first = value
            self.control += settings(ack=True)
        elif self.kind == T.PING and not flags & F.ACK:
            self.control += frame(T.PING, F.ACK, 0, self.payload)
        elif self.kind == T.HEADERS:
            self.asked = True
        assert self.kind not in (T.RST_STREAM, T.GOAWAY), f"frame {self.kind} comes: {self.payload!r}"
        if self.kind in (T.DATA, T.HEADERS) and flags & F.END_STREAM:
            self.ended = True

    def is_early(self):
        return self.waits and not self.ended  # which comes in a frame of its own

    def has_read(self):
        return super().has_read() and self.sent == self.total  # windows come meanwhile

    def is_done(self):
        return super().is_done() and self.finished and not self.section and not self.control


def client(version, sock, up, down, host="x"):
    """Asks with `up` bytes, for an answer of `down` bytes."""
    if version == "h1":
        head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {up}\r\n\r\n".encode()
        return End1(sock, head, False, up, down)
    section = asked(b"/", (b"content-length", str(up).encode()), method=b"POST", authority=host.encode())
    return End2(sock, section, False, up, down)


class Server:
    """An upstream: `ends` are those of its connections, each for one exchange."""

    def __init__(self, version, up, down, context=None, reads=True, sndbuf=0):
        self.version, self.up, self.down, self.context = version, up, down, context
        self.reads, self.sndbuf, self.ends, self.come = reads, sndbuf, [], threading.Semaphore(0)
        self.listener = socket.create_server(("127.0.0.1", 0))
        if not reads:  # inherited: the window begins so
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.port = self.listener.getsockname()[1]
        self.acceptor = Acceptor(self.listener, self._take)

    def _take(self, sock):
        if self.sndbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.sndbuf)
        if self.context:
            sock = self.context.wrap_socket(sock, server_side=True)
        length = str(self.down).encode()
        if self.version == "h1":
            head = b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n"
            end = End1(sock, head, True, self.down, self.up)
        else:
            section = block((b":status", b"200"), (b"content-length", length))
            end = End2(sock, section, True, self.down, self.up)
        if not self.reads:
            self._hold(end)
        self.ends.append(end)
        end.start()
        self.come.release()

    def _hold(self, end):
        """The head is read, then nothing."""
        take = end.take

        def once(got):
            take(got)
            if end.asked if self.version == "h2" else end.ended:
                end.take = take
                end.reads.clear()
        end.take = once

    def close(self):
        self.acceptor.close()
        for end in self.ends:
            end.join(5)
            end.sock.close()
