"""Certificates of clients (required, optional, by route), those of the server as they change while it runs, and
what is stapled to them."""
import contextlib
import shutil
import signal
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h2wire
import pytest
from gate import Gate, free_port, run
from h2wire import tls_context
from tlswire import fingerprint, get, s_client, shake
from waiting import await_listener, await_that

MTLS = """
server:
  workers: 1
  listen:
    - {address: "127.0.0.1:$PORT", tls: {client_auth: {ca: "%(ca)s", mode: required, depth: 2}}}
    - {address: "127.0.0.1:$PORT2", tls: {client_auth: {ca: "%(ca)s", mode: optional}}}
    - {address: "127.0.0.1:$PORT3", tls: {client_auth: {ca: "%(ca)s", mode: routes}}}
    - "127.0.0.1:$PORT4"
tls:
  certificates: [{cert: "%(cert)s", key: "%(key)s"}]
plugins:
  who:
    headers:
      request:
        set: {X-Subject: "{tls.client.subject}", X-Print: "{tls.client.fingerprint}", X-Verified: "{tls.client.verified}",
              X-Name: "{tls.server_name}", X-Version: "{tls.version}"}
routes:
  "/fixed": OK OK
  "/who": {action: "*", filters: [who]}
  "secure.example/*": {action: "OK SECURE", client_cert: required}
  "open.example/*": OK OPEN
  "mixed.example/open": OK OPEN
  "mixed.example/secure": {action: "OK SECURE", client_cert: required}
"""


@pytest.fixture(scope="module")
def people(certs):
    return {"me": certs.leaf("me", client=True, subject="/O=Org/CN=me"),
            "stranger": certs.leaf("stranger", client=True, ca="other-ca", subject="/CN=stranger"),
            "late": certs.leaf("late", client=True, subject="/CN=late", days=(-30, -1)),
            "early": certs.leaf("early", client=True, subject="/CN=early", days=(5, 30)),
            "server": certs.leaf("not-a-client", ["x.example"])}


@pytest.fixture(scope="module")
def gate(backend, certs, tmp_path_factory):
    server = certs.leaf("mtls", ["a.example", "secure.example", "open.example", "mixed.example"])
    text = MTLS % {"ca": certs.root, "cert": server.chain, "key": server.key}
    with Gate(tmp_path_factory.mktemp("gate"), text, backend) as gate:
        yield gate


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3],
                                   ids=["1.2", "1.3"])


def status(port, cert, path="/fixed", name="a.example", host=None, **more):
    with shake(port, name, cert=cert, **more) as s:
        return get(s, path, host=host or name).status


@VERSIONS
def test_required(gate, people, version):
    """A bad certificate, or none, is answered by 403: the handshake tells a browser's user nothing."""
    assert status(gate.port, people["me"], low=version, high=version) == 200
    for name in (None, "stranger", "late", "early", "server"):
        assert status(gate.port, people.get(name), low=version, high=version) == 403, name


@VERSIONS
def test_optional(gate, people, version):
    assert status(gate.ports[1], people["me"], low=version, high=version) == 200
    assert status(gate.ports[1], None, low=version, high=version) == 200
    for path in "/fixed", "/who":
        with shake(gate.ports[1], cert=people["stranger"], low=version, high=version) as s:
            r = get(s, path)
            assert r.status in (200, 403)
            assert b'"valid"' not in r.body


def test_subject_and_fingerprint(gate, people):
    with shake(gate.port, cert=people["me"]) as s:
        body = get(s, "/who", fields="X-Subject: CN=forged\r\nX-Verified: valid\r\n").body.decode()
    assert people["me"].fingerprint() in body and "forged" not in body
    assert "CN=me" in body and "O=Org" in body and '"valid"' in body and "a.example" in body and "TLSv1.3" in body
    with shake(gate.ports[1]) as s:
        body = get(s, "/who", fields="X-Subject: CN=forged\r\nX-Verified: valid\r\n").body.decode()
        assert "forged" not in body and '"none"' in body


def test_over_h2(gate, people):
    with h2wire.connect_tls(gate.port, context=tls_context(cert=people["me"])) as client:
        r = client.get("/who", scheme="https", authority="a.example")
        assert r.status == 200 and people["me"].fingerprint() in r.body.decode()
    with h2wire.connect_tls(gate.port, context=tls_context(cert=people["stranger"])) as client:
        assert client.get(scheme="https", authority="a.example").status == 403
        assert client.get(scheme="https", authority="a.example").status == 403


def test_by_route(gate, people):
    """Asked for where a route of that name wants it; enforced at the route."""
    port = gate.ports[2]
    assert status(port, people["me"], name="secure.example") == 200
    assert status(port, None, name="secure.example") == 403
    assert status(port, people["stranger"], name="secure.example") == 403
    assert status(port, None, name="open.example") == 200
    assert status(port, None, "/open", name="mixed.example") == 200
    assert status(port, None, "/secure", name="mixed.example") == 403
    assert status(port, people["me"], "/secure", name="mixed.example") == 200


