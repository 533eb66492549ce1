"""Reload, certificate swap, ticket rotation, drain and upgrade under TLS: no handshake fails, nothing is lost."""
import os
import shutil
import signal
import ssl
import time

import h2_load
import h2wire
import pytest
from gate import Gate, Reader
from h2wire import T, tls_context
from test_lifecycle import Held, proxied, refused
from test_master import Master
from test_reload import Clients, Origin, Reloading
from test_upgrade import Upgrading
from tlswire import Engine, fingerprint, get, shake, tcp
from waiting import await_that

PLAIN = '"127.0.0.1:$PORT"'
SECURED = '{address: "127.0.0.1:$PORT", tls: true}, "127.0.0.1:$PORT2"'


def secured(config, folder, more=""):
    """The same with TLS at its port, and a plain listener for whoever asks how it is."""
    return (config.replace(PLAIN, SECURED, 1) +
            f'tls:\n  certificates: {{cert: "{folder}/own.pem", key: "{folder}/own.key"}}\n{more}')


def install(leaf, folder):
    """As a tool for certificates does it: each file by a rename."""
    for source, name in ((leaf.key, "own.key"), (leaf.chain, "own.pem")):
        shutil.copy(source, folder / f"{name}.new")
        os.replace(folder / f"{name}.new", folder / name)


@pytest.fixture
def two(certs, tmp_path):
    """Two certificates for one name; the first is in place."""
    leaves = [certs.leaf(f"swap{i}", ["a.example"]) for i in range(2)]
    install(leaves[0], tmp_path)
    return leaves


def h2(gate):
    return h2wire.connect_tls(gate.ports[0])


# ---- clients

def kept(path, want):
    """HTTP/1.1 on one connection over TLS, which never ends."""
    def body(clients):
        with shake(clients.gate.ports[0]) as s:
            while not clients.ending.is_set():
                r = get(s, path)
                assert (r.status, r.body) == (200, want) and r.get("Connection") is None
                yield
    return body


def handshakes(path, want, seen, **more):
    """A connection for each request; `seen` gets the certificates' fingerprints."""
    def body(clients):
        context = tls_context(alpn=(), **more)
        while not clients.ending.is_set():
            with shake(clients.gate.ports[0], context=context) as s:
                seen.add(fingerprint(s))
                r = get(s, path, close=True)
                assert (r.status, r.body) == (200, want)
            yield
    return body


def resuming(path, want, counts, version):
    """The same, each with the session of the one before; `counts`: how many were taken up."""
    def body(clients):
        context, session = tls_context(alpn=(), low=version, high=version), None
        while not clients.ending.is_set():
            with shake(clients.gate.ports[0], context=context, session=session) as s:
                r = get(s, path)
                assert (r.status, r.body) == (200, want)
                counts[s.session_reused] = counts.get(s.session_reused, 0) + 1
                session = s.session  # tickets of TLS 1.3 came with the answer
            yield
            time.sleep(0.01)
    return body


def halfway(path, want):
    """A handshake that takes as long as some reloads."""
    def body(clients):
        while not clients.ending.is_set():
            with tcp(clients.gate.ports[0]) as s:
                client = Engine()
                hello = client.hello()
                s.sendall(hello[:50])
                time.sleep(0.1)
                s.sendall(hello[50:])
                time.sleep(0.1)
                client.finish(s)
                answer = client.ask(s, b"GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n" % path.encode())
                assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(want), answer
            yield
    return body


def crowd(clients, origin=None):
    """Those that every change of the server must leave alone; what they see."""
    seen, counts = set(), {}  # counts: of TLS 1.3
    clients.add("kept", kept("/ok", b"OK"))
    clients.add("h2", h2_load.same_connection(h2, "/ok", rb"OK"))
    clients.add("new 1.3", handshakes("/ok", b"OK", seen))
    clients.add("new 1.2", handshakes("/ok", b"OK", seen, high=ssl.TLSVersion.TLSv1_2))
    clients.add("new h2", h2_load.new_connections(h2, "/ok", rb"OK"))
    clients.add("resuming 1.3", resuming("/ok", b"OK", counts, ssl.TLSVersion.TLSv1_3))
    clients.add("resuming 1.2", resuming("/ok", b"OK", {}, ssl.TLSVersion.TLSv1_2))
    clients.add("halfway", halfway("/ok", b"OK"))
    if origin:
        clients.add("upload", h2_load.one_upload(h2))
        clients.add("stream", h2_load.one_stream(h2, origin.end))
    await_that(lambda: len(clients.counts) >= 8 or clients.complaints,
               lambda: (clients.counts, clients.complaints))
    assert not clients.complaints, clients.complaints
    return seen, counts


