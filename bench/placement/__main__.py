# SPDX-License-Identifier: Apache-2.0
"""./dev bench placement: what is lost when several nodes are lost at once, by way of placement.

A folder is of use when all its related files are there. Copies in three domains; k of N nodes are lost at once, drawn at random;
a file is lost when all three of its bricks are. Placements:
  product        a folder's files on one group of the product's own map (bench-place: core/place)
  product_stripe the same with stripe 2: a folder's files on two groups
  file_sets      each file on its own, by hash, on one of N/3 disjoint sets (as GlusterFS distributes)
  file_random    each file on its own on any three bricks in different domains (as MooseFS places chunks)
  stripe_random  each stripe of a file so
Monte Carlo with a seed; where a formula exists it is computed as well and must agree (status 1 when it does not)."""
import argparse
import json
import math
import random
import subprocess
import sys
from itertools import product
from pathlib import Path

from lab.plot import GRID, INK, SOFT, line, text
from lab.util import BUILD, SOURCE, LabError, run

PLACE = BUILD / "bench/placement/bench-place"
SIZES = (6, 12, 30)
NAMES = {"product": ("kuayu: a folder on one group", "#1f6f8b"), "product_stripe": ("kuayu, stripe 2", "#7fb3c4"),
         "file_sets": ("each file on one of N/3 sets", "#d98a1f"), "file_random": ("each file on any three", "#6b8f3c"),
         "stripe_random": ("each stripe on any three", "#c2452d")}
SIGMAS = 5


def real_folders(bricks, stripe, folders):
    """For each folder the brick sets that hold a part of its files, from the product's placement."""
    out = run(PLACE, bricks, 3, stripe, folders).stdout
    return [frozenset(frozenset(int(b) for b in group.split(",")) for group in row.split()) for row in out.splitlines()]


