"""Requests and answers that are buffered, in memory and then on disk: when the other side hears of them, that all of
it arrives and nothing else, the bounds, and that nothing is left of it."""
import hashlib
import os
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from gate import Gate, Reader, Upstream, ok, run, without_sanitizers
from test_master import Master
from test_reload import Reloading, resident
from waiting import await_that

ANSWER = os.urandom(1 << 20) * 50
REQUEST = os.urandom(3 << 20)
GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
TRAILERS = b"0\r\nX-Sum: 7\r\n\r\n"


def digest(data):
    return hashlib.sha256(data).hexdigest().encode()


def chunked(data, piece=100_000):
    return b"".join(b"%x\r\n%s\r\n" % (len(data[i:i + piece]), data[i:i + piece])
                    for i in range(0, len(data), piece))


class Server(Upstream):
    """Answers GET by ANSWER, and others by the digest of their content."""

    def __init__(self, fail=0):
        self.sent = threading.Event()  # all of an answer
        self.fail = fail               # so many requests are read, and then not answered
        super().__init__(lambda _index, _head: self._answer)

    def _answer(self, peer, head, rest):
        if head.startswith(b"GET /cut"):
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ANSWER), REQUEST))
            self.sent.set()
            return None
        if head.startswith(b"GET"):
            peer.send(ok(ANSWER))
            self.sent.set()
            return rest
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        while len(rest) < int(length[1]) if length else not rest.endswith(b"\r\n\r\n"):
            rest += peer.sock.recv(1 << 20)
        self.fail -= 1
        if self.fail >= 0:
            peer.reset()
            return None
        peer.send(ok(digest(rest)))
        return b""


def config(upstream, buffer="both", more="", proxy="", name=None):
    return ('server: {listen: ["127.0.0.1:$PORT"], workers: 1, access_log: json, '
            'limits: {max_body: 100m, write_timeout: 5m, min_read_rate: 0}}\n'
            f'proxy: {{buffer: {{folder: .}}{proxy}}}\n'
            'routes:\n'
            f'  "/*": {{action: "http://{name or f"127.0.0.1:{upstream.port}"}", buffer: {buffer}{more}}}\n')


def files(gate, pid=None):
    """The descriptors of files without a name that the process has."""
    folder = f"/proc/{pid or gate.process.pid}/fd"
    found = []
    for fd in os.listdir(folder):
        try:
            if re.search(r"/#\d+ \(deleted\)$", os.readlink(f"{folder}/{fd}")):
                found.append(f"{folder}/{fd}")
        except FileNotFoundError:
            pass
    return found


def sizes(gate):
    """Of those files; one may go while it is looked at."""
    found = []
    for file in files(gate):
        try:
            found.append(os.stat(file).st_size)
        except FileNotFoundError:
            pass
    return found


def await_files(gate, count, pid=None):
    await_that(lambda: len(files(gate, pid)) == count, lambda: files(gate, pid))


