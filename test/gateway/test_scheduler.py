# SPDX-License-Identifier: Apache-2.0
"""`kuayu scheduler` against a real API server with Node objects made by hand: bindings, reasons, events, waking up, two schedulers."""
import unittest

from test.gateway.platform import ApiError, Platform, http_get, metric, wait_for

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"


class SchedulerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.ports = [cls.p.role(f"scheduler-{i}", "scheduler", f"--identity={i}") for i in range(2)]

    def setUp(self):
        self.made = []

    def tearDown(self):
        for path in reversed(self.made):
            try:
                self.p.call("DELETE", path, {"gracePeriodSeconds": 0})
            except ApiError as e:
                self.assertEqual(e.status, 404)

    def node(self, name, cpu="4", memory="8Gi", ready=True, **labels):
        self.p.create(NODES, {"apiVersion": "v1", "kind": "Node",
                              "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}})
        self.made.append(f"{NODES}/{name}")
        self.p.patch(f"{NODES}/{name}/status", {"status": {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}})

    def pod(self, name, cpu="100m", labels=None, **spec):
        self.p.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}},
                             "spec": {"containers": [{"name": "c", "image": "x:1",
                                                      "resources": {"requests": {"cpu": cpu}}}], **spec}})
        self.made.append(f"{PODS}/{name}")

    def node_of(self, name):
        return self.p.get(f"{PODS}/{name}")["spec"].get("nodeName")

    def scheduled(self, name):
        return wait_for(f"{name} has a node", 5, lambda: self.node_of(name))

    def condition(self, name):
        for c in self.p.get(f"{PODS}/{name}").get("status", {}).get("conditions", []):
            if c["type"] == "PodScheduled":
                return c
        return {}

    def refused(self, name, message):
        wait_for(f"{name} is refused: {message}", 5, lambda: self.condition(name).get("message") == message)
        self.assertEqual(self.condition(name)["status"], "False")
        self.assertEqual(self.condition(name)["reason"], "Unschedulable")
        self.assertIsNone(self.node_of(name))

    def events(self, name):
        return [(e["reason"], e["message"]) for e in self.p.get("/api/v1/namespaces/default/events")["items"]
                if e["involvedObject"].get("name") == name]

    def test_binds(self):
        self.node("a1")
        self.pod("simple")
        self.assertEqual(self.scheduled("simple"), "a1")
        self.assertEqual(self.condition("simple").get("status"), "True")
        wait_for("the event", 3, lambda: ("Scheduled", "Successfully assigned default/simple to a1") in self.events("simple"))

    def test_tells_why_not_and_wakes_up(self):
        self.pod("big", cpu="3")
        self.refused("big", "no nodes available to schedule pods")
        self.node("a1", cpu="2")
        self.node("b1", ready=False)
        message = ("0/2 nodes are available: 1 Insufficient cpu, "
                   "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.")
        self.refused("big", message)
        wait_for("the event", 3, lambda: ("FailedScheduling", message) in self.events("big"))
        self.p.patch(f"{NODES}/b1/status", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        self.assertEqual(self.scheduled("big"), "b1")
        self.assertEqual(self.condition("big").get("status"), "True")

    def test_freed_room_is_used(self):
        self.node("a1", cpu="1")
        self.pod("first", cpu="800m")
        self.scheduled("first")
        self.pod("second", cpu="800m")
        self.refused("second", "0/1 nodes are available: 1 Insufficient cpu.")
        self.p.call("DELETE", f"{PODS}/first", {"gracePeriodSeconds": 0})
        self.assertEqual(self.scheduled("second"), "a1")

    def test_many_pods_exactly_fill(self):
        for name in ("a1", "b1", "c1"):
            self.node(name, cpu="4")
        for i in range(130):
            self.pod(f"p-{i}", cpu="100m")
        items = lambda: self.p.get(PODS)["items"]
        wait_for("all places are taken", 10, lambda: sum(1 for p in items() if p["spec"].get("nodeName")) == 120)
        count = {}
        for p in items():
            node = p["spec"].get("nodeName")
            count[node] = count.get(node, 0) + 1
        self.assertEqual(count, {"a1": 40, "b1": 40, "c1": 40, None: 10})

    def test_anti_affinity(self):
        term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "topology.kubernetes.io/zone"}
        spec = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
        for zone in "abc":
            self.node(zone + "1", **{"topology.kubernetes.io/zone": zone})
        for i in range(4):
            self.pod(f"db-{i}", labels={"app": "db"}, **spec)
        self.assertEqual({self.scheduled(f"db-{i}") for i in range(3)}, {"a1", "b1", "c1"})
        self.refused("db-3", "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.")

    def test_pods_of_another_scheduler_are_left_alone(self):
        self.node("a1")
        self.pod("other", schedulerName="somebody")
        self.pod("ours")
        self.scheduled("ours")
        self.assertIsNone(self.node_of("other"))

    def test_z_second_scheduler_takes_over(self):
        self.node("a1")
        leaders = lambda: [i for i in range(2) if metric(self.ports[i], "kuayu_scheduler_leader") == 1]
        wait_for("one leads", 8, lambda: len(leaders()) == 1)
        first = leaders()[0]
        self.p.kill(f"scheduler-{first}")
        self.pod("after")
        self.assertEqual(wait_for("after has a node", 10, lambda: self.node_of("after")), "a1")
        self.assertEqual(http_get(self.ports[1 - first], "/healthz")[0], 200)
        wait_for("it is counted", 5, lambda: metric(self.ports[1 - first], "kuayu_scheduler_pod_seconds_count") >= 1)


if __name__ == "__main__":
    unittest.main()
