"""Hot upgrade by SIGUSR2: a new binary takes over, and no client notices; a bad one changes nothing."""
import contextlib
import ctypes
import fcntl
import os
import re
import select
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
from gate import BINARY, BROKEN, Closed, Gate, Reader, Upstream, free_port, freeze, refused
from tcptable import LISTEN, rows
from test_master import channel_of
from test_reload import (PATIENCE, UPGRADE, Clients, Origin, echoing, one_file, one_stream, one_upload,
                         tunnel)
from tracing import CLONES, Held
from waiting import await_read, await_that, in_time

PR_SET_CHILD_SUBREAPER = 36


class Upgrading(Gate):
    """A gate whose binary can be replaced; `pid` is of who serves. Processes that lose their parent
    become this one's children, so that their exit codes are seen."""

    def __init__(self, folder, config, backend, **more):
        assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        folder.mkdir(parents=True, exist_ok=True)
        self.binary = folder / "anygate"
        self.install()
        config = config.replace("server: {", f"server: {{pid_file: {folder}/pid, ", 1)
        super().__init__(folder, config, backend, binary=str(self.binary), **more)
        self.codes = {}
        await_that((folder / "pid.reload").exists, self.stderr)

    def install(self, text=None):
        """A script, or the program itself, in the place of the binary."""
        new = self.folder / "new" if hasattr(self, "folder") else self.binary.with_name("new")
        if text is None:
            shutil.copy2(BINARY, new)
        else:
            new.write_text(text)
            new.chmod(0o755)
        os.replace(new, self.binary)

    @property
    def pid(self):
        return int((self.folder / "pid").read_text())

    def write(self, config):
        config = config.replace("server: {", f"server: {{pid_file: {self.folder}/pid, ", 1)
        (self.folder / "anygate.yml").write_text(re.sub(r"\$PORT(\d?)", self._port, config))

    def count(self, text):
        return self.stderr().count(text)

    def signal(self, sig, pid=None):
        os.kill(pid or self.pid, sig)

    def upgrade(self):
        """A new process serves; the pid of the old one."""
        old, done = self.pid, self.count("its predecessor drains")
        self.signal(signal.SIGUSR2)
        await_that(lambda: self.count("its predecessor drains") > done, self.stderr)
        assert self.pid != old
        return old

    def fail(self):
        """An upgrade that fails; why."""
        old, failed = self.pid, self.count("upgrade failed")
        self.signal(signal.SIGUSR2)
        await_that(lambda: self.count("upgrade failed") > failed, self.stderr)
        assert self.pid == old
        return self.stderr().rsplit("upgrade failed: ", 1)[1].splitlines()[0]

    def exit_code(self, pid):
        if pid == self.process.pid:
            return self.process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while pid not in self.codes:
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
            except ChildProcessError:
                pass  # another's child still
            assert time.monotonic() < deadline, self.stderr()
            time.sleep(0.01)
        return self.codes[pid]

    def stop(self, expect=0):
        if self.log.closed:
            return
        pid = self.pid
        self.signal(signal.SIGTERM)
        code = self.exit_code(pid)
        if self.process.poll() is None:
            self.process.wait(PATIENCE)
        assert not (self.folder / "pid").exists()
        assert not (self.folder / "pid.reload").exists()
        self.log.close()
        text = (self.folder / "stderr.log").read_bytes()
        assert not BROKEN.search(text), text.decode(errors="replace")
        assert code == expect, text.decode(errors="replace")

    def __exit__(self, kind, *args):
        if kind is not None:
            for pid in {self.pid, self.process.pid}:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        super().__exit__(kind, *args)


SIMPLE = 'server: {listen: ["127.0.0.1:$PORT"], workers: 2}\nroutes:\n  GET /ok: OK OK\n'
PATIENT = SIMPLE.replace("}", ", limits: {header_timeout: 2m}}", 1)  # for a part of a head that waits


