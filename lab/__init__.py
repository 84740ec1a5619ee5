# SPDX-License-Identifier: Apache-2.0
"""Three domains on one machine, as a library: see docs/lab.md.

    from lab import Lab
    with Lab() as lab:
        lab.up()
        lab.power_off("b")
"""
from lab.core import DOMAINS, Lab
from lab.util import LabError, wait_for

__all__ = ["DOMAINS", "Lab", "LabError", "wait_for"]
