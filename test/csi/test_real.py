# SPDX-License-Identifier: Apache-2.0
"""The real thing: a kuayu volume on three bricks, the CSI driver with `kuayu mount`, pods on two nodes that share a claim, while a brick and a
mount process die."""
import json
import subprocess
import unittest

from test.csi.platform import Platform
from test.csi.test_platform import SLEEP, claim_source
from test.node.cluster import KUAYU, until
from test.volume.cluster import VolumeCluster


def has_bricks():
    text = subprocess.run([KUAYU, "--help"], capture_output=True, text=True).stdout
    return all(f"\n  {verb} " in text for verb in ("brick", "mount", "volume"))


class OnNode:
    """The volume's processes on the network of a node (the test itself is there): addresses that all nodes reach."""
    can_cut = False

    def __init__(self, node):
        self.node, self.n = node, 100

    def add(self, name, domain, index):
        self.n += 1
        address = f"10.77.1.{self.n}"
        self.node.inside("ip", "addr", "add", f"{address}/16", "dev", "wire")
        return address

    def prefix(self, name):
        return []

    def inodes(self):
        return set()

    def close(self):
        pass


class RealPlatform(Platform):
    def __init__(self):
        self.volume = None
        super().__init__(command=lambda node: None)

    def prepare(self):
        self.volume = VolumeCluster(volume="factory", network=OnNode(self.nodes["a1"]))
        self.options = [f"--store={self.volume.store}"]

    def node_options(self, node):
        return [f"--mount-option=--domain={node[0]}"]

    def all_logs(self):
        out = super().all_logs()
        for node in self.nodes:
            log = self.dir / f"csi-{node}/mounts/factory.log"
            out += f"--- mount of {node}\n" + (log.read_text()[-3000:] if log.exists() else "")
        for b in self.volume.bricks.values() if self.volume else []:
            out += f"--- brick {b.name}\n{b.log.read_text()[-1500:]}\n"
        return out

    def close(self):
        try:
            super().close()
        finally:
            if self.volume:
                self.volume.close(quiet=True)


@unittest.skipUnless(has_bricks(), "this build has no bricks")
class RealTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = RealPlatform()
        cls.addClassCleanup(cls.c.close)

    def read(self, pod, command, node):
        """In the container, through its own mounts."""
        c = self.c
        uid = c.pod(pod)["metadata"]["uid"]
        pid = json.loads((c.nodes[node].data / "pods" / uid / "containers/main/0/pid").read_text())["pid"]
        return c.nodes[node].inside("nsenter", f"--target={pid}", "--mount", "--", "/bin/busybox", "sh", "-c", command, timeout=60, check=False).strip()

    def test_pods_share_a_claim_while_things_die(self):
        c = self.c
        c.claim("reports")
        name = c.bound("reports", 40)["spec"]["volumeName"]
        for pod, node in (("pa", "a1"), ("pb", "b1")):
            c.volume_pod(pod, f"echo up; {SLEEP}", {"v": claim_source("reports")}, node)
        for pod, node in (("pa", "a1"), ("pb", "b1")):
            c.wait_log(pod, "up", node=node, seconds=40)
        # close-to-open between domains, both ways
        for i, (w, wn, r, rn) in enumerate((("pa", "a1", "pb", "b1"), ("pb", "b1", "pa", "a1"))):
            self.assertEqual(self.read(w, f"mkdir -p /v/d && echo report-{i} >/v/d/{i}.tmp && sync && mv /v/d/{i}.tmp /v/d/{i}.json; echo $?", wn), "0")
            self.assertEqual(self.read(r, f"cat /v/d/{i}.json", rn), f"report-{i}", c.all_logs())
        self.assertEqual(self.read("pa", "ls /v/d", "a1"), "0.json\n1.json")
        # one of three bricks dies: reads and writes go on
        c.volume.kill("b1")
        self.assertEqual(self.read("pb", "echo after >/v/d/2.json && cat /v/d/0.json", "b1"), "report-0", c.all_logs())
        self.assertEqual(self.read("pa", "cat /v/d/2.json", "a1"), "after", c.all_logs())
        c.volume.restart("b1")
        c.volume.wait_healed(60)
        # the mount process of a node dies: the container has its files again without a restart
        pids = c.nodes["b1"].inside("pgrep", "-f", "mount factory .*csi-b1").split()
        self.assertEqual(len(pids), 1)
        c.nodes["b1"].inside("kill", "-9", *pids)
        until(lambda: self.read("pb", "cat /v/d/1.json", "b1") == "report-1", 30, c.all_logs)
        self.assertEqual(self.read("pb", "echo again >/v/d/3.json; cat /v/d/3.json", "b1"), "again")
        self.assertEqual(c.pod("pb")["status"]["containerStatuses"][0]["restartCount"], 0)
        # the claim goes, and with it the files
        for pod in ("pa", "pb"):
            c.delete_pod(pod, grace=0)
            c.wait_gone(pod, 40)
        c.request("DELETE", "/api/v1/namespaces/default/persistentvolumeclaims/reports")
        until(lambda: c.get("persistentvolumes", name) is None, 40, c.all_logs)
        look = c.volume.mount()
        until(lambda: not (look / ".kuayu-csi/volumes" / name).exists(), 20, c.all_logs)
        until(lambda: not list((look / ".kuayu-csi/trash").iterdir()), 20, c.all_logs)


if __name__ == "__main__":
    unittest.main()
