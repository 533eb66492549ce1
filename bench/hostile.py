#!/usr/bin/env python3
"""Hostile clients by the thousand beside one that behaves: its p99, the server's memory, who was closed
in time (see docs/ARCHITECTURE.md, figures).

usage: hostile.py [--connections 10000] [--kind NAME ...] [--backend NAME ... | nginx] [--defaults]
                  [--binary build/anygate] [--seconds 10] [--rounds 1] [--realtime]

Each kind in turn opens so many connections and holds them until the server ends each; before that the
client that behaves is alone for --seconds. This goes on for --rounds with one server. The server runs on
core 0, all others on the last one: the client that behaves (500 requests a second on one kept-alive
connection, taking turns between a fixed and a proxied answer), upstreams and hostile clients. Limits are
shortened so that a run ends soon; --defaults leaves them as they are (a minute and a half for each kind);
--realtime keeps other work of the machine out (SCHED_FIFO) and its cores awake, for one that halts may
take milliseconds to wake when it is virtual.

  heads     part of a request head, then a byte now and then
  bodies    content that comes a byte at a time
  readers   a large file from memory, taken 20 bytes at a time
  files     the same from disk (half as many: each takes two descriptors of the server)
  proxied   the same through the proxy (half as many)
  uploads   content as fast as it goes, to an upstream that takes none of it (half as many)
  silent    a connection, and nothing more
  idle      one request, and nothing more
  burst     one request, and then part of a head: all at once, and so all are late at once

us: the p99 of the client that behaves while it is alone; opening, held, ending: its p99 while connections
are opened, until the first ends, and from then on, as multiples of that; medians of the rounds. late: connections that outlived their deadline (and the 2 s for a last answer) by more than 1.5 s. MiB: the
most that was resident, of what check says at most. turn ms: the longest that the well-behaved
client waited for an answer meanwhile.
"""
import argparse
import os
import pathlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import hostile_peers as peers
from awake import awake
from servers import free_port

HERE = pathlib.Path(__file__).resolve().parent
LAST = os.cpu_count() - 1
SHORT = dict(header_timeout=25, idle_timeout=25, body_grace=25, body_timeout=25, write_timeout=25,
             min_read_rate=4096)
USUAL = dict(header_timeout=10, idle_timeout=75, body_grace=5, body_timeout=30, write_timeout=30,
             min_read_rate=240)
CONFIG = """
server:
  listen: ["127.0.0.1:{port}"]
  workers: 1
  max_connections: 12000
  backend: {backend}
  limits: {{{limits}}}
static: {{cache: {{max_file: 8m}}}}
routes:
  GET /fixed: OK fixed
  "/echo": "*"
  "/www/": "./www/"
  "/up/*": "http://127.0.0.1:{origin}"
  "/good": "http://127.0.0.1:{other}/small"
"""
# nginx beside it (--backend nginx), with the same limits as far as it knows them.
NGINX = """
worker_processes 1; daemon off; master_process off; pid nginx.pid; error_log stderr crit;
worker_rlimit_nofile 30000;
events {{ worker_connections 24000; multi_accept on; }}
http {{
    access_log off; sendfile on; tcp_nodelay on; open_file_cache max=100; keepalive_requests 1000000000;
    client_header_timeout {header_timeout}s; client_body_timeout {body_timeout}s; send_timeout {write_timeout}s;
    keepalive_timeout {idle_timeout}s; client_max_body_size 0;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    upstream big {{ server 127.0.0.1:{origin}; }}
    upstream small {{ server 127.0.0.1:{other}; keepalive 16; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096 so_keepalive=off;
        proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0;
        proxy_request_buffering off;
        location = /fixed {{ return 200 "fixed"; }}
        location = /echo {{ proxy_pass http://big/sink; }}
        location /www/ {{ root .; }}
        location /up/ {{ proxy_pass http://big/; }}
        location = /good {{ proxy_pass http://small/small; }}
    }}
}}
"""
DRAIN = 2.0  # a last answer may wait so long for the peer's FIN
LATE = 1.5   # beyond the deadline: looks and timer ticks


