"""THREATS.md, logs: what a client sends cannot end a line of the log, forge one, or reach a terminal."""
import json
import re

import pytest
from gate import Gate

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
