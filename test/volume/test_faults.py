# SPDX-License-Identifier: Apache-2.0
"""docs/volume.md, "Behaviour per fault", on real processes: one test a promise that no other test shows. Pauses are printed; their bounds are those of
a failover that works (10 s), not of a benchmark."""
import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import threading
import time
import unittest

from lab.util import wait_for
from test.volume.cluster import VolumeCluster, shim

PAUSE_S = 10.0


class Writer(threading.Thread):
    """Appends numbered records to a file, one write and fsync each; how long the longest took; errors end it."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.done, self.longest, self.error, self.stop, self.since = path, 0, 0.0, None, threading.Event(), time.monotonic()
        self.fd = os.open(path, os.O_CREAT | os.O_WRONLY)

    def run(self):
        while not self.stop.is_set():
            self.since = time.monotonic()
            try:
                os.pwrite(self.fd, b"%015d\n" % self.done, self.done * 16)
                os.fsync(self.fd)
            except OSError as e:
                self.error = e
                return
            self.longest = max(self.longest, time.monotonic() - self.since)
            self.done += 1

    def waits(self, seconds):
        """True when nothing was acknowledged for so long."""
        done = self.done
        time.sleep(seconds)
        return self.done == done

    def goes_on(self, seconds=4 * PAUSE_S):
        """Waits; how long writes took is in `longest`, for the test to judge."""
        done = self.done
        wait_for("writes go on", lambda: self.error or self.done > done + 5, seconds, interval=0.02)

    def finish(self, test, *mounts):
        self.stop.set()
        self.join(40)
        test.assertFalse(self.is_alive(), "the writer hangs")
        test.assertIsNone(self.error)
        os.close(self.fd)
        for m in mounts:
            data = (m / self.path.name).read_bytes()
            test.assertGreaterEqual(len(data), self.done * 16)
            test.assertEqual([i for i in range(self.done) if data[i * 16:i * 16 + 16] != b"%015d\n" % i], [])
        return self.longest


def primary_of(c, name):
    groups = json.loads(c.kuayu("volume", "where", f"{c.volume_name}:/{name}", "-o", "json").stdout)

    def find(o):
        if isinstance(o, dict):
            if o.get("primary") in c.bricks:
                return o["primary"]
            o = list(o.values())
        return next((x for v in o if isinstance(v, (dict, list)) and (x := find(v))), None) if isinstance(o, list) else None
    return find(groups)


class Processes(unittest.TestCase):
    def test_failover_pauses(self):
        """A backup, then the primary, killed and silent: writes go on within seconds, all that was acknowledged is there."""
        with VolumeCluster() as c:
            a, b = c.mount(), c.mount(domain="b")
            for who in ("backup", "primary"):
                for how in ("killed", "silent"):
                    w = Writer(a / f"{who}-{how}")
                    w.start()
                    w.goes_on()
                    primary = primary_of(c, w.path.name)
                    brick = primary if who == "primary" else next(n for n in sorted(c.bricks) if n != primary)
                    w.longest = 0.0
                    c.kill(brick) if how == "killed" else c.stop(brick)
                    w.goes_on()
                    pause = w.longest
                    c.restart(brick) if how == "killed" else c.cont(brick)
                    c.wait_healed(60)
                    w.finish(self, a, b)
                    print(f"{who} {how}: longest write {pause * 1000:.0f} ms")
                    self.assertLess(pause, PAUSE_S)
                    if who == "primary":
                        self.assertNotEqual(primary_of(c, w.path.name), None)

    def test_two_of_three_lost(self):
        """All that was acknowledged is readable from the last copy; changes wait and say why; with write-quorum 1 they go on, and all is in sync when the others return."""
        with VolumeCluster() as c:
            a = c.mount()
            kept = {f"kept{i}": os.urandom(50_000 + i) for i in range(20)}
            for name, data in kept.items():
                (a / name).write_bytes(data)
            w = Writer(a / "w")
            w.start()
            w.goes_on()
            c.kill("b1")
            c.kill("c1")
            wait_for("the rest is below the write quorum", lambda: time.monotonic() - w.since > 2, 20)
            self.assertTrue(w.waits(2), "a write was acknowledged below the write quorum")
            cold = c.mount(domain="c")
            for name, data in kept.items():
                self.assertEqual((cold / name).read_bytes(), data)
            self.assertGreaterEqual((cold / "w").stat().st_size, w.done * 16)
            status = c.status()
            self.assertFalse(status["in_sync"])
            self.assertEqual([x["name"] for x in status["bricks"] if x["online"]], ["a1"])
            wait_for("the mount's log says why it waits", lambda: "write quorum" in c.log("mount1"), 10)
            c.volume("set", "write-quorum", "1")
            w.goes_on(30)
            c.restart("b1")
            c.restart("c1")
            c.wait_healed(60)
            c.volume("reset", "write-quorum")
            w.finish(self, a, cold)
            for name, data in kept.items():
                self.assertEqual((cold / name).read_bytes(), data)

    def test_all_copies_of_a_block_bad(self):
        """Bit rot of the same block on all three: EIO there, the rest can be read, writing it anew mends it. Nothing wrong is ever served."""
        with VolumeCluster() as c:
            a = c.mount()
            data = os.urandom(1 << 20)
            (a / "f").write_bytes(data)
            with open(a / "f", "rb") as f:
                os.fsync(f.fileno())
            for b in c.bricks.values():
                slices = [p for p in b.data.glob("*/data/*/*/*") if p.stat().st_size >= len(data)]
                self.assertEqual(len(slices), 1)
                with open(slices[0], "r+b") as f:
                    f.seek(300_000)
                    f.write(bytes(x ^ 0x55 for x in data[300_000:300_010]))
            c.remount(a)
            bad = 300_000 // 4096 * 4096
            fd = os.open(a / "f", os.O_RDWR | os.O_DIRECT)
            try:
                with self.assertRaises(OSError) as e:
                    os.preadv(fd, [page()], bad)
                self.assertEqual(e.exception.errno, errno.EIO)
                for at in (0, bad - 4096, bad + 4096, len(data) - 4096):
                    got = page()
                    self.assertEqual(os.preadv(fd, [got], at), 4096)
                    self.assertEqual(got[:], data[at:at + 4096])
                again = page()
                again[:] = b"\x77" * 4096
                os.pwritev(fd, [again], bad)
                os.fsync(fd)
            finally:
                os.close(fd)
            c.remount(a)
            self.assertEqual((a / "f").read_bytes(), data[:bad] + b"\x77" * 4096 + data[bad + 4096:])


def lock_now(fd):
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def page():
    return mmap.mmap(-1, 4096)


class Links(unittest.TestCase):
    def test_one_direction_cut(self):
        """A brick that is heard but does not hear, and one that hears but is not heard: writes go on, all copies are in sync when the link is back."""
        with VolumeCluster(network="netns") as c:
            a, b = c.mount(node=c.client_node("a")), c.mount(node=c.client_node("b"))
            w = Writer(a / "w")
            w.start()
            w.goes_on()
            for brick in sorted(c.bricks):
                others = [n for n in c.bricks if n != brick]
                for cuts in ([(brick, others)], [(o, [brick]) for o in others]):
                    w.longest = 0.0
                    for deaf, to in cuts:
                        c.network.deafen(deaf, *to)
                    w.goes_on(20)
                    time.sleep(1.5)
                    w.goes_on(20)
                    for deaf, _ in cuts:
                        c.network.undeafen(deaf)
                    c.wait_healed(60)
                    print(f"{brick} {'hears nobody' if len(cuts) == 1 else 'is heard by nobody'}: longest write {w.longest * 1000:.0f} ms")
            w.finish(self, a, b)

    def test_cut_off_with_its_primary(self):
        """A client and the primary are cut off together: nothing is acknowledged there, the others elect and go on, and what comes back does not write over newer data
        that was read, nor is anything old ever read."""
        with VolumeCluster(network="netns") as c:
            client = c.client_node("a")
            a, b = c.mount(node=client), c.mount(node=c.client_node("b"))
            (a / "f").write_bytes(b"1" * 4096)
            primary = primary_of(c, "f")
            (b / "f").read_bytes()
            others = [n for n in [*c.bricks, "client2", "etcd"] if n != primary]
            for node in (primary, client):  # the two hear each other only
                c.network.deafen(node, *others)
            for node in others:
                c.network.deafen(node, primary, client)
            ends = {}

            def late():
                try:
                    fd = os.open(a / "f", os.O_WRONLY)
                    ends["n"] = os.pwrite(fd, b"2" * 4096, 0)
                    ends["at"] = time.monotonic()
                    os.close(fd)
                except OSError as e:
                    ends["error"] = e
            t = threading.Thread(target=late, daemon=True)
            t.start()
            start = time.monotonic()
            with open(b / "f", "r+b", buffering=0) as f:
                f.write(b"3" * 4096)
            pause = time.monotonic() - start
            print(f"the other side wrote after {pause * 1000:.0f} ms")
            self.assertLess(pause, PAUSE_S)
            time.sleep(2)
            self.assertEqual(ends, {}, "a write was acknowledged by a primary that is cut off")
            self.assertEqual((b / "f").read_bytes(), b"3" * 4096)
            joined = time.monotonic()
            for node in (primary, client, *others):
                c.network.undeafen(node)
            got = (a / "f").read_bytes()
            self.assertIn(got[:1], b"23", "a stale read after the link was back")
            self.assertEqual(got, got[:1] * 4096)
            t.join(40)
            self.assertFalse(t.is_alive())
            if "at" in ends:  # tried again under the new epoch, behind what was written meanwhile
                self.assertGreater(ends["at"], joined)
            c.wait_healed(60)
            want = b"2" if "at" in ends else (b / "f").read_bytes()[:1]
            self.assertIn(want, b"23")
            for m in (a, b):
                self.assertEqual((m / "f").read_bytes(), want * 4096)

    def test_client_cut_off(self):
        """Its leases end: while it is cut off it does not read what it kept, others go on at once, and its locks are given to others. Back again it sees what is new."""
        with VolumeCluster(network="netns") as c:
            node = c.client_node("a")
            a, b = c.mount(node=node), c.mount(node=c.client_node("b"))
            (a / "f").write_bytes(b"old" * 1000)
            self.assertEqual((a / "f").read_bytes(), b"old" * 1000)
            locks = [os.open(m / "f", os.O_RDONLY) for m in (a, b)]
            fcntl.flock(locks[0], fcntl.LOCK_EX)
            self.assertFalse(lock_now(locks[1]))
            c.cut(node)
            start = time.monotonic()
            (b / "f").write_bytes(b"new" * 1000)
            print(f"another client wrote {(time.monotonic() - start) * 1000:.0f} ms after the cut")
            self.assertLess(time.monotonic() - start, PAUSE_S)
            seen = []

            def read():
                try:
                    seen.append((a / "f").read_bytes())
                except OSError as e:
                    seen.append(e)
            t = threading.Thread(target=read, daemon=True)
            t.start()
            wait_for("the lock of the one that is cut off is free", lambda: lock_now(locks[1]), 10)
            t.join(3)
            self.assertNotIn(b"old" * 1000, seen, "old data under a lease that has ended")
            c.join(node)
            t.join(40)
            self.assertFalse(t.is_alive())
            self.assertEqual((a / "f").read_bytes(), b"new" * 1000)
            self.assertTrue(isinstance(seen[0], OSError) or seen[0] == b"new" * 1000)
            for fd in locks:
                os.close(fd)


class Disks(unittest.TestCase):
    def setUp(self):
        self.cluster = VolumeCluster(bricks="image", image_mib=500)
        self.addCleanup(self.cluster.close)
        self.a = self.cluster.mount()

    def faulty(self, brick):
        return next(x for x in self.cluster.status()["bricks"] if x["name"] == brick)

    def each(self, w):
        """The primary of what w writes, then another brick; w goes on and its pauses count anew before each."""
        for brick in (primary_of(self.cluster, "w"), next(n for n in sorted(self.cluster.bricks) if n != primary_of(self.cluster, "w"))):
            w.goes_on()
            w.longest = 0.0
            yield brick

    def test_eio(self):
        """Every access to one brick's disk fails: it leaves the in-sync sets and the status says why; the others go on. Mended, it gets what it missed."""
        c = self.cluster
        data = os.urandom(2 << 20)
        (self.a / "before").write_bytes(data)
        w = Writer(self.a / "w")
        w.start()
        for brick in self.each(w):
            c.break_disk(brick)
            wait_for(f"{brick} says that its disk has failed", lambda: self.faulty(brick).get("error"), 20)
            w.goes_on()
            self.assertLess(w.longest, PAUSE_S)
            self.assertFalse(c.status()["in_sync"])
            (self.a / f"with {brick} broken").write_bytes(data)
            print(f"{brick}: {self.faulty(brick)['error']}; longest write {w.longest * 1000:.0f} ms")
            c.mend_disk(brick)
            c.wait_healed(60)
            self.assertFalse(self.faulty(brick).get("error"))
        cold = c.mount(domain="c")
        w.finish(self, self.a, cold)
        for f in cold.iterdir():
            if f.name != "w":
                self.assertEqual(hashlib.md5(f.read_bytes()).digest(), hashlib.md5(data).digest(), f.name)

    def test_disk_hangs(self):
        """Writes to one brick's disk do not return: the others go on without it, and it catches up when they do."""
        c = self.cluster
        w = Writer(self.a / "w")
        w.start()
        for brick in self.each(w):
            c.freeze_disk(brick)
            try:
                w.goes_on()
                time.sleep(2)
                w.goes_on()
                self.assertLess(w.longest, PAUSE_S)
                print(f"the disk of {brick} hangs: longest write {w.longest * 1000:.0f} ms")
            finally:
                c.thaw_disk(brick)
            c.wait_healed(60)
        w.finish(self, self.a, c.mount(domain="b"))