def reader(gate, request=GET % b""):
    """A client that asks and reads nothing, and for whom the system takes little."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
    s.settimeout(60)
    s.connect(("127.0.0.1", gate.port))
    s.sendall(request)
    return s


def send_what_is_taken(sock, data):
    """Whoever is refused may be answered, and cut off, before all of it is sent."""
    try:
        sock.sendall(data)
    except ConnectionError:
        pass


def read_answer(sock, most=len(ANSWER)):
    """The content of an answer, as far as it comes; and whether it broke off."""
    buffer = bytearray()
    while b"\r\n\r\n" not in buffer:
        data = sock.recv(65536)
        assert data, bytes(buffer)
        buffer += data
    head, _, body = bytes(buffer).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    body = bytearray(body)
    try:
        while len(body) < most:
            data = sock.recv(1 << 20)
            if not data:
                return bytes(body), True
            body += data
    except ConnectionResetError:
        return bytes(body), True
    return bytes(body), False


# ---- requests ----

UPLOADS = {
    # framing, content, what ends it; what the upstream is told, and what it gets
    "length": (b"Content-Length: %d" % len(REQUEST), REQUEST, b"", b"Content-Length: %d", REQUEST),
    "small": (b"Content-Length: 5", b"hello", b"", b"Content-Length: 5", b"hello"),
    "chunked": (b"Transfer-Encoding: chunked", chunked(REQUEST), b"0\r\n\r\n", b"Content-Length: %d", REQUEST),
    "chunks": (b"Transfer-Encoding: chunked", chunked(REQUEST[:9000], 10), b"0\r\n\r\n", b"Content-Length: %d",
               REQUEST[:9000]),
    "empty": (b"Transfer-Encoding: chunked", b"", b"0\r\n\r\n", b"Content-Length: 0", b""),
    "trailers": (b"Transfer-Encoding: chunked", chunked(REQUEST[:500]), TRAILERS, b"Transfer-Encoding: chunked",
                 b"1f4\r\n%s\r\n%s" % (REQUEST[:500], TRAILERS)),
}


@pytest.mark.parametrize("framing,content,end,told,want", UPLOADS.values(), ids=UPLOADS)
def test_a_request_is_whole_before_its_upstream_hears_of_it(backend, tmp_path, framing, content, end, told, want):
    with Server() as up, Gate(tmp_path, config(up, "request"), backend) as gate, gate.connect(60) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n%s\r\n\r\n" % framing)
        answers = Reader(s)
        assert answers.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue", "ours, for nobody else was asked"
        last = end or content[-1:]
        s.sendall(content if end else content[:-1])
        if len(want) > 1 << 20:
            await_files(gate, 1)
        assert up.received == []
        s.sendall(last)
        got = answers.response()
        assert (got.status, got.body) == (200, digest(want))
        head = up.requests[0]
        assert b"\r\n%s\r\n" % (told % len(want) if b"%d" in told else told) in head
        assert b"expect" not in head.lower()
        await_files(gate, 0)


@pytest.mark.parametrize("buffer,size,want", [
    ("{request: true, memory: 64k, disk: 256k}", 200 << 10, 200),
    ("{request: true, memory: 64k, disk: 256k}", 3 << 20, 413),
    ("{request: true, memory: 64k, disk: 0}", 10 << 10, 200),
    ("{request: true, memory: 64k, disk: 0}", 3 << 20, 413),
    ("{request: true, memory: 0}", 3 << 20, 200),
])
def test_what_is_too_large_to_be_kept(backend, tmp_path, buffer, size, want):
    with Server() as up, Gate(tmp_path, config(up, buffer), backend) as gate, gate.connect(60) as s:
        # In two parts: who is refused has been answered, and closed, before the second.
        send_what_is_taken(s, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                           + chunked(REQUEST[:size]))
        if want == 200:
            s.sendall(b"0\r\n\r\n")
        got = Reader(s).response()
        assert got.status == want
        assert len(up.requests) == (want == 200)
        await_files(gate, 0)


def test_a_request_is_sent_again_from_the_disk(backend, tmp_path):
    retry = ", retry: {attempts: 3, on: [reset], methods: all, backoff: 0}"
    with Server(fail=2) as up, Gate(tmp_path, config(up, "request", retry), backend) as gate:
        got = gate.get("/", f"Content-Length: {len(REQUEST)}\r\n", method="POST", body=REQUEST)
        assert (got.status, got.body) == (200, digest(REQUEST))
        assert len(up.requests) == 3
        await_files(gate, 0)


def test_a_request_in_memory_is_hedged_and_mirrored_as_ever(backend, tmp_path):
    seen = []

    def hear(_index, head):
        def answer(peer, _head, rest):
            while b"hello" not in rest:
                rest += peer.read(1)
            seen.append(head)
            return rest

        return answer

    more = ", hedge: {after: 20ms}, retry: all, mirror: \"http://127.0.0.1:%d\""
    with Server() as up, Upstream(hear) as mute:
        text = config(up, "request", more % mute.port)
        text = text.replace(f"http://127.0.0.1:{up.port}\"", f"http://127.0.0.1:{mute.port},127.0.0.1:{up.port}\"")
        with Gate(tmp_path, text, backend) as gate:
            for _ in range(2):  # one of them asks the mute server first
                got = gate.get("/", "Content-Length: 5\r\n", method="POST", body=b"hello")
                assert (got.status, got.body) == (200, digest(b"hello"))
            # Two copies, and the try that was hedged.
            await_that(lambda: len(seen) >= 3, lambda: seen)


def test_a_client_that_leaves_half_way_leaves_nothing(backend, tmp_path):
    with Server() as up, Gate(tmp_path, config(up), backend) as gate:
        upload, download = gate.connect(), reader(gate)
        upload.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + REQUEST)
        await_files(gate, 2)
        upload.close()
        download.close()
        await_files(gate, 0)
        assert len(up.requests) == 1, "of the upload the upstream has never heard"
        assert gate.get("/", "Content-Length: 2\r\n", method="POST", body=b"ok").status == 200


# ---- answers ----

def test_an_upstream_is_done_while_its_answer_is_read_slowly(backend, tmp_path):
    one = ', upstreams: {up: {servers: ["127.0.0.1:%d"], max_connections: 1, pending_timeout: 60s}}'
    with Server() as up, Gate(tmp_path, config(up, name="up", proxy=one % up.port), backend,
                              binary=without_sanitizers()) as gate:
        assert gate.get("/", "Content-Length: 2\r\n", method="POST", body=b"ok").status == 200
        before = resident(gate.process.pid)
        with reader(gate) as s:
            # There is one connection, and it is free for the next one.
            with gate.connect(60) as next_one:
                next_one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok")
                assert Reader(next_one).response().status == 200
            assert len(up.received) == 1 and up.sent.is_set()
            assert len(files(gate)) == 1 and os.stat(files(gate)[0]).st_size > len(ANSWER) * 9 // 10
            assert resident(gate.process.pid) - before < 16 << 20
            assert read_answer(s) == (ANSWER, False)
            await_files(gate, 0)


@pytest.mark.parametrize("buffer", ["{response: true, disk: 1m}", "{response: true, disk: 1000001}",
                                    "{response: true, disk: 0}", "{response: true, disk: 1m, memory: 0}"])
def test_an_upstream_waits_when_disk_and_memory_are_full(backend, tmp_path, buffer):
    with Server() as up, Gate(tmp_path, config(up, buffer), backend) as gate, reader(gate) as s:
        want = 0 if "disk: 0" in buffer else 1
        await_files(gate, want)
        for file in files(gate):
            await_that(lambda: os.stat(file).st_size > 900_000, lambda: os.stat(file))
        assert not up.sent.is_set()
        # The file is a ring: all of it goes through.
        body, broken = bytearray(), False
        for at in range(1, 51):
            part, broken = read_more(s, body, at << 20)
            assert all(size <= 1 << 20 for size in sizes(gate))
        assert bytes(body) == ANSWER and not broken
        await_files(gate, 0)


def read_more(sock, body, until):
    """Reads content up to that size; the head is read first."""
    if not body:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
    while len(body) < until:
        data = sock.recv(min(1 << 20, until - len(body)))
        if not data:
            return body, True
        body += data
    return body, False


def test_an_answer_that_is_cut_short_is_cut_short(backend, tmp_path):
    with Server() as up, Gate(tmp_path, config(up), backend) as gate, reader(gate, GET % b"cut") as s:
        assert up.sent.wait(60)
        body, broken = read_answer(s)
        assert broken and body and REQUEST.startswith(body)
        await_files(gate, 0)


def test_what_is_not_buffered(backend, tmp_path):
    """Events arrive while their upstream still sends."""
    go_on = threading.Event()

    def script(_index, head):
        field = b"Content-Type: text/event-stream; a=b" if b"/events" in head else b"X-Accel-Buffering: no"

        def answer(peer, _head, _rest):
            peer.send(b"HTTP/1.1 200 OK\r\n%s\r\nTransfer-Encoding: chunked\r\n\r\n" % field)
            peer.send(chunked(REQUEST[:1 << 20]))
            assert go_on.wait(60)
            peer.send(chunked(ANSWER) + b"0\r\n\r\n")
            return b""

        return answer

    with Upstream(script) as up, Gate(tmp_path, config(up), backend) as gate:
        for path in (b"events", b"asked"):
            go_on.clear()
            with gate.connect(60) as s:
                s.sendall(GET % path)
                data = b""
                while len(data) < 1 << 20:
                    data += s.recv(1 << 20)
                go_on.set()
                assert files(gate) == []
                while not data.endswith(b"\r\n0\r\n\r\n"):
                    data = data[-100:] + s.recv(1 << 20)
                assert files(gate) == []


ANSWERS = [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"", []),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", []),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", b"", []),
    ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", []),
    ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n" + TRAILERS, b"ok",
     [("X-Sum", "7")]),
    ("GET", b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", b"busy", []),
]


def test_answers_of_all_kinds_pass(backend, tmp_path):
    rows = iter(ANSWERS)
    with Upstream(lambda _i, _h: next(rows)[1]) as up, Gate(tmp_path, config(up), backend) as gate, \
            gate.connect() as s:
        for method, answer, body, trailers in ANSWERS:
            s.sendall(b"%s / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n" % method.encode())
            got = Reader(s).response(method)
            assert f"HTTP/1.1 {got.status}".encode() in answer
            assert (got.body, got.trailers) == (body, trailers)
            assert len(got.interim) == (b"103" in answer)


# ---- both ways, by HTTP/2 and TLS ----

def test_http2_and_tls_on_both_sides(backend, tmp_path, certs):
    leaf = certs.leaf("buffer", ["localhost"])
    listen = f'{{address: "127.0.0.1:$PORT", tls: {{certificates: [{{cert: {leaf.chain}, key: {leaf.key}}}]}}}}'
    with Server() as up:
        back = (f'server: {{listen: [{listen}], limits: {{max_body: 100m}}, access_log: json}}\n'
                f'routes: {{"/*": "http://127.0.0.1:{up.port}"}}\n')
        with Gate(tmp_path / "back", back, backend) as behind:
            front = (f'server: {{listen: [{listen}], limits: {{max_body: 100m}}, access_log: json}}\n'
                     f'proxy: {{buffer: {{request: true, response: true, folder: .}}, tls: {{ca: {leaf.ca}}}}}\n'
                     f'routes: {{"/*": "https://localhost:{behind.port}"}}\n')
            with Gate(tmp_path / "front", front, backend) as gate:
                url = f"https://localhost:{gate.port}/"
                curl = ["curl", "-sS", "--http2", "--cacert", leaf.ca, "-w", "%{http_version}"]
                (tmp_path / "up").write_bytes(REQUEST)
                got = subprocess.run([*curl, "-T", tmp_path / "up", "-H", "Content-Length:", "-X", "POST", url],
                                     capture_output=True)
                assert got.stdout == digest(REQUEST) + b"2", got
                assert b"Content-Length: %d\r\n" % len(REQUEST) in up.requests[0]
                got = subprocess.run([*curl, "-o", tmp_path / "down", url],
                                     capture_output=True)
                assert got.stdout == b"2" and (tmp_path / "down").read_bytes() == ANSWER, got
                await_files(gate, 0)


# ---- the disk ----

def on_small_disk(folder, size):
    """A command that runs another where `folder` is a file system of its own, of that size."""
    folder.mkdir()
    return ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size={size} none {folder} && exec "$@"', "sh"]


def folder_config(upstream, folder, more=""):
    return config(upstream).replace("folder: .", f"folder: {folder}{more}")


FULL = {
    "tmpfs": ("", ["tmpfs"], {}),
    "rlimit": ("", ["prlimit", "--fsize=1000000"], {}),
    "total": (", total: 1m", [], {}),
    "no descriptor": ("", [], {"ANYGATE_FAULT": "openat2.make=EMFILE@2+1000000"}),
    "no space": ("", [], {"ANYGATE_FAULT": "pwritev=ENOSPC@3+1000000"}),
    "broken": ("", [], {"ANYGATE_FAULT": "pwritev=EIO@2+1000000"}),
}


@pytest.mark.parametrize("more,wrap,env", FULL.values(), ids=FULL)
def test_a_disk_that_takes_no_more(backend, tmp_path, more, wrap, env):
    """Requests are refused; answers are streamed, for their upstream waits."""
    folder = tmp_path / "disk"
    if wrap == ["tmpfs"]:
        if os.geteuid() != 0:
            pytest.skip("only root mounts")
        wrap = on_small_disk(folder, "1m")
    else:
        folder.mkdir()
    with Server() as up, Gate(tmp_path, folder_config(up, folder, more), backend, wrap=wrap, env=env) as gate:
        with gate.connect(60) as s:
            send_what_is_taken(s, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                               + chunked(REQUEST))
            assert Reader(s).response().status == 503
        assert up.requests == []
        await_files(gate, 0)
        with reader(gate) as s:
            assert read_answer(s) == (ANSWER, False)
        await_files(gate, 0)
        assert gate.get("/", "Content-Length: 2\r\n", method="POST", body=b"ok").status == 200


@pytest.mark.parametrize("fault", ["pwritev.short=EINTR@1+400", "pwritev=EINTR@1+5", "openat2.make=EINTR@2+3",
                                   "file.cold=EAGAIN@1+1000000", "preadv.short=EINTR@1+100"])
def test_interruptions_lose_nothing(backend, tmp_path, fault):
    with Server() as up, Gate(tmp_path, config(up), backend, env={"ANYGATE_FAULT": fault}) as gate:
        got = gate.get("/", f"Content-Length: {len(REQUEST)}\r\n", method="POST", body=REQUEST)
        assert (got.status, got.body) == (200, digest(REQUEST))
        with reader(gate) as s:
            assert up.sent.wait(60)
            assert read_answer(s) == (ANSWER, False)
        await_files(gate, 0)


def test_what_cannot_be_read_back_is_never_a_whole(backend, tmp_path):
    fault = {"ANYGATE_FAULT": "file.cold=EAGAIN@1+1000000,preadv=EIO@1+1000000"}
    with Server() as up, Gate(tmp_path, config(up), backend, env=fault) as gate:
        got = gate.get("/", f"Content-Length: {len(REQUEST)}\r\n", method="POST", body=REQUEST)
        assert got.status == 503
        with reader(gate) as s:
            body, broken = read_answer(s)
            assert broken and ANSWER.startswith(body)
        await_files(gate, 0)


def test_nothing_is_left_of_a_process_that_is_killed(backend, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    with Server() as up:
        gate = Gate(tmp_path, folder_config(up, folder), backend)
        try:
            with reader(gate):
                await_files(gate, 1)
                assert (os.stat(files(gate)[0]).st_mode & 0o7777, list(folder.iterdir())) == (0o600, [])
        finally:
            gate.process.kill()
            gate.process.wait()
        assert list(folder.iterdir()) == []


def test_a_stop_waits_for_a_slow_disk(backend, tmp_path):
    """A write that takes longer than all else that a shard's end waits for."""
    shim = tmp_path / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", shim, source], check=True)
    env = {"LD_PRELOAD": str(shim), "SLOW_DISK_MS": "4000"}
    with Server() as up:
        text = config(up).replace("workers: 1,", "workers: 1, drain_timeout: 100ms,")
        gate = Gate(tmp_path, text, backend, env=env, binary=without_sanitizers())
        with gate.connect(60) as s:
            s.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(REQUEST))
            s.sendall(REQUEST[:1 << 20])
            await_files(gate, 1)
            gate.stop(1)  # something was cut


