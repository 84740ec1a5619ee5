# SPDX-License-Identifier: Apache-2.0
"""The CSI driver against the demands of the CSI specification: every method, what must be refused with which code, and that each call may come
twice. What csi-sanity checks, and the faults of mounts. The volumes are folders here (fake_mount); test_real.py has real ones."""
import os
import pathlib
import signal
import subprocess
import time
import unittest

import grpc

from test.csi.driver import Driver, mount_points, own_mounts, wait_for

GIB = 1 << 30


def setUpModule():
    own_mounts()


class DriverTest(unittest.TestCase):
    def setUp(self):
        self.d = Driver(("factory", "other")).start("--volume=factory")
        self.addCleanup(self.d.close)

    def refused(self, code, service, method, **fields):
        with self.assertRaises(grpc.RpcError) as caught:
            self.d.call(service, method, **fields)
        self.assertEqual(caught.exception.code(), getattr(grpc.StatusCode, code), caught.exception.details())
        self.assertTrue(caught.exception.details())

    def create(self, name="pvc-1", size=GIB, **more):
        fields = {"name": name, "capacity_range": self.d.pb.CapacityRange(required_bytes=size), "volume_capabilities": [self.d.capability()],
                  "parameters": {"volume": "factory"}, **more}
        return self.d.call("Controller", "CreateVolume", **fields).volume

    def stage(self, volume_id, staging=None):
        staging = staging or self.d.pods / "staging"
        pathlib.Path(staging).mkdir(exist_ok=True)
        self.d.call("Node", "NodeStageVolume", volume_id=volume_id, staging_target_path=str(staging), volume_capability=self.d.capability())
        return staging

    def publish(self, volume_id, target, staging=None, **more):
        self.d.call("Node", "NodePublishVolume", volume_id=volume_id, staging_target_path=str(staging or self.d.pods / "staging"),
                    target_path=str(target), volume_capability=more.pop("capability", self.d.capability()), **more)

    def unpublish(self, volume_id, target):
        self.d.call("Node", "NodeUnpublishVolume", volume_id=volume_id, target_path=str(target))

    # ---- identity ----
    def test_identity(self):
        info = self.d.call("Identity", "GetPluginInfo")
        self.assertEqual(info.name, "csi.kuayu.io")
        self.assertRegex(info.vendor_version, r"^\d+\.\d+")
        kinds = {c.WhichOneof("type"): c for c in self.d.call("Identity", "GetPluginCapabilities").capabilities}
        self.assertEqual(kinds["service"].service.type, 1)
        self.assertEqual(kinds["volume_expansion"].volume_expansion.type, 1)
        self.assertTrue(self.d.call("Identity", "Probe").ready.value)
        self.refused("UNIMPLEMENTED", "Controller", "CreateSnapshot") if hasattr(self.d.pb, "CreateSnapshotRequest") else None
        rpcs = sorted(c.rpc.type for c in self.d.call("Controller", "ControllerGetCapabilities").capabilities)
        self.assertEqual(rpcs, [1, 3, 4, 9])
        self.assertEqual(sorted(c.rpc.type for c in self.d.call("Node", "NodeGetCapabilities").capabilities), [1, 2])
        self.assertEqual(self.d.call("Node", "NodeGetInfo").node_id, "a1")
        self.assertEqual(os.stat(self.d.dir / "csi.sock").st_mode & 0o777, 0o600)

    # ---- controller ----
    def test_create_is_idempotent(self):
        a = self.create()
        self.assertEqual((a.volume_id, a.capacity_bytes), ("factory/pvc-1", GIB))
        folder = self.d.volumes / "factory/.kuayu-csi/volumes/pvc-1"
        self.assertEqual(folder.stat().st_mode & 0o7777, 0o777)
        (folder / "kept").write_text("x")
        self.assertEqual(self.create(), a)
        self.assertEqual(self.create(parameters={"volume": "factory", "csi.storage.k8s.io/pvc/name": "reports"}), a)
        self.assertEqual((folder / "kept").read_text(), "x")
        cap = self.d.capability()
        self.refused("ALREADY_EXISTS", "Controller", "CreateVolume", name="pvc-1", volume_capabilities=[cap],
                     capacity_range=self.d.pb.CapacityRange(required_bytes=2 * GIB), parameters={"volume": "factory"})
        self.refused("ALREADY_EXISTS", "Controller", "CreateVolume", name="pvc-1", volume_capabilities=[cap],
                     capacity_range=self.d.pb.CapacityRange(required_bytes=1, limit_bytes=2), parameters={"volume": "factory"})
        self.refused("ALREADY_EXISTS", "Controller", "CreateVolume", name="pvc-1", volume_capabilities=[cap],
                     capacity_range=self.d.pb.CapacityRange(required_bytes=GIB), parameters={"volume": "factory", "mode": "0700"})
        self.assertEqual(self.d.mounts_made(), 1, "one mount a volume and node")

    def test_create_names_and_parameters(self):
        long = "x" * 128
        self.assertEqual(self.create(long).volume_id, "factory/" + long)
        odd = self.create("../é/..")
        self.assertRegex(odd.volume_id, r"^factory/h-[0-9a-f]{64}$")
        self.assertEqual(self.create("../é/..").volume_id, odd.volume_id)
        self.assertEqual(self.create("m", parameters={"volume": "other", "mode": "0750"}).volume_id, "other/m")
        self.assertEqual((self.d.volumes / "other/.kuayu-csi/volumes/m").stat().st_mode & 0o7777, 0o750)
        self.assertEqual(self.create("default", parameters={}).volume_id, "factory/default")
        cap = self.d.capability()
        for fields in ({"volume_capabilities": [cap]}, {"name": "a"}, {"name": "a", "volume_capabilities": [self.d.capability(block=True)]},
                       {"name": "a", "volume_capabilities": [self.d.pb.VolumeCapability()]},
                       {"name": "a", "volume_capabilities": [cap], "parameters": {"volum": "factory"}},
                       {"name": "a", "volume_capabilities": [cap], "parameters": {"volume": "../x"}},
                       {"name": "a", "volume_capabilities": [cap], "parameters": {"mode": "rwx"}},
                       {"name": "a", "volume_capabilities": [cap], "capacity_range": self.d.pb.CapacityRange(required_bytes=2, limit_bytes=1)},
                       {"name": "a", "volume_capabilities": [cap], "volume_content_source": self.d.pb.VolumeContentSource(
                           volume=self.d.pb.VolumeContentSource.VolumeSource(volume_id="factory/m"))}):
            self.refused("INVALID_ARGUMENT", "Controller", "CreateVolume", **fields)
        self.refused("OUT_OF_RANGE", "Controller", "CreateVolume", name="a", volume_capabilities=[cap],
                     capacity_range=self.d.pb.CapacityRange(required_bytes=1 << 60))
        self.refused("UNAVAILABLE", "Controller", "CreateVolume", name="a", volume_capabilities=[cap], parameters={"volume": "nowhere"})

    def test_delete_is_idempotent(self):
        v = self.create()
        folder = self.d.volumes / "factory/.kuayu-csi"
        (folder / "volumes/pvc-1/deep/er").mkdir(parents=True)
        for _ in range(2):
            self.d.call("Controller", "DeleteVolume", volume_id=v.volume_id)
        self.assertFalse((folder / "volumes/pvc-1").exists())
        wait_for(lambda: not list((folder / "trash").iterdir()), 5, "the trash is empty")
        for there_is_none in ("factory/x", "nonsense", "factory/../..", "x/y/z", "factory/.."):
            self.d.call("Controller", "DeleteVolume", volume_id=there_is_none)
        self.refused("INVALID_ARGUMENT", "Controller", "DeleteVolume")
        self.assertEqual(self.create(size=2 * GIB).capacity_bytes, 2 * GIB, "the name is free again")

    def test_validate(self):
        v = self.create()
        got = self.d.call("Controller", "ValidateVolumeCapabilities", volume_id=v.volume_id, volume_capabilities=[self.d.capability()],
                          parameters={"volume": "factory"})
        self.assertEqual(got.confirmed.volume_capabilities[0], self.d.capability())
        got = self.d.call("Controller", "ValidateVolumeCapabilities", volume_id=v.volume_id, volume_capabilities=[self.d.capability(block=True)])
        self.assertFalse(got.HasField("confirmed"))
        self.assertIn("block", got.message)
        self.refused("INVALID_ARGUMENT", "Controller", "ValidateVolumeCapabilities", volume_capabilities=[self.d.capability()])
        self.refused("INVALID_ARGUMENT", "Controller", "ValidateVolumeCapabilities", volume_id=v.volume_id)
        self.refused("NOT_FOUND", "Controller", "ValidateVolumeCapabilities", volume_id="factory/no", volume_capabilities=[self.d.capability()])

    def test_list_and_capacity(self):
        self.assertEqual(len(self.d.call("Controller", "ListVolumes").entries), 0)
        for i in range(5):
            self.create(f"v{i}")
        first = self.d.call("Controller", "ListVolumes", max_entries=2)
        self.assertEqual([e.volume.volume_id for e in first.entries], ["factory/v0", "factory/v1"])
        rest = self.d.call("Controller", "ListVolumes", starting_token=first.next_token)
        self.assertEqual([e.volume.volume_id for e in rest.entries], ["factory/v2", "factory/v3", "factory/v4"])
        self.assertEqual((rest.next_token, rest.entries[0].volume.capacity_bytes), ("", GIB))
        self.refused("ABORTED", "Controller", "ListVolumes", starting_token="zzz")
        st = os.statvfs(self.d.volumes / "factory")
        got = self.d.call("Controller", "GetCapacity", parameters={"volume": "factory"})
        self.assertEqual(got.maximum_volume_size.value, st.f_blocks * st.f_frsize)
        self.assertGreater(got.available_capacity, 0)
        self.assertEqual(self.d.call("Controller", "GetCapacity", volume_capabilities=[self.d.capability(block=True)]).available_capacity, 0)

    def test_expand(self):
        v = self.create()
        size = self.d.pb.CapacityRange
        for want, have in ((3 * GIB, 3 * GIB), (2 * GIB, 3 * GIB)):
            got = self.d.call("Controller", "ControllerExpandVolume", volume_id=v.volume_id, capacity_range=size(required_bytes=want))
            self.assertEqual((got.capacity_bytes, got.node_expansion_required), (have, False))
        self.refused("NOT_FOUND", "Controller", "ControllerExpandVolume", volume_id="factory/no", capacity_range=size(required_bytes=1))
        self.refused("INVALID_ARGUMENT", "Controller", "ControllerExpandVolume", volume_id=v.volume_id)
        self.refused("INVALID_ARGUMENT", "Controller", "ControllerExpandVolume", capacity_range=size(required_bytes=1))
        self.refused("OUT_OF_RANGE", "Controller", "ControllerExpandVolume", volume_id=v.volume_id, capacity_range=size(required_bytes=1 << 60))

    # ---- node ----
    def test_a_volume_in_two_pods(self):
        v = self.create()
        one, two, ro = (self.d.pods / n for n in ("one", "two", "ro"))
        for _ in range(2):  # each step may come twice
            self.stage(v.volume_id)
        for _ in range(2):
            self.publish(v.volume_id, one)
            self.publish(v.volume_id, two)
            self.publish(v.volume_id, ro, readonly=True)
        (one / "x").write_text("shared")
        self.assertEqual((two / "x").read_text(), "shared")
        self.assertEqual((self.d.volumes / "factory/.kuayu-csi/volumes/pvc-1/x").read_text(), "shared")
        with self.assertRaises(OSError):
            (ro / "y").write_text("no")
        usage = {u.unit: u for u in self.d.call("Node", "NodeGetVolumeStats", volume_id=v.volume_id, volume_path=str(one)).usage}
        st = os.statvfs(one)
        self.assertEqual(usage[1].total, st.f_blocks * st.f_frsize)
        self.assertEqual(usage[2].total, st.f_files)
        for _ in range(2):
            for t in (one, two, ro):
                self.unpublish(v.volume_id, t)
                self.assertFalse(t.exists())
        for _ in range(2):
            self.d.call("Node", "NodeUnstageVolume", volume_id=v.volume_id, staging_target_path=str(self.d.pods / "staging"))
        self.assertEqual([m for m in mount_points() if str(self.d.pods) in m], [])
        self.assertEqual(self.d.mounts_made(), 1)

    def test_node_refusals(self):
        v, cap, at = self.create(), self.d.capability(), str(self.d.pods / "t")
        stage, publish = ("Node", "NodeStageVolume"), ("Node", "NodePublishVolume")
        self.refused("INVALID_ARGUMENT", *stage, staging_target_path=at, volume_capability=cap)
        self.refused("INVALID_ARGUMENT", *stage, volume_id=v.volume_id, volume_capability=cap)
        self.refused("INVALID_ARGUMENT", *stage, volume_id=v.volume_id, staging_target_path="relative", volume_capability=cap)
        self.refused("INVALID_ARGUMENT", *stage, volume_id=v.volume_id, staging_target_path=at)
        self.refused("INVALID_ARGUMENT", *stage, volume_id=v.volume_id, staging_target_path=at, volume_capability=self.d.capability(block=True))
        self.refused("NOT_FOUND", *stage, volume_id="factory/no", staging_target_path=at, volume_capability=cap)
        self.refused("FAILED_PRECONDITION", *publish, volume_id=v.volume_id, target_path=at, volume_capability=cap)
        self.refused("FAILED_PRECONDITION", *publish, volume_id=v.volume_id, target_path=at, staging_target_path=at, volume_capability=cap)
        self.refused("INVALID_ARGUMENT", *publish, volume_id=v.volume_id, staging_target_path=at, volume_capability=cap)
        self.refused("INVALID_ARGUMENT", *publish, target_path=at, staging_target_path=at, volume_capability=cap)
        self.refused("INVALID_ARGUMENT", *publish, volume_id=v.volume_id, target_path=at, staging_target_path=at)
        self.refused("INVALID_ARGUMENT", "Node", "NodeUnpublishVolume", volume_id=v.volume_id)
        self.refused("INVALID_ARGUMENT", "Node", "NodeUnpublishVolume", target_path=at)
        self.refused("INVALID_ARGUMENT", "Node", "NodeUnstageVolume", volume_id=v.volume_id)
        self.refused("INVALID_ARGUMENT", "Node", "NodeGetVolumeStats", volume_id=v.volume_id)
        self.refused("NOT_FOUND", "Node", "NodeGetVolumeStats", volume_id="factory/no", volume_path=at)
        self.refused("NOT_FOUND", "Node", "NodeGetVolumeStats", volume_id=v.volume_id, volume_path=at)
        self.stage(v.volume_id)
        self.publish(v.volume_id, at)
        self.refused("ALREADY_EXISTS", *publish, volume_id=v.volume_id, target_path=at, staging_target_path=str(self.d.pods / "staging"),
                     volume_capability=cap, readonly=True)
        self.create("another")
        self.refused("ALREADY_EXISTS", *publish, volume_id="factory/another", target_path=at, staging_target_path=str(self.d.pods / "staging"),
                     volume_capability=cap)

    def test_inline_volumes(self):
        inline = {"csi.storage.k8s.io/ephemeral": "true", "volume": "other", "path": "/shared/reports"}
        t = self.d.pods / "t"
        for _ in range(2):
            self.publish("csi-1234", t, staging="", volume_context=inline)
        (t / "x").write_text("hello")
        self.assertEqual((self.d.volumes / "other/shared/reports/x").read_text(), "hello")
        self.unpublish("csi-1234", t)
        os.symlink("/etc", self.d.volumes / "other/out")
        self.create()
        for path in ("../factory", "/shared/../../factory", "/out", "/.kuayu-csi/volumes"):
            self.refused("INVALID_ARGUMENT" if path != "../factory" and "/.." not in path else "INVALID_ARGUMENT", "Node", "NodePublishVolume",
                         volume_id="csi-1", target_path=str(t), volume_capability=self.d.capability(),
                         volume_context={**inline, "volume": "factory" if "kuayu" in path else "other", "path": path})
        self.d.stop()
        self.d.start("--no-inline")
        self.refused("INVALID_ARGUMENT", "Node", "NodePublishVolume", volume_id="csi-1", target_path=str(t),
                     volume_capability=self.d.capability(), volume_context=inline)

    # ---- faults ----
    def test_the_mount_dies(self):
        v = self.create()
        self.stage(v.volume_id)
        pod = self.d.pods / "pod"
        self.publish(v.volume_id, pod)
        (pod / "x").write_text("1")
        os.kill(self.d.fake_pid(), signal.SIGKILL)
        wait_for(lambda: self.d.mounts_made() == 2, 10, self.d.log.read_text)
        wait_for(lambda: self.d.log.read_text().count("mounting again") == 1, 5, self.d.log.read_text)
        self.assertEqual((pod / "x").read_text(), "1")
        self.publish(v.volume_id, pod)
        self.unpublish(v.volume_id, pod)
        self.assertFalse(pod.exists())

    def test_a_dead_file_system(self):
        d = Driver(fuse=True).start("--volume=factory")
        self.addCleanup(d.close)
        self.d.close()
        self.d = d
        v = self.create()
        self.stage(v.volume_id)
        pod, ro, away = self.d.pods / "pod", self.d.pods / "ro", self.d.pods / "away"
        self.publish(v.volume_id, pod)
        self.publish(v.volume_id, ro, readonly=True)
        (pod / "x").write_text("1")
        os.kill(self.d.fake_pid(), signal.SIGKILL)

        def reads(path):
            try:
                return (path / "x").read_text() == "1"
            except OSError:
                return False
        wait_for(lambda: reads(pod) and reads(ro) and self.d.mounts_made() == 2, 15, self.d.log.read_text)
        with self.assertRaises(OSError):
            (ro / "y").write_text("still read-only")
        self.publish(v.volume_id, away)
        # dies while the driver is away: found by the next one
        self.d.stop(signal.SIGKILL)
        os.kill(self.d.fake_pid(), signal.SIGKILL)
        self.assertFalse(reads(pod))
        self.d.start("--volume=factory")
        wait_for(lambda: reads(pod) and reads(ro) and reads(away), 15, self.d.log.read_text)
        for t in (pod, ro, away):
            self.unpublish(v.volume_id, t)
            self.assertFalse(t.exists())
        self.d.call("Node", "NodeUnstageVolume", volume_id=v.volume_id, staging_target_path=str(self.d.pods / "staging"))
        self.assertEqual([m for m in mount_points() if str(self.d.pods) in m], [])

    def test_it_stops_while_a_volume_hangs(self):
        d = Driver(fuse=True).start("--volume=factory")
        self.addCleanup(d.close)
        self.d.close()
        self.d = d
        v = self.create()
        d.freeze_fake()
        try:
            request = d.pb.NodeStageVolumeRequest(volume_id=v.volume_id, staging_target_path=str(d.pods / "s"), volume_capability=d.capability())
            stub = d.channel.unary_unary("/csi.v1.Node/NodeStageVolume", request_serializer=type(request).SerializeToString,
                                         response_deserializer=d.pb.NodeStageVolumeResponse.FromString)
            waits = stub.future(request, timeout=20)
            time.sleep(1.5)  # the kernel's cache of names has run out
            self.assertTrue(d.up())
            self.assertFalse(waits.done())
            d.stop()  # within its 10 s
        finally:
            os.kill(d.fake_pid(), signal.SIGCONT)
        d.start("--volume=factory")
        self.assertEqual(self.create().volume_id, v.volume_id)
        self.assertEqual(d.mounts_made(), 1)

    def test_the_mount_cannot_start(self):
        (self.d.volumes / "factory.fail").touch()
        with self.assertRaises(grpc.RpcError) as caught:
            self.create()
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertIn("told to fail", caught.exception.details())
        (self.d.volumes / "factory.fail").unlink()
        self.create()

    def test_the_driver_restarts(self):
        v = self.create()
        self.stage(v.volume_id)
        pod = self.d.pods / "pod"
        self.publish(v.volume_id, pod)
        self.d.stop(signal.SIGKILL)
        (pod / "x").write_text("works without the driver")
        self.d.start("--volume=factory")
        self.publish(v.volume_id, pod)
        self.assertEqual(self.create().volume_id, v.volume_id)
        self.assertEqual(self.d.mounts_made(), 1, "the mount was taken over")
        self.assertEqual(mount_points().count(str(pod)), 1)
        # everything of the node dies: mount, driver and bind mounts (a dead one has no files; here it is gone)
        self.d.stop(signal.SIGKILL)
        os.kill(self.d.fake_pid(), signal.SIGKILL)
        for m in [m for m in mount_points() if m.startswith(str(self.d.dir))]:
            subprocess.run(["umount", "-l", m], check=True)
        self.d.start("--volume=factory")
        wait_for(lambda: (pod / "x").exists(), 10, self.d.log.read_text)
        self.assertEqual(self.d.mounts_made(), 2)

    def test_many_at_once(self):
        request = self.d.pb.CreateVolumeRequest(name="same", volume_capabilities=[self.d.capability()])
        stub = self.d.channel.unary_unary("/csi.v1.Controller/CreateVolume", request_serializer=type(request).SerializeToString,
                                          response_deserializer=self.d.pb.CreateVolumeResponse.FromString)
        codes = [f.code() for f in [stub.future(request, timeout=20) for _ in range(30)]]
        self.assertEqual(set(codes) - {grpc.StatusCode.OK, grpc.StatusCode.ABORTED}, set())
        self.assertIn(grpc.StatusCode.OK, codes)
        self.assertEqual(self.d.mounts_made(), 1)

    def test_bad_bytes(self):
        raw = self.d.channel.unary_unary("/csi.v1.Controller/CreateVolume")
        with self.assertRaises(grpc.RpcError) as caught:
            raw(b"\x0a\xff\xff\xff\xff\x0f", timeout=10)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.create()


if __name__ == "__main__":
    unittest.main()