class Client(threading.Thread):
    """The one that behaves. It sets out every 2 ms; what comes late is not made up for, since that would
    only measure the same wait again."""

    PATHS = (b"/fixed", b"/good")
    RATE = 500

    def __init__(self, port, realtime):
        super().__init__(daemon=True)
        self.port, self.realtime = port, realtime
        self.samples, self.wrong, self.done = [], [], False

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), 60)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def run(self):
        os.sched_setaffinity(0, {LAST})  # of this thread
        if self.realtime:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(4))
        s, turn, at = self.connect(), 0, time.monotonic()
        while not self.done:
            path = self.PATHS[turn % 2]
            turn += 1
            at = max(at + 1 / self.RATE, time.monotonic())
            time.sleep(at - time.monotonic() if at > time.monotonic() else 0)
            began = time.perf_counter_ns()
            try:
                s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                data = b""
                while not data.endswith((b"fixed", b"small")):
                    more = s.recv(65536)
                    if not more:
                        raise OSError("closed")
                    data += more
                if not data.startswith(b"HTTP/1.1 200"):
                    raise OSError(data[:60])
            except OSError as e:
                self.wrong.append(f"{path}: {e}")
                s.close()
                s = self.connect()
            else:
                self.samples.append((path, (time.perf_counter_ns() - began) / 1000, at))

    def take(self):
        samples, self.samples = self.samples, []
        return samples


def p99(samples, path):
    values = sorted(us for p, us, _ in samples if p == path)
    return values[int(len(values) * 0.99)] if values else float("nan")


def pinned(core, realtime, priority):
    return ["taskset", "-c", str(core), *(["chrt", "-f", str(priority)] if realtime else [])]


def self_as(*args):
    return [sys.executable, __file__, *map(str, args)]


