#!/usr/bin/env python3
"""Memory of an idle connection: HTTP/1.1 and HTTP/2, in the clear and over TLS (see docs/BENCH.md).

usage: idle.py [--connections 10000] [--binary build/anygate] [--server NAME ...] [--kind h1|h2c|tls|h2 ...]

Opens connections, sends one request on each (ten on each of HTTP/2, one after another), and reports the
growth of the server's resident memory divided by their number; for HTTP/2 also what it is beyond that of
HTTP/1.1 over TLS. Slabs are mapped at start and touched on first use, so that growth holds the connections'
share of them too; nginx touches its array of connections at start, some 420 bytes each that are not in its
figure. Requests of HTTP/2 are literals without indexing (RFC 7541 section 6.2.2), so that header tables stay
empty. Each kind has a server of its own, so that none is given what another left behind. There are fewer
connections where descriptors are: no more than half the limit of open files, which is what AnyGate takes.

Kernel memory beside it is approximate: the growth of the machine's slabs (Slab in /proc/meminfo), which hold
sockets, files and what epoll and io_uring keep of them, less the clients' share. That is half of what as
many connections take between two sockets that nobody serves. Whatever else the machine does is in it.

Needs what run.py needs. The peers alone: bench/idle.py --server nginx --server haproxy
"""
import argparse
import functools
import pathlib
import resource
import shutil
import socket
import ssl
import struct
import tempfile
import time

from workloads import NAMES
from servers import HERE, NO_ORIGINS, Server, make_files

REQUEST = b"GET /fixed HTTP/1.1\r\nHost: localhost\r\n\r\n"
H2_REQUESTS = 10
FIRST = 500  # connections before the first look: first use of code, pools, and each buffer of a ring
PAIRS_MAX = 4000
MOST = {"haproxy": 8000}  # its maxconn is 8192
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
TITLES = {"h1": "idle keep-alive h1", "h2c": "idle h2 in the clear", "tls": "idle keep-alive h1 over TLS",
          "h2": "idle h2 over TLS"}
GOALS = {"h1": 512, "tls": 9000}


def slab_bytes():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no Slab in /proc/meminfo")


def cut(sockets):
    """Ends them by a reset: what waits in TIME_WAIT would take memory, and give it back at some time."""
    for s in sockets:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()


@functools.cache
def client_kernel_bytes(pairs):
    """Kernel memory of one end of a connection, of two that nobody polls."""
    ends = []
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        before = slab_bytes()
        for _ in range(pairs):
            ends.append(socket.create_connection(listener.getsockname()))
            ends.append(listener.accept()[0])
        grown = slab_bytes() - before
    cut(ends)
    time.sleep(0.5)
    return grown / pairs / 2


def descriptors():
    """The limit, raised as far as it goes: the servers inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def bytes_each(server, kind, connections):
    """Of user and of kernel memory, and by how many connections."""
    room = descriptors() // 2 - 100
    connections = min(connections, room, MOST.get(server.name, room))
    client = client_kernel_bytes(min(PAIRS_MAX, room))
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
    before, kernel_before = server.rss_bytes(), slab_bytes()
    add(connections - FIRST)
    time.sleep(0.5)
    grown, kernel_grown = server.rss_bytes() - before, slab_bytes() - kernel_before
    cut(open_ones)
    each, kernel_each = grown / (connections - FIRST), kernel_grown / (connections - FIRST)
    return round(each), max(0, round(kernel_each - client)), connections


def measure(names, kinds, connections, work, binary):
    """One entry for each kind: its title, goal, and the bytes of each server that speaks it; `connections` are
    those that were opened. `work` has what make_files makes.
    """
    values = {"DIR": work, **NO_ORIGINS}
    results = []
    for kind in kinds:
        goal = GOALS.get(kind)
        entry = {"kind": kind, "title": TITLES[kind], "connections": connections,
                 "goal": goal and {"of": "bytes", "bytes": goal, "text": f"{goal:,} bytes"}, "servers": {}}
        for name in names:
            server = Server(name, work, values, binary)
            try:
                if KINDS[kind][0] in server.ports:
                    each, kernel, opened = bytes_each(server, kind, connections)
                    entry["servers"][name] = {"bytes": each, "kernel_bytes": kernel}
                    entry["connections"] = min(entry["connections"], opened)
            finally:
                server.stop()
        results.append(entry)
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--binary", default=str(HERE.parent / "build/anygate"))
    parser.add_argument("--server", action="append", choices=NAMES)
    parser.add_argument("--kind", action="append", choices=KINDS)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-idle-"))
    try:
        make_files(work)
        for name in options.server or ("nginx", "anygate epoll", "anygate io_uring"):
            line, user = "", {}
            for entry in measure([name], options.kind or KINDS, options.connections, work, options.binary):
                for each in entry["servers"].values():
                    user[entry["kind"]] = each["bytes"]
                    line += f"  {entry['kind']} {each['bytes']:5} + {each['kernel_bytes']}"
            if "tls" in user and "h2" in user:
                line += f"  h2 beyond tls {user['h2'] - user['tls']}"
            print(f"{name:<17}{line} bytes of user and kernel memory each", flush=True)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
