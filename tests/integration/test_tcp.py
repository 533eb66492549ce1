"""The section tcp: connections that are passed on as they are, by listener or by the name of a ClientHello."""
import hashlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import proxyprotocol as pp
import pytest
import tlswire
from acceptor import Acceptor, each_in_a_thread
from gate import Gate, free_port, refused
from h2wire import tls_context
from waiting import await_that, in_time

CONFIG = """
server: {workers: 1, drain_timeout: 1s, listen: "127.0.0.1:$PORT", access_log: json}
proxy:
  upstreams:
    db: {servers: ["127.0.0.1:%(dead)d", "127.0.0.1:%(db)d"]}
    dead: {servers: ["127.0.0.1:%(dead)d"]}
    told: {servers: ["127.0.0.1:%(told)d"], proxy_protocol: v2}
tcp:
  - {listen: "127.0.0.1:$PORT2", to: db}
  - {listen: "127.0.0.1:$PORT3", to: dead}
  - listen: [{address: "127.0.0.1:$PORT4", proxy_protocol: 127.0.0.1}]
    to: told
  - listen: "127.0.0.1:$PORT5"
    sni: {a.example: "127.0.0.1:%(one)d", "*.w.example": "127.0.0.1:%(two)d"}
  - listen: "127.0.0.1:$PORT6"
    sni: {a.example: "127.0.0.1:%(one)d"}
    default: "127.0.0.1:%(two)d"
  - {listen: "127.0.0.1:$PORT7", to: db, timeouts: {idle: 400ms}}
  - listen: "127.0.0.1:$PORT8"
    sni: {a.example: "127.0.0.1:%(one)d"}
    timeouts: {hello: 500ms}
  - {listen: "unix:tcp.sock", to: db}
routes:
  /: OK OK
"""
PLAIN, DEAD, TOLD, SNI, OTHERS, IDLE, HURRIED = 1, 2, 3, 4, 5, 6, 7
IDLE_S = 0.4  # as its configuration says


class Server:
    """Hands each connection to `serve`, on a thread."""

    def __init__(self, serve):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.serve = serve
        self.acceptor = Acceptor(self.listener, each_in_a_thread(self._one))

    def _one(self, s):
        try:
            with s:
                s.settimeout(30)
                self.serve(s)
        except OSError:
            pass


def echo(s):
    """What comes, until its end; then a word, and the end."""
    while data := s.recv(65536):
        s.sendall(data)
    s.sendall(b"bye")


def speaks_tls(leaf, word, alpn=("http/1.1", "h2")):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.chain, leaf.key)
    context.set_alpn_protocols(list(alpn))

    def serve(s):
        if s.recv(3, socket.MSG_PEEK) == b"hey":
            s.recv(3)
            s.sendall(word + b" in clear")
            return
        with context.wrap_socket(s, server_side=True) as tls:
            tls.sendall(word + b" " + (tls.selected_alpn_protocol() or "-").encode() + b" " + tls.recv(100))
    return serve


class Told:
    """Reads a PROXY header, then echoes."""

    def __init__(self):
        self.headers = []

    def __call__(self, s):
        data = b""
        while not (got := pp.read(data)):
            data += s.recv(65536)
        self.headers.append(got[0])
        s.sendall(got[1])
        echo(s)


@pytest.fixture(scope="module")
def servers(certs):
    leaves, told = certs.usual(), Told()
    return {"db": Server(echo), "one": Server(speaks_tls(leaves["a"], b"one")),
            "two": Server(speaks_tls(leaves["wild"], b"two")), "told": Server(told)}, told


@pytest.fixture(scope="module")
def gate(backend, servers, tmp_path_factory):
    ports = {name: server.port for name, server in servers[0].items()}
    with Gate(tmp_path_factory.mktemp("gate"), CONFIG % {**ports, "dead": free_port()}, backend, wait=False) as gate:
        deadline = time.monotonic() + 20
        while "tcp.sock" not in gate.stderr():
            assert gate.process.poll() is None and time.monotonic() < deadline, gate.stderr()
            time.sleep(0.02)
        gate.told = servers[1]
        yield gate
        gate.await_alone()


