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


# Each around a bound of router/access_log.h, and far beyond all of them.
LONG = [*range(4080, 4100), 2700, 2950, 3071, 3100, 6000, 8000]


@pytest.mark.parametrize("form", ["human", "combined", "json"])
def test_every_line_is_whole(backend, tmp_path, form):
    asked = [(b"a" * n, b"x", b"x") for n in LONG]
    asked += [(b'"' * n, b"x", b"x") for n in (1400, 2040, 2046, 2047, 2048, 8000)]
    asked += [(b"a", c * n, c * n) for c in (b"x", b'"', b"\\", b"\xff", "\u20ac".encode()) for n in (169, 170, 1020, 1025, 5000)]
    with Gate(tmp_path, CONFIG % form, backend) as gate:
        for query, agent, referer in asked:
            gate.ask(b"GET /x?%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: %s\r\nReferer: %s\r\n\r\n"
                     % (query, agent, referer))
    lines = (tmp_path / "stderr.log").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == "" and len(lines) == len(asked)
    for line, (query, agent, _) in zip(lines, asked):
        if form == "json":
            entry = json.loads(line)
            assert (entry["status"], entry["protocol"], entry["bytes"]) == (200, "HTTP/1.1", 0), line
            shown = [(entry["target"], b"/x?" + query), (entry["user_agent"], agent)]
            # Bytes that are no UTF-8 are told by their numbers.
            assert all(s and (s.endswith("...") or s in (v.decode("utf-8", "ignore"), v.decode("latin-1")))
                       for s, v in shown), line
        elif form == "combined":
            assert re.fullmatch(r'\S+ - - \[[^]]+\] "GET /x\?(\\.|[^"\\])+ HTTP/1\.1" 200 0'
                                r'( "(\\.|[^"\\])+"){2}', line), line
        else:
            assert re.fullmatch(r'\S+ GET /x\?\S+ 200 0 [0-9.]+ms "x"', line), line


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