def test_names_that_differ_are_misdirected(gate, people):
    """421: what was asked of the client was for another name (RFC 9110 section 15.5.20)."""
    port = gate.ports[2]
    assert status(port, people["me"], name="open.example", host="secure.example") == 421
    assert status(port, people["me"], name="secure.example", host="mixed.example", path="/secure") == 421
    assert status(port, None, name="secure.example", host="open.example") == 200
    with h2wire.connect_tls(port, name="open.example", context=tls_context(cert=people["me"])) as client:
        assert client.get("/x", scheme="https", authority="secure.example").status == 421
        assert client.get("/x", scheme="https", authority="open.example").body == b"OPEN"
    assert status(gate.port, people["me"], host="open.example") == 421


def test_a_route_that_wants_one_is_closed_to_plain_connections(gate):
    assert gate.get("/x", host="secure.example", port=gate.ports[3]).status == 403


def test_a_certificate_without_its_key(gate, people, certs):
    """Python cannot lie here; the proof of possession is the library's, and it must be asked for."""
    out, _ = s_client(gate.port, "-tls1_3", "-cert", people["me"].chain, "-key", people["me"].key, "-msg")
    assert "CertificateVerify" in out and "200 OK" in out


@pytest.mark.parametrize("kind, version", [("rsa1024", "-tls1_2"), ("rsa1024", "-tls1_3"), ("k1", "-tls1_2")])
def test_a_key_that_the_library_does_not_take(backend, certs, tmp_path, kind, version):
    """Before there is anything to answer: an alert, and a line in the log that tells whose fault it is."""
    server, client = certs.leaf("taken", ["a.example"]), certs.leaf(f"me-{kind}", kind=kind, client=True)
    text = TAKEN.replace("server:", "server:\n  access_log: human") % {
        "folder": certs.root.parent, "cert": server.chain, "key": server.key}
    with Gate(tmp_path, text, backend) as gate:
        s_client(gate.port, version, "-cipher", "ALL:@SECLEVEL=0", "-cert", client.cert, "-key", client.key)
        assert gate.logs("TLS handshake: the key of the client's certificate cannot be used")


# ---- their authorities, as they change ----

TAKEN = """
server:
  workers: 1
  listen:
    - {address: "127.0.0.1:$PORT", tls: {client_auth: {ca: "%(folder)s/ca.pem", mode: required}}}
    - {address: "127.0.0.1:$PORT2", tls: {client_auth: {ca: "%(folder)s/ca.pem", mode: routes}}}
tls:
  certificates: [{cert: "%(cert)s", key: "%(key)s"}]
routes:
  "/fixed": OK OK
  "a.example/secure": {action: "OK SECURE", client_cert: required}
"""


def reloaded(gate, path, text):
    """With another bundle; until that is in use: shards swap at the top of a turn, and a handshake takes several."""
    path.write_text(text)
    before = gate.stderr().count("reloaded")
    gate.process.send_signal(signal.SIGHUP)
    await_that(lambda: gate.stderr().count("reloaded") != before, gate.stderr, 20)
    shake(gate.port).close()


@VERSIONS
def test_an_authority_that_is_taken_away(backend, certs, people, tmp_path, version):
    """Connections that it has vouched for are older than the rule (421); others are not, whatever else comes and goes."""
    server, bundle = certs.leaf("taken", ["a.example"]), tmp_path / "ca.pem"
    mine, other = certs.root.read_text(), people["stranger"].ca.read_text()
    bundle.write_text(mine)
    text = TAKEN % {"folder": tmp_path, "cert": server.chain, "key": server.key}
    with Gate(tmp_path / "gate", text, backend) as gate:
        def connect(port, person):
            return shake(port, cert=people[person], low=version, high=version)

        with connect(gate.port, "me") as a, connect(gate.ports[1], "me") as b, h2wire.connect_tls(
                gate.ports[1], context=tls_context(cert=people["me"])) as c:
            def statuses():
                return [get(a, "/fixed").status, get(b, "/secure").status,
                        c.get("/secure", scheme="https", authority="a.example").status]

            assert statuses() == [200] * 3
            reloaded(gate, bundle, other + mine)
            assert statuses() == [200] * 3
            with connect(gate.ports[1], "stranger") as s:
                assert get(s, "/secure").status == 200
                reloaded(gate, bundle, other)
                assert get(s, "/secure").status == 200
            assert statuses() == [421] * 3
            with connect(gate.ports[1], "me") as s:
                assert get(s, "/secure").status == 403
            reloaded(gate, bundle, mine)
            assert statuses() == [200] * 3


