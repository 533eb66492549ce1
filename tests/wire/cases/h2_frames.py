"""RFC 9113 sections 3, 4 and 6: the preface, the form of each frame, sections in pieces, unknown things."""
from h2wire import PREFACE

from .h2_model import (ALL_FLAGS, GET, HELD, OPEN, Acks, Answered, E, F, Gone, S, Sees, T, answered, asked,
                       broken, case, clause, continuation, data, frame, goaway, gone, headers, integer,
                       ping, priority, priority_fields, rst, settings, stopped, unharmed, window_update)

PROTOCOL, SIZE, FLOW = E.PROTOCOL_ERROR, E.FRAME_SIZE_ERROR, E.FLOW_CONTROL_ERROR
UNKNOWN = 0xbe


def spread(section, size=1, stream=1, end=True):
    """A section in HEADERS and CONTINUATION of `size` bytes each."""
    parts = [section[i:i + size] for i in range(0, len(section), size)]
    out = headers(parts[0], stream, end=end, whole=len(parts) == 1)
    for i, part in enumerate(parts[1:], 2):
        out += continuation(part, stream, whole=i == len(parts))
    return out


def long_field(size):
    """A section of exactly `size` bytes that asks for /fixed."""
    section = asked()
    rest = size - len(section) - len(b"\0\x05x-pad")
    length = next(n for n in range(rest, 0, -1) if len(integer(n, 7)) + n == rest)
    return section + b"\0\x05x-pad" + integer(length, 7) + b"a" * length


clause("9113 3.4", "the client's preface, then SETTINGS",
       answered("frames right behind the preface", PREFACE + settings() + GET, preface=False),
       answered("SETTINGS with values", PREFACE + settings({S.INITIAL_WINDOW_SIZE: 70000, S.ENABLE_PUSH: 0})
                + GET,
                preface=False),
       gone("PING before SETTINGS", PROTOCOL, PREFACE + ping(), preface=False),
       gone("HEADERS before SETTINGS", PROTOCOL, PREFACE + GET, preface=False),
       gone("WINDOW_UPDATE before SETTINGS", PROTOCOL, PREFACE + window_update(0, 1), preface=False),
       gone("an unknown frame before SETTINGS", PROTOCOL, PREFACE + frame(UNKNOWN, 0, 0, b"x"),
            preface=False),
       gone("an acknowledgement as the first frame", PROTOCOL, PREFACE + settings(ack=True), preface=False),
       gone("the preface twice", (PROTOCOL, SIZE), PREFACE + settings() + PREFACE, preface=False),
       case("garbage for a preface", PREFACE[:18] + b"XX\r\n\r\n" + settings(), Gone(), preface=False),
       case("a preface with bare line feeds", PREFACE.replace(b"\r\n", b"\n") + settings(), Gone(),
            preface=False))

clause("9113 4.1", "unknown types are ignored; undefined flags and the reserved bit, too",
       unharmed("unknown type, no payload", frame(UNKNOWN)),
       unharmed("unknown type, every flag", frame(UNKNOWN, ALL_FLAGS, 0, b"x" * 8)),
       unharmed("unknown type, as large as may be", frame(UNKNOWN, 0, 0, b"x" * 16384)),
       unharmed("unknown type on an idle stream", frame(UNKNOWN, 0, 7, b"x")),
       answered("unknown type on an open stream", OPEN + frame(UNKNOWN, 0, 1, b"x") + data(b"x")),
       answered("unknown type on a stream that waits", HELD + frame(UNKNOWN, 0, 1, b"x")
                + headers(asked(), 3),
                stream=3),
       answered("unknown type on a closed stream", GET, Answered(), frame(UNKNOWN, 1, 1, b"x")
                + headers(asked(), 3),
                stream=3),
       unharmed("every unknown type", b"".join(frame(t, 0, 0, b"x") for t in range(17, 256))),
       case("undefined flags of PING", ping(b"abcdefgh").replace(b"\6\0", b"\6\xfe", 1),
            Sees(T.PING, payload=b"abcdefgh", ack=True)),
       answered("undefined flags of HEADERS", headers(asked(), flags=0xd2)),
       answered("undefined flags of DATA", OPEN + data(b"x", flags=0xf6), body=None),
       answered("undefined flags of SETTINGS", frame(T.SETTINGS, 0xfe, 0) + GET),
       answered("undefined flags of WINDOW_UPDATE", frame(T.WINDOW_UPDATE, ALL_FLAGS, 0, b"\0\0\0\1") + GET),
       answered("undefined flags of PRIORITY", frame(T.PRIORITY, ALL_FLAGS, 3, priority_fields()) + GET),
       answered("undefined flags of CONTINUATION",
                headers(asked()[:4], whole=False) + continuation(asked()[4:], flags=0xfb)),
       unharmed("undefined flags of RST_STREAM", HELD + frame(T.RST_STREAM, ALL_FLAGS, 1, b"\0\0\0\x08"),
                stream=1),
       answered("the reserved bit of a stream", frame(T.HEADERS, 5, 1 << 31 | 1, asked())),
       case("the reserved bit of the connection", frame(T.PING, 0, 1 << 31, b"abcdefgh"),
            Sees(T.PING, payload=b"abcdefgh", ack=True)),
       answered("the reserved bit of WINDOW_UPDATE", frame(T.WINDOW_UPDATE, 0, 0, b"\x80\0\0\1") + GET))

