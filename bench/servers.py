"""The servers that are measured side by side: how each is started, and what it spends.

Each listens on three ports: HTTP/1.1 in the clear (PORT), HTTP/2 in the clear by prior knowledge (H2C), and TLS
with both by ALPN (TLS). Configurations are in peers/, as each server's own documentation advises: one worker,
connections to origins kept, session tickets, no access log. Floors (floor/) have PORT alone, and do one thing each.
Certificates are made by the openssl command at each run.
"""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))

from ports import free_port  # noqa: E402

SERVER_CORE, LOAD_CORE = "0", "1"
LARGE_BUFFERS = ("proxy_buffers 16 32k; proxy_buffer_size 32k; proxy_busy_buffers_size 64k; "
                 "proxy_max_temp_file_size 0;")
# name: configuration, command before its path, what else the configuration is told
PEERS = {
    "nginx": ("nginx.conf", ["nginx", "-c"], {"BUFFERS": ""}),
    "nginx 16x32k": ("nginx.conf", ["nginx", "-c"], {"BUFFERS": LARGE_BUFFERS}),
    "haproxy": ("haproxy.cfg", ["haproxy", "-db", "-f"], {}),
    "h2o": ("h2o.conf", ["h2o", "-c"], {}),
}
NO_ORIGINS = {"ORIGIN": 1, "ORIGIN_H2": 1, "SINK": 1, "WS": 1}  # their ports where nobody asks them
PROGRAMS = ("floor/respond_epoll", "floor/respond_uring", "floor/relay_epoll", "floor/relay_uring", "sink", "ws_echo")


def fill(name, out, values):
    text = (HERE / "peers" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    out.write_text(text)
    return str(out)


def answers(process, port):
    for _ in range(200):
        if process.poll() is not None:
            return False
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ports(name, process, ports):
    """Ends the process, and the program, where one of its ports does not answer."""
    for port in ports:
        if not answers(process, port):
            stop(process)
            raise SystemExit(f"{name} does not answer on port {port}")


def make_files(work):
    """What is served, and the certificate (ECDSA P-256, signed by itself)."""
    (work / "files").mkdir()
    (work / "fixed").write_text("OK")
    for name, size in (("1k.txt", 1024), ("64k.bin", 65536), ("1m.bin", 1 << 20),
                       ("10m.bin", 10 << 20)):
        (work / "files" / name).write_bytes(os.urandom(size // 2).hex().encode()[:size])
    (work / "files" / "small").write_text("OK")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "365", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", work / "key.pem",
                    "-out", work / "cert.pem"], check=True, capture_output=True)
    both = (work / "cert.pem").read_text() + (work / "key.pem").read_text()
    (work / "both.pem").write_text(both)
    os.chmod(work, 0o755)


def build(work):
    """The programs of our own, at work/NAME."""
    for program in PROGRAMS:
        subprocess.run(["cc", "-O2", "-std=gnu17", "-D_GNU_SOURCE", "-o", work / pathlib.Path(program).name,
                        HERE / f"{program}.c", "-luring", "-lcrypto"], check=True)


class Server:
    """One server on its core, and the ports that its configuration says it listens on.

    wrapper is a command that runs the server's, in the same process; task is what a floor does: ("respond", BYTES), or
    ("relay", BUF), ("relay-sink", BUF), ("relay-ws", BUF) to that origin; workers: ours alone.
    """

    def __init__(self, name, work, values, binary, wrapper=(), task=None, workers=1, cores=SERVER_CORE):
        self.name = name
        if task:
            kind, size = task
            program, _, origin = kind.partition("-")
            to = {"": "ORIGIN", "sink": "SINK", "ws": "WS"}[origin]
            self.ports = {"PORT": free_port()}
            command = [str(work / f"{program}_{name.split()[1].removeprefix('io_')}"), str(self.ports["PORT"]),
                       *([str(values[to])] if program == "relay" else []), str(size)]
        else:
            command = self.configured(name, work, values, binary, workers)
        with open(work / f"{self.ports['PORT']}.log", "wb") as log:
            self.process = subprocess.Popen(["taskset", "-c", cores, *wrapper, *command], stdout=log, stderr=log)
        wait_ports(name, self.process, self.ports.values())

    def configured(self, name, work, values, binary, workers):
        if name in PEERS:
            source, command, more = PEERS[name]
        else:
            source, command = "anygate.yml", [binary, "serve", "-c"]
            more = {"BACKEND": name.split()[1], "WORKERS": workers}
        text = (HERE / "peers" / source).read_text()
        self.ports = {key: free_port() for key in ("PORT", "H2C", "TLS") if f"@{key}@" in text}
        config = work / f"{self.ports['PORT']}.{source.split('.')[1]}"
        return [*command, fill(source, config, {**values, **self.ports, **more})]

    def cpu_ns(self):
        """Run time of all its tasks so far, kernel helpers included."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total

    def rss_bytes(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise SystemExit(f"{self.name}: no Rss")

    def stop(self):
        stop(self.process)


class Origins:
    """What the proxies ask, on the load's core: nginx for HTTP/1.1, h2o for HTTP/2 in the clear, a sink and an echo."""

    def __init__(self, work):
        self.values = {"DIR": work, **{key: free_port() for key in NO_ORIGINS}}
        self.processes = []
        for key, command in (("ORIGIN", ["nginx", "-c", "origin.conf"]), ("ORIGIN_H2", ["h2o", "-c", "origin_h2.conf"]),
                             ("SINK", [str(work / "sink")]), ("WS", [str(work / "ws_echo")])):
            *program, last = command
            last = fill(last, work / last, self.values) if program else last
            more = [] if program else [str(self.values[key])]
            process = subprocess.Popen(["taskset", "-c", LOAD_CORE, *program, last, *more],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.processes.append(process)
            try:
                wait_ports(command[0], process, [self.values[key]])
            except SystemExit:
                self.stop()
                raise

    def stop(self):
        for process in self.processes:
            stop(process)
