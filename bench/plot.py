"""The plots of the report: bars by server with floor and spread, and latency by percentile.

A server has one colour, and on curves one mark and one dash, in all plots.
"""
import math

from figures import FLOOR, OURS, PEER, in_order, kind
from svg import (GRID, GROUND, HEADING_PX, INK, QUIET, TEXT_PX, TICK_PX, Drawing, duration, fitting, linear_ticks,
                 log_ticks, number, text_width)

WIDTH, MARGIN, GAP = 800, 24, 28
ROW, BAR, TOP, TICK_ROOM, KEY = 24, 15, 44, 42, 28
# colour, mark, dash
LOOKS = {
    "anygate epoll": ("#0072b2", "circle", ""),
    "anygate io_uring": ("#56b4e9", "square", "7 3"),
    "nginx": ("#009e73", "triangle", ""),
    "nginx 16x32k": ("#7fc8a9", "triangle", "7 3"),
    "haproxy": ("#e69f00", "diamond", ""),
    "h2o": ("#cc79a7", "square", ""),
    "floor epoll": ("#444c56", "circle", "2 3"),
    "floor io_uring": ("#8c959f", "square", "2 3"),
}
OTHER = ("#d55e00", "diamond", "2 3")


def look(server):
    return LOOKS.get(server, OTHER)


class Bar:
    """One server's bar: value, least and most (None: no whisker), and what is stacked on it (None: nothing)."""

    def __init__(self, server, value, low=None, high=None, extra=None):
        self.server, self.value, self.low, self.high, self.extra = server, value, low, high, extra

    def end(self):
        return max(self.value + (self.extra or 0), self.high or 0)

    def label(self):
        return number(self.value) + (f" + {number(self.extra)}" if self.extra else "")


class Panel:
    """The bars of one case; `line` is (value, text) of a dashed line across them, or None."""

    def __init__(self, title, axis, bars, line=None):
        self.title, self.axis, self.bars, self.line = title, axis, bars, line

    def height(self):
        return TOP + ROW * len(self.bars) + TICK_ROOM

    def names_width(self):
        return max(text_width(b.server, bold=kind(b.server) == OURS) for b in self.bars) + 8

    def draw(self, d, x, y, width, names_width):
        left = x + names_width
        labels = max(text_width(b.label(), TICK_PX, kind(b.server) == OURS) for b in self.bars) + 8
        high = max([b.end() for b in self.bars] + ([self.line[0]] if self.line else [])) or 1
        top, bottom = y + TOP, y + TOP + ROW * len(self.bars)
        room = x + width - left - labels

        def px(value):
            return left + value * room / high

        d.text(x, y + 14, self.title, fitting(self.title, width, TEXT_PX + 1, True), bold=True)
        for tick in self.ticks(high, room):
            d.line([(px(tick), top), (px(tick), bottom)], INK if tick == 0 else GRID)
            d.text(px(tick), bottom + 16, f"{tick:,.10g}", TICK_PX, "middle", QUIET)
        d.text(left, bottom + 34, self.axis, TICK_PX, fill=QUIET)
        for i, bar in enumerate(self.bars):
            self.draw_bar(d, bar, top + ROW * i + ROW / 2, left, px)
        if self.line:
            value, text = self.line
            half = text_width(text, TICK_PX) / 2
            d.line([(px(value), top - 4), (px(value), bottom)], INK, 1.5, stroke_dasharray="5 3")
            d.text(min(max(px(value), left + half), x + width - half), top - 9, text, TICK_PX, "middle")

    @staticmethod
    def ticks(high, room):
        """Those below `high`, as many as have room for their labels."""
        for count in (5, 4, 3, 2, 1):
            ticks = [t for t in linear_ticks(high, count) if t <= high]
            if len(ticks) < 3 or text_width(f"{ticks[-1]:,.10g}", TICK_PX) + 14 < room * ticks[1] / high:
                break
        return ticks

    @staticmethod
    def draw_bar(d, bar, middle, left, px):
        ours = kind(bar.server) == OURS
        colour = look(bar.server)[0]
        d.text(left - 8, middle + 4.5, bar.server, TEXT_PX, "end", bold=ours)
        d.box(left, middle - BAR / 2, px(bar.value) - left, BAR, colour)
        if bar.extra:
            d.box(px(bar.value), middle - BAR / 2, px(bar.value + bar.extra) - px(bar.value), BAR, colour,
                  fill_opacity=0.35)
        if bar.low is not None and bar.high > bar.low:
            whisker(d, px(bar.low), px(bar.high), middle)
        d.text(px(bar.end()) + 6, middle + 4.5, bar.label(), TICK_PX, bold=ours, stroke=GROUND, stroke_width=3)


def whisker(d, low, high, y):
    d.line([(low, y), (high, y)], GROUND, 3.5)
    d.line([(low, y), (high, y)], INK, 1.5)
    for end in (low, high):
        d.line([(end, y - 4), (end, y + 4)], INK, 1.5)


