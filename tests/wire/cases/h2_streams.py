"""RFC 9113 sections 5 and 6.9, RFC 9218: what each state of a stream takes, numbers, windows, priorities."""
from .h2_model import (GET, HELD, OPEN, Acks, Answered, E, F, Gone, S, Sees, Stopped, T, Takes, Unharmed,
                       answered, asked, broken, case, clause, continuation, data, frame, goaway, gone,
                       headers, ping, priority, priority_fields, priority_update, rst, settings, stopped,
                       unharmed, window_update)

PROTOCOL, FLOW, CLOSED, SIZE = E.PROTOCOL_ERROR, E.FLOW_CONTROL_ERROR, E.STREAM_CLOSED, E.FRAME_SIZE_ERROR
MAX = (1 << 31) - 1
SHUT = {S.INITIAL_WINDOW_SIZE: 0}
# Closed by us, closed by the server, and never used but below one that was.
WE_CLOSED, DONE = HELD + rst(), (GET, Answered())
TRAILERS = b"\0\3x-a\1b"

clause("9113 5.1 idle", "an idle stream begins with HEADERS; PRIORITY may come before",
       gone("DATA", PROTOCOL, data(b"x")),
       gone("RST_STREAM", PROTOCOL, rst(3)),
       gone("WINDOW_UPDATE", PROTOCOL, window_update(1, 100)),
       gone("CONTINUATION", PROTOCOL, continuation(asked())),
       gone("DATA above the ones in use", PROTOCOL, HELD + data(b"x", 5)),
       gone("WINDOW_UPDATE above the ones in use", PROTOCOL, HELD + window_update(5, 1)),
       answered("PRIORITY", priority(1) + GET),
       answered("PRIORITY for a stream above", priority(9) + GET))

clause("9113 5.1 open", "what an open stream takes",
       answered("WINDOW_UPDATE", OPEN + window_update(1, 1000) + data(b"x")),
       answered("PRIORITY", OPEN + priority(1) + data(b"x")),
       answered("trailers", OPEN + data(b"x", end=False) + headers(TRAILERS)),
       unharmed("RST_STREAM", OPEN + rst(), stream=1))

clause("9113 5.1 half-closed", "behind END_STREAM come WINDOW_UPDATE, PRIORITY and RST_STREAM alone",
       broken("DATA", CLOSED, HELD + data(b"x")),
       broken("empty DATA", CLOSED, HELD + data(b"")),
       broken("HEADERS", CLOSED, HELD + headers(asked())),
       broken("trailers", CLOSED, HELD + headers(TRAILERS)),
       gone("CONTINUATION", PROTOCOL, HELD + continuation(TRAILERS)),
       broken("DATA behind trailers", CLOSED, headers(asked(b"/hold/p", method=b"POST"), end=False)
              + data(b"x", end=False)
              + headers(TRAILERS) + data(b"x")),
       case("WINDOW_UPDATE", GET, Takes(0), window_update(1, 1), Takes(1), window_update(1, 1), Answered(),
            values=SHUT),
       answered("PRIORITY", GET, Takes(0), priority(1) + window_update(1, 9), values=SHUT),
       unharmed("RST_STREAM", GET, Takes(0), rst() + window_update(1, 9), stream=1, values=SHUT))

