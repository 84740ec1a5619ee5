# SPDX-License-Identifier: Apache-2.0
"""Who follows a log that several mounts append to sees its bytes, never zeros in their place: a page of the kernel's cache that was filled while the
file was shorter ends in zeros, and must be gone before the kernel learns of more bytes."""
import ctypes
import mmap
import multiprocessing
import os
import random
import time
import unittest

from test.volume.cluster import TwoMountsTest

ROOM = 64 << 20  # of a mapping; no log here gets so long
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.process_vm_readv.restype = ctypes.c_ssize_t


class Range(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def append(path, number, stop, result):
    """Lines without a zero byte, short ones mostly: the end stays in one page for a while."""
    rng = random.Random(number)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    done = 0
    while not stop.is_set():
        line = b"%d %d " % (number, done) + b"x" * rng.choice((5, 40, 300, 3000)) + b"\n"
        done += os.write(fd, line) == len(line)
        if rng.random() < 0.3:
            time.sleep(0.003)
    result.put((number, done))


class Follower:
    """Reads what is at the end, over and over; what it has seen is checked for zeros."""

    def __init__(self, path):
        self.path, self.fd, self.seen = path, os.open(path, os.O_RDONLY), 0
        self.map = None

    def pread(self):
        """From the page on that the end was in, more than there is."""
        at = self.seen // 4096 * 4096
        return at, os.pread(self.fd, 1 << 16, at)

    def tail(self):
        """As `tail -f` does it: what is new since the last look."""
        size = os.fstat(self.fd).st_size
        os.lseek(self.fd, self.seen, os.SEEK_SET)
        return self.seen, os.read(self.fd, size - self.seen) if size > self.seen else b""

    def path_size(self):
        """The size comes with a lookup."""
        size, at = os.stat(self.path).st_size, self.seen // 4096 * 4096
        return at, os.pread(self.fd, max(size - at, 0), at)

    def mapped(self):
        """A shared mapping that was there before the bytes were, up to what a read has. It may end too soon for a moment (README): no SIGBUS then, the kernel
        copies."""
        if not self.map:
            self.map = libc.mmap(None, ROOM, mmap.PROT_READ, mmap.MAP_SHARED, self.fd, 0)
        at, data = self.pread()
        copy = ctypes.create_string_buffer(max(len(data), 1))
        here, there = Range(ctypes.addressof(copy), len(data)), Range(self.map + at, len(data))
        got = libc.process_vm_readv(os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        return at, copy.raw[:max(got, 0)]

    def reopened(self):
        """What was there at open is in what is read then."""
        fd = os.open(self.path, os.O_RDONLY)
        size, at = os.lseek(fd, 0, os.SEEK_END), self.seen // 4096 * 4096
        data = os.pread(fd, 1 << 16, at)
        os.close(fd)
        return at, data if len(data) >= min(size - at, 1 << 16) else b"\0short"

    def listed(self):
        """The size comes with the listing of the folder."""
        with os.scandir(os.path.dirname(self.path)) as it:
            size = max((e.stat().st_size for e in it if e.path == self.path), default=0)
        at = self.seen // 4096 * 4096
        return at, os.pread(self.fd, max(size - at, 0), at)


def follow(path, ways, stop, result):
    rng, f, looks, zeros = random.Random(len(ways)), Follower(path), 0, []
    while not stop.is_set():
        way = rng.choice(ways)
        at, data = getattr(f, way)()
        looks += 1
        if b"\0" in data:
            zeros.append(f"{way}: {data.count(0)} zeros at {at + data.index(0)} of {at + len(data)}")
        f.seen = max(f.seen, at + len(data))
    result.put((looks, zeros[:50]))


class Plain(TwoMountsTest):
    SECONDS = float(os.environ.get("KUAYU_FOLLOW_SECONDS", "3"))

    def run_with(self, *ways, readers=2, thousandth=0):
        """Both mounts append, followers on both look in these ways; so many thousandths of the looks may have zeros."""
        logs = [self.da / "log", self.db / "log"]
        logs[0].touch()
        stop, wrote, saw = multiprocessing.Event(), multiprocessing.Queue(), multiprocessing.Queue()
        work = [multiprocessing.Process(target=append, args=(logs[i], i, stop, wrote)) for i in range(2)]
        work += [multiprocessing.Process(target=follow, args=(str(logs[i % 2]), ways, stop, saw)) for i in range(readers)]
        for p in work:
            p.start()
        time.sleep(self.SECONDS)
        stop.set()
        for p in work:
            p.join(30)
            self.assertEqual(p.exitcode, 0)
        lines = dict(wrote.get(timeout=5) for _ in range(2))
        seen = [saw.get(timeout=5) for _ in range(readers)]
        print(f"{'/'.join(ways)}: {sum(lines.values())} lines, {sum(n for n, _ in seen)} looks")
        zeros = [z for _, more in seen for z in more]
        self.assertLessEqual(len(zeros), thousandth * sum(n for n, _ in seen) // 1000, zeros)
        self.assertGreater(min(lines.values()), 20)
        for log in logs:
            data = log.read_bytes()
            self.assertNotIn(b"\0", data)
            self.assertEqual([data.count(b"\n%d " % i) + data.startswith(b"%d " % i) for i in range(2)], [lines[0], lines[1]])

    def test_pread(self):
        self.run_with("pread")

    def test_tail(self):
        self.run_with("tail")

    def test_mapped(self):
        self.run_with("mapped")

    def test_all_ways(self):
        """Sizes come on all ways at once: a few looks of 100,000 still see zeros (README); before end.c dozens of times as many did."""
        self.run_with("pread", "tail", "path_size", "mapped", "reopened", "listed", thousandth=1)


class Striped(Plain):
    settings = {"stripe": 2, "stripe_kib": 64, "bricks_per_domain": 2}


if __name__ == "__main__":
    unittest.main()
