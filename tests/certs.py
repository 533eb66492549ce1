"""Certificates for tests, made when they are asked for by the openssl command and kept for the session.

    certs = Certs(folder)
    certs.leaf("a", ["a.example", "*.a.example"])           ECDSA P-256, of the authority "ca"
    certs.leaf("old", ["a.example"], days=(-30, -1))         expired
    certs.leaf("me", client=True, subject="/O=Org/CN=me")    a client's
    certs.leaf("b", [...], ca="other", kind="rsa")           of another authority, RSA 2048

A leaf has .chain and .key (PEM files), .cert (its own PEM) and .ca (its authority's).
"""
import datetime
import re
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

KINDS = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
         "ec384": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
         "ed25519": ["-newkey", "ed25519"],
         "rsa": ["-newkey", "rsa:2048"], "rsa1024": ["-newkey", "rsa:1024"],
         "k1": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]}

CONFIG = """
[req]
distinguished_name = dn
[dn]
[ca]
default_ca = this
[this]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
policy = any
unique_subject = no
[any]
organizationName = optional
commonName = optional
"""


@dataclass(frozen=True)
class Leaf:
    name: str
    folder: Path
    authority: Path

    @property
    def chain(self):
        return self.folder / f"{self.name}.chain.pem"

    @property
    def cert(self):
        return self.folder / f"{self.name}.pem"

    @property
    def key(self):
        return self.folder / f"{self.name}.key"

    @property
    def ca(self):
        return self.authority

    def fingerprint(self):
        """SHA-256 of the DER, lower-case hex."""
        out = openssl("x509", "-in", self.cert, "-noout", "-fingerprint", "-sha256")
        return out.split("=")[1].strip().replace(":", "").lower()

    def serial(self):
        return openssl("x509", "-in", self.cert, "-noout", "-serial").split("=")[1].strip()


def openssl(*args, stdin=None):
    done = subprocess.run(["openssl", *map(str, args)], input=stdin, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, f"openssl {args[0]}: {done.stderr}"
    return done.stdout


def date(days):
    then = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    return then.strftime("%Y%m%d%H%M%SZ")


class Certs:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.made, self.lock = {}, threading.Lock()

    def ca(self, name="ca"):
        """The folder of an authority: ca.pem, ca.key, and what `openssl ca` and `openssl ocsp` need."""
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "index.txt").write_text("")
            (folder / "index.txt.attr").write_text("unique_subject = no\n")
            (folder / "serial").write_text("1000\n")
            (folder / "ca.cnf").write_text(CONFIG.format(folder=folder))
            openssl("req", "-config", folder / "ca.cnf", "-x509", *KINDS["ec"], "-nodes", "-days", 365,
                    "-keyout", folder / "ca.key", "-out", folder / "ca.pem",
                    "-subj", f"/O=AnyGate tests/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
                    "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
                    "-addext", "subjectKeyIdentifier=hash")
        return folder

    @property
    def root(self):
        """The usual authority's certificate."""
        return self.ca() / "ca.pem"

    def leaf(self, name, names=(), kind="ec", ca="ca", days=(-1, 90), client=False, subject=None, ocsp=None,
             must_staple=False):
        with self.lock:
            if name not in self.made:
                self.made[name] = self._make(name, names, kind, ca, days, client, subject, ocsp, must_staple)
            return self.made[name]

    def _make(self, name, names, kind, ca, days, client, subject, ocsp, must_staple):
        folder = self.ca(ca)
        leaf = Leaf(name, folder, folder / "ca.pem")
        extensions = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature",
                      f"extendedKeyUsage={'clientAuth' if client else 'serverAuth'}",
                      "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"]
        if names:
            kinds = ("IP" if n.replace(".", "").isdigit() or ":" in n else "DNS" for n in names)
            extensions.append("subjectAltName=" + ",".join(f"{k}:{n}" for k, n in zip(kinds, names)))
        if ocsp:
            extensions.append(f"authorityInfoAccess=OCSP;URI:{ocsp}")
        if must_staple:
            extensions.append("tlsfeature=status_request")
        (folder / f"{name}.ext").write_text("\n".join(extensions) + "\n")
        request = folder / f"{name}.csr"
        openssl("req", "-config", folder / "ca.cnf", "-new", *KINDS[kind], "-nodes", "-keyout", leaf.key,
                "-out", request, "-subj", subject or f"/CN={names[0] if names else name}")
        openssl("ca", "-batch", "-notext", "-config", folder / "ca.cnf", "-in", request, "-out", leaf.cert,
                "-extfile", folder / f"{name}.ext", "-preserveDN",
                "-startdate", date(days[0]), "-enddate", date(days[1]))
        leaf.chain.write_text(leaf.cert.read_text())
        return leaf

    def usual(self):
        """A set for a server of several names: a.example by both kinds of keys, wildcards, RSA alone."""
        return {"a": self.leaf("a", ["a.example", "b.example"]),
                "a-rsa": self.leaf("a-rsa", ["a.example", "b.example"], kind="rsa"),
                "wild": self.leaf("wild", ["*.w.example", "*.example.net"]),
                "r": self.leaf("r", ["r.example"], kind="rsa")}

    def revoke(self, leaf):
        openssl("ca", "-config", leaf.folder / "ca.cnf", "-revoke", leaf.cert)

    def ocsp_response(self, leaf, out, days=7, between=None):
        """A response file (DER) about a leaf, good or revoked as the authority's index says. between: from when to when
        it holds instead, in seconds from now; signed again then."""
        openssl("ocsp", "-index", leaf.folder / "index.txt", "-rsigner", leaf.folder / "ca.pem",
                "-rkey", leaf.folder / "ca.key", "-CA", leaf.ca, "-issuer", leaf.ca, "-cert", leaf.cert,
                "-respout", out, "-ndays", days, "-no_nonce", "-noverify")
        out = Path(out)
        if between:
            out.write_bytes(redated(out.read_bytes(), between, leaf.folder / "ca.key"))
        return out


def element(der, at):
    """Where the content of a DER element begins and where it ends."""
    head, size = 2, der[at + 1]
    if size & 0x80:
        head += size & 0x7F
        size = int.from_bytes(der[at + 2:at + head], "big")
    return at + head, at + head + size


def redated(der, between, key):
    """An OCSP response of other times: what is signed is of the same length, and a signature is tried for until it is."""
    at = der.index(bytes.fromhex("06092b0601050507300101")) + 11  # id-pkix-ocsp-basic
    begin = element(der, element(der, at)[0])[0]  # OCTET STRING, BasicOCSPResponse: the data, the algorithm, ...
    end = element(der, begin)[1]
    signature = slice(element(der, element(der, end)[1])[0] + 1, element(der, element(der, end)[1])[1])
    dates = iter([None, *(date(s / 86400).encode() for s in between)])
    data = re.sub(rb"\d{14}Z", lambda m: next(dates) or m[0], der[begin:end])
    while True:
        signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=data, capture_output=True,
                                check=True, timeout=60).stdout
        if len(signed) == len(der[signature]):
            return der[:begin] + data + der[end:signature.start] + signed + der[signature.stop:]
