"""Every example of the README and of docs/*.md, run.

What a fenced block is, is told by its first words:

    yaml, json, gate   a configuration, or a part of one: check accepts it without a warning
    yaml wrong         one with mistakes (also json, gate): a block `text` follows it
    text               after one with mistakes: all that check says. Elsewhere: mistakes as they
                       are shown; a file is made that has those lines at those places
    console            lines that begin with "$ " are run, what follows is their output, in which
                       "..." stands for anything; curl asks a server of the configuration before
                       it on the page
    sh                 commands; each one must work
    nginx, haproxy,    another server's configuration: test_migration.py runs it beside ours
    yaml traefik

`curl` in `sh` asks a server of docs/examples/anygate.yml. Blocks without a word are drawings where
they hold no mistake. Ports 8080 and 9001 stand for free ones.
"""
import os
import re
import shlex
import shutil
import subprocess

import pytest
from gate import BINARY, ROOT, Gate, free_port, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = ("yaml", "json", "gate")
# Not examples that can be run here: what CI itself does, syntax, drawings.
NOT_RUN = {"make run", "make test", "make", "make help", "make bench", "make bench CASE=proxy2", "make micro", "make pgo"}
SILENT = {"ebnf", "c"}
OTHERS = {"nginx", "haproxy", "traefik"}
PLACE = re.compile(r"(?m)^(\S+?):(\d+):(\d+): (?:error|warning): ")


def blocks(page):
    """(line, words, text) of each fenced block."""
    for match in re.finditer(r"(?ms)^```([^\n]*)\n(.*?)^```$", page.read_text()):
        line = page.read_text().count("\n", 0, match.start()) + 1
        yield line, match[1].split(), match[2]


def examples():
    """A pytest parameter for each block, with the configuration that stands before it."""
    for page in PAGES:
        config, wrong = None, None
        for line, words, text in blocks(page):
            kind = words[0] if words else ""
            name = f"{page.name}:{line}"
            if OTHERS & set(words):
                assert page.name == "MIGRATION.md", f"{name}: nothing runs it"
                continue
            if kind in CONFIGS and words[1:] == ["wrong"]:
                wrong = (kind, text)
                continue
            if kind in CONFIGS:
                config = (kind, text)
            if kind or PLACE.search(text):
                yield pytest.param(page, kind, text, wrong if kind == "text" else config, id=name)
            wrong = None


def test_pages_are_there():
    assert {"README.md", "CONFIG.md", "ROUTES.md"} <= {page.name for page in PAGES}


def test_no_mistake_stands_alone():
    for page in PAGES:
        found = list(blocks(page))
        for (line, words, _), after in zip(found, found[1:] + [(0, [], "")]):
            if words[1:] == ["wrong"]:
                assert after[1] == ["text"], f"{page.name}:{line}: what check says is missing"


@pytest.fixture
def place(tmp_path, certificates):
    """What examples name, and `anygate` in the search path."""
    example = ROOT / "docs/examples"
    shutil.copytree(example, tmp_path / "docs/examples")
    for folder in ("dist", "site/dist"):
        shutil.copytree(example / "dist", tmp_path / folder)
    for folder in ("downloads", "conf.d", "bin", "errors", "var/www/files",
                   "var/www/blog/wp-content/uploads"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "errors/404.html").write_text("<h1>not here</h1>\n")
    shutil.copytree(tmp_path / "errors", tmp_path / "var/www/shop")
    (tmp_path / "var/www/shop/assets").mkdir()
    (tmp_path / "dist/robots.txt").write_text("User-agent: *\n")
    (tmp_path / "downloads/report.pdf").write_text("%PDF")
    (tmp_path / "conf.d/api.yml").write_text("routes:\n  /api/x: OK\n")
    (tmp_path / "workers.txt").write_text("10.0.0.11:8080 weight=2\n10.0.0.12:8080 backup # last\n")
    (tmp_path / "bin/anygate").symlink_to(BINARY)
    shutil.copytree(certificates, tmp_path / "tls")
    return tmp_path


def environment(folder):
    return {"PATH": f"{folder}/bin:{os.environ['PATH']}", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}


def whole(kind, text):
    """A part of a configuration, with what it lacks to be one."""
    if kind != "yaml":
        return text
    for mention, section, lack in [("http://auth/", "proxy:", AUTH),
                                   ('"/dist/"', "static:", ROOTED), ("", "routes:", ANY)]:
        if mention in text and not re.search(f"(?m)^{section}", text):
            text += lack
    return text


AUTH = 'proxy: {upstreams: {auth: {servers: ["127.0.0.1:9001"]}}}\n'
ROOTED = "static: {root: .}\n"
ANY = 'routes:\n  "/*": OK\n'


