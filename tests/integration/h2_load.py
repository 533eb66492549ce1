"""Clients over HTTP/2 that go on while a server is reloaded, drained or upgraded: bodies for Clients of
test_reload, each a generator that yields for every answer it was right about."""
import hashlib
import os
import re
import threading
import time

import h2wire

PATIENCE = 60


def answers(c, path, together):
    """The answers to some requests at once. What was asked behind the last GOAWAY, which a client that stood still has
    not seen, is none of that server's (RFC 9113 section 6.8)."""
    asked = []
    try:
        for _ in range(together):
            asked.append(c.next_stream)
            c.ask(path)
    except h2wire.Closed:
        pass  # what it said before is read below
    for stream in asked:
        try:
            yield c.response(stream, PATIENCE)
        except h2wire.Closed:
            if c.goaway is None or c.goaway.last >= stream:
                raise
            return


def opened(connect, gate):
    """A connection; None for one that was closed, in a drain, for this client stood still before it said anything."""
    began = time.monotonic()
    try:
        return connect(gate)
    except (h2wire.Closed, OSError):
        if time.monotonic() - began < 0.1:
            raise
        return None


def same_connection(connect, path, want, together=4):
    """Some streams at once, round after round; the connection is never told to go."""
    def body(clients):
        with connect(clients.gate) as c:
            while not clients.ending.is_set():
                for stream in [c.ask(path) for _ in range(together)]:
                    r = c.response(stream, PATIENCE)
                    assert r.status == 200 and re.fullmatch(want, r.body), (r.status, r.body[:80])
                assert c.goaway is None, c.goaway
                yield
    return body


def last_answers(connect, path, want, together=4, pause=0.0):
    """The same on connections that are kept as long as the server says so: what was asked before its
    GOAWAY was read is answered."""
    def body(clients):
        while not clients.ending.is_set():
            c = opened(connect, clients.gate)
            if c is None:
                continue
            with c:
                while c.goaway is None and not clients.ending.is_set():
                    for r in answers(c, path, together):
                        assert r.status == 200 and re.fullmatch(want, r.body), (r.status, r.body[:80])
                    yield
                    time.sleep(pause)
    return body


def new_connections(connect, path, want):
    def body(clients):
        while not clients.ending.is_set():
            c = opened(connect, clients.gate)
            if c is None:
                continue
            with c:
                if c.goaway is not None:
                    continue  # told before it has asked
                for r in answers(c, path, 1):
                    assert r.status == 200 and re.fullmatch(want, r.body), (r.status, r.body[:80])
            yield
    return body


def one_upload(connect):
    """A stream that sends from the first change to the last."""
    def body(clients):
        digest = hashlib.sha256()
        with connect(clients.gate) as c:
            stream = c.ask("/up", method="POST", end=False)
            while not clients.ending.is_set():
                part = os.urandom(500)
                digest.update(part)
                c.content(stream, part, end=False)
                time.sleep(0.01)
            c.content(stream, b"")
            r = c.response(stream, PATIENCE)
            assert r.status == 200 and r.body.decode() == digest.hexdigest(), (r.status, r.body)
            yield
    return body


def one_stream(connect, end):
    """A proxied download that lasts as long."""
    def body(clients):
        with connect(clients.gate) as c:
            stream = c.ask("/stream")
            threading.Thread(target=lambda: (clients.ending.wait(), end.set()), daemon=True).start()
            r = c.response(stream, 5 * PATIENCE)  # all changes are made meanwhile
            count = len(r.body) // 8
            assert r.body == b"".join(b"%08d" % i for i in range(count)) and count > 0
            yield
    return body


def one_file(connect, content):
    """A large file, of which the client takes little at a time: the windows hold it back."""
    def body(clients):
        with connect(clients.gate) as c:
            c.auto = False
            stream, got, ended = c.ask("/files/big.bin"), b"", False
            while not ended:
                f = c.frame(PATIENCE)
                if f.kind == h2wire.T.DATA:
                    got, ended = got + f.payload, f.ends
                    c.send(h2wire.window_update(0, len(f.payload)),
                           *([] if ended else [h2wire.window_update(stream, len(f.payload))]))
                elif f.kind == h2wire.T.PING and not f.ack:
                    c.send(h2wire.ping(f.payload, ack=True))
                assert f.kind != h2wire.T.RST_STREAM, f
                if not clients.ending.is_set():
                    time.sleep(0.01)
            assert got == content
            yield
    return body
