"""What `check` tells of upstreams."""
from gate import run

CONFIG = """
proxy:
  zone: a
  upstreams:
    app:
      servers: ["10.0.0.1:80 max=50 weight=2 zone=a", "10.0.0.2:80 backup"]
      balance: {hash: {header: X-User}}
      sticky: srv
    plain: {servers: ["10.0.0.3:80"]}
routes: {"/a/*": "http://app", "/b/*": "http://plain"}
"""


def test_check_tells_how_servers_are_chosen(tmp_path):
    (tmp_path / "c.yml").write_text(CONFIG)
    done = run("check", "-c", tmp_path / "c.yml")
    assert done.returncode == 0, done.stderr
    assert "10.0.0.1:80 weight=2 max=50 zone=a, 10.0.0.2:80 backup" in done.stdout, done.stdout
    assert ("chosen: hash by header X-User, sticky by cookie srv (without a secret: until this process ends)"
            in done.stdout), done.stdout
    assert done.stdout.count("chosen:") == 1, "what is by turns needs no word"