def write(folder, config):
    kind, text = config
    file = folder / {"yaml": "anygate.yml", "json": "anygate.json", "gate": "anygate.gate"}[kind]
    text = whole(kind, text).replace("chroot: /var/empty", f"chroot: {folder}/dist")
    text = text.replace("/var/lib/anygate/", f"{folder}/dist/")
    file.write_text(text.replace("/var/www/", f"{folder}/var/www/"))
    return file


def check_config(folder, config):
    done = run("check", "-c", write(folder, config).name, cwd=folder, env=environment(folder))
    assert (done.returncode, done.stderr) == (0, "")


def check_wrong(folder, config, text):
    done = run("check", "-c", write(folder, config).name, cwd=folder, env=environment(folder))
    assert done.stderr == text
    assert done.returncode == (1 if "error:" in text else 0)


def check_shown(folder, text):
    """Mistakes without their file: a route line at each place, and comments between."""
    lines = {}
    for number, source in re.findall(r"(?m)^ *(\d+) \| (.*)$", text):
        lines[int(number)] = source
    file = PLACE.search(text)[1]
    made = ["routes:"] + ["  # ..."] * (max(lines) - 1)
    for number, source in lines.items():
        made[number - 1] = source
    (folder / file).write_text("\n".join(made) + "\n")
    done = run("check", "-c", file, cwd=folder, env=environment(folder))
    assert done.stderr == text


class Ports:
    """Free ports for 8080 and 9001, the same ones in all texts of an example."""

    def __init__(self):
        self.free = {}

    def swap(self, text):
        def free(port):  # which may have the other one's digits in it, so all in one go
            if port[0] not in self.free:
                self.free[port[0]] = str(free_port())
            return self.free[port[0]]
        return re.sub("8080|9001", free, text)


def serve(folder, config, ports):
    """A server of the configuration; where it names no address it listens where 8080 stands for."""
    kind, text = config
    text = ports.swap(whole(kind, text))
    file = write(folder, (kind, text))
    listen = [] if "listen:" in text else ["-l", "127.0.0.1:" + ports.swap("8080")]
    # Not every example listens at both.
    used = [int(p) for p in ports.free.values() if p in text + " ".join(listen)]
    return Gate(folder / "run", args=["-c", str(file), *listen], ports=used,
                env=environment(folder))


def shell(folder, command):
    return subprocess.run(["bash", "-c", "set -o pipefail; " + command], cwd=folder, timeout=60,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, env={**os.environ, **environment(folder)})


def same(want, got):
    pattern = r".*?".join(re.escape(part) for part in want.rstrip("\n").split("..."))
    return re.fullmatch(pattern, got.replace("\r", "").rstrip("\n"), re.S)


def check_console(folder, text, config):
    ports = Ports()
    steps = re.findall(r"(?m)^\$ (.*)\n((?:(?!\$ ).*\n)*)", text)
    assert steps and text.startswith("$ ")

    def go():
        for command, want in steps:
            got = shell(folder, ports.swap(command)).stdout
            assert same(ports.swap(want), got), f"$ {command}\n{got}"

    if re.search(r"(?m)^\$.*\bcurl\b", text):
        with serve(folder, config, ports):
            go()
    else:
        if config:
            write(folder, config)
        go()


def starts_and_stops(folder, command, ports):
    """`anygate serve ...` runs until it is told to end."""
    words = ports.swap(command)
    where = [] if "-l " in words or "-c " in words else ["-l", "127.0.0.1:" + ports.swap("8080")]
    with Gate(folder / "run", args=[*shlex.split(words)[2:], *where],
              ports=[int(p) for p in ports.free.values()], env=environment(folder), cwd=folder):
        pass


def check_commands(folder, text):
    ports = Ports()
    commands = [line.partition(" # ")[0].strip() for line in text.splitlines() if line.strip()]
    example = ROOT / "docs/examples/anygate.yml"
    asked = any(c.startswith("curl ") for c in commands)
    server = None
    if asked:
        server = serve(folder / "docs/examples", ("yaml", example.read_text()), ports)
    try:
        for command in commands:
            if command in NOT_RUN:
                continue
            if command.startswith("anygate serve "):
                starts_and_stops(folder, command, ports)
                continue
            done = shell(folder, ports.swap(command))
            assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    finally:
        if server:
            server.stop()


@pytest.mark.parametrize("page, kind, text, config", examples())
def test_example(place, page, kind, text, config):
    if kind in CONFIGS:
        check_config(place, (kind, text))
    elif kind == "console":
        check_console(place, text, config)
    elif kind == "sh":
        check_commands(place, text)
    elif kind == "text" and config:
        check_wrong(place, config, text)
    elif kind in ("text", "") and PLACE.search(text):
        check_shown(place, text)
    else:
        assert kind in SILENT, f"an example that nothing runs: {kind}"
