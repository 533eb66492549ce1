"""What bench/hostile.py runs in processes of their own: an upstream, and floods of hostile clients."""
import errno
import select
import socket
import time

BIG = 8 << 20
OPENED_A_SECOND = 1000
EVERY = 5.0  # seconds between two drips of a connection
WINDOW = 4608  # bytes of receive buffer of a slow reader, the kernel's minimum

# first bytes, drip, bytes read at a drip (0: none), the limit that ends it (None: whatever the upstream does)
KINDS = {
    "heads": (b"GET /fixed HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 64, b"b", 0, "header_timeout"),
    "bodies": (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc", b"d", 0,
               "body_grace"),
    "readers": (b"GET /www/cached.bin HTTP/1.1\r\nHost: x\r\n\r\n", b"", 20, "write_timeout"),
    "files": (b"GET /www/big.bin HTTP/1.1\r\nHost: x\r\n\r\n", b"", 20, "write_timeout"),
    "proxied": (b"GET /up/big HTTP/1.1\r\nHost: x\r\n\r\n", b"", 20, "write_timeout"),
    "uploads": (b"POST /up/sink HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"u" * 65536,
                b"u" * 4096, 0, None),
    "silent": (b"", b"", 0, "header_timeout"),
    "idle": (b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n", b"", 0, "idle_timeout"),
    "burst": (b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n", b"", 0, "header_timeout"),
}
TOGETHER = b"GET /fixed HTTP/1.1\r\nHost: x\r\nX-A: "  # what a burst sends when all are there
TWO_DESCRIPTORS = {"files", "proxied", "uploads"}  # of the server, each: half as many


class Origin:
    """An upstream with small answers, a large one (big), and a sink that takes nothing. The system holds
    little for it, or what it copies for thousands of others would keep the client that behaves from its core.
    """

    SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall"
    BODY = memoryview(bytes(1 << 16))

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(self.BODY))
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.peers, self.left = {}, {}

    def accept(self):
        for _ in range(256):
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            s.setblocking(False)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peers[s.fileno()] = s
            self.poll.register(s, select.EPOLLIN)

    def pump(self, fd):
        try:
            while self.left.get(fd, 0) > 0:
                self.left[fd] -= self.peers[fd].send(self.BODY[:min(self.left[fd], len(self.BODY))])
            self.poll.modify(fd, select.EPOLLIN)
        except BlockingIOError:
            self.poll.modify(fd, select.EPOLLOUT)

    def answer(self, fd):
        head = self.peers[fd].recv(65536)
        if not head:
            raise OSError("closed")
        if b"/big" in head:
            self.peers[fd].send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
            self.left[fd] = BIG
            self.pump(fd)
        elif b"/sink" in head:
            self.poll.modify(fd, 0)
        else:
            self.peers[fd].send(self.SMALL)

    def run(self):
        while True:
            for fd, events in self.poll.poll():
                if fd == self.listener.fileno():
                    self.accept()
                    continue
                try:
                    if events & select.EPOLLIN:
                        self.answer(fd)
                    elif events & select.EPOLLOUT:
                        self.pump(fd)
                    else:
                        raise OSError("closed")
                except OSError:
                    self.poll.unregister(fd)
                    self.peers.pop(fd).close()
                    self.left.pop(fd, None)


class Flood:
    """Connections of one kind, opened in turn and held until the server ends each."""

    def __init__(self, kind, port, count):
        self.first, self.drip, self.read, _ = KINDS[kind]
        self.together = kind == "burst"
        self.port, self.count = port, count
        self.poll = select.epoll()
        self.open, self.born, self.lives = {}, {}, []
        self.failed = 0
        self.all_open = self.first_end = float("inf")  # CLOCK_MONOTONIC

    def add(self, index):
        s = socket.socket()
        if self.read:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW // 2)
        s.setblocking(False)
        s.bind(("127.0.%d.%d" % (1 + index // 250, 1 + index % 250), 0))
        if s.connect_ex(("127.0.0.1", self.port)) not in (0, errno.EINPROGRESS):
            self.failed += 1
            s.close()
            return
        self.open[s.fileno()] = s
        self.born[s.fileno()] = None
        self.poll.register(s, select.EPOLLOUT)

    def ended(self, fd):
        s, began = self.open.pop(fd), self.born.pop(fd)
        self.poll.unregister(fd)
        s.close()
        if began is None:
            self.failed += 1
        else:
            now = time.monotonic()
            self.lives.append(now - began)
            self.first_end = min(self.first_end, now)

    def begin(self, fd):
        self.born[fd] = time.monotonic()
        if self.first:
            self.open[fd].send(self.first)
        # Who reads slowly does not listen for data, only for the end.
        listens = self.first and not self.read
        self.poll.modify(fd, (select.EPOLLIN if listens else 0) | select.EPOLLRDHUP)

    def on_event(self, fd, events):
        try:
            if self.born[fd] is None and events & select.EPOLLOUT:
                self.begin(fd)
            if events & (select.EPOLLHUP | select.EPOLLERR) or \
                    (events & select.EPOLLRDHUP and not self.read):
                self.ended(fd)
            elif events & select.EPOLLIN and not self.open[fd].recv(65536):
                self.ended(fd)
        except BlockingIOError:
            pass
        except OSError:
            self.ended(fd)

    def drip_one(self, fd):
        s = self.open.get(fd)
        if s is None or self.born[fd] is None:
            return
        try:
            if self.drip:
                s.send(self.drip)
            elif not s.recv(self.read):
                self.ended(fd)
        except BlockingIOError:
            pass
        except OSError:
            self.ended(fd)

    def begin_together(self):
        for fd, s in list(self.open.items()):
            try:
                s.send(TOGETHER)
                self.born[fd] = time.monotonic()
            except OSError:
                self.ended(fd)

    def run(self, at_most):
        """Until all have ended, or that long; how many are left."""
        start = due = time.monotonic()
        added, queue, step = 0, [], 0.0
        while time.monotonic() - start < at_most and (added < self.count or self.open):
            now = time.monotonic()
            while added < self.count and added < (now - start) * OPENED_A_SECOND:
                self.add(added)
                added += 1
            if self.all_open > now and added == self.count and None not in self.born.values():
                self.all_open = now
                if self.together:
                    self.begin_together()
            if (self.drip or self.read) and self.open and not queue:
                queue = list(self.open)
                step = EVERY / len(queue)
            while queue and due <= now:
                self.drip_one(queue.pop())
                due += step
            due = max(due, now - 0.02)  # no bursts to make up for lost time
            for fd, events in self.poll.poll(0.001):
                if fd in self.open:
                    self.on_event(fd, events)
        return len(self.open)


def flood(kind, port, count, at_most):
    """Prints how many were left, how many failed, when all were open, when the first ended, and how long each
    of those lived."""
    f = Flood(kind, port, count)
    left = f.run(at_most)
    for s in f.open.values():
        s.close()
    print(left, f.failed, f.all_open, f.first_end, *(f"{life:.2f}" for life in f.lives))
