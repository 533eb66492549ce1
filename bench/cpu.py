#!/usr/bin/env python3
"""Server CPU per request, side by side with nginx, HAProxy and h2o, in interleaved rounds (see docs/BENCH.md).

usage: compare.py [--rounds 5] [--seconds 2] [--binary build/anygate] [--case NAME ...] [--server NAME ...]

The server under test has core 0, the load generator and the origins core 1. A figure is the run time of all
the server's tasks (schedstat, kernel helpers included) divided by the requests answered; `both` is what both
cores did in that time (/proc/stat) per request, and `busy` the share of its core that the server had: where it
is far from 1, the load or an origin was the slower part, and the server had fewer requests ready at once than
it could have had. `ratio` is to the best peer, the least of nginx, HAProxy and h2o.

Cases of HTTP/2 are 16 connections with 32 streams each (h2load), in the clear by prior knowledge (h2-*) or
over TLS (h2s-*); those of HTTP/1.1 64 connections (wrk); handshakes 32 at a time, with one request each
(handshakes.c). TLS is 1.3 with X25519, TLS_AES_128_GCM_SHA256 and an ECDSA P-256 certificate.

`tools/deps.sh bench` installs what it needs. The peers alone, one short round:

  bench/compare.py --rounds 1 --seconds 1 --server nginx --server haproxy --server h2o
"""
import argparse
import os
import pathlib
import shutil
import statistics
import tempfile
import time

from loads import Loads
from servers import HERE, NAMES, PEERS, Origins, Server, make_files

FILES = {"static1k", "static64k", "h2-static64k", "tls-1m"}
H2_ORIGIN = {"h2-h2", "h2s-h2"}
# name: load, port, path
CASES = {
    "fixed": (Loads.h1, "PORT", "/fixed"),
    "pipelined16": (Loads.pipelined, "PORT", "/fixed"),
    "connect": (Loads.connects, "PORT", "/fixed"),
    "static1k": (Loads.h1, "PORT", "/static/1k.txt"),
    "static64k": (Loads.h1, "PORT", "/static/64k.bin"),
    "proxy2": (Loads.h1, "PORT", "/proxy/small"),
    "proxy64k": (Loads.h1, "PORT", "/proxy/64k.bin"),
    "proxy1m": (Loads.h1, "PORT", "/proxy/1m.bin"),
    "h2-fixed": (Loads.h2, "H2C", "/fixed"),
    "h2-static64k": (Loads.h2, "H2C", "/static/64k.bin"),
    "h2-h1": (Loads.h2, "H2C", "/proxy/small"),
    "h2-h1-64k": (Loads.h2, "H2C", "/proxy/64k.bin"),
    "h2-h2": (Loads.h2, "H2C", "/h2/small"),
    "h2s-fixed": (Loads.h2_tls, "TLS", "/fixed"),
    "h2s-h1": (Loads.h2_tls, "TLS", "/proxy/small"),
    "h2s-h2": (Loads.h2_tls, "TLS", "/h2/small"),
    "tls-fixed": (Loads.h1_tls, "TLS", "/fixed"),
    "tls-1m": (Loads.h1_tls, "TLS", "/static/1m.bin"),
    "tls-full": (Loads.full, "TLS", "/fixed"),
    "tls-resumed": (Loads.resumed, "TLS", "/fixed"),
}
# HAProxy serves no files; nginx and h2o know no HTTP/2 towards origins; this h2o takes tickets of TLS 1.2
# alone; the second nginx differs in how it proxies alone.
NOT_FOR = {
    "haproxy": FILES,
    "nginx": H2_ORIGIN,
    "nginx 16x32k": set(CASES) - {"proxy2", "proxy64k", "proxy1m", "h2-h1", "h2-h1-64k", "h2s-h1"},
    "h2o": {*H2_ORIGIN, "tls-resumed"},
}
HEAD = f"{'case':<12} {'server':<17} {'us/req':>8} {'min':>8} {'max':>8} {'ratio':>6} {'both':>8} " \
       f"{'busy':>5} {'req/s':>9}"


def cores_busy_us():
    fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) * 1_000_000 / os.sysconf("SC_CLK_TCK")


def measure(server, loads, case):
    """CPU and both cores' time per request in us, the share of the server's core, requests a second."""
    load, port, path = CASES[case]
    before, busy, begun = server.cpu_ns(), cores_busy_us(), time.monotonic()
    requests, bad = load(loads, server.ports[port], path)
    elapsed = time.monotonic() - begun
    spent, busy = (server.cpu_ns() - before) / 1000, cores_busy_us() - busy
    if bad or not requests:
        print(f"  {case}, {server.name}: {requests} requests; {bad}")
    count = max(requests, 1)
    return spent / count, busy / count, spent / elapsed / 1e6, requests / elapsed


def compare(case, servers, loads, rounds):
    able = [s for s in servers
            if CASES[case][1] in s.ports and case not in NOT_FOR.get(s.name, ())]
    results = {s.name: [] for s in able}
    for s in able:
        measure(s, loads, case)  # warm
    for _ in range(rounds):
        for s in able:
            results[s.name].append(measure(s, loads, case))
    middle = {name: [statistics.median(column) for column in zip(*figures)]
              for name, figures in results.items()}
    best = min((figures[0] for name, figures in middle.items() if name in PEERS), default=None)
    for name, (cpu, both, share, rate) in middle.items():
        all_cpu = [figures[0] for figures in results[name]]
        ratio = f"{cpu / best:6.2f}" if best else " " * 6
        print(f"{case:<12} {name:<17} {cpu:8.2f} {min(all_cpu):8.2f} {max(all_cpu):8.2f} {ratio} "
              f"{both:8.2f} {share:5.2f} {rate:9.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--binary", default=str(HERE.parent / "build/anygate"))
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--server", action="append", choices=NAMES)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-bench-"))
    running = []
    try:
        make_files(work)
        loads = Loads(work, options.seconds)
        origins = Origins(work)
        running.append(origins)
        servers = []
        for name in options.server or NAMES:
            servers.append(Server(name, work, origins.values, options.binary))
            running.append(servers[-1])
        print(HEAD)
        for case in options.case or CASES:
            compare(case, servers, loads, options.rounds)
    finally:
        for one in running:
            one.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
