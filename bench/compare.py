#!/usr/bin/env python3
"""Server CPU per request, side by side with nginx and HAProxy, in interleaved rounds (see docs/BENCH.md).

usage: compare.py [--rounds 5] [--seconds 2] [--binary build/anygate] [--case NAME ...]

The server under test has core 0, the load generator (wrk) and the origin core 1. A figure is the run
time of all the server's tasks (schedstat, kernel helpers included) divided by the requests answered.
"""
import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PIPELINE = """
init = function(args)
  local r = {}
  for i = 1, 16 do r[i] = wrk.format("GET", "/fixed") end
  req = table.concat(r)
end
request = function() return req end
"""
CASES = {
    "fixed": ("/fixed", None),
    "pipelined16": ("/fixed", PIPELINE),
    "static1k": ("/static/1k.txt", None),
    "static64k": ("/static/64k.bin", None),
    "proxy2": ("/proxy/small", None),
    "proxy64k": ("/proxy/64k.bin", None),
    "proxy1m": ("/proxy/1m.bin", None),
}
# The second nginx differs in how it proxies alone; HAProxy serves no files.
NOT_FOR = {"haproxy": {"static1k", "static64k"},
           "nginx 16x32k": {"fixed", "pipelined16", "static1k", "static64k"}}
LARGE_BUFFERS = ("proxy_buffers 16 32k; proxy_buffer_size 32k; proxy_busy_buffers_size 64k; "
                 "proxy_max_temp_file_size 0;")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fill(path, out, values):
    text = path.read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    out.write_text(text)
    return out


def cpu_ns(pid):
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total


def wait_port(port):
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


class Server:
    def __init__(self, name, command, port):
        self.name, self.port = name, port
        self.process = subprocess.Popen(["taskset", "-c", "0", *command],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_port(port)

    def measure(self, path, script, connections, seconds):
        url = f"http://127.0.0.1:{self.port}{path}"
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
        if script:
            command += ["-s", script]
        before = cpu_ns(self.process.pid)
        out = subprocess.run(command + [url], capture_output=True, text=True, check=True).stdout
        spent = cpu_ns(self.process.pid) - before
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors:(.*)", out)
        if bad:
            print(f"  {self.name}: {bad.group(0)}")
        return spent / 1000 / max(requests, 1), requests / seconds

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--binary", default=str(HERE.parent / "build/anygate"))
    parser.add_argument("--case", action="append", choices=CASES)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-bench-"))
    (work / "files").mkdir()
    for name, size in (("1k.txt", 1024), ("64k.bin", 65536), ("1m.bin", 1 << 20)):
        (work / "files" / name).write_bytes(os.urandom(size // 2).hex().encode()[:size])
    os.chmod(work, 0o755)
    origin_port = free_port()
    values = {"DIR": work, "ORIGIN": origin_port}
    conf = fill(HERE / "peers/origin.conf", work / "origin.conf", values)
    origin = subprocess.Popen(["taskset", "-c", "1", "nginx", "-c", str(conf)])
    servers = []
    try:
        wait_port(origin_port)
        for name, buffers in (("nginx", ""), ("nginx 16x32k", LARGE_BUFFERS)):
            port = free_port()
            conf = fill(HERE / "peers/nginx.conf", work / f"{port}.conf",
                        {**values, "PORT": port, "BUFFERS": buffers})
            servers.append(Server(name, ["nginx", "-c", str(conf)], port))
        port = free_port()
        conf = fill(HERE / "peers/haproxy.cfg", work / "haproxy.cfg", {**values, "PORT": port})
        servers.append(Server("haproxy", ["haproxy", "-db", "-f", str(conf)], port))
        for backend in ("epoll", "io_uring"):
            port = free_port()
            conf = fill(HERE / "peers/anygate.yml", work / f"{backend}.yml",
                        {**values, "PORT": port, "BACKEND": backend})
            servers.append(Server(f"anygate {backend}",
                                  [options.binary, "serve", "-c", str(conf)], port))
        print(f"{'case':<12} {'server':<18} {'us/req':>8} {'min':>7} {'max':>7} {'ratio':>6} {'req/s':>9}")
        for case in options.case or CASES:
            path, script = CASES[case]
            if script:
                (work / "script.lua").write_text(script)
                script = str(work / "script.lua")
            able = [s for s in servers if case not in NOT_FOR.get(s.name, ())]
            results = {s.name: [] for s in able}
            for s in able:
                s.measure(path, script, options.connections, 1)  # warm
            for _ in range(options.rounds):
                for s in able:
                    results[s.name].append(
                        s.measure(path, script, options.connections, options.seconds))
            base = statistics.median(r[0] for r in results["nginx"])
            for name, rounds in results.items():
                cpu = [r[0] for r in rounds]
                print(f"{case:<12} {name:<18} {statistics.median(cpu):8.2f} {min(cpu):7.2f} "
                      f"{max(cpu):7.2f} {statistics.median(cpu) / base:6.2f} "
                      f"{statistics.median(r[1] for r in rounds):9.0f}", flush=True)
    finally:
        for s in servers:
            s.stop()
        origin.terminate()
        origin.wait()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
