"""Reload, drain and upgrade under HTTP/2: no stream is cut, no request is lost, GOAWAY comes in two steps."""
import os
import signal
import struct
import time

import h2_load
import h2wire
import pytest
from gate import Gate
from h2wire import T
from test_lifecycle import Held, await_line, proxied, refused
from test_master import Master
from test_reload import BUSY, Clients, Origin, Reloading
from test_upgrade import Upgrading, shares
from waiting import await_that, in_time

LAST = 2**31 - 1


def connect(gate):
    return h2wire.connect(gate.port)


def last_of(goaway):
    return struct.unpack(">I", goaway.payload[:4])[0]


def files(folder, size=4 << 20):
    content = os.urandom(size)
    (folder / "files").mkdir()
    (folder / "files/big.bin").write_bytes(content)
    return content


# ---- reload

def test_a_reload_cuts_no_stream(backend, tmp_path):
    """Requests, an upload and downloads, on old and new connections, through 20 reloads."""
    def config(generation):
        more = "".join(f"  GET /r{i}: OK {generation}\n" for i in range(generation * 5))
        return BUSY.replace("@GEN@", str(generation)).replace("@UP@", str(origin.port)).replace(
            "@MORE@", more)

    content = files(tmp_path)
    with Origin() as origin, Reloading(tmp_path, config(0), backend) as gate:
        clients = Clients(gate)
        clients.add("fixed", h2_load.same_connection(connect, "/gen", rb"generation \d+"))
        clients.add("proxied", h2_load.same_connection(connect, "/p", rb"proxied"))
        clients.add("new", h2_load.new_connections(connect, "/gen", rb"generation \d+"))
        clients.add("upload", h2_load.one_upload(connect))
        clients.add("stream", h2_load.one_stream(connect, origin.end))
        clients.add("download", h2_load.one_file(connect, content))
        await_that(lambda: len(clients.counts) >= 3, lambda: (clients.counts, clients.complaints))
        for generation in range(1, 21):
            gate.reload(config(generation))
            gate.await_answer("/gen", b"generation %d" % generation)
            time.sleep(0.02)
            assert not clients.complaints, clients.complaints
        clients.end()
        assert set(clients.counts) == {"fixed", "proxied", "new", "upload", "stream", "download"}


def test_a_listener_that_goes_says_goaway(backend, tmp_path):
    """What it has taken is answered, then the connection ends; the other listener notices nothing."""
    with Held() as held:
        config = proxied(held).replace('"127.0.0.1:$PORT"', '"127.0.0.1:$PORT", "127.0.0.1:$PORT2"')
        with Reloading(tmp_path, config, backend) as gate, connect(gate) as stays, \
                h2wire.connect(gate.ports[1]) as goes:
            slow = goes.ask("/slow")
            assert held.arrived.wait(20)
            gate.reload(config.replace(', "127.0.0.1:$PORT2"', ""))
            told = goes.expect(T.GOAWAY)
            assert told.code == 0 and last_of(told) >= slow
            await_that(lambda: refused(gate.ports[1]), gate.stderr)
            assert stays.get("/ok").status == 200 and stays.goaway is None
            held.go.set()
            assert goes.response(slow).body == b"late"
            goes.expect_close()
            assert stays.get("/ok").status == 200 and stays.goaway is None


# ---- drain

def test_a_drain_has_two_steps(backend, tmp_path):
    """GOAWAY of every stream, then of those that were taken; what was asked in between is answered."""
    in_time(lambda number: drains_in_two_steps(backend, tmp_path / str(number)))


def drains_in_two_steps(backend, folder):
    """False when the second that a client has between the steps was over before it had asked once more."""
    with Held() as held:
        gate = Gate(folder, proxied(held), backend)
        with connect(gate) as c:
            c.auto = False
            slow = c.ask("/slow")
            assert held.arrived.wait(20)
            began = time.monotonic()
            gate.process.send_signal(signal.SIGTERM)
            first = c.expect(T.GOAWAY)
            assert (last_of(first), first.code) == (LAST, 0)
            ping = c.expect(T.PING, ack=False)
            late = c.ask("/ok")  # it had been on its way
            c.send(h2wire.ping(ping.payload, ack=True))
            if time.monotonic() - began > 0.9:
                gate.process.kill()
                gate.stop(expect=-signal.SIGKILL)
                return False
            c.auto = True
            second = c.until(lambda f: (c.gather(f), f.kind == T.GOAWAY)[1])
            assert (last_of(second), second.code) == (late, 0)
            assert c.response(late).status == 200
            await_line(gate, "draining")
            await_that(lambda: refused(gate.port), gate.stderr)
            assert gate.process.poll() is None
            held.go.set()
            r = c.response(slow)
            assert (r.status, r.body) == (200, b"late")
            assert not [f for f in c.expect_close() if f.kind in (T.DATA, T.HEADERS, T.RST_STREAM)]
        assert gate.process.wait(20) == 0
        gate.stop(expect=0)
        return True


