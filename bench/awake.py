"""Cores that do not halt, for those that do may take milliseconds to wake when they are virtual."""
import contextlib
import os
import subprocess
import sys

SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # nor does it outlive this program


@contextlib.contextmanager
def awake(wanted):
    """Something that runs on each core when nothing else does, if it is wanted."""
    spins = [subprocess.Popen(["taskset", "-c", str(core), "chrt", "--idle", "0", sys.executable, "-c", SPIN])
             for core in sorted(os.sched_getaffinity(0)) if wanted]
    try:
        yield
    finally:
        for spin in spins:
            spin.kill()
            spin.wait()
