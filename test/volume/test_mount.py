# SPDX-License-Identifier: Apache-2.0
"""What programs see on mounts of one volume: files, two mounts at once, locks, faults."""
import ctypes
import errno
import fcntl
import json
import mmap
import multiprocessing
import os
import signal
import stat
import struct
import subprocess
import threading
import time
import unittest
from pathlib import Path

from lab.util import KUAYU, wait_for
from test.volume.cluster import TwoMountsTest, VolumeCluster, is_mounted, shim, unmount

ROUNDS = 200


class TwoMounts(TwoMountsTest):
    # ---- one mount ----
    def test_files(self):
        f = self.da / "f"
        f.write_bytes(b"hello")
        self.assertEqual(f.read_bytes(), b"hello")
        with open(f, "r+b") as x:
            x.seek(3_000_000)
            x.write(b"end")
        self.assertEqual(f.stat().st_size, 3_000_003)
        data = f.read_bytes()
        self.assertEqual((data[:5], data[5:3_000_000].strip(b"\0"), data[3_000_000:]), (b"hello", b"", b"end"))
        os.truncate(f, 4)
        os.truncate(f, 8)
        self.assertEqual(f.read_bytes(), b"hell\0\0\0\0")
        os.link(f, self.da / "g")
        self.assertEqual(f.stat().st_nlink, 2)
        self.assertEqual(f.stat().st_ino, (self.da / "g").stat().st_ino)
        os.symlink("f", self.da / "s")
        self.assertEqual(os.readlink(self.da / "s"), "f")
        f.unlink()
        self.assertEqual((self.da / "g").stat().st_nlink, 1)
        self.assertFalse(f.exists())
        os.mkfifo(self.da / "pipe", 0o640)
        self.assertTrue(stat.S_ISFIFO((self.da / "pipe").stat().st_mode))
        os.setxattr(self.da / "g", "user.colour", b"red")
        self.assertEqual(os.getxattr(self.db / "g", "user.colour"), b"red")
        self.assertEqual(os.listxattr(self.da / "g"), ["user.colour"])
        os.chmod(self.da / "g", 0o600)
        os.utime(self.da / "g", ns=(1_000_000_001, 2_000_000_002))
        st = (self.db / "g").stat()
        self.assertEqual((st.st_mode & 0o7777, st.st_atime_ns, st.st_mtime_ns), (0o600, 1_000_000_001, 2_000_000_002))
        self.assertGreater(os.statvfs(self.da).f_blocks, 0)

    def test_folders(self):
        for i in range(300):
            (self.da / f"file-{i:03}").touch()
        (self.da / "sub" / "sub").mkdir(parents=True)
        names = sorted(os.listdir(self.da))
        self.assertEqual(names, [f"file-{i:03}" for i in range(300)] + ["sub"])
        self.assertEqual(sorted(os.listdir(self.db)), names)
        with self.assertRaises(OSError) as e:
            (self.da / "sub").rmdir()
        self.assertEqual(e.exception.errno, errno.ENOTEMPTY)
        (self.db / "sub" / "sub").rmdir()
        (self.da / "sub").rmdir()
        self.assertFalse((self.db / "sub").exists())
        for i in range(0, 300, 2):
            (self.db / f"file-{i:03}").unlink()
        self.assertEqual(len(os.listdir(self.da)), 150)
        with self.assertRaises(FileNotFoundError):
            (self.da / "file-000").stat()

    def test_rename(self):
        for d in ("x", "y", "x/deep"):
            (self.da / d).mkdir()
        (self.da / "x/f").write_text("1")
        (self.da / "y/f").write_text("2")
        os.rename(self.da / "x/f", self.da / "y/f")
        self.assertEqual((self.db / "y/f").read_text(), "1")
        self.assertFalse((self.db / "x/f").exists())
        os.rename(self.da / "y/f", self.da / "y/g")
        self.assertEqual(os.listdir(self.db / "y"), ["g"])
        os.rename(self.db / "x/deep", self.db / "y/deep")
        (self.da / "y/deep/z").write_text("3")
        self.assertEqual((self.db / "y/deep/z").read_text(), "3")
        with self.assertRaises(OSError) as e:
            os.rename(self.da / "y", self.da / "y/deep/y")
        self.assertEqual(e.exception.errno, errno.EINVAL)

    def test_exchange(self):
        """Both get a new ctime, at once and everywhere; both are known here before."""
        (self.da / "x").write_text("x")
        (self.da / "y").write_text("yy")
        before = {(self.da / n).stat().st_ino: (self.da / n).stat().st_ctime_ns for n in "xy"}
        time.sleep(0.02)
        self.assertEqual(ctypes.CDLL(None).renameat2(-100, bytes(self.da / "x"), -100, bytes(self.da / "y"), 2), 0)
        for n, size in (("x", 2), ("y", 1)):
            here, there = (self.da / n).stat(), (self.db / n).stat()
            self.assertEqual(here.st_size, size)
            self.assertGreater(here.st_ctime_ns, before[here.st_ino])
            self.assertEqual(here.st_ctime_ns, there.st_ctime_ns)

    def test_mmap(self):
        f = self.da / "f"
        f.write_bytes(bytes(20000))
        with open(f, "r+b") as x, mmap.mmap(x.fileno(), 20000) as m:
            m[5000:5004] = b"mmap"
            m.flush()
        self.assertEqual((self.db / "f").read_bytes()[5000:5004], b"mmap")
        with open(self.db / "f", "rb") as x, mmap.mmap(x.fileno(), 20000, prot=mmap.PROT_READ) as m:
            self.assertEqual(m[5000:5004], b"mmap")

    def test_direct_and_sync(self):
        buf = mmap.mmap(-1, 8192)
        buf.write(b"d" * 8192)
        fd = os.open(self.da / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT | os.O_SYNC)
        self.assertEqual(os.pwritev(fd, [buf], 4096), 8192)
        self.assertEqual(os.preadv(fd, [buf], 0), 8192)
        self.assertEqual(buf[:8192], bytes(4096) + b"d" * 4096)
        os.close(fd)
        self.assertEqual((self.db / "f").read_bytes(), bytes(4096) + b"d" * 8192)

    def test_holes(self):
        fd = os.open(self.da / "f", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"x" * 4096, 1 << 20)
        self.assertEqual(os.lseek(fd, 0, os.SEEK_DATA), 1 << 20)
        self.assertEqual(os.lseek(fd, 1 << 20, os.SEEK_HOLE), (1 << 20) + 4096)
        os.posix_fallocate(fd, 0, 2 << 20)
        self.assertEqual(os.fstat(fd).st_size, 2 << 20)
        subprocess.run(["fallocate", "-p", "-o", str(1 << 20), "-l", "4096", str(self.da / "f")], check=True)
        self.assertEqual(os.pread(fd, 10, 1 << 20), bytes(10))
        self.assertEqual((self.db / "f").read_bytes()[1 << 20:(1 << 20) + 10], bytes(10))
        os.close(fd)

    def test_suid_is_cleared_by_a_write(self):
        f = self.da / "f"
        f.write_bytes(b"x")
        os.chown(f, 1000, 1000)
        os.chmod(f, 0o4777)
        os.chmod(self.da, 0o777)
        subprocess.run(["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "sh", "-c", f"echo y >> {f}"], check=True)
        self.assertEqual(f.stat().st_mode & 0o7777, 0o777)

    def test_capabilities_go_with_a_change_of_the_file(self):
        """Whoever writes, root too: else who may write to a program has its capabilities."""
        f = self.da / "f"

        def write(how):
            with open(self.db / "f", how) as x:
                x.write(b"y")
        changes = {"write": lambda: write("r+b"), "append": lambda: write("ab"), "truncate": lambda: os.truncate(f, 3),
                   "open": lambda: open(self.db / "f", "wb").close(), "chown": lambda: os.chown(f, 1000, 1000)}
        for what, change in changes.items():
            with self.subTest(what):
                f.write_bytes(b"program")
                os.setxattr(f, "user.kept", b"1")
                os.setxattr(f, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
                change()
                self.assertEqual((os.listxattr(self.da / "f"), os.listxattr(self.db / "f")), (["user.kept"], ["user.kept"]))

    def test_times_long_ago_and_far_away(self):
        f = self.da / "f"
        f.touch()
        os.utime(f, ns=(-1, -99_999_999_995))
        st = (self.db / "f").stat()
        self.assertEqual((st.st_atime_ns, st.st_mtime_ns), (-1, -99_999_999_995))
        os.utime(f, (1 << 40, -(1 << 40)))  # more than nanoseconds of 64 bits can say: the nearest
        st = (self.db / "f").stat()
        self.assertEqual((st.st_atime_ns, st.st_mtime_ns), ((1 << 63) - 1, -(1 << 63)))

    def test_permissions(self):
        f = self.da / "f"
        f.write_bytes(b"x")
        f.chmod(0o600)
        done = subprocess.run(["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "cat", str(f)], capture_output=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"Permission denied", done.stderr)

    # ---- two mounts ----
    def test_close_to_open(self):
        stale = 0
        for i in range(ROUNDS):
            text = f"round {i} " + "x" * (i * 37 % 5000)
            (self.da / "f").write_text(text)
            stale += (self.db / "f").read_text() != text
        self.assertEqual(stale, 0)

    def test_delete_and_open(self):
        stale = 0
        for i in range(ROUNDS):
            (self.da / "f").write_text("x")
            stale += not (self.db / "f").exists()
            (self.db / "f").unlink() if i % 2 else (self.da / "f").unlink()
            for d in (self.da, self.db):
                try:
                    open(d / "f").close()
                    stale += 1
                except FileNotFoundError:
                    pass
        self.assertEqual(stale, 0)

    def test_both_have_it_open(self):
        (self.da / "f").write_bytes(bytes(65536))
        a, b = os.open(self.da / "f", os.O_RDWR), os.open(self.db / "f", os.O_RDWR)
        stale = 0
        for i in range(ROUNDS):
            text = b"%08d" % i
            writer, reader = (a, b) if i % 3 else (b, a)
            os.pwrite(writer, text, i * 97 % 65000)
            if i % 2:
                os.fsync(writer)
            stale += os.pread(reader, 8, i * 97 % 65000) != text
        self.assertEqual(stale, 0)
        os.ftruncate(a, 10)
        self.assertEqual(os.fstat(b).st_size, 10)
        self.assertEqual(os.pread(b, 100, 5), os.pread(a, 100, 5))
        os.close(a)
        os.close(b)

    def test_attributes_and_names(self):
        stale = 0
        for i in range(ROUNDS):
            try:
                os.stat(self.db / f"n{i}")
                stale += 1
            except FileNotFoundError:
                pass
            (self.da / f"n{i}").write_text(str(i))
            stale += (self.db / f"n{i}").stat().st_size != len(str(i))
            os.chmod(self.da / f"n{i}", 0o400 + i % 8)
            stale += (self.db / f"n{i}").stat().st_mode & 0o777 != 0o400 + i % 8
            os.rename(self.db / f"n{i}", self.db / f"m{i}")
            stale += (self.da / f"n{i}").exists() or not (self.da / f"m{i}").exists()
        self.assertEqual(stale, 0)
        self.assertEqual(len(os.listdir(self.da)), ROUNDS)

    def test_small_files_whose_bytes_come_with_their_lookup(self):
        """Between the lookup and the read somebody writes, here or there: the read sees it."""
        stale = 0
        for i in range(ROUNDS):
            for name in "xyzw":
                (self.db / f"{name}{i}").write_bytes(b"old %d" % i)
            stale += (self.da / f"x{i}").read_bytes() != b"old %d" % i
            for name in "yzw":
                stale += (self.da / f"{name}{i}").stat().st_size != len(b"old %d" % i)
            (self.db / f"y{i}").write_bytes(b"there %d" % i)
            stale += (self.da / f"y{i}").read_bytes() != b"there %d" % i
            with open(self.da / f"z{i}", "r+b") as f:
                f.write(b"HERE")
            stale += (self.da / f"z{i}").read_bytes() != b"HERE%d" % i
            os.truncate(self.da / f"w{i}", 2)
            os.truncate(self.da / f"w{i}", 5)
            stale += (self.da / f"w{i}").read_bytes() != b"ol\0\0\0"
        self.assertEqual(stale, 0)

    def test_changes_that_change_nothing(self):
        """Answered without a brick, unless they would: what another mount set meanwhile, suid, a ctime of before."""
        wrong = 0
        for i in range(ROUNDS):
            path, there = self.da / f"f{i}", self.db / f"f{i}"
            with open(path, "wb") as f:
                os.utime(f.fileno(), (1, 1))
                os.fchown(f.fileno(), 0, 0)
                os.fchmod(f.fileno(), 0o644)
                os.chown(there, 1000 + i, 1000)
                os.fchown(f.fileno(), 0, 0)
                wrong += there.stat().st_uid != 0
                os.chmod(there, 0o600)
                os.fchmod(f.fileno(), 0o644)
                wrong += there.stat().st_mode & 0o7777 != 0o644
                os.fchmod(f.fileno(), 0o4755)
                os.fchown(f.fileno(), 0, 0)
                wrong += there.stat().st_mode & 0o7777 != 0o755
        self.assertEqual(wrong, 0)
        before = path.stat().st_ctime_ns
        time.sleep(0.01)
        os.chown(path, 0, 0)
        self.assertGreater(path.stat().st_ctime_ns, before)
        self.assertGreater(there.stat().st_ctime_ns, before)

    def test_appending_from_two(self):
        (self.da / "log").touch()
        procs = [multiprocessing.Process(target=append, args=(d / "log", c, 400)) for d, c in ((self.da, "a"), (self.db, "b"))]
        for p in procs:
            p.start()
        for p in procs:
            p.join(60)
            self.assertEqual(p.exitcode, 0)
        for d in (self.da, self.db):
            lines = (d / "log").read_text().splitlines()
            self.assertEqual(len(lines), 800)
            for c in "ab":
                self.assertEqual([x for x in lines if x[0] == c], [f"{c}{i:06}" + "." * (i % 50) for i in range(400)])

    def test_making_and_removing_from_two(self):
        """Both work in the same folder all the time: nobody waits for ever, the end is the same for both."""
        procs = [multiprocessing.Process(target=churn, args=(d, c, 150)) for d, c in ((self.da, "a"), (self.db, "b"))]
        start = time.monotonic()
        for p in procs:
            p.start()
        for p in procs:
            p.join(90)
            self.assertEqual(p.exitcode, 0)
        print(f"two mounts making and removing in one folder: {300 / (time.monotonic() - start):.0f} rounds/s")
        self.assertEqual(sorted(os.listdir(self.da)), sorted(os.listdir(self.db)))
        self.assertEqual(len(os.listdir(self.da)), 150)

    def test_exclusive_creation(self):
        """One winner each."""
        won = [0, 0]
        def race(d, k):
            for i in range(100):
                try:
                    os.close(os.open(d / f"x{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    won[k] += 1
                except FileExistsError:
                    pass
        threads = [threading.Thread(target=race, args=x) for x in ((self.da, 0), (self.db, 1))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(sum(won), 100)

    def test_unlinked_but_open(self):
        (self.da / "f").write_bytes(b"still here")
        a = os.open(self.da / "f", os.O_RDWR)
        (self.db / "f").unlink()
        time.sleep(2.5)  # the brick asks after a second
        self.assertEqual(os.pread(a, 100, 0), b"still here")
        os.pwrite(a, b"more", 20)
        self.assertEqual(os.fstat(a).st_nlink, 0)
        self.assertEqual(os.fstat(a).st_size, 24)
        os.close(a)

    def test_locks(self):
        (self.da / "f").write_bytes(bytes(100))
        a, b = open(self.da / "f", "r+b"), open(self.db / "f", "r+b")
        fcntl.lockf(a, fcntl.LOCK_EX, 10, 0)
        fcntl.lockf(b, fcntl.LOCK_EX, 10, 50)
        with self.assertRaises(OSError):
            fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
        got = []
        def wait():
            fcntl.lockf(b, fcntl.LOCK_EX, 5, 5)
            got.append(time.monotonic())
        t = threading.Thread(target=wait)
        t.start()
        time.sleep(0.5)
        self.assertEqual(got, [])
        freed = time.monotonic()
        a.close()  # gives the locks up
        t.join(10)
        self.assertEqual(len(got), 1)
        print(f"a blocked locker on the other mount goes on after {(got[0] - freed) * 1000:.1f} ms")
        b.close()
        a, b = open(self.da / "f"), open(self.db / "f")
        fcntl.flock(a, fcntl.LOCK_SH)
        fcntl.flock(b, fcntl.LOCK_SH)
        with self.assertRaises(OSError):
            fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
        b.close()
        wait_for("the other's lock is free", lambda: fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB) is None, 20)  # close() does not wait for the release
        a.close()

    def test_locks_of_open_files_end_with_their_last_close(self):
        """F_OFD_SETLK: the kernel tells the mount nothing of them at the end."""
        setlk, other = 37, fcntl.F_SETLK

        def lock(fd, start, length, how=setlk):
            try:
                fcntl.fcntl(fd, how, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
                return True
            except BlockingIOError:
                return False
        (self.da / "f").touch()
        a, a2, b = (os.open(d / "f", os.O_RDWR) for d in (self.da, self.da, self.db))
        self.assertTrue(lock(a, 0, 10) and lock(a2, 20, 10) and lock(a2, 40, 1, other))
        self.assertFalse(lock(b, 5, 10) or lock(a2, 5, 10) or lock(b, 20, 1))
        copy = os.dup(a)
        os.close(a)
        self.assertFalse(lock(b, 5, 10))
        os.close(copy)
        wait_for("the lock of a closed file ends", lambda: lock(b, 5, 10), 5)
        self.assertFalse(lock(b, 20, 1), "a2's lock ended")
        os.close(a2)
        wait_for("the lock of a closed file ends", lambda: lock(b, 20, 1) and lock(b, 40, 1), 5)
        os.close(b)

    def test_a_signal_ends_the_wait_for_a_lock(self):
        (self.da / "f").write_bytes(b"x")
        with open(self.da / "f", "r+b") as a:
            fcntl.lockf(a, fcntl.LOCK_EX)
            p = subprocess.Popen(["python3", "-c", f"import fcntl; fcntl.lockf(open('{self.db}/f', 'r+b'), fcntl.LOCK_EX)"])
            time.sleep(0.7)
            p.send_signal(signal.SIGTERM)
            self.assertEqual(p.wait(5), -signal.SIGTERM)


def append(path, c, n):
    with open(path, "ab", buffering=0) as f:
        for i in range(n):
            f.write(f"{c}{i:06}{'.' * (i % 50)}\n".encode())


def churn(folder, c, n):
    for i in range(n):
        (folder / f"{c}{i}").write_text("x" * i)
        (folder / f"{c}{i}").stat()
        if i % 2:
            (folder / f"{c}{i - 1}").unlink()


AHEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *t)
{
	static int (*real)(clockid_t, struct timespec *);
	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int r = real(id, t);
	if (id == CLOCK_REALTIME)
		t->tv_sec += 3600;
	return r;
}
"""


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = VolumeCluster()
        cls.addClassCleanup(cls.cluster.close)

    def mount_8(self, path, options):
        path.mkdir(parents=True)
        helper = Path("/sbin/mount.fuse.kuayu")  # what `meson install` puts there
        if not helper.exists():
            helper.symlink_to(KUAYU)
            self.addCleanup(helper.unlink)
        return subprocess.run(["mount", "-t", "fuse.kuayu", "logs", path, "-o", options], capture_output=True, text=True, timeout=60)

    def test_mount_8_and_umount(self):
        path = self.cluster.dir / "mnt" / "m8"
        done = self.mount_8(path, f"store={self.cluster.store},domain=a,nosuid,_netdev,log={self.cluster.dir}/m8.log")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(is_mounted(path))
        (path / "x").write_text("y")
        with open("/proc/self/mounts") as f:
            line = next(x for x in f if f" {path} " in x)
        self.assertIn("nosuid", line)
        done = subprocess.run([KUAYU, "umount", path], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(is_mounted(path))
        self.assertNotEqual(subprocess.run([KUAYU, "umount", path], capture_output=True).returncode, 0)

    def test_refusals_have_a_text(self):
        for words, text in ((["nothere", "/mnt"], "does not exist"), (["logs", "/no/such/folder"], "No such file"), (["logs"], "VOLUME DIR"),
                            (["logs", "/mnt", "-o", "remount,ro"], "mount -i -o remount,ro")):
            done = subprocess.run([KUAYU, "mount", *words, "--store", self.cluster.store], capture_output=True, text=True, timeout=60)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(text, done.stderr)

    def test_where_it_cannot_be_mounted(self):
        path = self.cluster.dir / "mnt" / "once"
        (path / "folder").mkdir(parents=True)
        (path / "file").touch()
        for folder, status, text in ((path / "file", 2, "Not a directory"), (path / "folder", 0, ""), (path / "folder", 1, "is mounted on")):
            done = subprocess.run([KUAYU, "mount", "logs", folder, "--store", self.cluster.store], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(text, done.stderr)
        subprocess.run([KUAYU, "umount", path / "folder"], check=True)
        self.assertFalse(is_mounted(path / "folder"))

    def test_a_clock_that_was_set_back(self):
        """What the mount waits for does not depend on the time of day: each of its looks at the clock is an hour ahead of what the kernel waits by."""
        ahead, folder = shim(self.cluster.dir / "ahead", AHEAD), self.cluster.dir / "mnt" / "ahead"
        folder.mkdir(parents=True)
        p = subprocess.Popen([KUAYU, "mount", "logs", folder, "--store", self.cluster.store, "--foreground"], stderr=subprocess.DEVNULL,
                             env={**os.environ, "LD_PRELOAD": ahead})
        self.addCleanup(unmount, folder)
        self.addCleanup(p.wait, 10)
        self.addCleanup(p.kill)  # libraries it ends with wait by that clock, too
        wait_for("it is mounted", lambda: is_mounted(folder), 10)
        with open(folder / "f", "w+b") as a, open(folder / "f", "r+b") as b:
            fcntl.flock(a, fcntl.LOCK_EX)
            waiter = subprocess.Popen(["python3", "-c", f"import fcntl; fcntl.lockf(open('{folder}/g', 'a+b'), fcntl.LOCK_EX)"])
            self.assertEqual(waiter.wait(10), 0)
            waiter = subprocess.Popen(["python3", "-c", f"import fcntl; fcntl.flock(open('{folder}/f', 'r+b'), fcntl.LOCK_EX)"])
            time.sleep(0.7)
            waiter.send_signal(signal.SIGTERM)  # its end is found by looking
            self.assertEqual(waiter.wait(5), -signal.SIGTERM)

    def test_awake(self):
        """Processors do not halt while there is work, and may again when there is none. What others on this machine hold counts, too."""
        try:
            device = os.open("/dev/cpu_dma_latency", os.O_RDONLY)
        except OSError as e:
            self.skipTest(f"/dev/cpu_dma_latency: {e}")
        self.addCleanup(os.close, device)

        def limit():
            return int.from_bytes(os.pread(device, 4, 0), "little")
        quiet = time.monotonic() + 5  # the tests before worked, too
        while limit() <= 10:
            if time.monotonic() > quiet:
                self.skipTest("somebody else keeps the processors awake")
            time.sleep(0.05)
        path, end = self.cluster.mount(), time.monotonic() + 10
        self.assertGreater(limit(), 10)
        while limit() > 10 and time.monotonic() < end:
            (path / "awake").write_bytes(b"x")
        self.assertLessEqual(limit(), 10)
        wait_for("the processors may halt again", lambda: limit() > 10, 10)

    def test_a_dead_mount_is_replaced(self):
        path = self.cluster.mount()
        (path / "x").write_text("y")
        pid = next(int(p) for p in os.listdir("/proc") if p.isdigit() and cmdline(p)[1:4] == ["mount", "logs", str(path)])
        os.kill(pid, signal.SIGKILL)
        for _ in range(100):
            try:
                os.stat(path)
            except OSError as e:
                if e.errno == errno.EIO:
                    continue  # the one request that a thread was just reading when it was killed
                self.assertIn(e.errno, (errno.ENOTCONN, errno.ECONNABORTED))
                break
            time.sleep(0.05)
        done = subprocess.run([KUAYU, "mount", "logs", path, "--store", self.cluster.store, "--log", self.cluster.dir / "again.log"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((path / "x").read_text(), "y")

    def test_sigterm_unmounts(self):
        path = self.cluster.dir / "mnt" / "fg"
        path.mkdir(parents=True)
        p = subprocess.Popen([KUAYU, "mount", "logs", path, "--store", self.cluster.store, "--foreground"], stderr=subprocess.DEVNULL)
        for _ in range(200):
            if is_mounted(path):
                break
            time.sleep(0.05)
        (path / "x").write_text("y")
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(10), 0)
        self.assertFalse(is_mounted(path))


def find(o, key):
    """All values of this name, however deep."""
    for k, v in o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ():
        if k == key:
            yield v
        yield from find(v, key)


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as f:
            return f.read().split("\0")
    except OSError:
        return []


class Faults(unittest.TestCase):
    """Each acknowledged write is there afterwards; how long the writer stood still is printed."""

    def run_with(self, fault, network="loopback", seconds=2):
        """seconds: how long writes go on after the first that the fault was in the way of."""
        with VolumeCluster(network=network) as c:
            path = c.mount()
            stop, done, longest, failed = threading.Event(), [], [0.0], []

            def writer():
                fd = os.open(path / "f", os.O_RDWR | os.O_CREAT)
                i = 0
                while not stop.is_set():
                    start = time.monotonic()
                    try:
                        os.pwrite(fd, b"%016d" % i, i * 16)
                        os.fsync(fd)
                    except OSError as e:
                        failed.append(e)
                        break
                    longest[0] = max(longest[0], time.monotonic() - start)
                    done.append(i)
                    i += 1
                os.close(fd)
            t = threading.Thread(target=writer, daemon=True)
            t.start()
            wait_for("writes are acknowledged", lambda: failed or len(done) > 200, 30)
            before = len(done)
            fault(c, path)
            after = len(done)
            wait_for("writes go on", lambda: failed or len(done) > after + 20, 30, interval=0.01)
            time.sleep(seconds)
            stop.set()
            t.join(60)
            self.assertEqual(failed, [])
            self.assertGreater(len(done), before, "writes went on")
            reader = c.mount(domain=c.domains[1])  # "c" may be cut off
            data = (reader / "f").read_bytes()
            lost = [i for i in done if data[i * 16:i * 16 + 16] != b"%016d" % i]
            self.assertEqual(lost, [])
            return longest[0]

    @staticmethod
    def primary(c, path):
        """Of the file's group; the mount says nothing of it, the volume's command does."""
        out = json.loads(c.kuayu("volume", "where", f"{c.volume_name}:/f", "-o", "json").stdout)
        return next(x for x in find(out, "primary") if x in c.bricks)

    def test_primary_killed(self):
        pause = self.run_with(lambda c, path: c.kill(self.primary(c, path)))
        print(f"primary killed in the middle of writes: longest pause {pause * 1000:.0f} ms")

    def test_primary_stopped_and_continued(self):
        def fault(c, path):
            b = self.primary(c, path)
            c.stop(b)
            time.sleep(3)
            c.cont(b)
            c.wait_healed(60)
        pause = self.run_with(fault)
        print(f"primary stopped for 3 s: longest pause {pause * 1000:.0f} ms")

    def test_brick_cut_off(self):
        def fault(c, path):
            c.cut("c1")
            wait_for("the groups go on without it", lambda: not c.status()["in_sync"], 30)
        pause = self.run_with(fault, network="netns")
        print(f"a brick cut off: longest pause {pause * 1000:.0f} ms")


if __name__ == "__main__":
    unittest.main(verbosity=2)
