# SPDX-License-Identifier: Apache-2.0
"""Bricks' folders that are not what they were: new disks, old copies, swapped ones, files that somebody removed or replaced."""
import hashlib
import json
import os
import shutil
import time
import unittest

from lab.util import wait_for
from test.volume.cluster import VolumeCluster


class Folders(unittest.TestCase):
    def setUp(self):
        self.cluster = VolumeCluster()
        self.addCleanup(self.cluster.close)
        self.a = self.cluster.mount()
        self.sums = {}
        self.fill("first")
        self.cluster.wait_healed()

    def fill(self, name):
        (self.a / name).mkdir()
        for i in range(12):
            data = os.urandom(100 if i % 3 else 300_000)
            (self.a / name / f"f{i}").write_bytes(data)
            self.sums[f"{name}/f{i}"] = hashlib.md5(data).hexdigest()

    def check(self, mount=None):
        mount = mount or self.cluster.mount(domain="b")
        self.assertEqual({k: hashlib.md5((mount / k).read_bytes()).hexdigest() for k in self.sums}, self.sums)
        return mount

    def shut_all(self):
        for name in ("a1", "b1", "c1"):
            self.assertEqual(self.cluster.shut(name), 0)
            time.sleep(0.2)  # it is out of the sets

    def restart(self, *names):
        for name in names:
            self.cluster.restart(name)

    def copy(self, name):
        shutil.copytree(self.cluster.bricks[name].data, self.cluster.dir / f"copy-{name}")

    def put_back(self, name):
        shutil.rmtree(self.cluster.bricks[name].data)
        shutil.copytree(self.cluster.dir / f"copy-{name}", self.cluster.bricks[name].data)

    def only(self, name):
        """What this brick alone has."""
        self.cluster.volume("set", "write-quorum", "1")
        wait_for("the option is heeded", self.cluster.healed, 20)
        for other in self.cluster.bricks:
            if other != name:
                self.cluster.kill(other)
        return self.check()

    def test_the_last_one_gets_a_new_disk(self):
        """All were shut down in order, c1 last, so it alone is in the sets. It must not make the others empty."""
        c = self.cluster
        self.shut_all()
        c.wipe("c1")
        self.restart("c1")
        wait_for("the status says so", lambda: "its folder is a new one or an older copy: 16 groups" in c.volume("status"), 10)
        self.restart("a1", "b1")
        c.wait_healed(30)
        self.assertNotIn("its folder", c.volume("status"))
        self.check()
        (self.a / "new").write_bytes(b"goes on")
        self.shut_all()  # what it has now counts again
        self.restart("c1")
        wait_for("c1 leads", lambda: all(g["primary"] == "c1" for g in c.status()["groups"]), 20)
        self.restart("a1", "b1")
        c.wait_healed(30)
        self.check()

    def test_old_copies(self):
        """Yesterday's folder of one brick, made after a clean end: after the end of all at once it would be sure and lead. Of all bricks: only on demand."""
        c = self.cluster
        self.shut_all()
        for name in c.bricks:
            self.copy(name)
        self.restart(*c.bricks)
        c.wait_healed()
        before = dict(self.sums)
        self.fill("second")
        (self.a / "first" / "f1").write_bytes(b"newer")
        self.sums["first/f1"] = hashlib.md5(b"newer").hexdigest()
        c.wait_healed()
        for brick in c.bricks.values():
            brick.signal(19)
        for name in c.bricks:
            c.kill(name)
        self.put_back("a1")
        self.restart("a1")
        time.sleep(1)
        self.restart("b1", "c1")
        c.wait_healed(30)
        self.check()
        for name in c.bricks:
            c.kill(name)
            self.put_back(name)
        self.restart(*c.bricks)
        wait_for("all say so", lambda: c.volume("status").count("its folder is a new one or an older copy: 16 groups") == 3, 10)
        time.sleep(1)
        self.assertNotIn(True, [bool(g["isr"]) and bool(m["role"] == "primary") for g in c.status()["groups"] for m in g["members"]])
        c.volume("stop")
        c.volume("start", "--force")
        c.wait_healed(30)
        self.sums = before
        self.assertEqual(sorted(os.listdir(self.check())), ["first"])

    def test_swapped(self):
        """Neither is harmed, and both say whose folder they were given."""
        c = self.cluster
        a, b = c.bricks["a1"].data, c.bricks["b1"].data
        for turn in range(2):
            for name in ("a1", "b1"):
                c.kill(name)
            a.rename(a.parent / "x")
            b.rename(a)
            (a.parent / "x").rename(b)
            self.restart("a1", "b1")
            if turn == 0:
                wait_for("both say so", lambda: all(f"is the folder of node {x}, this is {y}" in c.volume("status")
                                                    for x, y in (("a1", "b1"), ("b1", "a1"))), 10)
        c.wait_healed(30)
        self.check()

    def test_an_empty_store(self):
        """etcd comes back without its data: nobody deleted the volume. Mounts and bricks go on with what they know."""
        c = self.cluster
        c.etcd.kill()
        shutil.rmtree(c.memory / "etcd")
        c.etcd.start()
        c.wait_etcd()
        wait_for("all have noticed", lambda: all("the store has lost what it knew" in c.log(n) for n in c.bricks), 10)
        (self.a / "first" / "f1").write_bytes(b"newer")
        self.sums["first/f1"] = hashlib.md5(b"newer").hexdigest()
        self.check(self.a)
        for b in c.bricks.values():
            self.assertEqual([p.name for p in b.data.iterdir() if p.name.startswith("deleted-")], [])

    def test_files_that_are_gone_or_no_files(self):
        """Behind the brick's back, while it has some of them open: a scrub finds it."""
        c = self.cluster
        files = [p for p in c.bricks["b1"].data.glob("*/data/**/*") if p.is_file()]
        self.assertGreater(len(files), 10)
        for i, p in enumerate(files):
            if i % 4 < 3:
                p.unlink()
            if i % 4 == 1:
                p.mkdir()
                (p / "x").touch()
            if i % 4 == 2:
                p.symlink_to("/etc/passwd")
        c.volume("scrub")

        def scrubs():
            return json.loads(c.volume("scrub", "status", "-o", "json"))
        wait_for("the scrub ends", lambda: all(s["state"] == "done" for s in scrubs()), 30, interval=0.1)
        self.assertGreater(next(s["bad_blocks"] for s in scrubs() if s["brick"] == "b1"), 50)
        wait_for("all is repaired", lambda: all(p.is_file() and not p.is_symlink() and p.stat().st_size > 0 for p in files), 20)
        self.assertEqual(len([p for p in c.bricks["b1"].data.glob("*/data/*/*/*.aside")]), len([i for i in range(len(files)) if i % 4 in (1, 2)]))
        (self.a / "first" / "f1").write_bytes(b"newer")
        self.sums["first/f1"] = hashlib.md5(b"newer").hexdigest()
        c.kill("b1")
        self.restart("b1")
        c.wait_healed(20)
        self.only("b1")


if __name__ == "__main__":
    unittest.main()
