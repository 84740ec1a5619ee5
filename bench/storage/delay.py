# SPDX-License-Identifier: Apache-2.0
"""Sequential write with a one-way delay between the domains (lab-wire): the product at several delays, without and with write-behind;
GlusterFS, which buffers by default, at 5 ms."""
import time

from bench.storage.contender import drop_caches
from bench.storage.works import Run

DELAYS_MS = (0, 1, 2, 5, 10)
PEER_DELAYS_MS = (0, 5)
SETTLE_S = 11  # a connection's congestion control (BBR) keeps the smallest round trip of the last 10 s: what it saw before the change of delay


def rows():
    return [*[f"delay_seq_write_{ms}ms" for ms in DELAYS_MS], *[f"delay_behind_seq_write_{ms}ms" for ms in DELAYS_MS]]


def measure(make, name, settings, keep, say):
    """make() starts the contender on a wire; keep(row, value) for each delay."""
    contender, product = make(), name == "product"
    try:
        run = Run(contender, settings)
        for behind in (False, True) if product else (True,):
            contender.write_behind(behind)
            for ms in DELAYS_MS if product else PEER_DELAYS_MS:
                contender.network.delay(ms)
                run.remove("big")
                drop_caches()
                time.sleep(SETTLE_S)
                value = run.work("seq_write", "big", f"--size={settings.delay_mib}", timeout=300)["value"]
                for row in [f"delay_{'behind_' if behind else ''}seq_write_{ms}ms"] + ([] if product else [f"delay_seq_write_{ms}ms"]):
                    say(f"    {row:<28} {value:10.1f} MB/s")
                    keep(row, value)
    finally:
        contender.network.delay(0)
        contender.close()
