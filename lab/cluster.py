# SPDX-License-Identifier: Apache-2.0
"""The platform seen from the host: etcd's and the API servers' health, kubectl, waits for full health."""
import http.client
import json
import ssl
import time

from lab.units import CSI_SOCKET, HEALTH_PORT
from lab.util import LabError, run, wait_for

APPLY_TRIES = 3


class Cluster:
    def __init__(self, lab):
        self.lab = lab
        self._tls = None

    # ---- HTTPS ----
    def _context(self):
        if not self._tls:
            self._tls = ssl.create_default_context(cafile=str(self.lab.pki.ca))
            self._tls.load_cert_chain(str(self.lab.pki.folder / "admin.crt"), str(self.lab.pki.folder / "admin.key"))
        return self._tls

    def request(self, domain, method, path, body=None, port=6443, timeout=3, content_type="application/json"):
        """(status, text) of one HTTPS request to a domain's API server (or etcd)."""
        c = http.client.HTTPSConnection(self.lab.machine(domain).address, port, timeout=timeout, context=self._context())
        try:
            c.request(method, path, body if body is None or isinstance(body, str) else json.dumps(body),
                      {"Content-Type": content_type} if body is not None else {})
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        finally:
            c.close()

    def get(self, path, domain=None, timeout=3):
        """JSON of a GET at the given domain's API server, or at the first that answers."""
        why = None
        for name in [domain] if domain else [n for n in self.lab.domains if self.lab.machine(n).on]:
            try:
                status, text = self.request(name, "GET", path, timeout=timeout)
            except OSError as e:
                why = e
                continue
            if status == 503:
                why = text[:300]
                continue
            if status != 200:
                raise LabError(f"GET {path} at {name}: {status} {text[:300]}")
            return json.loads(text)
        raise LabError(f"GET {path}: no API server answers ({why})")

    # ---- etcd ----
    def etcd_healthy(self, domain):
        status, text = self.request(domain, "GET", "/health", port=2379)
        return status == 200 and json.loads(text).get("health") == "true"

    def etcdctl(self, *argv, endpoints=None, timeout=10, check=True):
        pki = self.lab.pki
        urls = ",".join(f"https://{self.lab.machine(d).address}:2379" for d in endpoints or self.lab.domains)
        return run("env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={urls}", f"--cacert={pki.ca}", f"--cert={pki.folder}/admin.crt",
                   f"--key={pki.folder}/admin.key", "--dial-timeout=1s", f"--command-timeout={timeout}s", *argv,
                   timeout=timeout + 5, check=check)

    def etcd_leader(self):
        """Domain of the member that leads, or None."""
        for name in self.lab.domains:
            if not self.lab.machine(name).on:
                continue
            p = self.etcdctl("endpoint", "status", "-w", "json", endpoints=[name], timeout=3, check=False)
            if p.returncode == 0 and p.stdout.strip():
                s = json.loads(p.stdout)[0]["Status"]
                if s["leader"] and s["leader"] == s["header"]["member_id"]:
                    return name
        return None

    # ---- roles ----
    def _role_ready(self, domain, role):
        machine = self.lab.machine(domain)
        if role == "etcd":
            return self.etcd_healthy(domain)
        if role == "api":
            return self.request(domain, "GET", "/readyz")[0] == 200
        if role == "node":
            node = self.get(f"/api/v1/nodes/{machine.name}")
            return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]) and not any(
                t["key"].startswith("node.kubernetes.io/") for t in node["spec"].get("taints", []))
        if role == "csi":
            return machine.exec("test", "-S", CSI_SOCKET, check=False).returncode == 0
        p = machine.exec("curl", "-sf", "-m", "2", f"http://127.0.0.1:{HEALTH_PORT[role]}/healthz", check=False)
        return p.returncode == 0

    def wait_ready(self, timeout=60, domains=None, interval=0.1):
        """Every role of the domains that are on (or of the given ones) answers that it is well."""
        for role in self.lab.roles:
            for name in domains or [n for n in self.lab.domains if self.lab.machine(n).on]:
                wait_for(f"{role} of domain {name} is ready", lambda: self._role_ready(name, role), timeout,
                         [self.lab.machine(name).log(role)], interval)

    # ---- kubectl ----
    def kubectl(self, *argv, domain=None, timeout=30, check=True, binary="kubectl", **options):
        config = self.lab.dir / (f"kubeconfig-{domain}" if domain else "kubeconfig")
        return run(binary, f"--kubeconfig={config}", *argv, timeout=timeout, check=check, **options)

    def apply(self, path_or_text, domain=None):
        """Again, as a person would, when the store did not answer in time: three etcd members flush to one disk here, which at times stands for seconds."""
        text = str(path_or_text)
        argv, options = (("-f", "-"), {"input": text}) if "\n" in text else (("-f", text), {})
        for left in range(APPLY_TRIES - 1, -1, -1):
            try:
                return self.kubectl("apply", *argv, domain=domain, **options)
            except LabError as problem:
                if not left or "the store did not answer in time" not in str(problem):
                    raise
                time.sleep(1)
