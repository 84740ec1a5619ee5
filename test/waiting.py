# SPDX-License-Identifier: Apache-2.0
"""What tests need to fail only for a fault of the product: ports that nobody else gets, and how long to wait for what has no promised time."""
import fcntl
import os
import random
import socket
import tempfile

# Below the kernel's range for outgoing connections (ip_local_port_range), so that none of those takes a port between its choice and its use.
PORTS = range(12000, 18000)
LOCKS = os.path.join(tempfile.gettempdir(), "kuayu-test-ports")
PATIENCE = 3  # a loaded machine is so many times slower than those who wrote the bounds thought

_held = []


def free_port(address="127.0.0.1"):
    """A port that is free, and this process's until it ends: other tests that run beside it get others."""
    os.makedirs(LOCKS, exist_ok=True)
    for port in random.SystemRandom().sample(PORTS, 200):
        lock = open(os.path.join(LOCKS, str(port)), "w", encoding="ascii")  # pylint: disable=consider-using-with
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as s:
                s.bind((address, port))
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return port
    raise AssertionError("no port is free")


def patient(seconds):
    """For waits that end as soon as something is there: how long that takes is not what is tested. A promised time is asserted by the test itself."""
    return seconds * PATIENCE
