# SPDX-License-Identifier: Apache-2.0
"""From the event files of machines and offices (JSON lines, see examples/mes/machines.c and source.c) and from what the database holds
afterwards to the figures of the demo. Knows nothing of the platform: only its users' own records count.

Times in events are wall-clock milliseconds of one machine, so the programs' clocks agree."""
import glob
import json
import os

DURING_S = 10.0  # orders placed within so long of the cut count as "during", unless the run says otherwise
LATE_MS = 1000.0


def read_events(folder, pattern):
    """All whole lines of FOLDER/PATTERN, in file order. A line cut by a kill is left out."""
    events = []
    for path in sorted(glob.glob(os.path.join(folder, pattern))):
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.startswith("{") and line.endswith("}\n"):
                    events.append(json.loads(line))
    return events


def percentile(values, p):
    """Nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-len(ordered) * p // 100) - 1))]


class Run:
    """One run. cut_ms: when the power was cut. stored_orders: {member: [idem_key, ...]} with repeats as the tables hold them;
    stored_reports: [(machine, seq), ...] as the table holds them."""

    def __init__(self, folder, cut_ms, stored_orders, stored_reports, during_s=DURING_S, warm_up_s=0.0):
        self.cut_ms, self.during_s, self.warm_up_s = cut_ms, during_s, warm_up_s
        self.machines = read_events(folder, "machines-*.jsonl")
        self.offices = read_events(folder, "orders-*.jsonl")
        self.stored_orders = stored_orders
        self.stored_reports = stored_reports

    def dispatches(self):
        """[(t0 ms, delay ms)]: from the office sending the order to the machine's first receipt."""
        placed = {e["key"]: e["t0"] for e in self.offices if e["ev"] == "placed"}
        first = {}
        for e in self.machines:
            if e["ev"] in ("order", "order-again") and e["key"] not in first:
                first[e["key"]] = e["t"]
        return sorted((placed[k], t - placed[k]) for k, t in first.items() if k in placed)

    def dispatch_ms(self):
        end_ms = self.cut_ms + self.during_s * 1000
        groups = {"before": [], "during": [], "after": []}
        dispatches = self.dispatches()
        for t0, delay in dispatches:
            if t0 < dispatches[0][0] + self.warm_up_s * 1000:
                continue  # the machines are still connecting
            groups["before" if t0 < self.cut_ms else "during" if t0 < end_ms else "after"].append(delay)
        return {name: {"p50": rounded(percentile(v, 50)), "p99": rounded(percentile(v, 99)), "longest": rounded(max(v, default=None)),
                       "n": len(v)} for name, v in groups.items()}

    def orders(self):
        """Acknowledged orders that one of the members does not have, or has twice, or that a machine took twice."""
        acked = {e["key"] for e in self.offices if e["ev"] == "order"}
        lost, doubled = set(), set()
        for keys in self.stored_orders.values():
            seen = set()
            for k in keys:
                (doubled if k in seen else seen).add(k)
            lost |= acked - seen
        taken = set()
        for e in self.machines:
            if e["ev"] == "order":
                who = (e["m"], e["key"])
                if who in taken:
                    doubled.add(e["key"])
                taken.add(who)
        undelivered = acked - {e["key"] for e in self.machines if e["ev"].startswith("order")}
        return {"acknowledged": len(acked), "lost": len(lost | undelivered), "duplicated": len(doubled)}

    def reports(self):
        sent = {}
        for e in self.machines:
            if e["ev"] == "end":
                sent[e["m"]] = e["sent"]
        stored = set(self.stored_reports)
        total = sum(sent.values())
        kept = sum(1 for m, seq in stored if m in sent and seq <= sent[m])
        late = sum(1 for e in self.machines if e["ev"] == "report" and e["t"] - e["at"] > LATE_MS)
        lost = total - kept
        return {"sent": total, "stored": kept, "lost": lost, "duplicated": len(self.stored_reports) - len(stored), "late": late,
                "success": round((total - lost) / total, 6) if total else None}

    def transactions(self):
        """As the callers saw them: orders and reports, each one transaction that its caller wants committed."""
        done = [e for e in self.offices if e["ev"] == "order"] + [e for e in self.machines if e["ev"] == "report"]
        given_up = [e for e in self.offices if e["ev"] == "failed"] + [e for e in self.machines if e["ev"] == "dropped"]
        return {"tried": len(done) + len(given_up), "committed": len(done), "failed": len(given_up),
                "retried": sum(e["tries"] - 1 for e in done) + sum(e.get("tries", 1) - 1 for e in given_up)}

    def recovery_reports_s(self):
        """From the cut until the slowest machine's first sample taken after it is acknowledged; None when one never was."""
        first = {}
        for e in self.machines:
            if e["ev"] == "report" and e["at"] >= self.cut_ms and e["m"] not in first:
                first[e["m"]] = e["t"]
        names = {e["m"] for e in self.machines}
        if not names or names - set(first):
            return None
        return rounded((max(first.values()) - self.cut_ms) / 1000, 3)

    def recovery_orders_s(self):
        """From the cut until each office has had an order acknowledged that it placed after the cut; the slowest office's."""
        first, offices = {}, set()
        for e in self.offices:
            if e["ev"] == "end":
                continue
            office = e["key"].rsplit("-", 2)[0]
            offices.add(office)
            if e["ev"] == "order" and e["t0"] >= self.cut_ms:
                first[office] = min(first.get(office, e["t"]), e["t"])
        if not offices or offices - set(first):
            return None
        return rounded((max(first.values()) - self.cut_ms) / 1000, 3)

    def result(self, recovery_pods_s=None, recovery_database_s=None):
        return {"orders": self.orders(), "reports": self.reports(), "dispatch_ms": self.dispatch_ms(),
                "recovery_s": {"reports": self.recovery_reports_s(), "orders": self.recovery_orders_s(), "pods": recovery_pods_s,
                               "database": recovery_database_s},
                "transactions": self.transactions()}

    def acked_per_second(self):
        """{site: {whole second relative to the cut: reports acknowledged}}; the site is the text before the machine's last '-'."""
        counts = {}
        for e in self.machines:
            if e["ev"] == "report":
                site = counts.setdefault(e["m"].rsplit("-", 1)[0], {})
                second = int((e["t"] - self.cut_ms) // 1000)
                site[second] = site.get(second, 0) + 1
        return counts


def rounded(v, digits=1):
    return None if v is None else round(v, digits)