def everything(s):
    data = b""
    while more := s.recv(65536):
        data += more
    return data


def ends(s):
    """It is closed, in whatever way; what came before."""
    try:
        return everything(s)
    except ConnectionResetError:
        return b""


def descriptors(gate):
    return len(os.listdir(f"/proc/{gate.process.pid}/fd"))


def splices(gate):
    """It has pipes: they are kept for a second."""
    links = []
    for fd in Path(f"/proc/{gate.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            links.append(os.readlink(fd))
    return any(link.startswith("pipe:") for link in links)


def test_bytes_go_both_ways_and_ends_are_passed_on(gate):
    with gate.connect(port=gate.ports[PLAIN]) as s:
        for word in b"one", b"two":
            s.sendall(word)
            assert s.recv(10) == word
        s.shutdown(socket.SHUT_WR)
        assert everything(s) == b"bye", "the server went on after the client's end"


def test_over_a_unix_socket(gate):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(gate.folder / "tcp.sock"))
        s.sendall(b"hello")
        s.shutdown(socket.SHUT_WR)
        assert everything(s) == b"hellobye"


def test_much_both_ways_at_once(gate):
    """More than any buffer holds, from a client that reads late."""
    block, size = os.urandom(1 << 20), 100 << 20
    with gate.connect(60, port=gate.ports[PLAIN]) as s:
        def send():
            for _ in range(size // len(block)):
                s.sendall(block)
            s.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.5)
        digest, n, last, spliced = hashlib.sha256(), 0, b"", False
        while data := s.recv(1 << 20):
            n += len(data)
            last = (last + data)[-3:]
            digest.update(data)
            spliced = spliced or splices(gate)
        sender.join()
    assert spliced
    want = hashlib.sha256()
    for _ in range(size // len(block)):
        want.update(block)
    want.update(b"bye")
    assert (n, last, digest.digest()) == (size + 3, b"bye", want.digest())


def test_a_stalled_reader_stops_the_other_side(gate):
    """What nobody takes stays with its sender."""
    with gate.connect(port=gate.ports[PLAIN]) as s:
        s.settimeout(1)
        sent, block = 0, bytes(1 << 16)
        with pytest.raises(TimeoutError):
            while sent < 256 << 20:
                sent += s.send(block)
        assert sent < 64 << 20


def test_a_server_s_end_is_passed_on(backend, tmp_path):
    got = []

    def serve(s):
        s.sendall(b"hello")
        s.shutdown(socket.SHUT_WR)
        got.append(everything(s))
    server = Server(serve)
    config = f'server: {{listen: "127.0.0.1:$PORT"}}\ntcp: [{{listen: "127.0.0.1:$PORT2", to: "127.0.0.1:{server.port}"}}]\nroutes: {{/: OK}}\n'
    with Gate(tmp_path, config, backend) as gate:
        with gate.connect(port=gate.ports[1]) as s:
            assert everything(s) == b"hello"
            s.sendall(b"still here")
        await_that(lambda: b"still here" in got, timeout=10)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_is_passed_on(backend, tmp_path, who):
    seen, begun, linger = [], threading.Event(), b"\1\0\0\0\0\0\0\0"
    arrived = threading.Event()  # the part has, at the client

    def serve(s):
        s.recv(10)
        s.sendall(b"part")
        begun.set()
        if who == "server":
            arrived.wait(20)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return
        try:
            seen.append(everything(s))
        except ConnectionResetError:
            seen.append("reset")
    server = Server(serve)
    config = f'server: {{listen: "127.0.0.1:$PORT"}}\ntcp: [{{listen: "127.0.0.1:$PORT2", to: "127.0.0.1:{server.port}"}}]\nroutes: {{/: OK}}\n'
    with Gate(tmp_path, config, backend) as gate:
        s = gate.connect(port=gate.ports[1])
        s.sendall(b"x")
        assert s.recv(10) == b"part" and begun.wait(10)
        arrived.set()
        if who == "client":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            with pytest.raises(ConnectionResetError):
                everything(s)
        s.close()
        if who == "client":
            await_that(lambda: "reset" in seen, lambda: seen, 10)


@pytest.mark.parametrize("listen", ["127.0.0.1:", ":"])
def test_what_leads_to_itself_is_refused(backend, tmp_path, listen):
    """By a name, which no check sees; one connection is made once more and no further."""
    config = (f'server: {{listen: "127.0.0.1:$PORT", workers: 1, max_connections: 20}}\n'
              f'tcp: [{{listen: "{listen}$PORT2", to: "localhost:$PORT2"}}]\nroutes: {{/: OK}}\n')
    with Gate(tmp_path, config, backend) as gate:
        for _ in range(3):
            try:
                with gate.connect(port=gate.ports[1]) as s:
                    s.sendall(b"x")
                    assert ends(s) == b""
            except ConnectionResetError:
                pass
        assert gate.get("/").status == 200
        assert gate.logs("tcp: the server is a tcp listener of this process itself")


def test_a_listener_for_http_may_be_a_target(backend, tmp_path):
    config = ('server: {listen: "127.0.0.1:$PORT"}\ntcp: [{listen: ":$PORT2", to: "127.0.0.1:$PORT"}]\n'
              'routes: {/: OK}\n')
    with Gate(tmp_path, config, backend) as gate:
        assert gate.get("/", port=gate.ports[1]).status == 200


def test_no_server_is_the_end(gate):
    try:
        with gate.connect(port=gate.ports[DEAD]) as s:
            assert ends(s) == b""
    except ConnectionResetError:
        pass


def is_kept(s):
    """Whether it lives through more than its idle time by a word now and then; None: some word took so long itself."""
    said = time.monotonic()
    for _ in range(4):
        before, said = said, time.monotonic()
        with suppress(ConnectionError):
            s.sendall(b"x")
            if s.recv(1) == b"x":
                time.sleep(IDLE_S / 2)
                continue
        return None if time.monotonic() - before >= IDLE_S else False
    return True


def test_idle_connections_end(gate):
    kept, deadline = None, time.monotonic() + 20
    while kept is None and time.monotonic() < deadline:
        with gate.connect(port=gate.ports[IDLE]) as s:
            kept = is_kept(s)
            assert ends(s) == b""
    assert kept


@pytest.mark.parametrize("slow", ["client", "server"])
def test_a_slow_reader_is_not_idle(backend, tmp_path, slow):
    """All has been sent on, and it takes it bit by bit out of the kernel: for longer than the idle time. Once of some
    times is enough: reader and kernel (whose probes of a closed window come after 200 ms and more) may stand still."""
    size, got = 400_000, []

    def read_slowly(s):
        n = 0
        with suppress(OSError):
            while data := s.recv(16_000):
                n += len(data)
                time.sleep(0.05)
        return n

    def serve(s):
        if slow == "client":
            s.sendall(bytes(size))
        elif n := read_slowly(s):  # or the look whether all listens
            got.append(n)

    server = Server(serve)
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    config = f"""
server: {{workers: 1, listen: "127.0.0.1:$PORT"}}
tcp:
  - {{listen: "127.0.0.1:$PORT2", to: "127.0.0.1:{server.port}", timeouts: {{idle: 1s}}}}
routes:
  /: OK OK
"""
    def attempt(gate):
        with socket.socket() as s:
            s.settimeout(20)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", gate.ports[PLAIN]))
            if slow == "client":
                return read_slowly(s) == size
            before, deadline = len(got), time.monotonic() + 20
            with suppress(ConnectionError):
                s.sendall(bytes(size))
                s.shutdown(socket.SHUT_WR)
            while len(got) == before and time.monotonic() < deadline:
                time.sleep(0.02)
            return got[-1:] == [size]

    with Gate(tmp_path, config, backend) as gate:
        in_time(lambda _: attempt(gate), 5)


@pytest.mark.parametrize("header, source, destination", [
    (pp.v1("192.0.2.7", "192.0.2.1"), ("192.0.2.7", 1111), ("192.0.2.1", 2222)),
    (pp.v2("2001:db8::7", "2001:db8::1"), ("2001:db8::7", 1111), ("2001:db8::1", 2222))])
def test_headers_are_handed_on(gate, header, source, destination):
    gate.told.headers.clear()
    with gate.connect(port=gate.ports[TOLD]) as s:
        s.sendall(header + b"at once")
        assert s.recv(10) == b"at once"
        s.shutdown(socket.SHUT_WR)
        assert everything(s) == b"bye"
    [h] = gate.told.headers
    assert (h.source, h.destination) == (source, destination)


def test_without_its_header_it_ends(gate):
    with gate.connect(port=gate.ports[TOLD]) as s:
        s.sendall(b"SELECT 1")
        assert ends(s) == b""


# ---- names ----

def ask(port, name, alpn=("h2",), dribble=False):
    context = tls_context(alpn=alpn)
    with socket.create_connection(("127.0.0.1", port), 10) as raw:
        if not dribble:
            with context.wrap_socket(raw, server_hostname=name) as s:
                s.sendall(b"ping")
                return s.recv(100)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        for byte in outgoing.read():
            raw.sendall(bytes([byte]))
        assert raw.recv(5)[:3] == b"\x16\x03\x03", "a ServerHello"
        return None


@pytest.mark.parametrize("name, want", [("a.example", b"one"), ("A.EXAMPLE", b"one"), ("x.w.example", b"two"),
                                        ("x.y.w.example", b"two")])
@pytest.mark.parametrize("alpn", [("h2",), ("http/1.1",), ()])
def test_a_name_chooses(gate, name, want, alpn):
    said = ask(gate.ports[SNI], name, alpn).split()
    assert said == [want, (alpn or ("-",))[0].encode(), b"ping"]


def test_a_name_that_comes_byte_by_byte(gate):
    ask(gate.ports[OTHERS], "a.example", dribble=True)


@pytest.mark.parametrize("name", ["b.example", "w.example", "xa.example", "a.example.net", None])
def test_other_names_are_refused(gate, name):
    context = tls_context(alpn=())
    with gate.connect(port=gate.ports[SNI]) as raw:
        with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
            context.wrap_socket(raw, server_hostname=name)


@pytest.mark.parametrize("name", ["b.example", None])
def test_or_go_to_the_default(gate, name):
    assert ask(gate.ports[OTHERS], name).startswith(b"two")


def test_what_is_no_tls(gate):
    with gate.connect(port=gate.ports[OTHERS]) as s:
        s.sendall(b"hey")
        assert everything(s) == b"two in clear"
    with gate.connect(port=gate.ports[SNI]) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in ends(s)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03"])
def test_a_hello_has_a_deadline(gate, sent):
    with gate.connect(port=gate.ports[HURRIED]) as s:
        s.sendall(sent)
        assert ends(s) == b""


def test_what_comes_before_a_name_is_bounded(gate):
    """A large ClientHello in records of a byte each takes more than is kept."""
    padding = b"\0\x15" + (15000).to_bytes(2, "big") + bytes(15000)
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + len(padding).to_bytes(2, "big") + padding
    message = b"\1" + len(body).to_bytes(3, "big") + body
    with gate.connect(port=gate.ports[OTHERS]) as s:
        try:
            s.sendall(b"".join(b"\x16\3\1\0\1" + bytes([byte]) for byte in message))
        except OSError:
            pass  # it has ended
        assert ends(s) == b""
    await_that(lambda: "a ClientHello in too many pieces" in gate.stderr(), gate.stderr, 10)


def test_openssl_s_client(gate, certs):
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gate.ports[SNI]}", "-servername",
                           "a.example", "-CAfile", str(certs.usual()["a"].ca), "-verify_return_error", "-quiet"],
                          input=b"ping\n", capture_output=True, timeout=20)
    assert b"one" in done.stdout, done


