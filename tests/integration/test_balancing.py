"""How servers are chosen, by the binary: shares over shards, keys, cookies, zones."""
import collections
import itertools
import re
import threading
import time
from contextlib import ExitStack

import pytest
from gate import Gate, Reader, Upstream, ok
from test_reload import Reloading
from test_upstream_sets import Named, four, names  # noqa: F401 (a fixture)
from test_upstream_slots import clients
from waiting import await_that


def config(servers, options="", workers=1, proxy="", more=""):
    listed = ", ".join(f'"127.0.0.1:{s.port}{tail}"' for s, tail in
                       ((s, "") if isinstance(s, Upstream) else s for s in servers))
    return (f'server: {{listen: ["127.0.0.1:$PORT"], workers: {workers}, trusted_proxies: [127.0.0.1]}}\n'
            f'proxy: {{{proxy}upstreams: {{up: {{servers: [{listed}]{options}}}}}}}\n'
            f'routes: {{"/*": "http://up"}}\n{more}')


def test_turns_are_fair_over_shards(backend, tmp_path):
    """Ten servers, two shards: each has its share to within one a shard."""
    servers = [Named(str(i)) for i in range(10)]
    try:
        with Gate(tmp_path, config(servers, workers=2), backend) as gate:
            for _ in range(20):
                with gate.connect() as sock:  # each on one of the shards
                    reader = Reader(sock)
                    for _ in range(10):
                        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                        assert reader.response().status == 200
        counts = [len(s.requests) for s in servers]
        assert sum(counts) == 200 and max(counts) - min(counts) <= 2, counts
    finally:
        for s in servers:
            s.close()


def test_least_conn_follows_the_load(backend, tmp_path, four):  # noqa: F811
    """A server that does not answer gets no second request while others are free."""
    a, b, c, _ = four
    with Gate(tmp_path, config([a, b, c], ", balance: least_conn"), backend) as gate:
        with gate.connect() as slow:
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await_that(lambda: any(b"/slow" in r for s in (a, b, c) for r in s.requests), gate.stderr)
            held = next(s for s in (a, b, c) if any(b"/slow" in r for r in s.requests))
            got = collections.Counter(names(gate, 20))
            assert held.name.decode() not in got and sorted(got.values()) == [10, 10]
            held.go_on.set()
            assert Reader(slow).response().status == 200
        assert held.name.decode() in names(gate, 6)


@pytest.mark.parametrize("balance", ["least_conn", "random_two", "{random_two: ewma}"])
def test_load_goes_where_it_is_worked_off_over_shards(backend, tmp_path, balance):
    """One of four servers takes 50 times as long, and as much longer as the machine is slower: each shard finds that
    out from its own requests."""
    def soon(_index, _head):
        time.sleep(0.002)
        return ok(b"ok")

    def late(_index, _head):
        """When the others have answered often meanwhile, or nobody asks them any more."""
        first = before = sum(len(s.requests) for s in fast)
        while True:
            time.sleep(0.1)
            now = sum(len(s.requests) for s in fast)
            if now - first >= 40 or now == before:
                return ok(b"ok")
            before = now

    with ExitStack() as stack:
        fast = [stack.enter_context(Upstream(soon)) for _ in range(3)]
        slow = stack.enter_context(Upstream(late))
        with Gate(tmp_path, config([*fast, slow], f", balance: {balance}", workers=2), backend) as gate:
            assert clients(gate, 16, 60) == [200] * 960
        counts = [len(s.requests) for s in fast]
        assert len(slow.requests) < min(counts) / 2, (counts, len(slow.requests))


@pytest.mark.parametrize("balance, same, other", [
    ("{hash: uri}", ["/x?1", "/x?1"], ["/x?2", "/y", "/z", "/w", "/v", "/u", "/t"]),
    ("{hash: path}", ["/x?1", "/x?2"], ["/y", "/z", "/w", "/v", "/u", "/t", "/s"]),
    ("{hash: {query: u}}", ["/a?u=1", "/b?k=2&u=1"], [f"/a?u={i}" for i in range(2, 12)]),
])
def test_what_belongs_together_goes_together(backend, tmp_path, four, balance, same, other):  # noqa: F811
    with Gate(tmp_path, config(four, f", balance: {balance}"), backend) as gate:
        first = gate.get(same[0]).body
        assert all(gate.get(path).body == first for path in same * 4)
        assert len({gate.get(path).body for path in other}) > 1


