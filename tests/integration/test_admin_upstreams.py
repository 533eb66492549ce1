"""Operators' endpoints for upstreams: what is shown, who comes, goes, rests and weighs what, while requests run."""
import json
import os
import socket
import threading
from collections import Counter
from contextlib import ExitStack

import h2wire
import pytest
from gate import Reader, Upstream, free_port, ok
from test_reload import Reloading
from test_upstream_sets import Named, four, names, peers_of  # noqa: F401 (a fixture)
from waiting import await_that

JSON = "Content-Type: application/json\r\n"
TOKEN = "0123456789abcdef0123456789abcdef"


def config(*servers, workers=1, extra="", admin='"127.0.0.1:$PORT2"', routes='"/*": "http://up"'):
    listed = ", ".join(f'"{s if isinstance(s, str) else address(s)}"' for s in servers)
    return (f'server: {{listen: ["127.0.0.1:$PORT"], admin: {admin}, workers: {workers}}}\n'
            f'proxy: {{upstreams: {{up: {{servers: [{listed}]{extra}}}}}}}\n'
            f'routes: {{{routes}}}\n')


def address(server):
    return f"127.0.0.1:{server.port}"


class Operator:
    """Asks the admin listener of a gate."""

    def __init__(self, gate, headers=""):
        self.gate, self.headers = gate, headers

    def ask(self, method, path, content=None, headers=JSON):
        body = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
        length = "" if content is None else f"Content-Length: {len(body)}\r\n{headers}"
        return self.gate.get(path, self.headers + length, "127.0.0.1", method, body, self.gate.ports[1])

    def upstreams(self, path="/upstreams"):
        answer = self.ask("GET", path)
        assert answer.status == 200 and answer.get("content-type") == "application/json", answer
        return json.loads(answer.body)["upstreams"]

    def servers(self, name="up"):
        one, = self.upstreams(f"/upstreams/{name}")
        return {s["address"]: s for s in one["servers"]}

    def add(self, server, **more):
        return self.ask("POST", "/upstreams/up/servers", {"address": address(server), **more})

    def change(self, server, **what):
        answer = self.ask("PATCH", f"/upstreams/up/servers/{address(server)}", what)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def remove(self, server):
        return self.ask("DELETE", f"/upstreams/up/servers/{address(server)}").status


class Load:
    """Clients that ask without a pause; each answer has to be 200. `seen`: who gave them, of the requests that have
    begun since `more` was called last."""

    def __init__(self, gate, clients=4):
        self.gate, self.going, self.wrong, self.seen = gate, True, [], Counter()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def _run(self):
        try:
            while self.going:
                with self.gate.connect(30) as s:
                    reader = Reader(s)
                    for _ in range(50):
                        seen = self.seen
                        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                        answer = reader.response()
                        if answer.status != 200:
                            self.wrong.append(answer)
                        with self.lock:
                            seen[answer.body.decode()] += 1
        except Exception as e:  # a thread's failure has to be seen
            self.wrong.append(repr(e))

    def more(self, count):
        """So many answers to requests from now on: who gave them. (One that came before may be counted at any time.)"""
        seen = self.seen = Counter()

        def told():
            with self.lock:
                return Counter(seen)
        await_that(lambda: self.wrong or told().total() >= count, told)
        assert not self.wrong, self.wrong[:3]
        return told()

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, kind, *_):
        self.going = False
        for t in self.threads:
            t.join(60)
        assert kind or not self.wrong, self.wrong[:3]


# ---- what is shown ----

def test_upstreams_are_shown_before_anyone_asked_for_them(backend, tmp_path, four):  # noqa: F811
    a, b, _, _ = four
    with Reloading(tmp_path, config(f"{address(a)} weight=3 zone=z", f"{address(b)} backup"), backend) as gate:
        op = Operator(gate)
        up, = op.upstreams()
        first = {"address": address(a), "weight": 3, "zone": "z", "backup": False, "origin": "configured",
                 "state": ["up"], "up_s": None, "breaker": "closed", "errors": 0, "ejections": 0, "held_back": 0,
                 "checks": 0, "checks_failed": 0, "downs": 0}
        assert up == {"name": "up", "scheme": "http", "protocol": "h1", "tls": False, "configured": True,
                      "panics": False, "connections": 0, "pending": 0, "removed": [],
                      "servers": [first, {**first, "address": address(b), "weight": 1, "zone": "", "backup": True}]}
        names(gate, 2)
        assert op.upstreams()[0]["connections"] == 1
        one = op.ask("GET", f"/upstreams/up/servers/{address(a)}")
        assert json.loads(one.body) == first and one.get("cache-control") == "no-store"
        head = op.ask("HEAD", "/upstreams/up")
        assert head.status == 200 and head.body == b""


