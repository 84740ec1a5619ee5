# SPDX-License-Identifier: Apache-2.0
"""A machine of the lab (lab/domain.c): power on and off, its units, commands in it.

A machine is one lab-domain process outside (the power supply) and the processes in its namespaces. A domain of the cluster
and a factory floor are both machines; only a domain has a disk that a power cut can damage."""
import json
import os
import signal
import socket
import subprocess
import threading

from lab.util import BUILD, SOURCE, LabError, run, wait_for

NETMASK = 16
DISK_SIZE = 12 << 30  # bytes, sparse
DISK_FOLDERS = ("/var/lib/kuayu", "/tmp")
CGROUP = "/kuayu-lab"
INIT_SOCKET = "run/lab-init.sock"


def cgroup_trees():
    """Where this host has control group trees (a hybrid host's v2 tree left out), as lab/domain_cgroup.c sees them."""
    trees = []
    with open("/proc/self/mounts") as f:
        for line in f:
            _, where, kind = line.split()[:3]
            if kind == "cgroup" or (kind == "cgroup2" and where == "/sys/fs/cgroup"):
                trees.append(where)
    return trees


def enter_cgroup(path):
    for tree in cgroup_trees():
        try:
            with open(f"{tree}{path}/cgroup.procs", "w") as f:
                f.write("0")
        except OSError:
            pass


