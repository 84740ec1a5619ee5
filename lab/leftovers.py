# SPDX-License-Identifier: Apache-2.0
"""What a lab owns on the host, found by the names it gives: its processes, its interface, its control groups, its loop
devices, its mounts. sweep() removes what a crashed run left; remains() proves that nothing is there."""
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from lab.machine import CGROUP, cgroup_trees
from lab.util import BUILD

INTERFACE = "kuayu-lab"
PROGRAMS = ("lab-wire", "lab-domain")
SYSTEM_FOLDERS = ("/var/lib/kuayu", "/etc/kuayu")  # mount points on the host, empty
MEMORY_DISKS = Path("/dev/shm/kuayu-lab")
LOCK = Path("/run/lock/kuayu-lab.lock")  # held by the one lab that runs
RECORD = "made.json"  # which of them this lab made


def _processes(folder):
    """Processes of this lab: its two programs that name its folder, and all in its control groups."""
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            argv = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if Path(argv[0].decode(errors="replace")).name in PROGRAMS and any(str(folder).encode() + b"/" in a for a in argv):
            found.add(int(entry))
    for tree in cgroup_trees():
        for where, _, _ in os.walk(f"{tree}{CGROUP}"):
            try:
                found.update(int(p) for p in Path(where, "cgroup.procs").read_text().split())
            except OSError:
                pass
    return found


def _groups():
    return [f"{tree}{CGROUP}" for tree in cgroup_trees() if os.path.isdir(f"{tree}{CGROUP}")]


def _loops(folder):
    found = []
    for loop in os.listdir("/sys/block"):
        try:
            backing = Path(f"/sys/block/{loop}/loop/backing_file").read_text().strip()
        except OSError:
            continue
        if backing.startswith((f"{folder}/", f"{MEMORY_DISKS}/")):
            found.append(f"/dev/{loop}")
    return found


def _mounts(folder):
    with open("/proc/self/mounts") as f:
        return [line.split()[1] for line in f if f" {folder}/" in line]


def remains(folder):
    """Texts that name what is left of the lab in folder; empty when it left nothing."""
    left = [f"process {p} ({_name(p)})" for p in _processes(folder)]
    if os.path.exists(f"/sys/class/net/{INTERFACE}"):
        left.append(f"interface {INTERFACE}")
    left += [f"control group {g}" for g in _groups()]
    left += [f"loop device {d}" for d in _loops(folder)] + [f"mount {m}" for m in _mounts(folder)]
    if MEMORY_DISKS.exists():
        left.append(f"folder {MEMORY_DISKS}")
    try:
        names = os.listdir("/run/netns")
    except OSError:
        names = []
    left += [f"network namespace {n}" for n in names if n.startswith("kuayu-lab")]
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    left += [f"nftables {t}" for t in rules.splitlines() if "kuayu" in t]
    return left


def _name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def remove_groups():
    for group in _groups():
        for where, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(where)
            except OSError:
                pass


def sweep(folder):
    """Removes what an earlier run in this folder left when it was killed; leaves a lab that is running alone."""
    with open(LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        sweep_locked(folder)


def sweep_locked(folder):
    """The same for who holds the lock."""
    for attempt in range(60):
        processes = _processes(folder)
        for pid in processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        remove_groups()
        if not processes and not _groups():
            break
        time.sleep(0.1)
    for mount in reversed(_mounts(folder)):
        subprocess.run(["umount", "-l", mount], capture_output=True)
    for loop in _loops(folder):
        subprocess.run(["losetup", "-d", loop], capture_output=True)
    if os.path.exists(f"/sys/class/net/{INTERFACE}"):
        subprocess.run(["ip", "link", "del", INTERFACE], capture_output=True)
    remove_system_folders(folder)
    shutil.rmtree(MEMORY_DISKS, ignore_errors=True)


def make_system_folders(folder):
    """Mount points a machine needs on the host; those that were not there are written down in folder, to be removed again."""
    made = [f for f in SYSTEM_FOLDERS if not os.path.isdir(f)]
    (folder / RECORD).write_text(json.dumps(made))
    for path in made:
        os.mkdir(path)


def remove_system_folders(folder):
    try:
        made = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return
    for path in made:
        try:
            os.rmdir(path)
        except OSError:
            pass  # someone put something in: it is theirs now
    (folder / RECORD).unlink()
