# SPDX-License-Identifier: Apache-2.0
"""What a person types: real kubectl (the one on the PATH and Debian 12's 1.20) against the API alone. No controller runs, so what
controllers would do (status, pods of deployments) is written by the test."""
import json
import os
import subprocess
import unittest

from test.api.server import KUBECTLS, Fixture, wait_for

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: img:1
        env: [{name: A, value: "1"}]
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: single}}
spec:
  nodeName: %s
  containers: [{name: main, image: "img:1"}]
"""


STORAGE = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: csi.kuayu.io
parameters: {volume: factory}
allowVolumeExpansion: true
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: csi.kuayu.io}
spec: {attachRequired: false}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: by-hand}
spec:
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteMany]
  csi: {driver: csi.kuayu.io, volumeHandle: factory/by-hand}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: reports}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: fast
  resources: {requests: {storage: 1Gi}}
"""


class Flows:
    """Every test once a kubectl; see the classes below."""
    binary = None

    @classmethod
    def setUpClass(cls):
        cls.fix = Fixture()
        cls.s = cls.fix.server

    @classmethod
    def tearDownClass(cls):
        cls.fix.close()

    def k(self, *args, **kw):
        return self.s.kubectl(*args, binary=self.binary, **kw)

    def json(self, *args):
        return json.loads(self.k(*args, "-o", "json"))

    def status(self, plural, name, status, group="apis/apps/v1"):
        code, answer = self.s.call("PATCH", "/%s/namespaces/default/%s/%s/status" % (group, plural, name), {"status": status},
                                   {"Content-Type": "application/merge-patch+json"})
        self.assertEqual(code, 200, answer)

    def test_storage(self):
        out = self.k("apply", "-f", "-", stdin=STORAGE)
        for name in ("storageclass.storage.k8s.io/fast", "csidriver.storage.k8s.io/csi.kuayu.io", "persistentvolume/by-hand",
                     "persistentvolumeclaim/reports"):
            self.assertIn(name + " created", out)
        self.assertNotIn("created", self.k("apply", "-f", "-", stdin=STORAGE))
        self.assertRegex(self.k("get", "pvc"), r"NAME +STATUS +VOLUME +CAPACITY +ACCESS MODES +STORAGECLASS .*AGE\n(.*\n)*reports +Pending +fast ")
        self.assertRegex(self.k("get", "pv"), r"by-hand +5Gi +RWX +Retain +Pending ")
        self.assertRegex(self.k("get", "sc"), r"fast \(default\) +csi.kuayu.io +Delete +Immediate +true ")
        self.k("patch", "pvc", "reports", "--type=merge", "-p", '{"spec":{"volumeName":"by-hand"}}')
        self.status("persistentvolumeclaims", "reports", {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"]}, "api/v1")
        text = self.k("describe", "pvc", "reports")
        for part in ("StorageClass:  fast", "Status:        Bound", "[kubernetes.io/pvc-protection]", "Capacity:      1Gi", "Access Modes:  RWX"):
            self.assertIn(part, text)
        text = self.k("describe", "pv", "by-hand")
        for part in ("Reclaim Policy:  Retain", "Driver:            csi.kuayu.io", "VolumeHandle:      factory/by-hand"):
            self.assertIn(part, text)
        self.assertIn("Provisioner:           csi.kuayu.io", self.k("describe", "sc", "fast"))
        self.assertIn("storageClassName", self.k("explain", "pvc.spec"))
        self.k("patch", "pvc", "reports", "--type=merge", "-p", '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}')
        self.assertIn("spec is immutable", self.k("patch", "pvc", "reports", "--type=merge", "-p", '{"spec":{"accessModes":["ReadOnlyMany"]}}', ok=False))
        for kind, name in (("pvc", "reports"), ("pv", "by-hand")):  # no controller here: the finalizers are taken away by hand
            self.k("delete", kind, name, "--wait=false")
            self.assertIn("Terminating", self.k("get", kind))
            self.k("patch", kind, name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            self.assertIn("NotFound", self.k("get", kind, name, ok=False))
        self.k("delete", "sc/fast", "csidriver/csi.kuayu.io")

    def test_apply(self):
        out = self.k("apply", "-f", "-", stdin=MANIFEST)
        self.assertIn("deployment.apps/web created", out)
        self.assertIn("deployment.apps/web unchanged", self.k("apply", "-f", "-", stdin=MANIFEST))
        changed = MANIFEST.replace("img:1", "img:2").replace(', value: "1"', ', value: "2"').replace("colour: red", "shape: round")
        self.assertIn("deployment.apps/web configured", self.k("apply", "-f", "-", stdin=changed))
        self.assertEqual(self.json("get", "configmap", "settings")["data"], {"shape": "round"}, "apply takes away what has gone")
        main = self.json("get", "deployment", "web")["spec"]["template"]["spec"]["containers"]
        self.assertEqual([(c["image"], c["env"][0]["value"], c["ports"][0]["containerPort"]) for c in main], [("img:2", "2", 80)])
        diff = self.k("diff", "-f", "-", stdin=changed.replace("img:2", "img:3"), ok=False)
        self.assertRegex(diff, r"(?m)^\+.*image: img:3$")
        self.k("delete", "-f", "-", stdin=MANIFEST)
        self.assertIn("No resources found", self.k("get", "deployments", ok=False))

    def test_create_with_validation(self):
        bad = self.k("create", "-f", "-", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\nsurprise: 1\n", ok=False)
        self.assertIn("surprise", bad)
        bad = self.k("apply", "-f", "-", stdin=MANIFEST.replace("replicas: 2", "replicas: 2\n  replikas: 3"), ok=False)
        self.assertIn("replikas", bad)
        self.k("delete", "-f", "-", "--ignore-not-found", stdin=MANIFEST)
        bad = self.k("create", "-f", "-", stdin=POD.replace('image: "img:1"', 'image: ""') % ("bad", "n1"), ok=False)
        self.assertIn("spec.containers[0].image", bad)

    def test_generators(self):
        self.k("create", "configmap", "made", "--from-literal=a=b")
        self.k("create", "secret", "generic", "made", "--from-literal=p=q")
        self.k("create", "deployment", "made", "--image=img:1")
        self.k("create", "namespace", "made")
        self.k("create", "service", "clusterip", "made", "--tcp=80:8080", "-n", "made")
        self.k("run", "made", "--image=img:1")
        self.k("expose", "deployment", "made", "--port=80", "--name=exposed")
        self.assertEqual(self.json("get", "service", "exposed")["spec"]["selector"], {"app": "made"})
        self.assertEqual(self.json("get", "secret", "made")["data"], {"p": "cQ=="})
        self.k("delete", "namespace", "made", "--timeout=15s")
        self.k("delete", "pod/made", "deploy/made", "cm/made", "secret/made", "svc/exposed")

    def test_get_forms(self):
        self.k("create", "-f", "-", stdin=POD % ("looks", "n1"))
        self.assertRegex(self.k("get", "pods", "-o", "wide"), r"NAME +READY +STATUS +RESTARTS +AGE +IP +NODE")
        self.assertRegex(self.k("get", "pods"), r"looks +0/1 +Pending +0 ")
        self.assertIn("NAMESPACE", self.k("get", "pods", "-A"))
        self.assertEqual(self.k("get", "pod", "looks", "-o", "jsonpath={.spec.nodeName}"), "n1")
        self.assertIn("pod/looks", self.k("get", "all", "-o", "name"))
        self.assertIn("app=single", self.k("get", "pods", "--show-labels"))
        self.assertIn("looks", self.k("get", "pods", "-l", "app in (single, double)", "--field-selector", "spec.nodeName=n1,status.phase!=Running"))
        self.assertIn("Node:", self.k("describe", "pod", "looks"))
        self.assertIn("containers", self.k("explain", "pod.spec"))
        self.assertIn("deployments", self.k("api-resources"))
        self.assertIn("apps/v1", self.k("api-versions"))
        self.assertIn('pods "none" not found', self.k("get", "pod", "none", ok=False))
        self.k("delete", "pod", "looks", "--grace-period=0", "--force")

    def test_scale_and_rollout(self):
        self.k("create", "deployment", "roll", "--image=img:1")
        self.k("scale", "deployment", "roll", "--replicas=3")
        self.assertEqual(self.json("get", "deployment", "roll")["spec"]["replicas"], 3)
        self.assertIn("error", self.k("scale", "deployment", "roll", "--replicas=4", "--current-replicas=9", ok=False))
        self.k("set", "image", "deployment/roll", "*=img:2")
        gen = self.json("get", "deployment", "roll")["metadata"]["generation"]
        self.assertEqual(gen, 3)
        self.status("deployments", "roll", {"observedGeneration": gen, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
                                            "availableReplicas": 3,
                                            "conditions": [{"type": "Available", "status": "True"}]})
        self.assertIn("successfully rolled out", self.k("rollout", "status", "deployment/roll", "--timeout=10s"))
        self.assertRegex(self.k("get", "deployment", "roll"), r"roll +3/3 +3 +3 ")
        self.k("wait", "--for=condition=Available", "deployment/roll", "--timeout=10s")
        self.history()
        self.k("rollout", "restart", "deployment/roll")
        self.k("delete", "deployment", "roll")

    def history(self):
        d = self.json("get", "deployment", "roll")
        for rev, image in ((1, "img:1"), (2, "img:2")):
            rs = {"apiVersion": "apps/v1", "kind": "ReplicaSet",
                  "metadata": {"name": "roll-%d" % rev, "labels": {"app": "roll", "pod-template-hash": "h%d" % rev},
                               "annotations": {"deployment.kubernetes.io/revision": str(rev)},
                               "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "roll", "uid": d["metadata"]["uid"],
                                                    "controller": True, "blockOwnerDeletion": True}]},
                  "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "roll", "pod-template-hash": "h%d" % rev}},
                           "template": {"metadata": {"labels": {"app": "roll", "pod-template-hash": "h%d" % rev}},
                                        "spec": {"containers": [{"name": d["spec"]["template"]["spec"]["containers"][0]["name"],
                                                                 "image": image}]}}}}
            self.k("create", "-f", "-", stdin=json.dumps(rs))
        self.k("annotate", "deployment", "roll", "deployment.kubernetes.io/revision=2")
        self.assertRegex(self.k("rollout", "history", "deployment/roll"), r"(?s)REVISION.*1.*2")
        self.k("rollout", "undo", "deployment/roll", "--to-revision=1")
        self.assertEqual(self.json("get", "deployment", "roll")["spec"]["template"]["spec"]["containers"][0]["image"], "img:1")
        self.k("delete", "rs", "-l", "app=roll")

    def test_label_annotate_patch_edit(self):
        self.k("create", "configmap", "marked", "--from-literal=a=b")
        self.k("label", "configmap", "marked", "x=1")
        self.assertIn("error", self.k("label", "configmap", "marked", "x=2", ok=False))
        self.k("label", "configmap", "marked", "x=2", "--overwrite")
        self.k("label", "configmap", "marked", "x-")
        self.k("annotate", "configmap", "marked", "note=hello world")
        self.k("patch", "configmap", "marked", "-p", '{"data":{"c":"d"}}')
        self.k("patch", "configmap", "marked", "--type=merge", "-p", '{"data":{"a":null}}')
        self.k("patch", "configmap", "marked", "--type=json", "-p", '[{"op":"add","path":"/data/e","value":"f"}]')
        got = self.json("get", "configmap", "marked")
        self.assertEqual((got["data"], got["metadata"]["annotations"], got["metadata"].get("labels")), ({"c": "d", "e": "f"}, {"note": "hello world"}, None))
        self.k("replace", "-f", "-", stdin=json.dumps(dict(got, data={"new": "1"})))
        self.assertIn("object has been modified", self.k("replace", "-f", "-", stdin=json.dumps(got), ok=False))
        env = dict(os.environ, KUBECONFIG=self.s.kubeconfig, HOME=self.fix.folder, KUBE_EDITOR="sed -i s/new:/newer:/")
        p = subprocess.run([self.binary, "edit", "configmap", "marked"], env=env, capture_output=True, text=True, timeout=30)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(self.json("get", "configmap", "marked")["data"], {"newer": "1"})
        self.k("delete", "configmap", "marked")

    def test_nodes(self):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}},
                "status": {"capacity": {"cpu": "4", "memory": "8Gi"}, "allocatable": {"cpu": "4", "memory": "8Gi"},
                           "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}}
        self.k("create", "-f", "-", stdin=json.dumps(node))
        self.assertRegex(self.k("get", "nodes"), r"n1 +Ready ")
        self.k("cordon", "n1")
        self.assertRegex(self.k("get", "nodes"), r"n1 +Ready,SchedulingDisabled ")
        self.k("uncordon", "n1")
        self.k("taint", "node", "n1", "only=me:NoSchedule")
        self.assertEqual(self.json("get", "node", "n1")["spec"]["taints"], [{"key": "only", "value": "me", "effect": "NoSchedule"}])
        self.k("create", "-f", "-", stdin=POD.replace("spec:", "spec:\n  terminationGracePeriodSeconds: 0") % ("drained", "n1"))
        self.assertIn("drained", self.k("describe", "node", "n1"))
        self.assertIn("drained", self.k("drain", "n1", "--force", "--timeout=15s"))
        self.assertIn("not found", self.k("get", "pod", "drained", ok=False))
        self.assertTrue(self.json("get", "node", "n1")["spec"]["unschedulable"])
        self.k("delete", "node", "n1")

    def test_questions_and_refusals(self):
        self.assertEqual(self.k("auth", "can-i", "delete", "pods").strip(), "yes")
        self.assertIn("*", self.k("auth", "can-i", "--list"))
        if "unknown command" not in (who := self.k("auth", "whoami", ok=False)):
            self.assertIn("admin", who)
        self.k("create", "-f", "-", stdin=POD % ("refused", "n3"))
        self.assertIn("kuayu does not offer pods/exec", self.k("exec", "refused", "--", "ls", ok=False))
        self.assertIn("kuayu does not offer pods/attach", self.k("attach", "refused", ok=False))
        self.assertIn("kuayu does not offer jobs in batch/v1", self.k("create", "job", "j", "--image=x", ok=False))
        self.assertIn("may not be deleted", self.k("delete", "namespace", "default", ok=False))
        self.assertIn("server-side apply is not offered", self.k("apply", "--server-side", "-f", "-", stdin=POD % ("refused", "n3"), ok=False))
        self.k("delete", "pod", "refused", "--force", "--grace-period=0")

    def test_node_port(self):
        self.k("create", "service", "nodeport", "outside", "--tcp=80:8080")
        port = self.json("get", "service", "outside")["spec"]["ports"][0]["nodePort"]
        self.assertIn("80:%d/TCP" % port, self.k("get", "service", "outside"))
        self.k("patch", "service", "outside", "-p", '{"spec":{"type":"ClusterIP"}}')
        self.assertNotIn("nodePort", self.json("get", "service", "outside")["spec"]["ports"][0])
        self.k("delete", "service", "outside")

    def test_wait_and_watch(self):
        self.k("create", "-f", "-", stdin=POD % ("waited", "n2"))
        env = dict(os.environ, KUBECONFIG=self.s.kubeconfig, HOME=self.fix.folder)
        args = [self.binary, "wait", "--for=condition=Ready", "pod/waited", "--timeout=15s"]
        with subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
            self.status("pods", "waited", {"phase": "Running", "podIP": "10.78.0.9", "conditions": [{"type": "Ready", "status": "True"}],
                                           "containerStatuses": [{"name": "main", "ready": True, "restartCount": 0, "image": "img:1", "imageID": "x",
                                                                  "state": {"running": {}}}]}, "api/v1")
            out, _ = p.communicate(timeout=20)
            self.assertEqual(p.returncode, 0, out)
        self.assertRegex(self.k("get", "pods", "-o", "wide"), r"waited +1/1 +Running +0 +\S+ +10.78.0.9 +n2 ")
        with subprocess.Popen([self.binary, "delete", "pod", "waited"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True) as p:
            wait_for(lambda: self.s.call("GET", "/api/v1/namespaces/default/pods/waited")[1]["metadata"].get("deletionTimestamp"), 10,
                     "deletion begins")
            self.assertRegex(self.k("get", "pods"), r"waited +1/1 +Terminating ")
            self.assertIsNone(p.poll(), "kubectl waits for the node agent")
            self.s.call("DELETE", "/api/v1/namespaces/default/pods/waited?gracePeriodSeconds=0")
            out, _ = p.communicate(timeout=20)
            self.assertEqual(p.returncode, 0, out)

    def test_stateful_set(self):
        sts = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "img:1"}]}
"""
        self.k("apply", "-f", "-", stdin=sts)
        self.k("scale", "statefulset", "db", "--replicas=1")
        self.assertRegex(self.k("get", "sts"), r"db +0/1 ")
        self.assertIn("db", self.k("describe", "sts", "db"))
        self.k("delete", "sts", "db", "--cascade=orphan" if "1.20" not in self.k("version", "--client") else "--cascade=false", "--wait=false")
        self.assertEqual(self.json("get", "sts", "db")["metadata"]["finalizers"], ["orphan"])
        self.k("patch", "sts", "db", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        self.assertIn("not found", self.k("get", "sts", "db", ok=False))


for number, path in enumerate(KUBECTLS):
    name = "Kubectl%d" % number
    globals()[name] = type(name, (Flows, unittest.TestCase), {"binary": path, "__doc__": path})


class Present(unittest.TestCase):
    def test_a_kubectl_is_there(self):
        self.assertTrue(KUBECTLS, "no kubectl is installed: ./dev setup")
