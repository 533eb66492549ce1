"""Certificates and ticket keys of a running server: files that change under it, keys that turn and are kept.

With a master and without one: then it is the master that watches, reads and writes.
"""
import json
import os
import re
import signal
import ssl
import stat
import subprocess

import pytest
import tlsfiles
from gate import Gate, free_port, freeze
from h2wire import tls_context
from test_master import wait_for
from test_upgrade import Upgrading
from tlswire import fingerprint, get, shake

CONFIG = """
server: {listen: ["127.0.0.1:$PORT", {address: "127.0.0.1:$PORT2", tls: true}], SERVER}
tls:
  certificates: tls/site
  tickets: TICKETS
routes:
  /: OK
"""

KINDS = ["alone", "master"] if os.geteuid() == 0 else ["alone"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    """Where the configuration is, with a certificate in tls/site."""
    (tmp_path / "tls").mkdir()
    tlsfiles.authority(tmp_path / "tls")
    tlsfiles.signed(tmp_path / "tls", "site/one", ["one.example"])
    (tmp_path / "keys").mkdir()
    return tmp_path


def start(folder, kind, tickets="true", **more):
    server = "user: nobody" if kind == "master" else "workers: 2"
    config = CONFIG.replace("SERVER", server).replace("TICKETS", tickets)
    gate = Gate(folder, config, "epoll", **more)
    # It listens before it serves.
    wait_for(lambda: re.search(r"worker \d+ serves" if kind == "master" else "listening on", gate.stderr()),
             "start", gate)
    return gate


def replace(gate, folder, name, **more):
    """As tools do it: written beside, then renamed. Nobody looks between the two."""
    tlsfiles.signed(folder / "tls", f"new/{name}", [f"{name}.example"], **more)
    freeze(gate.process.pid)
    for end in ("key", "pem"):
        os.replace(folder / f"tls/new/{name}.{end}", folder / f"tls/site/{name}.{end}")
    gate.process.send_signal(signal.SIGCONT)


def count(gate, text):
    return gate.stderr().count(text)


def test_a_changed_certificate_is_taken_up(folder, kind):
    with start(folder, kind) as gate:
        for turn in (1, 2):
            replace(gate, folder, "one")
            wait_for(lambda: count(gate, "reloaded: ") == turn, "reload", gate)
        assert count(gate, "watched files have changed") == 2
        # One more in the folder.
        replace(gate, folder, "two")
        wait_for(lambda: count(gate, "reloaded: ") == 3, "reload", gate)
        assert gate.get("/").status == 200


def test_one_that_cannot_be_used_changes_nothing(folder, kind):
    with start(folder, kind) as gate:
        (folder / "tls/none.pem").write_text("not a certificate\n")
        os.replace(folder / "tls/none.pem", folder / "tls/site/one.pem")
        wait_for(lambda: count(gate, "reload refused"), "refusal", gate)
        assert "site/one.pem with " in gate.stderr() and "no certificate in it" in gate.stderr()
        assert gate.get("/").status == 200
        replace(gate, folder, "one")
        wait_for(lambda: count(gate, "reloaded: "), "reload", gate)
        assert count(gate, "reload refused") == 1


def test_a_link_that_leads_elsewhere(folder, kind):
    """As certbot and Kubernetes do it."""
    site = folder / "tls/site"
    os.rename(site, folder / "tls/first")
    site.symlink_to("first")
    tlsfiles.signed(folder / "tls", "second/one", ["one.example"])
    with start(folder, kind) as gate:
        (folder / "tls/next").symlink_to("second")
        os.replace(folder / "tls/next", site)
        # The folder that is watched has not changed: inotify tells nothing of it.
        gate.process.send_signal(1)
        wait_for(lambda: count(gate, "reloaded: "), "reload", gate)


def keys(folder):
    return (folder / "keys/tickets").read_text().splitlines()


def test_the_keys_file(folder, kind):
    if kind == "master":
        os.chmod(folder, 0o700)  # the worker has no way to it
    with start(folder, kind, "{file: keys/tickets}") as gate:
        first = keys(folder)
        assert first[0] == "anygate-ticket-keys 1" and len(first) == 2
        assert re.fullmatch(r"[0-9a-f]{32} [0-9a-f]{64}", first[1])
        assert stat.S_IMODE(os.stat(folder / "keys/tickets").st_mode) == 0o600
        assert os.listdir(folder / "keys") == ["tickets"]
        assert gate.get("/").status == 200
    with start(folder, kind, "{file: keys/tickets}") as gate:
        assert keys(folder) == first


def test_keys_turn(folder, kind):
    with start(folder, kind, "{rotate: 1s, keep: 2, file: keys/tickets}") as gate:
        first = keys(folder)[1]
        wait_for(lambda: keys(folder)[1] != first, "rotation", gate)
        assert len(keys(folder)) <= 3
        wait_for(lambda: first not in keys(folder), "the end of the first key", gate)
        assert len(keys(folder)) == 3
        assert gate.get("/").status == 200


def connect(gate, *args):
    """By OpenSSL's client over TLS 1.2: what it prints, and the ticket that it has then."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gate.ports[1]}", "-tls1_2", "-servername",
                           "one.example", *args], input=b"", capture_output=True, timeout=20)
    text = done.stdout.decode(errors="replace")
    rows = re.findall(r"^ +[0-9a-f]{4} - ((?:[0-9a-f]{2}[ -])+) ", text, re.M)
    return text, bytes.fromhex("".join(rows).replace("-", " "))


def test_tickets_of_old_keys_are_replaced(folder, kind):
    """RFC 5077 section 3.3: who comes back with one is resumed, and has one of a newer key afterwards."""
    def names():
        return [bytes.fromhex(line.split()[0]) for line in keys(folder)[1:]]
    with start(folder, kind, "{rotate: 2s, keep: 16, file: keys/tickets}") as gate:
        text, ticket = connect(gate, "-sess_out", str(folder / "session"))
        assert "New, TLSv1.2" in text
        old = [name for name in names() if name in ticket]
        assert len(old) == 1
        wait_for(lambda: names()[0] != old[0], "rotation", gate)

        def has_another():  # a worker hears of a key after it is in the file
            text, ticket = connect(gate, "-sess_in", str(folder / "session"))
            assert "Reused, TLSv1.2" in text
            return old[0] not in ticket and any(name in ticket for name in names())
        wait_for(has_another, "a ticket of a newer key", gate)
        # What it has now is as good.
        context = tls_context(alpn=(), low=ssl.TLSVersion.TLSv1_2, high=ssl.TLSVersion.TLSv1_2)
        session = session_of(gate.ports[1], context)
        for _ in range(3):
            newest = names()[0]
            wait_for(lambda: names()[0] != newest, "rotation", gate)
            with shake(gate.ports[1], "one.example", context, session) as s:
                assert get(s, "/", host="one.example").status == 200
                assert s.session_reused
                session = s.session


def test_a_keys_file_that_is_none_stays(folder, kind):
    (folder / "keys/tickets").write_text("precious\n")
    with start(folder, kind, "{file: keys/tickets}") as gate:
        assert gate.get("/").status == 200
        assert gate.logs("holds no ticket keys")
    assert (folder / "keys/tickets").read_text() == "precious\n"


# ---- sessions

def session_of(port, context):
    with shake(port, "one.example", context) as s:
        assert get(s, "/", host="one.example").status == 200
        return s.session


def reused(port, context, session):
    with shake(port, "one.example", context, session) as s:
        assert get(s, "/", host="one.example").status == 200
        return s.session_reused


def test_sessions_outlive_an_upgrade(folder, kind):
    """Without a file: the new process is handed the keys."""
    context = tls_context(alpn=())
    server = "user: nobody" if kind == "master" else "workers: 2"
    config = CONFIG.replace("SERVER", server).replace("TICKETS", "true")
    gate = Upgrading(folder, config, "epoll")
    with gate:
        wait_for(lambda: "serves" in gate.stderr(), "start", gate)
        session = session_of(gate.ports[1], context)
        for _ in range(2):
            gate.upgrade()
            assert reused(gate.ports[1], context, session)


def test_sessions_follow_the_keys(folder, kind):
    """A worker is sent the keys of its master, at the start and when they turn."""
    context = tls_context(alpn=())
    with start(folder, kind, "{rotate: 2s, keep: 1, file: keys/tickets}") as gate:
        wait_for(lambda: reused(gate.ports[1], context, session_of(gate.ports[1], context)),
                 "resumption", gate)
        session, was = session_of(gate.ports[1], context), keys(folder)
        wait_for(lambda: keys(folder) != was, "rotation", gate)
        wait_for(lambda: not reused(gate.ports[1], context, session), "the key's end", gate)
        wait_for(lambda: reused(gate.ports[1], context, session_of(gate.ports[1], context)),
                 "resumption by the next key", gate)


def test_sessions_outlive_a_restart_by_the_file(folder, kind):
    context = tls_context(alpn=())
    ports = [free_port(), free_port()]
    with start(folder, kind, "{file: keys/tickets}", ports=list(ports)) as gate:
        session = session_of(gate.ports[1], context)
    with start(folder, kind, "{file: keys/tickets}", ports=list(ports)) as gate:
        assert reused(gate.ports[1], context, session)


def test_the_new_certificate_is_shown(folder, kind):
    with start(folder, kind) as gate:
        port = gate.ports[1]
        with shake(port, "one.example") as before:
            first = fingerprint(before)
            replace(gate, folder, "one")
            wait_for(lambda: count(gate, "reloaded: "), "reload", gate)
            with shake(port, "one.example") as after:
                assert fingerprint(after) != first
            assert get(before, "/", host="one.example").status == 200, "what is open stays"


# ---- the log

def test_the_access_log_tells(folder):
    with start(folder, "alone", env={"ANYGATE_SERVER__ACCESS_LOG": "json"}) as gate:
        assert gate.get("/").status == 200
        with shake(gate.ports[1], "one.example") as s:
            assert get(s, "/", host="one.example").status == 200

        def lines():
            return [json.loads(x) for x in gate.stderr().split("\n")[:-1] if x.startswith('{"time')]
        wait_for(lambda: len(lines()) >= 2, "two lines", gate)
        # Each shard writes its own, so in any order.
        assert sorted((x["protocol"], x.get("tls", "")) for x in lines()) == [("HTTP/1.1", ""), ("HTTP/1.1", "TLSv1.3")]