clause("9113 4.2", "frames of up to 16384 bytes; larger ones are FRAME_SIZE_ERROR",
       answered("DATA of 16384", OPEN + data(b"x" * 16384)),
       answered("HEADERS of 16384", headers(long_field(16384))),
       answered("CONTINUATION of 16384",
                headers(asked(), whole=False) + continuation(long_field(16384)[len(asked()):])),
       broken("DATA of 16385", SIZE, OPEN + data(b"x" * 16385)),
       gone("HEADERS of 16385", SIZE, headers(long_field(16385))),
       gone("CONTINUATION of 16385", SIZE,
            headers(asked(), whole=False) + continuation(long_field(16385 + len(asked()))[len(asked()):])),
       gone("SETTINGS of 16386", SIZE, settings([(0xaaaa, 1)] * 2731)),
       gone("unknown type of 16385", SIZE, frame(UNKNOWN, 0, 0, b"x" * 16385)),
       gone("a length of 2^24-1 is refused by its head", SIZE,
            frame(UNKNOWN, 0, 0, b"", length=(1 << 24) - 1)),
       gone("a HEADERS head of 2^24-1", SIZE, frame(T.HEADERS, 4, 1, b"", length=(1 << 24) - 1)),
       gone("what we allow does not bind the server", SIZE, frame(UNKNOWN, 0, 0, b"x" * 16385),
            values={S.MAX_FRAME_SIZE: 1 << 20}))

clause("9113 6.1", "DATA",
       gone("on stream 0", PROTOCOL, data(b"x", 0)),
       gone("padding as long as the payload", PROTOCOL, OPEN + frame(T.DATA, F.PADDED, 1, b"\6abcde")),
       gone("padding longer than the payload", PROTOCOL, OPEN + frame(T.DATA, F.PADDED, 1, b"\x20abcde")),
       gone("padded without a length", (PROTOCOL, SIZE), OPEN + frame(T.DATA, F.PADDED, 1)),
       answered("padding of nothing", OPEN + data(b"hello", pad=0)),
       answered("255 bytes of padding", OPEN + data(b"hello", pad=255)),
       answered("padding but for its length's byte", OPEN
                + frame(T.DATA, F.PADDED | F.END_STREAM, 1, b"\5abcde")),
       answered("padding alone", OPEN + data(b"hello", end=False) + data(b"", pad=255)),
       answered("an empty frame at the end", OPEN + data(b"hello", end=False) + data()),
       answered("content in many frames", OPEN + b"".join(data(b"%d" % i, end=False) for i in range(10))
                + data(b"x")))

clause("9113 6.2", "HEADERS",
       gone("on stream 0", PROTOCOL, headers(asked(), 0)),
       answered("padded", headers(asked(), pad=9)),
       answered("padding of nothing", headers(asked(), pad=0)),
       answered("with priority", headers(asked(), priority=priority_fields(0, 255, True))),
       answered("padded, with priority", headers(asked(), pad=200, priority=priority_fields(3, 1))),
       gone("padding as long as the payload", PROTOCOL, frame(T.HEADERS, 0xd, 1, b"\x08" + asked()[:7])),
       gone("padding longer than the payload", PROTOCOL, frame(T.HEADERS, 0xd, 1, b"\xff" + asked())),
       gone("padding into the priority", (PROTOCOL, SIZE),
            frame(T.HEADERS, 0x2d, 1, b"\4" + priority_fields() + b"abc")),
       gone("padded without a length", (PROTOCOL, SIZE), frame(T.HEADERS, 0xd, 1)),
       gone("priority cut short", (SIZE, PROTOCOL), frame(T.HEADERS, 0x25, 1, b"\0\0\0\0")),
       stopped("no fields at all", PROTOCOL, headers(b"")))

