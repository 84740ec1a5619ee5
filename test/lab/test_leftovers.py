# SPDX-License-Identifier: Apache-2.0
"""A lab that is interrupted, fails or is killed leaves nothing, or nothing that the next one does not remove."""
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from lab import Lab, leftovers
from lab.util import SOURCE, wait_for

PROGRAM = """
import sys, time
from pathlib import Path
from lab import Lab
with Lab(Path(sys.argv[1]), roles=("etcd",)) as lab:
    lab.up(30)
    print("up", flush=True)
    if sys.argv[2] == "fail":
        raise ValueError("on purpose")
    time.sleep(60)
"""


class Leftovers(unittest.TestCase):
    def setUp(self):
        self.there = [f for f in leftovers.SYSTEM_FOLDERS if Path(f).exists()]
        self.temporary = tempfile.TemporaryDirectory(prefix="kuayu-lab-test-", dir="/var/tmp")
        self.addCleanup(self.temporary.cleanup)
        self.dir = Path(self.temporary.name).resolve()
        self.addCleanup(leftovers.sweep, self.dir)

    def begin(self, how="wait"):
        # As from a terminal: a shell's background job has SIGINT ignored, and Python leaves it so.
        p = subprocess.Popen([sys.executable, "-c", PROGRAM, self.dir, how], cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.kill)
        self.assertEqual(p.stdout.readline(), "up\n")
        self.assertNotEqual(leftovers.remains(self.dir), [])
        return p

    def test_interrupted(self):
        for s in (signal.SIGINT, signal.SIGTERM):
            p = self.begin()
            p.send_signal(s)
            p.wait(30)
            self.assertEqual(leftovers.remains(self.dir), [])

    def test_failed(self):
        p = self.begin("fail")
        p.wait(30)
        self.assertIn("on purpose", p.stderr.read())
        self.assertEqual(leftovers.remains(self.dir), [])

    def test_killed(self):
        p = self.begin()
        p.kill()
        p.wait(10)
        wait_for("its processes end with it", lambda: not any(x.startswith("process") for x in leftovers.remains(self.dir)), 15)
        leftovers.sweep(self.dir)
        self.assertEqual(leftovers.remains(self.dir), [])
        self.assertEqual([f for f in leftovers.SYSTEM_FOLDERS if Path(f).exists()], self.there)

    def test_next_one_takes_over(self):
        p = self.begin()
        p.kill()
        p.wait(10)
        with Lab(self.dir, roles=("etcd",)) as lab:
            lab.up(30)
        self.assertEqual(leftovers.remains(self.dir), [])


if __name__ == "__main__":
    unittest.main()
