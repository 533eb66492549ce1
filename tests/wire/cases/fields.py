"""Field lines: their form, their number, and what a proxy passes on, drops, sets and believes."""
from .model import CL, bad, clause, forwarding, get, good, post, posted, up


def kept(name, headers, as_sent=None):
    """Passed on, as it came unless `as_sent` says otherwise."""
    return good(name, get(headers), sent=up(kept=headers if as_sent is None else as_sent))


def dropped(name, headers):
    return kept(name, headers, b"")


clause("9112 5", "field-line = field-name \":\" OWS field-value OWS",
       kept("value with tab and obs-text inside", b"X-A: a\tb \xe9 c\r\n"),
       kept("white space around the value goes", b"X-A: \t v \t \r\nX-B:v\r\n", b"X-A: v\r\nX-B: v\r\n"),
       kept("empty value", b"X-A:\r\n", b"X-A: \r\n"),
       kept("value of white space", b"X-A: \t \r\n", b"X-A: \r\n"),
       kept("value with colons", b"X-A: a: b:c\r\n"),
       kept("value with every visible character", b"X-A: %s\r\n" % bytes(range(0x21, 0x7f))),
       kept("every token character in a name", b"!#$%&'*+-.^`|~0aZ: v\r\n"),
       kept("order and repetition", b"X-B: 1\r\nX-A: 2\r\nX-B: 3\r\n"),
       bad("no colon", get(b"X-A\r\n")),
       bad("no colon, but an equals sign", get(b"X-A=b\r\n")),
       bad("no colon in the first line", b"GET /up/g HTTP/1.1\r\nX-A\r\nHost: x\r\n\r\n"),
       bad("a second request line", get(b"GET /up/evil HTTP/1.1\r\n")),
       bad("empty name", get(b": a\r\n")),
       bad("colon alone", get(b":\r\n")),
       bad("a colon before everything", get(b":X-A: a\r\n")))

clause("9110 5.1", "field-name = token",
       bad("name with space", get(b"X A: a\r\n")),
       *(bad(f"name with {chr(c)}", get(b"X%cA: a\r\n" % c)) for c in b'"(),/;<=>?@[\\]{}'),
       bad("name with 8-bit", get(b"X-\xe9: a\r\n")),
       bad("name with NUL", get(b"X\0A: a\r\n")),
       bad("name with control", get(b"X\x01A: a\r\n")),
       bad("name with DEL", get(b"X\x7fA: a\r\n")),
       bad("name with a tab first", get(b"\tX-A: a\r\n")))

clause("9112 5.1", "no white space between name and colon",
       bad("space before colon", get(b"X-A : a\r\n")),
       bad("tab before colon", get(b"X-A\t: a\r\n")),
       bad("many spaces before colon", get(b"X-A    : a\r\n")),
       bad("space before Host's colon", get(host=b"Host : x\r\n")))

clause("9112 5.2", "obs-fold is refused",
       bad("fold", get(b"X-A: a\r\n b\r\n")),
       bad("fold with tab", get(b"X-A: a\r\n\tb\r\n")),
       bad("fold of white space alone", get(b"X-A: a\r\n \r\n")),
       bad("fold that looks like a field", get(b"X-A: a\r\n X-B: b\r\n")),
       bad("fold of Host", get(host=b"Host:\r\n x\r\n")),
       bad("fold as first field", b"GET /up/g HTTP/1.1\r\n Host: x\r\n\r\n"),
       bad("fold behind Host", get(host=b"Host: x\r\n y\r\n")))

clause("9110 5.5", "a value has no controls but tab",
       *(bad(f"value with {name}", get(b"X-A: a%cb\r\n" % c)) for name, c in [
           ("NUL", 0), ("SOH", 1), ("backspace", 8), ("vertical tab", 11), ("form feed", 12),
           ("escape", 27), ("unit separator", 31), ("DEL", 127)]),
       *(bad(f"a long value with {name}", get(b"X-A: %s%c%s\r\n" % (b"a" * 40, c, b"b" * 40)))
         for name, c in [("NUL", 0), ("escape", 27), ("unit separator", 31), ("DEL", 127)]),
       bad("NUL at the end", get(b"X-A: a\0\r\n")),
       bad("NUL at the start", get(b"X-A:\0a\r\n")),
       bad("NUL in the empty line", b"GET /up/g HTTP/1.1\r\nHost: x\r\n\0\r\n"),
       bad("NUL as a line", get(b"\0\r\n")),
       bad("NUL between CR and LF", b"GET /up/g HTTP/1.1\r\0\nHost: x\r\n\r\n"))

