# SPDX-License-Identifier: Apache-2.0
"""Two mounts of one volume: what one client did, the other sees. With one folder given twice (any local file system) the same
checks hold, which is how they are checked themselves.

    python3 -m test.posix.mounts DIR OTHER [--only stale,locks,...]"""
import argparse
import errno
import fcntl
import mmap
import os
import shutil
import sys
import time

from test.posix.agent import Agent
from test.posix.conform.base import open_close

ROUNDS = 200
EXCLUSIVE, SHARED, NOW = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB


class Mounts:
    """a, b: folders that are the same one seen through two mounts. failures: texts."""

    def __init__(self, a, b):
        self.name = f"mounts-{os.getpid()}"
        self.a, self.b, self.count, self.failures = f"{a}/{self.name}", f"{b}/{self.name}", 0, []
        os.mkdir(self.a)

    def check(self, ok, what):
        self.count += 1
        if not ok:
            self.failures.append(what)

    def equal(self, got, want, what):
        self.check(got == want, f"{what}: is {short(got)}, should be {short(want)}")

    def fails(self, error, what, function, *args):
        try:
            function(*args)
            self.check(False, f"{what}: succeeded, should fail with {errno.errorcode[error]}")
        except OSError as e:
            self.equal(errno.errorcode.get(e.errno), errno.errorcode[error], what)

    def close(self):
        shutil.rmtree(self.a, ignore_errors=True)


def short(value):
    text = repr(value)
    return text if len(text) < 120 else text[:117] + "..."


def put(path, data):
    with open(path, "wb", buffering=0) as f:
        f.write(data)


def get(path):
    with open(path, "rb", buffering=0) as f:
        return f.read()


# ---- what is gone or new ----

def stale(m):
    """Issue: 200 rounds of write-close-open-read and of delete-open; nothing old is ever seen."""
    old = 0
    for i in range(ROUNDS):
        there, here = (m.a, m.b) if i % 2 else (m.b, m.a)
        text = f"round {i} ".encode() * (1 + i % 50 * (i % 3))
        put(f"{there}/f", text)
        old += get(f"{here}/f") != text
    m.equal(old, 0, f"stale reads after close and open, of {ROUNDS}")
    old = 0
    for i in range(ROUNDS):
        there, here = (m.a, m.b) if i % 2 else (m.b, m.a)
        put(f"{there}/d", b"x")
        old += not os.path.exists(f"{here}/d")
        os.unlink(f"{there}/d")
        try:
            open_close(f"{here}/d", os.O_RDONLY)
            old += 1
        except FileNotFoundError:
            pass
    m.equal(old, 0, f"stale names after unlink, of {ROUNDS}")
    old = 0
    fa, fb = os.open(f"{m.a}/f", os.O_RDWR), os.open(f"{m.b}/f", os.O_RDWR)
    for i in range(ROUNDS):
        there, here = (fa, fb) if i % 2 else (fb, fa)
        data = i.to_bytes(8, "little") * 512
        os.pwrite(there, data, 4096 * (i % 5))
        os.fsync(there)
        old += os.pread(here, 4096, 4096 * (i % 5)) != data
    os.close(fa)
    os.close(fb)
    m.equal(old, 0, f"stale reads through open files after fsync, of {ROUNDS}")


def names(m):
    """Entries, attributes and folders, at once."""
    old = 0
    for i in range(50):
        old += os.path.exists(f"{m.b}/n{i}")  # a negative entry may now be cached
        put(f"{m.a}/n{i}", b"1")
        old += not os.path.exists(f"{m.b}/n{i}")
        os.rename(f"{m.a}/n{i}", f"{m.a}/r{i}")
        old += os.path.exists(f"{m.b}/n{i}") or not os.path.exists(f"{m.b}/r{i}")
        os.truncate(f"{m.a}/r{i}", 1000 + i)
        old += os.stat(f"{m.b}/r{i}").st_size != 1000 + i
        os.chmod(f"{m.a}/r{i}", 0o600 + i % 8)
        old += os.stat(f"{m.b}/r{i}").st_mode & 0o777 != 0o600 + i % 8
        os.link(f"{m.b}/r{i}", f"{m.b}/l{i}")
        old += os.stat(f"{m.a}/r{i}").st_nlink != 2
        os.setxattr(f"{m.b}/r{i}", "user.i", str(i).encode())
        old += os.getxattr(f"{m.a}/l{i}", "user.i") != str(i).encode()
        old += sorted(os.listdir(m.a)) != sorted(os.listdir(m.b))
        os.mkdir(f"{m.a}/d{i}")
        put(f"{m.b}/d{i}/x", b"2")
        m_fails = 0
        try:
            os.rmdir(f"{m.a}/d{i}")
            m_fails = 1
        except OSError:
            pass
        old += m_fails
        os.rename(f"{m.b}/d{i}", f"{m.b}/e{i}")
        old += get(f"{m.a}/e{i}/x") != b"2"
        shutil.rmtree(f"{m.a}/e{i}")
        old += os.path.exists(f"{m.b}/e{i}")
    m.equal(old, 0, "stale entries or attributes, in 50 rounds")