# ---- configurations ----

def test_a_reload_leaves_what_is_buffered(backend, tmp_path):
    with Server() as up, Reloading(tmp_path, config(up), backend) as gate:
        with reader(gate) as s, gate.connect(60) as upload:
            upload.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(REQUEST))
            upload.sendall(REQUEST[:1 << 20])
            await_files(gate, 2)
            gate.reload(config(up, "off"))
            upload.sendall(REQUEST[1 << 20:])
            got = Reader(upload).response()
            assert (got.status, got.body) == (200, digest(REQUEST))
            assert read_answer(s) == (ANSWER, False)
        await_files(gate, 0)
        await_that(lambda: str(tmp_path) not in gate.descriptors(), gate.descriptors)


@pytest.mark.parametrize("jailed", [False, True])
def test_a_worker_without_rights_buffers(backend, tmp_path, jailed):
    if os.geteuid() != 0:
        pytest.skip("only root has rights to give up")
    folder, jail = tmp_path / "disk", tmp_path / "jail"
    folder.mkdir()
    jail.mkdir()
    folder.chmod(0o777)
    with Server() as up:
        text = folder_config(up, folder).replace("}\nproxy", ", SERVER}\nproxy", 1)
        with Master(tmp_path, text, backend, jail=jail if jailed else None) as gate:
            got = gate.get("/", f"Content-Length: {len(REQUEST)}\r\n", method="POST", body=REQUEST)
            assert (got.status, got.body) == (200, digest(REQUEST))
            with reader(gate) as s:
                await_files(gate, 1, gate.worker)
                assert up.sent.wait(60)
                assert read_answer(s) == (ANSWER, False)
            await_files(gate, 0, gate.worker)


