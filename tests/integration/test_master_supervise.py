"""A master under a service manager, and all that takes root after its worker has given root up."""
import os
import signal
import socket
import struct
import time

import pytest
from gate import freeze
from test_master import FIXED, NO_PROC, Master, busy, children, gone, low_ports, statuses
from test_reload import PATIENCE
from test_supervise import Manager, activated, get
from test_upgrade import Upgrading, reload_command, shares
from waiting import await_that

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")


@pytest.fixture
def jail(tmp_path):
    folder = tmp_path / "jail"
    folder.mkdir()
    return folder


class Watching(Manager):
    """Sees who speaks: a service manager believes the main process alone."""

    def __init__(self, name):
        super().__init__(name)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.senders = set()

    def message(self):
        data, control, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(12))
        self.senders.add(struct.unpack("3i", control[0][2])[0])
        return dict(line.split("=", 1) for line in data.decode().splitlines())


def test_notifications(backend, tmp_path, jail):
    name = str(tmp_path / "notify")
    with Watching(name) as manager, Master(tmp_path, FIXED, backend, jail=jail,
                                           env={"NOTIFY_SOCKET": name}) as gate:
        ready = manager.message()
        assert ready["READY"] == "1" and ready["STATUS"].startswith("serving 1 route on ")
        assert gate.get("/ok").body == b"fine"
        gate.process.send_signal(signal.SIGHUP)
        reloading = manager.message()
        assert reloading["RELOADING"] == "1" and int(reloading["MONOTONIC_USEC"]) > 0
        assert manager.message()["READY"] == "1"
        gate.rewrite(lambda t: t + "  /bad: FORBIDEN\n")
        gate.process.send_signal(signal.SIGHUP)
        assert manager.message()["RELOADING"] == "1"
        assert manager.message()["STATUS"].endswith("the last reload was refused")
        gate.process.send_signal(signal.SIGTERM)
        assert manager.message()["STOPPING"] == "1"
        assert gate.process.wait(PATIENCE) == 0
        assert manager.senders == {gate.process.pid}


def test_the_watchdog_goes_by_the_worker(backend, tmp_path, jail):
    """It is fed while the worker's shards answer, and not while they do not."""
    name = str(tmp_path / "notify")
    with Watching(name) as manager, Master(tmp_path, FIXED, backend, jail=jail, env={
            "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"}) as gate:
        for _ in range(5):
            assert manager.until("WATCHDOG")["WATCHDOG"] == "1"
        worker = gate.worker
        freeze(worker)
        try:
            manager.sock.settimeout(1)
            deadline = time.monotonic() + PATIENCE
            with pytest.raises(TimeoutError):  # what was said before may be still unread, and an answer on its way
                while time.monotonic() < deadline:
                    manager.message()
        finally:
            os.kill(worker, signal.SIGCONT)
        manager.sock.settimeout(PATIENCE)
        assert manager.until("WATCHDOG")["WATCHDOG"] == "1"
        assert manager.senders == {gate.process.pid}


def test_given_sockets(backend, tmp_path, jail):
    """They reach the worker, stay the manager's, and a reload and an upgrade keep them."""
    with socket.create_server(("127.0.0.1", 0)) as given, \
            socket.socket(socket.AF_UNIX) as by_path:
        by_path.bind(str(tmp_path / "s"))
        by_path.listen()
        port = given.getsockname()[1]
        process = activated(
            tmp_path, f'server: {{listen: ["127.0.0.1:{port}", "unix:{tmp_path}/s"], workers: 2, '
            f"user: nobody, chroot: {jail}, pid_file: {tmp_path}/pid}}\nroutes:\n  /echo: *\n",
            backend, [given, by_path], names="web:path", env=NO_PROC)

        def log():
            return (tmp_path / "stderr.log").read_text()

        def both():
            assert b"200 OK" in get(port)
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(PATIENCE)
                s.connect(f"{tmp_path}/s")
                s.sendall(b"GET /echo HTTP/1.0\r\nHost: x\r\n\r\n")
                assert s.recv(100).startswith(b"HTTP/1.1 200 ")

        both()
        await_that(lambda: "serves\n" in log(), log)
        assert statuses(children(process.pid)[0])[0]["Uid"].split()[0] == "65534"
        process.send_signal(signal.SIGHUP)
        await_that(lambda: "reloaded: " in log(), log)
        both()
        process.send_signal(signal.SIGUSR2)
        assert process.wait(PATIENCE) == 0
        both()
        successor = int((tmp_path / "pid").read_text())
        assert successor != process.pid
        os.kill(successor, signal.SIGTERM)
        await_that(lambda: gone(successor), log)
        socket.create_connection(("127.0.0.1", port)).close()  # the manager listens on


