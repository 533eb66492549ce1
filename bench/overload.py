"""Overload: what is left of the peak when twice as much is asked for, and how long the answered ones take.

The peak is found by a closed loop; then an open loop (bench/rate.c) offers twice that. Three ways to be overloaded:

  kept     so many kept-alive connections that all are always ready. A request that finds none free is not sent: clients
           that wait for their answers, as those of HTTP/1.1 do, cannot ask more than that
  fresh    a connection for each request, of which the server has SERVED at once: what is too much fills the kernel's
           queue, and then SYNs are lost. The answer is a file of 64k, for a connection alone costs the generator as much
           as the server; so twice the peak can be offered from one core
  origin   a proxy to an origin of WORKERS / WORK_MS (bench/slow_origin.c), which the proxy knows the bound of: what is too
           much waits in a queue of PENDING, and what finds that full is told so (503)

Each server has bounds in its configuration (peers/overload*). Little's law says what they allow: with so many in all that
may wait before a request, it takes that number divided by the rate. The goal is twice that time at most, and 90 % of
the peak.
"""
import statistics
import subprocess

from latency import run
from servers import HERE, LOAD_CORE, SERVER_CORE, fill, free_port, stop, wait_ports

WORKERS, WORK_MS = 50, 20
PENDING = 50
SERVED, BACKLOG = 128, 4096  # connections of `fresh` that a server has at once; what the kernel keeps beside
ROUNDS = 3
SERVERS = {
    "nginx": ("overload_nginx.conf", ["nginx", "-c"], {}),
    "haproxy": ("overload_haproxy.cfg", ["haproxy", "-db", "-f"], {}),
    **{f"anygate {b}": ("overload.yml", [], {"BACKEND": b}) for b in ("epoll", "io_uring")},
}
# name: title, port, path, options of the closed loop, of the open one, seconds until its queues are full, most that
# may wait
CASES = {
    "kept": ("512 kept-alive connections, 2 bytes", "PORT", "/fixed", ["-c", 512], ["-c", 512, "-x"], 0.2, 512),
    "fresh": ("a connection each, 64 KB", "FRESH", "/static/64k.bin", ["-n", "-c", 64], ["-n", "-c", 8192, "-x"],
              0.8, SERVED + BACKLOG),
    "origin": (f"proxy to an origin of {WORKERS * 1000 // WORK_MS} requests/s", "PORT", "/slow/",
               ["-c", WORKERS + PENDING // 2], ["-c", 1024, "-x"], 0.2, WORKERS + PENDING),
}


def start(name, work, values, binary):
    source, command, more = SERVERS[name]
    ports = {"PORT": free_port(), "FRESH": free_port()}
    config = fill(source, work / f"{ports['PORT']}.{source.split('.')[1]}", {**values, **more, **ports})
    with open(work / f"{ports['PORT']}.log", "wb") as log:
        process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *(command or [binary, "serve", "-c"]), config],
                                   stdout=log, stderr=log)
    wait_ports(name, process, ports.values())
    return process, ports


def offer(work, ports, case, seconds):
    """The peak, and at once twice that: (peak a second, what the generator says of the overload)."""
    _, port, path, closed, opened, warm_s, _ = CASES[case]
    port = ports[port]
    peak = run(work, *closed, "-d", seconds, 0, port, path)["rate"]
    return peak, run(work, *opened, "-w", warm_s, "-d", seconds, max(1, round(2 * peak)), port, path)


def figures(pairs, seconds, most_waiting):
    """Medians of the rounds."""
    peaks, runs = zip(*pairs)

    def median(key):
        return statistics.median(r[key] for r in runs)

    def quantile(share):
        found = [us for r in runs for q, us in r["quantiles"] if q == share]
        return statistics.median(found) if found else None

    peak = statistics.median(peaks)
    return {"peak_rate": peak, "offered_rate": median("offered_rate"), "goodput_rate": median("rate"),
            "goodput_share": statistics.median(r["rate"] / max(p, 1) for p, r in pairs),
            "refused_rate": median("refused") / seconds,
            "unsent_share": sum(r["unsent"] for r in runs) / max(sum(r["unsent"] + r["sent"] for r in runs), 1),
            "p50_us": quantile(0.5), "p99_us": quantile(0.99), "p99_goal_us": 2e6 * most_waiting / max(peak, 1),
            "refused_p99_us": median("refused_p99_us"),
            "failed": sum(r["failed"] for r in runs), "late": sum(r["late"] for r in runs),
            "generator_busy": max(r["busy"] for r in runs)}


def measure_case(case, ports, work, seconds):
    title, _, path, closed, opened, warm_s, most_waiting = CASES[case]
    pairs = {name: [] for name in ports}
    for _ in range(ROUNDS):
        for name in ports:
            pairs[name].append(offer(work, ports[name], case, seconds))
    return {"case": case, "title": title,
            "command": f"rate {' '.join(map(str, closed))} -d {seconds} 0 PORT {path}; "
                       f"rate {' '.join(map(str, opened))} -w {warm_s} -d {seconds} 2xPEAK PORT {path}",
            "goal": {"of": "peak", "ratio": 0.9,
                     "text": f"goodput >= 90 % of the peak; p99 <= 2 x {most_waiting} / peak"},
            "servers": {name: figures(of_one, seconds, most_waiting) for name, of_one in pairs.items()}}


def measure(work, binary, seconds, names=tuple(SERVERS), cases=tuple(CASES)):
    """Entries of the list `overload`. work: a folder with servers.make_files in it; seconds: of each run."""
    values = {"DIR": work, "SLOW": free_port(), "WORKERS": WORKERS, "PENDING": PENDING, "SERVED": SERVED}
    program = work / "slow_origin"
    subprocess.run(["cc", "-O2", "-std=gnu17", "-D_GNU_SOURCE", "-o", program, HERE / "slow_origin.c"], check=True)
    processes = [subprocess.Popen(["taskset", "-c", LOAD_CORE, program, str(values["SLOW"]), str(WORKERS),
                                   str(WORK_MS)])]
    ports = {}
    try:
        wait_ports("slow_origin", processes[0], [values["SLOW"]])
        for name in names:
            process, ports[name] = start(name, work, values, binary)
            processes.append(process)
        return [measure_case(case, ports, work, seconds) for case in cases]
    finally:
        for process in processes:
            stop(process)
