#!/usr/bin/env python3
"""The bench: AnyGate side by side with nginx, HAProxy, h2o and the floors (docs/BENCH.md).

usage: run.py [--case NAME ...] [--part NAME ...] [--server NAME ...] [--rounds 5] [--seconds 0.45]
              [--binary build/anygate] [--report bench/reports] [--json FILE]

Without --case, --part or --server all parts run, in about a quarter of an hour, and a report is written; with one it
prints that alone. `tools/deps.sh bench` installs what it needs. The peers alone, one short round of a case:

  bench/run.py --case fixed --rounds 1 --server nginx --server haproxy --server h2o
"""
import argparse
import json
import pathlib
import resource
import shutil
import statistics
import tempfile
import time

import cpu
import idle
import latency
import machine
import overload
import report
import shards
from workloads import ALL, CASES, NAMES
from loads import Loads
from servers import HERE, Origins, Server, build, make_files

AT_RATES = ("fixed", "proxy2")
SHARES = (0.2, 0.5, 0.8)


class Bench:
    """What all parts share: the folder they work in, the origins, the servers under test."""

    def __init__(self, options):
        self.options = options
        self.names = options.server or NAMES
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-bench-"))
        self.running, self.servers = [], {}

    def __enter__(self):
        try:
            make_files(self.work)
            build(self.work)
            self.loads = Loads(self.work, self.options.seconds)
            self.origins = Origins(self.work)
            self.running.append(self.origins)
            for name in self.names:
                if not name.startswith("floor"):
                    self.servers[name] = Server(name, self.work, self.origins.values, self.options.binary)
                    self.running.append(self.servers[name])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for one in reversed(self.running):
            one.stop()
        shutil.rmtree(self.work)

    def cpu(self, results):
        print(cpu.HEAD)
        for name in self.options.case or CASES:
            with cpu.floors(CASES[name], self.work, self.origins.values, self.names) as floors:
                results["cpu"].append(cpu.compare(CASES[name], {**self.servers, **floors}, self.loads, self.options.rounds))
            cpu.show(results["cpu"][-1])

    def latency(self, results):
        """At shares of the weakest server's peak, which the closed loops have shown."""
        for name in AT_RATES:
            entry = next((e for e in results["cpu"] if e["case"] == name), None)
            if entry:
                servers = [self.servers[s] for s in ALL if s in self.servers]
                peak = min(statistics.median(entry["servers"][s.name]["rate"]) for s in servers)
                results["latency"] += latency.measure(name, CASES[name].path, servers, self.work,
                                                      [(share, round(peak * share, -2)) for share in SHARES], 2, 64,
                                                      CASES[name].title)

    def memory(self, results):
        """Fewer connections over TLS, for each of their clients takes a millisecond of handshake."""
        names = [n for n in ALL if n in self.names]
        for kinds, connections in ((("h1",), 10_000), (("tls", "h2"), 4_000)):
            results["memory"] += idle.measure(names, kinds, connections, self.work, self.options.binary)

    def shards(self, results):
        results["shards"] = shards.measure_all(self.work, self.origins.values, self.options.binary,
                                               self.options.seconds, min(3, self.options.rounds))

    def overload(self, results):
        results["overload"] = overload.measure(self.work, self.options.binary, 0.7)


PARTS = ("cpu", "latency", "memory", "shards", "overload")


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.45)
    parser.add_argument("--binary", default=str(HERE.parent / "build/anygate"))
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--server", action="append", choices=NAMES)
    parser.add_argument("--report", type=pathlib.Path, default=HERE / "reports")
    parser.add_argument("--json", type=pathlib.Path, help="keep all that was measured")
    return parser.parse_args()


def main():
    options = parse()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    whole = not (options.case or options.part or options.server)
    begun = time.monotonic()
    results = {"meta": machine.describe(options.binary), **{part: [] for part in PARTS}}
    with Bench(options) as bench:
        for part in options.part or (PARTS if whole else ("cpu",)):
            getattr(bench, part)(results)
    results["meta"] |= {"rounds": options.rounds, "seconds": options.seconds,
                        "minutes": round((time.monotonic() - begun) / 60, 1)}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if whole:
        print(report.headline(results))
        print(f"written: {report.write(results, options.report)}")


if __name__ == "__main__":
    main()