def key(d, x, y, entries):
    """What marks mean, in a row of (mark, text)."""
    for shape, text in entries:
        if shape == "whisker":
            whisker(d, x, x + 24, y)
        elif shape == "line":
            d.line([(x, y), (x + 24, y)], INK, 1.5, stroke_dasharray="5 3")
        else:
            d.box(x, y - 6, 24, 12, QUIET, fill_opacity=0.35 if shape == "pale" else 1)
        d.text(x + 31, y + 4.5, text, TICK_PX, fill=QUIET)
        x += 31 + text_width(text, TICK_PX) + 18


def bars(title, line, words, panels):
    """SVG text: panels of bars, two in a row, below a key of the marks in use; None without panels.

    words says what each mark means, {"bar": text, "pale": text, "whisker": text, "line": text}.
    """
    if not panels:
        return None
    used = {"bar": True, "pale": any(b.extra for p in panels for b in p.bars),
            "whisker": any(b.low is not None for p in panels for b in p.bars), "line": any(p.line for p in panels)}
    columns = min(2, len(panels))
    each = (WIDTH - 2 * MARGIN - GAP * (columns - 1)) / columns
    rows = [panels[i:i + columns] for i in range(0, len(panels), columns)]
    heights = [max(p.height() for p in row) + 14 for row in rows]
    names_width = max(p.names_width() for p in panels)
    d = Drawing(WIDTH, HEADING_PX + KEY + sum(heights) + 6, title)
    d.heading(MARGIN, title, line)
    key(d, MARGIN, HEADING_PX + 10, [(mark, text) for mark, text in words.items() if used[mark]])
    y = HEADING_PX + KEY + 6
    for row, height in zip(rows, heights):
        for i, panel in enumerate(row):
            panel.draw(d, MARGIN + i * (each + GAP), y, each, names_width)
        y += height
    return str(d)


def mark(d, shape, x, y, colour):
    if shape == "circle":
        d.circle(x, y, 4.5, colour)
        return
    corners = {"square": [(-4, -4), (4, -4), (4, 4), (-4, 4)], "triangle": [(0, -5.5), (5, 4), (-5, 4)],
               "diamond": [(0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)]}[shape]
    d.polygon([(x + dx, y + dy) for dx, dy in corners], colour)


def curve(d, server, points, marks):
    colour, shape, dash = look(server)
    d.line(points, colour, 2.5 if kind(server) == OURS else 2, stroke_linejoin="round",
           **({"stroke_dasharray": dash} if dash else {}))
    for x, y in marks:
        mark(d, shape, x, y, colour)


def nines(quantile):
    """0.9 is 1, 0.99 is 2, 0.999 is 3."""
    return -math.log10(1 - quantile)


def percent(quantile):
    return f"{quantile * 100:.10g}"


def latency(title, line, servers):
    """SVG text of latency by percentile, servers = {name: [[quantile, us], ...]}; None without two points to join."""
    kept = {name: [(q, us) for q, us in servers[name] if 0.5 <= q < 1 and us > 0] for name in in_order(servers)}
    kept = {name: points for name, points in kept.items() if len(points) > 1}
    if not kept:
        return None
    d = Drawing(WIDTH, 440, title)
    d.heading(MARGIN, title, line)
    top, bottom, left = HEADING_PX + 36, 440 - 62, MARGIN + 62
    right = WIDTH - MARGIN - max(text_width(n, bold=True) for n in kept) - 66
    values = [us for points in kept.values() for _, us in points]
    logarithmic = max(values) / min(values) > 8
    ticks = log_ticks(min(values), max(values)) if logarithmic else linear_ticks(max(values), 5)
    scale = math.log10 if logarithmic else float
    last = max(q for points in kept.values() for q, _ in points)
    percents = [q for q in (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999) if q <= last + 1e-9]

    def px(q):
        return left + (nines(q) - nines(0.5)) * (right - left) / (nines(last) - nines(0.5))

    def py(us):
        return bottom - (scale(us) - scale(ticks[0])) * (bottom - top) / (scale(ticks[-1]) - scale(ticks[0]))

    for tick in ticks:
        d.line([(left, py(tick)), (right, py(tick))], GRID)
        d.text(left - 8, py(tick) + 4, duration(tick) if tick else "0", TICK_PX, "end", QUIET)
    for q in percents:
        d.line([(px(q), top), (px(q), bottom)], GRID)
        d.text(px(q), bottom + 18, percent(q), TICK_PX, "middle", QUIET)
    d.line([(left, top), (left, bottom), (right, bottom)], INK)
    d.text((left + right) / 2, bottom + 40, "percentile of requests, log scale", TICK_PX, "middle", QUIET)
    d.text(MARGIN, top - 12, f"latency{', log scale' if logarithmic else ''}", TICK_PX, fill=QUIET)
    order = [name for name in kept if kind(name) == FLOOR] + [name for name in kept if kind(name) == PEER] + [
        name for name in kept if kind(name) == OURS]
    for name in order:
        points = [(px(q), py(us)) for q, us in kept[name]]
        curve(d, name, points, points)
    for i, name in enumerate(sorted(kept, key=lambda n: -kept[n][-1][1])):
        y = top + 8 + 24 * i
        curve(d, name, [(right + 20, y), (right + 52, y)], [(right + 36, y)])
        d.text(right + 60, y + 4.5, name, TEXT_PX, bold=kind(name) == OURS)
    return str(d)
