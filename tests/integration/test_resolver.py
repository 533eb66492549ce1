"""Names of upstreams, asked of name servers of the configuration: answers of every kind, lies, time to live, and a
reload that changes whom is asked."""
import os
import signal
import time

import dnswire
import pytest
from dnswire import Name, NameServer
from gate import Gate, Upstream, free_port, ok, run
from waiting import await_that

HOME = ["127.0.0.1"]
CLOSE = b"Connection: close\r\n"
# Each name is a route: /NAME goes to http://NAME.test.
NAMES = {
    "plain": Name(a=HOME),
    "alias": Name(cname="second.test"),
    "second": Name(cname="plain.test"),
    "six": Name(aaaa=["::1"]),
    "cut": Name(a=HOME, cut=True),
    "huge": Name(a=HOME + [f"10.9.{i >> 8}.{i & 255}" for i in range(2000)]),
    "late": Name(a=HOME, delay=0.3),
    "missing": Name(rcode=dnswire.NXDOMAIN),
    "broken": Name(rcode=dnswire.SERVFAIL),
    "refused": Name(rcode=dnswire.REFUSED),
    "empty": Name(),
    "silent": Name(silent=True),
    "other-id": Name(a=HOME, lie=dnswire.other_id),
    "other-question": Name(a=HOME, lie=dnswire.other_question),
    "garbage": Name(a=HOME, lie=dnswire.garbage),
    "short": Name(a=HOME, lie=dnswire.short),
    "names-in-a-loop": Name(a=HOME, lie=dnswire.loop_of_names),
    "pointers-in-a-loop": Name(a=HOME, lie=dnswire.pointer_loop),
    "more-than-there-is": Name(a=HOME, lie=dnswire.more_than_there_is),
    # A lie first, as one who guesses would send it: what is asked for comes, and is taken.
    "race": Name(a=HOME, lie=lambda query, reply: [
        dnswire.other_id(query, dnswire.answer(query, [dnswire.record(
            "race.test", "A", 60, bytes([10, 9, 9, 9]))])), reply]),
}
FOUND = {"plain", "alias", "second", "six", "cut", "huge", "late", "race"}
CONFIG = """
server:
  listen: ["127.0.0.1:$PORT"]
  workers: 1
  resolver: {resolver}
proxy: {{timeouts: {{connect: 3s}}}}
routes:
{routes}
"""


def names():
    return {f"{name}.test": known for name, known in NAMES.items()}


def config(resolver, port, hosts=NAMES):
    routes = "".join(f'  "/{h}": "http://{h}.test:{port}/"\n' for h in hosts)
    return CONFIG.format(resolver=resolver, routes=routes)


@pytest.fixture(scope="module")
def upstream():
    with Upstream(lambda _, head: ok(b"here")) as four, \
            Upstream(lambda _, head: ok(b"here"), host="::1", port=four.port):
        yield four


@pytest.fixture(scope="module")
def served(backend, upstream, tmp_path_factory):
    with NameServer(names()) as dns:
        resolver = f'{{servers: "127.0.0.1:{dns.port}", timeout: 2s, attempts: 1}}'
        with Gate(tmp_path_factory.mktemp("names"), config(resolver, upstream.port), backend) as gate:
            yield gate, dns


def found(gate, path):
    """The answer of an upstream, though a name server of this process may once have been later than its time."""
    deadline = time.monotonic() + 20
    while (answer := gate.get(path)).status == 502 and time.monotonic() < deadline:
        pass
    return answer


@pytest.mark.parametrize("name", NAMES)
def test_answers_of_every_kind(served, name):
    gate, dns = served
    answer = found(gate, f"/{name}") if name in FOUND else gate.get(f"/{name}")
    assert answer.status == (200 if name in FOUND else 502), answer
    dns.await_asked(f"{name}.test", 2)  # A and AAAA
    if name in ("cut", "huge"):
        assert dns.asked(f"{name}.test", by="tcp") >= 1


def test_answers_are_kept(served):
    gate, dns = served
    assert found(gate, "/plain").status == 200
    dns.await_asked("plain.test", 2)
    before = dns.asked("plain.test")
    assert gate.get("/plain").status == 200
    assert dns.asked("plain.test") == before


def two(first, second, more=""):
    return f'{{servers: ["127.0.0.1:{first}", "127.0.0.1:{second}"]{more}}}'


@pytest.mark.parametrize("known", [Name(silent=True), Name(rcode=dnswire.SERVFAIL),
                                   Name(rcode=dnswire.REFUSED)], ids=["silent", "broken", "refused"])
def test_the_next_one_is_asked(backend, upstream, tmp_path, known):
    with NameServer({"plain.test": known}) as bad, NameServer(names()) as good:
        text = config(two(bad.port, good.port, ", timeout: 200ms"), upstream.port, ["plain"])
        with Gate(tmp_path, text, backend) as gate:
            assert found(gate, "/plain").status == 200
        bad.await_asked("plain.test")
        good.await_asked("plain.test")


