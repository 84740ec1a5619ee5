# SPDX-License-Identifier: Apache-2.0
"""./dev demo: the factory runs over three domains, domain b loses power, later gets it back; then the same with the traditional
architecture. Result on the screen and in out/demo/: result.json, details.json, timeline.svg. Figures come from the event files of
machines and offices and from what the databases hold afterwards; only `pods` is seen by asking the new pod itself."""
import json
import shutil
import sys
import threading
import time

from lab import leftovers, measure, plot, product
from lab.core import Lab
from lab.factory import Factory
from lab.traditional import Traditional, url
from lab.util import SOURCE, LabError

OUT = SOURCE / "out/demo"
VICTIM, SURVIVORS = "b", ("a", "c")
BEFORE_S, OFF_S, AFTER_S = 45, 30, 45
WARM_UP_S = 3  # orders placed while the machines still connect do not count in dispatch delays; in everything else they do
T_BEFORE_S, T_BY_HAND_S, T_AFTER_S = 15, 20, 20
LOOK_S = 0.5  # how often it is asked whether the domain that returned is well: asking costs processor time, too
BY_HAND_REAL_S = 180
FORM = {"orders": ("acknowledged", "lost", "duplicated"), "reports": ("sent", "stored", "lost", "duplicated", "late"),
        "dispatch_ms": ("before", "during", "after"), "recovery_s": ("reports", "orders", "pods", "database"),
        "transactions": ("tried", "committed", "failed", "retried"), "shift_reports": ("written", "readable_elsewhere", "lost")}


class Screen:
    """Steps with times: when each began, and how long it took."""

    def __init__(self):
        self.start = time.monotonic()

    def say(self, text):
        print(f"[{time.monotonic() - self.start:6.1f} s] {text}", flush=True)

    def wait(self, text, seconds):
        self.say(f"{text} ({seconds} s)")
        time.sleep(seconds)


class PodWatch(threading.Thread):
    """Seconds from the cut until as many new MES pods as were lost answer; None until then."""

    def __init__(self, lab, cut):
        super().__init__(daemon=True)
        self.lab, self.cut, self.recovery_s, self.stopped = lab, cut, None, False
        before = product.pods(lab, "app%3Dmes")
        victim = lab.machine(VICTIM).name
        self.known = {p["metadata"]["uid"] for p in before}
        self.lost = sum(p["spec"].get("nodeName") == victim for p in before)
        self.answered = set()

    def run(self):
        while not self.stopped and self.recovery_s is None:
            try:
                self._look()
            except (LabError, KeyError, OSError):
                pass
            time.sleep(0.1)

    def _look(self):
        for p in product.pods(self.lab, "app%3Dmes", SURVIVORS[0]):
            uid, ip = p["metadata"]["uid"], p.get("status", {}).get("podIP")
            if uid in self.known or uid in self.answered or not ip:
                continue
            probe = self.lab.exec(SURVIVORS[0], "curl", "-sf", "-m", "1", f"http://{ip}:8080/readyz", check=False)
            if probe.returncode == 0:
                self.answered.add(uid)
        if self.lost and len(self.answered) >= self.lost:
            self.recovery_s = round(time.time() - self.cut, 3)


def database_recovery_s(run):
    """From the cut until the end of the longest silence of acknowledgements (each is a commit) at the floors that kept their
    domain, among those silences that were under way at the cut or began within 10 s of it."""
    offices = tuple(f"office-{d}-" for d in SURVIVORS)
    floors = tuple(f"{d}-" for d in SURVIVORS)
    times = sorted([e["t"] for e in run.machines if e["ev"] == "report" and e["m"].startswith(floors)]
                   + [e["t"] for e in run.offices if e["ev"] == "order" and e["key"].startswith(offices)])
    gaps = [(b - a, b) for a, b in zip(times, times[1:]) if b > run.cut_ms and a < run.cut_ms + 10000]
    return round((max(gaps)[1] - run.cut_ms) / 1000, 3) if gaps else None


