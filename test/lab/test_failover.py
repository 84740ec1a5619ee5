# SPDX-License-Identifier: Apache-2.0
"""The whole platform in the lab: each role killed once, each link cut once, domains lost and back. After each: everything acknowledged
is there, everything is well again without a person, and no singleton ever ran twice."""
import http.client
import json
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from lab import Lab, leftovers, product
from lab.util import run
from test.lab.ledger import Ledger, Witness, build_shell_image

lab = ledger = witness = None
HEALTH_S = 120  # a bound, not a promise


def setUpModule():
    global lab, ledger, witness
    lab = Lab(say=lambda text: print(text, flush=True))
    unittest.addModuleCleanup(lambda: lab.close())
    images = product.start_images(lab)
    build_shell_image(lab)
    lab.up()
    product.deploy(lab, lab.say, images)
    witness, ledger = Witness(lab), Ledger(lab)
    witness.start()
    product.wait_all_ready(lab, 60)
    ledger.start()
    ledger.grows()
    witness.beats()


def leader_of(name):
    """Domain whose role holds a leader Lease."""
    for lease in lab.cluster.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases")["items"]:
        holder = lease["spec"].get("holderIdentity", "")
        if name in lease["metadata"]["name"] and holder[:1] in lab.domains:
            return holder[0]
    return "a"