class Server:
    """anygate (or nginx), and two upstreams: one for hostile clients, one for the other."""

    def __init__(self, options, backend, limits, folder):
        self.port, ports = free_port(), [free_port(), free_port()]
        (folder / "www").mkdir()
        for name, size in (("big.bin", 2 * peers.BIG), ("cached.bin", peers.BIG)):
            with open(folder / "www" / name, "wb") as f:
                f.truncate(size)
        command = self.nginx if backend == "nginx" else self.anygate
        args = command(options, backend, limits, folder, dict(port=self.port, origin=ports[0], other=ports[1]))
        self.origins = [subprocess.Popen([*pinned(LAST, options.realtime, 2 + i),
                                          *self_as("--origin", port)]) for i, port in enumerate(ports)]
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen([*pinned(0, options.realtime, 2), *args], cwd=folder, stderr=log)
        for port in (self.port, *ports):
            self.await_port(port, folder / "log")

    def anygate(self, options, backend, limits, folder, ports):
        text = ", ".join(f"{k}: {v}{'' if 'rate' in k else 's'}" for k, v in limits.items())
        config = folder / "anygate.yml"
        config.write_text(CONFIG.format(backend=backend, limits=text, **ports))
        told = subprocess.run([options.binary, "check", "-c", config], capture_output=True, text=True)
        each, base = re.search(r"(\d+) MiB of memory:.*beside the shards (\d+) MiB", told.stdout,
                               re.S).groups()
        self.ceiling = int(each) + int(base)
        return [options.binary, "serve", "-c", config]

    def nginx(self, _options, _backend, limits, folder, ports):
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(**limits, **ports))
        self.ceiling = "-"
        return ["nginx", "-p", folder, "-c", config]

    @staticmethod
    def await_port(port, log):
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"nothing answers on port {port}: {log.read_text()}")

    def most_resident(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10

    def stop(self):
        self.process.terminate()
        code = self.process.wait()
        for origin in self.origins:
            origin.terminate()
            origin.wait()
        return code


def longest_life(kind, limits):
    """Seconds; None: its end is none of the server's limits."""
    _, _, read, limit = peers.KINDS[kind]
    if not limit:
        return None
    seconds = limits[limit] + DRAIN + LATE
    if read:  # its system may take a window more when it likes; three looks in each timeout
        seconds += peers.WINDOW / limits["min_read_rate"] + limits["write_timeout"] / 3
    return seconds


class Round:
    """The client alone, and then beside a flood."""

    def __init__(self, kind, count, deadline, server, client, options):
        time.sleep(1)
        client.take()
        time.sleep(options.seconds)
        before = client.take()
        at_most = (deadline or 30) + count / peers.OPENED_A_SECOND + 30
        out = subprocess.run(
            [*pinned(LAST, options.realtime, 1), *self_as("--flood", kind, "--port", server.port,
             "--connections", count, "--at-most", at_most)], stdout=subprocess.PIPE, text=True).stdout
        during = client.take()
        left, failed, all_open, first_end, *self.lives = map(float, out.split())
        self.left, self.failed = int(left), int(failed)
        self.phases = [before, [s for s in during if s[2] < all_open],
                       [s for s in during if all_open <= s[2] < first_end],
                       [s for s in during if s[2] >= max(all_open, first_end)]]
        self.longest = max((us for _, us, _ in during), default=0)


def measure(kind, backend, options, limits, folder):
    count = options.connections // (2 if kind in peers.TWO_DESCRIPTORS else 1)
    deadline = longest_life(kind, limits) if backend != "nginx" else None  # its own rules
    server = Server(options, backend, limits, folder)
    try:
        client = Client(server.port, options.realtime)
        client.start()
        rounds = [Round(kind, count, deadline, server, client, options) for _ in range(options.rounds)]
        client.done = True
        client.join(5)
        memory = server.most_resident()
    finally:
        code = server.stop()
    lives = [life for r in rounds for life in r.lives]
    late = sum(life > deadline for life in lives) + sum(r.left for r in rounds) if deadline else "-"
    cells = [backend, kind, count, sum(r.failed for r in rounds), late, f"{max(lives, default=0):.1f}"]
    for path in Client.PATHS:
        alone, *others = (statistics.median(each) for each in
                          zip(*([p99(phase, path) for phase in r.phases] for r in rounds)))
        cells += [f"{alone:.0f}", *(f"{other / alone:.2f}" for other in others)]
    cells += [f"{max(r.longest for r in rounds) / 1000:.0f}", len(client.wrong), memory, server.ceiling, code]
    return cells, client.wrong


HEADS = ["backend", "kind", "open", "failed", "late", "longest s", "fixed us", "opening", "held", "ending",
         "proxied us", "opening", "held", "ending", "turn ms", "errors", "MiB", "of", "exit"]


def show(cells):
    print(" ".join(str(c).rjust(max(7, len(h))) for c, h in zip(cells, HEADS)), flush=True)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=__doc__)
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--kind", action="append", choices=list(peers.KINDS))
    parser.add_argument("--backend", action="append", choices=["epoll", "io_uring", "nginx"])
    parser.add_argument("--binary", type=lambda name: pathlib.Path(name).resolve(),
                        default=HERE.parent / "build/anygate")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--defaults", action="store_true")
    parser.add_argument("--realtime", action="store_true")
    for name, kind in (("--origin", int), ("--flood", str), ("--port", int), ("--at-most", float)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.origin:
        peers.Origin(options.origin).run()
    if options.flood:
        peers.flood(options.flood, options.port, options.connections, options.at_most)
        return
    show(HEADS)
    for backend in options.backend or ["epoll", "io_uring"]:
        for kind in options.kind or peers.KINDS:
            with tempfile.TemporaryDirectory() as folder, awake(options.realtime):
                cells, wrong = measure(kind, backend, options, USUAL if options.defaults else SHORT,
                                       pathlib.Path(folder))
            show(cells)
            for text in wrong[:3]:
                print("   ", text)


if __name__ == "__main__":
    main()
