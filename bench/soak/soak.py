#!/usr/bin/env python3
"""A mix of all that can happen to a gateway, for a while: does it stay as it is?

usage: soak.py [--seconds 600] [--binary build/anygate] [--backend epoll --backend io_uring]

Each backend serves two shards for its part of the time, restarted by nobody. At once, each in a process of
its own:

    load       bench/load.c: a closed loop of fixed, static and proxied answers on 16 connections
    work       what the fault tests do (tests/fault/work.py): uploads, downloads, pipelines, WebSockets,
               clients that vanish; every byte compared
    tunnels    50 WebSockets that stay open throughout and echo
    idle       200 keep-alive connections that seldom ask
    rude       clients that leave in the middle of heads, bodies and answers, by FIN and by RST
    dying      requests to upstreams that reset, close and stall at every stage; one of them is killed and
               started again all the time
    reloads    by SIGHUP: changed routes, one more listener and one less, mistakes

A sample is taken at every turn of the load. Fails when anything that should have gone well did not; when
memory still grows in the second half (a line through it rises by more than 2% and 1 MB); when descriptors
are not as many at the end as they were after the first minute's rest; or when the server does not end in
order. Latencies are shown, not judged: the machine's other work is in them.
"""
import argparse
import multiprocessing
import os
import pathlib
import random
import re
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/fault")]

from gate import BROKEN, Closed, Upstream, free_port  # noqa: E402
from lying import STAGES, WAYS, Lying, leave  # noqa: E402
from work import BLOB, LARGE, Answers, Work, Wrong, answer, get, post  # noqa: E402

SAMPLE = struct.Struct("=QII")
TUNNELS, IDLE = 50, 200
CONFIG = """
server:
  listen: ["127.0.0.1:@PORT@"@MORE@]
  workers: 2
  backend: @BACKEND@
  drain_timeout: 20s
  log: {level: warn}
  limits: {idle_timeout: 1h}
static: {cache: {max_file: 64k}}
routes:
  "/fixed": OK fixed
  "/echo": "*"
  "/files/*": "@FILES@/*"
  "/up/*": "http://127.0.0.1:@UP@"
  "/dying/*":
    action: "http://127.0.0.1:@DYING@/up/*"
    timeouts: {connect: 500ms, first_byte: 500ms, read: 500ms}
@ROUTES@
"""
UPGRADE = get("/up/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
              "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n")


class Shared:
    """What the processes count, and when they are to stop."""

    def __init__(self):
        self.stop = multiprocessing.Event()
        self.counts = {n: multiprocessing.Value("Q", 0) for n in
                       ("work", "echoes", "asked", "rude", "dying", "reloads", "refused", "wrong")}
        self.told = multiprocessing.Queue()

    def add(self, name, n=1):
        with self.counts[name].get_lock():
            self.counts[name].value += n

    def wrong(self, text):
        self.add("wrong")
        if self.counts["wrong"].value <= 20:
            self.told.put(text)

    def __getitem__(self, name):
        return self.counts[name].value


def each(shared, what, pause_s):
    """Repeats until the end; what goes wrong is told and does not end it."""
    while not shared.stop.is_set():
        try:
            what()
        except (OSError, Closed, Wrong, AssertionError) as e:
            if not shared.stop.is_set():
                shared.wrong(f"{what.__qualname__}: {e!r}")
        shared.stop.wait(pause_s)


# ---- clients, each in a process ----

def works(shared, port, left):
    work = Work("127.0.0.1", port, left)

    def once():
        failed = work.work()
        for text in failed:
            shared.wrong(text)
        shared.add("work")

    each(shared, once, 0.02)


@contextmanager
def connections(port, count):
    socks = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(count)]
    yield socks
    for s in socks:
        s.close()


def tunnels(shared, port):
    def echo():
        for s in socks:
            data = BLOB[:random.randrange(1, 2000)]
            s.sendall(data)
            if Answers(s).exactly(len(data)) != data:
                raise Wrong("other bytes")
            shared.add("echoes")

    with connections(port, TUNNELS) as socks:
        for s in socks:
            s.sendall(UPGRADE)
            assert Answers(s).response().status == 101
        each(shared, echo, 1)


def idles(shared, port):
    def ask():
        s = fresh.pop() if fresh else random.choice(socks)  # the first request of each is awaited for 10 s
        s.sendall(get("/fixed"))
        if Answers(s).response().body != b"fixed":
            raise Wrong("another answer")
        shared.add("asked")

    with connections(port, IDLE) as socks:
        fresh = list(socks)
        each(shared, ask, 0.03)


def rude(shared, port):
    starts = [b"", b"GET /fi", get("/fixed")[:-2], post("/up/a", BLOB)[:90000],
              post("/up/a", BLOB, True)[:90000], post("/echo", b"x" * 5000)[:3000], UPGRADE,
              get("/files/large.bin") * 3, get("/up/1000000") * 2, get("/up/10"), b"NONSENSE\r\n\r\n"]

    def once():
        s = socket.create_connection(("127.0.0.1", port), 20)
        s.settimeout(0.2)
        try:
            s.sendall(random.choice(starts))
            if random.random() < 0.5:
                s.recv(random.choice((1, 1000, 100000)))
        except OSError:
            pass  # nobody is served worse for it, and that is all that is asked
        leave(s, random.choice(("reset", "close")))
        shared.add("rude")

    each(shared, once, 0.01)


