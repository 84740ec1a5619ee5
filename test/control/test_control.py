# SPDX-License-Identifier: Apache-2.0
"""`kuayu controller` against a real `kuayu api`: scaling, rollout, roll back, ordered stateful sets, endpoints, death and return of a
node, fencing of singletons, garbage collection, namespaces, change of leader."""
import json
import time
import unittest
import urllib.request

from test.api.server import KUBECTLS, wait_for
from test.control.cluster import MERGE, Cluster

TEMPLATE = {"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "busybox:1", "ports": [{"name": "http", "containerPort": 80}]}]}}


def workload(kind, name, replicas, **spec):
    t = json.loads(json.dumps(TEMPLATE))
    t["metadata"]["labels"]["app"] = name
    t["spec"]["terminationGracePeriodSeconds"] = 1
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": t, **spec}}


class ControlTest(unittest.TestCase):
    controllers = 1

    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(controllers=cls.controllers)
        cls.s = cls.c.server
        try:
            wait_for(lambda: all(n.get("spec", {}).get("podCIDR") and not n["spec"].get("taints")
                                 for n in cls.s.call("GET", "/api/v1/nodes")[1]["items"]), 15, "nodes ready\n")
        except BaseException:
            print(cls.c.log())
            cls.c.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.c.close()

    def setUp(self):
        self.ns = "t" + self.id().rsplit(".", 1)[1].replace("_", "-").lower()[:40]
        self.api = "/apis/apps/v1/namespaces/%s/" % self.ns
        self.assertEqual(self.s.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace",
                                                                     "metadata": {"name": self.ns}})[0], 201)

    def tearDown(self):
        self.s.call("DELETE", "/api/v1/namespaces/" + self.ns)

    def within(self, seconds, what, why):
        try:
            return wait_for(what, seconds, why)
        except AssertionError:
            print(self.c.log())
            print(self.s.kubectl("get", "all,endpointslices", "-n", self.ns, "-o", "wide"))
            raise

    def create(self, plural, obj):
        base = self.api if obj["apiVersion"] == "apps/v1" else "/api/v1/namespaces/%s/" % self.ns
        status, got = self.s.call("POST", base + plural, obj)
        self.assertEqual(status, 201, got)
        return got

    def items(self, path):
        """What there is: no answer is no empty list."""
        def answer():
            status, got = self.s.call("GET", path)
            return [got["items"]] if status == 200 else None
        return wait_for(answer, 5, "an answer to GET " + path)[0]

    def pods(self, app=None):
        return [p for p in self.items("/api/v1/namespaces/%s/pods" % self.ns) if not app or p["metadata"]["labels"].get("app") == app]

    def ready(self, app=None):
        return [p for p in self.pods(app) if not p["metadata"].get("deletionTimestamp") and
                any(c["type"] == "Ready" and c["status"] == "True" for c in p.get("status", {}).get("conditions", []))]

    def get(self, plural, name):
        return self.s.call("GET", self.api + plural + "/" + name)[1]

    def endpoints(self, service):
        out = []
        for s in self.items("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices" % self.ns):
            if s["metadata"]["labels"].get("kubernetes.io/service-name") == service:
                out += s["endpoints"] or []
        return out


