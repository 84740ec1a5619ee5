# SPDX-License-Identifier: Apache-2.0
"""The works: what is measured, in the order of one run. Each is a method of Run that returns the value of its row (bigger is
better) or a dict of rows; prerequisites that an earlier work left out are made without being measured."""
import json
import mmap
import random
import shutil
import subprocess
import tarfile
import time
from io import BytesIO

from bench.storage.contender import drop_caches
from lab.util import BUILD, LabError, run

WORK = BUILD / "bench/storage/bench-work"
# name -> unit; the order of a run.
UNITS = {
    "seq_write": "MB/s", "cpu": "GiB per CPU second", "seq_read_cold": "MB/s", "rand_read_4k": "IOPS", "rand_write_4k": "IOPS",
    "rand_write_4k_fsync": "IOPS", "seq_write_behind": "MB/s", "cpu_behind": "GiB per CPU second",
    "rand_write_4k_behind": "IOPS", "small_create": "files/s", "cpu_create": "creates per CPU second", "small_stat": "files/s",
    "small_read": "files/s", "small_delete": "files/s", "untar": "files/s", "small_create_behind": "files/s",
    "untar_behind": "files/s", "heal_1g": "MB/s", "heal_random": "changes/s",
    "heal_random_bytes": "changed / copied bytes", "heal_small": "files/s", "stall_kill": "1000 / ms", "stall_kill_primary": "1000 / ms",
    "stall_cut": "1000 / ms", "seq_write_10g": "MB/s", "seq_read_cold_10g": "MB/s",
}
WITH = {"cpu": "seq_write", "cpu_create": "small_create", "heal_random_bytes": "heal_random", "cpu_behind": "seq_write_behind"}  # measured by the way
SLOW = ("heal_1g", "heal_random", "heal_small", "stall_kill", "stall_kill_primary", "stall_cut")  # in the first --slow-runs runs
# The product with write-behind; its peers buffer in their plain rows, so those values stand here, too.
BEHIND = {work: f"{work}_behind" for work in ("seq_write", "cpu", "rand_write_4k", "small_create", "untar")}
LARGE = ("seq_write_10g", "seq_read_cold_10g")  # once, with --full
UNTAR_FILES = 3000


def make_tar(path, files=UNTAR_FILES, seed=3):
    """A source tree: folders of 5 to 20 files, sizes log-normal about 4 KiB. The same bytes on every machine."""
    rng, n, folder = random.Random(seed), 0, 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        while n < files:
            name = f"tree/part{folder % 12:02d}/module{folder:03d}"
            for i in range(min(rng.randint(5, 20), files - n)):
                size = min(int(rng.lognormvariate(8.3, 1.2)), 400000)
                info = tarfile.TarInfo(f"{name}/file{i:02d}.c")
                info.size, info.mtime, info.mode = size, 1700000000, 0o644
                tar.addfile(info, BytesIO(rng.randbytes(size)))
                n += 1
            folder += 1
    return path


def warm_memory(mib):
    """Touches so much memory and gives it back: a virtual machine's host takes away what is free, and the first touch afterwards costs many
    times a copy. Without this the works that come first, or behind a pause, or a contender by chance, would pay for it."""
    available = int(next(line for line in open("/proc/meminfo") if line.startswith("MemAvailable")).split()[1]) // 1024
    n = min(mib, available // 2) << 20
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0x8000)
    mmap.mmap(-1, n, flags=flags).close()


