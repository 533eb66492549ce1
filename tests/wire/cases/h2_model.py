"""What a case of HTTP/2 is: what is sent and what must come, in turn, and the section that demands it.

A case begins on a connection whose SETTINGS were exchanged. Its steps are bytes to send and what is
expected in between; its verdict is what comes at the end. After every verdict but those that end the connection,
the connection must still answer PING and serve another request.

Each case runs whole and byte by byte, over cleartext and TLS, and its requests go to a route that answers by itself
(/fixed), echoes (/in/*), never answers (/hold/*), or is proxied to a strict recording HTTP/1.1 upstream (/up/*).
"""
from dataclasses import dataclass, field, replace

from h2wire import (E, F, S, T, asked, block, continuation, data, frame, goaway, headers,  # noqa: F401
                    indexed, integer, literal, ping, priority, priority_fields, priority_update, rst,
                    settings, string, table_size, window_update)


@dataclass(frozen=True)
class Gone:
    """A connection error: GOAWAY with one of the codes, then the end. No codes: the end alone is enough."""
    codes: tuple = ()


@dataclass(frozen=True)
class Stopped:
    """A stream error: RST_STREAM with one of the codes; nothing of another stream."""
    codes: tuple
    stream: int = 1


@dataclass(frozen=True)
class Broken:
    """A stream error that may be treated as one of the connection (5.4.2)."""
    codes: tuple
    stream: int = 1


@dataclass(frozen=True)
class Refused:
    """Malformed, but it may be answered before the stream ends (8.1.1): a stream error, or a status of 400."""
    stream: int = 1
    status: int = 400


@dataclass(frozen=True)
class Answered:
    status: int = 200  # None: any
    stream: int = 1
    body: bytes = None


@dataclass(frozen=True)
class Interim:
    """A 1xx answer comes."""
    status: int
    stream: int = 1


@dataclass(frozen=True)
class Unharmed:
    """Nothing comes of it: no frame of the stream, if one is named."""
    stream: int = None


@dataclass(frozen=True)
class Sees:
    """The next frame of a kind, as it must be."""
    kind: int
    stream: int = 0
    payload: bytes = None
    ack: bool = None


@dataclass(frozen=True)
class Takes:
    """So many bytes of content come on a stream, and then no more."""
    count: int
    stream: int = 1


@dataclass(frozen=True)
class Acks:
    """So many acknowledgements of SETTINGS come."""
    count: int


@dataclass(frozen=True)
class Case:
    name: str
    steps: tuple
    values: dict = field(default_factory=dict)  # the client's SETTINGS
    preface: bool = True  # False: the steps hold it
    fresh: int = 0x10001  # the stream of the request afterwards; None: there can be none
    sent: tuple = None  # what arrives at the upstream, as for HTTP/1.1; None: /up/ is not asked
    rfc: str = ""
    clause: str = ""

    @property
    def verdict(self):
        return self.steps[-1]


H2_TABLE = []


def clause(rfc, text, *cases):
    H2_TABLE.extend(replace(case, rfc=rfc, clause=text) for case in cases)


def case(name, *steps, **more):
    return Case(name, steps, **more)


def gone(name, code, *steps, **more):
    """Ends in a connection error. `code` may be several."""
    return Case(name, (*steps, Gone(code if isinstance(code, tuple) else (code,))), **more)


def stopped(name, code, *steps, stream=1, **more):
    return Case(name, (*steps, Stopped(code if isinstance(code, tuple) else (code,), stream)), **more)


def broken(name, code, *steps, stream=1, **more):
    return Case(name, (*steps, Broken(code if isinstance(code, tuple) else (code,), stream)), **more)


def answered(name, *steps, status=200, stream=1, body=None, **more):
    return Case(name, (*steps, Answered(status, stream, body)), **more)


def unharmed(name, *steps, stream=None, **more):
    return Case(name, (*steps, Unharmed(stream)), **more)


GET = headers(asked())
# A request whose content is still to come, for a route that takes it, and one that is never answered.
OPEN = headers(asked(b"/in/p", method=b"POST"), end=False)
HELD = headers(asked(b"/hold/g"))
ALL_FLAGS = 0xff
