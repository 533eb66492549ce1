"""The command line: what each command prints, mistakes in configs as shown, exit codes."""
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from gate import BINARY, Gate, free_port, run

HERE = Path(__file__).parent
IO_URING_SETUP = "425"  # on every architecture
EPERM, ENOSYS = "1", "38"


def check(folder, text, *options, name="anygate.yml", env=None):
    (folder / name).write_text(text)
    return run("check", "-c", name, *options, cwd=folder, env=env)


# ---- mistakes, each as it is shown

def mistakes():
    """mistakes.txt: blocks of `=== NAME [FILE]`, the file, `---`, and what check says on stderr."""
    text = (HERE / "mistakes.txt").read_text()
    for block in re.split(r"(?m)^=== ", text)[1:]:
        head, rest = block.split("\n", 1)
        config, want = rest.split("---\n", 1)
        name, _, file = head.partition(" ")
        yield pytest.param(file or "anygate.yml", config, want.rstrip("\n") + "\n", id=name)


@pytest.mark.parametrize("file, config, want", mistakes())
def test_mistakes(tmp_path, certificates, file, config, want):
    (tmp_path / "dist").mkdir()
    (tmp_path / "tls").symlink_to(certificates)
    done = check(tmp_path, config, name=file)
    said = re.sub(r"\d\d\d\d-\d\d-\d\d", "DATE", done.stderr.replace(str(tmp_path), "FOLDER"))
    assert said == want
    assert done.returncode == (1 if "error:" in want else 0)
    assert "\033" not in done.stderr + done.stdout


