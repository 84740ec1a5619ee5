# SPDX-License-Identifier: Apache-2.0
"""The REST API by hand: verbs, conflicts, selectors, pages, watches, deletion, errors. No controller runs."""
import base64
import http.server
import random
import ssl
import threading
import time
import unittest

from test.api.server import KUBECTLS, Fixture, free_port, wait_for

NS = "/api/v1/namespaces/default"


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name, node=None, labels=None, **meta):
    p = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}, **meta},
         "spec": {"containers": [{"name": "c", "image": "img:1"}]}}
    if node:
        p["spec"]["nodeName"] = node
    return p


def deployment(name, replicas=1):
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                     "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "img:1"}]}}}}


class Rest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.fix = Fixture("--event-window=200")
        cls.s = cls.fix.server

    @classmethod
    def tearDownClass(cls):
        cls.fix.close()

    def call(self, want, method, path, body=None, headers=None):
        status, answer = self.s.call(method, path, body, headers)
        self.assertEqual(status, want, "%s %s: %s" % (method, path, answer))
        return answer

    def create(self, obj, path=NS, want=201):
        plural = {"ConfigMap": "configmaps", "Pod": "pods", "Service": "services", "Secret": "secrets"}[obj["kind"]]
        return self.call(want, "POST", path + "/" + plural, obj)

    def test_create_get_delete(self):
        made = self.create(config_map("cm-a", a="b"))
        self.assertTrue(made["metadata"]["uid"] and made["metadata"]["creationTimestamp"] and made["metadata"]["resourceVersion"])
        self.assertEqual(made["metadata"]["namespace"], "default")
        self.assertEqual(self.call(200, "GET", NS + "/configmaps/cm-a"), made)
        again = self.create(config_map("cm-a"), want=409)
        self.assertEqual(again["reason"], "AlreadyExists")
        gone = self.call(200, "DELETE", NS + "/configmaps/cm-a")
        self.assertEqual((gone["kind"], gone["status"], gone["details"]["uid"]), ("Status", "Success", made["metadata"]["uid"]))
        missing = self.call(404, "GET", NS + "/configmaps/cm-a")
        self.assertEqual((missing["reason"], missing["details"]["name"]), ("NotFound", "cm-a"))

    def test_generate_name(self):
        obj = config_map("")
        obj["metadata"] = {"generateName": "gen-"}
        a, b = self.create(obj), self.create(obj)
        self.assertNotEqual(a["metadata"]["name"], b["metadata"]["name"])
        self.assertTrue(a["metadata"]["name"].startswith("gen-"))

    def test_invalid(self):
        bad = self.create(config_map("Not_A_Name"), want=422)
        self.assertEqual(bad["reason"], "Invalid")
        self.assertEqual(bad["details"]["causes"][0]["field"], "metadata.name")
        self.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "no-containers"}, "spec": {"containers": []}}, want=422)
        self.call(400, "POST", NS + "/configmaps", b"{nonsense")
        self.call(400, "POST", NS + "/configmaps", pod("x"))
        self.call(404, "POST", "/api/v1/namespaces/nowhere/configmaps", config_map("x"))
        self.call(404, "GET", "/apis/nothing.example/v1/things")
        self.call(405, "POST", NS + "/configmaps/x/status", {})
        self.call(415, "POST", NS + "/configmaps", b"a: b", {"Content-Type": "application/yaml"})
        self.call(413, "POST", NS + "/configmaps", b" " * (4 << 20))

    def test_field_validation(self):
        obj = dict(config_map("strict"), surprise=1)
        strict = self.call(400, "POST", NS + "/configmaps?fieldValidation=Strict", obj)
        self.assertIn('unknown field "surprise"', strict["message"])
        with self.s.open("POST", NS + "/configmaps?fieldValidation=Warn", obj) as r:
            self.assertIn('unknown field', r.headers["Warning"])
        self.assertNotIn("surprise", self.call(200, "GET", NS + "/configmaps/strict"))

    def test_update_conflict(self):
        made = self.create(config_map("cm-u", n="0"))
        first = self.call(200, "PUT", NS + "/configmaps/cm-u", dict(made, data={"n": "1"}))
        stale = self.call(409, "PUT", NS + "/configmaps/cm-u", dict(made, data={"n": "2"}))
        self.assertEqual(stale["reason"], "Conflict")
        same = self.call(200, "PUT", NS + "/configmaps/cm-u", first)
        self.assertEqual(same["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"], "an update that changes nothing is no change")
        free = self.call(200, "PUT", NS + "/configmaps/cm-u", config_map("cm-u", n="3"))
        self.assertEqual(free["metadata"]["uid"], made["metadata"]["uid"])
        self.call(404, "PUT", NS + "/configmaps/cm-none", config_map("cm-none"))
        self.call(400, "PUT", NS + "/configmaps/cm-u", config_map("cm-other"))

    def test_patches(self):
        self.create(config_map("cm-p", a="1", b="2"))
        path = NS + "/configmaps/cm-p"
        merged = self.call(200, "PATCH", path, {"data": {"a": None, "c": "3"}}, {"Content-Type": "application/merge-patch+json"})
        self.assertEqual(merged["data"], {"b": "2", "c": "3"})
        js = self.call(200, "PATCH", path, [{"op": "test", "path": "/data/b", "value": "2"}, {"op": "remove", "path": "/data/b"}],
                       {"Content-Type": "application/json-patch+json"})
        self.assertEqual(js["data"], {"c": "3"})
        self.call(422, "PATCH", path, [{"op": "test", "path": "/data/c", "value": "9"}], {"Content-Type": "application/json-patch+json"})
        self.call(409, "PATCH", path, {"metadata": {"resourceVersion": "1"}}, {"Content-Type": "application/merge-patch+json"})
        ssa = self.call(415, "PATCH", path, b"{}", {"Content-Type": "application/apply-patch+yaml"})
        self.assertIn("server-side apply", ssa["message"])

    def test_strategic_patch_and_generation(self):
        made = self.call(201, "POST", "/apis/apps/v1/namespaces/default/deployments", deployment("dep-s"))
        self.assertEqual(made["metadata"]["generation"], 1)
        path = "/apis/apps/v1/namespaces/default/deployments/dep-s"
        sm = {"Content-Type": "application/strategic-merge-patch+json"}
        got = self.call(200, "PATCH", path, {"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "img:2"}]}}}}, sm)
        self.assertEqual({c["name"] for c in got["spec"]["template"]["spec"]["containers"]}, {"c", "d"})
        self.assertEqual(got["metadata"]["generation"], 2)
        got = self.call(200, "PATCH", path, {"metadata": {"labels": {"x": "y"}}}, sm)
        self.assertEqual(got["metadata"]["generation"], 2, "labels are no change of the spec")
        got = self.call(200, "PATCH", path + "/status", {"status": {"replicas": 1, "observedGeneration": 2}, "spec": {"replicas": 9}}, sm)
        self.assertEqual((got["spec"]["replicas"], got["status"]["replicas"], got["metadata"]["generation"]), (1, 1, 2))
        got = self.call(200, "PUT", path, dict(got, status={"replicas": 7}))
        self.assertEqual(got["status"]["replicas"], 1, "status only by its subresource")
        scale = self.call(200, "GET", path + "/scale")
        self.assertEqual((scale["kind"], scale["spec"]["replicas"], scale["status"]["selector"]), ("Scale", 1, "app=dep-s"))
        scale["spec"]["replicas"] = 4
        self.assertEqual(self.call(200, "PUT", path + "/scale", scale)["spec"]["replicas"], 4)
        self.assertEqual(self.call(409, "PUT", path + "/scale", scale)["reason"], "Conflict")
        self.call(200, "PATCH", path + "/scale", {"spec": {"replicas": 2}}, {"Content-Type": "application/merge-patch+json"})
        self.assertEqual(self.call(200, "GET", path)["spec"]["replicas"], 2)

    def test_concurrent_patches(self):
        """Nothing is lost when many write the same object."""
        self.create(config_map("cm-many"))
        errors = []

        def run(i):
            for j in range(5):
                status, answer = self.s.call("PATCH", NS + "/configmaps/cm-many", {"data": {"k%d-%d" % (i, j): "x"}},
                                             {"Content-Type": "application/merge-patch+json"})
                if status != 200:
                    errors.append(answer)
        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(errors, [])
        self.assertEqual(len(self.call(200, "GET", NS + "/configmaps/cm-many")["data"]), 20)

    def test_list_selectors_pages(self):
        self.call(201, "POST", "/api/v1/namespaces", {"metadata": {"name": "pages"}})
        for i in range(7):
            obj = config_map("c%d" % i)
            obj["metadata"]["labels"] = {"parity": "even" if i % 2 == 0 else "odd"}
            self.create(obj, "/api/v1/namespaces/pages")
        path = "/api/v1/namespaces/pages/configmaps"
        names = lambda l: [o["metadata"]["name"] for o in l["items"]]
        self.assertEqual(names(self.call(200, "GET", path + "?labelSelector=parity%3Deven")), ["c0", "c2", "c4", "c6"])
        self.assertEqual(names(self.call(200, "GET", path + "?labelSelector=parity+in+(odd)")), ["c1", "c3", "c5"])
        self.assertEqual(names(self.call(200, "GET", path + "?fieldSelector=metadata.name%3Dc3")), ["c3"])
        self.call(400, "GET", path + "?fieldSelector=spec.what%3Dc3")
        self.call(400, "GET", path + "?labelSelector=%3D%3D")
        page = self.call(200, "GET", path + "?limit=3")
        self.assertEqual((names(page), page["metadata"]["remainingItemCount"]), (["c0", "c1", "c2"], 4))
        self.call(200, "DELETE", path + "/c5")  # the pages show the state of the first one
        page2 = self.call(200, "GET", path + "?limit=3&continue=" + page["metadata"]["continue"])
        self.assertEqual(names(page2), ["c3", "c4", "c5"])
        page3 = self.call(200, "GET", path + "?limit=3&continue=" + page2["metadata"]["continue"])
        self.assertEqual(names(page3), ["c6"])
        self.assertNotIn("continue", page3["metadata"])
        self.call(400, "GET", path + "?limit=3&continue=nonsense")
        self.assertEqual(names(self.call(200, "GET", path)), ["c0", "c1", "c2", "c3", "c4", "c6"])
        wait_for(lambda: len(self.call(200, "GET", path + "?resourceVersion=0")["items"]) == 6, 5, "the cache follows")
        deleted = self.call(200, "DELETE", path + "?labelSelector=parity%3Dodd")
        self.assertEqual(deleted["kind"], "ConfigMapList")
        self.assertEqual(names(self.call(200, "GET", path)), ["c0", "c2", "c4", "c6"])
        self.call(504, "GET", path + "?resourceVersion=999999999")

    def test_tables_and_metadata(self):
        self.create(pod("table-pod"))
        table = self.call(200, "GET", NS + "/pods?fieldSelector=metadata.name%3Dtable-pod", None,
                          {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"})
        self.assertEqual((table["kind"], table["apiVersion"]), ("Table", "meta.k8s.io/v1"))
        self.assertEqual(table["columnDefinitions"][0]["name"], "Name")
        self.assertEqual(table["rows"][0]["cells"][0], "table-pod")
        self.assertEqual(table["rows"][0]["object"]["kind"], "PartialObjectMetadata")
        partial = self.call(200, "GET", NS + "/pods/table-pod", None, {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"})
        self.assertEqual((partial["kind"], "spec" in partial), ("PartialObjectMetadata", False))
        lst = self.call(200, "GET", NS + "/pods", None, {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"})
        self.assertEqual(lst["kind"], "PartialObjectMetadataList")

    def test_dry_run(self):
        self.call(201, "POST", NS + "/configmaps?dryRun=All", config_map("dry"))
        self.call(404, "GET", NS + "/configmaps/dry")
        self.create(config_map("dry2", a="1"))
        got = self.call(200, "PATCH", NS + "/configmaps/dry2?dryRun=All", {"data": {"a": "2"}}, {"Content-Type": "application/merge-patch+json"})
        self.assertEqual(got["data"]["a"], "2")
        self.call(200, "DELETE", NS + "/configmaps/dry2?dryRun=All")
        self.assertEqual(self.call(200, "GET", NS + "/configmaps/dry2")["data"]["a"], "1")
        self.call(400, "POST", NS + "/configmaps?dryRun=Some", config_map("dry"))

    def test_pod_deletion(self):
        self.create(pod("unscheduled"))
        self.call(200, "DELETE", NS + "/pods/unscheduled")
        self.call(404, "GET", NS + "/pods/unscheduled")
        self.create(pod("graceful", node="n1"))
        gone = self.call(200, "DELETE", NS + "/pods/graceful", {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 20})
        self.assertEqual(gone["metadata"]["deletionGracePeriodSeconds"], 20)
        again = self.call(200, "DELETE", NS + "/pods/graceful")
        self.assertEqual(again["metadata"]["deletionTimestamp"], gone["metadata"]["deletionTimestamp"], "a deletion is never put off")
        wrong = self.call(409, "DELETE", NS + "/pods/graceful", {"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}})
        self.assertEqual(wrong["reason"], "Conflict")
        self.call(200, "DELETE", NS + "/pods/graceful?gracePeriodSeconds=0")
        self.call(404, "GET", NS + "/pods/graceful")

    def test_finalizers(self):
        obj = config_map("held")
        obj["metadata"]["finalizers"] = ["example.com/hold"]
        self.create(obj)
        held = self.call(200, "DELETE", NS + "/configmaps/held")
        self.assertTrue(held["metadata"]["deletionTimestamp"])
        self.assertEqual(self.call(200, "GET", NS + "/configmaps/held")["metadata"]["finalizers"], ["example.com/hold"])
        self.call(200, "PATCH", NS + "/configmaps/held", {"metadata": {"finalizers": None}}, {"Content-Type": "application/merge-patch+json"})
        self.call(404, "GET", NS + "/configmaps/held")
        self.create(config_map("parent"))
        fg = self.call(200, "DELETE", NS + "/configmaps/parent", {"propagationPolicy": "Foreground"})
        self.assertEqual(fg["metadata"]["finalizers"], ["foregroundDeletion"])
        bg = self.call(200, "DELETE", NS + "/configmaps/parent", {"propagationPolicy": "Background"})
        self.assertEqual(bg["status"], "Success")
        self.call(404, "GET", NS + "/configmaps/parent")

    def test_binding_eviction_logs(self):
        made = self.create(pod("bindme"))
        self.assertEqual((made["status"]["phase"], made["status"]["qosClass"]), ("Pending", "BestEffort"))
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bindme"}, "target": {"kind": "Node", "name": "n7"}}
        self.assertEqual(self.call(201, "POST", NS + "/pods/bindme/binding", binding)["status"], "Success")
        bound = self.call(200, "GET", NS + "/pods/bindme")
        self.assertEqual((bound["spec"]["nodeName"], bound["status"]["conditions"][0]["type"]), ("n7", "PodScheduled"))
        self.assertEqual(self.call(409, "POST", NS + "/pods/bindme/binding", binding)["reason"], "Conflict")
        self.call(503, "GET", NS + "/pods/bindme/log")
        self.call(404, "GET", NS + "/pods/nobody/log")
        self.call(201, "POST", NS + "/pods/bindme/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "bindme"},
                                                             "deleteOptions": {"gracePeriodSeconds": 0}})
        self.call(404, "GET", NS + "/pods/bindme")

    def test_service_addresses(self):
        svc = lambda name, **spec: {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}
        a, b = self.create(svc("svc-a")), self.create(svc("svc-b"))
        ip = a["spec"]["clusterIP"]
        self.assertTrue(ip.startswith("10.96.") and ip != b["spec"]["clusterIP"])
        self.assertEqual(self.create(svc("svc-c", clusterIP=ip), want=422)["reason"], "Invalid")
        self.create(svc("svc-c", clusterIP="192.0.2.1"), want=422)
        self.assertEqual(self.create(svc("svc-none", clusterIP="None"))["spec"]["clusterIP"], "None")
        put = svc("svc-a", selector={"a": "b"})
        self.assertEqual(self.call(200, "PUT", NS + "/services/svc-a", put)["spec"]["clusterIP"], ip, "kept when left out")
        self.call(200, "DELETE", NS + "/services/svc-a")
        self.assertEqual(self.create(svc("svc-c", clusterIP=ip))["spec"]["clusterIP"], ip, "a freed address can be had again")
        kubernetes = self.call(200, "GET", NS + "/services/kubernetes")
        self.assertEqual(kubernetes["spec"]["clusterIP"], "10.96.0.1")
        ends = wait_for(lambda: self.s.call("GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")[1].get("endpoints"),
                        5, "own endpoint")
        self.assertEqual(ends[0]["addresses"], ["127.0.0.1"])

    def test_node_ports(self):
        def svc(name, *ports, **spec):
            return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": "NodePort", "ports": list(ports), **spec}}

        def ports_of(s):
            return [p.get("nodePort") for p in s["spec"]["ports"]]

        one, two = self.create(svc("np-a", {"port": 80})), self.create(svc("np-b", {"port": 80}))
        a, b = ports_of(one)[0], ports_of(two)[0]
        self.assertTrue(30000 <= a <= 32767 and 30000 <= b <= 32767 and a != b, (a, b))
        dns = ports_of(self.create(svc("np-dns", {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53})))
        self.assertEqual(dns[0], dns[1], "one node port for both protocols")
        taken = self.create(svc("np-c", {"port": 80, "nodePort": a}), want=422)
        self.assertIn("spec.ports[0].nodePort: Invalid value: %d: provided port is already allocated" % a, taken["message"])
        self.assertIn("30000-32767", self.create(svc("np-c", {"port": 80, "nodePort": 80}), want=422)["message"])
        self.assertEqual(ports_of(self.call(200, "PUT", NS + "/services/np-a", svc("np-a", {"port": 80, "targetPort": 8080}))), [a],
                         "kept when left out")
        merge = {"Content-Type": "application/merge-patch+json"}
        self.call(422, "PATCH", NS + "/services/np-b", {"spec": {"ports": [{"port": 80, "nodePort": a}]}}, merge)
        inside = self.call(200, "PATCH", NS + "/services/np-a", {"spec": {"type": "ClusterIP"}}, merge)
        self.assertEqual((ports_of(inside), inside["spec"].get("externalTrafficPolicy")), ([None], None))
        self.assertEqual(ports_of(self.create(svc("np-c", {"port": 80, "nodePort": a}))), [a], "given back")
        self.call(200, "DELETE", NS + "/services/np-c")
        self.assertEqual(ports_of(self.call(200, "PATCH", NS + "/services/np-b", {"spec": {"ports": [{"port": 80, "nodePort": a}]}}, merge)), [a])
        self.assertEqual(ports_of(self.create(svc("np-d", {"port": 80, "nodePort": b}))), [b], "the former one is free")
        many = self.create(svc("np-e", *[{"name": "p%d" % i, "port": 1000 + i} for i in range(31)]), want=422)
        self.assertIn("at most 30 node ports", many["message"])
        self.assertEqual(len(set(ports_of(self.create(svc("np-e", *[{"name": "p%d" % i, "port": 1000 + i} for i in range(30)]))))), 30)

    def test_service_becomes_another_type(self):
        merge = {"Content-Type": "application/merge-patch+json"}
        made = self.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alias"},
                            "spec": {"type": "ExternalName", "externalName": "example.org"}})
        self.assertNotIn("clusterIP", made["spec"])
        got = self.call(200, "PATCH", NS + "/services/alias", {"spec": {"type": "ClusterIP", "externalName": None, "ports": [{"port": 80}]}}, merge)
        ip = got["spec"]["clusterIP"]
        self.assertEqual((ip[:6], got["spec"]["clusterIPs"]), ("10.96.", [ip]))
        back = self.call(200, "PATCH", NS + "/services/alias", {"spec": {"type": "ExternalName", "externalName": "example.org"}}, merge)
        self.assertNotIn("clusterIP", back["spec"])
        other = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alias2"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}}
        self.assertEqual(self.create(other)["spec"]["clusterIP"], ip, "given back")

    def test_what_the_platform_lives_in_stays(self):
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            answer = self.call(403, "DELETE", "/api/v1/namespaces/" + name)
            self.assertEqual(answer["message"], 'namespaces "%s" is forbidden: this namespace may not be deleted' % name)
        self.call(405, "DELETE", "/api/v1/namespaces")
        self.call(200, "DELETE", NS + "/services/kubernetes")
        wait_for(lambda: self.s.call("GET", NS + "/services/kubernetes")[0] == 200, 5, "default/kubernetes comes back")
        self.assertEqual(self.s.call("GET", NS + "/services/kubernetes")[1]["spec"]["clusterIP"], "10.96.0.1")

    def test_scale_is_a_number(self):
        path = "/apis/apps/v1/namespaces/default/deployments"
        self.call(201, "POST", path, deployment("scaled", 3))
        merge = {"Content-Type": "application/merge-patch+json"}
        for wrong in ("x", "5", 1.5, True, [1], -1):
            self.call(422, "PATCH", path + "/scaled/scale", {"spec": {"replicas": wrong}}, merge)
        self.call(422, "PATCH", path + "/scaled/scale", [{"op": "replace", "path": "", "value": []}], {"Content-Type": "application/json-patch+json"})
        self.assertEqual(self.call(200, "GET", path + "/scaled")["spec"]["replicas"], 3)
        self.assertEqual(self.call(200, "PATCH", path + "/scaled/scale", {"spec": {"replicas": 0}}, merge)["spec"]["replicas"], 0)
        self.call(200, "DELETE", path + "/scaled")

    def test_refusals_say_what_is_missing(self):
        self.create(pod("refuse", node="nowhere"))
        for sub in ("exec?command=ls", "attach", "portforward", "proxy", "ephemeralcontainers"):
            answer = self.call(405, "GET", NS + "/pods/refuse/" + sub)
            self.assertEqual(answer["message"], "kuayu does not offer pods/" + sub.split("?")[0])
        answer = self.call(404, "POST", "/apis/batch/v1/namespaces/default/jobs", {"kind": "Job"})
        self.assertTrue(answer["message"].endswith("kuayu does not offer jobs in batch/v1"), answer)
        self.assertIn("does not offer clusterroles in", self.call(404, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles")["message"])
        self.assertIn("does not offer resourcequotas in v1", self.call(404, "POST", NS + "/resourcequotas", {})["message"])
        self.assertEqual(self.call(404, "GET", "/api/v1/pods/refuse")["message"], "the server could not find the requested resource")
        large = self.call(413, "POST", NS + "/configmaps", config_map("large", a="x" * 3200000))
        self.assertEqual((large["reason"], large["message"]), ("RequestEntityTooLarge", "Request entity too large: limit is 3145728"))
        self.call(422, "GET", NS + "/pods?resourceVersion=0&resourceVersionMatch=Exact")
        self.call(422, "GET", NS + "/pods?resourceVersion=1&resourceVersionMatch=Newer")
        two = pod("two-of-them", node="nowhere")
        two["spec"]["containers"].append({"name": "d", "image": "img:1"})
        two["spec"]["initContainers"] = [{"name": "i", "image": "img:1"}]
        self.create(two)
        self.assertIn("choose one of: [c d] or one of the init containers: [i]", self.call(400, "GET", NS + "/pods/two-of-them/log")["message"])

    def test_what_is_carried_out_in_part_is_warned_of(self):
        def warnings(method, path, body, kind="application/json"):
            with self.s.open(method, path, body, {"Content-Type": kind}) as r:
                return [w.split('"')[1] for w in r.headers.get_all("Warning") or []]

        p = pod("warned")
        p["spec"]["volumes"] = [{"name": "a", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "b", "emptyDir": {"sizeLimit": "1Mi", "medium": "Memory"}}]
        p["spec"]["containers"][0]["resources"] = {"limits": {"ephemeral-storage": "1Gi", "cpu": "1"}}
        p["spec"]["serviceAccountName"] = "robot"
        self.assertEqual(warnings("POST", NS + "/pods", p),
                         ["spec.volumes[0].emptyDir.sizeLimit: kuayu enforces it with medium Memory only",
                          "spec.serviceAccountName: kuayu gives pods no token of their service account",
                          "spec.containers[0].resources.limits[ephemeral-storage]: kuayu does not enforce it"])
        self.assertEqual(warnings("PATCH", NS + "/pods/warned", {"metadata": {"labels": {"a": "b"}}}, "application/merge-patch+json"), [])
        self.assertEqual(warnings("POST", NS + "/services", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "warned"},
                                                            "spec": {"type": "ExternalName", "externalName": "a.b"}}),
                         ["spec.externalName: kuayu has no DNS server: pods cannot look the Service's name up"])

    def test_a_watch_ahead_of_the_store_ends(self):
        began = time.monotonic()
        events = list(self.s.watch(NS + "/pods?watch=1&resourceVersion=99999999&timeoutSeconds=60", timeout=20))
        self.assertEqual([(e["type"], e["object"]["code"]) for e in events], [("ERROR", 504)])
        self.assertIn("Too large resource version: 99999999", events[0]["object"]["message"])
        self.assertLess(time.monotonic() - began, 10)

    def test_secret_string_data(self):
        got = self.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "stringData": {"p": "q"}})
        self.assertEqual((got["data"], got["type"]), ({"p": base64.b64encode(b"q").decode()}, "Opaque"))
        self.assertNotIn("stringData", got)

    def test_node_and_lease(self):
        node = self.call(201, "POST", "/api/v1/nodes", {"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": "2"}}})
        self.assertEqual(node["status"]["capacity"]["cpu"], "2")
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}}
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        self.call(201, "PUT", path + "/n1", lease)
        lease["spec"]["holderIdentity"] = "n2"
        self.assertEqual(self.call(200, "PUT", path + "/n1", lease)["spec"]["holderIdentity"], "n2")

    def test_namespace_ends(self):
        self.call(201, "POST", "/api/v1/namespaces", {"metadata": {"name": "ending"}})
        obj = config_map("in-it")
        obj["metadata"]["finalizers"] = ["example.com/hold"]
        self.create(obj, "/api/v1/namespaces/ending")
        self.create(config_map("other"), "/api/v1/namespaces/ending")
        ns = self.call(200, "DELETE", "/api/v1/namespaces/ending")
        self.assertEqual(ns["status"]["phase"], "Terminating")
        self.create(config_map("late"), "/api/v1/namespaces/ending", want=403)
        wait_for(lambda: self.s.call("GET", "/api/v1/namespaces/ending/configmaps/other")[0] == 404, 10, "content goes")
        self.call(200, "GET", "/api/v1/namespaces/ending")
        self.call(200, "PATCH", "/api/v1/namespaces/ending/configmaps/in-it", {"metadata": {"finalizers": None}},
                  {"Content-Type": "application/merge-patch+json"})
        wait_for(lambda: self.s.call("GET", "/api/v1/namespaces/ending")[0] == 404, 10, "namespace goes")

    def test_watch(self):
        rev = self.call(200, "GET", NS + "/configmaps")["metadata"]["resourceVersion"]
        events = []

        def run():
            for e in self.s.watch(NS + "/configmaps?watch=1&labelSelector=w%3Dyes&allowWatchBookmarks=true&timeoutSeconds=6&resourceVersion=" + rev):
                events.append(e)
        t = threading.Thread(target=run)
        t.start()
        wait_for(lambda: events and events[0]["type"] == "BOOKMARK", 2, "an early bookmark")
        obj = config_map("watched")
        obj["metadata"]["labels"] = {"w": "yes"}
        self.create(obj)
        self.create(config_map("unwatched"))
        mp = {"Content-Type": "application/merge-patch+json"}
        self.call(200, "PATCH", NS + "/configmaps/watched", {"data": {"x": "1"}}, mp)
        self.call(200, "PATCH", NS + "/configmaps/watched", {"metadata": {"labels": {"w": "no"}}}, mp)
        self.call(200, "PATCH", NS + "/configmaps/watched", {"metadata": {"labels": {"w": "yes"}}}, mp)
        self.call(200, "DELETE", NS + "/configmaps/watched")
        t.join(15)
        kinds = [e["type"] for e in events if e["type"] != "BOOKMARK"]
        self.assertEqual(kinds, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"])
        self.assertGreater(sum(e["type"] == "BOOKMARK" for e in events), 3, "about one a second")
        revs = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
        self.assertEqual(revs, sorted(revs))

    def test_watch_from_nothing_and_tables(self):
        self.create(config_map("first-one"))
        first = next(self.s.watch(NS + "/configmaps?watch=true&fieldSelector=metadata.name%3Dfirst-one"))
        self.assertEqual((first["type"], first["object"]["metadata"]["name"]), ("ADDED", "first-one"))
        table = next(self.s.watch(NS + "/configmaps?watch=true&fieldSelector=metadata.name%3Dfirst-one",
                                  headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}))
        self.assertEqual((table["object"]["kind"], table["object"]["rows"][0]["cells"][0]), ("Table", "first-one"))

    def test_watch_expired(self):
        self.create(config_map("busy"))
        rev = self.call(200, "GET", NS + "/configmaps/busy")["metadata"]["resourceVersion"]
        for i in range(210):  # the window holds 200
            self.call(200, "PATCH", NS + "/configmaps/busy", {"data": {"n": str(i)}}, {"Content-Type": "application/merge-patch+json"})
        event = next(self.s.watch(NS + "/configmaps?watch=true&resourceVersion=" + rev))
        self.assertEqual((event["type"], event["object"]["code"], event["object"]["reason"]), ("ERROR", 410, "Expired"))

    def test_authentication(self):
        nobody = ssl.create_default_context(cafile=self.fix.pki.file("ca.crt"))
        self.assertEqual(self.s.call("GET", "/version", tls=nobody)[0], 200)
        self.assertEqual(self.s.call("GET", "/healthz", tls=nobody), (200, "ok"))
        status, answer = self.s.call("GET", NS + "/pods", tls=nobody)
        self.assertEqual((status, answer["reason"]), (401, "Unauthorized"))
        self.assertEqual(self.s.call("GET", NS + "/pods", headers={"Authorization": "Bearer wrong"}, tls=nobody)[0], 401)
        self.assertEqual(self.s.call("GET", NS + "/pods", headers={"Authorization": "Bearer secret-token"}, tls=nobody)[0], 200)

    def test_discovery_and_metrics(self):
        self.assertIn("apps", [g["name"] for g in self.call(200, "GET", "/apis")["groups"]])
        pods = [r for r in self.call(200, "GET", "/api/v1")["resources"] if r["name"] == "pods"][0]
        self.assertEqual((pods["shortNames"], pods["namespaced"]), (["po"], True))
        self.assertIn("paths", self.call(200, "GET", "/openapi/v3"))
        self.assertIn("paths", self.call(200, "GET", "/openapi/v3/apis/apps/v1"))
        self.call(200, "GET", "/openapi/v2")
        self.assertIn("apiserver_request_total", self.call(200, "GET", "/metrics"))

    def test_events_are_leased(self):
        ev = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e-"}, "type": "Normal", "reason": "Test",
              "involvedObject": {"kind": "Pod", "name": "x", "namespace": "default"}}
        made = self.call(201, "POST", NS + "/events", ev)
        found = self.call(200, "GET", NS + "/events?fieldSelector=involvedObject.name%3Dx,involvedObject.kind%3DPod")
        self.assertIn(made["metadata"]["name"], [e["metadata"]["name"] for e in found["items"]])