def test_what_checks_and_requests_have_found_is_shown(backend, tmp_path, four):  # noqa: F811
    a = four[0]
    gone = f"127.0.0.1:{free_port()}"
    extra = ", health: {interval: 100ms, timeout: 20s, fall: 1}"
    with Reloading(tmp_path, config(a, gone, extra=extra), backend) as gate:
        op = Operator(gate)
        await_that(lambda: op.servers()[gone]["state"] == ["down"], op.servers)
        told = op.servers()
        assert told[gone]["downs"] == 1 and told[gone]["checks_failed"] >= 1 and told[gone]["up_s"] is None
        assert told[address(a)]["state"] == ["up"]
        assert op.ask("PATCH", f"/upstreams/up/servers/{gone}", {"drain": True}).status == 200
        assert op.servers()[gone]["state"] == ["down", "drained"]
        with Upstream(lambda *_: ok(b"added")) as added:
            assert op.add(added).status == 201
            await_that(lambda: op.servers()[address(added)]["checks"] > 0, op.servers)
            assert op.servers()[address(added)]["state"] == ["up"]
        await_that(lambda: op.servers()[address(added)]["state"] == ["down"], op.servers)
        with Upstream(lambda *_: ok(b"new"), port=int(gone.split(":")[1])):
            await_that(lambda: op.servers()[gone]["state"] == ["drained"], op.servers)
            assert op.ask("PATCH", f"/upstreams/up/servers/{gone}", {"drain": False}).status == 200
            assert isinstance(op.servers()[gone]["up_s"], int)


def test_a_name_with_several_schemes_is_several_upstreams(backend, tmp_path, four):  # noqa: F811
    routes = '"/*": "http://up", "/h2/*": "h2c://up", "/ws": "ws://up"'
    with Reloading(tmp_path, config(four[0], routes=routes), backend) as gate:
        op = Operator(gate)
        assert sorted(u["scheme"] for u in op.upstreams("/upstreams/up")) == ["h2c", "http"]
        assert [u["protocol"] for u in op.upstreams("/upstreams/up?scheme=h2c")] == ["h2c"]
        assert [u["scheme"] for u in op.upstreams("/upstreams?scheme=ws")] == ["http"]
        assert op.upstreams("/upstreams?scheme=https") == []
        for method, content in (("PATCH", {"drain": True}), ("DELETE", None), ("GET", None)):
            answer = op.ask(method, f"/upstreams/up/servers/{address(four[0])}", content)
            assert answer.status == 400 and b"?scheme=" in answer.body
        server = {"address": address(four[1])}
        assert op.ask("POST", "/upstreams/up/servers", server).status == 400
        answer = op.ask("POST", "/upstreams/up/servers?scheme=h2c", server)
        assert answer.status == 201
        assert answer.get("location") == f"/upstreams/up/servers/{address(four[1])}?scheme=h2c"
        assert op.ask("GET", answer.get("location")).status == 200
        assert {u["scheme"]: len(u["servers"]) for u in op.upstreams()} == {"http": 1, "h2c": 2}
        for query in ("scheme=", "scheme=ftp", "scheme=HTTP", "scheme=http&x=1", "other=http", "scheme=http%73"):
            assert op.ask("GET", f"/upstreams?{query}").status == 400, query


def test_an_answer_that_is_longer_than_a_body_holds(backend, tmp_path):
    """Each target is an upstream of its own, named as it is written."""
    routes = ", ".join(f'"/r{i}": "http://127.0.0.1:{20000 + i}"' for i in range(900))
    with Reloading(tmp_path, config("127.0.0.1:9", routes=routes), backend) as gate:
        op = Operator(gate)
        told = op.upstreams()
        assert len(told) == 900 and told[7]["name"] == "127.0.0.1:20007"
        assert len(json.dumps(told)) > 256 * 1024
        with h2wire.Client(socket.create_connection(("127.0.0.1", gate.ports[1]), 10)) as client:
            answer = client.get("/upstreams", authority="127.0.0.1")
            assert answer.status == 200 and len(json.loads(answer.body)["upstreams"]) == 900


# ---- changes ----

def test_a_server_that_is_added_gets_its_share(backend, tmp_path, four):  # noqa: F811
    a, b, c, _ = four
    with Reloading(tmp_path, config(a), backend) as gate, Load(gate) as load:
        op = Operator(gate)
        assert set(load.more(50)) == {"a"}
        answer = op.add(b)
        assert answer.status == 201 and json.loads(answer.body)["origin"] == "ordered"
        assert op.add(c, weight=2, zone="z", backup=True).status == 201
        assert op.servers()[address(c)]["weight"] == 2 and op.servers()[address(c)]["zone"] == "z"
        load.more(50)
        share = load.more(400)
        assert 150 < share["b"] < share.total() - 150 and "c" not in share, share
        assert op.add(b).status == 409
        assert op.ask("POST", "/upstreams/up/servers", {"address": address(b), "backup": True}).status == 409
        assert gate.logs(f"upstream up (http): server {address(b)}: added, weight 1\n")
        assert gate.logs(f"server {address(c)}: added, weight 2, zone z, backup\n")
        assert gate.logs("admin: 127.0.0.1:"), "who it was"


