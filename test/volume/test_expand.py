# SPDX-License-Identifier: Apache-2.0
"""Groups that move to other bricks while programs write: expand, replace-brick, and what dies in the middle of it. Nothing that was
acknowledged may be missing afterwards, and each group lies where the map says, in sync, in different domains."""
import hashlib
import os
import signal
import threading
import time
import unittest

from lab.util import wait_for
from test.volume.cluster import VolumeCluster


class Writers:
    """Threads that make, overwrite and delete files until they are stopped; what they believe is in `files`, the worst wait in `longest`."""

    def __init__(self, root, n=2):
        self.root, self.files, self.failed, self.longest, self.done = root, {}, [], 0.0, 0
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(k,)) for k in range(n)]
        for t in self.threads:
            t.start()

    def _run(self, k):
        i = 0
        while not self.stopped.is_set():
            folder, data = self.root / f"w{k}-{i % 23}", os.urandom(1 + (i * 7919) % 20000)
            path, start = folder / f"f{i % 211}", time.monotonic()
            try:
                folder.mkdir(exist_ok=True)
                if i % 13 == 12 and path in self.files:
                    path.unlink()
                    del self.files[path]
                else:
                    path.write_bytes(data)
                    self.files[path] = hashlib.sha256(data).hexdigest()
            except OSError as e:
                self.failed.append(f"{path}: {e}")
                return
            self.longest = max(self.longest, time.monotonic() - start)
            self.done += 1
            i += 1

    def stop(self):
        self.stopped.set()
        for t in self.threads:
            t.join(60)