# Under a brick: the sectors "INODE OFFSET" named in $KUAYU_BAD_SECTORS cannot be read, nor written in part. One that is written whole is good again, as a disk
# puts another in its place.
SECTORS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static long bad(int fd, off_t off, size_t len, int write)
{
	char line[64];
	FILE *f = fopen(getenv("KUAYU_BAD_SECTORS"), "r+");
	struct stat st;
	long r = 0, at;
	if (!f)
		return 0;
	while (at = ftell(f), fgets(line, sizeof(line), f)) {
		unsigned long long ino, sector;
		if (sscanf(line, "%llu %llu", &ino, &sector) != 2 || fstat(fd, &st) < 0 || st.st_ino != ino ||
		    (off_t)sector >= off + (off_t)len || (off_t)sector + 4096 <= off)
			continue;
		if (write && off <= (off_t)sector && off + (off_t)len >= (off_t)sector + 4096) {
			fseek(f, at, SEEK_SET);
			fputc('#', f);
			fseek(f, at, SEEK_SET);
			fgets(line, sizeof(line), f);
		} else {
			r = -1;
		}
	}
	fclose(f);
	if (r < 0)
		errno = EIO;
	return r;
}
ssize_t pread64(int fd, void *p, size_t len, off_t off)
{
	ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");
	return bad(fd, off, len, 0) < 0 ? -1 : real(fd, p, len, off);
}
ssize_t pwrite64(int fd, const void *p, size_t len, off_t off)
{
	ssize_t (*real)(int, const void *, size_t, off_t) = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
	return bad(fd, off, len, 1) < 0 ? -1 : real(fd, p, len, off);
}
"""


def shim_bricks(c, source, env_of):
    """Starts the cluster's bricks anew, one after the other, with a C source in front of the C library; env_of(name): what it reads of its environment."""
    library = shim(c.dir / "shim", source)
    for name, b in c.bricks.items():
        b.env = {**(b.env or {}), "LD_PRELOAD": library, **env_of(name)}
        c.kill(name)
        c.restart(name)
        c.wait_healed()


