# SPDX-License-Identifier: Apache-2.0
"""A volume whose files are striped over several groups, with small stripes: what only such volumes can get wrong."""
import errno
import mmap
import os
import random
import subprocess
import threading
import time
import unittest

from lab.util import wait_for
from test.volume.cluster import TwoMountsTest, VolumeCluster


class Appends(TwoMountsTest):
    """O_APPEND: nobody sees a size whose bytes are not there, nothing is lost or twice, whoever fails in the middle."""
    settings = {"stripe": 2, "stripe_kib": 64, "bricks_per_domain": 2}

    def appenders(self, name, count, seconds, faults=()):
        """Lines "worker number xxx" of 20 to 100,000 bytes; both mounts."""
        stop, wrong, done = threading.Event(), [], [0] * count
        self.addCleanup(stop.set)

        def run(i):
            rng = random.Random(i)
            fd = os.open((self.a, self.b)[i % 2] / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            while not stop.is_set() and not wrong:
                line = f"{i} {done[i]} ".encode()
                line += b"x" * rng.choice((20, 300, 4000, 100000)) + b"\n"
                n = os.write(fd, line)
                if n != len(line):
                    wrong.append(f"short write: {n}")
                done[i] += 1
            os.close(fd)
        threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
        for t in threads:
            t.start()
        end = time.monotonic() + seconds
        for fault in faults:
            time.sleep(0.5)
            fault()
        time.sleep(max(0, end - time.monotonic()))
        stop.set()
        for t in threads:
            t.join(60)
            self.assertFalse(t.is_alive())
        self.assertEqual(wrong, [])
        return done

    def check(self, name, done):
        for m in (self.a, self.b):
            data = (m / name).read_bytes()
            self.assertNotIn(b"\0", data)
            lines = data.decode().splitlines()
            self.assertTrue(all(line.endswith("x") and set(line.split(" ")[2]) == {"x"} for line in lines))
            for i, n in enumerate(done):
                self.assertEqual([int(line.split(" ")[1]) for line in lines if line.startswith(f"{i} ")], list(range(n)))

    def test_a_reader_sees_no_zeros(self):
        """Whoever follows a log never reads zeros that are not its own; direct I/O: what the bricks say, not what a kernel keeps."""
        stop, zeros, seen = threading.Event(), [], [0, 0]

        def tail(i):
            fd, buffer = os.open((self.a, self.b)[i] / "tailed", os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 1 << 20)
            while not stop.is_set() and not zeros:
                at = seen[i] // 4096 * 4096
                n = os.preadv(fd, [buffer], at)
                if b"\0" in buffer[:n]:
                    zeros.append(f"mount {i} at {at + buffer[:n].index(0)}")
                seen[i] = max(seen[i], at + n)
            os.close(fd)
        (self.a / "tailed").touch()
        readers = [threading.Thread(target=tail, args=(i,)) for i in range(2)]
        for t in readers:
            t.start()
        try:
            done = self.appenders("tailed", 2, 4)
            wait_for("the readers have all", lambda: zeros or min(seen) == os.stat(self.a / "tailed").st_size, 30)
        finally:
            stop.set()
            for t in readers:
                t.join(30)
        self.assertEqual(zeros, [])
        self.assertGreater(min(done), 5)
        self.check("tailed", done)

    def test_bricks_killed(self):
        """An answer that is lost with its brick is asked for again: nothing is written over what others appended meanwhile."""
        rng = random.Random(3)

        def fault():
            brick = rng.choice(sorted(self.cluster.bricks))
            self.cluster.kill(brick)
            time.sleep(rng.uniform(0.1, 0.6))
            self.cluster.restart(brick)
            self.cluster.wait_healed(60)
        done = self.appenders("faults", 4, 4, [fault] * 3)
        self.assertGreater(min(done), 5)
        self.check("faults", done)

    def test_writer_killed(self):
        """Its mount dies in the middle of large appends: there is nothing of the last one or a part from its beginning, and others go on."""
        for turn in range(4):
            m = self.cluster.mount(domain="c")
            fd = os.open(m / f"dead{turn}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            line = b"y" * 300_000 + b"\n"
            failed = threading.Event()

            def write(fd=fd, failed=failed, line=line):
                try:
                    while True:
                        os.write(fd, line)
                except OSError:
                    failed.set()
            t = threading.Thread(target=write)
            t.start()
            time.sleep(0.4 + turn * 0.01)
            self.cluster.kill_mount(m)
            t.join(30)
            self.assertTrue(failed.is_set())
            try:
                os.close(fd)
            except OSError:
                pass
            start = time.monotonic()
            with open(self.a / f"dead{turn}", "ab", buffering=0) as f:
                f.write(b"z" * 200_000)
            self.assertLess(time.monotonic() - start, 10)
            data = (self.b / f"dead{turn}").read_bytes()
            self.assertEqual(data[-200_000:], b"z" * 200_000)
            self.assertEqual(set(data[:-200_000]) - set(b"y\n"), set())

    def test_truncated_under_an_appender(self):
        """A log that is copied and truncated while somebody appends: no hole in front of what is appended."""
        stop = threading.Event()

        def run():
            fd = os.open(self.a / "rotated", os.O_WRONLY | os.O_APPEND)
            while not stop.is_set():
                os.write(fd, b"w" * 90_000)
            os.close(fd)
        (self.a / "rotated").touch()
        t = threading.Thread(target=run)
        t.start()
        try:
            for _ in range(40):
                time.sleep(0.05)
                os.truncate(self.b / "rotated", 0)
                data = (self.b / "rotated").read_bytes()
                self.assertNotIn(b"\0", data)
        finally:
            stop.set()
            t.join(30)
        data = (self.b / "rotated").read_bytes()
        self.assertEqual((set(data) - {ord("w")}, len(data) % 90_000), (set(), 0))


class Space(unittest.TestCase):
    """Twelve bricks: from three sets of bricks on each is in two sets."""

    def test_space_of_twelve_bricks(self):
        with VolumeCluster(stripe=2, bricks_per_domain=4, bricks="image", image_mib=300) as c:
            path = c.mount()
            there, one = os.statvfs(path), os.statvfs(c.bricks["a1"].data)
            self.assertAlmostEqual(there.f_blocks * there.f_frsize / (4 * one.f_blocks * one.f_frsize), 1, delta=0.1)
            self.assertLessEqual(there.f_bavail * there.f_frsize, 4 * one.f_bavail * one.f_frsize)

    def test_one_set_full(self):
        """ENOSPC where a stripe's group has no room, and nothing of what was there is lost; appends leave no zeros."""
        with VolumeCluster(stripe=2, stripe_kib=64, bricks_per_domain=2, bricks="image", image_mib=300) as c:
            path = c.mount()
            (path / "before").write_bytes(os.urandom(1 << 20))
            before = (path / "before").read_bytes()
            for d in "abc":
                data = c.bricks[f"{d}2"].data
                s = os.statvfs(data)
                with open(data / "ballast", "wb") as f:
                    os.posix_fallocate(f.fileno(), 0, s.f_bavail * s.f_frsize - (66 << 20))
            failed = size = 0
            end = time.monotonic() + 60
            fd = os.open(path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            while failed < 3 and time.monotonic() < end:
                try:
                    size += os.write(fd, b"l" * 200_000)
                except OSError as e:
                    self.assertEqual(e.errno, errno.ENOSPC)
                    failed += 1
            os.close(fd)
            self.assertEqual(failed, 3)
            other = c.mount(domain="b")
            for m in (path, other):
                self.assertEqual((m / "before").read_bytes(), before)
                data = (m / "log").read_bytes()
                self.assertEqual((len(data), data.count(b"l")), (size, size))
            for d in "abc":
                (c.bricks[f"{d}2"].data / "ballast").unlink()
            wait_for("there is room again", lambda: self.appended(path / "log"), 20)
            self.assertEqual((other / "log").read_bytes(), b"l" * size + b"m" * 200_000)

    @staticmethod
    def appended(path):
        try:
            with open(path, "ab", buffering=0) as f:
                return f.write(b"m" * 200_000) == 200_000
        except OSError:
            return False


class Borders(TwoMountsTest):
    settings = {"stripe": 2, "bricks_per_domain": 2}

    def test_truncate_and_extend(self):
        """Cut and extended again, through either mount and with bricks away: what was cut is zeros."""
        mib = 1 << 20
        for turn, gone in enumerate((None, "a1", "b2")):
            path = f"truncated{turn}"
            (self.a / path).write_bytes(b"\xaa" * 8 * mib)
            if gone:
                self.cluster.kill(gone)
            kept = 8 * mib
            for i, size in enumerate((5 * mib, mib, 9 * mib, 500000, 9 * mib)):
                os.truncate((self.a, self.b)[i % 2] / path, size)
                kept = min(kept, size)
                for m in (self.b, self.a):
                    data = (m / path).read_bytes()
                    self.assertEqual((len(data), data.count(b"\xaa"), data[:kept].count(b"\xaa")), (size, kept, kept), (turn, size))
            if gone:
                self.cluster.restart(gone)
                self.cluster.wait_healed(60)
            cold = self.cluster.mount(domain="c")
            self.assertEqual((cold / path).read_bytes(), b"\xaa" * 500000 + bytes(9 * mib - 500000))
            self.cluster.umount(cold)

    def test_mapped(self):
        """Stores into pages on both sides of each border of a shared mapping, seen by the other mount after msync."""
        size = 6 << 20
        (self.a / "mapped").write_bytes(bytes(size))
        fd = os.open(self.a / "mapped", os.O_RDWR)
        with mmap.mmap(fd, size) as m:
            for at in range(1 << 20, size, 1 << 20):
                m[at - 5:at + 5] = b"0123456789"
            m.flush()
        os.close(fd)
        data = (self.b / "mapped").read_bytes()
        for at in range(1 << 20, size, 1 << 20):
            self.assertEqual(data[at - 5:at + 5], b"0123456789")
        self.assertEqual(data.count(0), size - 50)

    def test_punched(self):
        """A hole over four stripes, and zeros over two, at no block's border; while a brick is away."""
        data = bytearray(os.urandom(6 << 20))
        (self.a / "punched").write_bytes(data)
        self.cluster.kill("c2")
        for mode, off, length in (("--punch-hole", 1_000_001, 3_200_003), ("--zero-range", 5_000_000, 1_200_000)):
            subprocess.run(["fallocate", mode, "-o", str(off), "-l", str(length), self.a / "punched"], check=True)
            data[off:off + length] = bytes(length)
            self.assertEqual((self.b / "punched").read_bytes(), data)
        self.cluster.restart("c2")
        self.cluster.wait_healed(60)
        self.assertEqual((self.a / "punched").read_bytes(), data)
        self.cluster.volume("scrub", "start")


if __name__ == "__main__":
    unittest.main()
