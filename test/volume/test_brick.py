# SPDX-License-Identifier: Apache-2.0
"""Bricks as processes: bytes that are no frames, slow and greedy clients, and what becomes of a volume's data when bricks are killed,
stopped, emptied, run full or lose power while a program writes."""
import errno
import json
import os
import random
import struct
import threading
import time
import unittest
import urllib.request

from lab.util import wait_for
from test.volume import proto
from test.volume.cluster import VolumeCluster, free_port, has_room

BLOCK = 4096


class Writer(threading.Thread):
    """Writes blocks with a version in them and reads some back at once; what was written is known in self.versions."""

    def __init__(self, path, blocks=128, fsync=False, seed=1):
        super().__init__(daemon=True)
        self.path, self.blocks, self.fsync, self.random = path, blocks, fsync, random.Random(seed)
        self.versions, self.synced, self.stop_now, self.wrong, self.error, self.worst, self.writes = {}, {}, False, [], None, 0, 0

    def block(self, i, version):
        return struct.pack("<QQ", i, version) * (BLOCK // 16)

    def run(self):
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
            while not self.stop_now:
                i = self.random.randrange(self.blocks)
                version = self.versions.get(i, 0) + 1
                start = time.monotonic()
                os.pwrite(fd, self.block(i, version), i * BLOCK)
                if self.fsync:
                    os.fsync(fd)
                self.worst = max(self.worst, time.monotonic() - start)
                self.versions[i] = version
                self.writes += 1
                k = self.random.choice(list(self.versions))
                if os.pread(fd, BLOCK, k * BLOCK) != self.block(k, self.versions[k]):
                    self.wrong.append(k)
            os.close(fd)
        except OSError as e:
            self.error = e

    def finish(self):
        self.stop_now = True
        self.join(60)
        return self

    def check(self, test, path=None):
        """Everything is there, read from `path` (another mount)."""
        test.assertIsNone(self.error)
        test.assertEqual(self.wrong, [])
        test.assertGreater(self.writes, 10)
        with open(path or self.path, "rb") as f:
            for i, version in self.versions.items():
                f.seek(i * BLOCK)
                test.assertEqual(f.read(BLOCK), self.block(i, version), f"block {i}")


class Strangers(unittest.TestCase):
    """What comes over the port."""

    @classmethod
    def setUpClass(cls):
        cls.metrics = free_port()
        cls.cluster = VolumeCluster(domains=("a",), replica=1, options=["--without-copies"],
                                    brick_options=["--metrics", f"127.0.0.1:{cls.metrics}"])
        cls.brick = cls.cluster.bricks["a1"]

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def alive(self):
        self.brick.check()
        with proto.Wire(self.brick.listen) as w:
            status, answer = w.admin("status", volume="logs")
            self.assertEqual(status, 0)
            self.assertEqual(answer["state"], "open")
            return answer

    def throw(self, data):
        with proto.Wire(self.brick.listen, hello=False) as w:
            try:
                w.s.sendall(data)
                w.s.shutdown(1)
                w.closed()
            except OSError:
                pass

    def test_garbage(self):
        r = random.Random(7)
        hello = struct.pack("<IB", 1, proto.ADMINISTRATOR) + bytes(32) + proto.text("x") + proto.text("a")
        first = proto.head(proto.HELLO, hello) + hello
        pieces = [b"", b"GET / HTTP/1.1\r\n\r\n" * 10, r.randbytes(100_000), bytes(100_000), proto.head(proto.HELLO, bytes(100)) + bytes(100),
                  proto.head(proto.OP, bytes(48)) + bytes(48), first[:30], first + r.randbytes(4096), first + first]
        for kind in range(0, 12):
            for size in (0, 1, 23, 24, 64, 300):
                body = r.randbytes(size)
                pieces.append(first + proto.head(kind, body) + body)
        for data in pieces:
            self.throw(data)
        self.alive()

    def test_flipped_bits(self):
        """Frames of every role with one bit changed: refused or answered, never fatal."""
        uuid = self.uuid()
        r = random.Random(11)
        for role in range(1, 6):
            hello = struct.pack("<IB", 1, role) + uuid + struct.pack("<QQ", 5, 0) + proto.text("zz") + proto.text("a")
            frames = proto.head(proto.HELLO, hello) + hello
            volume = proto.fnv64(uuid) & 0xFFFFFFFF
            for kind in range(2, 11):
                body = r.randbytes(r.choice([0, 16, 24, 33, 120, 184]))
                frames += proto.head(kind, body, volume=volume) + body
            for _ in range(40):
                data = bytearray(frames)
                data[r.randrange(len(data))] ^= 1 << r.randrange(8)
                self.throw(data)
        self.alive()

    def uuid(self):
        info = json.loads(self.cluster.volume("info", "-o", "json"))
        return bytes.fromhex((info.get("uuid") or info["map"]["uuid"]))

    def test_too_long(self):
        with proto.Wire(self.brick.listen) as w:
            w.s.sendall(proto.HEAD.pack(proto.MAGIC, proto.ADMIN, 0, (4 << 20) + 1, 0, 1, 0, 0, 0, 0, 0, 0))
            self.assertTrue(w.closed())
        with proto.Wire(self.brick.listen, hello=False) as w:  # before HELLO even less
            w.s.sendall(proto.HEAD.pack(proto.MAGIC, proto.HELLO, 0, 60_000, 0, 1, 0, 0, 0, 0, 0, 0))
            self.assertTrue(w.closed())
        self.alive()

    def test_silent(self):
        """Who does not say HELLO is closed after a while; who said it may be silent."""
        with proto.Wire(self.brick.listen) as quiet, proto.Wire(self.brick.listen, hello=False, timeout=20) as silent:
            self.assertTrue(silent.closed())
            self.assertEqual(quiet.admin("status", volume="logs")[0], 0)

    def test_slow_reader(self):
        """A client that asks and does not take the answers: the others do not notice, and its answers are bounded."""
        with proto.Wire(self.brick.listen, receive_buffer=4096, timeout=5) as slow:
            body = json.dumps({"verb": "status", "volume": "logs"}).encode()
            frame = proto.head(proto.ADMIN, body) + body
            try:
                for _ in range(200):
                    slow.s.sendall(frame * 100)
                    self.alive() if random.random() < 0.02 else None
            except OSError:
                pass
            self.alive()

    def test_unknown_volume(self):
        with proto.Wire(self.brick.listen, role=proto.CLIENT, volume=bytes(range(16))) as w:
            self.assertEqual(w.hello[2], -errno.ENODEV)
        with proto.Wire(self.brick.listen) as w:
            status, answer = w.admin("status", volume="nothing")
            self.assertEqual(status, -errno.ENODEV)
            self.assertIn("error", answer)
            status, _ = w.admin("dance", volume="logs")
            self.assertEqual(status, -errno.EINVAL)

    def test_metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics") as f:
            rows = dict(line.rsplit(" ", 1) for line in f.read().decode().splitlines() if not line.startswith("#"))
        self.assertEqual(float(rows['kuayu_volume_up{volume="logs"}']), 1)
        self.assertGreater(float(rows['kuayu_volume_groups_primary{volume="logs"}']), 0)
        self.assertEqual(float(rows['kuayu_volume_copies_missing{volume="logs"}']), 0)

    def operations(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics") as f:
            rows = dict(line.rsplit(" ", 1) for line in f.read().decode().splitlines() if not line.startswith("#"))
        return int(float(rows["kuayu_volume_operations_total"]))

    def test_questions_of_names(self):
        """What a changed folder's attributes are is told by the answer, and a new folder's with its (empty) listing: nothing is asked for again.
        Without delegations, which are asked for, too."""
        mnt = self.cluster.mount(options=("--no-delegations",))
        self.addCleanup(self.cluster.umount, mnt)
        top = mnt / "names"
        top.mkdir()
        os.listdir(top)
        for i in range(10):
            os.mknod(top / f"f{i}")
        before = self.operations()
        for i in range(10):
            os.rename(top / f"f{i}", top / f"g{i}")
            self.assertEqual((top / f"g{i}").stat().st_nlink, 1)
            top.stat()
        self.assertEqual(self.operations() - before, 10)
        before = self.operations()
        for i in range(10):
            os.mkdir(top / f"d{i}")
            os.mknod(top / f"d{i}" / "f")
            self.assertEqual(top.stat().st_nlink, 3 + i)
        self.assertLessEqual(self.operations() - before, 30)  # each: mkdir, its listing, the file

    def test_an_fsync_that_is_foreseen(self):
        """A program that calls fsync behind each nth write: the write carries it, and the fsync asks no brick unless something changed."""
        mnt = self.cluster.mount()
        self.addCleanup(self.cluster.umount, mnt)
        for n, flags in ((1, 0), (3, 0), (1, os.O_DSYNC)):
            fd = os.open(mnt / f"f{n}{flags}", os.O_RDWR | os.O_CREAT | flags)

            def rounds(times, between=lambda: None):
                before = self.operations()
                for i in range(times):
                    for k in range(n):
                        os.pwrite(fd, b"x" * 4096, (i * n + k) * 4096)
                    between()
                    if not flags:
                        os.fsync(fd)
                return self.operations() - before

            self.assertGreaterEqual(rounds(4), 4 * n)
            self.assertLess(rounds(20), 20 * n + 4)
            if not flags:
                self.assertGreaterEqual(rounds(10, lambda: os.fchmod(fd, 0o640)), 10 * (n + 2))
                os.pwrite(fd, b"y" * 4096, 0)
                os.pwrite(fd, b"y" * 4096, 0)
                before = self.operations()
                os.fsync(fd)
                self.assertGreater(self.operations(), before)
            os.close(fd)


class Faults(unittest.TestCase):
    """Three bricks, three copies; a writer on one mount, a reader on another."""

    def setUp(self):
        self.cluster = VolumeCluster()
        self.addCleanup(self.cluster.close)
        self.a, self.b = self.cluster.mount(), self.cluster.mount(domain="b")

    def during(self, *faults, fsync=False, settle=1.0):
        """Writers run while the faults happen, `settle` seconds after each but the last."""
        writers = [Writer(self.a / f"w{i}", fsync=fsync, seed=i) for i in range(3)]
        for w in writers:
            w.start()
        wait_for("all write", lambda: all(w.writes > 10 for w in writers), 30)
        for i, fault in enumerate(faults):
            time.sleep(settle if i else 0.2)
            fault()
        self.cluster.wait_healed(60)
        for w in writers:
            w.finish()
        for i, w in enumerate(writers):
            w.check(self, self.b / f"w{i}")
        return writers

    def test_each_killed(self):
        c = self.cluster
        for name in c.bricks:
            self.during(lambda: c.kill(name), lambda: c.restart(name))
        self.assertEqual([n for n in c.bricks if "epoch" not in c.log(n)], [])

    def test_each_shut(self):
        """An orderly stop hands over: status 0, no data lost."""
        c = self.cluster
        for name in c.bricks:
            self.during(lambda: self.assertEqual(c.shut(name), 0), lambda: c.restart(name), fsync=True)

    def test_stopped(self):
        """SIGSTOP: silent, then back with old views; it must not serve what it missed."""
        c = self.cluster
        for name in ("a1", "b1"):
            self.during(lambda: c.stop(name), lambda: time.sleep(2), lambda: c.cont(name))

    def test_clients_killed_in_large_writes(self):
        """Clients die at any point of 1 MiB writes, whose bytes are relayed before they are whole: no link breaks, nothing half is kept."""
        c, r = self.cluster, random.Random(3)
        path = c.mount(domain="b")
        pattern = [bytes([i]) * (1 << 20) for i in range(1, 9)]
        for _ in range(8):
            fd = os.open(path / "large", os.O_RDWR | os.O_CREAT)
            self.overwritten = 0
            writer = threading.Thread(target=self.overwrite, args=(fd, pattern), daemon=True)
            writer.start()
            wait_for("it writes", lambda: self.overwritten > 3, 20, interval=0.001)
            time.sleep(r.random() * 0.1)
            c.kill_mount(path)
            writer.join(20)
            self.assertFalse(writer.is_alive())
            c.mounts[path].start()
            c.wait_mounted(path)
        with open(self.a / "large", "rb") as f:
            while data := f.read(1 << 20):
                self.assertEqual(data, data[:1] * len(data), "a write is there whole or not at all")
        c.wait_healed(10)
        early = 0
        for b in c.bricks.values():
            with proto.Wire(b.listen) as w:
                early += w.admin("status", volume="logs")[1]["early"]
        self.assertGreater(early, 10)  # members did have payloads before their records
        for name in c.bricks:
            self.assertNotIn("malformed", c.log(name))
            self.assertNotIn("do not fit", c.log(name))
            self.assertNotIn("not known", c.log(name))
            self.assertNotIn("disconnected", c.log(name))

    def overwrite(self, fd, pattern):
        try:
            for i in range(4000):
                os.pwrite(fd, pattern[i % 8], (i % 5) << 20)
                self.overwritten = i + 1
        except OSError:
            pass
        try:
            os.close(fd)
        except OSError:
            pass

    def test_large_writes_while_bricks_are_killed(self):
        """The bytes of a write that were relayed are of no use to the next primary; the same write, asked again, is done once and whole."""
        c = self.cluster
        done, stop, wrong = {}, threading.Event(), []

        def write():
            fd, version = os.open(self.a / "large", os.O_RDWR | os.O_CREAT), 0
            while not stop.is_set():
                version += 1
                i = version % 6
                os.pwrite(fd, struct.pack("<QQ", i, version) * (1 << 16), i << 20)
                done[i] = version
            os.close(fd)

        def run():
            try:
                write()
            except OSError as e:
                wrong.append(e)

        t = threading.Thread(target=run, daemon=True)
        t.start()
        for name in c.bricks:
            time.sleep(0.5)
            c.kill(name)
            time.sleep(1)
            c.restart(name)
            c.wait_healed(60)
        stop.set()
        t.join(40)
        self.assertEqual(wrong, [])
        self.assertGreater(sum(done.values()), 30)
        with open(self.b / "large", "rb") as f:
            for i, version in done.items():
                f.seek(i << 20)
                self.assertEqual(f.read(1 << 20), struct.pack("<QQ", i, version) * (1 << 16), f"piece {i}")
        for name in c.bricks:
            self.assertNotIn("malformed", c.log(name))

    def test_two_killed(self):
        """Below the write quorum: writes wait, reads of what was acknowledged go on, and all goes on when one returns."""
        c = self.cluster
        (self.a / "kept").write_bytes(b"kept" * 1000)
        w = Writer(self.a / "w")
        w.start()
        wait_for("writes go on", lambda: w.writes > 50, 30)
        c.kill("b1")
        time.sleep(1)
        c.kill("c1")
        time.sleep(2)
        writes = w.writes
        time.sleep(2)
        self.assertLessEqual(w.writes - writes, 1)
        c.restart("b1")
        wait_for("writes go on", lambda: w.writes > writes + 100, 30)
        c.restart("c1")
        c.wait_healed(60)
        w.finish().check(self, self.b / "w")
        self.assertEqual((self.b / "kept").read_bytes(), b"kept" * 1000)

    def test_new_disk(self):
        """An empty disk is filled from the others; then the two others may go."""
        c = self.cluster
        data = {i: random.Random(i).randbytes(300_000 + i * 7) for i in range(20)}
        for i, d in data.items():
            (self.a / f"f{i}").write_bytes(d)
        for i in range(300):
            (self.a / f"small{i}").write_bytes(b"%d" % i)
        c.kill("b1")
        c.wipe("b1")
        c.restart("b1")
        c.wait_healed(60)
        status = json.loads(c.volume("status", "-o", "json"))
        self.assertTrue(status["in_sync"])
        c.kill("a1")
        mount = c.mount(domain="b")
        for i, d in data.items():
            self.assertEqual((mount / f"f{i}").read_bytes(), d)
        for i in range(300):
            self.assertEqual((mount / f"small{i}").read_bytes(), b"%d" % i)

    def test_only_what_changed(self):
        """A brick that was away gets the ranges that changed, not the file."""
        c = self.cluster
        size = 32 << 20
        with open(self.a / "big", "wb") as f:
            f.write(os.urandom(size))
            os.fsync(f.fileno())
        c.kill("c1")
        with open(self.a / "big", "r+b") as f:
            for i in range(10):
                f.seek(i * (3 << 20) + 12345)
                f.write(b"changed")
        with open(self.a / "other", "wb", buffering=0) as f:  # more records than the others keep in memory to send again
            for i in range(3000):
                f.write(b"%04d" % i)
        c.restart("c1")
        c.wait_healed(60)
        copied = sum(int(line.split()[-2]) for line in c.log("c1").splitlines() if "caught up after" in line)
        self.assertGreater(copied, 0)
        self.assertLess(copied, 4 << 10)  # KiB: of 32 MiB

    def test_bit_rot(self):
        """Bytes changed behind a brick's back: a reader gets the right ones, scrub finds and mends them."""
        c = self.cluster
        data = os.urandom(1 << 20)
        (self.a / "f").write_bytes(data)
        os.sync()
        changed = 0
        for name in ("a1", "b1"):
            for path in c.bricks[name].data.glob("*/data/**/*"):
                if path.is_file() and path.stat().st_size >= len(data) and path.read_bytes()[:64] == data[:64]:
                    with open(path, "r+b") as f:
                        for block in (3, 77, 200) if name == "a1" else (5,):
                            f.seek(block * BLOCK + 100)
                            f.write(b"rotten")
                    changed += 1
        self.assertEqual(changed, 2)
        self.assertEqual((c.mount() / "f").read_bytes(), data)
        c.volume("scrub")
        wait_for("the scrub has mended all", lambda: self.rotten(data) == 0, 60)

    def rotten(self, data):
        n = 0
        for b in self.cluster.bricks.values():
            for path in b.data.glob("*/data/**/*"):
                if path.is_file() and path.stat().st_size >= len(data):
                    n += path.read_bytes()[:len(data)] != data
        return n


class Power(unittest.TestCase):
    """Each brick on a disk of its own that can lose what was not flushed."""

    def setUp(self):
        self.cluster = VolumeCluster(bricks="image", image_mib=300)
        self.addCleanup(self.cluster.close)
        self.a = self.cluster.mount()

    def test_all_lose_power(self):
        """In the middle of writing: they come back by themselves with everything that was fsynced, and all copies agree."""
        c = self.cluster
        w = Writer(self.a / "w", fsync=True)
        loose = Writer(self.a / "loose", seed=5)
        w.start()
        loose.start()
        wait_for("both write", lambda: w.writes > 200 and loose.writes > 200, 30)
        time.sleep(0.5)
        safe = dict(w.versions)
        c.power_off(*c.bricks)
        time.sleep(1)
        for name in c.bricks:
            c.restart(name)
        c.wait_healed(60)
        w.finish()
        loose.finish()
        self.assertGreater(len(safe), 10)
        other = c.mount(domain="b")
        with open(other / "w", "rb") as f:
            for i, version in safe.items():
                f.seek(i * BLOCK)
                got = f.read(BLOCK)
                self.assertGreaterEqual(struct.unpack_from("<QQ", got)[1], version, f"block {i} is older than what was fsynced")
                self.assertEqual(got, w.block(i, struct.unpack_from("<QQ", got)[1]))
        (other / "new").write_bytes(b"goes on")
        self.assertEqual((other / "new").read_bytes(), b"goes on")

    def test_disk_full(self):
        """ENOSPC comes before the disk is full, and goes when something was deleted."""
        with self.assertRaises(OSError) as e:
            for i in range(2000):
                (self.a / f"f{i}").write_bytes(os.urandom(1 << 20))
        self.assertEqual(e.exception.errno, errno.ENOSPC)
        for name in self.cluster.bricks:
            self.cluster.bricks[name].check()
        for f in self.a.iterdir():
            f.unlink()
        wait_for("there is room again", lambda: has_room(self.a, 100_000), 40, interval=0.5)
        self.cluster.wait_healed(30)


if __name__ == "__main__":
    unittest.main()
