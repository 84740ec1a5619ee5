# SPDX-License-Identifier: Apache-2.0
"""Claims in the platform: API, controllers, scheduler, node agents and CSI driver together; pods on two nodes share a folder. The volume is a
folder of this machine here (fake_mount); test_real.py has the real one."""
import json
import time
import unittest

from test.csi.platform import Platform
from test.node.cluster import until

SLEEP = "sleep 1000000"


def claim_source(name, **more):
    return {"persistentVolumeClaim": {"claimName": name, **more}}


class PlatformTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Platform()
        cls.addClassCleanup(cls.c.close)
        cls.folders = cls.c.volumes / "factory/.kuayu-csi/volumes"

    def gone(self, plural, name, seconds=20):
        until(lambda: self.c.get(plural, name) is None, seconds, lambda: f"{plural} {name}: {json.dumps(self.c.get(plural, name))}\n{self.c.all_logs()}")

    def delete(self, plural, name):
        space = "" if plural == "persistentvolumes" else "namespaces/default/"
        return self.c.request("DELETE", f"/api/v1/{space}{plural}/{name}")

    def patch(self, path, body):
        return self.c.request("PATCH", path, body, kind="application/merge-patch+json")

    def test_two_nodes_share_a_claim(self):
        c = self.c
        c.claim("shared")
        claim = c.bound("shared")
        pv = c.get("persistentvolumes", claim["spec"]["volumeName"])
        self.assertEqual(pv["metadata"]["name"], "pvc-" + claim["metadata"]["uid"])
        self.assertEqual((pv["spec"]["csi"]["driver"], pv["spec"]["csi"]["volumeHandle"]), ("csi.kuayu.io", "factory/" + pv["metadata"]["name"]))
        self.assertEqual((pv["spec"]["persistentVolumeReclaimPolicy"], pv["spec"]["capacity"]["storage"]), ("Delete", "1Gi"))
        self.assertEqual(claim["status"]["capacity"]["storage"], "1Gi")
        until(lambda: c.get("persistentvolumes", pv["metadata"]["name"])["status"]["phase"] == "Bound", 5, c.all_logs)

        mounts = [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/deep", "subPath": "sub/deep"}]
        c.volume_pod("writer", f"echo from-a >/v/x; echo below >/deep/y; echo wrote; {SLEEP}", {"v": claim_source("shared")}, "a1", mounts)
        c.wait_log("writer", "wrote")
        c.volume_pod("reader", f"cat /v/x /v/sub/deep/y; touch /v/z || echo refused; {SLEEP}", {"v": claim_source("shared", readOnly=True)}, "b1")
        got = c.wait_log("reader", "refused", node="b1")
        self.assertIn("from-a", got)
        self.assertIn("below", got)
        self.assertEqual((self.folders / pv["metadata"]["name"] / "x").read_text(), "from-a\n")
        self.assertTrue(any(m.endswith("/volumes/v/mount") for m in c.mounted("a1")))

        # a claim in use is kept; so is its volume
        self.delete("persistentvolumeclaims", "shared")
        self.delete("persistentvolumes", pv["metadata"]["name"])
        self.assertEqual(c.get("persistentvolumeclaims", "shared")["metadata"]["finalizers"], ["kubernetes.io/pvc-protection"])
        c.delete_pod("writer", grace=0)
        c.wait_gone("writer")
        self.assertIsNotNone(c.get("persistentvolumeclaims", "shared"))
        self.assertTrue((self.folders / pv["metadata"]["name"]).exists())
        c.delete_pod("reader", grace=0)
        self.gone("persistentvolumeclaims", "shared")
        self.gone("persistentvolumes", pv["metadata"]["name"])
        until(lambda: not (self.folders / pv["metadata"]["name"]).exists(), 10, c.all_logs)
        for node in c.nodes:
            until(lambda: not [m for m in c.mounted(node) if pv["metadata"]["name"] in m or "/mount" in m[-6:]], 10,
                  lambda: f"{c.mounted(node)}\n{c.all_logs()}")

    def test_a_pod_waits_for_its_claim(self):
        c = self.c
        c.volume_pod("waits", f"echo up; {SLEEP}", {"v": claim_source("late")}, node=None)

        def condition():
            for x in c.pod("waits").get("status", {}).get("conditions", []):
                if x["type"] == "PodScheduled" and x["status"] == "False":
                    return x["message"]
            return None
        self.assertEqual(until(condition, 10, c.all_logs), 'persistentvolumeclaim "late" not found')
        c.claim("late", cls="none")
        until(lambda: condition() == "pod has unbound immediate PersistentVolumeClaims", 10, c.all_logs)
        until(lambda: any("ProvisioningFailed" in e and '"none" not found' in e for e in c.events("late")), 10, c.all_logs)
        c.post("/apis/storage.k8s.io/v1/storageclasses", {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "none"},
                                                         "provisioner": "csi.kuayu.io", "parameters": {"volume": "factory"}})
        c.bound("late")
        c.wait_phase("waits", "Running")
        self.patch("/api/v1/namespaces/default/persistentvolumeclaims/late", {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
        until(lambda: any("does not allow volumes to grow" in e for e in c.events("late")), 10, c.all_logs)
        c.delete_pod("waits", grace=0)

    def test_wait_for_first_consumer_and_default_class(self):
        c = self.c
        c.post("/apis/storage.k8s.io/v1/storageclasses", {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "csi.kuayu.io", "parameters": {"volume": "factory"},
            "metadata": {"name": "lazy", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Retain"})
        c.claim("first", cls=None)
        until(lambda: c.get("persistentvolumeclaims", "first")["spec"].get("storageClassName") == "lazy", 10, c.all_logs)
        until(lambda: any("WaitForFirstConsumer" in e for e in c.events("first")), 10, c.all_logs)
        self.assertEqual(c.get("persistentvolumeclaims", "first")["status"]["phase"], "Pending")
        c.volume_pod("consumer", f"echo mine >/v/f; echo up; {SLEEP}", {"v": claim_source("first")}, node=None)
        claim = c.bound("first")
        pod = c.wait_phase("consumer", "Running")
        self.assertEqual(claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] in c.nodes, True)
        self.assertIn(pod["spec"]["nodeName"], c.nodes)
        # Retain: the volume and the data stay, Released; given to another claim by hand
        name = claim["spec"]["volumeName"]
        c.delete_pod("consumer", grace=0)
        self.delete("persistentvolumeclaims", "first")
        self.gone("persistentvolumeclaims", "first")
        until(lambda: c.get("persistentvolumes", name)["status"]["phase"] == "Released", 10, c.all_logs)
        self.assertEqual((self.folders / name / "f").read_text(), "mine\n")
        self.patch(f"/api/v1/persistentvolumes/{name}", {"spec": {"claimRef": None}})
        until(lambda: c.get("persistentvolumes", name)["status"]["phase"] == "Available", 10, c.all_logs)
        c.claim("second", cls="lazy", volumeName=name)
        self.assertEqual(c.bound("second")["spec"]["volumeName"], name)

    def test_stateful_set(self):
        c = self.c
        c.create({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
            "replicas": 2, "serviceName": "db", "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "db"}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": "busybox:1", "command": ["sh", "-c", f"hostname >>/data/me; cat /data/me; echo up; {SLEEP}"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "factory", "resources": {"requests": {"storage": "1Mi"}}}}]}})
        names = {}
        for i in range(2):
            names[i] = c.bound(f"data-db-{i}")["spec"]["volumeName"]
            pod = c.wait_phase(f"db-{i}", "Running")
            c.wait_log(f"db-{i}", "up", node=pod["spec"]["nodeName"])
            self.assertEqual((self.folders / names[i] / "me").read_text(), f"db-{i}\n")
        self.assertNotEqual(names[0], names[1])
        # a pod that is made anew finds its data
        uid = c.pod("db-1")["metadata"]["uid"]
        c.delete_pod("db-1", grace=0)
        until(lambda: (c.pod("db-1") or {}).get("metadata", {}).get("uid", uid) != uid, 20, c.all_logs)
        c.wait_phase("db-1", "Running")
        until(lambda: (self.folders / names[1] / "me").read_text() == "db-1\ndb-1\n", 10, c.all_logs)
        # scaled down: its claim is kept; the set deleted: they go
        self.patch("/apis/apps/v1/namespaces/default/statefulsets/db", {"spec": {"replicas": 1}})
        c.wait_gone("db-1")
        self.assertEqual(c.bound("data-db-1")["spec"]["volumeName"], names[1])
        c.request("DELETE", "/apis/apps/v1/namespaces/default/statefulsets/db")
        for i in range(2):
            self.gone("persistentvolumeclaims", f"data-db-{i}")
            self.gone("persistentvolumes", names[i])

    def test_growing(self):
        c = self.c
        c.claim("grows")
        pv = c.bound("grows")["spec"]["volumeName"]
        self.patch("/api/v1/namespaces/default/persistentvolumeclaims/grows", {"spec": {"resources": {"requests": {"storage": "5Gi"}}}})
        until(lambda: c.get("persistentvolumeclaims", "grows")["status"]["capacity"]["storage"] == "5Gi", 15, c.all_logs)
        self.assertEqual(c.get("persistentvolumes", pv)["spec"]["capacity"]["storage"], "5Gi")
        self.assertEqual(json.loads((c.volumes / f"factory/.kuayu-csi/meta/{pv}.json").read_text())["bytes"], 5 << 30)

    def test_inline_and_host_path(self):
        c = self.c
        (c.dir / "by-hand").mkdir()
        c.post("/api/v1/persistentvolumes", {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "by-hand"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "hostPath": {"path": str(c.dir / "by-hand")}}})
        c.claim("hand", cls="")
        self.assertEqual(c.bound("hand")["spec"]["volumeName"], "by-hand")
        inline = {"csi": {"driver": "csi.kuayu.io", "volumeAttributes": {"volume": "factory", "path": "/drop/box"}}}
        c.volume_pod("both", f"echo one >/i/f; echo two >/h/f; echo $NAME >/e/f; echo up; {SLEEP}", {"i": inline, "h": claim_source("hand")}, "a1",
                     [{"name": "i", "mountPath": "/i"}, {"name": "h", "mountPath": "/h"}, {"name": "i", "mountPath": "/e", "subPathExpr": "x-$(NAME)"}])
        # the environment comes with the container
        c.delete_pod("both", grace=0)
        c.wait_gone("both")
        c.run_pod("both2", f"echo one >/i/f; echo two >/h/f; echo three >/e/f; echo up; {SLEEP}", container={
            "env": [{"name": "NAME", "value": "n1"}], "volumeMounts": [{"name": "i", "mountPath": "/i"}, {"name": "h", "mountPath": "/h"},
                                                                         {"name": "i", "mountPath": "/e", "subPathExpr": "x-$(NAME)"}]},
            volumes=[{"name": "i", **inline}, {"name": "h", **claim_source("hand")}])
        c.wait_log("both2", "up", seconds=25)
        self.assertEqual((c.volumes / "factory/drop/box/f").read_text(), "one\n")
        self.assertEqual((c.dir / "by-hand/f").read_text(), "two\n")
        self.assertEqual((c.volumes / "factory/drop/box/x-n1/f").read_text(), "three\n")
        c.delete_pod("both2", grace=0)
        c.wait_gone("both2")

    def test_the_agent_restarts(self):
        c = self.c
        c.claim("kept")
        c.bound("kept")
        c.volume_pod("stays", f"echo up; while sleep 0.1; do date >/v/now; done", {"v": claim_source("kept")}, "b1")
        c.wait_log("stays", "up", node="b1")
        before = len(c.mounted("b1"))
        c.nodes["b1"].kill()
        c.nodes["b1"].start(f"--csi-endpoint={c.endpoint('b1')}")
        until(lambda: "adopted" in c.nodes["b1"].log.read_text(), 10, c.all_logs)
        c.volume_pod("second", f"cat /v/now; echo up; {SLEEP}", {"v": claim_source("kept")}, "b1")
        c.wait_log("second", "up", node="b1")
        self.assertEqual(len(c.mounted("b1")), before + 1, c.mounted("b1"))
        for name in ("stays", "second"):
            c.delete_pod(name, grace=0)
            c.wait_gone(name)
        until(lambda: not [m for m in c.mounted("b1") if m.endswith("mount")], 10, lambda: f"{c.mounted('b1')}\n{c.all_logs()}")

    def test_the_driver_is_away(self):
        c = self.c
        c.claim("away")
        c.bound("away")
        c.stop_driver("b1")
        c.volume_pod("patient", f"echo up; {SLEEP}", {"v": claim_source("away")}, "b1")
        until(lambda: any(e.startswith("FailedMount") for e in c.events("patient")), 20, c.all_logs)
        self.assertEqual(c.pod("patient")["status"]["phase"], "Pending")
        c.start_driver("b1")
        c.wait_log("patient", "up", node="b1", seconds=30)
        c.delete_pod("patient", grace=0)
        c.wait_gone("patient")

    def test_a_volume_that_hangs(self):
        """The agent never waits for a volume: its lease and other pods go on, and so does what waited when the volume answers again."""
        c = self.c
        c.claim("stuck")
        c.bound("stuck")
        c.volume_pod("before", f"echo up; {SLEEP}", {"v": claim_source("stuck")}, "b1")
        c.wait_log("before", "up", node="b1")
        pids = c.nodes["b1"].inside("pgrep", "-f", f"passthrough .* {c.dir}/csi-b1/mounts/factory").split()
        c.nodes["b1"].inside("kill", "-STOP", *pids)
        try:
            for i in range(3):
                c.volume_pod(f"stuck-{i}", f"cat /v/x; echo up; {SLEEP}", {"v": claim_source("stuck")}, "b1")
            c.run_pod("other", f"echo up; {SLEEP}", node="b1")
            c.wait_log("other", "up", node="b1")
            c.delete_pod("before", grace=0)
            c.wait_gone("before")
            end = time.monotonic() + 6  # longer than a node may be silent
            while time.monotonic() < end:
                self.assertTrue(c.node_ready("b1"), c.all_logs())
                time.sleep(0.5)
            self.assertEqual([c.pod(f"stuck-{i}")["status"]["phase"] for i in range(3)], ["Pending"] * 3)
        finally:
            c.nodes["b1"].inside("kill", "-CONT", *pids)
        for i in range(3):
            c.wait_log(f"stuck-{i}", "up", node="b1", seconds=60)
            c.delete_pod(f"stuck-{i}", grace=0)
        for name in ("stuck-0", "stuck-1", "stuck-2"):
            c.wait_gone(name)
        c.delete_pod("other", grace=0)

    def test_the_mount_dies_under_a_pod(self):
        c = self.c
        c.claim("hit")
        name = c.bound("hit")["spec"]["volumeName"]
        c.volume_pod("lives", "echo up; while sleep 0.1; do cat /v/f 2>&1; done", {"v": claim_source("hit")}, "b1")
        c.wait_log("lives", "up", node="b1")
        mount = f"{c.dir}/csi-b1/mounts/factory"
        pids = [p for p in c.nodes["b1"].inside("pgrep", "-f", f"passthrough .* {mount}").split()]
        self.assertEqual(len(pids), 1)
        c.nodes["b1"].inside("kill", "-9", *pids)
        c.wait_log("lives", "not connected", node="b1")
        (self.folders / name / "f").write_text("fresh\n")
        c.wait_log("lives", "fresh", node="b1")  # in the container that was there before
        c.delete_pod("lives", grace=0)
        c.wait_gone("lives")
        until(lambda: not [m for m in c.mounted("b1") if m.endswith("mount")], 10, lambda: f"{c.mounted('b1')}\n{c.all_logs()}")


if __name__ == "__main__":
    unittest.main()
