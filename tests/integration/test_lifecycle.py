"""How a server ends, where it listens, what it logs."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import h2wire
import pytest
from gate import Closed, Gate, Reader, Upstream, free_port, ok, refused, run
from waiting import await_read, await_unix_listener, in_time

FIXED = """
server: {listen: ["127.0.0.1:$PORT"]%s}
routes:
  GET /ok: OK OK
"""


class Held:
    """An upstream whose answers wait until they are let go."""

    def __init__(self):
        self.arrived, self.go = threading.Event(), threading.Event()
        self.upstream = Upstream(lambda i, head: self._answer)

    def _answer(self, peer, head, rest):
        self.arrived.set()
        if not self.go.wait(60):
            return None
        peer.send(ok(b"late"))
        return rest

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.go.set()
        self.upstream.close()


def proxied(held, more=""):
    return (f'server: {{listen: ["127.0.0.1:$PORT"]{more}}}\n'
            f'routes:\n  "/slow": "http://127.0.0.1:{held.upstream.port}"\n  GET /ok: OK OK\n')


def await_line(gate, text):
    for _ in range(400):
        if text in gate.stderr():
            return
        assert gate.process.poll() is None, gate.stderr()
        time.sleep(0.025)
    raise AssertionError(f"no {text!r} in: {gate.stderr()}")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_finished(backend, tmp_path, sig):
    with Held() as held:
        gate = Gate(tmp_path, proxied(held), backend)
        with gate.connect() as idle, gate.connect() as busy:
            idle.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            idle_reader = Reader(idle)
            assert idle_reader.response().status == 200
            busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held.arrived.wait(20)

            gate.process.send_signal(sig)
            assert idle_reader.at_end()  # an idle connection has nothing to wait for
            await_line(gate, "draining")
            for _ in range(200):
                if refused(gate.port):
                    break
                time.sleep(0.025)
            assert refused(gate.port)
            assert gate.process.poll() is None

            held.go.set()
            reader = Reader(busy)
            r = reader.response()
            assert (r.status, r.body) == (200, b"late")
            assert r.get("Connection") == "close"
            assert reader.at_end()
        assert gate.process.wait(20) == 0
        gate.stop(expect=0)
        assert "stopped" in (tmp_path / "stderr.log").read_text()


def test_who_has_its_whole_answer_is_not_cut(backend, tmp_path):
    """Neither of the two closes: their ends come by drain_timeout, while their FINs are waited for."""
    in_time(lambda number: ends_with_its_answer(backend, tmp_path / str(number)))


def ends_with_its_answer(backend, folder):
    """False when the answer may have come too late, for this test stood still."""
    with Held() as held:
        gate = Gate(folder, proxied(held, ", drain_timeout: 1s"), backend)
        with gate.connect() as idle, gate.connect() as busy:
            idle.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            assert Reader(idle).response().status == 200
            busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held.arrived.wait(20)
            began = time.monotonic()
            gate.process.send_signal(signal.SIGTERM)
            await_line(gate, "draining")
            held.go.set()
            try:
                assert Reader(busy).response().body == b"late"
            except (Closed, ConnectionError):
                assert time.monotonic() - began > 0.9
            in_time = time.monotonic() - began < 0.9
            code = gate.process.wait(20)
        gate.stop(expect=0 if in_time else code)
    assert not in_time or "cut" not in (folder / "stderr.log").read_text()
    return in_time


@pytest.mark.parametrize("http2, at", [(False, 1), (True, 1), (True, 20)])
def test_what_may_become_http2_is_no_idle_connection(backend, tmp_path, http2, at):
    gate = Gate(tmp_path, FIXED % ", workers: 1", backend)
    with gate.connect() as s:
        first = h2wire.PREFACE if http2 else b"PUT /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        s.sendall(first[:at])
        await_read(s)
        gate.process.send_signal(signal.SIGTERM)
        await_line(gate, "draining")
        time.sleep(0.3)  # more than idle ones are given
        s.sendall(first[at:])
        if http2:
            client = h2wire.Client(s, start=False)
            client.send(h2wire.settings())
            assert client.get("/ok").body == b"OK"
            client.close()
        else:
            r = Reader(s).response()
            assert r.status == 405 and r.get("connection") == "close"
    assert gate.process.wait(20) == 0
    gate.stop()


def test_without_connections_it_ends_at_once(backend, tmp_path):
    with Gate(tmp_path, FIXED % "", backend) as gate:
        assert gate.get("/ok").status == 200
        gate.process.send_signal(signal.SIGTERM)
        assert gate.process.wait(20) == 0


def test_a_second_signal_stops_at_once(backend, tmp_path):
    with Held() as held:
        gate = Gate(tmp_path, proxied(held), backend)
        with gate.connect() as busy:
            busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held.arrived.wait(20)
            gate.process.send_signal(signal.SIGTERM)
            await_line(gate, "draining")
            gate.process.send_signal(signal.SIGTERM)
            with pytest.raises((Closed, ConnectionResetError)):
                Reader(busy).response()
        assert gate.process.wait(20) == 1
        gate.stop(expect=1)


def test_a_second_signal_ends_who_waits_in_the_queue_too(backend, tmp_path):
    config = ('server: {listen: [{address: "127.0.0.1:$PORT", limits: {max_connections: 1}}], workers: 1}\n'
              'routes: {"/echo": "*"}\n')
    gate = Gate(tmp_path, config, backend)
    with gate.connect() as busy:
        busy.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        await_read(busy)  # the connection that found it open has gone
        with gate.connect(), gate.connect(), gate.connect():
            time.sleep(0.3)
            gate.process.send_signal(signal.SIGTERM)
            gate.process.send_signal(signal.SIGINT)
            assert gate.process.wait(15) == 1
    gate.stop(expect=1)


def test_the_drain_ends_by_its_timeout(backend, tmp_path):
    with Held() as held:
        gate = Gate(tmp_path, proxied(held, ", drain_timeout: 300ms"), backend)
        with gate.connect() as busy:
            busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held.arrived.wait(20)
            gate.process.send_signal(signal.SIGTERM)
            assert gate.process.wait(20) == 1
        gate.stop(expect=1)
        assert "connections were cut" in (tmp_path / "stderr.log").read_text()


def test_hangup_reloads(backend, tmp_path):
    with Gate(tmp_path, FIXED % "", backend) as gate:
        path = tmp_path / "anygate.yml"
        path.write_text(path.read_text().replace("OK OK", "OK new"))
        gate.process.send_signal(signal.SIGHUP)
        await_line(gate, "reloaded")
        assert gate.get("/ok").body == b"new"


def test_a_bad_configuration_is_refused_by_a_reload(backend, tmp_path):
    with Gate(tmp_path, FIXED % "", backend) as gate:
        path = tmp_path / "anygate.yml"
        path.write_text(path.read_text().replace("OK OK", "OKK new"))
        gate.process.send_signal(signal.SIGHUP)
        await_line(gate, "reload refused")
        assert 'anygate.yml:4:12: error: "OKK"' in gate.stderr()
        assert gate.get("/ok").body == b"OK"


# ---- listeners

def test_a_unix_socket(backend, tmp_path):
    path = tmp_path / "gate.sock"
    with Gate(tmp_path, f'server: {{listen: ["127.0.0.1:$PORT", "unix:{path}"]}}\n'
              'routes:\n  GET /ok: OK OK\n  /echo: *\n', backend) as gate:
        await_unix_listener(path)
        for _ in range(3):
            done = subprocess.run(["curl", "-sS", "--max-time", "20", "--unix-socket", path,
                                   "http://x/ok"], capture_output=True, check=True)
            assert done.stdout == b"OK"
        assert json.loads(subprocess.run(
            ["curl", "-sS", "--unix-socket", path, "http://x/echo"],
            capture_output=True, check=True).stdout)["remote"]
        assert gate.get("/ok").status == 200


def test_a_unix_socket_left_by_a_dead_process_is_no_obstacle(backend, tmp_path):
    path = tmp_path / "gate.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with Gate(tmp_path, f'server: {{listen: ["127.0.0.1:$PORT", "unix:{path}"]}}\n'
              'routes:\n  GET /ok: OK OK\n', backend):
        await_unix_listener(path)
        done = subprocess.run(["curl", "-sS", "--unix-socket", path, "http://x/ok"],
                              capture_output=True, check=True)
        assert done.stdout == b"OK"


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this system has no IPv6")
@pytest.mark.parametrize("listen", ['"[::1]:$PORT2"', '":$PORT2"'])
def test_ipv6(backend, tmp_path, listen):
    gate = Gate(tmp_path, f'server: {{listen: ["127.0.0.1:$PORT", {listen}]}}\n'
                'routes:\n  GET /ok: OK OK\n  /echo: *\n', backend, wait=False)
    gate.ports, second = gate.ports[:1], gate.ports[1]
    gate._await_ports()
    with gate:
        out = subprocess.run(["curl", "-sS", "-g", f"http://[::1]:{second}/echo"],
                             capture_output=True, check=True).stdout
        assert json.loads(out)["remote"].startswith("[::1]:")
        if listen.startswith('":'):  # both families
            assert gate.get("/ok", port=second).status == 200


def test_two_workers(backend, tmp_path):
    with Gate(tmp_path, FIXED % ", workers: 2", backend) as gate:
        # The kernel spreads connections by their ports: with 64 both shards get some.
        connections = [gate.connect() for _ in range(64)]
        for _ in range(2):
            for s in connections:
                s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            assert [Reader(s).response().status for s in connections] == [200] * 64
        for s in connections:
            s.close()
        assert gate.logs("2 shards")


def test_environment_over_file_and_flag_over_environment(backend, tmp_path):
    other, third = free_port(), free_port()
    env = {"ANYGATE_SERVER__LISTEN": f"127.0.0.1:{other}"}
    with Gate(tmp_path / "a", FIXED % "", backend, env=env, wait=False) as gate:
        gate.ports = [other]
        gate._await_ports()
        assert gate.get("/ok").status == 200
    with Gate(tmp_path / "b", FIXED % "", backend, env=env, args=["-l", f"127.0.0.1:{third}"],
              wait=False) as gate:
        gate.ports = [third]
        gate._await_ports()
        assert refused(other)


# ---- log

def test_the_log_for_people(backend, tmp_path):
    with Gate(tmp_path, FIXED % "", backend) as gate:
        pass
    lines = (tmp_path / "stderr.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", line) for line in lines), lines
    text = "\n".join(lines)
    assert f"listening on http://127.0.0.1:{gate.port}\n" in text
    assert f"with {backend}" in text and "1 route" in text
    assert "\033" not in text
    assert lines[-1].endswith("stopped")


def test_the_log_for_machines(backend, tmp_path):
    with Gate(tmp_path, FIXED % ", log: {format: json}", backend):
        pass
    lines = [json.loads(x) for x in (tmp_path / "stderr.log").read_text().splitlines()]
    assert len(lines) >= 3
    others = [line["msg"] for line in lines if line["level"] != "info"]
    assert [text.split(",")[0] for text in others] == ["runs as root"] * (os.geteuid() == 0)


def test_a_quiet_log(backend, tmp_path):
    with Gate(tmp_path, FIXED % ", log: {level: error}", backend):
        pass
    assert (tmp_path / "stderr.log").read_text() == ""


def logged(tmp_path, backend, form, *requests):
    """The access log's lines of these requests, one connection each."""
    with Gate(tmp_path, FIXED % f", workers: 1, log: {{level: error}}, access_log: {form}",
              backend) as gate:
        for request in requests:
            gate.ask(request)
    lines = (tmp_path / "stderr.log").read_text().splitlines()
    # Those that only looked whether it listens asked for nothing.
    assert len(lines) == len(requests), lines
    return lines


