# SPDX-License-Identifier: Apache-2.0
"""A cluster for the controllers' tests: one real `kuayu api`, real `kuayu controller`s, and nodes that are only pretended: leases,
views of one another, pods that are bound, run and stop at once. What a node does can be stopped: that is its power cut."""
import os
import subprocess
import threading
import time

from test.api.server import KUAYU, Fixture, free_port

MERGE = {"Content-Type": "application/merge-patch+json"}
STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}


def now(digits=0):
    t = time.time()
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t))
    return text + (".%06dZ" % int(t % 1 * 1e6) if digits else "Z")


class Nodes(threading.Thread):
    """Pretends to be all node agents and the scheduler."""

    def __init__(self, server, names):
        super().__init__(daemon=True)
        self.server = server
        self.names = names
        self.alive = set(names)      # has power
        self.silent = set()          # runs, but its lease is not renewed
        self.heard = {n: time.monotonic() for n in names}  # before its power was cut
        self.tried = dict.fromkeys(names, 0.0)
        self.renewed = dict.fromkeys(names, 0.0)  # sending of the last renewal that was answered
        self.told = {n: frozenset() for n in names}
        self.unready = set()         # pods (name prefixes) that never become ready
        self.ended = threading.Event()
        self.ips = {}
        for n in names:
            status, _ = server.call("POST", "/api/v1/nodes", {
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": n, "labels": {"topology.kubernetes.io/zone": n[0], "kubernetes.io/hostname": n}}})
            assert status in (201, 409), status
            self.node_ready(n)

    def node_ready(self, n):
        self.server.call("PATCH", "/api/v1/nodes/%s/status" % n, {"status": {"conditions": [
            {"type": "Ready", "status": "True", "reason": "NodeAgentReady", "message": "", "lastTransitionTime": now()}]}}, MERGE)

    def renew(self, n):
        t = time.monotonic()
        # Those that are alive have just been heard, whatever this program waited for meanwhile.
        peers = ",".join('"%s":%d' % (p, 0 if p in self.alive else (t - self.heard[p]) * 1000) for p in self.names if p != n)
        body = {"metadata": {"annotations": {"kuayu.io/peers": "{%s}" % peers}},
                "spec": {"holderIdentity": n, "leaseDurationSeconds": 4, "renewTime": now(6)}}
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        status, _ = self.server.call("PATCH", path + "/" + n, body, MERGE, timeout=2)
        if status == 404:
            body["apiVersion"], body["kind"], body["metadata"]["name"] = "coordination.k8s.io/v1", "Lease", n
            status, _ = self.server.call("POST", path, body, timeout=2)
        return status in (200, 201)

    def lease(self, n):
        """Each node's on a thread of its own: one that waits for the store keeps no other from renewing."""
        t = time.monotonic()
        if n in self.alive and n not in self.silent:
            quiet = frozenset(p for p in self.names if p not in self.alive and t - self.heard[p] > 0.8)
            if t - self.tried[n] >= 1 or quiet != self.told[n]:
                self.tried[n], self.told[n] = t, quiet
                if self.renew(n):
                    self.renewed[n] = t

    def bind(self, pod, count):
        status, nodes = self.server.call("GET", "/api/v1/nodes")
        good = [x["metadata"]["name"] for x in nodes["items"] if not x.get("spec", {}).get("taints") and not x["spec"].get("unschedulable")]
        if good:
            m = pod["metadata"]
            self.server.call("POST", "/api/v1/namespaces/%s/pods/%s/binding" % (m["namespace"], m["name"]), {
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": m["name"]},
                "target": {"kind": "Node", "name": min(good, key=lambda n: count.get(n, 0))}})

    def run_pod(self, pod, path):
        m = pod["metadata"]
        ip = self.ips.setdefault(m["uid"], "10.78.0.%d" % (len(self.ips) % 250 + 1))
        ready = "False" if any(m["name"].startswith(p) for p in self.unready) else "True"
        self.server.call("PATCH", path + "/status", {"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [
            {"type": "ContainersReady", "status": ready, "lastTransitionTime": now()},
            {"type": "Ready", "status": ready, "lastTransitionTime": now()}]}}, STRATEGIC)

    def pods(self):
        status, got = self.server.call("GET", "/api/v1/pods")
        if status != 200:
            return
        count = {}
        for pod in got["items"]:
            count[pod["spec"].get("nodeName")] = count.get(pod["spec"].get("nodeName"), 0) + 1
        for pod in got["items"]:
            m, node = pod["metadata"], pod["spec"].get("nodeName")
            path = "/api/v1/namespaces/%s/pods/%s" % (m["namespace"], m["name"])
            if not node:
                self.bind(pod, count)
                return  # one at a time, with fresh counts
            if node not in self.alive or node in self.silent:
                continue
            if m.get("deletionTimestamp"):
                self.server.call("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                                                  "preconditions": {"uid": m["uid"]}})
            elif pod.get("status", {}).get("phase") != "Running":
                self.run_pod(pod, path)

    def run(self):
        for n in self.names:
            threading.Thread(target=self.loop, args=(self.lease, 0.05, n), daemon=True).start()
        self.loop(self.pods, 0.02)

    def loop(self, what, pause, *words):
        while not self.ended.wait(pause):
            try:
                what(*words)
            except (OSError, ValueError, TypeError, KeyError):
                if not self.ended.is_set():
                    time.sleep(0.1)

    def power_off(self, n):
        """Returns when it has renewed last, at the earliest: fencing counts from there."""
        self.heard[n] = time.monotonic()
        self.alive.discard(n)
        return self.renewed[n]

    def power_on(self, n):
        self.alive.add(n)


class Cluster(Fixture):
    def __init__(self, names=("a1", "b1", "c1"), controllers=1):
        self.controllers = []
        super().__init__()
        try:
            for i in range(controllers):
                self.controller("c%d" % i)
            self.nodes = Nodes(self.server, list(names))
            self.nodes.start()
        except BaseException:
            self.close()
            raise

    def controller(self, name):
        pki = self.pki
        port = free_port()
        log = open(os.path.join(self.folder, "controller-%s.log" % name), "ab")
        proc = subprocess.Popen([KUAYU, "controller", "--server=" + self.server.url, "--ca=" + pki.file("ca.crt"),
                                 "--cert=" + pki.file("admin.crt"), "--key=" + pki.file("admin.key"), "--identity=" + name,
                                 "--port=%d" % port], stdout=log, stderr=log)
        log.close()
        proc.port = port
        self.controllers.append(proc)
        return proc

    def log(self):
        text = ""
        for f in sorted(os.listdir(self.folder)):
            if f.startswith("controller-"):
                with open(os.path.join(self.folder, f)) as log:
                    text += "== %s\n%s" % (f, log.read()[-6000:])
        return text

    def close(self):
        if hasattr(self, "nodes"):
            self.nodes.ended.set()
        for p in self.controllers:
            p.terminate()
        for p in self.controllers:
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait(10)
        super().close()