clause("9113 6.3", "PRIORITY is checked and otherwise ignored",
       gone("on stream 0", PROTOCOL, priority(0)),
       gone("on stream 0, with a dependency", PROTOCOL, priority(0, 3)),
       broken("4 bytes", SIZE, frame(T.PRIORITY, 0, 1, b"\0\0\0\0")),
       broken("6 bytes", SIZE, HELD + frame(T.PRIORITY, 0, 1, b"\0\0\0\0\0\0")),
       answered("weights and dependencies", priority(1, 0, 0) + priority(3, 1, 255, True) + GET),
       answered("a dependency on a stream to come", priority(5, 9) + GET))

clause("9113 6.4", "RST_STREAM",
       gone("on stream 0", PROTOCOL, rst(0)),
       gone("on an idle stream", PROTOCOL, rst(1)),
       gone("3 bytes", SIZE, HELD + frame(T.RST_STREAM, 0, 1, b"\0\0\0")),
       gone("5 bytes", SIZE, HELD + frame(T.RST_STREAM, 0, 1, b"\0\0\0\0\0")),
       unharmed("ends a stream that waits", HELD + rst(), stream=1),
       unharmed("ends a stream whose content is not complete", OPEN + data(b"x", end=False) + rst(),
                stream=1),
       unharmed("an unknown code", HELD + rst(code=0xdeadbeef), stream=1))

clause("9113 6.5", "SETTINGS",
       gone("on a stream", PROTOCOL, settings(stream=1)),
       gone("an acknowledgement with a payload", SIZE, frame(T.SETTINGS, F.ACK, 0, b"\0\1\0\0\0\1")),
       gone("an acknowledgement of one byte", SIZE, frame(T.SETTINGS, F.ACK, 0, b"\0")),
       gone("3 bytes", SIZE, frame(T.SETTINGS, 0, 0, b"\0\1\0")),
       gone("7 bytes", SIZE, frame(T.SETTINGS, 0, 0, b"\0\3\0\0\0\1\0")),
       gone("a thousand at once", E.ENHANCE_YOUR_CALM, settings([(0x0a0a, 1)] * 1000)),
       case("each is acknowledged", settings() + settings({S.ENABLE_PUSH: 0}) + settings(), Acks(3)))

clause("9113 6.5.2", "defined settings",
       gone("ENABLE_PUSH of 2", PROTOCOL, settings({S.ENABLE_PUSH: 2})),
       gone("ENABLE_PUSH of 2^32-1", PROTOCOL, settings({S.ENABLE_PUSH: 0xffffffff})),
       answered("ENABLE_PUSH of 0 and 1", settings({S.ENABLE_PUSH: 0}) + settings({S.ENABLE_PUSH: 1}) + GET),
       gone("INITIAL_WINDOW_SIZE of 2^31", FLOW, settings({S.INITIAL_WINDOW_SIZE: 1 << 31})),
       gone("INITIAL_WINDOW_SIZE of 2^32-1", FLOW, settings({S.INITIAL_WINDOW_SIZE: 0xffffffff})),
       answered("INITIAL_WINDOW_SIZE of 2^31-1", settings({S.INITIAL_WINDOW_SIZE: (1 << 31) - 1}) + GET),
       gone("MAX_FRAME_SIZE of 16383", PROTOCOL, settings({S.MAX_FRAME_SIZE: 16383})),
       gone("MAX_FRAME_SIZE of 0", PROTOCOL, settings({S.MAX_FRAME_SIZE: 0})),
       gone("MAX_FRAME_SIZE of 2^24", PROTOCOL, settings({S.MAX_FRAME_SIZE: 1 << 24})),
       answered("MAX_FRAME_SIZE of 2^24-1", settings({S.MAX_FRAME_SIZE: (1 << 24) - 1}) + GET),
       answered("HEADER_TABLE_SIZE of 0", settings({S.HEADER_TABLE_SIZE: 0}) + GET),
       answered("HEADER_TABLE_SIZE of 2^32-1", settings({S.HEADER_TABLE_SIZE: 0xffffffff}) + GET),
       answered("MAX_CONCURRENT_STREAMS of 0", settings({S.MAX_CONCURRENT_STREAMS: 0}) + GET),
       answered("MAX_HEADER_LIST_SIZE of 2^32-1", settings({S.MAX_HEADER_LIST_SIZE: 0xffffffff}) + GET),
       answered("unknown settings", settings([(0, 1), (0x0a0a, 0xffffffff), (0xffff, 0)]) + GET),
       case("a bad value behind good ones", settings([(S.ENABLE_PUSH, 0), (S.MAX_FRAME_SIZE, 1)]),
            Gone((PROTOCOL,))))

