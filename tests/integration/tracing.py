"""Holds one thread of a process at a system call: what else happens meanwhile is then no accident.

ptrace(2) by its numbers; x86-64 and others alike (PTRACE_GET_SYSCALL_INFO, Linux 5.3).
"""
import ctypes
import os
import platform
import struct

SYSCALL, DETACH, SEIZE, INTERRUPT, GET_INFO = 24, 17, 0x4206, 0x4207, 0x420E
TRACESYSGOOD = 1
ENTRY = 1
# poll, ppoll, and restart_syscall: of a poll that was under way when its thread was stopped.
POLLS = {7, 271, 219} if platform.machine() == "x86_64" else {73, 128}
CLONES = {435, 56 if platform.machine() == "x86_64" else 220}
WALL = 0x40000000  # __WALL: threads too
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request, tid, address=0, data=0):
    result = _libc.ptrace(request, tid, address, data)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")
    return result


class Held:
    """Thread `tid`, stopped where it is; it runs again at the end of the block."""

    def __init__(self, tid):
        self.tid = tid
        _ptrace(SEIZE, tid, 0, TRACESYSGOOD)
        _ptrace(INTERRUPT, tid)
        self._wait()

    def _wait(self):
        _, status = os.waitpid(self.tid, WALL)
        assert os.WIFSTOPPED(status), f"thread {self.tid} has ended: {status}"

    def _call(self):
        """The number of the system call that it is about to make, or None."""
        info = ctypes.create_string_buffer(88)
        size = _ptrace(GET_INFO, self.tid, len(info), ctypes.addressof(info))
        return struct.unpack_from("=Q", info, 24)[0] if size >= 32 and info.raw[0] == ENTRY else None

    def run_to(self, numbers):
        """Until it is about to make one of these calls."""
        while True:
            _ptrace(SYSCALL, self.tid)
            self._wait()
            if self._call() in numbers:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            _ptrace(DETACH, self.tid)
        except ProcessLookupError:
            pass  # it was killed
