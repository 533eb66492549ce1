"""Fields that the headers filter makes of requests: whole, however long, or the request is refused."""
import subprocess

import pytest
from gate import Gate, Upstream, ok

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1, limits: {max_line: 64k, max_header: 64k}}
plugins:
  asked: {headers: {request: {set: {X-Uri: "{uri}", X-Last: set}}}}
  thrice: {headers: {request: {set: {X-Uri: "{uri}{uri}{uri}"}}}}
  often: {headers: {request: {set: {X-A: "{uri}", X-B: "{uri}", X-C: "{uri}", X-D: "{uri}", X-E: "{uri}"}}}}
  told: {headers: {response: {set: {X-Uri: "{uri}{header.x-more}{header.x-more}", X-Last: set}}}}
routes:
  "/asked/*": {action: "http://127.0.0.1:%d", filters: [asked]}
  "/thrice/*": {action: "http://127.0.0.1:%d", filters: [thrice]}
  "/often/*": {action: "http://127.0.0.1:%d", filters: [often]}
  "/told/*": {action: OK, filters: [told]}
"""


@pytest.fixture(scope="module")
def ends(backend, tmp_path_factory):
    with Upstream(lambda i, head: ok()) as up:
        config = CONFIG % (up.port, up.port, up.port)
        with Gate(tmp_path_factory.mktemp("gate"), config, backend) as gate:
            yield gate, up


def curl(gate, path, *more):
    """The status and the head, of HTTP/2."""
    done = subprocess.run(["curl", "-sSi", "--http2-prior-knowledge", *more,
                           f"http://127.0.0.1:{gate.port}{path}"], capture_output=True, check=True)
    head = done.stdout.split(b"\r\n\r\n")[0].split(b"\r\n")
    return int(head[0].split(b" ")[1]), dict(line.split(b": ", 1) for line in head[1:])


@pytest.mark.parametrize("length", [900, 1100, 5000, 20000])
def test_a_long_target_is_passed_on_whole(ends, length):
    gate, up = ends
    path = "/asked/" + "a" * length
    wanted = f"\r\nX-Uri: {path}\r\n".encode()
    assert gate.get(path).status == 200
    head = up.requests.pop()
    assert wanted in head and b"\r\nX-Last: set\r\n" in head
    assert curl(gate, path)[0] == 200
    assert wanted in up.requests.pop()


@pytest.mark.parametrize("length", [900, 5000, 20000])
def test_an_answer_has_it_whole(ends, length):
    gate, _ = ends
    path = "/told/" + "a" * length
    answer = gate.get(path)
    assert (answer.status, answer.get("x-uri"), answer.get("x-last")) == (200, path, "set")
    status, fields = curl(gate, path)
    assert (status, fields[b"x-uri"].decode(), fields[b"x-last"]) == (200, path, b"set")


@pytest.mark.parametrize("path", ["/thrice/", "/often/"])
def test_what_no_head_has_room_for_is_refused(ends, path):
    gate, up = ends
    path += "a" * 30000
    before = len(up.requests)
    assert gate.get(path).status == 431
    assert curl(gate, path)[0] == 431
    assert len(up.requests) == before


@pytest.mark.parametrize("length,there", [(30000, True), (40000, False)])
def test_an_answer_goes_without_it(ends, length, there):
    gate, _ = ends
    answer = gate.get("/told/a", f"X-More: {'b' * length}\r\n")
    assert (answer.status, answer.get("x-last")) == (200, "set")
    assert answer.get("x-uri") == ("/told/a" + "b" * 2 * length if there else None)