class Sectors(unittest.TestCase):
    """A disk with single sectors that cannot be read: blocks that are bad, not a disk that is."""
    SIZE = 4 << 20

    def setUp(self):
        c = self.cluster = VolumeCluster()
        self.addCleanup(c.close)
        self.data, self.path = bytearray(os.urandom(self.SIZE)), c.mount() / "file"
        self.path.write_bytes(self.data)
        os.sync()
        c.wait_healed()
        self.list = {name: c.dir / f"{name}.sectors" for name in c.bricks}
        for path in self.list.values():
            path.touch()
        shim_bricks(c, SECTORS, lambda name: {"KUAYU_BAD_SECTORS": str(self.list[name])})
        self.primary = primary_of(c, "file")
        self.backup = next(n for n in sorted(c.bricks) if n != self.primary)

    def spoil(self, brick, *sectors):
        file = next(p for p in self.cluster.bricks[brick].data.rglob("data/**/*") if p.is_file() and p.stat().st_size >= self.SIZE)
        with open(self.list[brick], "a") as f:
            f.writelines(f"{file.stat().st_ino} {s * 4096}\n" for s in sectors)

    def mended(self, brick):
        lines = self.list[brick].read_text().splitlines()
        return lines and all(line.startswith("#") for line in lines)

    def same_everywhere(self):
        c = self.cluster
        self.assertEqual(c.mount().joinpath("file").read_bytes(), self.data)
        c.wait_healed()
        self.assertTrue(all(not b.get("error") for b in c.status()["bricks"]), c.status()["bricks"])

    def test_read(self):
        """Neighbours and single ones, at the primary: readers get the bytes, the sectors are written anew."""
        self.spoil(self.primary, 0, 100, 101, 555, 1023)
        self.same_everywhere()
        wait_for("the sectors are written anew", lambda: self.mended(self.primary), 10)
        self.same_everywhere()

    def test_scrub(self):
        self.spoil(self.backup, 3, 300)
        self.cluster.volume("scrub")
        wait_for("the sectors are written anew", lambda: self.mended(self.backup), 30)
        self.same_everywhere()

    def test_written_in_part(self):
        """Where a block that cannot be read is changed in part: the write is not lost, whether primary or backup has it."""
        for brick in (self.primary, self.backup):
            for sector in (7, 8, 700):
                with self.subTest(brick=brick, sector=sector):
                    self.spoil(brick, sector)
                    with open(self.path, "r+b", buffering=0) as f:
                        f.seek(sector * 4096 + 1000)
                        f.write(b"changed in part")
                        os.fsync(f.fileno())
                    self.data[sector * 4096 + 1000:sector * 4096 + 1015] = b"changed in part"
                    self.same_everywhere()
            wait_for("the sectors are written anew", lambda: self.mended(brick), 30)

    def test_met_at_the_start(self):
        """A sector went bad under what the log has to write again: the brick starts all the same."""
        c = self.cluster
        for unsure in (False, True):
            with open(self.path, "r+b", buffering=0) as f:
                for sector in (20, 21, 22):
                    f.seek(sector * 4096 + 100)
                    f.write(b"before the end")
                    self.data[sector * 4096 + 100:sector * 4096 + 114] = b"before the end"
            c.kill(self.backup)
            if unsure:
                shutil.rmtree(c.bricks[self.backup].run_dir)
            self.spoil(self.backup, 20, 22)
            c.restart(self.backup)
            self.same_everywhere()
            c.volume("scrub")
            wait_for("the sectors are written anew", lambda: self.mended(self.backup), 30)


