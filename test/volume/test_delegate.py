# SPDX-License-Identifier: Apache-2.0
"""Delegations of folders, by the protocol (docs/protocol/volume.md): clients that are written here, so that one of them may also misbehave."""
import errno
import json
import os
import struct
import threading
import time
import unittest

from lab.util import wait_for
from test.volume import proto
from test.volume.cluster import VolumeCluster

NS = 1_000_000_000
RECALL = 6


class Client:
    """A session with every brick, on a thread each; operations go to the primary of its group."""

    def __init__(self, cluster, number):
        self.cluster, self.number, self.count, self.group = cluster, number, 0, 0
        info = json.loads(cluster.volume("info", "-o", "json"))
        self.volume = bytes.fromhex(info.get("uuid") or info["map"]["uuid"])
        self.recalled, self.pushes, self.on_recall, self.wires, self.calls = [], [], None, {}, {}
        self.dead = False
        for name, b in cluster.bricks.items():
            self.dial(name, b.listen)

    def dial(self, name, address):
        wire = proto.Wire(address, role=proto.SESSION, volume=self.volume, client=self.number, timeout=0.2)
        wire.lock = threading.Lock()
        self.wires[name] = wire
        threading.Thread(target=self.serve, args=(wire,), daemon=True).start()

    def serve(self, wire):
        last = 0
        while not self.dead and wire in self.wires.values():
            try:
                if time.monotonic() - last > 0.25:
                    last = time.monotonic()
                    with wire.lock:
                        wire.send(proto.PING)
                kind, flags, _, request, body, _ = wire.receive()
            except TimeoutError:
                continue
            except OSError:
                break
            if kind == proto.PUSH and not flags & 1:
                self.pushes.append((body[0], body[1:17], struct.unpack_from("<Q", body, 17)[0]))
                if body[0] == RECALL:
                    self.recalled.append((body[1:17], time.monotonic()))
                    if self.on_recall:
                        threading.Thread(target=self.on_recall, args=((body[1:17], 0),), daemon=True).start()
                with wire.lock:
                    wire.s.sendall(proto.HEAD.pack(proto.MAGIC, proto.PUSH, 1, 0, 0, request, wire.volume, 0, 0, 0, 0, 0))
        if not self.dead:
            wire.s.close()

    def die(self):
        """Nothing is heard of it any more, but its connections stay."""
        self.dead = True

    def close(self):
        self.dead = True
        for w in [*self.wires.values(), *self.calls.values()]:
            w.s.close()

    def call(self, name):
        if name not in self.calls:
            self.calls[name] = proto.Wire(self.cluster.bricks[name].listen, role=proto.CLIENT, volume=self.volume, client=self.number, timeout=15)
        return self.calls[name]

    def once(self, brick, kind, payload=b"", frame_flags=0, id=None, **fields):
        """(status, result or None) of one brick."""
        body = proto.operation(kind, id=id or (self.number, 0, 0), **fields)
        _, flags, status, _, answer, data = self.call(brick).ask(
            proto.OP, body, payload, group=self.group, flags=frame_flags, payload_crc=proto.payload_crc(payload) if payload else 0)
        r = proto.result(answer) if status == 0 else None
        if r is not None:
            r["payload"], r["frame_flags"] = data, flags
        return status, r

    def new_id(self):
        self.count += 1
        return self.number, 7, self.count

    def do(self, kind, change=True, seconds=15, id=None, **fields):
        """Asks until it is answered, as clients do; the result."""
        until, tried = time.monotonic() + seconds, []
        if change:
            id = id or self.new_id()
        while time.monotonic() < until:
            for brick in [n for n, b in self.cluster.bricks.items() if b.alive]:
                try:
                    status, r = self.once(brick, kind, id=id, **fields)
                except OSError as e:
                    if brick in self.calls:
                        self.calls.pop(brick).s.close()
                    tried.append(str(e))
                    continue
                if status == 0 and r["err"] != -errno.EAGAIN:
                    return r
                tried.append(status if r is None else r["err"])
            time.sleep(0.005)
        raise AssertionError(f"no answer: {tried[-6:]}")