def truncate(m):
    """Old bytes must not come back: issue, point 5."""
    path, other = f"{m.a}/t", f"{m.b}/t"
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"\xaa" * (8 << 20))
    keep = 8 << 20
    get(other)
    for i, size in enumerate((5 << 20, 1 << 20, 9 << 20, 500000, 9 << 20)):
        (os.truncate(other, size) if i % 2 else os.ftruncate(fd, size))
        keep = min(keep, size)
        for what, data in (("same descriptor", os.pread(fd, 16 << 20, 0) if size < 2**31 else b""), ("opened here", get(path)), ("opened there", get(other))):
            data = read_fully(fd, size) if what == "same descriptor" else data
            m.equal(len(data), size, f"truncate to {size}: length, {what}")
            m.equal(data.count(b"\xaa"), keep, f"truncate to {size}: bytes that must be there, {what}")
            m.equal(data.count(b"\0"), size - keep, f"truncate to {size}: zeros, {what}")
    os.close(fd)
    put(path, b"\xbb" * (3 << 20))
    for size in (100, 3 << 20, (1 << 20) - 1, 2 << 20):  # extend by a write behind the end, not by truncate
        os.truncate(path, size)
        keep = min(size, 100)
        with open(other, "r+b", buffering=0) as f:
            f.seek(4 << 20)
            f.write(b"\xcc")
        data = get(path)
        m.equal(data[keep:4 << 20].count(b"\0"), (4 << 20) - keep, f"write behind the end after a cut at {size}: zeros between")


def read_fully(fd, size):
    parts, at = [], 0
    while at < size + 1:
        part = os.pread(fd, 1 << 20, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)


# ---- sharing ----

def append(m):
    """O_APPEND from both sides at once: every record whole, none lost, each side's in order."""
    put(f"{m.a}/log", b"")
    with Agent() as one, Agent() as two, Agent() as three:
        for agent, root, mark in ((one, m.a, "one"), (two, m.b, "two"), (three, m.b, "three")):
            agent.start("append", f"{root}/log", mark, 200)
        for agent in (one, two, three):
            agent.result()
    for root in (m.a, m.b):
        data = get(f"{root}/log")
        lines = data.split(b"\n")[:-1]
        m.equal(len(data), 600 * 64, "size after appends")
        m.equal(sum(len(line) != 63 or b"\0" in line for line in lines), 0, "torn records")
        for mark in ("one", "two", "three"):
            mine = [line.split(b".")[0] for line in lines if line.startswith(mark.encode() + b"-")]
            m.equal(mine, [f"{mark}-{i:06d}".encode() for i in range(200)], f"records of {mark}")


def locks(m):
    for kind in ("flock", "lock"):
        put(f"{m.a}/lock", b"x" * 100)
        with Agent() as one, Agent() as two:
            f1, f2 = one("open", f"{m.a}/lock", os.O_RDWR), two("open", f"{m.b}/lock", os.O_RDWR)
            one(kind, f1, EXCLUSIVE | NOW)
            m.fails(errno.EAGAIN, f"{kind}: exclusive over exclusive", two, kind, f2, EXCLUSIVE | NOW)
            m.fails(errno.EAGAIN, f"{kind}: shared over exclusive", two, kind, f2, SHARED | NOW)
            one(kind, f1, fcntl.LOCK_UN)
            two(kind, f2, SHARED | NOW)
            one(kind, f1, SHARED | NOW)
            m.fails(errno.EAGAIN, f"{kind}: exclusive over shared", one, kind, f1, EXCLUSIVE | NOW)
            two(kind, f2, fcntl.LOCK_UN)
            one(kind, f1, EXCLUSIVE | NOW)
            two.start(kind, f2, EXCLUSIVE)
            m.check(not two.done(0.5), f"{kind}: a waiter waits")
            one(kind, f1, fcntl.LOCK_UN)
            m.check(two.done(10), f"{kind}: a waiter gets the lock when it is given back")
            two.result()
            one.start(kind, f1, EXCLUSIVE)
            m.check(not one.done(0.3), f"{kind}: a waiter waits on the other side")
            two("close", f2)
            m.check(one.done(10), f"{kind}: closing gives the lock back")
            one.result()
            f2 = two("open", f"{m.b}/lock", os.O_RDWR)
            two.start(kind, f2, EXCLUSIVE)
            m.check(not two.done(0.3), f"{kind}: a waiter waits for a process")
            one.kill()
            m.check(two.done(10), f"{kind}: the end of a process gives its lock back")
            two.result()
    ranges(m)