class Workloads(ControlTest):
    def test_nodes_have_distinct_cidrs(self):
        cidrs = [n["spec"]["podCIDR"] for n in self.items("/api/v1/nodes")]
        self.assertEqual(sorted(cidrs), ["10.78.0.0/24", "10.78.1.0/24", "10.78.2.0/24"])

    def test_replicaset_scale(self):
        self.create("replicasets", workload("ReplicaSet", "rs", 4))
        self.within(10, lambda: self.get("replicasets", "rs")["status"].get("availableReplicas") == 4, "4 pods")
        self.s.kubectl("scale", "-n", self.ns, "rs/rs", "--replicas=1")
        self.within(10, lambda: len(self.pods()) == 1 and self.get("replicasets", "rs")["status"]["replicas"] == 1, "1 pod")
        self.s.call("DELETE", "/api/v1/namespaces/%s/pods/%s" % (self.ns, self.pods()[0]["metadata"]["name"]))
        self.within(10, lambda: len(self.ready()) == 1, "replaced")

    def test_deployment_rollout_and_undo(self):
        self.create("deployments", workload("Deployment", "web", 6))
        self.s.kubectl("rollout", "status", "-n", self.ns, "deployment/web", "--timeout=20s")
        least, most, stop = [99], [0], []

        def watch():
            n = len(self.ready("web"))
            least[0], most[0] = min(least[0], n), max(most[0], len([p for p in self.pods("web") if not p["metadata"].get("deletionTimestamp")]))

        self.s.kubectl("set", "image", "-n", self.ns, "deployment/web", "c=busybox:2")

        def done():
            watch()
            d = self.get("deployments", "web")
            return d["status"].get("updatedReplicas") == 6 and d["status"].get("replicas") == 6 and d["status"].get("availableReplicas") == 6 \
                and d["status"]["observedGeneration"] == d["metadata"]["generation"]

        self.within(30, done, "rolled out")
        self.assertGreaterEqual(least[0], 5)  # 6 - 25 % = 5
        self.assertLessEqual(most[0], 8)      # 6 + 25 % = 8
        self.assertEqual({p["spec"]["containers"][0]["image"] for p in self.ready("web")}, {"busybox:2"})
        self.assertIn("2", self.s.kubectl("rollout", "history", "-n", self.ns, "deployment/web"))
        self.s.kubectl("rollout", "undo", "-n", self.ns, "deployment/web")
        self.within(30, lambda: done() and {p["spec"]["containers"][0]["image"] for p in self.pods("web")} == {"busybox:1"}, "undone")
        self.assertEqual(self.get("deployments", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3")
        self.assertEqual(len(self.items(self.api + "replicasets")), 2)
        self.s.kubectl("rollout", "status", "-n", self.ns, "deployment/web", "--timeout=20s")
        del stop

    def test_deployment_recreate(self):
        d = workload("Deployment", "re", 3, strategy={"type": "Recreate"})
        self.create("deployments", d)
        self.within(15, lambda: len(self.ready("re")) == 3, "3 pods")
        mixed = []

        def done():
            images = {p["spec"]["containers"][0]["image"] for p in self.pods("re")}
            mixed.append(len(images) > 1)
            return images == {"busybox:2"} and len(self.ready("re")) == 3

        self.s.kubectl("set", "image", "-n", self.ns, "deployment/re", "c=busybox:2")
        self.within(20, done, "recreated")
        self.assertFalse(any(mixed))

    def test_deployment_deadline(self):
        self.c.nodes.unready.add("bad-")
        self.create("deployments", workload("Deployment", "bad", 1, progressDeadlineSeconds=2))
        self.within(15, lambda: any(c["type"] == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded"
                                    for c in self.get("deployments", "bad").get("status", {}).get("conditions", [])), "deadline")

    def test_statefulset_order(self):
        seen = []
        self.create("statefulsets", workload("StatefulSet", "db", 3, serviceName="db"))

        def done():
            ready = {p["metadata"]["name"] for p in self.ready("db")}
            for p in self.pods("db"):
                n = int(p["metadata"]["name"][3:])
                if p["metadata"]["name"] not in seen:
                    self.assertTrue(all("db-%d" % i in ready or "db-%d" % i in seen for i in range(n)), "%s before its predecessors" % p["metadata"]["name"])
                    seen.append(p["metadata"]["name"])
            return len(ready) == 3

        self.within(20, done, "3 members")
        self.assertEqual(seen, ["db-0", "db-1", "db-2"])
        pod = self.pods("db")[1]
        self.assertEqual(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1")
        self.assertEqual(pod["spec"]["hostname"], "db-1")
        self.s.kubectl("patch", "-n", self.ns, "statefulset/db", "--type=merge", "-p",
                       '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":2}}}}')
        self.s.kubectl("set", "image", "-n", self.ns, "statefulset/db", "c=busybox:2")
        self.within(20, lambda: {p["metadata"]["name"] for p in self.ready("db") if p["spec"]["containers"][0]["image"] == "busybox:2"} == {"db-2"} and
                    len(self.ready("db")) == 3, "partition")
        self.s.kubectl("patch", "-n", self.ns, "statefulset/db", "--type=merge", "-p",
                       '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}')
        self.s.kubectl("rollout", "status", "-n", self.ns, "statefulset/db", "--timeout=20s")
        self.assertEqual({p["spec"]["containers"][0]["image"] for p in self.pods("db")}, {"busybox:2"})
        self.s.kubectl("scale", "-n", self.ns, "statefulset/db", "--replicas=1")
        self.within(20, lambda: [p["metadata"]["name"] for p in self.pods("db")] == ["db-0"], "scaled down")

    def test_endpoints(self):
        self.create("services", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                                 "spec": {"selector": {"app": "ep"}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]}})
        self.within(5, lambda: self.items("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices" % self.ns), "an empty slice")
        self.create("deployments", workload("Deployment", "ep", 3))
        self.within(15, lambda: len([e for e in self.endpoints("web") if e["conditions"]["ready"]]) == 3, "3 endpoints")
        e = self.endpoints("web")[0]
        self.assertEqual(e["zone"], e["nodeName"][0])
        s = self.items("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices" % self.ns)[0]
        self.assertEqual(s["ports"][0]["port"], 80)
        old = "/api/v1/namespaces/%s/endpoints/" % self.ns

        def addresses():
            subsets = self.s.call("GET", old + "web")[1].get("subsets", [])
            return [a["ip"] for x in subsets for a in x.get("addresses", [])], [x["ports"] for x in subsets]
        self.within(5, lambda: len(addresses()[0]) == 3, "the older form of them")
        self.assertEqual(addresses()[1], [[{"name": "http", "port": 80, "protocol": "TCP"}]])
        for kubectl in KUBECTLS:
            self.assertRegex(self.s.kubectl("describe", "service", "web", "-n", self.ns, binary=kubectl), r"Endpoints: +10\.78\.0\.\d+:80,")
            self.assertRegex(self.s.kubectl("get", "endpoints", "kubernetes", binary=kubectl), r"127\.0\.0\.1:\d+ ")
        mine = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "theirs"}, "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]}
        self.create("endpoints", mine)
        self.create("services", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs"},
                                 "spec": {"selector": {"app": "ep"}, "ports": [{"port": 80}]}})
        self.within(5, lambda: self.endpoints("theirs"), "slices")
        self.assertEqual(self.s.call("GET", old + "theirs")[1]["subsets"][0]["addresses"], [{"ip": "192.0.2.1"}], "left alone")
        self.s.call("DELETE", "/api/v1/namespaces/%s/services/web" % self.ns)
        self.within(10, lambda: not self.endpoints("web"), "slices follow their service")
        self.within(10, lambda: self.s.call("GET", old + "web")[0] == 404, "and the older form")

    def test_taint_that_people_set(self):
        d = workload("Deployment", "tainted", 3)
        d["spec"]["template"]["spec"]["tolerations"] = [{"key": "repair", "operator": "Equal", "value": "never", "effect": "NoExecute"}]
        self.create("deployments", d)
        patient = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "patient", "labels": {"app": "patient"}},
                   "spec": {"nodeName": "b1", "containers": [{"name": "c", "image": "x:1"}],
                            "tolerations": [{"key": "repair", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 4}]}}
        self.create("pods", patient)
        self.within(15, lambda: len(self.ready("tainted")) == 3 and self.ready("patient"), "4 pods")
        self.s.kubectl("taint", "node", "b1", "repair=now:NoExecute")
        began = time.monotonic()
        try:
            self.within(10, lambda: len(self.ready("tainted")) == 3 and not [p for p in self.pods("tainted") if p["spec"].get("nodeName") == "b1"],
                        "pods leave")
            if time.monotonic() - began < 3:
                self.assertTrue(self.ready("patient"), "it has 4 s")
            self.within(10, lambda: not self.pods("patient"), "its time is over")
            self.assertGreater(time.monotonic() - began, 2.5)
        finally:
            self.s.kubectl("taint", "node", "b1", "repair-")

    def test_garbage_background_foreground_orphan(self):
        for name in ("bg", "fg", "or"):
            self.create("deployments", workload("Deployment", name, 2))
        self.within(20, lambda: len(self.ready()) == 6, "6 pods")
        self.s.kubectl("delete", "-n", self.ns, "deployment/bg", "--wait=false")
        self.within(15, lambda: not self.pods("bg"), "background")
        self.s.kubectl("delete", "-n", self.ns, "deployment/fg", "--cascade=foreground", "--timeout=15s")
        self.assertFalse(self.pods("fg"))
        self.s.kubectl("delete", "-n", self.ns, "deployment/or", "--cascade=orphan", "--timeout=15s")
        time.sleep(1)
        self.assertEqual(len(self.ready("or")), 2)
        rs = [r for r in self.items(self.api + "replicasets") if r["metadata"]["labels"].get("app") == "or"]
        self.assertEqual(len(rs), 1)
        self.assertFalse(rs[0]["metadata"].get("ownerReferences"))

    def test_namespace_deletion(self):
        self.create("deployments", workload("Deployment", "gone", 3))
        self.within(15, lambda: len(self.ready("gone")) == 3, "3 pods")
        self.s.kubectl("delete", "namespace", self.ns, "--timeout=20s")
        self.assertEqual(self.s.call("GET", "/api/v1/namespaces/" + self.ns)[0], 404)

    def test_metrics(self):
        port = self.c.controllers[0].port
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=5) as r:
            text = r.read().decode()
        self.assertIn("kuayu_controller_leader 1", text)
        self.assertIn('kuayu_node_verdict{node="a1",verdict="ready"} 1', text)
        with urllib.request.urlopen("http://127.0.0.1:%d/healthz" % port, timeout=5) as r:
            self.assertEqual(r.read(), b"ok")