@pytest.mark.parametrize("balance, field", [
    ("{hash: {header: X-User}}", "X-User: %d\r\n"),
    ("{hash: {cookie: sid}}", "Cookie: a=b; sid=%d\r\n"),
    ("{hash: ip}", "X-Forwarded-For: 203.0.113.%d\r\n"),
])
def test_clients_go_where_they_went(backend, tmp_path, four, balance, field):  # noqa: F811
    with Reloading(tmp_path, config(four, f", balance: {balance}", workers=2), backend) as gate:
        def where():
            return {i: gate.get("/", field % i).body for i in range(40)}

        before = where()
        assert where() == before and len(set(before.values())) == 4
        # Without one server only its own clients move; in another order nothing changes.
        gate.reload(config(four[2::-1], f", balance: {balance}", workers=2))
        after = where()
        assert all(after[i] == before[i] for i in before if before[i] != b"d")
        assert all(after[i] != b"d" for i in after)


def cookie_of(response):
    found = re.match(r"(srv=[\w-]{43}); Path=/; ", response.get("set-cookie") or "")
    return found and found[1]


def test_a_cookie_keeps_a_client_at_its_server(backend, tmp_path, four):  # noqa: F811
    options = ", sticky: {cookie: srv, secret: 0123456789abcdef}"
    with Reloading(tmp_path, config(four, options, workers=2), backend) as gate:
        first = gate.get("/")
        cookie = cookie_of(first)
        assert cookie, first.fields
        for _ in range(12):
            again = gate.get("/", f"Cookie: other=1; {cookie}\r\n")
            assert again.body == first.body and again.get("set-cookie") is None
        assert len(set(names(gate, 8))) == 4, "who has none goes anywhere"
        forged = cookie[:-2] + ("AA" if cookie[-2:] != "AA" else "BB")
        assert cookie_of(gate.get("/", f"Cookie: {forged}\r\n"))
        gate.reload(config(four[::-1], options, workers=2))
        assert gate.get("/", f"Cookie: {cookie}\r\n").body == first.body
        mine = next(s for s in four if s.name == first.body)
        mine.close()
        moved = gate.get("/", f"Cookie: {cookie}\r\n")
        assert moved.status == 200 and moved.body != first.body and cookie_of(moved)


def test_own_zone_first(backend, tmp_path, four):  # noqa: F811
    a, b, c, d = four
    servers = [(a, " zone=here"), (b, " zone=here"), (c, " zone=there"), (d, " backup")]
    with Gate(tmp_path, config(servers, proxy="zone: here, "), backend) as gate:
        assert sorted(names(gate, 4)) == ["a", "a", "b", "b"]
        a.close()
        b.close()
        assert names(gate, 3) == ["c"] * 3
        c.close()
        assert names(gate, 3) == ["d"] * 3


@pytest.mark.parametrize("balance", ["round_robin", "least_conn", "random_two",
                                     "{random_two: ewma}", "{hash: uri}"])
def test_every_way_serves_under_load_and_leaves_out_the_dead(backend, tmp_path, four, balance):  # noqa: F811
    found, deadline = [], time.monotonic() + 30

    def each_has_some():
        counts = collections.Counter(r.body for r in list(found))
        return all(counts[name] > 20 for name in (b"a", b"c", b"d"))

    with Gate(tmp_path, config(four, f", balance: {balance}", workers=2), backend) as gate:
        four[1].close()

        def client(number):
            with gate.connect(timeout=30) as sock:
                reader = Reader(sock)
                # One that stood still for a moment is rightly asked less for a while.
                for i in itertools.count():
                    if i >= 40 and (each_has_some() or time.monotonic() > deadline):
                        return
                    sock.sendall(b"GET /%d-%d HTTP/1.1\r\nHost: x\r\n\r\n" % (number, i))
                    found.append(reader.response())

        threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(found) >= 320 and {r.status for r in found} == {200}
    counts = collections.Counter(r.body for r in found)
    assert set(counts) == {b"a", b"c", b"d"} and min(counts.values()) > 20, counts
