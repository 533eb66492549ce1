"""Fixed answers with parameters: what a client puts into a path is no markup and no code, whoever says what type
the answer has: its body, its own headers, filters of its own or of groups."""
import json
import subprocess

import pytest
from gate import Gate

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1, limits: {max_line: 32k}}
plugins:
  html: {headers: {set: {Content-Type: text/html}}}
  plain: {headers: {set: {Content-Type: text/plain}}}
  json: {headers: {set: {content-type: application/json}}}
  also: {headers: {add: {Content-Type: "image/svg+xml"}}}
  asked: {headers: {response: {set: {Content-Type: "{header.x-type}"}}}}
  none: {headers: {remove: [Content-Type]}}
  empty: {headers: {set: {Content-Type: ""}}}
  others: {headers: {request: {set: {Content-Type: text/html}}, response: {set: {X-Type: text/html}}}}
groups:
  - {match: "/markup/*", filters: [html]}
  - {match: "/group/only/*", filters: [html]}
routes:
  "/own/:n": {action: "OK hi {param.n}", filters: [html]}
  "/inline/:n": {action: "OK hi {param.n}", filters: [{headers: {set: {Content-Type: application/xhtml+xml}}}]}
  "/also/:n": {action: "OK hi {param.n}", filters: [also]}
  "/json/:n": {action: "OK hi {param.n}", filters: [json]}
  "/asked/:n": {action: "OK hi {param.n}", filters: [asked]}
  "/none/:n": {action: "OK hi {param.n}", filters: [none]}
  "/empty/:n": {action: "OK hi {param.n}", filters: [empty]}
  "/others/:n": {action: "OK hi {param.n}", filters: [others]}
  "/outer/:n": {action: "OK hi {param.n}", filters: [html, plain]}
  "/inner/:n": {action: "OK hi {param.n}", filters: [plain, html]}
  "/named/:n": {action: "OK hi {param.n}", headers: {Content-Type: "text/{param.n}"}}
  "/markup/:n": OK hi {param.n}
  "/markup/back/:n": {action: "OK hi {param.n}", filters: [plain]}
  "/group/*": OK hi {splat}
  "/plain/:n": OK hi {param.n}
  "/object/:n": OK {"n":"{param.n}"}
  "/field/*": {action: "OK", headers: {X-S: "<{splat}>"}}
"""
RAW = b"hi <b>&\"'\\`$"
HTML = b"hi &lt;b&gt;&amp;&quot;&#39;&#92;&#96;&#36;"
SCRIPT = rb"hi \u003cb\u003e\u0026\u0022\u0027\\\u0060\u0024"


@pytest.fixture(scope="module")
def gate(backend, tmp_path_factory):
    with Gate(tmp_path_factory.mktemp("gate"), CONFIG, backend) as running:
        yield running


@pytest.mark.parametrize("path,want", [
    ("/own/", HTML), ("/inline/", HTML), ("/also/", HTML), ("/json/", SCRIPT),
    # What it will be is not known, or the browser guesses.
    ("/asked/", SCRIPT), ("/none/", SCRIPT), ("/empty/", SCRIPT), ("/named/", SCRIPT),
    ("/others/", RAW), ("/plain/", RAW),
    # The first filter of a list is the last to see the answer, and groups are before the route.
    ("/outer/", HTML), ("/inner/", RAW),
    ("/markup/", HTML), ("/markup/back/", HTML),
    ("/group/", RAW), ("/group/only/", HTML.replace(b"hi ", b"hi only/")),
])
def test_no_markup_comes_out_of_a_path(gate, path, want):
    path += "%3Cb%3E&%22'%5C%60$"
    assert gate.get(path).body == want
    head = gate.get(path, method="HEAD")
    assert int(head.get("content-length")) == len(want)
    curl = ["curl", "-sS", "--http2-prior-knowledge", f"http://127.0.0.1:{gate.port}{path}"]
    assert subprocess.run(curl, capture_output=True, check=True).stdout == want


def test_json_tells_what_was_asked(gate):
    r = gate.get("/object/%3Cb%3E&%22'%5C%60$%0A%E2%82%AC")
    assert json.loads(r.body) == {"n": "<b>&\"'\\`$\n\u20ac"}
    assert not set(b"<>&'`$") & set(r.body)


@pytest.mark.parametrize("length", [0, 600, 700, 5000, 20000])
def test_a_field_has_all_of_a_long_path(gate, length):
    text = "a" * length
    answer = gate.get("/field/" + text)
    assert (answer.status, answer.get("x-s")) == (200, f"<{text}>")
    curl = ["curl", "-sSi", "--http2-prior-knowledge", f"http://127.0.0.1:{gate.port}/field/{text}"]
    done = subprocess.run(curl, capture_output=True, check=True)
    assert f"\r\nx-s: <{text}>\r\n".encode() in done.stdout
