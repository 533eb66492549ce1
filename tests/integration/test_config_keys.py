"""docs/CONFIG.md names every key that there is, and none that there is not.

The program is asked what it knows: an unknown key that is like no other gets a list of those known.
"""
import json
import re

import pytest
from gate import ROOT, run

STRANGE = "qqqqqqqqqqqqqqqq"
PAGE = (ROOT / "docs/CONFIG.md").read_text()
ROUTES = "routes:\n  /x: OK\n"


def section(title):
    """What stands below a heading, up to the next one."""
    match = re.search(rf"(?ms)^#+ {re.escape(title)}$(.*?)(?=^#|\Z)", PAGE)
    assert match, f"no heading {title}"
    return match[1]


def table(title, number=0):
    """The words in the first column of one table of a section, its head left out."""
    rows = re.findall(r"(?m)(?:^\|.*\n)+", section(title))[number].splitlines()[2:]
    return {word for row in rows for word in re.findall(r"`([a-z0-9_.]+)`", row.split("|")[1])}


def below(words, prefix):
    return {word.removeprefix(prefix) for word in words if word.startswith(prefix)}


def plain(words):
    """Their first parts: `cache.max_file` means that there is `cache`."""
    return {word.split(".")[0] for word in words}


SERVER, PROXY, GROUP = table("server"), table("proxy"), table("groups")
ROUTE = re.findall(r"(?m)^\| (`[^|]*) \| ([a-z]+) \|", section("routes"))
CONNECTION, EXCHANGE = table("Limits"), table("Limits", 1) - {"stream"}
TIMEOUTS = table("proxy", 1)
RETRY, HEDGE, MIRROR = table("retry"), table("hedge"), table("mirror")
TLS, UPSTREAM_TLS = table("tls"), table("proxy", 3)
HEALTH = {key: table("Health", i) for i, key in enumerate(["health", "breaker", "ejection"])}
NOT_YET = {"root": {"cache", "tunnel", "acme"}, "upstream": {"protocol"}}


def route(kind):
    return {key for cell, of in ROUTE if of in ("all", kind)
            for key in re.findall(r"`([a-z_]+)`", cell)}


def upstream(text):
    return f"proxy:\n  upstreams:\n    u:\n      servers: ['127.0.0.1:1']\n{text}{ROUTES}"


def long_form(action, text=""):
    return f"routes:\n  /x:\n    action: {action}\n{text or f'    {STRANGE}: 1'}\n"


