"""Upstreams that refuse, reset, close and stall at each stage of an exchange; clients that vanish at each.

After each nothing is left: descriptors are as many as before, and the end of the process asserts that
every pool is whole.
"""
import errno
import hashlib
import socket
import threading
import time

import pytest
from faults import Rig
from gate import Closed, Reader, free_port
from lying import LONG, STAGES, WAYS, Lying, leave
from waiting import await_that
from work import BLOB, LARGE, Answers, get, post

CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  drain_timeout: 5s
  # No clock of a client's ends anything here: what has to end, ends by itself.
  limits: {header_timeout: 1h, idle_timeout: 1h, body_timeout: 1h, write_timeout: 1h}
routes:
  "/fixed": OK fixed
  "/files/*": "$FILES/*"
  # Short clocks hold where they are what is tested alone: an upstream may stand still for seconds.
  "/up/*":
    action: "http://127.0.0.1:$UP"
    timeouts: {connect: 500ms, first_byte: 500ms, read: 500ms, write: 500ms, idle: 500ms}
  "/begun/*":
    action: "http://127.0.0.1:$UP"
    timeouts: {connect: 1m, first_byte: 1m, read: 500ms, write: 500ms, idle: 500ms}
  "/patient/*": {action: "http://127.0.0.1:$UP", timeouts: {connect: 1m}}
  "/refused/*": {action: "http://127.0.0.1:$REFUSES", timeouts: {connect: 1m}}
  "/resets/*": {action: "http://127.0.0.1:$RESETS", timeouts: {connect: 1m}}
"""


@pytest.fixture(scope="module")
def rig(backend, tmp_path_factory):
    lying = Lying()
    resets = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=reset_all, args=(resets,), daemon=True).start()
    config = CONFIG.replace("$RESETS", str(resets.getsockname()[1])).replace("$REFUSES", str(free_port()))
    rig = Rig(tmp_path_factory.mktemp("peers"), backend, config=config, script=lying)
    rig.lying = lying
    served(rig)
    rig.settle()
    yield rig
    rig.close()
    resets.close()


def reset_all(listening):
    while True:
        try:
            conn, _ = listening.accept()
        except OSError:
            return
        leave(conn, "reset")


def served(rig):
    rig.ask((get("/patient/good"), BLOB[:LONG]), (get("/files/large.bin"), LARGE), (get("/fixed"), b"fixed"))


@pytest.fixture(autouse=True)
def whole(rig):
    """Whatever a test does, all is served afterwards and nothing is left."""
    yield
    served(rig)
    rig.settle()


class Asking:
    """A request under way; many at once, so that what stalls does not take long."""

    def __init__(self, rig, request):
        self.sock = rig.gate.connect(timeout=20)
        try:
            self.sock.sendall(request)
        except ConnectionError:
            pass  # the answer may have come all the same

    def status(self):
        """Of a whole answer; "cut" when it ends before, as it must where its length was promised."""
        try:
            return Answers(self.sock).response().status
        except (Closed, ConnectionError):
            return "cut"
        finally:
            self.sock.close()


@pytest.mark.parametrize("how", WAYS)
def test_upstream_goes_wrong_at_each_stage(rig, how):
    def route(begun):
        return "patient" if how != "stall" else "begun" if begun else "up"

    asked = {stage: Asking(rig, get(f"/{route(begun)}/{stage}/{how}")) for stage, (_, begun) in STAGES.items()}
    error = 504 if how == "stall" else 502
    got = {stage: a.status() for stage, a in asked.items()}
    assert got == {stage: "cut" if begun else error for stage, (_, begun) in STAGES.items()}


def test_what_is_cut_ends_early_even_if_it_cannot_be_reset(rig):
    rig.table.arm("so_linger", errno.ENOBUFS, 1, 1 << 30)
    before = rig.table.failed("so_linger")
    asked = [Asking(rig, get(f"/patient/{stage}/reset")) for stage, (_, begun) in STAGES.items() if begun]
    assert {a.status() for a in asked} == {"cut"}
    rig.table.disarm("so_linger")
    assert rig.table.failed("so_linger") > before


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("chunk", [False, True])
def test_upstream_goes_wrong_in_the_middle_of_an_upload(rig, how, chunk):
    body = BLOB * 4  # more than sockets hold: it cannot all be sent
    route = "up" if how == "stall" else "patient"
    status = Asking(rig, post(f"/{route}/mid-upload/{how}", body, chunk)).status()
    # The answer may come before the client has sent all; what it still sends may then reset it.
    assert status in ((502, "cut") if how != "stall" else (504, "cut"))


def test_upstream_refuses(rig):
    assert Asking(rig, get("/refused/x")).status() == 502


def test_upstream_resets_on_accept(rig):
    assert Asking(rig, get("/resets/x")).status() == 502


def test_upstream_answers_slowly(rig):
    """Slower than the time to the first byte, and never silent for as long: all of it arrives."""
    deadline = time.monotonic() + 20
    while True:
        try:
            rig.ask((get("/up/slow"), BLOB[:LONG]))
            return
        except Closed:  # the upstream stood still for longer
            assert time.monotonic() < deadline


# ---- clients that vanish ----

def at_stage(rig, stage):
    """A client's socket, brought to the stage."""
    s = rig.gate.connect(timeout=20)
    if stage == "mid-line":
        s.sendall(b"GET /fix")
    elif stage == "mid-head":
        s.sendall(b"GET /fixed HTTP/1.1\r\nHos")
    elif stage == "mid-body":
        s.sendall(post("/up/mid-upload/stall", BLOB)[:30000])
        assert rig.lying.arrived.acquire(timeout=20)
    elif stage == "mid-chunk":
        s.sendall(post("/up/mid-upload/stall", BLOB, True)[:30000])
        assert rig.lying.arrived.acquire(timeout=20)
    elif stage == "mid-trailer":
        s.sendall(post("/up/mid-upload/stall", b"x" * 9, True)[:-2] + b"X-T: a")
        assert rig.lying.arrived.acquire(timeout=20)
    elif stage == "mid-answer":
        s.sendall(get("/files/large.bin"))
        s.recv(1000)
    elif stage == "mid-proxied-answer":
        s.sendall(get("/up/nearly-all/stall"))
        s.recv(1000)
    elif stage == "between-requests":
        s.sendall(get("/fixed"))
        assert Reader(s).response().status == 200
    elif stage == "pipelined":
        s.sendall(get("/files/large.bin") * 3)
    elif stage == "tunnel":
        s.sendall(get("/patient/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
                      "\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"))
        assert Reader(s).response().status == 101
        s.sendall(b"hello")
        assert s.recv(5) == b"hello"
    return s


