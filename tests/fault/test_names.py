"""Calls that fail while names are resolved and messages between threads arrive."""
import errno
import signal
import socket
import struct
import threading
import time

import pytest
from faults import Rig
from gate import Closed
from work import BLOB, get

SERVER = "127.86.0.53"  # an address of its own: port 53 of 127.0.0.1 may be taken
CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1, drain_timeout: 5s}
routes:
  "/fixed": OK fixed
"""
NAMES = 40


class Names:
    """A name server: every A is 127.0.0.1, AAAA there is none."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((SERVER, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                data, peer = self.sock.recvfrom(512)
            except OSError:
                return
            end = data.index(b"\0", 12) + 5
            is_a = data[end - 4:end - 2] == b"\0\1"
            head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, is_a, 0, 0)
            answer = b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 60, 4) + b"\x7f\0\0\1" if is_a else b""
            self.sock.sendto(head + data[12:end] + answer, peer)

    def close(self):
        self.sock.close()


@pytest.fixture(scope="module")
def names():
    try:
        server = Names()
    except PermissionError:
        pytest.skip("port 53 is not to be had")
    yield server
    server.close()


@pytest.fixture(scope="module")
def rig(backend, names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {SERVER}\n")
    routes = "".join(f'  "/n{i}/*": "http://n{i}.test:$UP/up/*"\n' for i in range(NAMES))
    rig = Rig(folder, backend, config=CONFIG + routes,
              wrap=["unshare", "-m", "sh", "-c",
                    f'mount --bind {resolv} /etc/resolv.conf && exec "$@"', "sh"])
    yield rig
    rig.close(check=rig.gate.process.poll() is None)


FAULTS = {
    "dns.connect": ("ENETUNREACH", "ENOMEM"),
    "dns.sendmsg": ("EINTR", "ENOBUFS", "ECONNREFUSED"),
    "dns.recvfrom": ("EINTR", "ECONNREFUSED"),
    "socket": ("EMFILE", "ENOBUFS"),
}
POLLS = {"epoll": {"poll": ("EINTR", "ENOMEM")}, "io_uring": {"uring.cqe.poll": ("ENOMEM",)}}


def test_a_lookup_survives_or_fails_cleanly(rig, backend):
    paths = (f"/n{i}/1000" for i in range(NAMES))
    asked = []
    for site, names in {**FAULTS, **POLLS[backend]}.items():
        for name in names:
            path = next(paths)
            asked.append(path)
            before = rig.table.failed(site)
            rig.table.arm(site, getattr(errno, name))
            try:
                rig.ask((get(path), BLOB[:1000]))
            except (Closed, ConnectionError):
                pass
            rig.table.disarm(site)
            assert rig.table.failed(site) > before, site
    deadline = time.monotonic() + 20
    for path in asked:
        while True:
            try:
                rig.ask((get(path), BLOB[:1000]))
                break
            except Closed:  # a failure is remembered for a second
                assert time.monotonic() < deadline, path
                time.sleep(0.02)


@pytest.mark.parametrize("count", [1, 40])
def test_a_message_arrives_without_its_wake_up(rig, backend, count):
    """A reload wakes the shard, whose poll fails."""
    for site in POLLS[backend]:
        before = rig.table.failed(site)
        rig.table.arm(site, errno.ENOMEM, 1, count)
        told = rig.gate.stderr().count("reloaded")
        rig.gate.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while rig.gate.stderr().count("reloaded") == told:
            assert time.monotonic() < deadline, rig.gate.stderr()
            time.sleep(0.01)
        rig.ask((get("/fixed"), b"fixed"))
        while rig.table.failed(site) == before:
            assert time.monotonic() < deadline, f"{site} was not come to"
            time.sleep(0.01)
        rig.table.disarm(site)
        rig.ask((get("/fixed"), b"fixed"))