def shares(pid, port):
    """The sockets of this process that listen on the port."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(entry))
        except FileNotFoundError:
            pass  # it was closed meanwhile
    return {row.inode for row in rows() if row.state == LISTEN and row.here == port and row.link in own}


# ---- nothing is lost

def last_answers(path, want, pause=0.0):
    """Requests on connections that are kept as long as the server says so."""
    def body(clients):
        while not clients.ending.is_set():
            with clients.gate.connect(PATIENCE) as s:
                reader, kept = Reader(s), True
                while kept and not clients.ending.is_set():
                    s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                    r = reader.response()
                    assert r.status == 200 and r.body == want, (r.status, r.body[:80])
                    kept = r.get("Connection") != "close"
                    yield
                    time.sleep(pause)
    return body


def chunked(clients):
    while not clients.ending.is_set():
        with clients.gate.connect(PATIENCE) as s:
            reader, kept = Reader(s), True
            while kept and not clients.ending.is_set():
                s.sendall(b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(10):
                    s.sendall(b"3e8\r\n%s\r\n" % (b"u" * 1000))
                    time.sleep(0.002)
                s.sendall(b"0\r\n\r\n")
                r = reader.response()
                assert r.status == 200 and len(r.body) == 64
                kept = r.get("Connection") != "close"
                yield


def new_connections(clients):
    while not clients.ending.is_set():
        r = clients.gate.get("/ok")
        assert (r.status, r.body) == (200, b"OK")
        yield


def test_nothing_is_lost(backend, tmp_path):
    """Three upgrades under requests, uploads, downloads and tunnels, old and new connections."""
    content = os.urandom(12 << 20)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/big.bin").write_bytes(content)
    with Origin() as origin, Upgrading(tmp_path, f"""
server: {{listen: ["127.0.0.1:$PORT"], workers: 2, drain_timeout: 5m, limits: {{max_body: 100m}}}}
routes:
  GET /ok: OK OK
  "/files/": "./files/"
  "/up": "http://127.0.0.1:{origin.port}"
  "/*": "http://127.0.0.1:{origin.port}/*"
""", backend) as gate:
        sockets = shares(gate.pid, gate.port)
        assert len(sockets) == 2
        clients = Clients(gate)
        clients.add("fixed", last_answers(b"/ok", b"OK"))
        clients.add("thinking", last_answers(b"/ok", b"OK", pause=0.05))
        clients.add("proxied", last_answers(b"/p", b"proxied"))
        clients.add("new", new_connections)
        clients.add("uploads", chunked)
        clients.add("upload", one_upload)
        clients.add("stream", one_stream(origin.end))
        clients.add("download", one_file(content))
        clients.add("tunnel0", tunnel)
        await_that(lambda: len(clients.counts) >= 6, lambda: (clients.counts, clients.complaints))
        old = []
        for generation in range(1, 4):
            gate.install()
            old.append(gate.upgrade())
            assert shares(gate.pid, gate.port) == sockets, "the same sockets, none bound anew"
            clients.add(f"tunnel{generation}", tunnel)
            before = dict(clients.counts)
            await_that(lambda: all(clients.counts.get(n, 0) > before.get(n, 0) for n in
                                   ("fixed", "thinking", "proxied", "new", "uploads", "tunnel0",
                                    f"tunnel{generation}")),
                       lambda: (clients.counts, before, clients.complaints))
            assert not clients.complaints, clients.complaints
        for pid in old:  # each has a tunnel, and it lives
            os.kill(pid, 0)
        clients.end()
        for pid in old:
            assert gate.exit_code(pid) == 0, gate.stderr()


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("server", ["", "user: nobody, "], ids=["alone", "master"])
def test_twenty_in_a_row(backend, tmp_path, server):
    """The last process has what the first one had, and nobody noticed. bench/upgrade.py: under load."""
    if server and os.geteuid() != 0:
        pytest.skip("only root has rights to give up")
    with Origin() as origin, Upgrading(tmp_path, f"""
server: {{{server}listen: ["127.0.0.1:$PORT"], workers: 2}}
routes:
  GET /ok: OK OK
  "/up": "http://127.0.0.1:{origin.port}"
