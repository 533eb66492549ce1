#!/usr/bin/env python3
"""How often a request finds an idle connection to its server, by one shard and by several; what a new one costs.

usage: reuse.py [--binary build/anygate] [--backend auto] [--shards 1 2] [--servers 100] [--idle 5] [--per-idle 0.3 1 3 10]

Each of so many servers is asked at random times, so often in each `keepalive.idle_timeout` (--per-idle; --idle seconds,
which stand for the 60 of the default: only the product counts), by clients on 32 connections, which the kernel spreads
over the shards. A shard finds a connection where it has used one since: of x requests in the time, a share of
1 - e^(-x/shards). What sharing connections would save is the difference between the shards' rates of new connections
and a single one's, which is x (e^(-x/shards) - e^-x) in each idle time, whatever the load: its maximum is printed,
in connections a second of a server at 60 s, with what they cost by the measured price of one.
"""
import argparse
import math
import multiprocessing
import pathlib
import random
import selectors
import socket
import subprocess
import tempfile
import time

from servers import free_port

CLIENTS = 32
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PRICED = 4000  # requests
IDLE_S = 60


def origin(listeners, accepted):
    poll = selectors.DefaultSelector()
    for sock in listeners:
        sock.setblocking(False)
        poll.register(sock, selectors.EVENT_READ, True)
    while True:
        for key, _ in poll.select():
            sock = key.fileobj
            if key.data:
                conn, _ = sock.accept()
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(conn, selectors.EVENT_READ, False)
                accepted.value += 1
            elif sock.recv(65536):
                sock.send(ANSWER)
            else:
                poll.unregister(sock)
                sock.close()


class Proxy:
    def __init__(self, args, shards, ports, keepalive):
        self.folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        path = pathlib.Path(self.folder.name) / "anygate.yml"
        path.write_text(
            f'server: {{listen: ["127.0.0.1:{self.port}"], workers: {shards}, backend: {args.backend}, '
            f'limits: {{idle_timeout: 10m}}}}\nproxy: {{keepalive: {{{keepalive}}}}}\nroutes:\n'
            + "".join(f'  "/{i}": "http://127.0.0.1:{port}"\n' for i, port in enumerate(ports)))
        self.process = subprocess.Popen([args.binary, "serve", "-c", str(path)], stderr=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                time.sleep(0.05)
        self.clients = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(CLIENTS)]
        for sock in self.clients:  # one that says nothing at first would be closed
            self.ask(0, sock)

    def ask(self, server, sock=None):
        sock = sock or random.choice(self.clients)
        sock.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % server)
        answer = sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    def cpu_us(self):
        """Of all its threads."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1000

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in self.clients:
            sock.close()
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def reuse(args, shards, ports, accepted, per_idle):
    """The share of requests that found a connection, after one idle time of warming up."""
    with Proxy(args, shards, ports, f"idle_timeout: {args.idle}s") as proxy:
        rate = per_idle / args.idle * len(ports)
        begun = due = time.monotonic()
        first = asked = before = 0
        while due < begun + 4 * args.idle:
            due += random.expovariate(rate)
            time.sleep(max(0, due - time.monotonic()))
            if not first and due > begun + args.idle:
                first, before = asked, accepted.value
            proxy.ask(random.randrange(len(ports)))
            asked += 1
        return 1 - (accepted.value - before) / (asked - first)


def price(args, ports):
    """CPU and time of the proxy for one more connection, in microseconds."""
    found = []
    for keepalive in ("max_idle: 64", "max_idle: 0"):
        best = []
        for _ in range(3):
            with Proxy(args, 1, ports[:1], keepalive) as proxy:
                cpu, begun = proxy.cpu_us(), time.monotonic()
                for _ in range(PRICED):
                    proxy.ask(0)
                best.append(((proxy.cpu_us() - cpu) / PRICED, (time.monotonic() - begun) * 1e6 / PRICED))
        found.append([min(column) for column in zip(*best)])
    return [new - kept for kept, new in zip(*found)]


def most_saved(shards):
    """Connections that sharing saves at most, in an idle time, of one server."""
    return max(x * (math.exp(-x / shards) - math.exp(-x)) for x in (i / 100 for i in range(1, 10000)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="build/anygate")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument("--idle", type=int, default=5)
    parser.add_argument("--per-idle", type=float, nargs="+", default=[0.3, 1, 3, 10])
    args = parser.parse_args()
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(args.servers)]
    ports = [sock.getsockname()[1] for sock in listeners]
    accepted = multiprocessing.Value("q", 0, lock=False)
    process = multiprocessing.Process(target=origin, args=(listeners, accepted), daemon=True)
    process.start()
    try:
        print("requests of a server   found a connection")
        print("in 60 s     a second  " + "  ".join(f"{n} shard{'s' if n > 1 else ' '} (model)" for n in args.shards))
        for per_idle in args.per_idle:
            cells = [f"{reuse(args, n, ports, accepted, per_idle):8.1%} {1 - math.exp(-per_idle / n):8.1%}"
                     for n in args.shards]
            print(f"{per_idle:7g} {per_idle / IDLE_S:12.4f}  " + "  ".join(cells), flush=True)
        cpu_us, time_us = price(args, ports)
        print(f"one more connection: {cpu_us:.1f} us of CPU, {time_us:.0f} us of the client's time, on loopback")
        for n in (*args.shards, 8, 32):
            if n > 1:
                saved = most_saved(n) / IDLE_S
                print(f"{n:2} shards: sharing saves at most {saved:.4f} connections a second of a server, "
                      f"{saved * cpu_us * 1000 / 1e4:.4f} % of a core for 1000 servers")
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
