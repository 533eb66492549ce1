"""What is measured: one row a case. A load of loads.py on a port and a path, who can serve it, its floor and its goal."""
from dataclasses import dataclass

ANYGATE = ("anygate epoll", "anygate io_uring")
FLOORS = ("floor epoll", "floor io_uring")
ALL = ("nginx", "haproxy", "h2o", *ANYGATE)
# HAProxy serves no files; nginx and h2o know no HTTP/2 towards origins; this h2o takes tickets of TLS 1.2 alone.
FILES = ("nginx", "h2o", *ANYGATE)
PROXIES = ("nginx", "nginx 16x32k", "haproxy", "h2o", *ANYGATE)
TO_H2 = ("haproxy", *ANYGATE)
RESUMES = ("nginx", "haproxy", *ANYGATE)


@dataclass(frozen=True)
class Goal:
    """At most `ratio` of what `of` spends: "floor" (the lower of the two) or "best" (of the peers).

    text says it as it was set, in microseconds of the machine that the goal was set on.
    """
    of: str
    ratio: float
    text: str


@dataclass(frozen=True)
class Case:
    name: str
    group: str
    title: str
    load: str     # a method of Loads
    port: str     # which of a server's ports
    path: str
    servers: tuple
    goal: Goal | None = None
    floor: tuple | None = None  # a program of floor/ and what it is told besides ports


def floor(ratio, text):
    return Goal("floor", ratio, text)


def best(ratio, text=""):
    return Goal("best", ratio, text or f"{ratio:g} of the best peer")


ONE, RELAY = "HTTP/1.1", "Proxy"
CASES = {case.name: case for case in (
    Case("fixed", ONE, "h1 fixed, 2 bytes", "h1", "PORT", "/fixed", ALL,
         floor(1.065, "floor + 0.3 of 4.6 us"), ("respond", 2)),
    Case("pipelined16", ONE, "h1 fixed, 16 pipelined", "pipelined", "PORT", "/fixed", ALL,
         best(0.093, "0.5 us where the best peer takes 5.4")),
    Case("connect", ONE, "h1 fixed, a connection each", "connects", "PORT", "/fixed", ALL, best(0.9)),
    Case("idle10k", ONE, "h1 fixed, beside 10,000 idle connections", "beside_idle", "PORT", "/fixed", ALL),
    Case("static1k", ONE, "h1 static, 1 KB", "h1", "PORT", "/static/1k.txt", FILES,
         floor(1.106, "floor + 0.5 of 4.7 us"), ("respond", 1024)),
    Case("static64k", ONE, "h1 static, 64 KB", "h1", "PORT", "/static/64k.bin", FILES, best(0.9)),
    Case("static10m", ONE, "h1 static, 10 MB", "large", "PORT", "/static/10m.bin", FILES),
    Case("proxy2", RELAY, "h1 to h1 proxy, 2 bytes", "h1", "PORT", "/proxy/small", PROXIES,
         floor(1.084, "floor + 0.8 of 9.5 us"), ("relay", 262144)),
    Case("proxy64k", RELAY, "h1 to h1 proxy, 64 KB", "h1", "PORT", "/proxy/64k.bin", PROXIES,
         floor(1.05, "1.05 of the floor"), ("relay", 262144)),
    Case("proxy1m", RELAY, "h1 to h1 proxy, 1 MB", "h1", "PORT", "/proxy/1m.bin", PROXIES,
         floor(1.05, "1.05 of the floor"), ("relay", 262144)),
    Case("upload64k", RELAY, "h1 to h1 proxy, upload of 64 KB", "upload_64k", "PORT", "/sink/", ALL,
         None, ("relay-sink", 262144)),
    Case("upload1m", RELAY, "h1 to h1 proxy, upload of 1 MB", "upload_1m", "PORT", "/sink/", ALL,
         None, ("relay-sink", 262144)),
    Case("websocket", RELAY, "WebSocket through the proxy, message and echo", "websocket", "PORT", "/ws",
         ALL, None, ("relay-ws", 65536)),
    Case("h2-fixed", "HTTP/2", "h2 fixed, 2 bytes", "h2", "H2C", "/fixed", ALL,
         best(0.536, "0.45 us where the best peer takes 0.84")),
    Case("h2-static64k", "HTTP/2", "h2 static, 64 KB", "h2", "H2C", "/static/64k.bin", FILES),
    Case("h2-h1", "HTTP/2", "h2 to h1 proxy, 2 bytes", "h2", "H2C", "/proxy/small", PROXIES,
         best(0.824, "7.5 us where the best peer takes 9.1")),
    Case("h2-h1-64k", "HTTP/2", "h2 to h1 proxy, 64 KB", "h2", "H2C", "/proxy/64k.bin", PROXIES),
    Case("h2-h2", "HTTP/2", "h2 to h2 proxy, 2 bytes", "h2", "H2C", "/h2/small", TO_H2,
         best(0.429, "1.5 us where the best peer takes 3.5")),
    Case("tls-fixed", "TLS 1.3", "TLS, h1 fixed, 2 bytes", "h1_tls", "TLS", "/fixed", ALL, best(0.85)),
    Case("tls-1m", "TLS 1.3", "TLS, h1 static, 1 MB", "h1_tls", "TLS", "/static/1m.bin", FILES, best(1)),
    Case("tls-full", "TLS 1.3", "TLS, full handshake (P-256) and a request", "full", "TLS", "/fixed", ALL, best(1)),
    Case("tls-resumed", "TLS 1.3", "TLS, resumed handshake and a request", "resumed", "TLS", "/fixed", RESUMES,
         best(0.833, "1.2 times as many as nginx")),
    Case("h2s-fixed", "TLS 1.3", "TLS, h2 fixed, 2 bytes", "h2_tls", "TLS", "/fixed", ALL),
)}
NAMES = ("nginx", "nginx 16x32k", "haproxy", "h2o", *FLOORS, *ANYGATE)


def able(case, names):
    """Of `names`, those that can serve the case, the floors where there is one included."""
    return [name for name in names if name in case.servers or (case.floor and name in FLOORS)]