def go_round(clients):
    """Everybody has had another answer."""
    before = dict(clients.counts)
    await_that(lambda: clients.complaints or
               all(n > before[name] for name, n in clients.counts.items() if name in before),
               lambda: (clients.counts, before))
    assert not clients.complaints, clients.complaints


CONFIG = ('server: {listen: ["127.0.0.1:$PORT"], workers: 2, limits: {max_body: 100m}}\nroutes:\n'
          '  GET /ok: OK OK\n')
PROXIED = '  "/up": "http://127.0.0.1:@UP@"\n  "/*": "http://127.0.0.1:@UP@/*"\n'


def certificate(gate):
    with shake(gate.ports[0]) as s:
        return fingerprint(s)


# ---- certificates

def reload(gate):
    """Until one is done: it also reloads by itself, and that may have found one of two files only."""
    await_that(lambda: gate.hang_up() == "reloaded", gate.stderr)


def test_a_certificate_is_swapped_under_load(backend, tmp_path, two):
    """By SIGHUP, to and fro: connections stay, new ones get the new one, nothing fails."""
    with Origin() as origin:
        config = CONFIG + PROXIED.replace("@UP@", str(origin.port))
        with Reloading(tmp_path, secured(config, tmp_path), backend) as gate:
            clients = Clients(gate)
            seen, _ = crowd(clients, origin)
            for leaf in [two[1], two[0]] * 4:
                install(leaf, tmp_path)
                reload(gate)
                await_that(lambda: certificate(gate) == leaf.fingerprint(), gate.stderr)
                assert not clients.complaints, clients.complaints
            go_round(clients)
            clients.end()
            assert seen == {leaf.fingerprint() for leaf in two}


def test_a_certificate_is_swapped_by_its_file(backend, tmp_path, two):
    """Nobody tells the server."""
    with Gate(tmp_path, secured(CONFIG, tmp_path), backend) as gate:
        clients = Clients(gate)
        crowd(clients)
        install(two[1], tmp_path)
        await_that(lambda: certificate(gate) == two[1].fingerprint(), gate.stderr)
        go_round(clients)
        clients.end()


def test_a_pair_that_does_not_match_changes_nothing(backend, tmp_path, two):
    """As it is between the two renames, or by mistake."""
    with Reloading(tmp_path, secured(CONFIG, tmp_path), backend) as gate:
        clients = Clients(gate)
        crowd(clients)
        shutil.copy(two[1].chain, tmp_path / "own.pem")
        gate.refuse()
        assert gate.logs("the private key is not the certificate's")
        assert certificate(gate) == two[0].fingerprint()
        install(two[1], tmp_path)
        reload(gate)
        await_that(lambda: certificate(gate) == two[1].fingerprint(), gate.stderr)
        go_round(clients)
        clients.end()


# ---- tickets

def test_tickets_rotate_under_load(backend, tmp_path, two):
    """A key of each second: who comes back within its time is known, and nobody fails."""
    config = secured(CONFIG, tmp_path, "  tickets: {rotate: 1s, keep: 16}\n")
    with Gate(tmp_path, config, backend) as gate:
        clients = Clients(gate)
        _, counts = crowd(clients)
        time.sleep(3.5)  # of rotations
        await_that(lambda: counts.get(True, 0) > 20 or clients.complaints, lambda: (counts, clients.complaints))
        go_round(clients)
        clients.end()
        assert counts[True] > 20 and counts[False] == 1, counts  # the first one


def test_sessions_outlive_reloads(backend, tmp_path, two):
    with Reloading(tmp_path, secured(CONFIG, tmp_path), backend) as gate:
        context = tls_context(alpn=())
        with shake(gate.ports[0], context=context) as s:
            assert get(s, "/ok").status == 200
            session = s.session
        for _ in range(3):
            gate.reload()
            with shake(gate.ports[0], context=context, session=session) as s:
                assert s.session_reused and get(s, "/ok").status == 200
                session = s.session


# ---- drain

