# SPDX-License-Identifier: Apache-2.0
"""Write-behind of the mount (`--write-behind`): what is promised at fsync, close, unlock and rename, and under faults."""
import errno
import fcntl
import hashlib
import os
import random
import subprocess
import threading
import time
import unittest

from lab.util import BUILD
from test.volume import test_mount
from test.volume.cluster import TwoMountsTest, VolumeCluster

FSX = BUILD / "test/posix/posix-fsx"
BEHIND = ["--write-behind=16384"]


class Behind(TwoMountsTest):
    """Two mounts that write behind, one that writes through."""

    @classmethod
    def mounts(cls):
        cls.a = cls.cluster.mount(options=BEHIND)
        cls.b = cls.cluster.mount(domain="b", options=BEHIND)
        cls.c = cls.cluster.mount(domain="c")

    def setUp(self):
        super().setUp()
        self.fa, self.fb, self.fc = (m / self.name / "f" for m in (self.a, self.b, self.c))

    def fsx(self, seed, *words, ops=1500):
        p = subprocess.run([FSX, self.fa, f"--seed={seed}", f"--ops={ops}", *words], capture_output=True, text=True, timeout=300)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.fa.unlink()

    def test_fsx(self):
        for seed in (21, 22):
            self.fsx(seed)

    def test_fsx_two_mounts(self):
        self.fsx(23, f"--other={self.fb}")
        self.fsx(24, f"--other={self.fc}")

    def test_seen_after_close_and_fsync(self):
        """Random writes; after each fsync or close both other mounts, which have it open all the time, read what was written."""
        rng, size = random.Random(5), 300_000
        model = bytearray(size)
        self.fa.write_bytes(model)
        others = [os.open(f, os.O_RDWR) for f in (self.fb, self.fc)]
        fd = os.open(self.fa, os.O_RDWR)
        for i in range(120):
            for _ in range(rng.randrange(1, 40)):
                off, n = rng.randrange(size), rng.randrange(1, 6000)
                data = rng.randbytes(min(n, size - off))
                os.pwrite(fd, data, off)
                model[off:off + len(data)] = data
                if rng.randrange(8) == 0:
                    self.assertEqual(os.pread(fd, 5000, off), model[off:off + 5000], "own writes")
            if rng.randrange(2):
                os.fsync(fd)
            else:
                os.close(fd)
                fd = os.open(self.fa, os.O_RDWR)
            for other in others:
                self.assertEqual(hashlib.md5(os.pread(other, size, 0)).digest(), hashlib.md5(model).digest(), f"round {i}")
            if rng.randrange(6) == 0:  # another mount writes: this one's pages are of no use any more
                off = rng.randrange(size - 100)
                who = rng.choice(others)
                os.pwrite(who, b"o" * 100, off)
                os.fsync(who)
                model[off:off + 100] = b"o" * 100
                self.assertEqual(os.pread(fd, size, 0), model)
        for x in (fd, *others):
            os.close(x)

    def test_size_and_times_are_of_what_was_written(self):
        fd = os.open(self.fa, os.O_RDWR | os.O_CREAT)
        for i in range(200):
            os.pwrite(fd, b"x" * 1000, i * 1000)
            if i % 7 == 0:
                self.assertEqual(os.fstat(fd).st_size, (i + 1) * 1000)
                self.assertEqual(os.stat(self.fb).st_size, (i + 1) * 1000, "a stat here drains")
        before = os.fstat(fd).st_mtime_ns
        time.sleep(0.02)
        self.assertEqual(os.stat(self.fa).st_mtime_ns, before)
        os.pwrite(fd, b"y", 0)
        self.assertGreater(os.fstat(fd).st_mtime_ns, before)
        os.utime(self.fa, ns=(1, 2))
        self.assertEqual(os.stat(self.fa).st_mtime_ns, 2)
        os.pwrite(fd, b"z" * 5000, 500_000)
        os.truncate(self.fa, 10)
        self.assertEqual(os.pread(fd, 100, 0), b"y" + b"x" * 9)
        os.close(fd)
        self.assertEqual(self.fc.read_bytes(), b"y" + b"x" * 9)

    def test_rename_and_unlock_show_it(self):
        fd = os.open(self.fa, os.O_RDWR | os.O_CREAT)
        for i in range(50):
            os.pwrite(fd, b"%04d" % i, i * 4)
            os.rename(self.fa, self.fa.with_name(f"g{i}"))
            self.assertEqual(self.fc.with_name(f"g{i}").read_bytes()[-4:], b"%04d" % i)
            os.rename(self.fa.with_name(f"g{i}"), self.fa)
        other = os.open(self.fb, os.O_RDWR)
        for i in range(50):
            for lock, unlock in ((lambda x: fcntl.flock(x, fcntl.LOCK_EX), lambda x: fcntl.flock(x, fcntl.LOCK_UN)),
                                 (lambda x: fcntl.lockf(x, fcntl.LOCK_EX), lambda x: fcntl.lockf(x, fcntl.LOCK_UN))):
                for x in (fd, other):
                    lock(x)
                    n = int(os.pread(x, 4, 0))
                    os.pwrite(x, b"%04d" % (n + 1), 0)
                    unlock(x)
        self.assertEqual(int(os.pread(fd, 4, 0)), 200)
        os.close(fd)
        os.close(other)

    def test_append_and_mapping_keep_their_place(self):
        fd = os.open(self.fa, os.O_RDWR | os.O_CREAT)
        ap = os.open(self.fa, os.O_WRONLY | os.O_APPEND)
        model = bytearray()
        for i in range(100):
            os.pwrite(fd, b"w%03d" % i, len(model))
            model += b"w%03d" % i
            os.write(ap, b"a%03d" % i)
            model += b"a%03d" % i
        os.close(ap)
        os.close(fd)
        self.assertEqual(self.fb.read_bytes(), model)

    def test_killed_mount_loses_nothing_closed_or_fsynced(self):
        m = self.cluster.mount(domain="b", options=BEHIND)
        folder, fd = m / self.name, None
        for i in range(30):
            (folder / f"closed{i}").write_bytes(b"%d" % i * 20_000)
        fd = os.open(folder / "synced", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"s" * 3_000_000, 0)
        os.fsync(fd)
        os.pwrite(fd, b"t" * 3_000_000, 0)  # these may be there or not
        self.cluster.kill_mount(m)
        try:
            os.close(fd)
        except OSError:
            pass
        for i in range(30):
            self.assertEqual((self.fc.parent / f"closed{i}").read_bytes(), b"%d" % i * 20_000)
        data = (self.fc.parent / "synced").read_bytes()
        self.assertEqual(len(data), 3_000_000)
        self.assertEqual(set(data) - set(b"st"), set())

    def test_refused_options(self):
        for words, text in ((["--write-behind=5"], "4096"), ([*BEHIND, "--no-leases"], "leases")):
            p = self.cluster.kuayu("mount", "logs", self.cluster.dir, *words, check=False)
            self.assertEqual(p.returncode, 2)
            self.assertIn(text, p.stderr)


