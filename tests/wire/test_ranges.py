"""Several ranges of a file, byte for byte (RFC 9110 sections 14 and 15.3.7.2): from memory and from the disk, in both
versions of HTTP, in the clear and over TLS."""
import email.utils
import os
import time
from email.parser import BytesParser

import h2wire
import pytest
from gate import Closed, Gate, Reader
from tlswire import shake

CONFIG = """
server:
  workers: 1
  listen: ["127.0.0.1:$PORT", {address: "127.0.0.1:$PORT2", tls: true}]
tls: {certificates: [{cert: "%s", key: "%s"}]}
routes:
  "/": ./www/
"""
SMALL = b"".join(i.to_bytes(2, "big") for i in range(1000))
LARGE = b"".join(i.to_bytes(4, "big") for i in range(1 << 20))
FILES = {"small.txt": (SMALL, "text/plain; charset=utf-8"), "large.bin": (LARGE, "application/octet-stream")}
WAYS = ["h1", "h1-tls", "h2", "h2-tls"]
EPOCH = 1700000000
# How many make one too many, each far from the others.
FAR = [f"{i * 100}-{i * 100}" for i in range(17)]


@pytest.fixture(scope="module")
def gate(backend, certs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranges")
    (folder / "www").mkdir()
    for name, (content, _) in FILES.items():
        (folder / "www" / name).write_bytes(content)
        os.utime(folder / "www" / name, (EPOCH, EPOCH))
    leaf = certs.leaf("a.example", ["a.example"])
    with Gate(folder, CONFIG % (leaf.chain, leaf.key), backend) as gate:
        yield gate


def fetch(gate, way, name, value, more=(), method="GET"):
    """(status, {field: value}, content)"""
    fields = [("range", value), *more]
    if way.startswith("h2"):
        with (h2wire.connect_tls(gate.ports[1]) if way == "h2-tls" else h2wire.connect(gate.port)) as client:
            r = client.get("/" + name, fields, method=method)
    else:
        with shake(gate.ports[1]) if way == "h1-tls" else gate.connect() as s:
            s.settimeout(30)
            s.sendall(request(name, value, more, method))
            reader = Reader(s)
            r = reader.response(method)
            # It goes on behind the last line.
            s.sendall(request("small.txt", "bytes=0-1"))
            assert reader.response().body == SMALL[:2]
    return r.status, {n.lower(): v for n, v in r.fields}, r.body


def request(name, value, more=(), method="GET"):
    lines = "".join(f"{n}: {v}\r\n" for n, v in [("Range", value), *more])
    return f"{method} /{name} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n".encode()


def boundary_of(fields):
    kind, _, boundary = fields["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges" and "content-range" not in fields
    assert len(boundary) == 16 and boundary.isalnum()
    return boundary


def parts_of(name, spans, boundary):
    """The content as it must be."""
    content, kind = FILES[name]
    out = b""
    for first, last in spans:
        out += (f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
                f"Content-Range: bytes {first}-{last}/{len(content)}\r\n\r\n").encode()
        out += content[first:last + 1]
    return out[2:] + f"\r\n--{boundary}--\r\n".encode()


SEVERAL = [
    ("0-1,500-501", [(0, 1), (500, 501)]),
    ("1000-1099, 0-0 ,,-5", [(1000, 1099), (0, 0), (-5, -1)]),  # in order of the request
    ("0-9,99999999-,300-309,-0", [(0, 9), (300, 309)]),  # who is not satisfiable is left out
    ("700-709,0-9,710-719,5-20", [(700, 719), (0, 20)]),  # who touches another is one with it
    (",".join(FAR[:16]), [(i * 100, i * 100) for i in range(16)]),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value, spans", SEVERAL, ids=["two", "order", "dropped", "touching", "sixteen"])
def test_several(gate, way, name, value, spans):
    size = len(FILES[name][0])
    spans = [(a % size, b % size) for a, b in spans]
    status, fields, body = fetch(gate, way, name, "bytes=" + value)
    assert status == 206 and body == parts_of(name, spans, boundary_of(fields))
    assert fields["content-length"] == str(len(body))
    assert fields["accept-ranges"] == "bytes" and fields["etag"] and fields["last-modified"]
    # And as somebody else reads it.
    message = BytesParser().parsebytes(f"Content-Type: {fields['content-type']}\r\n\r\n".encode() + body)
    assert [p["content-range"] for p in message.get_payload()] == [f"bytes {a}-{b}/{size}" for a, b in spans]


@pytest.mark.parametrize("way", WAYS)
def test_large_parts(gate, way):
    spans = [(3000000, 4000000), (5, 1500000), (2000000, 2700000)]
    value = ",".join(f"{a}-{b}" for a, b in spans)
    status, fields, body = fetch(gate, way, "large.bin", "bytes=" + value)
    assert status == 206 and body == parts_of("large.bin", spans, boundary_of(fields))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILES)
def test_one_that_is_left_is_plain(gate, way, name):
    content, kind = FILES[name]
    for value, first, last in [("0-1,3-4", 0, 4), ("0-1,2-3", 0, 3), ("5-9,0-4,2-6", 0, 9), ("0-0,80-80", 0, 80),
                               ("99999999-,7-8", 7, 8)]:
        status, fields, body = fetch(gate, way, name, "bytes=" + value)
        assert (status, fields["content-type"], body) == (206, kind, content[first:last + 1])
        assert fields["content-range"] == f"bytes {first}-{last}/{len(content)}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILES)
def test_too_many_or_too_much_is_the_whole(gate, way, name):
    for value in [",".join(FAR), ",".join(["0-"] * 2), "0-,-1", "0-1,500-400", "0-1,x"]:
        status, fields, body = fetch(gate, way, name, "bytes=" + value)
        assert status == 200 and body == FILES[name][0] and "content-range" not in fields


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILES)
def test_none_that_is_there(gate, way, name):
    status, fields, _ = fetch(gate, way, name, "bytes=99999999-,88888888-")
    assert (status, fields["content-range"]) == (416, f"bytes */{len(FILES[name][0])}")


@pytest.mark.parametrize("name", FILES)
def test_conditions(gate, name):
    date = email.utils.formatdate(EPOCH, usegmt=True)
    etag = fetch(gate, "h1", name, "bytes=0-0")[1]["etag"]
    several = "bytes=0-1,500-501"
    assert fetch(gate, "h1", name, several, [("If-Range", date)])[0] == 206
    assert fetch(gate, "h1", name, several, [("If-Range", etag)])[0] == (200 if etag.startswith("W/") else 206)
    assert fetch(gate, "h1", name, several, [("If-Range", '"other"')])[::2] == (200, FILES[name][0])
    assert fetch(gate, "h1", name, several, [("If-None-Match", etag)])[0] == 304
    status, fields, _ = fetch(gate, "h1", name, several, method="HEAD")  # ranges are for GET
    assert (status, fields["content-length"]) == (200, str(len(FILES[name][0])))


def test_boundaries_differ(gate):
    assert len({boundary_of(fetch(gate, "h1", "small.txt", "bytes=0-1,500-501")[1]) for _ in range(20)}) == 20


def test_pipelined(gate):
    values = [("small.txt", [(0, 1), (500, 501)]), ("large.bin", [(2000000, 3000000), (0, 1000000)])] * 3
    with gate.connect(timeout=30) as s:
        s.sendall(b"".join(request(n, "bytes=" + ",".join(f"{a}-{b}" for a, b in spans)) for n, spans in values))
        reader = Reader(s)
        for name, spans in values:
            r = reader.response()
            assert r.body == parts_of(name, spans, boundary_of({n.lower(): v for n, v in r.fields}))


def test_a_slow_reader(gate):
    spans = [(2000000, 4000000), (0, 0), (1000, 1900000)]
    with gate.small_window(request("large.bin", "bytes=" + ",".join(f"{a}-{b}" for a, b in spans))) as s:
        reader = Reader(s)
        while len(reader.buffer) < 100000:
            reader.more()
        time.sleep(0.3)  # the socket fills up meanwhile
        r = reader.response()
    assert r.body == parts_of("large.bin", spans, boundary_of({n.lower(): v for n, v in r.fields}))


LONG = "bytes=2000000-4000000,0-0,1000-1900000"


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_vanishes(gate, way):
    """What was held is given back: the end of the server tells."""
    for amount in (0, 1, 100000, 2100000):
        if way.startswith("h2"):
            with (h2wire.connect_tls(gate.ports[1]) if way == "h2-tls" else h2wire.connect(gate.port)) as client:
                stream = client.ask("/large.bin", [("range", LONG)])
                while amount and len(client.head(stream).body) < amount:
                    client.gather(client.frame())
                client.send(h2wire.rst(stream))
                assert client.get("/small.txt", [("range", "bytes=0-1")]).body == SMALL[:2]
                client.ask("/large.bin", [("range", LONG)])
        else:
            with shake(gate.ports[1]) if way == "h1-tls" else gate.connect() as s:
                s.settimeout(30)
                s.sendall(request("large.bin", LONG))
                Reader(s).exactly(amount)
    assert fetch(gate, way, "small.txt", "bytes=0-1")[2] == SMALL[:2]


def test_a_file_cut_meanwhile(gate):
    """A part must not be taken for the whole: the connection ends."""
    path = gate.folder / "www/cut.bin"
    path.write_bytes(LARGE * 4)
    with gate.small_window(request("cut.bin", "bytes=8000000-16000000,0-1000000")) as s:
        reader = Reader(s)
        reader.exactly(1000)
        os.truncate(path, 8200000)
        with pytest.raises((Closed, ConnectionResetError)):
            reader.exactly(8000000)
    assert gate.get("/small.txt").body == SMALL