def ask_slowly(gate, sock, server):
    """A request that is under way there."""
    sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await_that(lambda: any(b"/slow" in r for r in server.requests), lambda: server.requests)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_drained_server_ends_what_it_has_and_gets_no_more(backend, tmp_path, four, workers):  # noqa: F811
    a, b, _, _ = four
    with Reloading(tmp_path, config(a, workers=workers), backend) as gate, Load(gate) as load, gate.connect(60) as slow:
        op = Operator(gate)
        ask_slowly(gate, slow, a)
        assert op.add(b).status == 201
        assert op.change(a, drain=True)["state"] == ["drained"]
        # All but the connection of the request that is under way.
        await_that(lambda: peers_of(gate).count(f":{a.port}") == 1 or load.wrong, lambda: peers_of(gate))
        before = len(a.requests)
        assert set(load.more(300)) == {"b"} and len(a.requests) == before
        a.go_on.set()
        assert Reader(slow).response().body == b"late a"
        await_that(lambda: f":{a.port}" not in peers_of(gate), lambda: peers_of(gate))
        assert op.change(a, drain=False)["state"] == ["up"]
        await_that(lambda: len(a.requests) > before or load.wrong, lambda: load.seen)
        load.more(50)
        assert load.more(200)["a"] > 50
        assert gate.logs(f"server {address(a)}: drained no more\n")
        assert gate.stderr().count(f"server {address(a)}: drained\n") == 1
        assert gate.stderr().count(f"server {address(a)}: drained no more\n") == 1


def test_without_a_server_that_takes_requests_there_is_an_error(backend, tmp_path, four):  # noqa: F811
    a = four[0]
    with Reloading(tmp_path, config(a), backend) as gate:
        op = Operator(gate)
        op.change(a, drain=True)
        assert gate.get("/").status == 503
        op.change(a, drain=False)
        assert gate.get("/").body == b"a"
        assert op.remove(a) == 204
        assert gate.get("/").status == 503
        assert op.servers() == {} and op.upstreams()[0]["removed"] == [address(a)]
        assert op.add(a).status == 201
        assert gate.get("/").body == b"a" and op.upstreams()[0]["removed"] == []


