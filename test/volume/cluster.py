# SPDX-License-Identifier: Apache-2.0
"""A volume on one machine, for tests: etcd, bricks, mounts, and what may go wrong with them.

    from test.volume.cluster import VolumeCluster
    with VolumeCluster() as c:                       # domains a, b, c, one brick each, three copies, started and ready
        a, b = c.mount(), c.mount(domain="b")        # pathlib.Path
        (a / "x").write_text("hello")
        c.kill("b1"); c.restart("b1"); c.wait_healed(30)
        c.stop("c1"); c.cont("c1")                   # SIGSTOP, SIGCONT
        c.volume("status")                           # `kuayu volume status logs`; c.status() is its JSON
Bricks are named by domain and number: a1, b1, c1, a2 ... network="netns" gives each a network namespace (then c.cut("b1") and
c.join("b1") work), "wire" a delay between domains too (c.network.delay(5)). bricks="tmpfs" | "disk" | "image": in memory, on
the disk below /var/tmp, or each on an ext4 image of its own in memory, which power_off() and fill up can damage.

All processes end with the thread that started them (the main thread, normally), and close() ends them and removes everything; it
raises when something is left. Logs are in c.dir (kept with keep=True or KUAYU_KEEP=1, and their place is printed)."""
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from lab.util import KUAYU, LabError, die_with_parent, run, wait_for, with_log
from test.volume import network as networks
from test.waiting import free_port  # noqa: F401, for those who import it from here

BRICK_PORT, ETCD_PORT = 24100, 2379
EXT4_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


def is_mounted(path):
    with open("/proc/self/mountinfo") as f:
        return any(line.split()[4] == str(path) for line in f)


def unmount(path, seconds=10):
    """Unmounts politely, then lazily. True when the polite way was enough."""
    for _ in range(int(seconds * 10)):
        if not is_mounted(path):
            return True
        try:
            if subprocess.run(["umount", path], capture_output=True, timeout=seconds).returncode == 0:
                return True
        except subprocess.TimeoutExpired:
            break
        time.sleep(0.1)
    subprocess.run(["umount", "-l", path], capture_output=True)
    return False


def held_elsewhere(path):
    """Does another mount namespace have a copy of this mount? It lives until that namespace ends, wherever else it is unmounted; tests that run
    beside this one make such namespaces (containers, csi, bstore's power cuts)."""
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit():
                with open(f"/proc/{entry}/mountinfo") as f:
                    if any(line.split()[4] == str(path) for line in f):
                        return True
        except OSError:
            pass  # it has ended
    return False


def shim(path, source):
    """Compiles a C source into a library that goes in front of the C library; what LD_PRELOAD is to be. Skips the test where the program is built with the
    address sanitizer, which ends a program that loads another library before it."""
    if b"libasan.so" in Path(KUAYU).read_bytes():
        raise unittest.SkipTest("nothing can be put in front of the address sanitizer")
    file = Path(path).with_suffix(".c")
    file.write_text(source)
    run("cc", "-shared", "-fPIC", "-o", path, file)
    return str(path)


def has_room(folder, size):
    """Can a file of so many bytes, `again`, be written there?"""
    try:
        (folder / "again").write_bytes(b"x" * size)
        return True
    except OSError:
        return False


def sweep():
    """Removes mounts and folders of clusters whose program was killed; its processes have ended with it."""
    for folder in [*Path("/var/tmp").glob("kuayu-volume-*-*"), *Path("/dev/shm").glob("kuayu-volume-*-*")]:
        pid = folder.name.split("-")[2]
        if not pid.isdigit() or os.path.exists(f"/proc/{pid}") or (folder / "kept").exists():
            continue
        with open("/proc/self/mountinfo") as f:
            below = [p for p in (line.split()[4] for line in f) if p.startswith(f"{folder}/")]
        for path in reversed(below):
            unmount(path, 1)
        shutil.rmtree(folder, ignore_errors=True)


