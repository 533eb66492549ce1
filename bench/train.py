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

from workloads import CASES
from loads import Loads
from servers import HERE, Origins, Server, build, make_files

LEFT_OUT = {"beside_idle"}  # by its load: no code that others do not run


def train(backend, loads, origins, work, binary):
    name = f"anygate {backend}"
    server = Server(name, work, origins.values, binary)
    try:
        for case in CASES.values():
            if case.load not in LEFT_OUT:
                load = getattr(loads, case.load)(server.ports[case.port], case.path)
                if load.bad or not load.requests:
                    raise SystemExit(f"{name}, {case.name}: {load.requests} requests; {load.bad}")
    finally:
        server.stop()
    if server.process.returncode:
        raise SystemExit(f"{backend}: the server ended with {server.process.returncode}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=str(HERE.parent / "build/gcc-train/anygate"))
    parser.add_argument("--seconds", type=float, default=1)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="anygate-train-"))
    try:
        make_files(work)
        build(work)
        origins = Origins(work)
        try:
            for backend in ("epoll", "io_uring"):
                train(backend, Loads(work, options.seconds), origins, work, options.binary)
        finally:
            origins.stop()
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