class Failover(unittest.TestCase):
    def tearDown(self):
        """Whatever a test did, the next one starts with all links and domains."""
        if not lab.opened:
            return
        lab.heal_all()
        for name in lab.domains:
            if not lab.machine(name).on:
                lab.power_on(name)

    def healthy(self):
        """Back to full health without a person; nothing acknowledged is missing; never two singletons."""
        begin = time.monotonic()
        lab.cluster.wait_ready(HEALTH_S)
        product.wait_all_ready(lab, HEALTH_S)
        product.wait_gateways(lab, HEALTH_S)
        lab.wait("three database members are ready", lambda: len(product.members(lab)) == 3, HEALTH_S, *product.node_logs(lab))
        ledger.grows()
        witness.beats()
        print(f"  {self._testMethodName}: well again after {time.monotonic() - begin:.1f} s; "
              f"{len(ledger.objects)} objects, {len(ledger.orders)} orders acknowledged", flush=True)
        # Asked again only when there is no answer, never when something is missing.
        self.assertEqual(lab.wait("servers and database members say what they have", lambda: [ledger.missing()], 30)[0], [])
        self.assertEqual(witness.twice(), [])

    def kill_role(self, domain, role):
        machine = lab.machine(domain)
        before = machine.status()[role]["starts"]
        lab.kill(domain, role)
        lab.wait(f"{role} of {domain} is started again", lambda: machine.status()[role]["starts"] > before, 10, machine.log(role))
        self.healthy()

    def test_01_api(self):
        self.kill_role("a", "api")

    def test_02_controller_that_leads(self):
        self.kill_role(leader_of("controller"), "controller")

    def test_03_scheduler_that_leads(self):
        self.kill_role(leader_of("scheduler"), "scheduler")

    def test_04_node_agent_leaves_its_pods_alone(self):
        def containers():
            return {p["metadata"]["name"]: [c.get("containerID") for c in p["status"].get("containerStatuses", [])]
                    for p in product.pods(lab, "") if p["spec"].get("nodeName") == "b1"}

        before = containers()
        self.assertTrue(before)
        self.kill_role("b", "node")
        self.assertEqual(containers(), before)

    def test_05_gateway(self):
        self.kill_role("c", "gateway")

    def test_06_etcd_leader(self):
        self.kill_role(lab.wait("an etcd leader", lab.cluster.etcd_leader, 20), "etcd")

    def test_07_database_member(self):
        before = lab.exec("b", "pidof", "mariadbd").stdout
        lab.exec("b", "kill", "-9", before.strip())
        lab.wait("the member is started again", lambda: lab.exec("b", "pidof", "mariadbd").stdout != before, 30, lab.machine("b").log("node"))
        time.sleep(3)
        self.healthy()

    def test_08_domain_without_power(self):
        lab.power_off("b")
        ledger.grows(60)
        time.sleep(5)
        lab.power_on("b")
        self.healthy()

    def test_09_domain_of_the_singleton_without_power(self):
        domain = (witness.node() or "a1")[0]
        lab.power_off(domain)
        witness.beats(60)
        ledger.grows(60)
        lab.power_on(domain)
        self.healthy()

    def test_10_each_link_cut_once(self):
        for x, y in (("a", "b"), ("a", "c"), ("b", "c")):
            with self.subTest(link=f"{x}-{y}"):
                lab.cut(x, y)
                time.sleep(8)
                lab.heal(x, y)
                self.healthy()

    def test_11_domain_of_the_singleton_cut_off(self):
        domain = (witness.node() or "a1")[0]
        count = len(witness.lives())
        lab.isolate(domain)
        lab.wait("the singleton runs elsewhere", lambda: len(witness.lives()) > count, 60, *product.node_logs(lab))
        time.sleep(3)
        self.assertEqual(witness.twice(), [])
        lab.heal_all()
        self.healthy()

    def test_12_two_domains_lost_and_back(self):
        lab.power_off("a")
        lab.power_off("c")
        time.sleep(8)
        lab.power_on("a")
        time.sleep(1)
        lab.power_on("c")
        self.healthy()

    # ---- the volume: the MES servers' shift reports ----
    def report(self, domain):
        """One state report at a domain's gateway: its server's next shift report has it."""
        body = json.dumps([{"machine": "t-1", "site": "t", "seq": time.time_ns() // 1000000, "state": "sewing", "produced": 1,
                            "at_ms": time.time_ns() // 1000000}])
        run("curl", "-sf", "-m", "10", "--retry", "5", "--retry-all-errors", "-d", body,
            f"http://{lab.machine(domain).address}:{product.PORT}/api/reports")

    def new_shift_report(self, domain, seen):
        """What is reported in one domain is in a file that all others read."""
        self.report(domain)
        on = [d for d in lab.domains if lab.machine(d).on]
        found = lab.wait(f"a shift report of domain {domain}", lambda: {
            f: c for f, c in product.shift_reports(lab, domain).items() if f[1] == "t" and f not in seen}, 60, *product.node_logs(lab))
        for d in on:
            lab.wait(f"it is read in domain {d}", lambda d=d: found.items() <= product.shift_reports(lab, d).items(), 30)
        seen.update(found)

    def all_there(self, seen):
        for d in (d for d in lab.domains if lab.machine(d).on):
            lab.wait(f"all shift reports are read in domain {d}", lambda d=d: seen.items() <= product.shift_reports(lab, d).items(), 60,
                     lab.machine(d).log("csi"), lab.machine(d).log("brick"))

    def test_13_volume(self):
        seen = {}
        for d in lab.domains:
            self.new_shift_report(d, seen)
        self.kill_role("b", "brick")
        self.all_there(seen)
        self.kill_role("b", "csi")
        self.new_shift_report("b", seen)
        mount = lab.exec("b", "pgrep", "-f", "mount factory").stdout.split()
        self.assertEqual(len(mount), 1)
        lab.exec("b", "kill", "-9", *mount)
        self.all_there(seen)
        self.new_shift_report("b", seen)  # by the server that was there before
        lab.power_off("c")
        self.all_there(seen)
        self.new_shift_report("a", seen)
        lab.power_on("c")
        self.healthy()
        self.all_there(seen)

    def test_14_all_off_and_on(self):
        seen = product.shift_reports(lab, "a")

        for name in lab.domains:
            lab.power_off(name)
        time.sleep(2)
        for name in lab.domains:
            lab.power_on(name)
        self.healthy()
        self.all_there(seen)

    def order(self, domain, key):
        c = http.client.HTTPConnection(lab.machine(domain).address, product.PORT, timeout=10)
        try:
            c.request("POST", "/api/orders", json.dumps({"product": "shirt", "quantity": 1, "source": "pairs", "machines": ["pairs-1"]}),
                      {"Content-Type": "application/json", "Idempotency-Key": key})
            return c.getresponse().status
        finally:
            c.close()

    def test_15_the_same_order_in_every_domain_at_once(self):
        """Each transaction is in conflict with two others, so that Galera aborts two of three at any point of them."""
        keys = [f"pairs-{n}" for n in range(300)]
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda pair: self.order(*pair), [(d, k) for k in keys for d in lab.domains]))
        for i, key in enumerate(keys):
            self.assertEqual(sorted(answers[3 * i:3 * i + 3]), [200, 200, 201], key)
        for member in product.members(lab):
            rows = product.sql(lab, member, "SELECT o.idem_key, COUNT(w.id) FROM orders o LEFT JOIN work_orders w ON o.id = w.order_id "
                                            "WHERE o.source = 'pairs' GROUP BY o.id")
            self.assertEqual(sorted(rows), sorted([k, "1"] for k in keys), member)
            alone = product.sql(lab, member, "SELECT w.id FROM work_orders w LEFT JOIN orders o ON o.id = w.order_id WHERE o.id IS NULL")
            self.assertEqual(alone, [], member)

    def test_99_nothing_left(self):
        ledger.stop()
        lab.close()
        self.assertEqual(leftovers.remains(lab.dir), [])


if __name__ == "__main__":
    unittest.main()