class Process:
    """A child with a log; ends with its parent. Started again by start()."""

    def __init__(self, name, argv, log, env=None):
        self.name, self.argv, self.log, self.env = name, [str(a) for a in argv], Path(log), env
        self.popen = None

    def start(self):
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent,
                                          env={**os.environ, **(self.env or {})})
        return self

    @property
    def pid(self):
        return self.popen.pid if self.popen else 0

    @property
    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def signal(self, sig):
        if self.alive:
            os.kill(self.popen.pid, sig)

    def kill(self):
        self.signal(signal.SIGKILL)
        if self.popen:
            self.popen.wait(10)

    def ends(self, seconds):
        """True when it has ended by itself within so long."""
        try:
            self.popen.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            return False

    def terminate(self, seconds=10):
        """SIGTERM, then SIGKILL. The exit status; None when it had to be killed."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if not self.popen:
            return 0
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def check(self):
        if not self.alive:
            raise LabError(with_log(f"{self.name} has ended (status {self.popen.returncode if self.popen else '-'})", self.log))


class Brick(Process):
    """Its data folder, its node's place on the network, and maybe a disk of its own."""

    def __init__(self, cluster, name, domain, address, data, image):
        self.domain, self.address, self.data, self.image, self.loop = domain, address, data, image, None
        self.path = data  # as the brick itself calls it
        self.listen = f"{address}:{BRICK_PORT}"
        self.run_dir = cluster.memory / "run" / name  # in memory: it tells a crash from a loss of power
        argv = cluster.network.prefix(name) + [KUAYU, "brick", "--data", data, "--node", name, "--domain", domain, "--listen", self.listen,
                                               "--store", cluster.store, "--run-dir", self.run_dir,
                                               *[o.replace("{address}", address) for o in cluster.brick_options]]
        super().__init__(name, argv, cluster.dir / f"{name}.log", cluster.env)

    def make(self, size_mib):
        self.data.mkdir(parents=True)
        self.run_dir.mkdir(parents=True)
        if self.image:
            with open(self.image, "wb") as f:
                f.truncate(size_mib << 20)
            run("mkfs.ext4", "-q", "-O", "^metadata_csum_seed", "-E", "lazy_itable_init=1,lazy_journal_init=1", self.image)
            self.attach()

    def attach(self):
        if self.image and not self.loop:
            self.loop = run("losetup", "--find", "--show", self.image).stdout.strip()
            run("mount", "-t", "ext4", self.loop, self.data)

    def detach(self, drop=False):
        """Unmounts the disk; drop: what was not flushed is lost first, as at a power cut."""
        if not self.loop:
            return
        if drop:
            fd = os.open(self.data, os.O_RDONLY)
            try:
                fcntl.ioctl(fd, EXT4_SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, "little"))
            finally:
                os.close(fd)
            self.kill()
            shutil.rmtree(self.run_dir, ignore_errors=True)
        unmount(self.data)
        wait_for(f"the disk of {self.name} is free", lambda: subprocess.run(["losetup", "-d", self.loop], capture_output=True).returncode == 0, 10)
        self.loop = None