def test_an_idle_connection_is_told(backend, tmp_path):
    with Held() as held:
        gate = Gate(tmp_path, proxied(held), backend)
        with connect(gate) as c:
            assert c.get("/ok").status == 200
            gate.process.send_signal(signal.SIGTERM)
            seen = [f for f in c.expect_close() if f.kind == T.GOAWAY]
            assert seen and last_of(seen[-1]) == 1 and all(f.code == 0 for f in seen)
        assert gate.process.wait(20) == 0
        gate.stop(expect=0)


def test_a_silent_client_does_not_hold_up_the_drain(backend, tmp_path):
    """It never acknowledges the ping between the steps."""
    with Held() as held:
        gate = Gate(tmp_path, proxied(held), backend)
        with connect(gate) as c:
            c.auto = False
            assert c.get("/ok").status == 200
            gate.process.send_signal(signal.SIGTERM)
            assert gate.process.wait(20) == 0
        gate.stop(expect=0)


def test_a_stream_is_cut_by_drain_timeout_alone(backend, tmp_path):
    with Held() as held:
        gate = Gate(tmp_path, proxied(held, ", drain_timeout: 300ms"), backend)
        with connect(gate) as c:
            c.ask("/slow")
            assert held.arrived.wait(20)
            began = time.monotonic()
            gate.process.send_signal(signal.SIGTERM)
            c.expect_close()
            assert time.monotonic() - began > 0.25
        assert gate.process.wait(20) == 1
        gate.stop(expect=1)


# ---- upgrade

UPGRADED = """
server: {listen: ["127.0.0.1:$PORT"], workers: 2, limits: {max_body: 100m}}
routes:
  GET /ok: OK OK
  "/files/": "./files/"
  "/up": "http://127.0.0.1:@UP@"
  "/*": "http://127.0.0.1:@UP@/*"
"""


def test_an_upgrade_loses_nothing(backend, tmp_path):
    """Two upgrades under requests, an upload, downloads, old and new connections."""
    content = files(tmp_path)
    with Origin() as origin, Upgrading(tmp_path, UPGRADED.replace("@UP@", str(origin.port)),
                                       backend) as gate:
        sockets = shares(gate.pid, gate.port)
        clients = Clients(gate)
        clients.add("fixed", h2_load.last_answers(connect, "/ok", rb"OK"))
        clients.add("thinking", h2_load.last_answers(connect, "/ok", rb"OK", pause=0.05))
        clients.add("proxied", h2_load.last_answers(connect, "/p", rb"proxied"))
        clients.add("new", h2_load.new_connections(connect, "/ok", rb"OK"))
        clients.add("upload", h2_load.one_upload(connect))
        clients.add("stream", h2_load.one_stream(connect, origin.end))
        clients.add("download", h2_load.one_file(connect, content))
        busy = ("fixed", "thinking", "proxied", "new")
        await_that(lambda: len(clients.counts) >= len(busy),
                   lambda: (clients.counts, clients.complaints))
        old = []
        for _ in range(2):
            gate.install()
            old.append(gate.upgrade())
            assert shares(gate.pid, gate.port) == sockets, "the same sockets, none bound anew"
            before = dict(clients.counts)
            await_that(lambda: all(clients.counts[n] > before[n] + 1 for n in busy) or
                       clients.complaints, lambda: (clients.counts, before))
            assert not clients.complaints, clients.complaints
        os.kill(old[0], 0)  # its streams live
        clients.end()
        for pid in old:
            assert gate.exit_code(pid) == 0, gate.stderr()


# ---- through a master

@pytest.mark.skipif(os.geteuid() != 0, reason="a master needs root")
def test_a_master_s_worker_does_the_same(backend, tmp_path):
    """Streams through a reload, and the two steps at its end."""
    config = 'server: {listen: ["127.0.0.1:$PORT"], SERVER}\nroutes:\n' \
             '  "/slow": "http://127.0.0.1:@UP@"\n  GET /ok: OK OK\n'
    with Held() as held:
        gate = Master(tmp_path, config.replace("@UP@", str(held.upstream.port)), backend)
        gate.await_worker()
        with connect(gate) as c:
            slow = c.ask("/slow")
            assert held.arrived.wait(20)
            gate.rewrite(lambda text: text.replace("OK OK", "OK new"))
            gate.reload()
            await_that(lambda: gate.get("/ok").body == b"new", gate.stderr)
            assert c.get("/ok").body == b"new" and c.goaway is None
            gate.process.send_signal(signal.SIGTERM)
            first = c.until(lambda f: (c.gather(f), f.kind == T.GOAWAY)[1])
            assert (last_of(first), first.code) == (LAST, 0)
            held.go.set()
            assert c.response(slow).body == b"late"
            c.expect_close()
        assert gate.process.wait(20) == 0
        gate.stop(expect=0)