def dying(shared, port):
    paths = [f"/dying/{stage}/{how}" for stage in STAGES for how in WAYS if how != "stall"] * 4
    paths += [f"/dying/{stage}/stall" for stage in STAGES] + ["/dying/good"] * 20

    def once():
        with socket.create_connection(("127.0.0.1", port), 20) as s:
            s.sendall(get(random.choice(paths)))
            try:
                r = Answers(s).response()
                if r.status not in (200, 502, 503, 504):
                    raise Wrong(f"status {r.status}")
                if r.status == 200 and not BLOB.startswith(r.body):
                    raise Wrong("a body that is none of its upstream's")
            except (Closed, ConnectionError):
                pass  # cut, as its upstream was
        shared.add("dying")

    each(shared, once, 0.02)


# ---- upstreams, each in a process ----

class Forgetful(Upstream):
    """An upstream that remembers nothing of what it was sent."""

    def __init__(self, script, port, left):
        super().__init__(script, port=port)
        self.left = left

    def _record(self, index, data):
        self.requests.clear()


def upstream(script, port, left):
    Forgetful(script, port, left)
    signal.pause()


# ---- the gateway ----

def status_of(pid, key):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{key}:\s+(\d+)", text, re.M)[1])


class Server:
    def __init__(self, folder, binary, backend, ports):
        self.folder, self.ports, self.backend = folder, ports, backend
        self.files = folder / "files"
        self.files.mkdir()
        (self.files / "small.txt").write_bytes(BLOB[:3000])
        (self.files / "large.bin").write_bytes(LARGE)
        self.write()
        self.log = open(folder / "stderr.log", "wb")
        self.process = subprocess.Popen([binary, "serve", "-c", folder / "anygate.yml"], stderr=self.log)
        if not await_port(ports["PORT"]):
            raise SystemExit(f"it does not start: {(folder / 'stderr.log').read_text()}")

    def write(self, turn=0):
        more = f', "127.0.0.1:{self.ports["MORE"]}"' if turn % 3 == 1 else ""
        routes = "".join(f'  "/turn/{turn}/{i}": OK turn\n' for i in range(100))
        values = {**self.ports, "BACKEND": self.backend, "FILES": self.files, "MORE": more,
                  "ROUTES": routes if turn % 5 != 4 else '  "/mistake": NONSENSE x'}
        text = re.sub("@([A-Z]+)@", lambda m: str(values[m[1]]), CONFIG)
        (self.folder / "next").write_text(text)
        os.replace(self.folder / "next", self.folder / "anygate.yml")

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss_kb(self):
        return status_of(self.process.pid, "VmRSS")


def reloads(shared, server):
    for turn in range(1, 1 << 30):
        if shared.stop.wait(2):
            return
        server.write(turn)
        os.kill(server.process.pid, signal.SIGHUP)  # it is not this process's child
        shared.add("refused" if turn % 5 == 4 else "reloads")


def killer(shared, port, left):
    """The dying upstream, which is killed now and then."""
    while not shared.stop.is_set():
        child = start(upstream, Lying(), port, left)
        shared.stop.wait(5)
        child.kill()
        child.join()


# ---- a run ----

def start(target, *args):
    child = multiprocessing.Process(target=target, args=args)
    child.start()
    return child


def await_port(port):
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.025)
    return False


def start_upstream(port, left):
    child = start(upstream, answer, port, left)
    assert await_port(port)
    return child


def end(children):
    """Names of those that had to be killed."""
    late = []
    for c in children:
        c.join(60)
        if c.exitcode is None:
            late.append(f"a client does not end: {c.name}")
            c.kill()
            c.join()
    return late


