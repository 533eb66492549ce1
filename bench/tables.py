"""The report's tables in Markdown, one function each; rows of ours are bold, what is missing is a dash."""
from figures import OURS, in_order, judged, kind, median, standing
from svg import number

NONE = "-"
PERCENTILES = (("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9"))


def cell(value, form=number):
    return NONE if value is None else form(value)


def count(value):
    return f"{value:,.0f}"


def two(value):
    return f"{value:.2f}"


def three(value):
    return f"{value:.3f}"


def share(value):
    return f"{value * 100:.3g} %"


def table(head, rows, texts=1, ends=0):
    """The first `texts` columns and the last `ends` are text, the others figures; "" without rows."""
    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    under = "|".join(["---"] * texts + ["---:"] * (len(head) - texts - ends) + ["---"] * ends)
    return "\n".join([line(head), f"|{under}|", *map(line, rows)]) if rows else ""


def row(server, title, figures, plain=()):
    """A server's row: bold where it is ours, but for the title and what is plain."""
    bold = [f"**{c}**" if c != NONE else c for c in (server, *figures)] if kind(server) == OURS else [server, *figures]
    return [*title, *bold, *plain]


def span(low_high, form=number):
    return NONE if low_high is None else f"{form(low_high[0])} - {form(low_high[1])}"


def spread(at, server, form=number):
    return span((min(at.rounds[server]), max(at.rounds[server])), form)


def bound_text(goal):
    if goal.of == "bytes":
        return f"at most {count(goal.bound)} bytes"
    if goal.part == "shards":
        return f"at least {goal.bound:g}"
    word = "at least" if goal.part == "overload" else "at most"
    return f"{word} {goal.bound:.4g} x {'best peer' if goal.of == 'best' else goal.of}"


def figure_text(goal):
    return cell(goal.figure, count if goal.of == "bytes" else three)


def verdict(goal):
    if goal.reached is None:
        return "not measured"
    near = " (within the spread)" if goal.close() else ""
    if goal.reached:
        return f"reached{near}"
    by = goal.missed_by() * 100
    return f"**missed by {'less than 0.1' if by < 0.05 else f'{by:.1f}'} %**{near}"


def leader(at, server):
    return NONE if server is None else f"{number(at.value(server))} {server.removeprefix(kind(server) + ' ')}"


def goal_table(results):
    rows = []
    for goal in judged(results):
        at = goal.at
        rows.append([goal.case, goal.text or NONE, bound_text(goal), f"**{figure_text(goal)}**",
                     span(goal.range, three), leader(at, at.ours), leader(at, at.best),
                     leader(at, at.floor), verdict(goal)])
    return table(["case", "goal", "bound", "this run", "by round", "AnyGate", "best peer", "floor", "verdict"],
                 rows, 3, 1)


def cpu_table(entries):
    """All cases of one group."""
    seen = [(key, name) for key, name in PERCENTILES
            if any(s.get(key) for e in entries for s in e["servers"].values())]
    rows = []
    for entry in entries:
        at = standing("cpu", entry)
        for i, (name, us) in enumerate(at.medians.items()):
            got = entry["servers"][name]
            rows.append(row(name, [entry["title"] if i == 0 else ""], [
                number(us), spread(at, name), cell(at.to_best(name), two), cell(at.to_floor(name), two)], [
                cell(median(got.get("both_us"))), cell(median(got.get("busy")), two),
                cell(median(got.get("rate")), count), *(cell(median(got.get(key))) for key, _ in seen)]))
    return table(["case", "server", "us/request", "least - most", "to best peer", "to floor", "both cores, us", "busy",
                  "requests/s", *(f"{name}, us" for _, name in seen)], rows, 2)


def latency_table(entry):
    quantiles = sorted({q for s in entry["servers"].values() for q, _ in s.get("quantiles") or ()})
    rows = []
    for name in in_order(entry["servers"]):
        got = entry["servers"][name]
        found = {q: us for q, us in got.get("quantiles") or ()}
        if found:
            rows.append(row(name, [], [cell(found.get(q)) for q in quantiles],
                            [cell(got.get(key), count) for key in ("rate", "sent", "failed")]))
    names = ["most, us" if q >= 1 else f"p{q * 100:.10g}, us" for q in quantiles]
    return table(["server", *names, "answered/s", "sent", "failed"], rows)


def memory_table(entries):
    rows = []
    for entry in entries:
        at = standing("memory", entry)
        for i, (name, size) in enumerate(at.medians.items()):
            rows.append(row(name, [entry["title"] if i == 0 else ""], [count(size), cell(at.to_best(name), two)], [
                cell(entry["servers"][name].get("kernel_bytes"), count), count(entry["connections"])]))
    return table(["connection", "server", "bytes", "to best peer", "kernel's bytes", "connections"], rows, 2)


def shards_table(entries):
    rows = []
    for entry in entries:
        at = standing("shards", entry)
        for i, (name, scale) in enumerate(at.medians.items()):
            got = entry["servers"][name]
            rows.append(row(name, [entry["title"] if i == 0 else ""], [
                number(median(got["one_us"])), number(median(got["two_us"])), two(scale), spread(at, name, two),
                cell(got.get("half_us") and 2 * median(got["one_us"]) / median(got["half_us"]), two)]))
    return table(["case", "server", "one shard, us/request", "two shards, us/request", "scale", "least - most",
                  "predicted"], rows, 2)


def overload_table(entries):
    rows = []
    for entry in entries:
        at = standing("overload", entry)
        for i, name in enumerate(in_order(entry["servers"])):
            got = entry["servers"][name]
            rates = [cell(got.get(key), count) for key in ("peak_rate", "offered_rate", "goodput_rate")]
            rows.append(row(name, [entry["title"] if i == 0 else ""], [*rates, cell(at.value(name), share)], [
                *(cell(got.get(key), count) for key in ("refused_rate", "failed")),
                *(cell(got.get(key)) for key in ("p50_us", "p99_us", "p99_goal_us"))]))
    return table(["case", "server", "peak/s", "offered/s", "goodput/s", "of peak", "refused/s", "failed", "p50, us",
                  "p99, us", "bound of p99, us"], rows, 2)
