"""Shows that tests notice when a check is gone: applies each mutant of a list to a copy of the tree, builds
what its test needs, and demands that the test fails; first that it passes without the mutant.

    run.py [--list FILE] [--jobs N] [--only TEXT]... [--check] [--table]

--only    mutants whose name or file contains TEXT
--check   only whether every mutant still applies and names a test that exists
--table   prints the table of docs/SECURITY.md

A mutant is killed when its test fails. All else is a failure of this program: a test that passes, a text
that stands there no more, a change that does not compile, a test that cannot be run. Copies lie in
build/mutate/ and are kept, so that the next run builds little.
"""
import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutants import ROOT, SECURITY, SERVER, faults, load, table  # noqa: E402

PLACE = ROOT / "build/mutate"
OUT = "build"
TEST_S, RUN_S, BUILD_S = 90, 600, 900
PASSED, FAILED, BROKEN = "passed", "failed", "broken"


class Tree:
    """A copy of the sources, with a build of its own."""

    def __init__(self, name, log=None):
        self.path, self.log = PLACE / name, PLACE / f"{log or name}.log"

    def sources(self):
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                                capture_output=True, text=True)
        if listed.returncode == 0:
            return [f for f in listed.stdout.splitlines() if (ROOT / f).is_file()]
        return [str(f.relative_to(ROOT)) for f in ROOT.rglob("*")
                if f.is_file() and f.relative_to(ROOT).parts[0] not in ("build", ".git")]

    def update(self):
        """Copies what differs, and removes what is gone."""
        names = self.sources()
        for name in names:
            source, copy = ROOT / name, self.path / name
            if not copy.exists() or copy.read_bytes() != source.read_bytes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, copy)
        for copy in self.path.rglob("*"):
            name = copy.relative_to(self.path)
            if copy.is_file() and name.parts[0] != OUT and str(name) not in set(names):
                copy.unlink()

    def run(self, command, limit, env=None):
        """Its exit code, or None when it took too long."""
        with open(self.log, "ab") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            process = subprocess.Popen(command, cwd=self.path, env={**environment(), **(env or {})},
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                return None
            finally:
                try:  # a server that outlived its test must not meet the next one
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()

    def make(self, goals, jobs=1):
        # The same CURDIR everywhere: what one tree has built is good for the others.
        return self.run(["make", "--no-print-directory", f"-j{jobs}", "CURDIR=/anygate", *goals],
                        BUILD_S) == 0

    def test(self, command):
        program = "pytest" not in command and "/unit/" not in command[0]
        code = self.run(command, RUN_S if program else TEST_S, {"ANYGATE": str(self.path / SERVER)})
        if code is None and program:
            return BROKEN  # it has a clock of its own for what hangs, and is only slow
        if code == 0:
            # A filter that fits no test of Criterion's runs none, and passes.
            return BROKEN if b"Tested: 0 |" in self.log.read_bytes()[-2000:] else PASSED
        # pytest tells with 1 that tests failed, and with others that it could not run them.
        return BROKEN if "pytest" in command and code not in (1, None) else FAILED


def finding(log):
    """The seed that showed a planted mistake, or nothing."""
    found = re.search(rb"FAIL seed (\d+)", log.read_bytes())
    return f"  seed {found[1].decode()}" if found else ""


def environment():
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    env.update(DEPS=os.path.abspath(os.environ.get("DEPS", ROOT / "build/deps")),
               PYTHONDONTWRITEBYTECODE="1", LC_ALL="C",
               UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1")
    return env


def restore(tree, clean):
    """Makes `tree` what `clean` is: sources, objects and their times."""
    for folder, _, files in os.walk(tree.path):
        for file in files:
            copy = Path(folder) / file
            origin = clean.path / copy.relative_to(tree.path)
            if not origin.exists():
                copy.unlink()
            elif origin.stat().st_mtime_ns != copy.stat().st_mtime_ns:
                shutil.copy2(origin, copy)
    for folder, _, files in os.walk(clean.path):
        for file in files:
            origin = Path(folder) / file
            copy = tree.path / origin.relative_to(clean.path)
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, copy)


def verdict(mutant, tree, clean):
    restore(tree, clean)
    tree.log.write_bytes(b"")
    file = tree.path / mutant.file
    file.write_text(mutant.mutate(file.read_text()))
    if not tree.make([mutant.goal]):
        return "does not compile"
    result = tree.test(mutant.command)
    return {PASSED: "SURVIVED", FAILED: "killed", BROKEN: "its test cannot be run"}[result]


def in_parallel(items, jobs, work):
    """work(item, worker's number) for each; results are printed by the workers."""
    todo = queue.Queue()
    for item in items:
        todo.put(item)

    def worker(number):
        while True:
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            work(item, number)
    threads = [threading.Thread(target=worker, args=(i,)) for i in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def prepare(mutants, jobs):
    """The clean tree, with all goals built and all tests passing; None when that fails."""
    clean = Tree("clean")
    clean.update()
    clean.log.write_bytes(b"")
    goals = sorted({m.goal for m in mutants})
    print(f"building {len(goals)} programs ...", flush=True)
    for folder in sorted({str(Path(g).parts[1]) for g in goals}):
        if not clean.make([g for g in goals if Path(g).parts[1] == folder], jobs):
            print(f"the tree does not build: {clean.log}")
            return None
    commands, bad = sorted({tuple(m.command) for m in mutants}), []
    print(f"running {len(commands)} tests without a mutant ...", flush=True)

    def check(command, number):
        tree = Tree("clean", f"clean{number}")
        tree.log.write_bytes(b"")
        if tree.test(list(command)) != PASSED:
            bad.append(command)
            print(f"fails without a mutant: {' '.join(command)}", flush=True)
    in_parallel(commands, jobs, check)
    return None if bad else clean


def run(mutants, jobs):
    clean = prepare(mutants, jobs)
    if not clean:
        return False
    trees = [Tree(f"tree{i}") for i in range(jobs)]
    counts, lock = {}, threading.Lock()

    def one(mutant, number):
        start = time.monotonic()
        result = verdict(mutant, trees[number], clean)
        with lock:
            counts[result] = counts.get(result, 0) + 1
            print(f"{result:10} {mutant.name:34} {time.monotonic() - start:5.1f} s  {mutant.test}"
                  + finding(trees[number].log), flush=True)
            if result != "killed":
                shutil.copy(trees[number].log, PLACE / f"{mutant.name}.log")
    in_parallel(mutants, jobs, one)
    print(f"{counts.pop('killed', 0)} of {len(mutants)} killed"
          + "".join(f", {n} {what}" for what, n in counts.items()))
    return not counts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", default=SECURITY)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    mutants = load(options.list)
    if options.table:
        sys.stdout.write(table(mutants))
        return 0
    for fault in (wrong := faults(mutants)):
        print(fault)
    if wrong or options.check:
        return 1 if wrong else 0
    mutants = [m for m in mutants
               if not options.only or any(o in m.name or o in m.file for o in options.only)]
    PLACE.mkdir(parents=True, exist_ok=True)
    return 0 if mutants and run(mutants, max(1, options.jobs)) else 1


if __name__ == "__main__":
    sys.exit(main())
