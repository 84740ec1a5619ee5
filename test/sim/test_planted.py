# SPDX-License-Identifier: Apache-2.0
"""Do the simulator's checkers bite? Each patch under planted/ breaks the protocol (or a rule that a brick must keep) in one place. It is applied to a
copy of the sources, the simulator is built from them, and must find it within a bounded number of schedules, by a checker that is made for it."""
import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLANTED = os.path.join(SOURCE, "test/sim/planted")
RUNS = 4000
# Which checkers may be the one that finds it; several where a run decides what is seen first.
FOUND_BY = {
    "commit_before_all_acks": {"committed_never_lost", "exactly_once", "linearizable"},
    "reads_without_lease": {"linearizable", "committed_never_lost"},
    "unsure_promotes_itself": {"committed_never_lost", "fsync_durable", "one_primary_an_epoch"},
    "divergent_tail_kept": {"replicas_converge", "committed_never_lost"},
    "old_epoch_append": {"fenced"},
    "fsync_of_the_primary_only": {"fsync_durable"},
    "retry_done_again": {"exactly_once"},
    "promotion_without_lease_wait": {"linearizable"},
    "read_without_joining_lease": {"linearizable"},
}
CC = ["cc", "-O1", "-std=gnu17", "-D_GNU_SOURCE", "-fno-strict-aliasing", "-I", "src", "-I", "."]


def objects_of(root, names, out):
    for name in names:
        subprocess.run([*CC, "-c", name, "-o", os.path.join(out, name.replace("/", "_") + ".o")], cwd=root, check=True)


class Planted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="kuayu-planted-")
        cls.addClassCleanup(shutil.rmtree, cls.dir, True)
        cls.objects = os.path.join(cls.dir, "objects")
        os.mkdir(cls.objects)
        cls.sources = [s for s in sorted(glob.glob("sim/*.c", root_dir=SOURCE)) if s != "sim/mem.c"]
        cls.sources += sorted(glob.glob("src/core/repl/repl*.c", root_dir=SOURCE))
        cls.sources = [s for s in cls.sources if not s.endswith("replica.c")]
        cls.sources += ["src/core/repl/record.c", "src/core/repl/crc32c.c"]
        objects_of(SOURCE, cls.sources, cls.objects)

    def simulator(self, patch=None):
        """The simulator with patch; what it does not touch is built once."""
        root = tempfile.mkdtemp(dir=self.dir)
        objects = os.path.join(root, "objects")
        shutil.copytree(self.objects, objects)
        if patch:
            for d in ("src/core", "src/base", "sim"):
                shutil.copytree(os.path.join(SOURCE, d), os.path.join(root, d))
            subprocess.run(["patch", "-p1", "-s", "-i", patch], cwd=root, check=True)
            with open(patch, encoding="utf-8") as f:
                touched = re.findall(r"^\+\+\+ b/(\S+)", f.read(), re.M)
            self.assertTrue(touched)
            again = [s for s in self.sources if s.startswith("src/core/repl/repl")] if any(
                t.endswith(".h") for t in touched) else touched
            objects_of(root, again, objects)
        exe = os.path.join(root, "simulator")
        libs = glob.glob(os.path.join(SOURCE, "build/src/base/*.a"))
        subprocess.run(["cc", "-o", exe, *glob.glob(os.path.join(objects, "*.o")), *libs, "-ljansson", "-luv", "-lpthread", "-lm"],
                       check=True)
        return exe

    def run_sim(self, exe, runs):
        return subprocess.run([exe, "--runs", str(runs), "--first"], capture_output=True, text=True, timeout=900)

    def test_the_list_is_whole(self):
        self.assertEqual({os.path.basename(p)[:-6] for p in glob.glob(PLANTED + "/*.patch")}, set(FOUND_BY))
        self.assertGreaterEqual(len(FOUND_BY), 5)

    def test_without_a_fault_nothing_is_found(self):
        p = self.run_sim(self.simulator(), 500)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        self.assertIn("500 schedules, 0 violations", p.stdout)

    def test_each_is_found(self):
        for name in sorted(FOUND_BY):
            with self.subTest(name):
                p = self.run_sim(self.simulator(os.path.join(PLANTED, name + ".patch")), RUNS)
                found = re.search(r"^seed (\d+): (\w+): (.*)$", p.stdout, re.M)
                self.assertIsNotNone(found, f"not found in {RUNS} schedules\n{p.stdout}{p.stderr}")
                self.assertEqual(p.returncode, 1)
                print(f"{name}: seed {found[1]}, {found[2]}: {found[3]}")
                self.assertIn(found[2], FOUND_BY[name])


if __name__ == "__main__":
    unittest.main()
