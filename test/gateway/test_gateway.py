# SPDX-License-Identifier: Apache-2.0
"""`kuayu gateway` with a real HAProxy, real backends and a real API server on loopback: own zone first, failover without a failed
request, return, streams, draining, new Services, restart of the gateway and of the proxy."""
import http.client
import json
import os
import re
import signal
import socket
import sys
import struct
import threading
import time
import unittest

from test.gateway.platform import Platform, free_port, http_get, metric, nft, own_network, wait_for

GATEWAY = "127.77.1.1"
BACKEND = os.path.join(os.path.dirname(os.path.abspath(__file__)), "backend.py")
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def request(port, method="GET", path="/", headers=None, body=None):
    c = http.client.HTTPConnection(GATEWAY, port, timeout=10)
    try:
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        return r.status, r.read().decode()
    finally:
        c.close()


def h2_calls(port, count):
    """GET / count times, one after another on one cleartext HTTP/2 connection (RFC 9113, fields from HPACK's static table);
    the bodies."""
    bodies = []
    try:
        with socket.create_connection((GATEWAY, port), timeout=5) as s:
            f = s.makefile("rb")
            s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            for stream in range(1, 2 * count, 2):
                block = b"\x82\x86\x84\x41\x01g"  # GET http / :authority g
                s.sendall(struct.pack(">I", len(block))[1:] + b"\1\5" + struct.pack(">I", stream) + block)
                body, ended = b"", False
                while not ended:
                    head = f.read(9)
                    data = f.read(int.from_bytes(head[:3], "big"))
                    ended = int.from_bytes(head[5:], "big") == stream and (head[3] == 3 or head[4] & 1 == 1)
                    body += data if head[3] == 0 else b""
                bodies.append(body.decode())
    except OSError:
        pass
    return bodies


def answers(port, name):
    """Condition: the service on this port is answered by this backend."""
    def check():
        try:
            return request(port) == (200, name)
        except (OSError, http.client.HTTPException):
            return False
    return check


class Load(threading.Thread):
    """Requests one after another on kept connections until stopped; what failed, who answered, the longest wait.

    As curl, browsers and others do (RFC 9110 9.2.2): when a kept connection is closed instead of an answer, the request is sent
    once more on a new one. HAProxy closes so, in rare moments, when a server dies under a request (docs/gateway.md)."""

    def __init__(self, port, method="GET", headers=None):
        super().__init__(daemon=True)
        self.port, self.method, self.headers = port, method, headers or {}
        self.failed, self.names, self.longest, self.n, self.again = [], [], 0.0, 0, 0
        self.stop_now = threading.Event()

    def run(self):
        self.connect(False)
        while not self.stop_now.is_set():
            start = time.monotonic()
            try:
                status, name = self.ask()
                if status != 200:
                    self.failed.append(status)
                elif not self.names or self.names[-1] != name:
                    self.names.append(name)
            except (OSError, http.client.HTTPException) as e:
                self.failed.append(repr(e))
                self.connect(False)
            self.n += 1
            self.longest = max(self.longest, time.monotonic() - start)
            time.sleep(0.005)
        self.connection.close()

    def connect(self, again):
        if self.n:
            self.connection.close()
        self.kept, self.again = False, self.again + again
        self.connection = http.client.HTTPConnection(GATEWAY, self.port, timeout=10)

    def ask(self):
        try:
            self.connection.request(self.method, "/", b"x" if self.method == "POST" else None, self.headers)
            r = self.connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            if not self.kept:
                raise
            self.connect(True)
            return self.ask()
        self.kept = True
        return r.status, r.read().decode()

    def finish(self):
        self.stop_now.set()
        self.join(15)
        return self


class GatewayTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        own_network()
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.health = cls.start_gateway()
        wait_for("the gateway is healthy", 10, lambda: cls.healthy())

    @classmethod
    def start_gateway(cls):
        return cls.p.role("gateway-a1", "gateway", "--node=a1", "--zone=a", f"--address={GATEWAY}",
                          f"--data={cls.p.dir}/gw", "--distances=b:5,c:12")

    @classmethod
    def healthy(cls):
        try:
            return http_get(cls.health, "/healthz")[0] == 200
        except OSError:
            return False

    def setUp(self):
        self.backends = {}
        self.endpoints = {}
        self.made = []
        self.name = re.sub(r"[^a-z0-9]+", "-", self._testMethodName.lower()).strip("-")[:40]

    def tearDown(self):
        for path in self.made:
            self.p.delete(path)
        for name in list(self.backends):
            self.stop(name)

    # ---- backends and endpoints ----
    def stop(self, name):
        p = self.backends.pop(name)
        self.p.kill(p)

    def backend(self, zone, number=1, tcp=False, address=None, port=None):
        """Starts a backend in a zone and lists it as a ready endpoint."""
        name = f"{zone}{number}"
        address = address or f"127.77.{10 + ord(zone) - ord('a')}.{number}"
        port = port or self.target_port
        process = f"backend-{self.name}-{name}"
        self.p.start(process, BACKEND, name, address, str(port), *(["tcp"] if tcp else []), program=sys.executable)
        self.backends[name] = process
        wait_for("the backend listens", 5, lambda: self.listens(address, port))
        self.endpoints[name] = {"addresses": [address], "zone": zone, "conditions": {"ready": True, "serving": True,
                                                                                     "terminating": False}}
        return name

    @staticmethod
    def listens(address, port):
        with socket.socket() as s:
            return s.connect_ex((address, port)) == 0

    def publish(self):
        """Writes the EndpointSlice."""
        body = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": self.name, "labels": {"kubernetes.io/service-name": self.name}},
                "ports": [{"name": "main", "port": self.target_port, "protocol": "TCP"}],
                "endpoints": list(self.endpoints.values())}
        path = f"{SLICES}/{self.name}"
        if path in self.made:
            self.p.patch(path, {"endpoints": body["endpoints"]})
        else:
            self.p.create(SLICES, body)
            self.made.append(path)

    def service(self, app_protocol="http", annotations=None, port=None, **spec):
        self.port = port or free_port(GATEWAY)
        self.target_port = free_port("127.77.10.1")
        self.p.create(SERVICES, {"apiVersion": "v1", "kind": "Service",
                                 "metadata": {"name": self.name, "annotations": annotations or {}},
                                 "spec": {"type": "LoadBalancer", "selector": {"app": self.name}, **spec,
                                          "ports": [{"name": "main", "port": self.port, "targetPort": self.target_port,
                                                     "appProtocol": app_protocol}]}})
        self.made.append(f"{SERVICES}/{self.name}")
        return self.port

    def timeline(self):
        lines = [json.loads(line) for line in self.p.log("gateway-a1").splitlines() if line.startswith("{")]
        return [(e["event"], e["from"], e["to"]) for e in lines if e["service"] == self.name]

    # ---- tests ----
    def test_local_first_failover_and_return(self):
        self.service()
        self.backend("a")
        self.backend("b")
        self.backend("c")
        self.publish()
        wait_for("answered in the own zone", 5, answers(self.port, "a1"))
        loads = [Load(self.port), Load(self.port), Load(self.port, "POST", {"Idempotency-Key": "k"})]
        for load in loads:
            load.start()
        time.sleep(0.5)
        self.stop("a1")
        time.sleep(1.5)
        self.backend("a")
        wait_for("answered in the own zone again", 5, answers(self.port, "a1"))
        time.sleep(0.3)
        for load in loads:
            load.finish()
            self.assertEqual(load.failed, [])
            self.assertEqual([load.names[0], load.names[-1]], ["a1", "a1"])
            self.assertIn("b1", load.names)
            self.assertGreater(load.n, 50)
        print(f"longest wait {max(l.longest for l in loads):.2f} s, {sum(l.again for l in loads)} kept connections closed")
        self.assertIn(("GatewayFailover", "a", "b"), self.timeline())
        wait_for("the return is told", 3, lambda: ("GatewayReturned", "b", "a") in self.timeline())
        self.assertEqual(http_get(self.health, "/metrics")[0], 200)
        self.assertGreaterEqual(metric(self.health, "kuayu_gateway_failovers_total"), 1)

    def test_nearest_zone_takes_over(self):
        self.service()
        for zone in "bc":
            self.backend(zone)
        self.publish()
        wait_for("answered", 5, answers(self.port, "b1"))
        names = [request(self.port)[1] for _ in range(60)]
        self.assertGreaterEqual(names.count("b1"), 58)
        self.stop("b1")
        wait_for("the farther zone answers", 3, answers(self.port, "c1"), promised=True)

    def test_stream_moves_at_once(self):
        self.service("tcp")
        self.backend("a", tcp=True)
        self.backend("b", tcp=True)
        self.publish()
        wait_for("listening", 5, lambda: self.listens(GATEWAY, self.port))

        def first_line():
            s = socket.create_connection((GATEWAY, self.port), timeout=5)
            f = s.makefile()
            return s, f, f.readline().strip()

        def served_by():
            connection, file, line = first_line()
            file.close()
            connection.close()
            return line

        wait_for("served in the own zone", 5, lambda: served_by() == "a1")
        s, f, name = first_line()
        self.assertEqual(name, "a1")
        self.stop("a1")
        start = time.monotonic()
        while f.readline():
            pass
        f.close()
        s.close()
        self.assertEqual(served_by(), "b1")
        print(f"moved after {time.monotonic() - start:.2f} s")

    def test_hung_server_is_left(self):
        """The process stands still: connections succeed, nothing answers. The health check finds it, waiting reads move."""
        self.service(annotations={"kuayu.io/health-path": "/healthz"})
        self.backend("a")
        self.backend("b")
        self.publish()
        wait_for("answered in the own zone", 5, answers(self.port, "a1"))
        self.p.processes[self.backends["a1"]].send_signal(signal.SIGSTOP)
        time.sleep(0.05)  # it takes a moment to stop
        start = time.monotonic()
        self.assertEqual(request(self.port), (200, "b1"))
        print(f"moved after {time.monotonic() - start:.2f} s")

    def test_silent_server_is_left(self):
        """The machine of the server in use loses power: no refusal, just silence. Reads that wait for it move, no one fails."""
        self.service()
        self.backend("b")
        self.backend("c")
        self.publish()
        wait_for("answered", 5, answers(self.port, "b1"))
        loads = [Load(self.port) for _ in range(3)]
        slow = []
        waiting = threading.Thread(target=lambda: slow.append(request(self.port, path="/slow")))
        for load in loads:
            load.start()
        waiting.start()
        time.sleep(0.5)
        nft("""add table ip cut
               add chain ip cut in { type filter hook input priority 0; }
               add rule ip cut in ip daddr 127.77.11.1 drop
               add rule ip cut in ip saddr 127.77.11.1 drop""")
        self.addCleanup(nft, "delete table ip cut")
        wait_for("the farther zone answers", 6, answers(self.port, "c1"), promised=True)
        waiting.join(20)
        time.sleep(0.3)
        for load in loads:
            load.finish()
            self.assertEqual(load.failed, [])
            self.assertEqual(load.names[-1], "c1")
        self.assertEqual(slow, [(200, "c1")])
        print(f"longest wait {max(l.longest for l in loads):.2f} s")

    def test_draining_keeps_what_runs(self):
        self.service()
        self.backend("a", 1)
        self.backend("a", 2)
        self.publish()
        wait_for("answered", 5, answers(self.port, "a1"))
        wait_for("both are used", 5, lambda: {request(self.port)[1] for _ in range(8)} == {"a1", "a2"})
        results = []
        threads = [threading.Thread(target=lambda: results.append(request(self.port, path="/slow"))) for _ in range(4)]
        for t in threads:
            t.start()
        time.sleep(0.7)  # all have been sent, none is answered
        self.endpoints["a1"]["conditions"] = {"ready": False, "serving": True, "terminating": True}
        self.publish()
        wait_for("it gets no more", 5, lambda: {request(self.port)[1] for _ in range(10)} == {"a2"})
        for t in threads:
            t.join(10)
        self.assertEqual(sorted(results), [(200, "a1"), (200, "a1"), (200, "a2"), (200, "a2")])
        del self.endpoints["a1"]
        self.publish()
        server = f'server="a_127.77.10.1_{self.target_port}"'
        wait_for("the server is deleted", 6, lambda: server not in http_get(self.health, "/metrics")[1])

    def test_new_service_without_a_gap(self):
        """A reload hands the sockets over: a request stream on another port does not notice."""
        first = self.service()
        self.backend("a")
        self.publish()
        wait_for("answered", 5, answers(first, "a1"))
        load = Load(first)
        load.start()
        second = free_port(GATEWAY)
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name + "-2"},
                "spec": {"type": "LoadBalancer", "ports": [{"name": "main", "port": second, "appProtocol": "http"}]}}
        self.p.create(SERVICES, body)
        self.made.append(f"{SERVICES}/{self.name}-2")
        wait_for("the new port listens", 5, lambda: self.listens(GATEWAY, second))
        time.sleep(0.5)
        load.finish()
        self.assertEqual(load.failed, [])
        self.assertEqual(request(second)[0], 503)
        self.assertEqual(request(first, path="/xff")[1], "127.0.0.1")

    def test_gateway_restart_and_proxy_death(self):
        self.service()
        self.backend("a")
        self.publish()
        wait_for("answered", 5, answers(self.port, "a1"))
        load = Load(self.port)
        load.start()
        self.p.kill("gateway-a1")
        time.sleep(0.3)
        type(self).health = self.start_gateway()
        wait_for("healthy again", 5, self.healthy)
        load.finish()
        self.assertEqual(load.failed, [])
        self.assertIn("is taken up", self.p.log("gateway-a1"))
        self.assertEqual(metric(self.health, "kuayu_gateway_proxy_starts_total"), 0)
        pid = int(re.findall(r"process (\d+) was running already", self.p.log("gateway-a1"))[-1])
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        wait_for("a new proxy answers", 5, answers(self.port, "a1"))

    def test_status_has_all_gateways(self):
        self.service()
        self.p.create("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
                      {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                       "metadata": {"name": "kuayu-gateway-b1", "labels": {"kuayu.io/gateway": "true"},
                                    "annotations": {"kuayu.io/address": "127.77.2.1", "kuayu.io/zone": "b"}},
                       "spec": {"holderIdentity": "b1"}})
        self.made.append("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kuayu-gateway-b1")
        want = [{"ip": GATEWAY}, {"ip": "127.77.2.1"}]
        strip = lambda s: [{"ip": i["ip"]} for i in s.get("status", {}).get("loadBalancer", {}).get("ingress", [])]
        wait_for("both addresses are told", 8, lambda: strip(self.p.get(f"{SERVICES}/{self.name}")) == want)

    def test_port_conflict(self):
        self.service()
        self.backend("a")
        self.publish()
        wait_for("answered", 5, answers(self.port, "a1"))
        time.sleep(1.1)  # creation times have whole seconds
        self.p.create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "zz-late"},
                                 "spec": {"type": "LoadBalancer", "ports": [{"port": self.port}]}})
        self.made.append(f"{SERVICES}/zz-late")
        wait_for("it is told", 5, lambda: "already exposed" in self.p.log("gateway-a1"))
        self.assertEqual(request(self.port), (200, "a1"))

    def test_port_of_another_program(self):
        """One port that cannot be had does not keep the others closed, and is had when it is free."""
        with socket.socket() as other:
            other.bind((GATEWAY, 0))
            other.listen()
            self.service(port=other.getsockname()[1])
            wait_for("it is told", 5, lambda: f"port {self.port} of {GATEWAY} is in use" in self.p.log("gateway-a1"))
            self.assertTrue(self.healthy())
        self.backend("a")
        self.publish()
        wait_for("answered", 15, answers(self.port, "a1"))

    def test_h2_balances_each_call(self):
        """Backends that speak cleartext HTTP/2 only (each an HAProxy); one client connection, calls go to both."""
        self.service("kubernetes.io/h2c")
        for number in (1, 2):
            address, name = f"127.77.10.{number}", f"a{number}"
            conf = os.path.join(self.p.dir, f"h2-{number}.cfg")
            with open(conf, "w", encoding="utf-8") as f:
                f.write("defaults\n mode http\n timeout client 10s\n timeout connect 1s\n timeout server 10s\n"
                        f"frontend f\n bind {address}:{self.target_port} proto h2\n"
                        f" http-request return status 200 content-type text/plain string {name}\n")
            self.backends[name] = f"h2-{number}"
            self.p.start(f"h2-{number}", "-db", "-f", conf, program="haproxy")
            wait_for("it listens", 5, lambda: self.listens(address, self.target_port))
            self.endpoints[name] = {"addresses": [address], "zone": "a", "conditions": {"ready": True}}
        self.publish()
        wait_for("both are used", 5, lambda: set(h2_calls(self.port, 4)) == {"a1", "a2"})
        out = h2_calls(self.port, 8)
        self.assertEqual((out.count("a1"), out.count("a2")), (4, 4))


if __name__ == "__main__":
    unittest.main()
