"""What wire and integration tests share: a running anygate, raw clients, scripted upstreams."""
import functools
import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from acceptor import Acceptor
from ports import free_port
from tcptable import LISTEN, rows
from waiting import await_that

ROOT = Path(__file__).resolve().parent.parent
BINARY = os.path.abspath(os.environ.get("ANYGATE", str(ROOT / "build/anygate")))
BACKENDS = ["epoll", "io_uring"]
# What a broken program prints, whatever else it does.
BROKEN = re.compile(rb"AddressSanitizer|LeakSanitizer|runtime error:|broken invariant")


def run(*args, cwd=None, env=None, wrap=(), binary=None):
    """A command that ends by itself; its output as text, not coloured by this terminal."""
    done = subprocess.run([*wrap, binary or BINARY, *map(str, args)], cwd=cwd, timeout=30,
                          stdin=subprocess.DEVNULL, capture_output=True, errors="replace",
                          env={**os.environ, **(env or {})})
    assert not BROKEN.search(done.stderr.encode()), done.stderr
    return done


def built(goal):
    """The path of what make builds at build/gcc-MODE/..., under the lock that tools/test.sh takes for the same folder."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    folder = "/".join(goal.split("/")[:2])
    (ROOT / "build").mkdir(exist_ok=True)
    done = subprocess.run(["flock", f"{folder}.lock", "make", "-j2", f"MODE={folder.split('-')[1]}", "CC=gcc", goal],
                          cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return str(ROOT / goal)


@functools.cache
def without_sanitizers():
    """A server whose memory can be measured: BINARY when it is one, else a debug build."""
    if b"__asan_init" not in Path(BINARY).read_bytes():
        return BINARY
    return built("build/gcc-debug/anygate")


class Gate:
    """An anygate process. `config` may hold $PORT, $PORT2, ... : free ports, kept in .ports.

    ports   where it listens besides; wrap: a command that runs it; binary: another than BINARY
    cwd     instead of `folder`, which keeps config and log
    """

    def __init__(self, folder, config=None, backend="epoll", args=None, name="anygate.yml",
                 env=None, wait=True, ports=(), wrap=(), binary=None,
                 cwd=None):
        self.ports = list(ports)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        text = re.sub(r"\$PORT(\d?)", self._port, config or "")
        if config is not None:
            (self.folder / name).write_text(text)
        command = [*wrap, binary or BINARY, "serve"]
        command += ["-c", str(self.folder / name)] if config is not None else []
        command += [re.sub(r"\$PORT(\d?)", self._port, a) for a in args or []]
        self.log = open(self.folder / "stderr.log", "wb+")
        self.process = subprocess.Popen(
            command, cwd=cwd or self.folder, stdout=subprocess.DEVNULL, stderr=self.log,
            env={**os.environ, "ANYGATE_SERVER__BACKEND": backend, "NO_COLOR": "1",
                 "ASAN_OPTIONS": "detect_leaks=1", **(env or {})})
        if wait:
            self._await_ports()

    def _port(self, match):
        index = int(match.group(1) or 1) - 1
        while len(self.ports) <= index:
            self.ports.append(free_port())
        return str(self.ports[index])

    @property
    def port(self):
        return self.ports[0]

    def _await_ports(self):
        deadline = time.monotonic() + 20
        for port in self.ports:
            while True:
                if self.process.poll() is not None:
                    raise AssertionError(f"anygate ended: {self.stderr()}")
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, f"port {port}: {self.stderr()}"
                    time.sleep(0.02)

    def stderr(self):
        self.log.flush()
        return (self.folder / "stderr.log").read_text(errors="replace")

    def logs(self, text):
        """Whether it logs that; lines are written a little after what they tell of."""
        deadline = time.monotonic() + 10
        while text not in self.stderr():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def await_alone(self):
        """Until nobody is connected any more: a short drain_timeout would cut who has only just closed."""
        await_that(lambda: not any(row.here in self.ports and row.inode != "0" and row.state != LISTEN
                                   for row in rows("tcp", "tcp6")), self.stderr)

    def stop(self, expect=0):
        """Ends it in order and checks that it had nothing to complain of."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"anygate did not stop: {self.stderr()}")
        finally:
            self.log.close()
        text = (self.folder / "stderr.log").read_bytes()
        assert not BROKEN.search(text), text.decode(errors="replace")
        assert code == expect, f"exit {code}: {text.decode(errors='replace')}"

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.process.kill()
            self.process.wait()
            self.log.close()

    def connect(self, timeout=10, port=None):
        s = socket.create_connection(("127.0.0.1", port or self.port), timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def small_window(self, request, port=None):
        """A client that asks, and whose system takes little before it reads."""
        s = socket.socket()
        s.settimeout(30)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before it connects: the window begins so
        s.connect(("127.0.0.1", port or self.port))
        s.sendall(request)
        return s

    def ask(self, data, method="GET", port=None):
        """One request on a connection of its own; the final response."""
        with self.connect(port=port) as s:
            s.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
            return Reader(s).response(method)

    def get(self, path, headers="", host="x", method="GET", body=b"", port=None):
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
        return self.ask(head.encode("latin-1") + body, method, port)


@dataclass
class Response:
    status: int
    reason: str
    version: str
    fields: list  # (name, value) as received
    body: bytes = b""
    trailers: list = field(default_factory=list)
    interim: list = field(default_factory=list)  # 1xx before it

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        assert len(values) <= 1, f"{name} comes {len(values)} times"
        return values[0] if values else None


class Closed(Exception):
    """The connection ended where more was due."""


class Reader:
    """Reads responses from a socket by a strict reading of RFC 9112 of its own: CRLF only, exactly one
    framing, nothing left over unseen."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Closed(self.buffer)
        self.buffer += data

    def until(self, mark):
        while mark not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(mark, 1)
        return line

    def exactly(self, n):
        while len(self.buffer) < n:
            self.more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def fields(self):
        out = []
        while True:
            line = self.until(b"\r\n")
            assert b"\n" not in line and b"\r" not in line and b"\0" not in line, line
            if not line:
                return out
            name, value = line.split(b":", 1)
            assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name), line
            out.append((name.decode(), value.strip(b" \t").decode("latin-1")))

    def response(self, method="GET"):
        interim = []
        while True:
            line = self.until(b"\r\n").decode("latin-1")
            match = re.fullmatch(r"(HTTP/1\.[01]) (\d{3}) (.*)", line)
            assert match, line
            r = Response(int(match[2]), match[3], match[1], self.fields())
            if 100 <= r.status < 200 and r.status != 101:
                interim.append(r)
                continue
            r.interim = interim
            break
        lengths, codings = r.all("content-length"), r.all("transfer-encoding")
        assert len(lengths) + len(codings) <= 1, r.fields
        if method == "HEAD" or r.status in (101, 204, 304):
            assert not codings
        elif codings:
            assert codings == ["chunked"]
            while True:
                size = int(re.fullmatch(rb"[0-9a-fA-F]+", self.until(b"\r\n")).group(), 16)
                if size == 0:
                    break
                r.body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            r.trailers = self.fields()
        elif lengths:
            assert re.fullmatch(r"\d+", lengths[0])
            r.body = self.exactly(int(lengths[0]))
        else:
            try:
                while True:
                    self.more()
            except Closed:
                r.body, self.buffer = self.buffer, b""
        return r

    def at_end(self):
        """True when the peer has closed and left nothing unread."""
        try:
            self.more()
        except Closed:
            return self.buffer == b""
        except ConnectionResetError:
            return self.buffer == b""
        return False


def refused(port):
    """Nobody listens there. (One who stops just now resets who has half come in.)"""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionError:
        return True
    return False


def freeze(pid):
    """Stops a process; it has stopped, with all its threads, when this returns. SIGCONT lets it go on."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while any(stat.read_text().rpartition(")")[2].split()[0] != "T"
              for stat in Path(f"/proc/{pid}/task").glob("*/stat")):
        assert time.monotonic() < deadline, "it does not stop"
        time.sleep(0.001)


