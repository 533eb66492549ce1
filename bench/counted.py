"""Counts instructions by callgrind so that they are the same each time, whoever else uses the machine.

Operations   callgrind collects in micro_batch alone, and writes what it has at the end of micro_count (bench/micro/main.c).

Requests     one connection at a time to a server of one worker, each request (or batch) when the one before has been
             answered. Callgrind writes what it has at each accept4: what a connection cost lies between the accepts
             of it and of the next. A connection of N requests and one of 2N differ by N requests and nothing else.
             Client, origin and server share one processor, and the server's scheduling class (batch) never
             interrupts them: whatever they send in one go lies ready when it runs.

libc chooses its memcpy, strlen, ... by the processor. They are part of what a request costs, so they are counted, but
those for every x86-64 are chosen (GLIBC_TUNABLES), and what depends on the caches' sizes is fixed. xxHash and zlib of
the distribution choose nothing, wolfSSL is in no case. The environment, which moves the stack, is empty besides.
"""
import os
import pathlib
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

from servers import free_port

WITHOUT = ("AVX512F", "AVX512VL", "AVX512BW", "AVX2", "AVX", "ERMS", "FSRM", "RTM", "SSE4_2", "SSE4_1",
           "SSSE3", "BMI1", "BMI2", "LZCNT", "MOVBE", "POPCNT", "Fast_Unaligned_Copy", "Fast_Copy_Backward",
           "Prefer_No_VZEROUPPER", "Prefer_ERMS", "Prefer_FSRM", "AVX_Fast_Unaligned_Load", "Slow_BSF",
           "Prefer_MAP_32BIT_EXEC")
ENVIRON = {"GLIBC_TUNABLES": ":".join((
    "glibc.cpu.hwcaps=" + ",".join("-" + name for name in WITHOUT),
    "glibc.cpu.x86_non_temporal_threshold=0xc0000", "glibc.cpu.x86_data_cache_size=0x8000",
    "glibc.cpu.x86_shared_cache_size=0x100000")), "PATH": os.environ["PATH"]}
CALLGRIND = ["valgrind", "--tool=callgrind", "--vgdb=no", "-q"]
CONFIG = """
server:
  listen: ["127.0.0.1:@PORT@"]
  workers: 1
  backend: epoll
proxy:
  upstreams:
    origin: {servers: ["127.0.0.1:@ORIGIN@"]}
static:
  root: @DIR@
routes:
  GET /fixed: OK OK
  /echo: "*"
  "/static/": "/files/"
  "/proxy/*": "http://origin/*"
"""


def total(part):
    return sum(int(n) for n in re.findall(r"^totals: (\d+)", part.read_text(), re.M))


def parts(out):
    """What callgrind has written so far, in order."""
    return sorted(out.parent.glob(f"{out.name}.*"), key=lambda p: int(p.suffix[1:]))


def operations(build, only):
    """{name: instructions of one}"""
    with tempfile.TemporaryDirectory(prefix="anygate-instructions-") as work:
        out = pathlib.Path(work) / "out"
        done = subprocess.run(
            [*CALLGRIND, "--collect-atstart=no", "--toggle-collect=micro_batch", "--dump-after=micro_count",
             f"--callgrind-out-file={out}", build / "bench/micro/micro", "--count", only],
            env=ENVIRON, text=True, stdout=subprocess.PIPE, check=True)
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        counts = [total(part) for part in parts(out)][:len(rows)]
    if len(rows) != len(counts):
        raise SystemExit(f"callgrind wrote {len(counts)} parts for {len(rows)} operations")
    return {name: count / int(times) for (times, name), count in zip(rows, counts)}


# ---- the origin ----

def origin_answer(path):
    size = 65536 if b"64k" in path else 2
    return (b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 29 Nov 2026 13:28:46 GMT\r\n"
            b"Content-Type: text/plain\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n" % size
            + b"x" * size)


