# SPDX-License-Identifier: Apache-2.0
"""Keeps a lab running behind `./dev lab up`: owns its machines, and does what `./dev lab ...` asks for over a Unix socket.

One JSON object a line and connection: {"do": "cut", "args": ["a", "b"]} -> {"ok": ..., "text": "..."}. Lines before "ready" on
standard output are for the person who started it; then standard output is closed."""
import json
import os
import socket
import sys

from lab import product
from lab.core import Lab
from lab.util import SOURCE, LabError

FOLDER = SOURCE / "out/lab"
SOCKET = FOLDER / "keeper.sock"


class Keeper:
    def __init__(self, lab):
        self.lab, self.ending = lab, False

    # ---- what can be asked for ----
    def do_status(self):
        lines = []
        for m in self.lab.machines():
            units = ""
            if m.on:
                units = "".join(f"\n    {u}: {'running' if s['running'] else 'not running'}, started {s['starts']} time(s)"
                                for u, s in m.status().items())
            lines.append(f"{m.name} ({m.address}): {'on' if m.on else 'off'}{units}")
        links = self.lab.wire.command("stats")["links"]
        cuts = sorted({" - ".join(sorted((x["from"], x["to"]))) for x in links if x["cut"]})
        lines.append("links cut: " + (", ".join(cuts) or "none"))
        return "\n".join(lines)

    def do_off(self, name):
        self.lab.power_off(name)
        return f"{name} is off"

    def do_on(self, name):
        self.lab.power_on(name)
        return f"{name} is on; its units are starting"

    def do_cut(self, a, b):
        self.lab.cut(a, b)
        return f"nothing passes between {a} and {b}"

    def do_isolate(self, a):
        self.lab.isolate(a)
        return f"{a} is cut off from all but its own floor"

    def do_heal(self, a="", b=""):
        if not a:
            self.lab.heal_all()
            return "no link is cut"
        self.lab.heal(a, b)
        return f"{a} and {b} see each other"

    def do_delay(self, a, b, delay, jitter="0ms"):
        self.lab.delay(a, b, delay, jitter)
        return f"{a} - {b}: {delay} +- {jitter} each way"

    def do_loss(self, a, b, percent):
        self.lab.loss(a, b, percent.rstrip("%"))
        return f"{a} - {b}: {percent} lost"

    def do_kill(self, name, unit):
        self.lab.kill(name, unit)
        return f"{unit} of {name} was killed; it is started again as after a crash"

    def do_argv(self, name):
        """The command line that runs something in a machine; the caller adds what."""
        return self.lab.machine(name).argv()

    def do_down(self):
        self.ending = True
        return "ending"

    # ---- serving ----
    def answer(self, line):
        try:
            request = json.loads(line)
            act = getattr(self, f"do_{request['do']}")
            return {"ok": True, "text": act(*request.get("args", []))}
        except (LabError, TypeError, AttributeError, ValueError, KeyError, OSError) as e:
            return {"ok": False, "text": str(e)}

    def serve(self, listener):
        while not self.ending:
            client, _ = listener.accept()
            with client:
                client.settimeout(10)
                try:
                    line = client.makefile().readline()
                    client.sendall(json.dumps(self.answer(line)).encode() + b"\n")
                except OSError:
                    pass


def say(text):
    print(text, flush=True)


def main(argv):
    bare = "--bare" in argv
    with Lab(FOLDER, say=say) as lab:
        say("starting three domains and their factory floors")
        lab.up()
        say("all roles are ready")
        if not bare:
            product.deploy(lab, say)
            product.start_factory(lab)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(SOCKET))
        listener.listen(4)
        say(product.look_around(lab, bare))
        say("ready")
        devnull = os.open(os.devnull, os.O_RDWR)
        os.dup2(devnull, 1)
        Keeper(lab).serve(listener)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as problem:
        say(f"failed: {problem}")
        sys.exit(1)
