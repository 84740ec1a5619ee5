# SPDX-License-Identifier: Apache-2.0
"""The product: three bricks, replica 3, its own defaults, one etcd of its own; mounted in domain a."""
import shutil

from bench.storage.contender import Contender, drop_caches
from lab.util import LabError
from test.volume.cluster import VolumeCluster, unmount


class Product(Contender):
    name = "product"
    heal_limit = 120
    options = ()
    awake = True

    def _network(self, kind):
        self.cluster = VolumeCluster(network=kind, bricks="tmpfs", start=False, bricks_in=self.bricks_dir,
                                     brick_options=self.words(), mount_options=self.words())
        self.network = self.cluster.network
        self.addresses = {n: b.address for n, b in self.cluster.bricks.items()}

    def words(self):
        return () if self.awake else ("--no-awake",)

    def _start(self):
        self.cluster.start()

    def mount(self):
        self.cluster.mount(self.mnt, domain="a", options=self.options)

    def umount(self):
        if self.mnt in self.cluster.mounts:
            self.cluster.umount(self.mnt)

    def cold(self):
        self.umount()
        drop_caches()
        self.mount()

    def write_behind(self, on):
        self.umount()
        self.options = ("--write-behind=16384",) if on else ()
        self.mount()

    def primary(self, path):
        for group in self.cluster.where(path).get("groups", []):
            return group.get("primary")
        return None

    def _kill_brick(self, node):
        self.cluster.kill(node)

    def _restart_brick(self, node):
        self.cluster.restart(node)

    def waiting(self):
        status = self.cluster.status()
        left = status["heal"]
        return 0 if status["in_sync"] and not left["keys_left"] else max(1, left["keys_left"])

    def wait_healed(self, limit=None):
        try:
            return super().wait_healed(limit)
        except LabError:
            raise LabError(f"product: not in sync in time: {self.cluster.volume('status', check=False)[-1500:]}") from None

    def close(self):
        unmount(self.mnt, 2)
        if getattr(self, "cluster", None):
            self.cluster.close(quiet=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.bricks_dir, ignore_errors=True)
