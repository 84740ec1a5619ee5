# SPDX-License-Identifier: Apache-2.0
"""The lab: three domains a, b, c (one machine each) and three factory floors on one wire, 5 ms apart.

Addresses: domain D = 1..3 is 10.77.D.1, its floor 10.77.D.100, the host 10.77.0.1 (interface kuayu-lab), all in 10.77.0.0/16.
Everything a lab makes is in its folder (out/lab) or has its name; close() removes it and says what it could not."""
import atexit
import fcntl
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

from lab import leftovers, units
from lab.cluster import Cluster
from lab.machine import Machine
from lab.pki import Pki
from lab.util import SOURCE, LabError, run, wait_for
from lab.wire import Wire

DOMAINS = ("a", "b", "c")
DELAY, JITTER, FACTORY_DELAY = "5ms", "1ms", "200us"  # one way
HOST_ADDRESS, NETWORK = "10.77.0.1", "10.77.0.0/16"
TOKEN_ADMIN = "lab-admin-token"
MEMORY_NEEDED = 10 << 30  # bytes available; a demo writes about 3 GB


def disk_folder(folder):
    """Where the machines' disk images are: in memory where there is plenty, so that three domains do not wait for one disk that
    they do not share in life; $KUAYU_LAB_DISKS says otherwise."""
    if "KUAYU_LAB_DISKS" in os.environ:
        return Path(os.environ["KUAYU_LAB_DISKS"]).resolve()
    memory = os.statvfs(leftovers.MEMORY_DISKS.parent) if leftovers.MEMORY_DISKS.parent.is_dir() else None
    available = int(re.search(r"MemAvailable: *([0-9]+) kB", Path("/proc/meminfo").read_text()).group(1)) << 10
    if memory and memory.f_bavail * memory.f_frsize > MEMORY_NEEDED // 2 and available > MEMORY_NEEDED:
        return leftovers.MEMORY_DISKS
    return folder / "disk"


class Domain:
    def __init__(self, lab, index, name):
        self.name, self.index = name, index
        self.machine = Machine(lab, f"{name}1", name, f"10.77.{index}.1", f"02:6b:79:{index:02x}:00:01")


