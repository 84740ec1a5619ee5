# SPDX-License-Identifier: Apache-2.0
"""./dev bench storage: the product beside GlusterFS, MooseFS and the raw limit, in one run, alternating. See docs/bench-storage.md."""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.storage import delay, plot, report
from bench.storage.contender import Place
from bench.storage.glusterfs import GlusterFS, GlusterFSShard
from bench.storage.kuayu import Product
from bench.storage.limit import Limit
from bench.storage.moosefs import MooseFS
from bench.storage.works import BEHIND, LARGE, SLOW, UNITS, WITH, WORK, Run, make_tar
from lab.util import SOURCE, LabError
from test.volume.cluster import unmount
from test.volume.network import sweep

AWAKE = {"product": "While it works, the product keeps processors from halting (its default; --awake none: without, --awake all: the peers, too).",
         "none": "Processors may halt, also while the product works (--no-awake).",
         "all": "No processor halts, whoever works."}
CONTENDERS = {c.name: c for c in (Product, GlusterFS, MooseFS, GlusterFSShard, Limit)}
SHARD_WORKS = ("seq_write", "seq_read_cold", "rand_read_4k", "rand_write_4k", "rand_write_4k_fsync", "cpu")
NOT_LIMIT = (*SLOW, "cpu", "cpu_create")
OUT = SOURCE / "out/bench"


def say(text):
    print(text, flush=True)


def options(argv):
    p = argparse.ArgumentParser(prog="./dev bench storage", description="The product beside its peers; results in out/bench/storage.json and .svg.")
    p.add_argument("--quick", action="store_true", help="one run of 256 MiB, short times: to see that it works")
    p.add_argument("--full", action="store_true", help="10 GiB once, on the disk, too")
    p.add_argument("--works", help="comma separated: " + ", ".join([*UNITS, "delay"]))
    p.add_argument("--peers", help="comma separated, of: " + ", ".join(CONTENDERS))
    p.add_argument("--runs", type=int, help="each contender in turn, this often; medians are shown (5)")
    p.add_argument("--slow-runs", type=int, default=1, help="heal, stall and sharding works only in that many runs (1)")
    p.add_argument("--bricks", choices=("tmpfs", "disk", "both"), default="both")
    p.add_argument("--size", type=int, help="MiB of the big file (2048)", dest="size_mib")
    p.add_argument("--awake", choices=("product", "none", "all"), default="product",
                   help="processors do not halt while there is work: where the product does so by itself (as is its default); nowhere; always, for the peers, too")
    p.add_argument("--json", type=Path, default=OUT / "storage.json", help="where the result goes")
    a = p.parse_args(argv)
    a.runs = a.runs or (1 if a.quick else 5)
    a.size_mib = a.size_mib or (256 if a.quick else 2048)
    a.seconds, a.files = (1, 500) if a.quick else (5, 2000)
    a.heal_mib, a.delay_mib = min(a.size_mib, 128 if a.quick else 1024), min(a.size_mib, 128 if a.quick else 512)
    a.kinds = ("tmpfs", "disk") if a.bricks == "both" else (a.bricks,)
    a.works = a.works.split(",") if a.works else [w for w in UNITS if w not in LARGE] + (["delay"] if not a.quick else [])
    a.works += [w for w in LARGE if a.full and w not in a.works]
    a.peers = a.peers.split(",") if a.peers else list(CONTENDERS)
    for what, known, given in (("work", [*UNITS, "delay"], a.works), ("peer", list(CONTENDERS), a.peers)):
        unknown = [x for x in given if x not in known]
        if unknown:
            p.error(f"unknown {what} {', '.join(unknown)}; known: {', '.join(known)}")
    if not 1 <= a.runs <= 50 or not 16 <= a.size_mib <= 65536:
        p.error("--runs is 1 to 50, --size 16 to 65536")
    return a


def wanted(name, run, kind, a):
    """The works of one contender in one run, in order; those that are measured by the way stand for their work."""
    chosen = {WITH.get(x, x) for x in a.works}
    if name != "product":
        chosen = {next((plain for plain, behind in BEHIND.items() if behind == w), w) for w in chosen}
    works = [w for w in UNITS if w in chosen]
    if run >= a.slow_runs:
        works = [w for w in works if w not in SLOW]
    if run > 0 or kind != "disk":
        works = [w for w in works if w not in LARGE]
    if name == "limit":
        works = [w for w in works if w not in NOT_LIMIT]
    if name == "glusterfs_shard":
        works = [w for w in works if w in SHARD_WORKS and run < a.slow_runs]
    return works


