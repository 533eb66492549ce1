"""Redirects, cookies and errors of an nginx behind, as curl and a cookie jar see them."""
import subprocess

import pytest
from gate import Gate, free_port, run
from peers import Nginx

# It knows nothing of where it lives: redirects to its own name and port, cookies for its own paths.
SERVER = """
server {{
    listen 127.0.0.1:{port};
    absolute_redirect {absolute};
    location /two/dir/ {{ root {folder}; }}
    location = /two/login {{ add_header Set-Cookie "session=1; Path=/two/; Domain=shop.internal; HttpOnly";
                             return 302 /two/home; }}
    location = /two/home {{ return 200 "home of $cookie_session at $request_uri by $http_x_forwarded_prefix"; }}
    location = /two/broken {{ return 500 "nginx's own"; }}
}}
"""

CONFIG = """
server: {listen: ["127.0.0.1:$PORT"], workers: 1}
proxy: {upstreams: {shop: {servers: ["127.0.0.1:%d"], host: upstream}}}
routes:
  "/app/*":
    action: "http://shop/two/*"
    cookies: {path: {/two/: /app/}, domain: {shop.internal: ""}, same_site: lax}
    error_pages: {intercept: true, 5xx: "sorry"}
  "/plain/*": {action: "http://shop/two/*", rewrite_redirects: off}
  "/deep/shop/*": {action: "http://shop", strip_prefix: /deep/shop, add_prefix: /two}
"""


@pytest.fixture(scope="module", params=["on", "off"])
def gate(request, backend, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("files"), free_port()
    (folder / "two/dir/sub").mkdir(parents=True)
    (folder / "two/dir/sub/index.html").write_text("index")
    text = SERVER.format(port=port, folder=folder, absolute=request.param)
    with Nginx(tmp_path_factory.mktemp("nginx"), text, port) as nginx:
        with Gate(tmp_path_factory.mktemp("gate"), CONFIG % nginx.port, backend) as running:
            yield running


def curl(gate, path, *options):
    done = subprocess.run(["curl", "-sS", "--max-time", "20", *options, "-w", "|%{http_code}|%{url_effective}",
                           f"http://127.0.0.1:{gate.port}{path}"], capture_output=True, text=True, check=True)
    body, status, url = done.stdout.rsplit("|", 2)
    return body, int(status), url.removeprefix(f"http://127.0.0.1:{gate.port}")


def test_a_directory_s_slash(gate):
    assert curl(gate, "/app/dir/sub?q=1", "-L") == ("index", 200, "/app/dir/sub/?q=1")
    assert curl(gate, "/deep/shop/dir/sub", "-L") == ("index", 200, "/deep/shop/dir/sub/")


def test_a_login_comes_home_with_its_cookie(gate, tmp_path):
    jar = str(tmp_path / "jar")
    home = ("home of 1 at /two/home by ", 200, "/app/home")
    assert curl(gate, "/app/login", "-L", "-c", jar, "-b", jar) == home
    assert "#HttpOnly_127.0.0.1\tFALSE\t/app/\tFALSE\t0\tsession\t1" in (tmp_path / "jar").read_text()
    assert curl(gate, "/app/home", "-b", jar) == home
    assert curl(gate, "/deep/shop/home", "-b", jar)[0] == "home of  at /two/home by /deep/shop"


def test_without_rewriting_the_client_is_sent_elsewhere(gate):
    assert gate.get("/plain/login").get("location").endswith("/two/home")


def test_its_errors_are_taken(gate):
    assert curl(gate, "/app/broken")[:2] == ("sorry", 500)
    assert curl(gate, "/plain/broken")[:2] == ("nginx's own", 500)


def test_check_shows_it(tmp_path):
    (tmp_path / "anygate.yml").write_text(CONFIG.replace("$PORT", "1") % 2)
    shown = run("check", "-c", "anygate.yml", cwd=tmp_path).stdout
    assert ("error pages\n"
            "  /app/*: 500-599 text/plain; charset=utf-8 (5 bytes), upstreams' errors too\n") in shown
    assert ("rewriting\n"
            "  /app/*: redirects auto, cookies\n"
            "  /deep/shop/*: without /deep/shop, below /two, redirects auto\n") in shown
