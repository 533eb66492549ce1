"""Static files: representations, conditionals, ranges, and files that change under the server."""
import email.utils
import hashlib
import os
import re
import subprocess
import time

import pytest
from gate import Closed, Gate, Reader

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}  # one cache
static: {root: ., types: {wasm: application/wasm, Odd: text/x-odd}}
routes:
  "/": "/www/"
  "/no-spa/":
    action: "/www/"
    spa: off
  "/dots/":
    action: "/www/"
    dotfiles: allow
  "/week/":
    action: "/www/"
    cache_control: "max-age=604800"
  "/bare/":
    action: "/www/"
    cache_control: "off"
  "/one": "/www/page.html"
  "/user/:id": "/www/users/:id"
  "/rest/*": "/www/sub/*"
"""
LARGE = 20 << 20
EPOCH = 1700000000  # of every file here, so that dates can be compared


def pattern(n):
    """Bytes of which no two stretches are alike."""
    return b"".join(i.to_bytes(4, "big") for i in range(n // 4))


def put(path, content, when=EPOCH):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (when, when))


@pytest.fixture(scope="module")
def setup(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    www = folder / "www"
    for name, content in {
            "index.html": b"<!doctype html>index", "page.html": b"<!doctype html>page",
            "ten.txt": b"0123456789", "empty.txt": b"", "app.4f1c2a9e.css": b"a{}",
            "index-DiwrgTd4.js": b"1", "report-20240131.js": b"2", "data.json": b"{}",
            "x.wasm": b"\0asm", "x.odd": b"odd", "noext": b"\1\2\3", ".env": b"SECRET",
            "sub/.git/config": b"SECRET", "sub/index.html": b"<!doctype html>sub",
            "sub/in.txt": b"in", "no-index/file.txt": b"f", "users/7": b"seven",
            ".well-known/security.txt": b"Contact", "sp ace/\u00e9 +.txt": b"encoded",
    }.items():
        put(www / name, content)
    put(www / "large.bin", pattern(LARGE))
    put(folder / "outside.txt", b"SECRET")
    (www / "out").symlink_to("../outside.txt")
    (www / "in-link.txt").symlink_to("ten.txt")
    with Gate(folder, CONFIG, backend) as gate:
        yield gate, www


def fetch(setup, path, headers="", method="GET"):
    return setup[0].get(path, headers, method=method)


# ---- what a file looks like

@pytest.mark.parametrize("path, kind", [
    ("/page.html", "text/html; charset=utf-8"),
    ("/ten.txt", "text/plain; charset=utf-8"),
    ("/app.4f1c2a9e.css", "text/css; charset=utf-8"),
    ("/index-DiwrgTd4.js", "text/javascript; charset=utf-8"),
    ("/data.json", "application/json"),
    ("/x.wasm", "application/wasm"),
    ("/x.odd", "text/x-odd"),
    ("/noext", "application/octet-stream"),
])
def test_types(setup, path, kind):
    assert fetch(setup, path).get("Content-Type") == kind


def test_a_small_file(setup):
    r = fetch(setup, "/ten.txt")
    assert (r.status, r.body) == (200, b"0123456789")
    assert re.fullmatch(r'"[0-9a-f]{32}"', r.get("ETag"))
    assert r.get("Last-Modified") == email.utils.formatdate(EPOCH, usegmt=True)
    assert r.get("Accept-Ranges") == "bytes"
    assert r.get("Date")


def test_an_empty_file(setup):
    r = fetch(setup, "/empty.txt")
    assert (r.status, r.body, r.get("Content-Length")) == (200, b"", "0")


def test_equal_content_has_equal_strong_tags(setup):
    assert fetch(setup, "/ten.txt").get("ETag") == fetch(setup, "/in-link.txt").get("ETag")
    assert fetch(setup, "/ten.txt").get("ETag") != fetch(setup, "/page.html").get("ETag")


def test_a_large_file_has_a_weak_tag(setup):
    r = fetch(setup, "/large.bin", method="HEAD")
    assert r.get("Content-Length") == str(LARGE)
    assert r.get("ETag").startswith('W/"')


def test_head_is_get_without_content(setup):
    def without_date(r):
        return [f for f in r.fields if f[0].lower() != "date"]
    for path in ("/ten.txt", "/large.bin", "/", "/sub/"):
        get, head = fetch(setup, path), fetch(setup, path, method="HEAD")
        assert head.status == 200 and head.body == b""
        assert without_date(head) == without_date(get)


@pytest.mark.parametrize("path, value", [
    ("/", "no-cache"),
    ("/sub/index.html", "no-cache"),
    ("/app.4f1c2a9e.css", "public, max-age=31536000, immutable"),
    ("/index-DiwrgTd4.js", "public, max-age=31536000, immutable"),
    ("/report-20240131.js", None),  # a date
    ("/ten.txt", None),
    ("/week/ten.txt", "max-age=604800"),
    ("/bare/app.4f1c2a9e.css", None),
])
def test_cache_control(setup, path, value):
    assert fetch(setup, path).get("Cache-Control") == value


def test_a_large_file_whole(setup):
    done = subprocess.run(["curl", "-sS", "--fail", f"http://127.0.0.1:{setup[0].port}/large.bin"],
                          capture_output=True, check=True)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(pattern(LARGE)).digest()


def test_a_large_file_to_a_slow_reader(setup):
    digest, size = hashlib.sha256(), 0
    with setup[0].connect() as s:
        s.sendall(b"GET /large.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        reader = Reader(s)
        reader.until(b"\r\n")
        reader.fields()
        while size < LARGE:
            part = reader.exactly(min(LARGE - size, 1 << 20))
            digest.update(part)
            size += len(part)
            if size == 1 << 20:
                time.sleep(0.3)  # the socket fills up meanwhile
        assert reader.at_end()
    assert digest.digest() == hashlib.sha256(pattern(LARGE)).digest()


# ---- which file

def test_parameters_choose_the_file(setup):
    assert fetch(setup, "/user/7").body == b"seven"
    assert fetch(setup, "/user/8").status == 404
    assert fetch(setup, "/rest/in.txt").body == b"in"
    assert fetch(setup, "/rest/gone.txt").status == 404
    assert fetch(setup, "/one").body == b"<!doctype html>page"


@pytest.mark.parametrize("path", ["/.env", "/sub/.git/config", "/%2eenv", "/user/.env",
                                  "/no-spa/.env"])
def test_dotfiles_are_hidden(setup, path):
    r = fetch(setup, path, "Accept: image/png\r\n")
    assert r.status == 404 and b"SECRET" not in r.body


def test_dotfiles_on_request(setup):
    assert fetch(setup, "/dots/.env").body == b"SECRET"
    assert fetch(setup, "/.well-known/security.txt").body == b"Contact"


def test_a_link_out_of_the_root_is_no_file(setup):
    r = fetch(setup, "/out", "Accept: image/png\r\n")
    assert r.status == 404 and b"SECRET" not in r.body
    assert fetch(setup, "/in-link.txt").body == b"0123456789"


def test_encoded_names(setup):
    assert fetch(setup, "/sp%20ace/%C3%A9%20+.txt").body == b"encoded"


@pytest.mark.parametrize("path, to", [("/sub", "/sub/"), ("/sub?a=1", "/sub/?a=1")])
def test_a_directory_without_its_slash(setup, path, to):
    r = fetch(setup, path)
    assert r.status in (301, 308)
    assert r.get("Location") == to


def test_directories(setup):
    assert fetch(setup, "/sub/").body == b"<!doctype html>sub"
    # No index, no listing; and a page is not what an image viewer asks for.
    assert fetch(setup, "/no-spa/no-index/", "Accept: image/png\r\n").status == 404
    assert fetch(setup, "/no-spa/gone", "Accept: text/html\r\n").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods(setup, method):
    r = fetch(setup, "/ten.txt", method=method)
    assert r.status == 405 and set(r.get("Allow").split(", ")) == {"GET", "HEAD", "OPTIONS"}


# ---- conditional requests (RFC 9110 section 13)

def date(offset=0):
    return email.utils.formatdate(EPOCH + offset, usegmt=True)


@pytest.fixture(scope="module")
def tag(setup):
    return fetch(setup, "/ten.txt").get("ETag")


@pytest.mark.parametrize("headers, status", [
    ("If-None-Match: TAG", 304),
    ("If-None-Match: W/TAG", 304),  # weak comparison
    ('If-None-Match: "other", TAG', 304),
    ("If-None-Match: *", 304),
    ('If-None-Match: "other"', 200),
    (f"If-Modified-Since: {date()}", 304),
    (f"If-Modified-Since: {date(60)}", 304),
    (f"If-Modified-Since: {date(-60)}", 200),
    ("If-Modified-Since: yesterday", 200),
    ("If-Match: TAG", 200),
    ("If-Match: *", 200),
    ('If-Match: "other"', 412),
    ("If-Match: W/TAG", 412),  # strong comparison
    (f"If-Unmodified-Since: {date()}", 200),
    (f"If-Unmodified-Since: {date(-60)}", 412),
    # Precedence: If-Match over If-Unmodified-Since, If-None-Match over If-Modified-Since.
    (f"If-Match: TAG\r\nIf-Unmodified-Since: {date(-60)}", 200),
    (f'If-None-Match: "other"\r\nIf-Modified-Since: {date()}', 200),
    (f"If-None-Match: TAG\r\nIf-Modified-Since: {date(-60)}", 304),
    ('If-Match: "other"\r\nIf-None-Match: TAG', 412),
])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(setup, tag, headers, status, method):
    r = fetch(setup, "/ten.txt", headers.replace("TAG", tag) + "\r\n", method=method)
    assert r.status == status
    if status == 304:
        assert r.get("ETag") == tag and r.get("Content-Type") is None
    if status == 200 and method == "GET":
        assert r.body == b"0123456789"


def test_a_304_leaves_the_connection_in_step(setup, tag):
    """Whatever followed its head would be taken for the next answer."""
    with setup[0].connect() as s:
        s.sendall((f"GET /ten.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n" * 3 +
                   "GET /page.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").encode())
        reader = Reader(s)
        assert [reader.response().status for _ in range(3)] == [304] * 3
        assert reader.response().body == b"<!doctype html>page"
        assert reader.at_end()


# ---- one range (RFC 9110 section 14); several: wire/test_ranges.py

@pytest.mark.parametrize("value, body, of", [
    ("bytes=0-0", b"0", "bytes 0-0/10"),
    ("bytes=0-3", b"0123", "bytes 0-3/10"),
    ("bytes=4-6", b"456", "bytes 4-6/10"),
    ("bytes=7-", b"789", "bytes 7-9/10"),
    ("bytes=-3", b"789", "bytes 7-9/10"),
    ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ("bytes=8-99", b"89", "bytes 8-9/10"),
])
def test_a_range(setup, value, body, of):
    r = fetch(setup, "/ten.txt", f"Range: {value}\r\n")
    assert (r.status, r.body, r.get("Content-Range")) == (206, body, of)


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_beyond_the_end(setup, value):
    r = fetch(setup, "/ten.txt", f"Range: {value}\r\n")
    assert (r.status, r.get("Content-Range")) == (416, "bytes */10")


@pytest.mark.parametrize("value", ["bytes=5-2", "bytes=x-", "bytes", "lines=0-1", "bytes=--1",
                                   "bytes=0x1-2"])
def test_a_range_that_is_none_is_ignored(setup, value):
    r = fetch(setup, "/ten.txt", f"Range: {value}\r\n")
    assert (r.status, r.body) == (200, b"0123456789")


@pytest.mark.parametrize("value, status", [
    ("TAG", 206),
    ('"other"', 200),
    ("W/TAG", 200),  # a weak tag cannot vouch for bytes
    (date(), 206),
    (date(60), 200),  # must be equal
    (date(-60), 200),
])
def test_if_range(setup, tag, value, status):
    r = fetch(setup, "/ten.txt", f"Range: bytes=0-3\r\nIf-Range: {value.replace('TAG', tag)}\r\n")
    assert (r.status, r.body) == (status, b"0123" if status == 206 else b"0123456789")


def test_a_range_of_a_large_file(setup):
    r = fetch(setup, "/large.bin", f"Range: bytes={LARGE - 300000}-{LARGE - 5}\r\n")
    assert r.status == 206
    assert r.body == pattern(LARGE)[LARGE - 300000:LARGE - 4]


def test_a_range_is_for_get_alone(setup):
    assert fetch(setup, "/ten.txt", "Range: bytes=0-3\r\n", method="HEAD").status == 200


# ---- one connection, many files

def test_pipelined(setup):
    paths = ["/ten.txt", "/large.bin", "/page.html", "/gone.txt", "/empty.txt", "/ten.txt"]
    with setup[0].connect(timeout=30) as s:
        s.sendall("".join(f"GET {p} HTTP/1.1\r\nHost: x\r\n\r\n" for p in paths).encode())
        reader = Reader(s)
        got = [reader.response() for _ in paths]
    assert [r.status for r in got] == [200, 200, 200, 404, 200, 200]
    assert [len(r.body) for r in got if r.status == 200] == [10, LARGE, 19, 0, 10]
    assert got[1].body == pattern(LARGE)


# ---- files that change

def test_a_file_replaced_between_requests(setup):
    gate, www = setup
    old, new = b"old content", b"new content, and longer"
    put(www / "change.txt", old)
    first = gate.get("/change.txt")
    assert first.body == old
    put(www / "change.tmp", new, EPOCH + 10)
    os.rename(www / "change.tmp", www / "change.txt")
    # It is looked at again at most once a second; until then the old one is whole and in step.
    for _ in range(100):
        r = gate.get("/change.txt")
        assert (r.body, r.get("ETag") == first.get("ETag")) in ((old, True), (new, False))
        if r.body == new:
            break
        time.sleep(0.05)
    assert r.body == new and r.get("Last-Modified") == date(10)
    os.unlink(www / "change.txt")
    for _ in range(100):
        r = gate.get("/change.txt")
        if r.status == 404:
            break
        assert r.body == new
        time.sleep(0.05)
    assert r.status == 404


def begun(gate, path):
    """A connection on which the head and a first part were read, the rest being under way."""
    s = gate.connect(timeout=30)
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    reader = Reader(s)
    assert b" 200 " in reader.until(b"\r\n")
    reader.fields()
    return s, reader, reader.exactly(65536)


def test_a_file_replaced_while_it_is_served(setup):
    gate, www = setup
    put(www / "replaced.bin", pattern(LARGE))
    s, reader, first = begun(gate, "/replaced.bin")
    put(www / "replaced.tmp", bytes(LARGE), EPOCH + 10)
    os.rename(www / "replaced.tmp", www / "replaced.bin")
    with s:
        assert first + reader.exactly(LARGE - len(first)) == pattern(LARGE)


def test_a_file_cut_while_it_is_served(setup):
    gate, www = setup
    put(www / "cut.bin", pattern(LARGE))
    s, reader, first = begun(gate, "/cut.bin")
    os.truncate(www / "cut.bin", 65536)
    with s:
        # What was promised cannot be sent: the connection must end, not hang or be padded.
        with pytest.raises((Closed, ConnectionResetError)):
            reader.exactly(LARGE - len(first))
    assert gate.get("/ten.txt").body == b"0123456789"


def test_a_small_file_cut_between_requests(setup):
    gate, www = setup
    put(www / "small.bin", pattern(200000))
    assert gate.get("/small.bin").body == pattern(200000)
    put(www / "small.bin", b"", EPOCH + 10)
    for _ in range(100):
        r = gate.get("/small.bin")
        if r.body == b"":
            break
        assert r.body == pattern(200000)
        time.sleep(0.05)
    assert (r.status, r.body) == (200, b"")
