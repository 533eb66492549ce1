"""HTTP/2 by the table (cases/h2_*.py): each verdict, whole and byte by byte; and what reaches an upstream of
HTTP/1.1 of it."""
import h2wire
import pytest
from cases import H2_TABLE
from gate import Gate, Upstream, ok
from h2_play import Play
from recorder import Recorder

CONFIG = """
server: {listen: ["127.0.0.1:$PORT", {address: "127.0.0.1:$PORT2", tls: true}], workers: 1}
tls: {certificates: [{cert: "%s", key: "%s"}]}
routes:
  "/fixed": OK OK
  "/in/*": "*"
  "/hold/*": "http://127.0.0.1:%d"
  "/big": "http://127.0.0.1:%d"
  "/up/*": "http://127.0.0.1:%d"
"""


def script(_, head):
    """Answers /big, and keeps all others waiting until they go."""
    if b" /big " in head.partition(b"\r\n")[0]:
        return ok(b"x" * 100000)

    def hold(peer, head, buffer):
        while peer.sock.recv(65536):
            pass
    return hold


@pytest.fixture(scope="module")
def setup(backend, certs, tmp_path_factory):
    leaf = certs.leaf("a", ["a.example", "b.example"])
    with Recorder() as up, Upstream(script) as other:
        config = CONFIG % (leaf.chain, leaf.key, other.port, other.port, up.port)
        with Gate(tmp_path_factory.mktemp("gate"), config, backend) as gate:
            yield gate, up


def connect(gate, case, tls):
    """A client for a case: with its SETTINGS exchanged, unless the case does that."""
    open_ = h2wire.connect_tls if tls else h2wire.connect
    return open_(gate.ports[tls], case.values, refill=False, auto=case.preface, start=case.preface)


def parsed(head):
    """(request line, fields): an upstream gets names in whatever case; TLS is not what this is about."""
    first, *lines = head.split(b"\r\n")[:-2]
    fields = [line.split(b": ", 1) for line in lines]
    return first, [(name.lower(), value.replace(b"https", b"http")) for name, value in fields]


def arrived(up, gate, case):
    """Compares what the upstream got with what the case says it gets."""
    if not any(b"/up/" in step for step in case.steps if isinstance(step, bytes)):
        return  # it was not asked
    messages, rests = up.take(gate)
    if case.sent is None:
        return
    assert rests == []
    assert len(messages) == len(case.sent), messages
    for got, want in zip(messages, case.sent):
        assert parsed(got.head) == parsed(want.head)
        assert got.body == want.body
        assert [(n.lower(), v) for n, v in got.trailers] == [(n.lower(), v) for n, v in want.trailers]


@pytest.mark.parametrize("way", ["whole", "bytes", "tls"])
@pytest.mark.parametrize("case", H2_TABLE, ids=lambda c: f"{c.rfc}: {c.name}")
def test_case(setup, case, way):
    gate, up = setup
    with connect(gate, case, way == "tls") as client:
        Play(client, case).run(way == "bytes")
    arrived(up, gate, case)


def test_the_table_is_large_and_unambiguous():
    for case in H2_TABLE:
        assert case.rfc and case.clause and case.name
        assert not isinstance(case.verdict, bytes)
    assert len(H2_TABLE) >= 400
    assert len({(c.rfc, c.name) for c in H2_TABLE}) == len(H2_TABLE)
