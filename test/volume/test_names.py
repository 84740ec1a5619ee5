# SPDX-License-Identifier: Apache-2.0
"""Names and links over all groups of a volume while bricks are killed and return: operations over two groups are finished by whoever is
primary then. KUAYU_SECONDS (default 10) makes both tests longer, KUAYU_SEED another run; `./dev soak --faults` sets them."""
import collections
import errno
import os
import random
import subprocess
import threading
import time
import unittest

from test.volume.cluster import VolumeCluster

SECONDS = float(os.environ.get("KUAYU_SECONDS", "10"))
SEED = int(os.environ.get("KUAYU_SEED", "1"))
FOLDERS = [f"d{i}" for i in range(6)]
# What others did to a name that several work on. ESTALE is the kernel's: a folder that the other mount renames just now.
RACES = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EPERM, errno.ESTALE, errno.EBUSY}


def expect(what, is_so, got=""):
    if not is_so:
        raise AssertionError(f"{what} {got}")


def round_trip(m, o, a, b, x):
    """One file and one folder through everything, with names of their own: each step must do exactly what it says, seen from both mounts."""
    text = x * (70000 // len(x))  # over two groups where stripes are small
    with open(f"{m}/{a}/{x}", "x") as f:
        f.write(text)
    expect("size", os.stat(f"{o}/{a}/{x}").st_size == len(text))
    os.rename(f"{m}/{a}/{x}", f"{m}/{b}/{x}r")
    expect("the old name is there", not os.path.exists(f"{o}/{a}/{x}"))
    with open(f"{o}/{b}/{x}r") as f:
        expect("content", f.read() == text)
    os.link(f"{o}/{b}/{x}r", f"{o}/{a}/{x}l")
    expect("links", os.stat(f"{m}/{a}/{x}l").st_nlink == 2)
    os.unlink(f"{m}/{b}/{x}r")
    os.mkdir(f"{m}/{a}/{x}d")
    os.rename(f"{o}/{a}/{x}d", f"{o}/{b}/{x}e")
    os.rename(f"{m}/{a}/{x}l", f"{m}/{b}/{x}e/f")
    expect("list", os.listdir(f"{o}/{b}/{x}e") == ["f"])
    try:
        os.rmdir(f"{o}/{b}/{x}e")
        raise AssertionError("a folder with a file was removed")
    except OSError as e:
        expect("rmdir", e.errno == errno.ENOTEMPTY, e)
    os.unlink(f"{o}/{b}/{x}e/f")
    os.rmdir(f"{m}/{b}/{x}e")


def race(m, rng):
    """One operation on a few names that everybody uses."""
    def path():
        return "/".join([str(m), rng.choice(FOLDERS)] + ([rng.choice("abcd")] if rng.random() < 0.3 else []) + [rng.choice("abcdef")])
    what = rng.choice(["create", "mkdir", "rename", "rename", "rename", "link", "unlink", "rmdir"])
    if what == "create":
        os.close(os.open(path(), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    elif what in ("rename", "link"):
        getattr(os, what)(path(), path())
    else:
        getattr(os, what)(path())


def tree(top):
    """All paths, and where link counts do not fit the names."""
    names, links, wrong, paths = collections.Counter(), {}, [], []
    for path, folders, files in os.walk(top):
        if os.stat(path).st_nlink != 2 + len(folders):
            wrong.append((path, os.stat(path).st_nlink, folders))
        paths += [os.path.relpath(os.path.join(path, x), top) for x in folders + files]
        for name in files:
            s = os.lstat(os.path.join(path, name))
            names[s.st_ino] += 1
            links[s.st_ino] = s.st_nlink
    return sorted(paths), wrong + [(i, links[i], n) for i, n in names.items() if links[i] != n]


class Names(unittest.TestCase):
    def setUp(self):
        self.cluster = VolumeCluster()
        self.addCleanup(self.cluster.close)
        self.mounts = [self.cluster.mount(domain="a"), self.cluster.mount(domain="b")]
        for folder in FOLDERS:
            (self.mounts[0] / folder).mkdir()
        self.wrong, self.rounds = [], 0

    def work(self, step):
        """step(worker, n, rng) on six threads, with faults; then all copies are in sync."""
        end, stop = time.monotonic() + SECONDS, threading.Event()
        self.addCleanup(stop.set)

        def run(i):
            rng, n = random.Random(SEED * 100 + i), 0
            while not stop.is_set() and len(self.wrong) < 20:
                n += 1
                try:
                    step(i, n, rng)
                    self.rounds += 1
                except (OSError, AssertionError) as e:
                    self.wrong.append(f"worker {i}, round {n}: {e!r}")
        threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
        rng, faults = random.Random(SEED), 0
        for t in threads:
            t.start()
        while faults < 3 or time.monotonic() < end - 3:  # here: bricks end with the thread that started them
            time.sleep(rng.uniform(0.3, 1))
            brick = rng.choice(list(self.cluster.bricks))
            self.cluster.kill(brick)
            time.sleep(rng.uniform(0.2, 1.5))
            self.cluster.restart(brick)
            self.cluster.wait_healed(60)
            faults += 1
        time.sleep(max(1, end - time.monotonic()))
        stop.set()
        for t in threads:
            t.join(90)
            self.assertFalse(t.is_alive())
        self.assertGreater(faults, 0)
        print(f"{self.rounds} rounds, {faults} faults")

    def test_names_of_ones_own(self):
        def step(i, n, rng):
            round_trip(self.mounts[i % 2], self.mounts[1 - i % 2], rng.choice(FOLDERS), rng.choice(FOLDERS), f"w{i}.{n}")
        self.work(step)
        self.assertEqual(self.wrong, [])
        self.assertGreater(self.rounds, 10)
        for m in self.mounts:
            self.assertEqual(tree(m), (FOLDERS, []))

    def test_names_of_all(self):
        def step(i, _n, rng):
            try:
                race(self.mounts[i % 2], rng)
            except OSError as e:
                if e.errno not in RACES:
                    raise
        self.work(step)
        self.assertEqual(self.wrong, [])
        a, b = tree(self.mounts[0]), tree(self.mounts[1])
        self.assertEqual((a[1], b[1]), ([], []))
        self.assertEqual(a[0], b[0])
        subprocess.run(["rm", "-r", *(str(self.mounts[0] / f) for f in FOLDERS)], check=True, capture_output=True, timeout=120)
        self.assertEqual(os.listdir(self.mounts[1]), [])


if __name__ == "__main__":
    unittest.main()