def in_form(result):
    """Exactly the issue's members. The traditional system has no folder that outlives its domain, so no shift reports."""
    out = {part: {name: result[part][name] for name in names} for part, names in FORM.items() if part in result}
    out["dispatch_ms"] = {when: {p: v[p] for p in ("p50", "p99")} for when, v in out["dispatch_ms"].items()}
    return out


def keep_logs(lab, name):
    """The machines' logs, and those of the pods as far as an API server answers."""
    folder = OUT / name / "log"
    if not lab.opened:
        return
    shutil.copytree(lab.dir / "log", folder, dirs_exist_ok=True)
    if "api" not in lab.roles:
        return
    (folder / "pods").mkdir(exist_ok=True)
    try:
        for p in lab.cluster.get("/api/v1/namespaces/default/pods")["items"]:
            text = lab.cluster.kubectl("logs", p["metadata"]["name"], check=False, timeout=10).stdout
            (folder / "pods" / f"{p['metadata']['name']}.log").write_text(text)
        (folder / "events.txt").write_text(lab.cluster.kubectl("get", "events", "-A", check=False, timeout=10).stdout)
    except (LabError, OSError):
        pass


def compare_shift_reports(written, elsewhere):
    """written, elsewhere: file -> check sum, in the domain before its cut and in the others after it."""
    readable = sum(all(seen.get(file) == check for seen in elsewhere) for file, check in written.items())
    return {"written": len(written), "readable_elsewhere": readable, "lost": len(written) - readable}


# ---- the product ----
def product_run(lab, screen):
    screen.say("opening the lab: domains a, b, c, 5 ms +- 1 ms apart; starting the platform in each")
    builders = product.start_images(lab)
    lab.up()
    screen.say("etcd, api, controller, scheduler, node and gateway are ready in all domains")
    product.deploy(lab, screen.say, builders)
    factory = product.start_factory(lab)
    screen.wait("300 machines report each second, three offices order from the other cities' machines", BEFORE_S)
    watch = PodWatch(lab, 0)
    written = product.shift_reports(lab, VICTIM, lab.machine(VICTIM).name)
    cut = watch.cut = time.time()
    lab.power_off(VICTIM)
    watch.start()
    screen.say(f"domain {VICTIM} has lost power")
    try:
        screen.wait("the factory goes on", OFF_S)
    finally:
        watch.stopped = True
    screen.say(f"lost MES pods answered again after {watch.recovery_s} s" if watch.recovery_s is not None
               else f"no replacement for the {watch.lost} lost MES pod(s) answered")
    shift = compare_shift_reports(written, [product.shift_reports(lab, d, lab.machine(VICTIM).name) for d in SURVIVORS])
    screen.say(f"{shift['readable_elsewhere']} of the {shift['written']} shift reports that domain {VICTIM} wrote are read in {' and '.join(SURVIVORS)}")
    on = time.time()
    lab.power_on(VICTIM)
    screen.say(f"domain {VICTIM} has power again")
    lab.cluster.wait_ready(60, interval=LOOK_S)
    product.wait_all_ready(lab, 60, LOOK_S)
    details = {"off_s": round(on - cut, 3), "back_to_full_health_s": round(time.time() - on, 3)}
    screen.say(f"every role, pod and database member is well again, {details['back_to_full_health_s']:.1f} s after power came back")
    screen.wait("the factory goes on", AFTER_S)
    screen.say("machines and offices finish what is under way")
    factory.stop()
    factory.collect(OUT / "product")
    screen.say("comparing what was acknowledged with what each database member holds")
    names = sorted(product.members(lab))
    if len(names) != 3:
        raise LabError(f"only {len(names)} of 3 database members are ready")
    orders = {n: [r[0] for r in product.sql(lab, n, "SELECT o.idem_key FROM orders o")] for n in names}
    reports = [(m, int(s)) for m, s in product.sql(lab, names[0], "SELECT machine, seq FROM reports")]
    run = measure.Run(OUT / "product", cut * 1000, orders, reports, warm_up_s=WARM_UP_S)
    return run, {**run.result(watch.recovery_s, database_recovery_s(run)), "shift_reports": shift}, details