def ranges(m):
    with Agent() as one, Agent() as two:
        f1, f2 = one("open", f"{m.a}/lock", os.O_RDWR), two("open", f"{m.b}/lock", os.O_RDWR)
        one("lock", f1, EXCLUSIVE | NOW, 10, 0)
        two("lock", f2, EXCLUSIVE | NOW, 10, 10)
        m.fails(errno.EAGAIN, "range over the other's", two, "lock", f2, EXCLUSIVE | NOW, 10, 5)
        m.equal(two("holder", f2, fcntl.F_WRLCK, 10, 0), (fcntl.F_WRLCK, 0, 10), "who holds a range")
        m.equal(two("holder", f2, fcntl.F_WRLCK, 10, 50), None, "a free range")
        one("lock", f1, fcntl.LOCK_UN, 3, 4)  # splits it
        two("lock", f2, EXCLUSIVE | NOW, 3, 4)
        m.fails(errno.EAGAIN, "left part of a split range", two, "lock", f2, SHARED | NOW, 4, 0)
        m.fails(errno.EAGAIN, "right part of a split range", two, "lock", f2, SHARED | NOW, 3, 7)
        one("lock", f1, SHARED | NOW, 4, 0)
        two("lock", f2, SHARED | NOW, 4, 0)
        m.equal(two("holder", f2, fcntl.F_WRLCK, 4, 0), (fcntl.F_RDLCK, 0, 4), "a lock turned into a shared one")
        one("lock", f1, EXCLUSIVE | NOW, 0, 1000)
        m.fails(errno.EAGAIN, "range to the end of the file", two, "lock", f2, EXCLUSIVE | NOW, 1, 10**9)


def mapped(m):
    """mmap on one side, read and write on the other, with msync or close between."""
    put(f"{m.a}/map", b"a" * 20000)
    with Agent() as one, Agent() as two:
        f1, f2 = one("open", f"{m.a}/map", os.O_RDWR), two("open", f"{m.b}/map", os.O_RDWR)
        one("map", f1, 20000)
        one("map_write", f1, 5000, b"mapped")
        one("map_sync", f1)
        m.equal(two("pread", f2, 6, 5000), b"mapped", "written through a map and synced, read there")
        m.equal(get(f"{m.b}/map")[5000:5006], b"mapped", "the same after opening")
        two("pwrite", f2, b"written", 9000)
        two("fsync", f2)
        m.equal(get(f"{m.a}/map")[9000:9007], b"written", "written there while it is mapped here")
        one("unmap", f1)
        one("map", f1, 20000)
        m.equal(one("map_read", f1, 9000, 7), b"written", "a new map shows it")
        for i in range(50):
            data = f"{i:08d}".encode()
            one("map_write", f1, 100, data)
            one("map_sync", f1)
            m.equal(two("pread", f2, 8, 100), data, f"map round {i}")