@pytest.mark.parametrize("how", ["reset", "close"])
def test_clients_vanish_at_each_stage(rig, how):
    stages = ["connected", "mid-line", "mid-head", "mid-body", "mid-chunk", "mid-trailer",
              "mid-answer", "mid-proxied-answer", "between-requests", "pipelined", "tunnel"]
    socks = [at_stage(rig, stage) for stage in stages]
    for s in socks:
        leave(s, how)
    # The fixture's settle() waits until every descriptor is back.


def held(rig):
    """A request whose upstream has it and says nothing."""
    s = rig.gate.connect(timeout=20)
    s.sendall(get("/patient/hold"))
    assert rig.lying.holding.acquire(timeout=20)
    return s


def test_a_reset_is_seen_while_the_upstream_works(rig):
    s, before = held(rig), rig.lying.gone.count("seen")
    leave(s, "reset")
    await_that(lambda: rig.lying.gone.count("seen") > before, lambda: "the upstream was not told", 20)


def test_a_half_closed_client_is_answered(rig):
    """`printf ... | nc` shuts its side at once: a FIN is no wish to leave (docs/ARCHITECTURE.md)."""
    for path, body in (("/fixed", b"fixed"), ("/patient/good", BLOB[:LONG]), ("/patient/slow", BLOB[:LONG])):
        with rig.client() as (s, r):
            s.sendall(get(path))
            s.shutdown(socket.SHUT_WR)
            assert r.response().body == body
            assert r.at_end()


@pytest.mark.parametrize("part", [b"G", b"GET /fixed HTTP/1.1\r\n", b"GET /fixed HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_stays_half_is_refused_at_once(rig, part):
    with rig.client() as (s, r):
        s.sendall(get("/fixed") + part)
        s.shutdown(socket.SHUT_WR)
        assert r.response().body == b"fixed"
        assert r.response().status == 400
        assert r.at_end()


def test_a_client_that_closed_is_gone_when_its_answer_is_written(rig):
    """Until then it may be half closed; the timeouts of the upstream bound how long that is."""
    s = rig.gate.connect(timeout=20)
    s.sendall(get("/up/head-read/stall"))
    assert rig.lying.arrived.acquire(timeout=20)
    leave(s, "close")
    # first_byte passes, the answer meets a reset, and settle() finds nothing left


def test_uploads_of_clients_that_vanish_never_look_whole(rig):
    """The upstream must see a cut request, not a short one."""
    sums, begun = [], threading.Semaphore(0)
    whole = hashlib.sha256(BLOB).hexdigest()

    def script(index, head):
        def take(peer, head, rest):
            begun.release()
            try:
                body = rest + peer.read(len(BLOB) - len(rest))
                sums.append(hashlib.sha256(body).hexdigest())
            except OSError:
                sums.append("cut")
            return None
        return take

    rig.upstream.script = script
    try:
        for how in ("reset", "close"):
            s = rig.gate.connect(timeout=20)
            s.sendall(post("/patient/x", BLOB)[:-1])
            assert begun.acquire(timeout=20)  # a client that leaves before need not be heard of
            leave(s, how)
            await_that(lambda: sums, lambda: "the upstream was not told", 20)
            assert sums.pop() == "cut"
        s = rig.gate.connect(timeout=20)
        s.sendall(post("/patient/x", BLOB))
        await_that(lambda: sums, lambda: "the upload did not arrive", 20)
        assert sums.pop() == whole
        s.close()
    finally:
        rig.upstream.script = rig.lying
