# SPDX-License-Identifier: Apache-2.0
"""The platform's units of a domain: command lines of etcd and the roles of kuayu. Paths are those inside the machine."""
from lab.util import KUAYU

ROLES = ("etcd", "api", "controller", "scheduler", "brick", "csi", "node", "gateway")
ETC = "/etc/kuayu"
SERVICE_CIDR, POD_CIDR = "10.96.0.0/16", "10.78.0.0/16"
HEALTH_PORT = {"controller": 10257, "scheduler": 10259, "gateway": 10260, "brick": 7711}
CSI_SOCKET, BRICK_PORT, BRICK_DATA = "/run/kuayu/csi.sock", 7710, "/var/lib/kuayu/brick"


def etcd(domain, domains):
    """Heartbeat 50 ms and election 500 ms: ten times the round trip of the lab's links, and a dead leader is replaced in a second."""
    me = domain.machine
    own = f"https://{me.address}"
    return [
        "/usr/bin/etcd", f"--name={domain.name}", "--data-dir=/var/lib/kuayu/etcd",
        f"--listen-client-urls={own}:2379,https://127.0.0.1:2379", f"--advertise-client-urls={own}:2379",
        f"--listen-peer-urls={own}:2380", f"--initial-advertise-peer-urls={own}:2380",
        "--initial-cluster=" + ",".join(f"{d.name}=https://{d.machine.address}:2380" for d in domains),
        "--initial-cluster-state=new", "--initial-cluster-token=kuayu-lab",
        "--client-cert-auth", f"--trusted-ca-file={ETC}/ca.crt", f"--cert-file={ETC}/etcd.crt", f"--key-file={ETC}/etcd.key",
        "--peer-client-cert-auth", f"--peer-trusted-ca-file={ETC}/ca.crt", f"--peer-cert-file={ETC}/etcd.crt",
        f"--peer-key-file={ETC}/etcd.key", "--heartbeat-interval=50", "--election-timeout=500", "--pre-vote",
        "--quota-backend-bytes=2147483648", "--logger=zap", "--log-level=warn",
    ]


def kube_settings(domain, domains, who):
    """The own domain's API server first, then the others."""
    servers = [domain] + [d for d in domains if d is not domain]
    return ["--server=" + ",".join(f"https://{d.machine.address}:6443" for d in servers), f"--ca={ETC}/ca.crt",
            f"--cert={ETC}/{who}.crt", f"--key={ETC}/{who}.key"]


def store_uri(domain, domains):
    """The own domain's etcd member first, then the others."""
    return "etcd:" + ",".join(f"https://{d.machine.address}:2379" for d in [domain] + [d for d in domains if d is not domain])


def store_tls(who):
    return [f"--store-ca={ETC}/ca.crt", f"--store-cert={ETC}/{who}.crt", f"--store-key={ETC}/{who}.key"]


def brick(domain, domains):
    me = domain.machine
    return [KUAYU, "brick", f"--data={BRICK_DATA}", f"--node={me.name}", f"--domain={domain.name}", f"--listen={me.address}:{BRICK_PORT}",
            f"--store={store_uri(domain, domains)}", *store_tls("volume"), f"--metrics=127.0.0.1:{HEALTH_PORT['brick']}"]


def csi(domain, domains):
    """Its mounts are in the machine's namespace and end with it."""
    options = ",".join([*store_tls("volume"), f"--domain={domain.name}"])
    return [KUAYU, "csi", f"--endpoint=unix://{CSI_SOCKET}", f"--node-id={domain.machine.name}", f"--store={store_uri(domain, domains)}",
            "--state=/var/lib/kuayu/csi", f"--mount-option={options}"]


def volume(domain, domains, verb, *words):
    """A `kuayu volume` command, run in a domain."""
    return [KUAYU, "volume", verb, *words, "--store", store_uri(domain, domains), *store_tls("volume")]


def api(domain, domains):
    return [
        KUAYU, "api", f"--store={store_uri(domain, domains)}", *store_tls("api-etcd"),
        "--listen=0.0.0.0:6443", f"--advertise={domain.machine.address}", f"--tls-cert={ETC}/api.crt", f"--tls-key={ETC}/api.key",
        f"--client-ca={ETC}/ca.crt", f"--token-file={ETC}/tokens.csv", f"--service-cidr={SERVICE_CIDR}",
        f"--node-cert={ETC}/api-node.crt", f"--node-key={ETC}/api-node.key", f"--node-ca={ETC}/ca.crt",
    ]


def controller(domain, domains):
    return [KUAYU, "controller", *kube_settings(domain, domains, "controller"), f"--identity={domain.machine.name}",
            f"--pod-cidr={POD_CIDR}", f"--csi-endpoint=unix://{CSI_SOCKET}"]


def scheduler(domain, domains):
    return [KUAYU, "scheduler", *kube_settings(domain, domains, "scheduler"), f"--identity={domain.machine.name}"]


def node(domain, domains, images):
    me = domain.machine
    return [
        KUAYU, "node", *kube_settings(domain, domains, "node"), f"--name={me.name}", f"--zone={domain.name}",
        f"--address={me.address}", "--data=/var/lib/kuayu/node", f"--image-store={images}", f"--tls-cert={ETC}/node.crt",
        f"--tls-key={ETC}/node.key", f"--client-ca={ETC}/ca.crt", "--listen=0.0.0.0:10250", f"--service-cidr={SERVICE_CIDR}",
        f"--csi-endpoint=unix://{CSI_SOCKET}",
    ]


def gateway(domain, domains):
    me = domain.machine
    return [KUAYU, "gateway", *kube_settings(domain, domains, "gateway"), f"--node={me.name}", f"--zone={domain.name}",
            f"--address={me.address}", "--data=/var/lib/kuayu/gateway"]
