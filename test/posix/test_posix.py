# SPDX-License-Identifier: Apache-2.0
"""The volume as its programs see it: one volume, two mounts in two domains, all suites for a short time. `./dev soak` runs them for
longer. KUAYU_POSIX_DIR=DIR[,OTHER] runs them on a folder of another file system instead (how the suites are checked)."""
import os
import subprocess
import unittest

from lab.util import BUILD, tail
from test.posix import mounts, programs, stress
from test.posix.conform.__main__ import check
from test.volume.cluster import VolumeCluster

FSX = BUILD / "test/posix/posix-fsx"


class Posix(unittest.TestCase):
    cluster, options, programs = None, {}, tuple(programs.PROGRAMS)
    seeds, seeds_two_mounts, seconds = (1, 2, 3), (11, 12), 15

    @classmethod
    def setUpClass(cls):
        given = os.environ.get("KUAYU_POSIX_DIR")
        if given:
            cls.a, cls.b = (given.split(",") * 2)[:2]
            return
        cls.cluster = VolumeCluster(**cls.options)
        cls.addClassCleanup(cls.cluster.close)
        cls.a, cls.b = str(cls.cluster.mount(domain="a")), str(cls.cluster.mount(domain="b"))
        os.chmod(cls.a, 0o755)

    def fail_with_logs(self, text):
        logs = [self.cluster.dir / f"mount{i}.log" for i in (1, 2)] if self.cluster else []
        self.fail(text + "".join(f"\n{log}:\n{tail(log, 12)}" for log in logs))

    def fsx(self, *words, seed=1, ops=1500):
        p = subprocess.run([FSX, f"{self.a}/fsx-{seed}", f"--seed={seed}", f"--ops={ops}", *words], capture_output=True, text=True, timeout=300)
        if p.returncode:
            self.fail_with_logs(p.stderr)
        os.unlink(f"{self.a}/fsx-{seed}")

    def test_fsx(self):
        for seed in self.seeds:
            self.fsx(seed=seed)

    def test_fsx_two_mounts(self):
        for seed in self.seeds_two_mounts:
            self.fsx(f"--other={self.b}/fsx-{seed}", seed=seed)

    def test_conformance(self):
        count, failures = check(self.a)
        self.assertGreater(count, 1500)
        if failures:
            self.fail_with_logs(f"{len(failures)} of {count} assertions:\n" + "\n".join(failures[:60]))

    def test_compare(self):
        try:
            stress.compare(self.a, None, seed=1, ops=3000, seconds=self.seconds)
            stress.compare(self.a, self.b, seed=2, ops=3000, seconds=self.seconds)
        except stress.Difference as e:
            self.fail_with_logs(str(e))

    def test_crowd(self):
        try:
            self.assertGreater(stress.crowd(self.a, self.b, processes=6, seconds=4, seed=3), 0)
        except stress.Difference as e:
            self.fail_with_logs(str(e))

    def test_two_mounts(self):
        count, failures = mounts.run(self.a, self.b)
        self.assertGreater(count, 100)
        if failures:
            self.fail_with_logs(f"{len(failures)} of {count} checks:\n" + "\n".join(failures[:60]))

    def test_programs(self):
        for name in self.programs:
            with self.subTest(name):
                programs.PROGRAMS[name](self.a, 3)


@unittest.skipIf(os.environ.get("KUAYU_POSIX_DIR"), "the other class has done it")
class Striped(Posix):
    """Six bricks, each file over two groups, small stripes: the same for a shorter time."""
    options = {"stripe": 2, "stripe_kib": 64, "bricks_per_domain": 2}
    seeds, seeds_two_mounts, seconds, programs = (21,), (31,), 5, ("fio", "sqlite")


class Full(unittest.TestCase):
    """A volume that gets full."""

    def test_no_space(self):
        with VolumeCluster(bricks="image", image_mib=400) as c:
            count, failures = mounts.run(str(c.mount(domain="a")), str(c.mount(domain="b")), only=("fills", "space"))
            self.assertGreater(count, 3)
            self.assertEqual(failures, [])


if __name__ == "__main__":
    unittest.main()
