# SPDX-License-Identifier: Apache-2.0
"""The demo's picture: one row a run, dispatch delay as dots above, acknowledged reports a second below, the power cut shaded.
Plain SVG, no library."""
import math
from html import escape

WIDTH, MARGIN_L, MARGIN_R = 1180, 92, 30
DOTS_H, RATE_H, GAP, ROW_GAP, TOP = 190, 110, 16, 74, 92
INK, SOFT, GRID, SHADE, GOOD, BAD = "#22303a", "#66757f", "#dde3e7", "#f7dcd6", "#1f6f8b", "#c2452d"
SITES = {"a": "#1f6f8b", "b": "#d98a1f", "c": "#6b8f3c"}
DELAY_MIN, DELAY_MAX = 5.0, 300000.0  # ms


def text(x, y, s, size=12, fill=INK, anchor="start", weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">{escape(str(s))}</text>'


def line(x1, y1, x2, y2, stroke=GRID, width=1, dash=""):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width}" stroke-dasharray="{dash}"/>'


class Row:
    """One run. spec: {title, note, dispatches: [(s after the cut, ms)], rates: {site: {second: n}}, off_s: (0, until)}"""

    def __init__(self, spec, top, begin_s, end_s):
        self.spec, self.top, self.begin, self.end = spec, top, begin_s, end_s

    def x(self, s):
        return MARGIN_L + (s - self.begin) / (self.end - self.begin) * (WIDTH - MARGIN_L - MARGIN_R)

    def y_delay(self, ms):
        f = math.log(max(DELAY_MIN, min(ms, DELAY_MAX)) / DELAY_MIN) / math.log(DELAY_MAX / DELAY_MIN)
        return self.top + DOTS_H - f * DOTS_H

    def shade(self, out):
        a, b = self.spec["off_s"]
        a, b = max(a, self.begin), min(b, self.end)
        h = DOTS_H + GAP + RATE_H
        out.append(f'<rect x="{self.x(a):.1f}" y="{self.top}" width="{self.x(b) - self.x(a):.1f}" height="{h}" fill="{SHADE}"/>')
        out.append(text(self.x(a) + 5, self.top + 14, self.spec["off_text"], 11, BAD))

    def dots(self, out):
        for ms, name in ((10, "10 ms"), (100, "100 ms"), (1000, "1 s"), (10000, "10 s"), (100000, "100 s")):
            out.append(line(MARGIN_L, self.y_delay(ms), WIDTH - MARGIN_R, self.y_delay(ms)))
            out.append(text(MARGIN_L - 8, self.y_delay(ms) + 4, name, 11, SOFT, "end"))
        out.append(line(MARGIN_L, self.y_delay(85), WIDTH - MARGIN_R, self.y_delay(85), SOFT, 1, "3 4"))
        out.append(text(WIDTH - MARGIN_R, self.y_delay(85) - 4, "85 ms", 10, SOFT, "end"))
        for s, ms in self.spec["dispatches"]:
            if self.begin <= s <= self.end:
                out.append(f'<circle cx="{self.x(s):.1f}" cy="{self.y_delay(ms):.1f}" r="1.7" fill="{BAD if ms > 1000 else GOOD}" fill-opacity="0.55"/>')

    def rates(self, out):
        top, most = self.top + DOTS_H + GAP, 100
        for site in self.spec["rates"].values():
            most = max([most] + [n for s, n in site.items() if self.begin <= s <= self.end])
        bottom = top + RATE_H
        for n in (0, most // 2, most):
            y = bottom - n / most * RATE_H
            out.append(line(MARGIN_L, y, WIDTH - MARGIN_R, y))
            out.append(text(MARGIN_L - 8, y + 4, f"{n}/s", 11, SOFT, "end"))
        for name, site in sorted(self.spec["rates"].items()):
            points = " ".join(f"{self.x(s + 0.5):.1f},{bottom - site.get(s, 0) / most * RATE_H:.1f}"
                              for s in range(math.ceil(self.begin), math.floor(self.end)))
            out.append(f'<polyline points="{points}" fill="none" stroke="{SITES.get(name, INK)}" stroke-width="1.8" stroke-linejoin="round"/>')

    def axis(self, out):
        y = self.top + DOTS_H + GAP + RATE_H
        step = 10 if self.end - self.begin <= 150 else 20
        for s in range(math.ceil(self.begin / step) * step, math.floor(self.end) + 1, step):
            out.append(line(self.x(s), y, self.x(s), y + 4, SOFT))
            out.append(text(self.x(s), y + 17, f"{s:+d} s" if s else "cut", 11, SOFT, "middle"))

    def draw(self, out):
        out.append(text(MARGIN_L, self.top - 26, self.spec["title"], 15, INK, weight="bold"))
        out.append(text(MARGIN_L, self.top - 9, self.spec["note"], 12, SOFT))
        self.shade(out)
        self.dots(out)
        self.rates(out)
        self.axis(out)


def svg(title, subtitle, specs):
    """specs: one dict a run, see Row; all share one time axis. Returns the SVG text."""
    begin = min(s["begin_s"] for s in specs)
    end = max(s["end_s"] for s in specs)
    row_h = DOTS_H + GAP + RATE_H + ROW_GAP
    height = TOP + len(specs) * row_h + 24
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
           'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">', f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
           text(MARGIN_L, 30, title, 19, INK, weight="bold"), text(MARGIN_L, 50, subtitle, 12, SOFT)]
    for i, spec in enumerate(specs):
        Row(spec, TOP + 34 + i * row_h, begin, end).draw(out)
    x, y = MARGIN_L, height - 14
    out.append(f'<circle cx="{x + 4}" cy="{y - 4}" r="3" fill="{GOOD}"/>' + text(x + 12, y, "order: placed -> received by the machine", 11, SOFT))
    x += 270
    for name, colour in SITES.items():
        out.append(line(x, y - 4, x + 22, y - 4, colour, 2.5) + text(x + 28, y, f"reports acknowledged, floor {name}", 11, SOFT))
        x += 220
    out.append("</svg>\n")
    return "\n".join(out)
