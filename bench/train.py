#!/usr/bin/env python3
"""The load that a build is trained with (`make pgo`): one of each kind that a server has, on either backend.

usage: train.py [--binary build/gcc-train/anygate] [--seconds 1]

The server exits in order after each backend's share, for that writes its counts. Needs what
`tools/deps.sh bench` installs.
"""
import argparse
import pathlib
import shutil
import tempfile

from loads import Loads
from servers import BACKENDS, HERE, Origins, Server, make_files

# load, port, path
CASES = [
    (Loads.h1, "PORT", "/fixed"),
    (Loads.pipelined, "PORT", "/fixed"),
    (Loads.connects, "PORT", "/fixed"),
    (Loads.h1, "PORT", "/static/1k.txt"),
    (Loads.h1, "PORT", "/static/64k.bin"),
    (Loads.h1, "PORT", "/proxy/small"),
    (Loads.h1, "PORT", "/proxy/64k.bin"),
    (Loads.h2, "H2C", "/fixed"),
    (Loads.h2, "H2C", "/static/1k.txt"),
    (Loads.h2, "H2C", "/proxy/small"),
    (Loads.h2, "H2C", "/h2/small"),
    (Loads.h1_tls, "TLS", "/fixed"),
    (Loads.h2_tls, "TLS", "/fixed"),
    (Loads.h2_tls, "TLS", "/proxy/small"),
    (Loads.full, "TLS", "/fixed"),
    (Loads.resumed, "TLS", "/fixed"),
]


def train(backend, loads, origins, work, binary):
    server = Server(f"anygate {backend}", work, origins.values, binary)
    try:
        for load, port, path in CASES:
            requests, bad = load(loads, server.ports[port], path)
            if bad or not requests:
                raise SystemExit(f"{backend}, {load.__name__} {path}: {requests} requests; {bad}")
    finally:
        server.stop()
    if server.process.returncode:
        raise SystemExit(f"{backend}: the server ended with {server.process.returncode}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=str(HERE.parent / "build/gcc-train/anygate"))
    parser.add_argument("--seconds", type=int, default=1)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-train-"))
    try:
        make_files(work)
        origins = Origins(work)
        try:
            for backend in BACKENDS:
                train(backend, Loads(work, options.seconds), origins, work, options.binary)
        finally:
            origins.stop()
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