class Machine:
    """name: host name; site: its place on the wire; address: IPv4 on the lab's network."""

    def __init__(self, lab, name, site, address, mac, disk=True):
        self.lab, self.name, self.site, self.address, self.mac = lab, name, site, address, mac
        self.has_disk = disk
        self.units = {}  # name -> {"argv": [...], "env": {...}, "restart": bool, "manual": bool}
        self.log_dir, self.etc = lab.dir / "log" / name, lab.dir / "etc" / name
        self.data = lab.dir / "data" / name  # a folder of the host at /srv: survives everything (factory floors' journals)
        self.disk, self.units_file = lab.disks / f"{name}.img", lab.dir / f"units/{name}.json"
        self.mount_point = lab.dir / f"mnt/{name}"
        self.cgroup = f"{CGROUP}/{name}"
        self.supply, self.pid = None, 0
        for folder in (self.log_dir, self.etc, self.data, self.mount_point, self.disk.parent, self.units_file.parent):
            folder.mkdir(parents=True, exist_ok=True)

    # ---- power ----
    def make_disk(self):
        with open(self.disk, "wb") as f:
            f.truncate(DISK_SIZE)
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", self.disk)

    def _disk_in_use(self):
        for loop in os.listdir("/sys/block"):
            try:
                with open(f"/sys/block/{loop}/loop/backing_file") as f:
                    if f.read().strip() == str(self.disk):
                        return True
            except OSError:
                pass
        return False

    def _argv(self):
        argv = [BUILD / "lab/lab-domain", f"--name={self.name}", f"--units={self.units_file}", f"--cgroup={self.cgroup}",
                "--tmpfs=/run", f"--bind={self.log_dir}:/var/log", f"--bind={self.etc}:/etc/kuayu", f"--bind={self.data}:/srv"]
        argv += [f"--keep={path}" for path in (SOURCE, self.lab.dir)]  # a clone in /tmp, say
        if self.has_disk:
            argv += [f"--cpu-millis={self.lab.cpu_millis}"]
            argv += [f"--disk={self.disk}", f"--disk-at={self.mount_point}"] + [f"--disk-dir={d}" for d in DISK_FOLDERS]
        else:
            argv += ["--tmpfs=/tmp"]
        return argv

    def power_on(self):
        """Namespaces, disk, process 1, network, units. Returns when the units have been started (not when they are ready)."""
        if threading.current_thread() is not threading.main_thread():
            raise LabError("machines are switched on by the main thread only: they end with the thread that started them")
        if self.on:
            raise LabError(f"{self.name} is on already")
        if self.has_disk:
            wait_for(f"the disk of {self.name} is free", lambda: not self._disk_in_use(), 10)
        self.write_units()
        log = self.log_dir / "machine.log"
        with open(log, "ab") as f:
            self.supply = subprocess.Popen(self._argv(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=f, start_new_session=True)
        line = self.supply.stdout.readline().decode().split()
        if len(line) != 2:
            self.supply.wait(10)
            self.supply = None
            raise LabError(f"{self.name} does not start; log: {log}")
        self.pid = int(line[1])
        self._connect()
        self.init("boot")

    def _connect(self):
        self.lab.wire.command(f"plug {self.name} {self.site} {self.pid} eth0 {self.mac}")
        batch = f"link set eth0 up\naddr add {self.address}/{NETMASK} dev eth0\n"
        run("nsenter", f"--net=/proc/{self.pid}/ns/net", "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", check=False)
        run("nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", "-batch", "-", input=batch)

    def power_off(self):
        """A power cut: first the wire falls silent, then the disk forgets what was not flushed, then all is killed."""
        if not self.supply:
            return
        if self.on:
            try:
                self.lab.wire.command(f"unplug {self.name}")
            except LabError:
                pass  # the wire has seen its end already
        self.supply.terminate()
        try:
            self.supply.wait(20)
        except subprocess.TimeoutExpired:
            self.supply.kill()
            self.supply.wait()
            raise LabError(f"{self.name} did not go off; log: {self.log_dir / 'machine.log'}") from None
        finally:
            self.supply.stdout.close()
            self.supply, self.pid = None, 0

    @property
    def on(self):
        return self.supply is not None and self.supply.poll() is None

    # ---- units ----
    def write_units(self):
        temporary = self.units_file.with_suffix(".new")
        temporary.write_text(json.dumps({"units": self.units}, indent=1))
        temporary.replace(self.units_file)

    def init(self, command):
        """One command to process 1; the JSON of its answer."""
        if not self.on:
            raise LabError(f"{self.name} is off")
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(f"/proc/{self.pid}/root/{INIT_SOCKET}")
            s.sendall(command.encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                part = s.recv(65536)
                if not part:
                    break
                answer += part
        word, _, rest = answer.decode().strip().partition(" ")
        if word != "ok":
            raise LabError(f"{self.name}: {command}: {rest}")
        return json.loads(rest) if rest else None

    def add_unit(self, name, argv, env=None, restart=True, manual=False):
        """Takes effect at once when the machine is on."""
        self.units[name] = {"argv": [str(a) for a in argv], "env": env or {}, "restart": restart, "manual": manual}
        if self.on:
            self.write_units()
            self.init("reload")

    def remove_unit(self, name):
        self.units.pop(name, None)
        if self.on:
            self.write_units()
            self.init("reload")

    def status(self):
        return self.init("status")

    def start(self, unit):
        self.init(f"start {unit}")

    def stop(self, unit):
        self.init(f"stop {unit}")

    def kill(self, unit, sig=signal.SIGKILL):
        """A crash of this unit's process; the machine's process 1 starts it again, as systemd would."""
        self.init(f"signal {unit} {int(sig)}")

    def log(self, unit):
        return self.log_dir / f"{unit}.log"

    # ---- commands ----
    def argv(self, *argv):
        """Prefix that runs argv in the machine."""
        if not self.on:
            raise LabError(f"{self.name} is off")
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--wd=/", "--", *[str(a) for a in argv]]

    def exec(self, *argv, timeout=30, check=True, **options):
        group = self.cgroup
        return run(*self.argv(*argv), timeout=timeout, check=check, preexec_fn=lambda: enter_cgroup(group), **options)

    def popen(self, *argv, **options):
        group = self.cgroup
        return subprocess.Popen(self.argv(*argv), preexec_fn=lambda: enter_cgroup(group), **options)
