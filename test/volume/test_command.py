# SPDX-License-Identifier: Apache-2.0
"""`kuayu volume` as an operator uses it, on a real volume."""
import hashlib
import json
import os
import shutil
import subprocess
import time
import unittest

from lab.util import KUAYU, wait_for
from test.volume.cluster import ClusterTest, VolumeCluster


class Commands(ClusterTest):
    """Three bricks, three copies."""

    @classmethod
    def mounts(cls):
        cls.mount = cls.cluster.mount()

    def refused(self, *words):
        p = self.cluster.kuayu("volume", *words, check=False)
        self.assertNotEqual(p.returncode, 0, p.stdout)
        return p.stderr

    def test_info_and_list(self):
        info = self.cluster.volume("info")
        for text in ("Volume Name: logs", "Type: replicated", "Number of Bricks: 1 x 3 = 3", "Brick1: a1:"):
            self.assertIn(text, info)
        row = json.loads(self.cluster.kuayu("volume", "list", "-o", "json").stdout)
        self.assertEqual([(v["name"], v["kind"], v["bricks"]) for v in row], [("logs", "replicated", 3)])
        self.assertEqual({b["name"] for b in json.loads(self.cluster.kuayu("volume", "bricks", "-o", "json").stdout)}, {"a1", "b1", "c1"})

    def test_store_from_the_environment(self):
        p = subprocess.run([KUAYU, "volume", "list"], capture_output=True, text=True, env={**os.environ, "KUAYU_STORE": self.cluster.store})
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("logs", p.stdout)

    def test_refusals_say_what_to_do(self):
        self.assertIn("kuayu volume stop logs", self.refused("delete", "logs"))
        self.assertIn("started already", self.refused("start", "logs"))
        self.assertIn("there is no volume 'other'", self.refused("info", "other"))
        self.assertIn("number of 1 to 3", self.refused("set", "logs", "write-quorum", "4"))
        self.assertIn("no brick runs on node z1", self.refused("create", "x", "replica", "3", "z1:/x", "a1:/x", "b1:/x"))
        self.assertIn("unknown verb", self.refused("frobnicate"))

    def test_words_that_are_too_many(self):
        for words in (["list", "logs"], ["bricks", "x"], ["status", "logs", "x"], ["info", "logs", "x"], ["start", "logs", "x"], ["stop", "logs", "x"],
                      ["delete", "logs", "x"], ["where", "logs:/", "x"], ["top", "logs", "files", "x"]):
            p = self.cluster.kuayu("volume", *words, check=False)
            self.assertEqual(p.returncode, 2, words)
            self.assertIn(f"'{words[-1]}' is too much; usage:", p.stderr)

    def test_store_away(self):
        p = subprocess.run([KUAYU, "volume", "list", "--store", "etcd:http://127.0.0.1:9"], capture_output=True, text=True)
        self.assertEqual((p.returncode, p.stdout), (1, ""))

    def test_xattr_names(self):
        """The same errors as a local file system's."""
        here, there = self.cluster.dir / "xattrs", self.mount / "xattrs"
        for path in (here, there):
            path.touch()

        def said(path, name, value=b"x"):
            out = []
            for call in (lambda: os.setxattr(path, name, value), lambda: os.getxattr(path, name), lambda: os.removexattr(path, name)):
                try:
                    call()
                    out.append(0)
                except OSError as e:
                    out.append(e.errno)
            return out
        for name in ("user.", "trusted.", "user.x", "user." + "x" * 250, "user." + "x" * 251, "nothing.x", "user"):
            self.assertEqual(said(there, name), said(here, name), name)

    def test_where_names_bricks_and_versions(self):
        path = self.mount / "three-stripes"
        path.write_bytes(os.urandom((2 << 20) + 5))
        w = self.cluster.where(path)
        self.assertEqual((w["volume"], w["path"], w["type"], w["size"]), ("logs", "/three-stripes", "file", (2 << 20) + 5))
        self.assertEqual({b["name"] for b in w["groups"][0]["bricks"]}, {"a1", "b1", "c1"})
        self.assertIn(w["groups"][0]["primary"], w["groups"][0]["isr"])
        self.assertEqual([s["stripe"] for s in w["stripes"]], [0, 1, 2])
        self.assertTrue(all(s["version"] > 0 for s in w["stripes"]))
        before = w["stripes"]
        with open(path, "r+b") as f:
            f.seek(1 << 20)
            f.write(b"new")
        after = self.cluster.where(path)["stripes"]
        self.assertGreater(after[1]["version"], before[1]["version"])
        self.assertEqual(after[0]["version"], before[0]["version"])
        # by name, without a mount
        self.assertEqual(json.loads(self.cluster.kuayu("volume", "where", "logs:/three-stripes", "-o", "json").stdout)["number"], w["number"])
        self.assertIn("not on a mounted volume", self.refused("where", "/"))

    def test_home_domain(self):
        for domain in ("b", "c"):
            folder = self.mount / f"home-{domain}"
            self.cluster.kuayu("volume", "mkdir", "--home", domain, str(folder))
            (folder / "sub").mkdir()
            (folder / "sub" / "file").write_text("x")
            for path in (folder, folder / "sub", folder / "sub" / "file"):
                w = self.cluster.where(path)
                self.assertEqual((path, w["home"]), (path, domain))
                self.assertEqual(w["groups"][0]["bricks"][0]["domain"], domain, "the preferred primary")
        for domain in ("a", "b", "c"):  # an extended attribute, as the mount's users set it
            folder = self.mount / f"given-{domain}"
            folder.mkdir(mode=0o2750)
            os.setxattr(folder, "user.colour", b"green")
            before = folder.stat()
            os.setxattr(folder, "user.kuayu.home", domain.encode())
            after = folder.stat()
            self.assertEqual((after.st_mode, after.st_uid, after.st_gid, after.st_mtime_ns),
                             (before.st_mode, before.st_uid, before.st_gid, before.st_mtime_ns))
            self.assertEqual((os.getxattr(folder, "user.colour"), os.getxattr(folder, "user.kuayu.home")), (b"green", domain.encode()))
            (folder / "file").write_text("x")
            w = self.cluster.where(folder / "file")
            self.assertEqual((w["home"], w["groups"][0]["bricks"][0]["domain"]), (domain, domain))
            number = folder.stat().st_ino
            os.setxattr(folder, "user.kuayu.home", b"a" if domain == "b" else b"b")  # something is in it: it stays, and what is made in it goes
            self.assertEqual((folder.stat().st_ino, (folder / "file").read_text()), (number, "x"))
            (folder / "sub").mkdir()
            self.assertEqual(self.cluster.where(folder / "sub")["home"], "a" if domain == "b" else "b")
        with self.assertRaises(OSError):
            os.setxattr(folder, "user.kuayu.home", b"nowhere")
        self.assertEqual([n for n in os.listdir(self.mount) if n.startswith(".kuayu")], [])
        self.assertIn("no bricks in domain 'x'", self.refused("mkdir", "--home", "x", str(self.mount / "nowhere")))

    def test_top_counts_a_busy_file(self):
        path = self.mount / "busy"
        with open(path, "wb", buffering=0) as f:
            for _ in range(300):
                f.write(b"x" * 4096)
        number = self.cluster.where(path)["number"]
        top = json.loads(self.cluster.volume("top", "-o", "json"))
        self.assertIn(number, [f["num"] for f in top["files"]])
        self.assertTrue(top["clients"])

    def test_set_and_reset(self):
        self.cluster.volume("set", "read-policy", "local", "heal-window", "8")
        info = json.loads(self.cluster.volume("info", "-o", "json"))
        self.assertEqual(info["options"], {"read-policy": "local", "heal-window": "8"})
        self.cluster.volume("reset")
        self.assertEqual(json.loads(self.cluster.volume("info", "-o", "json"))["options"], {})


