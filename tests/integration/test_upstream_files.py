"""Servers of an upstream that a file lists, which is watched."""
import os
import re
import time

from gate import run
from test_reload import Reloading
from test_upstream_sets import Named, four, names  # noqa: F401 (a fixture)
from waiting import await_that

CONFIG = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1}\n'
          'proxy: {upstreams: {up: {servers: {file: servers.txt}}}}\n'
          'routes: {"/*": "http://up"}\n')


def listing(folder, *servers):
    lines = [f"127.0.0.1:{s.port} # {s.name.decode()}" for s in servers]
    (folder / "next.txt").write_text("# who serves\n\n" + "\n".join(lines) + "\n")
    os.replace(folder / "next.txt", folder / "servers.txt")


def test_a_file_of_servers_is_followed(backend, tmp_path, four):  # noqa: F811
    a, b, c, _ = four
    listing(tmp_path, a, b)
    with Reloading(tmp_path, CONFIG, backend) as gate:
        assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]
        listing(tmp_path, b, c)
        await_that(lambda: set(names(gate, 2)) == {"b", "c"}, gate.stderr)
        assert b.connections == 1, "the connection to who stayed is the same"
        (tmp_path / "next.txt").write_text("not a server at all\n")
        os.replace(tmp_path / "next.txt", tmp_path / "servers.txt")
        await_that(lambda: "reload refused" in gate.stderr(), gate.stderr)
        assert re.search(r"servers\.txt:1:\d+: error: unknown option", gate.stderr()), gate.stderr()
        assert set(names(gate, 4)) == {"b", "c"}
        listing(tmp_path, a)
        await_that(lambda: set(names(gate, 2)) == {"a"}, gate.stderr)


def test_a_file_behind_links_is_followed(backend, tmp_path, four):  # noqa: F811
    """Written to in place, in a folder of its own, which no event of the links' folders tells."""
    a, b, c, _ = four
    (tmp_path / "data").mkdir()
    listing(tmp_path / "data", a, b)
    (tmp_path / "data/link.txt").symlink_to("servers.txt")
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate/servers.txt").symlink_to("../data/link.txt")
    with Reloading(tmp_path / "gate", CONFIG, backend) as gate:
        assert set(names(gate, 2)) == {"a", "b"}
        time.sleep(1)  # what is looked at soon after a start
        (tmp_path / "data/servers.txt").write_text(f"127.0.0.1:{c.port}\n")
        begun = time.monotonic()
        await_that(lambda: set(names(gate, 2)) == {"c"}, gate.stderr)
        assert time.monotonic() - begun < 30, "it is looked at once a minute in any case"


def check(tmp_path, text=None):
    (tmp_path / "c.yml").write_text(CONFIG.replace("$PORT", "8080"))
    if text is not None:
        (tmp_path / "servers.txt").write_text(text)
    return run("check", "-c", str(tmp_path / "c.yml"))


def test_mistakes_have_their_place_in_the_file(tmp_path):
    done = check(tmp_path, "127.0.0.1:80\n\n  127.0.0.1:81  weight=x # so\n")
    assert done.returncode == 1
    assert "servers.txt:3:" in done.stderr and "not a weight" in done.stderr, done.stderr
    assert "127.0.0.1:81  weight=x # so" in done.stderr, "the line is shown"


def test_a_file_that_lists_none_or_is_not_there(tmp_path):
    done = check(tmp_path)
    assert done.returncode == 1 and "cannot read" in done.stderr
    assert re.search(r"c\.yml:2:\d+: error", done.stderr), done.stderr
    done = check(tmp_path, "# none yet\n")
    assert done.returncode == 1 and "lists no server" in done.stderr
    done = check(tmp_path, "127.0.0.1:80\n127.0.0.1:81 backup")
    assert done.returncode == 0 and "127.0.0.1:81" in done.stdout, done.stderr
