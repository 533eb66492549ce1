#!/usr/bin/env python3
"""User memory of an idle connection: HTTP/1.1 and HTTP/2, in the clear and over TLS (see docs/BENCH.md).

usage: idle.py [--connections 9000] [--binary build/anygate] [--server NAME ...] [--kind h1|h2c|tls|h2 ...]

Opens connections, sends one request on each (ten on each of HTTP/2, one after another), and reports the
growth of the server's resident memory divided by their number; for HTTP/2 also what it is beyond that of
HTTP/1.1 over TLS. Slabs are mapped at start and touched on first use, so that growth holds the connections'
share of them too. Requests of HTTP/2 are literals without indexing (RFC 7541 section 6.2.2), so that header
tables stay empty. Each kind has a server of its own, so that none is given what another left behind.

Needs what run.py needs. The peers alone: bench/idle.py --connections 1000 --server nginx --server haproxy
"""
import argparse
import pathlib
import resource
import shutil
import socket
import ssl
import tempfile
import time

from cases import NAMES
from servers import HERE, Server, make_files

REQUEST = b"GET /fixed HTTP/1.1\r\nHost: localhost\r\n\r\n"
H2_REQUESTS = 10
FIRST = 100  # connections before the first look: first use of code and pools
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
ACK, END_STREAM, END_HEADERS = 1, 1, 4
# :method GET, :path, :authority; then :scheme
H2_FIELDS = b"\x82\x04\x06/fixed\x01\x09localhost"
HTTP, HTTPS = b"\x86", b"\x87"


def ask_h1(s):
    s.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"OK"):
        got = s.recv(4096)
        if not got:
            raise SystemExit(f"closed after {answer!r}")
        answer += got
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"not a 200: {answer!r}")


def frame(kind, flags, stream, content=b""):
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def exactly(s, count):
    got = b""
    while len(got) < count:
        more = s.recv(count - len(got))
        if not more:
            raise SystemExit("closed within a frame")
        got += more
    return got


def await_end(s, stream):
    """Reads frames until `stream` ends, and acknowledges settings."""
    while True:
        head = exactly(s, 9)
        exactly(s, int.from_bytes(head[:3], "big"))
        kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind == SETTINGS and not flags & ACK:
            s.sendall(frame(SETTINGS, ACK, 0))
        elif kind in (RST_STREAM, GOAWAY):
            raise SystemExit(f"frame of type {kind}")
        elif number == stream and kind in (DATA, HEADERS) and flags & END_STREAM:
            return


def ask_h2(s):
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
    scheme = HTTPS if isinstance(s, ssl.SSLSocket) else HTTP
    for stream in range(1, 2 * H2_REQUESTS, 2):
        s.sendall(frame(HEADERS, END_STREAM | END_HEADERS, stream, H2_FIELDS + scheme))
        await_end(s, stream)


def client_context(protocol):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([protocol])
    return context


# name: port, protocol by ALPN, what is asked on a connection
KINDS = {"h1": ("PORT", None, ask_h1), "h2c": ("H2C", None, ask_h2), "tls": ("TLS", "http/1.1", ask_h1),
         "h2": ("TLS", "h2", ask_h2)}


def bytes_each(server, kind, connections):
    port, protocol, ask = KINDS[kind]
    context = protocol and client_context(protocol)
    open_ones = []

    def add(count):
        for _ in range(count):
            s = socket.create_connection(("127.0.0.1", server.ports[port]))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            open_ones.append(context.wrap_socket(s) if context else s)
            ask(open_ones[-1])

    add(FIRST)
    time.sleep(0.2)
    before = server.rss_bytes()
    add(connections - FIRST)
    time.sleep(0.5)
    grown = server.rss_bytes() - before
    for s in open_ones:
        s.close()
    return grown / (connections - FIRST)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=9000)
    parser.add_argument("--binary", default=str(HERE.parent / "build/anygate"))
    parser.add_argument("--server", action="append", choices=NAMES)
    parser.add_argument("--kind", action="append", choices=KINDS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-idle-"))
    try:
        make_files(work)
        values = {"DIR": work, "ORIGIN": 1, "ORIGIN_H2": 1}
        for name in options.server or ("nginx", "anygate epoll", "anygate io_uring"):
            results = {}
            for kind in options.kind or KINDS:
                server = Server(name, work, values, options.binary)
                try:
                    if KINDS[kind][0] in server.ports:
                        results[kind] = bytes_each(server, kind, options.connections)
                finally:
                    server.stop()
            line = "".join(f"  {kind} {each:7.0f}" for kind, each in results.items())
            if "tls" in results and "h2" in results:
                line += f"  h2 beyond tls {results['h2'] - results['tls']:7.0f}"
            print(f"{name:<17}{line} bytes each", flush=True)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
