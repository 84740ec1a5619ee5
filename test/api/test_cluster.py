# SPDX-License-Identifier: Apache-2.0
"""Three servers on three etcd members: one server and one member are killed (kill -9) under load; then two members, and back. What
was acknowledged is there, watches go on at another server, a server without its store sends its clients away."""
import json
import os
import shutil
import tempfile
import threading
import time
import unittest
import urllib.error

from test.api.server import Etcd, Pki, Server, free_port, wait_for

NS = "/api/v1/namespaces/default"
MAPS = NS + "/configmaps"


class Client:
    """Goes to the next server when one does not answer, as every client of the platform does."""

    def __init__(self, servers, first):
        self.servers, self.at = servers, first

    def call(self, method, path, body=None):
        status, answer = 0, None
        for _ in range(60):
            status, answer = self.servers[self.at % 3].call(method, path, body, timeout=5)
            if status not in (0, 500, 503, 504):
                return status, answer
            self.at += 1
            time.sleep(0.1)
        raise AssertionError("no server answers: %s %s" % (status, answer))


class Writer(threading.Thread):
    def __init__(self, servers, number):
        super().__init__()
        self.client, self.number = Client(servers, number), number
        self.acknowledged, self.gap, self.stopping, self.error = [], 0.0, False, None

    def run(self):
        last, n = time.monotonic(), 0
        try:
            while not self.stopping:
                name = "w%d-%05d" % (self.number, n)
                status, answer = self.client.call("POST", MAPS, {"metadata": {"name": name, "labels": {"run": "ha"}}, "data": {"n": str(n)}})
                assert status in (201, 409), answer  # 409: an attempt whose answer was lost had been done
                self.acknowledged.append(name)
                now = time.monotonic()
                self.gap, last, n = max(self.gap, now - last), now, n + 1
                time.sleep(0.01)
        except Exception as e:  # noqa: looked at by the test
            self.error = e


class Watcher(threading.Thread):
    """List and watch, as informers do it."""

    def __init__(self, servers):
        super().__init__(daemon=True)
        self.servers, self.at, self.seen, self.stopping = servers, 0, {}, False
        self.lists, self.moves, self.twice = 0, 0, []

    def run(self):
        rev = None
        while not self.stopping:
            server = self.servers[self.at % 3]
            try:
                if rev is None:
                    status, got = server.call("GET", MAPS + "?labelSelector=run%3Dha", timeout=5)
                    if status != 200:
                        raise OSError(str(status))
                    self.lists += 1
                    rev = got["metadata"]["resourceVersion"]
                    self.seen = {o["metadata"]["name"]: 1 for o in got["items"]}
                path = MAPS + "?watch=1&allowWatchBookmarks=true&labelSelector=run%3Dha&resourceVersion=" + rev
                for e in server.watch(path, timeout=3):  # bookmarks come every second: 3 s of silence is a dead server
                    if e["type"] == "ERROR":
                        rev = None
                        break
                    rev = e["object"]["metadata"]["resourceVersion"]
                    if e["type"] == "ADDED":
                        name = e["object"]["metadata"]["name"]
                        if name in self.seen:
                            self.twice.append(name)
                        self.seen[name] = 1
                    if self.stopping:
                        return
            except (OSError, urllib.error.URLError, ValueError, json.JSONDecodeError):
                pass
            except Exception as e:  # http.client.IncompleteRead and the like: the server died
                if "http.client" not in type(e).__module__:
                    raise
            self.at += 1
            self.moves += 1
            time.sleep(0.05)


class Cluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="kuayu-api-ha-")
        cls.servers, cls.etcd = [], None
        try:
            cls.pki = Pki(os.path.join(cls.folder, "pki"))
            cls.etcd = Etcd(cls.folder, 3)
            port = free_port()
            cls.servers = [Server(cls.folder, cls.pki, cls.etcd.uri(i), address="127.0.0.%d" % (11 + i), port=port) for i in range(3)]
            for s in cls.servers:
                s.ready(30)
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        for s in cls.servers:
            s.kill()
        if cls.etcd:
            cls.etcd.stop()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def endpoints(self, server):
        got = server.call("GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")[1] or {}
        return sorted(e["addresses"][0] for e in got.get("endpoints", []))

    def test_1_a_server_and_a_member_die(self):
        s = self.servers
        wait_for(lambda: self.endpoints(s[1]) == ["127.0.0.11", "127.0.0.12", "127.0.0.13"], 10, "three endpoints")
        writers = [Writer(s, i) for i in range(3)]
        watcher = Watcher(s)
        for t in (*writers, watcher):
            t.start()
        time.sleep(2)
        s[0].kill()
        time.sleep(2)
        self.etcd.kill(1)
        wait_for(lambda: self.endpoints(s[2]) == ["127.0.0.12", "127.0.0.13"], 15, "the dead server is no endpoint")
        time.sleep(2)
        wait_for(lambda: all(w.error or len(w.acknowledged) > 50 for w in writers), 20, "many writes, behind the deaths too")
        for w in writers:
            w.stopping = True
        for w in writers:
            w.join(30)
            self.assertIsNone(w.error)
            self.assertGreater(len(w.acknowledged), 50)
        done = {n for w in writers for n in w.acknowledged}
        for server in s[1:]:
            status, got = server.call("GET", MAPS + "?labelSelector=run%3Dha")
            self.assertEqual(status, 200)
            self.assertEqual(done - {o["metadata"]["name"] for o in got["items"]}, set(), "acknowledged, but not there")
        wait_for(lambda: set(watcher.seen) >= done, 10, "the watcher sees everything")
        watcher.stopping = True
        watcher.join(10)
        self.assertEqual(watcher.twice, [], "no event twice")
        self.assertEqual(watcher.lists, 1, "a watch goes on at another server without a new list")
        print("longest gap of a writer %.2f s, watcher moved %d times" % (max(w.gap for w in writers), watcher.moves))
        self.etcd.start(1)
        s[0].start()
        s[0].ready(20)
        wait_for(lambda: len(self.endpoints(s[2])) == 3, 10, "it is an endpoint again")

    def test_2_two_members_die_and_come_back(self):
        s = self.servers
        ended = []

        def follow():
            began = time.monotonic()
            for _ in s[0].watch(MAPS + "?watch=1&allowWatchBookmarks=true", timeout=20):
                began = time.monotonic()
            ended.append(time.monotonic() - began)
        t = threading.Thread(target=follow)
        t.start()
        time.sleep(1)
        self.etcd.kill(1)
        self.etcd.kill(2)
        t.join(20)
        self.assertTrue(ended, "a watch ends by itself when the store is gone")
        status, answer = s[0].call("GET", NS + "/configmaps")
        self.assertIn(status, (503, 504))
        self.assertIn(answer["reason"], ("ServiceUnavailable", "Timeout"))
        self.assertEqual(s[0].call("GET", "/readyz")[0], 503)
        began = time.monotonic()
        self.assertEqual(s[0].call("POST", MAPS, {"metadata": {"name": "never"}})[0], 503)
        print("watch ended %.2f s after its last event; a refusal takes %.3f s" % (ended[0], time.monotonic() - began))
        self.etcd.start(1)
        self.etcd.start(2)
        for server in s:
            server.ready(30)
        # The members may elect once more; 409: an attempt whose answer was lost had been done.
        wait_for(lambda: s[0].call("POST", MAPS, {"metadata": {"name": "again"}})[0] in (201, 409), 5, s[0].log)
        self.assertEqual(s[1].call("GET", MAPS + "/again")[0], 200, "a read at another server sees it at once")

    def test_3_one_address_for_one_service(self):
        """Many services made at once by three servers: no address twice."""
        made, threads = [], []

        def make(i):
            status, answer = self.servers[i % 3].call("POST", NS + "/services", {"metadata": {"name": "s%d" % i}, "spec": {"ports": [{"port": 1}]}})
            made.append(answer["spec"]["clusterIP"] if status == 201 else str(answer))
        for i in range(30):
            threads.append(threading.Thread(target=make, args=(i,)))
            threads[-1].start()
        for t in threads:
            t.join()
        self.assertEqual(len(set(made)), 30, made)