# Host is one of the hundred, and the head's 32768 bytes count its lines' ends.
FULL = 32768 - len(get()) - len(b"X-A: \r\n")
clause("6585 5", "fields beyond 100, or a head beyond 32768 bytes, are 431; so many are served",
       kept("a hundred fields", b"".join(b"X-%d: v\r\n" % i for i in range(99))),
       bad("one more", get(b"".join(b"X-%d: v\r\n" % i for i in range(100))), 431),
       kept("the longest head", b"X-A: %s\r\n" % (b"v" * FULL)),
       bad("one byte more", get(b"X-A: %s\r\n" % (b"v" * (FULL + 1))), 431),
       bad("fields too large", get(b"".join(b"X-%d: %s\r\n" % (i, b"v" * 1000) for i in range(40))), 431),
       bad("one field too large", get(b"X-A: " + b"v" * 40000 + b"\r\n"), 431),
       bad("a value without end", b"GET /up/g HTTP/1.1\r\nHost: x\r\nX-A: " + b"v" * 40000, 431),
       bad("a name without end", b"GET /up/g HTTP/1.1\r\nHost: x\r\n" + b"v" * 40000, 431),
       bad("fields without end", b"GET /up/g HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200, 431))

clause("9110 7.6.1", "fields of one connection end here",
       *(dropped(name.split(b":")[0].decode(), name + b"\r\n") for name in [
           b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: gzip", b"Trailer: X-T",
           b"Upgrade: websocket", b"Proxy-Authorization: Basic eA==", b"HTTP2-Settings: AAMAAABk",
           b"Proxy-Authenticate: Basic", b"Connection: keep-alive"]),
       dropped("hop-by-hop in another case", b"kEEP-aLIVE: timeout=5\r\n"),
       good("TE: trailers is asked for anew", get(b"TE: trailers, gzip\r\nConnection: TE\r\n"),
            sent=up(connection=b"Connection: TE\r\nTE: trailers\r\n")))

clause("9110 7.6.1", "what Connection names goes too",
       dropped("a named field", b"Connection: X-Secret\r\nX-Secret: evil\r\n"),
       dropped("named in another case", b"Connection: x-sECRET\r\nX-Secret: evil\r\n"),
       dropped("named behind others", b"Connection: keep-alive,, X-Secret ,\r\nX-Secret: evil\r\n"),
       dropped("named in a second field", b"Connection: x\r\nConnection: X-Secret\r\nX-Secret: evil\r\n"),
       dropped("named after it came", b"X-Secret: evil\r\nConnection: X-Secret\r\n"),
       dropped("every one of its name",
               b"X-Secret: evil\r\nConnection: X-Secret\r\nX-Secret: more\r\n"),
       kept("a name that only begins alike", b"Connection: X-Secret\r\nX-Secrets: fine\r\n",
            b"X-Secrets: fine\r\n"),
       kept("sixteen names", b"Connection: %s\r\nX-16: fine\r\n"
            % b", ".join(b"X-%d" % i for i in range(16)), b"X-16: fine\r\n"),
       good("seventeen names are more than anyone needs",
            get(b"Connection: %s\r\n" % b", ".join(b"X-%d" % i for i in range(17))), 400, sent=(),
            proxy=True))

VALUES = {b"Authorization": b"Bearer t", b"Cookie": b"a=b", b"Origin": b"http://y",
          b"Content-Type": b"text/plain", b"Content-Encoding": b"gzip", b"Cache-Control": b"no-store",
          b"CDN-Loop": b"other"}
clause("9110 7.6.1", "Connection cannot name away what others rely on (CVE-2022-31813)",
       *(good(f"{name.decode()} named",
              post(b"Connection: %s\r\n%s: %s\r\n%s5\r\n" % (name, name, value, CL), b"hello"),
              sent=posted(kept=b"%s: %s\r\n" % (name, value))) for name, value in VALUES.items()),
       *(good(f"{name.decode()} named", post(b"Connection: %s\r\n%s5\r\n" % (name, CL), b"hello"),
              sent=posted()) for name in [b"Host", b"Content-Length", b"X-Forwarded-For",
                                          b"X-Forwarded-Host", b"X-Forwarded-Proto", b"Forwarded",
                                          b"Via"]))

clause("7239 4", "forwarding fields of a client that is not trusted are replaced",
       *(dropped(f"spoofed {name.split(b':')[0].decode()}", name + b"\r\n") for name in [
           b"X-Forwarded-For: 10.6.6.6", b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: https",
           b"Forwarded: for=10.6.6.6;proto=https", b"X-Forwarded-Port: 443", b"X-Real-IP: 10.6.6.6",
           b"X-Forwarded-Server: evil", b"X-Forwarded-Prefix: /evil", b"x-fORWARDED-sSL: on"]),
       dropped("spoofed twice", b"X-Forwarded-For: 10.6.6.6\r\nX-Forwarded-For: 10.7.7.7\r\n"),
       dropped("spoofed and named", b"X-Forwarded-For: 10.6.6.6\r\nConnection: X-Forwarded-For\r\n"),
       kept("what is no forwarding field stays", b"X-Forward: a\r\nX-Forwarded: b\r\n"))

clause("7239 5", "those of a trusted one are extended",
       good("X-Forwarded-For", get(b"X-Forwarded-For: 192.0.2.7\r\n"), gate="trusting",
            sent=up(added=forwarding(for_=b"192.0.2.7, 127.0.0.1", earlier=b"for=192.0.2.7, "))),
       good("two of them", get(b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 192.0.2.8\r\n"),
            gate="trusting", sent=up(added=forwarding(for_=b"192.0.2.7, 192.0.2.8, 127.0.0.1",
                                                     earlier=b"for=192.0.2.7, for=192.0.2.8, "))),
       good("an empty one", get(b"X-Forwarded-For:\r\n"), gate="trusting"),
       good("X-Forwarded-Proto", get(b"X-Forwarded-Proto: https\r\n"), gate="trusting",
            sent=up(added=forwarding(proto=b"https", earlier=b"for=unknown;proto=https, "))),
       good("X-Forwarded-Host", get(b"X-Forwarded-Host: y\r\n"), gate="trusting",
            sent=up(added=forwarding(earlier=b'for=unknown;host="y", ').replace(b"Host: x", b"Host: y"))),
       good("Forwarded", get(b"Forwarded: for=192.0.2.7\r\n"), gate="trusting",
            sent=up(added=forwarding(for_=b"192.0.2.7, 127.0.0.1", earlier=b"for=192.0.2.7, "))),
       good("X-Real-IP is left as it is", get(b"X-Real-IP: 192.0.2.7\r\n"), gate="trusting",
            sent=up(kept=b"X-Real-IP: 192.0.2.7\r\n")),
       good("an alias is dropped all the same", get(b"X_Forwarded_For: 192.0.2.7\r\n"), gate="trusting"))


def told(name, fields, host=b"x", **what):
    """What a trusted peer has told, and what the upstream gets of it."""
    return good(name, get(fields), gate="trusting",
                sent=up(added=forwarding(**what).replace(b"-Host: x", b"-Host: " + host)))


LONG = b", ".join([b"192.0.2.7"] * 65)
clause("7239 7.4", "a trusted peer that sends one kind has sent the other one, too",
       told("X-Forwarded-*", b"X-Forwarded-For: 192.0.2.7, 2001:DB8::7, [2001:db8::8]:80, 192.0.2.8:90\r\n"
            b"X-Forwarded-Host: y:81\r\nX-Forwarded-Proto: HTTPS\r\n", host=b"y:81", proto=b"HTTPS",
            for_=b"192.0.2.7, 2001:DB8::7, [2001:db8::8]:80, 192.0.2.8:90, 127.0.0.1",
            earlier=b'for=192.0.2.7;host="y:81";proto=https, for="[2001:db8::7]", for="[2001:db8::8]", for=192.0.2.8, '),
       told("Forwarded", b'Forwarded: for="192.0.2.7:4711";by=1;host="y:81";proto=https, For="[2001:db8::7]:1" ; proto=http\r\n',
            host=b"y:81", proto=b"https", for_=b"192.0.2.7, 2001:db8::7, 127.0.0.1",
            earlier=b'for="192.0.2.7:4711";by=1;host="y:81";proto=https, For="[2001:db8::7]:1" ; proto=http, '),
       told("who sends both has said all", b"X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.8;proto=https\r\n",
            for_=b"192.0.2.7, 127.0.0.1", earlier=b"for=192.0.2.8;proto=https, "),
       told("what is no address is unknown", b'X-Forwarded-For: a";proto=https;for=1, unix:/x, 192.0.2.7\r\n',
            for_=b'a";proto=https;for=1, unix:/x, 192.0.2.7, 127.0.0.1',
            earlier=b"for=unknown, "),
       told("nor are names", b'Forwarded: for=_hidden, for="a, 192.0.2.9", proto=ftp;host="a b", for="192.0.2.7\r\n',
            for_=b"unknown, unknown, unknown, unknown, 127.0.0.1",
            earlier=b'for=_hidden, for="a, 192.0.2.9", proto=ftp;host="a b", for="192.0.2.7, '),
       told("a list of too many stays alone", b"X-Forwarded-For: " + LONG + b"\r\n", for_=LONG + b", 127.0.0.1"))

clause("CVE-2016-5385", "Proxy would become HTTP_PROXY in a CGI's environment: dropped",
       dropped("Proxy", b"Proxy: http://evil\r\n"),
       dropped("Proxy in another case", b"pROXY: http://evil\r\n"))

clause("THREATS", "a name with \"_\" that a CGI would read as one we set or trust is dropped",
       *(dropped(name.decode(), name + b": evil\r\n") for name in [
           b"X_Forwarded_For", b"X-Forwarded_For", b"x_forwarded-for", b"X_Forwarded_Proto",
           b"X_Forwarded_Host", b"X_Forwarded_Port", b"X_Real_IP", b"Content_Length",
           b"Transfer_Encoding", b"If_None_Match", b"User_Agent", b"Set_Cookie",
           b"Proxy_Authorization", b"Content_Type"]),
       kept("a name with an underscore of its own", b"X_My_Thing: fine\r\n"))


def vias(n):
    return b"Via: " + b", ".join([b"1.1 anygate"] * n) + b"\r\n"


def via_sent(n):
    # Via stays where it was; the own entry comes last.
    return up(kept=vias(n))


clause("8586 2", "a request that has been here more than five times goes in a loop: 508",
       good("five times", get(vias(5)), sent=via_sent(5)),
       good("six times", get(vias(6)), 508, sent=(), proxy=True),
       good("six times over two fields", get(vias(3) + vias(3)), 508, sent=(), proxy=True),
       good("six times with comments",
            get(b"Via: " + b", ".join([b"1.0 anygate (x, \"y\")"] * 6) + b"\r\n"), 508, sent=(), proxy=True),
       good("six times in another case", get(b"Via: " + b", ".join([b"1.1 ANYGATE"] * 6) + b"\r\n"), 508,
            sent=(), proxy=True),
       good("six times in CDN-Loop", get(b"CDN-Loop: " + b", ".join([b"anygate"] * 6) + b"\r\n"), 508,
            sent=(), proxy=True),
       good("six times in CDN-Loop with parameters",
            get(b"CDN-Loop: " + b", ".join([b"anygate; a=b"] * 6) + b"\r\n"), 508, sent=(), proxy=True),
       good("Via cannot be named away", get(vias(6) + b"Connection: Via\r\n"), 508, sent=(), proxy=True),
       good("Via cannot be named away beforehand", get(b"Connection: Via\r\n" + vias(6)), 508, sent=(),
            proxy=True),
       good("others' entries do not count",
            get(b"Via: " + b", ".join([b"1.1 other"] * 20) + b"\r\n"),
            sent=up(kept=b"Via: " + b", ".join([b"1.1 other"] * 20) + b"\r\n")))

clause("9110 7.8", "an Upgrade that is not a whole WebSocket handshake is dropped, and stays HTTP",
       *(dropped(name, headers) for name, headers in [
           ("h2c", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
           ("h2c beside websocket", b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
           ("TLS", b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"),
           ("HTTP/2.0", b"Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n"),
           ("Upgrade that Connection does not name", b"Upgrade: foo/1\r\n"),
           ("Connection: upgrade without Upgrade", b"Connection: Upgrade\r\n")]),
       good("WebSocket without a key", get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), sent=up()),
       good("WebSocket with a bad key", get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
                                            b"Sec-WebSocket-Key: AAAA\r\n"),
            sent=up(kept=b"Sec-WebSocket-Key: AAAA\r\n")),
       good("two protocols", get(b"Connection: Upgrade\r\nUpgrade: websocket, foo/1\r\n"
                                 b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"),
            sent=up(kept=b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n")),
       good("in HTTP/1.0", b"GET /up/g HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo/1\r\n\r\n",
            closes=True, sent=up(via=b"1.0")),
       good("Upgrade with content", post(b"Connection: Upgrade\r\nUpgrade: foo/1\r\n" + CL + b"5\r\n",
                                         b"hello"), sent=posted()))
