#!/usr/bin/env python3
"""Upgrades (SIGUSR2) under full load: requests that fail, streams that are cut, what the last process holds.

usage: upgrade.py [--upgrades 20] [--before 10] [--interval 3] [--routes 500] [--tunnels 100]
                  [--connections 64] [--binary build/anygate] [--backend epoll --backend io_uring]
                  [--mode alone --mode master]

The load is that of reload.py. --tunnels WebSockets, a chunked upload and a download begin before the first
upgrade and last throughout, in the process that they began in; with each upgrade others begin in the new
process, a tenth as many WebSockets. So all the old processes live to the end, within their
drain_timeout, and then each has to end with 0: nothing was cut. The configuration changes with every
upgrade, and the new process has to serve by it. Mode `master` is root with server.user.

Fails unless no request failed, no stream was cut, the last process serves, and it holds no more
descriptors and memory than the first one did under the same load.
"""
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import reload as base

PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 60
SLACK_BYTES = 4 << 20
SLACK_FDS = 8  # idle connections to upstreams


class Server:
    """The process that serves, and those before it; `pid` is of the main one."""

    def __init__(self, options, backend, mode, small, origin, folder):
        self.options, self.mode, self.port = options, mode, base.free_port()
        self.path, self.log = folder / f"{backend}-{mode}.yml", folder / f"{backend}-{mode}.log"
        self.pid_file, self.old = folder / f"{backend}-{mode}.pid", []
        keys = f"drain_timeout: 30m, pid_file: {self.pid_file}"
        keys += ", user: nobody" if mode == "master" else ""
        self._config = lambda generation: base.config(
            options, backend, self.port, small, origin.port, folder, generation, keys)
        self.write(0)
        process = subprocess.Popen([*base.NORMAL, options.binary, "serve", "-c", str(self.path)],
                                   stderr=self.log.open("w"))
        base.connect(self.port).close()
        self.until(lambda: self.pid == process.pid, "the pid file")

    def write(self, generation):
        following = self.path.with_suffix(".next")
        following.write_text(self._config(generation))
        os.replace(following, self.path)

    @property
    def pid(self):
        try:
            return int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    @property
    def serving(self):
        """The process with the connections: a master's worker."""
        if self.mode != "master":
            return self.pid
        return int(pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def until(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} never came:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.005)

    def upgrade(self, generation):
        """Seconds from the signal to the new process's word that it serves."""
        self.write(generation)
        old, begun = self.pid, time.monotonic()
        os.kill(old, signal.SIGUSR2)
        self.until(lambda: self.log.read_text().count("; its predecessor drains") == generation,
                   f"upgrade {generation}")
        self.old.append(old)
        assert self.pid != old
        return time.monotonic() - begun

    def generation(self):
        with base.connect(self.port) as s:
            s.sendall(b"GET /number/0/x HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            data = b""
            while more := s.recv(4096):
                data += more
        return int(data.rsplit(b"\r\n", 1)[1])

    def held(self):
        """Descriptors and resident bytes of the process that serves."""
        pid = self.serving
        return len(os.listdir(f"/proc/{pid}/fd")), base.memory(pid)[0]

    def code(self, pid):
        """How a process ended; it is our child, or became that when its parent ended."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    return os.waitstatus_to_exitcode(status)
            except ChildProcessError:
                pass  # its parent still lives
            time.sleep(0.01)
        return "none: it still runs"


def upgrade_all(options, server, others):
    """The moments, and how long each took."""
    moments, took = [], []
    for generation in range(1, options.upgrades + 1):
        next_at = time.monotonic() + options.interval
        moments.append(int(time.monotonic() * 1e6))
        took.append(server.upgrade(generation))
        # The predecessor accepts until it has heard that it is relieved.
        server.until(lambda: server.generation() == generation, f"generation {generation}")
        others.add_tunnels(options.tunnels // 10)
        others.start(others.one_upload, others.one_download)
        time.sleep(max(0, next_at - time.monotonic()))
    return moments, took


def run(options, mode, loader, origin, small, folder):
    backend, kind = mode
    server = Server(options, backend, kind, small, origin, folder)
    seconds = options.before + options.upgrades * options.interval
    load = base.start_load(options, loader, server.port, folder, seconds)
    time.sleep(options.before)
    first, begun = server.held(), int(time.monotonic() * 1e6)
    others = base.Others(server.port, options.tunnels)
    moments, took = upgrade_all(options, server, others)
    living = sum(pathlib.Path(f"/proc/{pid}").exists() for pid in server.old)
    others.end(origin)
    codes = [server.code(pid) for pid in server.old]
    time.sleep(min(options.before, 3))  # the load alone again
    last = server.held()
    out, errors = load.communicate()
    samples = list(base.SAMPLE.iter_unpack((folder / "samples").read_bytes()))
    base.report(f"{backend}, {kind}", samples, begun, moments, options.before, options.interval,
                "an upgrade")
    requests, failures = map(int, out.split() or (0, -1))
    print(f"  {len(took)} upgrades, {min(took):.2f} to {max(took):.2f} s each; {failures} of {requests} "
          f"requests failed; beside them "
          + ", ".join(f"{n} {what}" for what, n in sorted(others.counts.items()))
          + f", {len(others.tunnels)} tunnels; {living} old processes lived to the end")
    print(f"  the first process held {first[0]} descriptors and {first[1] >> 10} KiB, the last one "
          f"{last[0]} and {last[1] >> 10} KiB")
    bad = others.failures + errors.splitlines()[:5]
    bad += [f"{failures} requests failed"] * (failures != 0)
    bad += [f"an old process ended with {code}" for code in codes if code != 0]
    bad += [f"{living} of {len(server.old)} old processes kept their streams"] * (
        living != len(server.old))
    bad += ["more descriptors"] * (last[0] > first[0] + SLACK_FDS)
    bad += ["more memory"] * (last[1] > first[1] * 5 // 4 + SLACK_BYTES)
    bad += re.findall(r"upgrade (?:failed|given up).*", server.log.read_text())[:5]
    pid = server.pid
    os.kill(pid, signal.SIGTERM)
    code = server.code(pid)
    bad += [f"the last process ended with {code}"] * (code != 0)
    for line in bad:
        print(f"  FAILED {line}")
    return not bad


def main():
    parser = base.arguments(before=10, interval=3, tunnels=100)
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--mode", action="append", choices=["alone", "master"])
    options = parser.parse_args()
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SystemExit("this system has no PR_SET_CHILD_SUBREAPER")
    modes = options.mode or (["alone", "master"] if os.geteuid() == 0 else ["alone"])
    sys.exit(base.run_all(options, run, [(backend, mode) for mode in modes for backend in
                                         options.backend or ["epoll", "io_uring"]]))


if __name__ == "__main__":
    main()