class Informer(unittest.TestCase):
    def test_a_watcher_ends_up_with_what_is_stored(self):
        """Three writers create, change, relabel and delete at random; a watcher with a selector rebuilds the state from events alone."""
        fix = Fixture()
        s, state, done = fix.server, {}, threading.Event()
        path = NS + "/configmaps?labelSelector=on%3Dyes"

        def follow(rev):
            for e in s.watch(path + "&watch=1&allowWatchBookmarks=true&timeoutSeconds=60&resourceVersion=" + rev, timeout=20):
                o = e["object"]
                if e["type"] == "ADDED":
                    self.assertNotIn(o["metadata"]["name"], state)
                if e["type"] in ("MODIFIED", "DELETED"):
                    self.assertIn(o["metadata"]["name"], state)
                if e["type"] in ("ADDED", "MODIFIED"):
                    state[o["metadata"]["name"]] = o
                elif e["type"] == "DELETED":
                    del state[o["metadata"]["name"]]
                elif e["type"] == "BOOKMARK" and done.is_set() and int(o["metadata"]["resourceVersion"]) >= last[0]:
                    return

        def write(seed):
            rnd = random.Random(seed)
            for _ in range(100):
                name, kind = "r%d" % rnd.randrange(12), rnd.randrange(4)
                if kind == 0:
                    s.call("DELETE", NS + "/configmaps/" + name)
                elif kind == 1:
                    obj = config_map(name, n=str(rnd.random()))
                    obj["metadata"]["labels"] = {"on": rnd.choice(["yes", "no"])}
                    s.call("POST", NS + "/configmaps", obj)
                else:
                    patch = {"data": {"n": str(rnd.random())}} if kind == 2 else {"metadata": {"labels": {"on": rnd.choice(["yes", "no"])}}}
                    s.call("PATCH", NS + "/configmaps/" + name, patch, {"Content-Type": "application/merge-patch+json"})
        last, errors = [0], []

        def guarded(rev):
            try:
                follow(rev)
            except BaseException as e:  # noqa: shown by the test
                errors.append(e)
        try:
            first = s.call("GET", path)[1]
            watcher = threading.Thread(target=guarded, args=(first["metadata"]["resourceVersion"],))
            watcher.start()
            writers = [threading.Thread(target=write, args=(i,)) for i in range(3)]
            for t in writers:
                t.start()
            for t in writers:
                t.join()
            stored = s.call("GET", path)[1]
            last[0] = int(stored["metadata"]["resourceVersion"])
            done.set()
            watcher.join(20)
            self.assertEqual(errors, [])
            self.assertEqual(state, {o["metadata"]["name"]: o for o in stored["items"]})
            self.assertGreater(last[0], 50, "something has happened")
        finally:
            fix.close()