# ---- the whole ----

def test_the_log_tells(gate):
    with gate.connect(port=gate.ports[PLAIN]) as s:
        s.sendall(b"12345")
        s.shutdown(socket.SHUT_WR)
        everything(s)
    ask(gate.ports[SNI], "a.example")
    await_that(lambda: '"bytes_in":5,"bytes":8,' in gate.stderr() and '"name":"a.example"' in gate.stderr(),
               gate.stderr, 10)


def hello(name):
    """A ClientHello, in its record, that names `name`."""
    names = struct.pack(">HBH", len(name) + 3, 0, len(name)) + name
    extensions = struct.pack(">HH", 0, len(names)) + names
    body = (b"\x03\x03" + b"r" * 32 + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" +
            struct.pack(">H", len(extensions)) + extensions)
    return tlswire.record(b"\x01" + struct.pack(">I", len(body))[1:] + body)


@pytest.mark.parametrize("name", [b"\x01" * 255, b'"' * 255, b"\xc2\x9b" * 127, b"a" * 255],
                         ids=["controls", "quotes", "c1", "plain"])
def test_no_name_spoils_a_line_of_the_log(gate, name):
    def lines():  # those of other tests may still come
        every = [json.loads(line) for line in gate.stderr().split("\n")[:-1] if line.startswith('{"time":')]
        return [line for line in every if line["port"] == gate.ports[OTHERS]]

    before = len(lines())
    with gate.connect(port=gate.ports[OTHERS]) as s:
        s.sendall(hello(name))
        s.shutdown(socket.SHUT_WR)
        ends(s)
    await_that(lambda: len(lines()) > before, gate.stderr, 10)
    line = lines()[-1]
    assert line["protocol"] == "tcp"
    assert len(line["name"]) <= 512 and (line["name"].endswith("...") or line["name"].encode("latin-1") == name)


