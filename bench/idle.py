#!/usr/bin/env python3
"""User memory of an idle keep-alive connection (see docs/BENCH.md).

usage: idle.py [--connections 9000] [--binary build/anygate]

Opens connections, sends one request on each, and reports the growth of the server's resident memory
divided by their number. Slabs are mapped at start and touched on first use, so that growth holds the
connections' share of them too.
"""
import argparse
import pathlib
import resource
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def rss(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no Rss")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=9000)
    parser.add_argument("--binary", default=str(HERE.parent / "build/anygate"))
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for backend in ("epoll", "io_uring"):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "idle.yml"
            config.write_text(f'server: {{listen: ["127.0.0.1:{port}"], workers: 1, '
                              f'backend: {backend}}}\nroutes:\n  GET /fixed: OK OK\n')
            server = subprocess.Popen([options.binary, "serve", "-c", str(config)],
                                      stderr=subprocess.DEVNULL)
            try:
                time.sleep(0.5)
                request = b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n"
                open_ones = []

                def add(count):
                    for _ in range(count):
                        s = socket.create_connection(("127.0.0.1", port))
                        s.sendall(request)
                        assert b"200 OK" in s.recv(4096)
                        open_ones.append(s)

                add(100)  # first use of code and pools
                before = rss(server.pid)
                add(options.connections - 100)
                time.sleep(0.5)
                grown = rss(server.pid) - before
                print(f"anygate {backend:<9} {grown / (options.connections - 100):7.0f} bytes each")
                for s in open_ones:
                    s.close()
            finally:
                server.terminate()
                server.wait()


if __name__ == "__main__":
    main()