class Delegations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = VolumeCluster(options=["--groups", "1"])
        cls.a, cls.b = Client(cls.cluster, 0xA1), Client(cls.cluster, 0xB2)
        cls.n = 0

    @classmethod
    def tearDownClass(cls):
        cls.a.close()
        cls.b.close()
        cls.cluster.close()

    def setUp(self):
        self.a.recalled.clear()
        self.a.on_recall = None
        type(self).n += 1
        self.folder = (struct.pack(">QQ", 0x1234567890ABCDEF, self.n), 0)
        r = self.b.do(proto.MKDIR, ino=proto.ROOT, name=f"d{self.n}", target=self.folder, attr={"mode": 0o755})
        self.assertEqual(r["err"], 0)

    def primary(self):
        for name, b in self.cluster.bricks.items():
            if b.alive and self.a.once(name, proto.GETATTR, ino=proto.ROOT)[0] == 0:
                return name
        return None

    def delegate(self, client=None):
        """The range of numbers."""
        r = (client or self.a).do(proto.DELEGATE, ino=self.folder)
        self.assertEqual(r["err"], 0)
        self.assertEqual(r["attr"]["ino"], self.folder)
        self.assertEqual(r["lock"][1] - r["lock"][0], 65535)
        return r["lock"]

    def born(self, client, name, number, payload=b"", **more):
        return client.do(proto.CREATE, ino=self.folder, name=name, flags=proto.NUMBERED | proto.EXCL, target=(self.folder[0], number),
                         attr={"mode": 0o100644, "uid": 1, "gid": 2, "ctime": 1000 * NS}, payload=payload, **more)

    def held_back(self, client, seconds, kind=proto.LOOKUP, **fields):
        """It is refused for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status, _ = client.once(self.primary(), kind, **fields)
            self.assertEqual(status, -errno.EAGAIN)
            time.sleep(0.02)

    def test_given_back(self):
        """B's lookup waits until A has sent what it holds back and gives the folder back; B sees all of it."""
        first, last = self.delegate()
        data = bytes(range(256)) * 20

        def drain(folder):
            time.sleep(0.3)
            self.assertEqual(self.born(self.a, "late", first + 1, data)["err"], 0)
            self.a.do(proto.UNDELEGATE, ino=folder)
        self.a.on_recall = drain
        self.assertEqual(self.born(self.a, "early", first)["err"], 0)
        self.assertEqual(self.a.recalled, [])
        start = time.monotonic()
        r = self.b.do(proto.LOOKUP, change=False, ino=self.folder, name="late")
        took = time.monotonic() - start
        self.assertEqual(r["err"], 0)
        self.assertGreater(took, 0.25)
        self.assertLess(took, 2)
        self.assertEqual(r["attr"]["ino"], (self.folder[0], first + 1))
        self.assertEqual((r["attr"]["size"], r["attr"]["mtime"], r["attr"]["uid"]), (len(data), 1000 * NS, 1))
        self.assertEqual(len(self.a.recalled), 1)
        r = self.b.do(proto.READ, change=False, ino=r["attr"]["ino"], len=1 << 20)
        self.assertEqual(r["payload"][:len(data)], data)
        self.assertEqual(self.born(self.a, "too late", first + 2)["err"], -errno.ESTALE)
        # Not at once again: the others get their turn.
        self.assertEqual(self.a.do(proto.DELEGATE, ino=self.folder)["err"], -errno.EBUSY)
        time.sleep(1.2)
        self.delegate()
        self.a.do(proto.UNDELEGATE, ino=self.folder)

    def test_what_is_held_back(self):
        """Everything of the folder, its files by whatever name, and itself by its parent; nothing else."""
        self.assertEqual(self.b.do(proto.CREATE, ino=self.folder, name="old", attr={"mode": 0o100644})["err"], 0)
        old = self.b.do(proto.LOOKUP, change=False, ino=self.folder, name="old")["attr"]["ino"]
        self.assertEqual(self.b.do(proto.LINK, ino=proto.ROOT, name=f"link{self.n}", target=old)["err"], 0)
        first, last = self.delegate()
        f, name = self.folder, f"d{self.n}"
        held = [(proto.LOOKUP, {"ino": f, "name": "x"}), (proto.GETATTR, {"ino": f}), (proto.GETATTR, {"ino": old}), (proto.READDIR, {"ino": f}),
                (proto.READ, {"ino": old, "len": 10}), (proto.LOOKUP, {"ino": proto.ROOT, "name": name}),
                (proto.LOOKUP, {"ino": proto.ROOT, "name": f"link{self.n}"}), (proto.READDIR, {"ino": proto.ROOT})]
        for kind, fields in held:
            status, r = self.b.once(self.primary(), kind, **fields)
            self.assertEqual(status, -errno.EAGAIN, (kind, fields))
        changes = [(proto.CREATE, {"ino": f, "name": "x", "attr": {"mode": 0o100644}}), (proto.UNLINK, {"ino": f, "name": "old"}),
                   (proto.SETATTR, {"ino": old, "set": 1, "attr": {"mode": 0o600}}), (proto.RMDIR, {"ino": proto.ROOT, "name": name}),
                   (proto.RENAME, {"ino": f, "name": "old", "ino2": proto.ROOT, "name2": "y"}),
                   (proto.RENAME, {"ino": proto.ROOT, "name": f"link{self.n}", "ino2": proto.ROOT, "name2": "y"}),
                   (proto.RENAME, {"ino": proto.ROOT, "name": name, "ino2": proto.ROOT, "name2": "y"}),
                   (proto.UNLINK, {"ino": proto.ROOT, "name": f"link{self.n}"}), (proto.LINK, {"ino": proto.ROOT, "name": "y", "target": old})]
        for kind, fields in changes:
            status, r = self.b.once(self.primary(), kind, id=(0xB2, 9, self.n * 100 + 1), **fields)
            self.assertEqual(status, -errno.EAGAIN, (kind, fields))
        self.assertEqual(len(self.a.recalled), 1)
        # The same is A's to do, and what does not touch the folder is everybody's.
        self.assertEqual(self.a.do(proto.LOOKUP, change=False, ino=proto.ROOT, name=name)["err"], 0)
        self.assertEqual(self.b.do(proto.GETATTR, change=False, ino=proto.ROOT)["err"], 0)
        self.assertEqual(self.b.do(proto.CREATE, ino=proto.ROOT, name=f"other{self.n}", attr={"mode": 0o100644})["err"], 0)
        self.assertEqual(self.b.do(proto.DELEGATE, ino=f)["err"], -errno.EBUSY)
        # Not B's to give back.
        self.b.do(proto.UNDELEGATE, ino=f)
        self.held_back(self.b, 0.2, ino=f, name="x")
        r = self.a.do(proto.UNLINK, ino=f, name="old", target=(f[0], 12345), flags=proto.KNOWN)
        self.assertEqual(r["err"], -errno.ESTALE)
        r = self.a.do(proto.UNLINK, ino=f, name="old", target=old, flags=proto.KNOWN | proto.TIMED, attr={"ctime": 7 * NS})
        self.assertEqual((r["err"], r["parent"]["mtime"], r["gone"]["ctime"]), (0, 7 * NS, 7 * NS))
        self.a.do(proto.UNDELEGATE, ino=f)
        self.assertEqual(self.b.do(proto.GETATTR, change=False, ino=f)["attr"]["mtime"], 7 * NS)

    def test_numbers(self):
        first, last = self.delegate()
        self.assertEqual(self.born(self.a, "one", last)["err"], 0)
        self.assertEqual(self.born(self.a, "two", last)["err"], -errno.ESTALE)
        self.assertEqual(self.born(self.a, "two", last + 1)["err"], -errno.ESTALE)
        self.assertEqual(self.born(self.a, "two", first - 1)["err"], -errno.ESTALE)
        self.assertEqual(self.born(self.a, "one", first)["err"], -errno.EEXIST)
        again = self.a.new_id()
        self.assertEqual(self.born(self.a, "two", first, b"x" * 65536, id=again)["err"], 0)
        self.assertEqual(self.born(self.a, "two", first, b"x" * 65536, id=again)["err"], 0)
        self.assertEqual(self.born(self.a, "three", first + 1, b"x" * 65537)["err"], -errno.EINVAL)
        self.assertGreater(self.delegate()[0], last)
        self.a.do(proto.UNDELEGATE, ino=self.folder)

    def test_leases_of_others(self):
        """What B keeps of the folder's files is taken back before A has it; what A keeps stays, and B gets nothing as long as A has it."""
        self.assertEqual(self.b.do(proto.CREATE, ino=self.folder, name="x", attr={"mode": 0o100644})["err"], 0)
        brick, kept = self.primary(), []
        for c in (self.a, self.b):
            status, r = c.once(brick, proto.LOOKUP, frame_flags=proto.WANT_LEASE, ino=self.folder, name="x")
            self.assertEqual(status, 0)
            kept.append(r["frame_flags"] & proto.LEASED)
        self.assertEqual(kept, [proto.LEASED] * 2)
        x = r["attr"]["ino"]
        self.a.pushes.clear(), self.b.pushes.clear()
        self.delegate()
        self.assertIn((1, *x), self.b.pushes)
        self.assertIn((1, *self.folder), self.b.pushes)
        self.assertEqual(self.a.pushes, [])
        self.a.do(proto.SETATTR, ino=x, set=1, attr={"mode": 0o600})
        self.a.do(proto.UNDELEGATE, ino=self.folder)
        r = self.b.do(proto.LOOKUP, change=False, ino=self.folder, name="x")
        self.assertEqual(r["attr"]["mode"], 0o100600)

    def test_no_session(self):
        stranger = Client(self.cluster, 0xC3)
        try:
            for w in stranger.wires.values():
                w.s.close()
            wait_for("its session has ended", lambda: stranger.do(proto.DELEGATE, ino=self.folder)["err"] == -errno.EBUSY, 5)
        finally:
            stranger.close()

    def test_silent_holder(self):
        """A does not answer the recall: its folder is taken after five seconds, and what it sends later does nothing."""
        first, last = self.delegate()
        start = time.monotonic()
        self.assertEqual(self.b.do(proto.LOOKUP, change=False, ino=self.folder, name="x")["err"], -errno.ENOENT)
        took = time.monotonic() - start
        self.assertGreater(took, 4.5)
        self.assertLess(took, 8)
        self.assertEqual(self.born(self.a, "late", first)["err"], -errno.ESTALE)

    def test_dead_holder(self):
        """A's session ends: B goes on two seconds later."""
        c = Client(self.cluster, 0xD4)
        try:
            self.delegate(c)
            self.held_back(self.b, 0.1, ino=self.folder, name="x")
            c.die()
            start = time.monotonic()
            self.assertEqual(self.b.do(proto.LOOKUP, change=False, ino=self.folder, name="x")["err"], -errno.ENOENT)
            took = time.monotonic() - start
            self.assertGreater(took, 1)
            self.assertLess(took, 4)
        finally:
            c.close()

    def test_dialled_anew(self):
        """Told again on its new connection."""
        self.delegate()
        name = self.primary()
        self.held_back(self.b, 0.1, ino=self.folder, name="x")
        self.assertEqual(len(self.a.recalled), 1)
        self.a.wires.pop(name).s.close()
        self.a.dial(name, self.cluster.bricks[name].listen)
        wait_for("it is told again", lambda: len(self.a.recalled) == 2, 3)
        self.a.do(proto.UNDELEGATE, ino=self.folder)
        self.assertEqual(self.b.do(proto.LOOKUP, change=False, ino=self.folder, name="x")["err"], -errno.ENOENT)

    def test_new_primary(self):
        """It knows whose the folder is, and so does a backup that is asked to answer."""
        first, last = self.delegate()
        old = self.primary()
        for name in self.cluster.bricks:
            if name != old:
                status, _ = self.b.once(name, proto.LOOKUP, ino=self.folder, name="x", frame_flags=proto.ANY_MEMBER)
                self.assertEqual(status, -errno.ESTALE)
        self.cluster.kill(old)
        wait_for("there is a new primary", lambda: self.primary() not in (None, old), 10)
        try:
            self.held_back(self.b, 0.3, ino=self.folder, name="x")
            wait_for("A is told", lambda: len(self.a.recalled) == 1, 3)
            self.assertEqual(self.born(self.a, "x", first)["err"], 0)
            self.a.do(proto.UNDELEGATE, ino=self.folder)
            self.assertEqual(self.b.do(proto.LOOKUP, change=False, ino=self.folder, name="x")["attr"]["ino"], (self.folder[0], first))
        finally:
            self.cluster.restart(old)
            self.cluster.wait_healed()
            for c in (self.a, self.b):
                c.dial(old, self.cluster.bricks[old].listen)


