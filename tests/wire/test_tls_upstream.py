"""How connections to upstreams over TLS end: what is idle says so (close_notify), and waits for nobody."""
import socket
import ssl
import subprocess

import pytest
from acceptor import Acceptor, each_in_a_thread
from gate import Gate, free_port
from waiting import await_that

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy:
  tls: {ca: "%(ca)s", server_name: a.example}
  keepalive: {max_idle: %(max_idle)d, idle_timeout: %(idle)s}
routes:
  "/*": "%(scheme)s://127.0.0.1:%(port)d"
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
OP_IGNORE_UNEXPECTED_EOF = 1 << 7  # Python sets it; an end without close_notify is to be an error
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
H2_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
# HEADERS of stream 1, its last frame: ":status: 200".
H2_ANSWER = b"\0\0\1\1\5\0\0\0\1\x88"


def has_request(data, h2):
    """All of the head of one is there."""
    if not h2:
        return b"\r\n\r\n" in data
    at = len(PREFACE)
    while len(data) >= at + 9:
        size, kind = int.from_bytes(data[at:at + 3], "big"), data[at + 3]
        at += 9 + size
        if kind == 1:
            return len(data) >= at
    return False


class Origin:
    """Answers one request on each connection, and waits for what comes then: `ends` has True where it was told of the
    end. It closes nothing by itself."""

    def __init__(self, leaf, h2):
        self.h2, self.ends, self.open = h2, [], []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.options &= ~OP_IGNORE_UNEXPECTED_EOF
        self.context.load_cert_chain(leaf.chain, leaf.key)
        self.context.set_alpn_protocols(["h2" if h2 else "http/1.1"])
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self.listener.getsockname()[1]
        self.acceptor = Acceptor(self.listener, each_in_a_thread(self._serve))

    def _serve(self, s):
        tls = self.context.wrap_socket(s, server_side=True, suppress_ragged_eofs=False)
        self.open.append(tls)
        data = b""
        if self.h2:
            tls.sendall(H2_SETTINGS)
        while not has_request(data, self.h2):
            more = tls.recv(65536)
            if not more:
                return
            data += more
        tls.sendall(H2_ANSWER if self.h2 else ANSWER)
        try:
            while tls.recv(65536):
                pass
            self.ends.append(True)
        except OSError:
            self.ends.append(False)

    def until(self, count):
        await_that(lambda: len(self.ends) >= count, lambda: self.ends, 20)
        return self.ends

    def close(self):
        self.acceptor.close()
        for s in self.open:
            s.close()


@pytest.fixture(params=["https", "h2"])
def start(request, backend, certs, tmp_path):
    """A server before such an origin."""
    leaf = certs.usual()["a"]
    origin = Origin(leaf, request.param == "h2")

    def begin(idle="60s", max_idle=10):
        text = CONFIG % {"ca": leaf.ca, "idle": idle, "max_idle": max_idle, "port": origin.port,
                         "scheme": request.param}
        return origin, Gate(tmp_path, text, backend)

    yield begin
    origin.close()


def test_where_the_process_ends(start):
    origin, gate = start()
    with gate:
        assert gate.get("/").status == 200
    assert origin.until(1) == [True]


def test_after_a_while(start):
    origin, gate = start(idle="200ms")
    with gate:
        assert gate.get("/").status == 200
        assert origin.until(1) == [True]


def test_where_there_are_too_many(start):
    origin, gate = start(max_idle=0)  # of HTTP/1.1: the connection of each request is one too many
    with gate:
        for n in range(3):
            assert gate.get("/").status == 200
            assert origin.until(n + 1) == [True] * (n + 1)


def test_a_ticket_of_several_records(backend, certs, tmp_path):
    """A ticket has the client's certificate in it, and is larger than the server's records."""
    leaf, me = certs.usual()["a"], certs.leaf("me", client=True, subject="/O=Org/CN=me")
    port = free_port()
    server = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", leaf.chain, "-key",
                               leaf.key, "-Verify", "1", "-CAfile", me.ca, "-max_send_frag", "512", "-www"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while server.stdout.readline() != b"ACCEPT\n":
            assert server.poll() is None
        text = f"""
server: {{listen: ["127.0.0.1:$PORT"], workers: 1}}
proxy: {{tls: {{ca: "{leaf.ca}", server_name: a.example, cert: "{me.chain}", key: "{me.key}"}}}}
routes: {{"/*": "https://127.0.0.1:{port}"}}
"""
        with Gate(tmp_path, text, backend) as gate:
            first, second = gate.get("/"), gate.get("/")
        assert (first.status, second.status) == (200, 200)
        assert b"Reused, TLSv1.3" in second.body
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("more", ["tls: {handshake_timeout: 300ms}", "timeouts: {connect: 300ms}"],
                         ids=["handshake", "connect"])
def test_a_server_that_does_not_shake_hands(backend, tmp_path, more):
    """It was reached: the answer says that TLS was what took too long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = ('server: {listen: ["127.0.0.1:$PORT"], workers: 1}\nproxy: {%s}\nroutes: {"/*": "https://127.0.0.1:%d"}\n'
                  % (more, silent.getsockname()[1]))
        with Gate(tmp_path, config, backend) as gate:
            answer = gate.get("/")
            assert answer.status == 504 and b"TLS handshake with upstream: timeout" in answer.body, answer
