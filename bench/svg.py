"""A drawing of lines, boxes and text as SVG, and what axes need: ticks and the width that a text takes.

Colours are Okabe and Ito's, which colour-blind readers tell apart; the ground is light of its own, so that a
drawing reads alike on light and dark pages.
"""
import math
from xml.sax.saxutils import escape

INK, QUIET, GRID, GROUND, CARD = "#1b1f24", "#57606a", "#d8dee4", "#ffffff", "#d0d7de"
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
TITLE_PX, TEXT_PX, TICK_PX, HEADING_PX = 17, 13, 12, 60
NARROW, WIDE = set("ijltfrI.,:;'|!()[]/- "), set("mwMW@%")


def text_width(text, size=TEXT_PX, bold=False):
    """Upper estimate in pixels, by the widest of the fonts named."""
    ems = sum(0.40 if c in NARROW else 0.98 if c in WIDE else 0.70 if c.isupper() else 0.635 for c in text)
    return ems * size * (1.1 if bold else 1)


def fitting(text, width, size, bold=False):
    """The size, or the lesser one by which the text takes no more than the width."""
    return round(min(size, size * width / text_width(text, size, bold)), 1)


def number(value):
    """Three digits that count, thousands apart."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def duration(us):
    """us, ms or s, without zeros that say nothing."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.4g} {unit}"
    return f"{us:.4g} us"


def linear_ticks(high, count=4):
    """From zero, about `count` steps of 1, 2 or 5 times a power of ten; the last is at or beyond `high`."""
    rough = high / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [i * step for i in range(math.ceil(high / step - 1e-9) + 1)]


def log_ticks(low, high):
    """1, 2 and 5 times powers of ten (powers alone beyond three decades), `low` and `high` within them."""
    marks = (1,) if high / low > 1000 else (1, 2, 5)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = [m * 10.0 ** p for p in range(first, last + 1) for m in marks]
    below = max(t for t in every if t <= low * (1 + 1e-9))
    above = min((t for t in every if t >= high * (1 - 1e-9)), default=every[-1])
    return [t for t in every if below <= t <= above]


def at(value):
    return f"{value:.1f}".rstrip("0").rstrip(".")


def attributes(more):
    return "".join(f' {key.replace("_", "-")}="{escape(str(value))}"' for key, value in more.items())


class Drawing:
    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []
        self.box(0.5, 0.5, width - 1, height - 1, GROUND, stroke=CARD, rx=6)

    def box(self, x, y, width, height, fill, **more):
        self.parts.append(f'<rect x="{at(x)}" y="{at(y)}" width="{at(width)}" height="{at(height)}" '
                          f'fill="{fill}"{attributes(more)}/>')

    def line(self, points, stroke=INK, width=1, **more):
        path = " ".join(f"{at(x)},{at(y)}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" '
                          f'stroke-width="{width}"{attributes(more)}/>')

    def polygon(self, points, fill):
        path = " ".join(f"{at(x)},{at(y)}" for x, y in points)
        self.parts.append(f'<polygon points="{path}" fill="{fill}" stroke="{GROUND}" stroke-width="1"/>')

    def circle(self, x, y, radius, fill):
        self.parts.append(f'<circle cx="{at(x)}" cy="{at(y)}" r="{radius}" fill="{fill}" stroke="{GROUND}" '
                          f'stroke-width="1"/>')

    def text(self, x, y, text, size=TEXT_PX, anchor="start", fill=INK, bold=False, **more):
        """y is the base line. The ground's edge keeps it readable where a line passes."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(f'<text x="{at(x)}" y="{at(y)}" font-size="{size}" text-anchor="{anchor}" '
                          f'fill="{fill}"{weight}{attributes(more)}>{escape(text)}</text>')

    def heading(self, x, text, line):
        """Title and a quieter line below it; they end HEADING_PX from the top."""
        for y, size, words, fill, bold in ((30, TITLE_PX, text, INK, True), (51, TEXT_PX, line, QUIET, False)):
            self.text(x, y, words, fitting(words, self.width - 2 * x, size, bold), fill=fill, bold=bold)

    def __str__(self):
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {at(self.height)}" '
                f'width="{self.width}" height="{at(self.height)}" role="img" font-family="{escape(FONT)}" '
                f'paint-order="stroke">')
        return "\n".join([head, f"<title>{escape(self.title)}</title>", *self.parts, "</svg>"]) + "\n"
