# SPDX-License-Identifier: Apache-2.0
"""The lab itself, with etcd alone: delay, cuts, power off and on, a disk that forgets, nothing left behind."""
import os
import re
import subprocess
import time
import unittest

from lab import Lab, LabError, leftovers
from lab.util import run

lab = None


def setUpModule():
    global lab
    lab = Lab(roles=("etcd",), own_cpu=True)
    unittest.addModuleCleanup(lambda: lab.close())
    lab.up(30)


def ping_ms(machine, address, count=10):
    """Round trips; lost packets are missing."""
    p = lab.exec(machine, "ping", "-n", "-c", str(count), "-i", "0.05", "-W", "1", address, check=False)
    return [float(t) for t in re.findall(r"time=([0-9.]+) ms", p.stdout)]


class Wire(unittest.TestCase):
    def tearDown(self):
        lab.heal_all()
        lab._links()

    def test_delay(self):
        between = sorted(ping_ms("a", "10.77.2.1", 21))
        self.assertEqual(len(between), 21)
        self.assertGreater(between[0], 8.0)  # 2 x (5 - 1) ms; how much above 12 it is, is the host's noise
        lab.delay("a", "b", "30ms", "0ms")
        self.assertGreater(min(ping_ms("a", "10.77.2.1", 5)), 60.0)
        self.assertLess(min(ping_ms("a", "10.77.3.1", 5)), 30.0)
        self.assertGreater(min(ping_ms("floor-a", "10.77.1.1", 10)), 0.4)
        self.assertLess(min(ping_ms("floor-a", "10.77.1.1", 10)), 8.0)

    def test_cut_both_ways_and_heal(self):
        for x, y in (("a", "b"), ("a", "c"), ("b", "c")):
            lab.cut(x, y)
            self.assertEqual(ping_ms(x, lab.machine(y).address, 3), [])
            third = ({"a", "b", "c"} - {x, y}).pop()
            self.assertEqual(len(ping_ms(x, lab.machine(third).address, 3)), 3)
            lab.heal(x, y)
            self.assertEqual(len(ping_ms(x, lab.machine(y).address, 3)), 3)

    def test_isolated_domain_keeps_its_floor(self):
        lab.isolate("b")
        self.assertEqual(ping_ms("b", "10.77.1.1", 3), [])
        self.assertEqual(ping_ms("floor-a", "10.77.2.1", 3), [])
        self.assertEqual(len(ping_ms("floor-b", "10.77.2.1", 3)), 3)
        self.assertEqual(len(ping_ms("floor-b", "10.77.1.1", 3)), 3)

    def test_loss(self):
        lab.loss("a", "b", 100)
        self.assertEqual(ping_ms("a", "10.77.2.1", 3), [])
        lab.loss("a", "b", 0)
        links = {(x["from"], x["to"]): x for x in lab.wire.command("stats")["links"]}
        self.assertGreaterEqual(links["a", "b"]["lost"], 3)

    def test_bad_command_is_refused(self):
        with self.assertRaisesRegex(LabError, "unknown command"):
            lab.wire.command("dance")


