# SPDX-License-Identifier: Apache-2.0
"""Not a file system of anybody: what this machine can do at best. Writes: the same bytes three times into the same tmpfs or disk.
Reads: one local copy through a FUSE file system that only passes through (passthrough.c)."""
import shutil

from bench.storage.contender import Contender
from lab.util import BUILD
from test.volume.cluster import unmount

PASSTHROUGH = BUILD / "bench/storage/bench-passthrough"
MOUNTED = ("seq_read", "rand_read", "stat", "read")


class Limit(Contender):
    name = "limit"

    def _network(self, kind):
        self.network = None

    def _start(self):
        pass

    def prefix(self, node):
        return []

    def _mount_argv(self):
        return [str(PASSTHROUGH), str(self.bricks_dir), str(self.mnt)]

    def where(self, work):
        """(folder, words): reads through the mount, writes three times into the folder below."""
        return (self.mnt, []) if work in MOUNTED else (self.bricks_dir, ["--copies=3"])

    def cpu_seconds(self):
        return 0.0

    def close(self):
        self.umount()
        unmount(self.mnt, 2)
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.bricks_dir, ignore_errors=True)