class VolumeCluster:
    """See the head of this file. options: more words for `kuayu volume create`; settings: {key: value} for `kuayu volume set`;
    bricks_in: where the bricks' data lies, when it is to be elsewhere. stripe_kib: of a stripe, when not the default.
    spares_per_domain: bricks that run and are not in the volume, for expand and replace-brick.
    KUAYU_STRIPE=STRIPE[,KIB[,SETS]] (any test, by hand): volumes whose test does not say how they are striped are, over so many times the bricks."""

    def __init__(self, domains=("a", "b", "c"), bricks_per_domain=1, replica=3, stripe=None, bricks="tmpfs", network="loopback", volume="logs",
                 brick_options=(), mount_options=(), settings=None, image_mib=2048, start=True, keep=False, env=None, options=(),
                 bricks_in=None, spares_per_domain=0, stripe_kib=None):
        if stripe is None:
            stripe, kib, sets = (int(v or d) for v, d in zip((os.environ.get("KUAYU_STRIPE", "") + ",,").split(","), (1, 0, 1)))
            stripe_kib, bricks_per_domain = stripe_kib or kib, bricks_per_domain * stripe * sets
        self.volume_name, self.replica, self.stripe, self.env = volume, replica, stripe, env
        self.brick_options, self.mount_options = list(brick_options), list(mount_options)
        self.options = [*options, *([f"--stripe-size={stripe_kib}"] if stripe_kib else [])]
        self.spares_per_domain = spares_per_domain
        bricks_per_domain += spares_per_domain
        self.keep = keep or os.environ.get("KUAYU_KEEP") == "1"
        sweep()
        self.dir = Path(tempfile.mkdtemp(prefix=f"kuayu-volume-{os.getpid()}-", dir="/var/tmp"))
        self.dir.chmod(0o755)  # mounts below it are for every user
        self.memory = Path(tempfile.mkdtemp(prefix=f"kuayu-volume-{os.getpid()}-", dir="/dev/shm"))
        self.bricks_in = Path(bricks_in) if bricks_in else (self.memory if bricks == "tmpfs" else self.dir) / "bricks"
        self.network, self.etcd, self.bricks, self.mounts, self.clients, self.closed = None, None, {}, {}, 0, False
        try:
            self.network = network if hasattr(network, "prefix") else {"loopback": networks.Loopback, "netns": networks.Namespaces,
                            "wire": lambda: networks.WireNamespaces(self.dir / "wire")}[network]()
            self._make(tuple(domains), bricks_per_domain, bricks, image_mib)
            if start:
                self.start(settings or {})
        except BaseException:
            self.close(quiet=True)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- life ----
    def _make(self, domains, per_domain, kind, image_mib):
        address = self.network.add("etcd", 0, 1)
        self.store = f"etcd:http://{address}:{ETCD_PORT}"
        url, peer = f"http://{address}:{ETCD_PORT}", f"http://{address}:{ETCD_PORT + 1}"
        self.etcd = Process("etcd", self.network.prefix("etcd") + [
            "etcd", "--name=one", f"--data-dir={self.memory}/etcd", f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=one={peer}",
            "--heartbeat-interval=20", "--election-timeout=200",  # alone it has nobody to wait for: it answers half a second earlier after its start
            "--logger=zap", "--log-level=warn"], self.dir / "etcd.log", self.env)
        self.domains = domains
        for d, domain in enumerate(domains, 1):
            for i in range(1, per_domain + 1):
                name = f"{domain}{i}"
                data = self.bricks_in / name
                image = self.memory / f"{name}.img" if kind == "image" else None
                brick = Brick(self, name, domain, self.network.add(name, d, i), data, image)
                self.bricks[name] = brick
                brick.make(image_mib)
        self.spares = {n for n in self.bricks if int(re.search(r"\d+$", n)[0]) > per_domain - self.spares_per_domain}

    def start(self, settings=None):
        self.etcd.start()
        self.wait_etcd()
        for b in self.bricks.values():
            b.start()
        for b in self.bricks.values():
            self.wait_port(b.name, BRICK_PORT)
        kind = (["stripe", self.stripe] if self.stripe > 1 else []) + ["replica", self.replica]
        # Stripe neighbours and copies: the product picks by domain, the order here is by number, then domain.
        order = sorted(self.bricks.values(), key=lambda b: (int(b.name[len(b.domain):]), b.domain))
        create = ["create", self.volume_name, *kind, *[f"{b.name}:{b.path}" for b in order if b.name not in self.spares], *self.options]
        self.retry("the volume can be created", create)
        for key, value in (settings or {}).items():
            self.kuayu("volume", "set", self.volume_name, key, value)
        self.retry("the volume starts", ["start", self.volume_name])

    def retry(self, what, words, seconds=15):
        """Bricks need a moment to make themselves known."""
        def attempt():
            for b in self.bricks.values():
                b.check()
            self.kuayu("volume", *words)
            return True
        wait_for(what, attempt, seconds, interval=0.05, logs=[b.log for b in self.bricks.values()])

    def wait_etcd(self, seconds=15):
        """Until etcd answers: it listens before, and whoever asks it then waits a second for nothing."""
        def well():
            self.etcd.check()
            return "true" in run(*self.network.prefix("etcd"), "curl", "-sf", "-m", "2", self.store[len("etcd:"):] + "/health").stdout
        wait_for("etcd is well", well, seconds, [self.etcd.log], 0.02)

    def wait_port(self, name, port, seconds=15):
        process = self.etcd if name == "etcd" else self.bricks[name]
        where = self.address(name)

        def listening():
            process.check()
            test = ["bash", "-c", f"exec 3<>/dev/tcp/{where}/{port}"]
            return subprocess.run(self.network.prefix(name) + test, capture_output=True).returncode == 0
        wait_for(f"{name} listens on {where}:{port}", listening, seconds, [process.log])

    def address(self, name):
        return re.search(r"//(.*):", self.store).group(1) if name == "etcd" else self.bricks[name].address

    def close(self, quiet=False):
        if self.closed:
            return
        self.closed, left = True, []
        for path in list(self.mounts):
            self._drop_mount(path)
        for b in self.bricks.values():  # all at once: an orderly end hands each one's groups to those that end next (shut() is for tests of that)
            b.signal(signal.SIGKILL)
        for b in self.bricks.values():
            b.kill()
            try:
                b.detach()
            except LabError as e:
                left.append(str(e))
        if self.etcd:
            self.etcd.kill()
        if self.network:
            self.network.close()
        left += [f"mount {p}" for p in self._mounts_below()]
        if self.keep:
            for folder in (self.dir, self.memory):
                (folder / "kept").touch()
            print(f"kept: {self.dir} {self.memory}")
        elif not left:
            shutil.rmtree(self.memory, ignore_errors=True)
            shutil.rmtree(self.dir, ignore_errors=True)
        if left and not quiet:
            raise LabError("the test cluster left: " + "; ".join(left))

    def _mounts_below(self):
        with open("/proc/self/mountinfo") as f:
            return [p for p in (line.split()[4] for line in f) if p.startswith((f"{self.dir}/", f"{self.memory}/"))]

    # ---- commands ----
    def kuayu(self, *words, timeout=30, check=True, node=None):
        """Runs the program on a node's network (default: the first brick's), with --store; the finished process."""
        node = node or next(iter(self.bricks))
        return run(*self.network.prefix(node), KUAYU, *words, "--store", self.store, timeout=timeout, check=check,
                   env={**os.environ, **(self.env or {})})

    def volume(self, verb, *words, **options):
        """`kuayu volume VERB NAME WORDS`; its output."""
        return self.kuayu("volume", verb, self.volume_name, *words, **options).stdout

    def status(self, **options):
        return json.loads(self.volume("status", "-o", "json", **options))

    def healed(self):
        """True when every member of every group is in its in-sync set and nothing waits to be copied (docs/volume-internals.md)."""
        status = self.status()
        return bool(status["in_sync"]) and not status["heal"]["keys_left"]

    def wait_healed(self, seconds=60):
        """Waits until all copies are in sync; returns how long it took."""
        start = time.monotonic()
        wait_for("all copies are in sync", self.healed, seconds, [b.log for b in self.bricks.values()], 0.05)
        return time.monotonic() - start

    # ---- mounts ----
    def client_node(self, domain=None):
        """A node without a brick, for mounts whose link is cut while their domain's bricks go on."""
        self.clients += 1
        name = f"client{self.clients}"
        self.network.add(name, self.domains.index(domain or self.domains[0]) + 1, 200 + self.clients)
        return name

    def mount(self, path=None, domain=None, options=(), seconds=15, wait=True, node=None):
        """A new mount, run on this node or one of this domain; pathlib.Path of its root."""
        n = len(self.mounts) + 1
        path = Path(path) if path else self.dir / "mnt" / str(n)
        path.mkdir(parents=True, exist_ok=True)
        node = node or next(b.name for b in self.bricks.values() if b.domain == (domain or self.domains[0]))
        argv = self.network.prefix(node) + [KUAYU, "mount", self.volume_name, path, "--store", self.store, "--foreground", "--domain",
                                            domain or self.domains[0], *self.mount_options, *options]
        p = Process(f"mount{n}", argv, self.dir / f"mount{n}.log", self.env).start()
        self.mounts[path] = p
        if wait:
            self.wait_mounted(path, seconds)
        return path

    def wait_mounted(self, path, seconds=15):
        p = self.mounts[path]

        def ready():
            if not is_mounted(path):
                if p.popen.poll():  # a status of 0: it went to the background
                    raise LabError(with_log(f"{p.name} ended with status {p.popen.returncode}", p.log))
                return False
            os.statvfs(path)
            return True
        wait_for(f"{path} is mounted", ready, seconds, [p.log])

    def umount(self, path):
        if not self._drop_mount(Path(path)):
            raise LabError(f"{path}: did not unmount by itself")

    def remount(self, path):
        """Unmounts and mounts again: a client with cold caches."""
        p = self.mounts[Path(path)]
        self.umount(path)
        p.start()
        self.mounts[Path(path)] = p
        self.wait_mounted(Path(path))
        return Path(path)

    def kill_mount(self, path):
        """The client crashes: its process is killed; the dead mount point is removed."""
        p = self.mounts[Path(path)]
        p.kill()
        subprocess.run(["umount", "-l", path], capture_output=True)

    def _drop_mount(self, path):
        p = self.mounts.pop(path)
        p.signal(signal.SIGCONT)
        polite = unmount(path)
        if p.popen and not p.ends(1):
            held = held_elsewhere(path)  # then nobody has told the process of the end
            if held or not polite or not p.ends(9):
                polite = polite and held
                p.terminate(5)
        return polite

    # ---- faults ----
    def kill(self, brick):
        self.bricks[brick].kill()

    def restart(self, brick, wait=True):
        """Starts a brick that was killed, stopped for good or powered off."""
        b = self.bricks[brick]
        if b.alive:
            b.terminate()
        b.attach()
        b.run_dir.mkdir(parents=True, exist_ok=True)
        b.start()
        if wait:
            self.wait_port(brick, BRICK_PORT)

    def shut(self, brick):
        """Ends it in order (SIGTERM); its exit status."""
        return self.bricks[brick].terminate()

    def stop(self, brick):
        self.bricks[brick].signal(signal.SIGSTOP)

    def cont(self, brick):
        self.bricks[brick].signal(signal.SIGCONT)

    def cut(self, brick):
        """The cable breaks: packets vanish. With network="wire" the whole domain is cut off."""
        self.network.cut(brick)

    def join(self, brick):
        self.network.heal(brick)

    def power_off(self, *bricks):
        """bricks="image" only: silence, loss of what was not flushed, end; all of them at once."""
        for name in bricks:
            if not self.bricks[name].image:
                raise LabError("a power cut needs bricks='image'")
            self.bricks[name].signal(signal.SIGSTOP)
        for name in bricks:
            self.bricks[name].detach(drop=True)

    def break_disk(self, brick):
        """bricks="image" only: from now on every access to its disk is EIO. mend_disk: the same disk, with what had been flushed; the brick starts anew."""
        fd = os.open(self.bricks[brick].data, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(fd)

    def mend_disk(self, brick):
        self.bricks[brick].kill()
        self.bricks[brick].detach()
        self.restart(brick)

    def freeze_disk(self, brick):
        """bricks="image" only: writes to the disk wait until thaw_disk."""
        run("fsfreeze", "--freeze", self.bricks[brick].data)

    def thaw_disk(self, brick):
        run("fsfreeze", "--unfreeze", self.bricks[brick].data)

    def wipe(self, brick):
        """The brick gets an empty new disk (it must not be running)."""
        b = self.bricks[brick]
        for entry in list(b.data.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    # ---- looking ----
    def where(self, path, mount=None):
        """`kuayu volume where`, as JSON: groups, bricks, primaries of a path below a mount."""
        return json.loads(self.kuayu("volume", "where", str(path), "-o", "json").stdout)

    def log(self, name):
        """Text of a brick's, etcd's or mount's log ("b1", "etcd", "mount1")."""
        return (self.dir / f"{name}.log").read_text(errors="replace")

    def pids(self):
        """Process ids of bricks and mounts that run: {name: pid}."""
        all_of = [*self.bricks.values(), *self.mounts.values()]
        return {p.name: p.pid for p in all_of if p.alive}


class ClusterTest(unittest.TestCase):
    """Three bricks, three copies (or `settings` of VolumeCluster), for all tests of a class; mounts() makes what they need of it."""
    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = VolumeCluster(**cls.settings)
        try:
            cls.mounts()
        except BaseException:
            cls.cluster.close(quiet=True)
            raise

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()


class TwoMountsTest(ClusterTest):
    """Two mounts a and b, and a folder a test, da and db, as they have it."""

    @classmethod
    def mounts(cls):
        cls.a, cls.b = cls.cluster.mount(), cls.cluster.mount(domain="b")

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1]
        self.da, self.db = self.a / self.name, self.b / self.name
        self.da.mkdir()
