"""Waiting, for tests on a machine whose processes stand still at times."""
import select
import time
import warnings

from tcptable import CLOSE_WAIT, ESTABLISHED, LISTEN, SYN_RECV, rows, unix_listeners


def await_that(is_so, what=lambda: "it", timeout=60):
    """Until is_so() is true; that value. what() is told when it never is."""
    deadline = time.monotonic() + timeout
    while not (value := is_so()):
        assert time.monotonic() < deadline, f"never came: {what()}"
        time.sleep(0.005)
    return value


def await_read(*socks):
    """Until the server has accepted these connections (of TCP) and read all that was sent on them."""
    pairs = {(s.getpeername()[1], s.getsockname()[1]) for s in socks}

    def is_read():
        for row in rows("tcp", "tcp6"):
            # One without an inode is nobody's: not yet, or not any more, when it has been closed here.
            waits = row.inode == "0" and row.state in (ESTABLISHED, SYN_RECV, CLOSE_WAIT)
            if (row.here, row.there) in pairs and (row.unread or waits):
                return False
            if (row.there, row.here) in pairs and row.unsent:
                return False
        return True
    await_that(is_read, lambda: f"that {pairs} are read", 20)


def await_listener(port):
    """Until somebody listens there, without a connection to find out."""
    await_that(lambda: any(row.here == port and row.state == LISTEN for row in rows("tcp", "tcp6")),
               lambda: f"who listens on port {port}", 20)


def await_unix_listener(path):
    """The same of a unix socket: TCP ports that came before it can be served already."""
    await_that(lambda: str(path) in unix_listeners(), lambda: f"who listens at {path}", 20)


def await_hangup(sock, timeout=20):
    """Until the other side has reset the connection, or both have ended it, without reading; False: it has not."""
    looks = select.poll()
    looks.register(sock, 0)
    return bool(looks.poll(timeout * 1000))


# Some have to be quicker than a short timeout of the server: where somebody stood still meanwhile they are done again,
# and the report of the run says so. What the server does wrong it does wrong each time.

def again(attempt, tries=5):
    """attempt(), which fails when it was too slow."""
    for left in reversed(range(tries)):
        try:
            return attempt()
        except Exception as e:
            if not left:
                raise
            warnings.warn(f"tried again: {e!r}", stacklevel=2)


def in_time(attempt, tries=10):
    """What attempt(number) gives that is true: it says by that whether its own clock was in time. Whatever fails in it
    fails the test."""
    for number in range(tries):
        if result := attempt(number):
            return result
        warnings.warn("tried again: it was not in time", stacklevel=2)
    raise AssertionError("the test was never as quick as it has to be")
