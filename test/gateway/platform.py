# SPDX-License-Identifier: Apache-2.0
"""A small platform on loopback for tests: `kuayu api` with a certificate authority of its own, roles beside it, an API client.

Everything lives in a temporary folder and in processes that are killed at the end. Addresses are 127.77.x.y."""
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import time

from test.waiting import free_port, patient

SOURCE = os.environ.get("KUAYU_SOURCE") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KUAYU = os.environ.get("KUAYU_PROGRAM") or os.path.join(SOURCE, "build/src/cli/kuayu")


def wait_for(what, seconds, condition, promised=False):
    """Polls condition() until it is true and returns its value; bounded. promised: by the product, within these seconds. No connection: not yet."""
    seconds = seconds if promised else patient(seconds)
    end = time.monotonic() + seconds
    while True:
        try:
            value, why = condition(), ""
        except (OSError, http.client.HTTPException) as e:
            value, why = None, f" ({e!r})"
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}{why}")
        time.sleep(0.02)


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status


def own_network():
    """This process and what it starts get a network of their own: loopback only (all ports are free, links can be cut). Root only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)


class Platform:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="kuayu-gateway-test-")
        self.processes = {}
        self.port = free_port()
        pki = os.path.join(self.dir, "pki")
        run = lambda *a: subprocess.run([KUAYU, "pki", *a, f"--dir={pki}"], check=True, stdout=subprocess.DEVNULL)
        run("init")
        run("issue", "--name=api", "--cn=kube-apiserver", "--server", "--san=IP:127.0.0.1")
        run("issue", "--name=admin", "--cn=admin", "--org=system:masters")
        self.ca, self.cert, self.key = (os.path.join(pki, n) for n in ("ca.crt", "admin.crt", "admin.key"))
        self.start("api", "api", f"--store=sqlite:{self.dir}/store.db", f"--listen=127.0.0.1:{self.port}",
                   f"--tls-cert={pki}/api.crt", f"--tls-key={pki}/api.key", f"--client-ca={self.ca}")
        self.tls = ssl.create_default_context(cafile=self.ca)
        self.tls.load_cert_chain(self.cert, self.key)
        self.connection = None
        wait_for("the API server answers", 10, self.ready)

    def ready(self):
        """As a client would ask: /readyz also waits for the default namespaces."""
        try:
            c = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.tls)
            c.request("GET", "/readyz")
            return c.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            c.close()

    # ---- processes ----
    def start(self, name, *command, program=KUAYU):
        log = open(os.path.join(self.dir, name + ".log"), "ab")
        self.processes[name] = subprocess.Popen([program, *command], stdout=log, stderr=log, start_new_session=True)
        log.close()
        return self.processes[name]

    def role(self, name, verb, *options):
        """A client role; returns the port of its /healthz."""
        port = free_port()
        self.start(name, verb, f"--server=https://127.0.0.1:{self.port}", f"--ca={self.ca}", f"--cert={self.cert}",
                   f"--key={self.key}", f"--health-port={port}", *options)
        return port

    def log(self, name):
        with open(os.path.join(self.dir, name + ".log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def kill(self, name, sig=signal.SIGKILL):
        p = self.processes.pop(name)
        p.send_signal(sig)
        p.wait(10)

    def close(self):
        for name in reversed(list(self.processes)):
            p = self.processes[name]
            p.send_signal(signal.SIGCONT)
            p.send_signal(signal.SIGTERM if name.startswith("gateway") else signal.SIGKILL)
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait(5)
        for entry in os.listdir("/proc"):  # proxies that outlived a killed gateway
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    if entry.isdigit() and self.dir.encode() in f.read():
                        os.kill(int(entry), signal.SIGKILL)
            except (OSError, ValueError):
                pass
        if self.connection:
            self.connection.close()
        if not os.environ.get("KUAYU_TEST_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    # ---- API ----
    def call(self, method, path, body=None, content_type="application/json"):
        for attempt in range(2):
            if not self.connection:
                self.connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.tls)
            try:
                self.connection.request(method, path, json.dumps(body) if body is not None else None,
                                        {"Content-Type": content_type} if body is not None else {})
                answer = self.connection.getresponse()
                data = answer.read()
                break
            except (OSError, http.client.HTTPException):
                self.connection.close()
                self.connection = None
                if attempt:
                    raise
        if answer.status >= 300:
            raise ApiError(answer.status, data.decode(errors="replace")[:500])
        return json.loads(data)

    def get(self, path):
        return self.call("GET", path)

    def create(self, path, body):
        return self.call("POST", path, body)

    def patch(self, path, body):
        return self.call("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path):
        return self.call("DELETE", path)


def http_get(port, path):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read().decode()
    finally:
        c.close()


def metric(port, name):
    """Sum of a metric over its labels."""
    text = http_get(port, "/metrics")[1]
    return sum(float(m.group(1)) for m in re.finditer(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))