clause("9113 6.6", "no client pushes",
       gone("PUSH_PROMISE on an open stream", PROTOCOL, OPEN
            + frame(T.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + asked())),
       gone("PUSH_PROMISE on an idle stream", PROTOCOL, frame(T.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + asked())),
       gone("PUSH_PROMISE on stream 0", PROTOCOL, frame(T.PUSH_PROMISE, 4, 0, b"\0\0\0\2" + asked())))

clause("9113 6.7", "PING",
       case("comes back with its payload", ping(b"\0\1\2\3\xfc\xfd\xfe\xff"),
            Sees(T.PING, payload=b"\0\1\2\3\xfc\xfd\xfe\xff", ack=True)),
       case("comes back before an answer that waits", HELD + ping(b"!!!!!!!!"),
            Sees(T.PING, payload=b"!!!!!!!!", ack=True)),
       unharmed("an answer that nobody waits for", ping(b"notasked", ack=True)),
       gone("on a stream", PROTOCOL, frame(T.PING, 0, 1, b"abcdefgh")),
       gone("an answer on a stream", PROTOCOL, frame(T.PING, F.ACK, 1, b"abcdefgh")),
       gone("7 bytes", SIZE, frame(T.PING, 0, 0, b"abcdefg")),
       gone("9 bytes", SIZE, frame(T.PING, 0, 0, b"abcdefghi")),
       gone("no bytes", SIZE, frame(T.PING)))

clause("9113 6.8", "GOAWAY",
       gone("on a stream", PROTOCOL, goaway(stream=1)),
       gone("7 bytes", SIZE, frame(T.GOAWAY, 0, 0, b"\0" * 7)),
       gone("no bytes", SIZE, frame(T.GOAWAY)),
       case("what was asked before is answered", GET + goaway(), Answered(), fresh=None),
       case("with a reason and an unknown code", GET + goaway(0, 0xabcd, b"a reason"), Answered(),
            fresh=None))

clause("9113 6.9", "WINDOW_UPDATE",
       gone("3 bytes", SIZE, frame(T.WINDOW_UPDATE, 0, 0, b"\0\0\1")),
       gone("5 bytes", SIZE, frame(T.WINDOW_UPDATE, 0, 0, b"\0\0\0\0\1")),
       gone("3 bytes on a stream", SIZE, HELD + frame(T.WINDOW_UPDATE, 0, 1, b"\0\0\1")),
       gone("of nothing on the connection", PROTOCOL, window_update(0, 0)),
       gone("of nothing but the reserved bit", PROTOCOL, frame(T.WINDOW_UPDATE, 0, 0, b"\x80\0\0\0")),
       broken("of nothing on a stream", PROTOCOL, HELD + window_update(1, 0)))

clause("9113 6.10", "CONTINUATION",
       answered("a section in two frames", spread(asked(), 20)),
       answered("a section in eight frames", spread(asked(), -(-len(asked()) // 8))),
       answered("an empty one at the end", headers(asked(), whole=False) + continuation(b"")),
       answered("HEADERS without a byte, the section behind", headers(b"", whole=False)
                + continuation(asked())),
       answered("the priority alone in HEADERS",
                headers(b"", whole=False, priority=priority_fields()) + continuation(asked())),
       answered("trailers in two frames", OPEN + data(b"x", end=False) + spread(b"\0\3x-a\1b", 3)),
       gone("on stream 0", PROTOCOL, headers(asked()[:4], whole=False) + continuation(asked()[4:], 0)),
       gone("without HEADERS", PROTOCOL, continuation(asked())),
       gone("behind a whole section", PROTOCOL, GET + continuation(b"")),
       gone("behind a whole section of two frames", PROTOCOL, spread(asked(), 20) + continuation(b"")),
       gone("behind DATA", PROTOCOL, OPEN + data(b"x", end=False) + continuation(b"\0\3x-a\1b")),
       gone("of another stream", PROTOCOL, headers(asked()[:4], whole=False) + continuation(asked()[4:], 3)),
       *(gone(f"{name} inside a section", PROTOCOL, headers(asked()[:4], whole=False) + between
              + continuation(asked()[4:])) for name, between in [
           ("PING", ping()), ("SETTINGS", settings()), ("PRIORITY", priority(3)), ("DATA", data(b"x")),
           ("DATA of another stream", data(b"x", 3)), ("HEADERS", headers(asked()[4:])),
           ("HEADERS of another stream", headers(asked(), 3)), ("RST_STREAM", rst()),
           ("WINDOW_UPDATE", window_update(0, 1)), ("GOAWAY", goaway()),
           ("an unknown frame", frame(UNKNOWN, 0, 1, b"x"))]))
