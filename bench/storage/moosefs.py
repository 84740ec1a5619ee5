# SPDX-License-Identifier: Apache-2.0
"""MooseFS from Debian: one master (with the metadata, in domain a as the client), three chunk servers, goal 3, its defaults except
that waiting periods after a start are short. It does not flush data on fsync by default (HDD_FSYNC_BEFORE_CLOSE = 0)."""
import re
import shutil

from bench.storage.contender import NODES, Contender
from lab.util import run, wait_for
from test.volume.cluster import Process


class MooseFS(Contender):
    name = "moosefs"
    cut_seconds = 40
    heal_limit = 400

    def _start(self):
        home = self.dir / "master"
        home.mkdir()
        self.master = self.network.add("master", 1, 100)
        shutil.copy("/var/lib/mfs/metadata.mfs.empty", home / "metadata.mfs")
        (home / "exports.cfg").write_text("* / rw,alldirs,admin,maproot=0:0\n")
        (home / "topology.cfg").write_text("")
        (home / "mfsmaster.cfg").write_text(
            f"WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {home}\nEXPORTS_FILENAME = {home}/exports.cfg\n"
            f"TOPOLOGY_FILENAME = {home}/topology.cfg\nMATOML_LISTEN_HOST = {self.master}\nMATOCS_LISTEN_HOST = {self.master}\n"
            f"MATOCL_LISTEN_HOST = {self.master}\nREPLICATIONS_DELAY_INIT = 0\nCHUNKS_LOOP_MIN_TIME = 60\nNICE_LEVEL = 0\n")
        self.daemons = {"master": Process("mfsmaster", self.prefix("master") + ["mfsmaster", "-f", "-c", f"{home}/mfsmaster.cfg", "start"],
                                          home / "log").start()}
        for node in NODES:
            self._chunk_server(node)
        wait_for("three chunk servers are connected", lambda: self.servers() == 3, 30, [home / "log"])

    def _chunk_server(self, node):
        home = self.dir / node
        home.mkdir(exist_ok=True)
        (self.bricks_dir / node).mkdir(exist_ok=True)
        (home / "mfshdd.cfg").write_text(f"{self.bricks_dir / node}\n")
        (home / "mfschunkserver.cfg").write_text(
            f"WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {home}\nHDD_CONF_FILENAME = {home}/mfshdd.cfg\nNICE_LEVEL = 0\n"
            f"BIND_HOST = {self.addresses[node]}\nMASTER_HOST = {self.master}\nCSSERV_LISTEN_HOST = {self.addresses[node]}\n"
            "MASTER_RECONNECTION_DELAY = 1\n")
        argv = self.prefix(node) + ["mfschunkserver", "-f", "-c", f"{home}/mfschunkserver.cfg", "start"]
        self.daemons[node] = Process(f"mfschunkserver-{node}", argv, home / "log").start()

    def mfscli(self, *what):
        return run(*self.prefix("a1"), "mfscli", "-H", self.master, "-p", "-s", "|", *what, check=False).stdout

    def servers(self):
        return sum(1 for line in self.mfscli("-SCS").splitlines() if re.search(r"\|10\.[0-9.]+\|", line) and "disconnected" not in line)

    def _mount_argv(self):
        return ["mfsmount", str(self.mnt), "-f", "-H", self.master]

    def mount(self):
        super().mount()
        run(*self.prefix("a1"), "mfssetgoal", "-r", "3", self.mnt)

    def _kill_brick(self, node):
        self.daemons[node].kill()

    def _restart_brick(self, node):
        self._chunk_server(node)

    def waiting(self):
        """Chunks with fewer copies than their goal; a missing server counts as one."""
        if self.servers() < 3:
            return 1
        found = re.findall(r"chunkclass (?:missing|endangered|undergoal):\|([0-9]+)", self.mfscli("-SIC"))
        return sum(int(n) for n in found) if len(found) == 3 else 1
