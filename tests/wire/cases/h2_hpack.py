"""RFC 7541: what a decoder must refuse, each a connection error of COMPRESSION_ERROR (RFC 9113 section 4.3), and
what it must get right for the sections that follow. The static table's last index is 61."""
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from .h2_frames import spread
from .h2_model import (Answered, E, S, Stopped, answered, asked, block, case, clause, gone, headers,
                       indexed, integer, literal, settings, string, table_size)

BAD = E.COMPRESSION_ERROR
CODED = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def coded(text, tail=b""):
    """A string, Huffman coded; `tail` is appended to the code."""
    code = CODED.encode(text) + tail
    return integer(len(code), 7, 0x80) + code


def raw_coded(code):
    return integer(len(code), 7, 0x80) + code


def get(*pieces, stream=1):
    """A request for /fixed with pieces of a section behind its fields."""
    return headers(asked() + b"".join(pieces), stream)


def first(*pieces, stream=1):
    """The same, but the pieces come first."""
    return headers(b"".join(pieces) + asked(), stream)


def bad(name, *pieces, **more):
    return gone(name, BAD, get(*pieces), **more)


def value(raw, name=b"x-a"):
    """A literal field whose value's string is given raw."""
    return b"\0" + string(name) + raw


def entries(count):
    """Fields to be added, of 95 bytes each as the table counts them."""
    return b"".join(literal(b"x-a", b"%060d" % i, form=0x40) for i in range(count))


ADD = literal(b"x-a", b"1", form=0x40)  # the newest entry, 62
# Method, scheme, path and authority in the table: 65 to 62.
REMEMBERED = asked(form=0x40)
RECALLED = indexed(65) + indexed(64) + indexed(63) + indexed(62)

clause("7541 2.3.3", "an index is of one of both tables",
       bad("0", b"\x80"),
       bad("62 of an empty table", indexed(62)),
       bad("63 behind one entry", ADD, indexed(63)),
       bad("a large one", indexed(1 << 20)),
       bad("a name at 62 of an empty table", literal(62, b"v")),
       bad("a name at 62, and what would be a field without it", literal(62, b"x"), string(b"y")),
       bad("a name at 62, to be added", literal(62, b"v", form=0x40)),
       bad("a name at 62, never to be indexed", literal(62, b"v", form=0x10)),
       answered("61", get(indexed(61))),
       answered("an entry of its own section", get(ADD, indexed(62))),
       answered("an entry of an earlier section", headers(REMEMBERED), Answered(), headers(RECALLED, 3),
                stream=3),
       answered("a name of an earlier section", get(ADD), Answered(), get(literal(62, b"2"), stream=3),
                stream=3))

clause("7541 3.2", "sections change the table in the order in which they come",
       answered("that of a malformed request counts", headers(REMEMBERED + block((b"X", b"1"))),
                Stopped((E.PROTOCOL_ERROR,)), headers(RECALLED, 3), stream=3),
       answered("that of an answered refusal counts", headers(asked(b"/" + b"a" * 9000)
                + literal(b"x-a", b"1", form=0x40)), Answered(414), get(indexed(62), stream=3), stream=3),
       answered("one that is too large counts to its end",
                spread(asked() + literal(b"x-b", b"b" * 16000) + literal(b"x-c", b"c" * 16800) + ADD, 16384),
                Answered(431),
                get(indexed(62), stream=3), stream=3),
       answered("trailers count", headers(asked(b"/in/p", method=b"POST"), end=False) + headers(ADD),
                Answered(),
                get(indexed(62), stream=3), stream=3))

clause("7541 4.1", "an entry's size is its name, its value and 32",
       bad("the oldest goes when 4096 are passed", entries(44), indexed(62 + 43)),
       answered("none goes within 4096", get(entries(43), indexed(62 + 42))))

clause("7541 4.2", "a change of the table's size stands at the beginning, and is within what we allow",
       gone("4097", BAD, first(table_size(4097))),
       gone("2^31", BAD, first(table_size(1 << 31))),
       gone("behind a field", BAD, get(table_size(4096))),
       gone("between fields", BAD, headers(asked()[:7] + table_size(100) + asked()[7:])),
       answered("4096", first(table_size(4096))),
       answered("two, the smaller first", first(table_size(0), table_size(4096))),
       gone("what it pushes out is gone", BAD, get(ADD), Answered(),
            first(table_size(0), table_size(4096), indexed(62),
                                                                           stream=3)),
       gone("what does not fit a small table is gone", BAD, get(ADD), Answered(),
            first(table_size(35), indexed(62), stream=3)),
       answered("what fits a small table stays", get(ADD), Answered(),
                headers(table_size(36) + asked() + indexed(62), 3),
                stream=3),
       answered("a table of nothing takes nothing", first(table_size(0), stream=1), Answered(),
                headers(REMEMBERED, 3), stream=3),
       answered("one in trailers", headers(asked(b"/in/p", method=b"POST"), end=False)
                + headers(table_size(0) + literal(b"x-t", b"1"))))

