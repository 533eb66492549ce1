"""What a run's figures say: medians, ratios to the best peer and to the floor, and whether goals are reached.

A server is ours, a floor or a peer by its name. Of ours the better backend counts, of the floors the lower, of the
peers the best, each by its median over the rounds.
"""
import statistics
from dataclasses import dataclass

OURS, FLOOR, PEER = "anygate", "floor", "peer"
# less is better of costs, more of what these lists tell
MORE_IS_BETTER = {"shards", "overload"}
LISTS = ("cpu", "memory", "shards", "overload")


def kind(server):
    return next((k for k in (OURS, FLOOR) if server.startswith(k)), PEER)


def in_order(servers):
    """Ours, then peers, then floors, each as the run had them."""
    return sorted(servers, key=lambda name: (OURS, PEER, FLOOR).index(kind(name)))


def rounds_of(part, entry, server):
    """One server's figure of each round: us, bytes, scale, or the share of the peak that was answered."""
    got = entry["servers"].get(server) or {}
    if part == "cpu":
        values = got.get("us")
    elif part == "memory":
        values = [got.get("bytes")]
    elif part == "shards":
        values = [2 * one / two for one, two in zip(got.get("one_us") or (), got.get("two_us") or ()) if two]
    else:
        values = [got["goodput_rate"] / got["peak_rate"]] if got.get("peak_rate") and "goodput_rate" in got else []
    return [v for v in values or () if v is not None]


def median(values):
    values = [v for v in values or () if v is not None]
    return statistics.median(values) if values else None


def ratio(figure, of):
    return None if figure is None or not of else figure / of


def ratio_range(figures, of):
    """Least and most of the ratios within each round, or None where the rounds do not pair."""
    if len(figures) != len(of) or len(of) < 2 or not all(of):
        return None
    each = [a / b for a, b in zip(figures, of)]
    return min(each), max(each)


@dataclass
class Standing:
    """Where one case's servers stand: rounds and medians by server, and who leads each kind (None: not there)."""
    rounds: dict
    medians: dict
    ours: str | None
    best: str | None
    floor: str | None

    def value(self, server):
        return self.medians.get(server)

    def to_best(self, server):
        return ratio(self.value(server), self.value(self.best))

    def to_floor(self, server):
        return ratio(self.value(server), self.value(self.floor))


def standing(part, entry):
    rounds = {name: rounds_of(part, entry, name) for name in in_order(entry["servers"])}
    medians = {name: statistics.median(values) for name, values in rounds.items() if values}
    choose = max if part in MORE_IS_BETTER else min

    def lead(wanted):
        return choose((name for name in medians if kind(name) == wanted), key=medians.get, default=None)

    return Standing(rounds, medians, lead(OURS), lead(PEER), lead(FLOOR))


@dataclass
class Goal:
    """One goal and how the run met it. figure is None, and so reached, where the run has nothing to judge by."""
    part: str
    case: str
    text: str
    of: str
    bound: float
    figure: float | None
    range: tuple | None
    reached: bool | None
    at: Standing

    def missed_by(self):
        """How far beyond the bound, as a share of it."""
        return abs(self.figure / self.bound - 1)

    def close(self):
        """Whether some rounds tell otherwise than the medians."""
        return self.range is not None and self.range[0] <= self.bound <= self.range[1]


def judge(part, entry):
    at, goal = standing(part, entry), entry["goal"]
    of, bound = goal["of"], goal["bytes"] if goal["of"] == "bytes" else goal["ratio"]
    mine, figure, spread = at.rounds.get(at.ours, []), at.value(at.ours), None
    if of in ("best", "floor"):
        rival = at.best if of == "best" else at.floor
        figure, spread = ratio(figure, at.value(rival)), ratio_range(mine, at.rounds.get(rival, []))
    elif len(mine) > 1:
        spread = min(mine), max(mine)
    reached = None
    if figure is not None:
        reached = figure >= bound if part in MORE_IS_BETTER else figure <= bound
    title = entry["title"] + {"shards": ", two shards", "overload": ", overload"}.get(part, "")
    return Goal(part, title, goal.get("text", ""), of, bound, figure, spread, reached, at)


def judged(results):
    return [judge(part, entry) for part in LISTS for entry in results.get(part) or () if entry.get("goal")]


def goals(results):
    """(case, text, figure, bound, reached) of each goal; figure and reached are None where nothing was measured."""
    return [(g.case, g.text, g.figure, g.bound, g.reached) for g in judged(results)]