class Logs(unittest.TestCase):
    """pods/log is handed through from the node agent, pretended here."""

    def test_logs(self):
        asked = []

        class Agent(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                asked.append((self.path, dict(x[0] for x in self.connection.getpeercert()["subject"])["commonName"]))
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                if "/large/" in self.path:
                    for _ in range(400):
                        self.wfile.write(b"%x\r\n%s\r\n" % (100000, b"y" * 100000))
                    self.wfile.write(b"0\r\n\r\n")
                    return
                lines = [b"one\n", b"two\n"] + ([b"three\n"] if "follow=true" in self.path else [])
                for line in lines:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.flush()
                    time.sleep(0.2)
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_):
                pass

        fix = Fixture(*["--node-%s=PKI/%s" % x for x in (("ca", "ca.crt"), ("cert", "server.crt"), ("key", "server.key"))])
        agent = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=fix.pki.file("ca.crt"))
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(fix.pki.file("server.crt"), fix.pki.file("server.key"))
        agent.socket = tls.wrap_socket(agent.socket, server_side=True)
        threading.Thread(target=agent.serve_forever, daemon=True).start()
        try:
            s = fix.server
            node = {"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                                                          "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.server_port}}}}
            self.assertEqual(s.call("POST", "/api/v1/nodes", node)[0], 201)
            self.assertEqual(s.call("POST", NS + "/pods", pod("talker", node="n1"))[0], 201)
            for binary in KUBECTLS:
                self.assertEqual(s.kubectl("logs", "talker", "--tail=5", binary=binary), "one\ntwo\n")
                self.assertEqual(s.kubectl("logs", "-f", "talker", "-c", "c", binary=binary), "one\ntwo\nthree\n")
            self.assertIn(("/containerLogs/default/talker/c?tailLines=5", "kube-apiserver"), asked)
            self.assertIn("not valid for pod", s.kubectl("logs", "talker", "-c", "wrong", ok=False))
            self.assertEqual(s.call("POST", NS + "/pods", pod("large", node="n1"))[0], 201)
            with s.open("GET", NS + "/pods/large/log", timeout=30) as r:
                time.sleep(1.5)  # a reader that is slower than the node agent gets everything all the same
                self.assertEqual(len(r.read()), 40000000)
            node["metadata"]["name"], node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = "n2", free_port()
            self.assertEqual(s.call("POST", "/api/v1/nodes", node)[0], 201)
            self.assertEqual(s.call("POST", NS + "/pods", pod("unreachable", node="n2"))[0], 201)
            self.assertEqual(s.call("GET", NS + "/pods/unreachable/log")[0], 503)
        finally:
            agent.shutdown()
            agent.server_close()
            fix.close()