class NodeDeath(ControlTest):
    controllers = 2

    def on_node(self, app, node):
        return [p for p in self.pods(app) if p["spec"].get("nodeName") == node]

    def test_death_and_return(self):
        n = self.c.nodes
        self.create("services", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                                 "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
        self.create("deployments", workload("Deployment", "web", 6))
        self.create("statefulsets", workload("StatefulSet", "one", 3, serviceName="one", podManagementPolicy="Parallel"))
        bound = workload("StatefulSet", "bound", 3, serviceName="bound", podManagementPolicy="Parallel")
        bound["spec"]["template"]["spec"]["tolerations"] = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
        self.create("statefulsets", bound)
        self.within(20, lambda: len(self.ready("web")) == 6 and len(self.ready("one")) == 3 and len(self.ready("bound")) == 3, "all ready")
        victim = self.pods("one")[0]["spec"]["nodeName"]
        old = {p["metadata"]["uid"] for p in self.on_node("one", victim)}
        kept = {p["metadata"]["uid"] for p in self.on_node("bound", victim)}
        cut = time.monotonic()
        renewed = n.power_off(victim)
        self.within(8, lambda: len([p for p in self.pods("web") if p["spec"].get("nodeName") != victim]) == 6, "web replaced")
        replaced = time.monotonic() - cut
        self.assertLess(replaced, 8)
        self.assertFalse(any(e["conditions"]["ready"] and e["nodeName"] == victim for e in self.endpoints("web")))
        # Singletons wait until their node has surely stopped them.
        while True:
            there = {p["metadata"]["uid"] for p in self.pods("one")}
            if time.monotonic() - renewed >= 4.5:  # when the answer came
                break
            self.assertTrue(old <= there, "a singleton was replaced too early")
            time.sleep(0.05)
        self.within(8, lambda: len(self.ready("one")) == 3 and not self.on_node("one", victim), "singletons replaced")
        fenced = time.monotonic() - cut
        self.assertGreaterEqual(time.monotonic() - renewed, 4.5)
        self.assertLess(fenced, 10)
        self.assertEqual(kept, {p["metadata"]["uid"] for p in self.on_node("bound", victim)}, "bound members stay")
        self.assertFalse([p for p in self.ready("bound") if p["spec"]["nodeName"] == victim])
        reasons = {e["reason"] for e in self.items("/api/v1/namespaces/default/events") if e["involvedObject"].get("name") == victim}
        self.assertLessEqual({"NodeSilent", "NodeDead", "NodeFenced", "PodsEvicted"}, reasons)
        self.within(5, lambda: "PodsReplaced" in {e["reason"] for e in self.items("/api/v1/namespaces/default/events")}, "told that they are replaced")
        n.power_on(victim)
        self.within(10, lambda: not self.s.call("GET", "/api/v1/nodes/" + victim)[1]["spec"].get("taints"), "taints go")
        self.within(5, lambda: len(self.ready("bound")) == 3, "members that stayed are ready again")
        print("\nreplaced %.2f s, singletons %.2f s after the cut" % (replaced, fenced))

    def test_short_silence_changes_nothing(self):
        """A lease that is late although the peers hear the node: slow, not dead."""
        self.create("deployments", workload("Deployment", "calm", 3))
        self.within(15, lambda: len(self.ready("calm")) == 3, "3 pods")
        before = {p["metadata"]["uid"] for p in self.pods("calm")}
        self.c.nodes.silent.add("b1")
        time.sleep(1.5)
        self.c.nodes.silent.discard("b1")
        time.sleep(1.5)
        self.assertEqual(before, {p["metadata"]["uid"] for p in self.pods("calm")})
        self.assertFalse(self.s.call("GET", "/api/v1/nodes/b1")[1]["spec"].get("taints"))

    def test_leader_dies(self):
        self.create("deployments", workload("Deployment", "led", 2))
        self.within(15, lambda: len(self.ready("led")) == 2, "2 pods")
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kuayu-controller"
        holder = self.s.call("GET", lease)[1]["spec"]["holderIdentity"]
        i = int(holder[1:])
        self.c.controllers[i].kill()
        self.c.controllers[i].wait(10)
        self.s.call("PATCH", self.api + "deployments/led", {"spec": {"replicas": 5}}, MERGE)
        self.within(10, lambda: len(self.ready("led")) == 5, "the other one works")
        self.assertNotEqual(self.s.call("GET", lease)[1]["spec"]["holderIdentity"], holder)
        self.assertEqual(len(self.pods("led")), 5)
        self.c.controllers[i] = self.c.controller(holder)
        self.c.controllers.pop()

    def test_node_deleted(self):
        self.c.nodes.ended.is_set()
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lost"},
               "spec": {"nodeName": "nowhere", "containers": [{"name": "c", "image": "x:1"}]}}
        self.create("pods", pod)
        self.within(15, lambda: not self.pods(), "a pod of a node that does not exist")


if __name__ == "__main__":
    unittest.main()
