"""The load generators, each on the load's core for a number of seconds, which may be a fraction.

All offer TLS_AES_128_GCM_SHA256 and X25519 alone, so that each server encrypts alike.
"""
import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

from servers import HERE, LOAD_CORE

# wrk ends early by SIGINT, for it takes whole seconds alone; its script says the quantiles that it leaves out.
SCRIPT = """
done = function(summary, latency)
  io.write(string.format("quantiles %%d %%d %%d\\n", latency:percentile(50), latency:percentile(99),
                         latency:percentile(99.9)))
end
init = function(args)
  %s
end
"""
SCRIPTS = {
    "plain": "",
    "pipeline": """local r = {}
  for i = 1, 16 do r[i] = wrk.format("GET", "/fixed") end
  req = table.concat(r)
  request = function() return req end""",
    "post64k": 'wrk.method = "POST"; wrk.body = string.rep("x", 65536)',
    "post1m": 'wrk.method = "POST"; wrk.body = string.rep("x", 1048576)',
}
IDLE = 10_000
OPENSSL_CONF = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""


@dataclass
class Load:
    """What a load did: requests answered, a text about those that were not, quantiles where it tells them."""
    requests: int
    bad: str = ""
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None


class Loads:
    """command is the last one that was run, as a reader would type it; divisor: of the connections."""

    def __init__(self, work, seconds, cores=LOAD_CORE, divisor=1):
        self.seconds, self.cores, self.work, self.command = seconds, cores, work, ""
        self.h2_rates = {}
        self.connections, self.h2_connections = 64 // divisor, 16 // divisor
        for name, init in SCRIPTS.items():
            (work / f"{name}.lua").write_text(SCRIPT % init)
        (work / "openssl.cnf").write_text(OPENSSL_CONF)
        self.environ = {**os.environ, "OPENSSL_CONF": str(work / "openssl.cnf")}
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", work / "handshakes", HERE / "handshakes.c",
                        "-lssl", "-lcrypto"], check=True)
        subprocess.run(["cc", "-O2", "-std=gnu17", "-D_GNU_SOURCE", "-o", work / "ws", HERE / "ws.c"], check=True)

    def run(self, *command, stop=False):
        """stop: it would go on, and is asked to end after the seconds."""
        self.command = " ".join(word.removeprefix(f"{self.work}/") for word in command)
        process = subprocess.Popen(["taskset", "-c", self.cores, *command], env=self.environ, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if stop:
            time.sleep(self.seconds)
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        if process.returncode:
            raise SystemExit(f"{self.command}: exit code {process.returncode}\n{out[-500:]}")
        return out

    def wrk(self, url, *options, script="plain", connections=None):
        out = self.run("wrk", "-t1", f"-c{connections or self.connections}", "-d60s", "--timeout=10s", "-s",
                       str(self.work / f"{script}.lua"), *options, url, stop=True)
        self.command = self.command.replace("-d60s", f"-d{self.seconds:g}s")
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors:(.*)", out)
        quantiles = (float(n) for n in re.search(r"^quantiles (\d+) (\d+) (\d+)", out, re.M).groups())
        return Load(int(re.search(r"(\d+) requests in", out).group(1)), bad.group(0) if bad else "", *quantiles)

    def h1(self, port, path):
        return self.wrk(f"http://127.0.0.1:{port}{path}")

    def large(self, port, path):
        """On few connections, so that answers end within the time."""
        return self.wrk(f"http://127.0.0.1:{port}{path}", connections=8)

    def pipelined(self, port, path):
        """wrk's latencies are not those of single requests here."""
        load = self.wrk(f"http://127.0.0.1:{port}{path}", script="pipeline")
        return Load(load.requests, load.bad)

    def connects(self, port, path):
        return self.wrk(f"http://127.0.0.1:{port}{path}", "-H", "Connection: close")

    def upload_64k(self, port, path):
        return self.wrk(f"http://127.0.0.1:{port}{path}", script="post64k")

    def upload_1m(self, port, path):
        return self.wrk(f"http://127.0.0.1:{port}{path}", script="post1m")

    def h1_tls(self, port, path):
        return self.wrk(f"https://127.0.0.1:{port}{path}")

    def beside_idle(self, port, path):
        """Idle connections are opened before by hold_idle, which who measures calls."""
        return self.h1(port, path)

    def hold_idle(self, port):
        """IDLE connections with one request each behind them: close them by closing what is returned."""
        held = contextlib.ExitStack()
        request = b"GET /fixed HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for _ in range(IDLE):
            s = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            s.sendall(request)
            s.recv(4096)
        return held

    def websocket(self, port, path):
        out = self.run(str(self.work / "ws"), str(port), path, "64", f"{self.seconds:g}").split()
        return Load(int(out[0]), f"{out[1]} failures" if out[1] != "0" else "")

    def h2load(self, url, *options):
        """As many requests as take the seconds, by the rate of the last time; h2load itself takes whole seconds."""
        rate = self.h2_rates.get(url)
        amount = ["-n", str(round(max(rate * self.seconds, 1000)))] if rate else ["-D", "1"]
        out = self.run("h2load", "-t1", f"-c{self.h2_connections}", "-m32", *amount, *options, url)
        self.h2_rates[url] = float(re.search(r"finished in \S+, ([\d.]+) req/s", out).group(1))
        counts = dict((word, int(n)) for n, word in re.findall(
            r"(\d+) (total|started|done|succeeded|failed|errored|timeout|2xx|3xx|4xx|5xx)\b", out))
        bad = {word: counts[word] for word in ("failed", "errored", "timeout", "3xx", "4xx", "5xx")
               if counts[word]}
        return Load(counts["succeeded"], f"{bad}" if bad else "")

    def h2(self, port, path):
        return self.h2load(f"http://127.0.0.1:{port}{path}")

    def h2_tls(self, port, path):
        return self.h2load(f"https://127.0.0.1:{port}{path}", "--groups=X25519",
                           "--tls13-ciphers=TLS_AES_128_GCM_SHA256")

    def handshakes(self, kind, port, path):
        out = self.run(str(self.work / "handshakes"), kind, str(port), "32", f"{self.seconds:g}", path).split()
        return Load(int(out[0]), f"{out[1]} failures: {' '.join(out[2:])}" if out[1] != "0" else "")

    def full(self, port, path):
        return self.handshakes("full", port, path)

    def resumed(self, port, path):
        return self.handshakes("resumed", port, path)