def test_weights_change_shares(backend, tmp_path, four):  # noqa: F811
    a, b, _, _ = four
    with Reloading(tmp_path, config(a, b), backend) as gate:
        op = Operator(gate)
        assert Counter(names(gate, 8)) == {"a": 4, "b": 4}
        assert op.change(a, weight=3)["weight"] == 3
        assert Counter(names(gate, 8)) == {"a": 6, "b": 2}
        assert op.change(a, weight=1, drain=True)["state"] == ["drained"]
        assert Counter(names(gate, 4)) == {"b": 4}
        assert op.change(a, drain=False)["weight"] == 1
        assert Counter(names(gate, 8)) == {"a": 4, "b": 4}
        assert gate.logs(f"server {address(a)}: weight 3\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_removed_server_loses_nothing(backend, tmp_path, four, workers):  # noqa: F811
    a, b, _, _ = four
    with Reloading(tmp_path, config(a, workers=workers), backend) as gate, Load(gate) as load, gate.connect(60) as slow:
        op = Operator(gate)
        ask_slowly(gate, slow, a)
        assert op.add(b).status == 201 and op.remove(a) == 204 and op.remove(a) == 404
        await_that(lambda: peers_of(gate).count(f":{a.port}") == 1 or load.wrong, lambda: peers_of(gate))
        assert set(load.more(200)) == {"b"}
        a.go_on.set()
        assert Reader(slow).response().body == b"late a"
        await_that(lambda: f":{a.port}" not in peers_of(gate), lambda: peers_of(gate))
        assert op.ask("GET", f"/upstreams/up/servers/{address(a)}").status == 404
        assert gate.logs(f"server {address(a)}: removed\n")


def test_all_shards_follow(backend, tmp_path, four):  # noqa: F811
    a, b, c, _ = four
    with Reloading(tmp_path, config(a, b, workers=3), backend) as gate:
        op = Operator(gate)
        # Connections go to shards by chance: each of them is met.
        assert set(names(gate, 60)) == {"a", "b"}
        op.change(a, drain=True)
        assert set(names(gate, 60)) == {"b"}
        assert op.add(c).status == 201 and op.remove(b) == 204
        assert set(names(gate, 60)) == {"c"}
        assert {tuple(op.servers()) for _ in range(30)} == {(address(a), address(c))}, "whichever is asked"


def test_many_operators_at_once(backend, tmp_path, four):  # noqa: F811
    """Three of them, in whichever shards, while the configuration is loaded anew; one server is left alone."""
    a, b, c, d = four
    text = config(a, b, d, workers=3, extra=", health: {interval: 100ms, timeout: 20s}")
    with Reloading(tmp_path, text, backend) as gate, Load(gate, 3) as load:
        op, failed = Operator(gate), []

        def change_and_look(n):
            for method, path, content, fine in [
                    ("POST", "", {"address": address(c), "weight": 1 + n}, (201, 409, 404)),
                    ("PATCH", f"/{address(a)}", {"drain": n % 2 == 0, "weight": 1 + n}, (200,)),
                    ("DELETE", f"/{address(c)}", None, (204, 404)), ("DELETE", f"/{address(b)}", None, (204, 404)),
                    ("POST", "", {"address": address(b)}, (201, 409, 404))]:
                answer = op.ask(method, f"/upstreams/up/servers{path}", content)
                if answer.status not in fine:
                    failed.append(answer)
            op.upstreams()

        threads = [threading.Thread(target=lambda: [change_and_look(n) for n in range(25)]) for _ in range(3)]
        for t in threads:
            t.start()
        for i in range(5):
            gate.reload(text.replace("100ms", f"{101 + i}ms"))
        for t in threads:
            t.join(60)
        assert not failed and set(op.servers()) >= {address(a), address(d)}
        load.more(50)


# ---- reloads ----

def test_changes_stay_over_a_reload(backend, tmp_path, four):  # noqa: F811
    a, b, c, d = four
    text = config(a, b, c)
    with Reloading(tmp_path, text, backend) as gate:
        op = Operator(gate)
        op.change(a, drain=True)
        op.change(b, weight=3)
        assert op.remove(c) == 204 and op.add(d).status == 201
        gate.reload(text)
        gate.reload(text.replace('"/*":', '"/x": OK, "/*":'))
        told = op.servers()
        assert told[address(a)]["state"] == ["drained"] and told[address(b)]["weight"] == 3
        assert list(told) == [address(a), address(b), address(d)], "and the one removed is"
        assert Counter(names(gate, 8)) == {"b": 6, "d": 2}
        # What the configuration says anew counts.
        gate.reload(config(a, f"{address(b)} weight=2", d))
        assert op.servers()[address(b)]["weight"] == 2
        assert op.servers()[address(d)]["origin"] == "configured"
        assert op.upstreams()[0]["removed"] == []
        gate.reload(text)
        assert list(op.servers()) == [address(a), address(b), address(c)], "it was gone, and is new"
        assert op.servers()[address(a)]["state"] == ["drained"]


def test_changes_go_with_the_upstream(backend, tmp_path, four):  # noqa: F811
    a, b, _, _ = four
    with Reloading(tmp_path, config(a), backend) as gate:
        op = Operator(gate)
        assert op.add(b).status == 201
        with gate.connect() as client, gate.connect(60) as slow:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert Reader(client).response().status == 200
            slow.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await_that(lambda: any(b"/slow" in r for r in a.requests + b.requests), lambda: a.requests)
            gate.reload(config(a).replace("up:", "other:").replace("//up", "//other"))
            await_that(lambda: [u["name"] for u in op.upstreams() if u["configured"]] == ["other"], op.upstreams)
            # It lives as long as something is under way there, and takes no changes.
            assert {u["name"]: u["configured"] for u in op.upstreams()} == {"other": True, "up": False}
            assert op.add(b).status == 404
            a.go_on.set()
            b.go_on.set()
            assert Reader(slow).response().body.startswith(b"late")
        gate.reload(config(a))
        names(gate, 1)
        assert op.ask("GET", f"/upstreams/up/servers/{address(a)}").status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_a_worker_of_a_master_has_them(backend, tmp_path, four):  # noqa: F811
    a, b, _, _ = four
    tmp_path.chmod(0o755)
    jail = tmp_path / "jail"
    jail.mkdir()
    text = config(a, workers=2).replace("server: {", f"server: {{user: nobody, chroot: {jail}, ")
    with Reloading(tmp_path / "run", text, backend, env={"ASAN_OPTIONS": "detect_leaks=0"}) as gate:
        op = Operator(gate)
        assert set(names(gate, 8)) == {"a"}
        assert op.add(b).status == 201 and op.change(a, drain=True)
        assert set(names(gate, 20)) == {"b"}
        gate.reload(text)
        assert set(names(gate, 20)) == {"b"}


# ---- addresses ----

def test_addresses_as_a_path_has_them(backend, tmp_path):
    """What is percent-encoded, and that one server has several spellings."""
    path = tmp_path / "s ock"
    with socket.create_server(str(path), family=socket.AF_UNIX), \
            Reloading(tmp_path / "run", config("10.0.0.1", "[::1]:8080", "Backend:80"), backend) as gate:
        op = Operator(gate)
        quoted = f"unix:{path}".replace("/", "%2f").replace(" ", "%20")
        for spelled in ("10.0.0.1", "10.0.0.1:80", "%31%30.0.0.1:80", "[::1]:8080", "%5B::1%5D%3A8080", "[0::0:1]:8080",
                        "Backend:80", "backend"):
            assert op.ask("GET", f"/upstreams/%75p/servers/{spelled}").status == 200, spelled
        answer = op.ask("POST", "/upstreams/up/servers", {"address": f"unix:{path}"})
        assert answer.status == 201 and answer.get("location") == f"/upstreams/up/servers/{quoted}".replace("%2f", "%2F")
        assert json.loads(op.ask("GET", answer.get("location")).body)["address"] == f"unix:{path}"
        assert op.ask("DELETE", f"/upstreams/up/servers/{quoted}").status == 204
        assert op.ask("DELETE", f"/upstreams/up/servers/unix:{path}".replace(" ", "%20")).status == 404


PATHS = {
    404: ["/upstreams/", "/upstreams//", "/upstreams//servers", "/upstreams/no", "/upstreams/u%70x", "/upstreams/up/",
          "/upstreams/up/servers/", "/upstreams/up/servers//", "/upstreams/up/servers/no:1/x", "/upstreams%2Fup",
          "/upstreams/up%2Fservers", "/upstreams/up%2F", "/upstreams/UP", "/Upstreams", "/upstreams/up/servers/x%2Fy",
          "/upstreams/up/servers/%20", "/upstreams/up/servers/%FF", "/upstreams/up/servers/10.0.0.9", "//upstreams",
          "/upstreams/up/servers/unix:", "/upstreams/up/servers/unix:%2F..", "/upstreams/" + "a" * 2048,
          "/upstreams/" + "a" * 2049, "/upstreams/" + "%2F" * 2000, "/upstreams/up/servers/" + "a" * 7000,
          "/upstreams/up/servers/:80", "/upstreams/up/servers/h:0", "/upstreams/up/servers/h:65536",
          "/upstreams/up/servers/%0d%0aX:1", "/upstreams" + "/a" * 2000, "/upstreams/up/x", "/upstreams/up/servers/.x"],
    400: ["/upstreams/up%00", "/upstreams/%", "/upstreams/%zz", "/upstreams/up/servers/%0", "/upstreams/\\", "/upstreams/up#"],
    405: ["/upstreams/up/servers", "/upstreams/../upstreams/up/servers", "/upstreams/x/../up/servers"],
}


@pytest.mark.parametrize("status", PATHS)
def test_hostile_paths(backend, tmp_path, status):
    with Reloading(tmp_path, config("10.0.0.1"), backend) as gate:
        op = Operator(gate)
        for path in PATHS[status]:
            answer = op.ask("GET", path)
            assert answer.status == status, (path, answer)
            if status == 404:
                assert op.ask("DELETE", path).status in (404, 405), path
        assert list(op.servers()) == ["10.0.0.1"]


METHODS = [("/upstreams", "GET, HEAD"), ("/upstreams/up", "GET, HEAD"), ("/upstreams/up/servers", "POST"),
           ("/upstreams/up/servers/10.0.0.1", "GET, HEAD, DELETE, PATCH")]


def test_methods(backend, tmp_path):
    with Reloading(tmp_path, config("10.0.0.1"), backend) as gate:
        for path, allowed in METHODS:
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
                if method in allowed.split(", "):
                    continue
                answer = Operator(gate).ask(method, path, {} if method in ("POST", "PUT", "PATCH") else None)
                assert answer.status == 405 and answer.get("allow") == allowed, (path, method)


# ---- content ----

GOOD = b'{"address": "10.0.0.3:8080"}'
DEEP = b'{"address": ' * 200 + b"1" + b"}" * 200

ADDED = [  # content of a POST, status, what the answer says
    (b'{"address": "10.0.0.3:8080", "weight": 1000, "zone": "a", "backup": false}', 201, ""),
    (b' \r\n\t{"address":"h\\u002eexample","weight":null}\n', 201, ""),
    (b"", 400, "1:1: expected a value, found the end"),
    (b"{", 400, "expected a key"),
    (b"[]", 400, "1:1: expected an object"),
    (b'"10.0.0.3"', 400, "expected an object"),
    (b"null", 400, "expected an object"),
    (b"{}", 400, "a server needs an address"),
    (b'{"address": null}', 400, "a server needs an address"),
    (b'{"address": 10}', 400, "expected text; write it in quotes"),
    (b'{"address": ["10.0.0.3"]}', 400, "expected text"),
    (b'{"address": ""}', 400, "is not a server"),
    (b'{"address": "10.0.0.3:0"}', 400, "is not a server"),
    (b'{"address": "10.0.0.3 weight=2"}', 400, "is not a server"),
    (b'{"address": "http://10.0.0.3"}', 400, "is not a server"),
    (b'{"address": "a\\u0000b"}', 400, "is not a server"),
    (b'{"address": "unix:/a\\u0000b"}', 400, "is not a unix socket"),
    (b'{"address": "unix:"}', 400, "is not a unix socket"),
    (b'{"address": "unix:/' + b"a" * 108 + b'"}', 400, "is not a unix socket"),
    (b'{"address": "a\\r\\nb"}', 400, '"a??b" is not a server'),
    (b'{"address": "' + b"a" * 256 + b'"}', 400, "is not a server"),
    (b'{"address": "h", "adress": "h"}', 400, "adress"),
    (b'{"address": "h", "drain": true}', 400, "drain"),
    (b'{"address": "h", "address": "g"}', 400, "address"),
    (b'{"address": "h", "weight": 0}', 400, "a number from 1 to 1000"),
    (b'{"address": "h", "weight": 1001}', 400, "a number from 1 to 1000"),
    (b'{"address": "h", "weight": -1}', 400, "a whole number"),
    (b'{"address": "h", "weight": 1.5}', 400, "a whole number"),
    (b'{"address": "h", "weight": 1e2}', 400, "a whole number"),
    (b'{"address": "h", "weight": "2"}', 400, "write it without quotes"),
    (b'{"address": "h", "weight": true}', 400, "a whole number"),
    (b'{"address": "h", "weight": 18446744073709551617}', 400, "a whole number"),
    (b'{"address": "h", "weight": ' + b"9" * 4000 + b"}", 400, "a whole number"),
    (b'{"address": "h", "weight": [1]}', 400, "a whole number"),
    (b'{"address": "h", "backup": "true"}', 400, "true or false"),
    (b'{"address": "h", "backup": 1}', 400, "true or false"),
    (b'{"address": "h", "zone": ""}', 400, "not a zone"),
    (b'{"address": "h", "zone": "a b"}', 400, "not a zone"),
    (b'{"address": "h", "zone": "a\\u000ab"}', 400, "not a zone"),
    (b'{"address": "h", "zone": "' + b"z" * 256 + b'"}', 400, "not a zone"),
    (b'{"address": "h", "zone": {}}', 400, "expected text"),
    (b'{"address": "\xff"}', 400, "not UTF-8"),
    (b'{"address": "\\ud800"}', 400, "not a valid escape"),
    (b'{"address": "h"} {"address": "g"}', 400, "expected the end"),
    (b'{"address": "h",}', 400, "trailing comma"),
    (b"{'address': 'h'}", 400, "double quotes"),
    (b"\0" * 100, 400, "expected a value"),
    (DEEP, 400, "nested too deeply"),
    (b"[" * 8192, 400, "nested too deeply"),
    (GOOD + b" " * (8192 - len(GOOD)), 201, ""),
    (GOOD + b" " * (8193 - len(GOOD)), 413, "8 KB"),
    (b" " * 8192 + GOOD, 413, "8 KB"),
    (b"[" + b"1," * 40000 + b"1]", 413, "8 KB"),
]

CHANGED = [  # content of a PATCH
    (b"{}", 400, "nothing is to be changed"),
    (b'{"weight": null, "drain": null}', 400, "nothing is to be changed"),
    (b'{"weight": 0}', 400, "a number from 1 to 1000"),
    (b'{"weight": 1001}', 400, "a number from 1 to 1000"),
    (b'{"weight": "2"}', 400, "write it without quotes"),
    (b'{"weight": 4, "drain": "yes"}', 400, "true or false"),
    (b'{"drain": 1}', 400, "true or false"),
    (b'{"drain": true, "drain": false}', 400, "drain"),
    (b'{"address": "h"}', 400, "address"),
    (b"[]", 400, "expected an object"),
]


@pytest.fixture(scope="module")
def bare(backend, tmp_path_factory):
    with Reloading(tmp_path_factory.mktemp("bare"), config("10.0.0.1"), backend) as gate:
        yield Operator(gate)


def as_chunks(content, size=1000):
    parts = [content[i:i + size] for i in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("rows, method, path", [
    (ADDED, "POST", "/upstreams/up/servers"), (CHANGED, "PATCH", "/upstreams/up/servers/10.0.0.1")], ids=["add", "change"])
def test_content(bare, rows, method, path, chunked):
    for content, status, words in rows:
        before = bare.servers()
        if chunked:
            answer = bare.gate.get(path, JSON + "Transfer-Encoding: chunked\r\n", "127.0.0.1", method,
                                   as_chunks(content), bare.gate.ports[1])
        else:
            answer = bare.ask(method, path, content)
        assert answer.status == status and words in answer.body.decode(), (content[:80], answer)
        if status != 201:
            assert bare.servers() == before and answer.get("content-type").startswith("text/plain")
            assert answer.body.endswith(b"\n") and answer.body.count(b"\n") == 1
        else:
            assert bare.ask("DELETE", answer.get("location")).status == 204
        assert b"AddressSanitizer" not in bare.gate.stderr().encode()


def test_errors_as_problems(bare):
    accept = "Accept: application/json\r\n"
    for method, path, content, status, words in [
            ("GET", "/nothing", None, 404, "no such endpoint"), ("PUT", "/upstreams", None, 405, "does nothing"),
            ("GET", "/upstreams/no", None, 404, "no such upstream"), ("POST", "/upstreams/up/servers", b"{}", 400, "1:1: "),
            ("POST", "/upstreams/up/servers", b" " * 9000, 413, "8 KB"),
            ("PATCH", "/upstreams/up/servers/10.0.0.1", b'{"weight": "\\"\\n"}', 400, 'found "\"')]:
        answer = bare.ask(method, path, content, JSON + accept if content is not None else "")
        if content is None:
            answer = bare.gate.get(path, accept, "127.0.0.1", method, port=bare.gate.ports[1])
        problem = json.loads(answer.body)
        assert answer.status == status == problem["status"] and words in problem["detail"], answer
        assert answer.get("content-type") == "application/problem+json" and problem["type"] == "about:blank"


TYPES = ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n",
         "Content-Type: multipart/form-data; boundary=application/json\r\n", "Content-Type: application/jsonx\r\n",
         "Content-Type: text/plain; application/json\r\n", "Content-Type: application/json, text/plain\r\n",
         "Content-Type: application/json\r\nContent-Type: text/plain\r\n", "Content-Type: ; application/json\r\n"]


@pytest.mark.parametrize("field", TYPES)
def test_content_that_a_form_could_send(bare, field):
    for method, path in (("POST", "/upstreams/up/servers"), ("PATCH", "/upstreams/up/servers/10.0.0.1")):
        assert bare.ask(method, path, GOOD, field).status == 415
    assert list(bare.servers()) == ["10.0.0.1"]


@pytest.mark.parametrize("value", ["application/json", "Application/JSON", "application/json;charset=utf-8", " application/json "])
def test_content_that_is_json(bare, value):
    answer = bare.ask("PATCH", "/upstreams/up/servers/10.0.0.1", b'{"weight": 2}', f"Content-Type:{value}\r\n")
    assert answer.status == 200, answer


def test_content_that_is_waited_for(bare):
    head = (b"PATCH /upstreams/up/servers/10.0.0.1 HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n")
    with bare.gate.connect(port=bare.gate.ports[1]) as s:
        s.sendall(head % 13)
        reader = Reader(s)
        assert reader.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        s.sendall(b'{"weight": 3}')
        assert json.loads(reader.response().body)["weight"] == 3
        s.sendall(head % 9000)
        assert reader.response().status == 413, "before it is sent"


def test_by_http2(bare):
    with h2wire.Client(socket.create_connection(("127.0.0.1", bare.gate.ports[1]), 10)) as client:
        kind = [("content-type", "application/json")]
        path = "/upstreams/up/servers/10.0.0.1"

        def patch(content, fields):
            return client.response(client.ask(path, fields, "PATCH", content, authority="127.0.0.1"))
        answer = patch(b'{"weight": 7}', kind)
        assert answer.status == 200 and json.loads(answer.body)["weight"] == 7
        assert patch(b'{"weight": 8}', []).status == 415
        assert patch(b" " * 8193, kind).status == 413


def test_content_that_does_not_come(backend, tmp_path):
    """Whatever listeners allow."""
    text = config("10.0.0.1").replace("server: {", "server: {limits: {min_rate: 0, body_timeout: 1h, idle_timeout: 1h}, ")
    with Reloading(tmp_path, text, backend) as gate, gate.connect(60, gate.ports[1]) as s:
        s.sendall(b"PATCH /upstreams/up/servers/10.0.0.1 HTTP/1.1\r\nHost: localhost\r\n"
                  b"Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{")
        assert Reader(s).response().status == 408


CUT = [b"", b"{", b'{"weight": 9', b'{"weight": 9}']


def test_clients_that_leave_in_the_middle(backend, tmp_path):
    """Nothing was changed, and nothing is left of them."""
    with Reloading(tmp_path, config("10.0.0.1"), backend) as gate:
        op = Operator(gate)
        op.servers()
        before = len(gate.descriptors())
        for framing in (b"Content-Length: 4000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nfff\r\n"):
            for _ in range(5):
                with ExitStack() as stack:  # fewer than the listener takes; some of `before` may be on their way out
                    for part in CUT * 4:
                        s = stack.enter_context(gate.connect(port=gate.ports[1]))
                        s.sendall(b"PATCH /upstreams/up/servers/10.0.0.1 HTTP/1.1\r\nHost: localhost\r\n"
                                  b"Content-Type: application/json\r\n" + framing + part)
                    await_that(lambda: len(gate.descriptors()) >= before + 10, gate.descriptors)
                await_that(lambda: len(gate.descriptors()) <= before, gate.descriptors)
        assert op.servers()["10.0.0.1"]["weight"] == 1
        assert op.ask("PATCH", "/upstreams/up/servers/10.0.0.1", {"weight": 2}).status == 200


def test_clients_that_do_not_take_the_answer(backend, tmp_path):
    routes = ", ".join(f'"/r{i}": "http://127.0.0.1:{20000 + i}"' for i in range(900))
    with Reloading(tmp_path, config("127.0.0.1:9", routes=routes), backend) as gate:
        op = Operator(gate)
        op.upstreams()
        before = len(gate.descriptors())
        for _ in range(20):
            s = gate.small_window(b"GET /upstreams HTTP/1.1\r\nHost: localhost\r\n\r\n", gate.ports[1])
            assert s.recv(100)
            s.close()
        await_that(lambda: len(gate.descriptors()) <= before, gate.descriptors)
        assert len(op.upstreams()) == 900


def test_an_upstream_that_is_full(backend, tmp_path):
    with Reloading(tmp_path, config(*[f"10.0.0.1:{1000 + i}" for i in range(256)]), backend) as gate:
        op = Operator(gate)
        answer = op.ask("POST", "/upstreams/up/servers", {"address": "10.0.0.2"})
        assert answer.status == 503 and b"no room" in answer.body
        assert len(op.servers()) == 256
        assert op.ask("DELETE", "/upstreams/up/servers/10.0.0.1:1007").status == 204
        assert op.ask("POST", "/upstreams/up/servers", {"address": "10.0.0.2"}).status == 201


def test_an_address_that_stands_there_twice_is_changed_as_one(backend, tmp_path, four):  # noqa: F811
    a, b, _, _ = four
    with Reloading(tmp_path, config(a, a, b), backend) as gate:
        op = Operator(gate)
        op.change(a, drain=True)
        assert set(names(gate, 6)) == {"b"}
        assert op.remove(a) == 204
        gate.reload()
        assert list(op.servers()) == [address(b)]


def test_over_tls_a_server_has_another_port_and_a_name(backend, tmp_path):
    routes = '"/*": "https://up", "/x": "wss://up"'
    with Reloading(tmp_path, config("10.0.0.1", routes=routes), backend) as gate:
        op = Operator(gate)
        assert sorted(u["scheme"] for u in op.upstreams() if u["tls"]) == ["https", "wss"]
        for spelled, status in [("10.0.0.1:443", 200), ("10.0.0.1", 200), ("10.0.0.1:80", 404)]:
            assert op.ask("GET", f"/upstreams/up/servers/{spelled}?scheme=https").status == status, spelled
        answer = op.ask("POST", "/upstreams/up/servers?scheme=wss", {"address": "unix:/run/x"})
        assert answer.status == 400 and b"server_name" in answer.body


# ---- who ----

CHANGES = [("POST", "/upstreams/up/servers", GOOD), ("PATCH", "/upstreams/up/servers/10.0.0.1", b'{"drain": true}'),
           ("DELETE", "/upstreams/up/servers/10.0.0.1", None), ("GET", "/upstreams", None)]


@pytest.fixture(scope="module")
def guarded(backend, tmp_path_factory):
    admin = f'{{address: "127.0.0.1:$PORT2", token: "{TOKEN}"}}'
    with Reloading(tmp_path_factory.mktemp("guarded"), config("10.0.0.1", admin=admin), backend) as gate:
        yield Operator(gate, f"Authorization: Bearer {TOKEN}\r\n")


@pytest.mark.parametrize("method, path, content", CHANGES)
def test_who_may_not(bare, guarded, method, path, content):
    before = bare.servers()
    for headers, op, status in [("", guarded, 401), ("Authorization: Bearer no\r\n", guarded, 401),
                                (f"Authorization: Bearer {TOKEN}\r\nOrigin: http://127.0.0.1\r\n", guarded, 403),
                                ("Origin: null\r\n", bare, 403)]:
        assert Operator(op.gate, headers).ask(method, path, content).status == status
    body = content or b""
    answer = bare.gate.get(path, f"{JSON}Content-Length: {len(body)}\r\n", "gate.example.com", method, body,
                           bare.gate.ports[1])
    assert answer.status == 403
    assert bare.servers() == before and list(guarded.servers()) == ["10.0.0.1"]
    assert guarded.servers()["10.0.0.1"]["state"] == ["up"]


def test_no_route_leads_there(backend, tmp_path):
    routes = '"/*": OK a route, "/up": "http://up"'
    with Reloading(tmp_path, config("10.0.0.1", routes=routes), backend) as gate:
        for method, path, content in CHANGES:
            body = content or b""
            answer = gate.get(path, f"{JSON}Content-Length: {len(body)}\r\n", "127.0.0.1", method, body)
            assert answer.status == 200 and answer.body == b"a route"
        assert Operator(gate).servers()["10.0.0.1"]["state"] == ["up"]
