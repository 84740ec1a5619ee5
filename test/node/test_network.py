# SPDX-License-Identifier: Apache-2.0
"""Two nodes in two network namespaces: pods reach pods and services, names and heartbeats."""
import json
import signal
import subprocess
import time
import unittest

from test.node.cluster import ApiError, Cluster, run, until

HTTPD = "mkdir -p /www; hostname >/www/index.html; httpd -f -p 8080 -h /www"


class NetworkTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(("a1", "b1"))
        cls.addClassCleanup(cls.c.close)
        for n in cls.c.nodes.values():
            n.start()
        for name, node in (("wa", "a1"), ("wb", "b1")):
            cls.c.run_pod(name, HTTPD, node=node, meta={"labels": {"app": "w"}})
            cls.c.run_pod(f"c{name[1]}", "sleep 1000000", node=node)
        cls.ip = {n: cls.c.wait_ready(n)["status"]["podIP"] for n in ("wa", "wb", "ca", "cb")}
        cls.service("w", "10.96.7.7", 80, ["wa", "wb"])
        cls.service("self", "10.96.7.8", 80, ["wa"])
        cls.service("near", "10.96.7.9", 80, ["wa", "wb"], trafficDistribution="PreferClose")
        cls.service("empty", "10.96.7.10", 80, [])

    @classmethod
    def service(cls, name, ip, port, pods, **spec):
        cls.c.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                      "spec": {"clusterIP": ip, "ports": [{"port": port, "targetPort": 8080, "protocol": "TCP"}], **spec}})
        cls.c.create({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                      "metadata": {"name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
                      "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": [cls.endpoint(p) for p in pods]})

    @classmethod
    def endpoint(cls, pod):
        return {"addresses": [cls.ip[pod]], "conditions": {"ready": True}, "nodeName": f"{pod[1]}1", "zone": pod[1]}

    def fetch(self, pod, url, check=True):
        """wget inside a pod."""
        node = self.c.nodes[f"{pod[1]}1"]
        uid = self.c.pod(pod)["metadata"]["uid"]
        pid = json.loads((node.data / "pods" / uid / "containers/main/0/pid").read_text())["pid"]
        return node.inside("nsenter", f"--target={pid}", "--net", "--mount", "--", "/bin/busybox", "timeout", "3", "/bin/busybox", "wget", "-q", "-O", "-", url,
                           check=check, timeout=20)

    def fetch_until(self, pod, url, seconds=5):
        def there():
            try:
                return self.fetch(pod, url)
            except RuntimeError:
                return None
        return until(there, seconds, lambda: f"{pod} -> {url}\n{self.c.logs()}").strip()

    def test_pod_to_pod(self):
        self.assertEqual(self.fetch_until("ca", f"http://{self.ip['wa']}:8080/"), "wa")
        self.assertEqual(self.fetch_until("ca", f"http://{self.ip['wb']}:8080/"), "wb")
        self.assertEqual(self.fetch_until("cb", f"http://{self.ip['wa']}:8080/"), "wa")

    def test_service_by_address_and_name(self):
        self.assertIn(self.fetch_until("ca", "http://10.96.7.7/"), ("wa", "wb"))
        for name in ("w", "w.default", "w.default.svc", "w.default.svc.cluster.local"):
            self.assertIn(self.fetch_until("cb", f"http://{name}/"), ("wa", "wb"))
        seen = {self.fetch("ca", "http://10.96.7.7/").strip() for _ in range(20)}
        self.assertEqual(seen, {"wa", "wb"})

    def test_service_from_the_node(self):
        out = until(lambda: self.c.nodes["b1"].inside("curl", "-s", "--max-time", "3", "http://10.96.7.8/", check=False).strip() == "wa",
                    5, self.c.logs)
        self.assertTrue(out)

    def test_a_pod_reaches_itself(self):
        self.assertEqual(self.fetch_until("wa", "http://self/"), "wa")

    @staticmethod
    def link_address(node, link):
        return json.loads(node.inside("ip", "-j", "link", "show", link))[0]["address"]

    def test_gateway_keeps_its_address(self):
        """A new port of the bridge, with a lower address than all others, does not change the bridge's own: pods know that one."""
        a = self.c.nodes["a1"]
        self.assertEqual(self.fetch_until("ca", "http://self/"), "wa")
        before = self.link_address(a, "kuayu0")
        a.inside("ip", "link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "low-peer")
        try:
            a.inside("ip", "link", "set", "low", "master", "kuayu0", "up")
            self.assertEqual(self.link_address(a, "kuayu0"), before)
            self.assertEqual(self.fetch("ca", "http://self/").strip(), "wa")
        finally:
            a.inside("ip", "link", "del", "low")
        self.assertEqual(self.fetch("ca", "http://self/").strip(), "wa")

    def test_node_port(self):
        self.service("outside", "10.96.7.11", 80, ["wa", "wb"], type="NodePort")
        port = self.c.request("GET", "/api/v1/namespaces/default/services/outside")["spec"]["ports"][0]["nodePort"]
        for node in ("a1", "b1"):
            until(lambda: str(port) in self.c.nodes[node].inside("nft", "list", "map", "ip", "kuayu", "nodeports"), 5, self.c.logs)
        for client in ("a1", "b1"):
            for address in ("10.77.1.1", "10.77.2.1"):
                got = {self.c.nodes[client].inside("curl", "-sS", "--max-time", "3", f"http://{address}:{port}/").strip() for _ in range(12)}
                self.assertEqual(got, {"wa", "wb"}, f"{client} -> {address}")
        self.assertIn(self.fetch("ca", f"http://10.77.2.1:{port}/").strip(), ("wa", "wb"))

    def test_whole_name(self):
        self.c.run_pod("whole", "hostname -f; sleep 1000", hostname="whole-0", subdomain="set")
        self.c.wait_log("whole", "whole-0.set.default.svc.cluster.local")

    def test_prefer_close(self):
        self.fetch_until("ca", "http://near/")
        self.assertEqual({self.fetch("ca", "http://near/").strip() for _ in range(10)}, {"wa"})
        self.assertEqual({self.fetch("cb", "http://near/").strip() for _ in range(10)}, {"wb"})
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/near-x"
        gone = [{**self.endpoint("wa"), "conditions": {"ready": False}}, self.endpoint("wb")]
        self.c.request("PATCH", path, {"endpoints": gone}, "application/merge-patch+json")
        until(lambda: self.fetch("ca", "http://near/", check=False).strip() == "wb", 5, self.c.logs)
        self.c.request("PATCH", path, {"endpoints": [self.endpoint("wa"), self.endpoint("wb")]}, "application/merge-patch+json")
        until(lambda: self.fetch("ca", "http://near/", check=False).strip() == "wa", 5, self.c.logs)

    def refused_at_once(self, url):
        """Always refused, not lost: the quickest of some tries, because what starts them takes its time on a loaded machine. (A first packet that
        was lost would take a second each time.)"""
        took = []
        for _ in range(5):
            begun = time.monotonic()
            self.assertIn("refused", self.fetch("ca", url, check=False))
            took.append(time.monotonic() - begun)
            if took[-1] < 0.9:
                return
        self.fail(f"{url} is refused after {took} s")

    def test_no_endpoint_is_refused_at_once(self):
        until(lambda: "10.96.7.10" in self.c.nodes["a1"].inside("nft", "list", "set", "ip", "kuayu", "refused"), 5)
        self.refused_at_once("http://empty/")

    def test_unknown_service_address_is_refused_at_once(self):
        self.refused_at_once("http://10.96.200.1/")
        self.refused_at_once("http://10.96.7.7:81/")

    def test_api_server_through_its_service(self):
        out = self.c.nodes["b1"].inside("curl", "-sk", "--max-time", "5", "https://10.96.0.1/version", check=False)
        if not out:  # the endpoints of default/kubernetes come from the API server
            self.skipTest("default/kubernetes has no endpoints here")
        self.assertIn("gitVersion", out)

    def test_heartbeats(self):
        def peers(node):
            try:
                lease = self.c.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}")
            except ApiError:
                return {}
            return json.loads(lease["metadata"].get("annotations", {}).get("kuayu.io/peers", "{}"))
        until(lambda: peers("a1").get("b1", 9999) < 500, 5, self.c.logs)
        until(lambda: peers("b1").get("a1", 9999) < 500, 5, self.c.logs)
        self.c.nodes["b1"].kill(signal.SIGKILL)
        begun = time.monotonic()
        until(lambda: peers("a1").get("b1", 0) > 800, 5, self.c.logs)
        self.assertLess(time.monotonic() - begun, 4)
        self.c.nodes["b1"].start()
        until(lambda: peers("a1").get("b1", 9999) < 500, 5, self.c.logs)

    def test_registry(self):
        port = 5055
        conf = self.c.dir / "registry.yml"
        conf.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.c.dir}/registry}}}}\nhttp: {{addr: '10.77.1.1:{port}'}}\n")
        a = self.c.nodes["a1"]
        with open(self.c.dir / "registry.log", "w") as log:
            reg = subprocess.Popen(a.enter("docker-registry", "serve", conf), stdout=log, stderr=log)
        try:
            ref = f"10.77.1.1:{port}/test/busy:7"
            until(lambda: "cannot" not in run("skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false",
                                              f"oci:{self.c.images}/busybox:1", f"docker://{ref}", check=False)
                  and run("curl", "-sf", f"http://10.77.1.1:{port}/v2/test/busy/tags/list", check=False), 10, every=0.3)
            n = self.c.nodes["b1"]
            n.kill(signal.SIGTERM)
            n.start(f"--insecure-registry=10.77.1.1:{port}")
            self.c.run_pod("pulled", "echo pulled; sleep 1000", node="b1", container={"image": ref})
            self.c.wait_log("pulled", "pulled", node="b1")
        finally:
            for pid in [int(x) for x in a.inside("pgrep", "-f", "^docker-registry serve", check=False).split()]:
                a.inside("kill", str(pid))
            reg.wait(10)
            self.c.delete_pod("pulled", grace=0)


if __name__ == "__main__":
    unittest.main()
