# SPDX-License-Identifier: Apache-2.0
"""The picture of a bench: for each work one panel of bars, product, peers and limit, as multiples of GlusterFS where it was
measured (else of the largest peer), on a logarithmic axis, with the values written at the bars. Plain SVG."""
import math

from lab.plot import GRID, INK, SOFT, line, text

WIDTH, LEFT, LABEL, BAR, GAP, HEAD = 1240, 30, 172, 11, 13, 96
NAMES = {"product": ("kuayu", "#1f6f8b"), "glusterfs": ("GlusterFS replica 3", "#d98a1f"), "glusterfs_shard": ("GlusterFS with shards", "#e8be7d"),
         "moosefs": ("MooseFS goal 3", "#6b8f3c"), "limit": ("limit: three raw copies, or one through pass-through FUSE", "#b9c3c9")}
TITLES = {"tmpfs": "Bricks in memory", "disk": "Bricks on the disk"}
DECADES = (0.1, 1, 10, 100)


def number(v):
    return f"{v:,.0f}" if v >= 100 else f"{v:.1f}" if v >= 10 else f"{v:.2f}" if v >= 0.1 else f"{v:.2g}"


class Column:
    """All works with bricks of one kind."""

    def __init__(self, rows, x, width):
        self.rows, self.x, self.width = rows, x + LABEL, width - LABEL - 64

    def base(self, row):
        return row["glusterfs"] or max((row[n] for n in ("moosefs", "product", "limit") if row[n]), default=1)

    def at(self, multiple):
        f = (math.log10(max(0.1, min(multiple, 100))) + 1) / 3
        return self.x + f * self.width

    @staticmethod
    def bars(row):
        return [n for n in NAMES if row[n] is not None]

    def height(self):
        return sum(max(2, len(self.bars(r))) * BAR + GAP for r in self.rows)

    def draw(self, top, out):
        bottom = top + self.height()
        for d in DECADES:
            out.append(line(self.at(d), top - 8, self.at(d), bottom, SOFT if d == 1 else GRID, 1, "" if d == 1 else "2 3"))
            out.append(text(self.at(d), top - 13, f"{d:g} x", 10, SOFT, "middle"))
        y = top
        for row in self.rows:
            bars = self.bars(row)
            h = max(2, len(bars)) * BAR
            out.append(text(self.x - 10, y + h / 2, row["work"], 11.5, INK, "end"))
            out.append(text(self.x - 10, y + h / 2 + 11, row["unit"], 9, SOFT, "end"))
            for i, name in enumerate(bars):
                end = self.at(row[name] / self.base(row))
                out.append(f'<rect x="{self.x:.1f}" y="{y + i * BAR + 1:.1f}" width="{max(1.5, end - self.x):.1f}" height="{BAR - 2}" rx="1.5" '
                           f'fill="{NAMES[name][1]}"/>')
                out.append(text(end + 4, y + i * BAR + BAR - 2, number(row[name]), 9, INK if name == "product" else SOFT))
            y += h + GAP


def svg(machine, rows):
    kinds = [k for k in TITLES if any(r["bricks"] == k for r in rows)]
    width = (WIDTH - 2 * LEFT) / max(1, len(kinds))
    columns = [Column([r for r in rows if r["bricks"] == k], LEFT + i * width, width) for i, k in enumerate(kinds)]
    height = HEAD + max((c.height() for c in columns), default=0) + 56
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" '
           'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">', f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
           text(LEFT, 30, "Storage: three copies in three domains, one client", 19, INK, weight="bold"),
           text(LEFT, 50, f"Multiples of GlusterFS on the same machine in the same run, medians; longer is better. {machine['cpus']} CPUs, "
                          f"kernel {machine['kernel']}, loopback TCP {machine['loopback_tcp_mb_s']:,.0f} MB/s, commit {machine['commit']}, awake: {machine['awake']}", 12, SOFT)]
    for kind, column in zip(kinds, columns):
        out.append(text(column.x, 74, TITLES[kind], 14, INK, weight="bold"))
        column.draw(HEAD + 12, out)
    x = LEFT
    for name in NAMES:
        if any(r[name] is not None for r in rows):
            out.append(f'<rect x="{x}" y="{height - 27:.0f}" width="16" height="10" rx="2" fill="{NAMES[name][1]}"/>')
            out.append(text(x + 22, height - 18, NAMES[name][0], 11, SOFT))
            x += 46 + 7 * len(NAMES[name][0])
    out.append("</svg>\n")
    return "\n".join(out)