# Where a strange key is put, and which ones are documented there.
PLACES = {
    "root": (f"{STRANGE}: 1\n{ROUTES}",
             {"version", "include", "server", "tls", "static", "proxy", "echo", "plugins",
              "groups", "routes", "tcp"} | NOT_YET["root"]),
    "tcp": (f"tcp: [{{listen: ':81', to: 'a:1', {STRANGE}: 1}}]\n{ROUTES}", plain(table("tcp"))),
    "tcp timeouts": (f"tcp: [{{listen: ':81', to: 'a:1', timeouts: {{{STRANGE}: 1}}}}]\n{ROUTES}",
                     below(table("tcp"), "timeouts.")),
    "server": (f"server: {{{STRANGE}: 1}}\n{ROUTES}", plain(SERVER)),
    "admin": (f"server: {{admin: {{{STRANGE}: 1}}}}\n{ROUTES}", {"address", "token"}),
    "memory": (f"server: {{memory: {{{STRANGE}: 1}}}}\n{ROUTES}", below(SERVER, "memory.")),
    "log": (f"server: {{log: {{{STRANGE}: 1}}}}\n{ROUTES}", below(SERVER, "log.")),
    "resolver": (f"server: {{resolver: {{{STRANGE}: 1}}}}\n{ROUTES}", below(SERVER, "resolver.")),
    "server limits": (f"server: {{limits: {{{STRANGE}: 1}}}}\n{ROUTES}", CONNECTION | EXCHANGE),
    "listener": (f"server: {{listen: [{{address: ':80', {STRANGE}: 1}}]}}\n{ROUTES}",
                 {"address", "limits", "stream", "tls", "redirect_https", "deferred", "proxy_protocol"}),
    "tls": (f"tls: {{{STRANGE}: 1}}\n{ROUTES}", plain(TLS)),
    "tickets": (f"tls: {{tickets: {{{STRANGE}: 1}}}}\n{ROUTES}", below(TLS, "tickets.")),
    "client_auth": (f"tls: {{client_auth: {{{STRANGE}: 1}}}}\n{ROUTES}",
                    below(TLS, "client_auth.")),
    "hsts": (f"tls: {{hsts: {{{STRANGE}: 1}}}}\n{ROUTES}", below(TLS, "hsts.")),
    "listener tls": (
        f"server: {{listen: [{{address: ':80', tls: {{{STRANGE}: 1}}}}]}}\n{ROUTES}",
        plain(TLS) - {"hsts"}),
    "upstream tls": (upstream(f"      tls: {{{STRANGE}: 1}}\n"), UPSTREAM_TLS),
    "proxy tls": (f"proxy: {{tls: {{{STRANGE}: 1}}}}\n{ROUTES}", UPSTREAM_TLS),
    "listener limits": (
        f"server: {{listen: [{{address: ':80', limits: {{{STRANGE}: 1}}}}]}}\n{ROUTES}",
        CONNECTION | EXCHANGE),
    "static": (f"static: {{{STRANGE}: 1}}\n{ROUTES}", plain(table("static"))),
    "static cache": (f"static: {{cache: {{{STRANGE}: 1}}}}\n{ROUTES}",
                     below(table("static"), "cache.")),
    "proxy": (f"proxy: {{{STRANGE}: 1}}\n{ROUTES}",
              plain(PROXY) - {"servers", "balance", "sticky"} | {"upstreams", "zone"}),
    "proxy timeouts": (f"proxy: {{timeouts: {{{STRANGE}: 1}}}}\n{ROUTES}", TIMEOUTS),
    "keepalive": (f"proxy: {{keepalive: {{{STRANGE}: 1}}}}\n{ROUTES}", below(PROXY, "keepalive.")),
    "upstream": (upstream(f"      {STRANGE}: 1\n"), plain(PROXY) | NOT_YET["upstream"]),
    "servers": (f"proxy: {{upstreams: {{u: {{servers: {{dns: a.test, {STRANGE}: 1}}}}}}}}\n{ROUTES}",
                table("Servers found by name")),
    "proxy retry": (f"proxy: {{retry: {{{STRANGE}: 1}}}}\n{ROUTES}", RETRY),
    "upstream retry": (upstream(f"      retry: {{{STRANGE}: 1}}\n"), RETRY),
    "route retry": (long_form("http://127.0.0.1:1", f"    retry: {{{STRANGE}: 1}}"), RETRY),
    "upstream hedge": (upstream(f"      hedge: {{{STRANGE}: 1}}\n"), HEDGE),
    "route mirror": (long_form("http://127.0.0.1:1", f"    mirror: {{{STRANGE}: 1}}"), MIRROR),
    "upstream timeouts": (upstream(f"      timeouts: {{{STRANGE}: 1}}\n"), TIMEOUTS),
    "upstream keepalive": (upstream(f"      keepalive: {{{STRANGE}: 1}}\n"),
                           below(PROXY, "keepalive.")),
    **{key: (upstream(f"      {key}: {{{STRANGE}: 1}}\n"), HEALTH[key]) for key in HEALTH},
    **{f"proxy {key}": (f"proxy: {{{key}: {{{STRANGE}: 1}}}}\n{ROUTES}", HEALTH[key])
       for key in HEALTH},
    "echo": (f"echo: {{{STRANGE}: 1}}\n{ROUTES}", table("echo")),
    "headers": (f"plugins: {{p: {{headers: {{{STRANGE}: 1}}}}}}\n{ROUTES}",
                table("plugins") - {"request", "response"}),
    "headers both ways": (
        f"plugins: {{p: {{headers: {{request: {{set: {{A: b}}}}, {STRANGE}: 1}}}}}}\n{ROUTES}",
        {"request", "response"}),
    "headers request": (f"plugins: {{p: {{headers: {{request: {{{STRANGE}: 1}}}}}}}}\n{ROUTES}",
                        table("plugins") - {"request", "response"}),
    "group": (f"groups: [{{match: '/*', {STRANGE}: 1}}]\n{ROUTES}", GROUP),
    "group limits": (f"groups: [{{match: '/*', limits: {{{STRANGE}: 1}}}}]\n{ROUTES}", EXCHANGE),
    "group timeouts": (f"groups: [{{match: '/*', timeouts: {{{STRANGE}: 1}}}}]\n"
                       "routes:\n  /x: http://127.0.0.1:1\n", TIMEOUTS),
    "fixed route": (long_form("OK"), route("fixed")),
    "static route": (long_form("./"), route("static")),
    "proxy route": (long_form("http://127.0.0.1:1"), route("proxy")),
    "echo route": (long_form("'*'"), route("echo")),
    "redirect route": (long_form("302 -> /y"), route("redirect")),
    "query": (long_form("http://127.0.0.1:1", f"    query: {{{STRANGE}: 1}}"),
              below(table("Rewriting"), "query.")),
    "cookies": (long_form("http://127.0.0.1:1", f"    cookies: {{{STRANGE}: 1}}"),
                below(table("Rewriting"), "cookies.")),
    "redirect rule": (
        long_form("http://127.0.0.1:1",
                  f"    rewrite_redirects: [{{from: /a, to: /b, {STRANGE}: 1}}]"),
        {"from", "to"}),
    "error page": (f"server: {{error_pages: {{404: {{body: x, {STRANGE}: 1}}}}}}\n{ROUTES}",
                   table("Error pages", 1)),
    "route limits": (long_form("OK", f"    limits: {{{STRANGE}: 1}}"), EXCHANGE),
    "route timeouts": (long_form("http://127.0.0.1:1", f"    timeouts: {{{STRANGE}: 1}}"),
                       TIMEOUTS),
}


def known(folder, config):
    (folder / "anygate.yml").write_text(config)
    done = run("check", "-c", "anygate.yml", "--format", "json", cwd=folder)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    hints = [d["hint"] for d in said if f'unknown key "{STRANGE}"' in d["what"]]
    assert len(hints) == 1 and hints[0].startswith("known: "), (config, said)
    return set(hints[0].removeprefix("known: ").split(", "))


@pytest.mark.parametrize("place", PLACES)
def test_keys_are_documented(tmp_path, place):
    config, documented = PLACES[place]
    keys = known(tmp_path, config)
    if place == "root":
        keys |= {"include"}  # read before the rest
    assert documented == keys


@pytest.mark.parametrize("place", NOT_YET)
def test_what_is_not_yet_is_told(tmp_path, place):
    told = set(re.findall(r"`([a-z_]+)`", section("Not yet")))
    assert NOT_YET[place] <= told
    strange = f"{STRANGE}: 1"
    for key in NOT_YET[place]:
        (tmp_path / "anygate.yml").write_text(PLACES[place][0].replace(strange, f"{key}: true"))
        done = run("check", "-c", "anygate.yml", cwd=tmp_path)
        assert done.returncode == 1 and "not supported yet" in done.stderr, (key, done.stderr)

