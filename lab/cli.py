# SPDX-License-Identifier: Apache-2.0
"""./dev lab ...: the lab by hand."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from lab import leftovers
from lab.keeper import FOLDER, SOCKET
from lab.util import SOURCE, LabError, tail

USAGE = """Usage: ./dev lab VERB
  up [--bare]           start three domains and keep them; --bare: without the MES and its machines
  down                  end it; nothing stays but the logs in out/lab/log
  status                machines, units, cuts
  off b | on b          power cut of a domain, power on
  kill b api            crash one unit (etcd, api, controller, scheduler, brick, csi, node, gateway)
  cut a b | heal a b    the link between two domains; heal alone heals all
  isolate b             cut a domain off from all but its own floor
  delay a b 5ms 1ms     one-way delay and jitter
  loss a b 1%           frames lost
  exec a CMD ...        run a command in a domain (a) or on a floor (floor-a)
"""
ERROR_LOG = SOURCE / "out/lab.log"


def ask(verb, *args, timeout=60):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(timeout)
        try:
            s.connect(str(SOCKET))
        except OSError:
            raise LabError("no lab is running; ./dev lab up starts one") from None
        s.sendall(json.dumps({"do": verb, "args": args}).encode() + b"\n")
        answer = json.loads(s.makefile().readline())
    if not answer["ok"]:
        raise LabError(answer["text"])
    return answer["text"]


def up(args):
    ERROR_LOG.parent.mkdir(exist_ok=True)
    with open(ERROR_LOG, "wb") as log:
        keeper = subprocess.Popen([sys.executable, "-m", "lab.keeper", *args], cwd=SOURCE, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=log, start_new_session=True, text=True)
    try:
        for line in keeper.stdout:
            if line == "ready\n":
                return 0
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        keeper.terminate()
    status = keeper.wait(60)
    if status:
        print(f"the lab did not start; log: {ERROR_LOG}\n{tail(ERROR_LOG, 10)}", file=sys.stderr)
    return status


def end_holder():
    """A keeper that does not listen (it is still starting, or hangs) is asked by a signal."""
    try:
        words = leftovers.LOCK.read_text().split()
        pid = int(words[1].rstrip(","))
        if words[2] == str(FOLDER) and b"lab.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            time.sleep(3)
    except (OSError, ValueError, IndexError):
        pass


def down():
    try:
        ask("down")
    except LabError:
        end_holder()
        leftovers.sweep(FOLDER)
    end = time.monotonic() + 40
    while left := leftovers.remains(FOLDER):
        if time.monotonic() > end:
            raise LabError("left behind: " + "; ".join(left))
        time.sleep(0.1)
    print("nothing is left but the logs in out/lab/log")


def main(argv):
    verb, args = (argv[0], argv[1:]) if argv else ("help", [])
    if verb == "up":
        return up(args)
    if verb == "down":
        down()
    elif verb == "exec" and len(args) > 1:
        prefix = ask("argv", args[0])
        os.execvp(prefix[0], prefix + args[1:])
    elif verb in ("status", "off", "on", "kill", "cut", "heal", "isolate", "delay", "loss"):
        print(ask(verb, *args))
    else:
        print(USAGE, end="")
        return 0 if verb in ("help", "--help", "-h") else 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as problem:
        print(f"lab: {problem}", file=sys.stderr)
        sys.exit(1)