class Origin(threading.Thread):
    """Answers requests without content, on however many connections, one at a time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.port = self.listener.getsockname()[1]

    def run(self):
        ready = select.poll()
        ready.register(self.listener, select.POLLIN)
        connections = {}
        while True:
            for fd, _ in ready.poll():
                if fd == self.listener.fileno():
                    connection = self.listener.accept()[0]
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connections[connection.fileno()] = connection
                    ready.register(connection, select.POLLIN)
                    continue
                head = connections[fd].recv(65536)
                if head:
                    connections[fd].sendall(origin_answer(head.split(b" ", 2)[1]))
                else:
                    ready.unregister(fd)
                    connections.pop(fd).close()


# ---- the client: each sends a batch and reads its answers ----

def connect(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    s.settimeout(60)
    s.connect(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read(s):
    got = s.recv(1 << 18)
    if not got:
        raise SystemExit("the server has closed the connection")
    return got


class H1:
    def __init__(self, path, at_once=1):
        self.at_once = at_once
        self.request = (f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\n"
                        "Accept: */*\r\n\r\n").encode() * at_once

    def begin(self, s):
        """Reads an answer to know the length of all."""
        s.sendall(self.request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += read(s)
        head = got.partition(b"\r\n\r\n")[0]
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"{self.request}: {got}")
        length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
        self.bytes = self.at_once * (len(head) + 4 + length)
        self.rest(s, len(got))

    def rest(self, s, have):
        while have < self.bytes:
            have += len(read(s))

    def batch(self, s):
        s.sendall(self.request)
        self.rest(s, 0)


class H2:
    """As h2load asks: what repeats is in the table from the second request on."""

    def __init__(self, path, at_once=32):
        self.path, self.at_once = path.encode(), at_once

    def begin(self, s):
        name = b"\x82\x86\x44" + bytes([len(self.path)]) + self.path + b"\x41\x09localhost\x7a\x06h2load"
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0) + self.frame(4, 1, 0)
                  + self.frame(1, 5, 1, name))
        self.id, self.unread = 3, b""
        self.ended(s, 1)

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def ended(self, s, count):
        """Reads until so many streams have ended."""
        while count > 0:
            self.unread += read(s)
            while len(self.unread) >= 9:
                length, kind, flags = struct.unpack(">IBx", b"\0" + self.unread[:5])[0], *self.unread[3:5]
                if len(self.unread) < 9 + length:
                    break
                if kind in (3, 7):
                    raise SystemExit(f"h2 {self.path}: {self.unread}")
                count -= kind in (0, 1) and flags & 1
                self.unread = self.unread[9 + length:]

    def batch(self, s):
        s.sendall(b"".join(self.frame(1, 5, self.id + 2 * i, b"\x82\x86\xc0\xbf\xbe")
                           for i in range(self.at_once)))
        self.id += 2 * self.at_once
        self.ended(s, self.at_once)


# name: what asks, and how many batches on the shorter connection
REQUESTS = {
    "request, h1 fixed": (H1("/fixed"), 300),
    "request, h1 fixed, pipelined 16": (H1("/fixed", 16), 60),
    "request, h1 echo": (H1("/echo"), 300),
    "request, h1 static 1 KB": (H1("/static/1k.txt"), 300),
    "request, h1 proxy 2 bytes": (H1("/proxy/small"), 200),
    "request, h1 proxy 64 KB": (H1("/proxy/64k"), 100),
    "request, h2 fixed, 32 streams": (H2("/fixed"), 50),
    "request, h2 to h1 proxy, 32 streams": (H2("/proxy/small"), 20),
}


class Server:
    def __init__(self, build, work, origin):
        self.out, self.port = work / "out", free_port()
        (work / "files").mkdir()
        (work / "files" / "1k.txt").write_bytes(b"x" * 1024)
        config = work / "anygate.yml"
        values = {"PORT": self.port, "ORIGIN": origin, "DIR": work}
        config.write_text(re.sub(r"@(\w+)@", lambda m: str(values[m[1]]), CONFIG))
        self.log = open(work / "log", "wb+")
        self.process = subprocess.Popen(
            [*CALLGRIND, "--dump-before=accept4", f"--callgrind-out-file={self.out}", build / "anygate", "serve",
             "-c", config], env=ENVIRON, stdout=self.log, stderr=self.log,
            preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)))
        self.wait()

    def wait(self):
        for _ in range(600):
            try:
                connect(self.port).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        self.log.seek(0)
        raise SystemExit(f"the server does not start: {self.log.read().decode()}")

    def connection(self, load, batches):
        """What was written before its first answer."""
        with connect(self.port) as s:
            load.begin(s)
            written = parts(self.out)
            for _ in range(batches):
                load.batch(s)
        return written

    def count(self, load, batches):
        """Instructions of a request."""
        self.connection(load, batches)  # what is done the first time alone
        marks = [len(self.connection(load, n)) for n in (batches, 2 * batches, 0)]
        costs = [total(part) for part in parts(self.out)]
        shorter, longer = (sum(costs[a:b]) for a, b in zip(marks, marks[1:]))
        return (longer - shorter) / (batches * load.at_once)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def requests(build, only):
    """{name: instructions of one}"""
    chosen = {name: asked for name, asked in REQUESTS.items() if only in name}
    if not chosen:
        return {}
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-instructions-"))
    try:
        origin = Origin()
        origin.start()
        server = Server(build, work, origin.port)
        try:
            return {name: server.count(load, batches) for name, (load, batches) in chosen.items()}
        finally:
            server.stop()
    finally:
        os.sched_setaffinity(0, allowed)
        shutil.rmtree(work)
