# SPDX-License-Identifier: Apache-2.0
"""All bricks lose power at once, at a random moment, under three writers; then what fsync promised is there, and nothing that was never written is.

Each word of a file says which file, which version of it and which place it is of. A version counts as synced when its fsync returned 0, also an fsync that began after
the power was back: with writes before the loss it must not return 0 unless they are there (the view's fork, src/volume/client/data.c). KUAYU_POWER_ROUNDS,
KUAYU_POWER_SEED: more rounds, other ones (`./dev soak --faults` does)."""
import array
import hashlib
import os
import random
import shutil
import threading
import time
import unittest
from pathlib import Path

from lab.util import wait_for
from test.volume.cluster import VolumeCluster

ROUNDS = int(os.environ.get("KUAYU_POWER_ROUNDS", "3"))
SEED = int(os.environ.get("KUAYU_POWER_SEED", "1"))
SIZES = (8, 104, 4096, 4104, 70000, 200000, 1 << 20, (3 << 20) + 8)
WRITERS, BYTES_MAX, BLOCK = 3, 16 << 20, 4096  # bytes: of a writer before the loss
HEAL_S = 60


def content(number, version, size):
    base = number << 48 | version << 32
    return array.array("Q", range(base, base + size // 8)).tobytes()


class File:
    """synced: the newest version whose fsync returned 0 (0 = none); started: the newest that was begun. names: where it may be."""

    def __init__(self, number, size, name):
        self.number, self.size, self.names, self.synced, self.started = number, size, [name], 0, 0

    def wrong(self, folder):
        """None, or what cannot be."""
        there = [n for n in self.names if (folder / n).exists()]
        if not there:
            return f"{self.names} is not there, version {self.synced} was synced" if self.synced else None
        data = (folder / there[-1]).read_bytes()
        if len(data) > self.size or (self.synced and len(data) != self.size):
            return f"{there[-1]} has {len(data)} bytes, not {self.size}"
        versions = {v: content(self.number, v, self.size) for v in range(max(self.synced, 1), self.started + 1)}
        for at in range(0, len(data), BLOCK):
            block = data[at:at + BLOCK]
            if any(block == v[at:at + len(block)] for v in versions.values()):
                continue
            for i in range(at, at + len(block) // 8 * 8, 8):  # written in parts: word by word
                word = data[i:i + 8]
                if not any(word == v[i:i + 8] for v in versions.values()) and (self.synced or any(word)):
                    return (f"{there[-1]} at {i}: {word[::-1].hex()}, of {self.number:#x}; "
                            f"versions {self.synced} (synced) to {self.started} may be there")
        return None


class Writer(threading.Thread):
    """New files, changed files, renamed files; everything fsynced in the end, or not. Errors: the file stays with what was synced before."""

    def __init__(self, folder, number, seed):
        super().__init__(daemon=True)
        self.folder, self.number, self.rng, self.files, self.stop = folder, number, random.Random(seed), [], threading.Event()
        self.written, self.errors, self.power = 0, 0, threading.Event()  # power: is back
        self.synced_since = 0

    def run(self):
        while not self.stop.is_set():
            if self.written > BYTES_MAX and not self.power.is_set():
                time.sleep(0.01)
                continue
            old = [f for f in self.files if f.synced]
            try:
                self.change(self.rng.choice(old)) if old and self.rng.random() < 0.3 else self.make()
            except OSError:
                self.errors += 1
                time.sleep(0.05)

    def fill(self, f, fd):
        f.started += 1
        data, at, version = content(f.number, f.started, f.size), 0, f.started
        while at < f.size:
            at += os.pwrite(fd, data[at:at + self.rng.choice((f.size, 65536, 1 << 20))], at)
        self.written += f.size
        os.fsync(fd)
        f.synced = version
        self.synced_since += self.power.is_set()

    def make(self):
        name = f"w{self.number}-{len(self.files)}"
        f = File(self.number << 12 | len(self.files), self.rng.choice(SIZES), name)
        self.files.append(f)
        fd = os.open(self.folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            self.fill(f, fd)
        finally:
            os.close(fd)
        if self.rng.random() < 0.4:
            f.names.append(name + "-renamed")
            os.rename(self.folder / name, self.folder / f.names[1])
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            f.names = f.names[1:]

    def change(self, f):
        fd = os.open(self.folder / f.names[0] if len(f.names) == 1 else next(p for n in f.names if (p := self.folder / n).exists()), os.O_WRONLY)
        try:
            self.fill(f, fd)
        finally:
            os.close(fd)


def copies(cluster):
    """{brick: {slice: digest}} of what lies on the disks; zeros at the end, and slices of zeros only, count as holes."""
    found = {}
    for b in cluster.bricks.values():
        found[b.name] = {}
        for p in b.data.glob("*/data/*/*/*"):
            data = p.read_bytes().rstrip(b"\0")
            if data:
                found[b.name][str(p.relative_to(b.data))] = (len(data), hashlib.md5(data).hexdigest())
    return found


def differ(cluster, folder):
    """What is not the same on all disks. In a block that is a hole, or behind the end of the file, they may have anything: nobody looks there."""
    found, members = copies(cluster), {f"{g['group']:03x}": [m["brick"] for m in g["members"]] for g in cluster.status()["groups"]}
    names = {k for f in found.values() for k in f if len({found[b].get(k) for b in members[Path(k).parts[-3]]}) > 1}
    paths, wrong = {}, []
    for p in folder.iterdir() if names else []:
        w = cluster.where(p)
        for g in w["groups"]:
            paths[f"{g['group']:03x}", f"{w['folder']}.{w['number']}"] = p, {s["stripe"] for s in w["stripes"] if s["group"] == g["group"]}, w["stripe_size"]
    for name in sorted(names):
        group = Path(name).parts[-3]
        files = [cluster.bricks[b].data / name for b in members[group]]
        if (group, Path(name).name) not in paths:
            wrong.append(f"{name}: of no file, on {[f.parts[-6] for f in files if f.exists()]}")
            continue
        path, stripes, stripe_size = paths[group, Path(name).name]
        content, raw = path.read_bytes(), [f.read_bytes() if f.exists() else b"" for f in files]
        wrong += [f"{path.name} at {at}" for at in range(0, len(content), BLOCK) if at // stripe_size in stripes and any(content[at:at + BLOCK]) and
                  len({r[at:at + BLOCK].ljust(BLOCK, b"\0") for r in raw}) > 1]
    return wrong


def damage(cluster, size, blocks):
    """The same blocks of the one file of so many bytes, on each brick's disk: what a write that nobody synced leaves when the disk took its data before
    its record (src/volume/brick/repair.c)."""
    for b in cluster.bricks.values():
        slices = [p for p in b.data.glob("*/data/*/*/*") if p.stat().st_size == size]
        assert len(slices) == 1, slices
        with open(slices[0], "r+b") as f:
            for n in blocks:
                f.seek(n * BLOCK + 100)
                f.write(b"torn by the loss of power")


def sync_file(path, data, flags=os.O_CREAT):
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        os.pwrite(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


class Power(unittest.TestCase):
    def test_blocks_torn_everywhere(self):
        """A write whose data all disks took before its record: recovery does not know of it, no copy fits its checksum. The file can be read, at once, through
        every mount: what lies on the disk where it was written, all else as it was synced; and all copies agree."""
        data = os.urandom(1 << 20)
        with VolumeCluster(bricks="image", image_mib=300) as c:
            path = c.mount()
            sync_file(path / "torn", data)
            sync_file(path / "later", b"x")  # its record says that what was before is on stable storage: recovery need not look at it
            c.power_off(*c.bricks)
            for b in c.bricks.values():
                b.attach()
            torn = range(0, 256, 2)  # in each part that one repair looks at
            damage(c, len(data), torn)
            for b in c.bricks:
                c.restart(b)
            c.remount(path)
            got = (path / "torn").read_bytes()
            want = bytearray(data)
            for n in torn:
                want[n * BLOCK + 100:n * BLOCK + 125] = b"torn by the loss of power"
            self.assertEqual(got, want)
            c.wait_healed(HEAL_S)
            cold = c.mount(domain="b")
            self.assertEqual((cold / "torn").read_bytes(), want)
            sync_file(path / "torn", data, 0)
            end = time.monotonic() + 10
            while len({str(sorted(f.items())) for f in copies(c).values()}) > 1 and time.monotonic() < end:
                time.sleep(0.2)
            first, *others = copies(c).values()
            for other in others:
                self.assertEqual(other, first)

    def test_place_of_an_inode_used_again(self):
        """A file that is removed before it was synced, a loss of power, a new folder: its fsync is none of that file's business."""
        with VolumeCluster(bricks="image", image_mib=300) as c:
            path = c.mount()
            for i in range(200):
                (path / f"f{i}").write_bytes(b"x")
            for i in range(200):
                (path / f"f{i}").unlink()
            c.power_off(*c.bricks)
            for b in c.bricks:
                c.restart(b)
            for i in range(50):
                folder = path / f"d{i}"
                folder.mkdir()
                (folder / "first").write_bytes(b"x")
                fd = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def test_replaced_file(self):
        """A rename over a synced file that nobody synced, then a loss of power: the name holds the old file or the new one. The disks had taken the end of the
        old one's data before the log was durable."""
        def slices(b):
            return sum(1 for p in b.data.glob("*/data/*/*/*") if 300_000 <= p.stat().st_size < 310_000)
        with VolumeCluster(bricks="image", image_mib=300) as c:
            path = c.mount()
            old, new = os.urandom(300_000), os.urandom(400_000)
            for turn in range(3):
                sync_file(path / "f", old, os.O_CREAT | os.O_TRUNC)
                sync_file(path / "f.new", new)
                os.rename(path / "f.new", path / "f")
                wait_for("the old data is gone", lambda: not any(map(slices, c.bricks.values())), 20)
                for b in c.bricks.values():
                    sync_file(b.data / "probe", b"x")  # the file system's journal, not the log
                c.power_off(*c.bricks)
                for b in c.bricks:
                    c.restart(b)
                c.wait_healed(HEAL_S)
                c.remount(path)
                self.assertIn((path / "f").read_bytes(), (old, new), f"turn {turn}")
                (path / "f").unlink()

    def one_round(self, c, path, rng, number):
        folder = path / f"round-{number}"
        folder.mkdir()
        (folder / "first").write_bytes(b"x")
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        writers = [Writer(folder, i + 1, rng.random()) for i in range(WRITERS)]
        for w in writers:
            w.start()
        time.sleep(rng.uniform(0.3, 2))
        wait_for("something is synced", lambda: any(f.synced for w in writers for f in list(w.files)), 20, interval=0.01)
        c.power_off(*c.bricks)
        before = sum(f.synced > 0 for w in writers for f in w.files)
        for b in c.bricks:
            c.restart(b, wait=False)
        for b in c.bricks:
            c.wait_port(b, 24100)
        start = time.monotonic()
        for w in writers:
            w.power.set()
        while time.monotonic() - start < 40 and not all(w.synced_since >= 2 for w in writers):
            time.sleep(0.05)
        again = time.monotonic() - start
        for w in writers:
            w.stop.set()
        for w in writers:
            w.join(40)
        self.assertFalse(any(w.is_alive() for w in writers), "a writer hangs")
        self.assertTrue(all(w.synced_since >= 2 for w in writers), "writing does not go on after the power is back")
        healed = c.wait_healed(HEAL_S)
        files = [f for w in writers for f in w.files]
        print(f"round {number}: {len(files)} files, {before} synced before the loss, {sum(w.errors for w in writers)} errors, written again after {again:.1f} s, "
              f"in sync {healed:.1f} s later", flush=True)
        self.assertGreater(before, 0)
        cold = c.mount(domain=rng.choice(c.domains))
        for mount in (cold, path):
            wrong = [x for f in files if (x := f.wrong(mount / folder.name))]
            self.assertEqual(wrong, [], f"round {number}, through {mount.name}")
        c.umount(cold)
        end = time.monotonic() + 10
        while (wrong := differ(c, folder)) and time.monotonic() < end:  # a primary's last writes reach the others a moment later
            time.sleep(0.3)
        self.assertEqual(wrong, [], f"round {number}: copies differ")
        shutil.rmtree(folder)

    def test_all_lose_power(self):
        rng = random.Random(SEED)
        with VolumeCluster(bricks="image", image_mib=700) as c:
            path = c.mount()
            for number in range(ROUNDS):
                self.one_round(c, path, rng, number)
                c.wait_healed(HEAL_S)  # a busy machine may have a member miss its time once more


if __name__ == "__main__":
    unittest.main()
