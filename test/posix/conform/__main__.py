# SPDX-License-Identifier: Apache-2.0
import argparse
import os
import sys
import tempfile
import time

from test.posix.conform import access, content, creation, names, times
from test.posix.conform.base import Checker

TABLES = {"creation": creation, "names": names, "access": access, "times": times, "content": content}


def check(folder, only=None, outside=None):
    """Runs the tables below folder. (assertions, failures: texts)."""
    outside = outside or next(d for d in ("/dev/shm", "/tmp", "/") if os.stat(d).st_dev != os.stat(folder).st_dev)
    base = tempfile.mkdtemp(prefix="conform-", dir=folder)
    os.chmod(base, 0o755)
    old = os.umask(0)
    c = Checker(base, outside)
    try:
        for name, table in TABLES.items():
            if not only or name in only:
                table.run(c)
    finally:
        os.umask(old)
        os.rmdir(base)
    return c.count, c.failures


def main():
    p = argparse.ArgumentParser(prog="python3 -m test.posix.conform")
    p.add_argument("folder")
    p.add_argument("--only")
    a = p.parse_args()
    start = time.monotonic()
    count, failures = check(a.folder, a.only.split(",") if a.only else None)
    for text in failures:
        print(text)
    print(f"{count} assertions, {len(failures)} failed, {time.monotonic() - start:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