GOOD = b"GET /ok?a=b HTTP/1.1\r\nHost: site\r\nUser-Agent: me \"x\"\r\nConnection: close\r\n\r\n"
GONE = b"GET /gone HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n"
BAD = b"GET /bad HTTP/1.1\r\nHost : site\r\n\r\n"


def test_the_access_log_for_people(backend, tmp_path):
    good, gone, bad = logged(tmp_path, backend, "human", GOOD, GONE, BAD)
    assert re.fullmatch(r'127\.0\.0\.1 GET /ok\?a=b 200 \d+ \d+\.\d+ms "site"', good)
    assert re.match(r"127\.0\.0\.1 GET /gone 404 ", gone)
    assert " 400 " in bad


def test_the_access_log_as_others_have_it(backend, tmp_path):
    good, gone, _ = logged(tmp_path, backend, "combined", GOOD, GONE, BAD)
    assert re.fullmatch(r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] '
                        r'"GET /ok\?a=b HTTP/1\.1" 200 \d+ "-" "me \\"x\\""', good)
    assert '"GET /gone HTTP/1.1" 404 ' in gone


def test_the_access_log_for_machines(backend, tmp_path):
    long = GOOD.replace(b"a=b", b"x" * 6000)
    lines = [json.loads(x) for x in logged(tmp_path, backend, "json", GOOD, GONE, BAD, long)]
    assert [line["status"] for line in lines] == [200, 404, 400, lines[3]["status"]]
    assert lines[0]["target"] == "/ok?a=b" and lines[0]["user_agent"] == 'me "x"'
    assert lines[0]["host"] == "site" and lines[0]["remote"] == "127.0.0.1"
    assert lines[0]["bytes"] > 0