class Compaction(unittest.TestCase):
    def test_history_is_dropped_and_clients_are_told(self):
        fix = Fixture("--compact-every=1s")
        try:
            s = fix.server
            for i in range(4):
                self.assertEqual(s.call("POST", NS + "/configmaps", config_map("c%d" % i))[0], 201)
            page = s.call("GET", NS + "/configmaps?limit=2")[1]
            later = NS + "/configmaps?limit=2&continue=" + page["metadata"]["continue"]
            self.assertEqual(s.call("GET", later)[0], 200)
            s.call("DELETE", NS + "/configmaps/c0")
            status, answer = wait_for(lambda: (lambda got: got if got[0] != 200 else None)(s.call("GET", later)), 20, "history goes")
            self.assertEqual((status, answer["reason"]), (410, "Expired"))
            self.assertEqual(len(s.call("GET", NS + "/configmaps")[1]["items"]), 3)
        finally:
            fix.close()


class Restart(unittest.TestCase):
    def test_everything_is_still_there(self):
        fix = Fixture()
        try:
            s = fix.server
            self.assertEqual(s.call("POST", NS + "/configmaps", config_map("kept", a="b"))[0], 201)
            s.kill()
            s.start()
            s.ready()
            self.assertEqual(s.call("GET", NS + "/configmaps/kept")[1]["data"], {"a": "b"})
            began = time.monotonic()
            self.assertEqual(s.stop(), 0)
            self.assertLess(time.monotonic() - began, 5)
        finally:
            fix.close()