def direct(m):
    """O_DIRECT: what is written is there for the other side at once."""
    buffer = mmap.mmap(-1, 1 << 20)
    fd = os.open(f"{m.a}/direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    other = os.open(f"{m.b}/direct", os.O_RDONLY)
    old = 0
    for i in range(50):
        buffer[:] = bytes([i + 1]) * (1 << 20)
        os.pwrite(fd, memoryview(buffer)[:65536], 65536 * (i % 7))
        old += os.pread(other, 65536, 65536 * (i % 7)) != bytes([i + 1]) * 65536
    m.equal(old, 0, "stale reads after O_DIRECT writes, of 50")
    into = memoryview(buffer)[:65536]
    os.pwrite(fd, memoryview(buffer)[:4096], 1 << 20)
    m.equal(os.preadv(fd, [into], 0), 65536, "O_DIRECT read")
    m.equal(os.fstat(fd).st_size, (1 << 20) + 4096, "size after O_DIRECT writes")
    os.close(fd)
    os.close(other)


def sparse(m):
    fd, other = os.open(f"{m.a}/sparse", os.O_CREAT | os.O_RDWR), -1
    os.pwrite(fd, b"x" * 4096, 64 << 20)
    other = os.open(f"{m.b}/sparse", os.O_RDONLY)
    m.equal(os.fstat(other).st_size, (64 << 20) + 4096, "size of a sparse file there")
    m.equal(os.pread(other, 4096, 64 << 20), b"x" * 4096, "its data there")
    m.equal(os.pread(other, 4096, 32 << 20), bytes(4096), "its hole there")
    m.check(os.fstat(other).st_blocks * 512 < 32 << 20, f"its space there: {os.fstat(other).st_blocks} blocks")
    os.close(other)
    os.close(fd)


def unlinked(m):
    """A file that one client has open stays when the other removes its name, or its last folder, or renames over it."""
    for how in ("unlink", "rename over"):
        put(f"{m.a}/open", b"still here" * 1000)
        with Agent() as two:
            fd = two("open", f"{m.b}/open", os.O_RDWR)
            if how == "unlink":
                os.unlink(f"{m.a}/open")
            else:
                put(f"{m.a}/new", b"new")
                os.rename(f"{m.a}/new", f"{m.a}/open")
                m.equal(get(f"{m.b}/open"), b"new", "the new file has the name")
            time.sleep(1.5)  # longer than a sweeper of files without names would wait
            m.equal(two("pread", fd, 10, 0), b"still here", f"{how}: what was open can be read")
            two("pwrite", fd, b"STILL", 0)
            two("fsync", fd)
            m.equal(two("pread", fd, 10, 0), b"STILL here", f"{how}: and written")
            two("close", fd)


def space(m):
    a, b = os.statvfs(m.a), os.statvfs(m.b)
    m.equal(a.f_blocks, b.f_blocks, "size of the volume on both")
    m.check(abs(a.f_bfree - b.f_bfree) * a.f_frsize < 64 << 20, "free space on both")


def fills(m):
    """ENOSPC on a small volume: told in time, nothing breaks, space comes back. Left out on large ones."""
    v = os.statvfs(m.a)
    free = v.f_bavail * v.f_frsize
    if free > 1 << 30:
        return
    put(f"{m.a}/before", b"before" * 1000)
    error, written = 0, 0
    fd = os.open(f"{m.a}/fill", os.O_CREAT | os.O_WRONLY)
    try:
        while written < 2 * free:
            written += os.write(fd, b"f" * (1 << 20))
        os.fsync(fd)
    except OSError as e:
        error = e.errno
    try:
        os.close(fd)
    except OSError as e:
        error = error or e.errno
    m.equal(errno.errorcode.get(error), "ENOSPC", f"a volume with {free >> 20} MiB free is filled ({written >> 20} MiB written)")
    m.equal(get(f"{m.b}/before"), b"before" * 1000, "what was there before")
    os.unlink(f"{m.b}/fill")
    end, ok = time.monotonic() + 30, False
    while not ok and time.monotonic() < end:  # space may be given back a moment later
        try:
            put(f"{m.a}/after", b"after" * 100000)
            ok = True
        except OSError:
            time.sleep(0.2)
    m.check(ok, "there is room again after the removal")
    if ok:
        m.equal(get(f"{m.b}/after"), b"after" * 100000, "what was written then")


CHECKS = {"stale": stale, "names": names, "truncate": truncate, "append": append, "locks": locks, "mapped": mapped, "direct": direct,
          "sparse": sparse, "unlinked": unlinked, "space": space, "fills": fills}


def run(a, b, only=None):
    """(checks made, failures: texts)."""
    m = Mounts(a, b)
    try:
        for name, check in CHECKS.items():
            if only and name not in only:
                continue
            try:
                check(m)
            except (OSError, TimeoutError) as e:
                m.check(False, f"{name}: stopped by {type(e).__name__}: {e}")
    finally:
        m.close()
    return m.count, m.failures


def main():
    p = argparse.ArgumentParser(prog="python3 -m test.posix.mounts")
    p.add_argument("folder")
    p.add_argument("other")
    p.add_argument("--only")
    a = p.parse_args()
    start = time.monotonic()
    count, failures = run(a.folder, a.other, a.only.split(",") if a.only else None)
    for text in failures:
        print(text)
    print(f"{count} checks, {len(failures)} failed, {time.monotonic() - start:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