def made_folders(way, bricks, a, rng):
    per_domain = [[b for b in range(bricks) if b % 3 == d] for d in range(3)]
    if way == "file_sets":
        sets = [frozenset(d[i] for d in per_domain) for i in range(bricks // 3)]
    else:
        sets = [frozenset(t) for t in product(*per_domain)]
    pieces = a.files * (a.stripes if way == "stripe_random" else 1)
    return [frozenset(rng.choices(sets, k=pieces)) for _ in range(a.folders)]


def simulate(folders, bricks, lost, trials, rng):
    """(share of folders that stay complete, chance that some folder does not, standard errors of both)."""
    sets = sorted({s for f in folders for s in f}, key=sorted)
    number = {s: i for i, s in enumerate(sets)}
    masks = [sum(1 << b for b in s) for s in sets]
    held = {}
    for f in folders:  # folders on the same sets share their fate
        key = sum(1 << number[s] for s in f)
        held[key] = held.get(key, 0) + 1
    held, nodes, broken_any, share, square = list(held.items()), range(bricks), 0, 0.0, 0.0
    for _ in range(trials):
        gone = sum(1 << n for n in rng.sample(nodes, lost))
        dead = sum(1 << i for i, m in enumerate(masks) if m & gone == m)
        broken = sum(n for key, n in held if key & dead) / len(folders) if dead else 0
        broken_any += broken > 0
        share += 1 - broken
        square += (1 - broken) ** 2
    mean, p = share / trials, broken_any / trials
    return mean, p, math.sqrt(max(0, square / trials - mean * mean) / trials), math.sqrt(p * (1 - p) / trials)


def folder_complete(way, bricks, lost, a):
    """Exact chance that a folder placed this way (with its placement drawn anew each time) stays complete; None without formula."""
    total, n = math.comb(bricks, lost), bricks // 3
    if way == "product":  # one set of three given bricks
        return 1 - math.comb(bricks - 3, lost - 3) / total if lost >= 3 else 1.0
    if way == "file_random" or way == "stripe_random":
        pieces, sum_ = a.files * (a.stripes if way == "stripe_random" else 1), 0.0
        for x, y in product(range(n + 1), repeat=2):  # lost in each domain
            z = lost - x - y
            if 0 <= z <= n:
                ways = math.comb(n, x) * math.comb(n, y) * math.comb(n, z)
                sum_ += ways / total * (1 - x * y * z / n ** 3) ** pieces
        return sum_
    if way == "file_sets":
        sum_ = 0.0
        for dead in range(min(n, lost // 3) + 1):  # exactly this many of the n disjoint sets are lost, by inclusion and exclusion
            ways = sum((-1) ** j * math.comb(n - dead, j) * math.comb(bricks - 3 * (dead + j), lost - 3 * (dead + j))
                       for j in range(n - dead + 1) if lost - 3 * (dead + j) >= 0)
            sum_ += math.comb(n, dead) * ways / total * (1 - dead / n) ** a.files
        return sum_
    return None


def placement_spread(values):
    """The drawn placement is one of many: the share of folders of one set differs from its expectation by this, roughly."""
    return math.sqrt(max(1e-12, values * (1 - values)))


def measure(bricks, a, say):
    rows, wrong = [], []
    ways = [w for w in NAMES if w != "product_stripe" or bricks % 6 == 0]
    for way in ways:
        rng = random.Random(f"{a.seed} {bricks} {way}")
        if way.startswith("product"):
            folders = real_folders(bricks, 2 if way == "product_stripe" else 1, a.folders)
        else:
            folders = made_folders(way, bricks, a, rng)
        for lost in sorted({2, 3, 4, *(round(bricks * i / 12) for i in range(2, 9))}):
            if not 2 <= lost <= bricks:
                continue
            complete, broken, se, se_broken = simulate(folders, bricks, lost, a.trials, rng)
            exact = folder_complete(way, bricks, lost, a)
            if exact is not None:
                # Sampling error of the trials and of the folders' placement (few sets: a share of the folders on each, not equal).
                allowed = SIGMAS * (se + placement_spread(exact) / math.sqrt(min(a.folders, 10 ** 6))) + 1e-9
                if abs(complete - exact) > allowed:
                    wrong.append(f"{way}, {bricks} bricks, {lost} lost: simulated {complete:.5f}, formula {exact:.5f}, allowed difference {allowed:.5f}")
            rows.append({"bricks": bricks, "placement": way, "lost": lost, "sets": len({s for f in folders for s in f}),
                         "folders_complete": complete, "some_folder_broken": broken, "standard_error": se, "standard_error_broken": se_broken,
                         "formula_folders_complete": exact})
        say(f"  {bricks} bricks, {NAMES[way][0]}: " + ", ".join(f"{r['lost']} lost {100 * r['folders_complete']:.1f} %"
                                                               for r in rows if r["placement"] == way))
    return rows, wrong


# ---- picture ----

WIDTH, PANEL_W, PANEL_H, LEFT, TOP, GAP_X, GAP_Y = 1240, 350, 230, 70, 104, 52, 84


def panel(rows, bricks, key, x0, y0, title, out):
    most = max(r["lost"] for r in rows)

    def x(lost):
        return x0 + (lost - 2) / (most - 2) * PANEL_W

    def y(v):
        return y0 + PANEL_H - v * PANEL_H
    out.append(text(x0, y0 - 14, title, 13, INK, weight="bold"))
    for v in (0, 0.25, 0.5, 0.75, 1):
        out.append(line(x0, y(v), x0 + PANEL_W, y(v), GRID))
        out.append(text(x0 - 7, y(v) + 4, f"{100 * v:.0f} %", 10, SOFT, "end"))
    for lost in sorted({r["lost"] for r in rows}):
        out.append(text(x(lost), y0 + PANEL_H + 15, lost, 10, SOFT, "middle"))
    out.append(text(x0 + PANEL_W / 2, y0 + PANEL_H + 32, f"nodes lost at once, of {bricks}", 11, SOFT, "middle"))
    for way, (_, colour) in reversed(NAMES.items()):
        points = [(x(r["lost"]), y(r[key])) for r in rows if r["placement"] == way]
        if points:
            out.append(f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}" fill="none" stroke="{colour}" '
                       f'stroke-width="{3 if way == "product" else 1.8}" stroke-linejoin="round"/>')
            out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{3.2 if way == "product" else 2.2}" fill="{colour}"/>' for a, b in points]
    if key == "folders_complete":  # formulas as rings on the points
        out += [f'<circle cx="{x(r["lost"]):.1f}" cy="{y(r["formula_folders_complete"]):.1f}" r="4.6" fill="none" stroke="{NAMES[r["placement"]][1]}" '
                'stroke-width="0.8"/>' for r in rows if r["formula_folders_complete"] is not None]


def svg(rows, a):
    height = TOP + 2 * (PANEL_H + GAP_Y) + 26
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
           'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">', f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
           text(LEFT, 30, "Nodes lost at once: which folders still have all their files", 19, INK, weight="bold"),
           text(LEFT, 50, f"Three copies in three domains; {a.folders} folders of {a.files} related files, {a.stripes} stripes a file; {a.trials:,} trials a point, "
                          f"seed {a.seed}; rings: closed form", 12, SOFT)]
    for i, bricks in enumerate(SIZES):
        mine = [r for r in rows if r["bricks"] == bricks]
        if mine:
            x0 = LEFT + i * (PANEL_W + GAP_X)
            panel(mine, bricks, "folders_complete", x0, TOP, f"{bricks} bricks: folders that are complete", out)
            panel(mine, bricks, "some_folder_broken", x0, TOP + PANEL_H + GAP_Y, f"{bricks} bricks: chance that some folder is not", out)
    x0 = LEFT
    for name, colour in NAMES.values():
        out.append(line(x0, height - 18, x0 + 22, height - 18, colour, 3) + text(x0 + 28, height - 14, name, 11, SOFT))
        x0 += 60 + 6.6 * len(name)
    out.append("</svg>\n")
    return "\n".join(out)


def main(argv):
    p = argparse.ArgumentParser(prog="./dev bench placement", description="What is lost when several nodes are lost at once.")
    p.add_argument("--trials", type=int, default=4000, help="a point (4000)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--folders", type=int, default=400)
    p.add_argument("--files", type=int, default=50, help="related files of a folder (50)")
    p.add_argument("--stripes", type=int, default=8, help="stripes of a file, where they are placed one by one (8)")
    p.add_argument("--out", type=Path, default=SOURCE / "out/bench")
    a = p.parse_args(argv)
    if not (100 <= a.trials <= 10**6 and 1 <= a.folders <= 10**5 and 1 <= a.files <= 10**4 and 1 <= a.stripes <= 1000):
        p.error("out of bounds: trials 100..1e6, folders 1..1e5, files 1..1e4, stripes 1..1000")
    rows, wrong = [], []
    try:
        for bricks in SIZES:
            more, bad = measure(bricks, a, lambda t: print(t, flush=True))
            rows, wrong = rows + more, wrong + bad
    except (LabError, subprocess.SubprocessError) as e:
        print(f"bench placement: {e}", file=sys.stderr)
        return 1
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "placement.json").write_text(json.dumps({"trials": a.trials, "seed": a.seed, "folders": a.folders, "files": a.files, "stripes": a.stripes,
                                                      "rows": rows, "disagreements": wrong}, indent=1) + "\n")
    (a.out / "placement.svg").write_text(svg(rows, a))
    for t in wrong:
        print(f"formula and simulation disagree: {t}")
    print(f"{a.out}/placement.json\n{a.out}/placement.svg")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
