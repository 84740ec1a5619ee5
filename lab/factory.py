# SPDX-License-Identifier: Apache-2.0
"""The factory: on each floor its machines and one office that orders from the machines of the other two cities. Both run outside the
platform and write what happens to them, with times, to event files of their own; the result is computed from those."""
import shutil

from lab.core import DOMAINS
from lab.util import BUILD, LabError, wait_for

MACHINES = 100  # on each floor
ORDER_INTERVAL_MS = 250  # of each office
DRAIN_S = 20
PORT = 8080
MES = BUILD / "examples/mes"


def gateways_of(lab, domain):
    """All gateways, the own domain's first: what a client of the platform is told."""
    order = [domain] + [d for d in DOMAINS if d != domain]
    return [f"http://{lab.machine(d).address}:{PORT}" for d in order]


class Factory:
    """name: prefix of the event files, so that two runs do not mix. gateways: function domain -> list of URLs."""

    def __init__(self, lab, name, gateways, buffer=True, machines=MACHINES, order_interval_ms=ORDER_INTERVAL_MS):
        self.lab, self.name, self.gateways, self.buffer = lab, name, gateways, buffer
        self.machines, self.order_interval_ms = machines, order_interval_ms

    def start(self):
        for domain in DOMAINS:
            floor, urls = self.lab.floors[domain], ",".join(self.gateways(domain))
            others = ",".join(f"{d}-" for d in DOMAINS if d != domain)
            (floor.data / self.name).mkdir(exist_ok=True)
            floor.add_unit(f"{self.name}-machines", [
                MES / "mes-machines", f"--gateways={urls}", f"--count={self.machines}", f"--prefix={domain}-", f"--site={domain}",
                f"--journal=/srv/{self.name}/journal", f"--events=/srv/{self.name}/machines-{domain}.jsonl", f"--drain={DRAIN_S}s",
                *([] if self.buffer else ["--no-buffer"])], restart=False)
            floor.add_unit(f"{self.name}-office", [
                MES / "mes-orders", f"--gateways={urls}", f"--interval={self.order_interval_ms}ms", f"--prefix=office-{domain}",
                f"--machine-prefixes={others}", f"--machines={self.machines}", f"--events=/srv/{self.name}/orders-{domain}.jsonl",
                f"--drain={DRAIN_S}s"], restart=False)

    def stop(self):
        """Offices first, so that machines still receive what was acknowledged; waits until nothing is under way."""
        self._stop("office", DRAIN_S + 10)
        self._stop("machines", DRAIN_S + 10)

    def _stop(self, what, timeout):
        """Asks all to finish what is under way, and waits for them."""
        unit = f"{self.name}-{what}"
        for floor in self.lab.floors.values():
            if floor.status()[unit]["running"]:
                floor.kill(unit, 15)
        for floor in self.lab.floors.values():
            wait_for(f"{unit} of {floor.name} ends", lambda: not floor.status()[unit]["running"], timeout, [floor.log(unit)])
            status = floor.status()[unit]["status"]
            if status:
                raise LabError(f"{unit} of {floor.name} ended with status {status}; log: {floor.log(unit)}")

    def collect(self, folder):
        """Copies the event files of all floors into folder, as lab.measure reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        for floor in self.lab.floors.values():
            for path in (floor.data / self.name).glob("*.jsonl"):
                shutil.copy(path, folder)