class Upstream:
    """A scripted upstream: records every byte, answers as `script(connection_index, head)` says.

    The script returns bytes to send, or a callable that is given the socket and the bytes read so far.
    sock     listens already, instead of host and port
    context  a server's ssl.SSLContext: it speaks TLS
    records  else `received` stays empty, for one that lives through gigabytes
    """

    def __init__(self, script, host="127.0.0.1", port=0, sock=None, context=None, records=True):
        self.script, self.context, self.records = script, context, records
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = sock or socket.create_server((host, port), family=family, backlog=512)
        self.port = self.sock.getsockname()[1]
        self.received = []  # bytes of each connection
        self.requests = []  # complete heads seen, in order
        self.lock = threading.Lock()
        self.open = []
        self.closing = False
        self.acceptor = Acceptor(self.sock, self._take)

    def _take(self, conn):
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            index = len(self.received)
            self.received.append(b"")
            self.open.append(conn)
        threading.Thread(target=self._serve, args=(conn, index), daemon=True).start()

    def _serve(self, conn, index):
        buffer = b""
        try:
            if self.context:
                conn = self.context.wrap_socket(conn, server_side=True)
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = conn.recv(65536)
                    if not data:
                        return
                    self._record(index, data)
                    buffer += data
                head, buffer = buffer.split(b"\r\n\r\n", 1)
                head += b"\r\n\r\n"
                with self.lock:
                    self.requests.append(head)
                answer = self.script(index, head)
                if callable(answer):
                    buffer = answer(Peer(self, conn, index), head, buffer)
                    if buffer is None:
                        return
                    continue
                buffer = self._skip_body(conn, index, head, buffer)
                conn.sendall(answer)
        except OSError:
            pass
        finally:
            conn.close()

    def _skip_body(self, conn, index, head, buffer):
        """Reads the request's content off; what follows it is given back."""
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length:
            end = re.compile(rb"(?s).{%s}" % length.group(1))
        elif re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            end = re.compile(rb"(?s)(.*\r\n)?0\r\n([^\r\n]+\r\n)*\r\n")
        else:
            return buffer
        while not (match := end.match(buffer)):
            data = conn.recv(65536)
            if not data:
                raise OSError("client left")
            self._record(index, data)
            buffer += data
        return buffer[match.end():]

    def _record(self, index, data):
        if self.records:
            with self.lock:
                self.received[index] += data

    def close(self):
        self.acceptor.close()
        for conn in self.open:
            try:
                conn.close()
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Peer:
    """One upstream connection in the hands of a script."""

    def __init__(self, upstream, sock, index):
        self.upstream, self.sock, self.index = upstream, sock, index

    def send(self, data):
        self.sock.sendall(data)

    def read(self, n):
        out = b""
        while len(out) < n:
            data = self.sock.recv(n - len(out))
            if not data:
                raise OSError("client left")
            self.upstream._record(self.index, data)
            out += data
        return out

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


def ok(body=b"OK", headers=b""):
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (headers, len(body), body)
