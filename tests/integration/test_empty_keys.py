"""A key with nothing behind it, at each place of each example in the documentation: what check says of it, and that a
server which took it serves.

Half of a configuration that was taken for a whole one ends the process at its first request, long after `check` was
content. So each example is taken with each of its keys emptied in turn, whatever that makes of it.
"""
import json
import re

import pytest
from gate import free_port, run, without_sanitizers
from test_config_keys import PLACES, ROUTES, STRANGE
from test_docs import CONFIGS, PAGES, blocks, environment, place, write  # noqa: F401 (a fixture)
from test_reload import Reloading

KEY = re.compile(r"""(?mx) ( ^[ ]* (?:-[ ])* | [{,]\s* )         # at the beginning of a line, or in brackets
                     ( "[^"\n]*" | '[^'\n]*' | [^\s"'{}\[\],#][^\n"'{}\[\],#]*? ) : (?=[ \n]) """)
OPEN, CLOSE = "{[", "}]"


def flow_end(text, at, stops):
    """Where a value in brackets ends: at a comma, a closing bracket, or one of `stops`, outside of what it holds."""
    depth, quote = 0, ""
    while at < len(text):
        char = text[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in OPEN:
            depth += 1
        elif depth and char in CLOSE:
            depth -= 1
        elif not depth and char in stops:
            break
        at += 1
    return at


def block_end(text, at, indent):
    """Where a value in lines ends: before the first one that is not further in than its key."""
    at = flow_end(text, at, "\n")
    while line := re.match(r"\n[ ]*(?=\n)|\n( *)[^\n]*", text[at:]):
        if line[1] is not None and len(line[1]) <= indent:
            break
        at += line.end()
    return at


def emptied(text, nothing):
    """(key, where its value begins, text without it) for each key."""
    for match in KEY.finditer(text):
        begin, end = match[1], match.end()
        if begin.strip(" -") in "":
            indent = match.start(2) - text.rfind("\n", 0, match.start(2)) - 1
            yield match[2], end, text[:end] + nothing + text[block_end(text, end, indent):]
        else:
            yield match[2], end, text[:end] + nothing + text[flow_end(text, end, ",}]"):]


def examples():
    """Each example that is a configuration, with the words it begins with."""
    for page in PAGES:
        for line, words, text in blocks(page):
            if words and words[0] in CONFIGS[:2] and len(words) == 1:
                yield f"{page.name}:{line}", words[0], text



def of_examples():
    """(name, kind, text) with one key emptied; those alike of one section once."""
    seen = set()
    for name, kind, text in examples():
        for key, at, new in emptied(text, " " if kind == "yaml" else " null"):
            section = re.findall(r"(?m)^\w+", text[:at])[-1:]
            alike = (*section, "/" if "/" in key else key, text[at:].lstrip()[:1] in OPEN)
            if alike not in seen:
                seen.add(alike)
                yield f"{name} {key}", kind, new


def of_places():
    """(place, key, text): each key that there is, with nothing behind it."""
    for name, (text, keys) in PLACES.items():
        if text.startswith("proxy:"):  # what an upstream is made of is found when one is asked
            text = text.replace("/x: OK", '/x: "http://u"' if "u:" in text else '/x: "http://127.0.0.1:1"')
        for key in sorted(keys):
            yield name, key, text.replace(f"{STRANGE}: 1", f"{key}: ")


def check(folder, name, kind, text):
    """A thousand times: with sanitizers each takes longer to start than to do all else."""
    file = write(folder, (kind, text))
    done = run("check", "-c", file.name, "--format", "json", cwd=folder, env=environment(folder),
               binary=without_sanitizers())
    said = [json.loads(line) for line in done.stderr.splitlines()]
    wrong = [d for d in said if d["severity"] == "error"]
    assert done.returncode == (1 if wrong else 0), (name, text, done)
    assert not any("cannot be made of" in d["what"] for d in wrong), (name, text, wrong)  # the net below
    return wrong


@pytest.mark.parametrize("unset", [False, True], ids=["empty", "unset"])
def test_what_check_says_in_words(tmp_path, unset):
    nothing = "${UNSET:-}" if unset else ""
    text = (f"proxy:\n  max_pending: {nothing}\n  retry: {nothing}\n  upstreams:\n    a: {nothing}\n"
            "routes:\n  /x: OK\n")
    (tmp_path / "anygate.yml").write_text(text)
    done = run("check", "-c", "anygate.yml", cwd=tmp_path, env={"NO_COLOR": "1"})
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("anygate.yml")]
    assert [re.sub(r"^anygate.yml:(\d+):\d+: error: ", r"\1 ", line) for line in said] == [
        "2 max_pending: expected a whole number, found nothing",
        '5 an upstream needs a list of servers; hint: servers: ["10.0.0.1:8080"]']


def test_examples(place):  # noqa: F811
    for name, kind, text in of_examples():
        check(place, name, kind, text)


# Sections and lists, which are empty then: nothing else passes. Those that need something in them are told.
MAY_BE_EMPTY = {
    "acme", "add", "admin", "breaker", "buffer", "cache", "certificates", "cookies", "domain", "echo", "ejection",
    "error_pages", "filters", "groups", "headers", "health", "hedge", "hsts", "include", "keepalive", "limits", "log",
    "memory", "path", "plugins", "proxy", "proxy_protocol", "query", "remove", "resolver", "response", "retry",
    "server", "set", "static", "tcp", "tickets", "timeouts", "tls", "trusted_proxies", "tunnel", "types", "upstreams"}


class Places(Reloading):
    """A gate of what each place has, with listeners that can be had here."""

    def take(self, text):
        ports = [free_port(), free_port()]
        self.folder.joinpath("part.yml").write_text(re.sub("':8([01])'", lambda m: f"'127.0.0.1:{ports[int(m[1])]}'",
                                                           text))
        self.reload()
        assert self.get("/x").status in (200, 301, 302, 502, 503)
        for port, mention in zip(ports, ["':80'", "':81'"]):
            if mention in text:
                with self.connect(port=port) as s:
                    s.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    try:
                        s.recv(100)
                    except ConnectionResetError:
                        pass
        assert self.process.poll() is None, self.stderr()


def test_places(tmp_path):
    main = "include: part.yml\nserver: {listen: ['127.0.0.1:$PORT']}\n"
    good = [(name, key, text) for name, key, text in of_places()
            if not check(tmp_path, f"{name} {key}", "yaml", text)]
    assert {key for _, key, _ in good} == MAY_BE_EMPTY
    (tmp_path / "part.yml").write_text(ROUTES)
    with Places(tmp_path, main) as gate:
        for _, _, text in good:
            gate.take(text)
