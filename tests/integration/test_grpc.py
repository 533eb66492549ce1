"""gRPC from real clients through anygate to real servers, HTTP/2 on both sides, with and without TLS: all four
kinds of calls, deadlines, large messages, errors with and without an answer before them, and who goes away.
Messages are bytes, so no code has to be generated."""
import json
import threading
import time
from concurrent import futures

import grpc
import pytest
from gate import Gate, free_port

LARGE = 8 << 20
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
           ("grpc.enable_retries", 0)]

CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  admin: "127.0.0.1:$PORT2"
  workers: 1
routes:
  "/*": "h2c://127.0.0.1:%d"
"""

TLS_CONFIG = """
server:
  listen: [{{address: "127.0.0.1:$PORT", tls: true}}]
  admin: "127.0.0.1:$PORT2"
  workers: 1
tls: {{certificates: {{cert: "{leaf.chain}", key: "{leaf.key}"}}}}
proxy: {{tls: {{ca: "{leaf.ca}", server_name: grpc.example}}}}
routes:
  "/*": "h2://127.0.0.1:%d"
"""


class Service(grpc.GenericRpcHandler):
    """What the test asks for by the method's name."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.released = threading.Event()
        self.metadata = {}

    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        self.metadata[name] = dict(details.invocation_metadata)
        kinds = {"unary": grpc.unary_unary_rpc_method_handler,
                 "client": grpc.stream_unary_rpc_method_handler,
                 "server": grpc.unary_stream_rpc_method_handler,
                 "bidi": grpc.stream_stream_rpc_method_handler}
        handler = getattr(self, name, None)
        return kinds[name.split("_")[0]](handler) if handler else None

    def unary_echo(self, request, context):
        context.set_trailing_metadata([("x-trailer", "t"), ("x-bin-bin", b"\x00\xff")])
        context.send_initial_metadata([("x-initial", "i")])
        return request

    def unary_fail(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: " + request.decode())

    def unary_slow(self, _, context):
        if not context.add_callback(self.cancelled.set):
            self.cancelled.set()  # it has ended by now
        self.released.wait(60)
        return b""

    def client_sum(self, requests, _):
        return str(sum(len(r) for r in requests)).encode()

    def client_early(self, requests, context):
        next(requests)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    def server_count(self, request, _):
        for i in range(int(request)):
            yield str(i).encode()

    def server_fail_late(self, request, context):
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "late")

    def server_endless(self, _, context):
        if not context.add_callback(self.cancelled.set):
            self.cancelled.set()
        while context.is_active():
            yield b"x" * 1000

    def bidi_echo(self, requests, _):
        yield from requests


class Running:
    def __init__(self, folder, backend, leaf=None):
        """With a certificate everybody speaks TLS."""
        self.service, self.leaf = Service(), leaf
        self.pool = futures.ThreadPoolExecutor(32)
        self.server = grpc.server(self.pool, handlers=[self.service], options=OPTIONS)
        if leaf:
            pair = leaf.key.read_bytes(), leaf.chain.read_bytes()
            port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        else:
            port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        config = TLS_CONFIG.format(leaf=leaf) if leaf else CONFIG
        self.gate = Gate(folder, config % port, backend)
        self.channel = self.connect()

    def connect(self):
        # A channel of its own, not one that grpc shares among equals.
        options = OPTIONS + [("grpc.use_local_subchannel_pool", 1)]
        target = f"127.0.0.1:{self.gate.port}"
        if not self.leaf:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(
            target, grpc.ssl_channel_credentials(self.leaf.ca.read_bytes()),
            options + [("grpc.ssl_target_name_override", "grpc.example")])

    def call(self, name, channel=None):
        kind = {"unary": "unary_unary", "client": "stream_unary", "server": "unary_stream",
                "bidi": "stream_stream"}[name.split("_")[0]]
        return getattr(channel or self.channel, kind)(f"/test.Service/{name}")

    def passed(self):
        """Pieces of streams that were passed on (in the turn in which they came, later)."""
        told = json.loads(self.gate.get("/status", host="127.0.0.1", port=self.gate.ports[1]).body)
        return told["passed_at_once"], told["passed_later"]

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        self.service.released.set()
        self.channel.close()
        self.gate.__exit__(kind, *rest)
        self.server.stop(None).wait()
        self.pool.shutdown()


@pytest.fixture(params=["plain", "tls"])
def grpc_gate(request, backend, certs, tmp_path):
    leaf = certs.leaf("grpc", ["grpc.example"]) if request.param == "tls" else None
    with Running(tmp_path, backend, leaf) as running:
        yield running