class Moves(unittest.TestCase):
    def setUp(self):
        self.c = VolumeCluster(spares_per_domain=1)
        self.addCleanup(self.c.close)
        self.mount = self.c.mount()
        self.still = {}
        for i in range(120):
            folder = self.mount / f"d{i % 30}"
            folder.mkdir(exist_ok=True)
            data = os.urandom(1000 + i * 991)
            (folder / f"f{i}").write_bytes(data)
            self.still[folder / f"f{i}"] = hashlib.sha256(data).hexdigest()
        big = os.urandom(9 << 20)
        (self.mount / "big").write_bytes(big)
        self.still[self.mount / "big"] = hashlib.sha256(big).hexdigest()
        self.writers = Writers(self.mount)
        self.addCleanup(self.writers.stop)
        time.sleep(0.5)

    def paths(self, *names):
        return [f"{n}:{self.c.bricks[n].data}" for n in names]

    def moved(self, status=None):
        status = status or self.c.status()
        return status["moves"]["groups"] == 0 and status["in_sync"]

    def wait_moved(self, seconds=90):
        wait_for("all groups are in their places", self.moved, seconds, [b.log for b in self.c.bricks.values()], 0.2)

    def expand(self, *options):
        return self.c.volume("expand", *self.paths("a2", "b2", "c2"), *options, timeout=120)

    def check_all(self, members):
        """Everybody's data, by a mount that has nothing in its cache; each group's members."""
        before = self.writers.done
        wait_for("writers go on", lambda: self.writers.failed or self.writers.done > before + 20, 30)
        self.writers.stop()
        self.assertEqual(self.writers.failed, [])
        print(f"{self._testMethodName}: {self.writers.done} operations, the longest took {self.writers.longest * 1000:.0f} ms")
        fresh, wrong = self.c.mount(domain="b"), []
        files = {**self.still, **self.writers.files}
        for path, digest in files.items():
            data = (fresh / path.relative_to(self.mount)).read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                wrong.append(str(path))
        self.assertEqual(wrong, [])
        for k in range(2):  # and nothing that was deleted is back
            there = {p for folder in fresh.glob(f"w{k}-*") for p in folder.iterdir()}
            known = {fresh / p.relative_to(self.mount) for p in self.writers.files if p.parent.name.startswith(f"w{k}-")}
            self.assertEqual(there - known, set())
        status = self.c.status()
        self.assertTrue(self.moved(status))
        for g in status["groups"]:
            self.assertEqual(len(g["isr"]), 3, g)
            self.assertEqual(len({n[0] for n in g["isr"]}), 3, g)
            self.assertLessEqual(set(g["isr"]), set(members), g)
        return status

    def files_of(self, brick, group):
        return list(self.c.bricks[brick].data.glob(f"logs-*/data/{group:03x}/*/*"))

    def check_spread(self, status):
        """Half of the groups lie on the new bricks, and the old ones have removed them."""
        groups = {b["name"]: b["groups"] for b in status["bricks"]}
        self.assertEqual(groups, dict.fromkeys(("a1", "b1", "c1", "a2", "b2", "c2"), 8))
        gone = [g["group"] for g in status["groups"] if "a2" in g["isr"]]
        self.assertEqual(len(gone), 8)
        wait_for("the old bricks have removed what has moved", lambda: not [f for g in gone for b in ("a1", "b1", "c1") for f in self.files_of(b, g)], 20)
        self.assertTrue([f for g in gone for f in self.files_of("a2", g)])

    def test_expand(self):
        dry = self.expand("--dry-run")
        self.assertIn("8 of 16 groups would move", dry)
        self.assertEqual(self.c.status()["moves"]["groups"], 0)
        self.assertIn("all groups are in their places", self.expand("--wait"))
        status = self.check_all(self.c.bricks)
        self.check_spread(status)
        self.assertEqual(status["kind"], "distributed-striped-replicated")
        # as any volume of six: a brick of each set is lost
        again = Writers(self.mount)
        self.c.kill("a1")
        self.c.kill("b2")
        time.sleep(2)
        before = again.done
        time.sleep(1)
        self.assertGreater(again.done, before)
        for b in ("a1", "b2"):
            self.c.restart(b)
        self.c.wait_healed(60)
        again.stop()
        self.assertEqual(again.failed, [])

    def test_bricks_and_the_command_die_in_the_middle(self):
        self.expand()
        for name in ("c2", "a1", "b2", "b1"):  # one that joins, one that leaves, another that joins ...
            time.sleep(0.4)
            self.c.kill(name)
            time.sleep(0.3)
            self.c.restart(name)
        self.wait_moved()
        self.check_spread(self.check_all(self.c.bricks))

    def test_etcd_away_in_the_middle(self):
        self.expand()
        time.sleep(0.4)
        self.c.etcd.signal(signal.SIGSTOP)
        time.sleep(3)
        before = self.writers.done
        time.sleep(1)
        self.assertGreater(self.writers.done, before, "writers go on without the store")
        self.c.etcd.signal(signal.SIGCONT)
        self.wait_moved()
        self.check_spread(self.check_all(self.c.bricks))

    def test_replace_a_live_brick(self):
        out = self.c.volume("replace-brick", *self.paths("b1", "b2"), "commit", "force", "--wait", timeout=120)
        self.assertIn("b2 takes the place of b1", out)
        wait_for("what b1 had is aside", lambda: list(self.c.bricks["b1"].data.glob("left-logs-*")), 20, [self.c.bricks["b1"].log])
        self.assertFalse(list(self.c.bricks["b1"].data.glob("logs-*")))
        self.assertTrue(self.c.bricks["b1"].alive)
        self.c.kill("b1")
        status = self.check_all(("a1", "b2", "c1"))
        self.assertEqual([b["name"] for b in status["bricks"]], ["a1", "c1", "b2"])
        info = self.c.volume("info")
        self.assertIn("Number of Bricks: 1 x 3 = 3", info)
        self.assertNotIn("b1:", info)

    def test_replace_a_brick_that_is_dead_for_good(self):
        self.c.kill("c1")
        time.sleep(1)
        self.c.wipe("c1")
        p = self.c.kuayu("volume", "replace-brick", "logs", *self.paths("c1", "a2"), check=False)
        self.assertIn("name a brick in domain c", p.stderr)
        self.c.volume("replace-brick", *self.paths("c1", "c2"), "--wait", timeout=120)
        self.check_all(("a1", "b1", "c2"))
        self.c.restart("c1")  # comes back after all: it has nothing to say
        time.sleep(1)
        self.assertTrue(self.moved())
        self.assertFalse(list(self.c.bricks["c1"].data.glob("logs-*")))


if __name__ == "__main__":
    unittest.main(verbosity=2)