def test_attempts_are_counted(backend, upstream, tmp_path):
    with NameServer(names()) as dns:
        resolver = f'{{servers: "127.0.0.1:{dns.port}", timeout: 50ms, attempts: 3}}'
        with Gate(tmp_path, config(resolver, upstream.port, ["silent"]), backend) as gate:
            assert gate.get("/silent").status == 502
        dns.await_asked("silent.test", 6)
        assert dns.asked("silent.test", "A") == 3 and dns.asked("silent.test", "AAAA") == 3


def test_addresses_change_when_their_time_is_over(backend, tmp_path):
    with Upstream(lambda _, head: ok(b"one", CLOSE)) as one, \
            Upstream(lambda _, head: ok(b"two", CLOSE), host="127.0.0.2", port=one.port), \
            NameServer({"plain.test": Name(a=HOME, ttl=1)}) as dns:
        resolver = f'{{servers: "127.0.0.1:{dns.port}"}}'
        with Gate(tmp_path, config(resolver, one.port, ["plain"]), backend) as gate:
            assert gate.get("/plain").body == b"one"
            dns.names["plain.test"] = Name(a=["127.0.0.2"], ttl=1)
            deadline = time.monotonic() + 20
            while gate.get("/plain").body != b"two":
                assert time.monotonic() < deadline
                time.sleep(0.1)


def reload(gate, text):
    (gate.folder / "anygate.yml").write_text(
        text.replace("$PORT", str(gate.port)))
    count = gate.stderr().count("reloaded")
    gate.process.send_signal(signal.SIGHUP)
    await_that(lambda: gate.stderr().count("reloaded") != count, gate.stderr, 20)


def test_a_reload_asks_others(backend, upstream, tmp_path):
    """What is known is asked for anew, and who waits is answered by the new ones."""
    hosts = ["plain", "late", "silent"]
    with NameServer(names()) as old, NameServer({**names(), "silent.test": Name(a=HOME)}) as new:
        text = '{{servers: "127.0.0.1:{}", timeout: 30s}}'
        with Gate(tmp_path, config(text.format(old.port), upstream.port, hosts), backend) as gate:
            assert gate.get("/plain").status == 200
            with gate.connect() as waits:
                waits.sendall(b"GET /silent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                old.await_asked("silent.test", 2)
                reload(gate, config(text.format(new.port), upstream.port, hosts))
                answer = b""
                while data := waits.recv(4096):
                    answer += data
                assert answer.startswith(b"HTTP/1.1 200"), answer
            before = old.asked("late.test")
            assert gate.get("/late").status == 200
            new.await_asked("late.test", 2)
            assert old.asked("late.test") == before
            reload(gate, config(text.format(new.port), upstream.port, hosts + ["cut"]))
            assert gate.get("/late").status == 200
            assert new.asked("late.test") == 2, "the same servers: what is known stays"


def test_check_tells_and_asks_nobody(tmp_path):
    (tmp_path / "a.yml").write_text(config(
        '{servers: ["127.0.0.1:5353", "::1"], timeout: 500ms, attempts: 2}', 80, ["nowhere"])
        .replace("$PORT", str(free_port())))
    done = run("check", "-c", tmp_path / "a.yml")
    assert done.returncode == 0 and "0 warnings" in done.stdout, done.stderr
    assert "127.0.0.1:5353,[::1]:53, timeout 500ms, attempts 2" in done.stdout


def in_a_worker(folder, backend, upstream, chroot):
    """A worker's reload to another name server: what that was asked, and the log."""
    folder.chmod(0o755)
    with NameServer(names()) as old, NameServer(names()) as new:
        def text(dns):
            return config(f'{{servers: "127.0.0.1:{dns.port}"}}', upstream.port,
                          ["plain", "cut"]).replace("server:\n",
                                                    f"server:\n  user: nobody\n{chroot}")
        with Gate(folder / "run", text(old), backend, env={"ASAN_OPTIONS": "detect_leaks=0"}) as gate:
            assert gate.get("/plain").status == 200
            reload(gate, text(new))
            assert gate.get("/cut").status == 200
            if chroot:
                assert gate.logs("at a restart")
            else:
                new.await_asked("cut.test", 2)
            return new.queries, gate.stderr()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_in_an_empty_chroot_a_change_waits_for_a_restart(backend, upstream, tmp_path):
    """Without /dev/urandom the numbers of questions could be foretold."""
    jail = tmp_path / "jail"
    jail.mkdir()
    asked, log = in_a_worker(tmp_path, backend, upstream, f"  chroot: {jail}\n")
    assert asked == [] and "server.resolver takes effect at a restart" in log


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_in_a_worker_a_change_holds(backend, upstream, tmp_path):
    asked, log = in_a_worker(tmp_path, backend, upstream, "")
    assert len(asked) >= 2 and "at a restart" not in log
