# SPDX-License-Identifier: Apache-2.0
"""Where a test cluster's processes talk to each other: loopback addresses of its own, or one network namespace a node.

Loopback (class Loopback) is quick and needs no interface: node N of domain D is 127.X.D.N, X is free on this machine at the
time. Links cannot be cut there. Namespaces (class Namespaces): one bridge in a namespace of its own, one veth a node; a cut
takes the node's port off the bridge, so packets vanish and nobody is told, as with a broken cable in the middle. With a wire
(class WireNamespaces) the nodes hang on lab-wire, which delays, and cuts between domains.

All three have the same methods. close() leaves nothing; names carry the process id, so several clusters live side by side."""
import fcntl
import itertools
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from lab.util import LabError, run
from lab.wire import Wire

LOCKS = Path("/run/lock")
_counter = itertools.count()


class Loopback:
    can_cut = False

    def __init__(self):
        self._lock, self.octet = None, 0
        for x in range(64, 224):  # bound: as many clusters as one machine can hold, and many more
            lock = open(LOCKS / f"kuayu-volume-{x}.lock", "a")  # kept open: the lock is the reservation
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            self._lock, self.octet = lock, x
            return
        raise LabError("no free loopback range 127.64-223.0.0/16: too many test clusters at once")

    def add(self, name, domain, index):
        """A node: index counts from 1 within its domain (domain counts from 1; 0 is for what belongs to none)."""
        return f"127.{self.octet}.{domain}.{index}"

    def prefix(self, name):
        return []

    def inodes(self):
        return set()

    def delay(self, ms):
        raise LabError("loopback has no delay: use network='wire'")

    def cut(self, name):
        raise LabError("loopback links cannot be cut: use network='netns' or 'wire'")

    heal = cut

    def close(self):
        if self._lock:
            os.unlink(self._lock.name)
            self._lock.close()
            self._lock = None


class Namespaces:
    """Full-speed veth links, no delay."""
    can_cut = True

    def __init__(self):
        self.tag = f"kv{os.getpid()}{chr(97 + next(_counter) % 26)}"
        self.names, self.addresses, self.octet = {}, {}, os.getpid() % 200 + 20
        sweep()
        self.hub = f"{self.tag}-hub"
        run("ip", "netns", "add", self.hub)
        try:
            self._hub_up()
        except BaseException:
            self.close()
            raise

    def _hub_up(self):
        self._batch(self.hub, "link set lo up", "link add name hub type bridge forward_delay 0", "link set hub up")

    def _batch(self, netns, *lines):
        run("ip", "-n", netns, "-batch", "-", input="\n".join(lines) + "\n")

    def _netns(self, name):
        netns = f"{self.tag}-{name}"
        run("ip", "netns", "add", netns)
        self.names[name] = netns
        run("nsenter", f"--net=/run/netns/{netns}", "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", check=False)
        return netns

    def add(self, name, domain, index):
        address, port = f"10.{self.octet}.{domain}.{index}", f"p{len(self.names)}"
        netns, self.addresses[name] = self._netns(name), address
        self._batch(self.hub, f"link add name {port} type veth peer name eth0 netns {netns}", f"link set {port} master hub up")
        self._batch(netns, "link set lo up", f"addr add {address}/16 dev eth0", "link set eth0 up")
        self.names[name, "port"] = port
        return address

    def prefix(self, name):
        """What comes before a command so that it runs on this node's network. nsenter keeps the mounts: FUSE mounts are seen by all."""
        return ["nsenter", f"--net=/run/netns/{self.names[name]}"]

    def inodes(self):
        """Identities of the namespaces, as os.readlink(/proc/PID/ns/net) tells them of a process."""
        return {f"net:[{os.stat(f'/run/netns/{n}').st_ino}]" for k, n in self.names.items() if isinstance(k, str)}

    def delay(self, ms):
        raise LabError("veth has no delay: use network='wire'")

    def cut(self, name):
        run("ip", "-n", self.hub, "link", "set", self.names[name, "port"], "nomaster")

    def heal(self, name):
        run("ip", "-n", self.hub, "link", "set", self.names[name, "port"], "master", "hub")

    def deafen(self, name, *others):
        """Packets from the other nodes vanish on their way to this one; the other direction works."""
        rules = "".join(f"add rule ip cut in ip saddr {self.addresses[o]} drop\n" for o in others)
        run(*self.prefix(name), "nft", "-f", "-", input="add table ip cut\nadd chain ip cut in { type filter hook input priority 0; }\n" + rules)

    def undeafen(self, name):
        run(*self.prefix(name), "nft", "-f", "-", input="add table ip cut\ndelete table ip cut\n")

    def close(self):
        kill_in(self.inodes())
        for key, netns in list(self.names.items()):
            if isinstance(key, str):
                subprocess.run(["ip", "netns", "del", netns], capture_output=True)
        self.names.clear()
        if self.hub:
            subprocess.run(["ip", "netns", "del", self.hub], capture_output=True)
            self.hub = None


class WireNamespaces(Namespaces):
    """The same through lab-wire: a delay between domains, slower than veth."""

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / "log").mkdir(parents=True, exist_ok=True)
        super().__init__()
        self.wire = Wire(self.folder)
        self.sites, self._holders = {}, {}
        self.wire.start()

    def _hub_up(self):
        pass

    def add(self, name, domain, index):
        address, netns = f"10.{self.octet}.{domain}.{index}", self._netns(name)
        self.addresses[name] = address
        holder = subprocess.Popen(["nsenter", f"--net=/run/netns/{netns}", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self._holders[name], self.sites[name] = holder, f"d{domain}"
        _wait_in(holder.pid, netns)  # lab-wire finds a namespace by a process in it
        self.wire.command(f"plug {name} d{domain} {holder.pid} eth0 02:6b:76:{domain:02x}:00:{index:02x}")
        self._batch(netns, "link set lo up", f"addr add {address}/16 dev eth0", "link set eth0 up")
        return address

    def delay(self, ms):
        """One way, between every two domains; nodes of no domain (etcd) sit in domain a's site."""
        sites = sorted(set(self.sites.values()))
        for a, b in itertools.permutations(sites, 2):
            self.wire.command(f"delay {a} {b} {ms}ms")

    def cut(self, name):
        self.wire.command(f"isolate {self.sites[name]}")

    def heal(self, name):
        self.wire.command("heal-all")

    def close(self):
        self.wire.stop()
        for p in self._holders.values():
            p.kill()
            p.wait()
        self._holders.clear()
        super().close()


def processes_in(inodes):
    """Ids of the processes whose network namespace is one of these (see Namespaces.inodes)."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/net") in inodes:
                found.append(int(entry))
        except OSError:
            pass  # it has ended
    return found


def kill_in(inodes):
    """Ends every process in these namespaces, daemons that left their parent too."""
    for _ in range(20):  # bound: who forks while being killed is caught in the next turn
        pids = processes_in(inodes)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if not pids:
            return
        time.sleep(0.1)


def sweep():
    """Ends what clusters left whose program was killed: daemons and namespaces."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        found = re.match(r"kv([0-9]+)[a-z]-", name)
        if found and not os.path.exists(f"/proc/{found.group(1)}"):
            kill_in({f"net:[{os.stat(f'/run/netns/{name}').st_ino}]"})
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _wait_in(pid, netns):
    want = f"net:[{os.stat(f'/run/netns/{netns}').st_ino}]"
    for _ in range(500):  # bound: 5 s
        if os.readlink(f"/proc/{pid}/ns/net") == want:
            return
        time.sleep(0.01)
    raise LabError(f"{netns}: the process that holds it did not start")
