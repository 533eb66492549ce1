#!/usr/bin/env python3
"""Compares user-space instructions (callgrind) of operations and of whole requests with bench/instructions.tsv.

usage: instructions_check.py [--build build/gcc-release] [--only PART] [--update]

Operations are those of `make micro`; requests go through the server's epoll backend (callgrind.py tells how each is
counted). Each row is a test: more than 3 % above its row in the table fails; more than 3 % below says that the table
is stale. A row that is out of these bounds is counted again, twice at most, and the nearest count holds: how the kernel
cuts what is sent is a matter of luck on a busy machine. --update writes the table. The last line is "N passed, N
failed".

The table holds for one compiler, one libc and one kind of processor: with others nothing is compared.
"""
import argparse
import pathlib
import platform
import subprocess
import sys

from counted import operations, requests

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE / "instructions.tsv"
PERCENT, TRIES = 3, 3


def made_by():
    """What the counts depend on beside the code."""
    gcc = subprocess.run(["gcc", "-dumpfullversion"], text=True, capture_output=True, check=True)
    return f"# gcc {gcc.stdout.strip()}, {' '.join(platform.libc_ver())}, {platform.machine()}"


def read_table():
    """Whom it was made by, and {name: instructions}."""
    first, _, *rows = TABLE.read_text().splitlines()
    return first, {name: float(count) for name, count in (row.split("\t") for row in rows)}


def write_table(counts):
    rows = "".join(f"{name}\t{count:.1f}\n" for name, count in counts.items())
    TABLE.write_text(f"{made_by()}\nname\tinstructions\n{rows}")


def compare(name, before, now):
    """Whether the row fails, whether the table is stale, and what to tell of it."""
    if before is None or now is None:
        where = "is not in the table" if now else "is in the table alone"
        return True, False, f"{name:<58} {where}: run --update"
    change = 100 * (now / before - 1)
    more, less = change > PERCENT, change < -PERCENT
    return more, less, (f"{name:<58} {before:12.1f} {now:12.1f} {change:+7.2f} %"
                        f"{' MORE' if more else ' less' if less else ''}")


def count_again(build, table, counts):
    """Counts what is out of bounds once more; keeps what is nearer."""
    for name in [name for name in counts if name in table and any(compare(name, table[name], counts[name])[:2])]:
        count = (requests if name.startswith("request, ") else operations)(build, name).get(name, counts[name])
        counts[name] = min(counts[name], count, key=lambda n, of=table[name]: abs(n - of))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build/gcc-release"))
    parser.add_argument("--only", default="")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    if not options.update and read_table()[0] != made_by():
        print(f"skipped: the table is of {read_table()[0][2:]}; here is {made_by()[2:]}")
        print("0 passed, 0 failed")
        return
    counts = {**operations(options.build, options.only), **requests(options.build, options.only)}
    if options.update:
        if TABLE.exists() and options.only:
            counts = {**read_table()[1], **counts}
        write_table(counts)
        return
    table = {name: count for name, count in read_table()[1].items() if options.only in name}
    for _ in range(1, TRIES):
        count_again(options.build, table, counts)
    rows = [compare(name, table.get(name), counts.get(name)) for name in {**table, **counts}]
    for _, _, text in sorted(rows, key=lambda row: row[0]):  # what fails last: the end of a log is shown
        print(text)
    failed = sum(more for more, _, _ in rows)
    stale = sum(less for _, less, _ in rows)
    if stale:
        print(f"table is stale, run --update: {stale} rows are more than {PERCENT} % lower")
    print(f"{len(rows) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not rows else 0)


if __name__ == "__main__":
    main()
