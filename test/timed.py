# SPDX-License-Identifier: Apache-2.0
"""unittest, which says at its end where the time went: `python3 -m test.timed [words of python3 -m unittest]`.

The slowest tests, and what classes and modules need to be set up and taken down, each with the processor time that the whole machine
spent meanwhile (in processors): a test that is long and light waits for something, and a shorter wait or a shared set-up helps; one
that is long and heavy needs less to do. KUAYU_DURATIONS=N: so many lines, 12 when not given; 0: none."""
import os
import time
import unittest

LINES = int(os.environ.get("KUAYU_DURATIONS", "12"))
TICKS = os.sysconf("SC_CLK_TCK")
spent = {}  # what -> [wall seconds, processor seconds]


def busy():
    """Processor seconds of this machine since its start (proc_stat(5): user nice system idle iowait irq softirq steal)."""
    with open("/proc/stat", encoding="ascii") as f:
        n = [int(x) for x in f.readline().split()[1:9]]
    return (sum(n) - n[3] - n[4]) / TICKS


class Span:
    """Adds the time between its making and end() to what it is about."""

    def __init__(self, what):
        self.what, self.wall, self.cpu = what, time.monotonic(), busy()

    def end(self):
        total = spent.setdefault(self.what, [0.0, 0.0])
        total[0] += time.monotonic() - self.wall
        total[1] += busy() - self.cpu


def _measured(what, hook, *args):
    span = Span(what)
    hook(*args)
    span.end()


class Suite(unittest.TestSuite):
    """The fixtures of classes and modules are measured here; unittest has no hook for it (see unittest/suite.py). These are called before each test, and do
    nothing, in no time, when its class or module is that of the test before."""

    def _handleModuleFixture(self, test, result):
        _measured(f"{type(test).__module__} (set-up)", super()._handleModuleFixture, test, result)

    def _handleClassSetUp(self, test, result):
        _measured(f"{type(test).__module__}.{type(test).__qualname__} (set-up)", super()._handleClassSetUp, test, result)

    def _tearDownPreviousClass(self, test, result):
        before = result._previousTestClass or type(test)
        _measured(f"{before.__module__}.{before.__qualname__} (taking down)", super()._tearDownPreviousClass, test, result)


class Result(unittest.TextTestResult):
    def startTest(self, test):
        super().startTest(test)
        self._span = Span(test.id())

    def stopTest(self, test):
        self._span.end()
        super().stopTest(test)


class Runner(unittest.TextTestRunner):
    resultclass = Result

    def run(self, test):
        start = Span("all")
        result = super().run(test)
        start.end()
        if LINES:
            wall, cpu = spent.pop("all")
            self.stream.writeln(f"Time: {wall:.1f} s, {cpu / max(wall, 0.001):.1f} processors busy; most of it:")
            for what, (seconds, used) in sorted(spent.items(), key=lambda x: -x[1][0])[:LINES]:
                self.stream.writeln(f"{seconds:8.1f} s  {used / max(seconds, 0.001):3.1f}  {what}")
            self.stream.flush()
        return result


def main():
    loader = unittest.TestLoader()
    loader.suiteClass = Suite
    unittest.main(module=None, testLoader=loader, testRunner=Runner)


if __name__ == "__main__":
    main()
