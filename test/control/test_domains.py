# SPDX-License-Identifier: Apache-2.0
"""Three domains, each with an etcd member, an API server, a controller and a (pretended) node. One of them dies as a whole, also the one
that leads; the store stands still for a while; in all cases the dead node alone is given up, and its pods are replaced."""
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from test.api.server import KUAYU, Etcd, Pki, Server, free_port, wait_for
from test.control.cluster import Nodes
from test.control.test_control import workload

NAMES = ["a1", "b1", "c1"]
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kuayu-controller"


class AnyServer:
    """Calls go to the server that answered last, the next one after a failure: what every client role does."""

    def __init__(self, servers):
        self.servers = servers
        self.at = 0

    def call(self, method, path, body=None, headers=None, timeout=1.5):
        for _ in self.servers:
            at = self.at
            status, got = self.servers[at].call(method, path, body, headers, timeout)
            if status not in (0, 503, 504):
                return status, got
            self.at = (at + 1) % len(self.servers)
        return status, got


class Domains(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="kuayu-control-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.pki = Pki(os.path.join(self.folder, "pki"))
        self.etcd = Etcd(self.folder, 3)
        self.addCleanup(self.etcd.stop)
        self.servers = []
        for i in range(3):
            s = Server(self.folder, self.pki, self.etcd.uri(i))
            self.addCleanup(self.end, s.proc)
            self.servers.append(s)
        for s in self.servers:
            s.ready(30)
        self.any = AnyServer(self.servers)
        self.controllers = [self.controller(i) for i in range(3)]
        self.nodes = Nodes(self.any, NAMES)
        self.nodes.start()
        self.addCleanup(self.nodes.ended.set)
        wait_for(lambda: all(n.get("spec", {}).get("podCIDR") and not n["spec"].get("taints") for n in self.items("/api/v1/nodes")), 20, "nodes ready")
        for o in (workload("Deployment", "web", 6), workload("StatefulSet", "one", 3, serviceName="one", podManagementPolicy="Parallel")):
            plural = o["kind"].lower() + "s"
            status, got = self.any.call("POST", "/apis/apps/v1/namespaces/default/" + plural, o)
            self.assertEqual(status, 201, got)
        self.within(30, lambda: len(self.ready("web")) == 6 and len(self.ready("one")) == 3, "all ready")

    @staticmethod
    def end(proc):
        if proc.poll() is None:
            proc.send_signal(signal.SIGCONT)
            proc.kill()
        proc.wait(10)

    def controller(self, i):
        urls = ",".join(s.url for s in self.servers[i:] + self.servers[:i])
        log = open(os.path.join(self.folder, "controller-%d.log" % i), "ab")
        proc = subprocess.Popen([KUAYU, "controller", "--server=" + urls, "--ca=" + self.pki.file("ca.crt"), "--cert=" + self.pki.file("admin.crt"),
                                 "--key=" + self.pki.file("admin.key"), "--identity=" + NAMES[i], "--port=%d" % free_port()], stdout=log, stderr=log)
        log.close()
        self.addCleanup(self.end, proc)
        return proc

    def within(self, seconds, what, why):
        try:
            return wait_for(what, seconds, why)
        except AssertionError:
            for i in range(3):
                with open(os.path.join(self.folder, "controller-%d.log" % i)) as f:
                    print("== controller %s\n%s" % (NAMES[i], f.read()[-4000:]))
            raise

    def items(self, path):
        """What there is: no answer is no empty list; for a moment none of the servers may have one."""
        def answer():
            status, got = self.any.call("GET", path)
            return [got["items"]] if status == 200 else None
        return wait_for(answer, 10, "an answer to GET " + path)[0]

    def pods(self, app):
        return [p for p in self.items("/api/v1/namespaces/default/pods") if p["metadata"]["labels"].get("app") == app]

    def ready(self, app, but=None):
        return [p for p in self.pods(app) if not p["metadata"].get("deletionTimestamp") and p["spec"].get("nodeName") != but and
                any(c["type"] == "Ready" and c["status"] == "True" for c in p.get("status", {}).get("conditions", []))]

    def leader(self):
        status, lease = self.any.call("GET", LEASE)
        return NAMES.index(lease["spec"]["holderIdentity"]) if status == 200 and lease["spec"].get("holderIdentity") in NAMES else None

    def tainted(self):
        return [n["metadata"]["name"] for n in self.items("/api/v1/nodes") if n["spec"].get("taints")]

    def kill_domain(self, i):
        """All its processes at one moment. Returns that moment, and when its node renewed its lease last."""
        for p in (self.etcd.procs[i], self.servers[i].proc, self.controllers[i]):
            p.send_signal(signal.SIGSTOP)  # so that nothing says good-bye
        renewed = self.nodes.power_off(NAMES[i])
        cut = time.monotonic()
        for p in (self.etcd.procs[i], self.servers[i].proc, self.controllers[i]):
            p.kill()
        return cut, renewed

    def check_failover(self, i, what):
        victim = NAMES[i]
        old = {p["metadata"]["uid"] for p in self.pods("one") if p["spec"]["nodeName"] == victim}
        cut, renewed = self.kill_domain(i)
        early = []

        def web():
            pods = self.items("/api/v1/namespaces/default/pods")
            if time.monotonic() - renewed < 4.4 and not old <= {p["metadata"]["uid"] for p in pods}:
                early.append(time.monotonic() - cut)
            return len([p for p in self.ready("web", victim)]) == 6

        self.within(20, web, "web replaced")
        replaced = time.monotonic() - cut
        self.assertLess(replaced, 20)
        self.within(20, lambda: len(self.ready("one", victim)) == 3, "singletons replaced")
        fenced = time.monotonic() - cut
        self.assertFalse(early, "a singleton was replaced before its node had stopped it")
        self.assertGreaterEqual(time.monotonic() - renewed, 4.4)
        self.assertLess(fenced, 20)
        self.assertEqual(self.tainted(), [victim])
        if os.environ.get("KUAYU_TEST_LOGS"):
            for f in sorted(os.listdir(self.folder)):
                if f.endswith(".log") and not f.startswith("etcd"):
                    with open(os.path.join(self.folder, f)) as log:
                        print("== %s\n%s" % (f, log.read()[-5000:]))
        print("\n%s: ready again %.2f s, singletons %.2f s after the cut" % (what, replaced, fenced))

    def test_domain_without_leader_dies(self):
        self.check_failover((self.leader() + 1) % 3, "another domain than the leader's")

    def test_domain_of_leader_dies(self):
        self.check_failover(self.leader(), "the leader's domain")

    def test_store_stands_still(self):
        """No quorum for 4 s: nobody is judged, nothing is replaced."""
        before = {p["metadata"]["uid"] for a in ("web", "one") for p in self.pods(a)}
        for i in (0, 1):
            self.etcd.procs[i].send_signal(signal.SIGSTOP)
        time.sleep(4)
        for i in (0, 1):
            self.etcd.procs[i].send_signal(signal.SIGCONT)
        self.within(20, lambda: self.leader() is not None and len(self.items("/api/v1/nodes")) == 3, "the store is back")
        until = time.monotonic() + 6
        while time.monotonic() < until:
            self.assertEqual(self.tainted(), [])
            time.sleep(0.2)
        self.assertEqual(before, {p["metadata"]["uid"] for a in ("web", "one") for p in self.pods(a)})


if __name__ == "__main__":
    unittest.main()
