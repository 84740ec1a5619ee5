# SPDX-License-Identifier: Apache-2.0
"""Bricks in containers: the image of examples/volume run by crun, a process alone in its pid and mount namespaces."""
import hashlib
import json
import os
import subprocess
import unittest
from pathlib import Path

from lab.util import run
from test.volume.cluster import VolumeCluster

# In a mount namespace of its own: crun 1.8 refuses a mixed cgroup hierarchy, and a copy of a mount would keep it alive.
CRUN = ["unshare", "-m", "sh", "-c", "umount -a -t fuse.kuayu; umount /sys/fs/cgroup/unified 2>/dev/null; exec crun \"$@\"", "crun"]
ROOT = Path(__file__).resolve().parents[2]


class Containers:
    """Puts the cluster's bricks into containers of one unpacked image; the network stays that of the cluster."""

    def __init__(self, cluster):
        self.cluster, self.ids = cluster, {}
        images = cluster.dir / "images"
        run(str(ROOT / "examples/volume/build-image"), str(images), timeout=120)
        run("umoci", "unpack", "--image", f"{images}/kuayu:1", str(cluster.dir / "image"), timeout=120)
        for name, b in cluster.bricks.items():
            self.ids[name] = f"kuayu-test-{os.getpid()}-{name}"
            b.path = "/data"
            b.argv = [*CRUN, "run", "--bundle", str(self._bundle(name, b)), self.ids[name]]

    def _bundle(self, name, b):
        bundle = self.cluster.dir / f"bundle-{name}"
        bundle.mkdir()
        with open(self.cluster.dir / "image/config.json") as f:
            spec = json.load(f)
        spec["root"] = {"path": str(self.cluster.dir / "image/rootfs"), "readonly": True}
        args = spec["process"]["args"] + ["brick", "--data=/data", f"--node={b.name}", f"--domain={b.domain}", f"--listen={b.listen}",
                                          f"--store={self.cluster.store}", "--run-dir=/run/brick"]
        spec["process"].update(terminal=False, args=args)
        spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "network"]
        spec["linux"]["cgroupsPath"] = f"/{self.ids[name]}"
        spec["mounts"] = [m for m in spec["mounts"] if m["destination"] not in ("/sys/fs/cgroup", "/run")]
        spec["mounts"] += [{"destination": d, "type": "bind", "source": str(s), "options": ["rbind", "rw"]}
                           for d, s in (("/data", b.data), ("/run", b.run_dir.parent / f"container-{name}"))]
        (b.run_dir.parent / f"container-{name}").mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(spec))
        return bundle

    def kill(self, name):
        run(*CRUN, "kill", self.ids[name], "KILL")
        self.cluster.bricks[name].popen.wait(10)
        self.delete(name)

    def delete(self, name):
        subprocess.run([*CRUN, "delete", "--force", self.ids[name]], capture_output=True)

    def close(self):
        for name in self.ids:
            self.delete(name)


class ContainerTest(unittest.TestCase):
    def test_bricks_in_containers(self):
        with VolumeCluster(start=False) as cluster:
            containers = Containers(cluster)
            self.addCleanup(containers.close)
            try:
                cluster.start()
                mnt = cluster.mount()
                data = os.urandom(3 << 20)
                (mnt / "before").write_bytes(data)
                containers.kill("b1")
                (mnt / "while").write_bytes(data)
                self.assertEqual((mnt / "before").read_bytes(), data)
                cluster.bricks["b1"].start()
                cluster.wait_healed(60)
                for name in ("a1", "c1"):  # what is left is the container that was away
                    containers.kill(name)
                cluster.volume("set", "write-quorum", "1")
                self.assertEqual(hashlib.sha256((mnt / "while").read_bytes()).digest(), hashlib.sha256(data).digest())
                cluster.umount(mnt)
            finally:
                containers.close()


if __name__ == "__main__":
    unittest.main()
