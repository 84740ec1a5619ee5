# SPDX-License-Identifier: Apache-2.0
"""Folders whose names are one mount's alone for a while (delegations): what two mounts see of them, and what dies when."""
import errno
import os
import re
import signal
import sys
import threading
import time
import unittest
import urllib.request

from lab.util import wait_for
from test.volume.cluster import TwoMountsTest, has_room

FILES = 300


def put(path, data):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    try:
        os.write(fd, data)
        os.utime(fd, ns=(1, 2_000_000_000))
    finally:
        os.close(fd)


class Delegated(TwoMountsTest):
    settings = {"brick_options": ["--metrics", "{address}:9110"]}

    def counted(self, what):
        """Sum of a brick metric over all bricks."""
        total = 0
        for brick in ("a1", "b1", "c1"):
            text = urllib.request.urlopen(f"http://{self.cluster.bricks[brick].address}:9110/metrics", timeout=5).read().decode()
            total += sum(float(v) for v in re.findall(rf"^kuayu_volume_{what}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", text, re.M))
        return total

    def delegated(self, folder):
        """Makes and removes names until they are answered here. Nothing is asserted: others may want the folder, too."""
        for i in range(6):
            put(folder / f".warm{i}", b"")
        time.sleep(0.05)
        for i in range(6):
            (folder / f".warm{i}").unlink()

    def test_closed_files_are_seen_by_the_other_mount(self):
        for i in range(FILES):
            put(self.da / f"f{i}", b"%d" % i * 100)
            if i % 37 == 36:
                self.assertEqual(sorted(os.listdir(self.db)), sorted(f"f{k}" for k in range(i + 1)))
                self.assertEqual((self.db / f"f{i}").read_bytes(), b"%d" % i * 100)
                self.assertEqual((self.db / f"f{i}").stat().st_mtime_ns, 2_000_000_000)

    def test_names_and_times_are_seen_at_once(self):
        for i in range(40):
            folder = self.da / str(i)
            folder.mkdir()
            for k in range(12):
                put(folder / f"f{k}", b"x")
            os.unlink(folder / "f3")
            os.utime(folder / "f4", ns=(5, 5_000_000_000 + i))
            seen = self.db / str(i)
            with self.assertRaises(FileNotFoundError):
                os.stat(seen / "f3")
            self.assertEqual(os.stat(seen / "f4").st_mtime_ns, 5_000_000_000 + i)
            self.assertEqual(len(os.listdir(seen)), 11)
            self.assertEqual(os.stat(seen / "f5").st_nlink, 1)

    def test_attributes_stay_as_they_were_answered(self):
        said = {}
        for i in range(60):
            fd = os.open(self.da / f"f{i}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o604)
            if i % 2:
                os.write(fd, b"12345")
            os.utime(fd, ns=(7_000 + i, 8_000 + i))
            said[i] = os.fstat(fd)
            os.close(fd)
        folder = os.stat(self.da)
        time.sleep(0.3)
        for i, was in said.items():
            for side in (self.da, self.db):
                now = os.stat(side / f"f{i}")
                for field in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_atime_ns", "st_ctime_ns"):
                    self.assertEqual(getattr(now, field), getattr(was, field), (i, side, field))
        self.assertEqual(os.stat(self.db).st_mtime_ns, folder.st_mtime_ns)

    def test_times_and_what_is_set_behind_them(self):
        """utimens, chown, chmod as tar has them: whatever goes along with what, all of it is there, in this order."""
        said = {}
        for i in range(60):
            name = f"{i // 10}/f{i}"
            if i % 10 == 0:
                (self.da / str(i // 10)).mkdir()
            fd = os.open(self.da / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            if i % 2:
                os.write(fd, b"12345")
            os.utime(fd, ns=(1_000 + i, 2_000 + i))
            if i % 3 == 0:
                os.utime(self.da / name, ns=(3_000 + i, 4_000 + i))
            if i % 4:
                os.fchown(fd, i % 5, 7)
            os.fchmod(fd, 0o4755 if i % 5 else 0o640)
            if i % 10 == 9:  # the folder is called back
                self.assertEqual(os.stat(self.db / name).st_mode, os.fstat(fd).st_mode)
            if i % 6 == 0:
                os.utime(fd, ns=(5_000 + i, 6_000 + i))
                os.write(fd, b"!")
            said[name] = os.fstat(fd)
            self.assertEqual(said[name].st_atime_ns, (5_000 if i % 6 == 0 else 3_000 if i % 3 == 0 else 1_000) + i)
            self.assertEqual(said[name].st_mode & 0o7777, 0o4755 if i % 5 else 0o640)
            os.close(fd)
        for name, was in said.items():
            for side in (self.da, self.db):
                now = os.stat(side / name)
                for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_atime_ns", "st_ctime_ns"):
                    self.assertEqual(getattr(now, field), getattr(was, field), (name, side, field))

    def test_only_one_makes_a_name(self):
        won = {0: set(), 1: set()}

        def make(who, folder):
            for i in range(400):
                try:
                    os.close(os.open(folder / f"n{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    won[who].add(i)
                except FileExistsError:
                    pass
        threads = [threading.Thread(target=make, args=(w, f)) for w, f in ((0, self.da), (1, self.db))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(won[0] & won[1], set())
        self.assertEqual(won[0] | won[1], set(range(400)))

    def test_only_one_removes_a_name(self):
        for i in range(300):
            put(self.da / f"n{i}", b"")
        gone = {0: set(), 1: set()}

        def remove(who, folder):
            for i in range(300):
                try:
                    os.unlink(folder / f"n{i}")
                    gone[who].add(i)
                except FileNotFoundError:
                    pass
        threads = [threading.Thread(target=remove, args=(w, f)) for w, f in ((0, self.da), (1, self.db))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(gone[0] & gone[1], set())
        self.assertEqual(gone[0] | gone[1], set(range(300)))
        self.assertEqual(os.listdir(self.db), [])

    def test_same_name_again_and_again(self):
        self.delegated(self.da)
        for i in range(200):
            put(self.da / "x", b"%d" % i)
            self.assertEqual((self.da / "x").read_bytes(), b"%d" % i)
            os.unlink(self.da / "x")
            self.assertFalse(os.path.exists(self.da / "x"))
        put(self.da / "x", b"last")
        self.assertEqual((self.db / "x").read_bytes(), b"last")

    def test_rename_link_and_rmdir_meet_what_is_on_its_way(self):
        for i in range(30):
            d, e = self.da / f"d{i}", self.da / f"e{i}"
            d.mkdir()
            e.mkdir()
            for k in range(8):
                put(d / f"f{k}", b"%d" % k)
            os.rename(d / "f7", e / "g")
            os.link(d / "f6", e / "h")
            os.rename(d / "f5", d / "f4")
            self.assertEqual((e / "g").read_bytes(), b"7")
            self.assertEqual(os.stat(d / "f6").st_nlink, 2)
            self.assertEqual((d / "f4").read_bytes(), b"5")
            with self.assertRaises(OSError) as caught:
                os.rmdir(d)
            self.assertEqual(caught.exception.errno, errno.ENOTEMPTY)
            for k in (0, 1, 2, 3, 4, 6):
                os.unlink(d / f"f{k}")
            os.rmdir(d)
            self.assertFalse(os.path.exists(self.db / f"d{i}"))
            self.assertEqual(sorted(os.listdir(self.db / f"e{i}")), ["g", "h"])

    def test_open_files_live_on(self):
        self.delegated(self.da)
        for i in range(20):
            path = self.da / f"f{i}"
            with open(path, "x+b", buffering=0) as f:
                f.write(b"before")
                os.unlink(path)
                f.write(b" and after")
                f.seek(0)
                self.assertEqual(f.read(), b"before and after")
                self.assertEqual(os.fstat(f.fileno()).st_nlink, 0)
        self.assertEqual(os.listdir(self.db), [])

    def test_empty_and_large_first_writes(self):
        self.delegated(self.da)
        sizes = [0, 1, 4096, 65536, 65537, 1 << 20, 3_000_001]
        for n in sizes:
            put(self.da / f"s{n}", b"z" * n)
        with open(self.da / "late", "xb", buffering=0) as f:
            f.seek(100_000)
            f.write(b"end")
        with open(self.da / "append", "ab", buffering=0) as f:
            f.write(b"one")
            f.write(b"two")
        for n in sizes:
            self.assertEqual((self.db / f"s{n}").read_bytes(), b"z" * n)
        self.assertEqual((self.db / "late").stat().st_size, 100_003)
        self.assertEqual((self.db / "append").read_bytes(), b"onetwo")

    def test_who_reads_beside_the_writer_sees_every_write(self):
        """Files made for writing only, and appended ones, go past the page cache: a reader here must not keep a page of before the write."""
        for flags, name in ((0, "made"), (os.O_APPEND, "appended")):
            path, stop, lost = self.da / name, threading.Event(), []
            w = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | flags)
            r = os.open(path, os.O_RDONLY)

            def look():
                fd = os.open(path, os.O_RDONLY)
                while not stop.is_set():
                    os.pread(fd, 8192, max(0, os.fstat(fd).st_size - 4096))
                os.close(fd)
            t = threading.Thread(target=look)
            t.start()
            for i in range(600):
                line = b"%07d\n" % i
                os.write(w, line)
                got = os.pread(r, 8, 8 * i)
                if got != line:
                    lost.append((i, got))
            stop.set()
            t.join()
            os.close(w)
            os.close(r)
            self.assertEqual(lost, [], name)

    def test_a_file_that_is_only_made_appears(self):
        self.delegated(self.da)
        fd = os.open(self.da / "made", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            self.assertTrue(os.path.exists(self.db / "made"))  # the other mount calls it back
            self.assertEqual(os.listdir(self.db), ["made"])
        finally:
            os.close(fd)

    def test_who_calls_fsync_waits(self):
        wait_for("folders of other tests are given back", lambda: self.counted("delegations") == 0, 20)
        for i in range(20):
            fd = os.open(self.da / f"f{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.write(fd, b"x")
            os.fsync(fd)
            os.close(fd)
            os.unlink(self.da / f"f{i}")
        self.assertEqual(self.counted("delegations"), 0)
        folder = self.da / "other"
        folder.mkdir()
        for i in range(20):
            put(folder / f"f{i}", b"x")
        self.assertGreater(self.counted("delegations"), 0)  # else the above says nothing

    def test_unmounting_sends_all(self):
        other = self.cluster.mount()
        folder = other / self.name
        for i in range(FILES):
            put(folder / f"f{i}", b"x")
        for i in range(0, FILES, 2):
            os.unlink(folder / f"f{i}")
        self.cluster.umount(other)
        self.assertEqual(sorted(os.listdir(self.db)), sorted(f"f{i}" for i in range(1, FILES, 2)))


class Faults(TwoMountsTest):
    def test_the_primary_is_killed(self):
        """What was answered is there, nothing twice, whoever is primary."""
        done, removed, stop = [], set(), threading.Event()

        def work():
            i = 0
            while not stop.is_set():
                if i % 20 == 19:
                    time.sleep(0.01)  # at full speed there are so many that reading them again takes minutes, and proves no more
                put(self.da / f"f{i}", b"%d" % i)
                done.append(i)
                if i % 3 == 2:
                    os.unlink(self.da / f"f{i - 1}")
                    removed.add(i - 1)
                i += 1
        t = threading.Thread(target=work)
        t.start()
        for brick in ("a1", "b1", "c1"):
            time.sleep(1)
            self.cluster.kill(brick)
            time.sleep(1.5)
            self.cluster.restart(brick)
            self.cluster.wait_healed(60)
        stop.set()
        t.join(40)
        self.assertFalse(t.is_alive())
        print(f"{len(done)} files made, {len(removed)} removed, three bricks killed")
        self.assertGreater(len(done), 100)
        left = sorted(f"f{i}" for i in set(done) - removed)
        self.assertEqual(sorted(os.listdir(self.db)), left)
        for name in left:
            self.assertEqual((self.db / name).read_bytes(), name[1:].encode())

    def test_the_mount_is_killed(self):
        """Files whose close returned are there; the others go on within seconds."""
        victim = self.cluster.mount()
        folder, done = victim / self.name, []
        for i in range(FILES):
            put(folder / f"f{i}", b"%d" % i)
            done.append(i)
        fd = os.open(folder / "half", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        self.cluster.kill_mount(victim)
        start = time.monotonic()
        names = os.listdir(self.db)
        took = time.monotonic() - start
        try:
            os.close(fd)
        except OSError:
            pass
        self.assertEqual(set(names) - {"half"}, {f"f{i}" for i in done})
        for i in done[::7]:
            self.assertEqual((self.db / f"f{i}").read_bytes(), b"%d" % i)
        self.assertLess(took, 10)  # 2 s until its session ends, and a slow machine
        put(self.db / "more", b"x")

    def test_a_mode_that_takes_away_waits(self):
        """Who has closed a file to others may put a secret into it: that holds when the mount dies at once. One that allows more is sent soon."""
        victim = self.cluster.mount()
        folder = victim / self.name
        for i in range(40):
            put(folder / f"f{i}", b"x")
        for i in range(20):
            os.chmod(folder / f"f{i}", 0o644)
        time.sleep(0.5)
        for i in range(40):
            os.chmod(folder / f"f{i}", 0o600)
        self.cluster.kill_mount(victim)
        for i in range(40):
            self.assertEqual(os.stat(self.db / f"f{i}").st_mode & 0o7777, 0o600)

    def test_a_mode_that_allows_more_is_sent(self):
        victim = self.cluster.mount()
        folder = victim / self.name
        for i in range(20):
            put(folder / f"f{i}", b"x")
            os.chmod(folder / f"f{i}", 0o644)
            self.assertEqual(os.stat(folder / f"f{i}").st_mode & 0o7777, 0o644)
        time.sleep(0.5)
        self.cluster.kill_mount(victim)
        for i in range(20):
            self.assertEqual(os.stat(self.db / f"f{i}").st_mode & 0o7777, 0o644)

    def test_times_that_nobody_waits_for_are_sent(self):
        victim = self.cluster.mount()
        folder = victim / self.name
        for i in range(20):
            put(folder / f"f{i}", b"x")
        fds = [os.open(folder / f"o{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY) for i in range(8)]
        for fd in fds:
            os.write(fd, b"x")
            os.utime(fd, ns=(1, 3_000_000_000))
        time.sleep(0.5)
        self.cluster.kill_mount(victim)
        for i in range(8):
            self.assertEqual(os.stat(self.db / f"o{i}").st_mtime_ns, 3_000_000_000)
        for fd in fds:
            try:
                os.close(fd)
            except OSError:
                pass

    def test_a_mount_that_stood_still_makes_no_name_again(self):
        """Its folder was taken from it meanwhile: judged by the clock, as its threads may not have noticed yet."""
        victim = self.cluster.mount()
        process = self.cluster.mounts[victim]
        for i in range(5):
            folder = victim / self.name / str(i)
            folder.mkdir()
            for k in range(6):
                put(folder / f"f{k}", b"x")
            process.signal(signal.SIGSTOP)
            try:
                os.close(os.open(self.db / str(i) / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            finally:
                process.signal(signal.SIGCONT)
            with self.assertRaises(FileExistsError):
                os.close(os.open(folder / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        self.cluster.umount(victim)

    def test_what_was_answered_is_not_done_after_others_had_the_folder(self):
        """A mount that stands still has answered a chmod and an unlink that it has not sent; when it goes on, another one has closed the file and written to it."""
        victim = self.cluster.mount()
        process = self.cluster.mounts[victim]
        folder, n = victim / self.name, 30
        for i in range(2 * n):
            put(folder / f"f{i}", b"x")
        time.sleep(0.1)
        for i in range(n):
            os.chmod(folder / f"f{i}", 0o666)
        for i in range(n, 2 * n):
            (folder / f"f{i}").unlink()
        process.signal(signal.SIGSTOP)
        try:
            left = set(os.listdir(self.db))
            for i in range(n):
                os.chmod(self.db / f"f{i}", 0o600)
            for name in left:
                (self.db / name).write_bytes(b"secret")
        finally:
            process.signal(signal.SIGCONT)
        print(f"{len(left) - n} of {n} removals not sent ", end="", file=sys.stderr)
        wait_for("it answers", lambda: len(os.listdir(folder)) == len(left), 20)
        time.sleep(1)
        for side in (folder, self.db):
            self.assertEqual(set(os.listdir(side)), left)
            for i in range(n):
                self.assertEqual(os.stat(side / f"f{i}").st_mode & 0o7777, 0o600)
            for name in left:
                self.assertEqual((side / name).read_bytes(), b"secret")
        self.cluster.umount(victim)

    def test_a_listing_from_before_says_nothing_old(self):
        """Entries of a listing that is under way come with attributes of when it was asked for: modes and times set meanwhile stay."""
        for i in range(900):
            put(self.da / f"f{i:04}", b"x")
        for turn in range(6):
            with os.scandir(self.da) as entries:
                seen = {next(entries).name for _ in range(5)}
                later = [f"f{i:04}" for i in range(900) if f"f{i:04}" not in seen][-300:]
                for name in later:
                    os.chmod(self.da / name, 0o640 | (0o007 if turn % 2 else 0o004))
                    os.utime(self.da / name, ns=(turn, 10 ** 9 * turn))
                seen |= {e.name for e in entries}
            self.assertEqual(len(seen), 900)
            for name in later:
                now = os.stat(self.da / name)
                self.assertEqual((now.st_mode & 0o7777, now.st_mtime_ns), (0o647 if turn % 2 else 0o644, 10 ** 9 * turn), name)
            for name in later:
                os.chmod(self.da / name, 0o640)


class Full(TwoMountsTest):
    settings = {"bricks": "image", "image_mib": 384}

    def test_a_full_volume_is_told(self):
        def full():
            try:
                for i in range(1000):
                    put(self.da / f"big{i}", bytes(1 << 20))
            except OSError as e:
                self.assertEqual(e.errno, errno.ENOSPC)
                return True
            return False
        self.assertTrue(full())
        names = set(os.listdir(self.db))
        failed = []
        for i in range(30):
            try:
                put(self.da / f"s{i}", bytes(65536))
            except OSError as e:
                self.assertEqual(e.errno, errno.ENOSPC)
                failed.append(i)
        self.assertTrue(failed)
        for i in range(30):
            path = self.db / f"s{i}"
            if i not in failed:
                self.assertEqual(path.read_bytes(), bytes(65536))
        for name in names:
            os.unlink(self.da / name)
        wait_for("there is room again", lambda: has_room(self.da, 1000), 30)
        self.assertEqual((self.db / "again").read_bytes(), b"x" * 1000)


if __name__ == "__main__":
    unittest.main()
