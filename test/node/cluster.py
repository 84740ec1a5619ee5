# SPDX-License-Identifier: Apache-2.0
"""One API server (SQLite) and up to two node agents, each in a network, mount and process namespace of its own, on this machine.
Closing it ends every process, mount, namespace and control group."""
import ctypes
import glob
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from test.waiting import patient

ROOT = pathlib.Path(os.environ.get("KUAYU_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
KUAYU = os.environ.get("KUAYU", str(ROOT / "build/src/cli/kuayu"))
KUAYU_API = os.environ.get("KUAYU_API", KUAYU)
CGROUP = "/kuayu-test-node"
BUSYBOX = "busybox:1"
HOLDER = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
CLONE_NEWNET = 0x40000000


def run(*argv, check=True, timeout=60, **kw):
    p = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **kw)
    if check and p.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {p.returncode}: {p.stdout}")
    return p.stdout


def read(path):
    return pathlib.Path(path).read_text().strip()


def children(pid):
    try:
        return [int(x) for x in read(f"/proc/{pid}/task/{pid}/children").split()]
    except FileNotFoundError:
        return []


def until(what, seconds=20, text="condition", every=0.02):
    """Waits until what() is true and returns its value. No connection, or an answer of another form: not yet."""
    seconds = patient(seconds)
    end = time.monotonic() + seconds
    while True:
        try:
            value, why = what(), ""
        except (ApiError, OSError, http.client.HTTPException, KeyError, TypeError) as e:
            value, why = None, f" ({e!r})"
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s{why}: {text() if callable(text) else text}")
        time.sleep(every)


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status


class Node:
    """A machine: namespaces held by a process, and a node agent that can be started, killed and started again."""

    def __init__(self, cluster, name, index):
        self.cluster, self.name, self.index = cluster, name, index
        self.address, self.cidr = f"10.77.{index}.1", f"10.78.{index}.0/24"
        self.netns = f"kynode-{name}"
        self.data = cluster.dir / name
        self.agent = None
        self.log = cluster.dir / f"{name}.log"
        self.data.mkdir()
        run("ip", "netns", "add", self.netns)
        self.holder = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--mount", "--pid", "--fork",
                                        "--kill-child", "--mount-proc", "--propagation", "slave", "/usr/bin/python3", "-c", HOLDER])
        until(lambda: self._child(), text="holder")
        self.pid = self._child()
        until(lambda: "signal.pause" in read(f"/proc/{self.pid}/cmdline"), text="holder's python")
        self.inside("ip", "link", "set", "lo", "up")

    def _child(self):
        return next(iter(children(self.holder.pid)), None)

    def enter(self, *argv):
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--", *map(str, argv)]

    def inside(self, *argv, **kw):
        return run(*self.enter(*argv), **kw)

    def start(self, *more):
        pki = self.cluster.pki(f"node-{self.name}", f"system:node:{self.name}", "system:nodes", self.address)
        argv = [KUAYU, "node", f"--server={self.cluster.url}", f"--ca={self.cluster.ca}", f"--cert={pki}.crt", f"--key={pki}.key",
                f"--name={self.name}", f"--zone={self.name[0]}", f"--address={self.address}", f"--data={self.data}",
                f"--image-store={self.cluster.images}", f"--tls-cert={pki}.crt", f"--tls-key={pki}.key",
                f"--client-ca={self.cluster.ca}", f"--listen={self.address}:10250", f"--pod-cidr={self.cidr}",
                f"--cgroup-parent={CGROUP}/{self.name}", *more]
        with open(self.log, "a") as log:
            self.agent = subprocess.Popen(self.enter(*argv), stderr=log, stdin=subprocess.DEVNULL)

    def agent_pid(self):
        """Of the agent itself (nsenter --pid forks)."""
        return next(iter(children(self.agent.pid)), self.agent.pid)

    def kill(self, sig=signal.SIGKILL):
        os.kill(self.agent_pid(), sig)
        self.agent.wait(10)
        self.agent = None

    def get(self, path):
        """From the agent's HTTPS server."""
        return self.cluster.http(self.address, 10250, "GET", path)

    def close(self):
        if self.agent and self.agent.poll() is None:
            self.kill()
        self.holder.kill()
        self.holder.wait()
        run("ip", "netns", "del", self.netns, check=False)