class Power(unittest.TestCase):
    def test_power_cut_is_silent_and_forgets(self):
        machine = lab.machine("c")
        machine.exec("sh", "-c", "echo kept > /var/lib/kuayu/kept; sync /var/lib/kuayu/kept; sync /var/lib/kuayu;"
                     "echo forgotten > /var/lib/kuayu/forgotten; echo gone > /run/gone")
        server = machine.popen("socat", "TCP-LISTEN:7,reuseaddr", "EXEC:cat", stderr=subprocess.DEVNULL)
        lab.wait("the server listens", lambda: ":7 " in machine.exec("ss", "-Hltn").stdout, 10)
        client = lab.machine("a").popen("sh", "-c", "sleep 30 | socat - TCP:10.77.3.1:7", stdout=subprocess.DEVNULL)
        lab.wait("the client is connected", lambda: ":7 " in machine.exec("ss", "-Htn", "state", "established").stdout, 10)
        boot = machine.exec("cat", "/proc/sys/kernel/random/boot_id").stdout
        lab.power_off("c")
        server.wait(5)
        self.assertFalse(machine.on)
        time.sleep(0.5)
        self.assertIsNone(client.poll(), "the peer of a machine without power must not be told (FIN, RST)")
        self.assertEqual(len(ping_ms("floor-c", "10.77.1.1", 3)), 3, "its factory floor lives on")
        lab.power_on("c")
        self.assertEqual(machine.exec("cat", "/var/lib/kuayu/kept").stdout, "kept\n")
        self.assertNotEqual(machine.exec("cat", "/var/lib/kuayu/forgotten", check=False).stdout, "forgotten\n")
        self.assertFalse(machine.exec("cat", "/run/gone", check=False).stdout)
        self.assertNotEqual(machine.exec("cat", "/proc/sys/kernel/random/boot_id").stdout, boot)
        client.kill()
        client.wait()
        lab.cluster.wait_ready(20)

    def test_crashed_unit_is_restarted(self):
        machine = lab.machine("a")
        before = machine.status()["etcd"]
        machine.kill("etcd")
        after = lab.wait("etcd is started again", lambda: [s for s in [machine.status()["etcd"]] if s["starts"] > before["starts"] and s["running"]], 5)[0]
        self.assertNotEqual(after["pid"], before["pid"])
        self.assertEqual(after["status"], 128 + 9)
        lab.cluster.wait_ready(20)

    def test_stopped_unit_stays_stopped(self):
        machine = lab.machine("a")
        machine.add_unit("nap", ["sleep", "100"])
        lab.wait("nap runs", lambda: machine.status()["nap"]["running"], 5)
        machine.stop("nap")
        lab.wait("nap is stopped", lambda: not machine.status()["nap"]["running"], 8)
        time.sleep(0.5)
        self.assertFalse(machine.status()["nap"]["running"])
        machine.remove_unit("nap")

    def test_machine_has_its_share_of_the_processors(self):
        files = lab.exec("b", "sh", "-c", "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu.max 2>/dev/null", check=False).stdout
        quota, period = (int(n) for n in files.split())
        self.assertAlmostEqual(quota / period, os.cpu_count() / 3, places=2)

    def test_machine_is_its_own(self):
        seen = lab.exec("b", "sh", "-c", "hostname; cat /proc/1/comm; ls /sys/class/net; test -e /sys/fs/cgroup/unified || echo plain").stdout
        self.assertEqual(seen.split(), ["b1", "lab-domain", "eth0", "lo", "plain"])
        self.assertEqual(lab.exec("b", "sh", "-c", "grep -c -v ':/$' /proc/self/cgroup", check=False).stdout.strip(), "0",
                         "every tree starts at the machine's own group")


class Etcd(unittest.TestCase):
    def test_acknowledged_survives_all_off_and_on(self):
        for i in range(20):
            lab.cluster.etcdctl("put", f"/lab/{i}", str(i))
        for name in lab.domains:
            lab.power_off(name)
        for name in lab.domains:
            lab.power_on(name)
        lab.cluster.wait_ready(30)
        for i in range(20):
            self.assertEqual(lab.cluster.etcdctl("get", f"/lab/{i}", "--print-value-only").stdout.strip(), str(i))

    def test_leader_lost(self):
        leader = lab.wait("a leader", lab.cluster.etcd_leader, 10)
        lab.power_off(leader)
        others = [d for d in lab.domains if d != leader]
        lab.wait("etcd accepts writes", lambda: lab.cluster.etcdctl("put", "/lab/leader", leader, endpoints=others, timeout=1).returncode == 0, 10)
        lab.power_on(leader)
        lab.cluster.wait_ready(30)
        self.assertEqual(lab.cluster.etcdctl("get", "/lab/leader", "--print-value-only", endpoints=[leader]).stdout.strip(), leader)


class Zleftovers(unittest.TestCase):
    """Last by name: ends the shared lab."""

    def test_nothing_left(self):
        self.assertTrue(any("process" in x for x in leftovers.remains(lab.dir)))
        lab.close()
        self.assertEqual(leftovers.remains(lab.dir), [])
        self.assertNotIn("10.77.", run("ip", "route").stdout)


if __name__ == "__main__":
    unittest.main()