def failure(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def test_unary(grpc_gate):
    answer, call = grpc_gate.call("unary_echo").with_call(b"hello", timeout=60,
                                                          metadata=[("x-asked", "a")])
    assert answer == b"hello"
    assert ("x-initial", "i") in call.initial_metadata()
    trailing = dict(call.trailing_metadata())
    assert trailing["x-trailer"] == "t" and trailing["x-bin-bin"] == b"\x00\xff"
    seen = grpc_gate.service.metadata["unary_echo"]
    assert seen["x-asked"] == "a" and "anygate" in seen["via"]


def test_many_unary_calls_share_connections(grpc_gate):
    pending = [grpc_gate.call("unary_echo").future(str(i).encode(), timeout=60)
               for i in range(1000)]
    assert [p.result() for p in pending] == [str(i).encode() for i in range(1000)]


def test_an_empty_message(grpc_gate):
    assert grpc_gate.call("unary_echo")(b"", timeout=60) == b""


@pytest.mark.parametrize("size", [1, 16384, 65536, LARGE])
def test_messages_of_any_size(grpc_gate, size):
    message = bytes(i % 251 for i in range(size)) if size < LARGE else b"abc" * (size // 3)
    assert grpc_gate.call("unary_echo")(message, timeout=60) == message


def test_an_error_without_an_answer(grpc_gate):
    """Trailers alone."""
    assert failure(lambda: grpc_gate.call("unary_fail")(b"why", timeout=60)) == \
        (grpc.StatusCode.FAILED_PRECONDITION, "no: why")
    assert failure(lambda: grpc_gate.call("unary_unknown")(b"", timeout=60))[0] == \
        grpc.StatusCode.UNIMPLEMENTED


def test_client_streaming(grpc_gate):
    assert grpc_gate.call("client_sum")((b"x" * 1000 for _ in range(1000)), timeout=60) == b"1000000"


def test_a_client_stream_that_is_answered_early(grpc_gate):
    gone = threading.Event()

    def requests():
        while not gone.is_set():
            yield b"x" * 10000

    assert failure(lambda: grpc_gate.call("client_early")(requests(), timeout=60)) == \
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
    gone.set()
    assert grpc_gate.call("unary_echo")(b"next", timeout=60) == b"next"


def test_server_streaming(grpc_gate):
    answers = list(grpc_gate.call("server_count")(b"5000", timeout=60))
    assert answers == [str(i).encode() for i in range(5000)]


def test_an_error_behind_an_answer(grpc_gate):
    answers = grpc_gate.call("server_fail_late")(b"", timeout=60)
    assert next(answers) == b"first"
    assert failure(lambda: next(answers)) == (grpc.StatusCode.DATA_LOSS, "late")


def test_bidirectional_streaming_has_no_delay(grpc_gate):
    """Each message is sent after the answer to the one before: nothing is held back, each leaves in the turn in which
    it came."""
    grpc_gate.call("unary_echo")(b"connected", timeout=60)
    before = grpc_gate.passed()
    turn = threading.Semaphore(1)

    def requests():
        for i in range(200):
            assert turn.acquire(timeout=30)
            yield str(i).encode()

    answers = []
    for answer in grpc_gate.call("bidi_echo")(requests(), timeout=60):
        answers.append(answer)
        turn.release()
    assert answers == [str(i).encode() for i in range(200)]
    at_once, later = (now - then for now, then in zip(grpc_gate.passed(), before))
    assert at_once >= 400 and later == 0


def test_bidirectional_streams_at_once(grpc_gate):
    def run(n):
        sent = [f"{n}-{i}".encode() * 50 for i in range(300)]
        return list(grpc_gate.call("bidi_echo")(iter(sent), timeout=60)) == sent

    with futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(8)))


def test_a_deadline_passes_through(grpc_gate):
    grpc_gate.call("unary_echo")(b"connected", timeout=60)
    for seconds in (0.5, 2, 8):
        code, _ = failure(lambda: grpc_gate.call("unary_slow")(b"", timeout=seconds))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        # Of one that was over before it had arrived the server may know nothing.
        if grpc_gate.service.cancelled.wait(20 if "unary_slow" in grpc_gate.service.metadata else 2):
            return
    raise AssertionError("the server was not told")


def test_a_cancelled_call_is_cancelled_upstream(grpc_gate):
    answers = grpc_gate.call("server_endless")(b"", timeout=60)
    for _ in range(10):
        next(answers)
    answers.cancel()
    assert grpc_gate.service.cancelled.wait(20), "the server was not told"
    assert grpc_gate.call("unary_echo")(b"next", timeout=60) == b"next"


def test_a_client_that_goes_away_takes_its_calls_with_it(grpc_gate):
    channel = grpc_gate.connect()
    answers = grpc_gate.call("server_endless", channel)(b"", timeout=60)
    next(answers)
    channel.close()
    assert grpc_gate.service.cancelled.wait(20), "the server was not told"
    assert grpc_gate.call("unary_echo")(b"next", timeout=60) == b"next"


def test_a_slow_reader_holds_back_its_own_stream_alone(grpc_gate):
    slow = grpc_gate.call("server_endless")(b"", timeout=60)
    next(slow)
    time.sleep(0.5)
    for i in range(50):
        assert grpc_gate.call("unary_echo")(str(i).encode(), timeout=60) == str(i).encode()
    slow.cancel()


def test_no_server_is_unavailable(backend, tmp_path):
    with Gate(tmp_path, CONFIG % free_port(), backend) as gate:
        with grpc.insecure_channel(f"127.0.0.1:{gate.port}", OPTIONS) as channel:
            code, _ = failure(lambda: channel.unary_unary("/a/b")(b"", timeout=60))
            assert code == grpc.StatusCode.UNAVAILABLE


def test_a_server_that_ends_is_followed_by_the_next(grpc_gate):
    """Calls under way end well, those that come go to the new one."""
    slow = grpc_gate.call("unary_slow").future(b"", timeout=60)
    while "unary_slow" not in grpc_gate.service.metadata:
        time.sleep(0.01)
    stopped = grpc_gate.server.stop(20)
    grpc_gate.service.released.set()
    assert slow.result() == b""
    assert stopped.wait(20)
    code, _ = failure(lambda: grpc_gate.call("unary_echo")(b"", timeout=60))
    assert code == grpc.StatusCode.UNAVAILABLE
