"""What an upstream of HTTP/2 says it has not looked at (RFC 9113 sections 6.8 and 8.7) is asked again with all of its
content, whatever the method and without any policy."""
import pytest
from gate import Closed, Gate, Reader
from h2wire import E, Upstream, connect, data, goaway, headers, rst
from waiting import await_that

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
routes:
  "/*": "h2c://127.0.0.1:%d"
  "/none/*": {action: "h2c://127.0.0.1:%d", retry: {buffer: 0}}
"""
SMALL, MEDIUM, LONG = b"hello", bytes(i * 7 % 251 for i in range(60000)), bytes(200000)
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


class Refuser:
    """Does nothing about the first request of each path, in the way that this names, at once or when its content is
    here; answers the others with their content and trailers."""

    def __init__(self):
        self.seen = []

    def __call__(self, server, request):
        first = request.path not in self.seen
        self.seen.append(request.path)
        if not first or "late" in request.path:
            server.body(request)
        if not first:
            trailers = request.trailers
            server.answer(request, body=b"got " + request.body, trailers=[("grpc-status", "0"), *(trailers or ())])
        elif "goaway" in request.path:
            server.send(goaway(request.stream - 2 if request.stream > 1 else 0))
        else:
            server.send(rst(request.stream, E.REFUSED_STREAM))


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    refuser = Refuser()
    with Upstream(refuser) as up:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % (up.port, up.port), backend) as gate:
            yield gate, refuser


def by_http1(gate, path, method, body, chunked):
    how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    wire = b"%x\r\n%s\r\n0\r\nx-sum: 9\r\n\r\n" % (len(body), body) if chunked else body
    with gate.connect() as s:
        s.sendall(b"%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s" % (method.encode(), path.encode(), how, wire))
        try:
            return Reader(s).response(method)
        except (Closed, ConnectionResetError):
            return None


def by_http2(gate, path, method, body, chunked):
    with connect(gate.port) as client:
        if not chunked:
            return client.get(path, [("content-length", str(len(body)))], method=method, body=body)
        stream = client.ask(path, GRPC, method=method, end=False)
        client.content(stream, body, end=False)
        client.send(headers(client.encoder.encode([("x-sum", "9")]), stream, end=True))
        return client.response(stream)


CLIENTS = pytest.mark.parametrize("ask", [by_http1, by_http2])
CHUNKED = pytest.mark.parametrize("chunked", [False, True], ids=["length", "trailers"])


@CLIENTS
@CHUNKED
@pytest.mark.parametrize("body", [SMALL, MEDIUM], ids=["small", "medium"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("how", ["refused", "refused-late", "goaway", "goaway-late"])
def test_it_is_asked_again(setup, ask, how, method, body, chunked):
    gate, refuser = setup
    path = f"/{ask.__name__}/{how}/{method}/{len(body)}/{chunked}"
    r = ask(gate, path, method, body, chunked)
    assert (r.status, r.body) == (200, b"got " + body)
    assert (("x-sum", "9") in [(n.lower(), v) for n, v in r.trailers or ()]) == chunked
    assert refuser.seen.count(path) == 2


@CLIENTS
@CHUNKED
def test_more_than_is_kept_is_not_asked_again(setup, ask, chunked):
    gate, refuser = setup
    path = f"/{ask.__name__}/refused-late/long/{chunked}"
    assert ask(gate, path, "POST", LONG, chunked).status == 502
    assert refuser.seen.count(path) == 1


@CLIENTS
def test_nothing_is_kept_where_that_is_told(setup, ask):
    gate, refuser = setup
    path = f"/none/{ask.__name__}/refused-late"
    assert ask(gate, path, "POST", SMALL, False).status == 502
    assert refuser.seen.count(path) == 1


@pytest.mark.parametrize("how", ["refused", "goaway"])
def test_the_rest_of_the_content_comes_behind(setup, how):
    gate, refuser = setup
    path = f"/{how}/halves"
    with connect(gate.port) as client:
        stream = client.ask(path, GRPC, method="POST", end=False)
        client.send(data(b"one", stream, end=False))
        await_that(lambda: refuser.seen.count(path) == 2, timeout=20)
        client.send(data(b"two", stream))
        assert client.response(stream).body == b"got onetwo"