def test_after_chroot_and_drop(backend, tmp_path, jail):
    """Reload, privileged listeners, files of root's, and upgrades, in every order."""
    first, second = low_ports(2)
    (tmp_path / "secret").mkdir(mode=0o755)

    def config(*ports, body="fine"):
        listen = ", ".join(f'"127.0.0.1:{p}"' for p in ("$PORT", *ports))
        return (f"server: {{user: nobody, chroot: {jail}, workers: 2, listen: [{listen}]}}\n"
                f"routes:\n  GET /ok: OK {body}\n  /files/: {tmp_path}/secret/\n")

    with Upgrading(tmp_path, config(), backend, env=NO_PROC) as gate:
        def serve(body, *ports):
            for port in (gate.port, *ports):
                assert gate.get("/ok", port=port).body == body
            await_that(lambda: gate.get("/files/a.txt").body == body, gate.stderr)
            worker = children(gate.pid)[0]
            assert os.readlink(f"/proc/{worker}/root") == str(jail)
            for status in statuses(worker):
                assert status["Uid"].split() == ["65534"] * 4 and status["Seccomp"] == "2"
                assert int(status["CapPrm"], 16) == 0

        def reload(body, *ports):
            (tmp_path / "secret/a.txt").write_text(body.decode())
            gate.write(config(*ports, body=body.decode()))
            (tmp_path / "anygate.yml").chmod(0o600)
            done = reload_command(gate)
            assert done.returncode == 0, done
            serve(body, *ports)

        reload(b"one", first)
        sockets = shares(gate.pid, first)
        assert len(sockets) == 2
        old = gate.upgrade()
        serve(b"one", first)
        assert shares(gate.pid, first) == sockets
        reload(b"two", first, second)
        kept = shares(gate.pid, second)
        old = [old, gate.upgrade()]
        serve(b"two", first, second)
        assert shares(gate.pid, second) == kept
        reload(b"three", second)
        await_that(lambda: not busy(first), gate.stderr)
        for pid in old:
            assert gate.exit_code(pid) == 0


def test_a_successor_becomes_the_main_process(backend, tmp_path, jail):
    name = str(tmp_path / "notify")
    config = FIXED.replace("{", f"{{pid_file: {tmp_path}/pid, ", 1)
    with Watching(name) as manager:
        gate = Master(tmp_path, config, backend, jail=jail, env={
            "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "unused"})
        assert manager.message()["READY"] == "1"
        gate.process.send_signal(signal.SIGUSR2)
        new = int(manager.until("MAINPID")["MAINPID"])
        assert new != gate.process.pid and manager.senders == {gate.process.pid}
        assert manager.until("READY")["READY"] == "1"
        manager.until("WATCHDOG")
        assert gate.process.wait(PATIENCE) == 0
        assert manager.senders == {gate.process.pid, new}
        os.kill(new, signal.SIGTERM)
        assert manager.until("STOPPING")["STOPPING"] == "1"
        await_that(lambda: gone(new), gate.stderr)
        gate.log.close()
