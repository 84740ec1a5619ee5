# SPDX-License-Identifier: Apache-2.0
"""Three `kuayu db` members, each in a network, process and mount namespace of its own, on one bridge in a fourth network
namespace. A member's power cut takes its link down and kills every process of it at once; its files stay."""
import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from lab.util import die_with_parent
from test.waiting import patient

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KUAYU = os.environ.get("KUAYU", os.path.join(SOURCE, "build/src/cli/kuayu"))
HUB = "kdb-hub"
SECRETS = {"sst-password": "only.for.tests-1", "user": "app", "password": "app's pass", "database": "shop"}


def run(*argv, check=True):
    return subprocess.run(argv, check=check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60).stdout


def wait_for(what, condition, seconds):
    """Waits until condition() is true; returns how long that took."""
    seconds = patient(seconds)
    start = time.monotonic()
    while True:
        if condition():
            return time.monotonic() - start
        if time.monotonic() - start > seconds:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.05)


class Member:
    def __init__(self, cluster, index):
        self.cluster, self.name, self.ip = cluster, f"db-{index}", f"10.99.7.{index + 1}"
        self.netns, self.port = f"kdb-{index}", f"kdb-v{index}"
        self.dir = os.path.join(cluster.dir, self.name)
        self.log = os.path.join(cluster.dir, self.name + ".log")
        self.process = None

    def start(self, *more):
        argv = ["nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", KUAYU, "db",
                f"--name={self.name}", f"--address={self.ip}", "--peers=" + ",".join(f"{m.name}={m.ip}" for m in self.cluster.members),
                f"--data={self.dir}/data", f"--run={self.dir}/run", f"--secret-dir={self.cluster.dir}/secret",
                "--no-kubernetes", "--buffer-pool=32", "--log-file=16", "--gcache=32", *more]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)

    def pids(self):
        """(supervisor, mariadbd) as seen from outside; 0 = not running."""
        def children(pid):
            try:
                with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
                    return [int(p) for p in f.read().split()]
            except FileNotFoundError:
                return []
        def comm(pid):
            try:
                with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                    return f.read().strip()
            except FileNotFoundError:
                return ""
        supervisor = next(iter(children(self.process.pid)), 0)
        return supervisor, next((p for p in children(supervisor) if comm(p) == "mariadbd"), 0)

    def link(self, state):
        run("ip", "-n", HUB, "link", "set", self.port, state)

    def power_off(self):
        self.link("down")
        supervisor = self.pids()[0]
        if supervisor:
            os.kill(supervisor, signal.SIGKILL)  # PID 1 of its namespace: the rest goes with it
        self.process.kill()
        self.process.wait()

    def power_on(self):
        self.link("up")
        self.start()

    def stop(self):
        os.kill(self.pids()[0], signal.SIGTERM)
        self.process.wait(30)

    def sql(self, text):
        """Through the local socket, so that it works whatever happens to the links; None = refused."""
        p = subprocess.run(["mariadb", "--no-defaults", f"--socket={self.dir}/run/mysqld.sock", "-uroot", "-N", "-B", "-e", text],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
        return p.stdout.strip() if p.returncode == 0 else None

    def get(self, path):
        """(status, text) of the member's status port, asked from inside its own network namespace."""
        p = subprocess.run(["nsenter", f"--net=/run/netns/{self.netns}", "curl", "-s", "-m", "3", "-w", "\n%{http_code}",
                            f"http://{self.ip}:9104{path}"], stdout=subprocess.PIPE, text=True, timeout=10)
        text, _, status = p.stdout.rpartition("\n")
        return int(status or 0), text

    def post(self, path, token=None):
        token = token or hashlib.sha256(f"kuayu db {SECRETS['sst-password']}".encode()).hexdigest()
        p = subprocess.run(["nsenter", f"--net=/run/netns/{self.netns}", "curl", "-s", "-m", "3", "-X", "POST", "-o", "/dev/null", "-w",
                            "%{http_code}", "-H", f"Authorization: Bearer {token}", f"http://{self.ip}:9104{path}"],
                           stdout=subprocess.PIPE, text=True, timeout=10)
        return int(p.stdout or 0)

    def state(self):
        status, text = self.get("/state")
        return json.loads(text) if status == 200 else {}

    def ready(self):
        return self.get("/readyz")[0] == 200

    def log_has(self, text):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return text in f.read()


class Writer(threading.Thread):
    """Inserts numbered rows through one member, over TCP, and remembers which were acknowledged and when."""

    def __init__(self, cluster, member, table):
        super().__init__(daemon=True)
        self.cluster, self.member, self.table = cluster, member, table
        self.acknowledged, self.times, self.stopped, self.next = [], [], False, 1
        self.start()

    def client(self):
        return subprocess.Popen(["nsenter", f"--net=/run/netns/{HUB}", "mariadb", "--no-defaults", f"-h{self.member.ip}", "-uapp",
                                 "-p" + SECRETS["password"], "--connect-timeout=1", "-n", "-N", "-B", "--skip-reconnect", "shop"],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)

    @staticmethod
    def read_lines(stream, lines):
        for line in stream:
            lines.put(line)
        lines.put("end")

    def run(self):
        while not self.stopped:
            p = self.client()
            lines = queue.Queue()
            reader = threading.Thread(target=self.read_lines, args=(p.stdout, lines), daemon=True)
            reader.start()
            try:
                while not self.stopped:
                    n, self.next = self.next, self.next + 1
                    p.stdin.write(f"INSERT INTO {self.table} VALUES ({n}); SELECT {n};\n")
                    if int(lines.get(timeout=8)) != n:
                        break
                    self.acknowledged.append(n)
                    self.times.append(time.monotonic())
            except (OSError, ValueError, queue.Empty):
                time.sleep(0.1)
            p.kill()
            p.wait()
            reader.join()
            for f in (p.stdin, p.stdout):
                try:
                    f.close()
                except OSError:
                    pass

    def stop(self):
        self.stopped = True
        self.join(15)

    def longest_gap(self, since):
        t = [x for x in self.times if x >= since]
        return max((b - a for a, b in zip([since] + t, t)), default=float("inf"))


class Cluster:
    def __init__(self, n=3):
        self.dir = tempfile.mkdtemp(prefix="kdb-", dir="/var/tmp")
        os.chmod(self.dir, 0o755)
        self.members = [Member(self, i) for i in range(n)]
        os.makedirs(f"{self.dir}/secret")
        for name, text in SECRETS.items():
            with open(f"{self.dir}/secret/{name}", "w", encoding="ascii") as f:
                f.write(text + "\n")
        try:
            self.make_network()
        except BaseException:
            self.close()
            raise

    def make_network(self):
        self.remove_network()
        run("ip", "netns", "add", HUB)
        run("ip", "-n", HUB, "link", "add", "kdb-br", "type", "bridge")
        run("ip", "-n", HUB, "addr", "add", "10.99.7.254/24", "dev", "kdb-br")
        run("ip", "-n", HUB, "link", "set", "kdb-br", "up")
        for m in self.members:
            run("ip", "netns", "add", m.netns)
            run("ip", "-n", HUB, "link", "add", m.port, "type", "veth", "peer", "name", "eth0", "netns", m.netns)
            run("ip", "-n", HUB, "link", "set", m.port, "master", "kdb-br", "up")
            run("ip", "-n", m.netns, "addr", "add", f"{m.ip}/24", "dev", "eth0")
            run("ip", "-n", m.netns, "link", "set", "eth0", "up")
            run("ip", "-n", m.netns, "link", "set", "lo", "up")

    def remove_network(self):
        for name in [m.netns for m in self.members] + [HUB]:
            run("ip", "netns", "delete", name, check=False)

    def start(self):
        for m in self.members:
            m.start()

    def all_ready(self):
        return all(m.ready() for m in self.members) and all(m.state().get("clusterSize") == len(self.members) for m in self.members)

    def close(self):
        for m in self.members:
            if m.process and m.process.poll() is None:
                m.power_off()
        self.remove_network()
        keep = os.environ.get("KDB_KEEP_LOGS")
        if keep:
            for m in self.members:
                if os.path.exists(m.log):
                    shutil.copy(m.log, keep)
        shutil.rmtree(self.dir, ignore_errors=True)
