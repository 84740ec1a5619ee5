# SPDX-License-Identifier: Apache-2.0
"""tools/mkimage: the layout other tools read, the same bytes for the same inputs, and images that run."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIG = {"ociVersion": "1.0.0", "root": {"path": "rootfs"}, "process": {"terminal": False, "cwd": "/"},
          "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
          "linux": {"namespaces": [{"type": t} for t in ("pid", "mount", "ipc", "uts", "network")]}}


def mkimage(*args):
    return subprocess.run([os.path.join(SOURCE, "tools/mkimage"), *args], capture_output=True, text=True, timeout=120)


class MakeImage(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="kdb-mkimage-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def make(self, image, *args):
        p = mkimage(image, "--out", self.dir, *args)
        self.assertEqual(p.returncode, 0, p.stderr)
        return p.stdout.split()[1]

    def run_in(self, image, *argv):
        """The output of argv in a container of the image."""
        name, tag = image.split(":")
        bundle = os.path.join(self.dir, "bundle-" + name)
        subprocess.run(["umoci", "unpack", "--image", f"{self.dir}/{name}:{tag}", bundle], check=True, capture_output=True)
        config = json.loads(json.dumps(CONFIG))
        config["process"].update(args=list(argv), user={"uid": 0, "gid": 0}, env=["PATH=/usr/bin:/bin"])
        with open(os.path.join(bundle, "config.json"), "w") as f:
            json.dump(config, f)
        # crun refuses hybrid cgroups: in a mount namespace of its own the second hierarchy is out of sight
        script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun run --bundle \"$1\" \"$2\""
        p = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", bundle, f"kdb-test-{name}-{os.getpid()}"],
                           capture_output=True, text=True, timeout=60)
        self.assertEqual(p.returncode, 0, p.stderr)
        return p.stdout

    def test_layout_is_read_by_skopeo(self):
        self.make("shell:1", "--busybox", "--entrypoint", "/bin/sh", "--env", "A=b", "--also-tag", "2")
        for tag in "12":
            out = subprocess.run(["skopeo", "inspect", "--config", f"oci:{self.dir}/shell:{tag}"], check=True, capture_output=True)
            config = json.loads(out.stdout)["config"]
            self.assertEqual(config["Entrypoint"], ["/bin/sh"])
            self.assertIn("A=b", config["Env"])

    def test_same_inputs_same_bytes(self):
        first = self.make("shell:1", "--busybox", "--compress", "gzip")
        layer = self.layer("shell")
        before = os.stat(layer).st_mtime_ns
        self.assertEqual(self.make("shell:1", "--busybox", "--compress", "gzip"), first)
        self.assertEqual(os.stat(layer).st_mtime_ns, before, "the layer was written again")
        self.assertEqual(self.make("other:1", "--busybox", "--compress", "gzip"), first)

    def layer(self, name):
        with open(f"{self.dir}/{name}/index.json") as f:
            digest = json.load(f)["manifests"][0]["digest"]
        with open(f"{self.dir}/{name}/blobs/{digest.replace(':', '/')}") as f:
            digest = json.load(f)["layers"][0]["digest"]
        return f"{self.dir}/{name}/blobs/{digest.replace(':', '/')}"

    def test_tag_moves_and_garbage_goes(self):
        path = os.path.join(self.dir, "note.txt")
        for text in ("one", "two"):
            with open(path, "w") as f:
                f.write(text)
            self.make("note:1", "--busybox", "--file", f"{path}:/note", "--gc")
        with open(f"{self.dir}/note/index.json") as f:
            self.assertEqual(len(json.load(f)["manifests"]), 1)
        self.assertEqual(len(os.listdir(f"{self.dir}/note/blobs/sha256")), 4)  # manifest, config, two layers
        self.assertEqual(self.run_in("note:1", "cat", "/note"), "two")

    def test_binary_and_package_run(self):
        self.make("tool:1", "--binary", "/usr/bin/openssl:/usr/bin/ssl", "--package", "bash", "--package", "gawk", "--package", "grep",
                  "--mkdir", "/data:1777", "--account", "app:77:78:/data")
        out = self.run_in("tool:1", "bash", "-c",
                          "ssl version && awk 'BEGIN {print 6 * 7}' && sh -c 'echo sh' && grep ^app: /etc/passwd")
        self.assertRegex(out, r"OpenSSL 3.*\n42\nsh\napp:x:77:78:app:/data:/bin/sh\n")

    def test_refusals(self):
        for args, word in ((["Name:1"], "NAME:TAG"), (["a:1", "--package", "no-such-package"], "not installed"),
                           (["a:1", "--binary", "/no/such"], "no such file"), (["a:1", "--file", "x"], "SRC:DST")):
            p = mkimage(args[0], "--out", self.dir, *args[1:])
            self.assertEqual(p.returncode, 1)
            self.assertIn(word, p.stderr)


if __name__ == "__main__":
    unittest.main()
