# SPDX-License-Identifier: Apache-2.0
"""./dev soak: the volume's suites with new seeds, for as long as asked; optionally while bricks die and return.

A seed that fails is printed with the command that repeats it. Ends at the first failure (--keep-going: at the end)."""
import argparse
import os
import random
import subprocess
import sys
import threading
import time

from lab.util import BUILD, LabError
from test.posix import mounts, stress
from test.posix.conform.__main__ import check
from test.volume.cluster import VolumeCluster

FSX = BUILD / "test/posix/posix-fsx"


class Faults(threading.Thread):
    """Kills a brick, lets it return, waits until all copies are in sync; again."""

    def __init__(self, cluster, rng):
        super().__init__(daemon=True)
        self.cluster, self.rng, self.stopped, self.done, self.error = cluster, rng, threading.Event(), 0, None

    def run(self):
        try:
            while not self.stopped.wait(self.rng.uniform(0.5, 3)):
                brick = self.rng.choice(list(self.cluster.bricks))
                self.cluster.kill(brick)
                self.stopped.wait(self.rng.uniform(0.2, 2))
                self.cluster.restart(brick)
                self.cluster.wait_healed(60)
                self.done += 1
        except (LabError, OSError) as e:
            self.error = e


def fsx(a, b, seed, seconds):
    words = [FSX, f"{a}/fsx", f"--seed={seed}", "--ops=1000000", f"--seconds={seconds}"] + ([f"--other={b}/fsx"] if seed % 2 else [])
    p = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 120)
    return p.stderr if p.returncode else ""


def compare(a, b, seed, seconds):
    stress.compare(a, b if seed % 2 else None, seed, ops=10**9, seconds=seconds)
    return ""


def crowd(a, b, seed, seconds):
    stress.crowd(a, b, 6, seconds, seed)
    return ""


def two_mounts(a, b, seed, seconds):
    return "\n".join(mounts.run(a, b)[1])


def conform(a, b, seed, seconds):
    return "\n".join(check(a)[1])


def own_cluster(module, **env):
    """A test that starts a volume of its own and damages that: the folders are not used."""
    p = subprocess.run([sys.executable, "-m", "unittest", module], capture_output=True, text=True, env={**os.environ, **env}, timeout=3600)
    return "" if p.returncode == 0 else p.stdout + p.stderr


def history(a, b, seed, seconds):
    return own_cluster("test.volume.test_history", KUAYU_HISTORY_SEED=str(seed), KUAYU_HISTORY_SECONDS=str(seconds))


def power(a, b, seed, seconds):
    return own_cluster("test.volume.test_power", KUAYU_POWER_SEED=str(seed), KUAYU_POWER_ROUNDS=str(max(1, int(seconds / 5))))


def names(a, b, seed, seconds):
    return own_cluster("test.volume.test_names", KUAYU_SEED=str(seed), KUAYU_SECONDS=str(seconds))


SUITES = {"history": history, "power": power, "names": names, "fsx": fsx, "compare": compare, "crowd": crowd, "mounts": two_mounts, "conform": conform}


def round_of(a, b, suites, seed, seconds):
    """[(suite, failure)] of one round."""
    failed = []
    for name in suites:
        start = time.monotonic()
        try:
            text = SUITES[name](a, b, seed, seconds)
        except (stress.Difference, OSError, subprocess.SubprocessError) as e:
            text = str(e) or repr(e)
        print(f"seed {seed:>8}  {name:<8} {'FAILED' if text else 'ok':<6} {time.monotonic() - start:6.1f} s", flush=True)
        if text:
            print("  " + text[:6000].replace("\n", "\n  "), flush=True)
            failed.append((name, text))
    return failed


def main(argv):
    p = argparse.ArgumentParser(prog="./dev soak", description="The volume's suites with new seeds, for as long as asked.")
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--seed", type=int, help="of the first round (default: from the clock)")
    p.add_argument("--seconds", type=float, default=20, help="of one suite in one round")
    p.add_argument("--suites", help="of: " + ", ".join(SUITES) + " (default: fsx,compare,crowd,mounts; with --faults history,power,names too, on volumes of their own)")
    p.add_argument("--faults", action="store_true", help="kill bricks and let them return all the time")
    p.add_argument("--stripe", metavar="STRIPE[,KIB[,SETS]]", default="1", help="stripes of each file, a stripe's size (default 1024), times so many bricks")
    p.add_argument("--keep-going", action="store_true")
    a = p.parse_args(argv)
    suites = (a.suites or "fsx,compare,crowd,mounts" + (",history,power,names" if a.faults else "")).split(",")
    if any(s not in SUITES for s in suites):
        p.error(f"suites are: {', '.join(SUITES)}")
    seed, end, failed, rounds = a.seed if a.seed is not None else int(time.time()) % 10**6, time.monotonic() + a.minutes * 60, 0, 0
    os.environ["KUAYU_STRIPE"] = a.stripe  # of all volumes that suites make
    with VolumeCluster() as c:
        one, two = str(c.mount(domain="a")), str(c.mount(domain="b"))
        faults = Faults(c, random.Random(seed)) if a.faults else None
        if faults:
            faults.start()
        while rounds == 0 or (time.monotonic() < end and (a.keep_going or not failed)):
            bad = round_of(one, two, suites, seed, a.seconds)
            if faults and faults.error:
                bad.append(("faults", str(faults.error)))
                print(f"faults: {faults.error}")
                faults.error = None
            if bad:
                failed += 1
                print(f"again: ./dev soak --seed {seed} --minutes 0.01 --seconds {a.seconds} --suites {','.join(s for s, _ in bad if s in SUITES)}"
                      + (" --faults" if a.faults else "") + (f" --stripe {a.stripe}" if a.stripe != "1" else ""))
            rounds, seed = rounds + 1, seed + 1
        if faults:
            faults.stopped.set()
            faults.join(90)
            print(f"{faults.done} times a brick was killed and returned")
    print(f"{rounds} rounds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
