"""TLS with real clients over HTTP/1.1: curl with and without certificates, openssl s_client with resumption,
python, and a client of GnuTLS."""
import ssl
import subprocess
import urllib.request

import pytest
from gate import Gate
from tlswire import s_client

CONFIG = """
server:
  workers: 2
  listen:
    - {address: "127.0.0.1:$PORT", tls: true}
    - {address: "127.0.0.1:$PORT2", tls: {client_auth: {ca: "%(ca)s", mode: required}}}
    - {address: "127.0.0.1:$PORT3", redirect_https: true}
tls:
  certificates: [{cert: "%(cert)s", key: "%(key)s"}, {cert: "%(rsa_cert)s", key: "%(rsa_key)s"}]
  hsts: {max_age: 1h}
routes:
  "/fixed": OK OK
  "/echo/*": "*"
"""


@pytest.fixture(scope="module")
def gate(backend, certs, tmp_path_factory):
    leaf = certs.leaf("localhost", ["localhost", "a.example", "127.0.0.1"])
    rsa = certs.leaf("localhost-rsa", ["localhost", "a.example", "127.0.0.1"], kind="rsa")
    text = CONFIG % {"ca": certs.root, "cert": leaf.chain, "key": leaf.key, "rsa_cert": rsa.chain,
                     "rsa_key": rsa.key}
    with Gate(tmp_path_factory.mktemp("gate"), text, backend) as gate:
        gate.ca = leaf.ca
        yield gate


def curl(gate, *args, port=None, path="/fixed", scheme="https", check=True):
    done = subprocess.run(["curl", "-sS", "--cacert", str(gate.ca), "-w", "\n%{http_version} %{http_code}",
                           *map(str, args), f"{scheme}://localhost:{port or gate.port}{path}"],
                          capture_output=True, timeout=30)
    assert not check or done.returncode == 0, done.stderr
    body, _, told = done.stdout.rpartition(b"\n")
    return told.decode(), body


@pytest.mark.parametrize("args", [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3"], ["--no-alpn"],
                                  ["--ciphers", "ECDHE-RSA-AES256-GCM-SHA384", "--tls-max", "1.2"],
                                  ["--curves", "P-384"]], ids=lambda a: " ".join(a))
def test_curl(gate, args):
    told, body = curl(gate, "--http1.1", *args)
    assert (told, body) == ("1.1 200", b"OK")


def test_curl_verifies(gate):
    done = subprocess.run(["curl", "-sS", f"https://localhost:{gate.port}/fixed"], capture_output=True,
                          timeout=30)
    assert done.returncode == 60, done
    done = subprocess.run(["curl", "-sS", "--cacert", str(gate.ca), "--resolve",
                           f"other.example:{gate.port}:127.0.0.1",
                           f"https://other.example:{gate.port}/fixed"], capture_output=True, timeout=30)
    assert done.returncode == 60, done


def test_curl_uploads_and_keeps_its_connection(gate):
    told, body = curl(gate, "--http1.1", "--data-binary", "x" * 100000, path="/echo/x")
    assert told == "1.1 200" and b'"body_length":100000' in body.replace(b" ", b"")
    done = subprocess.run(["curl", "-sS", "--http1.1", "--cacert", str(gate.ca), "-w", "%{num_connects} ",
                           *["https://localhost:%d/fixed" % gate.port] * 3], capture_output=True, timeout=30)
    assert done.stdout == b"OK1 OK0 OK0 ", done


def test_curl_with_a_certificate(gate, certs):
    me = certs.leaf("me", client=True, subject="/O=Org/CN=me")
    for version in "--http1.1", "--http2":
        assert curl(gate, version, "--cert", me.chain, "--key", me.key, port=gate.ports[1])[1] == b"OK"
        assert curl(gate, version, port=gate.ports[1])[0].endswith(" 403")


def test_curl_follows_to_https(gate):
    told, body = curl(gate, "-L", scheme="http", port=gate.ports[2])
    assert told in ("2 200", "1.1 200") and body == b"OK"


def test_curl_says_http_to_the_tls_port(gate):
    told, body = curl(gate, scheme="http")
    assert told == "1.1 400" and body


def test_python_s_urllib(gate):
    context = ssl.create_default_context(cafile=str(gate.ca))
    with urllib.request.urlopen(f"https://localhost:{gate.port}/fixed", context=context, timeout=10) as r:
        assert r.status == 200 and r.read() == b"OK"
        assert r.headers["Strict-Transport-Security"] == "max-age=3600"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_resumes(gate, version, tmp_path):
    out, _ = s_client(gate.port, version, "-sess_out", tmp_path / "session", "-CAfile", gate.ca)
    assert "200 OK" in out and "New, TLSv1" in out and "Verify return code: 0" in out
    out, _ = s_client(gate.port, version, "-sess_in", tmp_path / "session", "-CAfile", gate.ca)
    assert "200 OK" in out and "Reused, TLSv1" in out


def test_openssl_has_nothing_to_complain_of(gate):
    out, _ = s_client(gate.port, "-CAfile", gate.ca, "-brief")
    assert "Verification: OK" in out and "Protocol version: TLSv1.3" in out
    out, _ = s_client(gate.port, "-tls1_2")
    assert "Secure Renegotiation IS supported" in out
    assert "Extended master secret: yes" in out and "Compression: NONE" in out


def test_gnutls(gate):
    for priority in "NORMAL", "NORMAL:-VERS-TLS1.3":
        done = subprocess.run(["gnutls-cli", "--x509cafile", str(gate.ca), "--priority", priority, "-p",
                               str(gate.port),
                               "localhost"], input=b"GET /fixed HTTP/1.0\r\nHost: localhost\r\n\r\n",
                              capture_output=True, timeout=20)
        assert b"200 OK" in done.stdout, done
