# SPDX-License-Identifier: Apache-2.0
"""Debian's python3-kubernetes against the API: objects, patches, watches, 409, 410."""
import threading
import time
import unittest

from kubernetes import client, config, watch

from test.api.server import Fixture


class PythonClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.fix = Fixture("--event-window=100")
        cls.api = config.new_client_from_config(cls.fix.server.kubeconfig)
        cls.core = client.CoreV1Api(cls.api)
        cls.apps = client.AppsV1Api(cls.api)

    @classmethod
    def tearDownClass(cls):
        cls.api.close()
        cls.fix.close()

    def fails(self, status, reason, call, *args, **kw):
        with self.assertRaises(client.ApiException) as e:
            call(*args, **kw)
        self.assertEqual(e.exception.status, status)
        self.assertIn('"reason":"%s"' % reason, e.exception.body)

    def config_map(self, name, **data):
        return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"made": "here"}), data=data)

    def test_objects(self):
        made = self.core.create_namespaced_config_map("default", self.config_map("one", a="b"))
        self.fails(409, "AlreadyExists", self.core.create_namespaced_config_map, "default", self.config_map("one"))
        got = self.core.read_namespaced_config_map("one", "default")
        self.assertEqual((got.data, got.metadata.uid), ({"a": "b"}, made.metadata.uid))
        got.data = {"a": "c"}
        self.core.replace_namespaced_config_map("one", "default", got)
        self.fails(409, "Conflict", self.core.replace_namespaced_config_map, "one", "default", got)
        patched = self.core.patch_namespaced_config_map("one", "default", {"data": {"d": "e"}})
        self.assertEqual(patched.data, {"a": "c", "d": "e"})
        self.assertIn("one", [c.metadata.name for c in self.core.list_namespaced_config_map("default", label_selector="made=here").items])
        self.core.delete_namespaced_config_map("one", "default")
        self.fails(404, "NotFound", self.core.read_namespaced_config_map, "one", "default")

    def test_pages(self):
        for i in range(5):
            self.core.create_namespaced_config_map("kube-public", self.config_map("page-%d" % i))
        names, token = [], None
        while token != "":
            page = self.core.list_namespaced_config_map("kube-public", limit=2, _continue=token) if token else \
                self.core.list_namespaced_config_map("kube-public", limit=2)
            names += [c.metadata.name for c in page.items]
            token = page.metadata._continue or ""
        self.assertEqual(names, ["page-%d" % i for i in range(5)])

    def test_pods_and_scale(self):
        container = client.V1Container(name="c", image="img:1", resources=client.V1ResourceRequirements(requests={"cpu": "100m"}))
        pod = client.V1Pod(metadata=client.V1ObjectMeta(generate_name="py-"), spec=client.V1PodSpec(containers=[container]))
        made = self.core.create_namespaced_pod("default", pod)
        self.assertEqual((made.status.phase, made.status.qos_class), ("Pending", "Burstable"))
        status = self.core.patch_namespaced_pod_status(made.metadata.name, "default", {"status": {"phase": "Running"}})
        self.assertEqual(status.status.phase, "Running")
        self.core.delete_namespaced_pod(made.metadata.name, "default")
        template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"app": "py"}), spec=client.V1PodSpec(containers=[container]))
        spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels={"app": "py"}), template=template)
        self.apps.create_namespaced_deployment("default", client.V1Deployment(metadata=client.V1ObjectMeta(name="py"), spec=spec))
        self.apps.patch_namespaced_deployment_scale("py", "default", {"spec": {"replicas": 3}})
        self.assertEqual(self.apps.read_namespaced_deployment_scale("py", "default").spec.replicas, 3)
        self.apps.delete_namespaced_deployment("py", "default", propagation_policy="Background")

    def test_watch(self):
        rev = self.core.list_namespaced_secret("default").metadata.resource_version

        def write():
            time.sleep(0.3)
            body = client.V1Secret(metadata=client.V1ObjectMeta(name="seen"), string_data={"a": "b"})
            self.core.create_namespaced_secret("default", body)
            self.core.delete_namespaced_secret("seen", "default")
        t = threading.Thread(target=write)
        t.start()
        seen = []
        w = watch.Watch()
        for event in w.stream(self.core.list_namespaced_secret, "default", resource_version=rev, timeout_seconds=10):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 2:
                w.stop()
        t.join()
        self.assertEqual(seen, [("ADDED", "seen"), ("DELETED", "seen")])

    def test_watch_of_lost_history(self):
        rev = self.core.create_namespaced_config_map("default", self.config_map("old")).metadata.resource_version
        for i in range(110):
            self.core.patch_namespaced_config_map("old", "default", {"data": {"n": str(i)}})
        with self.assertRaises(client.ApiException) as e:
            for _ in watch.Watch().stream(self.core.list_namespaced_config_map, "default", resource_version=rev, timeout_seconds=5):
                pass
        self.assertEqual(e.exception.status, 410)
