# SPDX-License-Identifier: Apache-2.0
"""What every contender can do: start three bricks in domains a, b, c, mount in domain a, lose a brick, heal.

A contender owns a folder for its own files, one for the bricks' data (on tmpfs or on the disk) and a network of namespaces; the
processes in those namespaces are its processes, for CPU time and for cleaning up."""
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from lab.util import LabError, run, wait_for
from test.volume import network as networks
from test.volume.cluster import Process, is_mounted, unmount

TICKS = os.sysconf("SC_CLK_TCK")
NODES = ("a1", "b1", "c1")


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")


class Place:
    """Where bricks put their data: a tmpfs of its own, or a folder of the disk."""

    def __init__(self, kind, tmpfs_mib):
        self.kind = kind
        self.dir = Path(tempfile.mkdtemp(prefix=f"kuayu-bench-{os.getpid()}-", dir="/var/tmp"))
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={tmpfs_mib}m,mode=755", "kuayu-bench", self.dir)

    def close(self):
        if self.kind == "tmpfs":
            unmount(self.dir)
        shutil.rmtree(self.dir, ignore_errors=True)


class Contender:
    """Subclasses: name, _start(), _mount_argv(), _kill_brick(node), _restart_brick(node), waiting() and what differs."""
    name = ""
    cut_seconds = 15  # how long a writer has to be watched to see the end of a stall by a cut link
    heal_limit = 240

    def __init__(self, place, network="netns"):
        self.place, self.dir = place, Path(tempfile.mkdtemp(prefix=f"kuayu-bench-{os.getpid()}-{self.name}-", dir="/var/tmp"))
        self.dir.chmod(0o755)
        self.bricks_dir = place.dir / self.name
        self.bricks_dir.mkdir()
        self.mnt, self.client, self.network, self.addresses = self.dir / "mnt", None, None, {}
        self.mnt.mkdir()
        try:
            self._network(network)
            self._start()
            self.mount()
        except BaseException:
            self.close()
            raise

    def _network(self, kind):
        self.network = networks.Namespaces() if kind == "netns" else networks.WireNamespaces(self.dir / "wire")
        for d, node in enumerate(NODES, 1):
            self.addresses[node] = self.network.add(node, d, 1)

    def prefix(self, node):
        return self.network.prefix(node)

    def mount(self):
        self.client = Process("client", self.prefix("a1") + self._mount_argv(), self.dir / "client.log").start()

        def ready():
            if not is_mounted(self.mnt) and self.client.popen.poll():
                raise LabError(f"{self.name}: the client ended: {self.client.log.read_text(errors='replace')[-400:]}")
            return is_mounted(self.mnt) and os.statvfs(self.mnt)
        wait_for(f"{self.name} is mounted", ready, 20, [self.client.log])

    def umount(self):
        unmount(self.mnt)
        if self.client and self.client.popen:
            try:
                self.client.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.client.kill()

    def where(self, work):
        """Where bench-work works, and more words for it."""
        return self.mnt, []

    def cold(self):
        """The client knows nothing any more, nor do the kernel's caches."""
        self.umount()
        drop_caches()
        self.mount()

    def write_behind(self, on):
        """Whether writes are answered from a buffer, for whom that is an option."""

    def cpu_seconds(self):
        """User and system time of all its processes, threads included, up to now."""
        total = 0
        for pid in networks.processes_in(self.network.inodes()):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
            except (OSError, IndexError):
                pass
        return total / TICKS

    def received(self, node):
        """Bytes that a node has received so far."""
        text = run(*self.prefix(node), "cat", "/proc/net/dev").stdout
        return sum(int(line.split(":")[1].split()[0]) for line in text.splitlines() if "eth0:" in line)

    def primary(self, path):
        """The node through which a file's writes go; None when there is no such thing."""
        return None

    def kill_brick(self, node):
        self._kill_brick(node)

    def restart_brick(self, node):
        self._restart_brick(node)

    def cut(self, node):
        self.network.cut(node)

    def join(self, node):
        self.network.heal(node)

    def wait_healed(self, limit=None):
        """Seconds until nothing waits to be copied."""
        start = time.monotonic()
        wait_for(f"{self.name}: copies in sync", lambda: self.waiting() == 0, limit or self.heal_limit, interval=0.05)
        return time.monotonic() - start

    def close(self):
        if self.client:
            self.umount()
        if self.network:
            self.network.close()  # and all processes in it
        unmount(self.mnt, 2)
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.bricks_dir, ignore_errors=True)
