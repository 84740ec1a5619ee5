# SPDX-License-Identifier: Apache-2.0
"""`kuayu csi` with a mount command, and its three services as Python stubs."""
import ctypes
import importlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import grpc

from test.waiting import patient

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUAYU = os.environ.get("KUAYU", str(ROOT / "build/src/cli/kuayu"))
FAKE = ROOT / "test/csi/fake_mount"
FUSE = ROOT / "build/bench/storage/bench-passthrough"
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18


def own_mounts():
    """From here on this thread and its children have mounts of their own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare; tests of mounts need root")


def load_messages(folder):
    subprocess.run(["protoc", f"--proto_path={ROOT}/proto", f"--python_out={folder}", f"{ROOT}/proto/csi.proto"], check=True)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("csi_pb2")
    finally:
        sys.path.remove(str(folder))


def mount_points():
    with open("/proc/self/mountinfo") as f:
        return [line.split()[4] for line in f]


def wait_for(what, seconds, why):
    seconds = patient(seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {why() if callable(why) else why}")


class Driver:
    """Everything lies in one folder; volumes of the fake are folders in `volumes`."""

    def __init__(self, volumes=("factory",), command=None, prefix=(), fuse=False):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kuayu-csi-"))
        self.volumes, self.state, self.pods = self.dir / "volumes", self.dir / "state", self.dir / "pods"
        self.command, self.prefix, self.proc = command or FAKE, list(prefix), None
        self.env = dict(os.environ, FAKE_VOLUMES=str(self.volumes), FAKE_FUSE=str(FUSE) if fuse else "")
        for d in [self.volumes, self.pods] + [self.volumes / v for v in volumes]:
            d.mkdir()
        self.endpoint = f"unix://{self.dir}/csi.sock"
        self.pb = load_messages(self.dir)
        self.log = self.dir / "csi.log"

    def start(self, *more):
        said = self.log.read_text().count("serving ") if self.log.exists() else 0
        with open(self.log, "a") as log:
            self.proc = subprocess.Popen([*self.prefix, KUAYU, "csi", f"--endpoint={self.endpoint}", "--node-id=a1", f"--state={self.state}",
                                          f"--mount-command={self.command}", "--store=fake:", *more], stderr=log,
                                         env=self.env)
        wait_for(lambda: self.proc.poll() is not None or self.log.read_text().count("serving ") > said, 10, self.log.read_text)
        self.channel = grpc.insecure_channel(self.endpoint)  # not before: it would back off for seconds
        if self.proc.poll() is not None or not self.up():
            raise AssertionError(self.log.read_text())
        return self

    def up(self):
        try:
            return self.call("Identity", "Probe").ready.value
        except grpc.RpcError:
            return False

    def stop(self, sig=signal.SIGTERM):
        self.channel.close()
        self.proc.send_signal(sig)
        return self.proc.wait(10)

    def call(self, service, method, **fields):
        request, answer = getattr(self.pb, method + "Request"), getattr(self.pb, method + "Response")
        stub = self.channel.unary_unary(f"/csi.v1.{service}/{method}", request_serializer=request.SerializeToString,
                                        response_deserializer=answer.FromString)
        for name, value in fields.items():
            if isinstance(value, dict) and name in ("parameters", "volume_context"):
                fields[name] = [self.pb.StringPair(key=k, value=v) for k, v in value.items()]
        return stub(request(**fields), timeout=30)

    def capability(self, mode="MULTI_NODE_MULTI_WRITER", block=False):
        c = self.pb.VolumeCapability()
        c.access_mode.mode = self.pb.VolumeCapability.AccessMode.Mode.Value(mode)
        (c.block if block else c.mount).SetInParent()
        return c

    def fake_pid(self, volume="factory"):
        return int((self.volumes / f"{volume}.calls").read_text().splitlines()[-1].split()[0])

    def freeze_fake(self):
        """SIGSTOP, and all its threads have stopped: a question that one of them still read and did not answer would hold its asker in the
        kernel, past SIGKILL; those that nobody read do not."""
        pid = self.fake_pid()
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: all(t.joinpath("stat").read_text().rsplit(")", 1)[1].split()[0] == "T" for t in pathlib.Path(f"/proc/{pid}/task").iterdir()),
                 5, "the fake file system's threads do not stop")

    def mounts_made(self, volume="factory"):
        calls = self.volumes / f"{volume}.calls"
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    def close(self):
        if self.proc and self.proc.poll() is None:
            self.stop()
        for path in sorted((p for p in mount_points() if p.startswith(str(self.dir))), reverse=True):
            subprocess.run(["umount", "-l", path], check=False)
        time.sleep(0.3)  # the fakes see it and end
        shutil.rmtree(self.dir, ignore_errors=True)
