"""The lists of mutants cannot rot: each still applies and names a test that is there, and docs/SECURITY.md
shows what they are. `make mutate` runs them."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/mutate"))
from mutants import Mutant, faults, load, table  # noqa: E402


def test_each_mutant_still_applies():
    assert faults(load()) == []
    assert faults(load(ROOT / "tests/mutate/sim.toml")) == []


def test_faults_are_seen(tmp_path):
    (tmp_path / "tests/unit").mkdir(parents=True)
    (tmp_path / "tests/wire").symlink_to(ROOT / "tests/wire")
    (tmp_path / "tests/unit/test_x.c").write_text("Test(x, one)\n")
    (tmp_path / "x.c").write_text("a b b")
    good = {"name": "x", "row": "r", "check": "c", "file": "x.c", "old": "a", "new": "",
            "test": "unit test_x x/one"}
    assert faults([Mutant(**good)], tmp_path) == []
    for bad in [{"old": "b"}, {"old": "c"}, {"old": "", "new": "x"}, {"new": "a"}, {"file": "y.c"},
                {"test": "unit test_y"}, {"test": "unit test_x x/two"}, {"test": "request no: such"},
                {"test": "answer no: such"}, {"test": "pytest tests/wire/test_proxy.py::test_none"},
                {"test": "something"}]:
        assert len(faults([Mutant(**{**good, **bad})], tmp_path)) == 1, bad
    assert len(faults([Mutant(**good)] * 2, tmp_path)) == 1


def test_the_documentation_shows_them():
    text = (ROOT / "docs/SECURITY.md").read_text()
    shown = re.search(r"\n(\| against \|.*?\n)\n", text, re.S)
    assert shown and shown[1] == table(load()), "tests/mutate/run.py --table prints the table"
