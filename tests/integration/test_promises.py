"""The six lines of the README, served from docs/examples/anygate.yml, to curl and to a browser."""
import base64
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from gate import ROOT, Gate, free_port
from ports import hold, is_free

EXAMPLE = ROOT / "docs/examples/anygate.yml"
PORTS = (8080, 9001)


def elsewhere(folder):
    """A copy of the example with other ports, for where something listens on its own already."""
    shutil.copytree(EXAMPLE.parent, folder)
    text, ports = EXAMPLE.read_text(), []
    for port in PORTS:
        ports.append(free_port())
        text = text.replace(str(port), str(ports[-1]))
    (folder / EXAMPLE.name).write_text(text)
    return folder / EXAMPLE.name, ports


@pytest.fixture(scope="module")
def gate(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    file, ports = EXAMPLE, PORTS
    with hold("ports-of-the-example") or contextlib.nullcontext() as own:
        if not own or not all(is_free(port, "0.0.0.0") for port in PORTS):
            file, ports = elsewhere(folder / "example")
        with Gate(folder, backend=backend, args=["-c", str(file)], ports=ports) as running:
            yield running


def curl(gate, path, *options):
    """Status, fields and body as curl got them."""
    out = subprocess.run(
        ["curl", "-sS", "-i", "--max-time", "20", *options, f"http://localhost:{gate.port}{path}"],
        capture_output=True, check=True).stdout
    head, body = out.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines[1:]:
        name, value = line.split(":", 1)
        assert name.lower() not in fields, f"{name} comes twice"
        fields[name.lower()] = value.strip()
    return int(lines[0].split()[1]), fields, body


# ---- "/": "/dist/"

INDEX = (EXAMPLE.parent / "dist/index.html").read_bytes()


def test_the_index(gate):
    status, fields, body = curl(gate, "/")
    assert (status, body) == (200, INDEX)
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert fields["content-length"] == str(len(INDEX))
    assert fields["cache-control"] == "no-cache"
    assert fields["etag"].startswith('"') and "last-modified" in fields


def test_a_hashed_asset(gate):
    status, fields, body = curl(gate, "/assets/app.7d03b6c1.js")
    assert status == 200
    assert body == (EXAMPLE.parent / "dist/assets/app.7d03b6c1.js").read_bytes()
    assert fields["content-type"] == "text/javascript; charset=utf-8"
    assert fields["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml,*/*;q=0.8", "*/*"])
def test_a_deep_link_gets_the_index(gate, accept):
    status, fields, body = curl(gate, "/about/this/page", "-H", f"Accept: {accept}")
    assert (status, body) == (200, INDEX)
    assert fields["cache-control"] == "no-cache"


@pytest.mark.parametrize("path, accept", [
    ("/assets/gone.0a1b2c3d.js", "*/*"),  # an extension: a missing file is missing
    ("/about/this/page", "application/json"),
    ("/about/this/page", "image/png,*/*;q=0.5"),
])
def test_what_is_no_page_gets_404(gate, path, accept):
    assert curl(gate, path, "-H", f"Accept: {accept}")[0] == 404


def test_an_extension_with_html_asked_for_gets_the_index(gate):
    assert curl(gate, "/about/v1.2", "-H", "Accept: text/html")[2] == INDEX


def test_the_fallback_is_for_reading_only(gate):
    status, fields, _ = curl(gate, "/about/this/page", "-X", "POST", "-H", "Accept: text/html")
    assert status == 405
    assert set(fields["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


# ---- "/ping": "http://auth/ping"

def test_the_proxy(gate):
    status, fields, body = curl(gate, "/ping?x=1")
    assert (status, body, fields["content-length"]) == (200, b"", "0")


def test_the_upstream_answers_on_its_own_port_alone(gate):
    def at(port, path):
        return subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}",
                               f"http://127.0.0.1:{port}{path}"],
                              capture_output=True, check=True, text=True).stdout
    assert at(gate.ports[1], "/ping") == "200"
    # Patterns without a port hold for every listener; with one they go first there.
    assert at(gate.ports[1], "/fastest/ever/ok") == "200"


# ---- GET POST PATCH /api/mock/rude: FORBIDDEN {"msg":"GO PATCH UR MUM!"}