# ---- the traditional architecture ----
def traditional_run(lab, screen):
    screen.say(f"traditional: one MES and one primary database in domain {VICTIM}, asynchronous replica in domain a")
    lab.up()
    old = Traditional(lab)
    old.deploy()
    factory = Factory(lab, "traditional", url, buffer=False)
    factory.start()
    screen.wait("the same 300 machines and offices", T_BEFORE_S)
    cut = time.time()
    lab.power_off(VICTIM)
    screen.say(f"domain {VICTIM} has lost power")
    screen.wait(f"everything stands still until a person comes; shortened from {BY_HAND_REAL_S} s", T_BY_HAND_S)
    old.restart_by_hand()
    by_hand = time.time() - cut
    screen.say("replica promoted, MES started beside it, address moved, all by hand")
    screen.wait("the factory goes on", T_AFTER_S)
    factory.stop()
    factory.collect(OUT / "traditional")
    orders = {"promoted replica": [r[0] for r in old.rows("SELECT idem_key FROM orders")]}
    reports = [(m, int(s)) for m, s in old.rows("SELECT machine, seq FROM reports")]
    run = measure.Run(OUT / "traditional", cut * 1000, orders, reports, by_hand + measure.DURING_S, WARM_UP_S)
    return run, run.result(None, database_recovery_s(run)), {"off_s": round(by_hand, 3), "by_hand_after_s": T_BY_HAND_S,
                                                             "by_hand_after_s_in_life": BY_HAND_REAL_S}


# ---- result ----
def text_of(value, unit=""):
    return "-" if value is None else f"{value:,}{unit}" if isinstance(value, int) else f"{value:,.1f}{unit}"


def success(r):
    return "-" if not r["sent"] else f"{100 * (r['sent'] - r['lost']) / r['sent']:.2f} %"


def table(old, new):
    def both(name, get):
        return name, get(old), get(new)

    def dispatch(when):
        return both(f"order dispatch {when} the cut, p50 / p99 / longest", lambda r: " / ".join(
            text_of(r["dispatch_ms"][when][p]) for p in ("p50", "p99", "longest")) + " ms")

    rows = [dispatch(w) for w in ("before", "during", "after")]
    rows.append(both("state collection success", lambda r: success(r["reports"])))
    rows.append(both("reports sent / lost / twice / late > 1 s", lambda r: " / ".join(
        text_of(r["reports"][k]) for k in ("sent", "lost", "duplicated", "late"))))
    for kind, name in (("reports", "machine reports"), ("orders", "new orders"), ("pods", "pods"), ("database", "database")):
        rows.append(both(f"recovery of {name}", lambda r: text_of(r["recovery_s"][kind], " s")))
    rows.append(both("orders acknowledged / lost / twice", lambda r: " / ".join(
        text_of(r["orders"][k]) for k in ("acknowledged", "lost", "duplicated"))))
    rows.append(both("transactions tried / committed / failed / retried", lambda r: " / ".join(
        text_of(r["transactions"][k]) for k in ("tried", "committed", "failed", "retried"))))
    rows.append(both("shift reports of the lost domain written / read elsewhere / lost", lambda r: " / ".join(
        text_of(r["shift_reports"][k]) for k in FORM["shift_reports"]) if "shift_reports" in r else "-"))
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    lines = [f"{'':{widths[0]}}   {'traditional':>{widths[1]}}   {'product':>{widths[2]}}"]
    lines += [f"{a:{widths[0]}}   {b:>{widths[1]}}   {c:>{widths[2]}}" for a, b, c in rows]
    return "\n".join(lines)