def test_no_descriptor_is_lost(gate):
    time.sleep(0.3)
    before = descriptors(gate)
    for _ in range(30):
        with gate.connect(port=gate.ports[PLAIN]) as a, gate.connect(port=gate.ports[SNI]) as b:
            a.sendall(b"x")
            a.recv(1)
            b.sendall(b"\x16\x03")
        try:
            gate.connect(port=gate.ports[DEAD]).close()
        except ConnectionResetError:
            pass  # it had ended before
    await_that(lambda: descriptors(gate) <= before, timeout=10)


@pytest.mark.parametrize("stays", [True, False])
def test_a_reload_cuts_nothing(backend, tmp_path, stays):
    server, port = Server(echo), free_port()
    config = 'server: {listen: "127.0.0.1:$PORT", drain_timeout: 500ms}\n%sroutes: {/: OK}\n'
    tcp = f'tcp: [{{listen: "127.0.0.1:{port}", to: "127.0.0.1:%d"}}]\n'
    with Gate(tmp_path, config % (tcp % server.port), backend, ports=[free_port(), port]) as gate:
        with gate.connect(port=port) as s:
            s.sendall(b"a")
            assert s.recv(1) == b"a"
            other = Server(lambda s: s.sendall(b"new"))
            text = (config % (tcp % other.port if stays else "")).replace("$PORT", str(gate.port))
            (tmp_path / "anygate.yml").write_text(text)
            gate.process.send_signal(signal.SIGHUP)
            assert gate.logs("reloaded")
            time.sleep(1)  # longer than the old configuration is kept
            s.sendall(b"b")
            assert s.recv(1) == b"b"
            if stays:
                with gate.connect(port=port) as new:
                    assert everything(new) == b"new"
            else:
                await_that(lambda: refused(port), gate.stderr)
            s.shutdown(socket.SHUT_WR)
            assert everything(s) == b"bye"
        gate.await_alone()