clause("9113 5.1 closed", "a closed stream takes no content; late WINDOW_UPDATE and RST_STREAM pass",
       broken("DATA behind our RST_STREAM", CLOSED, WE_CLOSED + data(b"x")),
       broken("HEADERS behind our RST_STREAM", CLOSED, WE_CLOSED + headers(asked())),
       broken("DATA behind both ends", CLOSED, *DONE, data(b"x")),
       gone("HEADERS behind both ends", CLOSED, *DONE, headers(asked())),
       gone("CONTINUATION behind both ends", PROTOCOL, *DONE, continuation(asked())),
       gone("CONTINUATION behind our RST_STREAM", PROTOCOL, WE_CLOSED + continuation(asked())),
       unharmed("WINDOW_UPDATE behind both ends", *DONE, window_update(1, 5), stream=1),
       unharmed("WINDOW_UPDATE behind our RST_STREAM", WE_CLOSED + window_update(1, 5), stream=1),
       unharmed("RST_STREAM behind both ends", *DONE, rst(), stream=1),
       unharmed("RST_STREAM twice", WE_CLOSED + rst(), stream=1),
       unharmed("PRIORITY behind both ends", *DONE, priority(1), stream=1),
       unharmed("PRIORITY behind our RST_STREAM", WE_CLOSED + priority(1), stream=1),
       unharmed("what was on its way when the server reset it",
                headers(asked(None), end=False), Stopped((PROTOCOL,)),
                data(b"x", end=False) + window_update(1, 5) + data(b"x"), stream=1),
       unharmed("trailers on their way when the server reset it",
                headers(asked(None), end=False), Stopped((PROTOCOL,)), data(b"x", end=False)
                + headers(TRAILERS), stream=1),
       unharmed("our RST_STREAM on its way when the server reset it",
                headers(asked(None), end=False), Stopped((PROTOCOL,)), rst(), stream=1))

clause("9113 5.1.1", "streams of a client are odd and go up",
       gone("an even number", PROTOCOL, headers(asked(), 2)),
       gone("a number below an earlier one", PROTOCOL, headers(asked(b"/hold/g"), 5) + headers(asked(), 3)),
       gone("the same number again, after numbers above", (PROTOCOL, CLOSED), headers(asked(), 5),
            Answered(stream=5),
            headers(asked(), 7), Answered(stream=7), headers(asked(), 5)),
       gone("an even number above", PROTOCOL, headers(asked(b"/hold/g"), 5) + headers(asked(), 6)),
       answered("numbers are skipped", headers(asked(), 1001), stream=1001),
       answered("a skipped number is closed, not idle", headers(asked(), 5) + window_update(3, 1) + rst(3),
                stream=5),
       answered("the largest number", headers(asked(), MAX), stream=MAX, fresh=None))

clause("9113 5.3.2", "priority signals of RFC 7540 are ignored, but not a dependency on itself (7540 5.3.1)",
       broken("HEADERS that depend on themselves", PROTOCOL, headers(asked(), priority=priority_fields(1))),
       broken("PRIORITY that depends on itself", PROTOCOL, HELD + priority(1, 1)),
       answered("a dependency that is exclusive and unknown",
                headers(asked(), priority=priority_fields(99, 7, True))))

clause("9113 5.4.2", "RST_STREAM is not answered by RST_STREAM",
       unharmed("on an open stream", OPEN + data(b"abc", end=False) + rst(code=E.PROTOCOL_ERROR), stream=1),
       unharmed("on a stream that waits", HELD + rst(code=E.INTERNAL_ERROR), stream=1))

clause("9113 6.9.1", "windows are kept to, and cannot pass 2^31-1",
       gone("the connection's passes 2^31-1", FLOW, window_update(0, MAX)),
       gone("the connection's passes 2^31-1 in steps", FLOW,
            window_update(0, MAX - 65535) + window_update(0, 1)),
       broken("a stream's passes 2^31-1", FLOW, HELD + window_update(1, MAX)),
       broken("a stream's passes 2^31-1 in steps", FLOW, HELD + window_update(1, MAX - 65535)
              + window_update(1, 1)),
       answered("the connection's is just 2^31-1", window_update(0, MAX - 65535) + GET),
       answered("a stream's is just 2^31-1", OPEN + window_update(1, MAX - 65535) + data(b"x")),
       case("no content without a window", GET, Takes(0), window_update(0, 1000), Takes(0),
            window_update(1, 9),
            Answered(body=b"OK"), values=SHUT),
       case("one byte for a window of one", GET, Takes(1), window_update(1, 1), Answered(),
            values={S.INITIAL_WINDOW_SIZE: 1}),
       case("an empty answer needs none", headers(asked(method=b"HEAD")), Answered(body=b""), values=SHUT),
       case("the connection's window counts for all", headers(asked(b"/big")), Takes(65535),
            window_update(1, 1 << 20), Takes(0), window_update(0, 10), Takes(10), window_update(0, 1 << 20),
            Answered(), values={S.INITIAL_WINDOW_SIZE: 65535}),
       case("another stream's head passes a full window", headers(asked(b"/big")), Takes(65535),
            headers(asked(method=b"HEAD"), 3), Answered(stream=3), window_update(0, 1 << 20)
            + window_update(1, 1 << 20),
            Answered(), values={S.INITIAL_WINDOW_SIZE: 65535}))

