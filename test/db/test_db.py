# SPDX-License-Identifier: Apache-2.0
"""`kuayu db`: three members, no Kubernetes. First start, crash of one, power loss of all three while writing, 1|2 cut, full state
transfer, divergence. Acknowledged rows are looked for in every member after each. Times are printed, never judged."""
import os
import re
import shutil
import signal
import time
import unittest

from test.db.cluster import Cluster, Writer, wait_for


class Members(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.close)
        cls.times = []
        cls.cluster.start()
        cls.note("first start until all three are in step", wait_for("all ready", cls.cluster.all_ready, 90))
        cls.cluster.members[0].sql("CREATE TABLE shop.t (n INT PRIMARY KEY)")

    @classmethod
    def tearDownClass(cls):
        for text, seconds in cls.times:
            print(f"  {seconds:6.1f} s  {text}")

    @classmethod
    def note(cls, text, seconds):
        cls.times.append((text, seconds))

    def setUp(self):
        self.m = self.cluster.members
        wait_for("all ready before the test", self.cluster.all_ready, 90)
        self.table = self.id().rpartition(".")[2]
        self.m[0].sql(f"CREATE TABLE shop.{self.table} (n INT PRIMARY KEY)")

    def writer(self, i):
        w = Writer(self.cluster, self.m[i], self.table)
        self.addCleanup(w.stop)
        wait_for("rows are written", lambda: len(w.acknowledged) > 20, 20)
        return w

    def check_rows(self, *writers):
        """Every acknowledged row is in every member, and all members hold the same."""
        want = {n for w in writers for n in w.acknowledged}
        self.assertGreater(len(want), 20)

        def same():
            """A row whose writer was cut off before its answer may still be committed, between one member's answer and the next one's."""
            sums = set()
            for m in self.m:
                rows = m.sql(f"SET SESSION wsrep_sync_wait=1; SELECT n FROM shop.{self.table}")
                self.assertIsNotNone(rows, m.name)
                have = {int(x) for x in rows.split()}
                self.assertEqual(want - have, set(), f"acknowledged, but not in {m.name}")
                sums.add(frozenset(have))
            return len(sums) == 1
        wait_for("all members hold the same", same, 5)

    def test_1_killed_mariadbd_comes_back(self):
        w = self.writer(0)
        start = time.monotonic()
        os.kill(self.m[2].pids()[1], signal.SIGKILL)
        wait_for("it is missed", lambda: not self.m[2].ready(), 10)
        wait_for("back in step", self.cluster.all_ready, 90)
        self.note("mariadbd of one member killed, until all are in step", time.monotonic() - start)
        w.stop()
        self.note("  longest gap between two commits at another member", w.longest_gap(start))
        self.check_rows(w)

    def test_2_power_cut_of_one(self):
        w = self.writer(0)
        start = time.monotonic()
        self.m[1].power_off()
        wait_for("two go on", lambda: w.times and w.times[-1] > start + 0.5, 20)
        wait_for("view of two", lambda: self.m[0].state().get("clusterSize") == 2, 20)
        time.sleep(1)
        gap = w.longest_gap(start)
        self.note("power cut of one: longest gap between two commits", gap)
        back = time.monotonic()
        self.m[1].power_on()
        wait_for("back in step", self.cluster.all_ready, 90)
        self.note("power on again, until all are in step (incremental)", time.monotonic() - back)
        w.stop()
        self.check_rows(w)
        self.assertTrue(self.m[1].log_has("from position"), "it did not try the incremental transfer")

    def test_3_power_cut_of_all(self):
        writers = [self.writer(0)]
        for m in self.m:
            m.link("down")
        for m in self.m:
            m.power_off()
        for w in writers:
            w.stop()
        start = time.monotonic()
        for m in self.m:
            m.power_on()
        wait_for("one takes writes", lambda: any(m.sql(f"REPLACE INTO shop.{self.table} VALUES (-1)") is not None for m in self.m), 60)
        self.note("all three power cut and on again, until the first commit", time.monotonic() - start)
        wait_for("back in step", self.cluster.all_ready, 90)
        self.note("  until all are in step", time.monotonic() - start)
        self.check_rows(*writers)

    def test_4_one_of_three_stays_off(self):
        """Two that are back wait for the third, whose data may reach further, until the operator says go on."""
        for m in self.m:
            m.power_off()
        self.m[0].power_on()
        self.m[1].power_on()
        wait_for("they wait and say so", lambda: "waiting for db-2" in self.m[0].get("/readyz")[1], 20)
        time.sleep(4)
        self.assertFalse(self.m[0].ready() or self.m[1].ready())
        self.assertEqual(self.m[0].get("/override")[0], 404)
        self.m[2].power_on()
        wait_for("the third makes it whole", self.cluster.all_ready, 90)

    def test_5_cut_1_2(self):
        w = self.writer(1)
        start = time.monotonic()
        self.m[0].link("down")
        wait_for("minority is not ready", lambda: not self.m[0].ready(), 20)
        self.note("1|2 cut, until the minority is not ready", time.monotonic() - start)
        refused = self.m[0].sql(f"INSERT INTO shop.{self.table} VALUES (-5)") is None
        self.assertTrue(refused, "the minority took a write")
        wait_for("majority goes on", lambda: w.times[-1] > start + 3, 30)
        self.note("  longest gap between two commits at the majority", w.longest_gap(start))
        time.sleep(2)
        self.assertFalse(self.m[0].ready())
        before = self.m[0].pids()[1]
        start = time.monotonic()
        self.m[0].link("up")
        wait_for("merged", self.cluster.all_ready, 90)
        self.note("  healed, until all are in step", time.monotonic() - start)
        self.assertEqual(self.m[0].pids()[1], before, "mariadbd was restarted although Galera merges by itself")
        w.stop()
        self.check_rows(w)

    def test_6_full_state_transfer(self):
        w = self.writer(0)
        self.m[2].power_off()
        shutil.rmtree(f"{self.m[2].dir}/data/data")
        start = time.monotonic()
        self.m[2].power_on()
        wait_for("back in step", self.cluster.all_ready, 90)
        self.note("disk lost: full state transfer, until all are in step", time.monotonic() - start)
        w.stop()
        self.note("  longest gap between two commits meanwhile", w.longest_gap(start))
        self.check_rows(w)

    def test_7_two_lost_then_back(self):
        """The one that runs on alone takes no writes; with the others back it goes on without a new start."""
        w = self.writer(0)
        self.m[1].power_off()
        self.m[2].power_off()
        wait_for("no quorum", lambda: self.m[0].state().get("phase") == "non-primary", 20)
        self.assertIsNone(self.m[0].sql(f"INSERT INTO shop.{self.table} VALUES (-7)"))
        before = self.m[0].pids()[1]
        start = time.monotonic()
        self.m[1].power_on()
        self.m[2].power_on()
        wait_for("all in step", self.cluster.all_ready, 90)
        self.note("two of three power cut and on again, until all are in step", time.monotonic() - start)
        self.assertEqual(self.m[0].pids()[1], before)
        w.stop()
        self.check_rows(w)

    def test_8_orderly_stop_of_all(self):
        w = self.writer(0)
        w.stop()
        for m in self.m:
            m.stop()
        start = time.monotonic()
        self.cluster.start()
        wait_for("all in step", self.cluster.all_ready, 90)
        self.note("all three stopped in order and started, until all are in step", time.monotonic() - start)
        self.check_rows(w)

    def test_9_override_then_the_missing_one_knows_more(self):
        """The operator lets two go on without the third; when that returns with more data, it is kept aside and replaced."""
        uuid = self.m[0].state()["uuid"]
        for m in self.m:
            m.stop()
        path = f"{self.m[2].dir}/data/data/grastate.dat"
        with open(path, encoding="ascii") as f:
            text = f.read()
        self.assertIn(uuid, text)
        with open(path, "w", encoding="ascii") as f:
            f.write(re.sub(r"seqno: .*", "seqno: 1000000", text))
        self.m[0].start()
        self.m[1].start()
        wait_for("they wait and say so", lambda: "waiting for db-2" in self.m[0].get("/readyz")[1], 20)
        self.assertEqual(self.m[0].post("/override", token="wrong"), 401)
        self.assertEqual(self.m[0].post("/override"), 200)
        self.assertEqual(self.m[1].post("/override"), 200)
        wait_for("two go on", lambda: self.m[0].ready() and self.m[1].ready(), 40)
        w = self.writer(1)
        start = time.monotonic()
        self.m[2].start()
        wait_for("all in step", self.cluster.all_ready, 90)
        self.note("one with data nobody else has: set aside, full state transfer", time.monotonic() - start)
        self.assertEqual(len([x for x in os.listdir(f"{self.m[2].dir}/data") if x.startswith("aside-")]), 1)
        w.stop()
        self.check_rows(w)

    def test_a_failed_applier(self):
        """Galera has lost a writeset on its way (seen when two members join at once): the applier ends, its member is not in step for ever and, by flow control, no
        other member commits any more. What mariadbd says then is put into its mouth here."""
        w = self.writer(0)
        server = self.m[2].pids()[1]
        start = time.monotonic()
        with open(f"/proc/{server}/fd/2", "w", encoding="ascii") as f:
            f.write("2026-11-24  3:32:45 2 [Note] WSREP: Applier thread exiting ret: 6 thd: 2\n")
        wait_for("it is started again", lambda: self.m[2].pids()[1] not in (0, server), 20)
        wait_for("back in step", self.cluster.all_ready, 90)
        self.note("an applier failed: restarted, until all are in step", time.monotonic() - start)
        w.stop()
        self.check_rows(w)

    def test_b_data_that_differs(self):
        """A member that cannot apply what the others have committed is found inconsistent by their vote; its data is replaced by theirs."""
        w = self.writer(0)
        start = time.monotonic()
        lost = w.acknowledged[5]
        wait_for("it has the row", lambda: self.m[2].sql(f"SELECT n FROM shop.{self.table} WHERE n = {lost}") == str(lost), 10)
        self.m[2].sql(f"SET SESSION wsrep_on=OFF; DELETE FROM shop.{self.table} WHERE n = {lost}")
        server = self.m[2].pids()[1]
        self.m[1].sql(f"UPDATE shop.{self.table} SET n = -n WHERE n = {lost}")
        self.m[1].sql(f"UPDATE shop.{self.table} SET n = -n WHERE n = -{lost}")
        wait_for("it is started again", lambda: self.m[2].pids()[1] not in (0, server), 60)
        wait_for("back in step", self.cluster.all_ready, 90)
        self.note("a member's data differs: until all are in step, with equal data", time.monotonic() - start)
        w.stop()
        self.check_rows(w)


if __name__ == "__main__":
    unittest.main()
