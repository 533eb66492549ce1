"""TLS from the client's side, for tests: by python's ssl, by hand where bytes are to be split or wrong, and by the
openssl command where python cannot say what is wanted."""
import socket
import ssl
import struct
import subprocess

from h2wire import DEADLINE_S, tls_context

ALERT, HANDSHAKE, DATA = 21, 22, 23
ALERTS = {0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow",
          40: "handshake_failure", 47: "illegal_parameter", 50: "decode_error", 70: "protocol_version",
          80: "internal_error", 100: "no_renegotiation", 112: "unrecognized_name",
          116: "certificate_required",
          120: "no_application_protocol"}


def tcp(port):
    s = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def shake(port, name="a.example", context=None, session=None, **more):
    """A connection after its handshake. `more` is tls_context's; without `alpn` none is offered."""
    more.setdefault("alpn", ())
    context = context or tls_context(**more)
    sock = tcp(port)
    try:
        return context.wrap_socket(sock, server_hostname=name, session=session, suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise


def refusal(port, name="a.example", **more):
    """The alert that a handshake ends in, by its name."""
    try:
        with shake(port, name, **more) as s:
            s.sendall(b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n")
            s.recv(1)
    except ssl.SSLError as e:
        return (e.reason or str(e)).lower()
    raise AssertionError("it was not refused")


def fingerprint(sock):
    """Of the server's certificate, as certs.Leaf.fingerprint."""
    import hashlib
    return hashlib.sha256(sock.getpeercert(True)).hexdigest()


def get(sock, path="/fixed", host="a.example", close=False, fields=""):
    """One request of HTTP/1.1 over it."""
    from gate import Reader
    end = "Connection: close\r\n" if close else ""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{end}{fields}\r\n".encode())
    return Reader(sock).response()


# ---- records by hand ----

def record(content, kind=HANDSHAKE, version=0x0301, length=None):
    return struct.pack(">BHH", kind, version, len(content) if length is None else length) + content


def records(data):
    """(kind, content) of each whole record."""
    out = []
    while len(data) >= 5:
        kind, _, size = struct.unpack(">BHH", data[:5])
        if len(data) < 5 + size:
            break
        out.append((kind, data[5:5 + size]))
        data = data[5 + size:]
    return out


class Engine:
    """A client's TLS over memory: what it wants sent is sent by the test, as it likes."""

    def __init__(self, name="a.example", **more):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        more.setdefault("alpn", ())
        self.tls = tls_context(**more).wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def step(self):
        """Goes on with the handshake: (what is to be sent, whether it is done)."""
        try:
            self.tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        return self.outgoing.read(), done

    def hello(self):
        """The ClientHello, in its record."""
        return self.step()[0]

    def finish(self, sock, send=None):
        """Shakes hands over `sock`, sending by `send`."""
        while True:
            data, done = self.step()
            if data:
                (send or sock.sendall)(data)
            if done:
                return
            got = sock.recv(65536)
            if not got:
                raise AssertionError("closed in the handshake")
            self.incoming.write(got)

    def ask(self, sock, request):
        """Sends a request; the first bytes of what comes back."""
        self.tls.write(request)
        sock.sendall(self.outgoing.read())
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                got = sock.recv(65536)
                if not got:
                    return b""
                self.incoming.write(got)


def answer_to(port, data, timeout=DEADLINE_S):
    """All that comes for raw bytes, until the server closes."""
    with tcp(port) as s:
        s.settimeout(timeout)
        out = b""
        try:
            s.sendall(data)
            while got := s.recv(65536):
                out += got
        except (ConnectionResetError, BrokenPipeError):
            pass
        return out


def alert_of(data):
    """The last alert in plain text, by its name; None when there is none."""
    alerts = [c for k, c in records(data) if k == ALERT and len(c) == 2]
    return ALERTS.get(alerts[-1][1], alerts[-1][1]) if alerts else None


# ---- the openssl command ----

def s_client(port, *args, send="GET /fixed HTTP/1.0\r\nHost: a.example\r\n\r\n", name="a.example",
             timeout=20):
    """openssl s_client; stdout and stderr together, and its exit code."""
    naming = ["-servername", name] if name else ["-noservername"]
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *naming, "-ign_eof",
                           *map(str, args)], input=send, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=timeout)
    return done.stdout, done.returncode