clause("9113 6.9.2", "INITIAL_WINDOW_SIZE changes the windows of streams that are there",
       case("raised", GET, Takes(0), settings({S.INITIAL_WINDOW_SIZE: 1}), Takes(1),
            settings({S.INITIAL_WINDOW_SIZE: 1000}), Answered(), values=SHUT),
       case("negative until it is made up for", headers(asked(b"/big")), Takes(100),
            settings({S.INITIAL_WINDOW_SIZE: 50}), Takes(0), window_update(1, 50), Takes(0),
            window_update(1, 3), Takes(3),
            rst(), Unharmed(1), values={S.INITIAL_WINDOW_SIZE: 100}),
       case("the last of two values counts",
            settings([(S.INITIAL_WINDOW_SIZE, 100), (S.INITIAL_WINDOW_SIZE, 1)]) + GET,
            Takes(1), window_update(1, 9), Answered()),
       case("it does not touch the connection's", settings(SHUT) + settings({S.INITIAL_WINDOW_SIZE: 1 << 20})
            + headers(asked(b"/big")), Takes(65535), window_update(0, 1 << 20), Answered()),
       gone("a stream's passes 2^31-1 by it", FLOW, HELD + window_update(1, MAX - 65535),
            settings({S.INITIAL_WINDOW_SIZE: 65536})),
       answered("small ones", settings({S.INITIAL_WINDOW_SIZE: 1}) + settings({S.INITIAL_WINDOW_SIZE: MAX})
                + GET))

clause("9113 6.9.3", "a window that is used up does not stop what needs none",
       case("PING", GET, Takes(0), ping(b"zero win"), Sees(T.PING, payload=b"zero win", ack=True),
            values=SHUT),
       case("SETTINGS", GET, Takes(0), settings(), Acks(1), values=SHUT))

clause("9218 7.1", "PRIORITY_UPDATE",
       answered("for an idle stream", priority_update(1, b"u=0, i") + GET),
       answered("for an open stream", OPEN + priority_update(1, b"u=7") + data(b"x")),
       unharmed("for a closed stream", *DONE, priority_update(1, b"u=1"), stream=1),
       answered("malformed values are ignored", priority_update(1, b"u=9,,;")
                + priority_update(1, b"\xff\0") + GET),
       answered("no value", priority_update(1, b"") + GET),
       gone("on a stream", PROTOCOL, priority_update(1, stream=1)),
       gone("of stream 0", PROTOCOL, priority_update(0)),
       gone("3 bytes", SIZE, frame(T.PRIORITY_UPDATE, 0, 0, b"\0\0\0")),
       gone("of a push that is idle", PROTOCOL, priority_update(2)))

clause("9218 5", "the Priority field is a hint",
       answered("read", headers(asked(b"/fixed", (b"priority", b"u=0, i")))),
       answered("malformed", headers(asked(b"/fixed", (b"priority", b"u=x; ,,\"")))),
       answered("twice", headers(asked(b"/fixed", (b"priority", b"u=1"), (b"priority", b"i")))))

clause("9218 2.1", "SETTINGS_NO_RFC7540_PRIORITIES is 0 or 1",
       gone("2", PROTOCOL, settings({S.NO_RFC7540_PRIORITIES: 2})),
       answered("1", GET, values={S.NO_RFC7540_PRIORITIES: 1}))

clause("8441 3", "SETTINGS_ENABLE_CONNECT_PROTOCOL of a client says nothing",
       answered("1", settings({S.ENABLE_CONNECT_PROTOCOL: 1}) + GET))
