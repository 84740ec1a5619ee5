# SPDX-License-Identifier: Apache-2.0
"""The node agent with real containers: one node, pods bound by nodeName."""
import base64
import json
import os
import signal
import socket
import subprocess
import time
import unittest

from test.node.cluster import BUSYBOX, CGROUP, ApiError, Cluster, read, until


def status(pod, name="main"):
    s = pod.get("status", {})
    for c in s.get("containerStatuses", []) + s.get("initContainerStatuses", []):
        if c["name"] == name:
            return c
    return {}


class NodeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster()
        cls.addClassCleanup(cls.c.close)
        cls.n = cls.c.nodes["a1"]
        cls.n.start()
        until(cls.node_ready, text=cls.c.logs)

    @classmethod
    def node_ready(cls):
        try:
            node = cls.c.request("GET", "/api/v1/nodes/a1")
        except ApiError:
            return None
        return any(x["type"] == "Ready" and x["status"] == "True" for x in node.get("status", {}).get("conditions", []))

    def tearDown(self):
        """No test leaves a pod behind."""
        for p in self.c.request("GET", "/api/v1/namespaces/default/pods")["items"]:
            self.c.delete_pod(p["metadata"]["name"], grace=0)

    def wait_status(self, pod, what, seconds=20, container="main"):
        """Waits until what(container status) is true; returns it."""
        def there():
            s = status(self.c.pod(pod) or {}, container)
            return s if s and what(s) else None
        return until(there, seconds, lambda: json.dumps((self.c.pod(pod) or {}).get("status"), indent=1) + self.c.logs())

    def test_node_object(self):
        node = self.c.request("GET", "/api/v1/nodes/a1")
        self.assertEqual(node["metadata"]["labels"]["topology.kubernetes.io/zone"], "a")
        self.assertIn({"type": "InternalIP", "address": "10.77.1.1"}, node["status"]["addresses"])
        self.assertEqual(node["spec"]["podCIDR"], "10.78.1.0/24")
        self.assertIn("cpu", node["status"]["allocatable"])
        self.assertTrue(node["status"]["nodeInfo"]["kubeletVersion"])

    def test_lease(self):
        def lease():
            return self.c.request("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a1")["spec"]
        first = lease()
        self.assertEqual(first["holderIdentity"], "a1")
        until(lambda: lease()["renewTime"] != first["renewTime"], 3, "renewal")

    def test_runs_and_completes(self):
        self.c.run_pod("once", "echo out; echo err >&2; exit 0", restartPolicy="Never")
        p = self.c.wait_phase("once", "Succeeded")
        t = status(p)["state"]["terminated"]
        self.assertEqual((t["exitCode"], t["reason"]), (0, "Completed"))
        self.assertEqual(sorted(self.c.log("once").split()), ["err", "out"])
        self.c.run_pod("fails", "exit 3", restartPolicy="Never")
        p = self.c.wait_phase("fails", "Failed")
        self.assertEqual(status(p)["state"]["terminated"]["exitCode"], 3)

    def test_environment(self):
        self.c.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"KEY": "value"}})
        self.c.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "data": {"pw": base64.b64encode(b"s3").decode()}})
        env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(KEY)"},
               {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "KEY"}}},
               {"name": "D", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
               {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
               {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
               {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}]
        self.c.run_pod("env", "echo A=$A B=$B C=$C D=$D IP=$IP NODE=$NODE MEM=$MEM ARG=$0 HOST=$(hostname) PWD=$PWD ID=$(id -u) DONE",
                       restartPolicy="Never", container={
                           "env": env, "envFrom": [{"configMapRef": {"name": "cm"}}], "workingDir": "/tmp",
                           "resources": {"limits": {"memory": "64Mi"}}, "securityContext": {"runAsUser": 1234}, "args": ["$(A)x"]})
        log = self.c.wait_log("env", "DONE")
        ip = self.c.pod("env")["status"]["podIP"]
        self.assertEqual(log.strip(), f"A=1 B=1value C=value D=s3 IP={ip} NODE=a1 MEM=67108864 ARG=1x HOST=env PWD=/tmp ID=1234 DONE")

    def test_missing_config_map_waits(self):
        self.c.run_pod("waits", "echo $X; sleep 60", container={
            "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "K"}}}]})
        self.wait_status("waits", lambda s: s["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError")
        self.c.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later"}, "data": {"K": "came"}})
        self.c.wait_log("waits", "came")

    def test_volumes(self):
        self.c.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vol"}, "data": {"a": "one", "b": "two"}})
        self.c.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "volsec"}, "data": {"k": base64.b64encode(b"\x01bin").decode()}})
        volumes = [{"name": "cm", "configMap": {"name": "vol"}}, {"name": "sec", "secret": {"secretName": "volsec", "defaultMode": 256}},
                   {"name": "empty", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory"}},
                   {"name": "host", "hostPath": {"path": str(self.n.data / "hostdir"), "type": "DirectoryOrCreate"}}]
        mounts = [{"name": "cm", "mountPath": "/cm"}, {"name": "cm", "mountPath": "/one", "subPath": "a"},
                  {"name": "sec", "mountPath": "/sec", "readOnly": True}, {"name": "empty", "mountPath": "/e", "subPath": "x/y"},
                  {"name": "mem", "mountPath": "/m"}, {"name": "host", "mountPath": "/h"}]
        self.c.run_pod("vol", "cat /cm/a /one; od -c /sec/k | head -1; stat -c %a /sec/..data/k; echo hi >/h/f; echo >/e/f; "
                       "touch /cm/x || echo readonly; grep -q ' /m tmpfs' /proc/mounts && echo tmpfs; "
                       "while [ $(cat /cm/a) = one ]; do sleep 0.1; done; cat /cm/a; ls /cm; cat /one; echo; sleep 100",
                       container={"volumeMounts": mounts}, volumes=volumes)
        log = self.c.wait_log("vol", "tmpfs")
        self.assertIn("oneone", log)
        self.assertIn("400", log)
        self.assertIn("readonly", log)
        self.assertEqual((self.n.data / "hostdir/f").read_text(), "hi\n")
        self.c.request("PATCH", "/api/v1/namespaces/default/configmaps/vol", {"data": {"a": "new", "b": None, "c": "3"}},
                       "application/merge-patch+json")
        log = self.c.wait_log("vol", "newa\nc\none")
        self.c.delete_pod("vol")
        self.c.wait_gone("vol")

    def test_last_words(self):
        self.c.run_pod("last", "for i in $(seq 100); do echo line$i; done; exit 4", restartPolicy="Never",
                       container={"terminationMessagePolicy": "FallbackToLogsOnError"})
        t = status(self.c.wait_phase("last", "Failed"))["state"]["terminated"]
        self.assertEqual((t["exitCode"], t["message"]), (4, "".join(f"line{i}\n" for i in range(21, 101))))
        self.c.run_pod("lastfile", "echo out; echo -n file >/dev/termination-log; exit 4", restartPolicy="Never",
                       container={"terminationMessagePolicy": "FallbackToLogsOnError"})
        self.assertEqual(status(self.c.wait_phase("lastfile", "Failed"))["state"]["terminated"]["message"], "file")
        self.c.run_pod("lastgood", "echo out", restartPolicy="Never", container={"terminationMessagePolicy": "FallbackToLogsOnError"})
        self.assertNotIn("message", status(self.c.wait_phase("lastgood", "Succeeded"))["state"]["terminated"])

    def test_service_links(self):
        self.c.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "linked"}, "spec": {"ports": [{"port": 80}]}})
        for name, more, want in (("links", {}, True), ("nolinks", {"enableServiceLinks": False}, False)):
            self.c.run_pod(name, "sleep 0.5; env | sort; echo DONE", restartPolicy="Never", **more)
            log = self.c.wait_log(name, "DONE")
            self.assertEqual("LINKED_SERVICE_HOST=" in log, want, log)
            self.assertIn("KUBERNETES_SERVICE_HOST=", log)

    def test_group_reads_its_secrets(self):
        self.c.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "grouped"}, "data": {"k": base64.b64encode(b"key").decode()}})
        self.c.run_pod("grouped", "stat -c '%a %g' /sec/..data/k; cat /sec/k; echo; echo DONE", restartPolicy="Never",
                       securityContext={"runAsUser": 1000, "fsGroup": 2000},
                       volumes=[{"name": "s", "secret": {"secretName": "grouped", "defaultMode": 256}}],
                       container={"volumeMounts": [{"name": "s", "mountPath": "/sec"}]})
        self.assertEqual(self.c.wait_log("grouped", "DONE"), "440 2000\nkey\nDONE\n")

    def test_host_path_types(self):
        path = str(self.n.data / "plug.sock")
        self.c.run_pod("plug", "stat -c %F /plug; echo DONE", restartPolicy="Never",
                       volumes=[{"name": "v", "hostPath": {"path": path, "type": "Socket"}}],
                       container={"volumeMounts": [{"name": "v", "mountPath": "/plug"}]})
        self.wait_status("plug", lambda s: "is no socket" in s["state"].get("waiting", {}).get("message", ""))
        self.assertFalse(os.path.exists(path), "nothing is made in its place")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
            self.assertIn("socket", self.c.wait_log("plug", "DONE"))

    def test_init_containers_in_order(self):
        inits = [{"name": f"i{k}", "image": BUSYBOX, "command": ["sh", "-c", f"echo i{k} >>/w/log"],
                  "volumeMounts": [{"name": "w", "mountPath": "/w"}]} for k in range(3)]
        self.c.run_pod("init", "cat /w/log; sleep 60", initContainers=inits, volumes=[{"name": "w", "emptyDir": {}}],
                       container={"volumeMounts": [{"name": "w", "mountPath": "/w"}]})
        self.c.wait_log("init", "i0\ni1\ni2\n")
        p = self.c.wait_ready("init")
        self.assertEqual([c["state"]["terminated"]["reason"] for c in p["status"]["initContainerStatuses"]], ["Completed"] * 3)

    def test_failing_init_fails_the_pod(self):
        self.c.run_pod("badinit", "echo no", restartPolicy="Never",
                       initContainers=[{"name": "i", "image": BUSYBOX, "command": ["sh", "-c", "exit 7"]}])
        p = self.c.wait_phase("badinit", "Failed")
        self.assertNotIn("terminated", status(p)["state"])

    def test_restart_and_previous_log(self):
        self.c.run_pod("crash", "echo run 1; sleep 0.3; exit 5")
        s = self.wait_status("crash", lambda s: s["restartCount"] == 1)
        s = self.wait_status("crash", lambda s: s["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff")
        self.assertEqual(s["lastState"]["terminated"]["exitCode"], 5)
        self.assertIn("run 1", self.c.log("crash", query="?previous=true"))

    def test_kill_of_a_container(self):
        self.c.run_pod("killed", "sleep 7531")  # nobody else's
        self.c.wait_ready("killed")
        pid = int(self.n.inside("pgrep", "-f", "^sleep 7531").split()[0])
        before = time.monotonic()
        self.n.inside("kill", "-9", str(pid))
        s = self.wait_status("killed", lambda s: s["restartCount"] == 1 and "running" in s["state"])
        self.assertLess(time.monotonic() - before, 9, "the first time at once, not after the 10 s of a crash loop")
        self.assertEqual(s["lastState"]["terminated"]["exitCode"], 137)

    def test_out_of_memory(self):
        self.c.run_pod("oom", "head -c 200m /dev/zero | tail", restartPolicy="Never",
                       container={"command": ["tail", "/dev/zero"], "resources": {"limits": {"memory": "32Mi"}}})
        p = self.c.wait_phase("oom", "Failed")
        t = status(p)["state"]["terminated"]
        self.assertEqual((t["reason"], t["exitCode"]), ("OOMKilled", 137))

    def test_cpu_and_memory_limits_are_set(self):
        self.c.run_pod("lim", "sleep 100", container={"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "40Mi"}}})
        p = self.c.wait_ready("lim")
        self.assertEqual(p["status"]["qosClass"], "Burstable")
        path = f"{CGROUP}/a1/pod{p['metadata']['uid']}/main-0"
        if os.path.exists("/sys/fs/cgroup/memory"):
            self.assertEqual(read(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"), str(40 << 20))
            self.assertEqual(read(f"/sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us"), "50000")
            self.assertEqual(read(f"/sys/fs/cgroup/cpu{path}/cpu.shares"), "102")
            self.assertEqual(read(f"/sys/fs/cgroup/cpu{os.path.dirname(path)}/cpu.shares"), "102", "the pod beside other pods")
            self.assertEqual(read(f"/sys/fs/cgroup/cpu{CGROUP}/a1/cpu.shares"), str(1024 * os.cpu_count()), "all pods beside the machine's own")
        else:
            self.assertEqual(read(f"/sys/fs/cgroup{path}/memory.max"), str(40 << 20))

    def test_graceful_stop(self):
        self.c.run_pod("grace", "trap 'echo got term; sleep 0.5; echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
                       terminationGracePeriodSeconds=10, container={"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo prestop >/proc/1/fd/1"]}}}})
        self.c.wait_log("grace", "up")
        uid = self.c.pod("grace")["metadata"]["uid"]
        follow = subprocess.Popen(["curl", "-sN", "--cacert", self.c.ca, "--cert", f"{self.c.admin}.crt", "--key", f"{self.c.admin}.key",
                                   "https://10.77.1.1:10250/containerLogs/default/grace/main?follow=true"], stdout=subprocess.PIPE, text=True)
        lines = [follow.stdout.readline()]  # it follows
        before = time.monotonic()
        self.c.delete_pod("grace")
        self.c.wait_gone("grace")
        took = time.monotonic() - before
        self.assertGreater(took, 0.4)
        self.assertLess(took, 9, "it was not killed at the end of its grace")
        lines += follow.communicate(timeout=10)[0].splitlines()
        self.assertEqual([x.strip() for x in lines[:4]], ["up", "prestop", "got term", "bye"])
        until(lambda: not (self.n.data / "pods" / uid).exists(), 5, "folder removed")

    def test_kill_after_grace(self):
        self.c.run_pod("deaf", "trap '' TERM; echo up; while :; do sleep 1; done", terminationGracePeriodSeconds=1)
        self.c.wait_log("deaf", "up")
        before = time.monotonic()
        self.c.delete_pod("deaf")
        self.c.wait_gone("deaf")
        self.assertGreater(time.monotonic() - before, 0.9)

    def test_force_deleted_pod_is_killed(self):
        self.c.run_pod("forced", "trap '' TERM; echo up; while :; do sleep 1; done # forced", terminationGracePeriodSeconds=100)
        self.c.wait_log("forced", "up")
        uid = self.c.pod("forced")["metadata"]["uid"]
        self.c.delete_pod("forced", grace=0)
        until(lambda: not (self.n.data / "pods" / uid).exists(), 5, self.c.logs)
        self.assertNotIn("# forced", self.n.inside("ps", "-ef"))

    def test_a_new_pod_of_the_same_name_waits_for_the_old_one(self):
        for i in range(4):
            self.c.run_pod("twin", f"trap '' TERM; echo mine {i}; nc -l -p 18099 || echo clash; sleep 1000", hostNetwork=True)
            self.c.wait_log("twin", f"mine {i}")
            time.sleep(0.1)
            self.assertNotIn("clash", self.c.log("twin"))
            self.c.delete_pod("twin", grace=0)

    def test_probes(self):
        self.c.run_pod("probes", "echo ok >/www/i; sleep 0.5; httpd -p 8080 -h /www; touch /started; sleep 1000", volumes=[{"name": "www", "emptyDir": {}}], container={
            "volumeMounts": [{"name": "www", "mountPath": "/www"}],
            "ports": [{"containerPort": 8080, "name": "web"}],
            "startupProbe": {"exec": {"command": ["test", "-e", "/started"]}, "periodSeconds": 1, "failureThreshold": 20},
            "readinessProbe": {"httpGet": {"path": "/i", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1},
            "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 2}})
        self.wait_status("probes", lambda s: "running" in s["state"] and not s["ready"], 5)
        self.c.wait_ready("probes")
        self.assertTrue(status(self.c.pod("probes"))["started"])
        uid = self.c.pod("probes")["metadata"]["uid"]
        (self.n.data / "pods" / uid / "volumes/www/i").unlink()
        self.c.wait_ready("probes", False)
        self.n.inside("pkill", "-f", "^httpd -p 8080")
        s = self.wait_status("probes", lambda s: s["restartCount"] == 1, 20)
        self.assertTrue(s["lastState"]["terminated"])

    def test_agent_restart_keeps_containers(self):
        self.c.run_pod("keeps", "i=0; while :; do i=$((i+1)); echo n$i; sleep 0.2; done")
        self.c.run_pod("ends", "sleep 1; exit 4", restartPolicy="Never")
        self.c.wait_ready("keeps")
        self.wait_status("ends", lambda s: "running" in s["state"])
        before, uid = status(self.c.pod("keeps")), self.c.pod("keeps")["metadata"]["uid"]
        self.n.kill(signal.SIGKILL)
        time.sleep(1.5)
        self.n.start()
        self.assertEqual(status(self.c.wait_phase("ends", "Failed"))["state"]["terminated"]["exitCode"], 4)
        log = self.c.wait_log("keeps", "n12\n")
        self.assertEqual(log.split()[:12], [f"n{i}" for i in range(1, 13)])
        after = status(self.c.wait_ready("keeps"))
        self.assertEqual((after["restartCount"], after["containerID"]), (before["restartCount"], before["containerID"]))
        self.n.kill(signal.SIGTERM)
        self.c.delete_pod("keeps", grace=0)  # while the agent is away
        self.n.start()
        until(lambda: not (self.n.data / "pods" / uid).exists(), 10, self.c.logs)

    def test_monitor_killed(self):
        self.c.run_pod("orphan", "sleep 2000")
        self.c.wait_ready("orphan")
        mon = int(self.n.inside("pgrep", "-f", "^kuayu-monitor").split()[0])
        self.n.inside("kill", "-9", str(mon))
        s = self.wait_status("orphan", lambda s: s["restartCount"] == 1 and "running" in s["state"])
        self.assertEqual(s["lastState"]["terminated"]["reason"], "ContainerStatusUnknown")
        self.assertEqual(len(self.n.inside("pgrep", "-f", "^sleep 2000").split()), 1)

    def test_fencing(self):
        mine = {"annotations": {"kuayu.io/singleton": "true"}}
        self.c.run_pod("single", "while :; do sleep 3000; done", meta=mine)
        self.c.run_pod("many", "while :; do sleep 3001; done")
        self.c.wait_ready("single")
        self.c.wait_ready("many")
        self.c.stop_api()
        cut = time.monotonic()
        until(lambda: "sleep 3000" not in self.n.inside("ps", "-ef"), 6, self.c.logs)
        took = time.monotonic() - cut
        self.assertIn("sleep 3001", self.n.inside("ps", "-ef"))
        self.assertLess(took, 4.2)
        time.sleep(1)
        self.assertNotIn("sleep 3000", self.n.inside("ps", "-ef"))
        self.c.start_api()
        s = self.wait_status("single", lambda s: s["restartCount"] == 1 and "running" in s["state"])
        self.assertEqual(s["lastState"]["terminated"]["reason"], "Fenced")

    def test_fencing_without_an_agent(self):
        self.c.run_pod("lonely", "while :; do sleep 3002; done", meta={"annotations": {"kuayu.io/singleton": "true"}})
        self.c.wait_ready("lonely")
        self.n.kill(signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: "sleep 3002" not in self.n.inside("ps", "-ef"), 6, self.c.logs)
        self.assertLess(time.monotonic() - killed, 4.2)
        self.n.start()
        self.wait_status("lonely", lambda s: s["restartCount"] == 1 and "running" in s["state"])

    def test_singleton_survives_a_quick_restart_of_the_agent(self):
        self.c.run_pod("calm", "while :; do sleep 3003; done", meta={"annotations": {"kuayu.io/singleton": "true"}})
        before = status(self.c.wait_ready("calm"))
        self.n.kill(signal.SIGKILL)
        self.n.start()
        time.sleep(4)
        after = status(self.c.wait_ready("calm"))
        self.assertEqual((after["restartCount"], after["containerID"]), (0, before["containerID"]))

    def test_hooks_message_and_host_port(self):
        self.c.run_pod("hooks", "while ! [ -e /tmp/ps ]; do sleep 0.05; done; echo started; nc -l -p 8081 >/tmp/got; "
                       "echo -n why >/dev/termination-log; exit 9", restartPolicy="Never", container={
                           "ports": [{"containerPort": 8081, "hostPort": 18081}],
                           "lifecycle": {"postStart": {"exec": {"command": ["touch", "/tmp/ps"]}}}})
        self.c.wait_log("hooks", "started")

        def knock():
            with socket.socket() as s:
                s.settimeout(1)
                try:
                    s.connect(("10.77.1.1", 18081))
                    s.sendall(b"x")
                    return True
                except OSError:
                    return False
        until(knock, 5, self.c.logs)
        t = status(self.c.wait_phase("hooks", "Failed"))["state"]["terminated"]
        self.assertEqual((t["exitCode"], t["message"]), (9, "why"))

    def test_host_network(self):
        self.c.run_pod("hostnet", "ip -o addr show kuayu0; cat /etc/hosts; echo DONE; sleep 100", hostNetwork=True)
        log = self.c.wait_log("hostnet", "DONE")
        self.assertIn("10.78.1.1/24", log)
        self.assertEqual(self.c.pod("hostnet")["status"]["podIP"], "10.77.1.1")

    def test_image_that_is_nowhere(self):
        self.c.run_pod("noimage", "x", container={"image": "no-such:1", "imagePullPolicy": "Never"})
        self.wait_status("noimage", lambda s: s["state"].get("waiting", {}).get("reason") == "ErrImageNeverPull")
        self.c.run_pod("norefs", "x", container={"image": "127.0.0.1:1/no:1"})
        self.wait_status("norefs", lambda s: s["state"].get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff"))

    def test_bad_command(self):
        self.c.run_pod("badcmd", "x", restartPolicy="Never", container={"command": ["/no/such"]})
        p = self.c.wait_phase("badcmd", "Failed")
        self.assertEqual(status(p)["state"]["terminated"]["reason"], "StartError")

    def test_logs_options(self):
        self.c.run_pod("logs", "for i in 1 2 3 4 5; do echo line$i; done; sleep 100")
        self.c.wait_log("logs", "line5")
        self.assertEqual(self.c.log("logs", query="?tailLines=2"), "line4\nline5\n")
        self.assertEqual(self.c.log("logs", query="?limitBytes=5"), "line1")
        self.assertRegex(self.c.log("logs", query="?timestamps=true&tailLines=1"), r"^20..-..-..T\S+Z line5\n$")
        with self.assertRaises(ApiError):
            self.c.log("logs", query="?previous=true")
        through_api = self.c.http("10.77.1.1", 6443, "GET", "/api/v1/namespaces/default/pods/logs/log")
        self.assertEqual(through_api.count("line"), 5)

    def test_long_log(self):
        text = "x" * 60
        self.c.run_pod("long", f"yes {text} | head -n 300000; echo END", restartPolicy="Never")
        self.c.wait_phase("long", "Succeeded", 40)
        for query in ("", "?follow=true"):
            lines = self.c.log("long", query=query).splitlines()
            self.assertEqual((len(lines), lines[0], lines[-1]), (300001, text, "END"), query)

    def test_stats(self):
        self.c.run_pod("stats", "while :; do :; done", container={"resources": {"limits": {"cpu": "200m"}}})
        self.c.wait_ready("stats")

        def usage():
            for p in json.loads(self.n.get("/stats/summary"))["pods"]:
                if p["podRef"]["name"] == "stats":
                    return p["containers"][0]

        def measured():  # the first time there is nothing to compare with
            u = usage()
            return u if u and 50e6 < u["cpu"].get("usageNanoCores", 0) < 400e6 else None
        u = until(measured, 10, lambda: f"a fifth of a processor: {usage()}", 0.5)
        self.assertGreater(u["memory"]["workingSetBytes"], 0)
        metrics = self.n.get("/metrics")
        self.assertIn('container_cpu_usage_seconds_total{namespace="default",pod="stats",container="main"}', metrics)
        self.assertIn("kuayu_node_fenced 0", metrics)
        self.assertEqual(self.n.get("/healthz"), "ok")


if __name__ == "__main__":
    unittest.main()