class Run:
    """One contender, started and mounted. settings: the command line's (size_mib, heal_mib, seconds, files, tar)."""

    def __init__(self, contender, settings):
        self.c, self.s = contender, settings
        self.extra = {}  # row -> more figures

    def work(self, name, path, *words, timeout=900):
        folder, more = self.c.where(name)
        p = subprocess.run([WORK, name, folder / path, *words, *more], capture_output=True, text=True, timeout=timeout)
        if p.returncode:
            raise LabError(p.stderr.strip() or f"bench-work {name}: status {p.returncode}")
        return json.loads(p.stdout)

    def size(self):
        return f"--size={self.s.size_mib}"

    def need_big(self, mib=None):
        folder, _ = self.c.where("seq_write")
        if not (folder / "big").exists():
            self.work("seq_write", "big", f"--size={mib or self.s.size_mib}")

    def remove(self, *names):
        folder, _ = self.c.where("seq_write")
        for name in names:
            for path in folder.glob(name + "*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    # ---- one big file ----
    def seq_write(self):
        self.remove("big")
        drop_caches()
        warm_memory(4 * self.s.size_mib)
        before = self.c.cpu_seconds()
        value = self.work("seq_write", "big", self.size())["value"]
        cpu = self.c.cpu_seconds() - before
        return {"seq_write": value, "cpu": self.s.size_mib / 1024 / cpu if cpu else None}

    def cold(self):
        """The big file is in no cache of the client's, and the memory for it is the machine's already."""
        self.need_big()
        self.c.cold()
        warm_memory(self.s.size_mib + 512)

    def seq_read_cold(self):
        self.cold()
        return self.work("seq_read", "big", self.size())["value"]

    def rand(self, name, *words):
        self.need_big()
        got = self.work(name, "big", self.size(), f"--seconds={self.s.seconds}", *words)
        self.extra[{"rand_read": "rand_read_4k", "rand_write": "rand_write_4k", "rand_write_fsync": "rand_write_4k_fsync"}[name]] = {
            k: got[k] for k in ("p50_us", "p99_us", "max_us")}
        return got["value"]

    def rand_read_4k(self):
        self.cold()
        return self.rand("rand_read")

    def rand_write_4k(self):
        return self.rand("rand_write")

    def rand_write_4k_fsync(self):
        value = self.rand("rand_write_fsync")
        self.remove("big")
        return value

    # ---- once more, with write-behind ----
    def behind(self, work):
        """The rows of a work, by their other names."""
        self.c.write_behind(True)
        try:
            got = getattr(self, work)()
        finally:
            self.c.write_behind(False)
        if work in self.extra:
            self.extra[BEHIND[work]] = self.extra.pop(work)
        return {BEHIND[row]: v for row, v in (got if isinstance(got, dict) else {work: got}).items() if row in BEHIND}

    def seq_write_behind(self):
        return self.behind("seq_write")

    def rand_write_4k_behind(self):
        self.need_big()
        return self.behind("rand_write_4k")

    def small_create_behind(self):
        return self.behind("small_create")

    def untar_behind(self):
        return self.behind("untar")

    def seq_write_10g(self):
        self.remove("big")
        return self.work("seq_write", "big", "--size=10240", timeout=1800)["value"]

    def seq_read_cold_10g(self):
        self.need_big(10240)
        self.c.cold()
        value = self.work("seq_read", "big", "--size=10240", timeout=1800)["value"]
        self.remove("big")
        return value

    # ---- small files ----
    def need_small(self):
        if not (self.c.where("create")[0] / "small").exists():
            self.work("create", "small", f"--count={self.s.files}")

    def small_create(self):
        self.remove("small")
        before = self.c.cpu_seconds()
        got = self.work("create", "small", f"--count={self.s.files}")
        cpu = self.c.cpu_seconds() - before
        self.extra["small_create"] = {k: got[k] for k in ("p50_us", "p99_us", "max_us")}
        return {"small_create": got["value"], "cpu_create": self.s.files / cpu if cpu else None}

    def small_stat(self):
        self.need_small()
        self.c.cold()
        return self.work("stat", "small", f"--count={self.s.files}")["value"]

    def small_read(self):
        self.need_small()
        self.c.cold()
        return self.work("read", "small", f"--count={self.s.files}")["value"]

    def small_delete(self):
        self.need_small()
        value = self.work("delete", "small", f"--count={self.s.files}")["value"]
        self.remove("small")
        return value

    def untar(self):
        folder, more = self.c.where("untar")
        copies = 3 if more else 1
        start = time.monotonic()
        for i in range(copies):
            target = folder / f"untar{i}"
            target.mkdir()
            run("tar", "-xf", self.s.tar, "-C", target, timeout=600)
        value = UNTAR_FILES / (time.monotonic() - start)
        self.remove("untar")
        return value

    # ---- a brick returns ----
    def healed_before(self):
        self.c.wait_healed()

    def heal_1g(self):
        self.healed_before()
        self.remove("big")
        self.c.kill_brick("b1")
        time.sleep(1)
        self.work("seq_write", "big", f"--size={self.s.heal_mib}")
        received = self.c.received("b1")
        start = time.monotonic()
        self.c.restart_brick("b1")
        self.c.wait_healed()
        seconds = time.monotonic() - start
        self.extra["heal_1g"] = {"seconds": seconds, "bytes_received": self.c.received("b1") - received}
        self.work("check", "big", f"--size={self.s.heal_mib}")
        return self.s.heal_mib * 1.048576 / seconds

    def heal_random(self):
        self.need_big(self.s.heal_mib)
        self.healed_before()
        self.c.kill_brick("b1")
        time.sleep(1)
        self.work("change", "big", f"--size={self.s.heal_mib}", "--count=10")
        received = self.c.received("b1")
        start = time.monotonic()
        self.c.restart_brick("b1")
        self.c.wait_healed()
        seconds = time.monotonic() - start
        copied = self.c.received("b1") - received
        self.extra["heal_random"] = {"seconds": seconds, "bytes_received": copied}
        self.remove("big")
        return {"heal_random": 10 / seconds, "heal_random_bytes": 10 * 4096 / copied}

    def heal_small(self):
        self.healed_before()
        self.c.kill_brick("b1")
        time.sleep(1)
        self.work("create", "heal", f"--count={self.s.files}")
        start = time.monotonic()
        self.c.restart_brick("b1")
        self.c.wait_healed()
        seconds = time.monotonic() - start
        self.extra["heal_small"] = {"seconds": seconds}
        self.remove("heal")
        return self.s.files / seconds

    # ---- a writer that must not wait ----
    def stalled(self, row, path, node, how, seconds):
        """The longest gap of a flushing writer when `how` happens to node one second after its start; what its first flushes
        had to write of works before is not looked at."""
        self.healed_before()
        writer = subprocess.Popen([WORK, "stall", path, f"--seconds={seconds}", "--after=0.9"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            time.sleep(1.0)
            how(node)
            out, err = writer.communicate(timeout=seconds + 120)
        finally:
            writer.kill()
        if writer.returncode:
            raise LabError(f"{row}: the writer failed: {err.strip()}")
        got = json.loads(out)
        self.extra[row] = {"gap_ms": got["value"], "gap_at_s": got["gap_at_s"], "p99_us": got["p99_us"], "node": node}
        return 1000 / got["value"]

    def stall_file(self, fits):
        """A file whose primary `fits`; folders differ in that. None when there is none among 32."""
        for i in range(32):
            folder = self.c.mnt / f"stall{i}"
            folder.mkdir(exist_ok=True)
            (folder / "file").write_bytes(b"x" * 4096)
            if fits(self.c.primary(folder / "file")):
                return folder / "file"
        return None

    def stall_kill(self):
        path = self.stall_file(lambda primary: primary != "b1")
        value = self.stalled("stall_kill", path, "b1", self.c.kill_brick, 5)
        self.c.restart_brick("b1")
        self.remove("stall")
        return value

    def stall_kill_primary(self):
        path = self.stall_file(lambda primary: primary == "b1")
        if path is None:
            return None
        value = self.stalled("stall_kill_primary", path, "b1", self.c.kill_brick, 6)
        self.c.restart_brick("b1")
        self.remove("stall")
        return value

    def stall_cut(self):
        path = self.stall_file(lambda primary: primary != "b1")
        value = self.stalled("stall_cut", path, "b1", self.c.cut, self.c.cut_seconds)
        self.c.join("b1")
        self.remove("stall")
        return value
