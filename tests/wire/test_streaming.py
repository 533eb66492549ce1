"""What streams through the proxy is passed on as it comes, in every pairing of versions, plain and over TLS. Each end
says something only when the other has what came before: what is held back anywhere hangs."""
import queue
import threading
import time
from contextlib import suppress

import h2wire
import pytest
from streams import VERSIONS, Between, Client1
from waiting import again

EVENTS = 1000


@pytest.fixture(scope="module", params=[(v, tls) for tls in (False, True) for v in VERSIONS],
                ids=lambda p: f"{p[0]}-upstream{'-tls' * p[1]}")
def module_between(request, backend, certs, tmp_path_factory):
    version, tls = request.param
    leaf = certs.leaf("both", ["both.example"]) if tls else None
    with Between(tmp_path_factory.mktemp("gate"), backend, version, leaf) as between:
        yield between


@pytest.fixture
def between(module_between):
    yield module_between
    faults, module_between.faults = module_between.faults, []
    assert not faults, faults


@pytest.fixture(params=VERSIONS)
def client(request, between):
    client = between.client(request.param)
    yield client
    client.close()


def served(between, client):
    """A new request is, by a connection of its own."""
    between.script = lambda side: (side.respond(), side.send(b"next"), side.end())
    fresh = another(between, client)
    fresh.ask()
    assert fresh.status() == 200 and fresh.read(4) == b"next" and fresh.at_end()
    fresh.close()


def another(between, client):
    """A client of the same version."""
    return between.client("h1" if isinstance(client, Client1) else "h2")


def grown(between, before):
    return tuple(now - then for now, then in zip(between.passed(), before))


# ---- no delay ----

def test_events_leave_in_the_turn_in_which_they_came(between, client):
    seen = threading.Semaphore(1)

    def events(side):
        side.respond(200, [("content-type", "text/event-stream")])
        for i in range(EVENTS):
            assert seen.acquire(timeout=20), f"event {i - 1} has not arrived"
            side.send(b"data: %d\n\n" % i)
        side.end()

    before = between.passed()
    between.script = events
    client.ask(path="/events", fields=[("accept", "text/event-stream")])
    assert client.status() == 200
    for i in range(EVENTS):
        event = b"data: %d\n\n" % i
        assert client.read(len(event)) == event
        seen.release()
    assert client.at_end()
    assert grown(between, before) == (EVENTS, 0)


def test_pieces_go_both_ways_in_turn(between, client):
    """The answer has begun before the request has ended; each piece is echoed before the next is sent."""
    def echo(side):
        side.respond()
        for i in range(200):
            side.send(side.read(3))
        assert side.at_end()
        side.send(b"end")
        side.end()

    before = between.passed()
    between.script = echo
    client.ask("POST", content=True)
    assert client.status() == 200
    for i in range(200):
        client.send(b"%03d" % i)
        assert client.read(3) == b"%03d" % i
    client.end()
    assert client.read(3) == b"end" and client.at_end()
    assert grown(between, before) == (401, 0)


# ---- before the answer ----

def test_content_waits_for_100(between, client):
    def answer(side):
        assert side.fields["expect"] == "100-continue"
        side.hint(100)
        assert side.read(5) == b"hello" and side.at_end()
        side.respond()
        side.end()

    between.script = answer
    client.ask("POST", fields=[("Expect", "100-continue")], content=True)
    assert client.hint() == 100
    client.send(b"hello")
    client.end()
    assert client.status() == 200 and client.at_end()


def test_an_answer_in_the_place_of_100(between, client):
    def refuse(side):
        assert side.fields["expect"] == "100-continue"
        side.respond(401)
        side.send(b"no")
        side.end()

    between.script = refuse
    client.ask("POST", fields=[("Expect", "100-continue")], content=True)
    assert client.status() == 401 and client.read(2) == b"no" and client.at_end()
    served(between, client)


def test_hints_come_before_the_answer_is_there(between, client):
    hinted = threading.Event()

    def answer(side):
        side.hint(103, [("link", "</a>; rel=preload")])
        assert hinted.wait(20), "the hint has not arrived"
        side.respond()
        side.end()

    between.script = answer
    client.ask()
    assert client.hint() == 103
    hinted.set()
    assert client.status() == 200 and client.at_end()


def test_an_answer_to_an_unfinished_upload(between, client):
    """It comes whole while the client is still at it; whose content the next request gets is not in doubt."""
    def answer(side):
        assert side.read(5) == b"begun"
        side.respond(403)
        side.send(b"enough")
        side.end()

    between.script = answer
    client.ask("POST", content=True)
    client.send(b"begun")
    assert client.status() == 403 and client.read(6) == b"enough" and client.at_end()
    served(between, client)


# ---- tunnels ----

def need_halves(between, client):
    if between.tls and (between.version == "h1" or isinstance(client, Client1)):
        pytest.skip("python's TLS reads nothing behind its own end")


def test_the_upstream_s_half_of_a_tunnel_ends_first(between, client):
    need_halves(between, client)

    def talk(side):
        side.accept()
        side.send(b"last")
        side.end()
        assert side.read(4) == b"more" and side.at_end()
        done.set()

    done = threading.Event()
    between.script = talk
    client.tunnel()
    assert client.read(4) == b"last" and client.at_end()
    client.send(b"more")
    client.end()
    assert done.wait(20), between.faults


def test_the_client_s_half_of_a_tunnel_ends_first(between, client):
    need_halves(between, client)

    def talk(side):
        side.accept()
        assert side.read(4) == b"last" and side.at_end()
        side.send(b"more")
        side.end()

    between.script = talk
    client.tunnel()
    client.send(b"last")
    client.end()
    assert client.read(4) == b"more" and client.at_end()


def test_a_silent_tunnel_ends(between, client):
    def listen(side):
        with suppress(AssertionError, OSError, h2wire.Closed):  # it was silent before that was said
            side.accept()
            heard.put((side.read(5), side.at_end()))

    def talk():
        fresh = another(between, client)
        try:
            fresh.tunnel("/brief")
            fresh.send(b"hello")
            assert fresh.at_loss()
            assert heard.get(timeout=10) == (b"hello", True)
        finally:
            fresh.close()

    heard = queue.Queue()
    between.script = listen
    again(talk)


def test_a_tunnel_of_one_direction_is_not_silent(between, client):
    def tick(side):
        with suppress(OSError, h2wire.Closed):  # one that ticked too late is told by its client
            side.accept()
            for _ in range(15):
                side.send(b"tick")
                time.sleep(0.1)
            side.end()

    def listen():
        fresh = another(between, client)
        try:
            fresh.tunnel("/brief")
            assert fresh.read(60) == b"tick" * 15 and fresh.at_end()
        finally:
            fresh.close()

    between.script = tick
    again(listen)
