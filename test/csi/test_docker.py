# SPDX-License-Identifier: Apache-2.0
"""The Docker volume plugin by its protocol (HTTP with JSON over its socket), and with a real dockerd where one is installed."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from test.csi.driver import FAKE, FUSE, KUAYU, mount_points, own_mounts, wait_for


def setUpModule():
    own_mounts()


class Plugin:
    def __init__(self, folder, name="host1", socket=None):
        self.dir = pathlib.Path(folder)
        self.socket = pathlib.Path(socket or self.dir / f"{name}.sock")
        self.state, self.log = self.dir / name, self.dir / f"{name}.log"
        (self.dir / "volumes/factory").mkdir(parents=True, exist_ok=True)
        self.proc = None

    def start(self):
        said = self.log.read_text().count("serving ") if self.log.exists() else 0
        with open(self.log, "a") as log:
            self.proc = subprocess.Popen([KUAYU, "docker-volume", f"--socket={self.socket}", "--volume=factory", f"--state={self.state}",
                                          f"--mount-command={FAKE}", "--store=fake:"], stderr=log,
                                         env=dict(os.environ, FAKE_VOLUMES=str(self.dir / "volumes"), FAKE_FUSE=str(FUSE)))
        wait_for(lambda: self.log.read_text().count("serving ") > said or self.proc.poll() is not None, 10, self.log.read_text)
        assert self.proc.poll() is None, self.log.read_text()
        return self

    def stop(self, sig=signal.SIGTERM):
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(sig)
            return self.proc.wait(10)
        return None

    def post(self, call, body=None, raw=None):
        p = subprocess.run(["curl", "-s", "--max-time", "20", "--unix-socket", str(self.socket), "-w", "\n%{http_code} %{content_type}", "-X", "POST",
                            "-d", raw if raw is not None else json.dumps(body or {}), f"http://plugin/{call}"], capture_output=True, text=True)
        text, _, tail = p.stdout.rpartition("\n")
        assert p.returncode == 0, p
        status, kind = tail.split(" ", 1)
        assert kind.startswith("application/vnd.docker.plugins.v1"), tail
        return int(status), json.loads(text)

    def ok(self, call, **body):
        status, answer = self.post(call, body)
        assert (status, answer.get("Err", "")) == (200, ""), (call, status, answer)
        return answer


class DockerVolumeTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="kuayu-docker-")
        self.plugins = []
        self.addCleanup(self.clean)
        self.p = self.plugin()

    def plugin(self, name="host1", socket=None):
        p = Plugin(self.dir, name, socket).start()
        self.plugins.append(p)
        return p

    def clean(self):
        for p in self.plugins:
            p.stop()
        for m in sorted((m for m in mount_points() if m.startswith(self.dir)), reverse=True):
            subprocess.run(["umount", "-l", m], check=False)
        time.sleep(0.2)
        shutil.rmtree(self.dir, ignore_errors=True)

    def test_protocol(self):
        p = self.p
        self.assertEqual(p.ok("Plugin.Activate"), {"Implements": ["VolumeDriver"]})
        self.assertEqual(p.ok("VolumeDriver.Capabilities"), {"Capabilities": {"Scope": "global"}})
        self.assertEqual(p.ok("VolumeDriver.List")["Volumes"], [])
        for _ in range(2):
            p.ok("VolumeDriver.Create", Name="reports", Opts={"mode": "0770", "size": "10G"})
        self.assertEqual([v["Name"] for v in p.ok("VolumeDriver.List")["Volumes"]], ["reports"])
        one = p.ok("VolumeDriver.Get", Name="reports")["Volume"]
        self.assertEqual((one["Name"], one["Status"]), ("reports", {"kuayuVolume": "factory", "bytes": 10 << 30}))
        at = pathlib.Path(p.ok("VolumeDriver.Mount", Name="reports", ID="abc")["Mountpoint"])
        self.assertEqual(str(at), one["Mountpoint"])
        self.assertEqual(p.ok("VolumeDriver.Path", Name="reports")["Mountpoint"], str(at))
        self.assertEqual(at.stat().st_mode & 0o7777, 0o770)
        (at / "x").write_text("hello")
        p.ok("VolumeDriver.Unmount", Name="reports", ID="abc")
        self.assertEqual(pathlib.Path(self.dir, "volumes/factory/.kuayu-docker/volumes/reports/x").read_text(), "hello")
        p.ok("VolumeDriver.Remove", Name="reports")
        self.assertEqual(p.ok("VolumeDriver.List")["Volumes"], [])
        self.assertFalse(at.exists())
        self.assertEqual(os.stat(p.socket).st_mode & 0o777, 0o600)

    def test_refusals(self):
        for call in ("Get", "Path", "Mount", "Remove"):
            status, answer = self.p.post(f"VolumeDriver.{call}", {"Name": "nothing"})
            self.assertEqual((status, answer["Err"]), (500, "no such volume: nothing"))
        for opts, part in (({"colour": "red"}, "there are mode=0770 and size=10G"), ({"size": "many"}, "size=many"), ({"mode": "rwx"}, "octal")):
            status, answer = self.p.post("VolumeDriver.Create", {"Name": "a", "Opts": opts})
            self.assertEqual(status, 500)
            self.assertIn(part, answer["Err"])
        self.p.ok("VolumeDriver.Create", Name="a", Opts={"size": "1G"})
        self.assertIn("exists", self.p.post("VolumeDriver.Create", {"Name": "a", "Opts": {"size": "2G"}})[1]["Err"])
        self.assertIn("name is missing", self.p.post("VolumeDriver.Create", {})[1]["Err"])
        self.assertEqual(self.p.post("VolumeDriver.Fly", {})[0], 404)
        self.assertEqual(self.p.post("VolumeDriver.Get", raw="{")[0], 400)
        self.assertEqual(self.p.post("VolumeDriver.Get", raw="[]")[0], 400)
        self.p.ok("VolumeDriver.Create", Name="../../etc")  # a name, not a path
        at = self.p.ok("VolumeDriver.Path", Name="../../etc")["Mountpoint"]
        self.assertIn("/.kuayu-docker/volumes/h-", at)
        self.assertEqual({v["Name"] for v in self.p.ok("VolumeDriver.List")["Volumes"]}, {"a", "../../etc"})

    def test_two_hosts(self):
        other = self.plugin("host2")
        self.p.ok("VolumeDriver.Create", Name="shared")
        here = pathlib.Path(self.p.ok("VolumeDriver.Mount", Name="shared", ID="1")["Mountpoint"])
        there = pathlib.Path(other.ok("VolumeDriver.Mount", Name="shared", ID="2")["Mountpoint"])
        self.assertNotEqual(here, there)
        (here / "x").write_text("from host1")
        self.assertEqual((there / "x").read_text(), "from host1")
        # a plugin that is killed and started again, and a mount that dies
        self.p.stop(signal.SIGKILL)
        self.assertEqual((here / "x").read_text(), "from host1")
        self.p.start()
        self.assertEqual(self.p.ok("VolumeDriver.Path", Name="shared")["Mountpoint"], str(here))
        pids = subprocess.run(["pgrep", "-f", f"passthrough .* {self.p.state}/mounts/factory$"], capture_output=True, text=True, check=True)
        os.kill(int(pids.stdout), signal.SIGKILL)
        wait_for(lambda: self.p.post("VolumeDriver.Path", {"Name": "shared"})[0] == 200, 15, self.p.log.read_text)
        self.assertEqual((here / "x").read_text(), "from host1")

    @unittest.skipUnless(shutil.which("dockerd"), "dockerd is not installed: the protocol is tested above")
    def test_docker(self):
        sock = pathlib.Path("/run/docker/plugins/kuayutest.sock")
        sock.parent.mkdir(parents=True, exist_ok=True)
        self.plugin("real", sock)
        host = f"unix://{self.dir}/docker.sock"
        with open(f"{self.dir}/dockerd.log", "w") as log:
            daemon = subprocess.Popen(["dockerd", "-H", host, "--data-root", f"{self.dir}/docker", "--exec-root", f"{self.dir}/exec",
                                       "--pidfile", f"{self.dir}/docker.pid", "--iptables=false", "--bridge=none"], stdout=log, stderr=log)
        try:
            docker = lambda *a: subprocess.run(["docker", "-H", host, *a], capture_output=True, text=True, timeout=30)
            try:
                wait_for(lambda: docker("info").returncode == 0 or daemon.poll() is not None, 20, "dockerd")
            except AssertionError:
                self.skipTest("dockerd does not come up here")
            if daemon.poll() is not None:
                self.skipTest("dockerd does not start here: " + pathlib.Path(self.dir, "dockerd.log").read_text()[-300:])
            made = docker("volume", "create", "-d", "kuayutest", "-o", "size=1G", "reports")
            self.assertEqual(made.returncode, 0, made)
            self.assertIn("kuayutest", docker("volume", "ls").stdout)
            self.assertEqual(json.loads(docker("volume", "inspect", "reports").stdout)[0]["Status"]["bytes"], 1 << 30)
            with open(f"{self.dir}/image.tar", "wb") as tar:
                subprocess.run(["tar", "-C", "/", "-c", "bin/busybox"] if os.path.exists("/bin/busybox") else ["tar", "-C", "/usr", "-c", "bin/busybox"],
                               stdout=tar, check=True)
            self.assertEqual(docker("import", f"{self.dir}/image.tar", "bb").returncode, 0)
            run = lambda *words: docker("run", "--rm", "--network=none", "-v", "reports:/v", "bb", "/bin/busybox", *words)
            first = run("sh", "-c", "echo hello >/v/f")
            if first.returncode == 125:
                self.skipTest("dockerd cannot run containers here; create, list, inspect were done: " + first.stderr[-200:])
            self.assertEqual(run("cat", "/v/f").stdout, "hello\n", first)
            self.assertEqual(docker("volume", "rm", "reports").returncode, 0)
            self.assertEqual(docker("volume", "ls", "-q").stdout, "")
        finally:
            daemon.terminate()
            daemon.wait(20)
            sock.unlink(missing_ok=True)


if __name__ == "__main__":
    unittest.main()