def test_the_end_cuts_after_drain_timeout(backend, tmp_path):
    """A word gets through after the signal, unless the time was over before it was said: then the next one is longer."""
    server = Server(echo)
    config = ('server: {listen: "127.0.0.1:$PORT", drain_timeout: @}\n'
              f'tcp: [{{listen: "127.0.0.1:$PORT2", to: "127.0.0.1:{server.port}"}}]\nroutes: {{/: OK}}\n')
    for timeout in ("300ms", "3s", "10s"):
        gate, answer = Gate(tmp_path / timeout, config.replace("@", timeout), backend), b""
        with gate.connect(port=gate.ports[1]) as s:
            s.settimeout(30)
            s.sendall(b"a")
            assert s.recv(1) == b"a"
            gate.process.send_signal(signal.SIGTERM)
            with suppress(ConnectionError):
                s.sendall(b"b")
                answer = s.recv(1)
            assert ends(s) == b""
        gate.stop(expect=1)
        if answer:
            break
    assert answer == b"b"


# ---- what connections tell of servers

BREAKER = """
server: {workers: 1, listen: "127.0.0.1:$PORT"}
proxy:
  upstreams:
    db: {servers: ["127.0.0.1:%d", "127.0.0.1:%d"], breaker: {consecutive: %d, errors: 0%%, for: 100ms, trials: 1}}
tcp: [{listen: "127.0.0.1:$PORT2", to: db}]
routes: {/: OK OK}
"""