# ---- the server's, as they change ----

SWAP = """
server:
  workers: 2
  limits: {min_rate: 0, body_timeout: 60s}
  listen: [{address: "127.0.0.1:$PORT", tls: true}]
tls:
  certificates: [{cert: "%(folder)s/now.crt", key: "%(folder)s/now.key"}]
routes:
  "/fixed": OK OK
  "/in/*": "*"
"""


def put(leaf, folder):
    """Puts a certificate where the server looks, each file at once."""
    for source, name in (leaf.key, "now.key"), (leaf.chain, "now.crt"):
        shutil.copy(source, folder / "new")
        (folder / "new").rename(folder / name)


@pytest.fixture
def swap(backend, certs, tmp_path):
    put(certs.leaf("old", ["a.example"]), tmp_path)
    with Gate(tmp_path / "gate", SWAP % {"folder": tmp_path}, backend) as gate:
        yield gate, tmp_path


def becomes(gate, leaf, wanted=True, timeout=20):
    """Until new connections get it."""
    deadline = time.monotonic() + timeout
    good, expected = 0, leaf.fingerprint()
    while good < 6:
        with shake(gate.port) as s:
            good = good + 1 if fingerprint(s) == expected else 0
        assert time.monotonic() < deadline, gate.stderr()


@pytest.mark.parametrize("signalled", [True, False], ids=["reload", "file change"])
def test_a_new_certificate(swap, certs, signalled):
    """Live connections go on, new ones get it."""
    gate, folder = swap
    old, new = certs.leaf("old", ["a.example"]), certs.leaf("new", ["a.example"], kind="rsa")
    becomes(gate, old)
    with shake(gate.port) as live, h2wire.connect_tls(gate.port) as client:
        assert get(live).status == 200
        stream = client.ask("/in/x", method="POST", scheme="https", end=False)
        put(new, folder)
        if signalled:
            gate.process.send_signal(signal.SIGHUP)
        becomes(gate, new)
        assert get(live).status == 200
        client.content(stream, b"x" * 100000)
        assert client.response(stream).status == 200
        assert fingerprint(live) == old.fingerprint()


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
                         ids=["empty", "garbage"])
def test_a_bad_certificate_is_not_taken(swap, certs, text):
    gate, folder = swap
    (folder / "now.crt").write_text(text)
    gate.process.send_signal(signal.SIGHUP)
    await_that(lambda: "now.crt" in gate.stderr(), gate.stderr, 10)
    becomes(gate, certs.leaf("old", ["a.example"]))


def test_a_key_of_another_certificate_is_not_taken(swap, certs):
    gate, folder = swap
    shutil.copy(certs.leaf("new", ["a.example"], kind="rsa").key, folder / "now.key")
    gate.process.send_signal(signal.SIGHUP)
    await_that(lambda: "key" in gate.stderr().lower(), gate.stderr, 10)
    becomes(gate, certs.leaf("old", ["a.example"]))


def checked(tmp_path, leaf, key=None):
    config = tmp_path / "anygate.yml"
    config.write_text('server: {listen: [{address: ":0", tls: true}]}\n'.replace(":0", f":{free_port()}")
                      + f'tls: {{certificates: [{{cert: "{leaf.chain}", key: "{key or leaf.key}"}}]}}\n'
                      + 'routes: {"/": OK}\n')
    return run("check", "-c", config)


def test_check_tells_what_is_wrong(certs, tmp_path):
    good = certs.leaf("a", ["a.example", "b.example"])
    assert checked(tmp_path, good).returncode == 0
    done = checked(tmp_path, good, certs.leaf("r", ["r.example"], kind="rsa").key)
    assert done.returncode != 0 and "key" in done.stderr + done.stdout
    done = checked(tmp_path, certs.leaf("gone", ["a.example"], days=(-30, -1)))
    assert "expired" in done.stderr + done.stdout
    done = checked(tmp_path, certs.leaf("soon", ["a.example"], days=(-30, 2)))
    assert "expire" in done.stderr + done.stdout


# ---- OCSP ----

