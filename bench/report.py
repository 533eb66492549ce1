"""The report of a run: DATE-KERNEL.md with its plots in a folder of that name, and the table for README.md.

`results` is the document that run.py makes; docs/BENCH.md tells how to read what is written here.
"""
import re
from itertools import zip_longest
from pathlib import Path

import plot
import tables
from figures import FLOOR, goals, judged, kind, standing
from svg import number

__all__ = ["goals", "headline", "write"]
HEADLINE_ROWS, HEADLINE_MEMORY = 12, 2
CPU_MARKS = {"bar": "median of the rounds", "whisker": "least and most", "line": "the lower floor"}
MEMORY_MARKS = {"bar": "the server's own", "pale": "the kernel's beside it", "line": "goal for the server's own"}
HOW_TO_READ = """\
- `us/request` is **server CPU per request**: the run time of all tasks of the server, kernel helpers included, divided
  by the requests answered. It is the median of the rounds; `least - most` are the rounds' extremes.
- The servers take turns within each round, so that what slows the machine slows all of them. Single figures of this
  kind of machine swing by some 4 %.
- `to best peer` and `to floor` divide a server's median by the best peer's (nginx in the better of its two
  configurations, HAProxy, h2o) and by the lower floor's. Below 1.00 is cheaper than that.
- A floor is the smallest program that makes the same system calls: no parser, no routes. It is the kernel's price.
- Goals are judged by the better backend of ours. `by round` are the extremes of the ratio within single rounds; a
  verdict *within the spread* is one that some round alone would turn.
- `busy` is the share of its core that the server had: far from 1.00, the load or the origin was the slower part, and
  requests/s tells of them. `both cores` is what the machine spent in all: loopback moves work to the other side.
"""


def stem(meta):
    return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{meta['date']}-{meta['kernel']}")


def groups(results):
    found = {}
    for entry in results.get("cpu") or ():
        found.setdefault(entry["group"], []).append(entry)
    return found


class Page:
    """The Markdown so far, and the folder of its plots."""

    def __init__(self, path):
        self.path, self.folder, self.parts = path, path.parent / path.name.removesuffix(".md"), []

    def add(self, *parts):
        self.parts += [p.strip("\n") for p in parts if p]

    def picture(self, name, alt, text):
        """Adds a plot, where there is one."""
        if text:
            name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".svg"
            self.folder.mkdir(exist_ok=True)
            (self.folder / name).write_text(text)
            self.add(f"![{alt}]({self.folder.name}/{name})")

    def commands(self, entries, label):
        lines = [f"- {label(e)}: `{e['command']}`" for e in entries if e.get("command")]
        self.add("Load commands:" if lines else "", "\n".join(lines))

    def write(self):
        self.path.write_text("\n\n".join(self.parts) + "\n")


def cheaper_peers(results):
    """Cases of CPU and memory where a peer is ahead of us."""
    found = []
    for part in ("cpu", "memory"):
        for entry in results.get(part) or ():
            at = standing(part, entry)
            ratio = at.to_best(at.ours)
            if ratio is not None:
                found.append((entry["title"], at.best, ratio))
    behind = [f"{title} ({best}: ours {ratio:.2f} of it)" for title, best, ratio in found if ratio > 1]
    return len(found), behind


def summary(results):
    all_goals = judged(results)
    known = [g for g in all_goals if g.reached is not None]
    lines = []
    if all_goals:
        missing = len(all_goals) - len(known)
        lines.append(f"**{sum(g.reached for g in known)} of {len(known)} goals reached**"
                     + (f", {missing} not measured." if missing else "."))
    compared, behind = cheaper_peers(results)
    if compared:
        lines.append(f"In {compared - len(behind)} of {compared} comparisons of CPU and memory no peer is ahead"
                     + (f". A peer is ahead in {'; '.join(behind)}." if behind else "."))
    return " ".join(lines)


def machine(meta, repeat="make bench"):
    versions = ", ".join(f"{name} {version}" for name, version in (meta.get("versions") or {}).items())
    rows = [("machine", meta.get("machine")), ("memory", meta.get("memory_gib") and f"{meta['memory_gib']} GiB"),
            ("kernel", meta.get("kernel")), ("commit", meta.get("commit")), ("versions", versions),
            ("rounds", meta.get("rounds") and f"{meta['rounds']}, of {meta.get('seconds', '?')} s a case and server"),
            ("took", meta.get("minutes") and f"{meta['minutes']:.3g} minutes"),
            ("load before", meta.get("load_before")),
            ("cores", "the server alone on one; load and origins on the other"),
            ("configurations", "[of the peers](../peers/), [the floors](../floor/)"),
            ("repeat", f"`{repeat}`" + (f" at commit {meta['commit']}" if meta.get("commit") else ""))]
    return tables.table(["", ""], [row for row in rows if row[1] not in (None, "")], 2)


def cpu_panel(entry):
    at = standing("cpu", entry)
    bars = [plot.Bar(name, us, min(at.rounds[name]), max(at.rounds[name]))
            for name, us in at.medians.items() if kind(name) != FLOOR]
    line = (at.value(at.floor), f"floor {number(at.value(at.floor))}") if at.floor else None
    return plot.Panel(entry["title"], "us of server CPU per request", bars, line) if bars else None


def memory_panel(entry):
    at, goal = standing("memory", entry), entry.get("goal") or {}
    bars = [plot.Bar(name, size, extra=entry["servers"][name].get("kernel_bytes"))
            for name, size in at.medians.items()]
    line = (goal["bytes"], f"goal {goal['bytes']:,}") if goal.get("of") == "bytes" else None
    return plot.Panel(entry["title"], "bytes per connection", bars, line) if bars else None


