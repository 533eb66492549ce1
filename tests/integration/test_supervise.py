"""A process under a service manager: notifications, watchdog, given sockets, pid file; reload, stop."""
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from gate import BINARY, Gate, Upstream, free_port
from test_reload import PATIENCE
from tracing import POLLS, Held
from waiting import await_that

TCP_NOTSENT_LOWAT = 25

SIMPLE = ('server: {listen: ["127.0.0.1:$PORT"], pid_file: anygate.pid}\n'
          'routes:\n  GET /ok: OK OK\n')


def await_pid_file(gate):
    """It listens a moment before its pid file is there."""
    await_that((gate.folder / "anygate.pid.reload").exists, gate.stderr)


class Manager:
    """The service manager's socket, at a path or abstract."""

    def __init__(self, name):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + name[1:] if name[0] == "@" else name)
        self.sock.settimeout(PATIENCE)

    def message(self):
        return dict(line.split("=", 1) for line in self.sock.recv(4096).decode().splitlines())

    def until(self, key):
        """The next message with this key; what came before is passed over."""
        while True:
            message = self.message()
            if key in message:
                return message

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def command(*args):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True,
                          timeout=PATIENCE, stdin=subprocess.DEVNULL,
                          env={**os.environ, "NO_COLOR": "1"})


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_notifications(backend, tmp_path, kind):
    name = str(tmp_path / "notify") if kind == "path" else f"@anygate-test-{os.getpid()}-{backend}"
    with Manager(name) as manager, Gate(tmp_path, SIMPLE, backend,
                                        env={"NOTIFY_SOCKET": name}) as gate:
        ready = manager.message()
        assert ready["READY"] == "1" and ready["STATUS"].startswith("serving 1 route on ")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        gate.process.send_signal(signal.SIGHUP)
        reloading = manager.message()
        assert reloading["RELOADING"] == "1" and int(reloading["MONOTONIC_USEC"]) >= before
        assert manager.message()["READY"] == "1"
        (tmp_path / "anygate.yml").write_text("routes: [")
        gate.process.send_signal(signal.SIGHUP)
        assert manager.message()["RELOADING"] == "1"
        refused = manager.message()
        assert refused["READY"] == "1" and refused["STATUS"].endswith("the last reload was refused")
        gate.process.send_signal(signal.SIGTERM)
        assert manager.message()["STOPPING"] == "1"
        assert gate.process.wait(PATIENCE) == 0


