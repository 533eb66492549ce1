"""Server CPU per request, side by side, in interleaved rounds (docs/BENCH.md says how to read it).

The server under test has core 0, the load generator and the origins core 1. A figure is the run time of all
the server's tasks (schedstat, kernel helpers included) divided by the requests answered; `both` is what both
cores did in that time (/proc/stat) per request, and `busy` the share of its core that the server had: where it
is far from 1, the load or an origin was the slower part, and the server had fewer requests ready at once than
it could have had.
"""
import contextlib
import os
import pathlib
import statistics
import time

from workloads import able
from servers import Server

HEAD = f"{'case':<13} {'server':<17} {'us/req':>8} {'min':>8} {'max':>8} {'peer':>6} {'floor':>6} {'both':>8} " \
       f"{'busy':>5} {'req/s':>9} {'p99 us':>8}"
WARM_S = 0.3


def cores_busy_us():
    fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) * 1_000_000 / os.sysconf("SC_CLK_TCK")


def measure(server, loads, case):
    """One round: {"us": CPU per request, "both_us", "busy", "rate", and quantiles where the load tells them}."""
    before, busy, begun = server.cpu_ns(), cores_busy_us(), time.monotonic()
    load = getattr(loads, case.load)(server.ports[case.port], case.path)
    elapsed = time.monotonic() - begun
    spent, busy = (server.cpu_ns() - before) / 1000, cores_busy_us() - busy
    if load.bad or not load.requests:
        print(f"  {case.name}, {server.name}: {load.requests} requests; {load.bad}", flush=True)
    count = max(load.requests, 1)
    figures = {"us": spent / count, "both_us": busy / count, "busy": spent / elapsed / 1e6, "rate": count / elapsed,
               "p50_us": load.p50_us, "p99_us": load.p99_us, "p999_us": load.p999_us}
    return {key: value for key, value in figures.items() if value is not None}


def compare(case, servers, loads, rounds):
    """The case's entry of the results (report.py): every round of each server that can serve it.

    servers: {name: Server} of those that are running, the case's floors among them.
    """
    results = {name: [] for name in able(case, servers)}
    # Idle connections take as many descriptors as a process has: one server after another.
    turns = [[name] for name in results] if case.load == "beside_idle" else [list(results)]
    for turn in turns:
        with contextlib.ExitStack() as held:
            if case.load == "beside_idle":
                held.enter_context(loads.hold_idle(servers[turn[0]].ports[case.port]))
            seconds, loads.seconds = loads.seconds, WARM_S
            for name in turn:
                getattr(loads, case.load)(servers[name].ports[case.port], case.path)
            loads.seconds = seconds
            for _ in range(rounds):
                for name in turn:
                    results[name].append(measure(servers[name], loads, case))
    name = turns[-1][-1]
    goal = case.goal and {"of": case.goal.of, "ratio": case.goal.ratio, "text": case.goal.text}
    return {"case": case.name, "title": case.title, "group": case.group, "goal": goal,
            "command": loads.command.replace(str(servers[name].ports[case.port]), case.port),
            "servers": {name: {key: [one[key] for one in figures] for key in figures[0]}
                        for name, figures in results.items()}}


@contextlib.contextmanager
def floors(case, work, values, names):
    """{name: Server} of the case's floors among `names`, for as long as it is measured."""
    running = {}
    try:
        for name in able(case, names):
            if name.startswith("floor"):
                running[name] = Server(name, work, values, None, task=case.floor)
        yield running
    finally:
        for one in running.values():
            one.stop()


def show(entry):
    """Prints the entry's medians, a row a server."""
    middle = {name: {key: statistics.median(values) for key, values in figures.items()}
              for name, figures in entry["servers"].items()}

    def least(*prefixes):
        return min((m["us"] for name, m in middle.items() if name.split()[0] in prefixes), default=None)

    peer, floor = least("nginx", "haproxy", "h2o"), least("floor")
    for name, m in middle.items():
        each = entry["servers"][name]["us"]
        ratios = "".join(f" {m['us'] / of:6.2f}" if of else f" {'':>6}" for of in (peer, floor))
        p99 = f"{m['p99_us']:8.0f}" if "p99_us" in m else ""
        print(f"{entry['case']:<13} {name:<17} {m['us']:8.2f} {min(each):8.2f} {max(each):8.2f}{ratios} "
              f"{m['both_us']:8.2f} {m['busy']:5.2f} {m['rate']:9.0f} {p99}", flush=True)
