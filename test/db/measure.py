# SPDX-License-Identifier: Apache-2.0
"""Measures three members over links with delay, jitter, loss and interruptions (lab-wire): how long commits stall, and whether
a member leaves the component. Prints a table; `python3 -m test.db.measure [kuayu db option ...]`. No test: nothing is judged."""
import os
import signal
import statistics
import subprocess
import sys
import time

from test.db import cluster
from test.db.cluster import HUB, Cluster, Writer, run, wait_for

SITES = "abc"


class WireCluster(Cluster):
    """The bridge is replaced by lab-wire, 5 ms one way between the members, 0.1 ms to the client."""

    def make_network(self):
        self.remove_network()
        self.socket, self.holders = f"{self.dir}/wire", []
        self.wire_process = subprocess.Popen([os.path.join(cluster.SOURCE, "build/lab/lab-wire"), self.socket])
        wait_for("the wire", lambda: os.path.exists(self.socket), 5)
        for i, (netns, ip) in enumerate([(m.netns, m.ip) for m in self.members] + [(HUB, "10.99.7.254")]):
            run("ip", "netns", "add", netns)
            holder = subprocess.Popen(["nsenter", f"--net=/run/netns/{netns}", "sleep", "1000"])
            self.holders.append(holder)
            time.sleep(0.1)
            site = (SITES + "x")[i]
            self.wire(f"plug {netns} {site} {holder.pid} eth0 02:00:00:00:07:{i + 1:02x}")
            run("ip", "-n", netns, "addr", "add", f"{ip}/24", "dev", "eth0")
            run("ip", "-n", netns, "link", "set", "eth0", "up")
            run("ip", "-n", netns, "link", "set", "lo", "up")
        self.links()

    def wire(self, text):
        import socket
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.socket)
            s.sendall(text.encode() + b"\n")
            answer = s.recv(65536).decode()
        if not answer.startswith("ok"):
            raise AssertionError(f"{text}: {answer}")

    def links(self, delay="5ms", jitter="1ms", loss="0%"):
        for a, b in ("ab", "ac", "bc"):
            self.wire(f"delay {a} {b} {delay} {jitter}")
            self.wire(f"loss {a} {b} {loss}")
        for a in SITES:
            self.wire(f"delay {a} x 0.1ms")

    def isolate(self, i):
        self.wire(f"isolate {SITES[i]} except x")

    def heal(self):
        self.wire("heal-all")

    def close(self):
        for m in self.members:
            m.link = lambda state: None
        super().close()
        for h in getattr(self, "holders", []):
            h.kill()
            h.wait()
        self.wire_process.terminate()
        self.wire_process.wait()


def views(c):
    return sum(open(m.log, encoding="utf-8", errors="replace").read().count("WSREP: New COMPONENT: ") for m in c.members)


def case(c, text, seconds, before=lambda: None, after=lambda: None, settle=8):
    if os.environ.get("KDB_CASES", "") not in text:
        return
    wait_for("all ready", c.all_ready, 90)
    table = f"m{int(time.monotonic() * 1000)}"
    c.members[0].sql(f"CREATE TABLE shop.{table} (n INT PRIMARY KEY)")
    w = Writer(c, c.members[0], table)
    wait_for("rows", lambda: len(w.acknowledged) > 50, 30)
    v, start, rows = views(c), time.monotonic(), len(w.times)
    before()
    time.sleep(seconds)
    after()
    time.sleep(settle)
    try:
        back = wait_for("all ready", c.all_ready, 60)
    except AssertionError:
        back = float("inf")
    w.stop()
    times = [t for t in w.times if t >= start]
    steps = sorted(b - a for a, b in zip(times, times[1:])) or [float("inf")]
    print(f"{text:44s} {len(w.times) - rows:6d} {statistics.median(steps) * 1000:8.1f} {steps[int(len(steps) * 0.99)] * 1000:8.0f} "
          f"{w.longest_gap(start):8.2f} {(views(c) - v):6d} {settle + back if back > 0.5 else 0:8.1f}", flush=True)


def power_cut(c, i):
    c.isolate(i)
    m = c.members[i]
    os.kill(m.pids()[0], signal.SIGKILL)
    m.process.wait()


def main():
    c = WireCluster()
    try:
        for m in c.members:
            m.start(*sys.argv[1:])
        wait_for("all ready", c.all_ready, 90)
        print(f"{'case':44s} {'rows':>6s} {'p50 ms':>8s} {'p99 ms':>8s} {'stall s':>8s} {'views':>6s} {'back s':>8s}", flush=True)
        case(c, "5 ms +- 1 ms", 5, settle=0)
        for jitter in ("100ms", "200ms", "500ms", "1000ms"):
            case(c, f"jitter {jitter} on every link, 15 s", 15, lambda j=jitter: c.links(jitter=j), c.links)
        for loss in ("1%", "5%"):
            case(c, f"loss {loss} on every link, 10 s", 10, lambda x=loss: c.links(loss=x), c.links)
        for cut in (0.5, 1.0, 1.4, 2.0, 4.0):
            case(c, f"line of one member out for {cut} s", cut, lambda: c.isolate(2), c.heal)
        case(c, "power cut of one", 6, lambda: power_cut(c, 2), lambda: (c.heal(), c.members[2].start(*sys.argv[1:])))
    finally:
        c.close()


if __name__ == "__main__":
    main()