def load(loader, folder, port, seconds):
    """Requests, what failed, and latencies in ms: p50, p99, the longest."""
    out = folder / "samples"
    with subprocess.Popen([loader, "0", str(port), "16", str(seconds), out, "/fixed", "/files/small.txt", "/up/3",
                           "/fixed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as p:
        p.wait()
        requests, failures = map(int, p.stdout.read().split())
        errors = p.stderr.read().splitlines()
    data = out.read_bytes()
    times = sorted(latency / 1000 for _, latency, _ in SAMPLE.iter_unpack(data)) or [0]
    return requests, failures, (*(times[int(len(times) * q)] for q in (0.5, 0.99)), times[-1]), errors


def rise(points):
    """By how much a line through (time, value) rises from its first point to its last."""
    slope = statistics.linear_regression(*zip(*points)).slope
    return slope * (points[-1][0] - points[0][0])


def resting_fds(server, want=None):
    """Descriptors when nobody is connected: once there are `want`, or when they stay as many for 2 s."""
    limit, last, since = time.monotonic() + 60, None, 0
    while time.monotonic() < limit:
        now = server.fds()
        if now != last:
            last, since = now, time.monotonic()
        if now == want or (want is None and time.monotonic() - since > 2):
            break
        time.sleep(0.05)
    return last


def clients(shared, server, ports, left):
    port = ports["PORT"]
    return [start(works, shared, port, left), start(works, shared, port, left), start(tunnels, shared, port),
            start(idles, shared, port), start(rude, shared, port), start(dying, shared, port),
            start(killer, shared, ports["DYING"], left), start(reloads, shared, server)]


COLUMNS = ("s", "MB", "fds", "requests/s", "p50 ms", "p99", "longest", "works", "echoes", "rude",
           "dying", "reloads", "refused", "wrong")


def sample(shared, server, loader, port, seconds, began, row_of):
    requests, failures, ms, errors = load(loader, server.folder, port, seconds)
    for text in errors[:5]:
        shared.wrong(f"load: {text}")
    shared.add("wrong", max(0, failures - len(errors[:5])))
    row_of.append((time.monotonic() - began, server.rss_kb() / 1024, server.fds(), requests))
    now, mb, fds, _ = row_of[-1]
    counts = [shared[k] for k in ("work", "echoes", "rude", "dying", "reloads", "refused", "wrong")]
    print("|", " | ".join((f"{now:.0f}", f"{mb:.1f}", str(fds), f"{requests / seconds:.0f}", f"{ms[0]:.2f}",
                           f"{ms[1]:.1f}", f"{ms[2]:.0f}", *map(str, counts))), "|", flush=True)


def judge(backend, rows, fds_before, fds_after, code, text, shared):
    """What is wrong with a run, in words."""
    bad = []
    half = rows[len(rows) // 2:]
    if len(half) < 3:
        bad.append("too few samples: let it run for longer")
    else:
        grown, allowed = rise([r[:2] for r in half]), max(1, 0.02 * half[0][1])
        print(f"{backend}: {sum(r[3] for r in rows)} requests of the load; memory of the second half "
              f"{grown:+.2f} MB (allowed {allowed:.2f}); descriptors {fds_before} before, {fds_after} after; "
              f"exit {code}")
        if grown > allowed:
            bad.append(f"memory grows: {grown:.2f} MB in the second half")
    if fds_after != fds_before:
        bad.append(f"{fds_after} descriptors are left of {fds_before}")
    if code != 0 or BROKEN.search(text):
        bad.append(f"it ended with {code}: {text[-2000:].decode(errors='replace')}")
    if shared["wrong"]:
        bad.append(f"{shared['wrong']} things went wrong")
    if 0 in (shared[k] for k in ("work", "echoes", "asked", "rude", "dying", "reloads", "refused")):
        bad.append("one kind of client did nothing")
    while not shared.told.empty():
        bad.append(shared.told.get())
    return bad


def soak(backend, seconds, binary, loader, folder):
    ports = {name: free_port() for name in ("PORT", "MORE", "UP", "DYING")}
    shared, left, rows = Shared(), multiprocessing.Semaphore(0), []
    up = start_upstream(ports["UP"], left)
    server = Server(folder, binary, backend, ports)
    for _ in range(20):  # until both shards have opened what they keep open
        assert Work("127.0.0.1", ports["PORT"], left).work() == []
    up.kill()
    up.join()
    fds_before = resting_fds(server)
    up = start_upstream(ports["UP"], left)
    children = clients(shared, server, ports, left)
    print(f"\n{backend}, {seconds:.0f} s\n\n| {' | '.join(COLUMNS)} |\n" + "|---" * len(COLUMNS) + "|",
          flush=True)
    began, turn_s = time.monotonic(), max(1, min(10, int(seconds / 24)))
    while time.monotonic() - began < seconds and server.process.poll() is None:
        sample(shared, server, loader, ports["PORT"], turn_s, began, rows)
    shared.stop.set()
    late = end(children)
    server.write()
    server.process.send_signal(signal.SIGHUP)  # without the listener that comes and goes
    up.kill()
    up.join()
    fds_after = resting_fds(server, fds_before)
    server.process.send_signal(signal.SIGTERM)
    try:
        code = server.process.wait(60)
    except subprocess.TimeoutExpired:
        server.process.kill()
        code = "none"
    server.log.close()
    text = (folder / "stderr.log").read_bytes()
    return late + judge(backend, rows, fds_before, fds_after, code, text, shared)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="of all backends together")
    parser.add_argument("--binary", default=str(ROOT / "build/anygate"))
    parser.add_argument("--backend", action="append", choices=("epoll", "io_uring"))
    args = parser.parse_args()
    backends = args.backend or ["epoll", "io_uring"]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        loader = folder / "load"
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", loader, ROOT / "bench/load.c"], check=True)
        for backend in backends:
            (folder / backend).mkdir()
            found = soak(backend, args.seconds / len(backends), os.path.abspath(args.binary), loader,
                         folder / backend)
            bad += [f"{backend}: {b}" for b in found]
    print("\n".join(bad) if bad else "flat")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
