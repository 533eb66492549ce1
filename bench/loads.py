"""The load generators, each on the load's core for a number of seconds.

All offer TLS_AES_128_GCM_SHA256 and X25519 alone, so that each server encrypts alike.
"""
import os
import re
import subprocess

from servers import HERE, LOAD_CORE

PIPELINE = """
init = function(args)
  local r = {}
  for i = 1, 16 do r[i] = wrk.format("GET", "/fixed") end
  req = table.concat(r)
end
request = function() return req end
"""
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


class Loads:
    """Each load returns the number of requests answered and a text about those that were not."""

    def __init__(self, work, seconds):
        self.seconds = seconds
        self.pipeline = work / "pipeline.lua"
        self.pipeline.write_text(PIPELINE)
        (work / "openssl.cnf").write_text(OPENSSL_CONF)
        self.environ = {**os.environ, "OPENSSL_CONF": str(work / "openssl.cnf")}
        self.handshaker = str(work / "handshakes")
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", self.handshaker, HERE / "handshakes.c",
                        "-lssl", "-lcrypto"], check=True)

    def run(self, *command):
        done = subprocess.run(["taskset", "-c", LOAD_CORE, *command], env=self.environ, text=True,
                              capture_output=True, check=True)
        return done.stdout + done.stderr

    def wrk(self, url, *options, connections=64):
        out = self.run("wrk", "-t1", f"-c{connections}", f"-d{self.seconds}s", *options, url)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors:(.*)", out)
        return int(re.search(r"(\d+) requests in", out).group(1)), bad.group(0) if bad else ""

    def h1(self, port, path):
        return self.wrk(f"http://127.0.0.1:{port}{path}")

    def pipelined(self, port, path):
        return self.wrk(f"http://127.0.0.1:{port}{path}", "-s", str(self.pipeline))

    def connects(self, port, path):
        return self.wrk(f"http://127.0.0.1:{port}{path}", "-H", "Connection: close")

    def h1_tls(self, port, path):
        return self.wrk(f"https://127.0.0.1:{port}{path}")

    def h2load(self, url, *options):
        out = self.run("h2load", "-t1", "-c16", "-m32", "-D", str(self.seconds), *options, url)
        counts = dict((word, int(n)) for n, word in re.findall(
            r"(\d+) (total|started|done|succeeded|failed|errored|timeout|2xx|3xx|4xx|5xx)\b", out))
        bad = {word: counts[word] for word in ("failed", "errored", "timeout", "3xx", "4xx", "5xx")
               if counts[word]}
        return counts["succeeded"], f"{bad}" if bad else ""

    def h2(self, port, path):
        return self.h2load(f"http://127.0.0.1:{port}{path}")

    def h2_tls(self, port, path):
        return self.h2load(f"https://127.0.0.1:{port}{path}", "--groups=X25519",
                           "--tls13-ciphers=TLS_AES_128_GCM_SHA256")

    def handshakes(self, kind, port, path):
        out = self.run(self.handshaker, kind, str(port), "32", str(self.seconds), path).split()
        return int(out[0]), f"{out[1]} failures: {' '.join(out[2:])}" if out[1] != "0" else ""

    def full(self, port, path):
        return self.handshakes("full", port, path)

    def resumed(self, port, path):
        return self.handshakes("resumed", port, path)
