"""Lists of mutants: small changes to the source, each of which takes a check away, and the test that must
notice. A list is a TOML file, or a folder of them, with entries of

    [[mutant]]
    name = "two-lengths"
    row = "..."                  # what it defends against
    check = "..."                # the check, in a few words
    file = "proto/h1_head.c"
    old = "s->length_count > 1 || "      # stands there exactly once
    new = ""
    test = "request 9112 6.3: two differing lengths"

and `test` is one of

    unit NAME [SUITE/TEST]       tests/unit/NAME.c
    request CASE, answer CASE, h2 CASE    one of tests/wire/cases/, "RFC: name"
    pytest FILE::TEST            as pytest names it
    run GOAL ARGUMENT...         a program that make builds; it fails with an exit code
"""
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SECURITY = ROOT / "tests/mutate/security"
SERVER = "build/gcc-asan/anygate"
KEYS = {"name", "row", "check", "file", "old", "new", "test"}


@dataclass(frozen=True)
class Mutant:
    name: str
    row: str
    check: str
    file: str
    old: str
    new: str
    test: str

    @property
    def goal(self):
        """What make has to build for the test."""
        kind, _, rest = self.test.partition(" ")
        if kind == "unit":
            return f"build/gcc-asan/tests/unit/{rest.split()[0]}"
        return shlex.split(rest)[0] if kind == "run" else SERVER

    @property
    def command(self):
        kind, _, rest = self.test.partition(" ")
        if kind == "unit":
            _, *filters = rest.split()
            return [self.goal, *(f"--filter={f}" for f in filters)]
        if kind == "run":
            return shlex.split(rest)
        name = {"request": f"tests/wire/test_requests.py::test_through_the_proxy[epoll-{rest}]",
                "answer": f"tests/wire/test_answers.py::test_answer[epoll-{rest}-whole]",
                "h2": f"tests/wire/test_h2_cases.py::test_case[epoll-{rest}-whole]"}.get(kind, rest)
        return [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", name]

    def mutate(self, text):
        return text.replace(self.old, self.new)


def load(path=SECURITY):
    path = Path(path)
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    entries = [e for f in files for e in tomllib.loads(f.read_text())["mutant"]]
    for entry in entries:
        assert entry.keys() == KEYS, f"{entry.get('name')}: {sorted(KEYS ^ entry.keys())}"
    return [Mutant(**entry) for entry in entries]


def cases(root):
    """The names that `request`, `answer` and `h2` may have."""
    sys.path[:0] = [str(root / "tests/wire"), str(root / "tests")]
    try:
        from cases import H2_TABLE, TABLE
        from cases.answers import ANSWERS
    finally:
        del sys.path[:2]
    return {"request": {f"{c.rfc}: {c.name}" for c in TABLE},
            "answer": {f"{a.rfc}: {a.name}" for a in ANSWERS},
            "h2": {f"{c.rfc}: {c.name}" for c in H2_TABLE}}


def names_a_test(mutant, root, known):
    kind, _, rest = mutant.test.partition(" ")
    if kind in known:
        return rest in known[kind]
    if kind == "unit":
        name, *filters = rest.split()
        source = root / f"tests/unit/{name}.c"
        text = source.read_text() if source.exists() else ""
        return source.exists() and all(
            re.search(rf"\w\({re.sub('_(epoll|uring)$', '', f).replace('/', ', ')}\b", text)
            for f in filters)
    if kind == "pytest":
        file, _, test = rest.partition("::")
        source = root / file
        return source.exists() and f"def {test.partition('[')[0]}(" in source.read_text()
    return kind == "run" and bool(rest)


def faults(mutants, root=ROOT):
    """What is wrong with a list as it stands: each a line of text."""
    known, out = cases(root), []
    for name in sorted({m.name for m in mutants if [n.name for n in mutants].count(m.name) > 1}):
        out.append(f"{name}: the name comes twice")
    for m in mutants:
        file = root / m.file
        times = file.read_text().count(m.old) if file.exists() else 0
        if times != 1 or not m.old:
            out.append(f"{m.name}: its text stands {times} times in {m.file}")
        if m.old == m.new:
            out.append(f"{m.name}: changes nothing")
        if not names_a_test(m, root, known):
            out.append(f"{m.name}: no such test: {m.test}")
    return out


def table(mutants):
    """The rows of docs/SECURITY.md."""
    lines = ["| against | check | in | shown by | mutant |", "|---|---|---|---|---|"]
    for row in dict.fromkeys(m.row for m in mutants):
        for m in (m for m in mutants if m.row == row):
            test = m.test.replace("|", r"\|")
            lines.append(f"| {m.row} | {m.check} | {m.file} | {test} | {m.name} |")
    return "\n".join(lines) + "\n"
