"""Folders of certificates as configurations name them, good and bad, made by the openssl command."""
import subprocess
import time

P256 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]


def openssl(folder, *args, text=None):
    done = subprocess.run(["openssl", *args], cwd=folder, input=text, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout


def authority(folder, name="ca", key=None):
    """NAME.pem and NAME.key; the one that `signed` uses by default is the first of a folder."""
    openssl(folder, "req", "-x509", "-newkey", *(key or P256), "-nodes", "-keyout", f"{name}.key",
            "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "365")
    (folder / ".authority").write_text(name)


def signed(folder, name, names, *, usage="serverAuth", key=None, days=365, one_file=False,
           more=""):
    """NAME.pem and NAME.key, or both in NAME.pem, for DNS names and addresses."""
    signer = (folder / ".authority").read_text()
    (folder / name).parent.mkdir(exist_ok=True)
    alt = ",".join(("IP:" if n[0].isdigit() or ":" in n else "DNS:") + n for n in names)
    (folder / f"{name}.ext").write_text(f"extendedKeyUsage={usage}\n{more}\n" +
                                        (f"subjectAltName={alt}\n" if alt else ""))
    openssl(folder, "req", "-newkey", *(key or P256), "-nodes", "-keyout", f"{name}.key",
            "-out", f"{name}.csr", "-subj", f"/CN={names[0] if names else name}")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{signer}.pem", "-CAkey",
            f"{signer}.key", "-CAcreateserial", "-days", str(days), "-extfile", f"{name}.ext",
            "-out", f"{name}.pem")
    (folder / f"{name}.key").chmod(0o600)
    for scrap in ("csr", "ext"):
        (folder / f"{name}.{scrap}").unlink()
    if one_file:
        whole = (folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text()
        (folder / f"{name}.key").unlink()
        (folder / f"{name}.pem").write_text(whole)
        (folder / f"{name}.pem").chmod(0o600)


def wrong(folder):
    """Mistakes, each named for what it is."""
    good, key = (folder / "example.com.pem").read_text(), folder / "example.com.key"
    authority = (folder / "internal-ca.pem").read_text()
    (folder / "turned.pem").write_text(authority + good)
    (folder / "stranger.pem").write_text(good + (folder / "internal.pem").read_text())
    (folder / "broken.pem").write_text(good.replace("MII", "MMM"))
    (folder / "cut.pem").write_text(good.rsplit("-----END", 1)[0])
    openssl(folder, "pkcs8", "-topk8", "-in", key.name, "-passout", "pass:secret", "-out",
            "locked.key")
    signed(folder, "small", ["example.com"], key=["rsa:1024"])
    signed(folder, "old", ["example.com"], days=-1)
    signed(folder, "soon", ["example.com"], days=1)
    signed(folder, "open", ["example.com"])
    (folder / "open.key").chmod(0o644)
    signed(folder, "nameless", [])
    signed(folder, "elsewhere", ["other.example"])
    openssl(folder, "req", "-x509", "-newkey", *P256, "-nodes", "-keyout", "self.key", "-out",
            "self.pem", "-subj", "/CN=self", "-days", "365", "-addext", "subjectAltName=DNS:example.com")
    made = int(time.time())
    while int(time.time()) <= made:  # until less than its day is left to "soon"
        time.sleep(0.02)
