"""Answers of HTTP/2 upstreams by the table (cases/h2_answers.py): what the client of HTTP/1.1 sees, what the
upstream is told, and that the next request is not touched by it."""
import struct
import threading

import pytest
from cases.h2_answers import CUT, H2_ANSWERS, Answer
from gate import Closed as Broke
from gate import Gate, Reader
from h2wire import Closed, E, T, Upstream, block, connect, data, goaway, headers, named
from waiting import await_that

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes:
  "/h2/*":
    action: "h2c://127.0.0.1:%d"
    timeouts: {first_byte: 20s, read: 20s}
"""


def for_stream(data, stream):
    """The frames of stream 1 as those of another; so the stream that GOAWAY names."""
    out = b""
    while len(data) >= 9:
        size, kind, of = int.from_bytes(data[:3], "big"), data[3], struct.unpack(">I", data[5:9])[0]
        whole, data = data[:9 + size], data[9 + size:]
        if of == 1:
            whole = whole[:5] + struct.pack(">I", stream) + whole[9:]
        if kind == T.GOAWAY and whole[9:13] == b"\0\0\0\1":
            whole = goaway(stream)
        out += whole
    return out + data


class Liar:
    """Gives the case's answer to one request, and says to all others on which connection they came."""

    def __init__(self):
        self.answer = self.server = self.request = None
        self.lied = threading.Event()

    def arm(self, answer):
        self.answer, self.server = answer, None
        self.lied.clear()

    def __call__(self, server, request):
        answer, self.answer = self.answer, None
        if answer is None:
            server.answer(request, body=b"%d" % server.index)
            return
        self.server, self.request = server, request
        try:
            server.send(for_stream(answer.send, request.stream))
        except Closed:
            pass  # it has had enough; what it says is read as always
        self.lied.set()
        if answer.then == "close":
            server.shut()
            raise Closed


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    liar = Liar()
    with Upstream(liar) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % up.port, backend) as gate:
            yield gate, liar


def seen(gate, answer):
    """What the client gets: a response, or None when it broke off."""
    with gate.connect() as s:
        s.sendall(answer.ask)
        try:
            return Reader(s).response(answer.ask.split(b" ")[0].decode())
        except (Broke, ConnectionResetError):
            return None


def wait_for(what):
    await_that(lambda: what() is not None, lambda: "what the upstream is told", 20)
    return what()


def told(answer, liar):
    """Holds what the upstream was told against the case."""
    server, request = liar.server, liar.request
    if answer.gone is not None:
        got = wait_for(lambda: server.goaway)
        assert got.code in answer.gone, named(got.code)
    elif answer.stopped:
        code = wait_for(lambda: request.reset)
        assert code in answer.stopped, named(code)
    elif answer.stopped is None:
        assert request.reset is None, named(request.reset)
        assert server.goaway is None or server.goaway.code == E.NO_ERROR, server.goaway


@pytest.mark.parametrize("behind, trailers, body", [
    (headers(block((b"grpc-status", b"5"))), [("grpc-status", "5")], b""),
    (data(b""), None, b""),
    (data(b"", end=False) + headers(block((b"grpc-status", b"5"))), [("grpc-status", "5")], b"")],
    ids=["trailers", "an end", "nothing, and trailers"])
def test_what_comes_behind_a_length_of_0_to_http2(setup, behind, trailers, body):
    gate, liar = setup
    liar.arm(Answer("", headers(block((b":status", b"200"), (b"content-length", b"0")), end=False) + behind, 200))
    with connect(gate.port) as client:
        got = client.get("/h2/l")
        assert (got.status, got.body, got.trailers, got.get("content-length")) == (200, body, trailers, "0")
        assert client.get("/h2/l").status == 200


@pytest.mark.parametrize("length", [0, 2])
@pytest.mark.parametrize("then", ["close", data(b"", end=False) + headers(block((b":status", b"200")))],
                         ids=["a close", "nonsense"])
def test_who_dies_behind_all_of_the_content_costs_the_next_request_nothing(setup, length, then):
    """The answer's length has told the client where it ends; what is pipelined behind it is answered."""
    gate, liar = setup
    whole = headers(block((b":status", b"200"), (b"content-length", b"%d" % length)), end=False)
    whole += data(b"ok"[:length], end=False)
    liar.arm(Answer("", whole + (b"" if then == "close" else then), 200, then="close" if then == "close" else ""))
    with gate.connect() as s:
        reader = Reader(s)
        s.sendall(2 * b"GET /h2/l HTTP/1.1\r\nHost: x\r\n\r\n")
        first, second = reader.response(), reader.response()
        assert (first.status, first.body) == (200, b"ok"[:length])
        assert second.status == 200 and second.body != b""


def test_nor_a_client_of_http2_its_answer(setup):
    gate, liar = setup
    whole = headers(block((b":status", b"200"), (b"content-length", b"2")), end=False) + data(b"ok", end=False)
    liar.arm(Answer("", whole, 200, then="close"))
    with connect(gate.port) as client:
        got = client.get("/h2/l")
        assert (got.status, got.body) == (200, b"ok")
        assert client.get("/h2/l").status == 200


def lost(answer):
    """Whether the connection can carry no other request."""
    return answer.gone is not None or answer.then == "close"


@pytest.mark.parametrize("answer", H2_ANSWERS, ids=lambda a: f"{a.rfc}: {a.name}")
def test_answer(setup, answer):
    gate, liar = setup
    liar.arm(answer)
    r = seen(gate, answer)
    if answer.status == CUT:
        assert r is None, r
    else:
        wanted = answer.status if isinstance(answer.status, tuple) else (answer.status,)
        assert r is not None and r.status in wanted, r
    if answer.again:
        assert r.body != b"" and r.status == 200
    elif r is not None and r.status < 500:
        assert answer.body in (None, r.body), r
        assert [i.status for i in r.interim] == list(answer.interim)
        assert [(n.lower(), v) for n, v in r.trailers] == list(answer.trailers)
        for name, value in answer.fields.items():
            assert r.get(name) == value
    told(answer, liar)
    index = int(gate.get("/h2/probe").body)
    assert index != liar.server.index if lost(answer) else index == liar.server.index


def test_the_table_is_large_and_unambiguous():
    assert all(a.rfc and a.clause for a in H2_ANSWERS) and len(H2_ANSWERS) >= 100
    assert len({(a.rfc, a.name) for a in H2_ANSWERS}) == len(H2_ANSWERS)
