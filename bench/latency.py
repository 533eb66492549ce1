"""Latency at a fixed rate: an open loop (bench/rate.c), each request counted from when it was due.

A closed loop asks less of a server that is slow, and so hides its pauses; here what is due in a pause waits, and
counts. Without an origin on its core the generator waits busily, so that the times are the server's and not those of
a sleeping core; where an origin shares the core it sleeps between requests, by a timer of nanoseconds.
"""
import json
import statistics
import subprocess

from servers import HERE, LOAD_CORE

ROUNDS = 3
ORIGIN_PATHS = ("/proxy", "/h2", "/ws")


def build(work):
    """The generator, made at its first use."""
    program = work / "rate"
    if not program.exists():
        subprocess.run(["cc", "-O2", "-std=gnu17", "-D_GNU_SOURCE", "-o", program, HERE / "rate.c"], check=True)
    return program


def run(work, *options):
    """One run of the generator: what it printed (see rate.c)."""
    done = subprocess.run(["taskset", "-c", LOAD_CORE, build(work), *map(str, options)], text=True,
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def options_for(path, seconds, connections):
    options = ["-c", connections, "-d", seconds, "-w", 0.1]
    return options if path.startswith(ORIGIN_PATHS) else [*options, "-s"]


def middle(runs):
    """The median of the rounds, quantile by quantile; counts are sums."""
    quantiles = [[column[0][0], statistics.median(us for _, us in column)]
                 for column in zip(*(r["quantiles"] for r in runs))]
    return {"quantiles": quantiles, "max_us": max(r["max_us"] for r in runs),
            "sent": sum(r["sent"] for r in runs),
            "failed": sum(r["failed"] + r["late"] + r["refused"] + r["unsent"] for r in runs),
            "rate": statistics.median(r["rate"] for r in runs),
            "lag_p99_us": statistics.median(r["lag_p99_us"] for r in runs)}


def measure(case_name, path, servers, work, rates, seconds, connections, title=None):
    """Entries of the list `latency`, one a rate.

    servers      of servers.Server, running; those that do not serve the case are not among them
    rates        (share of the weakest peer's peak, requests a second), ...
    seconds      of each server at each rate, in ROUNDS parts; the servers take turns in each
    """
    entries = []
    for share, rate in rates:
        options = [*options_for(path, seconds / ROUNDS, connections), round(rate)]
        runs = {s.name: [] for s in servers}
        for _ in range(ROUNDS):
            for s in servers:
                runs[s.name].append(run(work, *options, s.ports["PORT"], path))
        entries.append({"case": case_name, "title": title or case_name, "rate": round(rate), "share": share,
                        "connections": connections,
                        "command": " ".join(["rate", *map(str, options), "PORT", path]),
                        "servers": {name: middle(of_one) for name, of_one in runs.items()}})
    return entries