def test_a_drain_finishes_what_is_under_way(backend, tmp_path, two):
    """A request, a stream, and a handshake that began before."""
    with Held() as held:
        gate = Gate(tmp_path, secured(proxied(held), tmp_path), backend)
        with h2(gate) as c, shake(gate.ports[0]) as busy, tcp(gate.ports[0]) as late:
            slow = c.ask("/slow")
            busy.sendall(b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n")
            client = Engine()
            hello = client.hello()
            late.sendall(hello[:60])
            await_that(lambda: len(held.upstream.requests) == 2, gate.stderr)
            gate.process.send_signal(signal.SIGTERM)
            assert c.expect(T.GOAWAY).code == 0
            late.sendall(hello[60:])
            client.finish(late)
            answer = client.ask(late, b"GET /ok HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert b" 200 " in answer and b"Connection: close" in answer
            await_that(lambda: refused(gate.ports[0]), gate.stderr)
            held.go.set()
            assert c.response(slow).body == b"late"
            c.expect_close()
            r = Reader(busy).response()
            assert (r.body, r.get("Connection")) == (b"late", "close")
        assert gate.process.wait(20) == 0
        gate.stop(expect=0)


# ---- upgrade

def last_requests(path, want):
    def body(clients):
        while not clients.ending.is_set():
            with shake(clients.gate.ports[0]) as s:
                more = True
                while more and not clients.ending.is_set():
                    r = get(s, path)
                    assert (r.status, r.body) == (200, want)
                    more = r.get("Connection") != "close"
                    yield
    return body


def test_an_upgrade_loses_nothing(backend, tmp_path, two):
    """Two of them; sessions go on, by the keys in the file."""
    with Origin() as origin:
        config = CONFIG + PROXIED.replace("@UP@", str(origin.port))
        config = config.replace("workers: 2", "workers: 2, drain_timeout: 5m")
        with Upgrading(tmp_path, secured(config, tmp_path, f'  tickets: {{file: "{tmp_path}/tickets"}}\n'),
                       backend) as gate:
            clients, seen, counts = Clients(gate), set(), {}
            clients.add("kept", last_requests("/ok", b"OK"))
            clients.add("h2", h2_load.last_answers(h2, "/ok", rb"OK"))
            clients.add("new", handshakes("/ok", b"OK", seen))
            clients.add("new h2", h2_load.new_connections(h2, "/ok", rb"OK"))
            clients.add("resuming", resuming("/ok", b"OK", counts, ssl.TLSVersion.TLSv1_3))
            clients.add("upload", h2_load.one_upload(h2))
            clients.add("stream", h2_load.one_stream(h2, origin.end))
            await_that(lambda: len(clients.counts) >= 5 or clients.complaints,
                       lambda: (clients.counts, clients.complaints))
            old = []
            for _ in range(2):
                gate.install()
                old.append(gate.upgrade())
                go_round(clients)
            os.kill(old[0], 0)  # its streams live
            clients.end()
            assert counts[True] >= 2 and counts[False] == 1, counts  # one of each process at least
            for pid in old:
                assert gate.exit_code(pid) == 0, gate.stderr()


# ---- through a master

@pytest.mark.skipif(os.geteuid() != 0, reason="a master needs root")
def test_a_master_brings_a_new_certificate(backend, tmp_path, two):
    """Its worker may not read the key: the master does, at a reload."""
    config = 'server: {listen: ["127.0.0.1:$PORT"], SERVER}\nroutes:\n  GET /ok: OK OK\n'
    (tmp_path / "own.key").chmod(0o600)
    with Master(tmp_path, secured(config, tmp_path), backend) as gate:
        gate.await_worker()
        clients = Clients(gate)
        crowd(clients)
        install(two[1], tmp_path)
        (tmp_path / "own.key").chmod(0o600)
        gate.reload()
        await_that(lambda: certificate(gate) == two[1].fingerprint(), gate.stderr)
        go_round(clients)
        clients.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="a master needs root")
def test_a_master_keeps_more_keys_of_tickets(backend, tmp_path, two):
    config = 'server: {listen: ["127.0.0.1:$PORT"], SERVER}\nroutes:\n  GET /ok: OK OK\n'
    with Master(tmp_path, secured(config, tmp_path, "  tickets: {rotate: 1s, keep: 1}\n"), backend) as gate:
        gate.await_worker()
        gate.rewrite(lambda text: text.replace("keep: 1}", "keep: 10}"))
        gate.reload()
        context = tls_context(alpn=())
        with shake(gate.ports[0], context=context) as s:
            assert get(s, "/ok").status == 200
            session = s.session
        time.sleep(2.5)  # of rotations
        with shake(gate.ports[0], context=context, session=session) as s:
            assert s.session_reused