def test_a_folder_of_roots_is_no_folder_of_a_worker(backend, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root has rights to give up")
    (tmp_path / "disk").mkdir(mode=0o755)
    with Server() as up:
        text = folder_config(up, tmp_path / "disk").replace("}\nproxy", ", SERVER}\nproxy", 1)
        gate = Master(tmp_path, text, backend, wait=False)
        gate.process.wait(30)
        assert "can make no file in the folder of proxy.buffer: Permission denied" in gate.stderr()
        gate.log.close()


@pytest.mark.parametrize("folder,why", [("nowhere", "No such file or directory"), ("anygate.yml", "Not a directory"),
                                        ("/proc", "its file system has no files without a name")])
def test_a_folder_that_takes_no_files(tmp_path, folder, why):
    (tmp_path / "anygate.yml").write_text(
        f'proxy:\n  buffer: {{request: true, folder: {folder}}}\nroutes: {{"/*": "http://127.0.0.1:1"}}\n')
    want = re.compile(rf"anygate.yml:2:35: error: no file to buffer in can be made in \S+: {why}")
    for command in ("check", "serve"):
        done = run(command, "-c", tmp_path / "anygate.yml")
        assert done.returncode == 1 and want.search(done.stderr), done


def test_check_shows_what_is_buffered(tmp_path):
    (tmp_path / "anygate.yml").write_text(
        'proxy:\n  buffer: {folder: ., total: 2g}\n  upstreams:\n    a: {servers: ["127.0.0.1:1"], buffer: request}\n'
        'routes:\n  "/a": http://a\n  "/b": {action: "http://a", buffer: {response: true, disk: 1m, memory: 32k}}\n')
    out = run("check", "-c", tmp_path / "anygate.yml").stdout
    assert "    requests buffered: 64k in memory, then 1048576k on disk\n" in out
    assert "    requests and answers buffered: 32k in memory, then 1024k on disk\n" in out
    assert f"buffers on disk\n  {tmp_path}, 2097152k in all\n" in out or "2097152k in all\n" in out
