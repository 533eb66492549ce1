"""THREATS.md, paths: nothing leaves a root, no redirect leaves the host, and a group guards its path
however it is spelled. What is forwarded is in cases/paths.py."""
import os

import pytest
from gate import Gate, Upstream, ok

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"]}
groups:
  - match: "/admin/*"
    filters: [{headers: {set: {X-Guard: "1"}}}]
routes:
  "/": "./root/"
  "/up/*": "http://127.0.0.1:%d"
  "/literal": OK
  "/r/:id": "FOUND -> /x/:id"
  "/rs/*": "FOUND -> /*"
"""


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    root = folder / "root"
    (root / "admin").mkdir(parents=True)
    (root / "dir").mkdir()
    (root / "evil.example").mkdir()
    (root / "index.html").write_text("INDEX")
    (root / "admin" / "panel.txt").write_text("PANEL")
    (root / "dir" / "index.html").write_text("DIR")
    (root / "a b.txt").write_text("SPACE")
    (root / "back\\slash.txt").write_text("BACKSLASH")
    (root / ".hidden").write_text("HIDDEN")
    (folder / "secret.txt").write_text("SECRET")
    os.symlink("../secret.txt", root / "out.txt")
    os.symlink("/etc/passwd", root / "abs.txt")
    os.symlink("dir/index.html", root / "in.txt")
    os.symlink("..", root / "up-dir")
    os.mkfifo(root / "fifo")
    with Upstream(lambda i, head: ok(b"up")) as up:
        with Gate(folder, CONFIG % up.port, backend) as gate:
            yield gate, up


NOT_HTML = "Accept: image/png\r\n"


@pytest.mark.parametrize("path", [
    "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt",
    "/dir/../../secret.txt", "/dir/%2E%2E/%2E%2E/secret.txt", "/..%5csecret.txt", "/..\\secret.txt",
    "/%252e%252e/secret.txt", "/%c0%ae%c0%ae/secret.txt", "/%c0%afsecret.txt", "/....//secret.txt",
    "/dir/..;/..;/secret.txt", "/out.txt", "/abs.txt", "/up-dir/secret.txt", "/.hidden", "/fifo",
    "//secret.txt", "/./.././secret.txt", "/dir/.../../../secret.txt", "/%2f%2e%2e%2fsecret.txt",
])
def test_nothing_leaves_the_root(setup, path):
    gate, _ = setup
    r = gate.get(path, NOT_HTML)
    assert r.status in (400, 403, 404), r
    assert b"SECRET" not in r.body and b"root:" not in r.body and b"HIDDEN" not in r.body


@pytest.mark.parametrize("path, body", [
    ("/index.html", b"INDEX"), ("/a%20b.txt", b"SPACE"), ("/dir/", b"DIR"), ("/in.txt", b"DIR"),
    ("/dir/../index.html", b"INDEX"), ("/x/y/../../index.html", b"INDEX"), ("/./index.html", b"INDEX"),
    ("/%69ndex.html", b"INDEX"), ("/back%5Cslash.txt", b"BACKSLASH"),
])
def test_what_is_inside_is_served(setup, path, body):
    gate, _ = setup
    r = gate.get(path, NOT_HTML)
    assert (r.status, r.body) == (200, body)


@pytest.mark.parametrize("path", [
    "/admin/panel.txt", "/./admin/panel.txt", "/x/../admin/panel.txt", "/%61dmin/panel.txt",
    "/admin/./panel.txt", "/admin/x/../panel.txt", "/%2e/admin/panel.txt",
])
def test_a_group_guards_however_the_path_is_spelled(setup, path):
    gate, _ = setup
    r = gate.get(path, NOT_HTML)
    assert (r.status, r.get("x-guard"), r.body) == (200, "1", b"PANEL")


def test_what_is_outside_the_group_is_not_touched(setup):
    gate, _ = setup
    assert gate.get("/index.html").get("x-guard") is None


@pytest.mark.parametrize("path", ["//evil.example", "//evil.example/..", "/%5Cevil.example",
                                  "/%2f/evil.example", "//evil.example?x"])
def test_no_redirect_to_another_host(setup, path):
    gate, _ = setup
    r = gate.get(path, NOT_HTML)
    location = r.get("location")
    assert location is None or not location.startswith(("//", "/\\")), r


def test_a_directory_without_slash_is_redirected(setup):
    gate, _ = setup
    r = gate.get("/dir?x=1", NOT_HTML)
    assert r.status in (301, 308) and r.get("location") == "/dir/?x=1"


@pytest.mark.parametrize("path, location", [
    ("/r/a", "/x/a"), ("/r/a?q=1", "/x/a?q=1"), ("/r/%0d%0aX:1", "/x/%0D%0AX:1"), ("/rs/a/b", "/a/b"),
])
def test_redirect_targets(setup, path, location):
    gate, _ = setup
    r = gate.get(path)
    assert (r.status, r.get("location")) == (302, location)


@pytest.mark.parametrize("path", ["/rs//evil.example", "/rs/%5Cevil.example", "/rs//"])
def test_redirect_from_a_splat_stays_here(setup, path):
    gate, _ = setup
    location = gate.get(path).get("location")
    assert location is None or not location.startswith(("//", "/\\")), location


@pytest.mark.parametrize("method, path, status, allow", [
    ("DELETE", "/index.html", 405, {"GET", "HEAD", "OPTIONS"}), ("TRACE", "/literal", 405, None),
    ("OPTIONS", "/index.html", 204, {"GET", "HEAD", "OPTIONS"}),
])
def test_methods(setup, method, path, status, allow):
    gate, _ = setup
    r = gate.get(path, method=method)
    assert r.status == status
    if allow:
        assert set(r.get("allow").split(", ")) == allow
