"""A router in user space between network namespaces: loses, delays, reorders, doubles and parts.

Run as a process: relay.py SEED NAME=ADDRESS ... opens the TUN device `t0` in each network namespace NAME
(made by Net below, whose far end has ADDRESS) and passes IPv4 packets on by their destination. Commands
come by stdin, a JSON object a line: the condition of the link to a NAME, both ways; what it leaves out is
as on a good link.

    {"to": "agf-1-u", "loss": 0.03, "double": 0.01, "delay_ms": 2, "reorder": 0.2, "parted": false}

Each is answered by a line on stdout when it holds.
"""
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from contextlib import contextmanager

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000
LATE_MS = 8  # by so much a packet out of order is late
QUEUE_MAX = 20000

libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(name):
    """What this thread makes meanwhile (sockets, devices) belongs to the namespace."""
    with open("/proc/thread-self/ns/net") as here, open(f"/run/netns/{name}") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            if libc.setns(here.fileno(), CLONE_NEWNET) != 0:
                os._exit(1)  # this thread would go on in the wrong place


class Relay:
    def __init__(self, seed, ends):
        self.random = random.Random(seed)
        self.by_address, self.name_of, self.links = {}, {}, {}
        for name, address in ends.items():
            with inside(name):
                fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", b"t0", IFF_TUN | IFF_NO_PI))
            self.by_address[bytes(map(int, address.split(".")))] = (fd, name)
            self.name_of[fd] = name
            self.links[name] = {}
        self.queue, self.order = [], itertools.count()

    def take(self, fd):
        for _ in range(64):
            try:
                packet = os.read(fd, 65536)
            except BlockingIOError:
                return
            out = self.by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
            if out:
                self.send(self.name_of[fd], out, packet)

    def send(self, source, out, packet):
        links, chance = (self.links[source], self.links[out[1]]), self.random.random
        if any(k.get("parted") or chance() < k.get("loss", 0) for k in links):
            return
        for _ in range(1 + any(chance() < k.get("double", 0) for k in links)):
            wait_ms = sum(k.get("delay_ms", 0) + LATE_MS * (chance() < k.get("reorder", 0)) for k in links)
            if len(self.queue) < QUEUE_MAX:
                due = time.monotonic() + wait_ms / 1000
                heapq.heappush(self.queue, (due, next(self.order), out[0], packet))

    def run(self):
        poll = select.poll()
        for fd in (*self.name_of, 0):
            poll.register(fd, select.POLLIN)
        while True:
            now = time.monotonic()
            while self.queue and self.queue[0][0] <= now:
                _, _, fd, packet = heapq.heappop(self.queue)
                try:
                    os.write(fd, packet)
                except OSError:
                    pass  # as on any link
            wait = max(0, (self.queue[0][0] - now) * 1000) if self.queue else None
            for fd, _ in poll.poll(wait):
                if fd != 0:
                    self.take(fd)
                    continue
                line = sys.stdin.readline()
                if not line:
                    return
                link = json.loads(line)
                self.links[link.pop("to")] = link
                print("ok", flush=True)


class Net:
    """Namespaces joined by a relay: `names` letters, each with the address 10.86.N.2."""

    def __init__(self, names, seed):
        self.ends = {n: (f"agf-{os.getpid()}-{n}", f"10.86.{i}.2") for i, n in enumerate(names, 1)}
        self.relay = None
        try:
            for name, address in self.ends.values():
                self._ip("netns", "add", name)
                self._ip("-n", name, "link", "set", "lo", "up")
                self._ip("-n", name, "tuntap", "add", "dev", "t0", "mode", "tun")
                self._ip("-n", name, "addr", "add", f"{address}/32", "dev", "t0")
                self._ip("-n", name, "link", "set", "t0", "up")
                self._ip("-n", name, "route", "add", "default", "dev", "t0")
            self.relay = subprocess.Popen(
                [sys.executable, __file__, str(seed), *("=".join(e) for e in self.ends.values())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for n in names:
                self.link(n)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _ip(*args):
        done = subprocess.run(["ip", *args], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"ip {' '.join(args)}: {done.stderr.strip()}")

    def name(self, letter):
        return self.ends[letter][0]

    def address(self, letter):
        return self.ends[letter][1]

    def inside(self, letter):
        return inside(self.name(letter))

    def link(self, letter, **condition):
        """Sets the condition of the link to `letter`; nothing given: a good one."""
        self.relay.stdin.write(json.dumps({"to": self.name(letter), **condition}) + "\n")
        self.relay.stdin.flush()
        if self.relay.stdout.readline() != "ok\n":
            raise OSError("the relay has ended")

    def close(self):
        if self.relay:
            self.relay.stdin.close()
            self.relay.wait(10)
        for name, _ in self.ends.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


if __name__ == "__main__":
    Relay(int(sys.argv[1]), dict(a.split("=") for a in sys.argv[2:])).run()
