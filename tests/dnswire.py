"""A name server for tests: UDP and TCP on one port of loopback, records as they are told, and every way to be wrong.

    with NameServer({"a.test": Name(a=["127.0.0.1"], ttl=1)}) as dns:
        ... resolver: {servers: ["127.0.0.1:<dns.port>"]} ...
        assert dns.asked("a.test", "A") == 1
"""
import ipaddress
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from acceptor import Acceptor, each_in_a_thread
from waiting import await_that

TYPES = {"A": 1, "CNAME": 5, "AAAA": 28, "SRV": 33}
NAMES = {number: name for name, number in TYPES.items()}
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
UDP_MAX = 512


@dataclass
class Name:
    """What is known of a name.

    a, aaaa   addresses as text;  srv: (priority, weight, port, host);  cname: another name, whose records follow
    rcode     of every answer;  silent: there is none;  delay: seconds before it
    cut       by UDP an answer is empty and says that it is cut short (it is, too, when it is too long)
    lie       a function of (query, answer) to the bytes, or list of datagrams, that are sent in the answer's place
    """
    a: list = field(default_factory=list)
    aaaa: list = field(default_factory=list)
    srv: list = field(default_factory=list)
    cname: str = None
    ttl: int = 60
    rcode: int = NOERROR
    silent: bool = False
    delay: float = 0
    cut: bool = False
    lie: object = None


def encode(name):
    labels = [part.encode() for part in name.strip(".").split(".") if part]
    return b"".join(bytes([len(part)]) + part for part in labels) + b"\0"


def question(query):
    """(name in lower case, type, end) of the one question."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1").lower())
        at += 1 + query[at]
    return ".".join(labels), NAMES.get(struct.unpack_from(">H", query, at + 1)[0], "?"), at + 5


def record(owner, kind, ttl, data):
    return encode(owner) + struct.pack(">HHIH", TYPES[kind], 1, ttl, len(data)) + data


def data_of(kind, value):
    if kind == "SRV":
        return struct.pack(">HHH", *value[:3]) + encode(value[3])
    return ipaddress.ip_address(value).packed


def answer(query, records, rcode=NOERROR, cut=False):
    _, _, end = question(query)
    flags = 0x8180 | rcode | (0x200 if cut else 0)
    return (query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + query[12:end]
            + b"".join(records))


# ---- lies: (query, answer) -> what is sent ----

def other_id(_, reply):
    return bytes([reply[0] ^ 0xff]) + reply[1:]


def other_question(query, reply):
    name, _, end = question(query)
    return reply[:12] + encode("x" * len(name)) + reply[end - 4:]


def garbage(query, _):
    return query[:2] + b"\xff" * 100


def short(_, reply):
    return reply[:11]


def loop_of_names(query, _):
    """Its own name is another name of it."""
    name, _, _ = question(query)
    return answer(query, [record(name, "CNAME", 60, encode(name))])


def pointer_loop(query, _):
    """The owner of the record is a pointer to itself."""
    _, _, end = question(query)
    return answer(query, [struct.pack(">HHHIH", 0xc000 | end, 1, 1, 60, 4) + b"\x7f\0\0\1"])


def more_than_there_is(query, reply):
    """Says that it has a thousand records."""
    return reply[:6] + b"\x03\xe8" + reply[8:]


class NameServer:
    def __init__(self, names, host="127.0.0.1"):
        self.names = names
        self.queries = []  # (name, type, "udp" or "tcp")
        self.lock = threading.Lock()
        self.closing = False
        self.udp, self.tcp = self._bind(host)
        self.port = self.tcp.getsockname()[1]
        self.reader = threading.Thread(target=self._serve_udp, daemon=True)
        self.reader.start()
        self.acceptor = Acceptor(self.tcp, each_in_a_thread(self._serve_stream))

    @staticmethod
    def _bind(host):
        """Both on the same port, which only trying tells."""
        while True:
            tcp = socket.create_server((host, 0))
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                udp.bind((host, tcp.getsockname()[1]))
                return udp, tcp
            except OSError:
                tcp.close()
                udp.close()

    def asked(self, name, kind=None, by=None):
        with self.lock:
            return sum(n == name and kind in (None, k) and by in (None, b)
                       for n, k, b in self.queries)

    def await_asked(self, name, count=1):
        await_that(lambda: self.asked(name) >= count, lambda: f"{name}, asked for {self.asked(name)} times", 20)

    def _records(self, name, kind, depth=0):
        known = self.names.get(name)
        if not known:
            return []
        if known.cname and depth < 8:
            return [record(name, "CNAME", known.ttl, encode(known.cname)),
                    *self._records(known.cname, kind, depth + 1)]
        values = {"A": known.a, "AAAA": known.aaaa, "SRV": known.srv}.get(kind, [])
        return [record(name, kind, known.ttl, data_of(kind, v)) for v in values]

    def _replies(self, query, by):
        """What is sent for it: a list, of one mostly."""
        name, kind, _ = question(query)
        with self.lock:
            self.queries.append((name, kind, by))
            known = self.names.get(name)
            records = self._records(name, kind)
        if not known:
            return [answer(query, [], NXDOMAIN)]
        if known.delay:
            time.sleep(known.delay)
        if known.silent:
            return []
        reply = answer(query, records if known.rcode == NOERROR else [], known.rcode)
        if by == "udp" and (known.cut or len(reply) > UDP_MAX):
            reply = answer(query, [], cut=True)
        lie = known.lie(query, reply) if known.lie else reply
        return lie if isinstance(lie, list) else [lie]

    def _reply_udp(self, query, peer):
        for reply in self._replies(query, "udp"):
            try:
                self.udp.sendto(reply, peer)
            except OSError:
                return

    def _serve_udp(self):
        while not self.closing:
            try:
                query, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            if query:  # else it is closed
                threading.Thread(target=self._reply_udp, args=(query, peer), daemon=True).start()

    def _serve_stream(self, conn):
        with conn, conn.makefile("rb") as stream:
            while True:
                head = stream.read(2)
                if len(head) < 2:
                    return
                query = stream.read(struct.unpack(">H", head)[0])
                for reply in self._replies(query, "tcp"):
                    try:
                        conn.sendall(struct.pack(">H", len(reply)) + reply)
                    except OSError:
                        return

    def close(self):
        self.closing = True
        self.acceptor.close()
        try:
            self.udp.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.reader.join(10)  # before another one's socket has its number
        self.udp.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