class OverGroups(unittest.TestCase):
    """Another client is a mount, and the folder's parent, or where its files come from, is another group's: the steps of intents wait as well."""

    def setUp(self):
        self.cluster = VolumeCluster(options=["--groups", "8"])
        self.addCleanup(self.cluster.close)
        self.mnt = self.cluster.mount()
        self.a = Client(self.cluster, 0xA1)
        self.addCleanup(self.a.close)
        self.folder, self.group = None, 0

    def found(self, ino, name):
        """(inode, group of the folder that has this name). A folder is known in its own group only; the root's names are."""
        for self.a.group in range(8):
            r = self.a.do(proto.LOOKUP, change=False, ino=ino, name=name)
            if r["err"] == 0:
                return r["attr"]["ino"], self.a.group
        raise AssertionError(f"{name} is nowhere")

    def elsewhere(self):
        """A new folder in another group than the root's; its path."""
        for i in range(40):
            path = self.mnt / f"d{time.monotonic_ns()}"
            path.mkdir()
            (path / "seed").write_text("x")
            folder, parent = self.found(proto.ROOT, path.name)
            _, self.group = self.found(folder, "seed")
            (path / "seed").unlink()
            if self.group != parent:
                self.folder, self.a.group = folder, self.group
                return path
        raise AssertionError("all in one group")

    def delegate(self, then):
        def drain(folder):
            time.sleep(0.4)
            then()
            self.a.do(proto.UNDELEGATE, ino=folder)
        def given():  # the mount may have had it; then it is recalled, and given to nobody for a second
            self.a.do(proto.GETATTR, change=False, ino=self.folder)
            r = self.a.do(proto.DELEGATE, ino=self.folder)
            return r["lock"][0] if r["err"] == 0 else None
        self.a.on_recall = drain
        return wait_for("the folder is given", given, 8, interval=0.1)

    def born(self, name, number):
        r = self.a.do(proto.CREATE, ino=self.folder, name=name, flags=proto.NUMBERED | proto.EXCL, target=(self.folder[0], number),
                      attr={"mode": 0o100644, "ctime": NS}, payload=b"born")
        self.assertEqual(r["err"], 0)

    def test_steps(self):
        path = self.elsewhere()
        number = self.delegate(lambda: self.born("f", number))
        with self.assertRaises(OSError) as e:  # empty as far as the brick knows
            path.rmdir()
        self.assertEqual(e.exception.errno, errno.ENOTEMPTY)
        self.assertEqual((path / "f").read_text(), "born")
        (self.mnt / "other").write_text("other")
        number = self.delegate(lambda: self.born("g", number))
        start = time.monotonic()
        os.rename(self.mnt / "other", path / "g")
        self.assertGreater(time.monotonic() - start, 0.35)
        self.assertLess(time.monotonic() - start, 3)
        self.assertEqual((path / "g").read_text(), "other")
        self.delegate(lambda: None)
        os.rename(path, self.mnt / "moved")
        self.assertEqual(sorted(os.listdir(self.mnt / "moved")), ["f", "g"])


if __name__ == "__main__":
    unittest.main()