def picture_row(title, note, run, off_s, off_text):
    seconds = [(e["t"] - run.cut_ms) / 1000 for e in run.machines]
    return {"title": title, "note": note, "begin_s": min(seconds), "end_s": max(seconds),
            "dispatches": [((t - run.cut_ms) / 1000, ms) for t, ms in run.dispatches()],
            "rates": run.acked_per_second(), "off_s": (0, off_s), "off_text": off_text}


def write_results(new, old):
    (new_run, new_result, new_details), (old_run, old_result, old_details) = new, old
    result = {"product": in_form(new_result), "traditional": in_form(old_result)}
    (OUT / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (OUT / "details.json").write_text(json.dumps({"product": {**new_result, **new_details}, "traditional": {**old_result, **old_details},
                                                  "victim": VICTIM, "machines": 300}, indent=1) + "\n")
    (OUT / "timeline.svg").write_text(plot.svg(
        "A domain loses power", "300 machines in three cities; each dot is one order, ordered in one city and received by a machine in another",
        [picture_row("kuayu", "three domains, nobody touched anything", new_run, new_details["off_s"], f"domain {VICTIM} without power"),
         picture_row("traditional", f"one central domain; a person came after {T_BY_HAND_S} s (3 minutes in life)", old_run,
                     old_details["off_s"], "central domain without power")]))
    return result


def faults(r):
    """What the product promised and did not keep."""
    promises = [(r["orders"]["lost"] == 0, f"{r['orders']['lost']} acknowledged orders lost"),
                (r["orders"]["duplicated"] == 0, f"{r['orders']['duplicated']} orders doubled"),
                (r["reports"]["lost"] == 0, f"{r['reports']['lost']} reports lost"),
                (r["reports"]["duplicated"] == 0, f"{r['reports']['duplicated']} reports stored twice"),
                (r["shift_reports"]["written"] > 0, "no shift report was written before the cut"),
                (r["shift_reports"]["lost"] == 0, f"{r['shift_reports']['lost']} shift reports lost")]
    for kind, s in r["recovery_s"].items():
        promises.append((s is not None and s <= 10, f"recovery of {kind}: {text_of(s, ' s')}"))
    return [text for kept, text in promises if not kept]


def main(argv):
    screen = Screen()
    if argv not in ([], ["--traditional-only"]):
        print("Usage: ./dev demo", file=sys.stderr)
        return 2
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    new = None
    if not argv:
        with Lab(say=screen.say, own_cpu=True) as lab:
            try:
                new = product_run(lab, screen)
            finally:
                keep_logs(lab, "product")
        screen.say("the lab is closed")
    with Lab(roles=(), say=screen.say, own_cpu=True) as lab:
        try:
            old = traditional_run(lab, screen)
        finally:
            keep_logs(lab, "traditional")
        folder = lab.dir
    left = leftovers.remains(folder)
    screen.say("nothing is left behind: no process, namespace, mount, rule, interface" if not left else "left behind: " + "; ".join(left))
    if not new:
        print(json.dumps(in_form(old[1]), indent=1))
        return 1 if left else 0
    result = write_results(new, old)
    broken = faults(result["product"])
    print(f"\n{table(old[1], new[1])}\n")
    print(f"Dispatch delays leave out the first {WARM_UP_S} s, while the machines connect; all else counts from the start. After the cut "
          "lies the return of the domain, too: Galera stands still for about a quarter of a second whenever a member joins.")
    print(f"The traditional system was restarted by hand after {T_BY_HAND_S} s; in life it takes about {BY_HAND_REAL_S} s, and loses as much more.")
    print(f"Result: {OUT}/result.json   Picture: {OUT}/timeline.svg   {time.monotonic() - screen.start:.0f} s in all")
    for text in broken:
        print(f"NOT KEPT: {text}")
    return 1 if broken or left else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as problem:
        print(f"demo: {problem}\n  all logs: {OUT}/product/log, {OUT}/traditional/log", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("demo: interrupted; the lab was closed, nothing is left behind", file=sys.stderr)
        sys.exit(130)