def measure(name, works, place, a, kind, results):
    """All works of one contender in one run. A work that fails is noted and the next one is tried."""
    contender = CONTENDERS[name](place)
    try:
        run = Run(contender, a)
        for work in works:
            start = time.monotonic()
            try:
                value = getattr(run, work)()
            except (LabError, OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
                say(f"    {work:<22} failed: {str(e)[:300]}")
                results.fail(kind, name, work, str(e))
                if work in SLOW:  # a brick may be down or cut off: what follows would measure that
                    break
                continue
            for row, v in (value if isinstance(value, dict) else {work: value}).items():
                results.add(kind, name, row, v, run.extra.pop(row, None))
                if v is not None:
                    say(f"    {row:<22} {report.number(v):>10} {UNITS[row]}   ({time.monotonic() - start:.1f} s)")
    finally:
        contender.close()


def one_run(run, kind, a, results):
    for name in a.peers:
        works = wanted(name, run, kind, a)
        if not works:
            continue
        say(f"run {run + 1}/{a.runs}, bricks on {kind}: {name}")
        place = Place(kind, 4 * a.size_mib + 4096)
        try:
            measure(name, works, place, a, kind, results)
        except (LabError, OSError, subprocess.SubprocessError) as e:
            say(f"    {name} does not start: {e}")
            results.fail(kind, name, "start", str(e))
        finally:
            place.close()
        results.save()


def delays(a, results):
    for name in ("product", "glusterfs"):
        if name not in a.peers:
            continue
        say(f"delay between domains, bricks on tmpfs: {name}")
        place = Place("tmpfs", 4 * a.delay_mib + 4096)
        try:
            delay.measure(lambda: CONTENDERS[name](place, network="wire"), name, a,
                          lambda row, v, n=name: results.add("tmpfs", n, row, v), say)
        except (LabError, OSError, subprocess.SubprocessError) as e:
            say(f"    failed: {e}")
            results.fail("tmpfs", name, "delay", str(e))
        finally:
            place.close()
        results.save()


def stop(number, frame):
    raise KeyboardInterrupt


def sweep_places():
    """Folders and mounts of benches that were killed; their names carry the process id."""
    for folder in Path("/var/tmp").glob("kuayu-bench-*-*"):
        pid = folder.name.split("-")[2]
        if not pid.isdigit() or os.path.exists(f"/proc/{pid}"):
            continue
        with open("/proc/self/mountinfo") as f:
            left = [p for p in (line.split()[4] for line in f) if p == str(folder) or p.startswith(f"{folder}/")]
        for path in reversed(left):
            unmount(path, 1)
        shutil.rmtree(folder, ignore_errors=True)


def keep_awake():
    """While the file is open no processor of this machine halts: the kernel's PM QoS, wake-up within 0 us."""
    device = open("/dev/cpu_dma_latency", "wb", buffering=0)
    device.write(bytes(4))
    return device


def main(argv):
    a = options(argv)
    if os.geteuid() != 0:
        say("bench: needs root: it makes namespaces and mounts")
        return 1
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    sweep()
    sweep_places()
    OUT.mkdir(parents=True, exist_ok=True)
    a.tar = make_tar(OUT / "tree.tar")
    tcp = json.loads(subprocess.run([WORK, "tcp", "-", "--size=4096"], capture_output=True, text=True, check=True).stdout)["value"]
    results = report.Results(a.json, {**report.machine(tcp), "awake": a.awake})
    Product.awake = a.awake != "none"
    held = keep_awake() if a.awake == "all" else None
    try:
        for run in range(a.runs):
            for kind in a.kinds:
                one_run(run, kind, a, results)
        if "delay" in a.works and "tmpfs" in a.kinds:
            delays(a, results)
    except KeyboardInterrupt:
        say("interrupted: what was measured is kept")
    finally:
        if held:
            held.close()
    results.save()
    rows = results.rows()
    say("\n" + report.table(rows, results.failed))
    say("\n" + AWAKE[a.awake])
    picture = a.json.with_suffix(".svg")
    picture.write_text(plot.svg(results.machine, rows))
    say(f"\n{a.json}\n{picture}")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
