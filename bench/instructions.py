#!/usr/bin/env python3
"""User-space instructions (callgrind) and system calls (strace) per request of a case of workloads.py.

usage: instructions.py [--case NAME ...] [--server "anygate epoll" ...] [--binary build/anygate] [--seconds 2]
                       [--top 0] [--inclusive] [--keep FOLDER]

Instructions do not depend on who else uses the machine, and are stable to about 1%. Under callgrind a server is
so slow that its load always has all its requests ready, so batches are as large as they get. Callgrind knows
no io_uring: that backend's system calls alone are counted. --top N prints the functions that take most, their
own instructions or, with --inclusive, those of what they call too; --keep leaves callgrind's output there.

A case's connections are begun in that time, too: those of TLS that are kept alive want --seconds 20.

Needs valgrind, strace and what run.py needs.
"""
import argparse
import collections
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from workloads import CASES, NAMES
from loads import Loads
from servers import HERE, Origins, Server, build, make_files


def ask(loads, server, case):
    """Returns the number of requests answered; ends the program where one failed."""
    load = getattr(loads, CASES[case].load)(server.ports[CASES[case].port], CASES[case].path)
    if load.bad or not load.requests:
        raise SystemExit(f"{case}, {server.name}: {load.requests} requests; {load.bad}")
    return load.requests


def instructions(server, loads, case, out):
    """Instructions of all functions and requests, after as long a load that is not counted."""
    pid = str(server.process.pid)
    ask(loads, server, case)
    subprocess.run(["callgrind_control", "-z", pid], check=True, capture_output=True)
    requests = ask(loads, server, case)
    subprocess.run(["callgrind_control", "-d", pid], check=True, capture_output=True)
    dump = sorted(out.parent.glob(f"{out.name}.*"), key=lambda p: int(p.suffix[1:]))[-1]
    total = sum(int(n) for n in re.findall(r"^totals: (\d+)", dump.read_text(), re.M))
    return total / requests, requests, dump


def functions(dump, requests, top, inclusive):
    """Prints what takes most; the format is that of valgrind's manual, "Callgrind Format Specification"."""
    names, costs, now, called = {}, collections.Counter(), {}, False
    for line in dump.read_text().splitlines():
        named = re.match(r"c?(fl|fi|fe|fn)=(\(\d+\))(?: (.+))?$", line)
        if named:
            kind, number, name = named.groups()
            space = "fn" if kind == "fn" else "file"
            if name:
                names[space + number] = name
            if line[0] != "c" and kind in ("fn", "fl"):
                now[kind] = names[space + number]
        elif line.startswith("calls="):
            called = True
        elif re.match(r"[+*\d-]", line):
            if inclusive or not called:
                costs[now["fn"].split(".lto")[0], pathlib.Path(now["fl"]).name] += int(line.split()[-1])
            called = False
    for (function, file), count in costs.most_common(top):
        print(f"    {count / requests:9.1f}  {function}  {file}")


def system_calls(server, loads, case):
    """{name: calls per request}, by strace on all the server's threads."""
    ask(loads, server, case)
    with tempfile.NamedTemporaryFile("r") as table:
        tracer = subprocess.Popen(["strace", "-q", "-c", "-f", "-U", "name,calls", "-o", table.name,
                                   "-p", str(server.process.pid)], stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        requests = ask(loads, server, case)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        rows = re.findall(r"^ *(\w+) +(\d+)$", pathlib.Path(table.name).read_text(), re.M)
    return {name: int(calls) / requests for name, calls in rows if name != "total"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--server", action="append", choices=NAMES)
    parser.add_argument("--binary", default=str(HERE.parent / "build/anygate"))
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--inclusive", action="store_true")
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-instructions-"))
    running = []

    def start(name, wrapper=()):
        running.append(Server(name, work, running[0].values, options.binary, wrapper))
        return running[-1]

    try:
        make_files(work)
        build(work)
        loads = Loads(work, options.seconds)
        running.append(Origins(work))
        for case in options.case or CASES:
            for name in options.server or ("anygate epoll", "anygate io_uring"):
                if name not in CASES[case].servers:
                    continue
                plain = start(name)
                calls = system_calls(plain, loads, case)
                running.pop().stop()
                text = ", ".join(f"{call} {n:.3f}" for call, n in calls.items() if n >= 0.001)
                total = ""
                if "io_uring" not in name:
                    out = work / f"{case}-{name.replace(' ', '-')}"
                    slow = start(name, ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"))
                    per_request, requests, dump = instructions(slow, loads, case, out)
                    total = f"{per_request:10.0f}"
                print(f"{case:<12} {name:<17} {total:>10} instructions; {text}", flush=True)
                if total:
                    if options.top:
                        functions(dump, requests, options.top, options.inclusive)
                    if options.keep:
                        shutil.copy(dump, options.keep / f"callgrind.out.{out.name}")
                    running.pop().stop()
    finally:
        for one in running:
            one.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