class One(unittest.TestCase):
    """One brick, no copies."""

    def test_kind_and_a_stopped_volume(self):
        with VolumeCluster(domains=("a",), replica=1, options=["--without-copies"]) as c:
            self.assertIn(": started, striped, replica 1", c.volume("status"))
            c.volume("stop")
            start = time.monotonic()
            p = c.kuayu("volume", "where", "logs:/x", check=False)
            self.assertIn("is not started: kuayu volume start logs", p.stderr)
            self.assertLess(time.monotonic() - start, 2)
            self.assertNotIn(" s left", c.volume("status"))


class Faults(unittest.TestCase):
    """Status and heal while bricks come and go; each test has its own volume."""

    def test_status_follows_a_brick_that_goes_and_comes_back(self):
        with VolumeCluster() as c:
            m = c.mount()
            c.wait_healed()
            s = c.status()
            self.assertTrue(s["in_sync"])
            self.assertEqual([b["online"] for b in s["bricks"]], [True] * 3)
            self.assertEqual(sum(b["groups_primary"] for b in s["bricks"]), len(s["groups"]))
            c.kill("b1")
            (m / "while-away").write_bytes(os.urandom(3 << 20))
            # Each group's primary finds it out by itself.
            wait_for("it is out of all groups", lambda: (lambda s: s["heal"]["members_out"] == len(s["groups"]))(c.status()), 20)
            s = c.status()
            self.assertFalse(s["in_sync"])
            self.assertEqual({x["name"]: x["online"] for x in s["bricks"]}, {"a1": True, "b1": False, "c1": True})
            self.assertIn("b1: Connection refused", c.volume("status"))
            c.restart("b1")
            out = c.volume("heal", "--wait", timeout=60)
            self.assertIn("all copies in sync", out)
            self.assertTrue(c.status()["in_sync"])

    def test_a_brick_with_a_damaged_metadata_store(self):
        """It goes on running without the volume, and says so; mounts say it once, however often they ask. Emptied, it is filled anew."""
        with VolumeCluster() as c:
            m = c.mount()
            (m / "file").write_bytes(b"x")
            c.wait_healed()
            c.shut("b1")  # a checkpoint: the store has something
            for store in c.bricks["b1"].data.rglob("data.mdb"):
                os.truncate(store, store.stat().st_size // 2)
            c.restart("b1")
            wait_for("the status says why", lambda: "is damaged: move" in c.volume("status"), 10)
            self.assertIn("nothing is healed now", c.volume("status"))
            (m / "meanwhile").write_bytes(b"y")
            wait_for("the mount says so", lambda: "brick b1 runs and does not serve it" in c.log("mount1"), 10)
            time.sleep(1)
            said = [line for line in c.log("mount1").splitlines() if "brick b1" in line]
            self.assertEqual(len(said), 1, said)
            c.kill("b1")
            c.wipe("b1")
            c.restart("b1")
            c.wait_healed(30)
            wait_for("the mount says that it is well", lambda: "brick b1 serves it again" in c.log("mount1"), 10)
            self.assertEqual([(m / f).read_bytes() for f in ("file", "meanwhile")], [b"x", b"y"])

    def test_a_brick_whose_power_failed_is_in_sync_seconds_after_its_start(self):
        """Nobody was told that it ended: links to its life of before must not be waited for until TCP tries again."""
        with VolumeCluster(network="netns") as c:
            path = c.mount(domain="c") / "file"
            path.write_bytes(b"before")
            c.wait_healed()
            c.cut("b1")
            c.kill("b1")
            path.write_bytes(b"meanwhile")
            time.sleep(14)  # TCP tries after 12.6 s and then only after 25.4 s, 200 ms doubled each time
            c.join("b1")
            shutil.rmtree(c.bricks["b1"].run_dir)
            c.restart("b1", wait=False)
            print(f"in sync {c.wait_healed(8):.1f} s after the start")
            self.assertEqual(path.read_bytes(), b"meanwhile")

    def test_scrub_finds_and_repairs_rot(self):
        with VolumeCluster() as c:
            m = c.mount()
            data = os.urandom(4 << 20)
            path = m / "victim"
            path.write_bytes(data)
            os.sync()
            c.wait_healed()
            # a flipped byte in each brick's slice, at different places
            for i, b in enumerate(c.bricks.values()):
                files = [p for p in b.data.rglob("data/**/*") if p.is_file() and p.stat().st_size >= 4 << 20]
                self.assertEqual(len(files), 1, files)
                with open(files[0], "r+b") as f:
                    f.seek((i + 1) * 500_000)
                    byte = f.read(1)
                    f.seek(-1, 1)
                    f.write(bytes([byte[0] ^ 0x40]))
            c.volume("scrub")
            deadline = time.monotonic() + 30

            def scrubs():
                return json.loads(c.volume("scrub", "status", "-o", "json"))

            while any(s["state"] == "running" for s in scrubs()) and time.monotonic() < deadline:
                time.sleep(0.1)
            self.assertGreaterEqual(sum(s["bad_blocks"] for s in scrubs()), 3)
            # each copy is whole again: every brick's file has the bytes
            def whole():
                for b in c.bricks.values():
                    f = next(p for p in b.data.rglob("data/**/*") if p.is_file() and p.stat().st_size >= 4 << 20)
                    if hashlib.sha256(f.read_bytes()[:len(data)]).digest() != hashlib.sha256(data).digest():
                        return False
                return True
            while not whole() and time.monotonic() < deadline:
                time.sleep(0.1)
            self.assertTrue(whole())
            c.remount(m)
            self.assertEqual(path.read_bytes(), data)


if __name__ == "__main__":
    unittest.main()
