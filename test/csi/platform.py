# SPDX-License-Identifier: Apache-2.0
"""A small cluster with storage: API, controllers, scheduler, two nodes (test.node.cluster), and a CSI driver on each node. `mount` gives the
mount command of a node's driver; the default is the fake, whose volume is one folder that both nodes see."""
import os
import subprocess
import time

from test.node.cluster import BUSYBOX, KUAYU, Cluster, until
from test.csi.driver import FAKE, FUSE

CLASS = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "factory"}, "provisioner": "csi.kuayu.io",
         "parameters": {"volume": "factory"}, "allowVolumeExpansion": True}


class Platform(Cluster):
    def __init__(self, names=("a1", "b1"), command=lambda node: FAKE, options=("--store=fake:",)):
        self.procs, self.command, self.options = {}, command, options
        super().__init__(names)
        try:
            self.volumes = self.dir / "volumes"
            (self.volumes / "factory").mkdir(parents=True)
            self.prepare()
            for n in self.nodes.values():
                n.inside("mount", "--make-rshared", "/")  # as systemd has it
                self.start_driver(n.name)
                n.start(f"--csi-endpoint={self.endpoint(n.name)}")
            first = next(iter(self.nodes))
            self.role(first, "controller", "--port=0", f"--csi-endpoint={self.endpoint(first)}")
            self.role(first, "scheduler", "--health-port=0")
            self.post("/apis/storage.k8s.io/v1/storageclasses", CLASS)
            for n in self.nodes:
                until(lambda: self.node_ready(n), 20, self.all_logs)
        except BaseException:
            self.close()
            raise

    def prepare(self):
        """What the drivers need; the nodes' network is there."""

    def node_ready(self, name):
        try:
            node = self.request("GET", f"/api/v1/nodes/{name}")
        except Exception:  # pylint: disable=broad-except
            return False
        return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", [])) and \
            not node["spec"].get("taints")

    def endpoint(self, node):
        return f"unix://{self.dir}/{node}.csi.sock"

    def spawn(self, name, argv):
        with open(self.dir / f"{name}.log", "a") as log:
            self.procs[name] = subprocess.Popen([str(a) for a in argv], stderr=log, stdout=log, stdin=subprocess.DEVNULL,
                                                env=dict(os.environ, FAKE_VOLUMES=str(self.dir / "volumes"), FAKE_FUSE=str(FUSE)))

    def role(self, node, verb, *more):
        pki = self.pki(verb, f"system:{verb}", "system:masters")
        self.spawn(verb, self.nodes[node].enter(KUAYU, verb, f"--server={self.url}", f"--ca={self.ca}", f"--cert={pki}.crt",
                                                f"--key={pki}.key", *more))

    def start_driver(self, node):
        self.spawn(f"csi-{node}", self.nodes[node].enter(
            KUAYU, "csi", f"--endpoint={self.endpoint(node)}", f"--node-id={node}", f"--state={self.dir}/csi-{node}",
            *([f"--mount-command={self.command(node)}"] if self.command(node) else []), *self.options, *self.node_options(node)))

    def node_options(self, node):
        return []

    def stop_driver(self, node):
        """nsenter forks for the process namespace; ending the outer one is not enough."""
        p = self.procs.pop(f"csi-{node}")
        pid = subprocess.run(["pgrep", "-P", str(p.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(pid[0]) if pid else p.pid, 9)
        p.wait(10)

    # ---- API ----
    def post(self, path, obj):
        return self.request("POST", path, obj)

    def claim(self, name, size="1Gi", modes=("ReadWriteMany",), cls="factory", **spec):
        if cls is not None:
            spec["storageClassName"] = cls
        return self.post("/api/v1/namespaces/default/persistentvolumeclaims", {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": list(modes), "resources": {"requests": {"storage": size}}, **spec}})

    def get(self, plural, name):
        base = "/apis/storage.k8s.io/v1/" if plural == "storageclasses" else "/api/v1/"
        space = "" if plural in ("persistentvolumes", "storageclasses") else "namespaces/default/"
        try:
            return self.request("GET", f"{base}{space}{plural}/{name}")
        except Exception as e:  # pylint: disable=broad-except
            if getattr(e, "status", 0) == 404:
                return None
            raise

    def bound(self, name, seconds=15):
        def there():
            c = self.get("persistentvolumeclaims", name)
            return c if c and c["status"].get("phase") == "Bound" else None
        return until(there, seconds, lambda: f"{name}: {self.get('persistentvolumeclaims', name)}\n{self.all_logs()}")

    def volume_pod(self, name, command, volumes, node="a1", mounts=None, **spec):
        """volumes: name -> source."""
        mounts = mounts or [{"name": n, "mountPath": f"/{n}"} for n in volumes]
        meta = spec.pop("meta", None)
        return self.run_pod(name, command, node=node, meta=meta, container={"image": BUSYBOX, "volumeMounts": mounts},
                            volumes=[{"name": n, **v} for n, v in volumes.items()], **spec)

    def events(self, name):
        return [f"{e['reason']}: {e['message']}" for e in self.request("GET", "/api/v1/namespaces/default/events")["items"]
                if e["involvedObject"].get("name") == name]

    def mounted(self, node):
        return [line.split()[4] for line in self.nodes[node].inside("cat", "/proc/1/mountinfo").splitlines() if "/csi" in line or "/volumes/" in line]

    def all_logs(self):
        out = self.logs()
        for name in self.procs:
            out += f"--- {name}\n" + "\n".join((self.dir / f"{name}.log").read_text().splitlines()[-25:]) + "\n"
        return out

    def close(self):
        for name in list(self.procs):
            if name.startswith("csi-"):
                self.stop_driver(name[4:])
        for p in self.procs.values():
            p.kill()
        for p in self.procs.values():
            p.wait(10)
        super().close()
        time.sleep(0.1)