# Under a brick: each write and each flush takes as many milliseconds more as $KUAYU_SLOW.write and $KUAYU_SLOW.flush say.
SLOW = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void nap(const char *what)
{
	char path[4096];
	long ms = 0;
	FILE *f;
	snprintf(path, sizeof(path), "%s.%s", getenv("KUAYU_SLOW"), what);
	f = fopen(path, "r");
	if (f && fscanf(f, "%ld", &ms) == 1)
		usleep((unsigned)ms * 1000);
	if (f)
		fclose(f);
}
ssize_t pwrite64(int fd, const void *p, size_t len, off_t off)
{
	nap("write");
	return ((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, p, len, off);
}
int fdatasync(int fd)
{
	nap("flush");
	return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


class SlowDisk(unittest.TestCase):
    def setUp(self):
        c = self.cluster = VolumeCluster()
        self.addCleanup(c.close)
        shim_bricks(c, SLOW, lambda name: {"KUAYU_SLOW": str(c.dir / name)})
        self.mnt = c.mount()
        self.writer = Writer(self.mnt / "w")
        self.writer.start()
        self.writer.goes_on()
        self.primary = primary_of(c, "w")
        self.backup = next(n for n in sorted(c.bricks) if n != self.primary)

    def slow(self, brick, what, ms):
        (self.cluster.dir / f"{brick}.{what}").write_text(str(ms))

    def flush_us(self):
        return {b["name"]: b["sync_latency_us"]["p99"] for b in self.cluster.status()["bricks"]}

    def test_slow_flushes(self):
        """fsync waits for the slowest copy; all stay in sync, and the status says whose disk it is."""
        c = self.cluster
        for brick in (self.primary, self.backup):
            with self.subTest(brick=brick):
                self.slow(brick, "flush", 150)
                wait_for(f"the status shows that flushes of {brick} are slow", lambda: self.flush_us()[brick] > 100_000, 20)
                self.assertTrue(c.status()["in_sync"])
                self.assertIn("FLUSH P99", c.volume("status"))
                self.writer.goes_on()
                self.slow(brick, "flush", 0)
                wait_for("flushes are quick again", lambda: self.flush_us()[brick] < 100_000, 60)
        self.assertLess(self.writer.finish(self, self.mnt), PAUSE_S)

    def test_writes_that_take_longer_than_the_suspicion(self):
        """A brick that does not get its writes done leaves the sets, and the others go on at their speed; it comes back when its disk is well."""
        c = self.cluster
        for brick in (self.backup, self.primary):
            with self.subTest(brick=brick):
                self.writer.longest = 0.0
                self.slow(brick, "write", 700)
                wait_for(f"{brick} is out", lambda: not c.status()["in_sync"], 20)
                done = self.writer.done
                self.writer.goes_on()
                wait_for("writes go on quickly", lambda: self.writer.done > done + 200, 20)
                self.assertNotEqual(primary_of(c, "w"), brick)
                self.assertLess(self.writer.longest, PAUSE_S)
                self.slow(brick, "write", 0)
                c.wait_healed(60)
        self.writer.finish(self, self.mnt)


if __name__ == "__main__":
    unittest.main()