RUDE = b'{"msg":"GO PATCH UR MUM!"}'


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_the_mock(gate, method):
    status, fields, body = curl(gate, "/api/mock/rude", "-X", method)
    assert (status, body) == (403, RUDE)
    assert fields["content-type"] == "application/json"


def test_the_mock_by_head(gate):
    status, fields, body = curl(gate, "/api/mock/rude", "-I")
    assert (status, body) == (403, b"")
    assert fields["content-length"] == str(len(RUDE))


def test_a_method_that_nothing_takes(gate):
    status, fields, _ = curl(gate, "/api/mock/rude", "-X", "DELETE")
    assert status == 405
    # The union over all patterns that match: the mock and the SPA.
    assert set(fields["allow"].split(", ")) == {"GET", "HEAD", "POST", "PATCH", "OPTIONS"}


def test_options(gate):
    status, fields, body = curl(gate, "/api/mock/rude", "-X", "OPTIONS")
    assert (status, body) == (204, b"")
    assert set(fields["allow"].split(", ")) == {"GET", "HEAD", "POST", "PATCH", "OPTIONS"}


# ---- GET /fastest/ever/ok: OK

def test_the_fixed_answer(gate):
    status, fields, body = curl(gate, "/fastest/ever/ok")
    assert (status, body, fields["content-length"]) == (200, b"", "0")
    assert "content-type" not in fields  # there is no content
    assert curl(gate, "/fastest/ever/ok", "-X", "PUT")[0] == 405


def test_head_is_served_by_get(gate):
    status, fields, body = curl(gate, "/fastest/ever/ok", "-I")
    assert (status, body, fields["content-length"]) == (200, b"", "0")


# ---- /a/b/c: *   and   /a/b/c-forbidden: FORBIDDEN *

@pytest.mark.parametrize("path, want", [("/a/b/c", 200), ("/a/b/c-forbidden", 403)])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_echo(gate, path, want, method):
    status, fields, body = curl(gate, f"{path}?q=%20z", "-X", method, "-H", "X-Mixed-Case: A b",
                                "--data-binary", "hi \u00e9\n")
    assert status == want and fields["content-type"] == "application/json"
    seen = json.loads(body)
    assert (seen["method"], seen["path"], seen["query"]) == (method, path, "q=%20z")
    assert seen["protocol"] == "HTTP/1.1"
    assert ["X-Mixed-Case", "A b"] in seen["headers"]
    assert seen["body"] == "hi \u00e9\n" and seen["base64"] is False
    assert seen["body_length"] == len("hi \u00e9\n".encode())
    assert seen["remote"]


def test_the_echo_of_bytes_that_are_no_text(gate):
    seen = json.loads(curl(gate, "/a/b/c", "--data-binary", "@" + "/usr/bin/true")[2])
    content = Path("/usr/bin/true").read_bytes()
    assert seen["base64"] is True and seen["truncated"] is True
    assert seen["body_length"] == len(content)
    assert base64.b64decode(seen["body"]) == content[:4096]


# ---- all of it in a browser

def test_in_a_browser(gate, tmp_path):
    modules = os.environ.get("NODE_PATH", str(ROOT / "build/npm/node_modules"))
    chromium = shutil.which("chromium")
    if not chromium or not Path(modules, "playwright-core").is_dir():
        pytest.skip("chromium or playwright-core is missing: tools/deps.sh test")
    script = Path(__file__).with_name("browser.js")
    done = subprocess.run(
        ["node", script, f"http://localhost:{gate.port}", chromium, tmp_path / "profile"],
        env={**os.environ, "NODE_PATH": modules}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert len(seen["rows"]) == 6
    for row in seen["rows"]:
        assert row["ok"] == "true" and "\u2713" in row["text"], row
    assert seen["echo"]["method"] == "POST" and seen["echo"]["path"] == "/a/b/c"
    assert seen["loads"] == 1, "navigation within the page asked the server for a page"
    assert "/about/this/page" in seen["deep"] and "/about/this/page" in seen["reloaded"]
    assert seen["reload_status"] == 200
    assert seen["back"] == "/echo"
    assert seen["complaints"] == []
