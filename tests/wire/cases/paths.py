"""Paths: decoded once, normalised, matched, and forwarded as they were matched (RFC 3986 section 6.2.2)."""
from .model import clause, get, good, up


def forwarded(path, as_sent):
    return good(f"path {path}", get(target=path.encode()), sent=up(b"GET " + as_sent.encode()))


def elsewhere(path):
    """Is outside of what is proxied, however it is spelled."""
    return good(f"path {path}", get(target=path.encode()), 404, sent=())


clause("3986 6.2.2.2", "escapes of unreserved characters are decoded, all others stay escapes",
       forwarded("/up/%61%7E%5F%2d%30", "/up/a~_-0"),
       forwarded("/%75p/a", "/up/a"),
       forwarded("/up/a%2fb", "/up/a%2Fb"),
       forwarded("/up/a%2Fb", "/up/a%2Fb"),
       forwarded("/up/a%5cb", "/up/a%5Cb"),
       forwarded("/up/a%3fb%23c", "/up/a%3Fb%23c"),
       forwarded("/up/a%25b", "/up/a%25b"),
       forwarded("/up/a%3ab%40c%21", "/up/a%3Ab%40c%21"),
       forwarded("/up/a%0d%0aHost:%20y", "/up/a%0D%0AHost:%20y"),
       forwarded("/up/%c3%a9%ff", "/up/%C3%A9%FF"),
       forwarded("/up/a;b=c,d", "/up/a;b=c,d"))

clause("3986 5.2.4", "dot segments are removed, also when they are escaped, and never decoded twice",
       forwarded("/up/./a", "/up/a"),
       forwarded("/up/b/../a", "/up/a"),
       forwarded("/up/%2e/a", "/up/a"),
       forwarded("/up/b/%2e%2e/a", "/up/a"),
       forwarded("/up/b/%2E./a", "/up/a"),
       forwarded("/up/b/.%2e/a", "/up/a"),
       forwarded("/x/../up/a", "/up/a"),
       forwarded("/../../up/a", "/up/a"),
       forwarded("/up/a/.", "/up/a/"),
       forwarded("/up/a/b/..", "/up/a/"),
       forwarded("/up/a/b/%2e%2e", "/up/a/"),
       forwarded("/up/...", "/up/..."),
       forwarded("/up/.a/..b/c..", "/up/.a/..b/c.."),
       forwarded("/up/%252e%252e/a", "/up/%252e%252e/a"),
       forwarded("/up/..%2fa", "/up/..%2Fa"),
       forwarded("/up/..%5ca", "/up/..%5Ca"),
       forwarded("/up/..;/a", "/up/..;/a"),
       forwarded("/up/%c0%ae%c0%ae/a", "/up/%C0%AE%C0%AE/a"),
       elsewhere("/up/.."),
       elsewhere("/up/../a"),
       elsewhere("/up/%2e%2e/a"),
       elsewhere("/up/a/../../b"))

clause("THREATS", "empty segments stay, so that no two readings of a path exist",
       forwarded("/up/a//b", "/up/a//b"),
       forwarded("/up//", "/up//"),
       forwarded("/up/a//../b", "/up/a/b"),
       elsewhere("//up/a"),
       elsewhere("/Up/a"))
