# SPDX-License-Identifier: Apache-2.0
"""What users were told is done, and the watcher of a pod that must never run twice.

The ledger keeps creating ConfigMaps (at any API server) and MES orders (at any gateway, by idempotency key) and remembers what
was acknowledged; verify() then asks every API server and every database member for all of it. The witness is a
StatefulSet of one whose container writes a line each 50 ms to a folder that outlives its domain's power."""
import http.client
import itertools
import json
import threading
import time
from pathlib import Path

from lab import product
from lab.factory import PORT
from lab.util import LabError, SOURCE, run, wait_for

WITNESS_GAP_S = 0.05
WITNESS = """
apiVersion: v1
kind: Service
metadata: {name: witness}
spec: {clusterIP: None, selector: {app: witness}, ports: [{port: 9}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: witness}
spec:
  serviceName: witness
  replicas: 1
  selector: {matchLabels: {app: witness}}
  template:
    metadata: {labels: {app: witness}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: witness
        image: labshell:1
        command: [sh, -c]
        args: ['f=/witness/$POD_UID-$(cat /proc/sys/kernel/random/uuid); while :; do read up idle </proc/uptime; echo $up; usleep 50000; done >$f']
        env:
        - name: POD_UID
          valueFrom: {fieldRef: {fieldPath: metadata.uid}}
        volumeMounts: [{name: out, mountPath: /witness}]
      volumes:
      - name: out
        hostPath: {path: /srv/witness, type: DirectoryOrCreate}
"""


def build_shell_image(lab):
    run(SOURCE / "tools/mkimage", "labshell:1", "--out", lab.images, "--busybox", "--cmd", "sh", timeout=120)


class Ledger:
    def __init__(self, lab, period_s=0.1):
        self.lab, self.period_s = lab, period_s
        self.objects, self.orders = [], []  # acknowledged
        self.errors = {"objects": 0, "orders": 0}
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._loop, args=(f,), daemon=True) for f in (self._object, self._order)]

    def start(self):
        for t in self.threads:
            t.start()

    def stop(self):
        self.stopped.set()
        for t in self.threads:
            t.join(15)

    def _loop(self, act):
        domains = itertools.cycle(self.lab.domains)
        for number in itertools.count():
            if self.stopped.wait(self.period_s):
                return
            act(next(domains), number)

    def _object(self, domain, number):
        name = f"ledger-{number}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": str(number)}}
        try:
            status, _ = self.lab.cluster.request(domain, "POST", "/api/v1/namespaces/default/configmaps", body)
        except (OSError, http.client.HTTPException, LabError):
            status = 0
        if status == 201:
            self.objects.append(name)
        else:
            self.errors["objects"] += 1

    def _order(self, domain, number):
        key = f"ledger-{number}"
        body = json.dumps({"product": "shirt", "quantity": 1, "source": "ledger", "machines": ["ledger-1"]})
        c = http.client.HTTPConnection(self.lab.machine(domain).address, PORT, timeout=3)
        try:
            c.request("POST", "/api/orders", body, {"Content-Type": "application/json", "Idempotency-Key": key})
            status = c.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            c.close()
        if status in (200, 201):
            self.orders.append(key)
        else:
            self.errors["orders"] += 1

    def grows(self, timeout=30):
        """Both kinds are acknowledged again at every domain in turn."""
        objects, orders = len(self.objects), len(self.orders)
        wait_for("objects and orders are acknowledged again", lambda: len(self.objects) > objects + 5 and len(self.orders) > orders + 5,
                 timeout, [d.machine.log(u) for d in self.lab.domains.values() for u in ("api", "gateway")])

    def missing(self):
        """Texts naming what was acknowledged and is not there (or is there twice), at any domain."""
        objects, orders, found = list(self.objects), list(self.orders), []
        for domain in self.lab.domains:
            names = {o["metadata"]["name"] for o in self.lab.cluster.get("/api/v1/namespaces/default/configmaps", domain, 20)["items"]}
            found += [f"ConfigMap {n} at the API server of {domain}" for n in objects if n not in names]
        members = product.members(self.lab)
        if len(members) != 3:
            found.append(f"only {len(members)} database members are ready")
        for member in members:
            rows = [r[0] for r in product.sql(self.lab, member, "SELECT o.idem_key FROM work_orders w JOIN orders o ON o.id = w.order_id WHERE o.source = 'ledger'")]
            have = set(rows)
            found += [f"order {k} at {member}" for k in orders if k not in have]
            if len(have) != len(rows):
                found.append(f"{len(rows) - len(have)} orders are doubled at {member}")
        return found


class Witness:
    def __init__(self, lab):
        self.lab = lab

    def start(self):
        self.lab.cluster.apply(WITNESS)

    def node(self):
        pods = [p for p in product.pods(self.lab, "app%3Dwitness") if product.is_ready(p)]
        return pods[0]["spec"]["nodeName"] if pods else None

    def lives(self):
        """[(first, last, name)] of each container that ever ran, in seconds since the host's start."""
        found = []
        for domain in self.lab.domains.values():
            for path in Path(domain.machine.data, "witness").glob("*"):
                lines = path.read_text().split()
                if len(lines) > 1:
                    found.append((float(lines[0]), float(lines[-1]), f"{domain.machine.name}:{path.name}"))
        return sorted(found)

    def twice(self):
        """Texts naming pairs that ran at the same time."""
        lives = self.lives()
        return [f"{n1} until {e1} and {n2} from {s2}" for (s1, e1, n1), (s2, e2, n2) in itertools.combinations(lives, 2) if s2 <= e1]

    def beats(self, timeout=30):
        """It runs somewhere and writes."""
        wait_for("the singleton runs", lambda: any(time.clock_gettime(time.CLOCK_BOOTTIME) - last < 1 for _, last, _ in self.lives()), timeout,
                 product.node_logs(self.lab))
