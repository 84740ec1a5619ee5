# SPDX-License-Identifier: Apache-2.0
"""Sequential write with a one-way delay between the domains (lab-wire): the product at several delays, GlusterFS at 5 ms."""
from bench.storage.contender import drop_caches
from bench.storage.works import Run

DELAYS_MS = (0, 1, 2, 5, 10)
PEER_DELAYS_MS = (0, 5)


def rows():
    return [f"delay_seq_write_{ms}ms" for ms in DELAYS_MS]


def measure(make, name, settings, keep, say):
    """make() starts the contender on a wire; keep(row, value) for each delay."""
    contender = make()
    try:
        run = Run(contender, settings)
        for ms in DELAYS_MS if name == "product" else PEER_DELAYS_MS:
            contender.network.delay(ms)
            run.remove("big")
            drop_caches()
            value = run.work("seq_write", "big", f"--size={settings.delay_mib}", timeout=300)["value"]
            say(f"    {f'delay_seq_write_{ms}ms':<22} {value:10.1f} MB/s")
            keep(f"delay_seq_write_{ms}ms", value)
    finally:
        contender.network.delay(0)
        contender.close()
