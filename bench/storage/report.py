# SPDX-License-Identifier: Apache-2.0
"""Results: kept value by value, written after each run (a broken bench loses nothing), as JSON and as a table."""
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path

from bench.storage import delay
from bench.storage.works import BEHIND, UNITS

COLUMNS = ("product", "glusterfs", "glusterfs_shard", "moosefs", "limit")


def machine(loopback):
    memory = Path("/proc/meminfo").read_text().split()[1]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"cpus": os.cpu_count(), "cpu": cpu, "memory_mib": int(memory) // 1024, "kernel": platform.release(), "commit": commit,
            "load_average": os.getloadavg()[0], "loopback_tcp_mb_s": loopback}


class Results:
    def __init__(self, path, facts):
        self.path, self.machine, self.values, self.extra, self.failed = path, facts, {}, {}, []

    def add(self, bricks, contender, row, value, more=None):
        if value is not None:
            self.values.setdefault((row, bricks), {}).setdefault(contender, []).append(value)
            if contender != "product" and row in BEHIND:
                self.values.setdefault((BEHIND[row], bricks), {}).setdefault(contender, []).append(value)
        if more:
            self.extra.setdefault((row, bricks), {}).setdefault(contender, []).append(more)

    def fail(self, bricks, contender, work, why):
        self.failed.append({"bricks": bricks, "contender": contender, "work": work, "why": why[:600]})

    def rows(self):
        order = [*UNITS, *delay.rows()]
        out = []
        for bricks in ("tmpfs", "disk"):
            for work in order:
                runs = self.values.get((work, bricks))
                if not runs:
                    continue
                row = {"work": work, "bricks": bricks, "unit": UNITS.get(work, "MB/s")}
                row.update({c: statistics.median(runs[c]) if runs.get(c) else None for c in COLUMNS})
                row["runs"] = runs
                row["details"] = self.extra.get((work, bricks), {})
                out.append(row)
        return out

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": self.machine, "rows": self.rows(), "failed": self.failed}, indent=1)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text + "\n")
        temporary.replace(self.path)


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def ratio(a, b):
    return "-" if a is None or not b else f"{a / b:.2f}"


def table(rows, failed):
    shard = any(r["glusterfs_shard"] is not None for r in rows)
    names = [c for c in COLUMNS if c != "glusterfs_shard" or shard]
    ratios = [c for c in names if c != "product"]
    heads = ["work", "bricks", "unit", *names, *["/ " + c.replace("glusterfs", "gluster") for c in ratios]]
    lines = [[r["work"], r["bricks"], r["unit"], *[number(r[c]) for c in names], *[ratio(r["product"], r[c]) for c in ratios]] for r in rows]
    widths = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]

    def fit(line):
        return "  ".join(cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
    out = [fit(heads), "-" * (sum(widths) + 2 * len(widths) - 2), *[fit(line) for line in lines]]
    out += [f"not measured: {f['contender']} on {f['bricks']}, {f['work']}: {f['why'].splitlines()[0]}" for f in failed]
    return "\n".join(out)