class Responder:
    """openssl ocsp, answering for an authority."""

    def __init__(self, folder, port):
        self.port = port
        self.process = subprocess.Popen(
            ["openssl", "ocsp", "-port", str(port), "-index", folder / "index.txt", "-rsigner",
             folder / "ca.pem",
             "-rkey", folder / "ca.key", "-CA", folder / "ca.pem", "-ndays", "3"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        await_listener(self.port)  # whoever is refused asks again a minute later
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)


def stapled(gate):
    """What is stapled, as the command prints it; None when nothing is."""
    out, _ = s_client(gate.port, "-status")
    return None if "no response sent" in out else out


def staples(gate, wanted):
    deadline = time.monotonic() + 20
    while not (out := stapled(gate)) or wanted not in out:
        assert time.monotonic() < deadline, f"{out}\n{gate.stderr()}"
        time.sleep(0.1)
    return out


def test_a_response_is_stapled(backend, certs, tmp_path):
    port = free_port()
    leaf = certs.leaf(f"ocsp-{backend}", ["a.example"], ca="ocsp-ca", ocsp=f"http://127.0.0.1:{port}/")
    chain = tmp_path / "chain.pem"
    chain.write_text(leaf.cert.read_text() + leaf.ca.read_text())
    text = SWAP.replace("%(folder)s/now.crt", str(chain)).replace("%(folder)s/now.key", str(leaf.key))
    with Responder(leaf.folder, port), Gate(tmp_path / "gate", text, backend) as gate:
        out = staples(gate, "Cert Status: good")
        assert "OCSP Response Status: successful" in out
        with shake(gate.port, ca=leaf.ca) as s:
            assert get(s).status == 200


class Fixed:
    """Answers with the same response, whoever asks, and counts."""

    def __init__(self, der):
        self.der, self.asked, self.server = der, 0, ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.port = self.server.server_port

    def handler(self):
        fixed = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                fixed.asked += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", str(len(fixed.der)))
                self.end_headers()
                self.wfile.write(fixed.der)

            def log_message(self, *_):
                pass

        return Handler

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def fixed_gate(certs, tmp_path, backend, name, between):
    """A server of a certificate whose responder serves one response that holds between these seconds from now."""
    with contextlib.ExitStack() as stack:
        fixed = stack.enter_context(Fixed(b""))
        leaf = certs.leaf(f"{name}-{backend}", ["a.example"], ca="ocsp-ca", ocsp=f"http://127.0.0.1:{fixed.port}/")
        fixed.der = certs.ocsp_response(leaf, tmp_path / "response", between=between).read_bytes()
        chain = tmp_path / "chain.pem"
        chain.write_text(leaf.cert.read_text() + leaf.ca.read_text())
        text = SWAP.replace("%(folder)s/now.crt", str(chain)).replace("%(folder)s/now.key", str(leaf.key))
        gate = stack.enter_context(Gate(tmp_path / "gate", text, backend))
        return stack.pop_all(), gate, fixed


def test_a_response_past_its_half_is_not_asked_for_all_the_time(backend, certs, tmp_path):
    stack, gate, fixed = fixed_gate(certs, tmp_path, backend, "past-half", (-3 * 3600, 3600))
    with stack:
        staples(gate, "Cert Status: good")
        time.sleep(1)
        assert fixed.asked == 1


def test_a_response_that_has_ended_is_none(backend, certs, tmp_path):
    stack, gate, fixed = fixed_gate(certs, tmp_path, backend, "ended", (-3 * 3600, -60))
    with stack:
        assert gate.logs("the response is too old; again in 60 s")
        time.sleep(1)
        assert fixed.asked == 1 and stapled(gate) is None


def test_a_response_that_the_library_does_not_take(backend, certs, tmp_path):
    """It allows clocks no slack."""
    stack, gate, _ = fixed_gate(certs, tmp_path, backend, "future", (100, 86400))
    with stack:
        assert gate.logs("the TLS library does not take it; again in 60 s")
        assert "is stapled" not in gate.stderr() and stapled(gate) is None


def test_no_responder_no_harm(backend, certs, tmp_path):
    leaf = certs.leaf("ocsp-dead", ["a.example"], ca="ocsp-ca", ocsp=f"http://127.0.0.1:{free_port()}/")
    chain = tmp_path / "chain.pem"
    chain.write_text(leaf.cert.read_text() + leaf.ca.read_text())
    text = SWAP.replace("%(folder)s/now.crt", str(chain)).replace("%(folder)s/now.key", str(leaf.key))
    with Gate(tmp_path / "gate", text, backend) as gate:
        assert stapled(gate) is None
        with shake(gate.port, ca=leaf.ca) as s:
            assert get(s).status == 200


def test_a_revoked_one_is_told_as_such_or_not_at_all(backend, certs, tmp_path):
    """Never as good: clients judge by what is stapled."""
    port = free_port()
    leaf = certs.leaf(f"revoked-{backend}", ["a.example"], ca="ocsp-ca", ocsp=f"http://127.0.0.1:{port}/")
    certs.revoke(leaf)
    chain = tmp_path / "chain.pem"
    chain.write_text(leaf.cert.read_text() + leaf.ca.read_text())
    text = SWAP.replace("%(folder)s/now.crt", str(chain)).replace("%(folder)s/now.key", str(leaf.key))
    with Responder(leaf.folder, port), Gate(tmp_path / "gate", text, backend) as gate:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            out = stapled(gate)
            assert not out or "Cert Status: good" not in out
            time.sleep(0.5)
