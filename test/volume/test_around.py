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


def words(data):
    """The numbers in a page; None: the file ended before the page."""
    short = {None} if len(data) < PAGE else set()
    if data and data[8:] == data[:-8]:
        return {int.from_bytes(data[:8], "little")} | short
    return set(struct.unpack_from(f"<{len(data) // 8}Q", data)) | short


class Written:
    """What may be in pages that are written one by one: nothing older than what was written when a read began."""

    def __init__(self):
        self.done, self.begun = [0] * PAGES, [{0} for _ in range(PAGES)]  # begun: all that was ever written to a page, or is just being written

    def now(self, i):
        return self.done[i]

    def explains(self, i, least, found):
        return found <= self.begun[i] and min(found) >= least


class Changed:
    """What may be in a file that changes as a whole: its states one after the other, each a function: page -> set of numbers as of words()."""

    def __init__(self):
        self.states = [lambda i: {0}]

    def now(self, i):
        return len(self.states) - 1

    def explains(self, i, since, found):
        return found <= set().union(*(state(i) for state in self.states[since:]))

    def becomes(self, during, after):
        """A change: during() and then, for those who call it at its end, after."""
        self.states.append(during)
        return lambda: self.states.append(after)


class Readers:
    """Threads that read random pages of a file until close(), and whether `model` explains what they saw: a read sees what was true when it began
    or became so until its end. The kernel copies a write into a page while others read it: they may see a part of it, as on any Linux file system."""

    def __init__(self, path, threads, model):
        self.path, self.model, self.wrong, self.died, self.reads, self.short, self.stop = path, model, [], [], 0, 0, False
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(threads)]
        for t in self.threads:
            t.start()

    def run(self, seed):
        try:
            with open(self.path, "rb", buffering=0) as f:
                self.look(f.fileno(), random.Random(seed))
        except Exception as e:  # check() tells it: who has died sees nothing any more
            self.died.append(repr(e))

    def look(self, fd, rng):
        while not self.stop:
            i = rng.randrange(PAGES)
            before = self.model.now(i)
            found = words(os.pread(fd, PAGE, i * PAGE))
            self.reads += 1
            self.short += None in found
            if not self.model.explains(i, before, found):
                self.wrong.append((i, before, found))

    def close(self):
        self.stop = True
        for t in self.threads:
            t.join()

    def check(self, test):
        test.assertEqual(self.died, [])
        test.assertEqual(self.wrong[:20], [], f"{len(self.wrong)} of {self.reads} reads")
        test.assertGreater(self.reads, 100)


def two_parts(cut, first, second):
    return lambda i: first if i < cut else second


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
        model, end, n = Written(), time.monotonic() + SECONDS, 0
        readers = Readers(self.a / self.name, 3, model)
        try:
            while time.monotonic() < end:
                i, n = self.rng.randrange(PAGES), n + 1
                model.begun[i].add(n)
                write(i, page(n))
                model.done[i] = n
                time.sleep(pause * self.rng.random() * 2)
        finally:
            readers.close()
        print(f"    {self.name}: {readers.reads} reads, {n} writes", flush=True)
        readers.check(self)

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
        """Cut off and extended again: zeros, while others read. Cut by another mount, a kernel that is just asking for the size may answer a read with
        the one before: zeros or nothing behind the cut, never what was there."""
        model, path, wrong, n, before = Changed(), root / self.name, 0, 0, lambda i: {0}
        late = {0, None} if root == self.b else set()
        end, readers = time.monotonic() + SECONDS, Readers(self.a / self.name, 2, model)
        try:
            while time.monotonic() < end:
                n, cut = n + 1, self.rng.randrange(PAGES)
                wrong += self.write_cut_extend(model, path, before, n, cut, late)
                before = two_parts(cut, {n}, {0} | late)
                fd = os.open(self.a / self.name, os.O_RDONLY)
                for _ in range(30):
                    i = self.rng.randrange(PAGES)
                    wrong += words(os.pread(fd, PAGE, i * PAGE)) != {n if i < cut else 0}
                os.close(fd)
        finally:
            readers.close()
        print(f"    {self.name}: {readers.reads} reads, {readers.short} of them behind the end, {n} times cut", flush=True)
        self.assertEqual(wrong, 0)
        readers.check(self)

    def write_cut_extend(self, model, path, before, n, cut, late):
        """How often a size was wrong."""
        done = model.becomes(lambda i: before(i) | {n}, lambda i: {n})
        fd = os.open(self.b / self.name, os.O_RDWR)
        for i in range(0, PAGES, 64):
            os.pwrite(fd, page(n) * 64, i * PAGE)
        os.close(fd)
        done()
        time.sleep(0.02 * self.rng.random())
        done = model.becomes(two_parts(cut, {n}, {n, 0, None}), two_parts(cut, {n}, {None} | late))
        os.truncate(path, cut * PAGE)
        done()
        wrong = os.stat(self.a / self.name).st_size != cut * PAGE
        done = model.becomes(two_parts(cut, {n}, {0, None}), two_parts(cut, {n}, {0} | late))
        os.truncate(path, PAGES * PAGE)
        done()
        return wrong

    def test_truncated_by_another_mount(self):
        self.truncated(self.b)

    def test_truncated_here(self):
        self.truncated(self.a)


if __name__ == "__main__":
    unittest.main()