def test_the_watchdog_is_fed_while_all_shards_answer(backend, tmp_path):
    name = str(tmp_path / "notify")
    with Manager(name) as manager, Gate(tmp_path, SIMPLE, backend, env={
            "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}):
        for _ in range(5):
            assert manager.until("WATCHDOG")["WATCHDOG"] == "1"


def test_the_watchdog_of_another_process(backend, tmp_path):
    name = str(tmp_path / "notify")
    with Manager(name) as manager, Gate(tmp_path, SIMPLE, backend, env={
            "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}) as gate:
        assert manager.message()["READY"] == "1"
        gate.process.send_signal(signal.SIGTERM)
        assert "STOPPING" in manager.message(), "nothing came between"
        gate.process.wait(PATIENCE)


def test_a_successor_becomes_the_main_process(backend, tmp_path):
    name = str(tmp_path / "notify")
    with Manager(name) as manager, Gate(tmp_path, SIMPLE, backend, env={
            "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000",
            "WATCHDOG_PID": "unused"}) as gate:
        assert manager.message()["READY"] == "1"
        gate.process.send_signal(signal.SIGUSR2)
        new = int(manager.until("MAINPID")["MAINPID"])
        assert new != gate.process.pid
        assert manager.until("READY")["READY"] == "1"
        manager.until("WATCHDOG")  # it is its own now
        assert gate.process.wait(PATIENCE) == 0
        os.kill(new, signal.SIGTERM)
        manager.until("STOPPING")
        await_that(lambda: not (tmp_path / "anygate.pid").exists(), gate.stderr)


# ---- sockets of the manager

def activated(tmp_path, config, backend, listeners, names="web", env=None):
    """`listeners` become descriptors from 3 on, as the manager hands them over."""
    (tmp_path / "start").write_text(
        "#!/usr/bin/python3\nimport os, sys\n"
        "given = [int(fd) for fd in sys.argv[1].split(',')]\n"
        "kept = [os.dup(fd) for fd in given]\n"
        "kept = [os.dup2(fd, 100 + i) for i, fd in enumerate(kept)]\n"
        "for i, fd in enumerate(kept):\n    os.dup2(fd, 3 + i, inheritable=True)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)),\n"
        f"                  LISTEN_FDNAMES={names!r})\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n")
    (tmp_path / "start").chmod(0o755)
    numbers = ",".join(str(s.fileno()) for s in listeners)
    (tmp_path / "anygate.yml").write_text(config)
    log = open(tmp_path / "stderr.log", "wb")
    return subprocess.Popen(
        [tmp_path / "start", numbers, BINARY, "serve", "-c", tmp_path / "anygate.yml"],
        pass_fds=[s.fileno() for s in listeners], stdin=subprocess.DEVNULL, stderr=log,
        cwd=tmp_path,
        env={**os.environ, "ANYGATE_SERVER__BACKEND": backend, "NO_COLOR": "1", **(env or {})})


def get(port, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.settimeout(PATIENCE)
        s.connect(("127.0.0.1" if family == socket.AF_INET else "::1", port))
        s.sendall(b"GET /echo HTTP/1.0\r\nHost: x\r\n\r\n")
        data = b""
        while more := s.recv(65536):
            data += more
        return data


def test_a_given_socket_is_served(backend, tmp_path):
    """What waits in it from before the start, too; and it is nobody else's to close."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as early:
            early.settimeout(PATIENCE)
            early.sendall(b"GET /echo HTTP/1.0\r\nHost: x\r\n\r\n")
            process = activated(
                tmp_path, f'server: {{listen: ["127.0.0.1:{port}"], workers: 2}}\n'
                "routes:\n  /echo: *\n", backend, [given])
            assert early.recv(100).startswith(b"HTTP/1.1 200 ")
        for _ in range(10):
            assert b"200 OK" in get(port)
        # As on a socket of its own; what is accepted has it from there.
        assert given.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 32 << 10
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        socket.create_connection(("127.0.0.1", port)).close()  # the manager listens on


def test_one_given_socket_for_both_families(backend, tmp_path):
    try:
        given = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        pytest.skip("this system has no IPv6")
    with given:
        port = given.getsockname()[1]
        process = activated(tmp_path, f'server: {{listen: [":{port}"]}}\nroutes:\n  /echo: *\n',
                            backend, [given])
        assert b'"remote":"127.0.0.1:' in get(port).replace(b" ", b""), "not ::ffff:127.0.0.1"
        assert b'"remote":"[::1]:' in get(port, socket.AF_INET6).replace(b" ", b"")
        config = tmp_path / "anygate.yml"
        config.write_text(config.read_text().replace(f'":{port}"', f'"0.0.0.0:{port}"'))
        process.send_signal(signal.SIGHUP)
        await_that(lambda: f"reload refused: cannot listen on 0.0.0.0:{port} alone: the service manager's socket on "
                   f"[::]:{port} serves it, too; hint: " in (tmp_path / "stderr.log").read_text(),
                   (tmp_path / "stderr.log").read_text)
        assert b"200 OK" in get(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_given_socket_that_no_listener_wants(backend, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        process = activated(
            tmp_path, f'server: {{listen: ["127.0.0.1:{free_port()}"]}}\nroutes:\n  /echo: *\n',
            backend, [given])
        assert process.wait(PATIENCE) == 1
        assert (f"descriptor 3 (web) from the service manager is bound to 127.0.0.1:{port}, where no "
                "listener is configured; hint: ") in (tmp_path / "stderr.log").read_text()


# ---- pid file, reload, stop

def test_the_pid_file(backend, tmp_path):
    (tmp_path / "anygate.pid").write_text("1\n")  # somebody else's number: stale
    with Gate(tmp_path, SIMPLE, backend) as gate:
        await_pid_file(gate)
        assert (tmp_path / "anygate.pid").read_text() == f"{gate.process.pid}\n"
        other = command("serve", "-l", f"127.0.0.1:{free_port()}", "-r", "/: OK", "--pid-file",
                        tmp_path / "anygate.pid")
        assert other.returncode == 1
        assert f"is the pid file of another anygate, process {gate.process.pid}; hint:" in other.stderr
        assert gate.get("/ok").status == 200
    assert not (tmp_path / "anygate.pid").exists()


@pytest.mark.parametrize("path", ["notes.txt", "anygate.yml", "/dev/null", "."])
def test_a_pid_file_that_is_something_else(backend, tmp_path, path):
    """It stays: neither a start nor an end touches it, and check tells before."""
    (tmp_path / "notes.txt").write_text("precious\n")
    config = SIMPLE.replace("anygate.pid", path).replace("$PORT", str(free_port()))
    (tmp_path / "anygate.yml").write_text(config)
    what = tmp_path / path
    before = what.stat()
    for verb in ("check", "serve"):
        done = command(verb, "-c", tmp_path / "anygate.yml")
        assert done.returncode == 1 and "a pid file would replace it; hint: " in done.stderr, done
    assert (what.stat().st_ino, what.stat().st_size) == (before.st_ino, before.st_size)
    assert (tmp_path / "anygate.yml").read_text() == config


def test_an_upgrade_to_a_pid_file_that_is_something_else(backend, tmp_path):
    (tmp_path / "notes.txt").write_text("precious\n")
    with Gate(tmp_path, SIMPLE, backend) as gate:
        config = (tmp_path / "anygate.yml").read_text()
        (tmp_path / "anygate.yml").write_text(config.replace("anygate.pid", "notes.txt"))
        gate.process.send_signal(signal.SIGUSR2)
        await_that(lambda: "this process goes on serving" in gate.stderr(), gate.stderr)
        assert "a pid file would replace it" in gate.stderr()
        assert (tmp_path / "anygate.pid").read_text() == f"{gate.process.pid}\n"
    assert (tmp_path / "notes.txt").read_text() == "precious\n"


def test_reload(backend, tmp_path):
    config = tmp_path / "anygate.yml"
    with Gate(tmp_path, SIMPLE, backend) as gate:
        await_pid_file(gate)
        good = config.read_text()
        for how in (["-c", config], ["--pid-file", tmp_path / "anygate.pid"]):
            config.write_text(good.replace("OK OK", f"OK by {how[0]}"))
            done = command("reload", *how)
            assert (done.returncode, done.stdout) == (0, "reloaded\n"), done
            assert gate.get("/ok").body == f"by {how[0]}".encode()
        config.write_text(good.replace("OK OK", "OKK"))
        done = command("reload", "-c", config)
        assert done.returncode == 1 and "did you mean OK?" in done.stderr
        assert "reload refused: 1 error; the configuration before stays" in done.stderr
        done = command("reload", "--pid", gate.process.pid)
        assert done.returncode == 0 and "its log tells" in done.stdout
    done = command("reload", "--pid-file", tmp_path / "anygate.pid")
    assert done.returncode == 1 and "no server runs" in done.stderr


def test_who_reloads_is_told_what_needs_a_restart(backend, tmp_path):
    config = tmp_path / "anygate.yml"
    with Gate(tmp_path, SIMPLE, backend) as gate:
        await_pid_file(gate)
        config.write_text(config.read_text().replace("anygate.pid", "other.pid, workers: 7"))
        done = command("reload", "-c", config)
        assert done.returncode == 1
        assert f"there is no {tmp_path}/other.pid; hint: when pid_file has changed since" in done.stderr
        done = command("reload", "--pid-file", tmp_path / "anygate.pid")
        assert (done.returncode, done.stdout) == (0, "reloaded\n"), done
        assert done.stderr == ("warning: changed, which takes effect at a restart: "
                               "server.workers, server.pid_file\n")
        assert gate.get("/ok").status == 200


def test_a_reload_asked_for_as_it_starts(backend, tmp_path):
    """The signal comes when all shards serve, and before the control thread has heard so."""
    gate = Gate(tmp_path, SIMPLE.replace("{", "{workers: 1, ", 1), backend, wait=False)
    pid = gate.process.pid
    tasks = Path(f"/proc/{pid}/task")
    await_that(lambda: "shard-0\n" in [(t / "comm").read_text() for t in tasks.iterdir()],
               gate.stderr)
    with gate:
        with Held(pid) as control:
            control.run_to(POLLS)
            assert gate.get("/ok").body == b"OK"
            os.kill(pid, signal.SIGHUP)
        outcome = tmp_path / "anygate.pid.reload"
        await_that(lambda: outcome.read_text().startswith("applied "), gate.stderr)
        await_that(lambda: gate.stderr().count("reloaded: 1 route") == 1, gate.stderr)  # the log is written beside
        done = command("reload", "-c", tmp_path / "anygate.yml")
        assert (done.returncode, done.stdout) == (0, "reloaded\n"), done


def test_who_is_meant(tmp_path):
    (tmp_path / "no.yml").write_text("routes:\n  /: OK\n")
    for args, code, text in [
            ([], 2, "which server? hint: "), (["--pid", "x"], 2, "not the number of a process"),
            (["--pid", "1"], 1, "process 1 is not an anygate"),
            (["-c", tmp_path / "no.yml"], 1, "does not tell server.pid_file; hint: "),
            (["--pid-file", tmp_path / "no.yml"], 1, "does not hold the number of a process")]:
        for verb in ("reload", "stop"):
            done = command(verb, *args)
            assert done.returncode == code and text in done.stderr, (verb, args, done)
    done = command("stop", "-c", tmp_path / "none.yml")
    assert done.returncode == 1 and "cannot read " in done.stderr
    assert "server.pid_file" not in done.stderr  # of a file that nobody could read


def test_stop(backend, tmp_path):
    with Gate(tmp_path, SIMPLE, backend) as gate:
        await_pid_file(gate)
        done = command("stop", "-c", tmp_path / "anygate.yml")
        assert (done.returncode, done.stdout) == (0, "stopped\n"), done
        assert gate.process.wait(PATIENCE) == 0


def test_stop_now(backend, tmp_path):
    def silent(peer, head, rest):
        while peer.sock.recv(65536):
            pass

    with Upstream(lambda i, head: silent) as origin:
        gate = Gate(tmp_path, SIMPLE + f'  "/slow": "http://127.0.0.1:{origin.port}"\n', backend)
        with gate.connect() as s:
            s.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await_that(lambda: origin.requests, gate.stderr)
            done = command("stop", "--now", "--pid-file", tmp_path / "anygate.pid")
            assert (done.returncode, done.stdout) == (0, "stopped\n"), done
        gate.stop(expect=1)  # something was cut
