"""THREATS.md, logs: what a client sends cannot end a line of the log, forge one, or reach a terminal."""
import json
import re

import pytest
from gate import Gate
from h2wire import PREFACE
from tlswire import answer_to

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1, log: {level: error}, access_log: %s}
routes: {"/*": OK}
"""
# Quotes and escapes of the formats, tabs, C1 controls in UTF-8 and alone, and what is no UTF-8.
EVIL = [b'" 200 "x', b"a\\", b"a\tb", b"a\xc2\x9b31mb", b"a\x9bb", b"a\x85b", b"\xff\xfe", b"\xe2\x80\xa8"]


@pytest.mark.parametrize("form", ["human", "combined", "json"])
def test_no_line_can_be_forged(backend, tmp_path, form):
    with Gate(tmp_path, CONFIG % form, backend) as gate:
        for evil in EVIL:
            target = b"/x?" + re.sub(rb"[^!-~]", b"", evil).replace(b"#", b"")
            gate.ask(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: %s\r\nReferer: %s"
                     b"\r\n\r\n" % (target, evil, evil))
        gate.ask(b"G\x1bT / HTTP/1.1\r\nHost: x\r\n\r\n")
        gate.ask(b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n")
    raw = (tmp_path / "stderr.log").read_bytes()
    lines = raw.decode("utf-8").split("\n")  # UTF-8 throughout
    assert lines.pop() == "" and len(lines) == len(EVIL) + 2
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", raw.decode("utf-8"))
    for line in lines:
        if form == "json":
            entry = json.loads(line)
            assert entry["status"] in (200, 400)
        else:
            plain = re.sub(r"\\.", "", line)  # without what is escaped
            assert plain.count('"') == (6 if form == "combined" else 2), line


BROKEN = """
server:
  listen: ["127.0.0.1:$PORT", {address: "127.0.0.1:$PORT2", tls: true}]
  workers: 1
  access_log: human
tls: {certificates: [{cert: "%s", key: "%s"}]}
routes: {"/*": OK}
"""


def test_what_broke_before_it_asked_is_told(backend, certs, tmp_path):
    leaf = certs.usual()["a"]
    with Gate(tmp_path, BROKEN % (leaf.chain, leaf.key), backend) as gate:
        answer_to(gate.ports[0], PREFACE + b"garbage, and not a frame")
        assert b" 400 " in answer_to(gate.ports[1], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    log = (tmp_path / "stderr.log").read_text()
    assert re.search(r"127\.0\.0\.1 on port %d: HTTP/2: a frame larger than allowed\n" % gate.ports[0], log), log
    assert re.search(r"127\.0\.0\.1 on port %d: TLS handshake: plain HTTP" % gate.ports[1], log), log
