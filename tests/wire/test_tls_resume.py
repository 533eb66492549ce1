"""Sessions that are taken up again: by ticket and by id, on every shard and after a reload; and where they must
not be: other names, other listeners, where clients show certificates, when their keys are too old."""
import signal
import ssl
import subprocess
import time

import pytest
from gate import Gate
from h2wire import tls_context
from test_tls import V12, V13, filled
from tlswire import get, shake
from waiting import again

CONFIG = """
server:
  workers: 2
  listen:
    - {address: "127.0.0.1:$PORT", tls: true}
    - {address: "127.0.0.1:$PORT2", tls: {tickets: off, session_cache: 0}}
    - {address: "127.0.0.1:$PORT3", tls: {client_auth: {ca: "%(ca)s", mode: optional}}}
    - {address: "127.0.0.1:$PORT4", tls: {profile: fips-like}}
tls:
  certificates:
    - {cert: "%(a.chain)s", key: "%(a.key)s"}
    - {cert: "%(wild.chain)s", key: "%(wild.key)s"}
  tickets: {rotate: %(rotate)s, keep: 2}
routes:
  "/fixed": OK OK
  "/late": OK LATE
"""


def config(leaves, ca, rotate="12h"):
    return filled(CONFIG.replace("%(ca)s", str(ca)).replace("%(rotate)s", rotate), leaves)


@pytest.fixture(scope="module")
def leaves(certs):
    return certs.usual()


@pytest.fixture(scope="module")
def gate(backend, leaves, certs, tmp_path_factory):
    with Gate(tmp_path_factory.mktemp("gate"), config(leaves, certs.root), backend) as gate:
        yield gate


def context(version, tickets=True):
    c = tls_context(alpn=(), low=version, high=version)
    if not tickets:
        c.options |= ssl.OP_NO_TICKET
    return c


def begin(port, c, name="a.example"):
    """A session of a connection that has had an answer, behind which tickets of TLS 1.3 have come."""
    with shake(port, name, c) as s:
        assert get(s, host=name).status == 200
        return s.session


def resumed(port, c, session, name="a.example"):
    with shake(port, name, c, session) as s:
        assert get(s, host=name).status == 200
        return s.session_reused


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_tickets(gate, version):
    """On whichever shard: the kernel spreads the connections."""
    c = context(version)
    session = begin(gate.port, c)
    assert session.has_ticket
    assert all(resumed(gate.port, c, session) for _ in range(12))


def test_ids(gate):
    """TLS 1.2 without tickets."""
    c = context(V12, tickets=False)
    session = begin(gate.port, c)
    assert session.id and not session.has_ticket
    assert any(resumed(gate.port, c, session) for _ in range(12))


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_switched_off(gate, version):
    c = context(version)
    session = begin(gate.ports[1], c)
    assert session is None or not any(resumed(gate.ports[1], c, session) for _ in range(4))


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_another_name(gate, version):
    """CVE-2025-23419: a ticket is of the name that it was given under."""
    c = context(version)
    session = begin(gate.port, c)
    for name in "b.example", "x.w.example":  # of the same certificate, and of another one
        assert not any(resumed(gate.port, c, session, name) for _ in range(4))
    assert resumed(gate.port, c, session)


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("other", [1, 2, 3])
def test_another_listener(gate, version, other):
    c = context(version)
    session = begin(gate.port, c)
    assert not any(resumed(gate.ports[other], c, session) for _ in range(4))


@pytest.mark.parametrize("tickets", [True, False], ids=["tickets", "ids"])
@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_where_clients_are_asked_for_certificates(gate, certs, version, tickets):
    """Each connection shows its certificate anew."""
    me = certs.leaf("me", client=True, subject="/O=Org/CN=me")
    for cert in None, me:
        c = tls_context(alpn=(), low=version, high=version, cert=cert)
        if not tickets:
            c.options |= ssl.OP_NO_TICKET
        session = begin(gate.ports[2], c)
        assert session is None or not any(resumed(gate.ports[2], c, session) for _ in range(4))


def test_no_early_data(gate, tmp_path):
    """RFC 8470: no ticket allows any, so that no request can be played again from a recording."""
    ticket = tmp_path / "ticket"
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gate.port}", "-servername",
                           "a.example", "-tls1_3", "-ign_eof", "-sess_out", str(ticket)],
                          input=b"GET /fixed HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
                          capture_output=True, timeout=20)
    assert b"HTTP/1.1 " in done.stdout
    text = subprocess.run(["openssl", "sess_id", "-in", str(ticket), "-noout", "-text"],
                          capture_output=True, text=True, check=True).stdout
    assert "TLS session ticket:" in text and "Max Early Data: 0\n" in text


def test_after_a_reload(gate):
    c = context(V13)
    session = begin(gate.port, c)
    path = gate.folder / "anygate.yml"
    for text in "LATE", "LATER":
        path.write_text(path.read_text().replace("OK LATE", f"OK {text}"))
        gate.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while True:
            with shake(gate.port) as s:
                if get(s, "/late").body == text.encode():
                    break
            assert time.monotonic() < deadline, gate.stderr()
            time.sleep(0.02)
    assert all(resumed(gate.port, c, session) for _ in range(8))


def test_keys_grow_old(backend, leaves, certs, tmp_path):
    """Rotated each second, two kept: a ticket opens nothing some seconds later, and the handshake is a whole one."""
    with Gate(tmp_path / "gate", config(leaves, certs.root, "1s"), backend) as gate:
        c = context(V13)

        def young():
            session = begin(gate.port, c)
            assert resumed(gate.port, c, session)
            return session
        session = again(young)
        deadline = time.monotonic() + 20
        while resumed(gate.port, c, session):
            assert time.monotonic() < deadline, "it never grows old"
            time.sleep(0.2)


def test_a_restart_with_a_file_of_keys(backend, leaves, certs, tmp_path):
    text = config(leaves, certs.root).replace("keep: 2}", 'keep: 2, file: "%s"}' % (tmp_path / "keys"))
    c = context(V13)
    with Gate(tmp_path / "one", text, backend) as gate:
        session = begin(gate.port, c)
    with Gate(tmp_path / "two", text, backend) as gate:
        assert resumed(gate.port, c, session)
    mode = (tmp_path / "keys").stat().st_mode
    assert mode & 0o077 == 0, oct(mode)


def test_a_restart_without_one(backend, leaves, certs, tmp_path):
    c = context(V13)
    with Gate(tmp_path / "one", config(leaves, certs.root), backend) as gate:
        session = begin(gate.port, c)
    with Gate(tmp_path / "two", config(leaves, certs.root), backend) as gate:
        assert not resumed(gate.port, c, session)