""", backend) as gate:
        assert reload_command(gate).returncode == 0  # after every shard has all that it needs
        first, old = descriptors(gate.pid), []
        clients = Clients(gate)
        clients.add("fixed", last_answers(b"/ok", b"OK", pause=0.002))
        clients.add("uploads", chunked)
        clients.add("new", new_connections)
        await_that(lambda: len(clients.counts) == 3, lambda: (clients.counts, clients.complaints))
        for _ in range(20):
            old.append(gate.upgrade())
            before = dict(clients.counts)
            await_that(lambda: all(clients.counts[n] > before[n] for n in before),
                       lambda: (clients.counts, before, clients.complaints))
            assert not clients.complaints, clients.complaints
        clients.end()
        for pid in old:
            assert gate.exit_code(pid) == 0, gate.stderr()
        assert gate.get("/ok").body == b"OK"
        # But for idle connections to the upstream, one more for each would be twenty.
        await_that(lambda: descriptors(gate.pid) <= first + 4,
                   lambda: (first, descriptors(gate.pid)))


def test_what_waits_in_the_queue_is_answered(backend, tmp_path):
    """Connections that the kernel has accepted and no process has."""
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        old = gate.pid
        gate.install(f"#!/bin/sh\nkill -STOP {old}\n"
                     f"while ! test -e {tmp_path}/go; do sleep 0.02; done\n"
                     f"kill -CONT {old}\nexec {BINARY} serve -c {tmp_path}/anygate.yml\n")
        done = gate.count("its predecessor drains")
        gate.signal(signal.SIGUSR2)
        await_that(lambda: " (anygate) T" in Path(f"/proc/{old}/stat").read_text(), gate.stderr)
        waiting = []
        for _ in range(40):
            s = gate.connect(PATIENCE)
            s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            waiting.append(s)
        (tmp_path / "go").touch()
        await_that(lambda: gate.count("its predecessor drains") > done, gate.stderr)
        for s in waiting:
            assert Reader(s).response().body == b"OK"
            s.close()


def test_an_idle_connection_has_one_more_answer(backend, tmp_path):
    with Upgrading(tmp_path, PATIENT, backend) as gate:
        with gate.connect() as s, gate.connect() as silent:
            reader = Reader(s)
            s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reader.response().get("Connection") is None
            await_read(silent)
            old = gate.upgrade()
            time.sleep(0.3)  # longer than what a drain leaves idle connections
            s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            r = reader.response()
            assert (r.body, r.get("Connection")) == (b"OK", "close")
            assert reader.at_end()
            os.kill(old, 0)  # it has another one still
            # A signal to stop is for all that are left.
            os.kill(old, signal.SIGTERM)
            assert Reader(silent).at_end()
            assert gate.exit_code(old) == 0
        assert gate.get("/ok").body == b"OK"


def switches(pid):
    """How often the shards of this process have gone to sleep."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("shard-"):
            total += int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)",
                                   (task / "status").read_text())[1])
    return total


def test_the_old_process_sleeps(backend, tmp_path):
    """What comes to the sockets that it has handed over does not wake it."""
    with Upgrading(tmp_path, PATIENT, backend) as gate, gate.connect() as s:
        s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n")  # holds it
        await_read(s)
        old = gate.upgrade()
        before = switches(old)
        for _ in range(300):
            assert gate.get("/ok").body == b"OK"
        assert switches(old) - before < 100  # its timers may
        s.sendall(b"\r\n")
        assert Reader(s).response().status == 200


def word_to_the_old_process(gate):
    """A tunnel, and what comes back through it after an upgrade; it is cut then, if it was not before."""
    with gate.connect(PATIENCE) as s, gate.connect():
        s.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")
        reader, word = Reader(s), b""
        assert reader.response().status == 101
        old = gate.upgrade()
        with contextlib.suppress(Closed, ConnectionError):
            s.sendall(b"still here")
            word = reader.exactly(10)
        with pytest.raises((Closed, ConnectionError)):
            reader.more()
        assert gate.exit_code(old) == 1, "something was cut"
        assert gate.logs(f"process {old} has drained; connections were cut")
    return word


def test_tunnels_live_until_drain_timeout(backend, tmp_path):
    """By a longer one when that was over before a word was said."""
    config = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1, drain_timeout: @}
routes:
  GET /ok: OK OK
  "/ws": "http://127.0.0.1:%d"
