"""Requests by the table (cases/): each verdict, whole and byte by byte, from the server itself and
through the proxy to an upstream that records and reads what it gets on its own."""
import json

import pytest
from cases import TABLE
from cases.model import PART
from gate import Gate, Reader
from recorder import Recorder

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1, limits: {idle_timeout: 20s}%s}
routes:
  "/probe": OK OK
  "/in/*": "*"
  "/up/*": "http://127.0.0.1:%d"
"""
PROBE = b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def gates(backend, tmp_path_factory):
    with Recorder() as up:
        trust = ", trusted_proxies: [127.0.0.0/8]"
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % ("", up.port), backend) as plain, \
                Gate(tmp_path_factory.mktemp("gate"), CONFIG % (trust, up.port), backend) as trusting:
            yield {"plain": plain, "trusting": trusting}, up


def answers(gate, case, pieces, want):
    """The final answers, after their number, end and statuses were found as the case wants them."""
    with gate.connect() as s:
        reader = Reader(s)
        try:
            for piece in pieces:
                s.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent
        got = [reader.response(method) for method in case.methods]
        assert tuple(r.status for r in got) == want, got
        assert all(r.get("connection") != "close" for r in got[:-1])
        if case.closes:
            assert got[-1].get("connection") == "close", got[-1]
            assert reader.at_end()
        else:
            s.sendall(PROBE)
            assert reader.response().body == b"OK"
        return got


def in_pieces(data):
    """Byte by byte, unless that is many of them."""
    size = 1 if len(data) <= 3000 else 997
    return [data[i:i + size] for i in range(0, len(data), size)]


def arrived(up, gate, case):
    """Compares what the upstream got with what the case says it gets."""
    messages, rests = up.take(gate)
    if case.sent == PART:
        assert messages == [], "a malformed request arrived whole"
        return
    assert rests == []
    assert len(messages) == len(case.sent), messages
    for got, want in zip(messages, case.sent):
        assert got.head == want.head.replace(b"$UP", b"%d" % up.port)
        assert (got.body, got.trailers) == (want.body, want.trailers)


@pytest.mark.parametrize("case", TABLE, ids=lambda c: f"{c.rfc}: {c.name}")
def test_through_the_proxy(gates, case):
    gate, up = gates[0][case.gate], gates[1]
    for pieces in [case.send], in_pieces(case.send):
        answers(gate, case, pieces, case.want)
        arrived(up, gate, case)


def understood(answer, want):
    """Compares the echo of a request with what its case would send to an upstream."""
    method, target = want.head.split(b" ")[:2]
    seen = json.loads(answer.body)
    path, _, query = target.decode("latin-1").replace("/up/", "/in/", 1).partition("?")
    assert (seen["method"], seen["path"], seen["query"] or "") == (method.decode(), path, query)
    assert seen["body_length"] == len(want.body)


@pytest.mark.parametrize("case", [c for c in TABLE if c.gate == "plain"],
                         ids=lambda c: f"{c.rfc}: {c.name}")
def test_served_here(gates, case):
    """The same bytes for a route that answers itself: with what it has understood."""
    send = case.send.replace(b"/up/", b"/in/").replace(b"/%75p/", b"/%69n/")
    want = (200,) if case.proxy else case.want
    for pieces in [send], in_pieces(send):
        got = answers(gates[0]["plain"], case, pieces, want)
        if case.sent == PART or case.proxy:
            continue
        echoes = [(r, m) for r, m in zip(got, case.methods) if r.status == 200]
        assert len(echoes) == len(case.sent)
        for (answer, method), sent in zip(echoes, case.sent):
            if method != "HEAD":
                understood(answer, sent)


def test_the_table_is_large_and_unambiguous():
    for case in TABLE:
        assert case.rfc and case.clause and case.name
        assert len(case.methods) == len(case.want)
    assert len(TABLE) >= 250
    assert len({(c.rfc, c.clause, c.name) for c in TABLE}) == len(TABLE)
    assert len({(c.send, c.gate) for c in TABLE}) == len(TABLE)
