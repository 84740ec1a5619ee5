# SPDX-License-Identifier: Apache-2.0
"""The MES example on one real MariaDB: bad input, and machines and an office that go on while servers and the database are killed
with SIGKILL: nothing acknowledged is lost, nothing is stored twice."""
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from test.waiting import free_port, patient

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, "build/examples/mes")


def wait_for(what, check, seconds=20):
    seconds = patient(seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


def request(url, body=None, headers=None):
    req = urllib.request.Request(url, data=body, headers=headers or {}, method="POST" if body is not None else "GET")
    try:
        with urllib.request.urlopen(req, timeout=10) as r:
            return r.status, r.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()
    except (OSError, http.client.HTTPException):  # no connection, or it ended in the middle
        return 0, b""


class MesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="kuayu-mes-")
        cls.procs = {}
        cls.db_port = free_port()
        cls.ports = [free_port(), free_port()]
        cls.grpc_ports = [free_port(), free_port()]
        cls.addClassCleanup(cls.clean)
        os.chmod(cls.dir, 0o755)
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={cls.dir}/db", "--auth-root-authentication-method=normal",
                        "--skip-test-db", "--user=root"], check=True, stdout=subprocess.DEVNULL, timeout=60)
        cls.start_db()
        wait_for("MariaDB", lambda: cls.sql("SELECT 1") == "1")
        cls.sql("CREATE DATABASE mes; CREATE USER mes@'%' IDENTIFIED BY 'secret'; GRANT ALL ON mes.* TO mes@'%'")
        for i in range(2):
            cls.start_server(i)
        for p in cls.ports:
            wait_for("MES", lambda p=p: request(f"http://127.0.0.1:{p}/readyz")[0] == 200)
        cls.url = f"http://127.0.0.1:{cls.ports[0]}"
        wait_for("tables", lambda: request(f"{cls.url}/api/summary")[0] == 200)

    @classmethod
    def clean(cls):
        for p in cls.procs.values():
            p.kill()
            p.wait()
        shutil.rmtree(cls.dir)

    @classmethod
    def start(cls, name, args, **env):
        with open(f"{cls.dir}/{name}.log", "a") as log:
            cls.procs[name] = subprocess.Popen(args, stdout=log, stderr=log, env={**os.environ, **env})

    @classmethod
    def start_db(cls):
        cls.start("db", ["mariadbd", "--no-defaults", f"--datadir={cls.dir}/db", f"--socket={cls.dir}/sock", f"--port={cls.db_port}",
                         "--bind-address=127.0.0.1", "--user=root", "--innodb-buffer-pool-size=32M", f"--pid-file={cls.dir}/pid"])

    @classmethod
    def start_server(cls, i):
        cls.start(f"mes{i}", [f"{BIN}/mes-server", "--address=127.0.0.1", f"--port={cls.ports[i]}", "--db-host=127.0.0.1",
                              f"--grpc-address=127.0.0.1:{cls.grpc_ports[i]}",
                              f"--db-port={cls.db_port}"], MES_DB_PASSWORD="secret")

    @classmethod
    def sql(cls, text):
        r = subprocess.run(["mariadb", "--no-defaults", "-uroot", f"-S{cls.dir}/sock", "-N", "-B", "-e", text], capture_output=True, text=True,
                           timeout=30)
        return r.stdout.strip() if r.returncode == 0 else None

    def kill9(self, name):
        self.procs[name].send_signal(signal.SIGKILL)
        self.procs[name].wait()

    def order(self, key="k1", **change):
        body = {"product": "shirt", "quantity": 5, "machines": ["x-1"], "source": "test", **change}
        return request(f"{self.url}/api/orders", json.dumps(body).encode(), {"Idempotency-Key": key} if key else {})

    def test_bad_input_is_refused_and_stores_nothing(self):
        before = self.sql("SELECT (SELECT COUNT(*) FROM mes.orders), (SELECT COUNT(*) FROM mes.reports)")
        for status, _ in (self.order(key=None), self.order(key="a b"), self.order(quantity=0), self.order(machines=[]),
                          self.order(machines=["'; DROP TABLE orders; --"]), self.order(product="x" * 33),
                          request(f"{self.url}/api/orders", b"{", {"Idempotency-Key": "k"}),
                          request(f"{self.url}/api/reports", b"{}"), request(f"{self.url}/api/reports", b"[]"),
                          request(f"{self.url}/api/reports", b'[{"machine":"m","seq":-1,"state":"idle","at_ms":1}]'),
                          request(f"{self.url}/api/machines/m/work-orders?wait=1000"),
                          request(f"{self.url}/api/machines/m/work-orders?ack=1;2")):
            self.assertEqual(status, 400)
        self.assertEqual(request(f"{self.url}/nothing")[0], 404)
        self.assertEqual(self.sql("SELECT (SELECT COUNT(*) FROM mes.orders), (SELECT COUNT(*) FROM mes.reports)"), before)

    def test_an_order_is_created_once_for_a_key(self):
        first, again = self.order("once"), self.order("once")
        self.assertEqual((first[0], again[0]), (201, 200))
        self.assertEqual(json.loads(first[1])["id"], json.loads(again[1])["id"])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM mes.orders o JOIN mes.work_orders w ON w.order_id=o.id WHERE idem_key='once'"), "1")

    def test_the_same_over_grpc(self):
        r = subprocess.run([f"{BIN}/mes-rpc-client", f"127.0.0.1:{self.grpc_ports[0]}"], capture_output=True, text=True, timeout=60)
        self.assertEqual((r.returncode, r.stdout), (0, "ok\n"))
        self.assertEqual(self.sql("SELECT COUNT(*) FROM mes.reports WHERE machine='grpc-1' AND seq=7"), "1")

    def test_shift_reports(self):
        """Two servers of two domains on one folder: each writes its own files, both answer for both."""
        folder = f"{self.dir}/shift"
        os.mkdir(folder)
        ports = [free_port(), free_port()]
        for i, site in enumerate(("a1", "b1")):
            self.start(f"shift{i}", [f"{BIN}/mes-server", f"--port={ports[i]}", "--address=127.0.0.1", "--grpc-address=", f"--site={site}",
                                     "--db-host=127.0.0.1", f"--db-port={self.db_port}", f"--shift-reports={folder}", "--shift-length=1s"],
                       MES_DB_PASSWORD="secret")
        urls = [f"http://127.0.0.1:{p}" for p in ports]
        for u in urls:
            wait_for("MES", lambda u=u: request(u + "/readyz")[0] == 200)
        for i, u in enumerate(urls):
            rows = [{"machine": f"shift-{i}-{n}", "site": f"line-{i}", "seq": 1, "state": "sewing" if n else "fault", "produced": n, "at_ms": 1000}
                    for n in range(5)]
            self.assertEqual(request(u + "/api/reports", json.dumps(rows).encode())[0], 200)

        def listed(u, query=""):
            status, body = request(u + "/api/v1/shift-reports" + query)
            self.assertEqual(status, 200, body)
            return json.loads(body)["reports"]
        for u in urls:
            wait_for("both files", lambda u=u: len(listed(u)) == 2)
        self.assertEqual(listed(urls[0]), listed(urls[1]))
        one = listed(urls[0], "?domain=b1&line=line-1")
        self.assertEqual([(o["domain"], o["line"]) for o in one], [("b1", "line-1")])
        status, body = request(f"{urls[0]}/api/v1/shift-reports/b1/line-1/{one[0]['name']}")
        report = json.loads(body)
        self.assertEqual((status, report["domain"], report["reports"], report["produced"], report["states"]), (200, "b1", 5, 10, {"fault": 1, "sewing": 4}))
        self.assertEqual(one[0]["bytes"], len(body))
        for bad in ("/a1/x/y.json", "/../../etc/passwd", "/a1", "/a1/line-0/..", "/a1/line-0/.hidden"):
            self.assertEqual(request(urls[0] + "/api/v1/shift-reports" + bad)[0], 404)
        self.assertEqual(request(urls[0] + "/api/v1/shift-reports?limit=x")[0], 400)
        self.assertEqual(request(self.url + "/api/v1/shift-reports")[0], 404, "without a folder")
        wait_for("it is counted", lambda: b'mes_shift_reports_total{result="written"} 1' in request(urls[0] + "/metrics")[1])
        self.assertEqual([f for _, _, files in os.walk(folder) for f in files if not f.endswith(".json")], [])
        # the folder is away: the MES goes on, the report comes later
        os.rename(folder, folder + ".away")
        with open(folder, "w"):
            pass
        rows[0]["seq"] = 2
        self.assertEqual(request(urls[0] + "/api/reports", json.dumps(rows[:1]).encode())[0], 200)
        self.assertEqual(request(urls[0] + "/api/v1/shift-reports")[0], 503)
        time.sleep(1.5)
        os.unlink(folder)
        os.rename(folder + ".away", folder)
        wait_for("the third file", lambda: len(listed(urls[1])) == 3)
        for i in range(2):
            self.kill9(f"shift{i}")
            self.procs.pop(f"shift{i}")

    def test_page_is_served(self):
        status, body = request(f"{self.url}/")
        self.assertEqual(status, 200)
        self.assertIn(b"<title>MES", body)

    def test_killed_servers_and_database_lose_and_double_nothing(self):
        gateways = ",".join(f"http://127.0.0.1:{p}" for p in self.ports)
        self.start("machines", [f"{BIN}/mes-machines", f"--gateways={gateways}", "--count=30", "--prefix=t-", "--site=t", "--interval=200ms",
                                f"--journal={self.dir}/journal", f"--events={self.dir}/machines.jsonl", "--home-retry=1s"])
        self.start("office", [f"{BIN}/mes-orders", f"--gateways={gateways}", "--interval=50ms", "--machine-prefixes=t-", "--machines=30",
                              f"--events={self.dir}/orders.jsonl"])
        for victim in ("mes0", "db", "mes1", "machines"):
            time.sleep(1.5)
            self.kill9(victim)
            time.sleep(0.5)
            if victim == "db":
                self.start_db()
            elif victim == "machines":
                self.start("machines", self.procs["machines"].args)
            else:
                self.start_server(int(victim[3]))
        time.sleep(2)
        wait_for("enough has been done", lambda: sum(e["ev"] == "order" for e in self.events("orders")) > 60)
        for name in ("office", "machines"):
            self.procs[name].terminate()
            self.assertEqual(self.procs[name].wait(timeout=40), 0)
        self.check()

    def events(self, name):
        """A process killed in the middle of a line leaves that line cut; nothing was acknowledged by it."""
        with open(f"{self.dir}/{name}.jsonl") as f:
            return [json.loads(line) for line in f if line.endswith("}\n") and line.startswith("{")]

    def check(self):
        machines, orders = (self.events(name) for name in ("machines", "orders"))
        acked = {e["key"] for e in orders if e["ev"] == "order"}
        self.assertGreater(len(acked), 50)
        stored = self.sql("SELECT idem_key FROM mes.orders").split()
        self.assertEqual(len(stored), len(set(stored)))
        self.assertEqual(acked - set(stored), set(), "acknowledged orders that are not stored")
        received = [(e["m"], e["key"]) for e in machines if e["ev"] == "order"]
        self.assertEqual(len(received), len(set(received)), "a machine took an order twice")
        self.assertEqual(acked - {e["key"] for e in machines if e["ev"].startswith("order")}, set(), "acknowledged orders that no machine received")
        ends = {e["m"]: e for e in machines if e["ev"] == "end"}
        self.assertEqual(len(ends), 30)
        reports = dict(line.split() for line in self.sql("SELECT machine, COUNT(*) FROM mes.reports WHERE machine LIKE 't-%' GROUP BY 1").split("\n"))
        for name, e in ends.items():
            self.assertGreater(e["sent"], 20)
            self.assertEqual((e["pending"], int(reports[name])), (0, e["sent"]), name)


if __name__ == "__main__":
    unittest.main()