"""
    word = b""
    with Upstream(lambda i, head: echoing) as origin:
        for timeout in ("500ms", "3s", "10s"):
            with Upgrading(tmp_path / timeout, config.replace("@", timeout) % origin.port, backend) as gate:
                word = word_to_the_old_process(gate)
                with gate.connect() as idle:
                    idle.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert Reader(idle).response().status == 200
                    old = gate.upgrade()
                    assert gate.exit_code(old) == 0, "idle connections are not cut"
            if word:
                break
    assert word == b"still here"


# ---- what fails

FAILURES = {
    "false": ("#!/bin/sh\nexit 1\n", r"/anygate ended with exit code 1;"),
    "crash": ("#!/bin/sh\nkill -SEGV $$\n", r"was ended by signal 11 \(Segmentation fault\);"),
    "no program": ("what is this\n", r"cannot start .*/anygate: Exec format error;"),
    "speaks": ("#!/bin/sh\necho to be seen >&2; exit 5\n", r"exit code 5;"),
    "says no": ("#!/usr/bin/python3\nimport socket\nsocket.socket(fileno=3).send(b'no')\n"
                "import time; time.sleep(100)\n", r"says what this release does not understand;"),
    "leaves": ("#!/usr/bin/python3\nimport os, socket\n"
               "socket.socket(fileno=3).send(b'ready %d ' % os.getpid())\n",
               r"ended with exit code 0;"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_new_binary_that_fails(backend, tmp_path, name):
    text, want = FAILURES[name]
    with Upgrading(tmp_path, SIMPLE, backend) as gate, gate.connect() as s:
        reader = Reader(s)
        gate.install(text)
        for _ in range(2):
            assert re.search(want, gate.fail()), gate.stderr()
            s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            r = reader.response()
            assert r.status == 200 and r.get("Connection") is None
            assert gate.get("/ok").status == 200
        if name == "speaks":
            assert gate.count("to be seen\n") == 2
        gate.install()
        gate.upgrade()
        assert gate.get("/ok").status == 200


def test_no_binary(backend, tmp_path):
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        gate.binary.unlink()
        assert "/anygate: No such file or directory; this process goes on" in gate.fail()
        gate.install()
        gate.upgrade()


def test_a_bad_configuration(backend, tmp_path):
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        gate.write(SIMPLE.replace("OK OK", "OKK"))
        assert "ended with exit code 1" in gate.fail()
        assert "did you mean OK?" in gate.stderr()
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            gate.write(SIMPLE.replace('"]', f'", "127.0.0.1:{taken}"]'))
            assert "ended with exit code 1" in gate.fail()
            assert f"cannot bind 127.0.0.1:{taken}: Address already in use" in gate.stderr()
            # Who asks for a reload after that still learns what becomes of it.
            assert reload_command(gate).returncode == 1
        assert gate.get("/ok").body == b"OK"
        gate.write(SIMPLE.replace("OK OK", "OK better"))
        assert reload_command(gate).returncode == 0
        gate.upgrade()
        assert gate.get("/ok").body == b"better"


def reload_command(gate):
    return subprocess.run([BINARY, "reload", "--pid-file", gate.folder / "pid"],
                          capture_output=True, text=True, timeout=PATIENCE)


def test_one_that_hangs(backend, tmp_path):
    """Meanwhile: no second one, reloads wait, and a signal to stop ends both."""
    hangs = f"#!/bin/sh\necho $$ >{tmp_path}/hanging\nexec sleep 1000\n"
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        gate.install(hangs)
        gate.signal(signal.SIGUSR2)
        await_that((tmp_path / "hanging").exists, gate.stderr)
        await_that((tmp_path / "hanging").read_text, gate.stderr)
        new = int((tmp_path / "hanging").read_text())
        gate.signal(signal.SIGUSR2)
        await_that(lambda: "SIGUSR2: no upgrade: one is under way" in gate.stderr(), gate.stderr)
        gate.write(SIMPLE.replace("OK OK", "OK later"))
        gate.signal(signal.SIGHUP)
        await_that(lambda: "the reload follows it" in gate.stderr(), gate.stderr)
        assert gate.get("/ok").body == b"OK"
        os.kill(new, signal.SIGKILL)
        await_that(lambda: "was ended by signal 9" in gate.stderr(), gate.stderr)
        await_that(lambda: gate.get("/ok").body == b"later", gate.stderr)

        (tmp_path / "hanging").unlink()
        gate.signal(signal.SIGUSR2)
        await_that((tmp_path / "hanging").exists, gate.stderr)
        await_that((tmp_path / "hanging").read_text, gate.stderr)
        new = int((tmp_path / "hanging").read_text())
        gate.stop()
        assert "upgrade given up: this process is to stop" in (
            tmp_path / "stderr.log").read_text()
        with pytest.raises(ProcessLookupError):
            os.kill(new, 0)


def test_a_reload_during_an_upgrade_is_done_by_the_successor(backend, tmp_path):
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        gate.install(f"#!/bin/sh\nwhile ! test -e {tmp_path}/go; do sleep 0.02; done\n"
                     f"exec {BINARY} serve -c {tmp_path}/anygate.yml\n")
        gate.signal(signal.SIGUSR2)
        await_that(lambda: "is started as process" in gate.stderr(), gate.stderr)
        asking = threading.Thread(target=lambda: done.append(reload_command(gate)))
        done = []
        asking.start()
        await_that(lambda: "the reload follows it" in gate.stderr(), gate.stderr)
        (tmp_path / "go").touch()
        asking.join(PATIENCE)
        assert (done[0].returncode, done[0].stdout) == (0, "reloaded\n"), done[0]
        await_that(lambda: gate.count("its predecessor drains") == 1, gate.stderr)
        assert gate.logs("reloaded: 1 route") and gate.count("reloaded: 1 route") == 1


def test_the_outcome_of_a_reload_outlives_an_upgrade(backend, tmp_path):
    """Who asked may look only afterwards."""
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        assert reload_command(gate).returncode == 0
        told = (tmp_path / "pid.reload").read_bytes()
        assert told.startswith(b"applied ")
        gate.upgrade()
        assert (tmp_path / "pid.reload").read_bytes() == told
        assert reload_command(gate).returncode == 0


# ---- what may change with it

@pytest.mark.parametrize("was, then", [(1, 3), (3, 1), (2, 2)])
def test_other_numbers_of_workers(backend, tmp_path, was, then):
    def config(workers):
        return (f'server: {{listen: ["127.0.0.1:$PORT", "unix:{tmp_path}/s"], workers: {workers}}}\n'
                "routes:\n  GET /ok: OK OK\n")

    with Upgrading(tmp_path, config(was), backend) as gate:
        before = shares(gate.pid, gate.port)
        gate.write(config(then))
        for _ in range(2):
            gate.upgrade()
            assert before <= shares(gate.pid, gate.port), "none may be closed: it has a queue"
            for _ in range(30):
                assert gate.get("/ok").body == b"OK"
            for _ in range(5):
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(f"{tmp_path}/s")
                    s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert Reader(s).response().body == b"OK"
        await_that(lambda: len(shares(gate.pid, gate.port)) == (max(was, then) if was > 1 else 1), gate.stderr)


@pytest.mark.parametrize("server", ["", "user: nobody, "], ids=["alone", "master"])
def test_more_sockets_take_nothing_before_they_are_served(backend, tmp_path, server):
    """A new process with more shards binds sockets of its own beside those that it was given: what came
    to them would be lost if it failed."""
    if server and os.geteuid() != 0:
        pytest.skip("only root has rights to give up")

    def config(workers):
        return SIMPLE.replace("{", "{" + server, 1).replace("workers: 2", f"workers: {workers}")

    with Upgrading(tmp_path, config(2), backend) as gate:
        before = shares(gate.pid, gate.port)
        gate.write(config(8))
        os.mkfifo(tmp_path / "go")
        go = os.open(tmp_path / "go", os.O_RDWR)
        gate.install(f"#!/bin/sh\nread go <{tmp_path}/go\n"
                     f"exec {BINARY} serve -c {tmp_path}/anygate.yml\n")
        gate.signal(signal.SIGUSR2)
        await_that(lambda: "is started as process" in gate.stderr(), gate.stderr)
        new = int(re.search(r"is started as process (\d+)", gate.stderr())[1])
        try:
            with Held(new) as successor:
                os.write(go, b"go\n")
                successor.run_to(CLONES)  # its first thread, or its worker: all is bound by then
                links = [os.readlink(e) for e in Path(f"/proc/{new}/fd").iterdir()]
                assert sum(to.startswith("socket:") for to in links) >= 8, links
                for _ in range(60):
                    assert gate.get("/ok").body == b"OK"
        finally:
            os.kill(new, signal.SIGKILL)
        await_that(lambda: "was ended by signal 9" in gate.stderr(), gate.stderr)
        gate.install()
        gate.upgrade()
        await_that(lambda: len(shares(gate.pid, gate.port)) == 8, gate.stderr)
        assert before < shares(gate.pid, gate.port)
        for _ in range(60):
            assert gate.get("/ok").body == b"OK"
        os.close(go)


def test_listeners_come_and_go(backend, tmp_path):
    other = SIMPLE.replace('"]', '", "127.0.0.1:$PORT2"]')
    with Upgrading(tmp_path, other, backend) as gate:
        kept, removed = gate.ports
        third = free_port()
        gate.write(SIMPLE.replace('"]', f'", "127.0.0.1:{third}"]'))
        gate.upgrade()
        await_that(lambda: refused(removed), gate.stderr)
        assert gate.get("/ok", port=kept).status == gate.get("/ok", port=third).status == 200


def test_another_pid_file(backend, tmp_path):
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        old = gate.pid
        text = (tmp_path / "anygate.yml").read_text()
        (tmp_path / "anygate.yml").write_text(text.replace(f"{tmp_path}/pid,", f"{tmp_path}/pid2,"))
        gate.signal(signal.SIGUSR2)
        await_that(lambda: gate.count("its predecessor drains") == 1, gate.stderr)
        assert int((tmp_path / "pid2").read_text()) != old
        assert gate.exit_code(old) == 0
        assert not (tmp_path / "pid").exists() and not (tmp_path / "pid.reload").exists()
        new = int((tmp_path / "pid2").read_text())
        gate.signal(signal.SIGTERM, new)
        assert gate.exit_code(new) == 0
        assert not (tmp_path / "pid2").exists() and not (tmp_path / "pid2.reload").exists()
        gate.log.close()


def test_the_binary_by_a_link_and_by_the_path(backend, tmp_path):
    """What is started is what the user started: a link that points elsewhere by now is followed."""
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2").mkdir()
    shutil.copy2(BINARY, tmp_path / "v1/anygate")
    (tmp_path / "v2/anygate").write_text("#!/bin/sh\necho version two >&2\nexit 1\n")
    (tmp_path / "v2/anygate").chmod(0o755)
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin/anygate"
    for command, env in ((str(link), {}), ("anygate", {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"})):
        link.symlink_to("../v1/anygate")
        with Gate(tmp_path, SIMPLE, backend, binary=command, env=env,
                  wrap=["/usr/bin/env"]) as gate:
            link.unlink()
            link.symlink_to("../v2/anygate")
            gate.process.send_signal(signal.SIGUSR2)
            await_that(lambda: f"{link} ended with exit code 1" in gate.stderr(), gate.stderr)
            assert "version two" in gate.stderr()
        link.unlink()


def test_nothing_else_is_handed_over(backend, tmp_path):
    """A successor has the descriptors that a process has which was started by hand."""
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        assert reload_command(gate).returncode == 0  # after every shard has all that it needs
        first = descriptors(gate.pid)
        with gate.connect() as open_meanwhile:
            open_meanwhile.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n")
            for _ in range(3):
                gate.upgrade()
        await_that(lambda: descriptors(gate.pid) <= first,
                   lambda: [os.readlink(e) for e in Path(f"/proc/{gate.pid}/fd").iterdir()])


def test_while_draining(backend, tmp_path):
    """A process that has a successor, or is stopping, starts no other, and reloads no more."""
    with Upgrading(tmp_path, PATIENT, backend) as gate, gate.connect() as s:
        s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n")
        await_read(s)
        old = gate.upgrade()
        gate.signal(signal.SIGUSR2, old)
        await_that(lambda: "no upgrade: this process has a successor" in gate.stderr(), gate.stderr)
        gate.signal(signal.SIGHUP, old)
        await_that(lambda: "no reload: this process has a successor" in gate.stderr(), gate.stderr)
        s.sendall(b"\r\n")
        r = Reader(s).response()
        assert (r.status, r.get("Connection")) == (200, "close")
        assert gate.exit_code(old) == 0
        with gate.connect() as t:
            t.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n")
            await_read(t)
            pid = gate.pid
            gate.signal(signal.SIGTERM)
            await_that(lambda: gate.count("SIGTERM: draining") == 1, gate.stderr)
            gate.signal(signal.SIGUSR2, pid)
            await_that(lambda: "no upgrade: this process is stopping" in gate.stderr(), gate.stderr)
            t.sendall(b"\r\n")
            assert Reader(t).response().status == 200
        assert gate.exit_code(pid) == 0
        gate.log.close()


def start_held(gate, tmp_path):
    """An upgrade whose new program begins when the file `go` is there, to which all is sent; its pid."""
    gate.install(f"#!/bin/sh\ntouch {tmp_path}/started\n"
                 f"while ! test -e {tmp_path}/go; do sleep 0.02; done\n"
                 f"exec {BINARY} serve -c {tmp_path}/anygate.yml\n")
    gate.signal(signal.SIGUSR2)
    await_that((tmp_path / "started").exists, gate.stderr)
    assert gate.logs("is started as process")
    new = int(re.search(r"is started as process (\d+)", gate.stderr())[1])
    sent = len(f"socket each 127.0.0.1:{gate.port}") + len("end 1")
    with channel_of(new) as channel:  # all that is sent to it waits there
        await_that(lambda: struct.unpack("i", fcntl.ioctl(channel, termios.FIONREAD, bytes(4)))[0] >= sent,
                   gate.stderr)
    return new


def test_a_signal_to_stop_as_the_successor_takes_over(backend, tmp_path):
    """Whom the pid file names serves on."""
    in_time(lambda number: the_successor_takes_over(backend, tmp_path / str(number)), 5)


def the_successor_takes_over(backend, tmp_path):
    """False: it did not within the second that its predecessor waits for it."""
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        old = gate.pid
        new = start_held(gate, tmp_path)
        freeze(old)
        (tmp_path / "go").touch()
        with channel_of(old) as channel:
            await_that(lambda: select.select([channel], [], [], 0)[0], gate.stderr)  # it is ready
        freeze(new)
        os.kill(old, signal.SIGCONT)
        await_that(lambda: gate.pid == new, gate.stderr)
        begun = time.monotonic()
        os.kill(old, signal.SIGTERM)
        time.sleep(0.1)
        os.kill(new, signal.SIGCONT)
        assert gate.exit_code(old) == 0
        if "upgrade given up: this process is to stop" in gate.stderr():
            assert time.monotonic() - begun >= 1
            gate.log.close()
            return False
        await_that(lambda: gate.count("its predecessor drains") == 1, gate.stderr)
        assert gate.pid == new and gate.get("/ok").body == b"OK"
        return True


def test_a_variable_that_names_no_channel(backend, tmp_path):
    done = subprocess.run([BINARY, "serve", "-l", f"127.0.0.1:{free_port()}", "-r", "/: OK"],
                          env={**os.environ, "ANYGATE_UPGRADE": "0",
                               "ANYGATE_SERVER__BACKEND": backend},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "ANYGATE_UPGRADE is set, but names no channel" in done.stderr


def test_a_predecessor_that_dies(backend, tmp_path):
    """Killed while the new process starts: that one has the sockets, and serves."""
    with Upgrading(tmp_path, SIMPLE, backend) as gate:
        old = gate.pid
        start_held(gate, tmp_path)
        os.kill(old, signal.SIGKILL)
        gate.process.wait(PATIENCE)
        (tmp_path / "go").touch()
        await_that(lambda: "its predecessor is gone" in gate.stderr(), gate.stderr)
        assert gate.pid != old and gate.get("/ok").body == b"OK"