def add_cpu(page, results):
    for group, entries in groups(results).items():
        body = tables.cpu_table(entries)
        if not body:
            continue
        page.add(f"## CPU per request: {group}")
        page.picture(f"cpu-{group}", f"CPU per request, {group}", plot.bars(
            f"CPU per request: {group}", "Less is better; each case has its own scale.", CPU_MARKS,
            [p for p in map(cpu_panel, entries) if p]))
        page.add(body)
        page.commands(entries, lambda e: e["title"])


def add_latency(page, results):
    entries = [(e, tables.latency_table(e)) for e in results.get("latency") or ()]
    entries = [(e, body) for e, body in entries if body]
    if entries:
        page.add("## Latency at fixed rates",
                 "Requests are due at fixed times, whether or not earlier ones have been answered, and latency counts "
                 "from when a request was due. Rates are shares of the weakest peer's peak, and the same for all; "
                 "where `answered/s` is below the rate, the server did not keep up.")
    for entry, body in entries:
        share = f" ({entry['share'] * 100:.3g} % of the weakest peer's peak)" if entry.get("share") else ""
        title = f"{entry['title']} at {entry['rate']:,.0f} requests/s"
        page.add(f"### {title}{share}")
        page.picture(f"latency-{entry['case']}-{entry['rate']:.0f}", f"latency by percentile, {title}", plot.latency(
            f"Latency: {title}", f"{entry['connections']} connections, open loop{share}. Lower is better.",
            {name: s.get("quantiles") or [] for name, s in entry["servers"].items()}))
        page.add(body)
    page.commands([e for e, _ in entries], lambda e: f"{e['title']} at {e['rate']:,.0f}/s")


def add_rest(page, results):
    memory = results.get("memory") or ()
    body = tables.memory_table(memory)
    if body:
        page.add("## Memory of an idle connection",
                 "Growth of resident memory and the share of slabs laid out at the start, divided by the connections, "
                 "each idle after its requests; beside it what the kernel keeps for a connection.")
        page.picture("memory", "bytes per idle connection", plot.bars(
            "Memory of an idle connection", "Less is better; each kind has its own scale.", MEMORY_MARKS,
            [p for p in map(memory_panel, memory) if p]))
        page.add(body)
    body = tables.shards_table(results.get("shards") or ())
    if body:
        page.add("## Shards: one against two",
                 "`scale` is twice the CPU per request with one shard divided by that with two: at 2.00 a request "
                 "costs no more with two shards, and two cores do twice the work.", body)
    overload = results.get("overload") or ()
    body = tables.overload_table(overload)
    if body:
        page.add("## Overload",
                 "Offered more than it can do, a server should still answer near its peak. Goodput is what it "
                 "answered; `of peak` is the share of its own peak.", body)
        page.commands(overload, lambda e: e["title"])


def write(results, folder):
    """Writes the report and its plots below `folder`, in place of those of that name; returns the report's path."""
    meta = results["meta"]
    page = Page(Path(folder) / f"{stem(meta)}.md")
    page.path.parent.mkdir(parents=True, exist_ok=True)
    for old in page.folder.glob("*.svg"):
        old.unlink()
    page.add(f"# Bench of {meta['date']}, Linux {meta['kernel']}", summary(results))
    goal_table = tables.goal_table(results)
    if goal_table:
        page.add("## Goals", "Servers' figures are us of CPU per request; of memory, bytes per connection; of two "
                 "shards, the scale; of overload, the share of the peak.", goal_table)
    page.add("## How to read", HOW_TO_READ, "## Machine", machine(meta))
    add_cpu(page, results)
    add_latency(page, results)
    add_rest(page, results)
    page.write()
    return page.path


def picked(entries, most):
    """At most so many: those with a goal first, each group in turn; in the run's order."""
    turns = {}
    for i, entry in sorted(enumerate(entries), key=lambda pair: not pair[1].get("goal")):
        turns.setdefault(entry.get("group"), []).append(i)
    order = [i for turn in zip_longest(*turns.values()) for i in turn if i is not None]
    order.sort(key=lambda i: not entries[i].get("goal"))
    return [entries[i] for i in sorted(order[:most])]


def headline(results):
    """A short table in Markdown and a line about the run beneath it; '' where there is nothing to show."""
    memory = [e for e in results.get("memory") or () if standing("memory", e).ours][:HEADLINE_MEMORY]
    cpu = [e for e in results.get("cpu") or () if standing("cpu", e).ours]
    rows = []
    for part, entry in ([("cpu", e) for e in picked(cpu, HEADLINE_ROWS - len(memory))]
                        + [("memory", e) for e in memory]):
        at = standing(part, entry)
        form, unit = (tables.count, ", bytes") if part == "memory" else (number, "")
        nginx = min((v for n, v in at.medians.items() if n.startswith("nginx")), default=None)
        rows.append([entry["title"] + unit, *(tables.cell(v, form) for v in (
            nginx, at.value("haproxy"), at.value("h2o"))), f"**{form(at.value(at.ours))}**",
            tables.cell(at.to_best(at.ours), tables.two), tables.cell(at.value(at.floor), form)])
    if not rows:
        return ""
    meta, known = results["meta"], [g for g in goals(results) if g[4] is not None]
    reached = f" {sum(g[4] for g in known)} of {len(known)} goals reached." if known else ""
    return "\n\n".join([
        tables.table(["case", "nginx", "HAProxy", "h2o", "AnyGate", "to the best peer", "floor"], rows),
        f"Server CPU per request in us, medians of {meta.get('rounds', 'the')} rounds; {meta['date']}, "
        f"{meta['machine']}, Linux {meta['kernel']}.{reached}"]) + "\n"
