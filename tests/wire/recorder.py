"""An upstream that keeps every byte it gets and reads it strictly (strict.py).

One thread serves all connections and reads whatever has come before it answers anything, so that what
was sent to it earlier is also seen earlier: a request that a test sends as a mark closes what it
records about the case before.
"""
import selectors
import socket
import threading
import time

import strict

MARK = b"/up/mark"


class Connection:
    def __init__(self, sock):
        self.sock, self.data, self.open, self.continued = sock, b"", True, False


class Recorder:
    """`messages` since the last take(), in order; `rests` are what came besides whole messages."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.wake, self.woken = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.connections, self.messages, self.broken = [], [], []
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while True:
            ready = [key.fileobj for key, _ in self.selector.select()]
            if self.woken in ready:
                return
            with self.changed:
                for one in ready:
                    if one is self.listener:
                        self._accept()
                    else:
                        self._read(next(c for c in self.connections if c.sock is one))
                for c in [c for c in self.connections if c.open]:
                    self._answer(c)
                self.changed.notify_all()

    def _accept(self):
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.append(Connection(sock))
        self.selector.register(sock, selectors.EVENT_READ)

    def _read(self, c):
        try:
            data = c.sock.recv(1 << 20)
        except OSError:
            data = b""
        c.data += data
        if not data:
            self._drop(c)

    def _drop(self, c):
        c.open = False
        self.selector.unregister(c.sock)
        c.sock.close()

    def _answer(self, c):
        try:
            while whole := strict.read(c.data):
                message, used = whole
                c.data, c.continued = c.data[used:], False
                self.messages.append(message)
                body = b"" if message.method == b"HEAD" else b"up"
                c.sock.sendall(b"HTTP/1.1 200 OK\r\nX-Up: 1\r\nContent-Length: 2\r\n\r\n" + body)
            if c.data and not c.continued and strict.expects(c.data):
                c.continued = True
                c.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        except strict.Malformed as error:
            self.broken.append(f"{error}: {c.data!r}")
            self._drop(c)
        except OSError:
            self._drop(c)

    def take(self, gate):
        """(whole messages, beginnings of others) since the last call; the latter's connections have
        ended by then."""
        assert gate.get(MARK.decode()).body == b"up"
        deadline = time.monotonic() + 10
        with self.changed:
            while any(c.open and c.data for c in self.connections) and time.monotonic() < deadline:
                self.changed.wait(1)
            assert not self.broken, self.broken
            assert not [c.data for c in self.connections if c.open and c.data], "left unfinished"
            messages = [m for m in self.messages if m.target != MARK]
            rests = [c.data for c in self.connections if c.data]
            self.messages.clear()
            self.connections = [c for c in self.connections if c.open]
            return messages, rests

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wake.send(b"x")
        self.thread.join()
        for sock in [self.listener, self.wake, self.woken] + [c.sock for c in self.connections]:
            sock.close()
        self.selector.close()
