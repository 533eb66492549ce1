#!/usr/bin/env python3
"""Reloads under full load: requests that fail, what they cost the slowest, memory afterwards.

usage: reload.py [--reloads 200] [--before 60] [--interval 1] [--routes 500] [--tunnels 1000]
                 [--connections 64] [--rate 0] [--realtime] [--binary build/anygate]
                 [--backend epoll --backend io_uring]

Each backend serves one shard. bench/load.c keeps 64 connections busy with fixed, static and proxied
answers, first for --before seconds without a reload, then with one every --interval seconds. Beside it --tunnels
WebSockets stay open throughout, and so do a chunked upload and a download, each checked byte for byte;
chunked uploads and new connections follow each other. Fails unless no request failed, no stream was
cut, and memory after the last reload is within the size of 8 snapshots of memory after the first 20.
What is written in Python gets the time that nobody else wants (SCHED_IDLE): it would be waited for.

With --rate so many requests a second are asked, no matter how fast they are answered, instead of as many
as go. --realtime lets server, load and upstream run before whatever else wants their cores (SCHED_FIFO), and keeps
the cores awake: one that halts may take milliseconds to wake when it is virtual. It wants a --rate that leaves the cores
a tenth: the kernel stops what runs before all else for 50 ms of each second in which it never pauses.

The slowest request of each second is compared with the p99.9 of the time before and 5 ms. So are the
seconds before the first reload and, from --interval 2 on, those between: what they exceed is the
machine's doing, not the reload's.
"""
import argparse
import contextlib
import hashlib
import os
import pathlib
import re
import resource
import selectors
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

from awake import awake
from servers import free_port

