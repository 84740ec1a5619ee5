# SPDX-License-Identifier: Apache-2.0
"""Start latency: POST of a pod -> first output of its container (time stamp of its log), image present. Prints milliseconds.
python3 -m test.node.measure [COUNT]"""
import datetime
import json
import statistics
import sys
import time

from test.node.cluster import Cluster, until


def when(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def main(count):
    c = Cluster()
    try:
        c.nodes["a1"].start()
        c.run_pod("warm", "echo x; sleep 1000")
        c.wait_log("warm", "x")
        time.sleep(1)
        first, seen = [], []
        for i in range(count):
            begun = time.time()
            c.run_pod(f"m{i}", "echo x; sleep 1000")
            until(lambda: (c.pod(f"m{i}") or {}).get("status", {}).get("phase") == "Running", 10, c.logs, every=0.002)
            seen.append((time.time() - begun) * 1000)
            c.wait_log(f"m{i}", "x")
            first.append((when(c.log(f"m{i}", query="?timestamps=true").split()[0]) - begun) * 1000)
            time.sleep(0.3)
        out = {name: {"median": round(statistics.median(v), 1), "p90": round(sorted(v)[int(len(v) * 0.9)], 1), "min": round(min(v), 1)}
               for name, v in (("first_output_ms", first), ("running_visible_ms", seen))}
        rss = int(next(x for x in open(f"/proc/{c.nodes['a1'].agent_pid()}/status") if x.startswith("VmRSS")).split()[1])
        out["agent_rss_kib"] = rss
        print(json.dumps(out))
    finally:
        c.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
