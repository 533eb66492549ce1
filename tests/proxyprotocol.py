"""PROXY headers, for tests: written and read by haproxy's proxy-protocol.txt, sharing nothing with the server."""
import socket
import struct
from dataclasses import dataclass, field

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, SSL = 1, 2, 3, 4, 5, 0x20
SSL_VERSION, SSL_CIPHER = 0x21, 0x23
LOCAL, PROXY = 0x20, 0x21


def v1(source, destination, source_port=1111, destination_port=2222):
    kind = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {kind} {source} {destination} {source_port} {destination_port}\r\n".encode()


def tlv(kind, value):
    return bytes([kind]) + struct.pack(">H", len(value)) + value


def block(command, family, body):
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(body)) + body


def v2(source, destination, source_port=1111, destination_port=2222, tlvs=b"", command=PROXY):
    family, code = (socket.AF_INET6, 0x21) if ":" in source else (socket.AF_INET, 0x11)
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    return block(command, code, addresses + struct.pack(">HH", source_port, destination_port) + tlvs)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def checked(source, destination):
    """Version 2 with a checksum."""
    header = v2(source, destination, tlvs=tlv(CRC32C, bytes(4)))
    return header[:-4] + struct.pack(">I", crc32c(header))


@dataclass
class Header:
    version: int
    local: bool = False
    source: tuple = None  # (address, port); None: not told
    destination: tuple = None
    tlvs: dict = field(default_factory=dict)


def tlvs_of(data):
    out = {}
    while data:
        kind, size = data[0], struct.unpack(">H", data[1:3])[0]
        assert len(data) >= 3 + size and kind not in out, data
        out[kind], data = data[3:3 + size], data[3 + size:]
    return out


def read_v1(line):
    words = line.decode("ascii").split(" ")
    if words == ["PROXY", "UNKNOWN"]:
        return Header(1)
    word, kind, source, destination, source_port, destination_port = words
    family = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}[kind]
    assert word == "PROXY" and socket.inet_pton(family, source) and socket.inet_pton(family, destination)
    return Header(1, False, (source, int(source_port)), (destination, int(destination_port)))


def read(data):
    """(header, rest), or None when it is not whole."""
    if data[:12] == SIGNATURE[:len(data[:12])]:
        if len(data) < 16 or len(data) < 16 + struct.unpack(">H", data[14:16])[0]:
            return None
        size = 16 + struct.unpack(">H", data[14:16])[0]
        body, rest = data[16:size], data[size:]
        assert data[12] in (LOCAL, PROXY), data
        if data[13] == 0:
            assert not body
            return Header(2, data[12] == LOCAL), rest
        family, n = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}[data[13]]
        ports = struct.unpack(">HH", body[2 * n:2 * n + 4])
        return Header(2, data[12] == LOCAL, (socket.inet_ntop(family, body[:n]), ports[0]),
                      (socket.inet_ntop(family, body[n:2 * n]), ports[1]), tlvs_of(body[2 * n + 4:])), rest
    assert data[:6] == b"PROXY "[:len(data[:6])], data
    if b"\r\n" not in data:
        assert len(data) < 107
        return None
    line, rest = data.split(b"\r\n", 1)
    return read_v1(line), rest
