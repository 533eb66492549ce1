"""Ports to listen on, of which each process that runs tests has its own.

A port that the system chooses (bind to 0) is one of those that it also gives to outgoing connections: by the time
a server binds it, it may be taken. So these lie below them, in lanes; a process holds its lane by a socket's name, which
goes when the process ends, however it ends.
"""
import functools
import itertools
import socket

FIRST, LANE, LANES = 10000, 1000, 22
EPHEMERAL = 32768  # where the system's own choices begin (net.ipv4.ip_local_port_range)

assert FIRST + LANE * LANES <= EPHEMERAL


def hold(what):
    """A socket: as long as it is open nobody else on this machine holds the same. None: somebody does."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0anygate-{what}")
    except OSError:
        lock.close()
        return None
    return lock


@functools.cache
def _lane():
    """The ports of this process, over and over, and what keeps them its own."""
    for number in range(LANES):
        if lock := hold(f"ports-{number}"):
            start = FIRST + number * LANE
            return itertools.cycle(range(start, start + LANE)), lock
    raise RuntimeError(f"{LANES} processes run tests: no ports are left")


def free_port():
    """One that nobody listens on, and that was not given for the last few hundred times."""
    ports, _ = _lane()
    for port in itertools.islice(ports, LANE):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port of this process is taken")


def is_free(port, host="127.0.0.1"):
    """Whether nobody listens there: what closed connections have left is no obstacle."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True