class Cluster:
    def __init__(self, names=("a1",)):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kynode-", dir=os.environ.get("KUAYU_TEST_DIR")))
        self.nodes, self.api = {}, None
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            self._start(names)
        except BaseException:
            self.close()
            raise

    def _start(self, names):
        self.ca = self.dir / "pki/ca.crt"
        self.url = "https://10.77.1.1:6443"
        self.images = self.dir / "images"
        run(KUAYU_API, "pki", "init", f"--dir={self.dir}/pki")
        self.admin = self.pki("admin", "admin", "system:masters")
        run(ROOT / "tools/mkimage", BUSYBOX, "--out", self.images, "--busybox", "--cmd", "sh")
        for i, name in enumerate(names):
            self.nodes[name] = Node(self, name, i + 1)
        self._wire()
        self._enter(self.nodes[names[0]].netns)
        self.start_api()

    def _wire(self):
        first = next(iter(self.nodes.values()))
        first.inside("ip", "link", "add", "wire", "type", "bridge")
        first.inside("ip", "addr", "add", f"{first.address}/16", "dev", "wire")
        first.inside("ip", "link", "set", "wire", "up")
        for n in list(self.nodes.values())[1:]:
            run("nsenter", f"--net=/run/netns/{first.netns}", "ip", "link", "add", f"to-{n.name}", "type", "veth", "peer", "name", "eth0",
                "netns", n.netns)
            first.inside("ip", "link", "set", f"to-{n.name}", "master", "wire", "up")
            n.inside("ip", "addr", "add", f"{n.address}/16", "dev", "eth0")
            n.inside("ip", "link", "set", "eth0", "up")

    def _enter(self, netns):
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
            raise OSError("setns")
        os.close(fd)

    def start_api(self):
        first = next(iter(self.nodes.values()))
        server = self.pki("api", "kube-apiserver", None, first.address, "127.0.0.1", "10.96.0.1")
        client = self.pki("api-node", "kuayu:api-node-client", "system:masters")
        argv = first.enter(KUAYU_API, "api", f"--store=sqlite:{self.dir}/store.db", "--listen=0.0.0.0:6443", f"--advertise={first.address}",
                        f"--tls-cert={server}.crt", f"--tls-key={server}.key", f"--client-ca={self.ca}", f"--node-cert={client}.crt",
                        f"--node-key={client}.key", f"--node-ca={self.ca}")
        with open(self.dir / "api.log", "a") as log:
            self.api = subprocess.Popen(argv, stderr=log, stdin=subprocess.DEVNULL)
        until(lambda: self._ready(), text=lambda: "API\n" + (self.dir / "api.log").read_text())

    def stop_api(self):
        os.kill(next(iter(children(self.api.pid)), self.api.pid), signal.SIGKILL)
        self.api.wait(10)

    def _ready(self):
        try:
            return self.request("GET", "/api/v1/namespaces/default")
        except (OSError, ApiError, ValueError, http.client.HTTPException):
            return None

    def pki(self, name, cn, org=None, *hosts):
        path = self.dir / "pki" / name
        if not path.with_suffix(".crt").exists():
            argv = [KUAYU_API, "pki", "issue", f"--dir={self.dir}/pki", f"--name={name}", f"--cn={cn}", "--client", "--days=10"]
            argv += [f"--org={org}"] if org else []
            argv += (["--server"] + [f"--san=IP:{h}" for h in hosts]) if hosts else []
            run(*argv)
        return path

    # ---- API ----
    def http(self, host, port, method, path, body=None, kind="application/json", timeout=10):
        tls = ssl.create_default_context(cafile=str(self.ca))
        tls.load_cert_chain(f"{self.admin}.crt", f"{self.admin}.key")
        c = http.client.HTTPSConnection(host, port, timeout=timeout, context=tls)
        try:
            c.request(method, path, body=json.dumps(body) if body is not None else None, headers={"Content-Type": kind})
            r = c.getresponse()
            text = r.read().decode()
        finally:
            c.close()
        if r.status >= 300:
            raise ApiError(r.status, text)
        return text

    def request(self, method, path, body=None, kind="application/json"):
        return json.loads(self.http("10.77.1.1", 6443, method, path, body, kind))

    def create(self, obj, ns="default"):
        plural = obj["kind"].lower() + "s"
        if obj["apiVersion"] == "v1":
            return self.request("POST", f"/api/v1/namespaces/{ns}/{plural}", obj)
        return self.request("POST", f"/apis/{obj['apiVersion']}/namespaces/{ns}/{plural}", obj)

    def pod(self, name, ns="default"):
        try:
            return self.request("GET", f"/api/v1/namespaces/{ns}/pods/{name}")
        except ApiError as e:
            if e.status == 404:
                return None
            raise

    def run_pod(self, name, command, node="a1", ns="default", meta=None, container=None, **spec):
        c = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", command], **(container or {})}
        spec.setdefault("terminationGracePeriodSeconds", 2)
        return self.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **(meta or {})},
                            "spec": {"nodeName": node, "containers": [c], **spec}}, ns)

    def delete_pod(self, name, ns="default", grace=None):
        """Also when it has just gone by itself (by a controller, or a deletion that was under way)."""
        q = "" if grace is None else f"?gracePeriodSeconds={grace}"
        try:
            return self.request("DELETE", f"/api/v1/namespaces/{ns}/pods/{name}{q}")
        except ApiError as e:
            if e.status != 404:
                raise
            return None

    def wait_phase(self, name, phase, seconds=20):
        def there():
            p = self.pod(name)
            return p if p and p.get("status", {}).get("phase") == phase else None
        return until(there, seconds, lambda: f"{name} {phase}: {json.dumps((self.pod(name) or {}).get('status'), indent=1)}\n{self.logs()}")

    def wait_ready(self, name, ready=True, seconds=20):
        def there():
            p = self.pod(name)
            for c in (p or {}).get("status", {}).get("conditions", []):
                if c["type"] == "Ready" and (c["status"] == "True") == ready:
                    return p
        return until(there, seconds, lambda: f"{name} ready={ready}: {json.dumps((self.pod(name) or {}).get('status'), indent=1)}\n{self.logs()}")

    def wait_gone(self, name, seconds=20):
        until(lambda: self.pod(name) is None, seconds, lambda: f"{name} gone: {json.dumps(self.pod(name), indent=1)}\n{self.logs()}")

    def log(self, name, ns="default", container="main", node="a1", query=""):
        return self.nodes[node].get(f"/containerLogs/{ns}/{name}/{container}{query}")

    def wait_log(self, name, text, seconds=15, **kw):
        def there():
            try:
                got = self.log(name, **kw)
            except (ApiError, OSError, http.client.HTTPException):
                return None
            last[:] = [got]
            return got if text in got else None
        last = []
        return until(there, seconds, lambda: f"log of {name} with {text!r}: {last!r}\n{self.logs()}")

    def logs(self):
        return "".join(f"--- {n.name}\n" + "\n".join(n.log.read_text().splitlines()[-40:]) for n in self.nodes.values() if n.log.exists())

    def close(self):
        if self.api and self.api.poll() is None:
            self.stop_api()
        for n in self.nodes.values():
            n.close()
        ctypes.CDLL(None).setns(self.home, CLONE_NEWNET)
        os.close(self.home)
        for d in sorted(glob.glob(f"/sys/fs/cgroup/*{CGROUP}/**/", recursive=True), key=len, reverse=True):
            try:
                os.rmdir(d)
            except OSError:
                pass
        if os.environ.get("KEEP"):
            print("kept", self.dir, file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
