"""Master and worker: who keeps which rights, what still works without them, and how either ends.

The worker runs as a user without rights, mostly in an empty chroot, with system calls filtered: so what
a test reaches through it shows that the master has handed over all that is needed, and no more. Needs
root.
"""
import array
import contextlib
import ctypes
import fcntl
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest
from gate import BINARY, Gate, Reader, Upstream, free_port, freeze, ok, run, without_sanitizers
from ports import hold
from tcptable import LISTEN, rows
from test_reload import PATIENCE
from tracing import POLLS, Held
from waiting import await_that

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")

NOBODY = 65534
LARGE = 4 << 20
# The leak check of a sanitizer reads /proc, which is not there in a chroot.
NO_PROC = {"ASAN_OPTIONS": "detect_leaks=0"}


def wait_for(condition, what, gate=None):
    return await_that(condition, lambda: f"{what}: {gate.stderr() if gate else ''}", 30)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(p) for p in f.read().split()]


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def statuses(pid):
    """Of each thread: its status file as a mapping."""
    out = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/status") as f:
            out.append(dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line))
    return out


def links(pid):
    out = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            out[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            pass
    return out


def listening_inodes():
    """Sockets that listen on TCP, by inode; and those that do anything else there."""
    listen, other = set(), set()
    for row in rows("tcp", "tcp6"):
        (listen if row.state == LISTEN else other).add(row.link)
    return listen, other


class Master(Gate):
    """A gate whose process is the master; `worker` is the one that serves."""

    def __init__(self, folder, config, backend, env=None, jail=None, server="", **more):
        if jail:
            server += f", chroot: {jail}"
            env = {**NO_PROC, **(env or {})}
        config = config.replace("SERVER", f"user: nobody{server}")
        super().__init__(folder, config, backend, env=env, **more)

    def await_worker(self):
        wait_for(lambda: re.search(r"worker \d+ serves", self.stderr()), "worker", self)
        return self

    @property
    def worker(self):
        self.await_worker()
        return int(re.search(r"worker (\d+) serves", self.stderr())[1])

    def rewrite(self, change):
        path = self.folder / "anygate.yml"
        path.write_text(change(path.read_text()))

    def reload(self, line="reloaded: "):
        before = self.stderr().count(line)
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.stderr().count(line) > before, line, self)


FIXED = """
server: {listen: ["127.0.0.1:$PORT"], SERVER}
routes:
  GET /ok: OK fine
"""


@pytest.fixture
def jail(tmp_path):
    folder = tmp_path / "jail"
    folder.mkdir()
    return folder


# ---- rights ----

def test_the_worker_has_no_rights(backend, tmp_path, jail):
    with Master(tmp_path, FIXED, backend, jail=jail) as gate:
        assert gate.get("/ok").body == b"fine"
        threads = statuses(gate.worker)
        assert len(threads) >= 6  # control, log, helpers, shards
        for status in threads:
            assert status["Uid"].split() == [str(NOBODY)] * 4, status["Name"]
            assert status["Gid"].split() == [str(NOBODY)] * 4, status["Name"]
            assert status["Groups"].split() == [str(NOBODY)], status["Name"]
            for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
                assert int(status[f"Cap{kind}"], 16) == 0, (status["Name"], kind)
            assert status["NoNewPrivs"] == "1", status["Name"]
            assert status["Seccomp"] == "2", status["Name"]
        assert os.readlink(f"/proc/{gate.worker}/root") == str(jail)
        assert os.readlink(f"/proc/{gate.worker}/cwd") == str(jail)
        master = statuses(gate.process.pid)
        assert len(master) == 1  # one thread
        assert master[0]["Uid"].split()[0] == "0"


def strays(pid):
    """What a worker is not to have."""
    return {fd: to for fd, to in links(pid).items()
            if not (fd <= 2 or to.startswith(("socket:", "anon_inode:", "pipe:")) or to == "/")}


