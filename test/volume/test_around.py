# SPDX-License-Identifier: Apache-2.0
"""Read-around: pages that nobody asked for are never older than what was written, here or on another mount, before they are read."""
import ctypes
import mmap
import os
import random
import struct
import threading
import time
import unittest

from lab.util import wait_for
from test.volume.cluster import ClusterTest

PAGE = 4096
PAGES = 1024  # 4 MiB: 32 blocks of 128 KiB, which are worth it after 16 reads
SECONDS = 3
WORDS = struct.Struct("<%dQ" % (PAGE // 8))
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def page(number):
    return number.to_bytes(8, "little") * (PAGE // 8)


def resident(path, pages):
    """Which pages the kernel has."""
    fd, vector = os.open(path, os.O_RDONLY), (ctypes.c_ubyte * pages)()
    at = LIBC.mmap(None, pages * PAGE, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    LIBC.mincore(ctypes.c_void_p(at), ctypes.c_size_t(pages * PAGE), vector)
    LIBC.munmap(ctypes.c_void_p(at), ctypes.c_size_t(pages * PAGE))
    os.close(fd)
    return [i for i in range(pages) if vector[i] & 1]


class Readers:
    """Threads that read random pages of a file until close(): none may be older than `done` says when its read begins."""

    def __init__(self, path, threads):
        self.done, self.old, self.reads, self.stop = [0] * PAGES, [], 0, False
        self.begun = [{0} for _ in range(PAGES)]  # all that was ever written to a page, or is just being written
        self.path = path
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(threads)]
        for t in self.threads:
            t.start()

    def run(self, seed):
        rng, fd = random.Random(seed), os.open(self.path, os.O_RDONLY)
        while not self.stop:
            i = rng.randrange(PAGES)
            least = self.done[i]
            data = os.pread(fd, PAGE, i * PAGE)
            self.reads += 1
            number = int.from_bytes(data[:8], "little")
            # The kernel copies a write into a page while others read it: they may see a part of it, as on any Linux file system.
            if number < least or (data != page(number) and not self.may_be(i, set(WORDS.unpack(data)), least)):
                self.old.append((i, WORDS.unpack(data), least))
        os.close(fd)

    def may_be(self, i, numbers, least):
        return min(numbers) >= least and numbers <= self.begun[i]

    def close(self):
        self.stop = True
        for t in self.threads:
            t.join()


class ReadAround(ClusterTest):
    @classmethod
    def mounts(cls):
        cls.a, cls.b = cls.cluster.mount(options=("--read-around=128",)), cls.cluster.mount(domain="b")
        cls.off = cls.cluster.mount(options=("--read-around=0",))

    def setUp(self):
        self.name, self.rng = self.id().rsplit(".", 1)[1], random.Random(7)
        with open(self.b / self.name, "wb") as f:
            f.write(bytes(PAGES * PAGE))

    def read_some(self, root, count):
        fd = os.open(root / self.name, os.O_RDONLY)
        for _ in range(count):
            os.pread(fd, PAGE, self.rng.randrange(PAGES) * PAGE)
        os.close(fd)

    def test_blocks_come_whole_where_much_is_read(self):
        self.read_some(self.off, 60)
        self.assertLessEqual(len(resident(self.off / self.name, PAGES)), 60)
        self.read_some(self.a, 10)
        self.assertLessEqual(len(resident(self.a / self.name, PAGES)), 10)
        self.read_some(self.a, 600)  # of which about 450 are different ones; the threshold is half a read a block or more, as times are
        wait_for("most pages are here, behind the replies", lambda: len(resident(self.a / self.name, PAGES)) > PAGES * 2 // 3, 10)

    def test_not_while_it_is_open_for_writing_here(self):
        fd = os.open(self.a / self.name, os.O_RDWR)
        self.read_some(self.a, 60)
        self.assertLessEqual(len(resident(self.a / self.name, PAGES)), 60)
        os.close(fd)

    def written(self, write, pause=0.004):
        """Random pages are written by write(page, bytes) while others read: none is old."""
        readers = Readers(self.a / self.name, 3)
        end, n = time.monotonic() + SECONDS, 0
        try:
            while time.monotonic() < end:
                i, n = self.rng.randrange(PAGES), n + 1
                readers.begun[i].add(n)
                write(i, page(n))
                readers.done[i] = n
                time.sleep(pause * self.rng.random() * 2)
        finally:
            readers.close()
        self.assertEqual(readers.old, [], f"of {readers.reads} reads, {n} writes")
        print(f"    {self.name}: {readers.reads} reads, {n} writes", flush=True)

    def test_written_by_another_mount(self):
        fd = os.open(self.b / self.name, os.O_RDWR)

        def write(i, data):
            os.pwrite(fd, data, i * PAGE)
            if i % 2:
                os.fsync(fd)
        self.written(write)
        os.close(fd)

    def test_written_here(self):
        def write(i, data):
            fd = os.open(self.a / self.name, os.O_RDWR)
            os.pwrite(fd, data, i * PAGE)
            os.close(fd)
        self.written(write)

    def test_mapped_here(self):
        def write(i, data):
            fd = os.open(self.a / self.name, os.O_RDWR)
            with mmap.mmap(fd, PAGES * PAGE) as m:
                m[i * PAGE:(i + 1) * PAGE] = data
            os.close(fd)
        self.written(write, 0.01)

    def truncated(self, root):
        """Cut off and extended again: zeros, while others read."""
        readers = Readers(self.a / self.name, 2)
        path, wrong = root / self.name, 0
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                fd = os.open(self.b / self.name, os.O_RDWR)
                for i in range(0, PAGES, 64):
                    os.pwrite(fd, page(1) * 64, i * PAGE)
                os.close(fd)
                time.sleep(0.02 * self.rng.random())
                cut = self.rng.randrange(PAGES)
                os.truncate(path, cut * PAGE)
                wrong += os.stat(self.a / self.name).st_size != cut * PAGE
                os.truncate(path, PAGES * PAGE)
                fd = os.open(self.a / self.name, os.O_RDONLY)
                for _ in range(30):
                    i = self.rng.randrange(PAGES)
                    wrong += os.pread(fd, PAGE, i * PAGE) != page(1 if i < cut else 0)
                os.close(fd)
        finally:
            readers.stop = True
            readers.close()
        self.assertEqual(wrong, 0)

    def test_truncated_by_another_mount(self):
        self.truncated(self.b)

    def test_truncated_here(self):
        self.truncated(self.a)


if __name__ == "__main__":
    unittest.main()
