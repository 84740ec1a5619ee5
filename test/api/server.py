# SPDX-License-Identifier: Apache-2.0
"""Starts `kuayu api` (and etcd) on free loopback ports for tests, with certificates of `kuayu pki`; ends them whatever happens."""
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from test.waiting import free_port, patient

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KUAYU = os.environ.get("KUAYU", os.path.join(ROOT, "build/src/cli/kuayu"))
KUBECTLS = [p for p in ("/usr/bin/kubectl", os.path.join(ROOT, ".cache/kubectl-debian/usr/bin/kubectl")) if os.path.exists(p)]


def wait_for(what, seconds, why):
    """Calls what() until it returns something true. An answer that is none, or not of the expected form, counts as "not yet"."""
    until, last = time.monotonic() + patient(seconds), ""
    while time.monotonic() < until:
        try:
            got, last = what(), ""
        except (AttributeError, IndexError, KeyError, TypeError, OSError) as e:
            got, last = None, " (%r)" % e
        if got:
            return got
        time.sleep(0.05)
    raise AssertionError("not within %s s: %s%s" % (patient(seconds), why() if callable(why) else why, last))


class Pki:
    def __init__(self, folder):
        self.dir = folder
        self.run("init")
        self.run("issue", "--name=server", "--cn=kube-apiserver", "--san=DNS:localhost,IP:127.0.0.1,IP:127.0.0.11,IP:127.0.0.12,IP:127.0.0.13", "--server", "--client")
        self.run("issue", "--name=admin", "--cn=admin", "--org=system:masters")

    def run(self, verb, *args):
        subprocess.run([KUAYU, "pki", verb, "--dir=" + self.dir, *args], check=True, timeout=20)

    def file(self, name):
        return os.path.join(self.dir, name)


class Etcd:
    """Members of one etcd cluster."""

    def __init__(self, folder, count):
        self.procs, self.args, self.folder = [], [], folder
        self.ports = [(free_port(), free_port()) for _ in range(count)]
        cluster = ",".join("m%d=http://127.0.0.1:%d" % (i, p[1]) for i, p in enumerate(self.ports))
        for i, (client, peer) in enumerate(self.ports):
            self.args.append([
                "etcd", "--name=m%d" % i, "--data-dir=%s/etcd%d" % (folder, i), "--unsafe-no-fsync",
                "--listen-client-urls=http://127.0.0.1:%d" % client, "--advertise-client-urls=http://127.0.0.1:%d" % client,
                "--listen-peer-urls=http://127.0.0.1:%d" % peer, "--initial-advertise-peer-urls=http://127.0.0.1:%d" % peer,
                "--initial-cluster=" + cluster, "--initial-cluster-token=t%d" % os.getpid(), "--heartbeat-interval=100",
                "--election-timeout=1000"])
            self.procs.append(None)
            self.start(i)

    def start(self, i):
        with open(os.path.join(self.folder, "etcd%d.log" % i), "ab") as log:
            self.procs[i] = subprocess.Popen(self.args[i], stdout=log, stderr=log)

    def uri(self, first=0):
        order = self.ports[first:] + self.ports[:first]
        return "etcd:" + ",".join("http://127.0.0.1:%d" % p[0] for p in order)

    def kill(self, i):
        self.procs[i].kill()
        self.procs[i].wait(10)

    def stop(self):
        for p in self.procs:
            p.kill()
        for p in self.procs:
            p.wait(10)


class Server:
    """One `kuayu api`."""

    def __init__(self, folder, pki, store, *options, address="127.0.0.1", port=None):
        self.port = port or free_port()
        self.address = address
        self.url = "https://%s:%d" % (address, self.port)
        self.pki = pki
        self.folder = folder
        self.log_path = os.path.join(folder, "api-%s-%d.log" % (address, self.port))
        self.args = [KUAYU, "api", "--store=" + store, "--listen=%s:%d" % (address, self.port), "--advertise=" + address, "--tls-cert=" + pki.file("server.crt"),
                     "--tls-key=" + pki.file("server.key"), "--client-ca=" + pki.file("ca.crt"), *options]
        self.kubeconfig = os.path.join(folder, "kubeconfig-%s-%d" % (address, self.port))
        pki.run("kubeconfig", "--name=admin", "--server=" + self.url, "--out=" + self.kubeconfig)
        self.tls = ssl.create_default_context(cafile=pki.file("ca.crt"))
        self.tls.load_cert_chain(pki.file("admin.crt"), pki.file("admin.key"))
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.proc = subprocess.Popen(self.args, stdout=log, stderr=log)

    def ready(self, seconds=20):
        wait_for(lambda: self.proc.poll() is None and self.call("GET", "/readyz")[0] == 200 and
                 self.call("GET", "/api/v1/namespaces/default/services/kubernetes")[0] == 200, seconds, lambda: "server ready: " + self.log())
        return self

    def log(self):
        with open(self.log_path) as f:
            return f.read()[-3000:]

    def open(self, method, path, body=None, headers=None, timeout=10, tls=None):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        all_headers = {"Content-Type": "application/json"} if body is not None else {}
        all_headers.update(headers or {})
        req = urllib.request.Request(self.url + path, body, all_headers, method=method)
        return urllib.request.urlopen(req, timeout=timeout, context=tls or self.tls)

    def call(self, method, path, body=None, headers=None, timeout=10, tls=None):
        """(status, parsed or text); status 0 = no connection."""
        try:
            with self.open(method, path, body, headers, timeout, tls) as r:
                status, data = r.status, r.read()
        except urllib.error.HTTPError as e:
            status, data = e.code, e.read()
        except (urllib.error.URLError, OSError):
            return 0, None
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data.decode(errors="replace")

    def watch(self, path, timeout=10, headers=None):
        """Yields events until the server ends the watch or nothing comes for `timeout` seconds."""
        with self.open("GET", path, timeout=timeout, headers=headers) as r:
            for line in r:
                yield json.loads(line)

    def kubectl(self, *args, binary=None, stdin=None, ok=True, timeout=30):
        env = dict(os.environ, KUBECONFIG=self.kubeconfig, HOME=self.folder)
        p = subprocess.run([binary or KUBECTLS[0], *args], input=stdin, capture_output=True, text=True, timeout=timeout, env=env)
        if ok and p.returncode != 0:
            raise AssertionError("kubectl %s: %d\n%s%s" % (" ".join(args), p.returncode, p.stdout, p.stderr))
        return p.stdout + (p.stderr if not ok else "")

    def kill(self):
        self.proc.kill()
        self.proc.wait(10)

    def stop(self):
        if self.proc.poll() is None:
            self.proc.terminate()
            try:
                self.proc.wait(10)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait(10)
                raise AssertionError("the server did not stop within 10 s of SIGTERM")
        return self.proc.returncode


class Fixture:
    """A folder, a CA and one server on SQLite, for a test class."""

    def __init__(self, *options, store=None):
        self.folder = tempfile.mkdtemp(prefix="kuayu-api-")
        try:
            self.pki = Pki(os.path.join(self.folder, "pki"))
            with open(os.path.join(self.folder, "tokens"), "w") as f:
                f.write('secret-token,machine,1,"system:nodes,other"\n')
            self.server = Server(self.folder, self.pki, store or "sqlite:" + os.path.join(self.folder, "store.db"),
                                 "--token-file=" + os.path.join(self.folder, "tokens"),
                                 *[o.replace("PKI/", self.pki.dir + "/") for o in options])
            self.server.ready()
        except BaseException:
            self.close()
            raise

    def close(self):
        try:
            if hasattr(self, "server"):
                self.server.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
