"""Certificates and ticket keys of a running server: files that change under it, keys that turn and are kept.

With a master and without one: then it is the master that watches, reads and writes.
"""
import os
import re
import stat
import time

import pytest
import tlsfiles
from gate import Gate

CONFIG = """
server:
  listen: ["127.0.0.1:$PORT", {address: "127.0.0.1:$PORT2", tls: true}]
  SERVER
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


def wait_for(condition, what, gate):
    deadline = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: {gate.stderr()}"
        time.sleep(0.02)
    return value


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


def replace(folder, name, **more):
    """As tools do it: written beside, then renamed."""
    tlsfiles.signed(folder / "tls", f"new/{name}", [f"{name}.example"], **more)
    for end in ("key", "pem"):
        os.replace(folder / f"tls/new/{name}.{end}", folder / f"tls/site/{name}.{end}")


def count(gate, text):
    return gate.stderr().count(text)


def test_a_changed_certificate_is_taken_up(folder, kind):
    with start(folder, kind) as gate:
        for turn in (1, 2):
            replace(folder, "one")
            wait_for(lambda: count(gate, "reloaded: ") == turn, "reload", gate)
        assert count(gate, "files of certificates have changed") == 2
        # One more in the folder.
        replace(folder, "two")
        wait_for(lambda: count(gate, "reloaded: ") == 3, "reload", gate)
        assert gate.get("/").status == 200


def test_one_that_cannot_be_used_changes_nothing(folder, kind):
    with start(folder, kind) as gate:
        (folder / "tls/site/one.pem").write_text("not a certificate\n")
        wait_for(lambda: count(gate, "reload refused"), "refusal", gate)
        assert "site/one.pem with " in gate.stderr() and "no certificate in it" in gate.stderr()
        assert gate.get("/").status == 200
        replace(folder, "one")
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


def test_a_keys_file_that_is_none_stays(folder, kind):
    (folder / "keys/tickets").write_text("precious\n")
    with start(folder, kind, "{file: keys/tickets}") as gate:
        assert gate.get("/").status == 200
        assert "holds no ticket keys" in gate.stderr()
    assert (folder / "keys/tickets").read_text() == "precious\n"
