"""A listening socket of a test, and the thread that takes what comes to it."""
import socket
import threading


class Acceptor:
    """Hands each connection to take(socket), one after another, until close().

    `listener` is its own from now on. It is closed only when the thread is out of accept: a descriptor's number is used
    again, and a thread still in there would take the connections of whatever socket has it next.
    """

    def __init__(self, listener, take):
        self.listener, self.take = listener, take
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.take(sock)

    def close(self):
        """Once or more often."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self.thread.join(10)
        except OSError:
            pass
        self.listener.close()


def each_in_a_thread(serve):
    """What takes connections for an Acceptor where each has a thread of its own: serve(socket)."""
    return lambda sock: threading.Thread(target=serve, args=(sock,), daemon=True).start()
