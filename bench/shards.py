"""Two shards of one process against two processes of one shard: what shards cost each other.

Processes share nothing but the kernel, so twice what one of them does is all that two cores can do. Either way each
core has a shard, and a program of the load with half of the connections. (One shard alone against two would compare
other things, too: on two cores the load has to share them with two shards, and with one it has a core for itself.)
Who asks from the server's own core finds all in its caches: of two shards half of the connections are such, so of two
processes both ways count, each program asking the one of its own core, and the other one.

The model of docs/BENCH.md says that shards cost each other nothing, but that each has half of what either program has
ready at once: processes that are asked on half as many connections are what it predicts by.
"""
from concurrent.futures import ThreadPoolExecutor

from loads import Loads
from servers import Server
from workloads import ANYGATE, CASES

SCALED = ("fixed", "static1k", "tls-fixed", "h2-fixed")
GOAL = {"of": "scale", "ratio": 1.9, "text": "1.9 times one shard"}


def measure_all(work, values, binary, seconds, rounds):
    """The "shards" of the results."""
    servers, loads = {}, {n: [Loads(work, seconds, core, divisor=n) for core in ("0", "1")] for n in (2, 4)}
    try:
        for name in ANYGATE:
            servers[name, "one"] = [Server(name, work, values, binary, cores=core) for core in ("0", "1")]
            servers[name, "two"] = [Server(name, work, values, binary, workers=2, cores="0,1")]
        return [scale(CASES[case], servers, loads, rounds) for case in SCALED]
    finally:
        for those in servers.values():
            for server in those:
                server.stop()


def measure(case, servers, loads):
    """CPU of all of them per request, in us."""
    def ask(load, server):
        return getattr(load, case.load)(server.ports[case.port], case.path).requests

    before = sum(s.cpu_ns() for s in servers)
    with ThreadPoolExecutor(2) as both:
        requests = sum(both.map(ask, loads, (servers[0], servers[-1])))
    return (sum(s.cpu_ns() for s in servers) - before) / 1000 / max(1, requests)


def scale(case, servers, loads, rounds):
    figures = {name: {"one_us": [], "half_us": [], "two_us": []} for name in ANYGATE}

    def both_ways(servers, loads):
        return (measure(case, servers, loads) + measure(case, servers, loads[::-1])) / 2

    for number in range(rounds + 1):
        for name in ANYGATE:
            got = {"one_us": both_ways(servers[name, "one"], loads[2]),
                   "half_us": both_ways(servers[name, "one"], loads[4]),
                   "two_us": measure(case, servers[name, "two"], loads[2])}
            for key, spent in got.items() if number else ():  # the first one warms
                figures[name][key].append(spent)
    return {"case": case.name, "title": case.title, "goal": GOAL, "servers": figures}
