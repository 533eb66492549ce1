"""The kernel's table of sockets, as /proc tells it."""
from pathlib import Path
from typing import NamedTuple

ESTABLISHED, SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE_WAIT, LISTEN = "01", "02", "03", "06", "08", "0A"
SO_ACCEPTCON = 0x10000


class Row(NamedTuple):
    here: int  # ports
    there: int
    state: str
    unsent: int  # bytes
    unread: int
    inode: str  # "0": it is nobody's: not accepted yet, or closed already

    @property
    def link(self):
        """What a descriptor of it leads to, in /proc/PID/fd."""
        return f"socket:[{self.inode}]"


def unix_listeners():
    """The paths of sockets that somebody listens at."""
    cells = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {cell[7] for cell in cells if len(cell) == 8 and int(cell[3], 16) & SO_ACCEPTCON}


def rows(*tables, pid="self"):
    """Those of the network that the process is in. tables: tcp, tcp6, udp, udp6; tcp when none is said."""
    found = []
    for table in tables or ("tcp",):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            cell = line.split()
            here, there = (int(address.rpartition(":")[2], 16) for address in cell[1:3])
            unsent, unread = (int(size, 16) for size in cell[4].split(":"))
            found.append(Row(here, there, cell[3], unsent, unread, cell[9]))
    return found
