# SPDX-License-Identifier: Apache-2.0
"""Do the simulator's checkers bite? Each patch under planted/ breaks the protocol (or a rule that a brick must keep) in one place. It is applied to a
copy of the sources, the simulator is built from them, and must find it within a bounded number of schedules, by a checker that is made for it."""
import concurrent.futures
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
# The same in schedules with files and folders.
FOUND_BY_FILES = {
    "step_done_twice": {"metadata_tree", "names_linearizable", "operations"},
    "step_skipped_when_it_was_lost": {"metadata_tree", "names_linearizable", "one_name_a_folder", "operations"},
    "rename_over_folder_without_kill": {"metadata_tree"},
    "truncate_generation_ignored": {"no_old_generation"},
    "delta_believes_an_earlier_session": {"replicas_converge"},
}
RUNS_FILES = 2500
CC = ["cc", "-O1", "-std=gnu17", "-D_GNU_SOURCE", "-fno-strict-aliasing", "-I", "src", "-I", "."]


def at_once(call, values):
    """call(value) of each, one a processor; the results in order."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(call, values))


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
        cls.sources = [s for d in ("sim", "src/core/repl", "src/core/vfs", "src/core/place")
                       for s in sorted(glob.glob(d + "/*.c", root_dir=SOURCE))]
        at_once(lambda s: objects_of(SOURCE, [s], cls.objects), cls.sources)

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
            again = [s for s in self.sources if not s.startswith("sim/")] if any(
                t.endswith(".h") for t in touched) else touched
            objects_of(root, again, objects)
        exe = os.path.join(root, "simulator")
        libs = glob.glob(os.path.join(SOURCE, "build/src/base/*.a"))
        subprocess.run(["cc", "-o", exe, *glob.glob(os.path.join(objects, "*.o")), *libs, "-ljansson", "-luv", "-lcrypto", "-lpthread",
                        "-lm"],
                       check=True)
        return exe

    def run_sim(self, exe, runs, *more):
        return subprocess.run([exe, "--runs", str(runs), "--first", *more], capture_output=True, text=True, timeout=900)

    def test_the_list_is_whole(self):
        self.assertEqual({os.path.basename(p)[:-6] for p in glob.glob(PLANTED + "/*.patch")},
                         set(FOUND_BY) | set(FOUND_BY_FILES))
        self.assertGreaterEqual(len(FOUND_BY), 5)
        self.assertGreaterEqual(len(FOUND_BY_FILES), 3)

    def test_without_a_fault_nothing_is_found(self):
        exe = self.simulator()
        for runs, more in ((500, ()), (200, ("--files",))):
            p = self.run_sim(exe, runs, *more)
            self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
            self.assertIn(f"{runs} schedules, 0 violations", p.stdout)

    def found(self, checkers_of, runs, *more):
        names = sorted(checkers_of)
        ends = at_once(lambda n: self.run_sim(self.simulator(os.path.join(PLANTED, n + ".patch")), runs, *more), names)
        for name, p in zip(names, ends):
            with self.subTest(name):
                found = re.search(r"^seed (\d+): (\w+): (.*)$", p.stdout, re.M)
                self.assertIsNotNone(found, f"not found in {runs} schedules\n{p.stdout}{p.stderr}")
                self.assertEqual(p.returncode, 1)
                print(f"{name}: seed {found[1]}, {found[2]}: {found[3]}")
                self.assertIn(found[2], checkers_of[name])

    def test_each_is_found(self):
        self.found(FOUND_BY, RUNS)

    def test_each_is_found_with_files(self):
        self.found(FOUND_BY_FILES, RUNS_FILES, "--files")


if __name__ == "__main__":
    unittest.main()
