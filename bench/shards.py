"""One shard against two: what each costs per request, and how many requests a machine of so many cores answers.

Servers and loads share cores here, or two shards would find no core that is theirs: one shard and one thread of the load
on one core, two shards and two threads on two. So what a core does is the same in both, and what is left to see
is what two shards cost each other. The model of docs/BENCH.md says that they cost each other nothing, but that each has
half of the connections and so fewer requests ready in a turn: one shard with half of them is what it predicts by.
"""
from workloads import ANYGATE, CASES
from cpu import measure
from loads import Loads
from servers import Server

SCALED = ("fixed", "static1k", "tls-fixed", "h2-fixed")
GOAL = {"of": "scale", "ratio": 1.9, "text": "1.9 times one shard"}


def measure_all(work, values, binary, seconds, rounds):
    """The "shards" of the results."""
    servers = {(name, n): Server(name, work, values, binary, workers=n) for name in ANYGATE for n in (1, 2)}
    loads = {"one": Loads(work, seconds, "0"), "half": Loads(work, seconds, "0", divisor=2),
             "two": Loads(work, seconds, "0-1")}
    try:
        return [scale(CASES[case], servers, loads, rounds) for case in SCALED]
    finally:
        for server in servers.values():
            server.stop()


def scale(case, servers, loads, rounds):
    figures = {name: {f"{of}_{key}": [] for of in loads for key in ("us", "rate")} for name in ANYGATE}
    for number in range(rounds + 1):
        for name in ANYGATE:
            for of, load in loads.items():
                got = measure(servers[name, 2 if of == "two" else 1], load, case)
                for key in ("us", "rate") if number else ():  # the first one warms
                    figures[name][f"{of}_{key}"].append(got[key])
    return {"case": case.name, "title": f"{case.group}: {case.title}", "goal": GOAL, "servers": figures}