# ---- what keeps it from starting

def failing(*args, cwd, env=None, wrap=()):
    done = run("serve", *args, cwd=cwd, env={"NO_COLOR": "1", **(env or {})}, wrap=wrap)
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_an_empty_line_behind_a_request_is_no_line_of_the_log(backend, tmp_path):
    with Gate(tmp_path, FIXED % ", access_log: json, workers: 1", backend) as gate:
        for behind in b"\r\n", b"\r", b"\r\nGET /ok HTTP/1.1\r\nHost: x\r\n\r\n":
            with gate.connect() as s:
                reader = Reader(s)
                s.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
                assert reader.response().status == 200
                s.sendall(behind)
                s.shutdown(socket.SHUT_WR)
                if b"GET" in behind:
                    assert reader.response().status == 200
                assert reader.at_end()
    lines = [json.loads(line) for line in (tmp_path / "stderr.log").read_text().splitlines() if line[0] == "{"]
    assert [line["status"] for line in lines] == [200] * 4, lines


def test_a_busy_port(backend, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = failing("-l", f"127.0.0.1:{port}", "-r", "/: OK", cwd=tmp_path,
                       env={"ANYGATE_SERVER__BACKEND": backend})
    assert text == (f"anygate: error: cannot bind 127.0.0.1:{port}: Address already in use; hint: "
                    "another process listens there; stop it or choose another port\n")


def test_a_port_that_another_anygate_has(backend, tmp_path):
    """Shards share ports among them by SO_REUSEPORT; two servers must not."""
    with Gate(tmp_path, FIXED % ", workers: 2", backend) as gate:
        text = failing("-l", f"127.0.0.1:{gate.port}", "-r", "/: OK", cwd=tmp_path,
                       env={"ANYGATE_SERVER__BACKEND": backend, "ANYGATE_SERVER__WORKERS": "2"})
    assert "Address already in use" in text


def test_an_address_of_another_machine(backend, tmp_path):
    text = failing("-l", "192.0.2.1:18080", "-r", "/: OK", cwd=tmp_path,
                   env={"ANYGATE_SERVER__BACKEND": backend})
    assert text.startswith("anygate: error: cannot bind 192.0.2.1:18080: ")
    assert text.count("\n") == 1 and "hint: no interface" in text
