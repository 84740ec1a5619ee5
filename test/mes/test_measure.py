# SPDX-License-Identifier: Apache-2.0
"""lab.measure on a small made-up run in which everything that can go wrong goes wrong once."""
import json
import os
import tempfile
import unittest
import xml.dom.minidom

from lab import measure, plot


class MeasureTest(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.write(tmp.name, "machines-a.jsonl", [
            {"ev": "report", "m": "a-001", "seq": 1, "at": 9000, "t": 9020, "tries": 1},
            {"ev": "report", "m": "a-001", "seq": 2, "at": 10500, "t": 12900, "tries": 3},
            {"ev": "order", "m": "a-001", "id": "1", "key": "o-1-1", "t": 9060},
            {"ev": "order", "m": "a-001", "id": "2", "key": "o-1-2", "t": 13000},
            {"ev": "order", "m": "a-001", "id": "3", "key": "o-1-2", "t": 13001},
            {"ev": "dropped", "m": "a-001", "seq": 3, "at": 11000, "t": 12000},
            {"ev": "end", "m": "a-001", "sent": 3, "acked": 2, "pending": 0, "t": 20000}])
        self.write(tmp.name, "orders-a.jsonl", [
            {"ev": "placed", "key": "o-1-1", "m": "a-001", "t0": 9000, "t": 9000},
            {"ev": "order", "key": "o-1-1", "m": "a-001", "t0": 9000, "tries": 1, "status": 201, "t": 9040},
            {"ev": "placed", "key": "o-1-2", "m": "a-001", "t0": 10100, "t": 10100},
            {"ev": "order", "key": "o-1-2", "m": "a-001", "t0": 10100, "tries": 2, "status": 200, "t": 12500},
            {"ev": "placed", "key": "o-1-3", "m": "a-001", "t0": 30000, "t": 30000},
            {"ev": "order", "key": "o-1-3", "m": "a-001", "t0": 30000, "tries": 1, "status": 201, "t": 30040}])
        with open(os.path.join(tmp.name, "orders-a.jsonl"), "a") as f:
            f.write('{"ev":"order","key":"cut in the mid')
        self.run_ = measure.Run(tmp.name, 10000, {"a": ["o-1-1", "o-1-2", "o-1-3"], "b": ["o-1-1", "o-1-1", "o-1-2"]},
                                [("a-001", 1), ("a-001", 2), ("a-001", 2)])

    def write(self, folder, name, events):
        with open(os.path.join(folder, name), "w") as f:
            f.writelines(json.dumps(e) + "\n" for e in events)

    def test_orders(self):
        self.assertEqual(self.run_.orders(), {"acknowledged": 3, "lost": 1, "duplicated": 2})

    def test_reports(self):
        self.assertEqual(self.run_.reports(), {"sent": 3, "stored": 2, "lost": 1, "duplicated": 1, "late": 1, "success": 0.666667})

    def test_dispatch(self):
        d = self.run_.dispatch_ms()
        self.assertEqual((d["before"]["p50"], d["during"]["p99"], d["after"]["p50"]), (60, 2900, None))

    def test_warm_up_counts_only_in_dispatch(self):
        self.run_.warm_up_s = 0.5
        self.assertIsNone(self.run_.dispatch_ms()["before"]["p50"])
        self.assertEqual(self.run_.orders()["acknowledged"], 3)

    def test_recovery_and_transactions(self):
        r = self.run_.result(1.5)
        self.assertEqual(r["recovery_s"], {"reports": 2.9, "orders": 2.5, "pods": 1.5, "database": None})
        self.assertEqual(r["transactions"], {"tried": 6, "committed": 5, "failed": 1, "retried": 3})

    def test_percentile_is_nearest_rank(self):
        self.assertEqual(measure.percentile(list(range(1, 101)), 99), 99)
        self.assertEqual(measure.percentile([7], 99), 7)
        self.assertIsNone(measure.percentile([], 50))

    def test_plot_is_well_formed(self):
        spec = {"title": "<a>", "note": "", "dispatches": [(-1, 60), (0.1, 2900)], "rates": self.run_.acked_per_second(),
                "off_s": (0, 5), "off_text": "off", "begin_s": -5, "end_s": 20}
        xml.dom.minidom.parseString(plot.svg("t & u", "s", [spec, spec]))


if __name__ == "__main__":
    unittest.main()