def test_a_mistake_in_an_included_file(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/b.gate").write_text("# mocks\nGET /x: OKAY\n")
    (tmp_path / "conf.d/a.yml").write_text("routes:\n  /a: OK\n")
    done = check(tmp_path, "include: conf.d/*\nroutes:\n  /b: OK\n")
    assert done.returncode == 1
    assert done.stderr.startswith("conf.d/b.gate:2:9: error: ")
    assert "\n    2 | GET /x: OKAY\n      |         ^\n" in done.stderr


def test_no_routes_are_told_unless_something_else_is_served(tmp_path):
    assert "warning: there are no routes" in run("check", "-r", "", cwd=tmp_path).stderr
    assert check(tmp_path, 'tcp: [{listen: ":9443", to: "10.0.0.1:443"}]\n').stderr == ""


def test_what_routes_serve_lies_beside_the_main_file(tmp_path):
    """Also for the routes of an included file and of flags (docs/CONFIG.md, include)."""
    (tmp_path / "main/conf.d").mkdir(parents=True)
    (tmp_path / "main/conf.d/a.yml").write_text('routes:\n  "/a": "./a.txt"\n')
    (tmp_path / "main/anygate.yml").write_text("include: conf.d/*.yml\n")
    done = run("check", "-c", "main/anygate.yml", "-r", "/b: ./b.txt", cwd=tmp_path)
    assert f"no file {tmp_path}/main/a.txt;" in done.stderr
    assert f"no file {tmp_path}/main/b.txt;" in done.stderr


def test_a_mistake_in_a_flag_and_in_the_environment(tmp_path):
    done = run("check", "-r", "GET /x: OKAY", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("<flag -r 1>:1:9: error: ")
    done = run("check", "-r", "/x: OK", cwd=tmp_path, env={"ANYGATE_SERVER__WORKERS": "many"})
    assert done.returncode == 1
    assert done.stderr.startswith("<env ANYGATE_SERVER__WORKERS>:1:")
    done = run("check", "-r", "/x: OK", cwd=tmp_path, env={"ANYGATE_SERVER__WORKRES": "2"})
    assert done.returncode == 1 and "did you mean workers?" in done.stderr
    # An orchestrator's own variables have one underscore.
    assert run("check", "-r", "/x: OK", cwd=tmp_path,
               env={"ANYGATE_PORT_8080_TCP": "x"}).returncode == 0


def test_every_mistake_of_a_file_is_told(tmp_path):
    lines = [f"  /r{i}: NOPE{i}" for i in range(12)]
    done = check(tmp_path, "server: {wrkers: 2}\nroutes:\n" + "\n".join(lines) + "\n")
    places = re.findall(r"(?m)^anygate\.yml:(\d+):(\d+): error: ", done.stderr)
    assert places[0] == ("1", "10") and len(places) == 13
    assert [int(line) for line, _ in places[1:]] == list(range(3, 15))
    assert "13 errors" in done.stdout


# ---- check

GOOD = """
server: {listen: ["127.0.0.1:8080"]}
proxy:
  upstreams:
    auth: {servers: ["127.0.0.1:9001"]}
plugins:
  secure: {headers: {set: {X-Secure: "1"}}}
groups:
  - match: "/admin/*"
    filters: [secure]
routes:
  "/": "./dist/"
  "/ping": "http://auth/ping"
  GET POST /api/:id: FORBIDDEN {"a":1}
  /admin/x: *
  /old/*: MOVED_PERMANENTLY -> /new/*
"""


def test_the_tree(tmp_path):
    (tmp_path / "dist").mkdir()
    done = check(tmp_path, GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("/ping", "/api", ":id", "GET POST", "/admin", "headers", "auth", "/old",
                 "./dist/"):
        assert text in done.stdout, text
    assert "0 errors, 0 warnings" in done.stdout
    assert "\033" not in done.stdout
    tree = run("routes", "-c", "anygate.yml", cwd=tmp_path)
    assert tree.returncode == 0 and ":id" in tree.stdout


def test_upstreams_and_names_that_do_not_resolve(tmp_path):
    done = check(tmp_path, """
proxy:
  upstreams:
    api: {servers: ["127.0.0.1:81", "[::1]:82 weight=3"]}
routes:
  /a: http://api
  /b: http://name.invalid:83
""")
    assert done.returncode == 0
    assert "  api              127.0.0.1:81, [::1]:82 weight=3\n" in done.stdout
    assert "  name.invalid:83  name.invalid:83\n" in done.stdout
    assert "anygate.yml:7:14: warning: the name name.invalid does not resolve" in done.stderr
    done = check(tmp_path, 'proxy: {upstreams: {mail.invalid: {servers: ["127.0.0.1"]}}}\n'
                           'routes: {/a: "http://mail.invalid", /b: "http://mial.invalid"}\n')
    assert re.search("the name mial.invalid does not resolve: .*; hint: did you mean mail.invalid[?]", done.stderr)


def test_a_bound_of_fewer_connections_than_shards_is_told(tmp_path):
    config = ('server:\n  workers: 4\n  listen:\n    - {address: ":1", limits: {max_connections: %d}}\n'
              'routes: {/: OK}\n')
    for bound, warnings in (3, 1), (4, 0), (0, 0):
        (tmp_path / "anygate.yml").write_text(config % bound)
        done = run("check", "-c", "anygate.yml", cwd=tmp_path)
        told = "anygate.yml:4:17: warning: max_connections: 3 is fewer than there are shards: each of the 4 lets one in"
        assert done.stderr.count(told) == done.stderr.count("shards") == warnings, done.stderr


def test_warnings_and_strict(tmp_path):
    config = 'routes:\n  "/": "./gone/"\n'
    done = check(tmp_path, config)
    assert done.returncode == 0
    assert done.stderr.startswith("anygate.yml:2:9: warning: no directory ")
    assert "0 errors, 1 warning" in done.stdout
    assert check(tmp_path, config, "--strict").returncode == 1


def test_what_a_route_loses_to_another_is_warned_of(tmp_path):
    apart = "routes:\n  /a/*: OK\n  GET /b: OK\n  POST /b: OK\n  api.example.com/b: OK\n"
    done = check(tmp_path, apart, "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "dist").mkdir()
    done = check(tmp_path, 'routes:\n  GET HEAD /b/*: OK\n  "/b/": "./dist/"\n')
    assert done.returncode == 0
    assert re.match(r'anygate\.yml:3:4: warning: the route "/b/" is never used', done.stderr)


def test_as_json(tmp_path):
    done = check(tmp_path, "server: {wrkers: 2}\nroutes:\n  /a: NOPE\n", "--format", "json")
    assert done.returncode == 1
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(d["file"], d["line"], d["col"], d["severity"]) for d in found] == [
        ("anygate.yml", 1, 10, "error"), ("anygate.yml", 3, 7, "error")]
    assert found[0]["what"] == 'unknown key "wrkers" in server'
    assert found[0]["hint"] == "did you mean workers?"


def test_nothing_is_bound(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert check(tmp_path, f'server: {{listen: "127.0.0.1:{port}"}}\n'
                     'routes:\n  /a: OK\n').returncode == 0


@pytest.mark.parametrize("name, text", [
    ("x.json", '{"version": 1, "server": {"listen": [":8080"]}, '
               '"routes": {"GET /x": "OK {\\"a\\":1}", "/y": {"action": "*"}}}'),
    ("x.gate", "# lines alone\nGET /x: OK\n\n/y: *\n"),
    ("x.yaml", "version: 1\nroutes: |\n  GET /x: OK\n  /y: *   # echo\n"),
    ("list.yml", "routes:\n- GET /x: OK\n- /y: *\n"),
])
def test_formats(tmp_path, name, text):
    done = check(tmp_path, text, name=name)
    assert (done.returncode, done.stderr) == (0, "")
    for path in ("/x", "/y"):
        assert run("routes", "-c", name, "GET", path, cwd=tmp_path).returncode == 0
    assert run("routes", "-c", name, "GET", "/z", cwd=tmp_path).returncode == 1


def test_a_format_that_is_unknown(tmp_path):
    done = check(tmp_path, "", name="anygate.toml")
    assert done.returncode == 1 and "known: .yml, .yaml, .json, .gate" in done.stderr


# ---- routes METHOD PATH [Host]

CHOICE = """
routes:
  /users/:id: "OK any host"
  GET /users/me: "OK exact"
  api.example.com/users/*: "OK host"
  "*.example.com/users/me": "OK suffix"
  POST /only/post: OK
"""


@pytest.mark.parametrize("request_, winner", [
    (("GET", "/users/me"), "/users/me"),
    (("POST", "/users/me"), "/users/:id"),  # the exact one does not take POST
    (("GET", "/users/7"), "/users/:id"),
    (("GET", "/users/me", "api.example.com"), "api.example.com/users/*"),
    (("GET", "/users/me", "API.EXAMPLE.COM:8080"), "api.example.com/users/*"),
    (("GET", "/users/me", "www.example.com"), "*.example.com/users/me"),
    (("GET", "/users/me", "other.org"), "/users/me"),
    (("GET", "/users/x/../me"), "/users/me"),
])
def test_the_winner(tmp_path, request_, winner):
    (tmp_path / "a.yml").write_text(CHOICE)
    done = run("routes", "-c", "a.yml", *request_, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert winner in done.stdout.splitlines()[0]


def test_parameters_and_near_misses(tmp_path):
    (tmp_path / "a.yml").write_text(CHOICE)
    done = run("routes", "-c", "a.yml", "GET", "/users/7", "x", cwd=tmp_path)
    assert re.search(r"\bid\b.*\b7\b", done.stdout)
    done = run("routes", "-c", "a.yml", "GET", "/only/post", cwd=tmp_path)
    assert done.returncode == 1
    assert "405" in done.stdout and "POST /only/post" in done.stdout
    done = run("routes", "-c", "a.yml", "GET", "/nowhere", cwd=tmp_path)
    assert done.returncode == 1 and "404" in done.stdout


def test_groups_show(tmp_path):
    (tmp_path / "dist").mkdir()
    (tmp_path / "a.yml").write_text(GOOD)
    inside = run("routes", "-c", "a.yml", "GET", "/admin/app.js", cwd=tmp_path).stdout
    outside = run("routes", "-c", "a.yml", "GET", "/other/app.js", cwd=tmp_path).stdout
    assert re.search(r"group +/admin/\*", inside) and re.search(r"filters +headers", inside)
    assert "group" not in outside and "headers" not in outside


# ---- usage

def test_version():
    done = run("version")
    assert done.returncode == 0
    assert re.match(r"anygate \d+\.\d+\.\d+\n", done.stdout)
    for word in ("build", "libraries", "tls", "backend"):
        assert re.search(rf"(?m)^  {word} +\S", done.stdout), word
    assert re.search(r"(?m)^  libraries ([\w.-]+/[\w.]+,)+[\w.-]+/[\w.]+$", done.stdout)
    assert run("--version").stdout == done.stdout


@pytest.mark.parametrize("command", ["serve", "check", "routes", "version"])
def test_help(command):
    for flag in ("-h", "--help"):
        done = run(command, flag)
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage: anygate " + command in done.stdout
        assert f"\nexample:\n  anygate {command}" in done.stdout


def test_help_of_all():
    assert run("--help").returncode == run("help").returncode == 0
    text = run("--help").stdout
    assert all(f"\n  {c} " in text for c in ("serve", "check", "routes", "version"))


@pytest.mark.parametrize("args, says", [
    ((), "usage: anygate COMMAND"),
    (("chekc",), "unknown command chekc; hint: did you mean check?"),
    (("zzzzzzzz",), "unknown command zzzzzzzz\n"),
    (("frob",), "unknown command frob\n"),
    (("check", "--confg", "x"), "unknown option --confg; hint: did you mean --config?"),
    (("check", "-c"), "--config needs a value"),
    (("check", "--strict=yes"), "--strict takes no value"),
    (("check",), "no configuration"),
    (("check", "-c", "a.yml", "--config=b.yml"), "option --config is there twice: a.yml and b.yml"),
    (("check", "-r", "/: OK", "--format", "xml"), "unknown format xml; hint: human or json"),
    (("check", "-r", "/: OK", "surplus"), "unexpected argument surplus"),
    (("routes", "-r", "/: OK", "GET"), "a request needs METHOD and PATH"),
    (("serve",), "nothing to serve"),
    (("serve", "/no/such/dir"), "/no/such/dir is not a directory; hint: a configuration file"),
])
def test_wrong_usage_is_2(args, says):
    done = run(*args)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


# ---- colour: on a terminal alone, and not with NO_COLOR

def on_terminal(args, cwd, **env):
    """Both outputs of a command that has a terminal."""
    leader, follower = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    process = subprocess.Popen([BINARY, *args], cwd=cwd, env={**clean, **env}, stdout=follower,
                               stderr=follower, stdin=subprocess.DEVNULL)
    os.close(follower)
    out = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        out += part
    os.close(leader)
    process.wait(30)
    return out


def test_colour(tmp_path):
    (tmp_path / "a.yml").write_text("routes:\n  /a: NOPE\n")
    args = ["check", "-c", "a.yml"]
    assert b"\033[1;31merror:" in on_terminal(args, tmp_path)
    assert b"\033[1;31merror:" in on_terminal(args, tmp_path, NO_COLOR="")  # empty: not set
    assert b"\033" not in on_terminal(args, tmp_path, NO_COLOR="1")
    assert b"\033" not in run(*args, cwd=tmp_path).stderr.encode()


# ---- serve without a file

def test_a_directory(backend, tmp_path):
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/index.html").write_text("home")
    port = free_port()
    with Gate(tmp_path, backend=backend, args=["./dist", "-l", f"127.0.0.1:{port}"],
              ports=[port]) as gate:
        assert gate.get("/").body == b"home"
        assert gate.get("/deep/link", "Accept: text/html\r\n").body == b"home"


def test_flags(backend, tmp_path):
    port, second = free_port(), free_port()
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/x.txt").write_text("static")
    args = ["-l", f"127.0.0.1:{port}", "--listen", f"127.0.0.1:{second}", "-r", "/: ./dist/",
            f"--route=/api/*: http://127.0.0.1:{second}/echo/*", "-r", "/echo/*: *"]
    with Gate(tmp_path, backend=backend, args=args, ports=[port, second]) as gate:
        assert gate.get("/x.txt").body == b"static"
        assert json.loads(gate.get("/api/a/b?c=d").body)["path"] == "/echo/a/b"


def test_flags_beside_a_file(backend, tmp_path):
    with Gate(tmp_path, 'server: {listen: "127.0.0.1:$PORT"}\nroutes:\n  /x: OK from file\n'
              '  /y: OK from file\n', backend, args=["-r", "POST /x: OK from flag"]) as gate:
        assert gate.get("/x").body == b"from file"
        assert gate.get("/x", method="POST").body == b"from flag"
        assert gate.get("/y").body == b"from file"


# ---- what keeps it from running

def one_line(done, code=1):
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "error: " in done.stderr
    return done.stderr


def test_a_missing_file(tmp_path):
    for command in ("serve", "check", "routes"):
        text = one_line(run(command, "-c", "gone.yml", cwd=tmp_path))
        assert text == "error: cannot read gone.yml: No such file or directory\n"


def test_a_directory_for_a_file(tmp_path):
    (tmp_path / "dir.yml").mkdir()
    assert "not a regular file" in one_line(run("serve", "-c", "dir.yml", cwd=tmp_path))


@pytest.fixture
def public():
    """A folder that everybody can enter, with a copy of the server."""
    folder = Path(tempfile.mkdtemp(prefix="anygate-"))
    folder.chmod(0o755)
    shutil.copy(BINARY, folder / "anygate")
    yield folder
    shutil.rmtree(folder)


def unprivileged():
    """What turns root into nobody; nothing for those who are somebody already."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
            "--bounding-set=-all"]


def test_an_unreadable_file(public):
    (public / "secret.yml").write_text("routes:\n  /a: OK\n")
    (public / "secret.yml").chmod(0)
    done = run("serve", "-c", "secret.yml", cwd=public, wrap=unprivileged(),
               binary=public / "anygate")
    assert one_line(done) == "error: cannot read secret.yml: Permission denied\n"


def test_an_unreadable_directory(public):
    (public / "secret").mkdir()
    (public / "secret/index.html").write_text("SECRET")
    (public / "secret").chmod(0)
    args = ["check", "-r", "/: ./secret/sub/"]
    done = run(*args, cwd=public, wrap=unprivileged(), binary=public / "anygate")
    assert done.returncode == 0
    assert re.match(r"<flag -r 1>:1:4: warning: .*secret/sub", done.stderr)
    port = free_port()
    with Gate(public, args=["-l", f"127.0.0.1:{port}", "-r", "/: ./secret/"], ports=[port],
              wrap=unprivileged(), binary=public / "anygate") as gate:
        r = gate.get("/index.html")
        assert r.status in (403, 404) and b"SECRET" not in r.body
    (public / "secret").chmod(0o755)


def test_a_port_that_needs_root(public):
    wrap = unprivileged()
    # A network of its own has the kernel's own bound on privileged ports, whatever this one has.
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0:
        wrap = ["unshare", "-n", *wrap]
    elif int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("everybody may listen on port 80 here")
    done = run("serve", "-l", "0.0.0.0:80", "-r", "/: OK", cwd=public, wrap=wrap,
               binary=public / "anygate")
    assert one_line(done) == ("anygate: error: cannot bind 0.0.0.0:80: Permission denied; hint: "
                              "ports below 1024 need root or CAP_NET_BIND_SERVICE\n")


def deny_io_uring(error):
    return [sys.executable, str(HERE / "deny_syscall.py"), IO_URING_SETUP, error]


@pytest.mark.parametrize("error, reason", [(EPERM, "io_uring is forbidden here"),
                                           (ENOSYS, "this kernel has no io_uring")])
def test_without_io_uring_it_falls_back(tmp_path, error, reason):
    with Gate(tmp_path, 'server: {listen: "127.0.0.1:$PORT"}\nroutes:\n  /x: OK\n', "auto",
              wrap=deny_io_uring(error)) as gate:
        assert gate.get("/x").status == 200
        deadline = time.monotonic() + 20
        while "serves" not in gate.stderr():  # the log is written by a thread of its own
            assert time.monotonic() < deadline, gate.stderr()
            time.sleep(0.02)
        first = gate.stderr().splitlines()[0]
        assert "with epoll (" in first and reason in first
    done = run("version", wrap=deny_io_uring(error))
    assert done.returncode == 0
    assert re.search(rf"(?m)^  backend +epoll: .*{reason}", done.stdout)


def test_io_uring_forced_where_there_is_none(tmp_path):
    done = run("serve", "-l", f"127.0.0.1:{free_port()}", "-r", "/: OK", cwd=tmp_path,
               env={"ANYGATE_SERVER__BACKEND": "io_uring"}, wrap=deny_io_uring(EPERM))
    text = one_line(done)
    assert "backend io_uring is not to be had: io_uring is forbidden here" in text
    assert "hint: server.backend: auto falls back to epoll" in text


def test_a_dead_upstream_is_told_to_the_client(backend, tmp_path):
    with Gate(tmp_path, f'server: {{listen: "127.0.0.1:$PORT"}}\n'
              f'routes:\n  "/x": "http://127.0.0.1:{free_port()}"\n', backend) as gate:
        r = gate.get("/x")
        assert r.status in (502, 503)
        assert r.body and b"127.0.0.1" not in r.body  # what is inside stays inside


def test_check_shows_retries_and_mirrors(tmp_path):
    done = check(tmp_path, """
proxy:
  upstreams:
    a: {servers: ["10.0.0.1:80"], retry: {attempts: 3, on: [reset, 503], per_try: 2s}}
    b: {servers: ["10.0.0.2:80"], retry: off, hedge: {after: 80ms, max: 2}}
    c: {servers: ["10.0.0.3:80"]}
routes:
  "/a": {action: "http://a", mirror: {to: c, percent: 2.5}}
  "/b": {action: "http://b", retry: all}
  "/c": http://c
""")
    assert done.returncode == 0, done.stderr
    shown = done.stdout[done.stdout.index("upstreams\n"):]
    assert shown.startswith("""upstreams
  a                10.0.0.1:80
    asked up to 3 times on reset, 503; idempotent methods; content up to 64k; budget 20%; 2000 ms a try
  b                10.0.0.2:80
    no retries
    hedged after 80 ms, 2 more at most
  c                10.0.0.3:80
routes to them with settings of their own
  /a
    mirrored to c: 2.50%, content up to 64k
  /b
    asked up to 2 times on connect, reset; all methods; content up to 64k; budget 20%
    hedged after 80 ms, 2 more at most
"""), shown
