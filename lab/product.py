# SPDX-License-Identifier: Apache-2.0
"""The product on the lab: images, `kubectl apply -f examples/mes/`, waiting until all of it is well, SQL at each database member."""
import base64
import json
import os
import subprocess

from lab import units
from lab.factory import PORT, Factory, gateways_of
from lab.util import SOURCE, LabError, run, wait_for, with_log

MANIFESTS = SOURCE / "examples/mes"
STORAGE = SOURCE / "examples/csi/storage.yaml"
VOLUME = "factory"
IMAGE_BUILDERS = ("examples/mes/build-image", "examples/mariadb/build-image")


def start_images(lab):
    """Builds the images offline, from what is installed and built; what has not changed is not built again. Runs beside what
    follows; finish_images() waits for it."""
    return [subprocess.Popen([SOURCE / b, lab.images], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                for b in IMAGE_BUILDERS if os.access(SOURCE / b, os.X_OK)]


def finish_images(builders):
    for b in builders:
        out, _ = b.communicate(timeout=300)
        if b.returncode:
            raise LabError(f"{b.args[0]}: status {b.returncode}: {out.strip()[-800:]}")


def pods(lab, selector, domain=None):
    return lab.cluster.get(f"/api/v1/namespaces/default/pods?labelSelector={selector}", domain)["items"]


def is_ready(pod):
    return "deletionTimestamp" not in pod["metadata"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def node_logs(lab):
    return [d.machine.log("node") for d in lab.domains.values() if d.machine.on]


def all_ready(lab):
    """Every Deployment and StatefulSet has what it asks for."""
    for kind in ("deployments", "statefulsets"):
        for o in lab.cluster.get(f"/apis/apps/v1/namespaces/default/{kind}")["items"]:
            s = o.get("status", {})
            if s.get("observedGeneration", 0) < o["metadata"].get("generation", 1) or s.get("readyReplicas", 0) != o["spec"]["replicas"]:
                raise LabError(f"{kind} {o['metadata']['name']}: {s.get('readyReplicas', 0)} of {o['spec']['replicas']} ready")
    return True


def wait_all_ready(lab, timeout, interval=0.2):
    try:
        wait_for("all pods are ready", lambda: all_ready(lab), timeout, interval=interval)
    except LabError as e:
        table = lab.cluster.kubectl("get", "pods", "-A", "-o", "wide", check=False)
        raise LabError(with_log(f"{e}\n{table.stdout or table.stderr}", *node_logs(lab))) from None


def gateway_answers(lab, domain):
    return run("curl", "-sf", "-m", "2", f"http://{lab.machine(domain).address}:{PORT}/readyz", check=False).returncode == 0


def wait_gateways(lab, timeout):
    for domain in lab.domains:
        if lab.machine(domain).on:
            wait_for(f"the MES answers at the gateway of domain {domain}", lambda: gateway_answers(lab, domain), timeout,
                     [lab.machine(domain).log("gateway")], 0.2)


def volume(lab, verb, *words, domain="a", check=True):
    """`kuayu volume VERB WORDS`, run in a domain."""
    return lab.exec(domain, *units.volume(lab.domains[domain], list(lab.domains.values()), verb, *words), check=check, timeout=20)


def make_volume(lab):
    """One brick a domain, three copies; claims of the class in STORAGE are folders on it."""
    bricks = [f"{d.machine.name}:{units.BRICK_DATA}" for d in lab.domains.values()]
    wait_for("the volume can be created", lambda: volume(lab, "create", VOLUME, "replica", "3", *bricks), 20,
             [d.machine.log("brick") for d in lab.domains.values()], 0.2)
    wait_for("the volume starts", lambda: volume(lab, "start", VOLUME), 20, [d.machine.log("brick") for d in lab.domains.values()], 0.2)
    lab.cluster.apply(STORAGE)


def shift_reports(lab, domain, of=""):
    """(domain, line, name) -> check sum of the newest shift reports (of one domain), as the gateway of a domain lists them."""
    p = run("curl", "-sf", "-m", "10", f"http://{lab.machine(domain).address}:{PORT}/api/v1/shift-reports?limit=5000&domain={of}")
    return {(r["domain"], r["line"], r["name"]): r["sum"] for r in json.loads(p.stdout)["reports"]}


def deploy(lab, say=lambda text: None, builders=None, timeout=120):
    make_volume(lab)
    say(f"the volume {VOLUME} has a copy in each domain")
    finish_images(builders or start_images(lab))
    say("images are built")
    say("kubectl apply -f examples/mes/")
    lab.cluster.apply(MANIFESTS)
    wait_all_ready(lab, timeout)
    say("database members and MES servers are ready")
    wait_gateways(lab, 30)
    say("the MES answers at every domain's gateway")


def start_factory(lab, **options):
    factory = Factory(lab, "product", lambda domain: gateways_of(lab, domain), **options)
    factory.start()
    return factory


# ---- database ----
def secret(lab, name, key):
    return base64.b64decode(lab.cluster.get(f"/api/v1/namespaces/default/secrets/{name}")["data"][key]).decode()


def service_ip(lab, name):
    return lab.cluster.get(f"/api/v1/namespaces/default/services/{name}")["spec"]["clusterIP"]


def members(lab):
    """Pod name -> (address, domain) of the database members that are ready."""
    found = {}
    for p in pods(lab, "app%3Dmariadb"):
        if is_ready(p):
            node = p["spec"]["nodeName"]
            found[p["metadata"]["name"]] = (p["status"]["podIP"], next(d.name for d in lab.domains.values() if d.machine.name == node))
    return found


def sql(lab, member, text, database="mes", timeout=30):
    """Rows as lists of texts, read at one member (its pod's name) after all commits that were acknowledged anywhere before."""
    address, domain = members(lab)[member]
    password = secret(lab, "mariadb", "app-password")
    p = lab.machine(domain).exec("mariadb", "--no-defaults", "-N", "-B", "-umes", f"-h{address}", "-e",
                                 f"SET SESSION wsrep_sync_wait=1; {text}", database, env={**os.environ, "MYSQL_PWD": password}, timeout=timeout)
    return [line.split("\t") for line in p.stdout.splitlines()]


def look_around(lab, bare):
    config = lab.dir / "kubeconfig"
    first = lab.machine("a").address
    lines = ["", f"  export KUBECONFIG={config}", "  kubectl get nodes,pods -o wide"]
    if not bare:
        lines += [f"  MES page:  http://{first}:{PORT}/   (any domain: 10.77.1.1, 10.77.2.1, 10.77.3.1)",
                  f"  database:  ./dev lab exec a mysql -h {service_ip(lab, 'mariadb')} -u mes -p{secret(lab, 'mariadb', 'app-password')} mes"]
    lines += ["  ./dev lab status | off b | on b | cut a b | heal a b | exec a ps aux | down", f"  logs: {lab.dir}/log/MACHINE/UNIT.log", ""]
    return "\n".join(lines)
