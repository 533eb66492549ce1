"""Upstreams that go wrong at each stage of an exchange."""
import socket
import threading
import time

from gate import ok
from work import BLOB, websocket

LONG = 200000
RST = b"\1\0\0\0\0\0\0\0"

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# What an upstream has sent when it goes wrong, and whether the client then has a status already.
STAGES = {
    "head-read": (b"", False),
    "status-line": (b"HTTP/1.1 200 OK\r\n", False),
    "mid-status": (b"HTTP/1.1 2", False),
    "mid-head": (b"HTTP/1.1 200 OK\r\nContent-Le", False),
    "interim": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", False),
    "head": (HEAD, True),
    "mid-body": (HEAD + BLOB[:1000], True),
    "nearly-all": (HEAD + BLOB[:LONG - 1], True),
    "chunked-head": (CHUNKED, True),
    "mid-size": (CHUNKED + b"3e", True),
    "mid-chunk": (CHUNKED + b"3e8\r\n" + BLOB[:500], True),
    "between-chunks": (CHUNKED + b"3e8\r\n" + BLOB[:1000] + b"\r\n", True),
    "before-last-chunk-ends": (CHUNKED + b"3e8\r\n" + BLOB[:1000] + b"\r\n0\r\n", True),
    "mid-trailer": (CHUNKED + b"3e8\r\n" + BLOB[:1000] + b"\r\n0\r\nX-T: a", True),
}
WAYS = ("reset", "close", "stall")


def end(sock, how, gone):
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    elif how == "stall":
        sock.settimeout(20)
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
    gone.append(how)
    return None


class Lying:
    """An upstream that does what the path says: /up/STAGE/HOW."""

    def __init__(self):
        self.gone = []  # an entry for each connection that was ended, or was seen to end
        self.arrived, self.holding = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, index, head):
        words = head.split(b" ")[1].decode().strip("/").split("/")
        self.arrived.release()
        if words[1] == "good":
            return ok(BLOB[:LONG])
        if words[1] == "slow":
            return self.slow
        if words[1] == "ws":
            return websocket
        if words[1] == "hold":
            return self.hold
        return lambda peer, head, rest: self.go_wrong(peer, rest, *words[1:])

    def go_wrong(self, peer, rest, stage, how):
        if stage == "mid-upload":
            peer.read(LONG // 2 - len(rest))
        else:
            peer.send(STAGES[stage][0])
        return end(peer.sock, how, self.gone)

    def hold(self, peer, head, rest):
        """Answers when the gateway has given up; that is seen by the end of its input."""
        self.holding.release()
        peer.sock.settimeout(30)
        try:
            while peer.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        self.gone.append("seen")
        return None

    def slow(self, peer, head, rest):
        for i in range(0, 3000, 300):
            peer.send((HEAD + BLOB[:LONG])[i:i + 300])
            time.sleep(0.06)
        peer.send((HEAD + BLOB[:LONG])[3000:])
        return b""


def leave(sock, how):
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()