HERE = pathlib.Path(__file__).resolve().parent
CORES = sorted(os.sched_getaffinity(0))
SAMPLE = struct.Struct("=QII")
UPGRADE = ("GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
SWITCHING = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
SLACK_US = 5000
NORMAL = ["chrt", "--other", "0"]  # not as this program


def connect(port):
    for _ in range(400):
        try:
            s = socket.create_connection(("127.0.0.1", port), 60)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return s
        except ConnectionRefusedError:
            time.sleep(0.025)
    raise SystemExit(f"nothing answers on port {port}")


def exactly(s, n):
    out = b""
    while len(out) < n:
        data = s.recv(n - len(out))
        if not data:
            raise OSError(f"closed after {len(out)} of {n} bytes")
        out += data
    return out


def head_of(s):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(s, 1)
    return head


# ---- the upstream of tunnels and streams; what is small and fast comes from an anygate of its own

class Origin:
    """Echoes tunnels, takes a digest of uploads, and streams until it is told to end."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.tunnels = selectors.DefaultSelector()
        self.end = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._echo, daemon=True).start()

    def _accept(self):
        while True:
            s, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        try:
            while True:
                head = head_of(s)
                if head.startswith(b"GET /ws"):
                    s.sendall(SWITCHING)
                    self.tunnels.register(s, selectors.EVENT_READ)
                    return
                if head.startswith(b"GET /stream"):
                    self._stream(s)
                else:
                    self._upload(s)
        except OSError:
            s.close()

    def _stream(self, s):
        s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        at = 0
        while not self.end.wait(0.02):
            s.sendall(b"8\r\n%08d\r\n" % at)
            at += 1
        s.sendall(b"0\r\n\r\n")

    def _upload(self, s):
        digest = hashlib.sha256()
        while True:
            line = b""
            while not line.endswith(b"\r\n"):
                line += exactly(s, 1)
            size = int(line, 16)
            data = exactly(s, size + 2)
            if size == 0:
                break
            digest.update(data[:-2])
        answer = digest.hexdigest().encode()
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))

    def _echo(self):
        while True:
            for key, _ in self.tunnels.select(0.2):
                try:
                    data = key.fileobj.recv(65536)
                    if data:
                        key.fileobj.sendall(data)
                        continue
                except OSError:
                    pass
                self.tunnels.unregister(key.fileobj)
                key.fileobj.close()


# ---- clients beside the load

class Others:
    """What goes on throughout; `failures` says what went wrong."""

    def __init__(self, port, tunnels):
        self.port, self.ending = port, threading.Event()
        self.failures, self.counts = [], {}
        self.tunnels = []
        self.threads = []
        self.add_tunnels(tunnels)
        self.start(self.one_upload, self.uploads, self.one_download, self.new, self.talk)

    def add_tunnels(self, count):
        for _ in range(count):
            s = connect(self.port)
            s.sendall(UPGRADE.encode())
            assert head_of(s).startswith(b"HTTP/1.1 101 ")
            self.tunnels.append(s)

    def start(self, *bodies):
        for body in bodies:
            self.threads.append(threading.Thread(target=self._run, args=(body,), daemon=True))
            self.threads[-1].start()

    def _run(self, body):
        try:
            body()
        except Exception as e:  # noqa: BLE001 it is told at the end
            self.failures.append(f"{body.__name__}: {type(e).__name__}: {e}")

    def count(self, name, n=1):
        self.counts[name] = self.counts.get(name, 0) + n

    def _answer(self, s):
        """The content, and whether the connection stays."""
        head = head_of(s)
        assert head.startswith(b"HTTP/1.1 200 "), head
        return (exactly(s, int(re.search(rb"(?i)content-length: (\d+)", head)[1])),
                b"\r\nConnection: close\r\n" not in head)

    def _upload(self, s, parts, pause):
        digest = hashlib.sha256()
        s.sendall(b"POST /up HTTP/1.1\r\nHost: bench\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in parts:
            s.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            digest.update(part)
            self.count("uploaded bytes", len(part))
            time.sleep(pause)
        s.sendall(b"0\r\n\r\n")
        content, kept = self._answer(s)
        assert content.decode() == digest.hexdigest(), "another digest"
        return kept

    def one_upload(self):
        def parts():
            while not self.ending.is_set():
                yield os.urandom(800)
        self._upload(connect(self.port), parts(), 0.05)

    def uploads(self):
        while not self.ending.is_set():
            with connect(self.port) as s:
                kept = True
                while kept and not self.ending.is_set():
                    kept = self._upload(s, [os.urandom(3000)] * 10, 0.01)
                    self.count("uploads")

    def one_download(self):
        s = connect(self.port)
        s.sendall(b"GET /stream HTTP/1.1\r\nHost: bench\r\n\r\n")
        assert head_of(s).startswith(b"HTTP/1.1 200 ")
        at = 0
        while (piece := exactly(s, 5)) != b"0\r\n\r\n":
            assert piece + exactly(s, 8) == b"8\r\n%08d\r\n" % at
            at += 1
        self.count("download pieces", at)

    def new(self):
        while not self.ending.is_set():
            with connect(self.port) as s:
                s.sendall(b"GET /fixed HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                self._answer(s)
            self.count("new connections")
            time.sleep(0.02)

    def talk(self):
        """A word in every tunnel, again and again; the last round sees that none was cut."""
        i, last = 0, False
        while self.tunnels and not last:
            last = self.ending.is_set()
            for s in self.tunnels:
                word = b"%06d" % (i % 1000000)
                s.sendall(word)
                assert exactly(s, 6) == word, "a tunnel mixed up its bytes"
                self.count("tunnel words")
                i += 1
                if not last:
                    time.sleep(0.001)

    def end(self, origin):
        self.ending.set()
        time.sleep(0.2)
        origin.end.set()
        for thread in self.threads:
            thread.join(60)
            if thread.is_alive():
                self.failures.append("a client is stuck")
        for s in self.tunnels:
            s.close()
        origin.end.clear()


# ---- one backend

def config(options, backend, port, small, origin, folder, generation, server="drain_timeout: 1s"):
    routes = "".join(f"  GET /number/{i}/x: OK {generation}\n" for i in range(options.routes))
    return f"""
server: {{listen: ["127.0.0.1:{port}"], workers: 1, backend: {backend}, {server},
         limits: {{max_body: 1g}}}}
static: {{root: {folder}}}
routes:
  GET /fixed: OK ok
  "/files/": "/files/"
  /small: "http://127.0.0.1:{small}"
  /*: "http://127.0.0.1:{origin}"
{routes}"""


def memory(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
    return int(re.search(r"Rss: +(\d+)", text)[1]) << 10, int(pages[0]) * resource.getpagesize()


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


def report(name, samples, begun, moments, before, interval, event="a reload"):
    """Latency in microseconds; seconds are counted from `begun`."""
    quiet = [s for s in samples if s[0] < begun]
    bound = quantile([s[1] for s in quiet], 0.999) + SLACK_US
    kinds = {"before": [begun - (before - i) * 1000000 for i in range(1, before)],
             f"with {event}": moments,
             "between": [m + 1000000 for m in moments] if interval >= 2 else []}
    print(f"{name}: {len(samples)} requests, {len(quiet) / before:.0f}/s before, "
          f"p50 {quantile([s[1] for s in quiet], 0.5)} us, p99.9 {bound - SLACK_US} us")
    for what, starts in kinds.items():
        slowest = [max((s[1] for s in w), default=0) for w in windows(samples, starts)]
        if not slowest:
            continue
        over = sum(x > bound for x in slowest)
        print(f"  slowest of a second {what:<15} median {statistics.median(slowest):>7.0f} us, "
              f"p95 {quantile(slowest, 0.95):>7} us, largest {max(slowest):>7} us, "
              f"beyond p99.9 + 5 ms: {over} of {len(slowest)}")


def windows(samples, moments):
    """The samples that ended in the second after each moment."""
    at = 0
    for moment in moments:
        while at < len(samples) and samples[at][0] < moment:
            at += 1
        end = at
        while end < len(samples) and samples[end][0] < moment + 1000000:
            end += 1
        yield samples[at:end]


def reload_all(options, server, log, write):
    """The moments, and memory after the twentieth and the last."""
    moments, sizes = [], []
    for generation in range(1, options.reloads + 1):
        next_at = time.monotonic() + options.interval
        write(generation)
        moments.append(int(time.monotonic() * 1e6))
        server.send_signal(signal.SIGHUP)
        time.sleep(max(0, next_at - time.monotonic()))
        if generation in (min(20, options.reloads), options.reloads):
            sizes.append(memory(server.pid))
    done = log.read_text().count("reloaded: ")
    return moments, sizes, done


def beside(options, priority):
    """What runs on the last core, that the server does not use."""
    policy = ["chrt", "--fifo", str(priority)] if options.realtime else NORMAL
    return [*policy, "taskset", "-c", str(CORES[-1])]


def start_load(options, loader, port, folder, seconds):
    command = [loader, options.rate, port, options.connections, seconds + 300, folder / "samples", "/fixed",
               "/files/1k.txt", "/small"]
    return subprocess.Popen([*beside(options, 1), *map(str, command)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def run(options, backend, loader, origin, small, folder):
    port, path, log = free_port(), folder / f"{backend}.yml", folder / f"{backend}.log"

    def write(generation):
        (folder / "next").write_text(
            config(options, backend, port, small, origin.port, folder, generation))
        os.replace(folder / "next", path)

    write(0)
    first = ["chrt", "--fifo", "1"] if options.realtime else NORMAL
    server = subprocess.Popen([*first, options.binary, "serve", "-c", str(path)], stderr=log.open("w"))
    bad, cores = [], contextlib.ExitStack()
    try:
        cores.enter_context(awake(options.realtime))
        connect(port).close()
        others = Others(port, options.tunnels)
        load = start_load(options, loader, port, folder, options.before + options.reloads * options.interval)
        time.sleep(options.before)
        begun = int(time.monotonic() * 1e6)
        moments, sizes, done = reload_all(options, server, log, write)
        others.end(origin)
        out, errors = load.communicate()
        samples = list(SAMPLE.iter_unpack((folder / "samples").read_bytes()))
        report(backend, samples, begun, moments, options.before, options.interval)
        requests, failures = map(int, out.split())
        print(f"  {done} reloads, {failures} of {requests} requests failed; beside them "
              + ", ".join(f"{n} {what}" for what, n in sorted(others.counts.items()))
              + f", {len(others.tunnels)} tunnels")
        size = snapshot_bytes(options, folder)
        grown = sizes[-1][0] - sizes[0][0]
        print(f"  memory after 20 reloads {sizes[0][0] >> 10} KiB resident, after {done} "
              f"{sizes[-1][0] >> 10} KiB; mapped {sizes[0][1] >> 10} and {sizes[-1][1] >> 10} KiB; "
              f"a snapshot is about {size >> 10} KiB")
        bad = others.failures + errors.splitlines()[:5]
        bad += [f"{done} of {options.reloads} reloads"] * (done != options.reloads)
        bad += [f"memory has grown by {grown} bytes"] * (grown > 8 * size + (1 << 20))
    finally:
        cores.close()
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    bad += [f"exit code {code}"] * (code != 0)
    for line in bad:
        print(f"  FAILED {line}")
    return not bad


def snapshot_bytes(options, folder):
    """What the configuration's text and tree come to is told by how `check` grows with it."""
    sizes = []
    for routes in (0, options.routes):
        path = folder / "size.yml"
        path.write_text("routes:\n  /x: OK\n" + "".join(
            f"  GET /number/{i}/x: OK 100\n" for i in range(routes)))
        check = subprocess.Popen([options.binary, "check", "-c", str(path)],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, _, usage = os.wait4(check.pid, 0)
        sizes.append(usage.ru_maxrss << 10)
    return max(sizes[1] - sizes[0], 64 << 10)


def arguments(before, interval, tunnels):
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=int, default=before)
    parser.add_argument("--interval", type=int, default=interval)
    parser.add_argument("--routes", type=int, default=500)
    parser.add_argument("--tunnels", type=int, default=tunnels)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--binary", default=str(HERE.parent / "build/anygate"))
    parser.add_argument("--backend", action="append", choices=["epoll", "io_uring"])
    return parser


def run_all(options, run, modes):
    """run(options, mode, loader, origin, small's port, folder) for each; the exit code."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with tempfile.TemporaryDirectory(prefix="anygate-bench-") as name:
        folder = pathlib.Path(name)
        (folder / "files").mkdir()
        (folder / "files/1k.txt").write_bytes(os.urandom(512).hex().encode())
        loader = folder / "load"
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", loader, HERE / "load.c"], check=True)
        origin, small = Origin(), free_port()
        answering = subprocess.Popen(
            [*beside(options, 2), options.binary, "serve", "-l", f"127.0.0.1:{small}",
             "-r", "/*: OK ok"], env={**os.environ, "ANYGATE_SERVER__WORKERS": "1"},
            stderr=subprocess.DEVNULL)
        try:
            connect(small).close()
            good = [run(options, mode, loader, origin, small, folder) for mode in modes]
        finally:
            answering.send_signal(signal.SIGTERM)
            answering.wait(60)
    return 0 if all(good) else 1


def main():
    parser = arguments(before=60, interval=1, tunnels=1000)
    parser.add_argument("--reloads", type=int, default=200)
    options = parser.parse_args()
    sys.exit(run_all(options, run, options.backend or ["epoll", "io_uring"]))


if __name__ == "__main__":
    main()