def test_no_descriptor_goes_along(backend, tmp_path, jail):
    """What whoever starts it left open stays outside, and the master has no connection."""
    config = FIXED + "  /: ./www/\n  /p: http://127.0.0.1:$PORT2/\n"
    (tmp_path / "www").mkdir()
    (tmp_path / "www/a.txt").write_text("static")
    wrap = ("sh", "-c", 'exec "$@" 9</etc/passwd', "sh")
    with Upstream(lambda i, head: ok(b"up")) as up:
        with Master(tmp_path, config, backend, jail=jail, wrap=wrap,
                    ports=[free_port(), up.port]) as gate:
            with gate.connect() as held:
                held.sendall(b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n")
                assert Reader(held).response().body == b"up"
                assert gate.get("/a.txt").body == b"static"
                wait_for(lambda: not strays(gate.worker), "a file is read and closed", gate)
                worker, master = links(gate.worker), links(gate.process.pid)
                listen, other = listening_inodes()
    assert "/etc/passwd" in master.values()  # the test's own doing
    assert not other & set(master.values())
    assert listen & set(master.values())
    assert worker[0] == worker[1] == "/dev/null"
    assert not any("memfd:" in to for to in [*worker.values(), *master.values()])


def test_pages_for_errors_come_along(backend, tmp_path, jail):
    (tmp_path / "404.txt").write_text("before")
    (tmp_path / "404.txt").chmod(0o600)
    server = ', error_pages: {404: ./404.txt}'
    with Master(tmp_path, FIXED, backend, jail=jail, server=server) as gate:
        assert gate.get("/none").body == b"before"
        (tmp_path / "404.txt").write_text("after")
        gate.reload()
        wait_for(lambda: gate.get("/none").body == b"after", "the new page", gate)


@pytest.mark.parametrize("setting, mode", [("off", "0"), ("log", "2"), ("on", "2"), ("auto", "2")])
def test_the_filter_can_be_chosen(backend, tmp_path, setting, mode):
    with Master(tmp_path, FIXED, backend, server=f", seccomp: '{setting}'") as gate:
        assert gate.get("/ok").body == b"fine"
        assert {s["Seccomp"] for s in statuses(gate.worker)} == {mode}
        state = "on" if setting == "auto" else setting
        line = f"runs as 65534:65534, chroot none, seccomp {state},"
        wait_for(lambda: line in gate.stderr(), line, gate)  # the log has a thread of its own


@pytest.mark.parametrize("setting, mode", [("auto", "0"), ("on", "2")])
def test_alone_the_filter_is_asked_for(backend, tmp_path, setting, mode):
    config = FIXED.replace("SERVER", f"seccomp: '{setting}'")
    with Gate(tmp_path, config, backend) as gate:
        assert gate.get("/ok").body == b"fine"
        threads = statuses(gate.process.pid)
        assert {s["Seccomp"] for s in threads} == {mode}
        assert {s["NoNewPrivs"] for s in threads} == {"1" if setting == "on" else "0"}
        assert children(gate.process.pid) == []
        # It does a master's work too.
        new = free_port()
        path = tmp_path / "anygate.yml"
        path.write_text(path.read_text().replace("listen: [", f'listen: ["127.0.0.1:{new}", ')
                        .replace("fine", "changed"))
        gate.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded: " in gate.stderr(), "reload", gate)
        assert gate.get("/ok", port=new).body == b"changed"


def nobody(tmp_path):
    """The server for somebody who is not root: the way to it is open, and so is what it lies in."""
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        if parent.stat().st_uid == 0 and parent.name.startswith(("pytest-", "test_")):
            parent.chmod(0o755)
    binary = tmp_path / "anygate"
    shutil.copy(BINARY, binary)
    binary.chmod(0o755)
    return str(binary), ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def test_root_without_a_user_is_told(backend, tmp_path):
    warning, note = "warn  runs as root, and so would whoever breaks in; hint: server.user", "note: "
    with Gate(tmp_path / "root", FIXED.replace("SERVER", ""), backend) as gate:
        wait_for(lambda: warning in gate.stderr(), "the warning", gate)
    done = run("check", "-c", tmp_path / "root/anygate.yml", "--strict")
    assert done.returncode == 0 and "it runs as root; hint: server.user" in done.stdout
    assert "note:" not in run("check", "-c", tmp_path / "root/anygate.yml", "--format",
                              "json").stdout
    with Master(tmp_path / "user", FIXED, backend) as gate:
        wait_for(lambda: "runs as 65534" in gate.stderr(), "the worker's log", gate)
        assert "runs as root" not in gate.stderr()
    assert note not in run("check", "-c", tmp_path / "user/anygate.yml").stdout
    binary, wrap = nobody(tmp_path)
    with Gate(tmp_path / "nobody", FIXED.replace("SERVER", ""), backend, binary=binary,
              wrap=wrap) as gate:
        wait_for(lambda: "listening on" in gate.stderr(), "the log", gate)
        assert "runs as root" not in gate.stderr()
    done = run("check", "-c", tmp_path / "nobody/anygate.yml", binary=binary, wrap=wrap)
    assert done.returncode == 0 and note not in done.stdout


def test_without_root_the_user_stays(backend, tmp_path):
    binary, wrap = nobody(tmp_path)
    with Master(tmp_path, FIXED, backend, binary=binary, wrap=wrap) as gate:
        assert gate.get("/ok").body == b"fine"
        assert gate.logs("warning: server.user is of no effect")
        assert children(gate.process.pid) == []


def test_without_root_there_is_no_chroot(tmp_path, jail):
    binary, wrap = nobody(tmp_path)
    (tmp_path / "c.yml").write_text(
        f"server: {{user: nobody, chroot: {jail}, listen: '127.0.0.1:{free_port()}'}}\n")
    done = run("serve", "-c", tmp_path / "c.yml", binary=binary, wrap=wrap)
    assert done.returncode == 1
    assert "server.chroot needs root" in done.stderr


@pytest.mark.parametrize("server, text", [
    ("user: no-such-user", "c.yml:1:16: error: this system has no user no-such-user"),
    ("user: root", "c.yml:1:16: error: user root is root"),
    ("user: 'nobody:no-such-group'", "c.yml:1:16: error: this system has no group"),
    ("user: nobody, chroot: /no/such/folder", "server.chroot: no directory /no/such/folder"),
    ("user: nobody, listen: '192.0.2.1:80'", "no interface of this machine has that address"),
    ("user: nobody, lissen: x", 'c.yml:1:24: error: unknown key "lissen"'),
])
def test_what_cannot_start_says_why(tmp_path, server, text):
    (tmp_path / "c.yml").write_text(f"server: {{{server}}}\nroutes:\n  /: OK\n")
    done = run("serve", "-c", "c.yml", cwd=tmp_path)
    assert done.returncode == 1
    assert text in done.stderr
    assert done.stderr.count("error:") == 1
    if "192.0.2.1" not in server:  # check does not bind
        done = run("check", "-c", "c.yml", cwd=tmp_path)
        assert done.returncode == 1 and text.removeprefix("server.") in done.stderr


# ---- work ----

WORK = """
server: {listen: ["127.0.0.1:$PORT"], access_log: human, drain_timeout: 5s, SERVER}
routes:
  GET /ok: OK fine
  /echo: "*"
  /files/: ./www/
  /by-address/*: http://127.0.0.1:$PORT2/*
  /by-name/*: http://backend.test:$PORT2/*
"""


def upstream(index, head):
    if b"Upgrade: websocket" not in head:
        return ok(b"from upstream: " + head.split(b"\r\n")[0])

    def tunnel(peer, _, rest):
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                  b"Connection: Upgrade\r\n"
                  b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        while data := peer.sock.recv(65536):
            peer.send(data)
    return tunnel


def open_websocket(gate):
    s = gate.connect()
    s.sendall(b"GET /by-address/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
              b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
              b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert Reader(s).response().status == 101
    return s


def echoes(s, data):
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        got += s.recv(65536)
    return got == data


def forget_pages(path):
    """Out of the page cache, so that the server must ask a helper for it."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@pytest.mark.parametrize("jailed", [True, False], ids=["chroot", "no-chroot"])
def test_all_kinds_of_work(backend, tmp_path, jail, jailed):
    www = tmp_path / "www"
    www.mkdir()
    large = bytes(range(256)) * (LARGE // 256)
    (www / "large.bin").write_bytes(large)
    (www / "index.html").write_text("<p>index")
    (jail / "etc").mkdir()
    (jail / "etc/hosts").write_text("127.0.0.1 backend.test\n")
    config = WORK if jailed else WORK.replace("backend.test", "localhost")
    with Upstream(upstream) as up, \
            Master(tmp_path, config, backend, jail=jail if jailed else None,
                   ports=[free_port(), up.port]) as gate:
        forget_pages(www / "large.bin")
        assert gate.get("/ok").body == b"fine"
        assert b'"method":"POST"' in gate.get("/echo", "Content-Length: 2\r\n", method="POST",
                                              body=b"hi").body.replace(b" ", b"")
        assert gate.get("/files/").body == b"<p>index"
        assert gate.get("/files/large.bin").body == large
        assert gate.get("/files/large.bin", "Range: bytes=-5\r\n").body == large[-5:]
        assert gate.get("/files/none.txt").status == 404
        assert gate.get("/by-address/a").body == b"from upstream: GET /a HTTP/1.1"
        assert gate.get("/by-name/b").body == b"from upstream: GET /b HTTP/1.1"
        with open_websocket(gate) as ws:
            assert echoes(ws, b"before")
            (www / "index.html").write_text("<p>changed")
            gate.reload()
            assert echoes(ws, b"x" * 200000)
        wait_for(lambda: gate.get("/files/").body == b"<p>changed", "the changed file")
        assert gate.logs("GET /by-name/b")  # the access log


def test_a_reload_brings_what_only_root_may(backend, tmp_path, jail):
    """A file that root alone reads, a port below 1024, a directory that came later."""
    late = tmp_path / "late"
    config = FIXED + "  /late/: ./late/\n"
    [low] = low_ports(1)
    with Master(tmp_path, config, backend, jail=jail) as gate:
        (tmp_path / "anygate.yml").chmod(0o600)
        tmp_path.chmod(0o700)
        assert gate.get("/late/a.txt").status == 404
        late.mkdir()
        (late / "a.txt").write_text("here")
        assert gate.get("/late/a.txt").status == 404  # what the path means there is another matter
        old = gate.port
        gate.rewrite(lambda t: t.replace(f'"127.0.0.1:{old}"', f'"127.0.0.1:{low}"')
                     .replace("fine", "low"))
        gate.reload()
        assert gate.get("/ok", port=low).body == b"low"
        assert gate.get("/late/a.txt", port=low).body == b"here"
        wait_for(lambda: busy(old) is False, "the old port is closed", gate)
        gate.rewrite(lambda t: t.replace(f"127.0.0.1:{low}", f"127.0.0.1:{old}"))
        gate.reload()
        assert gate.get("/ok").body == b"low"
        wait_for(lambda: busy(low) is False, "the low port is closed", gate)


LOW_PORTS = []  # what holds them


def low_ports(count):
    """Ports that only root may bind, and nobody has: they are this process's from now on."""
    found = []
    for port in range(1023, 900, -1):
        if lock := hold(f"low-port-{port}"):
            LOW_PORTS.append(lock)
            if not busy(port):
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("every port that only root may bind is taken")


def busy(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_a_directory_is_what_was_handed_over(backend, tmp_path, jail):
    """A worker in a chroot has no path to look at again; without one it finds what took its place."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www/a.txt").write_text("old")
    tmp_path.chmod(0o755)
    config = FIXED + "  /: ./www/\n"
    with Master(tmp_path, config, backend, jail=jail) as gate:
        assert gate.get("/a.txt").body == b"old"
        (tmp_path / "www").rename(tmp_path / "before")
        (tmp_path / "www").mkdir()
        (tmp_path / "www/a.txt").write_text("new")
        time.sleep(1.1)  # longer than a directory goes without a look
        assert gate.get("/a.txt").body == b"old"
        gate.reload()
        wait_for(lambda: gate.get("/a.txt").body == b"new", "the new one", gate)


def test_a_bad_configuration_is_refused(backend, tmp_path, jail):
    with Master(tmp_path, FIXED, backend, jail=jail) as gate:
        gate.await_worker()
        gate.rewrite(lambda t: t + "  /bad: FORBIDEN\n")
        gate.reload("reload refused: 1 error; the configuration before stays")
        assert 'anygate.yml:5:9: error: "FORBIDEN"' in gate.stderr()
        assert gate.get("/ok").body == b"fine"
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", free_port()))
            taken.listen()
            port = taken.getsockname()[1]
            gate.rewrite(lambda t: t.replace("  /bad: FORBIDEN\n", "")
                         .replace("listen: [", f'listen: ["127.0.0.1:{port}", '))
            gate.reload("reload refused: cannot bind")
        assert gate.get("/ok").body == b"fine"
        gate.reload()  # the port is free now
        assert gate.get("/ok", port=port).body == b"fine"
        gate.rewrite(lambda t: t.replace("user: nobody", "user: daemon"))
        gate.reload()
        assert "server.user has changed, which takes effect at a restart" in gate.stderr()


def test_who_reloads_is_told_what_needs_a_restart(backend, tmp_path, jail):
    pid_file = tmp_path / "pid"
    with Master(tmp_path, FIXED, backend, jail=jail, args=["--pid-file", str(pid_file)]) as gate:
        gate.await_worker()
        gate.rewrite(lambda t: t.replace("user: nobody", "user: daemon"))
        done = run("reload", "--pid-file", pid_file)
        assert (done.returncode, done.stdout) == (0, "reloaded\n"), done
        assert done.stderr == "warning: changed, which takes effect at a restart: server.user\n"
        assert run("reload", "--pid-file", pid_file).stderr == done.stderr
        gate.rewrite(lambda t: t.replace("user: daemon", "user: nobody"))
        assert run("reload", "--pid-file", pid_file).stderr == ""


def test_stop_waits_as_long_as_the_master_does(tmp_path, jail):
    """For a worker that hangs, until it is killed."""
    pid_file = tmp_path / "pid"
    gate = Master(tmp_path, FIXED, "epoll", jail=jail, args=["--pid-file", str(pid_file)])
    freeze(gate.worker)
    done = run("stop", "--now", "--pid-file", pid_file)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done
    gate.process.wait(20)
    assert "it did not do as it was told" in gate.stderr()
    gate.log.close()


def limit_files(worker, count):
    """Root may not, in a container: its own user may."""
    subprocess.run(["prlimit", f"--pid={worker}", f"--nofile={count}:"], user=NOBODY, group=NOBODY, extra_groups=[],
                   check=True)


def test_a_worker_without_descriptors_refuses_and_serves_on(backend, tmp_path, jail):
    (tmp_path / "www").mkdir()
    with Master(tmp_path, FIXED + "  /www/*: ./www/\n", backend, jail=jail) as gate:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        limit_files(gate.worker, 8)
        gate.reload("reload refused: the worker has no descriptors left for it; hint: raise RLIMIT_NOFILE; the "
                    "configuration before stays")
        limit_files(gate.worker, most)
        assert gate.get("/ok").body == b"fine"
        gate.reload()


def test_a_worker_that_does_not_answer(backend, tmp_path, jail):
    """The reload is given up; what the worker says to it later is no nonsense."""
    pid_file = tmp_path / "pid"
    with Master(tmp_path, FIXED, backend, jail=jail, args=["--pid-file", str(pid_file)]) as gate:
        worker, new = gate.worker, free_port()
        freeze(worker)
        gate.rewrite(lambda t: t.replace("fine", "changed")
                     .replace("listen: [", f'listen: ["127.0.0.1:{new}", '))
        try:
            done = run("reload", "--pid-file", pid_file)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert done.returncode == 1
        assert re.search(rf"reload refused: worker {worker} has not answered within \d+ s; hint: .*; "
                         "the configuration before stays", done.stderr), done
        assert gate.get("/ok").body == b"fine"
        wait_for(lambda: not busy(new), "the new port is closed", gate)
        done = run("reload", "--pid-file", pid_file)
        assert done.returncode == 0, done
        assert gate.get("/ok", port=new).body == b"changed"
        assert gate.worker == worker


def test_a_shard_that_hangs(backend, tmp_path, jail):
    """The configuration is the worker's by then: no way back, and nothing else is begun."""
    pid_file = tmp_path / "pid"
    with Master(tmp_path, FIXED, backend, jail=jail, args=["--pid-file", str(pid_file)]) as gate:
        worker = gate.worker
        tasks = Path(f"/proc/{worker}/task")
        shard = next(t for t in tasks.iterdir() if (t / "comm").read_text() == "shard-0\n")
        gate.rewrite(lambda t: t.replace("fine", "changed"))
        with Held(int(shard.name)):
            done = run("reload", "--pid-file", pid_file)
            assert done.returncode == 1
            assert f"reload failed: worker {worker} has not taken the configuration up" in done.stderr
            done = run("reload", "--pid-file", pid_file)
            assert done.returncode == 1
            assert f"worker {worker} has not taken the last one up yet" in done.stderr
        wait_for(lambda: "has taken the configuration up after all" in gate.stderr(), "it", gate)
        assert gate.get("/ok").body == b"changed"
        gate.rewrite(lambda t: t.replace("changed", "again"))
        assert run("reload", "--pid-file", pid_file).returncode == 0
        assert gate.get("/ok").body == b"again"
        assert gate.worker == worker


def test_an_end_right_behind_a_reload(backend, tmp_path, jail):
    """The shards are through with both before the control thread looks again: the configuration is gone."""
    with Master(tmp_path, FIXED, backend, jail=jail) as gate, channel_of(gate.worker) as channel, \
            Held(gate.worker) as control:
        def unread():
            return struct.unpack("i", fcntl.ioctl(channel, termios.FIONREAD, bytes(4)))[0]

        def let_it_read():
            while unread():
                control.run_to(POLLS)

        gate.process.send_signal(signal.SIGHUP)
        wait_for(unread, "the configuration", gate)
        freeze(gate.process.pid)
        let_it_read()
        gate.process.send_signal(signal.SIGTERM)
        gate.process.send_signal(signal.SIGCONT)
        wait_for(lambda: unread() >= 32, "to commit and to drain", gate)
        shards = [t for t in Path(f"/proc/{gate.worker}/task").iterdir()
                  if (t / "comm").read_text().startswith("shard-")]
        with Held(int(shards[0].name)):
            let_it_read()
        wait_for(lambda: all("futex" in (t / "wchan").read_text() for t in shards), "the shards' end", gate)
    assert gate.process.returncode == 0


def test_reloads_leave_nothing_behind(backend, tmp_path, jail):
    (tmp_path / "www").mkdir()
    (tmp_path / "www/a.txt").write_text("static")
    with Master(tmp_path, FIXED + "  /: ./www/\n", backend, jail=jail, server=", workers: 1") as gate:
        def used():
            return len(links(gate.process.pid)), len(links(gate.worker))
        assert gate.get("/a.txt").body == b"static"
        gate.reload()
        counts = [used()]
        for i in range(12):
            assert gate.get("/a.txt").body == b"static"
            gate.reload()
            counts.append(used())
        wait_for(lambda: used() <= counts[0], f"descriptors: {counts}", gate)


# ---- ends ----

@pytest.mark.parametrize("server", ["", ", user: nobody"], ids=["alone", "master"])
def test_nobody_reads_the_log(backend, tmp_path, server):
    """Neither a reload nor the end waits for who has it."""
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    with Gate(tmp_path / "gate", f"""
server: {{listen: ["127.0.0.1:$PORT"]{server}}}
routes:
  GET /ok: OK fine
""", backend, wrap=["sh", "-c", 'exec "$0" "$@" 2>"$PIPE"'], env={"PIPE": str(tmp_path / "pipe")}) as gate:
        assert gate.get("/ok").body == b"fine"
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, bytes(4096))
        path = gate.folder / "anygate.yml"
        path.write_text(path.read_text() + "  /bad: FORBIDEN\n")
        gate.process.send_signal(signal.SIGHUP)
        gate.process.send_signal(signal.SIGTERM)  # taken after SIGHUP
        assert gate.process.wait(PATIENCE) == 0
    os.close(pipe)


class Slow:
    """An upstream that answers when it is let."""

    def __init__(self):
        self.arrived, self.go = threading.Event(), threading.Event()

        def answer(peer, head, rest):
            self.arrived.set()
            if not self.go.wait(60):
                return None
            peer.send(ok(b"late"))
            return rest
        self.upstream = Upstream(lambda i, head: answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.go.set()
        self.upstream.close()


SLOW = FIXED + "  /slow: http://127.0.0.1:$PORT2/\n"


def ask_slowly(gate, slow):
    s = gate.connect()
    s.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert slow.arrived.wait(20)
    return s


def test_a_signal_drains(backend, tmp_path, jail):
    with Slow() as slow:
        gate = Master(tmp_path, SLOW, backend, jail=jail, ports=[free_port(), slow.upstream.port])
        worker = gate.worker
        with ask_slowly(gate, slow) as s:
            os.kill(worker, signal.SIGTERM)  # as a service manager signals all of a service
            gate.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not busy(gate.port), "closed", gate)
            slow.go.set()
            assert Reader(s).response().body == b"late"
        assert gate.process.wait(20) == 0
        gate.stop()
        assert gone(worker)


def test_a_second_signal_stops_at_once(backend, tmp_path, jail):
    with Slow() as slow:
        gate = Master(tmp_path, SLOW, backend, jail=jail, ports=[free_port(), slow.upstream.port])
        with ask_slowly(gate.await_worker(), slow):
            gate.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "draining" in gate.stderr(), "draining", gate)
            gate.process.send_signal(signal.SIGTERM)
            assert gate.process.wait(20) == 1
        gate.stop(expect=1)
        assert "connections were cut" in (tmp_path / "stderr.log").read_text()


def test_the_master_ends_with_its_worker(backend, tmp_path, jail):
    gate = Master(tmp_path, FIXED, backend, jail=jail)
    worker = gate.worker
    os.kill(worker, signal.SIGKILL)
    assert gate.process.wait(20) == 1
    gate.stop(expect=1)
    log = (tmp_path / "stderr.log").read_text()
    assert f"worker {worker} was ended by SIGKILL" in log


def test_a_call_that_no_server_makes_is_told(backend, tmp_path):
    gate = Master(tmp_path, FIXED, backend)
    worker = gate.worker
    os.kill(worker, signal.SIGSYS)  # by the filter, mostly
    assert gate.process.wait(20) == 1
    gate.stop(expect=1)
    log = (tmp_path / "stderr.log").read_text()
    assert f"worker {worker} was ended by SIGSYS: it made a system call that no server makes" in log


TCP_NOTSENT_LOWAT = 25


def test_a_worker_bounds_what_is_unsent(backend, tmp_path, jail):
    """The filter lets it set what it sets on every connection."""
    with Upstream(lambda i, head: ok(b"up")) as up, \
            Master(tmp_path, FIXED + "  /p: http://127.0.0.1:$PORT2/\n", backend, jail=jail,
                   ports=[free_port(), up.port]) as gate, gate.connect() as s:
        s.sendall(b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n")
        assert Reader(s).response().body == b"up"
        tcp = [k for k in sockets_of(gate.worker) if k.family == socket.AF_INET]
        limits = [k.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) for k in tcp]
        connected = [k for k in tcp if not k.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
        for k in tcp:
            k.close()
        assert len(connected) >= 2 and set(limits) == {32 << 10}  # to the client, to the upstream


def test_the_worker_drains_without_its_master(backend, tmp_path, jail):
    with Slow() as slow:
        gate = Master(tmp_path, SLOW, backend, jail=jail, ports=[free_port(), slow.upstream.port])
        worker = gate.worker
        with ask_slowly(gate, slow) as s:
            gate.process.kill()
            gate.process.wait()
            wait_for(lambda: not busy(gate.port), "closed", gate)
            slow.go.set()
            assert Reader(s).response().body == b"late"
        wait_for(lambda: gone(worker), "the worker's end", gate)
        assert "there is no master any more: draining" in gate.stderr()
        gate.log.close()


def sockets_of(pid):
    """Duplicates of what this process has: what somebody in it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        for fd, to in links(pid).items():
            if to.startswith("socket:"):
                mine = libc.syscall(438, pidfd, fd, 0)  # pidfd_getfd
                assert mine >= 0, os.strerror(ctypes.get_errno())
                yield socket.socket(fileno=mine)
    finally:
        os.close(pidfd)


def channel_of(pid):
    """The worker's end of the channel."""
    for s in sockets_of(pid):
        if s.family == socket.AF_UNIX and s.type == socket.SOCK_SEQPACKET:
            return s
        s.close()
    raise AssertionError("no channel")


@pytest.mark.parametrize("words", [
    [0, 0, 0, 0],          # no type
    [9, 1, 0, 0],          # ready, again
    [10, 1, 0, 0],         # loaded, though nothing was sent
    [12, 1, 0, 0],         # applied, too
    [13, 0, 0, 0],         # alive, though nobody asked
    [6, 0, 0, 0],          # an order of the master's
    [11, 1, 0, 0xffffffff],  # a text that is not there
])
def test_a_worker_that_talks_nonsense_is_killed(backend, tmp_path, words):
    gate = Master(tmp_path, FIXED, backend)
    worker = gate.worker
    with channel_of(worker) as channel, open("/dev/null") as null:
        fds = array.array("i", [null.fileno()])
        channel.sendmsg([array.array("I", words).tobytes()],
                        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        assert gate.process.wait(20) == 1
    gate.stop(expect=1)
    assert gone(worker)
    log = (tmp_path / "stderr.log").read_text()
    assert f"worker {worker} says what makes no sense" in log


def test_the_log_says_how_it_crashed(backend, tmp_path):
    """In a thread of the worker, by a build whose signals no sanitizer takes."""
    gate = Master(tmp_path, FIXED, backend, binary=without_sanitizers(), server=", seccomp: 'off'")
    worker = gate.worker
    thread = next(t for t in os.listdir(f"/proc/{worker}/task")
                  if open(f"/proc/{worker}/task/{t}/comm").read().startswith("shard-"))
    name = open(f"/proc/{worker}/task/{thread}/comm").read().strip()
    ctypes.CDLL(None).syscall(234, worker, int(thread), int(signal.SIGSEGV))  # tgkill
    assert gate.process.wait(20) == 1
    log = gate.stderr()
    gate.log.close()
    assert re.search(rf"anygate: crash: SIGSEGV in thread {name}, pc \S+, version \S+, pid {worker}",
                     log)
    assert f"worker {worker} was ended by SIGSEGV" in log


def test_the_master_logs_as_it_is_told(backend, tmp_path):
    with Master(tmp_path, FIXED, backend, server=", log: {format: json}") as gate:
        def lines():
            return [line for line in gate.stderr().splitlines() if "serves" in line]
        wait_for(lambda: len(lines()) == 2, "one of each", gate)
        assert all(line.startswith('{"') for line in lines()), lines()


# ---- lifecycle ----

def test_an_upgrade_goes_through_the_master(backend, tmp_path, jail):
    """The new master has the sockets from the old one, and its worker serves when the old one stops."""
    pid_file = tmp_path / "pid"
    gate = Master(tmp_path, FIXED, backend, jail=jail, args=["--pid-file", str(pid_file)])
    worker = gate.worker
    assert int(pid_file.read_text()) == gate.process.pid
    try:
        gate.rewrite(lambda t: t.replace("fine", "upgraded"))
        gate.process.send_signal(signal.SIGUSR2)
        assert gate.process.wait(30) == 0
        assert gone(worker)
        successor = int(pid_file.read_text())
        assert successor != gate.process.pid
        assert gate.get("/ok").body == b"upgraded"
        assert "Seccomp" in statuses(children(successor)[0])[0]
        assert statuses(children(successor)[0])[0]["Uid"].split()[0] == str(NOBODY)
    finally:
        successor = int(pid_file.read_text())
        os.kill(successor, signal.SIGTERM)
        wait_for(lambda: gone(successor), "the successor's end", gate)
        gate.log.close()
    assert not pid_file.exists()


def test_reload_by_command_tells_the_outcome(backend, tmp_path, jail):
    pid_file = tmp_path / "pid"
    with Master(tmp_path, FIXED, backend, jail=jail, args=["--pid-file", str(pid_file)]) as gate:
        gate.await_worker()
        done = run("reload", "--pid-file", pid_file)
        assert done.returncode == 0, done.stderr
        gate.rewrite(lambda t: t + "  /bad: FORBIDEN\n")
        done = run("reload", "--pid-file", pid_file)
        assert done.returncode == 1
        assert 'error: "FORBIDEN"' in done.stdout + done.stderr
        assert gate.get("/ok").body == b"fine"
