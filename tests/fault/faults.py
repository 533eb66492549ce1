"""A gateway whose system calls can be made to fail (engine/fault.h)."""
import errno
import mmap
import os
import socket
import struct
import threading
import time
from contextlib import suppress

from gate import Gate, Upstream
from tcptable import LISTEN, rows
from work import ANSWER_S, BLOB, LARGE, Work, Wrong, answer

RECORD = struct.Struct("<40sIiIIII")  # struct ag_fault_record
SITES_MAX = 256

CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  drain_timeout: 5s
  access_log: json
  # No clock of a client's ends anything here: what has to end, ends by itself.
  limits: {header_timeout: 1h, idle_timeout: 1h, body_timeout: 1h, write_timeout: 1h}
static: {cache: {max_file: 64k}}
routes:
  "/fixed": "OK fixed"
  "/echo": "*"
  "/files/*": "$FILES/*"
  "/up/*": {action: "http://127.0.0.1:$UP", timeouts: {connect: 1m}}
"""


class Table:
    """The sites of a process, by the file that ANYGATE_FAULT_TABLE names."""

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.truncate(SITES_MAX * RECORD.size)
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 0)
        self.at = {}

    def read(self):
        """Looks for the sites: when the process has started."""
        for i in range(SITES_MAX):
            name = RECORD.unpack_from(self.map, i * RECORD.size)[0].rstrip(b"\0").decode()
            if not name:
                break
            self.at[name] = i * RECORD.size

    def _field(self, site, index):
        return RECORD.unpack_from(self.map, self.at[site])[index]

    def hits(self, site):
        return self._field(site, 1)

    def failed(self, site):
        return self._field(site, 6)

    def arm(self, site, error, nth=1, count=1):
        at = self.at[site]
        struct.pack_into("<III", self.map, at + 48, nth - 1, count, 0)
        struct.pack_into("<i", self.map, at + 44, error)

    def disarm(self, site):
        struct.pack_into("<i", self.map, self.at[site] + 44, 0)


class Rig(Work):
    """A gateway, its upstream and its table. In `config` $FILES are files, $UP the upstream's
    port; `script` is the upstream's; `leaf`: a certificate, for kind "tls"."""

    def __init__(self, folder, backend, env=None, config=CONFIG, script=answer, host="127.0.0.1",
                 address="127.0.0.1", kind="h1", leaf=None, **kwargs):
        files = folder / "files"
        files.mkdir(parents=True, exist_ok=True)
        (files / "small.txt").write_bytes(BLOB[:3000])
        (files / "medium.bin").write_bytes(BLOB)
        (files / "large.bin").write_bytes(LARGE)
        self.upstream = Upstream(script, host, records=False)
        self.upstream.left = threading.Semaphore(0)
        self.table = Table(folder / "table")
        text = config.replace("$FILES", str(files)).replace("$UP", str(self.upstream.port))
        if kind == "tls":
            text = text.replace('["127.0.0.1:$PORT"]', '["127.0.0.1:$PORT", {address: "127.0.0.1:$PORT2", tls: true}]')
            text += f'tls: {{certificates: {{cert: "{leaf.chain}", key: "{leaf.key}"}}}}\n'
        self.gate = Gate(folder, text, backend,
                         env={"ANYGATE_FAULT_TABLE": str(self.table.path), **(env or {})}, **kwargs)
        self.table.read()
        self.baseline = None
        super().__init__(address, self.gate.port, self.upstream.left, kind, self.gate.ports[-1])

    def close(self, check=True):
        """In order: every pool must be empty, or the process says so and fails."""
        try:
            if check:
                self.gate.stop()
            else:
                self.gate.process.kill()
                self.gate.process.wait()
        finally:
            self.upstream.close()

    def check_alive(self, step):
        if self.gate.process.poll() is not None:
            raise Wrong(f"{step}: the server ended: {self.gate.stderr()[-4000:]}")

    # ---- what must hold afterwards ----

    def fds(self):
        """Without pipes: the engine keeps some for a second, and says itself when one is lost (engine/pipes.c)."""
        return sum(not fd.startswith("pipe:") for fd in self.list_fds())

    def hang_up(self):
        """Ends the upstream's connections, as far as they were accepted."""
        with self.upstream.lock:
            conns, self.upstream.open = self.upstream.open, []
        for c in conns:
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def is_connected(self):
        """Whether it has a TCP connection, in whatever state."""
        connections = {row.link for row in rows(pid=self.gate.process.pid) if row.state != LISTEN}
        return not connections.isdisjoint(self.list_fds())

    def settle(self):
        """Waits until it has as few descriptors as when nothing had failed yet."""
        deadline = time.monotonic() + ANSWER_S
        last, since = self.fds(), time.monotonic()
        while time.monotonic() < deadline:
            self.hang_up()
            now = self.fds()
            if now != last:
                last, since = now, time.monotonic()
            still = time.monotonic() - since > 0.3
            if now == self.baseline or (self.baseline is None and still and not self.is_connected()):
                self.baseline = now
                return
            time.sleep(0.002)
        raise Wrong(f"{last} descriptors, not {self.baseline}: {self.list_fds()}")

    def list_fds(self):
        folder = f"/proc/{self.gate.process.pid}/fd"
        links = []
        for fd in os.listdir(folder):
            with suppress(FileNotFoundError):  # closed since
                links.append(os.readlink(f"{folder}/{fd}"))
        return sorted(links)

    def warm(self):
        assert self.work() == []
        self.settle()

    def inject(self, site, error, nth=1, count=1, harmless=False):
        """Work with a fault, then work without: that must go well, and both when the fault is harmless.
        True: the fault came to pass."""
        name = errno.errorcode[error]
        before = self.table.failed(site)
        try:
            self.table.arm(site, error, nth, count)
            failed = self.work()
            self.settle()
            self.table.disarm(site)
            if failed and harmless:
                raise Wrong(f"it was noticed: {failed}")
            failed = self.work()
            if failed:
                raise Wrong(f"afterwards: {failed}")
            self.settle()
        except Wrong as e:
            raise Wrong(f"{site}={name}@{nth}+{count}: {e}") from None
        return self.table.failed(site) > before