clause("7541 4.4", "an entry larger than the table empties it",
       bad("itself is not there", literal(b"x-a", b"a" * 4096, form=0x40), indexed(62)),
       bad("the others have gone", ADD, literal(b"x-a", b"a" * 4096, form=0x40), indexed(62)),
       answered("it is a field all the same", get(literal(b"x-a", b"a" * 4096, form=0x40))),
       answered("it may name an entry that it pushes out",
                get(literal(b"x-n", b"a" * 2000, form=0x40), literal(62, b"b" * 3000, form=0x40),
                    indexed(62))))

clause("7541 5.1", "integers are bounded",
       bad("no end", b"\xff" + b"\xff" * 20),
       bad("beyond 2^32", b"\xff\x80\x80\x80\x80\x80\x01"),
       bad("beyond 2^64", b"\xff" + b"\xff" * 9 + b"\x01"),
       bad("a length beyond 2^32", value(b"\x7f\x80\x80\x80\x80\x80\x01")),
       bad("many bytes that add nothing", b"\xff" + b"\x80" * 30 + b"\x00"),
       bad("cut short", b"\xff"),
       bad("cut short in the middle", b"\xff\x80"),
       gone("a table size without end", BAD, headers(b"\x3f" + b"\xff" * 12)),
       answered("the largest that one byte holds", get(indexed(61))),
       answered("a length in two bytes", get(literal(b"x-a", b"a" * 127))),
       answered("a length in three bytes", get(literal(b"x-a", b"a" * (127 + 128)))))

clause("7541 5.2", "strings end within the section, and Huffman codes end as they must",
       bad("a value longer than the section", value(b"\x0aabc")),
       bad("a value of 2^28 bytes", value(integer(1 << 28, 7) + b"abc")),
       bad("a name longer than the section", b"\0\x20x-a"),
       bad("no value", b"\0\3x-a"),
       bad("no name", b"\0"),
       bad("a coded value longer than the section", value(b"\x8aabc")),
       bad("EOS", value(raw_coded(b"\xff\xff\xff\xff"))),
       bad("EOS behind text", value(raw_coded(b"\x1f\xff\xff\xff\xff"))),
       bad("padding of 8 bits", value(coded(b"a" * 8, b"\xff"))),
       bad("padding of 16 bits", value(coded(b"a", b"\xff\xff"))),
       bad("padding of zeros", value(raw_coded(b"\x18"))),
       bad("padding that is not all ones", value(raw_coded(b"\x1d"))),
       bad("a code cut short", value(raw_coded(b"\xff\xff"))),
       bad("EOS in a name", b"\0" + raw_coded(b"\xff\xff\xff\xff") + b"\1v"),
       answered("an empty string, coded", get(value(b"\x80"))),
       answered("coded without padding", get(value(coded(b"a" * 8)))),
       answered("padding of 7 bits", get(value(coded(b"\"" * 5 + b"a" * 3)))),
       answered("a coded path", headers(asked(None) + b"\4" + coded(b"/fixed"))),
       answered("a coded name", get(b"\0" + coded(b"x-a") + coded(b"1"))),
       case("every byte, coded, is checked after decoding",
            headers(asked() + value(coded(bytes(range(256))))),
            Stopped((E.PROTOCOL_ERROR,))))

clause("7541 6", "each representation",
       answered("indexed", headers(indexed(2) + indexed(6) + literal(4, b"/fixed") + literal(1, b"x"))),
       answered("with indexing, indexed name",
                headers(indexed(2) + indexed(6) + literal(4, b"/fixed", form=0x40)
                                                       + literal(1, b"x", form=0x40))),
       answered("with indexing, new name", headers(asked(form=0x40))),
       answered("without indexing", headers(asked(form=0x00))),
       answered("never indexed", headers(asked(form=0x10))),
       gone("never indexed does not index", BAD, headers(asked(form=0x10)), Answered(),
            headers(indexed(62), 3)),
       gone("without indexing does not index", BAD, headers(asked()), Answered(), headers(indexed(62), 3)),
       answered("an indexed field that is none of the request's own", get(indexed(16))),
       bad("a representation cut short", b"\x40"))

clause("9113 6.5.2", "our HEADER_TABLE_SIZE binds the server's encoder, not its decoder",
       answered("0", settings({S.HEADER_TABLE_SIZE: 0}) + headers(REMEMBERED), Answered(),
                headers(RECALLED, 3), stream=3),
       answered("0, then 4096", settings({S.HEADER_TABLE_SIZE: 0}) + settings({S.HEADER_TABLE_SIZE: 4096})
                + headers(asked()), Answered(), headers(asked(), 3), stream=3))