class Lab:
    """Use as a context manager; the main thread only switches machines. roles: which of units.ROLES run in each domain. own_cpu: each
    domain's machine has its third of the host's processors and no more, so that what one of them does takes nothing from the
    others, as in life. (Where the host has control groups of version 1, containers cannot have a higher CPU limit than their machine.)"""

    def __init__(self, folder=None, roles=units.ROLES, images=None, say=None, own_cpu=False):
        self.cpu_millis = os.cpu_count() * 1000 // len(DOMAINS) if own_cpu else 0
        self.dir = (folder or SOURCE / "out/lab").resolve()
        self.roles, self.say = tuple(roles), say or (lambda text: None)
        self.images = (images or SOURCE / "out/images").resolve()
        self.disks = disk_folder(self.dir)
        self.wire = Wire(self.dir)
        self.pki = Pki(self.dir / "pki")
        self.domains, self.floors = {}, {}
        self.cluster = Cluster(self)
        self.lock, self.opened = None, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- life ----
    def up(self, timeout=60):
        """All on, and waits until every role is ready."""
        self.open()
        for name in DOMAINS:
            self.power_on(name)
        self.cluster.wait_ready(timeout)

    def open(self):
        """Everything but power: lock, folders, certificates, wire, floors. The domains are off."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root: it makes namespaces and interfaces")
        self._take_lock()
        leftovers.sweep_locked(self.dir)
        shutil.rmtree(self.disks, ignore_errors=True)
        self.disks.mkdir(parents=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        (self.dir / "log").mkdir(parents=True)
        self.images.mkdir(parents=True, exist_ok=True)
        self._check_network_free()
        self.opened = True
        atexit.register(self.close)
        for s in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, self._on_signal)
        leftovers.make_system_folders(self.dir)
        self.wire.start()
        for index, name in enumerate(DOMAINS, 1):
            self.domains[name] = Domain(self, index, name)
            self.floors[name] = Machine(self, f"floor-{name}", f"floor-{name}", f"10.77.{index}.100",
                                        f"02:6b:79:{index:02x}:00:64", disk=False)
        self._links()
        self._plug_host()
        self._certificates()
        for d in self.domains.values():
            d.machine.make_disk()
            self._domain_units(d)
        for floor in self.floors.values():
            floor.power_on()

    def close(self):
        """Removes everything; LabError with what is left. May be called again."""
        if not self.opened:
            return
        self.opened = False
        atexit.unregister(self.close)
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # cleaning up is short; a second Ctrl-C must not break it
        try:
            for machine in self.machines():
                try:
                    machine.power_off()
                except LabError as e:
                    self.say(str(e))
            self.wire.stop()
            shutil.rmtree(self.disks, ignore_errors=True)
            left = self._wait_nothing_left()
            leftovers.remove_system_folders(self.dir)
            if left:
                leftovers.sweep_locked(self.dir)
                raise LabError("the lab left behind: " + "; ".join(left))
        finally:
            signal.signal(signal.SIGINT, previous)
            self._drop_lock()

    def _wait_nothing_left(self):
        end = time.monotonic() + 10
        while True:
            leftovers.remove_groups()
            left = leftovers.remains(self.dir)
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.05)

    @staticmethod
    def _on_signal(*_):
        raise SystemExit(143)  # runs the context managers' ends

    def _take_lock(self):
        leftovers.LOCK.parent.mkdir(parents=True, exist_ok=True)
        self.lock = open(leftovers.LOCK, "a+")
        said = False
        end = time.monotonic() + float(os.environ.get("KUAYU_LAB_WAIT", "900"))
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                self.lock.seek(0)
                holder = self.lock.read().strip()
                if time.monotonic() > end:
                    raise LabError(f"another lab is running ({holder}); ./dev lab down ends it") from None
                if not said:
                    print(f"lab: waiting for another lab to end ({holder})", flush=True)
                    said = True
                time.sleep(1)
        self.lock.truncate(0)
        self.lock.write(f"process {os.getpid()}, {self.dir}")
        self.lock.flush()

    def _drop_lock(self):
        if self.lock:
            self.lock.truncate(0)
            self.lock.close()
            self.lock = None

    def _check_network_free(self):
        for line in run("ip", "-4", "route", "show", "table", "all").stdout.splitlines():
            if "10.77." in line:
                raise LabError(f"this host already routes the lab's network {NETWORK}: {line.strip()}")

    # ---- network ----
    def _links(self):
        names = list(DOMAINS)
        for i, x in enumerate(names):
            for y in names[i + 1:]:
                for left, right in ((x, y), (x, f"floor-{y}"), (f"floor-{x}", y), (f"floor-{x}", f"floor-{y}")):
                    self.wire.command(f"delay {left} {right} {DELAY} {JITTER}")
            self.wire.command(f"delay {x} floor-{x} {FACTORY_DELAY}")

    def _plug_host(self):
        self.wire.command(f"plug host host 0 {leftovers.INTERFACE} 02:6b:79:00:00:01")
        run("ip", "-batch", "-", input=f"link set {leftovers.INTERFACE} up\n"
            f"addr add {HOST_ADDRESS}/16 dev {leftovers.INTERFACE}\n")

    def delay(self, a, b, delay=DELAY, jitter=JITTER):
        """One way and the other between two sites: a, b, c, floor-a, ..., host."""
        self.wire.command(f"delay {a} {b} {delay} {jitter}")

    def loss(self, a, b, percent):
        self.wire.command(f"loss {a} {b} {percent}%")

    def cut(self, a, b):
        """Nothing passes between the domains a and b (nor with each other's floors)."""
        self._each_link(a, b, "cut")

    def heal(self, a, b):
        self._each_link(a, b, "heal")

    def _each_link(self, a, b, verb):
        pairs = [(a, b)]
        if a in DOMAINS and b in DOMAINS:
            pairs += [(a, f"floor-{b}"), (f"floor-{a}", b), (f"floor-{a}", f"floor-{b}")]
        for x, y in pairs:
            self.wire.command(f"{verb} {x} {y}")

    def isolate(self, a):
        """The domain's line to the other domains and floors is out; its own floor and the host still reach it."""
        self.wire.command(f"isolate {a} except floor-{a},host")

    def heal_all(self):
        self.wire.command("heal-all")

    # ---- machines ----
    def machines(self):
        return [d.machine for d in self.domains.values()] + list(self.floors.values())

    def machine(self, name):
        """By domain (a), machine (a1) or floor (floor-a)."""
        if name in self.domains:
            return self.domains[name].machine
        for m in self.machines():
            if m.name == name:
                return m
        raise LabError(f"no such machine: {name}; there are " + ", ".join(m.name for m in self.machines()))

    def power_off(self, name):
        self.machine(name).power_off()

    def power_on(self, name):
        self.machine(name).power_on()

    def exec(self, name, *argv, **options):
        return self.machine(name).exec(*argv, **options)

    def kill(self, name, unit):
        self.machine(name).kill(unit)

    # ---- configuration ----
    def _certificates(self):
        issue = self.pki.issue
        self.pki.init()
        admin = issue("admin", "admin", ["system:masters"])
        for d in self.domains.values():
            me, names = d.machine, {}
            names["etcd"] = issue(f"{me.name}-etcd", f"etcd-{d.name}", hosts=[me.address, "127.0.0.1", "localhost", me.name])
            names["api-etcd"] = issue("api-etcd", "kuayu:api")
            names["api"] = issue(f"{me.name}-api", "kube-apiserver", hosts=[
                *(x.machine.address for x in self.domains.values()), "127.0.0.1", "10.96.0.1", "localhost", "kubernetes",
                "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"])
            names["api-node"] = issue("api-node", "kuayu:api-node-client", ["system:masters"])
            names["volume"] = issue("volume", "kuayu:volume")
            names["controller"] = issue("controller", "system:kube-controller-manager")
            names["scheduler"] = issue("scheduler", "system:kube-scheduler")
            names["gateway"] = issue("gateway", "kuayu:gateway")
            names["node"] = issue(f"{me.name}-node", f"system:node:{me.name}", ["system:nodes"], hosts=[me.address, me.name])
            shutil.copy(self.pki.ca, me.etc / "ca.crt")
            for name, (cert, key) in names.items():
                shutil.copy(cert, me.etc / f"{name}.crt")
                shutil.copy(key, me.etc / f"{name}.key")
            (me.etc / "tokens.csv").write_text(f'{TOKEN_ADMIN},lab-admin,lab-admin,"system:masters"\n')
        self._kubeconfigs(*admin)

    def _kubeconfigs(self, cert, key):
        """kubeconfig reaches domain a's API server, kubeconfig-b domain b's, ..."""
        for d in self.domains.values():
            text = json.dumps({
                "apiVersion": "v1", "kind": "Config", "current-context": "lab",
                "clusters": [{"name": "lab", "cluster": {"server": f"https://{d.machine.address}:6443",
                                                         "certificate-authority": str(self.pki.ca)}}],
                "users": [{"name": "admin", "user": {"client-certificate": str(cert), "client-key": str(key)}}],
                "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}]}, indent=1)
            (self.dir / f"kubeconfig-{d.name}").write_text(text)
            if d.index == 1:
                (self.dir / "kubeconfig").write_text(text)

    def _domain_units(self, d):
        every = list(self.domains.values())
        argv = {"etcd": units.etcd(d, every), "api": units.api(d, every), "controller": units.controller(d, every),
                "scheduler": units.scheduler(d, every), "node": units.node(d, every, self.images), "gateway": units.gateway(d, every),
                "brick": units.brick(d, every), "csi": units.csi(d, every)}
        for role in self.roles:
            d.machine.add_unit(role, argv[role])

    def wait(self, what, probe, timeout, *logs):
        return wait_for(what, probe, timeout, logs)
