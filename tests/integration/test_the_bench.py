"""The bench runs: its servers start, its loads are answered, and what it says is numbers. Not how large they are."""
import json
import subprocess
import sys

import pytest
from gate import BINARY, ROOT

sys.path.insert(0, str(ROOT / "bench"))
from workloads import CASES, NAMES, able  # noqa: E402

SOME = ("pipelined16", "static10m", "proxy2", "upload64k", "websocket", "h2-h2", "tls-resumed")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One short round of a case of each kind."""
    out = tmp_path_factory.mktemp("bench") / "results.json"
    done = subprocess.run([ROOT / "bench/run.py", "--binary", BINARY, "--rounds", "1", "--seconds", "0.3", "--json", out,
                           *(word for case in SOME for word in ("--case", case))],
                          text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


def test_every_request_is_answered(results):
    assert " requests; " not in results[0], results[0]


def test_every_server_is_measured(results):
    assert [entry["case"] for entry in results[1]["cpu"]] == list(SOME)
    for entry in results[1]["cpu"]:
        assert set(entry["servers"]) == set(able(CASES[entry["case"]], NAMES))
        for name, figures in entry["servers"].items():
            assert all(len(values) == 1 and values[0] > 0 for values in figures.values()), (entry["case"], name, figures)


def test_the_machine_is_told(results):
    meta = results[1]["meta"]
    assert meta["kernel"] and "cores" in meta["machine"] and meta["versions"]["nginx"].startswith("1.")


def test_every_goal_is_a_ratio():
    for case in CASES.values():
        if case.goal:
            assert case.goal.of in ("floor", "best") and 0 < case.goal.ratio < 1.2
            assert case.goal.of != "floor" or case.floor
