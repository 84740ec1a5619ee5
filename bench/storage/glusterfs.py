# SPDX-License-Identifier: Apache-2.0
"""GlusterFS from Debian: three glusterd, replica 3, its own defaults. Each node has private /var/lib/glusterd, /run/gluster and
/var/log/glusterfs in a mount namespace; the volume is mounted by its FUSE client in domain a."""
import os
import re
import signal

from bench.storage.contender import NODES, Contender
from lab.util import LabError, run, wait_for
from test.volume.cluster import Process

VOLUME = "bench"
PRIVATE = {"lib": "/var/lib/glusterd", "run": "/run/gluster", "log": "/var/log/glusterfs"}


class GlusterFS(Contender):
    name = "glusterfs"
    cut_seconds = 90  # ping-timeout is 42 s, and the first time it fires late
    heal_limit = 400
    options = ()

    def _start(self):
        self.daemons = {}
        for node in NODES:
            home = self.dir / node
            for part, where in PRIVATE.items():
                (home / part).mkdir(parents=True)
                os.makedirs(where, exist_ok=True)
            (self.bricks_dir / node).mkdir()
            (home / "glusterd.vol").write_text(
                "volume management\n type mgmt/glusterd\n option working-directory /var/lib/glusterd\n option transport-type socket\n"
                f" option transport.socket.bind-address {self.addresses[node]}\n"
                f" option glusterd-sockfile {home}/glusterd.sock\n option ping-timeout 0\n option event-threads 1\n"
                " option transport.socket.keepalive-time 10\n option transport.socket.keepalive-interval 2\n option transport.tcp-user-timeout 0\n"
                " option max-port 60999\nend-volume\n")
            (home / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{self.addresses[n]} {n}\n" for n in NODES))
            (home / "nsswitch.conf").write_text("hosts: files\n")  # there is no name server in these networks
            binds = f"mount --bind {home}/hosts /etc/hosts; mount --bind {home}/nsswitch.conf /etc/nsswitch.conf; " + "; ".join(f"mount --bind {home / part} {where}" for part, where in PRIVATE.items())
            argv = self.prefix(node) + ["unshare", "-m", "--propagation", "private", "sh", "-ec",
                                        f"{binds}; exec glusterd -N -f {home}/glusterd.vol -p {home}/glusterd.pid"]
            self.daemons[node] = Process(f"glusterd-{node}", argv, home / "glusterd.log").start()
        for node in NODES:
            wait_for(f"glusterd of {node} answers", lambda n=node: self.cli(n, "peer", "status"), 20, [self.dir / node / "glusterd.log"])
        for node in NODES[1:]:
            self.cli("a1", "peer", "probe", self.addresses[node])
        wait_for("the peers are connected", lambda: self.cli("a1", "peer", "status").count("(Connected)") == 2, 20)
        bricks = [f"{self.addresses[n]}:{self.bricks_dir / n}/brick" for n in NODES]
        self.cli("a1", "volume", "create", VOLUME, "replica", "3", *bricks, "force")
        for key, value in self.options:
            self.cli("a1", "volume", "set", VOLUME, key, value)
        self.cli("a1", "volume", "start", VOLUME)
        wait_for("the bricks run", lambda: all(self.brick_pid(n) for n in NODES), 20)

    def cli(self, node, *words):
        return run(*self.prefix(node), "gluster", "--mode=script", f"--glusterd-sock={self.dir / node}/glusterd.sock",
                   f"--log-file={self.dir}/cli.log", *words, timeout=60).stdout

    def _mount_argv(self):
        return ["glusterfs", "-N", f"--volfile-server={self.addresses['a1']}", f"--volfile-id={VOLUME}", f"--log-file={self.dir}/mount.log",
                "--process-name", "fuse", str(self.mnt)]

    def brick_pid(self, node):
        table = self.cli("a1", "volume", "status", VOLUME, f"{self.addresses[node]}:{self.bricks_dir / node}/brick", "detail")
        found = re.search(r"^Pid *: *([0-9]+)", table, re.M)
        return int(found.group(1)) if found else 0

    def _kill_brick(self, node):
        pid = self.brick_pid(node)
        if not pid:
            raise LabError(f"glusterfs: no brick runs on {node}")
        os.kill(pid, signal.SIGKILL)

    def _restart_brick(self, node):
        def started():  # glusterd may not have noticed yet that the old process has ended
            self.cli("a1", "volume", "start", VOLUME, "force")
            return self.brick_pid(node)
        wait_for(f"glusterfs: the brick of {node} runs", started, 30, interval=0.5)

    def waiting(self):
        """Entries that wait to be healed; while a brick is not connected, at least 1."""
        text = self.cli("a1", "volume", "heal", VOLUME, "statistics", "heal-count")
        entries = [int(n) for n in re.findall(r"Number of entries: *([0-9]+)", text)]
        if len(entries) < 3 or not all(self.brick_pid(n) for n in NODES):
            return 1
        if sum(entries):
            self.cli("a1", "volume", "heal", VOLUME)  # an operator in a hurry; the daemon would begin within 10 minutes
        return sum(entries)


class GlusterFSShard(GlusterFS):
    """With sharding at its default block size of 64 MiB."""
    name = "glusterfs_shard"
    options = (("features.shard", "on"),)