class Trouble(unittest.TestCase):
    def stream(self, fault, stripe=1, bricks_per_domain=1):
        """Random and sequential writes while `fault` happens; then all is compared through another mount."""
        with VolumeCluster(stripe=stripe, bricks_per_domain=bricks_per_domain) as c:
            m, rng, size = c.mount(options=BEHIND), random.Random(9), 24 << 20
            model, fd = bytearray(size), os.open(m / "f", os.O_RDWR | os.O_CREAT)
            os.pwrite(fd, bytes(size), 0)
            os.fsync(fd)
            thread = threading.Timer(1.0, fault, (c, test_mount.Faults.primary(c, m))) if fault else None
            if thread:
                thread.start()
            begun, writes, at = time.monotonic(), 0, 0
            # So long that the fault is in its midst, and so many writes, however slow the machine is, that an fsync is among them.
            while time.monotonic() - begun < (4 if fault else 1) or writes <= 1000:
                self.assertLess(time.monotonic() - begun, 90, f"only {writes} writes")
                if rng.randrange(4):
                    off, data = rng.randrange(size - 9000), rng.randbytes(rng.randrange(1, 9000))
                else:
                    off, data = at, rng.randbytes(200_000)
                    at = (at + 200_000) % (size - 200_000)
                os.pwrite(fd, data, off)
                model[off:off + len(data)] = data
                writes += 1
                if writes % 500 == 0:
                    os.fsync(fd)
            if thread:
                thread.join()
            os.close(fd)
            reader = c.mount(domain="b")
            self.assertEqual(hashlib.md5((reader / "f").read_bytes()).hexdigest(), hashlib.md5(model).hexdigest())

    def test_primary_killed(self):
        self.stream(lambda c, primary: c.kill(primary))

    def test_primary_stopped_and_continued(self):
        def fault(c, primary):
            c.stop(primary)
            time.sleep(1)
            c.cont(primary)
        self.stream(fault)

    def test_striped(self):
        self.stream(None, stripe=2, bricks_per_domain=2)

    def test_no_space_is_told(self):
        with VolumeCluster(bricks="image", image_mib=256) as c:
            m, told = c.mount(options=BEHIND), []
            fd = os.open(m / "f", os.O_RDWR | os.O_CREAT)
            for i in range(400):
                try:
                    os.pwrite(fd, b"x" * (1 << 20), i << 20)
                except OSError as e:
                    told.append(("write", e.errno))
                    break
            for how in (os.fsync, os.close):
                try:
                    how(fd)
                    told.append((how.__name__, 0))
                except OSError as e:
                    told.append((how.__name__, e.errno))
            self.assertIn(errno.ENOSPC, [e for _, e in told])
            self.assertEqual(told[-2], ("fsync", errno.ENOSPC), "never silent at fsync, whatever write said")
            self.assertEqual(told[-1], ("close", 0), "once")

    def test_no_answer_is_told_and_waiting_ends(self):
        with VolumeCluster() as c:
            m = c.mount(options=[*BEHIND, "--timeout=2s"])
            fd = os.open(m / "f", os.O_RDWR | os.O_CREAT)
            os.pwrite(fd, b"x" * 10_000, 0)
            os.fsync(fd)
            for b in ("a1", "b1", "c1"):
                c.stop(b)
            try:
                start = time.monotonic()
                for i in range(20):
                    os.pwrite(fd, b"y" * 4096, i * 8192)
                with self.assertRaises(OSError) as e:
                    os.fsync(fd)
                self.assertEqual(e.exception.errno, errno.EIO)
                self.assertLess(time.monotonic() - start, 15)
            finally:
                for b in ("a1", "b1", "c1"):
                    c.cont(b)
            c.wait_healed(30)
            os.pwrite(fd, b"z" * 10_000, 0)
            os.fsync(fd)
            self.assertEqual(os.pread(fd, 10_000, 0), b"z" * 10_000)
            os.close(fd)


if __name__ == "__main__":
    unittest.main(verbosity=2)