class Names:
    """Says its port to each that connects, and keeps the connection; may be away for a while."""

    def __init__(self, port):
        self.port, self.kept = port, []
        self.start()

    def start(self):
        self.acceptor = Acceptor(socket.create_server(("127.0.0.1", self.port), backlog=64), self._take)

    def stop(self):
        self.acceptor.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        for s in self.kept:
            s.close()

    def _take(self, s):
        self.kept.append(s)
        with suppress(ConnectionError):  # who only looked has left
            s.sendall(b"%05d" % self.port)


def connected(gate):
    """A connection, and the port that it has led to."""
    s = gate.connect(port=gate.ports[PLAIN])
    return s, int(s.recv(5))


def test_a_connection_that_comes_about_ends_a_row_of_errors(backend, tmp_path):
    ports = free_port(), free_port()
    a, b = map(Names, ports)  # there when it is looked at whether the gate listens
    with Gate(tmp_path, BREAKER % (*ports, 3), backend) as gate, a, b:
        for _ in range(4):
            b.stop()
            assert [connected(gate)[1] for _ in range(2)] == [a.port] * 2
            b.start()
            assert b.port in [connected(gate)[1] for _ in range(4)]
        assert "is left out" not in gate.stderr()


def test_a_trial_has_passed_once_it_is_connected(backend, tmp_path):
    ports = free_port(), free_port()
    a, b = map(Names, ports)  # there when it is looked at whether the gate listens
    with Gate(tmp_path, BREAKER % (*ports, 1), backend) as gate, a, b:
        b.stop()
        assert [connected(gate)[1] for _ in range(2)] == [a.port] * 2
        assert gate.logs("is left out")
        b.start()
        held, deadline = [], time.monotonic() + 20
        while b.port not in [port for _, port in held]:
            assert time.monotonic() < deadline
            held.append(connected(gate))
            time.sleep(0.01)
        assert gate.logs("takes requests again: trials passed")
        for s, _ in held:
            s.close()
