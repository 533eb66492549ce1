"""Plays a case of HTTP/2 (cases/h2_*.py) on a connection and holds what comes against it."""
import ssl
import time
from functools import singledispatch

from cases.h2_model import (Acks, Answered, Broken, E, Gone, Interim, Refused, Sees, Stopped, T, Takes,
                            Unharmed)
from h2wire import DEADLINE_S, Closed, GoneAway, Reset, asked, gone, headers, named


class Play:
    """One case under way: `client` with what has come on it so far."""

    def __init__(self, client, case):
        self.client, self.case = client, case
        self.taken = {}  # content that was accounted for, by stream
        self.acks = client.peer_acks
        self.over = False

    def frame(self, end):
        """The next frame, put to the answers, but a GOAWAY for an error raises GoneAway."""
        got = self.client.frame(max(0.001, end - time.monotonic()))
        self.client.gather(got)
        return got

    def until(self, enough):
        end = time.monotonic() + DEADLINE_S
        while not enough():
            self.frame(end)

    def settle(self):
        """What the server had to send has come: its answers to two PINGs."""
        for _ in range(2):
            for got in self.client.round_trip():
                assert not (got.kind == T.PING and got.ack), f"an answer to no PING of ours: {got}"
                self.client.gather(got)
                yield got

    def run(self, dribble=False):
        for step in self.case.steps:
            if isinstance(step, bytes):
                self.send(step, dribble)
            else:
                expect(step, self)
        if not self.over and self.case.fresh is not None:
            self.alive()

    def send(self, data, dribble):
        try:
            if dribble and len(data) <= 3000:
                self.client.dribble(data)
            elif dribble:
                for at in range(0, len(data), 997):
                    self.client.send(data[at:at + 997])
            else:
                self.client.send(data)
        except Closed:
            pass  # refused before all was sent: what comes tells whether rightly so

    def alive(self):
        """PING and a request without content, of a stream of its own, are answered."""
        fresh = self.case.fresh
        list(self.settle())
        self.client.send(headers(asked(method=b"HEAD"), fresh))
        r = self.client.response(fresh)
        assert r.status == 200, r


@singledispatch
def expect(step, play):
    raise AssertionError(f"no such step: {step}")


@expect.register
def _(step: Gone, play):
    play.over = True
    if not step.codes:
        return ends(play.client)
    got = play.client.expect_goaway(*step.codes)
    check_last(got, play)
    rest = play.client.expect_close()
    assert not any(f.kind == T.HEADERS for f in rest), rest


def ends(client):
    """The end, whatever it says before: it may be an answer of HTTP/1.1."""
    client.sock.settimeout(DEADLINE_S)
    try:
        while client.sock.recv(65536):
            pass
    except (ConnectionResetError, ssl.SSLError):
        pass


def check_last(goaway, play):
    last = int.from_bytes(goaway.payload[:4], "big")
    data, highest = b"".join(s for s in play.case.steps if isinstance(s, bytes)), 0
    while len(data) >= 9:
        if data[3] == T.HEADERS:
            highest = max(highest, int.from_bytes(data[5:9], "big") & 0x7fffffff)
        data = data[9 + int.from_bytes(data[:3], "big"):]
    assert last <= highest or not play.case.preface, f"GOAWAY names stream {last}, the last was {highest}"


def response_or(play, stream):
    """The answer, or the Reset or GoneAway that comes instead."""
    try:
        return play.client.response(stream)
    except (Reset, GoneAway) as e:
        return e


@expect.register
def _(step: Stopped, play):
    got = response_or(play, step.stream)
    assert isinstance(got, Reset), got
    assert got.code in step.codes, named(got.code)


@expect.register
def _(step: Broken, play):
    got = response_or(play, step.stream)
    assert isinstance(got, (Reset, GoneAway)), got
    assert got.code in step.codes, named(got.code)
    if isinstance(got, GoneAway):
        play.over = True
        play.client.expect_close()


@expect.register
def _(step: Refused, play):
    got = response_or(play, step.stream)
    if isinstance(got, Reset):
        assert got.code == E.PROTOCOL_ERROR, named(got.code)
    else:
        assert not isinstance(got, GoneAway) and got.status == step.status, got


@expect.register
def _(step: Answered, play):
    got = play.client.response(step.stream)
    assert step.status in (None, got.status), got
    assert step.body in (None, got.body), got
    del play.client.streams[step.stream]  # what comes for it from now on is another matter


@expect.register
def _(step: Interim, play):
    play.until(lambda: step.stream in play.client.streams)
    assert play.client.streams[step.stream].status == step.status


@expect.register
def _(step: Unharmed, play):
    for got in play.settle():
        if got.kind == T.GOAWAY and got.code != E.NO_ERROR:
            raise gone(got)
        assert got.stream != step.stream or step.stream is None or got.kind == T.WINDOW_UPDATE, got


@expect.register
def _(step: Sees, play):
    got = play.client.expect(step.kind, step.stream, ack=step.ack)
    assert step.payload in (None, got.payload), got


@expect.register
def _(step: Takes, play):
    streams, want = play.client.streams, play.taken.get(step.stream, 0) + step.count
    play.until(lambda: step.stream in streams and len(streams[step.stream].body) >= want)
    for _ in play.settle():
        pass
    assert len(streams[step.stream].body) == want
    play.taken[step.stream] = want


@expect.register
def _(step: Acks, play):
    play.until(lambda: play.client.peer_acks >= play.acks + step.count)
