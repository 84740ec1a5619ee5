# SPDX-License-Identifier: Apache-2.0
"""Bounded waiting, errors that name the log, and where things are."""
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

SOURCE = Path(os.environ.get("KUAYU_SOURCE") or Path(__file__).resolve().parent.parent)
BUILD = Path(os.environ.get("KUAYU_BUILD") or SOURCE / "build")
KUAYU = BUILD / "src/cli/kuayu"


LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before anybody forks


def die_with_parent():
    """For preexec_fn: an interrupted test leaves no process."""
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class LabError(Exception):
    """Says what, why and where the log is, for people."""


def tail(path, lines=5):
    try:
        with open(path, errors="replace") as f:
            return "".join(f.readlines()[-lines:]).rstrip()
    except OSError:
        return ""


def with_log(text, *logs):
    """text with the places and last lines of the logs that exist."""
    for log in logs:
        last = tail(log)
        text += f"\n  log: {log}" + ("\n    " + last.replace("\n", "\n    ") if last else " (empty)")
    return text


def wait_for(what, probe, timeout, logs=(), interval=0.05):
    """Calls probe until it returns something true, which is returned. An exception counts as "not yet"; the last one is told."""
    end, why = time.monotonic() + timeout, ""
    while True:
        try:
            result = probe()
            if result:
                return result
            why = ""
        except LabFatal:
            raise
        except Exception as e:  # whatever the probe does: connection refused, not found, bad answer
            why = f" ({type(e).__name__}: {e})"
        if time.monotonic() >= end:
            raise LabError(with_log(f"{what}: not within {timeout:g} s{why}", *logs))
        time.sleep(interval)


class LabFatal(LabError):
    """Waiting longer cannot help."""


def run(*argv, timeout=30, check=True, **options):
    """A command's completed process with text output; LabError with its message when it fails."""
    argv = [str(a) for a in argv]
    try:
        p = subprocess.run(argv, timeout=timeout, text=True, capture_output=True, **options)
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)}: not ended within {timeout} s") from None
    except FileNotFoundError:
        raise LabError(f"{argv[0]}: no such command; run ./dev setup and ./dev build") from None
    if check and p.returncode:
        raise LabError(f"{' '.join(argv)}: status {p.returncode}: {(p.stderr or p.stdout).strip()[-800:]}")
    return p
