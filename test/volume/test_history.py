# SPDX-License-Identifier: Apache-2.0
"""Histories under faults, on real processes: writers and readers with unique values on two mounts while bricks are killed, stopped and started again; then
every block's history must be explained by one order that respects real time (as sim/check_linear.c judges), and no block may be torn."""
import mmap
import multiprocessing
import os
import random
import struct
import time
import unittest

from test.volume.cluster import VolumeCluster

SECONDS = float(os.environ.get("KUAYU_HISTORY_SECONDS", "14"))  # at least, and until each kind of fault has happened; `./dev soak --faults`: longer
STOP = multiprocessing.Event()  # the workers' end; they inherit it
FILES, BLOCK, WORKERS = 3, 4096, 4
PLACES = (15, 16, 31, 32)  # blocks: each second one lies behind a border of stripes of 64 KiB
FOREVER = float("inf")


def work(folder, worker, seed):
    """(kind, register, value, start, end) a block of a call, which has one or two; end FOREVER = failed: a write may have happened, now or later. Direct I/O:
    no page cache answers."""
    rng, history, n = random.Random(seed), [], 0
    fds = [os.open(folder / f"f{i}", os.O_RDWR | os.O_DIRECT) for i in range(FILES)]
    buffer = mmap.mmap(-1, 2 * BLOCK)
    while not STOP.is_set():
        f, b = rng.randrange(FILES), rng.randrange(len(PLACES))
        writes, n = rng.random() < 0.5, n + 1
        blocks = (b, b + 1) if b % 2 == 0 and rng.random() < 0.5 else (b,)
        length, value = len(blocks) * BLOCK, worker << 32 | n
        start, got = time.monotonic(), 0
        try:
            if writes:
                buffer[:length] = struct.pack("<Q", value) * (length // 8)
                got = os.pwritev(fds[f], [memoryview(buffer)[:length]], PLACES[b] * BLOCK)
            else:
                got = os.preadv(fds[f], [memoryview(buffer)[:length]], PLACES[b] * BLOCK)
        except OSError:
            pass
        end = time.monotonic()
        for i, block in enumerate(blocks):
            done = got >= (i + 1) * BLOCK
            if done and not writes:
                words = set(struct.unpack(f"<{BLOCK // 8}Q", buffer[i * BLOCK:(i + 1) * BLOCK]))
                value = words.pop() if len(words) == 1 else -1  # -1: torn
            history.append((writes, (f, block), value, start, end if done else FOREVER))
    for fd in fds:
        os.close(fd)
    return history


def explain(history):
    """None, or what cannot be: clusters of a write and its reads (Gibbons and Korach 1997), for one block."""
    first, last = {0: 0.0}, {0: 0.0}  # value: earliest end, latest start
    started, used = {0: 0.0}, {0}
    for writes, value, start, end in history:
        if writes:
            first[value], last[value], started[value] = end, start, start
            if end != FOREVER:
                used.add(value)
    for writes, value, start, end in history:
        if writes or end == FOREVER:
            continue
        if value not in started or end < started[value]:
            return f"{value:#x} was read before it was written, or never was"
        used.add(value)
        first[value], last[value] = min(first[value], end), max(last[value], start)
    reach, holder = -1.0, None
    for value in sorted(used, key=lambda v: min(first[v], last[v])):
        low, high = sorted((first[value], last[value]))
        if holder is not None and (low if first[value] < last[value] else high) < reach:
            return f"{value:#x} was there while {holder:#x} was"
        if first[value] < last[value] and high > reach:
            reach, holder = high, value
    return None


class Explain(unittest.TestCase):
    def test_the_judge(self):
        self.assertIsNone(explain([(True, 1, 1, 2), (False, 1, 3, 4), (True, 2, 3.5, 5), (False, 2, 4.5, 6)]))
        self.assertIsNotNone(explain([(True, 1, 1, 2), (True, 2, 3, 4), (False, 1, 5, 6)]))  # stale
        self.assertIsNotNone(explain([(True, 1, 1, 2), (False, 0, 3, 4)]))  # lost
        self.assertIsNotNone(explain([(True, 1, 1, 2), (False, 9, 3, 4)]))  # never written
        self.assertIsNone(explain([(True, 1, 1, 2), (True, 2, 3, FOREVER), (False, 1, 4, 5), (False, 2, 6, 7)]))  # late
        self.assertIsNotNone(explain([(True, 1, 1, 2), (True, 2, 3, FOREVER), (False, 2, 4, 5), (False, 1, 6, 7)]))  # back again


def disturb(c, rng, kind):
    """One fault, its end, and all copies in sync again."""
    brick = rng.choice(sorted(c.bricks))
    others = [n for n in sorted(c.bricks) if n != brick]
    for_s = rng.uniform(0.2, 2)
    if kind == "kill":
        c.kill(brick)
        time.sleep(for_s)
        c.restart(brick)
    elif kind == "stop":
        c.stop(brick)
        time.sleep(for_s)
        c.cont(brick)
    elif kind == "power":
        c.power_off(brick)
        time.sleep(for_s)
        c.restart(brick)
    elif kind == "cut":  # off from everybody, etcd and clients too
        c.cut(brick)
        time.sleep(for_s)
        c.join(brick)
    else:  # links between nodes, each in one direction: bricks, or clients and bricks
        pairs = {"deaf": [(brick, others)], "unheard": [(o, [brick]) for o in others], "half": [(brick, others[:1])],
                 "client": [(f"client{rng.randrange(1, 3)}", [brick])], "to-client": [(brick, [f"client{rng.randrange(1, 3)}"])]}[kind]
        for node, to in pairs:
            c.network.deafen(node, *to)
        time.sleep(for_s)
        for node, _ in pairs:
            c.network.undeafen(node)
    c.wait_healed(60)
    return kind


class Faults(unittest.TestCase):
    def history(self, c, mounts, pool, kinds, rounds_min=1):
        """Faults of all kinds, each as often as the others, in random order."""
        rng = random.Random(int(os.environ.get("KUAYU_HISTORY_SEED", "7")))
        folder = "h"
        (mounts[0] / folder).mkdir()
        for i in range(FILES):
            with open(mounts[0] / folder / f"f{i}", "wb") as f:
                f.write(bytes((PLACES[-1] + 1) * BLOCK))
                os.fsync(f.fileno())
        STOP.clear()
        self.addCleanup(STOP.set)
        end = time.monotonic() + SECONDS
        jobs = [pool.apply_async(work, (mounts[i % 2] / folder, i + 1, rng.random())) for i in range(WORKERS)]
        faults, rounds = [], 0
        while rounds < rounds_min or time.monotonic() < end:
            for kind in rng.sample(kinds, len(kinds)):
                if rounds < rounds_min or time.monotonic() < end:
                    faults.append(disturb(c, rng, kind))
            rounds += 1
        time.sleep(1)  # calls after the last fault
        STOP.set()
        history = [h for j in jobs for h in j.get(120)]
        done = [h for h in history if h[4] != FOREVER]
        print(f"{len(done)} calls, {len(history) - len(done)} failed, {len(faults)} faults ({' '.join(faults)}), longest {max(h[4] - h[3] for h in done):.2f} s")
        self.assertGreaterEqual(len(faults), rounds_min * len(kinds))
        self.assertGreater(sum(h[0] for h in done), 50)
        self.assertGreater(sum(not h[0] for h in done), 50)
        self.assertEqual([h for h in done if h[2] < 0], [], "torn blocks")
        for register in sorted({h[1] for h in history}):
            with self.subTest(register):
                self.assertIsNone(explain([(h[0], *h[2:]) for h in history if h[1] == register]))

    def test_history(self):
        with VolumeCluster() as c, multiprocessing.Pool(WORKERS) as pool:
            self.history(c, [c.mount(), c.mount(domain="b")], pool, ("kill", "stop"), 5)

    def test_history_striped(self):
        with VolumeCluster(stripe=2, stripe_kib=64, bricks_per_domain=2) as c, multiprocessing.Pool(WORKERS) as pool:
            self.history(c, [c.mount(), c.mount(domain="b")], pool, ("kill", "stop"), 5)

    def test_history_with_cuts_and_power(self):
        """Links cut, also in one direction and between a client and a brick only, and one brick's power."""
        kinds = ("kill", "stop", "power", "cut", "deaf", "unheard", "half", "client", "to-client")
        with VolumeCluster(network="netns", bricks="image", image_mib=400) as c, multiprocessing.Pool(WORKERS) as pool:
            mounts = [c.mount(domain=d, node=c.client_node(d)) for d in ("a", "b")]
            self.history(c, mounts, pool, kinds)


if __name__ == "__main__":
    unittest.main()
